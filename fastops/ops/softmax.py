"""softmax, log_softmax, softmin and gumbel_softmax, along any axis, without a transposed copy.

    softmax      y_i = e^(x_i - m) / sum_j e^(x_j - m), m = max x       dx = y (dy - sum dy y)
    log_softmax  y_i = (x_i - m) - log sum_j e^(x_j - m)                dx = dy - e^y sum dy
    softmin      softmax(-x)
    gumbel       softmax((x + g) / tau), g = -log(-log u) for each element; hard: the largest becomes 1, the others 0, and the
                 gradient stays that of the soft result (straight through)

The output is kept, which is all that the gradients need. The largest of a row is taken off first, so nothing overflows; a
row of -inf gives NaN, as 0 / 0 must. Each row is read from memory once: its three passes find it in cache. Rows shorter than
a few vectors are worked on many at a time, as one flat array beside which the rows' numbers are laid out element by element:
loops over ten elements would spend their time in what vectors leave over. Along another axis than the last, the columns of a
tile are the lanes, and the shortest rows become such columns.

Sources: Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs" (1990); Jang, Gu, Poole,
"Categorical Reparameterization with Gumbel-Softmax" (ICLR 2017), equations 1 and 2.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastops import _check
from fastops._check import Array, deliver, target
from fastops._jit import any_order, call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.blocking import LANES, LARGE_CORE, NAMES
from fastops.simd.random import bits32, check_seed, seed_of
from fastops.simd.reduce import greater, maximum, span_sum
from fastops.simd.rows import copy_row, fill_row
from fastops.simd.turn import rows_together, turn_columns, turn_rows, turned_rows
from fastops.simd.vector import broadcast, fma, lanes, largest_lane, load, load_part, splat, store, store_part, sum_of_lanes
from fastops.simd.vmath import exp_plain, log, log1p
from fastops.simd.workspace import scratch_array

_NS = 0.6  # an element, one thread, AVX2
_NS_GUMBEL = 2.0

# Elements of a block; rows up to _SHORT are worked on together, _FLAT elements at a time (3125 of 128 one at a time 0.39 ms, so 0.23), those
# up to so many vectors as columns, by lanes: 100000 rows of two elements 2.77 to 0.31 ms, of 16 1.79 to 1.46, 12500 of 32 0.46 to 0.25, of 64
# a tenth. (Gradients, without a largest, take longer so.) On large cores rows are faster from two vectors on: 4096 rows of 77, of which
# turning reads and writes 16 side by side, 0.24 to 0.15 ms, of 40 in float64 0.26 to 0.18.
_BLOCK = 1 << 13
_SHORT = 512
_TURN = {16: 2, 8: 2} if LARGE_CORE else {16: 4, 8: 3}
# With 16 lanes two vectors more of many rows, which is so many elements, elsewhere: 5194 rows of 77 0.30 to 0.26 ms.
_MANY = 1 << 16
_FLAT = 1 << 11
# A tile of columns keeps so many elements in cache, at most so many columns wide: 20 us for one thread. Of half as many, 512 rows of
# 1024 take 0.55 ms instead of 0.41, their gradient 0.36 instead of 0.29.
_TILE = 1 << 15
_COLUMNS = 256
# Elements of a row, and rows, that are added in their own format before float64 takes over.
_RUN = 1024
_RUN_ROWS = 64


# ---- rows: the axis is the last one


@any_order
def _exp_into(x, scale, shift, y):
    """y = e^(scale x - shift), and its sum."""
    total = x.dtype.type(0)
    for i in range(x.size):
        e = exp_plain(scale * x[i] - shift)
        y[i] = e
        total += e
    return total


@function
def _scaled_max(x, scale):
    largest = x.dtype.type(-np.inf)
    for i in range(x.size):
        largest = maximum(largest, scale * x[i])
    return largest


# Rows of any length by vectors: what a plain loop leaves over, up to 15 elements, takes as long as 60 others.


@function
def _row_max(x, start, axis, scale):
    """The largest of scale * x[start : start + axis]. Whether it sees NaN does not matter: the sum of powers will.

    Four chains: NaN and all, ``maximum`` takes seven cycles, as long as the power of a vector.
    """
    L, factor = lanes(x), splat(x, scale)
    if axis < L:
        return _scaled_max(x[start : start + axis], scale)
    a = load(x, start + axis - L) * factor  # the last vector overlaps the one before it
    b, c, d = a, a, a
    i, end = start, start + axis - L
    while end - i > 3 * L:
        a, b = greater(load(x, i) * factor, a), greater(load(x, i + L) * factor, b)
        c, d = greater(load(x, i + 2 * L) * factor, c), greater(load(x, i + 3 * L) * factor, d)
        i += 4 * L
    while i < end:
        a = greater(load(x, i) * factor, a)
        i += L
    return largest_lane(greater(greater(a, b), greater(c, d)))


@function
def _row_sum(x, start, axis):
    L = lanes(x)
    end = start + axis
    i = start + axis // L * L
    a = load_part(x, i, end - i)
    b, c, d = splat(x, x.dtype.type(0)), splat(x, x.dtype.type(0)), splat(x, x.dtype.type(0))
    end, i = i, start
    while end - i >= 4 * L:
        a, b = a + load(x, i), b + load(x, i + L)
        c, d = c + load(x, i + 2 * L), d + load(x, i + 3 * L)
        i += 4 * L
    while i < end:
        a = a + load(x, i)
        i += L
    return sum_of_lanes((a + b) + (c + d))


@function
def _scale_row(x, x0, factor, y, y0, count):
    """y[y0 + i] = factor * x[x0 + i]"""
    L, by = lanes(x), splat(x, factor)
    if count < L:
        for i in range(count):
            y[y0 + i] = x[x0 + i] * factor
        return
    for i in range(0, count - L, L):
        store(y, y0 + i, load(x, x0 + i) * by)
    store(y, y0 + count - L, load(x, x0 + count - L) * by)  # overlaps the one before


@function
def _shift_row(x, scale, shift, less, y):
    """y = (scale * x - shift) - less"""
    L, factor, first, second = lanes(x), splat(x, scale), splat(x, shift), splat(x, less)
    count = x.size
    if count < L:
        for i in range(count):
            y[i] = (scale * x[i] - shift) - less
        return
    for i in range(0, count - L, L):
        store(y, i, (load(x, i) * factor - first) - second)
    store(y, count - L, (load(x, count - L) * factor - first) - second)


@separate
def _softmax_row(x, scale, logarithm, part, e, y):
    """One long row; part and e are scratch. Its end is filled up to whole groups of vectors, so that no loop has a remainder."""
    number, axis, group = x.dtype.type, x.size, 4 * lanes(x)
    shift, total = _row_max(x, 0, axis, scale), np.float64(0)
    last = (axis - 1) // _RUN * _RUN
    for start in range(0, last, _RUN):
        if logarithm:
            total += _exp_into(x[start : start + _RUN], scale, shift, e[:_RUN])
        else:
            total += _exp_into(x[start : start + _RUN], scale, shift, y[start : start + _RUN])
    count = axis - last
    full = (count + group - 1) // group * group
    if full == count:
        _exp_into(x[last:axis], scale, shift, e[:count])
    else:
        copy_row(x, last, part, 0, count)
        part[count:full] = number(0)
        _exp_into(part[:full], scale, shift, e[:full])
    total += _row_sum(e, 0, count)
    if logarithm:
        _shift_row(x, scale, shift, log(number(total)), y)
    else:
        over = number(1.0 / total)
        for i in range(last):
            y[i] *= over
        _scale_row(e, 0, over, y, last, count)


@separate
def _softmax_short_rows(x, axis, scale, logarithm, spread, e, y):
    """Some short rows, x.size elements; spread and e are scratch of that size."""
    number, size, L = x.dtype.type, x.size, lanes(x)
    whole = axis // L * L
    spread, e = spread[:size], e[:size]
    if logarithm:
        for start in range(0, size, axis):
            factor, shift, last = splat(x, scale), splat(x, _row_max(x, start, axis, scale)), start + axis - L
            if axis >= L:
                for i in range(start, last, L):
                    store(spread, i, load(x, i) * factor - shift)
                store(spread, last, load(x, last) * factor - shift)
            else:
                store_part(spread, start, load_part(x, start, axis) * factor - shift, axis)
        for i in range(size):
            e[i] = exp_plain(spread[i])
        rows = size // axis
        for row in range(rows):
            e[row] = _row_sum(e, row * axis, axis)  # over a row that has been read
        for row in range(rows):
            e[row] = log(e[row])
        for row in range(rows):
            start, less = row * axis, broadcast(e, row)
            last = start + axis - L
            if axis >= L:  # the last vector overlaps the one before it: a masked store would take 20 ns
                for i in range(start, last, L):
                    store(y, i, load(spread, i) - less)
                store(y, last, load(spread, last) - less)
            else:
                store_part(y, start, load_part(spread, start, axis) - less, axis)
    else:
        for start in range(0, size, axis):
            fill_row(_row_max(x, start, axis, scale), spread, start, axis)
        for i in range(size):
            y[i] = exp_plain(scale * x[i] - spread[i])
        for start in range(0, size, axis):
            over = splat(y, number(1) / _row_sum(y, start, axis))
            if axis >= L:
                last = start + axis - L
                end = load(y, last) * over
                for i in range(start, start + whole, L):
                    store(y, i, load(y, i) * over)
                store(y, last, end)
            else:
                store_part(y, start, load_part(y, start, axis) * over, axis)


@separate
def _softmax_rows(block, worker, x, axis, scale, logarithm, each, scratch, y):
    """``each`` rows of x, flat."""
    first, end = block * each * axis, min((block + 1) * each * axis, x.size)
    scale = x.dtype.type(scale)
    if axis > _SHORT:
        for start in range(first, end, axis):
            call(_softmax_row, (x[start : start + axis], scale, logarithm, scratch[worker, 0], scratch[worker, 1], y[start : start + axis]))
        return
    step = _FLAT // axis * axis
    for start in range(first, end, step):
        stop = min(start + step, end)
        call(_softmax_short_rows, (x[start:stop], axis, scale, logarithm, scratch[worker, 0], scratch[worker, 1], y[start:stop]))


@function
def _row_dot(x, y, start, axis):
    L, total = lanes(x), np.float64(0)
    for run in range(start, start + axis, _RUN):
        count = min(_RUN, start + axis - run)
        last = run + count // L * L
        a = load_part(x, last, run + count - last) * load_part(y, last, run + count - last)
        b, c, d = splat(x, x.dtype.type(0)), splat(x, x.dtype.type(0)), splat(x, x.dtype.type(0))
        i = run
        while last - i >= 4 * L:
            a, b = fma(load(x, i), load(y, i), a), fma(load(x, i + L), load(y, i + L), b)
            c, d = fma(load(x, i + 2 * L), load(y, i + 2 * L), c), fma(load(x, i + 3 * L), load(y, i + 3 * L), d)
            i += 4 * L
        while i < last:
            a = fma(load(x, i), load(y, i), a)
            i += L
        total += sum_of_lanes((a + b) + (c + d))
    return total


@separate
def _gradient_rows(block, worker, dy, y, axis, scale, logarithm, each, scratch, dx):
    first, end = block * each * axis, min((block + 1) * each * axis, y.size)
    number, L = y.dtype.type, lanes(y)
    scale = number(scale)
    if not logarithm:
        factor = splat(y, scale)
        for start in range(first, end, axis):
            total = splat(y, number(_row_dot(dy, y, start, axis)))
            last, end_of_row = start + axis // L * L, start + axis
            for i in range(start, last, L):
                store(dx, i, load(y, i) * factor * (load(dy, i) - total))
            if axis >= L:
                store(dx, end_of_row - L, load(y, end_of_row - L) * factor * (load(dy, end_of_row - L) - total))
            else:
                store_part(dx, start, load_part(y, start, axis) * factor * (load_part(dy, start, axis) - total), axis)
        return
    if axis > _SHORT:
        for start in range(first, end, axis):
            g, row, result = dy[start : start + axis], y[start : start + axis], dx[start : start + axis]
            total = number(span_sum(dy, start, axis))
            for i in range(axis):
                result[i] = scale * (g[i] - exp_plain(row[i]) * total)
        return
    step = _FLAT // axis * axis
    for start in range(first, end, step):
        size = min(step, end - start)
        g, row, result = dy[start : start + size], y[start : start + size], dx[start : start + size]
        spread = scratch[worker, 0, :size]
        for at in range(0, size, axis):
            fill_row(_row_sum(g, at, axis), spread, at, axis)
        for i in range(size):
            result[i] = scale * (g[i] - exp_plain(row[i]) * spread[i])


# ---- columns: x is (outer, axis, inner), a tile is some columns of one outer index


@function
def _largest_columns(x, first, last, inner, count, scale, largest):
    """The largest of scale * x in each of ``count`` columns, by whole vectors kept in registers; NaN as in ``_row_max``."""
    L, factor = lanes(x), splat(x, scale)
    if count < L:
        a = load_part(x, first, count) * factor
        for start in range(first + inner, last, inner):
            a = greater(load_part(x, start, count) * factor, a)
        store(largest, 0, a)
        return
    j = 0
    while j < count:
        j = min(j, count - L)  # the last vector overlaps the one before it
        a = load(x, first + j) * factor
        b, start = a, first + inner + j
        while start + inner < last + j:
            a, b = greater(load(x, start) * factor, a), greater(load(x, start + inner) * factor, b)
            start += 2 * inner
        if start < last + j:
            a = greater(load(x, start) * factor, a)
        store(largest, j, greater(a, b))
        j += L


@separate
def _softmax_columns(block, worker, x, axis, inner, scale, logarithm, width, scratch, sums, y):
    tiles = (inner + width - 1) // width
    column = block % tiles * width
    first, count = block // tiles * axis * inner + column, min(width, inner - column)
    last = first + axis * inner
    number, L = x.dtype.type, lanes(x)
    scale, total = number(scale), sums[worker, :count]
    largest, part = scratch[worker, :width], scratch[worker, width : 2 * width]
    _largest_columns(x, first, last, inner, count, scale, largest)
    total[:] = 0.0
    for run in range(first, last, _RUN_ROWS * inner):
        part[:] = number(0)
        for start in range(run, min(run + _RUN_ROWS * inner, last), inner):
            if logarithm:
                # whole vectors, whatever is behind the columns: one power takes as long as a vector of them
                some = min((count + L - 1) // L * L, x.size - start)
                row = x[start : start + some]
                for j in range(some):
                    part[j] += exp_plain(scale * row[j] - largest[j])
            else:
                row, result = x[start : start + count], y[start : start + count]
                for j in range(count):
                    e = exp_plain(scale * row[j] - largest[j])
                    result[j] = e
                    part[j] += e
        for j in range(count):
            total[j] += part[j]
    if logarithm:
        for j in range(count):
            part[j] = log(number(total[j]))
    else:
        for j in range(count):
            part[j] = number(1.0 / total[j])
    factor, end = splat(x, scale), count - L
    for start in range(first, last, inner):
        if count < L:
            for j in range(count):
                y[start + j] = (scale * x[start + j] - largest[j]) - part[j] if logarithm else y[start + j] * part[j]
        elif logarithm:
            # overlaps the one before it, and y may be x
            rest = (load(x, start + end) * factor - load(largest, end)) - load(part, end)
            for j in range(0, end, L):
                store(y, start + j, (load(x, start + j) * factor - load(largest, j)) - load(part, j))
            store(y, start + end, rest)
        else:
            rest = load(y, start + end) * load(part, end)
            for j in range(0, end, L):
                store(y, start + j, load(y, start + j) * load(part, j))
            store(y, start + end, rest)


@function
def _add_columns(dy, y, logarithm, first, last, inner, count, part):
    """part = the sum of dy, of dy y unless logarithms are meant, over the rows of ``count`` columns: by whole vectors kept in registers."""
    L, nothing = lanes(y), splat(y, y.dtype.type(0))
    j = 0
    if count < L:
        a = nothing
        for start in range(first, last, inner):
            v = load_part(dy, start, count)
            a = a + v if logarithm else fma(v, load_part(y, start, count), a)
        store(part, 0, a)
        return
    while j < count:
        j = min(j, count - L)  # the last vector overlaps the one before it
        a, b, start = nothing, nothing, first + j
        if logarithm:
            while start + inner < last + j:
                a, b = a + load(dy, start), b + load(dy, start + inner)
                start += 2 * inner
            if start < last + j:
                a = a + load(dy, start)
        else:
            while start + inner < last + j:
                a, b = fma(load(dy, start), load(y, start), a), fma(load(dy, start + inner), load(y, start + inner), b)
                start += 2 * inner
            if start < last + j:
                a = fma(load(dy, start), load(y, start), a)
        store(part, j, a + b)
        j += L


@separate
def _gradient_columns(block, worker, dy, y, axis, inner, scale, logarithm, width, scratch, sums, dx):
    tiles = (inner + width - 1) // width
    column = block % tiles * width
    first, count = block // tiles * axis * inner + column, min(width, inner - column)
    last = first + axis * inner
    number, L = y.dtype.type, lanes(y)
    scale, part, total = number(scale), scratch[worker], sums[worker, :count]
    if axis <= _RUN_ROWS:
        _add_columns(dy, y, logarithm, first, last, inner, count, part)
    else:
        total[:] = 0.0
        for run in range(first, last, _RUN_ROWS * inner):
            _add_columns(dy, y, logarithm, run, min(run + _RUN_ROWS * inner, last), inner, count, part)
            for j in range(count):
                total[j] += part[j]
        for j in range(count):
            part[j] = number(total[j])
    factor, end = splat(y, scale), max(count - L, 0)
    for start in range(first, last, inner):
        if logarithm:
            g, row, result = dy[start : start + count], y[start : start + count], dx[start : start + count]
            for j in range(count):
                result[j] = scale * (g[j] - exp_plain(row[j]) * part[j])
        elif count >= L or (count == inner and start + L <= last):
            for j in range(0, end, L):
                store(dx, start + j, factor * (load(y, start + j) * (load(dy, start + j) - load(part, j))))
            # overlaps the one before it; or the rows that follow at once where a row is less than a vector, and are written later
            store(dx, start + end, factor * (load(y, start + end) * (load(dy, start + end) - load(part, end))))
        else:
            for j in range(count):
                dx[start + j] = scale * (y[start + j] * (dy[start + j] - part[j]))


# ---- short rows as columns


@separate
def _softmax_turned(block, worker, x, axis, scale, logarithm, together, scratch, sums, turned, y):
    """``together`` rows of x, flat."""
    first = block * together
    count = min(together, x.size // axis - first)
    step = (count + 15) // 16 * 16
    call(turn_rows, (x, first * axis, count, axis, turned[worker, 0], step))
    call(_softmax_columns, (0, worker, turned[worker, 0], axis, step, scale, logarithm, step, scratch, sums, turned[worker, 1]))
    call(turn_columns, (turned[worker, 1], step, count, axis, y, first * axis))


@launcher
def _turned(threads, x, axis, scale, logarithm, together, scratch, sums, turned, y):
    blocks = (x.size // axis + together - 1) // together
    parallel(_softmax_turned, blocks, threads, (x, axis, scale, logarithm, together, scratch, sums, turned, y))


@launcher
def _rows(threads, x, axis, scale, logarithm, scratch, y):
    each = max(1, _BLOCK // axis)
    parallel(_softmax_rows, (x.size // axis + each - 1) // each, threads, (x, axis, scale, logarithm, each, scratch, y))


@launcher
def _rows_gradient(threads, dy, y, axis, scale, logarithm, scratch, dx):
    each = max(1, _BLOCK // axis)
    parallel(_gradient_rows, (y.size // axis + each - 1) // each, threads, (dy, y, axis, scale, logarithm, each, scratch, dx))


@launcher
def _columns(threads, x, axis, inner, scale, logarithm, width, scratch, sums, y):
    blocks = x.size // (axis * inner) * ((inner + width - 1) // width)
    parallel(_softmax_columns, blocks, threads, (x, axis, inner, scale, logarithm, width, scratch, sums, y))


@launcher
def _columns_gradient(threads, dy, y, axis, inner, scale, logarithm, width, scratch, sums, dx):
    blocks = y.size // (axis * inner) * ((inner + width - 1) // width)
    parallel(_gradient_columns, blocks, threads, (dy, y, axis, inner, scale, logarithm, width, scratch, sums, dx))


def _width(axis: int) -> int:
    """Columns of a tile, in whole vectors."""
    return min(_COLUMNS, max(16, _TILE // axis // 16 * 16))


def _forward(x: Array, axis: int, inner: int, scale: float, logarithm: bool, y: Array) -> None:
    if x.size == 0:
        return
    threads = 1 if x.size < _BLOCK else threads_for(x.size * _NS)
    lanes_ = LANES[NAMES[x.dtype.char]]
    vectors = _TURN.get(lanes_, 3) + (2 if lanes_ == 16 and not LARGE_CORE and x.size >= _MANY else 0)
    if inner == 1 and axis <= vectors * lanes_ and x.size >= 16 * axis:
        together = rows_together(axis)
        scratch, sums, turned = scratch_array((threads, 2 * together), x.dtype), empty((threads, together)), turned_rows(threads, 2, x.dtype)
        _turned(threads, x.ravel(), axis, scale, logarithm, together, scratch, sums, turned, y.ravel())
    elif inner == 1:
        _rows(threads, x.ravel(), axis, scale, logarithm, scratch_array((threads, 2, _FLAT), x.dtype), y.ravel())
    else:
        width = _width(axis)
        scratch, sums = scratch_array((threads, 2 * width), x.dtype), empty((threads, width))
        _columns(threads, x.ravel(), axis, inner, scale, logarithm, width, scratch, sums, y.ravel())


def _gradient(dy: Array, y: Array, axis: int, inner: int, scale: float, logarithm: bool) -> Array:
    dx = empty(y.shape, y.dtype)
    if y.size == 0:
        return dx
    threads = 1 if y.size < _BLOCK else threads_for(y.size * _NS)
    if inner == 1:
        scratch = scratch_array((threads, 2, _FLAT if axis <= _SHORT else 0), y.dtype)
        _rows_gradient(threads, dy.ravel(), y.ravel(), axis, scale, logarithm, scratch, dx.ravel())
    else:
        width = _width(axis)
        scratch, sums = scratch_array((threads, width), y.dtype), empty((threads, width))
        _columns_gradient(threads, dy.ravel(), y.ravel(), axis, inner, scale, logarithm, width, scratch, sums, dx.ravel())
    return dx


@lru_cache(maxsize=1024, typed=True)
def _extents(op: str, shape: tuple[int, ...], dim: int | None) -> tuple[int, int]:
    """The extent of the axis, and how far apart its elements are."""
    if dim is None:  # PyTorch's old rule
        dim = 0 if len(shape) in (0, 1, 3) else 1
    axis = _check.axis(op, "dim", dim, shape)
    return (shape[axis], prod(shape[axis + 1 :])) if shape else (1, 1)


def _wanted(op: str, input: ArrayLike, dtype: DTypeLike | None) -> tuple[Array, np.dtype[Any]]:
    """The input as the kernels take it, and the dtype of the output."""
    if dtype is None:
        x = _check.as_array(op, "input", input)
        if x.dtype.char != "e":
            return x, x.dtype
        return x.astype(np.float32), x.dtype
    result = np.dtype(dtype)
    if result.char not in "efd":
        raise TypeError(f"{op}: dtype must be float16, float32 or float64, got {result}")
    given = np.asarray(input)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"{op}: input must hold real numbers, got dtype {given.dtype}")
    x = _check.as_array(op, "input", given.astype(result, copy=False))
    return (x.astype(np.float32) if result.char == "e" else x), result


Recorded = tuple[Array, dict[str, Any]]


def _run(op: str, input: ArrayLike, dim: int | None, dtype: DTypeLike | None, scale: float, logarithm: bool, out: Array | None) -> Recorded:
    """The output, and what the gradient keeps: the output again, of float16 as it was in float32."""
    x, result = _wanted(op, input, dtype)
    axis, inner = _extents(op, x.shape, dim)
    y = target(op, out, x.shape, result, x)
    _forward(x, axis, inner, scale, logarithm, y)
    given = deliver(y, out, result)
    return given, {"output": y if result.char == "e" else given}


def _run_backward(op: str, grad_output: ArrayLike, input: Any, dim: int | None, dtype: DTypeLike | None, scale: float, logarithm: bool, output: Any) -> Array:
    dy = _check.as_array(op, "grad_output", grad_output)
    dx_dtype = (input if isinstance(input, np.ndarray) else np.asarray(input)).dtype.newbyteorder("=")
    if output is None:
        output = _run(op, input, dim, dtype, scale, logarithm, None)[1]["output"]
    y = _check.as_array(op, "output", output)
    if dy.dtype.char == "e":
        dy = dy.astype(np.float32)
    if y.dtype.char == "e":
        y = y.astype(np.float32)
    if dy.dtype != y.dtype:
        raise TypeError(f"{op}: grad_output must have the dtype of the output, {y.dtype}, got {dy.dtype}")
    if dy.shape != y.shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {y.shape}, got {dy.shape}")
    dx = _gradient(dy, y, *_extents(op, y.shape, dim), scale, logarithm)
    return dx if dx.dtype == dx_dtype or dx_dtype.kind != "f" else dx.astype(dx_dtype)


def _record_softmax(input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *, out: Array | None = None) -> Recorded:
    return _run("softmax", input, dim, dtype, 1.0, False, out)


@operation
def softmax(input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *, out: Array | None = None) -> Array:
    """e^x divided by its sum along an axis: ``torch.nn.functional.softmax``.

    Args:
        input: any shape, such as (N, C); float16 (computed in float32), float32 or float64.
        dim: the axis; None is 0 for inputs of 0, 1 or 3 axes, else 1.
        _stacklevel: not used; it has its place in PyTorch's signature.
        dtype: that of the result, to which the input is converted first; None for the input's own.
        out: the array that takes the result and is returned.

    Returns:
        An array of the shape of the input. Sums of rows are 1; a row of -inf, or with NaN or +inf in it, is NaN.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> softmax([[0.0, 0.0], [1000.0, 0.0]], dim=1)
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return _run("softmax", input, dim, dtype, 1.0, False, out)[0]


def softmax_backward(
    grad_output: ArrayLike, input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *,
    output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`softmax` from its output, which is computed again if it is None.

    >>> softmax_backward([[1.0, 0.0]], [[0.0, 0.0]], dim=1)
    array([[ 0.25, -0.25]])
    """
    return _run_backward("softmax_backward", grad_output, input, dim, dtype, 1.0, False, output)


register(softmax, softmax_backward, inputs=("input",), saved=(), record=_record_softmax)


def _record_log_softmax(
    input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *, out: Array | None = None
) -> Recorded:
    return _run("log_softmax", input, dim, dtype, 1.0, True, out)


@operation
def log_softmax(input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *, out: Array | None = None) -> Array:
    """The logarithm of :func:`softmax`, accurate where that is tiny: ``torch.nn.functional.log_softmax``.

    >>> log_softmax([[0.0, 0.0], [1000.0, 0.0]], dim=1).round(4)
    array([[-6.931e-01, -6.931e-01],
           [ 0.000e+00, -1.000e+03]])
    """
    return _run("log_softmax", input, dim, dtype, 1.0, True, out)[0]


def log_softmax_backward(
    grad_output: ArrayLike, input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *,
    output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`log_softmax` from its output, which is computed again if it is None.

    >>> log_softmax_backward([[1.0, 0.0]], [[0.0, 0.0]], dim=1)
    array([[ 0.5, -0.5]])
    """
    return _run_backward("log_softmax_backward", grad_output, input, dim, dtype, 1.0, True, output)


register(log_softmax, log_softmax_backward, inputs=("input",), saved=(), record=_record_log_softmax)


def _record_softmin(input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *, out: Array | None = None) -> Recorded:
    return _run("softmin", input, dim, dtype, -1.0, False, out)


@operation
def softmin(input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *, out: Array | None = None) -> Array:
    """:func:`softmax` of the negated input: ``torch.nn.functional.softmin``.

    >>> softmin([[0.0, 0.0], [1000.0, 0.0]], dim=1)
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    return _run("softmin", input, dim, dtype, -1.0, False, out)[0]


def softmin_backward(
    grad_output: ArrayLike, input: ArrayLike, dim: int | None = None, _stacklevel: int = 3, dtype: DTypeLike | None = None, *,
    output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`softmin` from its output, which is computed again if it is None.

    >>> softmin_backward([[1.0, 0.0]], [[0.0, 0.0]], dim=1)
    array([[-0.25,  0.25]])
    """
    return _run_backward("softmin_backward", grad_output, input, dim, dtype, -1.0, False, output)


register(softmin, softmin_backward, inputs=("input",), saved=(), record=_record_softmin)


# ---- gumbel_softmax


@separate
def _add_gumbel(block, worker, seed, x, scale, z):
    """z = scale (x + g): g = -log(E), E = -log(1 - v) exponential, v uniform: the large g, which decide, come from small v, exact ones."""
    start = block * _BLOCK
    count = min(_BLOCK, x.size - start)
    number = x.dtype.type
    half, step, last = number(0.5), number(2.0**-32), number(1 - 2.0**-24)
    x, z = x[start : start + count], z[start : start + count]
    for i in range(count):
        v = (number(bits32(seed, start + i)) + half) * step
        v = last if v > last else v
        z[i] = scale * (x[i] - log(-log1p(-v)))


@separate
def _largest_becomes_one(block, worker, y, axis, inner, hard):
    """hard is 1 where y, flat (outer, axis, inner), has its first largest (or its first NaN) along the axis, else 0."""
    for column in range(inner):
        first = block * axis * inner + column
        best = first
        for at in range(first, first + axis * inner, inner):
            hard[at] = 0
            if not (y[at] <= y[best] or np.isnan(y[best])):
                best = at
        hard[best] = 1


@launcher
def _noisy(threads, seed, x, scale, z):
    parallel(_add_gumbel, (x.size + _BLOCK - 1) // _BLOCK, threads, (seed, x, scale, z))


@launcher
def _one_hot(threads, y, axis, inner, hard):
    parallel(_largest_becomes_one, y.size // (axis * inner), threads, (y, axis, inner, hard))


def _temperature(op: str, tau: float) -> float:
    number = _check.real(op, "tau", tau)
    if not number > 0:
        raise ValueError(f"{op}: tau must be above 0, got {tau!r}")
    return number


def _gumbel(op: str, logits: ArrayLike, tau: float, dim: int, seed: int) -> tuple[Array, np.dtype[Any], int, int]:
    """The soft result, the dtype it should have, and the extents."""
    (x,), dtype = _check.as_arrays(op, logits=logits)
    temperature = _temperature(op, tau)
    axis, inner = _extents(op, x.shape, _check.integer(op, "dim", dim, -(1 << 63)))
    z, y = empty(x.shape, x.dtype), empty(x.shape, x.dtype)
    # The scale goes in here: where it is 1e9, exp(scale z - scale largest) would see the products' rounding errors.
    _noisy(threads_for(x.size * _NS_GUMBEL), seed, x.ravel(), x.dtype.type(1 / temperature), z.ravel())
    _forward(z, axis, inner, 1.0, False, y)
    return y, dtype, axis, inner


def _record_gumbel(logits: ArrayLike, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1, *, rng: Any = None) -> Recorded:
    seed = seed_of("gumbel_softmax", rng)
    y, dtype, axis, inner = _gumbel("gumbel_softmax", logits, tau, dim, seed)
    result = y
    if hard:
        result = empty(y.shape, y.dtype)
        if y.size:
            _one_hot(threads_for(y.size), y.ravel(), axis, inner, result.ravel())
    return result.astype(dtype, copy=False), {"output": y, "rng": seed}


@operation
def gumbel_softmax(logits: ArrayLike, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1, *, rng: Any = None) -> Array:
    """A random choice along an axis, made differentiable: ``torch.nn.functional.gumbel_softmax``.

    Args:
        logits: any shape, such as (N, C): unnormalised logarithms of probabilities; float16, float32 or float64.
        tau: the temperature, above 0; the lower, the nearer to a choice.
        hard: 1 for the choice and 0 for the others, with the gradient of the soft result.
        eps: not used; it has its place in PyTorch's signature.
        dim: the axis.
        rng: an integer seed from 0 to 2**63 - 1, a ``numpy.random.Generator``, or None for a new seed.

    Returns:
        An array of the shape and dtype of the logits.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> gumbel_softmax([[0.0, 1000.0, 0.0]], hard=True)
    array([[0., 1., 0.]])
    """
    return _record_gumbel(logits, tau, hard, eps, dim, rng=rng)[0]


def gumbel_softmax_backward(
    grad_output: ArrayLike, logits: ArrayLike, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1, *,
    rng: int | None = None, output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`gumbel_softmax` from its soft output; if that is None, it is drawn again from the integer seed ``rng``.

    >>> gumbel_softmax_backward([[1.0, 0.0]], [[0.0, 1000.0]], rng=0)
    array([[0., 0.]])
    """
    op = "gumbel_softmax_backward"
    scale = 1 / _temperature(op, tau)
    if output is None:
        output = _gumbel(op, logits, tau, dim, check_seed(op, rng))[0]
    return _run_backward(op, grad_output, logits, _check.integer(op, "dim", dim, -(1 << 63)), None, scale, False, output)


register(gumbel_softmax, gumbel_softmax_backward, inputs=("logits",), saved=(), record=_record_gumbel)
