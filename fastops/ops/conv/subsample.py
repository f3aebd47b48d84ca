"""The pixels that a kernel of one pixel with a stride sees, side by side, and put back between those that it does not see."""

from __future__ import annotations

from math import prod

import numpy as np

from fastops import _threads
from fastops._jit import function, launcher, parallel, separate
from fastops.ops.conv.spec import ConvSpec
from fastops.simd.pack import copy_run
from fastops.simd.vector import lanes, splat, store_part

# Elements of a block.
_BLOCK = 1 << 14
# Time of an element that is taken, and of one of an image between whose pixels they are put.
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
def _take_block(block, worker, some, table, run, x, seen):
    pixels = table.size - 1
    i, end = block * some, min(seen.size // run, (block + 1) * some)
    while i < end:
        plane, first = i // pixels, i % pixels
        last = min(pixels, first + end - i)
        base = plane * table[pixels]
        if run == 1:
            from_, to, at = x[base:], seen[i : i + last - first], table[first:last]
            for k in range(to.size):
                to[k] = from_[at[k]]
        else:
            for k in range(first, last):
                copy_run(x, (base + table[k]) * run, seen, (i + k - first) * run, run)
        i += last - first


@separate
def _put_block(block, worker, some, table, run, seen, fill, x):
    """Some pixels that are seen, each with those up to the next."""
    pixels, channels = table.size - 1, fill.size // run
    i, end = block * some, min(seen.size // run, (block + 1) * some)
    while i < end:
        plane, first = i // pixels, i % pixels
        last = min(pixels, first + end - i)
        base, f0 = plane * table[pixels], plane % channels
        if run == 1:
            _fill(fill, f0, run, x, base + table[first], table[last] - table[first])
            from_, to, at = seen[i : i + last - first], x[base:], table[first:last]
            for k in range(from_.size):
                to[at[k]] = from_[k]
        else:
            for k in range(first, last):
                to_pixel = base + table[k]
                copy_run(seen, (i + k - first) * run, x, to_pixel * run, run)
                _fill(fill, f0, run, x, (to_pixel + 1) * run, table[k + 1] - table[k] - 1)
        i += last - first


@launcher
def _take(threads, blocks, some, table, run, x, seen):
    parallel(_take_block, blocks, threads, (some, table, run, x, seen))


@launcher
def _put(threads, blocks, some, table, run, seen, fill, x):
    parallel(_put_block, blocks, threads, (some, table, run, seen, fill, x))


def elements(spec: ConvSpec) -> int:
    """Of the pixels of an image that are seen."""
    return spec.channels * prod(spec.out_size)


class Seen:
    """The pixels that are seen: (N, C, O, P, Q) of (N, C, D, H, W), or with channels last; all arrays lie flat."""

    def __init__(self, spec: ConvSpec) -> None:
        (_, height, width), (o, p, q) = spec.size, np.ogrid[tuple(map(slice, spec.out_size))]
        places = (o * spec.stride[0] * height + p * spec.stride[1]) * width + q * spec.stride[2]
        # Where in a plane they are, and its end. Rows of 7 by vectors and masks took 10 ns, as long as 35 numbers one by one.
        self._table = np.append(places.reshape(-1), prod(spec.size))
        self._run = spec.channels if spec.channels_last else 1

    def take(self, x: np.ndarray, seen: np.ndarray) -> None:
        """``seen`` from x."""
        _take(*self._blocks(seen, NS_TAKEN * seen.size), self._table, self._run, x, seen)

    def put(self, seen: np.ndarray, fill: np.ndarray, x: np.ndarray) -> None:
        """x from ``seen``, and from ``fill``, one number for each channel, where no window sees it."""
        _put(*self._blocks(seen, NS_PUT * x.size), self._table, self._run, seen, fill, x)

    def _blocks(self, seen: np.ndarray, nanoseconds: float) -> tuple[int, int, int]:
        """Threads, blocks, and the pixels of one."""
        some = max(1, _BLOCK // self._run)
        return _threads.threads_for(nanoseconds), -(-seen.size // (self._run * some)), some
