"""Products of matrices: a transformer's layers, classifiers, batches of small matrices, and a single example."""

from __future__ import annotations

from typing import Any

from .common import Case, benchmarks


def _turned(batch: int, rows: int, cols: int) -> Any:
    """Transposed matrices, as keys are in attention."""
    return lambda rng: rng.standard_normal((batch, rows, cols)).swapaxes(1, 2)


CASES = {
    "linear.1x64": Case("linear", {"input": (1, 64), "weight": (64, 64), "bias": (64,)}),
    "linear.1x512x1000": Case("linear", {"input": (1, 512), "weight": (1000, 512), "bias": (1000,)}),
    "linear.8x1280x1000": Case("linear", {"input": (8, 1280), "weight": (1000, 1280), "bias": (1000,)}),
    "linear.16x64x64": Case("linear", {"input": (16, 64), "weight": (64, 64), "bias": (64,)}),
    "linear.48x256x256": Case("linear", {"input": (48, 256), "weight": (256, 256), "bias": (256,)}),
    "linear.32x784x256": Case("linear", {"input": (32, 784), "weight": (256, 784), "bias": (256,)}),
    "linear.512x768x768": Case("linear", {"input": (512, 768), "weight": (768, 768), "bias": (768,)}),
    "linear.4x128x768x3072": Case("linear", {"input": (4, 128, 768), "weight": (3072, 768), "bias": (3072,)}),
    "linear.20000x8x4": Case("linear", {"input": (20000, 8), "weight": (4, 8), "bias": (4,)}),
    "bilinear.64x32x32x32": Case("bilinear", {"input1": (64, 32), "input2": (64, 32), "weight": (32, 32, 32), "bias": (32,)}),
    "bilinear.16x128x128x64": Case("bilinear", {"input1": (16, 128), "input2": (16, 128), "weight": (64, 128, 128), "bias": (64,)}),
    "matmul.512x512x512": Case("matmul", {"input": (512, 512), "other": (512, 512)}, torch=lambda F, t, o: t["input"] @ t["other"]),
    "matmul.96x128x64x128": Case("matmul", {"input": (96, 128, 64), "other": (96, 64, 128)}, torch=lambda F, t, o: t["input"] @ t["other"]),
    "matmul.96x128x64x128.turned": Case(
        "matmul", {"input": (96, 128, 64), "other": _turned(96, 128, 64)}, tiny={"input": (16, 16, 16), "other": _turned(16, 16, 16)},
        torch=lambda F, t, o: t["input"] @ t["other"],
    ),
    "matmul.1000x4x4x4": Case("matmul", {"input": (1000, 4, 4), "other": (1000, 4, 4)}, torch=lambda F, t, o: t["input"] @ t["other"]),
    "matmul.512x512.vector": Case("matmul", {"input": (512, 512), "other": (512,)}, torch=lambda F, t, o: t["input"] @ t["other"]),
    "matmul.32x32x32": Case("matmul", {"input": (32, 32), "other": (32, 32)}, torch=lambda F, t, o: t["input"] @ t["other"]),
    "addmm.128x512x512": Case(
        "addmm", {"input": (512,), "mat1": (128, 512), "mat2": (512, 512)}, torch=lambda F, t, o: t["input"].addmm(t["mat1"], t["mat2"]),
    ),
    "baddbmm.64x64x64x64": Case(
        "baddbmm", {"input": (64, 64, 64), "batch1": (64, 64, 64), "batch2": (64, 64, 64)}, {"alpha": 0.125},
        torch=lambda F, t, o: t["input"].baddbmm(t["batch1"], t["batch2"], **o),
    ),
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
