"""Indexing, and functions that only move elements."""

from __future__ import annotations

from operator import getitem

import numpy as np

from fastops.autodiff.tape import Part
from fastops.autodiff.variable import Variable, apply, composite, constant, plain, primitive, rule

_WHERE = (int, slice, type(None), type(Ellipsis), np.integer)


@rule(getitem)
def _getitem(x, index):
    shape, dtype = x.shape, x.dtype
    index = _settled(index)
    items = index if isinstance(index, tuple) else (index,)
    # No element is met twice by slices, or by one array of booleans.
    unique = all(isinstance(i, _WHERE) or (len(items) == 1 and i.dtype == bool) for i in items)

    def pull(g):
        if type(g) is Variable:
            return _put(g, index, shape, dtype, unique)
        return Part(index, g, unique)

    return x[index], pull


def _settled(index):
    """An index that nobody can change any more, without variables and lists."""
    if isinstance(index, tuple):
        return tuple(_settled(i) for i in index)
    if isinstance(index, _WHERE):
        return index
    array = np.array(plain(index))
    return array.astype(np.intp) if array.size == 0 and array.dtype.kind == "f" else array


@primitive
def _put(g, index, shape, dtype, unique):
    """Zeros with ``g`` added at ``index``: the transpose of indexing."""
    if type(g) is Variable:  # of an outer level
        whole = _put(g, index, shape, dtype, unique)
    else:
        whole = np.zeros(shape, dtype)
        Part(index, g, unique).add_to(whole)
    return whole, lambda gg: gg[index]


@rule(np.reshape)
def _reshape(a, shape, order="C"):
    if order not in ("C", "F"):
        raise TypeError(f"reshape: order must be 'C' or 'F' where a value is differentiated, got {order!r}")
    before = a.shape
    return np.reshape(a, shape, order), lambda g: np.reshape(g, before, order)


@composite(np.ravel)
def _ravel(a, order="C"):
    return np.reshape(a, -1, order)


@rule(np.transpose)
def _transpose(a, axes=None):
    back = None if axes is None else np.argsort([axis % a.ndim for axis in axes])
    return np.transpose(a, axes), lambda g: np.transpose(g, back)


@composite(np.matrix_transpose)
def _matrix_transpose(x):
    return np.swapaxes(x, -1, -2)


@rule(np.swapaxes)
def _swapaxes(a, axis1, axis2):
    return np.swapaxes(a, axis1, axis2), lambda g: np.swapaxes(g, axis1, axis2)


@rule(np.moveaxis)
def _moveaxis(a, source, destination):
    return np.moveaxis(a, source, destination), lambda g: np.moveaxis(g, destination, source)


@composite(np.rollaxis)
def _rollaxis(a, axis, start=0):
    axis %= a.ndim
    start = start + a.ndim if start < 0 else start
    return np.moveaxis(a, axis, start - 1 if start > axis else start)


@rule(np.squeeze)
def _squeeze(a, axis=None):
    before = a.shape
    return np.squeeze(a, axis), lambda g: np.reshape(g, before)


@rule(np.expand_dims)
def _expand_dims(a, axis):
    before = a.shape
    return np.expand_dims(a, axis), lambda g: np.reshape(g, before)


@rule(np.broadcast_to)
def _broadcast_to(array, shape):
    return np.broadcast_to(array, shape), lambda g: g


@composite(np.broadcast_arrays)
def _broadcast_arrays(*args):
    shape = np.broadcast_shapes(*(np.shape(a) for a in args))
    return tuple(np.broadcast_to(a, shape) for a in args)


@composite(np.atleast_1d)
def _atleast_1d(*arys):
    return _at_least(arys, lambda a: np.reshape(a, (1,)) if np.ndim(a) < 1 else a)


@composite(np.atleast_2d)
def _atleast_2d(*arys):
    return _at_least(arys, lambda a: np.reshape(a, (1, -1)) if np.ndim(a) < 2 else a)


@composite(np.atleast_3d)
def _atleast_3d(*arys):
    return _at_least(arys, lambda a: np.expand_dims(np.atleast_2d(a), -1) if np.ndim(a) == 2 else np.reshape(a, (1, -1, 1)) if np.ndim(a) < 2 else a)


def _at_least(arys, change):
    changed = tuple(change(a) for a in arys)
    return changed[0] if len(changed) == 1 else changed


@rule("concatenate")
def _join(*arrays, axis):
    sizes = [np.shape(a)[axis] for a in arrays]
    ends = np.cumsum(sizes).tolist()
    lead = (slice(None),) * (axis % np.ndim(arrays[0]))
    return (
        np.concatenate(arrays, axis=axis),
        *(lambda g, end=end, n=n: g[(*lead, slice(end - n, end))] for end, n in zip(ends, sizes)),
    )


@composite(np.concatenate)
def _concatenate(arrays, axis=0, out=None):
    if type(arrays) is Variable:
        arrays = tuple(arrays)
    if axis is None:
        arrays, axis = [np.reshape(a, -1) for a in arrays], 0
    return apply(_join, tuple(a if type(a) is Variable else np.asarray(a) for a in arrays), {"axis": axis})


@composite(np.stack)
def _stack(arrays, axis=0, out=None):
    return np.concatenate([np.expand_dims(a, axis) for a in arrays], axis=axis)


@composite(np.vstack)
def _vstack(tup):
    return np.concatenate([np.atleast_2d(a) for a in tup])


@composite(np.hstack)
def _hstack(tup):
    arrays = [np.atleast_1d(a) for a in tup]
    return np.concatenate(arrays, axis=0 if arrays[0].ndim == 1 else 1)


@composite(np.dstack)
def _dstack(tup):
    return np.concatenate([np.atleast_3d(a) for a in tup], axis=2)


@composite(np.column_stack)
def _column_stack(tup):
    return np.concatenate([np.reshape(a, (-1, 1)) if np.ndim(a) < 2 else a for a in tup], axis=1)


@composite(np.append)
def _append(arr, values, axis=None):
    return np.concatenate([arr, values], axis=axis)


@composite(np.array_split)
def _array_split(ary, indices_or_sections, axis=0):
    # NumPy's own splitting of the positions says which go where.
    parts = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    return _cut(ary, parts, axis)


@composite(np.split)
def _split(ary, indices_or_sections, axis=0):
    return _cut(ary, np.split(np.arange(ary.shape[axis]), indices_or_sections), axis)


def _cut(ary, parts, axis):
    lead = (slice(None),) * (axis % ary.ndim)
    return [ary[(*lead, slice(int(p[0]), int(p[-1]) + 1) if p.size else slice(0, 0))] for p in parts]


@composite(np.hsplit)
def _hsplit(ary, indices_or_sections):
    return np.split(ary, indices_or_sections, axis=0 if ary.ndim == 1 else 1)


@composite(np.vsplit)
def _vsplit(ary, indices_or_sections):
    return np.split(ary, indices_or_sections, axis=0)


@composite(np.dsplit)
def _dsplit(ary, indices_or_sections):
    return np.split(ary, indices_or_sections, axis=2)


if hasattr(np, "unstack"):  # since NumPy 2.1

    @composite(np.unstack)
    def _unstack(x, *, axis=0):
        return tuple(np.moveaxis(x, axis, 0))


@composite(np.take)
def _take(a, indices, axis=None, out=None):
    indices = np.asarray(plain(indices))
    if axis is None:
        return np.reshape(a, -1)[indices]
    return a[(*(slice(None),) * (axis % a.ndim), indices)]


@composite(np.take_along_axis)
def _take_along_axis(arr, indices, axis=-1):
    indices = np.asarray(plain(indices))
    if axis is None:
        return np.reshape(arr, -1)[indices]
    axis %= arr.ndim
    index = [indices if a == axis else np.arange(n).reshape([-1 if b == a else 1 for b in range(arr.ndim)]) for a, n in enumerate(arr.shape)]
    return arr[tuple(index)]


@composite(np.compress)
def _compress(condition, a, axis=None, out=None):
    return np.take(a, np.flatnonzero(plain(condition)), axis=axis)


@composite(np.sort)
def _sort(a, axis=-1, kind=None):
    a, axis = (np.reshape(a, -1), 0) if axis is None else (a, axis)
    return np.take_along_axis(a, np.argsort(plain(a), axis=axis, kind=kind), axis)


@composite(np.repeat)
def _repeat(a, repeats, axis=None):
    a, axis = (np.reshape(a, -1), 0) if axis is None else (a, axis)
    return np.take(a, np.repeat(np.arange(a.shape[axis]), repeats), axis=axis)


@rule(np.tile)
def _tile(A, reps):
    reps = tuple(reps) if np.ndim(reps) else (int(reps),)
    reps = (1,) * (A.ndim - len(reps)) + reps
    before = A.shape
    shape = (1,) * (len(reps) - A.ndim) + before
    pairs = tuple(n for pair in zip(reps, shape) for n in pair)
    return np.tile(A, reps), lambda g: np.reshape(np.sum(np.reshape(g, pairs), axis=tuple(range(0, len(pairs), 2))), before)


@rule(np.flip)
def _flip(m, axis=None):
    return np.flip(m, axis), lambda g: np.flip(g, axis)


@composite(np.flipud)
def _flipud(m):
    return np.flip(m, 0)


@composite(np.fliplr)
def _fliplr(m):
    return np.flip(m, 1)


@composite(np.rot90)
def _rot90(m, k=1, axes=(0, 1)):
    first, second = axes
    k %= 4
    if k == 2:
        return np.flip(m, (first, second))
    if k == 1:
        return np.swapaxes(np.flip(m, second), first, second)
    return np.flip(np.swapaxes(m, first, second), second) if k == 3 else m


@rule(np.roll)
def _roll(a, shift, axis=None):
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -np.asarray(shift)
    return np.roll(a, shift, axis), lambda g: np.roll(g, back, axis)


@composite(np.pad)
def _pad(array, pad_width, mode="constant", constant_values=0, reflect_type="even"):
    if mode == "constant":
        return _padded(array, _widths(array.ndim, pad_width), constant_values)
    if reflect_type != "even":
        raise TypeError("pad: reflect_type must be 'even' where a value is differentiated")
    if mode in ("edge", "reflect", "symmetric", "wrap"):
        # NumPy pads the positions of the elements, and the elements follow them.
        positions = np.pad(np.arange(array.size).reshape(array.shape), pad_width, mode)
        return np.reshape(array, -1)[positions]
    raise TypeError(f"pad: mode {mode!r} is not supported where a value is differentiated")


@rule("pad")
def _padded(array, widths, constant_values):
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, array.shape))
    return np.pad(array, widths, constant_values=constant_values), lambda g: g[inside]


def _widths(ndim, pad_width):
    if isinstance(pad_width, dict):
        each = {axis % ndim: w for axis, w in pad_width.items()}
        pad_width = [each.get(axis, (0, 0)) for axis in range(ndim)]
        pad_width = [w if np.ndim(w) else (w, w) for w in pad_width]
    return np.broadcast_to(np.asarray(pad_width), (ndim, 2)).tolist()


@composite(np.diagonal)
def _diagonal(a, offset=0, axis1=0, axis2=1):
    a = np.moveaxis(a, (axis1, axis2), (-2, -1))
    rows, columns = _diagonal_places(a.shape, offset)
    return a[..., rows, columns]


def _diagonal_places(shape, offset):
    height, width = shape[-2:]
    count = max(min(height + min(offset, 0), width - max(offset, 0)), 0)
    return np.arange(count) + max(-offset, 0), np.arange(count) + max(offset, 0)


@composite(np.trace)
def _trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None):
    return np.sum(np.diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@composite(np.diag)
def _diag(v, k=0):
    if v.ndim == 2:
        return np.diagonal(v, k)
    size = v.shape[0] + abs(k)
    return _put(v, _diagonal_places((size, size), k), (size, size), v.dtype, True)


@composite(np.tril)
def _tril(m, k=0):
    return np.where(np.tri(m.shape[-2], m.shape[-1], k=k, dtype=bool), m, 0)


@composite(np.triu)
def _triu(m, k=0):
    return np.where(np.tri(m.shape[-2], m.shape[-1], k=k - 1, dtype=bool), 0, m)


@composite(np.copy)
def _copy(a, order="K"):
    return a


@composite(np.astype)
def _astype(x, dtype, /, *, copy=True):
    return x.astype(dtype)


constant(np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.full_like, np.empty_like, np.result_type, np.may_share_memory, np.shares_memory)
