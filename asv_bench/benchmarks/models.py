"""Small networks: a training step of one, and inference of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastops

from .common import TINY, Timed, memo, one_thread

BATCH = 1 if TINY else 8


def _with_images(name: str) -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
    from fastops import models

    model = getattr(models, name)()
    params, buffers = model.init(rng=0)
    x = np.random.default_rng(1).standard_normal((BATCH, *model.inputs[0][1])).astype(np.float32)
    return model, params, buffers, x


@memo
def predicting(name: str) -> Callable[[], Any]:
    one_thread()
    model, params, buffers, x = _with_images(name)
    predict = model.prepare(params, buffers)
    predict(x)
    return lambda: predict(x)


@memo
def training(name: str) -> Callable[[], Any]:
    one_thread()
    model, params, buffers, x = _with_images(name)
    labels = np.arange(BATCH)

    def loss(params: Any) -> Any:
        y, new = model.apply(params, buffers, x, training=True, rng=0)
        return fastops.cross_entropy(y, labels), new

    step = fastops.value_and_grad(loss, has_aux=True)
    step(params)
    return lambda: step(params)


class Inference(Timed):
    param_names = ("network",)
    params = (("lenet5", "resnet18_small"),)

    def setup(self, network: str) -> None:
        self.run = predicting(network)

    def time_inference(self, network: str) -> None:
        self.timer.run(self.run)


class Training(Timed):
    param_names = ("network",)
    params = (("lenet5",),)

    def setup(self, network: str) -> None:
        self.run = training(network)

    def time_training(self, network: str) -> None:
        self.timer.run(self.run)
