"""U-Net: a path that halves the image again and again, one back up, and what the first saw handed across to the second.

Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), figure 1; with
padding, so that the result is as large as the image, and normalisation where it is asked for.
"""

from __future__ import annotations

from fastops.models.layers import fan_out_normal
from fastops.models.network import Builder, Network, Value
from fastops.models.upsampling import transposed_conv, upsample_conv

UPS = ("transposed", "resize")


def double_conv(net: Builder, x: Value, channels: int, norm: bool) -> Value:
    """Two 3x3 convolutions, each with a rectifier."""
    for i in (1, 2):
        x = net.conv(f"conv{i}", x, channels, 3, padding=1, bias=not norm, initial=fan_out_normal)
        x = net.relu(net.batch_norm(f"bn{i}", x) if norm else x)
    return x


def _unet(name: str, num_classes: int, channels: int, width: int, depth: int, up: str, norm: bool) -> Network:
    if up not in UPS:
        raise ValueError(f"{name}: up must be one of {', '.join(map(repr, UPS))}, got {up!r}")
    net = Builder(name)
    x = net.input(channels, None, None)
    seen = []
    for level in range(depth):
        with net.scope(f"down{level + 1}"):
            x = double_conv(net, x, width << level, norm)
        seen.append(x)
        x = net.max_pool(x, 2)
    with net.scope("bottom"):
        x = double_conv(net, x, width << depth, norm)
    for level in reversed(range(depth)):
        with net.scope(f"up{level + 1}"):
            x = (transposed_conv if up == "transposed" else upsample_conv)(net, "up", x, width << level)
            x = double_conv(net, net.concat(seen[level], x), width << level, norm)
    return net.build(net.conv("out", x, num_classes, 1))


def unet(num_classes: int = 2, *, channels: int = 1, up: str = "transposed", norm: bool = False) -> Network:
    """U-Net of the paper: 64 to 1024 channels, four halvings. Extents must be multiples of 16.

    Args:
        num_classes: channels of the result, logits of each pixel.
        channels: of the image.
        up: "transposed": transposed 2x2 convolutions as in the paper; "resize": nearest pixels, then a 3x3 convolution.
        norm: batch normalisation behind each convolution.

    >>> unet()
    <unet: 49 layers, 31,030,658 parameters>
    """
    return _unet("unet", num_classes, channels, 64, 4, up, norm)


def unet_small(num_classes: int = 2, *, channels: int = 3, up: str = "resize", norm: bool = True) -> Network:
    """U-Net of 16 to 128 channels and three halvings. Extents must be multiples of 8.

    >>> unet_small()
    <unet_small: 55 layers, 536,514 parameters>
    """
    return _unet("unet_small", num_classes, channels, 16, 3, up, norm)
