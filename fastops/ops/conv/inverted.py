"""The inverted residual in one pass over images with channels last: 1x1 to more channels, depthwise, 1x1 to fewer, plus the input.

What lies between takes six times the memory of what goes in and comes out, and layer by layer goes to L3 and back twice. Here a
thread computes some rows at a time: those of the wide image that are new, in memory that stays in L2, where the rows that the next
ones need again are moved to its start; the depthwise rows from these; and the thin rows from those. Each number is computed as
the three layers would: the results have the same bits.

Where a network begins, the first layer is no 1x1 but a convolution of a picture with channels first: its rows then come from a
slab of the picture's, as those of ``implicit`` do, and are to rounding what the layer would give.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), section 5.1, which
splits channels instead, so that the last layer's sums go through memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastops import _threads
from fastops._jit import call, function, launcher, parallel, separate
from fastops.ops.conv import implicit, pixels, pointwise, strategies
from fastops.ops.conv.layout import side, up
from fastops.ops.conv.pixels import rows_kernel
from fastops.ops.conv.prepare import PreparedConv2d
from fastops.ops.conv.ready import activation_code
from fastops.ops.conv.spec import ConvSpec
from fastops.simd.blocking import KC, LANES, NV, panel_width
from fastops.simd.finish import activation_entry, finish_rows
from fastops.simd.pack import copy_run
from fastops.simd.prepacked import pack_right, packed_size, rows_with_packed
from fastops.simd.product import table_product
from fastops.simd.vector import lanes, load_part, store_part
from fastops.simd.workspace import aligned, scratch

# Bytes of rows between the layers, of 1 MB of L2 (on a Zen 3 512 KB).
_ROWS_BYTES = 384 << 10
# Bytes of weights that may be read anew for each turn.
_WEIGHTS_BYTES = 1 << 20
# Bytes of a picture under one row of the wide image, of 32 KB of L1 or more.
_SLAB_BYTES = 24 << 10
# A first layer alone may be faster by another strategy, by no more than what goes to memory and back between the layers. MobileNetV2's is by
# 1.55 on a Granite Rapids; in one pass the whole network takes 17.6 to 18.3 and 16.0 to 16.7 ms (batch of 8, two threads).
_WORTH = 1.7
# Rows of the wide image that a block computes at least: its first and last are computed by its neighbour too.
_FEWEST_ROWS = 4
# Blocks for each thread, from which on it does not matter that some have one more.
_SHARES = 4


@function
def _add(y, y0, x, x0, count):
    """y[y0 ...] += x[x0 ...]"""
    for i in range(0, count, lanes(y)):
        store_part(y, y0 + i, load_part(y, y0 + i, count - i) + load_part(x, x0 + i, count - i), count - i)


@separate
def _from_pixels(image, first, rows, source, window, grid, slab, table, x, weights, bias, activation, y, y0, wide, s0):
    """Rows of the wide image by a 1x1 convolution of x with channels last."""
    width, ins = source[6], source[7]
    rows_with_packed(rows * width, wide, ins, x, image * source[1] + first * width * ins, ins, weights, 0, bias, 0, y, y0, wide, activation)


@separate
def _from_windows(image, first, rows, source, window, grid, slab, table, x, weights, bias, activation, y, y0, wide, s0):
    """Rows of the wide image by a convolution of x with channels first; each from a slab of the rows of x under it, which stays in L1.

    The table has the place of each column's window in the slab, then of each tap in a window.
    """
    ins, cols = source[7], grid[2]
    panel, depth = NV * lanes(y), table.size - cols
    for r in range(first, first + rows):
        g, to = image * grid[1] + r, y0 + (r - first) * cols * wide
        call(implicit.fill_slab, (x, 0, 0, ins, ins, g, g + 1, 0, cols, source, window, grid, slab[0], slab[1], y, s0, False, False))
        for k in range(0, wide, panel):
            call(table_product, (cols, depth, y, s0, table, 0, table, cols, weights, k * depth, panel, y, to + k, wide, False, False))
        call(finish_rows, (y, to, wide, cols, wide, bias, 0, 0, 1, activation))


@cache
def _kernel(taps: int, stride: int, windows: bool) -> Any:
    rows_body, widen = rows_kernel(taps, stride), _from_windows if windows else _from_pixels
    name = f"_inverted_{taps}_{stride}" + "_windows" * windows

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, strips, strip, turn, source, window, grid, slab, table, target, channels, kernel, top, pitch, run, added,
        x, wider, wide_bias, wide_act, w, weight, bias, act, thinner, thin_bias, thin_act, y, space, each,
    ):  # fmt: skip
        height, width = grid[1], grid[2]
        rows, cols = target
        wide, outs = channels
        reach, stride_h = (kernel[0] - 1) * kernel[4] + 1, kernel[2]
        image, first = block // strips, block % strips * strip
        y_image = image * rows * cols * outs
        row = width * wide
        s0 = worker * each
        e0 = s0 + source[7] * slab[0] * slab[1]
        d0 = e0 + min(height, (turn - 1) * stride_h + reach) * row
        above = below = 0  # the rows of the wide image at hand
        for r in range(first, min(rows, first + strip), turn):
            last = min(rows, first + strip, r + turn)
            h0 = min(height, max(0, r * stride_h - top))
            h1 = max(h0, min(height, (last - 1) * stride_h - top + reach))
            kept = max(0, below - max(h0, above))
            if kept > 0:
                copy_run(space, e0 + (h0 - above) * row, space, e0, kept * row)
            fresh = h0 + kept
            call(widen, (
                image, fresh, h1 - fresh, source, window, grid, slab, table, x, wider, wide_bias, wide_act, space, e0 + kept * row, wide, s0,
            ))  # fmt: skip
            above, below = h0, h1
            parts = max(1, wide // run)
            for part in range(parts):
                c, end = part * run, wide if part == parts - 1 else (part + 1) * run
                call(rows_body, (
                    0, last - r, wide, (c, end), space, e0, h1 - h0, width, space, d0, cols, kernel, top + h0 - r * stride_h, pitch, w, weight, bias, act,
                ))  # fmt: skip
            to, pixels = y_image + r * cols * outs, (last - r) * cols
            rows_with_packed(pixels, outs, wide, space, d0, wide, thinner, 0, thin_bias, 0, y, to, outs, thin_act)
            if added:
                _add(y, to, x, to, pixels * outs)

    @launcher(name=name)
    def launch(
        threads, blocks, strips, strip, turn, source, window, grid, slab, table, target, channels, kernel, top, pitch, run, added,
        x, wider, wide_bias, wide_act, w, weight, bias, act, thinner, thin_bias, thin_act, y, space, each,
    ):  # fmt: skip
        parallel(block_body, blocks, threads, (
            strips, strip, turn, source, window, grid, slab, table, target, channels, kernel, top, pitch, run, added,
            x, wider, wide_bias, wide_act, w, weight, bias, act, thinner, thin_bias, thin_act, y, space, each,
        ))  # fmt: skip

    return launch


class Layer(NamedTuple):
    """One of the three convolutions: its weights, bias and activation, and the spec for these images."""

    weights: PreparedConv2d
    bias: np.ndarray | None
    activation: str | None
    spec: ConvSpec


class _Widening:
    """The first layer as the kernel takes it: a 1x1 with channels last, or with channels first one whose taps are few.

    ``slab`` is the height and width of what a row of the wide image sees, ``table`` that of ``_from_windows``; both are empty for a 1x1.
    """

    def __init__(self, layer: Layer) -> None:
        spec = layer.spec
        self._layer, self.windows = layer, not spec.channels_last
        window = implicit.forward_window(spec)
        self.source, self.window, self.grid = side(spec, spec.size, spec.channels).dims, window.window, window.grid
        self.slab, self.table = (0, 0), np.empty(0, np.intp)
        if self.windows:
            self._depth, self.nanoseconds = prod(spec.weight_shape[1:]), implicit.STRATEGY.cost(spec, "forward", 1)
            self.possible = spec.groups == 1 and self._depth <= KC and spec.out_channels % panel_width(spec.dtype) == 0 and self._lay_out(window)
        else:
            self._plan = strategies.plan(pointwise.STRATEGY, spec, "forward", activation_code("conv2d", layer.activation))
            self.nanoseconds = pointwise.STRATEGY.cost(spec, "forward", 1)
            self.possible = spec.groups == 1 and self._plan.transform is not None

    def _lay_out(self, window: implicit.Window) -> bool:
        """Makes slab and table; whether the slab leaves L1 room for weights, and no other strategy is much faster."""
        spec = self._layer.spec
        self.slab = height, width = window.slab(1, spec.out_size[2], LANES[spec.dtype])
        c, r, s = np.ogrid[: spec.channels, : spec.kernel[1], : spec.kernel[2]]
        taps = (c * height + r * spec.dilation[1]) * width + s * spec.dilation[2]
        self.table = np.concatenate([np.arange(spec.out_size[2], dtype=np.intp) * spec.stride[2], taps.reshape(-1)])
        best = strategies.choose(spec, "forward", 1).cost(spec, "forward", 1)
        return spec.channels * height * width * spec.itemsize <= _SLAB_BYTES and self.nanoseconds < _WORTH * best

    def weights(self) -> np.ndarray:
        """The weights in panels."""
        if not self.windows:
            (packed,) = self._layer.weights.transformed(self._plan)
            return packed
        w = self._layer.weights.weight
        packed = aligned(packed_size(self._depth, len(w), self._layer.spec.dtype), self._layer.spec.dtype)
        pack_right(w.reshape(-1), 1, self._depth, self._depth, len(w), packed)
        return packed


def inverted_residual(widen: Layer, depthwise: Layer, narrow: Layer, *, added: bool) -> Callable[[np.ndarray, np.ndarray], None] | None:
    """``run(x, y)``, which overwrites y, (N, P, Q, K), as the three layers would, plus x where it is ``added``; None where that would gain nothing.

    All have their channels last and one dtype; a first layer with channels first takes x so.
    """
    specs = [layer.spec for layer in (widen, depthwise, narrow)]
    codes = [activation_code("conv2d", layer.activation) for layer in (widen, depthwise, narrow)]
    start = _Widening(widen)
    plan = strategies.plan(pointwise.STRATEGY, specs[2], "forward", codes[2])
    if not start.possible or not pixels.applies(specs[1], "forward") or plan.transform is None or specs[2].groups > 1:
        return None
    middle = pixels.Pixels(specs[1], "forward", codes[1])
    (height, width), (rows, cols) = middle.source, middle.target
    kernel_h, stride_h, down = (middle.kernel[i] for i in (0, 2, 4))
    reach, itemsize = (kernel_h - 1) * down + 1, specs[0].itemsize
    ins, wide, outs = prod(specs[0].weight_shape[1:]), specs[1].channels, specs[2].out_channels
    work_ns = start.nanoseconds + middle.work_ns + pointwise.STRATEGY.cost(specs[2], "forward", 1)
    threads = _threads.threads_for(work_ns)
    strips = next(n for n in itertools.count(1) if middle.images * n % threads == 0 or middle.images * n >= _SHARES * threads)
    strip = -(-rows // strips)
    if strips > 1 and strip * stride_h < _FEWEST_ROWS:
        return None

    def room(turn: int) -> int:
        return (min(height, (turn - 1) * stride_h + reach) * width + turn * cols) * wide

    turn = 1
    while turn < strip and room(turn + 1) * itemsize <= _ROWS_BYTES:
        turn += 1
    if turn < strip and wide * (ins + outs) * itemsize > _WEIGHTS_BYTES:
        return None
    turn = -(-strip // -(-strip // turn))
    each, blocks = up(specs[0].channels * prod(start.slab) + room(turn), 16), middle.images * -(-rows // strip)
    launch, dtype = _kernel(*middle.slides, start.windows), specs[0].dtype
    nothing = np.empty(0, dtype)
    biases = [nothing if layer.bias is None else layer.bias for layer in (widen, depthwise, narrow)]
    acts = [activation_entry(code, dtype) for code in codes]
    wider, (thinner,) = start.weights(), narrow.weights.transformed(plan)
    w = depthwise.weights.transformed(middle.plan())

    def run(x: np.ndarray, y: np.ndarray) -> None:
        launch(
            threads, blocks, -(-rows // strip), strip, turn, start.source, start.window, start.grid, start.slab, start.table, (rows, cols), (wide, outs),
            middle.kernel, middle.top, middle.pitch, middle.work[3], added, x.reshape(-1), wider, biases[0], acts[0], w, middle.weight, biases[1], acts[1],
            thinner, biases[2], acts[2], y.reshape(-1), scratch(threads * each, dtype), each,
        )  # fmt: skip

    return run
