"""Convolutions: references that are written for reading, rows, and a supply of random configurations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

from tests.activations import activation as activate
from tests.harness import Row


def for_each_axis(value: Any, ndim: int) -> tuple:
    return value if isinstance(value, tuple) and len(value) == ndim else (value,) * ndim


def pairs(padding: Any, size: tuple, kernel: tuple, stride: tuple, dilation: tuple) -> list[tuple[int, int]]:
    """Zeros before and after each axis."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, stride, dilation)]
        return [(t // 2, t - t // 2) for t in total]
    each = for_each_axis(padding, len(size))
    return [p if isinstance(p, tuple) else (p, p) for p in each]


def standard_layout(function):
    """Lets a reference for (N, C, ...) take an input without a batch, or with the channels last."""

    def reference(input, weight, bias=None, *args, data_format=None, activation=None, **options):
        ndim = weight.ndim - 2
        last = data_format is not None and data_format.endswith("C")
        x = input if input.ndim == ndim + 2 else input[None]
        x = np.moveaxis(x, -1, 1) if last else x
        y = function(x, weight, *args, **options)
        if bias is not None:
            y += bias.reshape(-1, *[1] * ndim)
        y = np.moveaxis(y, 1, -1) if last else y
        return activate(activation, y if input.ndim == ndim + 2 else y[0])

    return reference


@standard_layout
def convolution(x, weight, stride=1, padding=0, dilation=1, groups=1):
    """y[n, k, p] = sum over c, r of weight[k, c, r] x[n, c, p stride + r dilation - padding]."""
    kernel, ndim = weight.shape[2:], weight.ndim - 2
    stride, dilation = for_each_axis(stride, ndim), for_each_axis(dilation, ndim)
    x = np.pad(x, [(0, 0), (0, 0), *pairs(padding, x.shape[2:], kernel, stride, dilation)])
    out = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)]
    y = np.zeros((len(x), len(weight), *out))
    ins, outs = x.shape[1] // groups, len(weight) // groups
    for tap in np.ndindex(*kernel):
        # the input element under this tap of the kernel, for every output position
        where = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, out, stride)]
        under = x[(slice(None), slice(None), *where)]
        factor = weight[(slice(None), slice(None), *tap)]
        for g in range(groups):
            mine, theirs = slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)
            y[:, theirs] += np.einsum("nc...,kc->nk...", under[:, mine], factor[theirs])
    return y


@standard_layout
def transposed_convolution(x, weight, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every input element adds the kernel, times itself, to the output at p stride + r dilation - padding."""
    kernel, size, ndim = weight.shape[2:], x.shape[2:], weight.ndim - 2
    stride, dilation = for_each_axis(stride, ndim), for_each_axis(dilation, ndim)
    extra = for_each_axis(output_padding, ndim)
    whole = [(n - 1) * s + (k - 1) * d + 1 + e for n, s, k, d, e in zip(size, stride, kernel, dilation, extra)]
    ins, outs = x.shape[1] // groups, weight.shape[1]
    y = np.zeros((len(x), outs * groups, *whole))
    for tap in np.ndindex(*kernel):
        where = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, size, stride)]
        met = y[(slice(None), slice(None), *where)]
        factor = weight[(slice(None), slice(None), *tap)]
        for g in range(groups):
            mine, theirs = slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)
            met[:, theirs] += np.einsum("nc...,ck->nk...", x[:, mine], factor[mine])
    cut = [slice(before, n - after) for n, (before, after) in zip(whole, pairs(padding, size, kernel, stride, dilation))]
    return y[(slice(None), slice(None), *cut)]


def separable(
    input, depthwise_weight, pointwise_weight, bias=None, stride=1, padding=0, dilation=1, pointwise_first=False,
    data_format="NCHW", activation=None,
):  # fmt: skip
    """A depthwise and a 1x1 convolution, in either order."""
    if pointwise_first:
        x = convolution(input, pointwise_weight, data_format=data_format)
        groups = len(pointwise_weight)
        return convolution(x, depthwise_weight, bias, stride, padding, dilation, groups, data_format=data_format, activation=activation)
    groups = input.shape[-1] if data_format == "NHWC" else input.shape[-3]
    x = convolution(input, depthwise_weight, None, stride, padding, dilation, groups, data_format=data_format)
    return convolution(x, pointwise_weight, bias, data_format=data_format, activation=activation)


def correlation(input, kernel):
    """Zhang et al., Dive into Deep Learning, 7.2: the kernel slides over the image."""
    if kernel.ndim == 4:
        return np.stack([correlation(input, one) for one in kernel])
    if kernel.ndim == 3:
        return sum(correlation(x, k) for x, k in zip(input, kernel))
    (H, W), (R, S) = input.shape, kernel.shape
    return np.array([[(input[i : i + R, j : j + S] * kernel).sum() for j in range(W - S + 1)] for i in range(H - R + 1)])


def windows(size, kernel_size, dilation=1, padding=0, stride=1):
    """Zeros before and after, and for each tap of the window the slices of the padded image that it meets."""
    kernel, dilation, stride = (for_each_axis(v, 2) for v in (kernel_size, dilation, stride))
    pad = pairs(padding, size, kernel, stride, dilation)
    out = [(n + sum(p) - (k - 1) * d - 1) // s + 1 for n, p, k, d, s in zip(size, pad, kernel, dilation, stride)]
    taps = list(np.ndindex(*kernel))
    return pad, [tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, out, stride)) for tap in taps]


def unfolded(input, kernel_size, dilation=1, padding=0, stride=1):
    """Row (c, r, s) holds the elements of channel c under tap (r, s), for all windows."""
    pad, taps = windows(input.shape[-2:], kernel_size, dilation, padding, stride)
    x = np.pad(input, [(0, 0)] * (input.ndim - 2) + pad)
    columns = np.stack([x[..., rows, cols] for rows, cols in taps], axis=-3)
    *lead, channels, window, P, Q = columns.shape
    return columns.reshape(*lead, channels * window, P * Q)


def folded(input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """The transpose: every element of a column is added to where unfold would have taken it from."""
    size = for_each_axis(output_size, 2)
    pad, taps = windows(size, kernel_size, dilation, padding, stride)
    (top, bottom), (left, right) = pad
    rows, cols = taps[0]
    P, Q = (len(range(s.start, s.stop, s.step)) for s in (rows, cols))
    columns = input.reshape(*input.shape[:-2], -1, len(taps), P, Q)
    y = np.zeros((*columns.shape[:-3], size[0] + top + bottom, size[1] + left + right))
    for tap, (rows, cols) in enumerate(taps):
        y[..., rows, cols] += columns[..., tap, :, :]
    return y[..., top : top + size[0], left : left + size[1]]


REFERENCES = {f"conv{n}d": convolution for n in (1, 2, 3)} | {f"conv_transpose{n}d": transposed_convolution for n in (1, 2, 3)}


def row(name: str, op: str, input: tuple, weight: tuple, bias: bool = True, **options: Any) -> Row:
    """A row of conv1d to conv_transpose3d."""
    transposed = "transpose" in op
    outs = weight[1] * options.get("groups", 1) if transposed else weight[0]
    shapes = {"input": input, "weight": weight, "bias": (outs,) if bias else None}
    batched = ("input",) if len(input) == len(weight) else ()
    return Row(name, op, shapes, REFERENCES[op], options, batched)


ROWS = [
    row("3x3", "conv2d", (2, 3, 6, 7), (4, 3, 3, 3)),
    row("no_bias", "conv2d", (2, 3, 6, 7), (4, 3, 3, 3), bias=False, padding=1),
    row("padding", "conv2d", (2, 5, 9, 13), (7, 5, 3, 3), padding=1),
    row("padding_wider_than_kernel", "conv2d", (1, 2, 3, 3), (2, 2, 2, 2), padding=(3, 4)),
    row("padding_pairs", "conv2d", (2, 3, 6, 7), (4, 3, 3, 3), padding=((1, 2), (0, 3))),
    row("valid", "conv2d", (1, 2, 5, 5), (3, 2, 3, 3), padding="valid"),
    row("same", "conv2d", (2, 3, 7, 6), (4, 3, 3, 4), padding="same"),
    row("same_strided_dilated", "conv2d", (1, 3, 10, 9), (4, 3, 3, 2), padding="same", stride=(2, 3), dilation=2),
    row("strided", "conv2d", (2, 3, 9, 10), (4, 3, 3, 3), stride=2, padding=1),
    row("stride_past_kernel", "conv2d", (2, 2, 9, 10), (3, 2, 2, 1), stride=(4, 3)),
    row("stride_past_input", "conv2d", (1, 2, 4, 4), (3, 2, 3, 3), stride=100),
    row("dilated", "conv2d", (2, 3, 11, 12), (4, 3, 3, 3), dilation=(2, 3), padding=2),
    row("grouped", "conv2d", (2, 6, 6, 7), (9, 2, 3, 3), groups=3, padding=1),
    row("depthwise", "conv2d", (2, 5, 8, 9), (5, 1, 3, 3), groups=5, padding=1),
    row("depthwise_multiplier", "conv2d", (2, 3, 8, 9), (6, 1, 3, 3), groups=3, stride=2, padding=1),
    row("depthwise_5x5", "conv2d", (1, 4, 9, 11), (4, 1, 5, 5), groups=4, padding=2),
    row("1x1", "conv2d", (2, 6, 5, 7), (9, 6, 1, 1)),
    row("1x1_strided", "conv2d", (2, 6, 5, 7), (4, 6, 1, 1), stride=2),
    row("1x1_padded", "conv2d", (1, 2, 3, 3), (3, 2, 1, 1), padding=1),
    row("5x5", "conv2d", (1, 3, 10, 11), (4, 3, 5, 5), padding=2),
    row("7x7", "conv2d", (1, 3, 10, 11), (4, 3, 7, 7), padding=3),
    row("7x7_strided", "conv2d", (1, 3, 15, 14), (4, 3, 7, 7), stride=2, padding=3),
    row("11x11_strided", "conv2d", (1, 3, 23, 19), (4, 3, 11, 11), stride=4, padding=2),
    row("1x3", "conv2d", (1, 3, 6, 12), (4, 3, 1, 3), padding=(0, 1)),
    row("5x1", "conv2d", (1, 3, 12, 6), (4, 3, 5, 1), padding=(2, 0)),
    row("1x7", "conv2d", (1, 3, 5, 12), (4, 3, 1, 7), padding=(0, 3)),
    row("7x1_short", "conv2d", (2, 3, 4, 6), (4, 3, 7, 1), padding=(3, 0)),
    row("kernel_of_input_size", "conv2d", (2, 3, 4, 5), (6, 3, 4, 5)),
    row("one_element", "conv2d", (1, 1, 1, 1), (1, 1, 1, 1)),
    row("unbatched", "conv2d", (3, 6, 7), (4, 3, 3, 3), padding=1),
    row("nhwc", "conv2d", (2, 6, 7, 3), (4, 3, 3, 3), padding=1, data_format="NHWC"),
    row("nhwc_strided_grouped", "conv2d", (2, 9, 7, 4), (6, 2, 3, 3), stride=2, groups=2, data_format="NHWC"),
    row("nhwc_depthwise", "conv2d", (2, 6, 7, 5), (5, 1, 3, 3), padding=1, groups=5, data_format="NHWC"),
    row("nhwc_1x1_unbatched", "conv2d", (6, 7, 5), (4, 5, 1, 1), data_format="NHWC"),
    row("many_channels", "conv2d", (1, 33, 6, 6), (17, 33, 3, 3), padding=1),
    row("fused_relu", "conv2d", (2, 3, 6, 7), (4, 3, 3, 3), padding=1, activation="relu"),
    row("nhwc_fused_silu", "conv2d", (1, 6, 7, 3), (4, 3, 1, 1), activation="silu", data_format="NHWC"),
    row("plain", "conv1d", (2, 3, 17), (4, 3, 5)),
    row("strided_dilated", "conv1d", (2, 4, 23), (6, 2, 3), stride=2, dilation=3, padding=(2,), groups=2),
    row("nwc_same", "conv1d", (2, 17, 3), (4, 3, 4), padding="same", data_format="NWC"),
    row("unbatched", "conv1d", (3, 17), (4, 3, 5), padding=2),
    row("plain", "conv3d", (2, 3, 5, 6, 7), (4, 3, 3, 3, 3), padding=1),
    row("all_different", "conv3d", (1, 4, 6, 7, 9), (2, 2, 2, 1, 3), stride=(1, 2, 3), padding=(0, 1, 2), groups=2),
    row("ndhwc_dilated", "conv3d", (1, 5, 6, 7, 2), (3, 2, 2, 3, 2), dilation=(2, 1, 3), data_format="NDHWC"),
    row("plain", "conv_transpose2d", (2, 3, 5, 6), (3, 4, 3, 3)),
    row("strided", "conv_transpose2d", (2, 3, 5, 6), (3, 4, 3, 3), stride=2, padding=1),
    row("output_padding", "conv_transpose2d", (2, 3, 5, 6), (3, 4, 3, 3), stride=(2, 3), output_padding=(1, 2)),
    row(
        "output_padding_past_stride", "conv_transpose2d", (1, 3, 4, 5), (3, 4, 2, 3),
        stride=(1, 2), dilation=3, output_padding=2, padding=1,
    ),
    row("padding_pairs", "conv_transpose2d", (2, 3, 5, 6), (3, 4, 3, 3), stride=2, padding=((0, 2), (1, 3))),
    row("stride_past_kernel", "conv_transpose2d", (1, 2, 3, 4), (2, 3, 2, 2), stride=4),
    row("grouped_dilated", "conv_transpose2d", (2, 4, 5, 6), (4, 3, 3, 3), groups=2, dilation=2, padding=1),
    row("depthwise", "conv_transpose2d", (2, 4, 5, 6), (4, 1, 3, 3), groups=4, stride=2, padding=1),
    row("1x1", "conv_transpose2d", (2, 4, 5, 6), (4, 7, 1, 1)),
    row("nhwc_fused_relu", "conv_transpose2d", (2, 5, 6, 3), (3, 4, 3, 3), data_format="NHWC", activation="relu"),
    row("unbatched_no_bias", "conv_transpose2d", (3, 5, 6), (3, 4, 3, 3), bias=False),
    row("strided", "conv_transpose1d", (2, 3, 9), (3, 4, 4), stride=3, padding=1, output_padding=1),
    row("nwc", "conv_transpose1d", (2, 9, 3), (3, 4, 4), stride=2, data_format="NWC"),
    row("strided", "conv_transpose3d", (1, 3, 3, 4, 5), (3, 2, 3, 2, 3), stride=(2, 1, 2), output_padding=(1, 0, 1)),
    Row(
        "depthwise_first", "separable_conv2d",
        {"input": (2, 3, 7, 8), "depthwise_weight": (6, 1, 3, 3), "pointwise_weight": (4, 6, 1, 1), "bias": (4,)},
        separable, {"stride": 2, "padding": 1},
    ),
    Row(
        "pointwise_first", "separable_conv2d",
        {"input": (2, 3, 7, 8), "depthwise_weight": (8, 1, 3, 3), "pointwise_weight": (4, 3, 1, 1), "bias": None},
        separable, {"padding": "same", "dilation": 2, "pointwise_first": True},
    ),
    Row(
        "nhwc_fused_gelu", "separable_conv2d",
        {"input": (2, 7, 8, 3), "depthwise_weight": (3, 1, 3, 3), "pointwise_weight": (4, 3, 1, 1), "bias": (4,)},
        separable, {"activation": "gelu", "data_format": "NHWC"},
    ),
    Row("plain", "corr2d", {"input": (6, 7), "kernel": (2, 3)}, correlation, batched=()),
    Row("channels", "corr2d", {"input": (3, 6, 7), "kernel": (3, 2, 3)}, correlation, batched=()),
    Row("bank", "corr2d", {"input": (3, 6, 7), "kernel": (4, 3, 3, 3)}, correlation, batched=()),
    Row("plain", "unfold", {"input": (2, 3, 6, 7)}, unfolded, {"kernel_size": 3}),
    Row(
        "all_different", "unfold", {"input": (2, 3, 9, 11)}, unfolded,
        {"kernel_size": (2, 3), "dilation": (3, 2), "padding": (1, 2), "stride": (2, 3)},
    ),
    Row("unbatched", "unfold", {"input": (3, 6, 7)}, unfolded, {"kernel_size": 2, "stride": 2}, batched=()),
    Row("plain", "fold", {"input": (2, 27, 20)}, folded, {"output_size": (6, 7), "kernel_size": 3}),
    Row(
        "all_different", "fold", {"input": (2, 18, 16)}, folded,
        {"output_size": (9, 11), "kernel_size": (2, 3), "dilation": (3, 2), "padding": (1, 2), "stride": (2, 3)},
    ),
    Row("unbatched", "fold", {"input": (12, 9)}, folded, {"output_size": 6, "kernel_size": 2, "stride": 2}, batched=()),
]  # fmt: skip


def random_configurations(seed: int, **fixed: Any) -> Iterator[dict[str, Any]]:
    """Endlessly many convolutions: ``op``, the shapes ``input`` and ``weight``, ``bias`` or not, and ``options``.

    Deterministic, small, and all valid. ``fixed`` holds values for ``op``, ``kernel`` (a tuple) or ``groups``.
    """
    rng = np.random.default_rng(seed)

    def pick(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    for number in count():
        op = fixed.get("op") or pick("conv1d", *["conv2d"] * 4, "conv3d", *["conv_transpose2d"] * 2, "conv_transpose1d")
        ndim = int(op[-2])
        largest = {1: 40, 2: 18, 3: 8}[ndim]
        kernel = fixed.get("kernel") or tuple(int(k) for k in rng.integers(1, 6 if ndim < 3 else 4, ndim))
        if "kernel" not in fixed and rng.random() < 0.4:
            kernel = (pick(1, 3, 3, 5),) * ndim
        groups = fixed.get("groups") or pick(1, 1, 1, 2, 3, 4)
        depthwise = rng.random() < 0.2
        ins, outs = (1, pick(1, 1, 2)) if depthwise else (int(n) for n in rng.integers(1, 18, 2) // groups + 1)
        stride = tuple(int(s) for s in rng.choice([1, 1, 1, 2, 3], ndim))
        dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], ndim))
        padding = tuple(int(p) for p in rng.integers(0, 4, ndim))
        batch = int(rng.integers(1, 4))
        size = tuple(int(n) for n in rng.integers(1, largest + 1, ndim))
        options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
        if "transpose" in op:
            options["output_padding"] = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation))
            shapes = (batch, ins * groups, *size), (ins * groups, outs, *kernel)
            results = [
                (n - 1) * s - 2 * p + (k - 1) * d + 1 + e for n, s, p, k, d, e in zip(size, stride, padding, kernel, dilation, options["output_padding"])
            ]
        else:
            shapes = (batch, ins * groups, *size), (outs * groups, ins, *kernel)
            results = [n + 2 * p - (k - 1) * d for n, p, k, d in zip(size, padding, kernel, dilation)]
        if min(results) >= 1:
            yield {
                "number": number, "op": op, "input": shapes[0], "weight": shapes[1], "bias": bool(rng.random() < 0.5),
                "options": options,
            }  # fmt: skip
