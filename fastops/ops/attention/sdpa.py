"""scaled_dot_product_attention: softmax(query key^T scale + mask) value, by the tiles of ``flash.py``.

Kept for the gradient: the output and the logarithm of each row's sum of exponentials (one number a query); probabilities
and the dropout mask are computed again. Source: Vaswani et al., "Attention Is All You Need" (2017), equation 1; the
algorithm and the gradient are in ``flash.py``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import FLOAT16, FLOAT32, Array
from fastops._memory import empty
from fastops._op import operation, register
from fastops.ops.attention.flash import Attention, make_mask, no_mask
from fastops.simd.random import check_seed, seed_of

Mask4 = tuple[bool, bool, bool, bool]


def as_mask(op: str, name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """A mask of booleans, or of numbers of the inputs' dtype; axes along which it repeats itself shrink to 1."""
    mask = value if isinstance(value, np.ndarray) else np.asarray(value)
    if not mask.flags.c_contiguous:
        mask = mask[(*(slice(0, 1) if step == 0 and n > 1 else slice(None) for step, n in zip(mask.strides, mask.shape)), ...)]
    if mask.dtype == np.bool_:
        return np.array(mask, order="C") if not mask.flags.carray else mask
    mask = _check.as_array(op, name, mask)
    if mask.dtype != dtype:
        raise TypeError(f"{op}: {name} must have dtype bool or that of query, {dtype}, got {mask.dtype}")
    return mask.astype(FLOAT32) if dtype == FLOAT16 else mask


def _repeated(x: Array, lead: tuple[int, ...]) -> Array:
    """With these leading axes; copied only where that repeats something."""
    return x if x.shape[:-2] == lead else np.array(np.broadcast_to(x, (*lead, *x.shape[-2:])), order="C")


Shape = tuple[int, ...]


class _Geometry(NamedTuple):
    """What the shapes say: leading axes of query and of key and value, whether all have them already, the shape of the result."""

    lead: Shape
    kv_lead: Shape
    as_given: bool
    shape: Shape
    attention: Attention


@lru_cache(maxsize=256)
def _geometry(op: str, q: Shape, k: Shape, v: Shape, dtype: np.dtype[Any], is_causal: bool, scale: float | None, enable_gqa: bool) -> _Geometry:
    """The attention so far without mask and dropout, from the shapes."""
    for name, shape in (("query", q), ("key", k), ("value", v)):
        if len(shape) < 2:
            raise ValueError(f"{op}: {name} must have axes (..., heads, length, size), at least the last two, got shape {shape}")
    *q_lead, L, D = q
    *k_lead, S, D_k = k
    *v_lead, S_v, E = v
    if D_k != D:
        raise ValueError(f"{op}: key must have rows of {D} elements, as query has, got {D_k} (shape {k})")
    if S_v != S:
        raise ValueError(f"{op}: value must have {S} rows, as key has, got {S_v} (shape {v})")
    group = 1
    if enable_gqa and len(q) >= 3:
        for name, own in (("key", k_lead), ("value", v_lead)):
            if not own or own[-1] == 0 or q_lead[-1] % own[-1]:
                raise ValueError(f"{op}: {name} must have heads that divide the {q_lead[-1]} heads of query, got shape {k if name == 'key' else v}")
        if k_lead[-1] != v_lead[-1]:
            raise ValueError(f"{op}: value must have {k_lead[-1]} heads, as key has, got {v_lead[-1]}")
        group = q_lead[-1] // k_lead[-1]
    try:
        grouped = [own if group == 1 else [*own[:-1], q_lead[-1]] for own in (k_lead, v_lead)]
        lead: Shape = np.broadcast_shapes(tuple(q_lead), *map(tuple, grouped))
    except ValueError:
        raise ValueError(f"{op}: key and value must have leading axes that broadcast with {tuple(q_lead)}, got {tuple(k_lead)} and {tuple(v_lead)}") from None
    heads = lead[-1] if lead else 1
    kv_heads = heads // group
    attention = Attention(
        prod(lead[:-1]), heads, group, L, S, D, E,
        (heads * L * D, L * D, D), (kv_heads * S * D, S * D, D), (kv_heads * S * E, S * E, E), (heads * L * E, L * E, E),
        no_mask(dtype), is_causal, (1 / sqrt(D) if D else 1.0) if scale is None else scale,
    )  # fmt: skip
    kv_lead = (*lead[:-1], kv_heads) if lead else ()
    as_given = q[:-2] == lead and k[:-2] == kv_lead and v[:-2] == kv_lead
    return _Geometry(lead, kv_lead, as_given, (*lead, L, E), attention)


def _ready(
    op: str, query: Any, key: Any, value: Any, attn_mask: Any, dropout_p: Any, is_causal: bool, scale: Any, enable_gqa: bool, rng: Any
) -> tuple[list[Array], list[Array], np.dtype[Any], Array | None, Shape, Attention]:
    """The arrays, the same with the leading axes that broadcasting gives them, their given dtype, the mask, the result's shape."""
    given, dtype = _check.as_arrays(op, query=query, key=key, value=value)
    q, k, v = given
    if scale is not None:
        scale = _check.real(op, "scale", scale)
    lead, kv_lead, as_given, shape, attention = _geometry(op, q.shape, k.shape, v.shape, q.dtype, bool(is_causal), scale, bool(enable_gqa))
    arrays = given if as_given else [_repeated(q, lead), _repeated(k, kv_lead), _repeated(v, kv_lead)]
    mask = None
    if attn_mask is not None:
        if is_causal:
            raise ValueError(f"{op}: attn_mask must be None with is_causal=True, got an array")
        mask = as_mask(op, "attn_mask", attn_mask, dtype)
        whole = (*lead, q.shape[-2], k.shape[-2])
        try:
            attention = attention.masked(make_mask(mask, whole, q.dtype))
        except ValueError:
            raise ValueError(f"{op}: attn_mask must broadcast to {whole}, got shape {mask.shape}") from None
    if type(dropout_p) is not float or dropout_p != 0.0:  # the usual 0.0 need not be looked at for 0.3 us
        p = _check.probability(op, "dropout_p", dropout_p)
        if p:
            seed = check_seed(op, rng) if op.endswith("_backward") else seed_of(op, rng)
            attention = replace(attention, dropout_p=p, seed=seed)
    return given, arrays, dtype, mask, shape, attention


def _record(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, attn_mask: ArrayLike | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *, rng: Any = None,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    op = "scaled_dot_product_attention"
    _, (q, k, v), dtype, _, shape, attention = _ready(op, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, rng)
    out = empty(shape, q.dtype)
    kept: dict[str, Any] = {"output": out, "lse": attention.run(q.ravel(), k.ravel(), v.ravel(), out.ravel())}
    if dropout_p:
        kept["rng"] = attention.seed
    return out.astype(dtype, copy=False), kept


@operation
def scaled_dot_product_attention(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, attn_mask: ArrayLike | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *, rng: Any = None,
) -> Array:  # fmt: skip
    """softmax(query key^T scale + mask) value: ``torch.nn.functional.scaled_dot_product_attention``.

    Takes memory for the result, one number a query and a few tiles, whatever the lengths. Time: 2 B H L S (D + E) operations,
    half of it with ``is_causal``.

    Args:
        query: (N, H, L, D), with any number of leading axes; they broadcast with those of key and value.
        key: (N, H, S, D).
        value: (N, H, S, E).
        attn_mask: broadcasts to (N, H, L, S). Booleans say which keys a query attends to; numbers of the inputs' dtype
            are added to the scores. A query that attends to no key gets 0, and has no gradient.
        dropout_p: the probability with which a weight becomes 0, others growing by 1 / (1 - dropout_p).
        is_causal: query i attends to the keys up to i; not together with ``attn_mask``.
        scale: by default 1 / sqrt(D).
        enable_gqa: key and value may have fewer heads than query, each serving H / H_kv query heads that follow one another.
        rng: None, an integer seed or a ``numpy.random.Generator``, for dropout.

    Returns:
        (N, H, L, E), of the dtype of the inputs (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> scaled_dot_product_attention(np.eye(2), np.eye(2), np.array([[1.0], [3.0]]), is_causal=True).round(3)
    array([[1.  ],
           [2.34]])
    """
    return _record(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, rng=rng)[0]


def summed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Summed over the axes that broadcasting made."""
    if gradient.shape == shape:
        return gradient
    axes = range(gradient.ndim - len(shape))
    gradient = gradient.sum(tuple(axes)) if axes else gradient
    wide = tuple(i for i, (now, then) in enumerate(zip(gradient.shape, shape)) if now != then)
    return gradient.sum(wide, keepdims=True) if wide else gradient


def scaled_dot_product_attention_backward(
    grad_output: ArrayLike, query: ArrayLike, key: ArrayLike, value: ArrayLike, attn_mask: ArrayLike | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *, rng: Any = None,
    output: Array | None = None, lse: Array | None = None, output_mask: Mask4 = (True, True, True, True),
) -> tuple[Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`scaled_dot_product_attention` with respect to query, key, value and a mask of numbers.

    Args:
        rng: the seed of the forward pass, an integer; needed with dropout.
        output, lse: what the forward pass kept, the output in the dtype of computation and the logarithm of each row's sum
            of exponentials; computed again when not given.
        output_mask: which gradients to compute; others are None, and so is that of a boolean mask.

    >>> import numpy as np
    >>> x = np.eye(2)
    >>> scaled_dot_product_attention_backward(np.ones((2, 2)), x, x, x)[2].round(3)
    array([[1., 1.],
           [1., 1.]])
    """
    op = "scaled_dot_product_attention_backward"
    if output_mask[3] and isinstance(attn_mask, np.ndarray) and attn_mask.dtype != np.bool_:
        attn_mask = np.asarray(attn_mask, order="C")  # its gradient is that of each of its elements, though the forward pass needs none twice
    given, arrays, dtype, mask, shape, attention = _ready(op, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, rng)
    (dout,), grad_dtype = _check.as_arrays(op, grad_output=grad_output)
    if grad_dtype != dtype or dout.shape != shape:
        raise (TypeError if grad_dtype != dtype else ValueError)(
            f"{op}: grad_output must have the shape and dtype of the output, {shape} {dtype}, got {dout.shape} {grad_dtype}"
        )
    q, k, v = (x.reshape(-1) for x in arrays)
    if output is None or lse is None:
        out = empty(prod(shape), q.dtype)
        lse = attention.run(q, k, v, out)
    else:
        out = np.ascontiguousarray(output, q.dtype).reshape(-1)
        lse = np.ascontiguousarray(lse, q.dtype).reshape(-1)
        if out.size != prod(shape) or lse.size != prod(shape[:-1]):
            raise ValueError(f"{op}: output and lse must be those of the forward pass, got {np.shape(output)} and {lse.shape}")
    numbers = mask is not None and mask.dtype != np.bool_
    want_q, want_k, want_v, want_mask = output_mask
    found = attention.gradients(q, k, v, out, lse, dout.reshape(-1), (want_q, want_k, want_v, want_mask and numbers))
    shapes = [*(x.shape for x in arrays), mask.shape if mask is not None else ()]
    to = [*(x.shape for x in given), () if attn_mask is None else np.asarray(attn_mask).shape]
    whole = [None if g is None else g.reshape(full) for g, full in zip(found, shapes)]
    return tuple(None if g is None else summed(g, own).astype(dtype, copy=False) for g, own in zip(whole, to))  # type: ignore[return-value]


register(
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
    inputs=("query", "key", "value", "attn_mask"),
    saved=("query", "key", "value", "attn_mask"),
    record=_record,
)
