"""pixel_shuffle: channels become pixels. pixel_unshuffle: the reverse. channel_shuffle: groups of channels are interleaved.

    pixel_shuffle:   y[n, c, h r + i, w r + j] = x[n, (c r + i) r + j, h, w]
    pixel_unshuffle: y[n, (c r + i) r + j, h, w] = x[n, c, h r + i, w r + j]
    channel_shuffle: y[n, c g + k, h, w] = x[n, k C / g + c, h, w]

They only move elements: the gradient moves them back, and needs nothing but shapes. Source: Shi et al., "Real-Time Single
Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network" (2016), equation 4; Zhang et al.,
"ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices" (2018), section 3.1.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import Launcher, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.rows import copy_row
from fastops.simd.vector import deinterleave, interleave, lanes, load, store_tile

_BLOCK = 16384
_NS_PER_BYTE = 0.1


@separate
def _spread(block, worker, x, dims, y):
    """Planes of y (planes, H, r, W, r) from x (planes, r, r, H, W), both flat."""
    planes, r, H, W, rows = dims
    L, area = lanes(x), H * W
    for row in range(block * rows, min((block + 1) * rows, planes * H)):
        plane, h = row // H, row % H
        for i in range(r):
            source, target = (plane * r + i) * r * area + h * W, (row * r + i) * W * r
            if r == 2 and W >= L:
                for w in range(0, W, L):
                    v = min(w, W - L)
                    pair = interleave(load(x, source + v), load(x, source + area + v))
                    store_tile(y, target + 2 * v, L, pair)
                continue
            for j in range(r):
                phase, pixels = x[source + j * area :], y[target + j :]
                for w in range(W):
                    pixels[np.uintp(w * r)] = phase[w]


@separate
def _gather(block, worker, x, dims, y):
    """Planes of y (planes, r, r, H, W) from x (planes, H, r, W, r), both flat."""
    planes, r, H, W, rows = dims
    L, area = lanes(x), H * W
    for row in range(block * rows, min((block + 1) * rows, planes * H)):
        plane, h = row // H, row % H
        for i in range(r):
            source, target = (row * r + i) * W * r, (plane * r + i) * r * area + h * W
            if r == 2 and W >= L:
                for w in range(0, W, L):
                    v = min(w, W - L)
                    pair = deinterleave(load(x, source + 2 * v), load(x, source + 2 * v + L))
                    store_tile(y, target + v, area, pair)
                continue
            for j in range(r):
                phase, pixels = y[target + j * area :], x[source + j :]
                for w in range(W):
                    phase[w] = pixels[np.uintp(w * r)]


@separate
def _swap(block, worker, x, dims, y):
    """Rows of y (N, b, a, L) from x (N, a, b, L), both flat."""
    a, b, L, rows, total = dims
    for row in range(block * rows, min((block + 1) * rows, total)):
        n, channel = row // (a * b), row % (a * b)
        copy_row(x, (n * a * b + channel % a * b + channel // a) * L, y, row * L, L)


@launcher
def _spread_all(threads, x, dims, y):
    parallel(_spread, -(-dims[0] * dims[2] // dims[4]), threads, (x, dims, y))


@launcher
def _gather_all(threads, x, dims, y):
    parallel(_gather, -(-dims[0] * dims[2] // dims[4]), threads, (x, dims, y))


@launcher
def _swap_all(threads, x, dims, y):
    parallel(_swap, -(-dims[4] // dims[3]), threads, (x, dims, y))


def _spread_shape(op: str, shape: tuple[int, ...], upscale_factor: int) -> tuple[int, tuple[int, ...]]:
    r = _check.integer(op, "upscale_factor", upscale_factor, minimum=1)
    if len(shape) < 3:
        raise ValueError(f"{op}: input must have at least the axes (C, H, W), got shape {shape}")
    if shape[-3] % (r * r):
        raise ValueError(f"{op}: input must have a multiple of {r * r} channels (upscale_factor squared), got {shape[-3]} (shape {shape})")
    return r, (*shape[:-3], shape[-3] // (r * r), shape[-2] * r, shape[-1] * r)


def _gathered_shape(op: str, shape: tuple[int, ...], downscale_factor: int) -> tuple[int, tuple[int, ...]]:
    r = _check.integer(op, "downscale_factor", downscale_factor, minimum=1)
    if len(shape) < 3:
        raise ValueError(f"{op}: input must have at least the axes (C, H, W), got shape {shape}")
    if shape[-2] % r or shape[-1] % r:
        raise ValueError(f"{op}: input must have a height and a width divisible by downscale_factor, {r}, got shape {shape}")
    return r, (*shape[:-3], shape[-3] * r * r, shape[-2] // r, shape[-1] // r)


def _grouped(op: str, shape: tuple[int, ...], groups: int) -> int:
    groups = _check.integer(op, "groups", groups, minimum=1)
    if len(shape) < 3:
        raise ValueError(f"{op}: input must have at least the axes (N, C, L), got shape {shape}")
    if shape[1] % groups:
        raise ValueError(f"{op}: input must have a multiple of {groups} channels (groups), got {shape[1]} (shape {shape})")
    return groups


def _pixels(kernel: Launcher, x: Array, small: tuple[int, ...], r: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """``small`` is the shape of the side with more channels."""
    y = empty(shape, x.dtype)
    if y.size:
        H, W = small[-2:]
        dims = (prod(small[:-2]) // (r * r), r, H, W, max(1, _BLOCK // (W * r * r)))
        kernel(threads_for(y.nbytes * _NS_PER_BYTE), x.ravel(), dims, y.ravel())
    return y.astype(dtype, copy=False)


def _channels(x: Array, a: int, b: int, dtype: np.dtype[Any]) -> Array:
    """(N, a, b, ...) with a and b exchanged, in the shape that x has."""
    y = empty(x.shape, x.dtype)
    if y.size:
        pixels = prod(x.shape[2:])
        dims = (a, b, pixels, max(1, _BLOCK // pixels), x.shape[0] * a * b)
        _swap_all(threads_for(y.nbytes * _NS_PER_BYTE), x.ravel(), dims, y.ravel())
    return y.astype(dtype, copy=False)


def _gradient(op: str, grad_output: ArrayLike, input: ArrayLike) -> tuple[Array, tuple[int, ...], np.dtype[Any]]:
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    return dy, _check.shape_of(op, "input", input, dtype), dtype


def _same_shape(op: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if given != wanted:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {wanted}, got {given}")


@operation
def pixel_shuffle(input: ArrayLike, upscale_factor: int) -> Array:
    """Channels become the pixels of a larger image: ``torch.nn.functional.pixel_shuffle``.

    Args:
        input: (N, C r r, H, W), with any number of axes N.
        upscale_factor: r.

    Returns:
        (N, C, H r, W r), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> pixel_shuffle(np.arange(4.0).reshape(4, 1, 1), 2)
    array([[[0., 1.],
            [2., 3.]]])
    """
    (x,), dtype = _check.as_arrays("pixel_shuffle", input=input)
    r, shape = _spread_shape("pixel_shuffle", x.shape, upscale_factor)
    return _pixels(_spread_all, x, x.shape, r, shape, dtype)


def pixel_shuffle_backward(grad_output: ArrayLike, input: ArrayLike, upscale_factor: int) -> Array:
    """Gradient of :func:`pixel_shuffle` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> pixel_shuffle_backward(np.arange(4.0).reshape(1, 2, 2), np.zeros((4, 1, 1)), 2).ravel()
    array([0., 1., 2., 3.])
    """
    dy, shape, dtype = _gradient("pixel_shuffle_backward", grad_output, input)
    r, result = _spread_shape("pixel_shuffle_backward", shape, upscale_factor)
    _same_shape("pixel_shuffle_backward", dy.shape, result)
    return _pixels(_gather_all, dy, shape, r, shape, dtype)


@operation
def pixel_unshuffle(input: ArrayLike, downscale_factor: int) -> Array:
    """Blocks of pixels become channels: ``torch.nn.functional.pixel_unshuffle``.

    Args:
        input: (N, C, H r, W r), with any number of axes N.
        downscale_factor: r.

    Returns:
        (N, C r r, H, W), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> pixel_unshuffle(np.arange(8.0).reshape(1, 2, 4), 2).tolist()
    [[[0.0, 2.0]], [[1.0, 3.0]], [[4.0, 6.0]], [[5.0, 7.0]]]
    """
    (x,), dtype = _check.as_arrays("pixel_unshuffle", input=input)
    r, shape = _gathered_shape("pixel_unshuffle", x.shape, downscale_factor)
    return _pixels(_gather_all, x, shape, r, shape, dtype)


def pixel_unshuffle_backward(grad_output: ArrayLike, input: ArrayLike, downscale_factor: int) -> Array:
    """Gradient of :func:`pixel_unshuffle` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> pixel_unshuffle_backward(np.arange(4.0).reshape(4, 1, 1), np.zeros((1, 2, 2)), 2)
    array([[[0., 1.],
            [2., 3.]]])
    """
    dy, shape, dtype = _gradient("pixel_unshuffle_backward", grad_output, input)
    r, result = _gathered_shape("pixel_unshuffle_backward", shape, downscale_factor)
    _same_shape("pixel_unshuffle_backward", dy.shape, result)
    return _pixels(_spread_all, dy, result, r, shape, dtype)


@operation
def channel_shuffle(input: ArrayLike, groups: int) -> Array:
    """The channels of the groups in turns: ``torch.nn.functional.channel_shuffle``.

    Args:
        input: (N, C, ...), with at least one axis behind the channels.
        groups: how many groups the channels are in; a divisor of C.

    Returns:
        An array of the shape and dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> channel_shuffle(np.arange(6.0).reshape(1, 6, 1), 2).ravel()
    array([0., 3., 1., 4., 2., 5.])
    """
    (x,), dtype = _check.as_arrays("channel_shuffle", input=input)
    groups = _grouped("channel_shuffle", x.shape, groups)
    return _channels(x, groups, x.shape[1] // groups, dtype)


def channel_shuffle_backward(grad_output: ArrayLike, input: ArrayLike, groups: int) -> Array:
    """Gradient of :func:`channel_shuffle` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> channel_shuffle_backward(np.array([0.0, 3, 1, 4, 2, 5]).reshape(1, 6, 1), np.zeros((1, 6, 1)), 2).ravel()
    array([0., 1., 2., 3., 4., 5.])
    """
    dy, shape, dtype = _gradient("channel_shuffle_backward", grad_output, input)
    groups = _grouped("channel_shuffle_backward", shape, groups)
    _same_shape("channel_shuffle_backward", dy.shape, shape)
    return _channels(dy, shape[1] // groups, groups, dtype)


register(pixel_shuffle, pixel_shuffle_backward, inputs=("input",), saved=())
register(pixel_unshuffle, pixel_unshuffle_backward, inputs=("input",), saved=())
register(channel_shuffle, channel_shuffle_backward, inputs=("input",), saved=())
