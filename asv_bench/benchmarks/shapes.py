"""The shapes that the benchmarks measure, by their published names; append only."""

from __future__ import annotations

from dataclasses import replace

from fastops.cli.shapes import SHAPES, ConvShape

from .common import TINY

# One shape for each kind of layer: every combination with a strategy is a process of its own.
CONV_NAMES = (
    "resnet18.conv1",  # 7x7, stride 2, three channels
    "resnet18.layer1",  # 3x3, large picture, few channels
    "resnet18.layer4",  # 3x3, small picture, many channels
    "resnet18.layer3.strided",  # 3x3, stride 2
    "alexnet.conv2",  # 5x5
    "resnet50.layer1.expand",  # 1x1, memory-bound
    "resnet50.layer3.reduce",  # 1x1, compute-bound
    "mobilenet_v2.d3",  # depthwise
    "unet.up3",  # transposed
)

# The depthwise layer of a depthwise separable convolution, and the layer that mixes its channels.
SEPARABLE_NAMES = {"mobilenet_v2.d3": "mobilenet_v2.p3", "mobilenet_v2.d12": "mobilenet_v2.p12"}

# 1x1 and depthwise layers, which networks run with channels last: small images of many channels, and a large one.
LAST_NAMES = ("mobilenet_v2.e8", "mobilenet_v2.p15", "mobilenet_v2.d3", "mobilenet_v2.d14")

# Layers whose input unfold takes apart and fold adds up again.
WINDOW_NAMES = ("resnet18.layer1", "resnet18.layer3.strided")

GEMM_SIZES = (256, 512, 1024)
GEMM_TINY = 17


def conv_shape(name: str) -> ConvShape:
    """The named shape; in the smoke run a small one of its kind."""
    shape = SHAPES[name]
    if not TINY:
        return shape
    depthwise = shape.groups > 1
    channels, out_channels = (8, 8) if depthwise else (min(shape.channels, 4), 6)
    size = tuple(max(k, 9) for k in shape.kernel)
    return replace(shape, channels=channels, out_channels=out_channels, size=size, groups=channels if depthwise else 1)
