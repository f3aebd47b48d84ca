"""Rows of the activations. The formulas are those of the papers, in ``tests/activations.py`` and here."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import fastops
from tests.activations import FORMULAS, erf
from tests.harness import Row


def away_from(*kinks: float) -> Any:
    """Values up to 4 in size, none within 0.05 of a kink: central differences do not reach across."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        x = rng.uniform(-4, 4, shape)
        for kink in kinks:
            near = np.abs(x - kink) < 0.05
            x[near] = kink + np.where(x[near] < kink, -0.05, 0.05) * rng.uniform(1, 2, near.sum())
        return x

    return draw


def gelu_tanh(input: np.ndarray, approximate: str) -> np.ndarray:
    return input / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (input + 0.044715 * input**3)))


def softplus(input: np.ndarray, beta: float, threshold: float) -> np.ndarray:
    return np.where(input * beta > threshold, input, np.log1p(np.exp(input * beta)) / beta)


def glu(input: np.ndarray, dim: int = -1) -> np.ndarray:
    a, b = np.split(input, 2, axis=dim)
    return a / (1 + np.exp(-b))


def prelu(input: np.ndarray, weight: np.ndarray) -> np.ndarray:
    w = weight if weight.size == 1 else weight.reshape(-1, *[1] * (input.ndim - 2))
    return np.where(input > 0, input, w * input)


def rrelu(input: np.ndarray, lower: float, upper: float, training: bool = False, rng: int | None = None) -> np.ndarray:
    if not training:
        return np.where(input > 0, input, (lower + upper) / 2 * input)
    # what multiplies an element shows where all are -1
    noise = -fastops.rrelu(np.full(input.shape, -1.0), lower, upper, training=True, rng=rng)
    return np.where(input > 0, input, noise * input)


OTHERS = {
    "celu": (lambda input, alpha: np.where(input > 0, input, alpha * np.expm1(input / alpha)), {"alpha": 2.5}, (0,)),
    "elu": (lambda input, alpha: np.where(input > 0, input, alpha * np.expm1(input)), {"alpha": 0.3}, (0,)),
    "hardtanh": (lambda input, min_val, max_val: np.clip(input, min_val, max_val), {"min_val": -2, "max_val": 0.5}, (-2, 0.5)),
    "hardshrink": (lambda input, lambd: np.where(np.abs(input) <= lambd, 0, input), {"lambd": 1}, (-1, 1)),
    "leaky_relu": (lambda input, negative_slope: np.where(input > 0, input, negative_slope * input), {"negative_slope": 0.3}, (0,)),
    "logsigmoid": (lambda input: np.where(input < -40, input, -np.log1p(np.exp(-input))), {}, ()),
    "softshrink": (lambda input, lambd: np.sign(input) * np.maximum(np.abs(input) - lambd, 0), {"lambd": 0.7}, (-0.7, 0.7)),
    "softsign": (lambda input: input / (1 + np.abs(input)), {}, ()),
    "tanhshrink": (lambda input: input - np.tanh(input), {}, ()),
    "threshold": (lambda input, threshold, value: np.where(input <= threshold, value, input), {"threshold": 0.3, "value": -7.0}, (0.3,)),
    "softplus": (softplus, {"beta": 3.0, "threshold": 5.0}, (5 / 3,)),
    "gelu": (gelu_tanh, {"approximate": "tanh"}, ()),
}

KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0,), "relu6": (0, 6), "leaky_relu": (0,), "elu": (0,), "selu": (0,), "hardswish": (-3, 3), "hardsigmoid": (-3, 3),
}  # fmt: skip


DEFAULTS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "softplus", "mish",
)  # fmt: skip


def plain(formula: Any, input: np.ndarray) -> np.ndarray:
    return formula(input)


ROWS = [
    *(Row("defaults", op, {"input": (3, 5, 7)}, partial(plain, FORMULAS[op]), draw=away_from(*KINKS.get(op, ()))) for op in DEFAULTS),
    *(
        Row("options" if options else "plain", op, {"input": (3, 37)}, reference, options, draw=away_from(*kinks))
        for op, (reference, options, kinks) in OTHERS.items()
    ),
    Row("long", "gelu", {"input": (1, 20000)}, lambda input: input / 2 * (1 + erf(input / np.sqrt(2)))),
    Row("long", "relu", {"input": (2, 20000)}, lambda input: np.maximum(input, 0), draw=away_from(0)),
    Row("channels", "prelu", {"input": (2, 3, 4, 5), "weight": (3,)}, prelu, draw=away_from(0)),
    Row("wide_channels", "prelu", {"input": (2, 3, 9, 11), "weight": (3,)}, prelu, draw=away_from(0)),
    Row("features", "prelu", {"input": (5, 17), "weight": (17,)}, prelu, draw=away_from(0)),
    Row("one_weight", "prelu", {"input": (3, 20000), "weight": (1,)}, prelu, draw=away_from(0)),
    Row("mean", "rrelu", {"input": (3, 37)}, rrelu, {"lower": 0.1, "upper": 0.4}, draw=away_from(0)),
    Row("training", "rrelu", {"input": (3, 37)}, rrelu, {"lower": 0.1, "upper": 0.4, "training": True, "rng": 9}, draw=away_from(0)),
    Row("last", "glu", {"input": (3, 5, 14)}, glu),
    Row("middle", "glu", {"input": (3, 6, 7)}, glu, {"dim": 1}),
]
