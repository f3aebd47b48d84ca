"""A strided convolution as one without a stride: what lies less than a stride apart becomes channels ("space to depth").

With a stride of s, tap r of a kernel meets pixel i s + r - top. Writing r = s r' + a, that is pixel i + r' of the image of
every s-th pixel from a - top on. So C channels become C s_h s_w ones, a kernel of R taps one of ceil(R / s) with zeros behind, and
the convolution's stride 1, where Winograd's transforms apply: AlexNet's first layer, 11x11 taps of 3 channels at stride 4, is
3x3 taps of 48 channels. The map is linear, so that gradients pass through it: those of the folded image and kernels are
folded back.

Folded channels are counted as their elements lie: channel, row, column in NCHW; row, column, channel in NHWC.

Source: W. Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network",
arXiv:1609.05158, section 3.2, whose sub-pixel shuffling is this map backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from fastops._check import Array
from fastops.ops.conv import implicit, winograd
from fastops.ops.conv.layout import parts, up
from fastops.ops.conv.moves import NS_TAKEN, Moves, kept
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import LARGE_CORE
from fastops.simd.workspace import scratch

# Images that are folded at a time, at least one: 0.65 MB are one of 224x224, and all of them share the transforms of the weights.
_AT_ONCE_BYTES = 4 << 20
_MOST_BYTES = 16 << 20  # for one thread, of everything
# Time of each launch with what Python does for it.
_NS_PER_PART = 15_000.0
# By how much the gradient of the weights is predicted too low on large Intel cores: AlexNet's first layer 0.83 and not 0.57 ms, with two
# threads 0.70 and not 0.40, which ``implicit`` takes 0.81 and 0.45 for.
_WEIGHTS = 1.6 if LARGE_CORE else 1.0


@lru_cache(maxsize=1024)
def folded(spec: ConvSpec, direction: str) -> ConvSpec | None:
    """The convolution of the folded image, or None where nothing can be folded."""
    if spec.stride[1:] == (1, 1) or spec.groups > 1 or spec.dilation != (1, 1, 1) or spec.size[0] != 1 or spec.kernel[0] != 1:
        return None
    kernel = tuple(-(-r // s) for r, s in zip(spec.kernel, spec.stride))
    size = tuple(o + r - 1 for o, r in zip(spec.out_size, kernel))
    if direction == "grad_input":  # which has pixels that no window sees
        size = tuple(max(n, -(-(extent + pad[0]) // s)) for n, extent, pad, s in zip(size, spec.size, spec.padding, spec.stride))
    padding = tuple((0, o + r - 1 - n) for o, r, n in zip(spec.out_size, kernel, size))
    channels = spec.channels * prod(spec.stride)
    return replace(spec, channels=channels, size=size, kernel=kernel, stride=(1, 1, 1), padding=padding, ndim=2)  # type: ignore[arg-type]


class _Folding:
    """The two forms of the images and kernels of a convolution."""

    def __init__(self, spec: ConvSpec, direction: str) -> None:
        inner = folded(spec, direction)
        assert inner is not None
        self.spec, self.inner = spec, inner
        self.image, self.kernels = inner.channels * prod(inner.size), prod(inner.weight_shape)
        self.parts = parts(spec.batch, self.image * spec.itemsize, _AT_ONCE_BYTES)
        self._start = up(self.kernels, 16)
        self.elements = self._start + self.parts[0][1] * self.image
        self._key = spec.size, spec.kernel, spec.stride, spec.padding, inner.size, spec.channels, spec.channels_last

    def memory(self) -> tuple[Array, Array]:
        """For the folded images of a part, and for folded kernels."""
        held = scratch(self.elements, self.spec.dtype, "folded")
        return held[self._start :], held[: self.kernels]

    def _into_pixels(self) -> Moves:
        """Into folded images, with zeros around them."""
        spec, (_, s_h, s_w), (_, height, width), (_, rows, columns) = self.spec, self.spec.stride, self.spec.size, self.inner.size
        top, left = (pad[0] for pad in spec.padding[1:])
        i, a, j, b = np.ogrid[:rows, :s_h, :columns, :s_w]
        h, w = i * s_h + a - top, j * s_w + b - left
        places = np.where((h >= 0) & (h < height) & (w >= 0) & (w < width), h * width + w, -1)
        return Moves(places.transpose((0, 2, 1, 3) if spec.channels_last else (1, 3, 0, 2)), height * width, spec.channels if spec.channels_last else 1)

    def _from_pixels(self) -> Moves:
        """Back; the zeros are left out."""
        spec, (_, s_h, s_w), (_, height, width), (_, rows, columns) = self.spec, self.spec.stride, self.spec.size, self.inner.size
        top, left = (pad[0] for pad in spec.padding[1:])
        h, w = np.ogrid[top : top + height, left : left + width]
        (i, a), (j, b) = np.divmod(h, s_h), np.divmod(w, s_w)
        places = ((i * columns + j) * s_h + a) * s_w + b if spec.channels_last else ((a * s_w + b) * rows + i) * columns + j
        return Moves(places, s_h * s_w * rows * columns, spec.channels if spec.channels_last else 1)

    def _into_taps(self) -> Moves:
        """Into folded kernels, with zeros behind them."""
        spec, (_, s_h, s_w), (_, taps_h, taps_w), (_, rows, columns) = self.spec, self.spec.stride, self.spec.kernel, self.inner.kernel
        c, a, b, i, j = np.ogrid[: spec.channels, :s_h, :s_w, :rows, :columns]
        r, s = i * s_h + a, j * s_w + b
        places = np.where((r < taps_h) & (s < taps_w), (c * taps_h + r) * taps_w + s, -1)
        return Moves(places.transpose(1, 2, 0, 3, 4) if spec.channels_last else places, spec.channels * taps_h * taps_w)

    def _from_taps(self) -> Moves:
        spec, (_, s_h, s_w), (_, taps_h, taps_w), (_, rows, columns) = self.spec, self.spec.stride, self.spec.kernel, self.inner.kernel
        c, r, s = np.ogrid[: spec.channels, :taps_h, :taps_w]
        (i, a), (j, b) = np.divmod(r, s_h), np.divmod(s, s_w)
        channel = (a * s_w + b) * spec.channels + c if spec.channels_last else (c * s_h + a) * s_w + b
        return Moves((channel * rows + i) * columns + j, spec.channels * s_h * s_w * rows * columns)

    def _kept(self, make: Callable[[], Moves]) -> Moves:
        return kept((make.__name__, *self._key), make)

    def fold(self, images: Array, pixels: Array) -> None:
        self._kept(self._into_pixels).take(images.reshape(-1), pixels[: images.shape[0] * self.image])

    def unfold(self, images: Array, pixels: Array) -> None:
        """The opposite; the zeros are left out."""
        self._kept(self._from_pixels).take(pixels, images.reshape(-1))

    def fold_kernels(self, weight: Array, kernels: Array) -> None:
        self._kept(self._into_taps).take(weight.reshape(-1), kernels)

    def unfold_kernels(self, weight: Array, kernels: Array) -> None:
        self._kept(self._from_taps).take(kernels, weight.reshape(-1))

    def bias(self, bias: Array) -> Array:
        """A bias of the image's channels, for the folded one's."""
        times = prod(self.spec.stride)
        return np.tile(bias, times) if self.spec.channels_last else np.repeat(bias, times)


class _Convolution:
    """forward and the gradient with respect to the input."""

    def __init__(self, spec: ConvSpec, direction: str, activation: int) -> None:
        self.spec, self.direction, self.code = spec, direction, activation
        self.folding = f = _Folding(spec, direction)
        way = winograd.way_of(f.inner, direction)  # of all images, so that all parts take the same transformed weights
        self.parts = {n: winograd.Convolution(replace(f.inner, batch=n), direction, activation, way) for _, n in f.parts}
        self.first = self.parts[f.parts[0][1]]
        self.format = ("folded", spec.kernel, spec.stride, spec.channels_last, self.first.format)

    def plan(self) -> Plan:
        return Plan(self.run, self.transform, self.format)

    def transform(self, w: Array) -> Array:
        _, kernels = self.folding.memory()
        self.folding.fold_kernels(w, kernels)
        return self.first.transform(kernels)

    def run(self, x: Array, w: Array, bias: Array, y: Array, prepared: Array | None = None) -> None:
        f = self.folding
        pixels, kernels = f.memory()
        if prepared is None:
            f.fold_kernels(w, kernels)
        shift = bias if self.direction == "forward" or not bias.size else f.bias(bias)
        for first, n in f.parts:
            part, sources, results = self.parts[n], x[first : first + n], y[first : first + n]
            if self.direction == "forward":
                f.fold(sources, pixels)
                done = part.attempt(pixels, kernels, shift, results, prepared)
            else:
                done = part.attempt(sources, kernels, shift, pixels, prepared)
                f.unfold(results, pixels)
            if not done:
                getattr(implicit.STRATEGY, self.direction)(self.spec, self.code).run(x, w, bias, y)
                return


class _KernelGradient:
    """The gradient with respect to the weights."""

    def __init__(self, spec: ConvSpec) -> None:
        self.spec = spec
        self.folding = f = _Folding(spec, "grad_weight")
        way = winograd.way_of(f.inner, "grad_weight")
        self.parts = {n: winograd.KernelGradient(replace(f.inner, batch=n), way) for _, n in f.parts}

    def run(self, x: Array, dy: Array, dw: Array) -> None:
        f = self.folding
        pixels, kernels = f.memory()
        for first, n in f.parts:
            f.fold(x[first : first + n], pixels)
            if not self.parts[n].attempt(pixels, dy[first : first + n], kernels, first > 0):
                implicit.STRATEGY.grad_weight(self.spec)(x, dy, dw)
                return
        f.unfold_kernels(dw, kernels)


# ---- Winograd, with strides folded where that is better, or the only way


def _folded_workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    f = _Folding(spec, direction)
    return f.elements * spec.itemsize + winograd.STRATEGY.workspace(replace(f.inner, batch=f.parts[0][1]), direction, threads)


def _refusal(spec: ConvSpec, direction: str) -> str | None:
    """Why the convolution can not be folded, or None if it can."""
    inner = folded(spec, direction)
    if inner is None:
        return "groups and dilations must be 1"
    reason = winograd.STRATEGY.accepts(inner, direction)
    if reason is None and _folded_workspace(spec, direction, 1) > _MOST_BYTES:
        reason = f"it must take at most {_MOST_BYTES >> 20} MB"
    return reason


def _folded_cost(spec: ConvSpec, direction: str, threads: int) -> float:
    inner = folded(spec, direction)
    assert inner is not None
    elements = inner.batch * inner.channels * prod(inner.size)
    launches = -(-elements * inner.itemsize // _AT_ONCE_BYTES)
    moves = NS_TAKEN * (elements + prod(inner.weight_shape))
    product = winograd.STRATEGY.cost(inner, direction, threads) * (_WEIGHTS if direction == "grad_weight" else 1)
    return product + moves / threads + launches * _NS_PER_PART


@lru_cache(maxsize=1024)
def _folds(spec: ConvSpec, direction: str) -> bool:
    """Whether to fold; the number of threads does not decide it."""
    if _refusal(spec, direction) is not None:
        return False
    if winograd.STRATEGY.accepts(spec, direction) is not None:
        return True
    return _folded_cost(spec, direction, 1) < winograd.STRATEGY.cost(spec, direction, 1)


def _accepts(spec: ConvSpec, direction: str) -> str | None:
    if _folds(spec, direction):
        return None
    reason = winograd.STRATEGY.accepts(spec, direction)
    if reason is None or folded(spec, direction) is None:
        return reason
    return f"{reason}; folded, {_refusal(spec, direction)}"


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    return _folded_cost(spec, direction, threads) if _folds(spec, direction) else winograd.STRATEGY.cost(spec, direction, threads)


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    return _folded_workspace(spec, direction, threads) if _folds(spec, direction) else winograd.STRATEGY.workspace(spec, direction, threads)


def _of(kind: str) -> Any:
    direction = "forward" if kind == "prepared" else kind

    def plan(spec: ConvSpec, activation: int) -> Plan:
        if _folds(spec, direction):
            return _Convolution(spec, direction, activation).plan()
        found: Plan = getattr(winograd.STRATEGY, kind)(spec, activation)
        return found

    return plan


STRATEGY = Strategy(
    name="winograd",
    accepts=_accepts,
    cost=_cost,
    workspace=_workspace,
    forward=_of("forward"),
    grad_input=_of("grad_input"),
    grad_weight=lambda spec: _KernelGradient(spec).run if _folds(spec, "grad_weight") else winograd.STRATEGY.grad_weight(spec),
    exact=False,
    ahead=lambda spec: 0.0 if _folds(spec, "forward") else winograd.STRATEGY.ahead(spec),
    prepared=_of("prepared"),
)
