"""pad: an array with margins. one_hot: class numbers as rows of zeros with a single one.

    pad:     y[.., j] = x[.., s(j)] with, per axis of n elements and j counted from the first element of x,
             reflect s(j) = -j before the start and 2 (n - 1) - j past the end; replicate s(j) = min(max(j, 0), n - 1);
             circular s(j) = j mod n; constant: s(j) does not exist, and y is ``value``.
    one_hot: y[.., c] = 1 where c = tensor[..], else 0

The gradient of pad adds dy[j] to dx[s(j)]. It needs nothing but shapes: each row of dx gathers the rows of dy that are its
copies (a table per axis), so nothing is scattered and the order of additions is fixed. A negative pad crops. Every mode but one
is the same walk over rows, with a table of source rows for the outer axes and of source columns for the margins of the last.
That one is constant, which needs no table, and whose gradient is the constant padding by the negative of pad.
Source: the definitions above are those of PyTorch's ``torch.nn.functional.pad``; circular crops before it wraps, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.rows import add_row, copy_row, fill_row

MODES = ("constant", "reflect", "replicate", "circular")

# Rows are handed out in blocks of about so many elements: 64 KB of float32, 2 us of work.
_BLOCK = 16384
_NS_PER_BYTE = 0.1


@separate
def _pad_constant(block, worker, x, dims, value, y):
    """Rows of y (planes, E, P, Q) from x (planes, D, H, W), both flat.

    What comes from x is [ahead, behind) of E, [top, bottom) of P and [begin, end) of Q, from element ``first`` of x on.
    """
    D, H, W, E, P, Q, first, ahead, behind, top, bottom, begin, end, rows, total = dims
    middle = end - begin
    r, last = block * rows, min((block + 1) * rows, total)
    while r < last:
        # the rows of one plane, of which some are copied
        p, e, plane = r % P, r // P % E, r // (P * E)
        stop = min(P, p + last - r)
        upper, lower = min(max(top, p), stop), min(max(bottom, p), stop)
        if e < ahead or e >= behind:
            upper = lower = stop
        source, target = ((plane * D + e - ahead) * H + upper - top) * W + first, (r + upper - p) * Q
        fill_row(value, y, r * Q, (upper - p) * Q)
        if middle == Q:
            for _ in range(lower - upper):
                copy_row(x, source, y, target, Q)
                source, target = source + W, target + Q
        elif upper < lower:
            # margins of two rows lie side by side: one store for both makes 0.095 ms of 0.111 for rows of 28 + 2 elements
            fill_row(value, y, target, begin)
            for _ in range(lower - upper - 1):
                copy_row(x, source, y, target + begin, middle)
                fill_row(value, y, target + end, Q - middle)
                source, target = source + W, target + Q
            copy_row(x, source, y, target + begin, middle)
            fill_row(value, y, target + end, Q - end)
        fill_row(value, y, (r + lower - p) * Q, (stop - lower) * Q)
        r += stop - p


@separate
def _pad_forward(block, worker, x, table, dims, y):
    """Rows of y (planes, E, P, Q) from x (planes, D, H, W), both flat; table: sources of E, then P, then Q."""
    D, H, W, E, P, Q, first, begin, end, rows, total = dims
    columns = table[E + P :]
    r = block * rows
    p, e, plane = r % P, r // P % E, r // (P * E)
    last = min((block + 1) * rows, total)
    while r < last:
        source, target = ((plane * D + table[np.uintp(e)]) * H + table[np.uintp(E + p)]) * W, r * Q
        for q in range(begin):
            y[np.uintp(target + q)] = x[np.uintp(source + columns[np.uintp(q)])]
        copy_row(x, source + first, y, target + begin, end - begin)
        for q in range(end, Q):
            y[np.uintp(target + q)] = x[np.uintp(source + columns[np.uintp(q)])]
        r += 1
        p += 1
        if p == P:
            p, e = 0, e + 1
            if e == E:
                e, plane = 0, plane + 1


@separate
def _pad_backward(block, worker, dy, table, dims, dx):
    """Rows of dx (planes, D, H, W) from dy (planes, E, P, Q), both flat.

    table: for each of D the (start, end) of its copies among E in the lists behind; so for H and P; for each of Q the
    column that it is a copy of; the lists.
    """
    D, H, W, E, P, Q, first, begin, end, rows, total = dims
    columns = table[2 * (D + H) :]
    middle = end - begin
    zero = dx.dtype.type(0)
    r = block * rows
    h, d, plane = r % H, r // H % D, r // (H * D)
    last = min((block + 1) * rows, total)
    while r < last:
        target, fresh = r * W, True
        for i in range(table[np.uintp(2 * d)], table[np.uintp(2 * d + 1)]):
            for j in range(table[np.uintp(2 * (D + h))], table[np.uintp(2 * (D + h) + 1)]):
                source = ((plane * E + table[np.uintp(i)]) * P + table[np.uintp(j)]) * Q
                if fresh:
                    if middle < W:
                        fill_row(zero, dx, target, W)
                    copy_row(dy, source + begin, dx, target + first, middle)
                    fresh = False
                else:
                    add_row(dy, source + begin, dx, target + first, middle)
                for q in range(begin):
                    dx[np.uintp(target + columns[np.uintp(q)])] += dy[np.uintp(source + q)]
                for q in range(end, Q):
                    dx[np.uintp(target + columns[np.uintp(q)])] += dy[np.uintp(source + q)]
        if fresh:
            fill_row(zero, dx, target, W)
        r += 1
        h += 1
        if h == H:
            h, d = 0, d + 1
            if d == D:
                d, plane = 0, plane + 1


@launcher
def _pad_constants(threads, x, dims, value, y):
    parallel(_pad_constant, -(-dims[-1] // dims[-2]), threads, (x, dims, value, y))


@launcher
def _pad_all(threads, x, table, dims, y):
    parallel(_pad_forward, -(-dims[-1] // dims[-2]), threads, (x, table, dims, y))


@launcher
def _pad_gradient(threads, dy, table, dims, dx):
    parallel(_pad_backward, -(-dims[-1] // dims[-2]), threads, (dy, table, dims, dx))


class _Step(NamedTuple):
    """The padding of the last three axes (two or one of them may be of one element); constant padding has no tables."""

    size: int
    sources: Array | None
    dims: tuple[int, ...]
    back_size: int
    copies: Array | None
    back_dims: tuple[int, ...]


def _sources(mode: str, size: int, before: int, after: int) -> Array:
    """For each element of a padded axis the element that it is a copy of."""
    j = np.arange(-before, size + after)
    if mode == "reflect":
        return np.where(j < 0, -j, np.where(j >= size, 2 * (size - 1) - j, j))
    if mode == "replicate":
        return np.clip(j, 0, size - 1)
    start, stop = max(-before, 0), size + min(after, 0)
    return (j - start) % max(stop - start, 1) + start


def _copies(sources: Array, size: int) -> tuple[Array, Array]:
    """The (start, end) of each source in the list of its copies, and that list."""
    listed = np.argsort(sources, kind="stable")
    starts = np.searchsorted(sources[listed], np.arange(size + 1))
    return np.stack([starts[:-1], starts[1:]], 1).ravel(), listed


def _checked_shape(op: str, shape: tuple[int, ...], mode: str, pads: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the result."""
    if len(pads) % 2:
        raise ValueError(f"{op}: pad must be pairs (before, after), got {len(pads)} numbers: {pads}")
    axes = len(pads) // 2
    if axes > len(shape):
        raise ValueError(f"{op}: pad must have at most a pair for each of the {len(shape)} axes of input, got {axes} pairs")
    padded = tuple(zip(range(len(shape) - 1, -1, -1), pads[::2], pads[1::2]))
    result = list(shape)
    for axis, before, after in padded:
        result[axis] += before + after
        if result[axis] < 0 or (mode == "constant" and min(before, after) < -shape[axis]):
            raise ValueError(f"{op}: pad must not crop more than axis {axis} has, {shape[axis]} elements, got ({before}, {after})")
    _check.fits(op, "pad", "the result", tuple(result), 8)
    if mode == "constant":
        return tuple(result)
    if axes not in (1, 2, 3) or len(shape) - axes not in (1, 2):
        raise ValueError(f'{op}: pad must be 1, 2 or 3 pairs for an input of 1 or 2 axes more with mode "{mode}", got {axes} pairs and shape {shape}')
    if mode != "circular" and 0 in shape[len(shape) - axes - 1 :]:
        raise ValueError(f'{op}: input must have elements on every axis but the batch with mode "{mode}", got shape {shape}')
    if mode != "circular" and max(result[axis] for axis, _, _ in padded) < 1:
        raise ValueError(f'{op}: pad must leave something of the input with mode "{mode}", got {pads} and shape {shape}')
    for axis, before, after in padded:
        size = shape[axis]
        most = {"reflect": size - 1, "replicate": max(before, after), "circular": size + min(before, 0) + min(after, 0)}[mode]
        if result[axis] and max(before, after) > max(most, 0):
            raise ValueError(f'{op}: pad must be at most {max(most, 0)} on axis {axis}, of {size} elements, with mode "{mode}", got ({before}, {after})')
    return tuple(result)


def _rows(planes: int, E: int, P: int, Q: int) -> tuple[int, int]:
    """How many rows a block has, and all blocks."""
    return max(1, _BLOCK // max(Q, 1)), planes * E * P


def _constant(size: tuple[int, ...], padded: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """The dims of ``_pad_constant``."""
    first = 0
    for n, (before, _) in zip(size[1:], pads):
        first = first * n + max(-before, 0)
    spans = [at for n, (before, after) in zip(padded[1:], pads) for at in (max(before, 0), n - max(after, 0))]
    return (*size[1:], *padded[1:], first, *spans, *_rows(*padded))


def _step(mode: str, size: tuple[int, ...], pads: tuple[tuple[int, int], ...]) -> _Step:
    """``size`` is (planes, D, H, W), ``pads`` are those of D, H and W."""
    planes, (D, H, W) = size[0], size[1:]
    if mode == "constant":
        padded = (planes, *(n + before + after for n, (before, after) in zip(size[1:], pads)))
        less = tuple((-before, -after) for before, after in pads)
        return _Step(prod(padded), None, _constant(size, padded, pads), prod(size), None, _constant(padded, size, less))
    axes = [_sources(mode, n, *pair) for n, pair in zip(size[1:], pads)]
    E, P, Q = (axis.size for axis in axes)
    before, after = pads[-1]
    # the middle of a row, which is copied as it stands; the rest of the row is margins
    begin, end = max(before, 0), Q - max(after, 0)
    if end <= begin:
        begin = end = Q
    common = (D, H, W, E, P, Q, min(max(-before, 0), W), begin, end)
    (d_spans, d_list), (h_spans, h_list) = (_copies(axis, n) for axis, n in zip(axes[:2], size[1:3]))
    lists = 2 * (D + H) + Q
    copies = [d_spans + lists, h_spans + lists + d_list.size, axes[2], d_list, h_list]
    return _Step(
        planes * E * P * Q, np.concatenate(axes), (*common, *_rows(planes, E, P, Q)),
        planes * D * H * W, np.concatenate(copies), (*common, *_rows(planes, D, H, W)),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _plan(op: str, shape: tuple[int, ...], mode: str, *pads: int) -> tuple[tuple[int, ...], tuple[_Step, ...]]:
    """The shape of the result and the steps to it: the last three axes, then two more at a time."""
    result = _checked_shape(op, shape, mode, pads)
    axes = max(len(shape), 3)
    size, padded = (1,) * (axes - len(shape)) + shape, (1,) * (axes - len(shape)) + result
    pairs = ((0, 0),) * (axes - len(pads) // 2) + tuple(zip(pads[::2], pads[1::2]))[::-1]
    steps = [_step(mode, (prod(size[:-3]), *size[-3:]), pairs[-3:])]
    for done in range(3, len(pads) // 2, 2):
        left = axes - done
        outer = (1, *size[:left])[-2:] if left == 1 else size[left - 2 : left]
        outer_pairs = ((0, 0), *pairs[:left])[-2:] if left == 1 else pairs[left - 2 : left]
        steps.append(_step(mode, (prod(size[: max(left - 2, 0)]), *outer, prod(padded[left:])), (*outer_pairs, (0, 0))))
    return result, tuple(steps)


def _numbers(op: str, mode: str, pad: Any) -> Sequence[int]:
    """The numbers of ``pad``; hashable, as the mode is, for the cache of plans."""
    _check.choice(op, "mode", mode, MODES)
    if isinstance(pad, np.ndarray) and pad.ndim == 1:
        pad = pad.tolist()
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"{op}: pad must be a sequence of integers, got {pad!r}")
    return pad if all(type(p) is int for p in pad) else [_check.integer(op, "pad", p, minimum=-(2**62)) for p in pad]


def _fill_value(op: str, mode: str, value: Any) -> float:
    if value is None:
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: value must be a number, got {value!r}") from None
    if mode != "constant" and number != 0:
        raise ValueError(f'{op}: value must be None with mode "{mode}", got {value!r}')
    return number


@operation
def pad(input: ArrayLike, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """Add margins to the last axes, or crop them: ``torch.nn.functional.pad``.

    Args:
        input: (N, C, W), (N, C, H, W), (N, C, D, H, W) or the same without N; with ``mode="constant"`` of any rank.
        pad: (before, after) for the last axis, then for the one before it, and so on; negative numbers crop.
        mode: "constant" (margins of ``value``), "reflect" (mirrored at the edge elements, which are not repeated),
            "replicate" (edge elements repeated) or "circular" (from the other end).
        value: what margins are filled with; None is 0.

    Returns:
        The padded array, of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape: a reflected margin is shorter
            than the axis, a circular one no longer than what is left of it.

    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> pad(x, (1, 2), "reflect"), pad(x, (1, 2), "circular"), pad(x, (1, -1), value=9.0)
    (array([[2., 1., 2., 3., 2., 1.]]), array([[3., 1., 2., 3., 1., 2.]]), array([[9., 1., 2.]]))
    """
    (x,), dtype = _check.as_arrays("pad", input=input)
    shape, steps = _plan("pad", x.shape, mode, *_numbers("pad", mode, pad))
    value = x.dtype.type(_fill_value("pad", mode, value))
    y = x.ravel()
    for step in steps:
        x, y = y, empty(step.size, x.dtype)
        if not y.size:
            continue
        threads = threads_for(y.nbytes * _NS_PER_BYTE)
        if step.sources is None:
            _pad_constants(threads, x, step.dims, value, y)
        else:
            _pad_all(threads, x, step.sources, step.dims, y)
    return y.reshape(shape).astype(dtype, copy=False)


def pad_backward(grad_output: ArrayLike, input: ArrayLike, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """Gradient of :func:`pad` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> pad_backward(np.ones((1, 6)), np.zeros((1, 3)), (1, 2), "reflect")
    array([[2., 3., 1.]])
    """
    op = "pad_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    shape = _check.shape_of(op, "input", input, dtype)
    result, steps = _plan(op, shape, mode, *_numbers(op, mode, pad))
    if dy.shape != result:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {result}, got {dy.shape}")
    dx = dy.ravel()
    for step in reversed(steps):
        dy, dx = dx, empty(step.back_size, dy.dtype)
        if not dx.size:
            continue
        threads = threads_for(dx.nbytes * _NS_PER_BYTE)
        if step.copies is None:
            _pad_constants(threads, dy, step.back_dims, dy.dtype.type(0), dx)
        else:
            _pad_gradient(threads, dy, step.copies, step.back_dims, dx)
    return dx.reshape(shape).astype(dtype, copy=False)


@separate
def _one_hot_forward(block, worker, x, rows, y):
    """Rows of y (count, classes), zeros but for column x[row]."""
    for row in range(block * rows, min((block + 1) * rows, x.size)):
        y[row] = 0
        y[row, np.uintp(x[row])] = 1


@launcher
def _one_hot_all(threads, x, rows, y):
    parallel(_one_hot_forward, -(-x.size // rows), threads, (x, rows, y))


@operation
def one_hot(tensor: ArrayLike, num_classes: int = -1) -> Array:
    """Class numbers as rows of zeros with a single one: ``torch.nn.functional.one_hot``. It has no gradient.

    Args:
        tensor: integers of at least 0, of any shape (N, ...).
        num_classes: how many classes there are; -1 for one more than the largest number.

    Returns:
        (N, ..., num_classes), int64.

    Raises:
        TypeError: an argument is of a wrong kind.
        ValueError: a number is negative or not below ``num_classes``, or there are none to tell ``num_classes`` from.

    >>> import numpy as np
    >>> one_hot(np.array([0, 2]))
    array([[1, 0, 0],
           [0, 0, 1]])
    """
    x = _check.to_ndarray("one_hot", "tensor", tensor, of="integers")
    if x.dtype.kind not in "iu":
        raise TypeError(f"one_hot: tensor must be an array of integers, got {x.dtype}")
    classes = _check.integer("one_hot", "num_classes", num_classes, minimum=-1)
    if x.size == 0:
        if classes < 1:
            raise ValueError(f"one_hot: num_classes must be given for a tensor without elements, got {classes}")
        return empty((*x.shape, classes), np.int64)
    smallest, largest = int(x.min()), int(x.max())
    if smallest < 0:
        raise ValueError(f"one_hot: tensor must have class numbers of at least 0, got {smallest}")
    if classes == -1:
        classes = largest + 1
    elif largest >= classes:
        raise ValueError(f"one_hot: tensor must have class numbers below num_classes, {classes}, got {largest}")
    _check.fits("one_hot", "num_classes", "the result", (*x.shape, classes), 8)
    y = empty((*x.shape, classes), np.int64)
    rows = max(1, _BLOCK // classes)
    _one_hot_all(threads_for(y.nbytes * _NS_PER_BYTE), np.require(x, np.int64, ("C", "W")).ravel(), rows, y.reshape(-1, classes))
    return y


register(pad, pad_backward, inputs=("input",), saved=())
register(one_hot, None, inputs=(), saved=())
