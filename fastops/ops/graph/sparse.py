"""Products with a sparse matrix, given as compressed sparse rows: indptr (M + 1,), indices (nnz,), data (nnz,).

    spmm:  y[i] = the sum, mean, max or min of a[k] b[indices[k]] over indptr[i] <= k < indptr[i + 1]
           da[k] = dy[i(k)] . b[indices[k]],   db[j] = sum of a[k] dy[i(k)] over indices[k] = j
    sddmm: y[k] = a[i(k)] . b[indices[k]], a dense product where the sparse matrix has entries
           da[i] = sum of dy[k] b[indices[k]],   db[j] = sum of dy[k] a[i(k)] over indices[k] = j

Each is made of the other: the gradient of a product by rows is one by columns, which is a scatter. Both arrays are needed
again.

Source: Gustavson, "Two Fast Algorithms for Sparse Matrices", ACM TOMS 4(3), 1978; the names are those of Deep Graph Library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.graph.arguments import given, output_gradient, shaped
from fastops.simd import segments
from fastops.simd.segments import MAX, MIN, SUM

_KINDS = {"sum": SUM, "mean": SUM, "max": MAX, "min": MIN}


def _pattern(op: str, indptr: Any, indices: Any, columns: int) -> tuple[Array, Array]:
    """Where the entries are: checked starts of rows, and columns of entries."""
    at = segments.indices(op, "indices", indices)
    if at.ndim != 1:
        raise ValueError(f"{op}: indices must have shape (entries,), got {at.shape}")
    segments.in_range(op, "indices", at, columns)
    return segments.row_starts(op, "indptr", indptr, at.size), at


def _rows_of(starts: Array) -> Array:
    """The row of each entry."""
    return np.repeat(np.arange(starts.size - 1), np.diff(starts))


def _dense(op: str, name: str, array: Array) -> Array:
    """A matrix; a vector is one of one column."""
    if array.ndim not in (1, 2):
        raise ValueError(f"{op}: {name} must have shape (rows, features) or (rows,), got {array.shape}")
    return array if array.ndim == 2 else array[:, None]


def _spmm_arguments(op: str, indptr: Any, indices: Any, data: Array | None, dense: Array, reduce: str) -> tuple[Array, Array, Array]:
    _check.choice(op, "reduce", reduce, tuple(_KINDS))
    matrix = _dense(op, "dense", dense)
    starts, at = _pattern(op, indptr, indices, matrix.shape[0])
    shaped(op, "data", data, at.shape)
    return starts, at, matrix


@operation
def spmm(indptr: ArrayLike, indices: ArrayLike, data: ArrayLike | None, dense: ArrayLike, reduce: str = "sum") -> Array:
    """A sparse matrix times a dense one, its rows summed or reduced otherwise: ``torch.sparse.spmm_reduce``.

    Args:
        indptr: (M + 1,), where the entries of each row begin, from 0 to nnz.
        indices: (nnz,), the column of each entry, in any order, repeated or not.
        data: (nnz,), the entries; None: ones.
        dense: (N, F), or (N,).
        reduce: "sum", "mean" (over the entries of a row), "max" or "min".

    Returns:
        (M, F) or (M,), 0 for a row without entries, of dtype float16, float32 or float64. A row is summed in the order of
        its entries; ties of a maximum share its gradient evenly.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> spmm([0, 2, 2, 3], [0, 1, 0], np.array([1.0, 2.0, 3.0]), np.array([[1.0, 10.0], [2.0, 20.0]]))
    array([[ 5., 50.],
           [ 0.,  0.],
           [ 3., 30.]])
    """
    op = "spmm"
    (a, b), dtype = _check.as_arrays(op, optional="data", data=data, dense=dense)
    starts, at, matrix = _spmm_arguments(op, indptr, indices, a, b, reduce)
    if reduce in ("sum", "mean"):
        y = segments.total(starts, at, matrix, a, mean=reduce == "mean")
    else:
        y = segments.scatter(_KINDS[reduce], _rows_of(starts), starts.size - 1, matrix, at, a)
        y[np.diff(starts) == 0] = 0
    return y.reshape(starts.size - 1, *b.shape[1:]).astype(dtype, copy=False)


def spmm_backward(
    grad_output: ArrayLike, indptr: ArrayLike, indices: ArrayLike, data: ArrayLike | None, dense: ArrayLike, reduce: str = "sum",
    *, output_mask: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`spmm` with respect to data and dense; those that ``output_mask`` does not ask for are None.

    >>> import numpy as np
    >>> spmm_backward(np.ones((1, 2)), [0, 2], [0, 2], np.array([2.0, 3.0]), np.ones((3, 2)))[1]
    array([[2., 2.],
           [0., 0.],
           [3., 3.]])
    """
    op = "spmm_backward"
    (dy, a, b), dtype = _check.as_arrays(op, optional="data", grad_output=grad_output, data=data, dense=dense)
    starts, at, matrix = _spmm_arguments(op, indptr, indices, a, b, reduce)
    output_gradient(op, dy, (starts.size - 1, *b.shape[1:]))
    dy = dy.reshape(starts.size - 1, matrix.shape[1])
    rows = _rows_of(starts)
    da = db = None
    if reduce in ("max", "min"):
        y = segments.scatter(_KINDS[reduce], rows, starts.size - 1, matrix, at, a)
        db, shares = segments.extremum_backward(rows, matrix, y, dy, at, a)
        if output_mask[0] and a is not None:
            values = segments.gather(matrix, at)
            chosen = values * a[:, None] == segments.gather(y, rows)
            da = np.where(chosen, values * segments.gather(shares, rows), 0).sum(axis=1)
        db = db if output_mask[1] else None
    else:
        if reduce == "mean":
            dy = dy / np.maximum(np.diff(starts), 1).astype(dy.dtype)[:, None]
        if output_mask[0] and a is not None:
            da = segments.dots(rows, at, dy, matrix)[:, 0]
        if output_mask[1]:
            db = segments.scatter(SUM, at, matrix.shape[0], dy, rows, a)
    return given(dtype, da, None if db is None else db.reshape(b.shape))


def _sddmm_arguments(op: str, indptr: Any, indices: Any, a: Array, b: Array) -> tuple[Array, Array]:
    left, right = _dense(op, "a", a), _dense(op, "b", b)
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"{op}: b must have as many features as a, {left.shape[1]}, got {right.shape[1]}")
    starts, at = _pattern(op, indptr, indices, right.shape[0])
    if starts.size != left.shape[0] + 1:
        raise ValueError(f"{op}: indptr must have shape ({left.shape[0] + 1},), one more than the rows of a, got {starts.shape}")
    return starts, at


@operation
def sddmm(indptr: ArrayLike, indices: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """The entries of ``a @ b.T`` at the places of a sparse matrix: a sampled dense-dense matrix product.

    Args:
        indptr, indices: as for :func:`spmm`; M rows, N columns.
        a: (M, F), or (M,).
        b: (N, F), or (N,).

    Returns:
        (nnz,), of dtype float16, float32 or float64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> sddmm([0, 1, 3], [1, 0, 1], np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    array([2., 3., 4.])
    """
    op = "sddmm"
    (left, right), dtype = _check.as_arrays(op, a=a, b=b)
    starts, at = _sddmm_arguments(op, indptr, indices, left, right)
    y = segments.dots(_rows_of(starts), at, _dense(op, "a", left), _dense(op, "b", right))
    return y.reshape(-1).astype(dtype, copy=False)


def sddmm_backward(
    grad_output: ArrayLike, indptr: ArrayLike, indices: ArrayLike, a: ArrayLike, b: ArrayLike,
    *, output_mask: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`sddmm` with respect to a and b; those that ``output_mask`` does not ask for are None.

    >>> import numpy as np
    >>> sddmm_backward(np.array([5.0]), [0, 1], [1], np.array([[1.0, 2.0]]), np.zeros((2, 2)))[1]
    array([[ 0.,  0.],
           [ 5., 10.]])
    """
    op = "sddmm_backward"
    (dy, left, right), dtype = _check.as_arrays(op, grad_output=grad_output, a=a, b=b)
    starts, at = _sddmm_arguments(op, indptr, indices, left, right)
    output_gradient(op, dy, at.shape)
    da = db = None
    if output_mask[0]:
        da = segments.total(starts, at, _dense(op, "b", right), dy).reshape(left.shape)
    if output_mask[1]:
        db = segments.scatter(SUM, at, right.shape[0], _dense(op, "a", left), _rows_of(starts), dy).reshape(right.shape)
    return given(dtype, da, db)


register(spmm, spmm_backward, inputs=("data", "dense"), saved=("data", "dense"))
register(sddmm, sddmm_backward, inputs=("a", "b"), saved=("a", "b"))
