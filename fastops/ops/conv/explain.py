"""Which strategies could compute a call, which one does, and why."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastops import _check
from fastops.ops.conv import strategies
from fastops.ops.conv.prepare import PreparedConv2d
from fastops.ops.conv.ready import KINDS, Problem, check_mask, check_problem
from fastops.ops.conv.spec import ConvSpec, Options


@dataclass(frozen=True)
class Row:
    """One strategy in one direction.

    Attributes:
        direction: "forward", "grad_input" or "grad_weight" of the call that is explained.
        name: the strategy's name.
        accepted: whether it can compute this.
        reason: why not, or None.
        cost: predicted nanoseconds, or None.
        workspace: bytes of memory besides inputs and outputs, or None.
        chosen: whether the call runs it.
    """

    direction: str
    name: str
    accepted: bool
    reason: str | None
    cost: float | None
    workspace: int | None
    chosen: bool


@dataclass(frozen=True)
class Explanation:
    """What :func:`explain` found; prints as a table.

    Attributes:
        op: the name of the operation.
        spec: the convolution as strategies see it.
        flops: operations of a direct computation of all directions listed.
        rows: one for each strategy and direction.
    """

    op: str
    spec: ConvSpec
    flops: int
    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        spec = self.spec
        layout = "channels last" if spec.channels_last else "channels first"
        lines = [f"{self.op}: {spec.dtype}, {layout}, {self.flops:,} operations; costs predicted for {strategies.CORES} cores"]
        cells = [("", "direction", "strategy", "predicted", "workspace", "")]
        for row in self.rows:
            cost = "" if row.cost is None else _time(row.cost)
            workspace = "" if row.workspace is None else _bytes(row.workspace)
            cells.append(("*" if row.chosen else "", row.direction, row.name, cost, workspace, row.reason or ""))
        widths = [max(len(line[i]) for line in cells) for i in range(5)]
        for mark, direction, name, cost, workspace, reason in cells:
            texts = [mark.ljust(widths[0]), direction.ljust(widths[1]), name.ljust(widths[2])]
            texts += [cost.rjust(widths[3]), workspace.rjust(widths[4]), reason]
            lines.append("  ".join(texts).rstrip())
        return "\n".join(lines)


def _time(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds / 1e3:.3g} us"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def explain(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """List the strategies for a call of a convolution or of its gradient, without running it.

    Args:
        op: conv1d to conv3d, conv_transpose1d to conv_transpose3d, or one of their ``_backward`` functions.
        args, kwargs: what it would be called with.

    Returns:
        An object whose ``rows`` give for each strategy (and, for gradients, each direction asked for) its name,
        whether it is accepted or else the reason, predicted cost in nanoseconds, workspace in bytes, and whether it is
        the one chosen. It prints as a table.

    Raises:
        TypeError, ValueError: the call would raise them. A named strategy that does not accept is no error here.

    >>> import numpy as np
    >>> from fastops.functional import conv2d
    >>> found = explain(conv2d, np.ones((1, 8, 9, 9)), np.ones((4, 8, 3, 3)), strategy="naive")
    >>> [(row.name, row.accepted) for row in found.rows if row.chosen]
    [('naive', True)]
    """
    problem, arguments = _problem(op, args, kwargs)
    name = op.__name__
    mask = check_mask(name, arguments["output_mask"], 3) if "output_mask" in arguments else None
    parts = ["forward"] if mask is None else [p for p, wanted in zip(("grad_input", "grad_weight"), mask) if wanted]
    named, prepared = arguments["strategy"], arguments["prepared"]
    _check.choice(name, "strategy", named, ["auto", *(s.name for s in strategies.STRATEGIES)])
    rows = [row for part in parts for row in _rows(problem, part, named, prepared)]
    return Explanation(name, problem.spec, len(parts) * problem.spec.flops, tuple(rows))


def _rows(problem: Problem, part: str, named: str, prepared: bool) -> list[Row]:
    spec, direction = problem.spec, problem.direction(part)
    automatic = strategies.choose(spec, direction, strategies.CORES, prepared=prepared)
    rows = []
    for strategy in strategies.STRATEGIES:
        if spec.empty and strategy is not automatic:
            reason: str | None = "there is nothing to multiply"
        else:
            reason = strategy.accepts(spec, direction)
        accepted = reason is None
        cost = strategies.predict(strategy, spec, direction, strategies.CORES, prepared=prepared) if accepted else None
        workspace = strategy.workspace(spec, direction, strategies.CORES) if accepted else None
        chosen = accepted and (strategy is automatic if named == "auto" or spec.empty else strategy.name == named)
        rows.append(Row(part, strategy.name, accepted, reason, cost, workspace, chosen))
    return rows


def flops(op: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Operations of a call of a convolution when computed directly, a multiply-add being two."""
    return _problem(op, args, kwargs)[0].spec.flops


def _problem(op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Problem, dict[str, Any]]:
    name = getattr(op, "__name__", repr(op))
    kind = KINDS.get(name.removesuffix("_backward"))
    if kind is None or not callable(op):
        raise ValueError(f"explain: op must be one of {', '.join(KINDS)} or its _backward function, got {name}")
    bound = inspect.signature(op).bind(*args, **kwargs)
    bound.apply_defaults()
    arguments: dict[str, Any] = bound.arguments
    arguments["prepared"] = isinstance(arguments["weight"], PreparedConv2d)
    if arguments["prepared"]:
        arguments.update(arguments["weight"].attributes, weight=arguments["weight"].weight)
    (x, w, b), _ = _check.as_arrays(name, **{key: arguments[key] for key in ("input", "weight", "bias")}, optional="bias")
    options = Options(
        arguments["stride"], arguments["padding"], arguments.get("output_padding", 0), arguments["dilation"],
        arguments["groups"], arguments["precision"], arguments["data_format"],
    )  # fmt: skip
    bias_shape = None if b is None else b.shape
    return check_problem(name, kind, x.shape, w.shape, bias_shape, str(x.dtype), options), arguments
