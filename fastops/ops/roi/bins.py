"""Boxes cut into bins, and what every bin takes from the features: a sum of rows and columns with weights.

Bilinear samples on a grid are separable: the sum over the samples of a bin is

    sum over h, w of wy[h] wx[w] x[h, w]

with few rows and columns that have weights at all. So a box has, for each bin along an axis, the first and the end of its
elements and their weights, and averages over samples (roi_align), over elements (roi_pool) and over channels that depend on the
bin (ps_roi_align, ps_roi_pool) are one kernel. Backwards, each plane of the gradient takes what the boxes of its image give, in
their order: its owner computes.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for

Boxes = Any
_NS_PER_TERM = 1.0


@function
def _sample(start, size, bins, p, i, grid):
    """Sample i of bin p along an axis."""
    real = type(start)
    width = size / real(bins)
    return start + real(p) * width + (real(i) + real(0.5)) * width / real(grid)


@separate
def _bilinear_ends(block, worker, starts, sizes, grids, extent, ends):
    """ends[k, p]: first and end of the elements that the samples of bin p of box k touch."""
    bins = ends.shape[1]
    for p in range(bins):
        first, end = extent, 0
        for i in range(grids[block]):
            y = _sample(starts[block], sizes[block], bins, p, i, grids[block])
            if y >= -1 and y <= extent:
                low = min(int(max(y, type(y)(0))), extent - 1)
                first, end = min(first, low), max(end, min(low + 2, extent))
        ends[block, p, 0], ends[block, p, 1] = min(first, end), end


@separate
def _bilinear_weights(block, worker, starts, sizes, grids, extent, ends, weights):
    """weights[k, p, h - first]: what element h counts in bin p of box k; samples beyond the image by more than 1 count nothing."""
    bins = ends.shape[1]
    count = max(grids[block], 1)
    weights[block] = weights.dtype.type(0)
    for p in range(bins):
        for i in range(grids[block]):
            y = _sample(starts[block], sizes[block], bins, p, i, grids[block])
            if y >= -1 and y <= extent:
                y = max(y, type(y)(0))
                low = int(y)
                part = y - type(y)(low)
                if low >= extent - 1:
                    low, part = extent - 1, type(y)(0)
                row = weights[block, p]
                at = low - ends[block, p, 0]
                row[at] += (type(y)(1) - part) / type(y)(count)
                if low + 1 < extent:
                    row[at + 1] += part / type(y)(count)


@launcher
def _find_bilinear_ends(threads, starts, sizes, grids, extent, ends):
    parallel(_bilinear_ends, ends.shape[0], threads, (starts, sizes, grids, extent, ends))


@launcher
def _find_bilinear_weights(threads, starts, sizes, grids, extent, ends, weights):
    parallel(_bilinear_weights, ends.shape[0], threads, (starts, sizes, grids, extent, ends, weights))


@separate
def _gather_box(block, worker, x, image, by_position, rows, row_weights, columns, column_weights, y):
    """y[k] (C, P, Q) of one box; x (N, channels, H, W). By position, bin (p, q) of channel c reads channel (c P + p) Q + q."""
    _, C, P, Q = y.shape
    for c in range(C):
        for p in range(P):
            y0, y1 = rows[block, p, 0], rows[block, p, 1]
            for q in range(Q):
                plane = x[image[block], (c * P + p) * Q + q if by_position else c]
                x0, x1 = columns[block, q, 0], columns[block, q, 1]
                total = x.dtype.type(0)
                for h in range(y0, y1):
                    line, weights = plane[h, x0:x1], column_weights[block, q]
                    part = x.dtype.type(0)
                    for w in range(line.size):
                        part += weights[w] * line[w]
                    total += row_weights[block, p, h - y0] * part
                y[block, c, p, q] = total


@separate
def _spread_plane(block, worker, dy, image, by_position, rows, row_weights, columns, column_weights, dx):
    """dx[n, channel] of one plane; dy (K, C, P, Q)."""
    _, channels, _, _ = dx.shape
    K, _, P, Q = dy.shape
    n, channel = block // channels, block % channels
    plane = dx[n, channel]
    plane[:] = dx.dtype.type(0)
    c, first_p, end_p, first_q, end_q = channel, 0, P, 0, Q
    if by_position:
        c, first_p, first_q = channel // (P * Q), channel // Q % P, channel % Q
        end_p, end_q = first_p + 1, first_q + 1
    for k in range(K):
        if image[k] != n:
            continue
        for p in range(first_p, end_p):
            y0, y1 = rows[k, p, 0], rows[k, p, 1]
            for q in range(first_q, end_q):
                x0, x1 = columns[k, q, 0], columns[k, q, 1]
                for h in range(y0, y1):
                    value = dy[k, c, p, q] * row_weights[k, p, h - y0]
                    line, weights = plane[h, x0:x1], column_weights[k, q]
                    for w in range(line.size):
                        line[w] += value * weights[w]


@launcher
def _gather(threads, x, image, by_position, rows, row_weights, columns, column_weights, y):
    parallel(_gather_box, y.shape[0], threads, (x, image, by_position, rows, row_weights, columns, column_weights, y))


@launcher
def _spread(threads, dy, image, by_position, rows, row_weights, columns, column_weights, dx):
    blocks = dx.shape[0] * dx.shape[1]
    parallel(_spread_plane, blocks, threads, (dy, image, by_position, rows, row_weights, columns, column_weights, dx))


Bands = tuple[Array, Array]


def bilinear(start: Array, size: Array, grid: Array, extent: int, bins: int) -> Bands:
    """Elements and weights of every bin of every box along an axis."""
    ends = empty((start.size, bins, 2), np.int64)
    threads = threads_for(start.size * bins * 50)
    _find_bilinear_ends(threads, start, size, grid, extent, ends)
    weights = empty((start.size, bins, max(1, int((ends[..., 1] - ends[..., 0]).max(initial=0)))), start.dtype)
    _find_bilinear_weights(threads, start, size, grid, extent, ends, weights)
    return ends, weights


def even(ends: Array, dtype: np.dtype[Any]) -> Bands:
    """The mean of the elements between the ends of every bin."""
    count = ends[..., 1] - ends[..., 0]
    longest = max(1, int(count.max(initial=0)))
    weights = np.broadcast_to((1 / np.maximum(count, 1))[..., None], (*count.shape, longest))
    return ends, np.ascontiguousarray(weights, dtype)


def _work(bands: tuple[Bands, Bands], channels: int) -> float:
    (rows, _), (columns, _) = bands
    high, wide = (np.maximum(e[..., 1] - e[..., 0], 0).sum(1) for e in (rows, columns))
    return float(np.dot(high, wide)) * channels * _NS_PER_TERM


def gather(x: Array, image: Array, by_position: bool, bands: tuple[Bands, Bands], channels: int) -> Array:
    """(K, channels, P, Q) from the features x (N, C, H, W)."""
    (rows, row_weights), (columns, column_weights) = bands
    y = empty((image.size, channels, rows.shape[1], columns.shape[1]), x.dtype)
    if y.size:
        _gather(threads_for(_work(bands, channels)), x, image, by_position, rows, row_weights, columns, column_weights, y)
    return y


def spread(dy: Array, image: Array, by_position: bool, bands: tuple[Bands, Bands], shape: tuple[int, ...]) -> Array:
    """The gradient of ``gather`` with respect to x."""
    (rows, row_weights), (columns, column_weights) = bands
    dx = empty(shape, dy.dtype)
    if dx.size:
        threads = threads_for(_work(bands, dy.shape[1]) + dx.size * 0.1)
        _spread(threads, dy, image, by_position, rows, row_weights, columns, column_weights, dx)
    return dx


# ---- arguments


def features(op: str, name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or 0 in shape[2:]:
        raise ValueError(f"{op}: {name} must have axes (N, C, H, W), H and W of at least 1, got shape {shape}")


def boxes_of(op: str, boxes: Boxes, images: int, dtype: np.dtype[Any], limit: int) -> tuple[Array, Array]:
    """The image of every box, and the corners (K, 4) in the dtype that kernels compute in.

    ``limit`` is what coordinates must stay below, so that arithmetic on them does.
    """
    compute = np.dtype(np.float32) if dtype == _check.FLOAT16 else dtype
    if isinstance(boxes, (list, tuple)) and all(np.ndim(b) == 2 or np.size(b) == 0 for b in boxes) and len(boxes) == images:
        parts = [np.empty((0, 4), dtype) if np.size(b) == 0 else _check.to_ndarray(op, "boxes", b) for b in boxes]
        for number, part in enumerate(parts):
            if part.ndim != 2 or part.shape[1] != 4:
                raise ValueError(f"{op}: boxes must hold an array (L, 4) for each image, got shape {part.shape} for image {number}")
        image = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        corners = np.concatenate([_of_dtype(op, p, dtype) for p in parts]) if parts else empty((0, 4), dtype)
    elif isinstance(boxes, (list, tuple)) and not (boxes and np.ndim(boxes[0]) < 2):
        raise ValueError(f"{op}: boxes must hold an array for each of the {images} images, got {len(boxes)}")
    else:
        table = _of_dtype(op, _check.to_ndarray(op, "boxes", boxes), dtype)
        if table.ndim != 2 or table.shape[1] != 5:
            raise ValueError(f"{op}: boxes must have shape (K, 5), or be a list of (L, 4), got shape {table.shape}")
        numbers, corners = table[:, 0], table[:, 1:]
        if table.size and not (numbers.min() >= 0 and numbers.max() < images):
            raise ValueError(
                f"{op}: boxes must have the number of an image, at least 0 and below {images}, in column 0, got {numbers.min()} to {numbers.max()}"
            )
        image = numbers.astype(np.int64)
    corners = np.ascontiguousarray(corners, compute)
    if corners.size and not (np.abs(corners).max() <= limit):
        raise ValueError(f"{op}: boxes must have finite coordinates of at most {limit}, got {np.abs(corners).max()}")
    return np.ascontiguousarray(image, np.int64), corners


def _of_dtype(op: str, boxes: Array, dtype: np.dtype[Any]) -> Array:
    if boxes.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{op}: boxes must have the dtype of input, {dtype}, got {boxes.dtype}")
    return boxes


def scale_of(op: str, value: Any) -> float:
    scale = _check.real(op, "spatial_scale", value)
    if not isfinite(scale):
        raise ValueError(f"{op}: spatial_scale must be finite, got {value!r}")
    return scale
