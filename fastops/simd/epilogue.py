"""Activations applied in place to what a kernel has just written, while it is still in cache.

``activate(code, y, start, count)`` picks the loop by ``code`` and runs it; every kernel that ends in an activation calls the
same machine code, since twelve loops compiled again into each of them would cost more than the kernel itself.

The formulas, and their values at NaN and infinity, are those of torch.nn.functional with default arguments: NaN passes through
all of them, gelu is the one with erf, and silu, gelu, mish and hardswish of -inf are NaN (-inf times 0).
"""

from __future__ import annotations

from fastops._jit import call, function, separate
from fastops.simd.vmath import erf, exp, expm1, log1p, sigmoid, tanh

ACTIVATIONS: dict[str, int] = {
    name: code
    for code, name in enumerate(
        (
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "selu",
            "silu",
            "gelu",
            "sigmoid",
            "tanh",
            "hardswish",
            "hardsigmoid",
            "softplus",
            "mish",
        ),
        start=1,
    )
}
"""The code of each activation; 0 is none."""

_RELU, _RELU6, _LEAKY_RELU, _ELU, _SELU, _SILU, _GELU, _SIGMOID, _TANH, _HARDSWISH, _HARDSIGMOID, _SOFTPLUS, _MISH = ACTIVATIONS.values()

LEAKY_RELU_SLOPE = 0.01
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
SOFTPLUS_THRESHOLD = 20  # above it softplus is x, and mish too


@separate
def apply(code, y, start, count):
    number = y.dtype.type
    zero, one, two, three, six, half = number(0), number(1), number(2), number(3), number(6), number(0.5)
    y = y[start : start + count]  # indices from 0 need no test for being negative, and so the loops vectorise
    # comparisons are written so that NaN fails them and stays
    if code == _RELU:
        for i in range(count):
            y[i] = zero if y[i] < zero else y[i]
    elif code == _LEAKY_RELU:
        slope = number(LEAKY_RELU_SLOPE)
        for i in range(count):
            y[i] = y[i] * slope if y[i] < zero else y[i]
    elif code == _RELU6 or code == _HARDSIGMOID or code == _HARDSWISH:
        shift = zero if code == _RELU6 else three
        divisor = one if code == _RELU6 else six
        for i in range(count):
            x = y[i]
            ramp = x + shift
            ramp = zero if ramp < zero else ramp
            ramp = six if ramp > six else ramp
            y[i] = (x * ramp if code == _HARDSWISH else ramp) / divisor
    elif code == _ELU or code == _SELU:
        scale = number(SELU_SCALE) if code == _SELU else one
        below = number(SELU_SCALE * SELU_ALPHA) if code == _SELU else one
        for i in range(count):
            x = y[i]
            negative = below * expm1(x)
            y[i] = scale * x if x > zero else negative
    elif code == _SIGMOID or code == _SILU:
        for i in range(count):
            x = y[i]
            gate = sigmoid(x)
            y[i] = x * gate if code == _SILU else gate
    elif code == _TANH:
        for i in range(count):
            y[i] = tanh(y[i])
    elif code == _GELU:
        root_half = number(0.70710678118654752440)
        for i in range(count):
            x = y[i]
            y[i] = half * x * (one + erf(x * root_half))
    elif code == _SOFTPLUS:
        threshold = number(SOFTPLUS_THRESHOLD)
        for i in range(count):
            x = y[i]
            soft = log1p(exp(x))
            y[i] = x if x > threshold else soft
    elif code == _MISH:
        # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2) with e = exp(x): one exponential instead of three functions
        threshold = number(SOFTPLUS_THRESHOLD)
        for i in range(count):
            x = y[i]
            e = exp(threshold if x > threshold else x)
            w = e * (e + two)
            y[i] = x * (w / (w + two))


@function
def activate(code, y, start, count):
    """Apply the activation ``code`` in place to the elements [start, start + count) of the flat array ``y``."""
    call(apply, (code, y, start, count))
