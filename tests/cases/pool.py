"""Pooling: every window gathered and reduced by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from tests.harness import Row

Windows = list[list[list[int]]]


def axes_of(value: Any, ndim: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * ndim


def strided_windows(
    size: tuple[int, ...], kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
) -> Windows:  # fmt: skip
    """For each axis, for each window, the elements of its extent, those in the padding too."""
    ndim, found = len(size), []
    stride = kernel_size if stride is None else stride
    for n, k, s, p, d in zip(size, *(axes_of(v, ndim) for v in (kernel_size, stride, padding, dilation))):
        axis, start, reach = [], -p, d * (k - 1)
        # with ceil_mode a last window may reach beyond the padding, by less than a stride, but not start there
        while start + reach < n + p + (s - 1) * ceil_mode and (start < n + p * (1 - ceil_mode)):
            axis.append([start + i * d for i in range(k)])
            start += s
        found.append(axis)
    return found


def adaptive_windows(size: tuple[int, ...], output_size: Any) -> Windows:
    found = []
    for n, count in zip(size, axes_of(output_size, len(size))):
        count = n if count is None else count
        found.append([list(range(o * n // count, -(-(o + 1) * n // count))) for o in range(count)])
    return found


def pooled(x: np.ndarray, windows: Windows, reduce: Callable[[np.ndarray, list[list[int]]], np.ndarray]) -> np.ndarray:
    """``reduce(elements of a window (..., E), its places)`` for every window."""
    ndim = len(windows)
    y = np.empty((*x.shape[:-ndim], *map(len, windows)))
    for o in product(*(range(len(axis)) for axis in windows)):
        window = [axis[i] for axis, i in zip(windows, o)]
        inside = [[i for i in places if 0 <= i < n] for places, n in zip(window, x.shape[-ndim:])]
        elements = x[(..., *np.ix_(*inside))]
        y[(..., *o)] = reduce(elements.reshape(*x.shape[:-ndim], -1), window)
    return y


def largest(elements: np.ndarray, window: Any) -> np.ndarray:
    return elements.max(-1)


def max_pool(ndim: int) -> Callable[..., np.ndarray]:
    def reference(input: np.ndarray, kernel_size: Any, return_indices: bool = False, **window: Any) -> np.ndarray:
        return pooled(input, strided_windows(input.shape[-ndim:], kernel_size, **window), largest)

    return reference


def avg_pool(ndim: int) -> Callable[..., np.ndarray]:
    def reference(
        input: np.ndarray, kernel_size: Any, count_include_pad: bool = True, divisor_override: int | None = None, padding: Any = 0, **window: Any,
    ) -> np.ndarray:  # fmt: skip
        size = input.shape[-ndim:]

        def mean(elements: np.ndarray, places: list[list[int]]) -> np.ndarray:
            # what ceil_mode adds beyond the padding never counts
            ends = [n + p for n, p in zip(size, axes_of(padding, ndim))]
            padded = np.prod([sum(i < end for i in axis) for axis, end in zip(places, ends)])
            return elements.sum(-1) / (divisor_override or (padded if count_include_pad else elements.shape[-1]))

        return pooled(input, strided_windows(size, kernel_size, padding=padding, **window), mean)

    return reference


def adaptive_pool(ndim: int, reduce: Any) -> Callable[..., np.ndarray]:
    def reference(input: np.ndarray, output_size: Any, return_indices: bool = False) -> np.ndarray:
        return pooled(input, adaptive_windows(input.shape[-ndim:], output_size), reduce)

    return reference


def mean(elements: np.ndarray, window: Any) -> np.ndarray:
    return elements.mean(-1)


def lp_pool(ndim: int) -> Callable[..., np.ndarray]:
    def reference(input: np.ndarray, norm_type: float, kernel_size: Any, **window: Any) -> np.ndarray:
        def norm(elements: np.ndarray, places: list[list[int]]) -> np.ndarray:
            if np.isinf(norm_type):
                return np.abs(elements).max(-1) if norm_type > 0 else np.abs(elements).min(-1)
            whole = np.prod([len(axis) for axis in places])  # a part counts for a whole window
            return ((elements**norm_type).sum(-1) * whole / elements.shape[-1]) ** (1 / norm_type)

        return pooled(input, strided_windows(input.shape[-ndim:], kernel_size, **window), norm)

    return reference


def fractional_pool(ndim: int) -> Callable[..., np.ndarray]:
    def reference(
        input: np.ndarray, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, _random_samples: Any = None, rng: Any = None,
    ) -> np.ndarray:  # fmt: skip
        size, planes = input.shape[-ndim:], input.shape[:-ndim]
        counts = axes_of(output_size, ndim) if output_size else tuple(int(n * r) for n, r in zip(size, axes_of(output_ratio, ndim)))
        samples = _random_samples
        if samples is None:
            samples = np.random.default_rng(rng).random((*planes, ndim), np.float32).astype(input.dtype)
        y = np.empty((*planes, *counts))
        for plane in np.ndindex(*planes):
            numbers = samples[plane][::-1] if ndim == 2 else samples[plane]
            windows = []
            for n, k, count, u in zip(size, axes_of(kernel_size, ndim), counts, numbers):
                a = (n - k) / max(count - 1, 1)
                starts = [int((i + u) * a) - int(u * a) for i in range(count - 1)] + [n - k]
                windows.append([list(range(s, s + k)) for s in starts])
            y[plane] = pooled(input[plane], windows, largest)
        return y

    return reference


def unpool(ndim: int) -> Callable[..., np.ndarray]:
    def reference(input: np.ndarray, indices: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        y = np.zeros((*input.shape[:-ndim], *size))
        for plane in np.ndindex(*input.shape[:-ndim]):
            y[plane].flat[indices[plane].ravel()] = input[plane].ravel()
        return y

    return reference


def unpool_row(name: str, op: str, ndim: int, shape: tuple[int, ...], result: tuple[int, ...], **options: Any) -> Row:
    """Places in any order, no two the same."""

    def indices(rng: np.random.Generator) -> np.ndarray:
        planes = [rng.permutation(int(np.prod(result)))[: int(np.prod(shape[-ndim:]))] for _ in range(int(np.prod(shape[:-ndim])))]
        return np.array(planes).reshape(shape)

    def reference(input: np.ndarray, indices: np.ndarray, **_: Any) -> np.ndarray:
        return unpool(ndim)(input, indices, result)

    return Row(name, op, {"input": shape}, reference, {"indices": indices, **options}, batched=())


def pool2d(input: np.ndarray, pool_size: Any, mode: str = "max", stride: Any = 1, padding: Any = 0) -> np.ndarray:
    pool = max_pool(2) if mode == "max" else avg_pool(2)
    return pool(input, pool_size, stride=stride, padding=padding)


def apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers at least 0.1 apart: no step of a difference quotient changes which is the largest."""
    size = int(np.prod(shape))
    return (rng.permutation(size) - size // 2).reshape(shape) * 0.1


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 2, shape)


def sizes_apart(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of either sign, no two of a size and none 0."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) + 1) * 0.1 * rng.choice([-1, 1], size)).reshape(shape)


def row(name: str, op: str, reference: Any, shape: tuple[int, ...], draw: Any = apart, **options: Any) -> Row:
    batched = () if len(shape) == int(op.partition("pool")[2][0]) + 1 else ("input",)
    if op.endswith("_with_indices"):  # several results count as one, flat
        return Row(name, op, {"input": shape}, lambda **given: (reference(**given),), options, (), draw)
    return Row(name, op, {"input": shape}, reference, options, batched, draw)


def samples(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.random(shape)

    return draw


ROWS = [
    row("2x2", "max_pool2d", max_pool(2), (2, 3, 6, 10), kernel_size=2),
    row("3x3_s2_p1", "max_pool2d", max_pool(2), (2, 2, 9, 21), kernel_size=3, stride=2, padding=1),
    row("overlapping", "max_pool2d", max_pool(2), (1, 2, 7, 20), kernel_size=3, stride=1, padding=1),
    row("dilated_ceil", "max_pool2d", max_pool(2), (1, 2, 9, 23), kernel_size=(2, 3), stride=(3, 4), dilation=(2, 3), padding=(1, 0), ceil_mode=True),
    row("wide", "max_pool2d", max_pool(2), (2, 2, 8, 14), kernel_size=7, stride=6, padding=3),
    row("unbatched", "max_pool2d_with_indices", max_pool(2), (3, 5, 6), kernel_size=2, stride=3),
    row("plain", "max_pool1d", max_pool(1), (2, 3, 19), kernel_size=3, stride=2, padding=1),
    row("stride_3", "max_pool1d_with_indices", max_pool(1), (2, 3, 29), kernel_size=4, stride=3),
    row("plain", "max_pool3d", max_pool(3), (2, 2, 4, 5, 6), kernel_size=2, stride=(1, 2, 2), padding=1),
    row("dilated", "max_pool3d_with_indices", max_pool(3), (1, 2, 5, 6, 7), kernel_size=2, stride=1, dilation=(2, 1, 3)),
    row("2x2", "avg_pool2d", avg_pool(2), (2, 3, 6, 11), kernel_size=2),
    row("3x3_s2_p1", "avg_pool2d", avg_pool(2), (2, 2, 9, 20), kernel_size=3, stride=2, padding=1),
    row("without_padding", "avg_pool2d", avg_pool(2), (1, 2, 7, 20), kernel_size=3, stride=1, padding=1, count_include_pad=False),
    row("ceil", "avg_pool2d", avg_pool(2), (1, 2, 8, 15), kernel_size=(2, 5), stride=(3, 4), padding=(1, 2), ceil_mode=True),
    row("divisor", "avg_pool2d", avg_pool(2), (2, 5, 9), kernel_size=3, stride=5, padding=1, divisor_override=-5),
    row("ceil", "avg_pool1d", avg_pool(1), (2, 3, 18), kernel_size=3, stride=3, padding=1, ceil_mode=True, count_include_pad=False),
    row("plain", "avg_pool3d", avg_pool(3), (2, 2, 4, 5, 6), kernel_size=(2, 3, 2), stride=(1, 2, 2), padding=1, divisor_override=3),
    row("uneven", "adaptive_avg_pool2d", adaptive_pool(2, mean), (2, 2, 7, 11), output_size=(3, 4)),
    row("whole", "adaptive_avg_pool2d", adaptive_pool(2, mean), (2, 3, 7, 8), output_size=1),
    row("more_than_there_are", "adaptive_avg_pool2d", adaptive_pool(2, mean), (2, 3, 5), output_size=(None, 7)),
    row("uneven", "adaptive_avg_pool1d", adaptive_pool(1, mean), (2, 3, 47), output_size=4),
    row("plain", "adaptive_avg_pool3d", adaptive_pool(3, mean), (1, 2, 4, 5, 6), output_size=(2, 3, 3)),
    row("uneven", "adaptive_max_pool2d", adaptive_pool(2, largest), (2, 2, 7, 11), output_size=(3, 4)),
    row("whole", "adaptive_max_pool2d", adaptive_pool(2, largest), (2, 3, 7, 8), output_size=1),
    row("kept_axis", "adaptive_max_pool2d_with_indices", adaptive_pool(2, largest), (2, 3, 5, 9), output_size=(None, 3)),
    row("plain", "adaptive_max_pool1d", adaptive_pool(1, largest), (2, 3, 18), output_size=6),
    row("wide", "adaptive_max_pool1d_with_indices", adaptive_pool(1, largest), (2, 3, 47), output_size=4),
    row("plain", "adaptive_max_pool3d", adaptive_pool(3, largest), (1, 2, 4, 5, 6), output_size=2),
    row("unbatched", "adaptive_max_pool3d_with_indices", adaptive_pool(3, largest), (2, 4, 5, 6), output_size=(3, 2, 4)),
    row("2", "lp_pool2d", lp_pool(2), (2, 2, 6, 9), positive, norm_type=2, kernel_size=(2, 3), stride=2),
    row("3_ceil", "lp_pool2d", lp_pool(2), (2, 2, 6, 8), positive, norm_type=3, kernel_size=3, stride=2, ceil_mode=True),
    row("fraction", "lp_pool1d", lp_pool(1), (2, 3, 17), positive, norm_type=2.5, kernel_size=4),
    row("inf", "lp_pool1d", lp_pool(1), (3, 17), sizes_apart, norm_type=float("inf"), kernel_size=3),
    row("minus_inf", "lp_pool2d", lp_pool(2), (1, 3, 7, 6), sizes_apart, norm_type=float("-inf"), kernel_size=3, stride=2),
    row("1", "lp_pool3d", lp_pool(3), (1, 2, 4, 5, 6), positive, norm_type=1, kernel_size=2),
    unpool_row("plain", "max_unpool2d", 2, (2, 3, 3, 4), (6, 8), kernel_size=2),
    unpool_row("output_size", "max_unpool2d", 2, (3, 3, 4), (6, 8), kernel_size=3, stride=2, padding=1, output_size=(6, 8)),
    unpool_row("plain", "max_unpool1d", 1, (2, 3, 5), (10,), kernel_size=2),
    unpool_row("plain", "max_unpool3d", 3, (1, 2, 2, 3, 2), (4, 6, 4), kernel_size=2),
    row("samples", "fractional_max_pool2d", fractional_pool(2), (2, 3, 9, 11), kernel_size=(2, 3), output_size=(4, 5), _random_samples=samples(2, 3, 2)),
    row("seed", "fractional_max_pool2d", fractional_pool(2), (2, 3, 8, 9), kernel_size=2, output_ratio=(0.5, 0.7), rng=7),
    row("unbatched", "fractional_max_pool2d_with_indices", fractional_pool(2), (3, 8, 9), kernel_size=2, output_size=4, rng=3),
    row("samples", "fractional_max_pool3d", fractional_pool(3), (2, 2, 4, 5, 6), kernel_size=2, output_size=(2, 3, 3), _random_samples=samples(2, 2, 3)),
    row("one", "fractional_max_pool3d_with_indices", fractional_pool(3), (1, 2, 4, 5, 6), kernel_size=2, output_size=1, rng=1),
    Row("plain", "pool2d", {"input": (6, 9)}, pool2d, {"pool_size": (2, 3)}, batched=(), draw=apart),
    Row("stacked", "pool2d", {"input": (2, 2, 1, 7, 8)}, pool2d, {"pool_size": 3, "stride": 2, "padding": 1}, draw=apart),
    Row("mean", "pool2d", {"input": (3, 6, 9)}, pool2d, {"pool_size": 2, "mode": "avg", "padding": 1}),
]  # fmt: skip
