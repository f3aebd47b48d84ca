"""Convolutions of n x n as one of 1 x n and one of n x 1 behind it: 2 n instead of n² products for each pair of channels.

Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision" (2016), section
3.2 and figure 6. The block is named as torchvision's ``InceptionC``.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastops.models.layers import normal
from fastops.models.network import Builder, Network, Value


def conv_norm(net: Builder, name: str, x: Value, channels: int, kernel_size: tuple[int, int] = (1, 1)) -> Value:
    """A convolution that keeps the extents, batch normalisation and a rectifier."""
    with net.scope(name):
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        x = net.conv("conv", x, channels, kernel_size, 1, padding, bias=False, initial=normal(0.1))
        return net.relu(net.batch_norm("bn", x, eps=0.001))


def factorized_conv(net: Builder, names: Sequence[str], x: Value, width: int, channels: int, n: int, rows_first: bool = True) -> Value:
    """1 x n and n x 1 in turns, one for each name: ``width`` channels behind each, ``channels`` behind the last.

    Args:
        n: odd.
        rows_first: begin with 1 x n, which looks along rows.
    """
    for i, name in enumerate(names):
        along_rows = rows_first == (i % 2 == 0)
        x = conv_norm(net, name, x, channels if i == len(names) - 1 else width, (1, n) if along_rows else (n, 1))
    return x


def factorized_block(net: Builder, x: Value, width: int, n: int = 7, channels: int = 192) -> Value:
    """Four branches, concatenated: 1x1; 1x1 and one factorized n x n; 1x1 and two of them; 3x3 mean and 1x1.

    Args:
        width: channels within the branches.
        n: extent of the factorized convolutions, odd.
        channels: of each branch's result.
    """
    one = conv_norm(net, "branch1x1", x, channels)
    single = conv_norm(net, "branch7x7_1", x, width)
    single = factorized_conv(net, ("branch7x7_2", "branch7x7_3"), single, width, channels, n)
    double = conv_norm(net, "branch7x7dbl_1", x, width)
    double = factorized_conv(net, [f"branch7x7dbl_{i}" for i in (2, 3, 4, 5)], double, width, channels, n, rows_first=False)
    pooled = conv_norm(net, "branch_pool", net.avg_pool(x, 3, 1, 1), channels)
    return net.concat(one, single, double, pooled)


def factorized_small(num_classes: int = 10, n: int = 7, *, channels: int = 1) -> Network:
    """Two such blocks of 96 channels for pictures of 28x28 and 32x32, behind two convolutions and two poolings.

    Args:
        num_classes: how many logits come out.
        n: extent of the factorized convolutions, odd.
        channels: of the picture.

    >>> factorized_small()
    <factorized_small: 75 layers, 117,802 parameters>
    """
    if n < 1 or n % 2 == 0:
        raise ValueError(f"factorized_small: n must be odd and positive, got {n!r}")
    net = Builder("factorized_small")
    x = net.input(channels, None, None)
    x = net.max_pool(conv_norm(net, "conv1", x, 32, (3, 3)), 2)
    x = net.max_pool(conv_norm(net, "conv2", x, 64, (3, 3)), 2)
    for i in (1, 2):
        with net.scope(f"block{i}"):
            x = factorized_block(net, x, 32, n, 24)
    x = net.flatten(net.adaptive_avg_pool(x, 1))
    return net.build(net.linear("fc", x, num_classes))
