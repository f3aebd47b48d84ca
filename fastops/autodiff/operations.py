"""Operations of fastops on the tape: their gradients are the registered backward functions.

While a function is being differentiated, every public operation comes to :func:`record` first. What a call leaves on the
tape is its arguments, without the values of those that the gradient does not need, and what the forward pass kept for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np

from fastops import _op
from fastops._op import Op
from fastops.autodiff.tape import CHANGED, Grads, Node, ResultNode, Tape, Watch
from fastops.autodiff.variable import ENDED, Variable, plain

Call = dict[str, Any]

# Gradients that can be differentiated: second[name](grad_output, call, wanted) -> one for each input, None where it is not
# wanted. `call` has the arguments by name and what the forward pass kept; only saved and kept values are sure to be there.
second: dict[str, Callable[[Any, Call, tuple[bool, ...]], tuple[Any, ...]]] = {}

_NOTHING = bytes(8)  # as large as an element of any type that has a gradient


@lru_cache(maxsize=4096)
def stand_in(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An array of this shape and dtype that has no values of its own, nor memory."""
    return np.ndarray(shape, dtype, _NOTHING, 0, (0,) * len(shape))


class _Plan:
    """What is worth knowing about an operation once and for all."""

    __slots__ = ("activation", "dropped", "inputs", "masked", "names", "op", "unsaved")

    def __init__(self, op: Op) -> None:
        assert op.backward is not None
        self.op = op
        self.names = tuple(inspect.signature(op.forward).parameters)
        taken = inspect.signature(op.backward).parameters
        self.inputs = frozenset(op.inputs)
        self.unsaved = tuple(name for name in op.inputs if name not in op.saved)
        self.dropped = tuple(name for name in self.names if name not in taken)
        self.activation = "activation" in self.dropped
        self.masked = len(op.inputs) > 1


_plans: dict[str, _Plan] = {}


class OpNode(Node):
    """A call of an operation.

    Attributes:
        plan, call: the operation, and the arguments of its backward function by name.
        parents: for each input the node, a list of nodes and Nones for a sequence, or None where no gradient is wanted.
        nested: whether values of an outer level are among the arguments.
        parts: for several results, their shapes and dtypes, nested as they are; None for one.
    """

    __slots__ = ("call", "nested", "parents", "parts", "plan")

    def gradients(self, grad: Any, watch: Watch) -> Iterator[tuple[Node, Any]]:
        op, call, parents = self.plan.op, self.call, self.parents
        if self.parts is not None:
            grad = _assembled(self.parts, iter(grad.grads))
        for value in call.values():
            if watch.changed(tuple(value) if type(value) is list else value):
                raise ValueError(CHANGED)
        wanted = tuple([parent is not None for parent in parents])
        if self.nested or _holds_variable(grad):
            if op.name not in second:
                raise TypeError(f"{op.name} has no second derivative")
            found = second[op.name](grad, call, wanted)
        else:
            arguments = {name: value for name, value in call.items() if name not in self.plan.dropped}
            if self.plan.masked:
                found = op.backward(grad, **arguments, output_mask=wanted)  # type: ignore[misc]
            else:
                found = (op.backward(grad, **arguments),)  # type: ignore[misc]
        for parent, d in zip(parents, found):
            if type(parent) is list:
                for one, part in zip(parent, d):
                    if one is not None:
                        yield one, part
            elif parent is not None:
                yield parent, d


def _assembled(parts: Any, grads: Iterator[Any]) -> Any:
    """The gradients in the structure of the results: zeros where none arrived, None where there is none."""
    if type(parts) is list:
        return tuple([_assembled(part, grads) for part in parts])
    grad = next(grads)
    if grad is None and parts is not None:
        return np.zeros(*parts)
    return grad


def _holds_variable(value: Any) -> bool:
    return type(value) is Variable or (type(value) in (list, tuple) and any(map(_holds_variable, value)))


def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation; if values that are differentiated are among its arguments, record it."""
    for value in args:
        if type(value) is Variable or (type(value) in (list, tuple) and _holds_variable(value)):
            break
    else:
        for value in kwargs.values():
            if type(value) is Variable or (type(value) in (list, tuple) and _holds_variable(value)):
                break
        else:
            return function(*args, **kwargs)
    name = function.__name__
    plan = _plans.get(name)
    if plan is None:
        if name not in _op.names():  # made of other operations, each of which is recorded
            return function(*args, **kwargs)
        op = _op.get(name)
        if op.backward is None:
            return function(*(plain(a) for a in args), **{key: plain(value) for key, value in kwargs.items()})
        plan = _plans[name] = _Plan(op)
    call = dict(zip(plan.names, args))
    call.update(kwargs)
    activation = call.pop("activation", None) if plan.activation else None
    for forbidden in ("out", "inplace"):
        if call.pop(forbidden, None) not in (None, False):
            raise TypeError(f"{name}: {forbidden} must be left out where a value is differentiated: the values of a Variable never change")
    output = _record(function, plan, call)[0]
    if activation is None:
        return output
    # Fused activations have no gradient; one after the other is the same.
    from fastops import functional

    return getattr(functional, activation)(output)


def _record(function: Callable[..., Any], plan: _Plan, call: Call) -> tuple[Any, Call]:
    """The output of a call, and what it kept. Levels are peeled off one by one, the innermost first."""
    op = plan.op
    tape = innermost(call.values(), None)
    if tape is None:
        return op.record(**call) if op.record is not None else (function(**call), {})
    if tape.closed:
        raise ValueError(f"{op.name}: a value was kept from a function that {ENDED}")
    values, nodes, nested = dict(call), {}, False
    for name, value in call.items():
        if type(value) is Variable:
            if value._tape is tape:
                nodes[name] = value._node
                value = values[name] = value._value
            nested = nested or type(value) is Variable
        elif type(value) in (list, tuple) and _holds_variable(value):
            nodes[name] = [v._node if type(v) is Variable and v._tape is tape else None for v in value]
            values[name] = type(value)(v._value if type(v) is Variable and v._tape is tape else v for v in value)
            nested = nested or _holds_variable(values[name])
        elif type(value) is np.ndarray and name not in plan.unsaved:
            tape.watch.add(value)
    for name in nodes:
        if name not in plan.inputs:
            raise TypeError(f"{op.name} has no gradient with respect to {name}: pass it as a plain array ({name}.value)")
    output, kept = _record(function, plan, values)
    if not nested:
        for name in plan.unsaved:
            value = values.get(name)
            if type(value) in (list, tuple):
                values[name] = type(value)(stand_in(v.shape, v.dtype) for v in value)
            elif value is not None:
                value = np.asarray(value)
                values[name] = stand_in(value.shape, value.dtype)
    node = OpNode.__new__(OpNode)
    node.plan, node.nested = plan, nested
    node.call = {**values, **kept}
    if nested and "output" in kept:
        node.call["output"] = output  # as the outer level knows it
    node.parents = [nodes.get(name) for name in op.inputs]
    if type(output) is not tuple:
        node.parts = None
        node.__init__(op.name, output, [])  # type: ignore[misc]
        return Variable(output, node, tape), kept
    parts, flat = _described(output), []
    node.parts = parts
    node.__init__(op.name, Grads([None] * _count(parts)), [])  # type: ignore[misc]
    return _wrapped(output, node, tape, flat), kept


def innermost(values: Any, tape: Tape | None) -> Tape | None:
    for value in values:
        if type(value) is Variable:
            if tape is None or value._tape.level > tape.level:
                tape = value._tape
        elif type(value) in (list, tuple):
            tape = innermost(value, tape)
    return tape


def _described(output: Any) -> Any:
    """Shape and dtype of each result; None for one that has no gradient."""
    if type(output) is tuple:
        return [_described(one) for one in output]
    return (output.shape, output.dtype) if output is not None and output.dtype.kind == "f" else None


def _count(parts: Any) -> int:
    return sum(map(_count, parts)) if type(parts) is list else 1


def _wrapped(output: Any, node: OpNode, tape: Tape, flat: list[Any]) -> Any:
    if type(output) is tuple:
        return tuple([_wrapped(one, node, tape, flat) for one in output])
    index = len(flat)
    flat.append(output)
    if output is None or output.dtype.kind != "f":
        return output
    return Variable(output, ResultNode(output, node, index), tape)


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
