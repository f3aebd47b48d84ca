"""The walker that all pooling shares: windows of images reduced to their sum, their largest element or its place, and back.

A row of the result is made in three steps, each a vector at a time along the row:

1. the rows of the image that its windows cover are reduced to one, into scratch memory with neutral elements around it;
2. with a stride of 2 to 4, elements that lie a stride apart are sorted together;
3. the result is the reduction of that row's TAPS shifted copies.

Sums and maxima of R x S windows so cost R + S operations an element instead of R S. Windows without a small common stride are
taken one at a time in step 3. Gradients take the same steps backwards: a row of the input's gradient is summed over the windows
that cover it, so that its owner computes and the order of additions is fixed.

The last vector of a row may reach into the next one. Stores do so too where a block of work still has rows to come, which
overwrite it: stores of parts of a vector cost twenty times as much.
"""

from __future__ import annotations

import operator

import numpy as np

from fastops._jit import call, function, launcher, parallel, separate
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
from fastops.simd.order import (
    first_of,
    larger,
    largest_lane,
    largest_pair,
    max_pair,
    max_pair_next,
    maximum,
    pair_of,
    second_of,
    sum_of_lanes,
)  # fmt: skip
from fastops.simd.turn import turn_columns, turn_rows
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
def _fetch(x, at, count):
    """The vector x[at ...]; where the array ends, its first ``count`` elements."""
    if at + lanes(x) <= x.size:
        return load(x, at)
    return load_part(x, at, count)


@function
def _put(y, at, vector, count, limit):
    """Stores ``count`` elements, or the whole vector if that ends before ``limit``."""
    if at + lanes(y) <= limit:
        store(y, at, vector)
    else:
        store_part(y, at, vector, count)


@function
def _next(plane, t, p, depth, rows):
    """The row after row p of slice t: counted on, for divisions cost more than the rest of a short row."""
    p += 1
    if p == rows:
        t, p = t + 1, 0
    if t == depth:
        plane, t = plane + 1, 0
    return plane, t, p


@function
def _sort(x, row, used, stride, phase, scratch, apart):
    """Elements a stride apart, x[row + e], x[row + e + stride], ..., go to scratch[apart + e * phase ...]."""
    n = lanes(scratch)
    if stride == 2:
        for i in range(0, used, 2 * n):
            store_tile(scratch, apart + i // 2, phase, deinterleave(load(x, row + i), load(x, row + i + n)))
    elif stride == 4:
        for i in range(0, used, 4 * n):
            # even and odd of each half, then of those
            low = deinterleave(load(x, row + i), load(x, row + i + n))
            high = deinterleave(load(x, row + i + 2 * n), load(x, row + i + 3 * n))
            even, odd = deinterleave(first_of(low), first_of(high)), deinterleave(second_of(low), second_of(high))
            store_tile(scratch, apart + i // 4, 2 * phase, even)
            store_tile(scratch, apart + phase + i // 4, 2 * phase, odd)
    else:
        count = (used + stride - 1) // stride
        for e in range(stride):
            to, of = scratch[apart + e * phase : apart + e * phase + count], x[row + e : row + e + count * stride]
            for i in range(count):
                to[i] = of[np.uintp(i * stride)]


def _reduction(name, combine, combine_two, fold, neutral, scaled):
    """The forward pass of sums (``scaled`` by the factors of the axes) and of maxima."""

    @function
    def run(x, start, count):
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
            a = combine(combine(a, b), combine(c, d))
            while i + n <= count:
                a = combine(a, load(x, start + i))
                i += n
            total = fold(a)
        elif count >= n:
            a = load(x, start)
            i = n
            while i + n <= count:
                a = combine(a, load(x, start + i))
                i += n
            total = fold(a)
        while i < count:
            total = combine_two(total, x[np.uintp(start + i)])
            i += 1
        return total

    @separate(name=name)
    def body(block, worker, x, table, scale, scratch, out):
        """Rows of the result; x (planes, D, H, W), out (planes, T, P, Q), scratch (workers, BUFFERS, LENGTH), all flat."""
        height, columns, rows, windows = table[H], table[W], table[P], table[Q]
        stride, taps, dilation, padding = table[STRIDE], table[TAPS], table[DILATION], table[PADDING]
        step_z, step_y = table[STEP_Z], table[STEP_Y]
        volume, per_plane = table[D] * height * columns, table[T] * rows
        n, length = lanes(x), table[LENGTH]
        row = worker * BUFFERS * length
        inside, apart = row + padding, row + length
        phase, used = length // max(stride, 1), (taps - 1) * dilation + windows * stride
        within = stride > 1 and padding == 0 and used - stride < columns
        across = table[T] + rows
        nothing = x.dtype.type(neutral)
        scratch[row : row + length] = nothing
        first, end = block * table[ROWS], min((block + 1) * table[ROWS], out.size // windows)
        if table[WHOLE]:
            for plane in range(first, end):
                total = run(x, plane * volume, volume)
                out[plane] = total * (scale[0] * scale[1] * scale[2]) if scaled else total
            return
        plane, t, p = first // per_plane, first % per_plane // rows, first % rows - 1
        for number in range(first, end):
            plane, t, p = _next(plane, t, p, table[T], rows)
            factor = scale[t] * scale[table[T] + p] if scaled else nothing
            shift = plane * table[PER_PLANE]
            at = table[Z] + shift + 2 * t
            z0, z1 = table[at], table[at + 1]
            at = table[Y] + shift + 2 * p
            y0, y1 = table[at], table[at + 1]
            top = plane * volume + (z0 * height + y0) * columns
            # a row by itself is read where it lies, if no window leaves it
            alone = z1 == z0 + 1 and y1 == y0 + 1 and ((stride == 0 and dilation == 1) or (within and top + used + 4 * n <= x.size))
            if z0 >= z1 or y0 >= y1:
                scratch[inside : inside + columns] = nothing
            elif not alone:
                for w in range(0, columns, n):
                    total = _fetch(x, top + w, columns - w)
                    # Loops by hand: of a range whose step is not known the length is a division, 30 of 36 cycles of this loop.
                    z, y = z0, y0 + step_y
                    while z < z1:
                        line = plane * volume + z * height * columns + w
                        while y < y1:
                            total = combine(total, _fetch(x, line + y * columns, columns - w))
                            y += step_y
                        z, y = z + step_z, y0
                    store(scratch, inside + w, total)
                store(scratch, inside + columns, splat(x, nothing))
            to = number * windows
            if stride == 0:
                for q in range(windows):
                    at = table[X] + shift + 2 * q
                    w0, w1 = table[at], table[at + 1]
                    if alone:
                        total = run(x, top + w0, w1 - w0)
                    elif dilation == 1:
                        total = run(scratch, row + w0, w1 - w0)
                    else:
                        total = nothing
                        for w in range(w0, w1, dilation):
                            total = combine_two(total, scratch[np.uintp(row + w)])
                    out[to + q] = total * (factor * scale[across + q]) if scaled else total
                continue
            if stride > 1 and alone:
                _sort(x, top, used, stride, phase, scratch, apart)
            elif stride > 1:
                _sort(scratch, row, used, stride, phase, scratch, apart)
            for q in range(0, windows, n):
                if stride == 1:
                    total = load(scratch, row + q)
                    for s in range(1, taps):
                        total = combine(total, load(scratch, row + q + s * dilation))
                else:
                    total = load(scratch, apart + q)
                    e = c = 0
                    for _ in range(1, taps):
                        e += dilation
                        while e >= stride:
                            e, c = e - stride, c + 1
                        total = combine(total, load(scratch, apart + e * phase + q + c))
                if scaled:
                    total = total * load(scale, across + q) * splat(scale, factor)
                _put(out, to + q, total, windows - q, end * windows)

    return body


@function
def _groups(x, table, together):
    """How many times so many planes there are."""
    return (x.size // (table[D] * table[H] * table[W]) + together - 1) // together


@function
def _as_integers(places, out):
    """out = places, -1 where a window holds nothing."""
    for i in range(out.size):
        out[i] = np.int32(places[i]) if places[i] < places.dtype.type(1 << 30) else np.int32(-1)


_sums = _reduction("_sums", operator.add, operator.add, sum_of_lanes, 0.0, scaled=True)
_maxima = _reduction("_maxima", maximum, larger, largest_lane, -np.inf, scaled=False)


@separate
def _places(block, worker, x, table, steps, scratch, out, short, long):
    """As the maxima, and the place of each in its plane, in ``short`` or in ``long``, whichever is not empty; steps[i] = i. Where a
    window holds nothing the place is -1."""
    height, columns, rows, windows = table[H], table[W], table[P], table[Q]
    stride, taps, dilation, padding = table[STRIDE], table[TAPS], table[DILATION], table[PADDING]
    step_z, step_y = table[STEP_Z], table[STEP_Y]
    volume, per_plane = table[D] * height * columns, table[T] * rows
    n, length = lanes(x), table[LENGTH]
    row = worker * BUFFERS * length
    place, apart, place_apart, found = row + length, row + 2 * length, row + 3 * length, row + 4 * length
    phase, used = length // max(stride, 1), (taps - 1) * dilation + windows * stride
    values_at, places_at = (row, place) if stride < 2 else (apart, place_apart)
    real = x.dtype.type
    nothing, nowhere = real(-np.inf), real(_NOWHERE)
    scratch[row : row + length] = nothing
    scratch[place : place + length] = nowhere
    first, end = block * table[ROWS], min((block + 1) * table[ROWS], out.size // windows)
    plane, t, p = first // per_plane, first % per_plane // rows, first % rows - 1
    for number in range(first, end):
        plane, t, p = _next(plane, t, p, table[T], rows)
        shift = plane * table[PER_PLANE]
        at = table[Z] + shift + 2 * t
        z0, z1 = table[at], table[at + 1]
        at = table[Y] + shift + 2 * p
        y0, y1 = table[at], table[at + 1]
        start = plane * volume
        if z0 >= z1 or y0 >= y1:
            scratch[row : row + length] = nothing
            scratch[place : place + length] = nowhere
        else:
            for w in range(0, columns, n):
                line = (z0 * height + y0) * columns
                largest = pair_of(_fetch(x, start + line + w, columns - w), splat(x, real(line)))
                z, y = z0, y0 + step_y
                while z < z1:
                    while y < y1:
                        line = (z * height + y) * columns
                        largest = max_pair_next(largest, _fetch(x, start + line + w, columns - w), splat(x, real(line)))
                        y += step_y
                    z, y = z + step_z, y0
                store(scratch, row + padding + w, first_of(largest))
                store(scratch, place + padding + w, second_of(largest) + load(steps, w))
            store(scratch, row + padding + columns, splat(x, nothing))
            store(scratch, place + padding + columns, splat(x, nowhere))
        to = number * windows
        if stride == 0:
            for q in range(windows):
                at = table[X] + shift + 2 * q
                w0, w1 = table[at], table[at + 1]
                value, where = nothing, nowhere
                if dilation == 1 and w1 - w0 >= n:
                    largest = pair_of(load(scratch, row + w0), load(scratch, place + w0))
                    for w in range(w0 + n, w1, n):
                        last = min(w, w1 - n)
                        largest = max_pair(largest, load(scratch, row + last), load(scratch, place + last))
                    value, where = largest_pair(largest)
                else:
                    for w in range(w0, w1, dilation):
                        v, f = scratch[np.uintp(row + w)], scratch[np.uintp(place + w)]
                        # without branches, which elements in no order would mislead
                        take = (v > value) | ((v == value) & (f < where)) | ((v != v) & ((value == value) | (f > where)))
                        value, where = v if take else value, f if take else where
                out[to + q] = value
                scratch[found + q] = where
        else:
            if stride > 1:
                _sort(scratch, row, used, stride, phase, scratch, apart)
                _sort(scratch, place, used, stride, phase, scratch, place_apart)
            for q in range(0, windows, n):
                largest = pair_of(load(scratch, values_at + q), load(scratch, places_at + q))
                e = c = 0
                for _ in range(1, taps):
                    e += dilation
                    while e >= stride:
                        e, c = e - stride, c + 1
                    tap = e * phase + c + q
                    largest = max_pair(largest, load(scratch, values_at + tap), load(scratch, places_at + tap))
                _put(out, to + q, first_of(largest), windows - q, end * windows)
                store(scratch, found + q, second_of(largest))
        where_found = scratch[found : found + windows]
        if long.size:
            _as_integers(where_found, long[to : to + windows])
        else:
            _as_integers(where_found, short[to : to + windows])


# ---- small planes: a row of 7 elements takes 20 to 30 ns before its first one counts, so planes are turned, and are lanes


@function
def _window(table, t, p, q):
    """The elements of a window along each axis: from, to."""
    at_z, at_y, at_x = table[Z] + 2 * t, table[Y] + 2 * p, table[X] + 2 * q
    return table[at_z], table[at_z + 1], table[at_y], table[at_y + 1], table[at_x], table[at_x + 1]


def _small_reduction(name, combine, neutral, scaled):
    @separate(name=name)
    def body(block, worker, x, table, scale, together, turned, out):
        """As the body of ``_reduction``, of ``together`` planes at a time."""
        depth, height, columns, slices, rows, windows = table[D], table[H], table[W], table[T], table[P], table[Q]
        step_z, step_y, step_x = table[STEP_Z], table[STEP_Y], table[DILATION]
        volume, n = depth * height * columns, lanes(x)
        first = block * together
        count = min(together, x.size // volume - first)
        planes, found = turned[worker, 0], turned[worker, 1]
        call(turn_rows, (x, first * volume, count, volume, planes, together))
        nothing = x.dtype.type(neutral)
        to = 0
        for t in range(slices):
            for p in range(rows):
                for q in range(windows):
                    z0, z1, y0, y1, w0, w1 = _window(table, t, p, q)
                    factor = splat(x, scale[t] * scale[slices + p] * scale[slices + rows + q] if scaled else nothing)
                    for v in range(0, count, n):
                        total = splat(x, nothing)
                        for z in range(z0, z1, step_z):
                            for y in range(y0, y1, step_y):
                                at = (z * height + y) * columns
                                for w in range(at + w0, at + w1, step_x):
                                    total = combine(total, load(planes, w * together + v))
                        store(found, to + v, total * factor if scaled else total)
                    to += together
        call(turn_columns, (found, together, count, slices * rows * windows, out, first * slices * rows * windows))

    return body


_small_sums = _small_reduction("_small_sums", operator.add, 0.0, scaled=True)
_small_maxima = _small_reduction("_small_maxima", maximum, -np.inf, scaled=False)


@separate
def _small_places(block, worker, x, table, together, turned, out, short, long):
    """As ``_places``, of ``together`` planes at a time."""
    depth, height, columns, slices, rows, windows = table[D], table[H], table[W], table[T], table[P], table[Q]
    step_z, step_y, step_x = table[STEP_Z], table[STEP_Y], table[DILATION]
    volume, per_plane, n = depth * height * columns, slices * rows * windows, lanes(x)
    first = block * together
    count = min(together, x.size // volume - first)
    planes, values, numbers = turned[worker, 0], turned[worker, 1], turned[worker, 2]
    call(turn_rows, (x, first * volume, count, volume, planes, together))
    real = x.dtype.type
    to = 0
    for t in range(slices):
        for p in range(rows):
            for q in range(windows):
                z0, z1, y0, y1, w0, w1 = _window(table, t, p, q)
                for v in range(0, count, n):
                    largest = pair_of(splat(x, real(-np.inf)), splat(x, real(_NOWHERE)))
                    for z in range(z0, z1, step_z):
                        for y in range(y0, y1, step_y):
                            at = (z * height + y) * columns
                            for w in range(at + w0, at + w1, step_x):
                                largest = max_pair(largest, load(planes, w * together + v), splat(x, real(w)))
                    store(values, to + v, first_of(largest))
                    store(numbers, to + v, second_of(largest))
                to += together
    call(turn_columns, (values, together, count, per_plane, out, first * per_plane))
    call(turn_columns, (numbers, together, count, per_plane, planes, 0))
    begin = first * per_plane
    if long.size:
        _as_integers(planes, long[begin : begin + count * per_plane])
    else:
        _as_integers(planes, short[begin : begin + count * per_plane])


@separate
def _small_spread(block, worker, dy, table, scale, together, turned, dx):
    """As ``_spread``, of ``together`` planes at a time."""
    depth, height, columns, slices, rows, windows = table[D], table[H], table[W], table[T], table[P], table[Q]
    step_z, step_y, step_x = table[STEP_Z], table[STEP_Y], table[DILATION]
    volume, per_plane, n = depth * height * columns, slices * rows * windows, lanes(dx)
    first = block * together
    count = min(together, dx.size // volume - first)
    gradients, planes = turned[worker, 0], turned[worker, 1]
    call(turn_rows, (dy, first * per_plane, count, per_plane, gradients, together))
    planes[: volume * together] = dx.dtype.type(0)
    source = 0
    for t in range(slices):
        for p in range(rows):
            for q in range(windows):
                z0, z1, y0, y1, w0, w1 = _window(table, t, p, q)
                factor = splat(dx, scale[t] * scale[slices + p] * scale[slices + rows + q])
                for z in range(z0, z1, step_z):
                    for y in range(y0, y1, step_y):
                        at = (z * height + y) * columns
                        for w in range(at + w0, at + w1, step_x):
                            for v in range(0, count, n):
                                here = w * together + v
                                store(planes, here, fma(load(gradients, source + v), factor, load(planes, here)))
                source += together
    call(turn_columns, (planes, together, count, volume, dx, first * volume))


@launcher
def small_sums(threads, x, table, scale, together, turned, out):
    parallel(_small_sums, _groups(x, table, together), threads, (x, table, scale, together, turned, out))


@launcher
def small_maxima(threads, x, table, together, turned, out):
    parallel(_small_maxima, _groups(x, table, together), threads, (x, table, x, together, turned, out))


@launcher
def small_places(threads, x, table, together, turned, out, short, long):
    parallel(_small_places, _groups(x, table, together), threads, (x, table, together, turned, out, short, long))


@launcher
def small_spread(threads, dy, table, scale, together, turned, dx):
    parallel(_small_spread, _groups(dx, table, together), threads, (dy, table, scale, together, turned, dx))


@launcher
def sums(threads, x, table, scale, scratch, out):
    rows = out.size // table[Q]
    parallel(_sums, (rows + table[ROWS] - 1) // table[ROWS], threads, (x, table, scale, scratch, out))


@launcher
def maxima(threads, x, table, scratch, out):
    rows = out.size // table[Q]
    parallel(_maxima, (rows + table[ROWS] - 1) // table[ROWS], threads, (x, table, x, scratch, out))


@launcher
def places(threads, x, table, steps, scratch, out, short, long):
    rows = out.size // table[Q]
    parallel(_places, (rows + table[ROWS] - 1) // table[ROWS], threads, (x, table, steps, scratch, out, short, long))


@function
def _put_together(scratch, line, phase, stride, padding, dx, to, columns, limit, both):
    """dx[to + w] for all columns w = j stride + e - padding, from scratch[line + e * phase + j]; ``both``: room for a row."""
    n = lanes(dx)
    if stride <= 2:
        if stride == 2:
            for j in range(0, (columns - 1 + padding) // 2 + 1, n):
                store_tile(scratch, both + 2 * j, n, interleave(load(scratch, line + j), load(scratch, line + phase + j)))
        else:
            both = line
        for w in range(0, columns, n):
            _put(dx, to + w, load(scratch, both + padding + w), columns - w, limit)
    else:
        for e in range(stride):
            j = (padding - e + stride - 1) // stride
            w = j * stride + e - padding
            while w < columns:
                dx[np.uintp(to + w)] = scratch[np.uintp(line + e * phase + j)]
                w, j = w + stride, j + 1


@separate
def _spread(block, worker, dy, table, scale, scratch, dx):
    """The gradient of ``sums``: rows of dx (planes, D, H, W); dy (planes, T, P, Q)."""
    depth, height, columns, rows, windows = table[D], table[H], table[W], table[P], table[Q]
    stride, taps, padding = table[STRIDE], table[TAPS], table[PADDING]
    n, length = lanes(dx), table[LENGTH]
    per_plane, plane_windows = depth * height, table[T] * rows * windows
    row = worker * BUFFERS * length
    inside, line, both = row + taps - 1, row + length, row + 2 * length
    phase = length // max(stride, 1)
    across = table[T] + rows
    zero = dx.dtype.type(0)
    scratch[row : row + length] = zero
    first, end = block * table[IN_ROWS], min((block + 1) * table[IN_ROWS], dx.size // columns)
    limit = end * columns
    if table[WHOLE]:
        for plane in range(first // per_plane, (end + per_plane - 1) // per_plane):
            part = dx[max(first, plane * per_plane) * columns : min(end, (plane + 1) * per_plane) * columns]
            part[:] = dy[plane] * (scale[0] * scale[1] * scale[2])
        return
    t0 = t1 = p0 = p1 = last_plane = -1
    plane, z, y = first // per_plane, first % per_plane // height, first % height - 1
    for number in range(first, end):
        plane, z, y = _next(plane, z, y, depth, height)
        to = number * columns
        at_z, at_y = table[COVER_Z] + 2 * z, table[COVER_Y] + 2 * y
        if plane == last_plane and t0 == table[at_z] and t1 == table[at_z + 1] and p0 == table[at_y] and p1 == table[at_y + 1]:
            # under the same windows as the row before
            for w in range(0, columns, n):
                _put(dx, to + w, _fetch(dx, to - columns + w, columns - w), columns - w, limit)
            continue
        t0, t1, p0, p1, last_plane = table[at_z], table[at_z + 1], table[at_y], table[at_y + 1], plane
        for q in range(0, windows, n):
            total = splat(dx, zero)
            for t in range(t0, t1):
                for p in range(p0, p1):
                    at = plane * plane_windows + (t * rows + p) * windows + q
                    part = load(dy, at) if q + n <= windows else load_part(dy, at, windows - q)
                    total = fma(part, splat(scale, scale[t] * scale[table[T] + p]), total)
            store(scratch, inside + q, total * load(scale, across + q))
        if stride == 0:
            dx[to : to + columns] = zero
            for q in range(windows):
                at = table[X] + 2 * q
                value, covered = scratch[inside + q], dx[to + table[at] : to + table[at + 1]]
                for w in range(covered.size):
                    covered[w] += value
        elif stride == 1:
            for w in range(0, columns, n):
                total = load(scratch, inside + padding + w)
                for s in range(1, taps):
                    total = total + load(scratch, inside + padding + w - s)
                _put(dx, to + w, total, columns - w, limit)
        else:
            for e in range(stride):
                met = (taps - e + stride - 1) // stride
                for j in range(0, (columns - 1 + padding) // stride + 1, n):
                    total = splat(dx, zero)
                    for s in range(met):
                        total = total + load(scratch, inside + j - s)
                    store(scratch, line + e * phase + j, total)
            _put_together(scratch, line, phase, stride, padding, dx, to, columns, limit, both)


@launcher
def spread(threads, dy, table, scale, scratch, dx):
    rows = dx.size // table[W]
    parallel(_spread, (rows + table[IN_ROWS] - 1) // table[IN_ROWS], threads, (dy, table, scale, scratch, dx))


@separate
def _scatter_block(block, worker, dy, places, parts, dx):
    """dx[plane, places] += dy for a part of a plane; dx (planes, L), dy (planes, windows). Negative places are nowhere.

    A part is (first element, end, first window that may reach into it, end of those).
    """
    plane, part = block // parts.shape[0], block % parts.shape[0]
    low, high, to = parts[part, 0], parts[part, 1], dx[plane]
    to[low:high] = dx.dtype.type(0)
    for o in range(parts[part, 2], parts[part, 3]):
        at = places[plane, o]
        if low <= at < high:
            to[np.uintp(at)] += dy[plane, o]


@launcher
def scatter(threads, dy, places, parts, dx):
    parallel(_scatter_block, dx.shape[0] * parts.shape[0], threads, (dy, places, parts, dx))


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
