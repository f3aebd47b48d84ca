"""Running every candidate on every layer, interleaved, and what came out of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from fastops.cli._layers import DIRECTIONS, FORWARD, Layer, Offer, largest_error
from fastops.cli.compare.against import LIBRARIES
from fastops.cli.compare.picture import Array, first_input, next_input
from fastops.cli.shapes import NETWORKS, ConvShape

AUTO = "auto"

# A candidate runs a few times in a row before the next one's turn, and the order changes from round to round: the first calls
# find the caches cold and, after a library, its threads still spinning, which has cost the next one 30 ms on two cores.
BURST_CALLS, BURST_SECONDS, SLOW_SECONDS, PAUSE_SECONDS = 3, 0.01, 0.25, 0.003
LEAST_CALLS, MOST_CALLS, MOST_SECONDS = 6, 200, 0.5


@dataclass(frozen=True)
class Settings:
    """What to measure, and how."""

    network: str = "resnet18"
    strategies: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    directions: tuple[str, ...] = (FORWARD,)
    batch: int = 1
    threads: int = 1
    dtype: str = "float32"
    precision: str = "default"
    seconds: float = 25.0
    image: str | None = None


@dataclass
class Measurement:
    """One candidate on one layer in one direction; ``refused`` is the reason why it did not run."""

    milliseconds: float | None = None
    calls: int = 0
    workspace: int | None = None
    error: float | None = None
    refused: str | None = None


@dataclass
class Row:
    """All candidates on one layer in one direction. ``chosen`` is the strategy that "auto" takes here."""

    shape: ConvShape
    direction: str
    flops: int
    chosen: str
    measured: dict[str, Measurement] = field(default_factory=dict)
    reference_channels: int | None = None  # None: the float64 reference has all of them

    def gflops(self, name: str) -> float | None:
        milliseconds = self.measured[name].milliseconds
        return self.flops / milliseconds * 1e-6 if milliseconds else None

    def fastest(self) -> str:
        ours = {n: m.milliseconds for n, m in self.measured.items() if m.milliseconds and n not in LIBRARIES and n != AUTO}
        return min(ours, key=lambda n: ours[n]) if ours else AUTO


@dataclass
class Total:
    """A candidate's sum over the layers that it runs, each counted as often as the network has it."""

    milliseconds: float
    gflops: float
    layers: int
    auto_milliseconds: float  # of strategy="auto" over the same layers
    workspace: int
    error: float


@dataclass
class Comparison:
    """What ``compare`` found. The first column is always "auto"."""

    settings: Settings
    versions: dict[str, str]
    load: float | None = None  # the part of the processor that others used, before or after, whichever was more
    rows: list[Row] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Candidates that ran somewhere."""
        names = [AUTO, *(s for s in self.settings.strategies if s != AUTO), *self.settings.libraries]
        return [n for n in names if any(r.measured[n].milliseconds for r in self.rows)]

    def absent(self) -> dict[str, str]:
        """Candidates that ran nowhere, each with its reason on the first layer."""
        names = [*(s for s in self.settings.strategies if s != AUTO), *self.settings.libraries]
        return {n: self.rows[0].measured[n].refused or "" for n in names if n not in self.columns}

    def total(self, name: str, directions: Sequence[str] = DIRECTIONS) -> Total | None:
        rows = [r for r in self.rows if r.direction in directions and r.measured[name].milliseconds]
        if not rows:
            return None

        def milliseconds(column: str) -> float:
            return sum(r.shape.count * (r.measured[column].milliseconds or 0) for r in rows)

        return Total(
            milliseconds=milliseconds(name),
            gflops=sum(r.shape.count * r.flops for r in rows) / milliseconds(name) * 1e-6,
            layers=sum(r.shape.count for r in rows),
            auto_milliseconds=milliseconds(AUTO),
            workspace=max(r.measured[name].workspace or 0 for r in rows),
            error=max(r.measured[name].error or 0 for r in rows),
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        layers = []
        for row in self.rows:
            candidates = {n: {**asdict(m), "gflops": row.gflops(n)} for n, m in row.measured.items()}
            layers.append(
                {
                    **asdict(row.shape),
                    "direction": row.direction,
                    "flops": row.flops,
                    "chosen": row.chosen,
                    "fastest": row.fastest(),
                    "reference_channels": row.reference_channels,
                    "candidates": candidates,
                }
            )
        totals = {d: {n: t and asdict(t) for n in self.columns for t in [self.total(n, (d,))]} for d in self.settings.directions}
        return {
            "settings": asdict(self.settings),
            "versions": self.versions,
            "load": self.load,
            "layers": layers,
            "totals": totals,
        }


class Progress(Protocol):
    """Told what begins and when it is done."""

    def begin(self, what: str) -> None: ...

    def advance(self) -> None: ...


def steps(settings: Settings) -> int:
    """How often ``compare`` calls ``Progress.advance``."""
    per_row = 2 + len({AUTO, *settings.strategies}) + len(settings.libraries)
    return len(NETWORKS[settings.network]) * len(settings.directions) * per_row


def used_by_others(seconds: float = 0.3) -> float | None:
    """The part of the processor in use while this program sleeps; None where the system does not tell."""

    def ticks() -> tuple[int, int]:
        with open("/proc/stat", encoding="ascii") as statistics:
            user, nice, system, idle, wait, *others = map(int, statistics.readline().split()[1:9])
        return idle + wait, user + nice + system + idle + wait + sum(others)

    try:
        idle, total = ticks()
        time.sleep(seconds)
        idle_then, total_then = ticks()
    except (OSError, ValueError):
        return None
    return max(0.0, 1 - (idle_then - idle) / max(1, total_then - total))


def time_interleaved(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, tuple[float, int]]:
    """Of each call the best time in seconds, and how often it ran.

    Each has an equal share of ``seconds`` or, where a single call takes long, as much as a few calls take.
    """
    share = min(MOST_SECONDS, seconds / max(1, len(calls)))
    best = dict.fromkeys(calls, float("inf"))
    used, count = dict.fromkeys(calls, 0.0), dict.fromkeys(calls, 0)
    waiting, order = list(calls), random.Random(0)
    while waiting:
        order.shuffle(waiting)
        for name in list(waiting):
            time.sleep(PAUSE_SECONDS)
            burst, least = 0.0, count[name] + BURST_CALLS
            while burst < (BURST_SECONDS if count[name] >= least else SLOW_SECONDS):
                start = time.perf_counter()
                calls[name]()
                taken = time.perf_counter() - start
                best[name] = min(best[name], taken)
                count[name] += 1
                burst += taken
            used[name] += burst
            if used[name] >= (share if count[name] >= LEAST_CALLS else MOST_SECONDS) or count[name] >= MOST_CALLS:
                waiting.remove(name)
    return {name: (best[name], count[name]) for name in calls}


def _candidates(layer: Layer, direction: str, settings: Settings, row: Row, offers: dict[str, Offer]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The calls that can run; the others leave their reason in ``row``."""
    for name in dict.fromkeys([AUTO, *settings.strategies]):
        offer = offers[row.chosen if name == AUTO else name]
        row.measured[name] = Measurement(refused=offer.refused, workspace=offer.workspace)
        if offer.refused is None and (name != AUTO or row.chosen not in settings.strategies):
            yield name, layer.call(direction, name)
    for name in settings.libraries:
        row.measured[name] = Measurement()
        try:
            yield name, LIBRARIES[name](layer, direction, settings.threads)
        except NotImplementedError as reason:
            row.measured[name].refused = str(reason)


def _measure_row(layer: Layer, direction: str, settings: Settings, progress: Progress) -> Row:
    offers = layer.offers(direction, settings.threads)
    chosen = next(name for name, offer in offers.items() if offer.chosen)
    row = Row(layer.shape, direction, layer.flops, chosen)
    what = f"{layer.shape.layer} {direction}"
    progress.begin(f"{what}: float64 reference")
    reference, channels = layer.reference(direction)
    row.reference_channels = None if channels is None else len(channels)
    progress.advance()
    calls: dict[str, Callable[[], Any]] = {}
    for name, call in _candidates(layer, direction, settings, row, offers):
        progress.begin(f"{what}: {name}, first call")
        row.measured[name].error = largest_error(call(), reference, channels, direction)
        calls[name] = call
        progress.advance()
    for _ in range(len(row.measured) - len(calls)):
        progress.advance()
    progress.begin(f"{what}: timing")
    share = settings.seconds / (len(NETWORKS[settings.network]) * len(settings.directions))
    for name, (best, count) in time_interleaved(calls, share).items():
        row.measured[name].milliseconds, row.measured[name].calls = best * 1e3, count
    if AUTO not in calls:
        row.measured[AUTO] = row.measured[chosen]
    progress.advance()
    return row


def compare(settings: Settings, versions: dict[str, str], progress: Progress, picture: Array | None = None) -> Comparison:
    """Measure every layer of the network; ``picture`` (channels, height, width) takes the place of random numbers."""
    result = Comparison(settings, versions, used_by_others())
    layer: Layer | None = None
    for index, shape in enumerate(NETWORKS[settings.network]):
        data = None
        if picture is not None:
            data = first_input(picture, shape, settings.batch) if layer is None else next_input(layer, shape)
        layer = Layer(shape, batch=settings.batch, dtype=settings.dtype, precision=settings.precision, input=data, seed=index)
        for direction in settings.directions:
            result.rows.append(_measure_row(layer, direction, settings, progress))
    after = used_by_others()
    if result.load is not None and after is not None:
        result.load = max(result.load, after)
    return result
