"""Dropout of elements, channels and samples: what falls away, and what becomes of the rest.

    dropout                 each element, with probability p; the rest is divided by 1 - p
    dropout1d, 2d, 3d       each channel of each image, all of it
    alpha_dropout           each element becomes what selu gives at -infinity; then a x + b makes mean 0 and variance 1 again
    feature_alpha_dropout   each channel, likewise
    drop_connect            each weight, as dropout does
    stochastic_depth        each sample of a batch, or the whole batch, as dropout does

The gradient is that of a product with a constant. Nothing is kept for it but the seed: whether an element falls is a function
of the seed and of its index (``simd/random.py``), and is computed again. So a mask does not depend on the number of threads.

Sources: Srivastava et al., "Dropout" (JMLR 2014), section 10; Tompson et al., "Efficient Object Localization Using
Convolutional Networks" (CVPR 2015), section 3.2, channels; Klambauer et al., "Self-Normalizing Neural Networks" (NIPS 2017),
alpha dropout; Wan et al., "Regularization of Neural Networks using DropConnect" (ICML 2013); Huang et al., "Deep Networks with Stochastic Depth" (ECCV 2016).
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array, deliver, target
from fastops._jit import launcher, parallel, separate
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.activations import SELU_ALPHA, SELU_SCALE
from fastops.simd.maps import place
from fastops.simd.random import bits32, check_seed, seed_of, words32

_NS = 0.4  # an element with a random number of its own, one thread, AVX2
_NS_MOVED = 0.12

_BLOCK = 1 << 14
_HALF = _BLOCK // 2

Recorded = tuple[Array, dict[str, Any]]


# ---- y = factor x + shift, or 0 x + fallen for what falls: NaN stays, as in PyTorch


@separate
def _drop_block(block, worker, seed, bound, x, factor, shift, fallen, y):
    """Each element for itself. The two halves of a block share the generator's calls, which give two words; flat arrays."""
    start = block * _BLOCK
    size = min(_BLOCK, x.size - start)
    number = x.dtype.type
    zero, factor, shift, fallen = number(0), number(factor), number(shift), number(fallen)
    bound = np.uint32(bound)
    first = min(_HALF, size)
    shared = size - first
    a, b, c = x[start : start + shared], x[start + first : start + size], x[start + shared : start + first]
    p, q, r = y[start : start + shared], y[start + first : start + size], y[start + shared : start + first]
    for i in range(shared):
        one, two = words32(seed, block * _HALF + i)
        p[i] = a[i] * (zero if one < bound else factor) + (fallen if one < bound else shift)
        q[i] = b[i] * (zero if two < bound else factor) + (fallen if two < bound else shift)
    for i in range(first - shared):
        one = bits32(seed, block * _HALF + shared + i)
        r[i] = c[i] * (zero if one < bound else factor) + (fallen if one < bound else shift)


@separate
def _drop_groups_block(block, worker, seed, bound, x, length, each, factor, shift, fallen, y):
    """``each`` groups of ``length`` elements, or (each 0) a piece of a long group."""
    number = x.dtype.type
    pieces = (length + _BLOCK - 1) // _BLOCK
    groups = x.size // length
    for group in range(block // pieces if each == 0 else block * each, block // pieces + 1 if each == 0 else min((block + 1) * each, groups)):
        falls = bits32(seed, group) < np.uint32(bound)
        times, plus = number(0.0 if falls else factor), number(fallen if falls else shift)
        start, end = group * length, (group + 1) * length
        if each == 0:
            start += block % pieces * _BLOCK
            end = min(start + _BLOCK, end)
        row, result = x[start:end], y[start:end]
        for i in range(end - start):
            result[i] = row[i] * times + plus


@launcher
def _drop(threads, seed, bound, x, factor, shift, fallen, y):
    parallel(_drop_block, (x.size + _BLOCK - 1) // _BLOCK, threads, (seed, bound, x, factor, shift, fallen, y))


@launcher
def _drop_groups(threads, seed, bound, x, length, factor, shift, fallen, y):
    each = _BLOCK // length
    groups = x.size // length
    blocks = groups * ((length + _BLOCK - 1) // _BLOCK) if each == 0 else (groups + each - 1) // each
    parallel(_drop_groups_block, blocks, threads, (seed, bound, x, length, each, factor, shift, fallen, y))


def _bound(p: float) -> int:
    """What falls with probability p has 32 random bits below this."""
    return min(round(p * (1 << 32)), (1 << 32) - 1)


def _moved(
    op: str, name: str, given: Any, x: Array, length: int, p: float, seed: int, factors: tuple[float, float, float], inplace: bool,
    out: Array | None,
) -> Array:  # fmt: skip
    """The result for groups of ``length`` elements that fall with probability p."""
    out = place(op, given, inplace, out)
    dtype = x.dtype
    if dtype == _check.FLOAT16:
        x = x.astype(np.float32)
    y = target(op, out, x.shape, dtype, x)
    if p in (0.0, 1.0):
        np.multiply(x, 1 - int(p), out=y)
    elif length == 1:
        _drop(threads_for(x.size * _NS), seed, _bound(p), x.ravel(), *factors, y.ravel())
    elif x.size:
        _drop_groups(threads_for(x.size * _NS_MOVED), seed, _bound(p), x.ravel(), length, *factors, y.ravel())
    return deliver(y, out, dtype)


def _scaled(p: float) -> tuple[float, float, float]:
    """Factor, shift and fallen value of plain dropout."""
    return (0.0 if p == 1.0 else 1.0 / (1.0 - p), 0.0, 0.0)


def _self_normalizing(p: float) -> tuple[float, float, float]:
    """Those of alpha dropout: a and b keep mean 0 and variance 1 when elements become -alpha with probability p."""
    alpha = SELU_ALPHA * SELU_SCALE
    a = 0.0 if p == 1.0 else 1.0 / sqrt((alpha * alpha * p + 1.0) * (1.0 - p))
    return a, alpha * a * p, alpha * a * (p - 1.0)


def _forward(op: str, name: str, input: ArrayLike, length: Any, p: float, training: bool, factors: Any, inplace: bool, rng: Any, out: Array | None) -> Recorded:
    """``length`` of the input's shape gives the elements that fall together; ``factors`` of p what becomes of them."""
    probability = _check.probability(op, "p", p)
    x = _check.as_array(op, name, input)
    together = length(op, x.shape)
    if not training or probability == 0.0:
        return _moved(op, name, input, x, 1, 0.0, 0, (1.0, 0.0, 0.0), inplace, out), {}
    if together is None:
        raise ValueError(f"{op}: input must have axes (N, C, ...), at least 2, got shape {x.shape}")
    seed = seed_of(op, rng)
    return _moved(op, name, input, x, together, probability, seed, factors(probability), inplace, out), {"rng": seed}


def _backward(op: str, name: str, grad_output: ArrayLike, input: Any, length: Any, p: float, training: bool, factors: Any, rng: Any) -> Array:
    probability = _check.probability(op, "p", p)
    dy = _check.as_array(op, "grad_output", grad_output)
    shape = _check.shape_of(op, name, input, dy.dtype)
    if dy.shape != shape:
        raise ValueError(f"{op}: grad_output must have the shape of {name}, {shape}, got {dy.shape}")
    together = length(op, shape)
    if not training or probability == 0.0:
        return dy.copy()
    if together is None:
        raise ValueError(f"{op}: input must have axes (N, C, ...), at least 2, got shape {shape}")
    return _moved(op, name, dy, dy, together, probability, check_seed(op, rng), (factors(probability)[0], 0.0, 0.0), False, None)


def _one(op: str, shape: tuple[int, ...]) -> int:
    return 1


def _channel(op: str, shape: tuple[int, ...]) -> int | None:
    """Elements of a channel of (N, C, ...); None where there is none, which only matters when something falls."""
    return prod(shape[2:]) if len(shape) >= 2 else None


def _channel_of(batched: int) -> Any:
    """Elements of a channel of (N, C, ...) with so many axes, or of (C, ...) with one less."""

    def length(op: str, shape: tuple[int, ...]) -> int:
        if len(shape) not in (batched, batched - 1):
            raise ValueError(f"{op}: input must have {batched} axes, (N, C, ...), or {batched - 1}, (C, ...), got shape {shape}")
        return prod(shape[len(shape) - batched + 2 :])

    return length


_channel1d, _channel3d = _channel_of(3), _channel_of(5)


def _channel2d(op: str, shape: tuple[int, ...]) -> int:
    # Of three axes the first is the batch, here alone: so PyTorch has it
    if len(shape) not in (3, 4):
        raise ValueError(f"{op}: input must have axes (N, C, H, W) or (N, C, L), got shape {shape}")
    return prod(shape[2:])


def _record_dropout(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Recorded:
    return _forward("dropout", "input", input, _one, p, training, _scaled, inplace, rng, out)


@operation
def dropout(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Array:
    """Each element becomes 0 with probability p, the rest is divided by 1 - p: ``torch.nn.functional.dropout``.

    Args:
        input: any shape, such as (N, C, H, W); float16 (computed in float32), float32 or float64.
        p: the probability, from 0 to 1.
        training: if False, nothing falls and the result is a copy.
        inplace: the result overwrites the input, which must be a writeable NumPy array, and is returned.
        rng: an integer seed from 0 to 2**63 - 1, which always gives the same mask, a ``numpy.random.Generator``, which gives a
            seed, or None for a new one.
        out: the array that takes the result and is returned.

    Returns:
        An array of the shape and dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value, shape or dtype.

    >>> import numpy as np
    >>> dropout(np.ones(8), p=0.5, rng=0)
    array([2., 2., 0., 0., 2., 2., 0., 0.])
    """
    return _forward("dropout", "input", input, _one, p, training, _scaled, inplace, rng, out)[0]


def dropout_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 0.5, training: bool = True, *, rng: int | None = None) -> Array:
    """Gradient of :func:`dropout`, of whose input only the shape matters; ``rng`` is the integer seed of the forward pass.

    >>> import numpy as np
    >>> dropout_backward(np.ones(8), np.ones(8), p=0.5, rng=0)
    array([2., 2., 0., 0., 2., 2., 0., 0.])
    """
    return _backward("dropout_backward", "input", grad_output, input, _one, p, training, _scaled, rng)


register(dropout, dropout_backward, inputs=("input",), saved=(), record=_record_dropout)


def _record_dropout1d(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Recorded:
    return _forward("dropout1d", "input", input, _channel1d, p, training, _scaled, inplace, rng, out)


@operation
def dropout1d(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Array:
    """:func:`dropout` of whole channels, of an input (N, C, L) or (C, L): ``torch.nn.functional.dropout1d``.

    >>> import numpy as np
    >>> dropout1d(np.ones((4, 2)), p=0.5, rng=0)
    array([[2., 2.],
           [2., 2.],
           [0., 0.],
           [0., 0.]])
    """
    return _forward("dropout1d", "input", input, _channel1d, p, training, _scaled, inplace, rng, out)[0]


def dropout1d_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 0.5, training: bool = True, *, rng: int | None = None) -> Array:
    """Gradient of :func:`dropout1d`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> dropout1d_backward(np.ones((4, 1)), np.ones((4, 1)), p=0.5, rng=0)[:, 0]
    array([2., 2., 0., 0.])
    """
    return _backward("dropout1d_backward", "input", grad_output, input, _channel1d, p, training, _scaled, rng)


register(dropout1d, dropout1d_backward, inputs=("input",), saved=(), record=_record_dropout1d)


def _record_dropout2d(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Recorded:
    return _forward("dropout2d", "input", input, _channel2d, p, training, _scaled, inplace, rng, out)


@operation
def dropout2d(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Array:
    """:func:`dropout` of whole channels, of an input (N, C, H, W) or (N, C, L): ``torch.nn.functional.dropout2d``.

    >>> import numpy as np
    >>> dropout2d(np.ones((1, 4, 1, 1)), p=0.5, rng=0).ravel()
    array([2., 2., 0., 0.])
    """
    return _forward("dropout2d", "input", input, _channel2d, p, training, _scaled, inplace, rng, out)[0]


def dropout2d_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 0.5, training: bool = True, *, rng: int | None = None) -> Array:
    """Gradient of :func:`dropout2d`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> dropout2d_backward(np.ones((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), p=0.5, rng=0).ravel()
    array([2., 2., 0., 0.])
    """
    return _backward("dropout2d_backward", "input", grad_output, input, _channel2d, p, training, _scaled, rng)


register(dropout2d, dropout2d_backward, inputs=("input",), saved=(), record=_record_dropout2d)


def _record_dropout3d(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Recorded:
    return _forward("dropout3d", "input", input, _channel3d, p, training, _scaled, inplace, rng, out)


@operation
def dropout3d(input: ArrayLike, p: float = 0.5, training: bool = True, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Array:
    """:func:`dropout` of whole channels, of an input (N, C, D, H, W) or (C, D, H, W): ``torch.nn.functional.dropout3d``.

    >>> import numpy as np
    >>> dropout3d(np.ones((4, 1, 1, 1)), p=0.5, rng=0).ravel()
    array([2., 2., 0., 0.])
    """
    return _forward("dropout3d", "input", input, _channel3d, p, training, _scaled, inplace, rng, out)[0]


def dropout3d_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 0.5, training: bool = True, *, rng: int | None = None) -> Array:
    """Gradient of :func:`dropout3d`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> dropout3d_backward(np.ones((4, 1, 1, 1)), np.ones((4, 1, 1, 1)), p=0.5, rng=0).ravel()
    array([2., 2., 0., 0.])
    """
    return _backward("dropout3d_backward", "input", grad_output, input, _channel3d, p, training, _scaled, rng)


register(dropout3d, dropout3d_backward, inputs=("input",), saved=(), record=_record_dropout3d)


def _record_alpha_dropout(
    input: ArrayLike, p: float = 0.5, training: bool = False, inplace: bool = False, *, rng: Any = None, out: Array | None = None
) -> Recorded:
    return _forward("alpha_dropout", "input", input, _one, p, training, _self_normalizing, inplace, rng, out)


@operation
def alpha_dropout(input: ArrayLike, p: float = 0.5, training: bool = False, inplace: bool = False, *, rng: Any = None, out: Array | None = None) -> Array:
    """:func:`dropout` that keeps mean 0 and variance 1: ``torch.nn.functional.alpha_dropout``. Note ``training=False``.

    >>> import numpy as np
    >>> alpha_dropout(np.zeros(4), p=0.5, training=True, rng=0).round(4)
    array([ 0.7792,  0.7792, -0.7792, -0.7792])
    """
    return _forward("alpha_dropout", "input", input, _one, p, training, _self_normalizing, inplace, rng, out)[0]


def alpha_dropout_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 0.5, training: bool = False, *, rng: int | None = None) -> Array:
    """Gradient of :func:`alpha_dropout`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> alpha_dropout_backward(np.ones(4), np.zeros(4), p=0.5, training=True, rng=0).round(4)
    array([0.8864, 0.8864, 0.    , 0.    ])
    """
    return _backward("alpha_dropout_backward", "input", grad_output, input, _one, p, training, _self_normalizing, rng)


register(alpha_dropout, alpha_dropout_backward, inputs=("input",), saved=(), record=_record_alpha_dropout)


def _record_feature_alpha_dropout(
    input: ArrayLike, p: float = 0.5, training: bool = False, inplace: bool = False, *, rng: Any = None, out: Array | None = None
) -> Recorded:
    return _forward("feature_alpha_dropout", "input", input, _channel, p, training, _self_normalizing, inplace, rng, out)


@operation
def feature_alpha_dropout(
    input: ArrayLike, p: float = 0.5, training: bool = False, inplace: bool = False, *, rng: Any = None, out: Array | None = None
) -> Array:
    """:func:`alpha_dropout` of whole channels, of an input (N, C, ...): ``torch.nn.functional.feature_alpha_dropout``.

    >>> import numpy as np
    >>> feature_alpha_dropout(np.zeros((1, 4, 1)), p=0.5, training=True, rng=0).ravel().round(4)
    array([ 0.7792,  0.7792, -0.7792, -0.7792])
    """
    return _forward("feature_alpha_dropout", "input", input, _channel, p, training, _self_normalizing, inplace, rng, out)[0]


def feature_alpha_dropout_backward(grad_output: ArrayLike, input: ArrayLike, p: float = 0.5, training: bool = False, *, rng: int | None = None) -> Array:
    """Gradient of :func:`feature_alpha_dropout`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> feature_alpha_dropout_backward(np.ones((1, 4, 1)), np.zeros((1, 4, 1)), p=0.5, training=True, rng=0).ravel().round(4)
    array([0.8864, 0.8864, 0.    , 0.    ])
    """
    return _backward("feature_alpha_dropout_backward", "input", grad_output, input, _channel, p, training, _self_normalizing, rng)


register(feature_alpha_dropout, feature_alpha_dropout_backward, inputs=("input",), saved=(), record=_record_feature_alpha_dropout)


def _record_drop_connect(weight: ArrayLike, p: float = 0.5, training: bool = True, *, rng: Any = None, out: Array | None = None) -> Recorded:
    return _forward("drop_connect", "weight", weight, _one, p, training, _scaled, False, rng, out)


@operation
def drop_connect(weight: ArrayLike, p: float = 0.5, training: bool = True, *, rng: Any = None, out: Array | None = None) -> Array:
    """:func:`dropout` of connections: each weight becomes 0 with probability p, the rest is divided by 1 - p.

    Args:
        weight: (out, in) of a linear layer, (K, C, R, S) of a convolution, or any other shape.
        p, training, rng, out: as for :func:`dropout`.

    >>> import numpy as np
    >>> drop_connect(np.ones((2, 4)), rng=0)
    array([[2., 2., 0., 0.],
           [2., 2., 0., 0.]])
    """
    return _forward("drop_connect", "weight", weight, _one, p, training, _scaled, False, rng, out)[0]


def drop_connect_backward(grad_output: ArrayLike, weight: ArrayLike, p: float = 0.5, training: bool = True, *, rng: int | None = None) -> Array:
    """Gradient of :func:`drop_connect`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> drop_connect_backward(np.ones((2, 4)), np.ones((2, 4)), rng=0)[0]
    array([2., 2., 0., 0.])
    """
    return _backward("drop_connect_backward", "weight", grad_output, weight, _one, p, training, _scaled, rng)


register(drop_connect, drop_connect_backward, inputs=("weight",), saved=(), record=_record_drop_connect)


def _depth(mode: str) -> Any:
    def length(op: str, shape: tuple[int, ...]) -> int:
        _check.choice(op, "mode", mode, ("batch", "row"))
        if mode == "row" and not shape:
            raise ValueError(f'{op}: input must have a batch axis where mode is "row", got a scalar')
        return prod(shape[1:] if mode == "row" else shape)

    return length


def _record_stochastic_depth(input: ArrayLike, p: float, mode: str, training: bool = True, *, rng: Any = None, out: Array | None = None) -> Recorded:
    return _forward("stochastic_depth", "input", input, _depth(mode), p, training, _scaled, False, rng, out)


@operation
def stochastic_depth(input: ArrayLike, p: float, mode: str, training: bool = True, *, rng: Any = None, out: Array | None = None) -> Array:
    """:func:`dropout` of a residual branch: ``torchvision.ops.stochastic_depth``.

    Args:
        input: (N, ...), the output of the branch.
        p: the probability that it falls, from 0 to 1.
        mode: "row", each sample by itself, or "batch", all or none.
        training, rng, out: as for :func:`dropout`.

    >>> import numpy as np
    >>> stochastic_depth(np.ones((4, 2)), 0.5, "row", rng=0)
    array([[2., 2.],
           [2., 2.],
           [0., 0.],
           [0., 0.]])
    """
    return _forward("stochastic_depth", "input", input, _depth(mode), p, training, _scaled, False, rng, out)[0]


def stochastic_depth_backward(grad_output: ArrayLike, input: ArrayLike, p: float, mode: str, training: bool = True, *, rng: int | None = None) -> Array:
    """Gradient of :func:`stochastic_depth`, as :func:`dropout_backward`.

    >>> import numpy as np
    >>> stochastic_depth_backward(np.ones((4, 1)), np.ones((4, 1)), 0.5, "row", rng=0)[:, 0]
    array([2., 2., 0., 0.])
    """
    return _backward("stochastic_depth_backward", "input", grad_output, input, _depth(mode), p, training, _scaled, rng)


register(stochastic_depth, stochastic_depth_backward, inputs=("input",), saved=(), record=_record_stochastic_depth)
