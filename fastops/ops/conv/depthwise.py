"""Convolution of few channels at a time: depthwise, and grouped with small groups.

A matrix product needs many channels to share what it loads. Here each output channel sees one input channel, or a few,
and time goes into moving pixels: a 3x3 kernel does nine multiply-adds on a number that is read once. So the kernels are
stencils. A block of work copies the rows of x under some rows of y into a slab in L1, with the zeros of the padding
around them, then slides the kernel over it: a register tile is a column of ``_TILE`` vectors, one in each of as many
output rows, and a vector of the slab, loaded once, serves all the output rows that it is a tap of.

Data with channels first: lanes run along a row. A stride along the row is taken apart while copying: column j of a
stride s goes to plane j % s, and inside a plane neighbours are neighbours again. Channels last, one input channel for each
output channel: lanes run over channels, and no element needs to move; where the kernel is flat in depth there is no slab either
(``pixels``). Small images with channels first would leave lanes
idle at the end of each row: the planes of as many channels as a vector has lanes are turned, pixel by pixel a vector of
channels, go through the stencil for channels last, and the result is turned back.

Where many output channels see the same few input channels, as in the first layer of a network, the slab is the matrix on the
right of a product: row k of it is the image from tap k on, and the weights on the left are read where they lie.

The gradient with respect to x is the same computation on dy with the kernel turned; for a stride above 1 each remainder
of the pixel modulo the stride has its own taps (see ``implicit``), and the results are interleaved on the way out. The
gradient with respect to the weights keeps a vector of sums for each tap; a fixed order of blocks, not of threads, decides in
which order they are added.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import product as grid_of
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastops import _threads
from fastops._jit import call, function, launcher, parallel, separate
from fastops.ops.conv import pixels
from fastops.ops.conv.implicit import _axis_phases, zero_run
from fastops.ops.conv.layout import side, up
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, LANE_COLS, LANE_ROWS, LANES, MR
from fastops.simd.epilogue import ACTIVATIONS
from fastops.simd.finish import activate, activation_entry
from fastops.simd.product import stencil_product
from fastops.simd.vector import (
    correlate,
    correlate_part,
    deinterleave,
    interleave,
    lane_products,
    lane_products_part,
    lane_sums,
    lanes,
    load,
    load_part,
    load_square,
    load_square_part,
    load_tile,
    load_tile_part,
    offsets,
    prefetch,
    slide,
    slide_lanes,
    splat,
    store,
    store_column_part,
    store_part,
    store_square_part,
    store_tile,
    tile_add,
    transpose,
    zero_tile,
)
from fastops.simd.workspace import scratch

# Seven rows divide the images of most networks (7, 14, 28, 56, 112), and seven sums hide most of a multiply-add's latency.
_TILE = 7
# Where fewer rows than this are to be had, the tile is a row of vectors instead of a column.
_FEW_ROWS = 4
_SLAB_BYTES = 24 << 10
_LARGEST_SLAB_BYTES = 256 << 10
_SUMS_BYTES = 128 << 10
_TURNED_BYTES = 192 << 10
_MANY = 16
# So few pixels are turned one by one.
_FEW_PIXELS = 3
# With so few input channels an ungrouped convolution has little for a matrix product to share.
_FEW_CHANNELS = 4
_DENSE_SUMS_BYTES = 2 << 20
_LANE_SUMS = LANE_ROWS * LANE_COLS
_RELU, _RELU6 = ACTIVATIONS["relu"], ACTIVATIONS["relu6"]


# ---- the slab


@function
def _plane_shift(left, f, stride):
    """Zeros on the left of plane f in the first columns; what lies there starts that much before the row's place."""
    return (max(left, 0) - f + stride - 1) // stride


@function
def _first_in_plane(u, f, stride):
    return max(0, (u - f + stride - 1) // stride)


@function
def _columns(q0, q1, stride, left, reach, width):
    """Under output columns q0..q1: the columns of the padded input, and which of them are inside x."""
    need = (q1 - q0 - 1) * stride + reach
    shift = left - q0 * stride
    inside0 = min(need, max(0, shift))
    return need, inside0, max(inside0, min(need, width + shift))


@function
def _clear_edges(space, s0, channels, slices, od, i0, i1, q0, q1, source, geometry, before, dilation):
    """Zeros in the part of a planar slab that lies outside x; copying leaves them alone."""
    depth, height, width = source[0], source[5], source[6]
    stride_d, stride_h, stride_w, top, left, reach_h, reach_w, slab_rows, pitch = geometry
    need, inside0, inside1 = _columns(q0, q1, stride_w, left, reach_w, width)
    rows = (i1 - i0 - 1) * stride_h + reach_h
    for c in range(channels):
        for t in range(slices):
            d = od * stride_d - before + t * dilation
            for i in range(rows):
                h = i0 * stride_h - top + i
                row = s0 + ((c * slices + t) * slab_rows + i) * stride_w * pitch
                for f in range(stride_w):
                    start = row + f * pitch - _plane_shift(left, f, stride_w)
                    end = _first_in_plane(need, f, stride_w)
                    if d < 0 or d >= depth or h < 0 or h >= height:
                        zero_run(space, start, end)
                    else:
                        n0, n1 = _first_in_plane(inside0, f, stride_w), _first_in_plane(inside1, f, stride_w)
                        if n0 > 0:
                            zero_run(space, start, n0)
                        if n1 < end:
                            zero_run(space, start + n1, end - n1)


@function
def _copies(i0, i1, q0, q1, source, geometry):
    """What _fill does for each channel alike: divisions are too slow to be made again for each."""
    _, stride_h, stride_w, top, left, reach_h, reach_w, _, pitch = geometry
    _, inside0, inside1 = _columns(q0, q1, stride_w, left, reach_w, source[6])
    h0 = i0 * stride_h - top
    rows = (i1 - i0 - 1) * stride_h + reach_h
    f0, f1 = inside0 % stride_w, (inside0 + 1) % stride_w
    even = f0 * pitch + inside0 // stride_w - _plane_shift(left, f0, stride_w)
    odd = f1 * pitch + (inside0 + 1) // stride_w - _plane_shift(left, f1, stride_w)
    first, last = max(0, -h0), min(rows, source[5] - h0)
    return h0, first, last, q0 * stride_w - left + inside0, inside0, inside1, even, odd


@function
def _copy_rows(x, at, width, space, to, slab_row, rows, n):
    """Rows of n elements; the last vector of a row is written whole, with zeros behind its end."""
    count = lanes(x)
    # The mask of the last vector is the same in every row: what it comes from must not depend on a loop.
    whole = n // count * count
    for _ in range(rows):
        for j in range(0, whole, count):
            store(space, to + j, load(x, at + j))
        if whole < n:
            store(space, to + whole, load_part(x, at + whole, n - whole))
        at += width
        to += slab_row


@function
def _split_rows(x, at, width, space, to, apart, slab_row, rows, n):
    """As _copy_rows; the odd elements go ``apart`` from the even ones."""
    count = lanes(x)
    whole = n // (2 * count) * (2 * count)
    for _ in range(rows):
        for j in range(0, whole, 2 * count):
            store_tile(space, to + j // 2, apart, deinterleave(load(x, at + j), load(x, at + j + count)))
        if whole < n:
            pair = deinterleave(load_part(x, at + whole, n - whole), load_part(x, at + whole + count, n - whole - count))
            store_tile(space, to + whole // 2, apart, pair)
        at += width
        to += slab_row


@function
def _scatter_rows(x, at, width, p_stride, space, to, slab_row, rows, inside0, inside1, stride_w, left, pitch):
    """As _copy_rows, for any stride and any distance of pixels."""
    for f in range(stride_w):
        n0, n1 = _first_in_plane(inside0, f, stride_w), _first_in_plane(inside1, f, stride_w)
        plane = to + f * pitch - _plane_shift(left, f, stride_w)
        for i in range(rows):
            for m in range(n0, n1):
                space[plane + i * slab_row + m] = x[at + (i * width + m * stride_w + f - inside0) * p_stride]


@function
def _fill(x, x0, space, s0, channels, slices, od, copies, source, geometry, before, dilation):
    """Copies x under some rows and columns of output slice od into a planar slab.

    The slab is (channels, slices, rows, stride_w planes, pitch). Rows are written in ascending order: the last vector of a
    row may spill zeros over the start of the next.
    """
    depth, _, d_stride, c_stride, p_stride, _, width, _ = source
    stride_d, _, stride_w, _, left, _, _, slab_rows, pitch = geometry
    h0, first, last, w0, inside0, inside1, even, odd = copies
    slab_row = stride_w * pitch
    for c in range(channels):
        for t in range(slices):
            d = od * stride_d - before + t * dilation
            if d < 0 or d >= depth:
                continue
            at = x0 + c * c_stride + d * d_stride + ((h0 + first) * width + w0) * p_stride
            to = s0 + ((c * slices + t) * slab_rows + first) * slab_row
            if p_stride == 1 and stride_w == 1:
                _copy_rows(x, at, width, space, to + even, slab_row, last - first, inside1 - inside0)
            elif p_stride == 1 and stride_w == 2:
                _split_rows(x, at, width, space, to + even, odd - even, slab_row, last - first, inside1 - inside0)
            else:
                _scatter_rows(x, at, width, p_stride, space, to, slab_row, last - first, inside0, inside1, stride_w, left, pitch)


@function
def _fill_pixels(x, x0, some, clear, space, s0, slices, od, i0, i1, q0, q1, source, geometry, before, dilation):
    """As _fill, a vector of channels for each pixel: (slices, rows, pitch pixels, lanes); with ``clear`` the zeros too."""
    depth, _, d_stride, _, p_stride, height, width, _ = source
    stride_d, stride_h, stride_w, top, left, reach_h, reach_w, slab_rows, pitch = geometry
    need, inside0, inside1 = _columns(q0, q1, stride_w, left, reach_w, width)
    count = lanes(x)
    w0 = q0 * stride_w - left
    rows = (i1 - i0 - 1) * stride_h + reach_h
    for t in range(slices):
        d = od * stride_d - before + t * dilation
        for i in range(rows):
            h = i0 * stride_h - top + i
            to = s0 + (t * slab_rows + i) * pitch * count
            if d < 0 or d >= depth or h < 0 or h >= height:
                if clear:
                    zero_run(space, to, need * count)
                continue
            if clear:
                zero_run(space, to, inside0 * count)
                zero_run(space, to + inside1 * count, (need - inside1) * count)
            at = x0 + d * d_stride + (h * width + w0) * p_stride
            if some == count:
                for j in range(inside0, inside1):
                    store(space, to + j * count, load(x, at + j * p_stride))
            else:
                for j in range(inside0, inside1):
                    store(space, to + j * count, load_part(x, at + j * p_stride, some))


@function
def _place(block, work):
    """(image, output slice, first row, first column, part of the groups) of a block; strips of an image are neighbours."""
    slices, parts, row_strips, strip_rows, col_strips, strip_cols = work
    q0 = block % col_strips * strip_cols
    block //= col_strips
    i0 = block % row_strips * strip_rows
    block //= row_strips
    od = block % slices
    block //= slices
    return block // parts, od, i0, q0, block % parts


# ---- forward, and the gradient with respect to the input


@function
def _merge(space, m0, plane, row, rows, cols, y, y0, y_row, step, p_stride):
    """Writes ``step`` planes of rows to y, taking their elements in turns; ``cols`` elements a row of y."""
    count = lanes(y)
    for i in range(rows):
        at, to = m0 + i * row, y0 + i * y_row
        if step == 2 and p_stride == 1:
            j = 0
            while cols - j >= 2 * count:
                store_tile(y, to + j, count, interleave(load(space, at + j // 2), load(space, at + plane + j // 2)))
                j += 2 * count
            if j < cols:
                pair = interleave(load(space, at + j // 2), load(space, at + plane + j // 2))
                store_column_part(y, to + j, count, pair, 2, cols - j, count)
        else:
            for f in range(step):
                for j in range((cols - f + step - 1) // step):
                    y[to + (j * step + f) * p_stride] = space[at + f * plane + j]


def _planar(name: str, taps: int, stride: int) -> Any:
    """The launcher for channels first: ``taps`` kernel rows at a time, ``stride`` slab rows apart."""

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, work, groups, per_part, source, x_group, target, y_group, geometry, steps, depths, pieces, at,
        wt, x, w, w_group, w_out, w_row, y, bias, activation, space, each,
    ):  # fmt: skip
        image, od, i0, q0, part = _place(block, work)
        strip_rows, col_strips, strip_cols = work[3], work[4], work[5]
        stride_h, stride_w, pitch = geometry[1], geometry[2], geometry[8]
        step_d, step_h, step_w, coarse_h, coarse_w, few = steps
        _, n_stride, d_stride, c_stride, p_stride, height, width, outs = target
        ins = source[7]
        count = lanes(y)
        i1, q1 = min(coarse_h, i0 + strip_rows), min(coarse_w, q0 + strip_cols)
        phase, coarse_d = od % step_d, od // step_d
        slab_slices, before, dilation = depths[3 * phase], depths[3 * phase + 1], depths[3 * phase + 2]
        # Whole tiles are stored there.
        merged_row = (strip_cols + count - 1) // count * count + (_TILE * count if few else 0)
        merged_plane = (strip_rows + _TILE) * merged_row
        m0 = worker * each
        s0 = m0 + (step_w * merged_plane if step_w > 1 or p_stride > 1 else 0) + geometry[9]
        edges = geometry[:9]
        direct = step_w == 1 and p_stride == 1
        slab_row = stride_w * pitch
        tile_row = count if few else (slab_row if taps > 1 else stride_h * slab_row)
        row_step, col_step = (1, _TILE * count) if few else (_TILE, count)
        sink_row = count if few else (step_h * width if direct else merged_row)
        fall = count if few else 0
        g0, g1 = part * per_part, min(groups, (part + 1) * per_part)
        _clear_edges(space, s0, ins, slab_slices, coarse_d, i0, i1, q0, q1, source, edges, before, dilation)
        copies = _copies(i0, i1, q0, q1, source, edges)
        for g in range(g0, g1):
            _fill(x, image * source[1] + g * x_group, space, s0, ins, slab_slices, coarse_d, copies, source, edges, before, dilation)
            for k in range(outs):
                y0 = image * n_stride + g * y_group + od * d_stride + k * c_stride
                w0 = g * w_group + k * w_out
                shift = splat(y, bias[g * outs + k] if bias.size > 0 else y.dtype.type(0))
                for rem_h in range(step_h):
                    for rem_w in range(step_w):
                        piece = 4 * ((phase * step_h + rem_h) * step_w + rem_w)
                        first, last = pieces[piece], pieces[piece + 1]
                        rows, cols = min(i1, pieces[piece + 2]) - i0, min(q1, pieces[piece + 3]) - q0
                        i = 0
                        while i < rows:
                            left = _TILE if few else rows - i
                            row0 = s0 + i * stride_h * slab_row
                            to = y0 + ((i0 + i) * step_h + rem_h) * width + q0 if direct else m0 + rem_w * merged_plane + i * merged_row
                            q = 0
                            while q < cols:
                                t = tile_add(zero_tile(y, _TILE, 1), shift)
                                for j in range(first, last):
                                    t = slide(t, space, offsets(at, j, row0 + q, 1)[0], tile_row, taps, stride, w, offsets(wt, j, w0, 1)[0], w_row)
                                if not direct:
                                    store_tile(space, to + q, sink_row, t)
                                elif left >= _TILE and cols - q >= col_step:
                                    store_tile(y, to + q, sink_row, t)
                                elif left >= _TILE and not few:
                                    store_column_part(y, to + q, sink_row, t, _TILE, cols - q, 0)
                                else:
                                    store_column_part(y, to + q, sink_row, t, left, cols - q, fall)
                                q += col_step
                            i += row_step
                    if not direct:
                        rows = min(i1, pieces[4 * (phase * step_h + rem_h) * step_w + 2]) - i0
                        to = y0 + (((i0 * step_h + rem_h) * width) + q0 * step_w) * p_stride
                        across = min(width, q1 * step_w) - q0 * step_w
                        _merge(space, m0, merged_plane, merged_row, rows, across, y, to, step_h * width * p_stride, step_w, p_stride)
                if activation[1] != 0:
                    r0, r1 = i0 * step_h, min(height, i1 * step_h)
                    c0, c1 = q0 * step_w, min(width, q1 * step_w)
                    if p_stride > 1:
                        if k == outs - 1:
                            for r in range(r0, r1):
                                for c in range(c0, c1):
                                    activate(activation, y, y0 - k * c_stride + (r * width + c) * p_stride, outs)
                    elif col_strips == 1:
                        activate(activation, y, y0 + r0 * width, (r1 - r0) * width)
                    else:
                        for r in range(r0, r1):
                            activate(activation, y, y0 + r * width + c0, c1 - c0)

    @launcher(name=name)
    def launch(
        threads, blocks, work, groups, per_part, source, x_group, target, y_group, geometry, steps, depths, pieces,
        at, wt, x, w, w_group, w_out, w_row, y, bias, activation, space, each,
    ):  # fmt: skip
        parallel(block_body, blocks, threads, (
            work, groups, per_part, source, x_group, target, y_group, geometry, steps, depths, pieces, at, wt, x, w,
            w_group, w_out, w_row, y, bias, activation, space, each,
        ))  # fmt: skip

    return launch


@separate
def _shared_block(block, worker, work, source, target, geometry, coarse, depths, at, x, w, y, bias, activation, space, each):
    """Some rows of all output channels, which see the same few input channels: the slab is the matrix that weights multiply."""
    image, od, i0, q0, _ = _place(block, work)
    strip_rows, strip_cols = work[3], work[5]
    stride_h, stride_w, pitch = geometry[1], geometry[2], geometry[8]
    _, n_stride, d_stride, c_stride, _, _, width, outs = target
    ins, taps = source[7], at.size
    i1, q1 = min(coarse[0], i0 + strip_rows), min(coarse[1], q0 + strip_cols)
    slices, before, dilation = depths[0], depths[1], depths[2]
    s0, edges = worker * each + geometry[9], geometry[:9]
    _clear_edges(space, s0, ins, slices, od, i0, i1, q0, q1, source, edges, before, dilation)
    copies = _copies(i0, i1, q0, q1, source, edges)
    _fill(x, image * source[1], space, s0, ins, slices, od, copies, source, edges, before, dilation)
    relu, relu6 = activation[1] == _RELU, activation[1] == _RELU6
    low, high = y.dtype.type(0), y.dtype.type(6 if relu6 else np.nan)
    # A few output channels' weights and the slab stay in L1.
    for k in range(0, outs, MR):
        some, to = min(MR, outs - k), image * n_stride + od * d_stride + k * c_stride + i0 * width + q0
        for i in range(i1 - i0):
            row = s0 + i * stride_h * stride_w * pitch
            call(stencil_product, (
                some, q1 - q0, taps, w, k * taps, taps, space, row, at, y, to, c_stride, bias.size > 0, bias, k, relu or relu6, low, high,
            ))  # fmt: skip
            if activation[1] != 0 and not (relu or relu6):
                for j in range(some):
                    activate(activation, y, to + j * c_stride, q1 - q0)
            to += width


@launcher
def _shared(threads, blocks, work, source, target, geometry, coarse, depths, at, x, w, y, bias, activation, space, each):
    parallel(_shared_block, blocks, threads, (work, source, target, geometry, coarse, depths, at, x, w, y, bias, activation, space, each))


@function
def _turn_weights(w, w0, some, taps, space, s0):
    """The kernels of some channels, (channels, taps), as a vector of channels for each tap."""
    count = lanes(w)
    for i in range(0, taps, count):
        store_tile(space, s0 + i * count, count, transpose(load_square_part(w, w0 + i, taps, some, taps - i)))


def _pixel_stencil(taps: int, stride: int) -> Any:
    """The stencil for a vector of channels in each pixel."""

    @function
    def stencil(space, s0, k0, shift, i0, i1, q0, q1, phase, geometry, steps, pieces, at, wt, w_row, y, y0, p_stride, width, some):
        """From a filled slab and turned weights to the rows i0..i1 and columns q0..q1 of every phase, in y[y0 ...]."""
        stride_h, stride_w, pitch = geometry[1], geometry[2], geometry[8]
        _, step_h, step_w, _, _, few = steps
        count = lanes(y)
        slab_row = pitch * count
        tile_row = stride_w * count if few else (slab_row if taps > 1 else stride_h * slab_row)
        row_step, col_step = (1, _TILE) if few else (_TILE, 1)
        y_row = step_w * p_stride if few else step_h * width * p_stride
        for rem_h in range(step_h):
            for rem_w in range(step_w):
                piece = 4 * ((phase * step_h + rem_h) * step_w + rem_w)
                first, last = pieces[piece], pieces[piece + 1]
                rows, cols = min(i1, pieces[piece + 2]) - i0, min(q1, pieces[piece + 3]) - q0
                i = 0
                while i < rows:
                    row0 = s0 + i * stride_h * slab_row
                    to = y0 + (((i0 + i) * step_h + rem_h) * width + q0 * step_w + rem_w) * p_stride
                    q = 0
                    while q < cols:
                        t = tile_add(zero_tile(y, _TILE, 1), shift)
                        for j in range(first, last):
                            x_at, w_at = offsets(at, j, row0 + q * stride_w * count, 1)[0], offsets(wt, j, k0, 1)[0]
                            t = slide_lanes(t, space, x_at, tile_row, taps, stride, space, w_at, w_row)
                        left = cols - q if few else rows - i
                        if left >= _TILE and some == count:
                            store_tile(y, to + q * step_w * p_stride, y_row, t)
                        else:
                            store_column_part(y, to + q * step_w * p_stride, y_row, t, left, some, 0)
                        q += col_step
                    i += row_step

    return stencil


def _pixelwise(name: str, taps: int, stride: int) -> Any:
    """The launcher for channels last, one input channel for each output channel."""
    stencil = _pixel_stencil(taps, stride)

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, work, channels, per_part, source, target, geometry, steps, depths, pieces, at, wt, x, w,
        kernel, w_row, y, bias, activation, space, each,
    ):  # fmt: skip
        image, od, i0, q0, part = _place(block, work)
        strip_rows, strip_cols = work[3], work[5]
        step_d, step_h, step_w, coarse_h, coarse_w, _ = steps
        _, n_stride, d_stride, _, p_stride, height, width, _ = target
        count = lanes(y)
        i1, q1 = min(coarse_h, i0 + strip_rows), min(coarse_w, q0 + strip_cols)
        phase, coarse_d = od % step_d, od // step_d
        slab_slices, before, dilation = depths[3 * phase], depths[3 * phase + 1], depths[3 * phase + 2]
        k0 = worker * each
        s0 = k0 + (kernel + count) * count
        y0 = image * n_stride + od * d_stride
        zero = splat(y, y.dtype.type(0))
        c0 = part * per_part * count
        c1 = min(channels, c0 + per_part * count)
        for c in range(c0, c1, count):
            some = min(count, c1 - c)
            _turn_weights(w, c * kernel, some, kernel, space, k0)
            _fill_pixels(
                x, image * source[1] + c, some, c == c0, space, s0, slab_slices, coarse_d, i0, i1, q0, q1, source, geometry,
                before, dilation,
            )  # fmt: skip
            shift = zero
            if bias.size > 0:
                shift = load_part(bias, c, some)
            stencil(
                space, s0, k0, shift, i0, i1, q0, q1, phase, geometry, steps, pieces, at, wt, w_row, y, image * n_stride + od * d_stride + c,
                p_stride, width, some,
            )  # fmt: skip
        if activation[1] != 0:
            for r in range(i0 * step_h, min(height, i1 * step_h)):
                left, right = q0 * step_w, min(width, q1 * step_w)
                if c1 - c0 == channels:
                    activate(activation, y, y0 + (r * width + left) * p_stride, (right - left) * channels)
                else:
                    for q in range(left, right):
                        activate(activation, y, y0 + (r * width + q) * p_stride + c0, c1 - c0)

    @launcher(name=name)
    def launch(
        threads, blocks, work, channels, per_part, source, target, geometry, steps, depths, pieces, at, wt, x, w,
        kernel, w_row, y, bias, activation, space, each,
    ):  # fmt: skip
        parallel(block_body, blocks, threads, (
            work, channels, per_part, source, target, geometry, steps, depths, pieces, at, wt, x, w, kernel, w_row, y,
            bias, activation, space, each,
        ))  # fmt: skip

    return launch


@function
def _turn_planes(x, at, plane, some, space, to):
    """Some channels, one plane after the other, as a vector of channels for each pixel; writes up to a square more."""
    count = lanes(x)
    if some < count or plane < count:
        for i in range(0, plane, count):
            store_tile(space, to + i * count, count, transpose(load_square_part(x, at + i, plane, some, plane - i)))
        return
    whole = plane if plane % count > _FEW_PIXELS else plane // count * count
    for i in range(0, whole, count):
        # The last square moves back over pixels that are done.
        j = min(i, plane - count)
        store_tile(space, to + j * count, count, transpose(load_square(x, at + j, plane)))
    for i in range(whole, plane):
        for c in range(count):
            space[to + i * count + c] = x[at + c * plane + i]


@function
def _turn_back(space, at, y, to, plane, some):
    """The reverse of _turn_planes; reads up to a square more."""
    count = lanes(y)
    if some < count or plane < count:
        for i in range(0, plane, count):
            store_square_part(y, to + i, plane, transpose(load_square(space, at + i * count, count)), some, plane - i)
        return
    whole = plane if plane % count > _FEW_PIXELS else plane // count * count
    for i in range(0, whole, count):
        j = min(i, plane - count)
        store_tile(y, to + j, plane, transpose(load_square(space, at + j * count, count)))
    for i in range(whole, plane):
        for c in range(count):
            y[to + c * plane + i] = space[at + i * count + c]


def _turned(name: str, taps: int, stride: int) -> Any:
    """The launcher for small images with channels first, one input channel for each output channel."""
    stencil = _pixel_stencil(taps, stride)

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, per_block, images, channels, source, target, geometry, steps, pieces, at, wt, x, w, kernel, w_row, y,
        bias, activation, space, each,
    ):  # fmt: skip
        count = lanes(y)
        plane_in, plane_out = source[3], target[3]
        coarse_h, coarse_w = steps[3], steps[4]
        k0 = worker * each
        x0 = k0 + (kernel + count) * count
        y0 = x0 + (plane_in + count) * count
        s0 = y0 + (plane_out + count) * count
        pixels = (1, 0, 0, 1, count, source[5], source[6], count)
        units = (channels + count - 1) // count * images
        first = block * per_block
        shift = splat(y, y.dtype.type(0))
        for unit in range(first, min(units, first + per_block)):
            image, c = unit % images, unit // images * count
            some = min(count, channels - c)
            if unit == first or image == 0:
                _turn_weights(w, c * kernel, some, kernel, space, k0)
                if bias.size > 0:
                    shift = load_part(bias, c, some)
            _turn_planes(x, image * source[1] + c * plane_in, plane_in, some, space, x0)
            _fill_pixels(space, x0, count, unit == first, space, s0, 1, 0, 0, coarse_h, 0, coarse_w, pixels, geometry, 0, 1)
            stencil(space, s0, k0, shift, 0, coarse_h, 0, coarse_w, 0, geometry, steps, pieces, at, wt, w_row, space, y0, count, target[6], count)
            to = image * target[1] + c * plane_out
            _turn_back(space, y0, y, to, plane_out, some)
            activate(activation, y, to, some * plane_out)

    @launcher(name=name)
    def launch(
        threads, blocks, per_block, images, channels, source, target, geometry, steps, pieces, at, wt, x, w, kernel, w_row, y,
        bias, activation, space, each,
    ):  # fmt: skip
        parallel(block_body, blocks, threads, (
            per_block, images, channels, source, target, geometry, steps, pieces, at, wt, x, w, kernel, w_row, y, bias,
            activation, space, each,
        ))  # fmt: skip

    return launch


# ---- the gradient with respect to the weights


def _planar_gradient(name: str, taps: int, stride: int, unroll: int) -> Any:
    """The launcher for channels first; ``unroll`` steps of ``taps`` sums each are kept in registers."""
    vectors = taps * unroll

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, work, items, per_chunk, groups, per_part, source, x_group, target, y_group, geometry, depth,
        at, number, order, in_order, few, x, dy, dw, w_group, w_out, chunk_stride, space, each,
    ):  # fmt: skip
        slices, parts, row_strips, strip_rows, col_strips, strip_cols = work
        part, chunk = block % parts, block // parts
        stride_h, stride_w, pitch = geometry[1], geometry[2], geometry[8]
        edges = geometry[:9]
        slab_slices, before, dilation = depth
        _, n_stride, d_stride, c_stride, p_stride, height, width, outs = target
        ins = source[7]
        count = lanes(dw)
        sums0 = worker * each
        g0, g1 = part * per_part, min(groups, (part + 1) * per_part)
        row_sums = number * taps
        all_sums = per_part * outs * row_sums
        gathered0 = sums0 + (all_sums + count) * count
        gathered_row = (strip_cols + count - 1) // count * count
        s0 = gathered0 + (strip_rows * gathered_row if p_stride > 1 else 0) + geometry[9]
        zero_run(space, sums0, all_sums * count)
        slab_row = stride_w * pitch
        tile_row = count if few else (slab_row if taps > 1 else stride_h * slab_row)
        row_step, col_step = (1, _TILE * count) if few else (_TILE, count)
        fall = count if few else 0
        for item in range(chunk * per_chunk, min(items, (chunk + 1) * per_chunk)):
            image, od, i0, q0, _ = _place(item, (slices, 1, row_strips, strip_rows, col_strips, strip_cols))
            i1, q1 = min(height, i0 + strip_rows), min(width, q0 + strip_cols)
            rows, cols = i1 - i0, q1 - q0
            _clear_edges(space, s0, ins, slab_slices, od, i0, i1, q0, q1, source, edges, before, dilation)
            copies = _copies(i0, i1, q0, q1, source, edges)
            for g in range(g0, g1):
                _fill(x, image * source[1] + g * x_group, space, s0, ins, slab_slices, od, copies, source, edges, before, dilation)
                for k in range(outs):
                    y0 = image * n_stride + g * y_group + od * d_stride + k * c_stride + (i0 * width + q0) * p_stride
                    if p_stride > 1:
                        for i in range(rows):
                            for q in range(cols):
                                space[gathered0 + i * gathered_row + q] = dy[y0 + (i * width + q) * p_stride]
                    for j in range(0, number, unroll):
                        sums_at = sums0 + (((g - g0) * outs + k) * row_sums + j * taps) * count
                        sums = load_tile(space, sums_at, count, vectors)
                        i = 0
                        while i < rows:
                            left = _TILE if few else rows - i
                            row0 = s0 + i * stride_h * slab_row
                            q = 0
                            while q < cols:
                                where = offsets(at, j, row0 + q, unroll)
                                if p_stride > 1:
                                    t = load_tile_part(
                                        space, gathered0 + i * gathered_row + q, count if few else gathered_row, _TILE, left, cols - q, fall,
                                    )  # fmt: skip
                                elif left >= _TILE and not few:
                                    t = load_tile_part(dy, y0 + i * width + q, width, _TILE, _TILE, cols - q, 0)
                                else:
                                    t = load_tile_part(dy, y0 + i * width + q, count if few else width, _TILE, left, cols - q, fall)
                                if left >= _TILE and cols - q >= col_step:
                                    sums = correlate(sums, t, space, where, tile_row, taps, stride)
                                elif left >= _TILE and not few:
                                    sums = correlate_part(sums, t, space, where, tile_row, taps, stride, _TILE, cols - q, 0)
                                else:
                                    sums = correlate_part(sums, t, space, where, tile_row, taps, stride, min(left, _TILE), cols - q, fall)
                                q += col_step
                            i += row_step
                        store_tile(space, sums_at, count, sums)
        total = (g1 - g0) * outs * row_sums
        to, at_sum = chunk * chunk_stride + g0 * w_group, 0
        for i in range(0, total, count):
            reduced = lane_sums(load_square(space, sums0 + i * count, count))
            if in_order:
                store_part(dw, to + i, reduced, total - i)
                continue
            store(space, gathered0, reduced)
            for j in range(min(count, total - i)):
                if order[at_sum] >= 0:
                    dw[to + order[at_sum]] = space[gathered0 + j]
                at_sum += 1
                if at_sum == row_sums:
                    # Output channels, and groups of them, follow one another in dw.
                    at_sum = 0
                    to += w_out

    @launcher(name=name)
    def launch(
        threads, chunks, work, items, per_chunk, groups, per_part, source, x_group, target, y_group, geometry, depth,
        at, number, order, in_order, few, x, dy, partial, dw, w_group, w_out, space, each,
    ):  # fmt: skip
        result = dw if chunks == 1 else partial
        parallel(block_body, work[1] * chunks, threads, (
            work, items, per_chunk, groups, per_part, source, x_group, target, y_group, geometry, depth, at, number,
            order, in_order, few, x, dy, result, w_group, w_out, dw.size, space, each,
        ))  # fmt: skip
        _add_chunks(chunks, partial, dw)

    return launch


@separate
def _dense_gradient_block(
    block, worker, work, items, per_chunk, source, target, geometry, depth, at, number, order, x, dy, dw, w_out,
    chunk_stride, space, each,
):  # fmt: skip
    slices, _, row_strips, strip_rows, col_strips, strip_cols = work
    edges = geometry[:9]
    step = geometry[1] * geometry[2] * geometry[8]  # between the input rows of two output rows
    slab_slices, before, dilation = depth
    _, n_stride, d_stride, c_stride, _, height, width, outs = target
    ins = source[7]
    count = lanes(dw)
    sums0 = worker * each
    all_sums = (outs + LANE_ROWS - 1) // LANE_ROWS * LANE_ROWS * number
    reduced0 = sums0 + (all_sums + count) * count
    s0 = reduced0 + geometry[9]
    zero_run(space, sums0, all_sums * count)
    for item in range(block * per_chunk, min(items, (block + 1) * per_chunk)):
        image, od, i0, q0, _ = _place(item, (slices, 1, row_strips, strip_rows, col_strips, strip_cols))
        i1, q1 = min(height, i0 + strip_rows), min(width, q0 + strip_cols)
        rows, cols = i1 - i0, q1 - q0
        _clear_edges(space, s0, ins, slab_slices, od, i0, i1, q0, q1, source, edges, before, dilation)
        copies = _copies(i0, i1, q0, q1, source, edges)
        _fill(x, image * source[1], space, s0, ins, slab_slices, od, copies, source, edges, before, dilation)
        sums_at = sums0
        for k in range(0, outs, LANE_ROWS):
            # The last tile starts where it is whole, and repeats sums of the one before.
            y0 = image * n_stride + od * d_stride + min(k, outs - LANE_ROWS) * c_stride + i0 * width + q0
            for j in range(0, number, LANE_COLS):
                where = offsets(at, j, s0, LANE_COLS)
                sums = load_tile(space, sums_at, count, _LANE_SUMS)
                for i in range(rows):
                    for q in range(0, cols, count):
                        for r in range(LANE_ROWS):  # dy comes from memory: 5 GB/s when it is not asked for ahead
                            prefetch(dy, y0 + i * width + q + (LANE_ROWS + r) * c_stride)
                        if cols - q >= count:
                            t = load_tile(dy, y0 + i * width + q, c_stride, LANE_ROWS)
                            sums = lane_products(sums, t, space, where, i * step + q)
                        else:
                            t = load_tile_part(dy, y0 + i * width + q, c_stride, LANE_ROWS, LANE_ROWS, cols - q, 0)
                            sums = lane_products_part(sums, t, space, where, i * step + q, cols - q)
                store_tile(space, sums_at, count, sums)
                sums_at += _LANE_SUMS * count
    k, at_sum = 0, 0
    for i in range(0, all_sums, count):
        store(space, reduced0, lane_sums(load_square(space, sums0 + i * count, count)))
        for j in range(min(count, all_sums - i)):
            if order[at_sum] >= 0:
                dw[block * chunk_stride + min(k, outs - LANE_ROWS) * w_out + order[at_sum]] = space[reduced0 + j]
            at_sum += 1
            if at_sum == order.size:
                at_sum = 0
                k += LANE_ROWS


@launcher
def _dense_gradient(
    threads, chunks, work, items, per_chunk, source, target, geometry, depth, at, number, order, x, dy, partial, dw,
    w_out, space, each,
):  # fmt: skip
    """Few input channels, many output channels: a tile of sums is output channels by taps, and dy is read once."""
    result = dw if chunks == 1 else partial
    parallel(_dense_gradient_block, chunks, threads, (
        work, items, per_chunk, source, target, geometry, depth, at, number, order, x, dy, result, w_out, dw.size,
        space, each,
    ))  # fmt: skip
    _add_chunks(chunks, partial, dw)


@function
def _add_chunks(chunks, partial, dw):
    if chunks > 1:
        for i in range(dw.size):
            dw[i] = partial[i]
        for c in range(1, chunks):
            for i in range(dw.size):
                dw[i] += partial[c * dw.size + i]


def _pixelwise_gradient(name: str, taps: int, stride: int, unroll: int, turned: bool = False) -> Any:
    """The launcher for channels last, one input channel for each output channel; ``turned``: as in _turned."""
    vectors = taps * unroll

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, work, items, per_chunk, channels, per_part, source, target, geometry, depth, at, number, order,
        few, x, dy, dw, kernel, chunk_stride, space, each,
    ):  # fmt: skip
        slices, parts, row_strips, strip_rows, col_strips, strip_cols = work
        part, chunk = block % parts, block // parts
        stride_h, stride_w, pitch = geometry[1], geometry[2], geometry[8]
        slab_slices, before, dilation = depth
        _, n_stride, d_stride, c_stride, p_stride, height, width, _ = target
        count = lanes(dw)
        sums0 = worker * each
        row_sums = number * taps
        k0 = sums0 + per_part * row_sums * count
        x0 = k0 + (kernel + count) * count
        dy0 = x0 + (source[3] + count) * count
        s0 = dy0 + (c_stride + count) * count if turned else x0
        c0 = part * per_part * count
        c1 = min(channels, c0 + per_part * count)
        zero_run(space, sums0, per_part * row_sums * count)
        slab_row = pitch * count
        tile_row = stride_w * count if few else (slab_row if taps > 1 else stride_h * slab_row)
        row_step, col_step = (1, _TILE) if few else (_TILE, 1)
        if turned:
            p_stride = count
        y_row = p_stride if few else width * p_stride
        pixels = (1, 0, 0, 1, count, source[5], source[6], count)
        for item in range(chunk * per_chunk, min(items, (chunk + 1) * per_chunk)):
            image, od, i0, q0, _ = _place(item, (slices, 1, row_strips, strip_rows, col_strips, strip_cols))
            i1, q1 = min(height, i0 + strip_rows), min(width, q0 + strip_cols)
            rows, cols = i1 - i0, q1 - q0
            for c in range(c0, c1, count):
                some = min(count, c1 - c)
                if turned:
                    _turn_planes(x, image * source[1] + c * source[3], source[3], some, space, x0)
                    _turn_planes(dy, image * n_stride + c * c_stride, c_stride, some, space, dy0)
                    _fill_pixels(space, x0, count, c == c0, space, s0, 1, 0, i0, i1, q0, q1, pixels, geometry, 0, 1)
                    some, y0, g = count, dy0, space
                else:
                    _fill_pixels(x, image * source[1] + c, some, c == c0, space, s0, slab_slices, od, i0, i1, q0, q1, source, geometry, before, dilation)
                    y0, g = image * n_stride + od * d_stride + (i0 * width + q0) * p_stride + c, dy
                for j in range(0, number, unroll):
                    sums_at = sums0 + ((c - c0) // count * row_sums + j * taps) * count
                    sums = load_tile(space, sums_at, count, vectors)
                    i = 0
                    while i < rows:
                        row0 = s0 + i * stride_h * slab_row
                        q = 0
                        while q < cols:
                            where = offsets(at, j, row0 + q * stride_w * count, unroll)
                            left = cols - q if few else rows - i
                            if left >= _TILE and some == count:
                                t = load_tile(g, y0 + (i * width + q) * p_stride, y_row, _TILE)
                                sums = correlate(sums, t, space, where, tile_row, taps, stride)
                            else:
                                t = load_tile_part(g, y0 + (i * width + q) * p_stride, y_row, _TILE, left, some, 0)
                                sums = correlate_part(sums, t, space, where, tile_row, taps, stride, min(left, _TILE), some, 0)
                            q += col_step
                        i += row_step
                    store_tile(space, sums_at, count, sums)
        to = chunk * chunk_stride
        for c in range(c0, c1, count):
            for i in range(row_sums):
                if order[i] >= 0:
                    store(space, k0 + order[i] * count, load(space, sums0 + ((c - c0) // count * row_sums + i) * count))
            for i in range(0, kernel, count):
                t = transpose(load_square(space, k0 + i * count, count))
                store_square_part(dw, to + c * kernel + i, kernel, t, min(count, c1 - c), kernel - i)

    @launcher(name=name)
    def launch(
        threads, chunks, work, items, per_chunk, channels, per_part, source, target, geometry, depth, at, number,
        order, few, x, dy, partial, dw, kernel, space, each,
    ):  # fmt: skip
        result = dw if chunks == 1 else partial
        parallel(block_body, work[1] * chunks, threads, (
            work, items, per_chunk, channels, per_part, source, target, geometry, depth, at, number, order, few, x,
            dy, result, kernel, dw.size, space, each,
        ))  # fmt: skip
        _add_chunks(chunks, partial, dw)

    return launch


# Kernel rows that a tile takes at a time, and how many such steps of the gradient stay in registers. Up to sixteen rows (and seven sums) that
# is faster than row by row, even where AVX2 has registers for half of them: 7x7 of 96 channels at 56x56 0.65 to 0.34 ms, its gradients 0.65 to
# 0.35 and 0.98 to 0.39, 13x13 in half of the time.
_UNROLL = {1: 8, 3: 3, 4: 4, 5: 3, 6: 3, **dict.fromkeys(range(7, 17), 1)}


@cache
def _kernel(form: str, taps: int, stride: int) -> Any:
    """Compiled for each number of kernel rows and stride as they turn up."""
    name = f"_{form}_{taps}_{stride}"
    makers: dict[str, Any] = {
        "planar": _planar, "pixelwise": _pixelwise, "turned": _turned,
        "planar_gradient": _planar_gradient, "pixelwise_gradient": _pixelwise_gradient,
        "turned_gradient": partial(_pixelwise_gradient, turned=True),
    }  # fmt: skip
    unroll = (_UNROLL[taps],) if form.endswith("gradient") else ()
    return makers[form](name, taps, stride, *unroll)


# ---- plans


class _Axis(NamedTuple):
    """One axis of the computation: each phase is (positions, taps, padding, dilation, which taps)."""

    phases: list[tuple[int, int, int, int, list[int]]]
    stride: int
    step: int

    @property
    def before(self) -> int:
        return max((p[2] for p in self.phases if p[1]), default=0)

    @property
    def reach(self) -> int:
        """Input positions from the first tap of any phase to the last of any."""
        return max((self.before - p[2] + (p[1] - 1) * p[3] + 1 for p in self.phases if p[1]), default=1)

    @property
    def coarse(self) -> int:
        """Positions of the longest phase."""
        return self.phases[0][0]

    def places(self, phase: int) -> list[tuple[int, int]]:
        """(offset in the padded input, tap) of each tap of a phase."""
        _, taps, before, dilation, chosen = self.phases[phase]
        return [(self.before - before + i * dilation, chosen[i]) for i in range(taps)]


def _axes(spec: ConvSpec, turned: bool) -> list[_Axis]:
    found = []
    for n, k, out, s, d, (before, _) in zip(spec.size, spec.kernel, spec.out_size, spec.stride, spec.dilation, spec.padding):
        if turned:
            phases = []
            for remainder, met in enumerate(_axis_phases(n, k, s, before, d)):
                met.reverse()  # in the order of dy
                first = met[0][0] if met else 0
                apart = met[1][0] - first if len(met) > 1 else 1
                phases.append((-(-(n - remainder) // s), len(met), -first, apart, [tap for _, tap in met]))
            found.append(_Axis(phases, 1, s))
        else:
            found.append(_Axis([(out, k, before, d, list(range(k)))], s, 1))
    return found


class _Slab:
    """How a direction cuts its work, and where taps and weights lie."""

    def __init__(self, spec: ConvSpec, axes: list[_Axis], ins: int, outs: int, pixelwise: bool, whole: bool = False) -> None:
        depth, rows, cols = axes
        self.lanes = LANES[spec.dtype]
        self.axes, self.ins = axes, ins
        self.few = rows.coarse < _FEW_ROWS
        self.slices = max(p[1] for p in depth.phases)
        stride = rows.stride
        steep = [p[1] for p in rows.phases] + [p[3] for p in rows.phases]
        descends = len(rows.phases) == 1 and not self.few and steep[0] in _UNROLL and steep[1] == 1 and stride <= 2
        self.taps = steep[0] if descends and steep[0] > 1 else 1
        self.stride = stride if self.taps > 1 else 1
        self.pixelwise = pixelwise
        unit = self.lanes if pixelwise else 1
        self.strip_rows, self.strip_cols = rows.coarse, cols.coarse
        planes = max(1, ins * self.slices)

        def size(strip_rows: int, strip_cols: int) -> int:
            pitch = self._pitch(strip_cols, pixelwise)
            return spec.itemsize * planes * ((strip_rows - 1) * stride + rows.reach) * pitch * (unit if pixelwise else cols.stride)

        while size(min(self.strip_rows, _TILE), self.strip_cols) > _LARGEST_SLAB_BYTES and self.strip_cols > 16 * self.lanes:
            self.strip_cols = up(-(-self.strip_cols // 2), self.lanes)
        fits = _TILE
        while fits + _TILE < rows.coarse and size(fits + _TILE, self.strip_cols) <= _SLAB_BYTES:
            fits += _TILE
        if size(rows.coarse, self.strip_cols) > _SLAB_BYTES and not whole:
            strips = -(-rows.coarse // fits)
            self.strip_rows = min(rows.coarse, up(-(-rows.coarse // strips), _TILE))
        self.row_strips, self.col_strips = -(-rows.coarse // self.strip_rows), -(-cols.coarse // self.strip_cols)
        self.pitch = self._pitch(self.strip_cols, pixelwise)
        self.slab_rows = (self.strip_rows - 1) * stride + rows.reach
        self.lead = 0 if pixelwise else up(-(-max(cols.before, 0) // cols.stride), self.lanes)
        row = self.pitch * (unit if pixelwise else cols.stride)
        # Behind the slab: the rows and columns that a tile reads in vain.
        spill = (0 if self.few else _TILE * stride * row) + (_TILE + 1) * unit * cols.stride * self.lanes
        self.count = up(self.lead + planes * self.slab_rows * row + spill, 16)
        self.geometry = (depth.stride, stride, cols.stride, rows.before, cols.before, rows.reach, cols.reach, self.slab_rows, self.pitch)

    def _pitch(self, strip_cols: int, pixelwise: bool) -> int:
        cols = self.axes[2]
        need = (strip_cols - 1) * cols.stride + cols.reach
        if pixelwise:
            return need
        # The zeros on the left of a row's first plane lie at the end of the last plane of the row before.
        longest = max(-(-need // cols.stride), need // cols.stride + (cols.before % cols.stride > 0))
        return up(longest, self.lanes) + (self.lanes if strip_cols < cols.coarse else 0)

    def place(self, channel: int, slices: int, t: int, u: int, v: int) -> int:
        """Where the tap with offsets (t, u, v) finds the first output position's input."""
        if self.pixelwise:
            return ((t * self.slab_rows + u) * self.pitch + v) * self.lanes
        stride, left = self.axes[2].stride, max(self.axes[2].before, 0)
        shift = -(-(left - v % stride) // stride)
        return (((channel * slices + t) * self.slab_rows + u) * stride + v % stride) * self.pitch + v // stride - shift

    def strips(self, slices: int, parts: int) -> tuple[int, ...]:
        return (slices, parts, self.row_strips, self.strip_rows, self.col_strips, self.strip_cols)


def _parts(groups: int, most: int, others: int) -> int:
    """Groups of a block: as many as pay, while enough blocks remain to go round."""
    blocks = max(1, -(-_MANY // others))
    return max(1, min(most, groups // blocks))


def _is_pixelwise(spec: ConvSpec) -> bool:
    return spec.channels_last and spec.groups == spec.channels == spec.out_channels


def _is_dense(spec: ConvSpec) -> bool:
    """Whether the gradient of the weights is a matter of output channels by taps, and not of single pairs of channels."""
    return spec.groups == 1 and spec.channels <= _FEW_CHANNELS and spec.out_channels >= 2 * LANE_ROWS and not spec.channels_last


def _is_shared(spec: ConvSpec, direction: str) -> bool:
    """Whether the forward pass is a product of the weights with the slab: many output channels see the same few input channels."""
    return direction == "forward" and spec.groups == 1 and spec.out_channels >= MR and not spec.channels_last


def _turned_pixels(spec: ConvSpec, direction: str) -> int | None:
    """Vectors of channels that a block of ``_turned`` holds; None where that form does not apply."""
    depth = (spec.size[0], spec.kernel[0], spec.out_size[0], spec.stride[0])
    if spec.channels_last or not spec.groups == spec.channels == spec.out_channels or depth != (1, 1, 1, 1) or spec.padding[0] != (0, 0):
        return None
    slab = 1
    for n, k, out, s, d in zip(spec.size[1:], spec.kernel[1:], spec.out_size[1:], spec.stride[1:], spec.dilation[1:]):
        slab *= -(-n // s) + (k - 1) * d // s + 2 if direction == "grad_input" else (out - 1) * s + (k - 1) * d + 1
    return prod(spec.size) + prod(spec.out_size) + slab


def _is_turned(spec: ConvSpec, direction: str) -> bool:
    """Whether to turn small planes to channels last: where that is faster and fits in L2."""
    pixels = _turned_pixels(spec, direction)
    if pixels is None or pixels * LANES[spec.dtype] * spec.itemsize > _TURNED_BYTES:
        return False
    return _turned_nanoseconds(spec, direction) < _rows_nanoseconds(spec, direction)


def _tiles(spec: ConvSpec, direction: str, across: int) -> tuple[int, float]:
    """Tiles of a plane with ``across`` columns in a vector, of all phases, and the time of a multiply-add of a tile's row."""
    turned = direction == "grad_input"
    size, strided = (spec.size, spec.stride) if turned else (spec.out_size, (1, 1, 1))
    rows, cols = (-(-n // s) for n, s in zip(size[1:], strided[1:]))
    tiles = rows * -(-cols // (_TILE * across)) if rows < _FEW_ROWS else -(-rows // _TILE) * -(-cols // across)
    steep = spec.kernel[1] in _UNROLL and spec.dilation[1] == 1 and spec.stride[1] <= (1 if turned else 2) and rows >= _FEW_ROWS
    # Fitted on a Zen 4: VGG-16's first layer takes 78 ns a tile of 27 taps, MobileNetV2's, with stride 2, 138.
    slower = 1.0 if FMAS_PER_CYCLE == 2 else 1.5 if spec.stride[2] == 1 or not _is_dense(spec) else 2.7
    return prod(min(s, n) for s, n in zip(strided[1:], size[1:])) * tiles, slower * (0.16 if steep else 0.28)


def _turned_nanoseconds(spec: ConvSpec, direction: str) -> float:
    """As _rows_nanoseconds, of the form that turns planes."""
    tiles, each = _tiles(spec, direction, 1)
    pixels = prod(spec.size) + prod(spec.out_size)
    inside = spec.flops / 2 / max(1, spec.batch * spec.channels * prod(spec.size if direction == "grad_input" else spec.out_size))
    units = spec.batch * -(-spec.channels // LANES[spec.dtype])
    return float(units * (100.0 + 1.4 * pixels + tiles * (8.0 + 1.25 * each * _TILE * inside)))


def _dense_nanoseconds(spec: ConvSpec) -> float:
    """Time of one thread: 17 cycles for a step of a tile of sums (45 on a Zen 4), 330 to fetch the tile and to put it back."""
    tiles = -(-spec.out_channels // LANE_ROWS) * -(-spec.channels * prod(spec.kernel) // LANE_COLS)
    depth, rows, cols = spec.out_size
    step = 17.0 if FMAS_PER_CYCLE == 2 else 45.0
    strips = rows * -(-cols // LANES[spec.dtype]) * step + -(-rows // _TILE) * 330.0
    return spec.batch * depth * tiles * strips / CYCLES_PER_NS


def _shared_nanoseconds(spec: ConvSpec) -> float:
    """Time of one thread: a vector of an output channel takes a multiply-add for each tap, and six more cycles' worth."""
    depth, rows, cols = spec.out_size
    lanes_, taps = LANES[spec.dtype], spec.channels * prod(spec.kernel)
    cycles = 1.1 * spec.batch * depth * rows * spec.out_channels * -(-cols // lanes_) * (taps + 6) / FMAS_PER_CYCLE
    # Strides above 2 are taken apart number by number.
    copied = spec.batch * spec.channels * prod(spec.size) * (1.0 if spec.stride[2] > 2 else 2.5 / lanes_)
    return cycles / CYCLES_PER_NS + copied


def _nanoseconds(spec: ConvSpec, direction: str) -> float:
    """Time of one thread, of the form that is chosen."""
    if pixels.applies(spec, direction):
        return pixels.nanoseconds(spec, direction)
    if _is_shared(spec, direction):
        return _shared_nanoseconds(spec)
    if direction == "grad_weight" and _is_dense(spec):
        return _dense_nanoseconds(spec)
    if _is_turned(spec, direction):
        return _turned_nanoseconds(spec, direction)
    # Without groups every output channel runs over the whole slab, and dx gathers from planes that have left the cache.
    shared = (1.6 if direction == "grad_input" else 1.15) if _is_dense(spec) else 1.0
    return shared * _rows_nanoseconds(spec, direction)


def _rows_nanoseconds(spec: ConvSpec, direction: str) -> float:
    """Time of one thread, from measured times of a tile, of a multiply-add in it and of a plane."""
    turned = direction == "grad_input"
    size, outs = (spec.size, spec.channels) if turned else (spec.out_size, spec.out_channels)
    lanes_ = LANES[spec.dtype]
    pixelwise = _is_pixelwise(spec)
    tiles, row = _tiles(spec, direction, 1 if pixelwise else lanes_)
    inside = spec.flops / 2 / max(1, spec.batch * outs * prod(size))
    planes = spec.batch * size[0] * (-(-outs // lanes_) if pixelwise else outs)
    each = tiles * (15.0 + row * _TILE * inside)
    per_group = spec.channels // spec.groups
    if direction == "grad_weight":
        each = 1.1 * each + per_group * (30.0 + 8.0 * tiles)
    if spec.channels_last and not pixelwise:
        each += prod(size[1:]) * 8.0
    source = (spec.out_channels * prod(spec.out_size)) if turned else spec.channels * prod(spec.size)
    return float(planes * (20.0 + each) + spec.batch * source / lanes_ * (1.0 if spec.stride[2] == 1 or turned else 2.5))


class _Convolution:
    """forward, and the gradient with respect to the input."""

    def __init__(self, spec: ConvSpec, direction: str, activation: int) -> None:
        turned = direction == "grad_input"
        x, y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        self.source, self.target = (y, x) if turned else (x, y)
        ins, outs = self.source.channels, self.target.channels
        axes = _axes(spec, turned)
        self.shared = _is_shared(spec, direction)
        self.turned = not self.shared and _is_turned(spec, direction)
        self.pixelwise = self.turned or _is_pixelwise(spec)
        self.slab = slab = _Slab(spec, axes, ins, outs, self.pixelwise, whole=self.turned)
        if self.shared:
            slab.taps = 1  # each step has its place in the table
        self.spec, self.dtype, self.itemsize, self.groups = spec, spec.dtype, spec.itemsize, spec.groups
        self.activation = activation_entry(activation, spec.dtype)
        taps = prod(spec.kernel)
        self.taps = taps
        w_in = x.channels * taps if turned else taps
        self.w_group, self.w_out = y.channels * x.channels * taps, (taps if turned else x.channels * taps)
        unit = slab.lanes if self.pixelwise else 1
        # Kernel rows in the order of the slab's: turned for a gradient.
        self.w_row = (-1 if turned else 1) * spec.kernel[2] * unit
        at: list[int] = []
        wt: list[int] = []
        pieces: list[int] = []
        depths: list[int] = []
        for d, (_, slices, before, dilation, _) in enumerate(axes[0].phases):
            depths += [slices, before, dilation]
            for rem_h, rem_w in grid_of(range(axes[1].step), range(axes[2].step)):
                first = len(at)
                if rem_h < len(axes[1].phases) and rem_w < len(axes[2].phases):
                    rows = axes[1].places(rem_h)
                    for c, (t, (_, tap_d)), (u, tap_h), (v, tap_w) in grid_of(
                        range(ins), enumerate(axes[0].places(d)), rows[:1] if slab.taps > 1 else rows, axes[2].places(rem_w)
                    ):  # fmt: skip
                        at.append(slab.place(c, slices, t, u, v))
                        wt.append((c * w_in + (tap_d * spec.kernel[1] + tap_h) * spec.kernel[2] + tap_w) * unit)
                counts = [max(0, -(-(n - rem) // axis.step)) for n, rem, axis in zip(self.target.dims[5:7], (rem_h, rem_w), axes[1:])]
                pieces += [first, len(at), *counts]
        self.at, self.wt = np.array(at, np.intp), np.array(wt, np.intp)
        self.pieces, self.depths = np.array(pieces, np.intp), np.array(depths, np.intp)
        step_w = axes[2].step
        self.steps = (axes[0].step, axes[1].step, step_w, axes[1].coarse, axes[2].coarse, int(slab.few))
        depth = self.target.dims[0]
        strips = spec.batch * depth * slab.row_strips * slab.col_strips
        self.work_ns = _nanoseconds(spec, direction)
        units = -(-spec.channels // slab.lanes) if self.pixelwise else spec.groups
        # Some 20 us of work in a block.
        most = max(1, int(20_000 * strips * units / self.work_ns))
        self.per_part = _parts(units, most, strips)
        parts = -(-units // self.per_part)
        self.work = slab.strips(depth, parts)
        self.blocks = strips * parts
        if self.turned:
            # Neighbouring units are images of the same channels: their weights are turned once.
            self.per_block = _parts(spec.batch * units, most, 1)
            self.blocks = -(-spec.batch * units // self.per_block)
            extra = (taps + self.source.dims[3] + self.target.dims[3] + 3 * slab.lanes) * slab.lanes
        elif self.pixelwise:
            extra = (taps + 2 * slab.lanes) * slab.lanes
        else:
            p_stride = self.target.dims[4]
            extra = step_w * (slab.strip_rows + _TILE) * (up(slab.strip_cols, slab.lanes) + (_TILE * slab.lanes if slab.few else 0))
            if step_w == 1 and p_stride == 1:
                extra = 0
        self.each = up(slab.count + extra + 8 * slab.lanes, 16)
        self.kernel = _shared if self.shared else _kernel("turned" if self.turned else "pixelwise" if self.pixelwise else "planar", slab.taps, slab.stride)

    def workspace(self, threads: int) -> int:
        return self.itemsize * threads * self.each

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: Any = None) -> None:
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        threads = min(_threads.threads_for(self.work_ns), self.blocks)
        space = scratch(threads * self.each, self.dtype)
        slab = self.slab
        if self.shared:
            self.kernel(
                threads, self.blocks, self.work, self.source.dims, self.target.dims, (*slab.geometry, slab.lead), self.steps[3:5], self.depths, self.at,
                x, w, y, bias, self.activation, space, self.each,
            )  # fmt: skip
            return
        if self.turned:
            self.kernel(
                threads, self.blocks, self.per_block, self.spec.batch, self.groups, self.source.dims, self.target.dims, slab.geometry, self.steps,
                self.pieces, self.at, self.wt, x, w, self.taps, self.w_row, y, bias, self.activation, space, self.each,
            )  # fmt: skip
            return
        if self.pixelwise:
            self.kernel(
                threads, self.blocks, self.work, self.groups, self.per_part, self.source.dims, self.target.dims, slab.geometry, self.steps, self.depths,
                self.pieces, self.at, self.wt, x, w, self.taps, self.w_row, y, bias, self.activation, space, self.each,
            )  # fmt: skip
            return
        self.kernel(
            threads, self.blocks, self.work, self.groups, self.per_part, self.source.dims, self.source.group, self.target.dims, self.target.group,
            (*slab.geometry, slab.lead), self.steps, self.depths, self.pieces, self.at, self.wt, x, w, self.w_group, self.w_out, self.w_row,
            y, bias, self.activation, space, self.each,
        )  # fmt: skip


class _WeightGradient:
    def __init__(self, spec: ConvSpec) -> None:
        self.x, self.y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        ins, outs = self.x.channels, self.y.channels
        axes = _axes(spec, False)
        self.turned = _is_turned(spec, "grad_weight")
        self.pixelwise = self.turned or _is_pixelwise(spec)
        self.slab = slab = _Slab(spec, axes, ins, outs, self.pixelwise, whole=self.turned)
        self.dtype, self.itemsize, self.groups = spec.dtype, spec.itemsize, spec.groups
        self.taps = taps = prod(spec.kernel)
        self.w_group, self.w_out = outs * ins * taps, ins * taps
        slices = spec.kernel[0]
        self.dense = _is_dense(spec) and not slab.few
        if self.dense:
            slab.taps = 1
        unroll = LANE_COLS if self.dense else _UNROLL[slab.taps]
        at: list[int] = []
        by_step: list[list[int]] = []
        rows = axes[1].places(0)
        down = rows[:1] if slab.taps > 1 else rows
        for c, t, (u, r), (v, s) in grid_of(range(ins), range(slices), down, axes[2].places(0)):
            at.append(slab.place(c, slices, t, u, v))
            by_step.append([c * taps + (t * spec.kernel[1] + r + i) * spec.kernel[2] + s for i in range(slab.taps)])
        while len(at) % unroll:
            at.append(at[-1])
            by_step.append([-1] * slab.taps)
        self.number = len(at)
        # The sums of some steps: kernel row by kernel row, in each a sum for every step.
        order = [by_step[j + u][i] for j in range(0, len(at), unroll) for i in range(slab.taps) for u in range(unroll)]
        if self.dense:
            tiles = range(0, len(at), unroll)
            order = [-1 if by_step[j + u][0] < 0 else i * self.w_out + by_step[j + u][0] for j in tiles for i in range(LANE_ROWS) for u in range(unroll)]
            outs = up(outs, LANE_ROWS)
        self.in_order = order == list(range(ins * taps))
        self.at, self.order = np.array(at, np.intp), np.array(order, np.intp)
        self.depth = (slices, spec.padding[0][0], spec.dilation[0])
        self.items = spec.batch * spec.out_size[0] * slab.row_strips * slab.col_strips
        self.work_ns = _nanoseconds(spec, "grad_weight")
        units = -(-spec.channels // slab.lanes) if self.pixelwise else spec.groups
        sums = self.number * slab.taps * (1 if self.pixelwise else outs) * slab.lanes
        most = max(1, _SUMS_BYTES // (sums * spec.itemsize))
        self.per_part = _parts(units, most, 1)
        parts = -(-units // self.per_part)
        # Fixed by the shape alone: it decides in which order the pixels are added.
        chunks = min(self.items, -(-_MANY // parts)) if parts < _MANY else 1
        self.per_chunk = -(-self.items // chunks)
        self.chunks = -(-self.items // self.per_chunk)
        self.work = slab.strips(spec.out_size[0], parts)
        self.blocks = parts * self.chunks
        self.weights = prod(spec.weight_shape)
        self.channels = spec.channels
        extra = slab.strip_rows * up(slab.strip_cols, slab.lanes) if spec.channels_last and not self.pixelwise else 0
        if self.pixelwise:
            extra = (taps + slab.lanes) * slab.lanes
        if self.turned:
            extra += (self.x.dims[3] + self.y.dims[3] + 2 * slab.lanes) * slab.lanes
        self.each = up(slab.count + extra + self.per_part * sums + (slab.lanes + 8) * slab.lanes, 16)
        self.kernel = _kernel("turned_gradient" if self.turned else "pixelwise_gradient" if self.pixelwise else "planar_gradient", slab.taps, slab.stride)

    def _partial(self) -> int:
        return up(self.chunks * self.weights, 16) if self.chunks > 1 else 0

    def workspace(self, threads: int) -> int:
        return self.itemsize * (self._partial() + threads * self.each)

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
        threads = min(_threads.threads_for(self.work_ns), self.blocks)
        memory = scratch(self._partial() + threads * self.each, self.dtype)
        partial, space = memory[: self._partial()], memory[self._partial() :]
        slab = self.slab
        if self.dense:
            _dense_gradient(
                threads, self.chunks, self.work, self.items, self.per_chunk, self.x.dims, self.y.dims, (*slab.geometry, slab.lead), self.depth,
                self.at, self.number, self.order, x, dy, partial, dw, self.w_out, space, self.each,
            )  # fmt: skip
            return
        if self.pixelwise:
            self.kernel(
                threads, self.chunks, self.work, self.items, self.per_chunk, self.channels, self.per_part, self.x.dims, self.y.dims, slab.geometry, self.depth,
                self.at, self.number, self.order, int(slab.few), x, dy, partial, dw, self.taps, space, self.each,
            )  # fmt: skip
            return
        self.kernel(
            threads, self.chunks, self.work, self.items, self.per_chunk, self.groups, self.per_part, self.x.dims, self.x.group, self.y.dims, self.y.group,
            (*slab.geometry, slab.lead), self.depth, self.at, self.number, self.order, int(self.in_order),
            int(slab.few), x, dy, partial, dw, self.w_group, self.w_out, space, self.each,
        )  # fmt: skip


_MOST_CHANNELS = 16


def _accepts(spec: ConvSpec, direction: str) -> str | None:
    ins, outs = spec.channels // spec.groups, spec.out_channels // spec.groups
    if ins > _FEW_CHANNELS and (ins > _MOST_CHANNELS or outs > _MOST_CHANNELS):
        return f"a group has {ins} input and {outs} output channels; it takes {_FEW_CHANNELS} input channels, or at most {_MOST_CHANNELS} of each"
    if direction == "grad_weight" and _is_dense(spec) and prod(spec.weight_shape) * LANES[spec.dtype] * spec.itemsize > _DENSE_SUMS_BYTES:
        return f"a vector of sums for each of {prod(spec.weight_shape):,} weights does not stay in the cache"
    return None


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    return 3_000 + _nanoseconds(spec, direction) / threads


def _plan(spec: ConvSpec, direction: str, activation: int) -> Plan:
    if pixels.applies(spec, direction):
        return pixels.Pixels(spec, direction, activation).plan()
    return Plan(_Convolution(spec, direction, activation).run)


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    if pixels.applies(spec, direction):
        return pixels.workspace(spec)
    if direction == "grad_weight":
        return _WeightGradient(spec).workspace(threads)
    return _Convolution(spec, direction, 0).workspace(threads)


STRATEGY = Strategy(
    name="depthwise",
    accepts=_accepts,
    cost=_cost,
    workspace=_workspace,
    forward=lambda spec, activation: _plan(spec, "forward", activation),
    grad_input=lambda spec, activation: _plan(spec, "grad_input", activation),
    grad_weight=lambda spec: _WeightGradient(spec).run,
)
