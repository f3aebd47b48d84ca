"""The core of the elementwise losses: a formula of up to three numbers, a weight, and a sum, in one pass over memory.

A loss is a :class:`Term`: the scalar formula f(x, y, z) and its partial derivatives. Each becomes a loop with machine code of its
own, which the kernels here call by address for a run of elements that fits L1, so that they compile once for all losses:

    none:  out_i = w_i f(x_i, y_i, z_i)                     d/dx_i = g_i w_i f_x(x_i, y_i, z_i)
    sum:   out = sum of the above, mean: divided             d/dx_i = g / divisor w_i f_x(x_i, y_i, z_i)

Sums are those of ``simd/reduce.py`` over blocks of fixed size, added in order in float64: the same for any number of threads.
Nothing of the size of the input is allocated but what is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numba import types

from fastops._check import Array
from fastops._jit import address_of, call_at, formula, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.simd.blocking import NAMES, STREAM_BITS
from fastops.simd.reduce import BLOCK as _RUN
from fastops.simd.reduce import span_sum
from fastops.simd.workspace import scratch

REDUCTIONS = ("none", "mean", "sum")

# Elements that one thread takes at a time.
_BLOCK = 1 << 14
# Up to so many nanoseconds an element takes what reading and writing it does.
_STREAM_NS = 0.3


class Term:
    """A formula ``f(x, y, z, p, q)`` of numbers, and ``derivatives(x, y, z, p, q)``, the tuple of its partial derivatives.

    p and q are parameters of the loss (a margin, an epsilon). All numbers have the dtype of the arrays; a formula of two
    numbers is called with z = x. ``ns`` is about the time that an element takes, in nanoseconds; ``count`` the number of
    derivatives.
    """

    def __init__(self, name: str, formula: Callable[..., Any], derivatives: Callable[..., Any], ns: float, count: int = 2) -> None:
        self.name, self.formula, self.derivatives, self.ns, self.count = name, formula, derivatives, ns, count
        self.bits = STREAM_BITS if ns <= _STREAM_NS else 512
        self._loops = _value_loop(self), _derivative_loop(self)

    def address(self, derivative: bool, dtype: str) -> int:
        """Of the machine code of a loop, compiled when it is first asked for."""
        return _address(self._loops[derivative], derivative, dtype)


def _value_loop(term: Term) -> Any:
    value = formula(term.formula)

    @separate(name=f"{term.name}_values", bits=term.bits)
    def loop(x, y, z, p, q, start, out, at, count):
        x, y, z, out = x[start : start + count], y[start : start + count], z[start : start + count], out[at : at + count]
        for i in range(count):
            out[i] = value(x[i], y[i], z[i], p, q)

    return loop


def _derivative_loop(term: Term) -> Any:
    derivatives = formula(term.derivatives)
    second, last = min(1, term.count - 1), term.count - 1

    @separate(name=f"{term.name}_derivatives", bits=term.bits)
    def loop(which, x, y, z, p, q, scale, start, out, at, count):
        x, y, z, out = x[start : start + count], y[start : start + count], z[start : start + count], out[at : at + count]
        # what is not used of the tuple is not computed
        if which == 0:
            for i in range(count):
                out[i] = scale * derivatives(x[i], y[i], z[i], p, q)[0]
        elif which == 1:
            for i in range(count):
                out[i] = scale * derivatives(x[i], y[i], z[i], p, q)[second]
        else:
            for i in range(count):
                out[i] = scale * derivatives(x[i], y[i], z[i], p, q)[last]

    return loop


@cache
def _address(loop: Any, derivative: bool, dtype: str) -> int:
    number = types.float32 if dtype == "float32" else types.float64
    flat, index = types.Array(number, 1, "C"), types.intp
    if derivative:
        return address_of(loop, index, flat, flat, flat, number, number, number, index, flat, index, index)
    return address_of(loop, flat, flat, flat, number, number, index, flat, index, index)


@function
def _multiply(out, at, count, factor, start):
    """out[at + i] *= factor[start + i]; an empty factor is 1."""
    if factor.size > 0:
        out, factor = out[at : at + count], factor[start : start + count]
        for i in range(count):
            out[i] *= factor[i]


@separate
def _map_block(block, worker, loop, x, y, z, weight, p, q, out):
    number = x.dtype.type
    end = min((block + 1) * _BLOCK, x.size)
    run = _RUN if weight.size > 0 else _BLOCK  # where nobody comes a second time, short runs only take 90 ns each: 0.34 ms of mse_loss, so 0.29
    for start in range(block * _BLOCK, end, run):
        count = min(run, end - start)
        call_at(loop, (x, y, z, number(p), number(q), start, out, start, count))
        _multiply(out, start, count, weight, start)


@launcher
def _map(threads, loop, x, y, z, weight, p, q, out):
    parallel(_map_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (loop, x, y, z, weight, p, q, out))


@separate
def _sum_block(block, worker, loop, x, y, z, weight, p, q, length, values, partial):
    """partial[block] is the sum over ``length`` elements; values has room for a run of each worker."""
    number = x.dtype.type
    end = min((block + 1) * length, x.size)
    at, total = worker * _RUN, 0.0
    for start in range(block * length, end, _RUN):
        count = min(_RUN, end - start)
        call_at(loop, (x, y, z, number(p), number(q), start, values, at, count))
        _multiply(values, at, count, weight, start)
        total += span_sum(values, at, count)
    partial[block] = total


@launcher
def _sum(threads, loop, x, y, z, weight, p, q, length, values, partial, divisor, out):
    """out[0] = the sum of all / divisor; or, when there are as many, out[i] = the sum of ``length`` elements / divisor."""
    parallel(_sum_block, partial.size, threads, (loop, x, y, z, weight, p, q, length, values, partial))
    if out.size == partial.size:
        for i in range(partial.size):
            out[i] = partial[i] / divisor
    else:
        total = 0.0
        for i in range(partial.size):
            total += partial[i]
        out[0] = total / divisor


@separate
def _differentiate_block(block, worker, loop, x, y, z, weight, p, q, scale, g, repeat, dx, dy, dz):
    number = x.dtype.type
    end = min((block + 1) * _BLOCK, x.size)
    # as in _map_block: one gradient of mse_loss 0.47 ms in short runs, so 0.35
    passes = (dx.size > 0) + (dy.size > 0) + (dz.size > 0) + (weight.size > 0) + (repeat > 0)
    run = _BLOCK if passes == 1 else _RUN
    for start in range(block * _BLOCK, end, run):
        count = min(run, end - start)
        for which, out in enumerate((dx, dy, dz)):
            if out.size > 0:
                call_at(loop, (which, x, y, z, number(p), number(q), number(scale), start, out, start, count))
                _multiply(out, start, count, weight, start)
                if repeat == 1:
                    _multiply(out, start, count, g, start)
                elif repeat > 1:
                    for i in range(start, start + count):
                        out[i] *= g[i // repeat]


@launcher
def _differentiate(threads, loop, x, y, z, weight, p, q, scale, g, repeat, dx, dy, dz):
    """The gradients that are not empty; each number of g belongs to ``repeat`` elements."""
    parallel(
        _differentiate_block, (x.size + _BLOCK - 1) // _BLOCK, threads,
        (loop, x, y, z, weight, p, q, scale, g, repeat, dx, dy, dz),
    )  # fmt: skip


@separate
def _inside_block(block, worker, x, low, high, partial):
    outside = 0
    part = x[block * _BLOCK : min((block + 1) * _BLOCK, x.size)]
    for i in range(part.size):
        outside += 0 if part[i] >= low and part[i] <= high else 1
    partial[block] = outside


@launcher
def _inside(threads, x, low, high, partial):
    number = x.dtype.type
    parallel(_inside_block, partial.size, threads, (x, number(low), number(high), partial))
    outside = 0
    for i in range(partial.size):
        outside += partial[i]
    return outside == 0


def inside(x: Array, low: float, high: float) -> bool:
    """Whether all elements lie between two numbers, which NaN does not."""
    if x.size == 0:
        return True
    return bool(_inside(threads_for(x.size * 0.1), x.ravel(), low, high, empty(-(-x.size // _BLOCK), np.int64)))


@cache
def _empty(dtype: str) -> Array:
    return empty(0, dtype)


def evaluate(
    term: Term, arrays: Sequence[Array], reduction: str, *, weight: Array | None = None, p: float = 0.0, q: float = 0.0,
    divisor: float | None = None, rows: int = 1,
) -> Array:  # fmt: skip
    """The loss of arrays of one shape, in their dtype: elementwise, or a 0-d array.

    ``rows`` > 1 (of a 2-D array, with reduction "none"): the sum of each row. ``divisor`` replaces the number of elements
    in a mean, and divides sums and rows too.
    """
    x = arrays[0]
    dtype, size = NAMES[x.dtype.char], x.size
    a, b = x.ravel(), arrays[1].ravel()
    c = arrays[2].ravel() if len(arrays) > 2 else a
    w = _empty(dtype) if weight is None else weight.ravel()
    threads = threads_for(size * term.ns)
    loop = term.address(False, dtype)
    if reduction == "none" and divisor is None:
        out = empty(x.shape, x.dtype)
        if size:
            _map(threads, loop, a, b, c, w, p, q, out.ravel())
        return out
    if reduction == "none":
        out, length, blocks = empty(x.shape[:-1], x.dtype), x.shape[-1], prod(x.shape[:-1])
    else:
        out, length, blocks = empty((), x.dtype), _BLOCK, -(-size // _BLOCK)
    if divisor is None:
        divisor = 1.0 if reduction == "sum" else float(size)
    if out.size == 0:
        return out
    values = scratch(threads * _RUN, dtype)
    _sum(threads, loop, a, b, c, w, p, q, length, values, empty(blocks), float(divisor), out.ravel())
    return out


def differentiate(
    term: Term, arrays: Sequence[Array], wanted: Sequence[bool], g: Array | float, *, weight: Array | None = None,
    p: float = 0.0, q: float = 0.0, repeat: int = 1,
) -> list[Array | None]:  # fmt: skip
    """The gradients with respect to the arrays: g, one for all or for each ``repeat`` elements, times the derivatives."""
    x = arrays[0]
    dtype = NAMES[x.dtype.char]
    nothing = _empty(dtype)
    found = [empty(x.shape, x.dtype) if want else None for want in wanted]
    if x.size and any(wanted):
        a, b = x.ravel(), arrays[1].ravel()
        c = arrays[2].ravel() if len(arrays) > 2 else a
        w = nothing if weight is None else weight.ravel()
        scale, each, repeat = (1.0, g.ravel(), repeat) if isinstance(g, np.ndarray) else (g, nothing, 0)
        outs = [nothing if d is None else d.ravel() for d in found] + [nothing] * (3 - len(found))
        threads = threads_for(x.size * term.ns * sum(wanted))
        _differentiate(threads, term.address(True, dtype), a, b, c, w, p, q, scale, each, repeat, *outs)
    return found
