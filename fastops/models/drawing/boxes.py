"""What a picture shows: a network's layers in boxes, the small ones with the layer before them; and how boxes hang together.

A graph is taken apart into series and parallels. A box that every path goes through divides what is before it from what is
behind; what hangs together only through such boxes stands side by side. An edge that jumps over others, as a residual
connection does, is set aside as an arc, and the rest is taken apart again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fastops.models.layers import Shape
from fastops.models.network import Network, Step

# Kinds of layer that are shown as a strip under the layer before them.
TAILS = frozenset(("batch_norm", "layer_norm", "activation", "dropout", "flatten"))


@dataclass
class Box:
    """A layer, and the small layers that follow it.

    Attributes:
        name: of the first layer; of an input, its name.
        steps: the layers, none for an input.
        sources: numbers of the boxes whose results it takes.
        shape: of what comes out.
    """

    name: str
    steps: list[Step]
    sources: tuple[int, ...]
    shape: Shape

    @property
    def kind(self) -> str:
        if not self.steps:
            return "input"
        layer = self.steps[0].layer
        return "depthwise" if layer.describe().startswith("depthwise") else layer.kind

    @property
    def scope(self) -> tuple[str, ...]:
        return tuple(self.name.split(".")[:-1])

    @property
    def extents(self) -> tuple[int, ...]:
        """Height and width, where they are known."""
        known = tuple(n for n in self.shape[1:] if n is not None)
        return known if len(self.shape) == 3 and len(known) == 2 else ()


def boxes_of(model: Network, shapes: Sequence[Shape]) -> list[Box]:
    """The boxes in the order of the layers."""
    uses: dict[int, int] = dict.fromkeys(model.outputs, 1)
    for step in model.steps:
        for i in set(step.inputs):
            uses[i] = uses.get(i, 0) + 1
    boxes = [Box(name, [], (), shapes[i]) for i, (name, _) in enumerate(model.inputs)]
    place = {i: i for i in range(len(boxes))}  # of the box that makes a value
    for step in model.steps:
        before = step.inputs[0]
        near = boxes[place[before]]
        # A normalisation behind the last of several blocks is no part of that block's sum.
        own = not step.layer.entries() or near.kind not in ("add", "concat") or step.name.count(".") >= near.name.count(".")
        if step.layer.kind in TAILS and len(step.inputs) == 1 and uses[before] == 1 and near.steps and own:
            near.steps.append(step)
            near.shape = shapes[step.output]
            place[step.output] = place[before]
        else:
            place[step.output] = len(boxes)
            boxes.append(Box(step.name, [step], tuple(dict.fromkeys(place[i] for i in step.inputs)), shapes[step.output]))
    return boxes


@dataclass
class Region:
    """Part of a graph: boxes and regions one under the other, or side by side.

    Attributes:
        items: numbers of boxes, and regions.
        side_by_side: how they stand.
        arcs: edges that jump over items; of regions in series alone.
    """

    items: list[int | Region]
    side_by_side: bool = False
    arcs: list[tuple[int, int]] = field(default_factory=list)

    def boxes(self) -> list[int]:
        return [i for item in self.items for i in (item.boxes() if isinstance(item, Region) else [item])]


def decompose(sources: Sequence[Sequence[int]], members: Iterable[int]) -> Region:
    """The members of a graph in series and parallels; ``sources`` gives the edges, all from lower numbers to higher ones."""
    nodes = sorted(members)
    own = set(nodes)
    return _series(nodes, {(s, t) for t in nodes for s in sources[t] if s in own}, None, None, [])


Edges = set[tuple[int, int]]


def _series(nodes: list[int], edges: Edges, before: int | None, behind: int | None, arcs: list[tuple[int, int]]) -> Region:
    """``before`` and ``behind`` are the boxes that paths come from and lead to; ``arcs`` are those of the whole region."""
    own = set(nodes)
    within = {(s, t) for s, t in edges if (s in own or s == before) and (t in own or t == behind)}
    if nodes and before is not None and behind is not None and (before, behind) in within:
        within.discard((before, behind))
        arcs.append((before, behind))
    parts = _components(nodes, within)
    if len(parts) > 1:
        return Region([Region([_series(part, within, before, behind, []) for part in parts], side_by_side=True)], arcs=arcs)
    cuts = _cuts(nodes, within)
    while nodes and not cuts:
        jump = _longest_jump(nodes, within)
        if jump is None:
            return Region(list(nodes), arcs=arcs)
        within.discard(jump)
        arcs.append(jump)
        if len(_components(nodes, within)) > 1:
            return _series(nodes, within, before, behind, arcs)
        cuts = _cuts(nodes, within)
    items: list[int | Region] = []
    start, last = 0, before
    for end in [*cuts, len(nodes)]:
        node = nodes[end] if end < len(nodes) else behind
        if end > start:
            items += _series(nodes[start:end], within, last, node, arcs).items
        if end < len(nodes):
            items.append(nodes[end])
        start, last = end + 1, node
    return Region(items, arcs=arcs)


def _components(nodes: list[int], edges: Edges) -> list[list[int]]:
    """The parts that no edge connects, edges to the outside left out."""
    root = {i: i for i in nodes}

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for s, t in edges:
        if s in root and t in root:
            root[find(t)] = find(s)
    parts: dict[int, list[int]] = {}
    for i in nodes:
        parts.setdefault(find(i), []).append(i)
    return list(parts.values())


def _cuts(nodes: list[int], edges: Edges) -> list[int]:
    """Places of the nodes that every path goes through: no edge jumps over them, nothing begins behind or ends before."""
    place = {node: i for i, node in enumerate(nodes)}
    over = [0] * (len(nodes) + 1)
    for s, t in edges:
        for i in range(place.get(s, -1) + 1, place.get(t, len(nodes))):
            over[i] += 1
    leaving, entered = {s for s, _ in edges}, {t for _, t in edges}
    ends = [i for i, node in enumerate(nodes) if node not in leaving]
    begins = [i for i, node in enumerate(nodes) if node not in entered]
    return [i for i in range(len(nodes)) if not over[i] and not any(e < i for e in ends) and not any(b > i for b in begins)]


def _longest_jump(nodes: list[int], edges: Edges) -> tuple[int, int] | None:
    """The edge over the most nodes whose target has another source."""
    place = {node: i for i, node in enumerate(nodes)}
    entering: dict[int, int] = {}
    for _, t in edges:
        entering[t] = entering.get(t, 0) + 1
    jumps = [(place.get(t, len(nodes)) - place.get(s, -1), s, t) for s, t in edges if entering[t] > 1]
    return max(jumps)[1:] if jumps else None
