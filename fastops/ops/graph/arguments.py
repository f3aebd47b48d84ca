"""Checks that the operations on graphs share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops._check import Array
from fastops.simd import segments


def edges(op: str, edge_index: Any, nodes: int) -> tuple[Array, Array]:
    """The sources and the targets of edges, (E,) each, all of them nodes."""
    pairs = segments.indices(op, "edge_index", edge_index)
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ValueError(f"{op}: edge_index must have shape (2, edges), sources then targets, got {pairs.shape}")
    segments.in_range(op, "edge_index", pairs, nodes)
    return pairs[0], pairs[1]


def axes(op: str, name: str, array: Array, *named: str) -> None:
    """``array`` must have these axes, one each."""
    if array.ndim != len(named):
        raise ValueError(f"{op}: {name} must have shape ({', '.join(named)}{',' if len(named) == 1 else ''}), got {array.shape}")


def shaped(op: str, name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    """``array``, where it is given, must have this shape."""
    if array is not None and array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {array.shape}")


def output_gradient(op: str, grad_output: Array, shape: tuple[int, ...]) -> None:
    if grad_output.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {grad_output.shape}")


def given(dtype: np.dtype[Any], *gradients: Array | None) -> Any:
    """Gradients in the dtype of the call, None where one is not wanted."""
    return tuple(None if g is None else g.astype(dtype, copy=False) for g in gradients)
