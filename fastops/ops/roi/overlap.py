"""Boxes among themselves: how much they overlap, and which to keep of many that mean the same thing.

    IoU(a, b) = area(a and b) / area(a or b)

Non-maximum suppression takes boxes in the order of their scores and drops what overlaps a kept one by more than a threshold.
Neither has a gradient.

Source: Girshick, Donahue, Darrell, Malik, "Rich Feature Hierarchies for Accurate Object Detection" (2014), section 2.2.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd import segments

Format = Literal["xyxy", "xywh", "cxcywh"]

_ROWS = 16


@function
def _intersection(a, b, i, j):
    """The area that box i of a (4, K) and box j of b have in common."""
    zero = a.dtype.type(0)
    x1, y1 = max(a[0, i], b[0, j]), max(a[1, i], b[1, j])
    x2, y2 = min(a[2, i], b[2, j]), min(a[3, i], b[3, j])
    w, h = x2 - x1, y2 - y1
    return (w if w > zero else zero) * (h if h > zero else zero)


@separate
def _iou_rows(block, worker, a, b, areas_a, areas_b, y):
    """A block of rows of y (K, L)."""
    for i in range(block * _ROWS, min((block + 1) * _ROWS, y.shape[0])):
        row = y[i]
        for j in range(row.size):
            common = _intersection(a, b, i, j)
            row[j] = common / (areas_a[i] + areas_b[j] - common)


@launcher
def _iou(threads, a, b, areas_a, areas_b, y):
    parallel(_iou_rows, (y.shape[0] + _ROWS - 1) // _ROWS, threads, (a, b, areas_a, areas_b, y))


@separate
def _suppress_all(block, worker, boxes, areas, groups, threshold, dropped):
    """dropped[j] = 1 for what overlaps a kept box of its group that stands before it; boxes (4, K) by falling score."""
    count = dropped.size
    for i in range(count):
        if dropped[i]:
            continue
        rest, others, later = boxes[:, i + 1 :], areas[i + 1 :], groups[i + 1 :]
        out = dropped[i + 1 :]
        for j in range(count - i - 1):
            common = _intersection(boxes, rest, i, j)
            over = common / (areas[i] + others[j] - common) > threshold
            out[j] |= over & (later[j] == groups[i])


@launcher
def _suppress(threads, boxes, areas, groups, threshold, dropped):
    parallel(_suppress_all, 1, threads, (boxes, areas, groups, threshold, dropped))


def _boxes(op: str, name: str, boxes: Any) -> Array:
    array = _check.to_ndarray(op, name, boxes)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    given: Any = {name: array}
    (table,), _ = _check.as_arrays(op, **given)
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(f"{op}: {name} must have shape (K, 4), got {table.shape}")
    result: Array = table
    return result


def _corners(boxes: Array, fmt: str) -> Array:
    """(4, K): x1, y1, x2, y2."""
    x, y, z, t = boxes.T
    if fmt == "xywh":
        x, y, z, t = x, y, x + z, y + t
    elif fmt == "cxcywh":
        half = boxes.dtype.type(0.5)
        x, y, z, t = x - half * z, y - half * t, x + half * z, y + half * t
    return np.stack([x, y, z, t])


@operation
def box_iou(boxes1: ArrayLike, boxes2: ArrayLike, fmt: Format = "xyxy") -> Array:
    """Intersection over union of all pairs of boxes: ``torchvision.ops.box_iou``. It has no gradient.

    Args:
        boxes1, boxes2: (K, 4) and (L, 4), floats of one dtype or integers.
        fmt: "xyxy" for two corners, x1 <= x2 and y1 <= y2; "xywh" for a corner and extents; "cxcywh" for the centre and extents.

    Returns:
        (K, L), of the dtype of the boxes, float32 for integers. Two boxes without area give NaN.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> box_iou(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]]))
    array([[0.33333333, 0.        ]])
    """
    op = "box_iou"
    _check.choice(op, "fmt", fmt, ("xyxy", "xywh", "cxcywh"))
    dtypes = [np.asarray(b).dtype for b in (boxes1, boxes2)]
    integers = all(d.kind in "iu" for d in dtypes)
    if not integers and dtypes[0].newbyteorder("=") != dtypes[1].newbyteorder("="):
        raise TypeError(f"{op}: boxes2 must have the dtype of boxes1, {dtypes[0]}, got {dtypes[1]}")
    a, b = _corners(_boxes(op, "boxes1", boxes1), fmt), _corners(_boxes(op, "boxes2", boxes2), fmt)
    y = empty((a.shape[1], b.shape[1]), a.dtype)
    if y.size:
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        _iou(threads_for(y.size * 1.0), a, b, *areas, y)
    return y.astype(np.float32 if integers else dtypes[0].newbyteorder("="), copy=False)


def _kept(op: str, boxes: Any, scores: Any, groups: Any, iou_threshold: Any) -> Array:
    (table, values), _ = _check.as_arrays(op, boxes=boxes, scores=scores)
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(f"{op}: boxes must have shape (K, 4), got {table.shape}")
    if values.shape != table.shape[:1]:
        raise ValueError(f"{op}: scores must have shape {table.shape[:1]}, one for each box, got {values.shape}")
    if isinstance(iou_threshold, (bool, np.bool_)) or not isinstance(iou_threshold, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: iou_threshold must be a number, got {iou_threshold!r}")
    if groups is None:
        classes = np.zeros(len(table), np.int64)
    else:
        classes = segments.indices(op, "idxs", groups)
        if classes.shape != values.shape:
            raise ValueError(f"{op}: idxs must have shape {values.shape}, one for each box, got {classes.shape}")
    # NaN first, as PyTorch sorts; of equal scores the first box comes first
    order = np.lexsort((-values, ~np.isnan(values)))
    sorted_ = np.ascontiguousarray(table[order].T)
    areas = (sorted_[2] - sorted_[0]) * (sorted_[3] - sorted_[1])
    dropped = np.zeros(len(order), np.bool_)
    if dropped.size:
        _suppress(1, sorted_, areas, classes[order], float(iou_threshold), dropped)
    return order[~dropped].astype(np.int64, copy=False)


@operation
def nms(boxes: ArrayLike, scores: ArrayLike, iou_threshold: float) -> Array:
    """Non-maximum suppression: ``torchvision.ops.nms``. It has no gradient; its time grows with K times the boxes kept.

    Args:
        boxes: (K, 4), x1, y1, x2, y2, float16, float32 or float64.
        scores: (K,), of the same dtype.
        iou_threshold: boxes that overlap a kept one by more are dropped.

    Returns:
        The numbers of the boxes kept, int64, by falling score; of equal scores the first box first, NaN before all others.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> nms(np.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1], [3.0, 0.0, 4.0, 1.0]]), np.array([0.5, 0.9, 0.1]), 0.5)
    array([1, 2])
    """
    return _kept("nms", boxes, scores, None, iou_threshold)


@operation
def batched_nms(boxes: ArrayLike, scores: ArrayLike, idxs: ArrayLike, iou_threshold: float) -> Array:
    """:func:`nms` within each class: ``torchvision.ops.batched_nms``.

    Args:
        idxs: (K,), the class of each box, integers: boxes of different classes do not suppress each other.

    >>> import numpy as np
    >>> boxes = np.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.1]])
    >>> batched_nms(boxes, np.array([0.5, 0.9]), np.array([0, 1]), 0.5)
    array([1, 0])
    """
    return _kept("batched_nms", boxes, scores, idxs, iou_threshold)


register(box_iou, None, inputs=(), saved=())
register(nms, None, inputs=(), saved=())
register(batched_nms, None, inputs=(), saved=())
