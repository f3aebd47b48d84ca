"""Adaptive pooling: as many windows as are asked for, whatever the size of the image.

    window o of an axis covers floor(o size / count) <= i < ceil((o + 1) size / count)

Neighbouring windows share elements where count does not divide size. Means, maxima and their gradients are those of ordinary
pooling; kept for the backward pass is the place of every maximum.

Source: He, Zhang, Ren, Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition" (2014), section
2.3, where windows are placed like this.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.pool.run import (
    check_gradient,
    check_shape,
    max_backward,
    max_pool,
    max_pool_record,
    mean_factors,
    weighted_sum,
    weighted_sum_backward,
)  # fmt: skip
from fastops.ops.pool.windows import of_output_size

Sizes = int | None | tuple[int | None, ...]
Pooled = Array | tuple[Array, Array]


def _avg_pool(op: str, ndim: int, input: Any, output_size: Any) -> Array:
    (x,), dtype = _check.as_arrays(op, input=input)
    plan = of_output_size(op, ndim, x.shape, output_size)
    return weighted_sum(plan, x, mean_factors(plan, x.dtype)).astype(dtype, copy=False)


def _avg_pool_backward(op: str, ndim: int, grad_output: Any, input: Any, output_size: Any) -> Array:
    dy, dtype = check_gradient(op, grad_output)
    plan = of_output_size(op, ndim, _check.shape_of(op, "input", input, dtype), output_size)
    check_shape(op, dy, plan)
    return weighted_sum_backward(plan, dy, mean_factors(plan, dy.dtype)).astype(dtype, copy=False)


def _max_pool(op: str, ndim: int, input: Any, output_size: Any, indices: bool) -> Any:
    return max_pool(op, lambda shape, dtype: of_output_size(op, ndim, shape, output_size), input, indices)


def _max_pool_record(op: str, ndim: int, always: bool) -> Any:
    def record(input: Any, output_size: Any, return_indices: bool = False) -> tuple[Any, dict[str, Any]]:
        return max_pool_record(op, lambda shape, dtype: of_output_size(op, ndim, shape, output_size), input, always or return_indices)

    return record


def _max_pool_backward(op: str, ndim: int, grad_output: Any, input: Any, output_size: Any, indices: Any) -> Array:
    return max_backward(op, lambda shape: of_output_size(op, ndim, shape, output_size), grad_output, input, indices)


@operation
def adaptive_avg_pool1d(input: ArrayLike, output_size: Sizes) -> Array:
    """The mean of each of as many windows of a sequence, (N, C, L) or (C, L), as asked for; arguments as for :func:`adaptive_avg_pool2d`.

    >>> import numpy as np
    >>> adaptive_avg_pool1d(np.array([[[1.0, 2.0, 3.0]]]), 2)
    array([[[1.5, 2.5]]])
    """
    return _avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool1d_backward(grad_output: ArrayLike, input: ArrayLike, output_size: Sizes) -> Array:
    """Gradient of :func:`adaptive_avg_pool1d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> adaptive_avg_pool1d_backward(np.ones((1, 1, 2)), np.zeros((1, 1, 3)), 2)
    array([[[0.5, 1. , 0.5]]])
    """
    return _avg_pool_backward("adaptive_avg_pool1d_backward", 1, grad_output, input, output_size)


@operation
def adaptive_max_pool1d(input: ArrayLike, output_size: Sizes, return_indices: bool = False) -> Pooled:
    """The largest element of each of as many windows of a sequence, (N, C, L) or (C, L), as asked for; arguments as for :func:`adaptive_max_pool2d`.

    >>> import numpy as np
    >>> adaptive_max_pool1d(np.array([[[1.0, 2.0, 3.0]]]), 2)
    array([[[2., 3.]]])
    """
    return _max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


@operation
def adaptive_max_pool1d_with_indices(input: ArrayLike, output_size: Sizes, return_indices: bool = False) -> tuple[Array, Array]:
    """As :func:`adaptive_max_pool1d` with ``return_indices``.

    >>> import numpy as np
    >>> adaptive_max_pool1d_with_indices(np.array([[[1.0, 2.0, 3.0]]]), 2)
    (array([[[2., 3.]]]), array([[[1, 2]]]))
    """
    return _max_pool("adaptive_max_pool1d_with_indices", 1, input, output_size, True)


def adaptive_max_pool1d_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Sizes, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool1d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> adaptive_max_pool1d_backward(np.ones((1, 1, 2)), np.array([[[1.0, 2.0, 3.0]]]), 2)
    array([[[0., 1., 1.]]])
    """
    return _max_pool_backward("adaptive_max_pool1d_backward", 1, grad_output, input, output_size, indices)


def adaptive_max_pool1d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Sizes, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool1d_with_indices` with respect to its input; arguments as for :func:`adaptive_max_pool1d_backward`.

    >>> import numpy as np
    >>> adaptive_max_pool1d_with_indices_backward(np.ones((1, 1, 2)), np.array([[[1.0, 2.0, 3.0]]]), 2)
    array([[[0., 1., 1.]]])
    """
    return _max_pool_backward("adaptive_max_pool1d_with_indices_backward", 1, grad_output, input, output_size, indices)


register(adaptive_avg_pool1d, adaptive_avg_pool1d_backward, inputs=("input",), saved=())
register(adaptive_max_pool1d, adaptive_max_pool1d_backward, inputs=("input",), saved=(), record=_max_pool_record("adaptive_max_pool1d", 1, False))
register(
    adaptive_max_pool1d_with_indices, adaptive_max_pool1d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("adaptive_max_pool1d_with_indices", 1, True),
)  # fmt: skip


@operation
def adaptive_avg_pool2d(input: ArrayLike, output_size: Sizes) -> Array:
    """The mean of each of as many windows of an image as asked for: ``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
        input: (N, C, H, W) or (C, H, W), float16, float32 or float64.
        output_size: the number of windows of every axis, one for all or 2; None keeps the size of an axis.

    Returns:
        (N, C, P, Q), or without N, of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(12.0).reshape(1, 3, 4), (None, 1)).ravel()
    array([1.5, 5.5, 9.5])
    """
    return _avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool2d_backward(grad_output: ArrayLike, input: ArrayLike, output_size: Sizes) -> Array:
    """Gradient of :func:`adaptive_avg_pool2d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> adaptive_avg_pool2d_backward(np.ones((1, 1, 1)), np.zeros((1, 2, 2)), 1)
    array([[[0.25, 0.25],
            [0.25, 0.25]]])
    """
    return _avg_pool_backward("adaptive_avg_pool2d_backward", 2, grad_output, input, output_size)


@operation
def adaptive_max_pool2d(input: ArrayLike, output_size: Sizes, return_indices: bool = False) -> Pooled:
    """The largest element of each of as many windows of an image as asked for: ``torch.nn.functional.adaptive_max_pool2d``.

    Args:
        input: (N, C, H, W) or (C, H, W), float16, float32 or float64.
        output_size: the number of windows of every axis, one for all or 2; None keeps the size of an axis.
        return_indices: whether to return the places too.

    Returns:
        (N, C, P, Q), or without N, of the dtype of the input. With ``return_indices`` also the place of each element in
        its plane, int64: of equal elements that of the first, of NaNs that of the last.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> adaptive_max_pool2d(np.arange(12.0).reshape(1, 3, 4), (None, 1)).ravel()
    array([ 3.,  7., 11.])
    """
    return _max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


@operation
def adaptive_max_pool2d_with_indices(input: ArrayLike, output_size: Sizes, return_indices: bool = False) -> tuple[Array, Array]:
    """As :func:`adaptive_max_pool2d` with ``return_indices``.

    >>> import numpy as np
    >>> adaptive_max_pool2d_with_indices(np.arange(12.0).reshape(1, 3, 4), 1)
    (array([[[11.]]]), array([[[11]]]))
    """
    return _max_pool("adaptive_max_pool2d_with_indices", 2, input, output_size, True)


def adaptive_max_pool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Sizes, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool2d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> adaptive_max_pool2d_backward(np.ones((1, 1, 1)), np.array([[[1.0, 3.0], [3.0, 2.0]]]), 1)
    array([[[0., 1.],
            [0., 0.]]])
    """
    return _max_pool_backward("adaptive_max_pool2d_backward", 2, grad_output, input, output_size, indices)


def adaptive_max_pool2d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Sizes, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool2d_with_indices` with respect to its input; arguments as for :func:`adaptive_max_pool2d_backward`.

    >>> import numpy as np
    >>> adaptive_max_pool2d_with_indices_backward(np.ones((1, 1, 1)), np.array([[[1.0, 3.0], [3.0, 2.0]]]), 1)
    array([[[0., 1.],
            [0., 0.]]])
    """
    return _max_pool_backward("adaptive_max_pool2d_with_indices_backward", 2, grad_output, input, output_size, indices)


register(adaptive_avg_pool2d, adaptive_avg_pool2d_backward, inputs=("input",), saved=())
register(adaptive_max_pool2d, adaptive_max_pool2d_backward, inputs=("input",), saved=(), record=_max_pool_record("adaptive_max_pool2d", 2, False))
register(
    adaptive_max_pool2d_with_indices, adaptive_max_pool2d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("adaptive_max_pool2d_with_indices", 2, True),
)  # fmt: skip


@operation
def adaptive_avg_pool3d(input: ArrayLike, output_size: Sizes) -> Array:
    """The mean of each of as many windows of a volume, (N, C, D, H, W) or (C, D, H, W), as asked for; arguments as for :func:`adaptive_avg_pool2d`.

    >>> import numpy as np
    >>> adaptive_avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 1)
    array([[[[3.5]]]])
    """
    return _avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_avg_pool3d_backward(grad_output: ArrayLike, input: ArrayLike, output_size: Sizes) -> Array:
    """Gradient of :func:`adaptive_avg_pool3d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> adaptive_avg_pool3d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 2)), 1)
    array([[[[0.5, 0.5]]]])
    """
    return _avg_pool_backward("adaptive_avg_pool3d_backward", 3, grad_output, input, output_size)


@operation
def adaptive_max_pool3d(input: ArrayLike, output_size: Sizes, return_indices: bool = False) -> Pooled:
    """The largest element of each of as many windows of a volume, (N, C, D, H, W) or (C, D, H, W), as asked for; arguments as for :func:`adaptive_max_pool2d`.

    >>> import numpy as np
    >>> adaptive_max_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 1)
    array([[[[7.]]]])
    """
    return _max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


@operation
def adaptive_max_pool3d_with_indices(input: ArrayLike, output_size: Sizes, return_indices: bool = False) -> tuple[Array, Array]:
    """As :func:`adaptive_max_pool3d` with ``return_indices``.

    >>> import numpy as np
    >>> adaptive_max_pool3d_with_indices(np.arange(8.0).reshape(1, 2, 2, 2), 1)[1]
    array([[[[7]]]])
    """
    return _max_pool("adaptive_max_pool3d_with_indices", 3, input, output_size, True)


def adaptive_max_pool3d_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Sizes, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool3d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> adaptive_max_pool3d_backward(np.ones((1, 1, 1, 1)), np.array([[[[1.0, 3.0]]]]), 1)
    array([[[[0., 1.]]]])
    """
    return _max_pool_backward("adaptive_max_pool3d_backward", 3, grad_output, input, output_size, indices)


def adaptive_max_pool3d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, output_size: Sizes, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool3d_with_indices` with respect to its input; arguments as for :func:`adaptive_max_pool3d_backward`.

    >>> import numpy as np
    >>> adaptive_max_pool3d_with_indices_backward(np.ones((1, 1, 1, 1)), np.array([[[[1.0, 3.0]]]]), 1)
    array([[[[0., 1.]]]])
    """
    return _max_pool_backward("adaptive_max_pool3d_with_indices_backward", 3, grad_output, input, output_size, indices)


register(adaptive_avg_pool3d, adaptive_avg_pool3d_backward, inputs=("input",), saved=())
register(adaptive_max_pool3d, adaptive_max_pool3d_backward, inputs=("input",), saved=(), record=_max_pool_record("adaptive_max_pool3d", 3, False))
register(
    adaptive_max_pool3d_with_indices, adaptive_max_pool3d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("adaptive_max_pool3d_with_indices", 3, True),
)  # fmt: skip
