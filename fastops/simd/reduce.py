"""Reductions: spans of memory inside other kernels, and arrays seen as (outer, axis, inner) reduced along their middle axis.

Sums run over blocks of fixed size. Inside a block there are as many running sums as the machine has lanes and pipelines (0.06 ns
an element instead of 0.9); the sums of blocks are added in order, in float64. The
relative error of a float32 sum therefore stays about 1e-7 for any length, and no result depends on the number of threads.
A maximum with NaN in it is NaN.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.simd.vector import fma, lanes, larger, largest_lane, load, load_part, splat

# Elements that are added in their own format before float64 takes over.
BLOCK = 1024

# Up to so many elements of a row are added in one chain per lane: the next row's chain runs beside it.
CHAIN = 256

# An axis is cut into pieces of so many elements (of rows, where it is not the last axis) that threads share.
_SPAN = 1 << 15
_ROWS = 256
# Columns whose running sums stay in L1; rows of them that are added in their own format.
_COLUMNS = 512
_RUN = 8

_NS_PER_ELEMENT = 0.1


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger number; NaN if either is NaN. A loop over it becomes packed instructions, which one over ``max`` does not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[0].type
        called = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(called, args, fastmath=("nsz",))

    return a(a, a), codegen


@intrinsic
def greater(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of each two lanes; b where either is NaN. One instruction of three cycles, where ``maximum`` takes three of seven."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return a(a, a), codegen


@intrinsic
def lane_sum(typingctx: Any, vector: Any) -> Any:
    """The sum over the lanes of a vector; the order of additions is fixed."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind, module = vector.llvm.element, builder.module
        name = f"llvm.vector.reduce.fadd.v{vector.count}f{vector.dtype.bitwidth}"
        called = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind, vector.llvm]), name)
        return builder.call(called, [ir.Constant(kind, 0.0), args[0]], fastmath=("reassoc",))

    return vector.dtype(vector), codegen


@intrinsic
def first_lanes(typingctx: Any, vector: Any, count: Any) -> Any:
    """The first ``count`` lanes of a vector, zeros in the others."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(64), vector.count)
        some = builder.insert_element(ir.Constant(kind, ir.Undefined), args[1], ir.Constant(ir.IntType(32), 0))
        limit = builder.shuffle_vector(some, some, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count))
        inside = builder.icmp_signed("<", ir.Constant(kind, list(range(vector.count))), limit)
        return builder.select(inside, args[0], ir.Constant(vector.llvm, None))

    return vector(vector, types.intp), codegen


# ---- spans, for the bodies of other kernels. Vectors by hand: the plain loop adds what is left of a short span one by one,
# which takes longer than the rest of it (rows of 49: 20 ns of 25).


@function
def span_sum(x, start, count):
    """The sum of x[start : start + count] of a flat array, in float64."""
    step, nothing = lanes(x), splat(x, x.dtype.type(0))
    total, i, last = np.float64(0), start, start + count
    while i < last:  # of i alone: beside a counter of blocks a short span takes 8 ns instead of 3
        end = min(i + BLOCK, last)
        a, b, c, d = nothing, nothing, nothing, nothing
        while end - i >= 4 * step:
            a, b = a + load(x, i), b + load(x, i + step)
            c, d = c + load(x, i + 2 * step), d + load(x, i + 3 * step)
            i += 4 * step
        while end - i >= step:
            a = a + load(x, i)
            i += step
        if i < end:
            a = a + load_part(x, i, end - i)
            i = end
        total += lane_sum((a + b) + (c + d))
    return total


@function
def span_moments(x, start, count, shift):
    """The sums of x - shift and of (x - shift)^2 over a span, in float64; ``shift`` has the dtype of x."""
    step, nothing, centre = lanes(x), splat(x, x.dtype.type(0)), splat(x, shift)
    first = second = np.float64(0)
    i, last = start, start + count
    while i < last:
        end = min(i + BLOCK, last)
        a, b, c, d = nothing, nothing, nothing, nothing
        aa, bb, cc, dd = nothing, nothing, nothing, nothing
        while end - i >= 4 * step:
            p, q = load(x, i) - centre, load(x, i + step) - centre
            r, s = load(x, i + 2 * step) - centre, load(x, i + 3 * step) - centre
            a, b, c, d = a + p, b + q, c + r, d + s
            aa, bb, cc, dd = fma(p, p, aa), fma(q, q, bb), fma(r, r, cc), fma(s, s, dd)
            i += 4 * step
        while end - i >= step:
            p = load(x, i) - centre
            a, aa = a + p, fma(p, p, aa)
            i += step
        if i < end:
            p = first_lanes(load_part(x, i, end - i) - centre, end - i)
            a, aa = a + p, fma(p, p, aa)
            i = end
        first += lane_sum((a + b) + (c + d))
        second += lane_sum((aa + bb) + (cc + dd))
    return first, second


@function
def span_dot(x, x0, y, y0, count):
    """The sum of x[x0 + i] * y[y0 + i], in float64."""
    step, nothing = lanes(x), splat(x, x.dtype.type(0))
    total, i = np.float64(0), 0
    while i < count:
        end = min(i + BLOCK, count)
        a, b, c, d = nothing, nothing, nothing, nothing
        while end - i >= 4 * step:
            a = fma(load(x, x0 + i), load(y, y0 + i), a)
            b = fma(load(x, x0 + i + step), load(y, y0 + i + step), b)
            c = fma(load(x, x0 + i + 2 * step), load(y, y0 + i + 2 * step), c)
            d = fma(load(x, x0 + i + 3 * step), load(y, y0 + i + 3 * step), d)
            i += 4 * step
        while end - i >= step:
            a = fma(load(x, x0 + i), load(y, y0 + i), a)
            i += step
        if i < end:
            a = fma(load_part(x, x0 + i, end - i), load_part(y, y0 + i, end - i), a)
            i = end
        total += lane_sum((a + b) + (c + d))
    return total


@function
def span_max(x, start, count):
    """The largest of a span; NaN if one is NaN, -inf if it is empty."""
    L = lanes(x)
    if count < L:
        part = x[start : start + count]
        largest = x.dtype.type(-np.inf)
        for i in range(count):
            largest = maximum(largest, part[i])
        return largest
    a = load(x, start + count - L)  # the last vector overlaps the one before it
    b, c, d = a, a, a  # one chain would wait seven cycles for each vector
    i, end = start, start + count - L
    while end - i > 3 * L:
        a, b = larger(load(x, i), a), larger(load(x, i + L), b)
        c, d = larger(load(x, i + 2 * L), c), larger(load(x, i + 3 * L), d)
        i += 4 * L
    while i < end:
        a = larger(load(x, i), a)
        i += L
    return largest_lane(larger(larger(a, b), larger(c, d)))


# ---- rows. A helper that takes one row costs 8 ns to call; these take many, and a row of 16 elements takes them 1.9 ns.


@function
def row_dots(x, y, start, width, count, total):
    """total[i] = the dot product of row i of x with that of y; rows of ``width`` elements from ``start`` on."""
    if width > CHAIN:
        for i in range(count):
            total[i] = span_dot(x, start + i * width, y, start + i * width, width)
        return
    L = lanes(x)
    whole = width // L * L
    for i in range(count):
        at = start + i * width
        sums = load_part(x, at + whole, width - whole) * load_part(y, at + whole, width - whole)
        for j in range(at, at + whole, L):
            sums = fma(load(x, j), load(y, j), sums)
        total[i] = lane_sum(sums)


# ---- whole arrays


@separate
def _sum_spans(block, worker, x, axis, pieces, together, partial):
    """partial[row * pieces + piece] for ``together`` rows of x, or for one piece of a row; x is flat."""
    if pieces > 1:
        start = block // pieces * axis + block % pieces * _SPAN
        partial[block] = span_sum(x, start, min(_SPAN, (block // pieces + 1) * axis - start))
        return
    for row in range(block * together, min((block + 1) * together, partial.size)):
        partial[row] = span_sum(x, row * axis, axis)


@function
def _add_rows(x, start, inner, rows, columns, total):
    """total[j] += the sum of ``rows`` rows, x[start + i * inner + j]."""
    row = 0
    while rows - row >= _RUN:
        at = start + row * inner
        # eight rows in their own format: one conversion to float64 instead of eight
        a, b, c, d = x[at:], x[at + inner :], x[at + 2 * inner :], x[at + 3 * inner :]
        e, f, g, h = x[at + 4 * inner :], x[at + 5 * inner :], x[at + 6 * inner :], x[at + 7 * inner :]
        for j in range(columns):
            total[j] += ((a[j] + b[j]) + (c[j] + d[j])) + ((e[j] + f[j]) + (g[j] + h[j]))
        row += _RUN
    while row < rows:
        a = x[start + row * inner :]
        for j in range(columns):
            total[j] += a[j]
        row += 1


@separate
def _sum_columns(block, worker, x, axis, inner, pieces, together, partial):
    """partial[(outer * pieces + piece) * inner + j] for one piece of the axis and a block of columns; x is flat."""
    column_blocks = (inner + _COLUMNS - 1) // _COLUMNS
    for item in range(block * together, min((block + 1) * together, partial.size // inner * column_blocks)):
        first = item % column_blocks * _COLUMNS
        columns = min(_COLUMNS, inner - first)
        piece = item // column_blocks
        row = piece % pieces * _ROWS
        total = partial[piece * inner + first : piece * inner + first + columns]
        total[:] = 0.0
        start = (piece // pieces * axis + row) * inner + first
        _add_rows(x, start, inner, min(_ROWS, axis - row), columns, total)


@function
def _combine(partial, pieces, inner, out):
    """out[o, j] = the sum over pieces of partial[o, piece, j], all flat."""
    for outer in range(out.size // inner):
        whole = out[outer * inner : (outer + 1) * inner]
        total = partial[outer * pieces * inner : (outer * pieces + 1) * inner]
        for piece in range(1, pieces):
            part = partial[(outer * pieces + piece) * inner : (outer * pieces + piece + 1) * inner]
            for j in range(inner):
                total[j] += part[j]
        for j in range(inner):
            whole[j] = total[j]


@launcher
def _sum(threads, x, axis, inner, pieces, together, partial, out):
    if inner == 1:
        blocks = partial.size if pieces > 1 else (partial.size + together - 1) // together
        parallel(_sum_spans, blocks, threads, (x, axis, pieces, together, partial))
    else:
        items = partial.size // inner * ((inner + _COLUMNS - 1) // _COLUMNS)
        parallel(_sum_columns, (items + together - 1) // together, threads, (x, axis, inner, pieces, together, partial))
    _combine(partial, pieces, inner, out)


def sum_axis(x: Array, out: Array | None = None) -> Array:
    """The sum over the middle axis of a C-contiguous array (outer, axis, inner): (outer, inner) in the dtype of x.

    ``out`` may be any C-contiguous array of as many elements, float64 too.

    >>> sum_axis(np.ones((2, 3, 1), np.float32))
    array([[3.],
           [3.]], dtype=float32)
    """
    outer, axis, inner = x.shape
    if out is None:
        out = empty((outer, inner), x.dtype)
    if x.size == 0:
        out[...] = 0
        return out
    if axis == 1:
        out.reshape(-1)[:] = x.reshape(-1)
        return out
    pieces = -(-axis // (_SPAN if inner == 1 else _ROWS))
    together = max(1, _SPAN // (axis * inner))
    partial = empty(outer * pieces * inner)
    _sum(threads_for(x.size * _NS_PER_ELEMENT), x.reshape(-1), axis, inner, pieces, together, partial, out.reshape(-1))
    return out


@separate
def _max_block(block, worker, x, axis, inner, together, out):
    """out[o, j] for some consecutive o; x and out are flat."""
    for outer in range(block * together, min((block + 1) * together, out.size // inner)):
        if inner == 1:
            out[outer] = span_max(x, outer * axis, axis)
            continue
        largest = out[outer * inner : (outer + 1) * inner]
        largest[:] = x[outer * axis * inner : (outer * axis + 1) * inner]
        for row in range(outer * axis + 1, (outer + 1) * axis):
            part = x[row * inner : (row + 1) * inner]
            for j in range(inner):
                largest[j] = maximum(largest[j], part[j])


@launcher
def _max(threads, x, axis, inner, together, out):
    parallel(_max_block, (out.size // inner + together - 1) // together, threads, (x, axis, inner, together, out))


def max_axis(x: Array, out: Array | None = None) -> Array:
    """The largest along the middle axis of a C-contiguous array (outer, axis, inner), axis >= 1: (outer, inner).

    >>> max_axis(np.array([[[1.0], [np.nan]], [[1.0], [2.0]]]))
    array([[nan],
           [ 2.]])
    """
    outer, axis, inner = x.shape
    if out is None:
        out = empty((outer, inner), x.dtype)
    if x.size:
        together = max(1, _SPAN // (axis * inner))
        _max(threads_for(x.size * _NS_PER_ELEMENT), x.reshape(-1), axis, inner, together, out.reshape(-1))
    return out


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """The array summed over the axes along which ``shape`` was broadcast to its shape: the gradient of broadcasting.

    >>> sum_to(np.ones((4, 2, 3)), (2, 1))
    array([[12.],
           [12.]])
    """
    if array.shape == shape:
        return array
    if array.size == 0:
        return np.zeros(shape, array.dtype)
    extents = list(array.shape)
    lead = len(extents) - len(shape)
    for axis, extent in enumerate(extents):
        if axis < lead or shape[axis - lead] < extent:
            array = sum_axis(array.reshape(prod(extents[:axis]), extent, prod(extents[axis + 1 :])))
            extents[axis] = 1
    return array.reshape(shape)
