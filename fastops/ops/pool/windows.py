"""The windows of a pooling operation, as tables that one walker reads whatever kind of pooling they belong to.

Along every axis window o covers the elements first[o], first[o] + dilation, ... below end[o], padding left out. Strided
windows, the floor/ceil windows of adaptive pooling and the random ones of fractional pooling are then the same thing; 1-D and
2-D images are 3-D ones of depth and height 1. Where the windows of a row lie at a stride of up to 4, as nearly all do, the
table also says so: the walker then takes them a vector at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from fastops import _check, _shapes
from fastops._check import Array
from fastops.simd.blocking import LANES
from fastops.simd.turn import rows_together

Integers = int | tuple[int, ...]

# What stands where in a table; HEAD numbers, then the tables of the axes.
HEAD = 22
(
    D, H, W, T, P, Q, STRIDE, TAPS, DILATION, PADDING, STEP_Z, STEP_Y, PER_PLANE, LENGTH, ROWS, IN_ROWS, WHOLE,
    Z, Y, X, COVER_Z, COVER_Y,
) = range(HEAD)  # fmt: skip

# Room behind the elements of a row for loads and stores of whole vectors, twice the widest vector.
_SLACK = 64
# Elements that lie a stride apart are sorted together up to here; beyond, windows are taken one at a time.
_MOST_STRIDE = 4
# Rows of an image that hold about so many elements make a block of work.
_BLOCK = 1 << 14
# Elements of a plane that is small.
_SMALL_PLANE = 1024
# Rows of scratch memory that every worker has.
BUFFERS = 5


class Axis:
    """The windows along one axis: first element and end of each, and what they were made of."""

    def __init__(self, size: int, first: Array, end: Array, stride: int = 0, taps: int = 0, dilation: int = 1, padding: int = 0) -> None:
        self.size, self.first, self.end = size, first, end
        self.stride, self.taps, self.dilation, self.padding = stride, taps, dilation, padding

    @property
    def count(self) -> int:
        return self.first.shape[-1]

    def cover(self) -> Array:
        """For each element the first window that covers it and the end of those; windows in order, dilation left out."""
        elements = np.arange(self.size)
        begin = np.arange(self.count) * self.stride - self.padding if self.stride else self.first
        return np.stack([np.searchsorted(self.end, elements, "right"), np.searchsorted(begin, elements, "right")], -1)


def strided(size: int, kernel: int, stride: int, padding: int, dilation: int, count: int) -> Axis:
    """The windows of ordinary pooling."""
    begin = np.arange(count) * stride - padding
    # the first element inside, on the grid of the dilation
    first = begin + np.maximum(0, -(begin // dilation)) * dilation
    end = np.minimum(begin + (kernel - 1) * dilation + 1, size)
    return Axis(size, first, end, stride, kernel, dilation, padding)


def adaptive(size: int, count: int) -> Axis:
    """Windows from floor(o size / count) to ceil((o + 1) size / count)."""
    o = np.arange(count)
    if count and size % count == 0:
        return strided(size, size // count, size // count, 0, 1, count)
    return Axis(size, o * size // max(count, 1), -((o + 1) * -size // max(count, 1)))


class Plan:
    """The windows of all images of a call: what kernels and shapes need to know.

    Attributes:
        planes: images (batch times channels).
        axes: the windows along depth, height and width.
        table: the numbers that kernels read.
        shape, count: of the result as the user sees it, and its number of elements.
        cost: nanoseconds that one thread takes, roughly.
        together: planes that are turned, to be lanes, at a time; 0 where each goes by itself.
    """

    def __init__(self, planes: int, axes: tuple[Axis, Axis, Axis], lead: tuple[int, ...], ndim: int) -> None:
        self.planes, self.axes = planes, axes
        z, y, x = axes
        self.size, self.windows = tuple(a.size for a in axes), tuple(a.count for a in axes)
        self.plane, self.window_count = prod(self.size), prod(self.windows)
        self.input_shape, self.shape = (*lead, *self.size[3 - ndim :]), (*lead, *self.windows[3 - ndim :])
        self.count = planes * self.window_count
        taps = [max(1, int((a.end - a.first).max(initial=0)) // a.dilation) for a in axes]
        regular = 1 <= x.stride <= _MOST_STRIDE and x.count > 1 and (x.taps - 1) * x.dilation < x.size + 2 * x.padding
        head = np.zeros(HEAD, np.int64)
        head[[D, H, W]], head[[T, P, Q]] = self.size, self.windows
        head[STRIDE], head[TAPS] = (x.stride, x.taps) if regular else (0, 1)
        head[DILATION], head[PADDING], head[STEP_Z], head[STEP_Y] = x.dilation, x.padding if regular else 0, z.dilation, y.dilation
        reach = (int(head[TAPS]) - 1) * x.dilation
        length = reach + max(int(head[PADDING]) + x.size, x.count * max(int(head[STRIDE]), 1)) + _SLACK
        head[LENGTH] = -(-length // 32) * 32
        head[ROWS] = max(1, _BLOCK // max(1, x.size * taps[0] * taps[1]))
        head[IN_ROWS] = max(1, _BLOCK // x.size) if x.size else 1
        head[WHOLE] = self.windows == (1, 1, 1) and all(a.first.ndim == 1 and a.first[0] == 0 and a.end[0] == a.size and a.dilation == 1 for a in axes)
        parts, offset = [head], HEAD
        lists = [np.stack([a.first, a.end], -1).reshape(planes if a.first.ndim > 1 else 1, 2 * a.count) for a in axes]
        if x.first.ndim > 1:  # windows of its own for every plane
            joined = np.concatenate([np.broadcast_to(t, (planes, t.shape[1])) for t in lists], 1)
            head[PER_PLANE] = joined.shape[1]
            parts.append(joined.ravel())
            head[[Z, Y, X]] = offset + np.cumsum([0, lists[0].shape[1], lists[1].shape[1]])
        else:
            for at, t in zip((Z, Y, X, COVER_Z, COVER_Y), [*lists, z.cover(), y.cover()]):
                head[at] = offset
                offset += t.size
                parts.append(t.ravel())
        self.table = np.concatenate(parts)
        self.length = int(head[LENGTH])
        # the walker passes once over the rows of each window, then over the taps of a row
        per_row = x.size * taps[0] * taps[1] * 0.06 + x.count * taps[2] * (0.06 if regular else 0.6) + 20
        self._rows: dict[Any, Array] = {}
        self._parts: dict[int, Array] = {}
        self.cost = planes * (self.windows[0] * self.windows[1] * per_row + self.plane * 0.05)
        # Planes that are turned at a time where that is faster, as where they are small; 0 where each goes by itself.
        self.together = 0
        largest, lanes = max(self.plane, self.window_count), LANES["float32"]
        turned = 0.11 * (self.plane + self.window_count) + self.window_count / lanes * (3 + 1.8 * prod(taps))
        if largest <= _SMALL_PLANE and x.first.ndim == 1 and not head[WHOLE] and -(-planes // lanes) * lanes * turned < 0.9 * self.cost:
            self.together = rows_together(largest)

    def parts(self, count: int) -> Array:
        """A plane in about so many parts along its first axis: elements from, to, and the windows from, to that may reach into them."""
        if count not in self._parts:
            self._parts[count] = self._cut(count)
        return self._parts[count]

    def _cut(self, count: int) -> Array:
        # Windows that reach into a part follow one another along the first axis that has several of them.
        number = next((i for i, (n, windows) in enumerate(zip(self.size, self.windows)) if n > 1 or windows > 1), 2)
        axis = self.axes[number]
        # Where planes have windows of their own, or a gradient does without knowing them, nothing tells which reach where.
        if count == 1 or axis.size == 1 or axis.first.ndim > 1 or not (axis.first < axis.end).all():
            return np.array([[0, self.plane, 0, self.window_count]])
        size, cover = axis.size, axis.cover()
        ends = np.arange(1, min(count, size) + 1) * size // min(count, size)
        begins = np.concatenate([[0], ends[:-1]])
        element, window = self.plane // size, self.window_count // axis.count
        return np.stack([begins * element, ends * element, cover[begins, 0] * window, cover[ends - 1, 1] * window], -1)

    def row(self, key: Any, make: Callable[[], Array], dtype: np.dtype[Any]) -> Array:
        """Numbers that kernels load beside a row, made once, with zeros behind them for the last vector."""
        found = self._rows.get((key, dtype))
        if found is None:
            values = make()
            found = self._rows[key, dtype] = np.concatenate([values, np.zeros(_SLACK)]).astype(dtype)
        return found


def spatial(op: str, shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The extents of the image behind (N, C, ...) or (C, ...)."""
    axes = "DHW"[3 - ndim :] if ndim > 1 else "L"
    named = ", ".join(axes)
    if len(shape) not in (ndim + 1, ndim + 2) or 0 in shape[len(shape) - ndim - 1 :]:
        raise ValueError(f"{op}: input must have axes (N, C, {named}) or (C, {named}), of at least 1 but for N, got shape {shape}")
    return (1,) * (3 - ndim) + shape[len(shape) - ndim :]


def output_count(size: int, kernel: int, stride: int, dilation: int, padding: int, ceil_mode: bool) -> int:
    """How many windows an axis has; with ``ceil_mode`` also a last one that fits in part, but none that starts in the padding behind.

    >>> output_count(5, 2, 2, 1, 0, False), output_count(5, 2, 2, 1, 0, True)
    (2, 3)
    """
    count = _shapes.window_output(size, kernel, stride, dilation, padding, padding + (stride - 1) * ceil_mode)
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def check_windows(
    op: str, size: tuple[int, ...], ndim: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
) -> tuple[Axis, Axis, Axis]:  # fmt: skip
    """The axes of ordinary pooling, its arguments checked."""
    kernel = _check.integers(op, "kernel_size", kernel_size, ndim, minimum=1)
    same = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    strides = kernel if same else _check.integers(op, "stride", stride, ndim, minimum=1)
    pads = _check.integers(op, "padding", padding, ndim, minimum=0)
    dilations = _check.integers(op, "dilation", dilation, ndim, minimum=1)
    for k, pad in zip(kernel, pads):
        if pad > k // 2:
            raise ValueError(f"{op}: padding must be at most half of kernel_size, {kernel}, got {pads}")
    counts = tuple(map(output_count, size[3 - ndim :], kernel, strides, dilations, pads, (bool(ceil_mode),) * ndim))
    if min(counts) < 1:
        raise ValueError(f"{op}: kernel_size must fit the image with padding, {tuple(n + 2 * p for n, p in zip(size[3 - ndim :], pads))}, got {kernel}")
    fill = (1,) * (3 - ndim)
    extents = tuple(n + 2 * p for n, p in zip(size[3 - ndim :], pads))
    _check.fits(op, "padding", "the padded input", extents, 8)
    # What reaches beyond the image changes nothing; clamped, products stay in range.
    strides = tuple(map(min, strides, extents))
    kernel = tuple(min(k, n // d + 2) for k, d, n in zip(kernel, dilations, extents))
    dilations = tuple(map(min, dilations, extents))
    z, y, x = (strided(*values) for values in zip(size, fill + kernel, fill + strides, (0,) * (3 - ndim) + pads, fill + dilations, fill + counts))
    return z, y, x


def made(op: str, shape: tuple[int, ...], ndim: int, axes: tuple[Axis, Axis, Axis]) -> Plan:
    """The plan of images of a shape with the given windows."""
    lead = shape[: len(shape) - ndim]
    plan = Plan(prod(lead), axes, lead, ndim)
    _check.fits(op, "input", "the output", plan.shape, 8)
    return plan


def remembered(make: Callable[..., Any]) -> Callable[..., Any]:
    """A cache of plans by the arguments of ``make``: operation, axes, shape, up to four attributes that are integers, and switches.

    Attributes that cannot be hashed (lists), or that equal an integer and are none (2.0), are worked out anew.
    """
    cached = lru_cache(maxsize=512)(make)

    def find(*args: Any) -> Any:
        if not _check.exact(*args[3:7]):
            return make(*args)
        try:
            return cached(*args)
        except TypeError:
            return make(*args)

    return find


@remembered
def ordinary(
    op: str, ndim: int, shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any,
) -> Plan:  # fmt: skip
    """The plan of max, mean and norm pooling."""
    axes = check_windows(op, spatial(op, shape, ndim), ndim, kernel_size, stride, padding, dilation, ceil_mode)
    return made(op, shape, ndim, axes)


@remembered
def of_output_size(op: str, ndim: int, shape: tuple[int, ...], output_size: Any) -> Plan:
    """The plan of adaptive pooling; None keeps the size of an axis."""
    size = spatial(op, shape, ndim)
    items = _check.one_or_more(output_size)
    if len(items) == 1:
        items = (items[0],) * ndim
    if len(items) != ndim:
        raise ValueError(f"{op}: output_size must be an integer or None, or {ndim} of them, got {output_size!r}")
    counts = [n if item is None else _check.integer(op, "output_size", item, minimum=0) for item, n in zip(items, size[3 - ndim :])]
    _check.fits(op, "output_size", "the output", (*shape[: len(shape) - ndim], *counts), 8)
    z, y, x = map(adaptive, size, [1] * (3 - ndim) + counts)
    return made(op, shape, ndim, (z, y, x))
