"""Learning rates as functions of the number of steps before: ``cosine(0.1, 1000)(500) == 0.05``.

An optimizer takes one as ``lr``. The numbers are those of ``torch.optim.lr_scheduler`` where its ``step`` is called after every
step of the optimizer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import cos, pi
from typing import Any

from fastops import _check
from fastops.optim.optimizer import Schedule
from fastops.optim.rules import learning_rate


def constant(lr: float) -> Schedule:
    """Always the same.

    >>> constant(0.1)(1000)
    0.1
    """
    rate = _rate("constant", "lr", lr)
    return lambda step: rate


def step_decay(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """``lr`` times ``gamma`` for each ``step_size`` steps that are over (torch's StepLR).

    >>> schedule = step_decay(1.0, 10, gamma=0.5)
    >>> schedule(9), schedule(10), schedule(20)
    (1.0, 0.5, 0.25)
    """
    rate, size, gamma = _rate("step_decay", "lr", lr), _check.integer("step_decay", "step_size", step_size, 1), _check.real("step_decay", "gamma", gamma)
    return lambda step: rate * gamma ** (step // size)


def cosine(lr: float, total_steps: int, eta_min: float = 0.0) -> Schedule:
    """From ``lr`` down to ``eta_min`` along half a wave; it stays there after ``total_steps``.

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (ICLR 2017), equation 5.

    >>> schedule = cosine(1.0, 100)
    >>> schedule(0), round(schedule(50), 12), schedule(100), schedule(101)
    (1.0, 0.5, 0.0, 0.0)
    """
    rate, end, low = _rate("cosine", "lr", lr), _check.integer("cosine", "total_steps", total_steps, 1), _rate("cosine", "eta_min", eta_min)
    return lambda step: low + (rate - low) * (1 + cos(pi * min(step, end) / end)) / 2


def linear_warmup(lr: float | Schedule, steps: int = 5, start_factor: float = 1 / 3) -> Schedule:
    """In ``steps`` steps from ``start_factor`` of a learning rate to all of it; then that, or the schedule from its beginning.

    >>> schedule = linear_warmup(cosine(1.0, 100), 4, start_factor=0.2)
    >>> [round(schedule(step), 6) for step in (0, 1, 2, 3, 4, 54, 104)]
    [0.2, 0.4, 0.6, 0.8, 1.0, 0.5, 0.0]
    """
    op = "linear_warmup"
    rate, count = learning_rate(op, lr), _check.integer(op, "steps", steps, 0)
    factor = _check.probability(op, "start_factor", start_factor)
    after: Schedule = rate if callable(rate) else constant(rate)
    return lambda step: after(step - count) if step >= count else after(0) * (factor + (1 - factor) * step / count)


def one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Up from ``max_lr / div_factor`` to ``max_lr``, and down to the first divided by ``final_div_factor``.

    Args:
        max_lr: the largest learning rate, after ``pct_start`` of the steps.
        total_steps: steps of the cycle; the last learning rate holds after them.
        pct_start: the part of the steps in which it rises.
        anneal_strategy: "cos" or "linear".
        div_factor: how much smaller the first learning rate is.
        final_div_factor: how much smaller than the first the last one is.
        three_phase: come down to the first as steeply as up, and only then further.

    Source: Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates" (arXiv:1708.07120).

    >>> schedule = one_cycle(1.0, 100)
    >>> [float(f"{schedule(step):.6g}") for step in (0, 29, 99)]
    [0.04, 1.0, 4e-06]
    """
    op = "one_cycle"
    top, count = _rate(op, "max_lr", max_lr), _check.integer(op, "total_steps", total_steps, 1)
    rising = _check.probability(op, "pct_start", pct_start)
    _check.choice(op, "anneal_strategy", anneal_strategy, ("cos", "linear"))
    for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        if not _check.real(op, name, value) > 0:
            raise ValueError(f"{op}: {name} must be above 0, got {value!r}")
    first = top / div_factor
    last = first / final_div_factor
    if three_phase:
        phases = [(rising * count - 1, first, top), (2 * rising * count - 2, top, first), (count - 1, first, last)]
    else:
        phases = [(rising * count - 1, first, top), (count - 1, top, last)]

    def schedule(step: int) -> float:
        begin = 0.0
        for end, low, high in phases:
            if step <= end:
                # a phase that ends where it begins has only its end
                done = (step - begin) / (end - begin) if end > begin else 1.0
                return high + (low - high) / 2 * (cos(pi * done) + 1) if anneal_strategy == "cos" else (high - low) * done + low
            begin = end
        return last

    return schedule


def sequential(schedules: Sequence[Schedule], milestones: Sequence[int]) -> Schedule:
    """One schedule after another, each from its beginning, the next one from each milestone on.

    >>> schedule = sequential([constant(0.1), cosine(1.0, 10)], [5])
    >>> schedule(4), schedule(5)
    (0.1, 1.0)
    """
    for name, value in (("schedules", schedules), ("milestones", milestones)):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"sequential: {name} must be a list or tuple, got {type(value).__name__}")
    for index, one in enumerate(schedules):
        if not callable(one):
            raise TypeError(f"sequential: schedules[{index}] must be a schedule, got {one!r}")
    starts = [_check.integer("sequential", f"milestones[{index}]", one, 0) for index, one in enumerate(milestones)]
    if len(schedules) != len(starts) + 1 or starts != sorted(starts):
        raise ValueError(f"sequential: milestones must be one fewer than schedules, and rising, got {list(milestones)} for {len(schedules)}")
    after = [0, *starts]

    def schedule(step: int) -> float:
        index = bisect_right(starts, step)
        return schedules[index](step - after[index])

    return schedule


def _rate(op: str, name: str, value: Any) -> float:
    rate = _check.real(op, name, value)
    if not rate >= 0:
        raise ValueError(f"{op}: {name} must be at least 0, got {value!r}")
    return rate
