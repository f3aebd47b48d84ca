"""multi_head_attention_forward: projections, heads side by side with attention each, and a projection back.

    q, k, v = query W_q^T + b_q, key W_k^T + b_k, value W_v^T + b_v
    output = concat over heads of softmax(q_h k_h^T / sqrt(D_h) + mask) v_h, times W_o^T, + b_o

Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2. Heads are not copied apart: the tiles of
``flash.py`` read them where the projections leave them, (length, batch, heads, D_h). Kept for the gradient: the projected
q, k and v, the heads' output and their logarithms of sums of exponentials. The weights themselves are computed only when they
are asked for, from these logarithms, and so is the gradient that comes through them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import FLOAT16, FLOAT32, Array
from fastops._memory import empty_like
from fastops._op import operation, register
from fastops.ops.attention.flash import Attention, make_mask, no_mask
from fastops.ops.attention.sdpa import as_mask, summed
from fastops.simd.gemm import gemm, projected
from fastops.simd.random import check_seed, seed_of
from fastops.simd.reduce import sum_axis

_OP = "multi_head_attention_forward"

# The arrays among the arguments, in the order of the gradients.
_INPUTS = (
    "query", "key", "value", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj_weight", "out_proj_bias",
    "key_padding_mask", "attn_mask", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
)  # fmt: skip
_NEEDED = ("query", "key", "value", "out_proj_weight")
_MASKS = ("key_padding_mask", "attn_mask")


@dataclass(frozen=True)
class _Call:
    """The checked arguments of a call, in the dtype of computation, with a batch."""

    given: dict[str, Any]
    arrays: dict[str, Array]
    dtype: np.dtype[Any]
    batched: bool
    weights: tuple[Array, Array, Array]
    biases: tuple[Array | None, Array | None, Array | None]
    mask: Array | None
    attention: Attention

    @property
    def keys_given(self) -> int:
        """Keys that come from ``key``: without those of bias_k and add_zero_attn."""
        return self.arrays["key"].shape[0]


@dataclass(frozen=True)
class _Kept:
    """What the gradient needs of the forward pass."""

    q: Array
    k: Array
    v: Array
    heads: Array
    lse: Array


def _expect(op: str, name: str, array: Array, shape: tuple[int, ...], why: str) -> None:
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape} ({why}), got {array.shape}")


def _merged_mask(op: str, padding: Any, mask: Any, batch: int, heads: int, queries: int, keys: int, extra: int, dtype: np.dtype[Any]) -> Any:
    """Both masks as one, (N or 1, heads or 1, L or 1, keys + extra), where True means attend; the extra keys are attended to."""

    def ready(name: str, value: Any, shapes: list[tuple[int, ...]], to: tuple[int, ...]) -> Array:
        array = as_mask(op, name, value, dtype)
        if np.shape(value) not in shapes:
            raise ValueError(f"{op}: {name} must have shape {' or '.join(map(str, shapes))}, got {np.shape(value)}")
        array = np.broadcast_to(array, np.shape(value)).reshape(to)
        array = ~array if array.dtype == np.bool_ else array
        return np.pad(array, [(0, 0)] * 3 + [(0, extra)], constant_values=array.dtype == np.bool_) if extra else array

    parts = []
    if padding is not None:
        parts.append(ready("key_padding_mask", padding, [(batch, keys)], (batch, 1, 1, keys)))
    if mask is not None:
        shapes, to = [(queries, keys), (batch * heads, queries, keys)], (1, 1, queries, keys)
        parts.append(ready("attn_mask", mask, shapes, (batch, heads, queries, keys) if np.ndim(mask) == 3 else to))
    if len(parts) < 2:
        return np.ascontiguousarray(parts[0]) if parts else None
    if all(part.dtype == np.bool_ for part in parts):
        return parts[0] & parts[1]
    kind = FLOAT32 if dtype == FLOAT16 else dtype
    return np.add(*(np.where(p, 0, -np.inf).astype(kind) if p.dtype == np.bool_ else p for p in parts))


def _checked(op: str, given: dict[str, Any], seed: int) -> _Call:
    g = given
    needed = {name: g[name] for name in _INPUTS if name not in _MASKS and (g[name] is not None or name in _NEEDED)}
    ready, dtype = _check.as_arrays(op, **needed)
    arrays: dict[str, Array] = dict(zip(needed, ready))
    query = arrays["query"]
    if query.ndim not in (2, 3):
        raise ValueError(f"{op}: query must have axes (L, N, E) or (L, E), got shape {query.shape}")
    batched = query.ndim == 3
    for name in ("key", "value"):
        if arrays[name].ndim != query.ndim:
            raise ValueError(f"{op}: {name} must have {query.ndim} axes, as query has, got shape {arrays[name].shape}")
    if not batched:
        arrays.update({name: arrays[name][:, None] for name in ("query", "key", "value")})
    query, key, value = (arrays[name] for name in ("query", "key", "value"))
    L, N, E = query.shape
    heads = _check.integer(op, "num_heads", g["num_heads"], minimum=1)
    if g["embed_dim_to_check"] != E:
        raise ValueError(f"{op}: query must have {g['embed_dim_to_check']} as its axis E (embed_dim_to_check), got {E}")
    if E % heads:
        raise ValueError(f"{op}: num_heads must divide the embedding, {E}, got {heads}")
    size = E // heads
    if key.shape[1] != N:
        raise ValueError(f"{op}: key must have the batch of query, {N}, got {key.shape[1]}")
    _expect(op, "value", value, (*key.shape[:2], value.shape[2]), "as key")

    if g["use_separate_proj_weight"]:
        for name, array in (("q_proj_weight", query), ("k_proj_weight", key), ("v_proj_weight", value)):
            if name not in arrays:
                raise ValueError(f"{op}: {name} must be given with use_separate_proj_weight, got None")
            _expect(op, name, arrays[name], (E, array.shape[2]), "E rows, as many columns as its input")
        weights = tuple(arrays[name] for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"))
    else:
        _expect(op, "value", value, key.shape, "as key, without use_separate_proj_weight")
        if "in_proj_weight" not in arrays:
            raise ValueError(f"{op}: in_proj_weight must be given without use_separate_proj_weight, got None")
        _expect(op, "key", key, (*key.shape[:2], E), "the embedding of query, without use_separate_proj_weight")
        _expect(op, "in_proj_weight", arrays["in_proj_weight"], (3 * E, E), "3 E, E")
        weights = tuple(arrays["in_proj_weight"].reshape(3, E, E))
    biases: tuple[Array | None, ...] = (None, None, None)
    if "in_proj_bias" in arrays:
        _expect(op, "in_proj_bias", arrays["in_proj_bias"], (3 * E,), "3 E")
        biases = tuple(arrays["in_proj_bias"].reshape(3, E))
    out_weight = arrays["out_proj_weight"]
    if out_weight.ndim != 2 or out_weight.shape[1] != E:
        raise ValueError(f"{op}: out_proj_weight must have shape (E_out, {E}), got {out_weight.shape}")
    if "out_proj_bias" in arrays:
        _expect(op, "out_proj_bias", arrays["out_proj_bias"], out_weight.shape[:1], "a row of out_proj_weight each")

    for one, other in (("bias_k", "bias_v"), ("bias_v", "bias_k")):
        if one in arrays:
            if other not in arrays:
                raise ValueError(f"{op}: {other} must be given with {one}, got None")
            if arrays[one].size != E:
                raise ValueError(f"{op}: {one} must have {E} elements, got shape {arrays[one].shape}")
            if "static_k" in arrays or "static_v" in arrays:
                raise ValueError(f"{op}: {one} must be None with static_k or static_v, got an array")
    lengths = []
    for name in ("static_k", "static_v"):
        if name in arrays:
            array = arrays[name]
            _expect(op, name, array, (N * heads, array.shape[1] if array.ndim == 3 else 0, size), "N heads, S, E / heads")
            lengths.append(array.shape[1])
        else:
            lengths.append(key.shape[0] + ("bias_k" in arrays))
    if lengths[0] != lengths[1]:
        raise ValueError(f"{op}: static_v must have as many rows as the keys, {lengths[0]}, got {lengths[1]}")
    extra = bool(g["add_zero_attn"])
    keys = lengths[0] + extra

    attn_mask, padding = g["attn_mask"], g["key_padding_mask"]
    causal = bool(g["is_causal"])
    if causal and attn_mask is None:
        raise ValueError(f"{op}: attn_mask must be given with is_causal, which is a hint about it, got None")
    causal = causal and padding is None and not g["need_weights"]
    if padding is not None and not batched:
        padding = np.asarray(padding)[None]
    mask = None
    p = _check.probability(op, "dropout_p", g["dropout_p"])
    attention = _attention(N, heads, L, keys, size, "static_k" in arrays, "static_v" in arrays, causal, query.dtype)
    if (attn_mask is not None and not causal) or padding is not None:
        own = lengths[0] - ("bias_k" in arrays)
        mask = _merged_mask(op, padding, attn_mask, N, heads, L, own, keys - own, dtype)
        attention = attention.masked(make_mask(mask, (N, heads, L, keys), query.dtype))
    if p and g["training"]:
        attention = replace(attention, dropout_p=p, seed=seed)
    return _Call(given, arrays, dtype, batched, weights, biases, mask, attention)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _attention(N: int, heads: int, L: int, keys: int, size: int, static_k: bool, static_v: bool, causal: bool, dtype: np.dtype[Any]) -> Attention:
    """Without mask and dropout; what it works out of its extents is kept with it."""
    E = heads * size
    projected, static = (E, size, N * E), (heads * keys * size, keys * size, size)
    k_at, v_at = (static if given else projected for given in (static_k, static_v))
    scale = size**-0.5 if size else 1.0
    return Attention(N, heads, 1, L, keys, size, size, projected, k_at, v_at, projected, no_mask(dtype), causal, scale)


def _rows(x: Array) -> Array:
    return x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _linear(x: Array, weight: Array, bias: Array | None, out: Array | None = None) -> Array:
    """The rows of x times weight^T, plus bias; checked arrays."""
    return projected(_rows(x) if x.ndim > 2 else x, weight, bias, out)


def _keys_or_values(call: _Call, which: int) -> Array:
    """All keys (1) or values (2), flat, as their layout says: projected, with bias_k and zeros behind them, or static."""
    static, bias = (("static_k", "bias_k"), ("static_v", "bias_v"))[which - 1]
    arrays, a = call.arrays, call.attention
    if static in arrays:
        x = arrays[static]
        return np.pad(x, [(0, 0), (0, a.keys - x.shape[1]), (0, 0)]).reshape(-1) if a.keys != x.shape[1] else x.reshape(-1)
    source = arrays[("query", "key", "value")[which]]
    if a.keys == call.keys_given:
        return _linear(source, call.weights[which], call.biases[which]).ravel()
    all_rows = np.zeros((a.keys, a.batch, a.heads * a.size), source.dtype)
    _linear(source, call.weights[which], call.biases[which], _rows(all_rows[: call.keys_given]))
    if bias in arrays:
        all_rows[call.keys_given] = arrays[bias].reshape(-1)
    return all_rows.reshape(-1)


def _attend(call: _Call) -> _Kept:
    arrays, a = call.arrays, call.attention
    q = _linear(arrays["query"], call.weights[0], call.biases[0])
    k, v = _keys_or_values(call, 1), _keys_or_values(call, 2)
    heads = empty_like(q)
    return _Kept(q, k, v, heads, a.run(q.ravel(), k, v, heads.ravel()))


def _record(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: ArrayLike | None, in_proj_bias: ArrayLike | None, bias_k: ArrayLike | None, bias_v: ArrayLike | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: ArrayLike, out_proj_bias: ArrayLike | None, training: bool = True,
    key_padding_mask: ArrayLike | None = None, need_weights: bool = True, attn_mask: ArrayLike | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: ArrayLike | None = None, k_proj_weight: ArrayLike | None = None,
    v_proj_weight: ArrayLike | None = None, static_k: ArrayLike | None = None, static_v: ArrayLike | None = None,
    average_attn_weights: bool = True, is_causal: bool = False, *, rng: Any = None,
) -> tuple[tuple[Array, Array | None], dict[str, Any]]:  # fmt: skip
    given = dict(locals())
    seed = seed_of(_OP, given.pop("rng")) if dropout_p and training else 0
    call = _checked(_OP, given, seed)
    kept, a = _attend(call), call.attention
    y = _linear(kept.heads, call.arrays["out_proj_weight"], call.arrays.get("out_proj_bias"))
    y = y.reshape(a.queries, *([a.batch] if call.batched else []), y.shape[-1]).astype(call.dtype, copy=False)
    weights = None
    if need_weights:
        weights = a.weights(kept.q.reshape(-1), kept.k, kept.lse, average_attn_weights)
        shape = (*([a.batch] if call.batched else []), *([] if average_attn_weights else [a.heads]), a.queries, a.keys)
        weights = weights.reshape(shape).astype(call.dtype, copy=False)
    extra = {"rng": seed} if dropout_p and training else {}
    return (y, weights), {"kept": kept, **extra}


@operation
def multi_head_attention_forward(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: ArrayLike | None, in_proj_bias: ArrayLike | None, bias_k: ArrayLike | None, bias_v: ArrayLike | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: ArrayLike, out_proj_bias: ArrayLike | None, training: bool = True,
    key_padding_mask: ArrayLike | None = None, need_weights: bool = True, attn_mask: ArrayLike | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: ArrayLike | None = None, k_proj_weight: ArrayLike | None = None,
    v_proj_weight: ArrayLike | None = None, static_k: ArrayLike | None = None, static_v: ArrayLike | None = None,
    average_attn_weights: bool = True, is_causal: bool = False, *, rng: Any = None,
) -> tuple[Array, Array | None]:  # fmt: skip
    """Multi-head attention with its projections: ``torch.nn.functional.multi_head_attention_forward``.

    Args:
        query: (L, N, E), or (L, E) without a batch.
        key, value: (S, N, E), or (S, N, E_k) and (S, N, E_v) with ``use_separate_proj_weight``; without N if query has none.
        embed_dim_to_check: E.
        num_heads: heads, a divisor of E.
        in_proj_weight: (3 E, E), the projections of query, key and value one below the other.
        in_proj_bias: (3 E,) or None.
        bias_k, bias_v: E elements each: one more key and value for every batch; both or neither.
        add_zero_attn: one more key and value of zeros.
        dropout_p: probability with which a weight becomes 0, with ``training``.
        out_proj_weight, out_proj_bias: (E_out, E), and (E_out,) or None.
        key_padding_mask: (N, S): booleans, where True means that a key is ignored, or numbers that are added.
        need_weights: whether to return the weights; they take memory for L S numbers.
        attn_mask: (L, S) or (N num_heads, L, S): booleans, where True means that a query does not attend, or numbers.
        use_separate_proj_weight: take q_proj_weight (E, E), k_proj_weight (E, E_k) and v_proj_weight (E, E_v).
        static_k, static_v: (N num_heads, S, E / num_heads), in place of projected keys and values.
        average_attn_weights: whether the weights are averaged over the heads.
        is_causal: a hint that ``attn_mask``, which must be given, is the causal one.
        rng: None, an integer seed or a ``numpy.random.Generator``, for dropout.

    Returns:
        The output (L, N, E_out), and the weights (N, L, S), or (N, num_heads, L, S) if they are not averaged, or None. Where
        a query may not attend to any key, its weights are 0 (PyTorch's are NaN when they are returned).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> x, w = np.eye(2)[:, None], np.concatenate([np.eye(2)] * 3)
    >>> y, weights = multi_head_attention_forward(x, x, x, 2, 1, w, None, None, None, False, 0.0, np.eye(2), None)
    >>> y.shape, weights.round(2)
    ((2, 1, 2), array([[[0.67, 0.33],
            [0.33, 0.67]]]))
    """
    return _record(
        query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v, add_zero_attn, dropout_p,
        out_proj_weight, out_proj_bias, training, key_padding_mask, need_weights, attn_mask, use_separate_proj_weight,
        q_proj_weight, k_proj_weight, v_proj_weight, static_k, static_v, average_attn_weights, is_causal, rng=rng,
    )[0]  # fmt: skip


def multi_head_attention_forward_backward(
    grad_output: Any, query: ArrayLike, key: ArrayLike, value: ArrayLike, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: ArrayLike | None, in_proj_bias: ArrayLike | None, bias_k: ArrayLike | None, bias_v: ArrayLike | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: ArrayLike, out_proj_bias: ArrayLike | None, training: bool = True,
    key_padding_mask: ArrayLike | None = None, need_weights: bool = True, attn_mask: ArrayLike | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: ArrayLike | None = None, k_proj_weight: ArrayLike | None = None,
    v_proj_weight: ArrayLike | None = None, static_k: ArrayLike | None = None, static_v: ArrayLike | None = None,
    average_attn_weights: bool = True, is_causal: bool = False, *, rng: Any = None, kept: Any = None,
    output_mask: tuple[bool, ...] = (True,) * len(_INPUTS),
) -> tuple[Array | None, ...]:  # fmt: skip
    """Gradients of :func:`multi_head_attention_forward`.

    Args:
        grad_output: the gradients of the output and of the weights, either of which may be None.
        rng: the seed of the forward pass, an integer; needed with dropout.
        kept: what autodiff keeps of the forward pass; computed again when not given.
        output_mask: which gradients to compute, in the order query, key, value, in_proj_weight, in_proj_bias, bias_k, bias_v,
            out_proj_weight, out_proj_bias, key_padding_mask, attn_mask, q_proj_weight, k_proj_weight, v_proj_weight, static_k,
            static_v. Gradients of what is not given, of boolean masks and of what plays no part are None.

    >>> import numpy as np
    >>> x, w = np.eye(2)[:, None], np.concatenate([np.eye(2)] * 3)
    >>> gradients = multi_head_attention_forward_backward(
    ...     (np.ones((2, 1, 2)), None), x, x, x, 2, 1, w, None, None, None, False, 0.0, np.eye(2), None)
    >>> gradients[2].ravel().round(2)
    array([1., 1., 1., 1.])
    """
    op = f"{_OP}_backward"
    given = {name: value for name, value in locals().items() if name not in ("op", "grad_output", "rng", "kept", "output_mask")}
    call = _checked(op, given, check_seed(op, rng) if dropout_p and training else 0)
    arrays, a, dtype = call.arrays, call.attention, call.dtype
    wanted = {name for name, want in zip(_INPUTS, output_mask) if want and given[name] is not None}
    kept = _attend(call) if kept is None else kept
    batch = [a.batch] if call.batched else []
    out_weight = arrays["out_proj_weight"]
    dy, dweights = grad_output
    y_shape = (a.queries, *batch, out_weight.shape[0])
    dy = np.zeros(y_shape, dtype) if dy is None else dy
    (dy,), grad_dtype = _check.as_arrays(op, grad_output=dy)
    if dy.shape != y_shape or grad_dtype != dtype:
        raise ValueError(f"{op}: grad_output must have the shape and dtype of the output, {y_shape} {dtype}, got {dy.shape} {grad_dtype}")
    extra, extra_at, delta = None, (0, 0, 0), None
    q = kept.q.reshape(-1)
    if dweights is not None and need_weights:
        (dweights,), grad_dtype = _check.as_arrays(op, grad_output=dweights)
        heads = [] if average_attn_weights else [a.heads]
        if dweights.shape != (*batch, *heads, a.queries, a.keys) or grad_dtype != dtype:
            raise ValueError(f"{op}: grad_output must have the shape and dtype of the weights, got {dweights.shape} {grad_dtype}")
        extra = dweights.reshape(-1) * dweights.dtype.type(1 / a.heads if average_attn_weights else 1)
        count = a.queries * a.keys
        extra_at = (count, 0, a.keys) if average_attn_weights else (a.heads * count, count, a.keys)
        delta = a.weights(q, kept.k, kept.lse, average_attn_weights, extra, extra_at)

    found: dict[str, Array] = {}
    dy = _rows(dy)
    if "out_proj_weight" in wanted:
        found["out_proj_weight"] = gemm(dy.T, kept.heads)
    if "out_proj_bias" in wanted:
        found["out_proj_bias"] = sum_axis(dy[None])[0]
    dheads = gemm(dy, out_weight)

    names = (("query", "q_proj_weight"), ("key", "k_proj_weight", "bias_k", "static_k"), ("value", "v_proj_weight", "bias_v", "static_v"))
    common = {"in_proj_weight", "in_proj_bias"}
    numbers = call.mask is not None and call.mask.dtype != np.bool_
    dq, dk, dv, dmask = a.gradients(
        q, kept.k, kept.v, kept.heads.reshape(-1), kept.lse, dheads.reshape(-1),
        (*(bool(wanted & {*group, *common}) for group in names), bool(numbers and wanted.intersection(_MASKS))),  # type: ignore[arg-type]
        extra, extra_at, delta,
    )  # fmt: skip
    _masks(call, dmask, wanted, found)
    E = a.heads * a.size
    if "in_proj_weight" in wanted:
        found["in_proj_weight"] = np.zeros((3 * E, E), q.dtype)
    if "in_proj_bias" in wanted:
        found["in_proj_bias"] = np.zeros(3 * E, q.dtype)
    for which, gradient in enumerate((dq, dk, dv)):
        if gradient is not None:
            _projection(call, which, gradient, wanted, found)

    def finished(name: str) -> Array | None:
        if name not in wanted or (name in _MASKS and name not in found):
            return None
        if name not in found:
            return np.zeros(np.shape(given[name]), dtype)
        return found[name].reshape(np.shape(given[name])).astype(dtype, copy=False)

    return tuple(map(finished, _INPUTS))


def _masks(call: _Call, dmask: Array | None, wanted: set[str], found: dict[str, Array]) -> None:
    if dmask is None:
        return
    assert call.mask is not None
    a = call.attention
    whole = dmask.reshape(call.mask.shape)
    for name in wanted.intersection(_MASKS):
        value = call.given[name]
        if np.asarray(value).dtype == np.bool_:
            continue
        keys = np.shape(value)[-1]
        padding = (a.batch, 1, 1, keys)
        shape = padding if name == "key_padding_mask" else (a.batch, a.heads, a.queries, keys) if np.ndim(value) == 3 else (1, 1, a.queries, keys)
        found[name] = summed(whole[..., :keys], shape)


def _projection(call: _Call, which: int, gradient: Array, wanted: set[str], found: dict[str, Array]) -> None:
    """What the gradient of q (0), k (1) or v (2) means for the arguments that it is made of."""
    a, arrays = call.attention, call.arrays
    source, weight = (("query", "q_proj_weight"), ("key", "k_proj_weight"), ("value", "v_proj_weight"))[which]
    bias, static = ((), ("bias_k", "static_k"), ("bias_v", "static_v"))[which] or (None, None)
    if static in arrays:
        rows = arrays[static].shape[1]
        found[static] = gradient.reshape(a.batch * a.heads, a.keys, a.size)[:, :rows]
        return
    E = a.heads * a.size
    gradient = gradient.reshape(a.keys if which else a.queries, a.batch, E)
    given = gradient[: arrays[source].shape[0]]
    if bias in arrays:
        found[bias] = sum_axis(gradient[call.keys_given][None])[0]
    rows, x = _rows(given), _rows(arrays[source])
    if source in wanted:
        found[source] = gemm(rows, call.weights[which])
    if "in_proj_weight" in wanted and not call.given["use_separate_proj_weight"]:
        gemm(rows.T, x, out=found["in_proj_weight"][which * E : (which + 1) * E])
    elif weight in wanted:
        found[weight] = gemm(rows.T, x)
    if "in_proj_bias" in wanted:
        sum_axis(rows[None], found["in_proj_bias"][which * E : (which + 1) * E])


register(multi_head_attention_forward, multi_head_attention_forward_backward, inputs=_INPUTS, saved=_INPUTS, record=_record)
