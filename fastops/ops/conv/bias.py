"""The gradient of a bias: grad_output summed over everything but its channel, for every convolution."""

from __future__ import annotations

import numpy as np

from fastops._check import Array
from fastops._memory import empty
from fastops.simd.reduce import sum_axis


def grad_bias(grad_output: Array, channels_last: bool) -> Array:
    """Sum of a 5-D gradient over all axes but the channels: shape (K,), the dtype of the gradient."""
    batch, channels = grad_output.shape[0], grad_output.shape[-1 if channels_last else 1]
    if grad_output.size == 0:
        return np.zeros(channels, grad_output.dtype)
    if channels_last:
        return sum_axis(grad_output.reshape(1, -1, channels)).reshape(channels)
    planes = sum_axis(grad_output.reshape(batch * channels, -1, 1), empty((batch * channels, 1)))
    return planes.reshape(batch, channels).sum(axis=0).astype(grad_output.dtype)
