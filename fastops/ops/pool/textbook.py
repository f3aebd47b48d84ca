"""Pooling of a plain array, as textbooks introduce it: the largest element or the mean of every window of (H, W).

Source: Zhang, Lipton, Li, Smola, "Dive into Deep Learning" (2021), section 7.5, whose ``pool2d`` this is, with stride, padding,
more axes and a gradient.
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.pool.run import (
    check_places,
    largest,
    largest_and_places,
    mean_factors,
    send_back,
    weighted_sum,
    weighted_sum_backward,
)  # fmt: skip
from fastops.ops.pool.windows import Integers, Plan, ordinary

Mode = Literal["max", "avg"]


def _plan(op: str, shape: tuple[int, ...], pool_size: Any, mode: Any, stride: Any, padding: Any) -> tuple[Plan, tuple[int, ...]]:
    """The windows of (planes, 1, H, W), and the shape of the result."""
    _check.choice(op, "mode", mode, ("max", "avg"))
    if len(shape) < 2 or 0 in shape[-2:]:
        raise ValueError(f"{op}: input must have axes (..., H, W), of at least 1, got shape {shape}")
    size = _check.integers(op, "pool_size", pool_size, 2, minimum=1)
    strides = _check.integers(op, "stride", stride, 2, minimum=1)
    plan: Plan = ordinary(op, 2, (prod(shape[:-2]), 1, *shape[-2:]), size, strides, padding, 1, False)
    return plan, (*shape[:-2], *plan.shape[-2:])


@operation
def pool2d(
    input: ArrayLike, pool_size: Integers, mode: Mode = "max", stride: Integers = 1, padding: Integers = 0,
) -> Array:  # fmt: skip
    """The largest element or the mean of every window of an array.

    Args:
        input: (H, W), or with any more axes in front (..., H, W), float16, float32 or float64.
        pool_size: extent of a window, an integer or 2.
        mode: "max" or "avg".
        stride: distance of windows.
        padding: elements on both sides, at most half of ``pool_size``; minus infinity for a maximum, zeros for a mean, whose
            divisor counts them.

    Returns:
        (P, Q), with the axes in front, of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> pool2d(np.arange(9.0).reshape(3, 3), (2, 2))
    array([[4., 5.],
           [7., 8.]])
    """
    (x,), dtype = _check.as_arrays("pool2d", input=input)
    plan, shape = _plan("pool2d", x.shape, pool_size, mode, stride, padding)
    y = largest(plan, x) if mode == "max" else weighted_sum(plan, x, mean_factors(plan, x.dtype))
    return y.reshape(shape).astype(dtype, copy=False)


def pool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, pool_size: Integers, mode: Mode = "max", stride: Integers = 1, padding: Integers = 0,
    *, indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`pool2d` with respect to its input, of which only the shape matters with ``indices`` or for a mean.

    >>> import numpy as np
    >>> pool2d_backward(np.ones((1, 1)), np.array([[1.0, 2.0], [4.0, 3.0]]), 2)
    array([[0., 0.],
           [1., 0.]])
    """
    op = "pool2d_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    in_shape = _check.shape_of(op, "input", input, dtype)
    plan, shape = _plan(op, in_shape, pool_size, mode, stride, padding)
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {dy.shape}")
    dy = dy.reshape(plan.shape)
    if mode == "avg":
        dx = weighted_sum_backward(plan, dy, mean_factors(plan, dy.dtype))
    else:
        if indices is None:
            x = _check.as_arrays(op, input=input)[0][0].reshape(plan.input_shape)
            places = largest_and_places(plan, x)[1]
        else:
            places = check_places(op, "indices", indices, shape, plan.plane, np.int32, lowest=-1)
        dx = send_back(plan, dy, places)
    return dx.reshape(in_shape).astype(dtype, copy=False)


def _pool2d_record(
    input: Any, pool_size: Any, mode: Any = "max", stride: Any = 1, padding: Any = 0,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    (x,), dtype = _check.as_arrays("pool2d", input=input)
    plan, shape = _plan("pool2d", x.shape, pool_size, mode, stride, padding)
    if mode == "avg":
        return weighted_sum(plan, x, mean_factors(plan, x.dtype)).reshape(shape).astype(dtype, copy=False), {}
    y, places = largest_and_places(plan, x)
    return y.reshape(shape).astype(dtype, copy=False), {"indices": places.reshape(shape)}


register(pool2d, pool2d_backward, inputs=("input",), saved=(), record=_pool2d_record)
