"""A network as a table: what each layer makes, how far it sees, what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO
from math import prod
from typing import TYPE_CHECKING

from fastops.models.layers import Field, Shape, by

if TYPE_CHECKING:
    from fastops.models.network import Network


@dataclass(frozen=True)
class Row:
    """A layer.

    Attributes:
        name, layer: its name and what it is, in words.
        shape: of a sample behind it.
        field: extent and step in pixels, for each axis, of what an element sees of the image; None: all of it.
        parameters: numbers to be trained: in out + out of a dense layer with a bias, in out k k + out of a convolution.
        multiply_adds: for one sample.
    """

    name: str
    layer: str
    shape: Shape
    field: Field
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, repr=False)
class Summary:
    """The rows of a network, and totals; its text is a table.

    Attributes:
        parameters: of the network: those that layers share count once.
        buffers: numbers that are kept but not trained.
        multiply_adds: for one sample.
    """

    name: str
    rows: tuple[Row, ...]
    parameters: int
    buffers: int
    multiply_adds: int

    def __str__(self) -> str:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_footer=True)
        totals = ("total", "", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}")
        for i, title in enumerate(("name", "layer", "output", "sees", "parameters", "multiply-adds")):
            table.add_column(title, totals[i], justify="left" if i < 2 else "right", no_wrap=True)
        for row in self.rows:
            cells = (row.name, row.layer, by(row.shape), _words(row.field), _number(row.parameters), _number(row.multiply_adds))  # type: ignore[arg-type]
            table.add_row(*cells)
        text = StringIO()
        width = max(80, max(sum(len(c) for c in (r.name, r.layer)) for r in self.rows) + 100)
        Console(file=text, width=width, color_system=None).print(table)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([self.name, *lines]).rstrip()

    __repr__ = __str__


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _words(field: Field) -> str:
    return "all" if field is None else "×".join(f"{extent:g}" for extent, _ in field)


def summary(model: Network, *input_shapes: Shape) -> Summary:
    """See :meth:`fastops.models.Network.summary`."""
    shapes = model.shapes(*input_shapes)
    if any(extent is None for shape in shapes for extent in shape):
        wanted = ", ".join(f"{name} {shape}" for name, shape in model.inputs)
        raise ValueError(f"{model.name}: summary needs the shape of a sample of each input ({wanted})")
    fields = model.fields(*input_shapes)
    rows = []
    for step in model.steps:
        count = sum(prod(entry.shape) for entry in step.layer.entries().values() if not entry.buffer)
        costs = step.layer.multiply_adds([shapes[i] for i in step.inputs], shapes[step.output])
        rows.append(Row(step.name, step.layer.describe(), shapes[step.output], fields[step.output], count, costs))
    total = [sum(prod(entry.shape) for entry in model.entries.values() if entry.buffer == buffer) for buffer in (False, True)]
    return Summary(model.name, tuple(rows), total[0], total[1], sum(row.multiply_adds for row in rows))
