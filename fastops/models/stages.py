"""What a prepared network runs: its layers in order, each with the values that it takes and makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastops.ops.conv.inverted import Layer

# Predicted nanoseconds for a value (N, C, H, W), and for the same with channels last.
Costs = Callable[[tuple[int, ...], Any], tuple[float, float]]


@dataclass
class Stage:
    """Something to be run.

    Attributes:
        run: ``run(out, *values)``; the result is ``out`` unless that is None.
        taken, made: numbers of the values that it takes and makes.
        writes: whether it can write into given memory; ``sees``: whether its result may share memory with what it takes.
        kept: the result goes into kept memory, which is needed until the stage with the number ``until`` has run. ``last``:
            values that nobody needs afterwards.
        channels_last: how it runs on images with channels last, where it can.
        windows: of another convolution, the layer for images (N, C, H, W).
    """

    run: Callable[..., Any]
    taken: tuple[int, ...]
    made: int
    channels_last: ChannelsLast | None = None
    writes: bool = False
    sees: bool = False
    kept: bool = False
    until: int = 0
    last: tuple[int, ...] = ()
    windows: Callable[[tuple[int, ...]], Layer] | None = None


@dataclass(frozen=True)
class ChannelsLast:
    """How a stage runs on images with channels last.

    Attributes:
        run: as a stage's, for values (N, H, W, C).
        costs: None where it takes as long in either format.
        one_pixel, one_channel: a convolution of this kind, the 1x1 or the depthwise one: as a layer for images (N, C, H, W).
        adds: the sum of what it takes.
        turns: it takes images with channels first all the same.
    """

    run: Callable[..., Any]
    costs: Costs | None = None
    one_pixel: Callable[[tuple[int, ...]], Layer] | None = None
    one_channel: Callable[[tuple[int, ...]], Layer] | None = None
    adds: bool = False
    turns: bool = False
