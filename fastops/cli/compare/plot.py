"""The comparison as a picture: every layer's speed as dots, the network's as bars."""

from __future__ import annotations

from typing import Any

from fastops.cli.compare.against import LIBRARIES
from fastops.cli.compare.measure import AUTO, Comparison
from fastops.cli.compare.table import TITLES, busy, digits, parts
from fastops.models.drawing import save

# Okabe and Ito's colours, which stay apart for colour-blind readers; a library is a dark diamond.
COLOURS = ("#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#D55E00", "#999999", "#F0E442", "#882255")
LIBRARY_COLOURS = ("#000000", "#6b4c9a")
CHOICE = "#009E73"


def _colours(result: Comparison) -> dict[str, str]:
    ours = [n for n in result.columns if n != AUTO and n not in LIBRARIES]
    others = [n for n in result.columns if n in LIBRARIES]
    return {
        AUTO: CHOICE,
        **{n: COLOURS[i % len(COLOURS)] for i, n in enumerate(ours)},
        **{n: LIBRARY_COLOURS[i % len(LIBRARY_COLOURS)] for i, n in enumerate(others)},
    }


def _plain(axes: Any) -> None:
    """Without the lines that carry nothing."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    axes.tick_params(length=0, colors="#444444")
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)


def _layers(axes: Any, result: Comparison, direction: str, colours: dict[str, str]) -> None:
    rows = [r for r in result.rows if r.direction == direction]
    for y, row in enumerate(rows):
        speeds = {n: g for n in result.columns if n != AUTO and (g := row.gflops(n))}
        chosen = row.gflops(AUTO) or 0.0
        axes.plot(
            [min(*speeds.values(), chosen, chosen), max(*speeds.values(), chosen, chosen)],
            [y, y],
            color="#e4e4e4",
            lw=5,
            zorder=1,
            solid_capstyle="round",
        )
        for name, speed in speeds.items():
            marker = {"marker": "D", "s": 26} if name in LIBRARIES else {"marker": "o", "s": 44}
            axes.scatter(speed, y, color=colours[name], zorder=3, clip_on=False, **marker)
        axes.scatter(chosen, y, s=150, facecolors="none", edgecolors=CHOICE, linewidths=2, zorder=4, clip_on=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(
        range(len(rows)),
        [
            "\n".join(
                [
                    r.shape.layer + (f"  \N{MULTIPLICATION SIGN}{r.shape.count}" if r.shape.count > 1 else ""),
                    r.shape.describe().replace("->", "\N{RIGHTWARDS ARROW}"),
                ]
            )
            for r in rows
        ],
        fontsize=8,
        linespacing=1.25,
    )
    axes.tick_params(axis="y", pad=11)  # clear of a ring at 0
    axes.set_title(TITLES[direction].capitalize(), loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("GFLOP/s", fontsize=9, color="#444444")
    axes.grid(axis="x", color="#eeeeee")
    _plain(axes)


def _network(axes: Any, result: Comparison, colours: dict[str, str]) -> None:
    totals = {n: t for n in result.columns if (t := result.total(n))}
    all_layers = sum(r.shape.count for r in result.rows)
    best = max(t.gflops for t in totals.values())
    for y, (name, total) in enumerate(totals.items()):
        complete = total.layers == all_layers
        axes.barh(y, total.gflops, height=0.62, color=colours[name], alpha=1.0 if complete else 0.45)
        note = f"{digits(total.milliseconds)} ms"
        if not complete:
            note += f"\nonly {total.layers} of {all_layers} {parts(result)}"
        axes.text(
            total.gflops + best * 0.02,
            y,
            note,
            va="center",
            fontsize=8 if complete else 7,
            color="#222222",
            fontweight="bold" if name == AUTO else "normal",
        )
    axes.set_ylim(len(totals) - 0.4, -0.6)
    axes.set_yticks(range(len(totals)), totals, fontsize=9)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_xlim(0, best * 1.42)
    both = ", all three" if len(result.settings.directions) > 1 else ""
    axes.set_title(f"The whole network{both}", loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("GFLOP/s, and the time in all", fontsize=9, color="#444444")
    axes.grid(axis="x", color="#eeeeee")
    _plain(axes)


def draw(result: Comparison, path: str) -> None:
    """Write the picture, its format being the name's ending."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    s = result.settings
    colours = _colours(result)
    panels = len(s.directions) + 1
    height = max(5.0, 1.9 + 0.44 * len(result.rows) / len(s.directions))
    width = 12.0 if panels == 2 else 16.5
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, panels, width_ratios=[1.25] * (panels - 1) + [1.0])
    for place, direction in zip(axes, s.directions, strict=False):
        _layers(place, result, direction, colours)
        if place is not axes[0]:
            place.tick_params(labelleft=False)
    _network(axes[-1], result, colours)
    facts = [
        s.dtype,
        f"batch {s.batch}",
        f"{s.threads} thread{'s' * (s.threads > 1)}",
        *(f"{n} {v}" for n, v in result.versions.items()),
    ]
    figure.suptitle(f"The convolutions of {s.network}", x=0.01, ha="left", fontsize=15, fontweight="bold")
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker="D" if n in LIBRARIES else "o",
            ms=5.5 if n in LIBRARIES else 7,
            color=colours[n],
            label=n,
        )
        for n in result.columns
        if n != AUTO
    ]
    handles.append(Line2D([], [], ls="", marker="o", ms=11, mfc="none", mec=CHOICE, mew=2, label="chosen by auto"))
    figure.legend(
        handles=handles,
        loc="outside upper right",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    footer = "\n".join(filter(None, [busy(result), ", ".join(facts)]))
    figure.supxlabel(footer, x=0.01, ha="left", fontsize=8, color="#777777")
    save(figure, path, dpi=130)
