"""normalize: vectors divided by their p-norm.

    y = x / m,  m = max(|x|_p, eps)
    dx = dy / m - s(x) sum(dy x) / m^2,  s = d|x|_p / dx = sign(x) (|x| / |x|_p)^(p - 1), or 0 where |x|_p < eps

For p of infinity, s is the sign of the largest elements, shared among equals; for p = 0 it is 0. The backward pass computes
the norm again. Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 2.5.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.blocking import LANES, NAMES, STREAM_BITS
from fastops.simd.reduce import maximum, row_dots, span_dot, span_max, span_sum
from fastops.simd.turn import rows_together, turn_columns, turn_rows, turned_rows
from fastops.simd.vector import broadcast, load, splat, store
from fastops.simd.vector import lanes as lanes_of
from fastops.simd.vmath import exp, log
from fastops.simd.workspace import scratch_array

# Vectors lie side by side in a strip of so many lanes, one a lane; or one vector is cut into pieces as long as the strip.
_STRIP = 256
_BUNDLE = 1 << 14
_NS_FORWARD, _NS_BACKWARD = 0.3, 0.6
# Vectors up to so long are turned, which a few are not worth.
_SHORT = 32
_FEW = 16
# Elements of the vectors of which the norms are found before any is divided.
_GROUP = 1 << 12


@function
def _accumulate(x, p, total):
    """What the norm is made of, added up lane by lane."""
    one, zero = x.dtype.type(1), x.dtype.type(0)
    if p == 2:
        for j in range(x.size):
            total[j] += x[j] * x[j]
    elif p == 1:
        for j in range(x.size):
            total[j] += abs(x[j])
    elif p == np.inf:
        for j in range(x.size):
            total[j] = maximum(total[j], abs(x[j]))
    elif p == -np.inf:
        for j in range(x.size):
            total[j] = -maximum(-total[j], -abs(x[j]))
    elif p == 0:
        for j in range(x.size):
            total[j] += zero if x[j] == zero else one
    else:
        for j in range(x.size):
            total[j] += exp(p * log(abs(x[j])))


@function
def _root(norm, p):
    """From the sums of powers to norms."""
    if p == 2:
        for j in range(norm.size):
            norm[j] = np.sqrt(norm[j])
    elif abs(p) != np.inf and p != 0 and p != 1:
        for j in range(norm.size):
            norm[j] = exp(log(norm[j]) / p)


@function
def _norms(x, start, pieces, step, size, lanes, alone, p, norm):
    """The norm of each lane; ``alone``, of the one vector whose parts the lanes are, in the first lane."""
    norm[:lanes] = x.dtype.type(np.inf if p == -np.inf else 0.0)
    for piece in range(pieces):
        width = min(lanes, size - piece * lanes) if alone else lanes
        at = start + piece * step
        _accumulate(x[at : at + width], p, norm)
    if not alone:
        _root(norm[:lanes], p)
        return
    if abs(p) == np.inf:
        if p < 0:
            for j in range(lanes):
                norm[j] = -norm[j]
        norm[0] = span_max(norm, 0, lanes)
        norm[0] = norm[0] if p > 0 else -norm[0]
    else:
        norm[0] = x.dtype.type(span_sum(norm, 0, lanes))
    _root(norm[:1], p)


@function
def _inverse(norm, eps, inverse):
    for j in range(norm.size):
        inverse[j] = norm.dtype.type(1) / (eps if norm[j] < eps else norm[j])


@function
def _fill(values, lanes):
    """The first lane's value in all lanes."""
    values[:lanes] = values[0]


@function
def _strip(block, axis, inner):
    """Where a strip of an array (outer, axis, inner) starts; its pieces, how far apart, their extent in all; its lanes."""
    if inner == 1:
        lanes = min(_STRIP, axis)
        return block * axis, (axis + lanes - 1) // lanes, lanes, axis, lanes
    strips = (inner + _STRIP - 1) // _STRIP
    first = block % strips * _STRIP
    return block // strips * axis * inner + first, axis, inner, axis, min(_STRIP, inner - first)


@function
def _scale(x, start, count, factor, y):
    """y = x factor over a span."""
    L, by = lanes_of(x), splat(x, factor)
    end = start + count
    i = start
    while end - i >= L:
        store(y, i, load(x, i) * by)
        i += L
    for j in range(i, end):
        y[j] = x[j] * factor


@separate(bits=STREAM_BITS)
def _forward_strips(block, worker, x, axis, inner, strips, together, p, eps, scratch, y):
    """y for some strips; x and y flat, scratch (threads, 4, strip)."""
    norm, inverse = scratch[worker, 0], scratch[worker, 1]
    for strip in range(block * together, min((block + 1) * together, strips)):
        start, pieces, step, size, lanes = _strip(strip, axis, inner)
        alone = inner == 1
        _norms(x, start, pieces, step, size, lanes, alone, p, norm)
        _inverse(norm[: 1 if alone else lanes], eps, inverse)
        if alone:
            _scale(x, start, size, inverse[0], y)
            continue
        for piece in range(pieces):
            at = start + piece * step
            source, target = x[at : at + lanes], y[at : at + lanes]
            for j in range(lanes):
                target[j] = source[j] * inverse[j]


@function
def _add_dots(dy, x, dot):
    for j in range(x.size):
        dot[j] += dy[j] * x[j]


@function
def _count_largest(x, norm, count):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for j in range(x.size):
        count[j] += one if abs(x[j]) == norm[j] else zero


@function
def _write_gradient(dy, x, p, norm, inverse, factor, dx):
    """dx = dy / m - factor s(x), where s is without what ``factor`` has of it."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    if p == 2:
        for j in range(x.size):
            dx[j] = dy[j] * inverse[j] - factor[j] * x[j]
    elif p == 1 or abs(p) == np.inf:
        for j in range(x.size):
            sign = one if x[j] > zero else (-one if x[j] < zero else zero)
            chosen = p == 1 or abs(x[j]) == norm[j]
            dx[j] = dy[j] * inverse[j] - (factor[j] * sign if chosen else zero)
    elif p == 0:
        for j in range(x.size):
            dx[j] = dy[j] * inverse[j]
    else:
        for j in range(x.size):
            power = exp((p - one) * log(abs(x[j]) / norm[j]))
            power = -power if x[j] < zero else power
            dx[j] = dy[j] * inverse[j] - (zero if x[j] == zero or factor[j] == zero else factor[j] * power)


@function
def _factors(norm, inverse, dot, count, p, eps):
    """dot becomes what multiplies s(x), without what ``_write_gradient`` has of it."""
    number = norm.dtype.type
    for j in range(norm.size):
        share = count[j] if abs(p) == np.inf else (norm[j] if p == 2 else number(1))
        factor = dot[j] * inverse[j] * inverse[j] / share
        dot[j] = number(0) if norm[j] < eps or norm[j] == 0 else factor


@separate
def _backward_strips(block, worker, dy, x, axis, inner, strips, together, p, eps, scratch, dx):
    """dx for some strips."""
    norm, inverse, dot, count = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2], scratch[worker, 3]
    number = x.dtype.type
    for strip in range(block * together, min((block + 1) * together, strips)):
        start, pieces, step, size, lanes = _strip(strip, axis, inner)
        alone = inner == 1
        _norms(x, start, pieces, step, size, lanes, alone, p, norm)
        _inverse(norm[: 1 if alone else lanes], eps, inverse)
        if alone:
            _fill(norm, lanes)
            _fill(inverse, lanes)
        dot[:lanes], count[:lanes] = number(0), number(0)
        for piece in range(pieces):
            width = min(lanes, size - piece * lanes) if alone else lanes
            at = start + piece * step
            if not alone:
                _add_dots(dy[at : at + width], x[at : at + width], dot)
            if abs(p) == np.inf:
                _count_largest(x[at : at + width], norm, count)
        if alone:
            dot[0], count[0] = number(span_dot(dy, start, x, start, size)), number(span_sum(count, 0, lanes))
        _factors(norm[: 1 if alone else lanes], inverse, dot, count, p, eps)
        if alone:
            _fill(dot, lanes)
        for piece in range(pieces):
            width = min(lanes, size - piece * lanes) if alone else lanes
            at = start + piece * step
            _write_gradient(dy[at : at + width], x[at : at + width], p, norm, inverse, dot, dx[at : at + width])


# ---- vectors of at least a register, p = 2: the usual case. Sums and factors of some at a time, so that roots and divisions fill
# registers too.


@separate(bits=STREAM_BITS)
def _forward_rows(block, worker, x, axis, vectors, together, eps, scratch, y):
    norm, inverse, L = scratch[worker, 0], scratch[worker, 1], lanes_of(x)
    end, group = min((block + 1) * together, vectors), max(1, min(_STRIP, _GROUP // axis))
    for first in range(block * together, end, group):
        count = min(group, end - first)
        row_dots(x, x, first * axis, axis, count, norm)
        _root(norm[:count], 2)
        _inverse(norm[:count], eps, inverse)
        for i in range(count):
            at = (first + i) * axis
            by, last = broadcast(inverse, i), at + axis - L
            rest = by * load(x, last)  # overlaps the vector before it, and y may be x
            for j in range(at, last, L):
                store(y, j, by * load(x, j))
            store(y, last, rest)


@separate(bits=STREAM_BITS)
def _backward_rows(block, worker, dy, x, axis, vectors, together, eps, scratch, dx):
    norm, inverse, factor, L = scratch[worker, 0], scratch[worker, 1], scratch[worker, 2], lanes_of(x)
    end, group = min((block + 1) * together, vectors), max(1, min(_STRIP, _GROUP // axis))
    for first in range(block * together, end, group):
        count = min(group, end - first)
        row_dots(x, x, first * axis, axis, count, norm)
        row_dots(dy, x, first * axis, axis, count, factor)
        _root(norm[:count], 2)
        _inverse(norm[:count], eps, inverse)
        _factors(norm[:count], inverse, factor, norm, 2, eps)
        for i in range(count):
            at = (first + i) * axis
            plus, minus, last = broadcast(inverse, i), broadcast(factor, i), at + axis - L
            for j in range(at, last, L):
                store(dx, j, plus * load(dy, j) - minus * load(x, j))
            store(dx, last, plus * load(dy, last) - minus * load(x, last))


# ---- short vectors, of which each would be a strip of its own: ``together`` of them become the columns of one


@separate
def _forward_short(block, worker, x, axis, vectors, together, p, eps, scratch, turned, y):
    first = block * together
    count = min(together, vectors - first)
    step = (count + 15) // 16 * 16
    columns, result = turned[worker, 0], turned[worker, 1]
    call(turn_rows, (x, first * axis, count, axis, columns, step))
    call(_forward_strips, (0, worker, columns, axis, step, 1, 1, p, eps, scratch, result))
    call(turn_columns, (result, step, count, axis, y, first * axis))


@separate
def _backward_short(block, worker, dy, x, axis, vectors, together, p, eps, scratch, turned, dx):
    first = block * together
    count = min(together, vectors - first)
    step = (count + 15) // 16 * 16
    columns, gradients, result = turned[worker, 0], turned[worker, 1], turned[worker, 2]
    call(turn_rows, (x, first * axis, count, axis, columns, step))
    call(turn_rows, (dy, first * axis, count, axis, gradients, step))
    call(_backward_strips, (0, worker, gradients, columns, axis, step, 1, 1, p, eps, scratch, result))
    call(turn_columns, (result, step, count, axis, dx, first * axis))


@launcher
def _forward(threads, x, axis, inner, strips, together, p, eps, scratch, y):
    parallel(_forward_strips, (strips + together - 1) // together, threads, (x, axis, inner, strips, together, p, eps, scratch, y))


@launcher
def _backward(threads, dy, x, axis, inner, strips, together, p, eps, scratch, dx):
    parallel(_backward_strips, (strips + together - 1) // together, threads, (dy, x, axis, inner, strips, together, p, eps, scratch, dx))


@launcher
def _forward_side_by_side(threads, x, axis, vectors, together, eps, scratch, y):
    parallel(_forward_rows, (vectors + together - 1) // together, threads, (x, axis, vectors, together, eps, scratch, y))


@launcher
def _backward_side_by_side(threads, dy, x, axis, vectors, together, eps, scratch, dx):
    parallel(_backward_rows, (vectors + together - 1) // together, threads, (dy, x, axis, vectors, together, eps, scratch, dx))


@launcher
def _forward_turned(threads, x, axis, vectors, together, p, eps, scratch, turned, y):
    parallel(_forward_short, (vectors + together - 1) // together, threads, (x, axis, vectors, together, p, eps, scratch, turned, y))


@launcher
def _backward_turned(threads, dy, x, axis, vectors, together, p, eps, scratch, turned, dx):
    parallel(_backward_short, (vectors + together - 1) // together, threads, (dy, x, axis, vectors, together, p, eps, scratch, turned, dx))


# Apart, so that a first call compiles what it runs: strips, vectors side by side, short ones.
_FORWARD = _forward, _forward_side_by_side, _forward_turned
_BACKWARD = _backward, _backward_side_by_side, _backward_turned


def _axes(op: str, ndim: int, dim: Any) -> tuple[int, ...]:
    """The axes of a vector, in order; all of them for None or none. A scalar has one axis."""
    ndim = max(ndim, 1)
    given = () if dim is None else _check.one_or_more(dim)
    if not given:
        return tuple(range(ndim))
    axes = []
    for one in given:
        axis = _check.integer(op, "dim", one, minimum=-ndim)
        if axis >= ndim:
            raise IndexError(f"{op}: dim must be below {ndim}, the number of axes of input, got {axis}")
        axes.append(axis % ndim)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op}: dim must name each axis once, got {dim!r}")
    return tuple(sorted(axes))


def _attributes(op: str, dtype: Any, p: Any, eps: Any) -> tuple[Any, Any]:
    for name, value in (("p", p), ("eps", eps)):
        if not isinstance(value, (int, float, np.floating, np.integer)):
            raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    return dtype.type(p), dtype.type(eps)


def _run(kernels: tuple[Any, Any, Any], arrays: tuple[Array, ...], axes: tuple[int, ...], p: Any, eps: Any, out: Array, ns: float) -> Array:
    """Through (outer, axis, inner), turning the arrays where several axes apart make a vector."""
    shape = out.shape
    if out.size == 0:
        return out
    if axes[-1] - axes[0] != len(axes) - 1:
        order = [a for a in range(len(shape)) if a not in axes] + list(axes)
        moved = tuple(np.ascontiguousarray(a.transpose(order)) for a in arrays)
        last = tuple(range(len(shape) - len(axes), len(shape)))
        result = _run(kernels, moved, last, p, eps, empty(moved[0].shape, out.dtype), ns)
        np.copyto(out.transpose(order), result)
        return out
    axis, inner = prod(shape[axes[0] : axes[-1] + 1]), prod(shape[axes[-1] + 1 :])
    outer = out.size // (axis * inner)
    strips = outer * -(-inner // _STRIP)
    threads, flat = threads_for(out.size * ns), [a.reshape(-1) for a in (*arrays, out)]
    general, side_by_side, turned = kernels
    scratch = scratch_array((threads, 4, _STRIP), out.dtype)
    together = max(1, _BUNDLE // (axis * min(inner, _STRIP)))
    if inner == 1 and p == 2 and axis >= LANES[NAMES[out.dtype.char]]:
        side_by_side(threads, *flat[:-1], axis, outer, together, eps, scratch, flat[-1])
    elif inner == 1 and axis <= _SHORT and outer >= _FEW:
        turned(threads, *flat[:-1], axis, outer, rows_together(axis), p, eps, scratch, turned_rows(threads, 3, out.dtype), flat[-1])
    else:
        general(threads, *flat[:-1], axis, inner, strips, together, p, eps, scratch, flat[-1])
    return out


@operation
def normalize(
    input: ArrayLike, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12, out: Array | None = None,
) -> Array:  # fmt: skip
    """Divide vectors by their p-norm: ``torch.nn.functional.normalize``.

    Args:
        input: (N, D, ...), any number of axes.
        p: which norm; infinity too.
        dim: the axis along which vectors lie, or several; None for all.
        eps: what they are divided by at least.
        out: the array that takes the result and is returned.

    Returns:
        The shape and the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError, IndexError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> normalize([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    op = "normalize"
    (x,), dtype = _check.as_arrays(op, input=input)
    axes = _axes(op, x.ndim, dim)
    attributes = _attributes(op, x.dtype, p, eps)
    y = _run(_FORWARD, (x,), axes, *attributes, _check.target(op, out, x.shape, dtype, x), _NS_FORWARD)
    return _check.deliver(y, out, dtype)


def normalize_backward(
    grad_output: ArrayLike, input: ArrayLike, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12,
) -> Array:  # fmt: skip
    """Gradient of :func:`normalize` with respect to its input.

    >>> normalize_backward([[5.0, 0.0]], [[3.0, 4.0]])
    array([[ 0.64, -0.48]])
    """
    op = "normalize_backward"
    (dy, x), dtype = _check.as_arrays(op, grad_output=grad_output, input=input)
    if dy.shape != x.shape:
        raise ValueError(f"{op}: grad_output must have the shape of input, {x.shape}, got {dy.shape}")
    dx = _run(_BACKWARD, (dy, x), _axes(op, x.ndim, dim), *_attributes(op, x.dtype, p, eps), empty(x.shape, x.dtype), _NS_BACKWARD)
    return dx.astype(dtype, copy=False)


register(normalize, normalize_backward, inputs=("input",), saved=("input",))
