"""Transposes: of the items of a batch, as between channels first and channels last; of short rows, for kernels that take columns.

A row costs a kernel 10 to 30 ns before its first element counts: a remainder that fills no vector, a sum over lanes, a root, a
division. Rows turned into columns share all of that, a lane each, and turning takes 1.2 ns a row up to the length of a vector, 2.5 ns
for 17 elements and 12 for 100 (float32, a Zen 4).
"""

from __future__ import annotations

import numpy as np

from fastops import _threads
from fastops._jit import launcher, parallel, separate
from fastops.simd.vector import lanes, load_square, load_square_part, store_square_part, store_tile, transpose
from fastops.simd.workspace import scratch_array

# Columns of a block, in vectors: 256 bytes of each row are read from one place.
_WIDE = 4

# Elements of the rows that are turned at a time, which stay near, and how many rows at most; the memory that they take.
_TOGETHER = 1 << 13
_ROWS = 256
TURNED = 2 * _TOGETHER + 336  # no whole pages: what is read from one must not seem to have just been written to another


@separate
def _block(block, worker, rows, cols, x, y):
    count = lanes(x)
    wide = _WIDE * count
    strips = (cols + wide - 1) // wide
    item, first = block // strips * rows * cols, block % strips * wide
    for i in range(0, rows, count):
        for j in range(first, min(first + wide, cols), count):
            at, to = item + i * cols + j, item + j * rows + i
            if rows - i >= count and cols - j >= count:
                store_tile(y, to, rows, transpose(load_square(x, at, cols)))
            else:
                store_square_part(y, to, rows, transpose(load_square_part(x, at, cols, rows - i, cols - j)), cols - j, rows - i)


@launcher
def _turn(threads, items, rows, cols, x, y):
    wide = _WIDE * lanes(x)
    parallel(_block, items * ((cols + wide - 1) // wide), threads, (rows, cols, x, y))


def turn(x: np.ndarray, y: np.ndarray) -> None:
    """y[n, j, i] = x[n, i, j], C-contiguous both and apart, float32 or float64."""
    items, rows, cols = x.shape
    if x.size:
        _turn(_threads.threads_for(0.2 * x.size), items, rows, cols, x.reshape(-1), y.reshape(-1))


def rows_together(width: int) -> int:
    """Rows that are turned at a time, in whole vectors; with what overhangs they take at most ``TURNED`` elements."""
    return min(_ROWS, max(16, _TOGETHER // width // 16 * 16))


def turned_rows(threads: int, arrays: int, dtype: np.dtype) -> np.ndarray:
    """Where each thread turns the rows of so many arrays: (threads, arrays, TURNED), each on a cache line, valid until the next call."""
    return scratch_array((threads, arrays, TURNED), dtype, "turned")


@separate
def turn_rows(x, x0, rows, width, y, step):
    """y[j * step + i] = x[x0 + i * width + j] for i < rows, j < width, step >= rows; y has ``TURNED`` elements."""
    L = lanes(x)
    i = 0
    # A square reads, and leaves in y, what overhangs a row. Two or three elements one by one take 0.6 and 0.8 ns instead of 1.2.
    while width > 3 and i < rows and i + L <= step and x0 + (i + L - 1) * width + max(width, L) <= x.size:
        j = 0
        while j < width:
            j = min(j, max(width - L, 0))  # the last square overlaps the one before it
            store_tile(y, j * step + i, step, transpose(load_square(x, x0 + i * width + j, width)))
            j += L
        i += L
    for j in range(width):
        for k in range(i, rows):
            y[np.uintp(j * step + k)] = x[np.uintp(x0 + k * width + j)]


@separate
def turn_columns(x, step, rows, width, y, y0):
    """y[y0 + i * width + j] = x[j * step + i]: the inverse, which writes nothing else; x has ``TURNED`` elements."""
    L, end = lanes(x), y0 + rows * width
    i = 0
    # what a square leaves beyond a short row, the next row overwrites
    while width > 3 and i < rows and y0 + (i + L - 1) * width + max(width, L) <= end:
        j = 0
        while j < width:
            j = min(j, max(width - L, 0))
            store_tile(y, y0 + i * width + j, width, transpose(load_square(x, j * step + i, step)))
            j += L
        i += L
    for j in range(width):
        for k in range(i, rows):
            y[np.uintp(y0 + k * width + j)] = x[np.uintp(j * step + k)]
