"""What a network is made of: a record for each kind of layer.

A layer is a frozen description (kernel size, stride, ...). It says which parameters and buffers it has and how they begin,
how the shape of a sample changes, how many multiply-adds it takes, how far it looks, and how it is applied, through
``fastops.functional`` alone. It holds no arrays: they come to :meth:`Layer.apply` under their short names.

Shapes are those of one sample, without the batch's axis; an extent that is not known yet is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

import fastops.functional as F
from fastops import _check

Shape = tuple[int | None, ...]
Initial = Callable[[np.random.Generator, tuple[int, ...], Any], Any]


def zeros(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.zeros(shape, dtype)


def ones(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.ones(shape, dtype)


def normal(std: float) -> Initial:
    """Normal numbers of this standard deviation."""
    return partial(_normal, std)


def _normal(std: float, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    drawn = rng.standard_normal(shape, dtype)
    drawn *= std
    return drawn


def uniform(bound: float) -> Initial:
    """Uniform numbers between -bound and bound."""
    return partial(_uniform, bound)


def _uniform(bound: float, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    drawn = rng.random(shape, dtype)
    drawn *= 2 * bound
    drawn -= bound
    return drawn


def fan_out_normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """For a convolution before a rectifier. Source: He, Zhang, Ren, Sun, "Delving Deep into Rectifiers" (2015), equation 14."""
    return normal(math.sqrt(2 / (shape[0] * math.prod(shape[2:]))))(rng, shape, dtype)


@dataclass(frozen=True)
class Entry:
    """A parameter, or a buffer: what is kept with a network and not trained.

    Attributes:
        shape: of the array.
        initial: ``initial(rng, shape, dtype)`` makes the array that training begins with.
        buffer: whether it is a buffer.
        dtype: its dtype, where that is not the network's.
    """

    shape: tuple[int, ...]
    initial: Initial
    buffer: bool = False
    dtype: Any = None


class Run:
    """One application of a network: whether it trains, and where its random numbers come from."""

    __slots__ = ("_rng", "training")

    def __init__(self, training: bool, rng: Any) -> None:
        self.training = training
        self._rng = rng

    def seed(self) -> int:
        """A seed for a random operation, another one at each call."""
        if not isinstance(self._rng, np.random.Generator):
            self._rng = np.random.default_rng(self._rng)
        return int(self._rng.integers(1 << 63))


# How far an element of a value sees: for each axis of the image, over how many input pixels, and how many pixels its
# neighbour sees further. None: the whole input.
Field = tuple[tuple[float, float], ...] | None


class Layer:
    """A kind of layer. Every method but :meth:`apply` and :meth:`shape` has a meaningful default."""

    kind: ClassVar[str]

    def entries(self) -> dict[str, Entry]:
        """Parameters and buffers by short name, in PyTorch's order."""
        return {}

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        """The output for a batch. ``own`` has the entries by short name; buffers in it may be changed in place in training."""
        raise NotImplementedError

    def shape(self, *shapes: Shape) -> Shape:
        """The shape of a sample behind this layer; ValueError when the inputs do not fit."""
        raise NotImplementedError

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        """For one sample of known shape."""
        return 0

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        """What an element of the output sees, from what the inputs' elements see."""
        return widest(fields)

    def describe(self) -> str:
        """A few words for a table or a picture: "conv 3x3, 64, stride 2"."""
        return self.kind.replace("_", " ")


def widest(fields: Sequence[Field]) -> Field:
    """What several inputs see together.

    >>> widest([((3, 1), (3, 1)), ((5, 2), (5, 2))])
    ((5, 2), (5, 2))
    """
    if any(field is None for field in fields):
        return None
    known = [field for field in fields if field is not None]
    return tuple((max(size for size, _ in axis), max(jump for _, jump in axis)) for axis in zip(*known))


def windowed(field: Field, kernel: Sequence[int], stride: Sequence[float]) -> Field:
    """What a window over elements sees. Source: Araujo, Norris, Sim, "Computing Receptive Fields" (2019), equation 2.

    >>> windowed(((1, 1), (1, 1)), (7, 7), (2, 2))
    ((7, 2), (7, 2))
    """
    if field is None:
        return None
    return tuple((size + (k - 1) * jump, jump * s) for (size, jump), k, s in zip(field, kernel, stride))


def pair(value: Any) -> tuple[int, int]:
    """An integer for both axes, or one for each."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def by(values: Sequence[int]) -> str:
    return "×".join(map(str, values))


def positions(extent: int | None, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> int | None:
    """How many places a window takes along an axis.

    >>> positions(224, 7, 2, 3)
    112
    """
    if extent is None:
        return None
    room = extent + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        raise ValueError(f"a window of {dilation * (kernel - 1) + 1} does not fit into {extent} with padding {padding}")
    count = -(-room // stride) + 1 if ceil_mode else room // stride + 1
    # A window that begins behind the image and its padding in front does not count.
    return count - 1 if ceil_mode and (count - 1) * stride >= extent + padding else count


def fan_in_bound(fan_in: float) -> float:
    """PyTorch's bound of a product of so many terms; where there are none, the builder refuses the shape."""
    return 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0


def weight_and_bias(shape: tuple[int, ...], outs: int, bias: bool, initial: Initial | None) -> dict[str, Entry]:
    """The entries of a layer that is a product: as PyTorch draws both, or ``initial`` and a bias of zero."""
    bound = uniform(fan_in_bound(math.prod(shape[1:])))
    found = {"weight": Entry(shape, initial or bound)}
    if bias:
        found["bias"] = Entry((outs,), zeros if initial else bound)
    return found


@dataclass(frozen=True)
class Conv(Layer):
    """Convolution of images, (C, H, W) to (K, P, Q)."""

    channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    initial: Initial | None = None

    kind = "conv"

    def entries(self) -> dict[str, Entry]:
        shape = (self.out_channels, self.channels // self.groups, *self.kernel_size)
        return weight_and_bias(shape, self.out_channels, self.bias, self.initial)

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.conv2d(values[0], own["weight"], own.get("bias"), self.stride, self.padding, self.dilation, self.groups)

    def shape(self, *shapes: Shape) -> Shape:
        axes = zip(image(shapes[0], self.channels)[1:], self.kernel_size, self.stride, self.padding, self.dilation)
        return (self.out_channels, *(positions(*axis) for axis in axes))

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        return size(output) * (self.channels // self.groups) * math.prod(self.kernel_size)

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        return windowed(fields[0], [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation)], self.stride)

    def describe(self) -> str:
        kind = "depthwise" if 1 < self.groups == self.channels else "conv"
        words = [f"{kind} {by(self.kernel_size)}, {self.out_channels}"]
        if self.stride != (1, 1):
            words.append(f"stride {max(self.stride)}")
        if self.dilation != (1, 1):
            words.append(f"dilation {max(self.dilation)}")
        if self.groups > 1 and kind == "conv":
            words.append(f"{self.groups} groups")
        return ", ".join(words)


def image(shape: Shape, channels: int | None = None) -> Shape:
    """``shape``, if it is that of an image with so many channels."""
    if len(shape) != 3 or (channels is not None and shape[0] is not None and shape[0] != channels):
        wanted = "channels" if channels is None else channels
        raise ValueError(f"the input must be ({wanted}, height, width), got {shape}")
    return shape


def size(shape: Shape) -> int:
    """The number of elements, of which every extent must be known."""
    total = 1
    for extent in shape:
        assert extent is not None
        total *= extent
    return total


@dataclass(frozen=True)
class ConvTranspose(Layer):
    """Transposed convolution of images, (C, H, W) to (K, P, Q): every element spreads a kernel into the result."""

    channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    bias: bool = True
    initial: Initial | None = None

    kind = "conv_transpose"

    def entries(self) -> dict[str, Entry]:
        shape = (self.channels, self.out_channels, *self.kernel_size)
        return weight_and_bias(shape, self.out_channels, self.bias, self.initial)

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.conv_transpose2d(values[0], own["weight"], own.get("bias"), self.stride, self.padding)

    def shape(self, *shapes: Shape) -> Shape:
        axes = zip(image(shapes[0], self.channels)[1:], self.kernel_size, self.stride, self.padding)
        return (self.out_channels, *(None if n is None else (n - 1) * stride + kernel - 2 * padding for n, kernel, stride, padding in axes))

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        return size(shapes[0]) * self.out_channels * math.prod(self.kernel_size)

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        # An output is touched by at most ceil(kernel / stride) inputs along an axis.
        return windowed(fields[0], [-(-k // s) for k, s in zip(self.kernel_size, self.stride)], [1 / s for s in self.stride])

    def describe(self) -> str:
        words = f"transposed conv {by(self.kernel_size)}, {self.out_channels}"
        return words if self.stride == (1, 1) else f"{words}, stride {max(self.stride)}"


@dataclass(frozen=True)
class Upsample(Layer):
    """An image resized to ``scale`` times its extents; mode "nearest" or "bilinear"."""

    scale: int
    mode: str = "nearest"

    kind = "upsample"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.interpolate(values[0], scale_factor=self.scale, mode=self.mode)

    def shape(self, *shapes: Shape) -> Shape:
        channels, *extents = image(shapes[0])
        return (channels, *(None if n is None else n * self.scale for n in extents))

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        taps = 2 if self.mode == "bilinear" else 1
        return windowed(fields[0], [taps] * 2, [1 / self.scale] * 2)

    def describe(self) -> str:
        return f"upsample ×{self.scale}, {self.mode}"


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation of (C, ...)."""

    channels: int
    eps: float = 1e-5
    momentum: float = 0.1

    kind = "batch_norm"

    def entries(self) -> dict[str, Entry]:
        shape = (self.channels,)
        return {
            "weight": Entry(shape, ones),
            "bias": Entry(shape, zeros),
            "running_mean": Entry(shape, zeros, buffer=True),
            "running_var": Entry(shape, ones, buffer=True),
            "num_batches_tracked": Entry((), zeros, buffer=True, dtype=np.int64),
        }

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run, activation: str | None = None) -> Any:
        if run.training:
            own["num_batches_tracked"][...] += 1
        return F.batch_norm(
            values[0], own["running_mean"], own["running_var"], own["weight"], own["bias"], run.training, self.momentum, self.eps, activation=activation
        )

    def shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][0] not in (None, self.channels):
            raise ValueError(f"the input must have {self.channels} channels, got shape {shapes[0]}")
        return shapes[0]

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        return size(output)


@dataclass(frozen=True)
class Activation(Layer):
    """An elementwise function of ``fastops.functional`` by its name."""

    name: str

    kind = "activation"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return getattr(F, self.name)(values[0])

    def shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def describe(self) -> str:
        return self.name


@dataclass(frozen=True)
class Pool(Layer):
    """Maximum ("max") or mean ("avg") over windows of an image."""

    mode: str
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    ceil_mode: bool = False

    kind = "pool"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        pool = F.max_pool2d if self.mode == "max" else F.avg_pool2d
        return pool(values[0], self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)

    def shape(self, *shapes: Shape) -> Shape:
        channels, *extents = image(shapes[0])
        return (channels, *(positions(*axis, ceil_mode=self.ceil_mode) for axis in zip(extents, self.kernel_size, self.stride, self.padding)))

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        return windowed(fields[0], self.kernel_size, self.stride)

    def describe(self) -> str:
        words = f"{self.mode} pool {by(self.kernel_size)}"
        return words if self.stride == (1, 1) else f"{words}, stride {max(self.stride)}"


@dataclass(frozen=True)
class AdaptiveAvgPool(Layer):
    """Means over as many windows as the result has pixels."""

    output_size: tuple[int, int]

    kind = "adaptive_avg_pool"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.adaptive_avg_pool2d(values[0], self.output_size)

    def shape(self, *shapes: Shape) -> Shape:
        return (image(shapes[0])[0], *self.output_size)

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        if any(extent is None for extent in shapes[0]) or self.output_size == (1, 1):
            return None
        extents = [extent for extent in shapes[0][1:] if extent is not None]
        windows = [-(-n // m) for n, m in zip(extents, self.output_size)]
        return windowed(fields[0], windows, [n / m for n, m in zip(extents, self.output_size)])

    def describe(self) -> str:
        return f"avg pool to {by(self.output_size)}"


@dataclass(frozen=True)
class Linear(Layer):
    """A dense layer over the last axis."""

    features: int
    out_features: int
    bias: bool = True
    initial: Initial | None = None

    kind = "linear"

    def entries(self) -> dict[str, Entry]:
        return weight_and_bias((self.out_features, self.features), self.out_features, self.bias, self.initial)

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.linear(values[0], own["weight"], own.get("bias"))

    def shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][-1] not in (None, self.features):
            raise ValueError(f"the input must have {self.features} features, got shape {shapes[0]}")
        return (*shapes[0][:-1], self.out_features)

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        return size(output) * self.features

    def describe(self) -> str:
        return f"linear, {self.out_features}"


@dataclass(frozen=True)
class Flatten(Layer):
    """A sample as one row."""

    kind = "flatten"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        x = values[0]
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def shape(self, *shapes: Shape) -> Shape:
        return (None if None in shapes[0] else size(shapes[0]),)

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        return fields[0] if all(extent == 1 for extent in shapes[0][1:]) else None


@dataclass(frozen=True)
class Add(Layer):
    """The sum of values of one shape."""

    kind = "add"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        total = values[0] + values[1]
        for value in values[2:]:
            total = total + value
        return total

    def shape(self, *shapes: Shape) -> Shape:
        if any(len(shape) != len(shapes[0]) for shape in shapes):
            raise ValueError(f"the inputs must have one shape, got {', '.join(map(str, shapes))}")
        return tuple(_agreed(extents, shapes) for extents in zip(*shapes))


@dataclass(frozen=True)
class Concat(Layer):
    """Values side by side along an axis of the sample, by default the channels."""

    axis: int = 0

    kind = "concat"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return np.concatenate(values, axis=self.axis + 1 if self.axis >= 0 else self.axis)

    def shape(self, *shapes: Shape) -> Shape:
        if any(len(shape) != len(shapes[0]) for shape in shapes):
            raise ValueError(f"the inputs must have the same axes, got {', '.join(map(str, shapes))}")
        axis = self.axis % len(shapes[0])

        def extent(i: int, extents: tuple[int | None, ...]) -> int | None:
            if i != axis:
                return _agreed(extents, shapes)
            return None if None in extents else sum(n for n in extents if n is not None)

        return tuple(extent(i, extents) for i, extents in enumerate(zip(*shapes)))


def _agreed(extents: Sequence[int | None], shapes: Sequence[Shape]) -> int | None:
    known = {n for n in extents if n is not None}
    if len(known) > 1:
        raise ValueError(f"the inputs must agree in shape, got {', '.join(map(str, shapes))}")
    return known.pop() if known else None


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeros in the place of some elements, in training."""

    p: float = 0.5

    kind = "dropout"

    def __post_init__(self) -> None:
        _check.probability(self.kind, "p", self.p)

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.dropout(values[0], self.p, rng=run.seed()) if run.training and self.p else values[0]

    def shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def describe(self) -> str:
        return f"dropout {self.p:g}"


@dataclass(frozen=True)
class Call(Layer):
    """Any function of the values that has no parameters: ``function(*values)``.

    Attributes:
        function: made of fastops' operations and NumPy, for a batch.
        words: what a table calls it.
        of_shapes: the shape of a sample from those of the inputs; None: the shape of the first.
    """

    function: Callable[..., Any]
    words: str
    of_shapes: Callable[..., Shape] | None = None

    kind = "call"

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return self.function(*values)

    def shape(self, *shapes: Shape) -> Shape:
        return shapes[0] if self.of_shapes is None else self.of_shapes(*shapes)

    def describe(self) -> str:
        return self.words
