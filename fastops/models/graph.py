"""Graph networks, which classify the nodes of a graph.

Their inputs are the nodes x (N, features) and edge_index (2, E), sources then targets: an edge in one direction each. A batch
is one graph, a sample one of its nodes. Names, shapes and initial values of the parameters are those of PyTorch Geometric's
``GCN``, ``GraphSAGE`` and ``GAT``.

Source: Kipf, Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (2017), section 3.1; Hamilton, Ying,
Leskovec, "Inductive Representation Learning on Large Graphs" (2017), section 3.1; Veličković et al., "Graph Attention Networks"
(2018), section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastops.functional as F
from fastops import _check
from fastops.models.layers import Entry, Field, Layer, Run, Shape, uniform, zeros
from fastops.models.network import Builder, Network
from fastops.models.transformer import xavier_uniform


class GraphLayer(Layer):
    """What the layers of a graph have in common: values are x and edge_index."""

    features: int
    width: int  # of the result

    def shape(self, *shapes: Shape) -> Shape:
        if len(shapes) != 2 or len(shapes[0]) != 1 or shapes[0][0] not in (None, self.features):
            raise ValueError(f"the inputs must be nodes with {self.features} features and edges, got shapes {', '.join(map(str, shapes))}")
        return (self.width,)

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        """Of a node; those of the edges depend on the graph."""
        return sum(math.prod(entry.shape) for entry in self.entries().values() if len(entry.shape) > 1)

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        return fields[0]

    def describe(self) -> str:
        return f"{self.kind.replace('_', ' ')}, {self.width}"


@dataclass(frozen=True)
class GCNConv(GraphLayer):
    """The neighbours' features, weighted by degree, through a dense layer."""

    features: int
    width: int

    kind = "gcn_conv"

    def entries(self) -> dict[str, Entry]:
        return {"bias": Entry((self.width,), zeros), "lin.weight": Entry((self.width, self.features), xavier_uniform)}

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.gcn_conv(values[0], values[1], own["lin.weight"], own["bias"])


@dataclass(frozen=True)
class SAGEConv(GraphLayer):
    """The neighbours' mean (or sum, maximum) through one dense layer, the node itself through another."""

    features: int
    width: int
    aggr: str = "mean"

    kind = "graph_sage_conv"

    def entries(self) -> dict[str, Entry]:
        bound, shape = uniform(1 / math.sqrt(self.features)), (self.width, self.features)
        return {"lin_l.weight": Entry(shape, bound), "lin_l.bias": Entry((self.width,), bound), "lin_r.weight": Entry(shape, bound)}

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.graph_sage_conv(values[0], values[1], own["lin_l.weight"], own["lin_r.weight"], own["lin_l.bias"], self.aggr)


@dataclass(frozen=True)
class GATConv(GraphLayer):
    """The neighbours' features, weighted by attention.

    Attributes:
        features: of a node.
        each: features of a head.
        heads: how many.
        concat: whether the heads stand side by side, or their mean is taken.
    """

    features: int
    each: int
    heads: int = 1
    concat: bool = True

    kind = "gat_conv"

    @property
    def width(self) -> int:  # type: ignore[override]
        return self.each * self.heads if self.concat else self.each

    def entries(self) -> dict[str, Entry]:
        attention = Entry((1, self.heads, self.each), xavier_uniform)
        return {
            "att_src": attention, "att_dst": attention, "bias": Entry((self.width,), zeros),
            "lin.weight": Entry((self.heads * self.each, self.features), xavier_uniform),
        }  # fmt: skip

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        arrays = own["lin.weight"], own["att_src"], own["att_dst"], own["bias"]
        return F.gat_conv(values[0], values[1], *arrays, heads=self.heads, concat=self.concat)

    def describe(self) -> str:
        return f"gat conv, {self.heads} × {self.each}" + ("" if self.concat else ", mean")


Make = Callable[[int, int, bool], GraphLayer]


def _network(name: str, make: Make, num_classes: int, features: int, width: int, layers: int, dropout: float, activation: str) -> Network:
    """Layers of ``make(features, width, last)``, with dropout in front of each but the first and an activation between them."""
    net = Builder(name)
    x, edges = net.input(features, name="x"), net.input(None, name="edge_index")
    for i in range(_check.integer(name, "layers", layers, 1)):
        last = i == layers - 1
        if i:
            x = net.activation(activation, x)
            x = net.dropout(x, dropout) if dropout else x
        x = net.layer(f"convs.{i}", make(x.channels, num_classes if last else width, last), x, edges)
    return net.build(x)


def gcn(num_classes: int = 2, *, features: int = 34, width: int = 16, layers: int = 2, dropout: float = 0.5) -> Network:
    """A graph convolutional network; gives logits of every node.

    Args:
        num_classes: how many logits come out.
        features: of a node; where nodes have none, an identity matrix serves, and features is their number.
        width: of the layers between.
        layers: graph convolutions; a node sees others up to so many edges away.
        dropout: behind the activations.

    >>> gcn()
    <gcn: 4 layers, 594 parameters>
    """
    return _network("gcn", lambda f, k, last: GCNConv(f, k), num_classes, features, width, layers, dropout, "relu")


def graph_sage(num_classes: int = 2, *, features: int = 34, width: int = 16, layers: int = 2, dropout: float = 0.0, aggr: str = "mean") -> Network:
    """GraphSAGE on whole graphs; gives logits of every node.

    Args:
        num_classes, features, width, layers, dropout: as for :func:`gcn`; by default without dropout.
        aggr: how neighbours are put together: "mean", "sum", "max" or "min".

    >>> graph_sage()
    <graph_sage: 3 layers, 1,170 parameters>
    """
    return _network("graph_sage", lambda f, k, last: SAGEConv(f, k, aggr), num_classes, features, width, layers, dropout, "relu")


def gat(num_classes: int = 2, *, features: int = 34, width: int = 8, heads: int = 8, layers: int = 2, dropout: float = 0.6) -> Network:
    """A graph attention network; gives logits of every node.

    Args:
        num_classes, features, layers, dropout: as for :func:`gcn`.
        width: of a head of the layers between, whose heads stand side by side.
        heads: of each layer but the last, which has one.

    >>> gat()
    <gat: 4 layers, 2,502 parameters>
    """

    def make(features: int, width: int, last: bool) -> GraphLayer:
        return GATConv(features, width, 1 if last else heads)

    return _network("gat", make, num_classes, features, width, layers, dropout, "elu")
