"""layer_norm and rms_norm: each row is normalised, and each of its elements has a weight of its own.

    layer_norm: y = (x - mean) / sqrt(var + eps) weight + bias
    rms_norm:   y = x / sqrt(mean(x^2) + eps) weight

The gradients are those of ``core.py``, where g = dy weight element by element; rms_norm has a mean of 0, and no term sum(g).
The forward pass keeps mean and var of each row (rms_norm: the mean square).

Source: Ba, Kiros, Hinton, "Layer Normalization" (2016), equation 3; Zhang, Sennrich, "Root Mean Square Layer Normalization"
(2019), equation 4.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import formula, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.norm.arguments import Mask, check_eps, check_shape, given, pick
from fastops.ops.norm.core import BUNDLE, NS_BACKWARD, NS_FORWARD, about
from fastops.simd.blocking import LANES, NAMES
from fastops.simd.reduce import BLOCK, lane_sum, span_dot, span_sum, sum_axis
from fastops.simd.vector import fma, lanes, load, load_part, splat, store, store_part, uncounted

# Rows whose gradients of weight and bias are added in their own format.
_ROWS = 64
# Rows, of so many elements together, of which each step is done for all before the next: one row by itself waits for its sums, a
# root and two divisions. layer_norm of 100000x8 2.9 to 1.5 ms, of 4096x128 0.19 to 0.14.
_AT_ONCE, _CACHED = 64, 1 << 12
# From main memory, from so many bytes on, fewer: it waits while rows in cache are worked on. 32768x768 9.8 to 7.6 ms.
_FAR, _STREAMED = 1 << 23, 1 << 10

_NONE = np.empty((2, 0))


# What is done to a vector is a function of how many elements of it belong to the row: of whole ones the loops know it.


@formula
def _some(x, at, count):
    """A vector of x, zeros after ``count`` elements."""
    return load(x, at) if count >= lanes(x) else load_part(x, at, count)


@formula
def _normalised(x, at, count, centre, factor, rest):
    return fma(_some(x, at, count) - centre, factor, rest)


@formula
def _affine(value, weight, bias, j, count):
    """value weight + bias; either may be empty, bias not alone."""
    if bias.size > 0:
        return fma(value, _some(weight, j, count), _some(bias, j, count))
    return value * _some(weight, j, count) if weight.size > 0 else value


@formula
def _weighted(dy, at, weight, j, count):
    g = _some(dy, at, count)
    return g * _some(weight, j, count) if weight.size > 0 else g


@separate
def _forward_rows(block, worker, x, centred, eps, weight, bias, together, at_once, scratch, kept, y):
    """y of some rows, and mean and var in ``kept`` (2, rows); x and y (rows, D), weight and bias (D,); any may be empty, bias not alone."""
    rows, D = x.shape
    number = x.dtype.type
    flat, target, step = uncounted(x.reshape(-1)), uncounted(y.reshape(-1)), lanes(x)
    weight, bias = uncounted(weight), uncounted(bias)
    mean, var, scale = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2]
    end = min((block + 1) * together, rows)
    for row in range(block * together, end, at_once):
        some = min(at_once, end - row)
        if centred:
            for r in range(some):
                mean[r] = span_sum(flat, (row + r) * D, D) / D
            for r in range(some):
                mean[r], var[r] = about(flat, (row + r) * D, 1, 0, D, mean[r])
        else:
            for r in range(some):
                mean[r], var[r] = 0.0, span_dot(flat, (row + r) * D, flat, (row + r) * D, D) / D
        if kept.size > 0:
            kept[0, row : row + some], kept[1, row : row + some] = mean[:some], var[:some]
        if y.size == 0:
            continue
        for r in range(some):
            scale[r] = 1 / np.sqrt(var[r] + eps)
        for r in range(some):
            start, near = (row + r) * D, number(mean[r])
            centre, factor, rest = splat(x, near), splat(x, number(scale[r])), splat(x, number((near - mean[r]) * scale[r]))
            j = 0
            while D - j >= 2 * step:  # one by one 1024x768 takes 0.19 ms, so 0.18
                p = _affine(_normalised(flat, start + j, step, centre, factor, rest), weight, bias, j, step)
                q = _affine(_normalised(flat, start + j + step, step, centre, factor, rest), weight, bias, j + step, step)
                store(target, start + j, p)
                store(target, start + j + step, q)
                j += 2 * step
            while D - j >= step:
                store(target, start + j, _affine(_normalised(flat, start + j, step, centre, factor, rest), weight, bias, j, step))
                j += step
            if j < D:
                value = _affine(_normalised(flat, start + j, D - j, centre, factor, rest), weight, bias, j, D - j)
                store_part(target, start + j, value, D - j)


@function
def _row_sums(dy, x, start, D, weight, centre, factor, rest, dw, db):
    """The sums of g and g x^, g = dy weight, over a row; dw and db, in whole vectors, are added to."""
    step, nothing = lanes(x), splat(x, x.dtype.type(0))
    first = second = np.float64(0)
    j = 0
    while j < D:
        end = min(j + BLOCK, D)
        a, aa = nothing, nothing
        while j < end:
            p, m = _some(dy, start + j, end - j), _normalised(x, start + j, end - j, centre, factor, rest)
            if weight.size > 0:
                store(db, j, load(db, j) + p)
                store(dw, j, fma(p, m, load(dw, j)))
                p = p * _some(weight, j, end - j)
            a, aa = a + p, fma(p, m, aa)
            j += step
        first += lane_sum(a)
        second += lane_sum(aa)
    return first, second


@formula
def _slope(dy, x, start, j, count, weight, centre, factor, rest, less, tilt):
    g = _weighted(dy, start + j, weight, j, count)
    return factor * ((g - less) - _normalised(x, start + j, count, centre, factor, rest) * tilt)


@separate
def _backward_rows(block, worker, dy, x, centred, eps, weight, together, at_once, scratch, mean, var, dx, partial):
    """dx of some rows, and partial[block] = their sums for dweight and dbias (2, whole vectors); without weight that is not touched."""
    rows, D = x.shape
    number = x.dtype.type
    slope, flat, target, step = uncounted(dy.reshape(-1)), uncounted(x.reshape(-1)), uncounted(dx.reshape(-1)), lanes(x)
    sums = partial[block] if weight.size > 0 else partial[0]
    if weight.size > 0:
        sums[:] = number(0)
    weight, dw, db = uncounted(weight), uncounted(sums[0]), uncounted(sums[1])
    first, second, scale = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2]
    end = min((block + 1) * together, rows)
    for row in range(block * together, end, at_once):
        some = min(at_once, end - row)
        for r in range(some):
            scale[r] = 1 / np.sqrt(var[row + r] + eps)
        for r in range(some):
            start, near, away = (row + r) * D, number(mean[row + r]), mean[row + r]
            centre, factor, rest = splat(x, near), splat(x, number(scale[r])), splat(x, number((near - away) * scale[r]))
            first[r], second[r] = _row_sums(slope, flat, start, D, weight, centre, factor, rest, dw, db)
        if dx.size == 0:
            continue
        for r in range(some):
            start, near, away = (row + r) * D, number(mean[row + r]), mean[row + r]
            centre, factor, rest = splat(x, near), splat(x, number(scale[r])), splat(x, number((near - away) * scale[r]))
            less, tilt = splat(x, number(first[r] / D if centred else 0.0)), splat(x, number(second[r] / D))
            j = 0
            while D - j >= step:
                store(target, start + j, _slope(slope, flat, start, j, step, weight, centre, factor, rest, less, tilt))
                j += step
            if j < D:
                store_part(target, start + j, _slope(slope, flat, start, j, D - j, weight, centre, factor, rest, less, tilt), D - j)


@launcher
def _forward(threads, x, centred, eps, weight, bias, together, at_once, scratch, kept, y):
    parallel(_forward_rows, (x.shape[0] + together - 1) // together, threads, (x, centred, eps, weight, bias, together, at_once, scratch, kept, y))


@launcher
def _backward(threads, dy, x, centred, eps, weight, together, at_once, scratch, mean, var, dx, partial):
    blocks = (x.shape[0] + together - 1) // together
    parallel(_backward_rows, blocks, threads, (dy, x, centred, eps, weight, together, at_once, scratch, mean, var, dx, partial))


def _at_once(x: Array, D: int) -> int:
    return max(1, min(_AT_ONCE, (_CACHED if x.nbytes < _FAR else _STREAMED) // D))


def _rows(op: str, shape: tuple[int, ...], normalized_shape: Any) -> tuple[int, ...]:
    """The shape of a row."""
    if type(normalized_shape) is tuple and normalized_shape and (last := shape[-len(normalized_shape) :]) == normalized_shape:
        return last
    row = tuple(_check.integer(op, "normalized_shape", n, minimum=0) for n in _check.one_or_more(normalized_shape))
    if not row or shape[len(shape) - len(row) :] != row or len(row) > len(shape):
        raise ValueError(f"{op}: normalized_shape must be the last axes of input, whose shape is {shape}, got {row}")
    return row


def _matrix(a: Array, rows: int, D: int) -> Array:
    return a if a.shape == (rows, D) else a.reshape(rows, D)


def _normalise(x: Array, D: int, centred: bool, eps: float, weight: Array | None, bias: Array | None, keep: bool) -> tuple[Array, Array]:
    """y, and if they are to be kept mean and var of each row (2, rows)."""
    y = empty(x.shape, x.dtype)
    kept = empty((2, x.size // D if D else 0)) if keep else _NONE
    if x.size:
        if weight is None:
            weight = np.ones(D, x.dtype) if bias is not None else empty(0, x.dtype)
        _run(x, D, centred, eps, weight, empty(0, x.dtype) if bias is None else bias, kept, y)
    return y, kept


def _statistics(x: Array, D: int, centred: bool, eps: float) -> Array:
    kept = empty((2, x.size // D if D else 0))
    if x.size:
        none = empty(0, x.dtype)
        _run(x, D, centred, eps, none, none, kept, none)
    return kept


def _run(x: Array, D: int, centred: bool, eps: float, weight: Array, bias: Array, kept: Array, y: Array) -> None:
    threads = threads_for(x.size * NS_FORWARD)
    _forward(
        threads, x if x.ndim == 2 and x.shape[1] == D else x.reshape(-1, D), centred, eps,
        weight if weight.ndim == 1 else weight.reshape(-1), bias if bias.ndim == 1 else bias.reshape(-1), max(1, BUNDLE // D),
        _at_once(x, D), empty((threads, 3, _AT_ONCE)), kept, y if y.ndim == 2 and y.shape[1] == D else y.reshape(-1, D),
    )  # fmt: skip


def _gradients(
    dy: Array, x: Array, D: int, centred: bool, eps: float, weight: Array | None, statistics: tuple[Array, Array], wants: Mask,
) -> tuple[Array | None, Array, Array]:  # fmt: skip
    """dx or None, dweight and dbias, flat."""
    rows = x.size // D if D else 0
    dx = empty(x.shape if wants[0] else 0, x.dtype)
    if not x.size:
        return dx, np.zeros(D, x.dtype), np.zeros(D, x.dtype)
    affine = wants[1] or wants[2]
    if weight is None:
        weight = empty(0, x.dtype)
    together = min(_ROWS, max(1, rows // 8))
    width = -(-D // LANES[NAMES[x.dtype.char]]) * LANES[NAMES[x.dtype.char]]
    partial = empty((-(-rows // together) if weight.size else 1, 2, width), x.dtype)
    threads = threads_for(x.size * NS_BACKWARD)
    _backward(
        threads, _matrix(dy, rows, D), _matrix(x, rows, D), centred, eps, weight.reshape(-1), together, _at_once(x, D),
        empty((threads, 3, _AT_ONCE)), *statistics, _matrix(dx, rows if wants[0] else 0, D), partial,
    )  # fmt: skip
    dw, db = sum_axis(partial.reshape(1, -1, 2 * width)).reshape(2, width)[:, :D] if affine else (partial, partial)
    return dx if wants[0] else None, dw, db


def _layer_norm(
    op: str, input: ArrayLike, normalized_shape: Any, weight: ArrayLike | None, bias: ArrayLike | None, eps: float, keep: bool,
) -> tuple[Array, Array]:  # fmt: skip
    (x, w, b), dtype = _check.as_arrays(op, optional=("weight", "bias"), input=input, weight=weight, bias=bias)
    row = _rows(op, x.shape, normalized_shape)
    check_shape(op, "weight", w, row)
    check_shape(op, "bias", b, row)
    check_eps(op, eps)
    y, kept = _normalise(x, prod(row), True, float(eps), w, b, keep)
    return y if y.dtype is dtype else y.astype(dtype, copy=False), kept


@operation
def layer_norm(
    input: ArrayLike, normalized_shape: int | tuple[int, ...], weight: ArrayLike | None = None, bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> Array:  # fmt: skip
    """Normalise over the last axes: ``torch.nn.functional.layer_norm``.

    Args:
        input: (N, ..., D) and any number of axes like D.
        normalized_shape: the extents of the last axes, over which mean and variance are taken.
        weight, bias: of shape ``normalized_shape``, or None.
        eps: what is added to the variance.

    Returns:
        The shape and the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> layer_norm([[1.0, 3.0], [5.0, 9.0]], (2,)).round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    return _layer_norm("layer_norm", input, normalized_shape, weight, bias, eps, False)[0]


def _record_layer_norm(
    input: ArrayLike, normalized_shape: int | tuple[int, ...], weight: ArrayLike | None = None, bias: ArrayLike | None = None,
    eps: float = 1e-5,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    y, kept = _layer_norm("layer_norm", input, normalized_shape, weight, bias, eps, True)
    return y, {"mean": kept[0], "var": kept[1]}


def layer_norm_backward(
    grad_output: ArrayLike, input: ArrayLike, normalized_shape: int | tuple[int, ...], weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, eps: float = 1e-5, *, mean: ArrayLike | None = None, var: ArrayLike | None = None,
    output_mask: Mask = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`layer_norm` with respect to input, weight and bias.

    Args:
        grad_output: the shape of the input.
        mean, var: one for each row, what it was normalised with, if that is known.
        output_mask: which gradients to compute; the others are None.

    >>> import numpy as np
    >>> layer_norm_backward([[1.0, 2.0]], [[3.0, 5.0]], 2, np.ones(2), np.zeros(2))[2]
    array([1., 2.])
    """
    op = "layer_norm_backward"
    (dy, x, w), dtype = _check.as_arrays(op, optional="weight", grad_output=grad_output, input=input, weight=weight)
    check_shape(op, "grad_output", dy, x.shape)
    row = _rows(op, x.shape, normalized_shape)
    check_shape(op, "weight", w, row)
    check_eps(op, eps)
    D, eps = prod(row), float(eps)
    if mean is None or var is None:
        kept = _statistics(x, D, True, eps)
        statistics = kept[0], kept[1]
    else:
        rows = x.size // D if D else 0
        statistics = given(op, "mean", mean, rows), given(op, "var", var, rows)
    mask = output_mask[0], output_mask[1] and weight is not None, output_mask[2] and bias is not None
    if w is None and bias is not None:
        w = np.ones(D, x.dtype)  # whatever is asked for, so that no bit of dx depends on it
    dx, dw, db = _gradients(dy, x, D, True, eps, w, statistics, mask)
    return pick((dx, dw.reshape(row) if mask[1] else None, db.reshape(row) if mask[2] else None), mask, dtype)


def _rms_eps(op: str, eps: float | None, x: Array) -> float:
    if eps is None:
        return float(np.finfo(x.dtype).eps)
    check_eps(op, eps)
    return float(eps)


def _rms_norm(
    op: str, input: ArrayLike, normalized_shape: Any, weight: ArrayLike | None, eps: float | None, keep: bool,
) -> tuple[Array, Array]:  # fmt: skip
    (x, w), dtype = _check.as_arrays(op, optional="weight", input=input, weight=weight)
    row = _rows(op, x.shape, normalized_shape)
    check_shape(op, "weight", w, row)
    y, kept = _normalise(x, prod(row), False, _rms_eps(op, eps, x), w, None, keep)
    return y if y.dtype is dtype else y.astype(dtype, copy=False), kept


@operation
def rms_norm(input: ArrayLike, normalized_shape: int | tuple[int, ...], weight: ArrayLike | None = None, eps: float | None = None) -> Array:
    """Divide by the root mean square over the last axes: ``torch.nn.functional.rms_norm``.

    Args:
        input: (N, ..., D) and any number of axes like D.
        normalized_shape: the extents of the last axes, over which the mean is taken.
        weight: of shape ``normalized_shape``, or None.
        eps: what is added to the mean square; None: the smallest difference from 1 in the input's dtype (float16: float32's).

    Returns:
        The shape and the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> rms_norm([[1.0, 7.0]], 2).round(3)
    array([[0.2, 1.4]])
    """
    return _rms_norm("rms_norm", input, normalized_shape, weight, eps, False)[0]


def _record_rms_norm(
    input: ArrayLike, normalized_shape: int | tuple[int, ...], weight: ArrayLike | None = None, eps: float | None = None,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    y, kept = _rms_norm("rms_norm", input, normalized_shape, weight, eps, True)
    return y, {"mean_square": kept[1]}


def rms_norm_backward(
    grad_output: ArrayLike, input: ArrayLike, normalized_shape: int | tuple[int, ...], weight: ArrayLike | None = None,
    eps: float | None = None, *, mean_square: ArrayLike | None = None, output_mask: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`rms_norm` with respect to input and weight.

    Args:
        grad_output: the shape of the input.
        mean_square: one for each row, if it is known.
        output_mask: which gradients to compute; the others are None.

    >>> rms_norm_backward([[1.0, 1.0]], [[3.0, 3.0]], 2)[0].round(6)
    array([[0., 0.]])
    """
    op = "rms_norm_backward"
    (dy, x, w), dtype = _check.as_arrays(op, optional="weight", grad_output=grad_output, input=input, weight=weight)
    check_shape(op, "grad_output", dy, x.shape)
    row = _rows(op, x.shape, normalized_shape)
    check_shape(op, "weight", w, row)
    D, eps = prod(row), _rms_eps(op, eps, x)
    if mean_square is None:
        mean_square = _statistics(x, D, False, eps)[1]
    square = given(op, "mean_square", mean_square, x.size // D if D else 0)
    mask = output_mask[0], output_mask[1] and weight is not None
    dx, dw, _ = _gradients(dy, x, D, False, eps, w, (np.zeros_like(square), square), (*mask, False))
    return pick((dx, dw.reshape(row) if mask[1] else None), mask, dtype)


register(layer_norm, layer_norm_backward, inputs=("input", "weight", "bias"), saved=("input", "weight"), record=_record_layer_norm)
register(rms_norm, rms_norm_backward, inputs=("input", "weight"), saved=("input", "weight"), record=_record_rms_norm)
