"""Interpolation in every mode, sampling at a grid, and rearranged pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Case, benchmarks

HALF, WHOLE = (8, 64, 28, 28), (8, 64, 56, 56)
PHOTO = (1, 3, 512, 512)


def interpolated(shape: tuple[int, ...], **options: Any) -> Case:
    return Case("interpolate", {"input": shape}, options, tiny={"input": (1, 2, *(5 for _ in shape[2:]))})


def sampled(shape: tuple[int, ...], grid: tuple[int, ...], **options: Any) -> Case:
    """A rotated and stretched grid, which leaves the image here and there."""
    return Case(
        "grid_sample", {"input": shape, "grid": lambda rng: rotated(grid)}, {"align_corners": False, **options},
        tiny={"input": (1, 2, *(5 for _ in shape[2:])), "grid": lambda rng: rotated((1, *(4 for _ in shape[2:]), grid[-1]))},
    )  # fmt: skip


def rotated(shape: tuple[int, ...]) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in shape[1:-1]), indexing="ij")
    grid = np.stack(axes[::-1], -1)
    grid[..., 0], grid[..., 1] = 0.9 * grid[..., 0] - 0.4 * grid[..., 1], 0.4 * grid[..., 0] + 0.9 * grid[..., 1]
    return np.broadcast_to(grid, shape).copy()


CASES = {
    "nearest.8x64x28x28": interpolated(HALF, scale_factor=2.0),
    "nearest-exact.8x64x28x28.size50": interpolated(HALF, size=50, mode="nearest-exact"),
    "bilinear.8x64x28x28": interpolated(HALF, scale_factor=2.0, mode="bilinear"),
    "bilinear.8x64x28x28.corners": interpolated(HALF, size=56, mode="bilinear", align_corners=True),
    "bilinear.8x64x56x56.down": interpolated(WHOLE, size=28, mode="bilinear"),
    "bicubic.8x64x28x28": interpolated(HALF, scale_factor=2.0, mode="bicubic"),
    "area.8x64x56x56.down": interpolated(WHOLE, size=28, mode="area"),
    "linear.8x64x1024": interpolated((8, 64, 1024), scale_factor=2.0, mode="linear"),
    "trilinear.2x16x14x28x28": interpolated((2, 16, 14, 28, 28), scale_factor=2.0, mode="trilinear"),
    "bilinear.1x3x512x512.to224": interpolated(PHOTO, size=224, mode="bilinear"),
    "bilinear.1x3x512x512.to224.antialias": interpolated(PHOTO, size=224, mode="bilinear", antialias=True),
    "bicubic.1x3x512x512.to224.antialias": interpolated(PHOTO, size=224, mode="bicubic", antialias=True),
    "bicubic.1x3x224x224.to512.antialias": interpolated((1, 3, 224, 224), size=512, mode="bicubic", antialias=True),
    "bilinear.1x8x14x14": interpolated((1, 8, 14, 14), scale_factor=2.0, mode="bilinear"),
    "upsample.8x64x28x28": Case("upsample", {"input": HALF}, {"scale_factor": 2.0, "mode": "bilinear"}),
    **{f"grid_sample.{mode}.8x16x56x56": sampled((8, 16, 56, 56), (8, 56, 56, 2), mode=mode) for mode in ("bilinear", "nearest", "bicubic")},
    "grid_sample.border.4x64x28x28": sampled((4, 64, 28, 28), (4, 28, 28, 2), padding_mode="border"),
    "grid_sample.reflection.1x3x224x224": sampled((1, 3, 224, 224), (1, 224, 224, 2), padding_mode="reflection"),
    "grid_sample.few.4x64x56x56": sampled((4, 64, 56, 56), (4, 10, 10, 2)),
    "grid_sample.2x16x14x28x28": sampled((2, 16, 14, 28, 28), (2, 14, 28, 28, 3)),
    "affine_grid.8x56x56": Case("affine_grid", {"theta": (8, 2, 3)}, {"size": (8, 64, 56, 56), "align_corners": False}),
    "affine_grid.2x14x28x28": Case("affine_grid", {"theta": (2, 3, 4)}, {"size": (2, 16, 14, 28, 28), "align_corners": False}),
    "pixel_shuffle.8x64x56x56": Case("pixel_shuffle", {"input": WHOLE}, {"upscale_factor": 2}),
    "pixel_shuffle.8x36x56x56.by3": Case("pixel_shuffle", {"input": (8, 36, 56, 56)}, {"upscale_factor": 3}, {"input": (1, 9, 4, 4)}),
    "pixel_unshuffle.8x64x56x56": Case("pixel_unshuffle", {"input": WHOLE}, {"downscale_factor": 2}),
    "channel_shuffle.8x64x56x56": Case("channel_shuffle", {"input": WHOLE}, {"groups": 4}),
}
Forward, Backward = benchmarks(CASES)
