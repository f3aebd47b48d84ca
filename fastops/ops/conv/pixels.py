"""Depthwise convolution of images with channels last, read where they lie.

Lanes run over channels, which follow one another in memory, so nothing needs to move: a register tile is ``_TILE`` neighbouring
pixels of a row, a vector of channels each, and a row of the kernel slides along the image, each vector of which is loaded once
for all the outputs that it is a tap of. What would lie outside the image is left out: rows of the kernel at the top and the
bottom, and single taps for the first and last pixels of a row. Along a row of tiles runs the loop over channels, so that the image and
the result are read and written in long streams, over as many channels as leave the image's rows in L1 for the next row of results.

One core of a Zen 5, 3x3, against copying rows and zeros into a slab first: 384 channels at 14x14 15 us instead of 47, 960 at 7x7 13
instead of 24, 144 at 56x56 68 instead of 170, with stride 2 34 instead of 98 (docs/decisions/009-channels-last.md).
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from fastops import _threads
from fastops._jit import call, formula, function, launcher, parallel, separate
from fastops.ops.conv.layout import up
from fastops.ops.conv.spec import ConvSpec, Plan
from fastops.simd.blocking import CYCLES_PER_NS, LANES
from fastops.simd.finish import activate, activation_entry, confinement
from fastops.simd.vector import (
    lanes,
    load,
    load_square_part,
    slide_lanes,
    splat,
    store_column_part,
    store_tile,
    tile_add,
    tile_confine,
    transpose,
    zero_tile,
)  # fmt: skip
from fastops.simd.workspace import aligned, scratch

_TILE = 7
_FEW = 4
# Kernel widths that slide; others go tap by tap.
_SLIDING = (3, 5, 7)
# Bytes of a pixel that are done at a time, and the work of a block.
_RUN_BYTES = 512
_BLOCK_NS = 20_000


def _tile(pixels: int, taps: int, stride: int) -> Any:
    @formula
    def tile(x, x0, met, steps, w, w0, shift, limits, y, y0, y_right):
        """Results of neighbouring pixels for a vector of channels: the sum over rows of the kernel, and its columns by ``taps``."""
        u0, u1, v0, v1 = met
        x_down, x_right, x_next, w_down, w_right = steps
        t = tile_add(zero_tile(y, pixels, 1), shift)
        for u in range(u0, u1):
            if taps > 1:
                t = slide_lanes(t, x, x0 + u * x_down, x_next, taps, stride, w, w0 + u * w_down, w_right)
            else:
                for v in range(v0, v1):
                    t = slide_lanes(t, x, x0 + u * x_down + v * x_right, x_next, 1, 1, w, w0 + u * w_down + v * w_right, w_right)
        confined, low, high = limits
        if confined:
            t = tile_confine(t, low, high)
        store_tile(y, y0, y_right, t)

    return tile


_at_the_edge = _tile(1, 1, 1)


@function
def _met(at, taps, dilation, extent):
    """The first tap from position ``at`` on that lies within the extent, and the one behind the last."""
    first = min(taps, (dilation - 1 - at) // dilation) if at < 0 else 0
    return first, max(first, min(taps, (extent - at + dilation - 1) // dilation))


@cache
def rows_kernel(taps: int, stride: int) -> Any:
    """The function that computes rows, for so many kernel columns at a time; compiled for those that turn up."""
    whole, few, one = (_tile(pixels, taps, stride) for pixels in (_TILE, _FEW, 1))

    @separate(name=f"_rows_{taps}_{stride}")
    def rows_body(r0, r1, channels, part, x, x_image, height, width, y, y_image, cols, kernel, top, pitch, w, weight, bias, activation):
        """Rows r0 <= r < r1 of an image's result, of the channels from part[0] to part[1]."""
        kernel_h, kernel_w, stride_h, stride_w, down, right, left = kernel
        c0, c1 = part
        w_first, w_down, w_right = weight
        count = lanes(x)
        steps = (down * width * channels, right * channels, pitch * channels, w_down, w_right)
        limits = confinement(activation, y)
        # Columns whose taps all lie in the image.
        inside = max(0, (left + stride_w - 1) // stride_w)
        beyond = min(cols, (width + left - (kernel_w - 1) * right - 1) // stride_w + 1)
        for r in range(r0, r1):
            h = r * stride_h - top
            u0, u1 = _met(h, kernel_h, down, height)
            to = y_image + r * cols * channels
            q = 0
            while q < cols:
                col = q * stride_w - left
                left_over = beyond - q if q >= inside else 0
                some = _TILE if left_over >= _TILE else _FEW if left_over >= _FEW else 1
                v0, v1 = _met(col, kernel_w, right, width)
                met = (u0, u1, v0, v1)
                for c in range(c0, c1, count):
                    first = min(c, channels - count)  # the last vector begins early, over channels that are done
                    shift = splat(y, y.dtype.type(0))
                    if bias.size > 0:
                        shift = load(bias, first)
                    x0, y0, w0 = x_image + (h * width + col) * channels + first, to + q * channels + first, c * kernel_h * kernel_w + w_first
                    if some == _TILE:
                        whole(x, x0, met, steps, w, w0, shift, limits, y, y0, channels)
                    elif some == _FEW:
                        few(x, x0, met, steps, w, w0, shift, limits, y, y0, channels)
                    elif left_over > 0:
                        one(x, x0, met, steps, w, w0, shift, limits, y, y0, channels)
                    else:
                        _at_the_edge(x, x0, met, steps, w, w0, shift, limits, y, y0, channels)
                q += some
            if activation[1] != 0 and not limits[0]:
                for q in range(cols):
                    activate(activation, y, to + q * channels + c0, c1 - c0)

    return rows_body


@cache
def _kernel(taps: int, stride: int) -> Any:
    rows_body = rows_kernel(taps, stride)

    @separate(name=f"_pixels_{taps}_{stride}_block")
    def block_body(block, worker, work, channels, source, target, kernel, top, pitch, x, w, weight, bias, activation, y):
        strips, strip, parts, part = work
        height, width = source
        rows, cols = target
        image, r0, c0 = block // (strips * parts), block % strips * strip, block // strips % parts * part
        c1 = c0 + part if block // strips % parts < parts - 1 else channels
        call(rows_body, (
            r0, min(rows, r0 + strip), channels, (c0, c1), x, image * height * width * channels, height, width,
            y, image * rows * cols * channels, cols, kernel, top, pitch, w, weight, bias, activation,
        ))  # fmt: skip

    @launcher(name=f"_pixels_{taps}_{stride}")
    def launch(threads, blocks, work, channels, source, target, kernel, top, pitch, x, w, weight, bias, activation, y):
        parallel(block_body, blocks, threads, (work, channels, source, target, kernel, top, pitch, x, w, weight, bias, activation, y))

    return launch


@launcher
def _turn(threads, w, channels, taps, turned):
    """Weights (channels, taps) as a vector of channels for each tap; the last vector begins where it ends with the last channel."""
    count = lanes(w)
    for c in range(0, channels, count):
        at, to = min(c, channels - count) * taps, c * taps
        for i in range(0, taps, count):
            store_column_part(turned, to + i * count, count, transpose(load_square_part(w, at + i, taps, count, taps - i)), taps - i, count, 0)


class Pixels:
    """The forward pass, or the gradient with respect to the input for a stride of 1."""

    def __init__(self, spec: ConvSpec, direction: str, activation: int) -> None:
        turned = direction == "grad_input"
        self.spec = spec
        self.activation = activation_entry(activation, spec.dtype)
        self.images = spec.batch * spec.size[0]
        self.source, self.target = (spec.out_size[1:], spec.size[1:]) if turned else (spec.size[1:], spec.out_size[1:])
        kernel, right = spec.kernel[1:], spec.dilation[2]
        before = [pad[0] for pad in spec.padding[1:]]
        if turned:
            before = [(k - 1) * d - b for k, d, b in zip(kernel, spec.dilation[1:], before)]
        self.kernel, self.top = (*kernel, *spec.stride[1:], *spec.dilation[1:], before[1]), before[0]
        lanes_, taps = LANES[spec.dtype], prod(kernel)
        self.taps = taps
        sign = -1 if turned else 1  # the kernel turned by half a circle
        self.weight = ((taps - 1) * lanes_ if turned else 0, sign * kernel[1] * lanes_, sign * lanes_)
        slides = kernel[1] in _SLIDING and right == 1 and spec.stride[2] <= 2
        self.pitch = 1 if slides else spec.stride[2]
        self.slides = (kernel[1], spec.stride[2]) if slides else (1, 1)
        self.launch = _kernel(*self.slides)
        self.size = up(spec.channels, lanes_) * taps
        part = max(lanes_, _RUN_BYTES // spec.itemsize)
        parts = max(1, spec.channels // part)
        self.work_ns = nanoseconds(spec, direction)
        strips = max(1, min(self.target[0], int(self.work_ns / _BLOCK_NS) // max(1, self.images * parts)))
        strip = -(-self.target[0] // strips)
        strips = -(-self.target[0] // strip)
        self.work = (strips, strip, parts, part)
        self.blocks = self.images * strips * parts

    def plan(self) -> Plan:
        return Plan(self.run, self.turn, ("pixels", self.spec.dtype))

    def turn(self, w: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
        """The weights as the kernel reads them."""
        room = aligned(self.size, self.spec.dtype) if room is None else room
        _turn(1, w.reshape(-1), self.spec.channels, self.taps, room)
        return room

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: np.ndarray | None = None) -> None:
        if prepared is None:
            prepared = self.turn(w, scratch(self.size, self.spec.dtype))
        self.launch(
            min(_threads.threads_for(self.work_ns), self.blocks), self.blocks, self.work, self.spec.channels, self.source, self.target, self.kernel,
            self.top, self.pitch, x.reshape(-1), prepared, self.weight, bias, self.activation, y.reshape(-1),
        )  # fmt: skip


def applies(spec: ConvSpec, direction: str) -> bool:
    """Whether images are read where they lie."""
    depth = (spec.kernel[0], spec.stride[0], spec.padding[0])
    return (
        spec.channels_last and spec.groups == spec.channels == spec.out_channels >= LANES[spec.dtype] and depth == (1, 1, (0, 0))
        and (direction == "forward" or (direction == "grad_input" and spec.stride[1:] == (1, 1)))
    )  # fmt: skip


def nanoseconds(spec: ConvSpec, direction: str) -> float:
    """Time of one thread: of a vector of results 4 cycles and a load or a multiply-add for each tap, of one of the image 1.5."""
    results, image = spec.out_size, spec.size
    if direction == "grad_input":
        results, image = image, results
    cycles = prod(results) * (4 + prod(spec.kernel)) + 1.5 * prod(image)
    return float(spec.batch * up(spec.channels, LANES[spec.dtype]) / LANES[spec.dtype] * cycles / CYCLES_PER_NS)


def workspace(spec: ConvSpec) -> int:
    return up(spec.channels, LANES[spec.dtype]) * prod(spec.kernel) * spec.itemsize
