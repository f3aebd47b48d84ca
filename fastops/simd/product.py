"""The product of a block of A with panels of B: the one inner loop under GEMM and every convolution.

A is read where it lies, with any row and column stride: its elements are broadcast, so neither order costs more than
the other. B is read in vectors of NR columns, from packed panels or from a row-major matrix. C is row-major.

Rows left over by the register tile are done by shorter tiles, columns left over by a masked store: nothing is computed
twice, and no memory outside C is touched. Every element of C sees the same chain of multiply-adds whatever tile it
falls into, so the result does not depend on how the caller cuts C into blocks.
"""

from __future__ import annotations

from typing import Any

from fastops._jit import function, separate
from fastops.simd.blocking import MR, NV
from fastops.simd.vector import element, lanes, offsets, outer, outer_at, store_tile, store_tile_part, tile_load_rows, tile_load_rows_part, zero_tile


def _tile_product(rows: int) -> Any:
    @function
    def product(cols, depth, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, accumulate):
        whole = cols >= NV * lanes(b)
        t = zero_tile(b, rows, NV)
        if accumulate:
            if whole:
                t = tile_load_rows(t, c, c0, c_row)
            else:
                t = tile_load_rows_part(t, c, c0, c_row, cols)
        for _ in range(depth):
            t = outer(t, a, a0, a_row, b, b0)
            a0 += a_col
            b0 += b_row
        if whole:
            store_tile(c, c0, c_row, t)
        else:
            store_tile_part(c, c0, c_row, t, cols)

    return product


_whole, _four, _two, _one = _tile_product(MR), _tile_product(4), _tile_product(2), _tile_product(1)


@separate
def block_product(rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, b_panel, c, c0, c_row, accumulate):
    """c[rows, cols] (+)= a[rows, depth] @ b[depth, cols].

    a[i, k] at a0 + i * a_row + k * a_col; panel p of b at b0 + p * b_panel, its row k at + k * b_row, NR elements that
    may all be read; c[i, j] at c0 + i * c_row + j.
    """
    width = NV * lanes(b)
    for j in range(0, cols, width):
        panel = b0 + j // width * b_panel
        left = cols - j
        i = 0
        while rows - i >= MR:
            _whole(left, depth, a, a0 + i * a_row, a_row, a_col, b, panel, b_row, c, c0 + i * c_row + j, c_row, accumulate)
            i += MR
        if rows - i >= 4:
            _four(left, depth, a, a0 + i * a_row, a_row, a_col, b, panel, b_row, c, c0 + i * c_row + j, c_row, accumulate)
            i += 4
        if rows - i >= 2:
            _two(left, depth, a, a0 + i * a_row, a_row, a_col, b, panel, b_row, c, c0 + i * c_row + j, c_row, accumulate)
            i += 2
        if rows - i >= 1:
            _one(left, depth, a, a0 + i * a_row, a_row, a_col, b, panel, b_row, c, c0 + i * c_row + j, c_row, accumulate)


def _table_product(rows: int) -> Any:
    @function
    def product(depth, a, a0, row_table, r0, steps, s0, b, b0, b_row, c, c0, c_row, accumulate):
        t = zero_tile(b, rows, NV)
        if accumulate:
            t = tile_load_rows(t, c, c0, c_row)
        at = offsets(row_table, r0, a0, rows)
        for k in range(depth):
            t = outer_at(t, a, at, element(steps, s0 + k), b, b0)
            b0 += b_row
        store_tile(c, c0, c_row, t)

    return product


_table_whole, _table_four, _table_two, _table_one = _table_product(MR), _table_product(4), _table_product(2), _table_product(1)


@separate
def table_product(rows, depth, a, a0, row_table, r0, steps, s0, b, b0, b_row, c, c0, c_row, accumulate):
    """c[i, :NR] (+)= sum over k of a[a0 + row_table[r0 + i] + steps[s0 + k]] * b[b0 + k * b_row ...].

    The matrix on the left is given by where its elements lie: the sum of a row's and a step's offset. That is what a
    convolution's matrix looks like inside the image (rows: output pixels; steps: kernel taps) and, turned, inside the
    gradient's (rows: taps; steps: pixels), so that it need not be made.
    """
    i = 0
    while rows - i >= MR:
        _table_whole(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate)
        i += MR
    if rows - i >= 4:
        _table_four(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate)
        i += 4
    if rows - i >= 2:
        _table_two(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate)
        i += 2
    if rows - i >= 1:
        _table_one(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate)
