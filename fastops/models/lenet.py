"""LeNet-5. Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section II."""

from __future__ import annotations

from functools import partial

import fastops.functional as F
from fastops.models.network import Builder, Network


def lenet5(num_classes: int = 10, *, logits: bool = False) -> Network:
    """LeNet-5 for grey 32x32 images: three 5x5 convolutions, means over 2x2 between them, tanh everywhere, two dense layers.

    Args:
        num_classes: how many probabilities come out.
        logits: leave out the softmax; what ``cross_entropy`` takes.

    >>> lenet5()
    <lenet5: 15 layers, 61,706 parameters>
    """
    net = Builder("lenet5")
    x = net.input(1, 32, 32)
    x = net.activation("tanh", net.conv("conv1", x, 6, 5))
    x = net.activation("tanh", net.avg_pool(x, 2))
    x = net.activation("tanh", net.conv("conv2", x, 16, 5))
    x = net.activation("tanh", net.avg_pool(x, 2))
    x = net.activation("tanh", net.conv("conv3", x, 120, 5))
    x = net.flatten(x)
    x = net.activation("tanh", net.linear("fc1", x, 84))
    x = net.linear("fc2", x, num_classes)
    return net.build(x if logits else net.call("softmax", partial(F.softmax, dim=1), x))
