"""interpolate: an image resampled to another size.

Each axis has its own sum over a window of inputs, with weights from the distance to the source coordinate s:

    y[.., p, q] = sum of h(p, i) w(q, j) x[.., i, j]
    s = scale (p + 1/2) - 1/2, or scale p with (inputs - 1) / (outputs - 1) as the scale where corners are aligned
    nearest        one tap, floor(scale p); nearest-exact: floor(scale (p + 1/2))
    linear         two taps, 1 - |s - i|
    cubic          four taps, Keys's kernel with a = -0.75; indices beyond an end are those of the end
    antialias      the linear kernel, Keys's with a = -0.5 or Lanczos's, stretched to the distance of outputs, normalised
    area           the mean over floor(p n / m) <= i < ceil((p + 1) n / m)

The gradient is the same sum with the tables transposed, dx[.., i, j] = sum of h(p, i) w(q, j) dy[.., p, q]: the owner of
dx[i, j] adds up what belongs to it. Nothing but shapes is kept. Source: Keys, "Cubic Convolution Interpolation for Digital
Image Processing" (1981), equation 4; Duchon, "Lanczos Filtering in One and Two Dimensions" (1979); PyTorch's coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite, prod
from typing import Any

from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.resize.resample import Plan, plan, resample
from fastops.ops.resize.tables import table, transposed_table
from fastops.simd.blocking import NAMES

# How the axes are resampled, and the numbers of axes that a mode is for.
_MODES = {
    "nearest": ("nearest", (1, 2, 3)),
    "nearest-exact": ("nearest-exact", (1, 2, 3)),
    "area": ("area", (1, 2, 3)),
    "linear": ("linear", (1,)),
    "bilinear": ("linear", (2,)),
    "trilinear": ("linear", (3,)),
    "bicubic": ("cubic", (2,)),
    "lanczos": ("lanczos", (2,)),
}
_INDEX = ("nearest", "nearest-exact", "area")  # modes without source coordinates whose corners could be aligned

Options = tuple[Any, Any, str, bool | None, bool, bool]


def _options(op: str, size: Any, scale_factor: Any, mode: Any, align_corners: Any, recompute_scale_factor: Any, antialias: Any) -> Options:
    """The options in a form that can be looked up."""
    _check.choice(op, "mode", mode, _MODES)
    sizes = _check.items(size)
    if sizes is not None:
        size = tuple(_check.integer(op, "size", n, minimum=1) for n in sizes)
    elif size is not None:
        size = _check.integer(op, "size", size, minimum=1)
    if scale_factor is not None:
        factors = _check.items(scale_factor)
        try:
            scale_factor = float(scale_factor) if factors is None else tuple(map(float, factors))
        except (TypeError, ValueError):
            raise TypeError(f"{op}: scale_factor must be a number or a tuple of numbers, got {scale_factor!r}") from None
    return size, scale_factor, mode, None if align_corners is None else bool(align_corners), bool(recompute_scale_factor), bool(antialias)


def _sizes(op: str, shape: tuple[int, ...], options: Options) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The extents of the result, and for each the scale factor that is used as it stands."""
    size, factor, mode, align_corners, recompute, antialias = options
    axes = len(shape) - 2
    if axes not in _MODES[mode][1]:
        names = {1: "(N, C, W)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
        allowed = " or ".join(names[n] for n in _MODES[mode][1])
        raise ValueError(f'{op}: input must have axes {allowed} with mode "{mode}", got shape {shape}')
    if 0 in shape[2:] or (shape[1] == 0 and mode != "area"):
        raise ValueError(f"{op}: input must have elements on every axis but the batch, got shape {shape}")
    if align_corners is not None and mode in _INDEX:
        raise ValueError(f'{op}: align_corners must be None with mode "{mode}", got {align_corners}')
    if antialias and mode not in ("bilinear", "bicubic", "lanczos"):
        raise ValueError(f'{op}: antialias must be False with mode "{mode}", got True')
    if mode == "lanczos" and (align_corners or not antialias):
        raise ValueError(f'{op}: mode must come with antialias=True and without align_corners if it is "lanczos"')
    if (size is None) == (factor is None):
        raise ValueError(f"{op}: size or scale_factor must be given, and not both, got {size} and {factor}")
    for name, value in (("size", size), ("scale_factor", factor)):
        if isinstance(value, tuple) and len(value) != axes:
            raise ValueError(f"{op}: {name} must be a number or {axes} of them, got {value}")
    if size is not None:
        if recompute:
            raise ValueError(f"{op}: recompute_scale_factor must not be given with size, got True")
        return size if isinstance(size, tuple) else (size,) * axes, (None,) * axes
    factors = factor if isinstance(factor, tuple) else (factor,) * axes
    products = [n * f for n, f in zip(shape[2:], factors)]
    if not all(isfinite(p) and 1 <= p < 2**62 for p in products):
        raise ValueError(f"{op}: scale_factor must leave at least one element an axis, got {factor} for input shape {shape}")
    return tuple(map(int, products)), (None,) * axes if recompute or mode == "area" else factors


@lru_cache(maxsize=64)
def _plan(op: str, shape: tuple[int, ...], dtype: str, gradient: bool, options: Options) -> tuple[tuple[int, ...], Plan]:
    """The shape of the result, and the way from the input to it, or from its gradient back."""
    sizes, factors = _sizes(op, shape, options)
    result = (*shape[:2], *sizes)
    _check.fits(op, "size" if options[1] is None else "scale_factor", "the result", result, 8)
    missing = 3 - len(sizes)
    inputs, outputs = (1,) * missing + shape[2:], (1,) * missing + sizes
    _, _, mode, align_corners, _, antialias = options
    planar = missing == 1
    if planar and mode == "nearest":
        # PyTorch's kernels of two axes, and no others, count pixels where a size stays or doubles, whatever the scale factor
        factors = tuple(None if m in (n, 2 * n) else f for n, m, f in zip(shape[2:], sizes, factors))
    keys = [(_MODES[mode][0], n, m, f, bool(align_corners), antialias, dtype, planar) for n, m, f in zip(shape[2:], sizes, factors)]
    keys = [("nearest", 1, 1, None, False, False, dtype, planar)] * missing + keys
    tables = [transposed_table(*key) if gradient else table(*key) for key in keys]
    return result, plan(prod(shape[:2]), outputs if gradient else inputs, tuple(tables), dtype)  # type: ignore[arg-type]


def _forward(op: str, input: ArrayLike, *options: Any) -> Array:
    (x,), dtype = _check.as_arrays(op, input=input)
    shape, how = _plan(op, x.shape, NAMES[x.dtype.char], False, _options(op, *options))
    return resample(x, how, shape).astype(dtype, copy=False)


def _backward(op: str, grad_output: ArrayLike, input: ArrayLike, *options: Any) -> Array:
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    shape = _check.shape_of(op, "input", input, dtype)
    result, how = _plan(op, shape, NAMES[dy.dtype.char], True, _options(op, *options))
    if dy.shape != result:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {result}, got {dy.shape}")
    return resample(dy, how, shape).astype(dtype, copy=False)


Size = int | Sequence[int] | None
Factor = float | Sequence[float] | None


@operation
def interpolate(
    input: ArrayLike, size: Size = None, scale_factor: Factor = None, mode: str = "nearest", align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Array:  # fmt: skip
    """Resample images to another size: ``torch.nn.functional.interpolate``.

    Args:
        input: (N, C, W), (N, C, H, W) or (N, C, D, H, W).
        size: extents of the result, an integer or one for each axis.
        scale_factor: instead of ``size``, outputs an input; the extents are rounded down. "nearest" of two axes takes a factor by
            which an extent stays or doubles for exactly 1 or 2.
        mode: "nearest" (indices rounded down, as in old OpenCV), "nearest-exact", "area"; "linear" for one axis, "bilinear",
            "bicubic" for two, "trilinear" for three; "lanczos", which takes ``antialias``.
        align_corners: whether the centres of the corner elements meet, instead of the corners of the images.
        recompute_scale_factor: compute coordinates from the extents, and not from ``scale_factor`` as it is.
        antialias: widen the filter where inputs outnumber outputs ("bilinear", "bicubic").

    Returns:
        (N, C, ...) with the new extents, of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> x = np.array([[[0.0, 1.0]]])
    >>> interpolate(x, 4), interpolate(x, 4, mode="linear"), interpolate(x, 3, mode="linear", align_corners=True)
    (array([[[0., 0., 1., 1.]]]), array([[[0.  , 0.25, 0.75, 1.  ]]]), array([[[0. , 0.5, 1. ]]]))
    """
    return _forward("interpolate", input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)


def interpolate_backward(
    grad_output: ArrayLike, input: ArrayLike, size: Size = None, scale_factor: Factor = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Array:  # fmt: skip
    """Gradient of :func:`interpolate` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> interpolate_backward(np.ones((1, 1, 5)), np.zeros((1, 1, 2)), 5)
    array([[[3., 2.]]])
    """
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    return _backward("interpolate_backward", grad_output, input, *options)


@operation
def upsample(input: ArrayLike, size: Size = None, scale_factor: Factor = None, mode: str = "nearest", align_corners: bool | None = None) -> Array:
    """The older name of :func:`interpolate`: ``torch.nn.functional.upsample``.

    >>> import numpy as np
    >>> upsample(np.array([[[0.0, 1.0]]]), scale_factor=2)
    array([[[0., 0., 1., 1.]]])
    """
    return _forward("upsample", input, size, scale_factor, mode, align_corners, None, False)


def upsample_backward(
    grad_output: ArrayLike, input: ArrayLike, size: Size = None, scale_factor: Factor = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`upsample` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> upsample_backward(np.ones((1, 1, 4)), np.zeros((1, 1, 2)), 4)
    array([[[2., 2.]]])
    """
    return _backward("upsample_backward", grad_output, input, size, scale_factor, mode, align_corners, None, False)


register(interpolate, interpolate_backward, inputs=("input",), saved=())
register(upsample, upsample_backward, inputs=("input",), saved=())
