"""The record of an operation, and the registry that autodiff, tests and benchmarks read.

A public function that takes part in autodiff is written under ``@operation``, and its record is made by one line::

    @operation
    def relu(input, inplace=False, *, out=None): ...

    def relu_backward(grad_output, input): ...

    register(relu, relu_backward, inputs=("input",), saved=("input",))

The backward function takes the gradient with respect to the output, then the arguments of the forward call under the
same names (those that do not matter for it, such as ``out``, it may lack). With several ``inputs`` it also takes
``output_mask`` and returns a tuple; with one it returns that gradient alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from types import FunctionType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Op:
    """An operation and its gradient.

    Attributes:
        name: the public name, ``conv2d``.
        forward: the public function.
        backward: its public gradient function; None when the operation has no gradient.
        inputs: the arguments of ``forward`` that gradients are taken of, in the order of the gradients. An argument may be
            a sequence of arrays; its gradient is then a list.
        saved: the arguments whose values the gradient needs. The others among ``inputs`` reach ``backward`` as stand-ins
            that have their shape and dtype and no memory of their own.
        record: ``record(*args, **kwargs) -> (output, kept)`` is the forward pass of a call that will be differentiated;
            ``kept`` are keyword arguments that its ``backward`` takes in addition to or instead of the arguments of the
            call (indices, statistics, the seed that was drawn). None: the forward function, and nothing kept.
        flops: floating-point operations of a call with the given arguments (a multiply-add is two); None for an
            operation whose time goes into moving data.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    inputs: tuple[str, ...]
    saved: tuple[str, ...]
    record: Callable[..., tuple[Any, dict[str, Any]]] | None = None
    flops: Callable[..., int] | None = None


_registry: dict[str, Op] = {}

Recorder = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class _Following:
    recorder: Recorder | None = None


_following = _Following()


def follow(recorder: Recorder | None) -> None:
    """While ``recorder`` is set, every operation runs as ``recorder(plain_function, args, kwargs)``; None ends it."""
    _following.recorder = recorder


def operation(function: Function) -> Function:
    """A public function that autodiff can follow. Costs 0.13 us a call when nothing follows."""
    following = _following

    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = following.recorder
        if recorder is None:
            return function(*args, **kwargs)
        return recorder(function, args, kwargs)

    # doctest takes a function to belong to the module whose globals it has.
    own = FunctionType(call.__code__, function.__globals__, function.__name__, None, call.__closure__)
    return update_wrapper(own, function)  # type: ignore[return-value]


def register(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None,
    *,
    inputs: tuple[str, ...],
    saved: tuple[str, ...],
    record: Callable[..., tuple[Any, dict[str, Any]]] | None = None,
    flops: Callable[..., int] | None = None,
) -> Op:
    """Make the record of an operation and keep it under the function's name."""
    name = forward.__name__
    if name in _registry:
        raise ValueError(f"register: forward must have a new name, got {name!r} for the second time")
    op = Op(name, forward, backward, inputs, saved, record, flops)
    _registry[name] = op
    return op


def get(op: str | Callable[..., Any]) -> Op:
    """The record of an operation whose module is loaded, by its name or its public function.

    >>> from fastops.functional import conv2d
    >>> get(conv2d).saved
    ('input', 'weight')
    """
    name = op if isinstance(op, str) else getattr(op, "__name__", None)
    if name not in _registry:
        raise ValueError(f"get: op must be an operation of fastops, got {op!r}")
    return _registry[name]


def names() -> tuple[str, ...]:
    """The names of all operations whose modules are loaded.

    >>> from fastops.functional import conv2d
    >>> "conv2d" in names()
    True
    """
    return tuple(_registry)
