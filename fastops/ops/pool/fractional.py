"""Fractional max pooling: windows of one size at random distances, so that an image shrinks by a factor that is no integer.

    first[i] = floor((i + u) a) - floor(u a),   a = (size - kernel) / (count - 1),   first[count - 1] = size - kernel

with one random u in [0, 1) for every axis of every plane. Maxima and their gradient are those of max pooling; kept is the
place of every maximum.

Source: Graham, "Fractional Max-Pooling" (2014), section 2, the pseudorandom sequences; PyTorch's order of the numbers: along
the width first for images, along the depth first for volumes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.pool.run import max_backward, max_pool, max_pool_record
from fastops.ops.pool.windows import Axis, Integers, Plan, made, spatial
from fastops.simd.random import check_seed, seed_of

# Other numbers than those of [0, 1) are taken, as PyTorch takes them, up to what integers hold.
_LARGEST_SAMPLE = 1 << 20

Ratios = float | tuple[float, ...]
Random = int | np.random.Generator | None
Pooled = Array | tuple[Array, Array]


def _counts(op: str, ndim: int, size: tuple[int, ...], kernel: tuple[int, ...], output_size: Any, output_ratio: Any) -> tuple[int, ...]:
    if output_size is not None:
        counts = _check.integers(op, "output_size", output_size, ndim, minimum=1)
    elif output_ratio is not None:
        ratios = [_check.real(op, "output_ratio", r) for r in _check.one_or_more(output_ratio)]
        if len(ratios) == 1:
            ratios *= ndim
        if len(ratios) != ndim or not all(0 < r < 1 for r in ratios):
            raise ValueError(f"{op}: output_ratio must be a number between 0 and 1 or {ndim} of them, got {output_ratio!r}")
        counts = tuple(int(n * r) for n, r in zip(size, ratios))
        if min(counts) < 1:
            raise ValueError(f"{op}: output_ratio must leave at least one window, got {output_ratio!r} of {size}")
    else:
        raise ValueError(f"{op}: output_size must be given, or output_ratio")
    for name, count, k, n in zip("DHW"[3 - ndim :], counts, kernel, size):
        if count + k - 1 > n:
            raise ValueError(f"{op}: output_size must be at most {n - k + 1} (axis {name}, {n} elements, windows of {k}), got {count}")
    return counts


def _first(samples: Array, size: int, kernel: int, count: int) -> Array:
    """The first elements of windows, (planes, count), in the arithmetic of the samples' dtype."""
    real = samples.dtype.type
    last = np.full((samples.size, 1), size - kernel, np.int64)
    if count == 1:
        return last
    step = real(size - kernel) / real(count - 1)
    u = samples[:, None]
    first = ((np.arange(count - 1).astype(real) + u) * step).astype(np.int64) - (u * step).astype(np.int64)
    return np.concatenate([np.clip(first, 0, size - kernel), last], 1)


def _plan(
    op: str, ndim: int, shape: tuple[int, ...], dtype: np.dtype[Any], samples: Any, rng: Any, kernel_size: Any, output_size: Any, output_ratio: Any,
) -> Plan:  # fmt: skip
    size = spatial(op, shape, ndim)
    kernel = _check.integers(op, "kernel_size", kernel_size, ndim, minimum=1)
    counts = _counts(op, ndim, size[3 - ndim :], kernel, output_size, output_ratio)
    batch, channels = shape[0] if len(shape) == ndim + 2 else 1, shape[-ndim - 1]
    if samples is None:
        seed = check_seed(op, rng) if op.endswith("_backward") else seed_of(op, rng)
        # drawn in float32 for every dtype, so that a seed means the same windows
        u = np.random.default_rng(seed).random((batch * channels, ndim), np.float32).astype(dtype)
    else:
        (u,), _ = _check.as_arrays(op, _random_samples=samples)
        if u.ndim != 3 or u.shape[0] < batch or u.shape[1:] != (channels, ndim):
            raise ValueError(f"{op}: _random_samples must have shape {(batch, channels, ndim)}, got {u.shape}")
        u = u[:batch].reshape(batch * channels, ndim)
        if u.size and not np.abs(u).max() < _LARGEST_SAMPLE:
            raise ValueError(f"{op}: _random_samples must be finite, and random numbers in [0, 1) to make sense, got {u.min()} to {u.max()}")
    columns = u.T[::-1] if ndim == 2 else u.T
    axes = [Axis(1, np.zeros((len(u), 1), np.int64), np.ones((len(u), 1), np.int64))] * (3 - ndim)
    for column, n, k, count in zip(columns, size[3 - ndim :], kernel, counts):
        first = _first(column, n, k, count)
        axes.append(Axis(n, first, first + k))
    z, y, x = axes
    return made(op, shape, ndim, (z, y, x))


def _max_pool(op: str, ndim: int, input: Any, window: tuple[Any, ...], indices: bool, samples: Any, rng: Any) -> Any:
    return max_pool(op, lambda shape, dtype: _plan(op, ndim, shape, dtype, samples, rng, *window), input, indices)


def _max_pool_record(op: str, ndim: int, always: bool) -> Any:
    def record(
        input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
        _random_samples: Any = None, *, rng: Any = None,
    ) -> tuple[Any, dict[str, Any]]:  # fmt: skip
        def plan_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Plan:
            return _plan(op, ndim, shape, dtype, _random_samples, rng, kernel_size, output_size, output_ratio)

        return max_pool_record(op, plan_of, input, always or return_indices)

    return record


def _max_pool_backward(
    op: str, ndim: int, grad_output: Any, input: Any, window: tuple[Any, ...], samples: Any, rng: Any, indices: Any,
) -> Array:  # fmt: skip
    def plan_of(shape: tuple[int, ...]) -> Plan:
        if indices is None:
            return _plan(op, ndim, shape, np.dtype(np.float32), samples, rng, *window)
        # the places say it all: any windows of these numbers will do
        size = spatial(op, shape, ndim)
        kernel = _check.integers(op, "kernel_size", window[0], ndim, minimum=1)
        counts = (1,) * (3 - ndim) + _counts(op, ndim, size[3 - ndim :], kernel, *window[1:])
        z, y, x = (Axis(n, np.zeros(count, np.int64), np.zeros(count, np.int64)) for n, count in zip(size, counts))
        return made(op, shape, ndim, (z, y, x))

    return max_backward(op, plan_of, grad_output, input, indices)


@operation
def fractional_max_pool2d(
    input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
) -> Pooled:  # fmt: skip
    """The largest elements of windows at random distances of an image: ``torch.nn.functional.fractional_max_pool2d``.

    Args:
        input: (N, C, H, W) or (C, H, W), float16, float32 or float64.
        kernel_size: extent of a window, an integer or 2.
        output_size: the number of windows of every axis, an integer or 2.
        output_ratio: where that is not given, as a part of the size of the axis, between 0 and 1.
        return_indices: whether to return the places too.
        _random_samples: (N, C, 2), the random number of every axis of every plane, in [0, 1).
        rng: where those are not given, what draws them: None, the integer seed or a ``numpy.random.Generator``.

    Returns:
        (N, C, P, Q), or without N, of the dtype of the input. With ``return_indices`` also the place of each element in its plane, int64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> fractional_max_pool2d(np.arange(25.0).reshape(1, 5, 5), 2, 3, _random_samples=np.full((1, 1, 2), 0.5))
    array([[[ 6.,  8.,  9.],
            [16., 18., 19.],
            [21., 23., 24.]]])
    """
    return _max_pool("fractional_max_pool2d", 2, input, (kernel_size, output_size, output_ratio), return_indices, _random_samples, rng)


@operation
def fractional_max_pool2d_with_indices(
    input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
) -> tuple[Array, Array]:  # fmt: skip
    """As :func:`fractional_max_pool2d` with ``return_indices``.

    >>> import numpy as np
    >>> fractional_max_pool2d_with_indices(np.arange(25.0).reshape(1, 5, 5), 2, 1, _random_samples=np.full((1, 1, 2), 0.5))
    (array([[[24.]]]), array([[[24]]]))
    """
    return _max_pool("fractional_max_pool2d_with_indices", 2, input, (kernel_size, output_size, output_ratio), True, _random_samples, rng)


def fractional_max_pool2d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`fractional_max_pool2d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters. Without them the random
            numbers of the forward pass are needed, or its integer seed.

    >>> import numpy as np
    >>> x = np.arange(25.0).reshape(1, 5, 5)
    >>> fractional_max_pool2d_backward(np.ones((1, 1, 1)), x, 2, 1, _random_samples=np.full((1, 1, 2), 0.5)).ravel()[-2:]
    array([0., 1.])
    """
    return _max_pool_backward("fractional_max_pool2d_backward", 2, grad_output, input, (kernel_size, output_size, output_ratio), _random_samples, rng, indices)


def fractional_max_pool2d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`fractional_max_pool2d_with_indices` with respect to its input; arguments as for :func:`fractional_max_pool2d_backward`.

    >>> import numpy as np
    >>> x = np.arange(25.0).reshape(1, 5, 5)
    >>> fractional_max_pool2d_with_indices_backward(np.ones((1, 1, 1)), x, 2, 1, _random_samples=np.full((1, 1, 2), 0.5)).ravel()[-2:]
    array([0., 1.])
    """
    return _max_pool_backward(
        "fractional_max_pool2d_with_indices_backward", 2, grad_output, input, (kernel_size, output_size, output_ratio), _random_samples, rng, indices
    )


register(fractional_max_pool2d, fractional_max_pool2d_backward, inputs=("input",), saved=(), record=_max_pool_record("fractional_max_pool2d", 2, False))
register(
    fractional_max_pool2d_with_indices, fractional_max_pool2d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("fractional_max_pool2d_with_indices", 2, True),
)  # fmt: skip


@operation
def fractional_max_pool3d(
    input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
) -> Pooled:  # fmt: skip
    """The largest elements of windows at random distances of a volume, (N, C, D, H, W) or (C, D, H, W); arguments as for :func:`fractional_max_pool2d`.

    >>> import numpy as np
    >>> fractional_max_pool3d(np.arange(27.0).reshape(1, 3, 3, 3), 2, 1, _random_samples=np.full((1, 1, 3), 0.5))
    array([[[[26.]]]])
    """
    return _max_pool("fractional_max_pool3d", 3, input, (kernel_size, output_size, output_ratio), return_indices, _random_samples, rng)


@operation
def fractional_max_pool3d_with_indices(
    input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
) -> tuple[Array, Array]:  # fmt: skip
    """As :func:`fractional_max_pool3d` with ``return_indices``.

    >>> import numpy as np
    >>> fractional_max_pool3d_with_indices(np.arange(27.0).reshape(1, 3, 3, 3), 2, 1, _random_samples=np.full((1, 1, 3), 0.5))[1]
    array([[[[26]]]])
    """
    return _max_pool("fractional_max_pool3d_with_indices", 3, input, (kernel_size, output_size, output_ratio), True, _random_samples, rng)


def fractional_max_pool3d_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`fractional_max_pool3d` with respect to its input.

    Args:
        grad_output: that of the values, alone or in a pair with that of the indices, which does not count.
        indices: the places that the forward pass found; then only the shape of ``input`` matters. Without them the random
            numbers of the forward pass are needed, or its integer seed.

    >>> import numpy as np
    >>> x = np.arange(27.0).reshape(1, 3, 3, 3)
    >>> fractional_max_pool3d_backward(np.ones((1, 1, 1, 1)), x, 2, 1, _random_samples=np.full((1, 1, 3), 0.5)).ravel()[-2:]
    array([0., 1.])
    """
    return _max_pool_backward("fractional_max_pool3d_backward", 3, grad_output, input, (kernel_size, output_size, output_ratio), _random_samples, rng, indices)


def fractional_max_pool3d_with_indices_backward(
    grad_output: ArrayLike, input: ArrayLike, kernel_size: Integers, output_size: Integers | None = None, output_ratio: Ratios | None = None,
    return_indices: bool = False, _random_samples: ArrayLike | None = None, *, rng: Random = None,
    indices: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`fractional_max_pool3d_with_indices` with respect to its input; arguments as for :func:`fractional_max_pool3d_backward`.

    >>> import numpy as np
    >>> x = np.arange(27.0).reshape(1, 3, 3, 3)
    >>> fractional_max_pool3d_with_indices_backward(np.ones((1, 1, 1, 1)), x, 2, 1, _random_samples=np.full((1, 1, 3), 0.5)).ravel()[-2:]
    array([0., 1.])
    """
    return _max_pool_backward(
        "fractional_max_pool3d_with_indices_backward", 3, grad_output, input, (kernel_size, output_size, output_ratio), _random_samples, rng, indices
    )


register(fractional_max_pool3d, fractional_max_pool3d_backward, inputs=("input",), saved=(), record=_max_pool_record("fractional_max_pool3d", 3, False))
register(
    fractional_max_pool3d_with_indices, fractional_max_pool3d_with_indices_backward, inputs=("input",), saved=(),
    record=_max_pool_record("fractional_max_pool3d_with_indices", 3, True),
)  # fmt: skip
