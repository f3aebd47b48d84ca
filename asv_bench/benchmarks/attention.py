"""Attention: heads of usual sizes, long and short sequences, masks, projections, rotary positions."""

from __future__ import annotations

from typing import Any

from asv_bench.benchmarks.common import Case, benchmarks


def _heads(batch: int, heads: int, queries: int, size: int, keys: int | None = None, **more: Any) -> dict[str, Any]:
    keys = queries if keys is None else keys
    return {"query": (batch, heads, queries, size), "key": (batch, heads, keys, size), "value": (batch, heads, keys, size), **more}


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
}

Forward, Backward = benchmarks(CASES)
