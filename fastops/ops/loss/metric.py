"""Losses that learn a metric: of pairs by their cosine, of triplets by distances.

    cosine_embedding_loss: 1 - c where the target is 1, max(0, c - margin) where it is -1, with
                           c = a.b / sqrt((a.a + 1e-12) (b.b + 1e-12)); dc/da = b / root - c a / (a.a + 1e-12)
    triplet_margin_loss:   max(0, margin + r(anchor, positive) - r(anchor, negative)), with r from ``distance.py``; with ``swap``
                           the smaller of r(anchor, negative) and r(positive, negative) takes the place of the last

Work on whole vectors is done by the kernels of ``distance.py``; what remains is a number a row. Nothing is kept.
Sources: Balntas et al., "Learning local feature descriptors with triplets and shallow convolutional neural networks" (2016),
for triplets and the swap; Hadsell, Chopra, LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (2006), for pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _op
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.loss.arguments import broadcast, check_mask, check_reduction, cotangent, finish, floats, number
from fastops.ops.loss.binary import margin_ranking_loss, margin_ranking_loss_backward
from fastops.ops.loss.distance import blend, dots, row_distances, row_gradient

Gradients = tuple[Array | None, ...]

_EPSILON = 1e-12


def _reduced(losses: Array, reduction: str, dtype: np.dtype[Any]) -> Array:
    """Of the losses of rows, in float64."""
    if reduction == "none":
        return np.asarray(losses).astype(dtype)
    total = losses.sum(dtype=np.float64)
    return np.array(total / losses.size if reduction == "mean" and losses.size else math.nan if reduction == "mean" else total, dtype)


def _row_gradients(op: str, grad_output: Any, reduction: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The gradient of the loss of each row, in float64."""
    g = np.asarray(cotangent(op, grad_output, shape if reduction == "none" else (), dtype), np.float64)
    if reduction == "mean":
        g = g / (math.prod(shape) or math.nan)
    return np.broadcast_to(g, shape)


# ---- pairs


def _pairs(op: str, input1: Any, input2: Any, target: Any, margin: float) -> tuple[Any, ...]:
    (a, b, t), dtype = floats(op, input1=input1, input2=input2, target=target)
    if t.ndim not in (0, 1) or a.ndim != t.ndim + 1 or b.ndim != t.ndim + 1:
        raise ValueError(f"{op}: target must have shape (N,) for inputs (N, D), or () for inputs (D,), got {t.shape} with {a.shape} and {b.shape}")
    shapes = a.shape, b.shape
    a, b = broadcast(op, input1=a, input2=b)
    try:
        rows = np.broadcast_shapes(a.shape[:-1], t.shape)
    except ValueError:
        raise ValueError(f"{op}: target must have a shape that broadcasts with {a.shape[:-1]}, got {t.shape}") from None
    aa, bb, ab = dots(a, b, a.ndim - 1)
    aa, bb = aa + _EPSILON, bb + _EPSILON
    root = np.sqrt(aa * bb)
    cosine = ab / root
    return a, b, t, shapes, rows, dtype, number(op, "margin", margin), aa, bb, root, cosine


@operation
def cosine_embedding_loss(input1: ArrayLike, input2: ArrayLike, target: ArrayLike, margin: float = 0, reduction: str = "mean") -> Array:
    """Makes vectors alike (target 1) or not (target -1), by their cosine: ``torch.nn.functional.cosine_embedding_loss``.

    Args:
        input1, input2: (N, D) or (D,), float16, float32 or float64; broadcast.
        target: 1 or -1, (N,) or (); other numbers give no loss.
        margin: a cosine up to this is no loss where the target is -1.
        reduction: "none": one loss a pair; "sum": their sum; "mean": the sum divided by the number of pairs.

    Returns:
        The loss in the dtype of the inputs, (N,) or without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> cosine_embedding_loss(x, x, np.array([1, -1]), reduction="none").round(4)
    array([0., 1.])
    """
    op = "cosine_embedding_loss"
    check_reduction(op, reduction)
    *_, t, _, _, dtype, margin, _, _, _, cosine = _pairs(op, input1, input2, target, margin)
    losses = np.where(t == 1, 1 - cosine, np.where(t == -1, np.maximum(cosine - margin, 0), 0))
    return _reduced(losses, reduction, dtype)


def cosine_embedding_loss_backward(
    grad_output: ArrayLike, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, margin: float = 0,
    reduction: str = "mean", *, output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`cosine_embedding_loss` with respect to both inputs.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".
        output_mask: which gradients to compute; None stands for the others.

    >>> import numpy as np
    >>> cosine_embedding_loss_backward(1.0, np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([1]))[0].round(4)
    array([[ 0., -1.]])
    """
    op = "cosine_embedding_loss_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 2)
    a, b, t, shapes, rows, dtype, margin, aa, bb, root, cosine = _pairs(op, input1, input2, target, margin)
    g = _row_gradients(op, grad_output, reduction, rows, dtype) * np.where(t == 1, -1.0, np.where((t == -1) & (cosine >= margin), 1.0, 0.0))
    if g.shape != cosine.shape:  # one pair, several targets
        g = g.sum(axis=tuple(i for i, n in enumerate(cosine.shape) if n == 1), keepdims=True)
    axis = a.ndim - 1
    found = [
        blend(mine, other, axis, np.asarray(g / root), np.asarray(g * cosine / own)) if wanted else None
        for mine, other, own, wanted in ((a, b, aa, output_mask[0]), (b, a, bb, output_mask[1]))
    ]
    return finish(found, shapes, dtype)


# ---- triplets


def _check_margin(op: str, margin: float) -> float:
    margin = number(op, "margin", margin)
    if not margin > 0:
        raise ValueError(f"{op}: margin must be greater than 0, got {margin}")
    return margin


def _same_axes(op: str, anchor: Any, positive: Any, negative: Any) -> int:
    axes = np.ndim(anchor), np.ndim(positive), np.ndim(negative)
    if len(set(axes)) > 1:
        raise ValueError(f"{op}: anchor, positive and negative must have the same number of axes, got {axes[0]}, {axes[1]} and {axes[2]}")
    return axes[0]


def _triplets(op: str, anchor: Any, positive: Any, negative: Any) -> tuple[list[Array], list[tuple[int, ...]], np.dtype[Any]]:
    if _same_axes(op, anchor, positive, negative) == 0:
        raise ValueError(f"{op}: anchor must have axes (N, D) or (D,), got an array without axes")
    arrays, dtype = floats(op, anchor=anchor, positive=positive, negative=negative)
    shapes = [a.shape for a in arrays]
    return broadcast(op, anchor=arrays[0], positive=arrays[1], negative=arrays[2]), shapes, dtype


def _gaps(near: Array, far: Array, swapped: Array | None, margin: float) -> Array:
    """margin + near - far, in float64."""
    if swapped is not None:
        far = np.minimum(far, swapped)
    return np.subtract(near, far, dtype=np.float64) + margin


@operation
def triplet_margin_loss(
    anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Array:  # fmt: skip
    """The anchor should be nearer to the positive than to the negative by ``margin``: ``torch.nn.functional.triplet_margin_loss``.

    Args:
        anchor, positive, negative: (N, D) or (D,), float16, float32 or float64; broadcast.
        margin: greater than 0, in the unit of the inputs.
        p, eps: of the distance, as for :func:`pairwise_distance`.
        swap: take the positive for the anchor where it is nearer to the negative.
        reduction: "none": one loss a triplet; "sum": their sum; "mean": the sum divided by the number of triplets.

    Returns:
        The loss in the dtype of the inputs, (N,) or without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> triplet_margin_loss(np.zeros((2, 1)), np.full((2, 1), 2.0), np.array([[2.5], [4.0]]), reduction="none").round(4)
    array([0.5, 0. ])
    """
    op = "triplet_margin_loss"
    check_reduction(op, reduction)
    margin = _check_margin(op, margin)
    (a, b, c), _, dtype = _triplets(op, anchor, positive, negative)
    p, eps = number(op, "p", p), number(op, "eps", eps)
    gaps = _gaps(row_distances(a, b, p, eps), row_distances(a, c, p, eps), row_distances(b, c, p, eps) if swap else None, margin)
    return _reduced(np.maximum(gaps, 0), reduction, dtype)


def triplet_margin_loss_backward(
    grad_output: ArrayLike, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, reduction: str = "mean", *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`triplet_margin_loss` with respect to anchor, positive and negative.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".
        output_mask: which gradients to compute; None stands for the others.

    >>> import numpy as np
    >>> da, dp, dn = triplet_margin_loss_backward(1.0, np.zeros((1, 1)), np.full((1, 1), 2.0), np.array([[2.5]]))
    >>> da, dp, dn
    (array([[0.]]), array([[1.]]), array([[-1.]]))
    """
    op = "triplet_margin_loss_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 3)
    margin = _check_margin(op, margin)
    (a, b, c), shapes, dtype = _triplets(op, anchor, positive, negative)
    p, eps = number(op, "p", p), number(op, "eps", eps)
    near, far = row_distances(a, b, p, eps), row_distances(a, c, p, eps)
    swapped = row_distances(b, c, p, eps) if swap else None
    g = _row_gradients(op, grad_output, reduction, near.shape, dtype) * (_gaps(near, far, swapped, margin) >= 0)
    # of two equal distances each takes half
    own = np.ones(near.shape) if swapped is None else np.where(far < swapped, 1.0, np.where(far == swapped, 0.5, 0.0))
    by_near = row_gradient(a, b, p, eps, near, g.astype(a.dtype))
    by_far = row_gradient(a, c, p, eps, far, (-g * own).astype(a.dtype))
    by_swapped = None if swapped is None else row_gradient(b, c, p, eps, swapped, (-g * (1 - own)).astype(a.dtype))
    found: list[Array | None] = [by_near + by_far if output_mask[0] else None, None, None]
    if output_mask[1]:
        found[1] = -by_near if by_swapped is None else by_swapped - by_near
    if output_mask[2]:
        found[2] = -by_far if by_swapped is None else -(by_far + by_swapped)
    return finish(found, shapes, dtype)


def triplet_margin_with_distance_loss(
    anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *, distance_function: Callable[..., Any] | None = None,
    margin: float = 1.0, swap: bool = False, reduction: str = "mean",
) -> Array:  # fmt: skip
    """:func:`triplet_margin_loss` with any distance; autodiff follows the distance function itself.

    Args:
        anchor, positive, negative: (N, D), or whatever the distance function takes.
        distance_function: ``distance_function(a, b)``; by default :func:`pairwise_distance`.

    >>> import numpy as np
    >>> x = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 5.0]])
    >>> triplet_margin_with_distance_loss(*x, distance_function=lambda a, b: abs(a - b).sum(axis=-1), reduction="none")
    array([3.])
    """
    op = "triplet_margin_with_distance_loss"
    if distance_function is None:
        return triplet_margin_loss(anchor, positive, negative, margin, swap=swap, reduction=reduction)
    check_reduction(op, reduction)
    margin = _check_margin(op, margin)
    _same_axes(op, anchor, positive, negative)
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    if swap:
        far = np.minimum(far, distance_function(positive, negative))
    # max(0, near - far + margin) is what the ranking loss is for targets of -1
    return margin_ranking_loss(near, far, np.full((1,) * np.ndim(near), -1), margin, reduction)


def triplet_margin_with_distance_loss_backward(
    grad_output: ArrayLike, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
    distance_function: Callable[..., Any] | None = None, margin: float = 1.0, swap: bool = False, reduction: str = "mean",
    output_mask: tuple[bool, bool, bool] = (True, True, True), distance_backward: Callable[..., Any] | None = None,
) -> Gradients:  # fmt: skip
    """Gradients of :func:`triplet_margin_with_distance_loss` with respect to anchor, positive and negative.

    Args:
        output_mask: which gradients to compute; None stands for the others.
        distance_backward: ``distance_backward(grad, a, b)``, the gradients of the distance function; not needed when it is
            an operation of fastops.

    >>> import numpy as np
    >>> x = np.zeros((1, 1)), np.full((1, 1), 2.0), np.array([[2.5]])
    >>> triplet_margin_with_distance_loss_backward(1.0, *x)[2]
    array([[-1.]])
    """
    op = "triplet_margin_with_distance_loss_backward"
    distance = distance_function
    if distance is None:
        return triplet_margin_loss_backward(grad_output, anchor, positive, negative, margin, swap=swap, reduction=reduction, output_mask=output_mask)
    check_reduction(op, reduction)
    check_mask(op, output_mask, 3)
    margin = _check_margin(op, margin)
    _same_axes(op, anchor, positive, negative)
    backward = distance_backward
    if backward is None and getattr(distance, "__name__", None) in _op.names():
        backward = _op.get(distance).backward
    if backward is None:
        raise ValueError(f"{op}: distance_backward must be given for a distance_function that is no operation, got {distance_function!r}")
    (a, b, c), dtype = floats(op, anchor=anchor, positive=positive, negative=negative)
    near, far = distance(a, b), distance(a, c)
    swapped = distance(b, c) if swap else None
    bound = far if swapped is None else np.minimum(far, swapped)
    sign = np.full((1,) * np.ndim(near), -1)
    g_near, g_far, _ = margin_ranking_loss_backward(grad_output, near, bound, sign, margin, reduction, output_mask=(True, True, False))
    assert g_near is not None
    assert g_far is not None
    found = [np.zeros(m.shape, m.dtype) for m in (a, b, c)]
    pairs = [(0, 1, g_near)]
    if swapped is None:
        pairs.append((0, 2, g_far))
    else:
        # of two equal distances each takes half
        own = np.where(far < swapped, 1.0, np.where(far == swapped, 0.5, 0.0)).astype(g_far.dtype)
        pairs += [(0, 2, g_far * own), (1, 2, g_far * (1 - own))]
    arrays = a, b, c
    for i, j, g in pairs:
        for k, gradient in zip((i, j), backward(np.asarray(g), arrays[i], arrays[j])):
            if gradient is not None:
                found[k] += gradient
    return finish([f if wanted else None for f, wanted in zip(found, output_mask)], [m.shape for m in arrays], dtype)


register(cosine_embedding_loss, cosine_embedding_loss_backward, inputs=("input1", "input2"), saved=("input1", "input2", "target"))
_TRIPLET = ("anchor", "positive", "negative")
register(triplet_margin_loss, triplet_margin_loss_backward, inputs=_TRIPLET, saved=_TRIPLET)
register(triplet_margin_with_distance_loss, triplet_margin_with_distance_loss_backward, inputs=_TRIPLET, saved=_TRIPLET)
