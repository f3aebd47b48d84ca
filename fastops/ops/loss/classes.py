"""Losses of scores for classes. With m the largest score of a row x and s = log(sum over c of e^(x_c - m)), -log softmax is m - x + s.

    nll_loss:                  -w_t x_t                                       gradient -w_t at t, 0 elsewhere
    cross_entropy, class t:    (1 - e) w_t (m - x_t + s) + e / C sum over c of w_c (m - x_c + s)
    cross_entropy, targets q:  sum over c of T_c (m - x_c + s), with T_c = w_c ((1 - e) q_c + e / C)
                               gradient (sum of T) softmax(x)_c - T_c; by q_c: w_c (1 - e) (m - x_c + s)

for weights w and label smoothing e (a class t is the distribution that is 1 at t). The mean divides by the sum of the weights
of the targets that are not ignored; for distributions by the number of rows.
The forward pass reads the scores twice while they are in cache and allocates nothing of their size; m and s, two numbers a row,
are kept for the backward pass, which then is one pass. Sums over classes are those of ``simd/reduce.py`` in blocks of fixed size.
Sources: Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs" (1990);
Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7, for label smoothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import any_order, call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._shapes import LARGEST_INDEX
from fastops._threads import threads_for
from fastops.ops.loss.arguments import check_mask, check_reduction, cotangent, number, to_dtype
from fastops.simd import segments
from fastops.simd.blocking import NAMES
from fastops.simd.reduce import BLOCK as _RUN
from fastops.simd.reduce import maximum, span_dot, span_max, span_sum
from fastops.simd.rows import assign
from fastops.simd.turn import TURNED, rows_together, turn_columns, turn_rows, turned_rows
from fastops.simd.vmath import exp_plain, log
from fastops.simd.workspace import scratch

Gradients = tuple[Array | None, ...]

# Elements, and rows that lie side by side (columns), that one thread takes at a time.
_BLOCK = 1 << 14
_COLUMNS = 256
# Rows of up to so many classes are turned into columns, which a few are not worth. The gradient, which has them turned back, takes
# 1.07 ms of 20000 rows of 49 by rows and 1.24 by columns, of 100000 rows of 17 4.1 and 2.5.
_SHORT = 128
_SHORT_GRADIENT = 32
_SOME = 16
# Up to so many rows of which each is one number are not worth a second launch.
_FEW = 1 << 12
_NS_PER_ELEMENT = 0.7
# What an ignore_index is at least: kernels count in signed 64-bit integers.
_LEAST = -LARGEST_INDEX - 1


@function
def _first_wrong(target, classes, ignore_index, weight):
    """Where the first target is that is no class, else -1; and the sum of the weights of those not ignored."""
    total = 0.0
    if weight.size == 0:
        wrong = counted = 0
        for i in range(target.size):
            kept = 1 if target[i] != ignore_index else 0
            counted += kept
            wrong += kept if target[i] < 0 or target[i] >= classes else 0
        if wrong == 0:
            return -1, float(counted)
    for i in range(target.size):
        if target[i] != ignore_index:
            if target[i] < 0 or target[i] >= classes:
                return i, total
            total += weight[target[i]] if weight.size > 0 else 1
    return -1, total


@launcher
def _scan(threads, target, classes, ignore_index, weight):
    return _first_wrong(target, classes, ignore_index, weight)


@launcher
def _nll(threads, x, classes, length, target, ignore_index, losses, out, mean):
    """nll_loss of a few rows in one go: ``losses`` of each row, or their sum or mean in ``out``; one of the two is empty.

    Where the first target is that is no class, else -1.
    """
    number, each = x.dtype.type, losses.size > 0
    total, counted = 0.0, 0
    for row in range(target.size):
        t = target[row]
        loss = number(0)
        if t != ignore_index:
            if t < 0 or t >= classes:
                return row
            at = row * classes + t if length == 1 else (row // length * classes + t) * length + row % length
            loss = -x[np.uintp(at)]
            counted += 1
        if each:
            losses[row] = loss
        total += loss
    if out.size > 0:
        out[0] = total / counted if mean else total
    return -1


# ---- m and s of the rows first <= row < end of x (N, C, L), flat; row n L + l has the elements x[n, :, l]


@any_order
def _sum_of_powers(x, m):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += exp_plain(x[i] - m)
    return total


@separate
def _normalise_rows(x, classes, first, end, largest, log_sum):
    """L = 1: a row is contiguous."""
    for row in range(first, end):
        start = row * classes
        m = span_max(x, start, classes)
        total = 0.0
        for c in range(start, start + classes, _RUN):
            total += _sum_of_powers(x[c : min(c + _RUN, start + classes)], m)
        largest[row] = m
        log_sum[row] = log(total)


@separate
def _normalise_columns(x, classes, length, first, end, largest, log_sum):
    """L > 1: rows lie side by side, all of one n."""
    count = end - first
    start = first // length * classes * length + first % length
    m, s = largest[first:end], log_sum[first:end]
    assign(m, x[start : start + count])
    s[:] = x.dtype.type(0)
    for c in range(1, classes):
        part = x[start + c * length : start + c * length + count]
        for i in range(count):
            m[i] = maximum(m[i], part[i])
    for c in range(classes):
        part = x[start + c * length : start + c * length + count]
        for i in range(count):
            s[i] += exp_plain(part[i] - m[i])
    for i in range(count):
        s[i] = log(s[i])


@function
def _normalise(x, classes, length, first, end, largest, log_sum):
    if length == 1:
        call(_normalise_rows, (x, classes, first, end, largest, log_sum))
    else:
        call(_normalise_columns, (x, classes, length, first, end, largest, log_sum))


@function
def _rows_of(block, rows, length, together):
    """The rows of a block: ``together`` of them, or columns of one n."""
    if length == 1:
        return block * together, min((block + 1) * together, rows)
    blocks = (length + _COLUMNS - 1) // _COLUMNS
    first = block // blocks * length + block % blocks * _COLUMNS
    return first, min(first + _COLUMNS, (block // blocks + 1) * length)


# ---- forward


@separate
def _dense_losses(x, classes, length, probabilities, weight, keep, share, first, end, values, at, largest, log_sum, losses):
    """losses[row] = sum over c of weight[c] (keep q[c] + share) (m - x[c] + s); without probabilities, q is 0."""
    number = x.dtype.type
    keep, share = number(keep), number(share)
    if length == 1:
        for row in range(first, end):
            m, s, total = largest[row], log_sum[row], 0.0
            for c in range(0, classes, _RUN):
                count = min(_RUN, classes - c)
                start = row * classes + c
                part, w, e = x[start : start + count], weight[c : c + count], values[at : at + count]
                if probabilities.size > 0:
                    q = probabilities[start : start + count]
                    for i in range(count):
                        e[i] = w[i] * (keep * q[i] + share) * ((m - part[i]) + s)
                else:
                    for i in range(count):
                        e[i] = w[i] * share * ((m - part[i]) + s)
                total += span_sum(values, at, count)
            losses[row] = total
    else:
        count = end - first
        m, s, total = largest[first:end], log_sum[first:end], losses[first:end]
        total[:] = number(0)
        for c in range(classes):
            start = (first // length * classes + c) * length + first % length
            part, factor = x[start : start + count], weight[c]
            if probabilities.size > 0:
                q = probabilities[start : start + count]
                for i in range(count):
                    total[i] += factor * (keep * q[i] + share) * ((m[i] - part[i]) + s[i])
            else:
                for i in range(count):
                    total[i] += factor * share * ((m[i] - part[i]) + s[i])


@separate
def _add_class_losses(x, classes, length, target, ignore_index, weight, keep, first, end, largest, log_sum, losses, add):
    """losses[row] (+)= keep weight[t] (m - x[t] + s), 0 where t is ignored; without m and s, they are 0."""
    number = x.dtype.type
    # no division in the loop: row = n L + l has its element t at origin + t L + l
    step, origin = (classes, 0) if length == 1 else (1, first // length * (classes - 1) * length)
    for row in range(first, end):
        t = target[row]
        if t == ignore_index:
            losses[row] = number(0)
            continue
        loss = -x[np.uintp(origin + row * step + t * length)]
        if largest.size > 0:
            loss = (largest[row] + loss) + log_sum[row]
        if weight.size > 0:
            loss *= weight[t]
        losses[row] = losses[row] + number(keep) * loss if add else number(keep) * loss


@function
def _turn(x, classes, probabilities, first, end, columns):
    """Rows first <= row < end as columns, those of the probabilities too; where the elements of one row are apart then."""
    step = (end - first + 15) // 16 * 16
    call(turn_rows, (x, first * classes, end - first, classes, columns[0], step))
    if probabilities.size > 0:
        call(turn_rows, (probabilities, first * classes, end - first, classes, columns[1], step))
    return step


@separate
def _forward_block(
    block, worker, x, classes, length, together, target, ignore_index, probabilities, weight, keep, share, values, turned,
    largest, log_sum, losses,
):  # fmt: skip
    first, end = _rows_of(block, losses.size, length, together)
    at = worker * _RUN
    dense = probabilities.size > 0 or share > 0
    if turned.size > 0:
        m, s, q = largest[first:end], log_sum[first:end], turned[worker, 1, : TURNED if probabilities.size > 0 else 0]
        step = _turn(x, classes, probabilities, first, end, turned[worker])
        call(_normalise_columns, (turned[worker, 0], classes, step, 0, end - first, m, s))
        if dense:
            call(_dense_losses, (turned[worker, 0], classes, step, q, weight, keep, share, 0, end - first, values, at, m, s, losses[first:end]))
    else:
        if largest.size > 0:
            _normalise(x, classes, length, first, end, largest, log_sum)
        if dense:
            call(_dense_losses, (x, classes, length, probabilities, weight, keep, share, first, end, values, at, largest, log_sum, losses))
    if target.size > 0:
        call(_add_class_losses, (x, classes, length, target, ignore_index, weight, keep, first, end, largest, log_sum, losses, dense))


@launcher
def _forward(
    threads, blocks, x, classes, length, together, target, ignore_index, probabilities, weight, keep, share, values, turned,
    stats, losses, mean, out,
):  # fmt: skip
    """Where the first target is that is no class, else -1.

    x (N, C, L) flat; target, losses (N L), stats (2, N L); out, unless it is empty, takes the sum of the losses, or their mean.
    """
    divisor = float(losses.size)
    if target.size > 0:
        wrong, divisor = _first_wrong(target, classes, ignore_index, weight)
        if wrong >= 0:
            return wrong
    parallel(
        _forward_block, blocks, threads,
        (
            x, classes, length, together, target, ignore_index, probabilities, weight, keep, share, values, turned, stats[0],
            stats[1], losses,
        ),
    )  # fmt: skip
    if out.size > 0:
        out[0] = span_sum(losses, 0, losses.size) / (divisor if mean else 1.0)
    return -1


# ---- backward


@function
def _scaled_softmax(x, m, s, factor, dx):
    for i in range(x.size):
        dx[i] = factor * exp_plain((x[i] - m) - s)


@separate
def _differentiate_row(x, classes, row, t, probabilities, weight, keep, share, g, m, s, dx):
    """L = 1: dx[row] = g ((sum of T) softmax(x) - T), where T is 0 if t is negative."""
    number = x.dtype.type
    start = row * classes
    part, out = x[start : start + classes], dx[start : start + classes]
    if probabilities.size > 0:
        q, w = probabilities[start : start + classes], weight[:classes]
        total = keep * span_dot(weight, 0, probabilities, start, classes)
        if share > 0:
            total += share * span_sum(weight, 0, classes)
        _scaled_softmax(part, m, s, g * number(total), out)
        keep, share = number(keep), number(share)
        for i in range(classes):
            out[i] -= g * w[i] * (keep * q[i] + share)
        return
    w_t = weight[t] if weight.size > 0 else number(1)
    total = keep * w_t
    if share > 0:
        total += share * span_sum(weight, 0, classes)
    _scaled_softmax(part, m, s, g * number(total), out)
    if share > 0:
        w, factor = weight[:classes], g * number(share)
        for i in range(classes):
            out[i] -= factor * w[i]
    out[t] -= g * number(keep) * w_t


@separate
def _differentiate_columns(x, classes, length, first, end, target, ignore_index, probabilities, weight, keep, share, scale, g, m, s, values, dx):
    """L > 1: the same for rows side by side; values is scratch memory for two numbers each."""
    number = x.dtype.type
    count = end - first
    origin = first // length * classes * length + first % length
    m, s, each, factor = m[first:end], s[first:end], values[:count], values[count : 2 * count]
    keep, smooth = number(keep), number(share)
    for i in range(count):
        each[i] = g[first + i] if g.size > 0 else number(scale)
    if probabilities.size > 0:
        factor[:] = number(0)
        for c in range(classes):
            start, w = origin + c * length, weight[c]
            q = probabilities[start : start + count]
            for i in range(count):
                factor[i] += w * (keep * q[i] + smooth)
        for i in range(count):
            factor[i] *= each[i]
    else:
        rest = number(share * span_sum(weight, 0, classes)) if share > 0 else number(0)
        for i in range(count):
            # What is ignored has no gradient, whatever that of the loss is: the mean of no losses has one of NaN.
            t = target[first + i]
            each[i] = number(0) if t == ignore_index else each[i]
            if weight.size > 0:
                factor[i] = number(0) if t == ignore_index else each[i] * (keep * weight[t] + rest)
            else:
                factor[i] = each[i] * (keep + rest)
    for c in range(classes):
        start = origin + c * length
        part, out = x[start : start + count], dx[start : start + count]
        if probabilities.size > 0:
            q, w = probabilities[start : start + count], weight[c]
            for i in range(count):
                out[i] = factor[i] * exp_plain((part[i] - m[i]) - s[i]) - each[i] * (w * (keep * q[i] + smooth))
        elif share > 0:
            w = weight[c] * smooth
            for i in range(count):
                out[i] = factor[i] * exp_plain((part[i] - m[i]) - s[i]) - each[i] * w
        else:
            for i in range(count):
                out[i] = factor[i] * exp_plain((part[i] - m[i]) - s[i])
    if probabilities.size == 0:
        for i in range(count):
            t = target[first + i]
            if t != ignore_index:
                dx[np.uintp(origin + t * length + i)] -= keep * (weight[t] * each[i] if weight.size > 0 else each[i])
        if np.isnan(span_sum(s, 0, count)):  # then what is ignored may be 0 times NaN
            for i in range(count):
                if target[first + i] == ignore_index and np.isnan(s[i]):
                    for c in range(classes):
                        dx[np.uintp(origin + c * length + i)] = number(0)


@separate
def _differentiate_target(x, classes, length, first, end, weight, keep, scale, g, m, s, dq):
    """dq[c] = g keep weight[c] (m - x[c] + s)."""
    number = x.dtype.type
    if length == 1:
        for row in range(first, end):
            start = row * classes
            part, w, out = x[start : start + classes], weight[:classes], dq[start : start + classes]
            factor = number(keep) * (g[row] if g.size > 0 else number(scale))
            largest, log_sum = m[row], s[row]
            for i in range(classes):
                out[i] = factor * w[i] * ((largest - part[i]) + log_sum)
    else:
        count = end - first
        m, s = m[first:end], s[first:end]
        for c in range(classes):
            start = (first // length * classes + c) * length + first % length
            part, out, factor = x[start : start + count], dq[start : start + count], number(keep * scale) * weight[c]
            for i in range(count):
                out[i] = factor * ((m[i] - part[i]) + s[i])
            if g.size > 0:
                each = g[first:end]
                for i in range(count):
                    out[i] *= each[i]


@separate
def _backward_block(
    block, worker, x, classes, length, together, target, ignore_index, probabilities, weight, keep, share, values, turned,
    largest, log_sum, known, scale, g, dx, dq,
):  # fmt: skip
    number = x.dtype.type
    first, end = _rows_of(block, largest.size, length, together)
    at = worker * _RUN
    if turned.size > 0:
        count, m, s, each = end - first, largest[first:end], log_sum[first:end], g[first : min(end, g.size)]
        q = turned[worker, 1, : TURNED if probabilities.size > 0 else 0]
        step = _turn(x, classes, probabilities, first, end, turned[worker])
        columns, result = turned[worker, 0], turned[worker, 2]
        if not known:
            call(_normalise_columns, (columns, classes, step, 0, count, m, s))
        if dq.size > 0:
            call(_differentiate_target, (columns, classes, step, 0, count, weight, keep, scale, each, m, s, result))
            call(turn_columns, (result, step, count, classes, dq, first * classes))
        if dx.size > 0:
            call(
                _differentiate_columns,
                (
                    columns, classes, step, 0, count, target[first:end], ignore_index, q, weight, keep, share, scale, each, m, s,
                    values[at : at + _RUN], result,
                ),
            )  # fmt: skip
            call(turn_columns, (result, step, count, classes, dx, first * classes))
        return
    if not known:
        _normalise(x, classes, length, first, end, largest, log_sum)
    if dq.size > 0:
        call(_differentiate_target, (x, classes, length, first, end, weight, keep, scale, g, largest, log_sum, dq))
    if dx.size == 0:
        return
    if length > 1:
        call(
            _differentiate_columns,
            (
                x, classes, length, first, end, target, ignore_index, probabilities, weight, keep, share, scale, g,
                largest, log_sum, values[at : at + _RUN], dx,
            ),
        )  # fmt: skip
        return
    for row in range(first, end):
        t = target[row] if target.size > 0 else 0
        if target.size > 0 and t == ignore_index:
            dx[row * classes : (row + 1) * classes] = number(0)
            continue
        factor = g[row] if g.size > 0 else number(scale)
        call(_differentiate_row, (x, classes, row, t, probabilities, weight, keep, share, factor, largest[row], log_sum[row], dx))


@launcher
def _backward(
    threads, blocks, x, classes, length, together, target, ignore_index, probabilities, weight, keep, share, values, turned,
    largest, log_sum, known, scale, g, dx, dq,
):  # fmt: skip
    """As in ``_forward``; g is one number a row, or empty, and then it is ``scale``; gradients that are empty are not computed."""
    parallel(
        _backward_block, blocks, threads,
        (
            x, classes, length, together, target, ignore_index, probabilities, weight, keep, share, values, turned, largest,
            log_sum, known, scale, g, dx, dq,
        ),
    )  # fmt: skip


@launcher
def _pick(threads, target, ignore_index, classes, length, weight, scale, g, dx):
    """dx[t] = -g weight[t] in every row that is not ignored; dx (N, C, L) flat and zero."""
    number = dx.dtype.type
    for row in range(target.size):
        t = target[row]
        if t != ignore_index:
            factor = g[row] if g.size > 0 else number(scale)
            dx[(row // length * classes + t) * length + row % length] = -factor * (weight[t] if weight.size > 0 else number(1))


# ---- arguments


_EMPTY = {char: np.empty(0, char) for char in "fdq"}


_NO_STATS = {char: np.empty((2, 0), char) for char in "fd"}


@lru_cache(maxsize=256)
def _layout(shape: tuple[int, ...]) -> tuple[int, int, int, tuple[int, ...]]:
    """C, L, N L, and the shape without classes."""
    axis = 0 if len(shape) == 1 else 1
    outside = (*shape[:axis], *shape[axis + 1 :])
    return shape[axis], math.prod(shape[axis + 1 :]), math.prod(outside), outside


@dataclass(slots=True)
class _Call:
    """The checked arguments of a call: x (N, C, L), the targets as classes (N L) or probabilities (N, C, L), one of them empty."""

    x: Array
    classes: int
    length: int
    rows: int
    target: Array
    probabilities: Array
    weight: Array
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ignore_index: int
    probable: bool

    def blocks(self, short: int) -> tuple[int, int, bool]:
        """How many blocks of rows there are, the rows of one that are contiguous, and whether these, up to so long, are turned."""
        if self.length > 1:
            return self.rows // self.length * -(-self.length // _COLUMNS), 0, False
        turned = self.classes <= short and self.rows >= _SOME
        together = rows_together(self.classes) if turned else max(1, _BLOCK // self.classes)
        return -(-self.rows // together), together, turned


def _classes(op: str, target: Any) -> Array | None:
    """Targets as int64, None when they are no integers."""
    array = _check.to_ndarray(op, "target", target, of="numbers")
    return segments.indices(op, "target", array) if array.dtype.kind in "iu" else None


def _is_ready(target: Array) -> bool:
    return target.dtype == np.int64 and target.flags.carray


def _prepare(op: str, input: Any, target: Any, weight: Any, ignore_index: int, probable: bool) -> _Call:
    x = _check.as_array(op, "input", input)
    dtype = x.dtype
    if dtype.char == "e":
        x = x.astype(np.float32)
    shape = x.shape
    if not shape:
        raise ValueError(f"{op}: input must have axes (N, C, ...) or (C,), got an array without axes")
    classes, length, rows, outside = _layout(shape)
    nothing = _EMPTY[x.dtype.char]
    w = nothing
    if weight is not None:
        w = _check.as_array(op, "weight", weight)
        if w.dtype != dtype:
            raise TypeError(f"{op}: weight must have the dtype of input, {dtype}, got {w.dtype}")
        if w.shape != (classes,):
            raise ValueError(f"{op}: weight must have shape ({classes},), one for each class, got {w.shape}")
        w = w.astype(x.dtype, copy=False)
    if type(ignore_index) is not int:
        ignore_index = _check.integer(op, "ignore_index", ignore_index, minimum=_LEAST)
    if not _LEAST <= ignore_index <= LARGEST_INDEX:
        raise ValueError(f"{op}: ignore_index must be from -2**63 to 2**63 - 1, got {ignore_index}")
    t = _classes(op, target)
    if t is None:
        if not probable or np.shape(target) != shape:
            wanted = f"classes of shape {outside}" + (f" or probabilities of shape {shape}" if probable else "")
            raise (TypeError if np.shape(target) == outside else ValueError)(
                f"{op}: target must be {wanted}, got shape {np.shape(target)} of {np.asarray(target).dtype}"
            )
        q = _check.as_array(op, "target", target)
        if q.dtype != dtype:
            raise TypeError(f"{op}: target must have the dtype of input, {dtype}, or be integers, got {q.dtype}")
        if ignore_index >= 0:
            raise ValueError(f"{op}: ignore_index must be negative where target holds probabilities, got {ignore_index}")
        if w.size == 0:
            w = np.ones(classes, x.dtype)
        return _Call(x.ravel(), classes, length, rows, _EMPTY["q"], q.astype(x.dtype, copy=False).ravel(), w, outside, dtype, ignore_index, True)
    if t.shape != outside:
        raise ValueError(f"{op}: target must have shape {outside}, that of input without its classes, got {t.shape}")
    return _Call(x.ravel(), classes, length, rows, t.ravel(), nothing, w, outside, dtype, ignore_index, False)


def _check_targets(op: str, c: _Call, wrong: int) -> None:
    """``wrong`` is the place of the first target that is no class, or -1."""
    if wrong >= 0:
        raise ValueError(f"{op}: target must be at least 0 and less than the number of classes, {c.classes}, got {c.target[wrong]}")


def _divisor(op: str, c: _Call) -> float:
    """What a mean divides by; raises where a target is no class."""
    if c.probable:
        return float(c.rows)
    wrong, divisor = _scan(1, c.target, c.classes, c.ignore_index, c.weight)
    _check_targets(op, c, wrong)
    return divisor


def _smoothing(op: str, label_smoothing: float, call: _Call) -> tuple[float, float]:
    """1 - e and e / C. With smoothing every class needs a weight."""
    e = number(op, "label_smoothing", label_smoothing)
    if not 0 <= e <= 1:
        raise ValueError(f"{op}: label_smoothing must be between 0 and 1, got {e}")
    if e and call.weight.size == 0:
        call.weight = np.ones(call.classes, call.x.dtype)
    return 1 - e, e / max(call.classes, 1)


def _evaluate(op: str, c: _Call, reduction: str, keep: float, share: float, normalised: bool) -> tuple[Array, Array]:
    """The loss, and the normaliser (2, N L), which is empty for nll_loss."""
    kind, none = c.x.dtype, reduction == "none"
    out = empty(c.output_shape if none else (), kind)
    stats = empty((2, c.rows), kind) if normalised else _NO_STATS[kind.char]
    if c.x.size == 0:
        _divisor(op, c)
        out[...] = 0.0 if c.rows or reduction == "sum" or none else math.nan
        return to_dtype(out, c.dtype), stats
    losses = out.ravel() if none else empty(c.rows, kind)
    blocks, together, short = c.blocks(_SHORT if normalised else 0)
    threads = threads_for(c.x.size * _NS_PER_ELEMENT if normalised else c.rows * 4.0)
    turned = turned_rows(threads, 2, kind) if short else empty((threads, 2, 0), kind)
    wrong = _forward(
        threads, blocks, c.x, c.classes, c.length, together, c.target, c.ignore_index, c.probabilities, c.weight, keep,
        share, scratch(threads * _RUN, NAMES[kind.char]), turned, stats, losses, reduction == "mean", _EMPTY[kind.char] if none else out.ravel(),
    )  # fmt: skip
    _check_targets(op, c, wrong)
    return to_dtype(out, c.dtype), stats


def _scale(op: str, c: _Call, grad_output: Any, reduction: str, divisor: float) -> tuple[float, Array]:
    """The gradient of the loss of a row: one number for all, or one each."""
    g = cotangent(op, grad_output, c.output_shape if reduction == "none" else (), c.dtype)
    if isinstance(g, np.ndarray):
        return 1.0, g.ravel()
    return (g / divisor if divisor else g * math.nan) if reduction == "mean" else g, _EMPTY[c.x.dtype.char]


# ---- public functions


@operation
def nll_loss(input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean") -> Array:
    """Negative log-likelihood of classes: the scores of the targets, negated. ``torch.nn.functional.nll_loss``.

    Args:
        input: logarithms of probabilities, (N, C), (N, C, d1, ..., dk) or (C,), float16, float32 or float64.
        target: classes, integers from 0 to C - 1: (N,), (N, d1, ..., dk) or ().
        weight: a factor for each class, (C,), of the dtype of the input.
        ignore_index: targets with this number have no loss and no gradient; it need not be a class.
        reduction: "none": one loss a target; "sum": their sum; "mean": that divided by the sum of the weights of the
            targets that are not ignored (NaN if all are).

    Returns:
        The loss in the dtype of the input, of the shape of the target or without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; a target is no class.

    >>> import numpy as np
    >>> nll_loss(np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([0, 1]), reduction="none")
    array([1., 4.])
    """
    op = "nll_loss"
    check_reduction(op, reduction)
    if (
        type(input) is type(target) is np.ndarray and input.ndim and 0 < target.size <= _FEW and weight is None
        and type(ignore_index) is int and _LEAST <= ignore_index <= LARGEST_INDEX
    ):  # fmt: skip
        # few rows, each a single number to look up: no time for more than one launch
        kind, (classes, length, _, outside) = input.dtype, _layout(input.shape)
        if kind.char in "fd" and kind.isnative and input.flags.carray and _is_ready(target) and target.shape == outside:
            out, nothing = empty(outside if reduction == "none" else (), kind), _EMPTY[kind.char]
            flat = out.ravel()
            each, whole = (flat, nothing) if reduction == "none" else (nothing, flat)
            if _nll(1, input.ravel(), classes, length, target.ravel(), ignore_index, each, whole, reduction == "mean") < 0:
                return out
    c = _prepare(op, input, target, weight, ignore_index, probable=False)
    return _evaluate(op, c, reduction, 1.0, 0.0, normalised=False)[0]


def nll_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """Gradient of :func:`nll_loss` with respect to its input, of which only the shape matters.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".

    >>> import numpy as np
    >>> nll_loss_backward(1.0, np.zeros((2, 2)), np.array([0, 1]))
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    op = "nll_loss_backward"
    check_reduction(op, reduction)
    dx = np.zeros(np.shape(input), np.asarray(input).dtype.newbyteorder("="))
    c = _prepare(op, dx, target, weight, ignore_index, probable=False)
    scale, g = _scale(op, c, grad_output, reduction, _divisor(op, c))
    if dx.size:
        _pick(1, c.target, c.ignore_index, c.classes, c.length, c.weight, scale, g, c.x)
    return to_dtype(c.x.reshape(dx.shape), c.dtype)


def _cross_entropy(op: str, input: Any, target: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float) -> tuple[Array, Array]:
    check_reduction(op, reduction)
    c = _prepare(op, input, target, weight, ignore_index, probable=True)
    keep, share = _smoothing(op, label_smoothing, c)
    return _evaluate(op, c, reduction, keep, share, normalised=True)


@operation
def cross_entropy(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    """Cross-entropy of softmax(input) and the target: ``torch.nn.functional.cross_entropy``.

    Args:
        input: scores (logits), (N, C), (N, C, d1, ..., dk) or (C,), float16, float32 or float64.
        target: classes as for :func:`nll_loss`, or probabilities of the shape and dtype of the input.
        weight, ignore_index, reduction: as for :func:`nll_loss`; a mean over probabilities divides by the number of rows,
            and they cannot be ignored.
        label_smoothing: the share of the target, 0 to 1, that is spread evenly over all classes.

    >>> import numpy as np
    >>> cross_entropy(np.array([[0.0, 0.0], [1000.0, 0.0]]), np.array([1, 1]), reduction="none").round(4)
    array([6.931e-01, 1.000e+03])
    """
    return _cross_entropy("cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing)[0]


def cross_entropy_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, ignore_index: int = -100,
    reduction: str = "mean", label_smoothing: float = 0.0, *, output_mask: tuple[bool, bool, bool] = (True, True, True),
    normalizer: Array | None = None,
) -> Gradients:  # fmt: skip
    """Gradients of :func:`cross_entropy` with respect to input, target and weight.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".
        output_mask: which gradients to compute; None stands for the others, and for the target if it holds classes.
        normalizer: for each row the largest score and the logarithm of the sum of e^(score - largest), (2, N d1 ... dk) in
            the dtype of computation; computed again when not given.

    >>> import numpy as np
    >>> cross_entropy_backward(1.0, np.zeros((1, 2)), np.array([1]))[0]
    array([[ 0.5, -0.5]])
    """
    op = "cross_entropy_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 3)
    c = _prepare(op, input, target, weight, ignore_index, probable=True)
    keep, share = _smoothing(op, label_smoothing, c)
    divisor = _divisor(op, c)
    scale, g = _scale(op, c, grad_output, reduction, divisor)
    kind, shape = c.x.dtype, np.shape(input)
    if normalizer is not None and (normalizer.shape, normalizer.dtype) != ((2, c.rows), kind):
        raise ValueError(f"{op}: normalizer must have shape {(2, c.rows)} and dtype {kind}, got {normalizer.shape} and {normalizer.dtype}")
    stats = empty((2, c.rows), kind) if normalizer is None else normalizer
    nothing = _EMPTY[kind.char]
    weighted = weight is not None and output_mask[2]
    dx = empty(shape, kind) if output_mask[0] else None
    dq = empty(shape, kind) if c.probable and output_mask[1] else None
    if c.x.size and (dx is not None or dq is not None or weighted):
        blocks, together, short = c.blocks(_SHORT_GRADIENT)
        threads = threads_for(c.x.size * _NS_PER_ELEMENT)
        turned = turned_rows(threads, 3, kind) if short else empty((threads, 3, 0), kind)
        _backward(
            threads, blocks, c.x, c.classes, c.length, together, c.target, c.ignore_index, c.probabilities, c.weight,
            keep, share, scratch(threads * _RUN, NAMES[kind.char]), turned, stats[0], stats[1], normalizer is not None, scale,
            g, nothing if dx is None else dx.ravel(), nothing if dq is None else dq.ravel(),
        )  # fmt: skip
    dw = _weight_gradient(c, reduction == "mean", divisor, keep, share, scale, g, stats) if weighted else None
    return to_dtype(dx, c.dtype), to_dtype(dq, c.dtype), to_dtype(dw, c.dtype)


def _weight_gradient(c: _Call, mean: bool, divisor: float, keep: float, share: float, scale: float, g: Array, stats: Array) -> Array:
    """sum over rows of g (keep q + share) (m - x + s), for each class. Few train these weights: written for brevity, not for speed."""
    shape = c.rows // max(c.length, 1), c.classes, c.length
    m, s = (part.reshape(shape[0], 1, shape[2]).astype(np.float64) for part in stats)
    if c.probable:
        q, counted = c.probabilities.reshape(shape), np.ones((), bool)
    else:
        t = c.target.reshape(shape[0], 1, shape[2])
        q, counted = t == np.arange(c.classes)[:, None], t != c.ignore_index
        q &= counted
    each = (keep * q + share * counted) * (m - c.x.reshape(shape) + s)
    each *= g.reshape(shape[0], 1, shape[2]) if g.size else scale
    total = each.sum(axis=(0, 2))
    if mean and not c.probable:
        # the divisor, the sum of the weights of the targets, grows too
        total -= (total * c.weight).sum() / (divisor or math.nan) * q.sum(axis=(0, 2))
    return total.astype(c.x.dtype)


def _record(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
) -> tuple[Array, dict[str, Any]]:
    loss, normalizer = _cross_entropy("cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing)
    return loss, {"normalizer": normalizer}


register(nll_loss, nll_loss_backward, inputs=("input",), saved=())
register(
    cross_entropy, cross_entropy_backward, inputs=("input", "target", "weight"), saved=("input", "target", "weight"), record=_record,
)  # fmt: skip
