"""Convolution as a matrix product whose left matrix is never made.

im2col writes a matrix with a row for each output pixel and a column for each tap of each input channel, then
multiplies it with the weights. But that matrix holds nothing new: its element at (pixel, tap) is x at

    offset(pixel) + offset(tap),

so two short tables stand for it, and the inner product (``simd/product.py: table_product``) reads x through them. A
register tile is eight pixels by two vectors of output channels. Any stride, dilation, kernel and rank is a matter of
what the tables hold.

Each block of work first copies the part of x under its pixels, with the zeros of the padding, into a slab that fits L2,
so that the product meets no edges and no other image's rows compete for its cache lines.

The gradient with respect to x is a sum over taps of dy at (pixel + padding - tap) / stride, where that is whole. For
each remainder of the pixel modulo the stride the taps that count form a grid again: a convolution of dy with stride 1
and some of the weights, whose pixels are scattered ``stride`` apart in dx. The gradient with respect to the weights
exchanges the tables: taps are rows, pixels are steps, and dy takes the place of the weights.

This is the idea of implicit GEMM (S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning", arXiv:1410.0759,
2014, section 3.1) and of the indirect convolution (M. Dukhan, arXiv:1907.02129, 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from itertools import product as grid_of
from math import prod
from typing import NamedTuple

import numpy as np
from numba import types

from fastops import _threads
from fastops._jit import address_of, call, call_at, function, launcher, parallel, separate
from fastops._memory import empty
from fastops.ops.conv.layout import side, up
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, KC, LANES, LARGE_CORE, MR, NV, panel_width
from fastops.simd.finish import activate, activation_entry
from fastops.simd.order import first_of, second_of
from fastops.simd.pack import copy_run, pack_panels
from fastops.simd.product import table_product
from fastops.simd.vector import (
    deinterleave,
    lanes,
    load,
    load_between,
    load_part,
    load_square,
    load_square_part,
    prefetch,
    splat,
    store,
    store_pairs_part,
    store_part,
    store_square_part,
    store_tile,
    tile_add,
    transpose,
)
from fastops.simd.workspace import scratch

# The most steps of a chunk of the product: what is read of the image comes and goes beside a panel, which should stay in L1. On a Granite
# Rapids (48 KB) 64 to 128 channels, 3x3 of stride 2 at 56x56, run at 178 GFLOP/s by 256 steps and at 190 by 192.
STEPS = 192 if LARGE_CORE else KC
# Packed weights beyond this come from L3 or memory, and are asked for ahead: 512 channels at 7x7 with weights prepared ahead and from memory
# 2.0 ms on a Granite Rapids, so 1.24.
_FAR_BYTES = 2 << 20
# The mark of a phase that its partner writes.
PAIRED = -2


@function
def zero_run(out, start, count):
    zero = splat(out, out.dtype.type(0))
    step = lanes(out)
    i = 0
    while count - i >= step:
        store(out, start + i, zero)
        i += step
    if i < count:
        store_part(out, start + i, zero, count - i)


@separate
def fill_slab(x, x0, c0, channels, c_pitch, g0, g1, q0, q1, source, window, grid, slab_h, slab_w, slab, s0, no_rows, no_cols):
    """Copies the input under output rows g0..g1, columns q0..q1, of channels c0 and following, zeros where there is none.

    Slabs are (channels, T, slab_h, slab_w), or (T, slab_h, slab_w, c_pitch) where x has channels last. Rows of several
    images follow one another. Whole rows, or columns, above and beside the image are left as they are where nobody reads them:
    of a dilation of 12 at 28x28 they are most of it, and took 0.06 of 0.99 ms.
    """
    depth, n_stride, d_stride, c_stride, p_stride, height, width, _ = source
    taps_d, taps_h, taps_w, stride_d, stride_h, stride_w, front, top, left, dilation_d, dilation_h, dilation_w = window
    out_d, out_h, _, _, _, _ = grid
    w0 = q0 * stride_w - left
    cols = (q1 - q0 - 1) * stride_w + (taps_w - 1) * dilation_w + 1
    inside0, inside1 = min(cols, max(0, -w0)), max(0, min(cols, width - w0))
    inside1 = max(inside0, inside1)
    reach = (taps_h - 1) * dilation_h + 1
    channels_first = c_stride != 1 or p_stride == 1
    count = lanes(x)
    zero = splat(x, x.dtype.type(0))
    plane = taps_d * slab_h * slab_w
    at = 0
    g = g0
    while g < g1:
        image, p0 = g // out_h, g % out_h
        p1 = min(out_h, p0 + g1 - g)
        base = x0 + image // out_d * n_stride + c0 * c_stride
        rows = (p1 - p0 - 1) * stride_h + reach
        for t in range(taps_d):
            d = image % out_d * stride_d - front + t * dilation_d
            for i in range(rows):
                if i % stride_h >= reach:
                    continue
                h = p0 * stride_h - top + i
                outside = h < 0 or h >= height
                if outside and no_rows:
                    continue
                empty = outside or d < 0 or d >= depth
                row = base + d * d_stride + h * width * p_stride
                if channels_first:
                    # Rows of a slab start at whole vectors, so that each vector is stored whole, padding and all.
                    for v in range(inside0 // count * count if no_cols else 0, inside1 if no_cols else cols, count):
                        to = s0 + (t * slab_h + at + i) * slab_w + v
                        for c in range(channels):
                            if empty:
                                store(slab, to, zero)
                            else:
                                store(slab, to, load_between(x, row + c * c_stride + w0 + v, inside0 - v, inside1 - v))
                            to += plane
                else:
                    to = s0 + (t * slab_h + at + i) * slab_w * c_pitch
                    for j in range(cols):
                        if empty or j < inside0 or j >= inside1:
                            zero_run(slab, to, channels)
                        else:
                            copy_run(x, row + (w0 + j) * p_stride, slab, to, channels)
                        to += c_pitch
        at += rows
        g += p1 - p0


@separate
def fill_pixels(table, t0, g0, g1, q0, q1, window, grid, slab_w, unit):
    """table[t0 + i]: where pixel i's first tap lies in a slab, under columns counted from its first; unit is the distance of neighbouring columns."""
    stride_h, stride_w = window[4], window[5]
    reach = (window[1] - 1) * window[10] + 1
    out_h = grid[1]
    at = 0
    i = t0
    g = g0
    while g < g1:
        p0 = g % out_h
        p1 = min(out_h, p0 + g1 - g)
        for p in range(p1 - p0):
            for q in range(q0, q1):
                table[i] = ((at + p * stride_h) * slab_w + q * stride_w) * unit
                i += 1
        at += (p1 - p0 - 1) * stride_h + reach
        g += p1 - p0


@separate
def pack_phases(block, worker, w, w0, k_stride, c_stride, taps, phases, chosen, outs, ins, c_chunk, u, space, each):
    """A panel of weights for every phase: u[phase][panel][in channel][tap][NR out channels], or [chunk of channels][tap][in channel].

    A row of ``phases``: taps, the first of them in ``chosen``, where they go in u, whether channels lie inside taps.
    """
    count = lanes(w)
    width = NV * count
    s0 = worker * each
    if taps == 1:  # a transposed matrix, and nothing to be sorted: 512 x 256 weights in 0.02 ms, by kernels 0.39
        for phase in range(phases.shape[0]):
            if phases[phase, 0] == 1:
                call(pack_panels, (block, worker, w, w0, c_stride, k_stride, ins, outs, u[phases[phase, 2] :]))
        return
    for v in range(0, width, count):
        k = block * width + v
        some = max(0, min(count, outs - k))
        for c0 in range(0, ins, c_chunk):
            channels = min(c_chunk, ins - c0)
            for c in range(channels):
                row = w0 + (c0 + c) * c_stride + k * k_stride
                together = taps == 4 and k_stride == 4 and some == count
                if together:
                    # Kernels of 2x2 one behind the other, as those of a transposed convolution: taken apart twice by even and odd, and
                    # not by squares of which a quarter is theirs: 1024 to 512 channels at 16x16 take 5.8 ms instead of 8.5.
                    for i in range(0, 4 * count, count):
                        prefetch(w, row + 8 * c_stride + i)
                    low, high = deinterleave(load(w, row), load(w, row + count)), deinterleave(load(w, row + 2 * count), load(w, row + 3 * count))
                    store_tile(space, s0, 2 * count, deinterleave(first_of(low), first_of(high)))
                    store_tile(space, s0 + count, 2 * count, deinterleave(second_of(low), second_of(high)))
                else:
                    for i in range(count):
                        prefetch(w, row + 8 * c_stride + i * k_stride)
                for i in range(0, 0 if together else taps, count):
                    if taps - i == 1:  # as the last of 9, 25 and 49 is for 8 lanes
                        store(space, s0 + i * count, splat(w, w.dtype.type(0)))
                        for j in range(some):
                            space[s0 + i * count + j] = w[row + i + j * k_stride]
                    else:
                        store_tile(space, s0 + i * count, count, transpose(load_square_part(w, row + i, k_stride, some, taps - i)))
                for phase in range(phases.shape[0]):
                    n, first, u0, inside = phases[phase, 0], phases[phase, 1], phases[phase, 2], phases[phase, 3] != 0
                    to = u0 + ((block * ins + c0) * n + c * (1 if inside else n)) * width + v
                    tap_step = (channels if inside else 1) * width
                    for j in range(n):
                        store(u, to + j * tap_step, load(space, s0 + chosen[first + j] * count))


@separate
def put_pixels(m, m0, partner, k0, g0, g1, q0, q1, target, grid, limit_d, limit_h, limit_w, first_d, first_h, first_w, y, y0):
    """Writes a block of finished pixels, NR channels each, to the output image.

    The block's pixels are those of ``grid``; a phase has only ``limit`` of them and starts at ``first``. With a stride of
    2, ``partner`` is where the pixels between these lie in m, or -1.
    """
    count = lanes(y)
    width = NV * count
    _, n_stride, d_stride, c_stride, p_stride, _, out_width, channels = target
    out_d, out_h, _, step_d, step_h, step_w = grid
    rows = step_h == 1 and step_w == 1 and q1 - q0 == out_width
    end = min(q1, limit_w)
    at = m0
    g = g0
    while g < g1:
        image, p0 = g // out_h, g % out_h
        # Whole rows of the output lie one behind the other; others go one by one.
        p1 = min(out_h, p0 + g1 - g) if rows else p0 + 1
        if p0 < limit_h and image % out_d < limit_d:
            pixels = (p1 - p0) * (end - q0)
            base = y0 + image // out_d * n_stride + (image % out_d * step_d + first_d) * d_stride
            base += ((p0 * step_h + first_h) * out_width + q0 * step_w + first_w) * p_stride
            for v in range(0, min(width, channels - k0), count):
                some = min(count, channels - k0 - v)
                to = base + (k0 + v) * c_stride
                source = at + v
                if c_stride == 1:
                    for i in range(pixels):
                        store_part(y, to + i * step_w * p_stride, load(m, source + i * width), some)
                elif step_w == 1:
                    i = 0
                    while pixels - i >= count and some == count:
                        store_tile(y, to + i, c_stride, transpose(load_square(m, source + i * width, width)))
                        i += count
                    while i < pixels:
                        store_square_part(y, to + i, c_stride, transpose(load_square(m, source + i * width, width)), some, pixels - i)
                        i += count
                elif partner >= 0:
                    between = min(2 * pixels, out_width - (q0 * step_w + first_w))
                    for i in range(0, pixels, count):
                        a = transpose(load_square(m, source + i * width, width))
                        b = transpose(load_square(m, source + partner - m0 + i * width, width))
                        store_pairs_part(y, to + 2 * i, c_stride, a, b, some, between - 2 * i)
                else:
                    for k in range(some):
                        for i in range(pixels):
                            y[to + k * c_stride + i * step_w] = m[source + i * width + k]
        at += (p1 - p0) * (q1 - q0) * width
        g += p1 - p0


@function
def _inside(start, extent, tap_at, t0, taps):
    """First and end of the taps that see the image from a window that starts there; taps lie in ascending order."""
    first = 0
    while first < taps and start + tap_at[t0 + first] < 0:
        first += 1
    last = first
    while last < taps and start + tap_at[t0 + last] < extent:
        last += 1
    return first, last


@function
def _zone(q, q1, width, left, tap_at, t0, taps):
    """The end of the columns from q on that see the same columns of taps; and first and end of those. Without t0 all do."""
    if t0 < 0:
        return q1, 0, taps
    first, last = _inside(q - left, width, tap_at, t0, taps)
    end = q + 1
    while end < q1 and _inside(end - left, width, tap_at, t0, taps) == (first, last):
        end += 1
    return end, first, last


@separate
def product_inside(
    g0, g1, q0, q1, height, width, out_h, top, left, tap_at, row0, rows, col0, cols, channels, steps, step0, u, b0, space, s0, tables, t0, at, started,
):  # fmt: skip
    """The product of a slab with a panel, without the taps that lie in the padding.

    Pixels come in zones of columns that see the same columns of taps, steps as (row of taps, tap of the row, channel).
    """
    nr = NV * lanes(u)
    q, i = q0, 0
    while q < q1:
        q_end, left_tap, right_tap = _zone(q, q1, width, left, tap_at, col0, cols)
        across, depth = q_end - q, (right_tap - left_tap) * channels
        g = g0
        while g < g1:
            first, last = _inside(g % out_h - top, height, tap_at, row0, rows)
            end = g + 1
            while end < g1 and _inside(end % out_h - top, height, tap_at, row0, rows) == (first, last):
                end += 1
            pixels = (end - g) * across
            if (first == last or depth == 0) and not started:
                zero_run(space, at + i * nr, pixels * nr)
            for r in range(first, last):
                k0 = (r * cols + left_tap) * channels
                for k in range(0, depth, STEPS):
                    more = started or r > first or k > 0
                    call(
                        table_product,
                        (
                            pixels, min(STEPS, depth - k), space, s0, tables, t0 + i, steps, step0 + k0 + k, u, b0 + (k0 + k) * nr, nr,
                            space, at + i * nr, nr, more, False,
                        ),
                    )  # fmt: skip
            i += pixels
            g = end
        q = q_end


@cache
def _inside_at(dtype: str) -> int:
    """The machine code of ``product_inside``: compiled for the first convolution that skips."""
    numbers, table, at = types.Array(getattr(types, dtype), 1, "C"), types.Array(types.intp, 1, "C"), types.intp
    return address_of(
        product_inside, *[at] * 9, table, *[at] * 5, table, at, numbers, at, numbers, at, types.Array(types.int64, 1, "C"), at, at, types.boolean,
    )  # fmt: skip


@separate
def forward_block(
    block, worker, column_blocks, panels, rows, cols, total, source, target, window, grid, slab_h, slab_w, c_chunk, x,
    x0, phases, steps, tap_at, inside_at, u, w, w0, k_stride, y, y0, bias, bias0, activation, space, each, tables, tables_each,
):  # fmt: skip
    """Some output pixels of some panels of output channels, in all phases.

    Block number: (rows, columns, part of the panels). A row of ``phases``: taps, first of its steps, where its weights
    start in u, extents and first position of its pixels, the phase of the pixels between. u is empty where weights are
    few and far: then each panel is packed from w right here.
    """
    count = lanes(y)
    width = NV * count
    ins, outs = source[7], target[7]
    panel_count = (outs + width - 1) // width
    parts = (panel_count + panels - 1) // panels
    part, block = block % parts, block // parts
    q0 = block % column_blocks * cols
    q1 = min(grid[2], q0 + cols)
    g0 = block // column_blocks * rows
    g1 = min(total, g0 + rows)
    pixels = (g1 - g0) * (q1 - q0)
    first_panel, last_panel = part * panels, min(panel_count, (part + 1) * panels)
    m_each = (rows * cols + count) * width
    m0 = worker * each
    packed0 = m0 + phases.shape[0] * panels * m_each
    s0 = packed0 + (STEPS * width if u.size == 0 else 0)
    t0 = worker * tables_each
    channels_last = source[3] == 1 and source[4] != 1
    unit = c_chunk if channels_last else 1
    skips, left, image_w = inside_at != 0, window[8], source[6]
    far = u.size * u.itemsize > _FAR_BYTES
    col0, tap_cols = phases[0, 12], phases[0, 13]
    q, zone = q0, t0
    while q < q1:
        q_end, _, _ = _zone(q, q1, image_w, left, tap_at, col0, tap_cols)
        call(fill_pixels, (tables, zone, g0, g1, q - q0, q_end - q0, window, grid, slab_w, unit))
        zone += (g1 - g0) * (q_end - q)
        q = q_end
    for c0 in range(0, ins, c_chunk):
        channels = min(c_chunk, ins - c0)
        call(fill_slab, (x, x0, c0, channels, c_chunk, g0, g1, q0, q1, source, window, grid, slab_h, slab_w, space, s0, skips, skips and col0 >= 0))
        for phase in range(phases.shape[0]):
            taps = phases[phase, 0]
            depth = channels * taps
            if taps == 0:
                continue
            # A panel of B stays in L1: about STEPS at a time, whole channels where a channel has fewer taps.
            chunk = STEPS if taps > STEPS else STEPS // taps * taps
            for panel in range(first_panel, last_panel):
                at = m0 + (phase * panels + panel - first_panel) * m_each
                b0 = phases[phase, 2] + (panel * ins + c0) * taps * width
                if skips:
                    # The steps of the last chunk, which may have fewer channels, lie behind those of the others.
                    step0 = phases[phase, 1] + (taps * c_chunk if channels < c_chunk else 0)
                    call_at(
                        inside_at,
                        (
                            g0, g1, q0, q1, source[5], image_w, grid[1], window[7], left, tap_at, phases[phase, 10], phases[phase, 11],
                            col0, tap_cols, channels, steps, step0, u, b0, space, s0, tables, t0, at, c0 > 0,
                        ),
                    )  # fmt: skip
                    continue
                for k in range(0, depth, chunk):
                    n = min(chunk, depth - k)
                    step0 = phases[phase, 1] + k
                    if u.size > 0:
                        call(table_product, (pixels, n, space, s0, tables, t0, steps, step0, u, b0 + k * width, width, space, at, width, c0 > 0 or k > 0, far))
                    else:
                        call(
                            pack_panels,
                            (
                                0,
                                worker,
                                w,
                                w0 + panel * width * k_stride + c0 * taps + k,
                                1,
                                k_stride,
                                n,
                                outs - panel * width,
                                space[packed0 : packed0 + n * width],
                            ),
                        )
                        call(table_product, (pixels, n, space, s0, tables, t0, steps, step0, space, packed0, width, space, at, width, c0 > 0 or k > 0, False))
    zero = splat(y, y.dtype.type(0))
    for panel in range(first_panel, last_panel):
        k0 = panel * width
        for phase in range(phases.shape[0]):
            at = m0 + (phase * panels + panel - first_panel) * m_each
            if phases[phase, 0] == 0 or ins == 0:
                zero_run(space, at, pixels * width)
            if bias.size > 0:
                for v in range(0, width, count):
                    shift = zero
                    if outs - k0 - v > 0:
                        shift = load_part(bias, bias0 + k0 + v, outs - k0 - v)
                    for i in range(pixels):
                        store(space, at + i * width + v, load(space, at + i * width + v) + shift)
            activate(activation, space, at, pixels * width)
        for phase in range(phases.shape[0]):
            pair = phases[phase, 9]
            if pair == PAIRED:
                continue
            at = m0 + (phase * panels + panel - first_panel) * m_each
            partner = m0 + (pair * panels + panel - first_panel) * m_each if pair >= 0 else -1
            q = q0
            while q < q1:
                q_end, _, _ = _zone(q, q1, image_w, left, tap_at, col0, tap_cols)
                call(
                    put_pixels,
                    (
                        space, at, partner, k0, g0, g1, q, q_end, target, grid, phases[phase, 3], phases[phase, 4],
                        phases[phase, 5], phases[phase, 6], phases[phase, 7], phases[phase, 8], y, y0,
                    ),
                )  # fmt: skip
                at += (g1 - g0) * (q_end - q) * width
                q = q_end


@launcher
def _pack_forward(threads, w, w0, k_stride, depth, outs, u):
    width = NV * lanes(w)
    parallel(pack_panels, (outs + width - 1) // width, threads, (w, w0, 1, k_stride, depth, outs, u))


@launcher
def _pack_phases(threads, w, w0, k_stride, c_stride, taps, phases, chosen, outs, ins, c_chunk, u, space, each):
    width = NV * lanes(w)
    parallel(pack_phases, (outs + width - 1) // width, threads, (w, w0, k_stride, c_stride, taps, phases, chosen, outs, ins, c_chunk, u, space, each))


@separate
def pack_taps(block, worker, w, w0, k_stride, taps, ins, outs, c_chunk, u, space, each):
    """As pack_phases with channels inside taps, for the forward pass: a panel is packed a few channels at a time, and sorted from there."""
    width = NV * lanes(w)
    together, s0 = STEPS // taps, worker * each
    for c0 in range(0, ins, c_chunk):
        channels = min(c_chunk, ins - c0)
        to = (block * ins + c0) * taps * width
        for c in range(0, channels, together):
            some = min(together, channels - c)
            source = w0 + block * width * k_stride + (c0 + c) * taps
            packed = space[s0 : s0 + some * taps * width]
            call(pack_panels, (0, worker, w, source, 1, k_stride, some * taps, outs - block * width, packed))
            for i in range(some):
                for j in range(taps):
                    copy_run(packed, (i * taps + j) * width, u, to + (j * channels + c + i) * width, width)


@launcher
def _pack_taps(threads, w, w0, k_stride, taps, ins, outs, c_chunk, u, space, each):
    width = NV * lanes(w)
    parallel(pack_taps, (outs + width - 1) // width, threads, (w, w0, k_stride, taps, ins, outs, c_chunk, u, space, each))


@launcher
def _forward(
    threads, blocks, column_blocks, panels, rows, cols, total, source, target, window, grid, slab_h, slab_w, c_chunk, x,
    x0, phases, steps, tap_at, inside_at, u, w, w0, k_stride, y, y0, bias, bias0, activation, space, each, tables, tables_each,
):  # fmt: skip
    parallel(
        forward_block,
        blocks,
        threads,
        (
            column_blocks, panels, rows, cols, total, source, target, window, grid, slab_h, slab_w, c_chunk, x, x0,
            phases, steps, tap_at, inside_at, u, w, w0, k_stride, y, y0, bias, bias0, activation, space, each, tables, tables_each,
        ),
    )  # fmt: skip


@separate
def turn_dy_block(block, worker, first, total, rows, q0, q1, dy, y0, target, grid, turned, panel_stride):
    """dy of some output rows with channels innermost: turned[panel][pixel][NR]; block is (panel, group of rows)."""
    count = lanes(dy)
    width = NV * count
    _, n_stride, d_stride, c_stride, p_stride, _, out_w, outs = target
    out_d, out_h = grid[0], grid[1]
    groups = (total - first + rows - 1) // rows
    panel, g = block // groups, first + block % groups * rows
    g1 = min(total, g + rows)
    k0 = panel * width
    cols = q1 - q0
    to = panel * panel_stride + (g - first) * cols * width
    while g < g1:
        image, p0 = g // out_h, g % out_h
        p1 = min(out_h, p0 + g1 - g) if cols == out_w else p0 + 1
        pixels = (p1 - p0) * cols
        base = y0 + image // out_d * n_stride + image % out_d * d_stride + (p0 * out_w + q0) * p_stride
        for v in range(0, width, count):
            some = max(0, min(count, outs - k0 - v))
            source = base + (k0 + v) * c_stride
            i = 0
            if c_stride == 1:
                for i in range(pixels):
                    store(turned, to + i * width + v, load_part(dy, source + i * p_stride, some))
            else:
                while pixels - i >= count and some == count:
                    store_tile(turned, to + i * width + v, width, transpose(load_square(dy, source + i, c_stride)))
                    i += count
                while i < pixels:
                    t = transpose(load_square_part(dy, source + i, c_stride, some, pixels - i))
                    if pixels - i >= count:
                        store_tile(turned, to + i * width + v, width, t)
                    else:
                        store_square_part(turned, to + i * width + v, width, t, pixels - i, count)
                    i += count
        to += pixels * width
        g += p1 - p0


@function
def _add_pixels(rows, pixels, table0, pixel0, tables, space, s0, turned, b0, at, started):
    """space[at ...] (rows, NR) (+)= what these rows of the product have of so many pixels: KC at a time, so that their dy stays in L1 while taps pass."""
    width = NV * lanes(turned)
    for i in range(0, pixels, KC):
        call(table_product, (
            rows, min(KC, pixels - i), space, s0, tables, table0, tables, pixel0 + i, turned, b0 + i * width, width, space, at, width, started or i > 0, False,
        ))  # fmt: skip


@function
def _seen(start, extent, taps, dilation):
    """First and end of the taps that see the image from a window that starts there."""
    first = min(taps, max(0, (dilation - 1 - start) // dilation))
    return first, max(first, min(taps, (extent - 1 - start) // dilation + 1))


@separate
def weight_block(
    block, worker, first, total, rows, zone, skips, c_count, panels, source, target, window, grid, slab_h, slab_w, x, x0,
    taps, turned, panel_stride, dw, dw0, k_stride, accumulate, space, each, tables, tables_each,
):  # fmt: skip
    """dw of some input channels and some panels of output channels, from the pixels of rows first..total and of a zone of columns.

    The sums stay in the worker's scratch while the pixels pass by, as (taps of the channels) x NR; where taps are skipped that lie in the
    padding, as (rows of taps, taps, channels) x NR.
    """
    q0, q1, left_tap, right_tap = zone
    count = lanes(dw)
    width = NV * count
    ins, outs = source[7], target[7]
    c_blocks = (ins + c_count - 1) // c_count
    c0 = block % c_blocks * c_count
    channels = min(c_count, ins - c0)
    p0 = block // c_blocks * panels
    p1 = min((outs + width - 1) // width, p0 + panels)
    n = channels * taps.size
    m0 = worker * each
    square = m0 + (c_count * taps.size + count) * width * panels
    s0 = square + count * count
    t0 = worker * tables_each
    cols = q1 - q0
    unit = channels if source[3] == 1 and source[4] != 1 else 1
    # Rows of the product: the taps of every channel.
    plane = 1 if unit > 1 or (source[3] == 1 and source[4] != 1) else window[0] * slab_h * slab_w
    for c in range(channels):
        for j in range(taps.size):
            tables[t0 + (j * channels + c if skips else c * taps.size + j)] = taps[j] * unit + c * plane
    pixel0 = t0 + c_count * taps.size
    height, out_h, taps_h, taps_w, top, dilation = source[5], grid[1], window[1], window[2], window[7], window[10]
    for g0 in range(first, total, rows):
        g1 = min(total, g0 + rows)
        pixels = (g1 - g0) * cols
        call(fill_slab, (x, x0, c0, channels, channels, g0, g1, q0, q1, source, window, grid, slab_h, slab_w, space, s0, skips, skips and window[11] > 1))
        call(fill_pixels, (tables, pixel0, g0, g1, 0, cols, window, grid, slab_w, unit))
        for panel in range(p0, p1):
            b0 = panel * panel_stride + (g0 - first) * cols * width
            at = m0 + (panel - p0) * (n + count) * width
            if not skips:
                _add_pixels(n, pixels, t0, pixel0, tables, space, s0, turned, b0, at, g0 > first)
                continue
            if g0 == first:
                zero_run(space, at, n * width)
            g = g0
            while g < g1:
                upper, lower = _seen(g % out_h - top, height, taps_h, dilation)
                end = g + 1
                while end < g1 and _seen(end % out_h - top, height, taps_h, dilation) == (upper, lower):
                    end += 1
                i = (g - g0) * cols
                for r in range(upper, lower):
                    row = (r * taps_w + left_tap) * channels
                    _add_pixels(
                        (right_tap - left_tap) * channels, (end - g) * cols, t0 + row, pixel0 + i, tables, space, s0, turned, b0 + i * width,
                        at + row * width, True,
                    )  # fmt: skip
                g = end
    for panel in range(p0, p1):
        at = m0 + (panel - p0) * (n + count) * width
        for v in range(0, min(width, outs - panel * width), count):
            k = panel * width + v
            some = min(count, outs - k)
            for i in range(0, n, count):
                from_, step = at + i * width + v, width
                if skips:
                    from_, step = square, count
                    for z in range(min(count, n - i)):
                        c, j = (i + z) // taps.size, (i + z) % taps.size
                        store(space, square + z * count, load(space, at + (j * channels + c) * width + v))
                t = transpose(load_square(space, from_, step))
                to = dw0 + k * k_stride + c0 * taps.size + i
                if accumulate:
                    t = tile_add(t, load_square_part(dw, to, k_stride, some, n - i))
                store_square_part(dw, to, k_stride, t, some, n - i)


@launcher
def _weight_gradient(
    threads, chunk, zones, skips, total, rows, c_count, panels, source, target, window, grid, slab_h, slab_w, x, x0, taps,
    dy, y0, turned, panel_stride, dw, dw0, k_stride, space, each, tables, tables_each,
):  # fmt: skip
    width = NV * lanes(dw)
    panel_count = (target[7] + width - 1) // width
    tasks = ((source[7] + c_count - 1) // c_count) * ((panel_count + panels - 1) // panels)
    for first in range(0, total, chunk):
        last = min(total, first + chunk)
        groups = (last - first + rows - 1) // rows
        for z in range(len(zones)):
            zone = (zones[z, 0], zones[z, 1], zones[z, 2], zones[z, 3])
            parallel(turn_dy_block, panel_count * groups, threads, (first, last, rows, zone[0], zone[1], dy, y0, target, grid, turned, panel_stride))
            parallel(
                weight_block,
                tasks,
                threads,
                (
                    first, last, rows, zone, skips, c_count, panels, source, target, window, grid, slab_h, slab_w, x, x0,
                    taps, turned, panel_stride, dw, dw0, k_stride, first > 0 or z > 0, space, each, tables,
                    tables_each,
                ),
            )  # fmt: skip


# ---- plans

# A block of pixels: enough of them to reuse weights from L1, few enough that their slab and sums stay in L2. On a Granite Rapids a dilation
# of 12 at 256 channels and 28x28 runs at 265 GFLOP/s by blocks of 128 and at 275 by 256, 3x3 of stride 2 to 512 channels at 178 and 188.
_PIXELS = 256 if LARGE_CORE else 128
# 256 to 64 channels at 28x28, dilation of 12, 0.93 ms by 256 and 0.86 by 1024, with two threads 0.56 and 0.48.
_MOST_PIXELS = 1024
_SLAB_BYTES = 256 << 10
_SUMS_BYTES = 256 << 10
# Weights beyond this are packed panel by panel inside the blocks when these are few.
_SHARED_WEIGHTS_BYTES = 2 << 20
_CHUNK_BYTES = 4 << 20
_PACKED_BYTES = 8 << 20
# Taps in the padding are left out from this share on, and in rows of so many pixels: output rows and columns that meet fewer
# taps are multiplied apart, which leaves register tiles half empty. A dilation of 2 at 28x28 pixels, 4.8 % either way, gains
# 9 % by it. Columns of taps are left out where the dilation lets neighbours see the same ones; one by one, they cost more.
_OUTSIDE = 0.045
_LEAST_COLUMNS = 16
# The gradient of the weights leaves them out from this share of rows and columns together on; short zones and pixels that are turned again
# cost 22 % of the product. 256 to 64 channels at 28x28 on a Granite Rapids: a dilation of 12 1.35 to 1.02 ms, of 8 1.30 to 1.18, of 6 as long.
_OUTSIDE_OF_WEIGHTS, _ZONES_COST = 0.25, 0.22
# Columns of an image that its gradient works on together.
_MOST_COLUMNS = 1024
# A block keeps the sums of all phases of a strided gradient. With so many, windows hardly overlap and im2col does better.
_PHASES = 64


class Window(NamedTuple):
    """Which input a grid of output pixels sees: (taps, stride, padding before, dilation), the grid and its step."""

    taps: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]
    step: tuple[int, ...] = (1, 1, 1)

    @property
    def window(self) -> tuple[int, ...]:
        return (*self.taps, *self.stride, *self.before, *self.dilation)

    @property
    def grid(self) -> tuple[int, ...]:
        return (*self.out, *self.step)

    def pixels(self, fewest: int) -> int:
        """How many a block has: more than ``fewest`` where it would see more rows around its own than these, and copy them; at most an image."""
        around, pixels = (self.taps[1] - 1) * self.dilation[1], fewest
        while pixels < _MOST_PIXELS and pixels < min(around, self.out[1]) * self.out[2]:
            pixels *= 2
        return min(pixels, max(fewest, self.out[1] * self.out[2]))

    def slab(self, rows: int, cols: int, count: int) -> tuple[int, int]:
        """Height and width of the slab under so many output rows (of as many images as it may be) and columns."""
        reach = (self.taps[1] - 1) * self.dilation[1] + 1
        images = 1 + -(-(rows - 1) // self.out[1])
        height = max((rows - n) * self.stride[1] + n * reach for n in range(1, min(images, rows) + 1))
        return height, up((cols - 1) * self.stride[2] + (self.taps[2] - 1) * self.dilation[2] + 1, count)


class _Phase(NamedTuple):
    """Output pixels ``step`` apart that see the same taps."""

    taps: np.ndarray  # (n, 3): where in the slab, in input positions
    chosen: np.ndarray  # (n,): which of the kernel's taps
    extent: tuple[int, ...]
    first: tuple[int, ...]


def forward_window(spec: ConvSpec) -> Window:
    """What the output's pixels see of the input."""
    return Window(spec.kernel, spec.stride, tuple(p[0] for p in spec.padding), spec.dilation, spec.out_size)


def _forward_phase(spec: ConvSpec) -> tuple[Window, list[_Phase]]:
    # The slab holds the depths that are used and no others: there, a dilation counts as 1.
    place = np.array([(t, r * spec.dilation[1], s * spec.dilation[2]) for t, r, s in np.ndindex(spec.kernel)], dtype=np.intp)
    return forward_window(spec), [_Phase(place, np.arange(len(place)), spec.out_size, (0, 0, 0))]


def _axis_phases(size: int, taps: int, stride: int, before: int, dilation: int) -> list[list[tuple[int, int]]]:
    """For each remainder of a position modulo the stride: (dy's index - position // stride, tap) of the taps that meet it."""
    return [[((m + before - r * dilation) // stride, r) for r in range(taps) if (m + before - r * dilation) % stride == 0] for m in range(min(stride, size))]


def _gradient_phases(spec: ConvSpec) -> tuple[Window, list[_Phase]]:
    """The gradient with respect to the input: a convolution of dy with stride 1 for each remainder modulo the stride."""
    axes = [_axis_phases(n, k, s, before, d) for n, k, s, (before, _), d in zip(spec.size, spec.kernel, spec.stride, spec.padding, spec.dilation, strict=True)]
    low = [min((i for met in axis for i, _ in met), default=0) for axis in axes]
    high = [max((i for met in axis for i, _ in met), default=0) for axis in axes]
    extent = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
    out = tuple(-(-n // s) for n, s in zip(spec.size, spec.stride, strict=True))
    phases = []
    for remainder in grid_of(*(range(len(axis)) for axis in axes)):
        met = list(grid_of(*(axis[m] for axis, m in zip(axes, remainder, strict=True))))
        place = np.array([[i - a for (i, _), a in zip(tap, low, strict=True)] for tap in met], dtype=np.intp).reshape(-1, 3)
        chosen = np.array([(t * spec.kernel[1] + r) * spec.kernel[2] + s for (_, t), (_, r), (_, s) in met], dtype=np.intp)
        pixels = tuple(-(-(n - m) // s) for n, m, s in zip(spec.size, remainder, spec.stride, strict=True))
        phases.append(_Phase(place, chosen, pixels, remainder))
    before = tuple(-a for a in low)
    return Window(extent, (1, 1, 1), before, (1, 1, 1), out, spec.stride), phases


class _Convolution:
    """forward, and the gradient with respect to the input."""

    def __init__(self, spec: ConvSpec, direction: str, activation: int) -> None:
        x, y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        self.taps = taps = prod(spec.kernel)
        self.groups, self.dtype, self.itemsize = spec.groups, spec.dtype, spec.itemsize
        self.w_group = y.channels * x.channels * taps
        self.activation = activation_entry(activation, spec.dtype)
        self.turned = direction == "grad_input"
        self.format: tuple[object, ...]
        if self.turned:
            self.source, self.target = y, x
            self.k_stride, self.c_stride = taps, x.channels * taps
            self.window, phases = _gradient_phases(spec)
            self.format = ("implicit", spec.dtype, direction, spec.weight_shape, spec.groups, spec.stride, spec.dilation, spec.padding, spec.size)
        else:
            self.source, self.target = x, y
            self.k_stride, self.c_stride = x.channels * taps, taps
            self.window, phases = _forward_phase(spec)
            self.format = ("implicit", spec.dtype, direction, spec.weight_shape, spec.groups)
        self.ins, self.outs = self.source.channels, self.target.channels
        self.lanes, self.width = LANES[spec.dtype], panel_width(spec.dtype)
        taps_used = max(1, sum(len(p.chosen) for p in phases))
        panel = self.width * self.ins * taps_used
        self.panels = -(-self.outs // self.width)
        self.work_ns = spec.flops / 150 * (spec.itemsize / 4)
        self.pack_space = max(up(taps, self.lanes) * self.lanes, STEPS * self.width)
        self.total = spec.batch * self.window.out[0] * self.window.out[1]
        self._size_blocks()
        packed_bytes = self.panels * panel * spec.itemsize
        self.lazy = not self.turned and self.pixel_blocks <= 2 and packed_bytes > _SHARED_WEIGHTS_BYTES
        # Weights packed ahead are packed in even parts of output channels, each within _PACKED_BYTES.
        parts = 1 if self.lazy else -(-packed_bytes // _PACKED_BYTES)
        self.panels = -(-self.panels // parts)
        self.part = min(self.outs, self.panels * self.width)
        self.weights = self.panels * panel
        self.skips_columns = spec.dilation[2] > 1
        self.skips = not self.lazy and self._much_outside(spec)
        self.inside_at = _inside_at(spec.dtype) if self.skips else 0
        self.format = (*self.format, self.part, self.c_chunk if self.skips else 0)
        self._make_tables(phases, spec.channels_last)

    def _much_outside(self, spec: ConvSpec) -> bool:
        """Whether enough of the taps lie in the padding around an image for them to be left out."""
        return self.taps <= STEPS and self.cols >= _LEAST_COLUMNS and sum(_outside(spec)) >= _OUTSIDE

    def _size_blocks(self) -> None:
        """How many pixels a block has, and for how many channels its slab is filled at a time."""
        w = self.window
        pixels = w.pixels(_PIXELS)
        while True:
            cols = -(-w.out[2] // -(-w.out[2] // pixels))
            rows = max(1, pixels // cols)
            # Even blocks: a last one of few rows would read all the weights for little (56 rows by 19 and not by 18).
            rows = -(-self.total // max(1, round(self.total / rows)))
            slab = w.slab(rows, cols, self.lanes)
            channel_bytes = w.taps[0] * prod(slab) * self.itemsize
            if pixels <= 32 or 8 * channel_bytes <= _SLAB_BYTES:
                break
            pixels //= 2
        self.rows, self.cols, self.slab = rows, cols, slab
        self.column_blocks = -(-w.out[2] // cols)
        self.pixel_blocks = -(-self.total // rows) * self.column_blocks
        # Whole multiples of the channels whose taps make up STEPS.
        per_chunk = max(1, STEPS // self.taps)
        self.c_chunk = min(self.ins, max(1, _SLAB_BYTES // channel_bytes // per_chunk) * per_chunk)
        self.slab_count = up(self.c_chunk * w.taps[0] * prod(slab) + self.lanes, 16)

    def _make_tables(self, phases: list[_Phase], channels_last: bool) -> None:
        """One row of integers for each phase (see forward_block), and the steps of all."""
        height, width = self.slab
        rows: list[tuple[int, ...]] = []
        steps: list[np.ndarray] = []
        chosen: list[np.ndarray] = []
        start = 0
        where = {p.first: i for i, p in enumerate(phases)}
        tap_at: list[int] = []
        for p in phases:
            inside = [0, 1, -1, 1]  # rows and columns of taps: the first in tap_at, and how many
            if self.skips:
                order = np.lexsort((p.taps[:, 2], p.taps[:, 1]))
                p = _Phase(p.taps[order], p.chosen[order], p.extent, p.first)
                lines = [np.unique(p.taps[:, axis]).tolist() for axis in (1, 2)]
                inside = [len(tap_at), len(lines[0]), len(tap_at) + len(lines[0]) if self.skips_columns else -1, len(lines[1])]
                tap_at += lines[0] + lines[1]
            chosen.append(p.chosen)
            place = ((p.taps[:, 0] * height + p.taps[:, 1]) * width + p.taps[:, 2]).reshape(1, -1)
            c = np.arange(self.c_chunk).reshape(-1, 1)
            step = place * self.c_chunk + c if channels_last else place + c * (self.window.taps[0] * height * width)
            if self.skips:
                step = np.concatenate([step.T.reshape(-1), step[: self.ins % self.c_chunk].T.reshape(-1)])
            pair = -1
            if self.window.step[2] == 2 and not channels_last:
                d, h, w = p.first
                pair = PAIRED if w else where.get((d, h, 1), -1)
            rows.append((len(p.chosen), sum(s.size for s in steps), start, *p.extent, *p.first, pair, *inside))
            steps.append(step.reshape(-1))
            start += self.panels * self.width * self.ins * len(p.chosen)
        self.phases = np.array(rows, dtype=np.intp)
        self.steps = np.ascontiguousarray(np.concatenate(steps), dtype=np.intp)
        self.chosen = np.concatenate(chosen).astype(np.intp)
        starts = np.cumsum([0] + [len(p.chosen) for p in phases])[:-1]
        self.tap_at = np.array(tap_at, dtype=np.intp)
        inside_taps = np.full(len(starts), self.skips)
        self.pack_rows = np.ascontiguousarray(np.stack([self.phases[:, 0], starts, self.phases[:, 2], inside_taps], axis=1), dtype=np.intp)

    def plan(self) -> Plan:
        return Plan(self.run, self.transform, self.format)

    def _split(self, threads: int) -> int:
        """Panels of a task: as many as L2 holds the sums of, fewer where blocks are too few to go round."""
        each = len(self.phases) * (self.rows * self.cols + self.lanes) * self.width * self.itemsize
        panels = max(1, min(self.panels, _SUMS_BYTES // each))
        if threads > 1 and self.pixel_blocks < 3 * threads:
            panels = max(1, min(panels, self.panels * self.pixel_blocks // (3 * threads)))
        return panels

    def _each(self, panels: int, lazy: bool) -> int:
        sums = len(self.phases) * panels * (self.rows * self.cols + self.lanes) * self.width
        return up(max(sums + (STEPS * self.width if lazy else 0) + self.slab_count, self.pack_space), 16)

    def workspace(self, threads: int) -> int:
        packed = 0 if self.lazy else self.weights
        return self.itemsize * (packed + threads * self._each(self._split(threads), self.lazy)) + 8 * threads * self.rows * self.cols

    def _parts(self) -> Iterator[tuple[int, int, int]]:
        """(group, first output channel, output channels) of each part, in the order of prepared weights."""
        for group in range(self.groups):
            for k0 in range(0, self.outs, self.part):
                yield group, k0, min(self.part, self.outs - k0)

    def _pack(self, threads: int, w: np.ndarray, group: int, k0: int, outs: int, u: np.ndarray, space: np.ndarray) -> None:
        w0 = group * self.w_group + k0 * self.k_stride
        chunk = self.c_chunk if self.skips else self.ins
        if self.turned:
            _pack_phases(threads, w, w0, self.k_stride, self.c_stride, self.taps, self.pack_rows, self.chosen, outs, self.ins, chunk, u, space, self.pack_space)
        elif self.skips:
            _pack_taps(threads, w, w0, self.k_stride, self.taps, self.ins, outs, chunk, u, space, self.pack_space)
        else:
            _pack_forward(threads, w, w0, self.k_stride, self.ins * self.taps, outs, u)

    def transform(self, w: np.ndarray) -> list[np.ndarray]:
        """Packed weights, an array for each part."""
        threads = _threads.threads_for(w.size)
        space = empty(threads * self.pack_space, self.dtype)
        made = []
        for group, k0, outs in self._parts():
            made.append(np.zeros(self.weights, self.dtype))
            self._pack(threads, w.reshape(-1), group, k0, outs, made[-1], space)
        return made

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: list[np.ndarray] | None = None) -> None:
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        threads = _threads.threads_for(self.work_ns)
        lazy = self.lazy and prepared is None
        packed = 0 if lazy or prepared is not None else self.weights
        panels = self._split(threads)
        each = self._each(panels, lazy)
        memory = scratch(packed + threads * each, self.dtype)
        tables_each = self.rows * self.cols
        tables = scratch(threads * tables_each, "int64")
        u, space = memory[:packed], memory[packed:]
        for i, (group, k0, outs) in enumerate(self._parts()):
            if prepared is not None:
                u = prepared[i]
            elif packed:
                self._pack(threads, w, group, k0, outs, u, space)
            tasks = self.pixel_blocks * (up(outs, panels * self.width) // (panels * self.width))
            _forward(
                threads, tasks, self.column_blocks, panels, self.rows, self.cols, self.total, self.source.dims, (*self.target.dims[:7], outs),
                self.window.window, self.window.grid, *self.slab, self.c_chunk, x, group * self.source.group, self.phases, self.steps,
                self.tap_at, self.inside_at, u, w, group * self.w_group + k0 * self.k_stride, self.k_stride,
                y, group * self.target.group + k0 * self.target.dims[3], bias, group * self.outs + k0, self.activation, space, each, tables, tables_each,
            )  # fmt: skip


class _WeightGradient:
    def __init__(self, spec: ConvSpec) -> None:
        self.x, self.y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        self.groups, self.dtype, self.itemsize = spec.groups, spec.dtype, spec.itemsize
        self.window = w = forward_window(spec)
        self.width, self.lanes = panel_width(spec.dtype), LANES[spec.dtype]
        self.total = spec.batch * w.out[0] * w.out[1]
        self.skips = sum(_outside(spec)) >= _OUTSIDE_OF_WEIGHTS
        self.zones = self._zones(spec)
        if not len(self.zones):  # nothing sees anything
            self.skips = False
            self.zones = self._zones(spec)
        self.columns = int((self.zones[:, 1] - self.zones[:, 0]).max())
        self.rows = min(self.total, max(1, w.pixels(256) // self.columns))
        self.slab = w.slab(self.rows, self.columns, LANES[spec.dtype])
        self.panels = -(-self.y.channels // self.width)
        row_bytes = self.columns * self.panels * self.width * spec.itemsize
        # Fixed by the shape alone: it decides in which order the pixels are added.
        self.chunk = min(self.total, max(1, _CHUNK_BYTES // row_bytes // self.rows) * self.rows)
        self.panel_stride = self.chunk * self.columns * self.width
        t, r, q = np.ogrid[: w.taps[0], : w.taps[1], : w.taps[2]]
        self.taps = np.ascontiguousarray(((t * self.slab[0] + r * w.dilation[1]) * self.slab[1] + q * w.dilation[2]).reshape(-1), dtype=np.intp)
        self.plane = w.taps[0] * prod(self.slab)
        self.work_ns = spec.flops / 150 * (spec.itemsize / 4)
        self.channels_last = spec.channels_last

    def _zones(self, spec: ConvSpec) -> np.ndarray:
        """Columns that are worked on together, at most _MOST_COLUMNS, as rows of first and end of them, and of the taps of a row that they see."""
        out, taps = self.window.out[2], self.window.taps[2]
        ends = sorted({*range(0, out, -(-out // -(-out // _MOST_COLUMNS))), out})
        seen = dict.fromkeys(range(out), (0, taps))
        if self.skips and spec.dilation[2] > 1:
            seen = {q: _seen.py_func(q - self.window.before[2], spec.size[2], taps, spec.dilation[2]) for q in range(out)}
            ends = sorted({*ends, *(q for q in range(1, out) if seen[q] != seen[q - 1])})
        zones = [(q, end, *seen[q]) for q, end in pairwise(ends) if seen[q][0] < seen[q][1]]
        return np.array(zones, np.intp).reshape(-1, 4)

    def _split(self, threads: int) -> tuple[int, int]:
        """Input channels and panels of a task: their sums and slab should stay in L2."""
        ins = self.x.channels
        c_count = max(1, min(ins, (256 << 10) // (self.itemsize * (self.plane + self.taps.size * self.width))))
        # With three shares of the channels for each thread a share's slab serves several panels (512 to 256 transposed 2x2 kernels at 32x32,
        # two threads, 5.4 to 3.0 ms).
        fair = -(-ins // (3 * threads))
        if threads > 1 and fair * self.taps.size >= 6 * MR:
            c_count = min(c_count, fair)
        panels = 1
        # Fewer rows than three register tiles leave the last one half empty: that many stay together.
        tasks = -(-ins // c_count) * self.panels
        while c_count > 1 and tasks < 3 * threads and threads > 1 and (tasks < threads or c_count * self.taps.size >= 6 * MR):
            c_count = -(-c_count // 2)
            tasks = -(-ins // c_count) * self.panels
        if -(-ins // c_count) >= 3 * threads:
            panels = min(self.panels, max(1, (256 << 10) // (self.itemsize * c_count * self.taps.size * self.width)))
        return c_count, panels

    def _sizes(self, threads: int) -> tuple[int, int, int, int]:
        c_count, panels = self._split(threads)
        each = up((c_count * self.taps.size + self.lanes) * self.width * panels + self.lanes * self.lanes + c_count * self.plane + self.lanes, 16)
        return c_count, panels, each, c_count * self.taps.size + self.rows * self.columns

    def workspace(self, threads: int) -> int:
        _, _, each, tables_each = self._sizes(threads)
        return self.itemsize * (self.panels * self.panel_stride + threads * each) + 8 * threads * tables_each

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
        threads = _threads.threads_for(self.work_ns)
        c_count, panels, each, tables_each = self._sizes(threads)
        turned_count = self.panels * self.panel_stride
        memory = scratch(turned_count + threads * each, self.dtype)
        tables = scratch(threads * tables_each, "int64")
        taps = self.taps.size
        for group in range(self.groups):
            _weight_gradient(
                threads, self.chunk, self.zones, self.skips, self.total, self.rows, c_count, panels,
                self.x.dims, self.y.dims, self.window.window, self.window.grid, *self.slab,
                x, group * self.x.group, self.taps, dy, group * self.y.group, memory[:turned_count], self.panel_stride,
                dw, group * self.y.channels * self.x.channels * taps, self.x.channels * taps, memory[turned_count:], each, tables, tables_each,
            )  # fmt: skip


def _accepts(spec: ConvSpec, direction: str) -> str | None:
    phases = prod(min(s, n) for s, n in zip(spec.stride, spec.size, strict=True))
    if direction == "grad_input" and phases > _PHASES:
        return f"the strides must make at most {_PHASES} phases of the gradient, not {phases}"
    return None


def _outside(spec: ConvSpec) -> tuple[float, float]:
    """The shares of rows and of columns of taps that lie in the padding and can be left out."""
    shares = [0.0, 0.0]
    if spec.kernel[0] == 1 and spec.stride == (1, 1, 1):
        for axis in (1, 2) if spec.dilation[2] > 1 else (1,):
            n, out, taps, before, dilation = spec.size[axis], spec.out_size[axis], spec.kernel[axis], spec.padding[axis][0], spec.dilation[axis]
            # of output position p the taps t with p - before + t dilation below 0, or from n on
            first = [before - t * dilation for t in range(taps)]
            shares[axis - 1] = sum(min(out, max(0, f)) + min(out, max(0, out - n - f)) for f in first) / (out * taps)
    return shares[0], shares[1]


def _packing(spec: ConvSpec, turned: bool) -> float:
    """Cycles. Weights turned for the gradient are gathered kernel by kernel; beyond L2 each one waits for memory."""
    weights = prod(spec.weight_shape)
    return (5 if not turned or spec.pointwise else 16 if weights < 1 << 20 else 28) * weights / LANES[spec.dtype]


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    """Cycles, fitted to one core: the product, a pixel's way to the output, packing the weights."""
    lanes_, width = LANES[spec.dtype], panel_width(spec.dtype)
    turned = direction == "grad_input"
    outs = (spec.channels if turned else spec.out_channels) // spec.groups
    pixels = spec.batch * prod(spec.size if turned else spec.out_size)
    panels = spec.groups * -(-outs // width)
    product = 1.15 * spec.flops / 2 / lanes_ / FMAS_PER_CYCLE * (up(outs, width) / outs)
    if turned:
        product *= prod(spec.size) / prod(spec.out_size) / prod(spec.stride)
    rows, columns = _outside(spec)
    if direction != "grad_weight" and rows + columns >= _OUTSIDE and spec.out_size[2] >= _LEAST_COLUMNS:
        product *= (1 - rows) * (1 - columns)
    elif direction == "grad_weight" and rows + columns >= _OUTSIDE_OF_WEIGHTS:
        product *= min(1, (1 - rows) * (1 - columns) + _ZONES_COST)
    output = 36 * pixels * panels
    packing = _packing(spec, turned)
    if direction == "grad_weight":
        # The image on its way into the slab, dy and the sums turned: of 88 convolutions of 1 to 512 channels all but three are within a
        # tenth, up to a sixth that all predictions here are too high.
        output = (24 if pixels * spec.out_channels * spec.itemsize < 4 << 20 else 40) * pixels * panels
        packing = (10 * spec.batch * spec.channels * prod(spec.size) + 19 * prod(spec.weight_shape)) / lanes_
    if spec.pointwise and (spec.stride != (1, 1, 1) or not spec.channels_last):
        # Pixels are gathered one by one where a plain product streams: 0.85 ms beside 0.66 for 512 to 2048 channels, 7x7, and with a stride
        # 0.95 beside 0.70 for 128 to 256 channels, 28x28, batch of 8. Of patches, 512 to 1024 channels, 2x2 at 32x32, 7.2 beside 6.4.
        product *= 1.3
    elif all(k <= s for k, s in zip(spec.kernel, spec.stride)):
        product *= 1.2
    return (product + output + packing) / CYCLES_PER_NS / threads + 5_000 + 2_500 * (spec.groups - 1)


def _ahead(spec: ConvSpec) -> float:
    """Packing. Elsewhere the choice with prepared weights was measured without it, and stays as it was."""
    return _packing(spec, False) / CYCLES_PER_NS if LARGE_CORE else 0.0


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    if direction == "grad_weight":
        return _WeightGradient(spec).workspace(threads)
    return _Convolution(spec, direction, 0).workspace(threads)


STRATEGY = Strategy(
    name="implicit",
    accepts=_accepts,
    cost=_cost,
    workspace=_workspace,
    forward=lambda spec, activation: _Convolution(spec, "forward", activation).plan(),
    grad_input=lambda spec, activation: _Convolution(spec, "grad_input", activation).plan(),
    grad_weight=lambda spec: _WeightGradient(spec).run,
    ahead=_ahead,
)
