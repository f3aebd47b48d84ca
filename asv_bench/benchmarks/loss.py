"""Losses and distances: activations, logits of classifiers, language models and segmentation, and small calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Case, benchmarks

_PLANES = (8, 64, 56, 56)
_SMALL = (16, 10)


def _probabilities(shape: tuple[int, ...]) -> Any:
    return lambda rng: rng.uniform(0.01, 0.99, shape)


def _distribution(shape: tuple[int, ...]) -> Any:
    def make(rng: np.random.Generator) -> np.ndarray:
        q = rng.uniform(0.1, 1.0, shape)
        return q / q.sum(1, keepdims=True)

    return make


def _classes(count: int, shape: tuple[int, ...]) -> Any:
    return lambda rng: rng.integers(0, count, shape)


def _signs(shape: tuple[int, ...]) -> Any:
    return lambda rng: rng.choice([-1, 1], shape).astype(np.int64)


def _float_signs(shape: tuple[int, ...]) -> Any:
    return lambda rng: rng.choice([-1.0, 1.0], shape)


def _log_softmax(shape: tuple[int, ...]) -> Any:
    def make(rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal(shape)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    return make


def _pair(op: str, shape: tuple[int, ...], target: Any = None, input: Any = None, **options: Any) -> Case:
    """An input and a target of one shape."""
    tiny = (2, 3)
    remade = {"input": input(tiny) if input else tiny, "target": target(tiny) if target else tiny}
    return Case(op, {"input": input(shape) if input else shape, "target": target(shape) if target else shape}, options, remade)


def _labelled(op: str, shape: tuple[int, ...], **options: Any) -> Case:
    """Scores (N, C, ...) and classes (N, ...)."""
    small = (2, 5, *(3 for _ in shape[2:]))
    arrays, tiny = ({"input": s, "target": _classes(s[1], (s[0], *s[2:]))} for s in (shape, small))
    return Case(op, arrays, options, tiny)


def _vectors(op: str, names: tuple[str, ...], shape: tuple[int, ...], **options: Any) -> Case:
    return Case(op, dict.fromkeys(names, shape), options)


_TRIPLET = ("anchor", "positive", "negative")


def _ctc(times: int, batch: int, classes: int, labels: int) -> dict[str, Any]:
    return {
        "log_probs": _log_softmax((times, batch, classes)),
        "targets": lambda rng: rng.integers(1, classes, (batch, labels)),
        "input_lengths": lambda rng: np.full(batch, times),
        "target_lengths": lambda rng: np.full(batch, labels),
    }


CASES: dict[str, Case] = {
    "cross_entropy.256x1000": _labelled("cross_entropy", (256, 1000)),
    "cross_entropy.16x32000": _labelled("cross_entropy", (16, 32000)),
    "cross_entropy.64x50257": _labelled("cross_entropy", (64, 50257)),
    "cross_entropy.4x21x128x128": _labelled("cross_entropy", (4, 21, 128, 128)),
    "cross_entropy.256x1000.smoothing": _labelled("cross_entropy", (256, 1000), label_smoothing=0.1),
    "cross_entropy.256x1000.distributions": _pair("cross_entropy", (256, 1000), _distribution),
    "cross_entropy.16x10": _labelled("cross_entropy", _SMALL),
    "nll_loss.256x1000": _labelled("nll_loss", (256, 1000)),
    "nll_loss.4x21x128x128": _labelled("nll_loss", (4, 21, 128, 128)),
    "mse_loss.8x64x56x56": _pair("mse_loss", _PLANES),
    "mse_loss.8x64x56x56.none": _pair("mse_loss", _PLANES, reduction="none"),
    "mse_loss.16x10": _pair("mse_loss", _SMALL),
    "l1_loss.8x64x56x56": _pair("l1_loss", _PLANES),
    "smooth_l1_loss.8x64x56x56": _pair("smooth_l1_loss", _PLANES),
    "huber_loss.8x64x56x56": _pair("huber_loss", _PLANES),
    "poisson_nll_loss.8x64x56x56": _pair("poisson_nll_loss", _PLANES),
    "gaussian_nll_loss.8x64x56x56": Case(
        "gaussian_nll_loss",
        {"input": _PLANES, "target": _PLANES, "var": _probabilities(_PLANES)},
        {},
        {"input": (2, 3), "target": (2, 3), "var": _probabilities((2, 3))},
    ),
    "binary_cross_entropy.8x64x56x56": _pair("binary_cross_entropy", _PLANES, _probabilities, _probabilities),
    "binary_cross_entropy_with_logits.8x64x56x56": _pair("binary_cross_entropy_with_logits", _PLANES, _probabilities),
    "binary_cross_entropy_with_logits.16x10": _pair("binary_cross_entropy_with_logits", _SMALL, _probabilities),
    "kl_div.8x64x56x56": _pair("kl_div", _PLANES, _probabilities, reduction="batchmean"),
    "soft_margin_loss.8x64x56x56": _pair("soft_margin_loss", _PLANES, _signs),
    "hinge_embedding_loss.8x64x56x56": _pair("hinge_embedding_loss", _PLANES, _signs),
    "margin_ranking_loss.8x64x56x56": Case(
        "margin_ranking_loss", {"input1": _PLANES, "input2": _PLANES, "target": _float_signs(_PLANES)}, {"margin": 0.5},
        {"input1": (2, 3), "input2": (2, 3), "target": _float_signs((2, 3))},
    ),
    "multilabel_soft_margin_loss.256x1000": _pair("multilabel_soft_margin_loss", (256, 1000), _probabilities),
    "multi_margin_loss.256x1000": _labelled("multi_margin_loss", (256, 1000)),
    "multilabel_margin_loss.256x80": Case(
        "multilabel_margin_loss", {"input": (256, 80), "target": lambda rng: np.tile(np.r_[3, 7, 40, 41, np.full(76, -1)], (256, 1))}, {},
        {"input": (2, 3), "target": lambda rng: np.array([[1, -1, 0], [2, 0, -1]])},
    ),
    "cosine_similarity.1024x512": _vectors("cosine_similarity", ("x1", "x2"), (1024, 512)),
    "cosine_similarity.8x64x56x56": _vectors("cosine_similarity", ("x1", "x2"), _PLANES),
    "cosine_embedding_loss.1024x512": Case(
        "cosine_embedding_loss", {"input1": (1024, 512), "input2": (1024, 512), "target": _signs((1024,))}, {},
        {"input1": (8, 16), "input2": (8, 16), "target": _signs((8,))},
    ),
    "pairwise_distance.1024x512": _vectors("pairwise_distance", ("x1", "x2"), (1024, 512)),
    "triplet_margin_loss.1024x512": _vectors("triplet_margin_loss", _TRIPLET, (1024, 512)),
    "triplet_margin_with_distance_loss.1024x512": _vectors("triplet_margin_with_distance_loss", _TRIPLET, (1024, 512), swap=True),
    "cdist.512x512x64": Case("cdist", {"x1": (512, 64), "x2": (512, 64)}, {}, torch=lambda F, t, o: _torch().cdist(**t, **o)),
    "cdist.512x512x64.p1": Case("cdist", {"x1": (512, 64), "x2": (512, 64)}, {"p": 1.0}, torch=lambda F, t, o: _torch().cdist(**t, **o)),
    "pdist.512x64": _vectors("pdist", ("input",), (512, 64)),
    "ctc_loss.50x16x20": Case("ctc_loss", _ctc(50, 16, 20, 30), {}, _ctc(5, 2, 3, 2)),
    "ctc_loss.200x16x64": Case("ctc_loss", _ctc(200, 16, 64, 40), {}, _ctc(5, 2, 3, 2)),
}  # fmt: skip


def _torch() -> Any:
    import torch

    return torch


Forward, Backward = benchmarks(CASES)
