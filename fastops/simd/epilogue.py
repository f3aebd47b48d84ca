"""Activations applied in place to what a kernel has just written, while it is still in cache.

``activate(code, y, start, count)`` picks the loop by ``code`` and runs it; every kernel that ends in an activation calls the
same machine code, since twelve loops compiled again into each of them would cost more than the kernel itself.

The formulas are those of torch.nn.functional with default arguments: gelu is the one with erf.
"""

from __future__ import annotations

from fastops._jit import call, function, separate
from fastops.simd import activations as formulas

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


@separate
def apply(code, y, start, count):
    number = y.dtype.type
    zero, one, six = number(0), number(1), number(6)
    y = y[start : start + count]  # indices from 0 need no test for being negative, and so the loops vectorise
    if code == _RELU:
        for i in range(count):
            y[i] = formulas.relu(y[i], zero, zero)
    elif code == _LEAKY_RELU:
        slope = number(formulas.LEAKY_RELU_SLOPE)
        for i in range(count):
            y[i] = formulas.leaky_relu(y[i], slope, zero)
    elif code == _RELU6:
        for i in range(count):
            y[i] = formulas.hardtanh(y[i], zero, six)
    elif code == _HARDSIGMOID:
        for i in range(count):
            y[i] = formulas.hardsigmoid(y[i], zero, zero)
    elif code == _HARDSWISH:
        for i in range(count):
            y[i] = formulas.hardswish(y[i], zero, zero)
    elif code == _ELU:
        for i in range(count):
            y[i] = formulas.elu(y[i], one, one)
    elif code == _SELU:
        for i in range(count):
            y[i] = formulas.selu(y[i], zero, zero)
    elif code == _SIGMOID:
        for i in range(count):
            y[i] = formulas.sigmoid(y[i], zero, zero)
    elif code == _SILU:
        for i in range(count):
            y[i] = formulas.silu(y[i], zero, zero)
    elif code == _TANH:
        for i in range(count):
            y[i] = formulas.tanh(y[i], zero, zero)
    elif code == _GELU:
        for i in range(count):
            y[i] = formulas.gelu(y[i], zero, zero)
    elif code == _SOFTPLUS:
        threshold = number(formulas.SOFTPLUS_THRESHOLD)
        for i in range(count):
            y[i] = formulas.softplus(y[i], one, threshold)
    elif code == _MISH:
        for i in range(count):
            y[i] = formulas.mish(y[i], zero, zero)


@function
def activate(code, y, start, count):
    """Apply the activation ``code`` in place to the elements [start, start + count) of the flat array ``y``."""
    call(apply, (code, y, start, count))
