"""General matrix multiplication: the only entry to it.

Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008: the reduction is cut
into chunks of KC, a chunk of B is packed into panels that every thread reads, and blocks of C are shared out. Here A is
copied as it lies, not interleaved: the inner product reads it with any stride (``product.py``); the copy only keeps
rows a power of two apart from evicting each other.

Products of few rows, or small ones, read both matrices where they lie: copying would take longer than multiplying.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops import _threads
from fastops._jit import call, launcher, parallel, separate
from fastops._memory import empty, empty_like
from fastops.simd.blocking import KC, NV, panel_width
from fastops.simd.epilogue import ACTIVATIONS
from fastops.simd.finish import activation_entry, finish_rows
from fastops.simd.pack import copy_run, pack_panels, scale_run
from fastops.simd.product import block_product, dot_products, row_combinations
from fastops.simd.vector import lanes, load_square, load_square_part, store_square_part, store_tile, tile_add, transpose
from fastops.simd.workspace import scratch

# A block of A (MC x KC, 128 KB in float32) stays in L2 beside the panels of B that pass by.
_MC = 128
# The rows of A are read where they lie when so few panels pass by: 2048 x 49 x 512 takes 0.94 ms instead of 1.13.
_FEW_PANELS = 4
# A chunk of B is at most KC x NC: 4 MB in float32, shared by all threads.
_NC = 4096


@separate
def _product_block(
    block, worker, row_blocks, mc, nc, rows, cols, depth, a, a0, a_row, a_col, alpha, panels, c, c0, c_row, accumulate,
    bias, bias0, bias_row, bias_col, last, activation, copies,
):  # fmt: skip
    """Block number ``block`` of C, mc x nc of it, from a copy of its rows of A and the shared panels of B."""
    i0 = block % row_blocks * mc
    j0 = block // row_blocks * nc
    m = min(mc, rows - i0)
    n = min(nc, cols - j0)
    width = NV * lanes(panels)
    start = c0 + i0 * c_row + j0
    copy = worker * mc * depth
    in_place = a_col == 1 and alpha == 1 and n <= _FEW_PANELS * width
    if in_place:
        call(block_product, (m, n, depth, a, a0 + i0 * a_row, a_row, 1, panels, j0 * depth, width, width * depth, c, start, c_row, accumulate))
        row, col = 0, 0
    elif a_col == 1:
        for i in range(m):
            if alpha == 1:
                copy_run(a, a0 + (i0 + i) * a_row, copies, copy + i * depth, depth)
            else:
                scale_run(a, a0 + (i0 + i) * a_row, copies, copy + i * depth, depth, alpha)
        row, col = depth, 1
    else:
        for k in range(depth):
            if a_row == 1 and alpha == 1:
                copy_run(a, a0 + i0 + k * a_col, copies, copy + k * m, m)
            else:
                for i in range(m):
                    copies[copy + k * m + i] = alpha * a[a0 + (i0 + i) * a_row + k * a_col]
        row, col = 1, m
    if not in_place:
        call(block_product, (m, n, depth, copies, copy, row, col, panels, j0 * depth, width, width * depth, c, start, c_row, accumulate))
    if last:
        call(finish_rows, (c, start, c_row, m, n, bias, bias0 + i0 * bias_row + j0 * bias_col, bias_row, bias_col, activation))


@launcher
def _gemm(
    threads, batch, rows, cols, depth, kc, mc, nc, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch,
    c_row, alpha, accumulate, bias, bias_row, bias_col, activation, panels, copies,
):  # fmt: skip
    width = NV * lanes(panels)
    row_blocks = (rows + mc - 1) // mc
    for item in range(batch):
        for j0 in range(0, cols, _NC):
            n = min(_NC, cols - j0)
            for k0 in range(0, depth, kc):
                k = min(kc, depth - k0)
                b0 = item * b_batch + k0 * b_row + j0 * b_col
                a0 = item * a_batch + k0 * a_col
                parallel(pack_panels, (n + width - 1) // width, threads, (b, b0, b_row, b_col, k, n, panels))
                parallel(
                    _product_block,
                    row_blocks * ((n + nc - 1) // nc),
                    threads,
                    (
                        row_blocks, mc, nc, rows, n, k, a, a0, a_row, a_col, alpha, panels, c, item * c_batch + j0,
                        c_row, accumulate or k0 > 0, bias, j0 * bias_col, bias_row, bias_col, k0 + k == depth,
                        activation, copies,
                    ),
                )  # fmt: skip


# Columns of a strip that one thread packs for itself.
_OWN = 1024


@separate
def _own_strip(
    block, worker, strips, rows, cols, depth, kc, mc, nc, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch,
    c_row, alpha, accumulate, bias, bias_row, bias_col, activation, panels, copies,
):  # fmt: skip
    """A strip of columns of one product of the batch, with panels that no other thread reads."""
    width = NV * lanes(panels)
    item, j0 = block // strips, block % strips * nc
    n = min(nc, cols - j0)
    own = panels[worker * kc * nc : (worker + 1) * kc * nc]
    # Workers are in chunks of different depths at one time, so the room of each must not depend on the depth of its chunk.
    own_copies = copies[worker * mc * kc : (worker + 1) * mc * kc]
    for k0 in range(0, depth, kc):
        k = min(kc, depth - k0)
        b0 = item * b_batch + k0 * b_row + j0 * b_col
        a0 = item * a_batch + k0 * a_col
        for panel in range((n + width - 1) // width):
            call(pack_panels, (panel, worker, b, b0, b_row, b_col, k, n, own))
        for row_block in range((rows + mc - 1) // mc):
            call(
                _product_block,
                (
                    row_block, 0, (rows + mc - 1) // mc, mc, n, rows, n, k, a, a0, a_row, a_col, alpha, own, c,
                    item * c_batch + j0, c_row, accumulate or k0 > 0, bias, j0 * bias_col, bias_row, bias_col, k0 + k == depth,
                    activation, own_copies,
                ),
            )  # fmt: skip


@launcher
def _gemm_own(
    threads, batch, rows, cols, depth, kc, mc, nc, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch,
    c_row, alpha, accumulate, bias, bias_row, bias_col, activation, panels, copies,
):  # fmt: skip
    """As ``_gemm``, in one launch: for batches, and for so few rows that each panel is read by one thread anyway."""
    strips = (cols + nc - 1) // nc
    parallel(
        _own_strip, batch * strips, threads,
        (
            strips, rows, cols, depth, kc, mc, nc, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch,
            c_row, alpha, accumulate, bias, bias_row, bias_col, activation, panels, copies,
        ),
    )  # fmt: skip


# Up to so many multiply-adds, rows, or steps of the reduction B is read where it lies. Measured on AVX2: by rows 39 us instead
# of 43 for 128 x 128 x 128, by columns 18 instead of 19 for 32 x 32 x 32 and 63 instead of 43 for 128 x 128 x 128.
_SMALL_BY_ROWS = 1 << 21
_SMALL_BY_COLUMNS = 1 << 16
_FEW_ROWS = 8
_FEW_STEPS = 8
# Columns that one thread takes then.
_STRIP = 256


@separate
def _direct_block(
    block, worker, strips, rows, cols, depth, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch, c_row, accumulate,
    bias, bias_row, bias_col, activation, panels,
):  # fmt: skip
    """A strip of columns of one product of the batch; ``panels`` has room for a panel for each worker."""
    item, j0 = block // strips, block % strips * _STRIP
    n = min(_STRIP, cols - j0)
    a0, b0, start = item * a_batch, item * b_batch + j0 * b_col, item * c_batch + j0
    if b_col == 1 and rows <= 2 and depth >= 4 and n >= 64:
        call(row_combinations, (rows, n, depth, a, a0, a_row, a_col, b, b0, b_row, c, start, c_row, accumulate))
    elif b_col == 1:
        width = NV * lanes(c)
        whole = n // width * width
        call(block_product, (rows, whole, depth, a, a0, a_row, a_col, b, b0, b_row, width, c, start, c_row, accumulate))
        if whole < n:  # the last panel would be read beyond its end
            rest, shift = n - whole, worker * width
            call(pack_panels, (worker, worker, b, b0 + whole - shift, b_row, b_col, depth, rest + shift, panels))
            call(
                block_product,
                (rows, rest, depth, a, a0, a_row, a_col, panels, shift * depth, width, 0, c, start + whole, c_row, accumulate),
            )
    else:
        call(dot_products, (rows, n, depth, a, a0, a_row, b, b0, b_col, c, start, c_row, accumulate))
    if bias.size > 0 or activation[1] != 0:
        call(finish_rows, (c, start, c_row, rows, n, bias, j0 * bias_col, bias_row, bias_col, activation))


@launcher
def _direct(
    threads, batch, rows, cols, depth, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch, c_row, accumulate,
    bias, bias_row, bias_col, activation, panels,
):  # fmt: skip
    strips = (cols + _STRIP - 1) // _STRIP
    parallel(
        _direct_block,
        batch * strips,
        threads,
        (
            strips, rows, cols, depth, a, a_batch, a_row, a_col, b, b_batch, b_row, b_col, c, c_batch, c_row, accumulate,
            bias, bias_row, bias_col, activation, panels,
        ),
    )  # fmt: skip


# Up to so many rows of A, of a product with a transposed B whose columns are more, A is packed and not B, and the product
# comes out turned: linear 32x784x256 takes 0.13 ms instead of 0.16.
_TURNED_ROWS = 128
# Columns of C that one thread takes then, and steps of the reduction for which A is packed at a time.
_TURNED_COLUMNS = 64
_TURNED_STEPS = 4096


@separate
def _turned_block(block, worker, rows, cols, depth, panels, b, b0, b_col, c, c0, c_row, accumulate, bias, bias_row, bias_col, last, activation, space):
    """Columns of C as rows of its transpose: B is read where it lies, and broadcast; A^T stands in panels."""
    count = lanes(c)
    width = NV * count
    whole = (rows + width - 1) // width * width
    j0 = block * _TURNED_COLUMNS
    n = min(_TURNED_COLUMNS, cols - j0)
    own = worker * _TURNED_COLUMNS * whole
    for k0 in range(0, depth, KC):
        k = min(KC, depth - k0)
        call(
            block_product,
            (n, whole, k, b, b0 + j0 * b_col + k0, b_col, 1, panels, k0 * width, width, width * depth, space, own, whole, k0 > 0),
        )
    start = c0 + j0
    for i in range(0, n, count):
        for m in range(0, rows, count):
            t = transpose(load_square(space, own + i * whole + m, whole))
            to, high, wide = start + m * c_row + i, min(count, rows - m), min(count, n - i)
            if accumulate:
                t = tile_add(t, load_square_part(c, to, c_row, high, wide))
            if high == count and wide == count:
                store_tile(c, to, c_row, t)
            else:
                store_square_part(c, to, c_row, t, high, wide)
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


def _is_turned(batch: int, rows: int, cols: int, width: int) -> bool:
    """Whether a product with a transposed matrix is computed turned: where rows fill panels well, 16 or 100 of them being slower."""
    return batch == 1 and rows <= min(cols, _TURNED_ROWS) and -rows % width * 8 <= rows


def _turned_layout(rows: int, depth: int, threads: int, width: int) -> tuple[int, int]:
    """Elements of the panels of A, and of the threads' blocks, for ``_turned``."""
    whole = -(-rows // width) * width
    return whole * min(depth, _TURNED_STEPS), threads * _TURNED_COLUMNS * whole


def _reads_in_place(rows: int, cols: int, depth: int, a_col: int, b_row: int, b_col: int) -> bool:
    """Whether both matrices are read where they lie: B by rows, or by columns with the rows of A."""
    if b_col == 1:
        return rows * cols * depth <= _SMALL_BY_ROWS or rows <= _FEW_ROWS or depth <= _FEW_STEPS
    return a_col == 1 and b_row == 1 and (rows * cols * depth <= _SMALL_BY_COLUMNS or rows <= _FEW_ROWS)


def _blocks(rows: int, cols: int, threads: int, width: int) -> tuple[int, int]:
    """Rows and columns of a block of C: as large as the caches like, small enough that every thread has some."""
    mc, nc = min(_MC, rows), min(_NC, -(-cols // width) * width)
    while threads > 1 and -(-rows // mc) * -(-cols // nc) < 3 * threads:
        if nc >= 8 * width:
            nc = -(-nc // (2 * width)) * width
        elif mc > 32:
            mc = -(-mc // 16) * 8
        else:
            break
    return mc, nc


def _own_columns(batch: int, rows: int, cols: int, threads: int, width: int) -> int:
    """Columns of a strip for ``_gemm_own``; 0 where the threads should share panels."""
    if threads == 1 or (batch < 2 * threads and rows > _MC):
        return 0
    nc = min(_OWN, -(-cols // width) * width)
    while batch * -(-cols // nc) < 3 * threads and nc >= 2 * width:
        nc = -(-nc // (2 * width)) * width
    return nc if batch * -(-cols // nc) >= threads else 0


def _chunk(depth: int) -> int:
    """KC, evened out so that no chunk of the reduction is a sliver."""
    return max(1, -(-depth // max(1, -(-depth // KC))))


def _layout(batch: int, rows: int, cols: int, depth: int, threads: int, width: int) -> tuple[int, int, int, int, bool]:
    """kc, mc and nc of a product, the elements of its panels, and whether each thread packs its own."""
    kc, nc = _chunk(depth), _own_columns(batch, rows, cols, threads, width)
    if nc:
        return kc, min(_MC, rows), nc, threads * kc * nc, True
    mc, nc = _blocks(rows, min(cols, _NC), threads, width)
    return kc, mc, nc, kc * -(-min(cols, _NC) // width) * width, False


def gemm_workspace(rows: int, cols: int, depth: int, dtype: str, threads: int, batch: int = 1) -> int:
    """Bytes of scratch memory that products of these sizes take."""
    width = panel_width(dtype)
    kc, mc, _, panel_count, _ = _layout(batch, rows, cols, depth, threads, width)
    turned = sum(_turned_layout(rows, depth, threads, width)) if _is_turned(batch, rows, cols, width) else 0
    return max(turned, panel_count + threads * mc * kc) * np.dtype(dtype).itemsize


def _format(c: np.ndarray) -> str:
    """The name of its dtype, which the dtype itself takes a microsecond to tell."""
    return "float32" if c.itemsize == 4 else "float64"


@launcher
def _direct_matrix(threads, a, a_turned, b, b_turned, c, panels):
    rows, cols = c.shape
    depth = a.shape[0 if a_turned else 1]
    a_row, a_col = (1, rows) if a_turned else (depth, 1)
    b_row, b_col = (1, depth) if b_turned else (cols, 1)
    strips = (cols + _STRIP - 1) // _STRIP
    flat = c.reshape(-1)
    parallel(
        _direct_block,
        strips,
        threads,
        (
            strips, rows, cols, depth, a.reshape(-1), 0, a_row, a_col, b.reshape(-1), 0, b_row, b_col, flat, 0, cols, False,
            flat[:0], 0, 1, (0, 0), panels,
        ),
    )  # fmt: skip


def multiply(a, b, c, a_turned=False, b_turned=False):
    """c (M, N) = a (M, K) @ b (K, N), all C-contiguous and not empty; turned, a is (K, M) and b (N, K). Nothing is checked here.

    ``gemm_strided`` with few arguments: a product of 32 x 32 x 32 takes 2 us, and passing its arguments would take as long.
    """
    rows, cols = c.shape
    depth = a.shape[0 if a_turned else 1]
    work = rows * cols * depth
    if cols > 1 and _reads_in_place(rows, cols, depth, rows if a_turned else 1, 1 if b_turned else cols, depth if b_turned else 1):
        threads = _threads.threads_for(work * 0.04)
        dtype = _format(c)
        width = panel_width(dtype)
        panels = c[0] if cols % width == 0 or (b_turned and depth > 1) else scratch(threads * width * depth, dtype)
        _direct_matrix(threads, a, a_turned, b, b_turned, c, panels)
        return
    gemm_strided(
        1, rows, cols, depth, a.reshape(-1), (0, 1, rows) if a_turned else (0, depth, 1), b.reshape(-1),
        (0, 1, depth) if b_turned else (0, cols, 1), c.reshape(-1), (0, cols),
    )  # fmt: skip


def gemm_strided(batch, rows, cols, depth, a, a_strides, b, b_strides, c, c_strides, *, alpha=1.0, accumulate=False, bias=None, bias_axis=1, activation=0):
    """c[z] (+)= alpha * a[z] @ b[z] over flat arrays; strides are (batch, row, column) in elements, c's (batch, row).

    The bias is added along rows (``bias_axis=0``: one value a row) or columns. Nothing is checked here.
    """
    if cols == 1 and rows > 1 and c_strides[1] == 1:  # a column: the row that is its transpose
        rows, cols, c_strides = cols, rows, (c_strides[0], rows)
        (a, a_strides), (b, b_strides) = (b, (b_strides[0], 1, b_strides[1])), (a, (a_strides[0], a_strides[2], a_strides[1]))
        bias_axis = 1 - bias_axis
    dtype = _format(c)
    width = panel_width(dtype)
    threads = _threads.threads_for(batch * rows * cols * depth * (0.01 if dtype == "float32" else 0.02))
    if bias is None:
        bias = c[:0]
    if alpha == 1 and _reads_in_place(rows, cols, depth, a_strides[2], b_strides[1], b_strides[2]):
        _direct(
            threads, batch, rows, cols, depth, a, *a_strides, b, *b_strides, c, *c_strides, accumulate, bias,
            int(bias_axis == 0), int(bias_axis == 1), activation_entry(activation, dtype), scratch(threads * width * depth, dtype),
        )  # fmt: skip
        return
    if alpha == 1 and a_strides[2] == 1 and b_strides[1] == 1 and _is_turned(batch, rows, cols, width):
        packed, blocks = _turned_layout(rows, depth, threads, width)
        space = scratch(packed + blocks, dtype)
        _turned(
            threads, rows, cols, depth, a, a_strides[1], b, b_strides[2], c, c_strides[1], accumulate, bias, int(bias_axis == 0),
            int(bias_axis == 1), activation_entry(activation, dtype), space[:packed], space[packed:],
        )  # fmt: skip
        return
    kc, mc, nc, panel_count, own = _layout(batch, rows, cols, depth, threads, width)
    space = scratch(panel_count + threads * mc * kc, dtype)
    (_gemm_own if own else _gemm)(
        threads, batch, rows, cols, depth, kc, mc, nc, a, *a_strides, b, *b_strides, c, *c_strides,
        c.dtype.type(alpha), accumulate, bias, int(bias_axis == 0), int(bias_axis == 1),
        activation_entry(activation, dtype), space[:panel_count], space[panel_count:],
    )  # fmt: skip


@separate
def _rows_by_rows_block(block, worker, a, b, bias, address, code, c):
    """Columns block * 256 ... of c (M, N) = a (M, K) times b (N, K) transposed."""
    M, K = a.shape
    N = b.shape[0]
    j0 = block * _STRIP
    n = min(_STRIP, N - j0)
    flat = c.reshape(-1)
    call(dot_products, (M, n, K, a.reshape(-1), 0, K, b.reshape(-1), j0 * K, K, flat, j0, N, False))
    if bias.size > 0 or code != 0:
        call(finish_rows, (flat, j0, N, M, n, bias, j0, 0, 1, (address, code)))


@launcher
def rows_by_rows(threads, a, b, bias, address, code, c):
    """c (M, N) = activation(a (M, K) b (N, K)^T + bias), all C-contiguous: ``gemm`` with few arguments, for few rows of a.

    ``bias`` (N,) may be empty; ``address`` and ``code`` are what ``finish.activation_entry`` gives.
    """
    parallel(_rows_by_rows_block, (b.shape[0] + _STRIP - 1) // _STRIP, threads, (a, b, bias, address, code, c))


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
        depth, a, b, a_strides, b_strides = 1, np.zeros(1, a.dtype), np.zeros(1, a.dtype), (0, 0, 0), (0, 0, 0)
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
