"""Activations with a weight, with noise, or with a gate.

    prelu  x for x >= 0, else w_c x, a weight for each channel or one for all:  dx = dy or w_c dy,  dw_c = sum of x dy over x <= 0
    rrelu  x for x >= 0, else r x, r uniform in [lower, upper] for each element, its mean outside training: dx = dy or r dy
    glu    a s(b), where a and b are the halves of an axis and s is the sigmoid: da = s dy,  db = a s (1 - s) dy

Sources: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers" (ICCV 2015), prelu; Xu, Wang, Chen, Li, "Empirical Evaluation of
Rectified Activations in Convolutional Network" (2015), rrelu; Dauphin, Fan, Auli, Grangier, "Language Modeling with Gated
Convolutional Networks" (ICML 2017), glu. Each keeps its input; rrelu also the seed, from which it draws its noise again.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array, deliver, target
from fastops._jit import call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.activation.piecewise import LEAKY_RELU, LEAKY_RELU_GRADIENT
from fastops.simd.activations import gate, leaky_relu
from fastops.simd.blocking import STREAM_BITS
from fastops.simd.maps import place
from fastops.simd.random import check_seed, seed_of, uniform32
from fastops.simd.reduce import span_sum
from fastops.simd.turn import rows_together, turn_columns, turn_rows, turned_rows
from fastops.simd.workspace import scratch_array

_BLOCK = 1 << 14
_NS = 0.15
_NS_EXP = 0.7
_NS_RANDOM = 0.7

# Rows shorter than this are taken together, with their weights repeated for each element.
_SHORT = 64
# So many elements, of all weights in turn, are worth a loop of their own where rows are many: 100000 rows of 8 weights 0.20 to
# 0.09 ms, their gradient 4.9 to 0.21. To repeat the weights takes 3.5 us.
_TOGETHER, _MANY = 1024, 512

# Halves of an axis of fewer elements are taken from the columns of many rows: 100000 halves of one 0.79 to 0.12 ms, of six 1.52 to 0.89.
_HALF = 8


# ---- prelu: x is seen as rows of one weight each, or (short rows) as rows of as many weights as elements


@function
def _together(length):
    """Rows of one weight that a block takes: one each of 512 rows of 3136 elements took 0.12 ms on two threads, five 0.11."""
    return max(1, _BLOCK // length)


@separate(bits=STREAM_BITS)
def _prelu_row_pieces(block, worker, x, weight, length, pieces, total, y):
    """Some rows of one weight, or a piece of a long one; x is flat, rows of ``length`` in turns of the weights."""
    together = _together(length)
    for piece in range(block * together, min((block + 1) * together, total)):
        row = piece // pieces
        start = row * length + piece % pieces * _BLOCK
        count = min(_BLOCK, (row + 1) * length - start)
        w = weight[row % weight.size]
        part, result = x[start : start + count], y[start : start + count]
        for i in range(count):
            result[i] = leaky_relu(part[i], w, w)


@separate(bits=STREAM_BITS)
def _prelu_rows(block, worker, x, weight, rows, y):
    """``rows`` rows of an element for each weight, the last of which may be shorter."""
    width = weight.size
    for start in range(block * rows * width, min((block + 1) * rows * width, x.size), width):
        row, result = x[start : start + width], y[start : start + width]
        for i in range(row.size):
            result[i] = leaky_relu(row[i], weight[i], weight[i])


@separate
def _prelu_row_pieces_gradient(block, worker, dy, x, weight, length, pieces, products, dx, partial):
    """dx of some rows, or a piece of one, and each piece's share of its weight's gradient; products (threads, _BLOCK)."""
    together, product, zero = _together(length), products[worker], x.dtype.type(0)
    for piece in range(block * together, min((block + 1) * together, partial.size)):
        row = piece // pieces
        start = row * length + piece % pieces * _BLOCK
        count = min(_BLOCK, (row + 1) * length - start)
        w = weight[row % weight.size]
        g_part, part, result = dy[start : start + count], x[start : start + count], dx[start : start + count]
        for i in range(count):
            g = g_part[i]
            result[i] = g if part[i] > zero else g * w
            product[i] = zero if part[i] > zero else g * part[i]
        partial[piece] = span_sum(product, 0, count)


@separate
def _prelu_rows_gradient(block, worker, dy, x, weight, rows, dx, partial):
    width = weight.size
    zero, total = x.dtype.type(0), partial[block * width : (block + 1) * width]
    total[:] = 0.0
    for start in range(block * rows * width, min((block + 1) * rows * width, x.size), width):
        g_row, row, result = dy[start : start + width], x[start : start + width], dx[start : start + width]
        for i in range(row.size):
            g = g_row[i]
            result[i] = g if row[i] > zero else g * weight[i]
            total[i] += zero if row[i] > zero else g * row[i]


@launcher
def _prelu(threads, x, weight, length, blocks, each, y):
    if length > 1:
        together = _together(length)
        parallel(_prelu_row_pieces, (blocks + together - 1) // together, threads, (x, weight, length, each, blocks, y))
    else:
        parallel(_prelu_rows, blocks, threads, (x, weight, each, y))


@launcher
def _prelu_gradient(threads, dy, x, weight, length, blocks, each, products, dx, partial):
    if length > 1:
        together = _together(length)
        parallel(_prelu_row_pieces_gradient, (blocks + together - 1) // together, threads, (dy, x, weight, length, each, products, dx, partial))
    else:
        parallel(_prelu_rows_gradient, blocks, threads, (dy, x, weight, each, dx, partial))


def _prelu_plan(op: str, x: Array, weight: Array) -> tuple[Array, int, int, int]:
    """(weights as the kernels take them, length of a row of one weight or 1, blocks, pieces of a row or rows of a block)."""
    if weight.ndim > 1:
        raise ValueError(f"{op}: weight must have at most one axis, got shape {weight.shape}")
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.size != 1 and (x.ndim == 0 or weight.size != channels):
        raise ValueError(f"{op}: weight must have 1 element or one for each channel, {channels}, got shape {weight.shape} (input shape {x.shape})")
    if weight.size == 1:
        length = x.size
    else:
        length = prod(x.shape[2:])
        if 1 < length < _SHORT:
            weight, length = np.repeat(weight, length), 1
    weight = weight.ravel()
    if length > 1:
        pieces = -(-length // _BLOCK)
        return weight, length, (-(-x.size // length)) * pieces, pieces
    if 0 < weight.size <= _TOGETHER // 2 and x.size >= _MANY * weight.size:
        tiles = scratch_array((min(_TOGETHER // weight.size, _MANY), weight.size), weight.dtype, "tiles")
        tiles[...] = weight
        weight = tiles.reshape(-1)
    rows = max(1, _BLOCK // max(weight.size, 1))
    return weight, 1, -(-x.size // (rows * max(weight.size, 1))), rows


@operation
def prelu(input: ArrayLike, weight: ArrayLike, *, out: Array | None = None) -> Array:
    """x for x >= 0, else weight * x, with a learnt weight: ``torch.nn.functional.prelu``.

    Args:
        input: (N, C, ...), or any other shape with a single weight.
        weight: (C,), one for each channel, or a single one, () or (1,).
        out: the array that takes the result and is returned.

    Returns:
        An array of the shape and dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> import numpy as np
    >>> prelu(np.array([[-1.0, -1.0], [2.0, 2.0]]), np.array([0.5, 0.25]))
    array([[-0.5 , -0.25],
           [ 2.  ,  2.  ]])
    """
    (x, w), dtype = _check.as_arrays("prelu", input=input, weight=weight)
    w, length, blocks, each = _prelu_plan("prelu", x, w)
    y = target("prelu", out, x.shape, dtype, x, w)
    if x.size:
        _prelu(threads_for(x.size * _NS), x.ravel(), w, length, blocks, each, y.ravel())
    return deliver(y, out, dtype)


def prelu_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, *, output_mask: tuple[bool, bool] = (True, True)
) -> tuple[Array | None, Array | None]:
    """Gradients of :func:`prelu` with respect to its input and its weight, None where ``output_mask`` is False.

    >>> import numpy as np
    >>> prelu_backward(np.ones((2, 2)), np.array([[-1.0, -3.0], [2.0, 2.0]]), np.array([0.5, 0.25]))
    (array([[0.5 , 0.25],
           [1.  , 1.  ]]), array([-1., -3.]))
    """
    op = "prelu_backward"
    (dy, x, w), dtype = _check.as_arrays(op, grad_output=grad_output, input=input, weight=weight)
    given = w.shape
    w, length, blocks, each = _prelu_plan(op, x, w)
    if dy.shape != x.shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {x.shape}, got {dy.shape}")
    dx = empty(x.shape, x.dtype)
    # The gradient of the weight comes out of the same pass; without it the pass would take as long.
    partial = np.zeros((blocks, 1 if length > 1 else w.size))
    if x.size:
        threads = threads_for(x.size * 2 * _NS)
        products = empty((threads, _BLOCK if length > 1 else 0), x.dtype)
        _prelu_gradient(threads, dy.ravel(), x.ravel(), w, length, blocks, each, products, dx.ravel(), partial.ravel())
    dw = None
    if output_mask[1]:
        per_weight = partial.reshape(-1, w.size, each).sum(2) if length > 1 else partial
        repeats = prod(x.shape[2:]) if length == 1 and w.size > 1 else 1
        dw = per_weight.sum(0).reshape(-1, prod(given), repeats).sum((0, 2)).reshape(given).astype(dtype)
    return (dx.astype(dtype, copy=False) if output_mask[0] else None), dw


register(prelu, prelu_backward, inputs=("input", "weight"), saved=("input", "weight"))


# ---- rrelu


@separate
def _rrelu_block(block, worker, seed, x, lower, span, y):
    start = block * _BLOCK
    count = min(_BLOCK, x.size - start)
    number, zero = x.dtype.type, x.dtype.type(0)
    lower, span = number(lower), number(span)
    x, y = x[start : start + count], y[start : start + count]
    for i in range(count):
        r = lower + span * number(uniform32(seed, start + i))
        y[i] = x[i] * r if x[i] <= zero else x[i]


@separate
def _rrelu_gradient_block(block, worker, seed, dy, x, lower, span, dx):
    start = block * _BLOCK
    count = min(_BLOCK, x.size - start)
    number, zero = x.dtype.type, x.dtype.type(0)
    lower, span = number(lower), number(span)
    dy, x, dx = dy[start : start + count], x[start : start + count], dx[start : start + count]
    for i in range(count):
        r = lower + span * number(uniform32(seed, start + i))
        dx[i] = dy[i] * r if x[i] <= zero else dy[i]


@launcher
def _rrelu(threads, seed, x, lower, span, y):
    parallel(_rrelu_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (seed, x, lower, span, y))


@launcher
def _rrelu_gradient(threads, seed, dy, x, lower, span, dx):
    parallel(_rrelu_gradient_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (seed, dy, x, lower, span, dx))


def _slopes(op: str, lower: float, upper: float) -> tuple[float, float]:
    low, high = _check.real(op, "lower", lower), _check.real(op, "upper", upper)
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"{op}: lower must be finite and at most upper, {upper!r}, got {lower!r}")
    return low, high


def _rrelu_recorded(
    input: ArrayLike, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False, *, rng: Any = None,
    out: Array | None = None,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    op = "rrelu"
    low, high = _slopes(op, lower, upper)
    if not training:
        return LEAKY_RELU.of(op, input, (low + high) / 2, 0.0, inplace, out), {}
    (x,), dtype = _check.as_arrays(op, input=input)
    out = place(op, input, inplace, out)
    y = target(op, out, x.shape, dtype, x)
    seed = seed_of(op, rng)
    _rrelu(threads_for(x.size * _NS_RANDOM), seed, x.ravel(), low, high - low, y.ravel())
    return deliver(y, out, dtype), {"rng": seed}


@operation
def rrelu(
    input: ArrayLike, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False, *, rng: Any = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """x for x > 0, else r x, with r drawn for each element: ``torch.nn.functional.rrelu``.

    Args:
        input: any shape, such as (N, C, H, W).
        lower, upper: r is uniform between them.
        training: otherwise r is the middle.
        inplace: the result overwrites the input, and is returned.
        rng: an integer seed from 0 to 2**63 - 1, a ``numpy.random.Generator``, or None for a new seed.
        out: the array that takes the result and is returned.

    Returns:
        An array of the shape and dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> rrelu([-1.0, 2.0], lower=0.25, upper=0.75)
    array([-0.5,  2. ])
    >>> bool(-0.75 < rrelu([-1.0], 0.25, 0.75, training=True)[0] <= -0.25)
    True
    """
    return _rrelu_recorded(input, lower, upper, training, inplace, rng=rng, out=out)[0]


def rrelu_backward(
    grad_output: ArrayLike, input: ArrayLike, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *, rng: int | None = None
) -> Array:
    """Gradient of :func:`rrelu`; in training ``rng`` is the integer seed of the forward pass.

    >>> rrelu_backward([1.0, 1.0], [-1.0, 2.0], lower=0.25, upper=0.75)
    array([0.5, 1. ])
    """
    op = "rrelu_backward"
    low, high = _slopes(op, lower, upper)
    if not training:
        return LEAKY_RELU_GRADIENT.of(op, grad_output, input, (low + high) / 2)
    (dy, x), dtype = _check.as_arrays(op, grad_output=grad_output, input=input)
    if dy.shape != x.shape:
        raise ValueError(f"{op}: grad_output must have the shape of input, {x.shape}, got {dy.shape}")
    seed = check_seed(op, rng)
    dx = empty(x.shape, x.dtype)
    _rrelu_gradient(threads_for(x.size * _NS_RANDOM), seed, dy.ravel(), x.ravel(), low, high - low, dx.ravel())
    return dx.astype(dtype, copy=False)


register(rrelu, rrelu_backward, inputs=("input",), saved=("input",), record=_rrelu_recorded)


# ---- glu: x is seen as (outer, 2, inner)


@separate
def _glu_block(block, worker, x, inner, y):
    """y[o, i] = x[o, 0, i] sigmoid(x[o, 1, i]), for one block of the elements of y; x and y are flat."""
    end = min((block + 1) * _BLOCK, y.size)
    start = block * _BLOCK
    while start < end:
        outer, column = start // inner, start % inner
        count = min(inner - column, end - start)
        first = outer * 2 * inner + column
        a, b, result = x[first : first + count], x[first + inner : first + inner + count], y[start : start + count]
        for i in range(count):
            result[i] = gate(a[i], b[i])
        start += count


@separate
def _glu_gradient_block(block, worker, dy, x, inner, dx):
    end = min((block + 1) * _BLOCK, dy.size)
    start = block * _BLOCK
    one = x.dtype.type(1)
    while start < end:
        outer, column = start // inner, start % inner
        count = min(inner - column, end - start)
        first = outer * 2 * inner + column
        a, b, g = x[first : first + count], x[first + inner : first + inner + count], dy[start : start + count]
        da, db = dx[first : first + count], dx[first + inner : first + inner + count]
        for i in range(count):
            s = gate(one, b[i])
            da[i] = s * g[i]
            db[i] = a[i] * (s * (one - s)) * g[i]
        start += count


# Rows of few elements are turned into columns, of which the halves of many rows are the halves of one.


@separate
def _glu_short(block, worker, x, inner, together, turned, y):
    first = block * together
    count = min(together, y.size // inner - first)
    step = (count + 15) // 16 * 16
    call(turn_rows, (x, first * 2 * inner, count, 2 * inner, turned[worker, 0], step))
    call(_glu_block, (0, worker, turned[worker, 0], inner * step, turned[worker, 1, : inner * step]))
    call(turn_columns, (turned[worker, 1], step, count, inner, y, first * inner))


@separate
def _glu_gradient_short(block, worker, dy, x, inner, together, turned, dx):
    first = block * together
    count = min(together, dy.size // inner - first)
    step = (count + 15) // 16 * 16
    call(turn_rows, (x, first * 2 * inner, count, 2 * inner, turned[worker, 0], step))
    call(turn_rows, (dy, first * inner, count, inner, turned[worker, 1], step))
    call(_glu_gradient_block, (0, worker, turned[worker, 1, : inner * step], turned[worker, 0], inner * step, turned[worker, 2]))
    call(turn_columns, (turned[worker, 2], step, count, 2 * inner, dx, first * 2 * inner))


@launcher
def _glu(threads, x, inner, y):
    parallel(_glu_block, (y.size + _BLOCK - 1) // _BLOCK, threads, (x, inner, y))


@launcher
def _glu_gradient(threads, dy, x, inner, dx):
    parallel(_glu_gradient_block, (dy.size + _BLOCK - 1) // _BLOCK, threads, (dy, x, inner, dx))


@launcher
def _glu_turned(threads, x, inner, together, turned, y):
    parallel(_glu_short, (y.size // inner + together - 1) // together, threads, (x, inner, together, turned, y))


@launcher
def _glu_gradient_turned(threads, dy, x, inner, together, turned, dx):
    parallel(_glu_gradient_short, (dy.size // inner + together - 1) // together, threads, (dy, x, inner, together, turned, dx))


def _halves(op: str, shape: tuple[int, ...], dim: int) -> tuple[int, tuple[int, ...]]:
    """Elements from the first half to the second, and the shape of the output."""
    if not shape:
        raise ValueError(f"{op}: input must have at least one axis, got a scalar")
    axis = _check.axis(op, "dim", dim, shape)
    if shape[axis] % 2:
        raise ValueError(f"{op}: input must have an even extent along axis {axis}, got shape {shape}")
    half = shape[axis] // 2
    return half * prod(shape[axis + 1 :]), (*shape[:axis], half, *shape[axis + 1 :])


@operation
def glu(input: ArrayLike, dim: int = -1, *, out: Array | None = None) -> Array:
    """The first half of an axis times the sigmoid of the second: ``torch.nn.functional.glu``.

    Args:
        input: any shape with an even extent along ``dim``, such as (N, C, H, W); float16, float32 or float64.
        dim: the axis.
        out: the array that takes the result and is returned.

    Returns:
        An array of the dtype of the input, half as long along ``dim``.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> glu([1.0, 2.0, 0.0, 0.0])
    array([0.5, 1. ])
    """
    (x,), dtype = _check.as_arrays("glu", input=input)
    inner, shape = _halves("glu", x.shape, dim)
    y = target("glu", out, shape, dtype, x)
    threads = threads_for(y.size * _NS_EXP)
    if inner < _HALF and y.size >= 16 * inner > 0:
        _glu_turned(threads, x.ravel(), inner, rows_together(2 * inner), turned_rows(threads, 2, x.dtype), y.ravel())
    elif y.size:
        _glu(threads, x.ravel(), inner, y.ravel())
    return deliver(y, out, dtype)


def glu_backward(grad_output: ArrayLike, input: ArrayLike, dim: int = -1) -> Array:
    """Gradient of :func:`glu`.

    >>> glu_backward([1.0, 1.0], [1.0, 2.0, 0.0, 0.0])
    array([0.5 , 0.5 , 0.25, 0.5 ])
    """
    op = "glu_backward"
    (dy, x), dtype = _check.as_arrays(op, grad_output=grad_output, input=input)
    inner, shape = _halves(op, x.shape, dim)
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {dy.shape}")
    dx = empty(x.shape, x.dtype)
    threads = threads_for(dy.size * _NS_EXP)
    if inner < _HALF and dy.size >= 16 * inner > 0:
        _glu_gradient_turned(threads, dy.ravel(), x.ravel(), inner, rows_together(2 * inner), turned_rows(threads, 3, x.dtype), dx.ravel())
    elif dy.size:
        _glu_gradient(threads, dy.ravel(), x.ravel(), inner, dx.ravel())
    return dx.astype(dtype, copy=False)


register(glu, glu_backward, inputs=("input",), saved=("input",))
