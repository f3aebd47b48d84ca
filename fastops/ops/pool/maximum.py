"""Max pooling: the largest element of every window.

    y[n, c, p, q] = max over r, s of x[n, c, p stride + r dilation - padding, q stride + s dilation - padding]

Elements outside the image do not count; NaN is larger than everything, and of equal elements the first is meant. The gradient
of y goes to that element. Kept for the backward pass: its place in the plane (row * width + column), 4 bytes a window. Where
windows are small and their strides 1 or 2, a row of the gradient is then found by comparing places, a vector at a time;
elsewhere gradients are added at places one by one.

Source: Ranzato, Boureau, LeCun, "Sparse Feature Learning for Deep Belief Networks" (2007), section 4; with its gradient,
Boureau, Ponce, LeCun, "A Theoretical Analysis of Feature Pooling in Visual Recognition" (2010), section 2.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.pool.run import max_backward, max_pool, max_pool_record
from fastops.ops.pool.windows import Integers, ordinary

Pooled = Array | tuple[Array, Array]


def _max_pool(op: str, ndim: int, input: Any, window: tuple[Any, ...], indices: bool) -> Any:
    return max_pool(op, lambda shape, dtype: ordinary(op, ndim, shape, *window), input, indices)


def _max_pool_record(op: str, ndim: int, always: bool, bound: Any) -> Any:
    """``record`` of a max pooling."""

    def record(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        input, *window, return_indices = bound(*args, **kwargs)
        return max_pool_record(op, lambda shape, dtype: ordinary(op, ndim, shape, *window), input, always or return_indices)

    return record


def _max_pool_backward(op: str, ndim: int, grad_output: Any, input: Any, window: tuple[Any, ...], indices: Any) -> Array:
    return max_backward(op, lambda shape: ordinary(op, ndim, shape, *window), grad_output, input, indices)


def _bound(
    input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Any, ...]:  # fmt: skip
    return input, kernel_size, stride, padding, dilation, ceil_mode, return_indices


@operation
def max_pool1d(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:  # fmt: skip
    """The largest element of every window of a sequence, (N, C, L) or (C, L); arguments as for :func:`max_pool2d`.

    >>> import numpy as np
    >>> max_pool1d(np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[3., 2.]]])
    """
    return _max_pool("max_pool1d", 1, input, (kernel_size, stride, padding, dilation, ceil_mode), return_indices)


@operation
def max_pool1d_with_indices(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """As :func:`max_pool1d` with ``return_indices``.

    >>> import numpy as np
    >>> max_pool1d_with_indices(np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    (array([[[3., 2.]]]), array([[[1, 2]]]))
    """
    return _max_pool("max_pool1d_with_indices", 1, input, (kernel_size, stride, padding, dilation, ceil_mode), True)


def max_pool1d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool1d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> max_pool1d_backward(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[0., 1., 2., 0.]]])
    """
    return _max_pool_backward("max_pool1d_backward", 1, grad_output, input, (kernel_size, stride, padding, dilation, ceil_mode), indices)


def max_pool1d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool1d_with_indices` with respect to its input; arguments as for :func:`max_pool1d_backward`.

    >>> import numpy as np
    >>> max_pool1d_with_indices_backward(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 3.0, 2.0, 0.0]]]), 2)
    array([[[0., 1., 2., 0.]]])
    """
    return _max_pool_backward("max_pool1d_with_indices_backward", 1, grad_output, input, (kernel_size, stride, padding, dilation, ceil_mode), indices)


register(max_pool1d, max_pool1d_backward, inputs=("input",), saved=(), record=_max_pool_record("max_pool1d", 1, False, _bound))
register(
    max_pool1d_with_indices, max_pool1d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("max_pool1d_with_indices", 1, True, _bound),
)  # fmt: skip


@operation
def max_pool2d(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:  # fmt: skip
    """The largest element of every window of an image: ``torch.nn.functional.max_pool2d``.

    Args:
        input: (N, C, H, W) or (C, H, W), float16, float32 or float64.
        kernel_size: extent of a window, an integer or 2.
        stride: distance of windows; None stands for ``kernel_size``.
        padding: elements on both sides that count as minus infinity, at most half of ``kernel_size``.
        dilation: distance of the elements of a window.
        ceil_mode: whether a last window counts that fits in part; one that would start in the padding behind does not.
        return_indices: whether to return the places too.

    Returns:
        (N, C, P, Q), or without N, of the dtype of the input. With ``return_indices`` also the place of each element in
        its plane, int64: of equal elements that of the first, of NaNs that of the last.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 5.,  7.],
            [13., 15.]]])
    """
    return _max_pool("max_pool2d", 2, input, (kernel_size, stride, padding, dilation, ceil_mode), return_indices)


@operation
def max_pool2d_with_indices(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """As :func:`max_pool2d` with ``return_indices``.

    >>> import numpy as np
    >>> max_pool2d_with_indices(np.arange(16.0).reshape(1, 4, 4), 2)[1]
    array([[[ 5,  7],
            [13, 15]]])
    """
    return _max_pool("max_pool2d_with_indices", 2, input, (kernel_size, stride, padding, dilation, ceil_mode), True)


def max_pool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool2d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> max_pool2d_backward(np.ones((1, 1, 1)), np.array([[[1.0, 3.0], [3.0, 2.0]]]), 2)
    array([[[0., 1.],
            [0., 0.]]])
    """
    return _max_pool_backward("max_pool2d_backward", 2, grad_output, input, (kernel_size, stride, padding, dilation, ceil_mode), indices)


def max_pool2d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool2d_with_indices` with respect to its input; arguments as for :func:`max_pool2d_backward`.

    >>> import numpy as np
    >>> max_pool2d_with_indices_backward(np.ones((1, 1, 1)), np.array([[[1.0, 3.0], [3.0, 2.0]]]), 2)
    array([[[0., 1.],
            [0., 0.]]])
    """
    return _max_pool_backward("max_pool2d_with_indices_backward", 2, grad_output, input, (kernel_size, stride, padding, dilation, ceil_mode), indices)


register(max_pool2d, max_pool2d_backward, inputs=("input",), saved=(), record=_max_pool_record("max_pool2d", 2, False, _bound))
register(
    max_pool2d_with_indices, max_pool2d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("max_pool2d_with_indices", 2, True, _bound),
)  # fmt: skip


@operation
def max_pool3d(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:  # fmt: skip
    """The largest element of every window of a volume, (N, C, D, H, W) or (C, D, H, W); arguments as for :func:`max_pool2d`.

    >>> import numpy as np
    >>> max_pool3d(np.arange(8.0).reshape(1, 2, 2, 2), (1, 2, 2))
    array([[[[3.]],
    <BLANKLINE>
            [[7.]]]])
    """
    return _max_pool("max_pool3d", 3, input, (kernel_size, stride, padding, dilation, ceil_mode), return_indices)


@operation
def max_pool3d_with_indices(
    input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """As :func:`max_pool3d` with ``return_indices``.

    >>> import numpy as np
    >>> max_pool3d_with_indices(np.arange(8.0).reshape(1, 2, 2, 2), 2)
    (array([[[[7.]]]]), array([[[[7]]]]))
    """
    return _max_pool("max_pool3d_with_indices", 3, input, (kernel_size, stride, padding, dilation, ceil_mode), True)


def max_pool3d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool3d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters.

    >>> import numpy as np
    >>> max_pool3d_backward(np.ones((1, 1, 1, 1)), np.arange(8.0).reshape(1, 2, 2, 2), 2).ravel()
    array([0., 0., 0., 0., 0., 0., 0., 1.])
    """
    return _max_pool_backward("max_pool3d_backward", 3, grad_output, input, (kernel_size, stride, padding, dilation, ceil_mode), indices)


def max_pool3d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, dilation: Integers = 1,
    ceil_mode: bool = False, return_indices: bool = False, *,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool3d_with_indices` with respect to its input; arguments as for :func:`max_pool3d_backward`.

    >>> import numpy as np
    >>> max_pool3d_with_indices_backward(np.ones((1, 1, 1, 1)), np.arange(8.0).reshape(1, 2, 2, 2), 2).ravel()
    array([0., 0., 0., 0., 0., 0., 0., 1.])
    """
    return _max_pool_backward("max_pool3d_with_indices_backward", 3, grad_output, input, (kernel_size, stride, padding, dilation, ceil_mode), indices)


register(max_pool3d, max_pool3d_backward, inputs=("input",), saved=(), record=_max_pool_record("max_pool3d", 3, False, _bound))
register(
    max_pool3d_with_indices, max_pool3d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("max_pool3d_with_indices", 3, True, _bound),
)  # fmt: skip
