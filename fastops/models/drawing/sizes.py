"""What a picture is made of, and how large each part is, in points; y grows downwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastops.models.drawing.boxes import Box, Region

GAP, SIDE, ARC = 13.0, 20.0, 16.0  # between boxes, between branches, room for an arc
HEAD, PAD = 15.0, 8.0  # of a frame: its title, and what is left free around its boxes
STRIP = 12.0
SHEETS = 8.0  # what shows of the sheets behind a repeated block
MARK = 17.0  # height of a sum, a concatenation or an input

Width = Callable[[str, float, bool], float]


@dataclass
class Place:
    """A rectangle: middle in x, top in y, extents."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass
class Frame:
    """A block: items with a common scope."""

    title: str
    place: Place
    count: int = 1


@dataclass
class Picture:
    """What is to be painted.

    Attributes:
        places: of the boxes that are drawn, by number.
        frames: around blocks.
        edges: from box to box; between their two heights the line goes over, above and below it is straight.
        arcs: edges that jump: source, target and how far right the arc reaches.
        wires: from the end of a column to the next one's begin.
        ports: box and place of what comes over from the column before.
        across: edges to the right: source, target, whether it hands over what the way down saw.
        folded: title, words and count of what stands for several blocks, by the number of its last box.
    """

    places: dict[int, Place] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    edges: list[tuple[Place, Place, float, float]] = field(default_factory=list)
    arcs: list[tuple[Place, Place, float]] = field(default_factory=list)
    wires: list[list[tuple[float, float]]] = field(default_factory=list)
    ports: list[tuple[int, Place]] = field(default_factory=list)
    across: list[tuple[Place, Place, bool]] = field(default_factory=list)
    folded: dict[int, tuple[str, str, int]] = field(default_factory=dict)


def lines(box: Box) -> tuple[str, str]:
    """A box's name, empty if it says nothing, and what its layer is."""
    if not box.steps:
        return box.name, ""
    step = box.steps[0]
    words = step.layer.describe()
    return (step.name.split(".")[-1] if step.layer.entries() else ""), words


def local_name(box: Box, scope: str) -> str:
    """The name within a frame."""
    name = lines(box)[0]
    if not name or not box.steps:
        return name
    full = box.name
    return full[len(scope) + 1 :] if scope and full.startswith(scope + ".") else full


def tails(box: Box) -> list[tuple[str, str]]:
    """Kind and words of the small layers of a box."""
    found = []
    for step in box.steps[1:]:
        layer, name = step.layer, step.name.split(".")[-1]
        found.append((layer.kind, name if layer.entries() and not name.isdecimal() else layer.describe()))
    return found


def shape_words(shape: Sequence[int | None]) -> str:
    return "×".join("?" if n is None else str(n) for n in shape)


def is_mark(box: Box) -> bool:
    return box.kind in ("input", "add", "concat")


def size_of(box: Box, name: str, width: Width) -> tuple[float, float]:
    """Wider with more channels, higher with a larger image; both by their logarithm, and never too small for the words."""
    _, words = lines(box)
    shape = shape_words(box.shape)
    strip = STRIP if box.steps[1:] else 0.0
    tail = sum(width(text, 6.5, False) + 10 for _, text in tails(box))
    if is_mark(box):
        return max(width(name or words, 8, True) + width(shape, 7, False) + 26, tail), MARK + strip
    channels = (box.shape[0] if len(box.shape) != 2 else box.shape[1]) or 1 if box.shape else 1
    side = max(box.extents, default=1)
    first = width(name or words, 8, True) + width(shape, 7, False) + 24
    second = width(words, 7, False) + 14 if name else 0
    return max(84 + 13 * math.log2(channels + 1), first, second, tail), (27 if name else 18) + 2.6 * math.log2(side) + strip


# --- trees of things that stand one under the other


@dataclass
class Item:
    """A box, a frame, or branches side by side: extents left and right of the line through its middle, and height."""

    left: float
    right: float
    height: float
    box: int | None = None
    frame: str = ""
    count: int = 1
    items: list[Item] = field(default_factory=list)
    branches: list[tuple[float, Item]] = field(default_factory=list)
    region: Region | None = None

    def boxes(self) -> list[int]:
        inner = [*self.items, *(b for _, b in self.branches)]
        return [self.box] if self.box is not None else [i for item in inner for i in item.boxes()]


def stack(items: Sequence[Item]) -> tuple[float, float, float]:
    left = max((item.left for item in items), default=0.0)
    right = max((item.right for item in items), default=0.0)
    return left, right, sum(item.height + GAP for item in items) - GAP
