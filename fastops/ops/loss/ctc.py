"""Connectionist temporal classification: the negative logarithm of the probability of all alignments of a target with its input.

A target l of S labels is written with blanks between and around them: l' of 2 S + 1 entries. With y_t the logarithms of the
probabilities at time t (log_probs), in the logarithmic domain throughout,

    alpha_t(s) = y_t(l'_s) + log(e^alpha_{t-1}(s) + e^alpha_{t-1}(s-1) + e^alpha_{t-1}(s-2)),

the last term only where l'_s is neither blank nor equal to l'_{s-2}; beta is the same from the other end. The loss is
-log(e^alpha_T(2S) + e^alpha_T(2S-1)), and the gradient that :func:`ctc_loss_backward` gives is

    e^y_t(c) - sum over s with l'_s = c of e^(alpha_t(s) + beta_t(s) - y_t(c) + loss),

which is PyTorch's: that of the scores whose log_softmax the input is, taken for the gradient of log_probs. The table of alpha is
kept for the backward pass. Source: Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with
Recurrent Neural Networks" (2006), equations 6 to 8, 10 and 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.loss.arguments import check_reduction, cotangent, to_dtype
from fastops.simd import segments
from fastops.simd.reduce import span_sum
from fastops.simd.vmath import exp_plain, log

# Entries in front of a row of alpha that stand for s = -2 and s = -1.
_PAD = 2


@function
def _emissions(log_probs, start, targets, first, labels, blank, backwards, out):
    """out[s] = log_probs[start + l'_s], of the target from its end if ``backwards``."""
    silence = log_probs[start + blank]
    for i in range(labels):
        out[2 * i] = silence
        out[2 * i + 1] = log_probs[start + targets[first + (labels - 1 - i if backwards else i)]]
    out[2 * labels] = silence


@function
def _skips(targets, first, labels, backwards, out):
    """out[s] is 0 where s may follow s - 2, else -inf."""
    number = out.dtype.type
    out[: 2 * labels + 1] = number(-np.inf)
    for i in range(1, labels):
        at, before = first + i, first + i - 1
        if backwards:
            at, before = first + labels - 1 - i, first + labels - i
        if targets[at] != targets[before]:
            out[2 * i + 1] = number(0)


@function
def _begin(emitted, labels, row):
    number = row.dtype.type
    row[:] = number(-np.inf)
    row[_PAD] = emitted[0]
    if labels > 0:
        row[_PAD + 1] = emitted[1]


@function
def _advance(previous, skips, emitted, labels, row):
    """One step in time of alpha, or of beta of the reversed target."""
    number = row.dtype.type
    zero, nothing = number(0), number(-np.inf)
    count = 2 * labels + 1
    row[:_PAD] = nothing
    skip, stay, step, out, emitted = previous[:count], previous[_PAD : _PAD + count], previous[1 : 1 + count], row[_PAD : _PAD + count], emitted[:count]
    for s in range(count):
        a, b, c = stay[s], step[s], skip[s] + skips[s]
        m = a if a > b else b
        m = c if c > m else m
        m = zero if m == nothing else m
        out[s] = m + log(exp_plain(a - m) + exp_plain(b - m) + exp_plain(c - m)) + emitted[s]


@separate
def _align(n, worker, log_probs, batch, classes, times, targets, firsts, lengths, input_lengths, blank, width, keep, alpha, scratch, loss):
    """loss[n]; alpha holds all rows of each item if they are kept, else two for each worker."""
    labels, end = lengths[n], input_lengths[n]
    number = log_probs.dtype.type
    if end == 0:
        loss[n] = number(0 if labels == 0 else np.inf)
        return
    emitted, skips = scratch[2 * worker * width : (2 * worker + 1) * width], scratch[(2 * worker + 1) * width : (2 * worker + 2) * width]
    period = times if keep else 2
    base = (n if keep else worker) * period * width
    first = firsts[n]
    _skips(targets, first, labels, False, skips)
    row = alpha[base : base + width]
    for t in range(end):
        _emissions(log_probs, (t * batch + n) * classes, targets, first, labels, blank, False, emitted)
        previous = row
        start = base + t % period * width
        row = alpha[start : start + width]
        if t == 0:
            _begin(emitted, labels, row)
        else:
            _advance(previous, skips, emitted, labels, row)
    a = row[_PAD + 2 * labels]
    b = row[_PAD + 2 * labels - 1]  # before the first entry for an empty target, which is -inf
    m = max(a, b)
    loss[n] = -a if m == -np.inf or m != m else -(m + log(exp_plain(a - m) + exp_plain(b - m)))


@separate
def _align_gradient(
    n, worker, log_probs, batch, classes, times, targets, firsts, lengths, input_lengths, blank, width, alpha, loss, g,
    zero_infinity, scratch, dx,
):  # fmt: skip
    """dx[:, n]; the worker has five rows of scratch memory."""
    number = log_probs.dtype.type
    zero, nothing = number(0), number(-np.inf)
    labels, end, first, cost = lengths[n], input_lengths[n], firsts[n], loss[n]
    infinite = cost == np.inf
    if infinite:
        fill = zero if zero_infinity else number(np.nan)
        for t in range(end):
            start = (t * batch + n) * classes
            dx[start : start + classes] = fill
    for t in range(0 if infinite and zero_infinity else end, times):
        start = (t * batch + n) * classes
        dx[start : start + classes] = zero
    if infinite:
        return
    base = 5 * worker * width
    emitted, skips, odds = scratch[base : base + width], scratch[base + width : base + 2 * width], scratch[base + 2 * width : base + 3 * width]
    row, other = scratch[base + 3 * width : base + 4 * width], scratch[base + 4 * width : base + 5 * width]
    _skips(targets, first, labels, True, skips)
    factor, count = g[n], 2 * labels + 1
    for t in range(end - 1, -1, -1):
        start = (t * batch + n) * classes
        _emissions(log_probs, start, targets, first, labels, blank, True, emitted)
        row, other = other, row
        if t == end - 1:
            _begin(emitted, labels, row)
        else:
            _advance(other, skips, emitted, labels, row)
        forth = alpha[(n * times + t) * width + _PAD : (n * times + t) * width + _PAD + count]
        back = row[_PAD : _PAD + count]
        for s in range(count):
            both = forth[count - 1 - s] + back[s]
            odds[s] = zero if both == nothing else exp_plain(both - emitted[s] + cost)
        # the probabilities of a time add up to 1, but for the rounding of long sums of logarithms
        share = factor / number(span_sum(odds, 0, count))
        part, out = log_probs[start : start + classes], dx[start : start + classes]
        for c in range(classes):
            out[c] = factor * exp_plain(part[c])
        silence = odds[2 * labels]
        for i in range(labels):
            silence += odds[2 * i]
            out[targets[first + labels - 1 - i]] -= share * odds[2 * i + 1]
        out[blank] -= share * silence


@launcher
def _losses(threads, log_probs, batch, classes, times, targets, firsts, lengths, input_lengths, blank, width, keep, alpha, scratch, loss):
    """log_probs (T, N, C), targets flat, the labels of n from firsts[n] on."""
    parallel(
        _align, batch, threads,
        (log_probs, batch, classes, times, targets, firsts, lengths, input_lengths, blank, width, keep, alpha, scratch, loss),
    )  # fmt: skip


@launcher
def _gradients(
    threads, log_probs, batch, classes, times, targets, firsts, lengths, input_lengths, blank, width, alpha, loss, g,
    zero_infinity, scratch, dx,
):  # fmt: skip
    parallel(
        _align_gradient, batch, threads,
        (
            log_probs, batch, classes, times, targets, firsts, lengths, input_lengths, blank, width, alpha, loss, g,
            zero_infinity, scratch, dx,
        ),
    )  # fmt: skip


# ---- arguments


@dataclass(frozen=True)
class _Call:
    """Checked arguments; ``sizes`` and ``labels`` are what kernels take of them."""

    x: Array
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sizes: tuple[int, int, int]
    labels: tuple[Any, ...]
    lengths: Array
    width: int

    @property
    def work(self) -> float:
        times, batch, classes = self.sizes[2], self.sizes[0], self.sizes[1]
        return times * batch * (self.width * 4.0 + classes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.sizes[0],) if len(self.shape) == 3 else ()


def _lengths(op: str, name: str, value: Any, batch: int, most: int) -> Array:
    lengths = segments.indices(op, name, value).ravel()
    if lengths.size != batch:
        raise ValueError(f"{op}: {name} must have {batch} entries, one for each sequence, got {lengths.size}")
    if batch and (lengths.min() < 0 or lengths.max() > most):
        raise ValueError(f"{op}: {name} must be from 0 to {most}, got {lengths.min()} to {lengths.max()}")
    return lengths


def _prepare(op: str, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int) -> _Call:
    (x,), dtype = _check.as_arrays(op, log_probs=log_probs)
    if x.ndim not in (2, 3):
        raise ValueError(f"{op}: log_probs must have axes (T, N, C) or (T, C), got shape {x.shape}")
    times, classes = x.shape[0], x.shape[-1]
    batch = x.shape[1] if x.ndim == 3 else 1
    blank = _check.integer(op, "blank", blank, minimum=0)
    if blank >= classes:
        raise ValueError(f"{op}: blank must be less than the number of classes, {classes}, got {blank}")
    t = segments.indices(op, "targets", targets)
    if t.ndim not in (1, 2) or (t.ndim == 2 and (x.ndim == 2 or t.shape[0] != batch)):
        raise ValueError(f"{op}: targets must have shape (N, S) for N = {batch}, or be all of them in a row, got shape {t.shape}")
    inputs = _lengths(op, "input_lengths", input_lengths, batch, times)
    lengths = _lengths(op, "target_lengths", target_lengths, batch, t.shape[-1])
    if t.ndim == 2:
        firsts = np.arange(batch) * t.shape[1]
        valid = t[np.arange(t.shape[1]) < lengths[:, None]]
    else:
        if lengths.sum() != t.size:
            raise ValueError(f"{op}: targets must have as many entries as target_lengths together, {lengths.sum()}, got {t.size}")
        firsts, valid = np.cumsum(lengths) - lengths, t
    if valid.size and (valid.min() < 0 or valid.max() >= classes):
        raise ValueError(f"{op}: targets must be from 0 to {classes - 1}, got {valid.min()} to {valid.max()}")
    longest = int(lengths.max()) if batch else 0
    labels = (t.ravel(), firsts, lengths, inputs, blank, 2 * longest + 1 + _PAD)
    return _Call(x, x.shape, dtype, (batch, classes, times), labels, lengths, labels[-1])


def _run(c: _Call, keep: bool) -> tuple[Array, Array]:
    """The loss of each sequence, and alpha (N, T, width) if it is kept."""
    batch, _, times = c.sizes
    threads = threads_for(c.work)
    loss = empty(batch, c.x.dtype)
    alpha = empty((batch, times, c.width) if keep else (threads, 2, c.width), c.x.dtype)
    if batch:
        scratch = empty(2 * threads * c.width, c.x.dtype)
        _losses(threads, c.x.ravel(), *c.sizes, *c.labels, keep, alpha.ravel(), scratch, loss)
    return loss, alpha


def _reduced(c: _Call, loss: Array, reduction: str, zero_infinity: bool) -> Array:
    if zero_infinity:
        loss = np.where(loss == np.inf, loss.dtype.type(0), loss)
    if reduction == "none":
        return to_dtype(loss.reshape(c.output_shape), c.dtype)
    if reduction == "mean":
        loss = loss / np.maximum(c.lengths, 1)
    total = float(loss.sum(dtype=np.float64))
    return np.array(total / (loss.size or math.nan) if reduction == "mean" else total, c.dtype)


@operation
def ctc_loss(
    log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Array:  # fmt: skip
    """Connectionist temporal classification: ``torch.nn.functional.ctc_loss``.

    Args:
        log_probs: logarithms of probabilities (a log_softmax over C), (T, N, C) or (T, C); float16, float32 or float64.
        targets: labels, integers from 0 to C - 1: (N, S) padded, or all targets in a row; (S,) without a batch.
        input_lengths: how many of the T times each sequence has, (N,).
        target_lengths: how many labels each target has, (N,).
        blank: the class that stands for no label.
        reduction: "none": one loss a sequence; "sum": their sum; "mean": the mean over the batch of the losses divided by
            the lengths of the targets.
        zero_infinity: losses that are infinite, because the input is too short for its target, count as 0 and have no
            gradient.

    Returns:
        The loss in the dtype of log_probs, (N,) or without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; a label is no class.

    The time is proportional to T N (S + C).

    >>> import numpy as np
    >>> even = np.full((2, 1, 2), np.log(0.5))
    >>> float(ctc_loss(even, np.array([[1]]), [2], [1]).round(4))  # -log(3/4): all but two blanks
    0.2877
    """
    op = "ctc_loss"
    check_reduction(op, reduction)
    c = _prepare(op, log_probs, targets, input_lengths, target_lengths, blank)
    return _reduced(c, _run(c, keep=False)[0], reduction, zero_infinity)


def ctc_loss_backward(
    grad_output: ArrayLike, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike,
    blank: int = 0, reduction: str = "mean", zero_infinity: bool = False, *, losses: Array | None = None,
    log_alpha: Array | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`ctc_loss` with respect to log_probs, as PyTorch defines it: that of the scores before log_softmax.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".
        losses: the loss of each sequence, (N,).
        log_alpha: alpha of all times, (N, T, 2 S + 3) for the longest target; both in the dtype of computation, and
            computed again when not given.

    >>> import numpy as np
    >>> even = np.full((2, 1, 2), np.log(0.5))
    >>> ctc_loss_backward(1.0, even, np.array([[1]]), [2], [1])[0].round(4)
    array([[ 0.1667, -0.1667]])
    """
    op = "ctc_loss_backward"
    check_reduction(op, reduction)
    c = _prepare(op, log_probs, targets, input_lengths, target_lengths, blank)
    batch, _, times = c.sizes
    kind = c.x.dtype
    if losses is None or log_alpha is None:
        losses, log_alpha = _run(c, keep=True)
    for name, array, shape in (("losses", losses, (batch,)), ("log_alpha", log_alpha, (batch, times, c.width))):
        if (array.shape, array.dtype) != (shape, kind) or not array.flags.carray:
            raise ValueError(f"{op}: {name} must be contiguous and have shape {shape} and dtype {kind}, got {array.shape} and {array.dtype}")
    g = np.asarray(cotangent(op, grad_output, c.output_shape if reduction == "none" else (), c.dtype), np.float64)
    if reduction == "mean":
        g = g / (np.maximum(c.lengths, 1) * max(batch, 1))
    g = np.array(np.broadcast_to(g, (batch,)), kind)
    dx = empty(c.shape, kind)
    if dx.size:
        threads = threads_for(2 * c.work)
        _gradients(
            threads, c.x.ravel(), *c.sizes, *c.labels, log_alpha.ravel(), losses, g, bool(zero_infinity),
            empty(5 * threads * c.width, kind), dx.ravel(),
        )  # fmt: skip
    return to_dtype(dx, c.dtype)


def _record(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
) -> tuple[Array, dict[str, Any]]:
    check_reduction("ctc_loss", reduction)
    c = _prepare("ctc_loss", log_probs, targets, input_lengths, target_lengths, blank)
    losses, alpha = _run(c, keep=True)
    return _reduced(c, losses, reduction, zero_infinity), {"losses": losses, "log_alpha": alpha}


register(ctc_loss, ctc_loss_backward, inputs=("log_probs",), saved=("log_probs",), record=_record)
