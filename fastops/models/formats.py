"""In which of two formats, channels first or last, a network computes each of its values.

Each step has a cost in either format, and each value that one step makes in one format and another takes in the other is
turned, which has its price. The choice of least cost is a minimal cut of a network with the steps as nodes, between a
source (channels first) and a sink (channels last): the edges cut are what is paid.

Source: Greig, Porteous, Seheult, "Exact Maximum A Posteriori Estimation for Binary Images" (1989), for the cut; Edmonds, Karp,
"Theoretical Improvements in Algorithmic Efficiency for Network Flow Problems" (1972), for finding it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

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
