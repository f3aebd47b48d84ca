"""Networks: training steps of small ones, inference of these and of MobileNetV2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastops

from .common import TINY, Timed, memo, one_thread

BATCH = 1 if TINY else 8
SMALL = ("lstm", "transformer", "language_model", "gcn", "graph_sage", "gat")


def _inputs(name: str, model: Any) -> tuple[Any, ...]:
    rng = np.random.default_rng(1)
    if name == "language_model":
        return (rng.integers(0, 64, (2 * BATCH, 4 if TINY else model.length)),)
    if name in ("lstm", "transformer"):
        return (rng.standard_normal((4 * BATCH, 8, 8), dtype=np.float32),)
    if name in ("gcn", "graph_sage", "gat"):  # as many members and edges as Zachary's karate club has
        return np.eye(34, dtype=np.float32), rng.integers(0, 34, (2, 156))
    sample = model.inputs[0][1] if name != "mobilenet_v2" else (3, 32, 32) if TINY else (3, 224, 224)
    return (rng.standard_normal((BATCH, *sample), dtype=np.float32),)


def _with_inputs(name: str) -> tuple[Any, dict[str, Any], dict[str, Any], tuple[Any, ...]]:
    from fastops import models

    model = getattr(models, name)()
    return model, *model.init(rng=0), _inputs(name, model)


@memo
def predicting(name: str) -> Callable[[], Any]:
    one_thread()
    model, params, buffers, inputs = _with_inputs(name)
    predict = model.prepare(params, buffers)
    predict(*inputs)
    return lambda: predict(*inputs)


@memo
def training(name: str) -> Callable[[], Any]:
    one_thread()
    model, params, buffers, inputs = _with_inputs(name)

    def loss(params: Any) -> Any:
        y, new = model.apply(params, buffers, *inputs, training=True, rng=0)
        y = y.reshape(-1, y.shape[-1])  # of every symbol in a text
        return fastops.cross_entropy(y, np.arange(len(y)) % y.shape[1]), new

    step = fastops.value_and_grad(loss, has_aux=True)
    step(params)
    return lambda: step(params)


class Inference(Timed):
    param_names = ("network",)
    params = (("lenet5", "resnet18_small", "mobilenet_v2", *SMALL),)

    def setup(self, network: str) -> None:
        self.run = predicting(network)

    def time_inference(self, network: str) -> None:
        self.timer.run(self.run)


class Training(Timed):
    param_names = ("network",)
    params = (("lenet5", *SMALL),)

    def setup(self, network: str) -> None:
        self.run = training(network)

    def time_training(self, network: str) -> None:
        self.timer.run(self.run)
