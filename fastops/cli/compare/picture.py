"""A real picture carried through a network's layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastops.cli._layers import FORWARD, Layer
from fastops.cli._pictures import decoded
from fastops.cli.shapes import ConvShape

Array = NDArray[np.float32]


def read_picture(path: str) -> Array:
    """The picture as (channels, height, width) float32, decoded by Pillow, which a ``.npy`` file does not need."""
    pixels: Any
    if Path(path).suffix == ".npy":
        pixels = np.load(path, allow_pickle=False)
    else:
        try:
            pixels = decoded(path)
        except ImportError:
            raise ImportError("reading a picture takes Pillow (pip install pillow); a .npy file does not") from None
    pixels = np.asarray(pixels)
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"a picture holds real numbers, this file {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"a picture is (height, width) or (height, width, 1 to 4 channels), this file holds {pixels.shape}")
    if not np.isfinite(pixels).all():
        raise ValueError("a picture holds finite numbers, this file NaN or infinity")
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))  # without the alpha channel
    return np.ascontiguousarray(pixels[:, :, :colours].transpose(2, 0, 1), dtype=np.float32)


def _resampling(length: int, target: int) -> Array:
    """The (target, length) matrix of linear interpolation, its tent widened to average when the axis shrinks."""
    scale = max(1.0, length / target)
    centres = (np.arange(target) + 0.5) * (length / target) - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(length) - centres[:, np.newaxis]) / scale)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def resize(images: NDArray[Any], size: tuple[int, ...]) -> Array:
    """``images`` (..., height, width) at another size."""
    rows, columns = (_resampling(n, m) for n, m in zip(images.shape[-2:], size, strict=True))
    result: Array = rows @ images.astype(np.float32) @ columns.T
    return result


def fit(images: NDArray[Any], shape: ConvShape, batch: int) -> Array:
    """``images`` (N, C, H, W) made into an input of ``shape``: resized, channels averaged into one or repeated, unit variance."""
    resized = resize(images, shape.size) if images.shape[2:] != shape.size else images.astype(np.float32)
    if shape.channels == 1:
        resized = resized.mean(axis=1, keepdims=True)
    resized = resized[:, np.arange(shape.channels) % resized.shape[1]]
    resized = resized[np.arange(batch) % len(resized)]
    scale = resized.std(dtype=np.float64)
    return np.asarray(resized / np.float32(scale or 1.0), dtype=np.float32)


def first_input(picture: Array, shape: ConvShape, batch: int) -> Array:
    """What the network sees: the picture with mean 0 and variance 1."""
    return fit((picture - picture.mean(dtype=np.float64))[np.newaxis], shape, batch)


def next_input(layer: Layer, shape: ConvShape) -> Array:
    """The input of the next shape: this layer's output after ReLU, fitted."""
    return fit(np.maximum(layer.call(FORWARD, "auto")(), 0), shape, layer.batch)
