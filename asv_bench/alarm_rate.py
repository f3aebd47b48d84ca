"""``python -m asv_bench.alarm_rate [COMMIT]``: how often the gate cries wolf, and the smallest slowdown that it finds.

Half of the rounds compare a commit with itself: what the gate calls slower there is a false alarm. In the others one side
really is slower: its ``parallel`` (fastops/_jit.py) runs the first so many per cent of the blocks of every kernel a second
time, and the share of them that the gate finds is counted. Kernels with too few blocks for that take no part.

Rounds are added to a file until ``--seconds`` are over, so that a long measurement can be made in pieces; the figures printed
are of everything in it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asv_bench import gate
from asv_bench.gate import CannotMeasure, Comparison, Pair, Side
from asv_bench.worker import ROOT

# The slowdowns injected, in per cent. 20 is what must be found.
LEVELS = (12, 15, 20, 30)

# Benchmarks of a round. A pair of processes takes two seconds to start; what a round has measured is lost when it is interrupted.
ROUND = 8

# Kernels of forty blocks and more, whose time is in the blocks.
SLOWED = (
    r"^activation\.(For|Back)ward\..*'(relu|gelu|tanh)\.8x64x56x56'|^pool\.Forward\..*'(max_pool2d\.3x3_s2_p1|avg_pool2d\.2x2)'"
    r"|^norm\.Forward\..*'group_norm\.8x64x56x56'"
)

BEFORE = """\
            with serial, cgutils.for_range(builder, blocks) as loop:
                builder.call(trampoline, [raw, loop.index, ir.Constant(_INTP, 0)])
"""
AFTER = """\
            with serial:
                with cgutils.for_range(builder, blocks) as loop:
                    builder.call(trampoline, [raw, loop.index, ir.Constant(_INTP, 0)])
                again = builder.sdiv(builder.mul(blocks, ir.Constant(_INTP, PERCENT)), ir.Constant(_INTP, 100))
                with cgutils.for_range(builder, again) as loop:
                    builder.call(trampoline, [raw, loop.index, ir.Constant(_INTP, 0)])
"""


def slow_down(folder: Path, percent: int) -> None:
    """Makes the kernels of an exported commit slower."""
    source = folder / "fastops" / "_jit.py"
    text = source.read_text()
    if text.count(BEFORE) != 1:
        raise CannotMeasure("fastops/_jit.py does not read as asv_bench/alarm_rate.py expects: mend BEFORE and AFTER there")
    source.write_text(text.replace(BEFORE, AFTER.replace("PERCENT", str(percent))))


def spin() -> None:
    while True:
        pass


@dataclass(frozen=True)
class Rate:
    """Of ``total`` comparisons ``flagged`` were called slower."""

    flagged: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.flagged / self.total if self.total else math.nan

    def interval(self) -> tuple[float, float]:
        """The percentages that are compatible with it: Wilson's interval of 95 %."""
        if not self.total:
            return 0.0, 100.0
        z, n, p = 1.96, self.total, self.flagged / self.total
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return 100 * max(0.0, (centre - half) / (1 + z * z / n)), 100 * min(1.0, (centre + half) / (1 + z * z / n))

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.flagged} of {self.total} ({self.percent:.1f} %, 95 % interval {low:.1f} to {high:.1f})"


def rates(rows: Iterable[dict[str, Any]], factor: float) -> dict[int, Rate]:
    """For each level, 0 being the commit against itself, how many comparisons the gate calls slower."""
    counts: dict[int, list[bool]] = {}
    for row in rows:
        counts.setdefault(row["percent"], []).append(Comparison(row["label"], [tuple(pair) for pair in row["pairs"]]).slower(factor))
    return {percent: Rate(sum(found), len(found)) for percent, found in sorted(counts.items())}


def smallest_found(found: dict[int, Rate]) -> int | None:
    """The smallest slowdown that, as every larger one, was found in 95 % of the comparisons."""
    smallest = None
    for percent in sorted((p for p in found if p), reverse=True):
        if found[percent].percent < 95:
            break
        smallest = percent
    return smallest


def one_round(sides: dict[str, Side], labels: Sequence[str], factor: float) -> list[Comparison]:
    """What the gate does, with a few benchmarks."""
    comparisons = [Comparison(label) for label in labels]
    with Pair(sides) as pair:
        for comparison in comparisons:
            pair.measure(comparison)
    gate.confirm(sides, comparisons, factor, lambda title, some: some)
    return [c for c in comparisons if c.pairs]


def show(rows: Sequence[dict[str, Any]], factor: float) -> None:
    found = rates(rows, factor)
    for percent, rate in found.items():
        if percent == 0:
            print(f"the commit against itself: called slower {rate}")
        else:
            ratios = [min(h for _, h in row["pairs"]) / min(b for b, _ in row["pairs"]) for row in rows if row["percent"] == percent]
            print(f"{percent} % more work: found {rate}; it made them {100 * (statistics.median(ratios) - 1):.0f} % slower (median)")
    smallest = smallest_found(found)
    if len(found) > 1 or 0 not in found:
        print(f"smallest slowdown found 95 % of the time: {f'{smallest} %' if smallest else f'more than {max(found)} %'}")


def main(arguments: Sequence[str] | None = None) -> int:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m asv_bench.alarm_rate", description=summary.partition(": ")[2], epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commit", metavar="COMMIT", nargs="?", default="HEAD", help="what to compare with itself (default: HEAD)")
    parser.add_argument("--factor", type=gate.factor_of, default=1.1, help="as in the gate (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="how long to measure in this run; 0 only prints (default: %(default)s)")
    parser.add_argument("--percent", type=int, choices=(0, *LEVELS), help="only this slowdown, 0 being none (default: all in turns)")
    parser.add_argument("--busy", action="store_true", help="while another process keeps one core busy")
    parser.add_argument("--file", type=Path, default=ROOT / ".asv" / "alarm_rate.jsonl", help="what was measured so far (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        commit = gate.commit_of(options.commit)
        known = [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
        rows = [row for row in known if (row["commit"], row["busy"], row["factor"]) == (commit, options.busy, options.factor)]
        rows += measure(commit, options, rows)
    except CannotMeasure as e:
        print(f"alarm_rate: {e}", file=sys.stderr)
        return gate.UNMEASURED
    if not rows:
        print("nothing has been measured", file=sys.stderr)
        return gate.UNMEASURED
    print(f"commit {commit[:10]}, factor {options.factor:g}, {'a busy core' if options.busy else 'a quiet machine'}, {len(rows)} comparisons")
    show(rows, options.factor)
    return gate.FINE


def measure(commit: str, options: argparse.Namespace, known: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rounds until the time is over; each is written to the file as soon as it is done."""
    begun, rows = time.perf_counter(), []
    levels = [options.percent] if options.percent is not None else [level for slow in LEVELS for level in (0, slow)]
    counts = {level: sum(row["percent"] == level for row in known) for level in levels}
    with gate.exported({"base": commit}) as sides, Pair(sides) as pair:
        timed = [label for label in pair.labels() if ".track_" not in label]
    every, slowed = (list(filter(gate.selection(only, False), timed)) for only in (None, SLOWED))
    busy = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    if options.busy:
        busy.start()
    try:
        while time.perf_counter() - begun < options.seconds:
            # The level that has the fewest comparisons is next; the commit against itself has half of all.
            level = min(levels, key=lambda p: counts[p] / (len(LEVELS) if p == 0 else 1))
            with gate.exported({"base": commit, "head": commit}) as sides:
                if level:
                    slow_down(sides["head"].folder, level)
                labels = slowed if level else every
                made = one_round(sides, random.sample(labels, min(ROUND, len(labels))), options.factor)
            new = [{"commit": commit, "busy": options.busy, "factor": options.factor, "percent": level, "label": c.label, "pairs": c.pairs} for c in made]
            rows += new
            counts[level] += max(1, len(made))
            options.file.parent.mkdir(parents=True, exist_ok=True)
            with options.file.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
    finally:
        if options.busy:
            busy.terminate()
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
