"""Losses of a prediction x and a target t, each a number an element, with d = x - t.

==================  ================================================  =======================
function            loss                                              derivative by x
==================  ================================================  =======================
mse_loss            d^2                                               2 d
l1_loss             abs(d)                                            sign(d)
smooth_l1_loss      d^2 / (2 beta) below beta, else abs(d) - beta / 2 d / beta, or sign(d)
huber_loss          d^2 / 2 up to delta, else delta (abs(d) - delta/2) d clipped to [-delta, delta]
poisson_nll_loss    e^x - t x, or x - t log(x + eps)                  e^x - t, or 1 - t / (x + eps)
gaussian_nll_loss   (log v + d^2 / v) / 2 for the variance v          d / v
==================  ================================================  =======================

The derivative by t is the negative of that by x where the loss depends on d alone. Nothing is kept but the arguments.
Sources: Huber, "Robust Estimation of a Location Parameter" (1964); Girshick, "Fast R-CNN" (2015), equation 3;
Nix and Weigend, "Estimating the mean and variance of the target probability distribution" (1994).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.loss.arguments import (
    broadcast,
    check_mask,
    check_reduction,
    cotangent,
    finish,
    floats,
    number,
    same_shape,
    to_dtype,
    total,
    warn_of_broadcasting,
)  # fmt: skip
from fastops.ops.loss.terms import Term, differentiate, evaluate, inside
from fastops.simd.reduce import sum_to
from fastops.simd.vmath import copysign, exp, log

Gradients = tuple[Array | None, ...]


# ---- formulas


def _squared(x, y, z, p, q):
    d = x - y
    return d * d


def _squared_derivatives(x, y, z, p, q):
    d = x - y
    return d + d, -(d + d)


def _absolute(x, y, z, p, q):
    return abs(x - y)


def _absolute_derivatives(x, y, z, p, q):
    d = x - y
    # 0 at 0 and at NaN
    size = type(x)(1) if abs(d) > type(x)(0) else type(x)(0)
    return copysign(size, d), copysign(size, -d)


def _smooth(x, y, z, beta, q):
    half = type(x)(0.5)
    size = abs(x - y)
    return half * size * size / beta if size < beta else size - half * beta


def _smooth_derivatives(x, y, z, beta, q):
    d = x - y
    slope = d / beta if abs(d) < beta else copysign(type(x)(1), d)
    slope = slope if d == d else d
    return slope, -slope


def _huber(x, y, z, delta, q):
    half = type(x)(0.5)
    size = abs(x - y)
    return half * size * size if size <= delta else delta * (size - half * delta)


def _huber_derivatives(x, y, z, delta, q):
    d = x - y
    d = -delta if d < -delta else d
    d = delta if d > delta else d
    return d, -d


_SQUARED = Term("squared", _squared, _squared_derivatives, 0.2)
_ABSOLUTE = Term("absolute", _absolute, _absolute_derivatives, 0.2)
_SMOOTH = Term("smooth", _smooth, _smooth_derivatives, 0.3)
_HUBER = Term("huber", _huber, _huber_derivatives, 0.3)


def _poisson(log_input: bool, full: bool) -> Term:
    def formula(x, t, z, eps, q):
        loss = exp(x) - t * x if log_input else x - t * log(x + eps)
        if full:
            stirling = t * log(t) - t + type(t)(0.5) * log(type(t)(2 * math.pi) * t)
            loss += stirling if t > type(t)(1) else type(t)(0)
        return loss

    def derivatives(x, t, z, eps, q):
        dx = exp(x) - t if log_input else type(x)(1) - t / (x + eps)
        dt = -x if log_input else -log(x + eps)
        if full:
            slope = log(t) + type(t)(0.5) / t
            dt += slope if t > type(t)(1) else type(t)(0)
        return dx, dt

    return Term(f"poisson{'_log' * log_input}{'_full' * full}", formula, derivatives, 1.0)


_POISSON = {(log_input, full): _poisson(log_input, full) for log_input in (False, True) for full in (False, True)}


def _gaussian(x, t, v, eps, constant):
    d = x - t
    v = eps if v < eps else v
    return type(x)(0.5) * (log(v) + d * d / v) + constant


def _gaussian_derivatives(x, t, v, eps, constant):
    # the bound on the variance does not count: its gradient goes through unchanged
    v = eps if v < eps else v
    d = (x - t) / v
    return d, -d, type(x)(0.5) * (type(x)(1) / v - d * d)


_GAUSSIAN = Term("gaussian", _gaussian, _gaussian_derivatives, 1.0, 3)


# ---- what they share


def _evaluate(
    op: str, term: Term, input: Any, target: Any, weight: Any, reduction: str, p: float = 0.0, *, by_weight: bool = False,
    warn: bool = True,
) -> Array:  # fmt: skip
    """``by_weight``: a mean divides by the sum of the weights."""
    check_reduction(op, reduction)
    (x, t, w), dtype = floats(op, optional="weight", input=input, target=target, weight=weight)
    if w is not None:
        same_shape(op, "weight", w, "input", x.shape)
    divisor = total(w) if by_weight and w is not None and reduction == "mean" else None
    if x.shape != t.shape:
        if warn:
            warn_of_broadcasting(op, x, t)
        x, t = broadcast(op, input=x, target=t)
        w = None if w is None else np.ascontiguousarray(np.broadcast_to(w, x.shape))
    return to_dtype(evaluate(term, (x, t), reduction, weight=w, p=p, divisor=divisor), dtype)


def _differentiate(
    op: str, term: Term, grad_output: Any, input: Any, target: Any, weight: Any, reduction: str, output_mask: Any,
    p: float = 0.0, *, by_weight: bool = False,
) -> Gradients:  # fmt: skip
    check_reduction(op, reduction)
    (x, t, w), dtype = floats(op, optional="weight", input=input, target=target, weight=weight)
    if w is not None:
        same_shape(op, "weight", w, "input", x.shape)
    shapes = x.shape, t.shape, None if w is None else w.shape
    by_weight = by_weight and w is not None and reduction == "mean"
    divisor = total(w) if by_weight else None
    if x.shape != t.shape:
        x, t = broadcast(op, input=x, target=t)
        w = None if w is None else np.ascontiguousarray(np.broadcast_to(w, x.shape))
    g = cotangent(op, grad_output, x.shape if reduction == "none" else (), dtype)
    if reduction == "mean":
        g /= (x.size if divisor is None else divisor) or math.nan
    gradients = differentiate(term, (x, t), output_mask[:2], g, weight=w, p=p)
    if len(output_mask) == 3:
        gradients.append(None)
        if w is not None and output_mask[2]:
            each = evaluate(term, (x, t), "none", p=p)
            if by_weight:
                each -= evaluate(term, (x, t), "mean", weight=w, p=p, divisor=divisor)
            each *= g if isinstance(g, np.ndarray) else x.dtype.type(g)
            gradients[2] = each
    return finish(gradients, shapes, dtype)


# ---- public functions


@operation
def mse_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean", weight: ArrayLike | None = None) -> Array:
    """Squared error, w (x - t)^2: ``torch.nn.functional.mse_loss``.

    Args:
        input: x, of any shape (N, ...), float16, float32 or float64.
        target: t, of the same shape and dtype; another shape is broadcast, with a warning.
        reduction: "none": one loss an element; "sum": their sum; "mean": the sum divided by the number of elements, or by
            the sum of the weights.
        weight: w, of the shape of the input.

    Returns:
        The loss in the dtype of the input; for "mean" and "sum" an array without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> mse_loss(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]), reduction="none")
    array([0., 1., 9.])
    >>> float(mse_loss(np.array([1.0, 2.0]), np.array([1.0, 1.0])))
    0.5
    """
    return _evaluate("mse_loss", _SQUARED, input, target, weight, reduction, by_weight=True)


def mse_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean", weight: ArrayLike | None = None,
    *, output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`mse_loss` with respect to input, target and weight.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".
        output_mask: which gradients to compute; None stands for the others.

    Returns:
        (grad_input, grad_target, grad_weight).

    >>> import numpy as np
    >>> mse_loss_backward(1.0, np.array([1.0, 2.0]), np.array([1.0, 1.0]), output_mask=(True, False, False))
    (array([0., 1.]), None, None)
    """
    op = "mse_loss_backward"
    check_mask(op, output_mask, 3)
    return _differentiate(op, _SQUARED, grad_output, input, target, weight, reduction, output_mask, by_weight=True)


@operation
def l1_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean", weight: ArrayLike | None = None) -> Array:
    """Absolute error, w abs(x - t); arguments, result and errors are those of :func:`mse_loss`.

    >>> import numpy as np
    >>> l1_loss(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 6.0]), reduction="none")
    array([0., 1., 2.])
    """
    return _evaluate("l1_loss", _ABSOLUTE, input, target, weight, reduction, by_weight=True)


def l1_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean", weight: ArrayLike | None = None,
    *, output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`l1_loss`, 0 where input and target are equal; see :func:`mse_loss_backward`.

    >>> import numpy as np
    >>> l1_loss_backward(2.0, np.array([1.0, 1.5]), np.array([1.0, 1.0]))[0]
    array([0., 1.])
    """
    op = "l1_loss_backward"
    check_mask(op, output_mask, 3)
    return _differentiate(op, _ABSOLUTE, grad_output, input, target, weight, reduction, output_mask, by_weight=True)


def _smooth_term(op: str, beta: float) -> tuple[Term, float]:
    beta = number(op, "beta", beta)
    if not beta >= 0:
        raise ValueError(f"{op}: beta must be at least 0, got {beta}")
    return (_SMOOTH, beta) if beta else (_ABSOLUTE, 0.0)


@operation
def smooth_l1_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean", beta: float = 1.0) -> Array:
    """Squared error near 0, absolute error from ``beta`` on; ``beta=0`` is :func:`l1_loss`. See :func:`mse_loss`.

    Args:
        beta: at least 0, in the unit of the input.

    >>> import numpy as np
    >>> smooth_l1_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="none")
    array([0.125, 2.5  ])
    """
    term, p = _smooth_term("smooth_l1_loss", beta)
    return _evaluate("smooth_l1_loss", term, input, target, None, reduction, p)


def smooth_l1_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean", beta: float = 1.0, *,
    output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`smooth_l1_loss` with respect to input and target; see :func:`mse_loss_backward`.

    >>> import numpy as np
    >>> smooth_l1_loss_backward(2.0, np.array([0.5, 3.0]), np.zeros(2))
    (array([0.5, 1. ]), array([-0.5, -1. ]))
    """
    op = "smooth_l1_loss_backward"
    check_mask(op, output_mask, 2)
    term, p = _smooth_term(op, beta)
    return _differentiate(op, term, grad_output, input, target, None, reduction, output_mask, p)


def _delta(op: str, delta: float) -> float:
    delta = number(op, "delta", delta)
    if not delta > 0:
        raise ValueError(f"{op}: delta must be greater than 0, got {delta}")
    return delta


@operation
def huber_loss(
    input: ArrayLike, target: ArrayLike, reduction: str = "mean", delta: float = 1.0, weight: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Half the squared error up to ``delta``, linear beyond, times w. See :func:`mse_loss`.

    Args:
        delta: greater than 0, in the unit of the input.
        weight: w, of the shape of the input; a mean divides by the number of elements all the same.

    >>> import numpy as np
    >>> huber_loss(np.array([1.0, 3.0]), np.zeros(2), reduction="none", delta=2.0)
    array([0.5, 4. ])
    """
    return _evaluate("huber_loss", _HUBER, input, target, weight, reduction, _delta("huber_loss", delta))


def huber_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean", delta: float = 1.0,
    weight: ArrayLike | None = None, *, output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`huber_loss` with respect to input, target and weight; see :func:`mse_loss_backward`.

    >>> import numpy as np
    >>> huber_loss_backward(2.0, np.array([1.0, 3.0]), np.zeros(2), delta=2.0)[0]
    array([1., 2.])
    """
    op = "huber_loss_backward"
    check_mask(op, output_mask, 3)
    return _differentiate(op, _HUBER, grad_output, input, target, weight, reduction, output_mask, _delta(op, delta))


@operation
def poisson_nll_loss(
    input: ArrayLike, target: ArrayLike, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """Negative logarithm of the Poisson probability of ``target``, up to a constant.

    Args:
        input: the logarithm of the rate, or the rate itself when ``log_input`` is false; (N, ...).
        target: the counts; broadcast with the input.
        full: add Stirling's approximation of log(target!) where the target is greater than 1.
        eps: added to the rate before its logarithm is taken.
        reduction: as for :func:`mse_loss`, where the other arguments, the result and the errors are described too.

    >>> import numpy as np
    >>> poisson_nll_loss(np.array([0.0, 1.0]), np.array([1.0, 1.0]), reduction="none").round(4)
    array([1.    , 1.7183])
    """
    term = _POISSON[bool(log_input), bool(full)]
    return _evaluate("poisson_nll_loss", term, input, target, None, reduction, number("poisson_nll_loss", "eps", eps), warn=False)


def poisson_nll_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, log_input: bool = True, full: bool = False,
    eps: float = 1e-8, reduction: str = "mean", *, output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`poisson_nll_loss` with respect to input and target; see :func:`mse_loss_backward`.

    >>> import numpy as np
    >>> poisson_nll_loss_backward(2.0, np.array([0.0, 0.0]), np.array([1.0, 3.0]))[0]
    array([ 0., -2.])
    """
    op = "poisson_nll_loss_backward"
    check_mask(op, output_mask, 2)
    term = _POISSON[bool(log_input), bool(full)]
    return _differentiate(op, term, grad_output, input, target, None, reduction, output_mask, number(op, "eps", eps))


def _gaussian_arguments(op: str, input: Any, target: Any, var: Any, full: bool, eps: float) -> tuple[Any, ...]:
    one = isinstance(var, (int, float))
    own = None if type(var) in (int, float) else np.shape(var)  # a NumPy number is a float, too, but may have a gradient
    if one:
        var = np.full(np.shape(input), var, getattr(input, "dtype", np.float64))
    (x, t, v), dtype = floats(op, input=input, target=target, var=var)
    if not inside(v, 0.0, math.inf) and (v < 0).any():
        raise ValueError(f"{op}: var must not be negative, got {v.min()} as its smallest value")
    if v.shape != x.shape:
        if x.shape[:-1] == v.shape:
            v = v[..., None]
        elif v.ndim != x.ndim or sum(n for m, n in zip(x.shape, v.shape) if m != n) != 1:
            raise ValueError(f"{op}: var must have the shape of input, {x.shape}, lack its last axis or have 1 for one axis, got {v.shape}")
    arrays = broadcast(op, input=x, target=t, var=v)
    constant = 0.5 * math.log(2 * math.pi) if full else 0.0
    return arrays, (x.shape, t.shape, own), () if one else v.shape, dtype, {"p": number(op, "eps", eps), "q": constant}


@operation
def gaussian_nll_loss(
    input: ArrayLike, target: ArrayLike, var: ArrayLike | float, full: bool = False, eps: float = 1e-6,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """Negative logarithm of the normal density of ``target``, up to a constant.

    Args:
        input: the expected value, (N, ...).
        target: broadcast with the input.
        var: the variance, not negative: of the shape of the input, without its last axis, with one axis of length 1, or
            one number.
        full: add the constant, log(2 pi) / 2.
        eps: the variance is taken to be at least this; the gradient does not see it.
        reduction: as for :func:`mse_loss`, where the other arguments, the result and the errors are described too.

    >>> import numpy as np
    >>> gaussian_nll_loss(np.array([0.0, 2.0]), np.zeros(2), np.ones(2), reduction="none")
    array([0., 2.])
    """
    op = "gaussian_nll_loss"
    check_reduction(op, reduction)
    arrays, _, _, dtype, parameters = _gaussian_arguments(op, input, target, var, full, eps)
    return to_dtype(evaluate(_GAUSSIAN, arrays, reduction, **parameters), dtype)


def gaussian_nll_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, var: ArrayLike | float, full: bool = False,
    eps: float = 1e-6, reduction: str = "mean", *, output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`gaussian_nll_loss` with respect to input, target and var (None for a number of Python's); see :func:`mse_loss_backward`.

    >>> import numpy as np
    >>> gaussian_nll_loss_backward(2.0, np.array([1.0, 2.0]), np.zeros(2), np.ones(2))
    (array([1., 2.]), array([-1., -2.]), array([ 0. , -1.5]))
    """
    op = "gaussian_nll_loss_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 3)
    arrays, shapes, spread, dtype, parameters = _gaussian_arguments(op, input, target, var, full, eps)
    x = arrays[0]
    g = cotangent(op, grad_output, x.shape if reduction == "none" else (), dtype)
    if reduction == "mean":
        g /= x.size or math.nan
    wanted = (*output_mask[:2], output_mask[2] and shapes[2] is not None)
    dx, dt, dv = differentiate(_GAUSSIAN, arrays, wanted, g, **parameters)
    if dv is not None:
        dv = sum_to(dv, spread).reshape(shapes[2])
    return finish((dx, dt, dv), shapes, dtype)


register(mse_loss, mse_loss_backward, inputs=("input", "target", "weight"), saved=("input", "target", "weight"))
register(l1_loss, l1_loss_backward, inputs=("input", "target", "weight"), saved=("input", "target", "weight"))
register(smooth_l1_loss, smooth_l1_loss_backward, inputs=("input", "target"), saved=("input", "target"))
register(huber_loss, huber_loss_backward, inputs=("input", "target", "weight"), saved=("input", "target", "weight"))
register(poisson_nll_loss, poisson_nll_loss_backward, inputs=("input", "target"), saved=("input", "target"))
register(gaussian_nll_loss, gaussian_nll_loss_backward, inputs=("input", "target", "var"), saved=("input", "target", "var"))
