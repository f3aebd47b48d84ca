"""Activations made of straight pieces: a comparison or two for each element, so a pass over memory is all they cost.

    relu         max(x, 0)                              relu6        min(max(x, 0), 6)
    leaky_relu   x for x >= 0, else slope x             hardtanh     min(max(x, low), high)
    threshold    x for x > threshold, else value        hardshrink   0 for |x| <= lambda, else x
    hardsigmoid  min(max(x + 3, 0), 6) / 6              softshrink   sign(x) max(|x| - lambda, 0)
    hardswish    x min(max(x + 3, 0), 6) / 6

The gradient is grad_output times the slope of the piece. At a kink it is PyTorch's: relu'(0) = 0, and hardtanh, hardsigmoid
and hardswish have at the ends of their middle piece the slope of the outer ones. Where the output tells the piece (relu,
relu6, hardtanh) it is kept, which the next operation keeps anyway; elsewhere the input.

Sources: Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines" (ICML 2010), relu; Krizhevsky,
"Convolutional Deep Belief Networks on CIFAR-10" (2010), relu6; Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural
Network Acoustic Models" (2013), leaky_relu; Collobert, "Large Scale Machine Learning" (2004), hardtanh; Courbariaux, Bengio,
David, "BinaryConnect" (NIPS 2015), hardsigmoid; Howard et al., "Searching for MobileNetV3" (ICCV 2019), hardswish; Donoho,
Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage" (Biometrika 1994), hardshrink and softshrink.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import formula
from fastops._op import operation, register
from fastops.simd import activations
from fastops.simd.maps import GradientMap, Map

_NS = 0.12  # an element: twice 4 bytes of memory


@formula
def _relu_gradient(g, y, a, b):
    zero = type(y)(0)
    return zero if y <= zero else g


@formula
def _hardtanh_gradient(g, y, low, high):
    zero = type(y)(0)
    return zero if y <= low else (zero if y >= high else g)


@formula
def _leaky_relu_gradient(g, x, slope, b):
    return g if x > type(x)(0) else g * slope


@formula
def _threshold(x, least, value):
    return value if x <= least else x


@formula
def _threshold_gradient(g, x, least, value):
    return type(x)(0) if x <= least else g


@formula
def _hardsigmoid_gradient(g, x, a, b):
    number = type(x)
    middle = g / number(6)
    return number(0) if x <= number(-3) else (number(0) if x >= number(3) else middle)


@formula
def _hardswish_gradient(g, x, a, b):
    number = type(x)
    middle = g * (x / number(3) + number(0.5))
    return number(0) if x <= number(-3) else (middle if x < number(3) else g)


@formula
def _hardshrink(x, size, b):
    return type(x)(0) if (x >= -size) & (x <= size) else x


@formula
def _softshrink(x, size, b):
    # x times 0 inside, so that NaN stays
    return x - size if x > size else (x + size if x < -size else x * type(x)(0))


@formula
def _shrink_gradient(g, x, size, b):
    return type(x)(0) if (x >= -size) & (x <= size) else g


_RELU = Map(__name__, activations.relu, _NS)
_RELU_GRADIENT = GradientMap(__name__, _relu_gradient, _NS)
_HARDTANH = Map(__name__, activations.hardtanh, _NS)
_HARDTANH_GRADIENT = GradientMap(__name__, _hardtanh_gradient, _NS)
LEAKY_RELU = Map(__name__, activations.leaky_relu, _NS)
LEAKY_RELU_GRADIENT = GradientMap(__name__, _leaky_relu_gradient, _NS)
_THRESHOLD = Map(__name__, _threshold, _NS)
_THRESHOLD_GRADIENT = GradientMap(__name__, _threshold_gradient, _NS)
_HARDSIGMOID = Map(__name__, activations.hardsigmoid, _NS)
_HARDSIGMOID_GRADIENT = GradientMap(__name__, _hardsigmoid_gradient, _NS)
_HARDSWISH = Map(__name__, activations.hardswish, _NS)
_HARDSWISH_GRADIENT = GradientMap(__name__, _hardswish_gradient, _NS)
_HARDSHRINK = Map(__name__, _hardshrink, _NS)
_SOFTSHRINK = Map(__name__, _softshrink, 0.15)  # with halves of vectors 1.15 times the time
_SHRINK_GRADIENT = GradientMap(__name__, _shrink_gradient, _NS)


@operation
def relu(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """max(x, 0): ``torch.nn.functional.relu``.

    Args:
        input: any shape, such as (N, C, H, W); float16 (computed in float32), float32 or float64.
        inplace: the result overwrites the input, which must be a writeable NumPy array, and is returned.
        out: the array that takes the result and is returned; it may be the input.

    Returns:
        An array of the shape and dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    """
    return _RELU.of("relu", input, 0.0, 0.0, inplace, out)


def relu_backward(grad_output: ArrayLike, input: ArrayLike, *, output: ArrayLike | None = None) -> Array:
    """Gradient of :func:`relu`, from its output or, if that is None, its input: zero where that is not above zero.

    >>> relu_backward([1.0, 1.0, 1.0], [-1.0, 0.0, 2.0])
    array([0., 0., 1.])
    """
    if output is None:
        return _RELU_GRADIENT.of("relu_backward", grad_output, input)
    return _RELU_GRADIENT.of("relu_backward", grad_output, output, 0.0, 0.0, "output")


def _record_relu(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> tuple[Array, dict[str, Any]]:
    y = _RELU.of("relu", input, 0.0, 0.0, inplace, out)
    return y, {"output": y}


register(relu, relu_backward, inputs=("input",), saved=(), record=_record_relu)


@operation
def relu6(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """min(max(x, 0), 6): ``torch.nn.functional.relu6``. Arguments and errors are those of :func:`relu`.

    >>> relu6([-1.0, 2.0, 9.0])
    array([0., 2., 6.])
    """
    return _HARDTANH.of("relu6", input, 0.0, 6.0, inplace, out)


def relu6_backward(grad_output: ArrayLike, input: ArrayLike, *, output: ArrayLike | None = None) -> Array:
    """Gradient of :func:`relu6`, from its output or, if that is None, its input.

    >>> relu6_backward([1.0, 1.0, 1.0], [-1.0, 2.0, 6.0])
    array([0., 1., 0.])
    """
    kept, name = (input, "input") if output is None else (output, "output")
    return _HARDTANH_GRADIENT.of("relu6_backward", grad_output, kept, 0.0, 6.0, name)


def _record_relu6(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> tuple[Array, dict[str, Any]]:
    return _HARDTANH.recorded("relu6", input, 0.0, 6.0, inplace, out)


register(relu6, relu6_backward, inputs=("input",), saved=(), record=_record_relu6)


def _bounds(op: str, min_val: float, max_val: float) -> tuple[float, float]:
    low, high = _check.real(op, "min_val", min_val), _check.real(op, "max_val", max_val)
    if low > high:
        raise ValueError(f"{op}: min_val must be at most max_val, {max_val!r}, got {min_val!r}")
    return low, high


@operation
def hardtanh(input: ArrayLike, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, *, out: Array | None = None) -> Array:
    """min(max(x, min_val), max_val): ``torch.nn.functional.hardtanh``. Arguments and errors beside the bounds are those of :func:`relu`.

    >>> hardtanh([-3.0, 0.5, 2.0])
    array([-1. ,  0.5,  1. ])
    """
    return _HARDTANH.of("hardtanh", input, *_bounds("hardtanh", min_val, max_val), inplace, out)


def hardtanh_backward(grad_output: ArrayLike, input: ArrayLike, min_val: float = -1.0, max_val: float = 1.0, *, output: ArrayLike | None = None) -> Array:
    """Gradient of :func:`hardtanh`, from its output or, if that is None, its input.

    >>> hardtanh_backward([1.0, 1.0, 1.0], [-1.0, 0.5, 2.0])
    array([0., 1., 0.])
    """
    low, high = _bounds("hardtanh_backward", min_val, max_val)
    kept, name = (input, "input") if output is None else (output, "output")
    return _HARDTANH_GRADIENT.of("hardtanh_backward", grad_output, kept, low, high, name)


def _record_hardtanh(
    input: ArrayLike, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, *, out: Array | None = None
) -> tuple[Array, dict[str, Any]]:
    return _HARDTANH.recorded("hardtanh", input, *_bounds("hardtanh", min_val, max_val), inplace, out)


register(hardtanh, hardtanh_backward, inputs=("input",), saved=(), record=_record_hardtanh)


@operation
def leaky_relu(input: ArrayLike, negative_slope: float = 0.01, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x for x >= 0, else negative_slope * x: ``torch.nn.functional.leaky_relu``. Other arguments and errors are those of :func:`relu`.

    >>> leaky_relu([-1.0, 0.0, 2.0])
    array([-0.01,  0.  ,  2.  ])
    """
    return LEAKY_RELU.of("leaky_relu", input, _check.real("leaky_relu", "negative_slope", negative_slope), 0.0, inplace, out)


def leaky_relu_backward(grad_output: ArrayLike, input: ArrayLike, negative_slope: float = 0.01) -> Array:
    """Gradient of :func:`leaky_relu`; its slope at 0 is the negative one.

    >>> leaky_relu_backward([1.0, 1.0, 1.0], [-1.0, 0.0, 2.0])
    array([0.01, 0.01, 1.  ])
    """
    op = "leaky_relu_backward"
    return LEAKY_RELU_GRADIENT.of(op, grad_output, input, _check.real(op, "negative_slope", negative_slope))


register(leaky_relu, leaky_relu_backward, inputs=("input",), saved=("input",))


@operation
def threshold(input: ArrayLike, threshold: float, value: float, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x for x > threshold, else value: ``torch.nn.functional.threshold``. Other arguments and errors are those of :func:`relu`.

    >>> threshold([0.5, 1.0, 2.0], 1.0, 20.0)
    array([20., 20.,  2.])
    """
    op = "threshold"
    return _THRESHOLD.of(op, input, _check.real(op, "threshold", threshold), _check.real(op, "value", value), inplace, out)


def threshold_backward(grad_output: ArrayLike, input: ArrayLike, threshold: float, value: float = 0.0) -> Array:
    """Gradient of :func:`threshold`, for which ``value`` does not matter.

    >>> threshold_backward([1.0, 1.0, 1.0], [0.5, 1.0, 2.0], 1.0, 20.0)
    array([0., 0., 1.])
    """
    op = "threshold_backward"
    return _THRESHOLD_GRADIENT.of(op, grad_output, input, _check.real(op, "threshold", threshold))


register(threshold, threshold_backward, inputs=("input",), saved=("input",))


@operation
def hardsigmoid(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """min(max(x + 3, 0), 6) / 6: ``torch.nn.functional.hardsigmoid``. Arguments and errors are those of :func:`relu`.

    >>> hardsigmoid([-4.0, 0.0, 1.5, 3.0])
    array([0.  , 0.5 , 0.75, 1.  ])
    """
    return _HARDSIGMOID.of("hardsigmoid", input, 0.0, 0.0, inplace, out)


def hardsigmoid_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`hardsigmoid`.

    >>> hardsigmoid_backward([6.0, 6.0, 6.0], [-3.0, 0.0, 3.0])
    array([0., 1., 0.])
    """
    return _HARDSIGMOID_GRADIENT.of("hardsigmoid_backward", grad_output, input)


register(hardsigmoid, hardsigmoid_backward, inputs=("input",), saved=("input",))


@operation
def hardswish(input: ArrayLike, inplace: bool = False, *, out: Array | None = None) -> Array:
    """x min(max(x + 3, 0), 6) / 6: ``torch.nn.functional.hardswish``. Arguments and errors are those of :func:`relu`.

    >>> hardswish([-4.0, 1.5, 3.0])
    array([-0.   ,  1.125,  3.   ])
    """
    return _HARDSWISH.of("hardswish", input, 0.0, 0.0, inplace, out)


def hardswish_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Gradient of :func:`hardswish`: x / 3 + 1 / 2 between -3 and 3.

    >>> hardswish_backward([1.0, 1.0, 1.0], [-3.0, 1.5, 3.0])
    array([0., 1., 1.])
    """
    return _HARDSWISH_GRADIENT.of("hardswish_backward", grad_output, input)


register(hardswish, hardswish_backward, inputs=("input",), saved=("input",))


@operation
def hardshrink(input: ArrayLike, lambd: float = 0.5, *, out: Array | None = None) -> Array:
    """0 for -lambd <= x <= lambd, else x: ``torch.nn.functional.hardshrink``. Other arguments and errors are those of :func:`relu`.

    >>> hardshrink([-0.6, -0.5, 0.2, 3.0])
    array([-0.6,  0. ,  0. ,  3. ])
    """
    return _HARDSHRINK.of("hardshrink", input, _check.real("hardshrink", "lambd", lambd), 0.0, False, out)


def hardshrink_backward(grad_output: ArrayLike, input: ArrayLike, lambd: float = 0.5) -> Array:
    """Gradient of :func:`hardshrink`.

    >>> hardshrink_backward([1.0, 1.0, 1.0], [-0.6, -0.5, 0.2])
    array([1., 0., 0.])
    """
    op = "hardshrink_backward"
    return _SHRINK_GRADIENT.of(op, grad_output, input, _check.real(op, "lambd", lambd))


register(hardshrink, hardshrink_backward, inputs=("input",), saved=("input",))


def _shrinkage(op: str, lambd: float) -> float:
    size = _check.real(op, "lambd", lambd)
    if not size >= 0:
        raise ValueError(f"{op}: lambd must be at least 0, got {lambd!r}")
    return size


@operation
def softshrink(input: ArrayLike, lambd: float = 0.5, *, out: Array | None = None) -> Array:
    """x moved towards 0 by lambd, and 0 between: ``torch.nn.functional.softshrink``. Other arguments and errors are those of :func:`relu`.

    >>> softshrink([-1.0, 0.2, 3.0])
    array([-0.5,  0. ,  2.5])
    """
    return _SOFTSHRINK.of("softshrink", input, _shrinkage("softshrink", lambd), 0.0, False, out)


def softshrink_backward(grad_output: ArrayLike, input: ArrayLike, lambd: float = 0.5) -> Array:
    """Gradient of :func:`softshrink`.

    >>> softshrink_backward([1.0, 1.0, 1.0], [-1.0, 0.2, 3.0])
    array([1., 0., 1.])
    """
    op = "softshrink_backward"
    return _SHRINK_GRADIENT.of(op, grad_output, input, _shrinkage(op, lambd))


register(softshrink, softshrink_backward, inputs=("input",), saved=("input",))
