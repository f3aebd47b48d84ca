"""Convolution of signals, images and volumes, with its gradients.

    y[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * x[n, c, p stride + r dilation - padding, ...]

(a cross-correlation, as in every deep-learning library). With dy the gradient of a loss with respect to y, the gradients
are sums of the same products: dx adds up weight * dy over all (k, r, s, p, q) that meet an element of x, dw adds up
x * dy over images and positions, db adds up dy over images and positions. Only input and weight are kept for the backward
pass. Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 9.1 and equations 9.6, 9.9 to 9.13.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.conv.explain import flops
from fastops.ops.conv.prepare import PreparedConv2d
from fastops.ops.conv.ready import Gradients, Integers, Padding, Precision, convolve, differentiate


@operation
def conv1d(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1, padding: Padding = 0,
    dilation: Integers = 1, groups: int = 1, *, strategy: str = "auto", precision: Precision = "default",
    data_format: str = "NCW", activation: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolution of signals: :func:`conv2d` with one spatial axis.

    Args:
        input: (N, C, W) or (C, W); (N, W, C) or (W, C) with ``data_format="NWC"``.
        weight: (K, C/groups, S).

    >>> import numpy as np
    >>> conv1d(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[[1.0, 0.0, -1.0]]]))
    array([[-2., -2.]])
    """
    return convolve(
        "conv1d", input, weight, bias, stride, padding, 0, dilation, groups,
        strategy, precision, data_format, activation, out,
    )  # fmt: skip


def conv1d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Padding = 0, dilation: Integers = 1, groups: int = 1, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True), strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCW",
) -> Gradients:  # fmt: skip
    """Gradients of :func:`conv1d`; see :func:`conv2d_backward`.

    >>> import numpy as np
    >>> x, w = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[[1.0, 0.0, -1.0]]])
    >>> dx, dw, db = conv1d_backward(np.ones((1, 2)), x, w)
    >>> dx, dw
    (array([[ 1.,  1., -1., -1.]]), array([[[3., 5., 7.]]]))
    """
    return differentiate(
        "conv1d", grad_output, input, weight, bias, stride, padding, 0, dilation, groups,
        output_mask, strategy, precision, data_format,
    )  # fmt: skip


@operation
def conv2d(
    input: ArrayLike, weight: ArrayLike | PreparedConv2d, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Padding = 0, dilation: Integers = 1, groups: int = 1, *, strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCHW", activation: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolution of images: ``torch.nn.functional.conv2d`` with some extras, all keyword-only.

    Args:
        input: (N, C, H, W), or (C, H, W) without a batch; (N, H, W, C) or (H, W, C) with ``data_format="NHWC"``.
        weight: (K, C/groups, R, S) in either data format, or what :func:`prepare_conv2d` made of one; then stride,
            padding, dilation, groups, strategy, precision and data_format are those given there, and may be left
            out here.
        bias: (K,) or None.
        stride: step between windows, an integer or one for each axis.
        padding: zeros around the input: an integer, for each axis an integer or a (before, after) pair, "valid" for
            none, or "same" for an output of ceil(input / stride), with an odd zero behind (TensorFlow's rule).
        dilation: distance between the elements of a window.
        groups: the channels fall into this many groups, each of which is convolved on its own.
        strategy: "auto", or the name of a strategy (see :func:`explain`).
        precision: "default" may use Winograd's F(4x4, 3x3) and those of larger kernels (in float32 an error of about 2e-6 of the largest
            output, 6e-6 with 7x7 kernels); "highest" may not.
        data_format: "NCHW" or "NHWC", of input and output.
        activation: None, or the name of an activation that is applied to the result ("relu", "silu", ...).
        out: the array that takes the result and is returned; overlapping the inputs is safe.

    Returns:
        (N, K, P, Q), laid out as the input is: P = floor((H + padding - dilation (R - 1) - 1) / stride) + 1. The
        dtype is that of the arguments, which must agree: float32, float64, or float16, computed in float32.

    Raises:
        TypeError: an argument is of the wrong kind, or dtypes differ.
        ValueError: an argument has a wrong value or shape, or the named strategy does not do this convolution.

    Complexity:
        N K P Q (C/groups) R S multiply-adds in a direct computation.

    >>> import numpy as np
    >>> image = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> conv2d(image, np.ones((1, 1, 3, 3)))
    array([[[[45., 54.],
             [81., 90.]]]])
    >>> conv2d(image, np.ones((8, 1, 3, 3)), stride=2, padding="same").shape
    (1, 8, 2, 2)
    """
    if type(weight) is PreparedConv2d:
        return weight.convolve(input, bias, stride, padding, dilation, groups, strategy, precision, data_format, activation, out)
    return convolve(
        "conv2d", input, weight, bias, stride, padding, 0, dilation, groups,
        strategy, precision, data_format, activation, out,
    )  # fmt: skip


def conv2d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Padding = 0, dilation: Integers = 1, groups: int = 1, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True), strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCHW",
) -> Gradients:  # fmt: skip
    """Gradients of :func:`conv2d` with respect to input, weight and bias.

    Args:
        grad_output: gradient with respect to the output, of its shape. The other arguments are those of the forward
            call; of ``bias`` the values do not matter.
        output_mask: which of the three gradients to compute.
        strategy: must do every direction asked for when it is named.

    Returns:
        (grad_input, grad_weight, grad_bias), each of the shape and dtype of its argument; None where ``output_mask`` is
        False, and None for the bias when there is none.

    Raises:
        TypeError, ValueError: as :func:`conv2d`, or grad_output does not have the shape of the output.

    Complexity:
        the forward pass's multiply-adds for each of grad_input and grad_weight.

    >>> import numpy as np
    >>> x, w = np.arange(16.0).reshape(1, 1, 4, 4), np.ones((1, 1, 3, 3))
    >>> dx, dw, db = conv2d_backward(np.ones((1, 1, 2, 2)), x, w, np.zeros(1))
    >>> dx[0, 0]
    array([[1., 2., 2., 1.],
           [2., 4., 4., 2.],
           [2., 4., 4., 2.],
           [1., 2., 2., 1.]])
    >>> db
    array([4.])
    """
    return differentiate(
        "conv2d", grad_output, input, weight, bias, stride, padding, 0, dilation, groups,
        output_mask, strategy, precision, data_format,
    )  # fmt: skip


@operation
def conv3d(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1, padding: Padding = 0,
    dilation: Integers = 1, groups: int = 1, *, strategy: str = "auto", precision: Precision = "default",
    data_format: str = "NCDHW", activation: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """Convolution of volumes: :func:`conv2d` with three spatial axes.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W); (N, D, H, W, C) or (D, H, W, C) with ``data_format="NDHWC"``.
        weight: (K, C/groups, T, R, S).

    >>> import numpy as np
    >>> conv3d(np.ones((1, 4, 4, 4)), np.ones((2, 1, 2, 2, 2)), stride=2)[1, 0]
    array([[8., 8.],
           [8., 8.]])
    """
    return convolve(
        "conv3d", input, weight, bias, stride, padding, 0, dilation, groups,
        strategy, precision, data_format, activation, out,
    )  # fmt: skip


def conv3d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Padding = 0, dilation: Integers = 1, groups: int = 1, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True), strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCDHW",
) -> Gradients:  # fmt: skip
    """Gradients of :func:`conv3d`; see :func:`conv2d_backward`.

    >>> import numpy as np
    >>> x, w = np.ones((1, 4, 4, 4)), np.ones((2, 1, 2, 2, 2))
    >>> dx, dw, db = conv3d_backward(np.ones((2, 2, 2, 2)), x, w, stride=2, output_mask=(False, True, False))
    >>> dx is None, dw[0, 0, 0], db is None
    (True, array([[8., 8.],
           [8., 8.]]), True)
    """
    return differentiate(
        "conv3d", grad_output, input, weight, bias, stride, padding, 0, dilation, groups,
        output_mask, strategy, precision, data_format,
    )  # fmt: skip


def prepare_conv2d(
    weight: ArrayLike, stride: Integers = 1, padding: Padding = 0, dilation: Integers = 1, groups: int = 1, *,
    strategy: str = "auto", precision: Precision = "default", data_format: str = "NCHW",
) -> PreparedConv2d:  # fmt: skip
    """Weights made ready for many calls: what a strategy computes from them alone is computed once.

    The weights are copied, so changing the array afterwards changes nothing. Arguments are those of :func:`conv2d`. A strategy that is named
    gives the same bits as there; ``"auto"`` may take another way to the same result where weights that are ready make that faster.

    Returns:
        An object to call as ``prepared(input, bias=None, *, activation=None, out=None)``, or to pass to
        :func:`conv2d` as ``weight``.

    >>> import numpy as np
    >>> prepared = prepare_conv2d(np.ones((8, 1, 3, 3), np.float32), padding=1)
    >>> image = np.ones((1, 1, 4, 4), np.float32)
    >>> prepared(image)[0, 7, 0]
    array([4., 6., 6., 4.], dtype=float32)
    >>> conv2d(image, prepared).shape
    (1, 8, 4, 4)
    """
    return PreparedConv2d(weight, stride, padding, dilation, groups, strategy, precision, data_format)


def _register(forward: Any, backward: Any) -> None:
    register(
        forward,
        backward,
        inputs=("input", "weight", "bias"),
        saved=("input", "weight"),
        flops=lambda *args, **kwargs: flops(forward, *args, **kwargs),
    )


_register(conv1d, conv1d_backward)
_register(conv2d, conv2d_backward)
_register(conv3d, conv3d_backward)
