"""A run as a picture: loss and metric by epoch, and the filters of the first layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops.models.drawing import save

TRAIN, TEST = "#56B4E9", "#0072B2"
BOUND = "#D55E00"
TITLES = {"accuracy": "Accuracy", "mean_iou": "Mean intersection over union", "loss": "Loss"}

_MOST_FILTERS = 64


def filters(params: dict[str, Any]) -> np.ndarray[Any, Any] | None:
    """The weights of the first convolution of 3x3 or more, (K, C, R, S); None where there is none."""
    for array in params.values():
        if array.ndim == 4 and min(array.shape[2:]) > 1:
            return array
    return None


def _tiles(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Filters side by side: three channels as colours, otherwise the first channel from dark to light; each in its own range."""
    weights = weights[:_MOST_FILTERS]
    shown = weights if weights.shape[1] == 3 else weights[:, :1]
    low = shown.min(axis=(1, 2, 3), keepdims=True)
    shown = (shown - low) / np.maximum(shown.max(axis=(1, 2, 3), keepdims=True) - low, 1e-12)
    count, channels, height, width = shown.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.ones((channels, rows * (height + 1) - 1, columns * (width + 1) - 1), np.float32)
    for index, tile in enumerate(shown):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[:, top : top + height, left : left + width] = tile
    return sheet.transpose(1, 2, 0)


def _curves(axes: Any, epochs: list[int], lines: dict[str, list[float]], title: str) -> None:
    for label, values in lines.items():
        colour = TEST if label == "test" else TRAIN
        axes.plot(epochs, values, color=colour, lw=2, marker="o" if len(epochs) < 30 else None, ms=3.5)
    # Labels stand at the ends of the lines, apart from each other.
    ends = sorted((values[-1], label) for label, values in lines.items())
    low, high = axes.get_ylim()
    place = -np.inf
    for value, label in ends:
        place = max(value, place + 0.06 * (high - low))
        axes.annotate(f" {label} {value:.4g}", (epochs[-1], place), color=TEST if label == "test" else TRAIN, fontsize=9, va="center", annotation_clip=False)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("epoch", fontsize=9, color="#444444")
    axes.grid(axis="y", color="#eeeeee")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")
    axes.tick_params(length=0, colors="#444444")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.02)
    axes.set_axisbelow(True)


def draw(path: str, title: str, metric: str, history: list[dict[str, float]], params: dict[str, Any], bound: float | None = None) -> None:
    """Write the picture, its format being the name's ending; ``bound`` is a loss worth a line (the bigram entropy)."""
    from matplotlib.figure import Figure

    weights = filters(params)
    panels = 1 + (metric != "loss") + (weights is not None)
    figure = Figure(figsize=(4.6 * panels + 0.8, 4.0), layout="constrained")
    places = list(np.atleast_1d(figure.subplots(1, panels)))
    epochs = [int(entry["epoch"]) for entry in history]
    losses = {"training": [entry["loss"] for entry in history]}
    if metric == "loss":
        losses["test"] = [entry["test_loss"] for entry in history]
    axes = places.pop(0)
    if bound is not None:
        axes.axhline(bound, color=BOUND, lw=1.2, ls="--")
        axes.annotate(f"bigram entropy {bound:.3f}", (epochs[0], bound), color=BOUND, fontsize=9, va="bottom")
    _curves(axes, epochs, losses, "Loss")
    if metric != "loss":
        lines = {"training": [entry[metric] for entry in history], "test": [entry[f"test_{metric}"] for entry in history]}
        _curves(places.pop(0), epochs, lines, TITLES[metric])
    if weights is not None:
        axes = places.pop(0)
        tiles = _tiles(weights)
        axes.imshow(tiles.squeeze(), cmap="gray" if tiles.shape[2] == 1 else None, interpolation="nearest")
        axes.set_axis_off()
        count = f"the first {_MOST_FILTERS} of {len(weights)}" if len(weights) > _MOST_FILTERS else f"{len(weights)}"
        axes.set_title(f"First layer's filters ({count})", loc="left", fontsize=11, fontweight="bold")
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold")
    save(figure, path, dpi=130)
