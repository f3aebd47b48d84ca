"""Losses and distances beside PyTorch, in more combinations of their options than PyTorch's own samples have."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import fastops

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

pytestmark = pytest.mark.torch

RNG = np.random.default_rng(0)


def compare(op: str, theirs: Any, arrays: dict[str, np.ndarray], options: dict[str, Any], tolerance: float = 1e-11) -> None:
    """Output and gradients of the arrays, in float64; ``options`` may hold arrays too, without gradients."""
    y = getattr(fastops, op)(**arrays, **options)
    leaves = {name: torch.from_numpy(a.copy()).requires_grad_(True) for name, a in arrays.items()}
    fixed = {name: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for name, v in options.items()}
    expected = theirs(**leaves, **fixed)
    assert y.shape == tuple(expected.shape)
    g = np.asarray(RNG.standard_normal(y.shape))
    found = getattr(fastops, f"{op}_backward")(g, **arrays, **options)
    wanted = torch.autograd.grad(expected, list(leaves.values()), torch.from_numpy(g), allow_unused=True)
    pairs = [(y, expected.detach()), *zip(found if isinstance(found, tuple) else (found,), wanted)]
    for mine, other in pairs:
        if other is not None:
            np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=tolerance * max(np.nan_to_num(np.abs(other.numpy())).max(initial=0), 1e-300))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.3, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("shapes", [((3, 5), (4, 5)), ((30, 5), (7, 5)), ((2, 3, 7), (1, 30, 7)), ((2, 1, 3, 4), (3, 5, 4))], ids=str)
@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"])
def test_cdist(p, shapes, mode):
    a, b = (RNG.standard_normal(shape) for shape in shapes)
    compare("cdist", torch.cdist, {"x1": a, "x2": b}, {"p": p, "compute_mode": mode}, 1e-9)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.3, 2.0, 3.0, np.inf, -np.inf, -1.5])
def test_distances(p):
    for one, other in (((3, 5), (3, 5)), ((5,), (4, 5)), ((2, 3, 7), (3, 7))):
        for keepdim in (False, True):
            compare("pairwise_distance", F.pairwise_distance, {"x1": RNG.standard_normal(one), "x2": RNG.standard_normal(other)}, {"p": p, "keepdim": keepdim})
    for swap, reduction in product((False, True), ("none", "mean", "sum")):
        arrays = {name: RNG.standard_normal((4, 6)) for name in ("anchor", "positive", "negative")}
        compare("triplet_margin_loss", F.triplet_margin_loss, arrays, {"p": p, "swap": swap, "reduction": reduction})
    if p >= 0:
        for shape in ((6, 5), (2, 9), (40, 3)):
            x = RNG.standard_normal(shape)
            x[-1] = x[0]
            compare("pdist", F.pdist, {"input": x}, {"p": p}, 1e-10)


@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 2, 3), (2, 3, 300), (5,), (3, 1100)], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_classes(shape, reduction):
    axis = 0 if len(shape) == 1 else 1
    outside = (*shape[:axis], *shape[axis + 1 :])
    for weight, smoothing, ignored in product((None, RNG.random(shape[axis])), (0.0, 0.2), (-100, 1)):
        target = np.asarray(RNG.integers(0, shape[axis], outside))
        if target.ndim:
            target.flat[0] = ignored
        x = {"input": 3 * RNG.standard_normal(shape)}
        options = {"target": target, "weight": weight, "ignore_index": ignored, "reduction": reduction}
        compare("nll_loss", F.nll_loss, x, options)
        compare("cross_entropy", F.cross_entropy, x, {**options, "label_smoothing": smoothing})
        if weight is not None:
            arrays = {**x, "target": RNG.random(shape), "weight": weight}
            compare("cross_entropy", F.cross_entropy, arrays, {"reduction": reduction, "label_smoothing": smoothing})


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_loss(reduction, zero_infinity):
    for times, batch, classes, labels in ((10, 3, 5, 4), (7, 2, 4, 3)):
        y = torch.log_softmax(torch.from_numpy(RNG.standard_normal((times, batch, classes))), -1).numpy()
        options = {
            "targets": RNG.integers(1, classes, (batch, labels)),
            "input_lengths": RNG.integers(times - 2, times + 1, batch),
            "target_lengths": RNG.integers(0, labels + 1, batch),
            "reduction": reduction,
            "zero_infinity": zero_infinity,
        }
        compare("ctc_loss", F.ctc_loss, {"log_probs": y}, options)
