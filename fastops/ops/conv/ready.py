"""From the arguments of a call to something that runs: checks, spec and plan, remembered for the next such call.

The second call with the same shapes, types and attributes finds its plan with one dictionary look-up. Whatever decides
about the plan or about an error is in the key, and arrays whose memory kernels cannot take as it is never come that far.
Keys compare by value, and 2.0 equals 2: attributes that are not exact integers are looked up nowhere, but checked anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops._memory import empty
from fastops.ops.conv import strategies
from fastops.ops.conv.bias import grad_bias
from fastops.ops.conv.spec import ConvSpec, Options, Plan, check_bias, forward_spec, transposed_spec, user_shape
from fastops.simd.epilogue import ACTIVATIONS

Precision = Literal["default", "highest"]
Integers = int | tuple[int, ...]
Pads = int | tuple[int | tuple[int, int], ...]
Padding = Pads | str
Gradients = tuple[Array | None, Array | None, Array | None]

DATA_FORMATS = {
    1: {"NCW": False, "NWC": True},
    2: {"NCHW": False, "NHWC": True},
    3: {"NCDHW": False, "NDHWC": True},
}

_MOST_READY = 4096

ndarray = np.ndarray


@dataclass(frozen=True)
class Kind:
    """One of the public convolutions."""

    name: str
    ndim: int
    transposed: bool


KINDS = {
    **{f"conv{n}d": Kind(f"conv{n}d", n, False) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": Kind(f"conv_transpose{n}d", n, True) for n in (1, 2, 3)},
}

# Operations made of 2-D convolutions, which speak of errors in their own names.
COMPOSED = {name: Kind(name, 2, False) for name in ("separable_conv2d", "corr2d")}


def _kind(name: str) -> Kind:
    return KINDS.get(name) or COMPOSED[name]


@dataclass(frozen=True)
class Problem:
    """A call whose arguments have been checked against one another.

    ``input_shape`` and ``result_shape`` are 5-D, ``shape`` is that of the result as the user sees it.
    """

    kind: Kind
    spec: ConvSpec
    input_shape: tuple[int, ...]
    result_shape: tuple[int, ...]
    shape: tuple[int, ...]

    def direction(self, part: str) -> str:
        """The direction of the strategy that computes the forward pass, "grad_input" or "grad_weight" of this call."""
        swap = {"forward": "grad_input", "grad_input": "forward"}
        return swap.get(part, part) if self.kind.transposed else part


def check_problem(
    op: str, kind: Kind, input_shape: tuple[int, ...], weight_shape: tuple[int, ...], bias_shape: tuple[int, ...] | None,
    dtype: str, options: Options,
) -> Problem:  # fmt: skip
    """Check shapes and attributes; raises ValueError or TypeError in the name of ``op``."""
    formats = DATA_FORMATS[kind.ndim]
    _check.choice(op, "data_format", options.data_format, formats)
    channels_last = formats[options.data_format]
    make = transposed_spec if kind.transposed else forward_spec
    spec = make(op, kind.ndim, input_shape, weight_shape, dtype, options, channels_last)
    if kind.transposed:
        channels, first, second = spec.channels, spec.y_shape, spec.x_shape
    else:
        channels, first, second = spec.out_channels, spec.x_shape, spec.y_shape
    if bias_shape is not None:
        check_bias(op, bias_shape, channels)
    shape = user_shape(second, kind.ndim, channels_last, batched=len(input_shape) == kind.ndim + 2)
    return Problem(kind, spec, first, second, shape)


def activation_code(op: str, activation: Any) -> int:
    """The number under which kernels know an activation."""
    if activation is None:
        return 0
    _check.choice(op, "activation", activation, [None, *ACTIVATIONS])
    return ACTIVATIONS[activation]


@dataclass(frozen=True)
class Forward:
    """A forward pass ready to run: the plan, and the 5-D shapes that it takes."""

    run: Callable[..., None]
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    result_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    no_bias: Array
    plan: Plan


def _nothing(*args: Any) -> None:
    pass


def make_forward(op: str, problem: Problem, strategy: Any, activation: Any, *, prepared: bool = False) -> Forward:
    """Choose the strategy, for weights that are prepared ahead or not, and build its plan."""
    spec = problem.spec
    direction = problem.direction("forward")
    code = activation_code(op, activation)
    chosen = strategies.select(op, strategy, spec, direction, prepared=prepared)
    # Who names a strategy gets what it gives without weights made ahead, to the bit.
    plan = strategies.plan(chosen, spec, direction, code, prepared=prepared and strategy == "auto")
    run = _nothing if 0 in problem.result_shape else plan.run
    return Forward(
        run, problem.input_shape, spec.weight_shape, problem.result_shape, problem.shape,
        np.dtype(spec.dtype), np.empty(0, spec.dtype), plan,
    )  # fmt: skip


def finish(op: str, ready: Forward, arrays: list[Any], prepared: Any, out: Any, dtype: np.dtype[Any]) -> Any:
    """Run on checked arrays, into ``out`` where one is given."""
    x, weight, bias = arrays
    if out is not None:
        _check.check_out(op, out, ready.shape, dtype)
    direct = out is not None and _check.takes_result(out, ready.dtype, x, weight, bias)
    y = out if direct else empty(ready.shape, ready.dtype)
    ready.run(
        x.reshape(ready.input_shape), weight.reshape(ready.weight_shape), ready.no_bias if bias is None else bias,
        y.reshape(ready.result_shape), prepared,
    )  # fmt: skip
    if out is None:
        return y if dtype == y.dtype else y.astype(dtype)
    if not direct:
        np.copyto(out, y, casting="same_kind")
    return out


_forward: dict[Hashable, Forward] = {}


def convolve(
    name: str, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any,
    groups: Any, strategy: Any, precision: Any, data_format: Any, activation: Any, out: Any,
) -> Any:  # fmt: skip
    """The forward pass of every convolution."""
    if (
        out is None
        and type(input) is ndarray and input.flags.carray
        and type(weight) is ndarray and weight.flags.carray
        and (bias is None or (type(bias) is ndarray and bias.flags.carray))
        and (
            stride.__class__ is padding.__class__ is output_padding.__class__ is dilation.__class__ is groups.__class__ is int
            or _check.exact(stride, padding, output_padding, dilation, groups)
        )
    ):  # fmt: skip
        try:
            ready = _forward[
                name, input.shape, input.dtype, weight.shape, weight.dtype, bias is None or (bias.shape, bias.dtype),
                stride, padding, output_padding, dilation, groups, strategy, precision, data_format, activation,
            ]  # fmt: skip
        except (KeyError, TypeError):
            pass
        else:
            y = empty(ready.shape, ready.dtype)
            ready.run(
                input.reshape(ready.input_shape), weight.reshape(ready.weight_shape),
                ready.no_bias if bias is None else bias, y.reshape(ready.result_shape),
            )  # fmt: skip
            return y
    arrays, dtype = _check.as_arrays(name, input=input, weight=weight, bias=bias, optional="bias")
    x, w, b = arrays
    key = (
        name, x.shape, x.dtype, w.shape, w.dtype, b is None or (b.shape, b.dtype),
        stride, padding, output_padding, dilation, groups, strategy, precision, data_format, activation,
    )  # fmt: skip

    def make() -> Forward:
        options = Options(stride, padding, output_padding, dilation, groups, precision, data_format)
        bias_shape = None if b is None else b.shape
        problem = check_problem(name, _kind(name), x.shape, w.shape, bias_shape, str(x.dtype), options)
        return make_forward(name, problem, strategy, activation)

    ready = remembered(_forward, key, make) if _check.exact(stride, padding, output_padding, dilation, groups) else make()
    return finish(name, ready, arrays, None, out, dtype)


def remembered(table: dict[Hashable, Any], key: Hashable, make: Callable[[], Any]) -> Any:
    """The entry of a bounded table, made when it is not there; attributes that cannot be hashed are not kept."""
    try:
        entry = table.get(key)
    except TypeError:
        return make()
    if entry is None:
        entry = make()
        if len(table) >= _MOST_READY:
            table.clear()
        table[key] = entry
    return entry


@dataclass(frozen=True)
class Backward:
    """A backward pass ready to run; what is not asked for, or has nothing to run, is None."""

    problem: Problem
    grad_input: Plan | None
    grad_weight: Callable[..., None] | None
    dtype: np.dtype[Any]
    no_bias: Array


_backward: dict[Hashable, Backward] = {}


def differentiate(
    name: str, grad_output: Any, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    dilation: Any, groups: Any, output_mask: Any, strategy: Any, precision: Any, data_format: Any,
) -> Gradients:  # fmt: skip
    """The backward pass of every convolution: gradients of input, weight and bias, None where masked out."""
    op = f"{name}_backward"
    (dy, x, w, b), dtype = _check.as_arrays(op, grad_output=grad_output, input=input, weight=weight, bias=bias, optional="bias")
    mask = check_mask(op, output_mask, 3)
    key = (
        name, dy.shape, x.shape, x.dtype, w.shape, b is None or b.shape,
        stride, padding, output_padding, dilation, groups, mask, strategy, precision, data_format,
    )  # fmt: skip

    def make() -> Backward:
        options = Options(stride, padding, output_padding, dilation, groups, precision, data_format)
        bias_shape = None if b is None else b.shape
        problem = check_problem(op, _kind(name), x.shape, w.shape, bias_shape, str(x.dtype), options)
        if dy.shape != problem.shape:
            raise ValueError(f"{op}: grad_output must have the shape of the output, {problem.shape}, got {dy.shape}")
        return make_backward(op, problem, strategy, mask)

    ready: Backward = remembered(_backward, key, make) if _check.exact(stride, padding, output_padding, dilation, groups) else make()
    problem, spec = ready.problem, ready.problem.spec
    dy = dy.reshape(problem.result_shape)
    dx = dw = db = None
    if mask[0]:
        dx = empty(x.shape, ready.dtype) if ready.grad_input is not None else np.zeros(x.shape, ready.dtype)
        if ready.grad_input is not None:
            ready.grad_input.run(dy, w.reshape(spec.weight_shape), ready.no_bias, dx.reshape(problem.input_shape))
    if mask[1]:
        dw = empty(w.shape, ready.dtype) if ready.grad_weight is not None else np.zeros(w.shape, ready.dtype)
        if ready.grad_weight is not None:
            # A transposed convolution's input is the output of the convolution that its spec describes.
            pair = (x.reshape(problem.input_shape), dy)
            ready.grad_weight(*(reversed(pair) if problem.kind.transposed else pair), dw.reshape(spec.weight_shape))
    if mask[2] and b is not None:
        db = grad_bias(dy, spec.channels_last)
    if dtype != ready.dtype:
        return tuple(None if g is None else g.astype(dtype) for g in (dx, dw, db))  # type: ignore[return-value]
    return dx, dw, db


def make_backward(op: str, problem: Problem, strategy: Any, mask: tuple[bool, ...]) -> Backward:
    """Choose the strategies of the gradients asked for and build their plans."""
    spec = problem.spec

    def plan(part: str) -> Any:
        direction = problem.direction(part)
        chosen = strategies.select(op, strategy, spec, direction)
        return None if spec.empty else strategies.plan(chosen, spec, direction)

    return Backward(
        problem, plan("grad_input") if mask[0] else None, plan("grad_weight") if mask[1] else None,
        np.dtype(spec.dtype), np.empty(0, spec.dtype),
    )  # fmt: skip


def check_mask(op: str, mask: Any, count: int) -> tuple[bool, ...]:
    """``output_mask`` as a tuple of bools."""
    if not isinstance(mask, (tuple, list)) or len(mask) != count or not all(isinstance(m, (bool, np.bool_)) for m in mask):
        raise ValueError(f"{op}: output_mask must be {count} booleans, one for each gradient, got {mask!r}")
    return tuple(map(bool, mask))
