"""The picture itself, painted with matplotlib."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastops.models.drawing.boxes import Box, boxes_of
from fastops.models.drawing.layout import Layout
from fastops.models.drawing.sizes import MARK, STRIP, Place, is_mark, lines, shape_words, tails
from fastops.models.layers import Shape
from fastops.models.network import Network
from fastops.models.weights import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 16.0
TITLE = 50.0
DPI = 144
MOST = 12000  # pixels along a side, of which matplotlib can paint 2**16

# What a kind of layer is called in the legend, its fill and its edge. The rest is "other".
KINDS = {
    "conv": ("convolution", "#cfe2f3", "#3d78b0"),
    "depthwise": ("depthwise convolution", "#c9ece9", "#2a8f88"),
    "conv_transpose": ("transposed convolution", "#fbd9b5", "#c77416"),
    "upsample": ("upsampling", "#fde8c8", "#c9923c"),
    "pool": ("pooling", "#d5ecd0", "#4f9a43"),
    "adaptive_avg_pool": ("pooling", "#d5ecd0", "#4f9a43"),
    "linear": ("dense", "#e1d5f0", "#7a55ad"),
    "self_attention": ("attention", "#f8d0d6", "#c04a5d"),
    "embedding": ("embedding", "#d9dcf5", "#5c66b8"),
    "position": ("embedding", "#d9dcf5", "#5c66b8"),
    "lstm": ("recurrent", "#f6d4ea", "#b04a8c"),
    "gcn_conv": ("graph convolution", "#cfe9f3", "#2f86a6"),
    "graph_sage_conv": ("graph convolution", "#cfe9f3", "#2f86a6"),
    "gat_conv": ("graph convolution", "#cfe9f3", "#2f86a6"),
    "batch_norm": ("normalisation", "#efe9d9", "#a0905f"),
    "layer_norm": ("normalisation", "#efe9d9", "#a0905f"),
    "activation": ("activation", "#fbf2b8", "#b39a1c"),
    "dropout": ("dropout", "#e6e6e6", "#8a8a8a"),
    "flatten": ("reshape", "#f2f2f2", "#8a8a8a"),
    "add": ("sum, concatenation", "#4a4f57", "#4a4f57"),
    "concat": ("sum, concatenation", "#4a4f57", "#4a4f57"),
    "input": ("input", "#ffffff", "#4a4f57"),
}
OTHER = ("other", "#f2f2f2", "#8a8a8a")
LINE, SKIP, FRAME = "#6b7078", "#d9480f", "#f7f8fa"
MOVE, LINE_TO, QUADRATIC, CUBIC = 1, 2, 3, 4  # of matplotlib.path.Path


def check(path: str | os.PathLike[str]) -> None:
    """Raise ImportError without matplotlib, ValueError for a kind of file that it does not draw."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ImportError('drawing takes matplotlib (pip install "fastops[plot]")') from None
    kinds = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in kinds:
        raise ValueError(f"the name's ending must be one of {', '.join(sorted(kinds))}, got {os.fspath(path)!r}")


@lru_cache(maxsize=4096)
def _width(text: str, size: float, bold: bool) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight="bold" if bold else "normal"), False)[0])


def draw(model: Network, path: str | os.PathLike[str], *input_shapes: Shape, collapse: bool = True) -> None:
    """See :meth:`Network.draw`."""
    check(path)
    import matplotlib
    from matplotlib.figure import Figure

    boxes = boxes_of(model, model.shapes(*input_shapes))
    found = Layout(boxes, _width, collapse)
    kinds = _legend(boxes, found)
    subtitle = _subtitle(model, boxes)
    legend = sum(_width(name, 7, False) + 26 for name, _, _ in kinds)
    width = max(found.width, min(legend, 520), _width(subtitle, 8, False), _width(model.name, 15, True)) + 2 * MARGIN
    rows = _rows(kinds, width - 2 * MARGIN)
    height = found.height + 2 * MARGIN + TITLE + 14 * len(rows) + 22
    figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    painter = _Painter(axes, found, MARGIN - found.left + max(0.0, (width - 2 * MARGIN - found.width) / 2), MARGIN + TITLE - found.top)
    axes.text(MARGIN, MARGIN + 12, model.name, fontsize=15, fontweight="bold", va="center", color="#222222")
    axes.text(MARGIN, MARGIN + 30, subtitle, fontsize=8, va="center", color="#666666")
    painter.paint(boxes)
    _paint_legend(axes, rows, height - MARGIN - 14 * (len(rows) - 1) - 18)
    dpi = min(DPI, MOST * 72 / max(width, height))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": model.name}):
        save(figure, path, dpi=dpi, metadata={"Date": None} if str(path).lower().endswith(".svg") else None)


def save(figure: Figure, path: str | os.PathLike[str], **options: Any) -> None:
    """Write the picture, its format being the name's ending; nothing is left of one that cannot be written."""
    with replacing(path) as place:
        figure.savefig(place, format=Path(path).suffix[1:].lower(), facecolor="white", **options)


def _subtitle(model: Network, boxes: list[Box]) -> str:
    count = sum(_product(entry.shape) for entry in model.entries.values() if not entry.buffer)
    given = ", ".join(shape_words(box.shape) for box in boxes if not box.steps)
    return f"{given} in · {len(model.steps)} layers · {count:,} parameters"


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


Kind = tuple[str, str, str]


def _legend(boxes: list[Box], found: Layout) -> list[Kind]:
    """The kinds in the picture, in the table's order."""
    drawn = [box for i, box in enumerate(boxes) if i in found.picture.places]
    used = {box.kind for box in drawn} | {kind for box in drawn for kind, _ in tails(box)}
    kinds = list(dict.fromkeys(words for kind, words in KINDS.items() if kind in used and kind != "input"))
    by_name = {name: (name, fill, edge) for name, fill, edge in reversed(kinds)}
    return [*dict.fromkeys(by_name[name] for name, _, _ in kinds), *([OTHER] if used - set(KINDS) else [])]


def _rows(kinds: list[Kind], width: float) -> list[list[Kind]]:
    rows: list[list[Kind]] = [[]]
    x = 0.0
    for kind in kinds:
        size = _width(kind[0], 7, False) + 26
        if rows[-1] and x + size > width:
            rows.append([])
            x = 0.0
        rows[-1].append(kind)
        x += size
    return rows


def _paint_legend(axes: Any, rows: list[list[Kind]], y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    for row in rows:
        x = MARGIN
        for name, fill, edge in row:
            axes.add_patch(FancyBboxPatch((x, y - 4), 10, 8, boxstyle="round,pad=0,rounding_size=2", fc=fill, ec=edge, lw=0.8))
            axes.text(x + 14, y, name, fontsize=7, va="center", color="#444444")
            x += _width(name, 7, False) + 26
        y += 14
    axes.text(MARGIN, y + 2, "wider: more channels; higher: larger image (logarithmic)", fontsize=6.5, va="center", color="#888888")


class _Painter:
    def __init__(self, axes: Any, found: Layout, dx: float, dy: float) -> None:
        self.axes, self.found, self.dx, self.dy = axes, found, dx, dy
        self.ids: dict[str, int] = {}

    def paint(self, boxes: list[Box]) -> None:
        picture = self.found.picture
        for frame in picture.frames:
            self._frame(frame.title, frame.place, frame.count)
        for wire in picture.wires:
            self._path([(x, y) for x, y in wire], LINE)
        for a, b, low, high in picture.edges:
            self._edge(a, b, low, high)
        for a, b, reach in picture.arcs:
            self._arc(a, b, reach)
        for a, b, skip in picture.across:
            self._across(a, b, skip)
        for number, place in picture.places.items():
            if number in picture.folded:
                self._folded(boxes[number], *picture.folded[number], place)
            else:
                self._box(boxes[number], self.found.names.get(number, ""), place)
        for number, place in picture.ports:
            self._mark(place, "", shape_words(boxes[number].shape), "white", LINE, "#444444")

    def _round(self, place: Place, fill: str, edge: str, radius: float, z: float, width: float = 1.0, gid: str | None = None) -> Any:
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={min(radius, place.height / 2)}"
        patch = FancyBboxPatch((place.left + self.dx, place.y + self.dy), place.width, place.height, boxstyle=style, fc=fill, ec=edge, lw=width, zorder=z)
        if gid:
            self.ids[gid] = self.ids.get(gid, 0) + 1
            patch.set_gid(gid if self.ids[gid] == 1 else f"{gid}.{self.ids[gid]}")  # an id must not come twice
        self.axes.add_patch(patch)
        return patch

    def _text(self, x: float, y: float, words: str, size: float, colour: str, ha: str = "left", bold: bool = False) -> None:
        weight = "bold" if bold else "normal"
        self.axes.text(x + self.dx, y + self.dy, words, fontsize=size, color=colour, ha=ha, va="center_baseline", fontweight=weight, zorder=6)

    def _frame(self, title: str, place: Place, count: int) -> None:
        if count > 1:  # leaves of paper behind
            for k in (2, 1):
                self._round(Place(place.x + 4 * k, place.y + 4 * k, place.width, place.height), FRAME, "#c3c8d0", 6, 0.5 - 0.1 * k)
        self._round(place, FRAME, "#c3c8d0", 6, 0.6)
        self._text(place.left + 7, place.y + 8, title, 8, "#555b66", bold=True)
        if count > 1:
            self._text(place.left + 15 + _width(title, 8, True), place.y + 8, f"×{count}", 10, SKIP, bold=True)

    def _box(self, box: Box, name: str, place: Place) -> None:
        _, fill, edge = KINDS.get(box.kind, OTHER)
        words = lines(box)[1]
        shape = shape_words(box.shape)
        small = tails(box)
        main = Place(place.x, place.y, place.width, place.height - (STRIP if small else 0))
        gid = box.name if box.steps else None
        if is_mark(box):
            colour = "#222222" if box.kind == "input" else "white"
            sign = {"add": "+", "concat": "concat"}.get(box.kind, box.name)
            self._mark(main, sign, shape, fill, edge, colour, gid)
        else:
            self._round(main, fill, edge, 4, 5, gid=gid)
            if name:
                self._text(main.left + 7, main.middle - 5.5, name, 8, "#1c1c1c", bold=True)
                self._text(main.left + 7, main.middle + 6, words, 7, "#3a3a3a")
                self._text(main.right - 7, main.middle - 5.5, shape, 7, "#3a3a3a", ha="right")
            else:
                self._text(main.left + 7, main.middle, words, 8, "#1c1c1c")
                self._text(main.right - 7, main.middle, shape, 7, "#3a3a3a", ha="right")
        if small:
            sizes = [_width(text, 6.5, False) + 10 for _, text in small]
            inner = place.width - (2 * 3 if not is_mark(box) else 8)
            x = place.x - inner / 2
            for (kind, text), size, step in zip(small, sizes, box.steps[1:]):
                width = size * inner / sum(sizes)
                _, fill, edge = KINDS.get(kind, OTHER)
                self._round(Place(x + width / 2, main.bottom, width, STRIP - 1), fill, edge, 2, 4, 0.6, gid=step.name)
                self._text(x + width / 2, main.bottom + STRIP / 2 - 0.3, text, 6.5, "#4a4a3a", ha="center")
                x += width

    def _mark(self, place: Place, sign: str, shape: str, fill: str, edge: str, colour: str, gid: str | None = None) -> None:
        self._round(place, fill, edge, place.height / 2, 5, gid=gid)
        if sign:
            self._text(place.left + 9, place.middle, sign, 11 if sign == "+" else 8, colour, bold=True)
            self._text(place.right - 9, place.middle, shape, 7, colour, ha="right")
        else:
            self._text(place.x, place.middle, shape, 7, colour, ha="center")

    def _folded(self, box: Box, title: str, words: str, count: int, place: Place) -> None:
        for k in (2, 1):
            self._round(Place(place.x + 4 * k, place.y + 4 * k, place.width, place.height), "#e6edf5", "#3d78b0", 4, 5 - 0.1 * k, 0.7)
        self._round(place, "#e6edf5", "#3d78b0", 4, 5, gid=title)
        self._text(place.left + 7, place.middle - 6, title, 8, "#1c1c1c", bold=True)
        self._text(place.left + 7, place.middle + 6, words, 7, "#3a3a3a")
        self._text(place.right - 7, place.middle - 6, shape_words(box.shape), 7, "#3a3a3a", ha="right")
        self._text(place.right - 7, place.middle + 7, f"×{count}", 10, SKIP, ha="right", bold=True)

    def _arrow(self, points: list[tuple[float, float]], codes: list[int], colour: str, width: float, z: float) -> None:
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Curve

        path = Curve([(x + self.dx, y + self.dy) for x, y in points], codes)
        style = "-|>,head_length=4,head_width=2.2"
        ends: Any = {"shrinkA": 0, "shrinkB": 0, "capstyle": "butt", "joinstyle": "round"}
        self.axes.add_patch(FancyArrowPatch(path=path, arrowstyle=style, fc=colour, ec=colour, lw=width, zorder=z, **ends))

    def _edge(self, a: Place, b: Place, low: float, high: float) -> None:
        start, end = ((a.x, a.bottom), (b.x, b.y)) if b.y >= a.bottom else ((a.x, a.y), (b.x, b.bottom))
        points, codes = [start], [MOVE]
        if a.x != b.x:
            half = (high - low) / 2
            if low != start[1]:
                points.append((a.x, low))
                codes.append(LINE_TO)
            points += [(a.x, low + half), (b.x, high - half), (b.x, high)]
            codes += [CUBIC] * 3
        if points[-1] != end:  # the head of an arrow points along the last part, which must have a length
            points.append(end)
            codes.append(LINE_TO)
        self._arrow(points, codes, LINE, 1.1, 3)

    def _arc(self, a: Place, b: Place, reach: float) -> None:
        """Out of the right side, down and in again."""
        x, top, bottom = reach, min(a.middle, a.y + MARK / 2) + 3, min(b.middle, b.y + MARK / 2) - 3
        r = min(12.0, (bottom - top) / 2)
        points = [(a.right, top), (x - r, top), (x, top), (x, top + r), (x, bottom - r), (x, bottom), (x - r, bottom), (b.right, bottom)]
        self._arrow(points, [MOVE, LINE_TO, QUADRATIC, QUADRATIC, LINE_TO, QUADRATIC, QUADRATIC, LINE_TO], SKIP, 1.5, 4.5)

    def _across(self, a: Place, b: Place, skip: bool) -> None:
        start, end = (a.right, a.middle), (b.left, b.middle)
        half = (end[0] - start[0]) / 2
        points = [start, (start[0] + half, start[1]), (end[0] - half, end[1]), end]
        self._arrow(points, [MOVE, CUBIC, CUBIC, CUBIC], SKIP if skip else LINE, 1.5 if skip else 1.1, 3)

    def _path(self, points: list[tuple[float, float]], colour: str) -> None:
        self._arrow(points, [MOVE, *[LINE_TO] * (len(points) - 1)], colour, 1.1, 2)
