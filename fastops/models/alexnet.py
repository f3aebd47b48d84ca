"""AlexNet. Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), the variant on one column
that torchvision has; the idea: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012).
"""

from __future__ import annotations

from fastops.models.network import Builder, Network


def alexnet(num_classes: int = 1000, dropout: float = 0.5) -> Network:
    """AlexNet for images of 63x63 and more; usually 224x224. Parameters are named as torchvision's.

    >>> alexnet()
    <alexnet: 22 layers, 61,100,840 parameters>
    """
    net = Builder("alexnet")
    x = net.input(3, None, None)
    with net.scope("features"):
        x = net.relu(net.conv("0", x, 64, 11, stride=4, padding=2))
        x = net.max_pool(x, 3, 2)
        x = net.relu(net.conv("3", x, 192, 5, padding=2))
        x = net.max_pool(x, 3, 2)
        x = net.relu(net.conv("6", x, 384, 3, padding=1))
        x = net.relu(net.conv("8", x, 256, 3, padding=1))
        x = net.relu(net.conv("10", x, 256, 3, padding=1))
        x = net.max_pool(x, 3, 2)
    x = net.flatten(net.adaptive_avg_pool(x, 6))
    with net.scope("classifier"):
        x = net.relu(net.linear("1", net.dropout(x, dropout), 4096))
        x = net.relu(net.linear("4", net.dropout(x, dropout), 4096))
        x = net.linear("6", x, num_classes)
    return net.build(x)


def alexnet_small(num_classes: int = 10, dropout: float = 0.5, *, channels: int = 3) -> Network:
    """AlexNet for 32x32 images: 3x3 convolutions with stride 1, and 2048 features.

    >>> alexnet_small()
    <alexnet_small: 21 layers, 14,859,082 parameters>
    """
    net = Builder("alexnet_small")
    x = net.input(channels, 32, 32)
    with net.scope("features"):
        x = net.relu(net.conv("0", x, 64, 3, padding=2))
        x = net.max_pool(x, 2)
        x = net.relu(net.conv("3", x, 192, 3, padding=2))
        x = net.max_pool(x, 2)
        x = net.relu(net.conv("6", x, 384, 3, padding=1))
        x = net.relu(net.conv("8", x, 256, 3, padding=1))
        x = net.relu(net.conv("10", x, 256, 3, padding=1))
        x = net.max_pool(x, 3, 2)
    x = net.flatten(x)
    with net.scope("classifier"):
        x = net.relu(net.linear("1", net.dropout(x, dropout), 2048))
        x = net.relu(net.linear("4", net.dropout(x, dropout), 2048))
        x = net.linear("6", x, num_classes)
    return net.build(x)
