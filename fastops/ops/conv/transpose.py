"""Transposed convolution of signals, images and volumes, with its gradients.

It is the linear map whose matrix is the transpose of a convolution's: each input element adds the kernel, times itself,
to the output at ``p stride + r dilation - padding``. So it is computed as the gradient with respect to the input of the
convolution that has the same weights, and its own gradient with respect to the input is that convolution. Only input
and weight are kept for the backward pass. Source: Dumoulin, Visin, "A guide to convolution arithmetic for deep learning"
(2016), section 4.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.conv.explain import flops
from fastops.ops.conv.ready import Gradients, Integers, Pads, Precision, convolve, differentiate


@operation
def conv_transpose1d(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1, padding: Pads = 0,
    output_padding: Integers = 0, groups: int = 1, dilation: Integers = 1, *, strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCW", activation: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Transposed convolution of signals: :func:`conv_transpose2d` with one spatial axis.

    Args:
        input: (N, C, W) or (C, W); (N, W, C) or (W, C) with ``data_format="NWC"``.
        weight: (C, K/groups, S).

    >>> import numpy as np
    >>> conv_transpose1d(np.array([[1.0, 2.0]]), np.array([[[1.0, 10.0, 100.0]]]), stride=2)
    array([[  1.,  10., 102.,  20., 200.]])
    """
    return convolve(
        "conv_transpose1d", input, weight, bias, stride, padding, output_padding, dilation, groups,
        strategy, precision, data_format, activation, out,
    )  # fmt: skip


def conv_transpose1d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Pads = 0, output_padding: Integers = 0, groups: int = 1, dilation: Integers = 1, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True), strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCW",
) -> Gradients:  # fmt: skip
    """Gradients of :func:`conv_transpose1d`; see :func:`conv2d_backward`.

    >>> import numpy as np
    >>> x, w = np.array([[1.0, 2.0]]), np.array([[[1.0, 10.0, 100.0]]])
    >>> dx, dw, db = conv_transpose1d_backward(np.ones((1, 5)), x, w, stride=2)
    >>> dx, dw
    (array([[111., 111.]]), array([[[3., 3., 3.]]]))
    """
    return differentiate(
        "conv_transpose1d", grad_output, input, weight, bias, stride, padding, output_padding, dilation, groups,
        output_mask, strategy, precision, data_format,
    )  # fmt: skip


@operation
def conv_transpose2d(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1, padding: Pads = 0,
    output_padding: Integers = 0, groups: int = 1, dilation: Integers = 1, *, strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCHW", activation: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Transposed convolution of images: ``torch.nn.functional.conv_transpose2d`` with some extras, keyword-only.

    Args:
        input: (N, C, H, W), or (C, H, W) without a batch; (N, H, W, C) or (H, W, C) with ``data_format="NHWC"``.
        weight: (C, K/groups, R, S) in either data format.
        bias: (K,) or None.
        stride: step between the places where neighbouring input elements add the kernel.
        padding: what is cut off around the output: an integer, or for each axis an integer or a (before, after) pair.
        output_padding: what is added behind the output, less than stride or dilation.
        groups: the channels fall into this many groups.
        dilation: distance between the elements of a kernel.
        strategy, precision, data_format, activation, out: as for :func:`conv2d`.

    Returns:
        (N, K, P, Q), laid out as the input is: P = (H - 1) stride - padding + dilation (R - 1) + 1 + output_padding,
        where padding counts both sides. The dtype is that of the arguments.

    Raises:
        TypeError: an argument is of the wrong kind, or dtypes differ.
        ValueError: an argument has a wrong value or shape, or the named strategy does not do this convolution.

    Complexity:
        N C H W (K/groups) R S multiply-adds.

    >>> import numpy as np
    >>> conv_transpose2d(np.ones((1, 2, 2)), np.ones((1, 1, 2, 2)))
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    >>> conv_transpose2d(np.ones((1, 3, 8, 8)), np.ones((3, 5, 3, 3)), stride=2, padding=1, output_padding=1).shape
    (1, 5, 16, 16)
    """
    return convolve(
        "conv_transpose2d", input, weight, bias, stride, padding, output_padding, dilation, groups,
        strategy, precision, data_format, activation, out,
    )  # fmt: skip


def conv_transpose2d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Pads = 0, output_padding: Integers = 0, groups: int = 1, dilation: Integers = 1, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True), strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCHW",
) -> Gradients:  # fmt: skip
    """Gradients of :func:`conv_transpose2d`; arguments and result as for :func:`conv2d_backward`.

    >>> import numpy as np
    >>> x, w = np.ones((1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = conv_transpose2d_backward(np.ones((1, 3, 3)), x, w, np.zeros(1))
    >>> dx, db
    (array([[[4., 4.],
            [4., 4.]]]), array([9.]))
    """
    return differentiate(
        "conv_transpose2d", grad_output, input, weight, bias, stride, padding, output_padding, dilation, groups,
        output_mask, strategy, precision, data_format,
    )  # fmt: skip


@operation
def conv_transpose3d(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1, padding: Pads = 0,
    output_padding: Integers = 0, groups: int = 1, dilation: Integers = 1, *, strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCDHW", activation: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Transposed convolution of volumes: :func:`conv_transpose2d` with three spatial axes.

    Args:
        input: (N, C, D, H, W) or (C, D, H, W); (N, D, H, W, C) or (D, H, W, C) with ``data_format="NDHWC"``.
        weight: (C, K/groups, T, R, S).

    >>> import numpy as np
    >>> conv_transpose3d(np.ones((1, 2, 2, 2)), np.ones((1, 3, 2, 2, 2)), stride=2).shape
    (3, 4, 4, 4)
    """
    return convolve(
        "conv_transpose3d", input, weight, bias, stride, padding, output_padding, dilation, groups,
        strategy, precision, data_format, activation, out,
    )  # fmt: skip


def conv_transpose3d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = 1,
    padding: Pads = 0, output_padding: Integers = 0, groups: int = 1, dilation: Integers = 1, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True), strategy: str = "auto",
    precision: Precision = "default", data_format: str = "NCDHW",
) -> Gradients:  # fmt: skip
    """Gradients of :func:`conv_transpose3d`; see :func:`conv2d_backward`.

    >>> import numpy as np
    >>> x, w = np.ones((1, 2, 2, 2)), np.ones((1, 3, 2, 2, 2))
    >>> conv_transpose3d_backward(np.ones((3, 4, 4, 4)), x, w, stride=2)[0][0, 0]
    array([[24., 24.],
           [24., 24.]])
    """
    return differentiate(
        "conv_transpose3d", grad_output, input, weight, bias, stride, padding, output_padding, dilation, groups,
        output_mask, strategy, precision, data_format,
    )  # fmt: skip


def _register(forward: Any, backward: Any) -> None:
    register(
        forward,
        backward,
        inputs=("input", "weight", "bias"),
        saved=("input", "weight"),
        flops=lambda *args, **kwargs: flops(forward, *args, **kwargs),
    )


_register(conv_transpose1d, conv_transpose1d_backward)
_register(conv_transpose2d, conv_transpose2d_backward)
_register(conv_transpose3d, conv_transpose3d_backward)
