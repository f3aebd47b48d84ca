"""The inverted residual in one pass over images with channels last: 1x1 to more channels, depthwise, 1x1 to fewer, plus the input.

What lies between takes six times the memory of what goes in and comes out, and layer by layer goes to L3 and back twice. Here a
thread computes some rows at a time: those of the wide image that are new, in memory that stays in L2, where the rows that the next
ones need again are moved to its start; the depthwise rows from these; and the thin rows from those. Each number is computed as
the three layers would: the results have the same bits.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), section 5.1, which
splits channels instead, so that the last layer's sums go through memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastops import _threads
from fastops._jit import call, function, launcher, parallel, separate
from fastops.ops.conv import pixels, pointwise, strategies
from fastops.ops.conv.layout import up
from fastops.ops.conv.pixels import rows_kernel
from fastops.ops.conv.prepare import PreparedConv2d
from fastops.ops.conv.ready import activation_code
from fastops.ops.conv.spec import ConvSpec
from fastops.simd.finish import activation_entry
from fastops.simd.pack import copy_run
from fastops.simd.prepacked import packed_rows
from fastops.simd.vector import lanes, load_part, store_part
from fastops.simd.workspace import scratch

# Bytes of rows between the layers, of 1 MB of L2 (on a Zen 3 512 KB).
_ROWS_BYTES = 384 << 10
# Bytes of weights that may be read anew for each turn.
_WEIGHTS_BYTES = 1 << 20
# Rows of the wide image that a block computes at least: its first and last are computed by its neighbour too.
_FEWEST_ROWS = 4
# Blocks for each thread, from which on it does not matter that some have one more.
_SHARES = 4


@function
def _add(y, y0, x, x0, count):
    """y[y0 ...] += x[x0 ...]"""
    for i in range(0, count, lanes(y)):
        store_part(y, y0 + i, load_part(y, y0 + i, count - i) + load_part(x, x0 + i, count - i), count - i)


@cache
def _kernel(taps: int, stride: int) -> Any:
    rows_body = rows_kernel(taps, stride)
    name = f"_inverted_{taps}_{stride}"

    @separate(name=f"{name}_block")
    def block_body(
        block, worker, strips, strip, turn, source, target, channels, kernel, top, pitch, run, added, x, wider, wide_bias, wide_act,
        w, weight, bias, act, thinner, thin_bias, thin_act, y, space, each,
    ):  # fmt: skip
        height, width = source
        rows, cols = target
        ins, wide, outs = channels
        reach, stride_h = (kernel[0] - 1) * kernel[4] + 1, kernel[2]
        image, first = block // strips, block % strips * strip
        x_image, y_image = image * height * width * ins, image * rows * cols * outs
        row = width * wide
        e0 = worker * each
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
            call(packed_rows, (
                (h1 - fresh) * width, wide, ins, x, x_image + fresh * width * ins, ins, wider, 0, wide_bias, 0, space, e0 + kept * row, wide, wide_act,
            ))  # fmt: skip
            above, below = h0, h1
            parts = max(1, wide // run)
            for part in range(parts):
                c, end = part * run, wide if part == parts - 1 else (part + 1) * run
                call(rows_body, (
                    0, last - r, wide, (c, end), space, e0, h1 - h0, width, space, d0, cols, kernel, top + h0 - r * stride_h, pitch, w, weight, bias, act,
                ))  # fmt: skip
            to, pixels = y_image + r * cols * outs, (last - r) * cols
            call(packed_rows, (pixels, outs, wide, space, d0, wide, thinner, 0, thin_bias, 0, y, to, outs, thin_act))
            if added:
                _add(y, to, x, x_image + r * cols * outs, pixels * outs)

    @launcher(name=name)
    def launch(
        threads, blocks, strips, strip, turn, source, target, channels, kernel, top, pitch, run, added, x, wider, wide_bias, wide_act,
        w, weight, bias, act, thinner, thin_bias, thin_act, y, space, each,
    ):  # fmt: skip
        parallel(block_body, blocks, threads, (
            strips, strip, turn, source, target, channels, kernel, top, pitch, run, added, x, wider, wide_bias, wide_act,
            w, weight, bias, act, thinner, thin_bias, thin_act, y, space, each,
        ))  # fmt: skip

    return launch


class Layer(NamedTuple):
    """One of the three convolutions: its weights, bias and activation, and the spec for these images."""

    weights: PreparedConv2d
    bias: np.ndarray | None
    activation: str | None
    spec: ConvSpec


def inverted_residual(widen: Layer, depthwise: Layer, narrow: Layer, *, added: bool) -> Callable[[np.ndarray, np.ndarray], None] | None:
    """``run(x, y)``, which overwrites y, (N, P, Q, K), as the three layers would, plus x where it is ``added``; None where that would gain nothing.

    All have their channels last and one dtype.
    """
    specs = [layer.spec for layer in (widen, depthwise, narrow)]
    codes = [activation_code("conv2d", layer.activation) for layer in (widen, depthwise, narrow)]
    plans = [strategies.plan(pointwise.STRATEGY, specs[i], "forward", codes[i]) for i in (0, 2)]
    if not pixels.applies(specs[1], "forward") or any(plan.transform is None for plan in plans) or any(spec.groups > 1 for spec in specs[::2]):
        return None
    middle = pixels.Pixels(specs[1], "forward", codes[1])
    (height, width), (rows, cols) = middle.source, middle.target
    kernel_h, stride_h, down = (middle.kernel[i] for i in (0, 2, 4))
    reach, itemsize = (kernel_h - 1) * down + 1, specs[0].itemsize
    ins, wide, outs = specs[0].channels, specs[1].channels, specs[2].out_channels
    work_ns = middle.work_ns + sum(pointwise.STRATEGY.cost(spec, "forward", 1) for spec in specs[::2])
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
    each, blocks = up(room(turn), 16), middle.images * -(-rows // strip)
    launch, dtype = _kernel(*middle.slides), specs[0].dtype
    nothing = np.empty(0, dtype)
    biases = [nothing if layer.bias is None else layer.bias for layer in (widen, depthwise, narrow)]
    acts = [activation_entry(code, dtype) for code in codes]
    (wider,), (thinner,) = (layer.weights.transformed(plan) for layer, plan in zip((widen, narrow), plans))
    w = depthwise.weights.transformed(middle.plan())

    def run(x: np.ndarray, y: np.ndarray) -> None:
        launch(
            threads, blocks, -(-rows // strip), strip, turn, (height, width), (rows, cols), (ins, wide, outs), middle.kernel, middle.top, middle.pitch,
            middle.work[3], added, x.reshape(-1), wider, biases[0], acts[0], w, middle.weight, biases[1], acts[1], thinner, biases[2], acts[2],
            y.reshape(-1), scratch(threads * each, dtype), each,
        )  # fmt: skip

    return run
