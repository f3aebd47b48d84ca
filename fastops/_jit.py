"""The one file that knows Numba's flags.

Decorators make compiled code out of readable Python; everything compiles at its first call, nothing at import.

``@function``
    a helper that kernels call: a scalar formula, one row of a tile. LLVM inlines it.
``@any_order``
    as ``@function``, where sums may be added in any order.
``@formula``
    a helper of one element, which every loop over it takes in whatever its size, so that it becomes packed instructions.
``@separate``
    a heavy helper with its own machine code, called through a symbol. LLVM compiles it once instead of again in every
    caller and in every layer of a parallel loop (a Winograd kernel: 9 s inlined, 3 s like this).
``@launcher``
    a function that hands blocks of work to the threads with ``parallel(body, blocks, threads, *args)``, once or several
    times in a row. ``body(block, worker, *args)`` is a ``@separate`` function that computes one block: it writes where no
    other block writes, and may use scratch memory that belongs to its ``worker``. The threads take blocks from a shared
    counter, so uneven work balances itself. Call it as ``f(threads, *args)``. Since one machine code serves any number
    of threads, results cannot depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from fastops import _thread_pool, _threads
from fastops._cache import Externals, KernelCache
from fastops._pipeline import Pipeline

CHECKED = os.environ.get("FASTOPS_CHECKED", "") not in ("", "0")


FLAGS: dict[str, Any] = {
    "nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "boundscheck": CHECKED, "pipeline_class": Pipeline,
}  # fmt: skip
REDUCTION_FLAGS: dict[str, Any] = {**FLAGS, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}

# Code that only other compiled code calls needs no entry for Python or C: they take a third of the time to compile.
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_externals = Externals()


def _environment() -> tuple[Any, ...]:
    """What decides about machine code besides sources, versions and options."""
    return (CHECKED, _threads.POOL, config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)


def _compiled(py_func: Callable[..., Any], **options: Any) -> Any:
    # Compiled code is stored and found again under the function's name, so two closures must not share one.
    if "<locals>" in py_func.__qualname__:
        raise TypeError(f"{py_func.__qualname__}: a kernel made inside a function needs a name of its own (separate(name=...))")
    if config.DISABLE_JIT:
        return _not_compiled
    dispatcher = numba.njit(**options)(py_func)
    dispatcher._cache = KernelCache(py_func, options, _environment(), _externals)
    _externals.add(dispatcher)
    return dispatcher


def _not_compiled(*args: Any) -> Any:
    raise RuntimeError("fastops: kernels exist as machine code alone, which NUMBA_DISABLE_JIT keeps Numba from making; unset it")


def function(py_func: Callable[..., Any]) -> Any:
    """A helper compiled into the kernels that call it."""
    return numba.njit(**FLAGS, **_INNER)(py_func)


def any_order(py_func: Callable[..., Any]) -> Any:
    """As ``function``, for a helper whose sums may be added in any order, by vectors."""
    return numba.njit(**REDUCTION_FLAGS, **_INNER)(py_func)


def formula(py_func: Callable[..., Any]) -> Any:
    """A scalar formula that loops call for each element. LLVM alone would leave the longer ones out of line, and the loop scalar."""
    return numba.njit(**FLAGS, **_INNER, forceinline=True)(py_func)


class Launcher:
    """A compiled function whose first argument is the number of threads."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self.__name__ = py_func.__name__
        self.__doc__ = py_func.__doc__
        self.__wrapped__ = py_func
        self.dispatcher = _compiled(py_func, **FLAGS, no_cfunc_wrapper=True)

    def __call__(self, *args: Any) -> Any:
        if args[0] == 1:  # as they came: another tuple of them would take 0.15 us of 1
            return self.dispatcher(*args)
        with _threads.region(args[0]) as allowed:
            return self.dispatcher(allowed, *args[1:])


def launcher(py_func: Callable[..., Any] | None = None, *, name: str | None = None) -> Any:
    """A function that runs blocks of work on ``threads`` threads (its first argument); ``name`` as in ``separate``."""
    if py_func is None:
        return lambda f: launcher(f, name=name)
    if name is not None:
        py_func.__qualname__ = py_func.__name__ = name
    return Launcher(py_func)


def separate(py_func: Callable[..., Any] | None = None, *, name: str | None = None, bits: int = 512) -> Any:
    """A heavy function with machine code of its own; other compiled code reaches it with ``call`` or ``parallel``.

    A function made by a factory gives a ``name`` that no other function of its module has: it is cached under it. ``bits`` is how
    wide LLVM makes its loops at most.
    """
    if py_func is None:
        return lambda f: separate(f, name=name, bits=bits)
    py_func.bits = bits  # type: ignore[attr-defined]
    if name is not None:
        py_func.__qualname__ = py_func.__name__ = name
    return _compiled(py_func, **FLAGS, **_INNER)


def _declare(context: Any, builder: Any, dispatcher: Any, argtypes: tuple[Any, ...], restype: Any) -> Any:
    name = _externals.link(dispatcher, argtypes)
    fnty = context.call_conv.get_function_type(restype, argtypes)
    return cgutils.get_or_insert_function(builder.module, fnty, name)


def _plain(argtypes: Any) -> tuple[Any, ...]:
    return tuple(types.unliteral(t) for t in argtypes)


def _lent(context: Any, builder: Any, argtypes: tuple[Any, ...], values: list[Any]) -> list[Any]:
    """Arrays as their elements alone, without the memory's count of references, which the caller holds.

    A slice counts as a reference while it is in use, by two atomic instructions: 5 ns each, and far more where several threads
    count at the same memory (rotary_embedding with two threads: 20 ms instead of 1.2).
    """
    lent = []
    for kind, value in zip(argtypes, values):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value=value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            value = array._getvalue()
        lent.append(value)
    return lent


@intrinsic
def call(typingctx: Any, func: Any, args: Any) -> Any:
    """``call(f, (a, b))`` runs the ``@separate`` function f; it returns nothing."""
    argtypes = _plain(args.types)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        given = cgutils.unpack_tuple(builder, values[1], len(argtypes))
        cast = [context.cast(builder, v, was, is_) for v, was, is_ in zip(given, args.types, argtypes, strict=True)]
        cast = _lent(context, builder, argtypes, cast)
        callee = _declare(context, builder, func.dispatcher, argtypes, types.none)
        status, _ = context.call_conv.call_function(builder, callee, types.none, argtypes, cast)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(func, args), codegen


def address_of(dispatcher: Any, *argtypes: Any) -> int:
    """The address of a ``@separate`` function's machine code for these types, compiled if need be; for ``call_at``."""
    return int(_externals.address(dispatcher, argtypes)) if dispatcher is not _not_compiled else _not_compiled()


@intrinsic
def call_at(typingctx: Any, address: Any, args: Any) -> Any:
    """``call_at(address, (a, b))``: as ``call``, of a function that the caller chose when it ran."""
    argtypes = _plain(args.types)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        given = cgutils.unpack_tuple(builder, values[1], len(argtypes))
        cast = [context.cast(builder, v, was, is_) for v, was, is_ in zip(given, args.types, argtypes, strict=True)]
        cast = _lent(context, builder, argtypes, cast)
        fnty = context.call_conv.get_function_type(types.none, argtypes)
        callee = builder.inttoptr(values[0], fnty.as_pointer())
        status, _ = context.call_conv.call_function(builder, callee, types.none, argtypes, cast)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.void(types.intp, args), codegen


_INTP = ir.IntType(types.intp.bitwidth)
_BYTES = ir.IntType(8).as_pointer()
_BLOCK = ir.FunctionType(ir.VoidType(), [_BYTES, _INTP, _INTP])


def _share_by_numba(trampoline, state, counter, blocks, workers):
    for worker in prange(workers):
        w = np.intp(worker)
        block = _thread_pool.take_block(counter)
        while block < blocks:
            _thread_pool.run_block(trampoline, state, block, w)
            block = _thread_pool.take_block(counter)
    return 0


def _share_by_pool(trampoline, state, counter, blocks, workers):
    """Runs the blocks; for 0 workers nothing. Returns the address of the control block."""
    pool = _thread_pool.control_block()
    if workers > 0:
        _thread_pool.share(pool, trampoline, state, blocks, workers)
    return pool


if _threads.POOL:
    _share_blocks = _compiled(_share_by_pool, **FLAGS, no_cfunc_wrapper=True)
    _threads.use_pool(_thread_pool.ThreadPool(_compiled(_thread_pool.attend, **FLAGS, no_cfunc_wrapper=True), lambda: _share_blocks(0, 0, 0, 0, 0)))
else:
    _share_blocks = _compiled(_share_by_numba, parallel=True, **FLAGS, **_INNER)


@intrinsic
def _parallel(typingctx: Any, body: Any, blocks: Any, threads: Any, args: Any) -> Any:
    argtypes = _plain(args.types)
    bodytypes = (types.intp, types.intp, *argtypes)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        given = cgutils.unpack_tuple(builder, values[3], len(argtypes))
        cast = [context.cast(builder, v, was, is_) for v, was, is_ in zip(given, args.types, argtypes, strict=True)]
        cast = _lent(context, builder, argtypes, cast)
        blocks, threads = values[1], values[2]
        layout = ir.LiteralStructType([v.type for v in cast] + [_INTP, _INTP])
        counter_at, failed_at = len(cast), len(cast) + 1

        def member(at: Any, state: Any, index: int) -> Any:
            return at.gep(state, [ir.Constant(ir.IntType(32), 0), ir.Constant(ir.IntType(32), index)], inbounds=True)

        # The trampoline takes one block: it fetches the arguments from the caller's frame and calls the body.
        trampoline = ir.Function(builder.module, _BLOCK, builder.module.get_unique_name("block"))
        trampoline.linkage = "internal"
        inner = ir.IRBuilder(trampoline.append_basic_block())
        state = inner.bitcast(trampoline.args[0], layout.as_pointer())
        loaded = [inner.load(member(inner, state, i)) for i in range(len(cast))]
        callee = _declare(context, inner, body.dispatcher, bodytypes, types.none)
        status, _ = context.call_conv.call_function(inner, callee, types.none, bodytypes, [trampoline.args[1], trampoline.args[2], *loaded])
        with cgutils.if_unlikely(inner, status.is_error):
            inner.store(ir.Constant(_INTP, 1), member(inner, state, failed_at))
        inner.ret_void()

        frame = cgutils.alloca_once(builder, layout)
        for i, v in enumerate(cast):
            builder.store(v, member(builder, frame, i))
        builder.store(ir.Constant(_INTP, 0), member(builder, frame, counter_at))
        builder.store(ir.Constant(_INTP, 0), member(builder, frame, failed_at))
        raw = builder.bitcast(frame, _BYTES)
        alone = builder.or_(builder.icmp_signed("<=", threads, ir.Constant(_INTP, 1)), builder.icmp_signed("<=", blocks, ir.Constant(_INTP, 1)))
        with builder.if_else(alone) as (serial, shared):
            with serial, cgutils.for_range(builder, blocks) as loop:
                builder.call(trampoline, [raw, loop.index, ir.Constant(_INTP, 0)])
            with shared:
                workers = builder.select(builder.icmp_signed("<", threads, blocks), threads, blocks)
                share = _declare(context, builder, _share_blocks, (types.intp,) * 5, types.intp)
                addresses = [builder.ptrtoint(p, _INTP) for p in (trampoline, raw, member(builder, frame, counter_at))]
                status, _ = context.call_conv.call_function(builder, share, types.intp, (types.intp,) * 5, [*addresses, blocks, workers])
                with cgutils.if_unlikely(builder, status.is_error):
                    context.call_conv.return_status_propagate(builder, status)
        failed = builder.icmp_signed("!=", builder.load(member(builder, frame, failed_at)), ir.Constant(_INTP, 0))
        with cgutils.if_unlikely(builder, failed):
            context.call_conv.return_user_exc(
                builder, RuntimeError, (f"{body.dispatcher.py_func.__name__}: a block failed (out of memory, or out of bounds in checked mode)",)
            )
        return context.get_dummy_value()

    return types.void(body, types.intp, types.intp, args), codegen


parallel = _parallel
"""``parallel(body, blocks, threads, (args...))``: runs ``body(block, worker, *args)`` for every block."""
