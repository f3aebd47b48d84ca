"""Margin losses of a row of scores x for C classes; the loss of a row is divided by C.

    multi_margin_loss:       sum over c != t of w_t max(0, margin - x_t + x_c)^p
    multilabel_margin_loss:  sum over targets t and classes c that are none of max(0, 1 - (x_t - x_c))

Nothing is kept but the arguments. Sources: Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based
Vector Machines" (2001); Weston and Watkins, "Support Vector Machines for Multi-Class Pattern Recognition" (1999).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.loss.arguments import check_reduction, cotangent, number, to_dtype
from fastops.simd import segments
from fastops.simd.blocking import NAMES
from fastops.simd.reduce import BLOCK as _RUN
from fastops.simd.reduce import span_sum
from fastops.simd.workspace import scratch

# Elements that one thread takes at a time.
_BLOCK = 1 << 13


@separate
def _multi_margin_rows(block, worker, x, classes, together, target, p, margin, weight, values, losses):
    """losses[row] for some rows of x (N, C), flat."""
    number = x.dtype.type
    zero, margin, at = number(0), number(margin), worker * _RUN
    for row in range(block * together, min((block + 1) * together, losses.size)):
        t, start, total = target[row], row * classes, 0.0
        shift = margin - x[start + t]
        for c in range(0, classes, _RUN):
            count = min(_RUN, classes - c)
            part, h = x[start + c : start + c + count], values[at : at + count]
            for i in range(count):
                gap = shift + part[i]
                gap = zero if gap <= zero else gap
                h[i] = gap * gap if p == 2 else gap
            if c <= t < c + count:
                h[t - c] = zero
            total += span_sum(values, at, count)
        losses[row] = total / classes * (weight[t] if weight.size > 0 else number(1))


@separate
def _multi_margin_gradient_rows(block, worker, x, classes, together, target, p, margin, weight, scale, g, dx):
    """dx for some rows; g is one number a row, or empty, and then it is ``scale``."""
    number = x.dtype.type
    zero, two, margin = number(0), number(2), number(margin)
    for row in range(block * together, min((block + 1) * together, target.size)):
        t, start = target[row], row * classes
        shift = margin - x[start + t]
        factor = (g[row] if g.size > 0 else number(scale)) * (weight[t] if weight.size > 0 else number(1)) / number(classes)
        part, out = x[start : start + classes], dx[start : start + classes]
        for i in range(classes):
            gap = shift + part[i]
            out[i] = zero if gap <= zero else factor * (two * gap if p == 2 else number(1))
        out[t] = zero
        out[t] = -span_sum(dx, start, classes)


@separate
def _multilabel_rows(block, worker, x, classes, together, target, marks, losses):
    """losses[row] for some rows of x (N, C) and target (N, C), flat; marks holds C numbers for each worker."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    marked = marks[worker * classes : (worker + 1) * classes]
    for row in range(block * together, min((block + 1) * together, losses.size)):
        start, total = row * classes, 0.0
        marked[:] = one
        labels = 0
        while labels < classes and target[start + labels] >= 0:
            marked[target[start + labels]] = zero
            labels += 1
        for label in range(labels):
            shift = one - x[start + target[start + label]]
            for i in range(classes):
                gap = shift + x[start + i]
                # a gap that is NaN stays
                total += marked[i] * (zero if gap <= zero else gap)
        losses[row] = total / classes


@separate
def _multilabel_gradient_rows(block, worker, x, classes, together, target, marks, scale, g, dx):
    number = x.dtype.type
    zero, one = number(0), number(1)
    marked = marks[worker * classes : (worker + 1) * classes]
    for row in range(block * together, min((block + 1) * together, x.size // classes)):
        start = row * classes
        factor = (g[row] if g.size > 0 else number(scale)) / number(classes)
        marked[:] = one
        labels = 0
        while labels < classes and target[start + labels] >= 0:
            marked[target[start + labels]] = zero
            labels += 1
        out = dx[start : start + classes]
        out[:] = zero
        for label in range(labels):
            t = target[start + label]
            shift = one - x[start + t]
            violations = zero
            for i in range(classes):
                violated = zero if shift + x[start + i] <= zero else marked[i]
                out[i] += factor * violated
                violations += violated
            out[t] -= factor * violations


@launcher
def _multi_margin(threads, x, classes, together, target, p, margin, weight, values, losses):
    blocks = (losses.size + together - 1) // together
    parallel(_multi_margin_rows, blocks, threads, (x, classes, together, target, p, margin, weight, values, losses))


@launcher
def _multi_margin_gradient(threads, x, classes, together, target, p, margin, weight, scale, g, dx):
    blocks = (target.size + together - 1) // together
    parallel(_multi_margin_gradient_rows, blocks, threads, (x, classes, together, target, p, margin, weight, scale, g, dx))


@launcher
def _multilabel(threads, x, classes, together, target, marks, losses):
    blocks = (losses.size + together - 1) // together
    parallel(_multilabel_rows, blocks, threads, (x, classes, together, target, marks, losses))


@launcher
def _multilabel_gradient(threads, x, classes, together, target, marks, scale, g, dx):
    blocks = (x.size // classes + together - 1) // together
    parallel(_multilabel_gradient_rows, blocks, threads, (x, classes, together, target, marks, scale, g, dx))


# ---- what they share


def _scores(op: str, input: Any) -> tuple[Array, tuple[int, ...], int, int, np.dtype[Any]]:
    """The scores for kernels, their shape, the numbers of rows and classes, the dtype."""
    (x,), dtype = _check.as_arrays(op, input=input)
    shape = x.shape
    if x.ndim > 2 or (x.ndim > 0 and shape[-1] == 0):
        raise ValueError(f"{op}: input must have axes (N, C) or (C,) with at least one class, got shape {shape}")
    classes = shape[-1] if shape else 1
    return x, shape, x.size // classes, classes, dtype


def _flat(op: str, target: Array, low: int, classes: int) -> Array:
    """The target in one row, all of it from ``low`` to the number of classes."""
    t = target.ravel()
    if t.size and (t.min() < low or t.max() >= classes):
        raise ValueError(f"{op}: target must be from {low} to {classes - 1}, got {t.min()} to {t.max()}")
    return t


def _reduced(losses: Array, reduction: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Of losses of rows; ``shape`` is what "none" gives."""
    if reduction == "none":
        return to_dtype(losses.reshape(shape), dtype)
    total = losses.sum(dtype=np.float64)
    if reduction == "mean":
        total = total / losses.size if losses.size else math.nan
    return np.array(total, dtype)


def _scale(op: str, grad_output: Any, reduction: str, shape: tuple[int, ...], rows: int, dtype: np.dtype[Any], like: Array) -> tuple[float, Array]:
    g = cotangent(op, grad_output, shape if reduction == "none" else (), dtype)
    if isinstance(g, np.ndarray):
        return 1.0, g.ravel()
    return g / (rows or math.nan) if reduction == "mean" else g, like[:0]


def _together(classes: int) -> int:
    return max(1, _BLOCK // classes)


# ---- public functions


def _multi_arguments(op: str, input: Any, target: Any, p: int, margin: float, weight: Any) -> tuple[Any, ...]:
    if p not in (1, 2):
        raise ValueError(f"{op}: p must be 1 or 2, got {p!r}")
    x, shape, rows, classes, dtype = _scores(op, input)
    t = segments.indices(op, "target", target)
    if t.shape != (rows,) and not (t.ndim == 0 and len(shape) < 2):
        raise ValueError(f"{op}: target must have shape {(rows,)}, got {t.shape}")
    output_shape = t.shape if len(shape) == 2 or t.ndim else ()
    w = x.ravel()[:0]
    if weight is not None:
        w = _check.as_array(op, "weight", weight)
        if w.dtype != dtype or w.shape != (classes,):
            raise (TypeError if w.dtype != dtype else ValueError)(f"{op}: weight must have shape {(classes,)} and dtype {dtype}, got {w.shape} and {w.dtype}")
        w = w.astype(x.dtype, copy=False)
    flat = x.ravel()
    arguments = flat, classes, _together(classes), _flat(op, t, 0, classes), int(p), number(op, "margin", margin), w
    return arguments, shape, rows, output_shape, dtype


@operation
def multi_margin_loss(
    input: ArrayLike, target: ArrayLike, p: int = 1, margin: float = 1.0, weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """Hinge loss of classes: the score of the target should exceed all others by ``margin``.

    Args:
        input: scores x, (N, C) or (C,), float16, float32 or float64.
        target: classes t, integers from 0 to C - 1: (N,) or ().
        p: the power of a violation, 1 or 2.
        margin: in the unit of the scores.
        weight: a factor for each class, (C,).
        reduction: "none": one loss a row; "sum": their sum; "mean": the sum divided by the number of rows.

    Returns:
        The loss in the dtype of the input, (N,) or without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; a target is no class.

    >>> import numpy as np
    >>> multi_margin_loss(np.array([[1.0, 0.5], [3.0, 0.0]]), np.array([0, 0]), reduction="none")
    array([0.25, 0.  ])
    """
    op = "multi_margin_loss"
    check_reduction(op, reduction)
    arguments, _, rows, output_shape, dtype = _multi_arguments(op, input, target, p, margin, weight)
    x = arguments[0]
    losses = empty(rows, x.dtype)
    if rows:
        threads = threads_for(x.size * 0.4)
        _multi_margin(threads, *arguments, scratch(threads * _RUN, NAMES[x.dtype.char]), losses)
    return _reduced(losses, reduction, output_shape, dtype)


def multi_margin_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, p: int = 1, margin: float = 1.0,
    weight: ArrayLike | None = None, reduction: str = "mean",
) -> Array:  # fmt: skip
    """Gradient of :func:`multi_margin_loss` with respect to the input, 0 where a violation is 0.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".

    >>> import numpy as np
    >>> multi_margin_loss_backward(2.0, np.array([[1.0, 0.5], [3.0, 0.0]]), np.array([0, 0]))
    array([[-0.5,  0.5],
           [-0. ,  0. ]])
    """
    op = "multi_margin_loss_backward"
    check_reduction(op, reduction)
    arguments, shape, rows, output_shape, dtype = _multi_arguments(op, input, target, p, margin, weight)
    x = arguments[0]
    scale, g = _scale(op, grad_output, reduction, output_shape, rows, dtype, x)
    dx = empty(shape, x.dtype)
    if rows:
        _multi_margin_gradient(threads_for(x.size * 0.4), *arguments, scale, g, dx.ravel())
    return to_dtype(dx, dtype)


def _multilabel_arguments(op: str, input: Any, target: Any) -> tuple[Any, ...]:
    x, shape, rows, classes, dtype = _scores(op, input)
    t = segments.indices(op, "target", target)
    if t.shape != shape:
        raise ValueError(f"{op}: target must have the shape of input, {shape}, got {t.shape}")
    return (x.ravel(), classes, _together(classes), _flat(op, t, -1, classes)), shape, rows, shape[:-1], dtype


@operation
def multilabel_margin_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Array:
    """Hinge loss of sets of classes: the scores of all targets should exceed those of all other classes by 1.

    Args:
        input: scores x, (N, C) or (C,).
        target: the classes that hold, then -1 (what follows it is not read), of the shape of the input.
        reduction: as for :func:`multi_margin_loss`, where result and errors are described too.

    >>> import numpy as np
    >>> x = np.array([[0.1, 0.2, 0.4, 0.8]])
    >>> multilabel_margin_loss(x, np.array([[3, 0, -1, 1]]), reduction="none").round(4)
    array([0.85])
    """
    op = "multilabel_margin_loss"
    check_reduction(op, reduction)
    arguments, _, rows, output_shape, dtype = _multilabel_arguments(op, input, target)
    x, classes = arguments[:2]
    losses = empty(rows, x.dtype)
    if rows:
        threads = threads_for(x.size * 4)
        _multilabel(threads, *arguments, empty(threads * classes, x.dtype), losses)
    return _reduced(losses, reduction, output_shape, dtype)


def multilabel_margin_loss_backward(grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Array:
    """Gradient of :func:`multilabel_margin_loss` with respect to the input; see :func:`multi_margin_loss_backward`.

    >>> import numpy as np
    >>> multilabel_margin_loss_backward(2.0, np.array([[0.5, 0.0]]), np.array([[0, -1]]))
    array([[-1.,  1.]])
    """
    op = "multilabel_margin_loss_backward"
    check_reduction(op, reduction)
    arguments, shape, rows, output_shape, dtype = _multilabel_arguments(op, input, target)
    x, classes = arguments[:2]
    scale, g = _scale(op, grad_output, reduction, output_shape, rows, dtype, x)
    dx = empty(shape, x.dtype)
    if rows:
        threads = threads_for(x.size * 4)
        _multilabel_gradient(threads, *arguments, empty(threads * classes, x.dtype), scale, g, dx.ravel())
    return to_dtype(dx, dtype)


register(multi_margin_loss, multi_margin_loss_backward, inputs=("input",), saved=("input",))
register(multilabel_margin_loss, multilabel_margin_loss_backward, inputs=("input",), saved=("input",))
