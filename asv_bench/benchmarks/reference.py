"""Beside NumPy and SciPy: operations that a user would otherwise write with them, in float32 on one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastops

from .common import TINY, Timed, memo, one_thread

FEATURES = (2, 4, 8, 8) if TINY else (8, 64, 56, 56)
ROWS = (4, 16) if TINY else (512, 1000)
IMAGE, FILTERS = ((1, 3, 8, 8), (4, 3, 3, 3)) if TINY else ((1, 64, 56, 56), (64, 64, 3, 3))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-5))


def _windows(x: np.ndarray) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))


def _conv2d(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.tensordot(_windows(x), w, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def _pairs(x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2)


def _scipy(name: str) -> Callable[..., Any]:
    def call(*arrays: np.ndarray) -> Any:
        import scipy.signal
        import scipy.special

        if name == "conv2d":  # a picture of one channel with one filter is what scipy.signal has
            x, w = arrays
            return sum(scipy.signal.correlate(x[0, c], w[0, c], "same") for c in range(x.shape[1]))
        if name in ("softmax", "log_softmax"):
            return getattr(scipy.special, name)(*arrays, axis=-1)
        return getattr(scipy.special, name)(*arrays)

    return call


Shapes = tuple[tuple[int, ...], ...]

# Shapes of the arrays, and the call of each library that has one. Append only.
CALLS: dict[str, tuple[Shapes, dict[str, Callable[..., Any]]]] = {
    "relu": ((FEATURES,), {"fastops": fastops.relu, "numpy": lambda x: np.maximum(x, 0)}),
    "tanh": ((FEATURES,), {"fastops": fastops.tanh, "numpy": np.tanh}),
    "sigmoid": ((FEATURES,), {"fastops": fastops.sigmoid, "scipy": _scipy("expit")}),
    "softmax": ((ROWS,), {"fastops": lambda x: fastops.softmax(x, -1), "numpy": _softmax, "scipy": _scipy("softmax")}),
    "log_softmax": ((ROWS,), {"fastops": lambda x: fastops.log_softmax(x, -1), "scipy": _scipy("log_softmax")}),
    "layer_norm": ((ROWS,), {"fastops": lambda x: fastops.layer_norm(x, x.shape[-1:]), "numpy": _layer_norm}),
    "max_pool2d": ((FEATURES,), {"fastops": lambda x: fastops.max_pool2d(x, 2), "numpy": lambda x: _pairs(x).max((3, 5))}),
    "avg_pool2d": ((FEATURES,), {"fastops": lambda x: fastops.avg_pool2d(x, 2), "numpy": lambda x: _pairs(x).mean((3, 5))}),
    "conv2d": ((IMAGE, FILTERS), {"fastops": lambda x, w: fastops.conv2d(x, w, padding=1), "numpy": _conv2d}),
    "conv2d.one_filter": (
        (IMAGE, (1, *FILTERS[1:])), {"fastops": lambda x, w: fastops.conv2d(x, w, padding=1), "scipy": _scipy("conv2d")},
    ),
}  # fmt: skip


@memo
def warm(implementation: str, call: str) -> Callable[[], Any]:
    one_thread()
    shapes, implementations = CALLS[call]
    if implementation not in implementations:
        raise NotImplementedError(f"{implementation} has no {call}")
    rng, function = np.random.default_rng(0), implementations[implementation]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    function(*arrays)
    return lambda: function(*arrays)


class Beside(Timed):
    """The curves of a page: ours and theirs. Only ours is gated, elsewhere."""

    param_names = ("implementation", "call")
    params = (("fastops", "numpy", "scipy"), tuple(CALLS))
    gated = False

    def setup(self, implementation: str, call: str) -> None:
        self.run = warm(implementation, call)

    def time_call(self, implementation: str, call: str) -> None:
        self.timer.run(self.run)
