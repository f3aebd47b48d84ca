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
from fastops._jit import call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops.ops.conv.layout import side, up
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, KC, LANES, NV, panel_width
from fastops.simd.finish import activate, activation_entry, finish_rows
from fastops.simd.gemm import gemm_strided, gemm_workspace
from fastops.simd.product import block_product
from fastops.simd.vector import lanes, load_between, load_part, load_square_part, splat, store, store_part, store_square_part, transpose
from fastops.simd.workspace import scratch

# The matrix is written by one pass and read by the next. Forward, every thread has one of its own, of few enough
# pixels that it stays in L2; the gradients share one of 2 MB.
_MATRIX_BYTES = 2 << 20
_OWN_MATRIX_BYTES = 512 << 10


@function
def _inside(offset, stride, size, count):
    """Outputs [first, end) of ``count`` whose input, at output * stride + offset, lies inside 0..size."""
    first = max(0, -(offset // stride))
    return min(first, count), max(min(first, count), min(count, (size - 1 - offset) // stride + 1))


@separate
def write_windows(x, x0, channels, source, window, out_size, j0, j1, matrix, m0, m_row):
    """The matrix's rows for some channels; its columns are output pixels j0..j1 of one image.

    Runs of one output row are written in whole vectors, the last of which may reach into the next run or row. Both are
    written later; behind the last row the matrix has a vector to spare.
    """
    depth, _, d_stride, c_stride, p_stride, height, width, _ = source
    taps_d, taps_h, taps_w, stride_d, stride_h, stride_w, front, top, left, dilation_d, dilation_h, dilation_w = window
    _, out_h, out_w = out_size
    step = stride_w * p_stride
    lanes_ = lanes(x)
    zero = splat(x, x.dtype.type(0))
    j = j0
    while j < j1:
        q0 = j % out_w
        count = min(j1 - j, out_w - q0)
        d0 = j // (out_h * out_w) * stride_d - front
        h0 = j // out_w % out_h * stride_h - top
        to = m0 + j - j0
        for c in range(channels):
            for t in range(taps_d):
                d = d0 + t * dilation_d
                for r in range(taps_h):
                    h = h0 + r * dilation_h
                    outside = d < 0 or d >= depth or h < 0 or h >= height
                    row = x0 + c * c_stride + d * d_stride + h * width * p_stride
                    for s in range(taps_w):
                        w0 = s * dilation_w - left
                        if outside:
                            for v in range(0, count, lanes_):
                                store(matrix, to + v, zero)
                        elif step == 1:
                            # x at w0 + q0 + i for i < count, of which those inside 0..width
                            a, b = -(w0 + q0), min(count, width - w0 - q0)
                            for v in range(0, count, lanes_):
                                store(matrix, to + v, load_between(x, row + w0 + q0 + v, a - v, b - v))
                        else:
                            first, end = _inside(w0, stride_w, width, out_w)
                            a, b = max(0, min(count, first - q0)), max(0, min(count, end - q0))
                            for i in range(a):
                                matrix[to + i] = x.dtype.type(0)
                            source_at = row + (w0 + q0 * stride_w) * p_stride
                            for i in range(a, b):
                                matrix[to + i] = x[source_at + i * step]
                            for i in range(max(a, b), count):
                                matrix[to + i] = x.dtype.type(0)
                        to += m_row
        j += count


@separate
def _windows_block(block, worker, x, x0, source, window, out_size, j0, j1, matrix, m_row):
    taps = window[0] * window[1] * window[2]
    call(write_windows, (x, x0 + block * source[3], 1, source, window, out_size, j0, j1, matrix, block * taps * m_row, m_row))


@separate
def _forward_block(
    block, worker, pixel_blocks, block_size, outs_part, x, x0, source, target, window, out_size, w, w0, y, y0, bias, bias0, activation, matrix, each, m_row
):
    """Some pixels of one image, some output channels: the matrix of these pixels, then the product."""
    count = lanes(y)
    width = NV * count
    _, n_stride, _, c_stride, p_stride, _, _, _ = target
    pixels = out_size[0] * out_size[1] * out_size[2]
    outs, ins = target[7], source[7]
    part = block // pixel_blocks
    n = block % pixel_blocks // ((pixels + block_size - 1) // block_size)
    j0 = block % pixel_blocks % ((pixels + block_size - 1) // block_size) * block_size
    j1 = min(pixels, j0 + block_size)
    k0 = part * outs_part
    k_count = min(outs_part, outs - k0)
    depth = ins * window[0] * window[1] * window[2]
    m0 = worker * each
    call(write_windows, (x, x0 + n * source[1], ins, source, window, out_size, j0, j1, matrix, m0, m_row))
    to = y0 + n * n_stride + j0 * p_stride + k0 * c_stride
    result0, row = to, c_stride
    if c_stride == 1 and p_stride != 1:
        # Channels last: the product goes to scratch with pixels innermost, and is turned from there.
        result0, row = m0 + depth * m_row, m_row
    for k in range(0, depth, KC):
        some = min(KC, depth - k)
        if row == c_stride and result0 == to:
            block_product(k_count, j1 - j0, some, w, w0 + k0 * depth + k, depth, 1, matrix, m0 + k * m_row, m_row, width, y, to, row, k > 0)
        else:
            block_product(k_count, j1 - j0, some, w, w0 + k0 * depth + k, depth, 1, matrix, m0 + k * m_row, m_row, width, matrix, result0, row, k > 0)
    if row == c_stride and result0 == to:
        call(finish_rows, (y, to, row, k_count, j1 - j0, bias, bias0 + k0, 1, 0, activation))
    else:
        call(finish_rows, (matrix, result0, row, k_count, j1 - j0, bias, bias0 + k0, 1, 0, activation))
        for i in range(0, j1 - j0, count):
            for k in range(0, k_count, count):
                t = transpose(load_square_part(matrix, result0 + k * row + i, row, k_count - k, j1 - j0 - i))
                store_square_part(y, to + i * p_stride + k, p_stride, t, j1 - j0 - i, k_count - k)


@separate
def _add_windows_block(block, worker, x, x0, source, window, out_size, j0, j1, matrix):
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
                if step == 1:
                    for i in range(0, b - a, lanes(x)):
                        left_over = b - a - i
                        store_part(x, row + i, load_part(x, row + i, left_over) + load_part(matrix, at + a + i, left_over), left_over)
                else:
                    for i in range(b - a):
                        x[row + i * step] += matrix[at + a + i]
            j += count


@separate
def _start_block(block, worker, y, y0, dims, bias, bias0):
    """One channel of one image of a gradient begins as its bias."""
    depth, _, d_stride, c_stride, p_stride, height, width, _ = dims
    value = bias[bias0 + block] if bias.size > 0 else y.dtype.type(0)
    for d in range(depth):
        row = y0 + block * c_stride + d * d_stride
        for i in range(height * width):
            y[row + i * p_stride] = value


@separate
def _activate_block(block, worker, y, y0, dims, activation):
    depth, _, d_stride, c_stride, p_stride, height, width, _ = dims
    for d in range(depth):
        row = y0 + block * c_stride + d * d_stride
        if p_stride == 1:
            activate(activation, y, row, height * width)
        else:
            for i in range(height * width):
                activate(activation, y, row + i * p_stride, 1)


@launcher
def _forward(
    threads, batch, pixel_blocks, block_size, outs_part, x, x0, source, target, window, out_size, w, w0, y, y0, bias, bias0, activation, matrix, each, m_row
):
    parts = (target[7] + outs_part - 1) // outs_part
    parallel(
        _forward_block,
        pixel_blocks * parts,
        threads,
        (pixel_blocks, block_size, outs_part, x, x0, source, target, window, out_size, w, w0, y, y0, bias, bias0, activation, matrix, each, m_row),
    )


@launcher
def _windows(threads, x, x0, source, window, out_size, j0, j1, matrix, m_row):
    parallel(_windows_block, source[7], threads, (x, x0, source, window, out_size, j0, j1, matrix, m_row))


@launcher
def _add_windows(threads, x, x0, source, window, out_size, j0, j1, matrix):
    parallel(_add_windows_block, source[7], threads, (x, x0, source, window, out_size, j0, j1, matrix))


@launcher
def _start(threads, y, y0, dims, bias, bias0):
    parallel(_start_block, dims[7], threads, (y, y0, dims, bias, bias0))


@launcher
def _activate(threads, y, y0, dims, activation):
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
        # A vector to spare behind each row: threads write neighbouring ones at the same time.
        self.row = self.block + LANES[spec.dtype]
        self.code, self.activation = activation, activation_entry(activation, spec.dtype)
        self.pixel_stride, self.channels_last = self.y.dims[4], spec.channels_last
        self.plane = prod(spec.out_size)

    def workspace(self, direction: str, threads: int) -> int:
        itemsize = np.dtype(self.dtype).itemsize
        if direction == "forward":
            return threads * self._own(threads)[4] * itemsize
        rows, cols, depth = self.y.channels, self.block, self.rows
        if self.channels_last:
            rows, cols = cols, rows
        return self.rows * self.row * itemsize + gemm_workspace(rows, cols, depth, self.dtype, threads)

    def _threads(self) -> int:
        return _threads.threads_for(self.rows * self.block * 0.2)

    def _walk(self):
        """(image, group, first pixel, end) of each block."""
        for n in range(self.batch):
            for group in range(self.groups):
                for j in range(0, self.pixels, self.block):
                    yield n, group, j, min(self.pixels, j + self.block)

    def _matrix(self) -> np.ndarray:
        return empty(self.rows * self.row, self.dtype)

    def _own(self, threads: int) -> tuple[int, int, int, int, int]:
        """Forward: pixels of a block, all such blocks, output channels of a task, the matrix's row, scratch of a thread."""
        width = panel_width(self.dtype)
        itemsize = np.dtype(self.dtype).itemsize
        block = max(width, _OWN_MATRIX_BYTES // (self.rows * itemsize) // width * width)
        count = -(-self.pixels // block)
        block = min(up(-(-self.pixels // count), width), 512)
        pixel_blocks = self.batch * -(-self.pixels // block)
        outs, lanes_ = self.y.channels, LANES[self.dtype]
        part = outs
        if threads > 1 and pixel_blocks < 2 * threads:
            part = up(-(-outs * pixel_blocks // (2 * threads)), 8)
        # An odd number of vectors, so that a column of the matrix is spread over the whole cache.
        row = (-(-block // lanes_) | 1) * lanes_
        row += lanes_ * (row - block < width - lanes_)
        each = (self.rows + (part if self.channels_last else 0) + 1) * row + width
        return block, pixel_blocks, part, row, each

    def forward(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: None = None) -> None:
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        k = self.y.channels
        threads = _threads.threads_for(self.rows * self.pixels * self.batch * k * self.groups * 0.012)
        block, pixel_blocks, part, row, each = self._own(threads)
        matrix = scratch(threads * each, self.dtype)
        for group in range(self.groups):
            _forward(
                threads, self.batch, pixel_blocks, block, part, x, group * self.x.group, self.x.dims, self.y.dims, self.window, self.out_size,
                w, group * k * self.rows, y, group * self.y.group, bias, group * k, self.activation, matrix, each, row,
            )  # fmt: skip

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
            _windows(self._threads(), x, n * self.x.dims[1] + group * self.x.group, self.x.dims, self.window, self.out_size, j0, j1, matrix, self.row)
            a = dy[n * self.y.dims[1] + group * self.y.group + j0 * stride :]
            n_cols = j1 - j0
            strides = (0, 1, stride) if self.channels_last else (0, self.plane, 1)
            gemm_strided(1, k, self.rows, n_cols, a, strides, matrix, (0, 1, self.row), dw[group * k * self.rows :], (0, self.rows), accumulate=n > 0 or j0 > 0)


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    lanes_ = LANES[spec.dtype]
    elements = spec.batch * prod(spec.out_size) * spec.channels * prod(spec.kernel)
    pixels = prod(spec.out_size)
    product = spec.flops / 2 / lanes_ / FMAS_PER_CYCLE * 1.3
    if direction != "grad_weight":  # there pixels are steps of the reduction, and fill no panels
        product *= up(pixels, panel_width(spec.dtype)) / pixels
    # Cycles a vector of the matrix: written and read back; more where it is added up, turned, or fetched one by one.
    each = 18 if direction == "forward" else 30
    passes = elements / lanes_ * (each if spec.stride[2] == 1 else each + 3 * lanes_)
    blocks = spec.batch * spec.groups * -(-prod(spec.out_size) // _Windows(spec).block)
    launches = 0 if direction == "forward" else 10_000 * blocks
    product += 4 * spec.batch * prod(spec.weight_shape) / lanes_
    return (product + passes) / CYCLES_PER_NS / threads + launches + 5_000


STRATEGY = Strategy(
    name="im2col",
    accepts=lambda spec, direction: None,
    cost=_cost,
    workspace=lambda spec, direction, threads: _Windows(spec).workspace(direction, threads),
    forward=lambda spec, activation: Plan(_Windows(spec, activation).forward),
    grad_input=lambda spec, activation: Plan(_Windows(spec, activation).grad_input),
    grad_weight=lambda spec: _Windows(spec).grad_weight,
)
