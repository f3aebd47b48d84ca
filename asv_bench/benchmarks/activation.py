"""Activations: a feature map of 8x64x56x56, and 64x64, where what a call costs by itself shows."""

from __future__ import annotations

from .common import Case, benchmarks

LARGE, SMALL = (8, 64, 56, 56), (64, 64)

ALONE = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "softsign",
    "hardtanh", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "tanhshrink", "logsigmoid",
)  # fmt: skip

CASES = {
    **{f"{op}.8x64x56x56": Case(op, {"input": LARGE}) for op in ALONE},
    "gelu_tanh.8x64x56x56": Case("gelu", {"input": LARGE}, {"approximate": "tanh"}),
    "threshold.8x64x56x56": Case("threshold", {"input": LARGE}, {"threshold": 0.1, "value": 20.0}),
    "prelu.8x64x56x56": Case(
        "prelu", {"input": LARGE, "weight": (64,)}, tiny={"input": (2, 4, 5, 5), "weight": (4,)},
        torch=lambda F, t, o: F.prelu(t["input"], t["weight"]),
    ),
    "prelu.4096x256": Case(
        "prelu", {"input": (4096, 256), "weight": (256,)}, tiny={"input": (5, 4), "weight": (4,)},
        torch=lambda F, t, o: F.prelu(t["input"], t["weight"]),
    ),
    "rrelu_training.8x64x56x56": Case(
        "rrelu", {"input": LARGE}, {"training": True, "rng": 0}, torch=lambda F, t, o: F.rrelu(t["input"], training=True)
    ),
    "glu.8x64x56x56": Case("glu", {"input": LARGE}, {"dim": 1}),
    "glu_last.4096x512": Case("glu", {"input": (4096, 512)}),
    **{f"{op}.64x64": Case(op, {"input": SMALL}) for op in ("relu", "gelu", "sigmoid", "tanh", "silu")},
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
