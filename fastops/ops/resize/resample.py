"""The resampler of every interpolation: tables applied axis by axis, without a temporary of the size of an image.

A block of outputs is a group of small images, or a band of rows of a large one. Depth is blended first, rows into rows; then
rows and columns, in the order that leaves fewer rows for the columns. Along columns windows start anywhere, so that vectors do
not fit: blocks of as many rows as a vector has lanes are turned, and every output is a few multiply-adds of whole vectors.
Gathering instead takes 3 times as long. What goes from one pass to the next stays in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.ops.resize.tables import Table
from fastops.simd.blocking import LANES, NAMES
from fastops.simd.rows import fill_row
from fastops.simd.vector import (
    broadcast,
    fma,
    lanes,
    load,
    load_part,
    load_square,
    load_square_part,
    splat,
    store,
    store_part,
    store_square_part,
    store_tile,
    transpose,
)  # fmt: skip
from fastops.simd.workspace import scratch

# Outputs of a block: 64 KB of float32, about 10 us of work.
_BLOCK = 16384
_NS_PER_ELEMENT = 0.5


@function
def _two(x, at, step, a, b):
    return fma(b, load(x, at + step), a * load(x, at))


@function
def _four(x, at, step, a, b, c, d):
    return fma(d, load(x, at + 3 * step), fma(c, load(x, at + 2 * step), _two(x, at, step, a, b)))


@function
def _many(x, at, step, weights, start, taps):
    """The sum of weights[start + t] times the vector x[at + t * step ...]."""
    total = broadcast(weights, start) * load(x, at)
    for t in range(1, taps):
        total = fma(broadcast(weights, start + t), load(x, at + t * step), total)
    return total


@function
def _rows(x, x0, step, spans, weights, p0, p1, y, y0, count):
    """Rows p0 to p1 of ``count`` elements at y[y0 ...], weighted sums of rows x[x0 + index * step ...]."""
    L = lanes(x)
    for p in range(p0, p1):
        start, at, to = spans[p, 1], x0 + spans[p, 0] * step, y0 + (p - p0) * count
        taps = spans[p + 1, 1] - start
        if taps == 0:
            fill_row(x.dtype.type(0), y, to, count)
        elif count < L:
            total = broadcast(weights, start) * load_part(x, at, count)
            for t in range(1, taps):
                total = fma(broadcast(weights, start + t), load_part(x, at + t * step, count), total)
            store_part(y, to, total, count)
        elif taps == 1:
            a = broadcast(weights, start)
            for i in range(0, count, L):
                j = min(i, count - L)
                store(y, to + j, a * load(x, at + j))
        elif taps == 2:
            a, b = broadcast(weights, start), broadcast(weights, start + 1)
            for i in range(0, count, L):
                j = min(i, count - L)
                store(y, to + j, _two(x, at + j, step, a, b))
        elif taps == 4:
            a, b = broadcast(weights, start), broadcast(weights, start + 1)
            c, d = broadcast(weights, start + 2), broadcast(weights, start + 3)
            for i in range(0, count, L):
                j = min(i, count - L)
                store(y, to + j, _four(x, at + j, step, a, b, c, d))
        else:
            for i in range(0, count, L):
                j = min(i, count - L)
                store(y, to + j, _many(x, at + j, step, weights, start, taps))


@function
def _columns(x, x0, W, rows, spans, weights, y, y0, Q, turned, t0):
    """``rows`` rows of W elements become rows of Q elements; turned[t0 ...] has room for W and L vectors, W rounded up."""
    L = lanes(x)
    o0 = t0 + (W + L - 1) // L * L * L
    for r in range(0, rows, L):
        height = min(L, rows - r)
        for w in range(0, W, L):
            at, width = x0 + r * W + w, min(L, W - w)
            if height == L and width == L:
                store_tile(turned, t0 + w * L, L, transpose(load_square(x, at, W)))
            else:
                store_tile(turned, t0 + w * L, L, transpose(load_square_part(x, at, W, height, width)))
        for q in range(0, Q, L):
            width = min(L, Q - q)
            start = spans[q, 1]
            for i in range(width):
                end = spans[q + i + 1, 1]
                at, to = t0 + spans[q + i, 0] * L, o0 + i * L
                taps = end - start
                if taps == 1:
                    store(turned, to, broadcast(weights, start) * load(turned, at))
                elif taps == 2:
                    store(turned, to, _two(turned, at, L, broadcast(weights, start), broadcast(weights, start + 1)))
                elif taps == 4:
                    a, b = broadcast(weights, start), broadcast(weights, start + 1)
                    c, d = broadcast(weights, start + 2), broadcast(weights, start + 3)
                    store(turned, to, _four(turned, at, L, a, b, c, d))
                elif taps == 0:
                    store(turned, to, splat(turned, x.dtype.type(0)))
                else:
                    store(turned, to, _many(turned, at, L, weights, start, taps))
                start = end
            at = y0 + r * Q + q
            if height == L and width == L:
                store_tile(y, at, Q, transpose(load_square(turned, o0, L)))
            else:
                store_square_part(y, at, Q, transpose(load_square(turned, o0, L)), height, width)


@separate
def _resample(block, worker, x, d_spans, d_weights, h_spans, h_weights, w_spans, w_weights, dims, steps, memory, y):
    """x (planes, D, H, W) to y (planes, E, P, Q), both flat. An item is an image (P, Q) of y."""
    D, H, W, E, P, Q = dims
    items, group, band, has_d, has_h, has_w, columns_first, blended0, turned0, size = steps
    bands = -(-P // band)
    item, p0 = block // bands * group, block % bands * band
    count, p1 = min(group, items - item), min(p0 + band, P)
    # the rows that are read: all, or those that the band needs
    h0, h1 = 0, H
    if bands > 1:
        h0, h1 = p0, p1
        if has_h:
            h0 = h_spans[p0, 0]
            h1 = h_spans[p1 - 1, 0] + h_spans[p1, 1] - h_spans[p1 - 1, 1]
            for p in range(p0, p1):  # windows without elements start anywhere
                if h_spans[p + 1, 1] > h_spans[p, 1]:
                    h0, h1 = min(h0, h_spans[p, 0]), max(h1, h_spans[p, 0] + h_spans[p + 1, 1] - h_spans[p, 1])
    rows = h1 - h0
    mine = worker * size
    source, at = x, (item * H + h0) * W
    if has_d:
        source, at = memory, mine + blended0
        for i in range(count):
            plane, e = (item + i) // E, (item + i) % E
            _rows(x, (plane * D * H + h0) * W, H * W, d_spans, d_weights, e, e + 1, memory, at + i * rows * W, rows * W)
    target = (item * P + p0) * Q
    between, width = mine, W
    if columns_first:
        if has_w:
            if not has_h:
                _columns(source, at, W, count * rows, w_spans, w_weights, y, target, Q, memory, mine + turned0)
                return
            _columns(source, at, W, count * rows, w_spans, w_weights, memory, between, Q, memory, mine + turned0)
            source, at, width = memory, between, Q
    out, to = (memory, between) if has_w and not columns_first else (y, target)
    for i in range(count):
        _rows(source, at + (i * rows - h0) * width, width, h_spans, h_weights, p0, p1, out, to + i * (p1 - p0) * width, width)
    if has_w and not columns_first:
        _columns(memory, between, W, count * (p1 - p0), w_spans, w_weights, y, target, Q, memory, mine + turned0)


@launcher
def _resample_all(threads, x, d_spans, d_weights, h_spans, h_weights, w_spans, w_weights, dims, steps, memory, y):
    blocks = -(-steps[0] // steps[1]) * -(-dims[4] // steps[2])
    parallel(_resample, blocks, threads, (x, d_spans, d_weights, h_spans, h_weights, w_spans, w_weights, dims, steps, memory, y))


class Plan(NamedTuple):
    """What there is to do for images of one size."""

    tables: tuple[Array, ...]
    dims: tuple[int, ...]
    steps: tuple[int, ...]


def plan(planes: int, size: tuple[int, int, int], tables: tuple[Table, Table, Table], dtype: str) -> Plan:
    """``size`` is (D, H, W), ``tables`` those of the three axes."""
    (D, H, W), (E, P, Q), L = size, (t.outputs for t in tables), LANES[dtype]
    has_d, has_h, has_w = (not t.is_identity(n) for t, n in zip(tables, size))
    items = planes * E
    # bands of a multiple of the rows that are turned together
    band = P if P * Q <= 2 * _BLOCK else max(1, _BLOCK // (Q * L)) * L
    group = max(1, _BLOCK // (P * Q)) if band == P else 1
    columns_first = not has_h or H <= P
    rows = H
    if band < P and has_h:
        first, counts = tables[1].spans[:-1, 0], np.diff(tables[1].spans[:, 1])
        rows = max(int((first + counts)[p : p + band].max() - first[p : p + band].min()) for p in range(0, P, band))
    elif band < P:
        rows = band
    between = group * (rows * Q if columns_first else band * W) if has_w and has_h else 0
    blended = group * rows * W if has_d else 0
    turned = (-(-W // L) * L + L) * L if has_w else 0
    blended0 = -(-between // L) * L
    turned0 = blended0 + -(-blended // L) * L
    steps = (items, group, band, has_d, has_h, has_w, columns_first, blended0, turned0, turned0 + turned)
    arrays = tuple(a for t in tables for a in t)
    return Plan(arrays, (D, H, W, E, P, Q), tuple(map(int, steps)))


def resample(x: Array, plan: Plan, shape: tuple[int, ...]) -> Array:
    """The images of ``x`` resampled, as an array of the given shape."""
    y = empty(shape, x.dtype)
    if y.size:
        threads = threads_for(max(x.size, y.size) * _NS_PER_ELEMENT)
        memory = scratch(threads * plan.steps[-1], NAMES[x.dtype.char])
        _resample_all(threads, x.ravel(), *plan.tables, plan.dims, plan.steps, memory, y.ravel())
    return y
