"""Two ways to a larger image, and how to tell them apart.

A transposed convolution spreads a kernel of size k at every s-th place. Where k is no multiple of s, neighbouring outputs
are made of different numbers of products: the overlap is uneven, and a checkerboard shows. Resizing first and convolving
then treats every output alike.

Source: Odena, Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", Distill (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastops.models.network import Builder, Value


def transposed_conv(net: Builder, name: str, x: Value, channels: int, kernel_size: int = 2, scale: int = 2) -> Value:
    """``scale`` times the extents by a transposed convolution; the overlap is even where ``scale`` divides ``kernel_size``."""
    if kernel_size < scale or (kernel_size - scale) % 2:
        raise ValueError(f"{name}: kernel_size must be scale ({scale}) or larger by an even number, got {kernel_size}")
    return net.conv_transpose(name, x, channels, kernel_size, scale, (kernel_size - scale) // 2)


def upsample_conv(net: Builder, name: str, x: Value, channels: int, kernel_size: int = 3, scale: int = 2, mode: str = "nearest") -> Value:
    """``scale`` times the extents by resizing ("nearest" or "bilinear"), and a convolution behind it."""
    return net.conv(name, net.upsample(x, scale, mode), channels, kernel_size, padding=kernel_size // 2)


def overlap(kernel_size: int, stride: int) -> Any:
    """How many kernels reach each of ``stride`` neighbouring outputs of a transposed convolution along an axis.

    >>> overlap(3, 2), overlap(4, 2)
    (array([2, 1]), array([2, 2]))
    """
    return np.bincount(np.arange(kernel_size) % stride, minlength=stride)


def checkerboard(upsample: Callable[[Any], Any], channels: int, scale: int, size: int = 16) -> float:
    """How much of a checkerboard a function adds to an image that has none.

    A constant image should stay one. The result is divided into the ``scale`` x ``scale`` places that repeat, and the
    standard deviation between the places is given in units of the result's root mean square: 0 without artifacts.

    Args:
        upsample: from (1, C, H, W) to (1, K, scale H, scale W).
        channels: C.
        scale: how many times larger.
        size: extent of the image; what the edge sees is left out.

    >>> import fastops.functional as F
    >>> weight = np.ones((1, 1, 3, 3))
    >>> round(checkerboard(lambda x: F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1), 1, 2), 3)
    0.436
    >>> checkerboard(lambda x: F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1), 1, 2)
    0.0
    """
    y = np.asarray(upsample(np.ones((1, channels, size, size))))
    wanted = (scale * size,) * 2
    if y.ndim != 4 or y.shape[2:] != wanted:
        raise ValueError(f"checkerboard: upsample must return images of {wanted[0]}x{wanted[1]}, got shape {y.shape}")
    edge = size // 4
    inner = y.reshape(-1, size, scale, size, scale)[:, edge:-edge, :, edge:-edge]
    places = inner.mean(axis=(1, 3)).reshape(len(inner), -1)
    rms = float(np.sqrt((inner**2).mean()))
    return float(np.sqrt(places.var(axis=1).mean())) / rms if rms else 0.0
