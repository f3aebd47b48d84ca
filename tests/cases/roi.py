"""Regions of interest: every sample of every bin taken one at a time."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor
from typing import Any

import numpy as np

from tests.harness import Row, normal


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """roi_align's: zero more than one element outside, the border's value within."""
    H, W = plane.shape
    if not (-1 <= y <= H and -1 <= x <= W):
        return 0.0
    y, x = min(max(y, 0.0), H - 1), min(max(x, 0.0), W - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, H - 1), min(left + 1, W - 1)
    v, u = y - top, x - left
    return (1 - v) * ((1 - u) * plane[top, left] + u * plane[top, right]) + v * ((1 - u) * plane[bottom, left] + u * plane[bottom, right])


def table_of(boxes: Any) -> np.ndarray:
    """(K, 5) from either form."""
    if isinstance(boxes, list):
        return np.array([[n, *box] for n, image in enumerate(boxes) for box in image], np.float64).reshape(-1, 5)
    return np.asarray(boxes, np.float64)


def sizes(output_size: Any) -> tuple[int, int]:
    return output_size if isinstance(output_size, tuple) else (output_size, output_size)


def channel(c: int, p: int, q: int, P: int, Q: int, by_position: bool) -> int:
    return (c * P + p) * Q + q if by_position else c


def align(by_position: bool) -> Callable[..., np.ndarray]:
    def reference(
        input: np.ndarray, boxes: Any, output_size: Any, spatial_scale: float = 1.0, sampling_ratio: int = -1, aligned: bool = by_position,
    ) -> np.ndarray:  # fmt: skip
        P, Q = sizes(output_size)
        table = table_of(boxes)
        C = input.shape[1] // (P * Q) if by_position else input.shape[1]
        y = np.zeros((len(table), C, P, Q))
        for k, (n, *corners) in enumerate(table):
            x1, y1, x2, y2 = (value * spatial_scale - 0.5 * aligned for value in corners)
            width, height = x2 - x1, y2 - y1
            if not aligned:
                width, height = max(width, 1.0), max(height, 1.0)
            rows = sampling_ratio if sampling_ratio > 0 else ceil(height / P)
            columns = sampling_ratio if sampling_ratio > 0 else ceil(width / Q)
            for c, p, q in np.ndindex(C, P, Q):
                plane = input[int(n), channel(c, p, q, P, Q, by_position)]
                samples = [
                    bilinear(plane, y1 + (p + (i + 0.5) / rows) * height / P, x1 + (q + (j + 0.5) / columns) * width / Q)
                    for i in range(rows)
                    for j in range(columns)
                ]
                y[k, c, p, q] = sum(samples) / max(len(samples), 1)
        return y

    return reference


def half_up(value: float) -> int:
    """Halves away from zero."""
    return int(np.sign(value)) * floor(abs(value) + 0.5)


def pool(by_position: bool) -> Callable[..., np.ndarray]:
    def reference(input: np.ndarray, boxes: Any, output_size: Any, spatial_scale: float = 1.0) -> np.ndarray:
        P, Q = sizes(output_size)
        table = table_of(boxes)
        C = input.shape[1] // (P * Q) if by_position else input.shape[1]
        H, W = input.shape[2:]
        y = np.zeros((len(table), C, P, Q))
        for k, (n, *corners) in enumerate(table):
            x1, y1, x2, y2 = (half_up(value * spatial_scale) for value in corners)
            more = 0 if by_position else 1  # roi_pool's boxes include their last element
            height, width = max(y2 - y1 + more, 1), max(x2 - x1 + more, 1)
            last = (H - 1, W - 1) if by_position else (H, W)
            for c, p, q in np.ndindex(C, P, Q):
                top, bottom = (min(max(e + y1, 0), last[0]) for e in (floor(p * height / P), ceil((p + 1) * height / P)))
                left, right = (min(max(e + x1, 0), last[1]) for e in (floor(q * width / Q), ceil((q + 1) * width / Q)))
                elements = input[int(n), channel(c, p, q, P, Q, by_position), top:bottom, left:right]
                if elements.size and by_position:
                    y[k, c, p, q] = elements.mean()
                elif elements.size:
                    # NaN does not count, and nothing is below the smallest float32
                    y[k, c, p, q] = max(-float(np.finfo(np.float32).max), *elements[~np.isnan(elements)].ravel(), -np.inf)
        return y

    return reference


def deform(
    input: np.ndarray, offset: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, mask: np.ndarray | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1,
) -> np.ndarray:  # fmt: skip
    (N, C, H, W), (O, each, R, S), (_, _, P, Q) = input.shape, weight.shape, offset.shape
    (sh, sw), (ph, pw), (dh, dw) = map(sizes, (stride, padding, dilation))
    G = offset.shape[1] // (2 * R * S)
    padded = np.pad(input, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((N, O, P, Q))
    for n, c, r, s, p, q in np.ndindex(N, C, R, S, P, Q):
        g, tap = c // (C // G), r * S + s
        h = p * sh - ph + r * dh + offset[n, (g * R * S + tap) * 2, p, q]
        w = q * sw - pw + s * dw + offset[n, (g * R * S + tap) * 2 + 1, p, q]
        if not (-1 < h < H and -1 < w < W):
            continue
        top, left = floor(h), floor(w)
        v, u = h - top, w - left
        a, b, d, e = padded[n, c, top + 1 : top + 3, left + 1 : left + 3].ravel()
        value = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * e)
        if mask is not None:
            value *= mask[n, g * R * S + tap, p, q]
        groups = C // each
        outputs = slice(c // each * (O // groups), (c // each + 1) * (O // groups))
        y[n, outputs, p, q] += weight[outputs, c % each, r, s] * value
    return y if bias is None else y + bias[:, None, None]


def between_elements(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Shifts that stay away from integers, where the interpolation has kinks."""
    return rng.integers(-2, 3, shape) + rng.uniform(0.1, 0.9, shape)


def apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers at least 0.1 apart."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size // 2).reshape(shape) * 0.1


def inside(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes (K, 5) in the first two of some images: inside, across the border, outside, without extent. Multiples of 1/8, which
    every dtype holds."""
    corners = np.array([[0.5, 1.25, 6.5, 5.75], [-3.0, -2.5, 3.5, 4.0], [5.0, 3.0, 14.0, 12.0], [30.0, 30.0, 40.0, 40.0], [2.0, 3.0, 2.0, 3.0]])
    return np.concatenate([np.array([[0], [1], [0], [1], [1]]), corners], 1)


def row(name: str, op: str, reference: Any, shape: tuple[int, ...], draw: Any = normal, boxes: Any = None, **options: Any) -> Row:
    """Boxes as an array argument, whose dtype follows that of the input; they are no batch."""
    return Row(name, op, {"input": shape, "boxes": (5, 5)}, reference, options, (), {"input": draw, "boxes": inside})


def deform_row(
    name: str, shape: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, int], groups: int = 1, bias: bool = True,
    mask: bool = True, **options: Any,
) -> Row:  # fmt: skip
    taps = groups * weight[2] * weight[3]
    shapes = {
        "input": shape, "offset": (shape[0], 2 * taps, *out), "weight": weight, "bias": weight[:1] if bias else None,
        "mask": (shape[0], taps, *out) if mask else None,
    }  # fmt: skip
    batched = ("input", "offset", "mask") if mask else ("input", "offset")
    return Row(name, "deform_conv2d", shapes, deform, options, batched, {"offset": between_elements})


def iou(boxes1: np.ndarray, boxes2: np.ndarray, fmt: str = "xyxy") -> np.ndarray:
    def corners(b: np.ndarray) -> tuple[float, ...]:
        x, y, z, t = b
        return {"xyxy": (x, y, z, t), "xywh": (x, y, x + z, y + t), "cxcywh": (x - z / 2, y - t / 2, x + z / 2, y + t / 2)}[fmt]

    y = np.empty((len(boxes1), len(boxes2)))
    for i, j in np.ndindex(*y.shape):
        (a1, b1, a2, b2), (c1, d1, c2, d2) = corners(boxes1[i]), corners(boxes2[j])
        common = max(min(a2, c2) - max(a1, c1), 0) * max(min(b2, d2) - max(b1, d1), 0)
        y[i, j] = common / ((a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - common)
    return y


def boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    corners = rng.integers(0, 40, (shape[0], 2)) / 4
    return np.concatenate([corners, corners + rng.integers(1, 40, (shape[0], 2)) / 4], 1)


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, idxs: Any = None) -> np.ndarray:
    kept: list[int] = []
    classes = np.zeros(len(boxes)) if idxs is None else idxs
    for i in sorted(range(len(boxes)), key=lambda i: (not np.isnan(scores[i]), -scores[i])):
        if not any(classes[k] == classes[i] and iou(boxes[k : k + 1], boxes[i : i + 1])[0, 0] > iou_threshold for k in kept):
            kept.append(i)
    return np.array(kept, np.int64)


ROWS = [
    row("sampled", "roi_align", align(False), (2, 3, 7, 9), output_size=(2, 3), sampling_ratio=2),
    row("adaptive_scaled", "roi_align", align(False), (3, 2, 6, 7), output_size=3, spatial_scale=0.75),
    row("aligned", "roi_align", align(False), (2, 2, 7, 9), output_size=2, spatial_scale=1.5, aligned=True),
    row("plain", "roi_pool", pool(False), (2, 3, 7, 9), apart, output_size=(2, 3)),
    row("scaled", "roi_pool", pool(False), (2, 2, 8, 9), apart, output_size=4, spatial_scale=0.75),
    row("sampled", "ps_roi_align", align(True), (2, 12, 7, 9), output_size=(2, 3), sampling_ratio=2),
    row("adaptive", "ps_roi_align", align(True), (2, 8, 7, 9), output_size=2, spatial_scale=0.5),
    row("plain", "ps_roi_pool", pool(True), (2, 12, 7, 9), output_size=(2, 3)),
    row("scaled", "ps_roi_pool", pool(True), (2, 4, 8, 9), output_size=2, spatial_scale=0.75),
    deform_row("plain", (2, 3, 6, 7), (4, 3, 3, 3), (6, 7), padding=1),
    deform_row("grouped", (2, 4, 7, 8), (6, 2, 2, 3), (4, 3), groups=2, stride=(2, 3), padding=(1, 2), dilation=(1, 2)),
    deform_row("without_mask_or_bias", (1, 2, 5, 6), (3, 2, 3, 3), (3, 4), bias=False, mask=False),
    Row("corners", "box_iou", {"boxes1": (5, 4), "boxes2": (7, 4)}, iou, batched=("boxes1",), draw=boxes),
    Row("centres", "box_iou", {"boxes1": (3, 4), "boxes2": (4, 4)}, iou, {"fmt": "cxcywh"}, batched=("boxes1",), draw=boxes),
]  # fmt: skip

# Numbers of boxes: the checks of the harness are for floats.
CHOICES = {"nms": suppress, "batched_nms": suppress}
