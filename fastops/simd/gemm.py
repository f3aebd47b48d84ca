"""General matrix multiplication: the only entry to it.

Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008: the reduction is cut
into chunks of KC, a chunk of B is packed into panels that every thread reads, and blocks of C are shared out. Here A is
copied as it lies, not interleaved: the inner product reads it with any stride (``product.py``); the copy only keeps
rows a power of two apart from evicting each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops import _threads
from fastops._jit import call, launcher, parallel, separate
from fastops.simd.blocking import KC, NV, panel_width
from fastops.simd.epilogue import ACTIVATIONS
from fastops.simd.finish import activation_entry, finish_rows
from fastops.simd.pack import copy_run, pack_panels, scale_run
from fastops.simd.product import block_product
from fastops.simd.vector import lanes
from fastops.simd.workspace import scratch

# A block of A (MC x KC, 128 KB in float32) stays in L2 beside the panels of B that pass by.
_MC = 128
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
    copy = worker * mc * depth
    if a_col == 1:
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
    width = NV * lanes(panels)
    start = c0 + i0 * c_row + j0
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


def _chunk(depth: int) -> int:
    """KC, evened out so that no chunk of the reduction is a sliver."""
    return max(1, -(-depth // max(1, -(-depth // KC))))


def gemm_workspace(rows: int, cols: int, depth: int, dtype: str, threads: int) -> int:
    """Bytes of scratch memory that a product of these sizes takes."""
    width = panel_width(dtype)
    kc = _chunk(depth)
    mc, _ = _blocks(rows, min(cols, _NC), threads, width)
    return (kc * -(-min(cols, _NC) // width) * width + threads * mc * kc) * np.dtype(dtype).itemsize


def gemm_strided(batch, rows, cols, depth, a, a_strides, b, b_strides, c, c_strides, *, alpha=1.0, accumulate=False, bias=None, bias_axis=1, activation=0):
    """c[z] (+)= alpha * a[z] @ b[z] over flat arrays; strides are (batch, row, column) in elements, c's (batch, row).

    The bias is added along rows (``bias_axis=0``: one value a row) or columns. Nothing is checked here.
    """
    dtype = c.dtype.name
    width = panel_width(dtype)
    kc = _chunk(depth)
    threads = _threads.threads_for(batch * rows * cols * depth * (0.01 if dtype == "float32" else 0.02))
    mc, nc = _blocks(rows, min(cols, _NC), threads, width)
    panel_count = kc * -(-min(cols, _NC) // width) * width
    space = scratch(panel_count + threads * mc * kc, dtype)
    if bias is None:
        bias = c[:0]
    _gemm(
        threads, batch, rows, cols, depth, kc, mc, nc, a, *a_strides, b, *b_strides, c, *c_strides,
        c.dtype.type(alpha), accumulate, bias, int(bias_axis == 0), int(bias_axis == 1),
        activation_entry(activation, dtype), space[:panel_count], space[panel_count:],
    )  # fmt: skip


def gemm(a, b, *, out=None, alpha=1.0, accumulate=False, bias=None, activation=None):
    """``out (+)= activation(alpha * a @ b + bias)`` for matrices or batches of them.

    Args:
        a: (..., M, K), float32 or float64; a transposed view costs nothing extra.
        b: (..., K, N), same dtype; leading axes broadcast with those of ``a``.
        out: (..., M, N), C-contiguous, overwritten or, with ``accumulate``, added to.
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
    if a.dtype != b.dtype or a.dtype.name not in ("float32", "float64"):
        raise TypeError(f"gemm: a and b must both be float32 or both float64, got {a.dtype} and {b.dtype}")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"gemm: a must be (..., M, K) and b (..., K, N), got {a.shape} and {b.shape}")
    rows, depth, cols = a.shape[-2], a.shape[-1], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = np.zeros((*lead, rows, cols), a.dtype) if accumulate else np.empty((*lead, rows, cols), a.dtype)
    elif out.shape != (*lead, rows, cols) or out.dtype != a.dtype or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"gemm: out must be C-contiguous, writeable, {(*lead, rows, cols)} {a.dtype}, got {out.shape} {out.dtype}")
    if activation not in ACTIVATIONS and activation is not None:
        raise ValueError(f"gemm: activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if bias is not None and (bias.shape != (cols,) or bias.dtype != a.dtype):
        raise ValueError(f"gemm: bias must be ({cols},) {a.dtype}, got {bias.shape} {bias.dtype}")
    if out.size == 0:
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
