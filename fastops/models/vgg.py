"""VGG-16. Source: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), table 1, column D."""

from __future__ import annotations

from fastops.models.layers import fan_out_normal, normal
from fastops.models.network import Builder, Network

_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(num_classes: int = 1000, dropout: float = 0.5) -> Network:
    """VGG-16: thirteen 3x3 convolutions, a 2x2 max pool behind each group of them, three dense layers.

    Takes images of 32x32 and more, usually 224x224. Parameters are named as torchvision's, whose weights are for 1000
    classes; ``vgg16(num_classes=10)`` is the same network for ten.

    >>> vgg16(num_classes=10)
    <vgg16: 40 layers, 134,301,514 parameters>
    """
    net = Builder("vgg16")
    x = net.input(3, None, None)
    place = 0  # of the layer among all of its group, as in torchvision's names
    with net.scope("features"):
        for group in _GROUPS:
            for channels in group:
                x = net.relu(net.conv(str(place), x, channels, 3, padding=1, initial=fan_out_normal))
                place += 2
            x = net.max_pool(x, 2)
            place += 1
    x = net.flatten(net.adaptive_avg_pool(x, 7))
    with net.scope("classifier"):
        x = net.dropout(net.relu(net.linear("0", x, 4096, initial=normal(0.01))), dropout)
        x = net.dropout(net.relu(net.linear("3", x, 4096, initial=normal(0.01))), dropout)
        x = net.linear("6", x, num_classes, initial=normal(0.01))
    return net.build(x)
