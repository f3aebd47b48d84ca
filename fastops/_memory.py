"""Memory for large results, kept when they are let go of and handed out again.

The system zeroes every page of fresh memory at its first touch, which takes longer than most kernels: relu of 102 MB takes 14.4 ms
into fresh memory and 7.6 into memory that was used before. Whether an allocator's memory is fresh depends on what else was allocated
and freed; here it is used before whenever a result of about that size has been let go of. Memory goes back when the last
array that looks into it is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import Any

import numpy as np

# From so many bytes on: smaller results come from the allocator's own lists.
LARGE = 1 << 19
_FEW = LARGE // 8  # elements of whatever dtype
# At most so many are kept; what was let go of longest ago goes first.
_KEEP = 256 << 20
_LINE = 64


class _Kept:
    """Memory that waits to be used again, by size."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[int]] = {}
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()  # by size and address, oldest first
        self._bytes = 0
        self._most, self._line = _KEEP, _LINE

    def take(self, size: int) -> tuple[np.ndarray, int]:
        """So many bytes, of which the contents are undefined, and their address, which takes 1 us to find out."""
        # Another Python thread, or a result let go of by the collector, may come in between any two steps.
        addresses = self._by_size.get(size)
        while addresses:
            try:
                address = addresses.pop()
                block = self._blocks.pop((size, address))
            except (IndexError, KeyError):
                continue
            self._bytes -= size
            return block, address
        block = np.empty(size + _LINE, np.uint8)
        return block, block.ctypes.data

    def give(self, block: np.ndarray, address: int) -> None:
        # Arrays are still let go of when the interpreter ends: nothing here may be imported, or looked for in a module.
        size = block.size - self._line
        if size > self._most:
            return
        self._blocks[size, address] = block
        self._by_size.setdefault(size, []).append(address)
        self._bytes += size
        while self._bytes > self._most:
            try:
                _, oldest = self._blocks.popitem(last=False)
            except KeyError:
                return
            self._bytes -= oldest.size - self._line


_kept = _Kept()
_numpy_empty = np.empty


class _Lender:
    """What an array of borrowed memory holds on to."""

    __slots__ = ("__array_interface__", "_address", "_block")

    def __init__(self, block: np.ndarray, address: int, interface: dict[str, Any]) -> None:
        self._block, self._address, self.__array_interface__ = block, address, interface

    def __del__(self, kept: _Kept = _kept) -> None:
        kept.give(self._block, self._address)


def _rounded(size: int) -> int:
    """The next of eight sizes between powers of two, so that results of about the same size share memory."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> np.ndarray:
    """``numpy.empty``; large arrays begin on a cache line."""
    count = shape if type(shape) is int else prod(shape)  # type: ignore[arg-type]
    if count < _FEW:
        return _numpy_empty(shape, dtype)
    dtype = np.dtype(dtype)
    size = count * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    block, address = _kept.take(_rounded(size))
    place = (address + -address % _LINE, False)
    shape = (shape,) if type(shape) is int else tuple(shape)  # type: ignore[arg-type]
    return np.asarray(_Lender(block, address, {"shape": shape, "typestr": dtype.str, "data": place, "version": 3}))


def empty_like(array: np.ndarray) -> np.ndarray:
    """An array of the shape and dtype, C-contiguous."""
    return empty(array.shape, array.dtype)
