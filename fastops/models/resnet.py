"""Residual networks: a block adds to its input what its convolutions make of it.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2016), figures 3 and 5, table 1; blocks of
version 2: the same, "Identity Mappings in Deep Residual Networks" (2016), figure 4 e. Names, and stride in the 3x3
convolution of a bottleneck, are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastops.models.layers import fan_out_normal
from fastops.models.network import Builder, Network, Value

Block = Callable[[Builder, Value, int, int], Value]


def _conv(net: Builder, name: str, x: Value, channels: int, kernel_size: int, stride: int = 1) -> Value:
    return net.conv(name, x, channels, kernel_size, stride, padding=kernel_size // 2, bias=False, initial=fan_out_normal)


def _shortcut(net: Builder, x: Value, channels: int, stride: int) -> Value:
    """The input itself, or a 1x1 convolution where the shape changes."""
    if stride == 1 and x.channels == channels:
        return x
    with net.scope("downsample"):
        return net.batch_norm("1", _conv(net, "0", x, channels, 1, stride))


def basic_block(net: Builder, x: Value, width: int, stride: int) -> Value:
    """Two 3x3 convolutions."""
    y = net.relu(net.batch_norm("bn1", _conv(net, "conv1", x, width, 3, stride)))
    y = net.batch_norm("bn2", _conv(net, "conv2", y, width, 3))
    return net.relu(net.add(y, _shortcut(net, x, width, stride)))


def bottleneck_block(net: Builder, x: Value, width: int, stride: int) -> Value:
    """A 3x3 convolution between 1x1 ones, which thin the channels out and make them four times as many."""
    y = net.relu(net.batch_norm("bn1", _conv(net, "conv1", x, width, 1)))
    y = net.relu(net.batch_norm("bn2", _conv(net, "conv2", y, width, 3, stride)))
    y = net.batch_norm("bn3", _conv(net, "conv3", y, 4 * width, 1))
    return net.relu(net.add(y, _shortcut(net, x, 4 * width, stride)))


def preactivation_block(net: Builder, x: Value, width: int, stride: int) -> Value:
    """Normalisation and relu come before each convolution, and nothing behind the sum."""
    pre = net.relu(net.batch_norm("bn1", x))
    y = _conv(net, "conv1", pre, width, 3, stride)
    y = _conv(net, "conv2", net.relu(net.batch_norm("bn2", y)), width, 3)
    if stride != 1 or x.channels != width:
        with net.scope("downsample"):
            x = _conv(net, "0", pre, width, 1, stride)
    return net.add(y, x)


def preactivation_bottleneck_block(net: Builder, x: Value, width: int, stride: int) -> Value:
    """The bottleneck block with normalisation and relu before each convolution."""
    pre = net.relu(net.batch_norm("bn1", x))
    y = _conv(net, "conv1", pre, width, 1)
    y = _conv(net, "conv2", net.relu(net.batch_norm("bn2", y)), width, 3, stride)
    y = _conv(net, "conv3", net.relu(net.batch_norm("bn3", y)), 4 * width, 1)
    if stride != 1 or x.channels != 4 * width:
        with net.scope("downsample"):
            x = _conv(net, "0", pre, 4 * width, 1, stride)
    return net.add(y, x)


def stages(net: Builder, x: Value, block: Block, counts: Sequence[int]) -> list[Value]:
    """Four stages, each but the first of half the extent and twice the width; what comes out of each."""
    found = []
    for stage, count in enumerate(counts):
        with net.scope(f"layer{stage + 1}"):
            for i in range(count):
                with net.scope(str(i)):
                    x = block(net, x, 64 << stage, 2 if stage and i == 0 else 1)
        found.append(x)
    return found


def stem(net: Builder, x: Value) -> Value:
    """A quarter of the extent in one convolution and one pooling."""
    x = net.relu(net.batch_norm("bn1", _conv(net, "conv1", x, 64, 7, 2)))
    return net.max_pool(x, 3, 2, 1)


def _resnet(name: str, block: Block, counts: Sequence[int], num_classes: int) -> Network:
    net = Builder(name)
    x = stem(net, net.input(3, None, None))
    x = stages(net, x, block, counts)[-1]
    x = net.flatten(net.adaptive_avg_pool(x, 1))
    return net.build(net.linear("fc", x, num_classes))


def resnet18(num_classes: int = 1000) -> Network:
    """ResNet-18: eight basic blocks. Parameters are named as torchvision's.

    >>> resnet18()
    <resnet18: 69 layers, 11,689,512 parameters>
    """
    return _resnet("resnet18", basic_block, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 1000) -> Network:
    """ResNet-34: sixteen basic blocks.

    >>> resnet34()
    <resnet34: 125 layers, 21,797,672 parameters>
    """
    return _resnet("resnet34", basic_block, (3, 4, 6, 3), num_classes)


def resnet50(num_classes: int = 1000) -> Network:
    """ResNet-50: sixteen bottleneck blocks.

    >>> resnet50()
    <resnet50: 175 layers, 25,557,032 parameters>
    """
    return _resnet("resnet50", bottleneck_block, (3, 4, 6, 3), num_classes)


def resnet18_small(num_classes: int = 10, *, version: int = 1, block: str = "basic", channels: int = 3) -> Network:
    """ResNet-18 for 32x32 images: the first convolution is 3x3 with stride 1, and nothing is pooled before the mean over 4x4.

    Args:
        num_classes: how many logits come out.
        version: 1: normalisation behind each convolution; 2: normalisation and relu before it.
        block: "basic", or "bottleneck" for four times the channels behind each stage.
        channels: of the image.

    >>> resnet18_small()
    <resnet18_small: 68 layers, 11,173,962 parameters>
    """
    if version not in (1, 2):
        raise ValueError(f"resnet18_small: version must be 1 or 2, got {version!r}")
    blocks = {
        "basic": (basic_block, preactivation_block),
        "bottleneck": (bottleneck_block, preactivation_bottleneck_block),
    }
    if block not in blocks:
        raise ValueError(f"resnet18_small: block must be one of {', '.join(map(repr, blocks))}, got {block!r}")
    net = Builder("resnet18_small")
    x = _conv(net, "conv1", net.input(channels, 32, 32), 64, 3)
    if version == 1:
        x = net.relu(net.batch_norm("bn1", x))
    x = stages(net, x, blocks[block][version - 1], (2, 2, 2, 2))[-1]
    if version == 2:
        x = net.relu(net.batch_norm("bn2", x))
    x = net.flatten(net.avg_pool(x, 4))
    return net.build(net.linear("fc", x, num_classes))
