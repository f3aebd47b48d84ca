"""Mean pooling: the mean of every window.

    y[n, c, p, q] = sum over r, s of x[n, c, p stride + r - padding, q stride + s - padding] / divisor

The divisor is the number of elements of the window, those in the padding included or not; a window that reaches beyond the
padding (``ceil_mode``) counts what lies inside it. It is a product of one factor an axis, so the gradient is separable like
the mean itself: every element gets the sum of dy / divisor over the windows that cover it. Nothing is kept for it.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section II.B.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.pool.run import check_gradient, check_shape, mean_factors, weighted_sum, weighted_sum_backward
from fastops.ops.pool.windows import Integers, Plan, ordinary


def _plan(
    op: str, ndim: int, shape: tuple[int, ...], window: tuple[Any, ...], divisor: Any,
) -> tuple[Plan, int | None]:  # fmt: skip
    """The windows, and the divisor to take instead of theirs."""
    kernel_size, stride, padding, ceil_mode = window
    if divisor is not None:
        divisor = _check.integer(op, "divisor_override", divisor, minimum=-(1 << 62))
        if divisor == 0:
            raise ValueError(f"{op}: divisor_override must not be 0")
    return ordinary(op, ndim, shape, kernel_size, stride, padding, 1, ceil_mode), divisor


def _avg_pool(op: str, ndim: int, input: Any, window: tuple[Any, ...], count_include_pad: Any, divisor: Any) -> Array:
    x = _check.as_array(op, "input", input)
    if x.itemsize == 2:
        return _avg_pool(op, ndim, x.astype(np.float32), window, count_include_pad, divisor).astype(np.float16)
    plan, divisor = _plan(op, ndim, x.shape, window, divisor)
    return weighted_sum(plan, x, mean_factors(plan, x.dtype, bool(count_include_pad), divisor))


def _avg_pool_backward(
    op: str, ndim: int, grad_output: Any, input: Any, window: tuple[Any, ...], count_include_pad: Any, divisor: Any,
) -> Array:  # fmt: skip
    dy, dtype = check_gradient(op, grad_output)
    plan, divisor = _plan(op, ndim, _check.shape_of(op, "input", input, dtype), window, divisor)
    check_shape(op, dy, plan)
    dx = weighted_sum_backward(plan, dy, mean_factors(plan, dy.dtype, bool(count_include_pad), divisor))
    return dx.astype(dtype, copy=False)


@operation
def avg_pool1d(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:  # fmt: skip
    """The mean of every window of a sequence, (N, C, L) or (C, L); arguments as for :func:`avg_pool2d`.

    >>> import numpy as np
    >>> avg_pool1d(np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[2., 1.]]])
    """
    return _avg_pool("avg_pool1d", 1, input, (kernel_size, stride, padding, ceil_mode), count_include_pad, None)


def avg_pool1d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:  # fmt: skip
    """Gradient of :func:`avg_pool1d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> avg_pool1d_backward(np.array([[[2.0, 4.0]]]), np.zeros((1, 1, 4)), 2)
    array([[[1., 1., 2., 2.]]])
    """
    window = kernel_size, stride, padding, ceil_mode
    return _avg_pool_backward("avg_pool1d_backward", 1, grad_output, input, window, count_include_pad, None)


register(avg_pool1d, avg_pool1d_backward, inputs=("input",), saved=())


@operation
def avg_pool2d(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """The mean of every window of an image: ``torch.nn.functional.avg_pool2d``.

    Args:
        input: (N, C, H, W) or (C, H, W), float16, float32 or float64.
        kernel_size: extent of a window, an integer or 2.
        stride: distance of windows; None stands for ``kernel_size``.
        padding: zeros on both sides, at most half of ``kernel_size``.
        ceil_mode: whether a last window counts that fits in part; one that would start in the padding behind does not.
        count_include_pad: whether the divisor counts elements in the padding.
        divisor_override: a divisor to take instead.

    Returns:
        (N, C, P, Q), or without N, of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    return _avg_pool("avg_pool2d", 2, input, (kernel_size, stride, padding, ceil_mode), count_include_pad, divisor_override)


def avg_pool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`avg_pool2d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> avg_pool2d_backward(np.ones((1, 1, 1)), np.zeros((1, 2, 2)), 2)
    array([[[0.25, 0.25],
            [0.25, 0.25]]])
    """
    window = kernel_size, stride, padding, ceil_mode
    return _avg_pool_backward("avg_pool2d_backward", 2, grad_output, input, window, count_include_pad, divisor_override)


register(avg_pool2d, avg_pool2d_backward, inputs=("input",), saved=())


@operation
def avg_pool3d(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """The mean of every window of a volume, (N, C, D, H, W) or (C, D, H, W); arguments as for :func:`avg_pool2d`.

    >>> import numpy as np
    >>> avg_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), 2)
    array([[[[3.5]]]])
    """
    return _avg_pool("avg_pool3d", 3, input, (kernel_size, stride, padding, ceil_mode), count_include_pad, divisor_override)


def avg_pool3d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`avg_pool3d` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> avg_pool3d_backward(np.ones((1, 1, 1, 1)), np.zeros((1, 2, 2, 2)), 2).ravel()
    array([0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125])
    """
    window = kernel_size, stride, padding, ceil_mode
    return _avg_pool_backward("avg_pool3d_backward", 3, grad_output, input, window, count_include_pad, divisor_override)


register(avg_pool3d, avg_pool3d_backward, inputs=("input",), saved=())
