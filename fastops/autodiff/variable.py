"""The value that stands for an array while a function is differentiated, and how NumPy's functions reach it.

A :class:`Variable` takes part in NumPy through its protocols: ufuncs arrive in ``__array_ufunc__``, other functions in
``__array_function__``, and both are looked up in one table, which ``rules`` fills. A rule computes a function and says
how gradients pass it; a composite is written with functions that have rules; a constant function has no gradient.

Levels nest: the value of a variable of an inner level may be a variable of an outer one. An operation belongs to the
innermost level among its arguments; variables of other levels are constants there, and are met again one level down,
since the rule then applies NumPy's function to them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import update_wrapper
from operator import getitem
from typing import Any, TypeVar

import numpy as np
from numpy import ndarray

from fastops.autodiff.tape import Node, Pull, Tape
from fastops.autodiff.trees import rebuilt

Function = TypeVar("Function", bound=Callable[..., Any])

_OUT = "{}: out must be left out where a value is differentiated: the values of a Variable never change"


class UnsupportedAttribute(AttributeError, TypeError):
    """A method of arrays that a Variable lacks: an AttributeError, so that hasattr works, and a TypeError."""


class Rule:
    """How gradients pass a function.

    ``run(*arguments)`` returns the result, and for each of the first arguments a function that turns the gradient with
    respect to the result into one with respect to that argument, or None for an argument that does not pass gradients on.
    """

    __slots__ = ("name", "parameters", "run")

    def __init__(self, name: str, run: Callable[..., tuple[Any, ...]]) -> None:
        self.name = name
        self.run = run
        self.parameters = tuple(inspect.signature(run).parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """With the arguments of NumPy's function, of which any may be a Variable."""
        if kwargs:
            unknown = [name for name in kwargs if name not in self.parameters and name != "out"]
            if unknown:
                raise TypeError(f"{self.name}: argument {unknown[0]!r} is not supported where a value is differentiated")
            if kwargs.pop("out", None) is not None:
                raise TypeError(_OUT.format(self.name))
            while len(args) < len(self.parameters) and self.parameters[len(args)] in kwargs:
                args = (*args, kwargs.pop(self.parameters[len(args)]))
            if any(type(value) is Variable for value in kwargs.values()):
                raise TypeError(f"{self.name}: a value that is differentiated must be given by its position")
        if "out" in self.parameters and len(args) > (at := self.parameters.index("out")) and args[at] is not None:
            raise TypeError(_OUT.format(self.name))
        return apply(self, args, kwargs)


RULES: dict[Any, Rule] = {}
_handlers: dict[Any, Callable[..., Any]] = {}
_constants: set[Any] = set()


def rule(function: Any) -> Callable[[Callable[..., tuple[Any, ...]]], Rule]:
    """Teach autodiff a NumPy function (or any ufunc, or function that dispatches as NumPy's do); a name makes a rule alone.

    The decorated function takes the same arguments under the same names. Gradients come to it in the shape of the result;
    sums over broadcast axes, and the dtype, are seen to by the caller. Written with functions that have rules, it can be
    differentiated again.

        @rule(np.multiply)
        def _(x1, x2):
            return np.multiply(x1, x2), lambda g: g * x2, lambda g: g * x1
    """

    def decorate(run: Callable[..., tuple[Any, ...]]) -> Rule:
        if isinstance(function, str):
            return Rule(function, run)
        made = RULES[function] = _handlers[function] = Rule(function.__name__, run)
        return made

    return decorate


def composite(function: Any) -> Callable[[Function], Function]:
    """Teach autodiff a NumPy function by writing it with functions that it knows."""

    def decorate(run: Function) -> Function:
        parameters = inspect.signature(run).parameters

        def handler(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in parameters:
                    raise TypeError(f"{function.__name__}: argument {name!r} is not supported where a value is differentiated")
            if kwargs.get("out") is not None:
                raise TypeError(_OUT.format(function.__name__))
            return run(*args, **kwargs)

        _handlers[function] = handler
        return run

    return decorate


def constant(*functions: Any) -> None:
    """Functions whose gradient is zero wherever there is one: they see plain values and give plain values."""
    _constants.update(functions)
    for function in functions:
        _handlers[function] = _on_plain_values(function)


def _on_plain_values(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(*args: Any, **kwargs: Any) -> Any:
        return function(*(plain(a) for a in args), **{name: plain(value) for name, value in kwargs.items()})

    return handler


def plain(tree: Any) -> Any:
    """Variables, also those in containers, as the arrays that they stand for, down through all levels."""
    if type(tree) is Variable:
        return plain(tree._value)
    if isinstance(tree, (list, tuple, dict)):
        return rebuilt(tree, plain)
    return tree


def primitive(run: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    """A function of one's own that brings its gradient along.

    ``run(*args)`` returns the result and, for each of the first arguments, a function from the gradient with respect to the
    result to the gradient with respect to that argument.

    >>> from fastops import grad
    >>> @primitive
    ... def cube(x):
    ...     return x**3, lambda g: g * 3 * x**2
    >>> cube(2.0), grad(cube)(2.0)
    (8.0, np.float64(12.0))
    """
    made = Rule(run.__name__, run)

    def call(*args: Any, **kwargs: Any) -> Any:
        if any(type(a) is Variable for a in (*args, *kwargs.values())):
            return made(*args, **kwargs)
        return run(*args, **kwargs)[0]

    return update_wrapper(call, run)


def apply(rule: Rule, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
    """Run a rule on arguments of which at least one is a Variable, and record it on the innermost level among them."""
    tape: Tape | None = None
    constants = False
    for a in args:
        if type(a) is Variable:
            if tape is None:
                tape = a._tape
            elif a._tape is not tape and a._tape.level > tape.level:
                tape = a._tape
        elif type(a) is ndarray:
            constants = True
    assert tape is not None
    if tape.closed:
        raise ValueError(f"{rule.name}: a value was kept from a function that {ENDED}")
    values = [a._value if type(a) is Variable and a._tape is tape else a for a in args]
    result, *pulls = rule.run(*values, **kwargs) if kwargs else rule.run(*values)
    if result.dtype.kind != "f":
        raise TypeError(f"{rule.name}: the result must be of floating-point numbers to be differentiated, got {result.dtype}")
    edges: list[tuple[Node, Pull]] = []
    for a, pull in zip(args, pulls):
        if type(a) is Variable and a._tape is tape and pull is not None:
            edges.append((a._node, pull))
    if constants:
        _watch_constants(tape, args, edges)
    return Variable(result, Node(rule.name, result, edges), tape)


ENDED = "has been differentiated already; return what is needed later (has_aux=True), or keep its .value"


def _watch_constants(tape: Tape, args: tuple[Any, ...], edges: list[tuple[Node, Pull]]) -> None:
    """Watch those plain arrays among the arguments that the gradient needs."""
    held: set[int] = set()
    for _, pull in edges:
        for cell in getattr(pull, "__closure__", None) or ():
            value = cell.cell_contents
            for one in value if type(value) is tuple else (value,):
                held.add(id(one))
                held.add(id(getattr(one, "base", None)))
    if held:
        for a in args:
            if type(a) is ndarray and id(a) in held:
                tape.watch.add(a)


_add, _subtract, _multiply, _divide, _power = np.add, np.subtract, np.multiply, np.true_divide, np.power


class Variable:
    """A value inside a function that is being differentiated. It behaves as the NumPy array that it stands for.

    Its values never change: ``x += y`` gives the name ``x`` to a new value, and ``x[i] = y`` is an error.
    ``x.value`` is the array itself, through which no gradient flows.

    >>> from fastops import grad
    >>> grad(lambda x: (x[1:] * x[:-1]).sum())(np.array([1.0, 2.0, 3.0]))
    array([2., 4., 2.])
    """

    __slots__ = ("_node", "_tape", "_value")
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any, node: Node, tape: Tape) -> None:
        self._value = value
        self._node = node
        self._tape = tape

    # What it is

    @property
    def value(self) -> Any:
        """The plain array, read-only, or the variable of the next outer level. No gradient flows through it."""
        value = self._value
        if type(value) is np.ndarray:
            value = value.view()
            value.flags.writeable = False
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        return self._node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._node.dtype

    @property
    def ndim(self) -> int:
        return len(self._node.shape)

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def nbytes(self) -> int:
        return self._value.nbytes

    @property
    def itemsize(self) -> int:
        return self._node.dtype.itemsize

    @property
    def T(self) -> Any:
        return np.transpose(self)

    @property
    def mT(self) -> Any:
        return np.swapaxes(self, -1, -2)

    def __repr__(self) -> str:
        return f"Variable({self._value!r})"

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self._value)))

    def __bool__(self) -> bool:
        return bool(self._value)

    # What would lose the gradient

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "a value that is being differentiated cannot become a plain array, which would lose its gradient: use functions "
            "of numpy and fastops on it, np.stack or np.concatenate to build an array of several, or .value without gradient"
        )

    def __float__(self) -> float:
        raise TypeError("float() of a value that is being differentiated would lose its gradient; use .value where none is needed")

    def __int__(self) -> int:
        raise TypeError("int() of a value that is being differentiated would lose its gradient; use .value where none is needed")

    def __complex__(self) -> complex:
        raise TypeError("complex() of a value that is being differentiated: complex numbers are not supported")

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "the elements of a value that is being differentiated cannot be assigned: use np.where(mask, new, x), or build the "
            "array from its parts by np.concatenate or np.stack"
        )

    def __getattr__(self, name: str) -> Any:
        if hasattr(np.ndarray, name) and not name.startswith("__"):
            raise UnsupportedAttribute(f"ndarray.{name} is not supported on a value that is being differentiated")
        raise AttributeError(f"'Variable' object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        raise TypeError("a value that is being differentiated cannot be pickled or copied; use .value")

    def __copy__(self) -> Variable:
        return self

    # NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"{ufunc.__name__}.{method} is not supported on a value that is being differentiated")
        handler = _handlers.get(ufunc)
        if handler is None:
            raise _unknown(ufunc)
        if kwargs.pop("out", None) is not None:
            raise TypeError(_OUT.format(ufunc.__name__))
        return handler(*args, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        handler = _handlers.get(function)
        if handler is None:
            raise _unknown(function)
        return handler(*args, **kwargs)

    # Methods

    def sum(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        return RULES[np.sum](self, axis, dtype, out, keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        return RULES[np.mean](self, axis, dtype, out, keepdims)

    def max(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        return RULES[np.max](self, axis, out, keepdims)

    def min(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
        return RULES[np.min](self, axis, out, keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
        return RULES[np.prod](self, axis, dtype, out, keepdims)

    def var(self, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False) -> Any:
        return RULES[np.var](self, axis, dtype, out, ddof, keepdims)

    def std(self, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False) -> Any:
        return RULES[np.std](self, axis, dtype, out, ddof, keepdims)

    def cumsum(self, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
        return RULES[np.cumsum](self, axis, dtype, out)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        return RULES[np.reshape](self, shape[0] if len(shape) == 1 else shape, order)

    def transpose(self, *axes: Any) -> Any:
        return RULES[np.transpose](self, (axes[0] if len(axes) == 1 else axes) if axes else None)

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        return RULES[np.swapaxes](self, axis1, axis2)

    def ravel(self, order: str = "C") -> Any:
        return RULES[np.reshape](self, -1, order)

    def flatten(self, order: str = "C") -> Any:
        return RULES[np.reshape](self, -1, order)

    def squeeze(self, axis: Any = None) -> Any:
        return RULES[np.squeeze](self, axis)

    def clip(self, min: Any = None, max: Any = None, out: None = None) -> Any:
        return _handlers[np.clip](self, min, max, out)

    def dot(self, b: Any) -> Any:
        return _handlers[np.dot](self, b)

    def repeat(self, repeats: Any, axis: Any = None) -> Any:
        return _handlers[np.repeat](self, repeats, axis)

    def take(self, indices: Any, axis: Any = None) -> Any:
        return _handlers[np.take](self, indices, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        return _handlers[np.diagonal](self, offset, axis1, axis2)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        return _handlers[np.trace](self, offset, axis1, axis2)

    def copy(self, order: str = "C") -> Variable:
        return self  # values never change

    def astype(self, dtype: Any, **options: Any) -> Any:
        """As ``ndarray.astype``. Integers and booleans have no gradient: they are a plain array."""
        if np.dtype(dtype).kind != "f":
            return plain(self).astype(dtype, **options)
        return self if np.dtype(dtype) == self.dtype else apply(_astype, (self, dtype))

    def argmax(self, axis: Any = None, **options: Any) -> Any:
        return plain(self).argmax(axis, **options)

    def argmin(self, axis: Any = None, **options: Any) -> Any:
        return plain(self).argmin(axis, **options)

    def argsort(self, axis: Any = -1, **options: Any) -> Any:
        return plain(self).argsort(axis, **options)

    def any(self, axis: Any = None, **options: Any) -> Any:
        return plain(self).any(axis, **options)

    def all(self, axis: Any = None, **options: Any) -> Any:
        return plain(self).all(axis, **options)

    def nonzero(self) -> Any:
        return plain(self).nonzero()

    def __getitem__(self, index: Any) -> Any:
        return apply(RULES[getitem], (self, index))

    # Operators

    def __neg__(self) -> Any:
        return apply(RULES[np.negative], (self,))

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return apply(RULES[np.abs], (self,))

    def __add__(self, other: Any) -> Any:
        return apply(RULES[_add], (self, other))

    def __radd__(self, other: Any) -> Any:
        return apply(RULES[_add], (other, self))

    def __sub__(self, other: Any) -> Any:
        return apply(RULES[_subtract], (self, other))

    def __rsub__(self, other: Any) -> Any:
        return apply(RULES[_subtract], (other, self))

    def __mul__(self, other: Any) -> Any:
        return apply(RULES[_multiply], (self, other))

    def __rmul__(self, other: Any) -> Any:
        return apply(RULES[_multiply], (other, self))

    def __truediv__(self, other: Any) -> Any:
        return apply(RULES[_divide], (self, other))

    def __rtruediv__(self, other: Any) -> Any:
        return apply(RULES[_divide], (other, self))

    def __pow__(self, other: Any) -> Any:
        return apply(RULES[_power], (self, other))

    def __rpow__(self, other: Any) -> Any:
        return apply(RULES[_power], (other, self))

    def __matmul__(self, other: Any) -> Any:
        return apply(RULES[np.matmul], (self, other))

    def __rmatmul__(self, other: Any) -> Any:
        return apply(RULES[np.matmul], (other, self))

    def __mod__(self, other: Any) -> Any:
        return apply(RULES[np.remainder], (self, other))

    def __rmod__(self, other: Any) -> Any:
        return apply(RULES[np.remainder], (other, self))

    def __floordiv__(self, other: Any) -> Any:
        return plain(self) // plain(other)

    def __rfloordiv__(self, other: Any) -> Any:
        return plain(other) // plain(self)

    def __lt__(self, other: Any) -> Any:
        return plain(self) < plain(other)

    def __le__(self, other: Any) -> Any:
        return plain(self) <= plain(other)

    def __gt__(self, other: Any) -> Any:
        return plain(self) > plain(other)

    def __ge__(self, other: Any) -> Any:
        return plain(self) >= plain(other)

    def __eq__(self, other: Any) -> Any:
        return plain(self) == plain(other)

    def __ne__(self, other: Any) -> Any:
        return plain(self) != plain(other)


def _unknown(function: Any) -> TypeError:
    name = getattr(function, "__name__", str(function))
    module = getattr(function, "__module__", None)
    full = name if isinstance(function, np.ufunc) or not module else f"{module}.{name}"
    return TypeError(
        f"{full} has no gradient rule, so it cannot be applied to a value that is being differentiated; use other functions, "
        f".value where no gradient is needed, or add one by fastops.autodiff.rule"
    )


def _astype_run(x: Any, dtype: Any) -> tuple[Any, Pull]:
    own = x.dtype
    return x.astype(dtype), lambda g: g.astype(own)


_astype = Rule("astype", _astype_run)
