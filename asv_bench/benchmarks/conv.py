"""Convolution: every strategy on named shapes, forward and backward; unfold and fold. Batch 1, float32, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastops
from fastops.cli._layers import DIRECTIONS, FORWARD, GRADIENTS, Layer
from fastops.ops.conv.strategies import STRATEGIES

from .common import TINY, Timed, memo, one_thread
from .shapes import CONV_NAMES, SEPARABLE_NAMES, WINDOW_NAMES, conv_shape

NAMES = ("auto", *(s.name for s in STRATEGIES))

# The strategies that do both convolutions of a separable one, and the choice, which takes the best for each.
FOR_SEPARABLE = ("auto", "implicit", "im2col", "naive")


@memo
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

    def setup(self, strategy: str, shape: str) -> None:
        layer = Layer(conv_shape(shape))
        offers = [layer.offers(direction, 1)[strategy] for direction in DIRECTIONS]
        self.sizes = [o.workspace for o in offers if o.workspace is not None]
        if not self.sizes:
            raise NotImplementedError("the strategy refuses the shape")

    def track_workspace(self, strategy: str, shape: str) -> int:
        return max(self.sizes)


class Throughput:
    """GFLOP/s of the choice, to look at. Never gate on it: to asv smaller is better, so a slowdown shows as a gain."""

    param_names = ("shape",)
    params = (CONV_NAMES,)
    unit = "GFLOP/s"
    gated = False

    def track_gflops(self, shape: str) -> float:
        run = warm("auto", shape, (FORWARD,))
        best = float("inf")
        for _ in range(1 if TINY else 50):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        return conv_shape(shape).flops() / best * 1e-9


@memo
def warm_separable(strategy: str, name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The forward and the backward call, already made once."""
    one_thread()
    spatial = Layer(conv_shape(name))
    s = spatial.shape
    mixing = np.random.default_rng(0).standard_normal((conv_shape(SEPARABLE_NAMES[name]).out_channels, s.out_channels, 1, 1), dtype=np.float32)
    arrays = (spatial.input, spatial.weight, mixing)
    options: dict[str, Any] = {"stride": s.stride, "padding": s.padding, "strategy": strategy}
    grad_output = fastops.separable_conv2d(*arrays, **options)
    fastops.separable_conv2d_backward(grad_output, *arrays, **options)
    return (
        lambda: fastops.separable_conv2d(*arrays, **options),
        lambda: fastops.separable_conv2d_backward(grad_output, *arrays, **options),
    )


class Separable(Timed):
    """A depthwise convolution, then a 1x1 one."""

    param_names = ("strategy", "shape")
    params = (FOR_SEPARABLE, tuple(SEPARABLE_NAMES))

    def setup(self, strategy: str, shape: str) -> None:
        self.forward, self.backward = warm_separable(strategy, shape)

    def time_forward(self, strategy: str, shape: str) -> None:
        self.timer.run(self.forward)

    def time_backward(self, strategy: str, shape: str) -> None:
        self.timer.run(self.backward)


@memo
def warm_windows(operation: str, name: str) -> Callable[[], Any]:
    """The call of unfold or fold, already made once, with the input of a convolution layer."""
    one_thread()
    layer = Layer(conv_shape(name))
    s = layer.shape
    options: dict[str, Any] = {"kernel_size": s.kernel, "dilation": s.dilation, "padding": s.padding, "stride": s.stride}
    columns = fastops.unfold(layer.input, **options)
    if operation == "unfold":
        return lambda: fastops.unfold(layer.input, **options)
    fastops.fold(columns, s.size, **options)
    return lambda: fastops.fold(columns, s.size, **options)


class Windows(Timed):
    """The columns of all windows, and their sum; each is the gradient of the other."""

    param_names = ("operation", "shape")
    params = (("unfold", "fold"), WINDOW_NAMES)

    def setup(self, operation: str, shape: str) -> None:
        self.run = warm_windows(operation, shape)

    def time_windows(self, operation: str, shape: str) -> None:
        self.timer.run(self.run)
