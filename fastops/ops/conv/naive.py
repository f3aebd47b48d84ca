"""Convolution as textbooks write it: the loops of the definition, nothing else.

It accepts everything and is what the other strategies are compared with. Shapes, in the letters of ``spec``:

    x (N, C, D, H, W)    w (K, C/G, T, R, S)    y (N, K, O, P, Q)

Tap (t, r, s) of the kernel meets the input at ``(o, p, q) * stride + (t, r, s) * dilation - padding``. The loops over
taps are outside and those over outputs inside, so that a tap which falls into the padding is left out by shortening
the row of outputs, not by a test for each element. The elements of a row do not depend on one another: the compiler
vectorises along the row, and every sum is still taken in the order written.

The three bodies are the same loops. forward adds w * x to y, grad_input adds w * dy to dx, grad_weight adds dy * x to dw.
Channels-last arrays are copied into the layout above first.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.finish import activate, activation_entry

# Nanoseconds that one thread takes for a multiply-add in a long row and for entering a row, and for a call.
_NS_PER_MAC = {"float32": 0.11, "float64": 0.21}
_NS_PER_MAC_STRIDED = 0.32
_NS_PER_ROW = 4.0
_NS_PER_CALL = 2000.0

_ACTIVATION_BLOCK = 16384


@function
def meeting(offset, stride, size, outputs):
    """The outputs [first, end) whose tap at ``offset`` lies inside the input: 0 <= output * stride + offset < size."""
    first = max(0, -(offset // stride))
    end = min(outputs, (size - 1 - offset) // stride + 1)
    return first, end


@function
def _start(values, zero, bias, channel):
    """A plane begins as its bias."""
    values[:] = bias[channel] if bias.size > 0 else zero


@separate
def _forward_plane(block, worker, x, w, bias, stride, dilation, padding, y):
    """y[n, k]: one image, one output channel."""
    n, k = block // y.shape[1], block % y.shape[1]
    _, K, O, P, Q = y.shape
    _, _, D, H, W = x.shape
    _, channels, T, R, S = w.shape
    group = k // (K // (x.shape[1] // channels)) if channels > 0 else 0

    _start(y[n, k], y.dtype.type(0), bias, k)
    for c in range(channels):
        for t in range(T):
            front = t * dilation[0] - padding[0]
            o_first, o_end = meeting(front, stride[0], D, O)
            for r in range(R):
                top = r * dilation[1] - padding[1]
                p_first, p_end = meeting(top, stride[1], H, P)
                for s in range(S):
                    left = s * dilation[2] - padding[2]
                    q_first, q_end = meeting(left, stride[2], W, Q)
                    weight = w[k, c, t, r, s]
                    for o in range(o_first, o_end):
                        for p in range(p_first, p_end):
                            x_row = x[
                                n,
                                group * channels + c,
                                o * stride[0] + front,
                                p * stride[1] + top,
                                q_first * stride[2] + left :,
                            ]
                            y_row = y[n, k, o, p, q_first:]
                            for q in range(q_end - q_first):
                                y_row[q] += weight * x_row[np.uintp(q * stride[2])]


@separate
def _grad_input_plane(block, worker, dy, w, bias, stride, dilation, padding, dx):
    """dx[n, c]: one image, one input channel."""
    n, c = block // dx.shape[1], block % dx.shape[1]
    _, C, D, H, W = dx.shape
    _, K, O, P, Q = dy.shape
    _, channels, T, R, S = w.shape
    group, groups = c // channels, C // channels

    _start(dx[n, c], dx.dtype.type(0), bias, c)
    for k in range(group * (K // groups), (group + 1) * (K // groups)):
        for t in range(T):
            front = t * dilation[0] - padding[0]
            o_first, o_end = meeting(front, stride[0], D, O)
            for r in range(R):
                top = r * dilation[1] - padding[1]
                p_first, p_end = meeting(top, stride[1], H, P)
                for s in range(S):
                    left = s * dilation[2] - padding[2]
                    q_first, q_end = meeting(left, stride[2], W, Q)
                    weight = w[k, c - group * channels, t, r, s]
                    for o in range(o_first, o_end):
                        for p in range(p_first, p_end):
                            dx_row = dx[n, c, o * stride[0] + front, p * stride[1] + top, q_first * stride[2] + left :]
                            dy_row = dy[n, k, o, p, q_first:]
                            for q in range(q_end - q_first):
                                dx_row[np.uintp(q * stride[2])] += weight * dy_row[q]


@separate
def _grad_weight_plane(block, worker, x, dy, stride, dilation, padding, rows, dw):
    """dw[k, c]: one output channel, one input channel. ``rows`` (threads, Q) holds a row of products."""
    k, c = block // dw.shape[1], block % dw.shape[1]
    N, K, O, P, Q = dy.shape
    _, _, D, H, W = x.shape
    _, channels, T, R, S = dw.shape
    group = k // (K // (x.shape[1] // channels))

    row = rows[worker]
    for t in range(T):
        front = t * dilation[0] - padding[0]
        o_first, o_end = meeting(front, stride[0], D, O)
        for r in range(R):
            top = r * dilation[1] - padding[1]
            p_first, p_end = meeting(top, stride[1], H, P)
            for s in range(S):
                left = s * dilation[2] - padding[2]
                q_first, q_end = meeting(left, stride[2], W, Q)
                row[:] = dw.dtype.type(0)
                for n in range(N):
                    for o in range(o_first, o_end):
                        for p in range(p_first, p_end):
                            x_row = x[
                                n,
                                group * channels + c,
                                o * stride[0] + front,
                                p * stride[1] + top,
                                q_first * stride[2] + left :,
                            ]
                            dy_row = dy[n, k, o, p, q_first:]
                            for q in range(q_end - q_first):
                                row[q] += dy_row[q] * x_row[np.uintp(q * stride[2])]
                total = dw.dtype.type(0)
                for q in range(q_end - q_first):
                    total += row[q]
                dw[k, c, t, r, s] = total


@launcher
def _forward(threads, x, w, bias, stride, dilation, padding, y):
    parallel(_forward_plane, y.shape[0] * y.shape[1], threads, (x, w, bias, stride, dilation, padding, y))


@launcher
def _grad_input(threads, dy, w, bias, stride, dilation, padding, dx):
    parallel(_grad_input_plane, dx.shape[0] * dx.shape[1], threads, (dy, w, bias, stride, dilation, padding, dx))


@launcher
def _grad_weight(threads, x, dy, stride, dilation, padding, rows, dw):
    parallel(_grad_weight_plane, dw.shape[0] * dw.shape[1], threads, (x, dy, stride, dilation, padding, rows, dw))


@separate
def _activate_block(block, worker, activation, y):
    start = block * _ACTIVATION_BLOCK
    activate(activation, y, start, min(_ACTIVATION_BLOCK, y.size - start))


@launcher
def _activate(threads, activation, y):
    parallel(_activate_block, -(-y.size // _ACTIVATION_BLOCK), threads, (activation, y))


def _geometry(spec: ConvSpec) -> tuple[Any, ...]:
    return spec.stride, spec.dilation, tuple(before for before, _ in spec.padding)


def _serial_time(spec: ConvSpec) -> float:
    """Nanoseconds of one thread, in any direction."""
    macs = spec.flops / 2
    each = _NS_PER_MAC[spec.dtype] if spec.stride[2] == 1 else max(_NS_PER_MAC_STRIDED, _NS_PER_MAC[spec.dtype])
    return macs * each + macs / max(spec.out_size[2], 1) * _NS_PER_ROW


def _first(spec: ConvSpec, array: Array) -> Array:
    """The array with its channels first."""
    return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if spec.channels_last else array


def _with_layout(spec: ConvSpec, compute: Callable[..., None], activation: int) -> Plan:
    """The plan that runs ``compute(threads, x, weight, bias, *geometry, y)`` on arrays of either layout."""
    geometry, time = _geometry(spec), _serial_time(spec)

    def run(x: Array, weight: Array, bias: Array, y: Array, prepared: object = None) -> None:
        result = empty((y.shape[0], y.shape[-1], *y.shape[1:-1]), y.dtype) if spec.channels_last else y
        compute(threads_for(time), _first(spec, x), weight, bias, *geometry, result)
        if spec.channels_last:
            y[...] = np.moveaxis(result, 1, -1)
        if activation:
            _activate(threads_for(y.size), activation_entry(activation, spec.dtype), y.reshape(-1))

    return Plan(run)


def _plan_forward(spec: ConvSpec, activation: int) -> Plan:
    return _with_layout(spec, _forward, activation)


def _plan_grad_input(spec: ConvSpec, activation: int) -> Plan:
    return _with_layout(spec, _grad_input, activation)


def _plan_grad_weight(spec: ConvSpec) -> Callable[[Array, Array, Array], None]:
    geometry, time = _geometry(spec), _serial_time(spec)

    def run(x: Array, dy: Array, dw: Array) -> None:
        threads = threads_for(time)
        rows = empty((threads, spec.out_size[2]), dw.dtype)
        _grad_weight(threads, _first(spec, x), _first(spec, dy), *geometry, rows, dw)

    return run


def _accepts(spec: ConvSpec, direction: str) -> None:
    return None


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    return _NS_PER_CALL + _serial_time(spec) / threads


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    copies = prod(spec.x_shape) + prod(spec.y_shape) if spec.channels_last else 0
    rows = threads * spec.out_size[2] if direction == "grad_weight" else 0
    return (copies + rows) * spec.itemsize


STRATEGY = Strategy("naive", _accepts, _cost, _workspace, _plan_forward, _plan_grad_input, _plan_grad_weight)
