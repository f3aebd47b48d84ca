"""PyTorch as a second opinion on activations and softmax: a wide range of values, with options that its own samples leave out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastops

pytestmark = pytest.mark.torch

F = torch.nn.functional
torch.set_num_threads(1)

CALLS = [
    *((op, {}) for op in ("relu", "relu6", "selu", "silu", "mish", "sigmoid", "tanh", "softsign", "hardswish", "tanhshrink", "logsigmoid")),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("leaky_relu", {"negative_slope": -0.5}),
    ("elu", {"alpha": 2.5}),
    ("elu", {"alpha": -0.5}),
    ("celu", {"alpha": 0.25}),  # PyTorch rounds 1 / alpha to float32
    ("celu", {"alpha": -2.0}),
    ("softplus", {"beta": 0.5, "threshold": 3}),
    ("softplus", {"beta": -2.0, "threshold": 20}),
    ("hardtanh", {"min_val": -7.0, "max_val": -2.0}),
    ("hardshrink", {"lambd": -1.0}),
    ("hardshrink", {"lambd": 3}),
    ("softshrink", {"lambd": 0.0}),
    ("threshold", {"threshold": -3, "value": 9}),
    ("rrelu", {"lower": -0.5, "upper": 0.25}),
    ("glu", {"dim": 0}),
    ("softmax", {"dim": 0}),
    ("log_softmax", {"dim": 1}),
    ("softmin", {"dim": 2}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("op", "options"), CALLS, ids=lambda value: str(value))
def test_output_and_gradient(op, options, dtype):
    rng = np.random.default_rng(0)
    x = (10 ** rng.uniform(-3, 2, (6, 70, 31)) * rng.choice([-1, 1], (6, 70, 31))).astype(dtype)
    leaf = torch.from_numpy(x).requires_grad_()
    theirs = getattr(F, op)(leaf, **options)
    ours = getattr(fastops, op)(x, **options)
    dy = rng.standard_normal(ours.shape).astype(dtype)
    theirs.backward(torch.from_numpy(dy))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=30 * eps, atol=30 * eps * (1 + np.abs(x).max() * (op == "gelu")))
    np.testing.assert_allclose(getattr(fastops, f"{op}_backward")(dy, x, **options), leaf.grad.numpy(), rtol=100 * eps, atol=100 * eps)


@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 7), (2, 5, 9, 11), (1, 5, 200, 200)])
def test_prelu(shape):
    rng = np.random.default_rng(1)
    x, dy, w = rng.standard_normal(shape), rng.standard_normal(shape), rng.standard_normal(5)
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, w)]
    y = F.prelu(*leaves)
    y.backward(torch.from_numpy(dy))
    np.testing.assert_array_equal(fastops.prelu(x, w), y.detach().numpy())
    for ours, leaf in zip(fastops.prelu_backward(dy, x, w), leaves):
        np.testing.assert_allclose(ours, leaf.grad.numpy(), rtol=1e-12, atol=1e-11)
