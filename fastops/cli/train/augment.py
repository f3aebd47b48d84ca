"""Small random changes that leave a picture in its class: moved, turned, mirrored."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

import fastops.functional as F

Array = np.ndarray[Any, Any]

KINDS = ("shift", "rotate", "flip")

_SHIFT = 1 / 12  # of the width, in either direction
_ANGLE = np.pi / 15


def augmented(images: Array, kinds: Collection[str], rng: np.random.Generator) -> Array:
    """A batch (N, C, H, W), each picture changed in its own way; what comes in from outside repeats the border."""
    if not kinds:
        return images
    count = len(images)
    angle = rng.uniform(-_ANGLE, _ANGLE, count) if "rotate" in kinds else np.zeros(count)
    mirror = rng.choice((-1.0, 1.0), count) if "flip" in kinds else np.ones(count)
    shift = rng.uniform(-2 * _SHIFT, 2 * _SHIFT, (count, 2)) if "shift" in kinds else np.zeros((count, 2))
    # From places in the new picture, both axes of which run from -1 to 1, to places in the old one.
    theta = np.empty((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * np.cos(angle), -np.sin(angle)
    theta[:, 1, 0], theta[:, 1, 1] = mirror * np.sin(angle), np.cos(angle)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
