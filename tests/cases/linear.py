"""Rows of the products, with einsum for a reference."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.activations import activation as activated
from tests.harness import Row


def linear(input: Any, weight: Any, bias: Any = None, activation: str | None = None) -> np.ndarray:
    y = np.einsum("...i,oi->...o" if weight.ndim == 2 else "...i,i->...", input, weight)
    return activated(activation, y if bias is None else y + bias)


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> np.ndarray:
    y = np.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def matmul(input: Any, other: Any) -> np.ndarray:
    return np.matmul(input, other)


def add_product(input: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> np.ndarray:
    return beta * input + alpha * np.einsum("...ik,...kj->...ij", a, b)


def addmm(input: Any, mat1: Any, mat2: Any, **factors: float) -> np.ndarray:
    return add_product(input, mat1, mat2, **factors)


def baddbmm(input: Any, batch1: Any, batch2: Any, **factors: float) -> np.ndarray:
    return add_product(input, batch1, batch2, **factors)


ROWS = [
    Row("few_rows", "linear", {"input": (3, 21), "weight": (10, 21), "bias": (10,)}, linear),
    Row("many_rows", "linear", {"input": (5, 4, 19), "weight": (300, 19), "bias": (300,)}, linear),
    Row("plain_vector", "linear", {"input": (7,), "weight": (5, 7), "bias": None}, linear, batched=()),
    Row("one_output", "linear", {"input": (11, 6), "weight": (6,), "bias": ()}, linear),
    Row("fused_gelu", "linear", {"input": (9, 6), "weight": (17, 6), "bias": (17,)}, linear, {"activation": "gelu"}),
    Row("plain", "bilinear", {"input1": (5, 7), "input2": (5, 4), "weight": (6, 7, 4), "bias": (6,)}, bilinear, batched=("input1", "input2")),
    Row("more_axes", "bilinear", {"input1": (2, 3, 9), "input2": (2, 3, 11), "weight": (2, 9, 11), "bias": None}, bilinear, batched=("input1", "input2")),
    Row("matrices", "matmul", {"input": (9, 7), "other": (7, 5)}, matmul),
    Row("vectors", "matmul", {"input": (70,), "other": (70,)}, matmul, batched=()),
    Row("matrix_vector", "matmul", {"input": (6, 13), "other": (13,)}, matmul),
    Row("vector_batch", "matmul", {"input": (13,), "other": (3, 13, 20)}, matmul, batched=()),
    Row("one_on_the_right", "matmul", {"input": (3, 4, 5, 6), "other": (1, 6, 7)}, matmul),
    Row("one_on_the_left", "matmul", {"input": (1, 5, 6), "other": (3, 6, 7)}, matmul, batched=()),
    Row("broadcast", "matmul", {"input": (2, 1, 5, 6), "other": (3, 6, 7)}, matmul),
    Row("same_batch", "matmul", {"input": (4, 5, 6), "other": (4, 6, 20)}, matmul, batched=("input", "other")),
    Row("plain", "addmm", {"input": (6, 8), "mat1": (6, 5), "mat2": (5, 8)}, addmm, {"beta": 0.5, "alpha": -2}, batched=("input", "mat1")),
    Row("row_added", "addmm", {"input": (8,), "mat1": (6, 5), "mat2": (5, 8)}, addmm, batched=("mat1",)),
    Row("column_added", "addmm", {"input": (6, 1), "mat1": (6, 5), "mat2": (5, 8)}, addmm, {"alpha": 3}, batched=("input", "mat1")),
    Row(
        "plain", "baddbmm", {"input": (3, 6, 8), "batch1": (3, 6, 5), "batch2": (3, 5, 8)}, baddbmm, {"beta": 2, "alpha": 0.5},
        batched=("input", "batch1", "batch2"),
    ),
    Row("broadcast", "baddbmm", {"input": (1, 8), "batch1": (3, 6, 5), "batch2": (3, 5, 8)}, baddbmm, batched=("batch1", "batch2")),
]  # fmt: skip
