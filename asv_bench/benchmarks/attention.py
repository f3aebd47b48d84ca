"""Attention: heads of usual sizes, long and short sequences, masks, projections, rotary positions."""

from __future__ import annotations

from typing import Any

from .common import Case, benchmarks


def _heads(batch: int, heads: int, queries: int, size: int, keys: int | None = None, **more: Any) -> dict[str, Any]:
    keys = queries if keys is None else keys
    return {"query": (batch, heads, queries, size), "key": (batch, heads, keys, size), "value": (batch, heads, keys, size), **more}


def _projected(length: int, batch: int, size: int, heads: int, **options: Any) -> Case:
    """Self-attention with its projections."""
    scale = size**-0.5
    arrays = dict.fromkeys(("query", "key", "value"), (length, batch, size))
    tiny = dict.fromkeys(arrays, (6, 2, 8))
    weights = {"in_proj_weight": 3 * size, "out_proj_weight": size}
    arrays |= {name: lambda rng, rows=rows: scale * rng.standard_normal((rows, size)) for name, rows in weights.items()}
    arrays |= {"in_proj_bias": (3 * size,), "out_proj_bias": (size,)}
    tiny |= {"in_proj_weight": (24, 8), "out_proj_weight": (8, 8), "in_proj_bias": (24,), "out_proj_bias": (8,)}
    fixed = {"embed_dim_to_check": size, "num_heads": heads, "bias_k": None, "bias_v": None, "add_zero_attn": False, "dropout_p": 0.0}
    return Case("multi_head_attention_forward", arrays, {**fixed, **options}, tiny={**tiny, "embed_dim_to_check": 8, "num_heads": 2})


def _rotary_in_torch(F: Any, tensors: dict[str, Any], options: dict[str, Any]) -> Any:
    import torch

    x, cos, sin = tensors["input"], tensors["cos"].detach(), tensors["sin"].detach()
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


SDPA = "scaled_dot_product_attention"
TINY_HEADS = dict.fromkeys(("query", "key", "value"), (1, 2, 16, 16))

CASES = {
    "sdpa.8x12x128x64": Case(SDPA, _heads(8, 12, 128, 64)),
    "sdpa.8x12x512x64": Case(SDPA, _heads(8, 12, 512, 64)),
    "sdpa.8x12x512x64.causal": Case(SDPA, _heads(8, 12, 512, 64), {"is_causal": True}),
    "sdpa.1x8x4096x64": Case(SDPA, _heads(1, 8, 4096, 64)),
    "sdpa.1x8x4096x64.causal": Case(SDPA, _heads(1, 8, 4096, 64), {"is_causal": True}),
    "sdpa.cross.4x8x64x256x80": Case(SDPA, _heads(4, 8, 64, 80, 256)),
    "sdpa.mask.4x8x256x64": Case(SDPA, _heads(4, 8, 256, 64, attn_mask=(256, 256)), tiny={**TINY_HEADS, "attn_mask": (16, 16)}),
    "sdpa.boolean_mask.4x8x256x64": Case(
        SDPA,
        _heads(4, 8, 256, 64, attn_mask=lambda rng: rng.random((4, 1, 1, 256)) < 0.8),
        tiny={**TINY_HEADS, "attn_mask": lambda rng: rng.random((1, 1, 1, 16)) < 0.8},
    ),
    "sdpa.small.1x2x16x16": Case(SDPA, _heads(1, 2, 16, 16)),
    "sdpa.small.mask.4x1x32x16": Case(SDPA, _heads(4, 1, 32, 16, attn_mask=(32, 32)), tiny={**TINY_HEADS, "attn_mask": (16, 16)}),
    "heads.128x8x512": _projected(128, 8, 512, 8, need_weights=False),
    "heads.weights.128x8x512": _projected(128, 8, 512, 8),
    "heads.small.16x1x64": _projected(16, 1, 64, 4, need_weights=False),
    "rotary.8x12x512x64": Case(
        "rotary_embedding",
        {"input": (8, 12, 512, 64), "cos": (512, 32), "sin": (512, 32)},
        tiny={"input": (1, 2, 4, 8), "cos": (4, 4), "sin": (4, 4)},
        torch=_rotary_in_torch,
    ),
}

Forward, Backward = benchmarks(CASES)
