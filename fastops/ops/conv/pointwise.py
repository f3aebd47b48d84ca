"""1x1 convolution: nothing but a matrix product, of the weights with the image as it lies.

    y[n] = W x[n]          NCHW: (K, C) times (C, pixels), image by image
    y = x W^T              NHWC: (all pixels, C) times (C, K), one product

and the gradients are the other two products of the three matrices: dx = W^T dy, dw = dy x^T summed over images.

Images of few pixels, as 7x7, fill register tiles badly (49 columns take the time of 64) and have every image run through all
the weights. They are taken side by side, (C, images, pixels), and become one product: it packs what it needs of x anyway.

A kernel as large as the image is a 1x1 one, too: of an image of one pixel, whose channels are all the elements, as in a dense layer.

So is a kernel that no pixel meets twice, its stride as large as itself or larger: a convolution of images of its patches, whose channels are
a patch's elements. These are first put side by side, some images at a time, and the gradient is spread from there.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from fastops.ops.conv.layout import parts, up
from fastops.ops.conv.moves import NS_PUT, NS_TAKEN, Moves, kept
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, LANES, MR, panel_width
from fastops.simd.finish import add_activated
from fastops.simd.gemm import gemm_strided, gemm_workspace
from fastops.simd.prepacked import pack_right, packed_size, product_with_packed
from fastops.simd.workspace import aligned, scratch

# Images are joined when they have fewer pixels than this, or leave more than a seventh of their vectors' lanes idle. The copies take a
# quarter of the time of 14x14 pixels on a Granite Rapids: 64 to 384 channels, batch of 8, 0.58 ms, so 0.46. In gradients of the input each
# product copies the weights, so that more images go together.
_FEW_PIXELS, _FEW_PIXELS_TURNED, _IDLE = 64, 128, 1.15
# Pixels, channels last, that are worth a copy of the weights in the order in which a product reads them.
_SHARING_PIXELS = 4 * MR

# More weights of a kernel as large as the image are read where they lie: a dense layer's can be many, for few images.
_PACKED_BYTES = 16 << 20

# Bytes of patches, at least those of one image.
_SEEN_BYTES = 4 << 20

# What Python does for each part of them.
_NS_PER_PART = 8_000.0

# The weights of each group, packed.
Packed = list[np.ndarray]


def _one_pixel(spec: ConvSpec) -> ConvSpec:
    """The convolution of images of one pixel that it is where the kernel is as large as the image; formats are the same then."""
    ones = (1, 1, 1)
    if spec.out_size != ones or spec.kernel != spec.size or spec.padding != ((0, 0),) * 3 or (spec.channels_last and spec.size != ones):
        return spec
    return replace(spec, channels=spec.channels * prod(spec.size), size=ones, kernel=ones, stride=ones, dilation=ones, channels_last=True)


def _of_patches(spec: ConvSpec, images: int) -> ConvSpec:
    """The convolution of so many images of patches."""
    ones = (1, 1, 1)
    return replace(spec, batch=images, channels=spec.channels * prod(spec.kernel), size=spec.out_size, kernel=ones, stride=ones)


class _Products:
    """The shapes and strides that the three products share; one group at a time."""

    def __init__(self, spec: ConvSpec) -> None:
        spec = _one_pixel(spec)
        self.groups, self.batch = spec.groups, spec.batch
        self.c, self.k = spec.channels // spec.groups, spec.out_channels // spec.groups
        self.pixels = prod(spec.size)
        self.channels_last, self.dtype = spec.channels_last, spec.dtype
        if spec.channels_last:
            self.batch, self.pixels = 1, spec.batch * self.pixels
        self.x_all, self.y_all = spec.channels, spec.out_channels

    def joined(self, turned: bool) -> bool:
        """Whether images lie side by side for the product."""
        few = self.pixels < (_FEW_PIXELS_TURNED if turned else _FEW_PIXELS)
        return self.batch > 1 and not self.channels_last and (few or up(self.pixels, LANES[self.dtype]) > _IDLE * self.pixels)

    def start(self, array: np.ndarray, group: int, channels: int) -> np.ndarray:
        """The array from a group's first channel on."""
        return array[group * channels * (1 if self.channels_last else self.pixels) :] if group else array

    def multiply(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, activation: int, turned: bool, packed: Packed | None) -> None:
        """y = W x, or with ``turned`` W^T x where x is dy and y is dx."""
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        ins, outs = (self.k, self.c) if turned else (self.c, self.k)
        ins_all, outs_all = (self.y_all, self.x_all) if turned else (self.x_all, self.y_all)
        row, col = (1, self.c) if turned else (self.c, 1)
        for group in range(self.groups):
            a, b, c = w[group * self.c * self.k :], self.start(x, group, ins), self.start(y, group, outs)
            shift = bias[group * outs : (group + 1) * outs]
            if packed is not None:
                product_with_packed(self.pixels, outs, ins, b, ins_all, packed[group], shift, c, outs_all, activation)
                continue
            some = shift if shift.size else None
            if self.channels_last:
                gemm_strided(1, self.pixels, outs, ins, b, (0, ins_all, 1), a, (0, col, row), c, (0, outs_all), bias=some, activation=activation)
                continue
            strides = (ins_all * self.pixels, self.pixels, 1), (outs_all * self.pixels, self.pixels)
            batch, cols, runs = self.batch, self.pixels, None
            if self.joined(turned):
                batch, cols, runs = 1, self.batch * self.pixels, (self.pixels, strides[0][0], strides[1][0])
            gemm_strided(
                batch, outs, cols, ins, a, (0, row, col), b, strides[0], c, strides[1], bias=some, bias_axis=0, activation=activation, runs=runs,
            )  # fmt: skip

    def packed_size(self, turned: bool) -> int:
        """Elements of the weights as ``pack`` makes them."""
        return self.groups * packed_size(*((self.k, self.c) if turned else (self.c, self.k)), self.dtype)

    def pack(self, w: np.ndarray, turned: bool, room: np.ndarray) -> Packed:
        """The weights of each group, in ``room``, as the matrix on the right of a product with pixels."""
        ins, outs, row, col = (self.k, self.c, self.c, 1) if turned else (self.c, self.k, 1, self.c)
        size, w = packed_size(ins, outs, self.dtype), w.reshape(-1)
        packed = [room[group * size : (group + 1) * size] for group in range(self.groups)]
        for group, panels in enumerate(packed):
            pack_right(w[group * self.c * self.k :], row, col, ins, outs, panels)
        return packed

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, accumulate: bool = False) -> None:
        x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
        for group in range(self.groups):
            a, b = self.start(dy, group, self.k), self.start(x, group, self.c)
            c = dw[group * self.c * self.k :]
            if self.channels_last:
                gemm_strided(1, self.k, self.c, self.pixels, a, (0, 1, self.y_all), b, (0, self.x_all, 1), c, (0, self.c), accumulate=accumulate)
                continue
            strides = (self.y_all * self.pixels, self.pixels, 1), (self.x_all * self.pixels, 1, self.pixels)
            gemm_strided(self.batch, self.k, self.c, self.pixels, a, strides[0], b, strides[1], c, (0, self.c), summed=self.batch > 1, accumulate=accumulate)


def _packs(spec: ConvSpec, products: _Products, turned: bool) -> bool:
    """Whether weights are packed, ahead or for the one call, which give the same bits: where more than a few pixels share the copy."""
    small = products.packed_size(turned) * spec.itemsize <= _PACKED_BYTES
    return products.channels_last and products.pixels >= _SHARING_PIXELS and (small or prod(spec.kernel) == 1)


def _plan(spec: ConvSpec, activation: int, turned: bool) -> Plan:
    products, taps = _Products(spec), prod(spec.kernel)
    packs = _packs(spec, products, turned)
    room = products.packed_size(turned) if packs else 0

    def run(x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: Packed | None = None) -> None:
        if turned and taps > 1:
            bias = np.repeat(bias, taps)
        if prepared is None and packs:
            prepared = products.pack(w, turned, scratch(room, spec.dtype))
        products.multiply(x, w, bias, y, activation, turned, prepared)

    if packs:
        return Plan(run, lambda w: products.pack(w, turned, aligned(products.packed_size(turned), spec.dtype)), "panels")
    return Plan(run)


def _seen(spec: ConvSpec) -> int:
    """Elements of an image that are seen."""
    return spec.channels * prod(spec.kernel) * prod(spec.out_size)


def _to_patches(spec: ConvSpec) -> Moves:
    """From images to their patches."""
    t, r, s, o, p, q = np.ogrid[tuple(map(slice, (*spec.kernel, *spec.out_size)))]
    d, h, w = (i * stride + k for i, stride, k in zip((o, p, q), spec.stride, (t, r, s)))
    return Moves((d * spec.size[1] + h) * spec.size[2] + w, prod(spec.size), spec.channels if spec.channels_last else 1)


def _from_patches(spec: ConvSpec) -> Moves:
    """From patches that cover images back to these."""
    (o, t), (p, r), (q, s) = (np.divmod(at, k) for at, k in zip(np.ogrid[tuple(map(slice, spec.size))], spec.kernel))
    (_, r_count, s_count), (o_count, p_count, q_count) = spec.kernel, spec.out_size
    places = ((((t * r_count + r) * s_count + s) * o_count + o) * p_count + p) * q_count + q
    return Moves(places, prod(spec.kernel) * prod(spec.out_size))


def _parts(spec: ConvSpec) -> list[tuple[int, int]]:
    """Parts of the batch whose patches are put side by side at once."""
    return parts(spec.batch, _seen(spec) * spec.itemsize, _SEEN_BYTES)


class _Patches:
    """The three directions with a stride."""

    def __init__(self, spec: ConvSpec, activation: int = 0) -> None:
        self.spec, self.code, self.parts = spec, activation, _parts(spec)
        self.image = _seen(spec)
        self._key = "patches", spec.size, spec.kernel, spec.stride, spec.out_size, spec.channels_last and spec.channels

    @property
    def moves(self) -> Moves:
        return kept(self._key, lambda: _to_patches(self.spec))

    def seen(self, images: int) -> np.ndarray:
        """Memory for so many images."""
        return scratch(self.parts[0][1] * self.image, self.spec.dtype, "seen")[: images * self.image]

    def plan(self, turned: bool) -> Plan:
        spec, taps = self.spec, prod(self.spec.kernel)
        inner = {n: _plan(_of_patches(spec, n), self.code, turned) for _, n in self.parts}
        most = inner[self.parts[0][1]]
        puts = turned and taps == 1

        def run(x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: Packed | None = None) -> None:
            if prepared is None and len(self.parts) > 1 and most.transform is not None:
                prepared = most.transform(w)
            shift = np.repeat(bias, taps) if turned else bias
            if puts:
                nothing = np.zeros(spec.channels, spec.dtype)
                fill = np.empty_like(nothing)
                add_activated(bias if bias.size else nothing, nothing, self.code, fill)
            for first, n in self.parts:
                seen, given, wanted = self.seen(n), x[first : first + n], y[first : first + n]
                if not turned:
                    self.moves.take(given.reshape(-1), seen)
                    inner[n].run(seen, w, shift, wanted, prepared)
                    continue
                inner[n].run(given, w, shift, seen, prepared)
                if puts:
                    self.moves.put(seen, fill, wanted.reshape(-1))
                else:
                    kept((*self._key, "back"), lambda: _from_patches(spec)).take(seen, wanted.reshape(-1))

        return Plan(run, most.transform, most.weight_format)

    def grad_weight(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        for first, n in self.parts:
            seen = self.seen(n)
            self.moves.take(x[first : first + n].reshape(-1), seen)
            _Products(_of_patches(self.spec, n)).grad_weight(seen, dy[first : first + n], dw, first > 0)


def _strided(spec: ConvSpec) -> bool:
    return _one_pixel(spec).stride != (1, 1, 1)


def _directed(spec: ConvSpec, activation: int, turned: bool) -> Plan:
    return _Patches(spec, activation).plan(turned) if _strided(spec) else _plan(spec, activation, turned)


def _grad_weight(spec: ConvSpec) -> Any:
    return _Patches(spec).grad_weight if _strided(spec) else _Products(spec).grad_weight


def _accepts(spec: ConvSpec, direction: str) -> str | None:
    spec = _one_pixel(spec)
    if spec.pointwise:
        return None
    if spec.padding != ((0, 0),) * 3 or any(k > s for k, s in zip(spec.kernel, spec.stride)) or spec.dilation != (1, 1, 1):
        return "the kernel must be 1x1, as large as the image, or no larger than the stride, without padding"
    if spec.channels_last:
        return "the kernel must be 1x1, or as large as the image, with channels last"
    covered = tuple(o * s for o, s in zip(spec.out_size, spec.stride)) == spec.size and spec.kernel == spec.stride
    if direction == "grad_input" and not covered:
        return "patches must cover the image for the gradient with respect to the input"
    return None


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    spec = _one_pixel(spec)
    if spec.stride != (1, 1, 1):
        puts = direction == "grad_input" and spec.pointwise
        moves = NS_PUT * prod(spec.x_shape) if puts else NS_TAKEN * spec.batch * _seen(spec)
        return _cost(_of_patches(spec, spec.batch), direction, threads) + moves / threads + _NS_PER_PART * len(_parts(spec))
    p = _Products(spec)
    lanes_, width = LANES[spec.dtype], panel_width(spec.dtype)
    turned = direction == "grad_input"
    cols = max(1, p.pixels * (p.batch if p.joined(turned) else 1))
    if spec.channels_last and direction != "grad_weight":
        outs = p.c if turned else p.k
        product = 1.1 * spec.flops / 2 / lanes_ / FMAS_PER_CYCLE * up(outs, lanes_) / outs + 3.0 * prod(spec.weight_shape) / lanes_
        return product / CYCLES_PER_NS / threads + 5_000 * spec.groups
    product = 1.3 * spec.flops / 2 / lanes_ / FMAS_PER_CYCLE
    if direction == "grad_weight" and not spec.channels_last:
        # Pixels become rows on the way into panels, by vectors where the channels fill them, else one by one.
        c = p.c
        product += spec.batch * spec.groups * prod(spec.size) * up(c, width) * (1.7 if c % lanes_ else 0.2)
    elif turned:
        product *= up(cols, width) / cols
    else:
        # Panels may end with half of one, and few last columns are summed up one by one: 7x7 pixels take little more than 48.
        product *= (cols if cols % lanes_ <= lanes_ // 4 else up(cols, lanes_)) / cols
    return product / CYCLES_PER_NS / threads + 6_500 * spec.groups


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    given, spec = spec, _one_pixel(spec)
    if spec.stride != (1, 1, 1):
        images = _parts(spec)[0][1]
        return _workspace(_of_patches(spec, images), direction, threads) + images * _seen(spec) * spec.itemsize
    p, turned = _Products(spec), direction == "grad_input"
    rows, cols, depth = (p.k, p.pixels, p.c) if direction == "forward" else (p.c, p.pixels, p.k) if turned else (p.k, p.c, p.pixels)
    if spec.channels_last and direction != "grad_weight":
        if _packs(given, p, turned):
            return spec.itemsize * p.packed_size(turned)
        rows, cols = cols, rows
    summed = direction == "grad_weight" and not spec.channels_last
    joined = p.joined(turned) and not summed
    return gemm_workspace(rows, cols * (p.batch if joined else 1), depth, spec.dtype, threads, 1 if joined else p.batch, joined=joined, summed=summed)


STRATEGY = Strategy(
    name="pointwise",
    accepts=_accepts,
    cost=_cost,
    workspace=_workspace,
    forward=lambda spec, activation: _directed(spec, activation, False),
    grad_input=lambda spec, activation: _directed(spec, activation, True),
    grad_weight=_grad_weight,
)
