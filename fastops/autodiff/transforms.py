"""vjp, grad, value_and_grad, checkpoint: functions of functions.

The product of a vector with the Jacobian of a function, computed by walking its recorded operations backwards. Source:
Griewank, Walther, "Evaluating Derivatives" (2008), chapter 3; checkpoints: Chen, Xu, Zhang, Guestrin, "Training Deep Nets
with Sublinear Memory Cost" (2016), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from fastops.autodiff import rules as rules
from fastops.autodiff.operations import following, innermost
from fastops.autodiff.tape import CHANGED, Grads, Node, ResultNode, Tape, Watch, fingerprint, walk_back
from fastops.autodiff.trees import leaves, matched, rebuilt
from fastops.autodiff.variable import ENDED, Variable

Gradients = tuple[Any, ...]

_LEAF = np.empty(0)


def vjp(fn: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Gradients]]:
    """The value of a function, and the pullback: what turns a gradient with respect to it into gradients of its arguments.

    Args:
        fn: takes as many arguments as there are primals. It may use the operations of fastops, operators, indexing, methods
            of arrays and functions of NumPy; what has no gradient rule raises a TypeError that names it.
        primals: arrays of floating-point numbers, or dicts, lists and tuples of them (None stands for nothing).

    Returns:
        (y, pullback): what ``fn`` returns, an array or dicts, lists and tuples of arrays, and
        ``pullback(cotangent, *, keep=False)``. The cotangent has the structure of ``y`` and the shapes of its arrays; None
        stands for zeros. The pullback returns a tuple with a gradient for each primal, in its structure, shape and dtype;
        a primal that does not matter gets zeros. What it needs is freed as it goes, so that it can be called once; with
        ``keep=True`` it can be called again.

    Raises:
        TypeError: a primal is not of floating-point numbers, or ``fn`` uses what cannot be differentiated.
        ValueError: the cotangent has another structure or shape than ``y``; the pullback is called again; or an array that
            it needs was changed in place meanwhile.

    >>> import numpy as np
    >>> y, pullback = vjp(lambda x, w: np.tanh(x @ w), np.ones((2, 3)), np.zeros((3, 1)))
    >>> y.shape
    (2, 1)
    >>> dx, dw = pullback(np.ones((2, 1)))
    >>> dw
    array([[2.],
           [2.],
           [2.]])
    """
    y, _, pullback = _trace("vjp", fn, primals)
    return y, pullback


def grad(fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The function that computes the gradient of ``fn``, which returns one number.

    Args:
        fn: a function whose result is a scalar.
        argnums: the position of the argument to differentiate with respect to, or several.
        has_aux: ``fn`` returns (result, aux), and the gradient function (gradient, aux); aux is anything.

    Returns:
        A function of the arguments of ``fn``: the gradient in the structure of the argument, or a tuple of them for several.

    Raises:
        TypeError, ValueError: when it is called, as :func:`vjp`, or the result is not a scalar.

    >>> import numpy as np
    >>> grad(lambda x: (x**3).sum())(np.array([1.0, 2.0]))
    array([ 3., 12.])
    >>> grad(grad(lambda x: x**3))(2.0)
    np.float64(12.0)
    """
    both = _value_and_grad("grad", fn, argnums, has_aux)

    @wraps(fn)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def value_and_grad(fn: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """As :func:`grad`, for a function that returns (value, gradient); ((value, aux), gradient) with ``has_aux``.

    >>> import numpy as np
    >>> params = {"w": np.array([1.0, 2.0]), "b": 0.5}
    >>> value_and_grad(lambda p, x: (p["w"] * x).sum() + p["b"])(params, 3.0)
    (np.float64(9.5), {'w': array([3., 3.]), 'b': np.float64(1.0)})
    """
    return _value_and_grad("value_and_grad", fn, argnums, has_aux)


def _value_and_grad(op: str, fn: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool) -> Callable[..., Any]:
    if not callable(fn):
        raise TypeError(f"{op}: fn must be a function, got {type(fn).__name__}")
    several = isinstance(argnums, (tuple, list))
    wanted = tuple(argnums) if isinstance(argnums, (tuple, list)) else (argnums,)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in wanted) or len(set(wanted)) < len(wanted):
        raise TypeError(f"{op}: argnums must be an integer or several different ones, got {argnums!r}")

    @wraps(fn)
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if not all(-len(args) <= i < len(args) for i in wanted):
            raise ValueError(f"{op}: argnums must be among the {len(args)} positional arguments of the call, got {argnums!r}")

        def of_wanted(*values: Any) -> Any:
            given = list(args)
            for i, value in zip(wanted, values):
                given[i] = value
            return fn(*given, **kwargs)

        y, aux, pullback = _trace(op, of_wanted, tuple([args[i] for i in wanted]), has_aux)
        if isinstance(y, (tuple, list, dict)) or y is None or np.shape(y) != ():
            got = f"an array of shape {np.shape(y)}" if isinstance(y, (np.ndarray, Variable)) else f"a {type(y).__name__}"
            raise ValueError(f"{op}: fn must return a scalar, got {got}; use vjp for other results")
        found = pullback(1.0)
        return (y, aux) if has_aux else y, found if several else found[0]

    return differentiated


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which keeps nothing but its arguments for the backward pass, and runs again there.

    Saves memory and costs a second forward pass. ``fn`` must give the same result when it runs again (random operations in
    it need a seed as ``rng``), and all that is differentiated must come to it as arguments.

    Args:
        fn: takes and returns arrays, or dicts, lists and tuples of them.

    Returns:
        A function of the same arguments.

    Raises:
        ValueError: in the backward pass, when the result is another one.
        TypeError: ``fn`` uses a value that is differentiated and not among its arguments.

    >>> import numpy as np
    >>> block = checkpoint(lambda x: np.tanh(np.sin(np.exp(x))))
    >>> float(grad(block)(0.5)) == float(grad(lambda x: np.tanh(np.sin(np.exp(x))))(0.5))
    True
    """
    if not callable(fn):
        raise TypeError(f"checkpoint: fn must be a function, got {type(fn).__name__}")

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = [leaf for _, leaf in leaves((args, kwargs))]
        tape = innermost(given, None)
        if tape is None:
            return fn(*args, **kwargs)
        if tape.closed:
            raise ValueError(f"checkpoint: a value was kept from a function that {ENDED}")

        def lowered(value: Any) -> Any:
            return value._value if type(value) is Variable and value._tape is tape else value

        values = [lowered(leaf) for leaf in given]
        parents = [leaf._node if value is not leaf else None for leaf, value in zip(given, values)]

        def again(*variables: Any) -> Any:
            """``fn`` as a function of those leaves of its arguments that are differentiated."""
            moving, leaf = iter(variables), iter(zip(values, parents))

            def chosen(_: Any) -> Any:
                value, parent = next(leaf)
                return value if parent is None else next(moving)

            call_args, call_kwargs = rebuilt((args_shape, kwargs_shape), chosen)
            return fn(*call_args, **call_kwargs)

        args_shape, kwargs_shape = _hollow((args, kwargs))
        plain_args, plain_kwargs = rebuilt((args, kwargs), lowered)
        y = call(*plain_args, **plain_kwargs)
        results = [leaf for _, leaf in leaves(y)]
        if any(type(result) is Variable and result._tape is tape for result in results):
            raise TypeError("checkpoint: fn uses a value that is differentiated and not among its arguments; pass it as one")
        for value, parent in zip(values, parents):
            if parent is None and type(value) is np.ndarray:
                tape.watch.add(value)
        node = _CheckpointNode(again, values, parents, results)
        index = iter(range(len(results)))

        def recorded(value: Any) -> Any:
            i = next(index)
            if not isinstance(value, (np.ndarray, np.generic, Variable)) or value.dtype.kind != "f":
                return value
            return Variable(value, ResultNode(value, node, i), tape)

        return rebuilt(y, recorded)

    return call


class _CheckpointNode(Node):
    """A call of a function that runs again in the backward pass."""

    __slots__ = ("again", "parents", "prints", "values")

    def __init__(self, again: Callable[..., Any], values: list[Any], parents: list[Node | None], results: list[Any]) -> None:
        super().__init__("checkpoint", Grads([None] * len(results)), [])
        self.again = again
        self.values = values
        self.parents = parents
        self.prints = [fingerprint(r) if isinstance(r, (np.ndarray, np.generic)) else None for r in results]

    def gradients(self, grad: Any, watch: Watch) -> Iterator[tuple[Node, Any]]:
        if watch.changed(tuple(self.values)):
            raise ValueError(CHANGED)
        y, pullback = vjp(self.again, *(value for value, parent in zip(self.values, self.parents) if parent is not None))
        for before, (_, after) in zip(self.prints, leaves(y)):
            if isinstance(after, (np.ndarray, np.generic)) and before != fingerprint(after):
                raise ValueError("the function gave another result when it ran again; give random operations a seed")
        parts = iter(grad.grads)
        found = pullback(rebuilt(y, lambda _: next(parts)))
        yield from zip((parent for parent in self.parents if parent is not None), found)


def _trace(op: str, fn: Callable[..., Any], primals: Gradients, has_aux: bool = False) -> tuple[Any, Any, _Pullback]:
    """Run a function with variables in the place of the primals; its result, what goes with it, and the way back."""
    if not callable(fn):
        raise TypeError(f"{op}: fn must be a function, got {type(fn).__name__}")
    tape = Tape()
    nodes: list[tuple[Node, bool]] = []

    def variable(leaf: Any) -> Any:
        value = leaf if type(leaf) is np.ndarray and leaf.dtype.kind == "f" else _as_primal(op, leaf, primals)
        if type(value) is np.ndarray:
            tape.watch.add(value)
        node = Node("primal", value, None)
        nodes.append((node, isinstance(leaf, np.ndarray)))
        return Variable(value, node, tape)

    arguments = rebuilt(primals, variable)
    try:
        with following:
            result = fn(*arguments)
    finally:
        tape.closed = True

    def lowered(value: Any) -> Any:
        return value._value if type(value) is Variable and value._tape is tape else value

    aux = None
    if has_aux:
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{op}: fn must return a pair (result, aux) with has_aux=True, got {type(result).__name__}")
        result, aux = result[0], rebuilt(result[1], lowered)
    y = rebuilt(result, lowered)
    outputs = []
    for (_, leaf), (_, below) in zip(leaves(result), leaves(y)):
        outputs.append(leaf._node if below is not leaf else None)
        if below is not leaf and type(below) is np.ndarray:
            tape.watch.add(below)
    return y, aux, _Pullback(tape.watch, _hollow(primals), nodes, _hollow(y), outputs)


def _hollow(tree: Any) -> Any:
    """The containers without what is in them."""
    return rebuilt(tree, lambda _: _LEAF)


def _as_primal(op: str, leaf: Any, primals: Gradients) -> Any:
    if type(leaf) is Variable:
        return leaf
    value = np.float64(leaf) if type(leaf) is float else leaf
    if not isinstance(value, np.generic):
        try:
            value = np.asarray(leaf)
        except (TypeError, ValueError):
            value = np.empty((), object)
    if value.dtype.kind != "f":
        path = next(path for path, other in leaves(primals) if other is leaf)
        got = type(leaf).__name__ if value.dtype.kind in "OUS" or value.ndim == 0 else f"an array of {value.dtype}"
        raise TypeError(f"{op}: primals{path} must be an array of floating-point numbers, got {got}; close over what is not differentiated")
    return value


class _Pullback:
    """The way back from the results of a function to its primals."""

    def __init__(self, watch: Watch, primals: Gradients, nodes: list[tuple[Node, bool]], structure: Any, outputs: list[Node | None]) -> None:
        self._watch = watch
        self._primals = primals  # the containers, here and below, without what is in them
        self._nodes = nodes
        self._structure = structure
        self._outputs: list[Node | None] | None = outputs

    def __call__(self, cotangent: Any, *, keep: bool = False) -> Gradients:
        if self._outputs is None:
            raise ValueError("pullback: it was called before and has freed what it needs; call it with keep=True to call it again")
        seeds: list[tuple[Node, Any]] = []
        for node, (name, _, one) in zip(self._outputs, matched(self._structure, cotangent, "pullback: cotangent")):
            if node is not None and one is not None:
                seeds.append((node, _as_cotangent(name, one, node)))
        if not keep:
            self._outputs = None
        node = None
        held = {id(_owner(seed)) for _, seed in seeds}
        found = walk_back(seeds, self._watch)
        nodes = iter(self._nodes)

        def gradient(_: Any) -> Any:
            node, is_array = next(nodes)
            if node.key not in found:
                total = np.zeros(node.shape, node.dtype)
                return total if is_array or node.shape else total[()]
            total, own = found[node.key]
            if type(total) is Variable or (not is_array and not node.shape):
                return total if type(total) is Variable else total[()]
            total = np.asarray(total)
            if not own:
                # Gradients may share memory with one another, the cotangent, or themselves; those returned must not.
                owner = _owner(total)
                if id(owner) in held or not total.flags.writeable:
                    total = total.copy()
                held.add(id(owner))
            return total

        return rebuilt(self._primals, gradient)


def _owner(array: Any) -> Any:
    base = getattr(array, "base", None)
    return array if base is None else base


def _as_cotangent(name: str, value: Any, node: Node) -> Any:
    array = value if type(value) is Variable else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of floating-point numbers, got {array.dtype}")
    if array.shape != node.shape:
        raise ValueError(f"{name} must have the shape of the result, {node.shape}, got {array.shape}")
    return array
