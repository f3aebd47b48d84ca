"""Xception: residual blocks of depthwise separable convolutions.

A separable convolution looks at each channel on its own (k² C multiply-adds a pixel), and a 1x1 convolution mixes the
channels (C K), instead of k² C K for both at once. Between the two there is no activation. An Inception block taken to its
extreme mixes first, and then looks at each of the K channels (C K + k² K).

Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017), figures 4 and 5; parameters are
named as in timm's ``xception`` (Cadène's port). Pooling is padded evenly, where Keras pads behind the image.
"""

from __future__ import annotations

from fastops.models.layers import fan_out_normal
from fastops.models.network import Builder, Network, Value


def separable(
    net: Builder, x: Value, channels: int, kernel_size: int = 3, stride: int = 1, names: tuple[str, str] = ("conv1", "pointwise"),
    pointwise_first: bool = False,
) -> Value:  # fmt: skip
    """A convolution of each channel on its own, then a 1x1 convolution; ``pointwise_first``: the other way round.

    Args:
        channels: of the result.
        names: of the depthwise and of the 1x1 convolution.
        pointwise_first: the order of the "extreme" Inception block, with a rectifier in between as Inception has.
    """
    depthwise, pointwise = names
    if pointwise_first:
        x = net.relu(net.conv(pointwise, x, channels, 1, bias=False, initial=fan_out_normal))
    x = net.conv(depthwise, x, x.channels, kernel_size, stride, kernel_size // 2, groups=x.channels, bias=False)
    return x if pointwise_first else net.conv(pointwise, x, channels, 1, bias=False, initial=fan_out_normal)


def xception_block(
    net: Builder, x: Value, channels: int, count: int, stride: int, relu_first: bool = True, grow_first: bool = True, pointwise_first: bool = False
) -> Value:
    """``count`` separable convolutions, each behind a rectifier, then a pooling where ``stride`` is not 1; a 1x1 convolution beside.

    Args:
        relu_first: whether a rectifier comes before the first one too.
        grow_first: whether the first changes the number of channels, and not the last.
    """
    shortcut = x
    if stride != 1 or x.channels != channels:
        shortcut = net.conv("skip", x, channels, 1, stride, bias=False, initial=fan_out_normal)
        shortcut = net.batch_norm("skipbn", shortcut)
    y, place = x, 0
    with net.scope("rep"):
        for i in range(count):
            if i or relu_first:
                y = net.relu(y)
                place += 1
            width = channels if grow_first or i == count - 1 else y.channels
            names = (f"{place}.conv1", f"{place}.pointwise")
            y = net.batch_norm(str(place + 1), separable(net, y, width, names=names, pointwise_first=pointwise_first))
            place += 2
        if stride != 1:
            y = net.max_pool(y, 3, stride, 1)
    return net.add(y, shortcut)


def xception(num_classes: int = 1000, dropout: float = 0.5, *, pointwise_first: bool = False) -> Network:
    """Xception for images of 71x71 and more, usually 299x299.

    Args:
        num_classes: how many logits come out.
        dropout: before the last layer.
        pointwise_first: mix the channels before looking at each, as Inception would.

    >>> xception()
    <xception: 169 layers, 22,855,952 parameters>
    """
    net = Builder("xception")
    x = net.input(3, None, None)
    for i, (channels, stride) in enumerate(((32, 2), (64, 1)), 1):
        x = net.conv(f"conv{i}", x, channels, 3, stride, bias=False, initial=fan_out_normal)
        x = net.relu(net.batch_norm(f"bn{i}", x))
    # Channels, separable convolutions, stride.
    blocks = [(128, 2, 2), (256, 2, 2), (728, 2, 2), *[(728, 3, 1)] * 8, (1024, 2, 2)]
    for i, (channels, count, stride) in enumerate(blocks, 1):
        with net.scope(f"block{i}"):
            x = xception_block(net, x, channels, count, stride, relu_first=i > 1, grow_first=i < 12, pointwise_first=pointwise_first)
    for i, channels in ((3, 1536), (4, 2048)):
        x = separable(net, x, channels, names=(f"conv{i}.conv1", f"conv{i}.pointwise"), pointwise_first=pointwise_first)
        x = net.relu(net.batch_norm(f"bn{i}", x))
    x = net.dropout(net.flatten(net.adaptive_avg_pool(x, 1)), dropout)
    return net.build(net.linear("fc", x, num_classes))


def xception_small(num_classes: int = 10, *, channels: int = 1, pointwise_first: bool = False) -> Network:
    """The same blocks for pictures of 28x28 and 32x32: two that halve them, one that does not, 128 channels.

    >>> xception_small()
    <xception_small: 39 layers, 81,930 parameters>
    """
    net = Builder("xception_small")
    x = net.conv("conv1", net.input(channels, None, None), 32, 3, 1, 1, bias=False, initial=fan_out_normal)
    x = net.relu(net.batch_norm("bn1", x))
    for i, (width, stride) in enumerate(((64, 2), (128, 2), (128, 1)), 1):
        with net.scope(f"block{i}"):
            x = xception_block(net, x, width, 2, stride, relu_first=i > 1, pointwise_first=pointwise_first)
    x = net.flatten(net.adaptive_avg_pool(net.relu(x), 1))
    return net.build(net.linear("fc", x, num_classes))
