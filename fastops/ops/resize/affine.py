"""affine_grid: the places that an affine map sends the pixels of a result to; for grid_sample.

    grid[n, p, q] = theta[n] (x(q), y(p), 1)             x(q) = 2 q / (Q - 1) - 1 with corners aligned, (2 q + 1) / Q - 1 without
    dtheta[n, a] = sum over p, q of dgrid[n, p, q, a] (x(q), y(p), 1)

and with one more axis in three dimensions. Sums of the gradient run over rows, then over rows in order, in float64: nothing
depends on the number of threads. Source: Jaderberg et al., "Spatial Transformer Networks" (2015), equation 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
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
from fastops.simd.blocking import NAMES

_BLOCK = 8192
_NS_PER_ELEMENT = 0.5


@separate
def _affine_forward(block, worker, theta, axes, size, rows, grid):
    """Rows of grid (N, D, H, W, ndim) from theta (N, ndim, ndim + 1), flat; axes: the coordinates of W, then of H and D."""
    D, H, W = size
    ndim = theta.shape[1]
    x, y, z = axes, axes[W:], axes[W + H :]
    total = theta.shape[0] * D * H
    for row in range(block * rows, min((block + 1) * rows, total)):
        n, d, h = row // (D * H), row // H % D, row % H
        for a in range(ndim):
            slope, shift = theta[n, a, 0], theta[n, a, 1] * y[h] + theta[n, a, ndim]
            if ndim == 3:
                shift += theta[n, a, 2] * z[d]
            places = grid[row * W * ndim + a :]
            for w in range(W):
                places[np.uintp(w * ndim)] = slope * x[w] + shift


@separate
def _affine_rows(block, worker, dy, axes, size, rows, sums):
    """sums[row] = (sum of dy x, sum of dy) for each coordinate of the places of a row; dy (N, D, H, W, ndim), flat."""
    W, ndim, total = size
    for row in range(block * rows, min((block + 1) * rows, total)):
        for a in range(ndim):
            places = dy[row * W * ndim + a :]
            # four running sums: one addition waits for the one before
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
            for w in range(0, W - 3, 4):
                g0, g1 = np.float64(places[np.uintp(w * ndim)]), np.float64(places[np.uintp((w + 1) * ndim)])
                g2, g3 = np.float64(places[np.uintp((w + 2) * ndim)]), np.float64(places[np.uintp((w + 3) * ndim)])
                t0, t1, t2, t3 = t0 + g0, t1 + g1, t2 + g2, t3 + g3
                s0, s1, s2, s3 = s0 + g0 * axes[w], s1 + g1 * axes[w + 1], s2 + g2 * axes[w + 2], s3 + g3 * axes[w + 3]
            for w in range(W // 4 * 4, W):
                g0 = np.float64(places[np.uintp(w * ndim)])
                s0, t0 = s0 + g0 * axes[w], t0 + g0
            sums[row, a] = (s0 + s1) + (s2 + s3)
            sums[row, ndim + a] = (t0 + t1) + (t2 + t3)


@launcher
def _affine_all(threads, theta, axes, size, rows, grid):
    parallel(_affine_forward, -(-theta.shape[0] * size[0] * size[1] // rows), threads, (theta, axes, size, rows, grid))


@launcher
def _affine_gradient(threads, dy, axes, size, spans, rows, sums, dtheta):
    """``size`` is (W, ndim, N D H), ``spans`` (D, H)."""
    parallel(_affine_rows, -(-size[2] // rows), threads, (dy, axes, size, rows, sums))
    W, ndim, _ = size
    D, H = spans
    y, z = axes[W:], axes[W + H :]
    for n in range(dtheta.shape[0]):
        for a in range(ndim):
            along, across, deep, whole = 0.0, 0.0, 0.0, 0.0
            for d in range(D):
                for h in range(H):
                    row = (n * D + d) * H + h
                    along += sums[row, a]
                    across += sums[row, ndim + a] * y[h]
                    deep += sums[row, ndim + a] * z[d]
                    whole += sums[row, ndim + a]
            dtheta[n, a, 0], dtheta[n, a, 1] = along, across
            if ndim == 3:
                dtheta[n, a, 2] = deep
            dtheta[n, a, ndim] = whole


@lru_cache(maxsize=64)
def _axes(size: tuple[int, int, int], align_corners: bool, dtype: str) -> Array:
    """Coordinates of the pixels along W, then H, then D, computed from both ends as torch.linspace does it."""
    parts = []
    for n in reversed(size):
        real = np.dtype(dtype).type
        step = real(2) / real(max(n - 1, 1))
        j = np.arange(n)
        places = np.where(j < n // 2, step * j.astype(real) - real(1), real(1) - step * (n - 1 - j).astype(real))
        places = np.zeros(1, dtype) if n == 1 else places
        parts.append(places if align_corners else places * real(n - 1) / real(n))
    return np.concatenate(parts).astype(dtype)


def _size(op: str, theta: tuple[int, ...], size: Any) -> tuple[int, ...]:
    """(N, D, H, W) of a result of the given size."""
    items = _check.items(size)
    if items is None:
        raise TypeError(f"{op}: size must be a sequence of integers, got {size!r}")
    numbers = tuple(_check.integer(op, "size", n, minimum=1) for n in items)
    if len(numbers) not in (4, 5):
        raise ValueError(f"{op}: size must be (N, C, H, W) or (N, C, D, H, W), got {numbers}")
    ndim = len(numbers) - 2
    if theta != (numbers[0], ndim, ndim + 1):
        raise ValueError(f"{op}: theta must have shape {(numbers[0], ndim, ndim + 1)} for size {numbers}, got {theta}")
    _check.fits(op, "size", "the grid", (*numbers, ndim), 8)
    return numbers


@operation
def affine_grid(theta: ArrayLike, size: Sequence[int], align_corners: bool | None = None) -> Array:
    """The places that affine maps send the pixels of a result to: ``torch.nn.functional.affine_grid``.

    Args:
        theta: (N, 2, 3), or (N, 3, 4) in three dimensions.
        size: the shape of the result of :func:`grid_sample`, (N, C, H, W) or (N, C, D, H, W).
        align_corners: as for :func:`grid_sample`.

    Returns:
        (N, H, W, 2) or (N, D, H, W, 3), of the dtype of theta (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> affine_grid(np.array([[[1.0, 0, 0.5], [0, 1, 0]]]), (1, 1, 1, 2))
    array([[[[0., 0.],
             [1., 0.]]]])
    """
    (matrix,), dtype = _check.as_arrays("affine_grid", theta=theta)
    n, _, *extents = _size("affine_grid", matrix.shape, size)
    shape = (*((1,) * (3 - len(extents))), *extents)
    axes = _axes(shape, bool(align_corners), NAMES[matrix.dtype.char])
    grid = empty((n, *extents, len(extents)), matrix.dtype)
    rows = max(1, _BLOCK // (shape[-1] * len(extents)))
    _affine_all(threads_for(grid.size * _NS_PER_ELEMENT), matrix, axes, shape, rows, grid.ravel())
    return grid.astype(dtype, copy=False)


def affine_grid_backward(grad_output: ArrayLike, theta: ArrayLike, size: Sequence[int], align_corners: bool | None = None) -> Array:
    """Gradient of :func:`affine_grid` with respect to theta, of which only the shape matters.

    >>> import numpy as np
    >>> affine_grid_backward(np.ones((1, 1, 2, 2)), np.zeros((1, 2, 3)), (1, 1, 1, 2), align_corners=True)
    array([[[0., 0., 2.],
            [0., 0., 2.]]])
    """
    op = "affine_grid_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    given = _check.shape_of(op, "theta", theta, dtype)
    n, _, *extents = _size(op, given, size)
    ndim = len(extents)
    if dy.shape != (n, *extents, ndim):
        raise ValueError(f"{op}: grad_output must have the shape of the output, {(n, *extents, ndim)}, got {dy.shape}")
    shape = (*((1,) * (3 - ndim)), *extents)
    axes = _axes(shape, bool(align_corners), NAMES[dy.dtype.char])
    dtheta, total = empty(given, dy.dtype), n * prod(shape[:2])
    rows = max(1, _BLOCK // (shape[-1] * ndim))
    sums = empty((total, 2 * ndim))
    threads = threads_for(dy.size * _NS_PER_ELEMENT)
    _affine_gradient(threads, dy.ravel(), axes, (shape[2], ndim, total), shape[:2], rows, sums, dtheta)
    return dtheta.astype(dtype, copy=False)


register(affine_grid, affine_grid_backward, inputs=("theta",), saved=())
