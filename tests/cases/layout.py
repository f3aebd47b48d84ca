"""Rows of the contract for pad, and what padding means, for reading. one_hot gives integers and has tests of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.harness import Row


def padded(input: np.ndarray, pad: Any, mode: str = "constant", value: float | None = None) -> np.ndarray:
    """Crops first, then NumPy's pad, whose names for the modes are others."""
    pairs = [(0, 0)] * (input.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2]))[::-1]
    if mode == "reflect":  # the mirror shows what is cropped as well
        for axis, (before, after) in enumerate(pairs):
            n = input.shape[axis]
            j = np.abs(np.arange(-before, n + after))
            input = input.take(np.where(j < n, j, 2 * (n - 1) - j), axis)
        return input
    crop = tuple(slice(max(-before, 0), n + min(after, 0)) for n, (before, after) in zip(input.shape, pairs))
    margins = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if mode == "constant":
        return np.pad(input[crop], margins, constant_values=value or 0)
    return np.pad(input[crop], margins, {"replicate": "edge", "circular": "wrap"}[mode])


ROWS = [
    Row("constant", "pad", {"input": (2, 3, 5, 19)}, padded, {"pad": (1, 2, 0, 3), "value": -1.5}),
    Row("crop", "pad", {"input": (2, 3, 7, 40)}, padded, {"pad": (-3, 2, 1, -2)}),
    Row("any_rank", "pad", {"input": (2, 3, 2, 4, 2, 3)}, padded, {"pad": (1, 0, 2, 1, 0, 1, -1, 2, 1, 1), "value": 2.0}),
    Row("reflect", "pad", {"input": (2, 3, 4, 5)}, padded, {"pad": (4, 3, 2, 3), "mode": "reflect"}),
    Row("reflect_1d", "pad", {"input": (2, 3, 37)}, padded, {"pad": (-2, 5), "mode": "reflect"}),
    Row("replicate", "pad", {"input": (2, 3, 2, 4, 3)}, padded, {"pad": (1, 7, 2, 0, 3, 1), "mode": "replicate"}),
    Row("circular", "pad", {"input": (2, 3, 4, 21)}, padded, {"pad": (2, 21, 4, 1), "mode": "circular"}),
    Row("circular_unbatched", "pad", {"input": (2, 5, 6)}, padded, {"pad": (-1, 4, 2, -2), "mode": "circular"}, batched=()),
]

OTHERS = ("one_hot",)
