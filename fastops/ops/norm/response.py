"""local_response_norm: each channel is divided by a power of the mean square of its neighbours.

    y[c] = x[c] d[c]^-beta,   d[c] = k + alpha / size * sum of x[c']^2 over c - size // 2 <= c' <= c + (size - 1) // 2
    dx[c] = dy[c] d[c]^-beta - 2 alpha beta / size x[c] * sum of dy[c'] x[c'] d[c']^(-beta - 1) over the c' that c is a neighbour of

The backward pass computes d again. Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional
Neural Networks" (2012), section 3.3.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.rows import assign
from fastops.simd.vmath import exp, log
from fastops.simd.workspace import scratch_array

# A strip of so many positions in all channels stays in L2 (128 x 256 x 4 bytes).
_STRIP = 128
_NS_FORWARD, _NS_BACKWARD = 1.0, 2.0


@function
def _power(d, beta):
    """d[i] = d[i]^-beta."""
    # beta = 3/4 is what everybody uses; two square roots take a fifth of the time of exp and log.
    if beta == d.dtype.type(0.75):
        for i in range(d.size):
            root = np.sqrt(d[i])
            d[i] = d.dtype.type(1) / (root * np.sqrt(root))
    else:
        for i in range(d.size):
            d[i] = exp(-beta * log(d[i]))


@function
def _divisors(x, c, before, after, scale, k, d):
    """d = k + scale * the sum of the squares of the neighbours of channel c; x (C, positions)."""
    d[:] = x.dtype.type(0)
    for neighbour in range(max(c - before, 0), min(c + after + 1, x.shape[0])):
        row = x[neighbour]
        for i in range(d.size):
            d[i] += row[i] * row[i]
    for i in range(d.size):
        d[i] = k + scale * d[i]


@separate
def _forward_strip(block, worker, x, before, after, scale, beta, k, scratch, y):
    """y for a strip of positions of one image; x, y (N, C, L), scratch (threads, 1, strip)."""
    _, C, L = x.shape
    strips = (L + _STRIP - 1) // _STRIP
    n, first = block // strips, block % strips * _STRIP
    end = min(first + _STRIP, L)
    image = x[n, :, first:end]
    d = scratch[worker, 0, : end - first]
    for c in range(C):
        _divisors(image, c, before, after, scale, k, d)
        _power(d, beta)
        source, target = x[n, c, first:end], y[n, c, first:end]
        for i in range(d.size):
            target[i] = source[i] * d[i]


@separate
def _backward_strip(block, worker, dy, x, before, after, scale, beta, k, scratch, dx):
    """dx for a strip of positions of one image; scratch (threads, C + 1, strip)."""
    _, C, L = x.shape
    strips = (L + _STRIP - 1) // _STRIP
    n, first = block // strips, block % strips * _STRIP
    end = min(first + _STRIP, L)
    image = x[n, :, first:end]
    d = scratch[worker, C, : end - first]
    for c in range(C):
        _divisors(image, c, before, after, scale, k, d)
        term = scratch[worker, c, : end - first]
        assign(term, d)
        _power(term, beta)
        gradient, source, target = dy[n, c, first:end], x[n, c, first:end], dx[n, c, first:end]
        for i in range(d.size):
            target[i] = gradient[i] * term[i]
            term[i] = target[i] * source[i] / d[i]
    factor = -(scale + scale) * beta
    for c in range(C):
        d[:] = x.dtype.type(0)
        for neighbour in range(max(c - after, 0), min(c + before + 1, C)):
            term = scratch[worker, neighbour, : end - first]
            for i in range(d.size):
                d[i] += term[i]
        source, target = x[n, c, first:end], dx[n, c, first:end]
        for i in range(d.size):
            target[i] += factor * source[i] * d[i]


@launcher
def _forward(threads, x, before, after, scale, beta, k, scratch, y):
    blocks = x.shape[0] * ((x.shape[2] + _STRIP - 1) // _STRIP)
    parallel(_forward_strip, blocks, threads, (x, before, after, scale, beta, k, scratch, y))


@launcher
def _backward(threads, dy, x, before, after, scale, beta, k, scratch, dx):
    blocks = x.shape[0] * ((x.shape[2] + _STRIP - 1) // _STRIP)
    parallel(_backward_strip, blocks, threads, (dy, x, before, after, scale, beta, k, scratch, dx))


def _planes(op: str, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[tuple[int, int, int], tuple[Any, ...]]:
    """The shape (N, C, L), and what kernels take beside arrays."""
    if x.ndim < 3:
        raise ValueError(f"{op}: input must have axes (N, C, ...) and at least one more, got shape {x.shape}")
    size = _check.integer(op, "size", size, minimum=1)
    for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
        if not isinstance(value, (int, float, np.floating)):
            raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    number = x.dtype.type
    # neighbours beyond the channels do not exist
    before, after = min(size // 2, x.shape[1]), min((size - 1) // 2, x.shape[1])
    return (x.shape[0], x.shape[1], prod(x.shape[2:])), (before, after, number(alpha / size), number(beta), number(k))


@operation
def local_response_norm(input: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """Divide by a power of the neighbouring channels' mean square: ``torch.nn.functional.local_response_norm``.

    Args:
        input: (N, C, L), (N, C, H, W) or more.
        size: how many channels are neighbours, with the channel itself.
        alpha, beta, k: the divisor is (k + alpha times the mean square)^beta; channels beyond the ends count as 0.

    Returns:
        The shape and the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> local_response_norm([[[1.0], [2.0]]], 2, alpha=2.0, beta=1.0)
    array([[[0.5       ],
            [0.33333333]]])
    """
    op = "local_response_norm"
    (x,), dtype = _check.as_arrays(op, input=input)
    shape, attributes = _planes(op, x, size, alpha, beta, k)
    y = empty(x.shape, x.dtype)
    if x.size:
        threads = threads_for(x.size * _NS_FORWARD)
        _forward(threads, x.reshape(shape), *attributes, scratch_array((threads, 1, _STRIP), x.dtype), y.reshape(shape))
    return y.astype(dtype, copy=False)


def local_response_norm_backward(
    grad_output: ArrayLike, input: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0,
) -> Array:  # fmt: skip
    """Gradient of :func:`local_response_norm` with respect to its input.

    >>> local_response_norm_backward([[[1.0], [1.0]]], [[[0.0], [0.0]]], 2)
    array([[[1.],
            [1.]]])
    """
    op = "local_response_norm_backward"
    (dy, x), dtype = _check.as_arrays(op, grad_output=grad_output, input=input)
    if dy.shape != x.shape:
        raise ValueError(f"{op}: grad_output must have the shape of input, {x.shape}, got {dy.shape}")
    shape, attributes = _planes(op, x, size, alpha, beta, k)
    dx = empty(x.shape, x.dtype)
    if x.size:
        threads = threads_for(x.size * _NS_BACKWARD)
        scratch = scratch_array((threads, shape[1] + 1, _STRIP), x.dtype)
        _backward(threads, dy.reshape(shape), x.reshape(shape), *attributes, scratch, dx.reshape(shape))
    return dx.astype(dtype, copy=False)


register(local_response_norm, local_response_norm_backward, inputs=("input",), saved=("input",))
