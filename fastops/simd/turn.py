"""Transposes of the items of a batch, as between channels first and channels last."""

from __future__ import annotations

import numpy as np

from fastops import _threads
from fastops._jit import launcher, parallel, separate
from fastops.simd.vector import lanes, load_square, load_square_part, store_square_part, store_tile, transpose

# Columns of a block, in vectors: 256 bytes of each row are read from one place.
_WIDE = 4


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
