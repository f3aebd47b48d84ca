"""Benchmarks of embedding and embedding_bag."""

from __future__ import annotations

import numpy as np

from .common import Case, benchmarks


def indices(below, *shape):
    return lambda rng: rng.integers(0, below, shape)


def offsets(entries, bags):
    """Bags of random sizes, some of them empty."""
    return lambda rng: np.concatenate(([0], np.sort(rng.integers(0, entries + 1, bags - 1))))


TINY = {"input": indices(16, 4, 4), "weight": (16, 16)}
TINY_BAG = {"input": indices(16, 16), "weight": (16, 16), "offsets": offsets(16, 4), "per_sample_weights": (16,)}

CASES = {
    # GPT-2 has 50257 x 768; 8 x 1024 tokens are a batch
    "embedding.50k_x_512_8k": Case("embedding", {"input": indices(50000, 8, 1024), "weight": (50000, 512)}, tiny=TINY),
    "embedding.1k_x_64_8k": Case("embedding", {"input": indices(1000, 8, 1024), "weight": (1000, 64)}, tiny=TINY),
    "embedding.small": Case("embedding", {"input": indices(100, 2, 8), "weight": (100, 32)}, tiny=TINY),
    "embedding_bag.sum.50k_x_128": Case(
        "embedding_bag", {"input": indices(50000, 40000), "weight": (50000, 128), "offsets": offsets(40000, 2048)}, {"mode": "sum"}, tiny=TINY_BAG
    ),
    "embedding_bag.sum.50k_x_50": Case(
        "embedding_bag", {"input": indices(50000, 40000), "weight": (50000, 50), "offsets": offsets(40000, 2048)}, {"mode": "sum"}, tiny=TINY_BAG
    ),
    "embedding_bag.mean.50k_x_128": Case("embedding_bag", {"input": indices(50000, 2048, 20), "weight": (50000, 128)}, {"mode": "mean"}, tiny=TINY),
    "embedding_bag.max.50k_x_128": Case("embedding_bag", {"input": indices(50000, 2048, 20), "weight": (50000, 128)}, {"mode": "max"}, tiny=TINY),
    "embedding_bag.weighted.50k_x_128": Case(
        "embedding_bag",
        {"input": indices(50000, 40000), "weight": (50000, 128), "offsets": offsets(40000, 2048), "per_sample_weights": (40000,)},
        {"mode": "sum"},
        tiny=TINY_BAG,
    ),
    "embedding_bag.small": Case("embedding_bag", {"input": indices(100, 4, 8), "weight": (100, 32)}, {"mode": "mean"}, tiny=TINY),
}

Forward, Backward = benchmarks(CASES)
