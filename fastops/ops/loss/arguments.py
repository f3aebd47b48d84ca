"""What the functions of this family do with their arguments before a kernel runs, and with gradients after it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastops import _check
from fastops._check import FLOAT16, Array
from fastops._memory import empty
from fastops.simd.reduce import sum_axis, sum_to

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(op: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    if reduction not in allowed:
        _check.choice(op, "reduction", reduction, allowed)


def number(op: str, name: str, value: Any) -> float:
    """A float from anything that is one number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}") from None


def floats(op: str, *, optional: str | tuple[str, ...] = (), **values: Any) -> tuple[list[Any], np.dtype[Any]]:
    """As ``_check.as_arrays``; integers and booleans among later arguments (targets) become numbers of the first one's dtype."""
    first = next(iter(values.values()))
    if type(first) is np.ndarray and first.dtype.char in "fd":
        # the usual case costs 0.6 us instead of 3
        dtype, ready = first.dtype, []
        for name, value in values.items():
            if (type(value) is np.ndarray and value.dtype is dtype and value.flags.carray) or (value is None and name == optional):
                ready.append(value)
        if len(ready) == len(values):
            return ready, dtype
    for name, value in values.items():
        if value is not first and hasattr(value, "dtype"):  # which need not be NumPy's
            values[name] = array = _check.to_ndarray(op, name, value)
            if array.dtype.kind in "biu":
                values[name] = array.astype(_check.as_array(op, next(iter(values)), first).dtype)
    return _check.as_arrays(op, optional=optional, **values)


def broadcast(op: str, **arrays: Array) -> list[Array]:
    """The arrays in their common shape, contiguous."""
    shapes = [a.shape for a in arrays.values()]
    if all(shape == shapes[0] for shape in shapes):
        return list(arrays.values())
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        got = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"{op}: {list(arrays)[-1]} must have a shape that broadcasts with the others, got {got}") from None
    return [a if a.shape == shape else np.ascontiguousarray(np.broadcast_to(a, shape)) for a in arrays.values()]


def warn_of_broadcasting(op: str, input: Array, target: Array) -> None:
    if input.shape != target.shape:
        warnings.warn(
            f"{op}: target has shape {target.shape}, input {input.shape}; they are broadcast, which is rarely what is meant",
            UserWarning,
            stacklevel=4,
        )


def same_shape(op: str, name: str, array: Array, like: str, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have the shape of {like}, {shape}, got {array.shape}")


def total(array: Array) -> float:
    """The sum of all elements."""
    out = empty((1, 1))
    return float(sum_axis(array.reshape(1, -1, 1), out)[0, 0])


def cotangent(op: str, grad_output: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | float:
    """grad_output ready for kernels: a number for an output without axes, else an array of the output's shape and dtype."""
    if shape == ():
        g = np.asarray(grad_output)
        if g.shape != () or g.dtype.kind not in "fiu":
            raise ValueError(f"{op}: grad_output must be one number, as the output is, got shape {g.shape} and dtype {g.dtype}")
        return float(g)
    (g,), given = _check.as_arrays(op, grad_output=grad_output)
    if given != dtype:
        raise TypeError(f"{op}: grad_output must have the dtype of the input, {dtype}, got {given}")
    same_shape(op, "grad_output", g, "the output", shape)
    return g


def check_mask(op: str, output_mask: Any, count: int) -> None:
    if not isinstance(output_mask, (tuple, list)) or len(output_mask) != count:
        raise ValueError(f"{op}: output_mask must have {count} entries, one for each gradient, got {output_mask!r}")


def to_dtype(array: Any, dtype: np.dtype[Any]) -> Any:
    """The array as float16 where that was given."""
    return array.astype(dtype) if array is not None and dtype == FLOAT16 else array


def finish(gradients: Sequence[Array | None], shapes: Sequence[tuple[int, ...] | None], dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Gradients in the shapes and the dtype of the arguments."""
    return tuple(None if g is None or s is None else to_dtype(sum_to(g, s), dtype) for g, s in zip(gradients, shapes))
