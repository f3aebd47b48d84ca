"""grid_sample: an image read at given places. affine_grid: the places that an affine map sends the pixels of a result to.

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
from fastops._jit import function, launcher, parallel, separate
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.blocking import LANES
from fastops.simd.rows import fill_row
from fastops.simd.vector import (
    broadcast,
    element,
    fma,
    lane_sums,
    lanes,
    load,
    load_square,
    load_square_part,
    splat,
    store,
    store_square_part,
    store_tile,
    transpose,
)
from fastops.simd.workspace import scratch

MODES = {"nearest": 1, "bilinear": 2, "bicubic": 4}  # and their taps an axis
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}

# Places whose taps are computed together: a multiple of every lane count.
_TILE = 64
_NS_PER_TAP = 0.15


@function
def _clip(x, slope, count, size):
    """Into the image; NaN goes to 0, as in PyTorch. Where it clips nothing moves: the slope is 0."""
    zero, last = x.dtype.type(0), x.dtype.type(size - 1)
    for i in range(count):
        slope[i] = slope[i] if (x[i] > zero) & (x[i] < last) else zero
        low = x[i] if x[i] > zero else zero
        x[i] = low if low < last else last


@function
def _reflect(x, slope, count, size, align):
    """Mirrored at the centres (align) or the edges of the end elements as often as it takes."""
    real = x.dtype.type
    shift = real(0) if align else real(0.5)
    double = real(2 * (size - 1)) if align else real(2 * size)
    half = real(0.5) * double
    if double == real(0):
        fill_row(real(0), x, 0, count)
        fill_row(real(0), slope, 0, count)
        return
    for i in range(count):
        moved = x[i] + shift
        away = abs(moved)
        rest = away - np.trunc(away / double) * double
        turns = (moved < real(0)) != (rest > half)
        slope[i] = -slope[i] if turns else slope[i]
        x[i] = min(rest, double - rest) - shift


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


@function
def _axis(grid, g0, ndim, axis, count, size, taps, padding, align, work, index):
    """The taps of one axis for ``count`` places: index[t * TILE + i] (-1: outside), weights and then their slopes in work.

    work: taps rows of weights, taps of slopes, one of places and one of slopes of places.
    """
    real = grid.dtype.type
    one, zero, last = real(1), real(0), real(size - 1)
    x, slope, floor = work[2 * taps * _TILE :], work[(2 * taps + 1) * _TILE :], work[(2 * taps + 2) * _TILE :]
    factor = real(0.5) * real(size - 1 if align else size)
    shift = zero if align else real(0.5)
    places = grid[g0 + axis :]
    for i in range(count):
        x[i] = (places[np.uintp(i * ndim)] + one) * factor - shift
        slope[i] = factor
    if taps < 4:
        if padding == 2:
            _reflect(x, slope, count, size, align)
        if padding > 0:
            _clip(x, slope, count, size)
    if taps == 1:
        for i in range(count):
            nearest = np.rint(x[i])
            index[i] = np.int64(nearest) if (nearest >= zero) & (nearest <= last) else -1
            work[i] = one
            work[_TILE + i] = zero
        return
    w0, w1, w2, w3 = work, work[_TILE:], work[2 * _TILE :], work[3 * _TILE :]
    if taps == 2:
        below, above = index, index[_TILE:]
        for i in range(count):
            floor[i] = np.floor(x[i])
            t = x[i] - floor[i]
            w0[i], w1[i] = one - t, t
            w2[i], w3[i] = -slope[i], slope[i]
            below[i] = np.int64(floor[i]) if (floor[i] >= zero) & (floor[i] <= last) else -1
            above[i] = np.int64(floor[i]) + 1 if (floor[i] >= -one) & (floor[i] < last) else -1
        return
    d0, d1, d2, d3 = work[4 * _TILE :], work[5 * _TILE :], work[6 * _TILE :], work[7 * _TILE :]
    for i in range(count):
        floor[i] = np.floor(x[i])
        a, b, c, d, e, f, g, h = _keys(x[i] - floor[i])
        w0[i], w1[i], w2[i], w3[i] = a, b, c, d
        d0[i], d1[i], d2[i], d3[i] = e * slope[i], f * slope[i], g * slope[i], h * slope[i]
    for t in range(4):
        here = index[t * _TILE :]
        for i in range(count):
            x[i] = floor[i] + real(t - 1)
        if padding == 2:
            _reflect(x, slope, count, size, align)
        if padding > 0:
            _clip(x, slope, count, size)
        for i in range(count):
            here[i] = np.int64(x[i]) if (x[i] >= zero) & (x[i] <= last) else -1


@function
def _taps(grid, g0, count, size, taps, padding, align, nowhere, work, index):
    """The taps of ``count`` places, in the order of their axes: offsets in index[k * TILE + i], ``nowhere`` for those outside.

    work: rows of weights, then for each axis their slopes along it (the grid's first coordinate is the last axis), then room.
    """
    ndim = len(size)
    total = taps**ndim
    rows, room = 2 * taps + 3, (ndim + 1) * total
    for a in range(ndim):
        axis_work, axis_index = work[(room + a * rows) * _TILE :], index[(total + a * taps) * _TILE :]
        _axis(grid, g0, ndim, ndim - 1 - a, count, size[a], taps, padding, align, axis_work, axis_index)
    for k in range(total):
        offset, weight = index[k * _TILE :], work[k * _TILE :]
        for i in range(count):
            offset[i], weight[i] = 0, grid.dtype.type(1)
        for b in range(ndim):
            slope = work[(total * (1 + b) + k) * _TILE :]
            for i in range(count):
                slope[i] = grid.dtype.type(1)
        rest = k
        for j in range(ndim):
            a = ndim - 1 - j
            t, rest = rest % taps, rest // taps
            stride = 1
            for b in range(a + 1, ndim):
                stride *= size[b]
            from_ = index[(total + a * taps + t) * _TILE :]
            for i in range(count):
                offset[i] = offset[i] + from_[i] * stride if (from_[i] >= 0) & (offset[i] >= 0) else -1
            own, own_slope = work[(room + a * rows + t) * _TILE :], work[(room + a * rows + taps + t) * _TILE :]
            for i in range(count):
                weight[i] *= own[i]
            for b in range(ndim):
                slope, part = work[(total * (1 + b) + k) * _TILE :], own_slope if b == a else own
                for i in range(count):
                    slope[i] *= part[i]
        if ndim == 3:
            # a tap outside has no weight either, so that NaN places give 0; in two dimensions they give NaN: PyTorch does so
            for b in range(ndim + 1):
                part = work[(total * b + k) * _TILE :]
                for i in range(count):
                    part[i] = part[i] if offset[i] >= 0 else grid.dtype.type(0)
        for i in range(count):
            offset[i] = offset[i] if offset[i] >= 0 else nowhere


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


@separate
def _sample(block, worker, x, grid, size, dims, plan, work, index, y):
    """Places [first, end) of y (N, C, PQ) for L channels of an image; x (N, C, HW), grid (N, PQ, axes), all flat."""
    _, C, HW, PQ, taps, padding, align = dims
    parts, planar, memory, entries = plan
    L, ndim = lanes(x), len(size)
    total = taps**ndim
    groups = -(-C // L)
    n, group, part = block // (groups * parts), block // parts % groups, block % parts
    channels = min(L, C - group * L)
    tiles = -(-PQ // _TILE)
    work, index = work[worker * memory :], index[worker * entries :]
    nowhere = -(-HW // L) * L
    turned, result = 0, (nowhere + 1) * L
    x0, y0 = (n * C + group * L) * HW, (n * C + group * L) * PQ
    if planar:
        result = 0
    else:
        _turn(x, x0, HW, channels, work, turned)
        store(work, nowhere * L, splat(x, x.dtype.type(0)))
    room = work[result + _TILE * L :]
    for tile in range(tiles * part // parts, tiles * (part + 1) // parts):
        first = tile * _TILE
        count = min(_TILE, PQ - first)
        _taps(grid, (n * PQ + first) * ndim, count, size, taps, padding, align, nowhere, room, index)
        if planar:
            for c in range(channels):
                plane, row = x[x0 + c * HW : x0 + (c + 1) * HW], y[y0 + c * PQ + first :]
                row[:count] = x.dtype.type(0)
                for k in range(total):
                    offset, weight = index[k * _TILE :], room[k * _TILE :]
                    for i in range(count):
                        row[i] += weight[i] * (plane[np.uintp(offset[i])] if offset[i] != nowhere else x.dtype.type(0))
            continue
        for i in range(count):
            total_ = broadcast(room, i) * load(work, element(index, i) * L)
            for k in range(1, total):
                total_ = fma(broadcast(room, k * _TILE + i), load(work, element(index, k * _TILE + i) * L), total_)
            store(work, result + i * L, total_)
        _turn_back(work, result, y, y0 + first, PQ, count, channels)


@separate
def _sample_gradient(block, worker, dy, x, grid, size, dims, plan, work, index, dx, dgrid):
    """dx (N, C, HW) and dgrid (groups, N, PQ, axes), which is to be added up, for L channels of an image; all flat."""
    N, C, HW, PQ, taps, padding, align = dims
    wants_x, wants_grid, memory, entries = plan
    L, ndim = lanes(dy), len(size)
    total = taps**ndim
    groups = -(-C // L)
    n, group = block // groups, block % groups
    channels = min(L, C - group * L)
    work, index = work[worker * memory :], index[worker * entries :]
    nowhere = -(-HW // L) * L
    image, sums = 0, (nowhere + 1) * L
    given = 2 * sums
    products = given + _TILE * L
    room = work[products + ndim * _TILE * L :]
    x0, y0 = (n * C + group * L) * HW, (n * C + group * L) * PQ
    if wants_grid:
        _turn(x, x0, HW, channels, work, image)
        store(work, nowhere * L, splat(dy, dy.dtype.type(0)))
    if wants_x:
        fill_row(dy.dtype.type(0), work, sums, (nowhere + 1) * L)
    for first in range(0, PQ, _TILE):
        count = min(_TILE, PQ - first)
        _taps(grid, (n * PQ + first) * ndim, count, size, taps, padding, align, nowhere, room, index)
        for i in range(0, count, L):
            part = load_square_part(dy, y0 + first + i, PQ, channels, count - i)
            store_tile(work, given + i * L, L, transpose(part))
        if wants_x:
            for i in range(count):
                g = load(work, given + i * L)
                for k in range(total):
                    at = sums + element(index, k * _TILE + i) * L
                    store(work, at, fma(broadcast(room, k * _TILE + i), g, load(work, at)))
        if wants_grid:
            target = ((group * N + n) * PQ + first) * ndim
            for a in range(ndim):
                for i in range(count):
                    at = total * (1 + a) * _TILE + i
                    s = broadcast(room, at) * load(work, image + element(index, i) * L)
                    for k in range(1, total):
                        s = fma(broadcast(room, at + k * _TILE), load(work, image + element(index, k * _TILE + i) * L), s)
                    store(work, products + i * L, s * load(work, given + i * L))
                for i in range(0, count, L):
                    store(work, products + i, lane_sums(load_square(work, products + i * L, L)))
                for i in range(count):
                    dgrid[target + i * ndim + ndim - 1 - a] = work[products + i]
    if wants_x:
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


def _rooms(taps: int, ndim: int) -> tuple[int, int]:
    """Elements of both kinds that the taps of a tile take."""
    total = taps**ndim
    return ((ndim + 1) * total + ndim * (2 * taps + 3)) * _TILE, (total + ndim * taps) * _TILE


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
    y = np.empty((N, C, *places.shape[1:-1]), x.dtype)
    if y.size:
        ndim, taps, L, HW, PQ = len(size), MODES[mode], LANES[x.dtype.name], prod(size), prod(y.shape[2:])
        total, groups = taps**ndim, -(-C // L)
        threads = threads_for(y.size * total * _NS_PER_TAP)
        # turning an image costs as much as reading 6 elements a pixel; from its planes a tap is a read for each channel
        planar = min(C, L) * total * PQ < 6 * HW + 8 * total * PQ // L
        parts = 1 if N * groups >= threads else threads
        image = 0 if planar else (-(-HW // L) * L + 1) * L
        room, entries = _rooms(taps, ndim)
        memory = image + _TILE * L + room
        dims = (N, C, HW, PQ, taps, PADDINGS[padding_mode], bool(align_corners))
        work, index = scratch(threads * memory, x.dtype.name), scratch(threads * entries, "int64")
        _sample_all(
            threads, N * groups * parts, x.ravel(), places.ravel(), tuple(size), dims, (parts, planar, memory, entries),
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
    ndim, taps, L, HW, PQ = len(size), MODES[mode], LANES[x.dtype.name], prod(size), prod(dy.shape[2:])
    groups = -(-C // L)
    wants_x, wants_grid = bool(output_mask[0]), bool(output_mask[1])
    if not dy.size or taps == 1:
        dx, dgrid = np.zeros_like(x), np.zeros_like(places)
    else:
        dx = np.empty(x.shape if wants_x else 0, x.dtype)
        dgrid = np.empty((groups, *places.shape) if wants_grid else 0, x.dtype)
    if dy.size and (wants_x or (wants_grid and taps > 1)):
        threads = threads_for(dy.size * taps**ndim * 3 * _NS_PER_TAP)
        room, entries = _rooms(taps, ndim)
        memory = (2 * (-(-HW // L) * L + 1) + (1 + ndim) * _TILE) * L + room
        dims = (N, C, HW, PQ, taps, PADDINGS[padding_mode], bool(align_corners))
        work, index = scratch(threads * memory, x.dtype.name), scratch(threads * entries, "int64")
        _sample_gradients(
            threads, N * groups, dy.ravel(), x.ravel(), places.ravel(), tuple(size), dims,
            (wants_x, wants_grid and taps > 1, memory, entries), work, index, dx.ravel(), dgrid.ravel(),
        )  # fmt: skip
        if wants_grid and taps > 1:
            dgrid = dgrid[0] if groups == 1 else dgrid.sum(0)
    return dx.astype(dtype, copy=False) if wants_x else None, dgrid.astype(dtype, copy=False) if wants_grid else None


register(grid_sample, grid_sample_backward, inputs=("input", "grid"), saved=("input", "grid"))
