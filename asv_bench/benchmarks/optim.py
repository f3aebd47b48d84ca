"""A step of the optimizers: on the parameters of ResNet-18, on one large parameter, on many small ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import TINY, Timed, memo, one_thread


def _resnet18() -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    channels = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            shapes += [(width, channels, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if block == 0 and width != channels:
                shapes += [(width, channels, 1, 1), (width,), (width,)]
            channels = width
    return [*shapes, (1000, 512), (1000,)]


SHAPES = {"resnet18": _resnet18(), "one of 2048x2048": [(2048, 2048)], "200 of 64": [(64,)] * 200}

# With momentum, as they are used.
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "adagrad": {},
    "adadelta": {},
    "rmsprop": {},
    "adam": {},
    "adamw": {},
    "nadam": {},
    "radam": {},
    "adamax": {},
    "lion": {},
}


def drawn(name: str, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    shapes = [tuple(min(n, 4) for n in shape) for shape in SHAPES[name]] if TINY else SHAPES[name]
    return {str(i): rng.standard_normal(shape, dtype=np.float32) for i, shape in enumerate(shapes)}


@memo
def _arrays(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return drawn(name, 0), drawn(name, 1)


class Update(Timed):
    """In place, and into new arrays."""

    param_names = ("optimizer", "parameters", "inplace")
    params = (tuple(OPTIONS), tuple(SHAPES), (True, False))

    def setup(self, optimizer: str, parameters: str, inplace: bool) -> None:
        from fastops import optim

        if not inplace and optimizer not in ("sgd", "adam"):
            raise NotImplementedError("two stand for all")
        one_thread()
        opt = getattr(optim, optimizer)(**OPTIONS[optimizer], lr=0.0)  # the arrays serve every case
        params, grads = _arrays(parameters)
        state = opt.init(params)
        self.run = lambda: opt.update(params, grads, state, inplace=inplace)
        self.run()

    def time_update(self, optimizer: str, parameters: str, inplace: bool) -> None:
        self.timer.run(self.run)


class Clip(Timed):
    param_names = ("parameters",)
    params = (tuple(SHAPES),)

    def setup(self, parameters: str) -> None:
        from fastops import optim

        one_thread()
        grads = _arrays(parameters)[1]
        self.run = lambda: optim.clip_grad_norm(grads, 1e9)
        self.run()

    def time_norm(self, parameters: str) -> None:
        self.timer.run(self.run)
