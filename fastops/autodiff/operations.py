"""Operations of fastops on the tape: their gradients are the registered backward functions.

While a function is being differentiated, every public operation comes to :func:`record` first. What a call leaves on the
tape is its arguments, without the values of those that the gradient does not need, and what the forward pass kept for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import count
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy import ndarray

from fastops import _op
from fastops._op import Op
from fastops.autodiff.tape import CHANGED, Grads, Node, ResultNode, Tape, Watch, new_key
from fastops.autodiff.variable import ENDED, Variable, plain

Call = dict[str, Any]

# Gradients that can be differentiated: second[name](grad_output, call, wanted) -> one for each input, None where it is not
# wanted. `call` has the arguments by name and what the forward pass kept; only saved and kept values are sure to be there.
second: dict[str, Callable[[Any, Call, tuple[bool, ...]], tuple[Any, ...]]] = {}

_CONTAINERS = frozenset((list, tuple))
_WATCHED = (ndarray, tuple, list)
_NOTHING = bytes(8)  # as large as an element of any type that has a gradient


@lru_cache(maxsize=4096)
def stand_in(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array of this shape and dtype that has no values of its own, nor memory."""
    return ndarray(shape, dtype, _NOTHING, 0, (0,) * len(shape))


class _Plan:
    """What is worth knowing about an operation once and for all.

    Attributes:
        names: of the arguments that the forward function takes by position; ``known``: of all.
        inputs: of those, the ones that have gradients, in their order.
        unsaved: of those, the ones that reach the backward function as stand-ins.
        unwatched: arguments that may change in place: those without values, and running statistics, which the operation
            itself changes while the gradient uses what it kept.
        forbidden: arguments that would change an array in place.
        lacking: arguments that the backward function does not take.
        fused: there is an activation to be fused, of which there is no gradient.
        masked: the backward function takes output_mask and returns a tuple.
    """

    __slots__ = ("backward", "forbidden", "forward", "fused", "inputs", "known", "lacking", "masked", "name", "names", "unsaved", "unwatched")

    def __init__(self, op: Op, function: Callable[..., Any]) -> None:
        assert op.backward is not None
        self.name = op.name
        self.forward: Callable[..., tuple[Any, Call]] = op.record or (lambda **call: (function(**call), {}))
        self.backward = op.backward
        parameters = inspect.signature(op.forward).parameters
        self.names = tuple(name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY)
        self.known = frozenset(parameters)
        taken = inspect.signature(op.backward).parameters
        self.inputs = op.inputs
        self.unsaved = tuple(name for name in op.inputs if name not in op.saved)
        self.unwatched = frozenset((*self.unsaved, "running_mean", "running_var"))
        self.forbidden = tuple(name for name in ("out", "inplace") if name in self.known)
        self.fused = "activation" in self.known and "activation" not in taken
        self.lacking = tuple(n for n in self.known if n not in taken and n not in ("out", "inplace", "activation"))
        self.masked = len(op.inputs) > 1


_plans: dict[Callable[..., Any], _Plan] = {}


class OpNode(Node):
    """A call of an operation.

    Attributes:
        plan, call: the operation, and the arguments of its backward function by name.
        parents: for each input the node, a list of nodes and Nones for a sequence, or None where no gradient is wanted.
        nested: whether values of an outer level are among the arguments.
        parts: for several results, their shapes and dtypes, nested as they are; None for one.
    """

    __slots__ = ("call", "nested", "parents", "parts", "plan")

    def __init__(self, plan: _Plan, output: Any, call: Call, parents: list[Any], nested: bool) -> None:
        if type(output) is tuple:
            self.parts = _described(output)
            output = Grads([None] * _count(self.parts))
        else:
            self.parts = None
        self.key = new_key()  # as Node.__init__, whose call would take 0.2 us
        self.shape = output.shape
        self.dtype = output.dtype
        self.name = plan.name
        self.edges = []
        self.plan = plan
        self.call = call
        self.parents = parents
        self.nested = nested

    def gradients(self, grad: Any, watch: Watch) -> list[tuple[Node, Any]]:
        plan, call, parents = self.plan, self.call, self.parents
        if self.parts is not None:
            grad = _assembled(self.parts, iter(grad.grads))
        for value in call.values():
            if isinstance(value, _WATCHED) and watch.changed(value):
                raise ValueError(CHANGED)
        if self.nested or type(grad) is Variable or (self.parts is not None and _holds_variable(grad)):
            if plan.name not in second:
                raise TypeError(f"{plan.name} has no second derivative")
            found = second[plan.name](grad, call, tuple([parent is not None for parent in parents]))
        elif plan.masked:
            found = plan.backward(grad, **call, output_mask=tuple([parent is not None for parent in parents]))
        else:
            found = (plan.backward(grad, **call),)
        pairs: list[tuple[Node, Any]] = []
        for parent, d in zip(parents, found):
            if type(parent) is list:
                pairs += [(one, part) for one, part in zip(parent, d) if one is not None]
            elif parent is not None:
                pairs.append((parent, d))
        return pairs


def _assembled(parts: Any, grads: Iterator[Any]) -> Any:
    """The gradients in the structure of the results: zeros where none arrived, None where there is none."""
    if type(parts) is list:
        return tuple([_assembled(part, grads) for part in parts])
    grad = next(grads)
    if grad is None and parts is not None:
        return np.zeros(*parts)
    return grad


def _holds_variable(value: Any) -> bool:
    if type(value) in _CONTAINERS:
        for one in value:
            if type(one) is not int and _holds_variable(one):
                return True
    return type(value) is Variable


def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation; if values that are differentiated are among its arguments, record it."""
    tape = innermost(args, None)
    if kwargs:
        tape = innermost(kwargs.values(), tape)
    if tape is None:
        return function(*args, **kwargs)
    plan = _plans.get(function)
    if plan is None:
        if function.__name__ not in _op.names():  # made of other operations, each of which is recorded
            return function(*args, **kwargs)
        op = _op.get(function.__name__)
        if op.backward is None:
            return function(*(plain(a) for a in args), **{key: plain(value) for key, value in kwargs.items()})
        plan = _plans[function] = _Plan(op, function)
    names = plan.names
    call = dict(zip(names, args))
    call.update(kwargs)
    if len(call) < len(args) + len(kwargs) or not call.keys() <= plan.known:
        return function(*args, **kwargs)  # raises what is to be raised
    for name in plan.forbidden:
        value = call.pop(name, None)
        if value is not None and value is not False:
            raise TypeError(f"{plan.name}: {name} must be left out where a value is differentiated: the values of a Variable never change")
    if not plan.fused:
        return _record(plan, call, tape)[0]
    activation = call.pop("activation", None)
    output = _record(plan, call, tape)[0]
    if activation is None:
        return output
    # One after the other gives the same result.
    from fastops import functional

    return getattr(functional, activation)(output)


def _record(plan: _Plan, call: Call, tape: Tape) -> tuple[Any, Call]:
    """The output of a call, and what it kept. Levels are peeled off one by one; ``tape`` is the innermost."""
    if tape.closed:
        raise ValueError(f"{plan.name}: a value was kept from a function that {ENDED}")
    nested = False
    nodes: dict[str, Any] = {}
    for name, value in call.items():
        if type(value) is Variable:
            if value._tape is tape:
                nodes[name] = value._node
                value = call[name] = value._value
            if type(value) is Variable:
                nested = True
        elif type(value) is ndarray:
            if name not in plan.unwatched:
                tape.watch.add(value)
        elif type(value) in _CONTAINERS and _holds_variable(value):
            nodes[name] = [v._node if type(v) is Variable and v._tape is tape else None for v in value]
            call[name] = value = [v._value if type(v) is Variable and v._tape is tape else v for v in value]
            nested = nested or _holds_variable(value)
    for name in nodes:
        if name not in plan.inputs:
            raise TypeError(f"{plan.name} has no gradient with respect to {name}: pass it as a plain array ({name}.value)")
    outer = innermost(call.values(), None) if nested else None
    output, kept = plan.forward(**call) if outer is None else _record(plan, dict(call), outer)
    if not nested:
        for name in plan.unsaved:
            if name in call:
                call[name] = _without_values(call[name])
    for name in plan.lacking:
        call.pop(name, None)
    call.update(kept)
    if nested and "output" in kept:
        call["output"] = output  # as the outer level knows it
    node = OpNode(plan, output, call, [nodes.get(name) for name in plan.inputs], nested)
    return (Variable(output, node, tape) if node.parts is None else _wrapped(output, node, tape, count())), kept


def _without_values(value: Any) -> Any:
    if type(value) is ndarray:
        return stand_in(value.shape, value.dtype)
    if type(value) in _CONTAINERS:
        return [_without_values(v) for v in value]
    return value if value is None else stand_in(np.shape(value), np.asarray(value).dtype)


def innermost(values: Any, tape: Tape | None) -> Tape | None:
    """The innermost level among values, also those in lists and tuples, and ``tape``."""
    for value in values:
        kind = type(value)
        if kind is Variable:
            if tape is None or value._tape.level > tape.level:
                tape = value._tape
        elif kind in _CONTAINERS:
            for one in value:
                if type(one) is not int:  # as strides are
                    tape = innermost(value, tape)
                    break
    return tape


def _described(output: Any) -> Any:
    """Shape and dtype of each result; None for one that has no gradient."""
    if type(output) is tuple:
        return [_described(one) for one in output]
    return (output.shape, output.dtype) if output is not None and output.dtype.kind == "f" else None


def _count(parts: Any) -> int:
    return sum(map(_count, parts)) if type(parts) is list else 1


def _wrapped(output: Any, node: Node, tape: Tape, index: Iterator[int]) -> Any:
    if type(output) is tuple:
        return tuple([_wrapped(one, node, tape, index) for one in output])
    at = next(index)
    if output is None or output.dtype.kind != "f":
        return output
    return Variable(output, ResultNode(output, node, at), tape)


class _Following:
    """Operations are followed while at least one thread runs a function that is being differentiated."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                _op.follow(record)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                _op.follow(None)


following = _Following()
