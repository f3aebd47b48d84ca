"""Losses and distances: references that are written for reading, and rows."""

from __future__ import annotations

from itertools import product
from math import log, pi

import numpy as np

from tests.harness import Row


def reduced(losses, reduction, divisor=None):
    if reduction == "none":
        return losses
    total = losses.sum()
    return total / (losses.size if divisor is None else divisor) if reduction == "mean" else total


def times(losses, weight):
    return losses if weight is None else losses * weight


def by_weight(losses, reduction, weight):
    return reduced(times(losses, weight), reduction, None if weight is None else weight.sum())


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x, axis):
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


# ---- an element at a time


def mse(input, target, reduction="mean", weight=None):
    return by_weight((input - target) ** 2, reduction, weight)


def l1(input, target, reduction="mean", weight=None):
    return by_weight(np.abs(input - target), reduction, weight)


def smooth_l1(input, target, reduction="mean", beta=1.0):
    d = np.abs(input - target)
    return reduced(np.where(d < beta, d**2 / (2 * (beta or 1)), d - beta / 2), reduction)


def huber(input, target, reduction="mean", delta=1.0, weight=None):
    d = np.abs(input - target)
    return reduced(times(np.where(d <= delta, d**2 / 2, delta * (d - delta / 2)), weight), reduction)


def poisson(input, target, log_input=True, full=False, eps=1e-8, reduction="mean"):
    loss = np.exp(input) - target * input if log_input else input - target * np.log(input + eps)
    if full:
        stirling = target * np.log(target) - target + np.log(2 * pi * target) / 2
        loss = loss + np.where(target > 1, stirling, 0)
    return reduced(loss, reduction)


def gaussian(input, target, var, full=False, eps=1e-6, reduction="mean"):
    if np.ndim(var) and var.shape == input.shape[:-1]:
        var = var[..., None]
    var = np.maximum(var, eps)
    return reduced((np.log(var) + (input - target) ** 2 / var) / 2 + full * log(2 * pi) / 2, reduction)


def cross_entropy_of_two(input, target, weight=None, reduction="mean"):
    yes, no = np.maximum(np.log(input), -100), np.maximum(np.log(1 - input), -100)
    return reduced(times(-target * yes - (1 - target) * no, weight), reduction)


def with_logits(input, target, weight=None, reduction="mean", pos_weight=1):
    loss = -pos_weight * target * np.log(sigmoid(input)) - (1 - target) * np.log(sigmoid(-input))
    return reduced(times(loss, weight), reduction)


def soft_margin(input, target, reduction="mean"):
    return reduced(np.log(1 + np.exp(-target * input)), reduction)


def multilabel_soft_margin(input, target, weight=None, reduction="mean"):
    return reduced(with_logits(input, target, weight, "none").mean(-1), reduction)


def divergence(input, target, reduction="mean", log_target=False):
    if log_target:
        loss = np.exp(target) * (target - input)
    else:
        loss = np.where(target == 0, 0, target * np.log(np.where(target == 0, 1, target))) - target * input
    return loss.sum() / len(input) if reduction == "batchmean" else reduced(loss, reduction)


def hinge_embedding(input, target, margin=1.0, reduction="mean"):
    gap = np.maximum(margin - input, 0)
    return reduced(np.where(target == 1, 0, gap) + np.where(target == -1, 0, input), reduction)


def margin_ranking(input1, input2, target, margin=0, reduction="mean"):
    return reduced(np.maximum(0, -target * (input1 - input2) + margin), reduction)


# ---- classes


def nll(input, target, weight=None, ignore_index=-100, reduction="mean"):
    if input.ndim == 1:
        return nll(input[None], np.asarray(target)[None], weight, ignore_index, "none" if reduction == "none" else reduction).reshape(())
    losses, weights = np.zeros(target.shape), np.zeros(target.shape)
    for where in np.ndindex(*target.shape):
        t = target[where]
        if t != ignore_index:
            weights[where] = 1 if weight is None else weight[t]
            losses[where] = -weights[where] * input[(where[0], t, *where[1:])]
    return reduced(losses, reduction, weights.sum())


def cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    axis = 0 if input.ndim == 1 else 1
    y = log_softmax(input, axis)
    w = np.ones(input.shape[axis]) if weight is None else weight
    spread = w.reshape([-1 if i == axis else 1 for i in range(input.ndim)])
    classes = input.shape[axis]
    if target.dtype.kind == "f":
        share = target * (1 - label_smoothing) + label_smoothing / classes
        return reduced(-(share * spread * y).sum(axis), reduction)
    chosen = nll(y, target, weight, ignore_index, "none")
    smooth = np.where(target == ignore_index, 0, -(spread * y).sum(axis)) if label_smoothing else 0
    losses = (1 - label_smoothing) * chosen + label_smoothing / classes * smooth
    return reduced(losses, reduction, w[target[target != ignore_index]].sum())


def multi_margin(input, target, p=1, margin=1.0, weight=None, reduction="mean"):
    losses = []
    for x, t in zip(np.atleast_2d(input), np.atleast_1d(target)):
        gaps = np.maximum(0, margin - x[t] + np.delete(x, t)) ** p
        losses.append(gaps.sum() / x.size * (1 if weight is None else weight[t]))
    return reduced(np.array(losses), reduction)


def multilabel_margin(input, target, reduction="mean"):
    losses = []
    for x, t in zip(np.atleast_2d(input), np.atleast_2d(target)):
        labels = t[: t.tolist().index(-1)] if -1 in t else t
        others = np.setdiff1d(np.arange(x.size), labels)
        losses.append(sum(np.maximum(0, 1 - (x[label] - x[others])).sum() for label in labels) / x.size)
    return reduced(np.array(losses), reduction)


# ---- vectors


def norm(d, p):
    size = np.abs(d)
    if p == 0:
        return (d != 0).sum(-1).astype(float)
    if abs(p) == np.inf:
        return size.max(-1) if p > 0 else size.min(-1)
    return (size**p).sum(-1) ** (1 / p)


def pairwise(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    r = norm(x1 - x2 + eps, p)
    return r[..., None] if keepdim else r


def all_pairs(x1, x2, p=2.0, compute_mode=""):
    return norm(x1[..., :, None, :] - x2[..., None, :, :], p)


def own_pairs(input, p=2.0):
    i, j = np.triu_indices(len(input), 1)
    return norm(input[i] - input[j], p)


def cosine(x1, x2, dim=1, eps=1e-8):
    x1, x2 = np.broadcast_arrays(x1, x2)
    lengths = [np.maximum(np.sqrt((x**2).sum(dim)), eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / (lengths[0] * lengths[1])


def cosine_embedding(input1, input2, target, margin=0, reduction="mean"):
    c = (input1 * input2).sum(-1) / np.sqrt(((input1**2).sum(-1) + 1e-12) * ((input2**2).sum(-1) + 1e-12))
    return reduced(np.where(target == 1, 1 - c, np.where(target == -1, np.maximum(0, c - margin), 0)), reduction)


def triplet_margin(anchor, positive, negative, margin=1.0, p=2, eps=1e-6, swap=False, reduction="mean", distance=None):
    def r(a, b):
        return pairwise(a, b, p, eps) if distance is None else distance(a, b)

    far = np.minimum(r(anchor, negative), r(positive, negative)) if swap else r(anchor, negative)
    return reduced(np.maximum(0, margin + r(anchor, positive) - far), reduction)


def triplet_with_distance(anchor, positive, negative, margin=1.0, swap=False, reduction="mean"):
    return triplet_margin(anchor, positive, negative, margin, swap=swap, reduction=reduction)


# ---- alignments


def collapse(path, blank):
    """What a path says: repetitions once, then no blanks."""
    once = [c for i, c in enumerate(path) if i == 0 or c != path[i - 1]]
    return tuple(c for c in once if c != blank)


def ctc(log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    """The sum over all paths that say the target; the gradient that is defined is that of the scores before log_softmax."""
    y = log_softmax(log_probs, -1)
    y = y if y.ndim == 3 else y[:, None]
    lengths = np.atleast_1d(target_lengths)
    losses, taken = [], 0
    for n, (times, labels) in enumerate(zip(np.atleast_1d(input_lengths), lengths)):
        target = targets[n, :labels] if targets.ndim == 2 else targets[taken : taken + labels]
        taken += labels
        total = sum(
            np.exp(sum(y[t, n, c] for t, c in enumerate(path)))
            for path in product(range(y.shape[-1]), repeat=int(times))
            if collapse(path, blank) == tuple(target)
        )
        losses.append(-np.log(total) if total else 0.0 if zero_infinity else np.inf)
    losses = np.array(losses)
    if reduction == "mean":
        return (losses / np.maximum(lengths, 1)).mean()
    return losses.sum() if reduction == "sum" else losses if log_probs.ndim == 3 else losses.reshape(())


# ---- values


def probability(rng, shape):
    return rng.uniform(0.3, 0.7, shape)


def positive(rng, shape):
    return rng.uniform(1.5, 4.0, shape)


def distribution(rng, shape):
    q = rng.uniform(0.1, 1.0, shape)
    return q / q.sum(1, keepdims=True)


def log_distribution(rng, shape):
    return log_softmax(rng.standard_normal(shape), -1)


def signs(shape):
    return lambda rng: rng.choice([-1, 1], shape)


def classes(count, shape, dtype=np.int64):
    return lambda rng: rng.integers(0, count, shape).astype(dtype)


def some_ignored(rng):
    target = rng.integers(0, 5, (3, 2, 3))
    target[1, 0] = 2
    target[0, 1, 1] = -100
    return target


SHAPE = (3, 4, 5)
TWO = {"input": SHAPE, "target": SHAPE}
WEIGHTED = {**TWO, "weight": SHAPE}
BOTH = ("input", "target")
ALL = ("input", "target", "weight")
NONE, SUM, MEAN = ({"reduction": reduction} for reduction in ("none", "sum", "mean"))
POSITIVE_WEIGHT = {"weight": positive}
VECTORS = {"x1": (3, 4, 6), "x2": (3, 4, 6)}
TRIPLET = {"anchor": (4, 5), "positive": (4, 5), "negative": (4, 5)}
TRIPLETS = tuple(TRIPLET)

# fmt: off
ROWS = [
    Row("none", "mse_loss", TWO, mse, NONE, BOTH),
    Row("mean-weight", "mse_loss", WEIGHTED, mse, MEAN, (), POSITIVE_WEIGHT),
    Row("long-sum", "mse_loss", {"input": (40_000,), "target": (40_000,)}, mse, SUM, ()),
    Row("none-weight", "l1_loss", WEIGHTED, l1, NONE, ALL, POSITIVE_WEIGHT),
    Row("mean", "l1_loss", TWO, l1, {}, ()),
    Row("none", "smooth_l1_loss", TWO, smooth_l1, {"reduction": "none", "beta": 0.7}, BOTH),
    Row("beta-0", "smooth_l1_loss", TWO, smooth_l1, {"beta": 0.0}, ()),
    Row("none-weight", "huber_loss", WEIGHTED, huber, {"reduction": "none", "delta": 0.6}, ALL, POSITIVE_WEIGHT),
    Row("mean-weight", "huber_loss", WEIGHTED, huber, {}, (), POSITIVE_WEIGHT),
    Row("none", "poisson_nll_loss", TWO, poisson, {**NONE, "full": True}, BOTH, {"target": positive}),
    Row("rate", "poisson_nll_loss", TWO, poisson, {"log_input": False}, (), positive),
    Row("none", "gaussian_nll_loss", {**TWO, "var": SHAPE}, gaussian, {**NONE, "full": True}, (*BOTH, "var"), {"var": positive}),
    Row("one-for-a-row", "gaussian_nll_loss", {**TWO, "var": SHAPE[:2]}, gaussian, {}, (), {"var": positive}),
    Row("none-weight", "binary_cross_entropy", {**TWO, "weight": (5,)}, cross_entropy_of_two, NONE, BOTH, probability, step=2.0**-16),
    Row("mean", "binary_cross_entropy", TWO, cross_entropy_of_two, {}, (), probability, step=2.0**-16),
    Row("none", "binary_cross_entropy_with_logits", TWO, with_logits, NONE, BOTH, {"target": probability}),
    Row("pos-weight", "binary_cross_entropy_with_logits", {**TWO, "weight": (4, 1), "pos_weight": (5,)}, with_logits, {}, (),
        {"target": probability, "weight": positive, "pos_weight": positive}),
    Row("none", "soft_margin_loss", {"input": SHAPE}, soft_margin, {**NONE, "target": signs(SHAPE)}, ()),
    Row("sum", "soft_margin_loss", TWO, soft_margin, SUM, ()),
    Row("none-weight", "multilabel_soft_margin_loss", {**TWO, "weight": (5,)}, multilabel_soft_margin, NONE, BOTH, {"weight": positive}),
    Row("mean", "multilabel_soft_margin_loss", TWO, multilabel_soft_margin, {}, ()),
    Row("batchmean", "kl_div", TWO, divergence, {"reduction": "batchmean"}, (), {"target": probability}, step=2.0**-16),
    Row("log-target", "kl_div", TWO, divergence, {**NONE, "log_target": True}, BOTH),
    Row("none", "hinge_embedding_loss", {"input": SHAPE}, hinge_embedding, {**NONE, "margin": 0.5, "target": signs(SHAPE)}, ()),
    Row("mean", "hinge_embedding_loss", {"input": SHAPE}, hinge_embedding, {"target": signs(SHAPE)}, ()),
    Row("none", "margin_ranking_loss", {"input1": SHAPE, "input2": SHAPE, "target": SHAPE}, margin_ranking, {**NONE, "margin": 0.3},
        ("input1", "input2", "target")),
    Row("signs", "margin_ranking_loss", {"input1": SHAPE, "input2": (1, 1, 5)}, margin_ranking, {"target": signs(SHAPE)}, ()),

    Row("none", "nll_loss", {"input": (4, 5)}, nll, {**NONE, "target": classes(5, 4, np.uint8)}, ()),
    Row("weight", "nll_loss", {"input": (3, 5, 2, 3), "weight": (5,)}, nll, {"target": some_ignored}, (), POSITIVE_WEIGHT),
    Row("alone", "nll_loss", {"input": (5,)}, nll, {"target": classes(5, ()), **SUM}, ()),
    Row("rows", "cross_entropy", {"input": (4, 5)}, cross_entropy, {"target": classes(5, 4)}, ()),
    Row("wide", "cross_entropy", {"input": (3, 2100)}, cross_entropy, {**NONE, "target": classes(2100, 3)}, ()),
    Row("planes", "cross_entropy", {"input": (3, 5, 2, 3), "weight": (5,)}, cross_entropy,
        {"target": some_ignored, "label_smoothing": 0.2}, (), POSITIVE_WEIGHT),
    Row("planes-none", "cross_entropy", {"input": (2, 5, 300)}, cross_entropy, {**NONE, "target": classes(5, (2, 300), np.int32)}, ()),
    Row("smooth", "cross_entropy", {"input": (4, 5), "weight": (5,)}, cross_entropy,
        {**SUM, "target": classes(5, 4), "label_smoothing": 0.3}, (), POSITIVE_WEIGHT),
    Row("distributions", "cross_entropy", {"input": (4, 5), "target": (4, 5), "weight": (5,)}, cross_entropy,
        {**NONE, "label_smoothing": 0.1}, BOTH, {"target": distribution, "weight": positive}),
    Row("distributions-planes", "cross_entropy", {"input": (2, 5, 3), "target": (2, 5, 3)}, cross_entropy, {}, (), {"target": distribution}),
    Row("none", "multi_margin_loss", {"input": (4, 5), "weight": (5,)}, multi_margin,
        {**NONE, "target": classes(5, 4), "p": 2}, (), POSITIVE_WEIGHT),
    Row("mean", "multi_margin_loss", {"input": (4, 5)}, multi_margin, {"target": classes(5, 4), "margin": 0.4}, ()),
    Row("none", "multilabel_margin_loss", {"input": (3, 5)}, multilabel_margin,
        {**NONE, "target": lambda rng: np.array([[3, 0, -1, 1, 1], [-1, 0, 1, 2, 3], [4, 3, 2, 1, 0]])}, ()),
    Row("mean", "multilabel_margin_loss", {"input": (5,)}, multilabel_margin, {"target": lambda rng: np.array([3, 0, -1, 1, 1])}, ()),

    Row("euclidean", "pairwise_distance", VECTORS, pairwise, {}, ("x1", "x2")),
    Row("largest", "pairwise_distance", {"x1": (4, 6), "x2": (6,)}, pairwise, {"p": np.inf, "keepdim": True}, ("x1",)),
    Row("power", "pairwise_distance", VECTORS, pairwise, {"p": 3.5, "eps": 0.1}, ("x1", "x2")),
    Row("rows", "cosine_similarity", {"x1": (4, 6), "x2": (4, 6)}, cosine, {}, ("x1", "x2")),
    Row("planes", "cosine_similarity", {"x1": (2, 4, 3, 5), "x2": (4, 1, 5)}, cosine, {}, ("x1",), step=2.0**-16),
    Row("euclidean", "cdist", {"x1": (2, 3, 4), "x2": (2, 5, 4)}, all_pairs, {}, ("x1", "x2")),
    Row("product", "cdist", {"x1": (30, 4), "x2": (27, 4)}, all_pairs, {}, ("x1",), tolerance=1e-4),
    Row("sum", "cdist", {"x1": (2, 3, 4), "x2": (5, 4)}, all_pairs, {"p": 1.0}, ("x1",)),
    Row("largest", "cdist", {"x1": (3, 4), "x2": (5, 4)}, all_pairs, {"p": np.inf}, ("x1",)),
    Row("power", "cdist", {"x1": (3, 4), "x2": (5, 4)}, all_pairs, {"p": 1.5}, ("x1",)),
    Row("euclidean", "pdist", {"input": (5, 4)}, own_pairs, {}, (), lambda rng, shape: 4 * rng.standard_normal(shape)),
    Row("count", "pdist", {"input": (5, 4)}, own_pairs, {"p": 0}, ()),
    Row("none", "cosine_embedding_loss", {"input1": (4, 6), "input2": (4, 6)}, cosine_embedding,
        {**NONE, "target": signs(4), "margin": 0.1}, ()),
    Row("mean", "cosine_embedding_loss", {"input1": (6,), "input2": (6,)}, cosine_embedding, {"target": lambda rng: np.array(1)}, ()),
    Row("swap", "triplet_margin_loss", TRIPLET, triplet_margin, {**NONE, "swap": True}, TRIPLETS),
    Row("sum", "triplet_margin_loss", TRIPLET, triplet_margin, {"p": 1, "margin": 2.0}, ()),
    Row("swap", "triplet_margin_with_distance_loss", TRIPLET, triplet_with_distance, {**NONE, "swap": True}, TRIPLETS),

    Row("none", "ctc_loss", {"log_probs": (4, 3, 3)}, ctc,
        {**NONE, "targets": lambda rng: np.array([[1, 2], [2, 2], [1, 0]]), "input_lengths": lambda rng: np.array([4, 3, 4]),
         "target_lengths": lambda rng: np.array([2, 2, 1])}, (), log_distribution),
    Row("mean", "ctc_loss", {"log_probs": (5, 2, 3)}, ctc,
        {"targets": lambda rng: np.array([1, 0, 1]), "input_lengths": (4, 5), "target_lengths": (0, 3), "blank": 2}, (), log_distribution),
    Row("alone", "ctc_loss", {"log_probs": (4, 3)}, ctc,
        {**SUM, "targets": lambda rng: np.array([1, 1]), "input_lengths": (4,), "target_lengths": (2,)}, (), log_distribution),
]
# fmt: on
