"""Convolution of 1-D signals, images and volumes, with its gradients.

    y[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * x[n, c, p stride + r dilation - padding, ...]

(a cross-correlation, as in every deep-learning library). For a loss L with dy = dL/dy the gradients are sums over the
same products: dx gathers weight * dy over every (k, r, s, p, q) that x took part in, dw gathers x * dy over images and
positions, and the gradient of the bias is the sum of dy over images and positions. Only input and weight are kept for
the backward pass.
"""
from __future__ import annotations

from typing import Any, Literal

from numpy.typing import ArrayLike

from fastops._check import Array
from fastops.ops.conv.ready import convolve, differentiate

Precision = Literal["default", "highest"]
Attribute = int | tuple[int, ...]
Padding = int | str | tuple[int | tuple[int, int], ...]
Gradients = tuple[Array | None, Array | None, Array | None]


def conv2d(
    input: ArrayLike, weight: Any, bias: ArrayLike | None = None, stride: Attribute = 1, padding: Padding = 0,
    dilation: Attribute = 1, groups: int = 1, *, strategy: str = "auto", precision: Precision = "default",
    data_format: str = "NCHW", activation: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    return convolve(  # type: ignore[no-any-return]
        "conv2d", input, weight, bias, stride, padding, 0, dilation, groups, strategy, precision, data_format, activation, out
    )


def conv2d_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Attribute = 1,
    padding: Padding = 0, dilation: Attribute = 1, groups: int = 1, *, output_mask: tuple[bool, bool, bool] = (True, True, True),
    strategy: str = "auto", precision: Precision = "default", data_format: str = "NCHW",
) -> Gradients:  # fmt: skip
    return differentiate(
        "conv2d", grad_output, input, weight, bias, stride, padding, 0, dilation, groups, output_mask, strategy, precision, data_format
    )
