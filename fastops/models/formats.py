"""In which of two formats, channels first or last, a network computes each of its values.

Each step has a cost in either format, and each value that one step makes in one format and another takes in the other is
turned, which has its price. The choice of least cost is a minimal cut of a network with the steps as nodes, between a
source (channels first) and a sink (channels last): the edges cut are what is paid.

Source: Greig, Porteous, Seheult, "Exact Maximum A Posteriori Estimation for Binary Images" (1989), for the cut; Edmonds, Karp,
"Theoretical Improvements in Algorithmic Efficiency for Network Flow Problems" (1972), for finding it.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastops.models.stages import ChannelsLast, Stage
from fastops.ops.conv import inverted
from fastops.simd.turn import turn

if TYPE_CHECKING:
    from fastops.models.network import Network

# Nanoseconds for turning a byte of an image, in L2 and beyond, and for the call.
_TURN_NEAR, _TURN_FAR, _NEAR, _CALL = 0.03, 0.08, 1 << 20, 3_000
# By how much channels last must be faster, for predictions are off by some per cent.
_DOUBT = 1.05

_SOURCE, _SINK = -1, -2


def cheapest(costs: Sequence[tuple[float, float]], pairs: Iterable[tuple[int, int, float]]) -> list[bool]:
    """For each item whether to take its second cost, so that all costs and prices add up to the least.

    Args:
        costs: two for each item.
        pairs: (i, j, price) where items i and j cost so much more if they differ.

    >>> cheapest([(5, 0), (3, 4), (0, 9)], [(0, 1, 2), (1, 2, 0)])
    [True, True, False]
    """
    room: dict[int, dict[int, float]] = {n: {} for n in (_SOURCE, _SINK, *range(len(costs)))}

    def edge(a: int, b: int, capacity: float, back: float = 0) -> None:
        room[a][b] = room[a].get(b, 0) + capacity
        room[b][a] = room[b].get(a, 0) + back

    for i, (first, second) in enumerate(costs):
        edge(_SOURCE, i, second)
        edge(i, _SINK, first)
    for i, j, price in pairs:
        edge(i, j, price, price)
    while True:
        reached = {_SOURCE: _SOURCE}
        line = deque([_SOURCE])
        while line and _SINK not in reached:
            a = line.popleft()
            for b, left in room[a].items():
                if left > 0 and b not in reached:
                    reached[b] = a
                    line.append(b)
        if _SINK not in reached:
            return [i not in reached for i in range(len(costs))]
        path = [_SINK]
        while path[-1] != _SOURCE:
            path.append(reached[path[-1]])
        most = min(room[a][b] for b, a in pairwise(path))
        for b, a in pairwise(path):
            room[a][b] -= most
            room[b][a] += most


def in_formats(model: Network, stages: Sequence[Stage], given: Sequence[tuple[tuple[int, ...], Any]]) -> list[Stage]:
    """The stages, each with its channels where predicted costs of the whole are least, and between them those that turn images.

    ``given`` are shapes and dtypes of the network's inputs. MobileNetV2's images have their channels last from the second 1x1
    convolution on.
    """
    batches, dtypes = {shape[:1] for shape, _ in given}, {dtype for _, dtype in given}
    if len(batches) > 1 or dtypes not in ({np.dtype(np.float32)}, {np.dtype(np.float64)}) or not any(_has_costs(stage) for stage in stages):
        return list(stages)
    try:
        shapes: list[Any] = [(*given[0][0][:1], *shape) for shape in model.shapes(*(shape[1:] for shape, _ in given))]
        chosen = _choice(stages, model.outputs, shapes, given[0][1])
    except (TypeError, ValueError):  # the layer that refuses its input says what is wrong when it is run
        return list(stages)
    return _turning(*_in_one(stages, chosen, model.outputs, shapes), model.outputs)


def _has_costs(stage: Stage) -> bool:
    return stage.channels_last is not None and stage.channels_last.costs is not None


def _choice(stages: Sequence[Stage], outputs: Sequence[int], shapes: Sequence[tuple[int, ...]], dtype: Any) -> list[bool]:
    """For each stage whether it runs on channels last."""

    def price(value: int) -> float:
        if len(shapes[value]) != 4:
            return 0
        size = dtype.itemsize * math.prod(shapes[value])
        return _CALL + (_TURN_NEAR if size <= _NEAR else _TURN_FAR) * size

    makers = {stage.made: k for k, stage in enumerate(stages)}
    costs, pairs = [], []
    for k, stage in enumerate(stages):
        first, last = 0.0, math.inf
        if stage.channels_last is not None and all(len(shapes[value]) == 4 for value in (stage.made, *stage.taken)):
            first, last = stage.channels_last.costs(shapes[stage.taken[0]], dtype) if stage.channels_last.costs is not None else (0, 0)
            last = _DOUBT * last + sum(price(value) for value in stage.taken if value not in makers)
            last += price(stage.made) if stage.made in outputs else 0
        costs.append((first, last))
        pairs += [(makers[value], k, price(value)) for value in stage.taken if value in makers]
    return cheapest(costs, pairs)


def _in_one(stages: Sequence[Stage], chosen: Sequence[bool], outputs: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> tuple[list[Stage], list[bool]]:
    """The stages and choices with each inverted residual as one stage, where that pays.

    So is what begins a network, if what follows has its channels last: a convolution, a depthwise one and a 1x1, of which the first
    takes images with channels first.
    """
    users: dict[int, list[Stage]] = {}
    for stage in stages:
        for value in stage.taken:
            users.setdefault(value, []).append(stage)
    able = {stage.made: stage.channels_last for stage in stages if stage.channels_last is not None}
    last = {stage.made for stage, last in zip(stages, chosen) if last}

    def after(stage: Stage | None) -> Stage | None:
        """The one stage that takes what the stage makes, if that can run on channels last."""
        found = users.get(stage.made, []) if stage is not None and stage.made not in outputs else []
        return found[0] if len(found) == 1 and found[0].made in able else None

    replaced: dict[int, Stage | None] = {}  # by what a stage makes
    for first in stages:
        middle = after(first)
        end = after(middle)
        if middle is None or end is None or any(stage.made in replaced for stage in (first, middle, end)):
            continue
        widens = first.windows
        if widens is not None:
            if end.made in outputs or not all(user.made in last for user in users.get(end.made, [])):
                continue
        elif last.issuperset(stage.made for stage in (first, middle, end)):
            widens = able[first.made].one_pixel
        else:
            continue
        kinds = widens, able[middle.made].one_channel, able[end.made].one_pixel
        widen, depthwise, narrow = (kind and kind(shapes[stage.taken[0]]) for kind, stage in zip(kinds, (first, middle, end)))
        if widen is None or depthwise is None or narrow is None:
            continue
        x, sum_ = first.taken[0], after(end)
        added = sum_ is not None and sum_.made in last and able[sum_.made].adds and sorted(sum_.taken) == sorted((x, end.made))
        run = inverted.inverted_residual(widen, depthwise, narrow, added=added)
        if run is not None:
            made = sum_.made if added and sum_ is not None else end.made
            into = _into(run, shapes[made])
            way = ChannelsLast(into, turns=first.windows is not None)
            replaced.update({first.made: None, middle.made: None, end.made: None, made: Stage(into, (x,), made, way, writes=True)})
            last.add(made)
    found = [stage for stage in (replaced.get(stage.made, stage) for stage in stages) if stage is not None]
    return found, [stage.made in last for stage in found]


def _into(run: Callable[[Any, Any], None], shape: tuple[int, ...]) -> Callable[..., Any]:
    n, c, h, w = shape

    def run_into(out: Any, x: Any) -> Any:
        y = np.empty((n, h, w, c), x.dtype) if out is None else out
        run(x, y)
        return y

    return run_into


def _turning(stages: Sequence[Stage], chosen: Sequence[bool], outputs: Sequence[int]) -> list[Stage]:
    """The stages in the formats chosen, and those that turn what they take; values with channels last have numbers of their own."""
    number = itertools.count(1 + max(stage.made for stage in stages))
    last_numbers: dict[int, int] = {}
    at_hand = {value for stage in stages for value in stage.taken} - {stage.made for stage in stages}  # with channels first: the inputs
    found: list[Stage] = []

    def take(value: int, last: bool) -> int:
        """The number of the value in this format, which is made from the other if need be."""
        if last and value not in last_numbers:
            last_numbers[value] = next(number)
            found.append(Stage(_to_last, (value,), last_numbers[value], writes=True))
        elif not last and value not in at_hand:
            at_hand.add(value)
            found.append(Stage(_to_first, (last_numbers[value],), value, writes=True))
        return last_numbers[value] if last else value

    for stage, last in zip(stages, chosen):
        turns = stage.channels_last is not None and stage.channels_last.turns
        taken = tuple(take(value, last and not turns) for value in stage.taken)
        if last and stage.channels_last is not None:
            last_numbers[stage.made] = next(number)
            found.append(replace(stage, run=stage.channels_last.run, taken=taken, made=last_numbers[stage.made]))
        else:
            at_hand.add(stage.made)
            found.append(replace(stage, taken=taken))
    for value in outputs:
        take(value, False)
    return found


def _to_last(out: Any, x: Any) -> Any:
    n, c, h, w = x.shape
    y = np.empty((n, h, w, c), x.dtype) if out is None else out
    turn(np.ascontiguousarray(x).reshape(n, c, h * w), y.reshape(n, h * w, c))
    return y


def _to_first(out: Any, x: Any) -> Any:
    n, h, w, c = x.shape
    y = np.empty((n, c, h, w), x.dtype) if out is None else out
    turn(x.reshape(n, h * w, c), y.reshape(n, c, h * w))
    return y
