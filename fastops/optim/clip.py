"""Clipping of gradients, as ``torch.nn.utils`` does it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops._jit import formula, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.autodiff.trees import leaves, rebuilt
from fastops.simd.maps import Map
from fastops.simd.reduce import span_dot

_BLOCK = 1 << 15


@formula
def _clip_scale(x, factor, unused):
    return x * factor


@formula
def _clip_clamp(x, limit, unused):
    x = -limit if x < -limit else x  # NaN stays
    return limit if x > limit else x


_SCALE = Map(__name__, _clip_scale, 0.1)
_CLAMP = Map(__name__, _clip_clamp, 0.1)


@separate
def _squares_block(block, worker, x, partial):
    start = block * _BLOCK
    partial[block] = span_dot(x, start, x, start, min(_BLOCK, x.size - start))


@launcher
def _squares(threads, x, partial):
    parallel(_squares_block, partial.size, threads, (x, partial))


def _norm(x: Array, order: float) -> float:
    if x.size == 0:
        return 0.0
    if order == 2:
        x = x.astype(np.float32) if x.dtype == np.float16 else x
        partial = empty(-(-x.size // _BLOCK))
        _squares(threads_for(x.size * 0.1), x.ravel(), partial)
        return float(np.sqrt(partial.sum()))
    return float(np.linalg.norm(x.ravel().astype(np.float64), order))


def _changed(op: str, grads: Any, the_map: Map, number: float, inplace: bool) -> Any:
    if not inplace:
        return rebuilt(grads, lambda leaf: the_map.of(op, leaf, number))
    for path, leaf in leaves(grads):
        if not isinstance(leaf, np.ndarray) or not leaf.flags.writeable:
            raise ValueError(f"{op}: grads{path} must be a writeable array where inplace is True")
    for _, leaf in leaves(grads):
        the_map.of(op, leaf, number, inplace=True)
    return grads


def clip_grad_norm(grads: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False, *, inplace: bool = False) -> tuple[Any, float]:
    """Gradients scaled down together so that their norm, as of one long vector, is at most ``max_norm``.

    Args:
        grads: arrays in dicts, lists and tuples; None among them is left alone.
        max_norm: the largest norm.
        norm_type: its order; ``inf`` for the largest magnitude.
        error_if_nonfinite: raise where the norm is NaN or infinite, instead of making all gradients NaN or 0.
        inplace: overwrite the gradients.

    Returns:
        (grads, norm before).

    Raises:
        ValueError: a negative ``max_norm``; the norm is not finite and that is an error; a gradient cannot be overwritten.
        TypeError: a gradient is no array of floating-point numbers.

    Source: Pascanu, Mikolov, Bengio, "On the Difficulty of Training Recurrent Neural Networks" (ICML 2013), algorithm 1.

    >>> clip_grad_norm({"w": np.array([3.0]), "b": np.array([4.0])}, 10.0)[1]
    5.0
    >>> clip_grad_norm([np.array([3.0]), np.array([4.0])], 1.0)[0][1].round(5)
    array([0.8])
    """
    op = "clip_grad_norm"
    limit, order = _limit(op, "max_norm", max_norm), _check.real(op, "norm_type", norm_type)
    if np.isnan(order):
        raise ValueError(f"{op}: norm_type must be a number, got {norm_type!r}")
    norms = np.array([_norm(_check.as_array(op, f"grads{path}", leaf), order) for path, leaf in leaves(grads)])
    total = float(np.linalg.norm(norms, order)) if norms.size else 0.0
    if error_if_nonfinite and not np.isfinite(total):
        raise ValueError(f"{op}: grads must have a finite norm where error_if_nonfinite is True, got {total}")
    factor = limit / (total + 1e-6)  # torch's addend
    if factor >= 1:
        return grads, total
    return _changed(op, grads, _SCALE, factor, inplace), total


def clip_grad_value(grads: Any, clip_value: float, *, inplace: bool = False) -> Any:
    """Gradients with each element brought into [-clip_value, clip_value].

    Args:
        grads: arrays in dicts, lists and tuples; None among them is left alone.
        clip_value: the largest magnitude.
        inplace: overwrite the gradients.

    Returns:
        The gradients in the same structure.

    Raises:
        TypeError, ValueError: a negative ``clip_value``; a gradient is no array of floating-point numbers, or cannot be overwritten.

    >>> clip_grad_value([np.array([-3.0, 0.5])], 1.0)
    [array([-1. ,  0.5])]
    """
    return _changed("clip_grad_value", grads, _CLAMP, _limit("clip_grad_value", "clip_value", clip_value), inplace)


def _limit(op: str, name: str, value: Any) -> float:
    limit = _check.real(op, name, value)
    if not limit >= 0:
        raise ValueError(f"{op}: {name} must be at least 0, got {value!r}")
    return limit
