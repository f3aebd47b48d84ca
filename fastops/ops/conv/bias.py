"""The gradient of a bias: grad_output summed over everything but its channel, for every convolution.

Sums run in float64 over blocks of fixed size which are combined in order: the result is accurate to the last bit or so
whatever the size, and the same for any number of threads.
"""

from __future__ import annotations

import numpy as np

from fastops._check import Array
from fastops._jit import launcher, parallel, separate
from fastops._threads import threads_for

# Elements that are added to as many running sums side by side; rows of a channels-last array that make a block.
_LANES = 64
_ROWS = 512
_NS_PER_ELEMENT = 0.2


@separate
def _sum_channel(block, worker, dy, lanes, db):
    """db[k] for one channel; dy (N, K, L), lanes (threads, 64) in float64."""
    N, _, L = dy.shape
    lane = lanes[worker]
    lane[:] = 0.0
    whole = L // _LANES * _LANES
    for n in range(N):
        row = dy[n, block]
        for start in range(0, whole, _LANES):
            part = row[start:]
            for i in range(_LANES):
                lane[i] += part[i]
        part = row[whole:]
        for i in range(L - whole):
            lane[i] += part[i]
    total = 0.0
    for i in range(_LANES):
        total += lane[i]
    db[block] = total


@launcher
def _sum_channels_first(threads, dy, lanes, db):
    parallel(_sum_channel, dy.shape[1], threads, (dy, lanes, db))


@separate
def _sum_rows(block, worker, dy, partial):
    """partial[block] is the sum of a block of rows; dy (rows, K), partial (blocks, K) in float64."""
    rows, K = dy.shape
    total = partial[block]
    total[:] = 0.0
    for row in range(block * _ROWS, min((block + 1) * _ROWS, rows)):
        for k in range(K):
            total[k] += dy[row, k]


@launcher
def _sum_channels_last(threads, dy, partial, db):
    parallel(_sum_rows, partial.shape[0], threads, (dy, partial))
    total = partial[0]
    for block in range(1, partial.shape[0]):
        for k in range(total.size):
            total[k] += partial[block, k]
    for k in range(total.size):
        db[k] = total[k]


def grad_bias(grad_output: Array, channels_last: bool) -> Array:
    """Sum of a 5-D gradient over all axes but the channels: shape (K,), the dtype of the gradient."""
    channels = grad_output.shape[-1 if channels_last else 1]
    if grad_output.size == 0:
        return np.zeros(channels, grad_output.dtype)
    db = np.empty(channels, grad_output.dtype)
    threads = threads_for(grad_output.size * _NS_PER_ELEMENT)
    if channels_last:
        rows = grad_output.reshape(-1, channels)
        _sum_channels_last(threads, rows, np.empty((-(-rows.shape[0] // _ROWS), channels)), db)
    else:
        planes = grad_output.reshape(grad_output.shape[0], channels, -1)
        _sum_channels_first(threads, planes, np.empty((threads, _LANES)), db)
    return db
