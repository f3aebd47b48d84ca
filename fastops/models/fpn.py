"""Feature pyramid: what a residual network sees at every scale, with what it understands at the coarser ones added.

Source: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection" (2017), figure 3 and
equation 1. Parameters are named as in torchvision's ``resnet_fpn_backbone``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastops.functional as F
from fastops import _check
from fastops.models.layers import Initial, uniform
from fastops.models.network import Builder, Network, Value
from fastops.models.resnet import basic_block, bottleneck_block, stages, stem

_BODIES = {"resnet18": (basic_block, (2, 2, 2, 2)), "resnet34": (basic_block, (3, 4, 6, 3)), "resnet50": (bottleneck_block, (3, 4, 6, 3))}


def pyramid(net: Builder, found: Sequence[Value], channels: int) -> list[Value]:
    """From features of falling extent, each half of the one before, those of the pyramid.

    A 1x1 convolution gives all the same number of channels, the coarser level is added, and a 3x3 convolution ends it.
    """

    def conv(name: str, x: Value, kernel_size: int) -> Value:
        # He, Zhang, Ren, Sun (2015), equation 10, with a gain of 1.
        initial: Initial = uniform(math.sqrt(3 / (x.channels * kernel_size**2)))
        return net.conv(name, x, channels, kernel_size, padding=kernel_size // 2, initial=initial)

    top: Value | None = None
    levels = []
    for i, x in reversed(list(enumerate(found))):
        lateral = conv(f"inner_blocks.{i}.0", x, 1)
        top = lateral if top is None else net.add(lateral, net.upsample(top, 2))
        levels.append(conv(f"layer_blocks.{i}.0", top, 3))
    return levels[::-1]


def fpn(body: str = "resnet50", channels: int = 256) -> Network:
    """A feature pyramid over a residual network: a tuple of five features, with strides 4, 8, 16, 32 and 64.

    Extents of the image must be multiples of 32. The last level is every second pixel of the one before.

    Args:
        body: "resnet18", "resnet34" or "resnet50".
        channels: of every level.

    >>> fpn()
    <fpn: 187 layers, 26,852,416 parameters>
    """
    if body not in _BODIES:
        raise ValueError(f"fpn: body must be one of {', '.join(map(repr, _BODIES))}, got {body!r}")
    net = Builder("fpn")
    x = net.input(3, None, None)
    with net.scope("body"):
        found = stages(net, stem(net, x), *_BODIES[body])
    with net.scope("fpn"):
        levels = pyramid(net, found, channels)
        levels.append(net.max_pool(levels[-1], 1, 2))
    return net.build(*levels)


def level_of(boxes: Any, lowest: int = 2, highest: int = 5, *, canonical_level: int = 4, canonical_size: float = 224) -> Any:
    """The level of the pyramid for each box: floor(k0 + log2(sqrt(w h) / 224)), and no level that is not there.

    Args:
        boxes: (K, 4), x1, y1, x2, y2 in pixels of the image.
        lowest, highest: levels that there are; level k has stride 2**k.
        canonical_level, canonical_size: k0, and the extent of a box that belongs there.

    Returns:
        (K,) integers.

    >>> level_of(np.array([[0, 0, 224, 224], [0, 0, 112, 112], [0, 0, 30, 30], [0, 0, 112, 448]], float))
    array([4, 3, 2, 4])
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        what = f"shape {boxes.shape}" if boxes.ndim != 2 or boxes.shape[1] != 4 else "NaN or infinity"
        raise ValueError(f"level_of: boxes must have shape (K, 4) and be finite, got {what}")
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    # As torchvision has it: a millionth, so that rounding does not put 224 pixels a level too low.
    with np.errstate(divide="ignore", over="ignore"):
        size = np.sqrt(np.maximum(width * height, 0))
        level = np.floor(canonical_level + np.log2(size / canonical_size) + 1e-6)
    return np.clip(level, lowest, highest).astype(np.int64)


def roi_align_levels(features: Sequence[Any], boxes: Any, output_size: int | tuple[int, int], sampling_ratio: int = 2, *, lowest: int = 2) -> Any:
    """Each box's features, from the level of the pyramid that fits its extent.

    Args:
        features: (N, C, H, W) of level ``lowest``, of the next with half the extent, and so on; those that :func:`fpn`
            gives without the last.
        boxes: (K, 5), the number of the image, then x1, y1, x2, y2 in pixels of the image; of the dtype of the features.
        output_size: bins P, Q, an integer or two.
        sampling_ratio: as for ``roi_align``.
        lowest: the first level, whose stride is 2**lowest.

    Returns:
        (K, C, P, Q), in the order of the boxes. Differentiable by the features.
    """
    _check.integer("roi_align_levels", "lowest", lowest, 0)
    if not len(features):
        raise ValueError("roi_align_levels: features must be those of at least one level, got none")
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(f"roi_align_levels: boxes must have shape (K, 5), got {boxes.shape}")
    if not np.isfinite(boxes).all():
        raise ValueError("roi_align_levels: boxes must be finite, got NaN or infinity")
    level = level_of(boxes[:, 1:], lowest, lowest + len(features) - 1) - lowest
    parts = [
        F.roi_align(feature, boxes[level == i], output_size, 0.5 ** (lowest + i), sampling_ratio)
        for i, feature in enumerate(features)
        if (level == i).any() or (i == 0 and not len(boxes))
    ]
    place = np.argsort(np.argsort(level, kind="stable"))  # of each box among those sorted by level
    return np.concatenate(parts)[place]
