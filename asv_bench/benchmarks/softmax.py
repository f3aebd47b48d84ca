"""Softmax: classes, attention scores, channels of a feature map, a vocabulary, and a call of 16x10."""

from __future__ import annotations

from .common import Case, benchmarks

CASES = {
    **{
        f"{op}.{name}": Case(op, {"input": shape}, {"dim": dim})
        for op in ("softmax", "log_softmax")
        for name, shape, dim in (
            ("64x1000", (64, 1000), -1),
            ("4096x77", (4096, 77), -1),
            ("4096x32", (4096, 32), -1),
            ("4096x128", (4096, 128), -1),
            ("12x512x512", (12, 512, 512), -1),
            ("16x32000", (16, 32000), -1),
            ("channels.8x64x56x56", (8, 64, 56, 56), 1),
            ("16x10", (16, 10), 1),
        )
    },
    "softmin.64x1000": Case("softmin", {"input": (64, 1000)}, {"dim": 1}),
    "gumbel_softmax.256x1000": Case(
        "gumbel_softmax", {"logits": (256, 1000)}, {"rng": 0}, torch=lambda F, t, o: F.gumbel_softmax(t["logits"])
    ),
    "gumbel_softmax_hard.256x1000": Case(
        "gumbel_softmax", {"logits": (256, 1000)}, {"rng": 0, "hard": True}, torch=lambda F, t, o: F.gumbel_softmax(t["logits"], hard=True)
    ),
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
