"""Resampling of one axis as a table: for each output a window of inputs (its first index and weights).

Coordinates are computed as PyTorch's CPU kernels do it, in the dtype of the data: in float32 a nearest index depends on it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastops._check import Array


class Table(NamedTuple):
    """Output p is the sum over t of weights[start + t] x[first + t] with (first, start) = spans[p].

    It has spans[p + 1].start - start terms; the last row of spans is there to end the last output. Windows start, and end,
    in the order of the outputs.
    """

    spans: Array
    weights: Array

    @property
    def outputs(self) -> int:
        return self.spans.shape[0] - 1

    def is_identity(self, inputs: int) -> bool:
        """Whether it changes nothing."""
        same = inputs == self.outputs == self.weights.size
        return same and bool((self.weights == 1).all() and (self.spans[:-1, 0] == np.arange(inputs)).all())

    def transposed(self, inputs: int) -> Table:
        """The table of the gradient: for each of the ``inputs`` the outputs that it has a part in. They are neighbours."""
        counts = np.diff(self.spans[:, 1])
        output = np.repeat(np.arange(self.outputs), counts)
        source = np.arange(self.weights.size) - np.repeat(self.spans[:-1, 1] - self.spans[:-1, 0], counts)
        order = np.argsort(source, kind="stable")
        ends = np.searchsorted(source[order], np.arange(inputs + 1))
        first = np.append(output[order], 0)[ends]
        return Table(np.stack([first, ends], 1), self.weights[order])


def _from_windows(first: Array, counts: Array, weights: Array) -> Table:
    """From windows of different lengths, whose weights are the starts of the rows of ``weights``."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    inside = np.arange(weights.shape[1]) < counts[:, None]
    return Table(np.stack([np.append(first, 0), starts], 1).astype(np.int64), np.ascontiguousarray(weights[inside]))


def _from_taps(index: Array, weights: Array, inputs: int) -> Table:
    """From neighbouring indices, of which those beyond an end count for the end."""
    index = np.clip(index, 0, inputs - 1)
    first = index[:, 0]
    merged = np.zeros_like(weights)
    np.add.at(merged, (np.arange(len(index))[:, None], index - first[:, None]), weights)
    return _from_windows(first, index[:, -1] - first + 1, merged)


def _keys(t: Array, a: float) -> Array:
    """The cubic convolution kernel. Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), (4)."""
    t, a = np.abs(t), t.dtype.type(a)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0)).astype(t.dtype)


def _triangle(t: Array) -> Array:
    return np.maximum(1 - np.abs(t), 0).astype(t.dtype)


def _lanczos(t: Array) -> Array:
    """Source: Duchon, "Lanczos Filtering in One and Two Dimensions" (1979)."""
    return np.where(np.abs(t) < 3, np.sinc(t) * np.sinc(t / t.dtype.type(3)), 0).astype(t.dtype)


# Filters of antialiased resizing and their radius. Source: Pillow, src/libImaging/Resample.c, whose cubic kernel has a = -0.5.
_FILTERS = {"linear": (_triangle, 1), "cubic": (lambda t: _keys(t, -0.5), 2), "lanczos": (_lanczos, 3)}


def _scale(inputs: int, outputs: int, factor: float | None, align_corners: bool, real: type) -> np.floating:
    """Inputs an output."""
    if align_corners:
        return real(inputs - 1) / real(outputs - 1) if outputs > 1 else real(0)
    return real(1 / factor) if factor is not None and factor > 0 else real(inputs) / real(outputs)


def _nearest(kind: str, inputs: int, j: Array, factor: float | None, real: type) -> Array:
    """The input of each output; PyTorch rounds to float32 before it takes the floor, in float64 too."""
    scale, half = _scale(inputs, j.size, factor, False, real), real(0.5)
    source = scale * j.astype(real)
    if kind == "nearest-exact":
        source = np.maximum(scale * (j.astype(real) + half) - half, 0) + half
    return np.floor(source.astype(np.float32)).astype(np.int64)


@lru_cache(maxsize=256)
def table(kind: str, inputs: int, outputs: int, factor: float | None, align_corners: bool, antialias: bool, dtype: str, single: bool) -> Table:
    """The table of an axis; ``kind`` is nearest, nearest-exact, linear, cubic, lanczos or area, ``factor`` a scale factor to be used raw.

    With ``single`` the coordinates of the nearest modes are computed in float32 whatever the dtype.
    """
    real = np.dtype(dtype).type
    j = np.arange(outputs)
    if kind in ("nearest", "nearest-exact"):
        return _from_taps(_nearest(kind, inputs, j, factor, np.float32 if single else real)[:, None], np.ones((outputs, 1), real), inputs)
    if kind == "area":
        first, end = j * inputs // outputs, -(-(j + 1) * inputs // outputs)
        counts = end - first
        return _from_windows(first, counts, np.repeat(1 / counts.astype(real), counts.max()).reshape(outputs, -1))
    scale = _scale(inputs, outputs, factor, align_corners, real)
    if antialias:
        return _antialiased(kind, inputs, outputs, scale)
    half = real(0.5)
    source = scale * j.astype(real) if align_corners else scale * (j.astype(real) + half) - half
    if kind == "linear":
        if inputs == outputs:
            return _from_taps(j[:, None], np.ones((outputs, 1), real), inputs)
        source = np.maximum(source, 0)
    index = np.minimum(np.floor(source.astype(np.float32)).astype(np.int64), inputs - 1)
    fraction = np.clip(source - index.astype(real), 0, 1)[:, None]
    if kind == "linear":
        return _from_taps(index[:, None] + np.arange(2), np.concatenate([1 - fraction, fraction], 1), inputs)
    taps = np.arange(-1, 3)
    return _from_taps(index[:, None] + taps, _keys(fraction - taps.astype(real), -0.75), inputs)


def _antialiased(kind: str, inputs: int, outputs: int, scale: np.floating) -> Table:
    """Where inputs outnumber outputs, the filter is as wide as an output is apart from the next."""
    real = type(scale)
    kernel, radius = _FILTERS[kind]
    support = radius * max(scale, real(1))
    center = scale * (np.arange(outputs).astype(real) + real(0.5))
    first = np.maximum((center - support + real(0.5)).astype(np.int64), 0)
    counts = np.maximum(np.minimum((center + support + real(0.5)).astype(np.int64), inputs) - first, 0)
    counts = np.minimum(counts, int(np.ceil(support)) * 2 + 1)
    t = np.arange(max(counts.max(), 1))
    weights = kernel(((first[:, None] + t).astype(real) - center[:, None] + real(0.5)) * (1 / max(scale, real(1))))
    weights[t >= counts[:, None]] = 0
    total = weights.sum(1, keepdims=True, dtype=real)
    return _from_windows(first, counts, weights / np.where(total == 0, 1, total))


@lru_cache(maxsize=256)
def transposed_table(*key: object) -> Table:
    """The table of the gradient of ``table(*key)``."""
    return table(*key).transposed(key[1])  # type: ignore[arg-type]
