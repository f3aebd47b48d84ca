"""Dropout of blocks: neighbours in an image are alike, so one that falls alone is not missed.

    y = x mask elements / (eps + elements left),   dx = dy mask elements / (eps + elements left)

A block of block_size elements along each axis falls where its first corner is drawn, with probability gamma; gamma is p divided
by the elements of a block, and by the share of the positions that a whole block may have. The mask is drawn again for the
gradient, from the seed. Source: Ghiasi, Lin, Le, "DropBlock: A Regularization Method for Convolutional Networks" (NeurIPS
2018), algorithm 1 and equation 1, as torchvision.ops has it; an even block_size is taken too.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array, deliver, target
from fastops._jit import launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.maps import place
from fastops.simd.random import bits32, check_seed, seed_of

_NS = 0.8  # an element, one thread, AVX2
_BLOCK = 1 << 14


@separate
def _mark_plane(block, worker, seed, bound, corners, size, hits, mask, kept):
    """mask[plane] (D, H, W) is 0 in the blocks, of extents ``size``, whose first corners were drawn, else 1; kept counts the ones.

    corners: how many corners a block may have along each axis; hits (threads, corners[2]) is scratch.
    """
    plane, hit = mask[block], hits[worker]
    plane[:] = np.uint8(1)
    for d in range(corners[0]):
        for h in range(corners[1]):
            first = ((block * corners[0] + d) * corners[1] + h) * corners[2]
            for w in range(corners[2]):
                hit[w] = np.uint8(1) if np.int64(bits32(seed, first + w)) < bound else np.uint8(0)
            for w in range(corners[2]):
                if hit[w]:
                    plane[d : d + size[0], h : h + size[1], w : w + size[2]] = np.uint8(0)
    count = 0
    for d in range(plane.shape[0]):
        for h in range(plane.shape[1]):
            row = plane[d, h]
            for w in range(row.size):
                count += row[w]
    kept[block] = count


@separate
def _keep_block(block, worker, x, mask, factor, y):
    start, end = block * _BLOCK, min((block + 1) * _BLOCK, x.size)
    number = x.dtype.type
    factor = number(factor)
    x, mask, y = x[start:end], mask[start:end], y[start:end]
    for i in range(end - start):
        y[i] = x[i] * number(mask[i]) * factor


@launcher
def _mark(threads, seed, bound, corners, size, hits, mask, kept):
    parallel(_mark_plane, kept.size, threads, (seed, bound, corners, size, hits, mask, kept))


@launcher
def _keep(threads, x, mask, factor, y):
    parallel(_keep_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (x, mask, factor, y))


def _without_blocks(op: str, given: Any, x: Array, p: float, block_size: int, inplace: bool, eps: float, seed: int, out: Array | None) -> Array:
    out = place(op, given, inplace, out)
    dtype = x.dtype
    if dtype == _check.FLOAT16:
        x = x.astype(np.float32)
    y = target(op, out, x.shape, dtype, x)
    if p == 0.0:
        np.copyto(y, x)
    elif x.size:
        spatial = x.shape[2:]
        side = min(block_size, *spatial)
        size = (side,) * len(spatial)
        corners = tuple(n - side + 1 for n in spatial)
        gamma = p * prod(spatial) / (prod(size) * prod(corners))
        if len(spatial) == 2:
            spatial, size, corners = (1, *spatial), (1, *size), (1, *corners)
        planes = x.shape[0] * x.shape[1]
        mask, kept = empty((planes, *spatial), np.uint8), empty(planes, np.int64)
        threads = threads_for(x.size * _NS)
        _mark(threads, seed, round(gamma * (1 << 32)), corners, size, empty((threads, corners[2]), np.uint8), mask, kept)
        _keep(threads, x.ravel(), mask.ravel(), x.size / (eps + int(kept.sum())), y.ravel())
    return deliver(y, out, dtype)


Recorded = tuple[Array, dict[str, Any]]


def _checked(op: str, input: Any, p: float, block_size: int, eps: float, ndim: int) -> tuple[Array, float, int, float]:
    probability, side = _check.probability(op, "p", p), _check.integer(op, "block_size", block_size, minimum=1)
    x = _check.as_array(op, "input", input)
    if x.ndim != ndim:
        axes = "(N, C, H, W)" if ndim == 4 else "(N, C, D, H, W)"
        raise ValueError(f"{op}: input must have axes {axes}, got shape {x.shape}")
    return x, probability, side, _check.real(op, "eps", eps)


def _forward(
    op: str, ndim: int, input: ArrayLike, p: float, block_size: int, inplace: bool, eps: float, training: bool, rng: Any,
    out: Array | None,
) -> Recorded:  # fmt: skip
    x, probability, side, small = _checked(op, input, p, block_size, eps, ndim)
    if not training or probability == 0.0:
        return _without_blocks(op, input, x, 0.0, side, inplace, small, 0, out), {}
    seed = seed_of(op, rng)
    return _without_blocks(op, input, x, probability, side, inplace, small, seed, out), {"rng": seed}


def _backward(op: str, ndim: int, grad_output: ArrayLike, input: Any, p: float, block_size: int, eps: float, training: bool, rng: Any) -> Array:
    dy, probability, side, small = _checked(op, grad_output, p, block_size, eps, ndim)
    shape = _check.shape_of(op, "input", input, dy.dtype)
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of input, {shape}, got {dy.shape}")
    if not training or probability == 0.0:
        return dy.copy()
    return _without_blocks(op, dy, dy, probability, side, False, small, check_seed(op, rng), None)


def _record_drop_block2d(
    input: ArrayLike, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06, training: bool = True, *, rng: Any = None,
    out: Array | None = None,
) -> Recorded:  # fmt: skip
    return _forward("drop_block2d", 4, input, p, block_size, inplace, eps, training, rng, out)


@operation
def drop_block2d(
    input: ArrayLike, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06, training: bool = True, *, rng: Any = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Blocks of elements become 0, the rest is scaled up: ``torchvision.ops.drop_block2d``.

    Args:
        input: (N, C, H, W); float16 (computed in float32), float32 or float64.
        p: the share of the elements to fall, from 0 to 1 (somewhat less do, since blocks overlap).
        block_size: the side of a block, at most H and W are used.
        inplace: the result overwrites the input, which must be a writeable NumPy array, and is returned.
        eps: keeps the scale finite where everything falls.
        training: if False, nothing falls and the result is a copy.
        rng: an integer seed from 0 to 2**63 - 1, which always gives the same mask, a ``numpy.random.Generator``, or None.
        out: the array that takes the result and is returned.

    Returns:
        An array of the shape and dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> import numpy as np
    >>> drop_block2d(np.ones((1, 1, 4, 6)), p=0.3, block_size=2, rng=1)[0, 0].round(1)
    array([[1.6, 1.6, 1.6, 0. , 0. , 1.6],
           [1.6, 0. , 0. , 0. , 0. , 1.6],
           [1.6, 0. , 0. , 0. , 1.6, 1.6],
           [1.6, 1.6, 1.6, 1.6, 1.6, 1.6]])
    """
    return _forward("drop_block2d", 4, input, p, block_size, inplace, eps, training, rng, out)[0]


def drop_block2d_backward(
    grad_output: ArrayLike, input: ArrayLike, p: float, block_size: int, eps: float = 1e-06, training: bool = True, *,
    rng: int | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`drop_block2d`, of whose input only the shape matters; ``rng`` is the integer seed of the forward pass.

    >>> import numpy as np
    >>> ones = np.ones((1, 1, 4, 6))
    >>> bool((drop_block2d_backward(ones, ones, 0.3, 2, rng=1) == drop_block2d(ones, 0.3, 2, rng=1)).all())
    True
    """
    return _backward("drop_block2d_backward", 4, grad_output, input, p, block_size, eps, training, rng)


register(drop_block2d, drop_block2d_backward, inputs=("input",), saved=(), record=_record_drop_block2d)


def _record_drop_block3d(
    input: ArrayLike, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06, training: bool = True, *, rng: Any = None,
    out: Array | None = None,
) -> Recorded:  # fmt: skip
    return _forward("drop_block3d", 5, input, p, block_size, inplace, eps, training, rng, out)


@operation
def drop_block3d(
    input: ArrayLike, p: float, block_size: int, inplace: bool = False, eps: float = 1e-06, training: bool = True, *, rng: Any = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """:func:`drop_block2d` for an input (N, C, D, H, W): ``torchvision.ops.drop_block3d``.

    >>> import numpy as np
    >>> drop_block3d(np.ones((1, 1, 2, 3, 4)), p=1.0, block_size=1).any()
    np.False_
    """
    return _forward("drop_block3d", 5, input, p, block_size, inplace, eps, training, rng, out)[0]


def drop_block3d_backward(
    grad_output: ArrayLike, input: ArrayLike, p: float, block_size: int, eps: float = 1e-06, training: bool = True, *,
    rng: int | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`drop_block3d`, of whose input only the shape matters; ``rng`` is the integer seed of the forward pass.

    >>> import numpy as np
    >>> ones = np.ones((1, 1, 2, 3, 4))
    >>> bool((drop_block3d_backward(ones, ones, 0.3, 2, rng=1) == drop_block3d(ones, 0.3, 2, rng=1)).all())
    True
    """
    return _backward("drop_block3d_backward", 5, grad_output, input, p, block_size, eps, training, rng)


register(drop_block3d, drop_block3d_backward, inputs=("input",), saved=(), record=_record_drop_block3d)
