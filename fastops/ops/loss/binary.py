"""Losses of two classes, and of distributions, with an element for each choice: x the prediction, t the target, s the sigmoid.

================================  ====================================================  ====================================
function                          loss                                                  derivative by x
================================  ====================================================  ====================================
binary_cross_entropy              -t log x - (1 - t) log(1 - x), logarithms >= -100     (x - t) / (x (1 - x))
binary_cross_entropy_with_logits  (1 - t) x + (1 + (c - 1) t) log(1 + e^-x)             (1 + (c - 1) t) s(x) - c t
multilabel_soft_margin_loss       the same with c = 1, averaged over the last axis      s(x) - t
soft_margin_loss                  log(1 + e^(-t x))                                     -t s(-t x)
kl_div                            t (log t - x), or e^t (t - x)                         -t, or -e^t
hinge_embedding_loss              x where t = 1, max(0, margin - x) where t = -1        1, or -1 where x <= margin
margin_ranking_loss               max(0, -t (x1 - x2) + margin)                         -t where positive
================================  ====================================================  ====================================

Nothing is kept but the arguments. log(1 + e^-x) is max(-x, 0) + log1p(e^-abs(x)), which does not overflow.
Sources: Kullback and Leibler, "On Information and Sufficiency" (1951); Hadsell, Chopra, LeCun, "Dimensionality
Reduction by Learning an Invariant Mapping" (2006) for the hinge; Good, "Rational Decisions" (1952) for cross-entropy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops._check import Array
from fastops._jit import formula
from fastops._op import operation, register
from fastops.ops.loss.arguments import broadcast, check_mask, check_reduction, cotangent, finish, floats, number, same_shape, to_dtype
from fastops.ops.loss.terms import Term, differentiate, evaluate, inside
from fastops.simd.vmath import exp, exp_plain, log, log1p, log1p_unit, sigmoid

Gradients = tuple[Array | None, ...]


# ---- formulas


@formula
def _softplus(x):
    """log(1 + e^x)."""
    zero = type(x)(0)
    return (zero if x < zero else x) + log1p_unit(exp_plain(-abs(x)))


def _cross_entropy(x, t, z, p, q):
    least, one = type(x)(-100), type(x)(1)
    yes, no = log(x), log1p(-x)
    yes = least if yes < least else yes
    no = least if no < least else no
    return (t - one) * no - t * yes


def _cross_entropy_derivatives(x, t, z, p, q):
    one, least = type(x)(1), type(x)(1e-12)
    spread = (one - x) * x
    return (x - t) / (least if spread < least else spread), log1p(-x) - log(x)


def _logits(x, t, z, p, q):
    return (type(x)(1) - t) * x + _softplus(-x)


def _logits_derivatives(x, t, z, p, q):
    return sigmoid(x) - t, -x


def _weighted_logits(x, t, c, p, q):
    one = type(x)(1)
    return (one - t) * x + (one + (c - one) * t) * _softplus(-x)


def _weighted_logits_derivatives(x, t, c, p, q):
    one = type(x)(1)
    return (one + (c - one) * t) * sigmoid(x) - c * t, c * _softplus(-x) - _softplus(x)


def _soft_margin(x, t, z, p, q):
    return _softplus(-t * x)


def _soft_margin_derivatives(x, t, z, p, q):
    return (-t * sigmoid(-t * x),)


def _divergence(x, t, z, p, q):
    information = t * log(t)
    return (t if t == type(t)(0) else information) - t * x


def _divergence_derivatives(x, t, z, p, q):
    return -t, log(t) + type(t)(1) - x


def _log_divergence(x, t, z, p, q):
    return exp(t) * (t - x)


def _log_divergence_derivatives(x, t, z, p, q):
    e = exp(t)
    return -e, e * (t - x + type(t)(1))


def _hinge(x, t, z, margin, q):
    zero, one = type(x)(0), type(x)(1)
    gap = margin - x
    gap = zero if gap < zero else gap
    return (zero if t == one else gap) + (zero if t == -one else x)


def _hinge_derivatives(x, t, z, margin, q):
    zero, one = type(x)(0), type(x)(1)
    inside_margin = zero if t == one or not margin - x >= zero else one
    return ((zero if t == -one else one) - inside_margin,)


def _ranking(x, y, t, margin, q):
    gap = margin - t * (x - y)
    return type(x)(0) if gap < type(x)(0) else gap


def _ranking_derivatives(x, y, t, margin, q):
    d = x - y
    active = type(x)(1) if margin - t * d >= type(x)(0) else type(x)(0)
    slope = active * t
    return -slope, slope, -active * d


_CROSS_ENTROPY = Term("cross_entropy", _cross_entropy, _cross_entropy_derivatives, 1.5)
_LOGITS = Term("logits", _logits, _logits_derivatives, 1.5)
_WEIGHTED_LOGITS = Term("weighted_logits", _weighted_logits, _weighted_logits_derivatives, 1.5)
_SOFT_MARGIN = Term("soft_margin", _soft_margin, _soft_margin_derivatives, 1.5, 1)
_DIVERGENCE = Term("divergence", _divergence, _divergence_derivatives, 0.8)
_LOG_DIVERGENCE = Term("log_divergence", _log_divergence, _log_divergence_derivatives, 0.8)
_HINGE = Term("hinge", _hinge, _hinge_derivatives, 0.3, 1)
_RANKING = Term("ranking", _ranking, _ranking_derivatives, 0.3, 3)


# ---- what they share


def _spread(op: str, name: str, array: Array | None, shape: tuple[int, ...]) -> Array | None:
    """A weight in the shape of the input."""
    if array is None or array.shape == shape:
        return array
    try:
        return np.ascontiguousarray(np.broadcast_to(array, shape))
    except ValueError:
        raise ValueError(f"{op}: {name} must have a shape that broadcasts to that of input, {shape}, got {array.shape}") from None


def _evaluate(term: Term, arrays: Any, dtype: Any, reduction: str, weight: Array | None = None, **parameters: Any) -> Array:
    return to_dtype(evaluate(term, arrays, reduction, weight=weight, **parameters), dtype)


def _differentiate(
    op: str, term: Term, grad_output: Any, arrays: Any, shapes: Any, dtype: Any, reduction: str, output_mask: Any,
    weight: Array | None = None, divisor: float = math.nan, **parameters: Any,
) -> Gradients:  # fmt: skip
    """Gradients with respect to the first arrays, as many as there are entries in ``output_mask``."""
    g = cotangent(op, grad_output, arrays[0].shape if reduction == "none" else (), dtype)
    if reduction != "none" and reduction != "sum":
        g /= divisor if divisor == divisor else arrays[0].size or math.nan
    return finish(differentiate(term, arrays, output_mask, g, weight=weight, **parameters), shapes, dtype)


# ---- public functions


def _probabilities(op: str, input: Any, target: Any, weight: Any) -> tuple[Array, Array, Array | None, Any]:
    (x, t, w), dtype = floats(op, optional="weight", input=input, target=target, weight=weight)
    same_shape(op, "target", t, "input", x.shape)
    for name, array in (("input", x), ("target", t)):
        if not inside(array, 0.0, 1.0):
            raise ValueError(f"{op}: {name} must lie between 0 and 1, got {array.min()} to {array.max()}")
    return x, t, _spread(op, "weight", w, x.shape), dtype


@operation
def binary_cross_entropy(input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean") -> Array:
    """Cross-entropy of probabilities of two classes: ``torch.nn.functional.binary_cross_entropy``.

    Args:
        input: x, the probabilities, between 0 and 1; of any shape (N, ...), float16, float32 or float64.
        target: t, between 0 and 1, of the same shape and dtype.
        weight: a factor for each loss; broadcast to the shape of the input.
        reduction: "none": one loss an element; "sum": their sum; "mean": the sum divided by the number of elements.

    Returns:
        The loss in the dtype of the input; for "mean" and "sum" an array without axes.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> binary_cross_entropy(np.array([0.5, 0.0]), np.array([1.0, 1.0]), reduction="none").round(4)
    array([  0.6931, 100.    ])
    """
    op = "binary_cross_entropy"
    check_reduction(op, reduction)
    x, t, w, dtype = _probabilities(op, input, target, weight)
    return _evaluate(_CROSS_ENTROPY, (x, t), dtype, reduction, w)


def binary_cross_entropy_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean", *,
    output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`binary_cross_entropy` with respect to input and target.

    Args:
        grad_output: of the shape and dtype of the output; one number after "mean" and "sum".
        output_mask: which gradients to compute; None stands for the others.

    >>> import numpy as np
    >>> binary_cross_entropy_backward(1.0, np.array([0.5, 0.25]), np.array([1.0, 0.25]))[0]
    array([-1.,  0.])
    """
    op = "binary_cross_entropy_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 2)
    x, t, w, dtype = _probabilities(op, input, target, weight)
    return _differentiate(op, _CROSS_ENTROPY, grad_output, (x, t), (x.shape, t.shape), dtype, reduction, output_mask, w)


def _logit_arguments(op: str, input: Any, target: Any, weight: Any, pos_weight: Any) -> tuple[Term, tuple[Array, ...], Array | None, Any]:
    (x, t), dtype = floats(op, input=input, target=target)
    same_shape(op, "target", t, "input", x.shape)
    w, c = (
        None if value is None else _spread(op, name, floats(op, input=input, **{name: value})[0][1], x.shape)
        for name, value in (("weight", weight), ("pos_weight", pos_weight))
    )
    return (_LOGITS, (x, t), w, dtype) if c is None else (_WEIGHTED_LOGITS, (x, t, c), w, dtype)


@operation
def binary_cross_entropy_with_logits(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean",
    pos_weight: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """:func:`binary_cross_entropy` of sigmoid(x), computed from the logits x without loss of accuracy.

    Args:
        input: the logits x, (N, ...).
        target: of the same shape; not confined to [0, 1].
        pos_weight: c, the weight of positive targets; broadcast to the shape of the input.

    >>> import numpy as np
    >>> binary_cross_entropy_with_logits(np.array([0.0, 1000.0]), np.array([1.0, 0.0]), reduction="none").round(4)
    array([6.931e-01, 1.000e+03])
    """
    op = "binary_cross_entropy_with_logits"
    check_reduction(op, reduction)
    term, arrays, w, dtype = _logit_arguments(op, input, target, weight, pos_weight)
    return _evaluate(term, arrays, dtype, reduction, w)


def binary_cross_entropy_with_logits_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean",
    pos_weight: ArrayLike | None = None, *, output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`binary_cross_entropy_with_logits`; see :func:`binary_cross_entropy_backward`.

    >>> import numpy as np
    >>> binary_cross_entropy_with_logits_backward(1.0, np.zeros(1), np.ones(1))[0]
    array([-0.5])
    """
    op = "binary_cross_entropy_with_logits_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 2)
    term, arrays, w, dtype = _logit_arguments(op, input, target, weight, pos_weight)
    shape = arrays[0].shape
    return _differentiate(op, term, grad_output, arrays, (shape, shape), dtype, reduction, output_mask, w)


def _pair(op: str, **values: Any) -> tuple[list[Array], list[tuple[int, ...]], Any]:
    """Arrays in their common shape, and the shapes that they had."""
    arrays, dtype = floats(op, **values)
    shapes = [a.shape for a in arrays]
    return broadcast(op, **dict(zip(values, arrays))), shapes, dtype


@operation
def soft_margin_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Array:
    """Logistic loss, log(1 + e^(-t x)), for targets t of 1 and -1; see :func:`binary_cross_entropy`.

    Args:
        input: x, (N, ...).
        target: of a shape that broadcasts to that of the input.

    >>> import numpy as np
    >>> soft_margin_loss(np.array([0.0, 100.0]), np.array([1.0, -1.0]), reduction="none").round(4)
    array([  0.6931, 100.    ])
    """
    op = "soft_margin_loss"
    check_reduction(op, reduction)
    (x, t), dtype = floats(op, input=input, target=target)
    return _evaluate(_SOFT_MARGIN, (x, _spread(op, "target", t, x.shape)), dtype, reduction)


def soft_margin_loss_backward(grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Array | None:
    """Gradient of :func:`soft_margin_loss` with respect to the input; see :func:`binary_cross_entropy_backward`.

    >>> import numpy as np
    >>> soft_margin_loss_backward(1.0, np.zeros(2), np.array([1.0, -1.0]))
    array([-0.25,  0.25])
    """
    op = "soft_margin_loss_backward"
    check_reduction(op, reduction)
    (x, t), dtype = floats(op, input=input, target=target)
    arrays = x, _spread(op, "target", t, x.shape)
    return _differentiate(op, _SOFT_MARGIN, grad_output, arrays, (x.shape,), dtype, reduction, (True,))[0]


_KL_REDUCTIONS = ("none", "batchmean", "sum", "mean")


def _kl_divisor(shape: tuple[int, ...], reduction: str) -> float:
    """What "batchmean" divides by: the batch, also where there is nothing in it."""
    return float(shape[0] if shape else 1) if reduction == "batchmean" else math.nan


@operation
def kl_div(input: ArrayLike, target: ArrayLike, reduction: str = "mean", log_target: bool = False) -> Array:
    """Kullback-Leibler divergence, an element for each choice: t (log t - x), 0 for t = 0. See :func:`binary_cross_entropy`.

    Args:
        input: x, logarithms of probabilities, (N, ...).
        target: t, probabilities, broadcast with the input.
        reduction: also "batchmean", the sum divided by N: the divergence as it is defined, averaged over the batch.
            "mean" divides by the number of elements, which PyTorch warns about.
        log_target: the target is given as logarithms.

    >>> import numpy as np
    >>> round(float(kl_div(np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]]), reduction="batchmean")), 4)
    0.6931
    """
    op = "kl_div"
    check_reduction(op, reduction, _KL_REDUCTIONS)
    arrays, shapes, dtype = _pair(op, input=input, target=target)
    term = _LOG_DIVERGENCE if log_target else _DIVERGENCE
    if reduction == "batchmean":
        return _evaluate(term, arrays, dtype, "mean", divisor=_kl_divisor(shapes[0], reduction))
    return _evaluate(term, arrays, dtype, reduction)


def kl_div_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, reduction: str = "mean", log_target: bool = False, *,
    output_mask: tuple[bool, bool] = (True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`kl_div` with respect to input and target; see :func:`binary_cross_entropy_backward`.

    >>> import numpy as np
    >>> kl_div_backward(1.0, np.log([[0.5, 0.5]]), np.array([[0.75, 0.25]]), reduction="batchmean")[0]
    array([[-0.75, -0.25]])
    """
    op = "kl_div_backward"
    check_reduction(op, reduction, _KL_REDUCTIONS)
    check_mask(op, output_mask, 2)
    arrays, shapes, dtype = _pair(op, input=input, target=target)
    term = _LOG_DIVERGENCE if log_target else _DIVERGENCE
    divisor = _kl_divisor(shapes[0], reduction)
    return _differentiate(op, term, grad_output, arrays, shapes, dtype, reduction, output_mask, divisor=divisor)


@operation
def hinge_embedding_loss(input: ArrayLike, target: ArrayLike, margin: float = 1.0, reduction: str = "mean") -> Array:
    """x where the target is 1, max(0, margin - x) where it is -1, and their sum elsewhere. See :func:`binary_cross_entropy`.

    Args:
        input: x, usually a distance, (N, ...).
        target: broadcast with the input.
        margin: in the unit of the input.

    >>> import numpy as np
    >>> hinge_embedding_loss(np.array([2.0, 0.25]), np.array([1.0, -1.0]), reduction="none")
    array([2.  , 0.75])
    """
    op = "hinge_embedding_loss"
    check_reduction(op, reduction)
    arrays, _, dtype = _pair(op, input=input, target=target)
    return _evaluate(_HINGE, arrays, dtype, reduction, p=number(op, "margin", margin))


def hinge_embedding_loss_backward(grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, margin: float = 1.0, reduction: str = "mean") -> Array | None:
    """Gradient of :func:`hinge_embedding_loss` with respect to the input; see :func:`binary_cross_entropy_backward`.

    >>> import numpy as np
    >>> hinge_embedding_loss_backward(2.0, np.array([2.0, 0.25]), np.array([1.0, -1.0]))
    array([ 1., -1.])
    """
    op = "hinge_embedding_loss_backward"
    check_reduction(op, reduction)
    arrays, shapes, dtype = _pair(op, input=input, target=target)
    return _differentiate(op, _HINGE, grad_output, arrays, shapes[:1], dtype, reduction, (True,), p=number(op, "margin", margin))[0]


def _ranked(op: str, input1: Any, input2: Any, target: Any) -> tuple[list[Array], list[tuple[int, ...]], Any]:
    arrays, dtype = floats(op, input1=input1, input2=input2, target=target)
    shapes = [a.shape for a in arrays]
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"{op}: input1, input2 and target must have the same number of axes, got shapes {shapes[0]}, {shapes[1]}, {shapes[2]}")
    return broadcast(op, input1=arrays[0], input2=arrays[1], target=arrays[2]), shapes, dtype


@operation
def margin_ranking_loss(input1: ArrayLike, input2: ArrayLike, target: ArrayLike, margin: float = 0, reduction: str = "mean") -> Array:
    """max(0, -t (x1 - x2) + margin): x1 should be greater than x2 where t = 1. See :func:`binary_cross_entropy`.

    Args:
        input1, input2: x1 and x2, (N, ...), of as many axes; broadcast.
        target: t, 1 or -1, of as many axes.
        margin: in the unit of the inputs.

    >>> import numpy as np
    >>> margin_ranking_loss(np.array([1.0, 1.0]), np.array([0.0, 3.0]), np.array([1.0, 1.0]), reduction="none")
    array([0., 2.])
    """
    op = "margin_ranking_loss"
    check_reduction(op, reduction)
    arrays, _, dtype = _ranked(op, input1, input2, target)
    return _evaluate(_RANKING, arrays, dtype, reduction, p=number(op, "margin", margin))


def margin_ranking_loss_backward(
    grad_output: ArrayLike, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, margin: float = 0,
    reduction: str = "mean", *, output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`margin_ranking_loss` with respect to both inputs and the target; see :func:`binary_cross_entropy_backward`.

    >>> import numpy as np
    >>> margin_ranking_loss_backward(2.0, np.array([1.0, 1.0]), np.array([0.0, 3.0]), np.array([1.0, 1.0]))[0]
    array([-0., -1.])
    """
    op = "margin_ranking_loss_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 3)
    arrays, shapes, dtype = _ranked(op, input1, input2, target)
    return _differentiate(op, _RANKING, grad_output, arrays, shapes, dtype, reduction, output_mask, p=number(op, "margin", margin))


def _labelled(op: str, input: Any, target: Any, weight: Any) -> tuple[list[Array], Array | None, list[Any], Any, int]:
    """Input and target in their common shape, the weight in it too, the shapes that they had, the dtype, the number of classes."""
    (x, t, w), dtype = floats(op, optional="weight", input=input, target=target, weight=weight)
    if x.ndim == 0:
        raise ValueError(f"{op}: input must have an axis of classes, got an array without axes")
    shapes = [x.shape, t.shape, None if w is None else w.shape]
    classes = x.shape[-1]
    x, t, *rest = broadcast(op, input=x, target=t, **({} if w is None else {"weight": w}))
    if x.ndim != len(shapes[0]):
        raise ValueError(f"{op}: input must have as many axes as target and weight, got {shapes[0]} beside {shapes[1]} and {shapes[2]}")
    return [x, t], rest[0] if rest else None, shapes, dtype, classes


@operation
def multilabel_soft_margin_loss(input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean") -> Array:
    """:func:`binary_cross_entropy_with_logits` averaged over the classes, the last axis.

    Args:
        input: logits, (N, ..., C) or (C,).
        target: 1 where a label holds, else 0; broadcast with the input.
        weight: a factor for each class, (C,), or for each loss; broadcast too.

    Returns:
        Without that axis for "none"; for "mean" and "sum" an array without axes.

    >>> import numpy as np
    >>> multilabel_soft_margin_loss(np.zeros((1, 2)), np.array([[0.0, 1.0]]), reduction="none").round(4)
    array([0.6931])
    """
    op = "multilabel_soft_margin_loss"
    check_reduction(op, reduction)
    arrays, w, _, dtype, classes = _labelled(op, input, target, weight)
    rows = math.prod(arrays[0].shape[:-1])
    divisor = float(classes * rows if reduction == "mean" else classes)
    return _evaluate(_LOGITS, arrays, dtype, reduction, w, divisor=divisor)


def multilabel_soft_margin_loss_backward(
    grad_output: ArrayLike, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, reduction: str = "mean", *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
) -> Gradients:  # fmt: skip
    """Gradients of :func:`multilabel_soft_margin_loss` with respect to input, target and weight; see :func:`binary_cross_entropy_backward`.

    >>> import numpy as np
    >>> multilabel_soft_margin_loss_backward(1.0, np.zeros((1, 2)), np.array([[0.0, 1.0]]))[0]
    array([[ 0.25, -0.25]])
    """
    op = "multilabel_soft_margin_loss_backward"
    check_reduction(op, reduction)
    check_mask(op, output_mask, 3)
    arrays, w, shapes, dtype, classes = _labelled(op, input, target, weight)
    shape = arrays[0].shape
    g = cotangent(op, grad_output, shape[:-1] if reduction == "none" else (), dtype)
    g = g / (classes * (math.prod(shape[:-1]) if reduction == "mean" else 1) or math.nan)
    gradients = differentiate(_LOGITS, arrays, output_mask[:2], g, weight=w, repeat=shape[-1])
    gradients.append(None)
    if w is not None and output_mask[2]:
        gradients[2] = evaluate(_LOGITS, arrays, "none")
        gradients[2] *= g[..., None] if isinstance(g, np.ndarray) else arrays[0].dtype.type(g)
    return finish(gradients, shapes, dtype)


for _forward, _backward, _inputs in (
    (binary_cross_entropy, binary_cross_entropy_backward, ("input", "target")),
    (binary_cross_entropy_with_logits, binary_cross_entropy_with_logits_backward, ("input", "target")),
    (soft_margin_loss, soft_margin_loss_backward, ("input",)),
    (kl_div, kl_div_backward, ("input", "target")),
    (hinge_embedding_loss, hinge_embedding_loss_backward, ("input",)),
    (margin_ranking_loss, margin_ranking_loss_backward, ("input1", "input2", "target")),
    (multilabel_soft_margin_loss, multilabel_soft_margin_loss_backward, ("input", "target", "weight")),
):
    register(_forward, _backward, inputs=_inputs, saved=_inputs)
