"""Two operations made of convolutions: the depthwise separable convolution, and the textbook's corr2d."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._memory import empty
from fastops._op import operation, register
from fastops.ops.conv import strategies
from fastops.ops.conv.ready import (
    COMPOSED,
    DATA_FORMATS,
    Integers,
    Padding,
    Precision,
    Problem,
    activation_code,
    check_mask,
    check_problem,
    convolve,
    differentiate,
)
from fastops.ops.conv.spec import Options, check_bias


@operation
def separable_conv2d(
    input: ArrayLike,
    depthwise_weight: ArrayLike,
    pointwise_weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Integers = 1,
    padding: Padding = 0,
    dilation: Integers = 1,
    pointwise_first: bool = False,
    *,
    strategy: str = "auto",
    precision: Precision = "default",
    data_format: str = "NCHW",
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """A convolution of each channel on its own, then a 1x1 convolution that mixes the channels (or the other way round).

    Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (2017), section 1;
    ``pointwise_first`` is the order of the "extreme" Inception module of its figure 4.

    Args:
        input: (N, C, H, W) or (C, H, W); (N, H, W, C) or (H, W, C) with ``data_format="NHWC"``.
        depthwise_weight: (C m, 1, R, S): m filters for each channel; (K m, 1, R, S) with ``pointwise_first``.
        pointwise_weight: (K, C m, 1, 1); (K, C, 1, 1) with ``pointwise_first``.
        bias: one element for each channel of the result, added at the end, or None.
        stride, padding, dilation: of the depthwise convolution, as for :func:`conv2d`.
        pointwise_first: mix the channels first.
        strategy: must do both convolutions when it is named.
        precision, data_format, activation, out: as for :func:`conv2d`.

    Returns:
        (N, K, P, Q), or (N, K m, P, Q) with ``pointwise_first``, laid out as the input is.

    Raises:
        TypeError, ValueError: as :func:`conv2d`.

    Complexity:
        N C m P Q (R S + K) multiply-adds.

    >>> import numpy as np
    >>> x = np.ones((1, 3, 5, 5), np.float32)
    >>> separable_conv2d(x, np.ones((3, 1, 3, 3), np.float32), np.ones((8, 3, 1, 1), np.float32))[0, 7, 0]
    array([27., 27., 27.], dtype=float32)
    """
    op = "separable_conv2d"
    (x, depthwise, pointwise, b), dtype = _check.as_arrays(
        op,
        input=input,
        depthwise_weight=depthwise_weight,
        pointwise_weight=pointwise_weight,
        bias=bias,
        optional="bias",
    )
    attributes = (stride, padding, dilation, pointwise_first, precision, data_format)
    first, second = _stages(op, x, depthwise, pointwise, b, *attributes)
    for stage in (first, second):
        stage.check_strategy(op, strategy, "forward")
    activation_code(op, activation)
    if out is not None:
        _check.check_out(op, out, second.problem.shape, dtype)
    options = (strategy, precision, data_format)
    middle = convolve(op, x, first.weight, None, *first.attributes, *options, None, None)
    if dtype == x.dtype:
        return convolve(op, middle, second.weight, b, *second.attributes, *options, activation, out)
    result = convolve(op, middle, second.weight, b, *second.attributes, *options, activation, None).astype(dtype)
    if out is None:
        return result
    out[...] = result
    return out


def separable_conv2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    depthwise_weight: ArrayLike,
    pointwise_weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Integers = 1,
    padding: Padding = 0,
    dilation: Integers = 1,
    pointwise_first: bool = False,
    *,
    output_mask: tuple[bool, bool, bool, bool] = (True, True, True, True),
    strategy: str = "auto",
    precision: Precision = "default",
    data_format: str = "NCHW",
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Gradients of :func:`separable_conv2d`. What lies between the two convolutions is computed again, not kept.

    Returns:
        (grad_input, grad_depthwise_weight, grad_pointwise_weight, grad_bias), with None where ``output_mask`` is False,
        and None for the bias when there is none.

    >>> import numpy as np
    >>> x, d, p = np.ones((3, 5, 5)), np.ones((3, 1, 3, 3)), np.ones((8, 3, 1, 1))
    >>> dx, dd, dp, db = separable_conv2d_backward(np.ones((8, 3, 3)), x, d, p)
    >>> dd[0, 0, 0], dp[0, :, 0, 0], db is None
    (array([72., 72., 72.]), array([81., 81., 81.]), True)
    """
    name = "separable_conv2d"
    op = f"{name}_backward"
    (dy, x, depthwise, pointwise, b), dtype = _check.as_arrays(
        op,
        grad_output=grad_output,
        input=input,
        depthwise_weight=depthwise_weight,
        pointwise_weight=pointwise_weight,
        bias=bias,
        optional="bias",
    )
    mask = check_mask(op, output_mask, 4)
    attributes = (stride, padding, dilation, pointwise_first, precision, data_format)
    first, second = _stages(op, x, depthwise, pointwise, b, *attributes)
    if dy.shape != second.problem.shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {second.problem.shape}, got {dy.shape}")
    options = (strategy, precision, data_format)
    first_weight, second_weight = (2, 1) if pointwise_first else (1, 2)
    before_middle = mask[0] or mask[first_weight]
    for stage, wanted in (
        (first, {"forward": mask[second_weight], "grad_input": mask[0], "grad_weight": mask[first_weight]}),
        (second, {"grad_input": before_middle, "grad_weight": mask[second_weight]}),
    ):
        stage.check_strategy(op, strategy, *(direction for direction, needed in wanted.items() if needed))
    if mask[second_weight]:
        middle = convolve(name, x, first.weight, None, *first.attributes, *options, None, None)
    else:
        middle = empty(first.problem.shape, x.dtype)
    d_middle, d_second, db = differentiate(name, dy, middle, second.weight, b, *second.attributes, (before_middle, mask[second_weight], mask[3]), *options)
    dx = d_first = None
    if before_middle:
        dx, d_first, _ = differentiate(name, d_middle, x, first.weight, None, *first.attributes, (mask[0], mask[first_weight], False), *options)
    d_depthwise, d_pointwise = (d_second, d_first) if pointwise_first else (d_first, d_second)
    dx, d_depthwise, d_pointwise, db = (None if g is None else g.astype(dtype, copy=False) for g in (dx, d_depthwise, d_pointwise, db))
    return dx, d_depthwise, d_pointwise, db


_Attributes = tuple[Any, Any, Any, Any, Any]


class _Stage:
    """One of the two convolutions: its weight, its attributes (stride to groups), its checked problem."""

    def __init__(self, weight: Array, attributes: _Attributes, problem: Problem) -> None:
        self.weight = weight
        self.attributes = attributes
        self.problem = problem

    def check_strategy(self, op: str, strategy: Any, *directions: str) -> None:
        """A strategy that is named must do all that is needed of it, which has to be known before anything runs."""
        if strategy != "auto":
            for direction in directions:
                strategies.select(op, strategy, self.problem.spec, direction)


def _stages(
    op: str,
    x: Array,
    depthwise: Array,
    pointwise: Array,
    bias: Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    pointwise_first: Any,
    precision: Any,
    data_format: Any,
) -> tuple[_Stage, _Stage]:
    """Check everything before anything is computed."""
    formats = DATA_FORMATS[2]
    _check.choice(op, "data_format", data_format, formats)
    if x.ndim not in (3, 4):
        raise ValueError(f"{op}: input must have 4 axes, or 3 without a batch, got shape {x.shape}")
    if depthwise.ndim != 4 or depthwise.shape[1] != 1:
        raise ValueError(f"{op}: depthwise_weight must have axes (C m, 1, R, S), got shape {depthwise.shape}")
    if pointwise.ndim != 4 or pointwise.shape[2:] != (1, 1):
        raise ValueError(f"{op}: pointwise_weight must have axes (K, C, 1, 1), got shape {pointwise.shape}")
    channels = x.shape[-1] if formats[data_format] else x.shape[-3]
    groups = pointwise.shape[0] if pointwise_first else channels
    if groups < 1 or depthwise.shape[0] < 1 or depthwise.shape[0] % groups:
        raise ValueError(f"{op}: depthwise_weight must have a multiple of {groups} filters (the channels it meets), got {depthwise.shape[0]}")
    meets = channels if pointwise_first else depthwise.shape[0]
    if pointwise.shape[1] != meets:
        raise ValueError(f"{op}: pointwise_weight must have {meets} channels, got {pointwise.shape[1]} (shape {pointwise.shape})")
    spatial: tuple[Array, _Attributes] = depthwise, (stride, padding, 0, dilation, groups)
    mixing: tuple[Array, _Attributes] = pointwise, (1, 0, 0, 1, 1)
    stages: list[_Stage] = []
    for weight, attributes in (mixing, spatial) if pointwise_first else (spatial, mixing):
        shape = stages[0].problem.shape if stages else x.shape
        options = Options(*attributes, precision, data_format)
        problem = check_problem(op, COMPOSED["separable_conv2d"], shape, weight.shape, None, str(x.dtype), options)
        stages.append(_Stage(weight, attributes, problem))
    if bias is not None:
        check_bias(op, bias.shape, stages[1].problem.spec.out_channels)
    return stages[0], stages[1]


def _separable_flops(
    input: ArrayLike,
    depthwise_weight: ArrayLike,
    pointwise_weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Integers = 1,
    padding: Padding = 0,
    dilation: Integers = 1,
    pointwise_first: bool = False,
    *,
    data_format: str = "NCHW",
    **options: Any,
) -> int:
    (x, depthwise, pointwise), _ = _check.as_arrays("separable_conv2d", input=input, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight)
    attributes = (stride, padding, dilation, pointwise_first, "default", data_format)
    stages = _stages("separable_conv2d", x, depthwise, pointwise, None, *attributes)
    return sum(stage.problem.spec.flops for stage in stages)


@operation
def corr2d(
    input: ArrayLike,
    kernel: ArrayLike,
    *,
    strategy: str = "auto",
    precision: Precision = "default",
    out: Array | None = None,
) -> Array:
    """Cross-correlation of one image with a kernel, as textbooks introduce convolution.

    Source: Zhang, Lipton, Li, Smola, "Dive into Deep Learning", sections 7.2 and 7.4.

    Args:
        input: (H, W), or (C, H, W) for several channels.
        kernel: (R, S) for an (H, W) image; (C, R, S), or (K, C, R, S) for K results, for a (C, H, W) image.
        strategy, precision, out: as for :func:`conv2d`.

    Returns:
        (H - R + 1, W - S + 1), summed over the channels; (K, H - R + 1, W - S + 1) for K results.

    Raises:
        TypeError, ValueError: as :func:`conv2d`.

    >>> import numpy as np
    >>> corr2d(np.arange(9.0).reshape(3, 3), np.arange(4.0).reshape(2, 2))
    array([[19., 25.],
           [37., 43.]])
    """
    op = "corr2d"
    (x, w), dtype = _check.as_arrays(op, input=input, kernel=kernel)
    x_shape, w_shape, squeeze = _corr2d_shapes(op, x, w)
    options = Options(1, 0, 0, 1, 1, precision, "NCHW")
    shape = check_problem(op, COMPOSED[op], x_shape, w_shape, None, str(x.dtype), options).shape
    shape = shape[1:] if squeeze else shape
    if out is not None:
        _check.check_out(op, out, shape, dtype)
    direct = out is not None and _check.takes_result(out, x.dtype)
    y = convolve(
        op,
        x.reshape(x_shape),
        w.reshape(w_shape),
        None,
        1,
        0,
        0,
        1,
        1,
        strategy,
        precision,
        "NCHW",
        None,
        out.reshape((1, *shape) if squeeze else shape) if out is not None and direct else None,
    ).reshape(shape)
    if out is None:
        return y.astype(dtype, copy=False)
    if not direct:
        np.copyto(out, y, casting="same_kind")
    return out


def corr2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    kernel: ArrayLike,
    *,
    output_mask: tuple[bool, bool] = (True, True),
    strategy: str = "auto",
    precision: Precision = "default",
) -> tuple[Array | None, Array | None]:
    """Gradients of :func:`corr2d`: (grad_input, grad_kernel), with None where ``output_mask`` is False.

    >>> import numpy as np
    >>> dx, dk = corr2d_backward(np.ones((2, 2)), np.arange(9.0).reshape(3, 3), np.ones((2, 2)))
    >>> dk
    array([[ 8., 12.],
           [20., 24.]])
    """
    op = "corr2d_backward"
    (dy, x, w), dtype = _check.as_arrays(op, grad_output=grad_output, input=input, kernel=kernel)
    mask = check_mask(op, output_mask, 2)
    x_shape, w_shape, squeeze = _corr2d_shapes(op, x, w)
    options = Options(1, 0, 0, 1, 1, precision, "NCHW")
    shape = check_problem(op, COMPOSED["corr2d"], x_shape, w_shape, None, str(x.dtype), options).shape
    expected = shape[1:] if squeeze else shape
    if dy.shape != expected:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {expected}, got {dy.shape}")
    dx, dw, _ = differentiate(
        "corr2d",
        dy.reshape(shape),
        x.reshape(x_shape),
        w.reshape(w_shape),
        None,
        1,
        0,
        0,
        1,
        1,
        (*mask, False),
        strategy,
        precision,
        "NCHW",
    )
    return (
        None if dx is None else dx.reshape(x.shape).astype(dtype, copy=False),
        None if dw is None else dw.reshape(w.shape).astype(dtype, copy=False),
    )


def _corr2d_shapes(op: str, x: Array, w: Array) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """The shapes that conv2d takes, and whether its one output channel is dropped."""
    if (x.ndim, w.ndim) not in ((2, 2), (3, 3), (3, 4)):
        raise ValueError(
            f"{op}: kernel must have axes (R, S) for an input (H, W), or (C, R, S) or (K, C, R, S) for an input "
            f"(C, H, W), got shape {w.shape} for an input of shape {x.shape}"
        )
    return (1,) * (3 - x.ndim) + x.shape, (1,) * (4 - w.ndim) + w.shape, w.ndim < 4


def _corr2d_flops(input: ArrayLike, kernel: ArrayLike, **options: Any) -> int:
    (x, w), _ = _check.as_arrays("corr2d", input=input, kernel=kernel)
    x_shape, w_shape, _ = _corr2d_shapes("corr2d", x, w)
    attributes = Options(1, 0, 0, 1, 1, "default", "NCHW")
    return check_problem("corr2d", COMPOSED["corr2d"], x_shape, w_shape, None, str(x.dtype), attributes).spec.flops


register(
    separable_conv2d,
    separable_conv2d_backward,
    inputs=("input", "depthwise_weight", "pointwise_weight", "bias"),
    saved=("input", "depthwise_weight", "pointwise_weight"),
    flops=_separable_flops,
)
register(
    corr2d,
    corr2d_backward,
    inputs=("input", "kernel"),
    saved=("input", "kernel"),
    flops=_corr2d_flops,
)
