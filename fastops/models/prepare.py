"""Inference: a network with its weights, made ready once for many calls.

Batch normalisation with fixed statistics is a scale s = weight / sqrt(var + eps) and a shift of each channel. Behind a
convolution it goes into the weights, s W, and the bias, s (b - mean) + shift, where its gain is not only its own time: the
activation behind it can then be applied by the convolution. Weights are transformed once, and results that only the next
layers see live in memory that calls share.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(2018), section 3.2 and equation 14.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

import fastops.functional as F
from fastops.models import layers
from fastops.models.layers import Layer, Run

if TYPE_CHECKING:
    from fastops.models.network import Network, Step

_RUN = Run(training=False, rng=None)


class Prepared:
    """What :meth:`Network.prepare` returns: ``predict(*inputs)`` is the network's output. Several threads may call it.

    Results that only other layers see are written into memory that is kept from call to call, as much as one call needs at
    a time: fresh pages cost more than many a layer (MobileNetV2, batch of 8: 41 ms with them and 28 without).
    """

    def __init__(self, model: Network, params: Mapping[str, Any], buffers: Mapping[str, Any]) -> None:
        self._model = model
        self._stages = _with_memory(_stages(model, {**params, **buffers}), model.outputs)
        self._memory = Memory()
        self._shapes: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"<{self._model.name}, prepared: {len(self._stages)} stages>"

    def __call__(self, *inputs: Any) -> Any:
        self._model._check_inputs(inputs)
        shapes = tuple([np.shape(x) for x in inputs])
        if shapes != self._shapes:
            self._shapes, self._memory = shapes, Memory()
        memory = self._memory
        values: dict[int, Any] = dict(enumerate(inputs))
        del inputs
        for stage in self._stages:
            values[stage.made] = stage.run(memory if stage.kept else None, *[values[i] for i in stage.taken])
            for i in stage.free:
                memory.give(values[i])
            for i in stage.last:
                del values[i]
        found = tuple([values[i] for i in self._model.outputs])
        return found[0] if len(found) == 1 else found


class Memory:
    """Arrays that nobody uses at the moment, by size. Threads share it: taking from a list and giving to it are atomic."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, Any], list[Any]] = {}

    def take(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array without values."""
        size = prod(shape)
        try:
            return self._free[size, dtype].pop().reshape(shape)
        except (KeyError, IndexError):
            return np.empty(size, dtype).reshape(shape)

    def give(self, array: Any) -> None:
        """Return an array that :meth:`take` gave."""
        self._free.setdefault((array.size, array.dtype), []).append(array)


@dataclass
class Stage:
    """Something to be run.

    Attributes:
        run: ``run(memory, *values)``; with ``memory`` it takes the array for its result from there.
        taken, made: numbers of the values that it takes and makes.
        writes: whether it can write into given memory; ``sees``: whether its result may share memory with what it takes.
        kept: the result goes into kept memory. ``free``: values whose memory is free afterwards; ``last``: values that
            nobody needs afterwards.
    """

    run: Callable[..., Any]
    taken: tuple[int, ...]
    made: int
    writes: bool = False
    sees: bool = False
    kept: bool = False
    free: tuple[int, ...] = ()
    last: tuple[int, ...] = ()


def followers(steps: Sequence[Step], outputs: Sequence[int]) -> Callable[[int, type[Layer]], Step | None]:
    """``follower(value, kind)``: the one step that takes a value, if it is of this kind and nobody else sees the value."""
    uses: dict[int, list[Step]] = {}
    for step in steps:
        for i in step.inputs:
            uses.setdefault(i, []).append(step)

    def follower(value: int, kind: type[Layer]) -> Step | None:
        found = uses.get(value, [])
        alone = len(found) == 1 and found[0].inputs.count(value) == 1 and value not in outputs
        return found[0] if alone and isinstance(found[0].layer, kind) else None

    return follower


def _stages(model: Network, arrays: Mapping[str, Any]) -> list[Stage]:
    """The layers, with normalisation and activations taken into the layer before them."""
    follower = followers(model.steps, model.outputs)
    done: set[int] = set()

    def activation(value: int) -> tuple[str | None, int]:
        """The activation that follows a value, and the value behind it."""
        step = follower(value, layers.Activation)
        if step is None or step.layer.name not in _FUSED:  # type: ignore[attr-defined]
            return None, value
        done.add(step.output)
        return step.layer.name, step.output  # type: ignore[attr-defined]

    stages: list[Stage] = []
    for step in model.steps:
        if step.output in done:
            continue
        own = {short: arrays[f"{step.name}.{short}"] for short in step.layer.entries()}
        layer, made = step.layer, step.output
        if isinstance(layer, layers.Conv):
            weight, bias = own["weight"], own.get("bias")
            norm = follower(made, layers.BatchNorm)
            if norm is not None:
                weight, bias = folded(norm, arrays, weight, bias)
                made = norm.output
                done.add(made)
            name, made = activation(made)
            stages.append(Stage(_conv(layer, weight, bias, name), step.inputs, made, writes=True))
        elif isinstance(layer, layers.Linear):
            name, made = activation(made)
            stages.append(Stage(_linear(own["weight"], own.get("bias"), name), step.inputs, made))
        elif isinstance(layer, layers.Add):
            stages.append(Stage(_add, step.inputs, made, writes=True))
        elif isinstance(layer, layers.Activation) and layer.name in _FUSED:
            stages.append(Stage(_activation(layer.name), step.inputs, made, writes=True))
        elif isinstance(layer, layers.Concat):
            stages.append(Stage(_concat(layer), step.inputs, made, writes=True))
        else:
            fresh = isinstance(layer, (layers.BatchNorm, layers.Pool, layers.AdaptiveAvgPool))
            stages.append(Stage(_plain(layer, own), step.inputs, made, sees=not fresh))
    return stages


def _with_memory(stages: list[Stage], outputs: Sequence[int]) -> list[Stage]:
    """The same stages, which know when a value is needed no more, and when memory is free."""
    last_use = {i: n for n, stage in enumerate(stages) for i in (stage.made, *stage.taken)}
    last_use.update(dict.fromkeys(outputs, len(stages)))
    # The values whose memory a value may share, with itself; and until when they are needed for that.
    seen: dict[int, set[int]] = {}
    until = dict(last_use)
    for stage in stages:
        seen[stage.made] = {stage.made}
        if stage.sees:
            seen[stage.made].update(*(seen.get(i, {i}) for i in stage.taken))
        for i in seen[stage.made]:
            until[i] = max(until[i], last_use[stage.made])
    for stage in stages:
        stage.kept = stage.writes and until[stage.made] < len(stages)
    kept = {stage.made for stage in stages if stage.kept}
    for n, stage in enumerate(stages):
        stage.free = tuple(i for i in kept if until[i] == n)
        stage.last = tuple(i for i, at in last_use.items() if (until[i] if i in kept else at) == n)
    return stages


# What a convolution and a dense layer can apply to their results.
_FUSED = frozenset(
    ("relu", "relu6", "leaky_relu", "elu", "selu", "silu", "gelu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "softplus", "mish")
)  # fmt: skip


def folded(norm: Step, arrays: Mapping[str, Any], weight: Any, bias: Any) -> tuple[Any, Any]:
    """Weight and bias of a convolution that does what batch normalisation does behind it; computed in float64."""
    layer = norm.layer
    assert isinstance(layer, layers.BatchNorm)
    gamma, beta, mean, var = (np.asarray(arrays[f"{norm.name}.{name}"], np.float64) for name in ("weight", "bias", "running_mean", "running_var"))
    scale = gamma / np.sqrt(var + layer.eps)
    shift = beta + ((0 if bias is None else bias) - mean) * scale
    return (weight * scale[:, None, None, None]).astype(weight.dtype), shift.astype(weight.dtype)


def _conv(layer: layers.Conv, weight: Any, bias: Any, activation: str | None) -> Callable[..., Any]:
    prepared = F.prepare_conv2d(weight, layer.stride, layer.padding, layer.dilation, layer.groups)
    bias = None if bias is None else bias.copy()
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def run(memory: Memory | None, x: Any) -> Any:
        if memory is None or type(x) is not np.ndarray:
            return prepared(x, bias, activation=activation)
        shape = shapes.get(x.shape)
        if shape is None:
            shape = shapes[x.shape] = (x.shape[0], *(n for n in layer.shape(x.shape[1:]) if n is not None))
        return prepared(x, bias, activation=activation, out=memory.take(shape, x.dtype))

    return run


def _linear(weight: Any, bias: Any, activation: str | None) -> Callable[..., Any]:
    weight, bias = weight.copy(), None if bias is None else bias.copy()
    return lambda memory, x: F.linear(x, weight, bias, activation=activation)


def _add(memory: Memory | None, first: Any, second: Any, *more: Any) -> Any:
    y = np.add(first, second, out=None if memory is None else memory.take(first.shape, first.dtype))
    for value in more:
        y += value
    return y


def _activation(name: str) -> Callable[..., Any]:
    function = getattr(F, name)
    return lambda memory, x: function(x, out=None if memory is None else memory.take(x.shape, x.dtype))


def _concat(layer: layers.Concat) -> Callable[..., Any]:
    axis = layer.axis + 1 if layer.axis >= 0 else layer.axis

    def run(memory: Memory | None, *values: Any) -> Any:
        if memory is None:
            return np.concatenate(values, axis)
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return np.concatenate(values, axis, out=memory.take(tuple(shape), values[0].dtype))

    return run


def _plain(layer: Layer, own: Mapping[str, Any]) -> Callable[..., Any]:
    kept = {name: np.array(array) for name, array in own.items()}
    return lambda memory, *values: layer.apply(values, kept, _RUN)
