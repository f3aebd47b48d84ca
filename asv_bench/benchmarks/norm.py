"""Normalisation: activations of a residual network, a transformer's rows, and the small calls of a single example."""

from __future__ import annotations

from .common import TINY, Case, benchmarks

IMAGE = {"input": (8, 64, 56, 56), "weight": (64,), "bias": (64,)}
DEEP = {"input": (8, 512, 7, 7), "weight": (512,), "bias": (512,)}
MATRIX = {"input": (128, 512), "weight": (512,), "bias": (512,)}


def running(channels: int) -> dict[str, object]:
    """Running statistics; in training they are updated from call to call."""
    channels = min(channels, 16) if TINY else channels
    return {
        "running_mean": lambda rng: rng.standard_normal(channels),
        "running_var": lambda rng: rng.uniform(0.5, 1.5, channels),
    }


def batch_norm(F, tensors, options):
    """PyTorch takes no gradient of running statistics, and activations one by one."""
    still = {name: t.detach() if name.startswith("running") else t for name, t in tensors.items()}
    activation = options.get("activation")
    y = F.batch_norm(**still, **{name: value for name, value in options.items() if name != "activation"})
    return getattr(F, activation)(y) if activation else y


CASES = {
    "batch_norm.8x64x56x56.training": Case("batch_norm", {**IMAGE, **running(64)}, {"training": True}, torch=batch_norm),
    "batch_norm.8x64x56x56.training.relu": Case("batch_norm", {**IMAGE, **running(64)}, {"training": True, "activation": "relu"}, torch=batch_norm),
    "batch_norm.8x64x56x56": Case("batch_norm", {**IMAGE, **running(64)}, torch=batch_norm),
    "batch_norm.8x512x7x7.training": Case("batch_norm", {**DEEP, **running(512)}, {"training": True}, torch=batch_norm),
    "batch_norm.128x512.training": Case("batch_norm", {**MATRIX, **running(512)}, {"training": True}, torch=batch_norm),
    "batch_norm.100000x8.training": Case(
        "batch_norm", {"input": (100000, 8), "weight": (8,), "bias": (8,), **running(8)}, {"training": True}, torch=batch_norm
    ),
    "batch_norm.512x64x5x5.training": Case(
        "batch_norm", {"input": (512, 64, 5, 5), "weight": (64,), "bias": (64,), **running(64)}, {"training": True}, torch=batch_norm
    ),
    "batch_norm.1x64x7x7": Case("batch_norm", {"input": (1, 64, 7, 7), "weight": (64,), "bias": (64,), **running(64)}, torch=batch_norm),
    "instance_norm.8x64x56x56": Case("instance_norm", IMAGE),
    "group_norm.8x64x56x56": Case("group_norm", IMAGE, {"num_groups": 32}, tiny={"num_groups": 4}),
    "group_norm.8x512x7x7": Case("group_norm", DEEP, {"num_groups": 32}, tiny={"num_groups": 4}),
    "layer_norm.64x512x768": Case(
        "layer_norm", {"input": (64, 512, 768), "weight": (768,), "bias": (768,)}, {"normalized_shape": (768,)},
        tiny={"input": (2, 3, 16), "weight": (16,), "bias": (16,), "normalized_shape": (16,)},
    ),
    **{
        f"{op}.16384x33": Case(
            op, {"input": (16384, 33), "weight": (33,), **bias}, {"normalized_shape": (33,)},
            tiny={"input": (5, 7), **dict.fromkeys(("weight", *bias), (7,)), "normalized_shape": (7,)},
        )
        for op, bias in (("layer_norm", {"bias": (33,)}), ("rms_norm", {}))
    },
    "layer_norm.1x768": Case(
        "layer_norm", {"input": (1, 768), "weight": (768,), "bias": (768,)}, {"normalized_shape": (768,)},
        tiny={"input": (1, 16), "weight": (16,), "bias": (16,), "normalized_shape": (16,)},
    ),
    "rms_norm.8x512x768": Case(
        "rms_norm", {"input": (8, 512, 768), "weight": (768,)}, {"normalized_shape": (768,)},
        tiny={"input": (2, 3, 16), "weight": (16,), "normalized_shape": (16,)},
    ),
    "local_response_norm.8x64x56x56": Case("local_response_norm", {"input": (8, 64, 56, 56)}, {"size": 5}),
    "normalize.8x64x56x56": Case("normalize", {"input": (8, 64, 56, 56)}),
    "normalize.1024x256": Case("normalize", {"input": (1024, 256)}),
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
