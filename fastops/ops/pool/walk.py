"""The walker that all pooling shares: windows of images reduced to their sum, their largest element or its place, and back.

A row of the result is made in three steps, each a vector at a time along the row:

1. the rows of the image that its windows cover are reduced to one, into scratch memory with neutral elements around it;
2. with a stride of 2, elements at even and at odd places are sorted apart;
3. the result is the reduction of that row's TAPS shifted copies.

Sums and maxima of R x S windows so cost R + S operations an element instead of R S. Windows without a common stride of 1 or 2
are taken one at a time in step 3. Gradients take the same steps backwards: a row of the input's gradient is summed over the
windows that cover it, so that its owner computes and the order of additions is fixed.
"""

from __future__ import annotations

import operator

import numpy as np

from fastops._jit import function, launcher, parallel, separate
from fastops.ops.pool.windows import (
    BUFFERS,
    COVER_Y,
    COVER_Z,
    DILATION,
    IN_ROWS,
    LENGTH,
    PADDING,
    PER_PLANE,
    ROWS,
    STEP_Y,
    STEP_Z,
    STRIDE,
    TAPS,
    WHOLE,
    D,
    H,
    P,
    Q,
    T,
    W,
    X,
    Y,
    Z,
)  # fmt: skip
from fastops.simd.order import add_where_equal, first_of, larger, max_pair, max_pair_next, maximum, pair_of, second_of
from fastops.simd.vector import (
    deinterleave,
    fma,
    interleave,
    lanes,
    load,
    load_part,
    splat,
    store,
    store_part,
    store_tile,
)  # fmt: skip

# The place of what lies outside the image: behind every element.
_NOWHERE = 1 << 60


@function
def _sort_apart(scratch, row, length, apart):
    """Elements at even places of scratch[row : row + length] go to ``apart``, those at odd places half a length behind."""
    n = lanes(scratch)
    for i in range(0, length, 2 * n):
        store_tile(scratch, apart + i // 2, length // 2, deinterleave(load(scratch, row + i), load(scratch, row + i + n)))


@function
def _put(y, at, vector, count):
    """Stores the first ``count`` elements, or all."""
    if count >= lanes(y):
        store(y, at, vector)
    else:
        store_part(y, at, vector, count)


def _reduction(name, combine, combine_two, neutral, scaled):
    """The forward pass of sums (``scaled`` by the factors of the axes) and of maxima."""

    @function
    def whole(x, start, count, scratch, at):
        """The reduction of x[start : start + count]."""
        n = lanes(x)
        total = x.dtype.type(neutral)
        i = 0
        if count >= 4 * n:
            a, b, c, d = load(x, start), load(x, start + n), load(x, start + 2 * n), load(x, start + 3 * n)
            i = 4 * n
            while i + 4 * n <= count:
                a, b = combine(a, load(x, start + i)), combine(b, load(x, start + i + n))
                c, d = combine(c, load(x, start + i + 2 * n)), combine(d, load(x, start + i + 3 * n))
                i += 4 * n
            store(scratch, at, combine(combine(a, b), combine(c, d)))
            for j in range(n):
                total = combine_two(total, scratch[at + j])
        while i < count:
            total = combine_two(total, x[start + i])
            i += 1
        return total

    @function
    def column(x, start, table, z0, z1, y0, y1):
        """The reduction of the vectors at one place of all rows of a window."""
        total = load(x, start + (z0 * table[H] + y0) * table[W])
        skip = table[STEP_Y]
        for z in range(z0, z1, table[STEP_Z]):
            for y in range(y0 + skip, y1, table[STEP_Y]):
                total = combine(total, load(x, start + (z * table[H] + y) * table[W]))
            skip = 0
        return total

    @separate(name=name)
    def body(block, worker, x, table, scale, scratch, out):
        """Rows of the result; x (planes, D, H, W), out (planes, T, P, Q), scratch (workers, BUFFERS, LENGTH), all flat."""
        columns, windows, stride, taps, padding = table[W], table[Q], table[STRIDE], table[TAPS], table[PADDING]
        n, length = lanes(x), table[LENGTH]
        per_plane = table[T] * table[P]
        row = worker * BUFFERS * length
        apart = row + length
        nothing = x.dtype.type(neutral)
        scratch[row : row + length] = nothing
        inside = row + padding
        for number in range(block * table[ROWS], min((block + 1) * table[ROWS], out.size // windows)):
            plane = number // per_plane
            t = number % per_plane // table[P]
            p = number % table[P]
            start = plane * table[D] * table[H] * columns
            factor = scale[t] * scale[table[T] + p] if scaled else nothing
            if table[WHOLE]:
                total = whole(x, start, table[D] * table[H] * columns, scratch, apart)
                out[number] = total * (factor * scale[2]) if scaled else total
                continue
            at = plane * table[PER_PLANE]
            z0, z1 = table[table[Z] + at + 2 * t], table[table[Z] + at + 2 * t + 1]
            y0, y1 = table[table[Y] + at + 2 * p], table[table[Y] + at + 2 * p + 1]
            if z0 >= z1 or y0 >= y1:
                scratch[inside : inside + columns] = nothing
            elif columns >= n:
                for w in range(0, columns - n, n):
                    store(scratch, inside + w, column(x, start + w, table, z0, z1, y0, y1))
                store(scratch, inside + columns - n, column(x, start + columns - n, table, z0, z1, y0, y1))
            else:
                for w in range(columns):
                    total = nothing
                    for z in range(z0, z1, table[STEP_Z]):
                        for y in range(y0, y1, table[STEP_Y]):
                            total = combine_two(total, x[start + (z * table[H] + y) * columns + w])
                    scratch[inside + w] = total
            end = number * windows
            if stride == 0:
                for q in range(windows):
                    total = nothing
                    for w in range(table[table[X] + at + 2 * q], table[table[X] + at + 2 * q + 1], table[DILATION]):
                        total = combine_two(total, scratch[np.uintp(row + w)])
                    out[end + q] = total * (factor * scale[table[T] + table[P] + q]) if scaled else total
                continue
            if stride == 2:
                _sort_apart(scratch, row, length, apart)
            for q in range(0, windows, n):
                if stride == 1:
                    total = load(scratch, row + q)
                    for s in range(1, taps):
                        total = combine(total, load(scratch, row + q + s * table[DILATION]))
                else:
                    total = load(scratch, apart + q)
                    for s in range(1, taps):
                        shift = s * table[DILATION]
                        total = combine(total, load(scratch, apart + (shift & 1) * (length // 2) + q + shift // 2))
                if scaled:
                    total = total * load(scale, table[T] + table[P] + q) * splat(scale, factor)
                _put(out, end + q, total, windows - q)

    return body


_sums = _reduction("_sums", operator.add, operator.add, 0.0, scaled=True)
_maxima = _reduction("_maxima", maximum, larger, -np.inf, scaled=False)


@separate
def _places(block, worker, x, table, steps, scratch, out, places):
    """As the maxima, and the place of each in its plane; steps[i] = i. Where a window holds nothing the place is -1."""
    columns, windows, stride, taps, padding, dilation = table[W], table[Q], table[STRIDE], table[TAPS], table[PADDING], table[DILATION]
    n, length = lanes(x), table[LENGTH]
    per_plane = table[T] * table[P]
    row = worker * BUFFERS * length
    place, apart, place_apart, found = row + length, row + 2 * length, row + 3 * length, row + 4 * length
    real = x.dtype.type
    nothing, nowhere = real(-np.inf), real(_NOWHERE)
    scratch[row : row + length] = nothing
    scratch[place : place + length] = nowhere
    for number in range(block * table[ROWS], min((block + 1) * table[ROWS], out.size // windows)):
        plane = number // per_plane
        t = number % per_plane // table[P]
        p = number % table[P]
        start = plane * table[D] * table[H] * columns
        at = plane * table[PER_PLANE]
        z0, z1 = table[table[Z] + at + 2 * t], table[table[Z] + at + 2 * t + 1]
        y0, y1 = table[table[Y] + at + 2 * p], table[table[Y] + at + 2 * p + 1]
        if z0 >= z1 or y0 >= y1:
            scratch[row : row + length] = nothing
            scratch[place : place + length] = nowhere
        for first in range(0, columns, n):
            if z0 >= z1 or y0 >= y1:
                break
            w = min(first, max(columns - n, 0))
            line = (z0 * table[H] + y0) * columns
            largest = pair_of(load_part(x, start + line + w, columns - w), splat(x, real(line)))
            skip = table[STEP_Y]
            for z in range(z0, z1, table[STEP_Z]):
                for y in range(y0 + skip, y1, table[STEP_Y]):
                    line = (z * table[H] + y) * columns
                    largest = max_pair_next(largest, load_part(x, start + line + w, columns - w), splat(x, real(line)))
                skip = 0
            _put(scratch, row + padding + w, first_of(largest), columns - w)
            _put(scratch, place + padding + w, second_of(largest) + load(steps, w), columns - w)
        end = number * windows
        if stride == 0:
            for q in range(windows):
                value, where = nothing, nowhere
                for w in range(table[table[X] + at + 2 * q], table[table[X] + at + 2 * q + 1], dilation):
                    v, f = scratch[np.uintp(row + w)], scratch[np.uintp(place + w)]
                    if v > value or (v == value and f < where) or (v != v and (value == value or f > where)):
                        value, where = v, f
                out[end + q] = value
                scratch[found + q] = where
        else:
            half, values_at, places_at = 0, row, place
            if stride == 2:
                half, values_at, places_at = length // 2, apart, place_apart
                _sort_apart(scratch, row, length, apart)
                _sort_apart(scratch, place, length, place_apart)
            for q in range(0, windows, n):
                largest = pair_of(load(scratch, values_at + q), load(scratch, places_at + q))
                for s in range(1, taps):
                    shift = s * dilation
                    shift = q + shift if stride == 1 else q + (shift & 1) * half + shift // 2
                    largest = max_pair(largest, load(scratch, values_at + shift), load(scratch, places_at + shift))
                _put(out, end + q, first_of(largest), windows - q)
                store(scratch, found + q, second_of(largest))
        integer = places.dtype.type
        where_found, where_to = scratch[found : found + windows], places[end : end + windows]
        for q in range(windows):
            where_to[q] = integer(where_found[q]) if where_found[q] < nowhere else integer(-1)


@launcher
def sums(threads, x, table, scale, scratch, out):
    rows = out.size // table[Q]
    parallel(_sums, (rows + table[ROWS] - 1) // table[ROWS], threads, (x, table, scale, scratch, out))


@launcher
def maxima(threads, x, table, scratch, out):
    rows = out.size // table[Q]
    parallel(_maxima, (rows + table[ROWS] - 1) // table[ROWS], threads, (x, table, x, scratch, out))


@launcher
def places(threads, x, table, steps, scratch, out, found):
    rows = out.size // table[Q]
    parallel(_places, (rows + table[ROWS] - 1) // table[ROWS], threads, (x, table, steps, scratch, out, found))


@function
def _put_together(scratch, row, padding, dx, start, columns):
    """dx[start : start + columns] = scratch[row + padding ...]."""
    n = lanes(dx)
    for w in range(0, columns, n):
        _put(dx, start + w, load(scratch, row + padding + w), columns - w)


@separate
def _spread(block, worker, dy, table, scale, scratch, dx):
    """The gradient of ``sums``: rows of dx (planes, D, H, W); dy (planes, T, P, Q)."""
    columns, windows, stride, taps, padding = table[W], table[Q], table[STRIDE], table[TAPS], table[PADDING]
    n, length = lanes(dx), table[LENGTH]
    per_plane = table[D] * table[H]
    plane_windows = table[T] * table[P] * windows
    row = worker * BUFFERS * length
    inside, line = row + taps - 1, row + length
    zero = dx.dtype.type(0)
    scratch[row : row + length] = zero
    across = table[T] + table[P]
    for number in range(block * table[IN_ROWS], min((block + 1) * table[IN_ROWS], dx.size // columns)):
        plane = number // per_plane
        z = number % per_plane // table[H]
        y = number % table[H]
        to = dx[number * columns : (number + 1) * columns]
        if table[WHOLE]:
            to[:] = dy[plane] * (scale[0] * scale[1] * scale[2])
            continue
        t0, t1 = table[table[COVER_Z] + 2 * z], table[table[COVER_Z] + 2 * z + 1]
        p0, p1 = table[table[COVER_Y] + 2 * y], table[table[COVER_Y] + 2 * y + 1]
        for q in range(0, windows, n):
            total = splat(dx, zero)
            for t in range(t0, t1):
                for p in range(p0, p1):
                    at = plane * plane_windows + (t * table[P] + p) * windows + q
                    part = load(dy, at) if q + n <= windows else load_part(dy, at, windows - q)
                    total = fma(part, splat(scale, scale[t] * scale[table[T] + p]), total)
            store(scratch, inside + q, total * load(scale, across + q))
        if stride == 0:
            to[:] = zero
            for q in range(windows):
                value = scratch[inside + q]
                covered = to[table[table[X] + 2 * q] : table[table[X] + 2 * q + 1]]
                for w in range(covered.size):
                    covered[w] += value
        elif stride == 1:
            for w in range(0, columns, n):
                total = load(scratch, inside + padding + w)
                for s in range(1, taps):
                    total = total + load(scratch, inside + padding + w - s)
                _put(dx, number * columns + w, total, columns - w)
        else:
            for j in range(0, (columns - 1 + padding) // 2 + 1, n):
                even = load(scratch, inside + j)
                for s in range(2, taps, 2):
                    even = even + load(scratch, inside + j - s // 2)
                odd = splat(dx, zero)
                for s in range(1, taps, 2):
                    odd = odd + load(scratch, inside + j - s // 2)
                store_tile(scratch, line + 2 * j, n, interleave(even, odd))
            _put_together(scratch, line, padding, dx, number * columns, columns)


@launcher
def spread(threads, dy, table, scale, scratch, dx):
    rows = dx.size // table[W]
    parallel(_spread, (rows + table[IN_ROWS] - 1) // table[IN_ROWS], threads, (dy, table, scale, scratch, dx))


@separate
def _send_back(block, worker, dy, places, table, begins, scratch, dx):
    """The gradient of ``maxima`` where windows are small and strides 1 or 2: rows of dx, each compared with all places that may
    lie in it; begins[q] = q stride - padding. No element is addressed through a place."""
    columns, windows, stride, taps, padding, dilation = table[W], table[Q], table[STRIDE], table[TAPS], table[PADDING], table[DILATION]
    n, length = lanes(dx), table[LENGTH]
    per_plane = table[D] * table[H]
    plane_windows = table[T] * table[P] * windows
    margin = (taps - 1) * dilation
    real = dx.dtype.type
    zero = real(0)
    place, value, line = worker * BUFFERS * length, (worker * BUFFERS + 1) * length, (worker * BUFFERS + 2) * length
    scratch[place : place + length] = real(-_NOWHERE)
    scratch[value : value + length] = zero
    inside_place, inside_value = place + margin, value + margin
    where = scratch[inside_place : inside_place + windows]
    gradient = scratch[inside_value : inside_value + windows]
    begin = begins[:windows]
    steps = (columns - 1 + padding) // stride + 1
    for number in range(block * table[IN_ROWS], min((block + 1) * table[IN_ROWS], dx.size // columns)):
        plane = number // per_plane
        z = number % per_plane // table[H]
        y = number % table[H]
        target = real((z * table[H] + y) * columns)
        scratch[line : line + 2 * length] = zero
        for t in range(table[table[COVER_Z] + 2 * z], table[table[COVER_Z] + 2 * z + 1]):
            if (z - table[table[Z] + 2 * t]) % table[STEP_Z]:
                continue
            for p in range(table[table[COVER_Y] + 2 * y], table[table[COVER_Y] + 2 * y + 1]):
                if (y - table[table[Y] + 2 * p]) % table[STEP_Y]:
                    continue
                at = plane * plane_windows + (t * table[P] + p) * windows
                from_places, from_dy = places[at : at + windows], dy[at : at + windows]
                for q in range(windows):
                    where[q] = real(from_places[q]) - begin[q]
                    gradient[q] = from_dy[q]
                for phase in range(stride):
                    for j in range(0, steps, n):
                        total = load(scratch, line + phase * length + j)
                        for s in range(taps):
                            shift = s * dilation
                            if shift % stride == phase:
                                from_ = j - shift // stride
                                total = add_where_equal(
                                    total,
                                    load(scratch, inside_place + from_),
                                    splat(dx, target + real(shift)),
                                    load(scratch, inside_value + from_),
                                )
                        store(scratch, line + phase * length + j, total)
        if stride == 1:
            _put_together(scratch, line, padding, dx, number * columns, columns)
        else:
            for j in range(0, steps, n):
                both = interleave(load(scratch, line + j), load(scratch, line + length + j))
                store_tile(scratch, line + 2 * length + 2 * j, n, both)
            _put_together(scratch, line + 2 * length, padding, dx, number * columns, columns)


@launcher
def send_back(threads, dy, places, table, begins, scratch, dx):
    rows = dx.size // table[W]
    parallel(_send_back, (rows + table[IN_ROWS] - 1) // table[IN_ROWS], threads, (dy, places, table, begins, scratch, dx))


@separate
def _scatter_plane(block, worker, dy, places, dx):
    """dx[plane, places] += dy; dx (planes, L), dy (planes, windows). Negative places are nowhere."""
    to = dx[block]
    to[:] = dx.dtype.type(0)
    for o in range(dy.shape[1]):
        at = places[block, o]
        if at >= 0:
            to[np.uintp(at)] += dy[block, o]


@launcher
def scatter(threads, dy, places, dx):
    parallel(_scatter_plane, dx.shape[0], threads, (dy, places, dx))


@separate
def _place_plane(block, worker, x, places, y):
    """y[plane, places] = x, zeros elsewhere, the last of several at one place."""
    to = y[block]
    to[:] = y.dtype.type(0)
    for i in range(x.shape[1]):
        to[np.uintp(places[block, i])] = x[block, i]


@separate
def _pick_plane(block, worker, dy, places, dx):
    """dx = dy[plane, places]"""
    of = dy[block]
    for i in range(dx.shape[1]):
        dx[block, i] = of[np.uintp(places[block, i])]


@launcher
def place(threads, x, places, y):
    parallel(_place_plane, y.shape[0], threads, (x, places, y))


@launcher
def pick(threads, dy, places, dx):
    parallel(_pick_plane, dx.shape[0], threads, (dy, places, dx))
