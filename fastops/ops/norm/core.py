"""What every normalisation shares: y = (x - mean) / sqrt(var + eps), scaled and shifted, over groups of elements.

A group is ``parts`` spans of ``length`` elements each:

    ==============  =============  ========================================  ==============
    operation       a group        its parts                                 weight and bias
    ==============  =============  ========================================  ==============
    batch_norm      a channel      that channel of every image, C L apart    one a group
    group_norm      (n, channels)  its channels, one behind the other        one a part
    instance_norm   (n, c)         one                                       one a group
    layer_norm      a row          one                                       one an element (``rows.py``)
    ==============  =============  ========================================  ==============

The mean and the variance are computed in two passes, while the group is in cache: the variance about the mean itself does
not suffer when the mean is large. Both are kept in float64, and so is the difference between the mean and the nearest number
of the array's format, which is subtracted from every element: with a mean of 10^4 and unit variance, float32 results are as
exact as with a mean of 0.

With x^ = (x - mean) rstd and g = dy weight, and sums over the group of n elements,

    dx = rstd (g - sum(g) / n - x^ sum(g x^) / n),    dweight = sum(dy x^),    dbias = sum(dy)

and dx = rstd g where the statistics were given. The backward pass needs the input and the two numbers of each group.

Source: Ioffe, Szegedy, "Batch Normalization" (2015), algorithm 1 and the equations of section 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.simd.reduce import BLOCK, lane_sum, span_moments, span_sum
from fastops.simd.vector import fma, lanes, load, load_part, splat, store, store_part
from fastops.simd.workspace import scratch_array

# Small groups are handed to a thread in bundles of so many elements.
BUNDLE = 1 << 14
# Spans so short, of enough images, lie side by side as rows of a matrix: one by one they take 10 ns, whatever their length.
_SHORT, _FEW = 25, 3
# Columns of a matrix that one thread takes, and rows whose moments are added in their own format.
_COLUMNS = 128
_ROWS = 128

NS_FORWARD, NS_BACKWARD = 0.3, 0.5


class Groups(NamedTuple):
    """Where groups lie in a flat array.

    Part i of group g starts at ``g * group_step + i * part_step``; its weight is number ``g % period * affine_step + i *
    affine_part``.
    """

    groups: int
    parts: int
    length: int
    group_step: int
    part_step: int
    period: int
    affine_step: int
    affine_part: int
    together: int


# Remembered, since a NamedTuple takes 0.5 us to make.


@lru_cache(maxsize=256)
def channels(batch: int, count: int, length: int) -> Groups:
    """Statistics of each channel, over the batch: an array (batch, count, length)."""
    return Groups(count, batch, length, length, count * length, count, 1, 0, max(1, BUNDLE // max(1, batch * length)))


@lru_cache(maxsize=256)
def given_channels(batch: int, count: int, length: int) -> Groups:
    """Each channel of each image in the order of memory, the statistics of channels being known."""
    return Groups(batch * count, 1, length, length, length, count, 1, 0, max(1, BUNDLE // max(1, length)))


@lru_cache(maxsize=256)
def channel_groups(batch: int, count: int, length: int, groups: int) -> Groups:
    """Statistics of ``groups`` groups of channels in each image: an array (batch, count, length)."""
    parts = count // groups
    step = parts * length
    return Groups(batch * groups, parts, length, step, length, groups, parts, 1, max(1, BUNDLE // max(1, step)))


@function
def about(x, start, parts, part_step, length, mean):
    """Mean and biased variance of a group, about a number that is nearly its mean."""
    count = parts * length
    near = x.dtype.type(mean)
    first = second = 0.0
    for i in range(parts):
        one, two = span_moments(x, start + i * part_step, length, near)
        first += one
        second += two
    rest = first / count
    return near + rest, second / count - rest * rest


@function
def statistics(x, start, parts, part_step, length):
    """Mean and biased variance of a group."""
    count = parts * length
    if part_step == length:  # its parts are one span
        parts, length = 1, count
    total = 0.0
    for i in range(parts):
        total += span_sum(x, start + i * part_step, length)
    return about(x, start, parts, part_step, length, total / count)


@intrinsic
def _confined(typingctx: Any, y: Any, low: Any, high: Any) -> Any:
    """y, or the limit it is beyond, of vectors or numbers; a limit that is not a number is none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, low, high = args
        value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
        return builder.select(builder.fcmp_ordered(">", value, high), high, value)

    return y(y, y, y), codegen


@intrinsic
def _where_between(typingctx: Any, value: Any, y: Any, low: Any, high: Any) -> Any:
    """value, or 0 where y is at a limit or beyond; a limit that is not a number is none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value, y, low, high = args
        outside = builder.or_(builder.fcmp_ordered("<=", y, low), builder.fcmp_ordered(">=", y, high))
        return builder.select(outside, ir.Constant(value.type, None), value)

    return value(value, y, y, y), codegen


# An activation that confines y to limits is done on the way. Its gradient needs y again, which is cheaper to compute than to
# read: the limits come with a third number where there are any, and kernels are compiled for the one or the other.


@function
def _let_through(dy, deviation, limits, slope, value, low, high):
    return _where_between(dy, deviation * slope + value, low, high) if len(limits) == 3 else dy


@function
def _gradient_sums(dy, x, start, length, near, limits, slope, value):
    """The sums of dy and of dy (x - near) over a span; y is (x - near) slope + value."""
    step, nothing, centre = lanes(x), splat(x, x.dtype.type(0)), splat(x, near)
    slope, value, low, high = splat(x, slope), splat(x, value), splat(x, limits[0]), splat(x, limits[1])
    first = second = 0.0
    i, last = start, start + length
    while i < last:
        end = min(i + BLOCK, last)
        a, b, aa, bb = nothing, nothing, nothing, nothing
        while end - i >= 2 * step:
            m, n = load(x, i) - centre, load(x, i + step) - centre
            p = _let_through(load(dy, i), m, limits, slope, value, low, high)
            q = _let_through(load(dy, i + step), n, limits, slope, value, low, high)
            a, b, aa, bb = a + p, b + q, fma(p, m, aa), fma(q, n, bb)
            i += 2 * step
        while end - i >= step:
            m = load(x, i) - centre
            p = _let_through(load(dy, i), m, limits, slope, value, low, high)
            a, aa = a + p, fma(p, m, aa)
            i += step
        if i < end:
            m = load_part(x, i, end - i) - centre
            p = _let_through(load_part(dy, i, end - i), m, limits, slope, value, low, high)
            a, aa = a + p, fma(p, m, aa)
            i = end
        first += lane_sum(a + b)
        second += lane_sum(aa + bb)
    return first, second


@function
def _apply(x, start, length, near, scale, shift, limits, y):
    """y = (x - near) scale + shift, within limits, over a span."""
    step, centre, factor, summand = lanes(x), splat(x, near), splat(x, scale), splat(x, shift)
    low, high = splat(x, limits[0]), splat(x, limits[1])
    if length < step:  # a masked store takes 20 ns
        for j in range(start, start + length):
            y[j] = _confined((x[j] - near) * scale + shift, limits[0], limits[1])
        return
    i, last = start, start + length - step
    while i < start + length:
        i = min(i, last)  # the last vector overlaps the one before it
        store(y, i, _confined(fma(load(x, i) - centre, factor, summand), low, high))
        i += step


@function
def _apply_gradient(dy, x, start, length, near, scale, given, slope, shift, limits, value, dx):
    """dx = dy scale + (x - near) slope + shift over a span, of which ``given`` leaves the first term; y is (x - near) scale + value."""
    step, centre, factor = lanes(x), splat(x, near), splat(x, scale)
    tilt, summand = splat(x, slope), splat(x, shift)
    intercept, low, high = splat(x, value), splat(x, limits[0]), splat(x, limits[1])
    if length < step:
        for j in range(start, start + length):
            p = _let_through(dy[j], x[j] - near, limits, scale, value, limits[0], limits[1])
            dx[j] = p * scale + (x.dtype.type(0) if given else (x[j] - near) * slope + shift)
        return
    i, last = start, start + length - step
    while i < start + length:
        i = min(i, last)
        m = load(x, i) - centre
        p = _let_through(load(dy, i), m, limits, factor, intercept, low, high)
        store(dx, i, fma(p, factor, summand if given else fma(m, tilt, summand)))
        i += step


@separate
def _forward_groups(block, worker, x, shape, given, eps, weight, bias, mean, var, limits, y):
    """y, and unless they are given mean and var, of some groups; weight and bias may be empty, and y."""
    groups, parts, length, group_step, part_step, period, affine_step, affine_part, together = shape
    number = x.dtype.type
    for group in range(block * together, min((block + 1) * together, groups)):
        base = group * group_step
        if not given:
            mean[group], var[group] = statistics(x, base, parts, part_step, length)
        if y.size == 0:
            continue
        centre, rstd = mean[group % mean.size], 1 / np.sqrt(var[group % mean.size] + eps)
        near, affine = number(centre), group % period * affine_step
        for i in range(parts):
            at = affine + i * affine_part
            scale = rstd * weight[at] if weight.size > 0 else rstd
            shift = (near - centre) * scale + (bias[at] if bias.size > 0 else 0.0)
            _apply(x, base + i * part_step, length, near, number(scale), number(shift), limits, y)


@separate
def _backward_groups(block, worker, dy, x, shape, given, eps, weight, bias, mean, var, limits, dx, dw, db):
    """dx unless it is empty; dw and db in float64, one for each group or part (not yet summed over images)."""
    groups, parts, length, group_step, part_step, period, affine_step, affine_part, together = shape
    number = x.dtype.type
    count = parts * length
    for group in range(block * together, min((block + 1) * together, groups)):
        base = group * group_step
        centre, rstd = mean[group % mean.size], 1 / np.sqrt(var[group % mean.size] + eps)
        near, affine = number(centre), group % period * affine_step
        away = centre - near
        sum_g = sum_gx = sum_dy = sum_dyx = 0.0
        for i in range(parts):
            at = affine + i * affine_part
            factor = weight[at] if weight.size > 0 else 1.0
            scale = rstd * weight[at] if weight.size > 0 else rstd
            value = (near - centre) * scale + (bias[at] if bias.size > 0 else 0.0)
            first, second = _gradient_sums(dy, x, base + i * part_step, length, near, limits, number(scale), number(value))
            second = (second - away * first) * rstd
            sum_g += factor * first
            sum_gx += factor * second
            sum_dy += first
            sum_dyx += second
            if affine_part == 1:
                dw[group * parts + i], db[group * parts + i] = second, first
        if affine_part == 0:
            dw[group], db[group] = sum_dyx, sum_dy
        if dx.size == 0:
            continue
        slope = 0.0 if given else -rstd * rstd * sum_gx / count
        shift = 0.0 if given else -rstd * sum_g / count - slope * away
        for i in range(parts):
            at = affine + i * affine_part
            scale = rstd * weight[at] if weight.size > 0 else rstd
            value = (near - centre) * scale + (bias[at] if bias.size > 0 else 0.0)
            _apply_gradient(dy, x, base + i * part_step, length, near, number(scale), given, number(slope), number(shift), limits, number(value), dx)


@launcher
def _forward(threads, x, shape, given, eps, weight, bias, mean, var, limits, y):
    parallel(_forward_groups, (shape[0] + shape[8] - 1) // shape[8], threads, (x, shape, given, eps, weight, bias, mean, var, limits, y))


@launcher
def _backward(threads, dy, x, shape, given, eps, weight, bias, mean, var, limits, dx, dw, db):
    blocks = (shape[0] + shape[8] - 1) // shape[8]
    parallel(_backward_groups, blocks, threads, (dy, x, shape, given, eps, weight, bias, mean, var, limits, dx, dw, db))


# ---- channels of short spans: images are the rows of a matrix (N, C length), whose columns are the lanes


@function
def _column_moments(x, row, rows, first, columns, near, one, two):
    """one, two = the sums of x - near and its square over some rows, for each column; all three have room for _COLUMNS."""
    width, flat, step, nothing = x.shape[1], x.reshape(-1), lanes(x), splat(x, x.dtype.type(0))
    start = row * width + first
    j = 0
    while columns - j >= 2 * step:
        left, right = load(near, j), load(near, j + step)
        a, b, aa, bb = nothing, nothing, nothing, nothing
        at = start + j
        for _ in range(rows):
            p, q = load(flat, at) - left, load(flat, at + step) - right
            a, b, aa, bb = a + p, b + q, fma(p, p, aa), fma(q, q, bb)
            at += width
        store(one, j, a)
        store(one, j + step, b)
        store(two, j, aa)
        store(two, j + step, bb)
        j += 2 * step
    while j < columns:
        left, a, aa, at = load(near, j), nothing, nothing, start + j
        for _ in range(rows):
            p = load_part(flat, at, columns - j) - left
            a, aa = a + p, fma(p, p, aa)
            at += width
        store(one, j, a)
        store(two, j, aa)
        j += step


@function
def _column_gradients(dy, x, row, rows, first, columns, near, one, two):
    """one, two = the sums of dy and of dy (x - near) over some rows, for each column."""
    width, flat, slope, step, nothing = x.shape[1], x.reshape(-1), dy.reshape(-1), lanes(x), splat(x, x.dtype.type(0))
    start = row * width + first
    j = 0
    while columns - j >= 2 * step:
        left, right = load(near, j), load(near, j + step)
        a, b, aa, bb = nothing, nothing, nothing, nothing
        at = start + j
        for _ in range(rows):
            p, q = load(slope, at), load(slope, at + step)
            a, b = a + p, b + q
            aa, bb = fma(p, load(flat, at) - left, aa), fma(q, load(flat, at + step) - right, bb)
            at += width
        store(one, j, a)
        store(one, j + step, b)
        store(two, j, aa)
        store(two, j + step, bb)
        j += 2 * step
    while j < columns:
        left, a, aa, at = load(near, j), nothing, nothing, start + j
        for _ in range(rows):
            p = load_part(slope, at, columns - j)
            a, aa = a + p, fma(p, load_part(flat, at, columns - j) - left, aa)
            at += width
        store(one, j, a)
        store(two, j, aa)
        j += step


@function
def _apply_columns(x, first, columns, near, factor, summand, y):
    """y = (x - near) factor + summand, with numbers of their own for each column."""
    width, flat, target, step = x.shape[1], x.reshape(-1), y.reshape(-1), lanes(x)
    j = 0
    while columns - j >= 2 * step:
        left, right = load(near, j), load(near, j + step)
        p, q, r, s = load(factor, j), load(factor, j + step), load(summand, j), load(summand, j + step)
        at = first + j
        for _ in range(x.shape[0]):
            store(target, at, fma(load(flat, at) - left, p, r))
            store(target, at + step, fma(load(flat, at + step) - right, q, s))
            at += width
        j += 2 * step
    while j < columns:
        left, p, r, at = load(near, j), load(factor, j), load(summand, j), first + j
        for _ in range(x.shape[0]):
            store_part(target, at, fma(load_part(flat, at, columns - j) - left, p, r), columns - j)
            at += width
        j += step


@function
def _apply_column_gradients(dy, x, first, columns, near, factor, given, tilt, summand, dx):
    """dx = dy factor + (x - near) tilt + summand, of which ``given`` leaves the first term."""
    width, flat, slope, target, step = x.shape[1], x.reshape(-1), dy.reshape(-1), dx.reshape(-1), lanes(x)
    for j in range(0, columns, step):
        left, p, q, r, at = load(near, j), load(factor, j), load(tilt, j), load(summand, j), first + j
        for _ in range(x.shape[0]):
            rest = r if given else fma(load_part(flat, at, columns - j) - left, q, r)
            store_part(target, at, fma(load_part(slope, at, columns - j), p, rest), columns - j)
            at += width


@function
def _columns_of(block, width, length):
    """The first column of a block, and how many it has: whole channels."""
    most = _COLUMNS // length * length
    return block * most, min(most, width - block * most)


@function
def _fold(values, length, totals):
    """totals[c] += the values of its columns."""
    if length == 1:  # in vectors
        for c in range(totals.size):
            totals[c] += values[c]
    else:
        for c in range(totals.size):
            for j in range(c * length, (c + 1) * length):
                totals[c] += values[j]


@function
def _spread(values, length, count):
    """The first ``count`` values, one for each channel, to all columns of each."""
    if length > 1:
        for i in range(count):
            c = count - 1 - i
            values[c * length : (c + 1) * length] = values[c]


@separate
def _forward_columns(block, worker, x, length, given, eps, weight, bias, mean, var, scratch, y):
    """As _forward_groups, for a block of columns of x (N, C length); scratch (threads, 4, _COLUMNS)."""
    N, width = x.shape
    first, columns = _columns_of(block, width, length)
    start, count = first // length, columns // length
    near, one, two, summand = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2], scratch[worker, 3]
    mean, var = mean[start : start + count], var[start : start + count]
    number = x.dtype.type
    if not given:
        near[:] = number(0)
        for _ in range(2):  # about zero for the mean, then about the mean
            mean[:], var[:] = 0.0, 0.0
            for row in range(0, N, _ROWS):
                _column_moments(x, row, min(_ROWS, N - row), first, columns, near, one, two)
                _fold(one, length, mean)
                _fold(two, length, var)
            for c in range(count):
                rest = mean[c] / (N * length)
                mean[c] = near[c * length] + rest
                var[c] = var[c] / (N * length) - rest * rest
            for c in range(count):
                near[c] = number(mean[c])
            _spread(near, length, count)
    if y.size == 0:
        return
    for c in range(count):
        scale = 1 / np.sqrt(var[c] + eps)
        scale *= weight[start + c] if weight.size > 0 else 1.0
        near[c] = number(mean[c])
        one[c] = number(scale)
        summand[c] = number((near[c] - mean[c]) * scale + (bias[start + c] if bias.size > 0 else 0.0))
    for values in (near, one, summand):
        _spread(values, length, count)
    _apply_columns(x, first, columns, near, one, summand, y)


@separate
def _backward_columns(block, worker, dy, x, length, given, eps, weight, mean, var, scratch, dx, dw, db):
    """As _backward_groups, for a block of columns of x (N, C length)."""
    N, width = x.shape
    first, columns = _columns_of(block, width, length)
    start, count = first // length, columns // length
    near, one, two, factor = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2], scratch[worker, 3]
    mean, var, dw, db = mean[start : start + count], var[start : start + count], dw[start : start + count], db[start : start + count]
    number = x.dtype.type
    near[:] = number(0)
    for c in range(count):
        near[c] = number(mean[c])
    _spread(near, length, count)
    dw[:], db[:] = 0.0, 0.0
    for row in range(0, N, _ROWS):
        _column_gradients(dy, x, row, min(_ROWS, N - row), first, columns, near, one, two)
        _fold(one, length, db)
        _fold(two, length, dw)
    for c in range(count):
        rstd = 1 / np.sqrt(var[c] + eps)
        away = mean[c] - near[c * length]
        dw[c] = (dw[c] - away * db[c]) * rstd
        scale = rstd * weight[start + c] if weight.size > 0 else rstd
        slope = 0.0 if given else -scale * rstd * dw[c] / (N * length)
        factor[c] = number(scale)
        one[c] = number(slope)
        two[c] = number(0.0 if given else -scale * db[c] / (N * length) - slope * away)
    for values in (factor, one, two):
        _spread(values, length, count)
    if dx.size > 0:
        _apply_column_gradients(dy, x, first, columns, near, factor, given, one, two, dx)


@function
def _column_blocks(width, length):
    most = _COLUMNS // length * length
    return (width + most - 1) // most


@launcher
def _forward_matrix(threads, x, length, given, eps, weight, bias, mean, var, scratch, y):
    blocks = _column_blocks(x.shape[1], length)
    parallel(_forward_columns, blocks, threads, (x, length, given, eps, weight, bias, mean, var, scratch, y))


@launcher
def _backward_matrix(threads, dy, x, length, given, eps, weight, mean, var, scratch, dx, dw, db):
    blocks = _column_blocks(x.shape[1], length)
    parallel(_backward_columns, blocks, threads, (dy, x, length, given, eps, weight, mean, var, scratch, dx, dw, db))


# ---- from arrays to kernels


@lru_cache(maxsize=16)
def _limits(dtype: np.dtype[Any], low: float | None, high: float | None) -> tuple[Any, ...]:
    """As kernels take them."""
    numbers = [dtype.type(np.nan if limit is None else limit) for limit in (low, high)]
    return tuple(numbers if low is None else [*numbers, dtype.type(0)])


def are_columns(batch: int, length: int) -> bool:
    """Whether channels of so many spans of that length are worked on side by side.

    4096x16x2 in training 0.93 to 0.04 ms, 512x64x5x5 0.61 to 0.28; 8x512x5x5 0.093, so 0.108.
    """
    return length <= min(_SHORT, _FEW * batch)


def _is_matrix(shape: Groups) -> bool:
    whole = shape.groups == shape.period and shape.part_step == shape.period * shape.length and shape.affine_part == 0
    return whole and are_columns(shape.parts, shape.length)


def forward(
    x: Array, shape: Groups, eps: float, weight: Array | None, bias: Array | None, mean: Array, var: Array, given: bool, y: Array,
    low: float | None = None, high: float | None = None,
) -> None:  # fmt: skip
    """Write y, and unless they are given ``mean`` and ``var`` (float64, one a group). An empty y asks for those alone.

    What is below ``low`` or above ``high`` becomes that; ``high`` goes with ``low`` alone.
    """
    threads = threads_for(x.size * NS_FORWARD)
    weight = empty(0, x.dtype) if weight is None else weight
    bias = empty(0, x.dtype) if bias is None else bias
    if _is_matrix(shape):
        scratch = scratch_array((threads, 4, _COLUMNS), x.dtype)
        x = x.reshape(shape.parts, shape.part_step)
        _forward_matrix(threads, x, shape.length, given, eps, weight, bias, mean, var, scratch, y.reshape(x.shape) if y.size else y.reshape(0, 0))
        # the kernels of matrices know no limits
        if low is not None:
            np.maximum(y, low, out=y)
        if high is not None:
            np.minimum(y, high, out=y)
    else:
        _forward(threads, x.ravel(), tuple(shape), given, eps, weight, bias, mean, var, _limits(x.dtype, low, high), y.ravel())


def backward(
    dy: Array, x: Array, shape: Groups, eps: float, weight: Array | None, mean: Array, var: Array, given: bool, wants_dx: bool,
    bias: Array | None = None, low: float | None = None, high: float | None = None,
) -> tuple[Array | None, Array]:  # fmt: skip
    """dx or None; dweight and dbias in float64 (2, n), one for each group or, where weights go with parts, for each part.

    ``bias`` matters where there are limits.
    """
    threads = threads_for(x.size * NS_BACKWARD)
    dx = empty(x.shape if wants_dx else 0, x.dtype)
    affine = empty((2, shape.groups * (shape.parts if shape.affine_part else 1)))
    dw, db = affine[0], affine[1]
    if weight is None:
        weight = empty(0, x.dtype)
    if _is_matrix(shape):
        scratch = scratch_array((threads, 4, _COLUMNS), x.dtype)
        matrix = shape.parts, shape.part_step
        if low is not None:
            y = empty(x.shape, x.dtype)
            forward(x, shape, eps, weight, bias, mean, var, True, y)
            dy = np.where(y <= low if high is None else (y <= low) | (y >= high), x.dtype.type(0), dy)
        _backward_matrix(
            threads, dy.reshape(matrix), x.reshape(matrix), shape.length, given, eps, weight, mean, var, scratch,
            dx.reshape(matrix if wants_dx else (0, 0)), dw, db,
        )  # fmt: skip
    else:
        bias, limits = empty(0, x.dtype) if bias is None else bias, _limits(x.dtype, low, high)
        _backward(threads, dy.ravel(), x.ravel(), tuple(shape), given, eps, weight, bias, mean, var, limits, dx.ravel(), dw, db)
    return dx if wants_dx else None, affine
