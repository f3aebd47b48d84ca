"""Products with a matrix on the right that is packed ahead, as weights are that many calls share.

``gemm`` packs panels of B beside multiplying, for each block of C again. Here they are packed once for all calls, and a product
is nothing but tiles: 196 x 64 x 384 takes 38 us on a core of a Zen 5 (255 GFLOP/s), where ``gemm`` takes 54 with the same rows, and
60 for the transpose with 196 columns, which it packs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from fastops import _threads
from fastops._jit import call, function, launcher, parallel, separate
from fastops.simd.blocking import KC, LARGE_CORE, MR, NAMES, NV, panel_width
from fastops.simd.finish import activation_entry, confinement, finish_rows
from fastops.simd.pack import pack_panels
from fastops.simd.product import SUM, ZERO, far_product, finished_product
from fastops.simd.vector import lanes

# Rows that read all panels, before others do: what they have of A stays in L2 meanwhile.
_STRIP_BYTES = 128 << 10
_FEWEST_ROWS = 8 * MR
# Panels that are asked for ahead, where cores wait for L3: on a Granite Rapids MobileNetV2's layers with as many weights or more, at 7x7
# pixels and one image, take 0.93 ms instead of 1.05; smaller ones are at hand again, and asking costs 2 to 10 per cent.
_FAR_BYTES = 1 << 18
# Blocks for each thread, and the fewest rows of one.
_SHARES = 4
_FEW_ROWS = 2 * MR
# For weights on their way from L3: one row with 1280 x 1000 of them.
_NS_PER_BYTE = 0.03


@launcher
def _pack(threads, b, b_row, b_col, depth, cols, packed):
    width = NV * lanes(packed)
    parallel(pack_panels, (cols + width - 1) // width, threads, (b, 0, b_row, b_col, depth, cols, packed))


def packed_size(depth: int, cols: int, dtype: str) -> int:
    """Elements of a b[depth, cols] in panels."""
    width = panel_width(dtype)
    return -(-cols // width) * width * depth


def pack_right(b: np.ndarray, b_row: int, b_col: int, depth: int, cols: int, packed: np.ndarray) -> None:
    """Writes the panels of b[depth, cols], which lies flat, its rows and columns so far apart."""
    _pack(_threads.threads_for(packed.size), b, b_row, b_col, depth, cols, packed)


def _rows_by(product: Any, name: str) -> Any:
    @separate(name=name)
    def rows_body(rows, cols, depth, a, a0, a_row, panels, p0, bias, bias0, c, c0, c_row, activation):
        """c[rows, cols] = activation(a[rows, depth] times the panels from panels[p0] on + bias), ``bias`` empty, or from bias[bias0] on."""
        width = NV * lanes(c)
        confined, low, most = confinement(activation, c)
        for k in range(0, depth, KC):
            some = min(KC, depth - k)
            old, old0, old_row = (c, c0, c_row) if k > 0 else (bias, bias0, 0)
            start = SUM if k > 0 or bias.size > 0 else ZERO
            call(product, (
                rows, cols, some, a, a0 + k, a_row, 1, MR * a_row, panels, p0 + k * width, width, depth * width,
                c, c0, c_row, start, old, old0, old_row, confined and k + some == depth, low, most,
            ))  # fmt: skip
        if activation[1] != 0 and not confined:
            call(finish_rows, (c, c0, c_row, rows, cols, bias[:0], 0, 0, 0, activation))

    return rows_body


packed_rows = _rows_by(finished_product, "packed_rows")
_far_rows = _rows_by(far_product, "_far_rows") if LARGE_CORE else packed_rows


@function
def rows_with_packed(rows, cols, depth, a, a0, a_row, panels, p0, bias, bias0, c, c0, c_row, activation):
    """As ``packed_rows``, where ``panels`` is all that a call, or a thread of it, goes through before it comes back."""
    arguments = (rows, cols, depth, a, a0, a_row, panels, p0, bias, bias0, c, c0, c_row, activation)
    if panels.size * panels.itemsize >= _FAR_BYTES:
        call(_far_rows, arguments)
    else:
        call(packed_rows, arguments)


@separate
def _packed_block(block, worker, high, wide, size, a, a_row, panels, bias, c, c_row, activation):
    """Some rows of c times some panels."""
    rows, cols, depth = size
    strips = (rows + high - 1) // high
    top, j0 = block % strips * high, block // strips * wide
    m, n = min(high, rows - top), min(wide, cols - j0)
    rows_with_packed(m, n, depth, a, top * a_row, a_row, panels, j0 * depth, bias, j0, c, top * c_row + j0, c_row, activation)


@launcher
def _packed(threads, blocks, high, wide, size, a, a_row, panels, bias, c, c_row, activation):
    parallel(_packed_block, blocks, threads, (high, wide, size, a, a_row, panels, bias, c, c_row, activation))


@lru_cache(maxsize=1024)
def _grid(rows: int, cols: int, depth: int, width: int, itemsize: int, threads: int) -> tuple[int, int, int]:
    """Blocks, and rows and columns of one."""
    high = min(rows, max(_FEWEST_ROWS, _STRIP_BYTES // (depth * itemsize) // MR * MR))
    count = -(-cols // width)
    strips, parts = -(-rows // high), 1
    if threads > 1:
        parts = min(count, -(-_SHARES * threads // strips))
        high = min(high, max(_FEW_ROWS, -(-rows // -(-_SHARES * threads // parts) // MR) * MR))
        strips = -(-rows // high)
    wide = -(-count // parts) * width
    return strips * -(-cols // wide), high, wide


def product_with_packed(
    rows: int, cols: int, depth: int, a: np.ndarray, a_row: int, panels: np.ndarray, bias: np.ndarray, c: np.ndarray, c_row: int, activation: int,
) -> None:  # fmt: skip
    """c = activation(a b + bias) of flat arrays whose rows are so far apart; ``bias`` is empty, or one number for each column."""
    dtype = NAMES[c.dtype.char]
    ns = max(rows * cols * depth * (0.01 if dtype == "float32" else 0.02), panels.nbytes * _NS_PER_BYTE)
    threads = _threads.threads_for(ns)
    blocks, high, wide = _grid(rows, cols, depth, panel_width(dtype), c.itemsize, threads)
    _packed(threads, blocks, high, wide, (rows, cols, depth), a, a_row, panels, bias, c, c_row, activation_entry(activation, dtype))
