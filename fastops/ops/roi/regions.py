"""Features of boxes: every box of an image, whatever its size, becomes P x Q numbers a channel.

    roi_align:     the mean of bilinear samples on a grid in each bin
    roi_pool:      the largest element of each bin, corners rounded to elements
    ps_roi_align, ps_roi_pool:  means, where bin (p, q) of channel c is taken from channel (c P + p) Q + q of the features

Means are sums with weights that are separable (``bins.py``); their gradient needs shapes and boxes alone. Kept for roi_pool is
the place of every maximum. Boxes get no gradient, as in torchvision.

Source: Girshick, "Fast R-CNN" (2015), section 2.1; He, Gkioxari, Dollar, Girshick, "Mask R-CNN" (2017), section 3; Dai, Li, He,
Sun, "R-FCN: Object Detection via Region-based Fully Convolutional Networks" (2016), equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.roi.bins import Bands, bilinear, boxes_of, even, features, gather, scale_of, spread

Size = int | tuple[int, int]
Boxes = ArrayLike | Sequence[ArrayLike]

# Coordinates times the scale stay below: their floor fits an index, and grids do not run forever.
_LIMIT = 1 << 24


def _problem(
    op: str, shape: tuple[int, ...], dtype: np.dtype[Any], boxes: Any, output_size: Any, spatial_scale: Any,
) -> tuple[Array, Array, tuple[int, ...]]:  # fmt: skip
    """The image and the scaled corners of every box, and P and Q."""
    features(op, "input", shape)
    size = _check.integers(op, "output_size", output_size, 2, minimum=1)
    scale = scale_of(op, spatial_scale)
    image, corners = boxes_of(op, boxes, shape[0], dtype, _LIMIT)
    corners = corners * corners.dtype.type(scale)
    if corners.size and not np.abs(corners).max() <= _LIMIT:
        raise ValueError(f"{op}: spatial_scale must keep coordinates within {_LIMIT}, got {spatial_scale!r}")
    _check.fits(op, "boxes", "the output", (len(corners), *shape[1:2], *size), 8)
    return image, corners, size


def _ratio(op: str, sampling_ratio: Any) -> int:
    ratio = _check.integer(op, "sampling_ratio", sampling_ratio, minimum=-(1 << 31))
    if ratio > 1 << 12:
        raise ValueError(f"{op}: sampling_ratio must be at most {1 << 12}, got {ratio}")
    return ratio


def _divided(op: str, channels: int, size: tuple[int, ...]) -> int:
    """The channels of a position-sensitive result."""
    if channels % (size[0] * size[1]):
        raise ValueError(f"{op}: input must have a multiple of {size[0]} x {size[1]} channels, got {channels}")
    return channels // (size[0] * size[1])


def _grid(length: Array, bins: int, ratio: int) -> Array:
    """Samples along an axis of a bin."""
    if ratio > 0:
        return np.full(length.size, ratio, np.int64)
    return np.maximum(np.ceil(length / length.dtype.type(bins)), 0).astype(np.int64)


def _align_bands(corners: Array, size: tuple[int, ...], extents: tuple[int, ...], ratio: int, shift: bool, least: bool) -> tuple[Bands, Bands]:
    """Rows and columns of bins with bilinear samples: ``shift`` by half an element, boxes of at ``least`` one."""
    half = corners.dtype.type(0.5 if shift else 0)
    bands = []
    for axis, bins, extent in ((1, size[0], extents[0]), (0, size[1], extents[1])):
        start = corners[:, axis] - half
        length = corners[:, axis + 2] - half - start
        if least:
            length = np.maximum(length, length.dtype.type(1))
        start, length = np.ascontiguousarray(start), np.ascontiguousarray(length)
        bands.append(bilinear(start, length, _grid(length, bins, ratio), extent, bins))
    return bands[0], bands[1]


def _round(x: Array) -> Array:
    """To the nearest integer, halves away from zero."""
    return (np.sign(x) * np.floor(np.abs(x) + x.dtype.type(0.5))).astype(np.int64)


def _whole_bins(corners: Array, size: tuple[int, ...], extents: tuple[int, ...], inclusive: bool) -> tuple[Array, Array]:
    """First and end of the elements of every bin of rounded boxes, along both axes.

    roi_pool's boxes include their last element; those of ps_roi_pool do not, and never reach the last row and column of the
    image either: torchvision clips to size - 1.
    """
    real, found = corners.dtype.type, []
    for axis, bins, extent in ((1, size[0], extents[0]), (0, size[1], extents[1])):
        start, stop = _round(corners[:, axis]), _round(corners[:, axis + 2])
        width = np.maximum(stop - start + inclusive, 1).astype(real)[:, None] / real(bins)
        p = np.arange(bins).astype(real)
        edges = np.stack([np.floor(p * width), np.ceil((p + real(1)) * width)], -1).astype(np.int64) + start[:, None, None]
        edges = np.clip(edges, 0, extent if inclusive else extent - 1)
        found.append(np.ascontiguousarray(np.stack([edges[..., 0], np.maximum(edges[..., 0], edges[..., 1])], -1)))
    return found[0], found[1]


@separate
def _largest_box(block, worker, x, image, rows, columns, lowest, y, places):
    """y[k] (C, P, Q) of one box and the place of each maximum in its plane, -1 where no element is larger than ``lowest``."""
    _, C, P, Q = y.shape
    for c in range(C):
        plane = x[image[block], c]
        for p in range(P):
            y0, y1 = rows[block, p, 0], rows[block, p, 1]
            for q in range(Q):
                x0, x1 = columns[block, q, 0], columns[block, q, 1]
                largest, place = lowest, -1
                for h in range(y0, y1):
                    for w in range(x0, x1):
                        if plane[h, w] > largest:
                            largest, place = plane[h, w], h * plane.shape[1] + w
                y[block, c, p, q] = largest if y1 > y0 and x1 > x0 else y.dtype.type(0)
                places[block, c, p, q] = place


@separate
def _send_back_plane(block, worker, dy, image, places, dx):
    """dx[n, c] of one plane: dy of every box of the image at the places of its maxima."""
    n, c = block // dx.shape[1], block % dx.shape[1]
    plane = dx[n, c].ravel()
    plane[:] = dx.dtype.type(0)
    for k in range(dy.shape[0]):
        if image[k] == n:
            for p in range(dy.shape[2]):
                for q in range(dy.shape[3]):
                    if places[k, c, p, q] >= 0:
                        plane[places[k, c, p, q]] += dy[k, c, p, q]


@launcher
def _find_largest(threads, x, image, rows, columns, lowest, y, places):
    parallel(_largest_box, y.shape[0], threads, (x, image, rows, columns, lowest, y, places))


@launcher
def _send_back(threads, dy, image, places, dx):
    parallel(_send_back_plane, dx.shape[0] * dx.shape[1], threads, (dy, image, places, dx))


def _gradient(op: str, grad_output: Any, input: Any) -> tuple[Array, np.dtype[Any], tuple[int, ...]]:
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    return dy, dtype, _check.shape_of(op, "input", input, dtype)


def _check_gradient(op: str, dy: Array, *shape: int) -> None:
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {dy.shape}")


@operation
def roi_align(
    input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0, sampling_ratio: int = -1, aligned: bool = False,
) -> Array:  # fmt: skip
    """The mean of bilinear samples in each bin of each box: ``torchvision.ops.roi_align``.

    Samples more than one element outside the image count as zeros. Time grows with the samples, K C P Q grid**2.

    Args:
        input: features (N, C, H, W), float16, float32 or float64.
        boxes: (K, 5), the number of the image, then x1, y1, x2, y2; or for each image an array (L, 4). Of the dtype of the input.
        output_size: bins P, Q, an integer or two.
        spatial_scale: what coordinates are multiplied by to be in elements of the features.
        sampling_ratio: samples along each axis of a bin; 0 or less stands for the size of a bin, rounded up.
        aligned: whether element 0 has its centre at 0.5 of the boxes' coordinates. Otherwise at 0, and boxes are at least 1 wide.

    Returns:
        (K, C, P, Q), of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; an image that is not there.

    >>> import numpy as np
    >>> roi_align(np.arange(16.0).reshape(1, 1, 4, 4), [np.array([[0.0, 0.0, 2.0, 2.0]])], 2)
    array([[[[2.5, 3.5],
             [6.5, 7.5]]]])
    """
    op = "roi_align"
    (x,), dtype = _check.as_arrays(op, input=input)
    image, corners, size = _problem(op, x.shape, dtype, boxes, output_size, spatial_scale)
    bands = _align_bands(corners, size, x.shape[2:], _ratio(op, sampling_ratio), bool(aligned), not aligned)
    return gather(x, image, False, bands, x.shape[1]).astype(dtype, copy=False)


def roi_align_backward(
    grad_output: ArrayLike, input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0, sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:  # fmt: skip
    """Gradient of :func:`roi_align` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> roi_align_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), np.array([[0.0, 0.0, 0.0, 1.0, 1.0]]), 1)
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    op = "roi_align_backward"
    dy, dtype, shape = _gradient(op, grad_output, input)
    image, corners, size = _problem(op, shape, dtype, boxes, output_size, spatial_scale)
    _check_gradient(op, dy, len(image), shape[1], *size)
    bands = _align_bands(corners, size, shape[2:], _ratio(op, sampling_ratio), bool(aligned), not aligned)
    return spread(dy, image, False, bands, shape).astype(dtype, copy=False)


@operation
def ps_roi_align(
    input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0, sampling_ratio: int = -1,
) -> Array:  # fmt: skip
    """As an aligned :func:`roi_align`, each bin from channels of its own: ``torchvision.ops.ps_roi_align``.

    Returns:
        (K, C / (P Q), P, Q), of the dtype of the input; zeros for a box without samples.

    >>> import numpy as np
    >>> ps_roi_align(np.arange(4.0).reshape(1, 4, 1, 1) * np.ones((4, 4)), np.array([[0.0, 0.0, 0.0, 4.0, 4.0]]), 2)
    array([[[[0., 1.],
             [2., 3.]]]])
    """
    op = "ps_roi_align"
    (x,), dtype = _check.as_arrays(op, input=input)
    image, corners, size = _problem(op, x.shape, dtype, boxes, output_size, spatial_scale)
    channels = _divided(op, x.shape[1], size)
    bands = _align_bands(corners, size, x.shape[2:], _ratio(op, sampling_ratio), True, False)
    return gather(x, image, True, bands, channels).astype(dtype, copy=False)


def ps_roi_align_backward(
    grad_output: ArrayLike, input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0, sampling_ratio: int = -1,
) -> Array:  # fmt: skip
    """Gradient of :func:`ps_roi_align` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> ps_roi_align_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), np.array([[0.0, 0.0, 0.0, 2.0, 2.0]]), 1)
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    op = "ps_roi_align_backward"
    dy, dtype, shape = _gradient(op, grad_output, input)
    image, corners, size = _problem(op, shape, dtype, boxes, output_size, spatial_scale)
    _check_gradient(op, dy, len(image), _divided(op, shape[1], size), *size)
    bands = _align_bands(corners, size, shape[2:], _ratio(op, sampling_ratio), True, False)
    return spread(dy, image, True, bands, shape).astype(dtype, copy=False)


@operation
def ps_roi_pool(input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0) -> Array:
    """The mean of each bin of each box, corners rounded, each bin from channels of its own: ``torchvision.ops.ps_roi_pool``.

    Arguments as for :func:`roi_align`. The last row and column of the image are never reached, as in torchvision.

    Returns:
        (K, C / (P Q), P, Q), of the dtype of the input; zeros for an empty bin.

    >>> import numpy as np
    >>> ps_roi_pool(np.arange(4.0).reshape(1, 4, 1, 1) * np.ones((4, 4)), np.array([[0.0, 0.0, 0.0, 3.0, 3.0]]), 2)
    array([[[[0., 1.],
             [2., 3.]]]])
    """
    op = "ps_roi_pool"
    (x,), dtype = _check.as_arrays(op, input=input)
    image, corners, size = _problem(op, x.shape, dtype, boxes, output_size, spatial_scale)
    channels = _divided(op, x.shape[1], size)
    rows, columns = _whole_bins(corners, size, x.shape[2:], inclusive=False)
    return gather(x, image, True, (even(rows, x.dtype), even(columns, x.dtype)), channels).astype(dtype, copy=False)


def ps_roi_pool_backward(
    grad_output: ArrayLike, input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0,
) -> Array:  # fmt: skip
    """Gradient of :func:`ps_roi_pool` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> ps_roi_pool_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 3, 3)), np.array([[0.0, 0.0, 0.0, 2.0, 1.0]]), 1)
    array([[[[0.5, 0.5, 0. ],
             [0. , 0. , 0. ],
             [0. , 0. , 0. ]]]])
    """
    op = "ps_roi_pool_backward"
    dy, dtype, shape = _gradient(op, grad_output, input)
    image, corners, size = _problem(op, shape, dtype, boxes, output_size, spatial_scale)
    _check_gradient(op, dy, len(image), _divided(op, shape[1], size), *size)
    rows, columns = _whole_bins(corners, size, shape[2:], inclusive=False)
    return spread(dy, image, True, (even(rows, dy.dtype), even(columns, dy.dtype)), shape).astype(dtype, copy=False)


def _pool(op: str, x: Array, dtype: np.dtype[Any], boxes: Any, output_size: Any, spatial_scale: Any) -> tuple[Array, Array]:
    image, corners, size = _problem(op, x.shape, dtype, boxes, output_size, spatial_scale)
    rows, columns = _whole_bins(corners, size, x.shape[2:], inclusive=True)
    y = empty((image.size, x.shape[1], *size), x.dtype)
    places = empty(y.shape, np.int64)
    if y.size:
        high, wide = ((e[..., 1] - e[..., 0]).sum(1) for e in (rows, columns))
        threads = threads_for(float(np.dot(high, wide)) * x.shape[1])
        _find_largest(threads, x, image, rows, columns, x.dtype.type(-np.finfo(np.float32).max), y, places)
    return y, places


@operation
def roi_pool(input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0) -> Array:
    """The largest element of each bin of each box: ``torchvision.ops.roi_pool``.

    Corners are rounded to elements, halves away from zero, and a box includes its last row and column. As in torchvision NaN does
    not count, and no result is below the smallest float32.

    Args:
        input, boxes, output_size, spatial_scale: as for :func:`roi_align`.

    Returns:
        (K, C, P, Q), of the dtype of the input; zeros for a bin without elements.

    >>> import numpy as np
    >>> roi_pool(np.arange(16.0).reshape(1, 1, 4, 4), np.array([[0.0, 0.0, 0.0, 1.0, 3.0]]), 2)
    array([[[[ 4.,  5.],
             [12., 13.]]]])
    """
    (x,), dtype = _check.as_arrays("roi_pool", input=input)
    return _pool("roi_pool", x, dtype, boxes, output_size, spatial_scale)[0].astype(dtype, copy=False)


def roi_pool_backward(
    grad_output: ArrayLike, input: ArrayLike, boxes: Boxes, output_size: Size, spatial_scale: float = 1.0, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`roi_pool` with respect to its input.

    Args:
        indices: (K, C, P, Q), the places that the forward pass found, -1 for none; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0], [4.0, 3.0]]]])
    >>> roi_pool_backward(np.ones((1, 1, 1, 1)), x, np.array([[0.0, 0.0, 0.0, 1.0, 1.0]]), 1)
    array([[[[0., 0.],
             [1., 0.]]]])
    """
    op = "roi_pool_backward"
    dy, dtype, shape = _gradient(op, grad_output, input)
    image, _, size = _problem(op, shape, dtype, boxes, output_size, spatial_scale)
    _check_gradient(op, dy, len(image), shape[1], *size)
    if indices is None:
        (x,), _ = _check.as_arrays(op, input=input)
        places = _pool(op, x, dtype, boxes, output_size, spatial_scale)[1]
    else:
        places = _check.to_ndarray(op, "indices", indices, of="integers")
        if places.dtype.kind not in "iu":
            raise TypeError(f"{op}: indices must have an integer dtype, got {places.dtype}")
        if places.shape != dy.shape or (places.size and not -1 <= places.min() <= places.max() < shape[2] * shape[3]):
            raise ValueError(f"{op}: indices must be {dy.shape} numbers from -1 below {shape[2] * shape[3]}, got shape {places.shape}")
        places = np.require(places.astype(np.int64, copy=False), None, ["C", "A", "W"])
    dx = empty(shape, dy.dtype)
    if dx.size:
        _send_back(threads_for(dy.size * 2.0 + dx.size * 0.1), dy, image, places, dx)
    return dx.astype(dtype, copy=False)


def _roi_pool_record(input: Any, boxes: Any, output_size: Any, spatial_scale: float = 1.0) -> tuple[Array, dict[str, Any]]:
    (x,), dtype = _check.as_arrays("roi_pool", input=input)
    y, places = _pool("roi_pool", x, dtype, boxes, output_size, spatial_scale)
    return y.astype(dtype, copy=False), {"indices": places}


register(roi_align, roi_align_backward, inputs=("input",), saved=())
register(ps_roi_align, ps_roi_align_backward, inputs=("input",), saved=())
register(ps_roi_pool, ps_roi_pool_backward, inputs=("input",), saved=())
register(roi_pool, roi_pool_backward, inputs=("input",), saved=(), record=_roi_pool_record)
