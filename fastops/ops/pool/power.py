"""Norm pooling: the p-norm of every window, without absolute values.

    y = (sum over the window of x**p)**(1/p)        dx = dy y**(1 - p) x**(p - 1), summed over the windows

and p = inf, -inf: the largest, the smallest of the absolute values. Where a window's sum is 0 the gradient is 0. A window that
fits in part (``ceil_mode``) counts for a whole one: its sum is scaled by the ratio of the two. The sum is that of mean pooling,
between two maps; kept for the backward pass is y.

Source: Sermanet, Chintala, LeCun, "Convolutional Neural Networks Applied to House Numbers Digit Classification" (2012),
section 2.2.
"""

from __future__ import annotations

from math import isinf, isnan
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import formula, launcher, parallel, separate
from fastops._memory import empty_like
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.pool.run import check_gradient, check_shape, counts, largest, max_backward, weighted_sum, weighted_sum_backward
from fastops.ops.pool.windows import Integers, Plan, ordinary
from fastops.simd.rows import assign
from fastops.simd.vmath import exp, log

_BLOCK = 1 << 13
_NS_PER_POWER = 3.0


@formula
def _sign_below_zero(p):
    """What the p-th power of a negative number has as its sign: NaN for p that are no integers."""
    return (1.0 if np.floor(0.5 * p) == 0.5 * p else -1.0) if np.floor(p) == p else np.nan


@formula
def _power(x, p, sign):
    """x**p in float64: a float32 result is correct to its last bits."""
    base = np.float64(x)
    size = exp(p * log(abs(base)))
    return size * sign if base < 0 else size


@separate
def _raise_block(block, worker, x, p, y):
    """y = x**p for a block of flat arrays; p as float64."""
    count = min(_BLOCK, x.size - block * _BLOCK)
    x, y = x[block * _BLOCK : block * _BLOCK + count], y[block * _BLOCK : block * _BLOCK + count]
    real = y.dtype.type
    if p == 1:
        assign(y, x)
    elif p == 2:
        for i in range(count):
            y[i] = x[i] * x[i]
    elif p == 3:
        for i in range(count):
            y[i] = x[i] * x[i] * x[i]
    elif p == 0.5:
        for i in range(count):
            y[i] = np.sqrt(x[i])
    else:
        sign = _sign_below_zero(p)
        for i in range(count):
            y[i] = real(_power(x[i], p, sign))


@separate
def _weigh_block(block, worker, dy, y, p, g):
    """g = dy y**(1 - p), 0 where y is."""
    count = min(_BLOCK, y.size - block * _BLOCK)
    dy, y, g = dy[block * _BLOCK : block * _BLOCK + count], y[block * _BLOCK : block * _BLOCK + count], g[block * _BLOCK : block * _BLOCK + count]
    real = y.dtype.type
    zero = real(0)
    if p == 1:  # NaN has no sign, and PyTorch multiplies by it
        for i in range(count):
            g[i] = dy[i] if (y[i] > zero) | (y[i] < zero) else zero
    elif p == 2:
        for i in range(count):
            g[i] = zero if y[i] == zero else dy[i] / y[i]
    else:
        sign = _sign_below_zero(1 - p)
        for i in range(count):
            scaled = dy[i] * real(_power(y[i], 1 - p, sign))
            g[i] = zero if y[i] == zero else scaled


@separate
def _chain_block(block, worker, x, p, dx):
    """dx *= x**(p - 1)"""
    count = min(_BLOCK, x.size - block * _BLOCK)
    x, dx = x[block * _BLOCK : block * _BLOCK + count], dx[block * _BLOCK : block * _BLOCK + count]
    real = x.dtype.type
    if p == 2:
        for i in range(count):
            dx[i] *= x[i]
    elif p == 3:
        for i in range(count):
            dx[i] *= x[i] * x[i]
    elif p != 1:
        sign = _sign_below_zero(p - 1)
        for i in range(count):
            dx[i] *= real(_power(x[i], p - 1, sign))


@launcher
def _raise(threads, x, p, y):
    parallel(_raise_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (x, p, y))


@launcher
def _weigh(threads, dy, y, p, g):
    parallel(_weigh_block, (y.size + _BLOCK - 1) // _BLOCK, threads, (dy, y, p, g))


@launcher
def _chain(threads, x, p, dx):
    parallel(_chain_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (x, p, dx))


def _exponent(op: str, norm_type: Any) -> float:
    if isinstance(norm_type, (bool, np.bool_)) or not isinstance(norm_type, Real):
        raise TypeError(f"{op}: norm_type must be a number, got {norm_type!r}")
    p = float(norm_type)
    if p == 0 or isnan(p):
        raise ValueError(f"{op}: norm_type must be a number other than 0, got {norm_type!r}")
    return p


def _plan(op: str, ndim: int, shape: tuple[int, ...], kernel_size: Any, stride: Any, ceil_mode: Any) -> Plan:
    plan: Plan = ordinary(op, ndim, shape, kernel_size, stride, 0, 1, ceil_mode)
    return plan


def _lp_pool(op: str, ndim: int, input: Any, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: Any) -> Array:
    (x,), dtype = _check.as_arrays(op, input=input)
    p = _exponent(op, norm_type)
    plan = _plan(op, ndim, x.shape, kernel_size, stride, ceil_mode)
    if isinf(p):
        return np.abs(largest(plan, np.copysign(np.abs(x), p))).astype(dtype, copy=False)
    powers = x
    if p != 1:
        powers = empty_like(x)
        _raise(threads_for(x.size * _NS_PER_POWER), x.ravel(), p, powers.ravel())
    y = weighted_sum(plan, powers, _factors(op, plan, ndim, kernel_size, x.dtype))
    if p != 1:  # not in place: a loop whose result might overlap its argument would stay scalar
        sums, y = y, empty_like(y)
        _raise(threads_for(y.size * _NS_PER_POWER), sums.ravel(), 1 / p, y.ravel())
    return y.astype(dtype, copy=False)


def _factors(op: str, plan: Plan, ndim: int, kernel_size: Any, dtype: np.dtype[Any]) -> Array:
    """A whole window over the part of it that is inside, axis by axis."""
    kernel = (1,) * (3 - ndim) + _check.integers(op, "kernel_size", kernel_size, ndim, minimum=1)
    return plan.row("power", lambda: np.concatenate([k / counts(axis, True) for k, axis in zip(kernel, plan.axes)]), dtype)


def _lp_pool_record(op: str, ndim: int) -> Any:
    def record(
        input: Any, norm_type: Any, kernel_size: Any, stride: Any = None, ceil_mode: bool = False,
    ) -> tuple[Array, dict[str, Any]]:  # fmt: skip
        (x,), dtype = _check.as_arrays(op, input=input)
        y = _lp_pool(op, ndim, x, norm_type, kernel_size, stride, ceil_mode)
        return y.astype(dtype, copy=False), {"output": y}

    return record


def _lp_pool_backward(
    op: str, ndim: int, grad_output: Any, input: Any, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: Any, output: Any,
) -> Array:  # fmt: skip
    dy, dtype = check_gradient(op, grad_output)
    p = _exponent(op, norm_type)
    (x,), input_dtype = _check.as_arrays(op, input=input)
    if input_dtype != dtype:
        raise TypeError(f"{op}: input must have the dtype of grad_output, {dtype}, got {input_dtype}")
    plan = _plan(op, ndim, x.shape, kernel_size, stride, ceil_mode)
    check_shape(op, dy, plan)
    if isinf(p):
        size = np.copysign(np.abs(x), p)
        dx = max_backward(op, lambda shape: plan, dy, size, None)
        return (dx * np.sign(x)).astype(dtype, copy=False)
    if output is None:
        output = _lp_pool(op, ndim, x, norm_type, kernel_size, stride, ceil_mode)
    (y,), _ = _check.as_arrays(op, output=output)
    if y.shape != dy.shape or y.dtype != dy.dtype:
        raise ValueError(f"{op}: output must have shape and dtype of grad_output, {dy.shape} {dtype}, got {y.shape} {y.dtype}")
    weighed = empty_like(dy)
    _weigh(threads_for(dy.size * _NS_PER_POWER), dy.ravel(), y.ravel(), p, weighed.ravel())
    dx = weighted_sum_backward(plan, weighed, _factors(op, plan, ndim, kernel_size, x.dtype))
    _chain(threads_for(x.size * _NS_PER_POWER), x.ravel(), p, dx.ravel())
    return dx.astype(dtype, copy=False)


@operation
def lp_pool1d(
    input: ArrayLike, norm_type: float, kernel_size: Integers, stride: Integers | None = None, ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """The p-norm of every window of a sequence, (N, C, L) or (C, L); arguments as for :func:`lp_pool2d`.

    >>> import numpy as np
    >>> lp_pool1d(np.array([[[3.0, 4.0]]]), 2, 2)
    array([[[5.]]])
    """
    return _lp_pool("lp_pool1d", 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool1d_backward(
    grad_output: ArrayLike, input: ArrayLike, norm_type: float, kernel_size: Integers, stride: Integers | None = None, ceil_mode: bool = False, *,
    output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`lp_pool1d` with respect to its input; ``output`` is what the forward pass gave.

    >>> import numpy as np
    >>> lp_pool1d_backward(np.array([[[10.0]]]), np.array([[[3.0, 4.0]]]), 2, 2)
    array([[[6., 8.]]])
    """
    return _lp_pool_backward("lp_pool1d_backward", 1, grad_output, input, norm_type, kernel_size, stride, ceil_mode, output)


register(lp_pool1d, lp_pool1d_backward, inputs=("input",), saved=("input",), record=_lp_pool_record("lp_pool1d", 1))


@operation
def lp_pool2d(
    input: ArrayLike, norm_type: float, kernel_size: Integers, stride: Integers | None = None, ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """The p-norm of every window of an image, without absolute values: ``torch.nn.functional.lp_pool2d``.

    Args:
        input: (N, C, H, W) or (C, H, W), float16, float32 or float64.
        norm_type: p, any number but 0; inf and -inf stand for the largest and the smallest absolute value. Of negative elements
            only an integer p has a power.
        kernel_size: extent of a window, an integer or 2.
        stride: distance of windows; None stands for ``kernel_size``.
        ceil_mode: whether a last window counts that fits in part.

    Returns:
        (N, C, P, Q), or without N, of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> lp_pool2d(np.array([[[1.0, 2.0], [2.0, 4.0]]]), 2, 2)
    array([[[5.]]])
    """
    return _lp_pool("lp_pool2d", 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, norm_type: float, kernel_size: Integers, stride: Integers | None = None, ceil_mode: bool = False, *,
    output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`lp_pool2d` with respect to its input; ``output`` is what the forward pass gave.

    >>> import numpy as np
    >>> lp_pool2d_backward(np.array([[[10.0]]]), np.array([[[1.0, 2.0], [2.0, 4.0]]]), 2, 2)
    array([[[2., 4.],
            [4., 8.]]])
    """
    return _lp_pool_backward("lp_pool2d_backward", 2, grad_output, input, norm_type, kernel_size, stride, ceil_mode, output)


register(lp_pool2d, lp_pool2d_backward, inputs=("input",), saved=("input",), record=_lp_pool_record("lp_pool2d", 2))


@operation
def lp_pool3d(
    input: ArrayLike, norm_type: float, kernel_size: Integers, stride: Integers | None = None, ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """The p-norm of every window of a volume, (N, C, D, H, W) or (C, D, H, W); arguments as for :func:`lp_pool2d`.

    >>> import numpy as np
    >>> lp_pool3d(np.array([[[[3.0, 4.0]]]]), 2, (1, 1, 2))
    array([[[[5.]]]])
    """
    return _lp_pool("lp_pool3d", 3, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d_backward(
    grad_output: ArrayLike, input: ArrayLike, norm_type: float, kernel_size: Integers, stride: Integers | None = None, ceil_mode: bool = False, *,
    output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`lp_pool3d` with respect to its input; ``output`` is what the forward pass gave.

    >>> import numpy as np
    >>> lp_pool3d_backward(np.array([[[[10.0]]]]), np.array([[[[3.0, 4.0]]]]), 2, (1, 1, 2))
    array([[[[6., 8.]]]])
    """
    return _lp_pool_backward("lp_pool3d_backward", 3, grad_output, input, norm_type, kernel_size, stride, ceil_mode, output)


register(lp_pool3d, lp_pool3d_backward, inputs=("input",), saved=("input",), record=_lp_pool_record("lp_pool3d", 3))
