"""Regions of interest on their own shapes, forward and backward. PyTorch alone has none of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Case, benchmarks


def _boxes(count: int, images: int, size: float, numbered: bool = True) -> Any:
    """Boxes of 8 to ``size`` / 2 elements, with the number of their image in front or without."""

    def make(rng: np.random.Generator) -> np.ndarray:
        corners = rng.uniform(0, size / 2, (count, 2))
        corners = np.concatenate([corners, corners + rng.uniform(8, max(size / 2, 9), (count, 2))], 1)
        number = rng.integers(0, images, (count, 1))
        return np.concatenate([number, corners], 1) if numbered else corners

    return make


FEATURES = {"input": (2, 256, 50, 76), "boxes": _boxes(128, 2, 50)}
POSITIONED = {"input": (2, 10 * 49, 50, 76), "boxes": _boxes(128, 2, 50)}
TINY = {"input": (2, 4, 12, 12), "boxes": _boxes(3, 2, 12), "output_size": 2}

CASES = {
    "roi_align.fpn": Case("roi_align", FEATURES, {"output_size": 7, "sampling_ratio": 2}, TINY, torch=None),
    "roi_align.adaptive": Case("roi_align", FEATURES, {"output_size": 7, "aligned": True}, TINY, torch=None),
    "roi_pool.7": Case("roi_pool", FEATURES, {"output_size": 7}, TINY, torch=None),
    "ps_roi_align.7": Case("ps_roi_align", POSITIONED, {"output_size": 7, "sampling_ratio": 2}, TINY, torch=None),
    "ps_roi_pool.7": Case("ps_roi_pool", POSITIONED, {"output_size": 7}, TINY, torch=None),
    "deform_conv2d.3x3": Case(
        "deform_conv2d",
        {"input": (2, 64, 56, 56), "offset": (2, 18, 56, 56), "weight": (64, 64, 3, 3), "mask": (2, 9, 56, 56)},
        {"padding": 1},
        {"input": (1, 4, 8, 8), "offset": (1, 18, 8, 8), "weight": (4, 4, 3, 3), "mask": (1, 9, 8, 8)},
        torch=None,
    ),
    "nms.2000": Case(
        "nms", {"boxes": _boxes(2000, 1, 400, False), "scores": (2000,)}, {"iou_threshold": 0.5},
        {"boxes": _boxes(9, 1, 40, False), "scores": (9,)}, torch=None,
    ),
    "batched_nms.2000": Case(
        "batched_nms",
        {"boxes": _boxes(2000, 1, 400, False), "scores": (2000,), "idxs": lambda rng: rng.integers(0, 80, 2000)},
        {"iou_threshold": 0.5},
        {"boxes": _boxes(9, 1, 40, False), "scores": (9,), "idxs": lambda rng: rng.integers(0, 2, 9)}, torch=None,
    ),
    "box_iou.1000": Case(
        "box_iou", {"boxes1": _boxes(1000, 1, 400, False), "boxes2": _boxes(1000, 1, 400, False)}, {},
        {"boxes1": _boxes(9, 1, 40, False), "boxes2": _boxes(9, 1, 40, False)}, torch=None,
    ),
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
