"""Activations of exponentials, each with its derivative; s is the sigmoid.

    sigmoid     1 / (1 + e^-x)                        y (1 - y)
    tanh        tanh x                                1 - y^2
    silu        x s(x)                                s (1 + x (1 - s))
    gelu        x P(x)                                P(x) + x p(x), where P is the normal distribution and p its density
                or x s(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
    mish        x tanh(softplus(x))                   w / (w + 2) + 4 x e (1 + e) / (w + 2)^2, e = e^x, w = e (e + 2)
    softplus    log(1 + e^(beta x)) / beta            s(beta x); x and 1 where beta x > threshold
    softsign    x / (1 + |x|)                         1 / (1 + |x|)^2
    tanhshrink  x - tanh x                            tanh^2 x
    logsigmoid  min(x, 0) - log(1 + e^-|x|)           s(-x)
    elu         alpha (e^x - 1) for x <= 0, else x    alpha e^x for x <= 0, else 1
    celu        alpha (e^(x / alpha) - 1), or x       e^(x / alpha), or 1
    selu        scale times elu of a fixed alpha      scale alpha e^x, or scale

Where the derivative is a formula of the output (sigmoid, tanh), the output is kept, elsewhere the input, and the exponential
is computed again: that takes no longer than reading a kept one.

Sources: Ramachandran, Zoph, Le, "Searching for Activation Functions" (2017), silu; Hendrycks, Gimpel, "Gaussian Error Linear
Units" (2016), equations 1 and 2; Misra, "Mish" (2019); Dugas et al., "Incorporating Second-Order Functional Knowledge for
Better Option Pricing" (NIPS 2000), softplus; Glorot, Bengio (AISTATS 2010), softsign; Clevert, Unterthiner, Hochreiter, "Fast
and Accurate Deep Network Learning by Exponential Linear Units" (ICLR 2016), equation 15; Barron, "Continuously Differentiable
Exponential Linear Units" (2017); Klambauer et al., "Self-Normalizing Neural Networks" (NIPS 2017), equation 2.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import formula
from fastops._op import operation, register
from fastops.simd import activations
from fastops.simd.activations import GELU_CUBIC, GELU_SLOPE, SELU_ALPHA, SELU_SCALE, SOFTPLUS_THRESHOLD, gate
from fastops.simd.maps import GradientMap, Map
from fastops.simd.vmath import exp_plain, gaussian, log1p_unit
from fastops.simd.vmath import tanh as hyperbolic_tangent

# An element of float32 with AVX2: one exponential, and two.
_NS, _NS_TWO = 0.6, 1.1

_ROOT_2_PI = 0.39894228040143267794  # 1 / sqrt(2 pi)


@formula
def _sigmoid_gradient(g, y, a, b):
    return g * ((type(y)(1) - y) * y)


@formula
def _tanh_gradient(g, y, a, b):
    return g * (type(y)(1) - y * y)


@formula
def _silu_gradient(g, x, a, b):
    # s and 1 - s by themselves: x times the rounding of one minus the other would be an error of 8 ulp
    zero, one = type(x)(0), type(x)(1)
    e = exp_plain(-abs(x))
    larger = one / (one + e)
    smaller = e * larger
    s = smaller if x < zero else larger
    rest = larger if x < zero else smaller
    return g * (s * (one + x * rest))


@formula
def _gelu_gradient(g, x, a, b):
    probability, e = gaussian(x)
    return g * (probability + x * (type(x)(_ROOT_2_PI) * e))


@formula
def _gelu_tanh_gradient(g, x, a, b):
    number = type(x)
    one = number(1)
    s = gate(one, number(GELU_SLOPE) * (x + number(GELU_CUBIC) * x * x * x))
    inner = number(GELU_SLOPE) * (one + number(3 * GELU_CUBIC) * x * x)
    return g * (s + x * (s * (one - s) * inner))


@formula
def _mish_gradient(g, x, a, b):
    one, two, threshold = type(x)(1), type(x)(2), type(x)(SOFTPLUS_THRESHOLD)
    e = exp_plain(threshold if x > threshold else x)
    w = e * (e + two)
    over = one / (w + two)
    slope = w * over + x * (two * e * over) * (two * (one + e) * over)
    return g if x > threshold else g * slope


@formula
def _softplus_gradient(g, x, beta, threshold):
    z = x * beta
    below = gate(g, z)
    return g if z > threshold else below


@formula
def _softsign(x, a, b):
    return x / (type(x)(1) + abs(x))


@formula
def _softsign_gradient(g, x, a, b):
    size = type(x)(1) + abs(x)
    return g / (size * size)


@formula
def _tanhshrink(x, a, b):
    return x - hyperbolic_tangent(x)


@formula
def _tanhshrink_gradient(g, x, a, b):
    t = hyperbolic_tangent(x)
    return g * (t * t)


@formula
def _logsigmoid(x, a, b):
    zero = type(x)(0)
    return (x if x < zero else zero) - log1p_unit(exp_plain(-abs(x)))


@formula
def _logsigmoid_gradient(g, x, a, b):
    return gate(g, -x)


@formula
def _elu_gradient(g, x, alpha, steepness):
    below = g * (alpha * steepness * exp_plain(x * steepness))
    return below if x <= type(x)(0) else g


@formula
def _selu_gradient(g, x, a, b):
    number = type(x)
    below = g * (number(SELU_SCALE * SELU_ALPHA) * exp_plain(x))
    return below if x <= number(0) else g * number(SELU_SCALE)


_SIGMOID = Map(__name__, activations.sigmoid, _NS)
_SIGMOID_GRADIENT = GradientMap(__name__, _sigmoid_gradient, 0.12)
_TANH = Map(__name__, activations.tanh, _NS)
_TANH_GRADIENT = GradientMap(__name__, _tanh_gradient, 0.12)
_SILU = Map(__name__, activations.silu, _NS)
_SILU_GRADIENT = GradientMap(__name__, _silu_gradient, _NS)
_GELU = Map(__name__, activations.gelu, _NS)
_GELU_GRADIENT = GradientMap(__name__, _gelu_gradient, _NS_TWO)
_GELU_TANH = Map(__name__, activations.gelu_tanh, _NS)
_GELU_TANH_GRADIENT = GradientMap(__name__, _gelu_tanh_gradient, _NS)
_MISH = Map(__name__, activations.mish, _NS)
_MISH_GRADIENT = GradientMap(__name__, _mish_gradient, _NS)
_SOFTPLUS = Map(__name__, activations.softplus, _NS_TWO)
_SOFTPLUS_GRADIENT = GradientMap(__name__, _softplus_gradient, _NS)
_SOFTSIGN = Map(__name__, _softsign, 0.2)
_SOFTSIGN_GRADIENT = GradientMap(__name__, _softsign_gradient, 0.2)
_TANHSHRINK = Map(__name__, _tanhshrink, _NS)
_TANHSHRINK_GRADIENT = GradientMap(__name__, _tanhshrink_gradient, _NS)
_LOGSIGMOID = Map(__name__, _logsigmoid, _NS_TWO)
_LOGSIGMOID_GRADIENT = GradientMap(__name__, _logsigmoid_gradient, _NS)
_ELU = Map(__name__, activations.elu, _NS)
_ELU_GRADIENT = GradientMap(__name__, _elu_gradient, _NS)
_SELU = Map(__name__, activations.selu, _NS)
_SELU_GRADIENT = GradientMap(__name__, _selu_gradient, _NS)


@operation
def sigmoid(input: ArrayLike, *, out: Array | None = None) -> Array:
    """1 / (1 + e^-x), within 2 ulp: ``torch.nn.functional.sigmoid``. Arguments and errors are those of :func:`relu`.

    >>> sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """
    return _SIGMOID.of("sigmoid", input, 0.0, 0.0, False, out)


def sigmoid_backward(grad_output: ArrayLike, input: ArrayLike, *, output: ArrayLike | None = None) -> Array:
    """Gradient of :func:`sigmoid` from its output, which is computed again if it is None.

    >>> sigmoid_backward([1.0, 1.0], [0.0, 1000.0])
    array([0.25, 0.  ])
    """
    op = "sigmoid_backward"
    kept = _SIGMOID.again(op, input) if output is None else output
    return _SIGMOID_GRADIENT.of(op, grad_output, kept, 0.0, 0.0, "input" if output is None else "output")


def _record_sigmoid(input: ArrayLike, *, out: Array | None = None) -> tuple[Array, dict[str, Any]]:
    return _SIGMOID.recorded("sigmoid", input, out=out)


register(sigmoid, sigmoid_backward, inputs=("input",), saved=(), record=_record_sigmoid)


@operation
def tanh(input: ArrayLike, *, out: Array | None = None) -> Array:
    """The hyperbolic tangent, within 2 ulp: ``torch.nn.functional.tanh``. Arguments and errors are those of :func:`relu`.

    >>> tanh([-1000.0, 0.0, 1000.0])
    array([-1.,  0.,  1.])
    """
    return _TANH.of("tanh", input, 0.0, 0.0, False, out)


def tanh_backward(grad_output: ArrayLike, input: ArrayLike, *, output: ArrayLike | None = None) -> Array:
    """Gradient of :func:`tanh` from its output, which is computed again if it is None.

    >>> tanh_backward([1.0, 1.0], [0.0, 1000.0])
    array([1., 0.])
    """
    op = "tanh_backward"
    kept = _TANH.again(op, input) if output is None else output
    return _TANH_GRADIENT.of(op, grad_output, kept, 0.0, 0.0, "input" if output is None else "output")


def _record_tanh(input: ArrayLike, *, out: Array | None = None) -> tuple[Array, dict[str, Any]]:
    return _TANH.recorded("tanh", input, out=out)


register(tanh, tanh_backward, inputs=("input",), saved=(), record=_record_tanh)


@operation
def silu(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x sigmoid(x), also called swish: ``torch.nn.functional.silu``. Arguments and errors are those of :func:`relu`.

    >>> silu([-1000.0, 0.0, 1000.0])
    array([  -0.,    0., 1000.])
    """
    return _SILU.of("silu", input, 0.0, 0.0, inplace, out)


def silu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`silu`.

    >>> silu_backward([1.0, 1.0], [0.0, 1000.0])
    array([0.5, 1. ])
    """
    return _SILU_GRADIENT.of("silu_backward", grad_output, input)


register(silu, silu_backward, inputs=("input",), saved=("input",))


@operation
def gelu(input: ArrayLike, approximate: str = "none", *, out: Array | None = None) -> Array:
    """x times the probability that a normal number is below x: ``torch.nn.functional.gelu``. Errors are those of :func:`relu`.

    Args:
        input: any shape, such as (N, C, H, W); float16, float32 or float64.
        approximate: "none", by the error function, or "tanh", whose error is up to 0.0005.
        out: the array that takes the result and is returned.

    >>> gelu([-1.0, 0.0, 1.0]).round(4), gelu([1.0], approximate="tanh").round(4)
    (array([-0.1587,  0.    ,  0.8413]), array([0.8412]))
    """
    _check.choice("gelu", "approximate", approximate, ("none", "tanh"))
    chosen = _GELU if approximate == "none" else _GELU_TANH
    return chosen.of("gelu", input, 0.0, 0.0, False, out)


def gelu_backward(grad_output: ArrayLike, input: ArrayLike, approximate: str = "none") -> Array:
    """Gradient of :func:`gelu`.

    >>> gelu_backward([1.0, 1.0], [0.0, 1.0]).round(4)
    array([0.5   , 1.0833])
    """
    _check.choice("gelu_backward", "approximate", approximate, ("none", "tanh"))
    chosen = _GELU_GRADIENT if approximate == "none" else _GELU_TANH_GRADIENT
    return chosen.of("gelu_backward", grad_output, input)


register(gelu, gelu_backward, inputs=("input",), saved=("input",))


@operation
def mish(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x tanh(log(1 + e^x)): ``torch.nn.functional.mish``. Arguments and errors are those of :func:`relu`.

    >>> mish([-1.0, 0.0, 30.0]).round(4)
    array([-0.3034,  0.    , 30.    ])
    """
    return _MISH.of("mish", input, 0.0, 0.0, inplace, out)


def mish_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`mish`.

    >>> mish_backward([1.0, 1.0], [0.0, 30.0])
    array([0.6, 1. ])
    """
    return _MISH_GRADIENT.of("mish_backward", grad_output, input)


register(mish, mish_backward, inputs=("input",), saved=("input",))


@operation
def softplus(input: ArrayLike, beta: float = 1.0, threshold: float = 20.0, *, out: Array | None = None) -> Array:
    """log(1 + e^(beta x)) / beta, and x where beta x > threshold: ``torch.nn.functional.softplus``.

    Arguments beside the numbers beta and threshold, and errors, are those of :func:`relu`.

    >>> softplus([-1000.0, 0.0, 30.0]).round(4)
    array([ 0.    ,  0.6931, 30.    ])
    """
    op = "softplus"
    return _SOFTPLUS.of(op, input, _check.real(op, "beta", beta), _check.real(op, "threshold", threshold), False, out)


def softplus_backward(grad_output: ArrayLike, input: ArrayLike, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Gradient of :func:`softplus`.

    >>> softplus_backward([1.0, 1.0], [0.0, 1000.0])
    array([0.5, 1. ])
    """
    op = "softplus_backward"
    return _SOFTPLUS_GRADIENT.of(op, grad_output, input, _check.real(op, "beta", beta), _check.real(op, "threshold", threshold))


register(softplus, softplus_backward, inputs=("input",), saved=("input",))


@operation
def softsign(input: ArrayLike, *, out: Array | None = None) -> Array:
    """x / (1 + abs(x)): ``torch.nn.functional.softsign``. Arguments and errors are those of :func:`relu`.

    >>> softsign([-1.0, 0.0, 3.0])
    array([-0.5 ,  0.  ,  0.75])
    """
    return _SOFTSIGN.of("softsign", input, 0.0, 0.0, False, out)


def softsign_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`softsign`.

    >>> softsign_backward([1.0, 1.0], [0.0, -1.0])
    array([1.  , 0.25])
    """
    return _SOFTSIGN_GRADIENT.of("softsign_backward", grad_output, input)


register(softsign, softsign_backward, inputs=("input",), saved=("input",))


@operation
def tanhshrink(input: ArrayLike, *, out: Array | None = None) -> Array:
    """x - tanh(x): ``torch.nn.functional.tanhshrink``. Arguments and errors are those of :func:`relu`.

    >>> tanhshrink([-1000.0, 0.0, 1.0]).round(4)
    array([-9.990e+02,  0.000e+00,  2.384e-01])
    """
    return _TANHSHRINK.of("tanhshrink", input, 0.0, 0.0, False, out)


def tanhshrink_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`tanhshrink`.

    >>> tanhshrink_backward([1.0, 1.0], [0.0, -1000.0])
    array([0., 1.])
    """
    return _TANHSHRINK_GRADIENT.of("tanhshrink_backward", grad_output, input)


register(tanhshrink, tanhshrink_backward, inputs=("input",), saved=("input",))


@operation
def logsigmoid(input: ArrayLike, *, out: Array | None = None) -> Array:
    """log(1 / (1 + e^-x)): ``torch.nn.functional.logsigmoid``. Arguments and errors are those of :func:`relu`.

    >>> logsigmoid([-1000.0, 0.0]).round(4)
    array([-1.000e+03, -6.931e-01])
    """
    return _LOGSIGMOID.of("logsigmoid", input, 0.0, 0.0, False, out)


def logsigmoid_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`logsigmoid`.

    >>> logsigmoid_backward([1.0, 1.0], [-1000.0, 0.0])
    array([1. , 0.5])
    """
    return _LOGSIGMOID_GRADIENT.of("logsigmoid_backward", grad_output, input)


register(logsigmoid, logsigmoid_backward, inputs=("input",), saved=("input",))


@operation
def elu(input: ArrayLike, alpha: float = 1.0, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x for x > 0, else alpha (e^x - 1): ``torch.nn.functional.elu``. Arguments beside the number alpha, and errors, are those of :func:`relu`.

    >>> elu([-1000.0, 0.0, 2.0])
    array([-1.,  0.,  2.])
    """
    return _ELU.of("elu", input, _check.real("elu", "alpha", alpha), 1.0, inplace, out)


def elu_backward(grad_output: ArrayLike, input: ArrayLike, alpha: float = 1.0) -> Array:
    """Gradient of :func:`elu`; at 0 it is alpha.

    >>> elu_backward([1.0, 1.0, 1.0], [-1000.0, 0.0, 2.0], alpha=0.5)
    array([0. , 0.5, 1. ])
    """
    return _ELU_GRADIENT.of("elu_backward", grad_output, input, _check.real("elu_backward", "alpha", alpha), 1.0)


register(elu, elu_backward, inputs=("input",), saved=("input",))


def _softness(op: str, alpha: float) -> float:
    number = _check.real(op, "alpha", alpha)
    if number == 0:
        raise ValueError(f"{op}: alpha must not be 0, got {alpha!r}")
    return number


@operation
def celu(input: ArrayLike, alpha: float = 1.0, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x for x > 0, else alpha (e^(x / alpha) - 1): ``torch.nn.functional.celu``.

    Arguments beside the number alpha, which must not be 0, and errors, are those of :func:`relu`.

    >>> celu([-1000.0, 0.0, 2.0], alpha=2.0)
    array([-2.,  0.,  2.])
    """
    a = _softness("celu", alpha)
    return _ELU.of("celu", input, a, 1.0 / a, inplace, out)


def celu_backward(grad_output: ArrayLike, input: ArrayLike, alpha: float = 1.0) -> Array:
    """Gradient of :func:`celu`; at 0 it is 1.

    >>> celu_backward([1.0, 1.0, 1.0], [-9000.0, 0.0, 2.0], alpha=2.0)
    array([0., 1., 1.])
    """
    a = _softness("celu_backward", alpha)
    return _ELU_GRADIENT.of("celu_backward", grad_output, input, a, 1.0 / a)


register(celu, celu_backward, inputs=("input",), saved=("input",))


@operation
def selu(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """1.0507 x for x > 0, else 1.7581 (e^x - 1): ``torch.nn.functional.selu``. Arguments and errors are those of :func:`relu`.

    >>> selu([-1000.0, 0.0, 1.0]).round(4)
    array([-1.7581,  0.    ,  1.0507])
    """
    return _SELU.of("selu", input, 0.0, 0.0, inplace, out)


def selu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`selu`; at 0 it is 1.7581.

    >>> selu_backward([1.0, 1.0, 1.0], [-1000.0, 0.0, 1.0]).round(4)
    array([0.    , 1.7581, 1.0507])
    """
    return _SELU_GRADIENT.of("selu_backward", grad_output, input)


register(selu, selu_backward, inputs=("input",), saved=("input",))
