"""Rows of the operations on graphs, with references in float64 that go edge by edge."""

from __future__ import annotations

import numpy as np

from tests.harness import Row


def taken(input, index, axis=0):
    return np.take(input, index, axis)


REDUCE = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "mul": np.prod}


def scattered(src, index, dim=0, dim_size=None, reduce="sum", empty=None):
    x = np.moveaxis(src, dim, 0)
    count = (max(index, default=-1) + 1) if dim_size is None else dim_size
    y = np.full((count, *x.shape[1:]), float(reduce == "mul") if empty is None else empty)
    for d in range(count):
        if (index == d).any():
            y[d] = REDUCE[reduce](x[index == d], axis=0)
    return np.moveaxis(y, 0, dim)


def segmented(reduce, empty=0.0):
    def reference(data, segment_ids, num_segments=None, indices_are_sorted=False):
        return scattered(data, segment_ids, 0, num_segments, reduce, empty)

    return reference


def segment_softmax(data, segment_ids, num_segments=None, indices_are_sorted=False):
    y = np.zeros_like(data)
    for d in set(segment_ids.tolist()):
        e = np.exp(data[segment_ids == d] - data[segment_ids == d].max(axis=0))
        y[segment_ids == d] = e / e.sum(axis=0)
    return y


def distinct(rng, shape):
    """Numbers that are far apart and not near zero: no ties among them, and no kinks."""
    return rng.permutation(np.arange(1, np.prod(shape) + 1)).reshape(shape) / np.prod(shape) * rng.choice([-1, 1], shape)


def integers(below, *shape):
    return lambda rng: rng.integers(0, below, shape)


IDS = np.array([2, 0, 2, 5, 5, 2, 0])  # out of order, with empty segments

ROWS = [
    Row("rows", "gather", {"input": (6, 70)}, taken, {"index": np.array([5, 0, 0, 3])}, batched=()),
    Row("middle", "gather", {"input": (2, 5, 3)}, taken, {"index": np.array([[4, 0], [1, 4]]), "axis": 1}),
    Row("sum", "scatter", {"src": (7, 70)}, scattered, {"index": IDS, "dim_size": 8}, batched=()),
    Row("mean", "scatter", {"src": (2, 7, 3)}, scattered, {"index": IDS, "dim": -2, "reduce": "mean"}, batched=("src",)),
    Row("max", "scatter", {"src": (7, 3, 2)}, scattered, {"index": IDS, "dim_size": 8, "reduce": "max"}, batched=(), draw=distinct),
    Row("min", "scatter", {"src": (7,)}, scattered, {"index": IDS, "reduce": "min"}, batched=(), draw=distinct),
    Row("mul", "scatter", {"src": (7, 5)}, scattered, {"index": IDS, "reduce": "mul"}, batched=()),
    Row("plain", "segment_sum", {"data": (7, 5)}, segmented("sum"), {"segment_ids": IDS}, batched=()),
    Row("sorted", "segment_sum", {"data": (7,)}, segmented("sum"), {"segment_ids": np.sort(IDS), "indices_are_sorted": True}, batched=()),
    Row("plain", "segment_mean", {"data": (7, 5)}, segmented("mean"), {"segment_ids": IDS, "num_segments": 7}, batched=()),
    Row("plain", "segment_max", {"data": (3, 20)}, segmented("max"), {"segment_ids": np.array([1, 0, 1])}, batched=(), draw=distinct),
    Row("plain", "segment_min", {"data": (3, 2, 3)}, segmented("min"), {"segment_ids": np.array([1, 0, 1])}, batched=(), draw=distinct),
    Row("wide", "segment_softmax", {"data": (7, 20)}, segment_softmax, {"segment_ids": IDS}, batched=()),
    Row("single", "segment_softmax", {"data": (7,)}, segment_softmax, {"segment_ids": IDS, "num_segments": 9}, batched=()),
]
