"""Interpolation in every mode, sampling at a grid, and rearranged pixels."""

from __future__ import annotations

from typing import Any

from asv_bench.benchmarks.common import Case, benchmarks

HALF, WHOLE = (8, 64, 28, 28), (8, 64, 56, 56)
PHOTO = (1, 3, 512, 512)


def interpolated(shape: tuple[int, ...], **options: Any) -> Case:
    return Case("interpolate", {"input": shape}, options, tiny={"input": (1, 2, *(5 for _ in shape[2:]))})


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
    "pixel_shuffle.8x64x56x56": Case("pixel_shuffle", {"input": WHOLE}, {"upscale_factor": 2}),
    "pixel_shuffle.8x36x56x56.by3": Case("pixel_shuffle", {"input": (8, 36, 56, 56)}, {"upscale_factor": 3}, {"input": (1, 9, 4, 4)}),
    "pixel_unshuffle.8x64x56x56": Case("pixel_unshuffle", {"input": WHOLE}, {"downscale_factor": 2}),
    "channel_shuffle.8x64x56x56": Case("channel_shuffle", {"input": WHOLE}, {"groups": 4}),
}
Forward, Backward = benchmarks(CASES)
