"""General matrix multiplication: the only entry to it.

After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008: the reduction is cut
into chunks of KC, and a chunk of B is packed into panels. Here whoever computes a block of C, some rows by up to 32 panels,
packs the panels that it needs, just before they are read: nobody waits for another, and B passes through the caches once. Rows
of A are read where they lie, a transpose is copied into tiles. docs/decisions/008-products.md has the figures.

Products of few rows, or small ones, read both matrices where they lie: copying would take longer than multiplying.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import types

from fastops import _threads
from fastops._jit import address_of, call, call_at, function, launcher, parallel, separate
from fastops._memory import empty, empty_like
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, KC, LANES, LARGE_CORE, MR, NAMES, NV, VECTOR_BYTES, panel_width
from fastops.simd.epilogue import ACTIVATIONS
from fastops.simd.finish import activation_entry, confinement, finish_rows
from fastops.simd.pack import copy_run, pack_panels, pack_tiles, scale_run
from fastops.simd.prepacked import packed_rows
from fastops.simd.product import (
    BIAS,
    PACK,
    PACK_ONCE,
    PACKED,
    READ,
    SUM,
    ZERO,
    block_product,
    dot_products,
    finished_product,
    row_combinations,
    rows_product,
)  # fmt: skip
from fastops.simd.turn import rows_together, turn_columns, turn_rows, turned_rows
from fastops.simd.vector import (
    element,
    fma,
    lanes,
    load,
    load_part,
    load_square,
    load_square_part,
    offsets,
    prefetch_near,
    splat,
    store,
    store_part,
    store_square_part,
    store_tile,
    tile_add,
    transpose,
)  # fmt: skip
from fastops.simd.workspace import scratch

# Rows of A, whole tiles, that are copied at a time, where they are not read as they lie: 128 KB in float32, which stay in L2.
_MC = 128 // MR * MR
# Rows, or up to twice as many, of a block whose columns come in runs: it stands apart until it is whole.
_JOINED_ROWS = 256
# How few of them copy all columns for themselves.
_SHARED_ROWS = 64
# Panels of B that a thread packs at a time, and their bytes (64 rows with chunks of 256 steps take 0.77 ms by 512 KB, 0.85 by
# 1 MB); how few panels, and rows, it takes for others to have work too.
_PANELS, _FEW_PANELS = 32, 8
_PANEL_BYTES = 1 << 19
_ROWS, _FEW_ROWS_EACH = 64, 32
_SHARES = 4
# Rows that share the work of packing, up to which it is done by the first of them while they multiply: among more it is little
# work, and faster on its own where rows of B are a power of two apart (2048 x 2048 x 2048 in float64 229 ms, so 266).
_PACKING_ROWS = 256
# A vector's part that the last columns may fill and be sums of products of vectors.
_TAIL = 4
# Rows, and elements of A, up to which a B that lies in rows is read there by every tile, and else packed by the first: more rows
# read a copy faster, and a larger A takes the first-level cache from B. GFLOP/s, read against packed: 16 x 3136 x 96 109 and 66,
# 64 x 3136 x 64 155 and 127, 128 x 25088 x 64 90 and 109.
_READING_ROWS, _READING_SIZE = 3 * MR, 4096
# Rows of A that go along all panels, and then the next: C is written by few long streams. GFLOP/s on a Granite Rapids by one tile and
# by two: 256 x 3136 x 64 184 and 192, 144 x 3136 x 24 162 and 169.
_HIGH_TILE = 2 * MR if LARGE_CORE else MR
# With fewer bytes from row to row of C all rows go along each panel there, as do up to _PACKING_ROWS where the steps are as many. More
# rows of a wide C do not: 2048 x 2048 x 2048 184 and, so, 140.
_PAGE = 4096
# Bytes of C from which only the fewest rows read B in place: every tile goes far for its part of B, while C goes to memory. 16 to 96
# channels at 112x112, batch of 8, 4.8 ms read and 3.6 packed.
_FAR_BYTES = 1 << 23


@function
def _pack_a(a, a0, a_row, a_col, m, k, alpha, copies, at, row, col):
    """copies[at + i * row + j * col] = alpha * a[a0 + i * a_row + j * a_col] for i < m, j < k; a_col and col are 1, or a_row and row."""
    if a_col == 1:
        for i in range(m):
            scale_run(a, a0 + i * a_row, copies, at + i * row, k, alpha)
    else:
        for j in range(k):
            scale_run(a, a0 + j * a_col, copies, at + j * col, m, alpha)


@function
def _pack_runs(b, b0, b_row, run, b_run, j, depth, cols, packed, to):
    """As ``pack_panels``, of the one panel from column j on, where columns come in runs, ``b_run`` apart."""
    count = lanes(packed)
    width = NV * count
    at = 0
    while at < width:
        zeros = at >= cols
        pixel = (j + at) % run
        some = width - at if zeros else min(run - pixel, min(width, cols) - at)
        source = b0 + (j + at) // run * b_run + pixel
        for k in range(depth):
            for v in range(0, some, count):
                value = load_part(b, source + k * b_row + v, 0 if zeros else some - v)
                store_part(packed, to + k * width + at + v, value, some - v)
        at += some


# What ``_block`` reads from its numbers. As one array of them a call takes 2.6 us, as tuples and scalars 3.9.
_NUMBERS = 29


@separate
def _block(block, worker, numbers, a, b, c, alpha, bias, space):
    """A block of one product of the batch: packs what it needs of B, a chunk of the reduction at a time."""
    (
        parts, high, strips, nc, sums, rows, cols, depth, together, kc, room, run, b_run, c_run, a_batch, a_row, a_col, b_batch, b_row, b_col,
        c_batch, c_row, accumulated, bias_row, bias_col, address, code, copies, blocks,
    ) = offsets(numbers, 0, 0, _NUMBERS)  # fmt: skip
    accumulate, activation = accumulated != 0, (address, code)
    width = NV * lanes(space)
    top, j0, item = block % parts * high, block // parts % strips * nc, block // (parts * strips)
    m_all, n = min(high, rows - top), min(nc, cols - j0)
    joined = run < cols
    along = LARGE_CORE and ((depth >= m_all and m_all <= _PACKING_ROWS) or (nc if joined else c_row) * c.itemsize < _PAGE)
    # The last columns where they are few, and rows of A and columns of B can be read in vectors.
    tail = n % lanes(space)
    if tail > lanes(space) // _TAIL or a_col != 1 or sums > 1 or joined:
        tail = 0
    n_whole = n - tail
    # What sums can begin with, and be confined to, needs no pass of its own.
    by_rows = bias.size > 0 and bias_col == 0 and not accumulate
    added = bias.size > 0 and not by_rows
    limited, zero, high_limit = confinement(activation, c)
    confined = limited and not added
    rest = added or (activation[1] != 0 and not confined)
    # Workers are in chunks of different depths at one time, so the room of each must not depend on the depth of its chunk.
    panel0, copy0 = worker * room, copies + worker * kc * _MC
    tail0 = panel0 + kc * nc
    y = space if joined else c
    y0, y_row = (blocks + worker * high * nc, nc) if joined else (item * c_batch + top * c_row + j0, c_row)
    for s in range(0, sums, together):
        items = min(together, sums - s)
        for k0 in range(0, depth, kc):
            k = min(kc, depth - k0)
            steps = items * k
            # Whole panels that lie in rows are read there, or packed by the first rows while they multiply.
            whole = n_whole // width * width if b_col == 1 and items == 1 and not joined and MR <= m_all and (m_all <= _PACKING_ROWS or along) else 0
            reads = not LARGE_CORE and (m_all <= _READING_ROWS or (m_all * k <= _READING_SIZE and c.size * c.itemsize < _FAR_BYTES))
            for z in range(items):
                source = (item + s + z) * b_batch + k0 * b_row
                for j in range(whole, n_whole, width):
                    to = panel0 + j * steps + z * k * width
                    if joined:
                        _pack_runs(b, source, b_row, run, b_run, j0 + j, k, n - j, space, to)
                    else:
                        call(pack_panels, (0, worker, b, source + (j0 + j) * b_col, b_row, b_col, k, n_whole - j, space[to : to + k * width]))
            for j in range(tail):
                for z in range(k):
                    space[tail0 + j * k + z] = element(b, source + (j0 + n_whole + j) * b_col + z * b_row)
            first, last = s == 0 and k0 == 0, s + items == sums and k0 + k == depth
            begin = SUM if accumulate or not first else BIAS if by_rows else ZERO
            as_it_lies = a_col == 1 and alpha == 1 and items == 1
            for copied in range(0, m_all, _MC):
                m, a0 = min(_MC, m_all - copied), (item + s) * a_batch + (top + copied) * a_row + k0 * a_col
                row, col = (a_row, 1) if as_it_lies else (steps, 1) if a_col == 1 else (1, MR)
                left, tile = a, MR * (steps if a_col != 1 else row)
                if not as_it_lies:
                    for z in range(items):
                        at, to = a0 + z * a_batch, copy0 + z * k * col
                        if a_col == 1:
                            _pack_a(a, at, a_row, a_col, m, k, alpha, space, to, row, col)
                        else:
                            pack_tiles(a, at, a_col, m, k, alpha, space, to, tile)
                    left, a0 = space, copy0
                # Two tiles where B is far away and read there: four took 24 to 144 channels at 56x56, batch of 8, from 1.7 to 2.8 ms. Where
                # streams would be short, many rows along each panel: 2048 x 49 x 512 1.02 to 0.90 ms.
                high_tile = 2 * MR if reads else _MC if along or n <= 2 * width else _HIGH_TILE
                i = 0
                while i < m:
                    at = copied + i
                    packs = at == 0 and whole > 0 and not reads
                    some = min(MR if packs and not along else high_tile, m - i)
                    to, bias0 = y0 + at * y_row, (top + at) * bias_row + j0 * bias_col
                    # The next rows, of which nothing may be in a cache: weights are read once a call. 960 x 64 x 160 0.24 to 0.22 ms then.
                    if col == 1 and not reads:
                        for r in range(i + some, min(i + some + MR, m)):
                            for z in range(0, k, lanes(left)):
                                prefetch_near(left, a0 + r * row + z)
                    way = READ if reads else (PACK_ONCE if along and m == m_all else PACK) if packs else PACKED
                    call(rows_product, (
                        some, n_whole, steps, left, a0 + i // MR * tile, row, col, tile, way, 0 if way == PACKED else whole, b, source + j0, b_row,
                        space, panel0, width * steps, tail, tail0, y, to, y_row, begin, bias, bias0, last and confined, zero, high_limit,
                    ))  # fmt: skip
                    if last and rest:
                        call(finish_rows, (y, to, y_row, some, n, bias if added else bias[:0], bias0, bias_row, bias_col, activation))
                    i += some
    if joined:
        for i in range(m_all):
            at = 0
            while at < n:
                pixel = (j0 + at) % run
                some = min(run - pixel, n - at)
                copy_run(y, y0 + i * y_row + at, c, (j0 + at) // run * c_run + (top + i) * c_row + pixel, some)
                at += some


@launcher
def _blocked(threads, count, numbers, a, b, c, alpha, bias, space):
    parallel(_block, count, threads, (numbers, a, b, c, alpha, bias, space))


# Up to so many multiply-adds, rows, or steps of the reduction a B that lies in rows is read there. Measured on AVX2: 39 us instead
# of 43 for 128 x 128 x 128.
_SMALL_BY_ROWS = 1 << 21
_FEW_ROWS = 8
_FEW_STEPS = 8
# Cycles of a product with a transposed B, beside multiply-adds: for an element of C that is a sum over 16 lanes or fewer, or the end of a
# register tile.
_SUM_OF_16, _SUM_OF_FEWER, _STORE_CYCLES = 5.5, 11.0, 0.6
# Of B, from L2 or L3, for one row or two.
_BYTES_A_CYCLE = 14
# Of B, that stay in L1, and in L2.
_NEAR_B_BYTES, _FAR_B_BYTES = 1 << 15, 1 << 20
_IN_PLACE, _BY_PANELS, _BY_BLOCKS = range(3)
# So few rows leave a panel's register tiles mostly empty.
_FEWEST_ROWS = 3
# Columns that one thread takes then; of few rows as many as leave work for all, since rows of B are read faster the longer they
# are: 64 to 2 channels at 224x224, batch of 8, take 6.4 ms by 4096 columns, 9.1 by 256.
_STRIP, _LONG_STRIP, _LONG_ROWS = 256, 4096, 4
# So that all threads have some, as few: 100 x 100 x 100 with two 24 to 16 us.
_LEAST_STRIP = 32
# Rows that one thread takes.
_HIGH = 1 << 10
# Multiply-adds that are worth a block: smaller products of a batch go together.
_TOGETHER = 1 << 14


@separate
def _by_panels(rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, b_col, c, c0, c_row, accumulate, bias, bias0, panels, worker):
    """``bias`` is one for each column, or empty; the other two ways have none."""
    width = NV * lanes(c)
    whole = cols // width * width
    # Of few steps C is what takes time, and is written by few long streams: a column times a row, 1000 x 512, 85 to 31 us.
    high = MR if depth <= _FEW_STEPS and cols >= 4 * width else rows
    zero, start = c.dtype.type(0), SUM if accumulate or bias.size > 0 else ZERO
    old, old0, old_row = (bias, bias0, 0) if bias.size > 0 else (c, c0, c_row)
    for i in range(0, rows, high):
        call(finished_product, (
            min(high, rows - i), whole, depth, a, a0 + i * a_row, a_row, a_col, MR * a_row, b, b0, b_row, width, c, c0 + i * c_row, c_row,
            start, old, old0 + i * old_row, old_row, False, zero, zero,
        ))  # fmt: skip
    if whole < cols:  # the last panel would be read beyond its end
        rest, shift = cols - whole, worker * width
        call(pack_panels, (worker, worker, b, b0 + whole - shift, b_row, b_col, depth, rest + shift, panels))
        call(finished_product, (
            rows, rest, depth, a, a0, a_row, a_col, MR * a_row, panels, shift * depth, width, 0, c, c0 + whole, c_row,
            start, old, old0 + whole, old_row, False, zero, zero,
        ))  # fmt: skip


@separate
def _by_rows(rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, b_col, c, c0, c_row, accumulate, bias, bias0, panels, worker):
    call(row_combinations, (rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, accumulate))


@separate
def _by_columns(rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, b_col, c, c0, c_row, accumulate, bias, bias0, panels, worker):
    call(dot_products, (rows, cols, depth, a, a0, a_row, b, b0, b_col, c, c0, c_row, accumulate))


@cache
def _compiled_way(way: Any, dtype: str) -> int:
    """The machine code of one of these three: of which a first call compiles one, and not a second's worth of others."""
    flat = types.Array(getattr(types, dtype), 1, "C")
    at = types.intp
    return address_of(way, at, at, at, flat, at, at, at, flat, at, at, at, flat, at, at, types.boolean, flat, at, flat, at)


def _way(rows: int, cols: int, depth: int, b_col: int, dtype: str) -> tuple[int, bool]:
    """The machine code that reads both matrices where they lie, and whether it adds a bias of each column."""
    way = _by_columns if b_col != 1 else _by_rows if rows <= 2 and depth >= 4 and cols >= 64 else _by_panels
    return _compiled_way(way, dtype), way is _by_panels


@function
def _strip(threads, batch, rows, cols):
    if rows > _LONG_ROWS:
        strip = _STRIP
        while threads > 1 and strip > _LEAST_STRIP and batch * ((cols + strip - 1) // strip) * ((rows + _HIGH - 1) // _HIGH) < 2 * threads:
            strip //= 2
        return strip
    if threads == 1:
        return _LONG_STRIP
    return min(_LONG_STRIP, max(1, batch * cols // (_SHARES * threads * _STRIP)) * _STRIP)


@separate
def _direct_block(
    block, worker, way, together, strip, strips, batch, rows, cols, depth, alpha, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch, c_row,
    accumulate, bias, bias_row, bias_col, activation, panels, copies,
):  # fmt: skip
    """Some blocks of a product of the batch each; ``panels`` has room for a panel for each worker, ``copies`` for scaled A."""
    parts = (rows + _HIGH - 1) // _HIGH
    for number in range(block * together, min((block + 1) * together, batch * strips * parts)):
        item, j0, i0 = number // (strips * parts), number // parts % strips * strip, number % parts * _HIGH
        n, m = min(strip, cols - j0), min(_HIGH, rows - i0)
        a0, b0, start = item * a_batch + i0 * a_row, item * b_batch + j0 * b_col, item * c_batch + i0 * c_row + j0
        left, left_row, left_col = a, a_row, a_col
        if alpha != 1:
            copy0, left_row, left_col = worker * min(_HIGH, rows) * depth, depth if a_col == 1 else 1, 1 if a_col == 1 else m
            if (left_row, left_col) == (a_row, a_col):
                scale_run(a, a0, copies, copy0, m * depth, alpha)
            else:
                _pack_a(a, a0, a_row, a_col, m, depth, alpha, copies, copy0, left_row, left_col)
            left, a0 = copies, copy0
        # A pass for it would read short rows while they are written, 8 ns each.
        begun = way[1] and bias_col == 1 and not accumulate
        first, later = (bias, bias[:0]) if begun else (bias[:0], bias)
        call_at(way[0], (m, n, depth, left, a0, left_row, left_col, b, b0, b_row, b_col, c, start, c_row, accumulate, first, j0, panels, worker))
        if later.size > 0 or activation[1] != 0:
            call(finish_rows, (c, start, c_row, m, n, later, i0 * bias_row + j0 * bias_col, bias_row, bias_col, activation))


@function
def _strips_together(rows, cols, depth):
    return max(1, _TOGETHER // (rows * cols * depth))


@launcher
def _direct(
    threads, way, batch, rows, cols, depth, alpha, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch, c_row, accumulate,
    bias, bias_row, bias_col, activation, panels, copies,
):  # fmt: skip
    strip = _strip(threads, batch, rows, cols)
    strips = (cols + strip - 1) // strip
    together = _strips_together(rows, cols, depth)
    parallel(
        _direct_block,
        (batch * strips * ((rows + _HIGH - 1) // _HIGH) + together - 1) // together,
        threads,
        (
            way, together, strip, strips, batch, rows, cols, depth, alpha, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch, c_row, accumulate,
            bias, bias_row, bias_col, activation, panels, copies,
        ),
    )  # fmt: skip


# Products so small, of so many items, are lanes: one by itself takes 140 ns before it multiplies. 1000 of 4x4x4 143 to 20 us.
_TINY_WORK, _TINY_MATRIX, _TINY_BATCH = 512, 64, 32


@separate
def _tiny_block(block, worker, together, batch, rows, cols, depth, alpha, a, a_row, a_col, b, b_row, b_col, c, space):
    """Some products of a batch whose items follow one another, turned into columns and back; ``space`` (threads, 3, TURNED)."""
    first = block * together
    some = min(together, batch - first)
    left, right, product = space[worker, 0], space[worker, 1], space[worker, 2]
    call(turn_rows, (a, first * rows * depth, some, rows * depth, left, together))
    call(turn_rows, (b, first * depth * cols, some, depth * cols, right, together))
    factor, nothing, step = splat(c, alpha), splat(c, c.dtype.type(0)), lanes(c)
    for i in range(rows):
        for j in range(cols):
            at = 0
            while at < some:
                total, x, y = nothing, i * a_row * together + at, j * b_col * together + at
                for _ in range(depth):
                    total = fma(load(left, x), load(right, y), total)
                    x += a_col * together
                    y += b_row * together
                store(product, (i * cols + j) * together + at, total * factor)
                at += step
    call(turn_columns, (product, together, some, rows * cols, c, first * rows * cols))


@launcher
def _tiny(threads, together, batch, rows, cols, depth, alpha, a, a_row, a_col, b, b_row, b_col, c, space):
    blocks = (batch + together - 1) // together
    parallel(_tiny_block, blocks, threads, (together, batch, rows, cols, depth, alpha, a, a_row, a_col, b, b_row, b_col, c, space))


def _are_tiny(batch: int, rows: int, cols: int, depth: int) -> bool:
    return batch >= _TINY_BATCH and rows * cols * depth <= _TINY_WORK and max(rows * depth, depth * cols, rows * cols) <= _TINY_MATRIX


# Up to so many rows of A, of a product with a transposed B whose columns are more, A is packed and not B, and the product
# comes out turned: linear 32x784x256 takes 0.13 ms instead of 0.16.
_TURNED_ROWS = 128
# Columns of C that one thread takes then, and steps of the reduction for which A is packed at a time.
_TURNED_COLUMNS = 64
_TURNED_STEPS = 4096
# Cycles until it begins, and what its results take to be turned.
_TURNED_CYCLES = 12_000
# Rows up to which each panel of a transposed B is packed by the block that multiplies them with it, in one launch.
# Of more steps than a panel of L2 has, each row tile fetches them again: 256 x 512 x 2048 on a Granite Rapids takes 1.17 times
# as long by panels as by blocks.
_PANEL_ROWS, _FEW_PANEL_ROWS, _LONG_PANEL = 256, 128, 1024


@function
def turned_product(rows, cols, depth, panels, p0, w, w0, w_row, space, own, accumulate):
    """space[own ...] (cols, whole panels) (+)= cols rows of w, read where they lie, times the transpose of ``rows`` rows that stand in panels."""
    width = NV * lanes(space)
    whole = (rows + width - 1) // width * width
    for k0 in range(0, depth, KC):
        k = min(KC, depth - k0)
        block_product(cols, whole, k, w, w0 + k0, w_row, 1, panels, p0 + k0 * width, width, width * depth, space, own, whole, accumulate or k0 > 0)


@function
def turn_back(rows, cols, space, own, c, c0, c_row, accumulate):
    """c[rows, cols] (+)= what ``turned_product`` left."""
    count = lanes(c)
    width = NV * count
    whole = (rows + width - 1) // width * width
    for i in range(0, cols, count):
        for m in range(0, rows, count):
            t = transpose(load_square(space, own + i * whole + m, whole))
            to, high, wide = c0 + m * c_row + i, min(count, rows - m), min(count, cols - i)
            if accumulate:
                t = tile_add(t, load_square_part(c, to, c_row, high, wide))
            if high == count and wide == count:
                store_tile(c, to, c_row, t)
            else:
                store_square_part(c, to, c_row, t, high, wide)


@separate
def _turned_block(block, worker, rows, cols, depth, panels, b, b0, b_col, c, c0, c_row, accumulate, bias, bias_row, bias_col, last, activation, space):
    """Columns of C as rows of its transpose: B is read where it lies, and broadcast; A^T stands in panels."""
    width = NV * lanes(c)
    j0 = block * _TURNED_COLUMNS
    n, start = min(_TURNED_COLUMNS, cols - j0), c0 + j0
    own = worker * _TURNED_COLUMNS * ((rows + width - 1) // width * width)
    turned_product(rows, n, depth, panels, 0, b, b0 + j0 * b_col, b_col, space, own, False)
    turn_back(rows, n, space, own, c, start, c_row, accumulate)
    if last and (bias.size > 0 or activation[1] != 0):
        call(finish_rows, (c, start, c_row, rows, n, bias, j0 * bias_col, bias_row, bias_col, activation))


@launcher
def _turned(threads, rows, cols, depth, a, a_row, b, b_col, c, c_row, accumulate, bias, bias_row, bias_col, activation, panels, space):
    width = NV * lanes(c)
    for k0 in range(0, depth, _TURNED_STEPS):
        k = min(_TURNED_STEPS, depth - k0)
        parallel(pack_panels, (rows + width - 1) // width, threads, (a, k0, 1, a_row, k, rows, panels))
        parallel(
            _turned_block,
            (cols + _TURNED_COLUMNS - 1) // _TURNED_COLUMNS,
            threads,
            (
                rows, cols, k, panels, b, k0, b_col, c, 0, c_row, accumulate or k0 > 0, bias, bias_row, bias_col, k0 + k == depth,
                activation, space,
            ),
        )  # fmt: skip


def is_turned(rows: int, cols: int, width: int) -> bool:
    """Whether a product with a transposed matrix is computed turned: where rows fill panels well, 16 or 100 of them being slower."""
    return rows <= min(cols, _TURNED_ROWS) and -rows % width * 8 <= rows


def _turned_layout(rows: int, depth: int, threads: int, width: int) -> tuple[int, int]:
    """Elements of the panels of A, and of the threads' blocks, for ``_turned``."""
    whole = -(-rows // width) * width
    return whole * min(depth, _TURNED_STEPS), threads * _TURNED_COLUMNS * whole


# Many rows of A by so few columns, panels of B that are packed once, and steps: C is what takes time. A transposed B of that size is
# turned first, read as it lies it takes 10 ns for each element of C: 20000 rows of 8 steps by 4 columns 29.7 to 3.5 ns a row.
_MANY_ROWS, _NARROW_COLUMNS, _NARROW_STEPS = 128, 32, 256
# A column of up to so many steps is no row turned, 4 ns an element; AVX2 takes as long to store an element by a mask.
_COLUMN_STEPS = 8 if VECTOR_BYTES == 64 else 0


def _is_narrow(rows: int, cols: int, depth: int) -> bool:
    return rows >= _MANY_ROWS and cols <= _NARROW_COLUMNS and depth <= _NARROW_STEPS


@lru_cache(maxsize=4096)
def _transposed_way(rows: int, cols: int, depth: int, dtype: str, alone: bool) -> tuple[int, float]:
    """The fastest of the ways to multiply with a transposed B, for a product that is ``alone`` or one of a batch, and its predicted cycles.

    On a Zen 4 1280 x 1000 is read in place by up to 28 rows, and 64 x 64 by up to 10.
    """
    lanes_, width, size = LANES[dtype], panel_width(dtype), VECTOR_BYTES // LANES[dtype]
    vectors, packing = depth / lanes_ / FMAS_PER_CYCLE, 0.2 + 4 / lanes_
    # A tile of four rows reads 4 + lanes / 4 vectors for as many products as lanes, 32 bytes of L2 a cycle (40 of large cores, and 64 of L1);
    # a last step that fills no vector is masked. One row or two wait for B.
    b_bytes = cols * depth * size
    read = 32 if not LARGE_CORE or b_bytes > _FAR_B_BYTES else 64 if b_bytes <= _NEAR_B_BYTES else 40
    a_step = max(1.08 / FMAS_PER_CYCLE, (4 / lanes_ + 0.25) * VECTOR_BYTES / read)
    sums = (_SUM_OF_16 if lanes_ == 16 else _SUM_OF_FEWER) + -(-depth // lanes_) * a_step + (2 if depth % lanes_ else 0)
    in_place = max(rows * cols * sums, b_bytes / _BYTES_A_CYCLE)
    whole = -(-cols // lanes_) * lanes_
    by_panels = -(-rows // MR) * MR * whole * (_STORE_CYCLES + vectors) + packing * whole * depth
    turned = math.inf
    if alone and is_turned(rows, cols, width):
        turned = rows * cols * (_STORE_CYCLES + vectors) + packing * rows * depth + _TURNED_CYCLES
    if in_place < min(by_panels, turned) or rows <= _FEWEST_ROWS:
        return _IN_PLACE, in_place
    panel = by_panels <= turned and rows <= (_FEW_PANEL_ROWS if depth > _LONG_PANEL else _PANEL_ROWS)
    return (_BY_PANELS if alone and panel else _BY_BLOCKS), by_panels


def _reads_in_place(batch: int, rows: int, cols: int, depth: int, a_col: int, b_row: int, b_col: int, dtype: str) -> bool:
    """Whether both matrices are read where they lie: B by rows, or by columns with the rows of A."""
    if b_col == 1:
        return rows * cols * depth <= _SMALL_BY_ROWS or rows <= _FEW_ROWS or depth <= _FEW_STEPS or _is_narrow(rows, cols, depth)
    return a_col == 1 and b_row == 1 and _transposed_way(rows, cols, depth, dtype, batch == 1)[0] == _IN_PLACE


def _grid(count: int, rows: int, cols: int, kc: int, joined: bool, threads: int, width: int) -> tuple[int, int, int, int]:
    """Parts of the rows and rows of one, strips of columns and columns of one: enough blocks for every thread to have its share."""
    # A panel is as many bytes wide in float64.
    most = _PANELS if rows > _PACKING_ROWS else max(_FEW_PANELS, min(_PANELS, _PANEL_BYTES // (kc * NV * VECTOR_BYTES)))
    panels = min(most, -(-cols // width))
    if joined and panels * width >= cols:
        # As many rows for every thread, and each packs all columns: 2048 to 512 channels at 7x7, batch of 8, take 4.0 ms, 4.6 by parts of them.
        shares = threads * max(1, rows // (threads * _JOINED_ROWS))
        high = -(-rows // (shares * MR)) * MR
        if high >= _SHARED_ROWS:
            return -(-rows // high), high, 1, panels * width
    shares = max(1, rows // _JOINED_ROWS) if joined else 1
    high = min(rows, -(-rows // (shares * MR)) * MR)
    for few_panels, few_rows in ((_FEW_PANELS, rows), (_FEW_PANELS, _ROWS), (1, _ROWS), (1, _FEW_ROWS_EACH)):
        while threads > 1 and count * -(-rows // high) * -(-cols // (panels * width)) < _SHARES * threads:
            if panels > few_panels:
                panels = -(-panels // 2)
            elif high > few_rows:
                high = -(-high // (2 * MR)) * MR
            else:
                break
    return -(-rows // high), high, -(-cols // (panels * width)), panels * width


def _chunk(depth: int, sums: int) -> tuple[int, int]:
    """Items of a sum that are multiplied at a time, and steps of a chunk: at most KC, and no sliver."""
    if sums > 1 and 2 * depth <= KC:
        return KC // depth, KC // depth * depth
    return 1, max(1, -(-depth // max(1, -(-depth // KC))))


def _blocks(count: int, sums: int, rows: int, cols: int, depth: int, joined: bool, threads: int, width: int) -> tuple[Any, ...]:
    """How ``_blocked`` goes about a product: its blocks, grid and chunk, and where the panels, the copies and the blocks end in its memory."""
    together, kc = _chunk(depth, sums)
    grid = _grid(count, rows, cols, kc, joined, threads, width)
    _, high, _, nc = grid
    room = kc * nc + -(-kc // _TAIL) * width  # panels of a thread, and its last columns
    panels = threads * room
    copies = panels + threads * kc * _MC
    blocks = copies + (threads * high * nc if joined else 0)
    return count * grid[0] * grid[2], grid, (together, kc, room), panels, copies, blocks


@lru_cache(maxsize=1024)
def _planned(
    count: int, sums: int, rows: int, cols: int, depth: int, runs: Any, threads: int, dtype: str, a_strides: Any, b_strides: Any, c_strides: Any,
    accumulate: bool, bias_axis: int, activation: int,
) -> tuple[int, np.ndarray, int]:  # fmt: skip
    """The blocks of a product, what ``_block`` reads, and the elements of its memory."""
    blocks, grid, chunk, panels, copies, room = _blocks(count, sums, rows, cols, depth, runs is not None, threads, panel_width(dtype))
    numbers = (
        *grid, sums, rows, cols, depth, *chunk, *(runs or (cols, 0, 0)), *a_strides, *b_strides, *c_strides, accumulate, bias_axis == 0, bias_axis == 1,
        *activation_entry(activation, dtype), panels, copies,
    )  # fmt: skip
    return blocks, np.array(numbers, np.intp), room


def gemm_workspace(rows: int, cols: int, depth: int, dtype: str, threads: int, batch: int = 1, *, joined: bool = False, summed: bool = False) -> int:
    """Bytes of scratch memory that products of these sizes take."""
    width = panel_width(dtype)
    sums, count = (batch, 1) if summed else (1, batch)
    room = _blocks(count, sums, rows, cols, depth, joined, threads, width)[-1]
    turned = sum(_turned_layout(rows, depth, threads, width)) if batch == 1 and is_turned(rows, cols, width) else 0
    return max(turned, room) * np.dtype(dtype).itemsize


@launcher
def _direct_matrix(threads, way, a, a_turned, b, b_turned, c, panels):
    rows, cols = c.shape
    depth = a.shape[0 if a_turned else 1]
    a_row, a_col = (1, rows) if a_turned else (depth, 1)
    b_row, b_col = (1, depth) if b_turned else (cols, 1)
    strip = _strip(threads, 1, rows, cols)
    strips = (cols + strip - 1) // strip
    flat = c.reshape(-1)
    parallel(
        _direct_block,
        strips * ((rows + _HIGH - 1) // _HIGH),
        threads,
        (
            way, 1, strip, strips, 1, rows, cols, depth, c.dtype.type(1), a.reshape(-1), 0, a_row, a_col, b.reshape(-1), 0, b_row, b_col, flat, 0, cols,
            False, flat[:0], 0, 1, (0, 0), panels, panels,
        ),
    )  # fmt: skip


def multiply(a, b, c, a_turned=False, b_turned=False):
    """c (M, N) = a (M, K) @ b (K, N), all C-contiguous and not empty; turned, a is (K, M) and b (N, K). Nothing is checked here.

    ``gemm_strided`` with few arguments: a product of 32 x 32 x 32 takes 2 us, and passing its arguments would take as long.
    """
    rows, cols = c.shape
    depth = a.shape[0 if a_turned else 1]
    work = rows * cols * depth
    dtype = NAMES[c.dtype.char]
    width = panel_width(dtype)
    b_row, b_col = (1, depth) if b_turned else (cols, 1)
    narrow = b_turned and _is_narrow(rows, cols, depth)
    if cols > 1 and not narrow and _reads_in_place(1, rows, cols, depth, rows if a_turned else 1, b_row, b_col, dtype):
        threads = _threads.threads_for(work * 0.04)
        panels = c[0] if cols % width == 0 or (b_turned and depth > 1) else scratch(threads * width * depth, dtype)
        _direct_matrix(threads, _way(rows, cols, depth, b_col, dtype), a, a_turned, b, b_turned, c, panels)
        return
    gemm_strided(
        1, rows, cols, depth, a.reshape(-1), (0, 1, rows) if a_turned else (0, depth, 1), b.reshape(-1),
        (0, b_row, b_col), c.reshape(-1), (0, cols),
    )  # fmt: skip


def gemm_strided(
    batch, rows, cols, depth, a, a_strides, b, b_strides, c, c_strides, *, alpha=1.0, accumulate=False, bias=None, bias_axis=1,
    activation=0, summed=False, runs=None,
):  # fmt: skip
    """c[z] (+)= alpha * a[z] @ b[z] over flat arrays; strides are (batch, row, column) in elements, c's (batch, row);
    the rows or the columns of a follow one another, those of b need not.

    The bias is added along rows (``bias_axis=0``: one value a row) or columns. With ``summed`` there is one c, the sum over the
    batch. ``runs``: (columns of a run, distance of runs in b, distance of runs in c), where columns, which follow one another in
    b and c, do so in runs alone; not with ``accumulate``. Nothing is checked here.
    """
    dtype = NAMES[c.dtype.char]
    width = panel_width(dtype)
    if cols == 1:
        b_strides = (*b_strides[:2], 1)
    elif b_strides[1:] == (1, depth) and batch == 1 and _is_narrow(rows, cols, depth):
        b, b_strides = b[: cols * depth].reshape(cols, depth).T.reshape(-1), (0, cols, 1)
    if cols == 1 and rows > 1 and c_strides[1] == 1 and not (depth <= _COLUMN_STEPS and rows >= _MANY_ROWS):  # the row that is its transpose
        rows, cols, c_strides = cols, rows, (c_strides[0], rows)
        (a, a_strides), (b, b_strides) = (b, (b_strides[0], 1, b_strides[1])), (a, (a_strides[0], a_strides[2], a_strides[1]))
        bias_axis = 1 - bias_axis
    threads = _threads.threads_for(batch * rows * cols * depth * (0.01 if dtype == "float32" else 0.02))
    if bias is None:
        bias = c[:0]
    plain = runs is None and not summed
    if plain and _are_tiny(batch, rows, cols, depth) and not accumulate and bias.size == 0 and activation == 0:
        if (a_strides[0], b_strides[0], *c_strides) == (rows * depth, depth * cols, rows * cols, cols):
            threads = _threads.threads_for(batch * (20 + 0.1 * rows * cols * depth))
            together = rows_together(max(rows * depth, depth * cols, rows * cols))
            _tiny(threads, together, batch, rows, cols, depth, c.dtype.type(alpha), a, *a_strides[1:], b, *b_strides[1:], c, turned_rows(threads, 3, c.dtype))
            return
    if plain and _reads_in_place(batch, rows, cols, depth, a_strides[2], b_strides[1], b_strides[2], dtype):
        panels = threads * width * depth
        space = scratch(panels + (threads * min(_HIGH, rows) * depth if alpha != 1 else 0), dtype)
        _direct(
            threads, _way(rows, cols, depth, b_strides[2], dtype), batch, rows, cols, depth, c.dtype.type(alpha), a, *a_strides, b, *b_strides,
            c, *c_strides, accumulate, bias, int(bias_axis == 0), int(bias_axis == 1), activation_entry(activation, dtype),
            space[:panels], space[panels:],
        )  # fmt: skip
        return
    if plain and alpha == 1 and a_strides[2] == 1 and b_strides[1] == 1 and batch == 1 and is_turned(rows, cols, width):
        packed, blocks = _turned_layout(rows, depth, threads, width)
        space = scratch(packed + blocks, dtype)
        _turned(
            threads, rows, cols, depth, a, a_strides[1], b, b_strides[2], c, c_strides[1], accumulate, bias, int(bias_axis == 0),
            int(bias_axis == 1), activation_entry(activation, dtype), space[:packed], space[packed:],
        )  # fmt: skip
        return
    sums, count = (batch, 1) if summed else (1, batch)
    blocks, numbers, room = _planned(count, sums, rows, cols, depth, runs, threads, dtype, a_strides, b_strides, c_strides, accumulate, bias_axis, activation)
    _blocked(threads, blocks, numbers, a, b, c, c.dtype.type(alpha), bias, scratch(room, dtype))


@separate
def _rows_by_rows_block(block, worker, strip, a, b, bias, activation, c):
    """Columns block * strip ... of c (M, N) = a (M, K) times b (N, K) transposed."""
    M, K = a.shape
    N = b.shape[0]
    j0 = block * strip
    n = min(strip, N - j0)
    flat = c.reshape(-1)
    call(dot_products, (M, n, K, a.reshape(-1), 0, K, b.reshape(-1), j0 * K, K, flat, j0, N, False))
    if bias.size > 0 or activation[1] != 0:
        call(finish_rows, (flat, j0, N, M, n, bias, j0, 0, 1, activation))


@launcher
def _rows_by_rows(threads, strip, a, b, bias, activation, c):
    parallel(_rows_by_rows_block, (b.shape[0] + strip - 1) // strip, threads, (strip, a, b, bias, activation, c))


@separate
def _rows_by_panels_block(block, worker, parts, high, a, b, bias, activation, c, panels):
    """Some rows of the columns of a panel, which is packed first."""
    M, K = a.shape
    N = b.shape[0]
    width = NV * lanes(c)
    i0, j0, p0 = block % parts * high, block // parts * width, worker * width * K
    m, n, flat = min(high, M - i0), min(width, N - j0), c.reshape(-1)
    call(pack_panels, (0, worker, b.reshape(-1), j0 * K, 1, K, K, n, panels[p0 : p0 + width * K]))
    call(packed_rows, (m, n, K, a.reshape(-1), i0 * K, K, panels, p0, bias, j0, flat, i0 * N + j0, N, activation))


@launcher
def _rows_by_panels(threads, parts, high, a, b, bias, activation, c, panels):
    width = NV * lanes(c)
    parallel(_rows_by_panels_block, parts * ((b.shape[0] + width - 1) // width), threads, (parts, high, a, b, bias, activation, c, panels))


def rows_by_rows(a, b, bias, activation, c):
    """c (M, N) = activation(a (M, K) b (N, K)^T + bias), all C-contiguous and not empty but for ``bias`` (N,), which may be.

    ``gemm_strided`` with few arguments, and with two ways of its own for rows that are few. Nothing is checked here.
    """
    (rows, depth), cols = a.shape, b.shape[0]
    dtype = NAMES[c.dtype.char]
    way, cycles = _transposed_way(rows, cols, depth, dtype, True)
    if way == _IN_PLACE:
        threads = _threads.threads_for(cycles / CYCLES_PER_NS)
        strip = _STRIP if threads == 1 else min(_STRIP, -(-cols // (_SHARES * threads * LANES[dtype])) * LANES[dtype])
        _rows_by_rows(threads, strip, a, b, bias, activation_entry(activation, dtype), c)
    elif way == _BY_PANELS:
        threads, width, high = _threads.threads_for(cycles / CYCLES_PER_NS), panel_width(dtype), rows
        while -(-rows // high) * -(-cols // width) < 2 * threads and high >= 2 * _ROWS:
            high = -(-high // (2 * MR)) * MR
        _rows_by_panels(threads, -(-rows // high), high, a, b, bias, activation_entry(activation, dtype), c, scratch(threads * width * depth, dtype))
    else:
        gemm_strided(
            1, rows, cols, depth, a.reshape(-1), (0, depth, 1), b.reshape(-1), (0, 1, depth), c.reshape(-1), (0, cols),
            bias=bias if bias.size else None, activation=activation,
        )  # fmt: skip


def projected(rows, weight, bias, out=None):
    """rows (M, K) weight (N, K)^T + bias (N,) or None, as a dense layer has it; new, or in ``out``. Nothing is checked here."""
    if rows.size == 0 or weight.size == 0:
        return gemm(rows, weight.T, bias=bias, out=out)
    y = empty((rows.shape[0], weight.shape[0]), rows.dtype) if out is None else out
    rows_by_rows(rows, weight, y[0, :0] if bias is None else bias, 0, y)
    return y


def gemm(a, b, *, out=None, alpha=1.0, accumulate=False, bias=None, activation=None):
    """``out (+)= activation(alpha * a @ b + bias)`` for matrices or batches of them.

    Args:
        a: (..., M, K), float32 or float64; a transposed view costs nothing extra.
        b: (..., K, N), same dtype; leading axes broadcast with those of ``a``.
        out: (..., M, N), C-contiguous, overwritten or, with ``accumulate``, added to; it may share memory with a and b.
        bias: (N,).
        activation: a name in ``fastops.simd.epilogue.ACTIVATIONS``, or None.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: other dtypes, or dtypes that differ.

    >>> import numpy as np
    >>> gemm(np.ones((2, 3)), np.ones((3, 2)))
    array([[3., 3.],
           [3., 3.]])
    """
    a, b = _for_kernels(a), _for_kernels(b)
    bias = None if bias is None else _for_kernels(bias)
    if a.dtype != b.dtype or a.dtype.char not in "fd":
        raise TypeError(f"gemm: a and b must both be float32 or both float64, got {a.dtype} and {b.dtype}")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"gemm: a must be (..., M, K) and b (..., K, N), got {a.shape} and {b.shape}")
    rows, depth, cols = a.shape[-2], a.shape[-1], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if a.ndim + b.ndim > 4 else ()
    fresh = out is None
    if fresh:
        out = np.zeros((*lead, rows, cols), a.dtype) if accumulate else empty((*lead, rows, cols), a.dtype)
    elif out.shape != (*lead, rows, cols) or out.dtype != a.dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"gemm: out must be C-contiguous, writeable, {(*lead, rows, cols)} {a.dtype}, got {out.shape} {out.dtype}")
    elif not out.flags.aligned:
        raise ValueError("gemm: out must be aligned")
    if activation not in ACTIVATIONS and activation is not None:
        raise ValueError(f"gemm: activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if bias is not None and (bias.shape != (cols,) or bias.dtype != a.dtype):
        raise ValueError(f"gemm: bias must be ({cols},) {a.dtype}, got {bias.shape} {bias.dtype}")
    if out.size == 0:
        return out
    if not fresh and any(m is not None and np.may_share_memory(out, m) for m in (a, b, bias)):
        beside = out.copy() if accumulate else empty_like(out)
        out[...] = gemm(a, b, out=beside, alpha=alpha, accumulate=accumulate, bias=bias, activation=activation)
        return out
    (a, a_strides), (b, b_strides) = (_flat(m, lead) for m in (a, b))
    code = ACTIVATIONS[activation] if activation else 0
    bias = np.ascontiguousarray(bias) if bias is not None else None
    if depth == 0:
        depth, a, b, a_strides, b_strides = 1, np.zeros(rows, a.dtype), np.zeros(cols, a.dtype), (0, 1, rows), (0, cols, 1)
    batch = out.size // (rows * cols)
    gemm_strided(
        batch, rows, cols, depth, a, a_strides, b, b_strides, out.reshape(-1), (rows * cols, cols), alpha=alpha,
        accumulate=accumulate, bias=bias, activation=code,
    )  # fmt: skip
    return out


def _for_kernels(m: Any) -> np.ndarray:
    """The array with its bytes in this machine's order, aligned and writeable: others are types of their own to Numba."""
    if type(m) is np.ndarray and m.flags.behaved and m.dtype.isnative:
        return m
    m = np.asarray(m)
    return np.require(m, m.dtype.newbyteorder("="), ["A", "W"])


def _flat(m: np.ndarray, lead: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The elements of a matrix (or batch) as a flat array, and its strides; copied where no strides say it."""
    if m.ndim == 2:
        if m.flags.c_contiguous:
            return m.reshape(-1), (0, m.shape[1], 1)
        if m.flags.f_contiguous:
            return m.T.reshape(-1), (0, 1, m.shape[0])
        return np.ascontiguousarray(m).reshape(-1), (0, m.shape[1], 1)
    if m.shape[:-2] != lead:
        m = np.broadcast_to(m, (*lead, *m.shape[-2:]))
    turned = m.swapaxes(-1, -2)
    if turned.flags.c_contiguous and not m.flags.c_contiguous:
        return turned.reshape(-1), (m.shape[-1] * m.shape[-2], 1, m.shape[-2])
    return np.ascontiguousarray(m).reshape(-1), (m.shape[-1] * m.shape[-2], m.shape[-1], 1)
