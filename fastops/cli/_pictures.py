"""Pictures out of files, for the commands that take them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 65535  # of 16 bits


def decoded(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """The picture as Pillow decodes it, in colours: float32 in [0, 1], (height, width, 3).

    Raises:
        ImportError: Pillow is not installed.
        ValueError: the file is no picture, or one whose white is unknown.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            # Pillow clips what has more than 8 bits instead of scaling it.
            deep = picture.mode in ("I", "F") or picture.mode.startswith("I;16")
            pixels: Any = np.asarray(picture if deep else picture.convert("RGB"))
    except Exception as error:  # pillow raises whatever its decoders do
        raise ValueError(str(error)) from None
    if not deep:
        return pixels.astype(np.float32) / 255
    white = 1 if pixels.dtype.kind == "f" else LARGEST
    if not (pixels.min() >= 0 and pixels.max() <= white):
        raise ValueError(f"a picture of {pixels.dtype} must have pixels between 0 and {white}, got {pixels.min():g} to {pixels.max():g}")
    return np.repeat((pixels / white).astype(np.float32)[:, :, np.newaxis], 3, axis=2)
