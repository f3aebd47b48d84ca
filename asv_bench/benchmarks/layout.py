"""pad in every mode, and one_hot."""

from __future__ import annotations

from .common import Case, benchmarks

SHAPE = (8, 64, 56, 56)


def classes(count):
    return lambda rng: rng.integers(0, count, 4096)


def torch_one_hot(F, tensors, options):
    return F.one_hot(tensors["tensor"], **options)


CASES = {
    **{
        f"pad.{mode}.8x64x56x56": Case("pad", {"input": SHAPE}, {"pad": (1, 1, 1, 1), "mode": mode})
        for mode in ("constant", "reflect", "replicate", "circular")
    },
    "pad.reflect.8x3x224x224": Case("pad", {"input": (8, 3, 224, 224)}, {"pad": (3, 3, 3, 3), "mode": "reflect"}),
    "pad.crop.8x64x56x56": Case("pad", {"input": SHAPE}, {"pad": (-1, -1, -1, -1)}),
    "pad.replicate.8x64x3136": Case("pad", {"input": (8, 64, 3136)}, {"pad": (2, 2), "mode": "replicate"}),
    "pad.constant.2x16x16x28x28": Case("pad", {"input": (2, 16, 16, 28, 28)}, {"pad": (1, 1, 1, 1, 1, 1)}),
    "pad.constant.small": Case("pad", {"input": (1, 8, 14, 14)}, {"pad": (1, 1, 1, 1)}),
    "one_hot.4096x10": Case("one_hot", {"tensor": classes(10)}, {"num_classes": 10}, torch=torch_one_hot),
    "one_hot.4096x1000": Case("one_hot", {"tensor": classes(1000)}, {"num_classes": 1000}, torch=torch_one_hot),
}
Forward, Backward = benchmarks(CASES)
