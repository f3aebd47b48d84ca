"""Convolution: every strategy on named shapes, forward and backward. Batch 1, float32, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

from fastops.cli._layers import DIRECTIONS, FORWARD, GRADIENTS, Layer
from fastops.ops.conv.strategies import STRATEGIES

from .common import TINY, Timed, one_thread
from .shapes import CONV_NAMES, conv_shape

NAMES = ("auto", *(s.name for s in STRATEGIES))


@cache
def warm(strategy: str, name: str, directions: tuple[str, ...]) -> Callable[[], Any]:
    """The call to time, already made once; asv calls setup before every sample, and compiling must stay out of them.

    Raises NotImplementedError, which asv shows as n/a, where the strategy refuses the shape.
    """
    one_thread()
    layer = Layer(conv_shape(name))
    offers = [layer.offers(direction, 1) for direction in directions]
    reasons = [o[strategy].refused for o in offers if strategy in o]
    if any(reasons):
        raise NotImplementedError("; ".join(filter(None, reasons)))
    calls = [layer.call(direction, strategy) for direction in directions]

    def run() -> None:
        for call in calls:
            call()

    run()
    return run


class Forward(Timed):
    param_names = ("strategy", "shape")
    params = (NAMES, CONV_NAMES)

    def setup(self, strategy: str, shape: str) -> None:
        self.run = warm(strategy, shape, (FORWARD,))

    def time_forward(self, strategy: str, shape: str) -> None:
        self.timer.run(self.run)


class Backward(Timed):
    """The gradients of input and weight, one after the other."""

    param_names = ("strategy", "shape")
    params = (NAMES, CONV_NAMES)

    def setup(self, strategy: str, shape: str) -> None:
        self.run = warm(strategy, shape, GRADIENTS)

    def time_backward(self, strategy: str, shape: str) -> None:
        self.timer.run(self.run)


class Workspace:
    """Bytes besides inputs and outputs: the most of the three directions, as the strategy states it."""

    param_names = ("strategy", "shape")
    params = (NAMES[1:], CONV_NAMES)
    unit = "bytes"

    def track_workspace(self, strategy: str, shape: str) -> int:
        layer = Layer(conv_shape(shape))
        offers = [layer.offers(direction, 1)[strategy] for direction in DIRECTIONS]
        sizes = [o.workspace for o in offers if o.workspace is not None]
        if not sizes:
            raise NotImplementedError("the strategy refuses the shape")
        return max(sizes)


class Throughput:
    """GFLOP/s of the choice, to look at. Never gate on it: to asv smaller is better, so a slowdown shows as a gain."""

    param_names = ("shape",)
    params = (CONV_NAMES,)
    unit = "GFLOP/s"

    def track_gflops(self, shape: str) -> float:
        run = warm("auto", shape, (FORWARD,))
        best = float("inf")
        for _ in range(1 if TINY else 50):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        return conv_shape(shape).flops() / best * 1e-9
