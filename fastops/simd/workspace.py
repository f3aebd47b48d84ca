"""Scratch memory that is kept between calls.

Fresh memory costs more than most kernels: every page is zeroed by the system at its first touch (64 MB: 7 ms reused,
14 ms fresh). Each Python thread keeps one buffer a dtype and use, and hands out its start; it grows up to a limit, and what is
asked for beyond that is allocated for the one call.
"""

from __future__ import annotations

import threading
from math import prod

import numpy as np

from fastops.simd.blocking import NAMES

_KEEP_BYTES = 64 << 20
_LINE = 64


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.held: dict[tuple[str, str], np.ndarray] = {}


_buffers = _Buffers()


def aligned(count: int, dtype: str) -> np.ndarray:
    """``count`` elements from the start of a cache line on, contents undefined: no vector of them takes two lines."""
    itemsize = np.dtype(dtype).itemsize
    raw = np.empty(count * itemsize + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + count * itemsize].view(dtype)


def scratch(count: int, dtype: str, use: str = "") -> np.ndarray:
    """At least ``count`` elements, aligned to a cache line, contents undefined; valid until this thread's next call for that use.

    Whoever holds a buffer while calling others that take one names a ``use`` of its own.
    """
    held = _buffers.held.get((dtype, use))
    if held is not None and held.size >= count:
        return held
    fresh = aligned(count, dtype)
    if fresh.nbytes <= _KEEP_BYTES:
        _buffers.held[dtype, use] = fresh
    return fresh


def scratch_array(shape: tuple[int, ...], dtype: np.dtype, use: str = "") -> np.ndarray:
    """As ``scratch``, float32 or float64 in that shape: for loops that a vector across two lines slows, by a third in softmax of 4096x77."""
    count = prod(shape)
    return scratch(count, NAMES[dtype.char], use)[:count].reshape(shape)
