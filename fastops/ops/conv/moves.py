"""Elements that are moved from one order to another, by tables of where they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from fastops import _threads
from fastops._jit import function, launcher, parallel, separate
from fastops.simd.pack import copy_run
from fastops.simd.vector import lanes, splat, store_part

# Elements of a block.
_BLOCK = 1 << 14
# Bytes of tables that are kept: plans, of which there may be a thousand, do not hold them.
_KEEP_BYTES = 64 << 20
# Time of an element that is taken, and of one between which they are put.
NS_TAKEN, NS_PUT = 0.5, 0.2


@function
def _fill(fill, f0, run, x, x0, count):
    """``count`` pixels of ``run`` elements, all the same."""
    if run > 1:
        for i in range(count):
            copy_run(fill, f0, x, x0 + i * run, run)
    else:
        value = splat(x, fill[f0])
        for i in range(0, count, lanes(x)):
            store_part(x, x0 + i, value, count - i)


@separate
def _take_block(block, worker, some, table, run, zeros, x, taken):
    n = table.size - 1
    zero = x.dtype.type(0)
    i, end = block * some, min(taken.size // run, (block + 1) * some)
    while i < end:
        plane, first = i // n, i % n
        last = min(n, first + end - i)
        base = plane * table[n]
        if run == 1:
            from_, to, at = x[base:], taken[i : i + last - first], table[first:last]
            for k in range(to.size):
                to[k] = from_[at[k]] if at[k] >= 0 else zero
        else:
            for k in range(first, last):
                to_pixel = (i + k - first) * run
                if table[k] >= 0:
                    copy_run(x, (base + table[k]) * run, taken, to_pixel, run)
                else:
                    _fill(zeros, 0, run, taken, to_pixel, 1)
        i += last - first


@separate
def _put_block(block, worker, some, table, run, taken, fill, x):
    """Some pixels that were taken, each with those up to the next."""
    n, channels = table.size - 1, fill.size // run
    i, end = block * some, min(taken.size // run, (block + 1) * some)
    while i < end:
        plane, first = i // n, i % n
        last = min(n, first + end - i)
        base, f0 = plane * table[n], plane % channels
        if run == 1:
            _fill(fill, f0, run, x, base + table[first], table[last] - table[first])
            from_, to, at = taken[i : i + last - first], x[base:], table[first:last]
            for k in range(from_.size):
                to[at[k]] = from_[k]
        else:
            for k in range(first, last):
                to_pixel = base + table[k]
                copy_run(taken, (i + k - first) * run, x, to_pixel * run, run)
                _fill(fill, f0, run, x, (to_pixel + 1) * run, table[k + 1] - table[k] - 1)
        i += last - first


@launcher
def _take(threads, blocks, some, table, run, zeros, x, taken):
    parallel(_take_block, blocks, threads, (some, table, run, zeros, x, taken))


@launcher
def _put(threads, blocks, some, table, run, taken, fill, x):
    parallel(_put_block, blocks, threads, (some, table, run, taken, fill, x))


class Moves:
    """Between planes of so many pixels and those of them that are taken.

    Args:
        places: which pixels of a plane are taken, in order; -1 for a zero.
        plane: how many a plane has.
        run: elements of a pixel.

    Arrays lie flat, plane after plane. A loop over numbers takes no longer than vectors and masks, where rows have a few dozen of them: rows of 7
    took 10 ns as vectors, as long as 35 numbers.
    """

    def __init__(self, places: np.ndarray, plane: int, run: int = 1) -> None:
        self._table = np.append(places.reshape(-1), plane).astype(np.int32 if plane < 1 << 31 else np.int64)
        self._run, self.nbytes = run, self._table.nbytes

    def take(self, x: np.ndarray, taken: np.ndarray) -> None:
        """``taken`` from x."""
        zeros = np.zeros(self._run, x.dtype)
        _take(*self._blocks(taken, NS_TAKEN * taken.size), self._table, self._run, zeros, x, taken)

    def put(self, taken: np.ndarray, fill: np.ndarray, x: np.ndarray) -> None:
        """x from ``taken``, and elsewhere from ``fill``, a pixel, or one number for each plane; places must ascend from the first pixel."""
        _put(*self._blocks(taken, NS_PUT * x.size), self._table, self._run, taken, fill, x)

    def _blocks(self, taken: np.ndarray, nanoseconds: float) -> tuple[int, int, int]:
        """Threads, blocks, and the pixels of one."""
        some = max(1, _BLOCK // self._run)
        return _threads.threads_for(nanoseconds), -(-taken.size // (self._run * some)), some


_held: dict[Hashable, Moves] = {}


def kept(key: Hashable, make: Callable[[], Moves]) -> Moves:
    """What ``make`` returns, which depends on the key alone: from an earlier call, unless later ones have filled the memory."""
    found = _held.get(key)
    if found is None:
        found = _held[key] = make()
        sizes = [(other, moves.nbytes) for other, moves in list(_held.items())]
        excess = sum(size for _, size in sizes) - _KEEP_BYTES
        for other, size in sizes[:-1]:  # the oldest first
            if excess <= 0:
                break
            _held.pop(other, None)
            excess -= size
    return found
