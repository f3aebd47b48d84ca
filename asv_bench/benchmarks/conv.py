"""Convolution: every strategy on named shapes, forward and backward; unfold and fold. Batch 1, float32, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastops
from fastops.cli._layers import DIRECTIONS, FORWARD, GRADIENTS, Layer
from fastops.cli.shapes import SHAPES
from fastops.ops.conv.strategies import STRATEGIES

from .common import TINY, Case, Timed, memo, one_thread
from .shapes import CONV_NAMES, LAST_NAMES, SEPARABLE_NAMES, WINDOW_NAMES, conv_shape

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


def layer_case(name: str, batch: int) -> Case:
    """A layer of a network with its bias; the first one needs no gradient of the picture."""
    s = SHAPES[name]
    options = {"stride": s.stride, "padding": s.padding, "groups": s.groups}
    arrays = {"input": (batch, s.channels, *s.size), "weight": s.weight_shape, "bias": (s.out_channels,)}
    return Case("conv_transpose2d" if s.transposed else "conv2d", arrays, options, data=("input",) if s.channels == 3 else ())


def case(op: str, input: tuple[int, ...], weight: tuple[int, ...], **options: Any) -> Case:
    return Case(op, {"input": input, "weight": weight}, options)


def is_plain(name: str) -> bool:
    return SHAPES[name].kernel == (3, 3) and SHAPES[name].stride == (1, 1) and SHAPES[name].groups == 1


# What ``python -m asv_bench.beside conv`` measures. First 3x3 with stride 1, then all the other kinds.
CASES = {
    **{f"3x3.{n}.batch{b}": layer_case(n, b) for n in SHAPES if n.startswith(("resnet18.", "vgg16.")) and is_plain(n) for b in (1, 8)},
    **{
        f"kinds.{n}.batch{b}": layer_case(n, b)
        for n in (
            "resnet18.conv1", "resnet18.layer2.strided", "resnet18.layer3.strided", "resnet18.layer4.strided", "resnet18.layer2.shortcut",
            "resnet18.layer4.shortcut", "alexnet.conv1", "alexnet.conv2", "resnet50.layer1.first", "resnet50.layer1.expand", "resnet50.layer1.reduce",
            "resnet50.layer2.expand", "resnet50.layer3.reduce", "resnet50.layer3.expand", "resnet50.layer4.expand", "resnet50.layer4.reduce",
            "mobilenet_v2.conv0", "mobilenet_v2.d1", "mobilenet_v2.d2", "mobilenet_v2.d3", "mobilenet_v2.d8", "mobilenet_v2.d15", "mobilenet_v2.e3",
            "mobilenet_v2.p3", "mobilenet_v2.e8", "mobilenet_v2.last", "unet.up4", "unet.up3", "unet.last",
        )
        for b in (1, 8)
    },
    "kinds.5x5.4x64x28x28": case("conv2d", (4, 64, 28, 28), (64, 64, 5, 5), padding=2),
    "kinds.7x7.4x64x28x28": case("conv2d", (4, 64, 28, 28), (64, 64, 7, 7), padding=3),
    "kinds.11x11.4x32x28x28": case("conv2d", (4, 32, 28, 28), (32, 32, 11, 11), padding=5),
    "kinds.1x7.4x128x17x17": case("conv2d", (4, 128, 17, 17), (128, 128, 1, 7), padding=(0, 3)),
    "kinds.7x1.4x128x17x17": case("conv2d", (4, 128, 17, 17), (128, 128, 7, 1), padding=(3, 0)),
    "kinds.1x3.4x256x14x14": case("conv2d", (4, 256, 14, 14), (256, 256, 1, 3), padding=(0, 1)),
    "kinds.dilation2.2x128x28x28": case("conv2d", (2, 128, 28, 28), (128, 128, 3, 3), padding=2, dilation=2),
    "kinds.dilation4.2x256x28x28": case("conv2d", (2, 256, 28, 28), (256, 256, 3, 3), padding=4, dilation=4),
    "kinds.groups32.2x128x56x56": case("conv2d", (2, 128, 56, 56), (128, 4, 3, 3), padding=1, groups=32),
    "kinds.groups8.2x256x28x28": case("conv2d", (2, 256, 28, 28), (256, 32, 3, 3), padding=1, groups=8),
    "kinds.depthwise5x5.4x240x28x28": case("conv2d", (4, 240, 28, 28), (240, 1, 5, 5), padding=2, groups=240),
    "kinds.depthwise7x7.1x96x56x56": case("conv2d", (1, 96, 56, 56), (96, 1, 7, 7), padding=3, groups=96),
    "kinds.patches16x16.8x3x224x224": case("conv2d", (8, 3, 224, 224), (192, 3, 16, 16), stride=16),
    "kinds.dense4x4.16x512x4x4": case("conv2d", (16, 512, 4, 4), (100, 512, 4, 4)),
    "kinds.dense_transposed4x4.16x100x1x1": case("conv_transpose2d", (16, 100, 1, 1), (100, 512, 4, 4)),
    "kinds.dilation12.1x256x28x28": case("conv2d", (1, 256, 28, 28), (64, 256, 3, 3), padding=12, dilation=12),
    "kinds.transposed3x3.2x128x28x28": case("conv_transpose2d", (2, 128, 28, 28), (128, 64, 3, 3), stride=2, padding=1, output_padding=1),
    "kinds.transposed4x4.2x128x16x16": case("conv_transpose2d", (2, 128, 16, 16), (128, 64, 4, 4), stride=2, padding=1),
    "kinds.1d.8x128x512": case("conv1d", (8, 128, 512), (128, 128, 3), padding=1),
    "kinds.1d_strided.8x64x1024": case("conv1d", (8, 64, 1024), (128, 64, 5), stride=2, padding=2),
    "kinds.1d_dilated.4x64x4096": case("conv1d", (4, 64, 4096), (64, 64, 3), padding=8, dilation=8),
    "kinds.3d.1x32x16x28x28": case("conv3d", (1, 32, 16, 28, 28), (64, 32, 3, 3, 3), padding=1),
    "kinds.3d_strided.1x32x16x28x28": case("conv3d", (1, 32, 16, 28, 28), (64, 32, 3, 3, 3), stride=2, padding=1),
    "kinds.3d_1x1.1x64x8x28x28": case("conv3d", (1, 64, 8, 28, 28), (128, 64, 1, 1, 1)),
    "small.1x8x8x8": case("conv2d", (1, 8, 8, 8), (8, 8, 3, 3), padding=1),
}  # fmt: skip


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


@memo
def channels_last(name: str, prepared: bool) -> Callable[[], Any]:
    one_thread()
    s, rng = conv_shape(name), np.random.default_rng(0)
    x = rng.standard_normal((1, *s.size, s.channels), dtype=np.float32)
    w = rng.standard_normal(s.weight_shape, dtype=np.float32)
    options = {"stride": s.stride, "padding": s.padding, "groups": s.groups, "data_format": "NHWC"}
    convolve = fastops.prepare_conv2d(w, **options)

    def run() -> None:
        if prepared:
            convolve(x)
        else:
            fastops.conv2d(x, w, **options)

    run()
    return run


class ChannelsLast(Timed):
    """Images (N, H, W, C), with weights as the user has them, and prepared."""

    param_names = ("weights", "shape")
    params = (("plain", "prepared"), LAST_NAMES)

    def setup(self, weights: str, shape: str) -> None:
        self.run = channels_last(shape, weights == "prepared")

    def time_channels_last(self, weights: str, shape: str) -> None:
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
