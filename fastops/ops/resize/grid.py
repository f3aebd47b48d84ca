"""grid_sample: an image read at given places.

    y[n, c, p, q] = sum over k of w(k) x[n, c, i(k)]     for the taps k of the place grid[n, p, q]
    dx[n, c, i(k)] += w(k) dy[n, c, p, q]                dgrid[n, p, q, a] = sum over c, k of dw(k)/da x[n, c, i(k)] dy[n, c, p, q]

A place is unnormalised (-1 and 1 are the centres of the corner elements, or the corners of the image), then brought into the
image by the padding mode. It has one tap an axis (nearest), two (bilinear) or four (bicubic); w is the product over the axes.
A tap outside counts as zero. The image is turned so that L channels of a pixel lie side by side, L being the lanes of a
vector: a tap is then one load instead of L, a gradient one addition without a conflict, and a place is computed once for L
channels. Few places, or few channels, are read where they are.
Source: Jaderberg et al., "Spatial Transformer Networks" (2015), equations 1, 5 to 7; Keys, "Cubic Convolution Interpolation
for Digital Image Processing" (1981), equation 4 with a = -0.75.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.blocking import LANES, NAMES
from fastops.simd.gather import gather
from fastops.simd.rows import fill_row
from fastops.simd.vector import (
    broadcast,
    deinterleave,
    element,
    fma,
    lane_sums,
    lanes,
    load,
    load_part,
    load_square,
    load_square_part,
    store,
    store_part,
    store_square_part,
    store_tile,
    transpose,
)
from fastops.simd.workspace import scratch

MODES = {"nearest": 1, "bilinear": 2, "bicubic": 4}  # and their taps an axis
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}

# Places whose taps are computed together: a multiple of every lane count; 64 of them take 4% longer. Loops over a whole tile, whose
# rows lie at constant distances, need no check that they do not overlap; a part of a tile is filled up. Short loops are not for
# LLVM: it unrolls them before it looks for vectors, and then finds none.
_TILE = 128
# Rows of a tile: for each axis the weights of up to 4 taps, their slopes, the place, its slope and its floor; behind them the
# weights of all taps together, then their slopes along each axis. Rows of indices: 4 for each axis, then those of all taps.
_PLACE, _SLOPE, _FLOOR, _ROWS = 8 * _TILE, 9 * _TILE, 10 * _TILE, 11 * _TILE
_WEIGHTS, _SLOPES, _MOST = 3 * _ROWS, 3 * _ROWS + 16 * _TILE, 16 * _TILE
_OFFSETS = 12 * _TILE
_ROOM, _ENTRIES = _SLOPES + 3 * _MOST, _OFFSETS + _MOST
_OUTSIDE = -(1 << 60)

_NS_PER_TAP = 0.12


@function
def _clip(work, size):
    """Into the image; NaN goes to 0, as in PyTorch. Where it clips nothing moves: the slope is 0."""
    zero, last = work.dtype.type(0), work.dtype.type(size - 1)
    for i in range(_TILE):
        x = work[_PLACE + i]
        work[_SLOPE + i] = work[_SLOPE + i] if (x > zero) & (x < last) else zero
        low = x if x > zero else zero
        work[_PLACE + i] = low if low < last else last


@function
def _reflect(work, size, align):
    """Mirrored at the centres (align) or the edges of the end elements as often as it takes."""
    real = work.dtype.type
    shift = real(0) if align else real(0.5)
    double = real(2 * (size - 1)) if align else real(2 * size)
    half = real(0.5) * double
    if double == real(0):
        fill_row(real(0), work, _PLACE, _TILE)
        fill_row(real(0), work, _SLOPE, _TILE)
        return
    for i in range(_TILE):
        moved = work[_PLACE + i] + shift
        away = abs(moved)
        rest = away - np.trunc(away / double) * double
        turns = (moved < real(0)) != (rest > half)
        work[_SLOPE + i] = -work[_SLOPE + i] if turns else work[_SLOPE + i]
        back = double - rest
        work[_PLACE + i] = (rest if rest < back else back) - shift


@function
def _keys(t):
    """Weights of the taps at -1, 0, 1, 2 for a place t in [0, 1) between the second and the third, and their slopes."""
    a, one, two = type(t)(-0.75), type(t)(1), type(t)(2)
    three, four, five, eight = type(t)(3), type(t)(4), type(t)(5), type(t)(8)
    u, s, v = t + one, one - t, two - t
    return (
        ((a * u - five * a) * u + eight * a) * u - four * a,
        ((a + two) * t - (a + three)) * t * t + one,
        ((a + two) * s - (a + three)) * s * s + one,
        ((a * v - five * a) * v + eight * a) * v - four * a,
        (three * a * u - two * five * a) * u + eight * a,
        (three * (a + two) * t - two * (a + three)) * t,
        -((three * (a + two) * s - two * (a + three)) * s),
        -((three * a * v - two * five * a) * v + eight * a),
    )


@separate
def _axis(size, step, taps, padding, align, work, index):
    """The taps of one axis at the places in work: index[t * TILE + i] times ``step``, or OUTSIDE; weights, and slopes from row 4."""
    real = work.dtype.type
    one, zero, last = real(1), real(0), real(size - 1)
    factor = real(0.5) * real(size - 1 if align else size)
    shift = zero if align else real(0.5)
    for i in range(_TILE):
        work[_PLACE + i] = (work[_PLACE + i] + one) * factor - shift
        work[_SLOPE + i] = factor
    if taps < 4:
        if padding == 2:
            _reflect(work, size, align)
        if padding > 0:
            _clip(work, size)
    if taps == 1:
        for i in range(_TILE):
            nearest = np.rint(work[_PLACE + i])
            index[i] = np.int64(nearest) * step if (nearest >= zero) & (nearest <= last) else _OUTSIDE
            work[i] = one
        return
    if taps == 2:
        for i in range(_TILE):
            t = work[_PLACE + i] - np.floor(work[_PLACE + i])
            work[i], work[_TILE + i] = one - t, t
            work[4 * _TILE + i], work[5 * _TILE + i] = -work[_SLOPE + i], work[_SLOPE + i]
        for i in range(_TILE):
            floor = np.floor(work[_PLACE + i])
            index[i] = np.int64(floor) * step if (floor >= zero) & (floor <= last) else _OUTSIDE
            index[_TILE + i] = (np.int64(floor) + 1) * step if (floor >= -one) & (floor < last) else _OUTSIDE
        return
    for i in range(_TILE):
        work[_FLOOR + i] = np.floor(work[_PLACE + i])
        a, b, c, d, e, f, g, h = _keys(work[_PLACE + i] - work[_FLOOR + i])
        work[i], work[_TILE + i], work[2 * _TILE + i], work[3 * _TILE + i] = a, b, c, d
        work[4 * _TILE + i], work[5 * _TILE + i] = e * factor, f * factor
        work[6 * _TILE + i], work[7 * _TILE + i] = g * factor, h * factor
    for t in range(4):
        for i in range(_TILE):
            work[_PLACE + i] = work[_FLOOR + i] + real(t - 1)
        if padding == 2:
            _reflect(work, size, align)
        if padding > 0:
            _clip(work, size)
        here = index[t * _TILE :]
        for i in range(_TILE):
            x = work[_PLACE + i]
            here[i] = np.int64(x) * step if (x >= zero) & (x <= last) else _OUTSIDE


@separate
def _taps(grid, g0, ndim, count, size, taps, padding, align, slopes, nowhere, work, index):
    """The taps of ``count`` places: offsets (``nowhere`` for those outside) and weights, and on demand their slopes."""
    D, H, W = size
    zero = work.dtype.type(0)
    L = lanes(work)
    if ndim == 2:
        if count < _TILE:
            fill_row(zero, work, _ROWS + _PLACE, _TILE)
            fill_row(zero, work, 2 * _ROWS + _PLACE, _TILE)
        for i in range(0, count, L):
            at, rest = g0 + 2 * i, 2 * (count - i)
            both = deinterleave(load_part(grid, at, rest), load_part(grid, at + L, rest - L))
            store_tile(work, 2 * _ROWS + _PLACE + i, -_ROWS, both)
    else:
        places = grid[g0:]
        for a in range(3):
            to = (2 - a) * _ROWS + _PLACE
            for i in range(_TILE):
                work[np.uintp(to + i)] = places[np.uintp(i * 3 + a)] if i < count else zero
    call(_axis, (W, 1, taps, padding, align, work[2 * _ROWS :], index[8 * _TILE :]))
    call(_axis, (H, W, taps, padding, align, work[_ROWS:], index[4 * _TILE :]))
    if ndim == 3:
        call(_axis, (D, H * W, taps, padding, align, work, index))
    for z in range(taps if ndim == 3 else 1):
        for y in range(taps):
            for x in range(taps):
                k = ((z * taps + y) * taps + x) * _TILE
                iz, iy, ix = z * _TILE, (4 + y) * _TILE, (8 + x) * _TILE
                offset = index[_OFFSETS + k : _OFFSETS + k + _TILE]
                for i in range(_TILE):
                    at = index[np.uintp(iy + i)] + index[np.uintp(ix + i)]
                    at += index[np.uintp(iz + i)] if ndim == 3 else 0
                    offset[i] = at if at >= 0 else nowhere
                # vectors in so many words: LLVM sees too many rows that might overlap
                for i in range(0, _TILE, L):
                    at_z, at_y, at_x = z * _TILE + i, _ROWS + y * _TILE + i, 2 * _ROWS + x * _TILE + i
                    wy, wx = load(work, at_y), load(work, at_x)
                    wz, w = wx, wy * wx
                    if ndim == 3:
                        wz = load(work, at_z)
                    store(work, _WEIGHTS + k + i, w * wz if ndim == 3 else w)
                    if slopes:
                        sx, sy = wy * load(work, at_x + 4 * _TILE), load(work, at_y + 4 * _TILE) * wx
                        store(work, _SLOPES + 2 * _MOST + k + i, sx * wz if ndim == 3 else sx)
                        store(work, _SLOPES + _MOST + k + i, sy * wz if ndim == 3 else sy)
                        if ndim == 3:
                            store(work, _SLOPES + k + i, load(work, at_z + 4 * _TILE) * w)
                if ndim == 3:
                    # a tap outside has no weight either, so that NaN places give 0; in two dimensions they give NaN: as PyTorch
                    weight = work[_WEIGHTS + k :]
                    for i in range(_TILE):
                        weight[i] = weight[i] if offset[i] != nowhere else zero


@function
def _turn(x, x0, pixels, channels, y, y0):
    """Pixels side by side with L channels each, from planes x[x0 + c * pixels ...]; y has room for pixels rounded up."""
    L = lanes(x)
    for i in range(0, pixels, L):
        width = min(L, pixels - i)
        if width == L and channels == L:
            store_tile(y, y0 + i * L, L, transpose(load_square(x, x0 + i, pixels)))
        else:
            store_tile(y, y0 + i * L, L, transpose(load_square_part(x, x0 + i, pixels, channels, width)))


@function
def _turn_back(x, x0, y, at, step, count, channels):
    """Planes y[at + c * step ...] of ``count`` pixels from pixels of L channels."""
    L = lanes(x)
    for i in range(0, count, L):
        width = min(L, count - i)
        if width == L and channels == L:
            store_tile(y, at + i, step, transpose(load_square(x, x0 + i * L, L)))
        else:
            store_square_part(y, at + i, step, transpose(load_square(x, x0 + i * L, L)), channels, width)


@function
def _sum_of_taps(x, plane, pixels, weights, at, index, i, total):
    """For places i, i + 1, ... of a tile the sum of weights[at ...] times x at their taps."""
    value = load(weights, at) * gather(x, plane, index, _OFFSETS + i, pixels)
    for k in range(1, total):
        value = fma(load(weights, at + k * _TILE), gather(x, plane, index, _OFFSETS + k * _TILE + i, pixels), value)
    return value


@function
def _bilinear(x, x0, first, last, w):
    """From four pixels of a plane: ``first`` and the one after it, ``last`` and the one before it."""
    a, b, c, d = np.uintp(x0 + first), np.uintp(x0 + first + 1), np.uintp(x0 + last - 1), np.uintp(x0 + last)
    return w[0] * x[a] + w[1] * x[b] + w[2] * x[c] + w[3] * x[d]


@function
def _pixel(x, x0, offset, pixels):
    return x[np.uintp(x0 + offset)] if offset < pixels else x.dtype.type(0)


@function
def _four_taps(x, x0, pixels, channels, weights, index, count, y, y0, step):
    """y[y0 + c * step + i] for place i of a tile, bilinear in two dimensions; one or three channels, which is a constant.

    Pixels are read one at a time, since a gather of 16 takes 28 cycles, and a place and its weights once for all the channels.
    """
    here, tap = index[_OFFSETS:], weights[_WEIGHTS:]
    for i in range(count):
        a, d, to = here[i], here[3 * _TILE + i], y0 + i
        w = tap[i], tap[_TILE + i], tap[2 * _TILE + i], tap[3 * _TILE + i]
        if max(a, d) < pixels:  # and so are the two between them
            # everything is read before anything is written: LLVM cannot tell that it is not the same memory
            p = _bilinear(x, x0, a, d, w)
            q = _bilinear(x, x0 + pixels, a, d, w) if channels > 1 else p
            r = _bilinear(x, x0 + 2 * pixels, a, d, w) if channels > 1 else p
            y[np.uintp(to)] = p
            if channels > 1:
                y[np.uintp(to + step)] = q
                y[np.uintp(to + 2 * step)] = r
        else:
            b, c = here[_TILE + i], here[2 * _TILE + i]
            for k in range(channels):
                at = x0 + k * pixels
                value = w[0] * _pixel(x, at, a, pixels) + w[1] * _pixel(x, at, b, pixels)
                value += w[2] * _pixel(x, at, c, pixels) + w[3] * _pixel(x, at, d, pixels)
                y[np.uintp(to + k * step)] = value


@function
def _add_up(work, at, value, c):
    """The value for c = 0, afterwards added to what is there."""
    store(work, at, value if c == 0 else load(work, at) + value)


@separate
def _sample(block, worker, x, grid, size, dims, plan, work, index, y):
    """A part of the places of y (N, C, PQ) for L channels of an image; x (N, C, HW), grid (N, PQ, axes), all flat."""
    C, PQ, ndim, taps, padding, align = dims
    parts, planar, memory = plan
    L, HW = lanes(x), size[0] * size[1] * size[2]
    total = taps**ndim
    groups = -(-C // L)
    n, group, part = block // (groups * parts), block // parts % groups, block % parts
    channels = min(L, C - group * L)
    tiles = -(-PQ // _TILE)
    x0, y0 = (n * C + group * L) * HW, (n * C + group * L) * PQ
    room, work, index = work[worker * memory :], work[worker * memory + _ROOM :], index[worker * _ENTRIES :]
    result, nowhere = _TILE * L, -(-HW // L) * L
    if not planar:
        _turn(x, x0, HW, channels, work, result)
        fill_row(x.dtype.type(0), work, result + nowhere * L, L)
    for tile in range(tiles * part // parts, tiles * (part + 1) // parts):
        first = tile * _TILE
        count = min(_TILE, PQ - first)
        call(_taps, (grid, (n * PQ + first) * ndim, ndim, count, size, taps, padding, align, False, nowhere, room, index))
        if planar:
            if total == 4:
                # one loop for each number of channels from 1 to 4 gains nothing over these two, and takes 2 s longer to compile
                threes = channels // 3 * 3
                for c in range(0, threes, 3):
                    _four_taps(x, x0 + c * HW, HW, 3, room, index, count, y, y0 + c * PQ + first, PQ)
                for c in range(threes, channels):
                    _four_taps(x, x0 + c * HW, HW, 1, room, index, count, y, y0 + c * PQ + first, PQ)
                continue
            for c in range(channels):
                plane = x0 + c * HW
                for i in range(0, count, L):
                    value = _sum_of_taps(x, plane, HW, room, _WEIGHTS + i, index, i, total)
                    store_part(y, y0 + c * PQ + first + i, value, count - i)
            continue
        for i in range(count):
            at, to = _OFFSETS + i, _WEIGHTS + i
            value = broadcast(room, to) * load(work, result + element(index, at) * L)
            for _ in range(1, total):
                at, to = at + _TILE, to + _TILE
                value = fma(broadcast(room, to), load(work, result + element(index, at) * L), value)
            store(work, i * L, value)
        _turn_back(work, 0, y, y0 + first, PQ, count, channels)


@separate
def _sample_gradient(block, worker, dy, x, grid, size, dims, plan, work, index, dx, dgrid):
    """dx (N, C, HW) and dgrid (groups, N, PQ, axes), which is to be added up, for L channels of an image; all flat."""
    C, PQ, ndim, taps, padding, align = dims
    batch, wants_x, wants_grid, planar, memory = plan
    L, HW = lanes(dy), size[0] * size[1] * size[2]
    zero = dy.dtype.type(0)
    total = taps**ndim
    groups = -(-C // L)
    n, group = block // groups, block % groups
    channels = min(L, C - group * L)
    x0, y0 = (n * C + group * L) * HW, (n * C + group * L) * PQ
    room, work, index = work[worker * memory :], work[worker * memory + _ROOM :], index[worker * _ENTRIES :]
    given, nowhere = 3 * _TILE * L, -(-HW // L) * L
    sums = given + _TILE * L
    image = sums + (nowhere + 1) * L
    if planar:
        if wants_x:
            fill_row(zero, dx, x0, channels * HW)
    else:
        if wants_x:
            fill_row(zero, work, sums, (nowhere + 1) * L)
        if wants_grid:
            _turn(x, x0, HW, channels, work, image)
            fill_row(zero, work, image + nowhere * L, L)
    for first in range(0, PQ, _TILE):
        count = min(_TILE, PQ - first)
        call(_taps, (grid, (n * PQ + first) * ndim, ndim, count, size, taps, padding, align, wants_grid, nowhere, room, index))
        target = ((group * batch + n) * PQ + first) * ndim
        if planar:
            for c in range(channels):
                row = dy[y0 + c * PQ + first :]
                if wants_x:
                    plane = dx[x0 + c * HW :]
                    for k in range(total):
                        offset, weight = index[_OFFSETS + k * _TILE :], room[_WEIGHTS + k * _TILE :]
                        for i in range(count):
                            if offset[i] != nowhere:
                                plane[np.uintp(offset[i])] += weight[i] * row[i]
                if wants_grid:
                    for i in range(0, count, L):
                        value = gather(x, x0 + c * HW, index, _OFFSETS + i, HW)
                        along, across = load(room, _SLOPES + 2 * _MOST + i) * value, load(room, _SLOPES + _MOST + i) * value
                        deep = value
                        if ndim == 3:
                            deep = load(room, _SLOPES + i) * value
                        for k in range(1, total):
                            at = _SLOPES + k * _TILE + i
                            value = gather(x, x0 + c * HW, index, _OFFSETS + k * _TILE + i, HW)
                            along = fma(load(room, at + 2 * _MOST), value, along)
                            across = fma(load(room, at + _MOST), value, across)
                            if ndim == 3:
                                deep = fma(load(room, at), value, deep)
                        g = load_part(dy, y0 + c * PQ + first + i, count - i)
                        _add_up(work, i, along * g, c)
                        _add_up(work, _TILE + i, across * g, c)
                        if ndim == 3:
                            _add_up(work, 2 * _TILE + i, deep * g, c)
            if wants_grid:
                for a in range(ndim):
                    for i in range(count):
                        dgrid[target + i * ndim + a] = work[a * _TILE + i]
            continue
        for i in range(0, count, L):
            store_tile(work, given + i * L, L, transpose(load_square_part(dy, y0 + first + i, PQ, channels, count - i)))
        if wants_x:
            for i in range(count):
                g = load(work, given + i * L)
                for k in range(total):
                    at = sums + element(index, _OFFSETS + k * _TILE + i) * L
                    store(work, at, fma(broadcast(room, _WEIGHTS + k * _TILE + i), g, load(work, at)))
        if wants_grid:
            for i in range(count):
                at, to = _OFFSETS + i, _SLOPES + i
                value = load(work, image + element(index, at) * L)
                along, across, deep = broadcast(room, to + 2 * _MOST) * value, broadcast(room, to + _MOST) * value, value
                if ndim == 3:
                    deep = broadcast(room, to) * value
                for _ in range(1, total):
                    at, to = at + _TILE, to + _TILE
                    value = load(work, image + element(index, at) * L)
                    along = fma(broadcast(room, to + 2 * _MOST), value, along)
                    across = fma(broadcast(room, to + _MOST), value, across)
                    if ndim == 3:
                        deep = fma(broadcast(room, to), value, deep)
                g = load(work, given + i * L)
                store(work, i * L, along * g)
                store(work, (_TILE + i) * L, across * g)
                store(work, (2 * _TILE + i) * L, deep * g)
            for a in range(ndim):
                for i in range(0, count, L):
                    store(work, a * _TILE * L + i, lane_sums(load_square(work, (a * _TILE + i) * L, L)))
                for i in range(count):
                    dgrid[target + i * ndim + a] = work[a * _TILE * L + i]
    if wants_x and not planar:
        _turn_back(work, sums, dx, x0, HW, HW, channels)


@launcher
def _sample_all(threads, blocks, x, grid, size, dims, plan, work, index, y):
    parallel(_sample, blocks, threads, (x, grid, size, dims, plan, work, index, y))


@launcher
def _sample_gradients(threads, blocks, dy, x, grid, size, dims, plan, work, index, dx, dgrid):
    parallel(_sample_gradient, blocks, threads, (dy, x, grid, size, dims, plan, work, index, dx, dgrid))


def _checked(op: str, x: tuple[int, ...], grid: tuple[int, ...], mode: str, padding_mode: str) -> None:
    _check.choice(op, "mode", mode, MODES)
    _check.choice(op, "padding_mode", padding_mode, PADDINGS)
    if len(x) not in (4, 5) or 0 in x[2:]:
        raise ValueError(f"{op}: input must have axes (N, C, H, W) or (N, C, D, H, W), the last ones not empty, got shape {x}")
    if mode == "bicubic" and len(x) == 5:
        raise ValueError(f'{op}: input must have axes (N, C, H, W) with mode "bicubic", got shape {x}')
    if len(grid) != len(x) or grid[0] != x[0] or grid[-1] != len(x) - 2:
        axes = "(N, P, Q, 2)" if len(x) == 4 else "(N, O, P, Q, 3)"
        raise ValueError(f"{op}: grid must have axes {axes} with the batch of input, {x[0]}, got shape {grid}")


def _work(image: int, planar: bool, dtype: str, threads: int) -> tuple[int, Array, Array]:
    """Elements of scratch memory a thread, that memory, and memory for indices; ``image`` is the size of turned images."""
    L = LANES[dtype]
    memory = _ROOM + 4 * _TILE * L + (0 if planar else image * L)
    return memory, scratch(threads * memory, dtype), scratch(threads * _ENTRIES, "int64")


def _reads_planes(channels: int, total: int, pixels: int, places: int, turning: int = 6, tap: int = 2) -> bool:
    """Whether reading the taps of each channel where they are costs less than turning the image first.

    Turning it costs as much as ``turning`` reads a pixel, and a tap of all channels then as much as ``tap`` reads.
    """
    return (channels - tap) * total * places < turning * pixels


def _three(size: tuple[int, ...]) -> tuple[int, ...]:
    return size if len(size) == 3 else (1, *size)


@operation
def grid_sample(input: ArrayLike, grid: ArrayLike, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None) -> Array:
    """Read images at given places: ``torch.nn.functional.grid_sample``.

    Args:
        input: (N, C, H, W), or (N, C, D, H, W).
        grid: (N, P, Q, 2), places (x, y) with x along W, from -1 to 1; or (N, O, P, Q, 3), places (x, y, z).
        mode: "bilinear" (trilinear in three dimensions), "nearest" (halves to even) or "bicubic" (two dimensions).
        padding_mode: what is outside: "zeros", "border" (the nearest element) or "reflection".
        align_corners: -1 and 1 are the centres of the corner elements (True) or the corners of the image (False, None).

    Returns:
        (N, C, P, Q) or (N, C, O, P, Q), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> grid_sample(x, np.array([[[[0.0, 0.0], [1.0, -1.0]]]]), align_corners=True)
    array([[[[2.5, 2. ]]]])
    """
    (x, places), dtype = _check.as_arrays("grid_sample", input=input, grid=grid)
    _checked("grid_sample", x.shape, places.shape, mode, padding_mode)
    N, C, *size = x.shape
    y = empty((N, C, *places.shape[1:-1]), x.dtype)
    if y.size:
        name = NAMES[x.dtype.char]
        ndim, taps, L, HW, PQ = len(size), MODES[mode], LANES[name], prod(size), prod(y.shape[2:])
        total, groups = taps**ndim, -(-C // L)
        threads = threads_for(y.size * (total + 2) * _NS_PER_TAP)
        # Four taps have a loop of their own: for 16 channels of 56x56 reading 20x20 places costs as much as turning, for 8 of 112x112 as many.
        turning, tap = (9, 6) if total == 4 else (6, 2)
        planar = _reads_planes(min(C, L), total, HW, PQ, turning, tap)
        parts = 1 if N * groups >= threads else threads
        memory, work, index = _work(-(-HW // L) * L + 1, planar, name, threads)
        dims = (C, PQ, ndim, taps, PADDINGS[padding_mode], bool(align_corners))
        _sample_all(
            threads, N * groups * parts, x.ravel(), places.ravel(), _three(x.shape[2:]), dims, (parts, planar, memory),
            work, index, y.ravel(),
        )  # fmt: skip
    return y.astype(dtype, copy=False)


def grid_sample_backward(
    grad_output: ArrayLike, input: ArrayLike, grid: ArrayLike, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None, *, output_mask: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`grid_sample` with respect to its input and its grid; None where ``output_mask`` is False.

    >>> import numpy as np
    >>> x, grid = np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), np.zeros((1, 1, 1, 2))
    >>> grid_sample_backward(np.ones((1, 1, 1, 1)), x, grid, align_corners=True)
    (array([[[[0.25, 0.25],
             [0.25, 0.25]]]]), array([[[[0.5, 1. ]]]]))
    """
    op = "grid_sample_backward"
    (dy, x, places), dtype = _check.as_arrays(op, grad_output=grad_output, input=input, grid=grid)
    _checked(op, x.shape, places.shape, mode, padding_mode)
    N, C, *size = x.shape
    if dy.shape != (N, C, *places.shape[1:-1]):
        raise ValueError(f"{op}: grad_output must have the shape of the output, {(N, C, *places.shape[1:-1])}, got {dy.shape}")
    ndim, taps, L, HW, PQ = len(size), MODES[mode], LANES[NAMES[x.dtype.char]], prod(size), prod(dy.shape[2:])
    groups, total = -(-C // L), taps**ndim
    wants_x, wants_grid = bool(output_mask[0]), bool(output_mask[1])
    slopes = wants_grid and taps > 1  # the nearest element does not change with the place
    dx = empty(x.shape if wants_x else 0, x.dtype)
    dgrid = empty((groups, *places.shape), x.dtype) if slopes and dy.size else np.zeros((1, *places.shape), x.dtype)
    if not dy.size:
        dx[...] = 0
    elif wants_x or slopes:
        threads = threads_for(dy.size * (total + 2) * (1 + wants_x + slopes * ndim) * _NS_PER_TAP)
        planar = _reads_planes(min(C, L), total, HW, PQ)
        memory, work, index = _work(2 * (-(-HW // L) * L + 1), planar, NAMES[x.dtype.char], threads)
        dims = (C, PQ, ndim, taps, PADDINGS[padding_mode], bool(align_corners))
        _sample_gradients(
            threads, N * groups, dy.ravel(), x.ravel(), places.ravel(), _three(x.shape[2:]), dims,
            (N, wants_x, slopes, planar, memory), work, index, dx.ravel(), dgrid.ravel(),
        )  # fmt: skip
    dgrid = dgrid[0] if dgrid.shape[0] == 1 else dgrid.sum(0)
    return dx.astype(dtype, copy=False) if wants_x else None, dgrid.astype(dtype, copy=False) if wants_grid else None


register(grid_sample, grid_sample_backward, inputs=("input", "grid"), saved=("input", "grid"))
