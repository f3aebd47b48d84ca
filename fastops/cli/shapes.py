"""The convolution layers of well-known networks, by name.

``python -m fastops compare`` measures them, the benchmarks in ``asv_bench`` pick some of them, so that a figure in one place
can be found again in the other. A published name keeps its shape for good (the benchmark history hangs on it): append, never edit.

The tables list each distinct shape once, in the order in which the network reaches it first, with the number of layers that
have it. Sources: LeNet-5 (LeCun et al. 1998, with C3 fully connected), AlexNet, VGG-16, ResNet-18 and -50 and MobileNetV2 as
torchvision builds them for a 224 x 224 picture (ResNet-50 has its strides on the 3x3 convolutions), U-Net (Ronneberger et al.
2015) with padded convolutions and a three-channel 256 x 256 picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True)
class ConvShape:
    """One convolution layer as it stands in a network, without the batch.

    ``size`` is the input's spatial size, also where ``transposed``; the tuples have one entry a spatial axis.
    ``count`` layers of the network have this shape.
    """

    name: str
    network: str
    count: int
    channels: int
    size: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False

    @property
    def layer(self) -> str:
        """The name without the network."""
        return self.name.partition(".")[2]

    @property
    def out_size(self) -> tuple[int, ...]:
        """The output's spatial size."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        if self.transposed:
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in axes)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight as the public functions take it."""
        if self.transposed:
            return (self.channels, self.out_channels // self.groups, *self.kernel)
        return (self.out_channels, self.channels // self.groups, *self.kernel)

    def flops(self, batch: int = 1) -> int:
        """Floating-point operations of the direct algorithm (two a multiply-add), the same for either gradient."""
        places = self.size if self.transposed else self.out_size
        return 2 * batch * prod(places) * prod(self.weight_shape)

    def describe(self) -> str:
        """The shape in a few characters: ``64->128 3x3/2 56x56``."""
        text = f"{self.channels}->{self.out_channels} {'x'.join(map(str, self.kernel))}"
        if self.stride != (1,) * len(self.stride):
            text += f"/{'x'.join(map(str, self.stride)) if len(set(self.stride)) > 1 else self.stride[0]}"
        if self.transposed:
            text += " up"
        if self.dilation != (1,) * len(self.dilation):
            text += f" d{self.dilation[0]}"
        if self.groups > 1:
            text += " dw" if self.groups == self.channels else f" g{self.groups}"
        return f"{text} {'x'.join(map(str, self.size))}"


def _row(
    layer: str,
    count: int,
    channels: int,
    size: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    transposed: bool = False,
) -> tuple[str, ConvShape]:
    """A square 2-D layer; ``padding=None`` is the half-kernel padding that keeps the size at stride 1."""
    pad = kernel // 2 if padding is None else padding
    return layer, ConvShape(
        name="",
        network="",
        count=count,
        channels=channels,
        size=(size, size),
        out_channels=out_channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(pad, pad),
        dilation=(1, 1),
        groups=groups,
        transposed=transposed,
    )


def _depthwise(layer: str, count: int, channels: int, size: int, stride: int = 1) -> tuple[str, ConvShape]:
    return _row(layer, count, channels, size, channels, 3, stride, groups=channels)


def _up(layer: str, channels: int, size: int) -> tuple[str, ConvShape]:
    """U-Net's learned doubling of the size: a transposed 2x2 convolution with stride 2 that halves the channels."""
    return _row(layer, 1, channels, size, channels // 2, 2, 2, 0, transposed=True)


# layer, count, channels, size, out_channels, kernel, stride (1), padding (kernel // 2)
_TABLES: dict[str, list[tuple[str, ConvShape]]] = {
    "lenet5": [
        _row("c1", 1, 1, 32, 6, 5, padding=0),
        _row("c3", 1, 6, 14, 16, 5, padding=0),
        _row("c5", 1, 16, 5, 120, 5, padding=0),
    ],
    "alexnet": [
        _row("conv1", 1, 3, 224, 64, 11, 4, padding=2),
        _row("conv2", 1, 64, 27, 192, 5),
        _row("conv3", 1, 192, 13, 384, 3),
        _row("conv4", 1, 384, 13, 256, 3),
        _row("conv5", 1, 256, 13, 256, 3),
    ],
    "vgg16": [
        _row("conv1_1", 1, 3, 224, 64, 3),
        _row("conv1_2", 1, 64, 224, 64, 3),
        _row("conv2_1", 1, 64, 112, 128, 3),
        _row("conv2_2", 1, 128, 112, 128, 3),
        _row("conv3_1", 1, 128, 56, 256, 3),
        _row("conv3_2", 2, 256, 56, 256, 3),
        _row("conv4_1", 1, 256, 28, 512, 3),
        _row("conv4_2", 2, 512, 28, 512, 3),
        _row("conv5_1", 3, 512, 14, 512, 3),
    ],
    "resnet18": [
        _row("conv1", 1, 3, 224, 64, 7, 2),
        _row("layer1", 4, 64, 56, 64, 3),
        _row("layer2.strided", 1, 64, 56, 128, 3, 2),
        _row("layer2", 3, 128, 28, 128, 3),
        _row("layer2.shortcut", 1, 64, 56, 128, 1, 2),
        _row("layer3.strided", 1, 128, 28, 256, 3, 2),
        _row("layer3", 3, 256, 14, 256, 3),
        _row("layer3.shortcut", 1, 128, 28, 256, 1, 2),
        _row("layer4.strided", 1, 256, 14, 512, 3, 2),
        _row("layer4", 3, 512, 7, 512, 3),
        _row("layer4.shortcut", 1, 256, 14, 512, 1, 2),
    ],
    "resnet50": [
        _row("conv1", 1, 3, 224, 64, 7, 2),
        _row("layer1.first", 1, 64, 56, 64, 1),
        _row("layer1", 3, 64, 56, 64, 3),
        _row("layer1.expand", 4, 64, 56, 256, 1),  # the shortcut of the first block has the same shape
        _row("layer1.reduce", 2, 256, 56, 64, 1),
        _row("layer2.first", 1, 256, 56, 128, 1),
        _row("layer2.strided", 1, 128, 56, 128, 3, 2),
        _row("layer2.expand", 4, 128, 28, 512, 1),
        _row("layer2.shortcut", 1, 256, 56, 512, 1, 2),
        _row("layer2.reduce", 3, 512, 28, 128, 1),
        _row("layer2", 3, 128, 28, 128, 3),
        _row("layer3.first", 1, 512, 28, 256, 1),
        _row("layer3.strided", 1, 256, 28, 256, 3, 2),
        _row("layer3.expand", 6, 256, 14, 1024, 1),
        _row("layer3.shortcut", 1, 512, 28, 1024, 1, 2),
        _row("layer3.reduce", 5, 1024, 14, 256, 1),
        _row("layer3", 5, 256, 14, 256, 3),
        _row("layer4.first", 1, 1024, 14, 512, 1),
        _row("layer4.strided", 1, 512, 14, 512, 3, 2),
        _row("layer4.expand", 3, 512, 7, 2048, 1),
        _row("layer4.shortcut", 1, 1024, 14, 2048, 1, 2),
        _row("layer4.reduce", 2, 2048, 7, 512, 1),
        _row("layer4", 2, 512, 7, 512, 3),
    ],
    "mobilenet_v2": [  # e: expand, d: depthwise, p: project, numbered by the block that has the shape first
        _row("conv0", 1, 3, 224, 32, 3, 2),
        _depthwise("d1", 1, 32, 112),
        _row("p1", 1, 32, 112, 16, 1),
        _row("e2", 1, 16, 112, 96, 1),
        _depthwise("d2", 1, 96, 112, 2),
        _row("p2", 1, 96, 56, 24, 1),
        _row("e3", 2, 24, 56, 144, 1),
        _depthwise("d3", 1, 144, 56),
        _row("p3", 1, 144, 56, 24, 1),
        _depthwise("d4", 1, 144, 56, 2),
        _row("p4", 1, 144, 28, 32, 1),
        _row("e5", 3, 32, 28, 192, 1),
        _depthwise("d5", 2, 192, 28),
        _row("p5", 2, 192, 28, 32, 1),
        _depthwise("d7", 1, 192, 28, 2),
        _row("p7", 1, 192, 14, 64, 1),
        _row("e8", 4, 64, 14, 384, 1),
        _depthwise("d8", 4, 384, 14),
        _row("p8", 3, 384, 14, 64, 1),
        _row("p11", 1, 384, 14, 96, 1),
        _row("e12", 3, 96, 14, 576, 1),
        _depthwise("d12", 2, 576, 14),
        _row("p12", 2, 576, 14, 96, 1),
        _depthwise("d14", 1, 576, 14, 2),
        _row("p14", 1, 576, 7, 160, 1),
        _row("e15", 3, 160, 7, 960, 1),
        _depthwise("d15", 3, 960, 7),
        _row("p15", 2, 960, 7, 160, 1),
        _row("p17", 1, 960, 7, 320, 1),
        _row("last", 1, 320, 7, 1280, 1),
    ],
    "unet": [
        _row("down1.first", 1, 3, 256, 64, 3),
        _row("down1", 2, 64, 256, 64, 3),
        _row("down2.first", 1, 64, 128, 128, 3),
        _row("down2", 2, 128, 128, 128, 3),
        _row("down3.first", 1, 128, 64, 256, 3),
        _row("down3", 2, 256, 64, 256, 3),
        _row("down4.first", 1, 256, 32, 512, 3),
        _row("down4", 2, 512, 32, 512, 3),
        _row("bottom.first", 1, 512, 16, 1024, 3),
        _row("bottom", 1, 1024, 16, 1024, 3),
        _up("up4", 1024, 16),
        _row("up4.first", 1, 1024, 32, 512, 3),
        _up("up3", 512, 32),
        _row("up3.first", 1, 512, 64, 256, 3),
        _up("up2", 256, 64),
        _row("up2.first", 1, 256, 128, 128, 3),
        _up("up1", 128, 128),
        _row("up1.first", 1, 128, 256, 64, 3),
        _row("last", 1, 64, 256, 2, 1),
    ],
}

NETWORKS: dict[str, tuple[ConvShape, ...]] = {
    network: tuple(replace(shape, name=f"{network}.{layer}", network=network) for layer, shape in rows) for network, rows in _TABLES.items()
}

SHAPES: dict[str, ConvShape] = {shape.name: shape for shapes in NETWORKS.values() for shape in shapes}
