"""Every operation under one roof: ``import fastops.functional as F``. Names and arguments are ``torch.nn.functional``'s."""

from __future__ import annotations

from fastops.ops.conv.conv import (
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    conv3d,
    conv3d_backward,
    prepare_conv2d,
)
from fastops.ops.conv.explain import explain
from fastops.ops.conv.fold import fold, fold_backward, unfold, unfold_backward
from fastops.ops.conv.separable import corr2d, corr2d_backward, separable_conv2d, separable_conv2d_backward
from fastops.ops.conv.transpose import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose3d,
    conv_transpose3d_backward,
)

__all__ = [
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv3d",
    "conv3d_backward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "corr2d",
    "corr2d_backward",
    "explain",
    "fold",
    "fold_backward",
    "prepare_conv2d",
    "separable_conv2d",
    "separable_conv2d_backward",
    "unfold",
    "unfold_backward",
]
