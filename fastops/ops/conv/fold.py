"""unfold: the windows of an image as columns of a matrix (im2col). fold: its transpose, which adds columns into an image.

    unfold: columns[n, (c, r, s), (p, q)] = x[n, c, p stride + r dilation - padding, q stride + s dilation - padding]
    fold:   y[n, c, h, w] = sum of columns[n, (c, r, s), (p, q)] over all (r, s, p, q) that meet (h, w)

Each is the gradient of the other, and nothing but shapes is needed for that. Source: Chellapilla, Puri, Simard, "High
Performance Convolutional Neural Networks for Document Processing" (2006), section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check, _shapes
from fastops._check import Array, Pair
from fastops._jit import launcher, parallel, separate
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.conv.naive import meeting
from fastops.ops.conv.ready import Integers, Pads

_NS_PER_BYTE = 0.12


@separate
def _unfold_channel(block, worker, x, stride, dilation, padding, columns):
    """columns[n, c] for one image and channel; x (N, C, H, W), columns (N, C, R, S, P, Q)."""
    n, c = block // x.shape[1], block % x.shape[1]
    _, _, H, W = x.shape
    _, _, R, S, P, Q = columns.shape
    zero = x.dtype.type(0)
    for r in range(R):
        top = r * dilation[0] - padding[0]
        p_first, p_end = meeting(top, stride[0], H, P)
        for s in range(S):
            left = s * dilation[1] - padding[1]
            q_first, q_end = meeting(left, stride[1], W, Q)
            for p in range(P):
                row = columns[n, c, r, s, p]
                if p < p_first or p >= p_end or q_first >= q_end:
                    row[:] = zero
                    continue
                row[:q_first] = zero
                x_row, inside = x[n, c, p * stride[0] + top, q_first * stride[1] + left :], row[q_first:]
                for q in range(q_end - q_first):
                    inside[q] = x_row[np.uintp(q * stride[1])]
                row[q_end:] = zero


@separate
def _fold_channel(block, worker, columns, stride, dilation, padding, y):
    """y[n, c] for one image and channel; columns (N, C, R, S, P, Q), y (N, C, H, W)."""
    n, c = block // y.shape[1], block % y.shape[1]
    _, _, H, W = y.shape
    _, _, R, S, P, Q = columns.shape
    y[n, c] = y.dtype.type(0)
    for r in range(R):
        top = r * dilation[0] - padding[0]
        p_first, p_end = meeting(top, stride[0], H, P)
        for s in range(S):
            left = s * dilation[1] - padding[1]
            q_first, q_end = meeting(left, stride[1], W, Q)
            for p in range(p_first, p_end):
                y_row, inside = (
                    y[n, c, p * stride[0] + top, q_first * stride[1] + left :],
                    columns[n, c, r, s, p, q_first:],
                )
                for q in range(q_end - q_first):
                    y_row[np.uintp(q * stride[1])] += inside[q]


@launcher
def _unfold(threads, x, stride, dilation, padding, columns):
    parallel(_unfold_channel, x.shape[0] * x.shape[1], threads, (x, stride, dilation, padding, columns))


@launcher
def _fold(threads, columns, stride, dilation, padding, y):
    parallel(_fold_channel, y.shape[0] * y.shape[1], threads, (columns, stride, dilation, padding, y))


@dataclass(frozen=True)
class _Windows:
    """The windows of an image (N, C, H, W), which have ``columns`` (N, C, R, S, P, Q) elements."""

    image: tuple[int, ...]
    columns: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[Pair, ...]
    batched: bool

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """(N, C R S, P Q), without N when there is no batch."""
        n, c, r, s, p, q = self.columns
        return (n, c * r * s, p * q)[0 if self.batched else 1 :]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(N, C, H, W), without N when there is no batch."""
        return self.image[0 if self.batched else 1 :]


def _windows(
    op: str, batch: int, channels: Callable[[int], int], size: tuple[int, ...], named: str, itemsize: int, batched: bool,
    kernel_size: Any, dilation: Any, padding: Any, stride: Any,
) -> _Windows:  # fmt: skip
    """Check attributes; ``channels`` gives the channels of the image from the elements of a window."""
    kernel = _check.integers(op, "kernel_size", kernel_size, 2, minimum=1)
    dilations = _check.integers(op, "dilation", dilation, 2, minimum=1)
    strides = _check.integers(op, "stride", stride, 2, minimum=1)
    pads = _check.paddings(op, "padding", padding, 2)
    assert not isinstance(pads, str)
    count = tuple(_shapes.window_output(n, k, s, d, *pad) for n, k, s, d, pad in zip(size, kernel, strides, dilations, pads))
    if min(count) < 1:
        padded = tuple(n + sum(pad) for n, pad in zip(size, pads))
        extent = tuple(map(_shapes.effective_kernel, kernel, dilations))
        raise ValueError(f"{op}: kernel_size must fit {named} with padding, {padded}, got {kernel}, {extent} with dilation")
    channel_count = channels(prod(kernel))
    padded = tuple(n + sum(pad) for n, pad in zip(size, pads))
    columns = (batch, channel_count, *kernel, *count)
    _check.fits(op, "padding", f"{named} with padding", (batch, channel_count, *padded), itemsize)
    _check.fits(op, "kernel_size", "the array of windows", columns, itemsize)
    # A stride beyond the image changes nothing; clamped, products with it stay in range.
    strides = tuple(min(s, n) for s, n in zip(strides, padded))
    return _Windows((batch, channel_count, *size), columns, strides, dilations, pads, batched)


def _run(
    op: str, kernel: Any, x: Array, windows: _Windows, from_shape: tuple[int, ...], to_shape: tuple[int, ...],
    shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None,
) -> Array:  # fmt: skip
    y = _check.target(op, out, shape, dtype, x)
    if y.size:
        before = tuple(pad[0] for pad in windows.padding)
        threads = threads_for(prod(windows.columns) * y.itemsize * _NS_PER_BYTE)
        kernel(threads, x.reshape(from_shape), windows.stride, windows.dilation, before, y.reshape(to_shape))
    return _check.deliver(y, out, dtype)


def _image_windows(op: str, shape: tuple[int, ...], itemsize: int, *attributes: Any) -> _Windows:
    if len(shape) not in (3, 4) or min(shape[-3:]) < 1:
        raise ValueError(f"{op}: input must have axes (N, C, H, W) or (C, H, W), of at least 1 but for N, got shape {shape}")
    batch = shape[0] if len(shape) == 4 else 1
    return _windows(op, batch, lambda _: shape[-3], shape[-2:], "the image", itemsize, len(shape) == 4, *attributes)


def _matrix_windows(op: str, shape: tuple[int, ...], itemsize: int, output_size: Any, *attributes: Any) -> _Windows:
    if len(shape) not in (2, 3) or min(shape[-2:]) < 1:
        raise ValueError(f"{op}: input must have axes (N, C R S, L) or (C R S, L), of at least 1 but for N, got shape {shape}")
    size = _check.integers(op, "output_size", output_size, 2, minimum=1)

    def channels(window: int) -> int:
        if shape[-2] % window:
            raise ValueError(f"{op}: input must have a multiple of {window} (the window's elements) as its axis C R S, got {shape[-2]}")
        return shape[-2] // window

    batch = shape[0] if len(shape) == 3 else 1
    windows = _windows(op, batch, channels, size, "the output", itemsize, len(shape) == 3, *attributes)
    if windows.matrix_shape[-1] != shape[-1]:
        raise ValueError(f"{op}: input must have {windows.matrix_shape[-1]} columns, one for each window, got {shape[-1]} (shape {shape})")
    return windows


@operation
def unfold(
    input: ArrayLike, kernel_size: Integers, dilation: Integers = 1, padding: Pads = 0, stride: Integers = 1, *,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """The windows of an image as columns (im2col): ``torch.nn.functional.unfold``.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: extents R, S of a window, an integer or two.
        dilation, padding, stride: as for :func:`conv2d`.
        out: the array that takes the result and is returned.

    Returns:
        (N, C R S, L) for L windows, or (C R S, L), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> unfold(np.arange(9.0).reshape(1, 3, 3), 2)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    (x,), dtype = _check.as_arrays("unfold", input=input)
    w = _image_windows("unfold", x.shape, x.itemsize, kernel_size, dilation, padding, stride)
    return _run("unfold", _unfold, x, w, w.image, w.columns, w.matrix_shape, dtype, out)


def unfold_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, dilation: Integers = 1, padding: Pads = 0,
    stride: Integers = 1,
) -> Array:  # fmt: skip
    """Gradient of :func:`unfold` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> unfold_backward(np.ones((4, 4)), np.zeros((1, 3, 3)), 2)
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    op = "unfold_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    w = _image_windows(op, _check.shape_of(op, "input", input, dtype), dy.itemsize, kernel_size, dilation, padding, stride)
    if dy.shape != w.matrix_shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {w.matrix_shape}, got {dy.shape}")
    return _run(op, _fold, dy, w, w.columns, w.image, w.image_shape, dtype, None)


@operation
def fold(
    input: ArrayLike, output_size: Integers, kernel_size: Integers, dilation: Integers = 1, padding: Pads = 0,
    stride: Integers = 1, *, out: Array | None = None,
) -> Array:  # fmt: skip
    """Add windows, given as columns, into an image (col2im): ``torch.nn.functional.fold``.

    Args:
        input: (N, C R S, L) or (C R S, L), where L is the number of windows of the image.
        output_size: extents H, W of the image, an integer or two.
        kernel_size: extents R, S of a window.
        dilation, padding, stride: as for :func:`unfold`.
        out: the array that takes the result and is returned.

    Returns:
        (N, C, H, W) or (C, H, W), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> fold(np.ones((4, 4)), 3, 2)
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    (x,), dtype = _check.as_arrays("fold", input=input)
    w = _matrix_windows("fold", x.shape, x.itemsize, output_size, kernel_size, dilation, padding, stride)
    return _run("fold", _fold, x, w, w.columns, w.image, w.image_shape, dtype, out)


def fold_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Integers, kernel_size: Integers, dilation: Integers = 1,
    padding: Pads = 0, stride: Integers = 1,
) -> Array:  # fmt: skip
    """Gradient of :func:`fold` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> fold_backward(np.arange(9.0).reshape(1, 3, 3), np.zeros((4, 4)), 3, 2)[0]
    array([0., 1., 3., 4.])
    """
    op = "fold_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    w = _matrix_windows(op, _check.shape_of(op, "input", input, dtype), dy.itemsize, output_size, kernel_size, dilation, padding, stride)
    if dy.shape != w.image_shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {w.image_shape}, got {dy.shape}")
    return _run(op, _unfold, dy, w, w.image, w.columns, w.matrix_shape, dtype, None)


register(unfold, unfold_backward, inputs=("input",), saved=())
register(fold, fold_backward, inputs=("input",), saved=())
