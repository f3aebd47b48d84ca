"""Rows of softmax and its relatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops.ops import softmax as family
from tests.harness import Row


def softmax(input: np.ndarray, dim: int = 1, dtype: Any = None) -> np.ndarray:
    e = np.exp(input - input.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def log_softmax(input: np.ndarray, dim: int) -> np.ndarray:
    z = input - input.max(axis=dim, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=dim, keepdims=True))


def softmin(input: np.ndarray, dim: int) -> np.ndarray:
    return softmax(-input, dim)


def gumbel_softmax(logits: np.ndarray, tau: float, dim: int, rng: int) -> np.ndarray:
    # the noise: what is added to zeros before the softmax, up to a constant of each row, which a softmax does not see
    noise = np.log(family.gumbel_softmax(np.zeros(logits.shape), dim=dim, rng=rng))
    return softmax((logits + noise) / tau, dim)


# A row is of the batch, which may be empty, unless it is summed over.
ROWS = [
    *(
        Row(name, op, {"input": shape}, reference, {"dim": dim}, batched=() if dim == 0 else ("input",))
        for op, reference in (("softmax", softmax), ("log_softmax", log_softmax))
        for name, shape, dim in (
            ("short", (7, 10), 1),
            ("shorter_than_two_vectors", (2, 3, 23), -1),
            ("middle", (2, 5, 33), 1),
            ("first", (70, 9), 0),
            ("long", (3, 1500), -1),
            ("long_columns", (1, 150, 300), -2),
        )
    ),
    Row("plain", "softmin", {"input": (3, 4, 5)}, softmin, {"dim": 1}),
    Row("last", "softmin", {"input": (9, 17)}, softmin, {"dim": 1}),
    Row("soft", "gumbel_softmax", {"logits": (4, 6, 5)}, gumbel_softmax, {"tau": 0.7, "dim": 1, "rng": 5}, batched=("logits",), tolerance=1e-4),
]
