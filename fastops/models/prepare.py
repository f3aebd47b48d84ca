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
from typing import TYPE_CHECKING, Any

import numpy as np

import fastops.functional as F
from fastops.models import layers
from fastops.models.layers import Layer, Run

if TYPE_CHECKING:
    from fastops.models.network import Network, Step

_RUN = Run(training=False, rng=None)


class Prepared:
    """What :meth:`Network.prepare` returns: ``predict(*inputs)`` is the network's output. Several threads may call it."""

    def __init__(self, model: Network, params: Mapping[str, Any], buffers: Mapping[str, Any]) -> None:
        self._model = model
        self._stages = _stages(model, {**params, **buffers})

    def __repr__(self) -> str:
        return f"<{self._model.name}, prepared: {len(self._stages)} stages>"

    def __call__(self, *inputs: Any) -> Any:
        self._model._check_inputs(inputs)
        values: dict[int, Any] = dict(enumerate(inputs))
        del inputs
        for run, taken, made, last in self._stages:
            values[made] = run(*[values[i] for i in taken])
            for i in last:
                del values[i]
        found = tuple([values[i] for i in self._model.outputs])
        return found[0] if len(found) == 1 else found


Stage = tuple[Callable[..., Any], tuple[int, ...], int, tuple[int, ...]]


def _stages(model: Network, arrays: Mapping[str, Any]) -> list[Stage]:
    """What is to be run: a function, the values that it takes, the one that it makes, those needed no more."""
    uses: dict[int, list[Step]] = {}
    for step in model.steps:
        for i in step.inputs:
            uses.setdefault(i, []).append(step)
    done: set[int] = set()

    def follower(value: int, kind: type[Layer]) -> Step | None:
        """The one step that takes a value, if it is of this kind and nobody else sees the value."""
        steps = uses.get(value, [])
        alone = len(steps) == 1 and steps[0].inputs.count(value) == 1 and value not in model.outputs
        return steps[0] if alone and isinstance(steps[0].layer, kind) else None

    def activation(value: int) -> tuple[str | None, int]:
        """The activation that follows a value, and the value behind it."""
        step = follower(value, layers.Activation)
        if step is None or step.layer.name not in _FUSED:  # type: ignore[attr-defined]
            return None, value
        done.add(step.output)
        return step.layer.name, step.output  # type: ignore[attr-defined]

    stages: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
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
            stages.append((_conv(layer, weight, bias, name), step.inputs, made))
        elif isinstance(layer, layers.Linear):
            name, made = activation(made)
            stages.append((_linear(own["weight"], own.get("bias"), name), step.inputs, made))
        else:
            stages.append((_plain(layer, own), step.inputs, made))
    return _with_last_uses(stages, model.outputs)


def _with_last_uses(stages: Sequence[tuple[Callable[..., Any], tuple[int, ...], int]], outputs: Sequence[int]) -> list[Stage]:
    needed = set(outputs)
    found: list[Stage] = []
    for run, taken, made in reversed(stages):
        last = tuple(dict.fromkeys([i for i in taken if i not in needed])) + (() if made in needed else (made,))
        needed.update(taken)
        found.append((run, taken, made, last))
    return found[::-1]


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
    return lambda x: prepared(x, bias, activation=activation)


def _linear(weight: Any, bias: Any, activation: str | None) -> Callable[..., Any]:
    weight, bias = weight.copy(), None if bias is None else bias.copy()
    return lambda x: F.linear(x, weight, bias, activation=activation)


def _plain(layer: Layer, own: Mapping[str, Any]) -> Callable[..., Any]:
    kept = {name: np.array(array) for name, array in own.items()}
    return lambda *values: layer.apply(values, kept, _RUN)
