"""MobileNetV2: thin values between blocks, wide depthwise convolutions within.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), table 2.
"""

from __future__ import annotations

from fastops.models.layers import fan_out_normal, normal
from fastops.models.network import Builder, Network, Value

# How many times as wide within, channels, how many blocks, stride of the first.
_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_norm(net: Builder, names: tuple[str, str], x: Value, channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> Value:
    padding = kernel_size // 2
    x = net.conv(names[0], x, channels, kernel_size, stride, padding, groups=groups, bias=False, initial=fan_out_normal)
    return net.batch_norm(names[1], x)


def inverted_residual(net: Builder, x: Value, channels: int, stride: int, expansion: int) -> Value:
    """1x1 to more channels, depthwise 3x3, 1x1 to few channels without an activation; added to the input where it fits."""
    y, width, place = x, x.channels * expansion, 0
    with net.scope("conv"):
        if expansion != 1:
            y = net.activation("relu6", _conv_norm(net, ("0.0", "0.1"), y, width, 1))
            place = 1
        y = net.activation("relu6", _conv_norm(net, (f"{place}.0", f"{place}.1"), y, width, 3, stride, groups=width))
        y = _conv_norm(net, (f"{place + 1}", f"{place + 2}"), y, channels, 1)
    return net.add(x, y) if stride == 1 and x.channels == channels else y


def mobilenet_v2(num_classes: int = 1000, dropout: float = 0.2) -> Network:
    """MobileNetV2, width 1. Parameters are named as torchvision's.

    >>> mobilenet_v2()
    <mobilenet_v2: 153 layers, 3,504,872 parameters>
    """
    net = Builder("mobilenet_v2")
    x = net.input(3, None, None)
    with net.scope("features"):
        x = net.activation("relu6", _conv_norm(net, ("0.0", "0.1"), x, 32, 3, 2))
        place = 1
        for expansion, channels, count, stride in _BLOCKS:
            for i in range(count):
                with net.scope(str(place)):
                    x = inverted_residual(net, x, channels, stride if i == 0 else 1, expansion)
                place += 1
        x = net.activation("relu6", _conv_norm(net, (f"{place}.0", f"{place}.1"), x, 1280, 1))
    x = net.dropout(net.flatten(net.adaptive_avg_pool(x, 1)), dropout)
    return net.build(net.linear("classifier.1", x, num_classes, initial=normal(0.01)))
