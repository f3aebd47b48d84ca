"""Nested containers: dicts, lists, tuples (named ones too) and None, with anything else as their leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from numpy import ndarray


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with the indices that lead to it.

    >>> list(leaves({"w": [1, 2], "b": None}))
    [("['w'][0]", 1), ("['w'][1]", 2)]
    """
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    elif tree is not None:
        yield path, tree


def rebuilt(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The same containers with ``function(leaf)`` for every leaf, in the order of :func:`leaves`.

    >>> rebuilt({"w": [1, 2], "b": None}, float)
    {'w': [1.0, 2.0], 'b': None}
    """
    if isinstance(tree, dict):  # of arrays, as a rule
        return {key: function(value) if type(value) is ndarray else rebuilt(value, function) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [rebuilt(value, function) for value in tree]
        if isinstance(tree, list):
            return items
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return None if tree is None else function(tree)


def matched(tree: Any, other: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of ``tree`` with what stands in its place in ``other``: a leaf, or None for all that is below.

    >>> list(matched({"w": [1, 2]}, {"w": None}, "cotangent"))
    [("cotangent['w'][0]", 1, None), ("cotangent['w'][1]", 2, None)]
    >>> list(matched([1, 2], [1], "cotangent"))
    Traceback (most recent call last):
    ValueError: cotangent must have 2 entries, got 1
    """
    if isinstance(tree, dict):
        if other is not None and not (isinstance(other, dict) and other.keys() == tree.keys()):
            raise ValueError(f"{name} must be a dict with the keys {', '.join(map(repr, tree))}, got {_outline(other)}")
        for key, value in tree.items():
            yield from matched(value, None if other is None else other[key], f"{name}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        if other is not None and not isinstance(other, (list, tuple)):
            raise TypeError(f"{name} must be a {type(tree).__name__} of {len(tree)}, got {_outline(other)}")
        if other is not None and len(other) != len(tree):
            raise ValueError(f"{name} must have {len(tree)} entries, got {len(other)}")
        for index, value in enumerate(tree):
            yield from matched(value, None if other is None else other[index], f"{name}[{index}]")
    elif tree is not None:
        yield name, tree, other


def _outline(value: Any) -> str:
    return f"a dict with the keys {', '.join(map(repr, value))}" if isinstance(value, dict) else type(value).__name__
