"""From plans to kernels: what the public functions of the family share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.ops.pool import walk
from fastops.ops.pool.windows import BUFFERS, Axis, Plan
from fastops.simd.blocking import NAMES
from fastops.simd.turn import turned_rows
from fastops.simd.workspace import scratch

# Places are compared as numbers of the image's dtype, and float32 holds every integer up to here.
_EXACT = 1 << 24
_LARGEST_PLANE = 1 << 30

_NO_SHORT, _NO_LONG = np.empty(0, np.int32), np.empty(0, np.int64)


def _room(plan: Plan, x: Array, threads: int) -> Array:
    return scratch(threads * BUFFERS * plan.length, NAMES[x.dtype.char])


def _together(plan: Plan, threads: int) -> int:
    """How many planes a thread turns at a time, whole vectors of them: all threads have some."""
    return min(plan.together, -(-plan.planes // (16 * threads)) * 16)


def largest(plan: Plan, x: Array) -> Array:
    """The largest element of each window."""
    y = empty(plan.shape, x.dtype)
    if plan.count:
        threads = threads_for(plan.cost)
        if plan.together:
            walk.small_maxima(threads, x.ravel(), plan.table, _together(plan, threads), turned_rows(threads, 2, x.dtype), y.ravel())
            return y
        walk.maxima(threads, x.ravel(), plan.table, _room(plan, x, threads), y.ravel())
    return y


def largest_and_places(plan: Plan, x: Array, wide: bool = False) -> tuple[Array, Array]:
    """The largest element of each window, and where the first of it stands in its image: int32, or int64 where it is ``wide``."""
    if plan.plane > _EXACT and x.itemsize == 4:
        y, places = largest_and_places(plan, x.astype(np.float64), wide)
        return y.astype(x.dtype), places
    if plan.plane >= _LARGEST_PLANE:
        raise ValueError(f"max pooling: input must have planes of fewer than {_LARGEST_PLANE} elements for indices, got {plan.size}")
    y = empty(plan.shape, x.dtype)
    places = empty(plan.shape, np.int64 if wide else np.int32)
    if plan.count:
        threads = threads_for(2 * plan.cost)
        if plan.together:
            short, long = (_NO_SHORT, places.ravel()) if wide else (places.ravel(), _NO_LONG)
            walk.small_places(threads, x.ravel(), plan.table, _together(plan, threads), turned_rows(threads, 3, x.dtype), y.ravel(), short, long)
            return y, places
        steps = plan.row("steps", lambda: np.arange(plan.size[2]), x.dtype)
        short, long = (_NO_SHORT, places.ravel()) if wide else (places.ravel(), _NO_LONG)
        walk.places(threads, x.ravel(), plan.table, steps, _room(plan, x, threads), y.ravel(), short, long)
    return y, places


def send_back(plan: Plan, dy: Array, places: Array) -> Array:
    """The gradient of a maximum: every dy goes where the largest element of its window stands.

    One by one: comparing each row of dx with the places that may lie in it, by vectors, takes 2 to 13 times as long (8 x 64 x 56 x 56,
    2x2: 1.18 ms, so 0.26).
    """
    dx = empty(plan.input_shape, dy.dtype)
    if not plan.count:
        dx[...] = 0
        return dx
    threads = threads_for(plan.count * 1.5 + dx.size * 0.2)
    planes = plan.planes
    walk.scatter(threads, dy.reshape(planes, -1), places.reshape(planes, -1), plan.parts(-(-2 * threads // planes)), dx.reshape(planes, -1))
    return dx


def check_places(op: str, name: str, indices: Any, shape: tuple[int, ...], plane: int, dtype: Any, lowest: int = 0) -> Array:
    """Places given by the user: integers of the right shape, each inside its plane (or -1, nowhere, with ``lowest`` -1)."""
    array = _check.to_ndarray(op, name, indices, of="integers")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} must have an integer dtype, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {array.shape}")
    if array.size:
        least, most = int(array.min()), int(array.max())
        if least < lowest or most >= plane:
            raise ValueError(f"{op}: {name} must be at least {lowest} and below {plane} (the elements of a plane), got {least if least < lowest else most}")
    return np.require(array.astype(dtype, copy=False), None, ["C", "A", "W"])


def check_gradient(op: str, grad_output: Any) -> tuple[Array, np.dtype[Any]]:
    """The gradient with respect to the values, ready for kernels, and its dtype."""
    given = grad_output[0] if isinstance(grad_output, tuple) and len(grad_output) == 2 else grad_output
    (dy,), dtype = _check.as_arrays(op, grad_output=given)
    return dy, dtype


def check_shape(op: str, dy: Array, plan: Plan) -> None:
    if dy.shape != plan.shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {plan.shape}, got {dy.shape}")


def max_pool(op: str, plan_of: Any, input: Any, indices: bool) -> Any:
    """Every kind of max pooling; ``plan_of(shape, dtype)`` gives its windows. With ``indices`` the places too, int64."""
    x = _check.as_array(op, "input", input)
    if x.itemsize == 2:
        pooled = max_pool(op, plan_of, x.astype(np.float32), indices)
        return (pooled[0].astype(np.float16), pooled[1]) if indices else pooled.astype(np.float16)
    plan = plan_of(x.shape, x.dtype)
    return largest_and_places(plan, x, wide=True) if indices else largest(plan, x)


def max_pool_record(op: str, plan_of: Any, input: Any, indices: bool) -> tuple[Any, dict[str, Any]]:
    """As ``max_pool``, with the places that the gradient needs."""
    (x,), dtype = _check.as_arrays(op, input=input)
    y, places = largest_and_places(plan_of(x.shape, x.dtype), x)
    y = y.astype(dtype, copy=False)
    return (y, places.astype(np.int64)) if indices else y, {"indices": places}


def max_backward(op: str, plan_of: Any, grad_output: Any, input: Any, indices: Any) -> Array:
    """The gradient of every kind of max pooling; ``plan_of(shape)`` gives its windows. Without indices they are found again."""
    dy, dtype = check_gradient(op, grad_output)
    if indices is None:
        (x,), input_dtype = _check.as_arrays(op, input=input)
        if input_dtype != dtype:
            raise TypeError(f"{op}: input must have the dtype of grad_output, {dtype}, got {input_dtype}")
        plan = plan_of(x.shape)
        check_shape(op, dy, plan)
        places = largest_and_places(plan, x)[1]
    else:
        plan = plan_of(_check.shape_of(op, "input", input, dtype))
        check_shape(op, dy, plan)
        places = check_places(op, "indices", indices, plan.shape, plan.plane, np.int32, lowest=-1)
    return send_back(plan, dy, places).astype(dtype, copy=False)


def weighted_sum(plan: Plan, x: Array, factors: Array) -> Array:
    """The sum of each window times the factors of its place along the three axes."""
    y = empty(plan.shape, x.dtype)
    if plan.count:
        threads = threads_for(plan.cost)
        if plan.together:
            walk.small_sums(threads, x.ravel(), plan.table, factors, _together(plan, threads), turned_rows(threads, 2, x.dtype), y.ravel())
            return y
        walk.sums(threads, x.ravel(), plan.table, factors, _room(plan, x, threads), y.ravel())
    return y


def weighted_sum_backward(plan: Plan, dy: Array, factors: Array) -> Array:
    """The gradient of ``weighted_sum``."""
    dx = empty(plan.input_shape, dy.dtype)
    if not plan.count:
        dx[...] = 0
        return dx
    threads = threads_for(plan.cost + dx.size * 0.2)
    if plan.together:
        walk.small_spread(threads, dy.ravel(), plan.table, factors, _together(plan, threads), turned_rows(threads, 2, dy.dtype), dx.ravel())
        return dx
    walk.spread(threads, dy.ravel(), plan.table, factors, _room(plan, dy, threads), dx.ravel())
    return dx


def counts(axis: Axis, with_padding: bool) -> Array:
    """How many elements the divisor of a mean counts in each window of an axis."""
    if with_padding and axis.taps:
        begin = np.arange(axis.count) * axis.stride - axis.padding
        return np.minimum(begin + axis.taps, axis.size + axis.padding) - begin
    return np.maximum(axis.end - axis.first, 1)


def mean_factors(plan: Plan, dtype: np.dtype[Any], count_include_pad: bool = True, divisor: Any = None) -> Array:
    """The factors that make sums means."""

    def make() -> Array:
        if divisor is not None:
            return np.concatenate([np.full(plan.windows[0], 1 / divisor), np.ones(plan.windows[1] + plan.windows[2])])
        return np.concatenate([1 / counts(axis, count_include_pad) for axis in plan.axes])

    return plan.row((count_include_pad, divisor), make, dtype)
