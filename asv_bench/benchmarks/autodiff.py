"""The tape: a chain of small operations against their kernels called directly, and a small network forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastops

from .common import TINY, Timed, memo, one_thread

LENGTH = 4 if TINY else 200

Params = dict[str, Any]


@memo
def chains() -> dict[str, Callable[[], Any]]:
    """``LENGTH`` times relu(x + b) on 64 elements, forward and backward: through the tape, and by the functions themselves."""
    one_thread()
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal((2, 64)).astype(np.float32)
    cotangent = np.ones_like(x)

    def chain(x: Any) -> Any:
        for _ in range(LENGTH):
            x = fastops.relu(x + b)
        return x

    def tape() -> Any:
        return fastops.vjp(chain, x)[1](cotangent)

    def direct() -> Any:
        y, outputs = x, []
        for _ in range(LENGTH):
            y = fastops.relu(np.add(y, b))
            outputs.append(y)
        grad = cotangent
        for output in reversed(outputs):
            grad = fastops.relu_backward(grad, output, output=output)
        return grad

    tape(), direct()
    return {"tape": tape, "direct": direct}


class Chain(Timed):
    """400 operations; the difference over 400 is what the tape adds to one."""

    param_names = ("way",)
    params = (("tape", "direct"),)

    def setup(self, way: str) -> None:
        self.run = chains()[way]

    def time_chain(self, way: str) -> None:
        self.timer.run(self.run)


def lenet_params(rng: np.random.Generator) -> Params:
    """LeCun et al., "Gradient-based learning applied to document recognition" (1998), figure 2, with all maps connected."""
    shapes = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    params: Params = {}
    for name, shape in shapes.items():
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        params[name] = {
            "weight": (rng.standard_normal(shape) * scale).astype(np.float32),
            "bias": (rng.standard_normal(shape[0]) * scale).astype(np.float32),
        }
    return params


def lenet_loss(params: Params, x: Any, target: Any) -> Any:
    x = fastops.conv2d(x, **params["conv1"], padding=2)
    x = fastops.avg_pool2d(fastops.tanh(x), 2)
    x = fastops.conv2d(x, **params["conv2"])
    x = fastops.avg_pool2d(fastops.tanh(x), 2)
    x = x.reshape(x.shape[0], -1)
    x = fastops.tanh(fastops.linear(x, **params["fc1"]))
    x = fastops.tanh(fastops.linear(x, **params["fc2"]))
    return fastops.cross_entropy(fastops.linear(x, **params["fc3"]), target)


@memo
def lenet(batch: int) -> Callable[[], Any]:
    """Loss and gradients, already computed once."""
    one_thread()
    rng = np.random.default_rng(0)
    params = lenet_params(rng)
    images = rng.standard_normal((batch, 1, 28, 28)).astype(np.float32)
    target = rng.integers(0, 10, batch)
    both = fastops.value_and_grad(lenet_loss)

    def run() -> Any:
        return both(params, images, target)

    run()
    return run


class LeNet5(Timed):
    """Forward and backward."""

    param_names = ("batch",)
    params = ((1, 2) if TINY else (1, 64),)

    def setup(self, batch: int) -> None:
        self.run = lenet(batch)

    def time_lenet5(self, batch: int) -> None:
        self.timer.run(self.run)
