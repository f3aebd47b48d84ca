"""The ordered list of strategies, and how one is chosen."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from fastops.ops.conv import depthwise, folded, im2col, implicit, naive, pointwise
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy

__all__ = ["STRATEGIES", "ConvSpec", "Plan", "Strategy", "choose", "plan", "select"]

# Among equal costs the first one wins. naive is last: it accepts everything.
STRATEGIES: tuple[Strategy, ...] = (
    pointwise.STRATEGY,
    depthwise.STRATEGY,
    folded.STRATEGY,
    implicit.STRATEGY,
    im2col.STRATEGY,
    naive.STRATEGY,
)

# Costs are compared for the machine's core count, never for the number of threads in use: the choice, and with it every
# bit of the result, must not depend on that.
CORES = os.cpu_count() or 1


def predict(strategy: Strategy, spec: ConvSpec, direction: str, threads: int, *, prepared: bool) -> float:
    """Nanoseconds that an accepting strategy should take, with weights that are prepared ahead or not."""
    return strategy.cost(spec, direction, threads) - (strategy.ahead(spec) / threads if prepared else 0.0)


def choose(spec: ConvSpec, direction: str, threads: int, *, prepared: bool = False) -> Strategy:
    """The strategy that accepts and has the lowest predicted cost, with weights that are prepared ahead or not."""
    # With nothing to multiply there is only a result to fill, and no fast kernel should have to think of it.
    if spec.empty:
        return STRATEGIES[-1]
    accepting = [s for s in STRATEGIES if s.accepts(spec, direction) is None]
    return min(accepting, key=lambda s: predict(s, spec, direction, threads, prepared=prepared))


def select(op: str, name: str, spec: ConvSpec, direction: str, *, prepared: bool = False) -> Strategy:
    """The strategy that the user asked for: by name, or "auto"."""
    named = next((s for s in STRATEGIES if s.name == name), None)
    if named is None and name != "auto":
        names = ", ".join(repr(s.name) for s in STRATEGIES)
        raise ValueError(f"{op}: strategy must be one of 'auto', {names}, got {name!r}")
    if named is None or spec.empty:
        return choose(spec, direction, CORES, prepared=prepared)
    reason = named.accepts(spec, direction)
    if reason is not None:
        raise ValueError(f"{op}: strategy must accept this convolution ({direction}), got {name!r}: {reason}")
    return named


@lru_cache(maxsize=1024)
def plan(strategy: Strategy, spec: ConvSpec, direction: str, activation: int = 0, *, prepared: bool = False) -> Any:
    """The plan of a strategy for a direction (for "grad_weight" the function that runs it), built once."""
    if prepared and direction == "forward" and strategy.prepared is not None:
        return strategy.prepared(spec, activation)
    if direction == "grad_weight":
        return strategy.grad_weight(spec)
    return getattr(strategy, direction)(spec, activation)
