"""Checks of the arguments that all normalisations have."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops import _check
from fastops._check import Array

Mask = tuple[bool, bool, bool]


def check_shape(op: str, name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    """The shape of an optional argument."""
    if array is not None and array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {array.shape}")


def check_eps(op: str, eps: float) -> None:
    """Any number: PyTorch takes a negative one too."""
    if not isinstance(eps, (int, float, np.floating, np.integer)):
        raise TypeError(f"{op}: eps must be a number, got {eps!r}")


def running(op: str, name: str, value: Any, channels: int) -> Array:
    """A running statistic that will be updated in place."""
    if not isinstance(value, np.ndarray) or value.dtype.char not in "efd":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{op}: {name} must be a NumPy array of float16, float32 or float64, got {kind}")
    check_shape(op, name, value, (channels,))
    return value


def given(op: str, name: str, value: Any, count: int) -> Array:
    """Statistics that the forward pass has kept, or running ones, as kernels take them."""
    if type(value) is not np.ndarray or value.dtype.char not in "efd":
        value = _check.as_array(op, name, value)
    array: Array = value if value.dtype == np.float64 and value.flags.carray else value.astype(np.float64, order="C")
    check_shape(op, name, array, (count,))
    return array


def pick(gradients: tuple[Array | None, ...], mask: tuple[bool, ...], dtype: np.dtype[Any]) -> Any:
    """The gradients asked for, in their dtype."""
    return tuple(g.astype(dtype, copy=False) if wanted and g is not None else None for g, wanted in zip(gradients, mask))
