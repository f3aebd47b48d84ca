"""What follows a product: the bias, then the activation, in place while the block is still in cache.

Kernels get an activation as (address, code). Its machine code is compiled when somebody asks for an activation, not
with every convolution: a dozen transcendental functions would cost the first call more than the convolution itself.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import types

from fastops._jit import address_of, call_at, function, launcher, parallel, separate
from fastops._threads import threads_for
from fastops.simd.blocking import NAMES
from fastops.simd.epilogue import ACTIVATIONS, apply
from fastops.simd.vector import broadcast, lanes, load_part, store_part

NO_ACTIVATION = (0, 0)
# Elements of a block of a sum: 64 KB of float32.
_SUM_BLOCK = 1 << 14
_RELU, _RELU6 = ACTIVATIONS["relu"], ACTIVATIONS["relu6"]


@cache
def activation_entry(code: int, dtype: str) -> tuple[int, int]:
    """What kernels take for the activation with this code (``epilogue.ACTIVATIONS``)."""
    if code == 0:
        return NO_ACTIVATION
    element = types.float32 if dtype == "float32" else types.float64
    return address_of(apply, types.intp, types.Array(element, 1, "C"), types.intp, types.intp), code


@function
def activate(activation, y, start, count):
    """Applies the activation to y[start : start + count]."""
    address, code = activation
    if code != 0:
        call_at(address, (code, y, start, count))


@function
def confinement(activation, c):
    """Whether the activation does nothing but keep numbers between limits, and the limits: products apply that to their sums."""
    relu, relu6 = activation[1] == _RELU, activation[1] == _RELU6
    return relu or relu6, c.dtype.type(0), c.dtype.type(6 if relu6 else np.nan)


@separate
def finish_rows(y, y0, y_row, rows, cols, bias, bias0, bias_row, bias_col, activation):
    """y[i, j] = activation(y[i, j] + bias), where bias is one for each row (bias_col 0) or column; empty, it adds nothing."""
    if cols == 1 and y_row == 1:
        rows, cols, bias_row, bias_col = 1, rows, bias_col, bias_row
    # Vectors by hand: with a start that might be negative for all LLVM knows, the plain loop stays scalar.
    count = lanes(y)
    if bias.size > 0 and bias_col != 0 and cols <= count:
        each = load_part(bias, bias0, cols)
        for i in range(rows):
            store_part(y, y0 + i * y_row, load_part(y, y0 + i * y_row, cols) + each, cols)
    elif bias.size > 0:
        for i in range(rows):
            start = y0 + i * y_row
            shift = broadcast(bias, bias0 + i * bias_row)
            for j in range(0, cols, count):
                each = load_part(bias, bias0 + j, cols - j) if bias_col != 0 else shift
                store_part(y, start + j, load_part(y, start + j, cols - j) + each, cols - j)
    if y_row == cols:
        activate(activation, y, y0, rows * cols)
    else:
        for i in range(rows):
            activate(activation, y, y0 + i * y_row, cols)


@separate
def _sum_block(block, worker, a, b, activation, y):
    start = block * _SUM_BLOCK
    count = min(_SUM_BLOCK, y.size - start)
    confined, low, high = confinement(activation, y)
    to, first, second = y[start : start + count], a[start : start + count], b[start : start + count]
    if confined:
        for i in range(count):
            total = first[i] + second[i]
            total = low if total < low else total
            to[i] = high if total > high else total
    else:
        for i in range(count):
            to[i] = first[i] + second[i]
        activate(activation, y, start, count)


@launcher
def _sums(threads, a, b, activation, y):
    parallel(_sum_block, (y.size + _SUM_BLOCK - 1) // _SUM_BLOCK, threads, (a, b, activation, y))


def add_activated(a: np.ndarray, b: np.ndarray, activation: int, y: np.ndarray) -> None:
    """y = activation(a + b), C-contiguous arrays of one shape and dtype, float32 or float64; y may be one of the others."""
    threads = threads_for(0.15 * y.size)
    _sums(threads, a.reshape(-1), b.reshape(-1), activation_entry(activation, NAMES[y.dtype.char]), y.reshape(-1))
