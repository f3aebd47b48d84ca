"""A small network's loss and gradients, and those of expressions in NumPy, beside PyTorch's autograd."""

from __future__ import annotations

import numpy as np
import pytest

import fastops
from asv_bench.benchmarks.autodiff import lenet_loss, lenet_params

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch
torch.set_num_threads(1)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-13)])
@pytest.mark.parametrize("batch", [1, 5])
def test_lenet(batch, dtype, tolerance):
    F = torch.nn.functional
    rng = np.random.default_rng(batch)
    params = {layer: {name: a.astype(dtype) for name, a in both.items()} for layer, both in lenet_params(rng).items()}
    images, target = rng.standard_normal((batch, 1, 28, 28)).astype(dtype), rng.integers(0, 10, batch)
    loss, (found, dx) = fastops.value_and_grad(lenet_loss, argnums=(0, 1))(params, images, target)

    theirs = {layer: {name: torch.tensor(a, requires_grad=True) for name, a in both.items()} for layer, both in params.items()}
    x = torch.tensor(images, requires_grad=True)
    h = F.avg_pool2d(torch.tanh(F.conv2d(x, **theirs["conv1"], padding=2)), 2)
    h = F.avg_pool2d(torch.tanh(F.conv2d(h, **theirs["conv2"])), 2).flatten(1)
    h = torch.tanh(F.linear(torch.tanh(F.linear(h, **theirs["fc1"])), **theirs["fc2"]))
    expected = F.cross_entropy(F.linear(h, **theirs["fc3"]), torch.tensor(target))
    expected.backward()

    np.testing.assert_allclose(loss, expected.item(), rtol=tolerance)
    pairs = [(found[layer][name], theirs[layer][name].grad) for layer in params for name in params[layer]] + [(dx, x.grad)]
    for ours, reference in pairs:
        scale = reference.abs().max().item()
        np.testing.assert_allclose(ours, reference.numpy(), rtol=0, atol=tolerance * scale)
        assert ours.dtype == dtype


EXPRESSIONS = {
    "ties of maximum": (lambda x: np.maximum(x, 1.0), lambda x: torch.maximum(x, torch.ones(()).double())),
    "ties of max": (lambda x: np.max(x, axis=1), lambda x: x.amax(1)),
    "ties of clip": (lambda x: np.clip(x, 0.0, 1.0), lambda x: x.clamp(0.0, 1.0)),
    "abs at 0": (np.abs, torch.abs),
    "norm at 0": (lambda x: np.linalg.norm(x * 0, axis=1), lambda x: torch.linalg.norm(x * 0, dim=1)),
    "prod with zeros": (lambda x: np.prod(x, axis=1), lambda x: x.prod(1)),
    "powers at 0": (lambda x: x**2 + x**1 + x**0, lambda x: x**2 + x**1 + x**0),
    "repeated indices": (lambda x: x[[0, 1, 1], [2, 0, 0]], lambda x: x[[0, 1, 1], [2, 0, 0]]),
    "std": (lambda x: np.std(x, axis=1, ddof=1), lambda x: x.std(1)),
    "cumsum": (lambda x: np.cumsum(x, axis=1) ** 2, lambda x: x.cumsum(1) ** 2),
    "sort": (lambda x: np.sort(x, axis=1, kind="stable") * np.arange(3.0), lambda x: x.sort(dim=1, stable=True)[0] * torch.arange(3.0).double()),
    "logaddexp": (lambda x: np.logaddexp(x, x[::-1]), lambda x: torch.logaddexp(x, x.flip(0))),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_where_conventions_could_differ(name):
    ours, theirs = EXPRESSIONS[name]
    x = np.array([[0.0, 1.0, 1.0], [-2.0, 0.0, 3.0]])
    y, pullback = fastops.vjp(ours, x)
    cotangent = np.cos(np.arange(y.size)).reshape(y.shape)
    t = torch.tensor(x, requires_grad=True)
    expected = theirs(t)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-14)
    (reference,) = torch.autograd.grad(expected, t, torch.tensor(cotangent))
    np.testing.assert_allclose(pullback(cotangent)[0], reference.numpy(), rtol=1e-13, atol=1e-15)
