"""The fast subset: what the gate compares unless told otherwise, and what ``python -m asv_bench.fast`` prints for asv.

    asv run -b "$(python -m asv_bench.fast)" HEAD^!

Regular expressions on names as asv gives them. One of each kind of kernel: a slowdown of any of them shows in one at least.
"""

from __future__ import annotations

FAST = (
    r"^conv\.(For|Back)ward\..*\('auto', '(resnet18\.layer1|resnet18\.layer4|alexnet\.conv2|mobilenet_v2\.d3)'\)",
    r"^conv\.Forward\..*\('(im2col|implicit|winograd)', 'resnet18\.layer1'\)",
    r"^conv\.Windows\..*'resnet18\.layer1'",
    r"^gemm\..*\('fastops', 512, ",
    r"^linear\..*\('linear\.32x784x256'\)",
    r"^activation\.Forward\..*\('(relu|gelu|tanh)\.8x64x56x56'\)",
    r"^activation\.Backward\..*\('gelu\.8x64x56x56'\)",
    r"^softmax\..*\('softmax\.64x1000'\)",
    r"^norm\..*\('(batch_norm\.8x64x56x56\.training|group_norm\.8x64x56x56)'\)",
    r"^pool\..*\('(max_pool2d\.3x3_s2_p1|avg_pool2d\.2x2)'\)",
    r"^latency\..*\('(linear\.1x64|softmax\.16x10|conv2d\.8x16x16)'\)",
    r"^models\..*'lenet5'",
    r"^startup\.(Import|FirstConv2dWarm)\.",
    r"^startup\.FirstCallCold\..*'relu'",
    r"^conv\.Workspace\..*'resnet18\.layer1'",
)


def pattern() -> str:
    return "|".join(FAST)


if __name__ == "__main__":
    print(pattern())
