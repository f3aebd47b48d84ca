"""Gradients of operations that can themselves be differentiated.

The registered backward functions are kernels, which end there. Where a second derivative is asked for, the gradient is
computed by one of these instead, in any depth:

- products (convolutions, linear, matmul): with f linear in each of two factors, the gradients are again products of the same
  kind, <g, f(a, b)> being linear in g, a and b;
- linear operations (mean pooling, fold, interpolate, ...): the transpose of the transpose is the operation itself;
- the largest of a window: linear for the elements that were chosen;
- activations that keep their output: a formula in it;
- all others here: the operation written in NumPy, whose rules can be differentiated as often as one likes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastops import _op, functional
from fastops.autodiff.operations import Call, second, stand_in
from fastops.autodiff.transforms import vjp
from fastops.autodiff.variable import Variable, plain, primitive

Wanted = tuple[bool, ...]


def _of(name: str) -> Any:
    """The gradient function of an operation; its family is imported when it is needed."""
    return _op.get(getattr(functional, name)).backward


# ---- products


@primitive
def _factor_gradient(g, other, at, shape, name, factors, options):
    """Of <g, f(first, second)>: the gradient of the factor ``at``, of this shape; linear in ``g`` and in the other factor."""
    if type(g) is not Variable and type(other) is not Variable:
        backward = _of(name)
        mask = tuple(input == factors[at] for input in _op.get(getattr(functional, name)).inputs)
        arguments = {factors[at]: stand_in(shape, g.dtype), factors[1 - at]: other, **options}
        y = backward(g, **arguments, output_mask=mask)[mask.index(True)]
    else:  # of an outer level
        y = _factor_gradient(g, other, at, shape, name, factors, options)

    def of_grad(v):
        return getattr(functional, name)(**{factors[at]: v, factors[1 - at]: other}, **options)

    return y, of_grad, lambda v: _factor_gradient(g, v, 1 - at, other.shape, name, factors, options)


def _product(name: str, factors: tuple[str, str], bias: Callable[[Any, Call], Any] | None = None) -> None:
    def gradients(g: Any, call: Call, wanted: Wanted) -> tuple[Any, ...]:
        options = {key: value for key, value in call.items() if key not in (*factors, "bias")}
        first, other = call[factors[0]], call[factors[1]]
        return (
            _factor_gradient(g, other, 0, first.shape, name, factors, options) if wanted[0] else None,
            _factor_gradient(g, first, 1, other.shape, name, factors, options) if wanted[1] else None,
            bias(g, call) if bias is not None and wanted[2] else None,
        )

    second[name] = gradients


def _conv_bias(g: Any, call: Call) -> Any:
    spatial = call["weight"].ndim - 2
    channel = g.ndim - 1 if str(call.get("data_format", "")).endswith("C") else g.ndim - 1 - spatial
    return np.sum(g, axis=tuple(axis for axis in range(g.ndim) if axis != channel))


for _n in (1, 2, 3):
    _product(f"conv{_n}d", ("input", "weight"), _conv_bias)
    _product(f"conv_transpose{_n}d", ("input", "weight"), _conv_bias)
_product("linear", ("input", "weight"), lambda g, call: np.sum(g, axis=tuple(range(g.ndim - 1))))
_product("matmul", ("input", "other"))
_product("corr2d", ("input", "kernel"))


# ---- linear operations


@primitive
def _transposed(g, name, call):
    """The gradient of a linear operation; its own gradient is the operation."""
    y = _of(name)(g, **call) if type(g) is not Variable else _transposed(g, name, call)
    return y, lambda v: getattr(functional, name)(v, **{key: value for key, value in call.items() if key != "input"})


def _linear(name: str, **changes: Any) -> None:
    def gradients(g: Any, call: Call, wanted: Wanted) -> tuple[Any, ...]:
        x = call["input"]
        return (_transposed(g, name, {**call, "input": stand_in(x.shape, x.dtype), **changes}),)

    second[name] = gradients


for _name in (
    "unfold", "fold", "interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "rotary_embedding",
    *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
):  # fmt: skip
    _linear(_name)
_linear("pad", value=0)


# ---- the largest of a window


@primitive
def _at_largest(g, name, call, indices):
    """The gradient of a maximum: each element goes to where the largest was, flat in its plane."""
    y = _of(name)(g, **call) if type(g) is not Variable else _at_largest(g, name, call, indices)
    spatial = int(name.removesuffix("_with_indices")[-2])
    lead = g.ndim - spatial

    def of_grad(v):
        flat = np.reshape(v, (*v.shape[:lead], -1))
        return np.reshape(np.take_along_axis(flat, indices.reshape(*g.shape[:lead], -1).astype(np.intp), -1), g.shape)

    return y, of_grad


def _largest(name: str) -> None:
    def gradients(g: Any, call: Call, wanted: Wanted) -> tuple[Any, ...]:
        g = g[0] if isinstance(g, tuple) else g
        x = call["input"]
        return (_at_largest(g, name, {**call, "input": stand_in(x.shape, x.dtype)}, call["indices"]),)

    second[name] = gradients


for _n in (1, 2, 3):
    for _kind in ("", "adaptive_"):
        _largest(f"{_kind}max_pool{_n}d")


# ---- a formula in the output


def _from_output(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorated function is ``gradient(g, y, **options)``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        taken = tuple(inspect.signature(function).parameters)[2:]
        second[name] = lambda g, call, wanted: (function(g, call["output"], **{key: call[key] for key in taken if key in call}),)
        return function

    return decorate


@_from_output("relu")
def _relu(g, y):
    return g * (y > 0)


@_from_output("relu6")
def _relu6(g, y):
    return g * ((y > 0) & (y < 6))


@_from_output("hardtanh")
def _hardtanh(g, y, min_val=-1.0, max_val=1.0):
    return g * ((y > min_val) & (y < max_val))


@_from_output("tanh")
def _tanh(g, y):
    return g * (1 - y * y)


@_from_output("sigmoid")
def _sigmoid(g, y):
    return g * y * (1 - y)


def _axis(y: Any, dim: int | None) -> int:
    return (0 if y.ndim in (0, 1, 3) else 1) if dim is None else dim


@_from_output("softmax")
def _softmax(g, y, dim=None):
    return y * (g - np.sum(g * y, axis=_axis(y, dim), keepdims=True))


@_from_output("softmin")
def _softmin(g, y, dim=None):
    return -_softmax(g, y, dim)


@_from_output("log_softmax")
def _log_softmax(g, y, dim=None):
    return g - np.exp(y) * np.sum(g, axis=_axis(y, dim), keepdims=True)


# ---- the operation in NumPy


def _definition(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorated function computes the operation from arguments of the same names, those that have gradients first."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        taken = tuple(inspect.signature(function).parameters)

        def gradients(g: Any, call: Call, wanted: Wanted) -> tuple[Any, ...]:
            inputs = _op.get(getattr(functional, name)).inputs
            moving = [input for input, yes in zip(inputs, wanted) if yes]
            fixed = {key: call[key] for key in taken if key in call and key not in moving}
            found = iter(vjp(lambda *values: function(**dict(zip(moving, values)), **fixed), *(call[key] for key in moving))[1](g))
            return tuple([next(found) if yes else None for yes in wanted])

        second[name] = gradients
        return function

    return decorate


def _logistic(x: Any) -> Any:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


@_definition("leaky_relu")
def _leaky_relu(input, negative_slope=0.01):
    return np.where(input > 0, input, input * negative_slope)


@_definition("prelu")
def _prelu(input, weight):
    w = np.reshape(weight, (-1, *[1] * (input.ndim - 2))) if weight.size > 1 else np.reshape(weight, ())
    return np.where(input > 0, input, input * w)


@_definition("elu")
def _elu(input, alpha=1.0):
    return np.where(input > 0, input, alpha * np.expm1(np.where(input > 0, 0, input)))


@_definition("celu")
def _celu(input, alpha=1.0):
    return np.where(input > 0, input, alpha * np.expm1(np.where(input > 0, 0, input) / alpha))


@_definition("selu")
def _selu(input):
    """Klambauer et al., "Self-Normalizing Neural Networks" (2017), equation 2 and its constants."""
    return 1.0507009873554804934193349852946 * _elu(input, 1.6732632423543772848170429916717)


@_definition("silu")
def _silu(input):
    return input * _logistic(input)


@_definition("softplus")
def _softplus(input, beta=1.0, threshold=20.0):
    linear = plain(input) * beta > threshold
    return np.where(linear, input, np.logaddexp(np.where(linear, 0, input) * beta, 0.0) / beta)


@_definition("logsigmoid")
def _logsigmoid(input):
    return -np.logaddexp(-input, 0.0)


@_definition("mish")
def _mish(input):
    return input * np.tanh(np.logaddexp(input, 0.0))


@_definition("softsign")
def _softsign(input):
    return input / (1 + np.abs(input))


@_definition("tanhshrink")
def _tanhshrink(input):
    return input - np.tanh(input)


@primitive
def _normal_distribution(x):
    """The probability of less than x, from the gradient of gelu: gelu'(x) = P(x) + x p(x)."""
    density = np.exp(-0.5 * x * x) * 0.3989422804014327
    if type(x) is not Variable:
        y = _of("gelu")(np.ones_like(x), x) - x * density
    else:
        y = _normal_distribution(x)
    return y, lambda g: g * np.exp(-0.5 * x * x) * 0.3989422804014327


@_definition("gelu")
def _gelu(input, approximate="none"):
    if approximate == "tanh":
        return input * _logistic(1.5957691216057308 * (input + 0.044715 * input**3))
    return input * _normal_distribution(input)


def _reduced(loss: Any, reduction: str) -> Any:
    return loss if reduction == "none" else np.sum(loss) if reduction == "sum" else np.mean(loss)


@_definition("mse_loss")
def _mse_loss(input, target, weight=None, reduction="mean"):
    if weight is None:
        return _reduced((input - target) ** 2, reduction)
    loss = weight * (input - target) ** 2
    return np.sum(loss) / np.sum(np.broadcast_to(weight, loss.shape)) if reduction == "mean" else _reduced(loss, reduction)


@_definition("layer_norm")
def _layer_norm(input, weight=None, bias=None, normalized_shape=(), eps=1e-5):
    count = len(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else 1
    axes = tuple(range(-count, 0))
    centred = input - np.mean(input, axis=axes, keepdims=True)
    y = centred / np.sqrt(np.mean(centred * centred, axis=axes, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@_definition("batch_norm")
def _batch_norm(input, weight=None, bias=None, running_mean=None, running_var=None, training=False, eps=1e-5, activation=None):
    axes = (0, *range(2, input.ndim))
    along = (1, -1, *[1] * (input.ndim - 2))
    if training or running_mean is None:
        centred = input - np.mean(input, axis=axes, keepdims=True)
        var = np.mean(centred * centred, axis=axes, keepdims=True)
    else:
        centred, var = input - np.reshape(running_mean, along), np.reshape(running_var, along)
    y = centred / np.sqrt(var + eps)
    y = y if weight is None else y * np.reshape(weight, along)
    y = y if bias is None else y + np.reshape(bias, along)
    if activation is None:
        return y
    high = 6 if activation == "relu6" else np.inf
    return np.where(plain(y) <= 0, 0, np.where(plain(y) >= high, high, y))


@_definition("addmm")
def _addmm(input, mat1, mat2, beta=1, alpha=1):
    return beta * input + alpha * np.matmul(mat1, mat2)


@_definition("baddbmm")
def _baddbmm(input, batch1, batch2, beta=1, alpha=1):
    return beta * input + alpha * np.matmul(batch1, batch2)


@_definition("bilinear")
def _bilinear(input1, input2, weight, bias=None):
    y = np.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


@_definition("cross_entropy")
def _cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    if plain(target).dtype.kind == "f" or weight is not None or label_smoothing:
        raise TypeError("cross_entropy has no second derivative with class probabilities, weights or label smoothing")
    classes = 0 if input.ndim == 1 else 1
    log_p = input - np.max(plain(input), axis=classes, keepdims=True)
    log_p = log_p - np.log(np.sum(np.exp(log_p), axis=classes, keepdims=True))
    target = np.asarray(target).astype(np.intp)
    counts = target != ignore_index
    chosen = np.take_along_axis(log_p, np.expand_dims(np.where(counts, target, 0), classes), classes)
    loss = np.where(counts, -np.squeeze(chosen, classes), 0)
    return np.sum(loss) / np.sum(counts) if reduction == "mean" else _reduced(loss, reduction)
