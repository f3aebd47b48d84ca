"""Muon: momentum whose matrix is replaced by the nearest one with orthogonal rows, approximately.

The matrix X, divided by its norm, goes through Newton-Schulz steps X <- a X + (b X X^T + c (X X^T)^2) X: an odd polynomial of its
singular values that drives all of them towards 1 (to 0.7 to 1.2 with the coefficients by default, which suffices and is faster
than to converge). They run in float32; torch runs them in bfloat16, so that its steps differ from these by about a percent.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); Liu et al., "Muon is Scalable for LLM
Training" (arXiv:2502.16982), equation 4, ``match_rms_adamw``.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops._jit import formula
from fastops._memory import empty
from fastops.optim.optimizer import Optimizer, Schedule, Work, returned
from fastops.optim.rules import at_least_zero, learning_rate
from fastops.optim.update import Rule
from fastops.simd.gemm import gemm


@formula
def _accumulate(direction, g, m, c):
    m = m + c[3] * (g - m)
    return c[4] * g + c[5] * m, m


@formula
def _shrink_and_step(p, direction, c):
    return c[2] * p - c[6] * direction


_ACCUMULATE = Rule(__name__, _accumulate, states=1, ns=0.5)
_SHRINK_AND_STEP = Rule(__name__, _shrink_and_step, states=0, ns=0.3)


def orthogonalized(matrix: Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> Array:
    """A float32 matrix (M, N) of orthogonal rows, or columns if they are fewer, near that of ``matrix``."""
    a, b, c = coefficients
    turned = matrix.shape[0] > matrix.shape[1]
    x = np.array(matrix.T if turned else matrix, np.float32, order="C")
    x /= np.float32(max(float(np.linalg.norm(x)), eps))
    for _ in range(steps):
        gram = gemm(x, x.T)
        # gemm adds to what is there: the linear terms come first
        polynomial = np.float32(b) * gram
        gemm(gram, gram, out=polynomial, alpha=c, accumulate=True)
        last, x = x, np.float32(a) * x
        gemm(polynomial, last, out=x, accumulate=True)
    return np.ascontiguousarray(x.T) if turned else x


class _Muon(Optimizer):
    def _check_param(self, name: str, array: Array) -> None:
        if array.ndim != 2:
            raise ValueError(f"muon: {name} must be a matrix, got shape {array.shape}; other parameters need another optimizer")

    def _one(self, given: Work, value: Any, numbers: Array, inplace: bool) -> Any:
        p, g, state = given
        if p.size == 0:
            return value
        momentum = state[0] if inplace else state[0].copy()
        direction = empty(p.size, p.dtype)
        _ACCUMULATE.apply(direction, g.ravel(), [momentum.ravel()], numbers)
        state[0] = momentum
        o = self.options
        direction = orthogonalized(direction.reshape(p.shape), o["ns_coefficients"], o["ns_steps"], o["eps"]).astype(p.dtype, copy=False)
        rows, columns = p.shape
        scale = 0.2 * sqrt(max(rows, columns)) if o["adjust_lr_fn"] == "match_rms_adamw" else sqrt(max(1.0, rows / columns))
        numbers = numbers.copy()
        numbers[6] *= scale
        if inplace:
            _SHRINK_AND_STEP.apply(p.ravel(), direction.ravel(), [], numbers)
            if p is not value:
                value[...] = p
            return value
        new, _ = _SHRINK_AND_STEP.applied(p.ravel(), direction.ravel(), [], numbers)
        return returned(new.reshape(p.shape), value)


def muon(
    lr: float | Schedule = 1e-3,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> Optimizer:
    """Muon, for matrices alone: the hidden layers' weights. Biases, embeddings and the like take another optimizer.

    Args:
        lr: the learning rate, or a schedule.
        weight_decay: decoupled, as of :func:`adamw`.
        momentum: what the running mean of the gradients keeps in a step.
        nesterov: look ahead by the momentum.
        ns_coefficients: a, b, c of a Newton-Schulz step.
        eps: the smallest norm that a matrix is divided by.
        ns_steps: how many Newton-Schulz steps, below 100.
        adjust_lr_fn: "original" (None is the same) multiplies the learning rate of an (M, N) matrix by sqrt(max(1, M / N)),
            "match_rms_adamw" by 0.2 sqrt(max(M, N)), with which AdamW's learning rate and weight decay serve.

    >>> opt = muon(lr=0.1)
    >>> params, state = opt.update([np.zeros((2, 3))], [np.eye(2, 3)], opt.init([np.zeros((2, 3))]))
    >>> np.abs(params[0]).round(2)
    array([[0.11, 0.  , 0.  ],
           [0.  , 0.11, 0.  ]])
    """
    op = "muon"
    lr = learning_rate(op, lr)
    weight_decay, momentum, eps = at_least_zero(op, weight_decay=weight_decay, momentum=momentum, eps=eps)
    if not isinstance(ns_coefficients, (tuple, list)) or len(ns_coefficients) != 3:
        raise ValueError(f"{op}: ns_coefficients must be three numbers, got {ns_coefficients!r}")
    a, b, c = (_check.real(op, f"ns_coefficients[{i}]", value) for i, value in enumerate(ns_coefficients))
    steps = _check.integer(op, "ns_steps", ns_steps, 0)
    if steps >= 100:
        raise ValueError(f"{op}: ns_steps must be below 100, got {ns_steps}")
    _check.choice(op, "adjust_lr_fn", adjust_lr_fn, (None, "original", "match_rms_adamw"))
    options = {
        "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "ns_coefficients": (a, b, c), "eps": eps, "ns_steps": steps,
        "adjust_lr_fn": adjust_lr_fn,
    }  # fmt: skip
    of_gradient, of_mean = (1 - momentum, momentum) if nesterov else (0.0, 1.0)
    return _Muon(op, options, _ACCUMULATE, ("momentum_buffer",), lambda step, lr: (1.0, 0.0, 1 - lr * weight_decay, 1 - momentum, of_gradient, of_mean, lr))
