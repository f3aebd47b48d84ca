"""A network of fastops as a ``torch.nn.Module``: the same graph and weights, of the modules that PyTorch users would write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastops.models import layers
from fastops.models.network import Network, Step


def module(model: Network, params: Mapping[str, Any], buffers: Mapping[str, Any]) -> nn.Module:
    """The network in PyTorch, with copies of the arrays."""
    made = Graph(model)
    state = {name: torch.from_numpy(array.copy()) for name, array in {**params, **buffers}.items()}
    made.to(next(iter(state.values())).dtype)
    made.load_state_dict(state)
    return made


class Graph(nn.Module):
    """A network of one input: modules under their names, applied in the order of the graph; whatever has no parameters may work in place."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.outputs = model.outputs
        uses = [i for step in model.steps for i in step.inputs]
        self.plan: list[tuple[Callable[..., Any], Step]] = []
        makers = {step.output: step.layer for step in model.steps}
        for step in model.steps:
            # As in torchvision: in place behind convolutions, normalisations and sums, whose gradients do not need their outputs.
            source = makers.get(step.inputs[0])
            inplace = uses.count(step.inputs[0]) == 1 and isinstance(source, (layers.Conv, layers.BatchNorm, layers.Add, layers.Linear))
            function = _function(step.layer, inplace)
            if isinstance(function, nn.Module):
                self._place(step.name if step.layer.entries() else f"step{step.output}", function)
            self.plan.append((function, step))

    def _place(self, name: str, child: nn.Module) -> None:
        *scopes, last = name.split(".")
        at: nn.Module = self
        for scope in scopes:
            if not hasattr(at, scope):
                at.add_module(scope, nn.Module())
            at = getattr(at, scope)
        at.add_module(last, child)

    def forward(self, x: torch.Tensor) -> Any:
        values = {0: x}
        for function, step in self.plan:
            values[step.output] = function(*[values[i] for i in step.inputs])
            for i in step.last:
                del values[i]
        found = [values[i] for i in self.outputs]
        return found[0] if len(found) == 1 else tuple(found)


def _function(layer: layers.Layer, inplace: bool) -> Callable[..., Any]:
    if isinstance(layer, layers.Conv):
        size, stride, padding, dilation = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        return nn.Conv2d(layer.channels, layer.out_channels, size, stride, padding, dilation, layer.groups, layer.bias)
    if isinstance(layer, layers.BatchNorm):
        return nn.BatchNorm2d(layer.channels, layer.eps, layer.momentum)
    if isinstance(layer, layers.Linear):
        return nn.Linear(layer.features, layer.out_features, layer.bias)
    if isinstance(layer, layers.Activation):
        kinds = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}
        return kinds[layer.name](inplace) if layer.name in kinds else getattr(torch, layer.name)
    if isinstance(layer, layers.Pool):
        if layer.mode == "max":
            return nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
        return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
    if isinstance(layer, layers.AdaptiveAvgPool):
        return nn.AdaptiveAvgPool2d(layer.output_size)
    if isinstance(layer, layers.Flatten):
        return nn.Flatten()
    if isinstance(layer, layers.Add):
        return lambda *values: sum(values[1:], values[0])
    if isinstance(layer, layers.Concat):
        return lambda *values: torch.cat(values, layer.axis + 1)
    if isinstance(layer, layers.Dropout):
        return nn.Dropout(layer.p)
    assert isinstance(layer, layers.Call)
    if layer.words == "shuffle, 2 groups":
        return lambda x: F.channel_shuffle(x, 2)
    if layer.words == "softmax":
        return lambda x: F.softmax(x, 1)
    return layer.function  # slices
