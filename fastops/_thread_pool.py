"""Threads of our own that wait for blocks of work: what is shared out here, and what they do meanwhile.

A kernel of 0.1 ms gains nothing from a second thread that takes 30 us to wake, nor from one that the system starts when the
work is done. So a thread that has worked stays awake for a moment, as OpenMP's do, and a launch never waits for a thread that
has not come: the caller opens a gate, takes blocks itself, and closes the gate when there are none left; only those that came
through before are waited for. A launch takes 1 us of the caller, 2.6 with TBB by way of Numba; relu of 8x64x56x56 on two
threads 0.09 ms instead of 0.12. And it keeps off the processor that last launched: woken there, it would wait until the caller
is done (linear 32x784x256 on two threads, 0.09 ms: in three of eight bursts of calls it took 0.16 and more).

Several Python threads may launch at once, each in a slot of its own. A thread that finds no more blocks in one slot looks
into the others; a caller who finds all slots taken does its work alone. Threads do not survive a fork: the child starts new
ones at its first launch.

The words of the control block, in cache lines of their own so that waiting threads do not slow down working ones:

    TURN      counts launches; threads sleep on its lower half
    ASLEEP    how many threads sleep, or are about to
    ALIVE     how many threads there are
    CALLER    the processor that last launched
    STOP      1 when threads are to end

and for each slot

    LOCK      1 while somebody launches there
    GATE      how many threads are inside, plus CLOSED where nobody may enter
    JOB       how many tickets were taken, which number the workers; then trampoline, state, ranges, blocks and workers
    RANGES    for each range of the blocks how many were taken at its front and, in the upper half, at its back
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastops._pipeline import Pipeline

_LINE = 8  # words
_TURN, _ASLEEP, _ALIVE, _CALLER, _STOP, _SLOT = (_LINE * i for i in range(6))
_LOCK, _GATE, _JOB, _RANGES = (_LINE * i for i in range(4))  # from the start of a slot
_MOST_RANGES = 32
_SLOTS, _SLOT_WORDS = 4, (3 + _MOST_RANGES) * _LINE
_WORDS = _SLOT + _SLOTS * _SLOT_WORDS
_CLOSED = 1 << 32
_AT_FIRST = [_CLOSED if i >= _SLOT and (i - _SLOT) % _SLOT_WORDS == _GATE else 0 for i in range(_WORDS)]

# How often a thread looks for work before it sleeps, with a pause of 40 to 140 cycles each: 0.1 to 0.2 ms, about what passes
# between two calls of a network's layers.
_LOOKS = 6000
# How often a caller looks before it lets others run: whom it waits for may have been on this core.
_PATIENCE = 2000

_MACHINE = platform.machine()
_FUTEX = {"x86_64": 202, "AMD64": 202, "aarch64": 98}.get(_MACHINE, -1)
SUPPORTED = sys.platform == "linux" and sys.byteorder == "little" and _FUTEX >= 0 and sys.maxsize > 1 << 32
_FUTEX_WAIT_PRIVATE, _FUTEX_WAKE_PRIVATE = 128, 129

_syscall = types.ExternalFunction("syscall", types.intp(*[types.intp] * 5))
_sched_yield = types.ExternalFunction("sched_yield", types.intc())
_sched_getcpu = types.ExternalFunction("sched_getcpu", types.intc())
_sched_setaffinity = types.ExternalFunction("sched_setaffinity", types.intc(types.intc, types.intp, types.intp))
# Words of a set of processors.
_CPU_WORDS = 16

_WORD = ir.IntType(64)

# What takes blocks is compiled once for threads and callers. ``_jit``, which knows all other flags, is built on this file.
_helper = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=Pipeline)


def _pointer(builder: Any, base: Any, word: Any) -> Any:
    return builder.gep(builder.inttoptr(base, _WORD.as_pointer()), [word])


@intrinsic
def _read(typingctx: Any, base: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, *args), "seq_cst", 8)

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def _write(typingctx: Any, base: Any, word: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[2], _pointer(builder, args[0], args[1]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def _add(typingctx: Any, base: Any, word: Any, value: Any) -> Any:
    """The value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0], args[1]), args[2], "seq_cst")

    return types.intp(types.intp, types.intp, types.intp), codegen


@intrinsic
def _exchange(typingctx: Any, base: Any, word: Any, value: Any) -> Any:
    """The value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", _pointer(builder, args[0], args[1]), args[2], "seq_cst")

    return types.intp(types.intp, types.intp, types.intp), codegen


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Tells the processor that this thread only waits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = ir.IntType(32)
        name, given = ("llvm.aarch64.isb", [ir.Constant(number, 15)]) if _MACHINE == "aarch64" else ("llvm.x86.sse2.pause", [])
        signature = ir.FunctionType(ir.VoidType(), [number] * len(given))
        builder.call(builder.module.globals.get(name) or ir.Function(builder.module, signature, name), given)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def control_block(typingctx: Any) -> Any:
    """The address of the control block, a variable of the machine code: one a process, wherever that is loaded."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        words = ir.ArrayType(_WORD, _WORDS)
        block = ir.GlobalVariable(builder.module, words, "control_block")
        block.linkage, block.align = "internal", 64
        block.initializer = ir.Constant(words, _AT_FIRST)
        return builder.ptrtoint(block, _WORD)

    return types.intp(), codegen


@intrinsic
def run_block(typingctx: Any, trampoline: Any, state: Any, block: Any, worker: Any) -> Any:
    """Calls the machine code of a block."""
    pointer = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer, _WORD, _WORD])

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.call(builder.inttoptr(args[0], signature.as_pointer()), [builder.inttoptr(args[1], pointer), args[2], args[3]])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def _add_to(typingctx: Any, counter: Any, amount: Any) -> Any:
    """The value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _WORD.as_pointer()), args[1], ordering="monotonic")

    return types.intp(types.intp, types.intp), codegen


@_helper
def take_block(counter):
    """The number of the next block that nobody has taken yet, in order."""
    return _add_to(counter, 1)


@_helper
def _take_blocks(pool, at, worker, seat):
    """Runs blocks until there are no more; how many it were.

    The blocks fall into a range for every two seats, the threads' numbers, which do not change from launch to launch. Of the two
    one takes blocks from the front and one from the back; then they help in the other ranges. So two threads seldom work on
    neighbouring memory, and call after call on the same: what one core has written, it reads and writes again. With blocks in
    turns MobileNetV2's first layer takes 0.25 ms on two threads, so 0.18; with two ends for all threads relu of 8x64x56x56 takes
    0.053 ms on sixteen, so 0.024.
    """
    job = at + _JOB
    trampoline, state, ranges, blocks = _read(pool, job + 1), _read(pool, job + 2), _read(pool, job + 3), _read(pool, job + 4)
    back = seat % 2
    one = 1 << 32 if back else 1
    done = 0
    for i in range(ranges):
        own = (seat // 2 + i) % ranges
        first, last = own * blocks // ranges, (own + 1) * blocks // ranges
        counter = at + _RANGES + own * _LINE
        taken = _read(pool, counter)  # that others' ranges are used up is seen without writing to them
        while (taken & 0xFFFFFFFF) + (taken >> 32) < last - first:
            taken = _add(pool, counter, one)
            at_front, at_back = taken & 0xFFFFFFFF, taken >> 32
            if at_front + at_back >= last - first:
                break
            run_block(trampoline, state, last - 1 - at_back if back else first + at_front, worker)
            done += 1
    return done


@_helper
def _keep_off(cpus, cpu):
    """Moves this thread off a processor, and keeps it off."""
    if 0 <= cpu < 64 * _CPU_WORDS:
        word, bit = cpu // 64, np.int64(1) << np.int64(cpu % 64)
        if cpus[word] & bit:
            cpus[word] ^= bit
            _sched_setaffinity(0, 8 * _CPU_WORDS, cpus.ctypes.data)  # fails where it leaves no processor
            cpus[word] ^= bit


def attend(pool, cpus):
    """What a thread of the pool does until the process ends. ``cpus`` is the set of processors that it may run on."""
    seen, looks, off = 0, 0, -1
    seat = _add(pool, _ALIVE, 1) + 1  # the caller's is 0
    while True:
        turn = _read(pool, _TURN)
        if turn == seen:
            if looks < _LOOKS:
                looks += 1
                _pause()
                continue
            if off != _read(pool, _CALLER):
                off = _read(pool, _CALLER)
                _keep_off(cpus, off)
            _add(pool, _ASLEEP, 1)
            # A launch changes TURN first and then looks who sleeps, so one of the two notices the other.
            if _read(pool, _TURN) == seen:
                _syscall(_FUTEX, pool + 8 * _TURN, _FUTEX_WAIT_PRIVATE, seen & 0xFFFFFFFF, 0)
            _add(pool, _ASLEEP, -1)
            looks = 0
            continue
        seen = turn
        if _read(pool, _STOP) != 0:
            return
        if off != _read(pool, _CALLER) and _sched_getcpu() == _read(pool, _CALLER):
            off = _read(pool, _CALLER)
            _keep_off(cpus, off)
        slot, idle = 0, 0
        while idle < _SLOTS:
            at = _SLOT + slot * _SLOT_WORDS
            slot, idle = (slot + 1) % _SLOTS, idle + 1
            if _read(pool, at + _GATE) < _CLOSED:
                if _add(pool, at + _GATE, 1) < _CLOSED:
                    worker = _add(pool, at + _JOB, 1) + 1
                    if worker < _read(pool, at + _JOB + 5) and _take_blocks(pool, at, worker, seat) > 0:
                        looks = idle = 0  # who is not needed goes to sleep, however many launches there are
                _add(pool, at + _GATE, -1)


@_helper
def share(pool, trampoline, state, blocks, workers):
    """Runs all blocks on up to ``workers`` threads, the caller among them."""
    slot = 0
    while slot < _SLOTS and _exchange(pool, _SLOT + slot * _SLOT_WORDS + _LOCK, 1) != 0:
        slot += 1
    if slot == _SLOTS:
        for block in range(blocks):
            run_block(trampoline, state, block, 0)
        return
    cpu = _sched_getcpu()
    if _read(pool, _CALLER) != cpu:
        _write(pool, _CALLER, cpu)
    at = _SLOT + slot * _SLOT_WORDS
    job = at + _JOB
    _write(pool, job, 0)
    _write(pool, job + 1, trampoline)
    _write(pool, job + 2, state)
    ranges = min(_MOST_RANGES, (workers + 1) // 2)
    for i in range(ranges):
        _write(pool, at + _RANGES + i * _LINE, 0)
    _write(pool, job + 3, ranges)
    _write(pool, job + 4, blocks)
    _write(pool, job + 5, workers)
    _add(pool, at + _GATE, -_CLOSED)
    _add(pool, _TURN, 1)
    asleep = _read(pool, _ASLEEP)
    if asleep > 0:
        looking = _read(pool, _ALIVE) - asleep if slot == 0 else 0  # beside another launch, they work for that
        if workers - 1 > looking:
            _syscall(_FUTEX, pool + 8 * _TURN, _FUTEX_WAKE_PRIVATE, workers - 1 - looking, 0)
    caller = np.intp(0)  # a literal would have it compiled again
    _take_blocks(pool, at, caller, caller)
    _add(pool, at + _GATE, _CLOSED)
    looks = 0
    while _read(pool, at + _GATE) != _CLOSED:
        looks += 1
        _pause()
        if looks > _PATIENCE:
            _sched_yield()
    _write(pool, at + _LOCK, 0)


class ThreadPool:
    """The threads. They are started at the first launch, and in a forked child at its first."""

    def __init__(self, attend: Callable[[int, Any], None], address: Callable[[], int]) -> None:
        self._attend, self._address = attend, address
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.started = False
        atexit.register(self.stop)
        os.register_at_fork(after_in_child=self._forked)

    def start(self, count: int) -> None:
        """Sees to it that there are ``count`` threads."""
        with self._lock:
            if self.started:
                return
            self.started = True
            pool = self._address()
            cpus = np.zeros(_CPU_WORDS, np.int64)
            for cpu in os.sched_getaffinity(0):
                if cpu < 64 * _CPU_WORDS:
                    cpus.view(np.uint64)[cpu // 64] |= np.uint64(1 << cpu % 64)
            self._threads = [threading.Thread(target=self._attend, args=(pool, cpus.copy()), name=f"fastops-{i + 1}", daemon=True) for i in range(count)]
            with contextlib.suppress(RuntimeError):  # no more threads to be had: callers do with fewer
                for thread in self._threads:
                    thread.start()

    def stop(self) -> None:
        """Ends the threads: they must not run machine code any more when the process takes it away."""
        with self._lock:
            if not self._threads:
                return
            pool = self._address()
            for word in (_STOP, _TURN):
                ctypes.c_int64.from_address(pool + 8 * word).value += 1
            ctypes.CDLL(None).syscall(_FUTEX, ctypes.c_void_p(pool + 8 * _TURN), _FUTEX_WAKE_PRIVATE, len(self._threads), None)
            for thread in self._threads:
                if thread.is_alive():
                    thread.join(1)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        if self.started:
            self.started, self._threads = False, []
            pool = self._address()
            ctypes.memmove(pool, (ctypes.c_int64 * _WORDS)(*_AT_FIRST), 8 * _WORDS)
