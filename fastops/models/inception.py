"""GoogLeNet and its block: windows of several sizes side by side.

Source: Szegedy et al., "Going Deeper with Convolutions" (2015), figure 2 b, table 1; with batch normalisation behind each
convolution. As in torchvision, whose weights they are to fit, the windows that the paper has as 5x5 are 3x3.
"""

from __future__ import annotations

from fastops.models.layers import normal
from fastops.models.network import Builder, Network, Value


def _conv(net: Builder, name: str, x: Value, channels: int, kernel_size: int, stride: int = 1) -> Value:
    with net.scope(name):
        x = net.conv("conv", x, channels, kernel_size, stride, kernel_size // 2, bias=False, initial=normal(0.01))
        return net.relu(net.batch_norm("bn", x, eps=0.001))


def inception_block(net: Builder, x: Value, one: int, to_three: int, three: int, to_five: int, five: int, pooled: int) -> Value:
    """Four branches, concatenated: 1x1; 1x1 and 3x3; 1x1 and the "5x5", which is 3x3; 3x3 max pool and 1x1.

    The numbers are the channels behind each convolution. Parameters are named as in torchvision's ``Inception``.
    """
    branch1 = _conv(net, "branch1", x, one, 1)
    with net.scope("branch2"):
        branch2 = _conv(net, "1", _conv(net, "0", x, to_three, 1), three, 3)
    with net.scope("branch3"):
        branch3 = _conv(net, "1", _conv(net, "0", x, to_five, 1), five, 3)
    with net.scope("branch4"):
        branch4 = _conv(net, "1", net.max_pool(x, 3, 1, 1, ceil_mode=True), pooled, 1)
    return net.concat(branch1, branch2, branch3, branch4)


# The stages between poolings, by name and channels.
_STAGES: tuple[tuple[tuple[str, tuple[int, int, int, int, int, int]], ...], ...] = (
    (("3a", (64, 96, 128, 16, 32, 32)), ("3b", (128, 128, 192, 32, 96, 64))),
    (
        ("4a", (192, 96, 208, 16, 48, 64)),
        ("4b", (160, 112, 224, 24, 64, 64)),
        ("4c", (128, 128, 256, 24, 64, 64)),
        ("4d", (112, 144, 288, 32, 64, 64)),
        ("4e", (256, 160, 320, 32, 128, 128)),
    ),
    (("5a", (256, 160, 320, 32, 128, 128)), ("5b", (384, 192, 384, 48, 128, 128))),
)


def googlenet(num_classes: int = 1000, dropout: float = 0.2) -> Network:
    """GoogLeNet without the auxiliary classifiers; files that have those are loaded with ``strict=False``.

    >>> googlenet()
    <googlenet: 197 layers, 6,624,904 parameters>
    """
    net = Builder("googlenet")
    x = _conv(net, "conv1", net.input(3, None, None), 64, 7, 2)
    x = net.max_pool(x, 3, 2, ceil_mode=True)
    x = _conv(net, "conv3", _conv(net, "conv2", x, 64, 1), 192, 3)
    for stage, blocks in enumerate(_STAGES):
        x = net.max_pool(x, 2 if stage == 2 else 3, 2, ceil_mode=True)
        for name, channels in blocks:
            with net.scope(f"inception{name}"):
                x = inception_block(net, x, *channels)
    x = net.dropout(net.flatten(net.adaptive_avg_pool(x, 1)), dropout)
    return net.build(net.linear("fc", x, num_classes, initial=normal(0.01)))
