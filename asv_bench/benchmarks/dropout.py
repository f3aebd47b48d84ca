"""Dropout on a feature map of 8x64x56x56, with a fixed seed: what a seed costs is no part of it."""

from __future__ import annotations

from typing import Any

from .common import Case, benchmarks

LARGE = (8, 64, 56, 56)
RNG = {"rng": 0}


def without_rng(name: str) -> Any:
    """PyTorch's function of this name, which draws from a generator of its own."""
    return lambda F, t, o: getattr(F, name)(t["input"], **{k: v for k, v in o.items() if k != "rng"})


CASES = {
    **{f"{op}.8x64x56x56": Case(op, {"input": LARGE}, RNG, torch=without_rng(op)) for op in ("dropout", "dropout2d")},
    **{f"{op}.8x64x56x56": Case(op, {"input": LARGE}, {**RNG, "training": True}, torch=without_rng(op)) for op in ("alpha_dropout", "feature_alpha_dropout")},
    "dropout1d.32x256x256": Case("dropout1d", {"input": (32, 256, 256)}, RNG, torch=without_rng("dropout1d")),
    "dropout3d.4x32x8x28x28": Case("dropout3d", {"input": (4, 32, 8, 28, 28)}, RNG, torch=without_rng("dropout3d")),
    "dropout.64x64": Case("dropout", {"input": (64, 64)}, RNG, torch=without_rng("dropout")),
    "drop_connect.512x512x3x3": Case("drop_connect", {"weight": (512, 512, 3, 3)}, RNG, torch=lambda F, t, o: F.dropout(t["weight"])),
    "drop_block2d.8x64x56x56": Case("drop_block2d", {"input": LARGE}, {**RNG, "p": 0.1, "block_size": 7}, torch=None),
    "drop_block3d.2x16x8x28x28": Case("drop_block3d", {"input": (2, 16, 8, 28, 28)}, {**RNG, "p": 0.1, "block_size": 3}, torch=None),
    "stochastic_depth.8x64x56x56": Case("stochastic_depth", {"input": LARGE}, {**RNG, "p": 0.2, "mode": "row"}, torch=None),
}

Forward, Backward = benchmarks(CASES)
