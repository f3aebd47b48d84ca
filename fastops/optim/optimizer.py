"""What all optimizers have in common: the walk over the parameters, their state, and the checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops.autodiff.trees import leaves, matched, rebuilt
from fastops.optim.update import COEFFICIENTS, Rule

Schedule = Callable[[int], float]
State = dict[str, Any]

_COMPUTED = ("float32", "float64")


class Optimizer:
    """Parameters, gradients and state in, parameters and state out.

    Made by the functions of ``fastops.optim``: ``adam(lr=1e-3)``, ``sgd(lr=0.1, momentum=0.9)``.

    The state is a plain dict: ``step``, how many updates there were, which a schedule is asked for; ``steps``, for each
    parameter how many of them it took part in; and a tree like the parameters for each array that the optimizer keeps
    (``exp_avg``, ``momentum_buffer``, ...: the names that torch gives them).
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any],
        rule: Rule,
        keeps: tuple[str, ...],
        coefficients: Callable[[int, float], tuple[float, ...]],
        initial: float = 0.0,
    ) -> None:
        self.name = name
        self.options = options
        self._rule = rule
        self._keeps = keeps
        self._coefficients = coefficients
        self._initial = initial

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    def lr(self, step: int) -> float:
        """The learning rate of the update that comes after ``step`` others."""
        lr = self.options["lr"]
        if not callable(lr):
            return lr
        rate = _check.real(self.name, f"lr({step})", lr(step))
        if not rate >= 0:
            raise ValueError(f"{self.name}: lr({step}) must be at least 0, got {rate}")
        return rate

    def init(self, params: Any) -> State:
        """The state before the first update.

        Args:
            params: arrays of float16, float32 or float64, in dicts, lists and tuples.

        Raises:
            TypeError: something else is among them.

        >>> from fastops.optim import adam
        >>> adam().init({"w": np.ones(2, np.float32)})
        {'step': 0, 'steps': array([0]), 'exp_avg': {'w': array([0., 0.], dtype=float32)}, \
'exp_avg_sq': {'w': array([0., 0.], dtype=float32)}}
        """
        count = 0
        for path, leaf in leaves(params):
            self._check_param(f"params{path}", _as_parameter(self.name, f"params{path}", leaf))
            count += 1

        def kept(leaf: Any) -> Array:
            array = np.asarray(leaf)
            return np.full(array.shape, self._initial, array.dtype if array.dtype.name in _COMPUTED else np.float32)

        return {"step": 0, "steps": np.zeros(count, np.int64), **{name: rebuilt(params, kept) for name in self._keeps}}

    def update(self, params: Any, grads: Any, state: State, *, inplace: bool = False, lr: float | None = None) -> tuple[Any, State]:
        """One step.

        Args:
            params: arrays in dicts, lists and tuples.
            grads: the same structure, shapes and dtypes; None for a parameter that was not used, which then stays as it is.
            state: what ``init`` or the last update returned.
            inplace: overwrite the parameters and the state, which for large ones takes a half to a seventh of the time; otherwise
                new arrays are returned, and neither is changed.
            lr: a learning rate for this step alone, instead of the optimizer's.

        Returns:
            (params, state), in the structure in which they came.

        Raises:
            TypeError: a parameter or gradient is no array of floating-point numbers, or they differ in dtype.
            ValueError: structures or shapes differ, or a parameter cannot be overwritten.

        >>> from fastops.optim import sgd
        >>> opt = sgd(lr=0.5)
        >>> params = [np.array([1.0, 2.0])]
        >>> params, state = opt.update(params, [np.array([1.0, 0.0])], opt.init(params))
        >>> params[0]
        array([0.5, 2. ])
        """
        if not isinstance(state, dict):
            raise TypeError(f"{self.name}: state must be one that init or update returned, got {type(state).__name__}")
        missing = [key for key in ("step", "steps", *self._keeps) if key not in state]
        if missing:
            raise ValueError(f"{self.name}: state must be one that init or update returned, got a dict without {', '.join(map(repr, missing))}")
        values, flat = _values(params)
        gradients = _along(params, flat, grads, f"{self.name}: grads")
        kept = [_along(params, flat, state[key], f"{self.name}: state[{key!r}]") for key in self._keeps]
        step, before = _check.integer(self.name, "state['step']", state["step"], 0), np.asarray(state["steps"], np.int64)
        if before.shape != (len(values),):
            raise ValueError(f"{self.name}: state['steps'] must have shape ({len(values)},), got {before.shape}")
        rate = self.lr(step) if lr is None else _check.real(self.name, "lr", lr)
        if not rate >= 0:
            raise ValueError(f"{self.name}: lr must be at least 0, got {lr!r}")
        # All is checked before anything is changed.
        work = [
            None if gradient is None else self._prepared(params, index, value, gradient, [tree[index] for tree in kept], inplace)
            for index, (value, gradient) in enumerate(zip(values, gradients))
        ]
        counts = before + np.array([given is not None for given in work], np.int64)
        numbers: dict[tuple[int, str], Array] = {}
        changed: list[Any] = list(values)
        new = [list(tree) for tree in kept]
        for index, (given, count) in enumerate(zip(work, counts.tolist())):
            if given is None:
                continue
            char = given.param.dtype.char
            if (count, char) not in numbers:
                found = self._coefficients(count, rate)
                numbers[count, char] = np.array(found + (0.0,) * (COEFFICIENTS - len(found)), char)
            changed[index] = self._one(given, values[index], numbers[count, char], inplace)
            if not inplace:
                for tree, array in zip(new, given.state):
                    tree[index] = array
        if inplace:
            state["step"] = step + 1
            state["steps"] = counts
            return params, state
        trees = {key: _like(params, tree) for key, tree in zip(self._keeps, new)}
        return _like(params, changed), {**state, "step": step + 1, "steps": counts, **trees}

    def _check_param(self, name: str, array: Array) -> None:
        """An optimizer that does not take every shape says so here."""

    def _prepared(self, params: Any, index: int, value: Any, gradient: Any, state: list[Any], inplace: bool) -> Work:
        """A parameter, its gradient and its state, checked and as kernels take them."""
        if type(value) is np.ndarray and type(gradient) is np.ndarray:
            dtype, shape = value.dtype, value.shape
            if dtype.char in "fd" and gradient.dtype == dtype and gradient.shape == shape and value.flags.carray and gradient.flags.carray:
                for s in state:
                    if type(s) is not np.ndarray or s.dtype != dtype or s.shape != shape or not s.flags.carray:
                        break
                else:
                    return Work(value, gradient, state)  # the usual case
        path = [path for path, _ in leaves(params)][index]
        op = self.name
        if inplace:
            _check_place(op, f"params{path}", value)
        p, g = _as_parameter(op, f"params{path}", value), _as_parameter(op, f"grads{path}", gradient)
        if g.dtype != p.dtype:
            raise TypeError(f"{op}: grads{path} must have the dtype of params{path}, {p.dtype}, got {g.dtype}")
        if g.shape != p.shape:
            raise ValueError(f"{op}: grads{path} must have the shape of params{path}, {p.shape}, got {g.shape}")
        computed = np.dtype(np.float32) if p.dtype == np.float16 else p.dtype
        arrays = []
        for key, array in zip(self._keeps, state):
            name = f"state[{key!r}]{path}"
            if not isinstance(array, np.ndarray) or array.shape != p.shape or array.dtype != computed:
                got = f"shape {array.shape}, {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise ValueError(f"{op}: {name} must be an array of shape {p.shape}, {computed}, got {got}")
            if inplace and not array.flags.carray:
                raise ValueError(f"{op}: {name} must be contiguous and writeable where inplace is True")
            arrays.append(_check.as_array(op, name, array))
        p, g = (_check.as_array(op, "", array.astype(computed, copy=False)) for array in (p, g))
        return Work(p, g, arrays)

    def _one(self, given: Work, value: Any, numbers: Array, inplace: bool) -> Any:
        """Update one parameter; its state ends up in ``given``."""
        p, g, state = given
        if inplace:
            self._rule.apply(p.ravel(), g.ravel(), [s.ravel() for s in state], numbers)
            if p is not value:
                value[...] = p
            return value
        new, after = self._rule.applied(p.ravel(), g.ravel(), [s.ravel() for s in state], numbers)
        state[:] = [s.reshape(p.shape) for s in after]
        return returned(new.reshape(p.shape), value)


class Work(NamedTuple):
    param: Array
    grad: Array
    state: list[Array]


def _as_parameter(op: str, name: str, value: Any) -> Array:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.dtype.char not in "efd":
        got = array.dtype if isinstance(value, (np.ndarray, np.generic)) else type(value).__name__
        raise TypeError(f"{op}: {name} must be an array of float16, float32 or float64, got {got}")
    return array


def _check_place(op: str, name: str, value: Any) -> None:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{op}: {name} must be a NumPy array where inplace is True, got {type(value).__name__}")
    if not value.flags.writeable:
        raise ValueError(f"{op}: {name} must be writeable where inplace is True, got a read-only array")


def returned(new: Array, value: Any) -> Any:
    """The new value as the parameter came: a number for a number, float16 for float16."""
    if not isinstance(value, np.ndarray):
        return new.astype(np.asarray(value).dtype, copy=False)[()]
    return new.astype(value.dtype, copy=False)


def _values(tree: Any) -> tuple[list[Any], bool]:
    """The leaves of a tree, and whether it is a dict of arrays, the usual case."""
    if type(tree) is dict:
        values = list(tree.values())
        if all(type(value) is np.ndarray for value in values):
            return values, True
    return [leaf for _, leaf in leaves(tree)], False


def _along(params: Any, flat: bool, tree: Any, name: str) -> list[Any]:
    """What stands in a tree in the places of the parameters; ``flat`` where these are a dict of arrays."""
    if flat and type(tree) is dict and len(params) == len(tree):
        found = [tree.get(key) for key in params]
        if all(type(value) is np.ndarray for value in found):
            return found
    return [other for _, _, other in matched(params, tree, name)]


def _like(params: Any, values: list[Any]) -> Any:
    """The tree of the parameters with other leaves."""
    items = iter(values)
    return rebuilt(params, lambda _: next(items))
