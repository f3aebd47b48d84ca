"""1x1 convolution: nothing but a matrix product, of the weights with the image as it lies.

    y[n] = W x[n]          NCHW: (K, C) times (C, pixels), image by image
    y = x W^T              NHWC: (all pixels, C) times (C, K), one product

and the gradients are the other two products of the three matrices: dx = W^T dy, dw = dy x^T summed over images.

Images of few pixels, as 7x7, fill register tiles badly (49 columns take the time of 64) and have every image run through all
the weights. Several of them are laid side by side, (C, images, pixels), and become one product.
"""

from __future__ import annotations

from math import prod

import numpy as np

from fastops import _threads
from fastops._jit import launcher, parallel, separate
from fastops.ops.conv.layout import up
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, LANES, panel_width
from fastops.simd.gemm import gemm_strided, gemm_workspace
from fastops.simd.pack import copy_run
from fastops.simd.workspace import scratch

# Images are joined when they have fewer pixels than this, or leave more than a tenth of their last columns idle.
_FEW_PIXELS = 128
# So much of x and of y lies side by side at a time.
_JOINED_BYTES = 4 << 20
_NS_PER_BYTE = 0.05


@separate
def _swap_rows(block, worker, outer, inner, run, source, s_outer, s_inner, out, o_outer, o_inner):
    for i in range(inner):
        copy_run(source, block * s_outer + i * s_inner, out, block * o_outer + i * o_inner, run)


@launcher
def _swap(threads, outer, inner, run, source, s_outer, s_inner, out, o_outer, o_inner):
    """Runs of pixels to other places: out[o, i] = source[o, i], each with strides of its own."""
    parallel(_swap_rows, outer, threads, (outer, inner, run, source, s_outer, s_inner, out, o_outer, o_inner))


class _Products:
    """The shapes and strides that the three products share; one group at a time."""

    def __init__(self, spec: ConvSpec) -> None:
        self.groups, self.batch = spec.groups, spec.batch
        self.c, self.k = spec.channels // spec.groups, spec.out_channels // spec.groups
        self.pixels = prod(spec.size)
        self.channels_last = spec.channels_last
        if spec.channels_last:
            self.batch, self.pixels = 1, spec.batch * self.pixels
        self.x_all, self.y_all = spec.channels, spec.out_channels
        width = panel_width(spec.dtype)
        short = self.pixels < _FEW_PIXELS or up(self.pixels, width) > 1.1 * self.pixels
        fit = _JOINED_BYTES // max(1, max(self.c, self.k) * self.pixels * spec.itemsize)
        self.joined = min(self.batch, fit) if short and not spec.channels_last else 1

    def start(self, array: np.ndarray, group: int, channels: int) -> np.ndarray:
        """The array from a group's first channel on."""
        return array[group * channels * (1 if self.channels_last else self.pixels) :] if group else array

    def multiply(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, activation: int, turned: bool) -> None:
        """y = W x, or with ``turned`` W^T x where x is dy and y is dx."""
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        ins, outs = (self.k, self.c) if turned else (self.c, self.k)
        ins_all, outs_all = (self.y_all, self.x_all) if turned else (self.x_all, self.y_all)
        for group in range(self.groups):
            a, b, c = w[group * self.c * self.k :], self.start(x, group, ins), self.start(y, group, outs)
            shift = bias[group * outs : (group + 1) * outs] if bias.size else None
            row, col = (1, self.c) if turned else (self.c, 1)
            if self.channels_last:
                gemm_strided(1, self.pixels, outs, ins, b, (0, ins_all, 1), a, (0, col, row), c, (0, outs_all), bias=shift, activation=activation)
            elif self.joined > 1:
                self._multiply_joined(a, (row, col), b, ins, ins_all, c, outs, outs_all, shift, activation)
            else:
                strides = (ins_all * self.pixels, self.pixels, 1), (outs_all * self.pixels, self.pixels)
                gemm_strided(self.batch, outs, self.pixels, ins, a, (0, row, col), b, strides[0], c, strides[1], bias=shift, bias_axis=0, activation=activation)

    def _join(self, use: str, array: np.ndarray, n: int, images: int, channels: int, all_channels: int) -> np.ndarray:
        """(channels, images, pixels) of images n, n + 1, ..., flat, in scratch memory for that use."""
        p = self.pixels
        joined = scratch(channels * images * p, array.dtype.name, use)
        threads = _threads.threads_for(channels * images * p * array.itemsize * _NS_PER_BYTE)
        _swap(threads, channels, images, p, array[n * all_channels * p :], p, all_channels * p, joined, images * p, p)
        return joined

    def _multiply_joined(
        self, w: np.ndarray, w_strides: tuple[int, int], x: np.ndarray, ins: int, ins_all: int, y: np.ndarray, outs: int, outs_all: int,
        bias: np.ndarray | None, activation: int,
    ) -> None:  # fmt: skip
        p = self.pixels
        for n in range(0, self.batch, self.joined):
            images = min(self.joined, self.batch - n)
            cols = images * p
            b = self._join("joined", x, n, images, ins, ins_all)
            c = scratch(outs * cols, y.dtype.name, "product")
            gemm_strided(1, outs, cols, ins, w, (0, *w_strides), b, (0, cols, 1), c, (0, cols), bias=bias, bias_axis=0, activation=activation)
            threads = _threads.threads_for(outs * cols * y.itemsize * _NS_PER_BYTE)
            _swap(threads, outs, images, p, c, cols, p, y[n * outs_all * p :], p, outs_all * p)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
        for group in range(self.groups):
            a, b = self.start(dy, group, self.k), self.start(x, group, self.c)
            c = dw[group * self.c * self.k :]
            if self.channels_last:
                gemm_strided(1, self.k, self.c, self.pixels, a, (0, 1, self.y_all), b, (0, self.x_all, 1), c, (0, self.c))
                continue
            if self.joined > 1:
                for n in range(0, self.batch, self.joined):
                    images = min(self.joined, self.batch - n)
                    cols = images * self.pixels
                    side_a = self._join("dy", a, n, images, self.k, self.y_all)
                    side_b = self._join("joined", b, n, images, self.c, self.x_all)
                    gemm_strided(1, self.k, self.c, cols, side_a, (0, cols, 1), side_b, (0, 1, cols), c, (0, self.c), accumulate=n > 0)
                continue
            for n in range(self.batch):
                image_a, image_b = a[n * self.y_all * self.pixels :], b[n * self.x_all * self.pixels :]
                gemm_strided(1, self.k, self.c, self.pixels, image_a, (0, self.pixels, 1), image_b, (0, 1, self.pixels), c, (0, self.c), accumulate=n > 0)


def _plan(spec: ConvSpec, activation: int, turned: bool) -> Plan:
    products = _Products(spec)

    def run(x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: None = None) -> None:
        products.multiply(x, w, bias, y, activation, turned)

    return Plan(run)


def _accepts(spec: ConvSpec, direction: str) -> str | None:
    if not spec.pointwise:
        return "the kernel must be 1x1 without padding"
    if spec.stride != (1, 1, 1):
        return "the stride must be 1"
    return None


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    p = _Products(spec)
    lanes_, width = LANES[spec.dtype], panel_width(spec.dtype)
    cols = max(1, p.joined * p.pixels)
    product = 1.3 * spec.flops / 2 / lanes_ / FMAS_PER_CYCLE
    if p.joined > 1:
        product += spec.batch * p.pixels * (spec.channels + spec.out_channels) * spec.itemsize * 0.1
    if direction == "grad_weight" and not spec.channels_last:
        # Pixels become rows on the way into panels, by vectors where the channels fill them, else one by one.
        c = p.c
        product += spec.batch * spec.groups * prod(spec.size) * up(c, width) * (1.7 if c % lanes_ else 0.2)
    elif not spec.channels_last:
        product *= up(cols, width) / cols
    images = 1 if spec.channels_last else -(-spec.batch // p.joined)
    return product / CYCLES_PER_NS / threads + (5_000 + 1_500 * images) * spec.groups


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    p = _Products(spec)
    rows, cols, depth = (p.k, p.pixels, p.c) if direction == "forward" else (p.c, p.pixels, p.k) if direction == "grad_input" else (p.k, p.c, p.pixels)
    if spec.channels_last and direction != "grad_weight":
        rows, cols = cols, rows
    if p.joined > 1:
        joined = p.joined * p.pixels
        cols, depth = (cols, joined) if direction == "grad_weight" else (joined, depth)
        return gemm_workspace(rows, cols, depth, spec.dtype, threads) + (p.c + p.k) * joined * spec.itemsize
    return gemm_workspace(rows, cols, depth, spec.dtype, threads, 1 if direction == "grad_weight" else p.batch)


STRATEGY = Strategy(
    name="pointwise",
    accepts=_accepts,
    cost=_cost,
    workspace=_workspace,
    forward=lambda spec, activation: _plan(spec, activation, False),
    grad_input=lambda spec, activation: _plan(spec, activation, True),
    grad_weight=lambda spec: _Products(spec).grad_weight,
)
