"""What every benchmark file uses: the best-of clock and the settings that go with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

# The smoke run replaces every shape with a small one and every burst with a single call.
TINY = os.environ.get("FASTOPS_BENCH_TINY") == "1"


class BestClock:
    """A clock that stands still, but for ``run``, which advances it by the best time of a burst of calls.

    asv times with whatever clock a benchmark's ``timer`` attribute is, so a sample of it becomes the best of the burst.
    A mean takes in everything else that the machine does: comparing a commit with itself then raises false alarms.
    """

    def __init__(self, calls: int = 30, seconds: float = 1.0) -> None:
        self.calls, self.seconds, self._now = calls, seconds, 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def run(self, function: Callable[[], Any]) -> None:
        best, begun = float("inf"), time.perf_counter()
        for call in range(1 if TINY else self.calls):
            start = time.perf_counter()
            function()
            end = time.perf_counter()
            best = min(best, end - start)
            if call >= 2 and end - begun > self.seconds:
                break
        self.advance(best)


class Timed:
    """A benchmark whose ``time_`` functions hand what they time to ``self.timer.run``.

    Eight samples: asv flags nothing below seven. One thread: on a machine that others use too, two of them vary by half.
    """

    timer = BestClock()
    rounds, repeat, number, warmup_time = 4, 2, 1, 0.0
    timeout = 300


def one_thread() -> None:
    """Also NumPy's and others' BLAS run on one thread, by the variables in asv.conf.json."""
    import fastops

    fastops.set_num_threads(1)
