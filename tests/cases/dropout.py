"""Rows of the dropout family. A reference takes the mask from the operation itself, applied to ones: that it is a function of the
seed alone is what the rows test; how it is distributed, ``tests/test_dropout.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastops
from tests.harness import Row

SELU_FLOOR = -1.7580993408473766  # selu(-inf)


def masked(op: str) -> Any:
    """x mask / (1 - p)"""

    def reference(input: np.ndarray, p: float, **options: Any) -> np.ndarray:
        kept = getattr(fastops, op)(np.ones(input.shape), p=p, **options) > 0
        return input * kept / (1 - p)

    return reference


def self_normalizing(op: str) -> Any:
    """a (x where kept, else the floor of selu) + b, with a and b that keep mean 0 and variance 1."""

    def reference(input: np.ndarray, p: float, **options: Any) -> np.ndarray:
        kept = getattr(fastops, op)(np.zeros(input.shape), p=p, **options) > 0
        a = 1 / np.sqrt((1 - p) * (1 + p * SELU_FLOOR**2))
        return a * np.where(kept, input, SELU_FLOOR + 0 * input) - a * p * SELU_FLOOR

    return reference


def without_blocks(op: str) -> Any:
    """x mask elements / kept elements"""

    def reference(input: np.ndarray, **options: Any) -> np.ndarray:
        kept = getattr(fastops, op)(np.ones(input.shape), **options) > 0
        return input * kept * kept.size / (1e-6 + kept.sum())

    return reference


def drop_connect(weight: np.ndarray, p: float, rng: int) -> np.ndarray:
    return weight * (fastops.drop_connect(np.ones(weight.shape), p, rng=rng) > 0) / (1 - p)


# The mask depends on an element's place, so no row has a batch that could be made empty but those of whole samples or channels.
ROWS = [
    Row("plain", "dropout", {"input": (3, 5, 7)}, masked("dropout"), {"p": 0.3, "rng": 1}),
    Row("two_halves", "dropout", {"input": (1, 11000)}, masked("dropout"), {"p": 0.6, "rng": 2}),
    Row("blocks", "dropout", {"input": (3, 17000)}, masked("dropout"), {"p": 0.6, "rng": 3}),
    Row("plain", "dropout1d", {"input": (3, 5, 7)}, masked("dropout1d"), {"p": 0.3, "rng": 1}),
    Row("unbatched", "dropout1d", {"input": (9, 7)}, masked("dropout1d"), {"p": 0.3, "rng": 1}, batched=()),
    Row("plain", "dropout2d", {"input": (3, 5, 4, 6)}, masked("dropout2d"), {"p": 0.3, "rng": 1}),
    Row("large_channels", "dropout2d", {"input": (2, 3, 100, 170)}, masked("dropout2d"), {"p": 0.5, "rng": 3}),
    Row("plain", "dropout3d", {"input": (3, 5, 2, 3, 4)}, masked("dropout3d"), {"p": 0.3, "rng": 1}),
    Row("plain", "alpha_dropout", {"input": (3, 5, 7)}, self_normalizing("alpha_dropout"), {"p": 0.3, "training": True, "rng": 1}),
    Row(
        "plain", "feature_alpha_dropout", {"input": (3, 5, 4, 6)}, self_normalizing("feature_alpha_dropout"),
        {"p": 0.3, "training": True, "rng": 1},
    ),
    Row("kernel", "drop_connect", {"weight": (4, 3, 3, 3)}, drop_connect, {"p": 0.4, "rng": 1}, batched=("weight",)),
    Row("plain", "drop_block2d", {"input": (2, 3, 9, 8)}, without_blocks("drop_block2d"), {"p": 0.3, "block_size": 3, "rng": 1}),
    Row("even", "drop_block2d", {"input": (2, 3, 9, 8)}, without_blocks("drop_block2d"), {"p": 0.3, "block_size": 2, "rng": 1}),
    Row("plain", "drop_block3d", {"input": (2, 2, 5, 6, 7)}, without_blocks("drop_block3d"), {"p": 0.3, "block_size": 3, "rng": 1}),
    Row("row", "stochastic_depth", {"input": (9, 5, 3)}, masked("stochastic_depth"), {"p": 0.4, "mode": "row", "rng": 1}),
    Row("batch", "stochastic_depth", {"input": (9, 5, 3)}, masked("stochastic_depth"), {"p": 0.4, "mode": "batch", "rng": 1}),
]  # fmt: skip
