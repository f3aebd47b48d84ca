"""Where the elements of an image lie, for kernels that read either data format."""

from __future__ import annotations

from typing import NamedTuple

from fastops.ops.conv.spec import ConvSpec


class Side(NamedTuple):
    """One of the two images of a convolution, seen by one group.

    ``dims`` are depth; the strides of an image, a slice, a channel and a pixel; height, width; channels of a group.
    """

    dims: tuple[int, ...]
    group: int

    @property
    def channels(self) -> int:
        return self.dims[7]


def side(spec: ConvSpec, size: tuple[int, int, int], channels: int) -> Side:
    """The side with these extents and channels (of all groups); ``group`` is the offset of the next group."""
    depth, height, width = size
    c = channels // spec.groups
    if spec.channels_last:
        return Side((depth, depth * height * width * channels, height * width * channels, 1, channels, height, width, c), c)
    plane = depth * height * width
    return Side((depth, channels * plane, height * width, plane, 1, height, width, c), c * plane)


def parts(images: int, each: int, most: int) -> list[tuple[int, int]]:
    """The first image of each part of a batch, and how many: as many as ``most`` bytes hold, ``each`` image taking so many, and at least one."""
    at_once = min(images, max(1, most // each))
    return [(first, min(at_once, images - first)) for first in range(0, images, at_once)]


def up(n: int, step: int) -> int:
    """n rounded up to a multiple of step."""
    return -(-n // step) * step
