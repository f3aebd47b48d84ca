"""Distances of vectors: between rows that belong together, between all rows of two matrices, and cosines.

With d = a - b (+ eps) the distance is r = (sum of abs(d_m)^p)^(1/p); p = 0 counts the elements that are not 0, p = inf takes the
largest, p = -inf the smallest. Its derivative by a_m is sign(d_m) (abs(d_m) / r)^(p - 1), 0 where r = 0; for p = inf it is
sign(d_m) where abs(d_m) = r, which :func:`pairwise_distance` divides by the number of such elements. Distances of all pairs are
kept for the backward pass, which otherwise computes them again.

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
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import any_order, call, formula, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.loss.arguments import broadcast, check_mask, cotangent, finish, floats, number, same_shape, to_dtype
from fastops.simd.gemm import gemm
from fastops.simd.maps import GradientMap
from fastops.simd.reduce import BLOCK as _RUN
from fastops.simd.reduce import CHAIN, first_lanes, lane_sum, maximum, row_dots, sum_axis
from fastops.simd.rows import assign
from fastops.simd.vector import fma, lanes, load, load_part, splat, store
from fastops.simd.vmath import copysign, exp, log

Gradients = tuple[Array | None, ...]

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


@any_order
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
def _add_gradient(a, b, out, eps, kind, p, distance, g):
    """out += g times the derivative of the distance, not the Euclidean one, by a; of the largest or smallest divided among those that are it."""
    number = a.dtype.type
    zero, eps = number(0), number(eps)
    if distance == 0 or kind == _COUNT:
        if distance != distance:
            out[:] = number(np.nan)
        return
    if kind == _SUM:
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
        for i in range(a.size):
            count += 1 if abs(_difference(a[i], b[i], eps)) == size else 0
        factor = number(g / max(count, 1))
        for i in range(a.size):
            d = _difference(a[i], b[i], eps)
            slope = factor if d > zero else -factor
            out[i] += slope if abs(d) == size else zero


# ---- rows that belong together


@function
def _row_squares(a, b, start, width, count, eps, total):
    """total[i] = the sum of the squares of a - b + eps in row i: as ``row_dots``."""
    L, shift = lanes(a), splat(a, a.dtype.type(eps))
    whole = width // L * L
    for i in range(count):
        at = start + i * width
        d = first_lanes((load_part(a, at + whole, width - whole) - load_part(b, at + whole, width - whole)) + shift, width - whole)
        sums = d * d
        for j in range(at, at + whole, L):
            d = (load(a, j) - load(b, j)) + shift
            sums = fma(d, d, sums)
        total[i] = lane_sum(sums)


@separate
def _row_distances(block, worker, a, b, width, together, eps, kind, p, out):
    first, end = block * together, min((block + 1) * together, out.size)
    if kind == _EUCLIDEAN and width <= CHAIN:
        r = out[first:end]
        _row_squares(a, b, first * width, width, end - first, eps, r)
        for i in range(end - first):
            r[i] = np.sqrt(r[i])
        return
    for row in range(first, end):
        out[row] = _distance(a, row * width, b, row * width, width, eps, kind, p)


@separate
def _row_gradients(block, worker, a, b, width, together, eps, kind, p, r, g, da):
    first, end = block * together, min((block + 1) * together, g.size)
    if kind == _EUCLIDEAN:
        L, zero, shift = lanes(a), a.dtype.type(0), splat(a, a.dtype.type(eps))
        for row in range(first, end):
            at, factor = row * width, zero if r[row] == zero else g[row] / r[row]
            last = at + max(width - L, 0)
            if last + L <= end * width:
                f = splat(a, factor)
                for j in range(at, last, L):
                    store(da, j, f * ((load(a, j) - load(b, j)) + shift))
                store(da, last, f * ((load(a, last) - load(b, last)) + shift))  # overlaps the one before, or the next rows, which come later
            else:
                for j in range(at, at + width):
                    da[j] = factor * _difference(a[j], b[j], a.dtype.type(eps))
        return
    for row in range(first, end):
        at, last = row * width, (row + 1) * width
        da[at:last] = a.dtype.type(0)
        _add_gradient(a[at:last], b[at:last], da[at:last], eps, kind, p, np.float64(r[row]), np.float64(g[row]))


@launcher
def _distances(threads, a, b, width, together, eps, kind, p, out):
    parallel(_row_distances, (out.size + together - 1) // together, threads, (a, b, width, together, eps, kind, p, out))


@launcher
def _gradients(threads, a, b, width, together, eps, kind, p, r, g, da):
    parallel(_row_gradients, (g.size + together - 1) // together, threads, (a, b, width, together, eps, kind, p, r, g, da))


def row_distances(a: Array, b: Array, p: float, eps: float) -> Array:
    """The distances of the rows (last axis) of two arrays of one shape."""
    out = empty(a.shape[:-1], a.dtype)
    if out.size:
        width = a.shape[-1]
        _distances(threads_for(a.size * 0.3), a.ravel(), b.ravel(), width, max(1, _BLOCK // max(width, 1)), eps, kind_of(p), p, out.ravel())
    return out


def row_gradient(a: Array, b: Array, p: float, eps: float, r: Array, g: Array) -> Array:
    """The gradient of :func:`row_distances`, which are r, with respect to a; that with respect to b is its negative. g has a number a row."""
    da = empty(a.shape, a.dtype)
    if a.size:
        width = a.shape[-1]
        threads, together = threads_for(a.size * 0.6), max(1, _BLOCK // width)
        _gradients(threads, a.ravel(), b.ravel(), width, together, eps, kind_of(p), p, r.ravel(), g.ravel(), da.ravel())
    return da


# ---- all pairs: a (B, P, M), b turned (B, M, R) so that lanes lie along its rows, out (B, P, R), all flat


@separate
def _measure_row(a, a0, b, b0, others, first, width, kind, p, out, out0):
    """out[out0 + j] = the distance of a[a0 : a0 + width] from column first + j of b."""
    number = a.dtype.type
    count = others - first
    total = out[out0 : out0 + count]
    total[:] = number(0)
    m = 0
    while width - m >= 4 and (kind == _EUCLIDEAN or kind == _SUM):
        # four at a time: a third of the loads and stores of the sums
        x0, x1, x2, x3 = a[a0 + m], a[a0 + m + 1], a[a0 + m + 2], a[a0 + m + 3]
        at = b0 + m * others + first
        u0, u1 = b[at : at + count], b[at + others : at + others + count]
        u2, u3 = b[at + 2 * others : at + 2 * others + count], b[at + 3 * others : at + 3 * others + count]
        if kind == _EUCLIDEAN:
            for j in range(count):
                d0, d1, d2, d3 = x0 - u0[j], x1 - u1[j], x2 - u2[j], x3 - u3[j]
                total[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        else:
            for j in range(count):
                total[j] += (abs(x0 - u0[j]) + abs(x1 - u1[j])) + (abs(x2 - u2[j]) + abs(x3 - u3[j]))
        m += 4
    while m < width:
        x = a[a0 + m]
        u = b[b0 + m * others + first : b0 + m * others + others]
        if kind == _EUCLIDEAN:
            for j in range(count):
                total[j] += (x - u[j]) * (x - u[j])
        elif kind == _SUM:
            for j in range(count):
                total[j] += abs(x - u[j])
        elif kind == _COUNT:
            for j in range(count):
                total[j] += number(0) if x == u[j] else number(1)
        elif kind == _LARGEST:
            for j in range(count):
                total[j] = maximum(total[j], abs(x - u[j]))
        else:
            for j in range(count):
                total[j] += exp(number(p) * log(abs(x - u[j])))
        m += 1
    if kind == _EUCLIDEAN:
        for j in range(count):
            total[j] = np.sqrt(total[j])
    elif kind == _POWER:
        for j in range(count):
            total[j] = exp(log(total[j]) / number(p))


@any_order
def _weigh(x, u, r, factor, kind, power):
    """The sum of factor times the derivative of each distance by x."""
    zero = u.dtype.type(0)
    total = zero
    if kind == _EUCLIDEAN:
        for j in range(u.size):
            total += factor[j] * (x - u[j])
    elif kind == _SUM:
        for j in range(u.size):
            total += factor[j] if x > u[j] else -factor[j] if x < u[j] else zero
    elif kind == _LARGEST:
        for j in range(u.size):
            slope = factor[j] if x > u[j] else -factor[j]
            total += slope if abs(x - u[j]) == r[j] else zero
    else:
        for j in range(u.size):
            d = x - u[j]
            slope = factor[j] * copysign(exp(power * (log(abs(d)) - r[j])), d)
            total += zero if d == zero else slope
    return total


@any_order
def _weigh_four(x0, x1, x2, x3, u0, u1, u2, u3, factor, kind):
    """As ``_weigh``, of four columns at once, for which the factors are loaded once."""
    zero = factor.dtype.type(0)
    t0, t1, t2, t3 = zero, zero, zero, zero
    if kind == _EUCLIDEAN:
        for j in range(factor.size):
            f = factor[j]
            t0 += f * (x0 - u0[j])
            t1 += f * (x1 - u1[j])
            t2 += f * (x2 - u2[j])
            t3 += f * (x3 - u3[j])
    else:
        for j in range(factor.size):
            f = factor[j]
            t0 += f if x0 > u0[j] else -f if x0 < u0[j] else zero
            t1 += f if x1 > u1[j] else -f if x1 < u1[j] else zero
            t2 += f if x2 > u2[j] else -f if x2 < u2[j] else zero
            t3 += f if x3 > u3[j] else -f if x3 < u3[j] else zero
    return t0, t1, t2, t3


@separate
def _differentiate_row(a, a0, b, b0, others, width, kind, p, r, factor, da):
    """da[a0 : a0 + width], where r has the distances, and factor their gradients; both are overwritten."""
    number = a.dtype.type
    zero = number(0)
    for j in range(others):
        # 0 where the distance is 0
        each = zero if r[j] == zero or kind == _COUNT else factor[j]
        factor[j] = each / r[j] if kind == _EUCLIDEAN and r[j] != zero else each
    if kind == _POWER:
        for j in range(others):
            r[j] = zero if r[j] == zero else log(r[j])
    m = 0
    while width - m >= 4 and (kind == _EUCLIDEAN or kind == _SUM):
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for first in range(0, others, _RUN):
            count = min(_RUN, others - first)
            at = b0 + m * others + first
            t0, t1, t2, t3 = _weigh_four(
                a[a0 + m], a[a0 + m + 1], a[a0 + m + 2], a[a0 + m + 3], b[at : at + count],
                b[at + others : at + others + count], b[at + 2 * others : at + 2 * others + count],
                b[at + 3 * others : at + 3 * others + count], factor[first : first + count], kind,
            )  # fmt: skip
            s0, s1, s2, s3 = s0 + t0, s1 + t1, s2 + t2, s3 + t3
        da[a0 + m], da[a0 + m + 1], da[a0 + m + 2], da[a0 + m + 3] = s0, s1, s2, s3
        m += 4
    while m < width:
        total = 0.0
        if kind != _COUNT:
            for first in range(0, others, _RUN):
                end = min(first + _RUN, others)
                row = b0 + m * others
                total += _weigh(a[a0 + m], b[row + first : row + end], r[first:end], factor[first:end], kind, number(p - 1))
        da[a0 + m] = total
        m += 1


@separate
def _cdist_rows(block, worker, a, b, rows, others, width, kind, p, out):
    call(_measure_row, (a, block * width, b, block // rows * others * width, others, 0, width, kind, p, out, block * others))


@separate
def _cdist_gradient_rows(block, worker, a, b, rows, others, width, kind, p, g, distances, scratch, da):
    """da[batch, i] for one i; the worker has two rows of scratch memory."""
    r, factor = scratch[2 * worker * others : (2 * worker + 1) * others], scratch[(2 * worker + 1) * others : 2 * (worker + 1) * others]
    b0 = block // rows * others * width
    assign(r, distances[block * others : (block + 1) * others])
    assign(factor, g[block * others : (block + 1) * others])
    call(_differentiate_row, (a, block * width, b, b0, others, width, kind, p, r, factor, da))


@separate
def _pdist_rows(block, worker, a, turned, rows, width, kind, p, out):
    """Row ``block`` with all that follow it."""
    start = block * (2 * rows - block - 1) // 2
    call(_measure_row, (a, block * width, turned, 0, rows, block + 1, width, kind, p, out, start))


@separate
def _pdist_gradient_rows(block, worker, a, turned, rows, width, kind, p, g, distances, scratch, da):
    r, factor = scratch[2 * worker * rows : (2 * worker + 1) * rows], scratch[(2 * worker + 1) * rows : 2 * (worker + 1) * rows]
    at = block - 1  # of the pair (0, block); that of (1, block) is rows - 2 further, and so on
    for j in range(block):
        factor[j], r[j] = g[np.uintp(at)], distances[np.uintp(at)]
        at += rows - 2 - j
    factor[block] = r[block] = a.dtype.type(0)
    start = block * (2 * rows - block - 1) // 2
    assign(factor[block + 1 :], g[start : start + rows - block - 1])
    assign(r[block + 1 :], distances[start : start + rows - block - 1])
    call(_differentiate_row, (a, block * width, turned, 0, rows, width, kind, p, r, factor, da))


@launcher
def _cdist(threads, a, b, batch, rows, others, width, kind, p, out):
    parallel(_cdist_rows, batch * rows, threads, (a, b, rows, others, width, kind, p, out))


@launcher
def _cdist_gradient(threads, a, b, batch, rows, others, width, kind, p, g, distances, scratch, da):
    parallel(_cdist_gradient_rows, batch * rows, threads, (a, b, rows, others, width, kind, p, g, distances, scratch, da))


@launcher
def _pdist(threads, a, turned, rows, width, kind, p, out):
    parallel(_pdist_rows, rows - 1, threads, (a, turned, rows, width, kind, p, out))


@launcher
def _pdist_gradient(threads, a, turned, rows, width, kind, p, g, distances, scratch, da):
    parallel(_pdist_gradient_rows, rows, threads, (a, turned, rows, width, kind, p, g, distances, scratch, da))


def _turned(a: Array) -> Array:
    """(..., R, M) as (..., M, R), flat."""
    return np.ascontiguousarray(a.swapaxes(-1, -2)).ravel()


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
    out = empty((3, math.prod(a.shape[:-1])))
    _dot_rows(a, a, out)
    return out[0].astype(a.dtype)


# ---- dot products of slices along an axis: a, b (outer, axis, inner), flat


@separate
def _dots_block(block, worker, a, b, axis, inner, together, out):
    """out[0] = a.a, out[1] = b.b, out[2] = a.b for some slices, in float64."""
    if inner == 1:
        first, end = block * together, min((block + 1) * together, out.shape[1])
        row_dots(a, a, first * axis, axis, end - first, out[0, first:end])
        row_dots(b, b, first * axis, axis, end - first, out[1, first:end])
        row_dots(a, b, first * axis, axis, end - first, out[2, first:end])
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
        L, first, end = lanes(a), block * together, min((block + 1) * together, factors.shape[1])
        for row in range(first, end):
            at, plus, minus = row * axis, number(factors[0, row]), number(factors[1, row])
            last = at + max(axis - L, 0)
            if last + L <= end * axis:
                p, m = splat(a, plus), splat(a, minus)
                for j in range(at, last, L):
                    store(out, j, p * load(b, j) - m * load(a, j))
                store(out, last, p * load(b, last) - m * load(a, last))  # overlaps the one before, or the next rows, which come later
            else:
                for j in range(at, at + axis):
                    out[j] = plus * b[j] - minus * a[j]
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
    out = empty((3, math.prod(rest)))
    _dot_rows(a, b, out, math.prod(a.shape[axis + 1 :]))
    return out.reshape(3, *rest)


def blend(a: Array, b: Array, axis: int, plus: Array, minus: Array) -> Array:
    """plus b - minus a, where the factors (float64) have the shape of the arrays without an axis."""
    out = empty(a.shape, a.dtype)
    if out.size:
        factors = empty((2, plus.size))
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
    da = row_gradient(a, b, p, eps, row_distances(a, b, p, eps), np.asarray(g, a.dtype))
    db = (-da if output_mask[0] else np.negative(da, out=da)) if output_mask[1] else None
    return finish((da if output_mask[0] else None, db), shapes, dtype)


@formula
def _ratio(g, r, a, b):
    zero = type(r)(0)
    quotient = g / r
    return zero if r == zero else quotient


_RATIO = GradientMap(__name__, _ratio, 0.2)

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
    return a.size * b.shape[-2] * 0.1


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
    out = empty((*a.shape[:-1], others), a.dtype)
    if out.size == 0:
        return out
    if product:
        gemm(a, b.swapaxes(-1, -2), out=out, alpha=-2.0)
        _finish(threads_for(out.size * 0.6), _squares(a), _squares(b), rows, others, out.ravel())
    else:
        _cdist(threads_for(_cdist_work(a, b)), a.ravel(), _turned(b), out.size // (rows * others), rows, others, width, kind_of(p), p, out.ravel())
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
        output: the distances; computed again when not given.

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
    r = _all_distances(a, b, p, product) if output is None else np.ascontiguousarray(output, a.dtype)
    same_shape(op, "output", r, "grad_output", g.shape)
    if a.size and b.size and product:
        ratio = _RATIO.of(op, g, r, name="output")
        for i, (mine, other, across) in enumerate(((a, b, ratio), (b, a, ratio.swapaxes(-1, -2)))):
            if output_mask[i]:
                gradient = gemm(across, other, alpha=-1.0)
                batch = ratio.size // (rows * others)
                sums = sum_axis(ratio.reshape((batch * rows, others, 1) if i == 0 else (batch, rows, others)))
                gradient += mine * sums.reshape(*mine.shape[:-1], 1)
                found[i] = gradient
    elif a.size and b.size:
        batch, threads = a.size // (rows * width), threads_for(_cdist_work(a, b))
        for i, (mine, other) in enumerate(((a, b), (b, a))):
            gradient = found[i]
            if gradient is not None:
                m, n = mine.shape[-2], other.shape[-2]
                across, distances = (each.ravel() if i == 0 else _turned(each) for each in (g, r))
                _cdist_gradient(
                    threads, mine.ravel(), _turned(other), batch, m, n, width, kind_of(p), p, across, distances,
                    empty(2 * threads * n, a.dtype), gradient.ravel(),
                )  # fmt: skip
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
    return to_dtype(_condensed(x, p), dtype)


def _condensed(x: Array, p: float) -> Array:
    rows, width = x.shape
    out = empty(rows * (rows - 1) // 2, x.dtype)
    if out.size:
        _pdist(threads_for(_cdist_work(x, x) / 2), x.ravel(), _turned(x), rows, width, kind_of(p), p, out)
    return out


def pdist_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 2, *, output: Array | None = None) -> Array:
    """Gradient of :func:`pdist` with respect to its input; 0 where a distance is 0.

    Args:
        grad_output: of the shape and dtype of the output.
        output: the distances; computed again when not given.

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
        r = _condensed(x, p) if output is None else np.ascontiguousarray(output, x.dtype)
        same_shape(op, "output", r, "grad_output", g.shape)
        threads = threads_for(_cdist_work(x, x))
        _pdist_gradient(threads, x.ravel(), _turned(x), rows, width, kind_of(p), p, g, r, empty(2 * threads * rows, x.dtype), dx.ravel())
    return to_dtype(dx, dtype)


def _pdist_record(input: Any, p: float = 2) -> tuple[Array, dict[str, Any]]:
    out = pdist(input, p)
    return out, {} if out.dtype == _check.FLOAT16 else {"output": out}


register(cosine_similarity, cosine_similarity_backward, inputs=("x1", "x2"), saved=("x1", "x2"))
register(pairwise_distance, pairwise_distance_backward, inputs=("x1", "x2"), saved=("x1", "x2"))
register(cdist, cdist_backward, inputs=("x1", "x2"), saved=("x1", "x2"), record=_cdist_record)
register(pdist, pdist_backward, inputs=("input",), saved=("input",), record=_pdist_record)
