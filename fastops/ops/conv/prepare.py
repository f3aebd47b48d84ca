"""Weights that many calls share, transformed once for each form that a strategy wants them in."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from fastops import _check
from fastops._check import Array
from fastops._memory import empty
from fastops._shapes import effective_kernel
from fastops.ops.conv.ready import KINDS, Forward, check_problem, finish, make_forward, ndarray, remembered
from fastops.ops.conv.spec import ConvSpec, Options, Plan
from fastops.ops.conv.strategies import STRATEGIES

_DEFAULTS = {
    "stride": 1, "padding": 0, "dilation": 1, "groups": 1,
    "strategy": "auto", "precision": "default", "data_format": "NCHW",
}  # fmt: skip


class PreparedConv2d:
    """A 2-D convolution with its weights; :func:`prepare_conv2d` makes it.

    Attributes:
        weight: the weights, read-only.
        attributes: stride, padding, dilation, groups, strategy, precision and data_format, by name.
    """

    def __init__(
        self, weight: Any, stride: Any, padding: Any, dilation: Any, groups: Any, strategy: Any, precision: Any,
        data_format: Any,
    ) -> None:  # fmt: skip
        op = "prepare_conv2d"
        (w,), self._dtype = _check.as_arrays(op, weight=weight)
        self._weight: Array = w.copy()
        self.attributes: dict[str, Any] = {
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
            "strategy": strategy, "precision": precision, "data_format": data_format,
        }  # fmt: skip
        _check.choice(op, "strategy", strategy, ["auto", *(s.name for s in STRATEGIES)])
        self._options = Options(stride, padding, 0, dilation, groups, precision, data_format)
        if w.ndim != 4:
            raise ValueError(f"{op}: weight must have axes (K, C/groups, R, S), got shape {w.shape}")
        # What is wrong whatever the input is found here, on the smallest image that the kernel fits.
        extents = map(effective_kernel, w.shape[2:], _check.integers(op, "dilation", dilation, 2, minimum=1))
        channels = w.shape[1] * _check.integer(op, "groups", groups, minimum=1)
        smallest = (channels, *extents) if data_format != "NHWC" else (*extents, channels)
        problem = check_problem(op, KINDS["conv2d"], smallest, w.shape, None, str(w.dtype), self._options)
        self._weight_view = self._weight.reshape(problem.spec.weight_shape)
        self._ready: dict[Hashable, tuple[Forward, Any]] = {}
        self._transformed: dict[Hashable, Any] = {}

    @property
    def weight(self) -> Array:
        """The weights, (K, C/groups, R, S), read-only."""
        weight = self._weight.astype(self._dtype, copy=False).view()
        weight.flags.writeable = False
        return weight

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.attributes.items() if value != _DEFAULTS[name]]
        return f"prepare_conv2d({', '.join([f'<{self._dtype} {self._weight.shape}>', *given])})"

    def __call__(self, input: Any, bias: Any = None, *, activation: str | None = None, out: Array | None = None) -> Array:
        """The convolution of ``input``; arguments and result as for :func:`conv2d`."""
        if (
            type(input) is ndarray and input.flags.carray
            and (bias is None or (type(bias) is ndarray and bias.flags.carray))
        ):  # fmt: skip
            try:
                ready, prepared = self._ready[input.shape, input.dtype, bias is None or (bias.shape, bias.dtype), activation]
            except (KeyError, TypeError):
                pass
            else:
                y: Any = empty(ready.shape, ready.dtype) if out is None else out
                if out is None or (type(out) is ndarray and out.shape == ready.shape and _check.takes_result(out, ready.dtype, input, bias)):
                    ready.run(
                        input.reshape(ready.input_shape), self._weight_view, ready.no_bias if bias is None else bias,
                        y.reshape(ready.result_shape), prepared,
                    )  # fmt: skip
                    return y
        # The weights take part in the check of dtypes as the user gave them: float16 ones are kept as float32.
        weight = self._weight if self._dtype == self._weight.dtype else self.weight
        arrays, dtype = _check.as_arrays("conv2d", input=input, weight=weight, bias=bias, optional="bias")
        x, w, b = arrays[0], self._weight, arrays[2]

        def make() -> tuple[Forward, Any]:
            bias_shape = None if b is None else b.shape
            problem = check_problem("conv2d", KINDS["conv2d"], x.shape, w.shape, bias_shape, str(x.dtype), self._options)
            ready = make_forward("conv2d", problem, self.attributes["strategy"], activation, prepared=True)
            return ready, self.transformed(ready.plan)

        key = x.shape, x.dtype, b is None or (b.shape, b.dtype), activation
        ready, prepared = remembered(self._ready, key, make)
        return finish("conv2d", ready, [x, w, b], prepared, out, dtype)

    def transformed(self, plan: Plan) -> Any:
        """The weights as this plan takes them, made once for all plans that take the same; None for those that take them as they are."""
        if plan.transform is None:
            return None
        if plan.weight_format not in self._transformed:
            self._transformed[plan.weight_format] = plan.transform(self._weight_view)
        return self._transformed[plan.weight_format]

    def spec(self, shape: tuple[int, ...]) -> ConvSpec:
        """The convolution of an input of this shape, with the weights' dtype."""
        return check_problem("conv2d", KINDS["conv2d"], shape, self._weight.shape, None, str(self._weight.dtype), self._options).spec

    def convolve(
        self, input: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any, strategy: Any,
        precision: Any, data_format: Any, activation: Any, out: Any,
    ) -> Array:  # fmt: skip
        """:func:`conv2d` with these weights: attributes must be those prepared for, or left at their defaults."""
        given = (stride, padding, dilation, groups, strategy, precision, data_format)
        for (name, default), value in zip(_DEFAULTS.items(), given):
            if value is not default and not (_same(name, value, default) or _same(name, value, self.attributes[name])):
                raise ValueError(f"conv2d: {name} must be what the weight was prepared for, {self.attributes[name]!r}, got {value!r}")
        return self(input, bias, activation=activation, out=out)


def _same(name: str, value: Any, other: Any) -> bool:
    """Whether two ways of writing an attribute mean the same."""
    if name in ("stride", "dilation"):
        return _check.integers("conv2d", name, value, 2, 1) == _check.integers("conv2d", name, other, 2, 1)
    if name == "padding":
        words = ("valid", "same")
        return _check.paddings("conv2d", name, value, 2, words) == _check.paddings("conv2d", name, other, 2, words)
    return bool(value == other)
