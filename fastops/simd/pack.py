"""Copies of matrices in the order in which a product reads them."""

from __future__ import annotations

from fastops._jit import function, separate
from fastops.simd.blocking import MR, NV
from fastops.simd.vector import lanes, load, load_part, load_square, load_square_part, splat, store, store_part, store_tile, transpose


@function
def transpose_block(a, a0, a_row, out, out0, out_row):
    """out[j, i] = a[i, j] for as many rows and columns as a vector has lanes."""
    store_tile(out, out0, out_row, transpose(load_square(a, a0, a_row)))


@separate
def pack_panels(block, worker, b, b0, b_row, b_col, depth, cols, packed):
    """Panel ``block`` of b[depth, cols]: NR columns of it, row after row, zeros where b has no more columns."""
    count = lanes(packed)
    width = NV * count
    left = cols - block * width
    to = block * width * depth
    source = b0 + block * width * b_col
    if b_col == 1:
        for _ in range(depth):
            for v in range(0, width, count):
                if left >= width:
                    store(packed, to + v, load(b, source + v))
                else:
                    store(packed, to + v, load_part(b, source + v, left - v))
            source += b_row
            to += width
        return
    for v in range(0, width, count):
        k = 0
        if b_row == 1:
            while depth - k >= count:
                from_, at = source + v * b_col + k, to + k * width + v
                if left - v >= count:
                    transpose_block(b, from_, b_col, packed, at, width)
                else:  # one by one, the zeros of half a panel take longer than a product of 16 x 16 x 16
                    store_tile(packed, at, width, transpose(load_square_part(b, from_, b_col, left - v, count)))
                k += count
        while k < depth:
            for j in range(v, v + count):
                packed[to + k * width + j] = b[source + j * b_col + k * b_row] if j < left else packed.dtype.type(0)
            k += 1


@function
def copy_run(source, s0, out, o0, count):
    """out[o0 + i] = source[s0 + i] for i < count."""
    step = lanes(out)
    i = 0
    while count - i >= step:
        store(out, o0 + i, load(source, s0 + i))
        i += step
    if i < count:
        tail = load_part(source, s0 + i, count - i)
        store_part(out, o0 + i, tail, count - i)


@function
def scale_run(source, s0, out, o0, count, factor):
    """out[o0 + i] = factor * source[s0 + i] for i < count."""
    step = lanes(out)
    by = splat(out, factor)
    i = 0
    while count - i >= step:
        store(out, o0 + i, load(source, s0 + i) * by)
        i += step
    if i < count:
        store_part(out, o0 + i, load_part(source, s0 + i, count - i) * by, count - i)


@function
def pack_tiles(a, a0, a_col, m, k, alpha, copies, at, tile):
    """Columns of A as rows of its tiles: copies[at + i // MR * tile + j * MR + i % MR] = alpha * a[a0 + i + j * a_col].

    Side by side a tile's elements take as many cache lines as they fill; in columns each step has a line of its own. The gradient of
    320 to 1280 channels at 7x7, batch of 8, takes 5.2 ms by columns on a Zen 3, so 4.4.
    """
    by, count = splat(copies, alpha), lanes(copies)
    for i in range(0, m, MR):
        some, to = min(MR, m - i), at + i // MR * tile
        for j in range(k):
            for v in range(0, MR, count):
                value = load_part(a, a0 + i + j * a_col + v, some - v) * by
                if j < k - 1:
                    store(copies, to + j * MR + v, value)  # what is too much is overwritten by the next
                else:
                    store_part(copies, to + j * MR + v, value, MR - v)
