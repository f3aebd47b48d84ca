"""The activations as formulas of one element, for the maps of ``ops/activation`` and for the ends of other kernels.

Each takes (x, a, b) and has the values of torch.nn.functional at NaN and infinity: NaN passes through all of them (the
comparisons are written so that it fails them and stays), and silu, gelu, mish and hardswish of -inf are NaN (-inf times 0).
"""

from __future__ import annotations

from fastops._jit import formula
from fastops.simd.vmath import exp_plain, expm1, gaussian, log1p_unit
from fastops.simd.vmath import sigmoid as logistic
from fastops.simd.vmath import tanh as hyperbolic_tangent

LEAKY_RELU_SLOPE = 0.01
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
SOFTPLUS_THRESHOLD = 20  # above it softplus is x, and mish too

# gelu(x) is nearly x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3)
GELU_SLOPE = 1.59576912160573071176  # 2 sqrt(2 / pi)
GELU_CUBIC = 0.044715


@formula
def relu(x, a, b):
    zero = type(x)(0)
    return zero if x < zero else x


@formula
def hardtanh(x, low, high):
    x = low if x < low else x
    return high if x > high else x


@formula
def leaky_relu(x, slope, b):
    return x * slope if x < type(x)(0) else x


@formula
def elu(x, alpha, steepness):
    below = alpha * expm1(x * steepness)
    return x if x > type(x)(0) else below


@formula
def selu(x, a, b):
    number = type(x)
    below = number(SELU_SCALE * SELU_ALPHA) * expm1(x)
    return number(SELU_SCALE) * x if x > number(0) else below


@formula
def gate(x, z):
    """x sigmoid(z)."""
    return x / (type(x)(1) + exp_plain(-z))


@formula
def silu(x, a, b):
    return gate(x, x)


@formula
def gelu(x, a, b):
    probability, _ = gaussian(x)
    return x * probability


@formula
def gelu_tanh(x, a, b):
    number = type(x)
    # (1 + tanh u) / 2 = sigmoid(2 u), which loses nothing where tanh u is near -1
    return gate(x, number(GELU_SLOPE) * (x + number(GELU_CUBIC) * x * x * x))


@formula
def sigmoid(x, a, b):
    return logistic(x)


@formula
def tanh(x, a, b):
    return hyperbolic_tangent(x)


@formula
def hardsigmoid(x, a, b):
    number = type(x)
    return hardtanh(x + number(3), number(0), number(6)) / number(6)


@formula
def hardswish(x, a, b):
    number = type(x)
    return x * hardtanh(x + number(3), number(0), number(6)) / number(6)


@formula
def softplus(x, beta, threshold):
    zero, z = type(x)(0), x * beta
    # the larger of log(e^0) and log(e^z), and the rest, which cannot overflow
    soft = ((zero if z < zero else z) + log1p_unit(exp_plain(-abs(z)))) * (type(x)(1) / beta)
    return x if z > threshold else soft


@formula
def mish(x, a, b):
    # tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2) with e = exp(x): one exponential instead of three functions
    two, threshold = type(x)(2), type(x)(SOFTPLUS_THRESHOLD)
    e = exp_plain(threshold if x > threshold else x)
    w = e * (e + two)
    return x * (w / (w + two))
