"""gather, scatter and segments: rows of an array by index, and their sums, means, extrema, products and softmax by destination.

    gather:          y[e] = x[index[e]]                          dx[j] = sum of dy[e] over index[e] = j
    scatter, sum:    y[d] = sum of x[e] over index[e] = d        dx[e] = dy[index[e]]
    mean:            the sum over the number of e                dx[e] = dy[index[e]] / their number
    max, min:        the largest, the smallest                   dx[e] = dy[index[e]] / ties where x[e] is the largest
    mul:             the product                                 dx[e] = dy[index[e]] times the x of all others
    segment_softmax: y[e] = exp(x[e] - m) / sum of exp(x - m)    dx[e] = y[e] (dy[e] - sum of y dy)

Numbers that tie for the largest share its gradient evenly, as in JAX and torch's scatter_reduce. Max, min and mul keep the
data; softmax keeps the output; the others the index alone.

Source: Blelloch, "Prefix Sums and Their Applications" (1990), on segmented operations; names and empty segments are those of
``jax.ops`` and jraph for segments, of PyTorch Geometric's ``utils.scatter`` for scatter.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.graph.arguments import output_gradient, shaped
from fastops.simd import segments
from fastops.simd.segments import MAX, MIN, MUL, SUM

_KINDS = {"sum": SUM, "mean": SUM, "max": MAX, "min": MIN, "mul": MUL}
# Reductions whose gradient depends on the numbers that were reduced.
_OF_VALUES = ("max", "min", "mul")


def _axis(op: str, name: str, axis: Any, ndim: int) -> int:
    number = _check.integer(op, name, axis, minimum=-ndim)
    if number >= ndim:
        raise ValueError(f"{op}: {name} must be below {ndim}, the number of axes, got {axis}")
    return number % ndim


def _rows(x: Array, axis: int) -> Array:
    """The array with ``axis`` first and all others in one: (extent, F); a copy unless it is first."""
    front = x if axis == 0 else np.ascontiguousarray(np.moveaxis(x, axis, 0))
    return front.reshape(front.shape[0], prod(front.shape[1:]))


def _from_rows(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The reverse: ``shape`` is that of the result with the extent of ``axis`` first."""
    return rows.reshape(shape) if axis == 0 else np.ascontiguousarray(np.moveaxis(rows.reshape(shape), 0, axis))


@operation
def gather(input: ArrayLike, index: ArrayLike, axis: int = 0) -> Array:
    """Slices of an array by index: ``torch.index_select`` with an index of any shape, ``jax.numpy.take`` without wrap-around.

    Args:
        input: (N, F), or any array of at least one axis.
        index: integers of any shape, each in [0, N).
        axis: the axis of ``input`` that is indexed.

    Returns:
        The shape of ``input`` with the extent of ``axis`` replaced by the shape of ``index``; dtype float16, float32 or float64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> gather(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([1, 0, 1]))
    array([[2., 3.],
           [0., 1.],
           [2., 3.]])
    """
    op = "gather"
    (x,), dtype = _check.as_arrays(op, input=input)
    if x.ndim == 0:
        raise ValueError(f"{op}: input must have at least one axis, got shape ()")
    axis = _axis(op, "axis", axis, x.ndim)
    index = segments.indices(op, "index", index)
    segments.in_range(op, "index", index, x.shape[axis])
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    y = segments.gather(_rows(x, axis), index.reshape(-1))
    y = _from_rows(y, (index.size, *rest), axis)
    return y.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]).astype(dtype, copy=False)


def gather_backward(grad_output: ArrayLike, input: ArrayLike, index: ArrayLike, axis: int = 0) -> Array:
    """Gradient of :func:`gather` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> gather_backward(np.ones((3, 2)), np.zeros((2, 2)), np.array([1, 0, 1]))
    array([[1., 1.],
           [2., 2.]])
    """
    op = "gather_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    shape = _check.shape_of(op, "input", input, dtype)
    axis = _axis(op, "axis", axis, len(shape))
    index = segments.indices(op, "index", index)
    segments.in_range(op, "index", index, shape[axis])
    before, after = shape[:axis], shape[axis + 1 :]
    output_gradient(op, dy, (*before, *index.shape, *after))
    rows = _rows(dy.reshape(*before, index.size, *after), axis)
    dx = segments.scatter(SUM, index.reshape(-1), shape[axis], rows)
    return _from_rows(dx, (shape[axis], *before, *after), axis).astype(dtype, copy=False)


def _reduce(x: Array, to: Array, destinations: int, reduce: str) -> Array:
    """The reduction of the rows of x (E, F) by destination; what has no rows is 0, -inf, inf or 1."""
    y = segments.scatter(_KINDS[reduce], to, destinations, x)
    if reduce == "mean":
        y /= np.maximum(segments.counts(to, destinations, x.dtype), 1)[:, None]
    return y


def _reduce_backward(dy: Array, x: Array | None, to: Array, reduce: str) -> Array:
    """The gradient of the rows of x (E, F), which is given for "max", "min" and "mul"."""
    if reduce == "sum":
        return segments.gather(dy, to)
    if reduce == "mean":
        return segments.gather(dy, to, 1 / np.maximum(segments.counts(to, dy.shape[0], dy.dtype), 1))
    assert x is not None
    if reduce == "mul":
        return segments.product_backward(to, x, dy)
    return segments.extremum_backward(to, x, segments.scatter(_KINDS[reduce], to, dy.shape[0], x), dy)[0]


def _values(op: str, grad_output: ArrayLike, name: str, value: ArrayLike, reduce: str) -> tuple[Array, Array | None, tuple[int, ...], Any]:
    """grad_output, the input where its values matter, the input's shape, and the dtype."""
    if reduce in _OF_VALUES:
        values: dict[str, Any] = {name: value}
        (dy, x), dtype = _check.as_arrays(op, grad_output=grad_output, **values)
        return dy, x, x.shape, dtype
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    return dy, None, _check.shape_of(op, name, value, dtype), dtype


@operation
def scatter(src: ArrayLike, index: ArrayLike, dim: int = 0, dim_size: int | None = None, reduce: str = "sum") -> Array:
    """Reduce slices by destination: ``torch_geometric.utils.scatter``.

    Args:
        src: (E, F), or any array of at least one axis.
        index: (E,), the destination of each slice of ``src`` along ``dim``.
        dim: the axis of ``src`` that is reduced.
        dim_size: the number of destinations; None: one more than the largest index.
        reduce: "sum", "mean", "max", "min" or "mul".

    Returns:
        The shape of ``src`` with ``dim_size`` destinations along ``dim``; dtype float16, float32 or float64. A destination
        without slices is 0, but 1 with "mul".

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    The gradient of a maximum or minimum is shared evenly among those that are as large.

    >>> import numpy as np
    >>> scatter(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 0]), dim_size=4)
    array([4., 0., 2., 0.])
    """
    op = "scatter"
    (x,), dtype = _check.as_arrays(op, src=src)
    index, dim, destinations = _scatter_arguments(op, x.shape, index, dim, dim_size, reduce)
    rest = x.shape[:dim] + x.shape[dim + 1 :]
    y = _reduce(_rows(x, dim), index, destinations, reduce)
    if reduce in ("max", "min"):
        y[segments.counts(index, destinations, x.dtype) == 0] = 0
    return _from_rows(y, (destinations, *rest), dim).astype(dtype, copy=False)


def _scatter_arguments(op: str, shape: tuple[int, ...], index: Any, dim: Any, dim_size: Any, reduce: str) -> tuple[Array, int, int]:
    """The index, the axis and the number of destinations."""
    _check.choice(op, "reduce", reduce, tuple(_KINDS))
    if not shape:
        raise ValueError(f"{op}: src must have at least one axis, got shape ()")
    dim = _axis(op, "dim", dim, len(shape))
    index = segments.indices(op, "index", index)
    shaped(op, "index", index, (shape[dim],))
    destinations = segments.count_of(op, "dim_size", dim_size, index, shape, dim)
    segments.in_range(op, "index", index, destinations)
    return index, dim, destinations


def scatter_backward(
    grad_output: ArrayLike, src: ArrayLike, index: ArrayLike, dim: int = 0, dim_size: int | None = None, reduce: str = "sum",
) -> Array:  # fmt: skip
    """Gradient of :func:`scatter` with respect to src, whose values matter for "max", "min" and "mul" alone.

    >>> import numpy as np
    >>> scatter_backward(np.array([5.0, 6.0]), np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0]), reduce="max")
    array([0., 6., 5.])
    """
    op = "scatter_backward"
    dy, x, shape, dtype = _values(op, grad_output, "src", src, reduce)
    index, dim, destinations = _scatter_arguments(op, shape, index, dim, dim_size, reduce)
    before, after = shape[:dim], shape[dim + 1 :]
    output_gradient(op, dy, (*before, destinations, *after))
    dx = _reduce_backward(_rows(dy, dim), None if x is None else _rows(x, dim), index, reduce)
    return _from_rows(dx, (shape[dim], *before, *after), dim).astype(dtype, copy=False)


def _record_scatter(src: ArrayLike, *args: Any, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
    bound = dict(zip(("index", "dim", "dim_size", "reduce"), args)) | kwargs
    return scatter(src, **bound), {"src": src} if bound.get("reduce", "sum") in _OF_VALUES else {}


def _segments(op: str, shape: tuple[int, ...], segment_ids: Any, num_segments: Any, indices_are_sorted: bool) -> tuple[Array, int]:
    """The checked segments, and their number."""
    if not shape:
        raise ValueError(f"{op}: data must have at least one axis, got shape ()")
    ids = segments.indices(op, "segment_ids", segment_ids)
    shaped(op, "segment_ids", ids, shape[:1])
    count = segments.count_of(op, "num_segments", num_segments, ids, shape)
    rising = segments.in_range(op, "segment_ids", ids, count)
    if indices_are_sorted and not rising:
        raise ValueError(f"{op}: segment_ids must never fall when indices_are_sorted is True, got {ids}")
    return ids, count


def _segment(op: str, reduce: str, data: ArrayLike, segment_ids: Any, num_segments: Any, indices_are_sorted: bool) -> Array:
    (x,), dtype = _check.as_arrays(op, data=data)
    ids, count = _segments(op, x.shape, segment_ids, num_segments, indices_are_sorted)
    y = _reduce(_rows(x, 0), ids, count, reduce)
    return y.reshape(count, *x.shape[1:]).astype(dtype, copy=False)


def _segment_backward(op: str, reduce: str, grad_output: ArrayLike, data: ArrayLike, segment_ids: Any, num_segments: Any, indices_are_sorted: bool) -> Array:
    dy, x, shape, dtype = _values(op, grad_output, "data", data, reduce)
    ids, count = _segments(op, shape, segment_ids, num_segments, indices_are_sorted)
    output_gradient(op, dy, (count, *shape[1:]))
    dx = _reduce_backward(_rows(dy, 0), None if x is None else _rows(x, 0), ids, reduce)
    return dx.reshape(shape).astype(dtype, copy=False)


@operation
def segment_sum(data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False) -> Array:
    """Sums of rows by segment: ``jax.ops.segment_sum``.

    Args:
        data: (E, F), or any array of at least one axis.
        segment_ids: (E,), the segment of each row, in any order.
        num_segments: the number of segments; None: one more than the largest id.
        indices_are_sorted: a promise that the ids never fall. It is checked, and nothing depends on it.

    Returns:
        (num_segments, F), of dtype float16, float32 or float64; an empty segment is 0. Rows are added in their order.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value. An id that is not in
            [0, num_segments) is an error, while JAX drops its row.

    >>> import numpy as np
    >>> segment_sum(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 0]))
    array([4., 0., 2.])
    """
    return _segment("segment_sum", "sum", data, segment_ids, num_segments, indices_are_sorted)


def segment_sum_backward(
    grad_output: ArrayLike, data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False
) -> Array:
    """Gradient of :func:`segment_sum` with respect to data, of which only the shape matters.

    >>> import numpy as np
    >>> segment_sum_backward(np.array([5.0, 6.0]), np.zeros(3), np.array([0, 1, 0]))
    array([5., 6., 5.])
    """
    return _segment_backward("segment_sum_backward", "sum", grad_output, data, segment_ids, num_segments, indices_are_sorted)


@operation
def segment_mean(data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False) -> Array:
    """Means of rows by segment, 0 for an empty one: ``jraph.segment_mean``; arguments as for :func:`segment_sum`.

    >>> import numpy as np
    >>> segment_mean(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 0]))
    array([2., 0., 2.])
    """
    return _segment("segment_mean", "mean", data, segment_ids, num_segments, indices_are_sorted)


def segment_mean_backward(
    grad_output: ArrayLike, data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False
) -> Array:
    """Gradient of :func:`segment_mean` with respect to data, of which only the shape matters.

    >>> import numpy as np
    >>> segment_mean_backward(np.array([5.0, 6.0]), np.zeros(3), np.array([0, 1, 0]))
    array([2.5, 6. , 2.5])
    """
    return _segment_backward("segment_mean_backward", "mean", grad_output, data, segment_ids, num_segments, indices_are_sorted)


@operation
def segment_max(data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False) -> Array:
    """Maxima of rows by segment, -inf for an empty one: ``jax.ops.segment_max``; arguments as for :func:`segment_sum`.

    Ties share the gradient evenly.

    >>> import numpy as np
    >>> segment_max(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 0]))
    array([  3., -inf,   2.])
    """
    return _segment("segment_max", "max", data, segment_ids, num_segments, indices_are_sorted)


def segment_max_backward(
    grad_output: ArrayLike, data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False
) -> Array:
    """Gradient of :func:`segment_max` with respect to data.

    >>> import numpy as np
    >>> segment_max_backward(np.array([5.0, 6.0]), np.array([1.0, 2.0, 1.0]), np.array([0, 1, 0]))
    array([2.5, 6. , 2.5])
    """
    return _segment_backward("segment_max_backward", "max", grad_output, data, segment_ids, num_segments, indices_are_sorted)


@operation
def segment_min(data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False) -> Array:
    """Minima of rows by segment, inf for an empty one: ``jax.ops.segment_min``; arguments as for :func:`segment_sum`.

    Ties share the gradient evenly.

    >>> import numpy as np
    >>> segment_min(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 0]))
    array([ 1., inf,  2.])
    """
    return _segment("segment_min", "min", data, segment_ids, num_segments, indices_are_sorted)


def segment_min_backward(
    grad_output: ArrayLike, data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False
) -> Array:
    """Gradient of :func:`segment_min` with respect to data.

    >>> import numpy as np
    >>> segment_min_backward(np.array([5.0, 6.0]), np.array([1.0, 2.0, 3.0]), np.array([0, 1, 0]))
    array([5., 6., 0.])
    """
    return _segment_backward("segment_min_backward", "min", grad_output, data, segment_ids, num_segments, indices_are_sorted)


@operation
def segment_softmax(data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False) -> Array:
    """Softmax over the rows of each segment, column by column: ``jraph.segment_softmax``; arguments as for :func:`segment_sum`.

    Returns:
        (E, F), the shape of data.

    >>> import numpy as np
    >>> segment_softmax(np.array([1.0, 2.0, 1.0]), np.array([0, 2, 0]))
    array([0.5, 1. , 0.5])
    """
    op = "segment_softmax"
    (x,), dtype = _check.as_arrays(op, data=data)
    ids, count = _segments(op, x.shape, segment_ids, num_segments, indices_are_sorted)
    return segments.softmax(ids, count, _rows(x, 0)).reshape(x.shape).astype(dtype, copy=False)


def segment_softmax_backward(
    grad_output: ArrayLike, data: ArrayLike, segment_ids: ArrayLike, num_segments: int | None = None, indices_are_sorted: bool = False,
    *, output: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`segment_softmax` with respect to data; with its ``output``, data gives the shape alone.

    >>> import numpy as np
    >>> segment_softmax_backward(np.array([1.0, 2.0, 0.0]), np.array([1.0, 2.0, 1.0]), np.array([0, 2, 0]))
    array([ 0.25,  0.  , -0.25])
    """
    op = "segment_softmax_backward"
    given: dict[str, Any] = {"data": data} if output is None else {"output": output}
    (dy, y), dtype = _check.as_arrays(op, grad_output=grad_output, **given)
    ids, count = _segments(op, y.shape, segment_ids, num_segments, indices_are_sorted)
    output_gradient(op, dy, y.shape)
    rows = _rows(y, 0)
    if output is None:
        rows = segments.softmax(ids, count, rows)
    return segments.softmax_backward(ids, count, rows, _rows(dy, 0)).reshape(y.shape).astype(dtype, copy=False)


def _record_softmax(data: ArrayLike, *args: Any, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
    output = segment_softmax(data, *args, **kwargs)
    # an output rounded to float16 is no longer what the gradient is computed from
    return output, {"data": data} if output.dtype == _check.FLOAT16 else {"output": output}


register(gather, gather_backward, inputs=("input",), saved=())
register(scatter, scatter_backward, inputs=("src",), saved=(), record=_record_scatter)
register(segment_sum, segment_sum_backward, inputs=("data",), saved=())
register(segment_mean, segment_mean_backward, inputs=("data",), saved=())
register(segment_max, segment_max_backward, inputs=("data",), saved=("data",))
register(segment_min, segment_min_backward, inputs=("data",), saved=("data",))
register(segment_softmax, segment_softmax_backward, inputs=("data",), saved=(), record=_record_softmax)
