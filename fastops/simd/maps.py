"""Maps: one formula for each element of an array, over blocks of fixed size.

A family writes a formula of one element as a ``@function`` and makes a map of it::

    @formula
    def _leaky_relu(x, slope, b):
        return x * slope if x < type(x)(0) else x

    _LEAKY_RELU = Map(__name__, _leaky_relu, 0.1)

    y = _LEAKY_RELU.of("leaky_relu", input, slope)

Two parameters reach every formula, in the dtype of the arrays. A map compiles its own loop when it is first used, 0.15 s;
the launcher that hands blocks to threads is compiled once for all of them and takes the loop by its address.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array, deliver, target
from fastops._jit import address_of, call_at, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.simd.blocking import STREAM_BITS

# Elements of a block: 64 KB of float32, far more work than taking a block costs.
_BLOCK = 1 << 14
# Elements that a map in place computes beside the array before they overwrite it.
_CHUNK = 1 << 11
# Below so many elements no formula is worth a second thread.
_SMALL = 1 << 13
# Up to so many nanoseconds an element takes what reading and writing it does.
_STREAM_NS = 0.12
# Bytes of a cache line.
_LINE = 64

_ELEMENTS = {"f": types.float32, "d": types.float64}


@intrinsic
def _loaded(typingctx: Any, x: Any) -> Any:
    """x itself, that the loop loads whatever becomes of it.

    ``0 if z <= 0 else x`` would otherwise become a masked load that waits for z and that no prefetching looks ahead of: three
    times slower from the third cache on.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        freeze = ir.instructions.Instruction(builder.block, args[0].type, "freeze", args[:1])
        builder._insert(freeze)
        return freeze

    return x(x), codegen


def _loop(module: str, formula: Any, operands: int, ns: float) -> Any:
    """y[y0 + i] = formula(x[x0 + i], a, b), or formula(x[x0 + i], z[x0 + i], a, b), for ``count`` elements of flat arrays."""
    # The slices start at index 0, which needs no test for being negative: so the loops vectorise.
    loop: Any
    if operands == 1:

        def loop(x, x0, y, y0, count, a, b):
            number = y.dtype.type
            x, y = x[x0 : x0 + count], y[y0 : y0 + count]
            a, b = number(a), number(b)
            for i in range(count):
                y[i] = formula(x[i], a, b)

    else:

        def loop(x, z, start, y, count, a, b):
            number = y.dtype.type
            x, z, y = x[start : start + count], z[start : start + count], y[start : start + count]
            a, b = number(a), number(b)
            for i in range(count):
                y[i] = formula(_loaded(x[i]), z[i], a, b)

    # Its machine code is stored under the family's module, whose source and imports decide about it.
    loop.__module__ = module
    return separate(loop, name=f"{formula.__name__}_loop", bits=STREAM_BITS if ns <= _STREAM_NS else 512)


@function
def _bounds(block, y):
    """Where a block of a flat array starts and how many elements it has; all but the first start on a cache line."""
    lead = (-y.ctypes.data % _LINE) // y.itemsize
    start = block * _BLOCK + (lead if block > 0 else 0)
    return start, max(0, min((block + 1) * _BLOCK + lead, y.size) - start)


@separate
def _block_of_one(block, worker, address, x, y, a, b):
    start, count = _bounds(block, y)
    call_at(address, (x, start, y, start, count, a, b))


@launcher
def _map_one(threads, address, x, y, a, b):
    parallel(_block_of_one, (x.size + _BLOCK - 1) // _BLOCK, threads, (address, x, y, a, b))


@separate
def _block_in_place(block, worker, address, x, beside, a, b):
    """A loop whose result might overlap its argument would stay scalar; x is flat, beside (threads, _CHUNK)."""
    y = beside[worker]
    for start in range(block * _BLOCK, min((block + 1) * _BLOCK, x.size), _CHUNK):
        count = min(_CHUNK, x.size - start)
        call_at(address, (x, start, y, 0, count, a, b))
        x[start : start + count] = y[:count]


@launcher
def _map_in_place(threads, address, x, beside, a, b):
    parallel(_block_in_place, (x.size + _BLOCK - 1) // _BLOCK, threads, (address, x, beside, a, b))


@separate
def _block_of_two(block, worker, address, x, z, y, a, b):
    start, count = _bounds(block, y)
    call_at(address, (x, z, start, y, count, a, b))


@launcher
def _map_two(threads, address, x, z, y, a, b):
    parallel(_block_of_two, (x.size + _BLOCK - 1) // _BLOCK, threads, (address, x, z, y, a, b))


def place(op: str, input: Any, inplace: bool, out: Array | None) -> Array | None:
    """The array that takes the result of an operation with the arguments ``inplace`` and ``out``; None for a new one."""
    if not inplace:
        return out
    if out is not None:
        raise ValueError(f"{op}: out must be None where inplace is True")
    if not isinstance(input, np.ndarray):
        raise TypeError(f"{op}: input must be a NumPy array where inplace is True, got {type(input).__name__}")
    if not input.flags.writeable:
        raise ValueError(f"{op}: input must be writeable where inplace is True, got a read-only array")
    return input


class _Compiled:
    """The loop of a formula, and where its machine code is for each dtype."""

    def __init__(self, module: str, formula: Any, operands: int, ns: float) -> None:
        self._loop = _loop(module, formula, operands, ns)
        self._operands = operands
        self._ns = ns
        self._addresses: dict[str, int] = {}

    def _compile(self, char: str) -> int:
        flat, real = types.Array(_ELEMENTS[char], 1, "C"), types.float64
        if self._operands == 1:
            signature = (flat, types.intp, flat, types.intp, types.intp, real, real)
        else:
            signature = (flat, flat, types.intp, flat, types.intp, real, real)
        address = self._addresses[char] = address_of(self._loop, *signature)
        return address

    def _threads(self, size: int) -> int:
        return 1 if size < _SMALL else threads_for(size * self._ns)


class Map(_Compiled):
    """y = formula(x, a, b) for each element; ``ns`` is the time of one in float32, ``module`` the family's ``__name__``."""

    def __init__(self, module: str, formula: Any, ns: float) -> None:
        super().__init__(module, formula, 1, ns)

    def of(self, op: str, input: ArrayLike, a: float = 0.0, b: float = 0.0, inplace: bool = False, out: Array | None = None) -> Array:
        """The map of an operation's argument ``input``, into a new array, ``out`` or the input itself."""
        x = _check.as_array(op, "input", input)
        address = self._addresses.get(x.dtype.char)
        if address is None or inplace or out is not None:
            return self._elsewhere(op, input, x, a, b, inplace, out)
        y = empty(x.shape, x.dtype)
        _map_one(self._threads(x.size), address, x.ravel(), y.ravel(), a, b)
        return y

    def _elsewhere(self, op: str, input: Any, x: Array, a: float, b: float, inplace: bool, out: Array | None) -> Array:
        dtype = x.dtype
        out = place(op, input, inplace, out)
        if dtype == _check.FLOAT16:
            x = x.astype(np.float32)
        char = x.dtype.char
        address = self._addresses.get(char) or self._compile(char)
        threads = self._threads(x.size)
        if out is x:
            _map_in_place(threads, address, x.ravel(), empty((threads, _CHUNK), x.dtype), a, b)
            return out
        y = target(op, out, x.shape, dtype, x)
        _map_one(threads, address, x.ravel(), y.ravel(), a, b)
        return deliver(y, out, dtype)

    def recorded(
        self, op: str, input: ArrayLike, a: float = 0.0, b: float = 0.0, inplace: bool = False, out: Array | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """As ``of``, with what a gradient that is had from the output keeps: the output, of float16 as it was in float32."""
        x = _check.as_array(op, "input", input)
        kept = self.of(op, x.astype(np.float32), a, b) if x.dtype == _check.FLOAT16 else None
        y = self.of(op, input, a, b, inplace, out)
        return y, {"output": y if kept is None else kept}

    def again(self, op: str, input: ArrayLike, a: float = 0.0, b: float = 0.0) -> Array:
        """The output that ``recorded`` keeps, for a gradient that was not handed it."""
        x = _check.as_array(op, "input", input)
        return self.of(op, x.astype(np.float32) if x.dtype == _check.FLOAT16 else x, a, b)


class GradientMap(_Compiled):
    """grad_input = formula(grad_output, kept, a, b) for each element, where ``kept`` is the input or the output."""

    def __init__(self, module: str, formula: Any, ns: float) -> None:
        super().__init__(module, formula, 2, ns)

    def of(self, op: str, grad_output: ArrayLike, kept: ArrayLike, a: float = 0.0, b: float = 0.0, name: str = "input") -> Array:
        """The gradient; ``name`` is what messages call ``kept``."""
        dy, z = _check.as_array(op, "grad_output", grad_output), _check.as_array(op, name, kept)
        char = dy.dtype.char
        if z.dtype.char != char and (char, z.dtype.char) != ("e", "f"):
            raise TypeError(f"{op}: {name} must have the dtype of grad_output, {dy.dtype}, got {z.dtype}")
        if dy.shape != z.shape:
            raise ValueError(f"{op}: grad_output must have the shape of {name}, {z.shape}, got {dy.shape}")
        address = self._addresses.get(char)
        if address is None:
            if char == "e":
                return self.of(op, dy.astype(np.float32), z.astype(np.float32, copy=False), a, b, name).astype(np.float16)
            address = self._compile(char)
        dx = empty(dy.shape, dy.dtype)
        _map_two(self._threads(dy.size), address, dy.ravel(), z.ravel(), dx.ravel(), a, b)
        return dx
