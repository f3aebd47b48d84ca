"""Products of matrices: linear, bilinear, matmul, addmm, baddbmm. All arithmetic is that of ``fastops.simd.gemm``.

    linear:    y = x W^T + b                      dx = dy W,           dW = dy^T x,         db = sum of dy
    bilinear:  y[o] = x1^T W[o] x2 + b[o]         dx1 = sum of dy[o] W[o] x2 over o, dx2 likewise, dW[o] = sum of dy[o] x1 x2^T
    matmul:    y = a b                            da = dy b^T,         db = a^T dy
    addmm:     y = beta c + alpha a b             dc = beta dy,        and those of matmul times alpha

A gradient of something that was broadcast is summed over what it was broadcast to. The backward passes need the factors.
Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 6.5.6.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import formula
from fastops._memory import empty
from fastops._op import operation, register
from fastops.simd.epilogue import ACTIVATIONS
from fastops.simd.gemm import gemm_strided, multiply, rows_by_rows
from fastops.simd.maps import Map
from fastops.simd.reduce import sum_axis, sum_to

Number = int | float
Shape = tuple[int, ...]

_NOTHING = {np.dtype(name): np.empty(0, name) for name in ("float32", "float64")}


@formula
def _scaled(x, a, b):
    return x * a


_SCALED = Map(__name__, _scaled, 0.1)


def _matrix_product(a: Array, b: Array, c: Array, a_turned: bool = False) -> None:
    """c (M, N) = a (M, K) b (K, N), or a (K, M) turned."""
    if a.size and b.size:
        multiply(a, b, c, a_turned)
    else:
        c[...] = 0


def _product(
    a: Array, b: Array, c: Array, *, a_turned: bool = False, b_turned: bool = False, alpha: Number = 1, accumulate: bool = False,
    bias: Array | None = None, activation: int = 0,
) -> Array:  # fmt: skip
    """c (Z, M, N) (+)= alpha a b, all C-contiguous: a (Z or 1, M, K), or (Z or 1, K, M) if it is turned; b (Z or 1, K, N) likewise."""
    batch, rows, cols = c.shape
    depth = a.shape[1 if a_turned else 2]
    if c.size == 0:
        return c
    if depth == 0:  # one step of zeros
        depth = 1
        a, b = np.zeros((1, rows, 1), c.dtype), np.zeros((1, 1, cols), c.dtype)
        a_turned = b_turned = False
    if batch == 1 and alpha == 1 and bias is None and not (accumulate or activation):
        multiply(a[0], b[0], c[0], a_turned, b_turned)
        return c
    a_batch = 0 if a.shape[0] == 1 else rows * depth
    b_batch = 0 if b.shape[0] == 1 else depth * cols
    gemm_strided(
        batch, rows, cols, depth, a.reshape(-1), (a_batch, 1, rows) if a_turned else (a_batch, depth, 1),
        b.reshape(-1), (b_batch, 1, depth) if b_turned else (b_batch, cols, 1), c.reshape(-1), (rows * cols, cols),
        alpha=alpha, accumulate=accumulate, bias=bias, activation=activation,
    )  # fmt: skip
    return c


def _number(op: str, name: str, value: Any) -> Number:
    if not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    return value  # type: ignore[return-value]


def _activation_code(op: str, activation: str | None) -> int:
    if activation is None:
        return 0
    _check.choice(op, "activation", activation, [None, *ACTIVATIONS])
    return ACTIVATIONS[activation]


def _check_gradient(op: str, dy: Array, shape: Shape) -> None:
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {dy.shape}")


# ---- linear


def _linear_shape(op: str, x: Shape, w: Shape, bias: Shape | None) -> Shape:
    """The shape of the output."""
    if not x or len(w) not in (1, 2) or x[-1] != w[-1]:
        raise ValueError(f"{op}: weight must be (out, in) or (in,) with the last axis of input, {x}, got shape {w}")
    outs = w[:-1]
    if bias is not None and bias not in (outs, (1,)):
        raise ValueError(f"{op}: bias must have shape {outs}, got {bias}")
    return (*x[:-1], *outs)


@operation
def linear(
    input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, activation: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """x W^T + b: ``torch.nn.functional.linear``.

    Args:
        input: (N, ..., I), or (I,).
        weight: (O, I), or (I,) for a single output.
        bias: (O,) or None; a single number for a single output.
        activation: None, or the name of an activation that is applied to the result ("relu", "silu", ...).
        out: the array that takes the result and is returned.

    Returns:
        (N, ..., O), without the last axis for a weight (I,), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> linear([[1.0, 2.0]], [[1.0, 0.0], [1.0, 1.0]], [0.0, 10.0])
    array([[ 1., 13.]])
    """
    x, w = _check.as_array("linear", "input", input), _check.as_array("linear", "weight", weight)
    b = None if bias is None else _check.as_array("linear", "bias", bias)
    nothing, x_shape, w_shape = _NOTHING.get(x.dtype), x.shape, w.shape
    if (
        nothing is not None and w.dtype is x.dtype and len(x_shape) == len(w_shape) == 2
        and x_shape[1] == w_shape[1] and x.size and w.size and out is None and activation is None
        and (b is None or (b.dtype is x.dtype and b.shape == w_shape[:1]))
    ):  # fmt: skip
        # the usual case, whose small matrices leave no time for more
        y = empty((x_shape[0], w_shape[0]), x.dtype)
        rows_by_rows(x, w, nothing if b is None else b, 0, y)
        return y
    return _linear(x, w, b, activation, out)


def _linear(input: Array, weight: Array, bias: Array | None, activation: str | None, out: Array | None) -> Array:
    op = "linear"
    (x, w, b), dtype = _check.as_arrays(op, input=input, weight=weight, bias=bias, optional="bias")
    shape = _linear_shape(op, x.shape, w.shape, None if b is None else b.shape)
    code = _activation_code(op, activation)
    y = _check.target(op, out, shape, dtype, x, w, b)
    outs = prod(w.shape[:-1])
    if b is not None:
        b = b.reshape(-1) if b.size == outs else np.repeat(b, outs)
    ins, rows = x.shape[-1], prod(x.shape[:-1])
    if x.size and w.size:
        rows_by_rows(x.reshape(rows, ins), w.reshape(outs, ins), _NOTHING[x.dtype] if b is None else b, code, y.reshape(rows, outs))
    else:
        _product(x.reshape(1, rows, ins), w.reshape(1, outs, ins), y.reshape(1, rows, outs), b_turned=True, bias=b, activation=code)
    return _check.deliver(y, out, dtype)


def linear_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`linear` with respect to input, weight and bias, of which only the shape matters.

    Args:
        grad_output: the shape of the output.
        output_mask: which gradients to compute; the others are None.

    >>> linear_backward([[1.0, 2.0]], [[3.0, 4.0]], [[1.0, 0.0], [1.0, 1.0]], [0.0, 0.0])[0]
    array([[3., 2.]])
    """
    op = "linear_backward"
    (dy, x, w), dtype = _check.as_arrays(op, grad_output=grad_output, input=input, weight=weight)
    bias_shape = None if bias is None else _check.shape_of(op, "bias", bias, dtype)
    _check_gradient(op, dy, _linear_shape(op, x.shape, w.shape, bias_shape))
    ins, rows, outs = x.shape[-1], prod(x.shape[:-1]), prod(w.shape[:-1])
    gradient = dy.reshape(rows, outs)
    dx = dw = db = None
    if output_mask[0]:
        dx = empty(x.shape, x.dtype)
        _matrix_product(gradient, w.reshape(outs, ins), dx.reshape(rows, ins))
        dx = dx.astype(dtype, copy=False)
    if output_mask[1]:
        dw = empty(w.shape, x.dtype)
        _matrix_product(gradient, x.reshape(rows, ins), dw.reshape(outs, ins), a_turned=True)
        dw = dw.astype(dtype, copy=False)
    if output_mask[2] and bias_shape is not None:
        db = sum_to(sum_axis(gradient.reshape(1, rows, outs)).reshape(w.shape[:-1]), bias_shape).astype(dtype, copy=False)
    return dx, dw, db


# ---- matmul


def _lined_up(a: Array, lead: Shape) -> Array:
    """The matrices of a batch, broadcast to the leading axes: (Z, M, K), or (1, M, K) where they are all one."""
    matrix = a.shape[-2:]
    if prod(a.shape[:-2]) == 1:
        return a.reshape(1, *matrix)
    if a.shape[:-2] != lead:
        a = np.ascontiguousarray(np.broadcast_to(a, (*lead, *matrix)))
    return a.reshape(prod(lead), *matrix)


class _Pair:
    """The arguments of matmul as batches of matrices, and the shape of the product."""

    def __init__(self, op: str, a: Array, b: Array, names: tuple[str, str]) -> None:
        for name, array in zip(names, (a, b)):
            if array.ndim == 0:
                raise ValueError(f"{op}: {name} must have at least one axis, got a number")
        left, right = a.shape if a.ndim > 1 else (1, *a.shape), b.shape if b.ndim > 1 else (*b.shape, 1)
        lead = _broadcast(left[:-2], right[:-2])
        if left[-1] != right[-2] or lead is None:
            raise ValueError(f"{op}: {names[1]} must fit {names[0]}, (..., M, K) and (..., K, N), got {b.shape} and {a.shape}")
        self.shape = (*lead, *(left[-2:-1] if a.ndim > 1 else ()), *(right[-1:] if b.ndim > 1 else ()))
        self.full_a, self.full_b = (*lead, *left[-2:]), (*lead, *right[-2:])
        self.a_shape, self.b_shape = a.shape, b.shape
        rows, cols = left[-2], right[-1]
        if prod(right[:-2]) == 1 and lead == left[:-2]:  # one matrix on the right: all rows at once
            self.a, self.b = a.reshape(1, prod(left[:-1]), left[-1]), b.reshape(1, *right[-2:])
            self.c_shape: Shape = (1, prod(left[:-1]), cols)
        else:
            self.a, self.b = _lined_up(a.reshape(left), lead), _lined_up(b.reshape(right), lead)
            self.c_shape = (prod(lead), rows, cols)

    def gradients(self, dy: Array, alpha: Number, wants: tuple[bool, bool]) -> tuple[Array | None, Array | None]:
        dy = dy.reshape(self.c_shape)
        batch, rows, cols = self.c_shape
        da = db = None
        if wants[0]:
            da = _product(dy, self.b, empty((batch, rows, self.a.shape[2]), dy.dtype), b_turned=True, alpha=alpha)
            da = sum_to(da.reshape(self.full_a), self._matrix(self.a_shape, -2)).reshape(self.a_shape)
        if wants[1]:
            db = _product(self.a, dy, empty((batch, self.b.shape[1], cols), dy.dtype), a_turned=True, alpha=alpha)
            db = db if batch == 1 else sum_to(db.reshape(self.full_b), self._matrix(self.b_shape, -1))
            db = db.reshape(self.b_shape)
        return da, db

    @staticmethod
    def _matrix(shape: Shape, axis: int) -> Shape:
        if len(shape) > 1:
            return shape
        return (1, *shape) if axis == -2 else (*shape, 1)


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    if a == b:
        return a
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _as_it_lies(m: Array) -> tuple[Array, bool] | None:
    """A matrix, or batch of them, whose elements kernels can take, and whether it is turned for that; None of others."""
    if m.flags.carray:
        return m, False
    turned = m.swapaxes(-1, -2)
    return (turned, True) if turned.flags.carray else None


def _product_as_they_lie(a: Array, b: Array) -> Array | None:
    """The product of matrices or of equal batches of them, which are read where they lie, transposed or not; None of others."""
    a_shape, b_shape = a.shape, b.shape
    if a.dtype not in _NOTHING or a.dtype is not b.dtype or len(a_shape) < 2 or a_shape[:-2] != b_shape[:-2] or a_shape[-1] != b_shape[-2]:
        return None
    if len(a_shape) == 2 and a.flags.carray and b.flags.carray and a.size and b.size:
        y = empty((a_shape[0], b_shape[1]), a.dtype)  # the usual case, whose small matrices leave no time for more
        multiply(a, b, y)
        return y
    left, right = _as_it_lies(a), _as_it_lies(b)
    if left is None or right is None or not (a.size and b.size):
        return None
    (a, a_turned), (b, b_turned) = left, right
    rows, depth, cols = a_shape[-2], a_shape[-1], b_shape[-1]
    y = empty((*a_shape[:-1], cols), a.dtype)
    if len(a_shape) == 2:
        multiply(a, b, y, a_turned, b_turned)
    else:
        gemm_strided(
            y.size // (rows * cols), rows, cols, depth, a.reshape(-1), (rows * depth, 1, rows) if a_turned else (rows * depth, depth, 1),
            b.reshape(-1), (depth * cols, 1, depth) if b_turned else (depth * cols, cols, 1), y.reshape(-1), (rows * cols, cols),
        )  # fmt: skip
    return y


@operation
def matmul(input: ArrayLike, other: ArrayLike, *, out: Array | None = None) -> Array:
    """The product of vectors, matrices, or batches of matrices: ``torch.matmul``.

    Args:
        input: (..., M, K), or (K,) for a row.
        other: (..., K, N), or (K,) for a column; leading axes broadcast with those of ``input``.
        out: the array that takes the result and is returned.

    Returns:
        (..., M, N), without M or N for a vector, of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    array([21., 43.])
    """
    op = "matmul"
    if out is None and type(input) is type(other) is np.ndarray and len(input.shape) == len(other.shape):
        y = _product_as_they_lie(input, other)
        if y is not None:
            return y
    a, b = _check.as_array(op, "input", input), _check.as_array(op, "other", other)
    left, right, nothing = a.shape, b.shape, _NOTHING.get(a.dtype)
    if nothing is not None and a.dtype is b.dtype and len(left) == 2 and left[1:] == right and a.size and out is None:
        column = empty(left[0], a.dtype)
        rows_by_rows(b.reshape(1, -1), a, nothing, 0, column.reshape(1, -1))
        return column
    (a, b), dtype = _check.as_arrays(op, input=a, other=b)
    pair = _Pair(op, a, b, ("input", "other"))
    y = _check.target(op, out, pair.shape, dtype, a, b)
    _product(pair.a, pair.b, y.reshape(pair.c_shape))
    return _check.deliver(y, out, dtype)


def matmul_backward(
    grad_output: ArrayLike, input: ArrayLike, other: ArrayLike, *, output_mask: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`matmul` with respect to input and other.

    Args:
        grad_output: the shape of the output.
        output_mask: which gradients to compute; the others are None.

    >>> matmul_backward([1.0, 1.0], [[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    (array([[ 1., 10.],
           [ 1., 10.]]), array([4., 6.]))
    """
    op = "matmul_backward"
    (dy, a, b), dtype = _check.as_arrays(op, grad_output=grad_output, input=input, other=other)
    pair = _Pair(op, a, b, ("input", "other"))
    _check_gradient(op, dy, pair.shape)
    da, db = (None if g is None else g.astype(dtype, copy=False) for g in pair.gradients(dy, 1, output_mask))
    return da, db


# ---- addmm and baddbmm


def _add_product(
    op: str, names: tuple[str, str], ndim: int, input: ArrayLike, a: Any, b: Any, beta: Number, alpha: Number, out: Array | None,
) -> Array:  # fmt: skip
    factors: dict[str, Any] = dict(zip(names, (a, b)))
    (c, a, b), dtype = _check.as_arrays(op, input=input, **factors)
    beta, alpha = _number(op, "beta", beta), _number(op, "alpha", alpha)
    shape = _add_product_shape(op, names, ndim, c.shape, a, b)
    y = _check.target(op, out, shape, dtype, c, a, b)
    batch = prod(shape[:-2])
    whole, a, b = y.reshape(batch, *shape[-2:]), a.reshape(batch, *a.shape[-2:]), b.reshape(batch, *b.shape[-2:])
    if beta == 1 and c.shape == shape[-1:]:
        _product(a, b, whole, alpha=alpha, bias=c)
    else:
        if beta != 0:  # 0 does not even look at the input, which may be NaN
            if c.shape == shape:
                _SCALED.of(op, c, float(beta), out=y)
            else:
                np.multiply(np.broadcast_to(c, shape), c.dtype.type(beta), out=y)
        _product(a, b, whole, alpha=alpha, accumulate=beta != 0)
    return _check.deliver(y, out, dtype)


def _add_product_shape(op: str, names: tuple[str, str], ndim: int, input: Shape, a: Array, b: Array) -> Shape:
    axes = "(Z, M, K)" if ndim == 3 else "(M, K)"
    if a.ndim != ndim:
        raise ValueError(f"{op}: {names[0]} must have axes {axes}, got shape {a.shape}")
    if b.ndim != ndim or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"{op}: {names[1]} must fit {names[0]}, whose shape is {a.shape}, got {b.shape}")
    shape = (*a.shape[:-1], b.shape[-1])
    if _broadcast(input, shape) != shape:
        raise ValueError(f"{op}: input must broadcast to the shape of the product, {shape}, got {input}")
    return shape


def _add_product_gradients(
    op: str, names: tuple[str, str], ndim: int, grad_output: ArrayLike, input: ArrayLike, a: Any, b: Any,
    beta: Number, alpha: Number, mask: tuple[bool, bool, bool],
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    factors: dict[str, Any] = dict(zip(names, (a, b)))
    (dy, a, b), dtype = _check.as_arrays(op, grad_output=grad_output, **factors)
    beta, alpha = _number(op, "beta", beta), _number(op, "alpha", alpha)
    input_shape = _check.shape_of(op, "input", input, dtype)
    _check_gradient(op, dy, _add_product_shape(op, names, ndim, input_shape, a, b))
    dc = None
    if mask[0]:
        dc = sum_to(dy, input_shape) * dy.dtype.type(beta) if beta != 0 else np.zeros(input_shape, dy.dtype)
        dc = dc.astype(dtype, copy=False)
    da, db = _Pair(op, a, b, names).gradients(dy, alpha, mask[1:])
    return dc, None if da is None else da.astype(dtype, copy=False), None if db is None else db.astype(dtype, copy=False)


@operation
def addmm(
    input: ArrayLike, mat1: ArrayLike, mat2: ArrayLike, *, beta: Number = 1, alpha: Number = 1, out: Array | None = None,
) -> Array:  # fmt: skip
    """beta input + alpha mat1 mat2: ``torch.addmm``.

    Args:
        input: an array that broadcasts to (M, N).
        mat1: (M, K).
        mat2: (K, N).
        beta, alpha: factors; with a beta of 0 the input is not looked at, so that its NaN do not matter.
        out: the array that takes the result and is returned.

    Returns:
        (M, N), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> addmm([1.0, 2.0], [[1.0, 1.0]], [[1.0, 0.0], [0.0, 3.0]], beta=10)
    array([[11., 23.]])
    """
    return _add_product("addmm", ("mat1", "mat2"), 2, input, mat1, mat2, beta, alpha, out)


def addmm_backward(
    grad_output: ArrayLike, input: ArrayLike, mat1: ArrayLike, mat2: ArrayLike, *, beta: Number = 1, alpha: Number = 1,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`addmm` with respect to input (of which only the shape matters), mat1 and mat2.

    Args:
        grad_output: the shape of the output.
        output_mask: which gradients to compute; the others are None.

    >>> addmm_backward([[1.0, 1.0]], [0.0, 0.0], [[1.0, 1.0]], [[1.0, 0.0], [0.0, 3.0]], beta=10)[0]
    array([10., 10.])
    """
    return _add_product_gradients("addmm_backward", ("mat1", "mat2"), 2, grad_output, input, mat1, mat2, beta, alpha, output_mask)


@operation
def baddbmm(
    input: ArrayLike, batch1: ArrayLike, batch2: ArrayLike, *, beta: Number = 1, alpha: Number = 1, out: Array | None = None,
) -> Array:  # fmt: skip
    """beta input + alpha batch1 batch2, for batches of matrices: ``torch.baddbmm``.

    Args:
        input: an array that broadcasts to (Z, M, N).
        batch1: (Z, M, K).
        batch2: (Z, K, N).
        beta, alpha, out: as for :func:`addmm`.

    Returns:
        (Z, M, N), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> baddbmm([[[1.0]]], [[[1.0, 2.0]]], [[[3.0], [4.0]]], alpha=2)
    array([[[23.]]])
    """
    return _add_product("baddbmm", ("batch1", "batch2"), 3, input, batch1, batch2, beta, alpha, out)


def baddbmm_backward(
    grad_output: ArrayLike, input: ArrayLike, batch1: ArrayLike, batch2: ArrayLike, *, beta: Number = 1, alpha: Number = 1,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`baddbmm` with respect to input (of which only the shape matters), batch1 and batch2.

    Args:
        grad_output: the shape of the output.
        output_mask: which gradients to compute; the others are None.

    >>> baddbmm_backward([[[1.0]]], [[[1.0]]], [[[1.0, 2.0]]], [[[3.0], [4.0]]], alpha=2)[1]
    array([[[6., 8.]]])
    """
    return _add_product_gradients("baddbmm_backward", ("batch1", "batch2"), 3, grad_output, input, batch1, batch2, beta, alpha, output_mask)


# ---- bilinear


def _bilinear_shape(op: str, x1: Shape, x2: Shape, w: Shape, bias: Shape | None) -> Shape:
    if len(w) != 3:
        raise ValueError(f"{op}: weight must have axes (O, I, J), got shape {w}")
    if not x1 or x1[-1] != w[1]:
        raise ValueError(f"{op}: input1 must have {w[1]} as its last axis, as weight (O, I, J) has, got shape {x1}")
    if not x2 or x2[-1] != w[2] or x2[:-1] != x1[:-1]:
        raise ValueError(f"{op}: input2 must have shape {(*x1[:-1], w[2])}, got {x2}")
    if bias is not None and bias != w[:1]:
        raise ValueError(f"{op}: bias must have shape {w[:1]}, got {bias}")
    return (*x1[:-1], w[0])


def _contract(rows: Array, stack: Array, y: Array, turned: bool, bias: Array | None = None) -> None:
    """y[n] = the sum over j of rows[n, j] stack[o, n, j] for each o; turned: over o of rows[n, o] stack[o, n, j] for each j."""
    O, N, J = stack.shape
    sums, cols, steps = (O, J, (J, N * J, 1)) if turned else (J, O, (J, 1, N * J))
    gemm_strided(
        N, 1, cols, sums, rows.reshape(-1), (sums, sums, 1), stack.reshape(-1), steps, y.reshape(-1), (cols, cols), bias=bias,
    )  # fmt: skip


@operation
def bilinear(input1: ArrayLike, input2: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Array:
    """x1^T W[o] x2 + b[o] for each o: ``torch.nn.functional.bilinear``.

    Args:
        input1: (N, ..., I).
        input2: (N, ..., J).
        weight: (O, I, J).
        bias: (O,) or None.

    Returns:
        (N, ..., O), of the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> bilinear([[1.0, 2.0]], [[3.0]], [[[10.0], [1.0]]])
    array([[36.]])
    """
    op = "bilinear"
    (x1, x2, w, b), dtype = _check.as_arrays(op, input1=input1, input2=input2, weight=weight, bias=bias, optional="bias")
    shape = _bilinear_shape(op, x1.shape, x2.shape, w.shape, None if b is None else b.shape)
    outs, first, second = w.shape
    rows = prod(shape[:-1])
    y = empty(shape, x1.dtype)
    if second == 0 or first == 0:
        y[...] = 0 if b is None else b
    elif y.size:
        stack = _product(x1.reshape(1, rows, first), w, empty((outs, rows, second), x1.dtype))
        _contract(x2, stack, y, False, b)
    return y.astype(dtype, copy=False)


def bilinear_backward(
    grad_output: ArrayLike, input1: ArrayLike, input2: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *,
    output_mask: tuple[bool, bool, bool, bool] = (True, True, True, True),
) -> tuple[Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`bilinear` with respect to input1, input2, weight and bias, of which only the shape matters.

    Args:
        grad_output: the shape of the output.
        output_mask: which gradients to compute; the others are None.

    >>> bilinear_backward([[1.0]], [[1.0, 2.0]], [[3.0]], [[[10.0], [1.0]]])[1]
    array([[12.]])
    """
    op = "bilinear_backward"
    (dy, x1, x2, w), dtype = _check.as_arrays(op, grad_output=grad_output, input1=input1, input2=input2, weight=weight)
    bias_shape = None if bias is None else _check.shape_of(op, "bias", bias, dtype)
    _check_gradient(op, dy, _bilinear_shape(op, x1.shape, x2.shape, w.shape, bias_shape))
    outs, first, second = w.shape
    rows = prod(dy.shape[:-1])
    gradient, left, right = dy.reshape(rows, outs), x1.reshape(1, rows, first), x2.reshape(1, rows, second)
    dx1, dx2, dw = (np.zeros(a.shape, dy.dtype) if wanted else None for a, wanted in zip((x1, x2, w), output_mask))
    if gradient.size and first and second:
        if dx1 is not None:
            _contract(gradient, _product(right, w, empty((outs, rows, first), dy.dtype), b_turned=True), dx1, True)
        if dx2 is not None:
            _contract(gradient, _product(left, w, empty((outs, rows, second), dy.dtype)), dx2, True)
        if dw is not None:
            _product(gradient.T[:, :, None] * left, right, dw, a_turned=True)
    db = sum_axis(gradient.reshape(1, rows, outs)).reshape(outs) if output_mask[3] and bias_shape is not None else None
    found = (None if g is None else g.astype(dtype, copy=False) for g in (dx1, dx2, dw, db))
    return tuple(found)  # type: ignore[return-value]


register(linear, linear_backward, inputs=("input", "weight", "bias"), saved=("input", "weight"))
register(matmul, matmul_backward, inputs=("input", "other"), saved=("input", "other"))
register(addmm, addmm_backward, inputs=("input", "mat1", "mat2"), saved=("mat1", "mat2"))
register(baddbmm, baddbmm_backward, inputs=("input", "batch1", "batch2"), saved=("batch1", "batch2"))
register(bilinear, bilinear_backward, inputs=("input1", "input2", "weight", "bias"), saved=("input1", "input2", "weight"))
