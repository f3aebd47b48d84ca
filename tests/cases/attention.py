"""Rows of the attention operations, with references in float64 that are written for reading."""

from __future__ import annotations

import numpy as np

from tests.harness import Row


def softmax(scores):
    """Of the last axis; a row of -inf gives zeros."""
    top = scores.max(-1, keepdims=True)
    powers = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = powers.sum(-1, keepdims=True)
    return powers / np.where(total == 0, 1, total)


def causal(queries, keys):
    return np.arange(keys) <= np.arange(queries)[:, None]


def attention(query, key, value, attn_mask=None, is_causal=False, scale=None, enable_gqa=False):
    if enable_gqa:
        key, value = (np.repeat(x, query.shape[1] // x.shape[1], axis=1) for x in (key, value))
    scores = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = causal(*scores.shape[-2:])
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    return softmax(scores) @ value


def heads(
    query,
    key,
    value,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    out_proj_weight,
    out_proj_bias,
    num_heads,
    attn_mask=None,
    add_zero_attn=False,
    average_attn_weights=True,
    key_padding_mask=None,
    **_,
):
    L, N, E = query.shape
    projected = []
    for x, w, b, more in zip((query, key, value), np.split(in_proj_weight, 3), np.split(in_proj_bias, 3), (None, bias_k, bias_v)):
        x = x @ w.T + b
        if more is not None:
            x = np.concatenate([x, np.broadcast_to(more, (1, N, E))])
        if add_zero_attn and x is not query and len(projected):
            x = np.concatenate([x, np.zeros((1, N, E))])
        projected.append(x.reshape(-1, N, num_heads, E // num_heads).transpose(1, 2, 0, 3))
    q, k, v = projected
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(E // num_heads)
    S = len(key)
    if attn_mask is not None:
        scores[..., :S] += attn_mask
    if key_padding_mask is not None:
        scores[..., :S] += np.where(key_padding_mask, -np.inf, 0)[:, None, None]
    weights = softmax(scores)
    y = (weights @ v).transpose(2, 0, 1, 3).reshape(L, N, E)
    return y @ out_proj_weight.T + out_proj_bias, weights.mean(1) if average_attn_weights else weights


def rotated(input, cos, sin, interleaved=False):
    pairs = cos.shape[-1]
    pair = (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)) if interleaved else (slice(0, pairs), slice(pairs, 2 * pairs))
    z = (input[..., pair[0]] + 1j * input[..., pair[1]]) * (cos + 1j * sin)
    y = input.copy()
    y[..., pair[0]], y[..., pair[1]] = z.real, z.imag
    return y


def some(*shape):
    """A boolean mask that is mostly true, with a row that attends to nothing."""

    def draw(rng):
        mask = rng.random(shape) < 0.7
        mask[..., 0, :] = False
        return mask

    return draw


def _three(query, key, value=None, **more):
    return {"query": query, "key": key, "value": key if value is None else value, **more}


def _projections(E):
    return {"in_proj_weight": (3 * E, E), "in_proj_bias": (3 * E,), "out_proj_weight": (E, E), "out_proj_bias": (E,)}


SDPA, MHA, QKV = "scaled_dot_product_attention", "multi_head_attention_forward", ("query", "key", "value")

ROWS = [
    Row("tiles", SDPA, _three((1, 2, 70, 5), (1, 2, 140, 5), (1, 2, 140, 9)), attention, batched=QKV),
    Row("causal", SDPA, _three((2, 3, 19, 8), (2, 3, 12, 8)), attention, {"is_causal": True, "scale": 0.7}, batched=QKV),
    Row("float_mask", SDPA, _three((2, 3, 5, 4), (2, 3, 7, 4), attn_mask=(3, 1, 7)), attention, batched=QKV),
    Row("boolean_mask", SDPA, _three((2, 4, 6, 4), (2, 2, 9, 4)), attention, {"attn_mask": some(4, 6, 9), "enable_gqa": True}, batched=QKV),
    Row(
        "weights",
        MHA,
        {**_three((5, 2, 6), (4, 2, 6)), **_projections(6), "bias_k": (1, 1, 6), "bias_v": (1, 1, 6), "attn_mask": (5, 4)},
        heads,
        {"num_heads": 2, "embed_dim_to_check": 6, "add_zero_attn": True, "dropout_p": 0.0},
        batched=(),
        step=2.0**-16,
    ),
    Row(
        "heads_apart",
        MHA,
        {**_three((3, 2, 4), (4, 2, 4)), **_projections(4), "bias_k": None, "bias_v": None},
        heads,
        {
            "num_heads": 2,
            "embed_dim_to_check": 4,
            "add_zero_attn": False,
            "dropout_p": 0.0,
            "average_attn_weights": False,
            "key_padding_mask": np.array([[False, True, False, False], [True, False, False, True]]),
        },
        batched=(),
        step=2.0**-16,
    ),
    Row("halves", "rotary_embedding", {"input": (2, 3, 4, 10), "cos": (4, 4), "sin": (4, 4)}, rotated),
    Row("interleaved", "rotary_embedding", {"input": (2, 3, 4, 6), "cos": (3, 4, 3), "sin": (3, 4, 3)}, rotated, {"interleaved": True}),
]
