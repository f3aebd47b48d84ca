"""Sums, means, extremes and norms along axes. Elements that tie for an extreme share the gradient evenly."""

from __future__ import annotations

from math import prod

import numpy as np

from fastops.autodiff.variable import composite, constant, plain, rule

# Up to this many elements, writing them out beats the 4 us that np.broadcast_to takes.
_SMALL = 4096


def axes_of(ndim, axis):
    """All axes for None; otherwise those named, none negative."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in axis) if isinstance(axis, tuple) else (axis % ndim,)


def kept(shape, axis):
    """The shape of a reduction with ``keepdims=True``."""
    if axis is None:
        return (1,) * len(shape)
    reduced = axes_of(len(shape), axis)
    return tuple(1 if a in reduced else n for a, n in enumerate(shape))


def spread(g, shape, axis):
    """A reduction's gradient for each element that went into it."""
    if isinstance(g, (np.ndarray, np.generic)) and prod(shape) <= _SMALL:
        whole = np.empty(shape, g.dtype)
        whole[...] = g if axis is None and g.ndim == 0 else g.reshape(kept(shape, axis))
        return whole
    return np.broadcast_to(g.reshape(kept(shape, axis)), shape)


def count_of(shape, axis):
    return prod(shape[a] for a in axes_of(len(shape), axis))


@rule(np.sum)
def _sum(a, axis=None, dtype=None, out=None, keepdims=False):
    shape = a.shape
    return np.sum(a, axis=axis, dtype=dtype, keepdims=keepdims), lambda g: spread(g, shape, axis)


@rule(np.mean)
def _mean(a, axis=None, dtype=None, out=None, keepdims=False):
    shape = a.shape
    count = count_of(shape, axis)
    return np.mean(a, axis=axis, dtype=dtype, keepdims=keepdims), lambda g: spread(g / count, shape, axis)


@rule(np.var)
def _var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
    shape = a.shape
    count = count_of(shape, axis)

    def pull(g):
        centred = a - np.mean(a, axis=axis, keepdims=True)
        return spread(g * (2 / (count - ddof)), shape, axis) * centred

    return np.var(a, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims), pull


@rule(np.std)
def _std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False):
    shape = a.shape
    count = count_of(shape, axis)
    y = np.std(a, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims)

    def pull(g):
        centred = a - np.mean(a, axis=axis, keepdims=True)
        # Where all are equal it is the subgradient 0, as in PyTorch.
        return spread(g / (np.where(plain(y) == 0, 1, y) * (count - ddof)), shape, axis) * centred

    return y, pull


def _extreme(function, a, axis, keepdims):
    shape = a.shape
    y = function(a, axis=axis, keepdims=keepdims)

    def pull(g):
        best = plain(a) == plain(y).reshape(kept(shape, axis))
        share = best / best.sum(axis=axis, keepdims=True)
        return spread(g, shape, axis) * share.astype(y.dtype)

    return y, pull


@rule(np.max)
def _max(a, axis=None, out=None, keepdims=False):
    return _extreme(np.max, a, axis, keepdims)


@rule(np.min)
def _min(a, axis=None, out=None, keepdims=False):
    return _extreme(np.min, a, axis, keepdims)


@rule(np.prod)
def _prod(a, axis=None, dtype=None, out=None, keepdims=False):
    shape = a.shape
    y = np.prod(a, axis=axis, dtype=dtype, keepdims=keepdims)
    return y, lambda g: spread(g, shape, axis) * product_of_others(a, axis)


def product_of_others(a, axis):
    """For each element the product of the others along the axes, without dividing: a factor may be zero."""
    reduced = axes_of(a.ndim, axis)
    last = tuple(range(-len(reduced), 0))
    moved = np.moveaxis(a, reduced, last)
    row = np.reshape(moved, (*moved.shape[: a.ndim - len(reduced)], -1))
    if row.shape[-1] == 0:
        return np.ones(a.shape, a.dtype)
    one = np.ones((*row.shape[:-1], 1), row.dtype)
    before, after = [one], [one]
    for i in range(row.shape[-1] - 1):
        before.append(before[-1] * row[..., i : i + 1])
        after.append(after[-1] * row[..., row.shape[-1] - 1 - i : row.shape[-1] - i])
    others = np.concatenate(before, axis=-1) * np.concatenate(after[::-1], axis=-1)
    return np.moveaxis(np.reshape(others, moved.shape), last, reduced)


@rule(np.cumsum)
def _cumsum(a, axis=None, dtype=None, out=None):
    shape = a.shape
    along = 0 if axis is None else axis

    def pull(g):
        return np.reshape(np.flip(np.cumsum(np.flip(g, along), axis=along), along), shape)

    return np.cumsum(a, axis=axis, dtype=dtype), pull


@rule("norm")
def _euclidean(x, axis, keepdims):
    shape = x.shape
    y = np.linalg.norm(x, axis=axis, keepdims=keepdims) if len(axes_of(x.ndim, axis)) < 3 else np.sqrt(np.sum(x * x, axis, keepdims=keepdims))
    # At the origin the gradient is the subgradient 0, as in PyTorch.
    return y, lambda g: spread(g / np.where(plain(y) == 0, 1, y), shape, axis) * x


@composite(np.linalg.norm)
def _norm(x, ord=None, axis=None, keepdims=False):
    if not isinstance(axis, tuple) and axis is not None:
        axis = (int(axis),)
    if ord is None or (ord == 2 and len(axes_of(x.ndim, axis)) == 1) or (ord == "fro" and len(axes_of(x.ndim, axis)) == 2):
        return _euclidean(x, axis, keepdims)
    if len(axes_of(x.ndim, axis)) != 1 or isinstance(ord, str):
        raise TypeError(f"norm: ord={ord!r} of a matrix is not supported where a value is differentiated")
    size = np.abs(x)
    if ord == 0:
        return np.sum(plain(x) != 0, axis=axis, keepdims=keepdims).astype(x.dtype)
    if np.isinf(ord):
        return (np.max if ord > 0 else np.min)(size, axis=axis, keepdims=keepdims)
    return np.sum(size, axis=axis, keepdims=keepdims) if ord == 1 else _powers(size, ord, axis, keepdims)


@rule("norm")
def _powers(size, p, axis, keepdims):
    """(sum of size**p)**(1 / p) of numbers that are not negative. Where the result is 0, and for p < 1 at a 0, the subgradient is 0."""
    shape = size.shape
    y = np.linalg.norm(size, p, axis[0] if axis is not None else None, keepdims)

    def pull(g):
        moving = (plain(size) != 0) & (spread(plain(y), shape, axis) != 0)
        ratio = np.where(moving, size, 1) / spread(np.where(plain(y) == 0, 1, y), shape, axis)
        return spread(g, shape, axis) * np.where(moving, ratio ** (p - 1), 0)

    return y, pull


@composite(np.average)
def _average(a, axis=None, weights=None):
    if weights is None:
        return np.mean(a, axis=axis)
    if np.ndim(weights) == 1 and np.ndim(a) > 1:
        weights = np.reshape(weights, [-1 if i == axis % np.ndim(a) else 1 for i in range(np.ndim(a))])
        weights = np.broadcast_to(weights, np.shape(a))
    return np.sum(a * weights, axis=axis) / np.sum(weights, axis=axis)


@composite(np.ptp)
def _ptp(a, axis=None, out=None, keepdims=False):
    return np.max(a, axis=axis, keepdims=keepdims) - np.min(a, axis=axis, keepdims=keepdims)


@composite(np.diff)
def _diff(a, n=1, axis=-1):
    for _ in range(n):
        ahead, behind = [slice(None)] * a.ndim, [slice(None)] * a.ndim
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        a = a[tuple(ahead)] - a[tuple(behind)]
    return a


constant(
    np.argmax, np.argmin, np.argsort, np.argpartition, np.argwhere, np.nonzero, np.flatnonzero, np.count_nonzero, np.searchsorted,
    np.any, np.all, np.nanargmax, np.nanargmin, np.unique, np.histogram, np.digitize, np.bincount,
)  # fmt: skip
