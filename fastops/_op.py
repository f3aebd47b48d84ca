"""The record of an operation, and the registry that autodiff, tests and benchmarks read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Op:
    """An operation and its gradient.

    Attributes:
        name: the public name, ``conv2d``.
        forward: the public function.
        backward: its public gradient function ``backward(grad_output, *saved, ...)``. It returns one gradient for each
            of ``inputs``, as a tuple when there are several; None when the operation has no gradient.
        inputs: the arguments of ``forward`` that gradients are taken of, in the order of the gradients.
        saved: the arguments whose values the gradient needs.
        flops: floating-point operations of a call with the given arguments (a multiply-add is two).
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    inputs: tuple[str, ...]
    saved: tuple[str, ...]
    flops: Callable[..., int]


_registry: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Make an operation known under its name."""
    if op.name in _registry:
        raise ValueError(f"register: op must have a new name, got {op.name!r} for the second time")
    _registry[op.name] = op
    return op


def get(op: str | Callable[..., Any]) -> Op:
    """The record of an operation, by its name or its public function.

    >>> from fastops.functional import conv2d
    >>> get(conv2d).saved
    ('input', 'weight')
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", None)
    if name not in _registry:
        raise ValueError(f"get: op must be an operation of fastops, got {op!r}")
    return _registry[name]


def names() -> tuple[str, ...]:
    """The names of all registered operations.

    >>> "conv2d" in names()
    True
    """
    return tuple(_registry)
