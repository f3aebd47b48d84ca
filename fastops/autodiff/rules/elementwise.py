"""Functions of each element. Gradients arrive in the shape of the result; what broadcasting stretched is summed elsewhere.

Where two arguments tie in a maximum or minimum, each takes half of the gradient, as in PyTorch.
"""

from __future__ import annotations

import numpy as np

from fastops.autodiff.variable import Variable, composite, constant, plain, rule


@rule(np.add)
def _add(x1, x2):
    return np.add(x1, x2), lambda g: g, lambda g: g


@rule(np.subtract)
def _subtract(x1, x2):
    return np.subtract(x1, x2), lambda g: g, lambda g: -g


@rule(np.multiply)
def _multiply(x1, x2):
    return np.multiply(x1, x2), lambda g: g * x2, lambda g: g * x1


@rule(np.true_divide)
def _divide(x1, x2):
    y = np.true_divide(x1, x2)
    return y, lambda g: g / x2, lambda g: -g * y / x2


@rule(np.power)
def _power(x1, x2):
    y = x1**x2  # the operator has fast paths for 2, 0.5 and -1
    return y, lambda g: g * _power_slope(x1, x2), lambda g: g * y * _log_where_positive(x1)


def _power_slope(x, p):
    """p x**(p - 1), and 0 where p is 0, also at x = 0."""
    if np.ndim(p) == 0 and type(p) is not Variable:
        return 2 * x if p == 2 else p * x ** (p - 1) if p else np.zeros_like(plain(x))
    return p * x ** np.where((plain(p) == 0) & (plain(x) == 0), 1, p - 1)


def _log_where_positive(x):
    """log x, and 0 at x = 0, where x**p is 0 for every positive p."""
    return np.log(np.where(plain(x) == 0, 1, x))


@rule(np.negative)
def _negative(x):
    return np.negative(x), lambda g: -g


@rule(np.abs)
def _absolute(x):
    return np.abs(x), lambda g: g * np.sign(x)


@rule(np.fabs)
def _fabs(x):
    return np.fabs(x), lambda g: g * np.sign(x)


@rule(np.reciprocal)
def _reciprocal(x):
    y = np.reciprocal(x)
    return y, lambda g: -g * y * y


@rule(np.square)
def _square(x):
    return np.square(x), lambda g: g * (2 * x)


@rule(np.sqrt)
def _sqrt(x):
    y = np.sqrt(x)
    return y, lambda g: g / (2 * y)


@rule(np.cbrt)
def _cbrt(x):
    y = np.cbrt(x)
    return y, lambda g: g / (3 * y * y)


@rule(np.exp)
def _exp(x):
    y = np.exp(x)
    return y, lambda g: g * y


@rule(np.exp2)
def _exp2(x):
    y = np.exp2(x)
    return y, lambda g: g * y * float(np.log(2))


@rule(np.expm1)
def _expm1(x):
    y = np.expm1(x)
    return y, lambda g: g * (y + 1)


@rule(np.log)
def _log(x):
    return np.log(x), lambda g: g / x


@rule(np.log2)
def _log2(x):
    return np.log2(x), lambda g: g / (x * float(np.log(2)))


@rule(np.log10)
def _log10(x):
    return np.log10(x), lambda g: g / (x * float(np.log(10)))


@rule(np.log1p)
def _log1p(x):
    return np.log1p(x), lambda g: g / (x + 1)


@rule(np.logaddexp)
def _logaddexp(x1, x2):
    y = np.logaddexp(x1, x2)
    return y, lambda g: g * np.exp(x1 - y), lambda g: g * np.exp(x2 - y)


@rule(np.logaddexp2)
def _logaddexp2(x1, x2):
    y = np.logaddexp2(x1, x2)
    return y, lambda g: g * np.exp2(x1 - y), lambda g: g * np.exp2(x2 - y)


@rule(np.sin)
def _sin(x):
    return np.sin(x), lambda g: g * np.cos(x)


@rule(np.cos)
def _cos(x):
    return np.cos(x), lambda g: -g * np.sin(x)


@rule(np.tan)
def _tan(x):
    y = np.tan(x)
    return y, lambda g: g * (1 + y * y)


@rule(np.arcsin)
def _arcsin(x):
    return np.arcsin(x), lambda g: g / np.sqrt(1 - x * x)


@rule(np.arccos)
def _arccos(x):
    return np.arccos(x), lambda g: -g / np.sqrt(1 - x * x)


@rule(np.arctan)
def _arctan(x):
    return np.arctan(x), lambda g: g / (1 + x * x)


@rule(np.arctan2)
def _arctan2(x1, x2):
    return np.arctan2(x1, x2), lambda g: g * x2 / (x1 * x1 + x2 * x2), lambda g: -g * x1 / (x1 * x1 + x2 * x2)


@rule(np.sinh)
def _sinh(x):
    return np.sinh(x), lambda g: g * np.cosh(x)


@rule(np.cosh)
def _cosh(x):
    return np.cosh(x), lambda g: g * np.sinh(x)


@rule(np.tanh)
def _tanh(x):
    y = np.tanh(x)
    return y, lambda g: g * (1 - y * y)


@rule(np.arcsinh)
def _arcsinh(x):
    return np.arcsinh(x), lambda g: g / np.sqrt(x * x + 1)


@rule(np.arccosh)
def _arccosh(x):
    return np.arccosh(x), lambda g: g / np.sqrt(x * x - 1)


@rule(np.arctanh)
def _arctanh(x):
    return np.arctanh(x), lambda g: g / (1 - x * x)


@rule(np.hypot)
def _hypot(x1, x2):
    y = np.hypot(x1, x2)
    return y, lambda g: g * x1 / y, lambda g: g * x2 / y


@rule(np.deg2rad)
def _deg2rad(x):
    return np.deg2rad(x), lambda g: np.deg2rad(g)


@rule(np.rad2deg)
def _rad2deg(x):
    return np.rad2deg(x), lambda g: np.rad2deg(g)


@rule(np.sinc)
def _sinc(x):
    y = np.sinc(x)

    def pull(g):
        safe = np.where(plain(x) == 0, 1, x)
        return g * np.where(plain(x) == 0, 0, (np.cos(np.pi * x) - y) / safe)

    return y, pull


@rule(np.remainder)
def _remainder(x1, x2):
    return np.remainder(x1, x2), lambda g: g, lambda g: -g * np.floor_divide(x1, x2)


@rule(np.fmod)
def _fmod(x1, x2):
    return np.fmod(x1, x2), lambda g: g, lambda g: -g * np.trunc(np.true_divide(x1, x2))


def _larger(function, x1, x2):
    """A maximum; the minimum is the same with the arguments' roles the other way round."""
    ahead = np.greater if function in (np.maximum, np.fmax) else np.less
    y = function(x1, x2)
    share = ahead(x1, x2) + 0.5 * np.equal(x1, x2)
    if function in (np.fmax, np.fmin):
        share = np.where(np.isnan(plain(x2)), 1, share)
    share = share.astype(y.dtype)
    return y, lambda g: g * share, lambda g: g * (1 - share)


for _function in (np.maximum, np.minimum, np.fmax, np.fmin):
    rule(_function)(lambda x1, x2, _function=_function: _larger(_function, x1, x2))


@rule(np.where)
def _where(condition, x, y):
    chosen = plain(condition) if np.asarray(plain(condition)).dtype == bool else np.not_equal(plain(condition), 0)
    return np.where(chosen, x, y), None, lambda g: np.where(chosen, g, 0), lambda g: np.where(chosen, 0, g)


@rule(np.copysign)
def _copysign(x1, x2):
    return np.copysign(x1, x2), lambda g: g * np.sign(x1) * np.copysign(1, x2), None


@composite(np.positive)
def _positive(x):
    return x


@composite(np.clip)
def _clip(a, a_min=None, a_max=None, out=None, *, min=None, max=None):
    if out is not None:
        raise TypeError("clip: out must be left out where a value is differentiated")
    a_min = min if a_min is None else a_min
    a_max = max if a_max is None else a_max
    if type(a) is Variable and not any(type(bound) is Variable for bound in (a_min, a_max)):
        return clipped(a, a_min, a_max)
    a = a if a_min is None else np.maximum(a, a_min)
    return a if a_max is None else np.minimum(a, a_max)


@rule("clip")
def clipped(a, a_min, a_max):
    """Bounds that are constants: the gradient passes in between, bounds included, as in PyTorch."""
    x = plain(a)
    inside = (True if a_min is None else x >= a_min) & (True if a_max is None else x <= a_max)
    return np.clip(a, a_min, a_max), lambda g: g * inside


@composite(np.nan_to_num)
def _nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    value = plain(x)
    return np.where(np.isfinite(value), x, np.nan_to_num(value, nan=nan, posinf=posinf, neginf=neginf))


constant(
    np.sign, np.floor, np.ceil, np.rint, np.trunc, np.round, np.around, np.fix, np.heaviside, np.floor_divide, np.signbit,
    np.isnan, np.isinf, np.isfinite, np.isclose, np.allclose, np.array_equal, np.array_equiv, np.isposinf, np.isneginf,
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.spacing, np.nextafter,
    np.isreal, np.iscomplex, np.isrealobj, np.iscomplexobj,
)  # fmt: skip
