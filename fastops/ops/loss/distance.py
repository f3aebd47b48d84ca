"""Distances of vectors: between rows that belong together, between all rows of two matrices, and cosines.

With d = a - b (+ eps) the distance is r = (sum of abs(d_m)^p)^(1/p); p = 0 counts the elements that are not 0, p = inf takes the
largest, p = -inf the smallest. Its derivative by a_m is sign(d_m) (abs(d_m) / r)^(p - 1), 0 where r = 0; for p = inf it is
sign(d_m) where abs(d_m) = r, which :func:`pairwise_distance` divides by the number of such elements. Nothing is kept.

Euclidean distances between many rows come from a matrix product, r^2 = abs(a)^2 + abs(b)^2 - 2 a.b, at least 0; that loses
accuracy where r is far below abs(a). With R = grad / r (0 where r = 0) the gradient is a sum(R) - R b.

The cosine of a and b is a.b / (A B) with A = max(abs(a), eps) and B likewise; its derivative by a is
b / (A B) - cos a / (A abs(a)), the bound on A counting as no function of a. Source: Deza and Deza, "Encyclopedia of Distances";
the matrix product: Albanie, "Euclidean Distance Matrix Trick" (2019).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import REDUCTION_FLAGS, function, launcher, parallel, separate
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.loss.arguments import broadcast, check_mask, cotangent, finish, floats, number, to_dtype
from fastops.simd.gemm import gemm
from fastops.simd.reduce import BLOCK as _RUN
from fastops.simd.reduce import maximum, span_dot, sum_axis
from fastops.simd.vmath import copysign, exp, log

Gradients = tuple[Array | None, ...]

_any_order = njit(**REDUCTION_FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True)

# Elements that one thread takes at a time; columns of them that lie side by side.
_BLOCK = 1 << 13
_COLUMNS = 256

_COUNT, _SUM, _EUCLIDEAN, _LARGEST, _SMALLEST, _POWER = range(6)


def kind_of(p: float) -> int:
    """Which formula a power takes."""
    return {0.0: _COUNT, 1.0: _SUM, 2.0: _EUCLIDEAN, math.inf: _LARGEST, -math.inf: _SMALLEST}.get(p, _POWER)


# ---- one pair of vectors


@function
def _difference(a, b, eps):
    """In this order also where sums may be reordered: the gradient looks for the element that the distance came from."""
    return (a - b) + eps


@_any_order
def _measure(a, b, eps, kind, p):
    """The sum of the powers of a - b + eps, or the largest or smallest of the sizes."""
    number = a.dtype.type
    total = number(0)
    if kind == _EUCLIDEAN:
        for i in range(a.size):
            d = _difference(a[i], b[i], eps)
            total += d * d
    elif kind == _SUM:
        for i in range(a.size):
            total += abs(_difference(a[i], b[i], eps))
    elif kind == _COUNT:
        for i in range(a.size):
            total += number(0) if _difference(a[i], b[i], eps) == number(0) else number(1)
    elif kind == _LARGEST:
        for i in range(a.size):
            total = maximum(total, abs(_difference(a[i], b[i], eps)))
    elif kind == _SMALLEST:
        total = number(-np.inf)
        for i in range(a.size):
            total = maximum(total, -abs(_difference(a[i], b[i], eps)))
        total = -total
    else:
        for i in range(a.size):
            total += exp(p * log(abs(_difference(a[i], b[i], eps))))
    return total


@function
def _distance(a, a0, b, b0, count, eps, kind, p):
    number = a.dtype.type
    total = np.float64(-np.inf if kind == _SMALLEST else 0)
    for start in range(0, count, _RUN):
        size = min(_RUN, count - start)
        part = np.float64(_measure(a[a0 + start : a0 + start + size], b[b0 + start : b0 + start + size], number(eps), kind, number(p)))
        if kind == _LARGEST:
            total = maximum(total, part)
        elif kind == _SMALLEST:
            total = maximum(total, -part)
        else:
            total += part
    if kind == _EUCLIDEAN:
        return np.sqrt(total)
    if kind == _POWER:
        return total ** (1 / p)
    return -total if kind == _SMALLEST else total


@function
def _add_gradient(a, b, out, eps, kind, p, distance, g, share):
    """out += g times the derivative of the distance by a; ``share`` divides it among the elements that are as large as it."""
    number = a.dtype.type
    zero, eps = number(0), number(eps)
    if distance == 0 or kind == _COUNT:
        if distance != distance:
            out[:] = number(np.nan)
        return
    if kind == _EUCLIDEAN:
        factor = number(g / distance)
        for i in range(a.size):
            out[i] += factor * _difference(a[i], b[i], eps)
    elif kind == _SUM:
        factor = number(g)
        for i in range(a.size):
            d = _difference(a[i], b[i], eps)
            out[i] += zero if d == zero else copysign(factor, d) if factor > zero else -copysign(factor, d)
    elif kind == _POWER:
        power, root, factor = number(p - 1), number(math.log(distance)), number(g)
        for i in range(a.size):
            d = _difference(a[i], b[i], eps)
            slope = factor * copysign(exp(power * (log(abs(d)) - root)), d)
            out[i] += zero if d == zero else slope
    else:
        size, count = number(distance), 0
        if share:
            for i in range(a.size):
                count += 1 if abs(_difference(a[i], b[i], eps)) == size else 0
        factor = number(g / max(count, 1))
        for i in range(a.size):
            d = _difference(a[i], b[i], eps)
            slope = factor if d > zero else -factor
            out[i] += slope if abs(d) == size else zero


# ---- rows that belong together


@separate
def _row_distances(block, worker, a, b, width, together, eps, kind, p, out):
    for row in range(block * together, min((block + 1) * together, out.size)):
        out[row] = _distance(a, row * width, b, row * width, width, eps, kind, p)


@separate
def _row_gradients(block, worker, a, b, width, together, eps, kind, p, g, da):
    for row in range(block * together, min((block + 1) * together, g.size)):
        start, end = row * width, (row + 1) * width
        distance = _distance(a, start, b, start, width, eps, kind, p)
        da[start:end] = a.dtype.type(0)
        _add_gradient(a[start:end], b[start:end], da[start:end], eps, kind, p, distance, np.float64(g[row]), True)


@launcher
def _distances(threads, a, b, width, together, eps, kind, p, out):
    parallel(_row_distances, (out.size + together - 1) // together, threads, (a, b, width, together, eps, kind, p, out))


@launcher
def _gradients(threads, a, b, width, together, eps, kind, p, g, da):
    parallel(_row_gradients, (g.size + together - 1) // together, threads, (a, b, width, together, eps, kind, p, g, da))


def row_distances(a: Array, b: Array, p: float, eps: float) -> Array:
    """The distances of the rows (last axis) of two arrays of one shape."""
    out = np.empty(a.shape[:-1], a.dtype)
    if out.size:
        width = a.shape[-1]
        _distances(threads_for(a.size * 0.3), a.ravel(), b.ravel(), width, max(1, _BLOCK // max(width, 1)), eps, kind_of(p), p, out.ravel())
    return out


def row_gradient(a: Array, b: Array, p: float, eps: float, g: Array) -> Array:
    """The gradient of :func:`row_distances` with respect to a; that with respect to b is its negative. g has a number a row."""
    da = np.empty(a.shape, a.dtype)
    if a.size:
        width = a.shape[-1]
        _gradients(threads_for(a.size * 0.6), a.ravel(), b.ravel(), width, max(1, _BLOCK // width), eps, kind_of(p), p, g.ravel(), da.ravel())
    return da


# ---- all pairs: a (B, P, M), b (B, R, M), out (B, P, R), flat


@separate
def _cdist_rows(block, worker, a, b, rows, others, width, kind, p, out):
    """out[batch, i] for one i."""
    b0 = block // rows * others * width
    line = out[block * others : (block + 1) * others]
    for j in range(others):
        line[j] = _distance(a, block * width, b, b0 + j * width, width, 0.0, kind, p)


@separate
def _cdist_gradient_rows(block, worker, a, b, rows, others, width, kind, p, g, g_row, g_col, da):
    """da[batch, i] for one i: the sum over j; g is addressed by strides, so that it serves b as well."""
    batch, i = block // rows, block % rows
    mine, sums = a[block * width : (block + 1) * width], da[block * width : (block + 1) * width]
    sums[:] = a.dtype.type(0)
    for j in range(others):
        start = (batch * others + j) * width
        distance = _distance(a, block * width, b, start, width, 0.0, kind, p)
        each = np.float64(g[batch * rows * others + i * g_row + j * g_col])
        _add_gradient(mine, b[start : start + width], sums, 0.0, kind, p, distance, each, False)


@separate
def _pdist_rows(block, worker, a, rows, width, kind, p, out):
    start = block * (2 * rows - block - 1) // 2
    for j in range(block + 1, rows):
        out[start + j - block - 1] = _distance(a, block * width, a, j * width, width, 0.0, kind, p)


@separate
def _pdist_gradient_rows(block, worker, a, rows, width, kind, p, g, da):
    mine, sums = a[block * width : (block + 1) * width], da[block * width : (block + 1) * width]
    sums[:] = a.dtype.type(0)
    for j in range(rows):
        if j != block:
            low, high = min(block, j), max(block, j)
            distance = _distance(a, block * width, a, j * width, width, 0.0, kind, p)
            each = np.float64(g[low * (2 * rows - low - 1) // 2 + high - low - 1])
            _add_gradient(mine, a[j * width : (j + 1) * width], sums, 0.0, kind, p, distance, each, False)


@launcher
def _cdist(threads, a, b, batch, rows, others, width, kind, p, out):
    parallel(_cdist_rows, batch * rows, threads, (a, b, rows, others, width, kind, p, out))


@launcher
def _cdist_gradient(threads, a, b, batch, rows, others, width, kind, p, g, g_row, g_col, da):
    parallel(_cdist_gradient_rows, batch * rows, threads, (a, b, rows, others, width, kind, p, g, g_row, g_col, da))


@launcher
def _pdist(threads, a, rows, width, kind, p, out):
    parallel(_pdist_rows, rows, threads, (a, rows, width, kind, p, out))


@launcher
def _pdist_gradient(threads, a, rows, width, kind, p, g, da):
    parallel(_pdist_gradient_rows, rows, threads, (a, rows, width, kind, p, g, da))


@separate
def _finish_rows(block, worker, squares_a, squares_b, rows, others, out):
    """out = sqrt(max(0, out + squares_a[i] + squares_b[j])) for one row."""
    zero = out.dtype.type(0)
    line, squares, square = out[block * others : (block + 1) * others], squares_b[block // rows * others :], squares_a[block]
    for j in range(others):
        r = line[j] + square + squares[j]
        line[j] = np.sqrt(zero if r < zero else r)


@launcher
def _finish(threads, squares_a, squares_b, rows, others, out):
    parallel(_finish_rows, squares_a.size, threads, (squares_a, squares_b, rows, others, out))


def _squares(a: Array) -> Array:
    """The squared length of each row."""
    out = np.empty((3, math.prod(a.shape[:-1])))
    _dot_rows(a, a, out)
    return out[0].astype(a.dtype)


# ---- dot products of slices along an axis: a, b (outer, axis, inner), flat


@separate
def _dots_block(block, worker, a, b, axis, inner, together, out):
    """out[0] = a.a, out[1] = b.b, out[2] = a.b for some slices, in float64."""
    if inner == 1:
        for row in range(block * together, min((block + 1) * together, out.shape[1])):
            start = row * axis
            out[0, row] = span_dot(a, start, a, start, axis)
            out[1, row] = span_dot(b, start, b, start, axis)
            out[2, row] = span_dot(a, start, b, start, axis)
        return
    blocks = (inner + _COLUMNS - 1) // _COLUMNS
    outer, column = block // blocks, block % blocks * _COLUMNS
    count = min(_COLUMNS, inner - column)
    start = outer * inner + column
    aa, bb, ab = out[0, start : start + count], out[1, start : start + count], out[2, start : start + count]
    aa[:] = 0.0
    bb[:] = 0.0
    ab[:] = 0.0
    for k in range(axis):
        at = (outer * axis + k) * inner + column
        u, v = a[at : at + count], b[at : at + count]
        for i in range(count):
            aa[i] += u[i] * u[i]
            bb[i] += v[i] * v[i]
            ab[i] += u[i] * v[i]


@separate
def _blend_block(block, worker, a, b, axis, inner, together, factors, out):
    """out = factors[0] b - factors[1] a, the factors those of the slice."""
    number = a.dtype.type
    if inner == 1:
        for row in range(block * together, min((block + 1) * together, factors.shape[1])):
            start, end = row * axis, (row + 1) * axis
            u, v, y = a[start:end], b[start:end], out[start:end]
            plus, minus = number(factors[0, row]), number(factors[1, row])
            for i in range(axis):
                y[i] = plus * v[i] - minus * u[i]
        return
    blocks = (inner + _COLUMNS - 1) // _COLUMNS
    outer, column = block // blocks, block % blocks * _COLUMNS
    count = min(_COLUMNS, inner - column)
    plus = factors[0, outer * inner + column : outer * inner + column + count]
    minus = factors[1, outer * inner + column : outer * inner + column + count]
    for k in range(axis):
        at = (outer * axis + k) * inner + column
        u, v, y = a[at : at + count], b[at : at + count], out[at : at + count]
        for i in range(count):
            y[i] = number(plus[i]) * v[i] - number(minus[i]) * u[i]


@function
def _slice_blocks(slices, inner, together):
    return (slices + together - 1) // together if inner == 1 else slices // inner * ((inner + _COLUMNS - 1) // _COLUMNS)


@launcher
def _dots(threads, a, b, axis, inner, together, out):
    parallel(_dots_block, _slice_blocks(out.shape[1], inner, together), threads, (a, b, axis, inner, together, out))


@launcher
def _blend(threads, a, b, axis, inner, together, factors, out):
    parallel(_blend_block, _slice_blocks(factors.shape[1], inner, together), threads, (a, b, axis, inner, together, factors, out))


def _dot_rows(a: Array, b: Array, out: Array, inner: int = 1) -> None:
    axis = a.size // max(out.shape[1], 1)
    if out.size:
        _dots(threads_for(a.size * 0.3), a.ravel(), b.ravel(), axis, inner, max(1, _BLOCK // max(axis, 1)), out)


def dots(a: Array, b: Array, axis: int) -> Array:
    """a.a, b.b and a.b along an axis, (3, ...) in float64, for arrays of one shape."""
    rest = (*a.shape[:axis], *a.shape[axis + 1 :])
    out = np.empty((3, math.prod(rest)))
    _dot_rows(a, b, out, math.prod(a.shape[axis + 1 :]))
    return out.reshape(3, *rest)


def blend(a: Array, b: Array, axis: int, plus: Array, minus: Array) -> Array:
    """plus b - minus a, where the factors (float64) have the shape of the arrays without an axis."""
    out = np.empty(a.shape, a.dtype)
    if out.size:
        factors = np.empty((2, plus.size))
        factors[0], factors[1] = plus.ravel(), minus.ravel()
        together = max(1, _BLOCK // a.shape[axis])
        _blend(threads_for(a.size * 0.3), a.ravel(), b.ravel(), a.shape[axis], math.prod(a.shape[axis + 1 :]), together, factors, out.ravel())
    return out


# ---- public functions


def _vectors(op: str, x1: Any, x2: Any) -> tuple[list[Array], list[tuple[int, ...]], np.dtype[Any]]:
    arrays, dtype = floats(op, x1=x1, x2=x2)
    shapes = [a.shape for a in arrays]
    return broadcast(op, x1=arrays[0], x2=arrays[1]), shapes, dtype


def _cosine_arguments(op: str, x1: Any, x2: Any, dim: int, eps: float) -> tuple[Any, ...]:
    (a, b), shapes, dtype = _vectors(op, x1, x2)
    if a.ndim == 0:
        a, b = a.reshape(1), b.reshape(1)
    axis = _check.integer(op, "dim", dim, minimum=-a.ndim)
    if axis >= a.ndim:
        raise ValueError(f"{op}: dim must be less than the number of axes, {a.ndim}, got {dim}")
    axis %= a.ndim
    aa, bb, ab = dots(a, b, axis)
    eps = number(op, "eps", eps)
    sizes = np.sqrt(aa), np.sqrt(bb)
    # NaN stays
    bounded = [np.where(size < eps, eps, size) for size in sizes]
    return a, b, axis, shapes, dtype, sizes, bounded, np.asarray(ab / (bounded[0] * bounded[1]))


@operation
def cosine_similarity(x1: ArrayLike, x2: ArrayLike, dim: int = 1, eps: float = 1e-8) -> Array:
    """The cosine of the angle between vectors: ``torch.nn.functional.cosine_similarity``.

    Args:
        x1, x2: (N, D, ...), float16, float32 or float64; broadcast.
        dim: the axis of the vectors in the common shape.
        eps: lengths count as at least this.

    Returns:
        The cosines, without the axis ``dim``, in the dtype of the inputs.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> cosine_similarity(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]]))
    array([1., 0.])
    """
    a, *_, dtype, _, _, cosine = _cosine_arguments("cosine_similarity", x1, x2, dim, eps)
    return to_dtype(cosine.astype(a.dtype), dtype)


def cosine_similarity_backward(
    grad_output: ArrayLike, x1: ArrayLike, x2: ArrayLike, dim: int = 1, eps: float = 1e-8, *,
    output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`cosine_similarity` with respect to x1 and x2.

    Args:
        grad_output: of the shape and dtype of the output.
        output_mask: which gradients to compute; None stands for the others.

    >>> import numpy as np
    >>> cosine_similarity_backward(np.ones(1), np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]))
    (array([[0., 1.]]), array([[0.5, 0. ]]))
    """
    op = "cosine_similarity_backward"
    check_mask(op, output_mask, 2)
    a, b, axis, shapes, dtype, sizes, bounded, cosine = _cosine_arguments(op, x1, x2, dim, eps)
    g = np.asarray(cotangent(op, grad_output, cosine.shape, dtype), np.float64)
    both = g / (bounded[0] * bounded[1])
    found: list[Array | None] = [None, None]
    for i, (mine, other) in enumerate(((a, b), (b, a))):
        if output_mask[i]:
            length = bounded[i] * sizes[i]
            own = np.divide(g * cosine, length, out=np.zeros_like(both), where=length != 0)
            found[i] = blend(mine, other, axis, np.asarray(both), np.asarray(own)).reshape(np.broadcast_shapes(*shapes))
    return finish(found, shapes, dtype)


def _pairwise_arguments(op: str, x1: Any, x2: Any, p: float, eps: float) -> tuple[Any, ...]:
    (a, b), shapes, dtype = _vectors(op, x1, x2)
    if a.ndim == 0:
        raise ValueError(f"{op}: x1 must have an axis, (N, D) or (D,), got an array without axes")
    return a, b, number(op, "p", p), number(op, "eps", eps), shapes, dtype


@operation
def pairwise_distance(x1: ArrayLike, x2: ArrayLike, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Array:
    """The p-norm of x1 - x2 + eps along the last axis: ``torch.nn.functional.pairwise_distance``.

    Args:
        x1, x2: (N, D) or (D,), or any other shapes that broadcast; float16, float32 or float64.
        p: the power, any number.
        eps: added to each difference, which keeps the gradient away from its singularity at 0.
        keepdim: keep the last axis, with length 1.

    Returns:
        The distances, (N,) or (N, 1), in the dtype of the inputs.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> pairwise_distance(np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 1.0]]), eps=0.0)
    array([5., 1.])
    """
    a, b, p, eps, _, dtype = _pairwise_arguments("pairwise_distance", x1, x2, p, eps)
    out = row_distances(a, b, p, eps)
    return to_dtype(out[..., None] if keepdim else out, dtype)


def pairwise_distance_backward(
    grad_output: ArrayLike, x1: ArrayLike, x2: ArrayLike, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False, *,
    output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`pairwise_distance` with respect to x1 and x2.

    Args:
        grad_output: of the shape and dtype of the output.
        output_mask: which gradients to compute; None stands for the others.

    >>> import numpy as np
    >>> pairwise_distance_backward(np.ones(1), np.array([[3.0, 4.0]]), np.zeros((1, 2)), eps=0.0)[0]
    array([[0.6, 0.8]])
    """
    op = "pairwise_distance_backward"
    check_mask(op, output_mask, 2)
    a, b, p, eps, shapes, dtype = _pairwise_arguments(op, x1, x2, p, eps)
    g = cotangent(op, grad_output, (*a.shape[:-1], 1) if keepdim else a.shape[:-1], dtype)
    da = row_gradient(a, b, p, eps, np.asarray(g, a.dtype))
    db = (-da if output_mask[0] else np.negative(da, out=da)) if output_mask[1] else None
    return finish((da if output_mask[0] else None, db), shapes, dtype)


_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def _power(op: str, p: float) -> float:
    p = number(op, "p", p)
    if not p >= 0:
        raise ValueError(f"{op}: p must be at least 0, got {p}")
    return p


def _cdist_arguments(op: str, x1: Any, x2: Any, p: float, compute_mode: str) -> tuple[Any, ...]:
    _check.choice(op, "compute_mode", compute_mode, _MODES)
    (a, b), dtype = _check.as_arrays(op, x1=x1, x2=x2)
    shapes = a.shape, b.shape
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"{op}: x2 must have axes (..., R, M) for x1 with axes (..., P, M), got shapes {a.shape} and {b.shape}")
    try:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"{op}: x2 must have leading axes that broadcast with those of x1, got shapes {a.shape} and {b.shape}") from None
    a, b = (np.ascontiguousarray(np.broadcast_to(m, (*lead, *m.shape[-2:]))) for m in (a, b))
    p = _power(op, p)
    many = a.shape[-2] > 25 or b.shape[-2] > 25
    product = p == 2 and compute_mode != _MODES[2] and (many or compute_mode == _MODES[1]) and a.shape[-1] > 0
    return a, b, p, product, shapes, dtype


def _cdist_work(a: Array, b: Array) -> float:
    return a.size * b.shape[-2] * 0.2 + a.size // max(a.shape[-1], 1) * b.shape[-2] * 10.0


@operation
def cdist(x1: ArrayLike, x2: ArrayLike, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Array:
    """The p-norm distances of all rows of x1 from all rows of x2: ``torch.cdist``.

    Args:
        x1: (B, P, M), with any number of leading axes, float16, float32 or float64.
        x2: (B, R, M); the leading axes broadcast.
        p: the power, at least 0.
        compute_mode: whether Euclidean distances come from a matrix product: "use_mm_for_euclid_dist" and
            "donot_use_mm_for_euclid_dist" say so; by default when P or R exceeds 25.

    Returns:
        (B, P, R), in the dtype of the inputs.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> cdist(np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[0.0, 4.0]]))
    array([[4.],
           [5.]])
    """
    a, b, p, product, _, dtype = _cdist_arguments("cdist", x1, x2, p, compute_mode)
    return to_dtype(_all_distances(a, b, p, product), dtype)


def _all_distances(a: Array, b: Array, p: float, product: bool) -> Array:
    rows, others, width = a.shape[-2], b.shape[-2], a.shape[-1]
    out = np.empty((*a.shape[:-1], others), a.dtype)
    if out.size == 0:
        return out
    if product:
        gemm(a, b.swapaxes(-1, -2), out=out, alpha=-2.0)
        _finish(threads_for(out.size * 0.6), _squares(a), _squares(b), rows, others, out.ravel())
    else:
        _cdist(threads_for(_cdist_work(a, b)), a.ravel(), b.ravel(), out.size // (rows * others), rows, others, width, kind_of(p), p, out.ravel())
    return out


def cdist_backward(
    grad_output: ArrayLike, x1: ArrayLike, x2: ArrayLike, p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary", *, output_mask: tuple[bool, bool] = (True, True),
    output: Array | None = None,
) -> Gradients:  # fmt: skip
    """Gradients of :func:`cdist` with respect to x1 and x2; 0 where a distance is 0.

    Args:
        grad_output: of the shape and dtype of the output.
        output_mask: which gradients to compute; None stands for the others.
        output: the distances, where they came from a matrix product; computed again when not given.

    >>> import numpy as np
    >>> cdist_backward(np.ones((1, 1)), np.array([[3.0, 4.0]]), np.zeros((1, 2)))
    (array([[0.6, 0.8]]), array([[-0.6, -0.8]]))
    """
    op = "cdist_backward"
    check_mask(op, output_mask, 2)
    a, b, p, product, shapes, dtype = _cdist_arguments(op, x1, x2, p, compute_mode)
    rows, others, width = a.shape[-2], b.shape[-2], a.shape[-1]
    g = cotangent(op, grad_output, (*a.shape[:-1], others), dtype)
    assert isinstance(g, np.ndarray)
    found: list[Array | None] = [np.zeros(m.shape, m.dtype) if want else None for m, want in zip((a, b), output_mask)]
    if a.size and b.size and product:
        r = _all_distances(a, b, p, product) if output is None else np.asarray(output, a.dtype)
        ratio = np.divide(g, r, out=np.zeros_like(r), where=r != 0)
        for i, (mine, other, across) in enumerate(((a, b, ratio), (b, a, ratio.swapaxes(-1, -2)))):
            if output_mask[i]:
                gradient = gemm(across, other, alpha=-1.0)
                batch = ratio.size // (rows * others)
                sums = sum_axis(ratio.reshape((batch * rows, others, 1) if i == 0 else (batch, rows, others)))
                gradient += mine * sums.reshape(*mine.shape[:-1], 1)
                found[i] = gradient
    elif a.size and b.size:
        batch, threads, flat = a.size // (rows * width), threads_for(2 * _cdist_work(a, b)), (a.ravel(), b.ravel())
        if found[0] is not None:
            _cdist_gradient(threads, *flat, batch, rows, others, width, kind_of(p), p, g.ravel(), others, 1, found[0].ravel())
        if found[1] is not None:
            _cdist_gradient(threads, *flat[::-1], batch, others, rows, width, kind_of(p), p, g.ravel(), 1, others, found[1].ravel())
    return finish(found, shapes, dtype)


def _cdist_record(x1: Any, x2: Any, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> tuple[Array, dict[str, Any]]:
    out = cdist(x1, x2, p, compute_mode)
    return out, {} if out.dtype == _check.FLOAT16 else {"output": out}


def _rows(op: str, input: Any) -> tuple[Array, np.dtype[Any]]:
    (x,), dtype = _check.as_arrays(op, input=input)
    if x.ndim != 2:
        raise ValueError(f"{op}: input must have axes (N, M), got shape {x.shape}")
    return x, dtype


@operation
def pdist(input: ArrayLike, p: float = 2) -> Array:
    """The p-norm distances of all pairs of rows, each pair once: ``torch.nn.functional.pdist``.

    Args:
        input: (N, M), float16, float32 or float64.
        p: the power, at least 0.

    Returns:
        (N (N - 1) / 2,): row 0 with 1, 2, ..., then row 1 with 2, ..., in the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> pdist(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])).round(4)
    array([5.    , 1.    , 4.2426])
    """
    op = "pdist"
    x, dtype = _rows(op, input)
    p = _power(op, p)
    rows, width = x.shape
    out = np.empty(max(rows * (rows - 1) // 2, 0), x.dtype)
    if out.size:
        _pdist(threads_for(_cdist_work(x, x) / 2), x.ravel(), rows, width, kind_of(p), p, out)
    return to_dtype(out, dtype)


def pdist_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 2) -> Array:
    """Gradient of :func:`pdist` with respect to its input; 0 where a distance is 0.

    Args:
        grad_output: of the shape and dtype of the output.

    >>> import numpy as np
    >>> pdist_backward(np.ones(1), np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[ 0.6,  0.8],
           [-0.6, -0.8]])
    """
    op = "pdist_backward"
    x, dtype = _rows(op, input)
    p = _power(op, p)
    rows, width = x.shape
    g = cotangent(op, grad_output, (max(rows * (rows - 1) // 2, 0),), dtype)
    assert isinstance(g, np.ndarray)
    dx = np.zeros(x.shape, x.dtype)
    if g.size and dx.size:
        _pdist_gradient(threads_for(2 * _cdist_work(x, x)), x.ravel(), rows, width, kind_of(p), p, g, dx.ravel())
    return to_dtype(dx, dtype)


register(cosine_similarity, cosine_similarity_backward, inputs=("x1", "x2"), saved=("x1", "x2"))
register(pairwise_distance, pairwise_distance_backward, inputs=("x1", "x2"), saved=("x1", "x2"))
register(cdist, cdist_backward, inputs=("x1", "x2"), saved=("x1", "x2"), record=_cdist_record)
register(pdist, pdist_backward, inputs=("input",), saved=("input",))
