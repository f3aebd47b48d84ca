"""ShuffleNet: 1x1 convolutions of groups of channels, which a shuffle mixes; V2: half of the channels pass a block as they are.

Source: Zhang, Zhou, Lin, Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices" (2018),
figure 2 b and c, table 1; Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design"
(2018), figure 3 c and d, table 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import fastops.functional as F
from fastops.models.layers import Shape, fan_out_normal
from fastops.models.network import Builder, Network, Value


def _conv_norm(net: Builder, place: int, x: Value, channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> Value:
    x = net.conv(str(place), x, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return net.batch_norm(str(place + 1), x)


def _half(net: Builder, x: Value, second: bool) -> Value:
    middle = x.channels // 2
    part = slice(middle, None) if second else slice(None, middle)

    return net.call("second half" if second else "first half", partial(_channels, part), x, shape=partial(_with_channels, middle))


def _channels(part: slice, x: Any) -> Any:
    return x[:, part]


def _with_channels(count: int, of: Shape) -> Shape:
    return (count, *of[1:])


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
    return net.call("shuffle, 2 groups", partial(F.channel_shuffle, groups=2), net.concat(kept, y))


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


def shuffle_unit(net: Builder, x: Value, channels: int, stride: int, groups: int, first_groups: int | None = None) -> Value:
    """1x1 in groups, shuffle, depthwise 3x3, 1x1 in groups; added to the input, or at stride 2 set beside its means over 3x3.

    Args:
        channels: of the result; a quarter of them within.
        groups: of the 1x1 convolutions.
        first_groups: of the first of them, if other.
    """
    middle, added = channels // 4, channels - x.channels if stride == 2 else channels

    def conv(i: int, y: Value, width: int, kernel_size: int, stride: int, groups: int) -> Value:
        y = net.conv(f"conv{i}", y, width, kernel_size, stride, kernel_size // 2, groups=groups, bias=False, initial=fan_out_normal)
        return net.batch_norm(f"bn{i}", y)

    y = net.relu(conv(1, x, middle, 1, 1, first_groups or groups))
    if groups > 1:
        y = net.call(f"shuffle, {groups} groups", partial(F.channel_shuffle, groups=groups), y)
    y = conv(3, conv(2, y, middle, 3, stride, middle), added, 1, 1, groups)
    return net.relu(net.concat(net.avg_pool(x, 3, 2, 1), y) if stride == 2 else net.add(x, y))


def _stages(net: Builder, x: Value, widths: Sequence[int], counts: Sequence[int], groups: int) -> Value:
    for stage, (channels, count) in enumerate(zip(widths, counts), 2):
        for i in range(count):
            with net.scope(f"stage{stage}.{i}"):
                # The few channels behind the first convolution are not divided.
                x = shuffle_unit(net, x, channels, 2 if i == 0 else 1, groups, 1 if stage == 2 and i == 0 else None)
    return x


# Channels of stage 2 by the number of groups, chosen by the authors for about 140 million multiply-adds: table 1.
_WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}


def shufflenet(num_classes: int = 1000, groups: int = 3) -> Network:
    """ShuffleNet (the first version), width 1.

    Args:
        num_classes: how many logits come out.
        groups: 1, 2, 3, 4 or 8.

    >>> shufflenet()
    <shufflenet: 170 layers, 1,865,728 parameters>
    """
    if groups not in _WIDTHS:
        raise ValueError(f"shufflenet: groups must be one of {', '.join(map(str, _WIDTHS))}, got {groups!r}")
    net = Builder("shufflenet")
    x = net.conv("conv1", net.input(3, None, None), 24, 3, 2, 1, bias=False, initial=fan_out_normal)
    x = net.max_pool(net.relu(net.batch_norm("bn1", x)), 3, 2, 1)
    x = _stages(net, x, [_WIDTHS[groups] << stage for stage in range(3)], (4, 8, 4), groups)
    x = net.flatten(net.adaptive_avg_pool(x, 1))
    return net.build(net.linear("fc", x, num_classes))


def shufflenet_small(num_classes: int = 10, groups: int = 3, *, channels: int = 1) -> Network:
    """ShuffleNet for pictures of 28x28 and 32x32: a quarter of the width, nothing halved before the first unit, fewer units.

    Args:
        num_classes: how many logits come out.
        groups: 1, 3 or 5.
        channels: of the picture.

    >>> shufflenet_small()
    <shufflenet_small: 89 layers, 31,876 parameters>
    """
    if groups not in (1, 3, 5):
        raise ValueError(f"shufflenet_small: groups must be one of 1, 3, 5, got {groups!r}")
    net = Builder("shufflenet_small")
    x = net.conv("conv1", net.input(channels, None, None), 24, 3, 1, 1, bias=False, initial=fan_out_normal)
    x = _stages(net, net.relu(net.batch_norm("bn1", x)), (60, 120, 240), (2, 4, 2), groups)
    x = net.flatten(net.adaptive_avg_pool(x, 1))
    return net.build(net.linear("fc", x, num_classes))
