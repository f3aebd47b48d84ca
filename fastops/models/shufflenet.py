"""ShuffleNet V2: half of the channels pass a block as they are, then the halves are shuffled.

Source: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design" (2018), figure 3 c
and d, table 5.
"""

from __future__ import annotations

import fastops.functional as F
from fastops.models.layers import Shape
from fastops.models.network import Builder, Network, Value


def _conv_norm(net: Builder, place: int, x: Value, channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> Value:
    x = net.conv(str(place), x, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return net.batch_norm(str(place + 1), x)


def _half(net: Builder, x: Value, second: bool) -> Value:
    middle = x.channels // 2
    part = slice(middle, None) if second else slice(None, middle)

    def shape(of: Shape) -> Shape:
        return (middle, *of[1:])

    return net.call("second half" if second else "first half", lambda x: x[:, part], x, shape=shape)


def shuffle_unit_v2(net: Builder, x: Value, channels: int, stride: int) -> Value:
    """With stride 1 a half of the input goes on as it is; with stride 2 both branches have convolutions."""
    half = channels // 2
    if stride == 1:
        kept, y = _half(net, x, second=False), _half(net, x, second=True)
    else:
        with net.scope("branch1"):
            kept = _conv_norm(net, 0, x, x.channels, 3, stride, groups=x.channels)
            kept = net.relu(_conv_norm(net, 2, kept, half, 1))
        y = x
    with net.scope("branch2"):
        y = net.relu(_conv_norm(net, 0, y, half, 1))
        y = _conv_norm(net, 3, y, half, 3, stride, groups=half)
        y = net.relu(_conv_norm(net, 5, y, half, 1))
    return net.call("shuffle, 2 groups", lambda x: F.channel_shuffle(x, 2), net.concat(kept, y))


def shufflenet_v2_x1_0(num_classes: int = 1000) -> Network:
    """ShuffleNet V2, width 1. Parameters are named as torchvision's.

    >>> shufflenet_v2_x1_0()
    <shufflenet_v2_x1_0: 211 layers, 2,278,604 parameters>
    """
    net = Builder("shufflenet_v2_x1_0")
    x = net.input(3, None, None)
    with net.scope("conv1"):
        x = net.relu(_conv_norm(net, 0, x, 24, 3, 2))
    x = net.max_pool(x, 3, 2, 1)
    for stage, (channels, count) in enumerate(((116, 4), (232, 8), (464, 4)), 2):
        for i in range(count):
            with net.scope(f"stage{stage}.{i}"):
                x = shuffle_unit_v2(net, x, channels, 2 if i == 0 else 1)
    with net.scope("conv5"):
        x = net.relu(_conv_norm(net, 0, x, 1024, 1))
    x = net.flatten(net.adaptive_avg_pool(x, 1))
    return net.build(net.linear("fc", x, num_classes))
