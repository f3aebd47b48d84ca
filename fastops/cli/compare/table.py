"""The comparison as tables for a terminal, or as the same text without colours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fastops.cli._layers import FORWARD
from fastops.cli.compare.against import LIBRARIES
from fastops.cli.compare.measure import AUTO, Comparison, Row

TITLES = {FORWARD: "forward", "grad_input": "gradient of the input", "grad_weight": "gradient of the weight"}
SHORTEST, LONGEST = 4, 24  # of bars
BUSY = 0.2


def digits(value: float | None) -> str:
    """Three digits or so, never an exponent."""
    if value is None:
        return "-"
    places = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:.{places}f}"


def mebibytes(size: int | None) -> str:
    """In MiB, without the unit."""
    if size is None:
        return ""
    value = size / 2**20
    return "0" if size == 0 else "<.1" if value < 0.05 else f"{value:.{0 if value >= 99.95 else 1}f}"


def exponent(value: float | None) -> str:
    """``3e-07`` as ``3e-7``."""
    if not value:
        return "-" if value is None else "0"
    return re.sub(r"e([-+])0", r"e\1", f"{value:.0e}").replace("e+", "e")


def parts(result: Comparison) -> str:
    """What a total sums over: layers, or layers in one direction each."""
    return "passes" if len(result.settings.directions) > 1 else "layers"


def busy(result: Comparison) -> str:
    """A warning where other programs ran beside the measuring, else nothing."""
    if result.load is None or result.load <= BUSY:
        return ""
    return (
        f"The machine was busy with other programs ({result.load:.0%} of it): do not rely on these times, "
        "least of all on those of libraries whose threads wait by spinning."
    )


def _table(*, shapes: bool) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True, show_edge=False)
    table.add_column("layer", no_wrap=True, style="cyan")
    table.add_column("", no_wrap=True, justify="right", style="dim")
    if shapes:
        table.add_column("channels kernel size", no_wrap=True, style="dim")
    return table


def _cells(row: Row, *, shapes: bool) -> list[str | Text]:
    return [
        row.shape.layer,
        f"x{row.shape.count}" if row.shape.count > 1 else "",
        *([row.shape.describe()] if shapes else []),
    ]


def _cell(row: Row, name: str, text: str) -> Text:
    """The chosen strategy is green with a star, the fastest of ours is bold."""
    star = "*" if name == row.chosen and row.measured[name].milliseconds else ""
    style = "green" if name in (AUTO, row.chosen) else "dim" if text == "-" else "magenta" if name in LIBRARIES else ""
    return Text(star + text, style=f"{style} bold" if name == row.fastest() else style)


def _times(result: Comparison, direction: str, *, shapes: bool) -> Table:
    table = _table(shapes=shapes)
    for name in result.columns:
        table.add_column(name, justify="right", no_wrap=True)
        if name in LIBRARIES:
            table.add_column("ratio", justify="right", no_wrap=True)

    def ratio(theirs: float | None, ours: float | None) -> Text:
        if not theirs or not ours:
            return Text("")
        return Text(f"{theirs / ours:.2f}x", style="green" if theirs >= ours else "red")

    for row in (r for r in result.rows if r.direction == direction):
        cells = _cells(row, shapes=shapes)
        for name in result.columns:
            milliseconds = row.measured[name].milliseconds
            cells.append(_cell(row, name, digits(milliseconds)))
            if name in LIBRARIES:
                cells.append(ratio(milliseconds, row.measured[AUTO].milliseconds))
        table.add_row(*cells)
    table.add_section()
    all_layers = sum(r.shape.count for r in result.rows if r.direction == direction)
    cells = ["network", f"x{all_layers}", *([""] if shapes else [])]
    for name in result.columns:
        total = result.total(name, (direction,))
        complete = total is not None and total.layers == all_layers
        cells.append(Text(digits(total.milliseconds) if total and complete else "", style="bold green" if name == AUTO else "bold"))
        if name in LIBRARIES:
            cells.append(ratio(total.milliseconds, total.auto_milliseconds) if total else "")
    table.add_row(*cells)
    return table


def _grid(result: Comparison, direction: str, text: Callable[[Row, str], str], *, shapes: bool, auto: bool = True) -> Table:
    """A cell for each layer and candidate."""
    table = _table(shapes=shapes)
    names = [n for n in result.columns if auto or n != AUTO]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in (r for r in result.rows if r.direction == direction):
        table.add_row(*_cells(row, shapes=shapes), *(_cell(row, n, text(row, n)) for n in names))
    return table


def _memory_and_error(row: Row, name: str) -> str:
    measured = row.measured[name]
    if measured.milliseconds is None:
        return "-"
    return f"{mebibytes(measured.workspace)} {exponent(measured.error):>4}".strip()


@dataclass
class _Bar:
    """A bar whose longest is as long as the column leaves it."""

    mark: str
    share: float
    style: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(SHORTEST, LONGEST)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.mark * max(1, round(options.max_width * self.share)), style=self.style)


def _summary(result: Comparison, bar: str) -> Table:
    """The network as a whole: a line for each candidate, with a bar for its speed."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in (parts(result), "ms", "GFLOP/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for heading in ("auto's speedup", "workspace MiB", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    totals = {n: t for n in result.columns if (t := result.total(n))}
    all_layers = sum(r.shape.count for r in result.rows)
    best = max(t.gflops for t in totals.values())
    for name, t in totals.items():
        style = "bold green" if name == AUTO else "magenta" if name in LIBRARIES else ""
        table.add_row(
            name,
            "all" if t.layers == all_layers else f"{t.layers} of {all_layers}",
            digits(t.milliseconds),
            digits(t.gflops),
            _Bar(bar, t.gflops / best, style or "blue"),
            "" if name == AUTO else f"{t.milliseconds / t.auto_milliseconds:.2f}x",
            "" if name in LIBRARIES else mebibytes(t.workspace),
            exponent(t.error),
            style=style,
        )
    return table


def _notes(result: Comparison) -> list[str]:
    notes = [
        '* chosen by strategy="auto"; bold: the fastest strategy; -: the layer is not for this one; xN: N layers of the network have this shape.',
        "Times are the best of several calls, taken in turns. GFLOP/s count the operations of the direct algorithm, of which Winograd needs fewer.",
        "Error: largest difference from the naive strategy in float64, relative to the largest value.",
    ]
    if any(r.reference_channels for r in result.rows):
        partial = dict.fromkeys(r.shape.layer for r in result.rows if r.reference_channels)
        notes[-1] += f" Taken over part of the channels in {', '.join(partial)}."
    if result.settings.libraries:
        notes.append("ratio: the library's time divided by that of auto, above 1 where fastops is faster.")
    if "onnxruntime" in result.columns:
        notes.append("onnxruntime has the weights ahead and may rearrange them beforehand; the others get them with every call.")
    notes += [f"{name} is left out: {reason}." for name, reason in result.absent().items()]
    return notes


def _width(table: Table, console: Console) -> int:
    """What the table would take of a console without an edge."""
    return console.measure(table, options=console.options.update(width=1000)).maximum


def show(result: Comparison, console: Console) -> None:
    """Print everything."""
    s = result.settings
    data = f"picture {Path(s.image).name}" if s.image else "random numbers"
    console.print(Text(f"The convolutions of {s.network}", style="bold"))
    threads = f"{s.threads} thread{'s' * (s.threads > 1)}"
    facts = [s.dtype, f"batch {s.batch}", threads, data, *(f"{n} {v}" for n, v in result.versions.items())]
    if s.precision != "default":
        facts.insert(1, f"precision {s.precision}")
    console.print(Text(", ".join(facts), style="dim"))
    if warning := busy(result):
        console.print(Text(warning, style="bold yellow"))

    bar = "\N{BOX DRAWINGS HEAVY HORIZONTAL}" if console.encoding.startswith("utf") else "#"

    def block(title: str, make: Callable[[bool], Table]) -> None:
        """With the shapes where the console is wide enough; where it is narrow, with headings in two lines."""
        table = make(True)
        if _width(table, console) > console.width:
            table = make(False)
        if _width(table, console) > console.width:
            for column in table.columns:
                text, half = str(column.header), (len(str(column.header)) + 1) // 2
                column.header = text if len(text) < 8 else f"{text[:half]}-\n{text[half:]}"
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)

    for direction in s.directions:
        title = TITLES[direction] if len(s.directions) > 1 else ""
        prefix = f"{title}: " if title else ""
        block(f"{prefix}time in ms", lambda shapes, d=direction: _times(result, d, shapes=shapes))  # type: ignore[misc]
        block(
            f"{prefix}GFLOP/s",
            lambda shapes, d=direction: _grid(  # type: ignore[misc]
                result, d, lambda row, n: digits(row.gflops(n)), shapes=shapes
            ),
        )
        block(
            f"{prefix}workspace in MiB, and error",
            lambda shapes, d=direction: _grid(  # type: ignore[misc]
                result, d, _memory_and_error, shapes=shapes, auto=False
            ),
        )
    block(
        "the whole network" + (", forward and both gradients" if len(s.directions) > 1 else ""),
        lambda _: _summary(result, bar),
    )
    console.print()
    for note in _notes(result):
        console.print(Text(note, style="dim"))
