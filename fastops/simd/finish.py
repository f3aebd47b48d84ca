"""What follows a product: the bias, then the activation, in place while the block is still in cache.

Kernels get an activation as (address, code). Its machine code is compiled when somebody asks for an activation, not
with every convolution: a dozen transcendental functions would cost the first call more than the convolution itself.
"""
from __future__ import annotations

from functools import cache

from numba import types

from fastops._jit import address_of, call_at, function, separate

NO_ACTIVATION = (0, 0)


@cache
def activation_entry(code: int, dtype: str) -> tuple[int, int]:
    """What kernels take for the activation with this code (``epilogue.ACTIVATIONS``)."""
    if code == 0:
        return NO_ACTIVATION
    from fastops.simd.epilogue import apply

    element = types.float32 if dtype == "float32" else types.float64
    return address_of(apply, types.intp, types.Array(element, 1, "C"), types.intp, types.intp), code


@function
def activate(activation, y, start, count):  # type: ignore[no-untyped-def]
    """Applies the activation to y[start : start + count]."""
    address, code = activation
    if code != 0:
        call_at(address, (code, y, start, count))


@separate
def finish_rows(y, y0, y_row, rows, cols, bias, bias0, bias_row, bias_col, activation):  # type: ignore[no-untyped-def]
    """y[i, j] = activation(y[i, j] + bias[i * bias_row + j * bias_col]); an empty bias adds nothing."""
    for i in range(rows):
        start = y0 + i * y_row
        if bias.size > 0:
            if bias_col == 0:
                b = bias[bias0 + i * bias_row]
                for j in range(cols):
                    y[start + j] += b
            else:
                for j in range(cols):
                    y[start + j] += bias[bias0 + i * bias_row + j]
        activate(activation, y, start, cols)
