"""Pooling on its own shapes, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Case, benchmarks

IMAGE = {"input": (8, 64, 56, 56)}
TINY = {"input": (1, 2, 16, 16)}


def _max(kernel_size: int, stride: int | None = None, padding: int = 0, **more: Any) -> Case:
    return Case("max_pool2d", IMAGE, {"kernel_size": kernel_size, "stride": stride, "padding": padding, **more}, TINY)


def _avg(kernel_size: int, stride: int | None = None, padding: int = 0, **more: Any) -> Case:
    return Case("avg_pool2d", IMAGE, {"kernel_size": kernel_size, "stride": stride, "padding": padding, **more}, TINY)


def _indices(shape: tuple[int, ...], axes: int) -> Any:
    """The places that max pooling of 2 finds in an image twice as large."""

    def make(rng: np.random.Generator) -> np.ndarray:
        place, stride = np.zeros(shape, np.int64), 1
        for axis in range(1, axes + 1):
            size = shape[-axis]
            place += stride * (2 * np.arange(size).reshape(-1, *[1] * (axis - 1)) + rng.integers(0, 2, shape))
            stride *= 2 * size
        return place

    return make


def _samples(planes: tuple[int, int], axes: int) -> Any:
    return lambda rng: rng.random((*planes, axes))


def _fractional(op: str) -> Any:
    """PyTorch's call without a gradient of the random numbers, which it refuses."""

    def call(F: Any, tensors: dict[str, Any], options: dict[str, Any]) -> Any:
        return getattr(F, op)(tensors["input"], _random_samples=tensors["_random_samples"].detach(), **options)

    return call


CASES = {
    "max_pool2d.2x2": _max(2),
    "max_pool2d.3x3_s2_p1": _max(3, 2, 1),
    "max_pool2d.3x3_s1_p1": _max(3, 1, 1),
    "max_pool2d.5x5_s1_p2": _max(5, 1, 2),
    "max_pool2d.3x3_s3": _max(3),
    "max_pool2d.2x2_ceil": _max(2, 2, 1, ceil_mode=True),
    "max_pool2d.stem": Case(
        "max_pool2d", {"input": (2, 64, 112, 112)}, {"kernel_size": 3, "stride": 2, "padding": 1}, TINY,
    ),
    "max_pool2d.small_plane": Case("max_pool2d", {"input": (8, 256, 14, 14)}, {"kernel_size": 2}, TINY),
    "max_pool2d.7x7": Case("max_pool2d", {"input": (32, 128, 7, 7)}, {"kernel_size": 2}, {"input": (2, 16, 7, 7)}),
    "max_pool2d.small_call": Case("max_pool2d", {"input": (1, 6, 28, 28)}, {"kernel_size": 2}),
    "max_pool2d_with_indices.2x2": Case("max_pool2d_with_indices", IMAGE, {"kernel_size": 2}, TINY),
    "max_pool2d_with_indices.3x3_s2": Case(
        "max_pool2d_with_indices", IMAGE, {"kernel_size": 3, "stride": 2, "padding": 1}, TINY,
    ),
    "max_pool1d.audio": Case("max_pool1d", {"input": (8, 64, 4096)}, {"kernel_size": 4}),
    "max_pool1d_with_indices.3_s2": Case("max_pool1d_with_indices", {"input": (8, 64, 4096)}, {"kernel_size": 3, "stride": 2}),
    "max_pool3d.2x2x2": Case("max_pool3d", {"input": (2, 16, 16, 56, 56)}, {"kernel_size": 2}, {"input": (1, 2, 4, 8, 8)}),
    "max_pool3d_with_indices.3x3x3": Case(
        "max_pool3d_with_indices", {"input": (2, 16, 16, 28, 28)}, {"kernel_size": 3, "stride": 2, "padding": 1},
        {"input": (1, 2, 4, 8, 8)},
    ),
    "avg_pool2d.2x2": _avg(2),
    "avg_pool2d.3x3_s2_p1": _avg(3, 2, 1),
    "avg_pool2d.3x3_s1_p1": _avg(3, 1, 1, count_include_pad=False),
    "avg_pool2d.7x7_s7": _avg(7),
    "avg_pool2d.7x7.3x3_s2_p1": Case(
        "avg_pool2d", {"input": (32, 128, 7, 7)}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"input": (2, 16, 7, 7)}
    ),
    "avg_pool2d.small_call": Case("avg_pool2d", {"input": (1, 6, 28, 28)}, {"kernel_size": 2}),
    "avg_pool1d.audio": Case("avg_pool1d", {"input": (8, 64, 4096)}, {"kernel_size": 4}),
    "avg_pool3d.2x2x2": Case("avg_pool3d", {"input": (2, 16, 16, 56, 56)}, {"kernel_size": 2}, {"input": (1, 2, 4, 8, 8)}),
    "adaptive_avg_pool2d.global": Case("adaptive_avg_pool2d", IMAGE, {"output_size": 1}, TINY),
    "adaptive_avg_pool2d.head": Case("adaptive_avg_pool2d", {"input": (8, 512, 7, 7)}, {"output_size": 1}, TINY),
    "adaptive_avg_pool2d.7": Case("adaptive_avg_pool2d", IMAGE, {"output_size": 7}, TINY),
    "adaptive_avg_pool2d.uneven": Case("adaptive_avg_pool2d", IMAGE, {"output_size": 9}, TINY),
    "adaptive_avg_pool1d.uneven": Case("adaptive_avg_pool1d", {"input": (8, 64, 4096)}, {"output_size": 100}),
    "adaptive_avg_pool3d.uneven": Case(
        "adaptive_avg_pool3d", {"input": (2, 16, 16, 28, 28)}, {"output_size": (4, 6, 6)}, {"input": (1, 2, 4, 8, 8)},
    ),
    "adaptive_max_pool2d.global": Case("adaptive_max_pool2d", IMAGE, {"output_size": 1}, TINY),
    "adaptive_max_pool2d.uneven": Case("adaptive_max_pool2d", IMAGE, {"output_size": 9}, TINY),
    "adaptive_max_pool2d_with_indices.7": Case("adaptive_max_pool2d_with_indices", IMAGE, {"output_size": 7}, TINY),
    "adaptive_max_pool1d.uneven": Case("adaptive_max_pool1d", {"input": (8, 64, 4096)}, {"output_size": 100}),
    "adaptive_max_pool1d_with_indices.uneven": Case(
        "adaptive_max_pool1d_with_indices", {"input": (8, 64, 4096)}, {"output_size": 100},
    ),
    "adaptive_max_pool3d.uneven": Case(
        "adaptive_max_pool3d", {"input": (2, 16, 16, 28, 28)}, {"output_size": (4, 6, 6)}, {"input": (1, 2, 4, 8, 8)},
    ),
    "adaptive_max_pool3d_with_indices.uneven": Case(
        "adaptive_max_pool3d_with_indices", {"input": (2, 16, 16, 28, 28)}, {"output_size": (4, 6, 6)},
        {"input": (1, 2, 4, 8, 8)},
    ),
    "lp_pool1d.2": Case("lp_pool1d", {"input": (8, 64, 4096)}, {"norm_type": 2, "kernel_size": 4}),
    "lp_pool2d.2": Case("lp_pool2d", IMAGE, {"norm_type": 2, "kernel_size": 2}, TINY),
    "lp_pool2d.3": Case("lp_pool2d", IMAGE, {"norm_type": 3, "kernel_size": 3, "stride": 2}, TINY),
    "lp_pool3d.2": Case(
        "lp_pool3d", {"input": (2, 16, 16, 28, 28)}, {"norm_type": 2, "kernel_size": 2}, {"input": (1, 2, 4, 8, 8)},
    ),
    "max_unpool1d.2": Case(
        "max_unpool1d", {"input": (8, 64, 2048), "indices": _indices((8, 64, 2048), 1)}, {"kernel_size": 2},
        {"input": (1, 2, 8), "indices": _indices((1, 2, 8), 1)},
    ),
    "max_unpool2d.2x2": Case(
        "max_unpool2d", {"input": (8, 64, 28, 28), "indices": _indices((8, 64, 28, 28), 2)}, {"kernel_size": 2},
        {"input": (1, 2, 4, 4), "indices": _indices((1, 2, 4, 4), 2)},
    ),
    "max_unpool3d.2x2x2": Case(
        "max_unpool3d", {"input": (2, 16, 8, 14, 14), "indices": _indices((2, 16, 8, 14, 14), 3)}, {"kernel_size": 2},
        {"input": (1, 2, 2, 4, 4), "indices": _indices((1, 2, 2, 4, 4), 3)},
    ),
    "fractional_max_pool2d.half": Case(
        "fractional_max_pool2d", {**IMAGE, "_random_samples": _samples((8, 64), 2)}, {"kernel_size": 2, "output_size": 37},
        {"input": (1, 2, 16, 16), "_random_samples": _samples((1, 2), 2), "output_size": 7}, _fractional("fractional_max_pool2d"),
    ),
    "fractional_max_pool2d_with_indices.half": Case(
        "fractional_max_pool2d_with_indices", {**IMAGE, "_random_samples": _samples((8, 64), 2)},
        {"kernel_size": 2, "output_size": 37},
        {"input": (1, 2, 16, 16), "_random_samples": _samples((1, 2), 2), "output_size": 7}, _fractional("fractional_max_pool2d_with_indices"),
    ),
    "fractional_max_pool3d.half": Case(
        "fractional_max_pool3d", {"input": (2, 16, 16, 28, 28), "_random_samples": _samples((2, 16), 3)},
        {"kernel_size": 2, "output_size": (8, 14, 14)},
        {"input": (1, 2, 4, 8, 8), "_random_samples": _samples((1, 2), 3), "output_size": 2}, _fractional("fractional_max_pool3d"),
    ),
    "fractional_max_pool3d_with_indices.half": Case(
        "fractional_max_pool3d_with_indices", {"input": (2, 16, 16, 28, 28), "_random_samples": _samples((2, 16), 3)},
        {"kernel_size": 2, "output_size": (8, 14, 14)},
        {"input": (1, 2, 4, 8, 8), "_random_samples": _samples((1, 2), 3), "output_size": 2}, _fractional("fractional_max_pool3d_with_indices"),
    ),
    "pool2d.3x3": Case("pool2d", {"input": (512, 56, 56)}, {"pool_size": 3, "padding": 1}, {"input": (2, 16, 16)}, torch=None),
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
