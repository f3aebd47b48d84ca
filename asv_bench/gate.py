"""``python -m asv_bench.gate BASE [HEAD]``: is HEAD slower than BASE? Both are timed in turns, so that the machine's moods meet both.

Each commit's fastops is taken out of git into a folder of its own and imported by a process of its own; the benchmarks are
those of this checkout. The two processes take turns of a few milliseconds, one thread each, and the best call counts. What
looks slower is measured again in new pairs of processes, since where a process happens to put code and data makes as much of
a difference as a real change. It counts as slower when the best times of all pairs say so and the median pair does too.

Exit status: 0 nothing is slower, 1 something is, 2 it could not be measured.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
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

# One pair of processes finds what looks slower, up to three more confirm it.
CONFIRMATIONS = 3


class CannotMeasure(Exception):
    """The message says why, and what to do."""


@dataclass
class Comparison:
    """What is known of one benchmark: for each pair of processes the best time of base and of head, or why there is none."""

    label: str
    pairs: list[tuple[float, float]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

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
        """Whether to measure again. From half the factor on: one pair of processes may flatter the slower side."""
        return bool(self.pairs) and self.ratio > 1 + (factor - 1) / 2

    def slower(self, factor: float) -> bool:
        return bool(self.pairs) and self.ratio > factor and statistics.median(ratio(*pair) for pair in self.pairs) > factor

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


class Pair:
    """A process of base and one of head that take turns."""

    def __init__(self, folders: dict[str, Path], extra: dict[str, str] | None = None) -> None:
        self.folders, self.extra = folders, extra
        self.workers = {side: Worker(folder, extra) for side, folder in folders.items()}

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
        for side, worker in self.workers.items():
            try:
                answer = worker.receive()
            except Died as e:
                raise CannotMeasure(f"{side}: fastops cannot be imported: {e}") from None
            for name, error in answer["broken"].items():
                raise CannotMeasure(f"{side}: benchmarks/{name}.py cannot be imported: {error.strip().splitlines()[-1]}")
            found.update(dict.fromkeys(answer["labels"]))
        return list(found)

    def measure(self, comparison: Comparison) -> None:
        """Adds the best times of base and head, or the reason why there are none."""
        try:
            times = self._times(comparison)
        except Died:
            self.close()
            self.workers = {side: Worker(folder, self.extra) for side, folder in self.folders.items()}
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
        best = dict.fromkeys(self.workers, float("inf"))
        begun, turns = time.perf_counter(), 0
        sides = list(self.workers)
        while turns < 8 and (turns < 3 or time.perf_counter() - begun < 0.8):
            for side in sides if turns % 2 else reversed(sides):
                self.workers[side].send(do="burst", seconds=0.02)
                answer = receive(side)
                if comparison.failed or comparison.missing:
                    return {}
                best[side] = min(best[side], answer["value"])
            turns += 1
            if ".track_" in comparison.label:
                break
        return best


Report = Callable[[str, Sequence[Comparison]], Iterable[Comparison]]


def compare(folders: dict[str, Path], chosen: Callable[[str], bool], factor: float, report: Report) -> list[Comparison]:
    """Every chosen benchmark once; what looks slower, again in new processes."""
    with Pair(folders) as pair:
        comparisons = [Comparison(label) for label in pair.labels() if chosen(label)]
        if not comparisons:
            raise CannotMeasure("no benchmark is of that name")
        for comparison in report("comparing", comparisons):
            pair.measure(comparison)
    for confirmation in range(CONFIRMATIONS):
        suspects = [c for c in comparisons if c.suspicious(factor) and not c.failed]
        if not suspects:
            break
        with Pair(folders) as pair:
            for comparison in report(f"again ({confirmation + 1} of {CONFIRMATIONS})", suspects):
                pair.measure(comparison)
    return comparisons


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
def exported(commits: dict[str, str]) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory(prefix="fastops-gate-") as scratch:
        yield {side: export(commit, Path(scratch) / side) for side, commit in commits.items()}


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
        with exported(commits) as folders:
            comparisons = compare(folders, chosen, options.factor, report)
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
