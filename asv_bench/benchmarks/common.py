"""What every benchmark file uses: the best-of clock and the settings that go with it, and the table-driven benchmark."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

# The smoke run replaces every shape with a small one and every burst with a single call.
TINY = os.environ.get("FASTOPS_BENCH_TINY") == "1"


# Shorter calls are timed by the group: reading the clock takes about 50 ns, and would hide part of a slowdown.
GROUP_SECONDS = 20e-6


def best_of(function: Callable[[], Any], *, times: int, least: float = 0.0, most: float = float("inf")) -> float:
    """Seconds of the fastest call (of the fastest group of short calls).

    Measures ``times`` times and for ``least`` seconds, but stops after ``most`` seconds once it has three. A mean takes in
    everything else that the machine does: comparing a commit with itself then raises false alarms.
    """
    calls, best, done, begun = 1, float("inf"), 0, time.perf_counter()
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            function()
        end = time.perf_counter()
        best, done = min(best, (end - start) / calls), done + 1
        if (done >= times and end - begun >= least) or (done >= 3 and end - begun >= most):
            return best
        if done <= 3:  # the first calls tell how many make a group
            calls = max(1, int(GROUP_SECONDS / best))


class BestClock:
    """A clock that stands still, but for ``run``, which advances it by the best time of a burst of calls.

    asv times with whatever clock a benchmark's ``timer`` attribute is, so a sample of it becomes the best of the burst.
    """

    def __init__(self, calls: int = 30, least: float = 0.02, seconds: float = 0.5) -> None:
        self.calls, self.least, self.seconds, self._now = calls, least, seconds, 0.0

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def least_of(self, times: int, measure: Callable[[], float]) -> None:
        """For what is measured elsewhere, such as in a process of its own: ``measure`` returns the seconds."""
        self.advance(min(measure() for _ in range(1 if TINY else times)))

    def run(self, function: Callable[[], Any]) -> None:
        self.advance(best_of(function, times=1) if TINY else best_of(function, times=self.calls, least=self.least, most=self.seconds))


class Timed:
    """A benchmark whose ``time_`` functions hand what they time to ``self.timer.run``.

    Eight samples: asv flags nothing below seven. One thread: on a machine that others use too, two of them vary by half.
    """

    timer = BestClock()
    rounds, repeat, number, warmup_time = 4, 2, 1, 0.0
    timeout = 300


_memos: list[Any] = []


def memo(function: Callable[..., Any]) -> Any:
    """Remembers the last result: asv calls ``setup`` before every sample."""
    remembered = lru_cache(maxsize=1)(function)
    _memos.append(remembered)
    return remembered


def forget() -> None:
    """Lets go of what ``memo`` remembers, in a process that runs one benchmark after another."""
    for remembered in _memos:
        remembered.cache_clear()


def one_thread() -> None:
    """Also NumPy's and others' BLAS run on one thread, by the variables in asv.conf.json."""
    import fastops

    fastops.set_num_threads(1)


Make = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class Case:
    """A call to be measured.

    Attributes:
        op: the operation's public name.
        arrays: its array arguments by name: a shape (normal numbers), a list of shapes, or ``make(rng)`` for anything else.
        options: its other arguments.
        tiny: what replaces entries of ``arrays`` and ``options`` in the smoke run; None cuts every extent down to 16.
        torch: the same call in PyTorch for ``python -m asv_bench.beside``: ``torch(F, tensors, options)``; by default
            ``getattr(F, op)(**tensors, **options)``; None where PyTorch has no such operation.
        data: array arguments of which no gradient is wanted, as of a network's input.
    """

    op: str
    arrays: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] | None = None
    torch: Callable[..., Any] | str | None = "same"
    data: tuple[str, ...] = ()

    def arguments(self, dtype: str = "float32") -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and options."""
        tiny = (self.tiny or {}) if TINY else {}
        rng = np.random.default_rng(0)

        def make(name: str, value: Any) -> Any:
            if callable(value):
                made = value(rng)
                return made.astype(dtype) if isinstance(made, np.ndarray) and made.dtype.kind == "f" else made
            if isinstance(value, list):
                return [make(name, one) for one in value]
            shape = tuple(min(n, 16) for n in value) if TINY and self.tiny is None else value
            return rng.standard_normal(shape).astype(dtype)

        arrays = {name: make(name, tiny.get(name, value)) for name, value in self.arrays.items()}
        return arrays, {name: tiny.get(name, value) for name, value in self.options.items()}


def calls(case: Case, dtype: str = "float32") -> tuple[Callable[[], Any], Callable[[], Any] | None]:
    """The forward and the backward call of fastops; the second None where there is no gradient."""
    import fastops
    from fastops import _op

    arrays, options = case.arguments(dtype)
    forward = getattr(fastops, case.op, None)
    if forward is None:
        raise NotImplementedError(f"this fastops has no {case.op}")
    op = _op.get(forward)
    if op.backward is None:
        return (lambda: forward(**arrays, **options)), None
    output, kept = op.record(**arrays, **options) if op.record else (forward(**arrays, **options), {})
    rng = np.random.default_rng(1)

    def cotangent(y: Any) -> Any:
        if isinstance(y, tuple):
            return tuple(cotangent(one) for one in y)
        return rng.standard_normal(y.shape).astype(y.dtype) if y is not None and y.dtype.kind == "f" else None

    grad_output, backward = cotangent(output), op.backward
    given = {**arrays, **options, **kept}
    if case.data:
        given["output_mask"] = tuple(name not in case.data for name in arrays)
    return (lambda: forward(**arrays, **options)), (lambda: backward(grad_output, **given))


def benchmarks(cases: Mapping[str, Case]) -> tuple[type, type]:
    """The classes ``Forward`` and ``Backward`` of a family: one benchmark for each named case."""

    @memo
    def warm(name: str) -> tuple[Callable[[], Any], Callable[[], Any] | None]:
        one_thread()
        forward, backward = calls(cases[name])
        forward()
        if backward is not None:
            backward()
        return forward, backward

    class Forward(Timed):
        param_names = ("case",)
        params = (tuple(cases),)

        def setup(self, case: str) -> None:
            self.run = warm(case)[0]

        def time_forward(self, case: str) -> None:
            self.timer.run(self.run)

    class Backward(Timed):
        param_names = ("case",)
        params = (tuple(cases),)

        def setup(self, case: str) -> None:
            backward = warm(case)[1]
            if backward is None:
                raise NotImplementedError("no gradient")
            self.run = backward

        def time_backward(self, case: str) -> None:
            self.timer.run(self.run)

    module = sys._getframe(1).f_globals["__name__"]  # asv takes classes from the module that they say they are of
    Forward.__module__ = Backward.__module__ = module
    return Forward, Backward
