"""The optimizers that treat each element for itself, with the names, defaults and numbers of ``torch.optim``.

In the formulas p is the parameter, g the gradient, c the coefficients: c[0] to c[2] mean the same everywhere (the sign of the
objective, the L2 penalty, and what decoupled weight decay leaves of the parameter), the others what the function that makes
the optimizer says. Bias corrections and learning rates are computed in float64 and enter as coefficients.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from fastops import _check
from fastops._jit import formula
from fastops.optim.optimizer import Optimizer, Schedule
from fastops.optim.update import Rule, descent
from fastops.simd.reduce import maximum


def at_least_zero(op: str, **values: Any) -> tuple[float, ...]:
    """Numbers of at least 0."""
    numbers = []
    for name, value in values.items():
        number = _check.real(op, name, value)
        if not number >= 0:
            raise ValueError(f"{op}: {name} must be at least 0, got {value!r}")
        numbers.append(number)
    return tuple(numbers)


def learning_rate(op: str, lr: Any) -> float | Schedule:
    """A number of at least 0, or a schedule as it is."""
    return lr if callable(lr) else at_least_zero(op, lr=lr)[0]


def _decay_rates(op: str, betas: Any) -> tuple[float, float]:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"{op}: betas must be two numbers, got {betas!r}")
    for index, beta in enumerate(betas):
        if not 0.0 <= _check.real(op, f"betas[{index}]", beta) < 1.0:
            raise ValueError(f"{op}: betas[{index}] must be from 0 to below 1, got {beta!r}")
    return float(betas[0]), float(betas[1])


# ---- gradient descent


@formula
def _descend(p, g, c):
    return c[2] * p - c[3] * descent(p, g, c)


@formula
def _descend_with_momentum(p, g, m, c):
    g = descent(p, g, c)
    m = c[3] * m + c[4] * g
    return p - (c[5] * g + c[6] * m), m


_DESCEND = Rule(__name__, _descend, states=0, ns=0.3)
_DESCEND_WITH_MOMENTUM = Rule(__name__, _descend_with_momentum, states=1, ns=0.5)


def sgd(
    lr: float | Schedule = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> Optimizer:
    """Stochastic gradient descent, with momentum: m = momentum m + (1 - dampening) g, p -= lr m (with nesterov lr (g + momentum m)).

    Args:
        lr: the learning rate, or a schedule: a function of the number of steps before.
        momentum: what is kept of the last step; 0 for none.
        dampening: what is left out of the gradient, except in the first step.
        weight_decay: an L2 penalty: ``weight_decay`` times the parameter is added to the gradient.
        nesterov: look ahead by the momentum; needs a momentum, and no dampening.
        maximize: ascend instead.

    Source: Sutskever et al., "On the Importance of Initialization and Momentum in Deep Learning" (ICML 2013).

    >>> sgd(lr=0.1, momentum=0.9)
    sgd(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False)
    """
    op = "sgd"
    lr = learning_rate(op, lr)
    momentum, weight_decay = at_least_zero(op, momentum=momentum, weight_decay=weight_decay)
    dampening = _check.real(op, "dampening", dampening)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(f"{op}: nesterov must be False without momentum or with dampening, got momentum={momentum}, dampening={dampening}")
    options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize}
    sign = -1.0 if maximize else 1.0
    if momentum == 0:
        return Optimizer(op, options, _DESCEND, (), lambda step, lr: (sign, weight_decay, 1.0, lr))

    def coefficients(step: int, lr: float) -> tuple[float, ...]:
        kept, taken = (0.0, 1.0) if step == 1 else (momentum, 1 - dampening)
        return (sign, weight_decay, 1.0, kept, taken, *((lr, lr * momentum) if nesterov else (0.0, lr)))

    return Optimizer(op, options, _DESCEND_WITH_MOMENTUM, ("momentum_buffer",), coefficients)


# ---- a scale for each element: Adagrad and its descendants


@formula
def _scale(p, g, v, c):
    g = descent(p, g, c)
    v = c[3] * v + c[4] * g * g
    return p - c[5] * g / (np.sqrt(v) + c[6]), v


@formula
def _scale_with_momentum(p, g, v, m, c):
    g = descent(p, g, c)
    v = c[3] * v + c[4] * g * g
    m = c[7] * m + g / (np.sqrt(v) + c[6])
    return p - c[5] * m, v, m


@formula
def _scale_centered(p, g, v, u, c):
    g = descent(p, g, c)
    v = c[3] * v + c[4] * g * g
    u = u + c[4] * (g - u)
    return p - c[5] * g / (np.sqrt(v - u * u) + c[6]), v, u


@formula
def _scale_centered_with_momentum(p, g, v, u, m, c):
    g = descent(p, g, c)
    v = c[3] * v + c[4] * g * g
    u = u + c[4] * (g - u)
    m = c[7] * m + g / (np.sqrt(v - u * u) + c[6])
    return p - c[5] * m, v, u, m


@formula
def _match_units(p, g, v, d, c):
    g = descent(p, g, c)
    v = c[3] * v + c[4] * g * g
    step = np.sqrt(d + c[6]) / np.sqrt(v + c[6]) * g
    return p - c[5] * step, v, c[3] * d + c[4] * step * step


_SCALE = Rule(__name__, _scale, states=1, ns=0.7)
_SCALE_WITH_MOMENTUM = Rule(__name__, _scale_with_momentum, states=2, ns=1.0)
_SCALE_CENTERED = Rule(__name__, _scale_centered, states=2, ns=1.0)
_SCALE_CENTERED_WITH_MOMENTUM = Rule(__name__, _scale_centered_with_momentum, states=3, ns=1.3)
_MATCH_UNITS = Rule(__name__, _match_units, states=2, ns=1.0)


def adagrad(
    lr: float | Schedule = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    *,
    maximize: bool = False,
) -> Optimizer:
    """Adagrad: v += g^2, p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps).

    Args:
        lr, weight_decay, maximize: as of :func:`sgd`.
        lr_decay: how the learning rate falls with the number of steps t.
        initial_accumulator_value: what v begins with.
        eps: keeps the divisor above 0.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods" (JMLR 2011).
    """
    op = "adagrad"
    lr = learning_rate(op, lr)
    lr_decay, weight_decay, initial, eps = at_least_zero(
        op, lr_decay=lr_decay, weight_decay=weight_decay, initial_accumulator_value=initial_accumulator_value, eps=eps
    )
    options = {
        "lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": initial, "eps": eps, "maximize": maximize,
    }  # fmt: skip
    sign = -1.0 if maximize else 1.0

    def coefficients(step: int, lr: float) -> tuple[float, ...]:
        return sign, weight_decay, 1.0, 1.0, 1.0, lr / (1 + (step - 1) * lr_decay), eps

    return Optimizer(op, options, _SCALE, ("sum",), coefficients, initial)


def adadelta(lr: float | Schedule = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0, *, maximize: bool = False) -> Optimizer:
    """Adadelta: steps s = sqrt(d + eps) / sqrt(v + eps) g, with v and d running means of g^2 and s^2, p -= lr s.

    Args:
        lr, weight_decay, maximize: as of :func:`sgd`.
        rho: what the running means keep in a step.
        eps: what both begin with, in effect.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (arXiv:1212.5701), algorithm 1.
    """
    op = "adadelta"
    lr = learning_rate(op, lr)
    rho = _check.probability(op, "rho", rho)
    eps, weight_decay = at_least_zero(op, eps=eps, weight_decay=weight_decay)
    options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    sign = -1.0 if maximize else 1.0
    return Optimizer(op, options, _MATCH_UNITS, ("square_avg", "acc_delta"), lambda step, lr: (sign, weight_decay, 1.0, rho, 1 - rho, lr, eps))


def rmsprop(
    lr: float | Schedule = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> Optimizer:
    """RMSprop: v = alpha v + (1 - alpha) g^2, m = momentum m + g / (sqrt(v) + eps), p -= lr m.

    Args:
        lr, weight_decay, maximize: as of :func:`sgd`.
        alpha: what the running mean keeps in a step.
        eps: keeps the divisor above 0.
        momentum: what is kept of the last step.
        centered: divide by the standard deviation: v less the square of the mean gradient.

    Source: Hinton, "Neural Networks for Machine Learning" (2012), lecture 6e; Graves (arXiv:1308.0850), equations 38 to 41, centered.
    """
    op = "rmsprop"
    lr = learning_rate(op, lr)
    alpha, eps, weight_decay, momentum = at_least_zero(op, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    options = {
        "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered, "maximize": maximize,
    }  # fmt: skip
    sign = -1.0 if maximize else 1.0
    if momentum > 0:
        rule = _SCALE_CENTERED_WITH_MOMENTUM if centered else _SCALE_WITH_MOMENTUM
    else:
        rule = _SCALE_CENTERED if centered else _SCALE
    keeps = ("square_avg", *(("grad_avg",) if centered else ()), *(("momentum_buffer",) if momentum > 0 else ()))
    return Optimizer(op, options, rule, keeps, lambda step, lr: (sign, weight_decay, 1.0, alpha, 1 - alpha, lr, eps, momentum))


# ---- Adam and its relatives: one formula, whose coefficients differ


@formula
def _adapt(p, g, m, v, c):
    g = descent(p, g, c)
    m = m + c[3] * (g - m)
    v = c[4] * v + c[5] * g * g
    return c[2] * p - (c[6] * m + c[7] * g) / (c[8] * np.sqrt(v) + c[9]), m, v


@formula
def _adapt_to_largest(p, g, m, v, u, c):
    g = descent(p, g, c)
    m = m + c[3] * (g - m)
    v = c[4] * v + c[5] * g * g
    u = maximum(u, v)
    return c[2] * p - (c[6] * m + c[7] * g) / (c[8] * np.sqrt(u) + c[9]), m, v, u


@formula
def _adapt_to_norm(p, g, m, u, c):
    g = descent(p, g, c)
    m = m + c[3] * (g - m)
    u = maximum(c[4] * u, abs(g) + c[6])
    return p - c[5] * m / u, m, u


_ADAPT = Rule(__name__, _adapt, states=2, ns=1.0)
_ADAPT_TO_LARGEST = Rule(__name__, _adapt_to_largest, states=3, ns=1.3)
_ADAPT_TO_NORM = Rule(__name__, _adapt_to_norm, states=2, ns=1.0)

_MOMENTS = ("exp_avg", "exp_avg_sq")


class _Decay:
    """What adam, nadam and radam take alike, and their first six coefficients."""

    def __init__(self, op: str, lr: Any, betas: Any, eps: Any, weight_decay: Any, decoupled: bool, maximize: bool) -> None:
        self.lr = learning_rate(op, lr)
        self.betas = _decay_rates(op, betas)
        self.eps, self.weight_decay = at_least_zero(op, eps=eps, weight_decay=weight_decay)
        self.decoupled = decoupled
        self.sign = -1.0 if maximize else 1.0
        self.options = {"lr": self.lr, "betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}

    def first(self, lr: float) -> tuple[float, ...]:
        penalty, left = (0.0, 1 - lr * self.weight_decay) if self.decoupled else (self.weight_decay, 1.0)
        return self.sign, penalty, left, 1 - self.betas[0], self.betas[1], 1 - self.betas[1]


def adam(
    lr: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> Optimizer:
    """Adam: p -= lr m / (sqrt(v) + eps), with m and v running means of g and g^2, corrected for having begun with 0.

    Args:
        lr, weight_decay, maximize: as of :func:`sgd`.
        betas: what the running means keep in a step.
        eps: keeps the divisor above 0.
        amsgrad: divide by the largest v so far.
        decoupled_weight_decay: shrink the parameter instead of adding to the gradient, as :func:`adamw`.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), algorithm 1; Reddi, Kale, Kumar, "On the Convergence
    of Adam and Beyond" (ICLR 2018), amsgrad.

    >>> opt = adam(lr=0.1)
    >>> params = {"w": np.array([1.0, -1.0])}
    >>> params, state = opt.update(params, {"w": np.array([0.5, -3.0])}, opt.init(params))
    >>> params["w"]
    array([ 0.9, -0.9])
    """
    return _adam("adam", lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay)


def adamw(
    lr: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> Optimizer:
    """As :func:`adam`, with decoupled weight decay: the parameter shrinks by the factor 1 - lr weight_decay in each step.

    Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), algorithm 2.
    """
    return _adam("adamw", lr, betas, eps, weight_decay, amsgrad, maximize, True)


def _adam(op: str, lr: Any, betas: Any, eps: Any, weight_decay: Any, amsgrad: bool, maximize: bool, decoupled: bool) -> Optimizer:
    decay = _Decay(op, lr, betas, eps, weight_decay, decoupled, maximize)
    options = {**decay.options, "amsgrad": amsgrad, "maximize": maximize}
    if op == "adam":
        options["decoupled_weight_decay"] = decoupled
    beta1, beta2 = decay.betas

    def coefficients(step: int, lr: float) -> tuple[float, ...]:
        return *decay.first(lr), lr / (1 - beta1**step), 0.0, 1 / sqrt(1 - beta2**step), decay.eps

    if amsgrad:
        return Optimizer(op, options, _ADAPT_TO_LARGEST, (*_MOMENTS, "max_exp_avg_sq"), coefficients)
    return Optimizer(op, options, _ADAPT, _MOMENTS, coefficients)


def nadam(
    lr: float | Schedule = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> Optimizer:
    """Adam with Nesterov's momentum: the step looks ahead by the gradient, with a momentum that grows towards ``betas[0]``.

    Args:
        lr, betas, eps, weight_decay, decoupled_weight_decay, maximize: as of :func:`adam`.
        momentum_decay: how fast the momentum grows.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam" (ICLR workshop 2016), algorithm 2 and section 2.
    """
    op = "nadam"
    decay = _Decay(op, lr, betas, eps, weight_decay, decoupled_weight_decay, maximize)
    (momentum_decay,) = at_least_zero(op, momentum_decay=momentum_decay)
    options = {**decay.options, "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
    beta1, beta2 = decay.betas

    def momentum(step: int) -> float:
        return beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))

    # The product of the momenta up to a step depends on nothing else: it is remembered here, and is no part of the state.
    products = [1.0]

    def coefficients(step: int, lr: float) -> tuple[float, ...]:
        while len(products) <= step:
            products.append(products[-1] * momentum(len(products)))
        now, ahead = products[step], products[step] * momentum(step + 1)
        of_mean = lr * momentum(step + 1) / (1 - ahead)
        of_gradient = lr * (1 - momentum(step)) / (1 - now)
        return *decay.first(lr), of_mean, of_gradient, 1 / sqrt(1 - beta2**step), decay.eps

    return Optimizer(op, options, _ADAPT, _MOMENTS, coefficients)


def radam(
    lr: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> Optimizer:
    """Adam with a rectified step, which is plain momentum while too few gradients were seen to tell their variance.

    Args:
        lr, betas, eps, weight_decay, decoupled_weight_decay, maximize: as of :func:`adam`.

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (ICLR 2020), algorithm 2.
    """
    op = "radam"
    decay = _Decay(op, lr, betas, eps, weight_decay, decoupled_weight_decay, maximize)
    options = {**decay.options, "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize}
    beta1, beta2 = decay.betas
    longest = 2 / (1 - beta2) - 1

    def coefficients(step: int, lr: float) -> tuple[float, ...]:
        rate, correction = lr / (1 - beta1**step), 1 - beta2**step
        length = longest - 2 * step * beta2**step / correction
        if length <= 5:
            return *decay.first(lr), rate, 0.0, 0.0, 1.0
        rectified = sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        return *decay.first(lr), rate * rectified * sqrt(correction), 0.0, 1.0, decay.eps

    return Optimizer(op, options, _ADAPT, _MOMENTS, coefficients)


def adamax(
    lr: float | Schedule = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
) -> Optimizer:
    """Adam with the infinity norm: u = max(betas[1] u, abs(g) + eps), p -= lr m / u.

    Args:
        lr, betas, eps, weight_decay, maximize: as of :func:`adam`.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), algorithm 2.
    """
    op = "adamax"
    decay = _Decay(op, lr, betas, eps, weight_decay, False, maximize)
    beta1, beta2 = decay.betas

    def coefficients(step: int, lr: float) -> tuple[float, ...]:
        return *decay.first(lr)[:4], beta2, lr / (1 - beta1**step), decay.eps

    return Optimizer(op, {**decay.options, "maximize": maximize}, _ADAPT_TO_NORM, ("exp_avg", "exp_inf"), coefficients)


# ---- the sign alone


@formula
def _follow_sign(p, g, m, c):
    g = c[0] * g
    direction = m + c[3] * (g - m)
    one = type(p)(1)
    sign = one if direction > 0 else (-one if direction < 0 else direction)  # 0 and NaN as they are
    return c[2] * p - c[5] * sign, m + c[4] * (g - m)


_FOLLOW_SIGN = Rule(__name__, _follow_sign, states=1, ns=0.5)


def lion(lr: float | Schedule = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, *, maximize: bool = False) -> Optimizer:
    """Lion: p -= lr (sign(betas[0] m + (1 - betas[0]) g) + weight_decay p), then m = betas[1] m + (1 - betas[1]) g.

    Args:
        lr, maximize: as of :func:`sgd`.
        betas: what is kept of the momentum for the step, and for the next one.
        weight_decay: decoupled, as of :func:`adamw`.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms" (NeurIPS 2023), algorithm 2. PyTorch has none.
    """
    op = "lion"
    lr = learning_rate(op, lr)
    beta1, beta2 = _decay_rates(op, betas)
    (weight_decay,) = at_least_zero(op, weight_decay=weight_decay)
    options = {"lr": lr, "betas": (beta1, beta2), "weight_decay": weight_decay, "maximize": maximize}
    sign = -1.0 if maximize else 1.0
    return Optimizer(op, options, _FOLLOW_SIGN, ("exp_avg",), lambda step, lr: (sign, 0.0, 1 - lr * weight_decay, 1 - beta1, 1 - beta2, lr))
