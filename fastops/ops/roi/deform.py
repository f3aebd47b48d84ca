"""Deformable convolution: every tap of a window reads the image at a place of its own.

    y[n, o, p, q] = bias[o] + sum over c, r, s of w[o, c, r, s] mask[n, g, r, s, p, q] x[n, c, h, w]
    h = p stride + r dilation - padding + offset[n, g, (r, s), 0, p, q],   w likewise with offset[..., 1, ...]

with x[h, w] bilinear and zero outside, and the channels c in groups g that share offsets. The samples of a chunk of positions are
written out as columns, and the sum over c, r, s is a matrix product. Backwards, the gradient of the columns is a product too;
what it means for x, offset and mask follows from the four corners and their weights. A chunk's columns fit the second-level
cache, and nothing is kept for the backward pass: the columns are sampled again.

Source: Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable Convolutional Networks" (2017), equations 2 to 4; with the mask, Zhu, Hu,
Lin, Dai, "Deformable ConvNets v2" (2019), equation 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check, _shapes
from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty, empty_like
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.simd.gemm import gemm_strided

Integers = int | tuple[int, int]

# Columns of a chunk: 1 MB in float32.
_CHUNK = 1 << 18
_NS_PER_SAMPLE = 3.0


@separate
def _locate_tap(block, worker, offset, mask, first, count, geometry, edge, corners, parts, factors):
    """For one tap of one group, and ``count`` positions from ``first`` on: the four corners of the sample (places in the plane, -1
    outside), how far it lies from the first of them, and its mask. offset (G, R S, 2, P Q), mask (G, R S, P Q) or empty.

    A sample at -1 exactly sees nothing of the image, but would if it moved: with ``edge`` it has corners.
    """
    H, W, S, Q, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w = geometry
    taps = offset.shape[1]
    g, tap = block // taps, block % taps
    real = offset.dtype.type
    for i in range(count):
        at = first + i
        h = real(at // Q * stride_h - padding_h + tap // S * dilation_h) + offset[g, tap, 0, at]
        w = real(at % Q * stride_w - padding_w + tap % S * dilation_w) + offset[g, tap, 1, at]
        # NaN fails the comparisons
        near = ((h > -1 and w > -1) or (edge and h >= -1 and w >= -1)) and h < H and w < W
        top, left = (int(np.floor(h)), int(np.floor(w))) if near else (-2, -2)
        for k in range(4):
            y, x = top + k // 2, left + k % 2
            corners[block, k, i] = y * W + x if y >= 0 and y < H and x >= 0 and x < W else -1
        parts[block, 0, i] = h - real(top) if near else real(0)
        parts[block, 1, i] = w - real(left) if near else real(0)
        factors[block, i] = mask[g, tap, at] if mask.size else real(1)


@function
def _corner(plane, at):
    value = plane[np.uintp(max(at, 0))]
    return value if at >= 0 else plane.dtype.type(0)


@separate
def _sample_tap(block, worker, x, count, groups, corners, parts, factors, columns):
    """One row of the columns (C R S, count): a tap of a channel of x (C, H W)."""
    C = x.shape[0]
    taps = columns.shape[0] // C
    c, tap = block // taps, block % taps
    at = c // (C // groups) * taps + tap
    plane, row = x[c], columns[block]
    one = x.dtype.type(1)
    for i in range(count):
        v, u = parts[at, 0, i], parts[at, 1, i]
        top = (one - u) * _corner(plane, corners[at, 0, i]) + u * _corner(plane, corners[at, 1, i])
        bottom = (one - u) * _corner(plane, corners[at, 2, i]) + u * _corner(plane, corners[at, 3, i])
        row[i] = factors[at, i] * ((one - v) * top + v * bottom)


@separate
def _add_to_plane(block, worker, columns, count, groups, corners, parts, factors, dx):
    """dx[c] += what the gradient of its columns gives, for one channel."""
    C = dx.shape[0]
    taps = columns.shape[0] // C
    plane = dx[block]
    one = dx.dtype.type(1)
    for tap in range(taps):
        at, row = block // (C // groups) * taps + tap, columns[block * taps + tap]
        for i in range(count):
            v, u, value = parts[at, 0, i], parts[at, 1, i], row[i] * factors[at, i]
            for k in range(4):
                place = corners[at, k, i]
                if place >= 0:
                    plane[np.uintp(place)] += value * (v if k // 2 else one - v) * (u if k % 2 else one - u)


@separate
def _differentiate_tap(block, worker, x, columns, first, count, groups, corners, parts, factors, doffset, dmask):
    """The gradients of the offset and the mask of one tap of one group, summed over its channels in order."""
    C = x.shape[0]
    taps = columns.shape[0] // C
    g, tap = block // taps, block % taps
    each = C // groups
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(count):
        v, u = parts[block, 0, i], parts[block, 1, i]
        dv, du, dm = zero, zero, zero
        for c in range(g * each, (g + 1) * each):
            plane, value = x[c], columns[c * taps + tap, i]
            a, b = _corner(plane, corners[block, 0, i]), _corner(plane, corners[block, 1, i])
            d, e = _corner(plane, corners[block, 2, i]), _corner(plane, corners[block, 3, i])
            dv += value * ((one - u) * (d - a) + u * (e - b))
            du += value * ((one - v) * (b - a) + v * (e - d))
            dm += value * ((one - v) * ((one - u) * a + u * b) + v * ((one - u) * d + u * e))
        doffset[g, tap, 0, first + i] = dv * factors[block, i]
        doffset[g, tap, 1, first + i] = du * factors[block, i]
        if dmask.size:
            dmask[g, tap, first + i] = dm


@launcher
def _locate(threads, offset, mask, first, count, geometry, edge, corners, parts, factors):
    blocks = offset.shape[0] * offset.shape[1]
    parallel(_locate_tap, blocks, threads, (offset, mask, first, count, geometry, edge, corners, parts, factors))


@launcher
def _sample(threads, x, count, groups, corners, parts, factors, columns):
    parallel(_sample_tap, columns.shape[0], threads, (x, count, groups, corners, parts, factors, columns))


@launcher
def _add_back(threads, columns, count, groups, corners, parts, factors, dx):
    parallel(_add_to_plane, dx.shape[0], threads, (columns, count, groups, corners, parts, factors, dx))


@launcher
def _differentiate(threads, x, columns, first, count, groups, corners, parts, factors, doffset, dmask):
    blocks = doffset.shape[0] * doffset.shape[1]
    parallel(_differentiate_tap, blocks, threads, (x, columns, first, count, groups, corners, parts, factors, doffset, dmask))


@dataclass(frozen=True)
class _Problem:
    """Sizes: N, C, H W, groups of offsets, R S, P, Q, O, groups of weights."""

    batch: int
    channels: int
    plane: int
    offset_groups: int
    taps: int
    rows: int
    windows: int
    outputs: int
    weight_groups: int
    geometry: tuple[int, ...]

    @property
    def positions(self) -> int:
        return self.rows * self.windows

    @property
    def depth(self) -> int:
        return self.channels * self.taps

    @property
    def chunk(self) -> int:
        return min(self.positions, max(64, _CHUNK // max(1, self.depth)))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.batch, self.outputs, self.rows, self.windows


def _problem(
    op: str, x: tuple[int, ...], offset: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None, stride: Any,
    padding: Any, dilation: Any, mask: tuple[int, ...] | None,
) -> _Problem:  # fmt: skip
    if len(x) != 4 or 0 in x[1:]:
        raise ValueError(f"{op}: input must have axes (N, C, H, W), of at least 1 but for N, got shape {x}")
    if len(weight) != 4 or 0 in weight:
        raise ValueError(f"{op}: weight must have axes (O, C / groups, R, S), of at least 1, got shape {weight}")
    strides = _check.integers(op, "stride", stride, 2, minimum=1)
    pads = _check.integers(op, "padding", padding, 2, minimum=0)
    dilations = _check.integers(op, "dilation", dilation, 2, minimum=1)
    outputs, depth, *kernel = weight
    if x[1] % depth or outputs % (x[1] // depth):
        raise ValueError(f"{op}: weight must have channels that divide those of input, {x[1]}, into groups that divide its {outputs} outputs, got {depth}")
    rows, windows = (_shapes.window_output(n, k, s, d, p, p) for n, k, s, d, p in zip(x[2:], kernel, strides, dilations, pads))
    if rows < 1 or windows < 1:
        raise ValueError(f"{op}: weight must fit input with padding, {tuple(n + 2 * p for n, p in zip(x[2:], pads))}, got {tuple(kernel)}")
    taps = kernel[0] * kernel[1]
    if len(offset) != 4 or offset[0] != x[0] or offset[2:] != (rows, windows) or offset[1] % (2 * taps) or not offset[1]:
        raise ValueError(f"{op}: offset must have shape ({x[0]}, groups * {2 * taps}, {rows}, {windows}), got {offset}")
    groups = offset[1] // (2 * taps)
    if x[1] % groups:
        raise ValueError(f"{op}: offset must have groups that divide the channels of input, {x[1]}, got {groups}")
    if mask is not None and mask != (x[0], groups * taps, rows, windows):
        raise ValueError(f"{op}: mask must have shape {(x[0], groups * taps, rows, windows)}, got {mask}")
    if bias is not None and bias != (outputs,):
        raise ValueError(f"{op}: bias must have shape ({outputs},), got {bias}")
    _check.fits(op, "padding", "the columns", (depth, taps, rows, windows), 8)
    geometry = (*x[2:], kernel[1], windows, *strides, *pads, *dilations)
    return _Problem(x[0], x[1], x[2] * x[3], groups, taps, rows, windows, outputs, x[1] // depth, geometry)


class _Samples:
    """Memory for the samples of a chunk of positions, and what is done with them."""

    def __init__(self, problem: _Problem, x: Array, offset: Array, mask: Array | None) -> None:
        self.problem = p = problem
        rows, chunk = p.offset_groups * p.taps, p.chunk
        self.x = x.reshape(p.batch, p.channels, p.plane)
        self.offset = offset.reshape(p.batch, p.offset_groups, p.taps, 2, p.positions)
        self.mask = None if mask is None else mask.reshape(p.batch, p.offset_groups, p.taps, p.positions)
        self.no_mask = empty((0, 0, 0), x.dtype)
        self.located = empty((rows, 4, chunk), np.int64), empty((rows, 2, chunk), x.dtype), empty((rows, chunk), x.dtype)
        self.columns = empty((p.depth, chunk), x.dtype)

    def locate(self, n: int, first: int, count: int, edge: bool = False) -> None:
        p = self.problem
        mask = self.no_mask if self.mask is None else self.mask[n]
        threads = threads_for(p.offset_groups * p.taps * count * _NS_PER_SAMPLE)
        _locate(threads, self.offset[n], mask, first, count, p.geometry, edge, *self.located)

    def sample(self, n: int, count: int) -> None:
        threads = threads_for(self.problem.depth * count * _NS_PER_SAMPLE)
        _sample(threads, self.x[n], count, self.problem.offset_groups, *self.located, self.columns)

    def chunks(self) -> Any:
        p = self.problem
        for n in range(p.batch):
            for first in range(0, p.positions, p.chunk):
                yield n, first, min(p.chunk, p.positions - first)


@operation
def deform_conv2d(
    input: ArrayLike, offset: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, stride: Integers = (1, 1),
    padding: Integers = (0, 0), dilation: Integers = (1, 1), mask: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """Convolution at sampled places: ``torchvision.ops.deform_conv2d``.

    Args:
        input: (N, C, H, W), float16, float32 or float64.
        offset: (N, 2 G R S, P, Q): for each of G groups of channels and each tap, the shift along the height, then along the width,
            in elements.
        weight: (O, C / groups, R, S); the number of groups follows from it.
        bias: (O,).
        stride, padding, dilation: an integer or two.
        mask: (N, G R S, P, Q), what each sample is multiplied by.

    Returns:
        (N, O, P, Q), of the dtype of the input.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> x, weight = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 1, 1))
    >>> deform_conv2d(x, np.full((1, 2, 3, 3), 0.5), weight)
    array([[[[2.  , 3.  , 1.75],
             [5.  , 6.  , 3.25],
             [3.25, 3.75, 2.  ]]]])
    """
    op = "deform_conv2d"
    arrays, dtype = _check.as_arrays(op, input=input, offset=offset, weight=weight)
    x, shifts, w = arrays
    more = [_optional(op, name, value, dtype) for name, value in (("bias", bias), ("mask", mask))]
    b, m = more
    p = _problem(op, x.shape, shifts.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, None if m is None else m.shape)
    y = empty(p.shape, x.dtype)
    flat, w_flat, samples = y.ravel(), w.ravel(), _Samples(p, x, shifts, m)
    depth, rows = p.depth // p.weight_groups, p.outputs // p.weight_groups
    for n, first, count in samples.chunks():
        samples.locate(n, first, count)
        samples.sample(n, count)
        for g in range(p.weight_groups):
            start = (n * p.outputs + g * rows) * p.positions + first
            gemm_strided(
                1, rows, count, depth, w_flat[g * rows * depth :], (0, depth, 1), samples.columns[g * depth :].ravel(),
                (0, p.chunk, 1), flat[start:], (0, p.positions), bias=None if b is None else b[g * rows : (g + 1) * rows], bias_axis=0,
            )  # fmt: skip
    return y.astype(dtype, copy=False)


def _optional(op: str, name: str, value: Any, dtype: np.dtype[Any]) -> Array | None:
    if value is None:
        return None
    (array,), found = _check.as_arrays(op, **{name: value})
    if found != dtype:
        raise TypeError(f"{op}: {name} must have the dtype of input, {dtype}, got {found}")
    result: Array = array
    return result


def deform_conv2d_backward(
    grad_output: ArrayLike, input: ArrayLike, offset: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None,
    stride: Integers = (1, 1), padding: Integers = (0, 0), dilation: Integers = (1, 1), mask: ArrayLike | None = None, *,
    output_mask: tuple[bool, bool, bool, bool, bool] = (True, True, True, True, True),
) -> tuple[Array | None, Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`deform_conv2d` with respect to input, offset, weight, bias and mask; None where masked out or not given.

    >>> import numpy as np
    >>> x, weight = np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 1, 1))
    >>> gradients = deform_conv2d_backward(np.ones((1, 1, 3, 3)), x, np.full((1, 2, 3, 3), 0.5), weight)
    >>> gradients[2]
    array([[[[30.]]]])
    """
    op = "deform_conv2d_backward"
    if not isinstance(output_mask, (tuple, list)) or len(output_mask) != 5 or not all(isinstance(v, (bool, np.bool_)) for v in output_mask):
        raise ValueError(f"{op}: output_mask must be 5 booleans, one for each gradient, got {output_mask!r}")
    arrays, dtype = _check.as_arrays(op, grad_output=grad_output, input=input, offset=offset, weight=weight)
    dy, x, shifts, w = arrays
    m = _optional(op, "mask", mask, dtype)
    bias_shape = None if bias is None else _check.shape_of(op, "bias", bias, dtype)
    p = _problem(op, x.shape, shifts.shape, w.shape, bias_shape, stride, padding, dilation, None if m is None else m.shape)
    if dy.shape != p.shape:
        raise ValueError(f"{op}: grad_output must have the shape of the output, {p.shape}, got {dy.shape}")
    want_x, want_offset, want_w, want_b, want_mask = output_mask
    want_mask = want_mask and m is not None
    dx = np.zeros((p.batch, p.channels, p.plane), x.dtype) if want_x else None
    samples = _Samples(p, x, shifts, m)
    doffset = empty_like(samples.offset)
    dmask = empty_like(samples.mask) if samples.mask is not None else empty((p.batch, 0, 0, 0), x.dtype)
    dw = np.zeros(w.size, x.dtype) if want_w else None
    flat, w_flat = dy.ravel(), w.ravel()
    depth, rows = p.depth // p.weight_groups, p.outputs // p.weight_groups
    dcolumns = empty_like(samples.columns)
    for n, first, count in samples.chunks():
        samples.locate(n, first, count)
        if dw is not None:
            samples.sample(n, count)
        for g in range(p.weight_groups):
            dy_part = flat[(n * p.outputs + g * rows) * p.positions + first :]
            w_part, part = w_flat[g * rows * depth :], slice(g * depth, (g + 1) * depth)
            if dw is not None:
                gemm_strided(
                    1, rows, depth, count, dy_part, (0, p.positions, 1), samples.columns[part].ravel(), (0, 1, p.chunk),
                    dw[g * rows * depth :], (0, depth), accumulate=True,
                )  # fmt: skip
            if want_x or want_offset or want_mask:
                gemm_strided(1, depth, count, rows, w_part, (0, 1, depth), dy_part, (0, p.positions, 1), dcolumns[part].ravel(), (0, p.chunk))
        threads = threads_for(p.depth * count * 2 * _NS_PER_SAMPLE)
        if dx is not None:
            _add_back(threads, dcolumns, count, p.offset_groups, *samples.located, dx[n])
        if want_offset or want_mask:
            samples.locate(n, first, count, edge=True)
            _differentiate(threads, samples.x[n], dcolumns, first, count, p.offset_groups, *samples.located, doffset[n], dmask[n])
    db = dy.sum((0, 2, 3), dtype=np.float64) if want_b and bias is not None else None
    gradients = (
        (dx, x.shape), (doffset if want_offset else None, shifts.shape), (dw, w.shape), (db, bias_shape),
        (dmask if want_mask else None, None if m is None else m.shape),
    )  # fmt: skip
    return tuple(None if g is None else g.reshape(shape).astype(dtype, copy=False) for g, shape in gradients)  # type: ignore[return-value]


register(
    deform_conv2d, deform_conv2d_backward, inputs=("input", "offset", "weight", "bias", "mask"),
    saved=("input", "offset", "weight", "mask"),
)  # fmt: skip
