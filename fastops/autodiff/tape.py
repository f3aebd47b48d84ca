"""What is recorded, and the walk back through it.

A call of :func:`~fastops.vjp` opens a :class:`Tape`. Every operation on a value that belongs to it leaves a :class:`Node`
that knows the nodes of its arguments and, for each, a function that turns the gradient with respect to the result into the
gradient with respect to that argument. Nodes refer backwards only, so that what nobody needs is freed at once, and the
backward pass frees the rest as it goes: it holds a node only until the node has handed on its gradient.

The walk takes nodes from a heap, youngest first: a node is older than all that was made of it, so its gradient is complete
when its turn comes. Nothing recurses, however long the chain.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np
from numpy import ndarray

Pull = Callable[[Any], Any]

# Both are atomic under the interpreter's lock. Keys fall, so that a heap, whose top is the smallest, gives the youngest.
new_key = count(0, -1).__next__
_new_level = count(1).__next__


class Tape:
    """One level of differentiation: an inner one opens later, and has a higher number."""

    __slots__ = ("closed", "level", "watch")

    def __init__(self) -> None:
        self.level = _new_level()
        self.closed = False
        self.watch = Watch()


class Node:
    """A value that was recorded, without the value itself.

    Attributes:
        key: the smaller, the younger.
        shape, dtype: of the value, and so of its gradient.
        name: of the operation that made it.
        edges: a pair for each argument that is differentiated: its node, and what turns the gradient of this value into
            one of that argument. None for a primal.
    """

    __slots__ = ("dtype", "edges", "key", "name", "shape")

    def __init__(self, name: str, value: Any, edges: list[tuple[Node, Pull]] | None) -> None:
        self.key = new_key()
        self.shape = value.shape
        self.dtype = value.dtype
        self.name = name
        self.edges = edges

    def gradients(self, grad: Any, watch: Watch) -> Iterable[tuple[Node, Any]]:
        """The gradient of each argument with its node, for nodes that have a way of their own instead of edges."""
        raise NotImplementedError


class Grads:
    """The gradients of several results on their way to the node of the call: they meet there, and are not summed."""

    __slots__ = ("grads",)

    dtype = None

    def __init__(self, grads: list[Any]) -> None:
        self.grads = grads

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.grads),)

    def __add__(self, other: Grads) -> Grads:
        return Grads([a if b is None else b for a, b in zip(self.grads, other.grads)])


class ResultNode(Node):
    """One of several results of a call, whose node is ``call``."""

    __slots__ = ("call", "index")

    def __init__(self, value: Any, call: Node, index: int) -> None:
        super().__init__(call.name, value, [])
        self.call = call
        self.index = index

    def gradients(self, grad: Any, watch: Watch) -> Iterable[tuple[Node, Any]]:
        grads: list[Any] = [None] * self.call.shape[0]
        grads[self.index] = grad
        return [(self.call, Grads(grads))]


class Part:
    """A gradient that is zero but for ``index``. Parts are added into one array: a loop over rows stays linear."""

    __slots__ = ("grad", "index", "unique")

    def __init__(self, index: Any, grad: Any, unique: bool) -> None:
        self.index = index
        self.grad = grad
        self.unique = unique

    def add_to(self, whole: Any) -> None:
        if self.unique:
            whole[self.index] += self.grad
        else:
            np.add.at(whole, self.index, self.grad)


CHANGED = "an array whose values the gradient needs was changed in place after it was used; change a copy, or change it after the pullback has run"

# Arrays of up to this many bytes are compared whole, larger ones at this many places spread evenly.
_WHOLE = 1 << 14
_PLACES = 512


def fingerprint(array: Any) -> bytes:
    """What tells an array from itself after most changes: all of a small one, samples of a large one in under 2 us.

    >>> x = np.zeros(100_000)
    >>> before = fingerprint(x)
    >>> x += 1
    >>> fingerprint(x) == before
    False
    """
    if array.nbytes <= _WHOLE:
        return array.tobytes()
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return flat[:: array.size // _PLACES].tobytes() + flat[-1:].tobytes()


class Watch:
    """Notices when somebody writes into an array that a gradient needs.

    Only arrays that somebody else can reach are watched: primals, constants and results. Views count as the array whose
    memory they show.
    """

    __slots__ = ("_seen", "_sound")

    def __init__(self) -> None:
        # By the object that owns the memory: nearly always the array itself.
        self._seen: dict[int, list[tuple[weakref.ref[Any], bytes]]] = {}
        self._sound: set[int] = set()  # compared in this backward pass

    def add(self, array: Any) -> None:
        base = array.base
        owner = id(array if base is None else base)
        seen = self._seen.get(owner)
        if seen is None:
            self._seen[owner] = [(weakref.ref(array), fingerprint(array))]
        elif not self.knows(array):
            seen.append((weakref.ref(array), fingerprint(array)))

    def knows(self, array: Any) -> bool:
        base = array.base
        for known, _ in self._seen.get(id(array if base is None else base), ()):
            if known() is array:
                return True
        return False

    def begin(self) -> None:
        """A backward pass begins; nobody is supposed to write into anything until it ends."""
        self._sound.clear()

    def changed(self, value: Any) -> bool:
        """Whether an array, or one in tuples and lists of them, is not what it was."""
        if type(value) is ndarray:
            base = value.base
            owner = id(value if base is None else base)
            if owner in self._seen and owner not in self._sound:
                for known, before in self._seen[owner]:
                    array = known()
                    if array is not None and fingerprint(array) != before:
                        return True
                self._sound.add(owner)
        elif isinstance(value, (tuple, list)):
            for one in value:
                if type(one) is not int and self.changed(one):
                    return True
        return False


def unbroadcast(grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum over the axes that broadcasting added or stretched.

    >>> unbroadcast(np.ones((4, 2, 3)), (2, 1))
    array([[12.],
           [12.]])
    """
    extra = grad.ndim - len(shape)
    stretched = (i for i, n in enumerate(shape, extra) if n == 1 != grad.shape[i])
    return grad.sum(axis=(*range(extra), *stretched)).reshape(shape)


def _named(error: Exception, name: str) -> Exception:
    """The same error, which also says in which gradient it came up."""
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"gradient of {name}: {error.args[0]}",)
        return error
    return RuntimeError(f"gradient of {name}: {type(error).__name__}: {error}")


class _Pending:
    """The gradients on their way: node and sum so far, and whether that sum is an array that nobody else holds."""

    __slots__ = ("heap", "sums")

    def __init__(self) -> None:
        self.heap: list[int] = []
        self.sums: dict[int, list[Any]] = {}

    def add(self, node: Node, grad: Any) -> None:
        entry = self.sums.get(node.key)
        if type(grad) is Part:
            return self._add_part(node, entry, grad)
        if grad.shape != node.shape:
            grad = unbroadcast(grad, node.shape)
        if grad.dtype is not node.dtype and grad.dtype != node.dtype:
            grad = grad.astype(node.dtype)
        if entry is None:
            self.sums[node.key] = [node, grad, False]
            heappush(self.heap, node.key)
        elif entry[2] and type(grad) is ndarray:
            entry[1] += grad
        else:
            total = entry[1] + grad
            entry[1], entry[2] = total, type(total) is ndarray

    def _add_part(self, node: Node, entry: list[Any] | None, part: Part) -> None:
        if entry is None:
            entry = self.sums[node.key] = [node, np.zeros(node.shape, node.dtype), True]
            heappush(self.heap, node.key)
        elif not entry[2]:
            if not isinstance(entry[1], (ndarray, np.generic)):  # of an outer level, where adding to it is recorded
                whole = np.zeros(node.shape, node.dtype)
                part.add_to(whole)
                entry[1] = entry[1] + whole
                return
            entry[1], entry[2] = np.array(entry[1]), True
        part.add_to(entry[1])


def _pulled(edges: list[tuple[Node, Pull]], grad: Any, changed: Callable[[Any], bool]) -> Iterator[tuple[Node, Any]]:
    """The gradient of each argument with its node, one after the other."""
    for parent, pull in edges:
        for cell in getattr(pull, "__closure__", None) or ():
            if changed(cell.cell_contents):
                raise ValueError(CHANGED)
        yield parent, pull(grad)


def walk_back(seeds: list[tuple[Node, Any]], watch: Watch) -> dict[int, tuple[Any, bool]]:
    """The gradients of the primals that were reached, by key; and whether each is an array that nobody else holds.

    Empties ``seeds``, the nodes to begin with and their gradients, lest the list keep the nodes alive.
    """
    watch.begin()
    pending = _Pending()
    while seeds:
        pending.add(*seeds.pop())
    found: dict[int, tuple[Any, bool]] = {}
    sums, heap, add, changed = pending.sums, pending.heap, pending.add, watch.changed
    while heap:
        node, grad, own = sums.pop(heappop(heap))
        if node.edges is None:
            found[node.key] = grad, own
            continue
        try:
            if type(node) is not Node:
                pairs = node.gradients(grad, watch)
            else:
                pairs = _pulled(node.edges, grad, changed)
            for parent, d in pairs:
                key = parent.key
                if key not in sums and type(d) is ndarray and d.shape == parent.shape and d.dtype is parent.dtype:
                    sums[key] = [parent, d, False]  # the usual case of add(parent, d)
                    heappush(heap, key)
                else:
                    add(parent, d)
        except Exception as error:
            named = _named(error, node.name)
            if named is error:
                raise
            raise named from error
    return found
