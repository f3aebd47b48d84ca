"""What a convolution is, once its arguments are checked: one frozen record for 1-D, 2-D, 3-D and transposed ones.

Shared letters: N images, C input channels, K output channels, G groups, D H W input extents, T R S kernel extents,
O P Q output extents. A convolution is

    y[n, k, o, p, q] = bias[k] + sum over c, t, r, s of
        w[k, c, t, r, s] * x[n, g C/G + c, o stride - front + t dilation, p stride - top + r dilation, ...]

with zeros outside of x, g = k // (K/G), and c running over the C/G channels of the group. 1-D and 2-D ones have
leading extents of 1. A transposed convolution is the gradient with respect to x of such a convolution, whose spec it
uses: its input is y there, its result is x.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import prod
from typing import Any

from fastops import _check, _shapes
from fastops._check import Array, Pair

Triple = tuple[int, int, int]

AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
KERNEL_AXES = {1: "S", 2: "R, S", 3: "T, R, S"}


@dataclass(frozen=True)
class ConvSpec:
    """Everything that decides how a convolution is computed, and nothing else; hashable.

    Invariants: ``out_size[i] == (size[i] + sum(padding[i]) - effective kernel) // stride[i] + 1``; a stride is never
    larger than the padded input, a dilation is 1 where the kernel is 1. Padding behind the input is negative in one
    case: a transposed convolution whose output padding reaches the stride, where that much of x meets no window.
    """

    dtype: str
    batch: int
    channels: int
    out_channels: int
    groups: int
    size: Triple
    kernel: Triple
    out_size: Triple
    stride: Triple
    dilation: Triple
    padding: tuple[Pair, Pair, Pair]
    channels_last: bool
    ndim: int
    precision: str = "default"

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x as strategies see it."""
        return _with_channels(self.batch, self.channels, self.size, self.channels_last)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of y as strategies see it."""
        return _with_channels(self.batch, self.out_channels, self.out_size, self.channels_last)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights as strategies see them, in both data formats."""
        return (self.out_channels, self.channels // self.groups, *self.kernel)

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return 4 if self.dtype == "float32" else 8

    @property
    def flops(self) -> int:
        """Operations of a direct computation in any direction, a multiply-add being two."""
        return 2 * self.batch * prod(self.out_size) * prod(self.weight_shape)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to multiply: an extent is 0."""
        return self.flops == 0 or prod(self.size) == 0

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees one input position: a 1x1 kernel without padding."""
        return self.kernel == (1, 1, 1) and self.padding == ((0, 0),) * 3

    @property
    def depthwise(self) -> bool:
        """Whether each output channel sees one input channel."""
        return self.groups == self.channels


@dataclass(frozen=True)
class Plan:
    """A convolution ready to run in one direction: all that depends on the spec alone is computed.

    Attributes:
        run: ``run(x, weight, bias, y, prepared=None)`` overwrites y. For the gradient with respect to the input, x is
            dy and y is dx. Without a bias, bias has length 0.
        transform: makes ``prepared`` from the weight, where weights can be transformed ahead.
        weight_format: plans with equal formats take the same ``prepared``.
    """

    run: Callable[..., None]
    transform: Callable[[Array], Any] | None = None
    weight_format: Hashable = None


@dataclass(frozen=True)
class Strategy:
    """A way to compute convolutions.

    A direction is "forward", "grad_input" or "grad_weight".

    Attributes:
        name: what users pass as ``strategy=``.
        accepts: ``accepts(spec, direction)`` is None for yes, else the reason why not.
        cost: ``cost(spec, direction, threads)`` predicts nanoseconds.
        workspace: ``workspace(spec, direction, threads)`` is memory in bytes besides inputs and outputs.
        forward: ``forward(spec, activation)`` with the code of a fused activation.
        grad_input: ``grad_input(spec, activation)``; bias and activation apply to dx, for transposed convolutions.
        grad_weight: ``grad_weight(spec)`` is ``run(x, dy, dw)``.
        exact: whether the result is that of the definition up to the order of additions.
        ahead: ``ahead(spec)`` predicts nanoseconds of one thread that the forward direction saves, or loses, with weights that are prepared
            ahead and come from memory, as those of a network do.
        prepared: as ``forward``, with such weights, where that is another plan.
    """

    name: str
    accepts: Callable[[ConvSpec, str], str | None]
    cost: Callable[[ConvSpec, str, int], float]
    workspace: Callable[[ConvSpec, str, int], int]
    forward: Callable[[ConvSpec, int], Plan]
    grad_input: Callable[[ConvSpec, int], Plan]
    grad_weight: Callable[[ConvSpec], Callable[[Array, Array, Array], None]]
    exact: bool = True
    ahead: Callable[[ConvSpec], float] = lambda spec: 0.0
    prepared: Callable[[ConvSpec, int], Plan] | None = None


@dataclass(frozen=True)
class Options:
    """The attributes of a call as the user gave them."""

    stride: Any
    padding: Any
    output_padding: Any
    dilation: Any
    groups: Any
    precision: Any
    data_format: Any


def forward_spec(
    op: str,
    ndim: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: str,
    options: Options,
    channels_last: bool,
) -> ConvSpec:
    """Check the arguments of a convolution against one another and make its spec.

    ``weight_shape`` is (K, C/groups, ...). Raises ValueError or TypeError in the name of ``op``.
    """
    batch, channels, size = _split(op, ndim, input_shape, channels_last)
    kernel, groups, stride, dilation = _common(op, ndim, weight_shape, options)
    _check_kernel(op, weight_shape, f"(K, C/groups, {KERNEL_AXES[ndim]})", required=(0, *range(2, ndim + 2)))
    if channels % groups:
        raise ValueError(f"{op}: groups must divide the {channels} input channels, got {groups}")
    if weight_shape[1] * groups != channels:
        raise ValueError(
            f"{op}: weight must have {channels // groups} channels (input channels {channels} / groups {groups}), "
            f"got {weight_shape[1]} (weight shape {weight_shape})"
        )
    if weight_shape[0] % groups:
        raise ValueError(f"{op}: groups must divide the {weight_shape[0]} output channels of weight, got {groups}")

    padding = _check.paddings(op, "padding", options.padding, ndim, words=("valid", "same"))
    if padding == "valid":
        padding = ((0, 0),) * ndim
    elif padding == "same":
        padding = tuple(map(_shapes.same_padding, size, kernel, stride, dilation))
    assert not isinstance(padding, str)
    out_size = tuple(_shapes.window_output(n, k, s, d, *pad) for n, k, s, d, pad in zip(size, kernel, stride, dilation, padding))
    if min(out_size) < 1:
        padded = tuple(n + sum(pad) for n, pad in zip(size, padding))
        extent = tuple(map(_shapes.effective_kernel, kernel, dilation))
        raise ValueError(
            f"{op}: weight must have a kernel of at most the padded input's extents {padded}, got {kernel}"
            + (f", {extent} with dilation {dilation}" if extent != kernel else "")
        )
    return _canonical(
        op,
        ndim,
        dtype,
        batch,
        channels,
        weight_shape[0],
        groups,
        size,
        kernel,
        out_size,
        stride,
        dilation,
        padding,
        channels_last,
        options.precision,
        "padding",
    )


def transposed_spec(
    op: str,
    ndim: int,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: str,
    options: Options,
    channels_last: bool,
) -> ConvSpec:
    """Check the arguments of a transposed convolution and make the spec of the convolution it transposes.

    ``weight_shape`` is (input channels, output channels/groups, ...): (K, C/groups, ...) of that convolution.
    """
    batch, channels, size = _split(op, ndim, input_shape, channels_last)
    kernel, groups, stride, dilation = _common(op, ndim, weight_shape, options)
    _check_kernel(op, weight_shape, f"(C, K/groups, {KERNEL_AXES[ndim]})", required=range(ndim + 2))
    if weight_shape[0] != channels:
        raise ValueError(f"{op}: weight must have the {channels} input channels as its first extent, got {weight_shape[0]} (weight shape {weight_shape})")
    if channels % groups:
        raise ValueError(f"{op}: groups must divide the {channels} input channels, got {groups}")
    if min(size) < 1:
        raise ValueError(f"{op}: input must have extents of at least 1, got shape {input_shape}")
    padding = _check.paddings(op, "padding", options.padding, ndim)
    assert not isinstance(padding, str)
    extra = _check.integers(op, "output_padding", options.output_padding, ndim, minimum=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation)):
        raise ValueError(f"{op}: output_padding must be smaller than stride {stride} or dilation {dilation} on each axis, got {extra}")
    result = tuple(_shapes.transposed_output(n, k, s, d, sum(pad), e) for n, k, s, d, pad, e in zip(size, kernel, stride, dilation, padding, extra))
    if min(result) < 0:
        raise ValueError(f"{op}: padding must leave an output that is not negative, got {padding} with output extents {result}")
    # The convolution would see one more window for each whole stride in the extra part: take that part from it.
    padding = tuple((before, after - e // s * s) for (before, after), e, s in zip(padding, extra, stride))
    return _canonical(
        op,
        ndim,
        dtype,
        batch,
        weight_shape[1] * groups,
        channels,
        groups,
        result,
        kernel,
        size,
        stride,
        dilation,
        padding,
        channels_last,
        options.precision,
        "stride",
    )


def check_bias(op: str, shape: tuple[int, ...], channels: int) -> None:
    """A bias has one element for each channel of the result."""
    if shape != (channels,):
        raise ValueError(f"{op}: bias must have shape ({channels},), one element for each output channel, got {shape}")


def user_shape(shape: tuple[int, ...], ndim: int, channels_last: bool, batched: bool) -> tuple[int, ...]:
    """The shape of x or y as the user sees it: without the leading extents of 1."""
    first = 1 if channels_last else 2
    return shape[: first if batched else 0] + (() if batched else shape[1:first]) + shape[first + 3 - ndim :]


def _with_channels(batch: int, channels: int, size: Triple, channels_last: bool) -> tuple[int, ...]:
    return (batch, *size, channels) if channels_last else (batch, channels, *size)


def _split(op: str, ndim: int, shape: tuple[int, ...], channels_last: bool) -> tuple[int, int, tuple[int, ...]]:
    if len(shape) not in (ndim + 1, ndim + 2):
        axes = f"{AXES[ndim]}, C" if channels_last else f"C, {AXES[ndim]}"
        raise ValueError(f"{op}: input must have axes (N, {axes}) or ({axes}), got shape {shape}")
    batch, *rest = shape if len(shape) == ndim + 2 else (1, *shape)
    if channels_last:
        return batch, rest[-1], tuple(rest[:-1])
    return batch, rest[0], tuple(rest[1:])


def _common(op: str, ndim: int, weight_shape: tuple[int, ...], options: Options) -> tuple[tuple[int, ...], int, tuple[int, ...], tuple[int, ...]]:
    stride = _check.integers(op, "stride", options.stride, ndim, minimum=1)
    dilation = _check.integers(op, "dilation", options.dilation, ndim, minimum=1)
    groups = _check.integer(op, "groups", options.groups, minimum=1)
    return weight_shape[2:], groups, stride, dilation


def _check_kernel(op: str, shape: tuple[int, ...], axes: str, required: Any) -> None:
    if len(shape) != axes.count(",") + 1:
        raise ValueError(f"{op}: weight must have axes {axes}, got shape {shape}")
    if min(shape[axis] for axis in required) < 1:
        raise ValueError(f"{op}: weight must have extents of at least 1 in {axes}, got shape {shape}")


def _canonical(
    op: str,
    ndim: int,
    dtype: str,
    batch: int,
    channels: int,
    out_channels: int,
    groups: int,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    out_size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[Pair, ...],
    channels_last: bool,
    precision: Any,
    cause: str,
) -> ConvSpec:
    _check.choice(op, "precision", precision, ("default", "highest"))
    dilation = tuple(1 if k == 1 else d for k, d in zip(kernel, dilation))
    # A stride beyond the padded input changes nothing; clamped, products with it stay in range.
    room = [n + sum(pad) - _shapes.effective_kernel(k, d) for n, pad, k, d in zip(size, padding, kernel, dilation)]
    stride = tuple(min(s, r + 1) for s, r in zip(stride, room))
    lead = 3 - ndim
    spec = ConvSpec(
        dtype=dtype,
        batch=batch,
        channels=channels,
        out_channels=out_channels,
        groups=groups,
        size=_triple(1, lead, size),
        kernel=_triple(1, lead, kernel),
        out_size=_triple(1, lead, out_size),
        stride=_triple(1, lead, stride),
        dilation=_triple(1, lead, dilation),
        padding=_triple((0, 0), lead, padding),
        channels_last=channels_last,
        ndim=ndim,
        precision=precision,
    )
    padded = tuple(n + max(before, 0) + max(after, 0) for n, (before, after) in zip(spec.size, spec.padding))
    _check.fits(op, cause, "the padded input", (batch, channels, *padded), spec.itemsize)
    _check.fits(op, cause, "the output", spec.y_shape, spec.itemsize)
    return spec


def _triple(lead_value: Any, lead: int, values: tuple[Any, ...]) -> Any:
    return (lead_value,) * lead + values
