"""``python -m asv_bench.gate BASE [HEAD]``: is HEAD slower than BASE? Both are timed in turns, so that the machine's moods meet both.

Each commit's fastops is taken out of git into a folder of its own and imported by a process of its own; the benchmarks are
those of this checkout. The two processes take turns of 20 ms, one thread each, and the best call counts. What looks slower,
or does not settle, is measured again in new pairs of processes, since where a process happens to put code and data can make
as much of a difference as a real change. Slower is what then still is, by its best times and by its second best.

Exit status: 0 nothing is slower, 1 something is, 2 it could not be measured.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asv_bench import fast
from asv_bench.worker import ROOT, Died, Worker

FINE, SLOWER, UNMEASURED = 0, 1, 2

# One pair of processes finds what looks slower, up to four more confirm it; two are enough where there is no doubt.
CONFIRMATIONS = 4

# A turn is long enough for hundreds of short calls, and short beside what else may happen on the machine.
TURN_SECONDS = 0.02
MOST_TURNS = 40
MOST_SECONDS = 4.0


class CannotMeasure(Exception):
    """The message says why, and what to do."""


@dataclass
class Comparison:
    """What is known of one benchmark: for each pair of processes the best time of base and of head, or why there is none."""

    label: str
    pairs: list[tuple[float, float]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    settled: bool = True

    @property
    def base(self) -> float:
        return min(base for base, _ in self.pairs)

    @property
    def head(self) -> float:
        return min(head for _, head in self.pairs)

    @property
    def ratio(self) -> float:
        return ratio(self.base, self.head)

    def suspicious(self, factor: float) -> bool:
        """Whether to measure again. From half the factor on: one pair of processes may flatter the slower side.

        Once more, too, when the first pair's best times did not come back: then they may be far from what is possible.
        """
        if self.failed or not self.pairs or (len(self.pairs) >= 3 and self.slower(1 + 1.5 * (factor - 1))):
            return False  # beyond doubt
        return self.ratio > halved(factor) or (len(self.pairs) == 1 and not self.settled)

    def slower(self, factor: float) -> bool:
        """Whether the best times differ by the factor, and the second best by half of it: one lucky process decides nothing."""
        if not self.pairs or self.ratio <= factor:
            return False
        second = [sorted(side)[min(1, len(self.pairs) - 1)] for side in zip(*self.pairs)]
        return ratio(second[0], second[1]) > halved(factor)

    def verdict(self, factor: float) -> str:
        if self.failed or (self.missing and "base" not in self.missing):
            return "failed"
        if self.missing:
            return "n/a" if "head" in self.missing else "new"
        if self.slower(factor):
            return "slower"
        return "faster" if self.ratio < 1 / factor else "same"


def ratio(base: float, head: float) -> float:
    if base == head:  # nothing at all on both sides: a workspace
        return 1.0
    return head / base if base else float("inf")


def halved(factor: float) -> float:
    return 1 + (factor - 1) / 2


def status(comparisons: Sequence[Comparison], factor: float) -> int:
    verdicts = [c.verdict(factor) for c in comparisons]
    if "slower" in verdicts:
        return SLOWER
    return FINE if "failed" not in verdicts and any(c.pairs for c in comparisons) else UNMEASURED


# ---- commits


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
    if done.returncode:
        raise CannotMeasure(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def commit_of(revision: str) -> str:
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}").decode().strip()
    except CannotMeasure:
        raise CannotMeasure(f"{revision}: no such commit in {ROOT}") from None


def refuse_uncommitted() -> None:
    changed = git("status", "--porcelain", "--", "fastops").decode().splitlines()
    if changed:
        raise CannotMeasure(
            f"fastops has changes that are not committed ({changed[0][3:]}{', ...' if len(changed) > 1 else ''}): commit them, or name HEAD to leave them out"
        )


def export(commit: str, folder: Path) -> Path:
    """The package as the commit has it, without touching the checkout."""
    folder.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit, "--", "fastops"))) as archive:
            archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(folder)
    except CannotMeasure:
        raise CannotMeasure(f"{commit[:10]} has no folder fastops") from None
    return folder


# ---- measuring


@dataclass(frozen=True)
class Side:
    """Where the fastops of a commit lies, and what its process finds in the environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> Worker:
        return Worker(self.folder, self.environment)


class Pair:
    """A process of base and one of head that take turns."""

    def __init__(self, sides: dict[str, Side]) -> None:
        self.sides = sides
        self.workers = {name: side.start() for name, side in sides.items()}

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def labels(self) -> list[str]:
        """All benchmarks of either side."""
        for worker in self.workers.values():
            worker.send(do="list")
        found: dict[str, None] = {}
        broken: dict[str, str] = {}
        for side, worker in self.workers.items():
            try:
                answer = worker.receive()
            except Died as e:
                raise CannotMeasure(f"{side}: fastops cannot be imported: {e}") from None
            found.update(dict.fromkeys(answer["labels"]))
            broken.update(answer["broken"])
        known = {label.partition(".")[0] for label in found}
        for file, error in broken.items():
            if file not in known:  # on neither side; on one, its benchmarks fail one by one
                raise CannotMeasure(f"benchmarks/{file}.py cannot be imported: {error.strip().splitlines()[-1]}")
        return list(found)

    def measure(self, comparison: Comparison) -> None:
        """Adds the best times of base and head, or the reason why there are none."""
        try:
            times = self._times(comparison)
        except Died:
            self.close()
            self.workers = {name: side.start() for name, side in self.sides.items()}
        else:
            if times:
                comparison.pairs.append((times["base"], times["head"]))

    def _times(self, comparison: Comparison) -> dict[str, float]:
        def receive(side: str) -> dict[str, Any]:
            try:
                answer = self.workers[side].receive()
            except Died as e:
                comparison.failed[side] = str(e)
                raise
            if "failed" in answer:
                comparison.failed[side] = answer["failed"]
            if "refused" in answer:
                comparison.missing[side] = answer["refused"]
            return answer

        for worker in self.workers.values():
            worker.send(do="setup", label=comparison.label)
        for side in self.workers:
            receive(side)
        if comparison.failed or comparison.missing:
            return {}
        times: dict[str, list[float]] = {side: [] for side in self.workers}
        turns = 1 if ".track_" in comparison.label else MOST_TURNS
        sides, begun = list(self.workers), time.perf_counter()
        for turn in range(turns):
            for side in sides if turn % 2 else reversed(sides):
                self.workers[side].send(do="burst", seconds=TURN_SECONDS)
                answer = receive(side)
                if comparison.failed or comparison.missing:
                    return {}
                times[side].append(answer["value"])
            comparison.settled = turns == 1 or all(map(settled, times.values()))
            if comparison.settled or (turn >= 3 and time.perf_counter() - begun > MOST_SECONDS):
                break
        return {side: min(values) for side, values in times.items()}


def settled(times: Sequence[float]) -> bool:
    """Whether the best of these times is one that comes back: three of at least four are within 2 % of it."""
    best = min(times)
    return len(times) >= 4 and sum(t <= 1.02 * best for t in times) >= 3


Report = Callable[[str, Sequence[Comparison]], Iterable[Comparison]]


def compare(sides: dict[str, Side], chosen: Callable[[str], bool], factor: float, report: Report) -> list[Comparison]:
    """Every chosen benchmark once; what looks slower, again in new processes."""
    with Pair(sides) as pair:
        comparisons = [Comparison(label) for label in pair.labels() if chosen(label)]
        if not comparisons:
            raise CannotMeasure("no benchmark is of that name")
        for comparison in report("comparing", comparisons):
            pair.measure(comparison)
    confirm(sides, comparisons, factor, report)
    return comparisons


def confirm(sides: dict[str, Side], comparisons: Sequence[Comparison], factor: float, report: Report) -> None:
    """Measures what looks slower again, each time in new processes."""
    for confirmation in range(CONFIRMATIONS):
        suspects = [c for c in comparisons if c.suspicious(factor)]
        if not suspects:
            break
        with Pair(sides) as pair:
            for comparison in report(f"again ({confirmation + 1} of {CONFIRMATIONS})", suspects):
                pair.measure(comparison)


# ---- the command


def seconds(value: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def show(comparisons: Sequence[Comparison], factor: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, justify in (("benchmark", "left"), ("base", "right"), ("head", "right"), ("ratio", "right"), ("", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    colours = {"slower": "bold red", "failed": "bold red", "faster": "green", "new": "dim"}
    for c in sorted(comparisons, key=lambda c: -c.ratio if c.pairs else -float("inf")):
        verdict = c.verdict(factor)
        if verdict == "n/a":
            continue
        show = (lambda v: f"{v:,.0f} B") if "workspace" in c.label else seconds
        figures = (show(c.base), show(c.head), f"{c.ratio:.3f}") if c.pairs else ("", "", "")
        reason = "; ".join(f"{side}: {why}" for side, why in {**c.missing, **c.failed}.items())
        text = {"same": "", "faster": "seems faster", "new": "new", "failed": f"failed: {reason}"}.get(verdict, verdict)
        table.add_row(c.label.replace("[", "\\["), *figures, text.replace("[", "\\["), style=colours.get(verdict))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def summary(comparisons: Sequence[Comparison], factor: float, took: float) -> str:
    verdicts = [c.verdict(factor) for c in comparisons]
    again = sum(len(c.pairs) > 1 for c in comparisons)
    parts = [
        f"{sum(bool(c.pairs) for c in comparisons)} benchmarks compared in {took:.0f} s, {again} of them measured again",
        f"{verdicts.count('slower')} slower by more than {factor:g}",
        f"{verdicts.count('faster')} seemingly faster",
    ]
    for verdict, text in (("failed", "could not be measured"), ("new", "new (not compared)")):
        if verdict in verdicts:
            parts.append(f"{verdicts.count(verdict)} {text}")
    return ", ".join(parts)


def as_json(comparisons: Sequence[Comparison], commits: dict[str, str], factor: float, took: float) -> dict[str, Any]:
    return {
        **commits,
        "factor": factor,
        "seconds": round(took, 1),
        "status": status(comparisons, factor),
        "benchmarks": [
            {
                "name": c.label,
                "verdict": c.verdict(factor),
                **({"base": c.base, "head": c.head, "ratio": c.ratio, "pairs": c.pairs} if c.pairs else {}),
                **({"missing": c.missing} if c.missing else {}),
                **({"failed": c.failed} if c.failed else {}),
            }
            for c in comparisons
            if c.verdict(factor) != "n/a"
        ],
    }


def report(title: str, comparisons: Sequence[Comparison]) -> Iterator[Comparison]:
    """Progress on the standard error output."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(comparisons, title, console=console, transient=True)
    else:
        print(f"{title}: {len(comparisons)} benchmarks", file=sys.stderr, flush=True)
        yield from comparisons


@contextmanager
def exported(commits: dict[str, str]) -> Iterator[dict[str, Side]]:
    with tempfile.TemporaryDirectory(prefix="fastops-gate-") as scratch:
        yield {side: Side(export(commit, Path(scratch) / side)) for side, commit in commits.items()}


def selection(only: str | None, everything: bool) -> Callable[[str], bool]:
    """Which names are chosen: by a regular expression of the user's among all, all, or the fast subset."""
    try:
        wanted = re.compile(only if only is not None else "" if everything else fast.pattern())
    except re.error as e:
        raise CannotMeasure(f"--only {only}: not a regular expression: {e}") from None
    return lambda label: bool(wanted.search(label))


def factor_of(text: str) -> float:
    value = float(text)
    if not value > 1:
        raise argparse.ArgumentTypeError(f"must be above 1, got {text}")
    return value


def parser() -> argparse.ArgumentParser:
    summary_line, _, rest = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m asv_bench.gate", description=summary_line.partition(": ")[2], epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("base", metavar="BASE", help="the commit to compare with")
    p.add_argument("head", metavar="HEAD", nargs="?", help="the commit in question (default: the one checked out)")
    p.add_argument("--factor", type=factor_of, default=1.1, help="how many times longer counts as slower (default: %(default)s)")
    p.add_argument("--only", metavar="REGEX", help="benchmarks whose name, with parameters, contains this, of all there are")
    p.add_argument("--all", action="store_true", help="every benchmark, not only the fast subset (asv_bench/fast.py)")
    p.add_argument("--json", type=Path, default=ROOT / ".asv" / "gate.json", metavar="FILE", help="where the figures go (default: .asv/gate.json)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    begun = time.perf_counter()
    try:
        chosen = selection(options.only, options.all)
        commits = {"base": commit_of(options.base), "head": commit_of(options.head or "HEAD")}
        if options.head is None:
            refuse_uncommitted()
        with exported(commits) as sides:
            comparisons = compare(sides, chosen, options.factor, report)
    except CannotMeasure as e:
        print(f"gate: {e}", file=sys.stderr)
        return UNMEASURED
    took = time.perf_counter() - begun
    show(comparisons, options.factor)
    print(summary(comparisons, options.factor, took))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(comparisons, commits, options.factor, took), indent=1) + "\n")
    print(f"figures: {options.json}")
    return status(comparisons, options.factor)


if __name__ == "__main__":
    raise SystemExit(main())
