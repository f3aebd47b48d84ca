"""Rows of memory: copied, filled, added.

A loop over a short row spends its time in the remainder that vectors leave; here the last vector overlaps the one before
it, which writes the same values twice and has no remainder from one vector on.
"""

from __future__ import annotations

from fastops._jit import function
from fastops.simd.vector import lanes, load, load_part, splat, store, store_part


@function
def copy_row(x, x0, y, y0, count):
    """y[y0 : y0 + count] = x[x0 : x0 + count]"""
    L = lanes(x)
    if count < L:
        store_part(y, y0, load_part(x, x0, count), count)
        return
    for i in range(0, count - L, L):
        store(y, y0 + i, load(x, x0 + i))
    store(y, y0 + count - L, load(x, x0 + count - L))


@function
def assign(y, x):
    """y[:] = x, for flat arrays of one size. Numba's own compiles the text of its error message, for more than a second."""
    for i in range(y.size):
        y[i] = x[i]


@function
def fill_row(value, y, y0, count):
    """y[y0 : y0 + count] = value"""
    L, v = lanes(y), splat(y, value)
    if count < L:
        store_part(y, y0, v, count)
        return
    for i in range(0, count - L, L):
        store(y, y0 + i, v)
    store(y, y0 + count - L, v)


@function
def add_row(x, x0, y, y0, count):
    """y[y0 : y0 + count] += x[x0 : x0 + count]"""
    L = lanes(x)
    whole = count // L * L
    for i in range(0, whole, L):
        store(y, y0 + i, load(y, y0 + i) + load(x, x0 + i))
    rest = count - whole
    if rest > 0:
        store_part(y, y0 + whole, load_part(y, y0 + whole, rest) + load_part(x, x0 + whole, rest), rest)
