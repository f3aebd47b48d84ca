"""The asv benchmarks: all of them run, on shapes that exist, with a clock that tells the best of a burst."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from asv_bench.benchmarks import shapes
from asv_bench.benchmarks.common import BestClock
from fastops.cli.shapes import SHAPES

ROOT = Path(__file__).parent.parent


def test_every_benchmark_runs_once():
    done = subprocess.run(
        [sys.executable, "-m", "asv_bench.smoke"],
        cwd=ROOT,
        env={**os.environ, "FASTOPS_BENCH_TINY": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed", done.stdout.splitlines()[-1])


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


def test_configuration_points_at_the_benchmarks():
    configuration = json.loads((ROOT / "asv.conf.json").read_text())
    assert (ROOT / configuration["benchmark_dir"] / "conv.py").is_file()
    assert configuration["default_benchmark_timeout"] >= 300
    assert {"numpy", "numba"} <= set(configuration["matrix"]["req"])
