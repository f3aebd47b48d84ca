"""The asv benchmarks: all of them run, on shapes that exist, with a clock that tells the best of a burst."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from asv_bench import alarm_rate, catalogue, fast, gate, pages
from asv_bench.benchmarks import common, shapes
from asv_bench.benchmarks.common import BestClock, best_of, forget, memo
from asv_bench.gate import FINE, SLOWER, UNMEASURED, Comparison
from asv_bench.worker import Died
from fastops.cli.shapes import SHAPES

ROOT = Path(__file__).parent.parent


def test_shapes_are_published_ones():
    named = {*shapes.CONV_NAMES, *shapes.SEPARABLE_NAMES, *shapes.SEPARABLE_NAMES.values(), *shapes.WINDOW_NAMES}
    assert named <= set(SHAPES)
    assert len({SHAPES[n].network for n in shapes.CONV_NAMES}) > 3


def test_the_clock_advances_by_the_best_call():
    clock, waits = BestClock(calls=4), iter([0.03, 0.01, 0.03, 0.02])
    before = clock()
    clock.run(lambda: time.sleep(next(waits)))
    assert 0.01 <= clock() - before < 0.02
    assert clock() == clock()


def test_short_calls_are_timed_by_the_group(monkeypatch):
    now, calls = 0.0, 0

    def count() -> None:
        nonlocal now, calls
        now, calls = now + 1e-7, calls + 1

    monkeypatch.setattr(common, "time", SimpleNamespace(perf_counter=lambda: now))
    assert best_of(count, times=5) == pytest.approx(1e-7)
    assert calls > 500  # a call takes far less than a group, and groups were made of the first measurement on


def test_timing_stops():
    start = time.perf_counter()
    best_of(lambda: time.sleep(0.01), times=1000, most=0.05)
    assert time.perf_counter() - start < 5


def test_memo_remembers_the_last_until_told_to_forget():
    made = []
    make = memo(lambda n: made.append(n))
    make(1), make(1), make(2), make(2)
    assert made == [1, 2]
    forget()
    make(2)
    assert made == [1, 2, 2]


class TestCatalogue:
    def test_the_fast_subset_names_benchmarks_of_every_kind(self):
        found, broken = catalogue.find()
        assert broken == {}
        labels = [b.label for b in found]
        assert len(set(labels)) == len(labels)
        for pattern in fast.FAST:
            assert any(re.search(pattern, label) for label in labels) or pattern.startswith(r"^models"), pattern
        chosen = [b for b in found if re.search(fast.pattern(), b.label)]
        assert all(b.gated for b in chosen)
        assert 40 <= len(chosen) <= 60  # about 5 s each in asv, and five minutes for all

    def test_throughput_and_other_peoples_code_are_not_gated(self):
        gated = {b.label for b in catalogue.find()[0] if b.gated}
        assert not any("track_gflops" in label or "'numpy'" in label or "'scipy'" in label for label in gated)
        assert "gemm.Gemm.time_gemm('fastops', 256, 'float32')" in gated


class FakePair:
    """Processes whose times stand in ``script``: by label, for each pair of processes one (base, head), the last one again."""

    def __init__(self, script: dict, started: list) -> None:
        self.script, self.started = script, started

    def __call__(self, sides: dict) -> FakePair:
        self.started.append([])
        return self

    def __enter__(self) -> FakePair:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def labels(self) -> list[str]:
        return list(self.script)

    def measure(self, comparison: Comparison) -> None:
        self.started[-1].append(comparison.label)
        times = self.script[comparison.label]
        if isinstance(times, dict):
            (comparison.missing if times.pop("missing", False) else comparison.failed).update(times)
            return
        comparison.pairs.append(times[min(len(comparison.pairs), len(times) - 1)])
        comparison.settled = True


@pytest.fixture
def run_gate(monkeypatch, tmp_path):
    """The command with times of our choice; returns its status, its JSON and what each pair of processes measured."""

    def run(script: dict, *arguments: str):
        started: list[list[str]] = []
        monkeypatch.setattr(gate, "Pair", FakePair(script, started))
        monkeypatch.setattr(gate, "commit_of", lambda revision: revision)
        monkeypatch.setattr(gate, "export", lambda commit, folder: folder)
        file = tmp_path / "gate.json"
        status = gate.main(["base", "head", "--all", "--json", str(file), *arguments])
        return status, json.loads(file.read_text()), started

    return run


class TestGate:
    def test_the_same_on_both_sides_is_fine_and_measured_once(self, run_gate, capsys):
        status, figures, started = run_gate({"a": [(1.0, 1.0)], "b": [(2.0, 2.08)], "c": [(1.0, 0.5)]})
        assert status == FINE == 0
        assert started == [["a", "b", "c"]]
        assert [b["verdict"] for b in figures["benchmarks"]] == ["same", "same", "faster"]
        assert "3 benchmarks compared" in capsys.readouterr().out

    def test_slower_every_time(self, run_gate, capsys):
        status, figures, started = run_gate({"a": [(1.0, 1.0)], "slow": [(1.0, 1.2)]})
        assert status == SLOWER == 1
        assert started == [["a", "slow"]] + [["slow"]] * 2
        (slow,) = (b for b in figures["benchmarks"] if b["name"] == "slow")
        assert slow["verdict"] == "slower"
        assert slow["ratio"] == pytest.approx(1.2)
        assert len(slow["pairs"]) == 3
        assert figures["status"] == 1
        assert "1.200" in capsys.readouterr().out

    def test_what_is_near_the_factor_is_measured_more_often(self, run_gate):
        status, _, started = run_gate({"slow": [(1.0, 1.12)]})
        assert status == SLOWER
        assert started == [["slow"]] * (1 + gate.CONFIRMATIONS)

    def test_slower_once_is_a_false_alarm(self, run_gate):
        status, figures, started = run_gate({"a": [(1.0, 1.5), (1.0, 1.01)]})
        assert status == FINE
        assert started == [["a"], ["a"]]
        assert figures["benchmarks"][0]["ratio"] == pytest.approx(1.01)

    def test_one_lucky_process_of_base_is_a_false_alarm(self, run_gate):
        assert run_gate({"a": [(0.8, 1.0), (1.0, 1.0)]})[0] == FINE

    def test_one_unlucky_process_hides_nothing(self, run_gate):
        assert run_gate({"a": [(1.0, 1.2), (1.5, 1.2), (1.0, 1.9), (1.0, 1.2)]})[0] == SLOWER

    def test_just_below_and_above_the_factor(self, run_gate):
        assert run_gate({"a": [(1.0, 1.09)]})[0] == FINE
        assert run_gate({"a": [(1.0, 1.11)]})[0] == SLOWER
        assert run_gate({"a": [(1.0, 1.11)]}, "--factor", "1.2")[0] == FINE
        assert run_gate({"a": [(1.0, 1.25)]}, "--factor", "1.2")[0] == SLOWER

    def test_a_benchmark_that_head_has_no_more(self, run_gate, capsys):
        status, figures, _ = run_gate({"a": [(1.0, 1.0)], "gone": {"missing": True, "head": "this fastops has no gone"}})
        assert status == UNMEASURED
        assert figures["benchmarks"][1]["verdict"] == "failed"
        assert "head: this fastops has no gone" in capsys.readouterr().out

    def test_what_neither_side_takes_is_left_out(self, run_gate):
        status, figures, _ = run_gate({"a": [(1.0, 1.0)], "b": {"missing": True, "base": "refused", "head": "refused"}})
        assert status == FINE
        assert [b["name"] for b in figures["benchmarks"]] == ["a"]

    def test_a_benchmark_that_fails(self, run_gate, capsys):
        status, figures, _ = run_gate({"a": [(1.0, 1.0)], "bad": {"head": "ValueError: boom"}})
        assert status == UNMEASURED == 2
        assert figures["benchmarks"][1] == {"name": "bad", "verdict": "failed", "failed": {"head": "ValueError: boom"}}
        out = capsys.readouterr().out
        assert "boom" in out
        assert "1 benchmarks compared" in out
        assert "1 could not be measured" in out

    def test_slower_is_said_even_if_another_failed(self, run_gate):
        assert run_gate({"a": [(1.0, 2.0)], "bad": {"base": "ValueError: boom"}})[0] == SLOWER

    def test_a_new_benchmark_is_named_but_nothing_to_compare_with(self, run_gate, capsys):
        status, _, _ = run_gate({"a": [(1.0, 1.0)], "new": {"missing": True, "base": "this fastops has no new"}})
        assert status == FINE
        assert "1 new (not compared)" in capsys.readouterr().out
        assert run_gate({"new": {"missing": True, "base": "this fastops has no new"}})[0] == UNMEASURED

    def test_only(self, run_gate, capsys):
        script = {"conv.a": [(1.0, 1.0)], "pool.b": [(1.0, 2.0)]}
        assert run_gate(script, "--only", "^conv")[0] == FINE
        assert gate.main(["base", "head", "--only", "nothing"]) == UNMEASURED
        assert "no benchmark is of that name" in capsys.readouterr().err
        assert gate.main(["base", "head", "--only", "("]) == UNMEASURED
        assert "not a regular expression" in capsys.readouterr().err

    @pytest.mark.parametrize("factor", ["1", "0.9", "x", "nan"])
    def test_bad_factor(self, factor):
        with pytest.raises(SystemExit) as stop:
            gate.main(["HEAD", "--factor", factor])
        assert stop.value.code == UNMEASURED

    def test_settled(self):
        assert not gate.settled([1.0, 1.0, 1.0])
        assert gate.settled([1.5, 1.0, 1.01, 1.02])
        assert not gate.settled([1.0, 1.5, 1.5, 1.5, 1.5])

    def test_what_does_not_settle_is_measured_again(self):
        comparison = Comparison("a", [(1.0, 1.0)], settled=False)
        assert comparison.suspicious(1.1)
        comparison.pairs.append((1.0, 1.0))
        assert not comparison.suspicious(1.1)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Commits of this fastops: as it is, with slow kernels, and one that cannot be imported."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "fastops", root / "fastops", ignore=shutil.ignore_patterns("__pycache__"))

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e@localhost", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)

    def commit(tag: str) -> None:
        git("add", "-A")
        git("commit", "-m", tag)
        git("tag", tag)

    git("init")
    commit("good")
    alarm_rate.slow_down(root, 200)
    commit("slow")
    (root / "fastops" / "__init__.py").write_text("raise RuntimeError('of no use')\n")
    commit("broken")
    shutil.rmtree(root / "fastops")
    (root / "readme").write_text("nothing here")
    commit("empty")
    return root


class TestGateForReal:
    @pytest.fixture
    def run(self, repository, monkeypatch, tmp_path):
        monkeypatch.setattr(gate, "ROOT", repository)
        monkeypatch.delenv("FASTOPS_BENCH_TINY", raising=False)
        return lambda *arguments: gate.main(["--json", str(tmp_path / "gate.json"), *arguments])

    def test_slow_kernels_are_found(self, run, capsys):
        only = ["--only", r"activation\.Forward.*'relu\.8x64x56x56'"]
        assert run("good", "slow", "--factor", "1.5", *only) == SLOWER
        out = capsys.readouterr().out
        assert "slower" in out
        assert "1 benchmarks compared" in out
        assert run("slow", "good", "--factor", "1.5", *only) == FINE

    def test_commits_that_cannot_be_measured(self, run, capsys):
        for head, message in (
            ("broken", "head: fastops cannot be imported"),
            ("empty", "has no folder fastops"),
            ("nowhere", "nowhere: no such commit"),
            ("--output=x", "no such commit"),
        ):
            assert run("--", "good", head) == UNMEASURED
            assert message in capsys.readouterr().err

    def test_uncommitted_changes_are_not_left_out_silently(self, run, repository, capsys):
        (repository / "fastops").mkdir()
        (repository / "fastops" / "new.py").write_text("")
        try:
            assert run("good") == UNMEASURED
            assert "not committed" in capsys.readouterr().err
        finally:
            shutil.rmtree(repository / "fastops")

    def test_a_process_that_dies(self, repository, monkeypatch, tmp_path):
        monkeypatch.setattr(gate, "ROOT", repository)
        with gate.exported({"base": "good", "head": "good"}) as sides, gate.Pair(sides) as pair:
            comparison = Comparison("activation.Forward.time_forward('relu.64x64')")
            pair.workers["head"].process.kill()
            pair.measure(comparison)
            assert comparison.verdict(1.1) == "failed"
            assert "the process ended" in comparison.failed["head"]
            again = Comparison("activation.Forward.time_forward('relu.64x64')")
            pair.measure(again)  # in new processes
            assert len(again.pairs) == 1
        with pytest.raises(Died):
            gate.Side(tmp_path).start().ask(do="list")


class TestAlarmRate:
    def test_rates(self):
        def row(percent: int, head: float) -> dict:
            return {"percent": percent, "label": "a", "pairs": [[1.0, head]]}

        rows = [row(0, 1.0)] * 99 + [row(0, 1.3)] + [row(20, 1.2)] * 20 + [row(15, 1.15)] * 9 + [row(15, 1.05)]
        found = alarm_rate.rates(rows, 1.1)
        assert (found[0].flagged, found[0].total) == (1, 100)
        assert (found[20].flagged, found[20].total) == (20, 20)
        assert found[15].percent == 90
        assert alarm_rate.smallest_found(found) == 20
        assert alarm_rate.smallest_found({0: found[0]}) is None

    def test_interval(self):
        low, high = alarm_rate.Rate(0, 380).interval()
        assert low == 0
        assert high == pytest.approx(1.0, abs=0.01)  # as in tables of Wilson's interval
        assert alarm_rate.Rate(5, 10).interval() == pytest.approx((23.66, 76.34), abs=0.01)

    def test_the_slowdown_fits_the_source(self, tmp_path):
        (tmp_path / "fastops").mkdir()
        source = tmp_path / "fastops" / "_jit.py"
        shutil.copy(ROOT / "fastops" / "_jit.py", source)
        alarm_rate.slow_down(tmp_path, 20)
        compile(source.read_text(), "_jit.py", "exec")
        with pytest.raises(gate.CannotMeasure):
            alarm_rate.slow_down(tmp_path, 20)


class TestPages:
    def test_every_script_of_another_host_is_replaced(self):
        www = pytest.importorskip("asv", reason="asv is not installed").__path__[0]
        html, needed = pages.local((Path(www) / "www" / "index.html").read_text())
        assert sorted(needed) == sorted(pages.SCRIPTS)
        assert not re.search(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css)"', html)
        assert "integrity" not in html

    def test_one_that_is_not_known_is_an_error(self):
        with pytest.raises(pages.CannotMake, match=r"other\.js"):
            pages.local('<script src="https://example.org/other.js"></script>')


def test_configuration_points_at_the_benchmarks():
    configuration = json.loads((ROOT / "asv.conf.json").read_text())
    assert (ROOT / configuration["benchmark_dir"] / "conv.py").is_file()
    assert configuration["default_benchmark_timeout"] >= 300
    assert {"numpy", "numba"} <= set(configuration["matrix"]["req"])
