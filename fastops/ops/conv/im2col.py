"""Convolution by im2col: write the matrix of all windows, multiply, done.

The matrix has a row for each tap of each input channel and a column for each output pixel. With it

    y = W M             (K, C T R S) times (C T R S, pixels)
    dw = dy M^T
    dx = col2im(W^T dy)   col2im adds each element of the matrix to the input that it came from

This is the method that most people learn, and the memory it takes is its price: T R S times the image. Here the matrix
is made for some output pixels at a time, as many as stay in cache; a whole VGG layer's would be 115 MB an image.

K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing", 2006.
"""
from __future__ import annotations

from math import prod

import numpy as np

from fastops import _threads
from fastops._jit import function, launcher, parallel, separate
from fastops.ops.conv.implicit import zero_run
from fastops.ops.conv.layout import side
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import LANES
from fastops.simd.finish import activate, activation_entry
from fastops.simd.gemm import gemm_strided, gemm_workspace
from fastops.simd.pack import copy_run

# The matrix is written by one pass and read by the next: 2 MB stay in L2 and L3 meanwhile.
_MATRIX_BYTES = 2 << 20


@function
def _inside(offset, stride, size, count):  # type: ignore[no-untyped-def]
    """Outputs [first, end) of ``count`` whose input, at output * stride + offset, lies inside 0..size."""
    first = max(0, -(offset // stride))
    return min(first, count), max(min(first, count), min(count, (size - 1 - offset) // stride + 1))


@separate
def _windows_block(block, worker, x, x0, source, window, out_size, j0, j1, matrix):  # type: ignore[no-untyped-def]
    """The rows of one channel: columns are output pixels j0..j1 of one image."""
    depth, _, d_stride, c_stride, p_stride, height, width, _ = source
    taps_d, taps_h, taps_w, stride_d, stride_h, stride_w, front, top, left, dilation_d, dilation_h, dilation_w = window
    _, out_h, out_w = out_size
    taps = taps_d * taps_h * taps_w
    columns = j1 - j0
    base = x0 + block * c_stride
    for tap in range(taps):
        t, r, s = tap // (taps_h * taps_w), tap // taps_w % taps_h, tap % taps_w
        first, end = _inside(s * dilation_w - left, stride_w, width, out_w)
        j = j0
        while j < j1:
            q0 = j % out_w
            count = min(j1 - j, out_w - q0)
            d = j // (out_h * out_w) * stride_d + t * dilation_d - front
            h = j // out_w % out_h * stride_h + r * dilation_h - top
            to = (block * taps + tap) * columns + j - j0
            a, b = max(0, min(count, first - q0)), max(0, min(count, end - q0))
            if d < 0 or d >= depth or h < 0 or h >= height or a >= b:
                zero_run(matrix, to, count)
            else:
                row = base + d * d_stride + (h * width + (q0 + a) * stride_w + s * dilation_w - left) * p_stride
                step = stride_w * p_stride
                zero_run(matrix, to, a)
                if step == 1:
                    copy_run(x, row, matrix, to + a, b - a)
                else:
                    for i in range(b - a):
                        matrix[to + a + i] = x[row + i * step]
                zero_run(matrix, to + b, count - b)
            j += count


@separate
def _add_windows_block(block, worker, x, x0, source, window, out_size, j0, j1, matrix):  # type: ignore[no-untyped-def]
    """col2im: adds the rows of one channel to that channel of x."""
    depth, _, d_stride, c_stride, p_stride, height, width, _ = source
    taps_d, taps_h, taps_w, stride_d, stride_h, stride_w, front, top, left, dilation_d, dilation_h, dilation_w = window
    _, out_h, out_w = out_size
    taps = taps_d * taps_h * taps_w
    columns = j1 - j0
    base = x0 + block * c_stride
    for tap in range(taps):
        t, r, s = tap // (taps_h * taps_w), tap // taps_w % taps_h, tap % taps_w
        first, end = _inside(s * dilation_w - left, stride_w, width, out_w)
        j = j0
        while j < j1:
            q0 = j % out_w
            count = min(j1 - j, out_w - q0)
            d = j // (out_h * out_w) * stride_d + t * dilation_d - front
            h = j // out_w % out_h * stride_h + r * dilation_h - top
            a, b = max(0, min(count, first - q0)), max(0, min(count, end - q0))
            if d >= 0 and d < depth and h >= 0 and h < height:
                at = (block * taps + tap) * columns + j - j0
                row = base + d * d_stride + (h * width + (q0 + a) * stride_w + s * dilation_w - left) * p_stride
                step = stride_w * p_stride
                for i in range(b - a):
                    x[row + i * step] += matrix[at + a + i]
            j += count


@separate
def _start_block(block, worker, y, y0, dims, bias, bias0):  # type: ignore[no-untyped-def]
    """One channel of one image of a gradient begins as its bias."""
    depth, _, d_stride, c_stride, p_stride, height, width, _ = dims
    value = bias[bias0 + block] if bias.size > 0 else y.dtype.type(0)
    for d in range(depth):
        row = y0 + block * c_stride + d * d_stride
        for i in range(height * width):
            y[row + i * p_stride] = value


@separate
def _activate_block(block, worker, y, y0, dims, activation):  # type: ignore[no-untyped-def]
    depth, _, d_stride, c_stride, p_stride, height, width, _ = dims
    for d in range(depth):
        row = y0 + block * c_stride + d * d_stride
        if p_stride == 1:
            activate(activation, y, row, height * width)
        else:
            for i in range(height * width):
                activate(activation, y, row + i * p_stride, 1)


@launcher
def _windows(threads, x, x0, source, window, out_size, j0, j1, matrix):  # type: ignore[no-untyped-def]
    parallel(_windows_block, source[7], threads, (x, x0, source, window, out_size, j0, j1, matrix))


@launcher
def _add_windows(threads, x, x0, source, window, out_size, j0, j1, matrix):  # type: ignore[no-untyped-def]
    parallel(_add_windows_block, source[7], threads, (x, x0, source, window, out_size, j0, j1, matrix))


@launcher
def _start(threads, y, y0, dims, bias, bias0):  # type: ignore[no-untyped-def]
    parallel(_start_block, dims[7], threads, (y, y0, dims, bias, bias0))


@launcher
def _activate(threads, y, y0, dims, activation):  # type: ignore[no-untyped-def]
    parallel(_activate_block, dims[7], threads, (y, y0, dims, activation))


class _Windows:
    """The three directions; each walks over images, groups and blocks of pixels."""

    def __init__(self, spec: ConvSpec, activation: int = 0) -> None:
        self.x, self.y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        self.batch, self.groups, self.dtype = spec.batch, spec.groups, spec.dtype
        self.window = (*spec.kernel, *spec.stride, *(p[0] for p in spec.padding), *spec.dilation)
        self.out_size = spec.out_size
        self.pixels = prod(spec.out_size)
        self.rows = self.x.channels * prod(spec.kernel)
        columns = max(64, _MATRIX_BYTES // (self.rows * spec.itemsize))
        # Pixels that start a row of the output start a run of vectors; whole rows where the matrix holds some.
        row = spec.out_size[2]
        self.block = min(self.pixels, columns // row * row if columns >= row else columns)
        self.code, self.activation = activation, activation_entry(activation, spec.dtype)
        self.pixel_stride, self.channels_last = self.y.dims[4], spec.channels_last
        self.plane = prod(spec.out_size)

    def workspace(self, threads: int) -> int:
        itemsize = np.dtype(self.dtype).itemsize
        rows, cols, depth = self.y.channels, self.block, self.rows
        if self.channels_last:
            rows, cols = cols, rows
        return self.rows * self.block * itemsize + gemm_workspace(rows, cols, depth, self.dtype, threads)

    def _threads(self) -> int:
        return _threads.threads_for(self.rows * self.block * 0.2)

    def _walk(self):  # type: ignore[no-untyped-def]
        """(image, group, first pixel, end) of each block."""
        for n in range(self.batch):
            for group in range(self.groups):
                for j in range(0, self.pixels, self.block):
                    yield n, group, j, min(self.pixels, j + self.block)

    def _matrix(self) -> np.ndarray:
        return np.empty(self.rows * self.block, self.dtype)

    def forward(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: None = None) -> None:
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        k, stride = self.y.channels, self.pixel_stride
        matrix = self._matrix()
        for n, group, j0, j1 in self._walk():
            _windows(self._threads(), x, n * self.x.dims[1] + group * self.x.group, self.x.dims, self.window, self.out_size, j0, j1, matrix)
            a = w[group * k * self.rows :]
            c = y[n * self.y.dims[1] + group * self.y.group + j0 * stride :]
            shift = bias[group * k : (group + 1) * k] if bias.size else None
            n_cols = j1 - j0
            if self.channels_last:
                gemm_strided(1, n_cols, k, self.rows, matrix, (0, 1, n_cols), a, (0, 1, self.rows), c, (0, stride), bias=shift, activation=self.code)
            else:
                gemm_strided(1, k, n_cols, self.rows, a, (0, self.rows, 1), matrix, (0, n_cols, 1), c, (0, self.plane), bias=shift, bias_axis=0, activation=self.code)

    def grad_input(self, dy: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray, prepared: None = None) -> None:
        dy, w, dx = dy.reshape(-1), w.reshape(-1), dx.reshape(-1)
        k, stride = self.y.channels, self.pixel_stride
        matrix = self._matrix()
        for n, group, j0, j1 in self._walk():
            at = n * self.x.dims[1] + group * self.x.group
            if j0 == 0:
                _start(self._threads(), dx, at, self.x.dims, bias, group * self.x.channels)
            a = w[group * k * self.rows :]
            b = dy[n * self.y.dims[1] + group * self.y.group + j0 * stride :]
            n_cols = j1 - j0
            strides = (0, 1, stride) if self.channels_last else (0, self.plane, 1)
            gemm_strided(1, self.rows, n_cols, k, a, (0, 1, self.rows), b, strides, matrix, (0, n_cols))
            _add_windows(self._threads(), dx, at, self.x.dims, self.window, self.out_size, j0, j1, matrix)
            if j1 == self.pixels and self.code:
                _activate(self._threads(), dx, at, self.x.dims, self.activation)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
        k, stride = self.y.channels, self.pixel_stride
        matrix = self._matrix()
        for n, group, j0, j1 in self._walk():
            _windows(self._threads(), x, n * self.x.dims[1] + group * self.x.group, self.x.dims, self.window, self.out_size, j0, j1, matrix)
            a = dy[n * self.y.dims[1] + group * self.y.group + j0 * stride :]
            n_cols = j1 - j0
            strides = (0, 1, stride) if self.channels_last else (0, self.plane, 1)
            gemm_strided(1, k, self.rows, n_cols, a, strides, matrix, (0, 1, n_cols), dw[group * k * self.rows :], (0, self.rows), accumulate=n > 0 or j0 > 0)


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    elements = spec.batch * prod(spec.out_size) * spec.channels * prod(spec.kernel)
    blocks = spec.batch * spec.groups * -(-prod(spec.out_size) // _Windows(spec).block)
    macs = spec.flops / 2 / LANES[spec.dtype] / 2 / 3.0
    return (macs + elements * spec.itemsize * 0.12) / threads + 12_000 * blocks


STRATEGY = Strategy(
    name="im2col",
    accepts=lambda spec, direction: None,
    cost=_cost,
    workspace=lambda spec, direction, threads: _Windows(spec).workspace(threads),
    forward=lambda spec, activation: Plan(_Windows(spec, activation).forward),
    grad_input=lambda spec, activation: Plan(_Windows(spec, activation).grad_input),
    grad_weight=lambda spec: _Windows(spec).grad_weight,
)
