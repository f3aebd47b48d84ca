"""A classifier of sequences by long short-term memory.

Source: Hochreiter, Schmidhuber, "Long Short-Term Memory" (1997), with the forget gate of Gers, Schmidhuber, Cummins, "Learning
to Forget" (2000).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastops.functional as F
from fastops import _check
from fastops.models.layers import Entry, Field, Layer, Run, Shape, fan_in_bound, uniform
from fastops.models.network import Builder, Network
from fastops.models.transformer import steps_of


@dataclass(frozen=True)
class LSTM(Layer):
    """Long short-term memory with the parameters of ``torch.nn.LSTM``.

    Attributes:
        features: of a step.
        hidden: of a state.
        layers: each on the output of the one below.
        bidirectional: whether each layer also runs backwards.
        dropout: between layers.
        every_step: whether the result is the output at every step, instead of the last states of the last layer.
    """

    features: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    every_step: bool = False

    kind = "lstm"

    def __post_init__(self) -> None:
        _check.integer(self.kind, "layers", self.layers, 1)
        _check.probability(self.kind, "dropout", self.dropout)

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def entries(self) -> dict[str, Entry]:
        bound, found = uniform(fan_in_bound(self.hidden)), {}
        for layer in range(self.layers):
            below = self._directions * self.hidden if layer else self.features
            for end in ("", "_reverse")[: self._directions]:
                for name, shape in (("weight_ih", (below,)), ("weight_hh", (self.hidden,)), ("bias_ih", ()), ("bias_hh", ())):
                    found[f"{name}_l{layer}{end}"] = Entry((4 * self.hidden, *shape), bound)
        return found

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        random = run.training and self.layers > 1 and self.dropout > 0
        y, (h, _) = F.lstm(
            values[0], None, list(own.values()), num_layers=self.layers, batch_first=True, dropout=self.dropout,
            bidirectional=self.bidirectional, training=run.training, rng=run.seed() if random else None,
        )  # fmt: skip
        if self.every_step:
            return y
        return np.concatenate([h[-2], h[-1]], axis=1) if self.bidirectional else h[-1]

    def shape(self, *shapes: Shape) -> Shape:
        steps = steps_of(shapes[0], self.features)[0]
        last = (self._directions * self.hidden,)
        return (steps, *last) if self.every_step else last

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        steps = shapes[0][0]
        assert steps is not None
        return steps * sum(math.prod(entry.shape) for entry in self.entries().values() if len(entry.shape) == 2)

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        return None

    def describe(self) -> str:
        words = [f"lstm, {self.hidden}"]
        if self.layers > 1:
            words.append(f"{self.layers} layers")
        if self.bidirectional:
            words.append("both directions")
        return ", ".join(words)


def lstm(num_classes: int = 10, *, features: int = 8, hidden: int = 128, layers: int = 1, bidirectional: bool = False, dropout: float = 0.0) -> Network:
    """A classifier of sequences (T, features) of any length, such as the rows of a picture; gives logits.

    Args:
        num_classes: how many logits come out.
        features: of a step.
        hidden: of a state, in each direction.
        layers, bidirectional, dropout: as for :class:`LSTM`.

    >>> lstm()
    <lstm: 2 layers, 71,946 parameters>
    """
    net = Builder("lstm")
    x = net.input(None, features)
    x = net.layer("lstm", LSTM(features, hidden, layers, bidirectional, dropout), x)
    return net.build(net.linear("fc", x, num_classes))
