"""Rows of the contract for interpolation, sampling and shuffles, with references that follow the definitions place by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import floor, prod
from typing import Any

import numpy as np

from tests.harness import Row

# ---- interpolate


def keys(t: float, a: float) -> float:
    """The cubic convolution kernel."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def triangle(t: float) -> float:
    return max(1 - abs(t), 0.0)


def lanczos(t: float) -> float:
    return float(np.sinc(t) * np.sinc(t / 3)) if abs(t) < 3 else 0.0


FILTERS: dict[str, tuple[Callable[[float], float], int]] = {
    "linear": (triangle, 1),
    "cubic": (lambda t: keys(t, -0.5), 2),
    "lanczos": (lanczos, 3),
}


def matrix(kind: str, inputs: int, outputs: int, factor: float | None, align_corners: bool, antialias: bool) -> np.ndarray:
    """What each output takes of each input."""
    found = np.zeros((outputs, inputs))
    scale = inputs / outputs if factor is None else 1 / factor
    if align_corners:
        scale = (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
    for p in range(outputs):
        source = scale * p if align_corners else scale * (p + 0.5) - 0.5
        if kind == "area":
            inside = range(p * inputs // outputs, -(-(p + 1) * inputs // outputs))
            found[p, inside] = 1 / len(inside)
        elif antialias:
            kernel, radius = FILTERS[kind]
            center, wide = scale * (p + 0.5), max(scale, 1.0)
            inside = range(max(int(center - radius * wide + 0.5), 0), min(int(center + radius * wide + 0.5), inputs))
            weights = [kernel((i + 0.5 - center) / wide) for i in inside]
            found[p, inside] = np.array(weights) / sum(weights)
        elif kind == "nearest":
            found[p, min(floor(scale * p), inputs - 1)] = 1
        elif kind == "nearest-exact":
            found[p, min(max(floor(scale * (p + 0.5)), 0), inputs - 1)] = 1
        elif kind == "linear":
            source = max(source, 0.0)
            for i in (floor(source), floor(source) + 1):
                found[p, min(i, inputs - 1)] += triangle(source - i)
        else:
            for i in range(floor(source) - 1, floor(source) + 3):
                found[p, min(max(i, 0), inputs - 1)] += keys(source - i, -0.75)
    return found


def interpolated(
    input: np.ndarray, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None,
    recompute_scale_factor: Any = None, antialias: bool = False,
) -> np.ndarray:  # fmt: skip
    kind = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    axes = input.ndim - 2
    factors = scale_factor if isinstance(scale_factor, tuple) else (scale_factor,) * axes
    sizes = size if isinstance(size, tuple) else (size,) * axes
    for axis, (n, f) in enumerate(zip(sizes, factors)):
        inputs = input.shape[axis + 2]
        outputs = n if f is None else int(inputs * f)
        factor = None if recompute_scale_factor or mode == "area" else f
        weights = matrix(kind, inputs, outputs, factor, bool(align_corners), antialias)
        x = np.moveaxis(input, axis + 2, 0)
        # no product with a weight of zero: what is not finite stays where it is seen
        y = [sum(weights[p, i] * x[i] for i in np.flatnonzero(weights[p])) for p in range(outputs)]
        input = np.moveaxis(np.array(y), 0, axis + 2)
    return input


def row(name: str, shape: tuple[int, ...], **options: Any) -> Row:
    return Row(name, "interpolate", {"input": shape}, interpolated, options)


# ---- grid_sample


def into_the_image(place: float, size: int, padding_mode: str, align_corners: bool) -> float:
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        span = high - low
        if span == 0:
            return 0.0
        turns, rest = divmod(abs(place - low), span)
        place = low + (span - rest if turns % 2 else rest)
    if padding_mode != "zeros":
        place = min(max(place, 0.0), size - 1.0)
    return place


def taps(place: float, size: int, mode: str, padding_mode: str, align_corners: bool) -> Iterator[tuple[int, float]]:
    """The indices and weights along one axis."""
    place = ((place + 1) * (size - 1) if align_corners else (place + 1) * size - 1) / 2
    if mode == "bicubic":
        for i in range(floor(place) - 1, floor(place) + 3):
            yield int(into_the_image(i, size, padding_mode, align_corners)), keys(place - i, -0.75)
        return
    place = into_the_image(place, size, padding_mode, align_corners)
    if mode == "nearest":
        yield int(np.rint(place)), 1.0
        return
    for i in (floor(place), floor(place) + 1):
        yield i, triangle(place - i)


def sampled(input: np.ndarray, grid: np.ndarray, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: Any = None) -> np.ndarray:
    size = input.shape[2:]
    y = np.zeros((*input.shape[:2], *grid.shape[1:-1]))
    for at in product(*map(range, grid.shape[:-1])):
        axes = [list(taps(p, n, mode, padding_mode, bool(align_corners))) for p, n in zip(grid[at][::-1], size)]
        for corner in product(*axes):
            index = tuple(i for i, _ in corner)
            if all(0 <= i < n for i, n in zip(index, size)):
                y[(at[0], slice(None), *at[1:])] += prod(w for _, w in corner) * input[(at[0], slice(None), *index)]
    return y


def places(*size: int, align_corners: bool = False) -> Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]:
    """Grids in and around an image, away from the kinks at whole and half pixels."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        n = np.array(size[::-1])
        pixel = rng.integers(-2, n + 2, shape) + rng.choice([0.0, 0.5], shape) + rng.uniform(0.1, 0.4, shape)
        return 2 * pixel / (n - 1) - 1 if align_corners else (2 * pixel + 1) / n - 1

    return draw


def sample_row(name: str, shape: tuple[int, ...], grid: tuple[int, ...], **options: Any) -> Row:
    draw = {"grid": places(*shape[2:], align_corners=options.get("align_corners", False))}
    # a cubic in the place: the error of a difference quotient falls with the square of the step
    step = 2.0**-16 if options.get("mode") == "bicubic" else 2.0**-13
    return Row(name, "grid_sample", {"input": shape, "grid": grid}, sampled, options, ("input", "grid"), draw, tolerance=2e-4, step=step)


def affine(theta: np.ndarray, size: Any, align_corners: Any = None) -> np.ndarray:
    def along(n: int) -> np.ndarray:
        return (np.linspace(-1, 1, n) if n > 1 else np.zeros(1)) if align_corners else (2 * np.arange(n) + 1) / n - 1

    axes = np.meshgrid(*map(along, size[2:]), indexing="ij")
    homogeneous = np.stack([*axes[::-1], np.ones(size[2:])], -1)
    return np.einsum("nij,...j->n...i", theta, homogeneous)


# ---- shuffles


def shuffled(input: np.ndarray, upscale_factor: int) -> np.ndarray:
    *lead, channels, height, width = input.shape
    r = upscale_factor
    y = np.zeros((*lead, channels // r**2, height * r, width * r))
    for c, i, j in product(range(channels // r**2), range(r), range(r)):
        y[..., c, i::r, j::r] = input[..., (c * r + i) * r + j, :, :]
    return y


def unshuffled(input: np.ndarray, downscale_factor: int) -> np.ndarray:
    r = downscale_factor
    parts = [input[..., c, i::r, j::r] for c, i, j in product(range(input.shape[-3]), range(r), range(r))]
    return np.stack(parts, -3)


def channels_shuffled(input: np.ndarray, groups: int) -> np.ndarray:
    per_group = input.shape[1] // groups
    return input[:, [k * per_group + c for c in range(per_group) for k in range(groups)]]


ROWS = [
    row("nearest", (2, 3, 5, 18), scale_factor=2.0),
    row("nearest_1d", (2, 3, 37), size=20),
    row("nearest_exact", (2, 2, 3, 4, 5), size=(5, 3, 11), mode="nearest-exact"),
    row("linear", (2, 3, 17), size=40, mode="linear"),
    row("bilinear", (2, 3, 5, 18), size=(12, 37), mode="bilinear"),
    row("bilinear_corners", (2, 3, 7, 20), size=(4, 33), mode="bilinear", align_corners=True),
    row("bilinear_raw", (2, 2, 7, 9), scale_factor=(1.7, 0.6), mode="bilinear"),
    row("bilinear_recomputed", (2, 2, 7, 9), scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
    row("bilinear_antialias", (2, 2, 23, 40), size=(9, 17), mode="bilinear", antialias=True),
    row("bicubic", (2, 2, 6, 7), size=(9, 20), mode="bicubic"),
    row("bicubic_antialias", (2, 2, 23, 11), scale_factor=(0.4, 1.6), mode="bicubic", antialias=True),
    row("lanczos", (1, 2, 23, 30), size=(9, 40), mode="lanczos", antialias=True),
    row("trilinear", (2, 2, 4, 5, 6), size=(7, 3, 19), mode="trilinear", align_corners=True),
    row("area", (2, 3, 13, 21), size=(5, 30), mode="area"),
    row("area_3d", (2, 2, 5, 6, 7), scale_factor=0.5, mode="area"),
    Row("bicubic", "upsample", {"input": (1, 2, 5, 6)}, interpolated, {"size": (7, 4), "mode": "bicubic", "align_corners": True}),
    sample_row("bilinear", (2, 20, 5, 4), (2, 3, 7, 2)),
    sample_row("bilinear_few_channels", (2, 2, 5, 4), (2, 9, 8, 2), padding_mode="reflection", align_corners=True),
    sample_row("bilinear_border", (2, 6, 3, 5), (2, 3, 5, 2), padding_mode="border"),
    sample_row("nearest", (2, 9, 5, 4), (2, 3, 5, 2), mode="nearest", padding_mode="reflection"),
    sample_row("bicubic", (2, 17, 5, 4), (2, 5, 4, 2), mode="bicubic", align_corners=True),
    sample_row("bicubic_reflection", (2, 2, 3, 4), (2, 5, 4, 2), mode="bicubic", padding_mode="reflection", align_corners=True),
    sample_row("trilinear", (2, 18, 3, 4, 2), (2, 2, 3, 2, 3)),
    sample_row("trilinear_border", (2, 2, 3, 4, 2), (2, 2, 3, 3, 3), padding_mode="border", align_corners=True),
    Row("two", "affine_grid", {"theta": (2, 2, 3)}, affine, {"size": (2, 1, 3, 19)}, batched=()),
    Row("three", "affine_grid", {"theta": (2, 3, 4)}, affine, {"size": (2, 1, 3, 1, 5), "align_corners": True}, batched=()),
    Row("by_2", "pixel_shuffle", {"input": (2, 8, 3, 19)}, shuffled, {"upscale_factor": 2}),
    Row("by_3", "pixel_shuffle", {"input": (2, 9, 3, 4)}, shuffled, {"upscale_factor": 3}),
    Row("by_2", "pixel_unshuffle", {"input": (2, 2, 6, 38)}, unshuffled, {"downscale_factor": 2}),
    Row("by_3", "pixel_unshuffle", {"input": (2, 2, 6, 9)}, unshuffled, {"downscale_factor": 3}),
    Row("groups", "channel_shuffle", {"input": (2, 6, 3, 7)}, channels_shuffled, {"groups": 3}),
    Row("1d", "channel_shuffle", {"input": (2, 8, 5)}, channels_shuffled, {"groups": 2}),
]
