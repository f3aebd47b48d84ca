"""Max unpooling: elements put back where max pooling found them, zeros elsewhere.

    y[n, c, indices[n, c, o]] = x[n, c, o]

The gradient of x is dy at its place. Where several elements have one place, the last is seen, and each gets that gradient.

Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 2.1.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.pool import walk
from fastops.ops.pool.run import check_places
from fastops.ops.pool.windows import Integers, spatial

_NS_PER_ELEMENT = 1.0


def _output_shape(
    op: str, ndim: int, shape: tuple[int, ...], itemsize: int, kernel_size: Any, stride: Any, padding: Any, output_size: Any,
) -> tuple[int, ...]:  # fmt: skip
    size = spatial(op, shape, ndim)[3 - ndim :]
    kernel = _check.integers(op, "kernel_size", kernel_size, ndim, minimum=1)
    strides = kernel if stride is None else _check.integers(op, "stride", stride, ndim, minimum=1)
    pads = _check.integers(op, "padding", padding, ndim, minimum=0)
    usual = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(size, strides, kernel, pads)]
    if output_size is None:
        result = tuple(usual)
        if min(result) < 0:
            raise ValueError(f"{op}: padding must leave an output, got size {result}")
    else:
        items = _check.one_or_more(output_size)
        result = _check.integers(op, "output_size", tuple(items[2:] if len(items) == ndim + 2 else items), ndim, minimum=0)
        if len(items) not in (ndim, ndim + 2) or not all(u - s < r < u + s for u, s, r in zip(usual, strides, result)):
            allowed = ", ".join(f"{u - s} < {r} < {u + s}" for u, s, r in zip(usual, strides, "DHW"[3 - ndim :]))
            raise ValueError(f"{op}: output_size must be {ndim} integers with {allowed}, got {output_size!r}")
    whole = (*shape[: len(shape) - ndim], *result)
    _check.fits(op, "output_size", "the output", whole, itemsize)
    return whole


def _unpool(op: str, ndim: int, input: Any, indices: Any, *window: Any) -> Array:
    (x,), dtype = _check.as_arrays(op, input=input)
    shape = _output_shape(op, ndim, x.shape, x.itemsize, *window)
    planes, plane = prod(shape[:-ndim]), prod(shape[-ndim:])
    places = check_places(op, "indices", indices, x.shape, plane, np.int64)
    y = empty(shape, x.dtype)
    if y.size:
        threads = threads_for((x.size + y.size * 0.2) * _NS_PER_ELEMENT)
        walk.place(threads, x.reshape(planes, -1), places.reshape(planes, -1), y.reshape(planes, -1))
    return y.astype(dtype, copy=False)


def _unpool_backward(op: str, ndim: int, grad_output: Any, input: Any, indices: Any, *window: Any) -> Array:
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    x_shape = _check.shape_of(op, "input", input, dtype)
    shape = _output_shape(op, ndim, x_shape, dy.itemsize, *window)
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {dy.shape}")
    planes, plane = prod(shape[:-ndim]), prod(shape[-ndim:])
    places = check_places(op, "indices", indices, x_shape, plane, np.int64)
    dx = empty(x_shape, dy.dtype)
    if dx.size:
        threads = threads_for(dx.size * _NS_PER_ELEMENT)
        walk.pick(threads, dy.reshape(planes, -1), places.reshape(planes, -1), dx.reshape(planes, -1))
    return dx.astype(dtype, copy=False)


@operation
def max_unpool1d(
    input: ArrayLike, indices: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0,
    output_size: Integers | None = None,
) -> Array:  # fmt: skip
    """The elements of a sequence, (N, C, Q) or without N, where max pooling found them; arguments as for :func:`max_unpool2d`.

    >>> import numpy as np
    >>> max_unpool1d(np.array([[[3.0, 2.0]]]), np.array([[[1, 2]]]), 2)
    array([[[0., 3., 2., 0.]]])
    """
    return _unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool1d_backward(
    grad_output: ArrayLike, input: ArrayLike, indices: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0,
    output_size: Integers | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_unpool1d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> max_unpool1d_backward(np.array([[[5.0, 6.0, 7.0, 8.0]]]), np.zeros((1, 1, 2)), np.array([[[1, 2]]]), 2)
    array([[[6., 7.]]])
    """
    return _unpool_backward("max_unpool1d_backward", 1, grad_output, input, indices, kernel_size, stride, padding, output_size)


register(max_unpool1d, max_unpool1d_backward, inputs=("input",), saved=("indices",))


@operation
def max_unpool2d(
    input: ArrayLike, indices: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0,
    output_size: Integers | None = None,
) -> Array:  # fmt: skip
    """The elements of an image where max pooling found them, zeros elsewhere: ``torch.nn.functional.max_unpool2d``.

    Args:
        input: (N, C, P, Q) or without N, float16, float32 or float64.
        indices: of the same shape, the place of each element in its plane; any integer dtype.
        kernel_size, stride, padding: those of the pooling.
        output_size: extents H, W of the result, with N and C in front or without; by default the smallest image that pooling
            with these arguments reaches the end of.

    Returns:
        (N, C, H, W) or (C, H, W), of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; a place outside the result.

    >>> import numpy as np
    >>> max_unpool2d(np.array([[[7.0]]]), np.array([[[2]]]), 2)
    array([[[0., 0.],
            [7., 0.]]])
    """
    return _unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, indices: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0,
    output_size: Integers | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_unpool2d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> max_unpool2d_backward(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.zeros((1, 1, 1)), np.array([[[2]]]), 2)
    array([[[3.]]])
    """
    return _unpool_backward("max_unpool2d_backward", 2, grad_output, input, indices, kernel_size, stride, padding, output_size)


register(max_unpool2d, max_unpool2d_backward, inputs=("input",), saved=("indices",))


@operation
def max_unpool3d(
    input: ArrayLike, indices: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0,
    output_size: Integers | None = None,
) -> Array:  # fmt: skip
    """The elements of a volume, (N, C, T, P, Q) or without N, where max pooling found them; arguments as for :func:`max_unpool2d`.

    >>> import numpy as np
    >>> max_unpool3d(np.array([[[[7.0]]]]), np.array([[[[1]]]]), (1, 1, 2))
    array([[[[0., 7.]]]])
    """
    return _unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d_backward(
    grad_output: ArrayLike, input: ArrayLike, indices: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0,
    output_size: Integers | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_unpool3d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> max_unpool3d_backward(np.array([[[[5.0, 6.0]]]]), np.zeros((1, 1, 1, 1)), np.array([[[[1]]]]), (1, 1, 2))
    array([[[[6.]]]])
    """
    return _unpool_backward("max_unpool3d_backward", 3, grad_output, input, indices, kernel_size, stride, padding, output_size)


register(max_unpool3d, max_unpool3d_backward, inputs=("input",), saved=("indices",))
