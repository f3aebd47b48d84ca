"""rotary_embedding: pairs of features turned by an angle that grows with the position.

    y1 = x1 cos - x2 sin,   y2 = x1 sin + x2 cos

where (x1, x2) is feature i of either half (or features 2 i and 2 i + 1, ``interleaved``) and cos, sin belong to position and
pair. The gradient turns back: dx1 = dy1 cos + dy2 sin, dx2 = dy2 cos - dy1 sin; nothing else is needed for it. Source: Su, Lu,
Pan, Wen, Liu, "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021), equation 34.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.rows import assign

_NS_PER_ELEMENT = 0.15
# Elements that make a block of rows.
_BLOCK = 1 << 14


@separate
def _turn_rows(block, worker, x, cos, sin, starts, length, size, pairs, interleaved, sign, rows, y):
    """y = x turned by sign * angle for ``rows`` rows; x and y flat rows of ``size``; row t of item b has angles starts[b] + t pairs."""
    for row in range(block * rows, min((block + 1) * rows, x.size // size)):
        at = starts[row // length] + row % length * pairs
        c, s = cos[at : at + pairs], sin[at : at + pairs]
        from_, to = x[row * size : (row + 1) * size], y[row * size : (row + 1) * size]
        if interleaved:
            for i in range(pairs):
                first, second, turned = from_[2 * i], from_[2 * i + 1], sign * s[i]
                to[2 * i] = first * c[i] - second * turned
                to[2 * i + 1] = first * turned + second * c[i]
        else:
            from_2, to_2 = from_[pairs:], to[pairs:]
            for i in range(pairs):
                first, second, turned = from_[i], from_2[i], sign * s[i]
                to[i] = first * c[i] - second * turned
                to_2[i] = first * turned + second * c[i]
        assign(to[2 * pairs :], from_[2 * pairs :])


@launcher
def _turn(threads, x, cos, sin, starts, length, size, pairs, interleaved, sign, rows, y):
    parallel(_turn_rows, (x.size // size + rows - 1) // rows, threads, (x, cos, sin, starts, length, size, pairs, interleaved, sign, rows, y))


def _turned(op: str, name: str, input: Any, cos: Any, sin: Any, interleaved: Any, sign: int) -> Array:
    (x, c, s), dtype = _check.as_arrays(op, **{name: input, "cos": cos, "sin": sin})
    if x.ndim < 2:
        raise ValueError(f"{op}: {name} must have axes (..., T, D), got shape {x.shape}")
    *lead, length, size = x.shape
    pairs = c.shape[-1] if c.ndim else 0
    if c.ndim < 2 or c.shape[-2] != length or c.ndim > x.ndim:
        raise ValueError(f"{op}: cos must have shape (..., {length}, pairs) for {name} {x.shape}, got {c.shape}")
    if 2 * pairs > size:
        raise ValueError(f"{op}: cos must have at most {size // 2} pairs for {size} features, got {pairs}")
    if s.shape != c.shape:
        raise ValueError(f"{op}: sin must have the shape of cos, {c.shape}, got {s.shape}")
    starts = np.zeros(lead, np.intp)
    padded = (1,) * (x.ndim - c.ndim) + c.shape
    for i, (have, need) in enumerate(zip(padded, lead)):
        if have not in (1, need):
            raise ValueError(f"{op}: cos must broadcast to {(*lead, length, pairs)}, got {c.shape}")
        if have > 1:
            starts += (np.arange(need) * prod(padded[i + 1 :])).reshape(-1, *[1] * (len(lead) - i - 1))
    y = empty(x.shape, x.dtype)
    if x.size:
        threads, rows = threads_for(x.size * _NS_PER_ELEMENT), max(1, _BLOCK // size)
        flat = x.reshape(-1), c.reshape(-1), s.reshape(-1), starts.reshape(-1)
        _turn(threads, *flat, length, size, pairs, bool(interleaved), x.dtype.type(sign), rows, y.reshape(-1))
    return y.astype(dtype, copy=False)


@operation
def rotary_embedding(input: ArrayLike, cos: ArrayLike, sin: ArrayLike, *, interleaved: bool = False) -> Array:
    """Turn pairs of features by angles that depend on the position.

    Args:
        input: (..., T, D): queries or keys, usually (N, heads, T, D).
        cos, sin: (..., T, R), R <= D / 2, leading axes broadcasting with those of the input: of the angle of each position
            and pair. Features from 2 R on stay as they are.
        interleaved: whether a pair is features 2 i and 2 i + 1, instead of i and R + i.

    Returns:
        The shape and dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong shape.

    >>> import numpy as np
    >>> rotary_embedding(np.array([[1.0, 0.0, 7.0]]), np.array([[0.0]]), np.array([[1.0]]))
    array([[0., 1., 7.]])
    """
    return _turned("rotary_embedding", "input", input, cos, sin, interleaved, 1)


def rotary_embedding_backward(grad_output: ArrayLike, input: ArrayLike, cos: ArrayLike, sin: ArrayLike, *, interleaved: bool = False) -> Array:
    """Gradient of :func:`rotary_embedding` with respect to its input, of which only the shape matters.

    >>> import numpy as np
    >>> rotary_embedding_backward(np.array([[0.0, 1.0]]), np.zeros((1, 2)), np.array([[0.0]]), np.array([[1.0]]))
    array([[1., 0.]])
    """
    op = "rotary_embedding_backward"
    dy = np.asarray(grad_output)
    shape = _check.shape_of(op, "input", input, dy.dtype.newbyteorder("="))
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {shape}, got {dy.shape}")
    return _turned(op, "grad_output", grad_output, cos, sin, interleaved, -1)


register(rotary_embedding, rotary_embedding_backward, inputs=("input",), saved=())
