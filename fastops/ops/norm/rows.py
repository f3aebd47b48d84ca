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
from fastops._jit import any_order, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.norm.arguments import Mask, check_eps, check_shape, given, pick
from fastops.ops.norm.core import BUNDLE, NS_BACKWARD, NS_FORWARD, statistics
from fastops.simd.reduce import BLOCK, span_dot, sum_axis

# Rows whose gradients of weight and bias are added in their own format.
_ROWS = 64

_NONE = np.empty((2, 0))


@separate
def _forward_rows(block, worker, x, centred, eps, weight, bias, together, kept, y):
    """y of some rows, and mean and var in ``kept`` (2, rows); x and y (rows, D), weight and bias (D,); any may be empty, bias not alone."""
    rows, D = x.shape
    number = x.dtype.type
    flat = x.reshape(-1)
    for row in range(block * together, min((block + 1) * together, rows)):
        if centred:
            mean, var = statistics(flat, row * D, 1, 0, D)
        else:
            mean, var = 0.0, span_dot(flat, row * D, flat, row * D, D) / D
        if kept.size > 0:
            kept[0, row], kept[1, row] = mean, var
        if y.size == 0:
            continue
        near = number(mean)
        scale = 1 / np.sqrt(var + eps)
        factor, rest = number(scale), number((near - mean) * scale)
        source, target = x[row], y[row]
        if bias.size > 0:
            for j in range(D):
                target[j] = ((source[j] - near) * factor + rest) * weight[j] + bias[j]
        elif weight.size > 0:
            for j in range(D):
                target[j] = ((source[j] - near) * factor + rest) * weight[j]
        else:
            for j in range(D):
                target[j] = (source[j] - near) * factor + rest


@any_order
def _row_sums(dy, x, weight, near, factor, rest, dw, db):
    """The sums of g and g x^, g = dy weight, over a part of a row; dw and db are added to."""
    first = second = x.dtype.type(0)
    for j in range(x.size):
        normalised = (x[j] - near) * factor + rest
        db[j] += dy[j]
        dw[j] += dy[j] * normalised
        g = dy[j] * weight[j]
        first += g
        second += g * normalised
    return first, second


@any_order
def _plain_row_sums(dy, x, near, factor, rest):
    """As _row_sums with weights of 1."""
    first = second = x.dtype.type(0)
    for j in range(x.size):
        first += dy[j]
        second += dy[j] * ((x[j] - near) * factor + rest)
    return first, second


@function
def _write_row(dy, x, weight, near, factor, rest, first, second, dx):
    if weight.size > 0:
        for j in range(dx.size):
            dx[j] = factor * ((dy[j] * weight[j] - first) - ((x[j] - near) * factor + rest) * second)
    else:
        for j in range(dx.size):
            dx[j] = factor * ((dy[j] - first) - ((x[j] - near) * factor + rest) * second)


@separate
def _backward_rows(block, worker, dy, x, centred, eps, weight, together, mean, var, dx, partial):
    """dx of some rows, and partial[block] = their sums for dweight and dbias (2, D); without weight that is not touched."""
    rows, D = x.shape
    number = x.dtype.type
    if weight.size > 0:
        partial[block] = number(0)
    for row in range(block * together, min((block + 1) * together, rows)):
        near = number(mean[row])
        scale = 1 / np.sqrt(var[row] + eps)
        factor, rest = number(scale), number((near - mean[row]) * scale)
        first = second = 0.0
        for start in range(0, D, BLOCK):
            end = min(start + BLOCK, D)
            if weight.size > 0:
                one, two = _row_sums(
                    dy[row, start:end], x[row, start:end], weight[start:end], near, factor, rest, partial[block, 0, start:end], partial[block, 1, start:end]
                )
            else:
                one, two = _plain_row_sums(dy[row, start:end], x[row, start:end], near, factor, rest)
            first += one
            second += two
        if dx.size > 0:
            _write_row(dy[row], x[row], weight, near, factor, rest, number(first / D if centred else 0.0), number(second / D), dx[row])


@launcher
def _forward(threads, x, centred, eps, weight, bias, together, kept, y):
    parallel(_forward_rows, (x.shape[0] + together - 1) // together, threads, (x, centred, eps, weight, bias, together, kept, y))


@launcher
def _backward(threads, dy, x, centred, eps, weight, together, mean, var, dx, partial):
    blocks = (x.shape[0] + together - 1) // together
    parallel(_backward_rows, blocks, threads, (dy, x, centred, eps, weight, together, mean, var, dx, partial))


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
    _forward(
        threads_for(x.size * NS_FORWARD), x if x.ndim == 2 and x.shape[1] == D else x.reshape(-1, D), centred, eps,
        weight if weight.ndim == 1 else weight.reshape(-1), bias if bias.ndim == 1 else bias.reshape(-1), max(1, BUNDLE // D), kept,
        y if y.ndim == 2 and y.shape[1] == D else y.reshape(-1, D),
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
    partial = empty((-(-rows // together) if weight.size else 0, 2, D), x.dtype)
    _backward(
        threads_for(x.size * NS_BACKWARD), _matrix(dy, rows, D), _matrix(x, rows, D), centred, eps, weight.reshape(-1), together, *statistics,
        _matrix(dx, rows if wants[0] else 0, D), partial,
    )  # fmt: skip
    dw, db = sum_axis(partial.reshape(1, -1, 2 * D)).reshape(2, D) if affine else (partial, partial)
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
