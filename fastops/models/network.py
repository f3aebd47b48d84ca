"""A network: a fixed graph of layers, and what can be done with it.

:class:`Builder` makes the graph; ordinary Python that reads like the table of a paper::

    net = Builder("tiny")
    x = net.input(3, 32, 32)
    x = net.relu(net.conv("conv1", x, 16, 3, padding=1))
    x = net.max_pool(x, 2)
    x = net.linear("fc", net.flatten(x), 10)
    model = net.build(x)

:class:`Network` interprets it. It holds no arrays: parameters and buffers are dicts from names to arrays, the names those
that PyTorch would give ("layer1.0.conv1.weight"), which come in as arguments and go out as results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fastops.models import layers, weights
from fastops.models.layers import Entry, Field, Initial, Layer, Run, Shape, pair
from fastops.models.prepare import Prepared, followers
from fastops.models.summary import Summary, summary

Arrays = dict[str, Any]
Integers = int | tuple[int, int]


@dataclass(frozen=True)
class Value:
    """What stands for an array while a graph is being built: its number, and what is known of a sample's shape."""

    number: int
    shape: Shape

    @property
    def channels(self) -> int:
        """The extent of the first axis, which must be known."""
        if not self.shape or self.shape[0] is None:
            raise ValueError(f"the number of channels must be known here, got shape {self.shape}")
        return self.shape[0]


@dataclass(frozen=True)
class Step:
    """A layer at its place: values by number in, one value out.

    Attributes:
        name: in front of the names of its entries; of a layer without any, what it is.
        layer: the record of the layer.
        inputs: numbers of the values that it takes.
        output: number of the value that it makes.
        last: those among ``inputs`` that nobody needs afterwards.
    """

    name: str
    layer: Layer
    inputs: tuple[int, ...]
    output: int
    last: tuple[int, ...] = ()


class Builder:
    """Builds a :class:`Network` layer by layer.

    Every method takes values and returns the new one. A name is put behind those of the scopes around it, with dots. Layers
    under the same name share their parameters, whose shapes must be the same; the first one says how they begin.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inputs: list[tuple[str, Shape]] = []
        self._steps: list[Step] = []
        self._shapes: list[Shape] = []
        self._scopes: list[str] = []
        self._named: dict[str, dict[str, tuple[int, ...]]] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names within are put behind this one and a dot."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, *shape: int | None, name: str = "input") -> Value:
        """An input: the shape of a sample, None where any extent will do."""
        if self._steps:
            raise ValueError(f"{self.name}: inputs must come before the first layer")
        self._inputs.append((name, shape))
        return self._value(shape)

    def _value(self, shape: Shape) -> Value:
        self._shapes.append(shape)
        return Value(len(self._shapes) - 1, shape)

    def layer(self, name: str | None, layer: Layer, *values: Value) -> Value:
        """Any layer; one without parameters needs no name."""
        full = ".".join([*self._scopes, name or layer.kind])
        entries = {short: entry.shape for short, entry in layer.entries().items()}
        if entries:
            if name is None:
                raise ValueError(f"{self.name}: a {layer.kind} has parameters and must have a name")
            for short, extents in entries.items():
                if not all(isinstance(n, (int, np.integer)) and n > 0 for n in extents):
                    raise ValueError(f"{self.name}: {full}: the shape of {short} must be of positive integers, got {extents}")
            if self._named.setdefault(full, entries) != entries:
                raise ValueError(f"{self.name}: the name {full} must be that of one layer")
        try:
            shape = layer.shape(*(value.shape for value in values))
        except ValueError as error:
            raise ValueError(f"{self.name}: {full}: {error}") from None
        made = self._value(shape)
        self._steps.append(Step(full, layer, tuple(value.number for value in values), made.number))
        return made

    def conv(
        self, name: str, x: Value, out_channels: int, kernel_size: Integers, stride: Integers = 1, padding: Integers = 0,
        dilation: Integers = 1, groups: int = 1, bias: bool = True, initial: Initial | None = None,
    ) -> Value:  # fmt: skip
        """Convolution; ``initial`` replaces PyTorch's way to draw weights, and begins with a bias of zero."""
        record = layers.Conv(
            x.channels, out_channels, pair(kernel_size), pair(stride), pair(padding), pair(dilation), groups, bias, initial
        )  # fmt: skip
        return self.layer(name, record, x)

    def conv_transpose(
        self, name: str, x: Value, out_channels: int, kernel_size: Integers, stride: Integers = 1, padding: Integers = 0,
        bias: bool = True, initial: Initial | None = None,
    ) -> Value:  # fmt: skip
        """Transposed convolution."""
        record = layers.ConvTranspose(x.channels, out_channels, pair(kernel_size), pair(stride), pair(padding), bias, initial)
        return self.layer(name, record, x)

    def upsample(self, x: Value, scale: int, mode: str = "nearest") -> Value:
        """Resized to ``scale`` times the extents; "nearest" or "bilinear"."""
        return self.layer(None, layers.Upsample(scale, mode), x)

    def batch_norm(self, name: str, x: Value, eps: float = 1e-5, momentum: float = 0.1) -> Value:
        return self.layer(name, layers.BatchNorm(x.channels, eps, momentum), x)

    def linear(self, name: str, x: Value, out_features: int, bias: bool = True, initial: Initial | None = None) -> Value:
        features = x.shape[-1] if x.shape else None
        if features is None:
            raise ValueError(f"{self.name}: {name}: the number of features must be known, got shape {x.shape}; give the input's extents")
        return self.layer(name, layers.Linear(features, out_features, bias, initial), x)

    def activation(self, name: str, x: Value) -> Value:
        """Any elementwise function of ``fastops.functional`` by its name."""
        return self.layer(None, layers.Activation(name), x)

    def relu(self, x: Value) -> Value:
        return self.activation("relu", x)

    def max_pool(self, x: Value, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False) -> Value:
        return self._pool("max", x, kernel_size, stride, padding, ceil_mode)

    def avg_pool(self, x: Value, kernel_size: Integers, stride: Integers | None = None, padding: Integers = 0, ceil_mode: bool = False) -> Value:
        return self._pool("avg", x, kernel_size, stride, padding, ceil_mode)

    def _pool(self, mode: str, x: Value, kernel_size: Integers, stride: Integers | None, padding: Integers, ceil_mode: bool) -> Value:
        kernel = pair(kernel_size)
        return self.layer(None, layers.Pool(mode, kernel, kernel if stride is None else pair(stride), pair(padding), ceil_mode), x)

    def adaptive_avg_pool(self, x: Value, output_size: Integers) -> Value:
        return self.layer(None, layers.AdaptiveAvgPool(pair(output_size)), x)

    def flatten(self, x: Value) -> Value:
        return self.layer(None, layers.Flatten(), x)

    def add(self, *values: Value) -> Value:
        return self.layer(None, layers.Add(), *values)

    def concat(self, *values: Value, axis: int = 0) -> Value:
        """Along an axis of the sample, by default the channels."""
        return self.layer(None, layers.Concat(axis), *values)

    def dropout(self, x: Value, p: float = 0.5) -> Value:
        return self.layer(None, layers.Dropout(p), x)

    def call(self, words: str, function: Callable[..., Any], *values: Value, shape: Callable[..., Shape] | None = None) -> Value:
        """``function`` of a batch, which has no parameters; ``shape`` gives a sample's shape from those of the inputs."""
        return self.layer(None, layers.Call(function, words, shape), *values)

    def build(self, *outputs: Value) -> Network:
        """The network that computes these values: one, or a tuple of several."""
        return Network(self.name, self._inputs, self._steps, [value.number for value in outputs])


# Activations that batch normalisation before them does in its own pass over memory.
_WITH_NORM = frozenset(("relu", "relu6"))

_Apply = Callable[[Sequence[Any], Mapping[str, Any], Run], Any]


class Network:
    """A network without its arrays.

    Attributes:
        name: of the network.
        inputs: name and sample's shape of each input; its values are the first numbers.
        steps: the layers in the order in which they are applied.
        outputs: numbers of the values that :meth:`apply` returns.
        entries: the parameters and buffers by full name.
    """

    def __init__(self, name: str, inputs: Sequence[tuple[str, Shape]], steps: Sequence[Step], outputs: Sequence[int]) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.steps = _with_last_uses(steps, self.outputs)
        self.entries: dict[str, Entry] = {}
        # What is run, and what it needs of the dicts of arrays: short name, full name, whether a buffer.
        self._runs: list[tuple[_Apply, Step, list[tuple[str, str, bool]]]] = []
        follower = followers(self.steps, self.outputs)
        done: set[int] = set()
        for step in self.steps:
            found = {short: (f"{step.name}.{short}", entry) for short, entry in step.layer.entries().items()}
            for full, entry in found.values():
                self.entries.setdefault(full, entry)
            if step.output in done:
                continue
            apply: _Apply = step.layer.apply
            if isinstance(step.layer, layers.BatchNorm):
                after = follower(step.output, layers.Activation)
                if after is not None and after.layer.name in _WITH_NORM:  # type: ignore[attr-defined]
                    apply = partial(step.layer.apply, activation=after.layer.name)  # type: ignore[attr-defined]
                    step = replace(step, output=after.output, last=(*step.last, *(i for i in after.last if i != step.output)))
                    done.add(after.output)
            self._runs.append((apply, step, [(short, full, entry.buffer) for short, (full, entry) in found.items()]))

    def __repr__(self) -> str:
        count = sum(int(np.prod(entry.shape)) for entry in self.entries.values() if not entry.buffer)
        return f"<{self.name}: {len(self.steps)} layers, {count:,} parameters>"

    def init(self, rng: int | np.random.Generator | None = None, dtype: Any = np.float32) -> tuple[Arrays, Arrays]:
        """Parameters and buffers to begin training with.

        Args:
            rng: seed, generator, or None for fresh entropy.
            dtype: float32 or float64.

        Returns:
            (params, buffers), dicts from full names to arrays.
        """
        generator = np.random.default_rng(rng)
        floating = self._floating(dtype)
        params: Arrays = {}
        buffers: Arrays = {}
        for name, entry in self.entries.items():
            (buffers if entry.buffer else params)[name] = entry.initial(generator, entry.shape, entry.dtype or floating)
        return params, buffers

    def _floating(self, dtype: Any) -> np.dtype[Any]:
        found = np.dtype(dtype)
        if found.kind != "f":
            raise TypeError(f"{self.name}: dtype must be of floating-point numbers, got {found}")
        return found

    def apply(
        self, params: Mapping[str, Any], buffers: Mapping[str, Any], *inputs: Any, training: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Any, Arrays]:  # fmt: skip
        """The output for a batch, and the buffers afterwards.

        Args:
            params, buffers: as :meth:`init` or :meth:`load_state_dict` returns them; neither is changed. Under
                :func:`fastops.value_and_grad` any of the arrays may be a value that is differentiated.
            inputs: arrays with the batch as first axis.
            training: batch statistics and dropout.
            rng: for dropout: seed, generator, or None for fresh entropy.

        Returns:
            (y, buffers): a tuple of arrays for y where the network has several outputs; the buffers given, unless training.

        Raises:
            ValueError: an entry is missing, or a layer cannot take what comes to it.
        """
        self._check_inputs(inputs)
        for name, arrays in (("params", params), ("buffers", buffers)):
            if not isinstance(arrays, Mapping):
                raise TypeError(f"{self.name}: {name} must be a dict of arrays, got {type(arrays).__name__}")
        run = Run(training, rng)
        new = dict(buffers)
        shapes = [np.shape(x) for x in inputs]
        values: dict[int, Any] = dict(enumerate(inputs))
        del inputs
        for apply, step, names in self._runs:
            own: Arrays = {}
            for short, full, buffer in names:
                if full not in (buffers if buffer else params):
                    raise ValueError(f"{self.name}: the {'buffers' if buffer else 'params'} must have an entry {full!r}")
                if buffer:
                    own[short] = new[full] = np.array(buffers[full]) if training else buffers[full]
                else:
                    own[short] = params[full]
            try:
                values[step.output] = apply([values[i] for i in step.inputs], own, run)
            except ValueError as error:
                self.explain(error, shapes)
                raise
            for i in step.last:
                del values[i]
        found = tuple([values[i] for i in self.outputs])
        return found[0] if len(found) == 1 else found, new

    def prepare(self, params: Mapping[str, Any], buffers: Mapping[str, Any]) -> Prepared:
        """The network for inference with these weights, which are copied: ``predict(*inputs)`` returns what
        :meth:`apply` would.

        Batch normalisation is folded into the convolution before it, activations are applied by the layer before them,
        and weights are transformed once.
        """
        return Prepared(self, params, buffers)

    def state_dict(self, params: Mapping[str, Any], buffers: Mapping[str, Any]) -> Arrays:
        """Parameters and buffers in one dict, in PyTorch's order; ``weights.save(path, ...)`` writes it."""
        return {name: (buffers if entry.buffer else params)[name] for name, entry in self.entries.items()}

    def load_state_dict(self, source: Mapping[str, Any] | str | os.PathLike[str], strict: bool = True, *, dtype: Any = None) -> tuple[Arrays, Arrays]:
        """Parameters and buffers from elsewhere.

        Args:
            source: a dict from names to arrays (or tensors), or a file: safetensors, npz, or a state dict that
                ``torch.save`` wrote.
            strict: every entry must be there, and no other. Otherwise entries that are missing are as :meth:`init` makes
                them, and unexpected ones are passed over.
            dtype: of the floating-point arrays; None: as they are.

        Returns:
            (params, buffers), arrays of their own.

        Raises:
            ValueError: entries are missing, unexpected, no arrays or of another shape; all are named.
            TypeError: ``source`` is neither; ``dtype`` is none of floating-point numbers.
        """
        floating = np.dtype(np.float32) if dtype is None else self._floating(dtype)
        if not isinstance(source, (Mapping, str, os.PathLike)):
            raise TypeError(f"{self.name}: source must be a dict of arrays or a file, got {type(source).__name__}")
        given = source if isinstance(source, Mapping) else weights.load(source)
        found: Arrays = {}
        wrong: list[str] = []
        for name, entry in self.entries.items():
            if name not in given:
                continue
            try:
                array = np.array(weights.to_array(name, given[name]))
            except ValueError as error:
                wrong.append(str(error))
                continue
            if array.shape != entry.shape:
                wrong.append(f"{name} must have shape {entry.shape}, got {array.shape}")
            elif array.dtype.kind != ("f" if entry.dtype is None else "i"):
                wrong.append(f"{name} must be of {'floating-point numbers' if entry.dtype is None else 'integers'}, got {array.dtype}")
            found[name] = array.astype(entry.dtype or dtype or array.dtype, copy=False)
        # Files of before PyTorch 0.4.1 have no counts of batches.
        missing = [name for name in self.entries if name not in given and not (found and name.endswith("num_batches_tracked"))]
        unexpected = [name for name in given if name not in self.entries]
        if strict and missing:
            wrong.append(f"missing: {_listed(missing)}")
        if strict and unexpected:
            wrong.append(f"unexpected: {_listed(unexpected)}")
        if wrong:
            raise ValueError(f"{self.name}: the entries do not fit: {'; '.join(wrong)}")
        generator = np.random.default_rng()
        params: Arrays = {}
        buffers: Arrays = {}
        for name, entry in self.entries.items():
            if name not in found:
                found[name] = entry.initial(generator, entry.shape, entry.dtype or floating)
            (buffers if entry.buffer else params)[name] = found[name]
        return params, buffers

    def draw(self, path: str | os.PathLike[str], *input_shapes: Shape, collapse: bool = True) -> None:
        """A picture of the network: every layer a box, wider with more channels and higher with a larger image.

        A normalisation, an activation and the like are strips under the layer before them, blocks are framed, branches stand
        side by side, and edges that jump over layers are arcs. Takes matplotlib. In an SVG the boxes have the layers' names
        as ids.

        Args:
            path: file to write; its ending decides on the format: svg, png, pdf.
            input_shapes: the shape of a sample of every input, (3, 224, 224); by default as far as the network knows it.
            collapse: draw three or more equal blocks in a row as one, and the stages of a network under a pyramid as a box each.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: the ending is of no known format, or a shape does not fit.
            OSError: the file cannot be written.
        """
        from fastops.models.drawing import draw

        draw(self, path, *input_shapes, collapse=collapse)

    def _check_inputs(self, inputs: Sequence[Any]) -> None:
        if len(inputs) != len(self.inputs):
            wanted = ", ".join(name for name, _ in self.inputs)
            raise ValueError(f"{self.name}: inputs must be {len(self.inputs)} ({wanted}), got {len(inputs)}")

    def explain(self, error: ValueError, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raises ``error`` with the reason, where an input has the wrong number of axes or channels.

        That is looked at when a layer has failed, since many layers can take more than the network was described with.
        Where the extents do not suit a layer, that layer is named.
        """
        for (name, wanted), shape in zip(self.inputs, shapes):
            channels = wanted[0] if len(wanted) == 3 else None
            if len(shape) != len(wanted) + 1 or (channels is not None and shape[1] != channels):
                batch = ", ".join("any" if n is None else str(n) for n in wanted)
                raise ValueError(f"{self.name}: {name} must have shape (N, {batch}), got {shape}: {error}") from error
        try:
            self._shapes_from([shape[1:] for shape in shapes])
        except ValueError as reason:
            got = ", ".join(f"{name} of shape {shape}" for (name, _), shape in zip(self.inputs, shapes))
            raise ValueError(f"{reason} (with {got})") from error

    def shapes(self, *input_shapes: Shape) -> list[Shape]:
        """The shape of a sample of every value, by number; by default for inputs as the network describes them.

        Raises:
            ValueError: an input does not fit; the layer that found it is named.
        """
        return self._shapes_from(self._input_shapes(input_shapes))

    def _shapes_from(self, given: Sequence[Shape]) -> list[Shape]:
        shapes: list[Shape] = [*given, *[()] * len(self.steps)]
        for step in self.steps:
            try:
                shapes[step.output] = step.layer.shape(*(shapes[i] for i in step.inputs))
            except ValueError as error:
                raise ValueError(f"{self.name}: {step.name}: {error}") from None
        return shapes

    def _input_shapes(self, given: Sequence[Shape]) -> list[Shape]:
        own = [shape for _, shape in self.inputs]
        if not given:
            return own
        self._check_inputs(given)
        for (name, wanted), shape in zip(self.inputs, given):
            if not isinstance(shape, (tuple, list)):
                raise TypeError(f"{self.name}: {name} must have the shape of a sample, a tuple, got {shape!r}")
            if len(shape) != len(wanted) or any(w not in (None, n) for w, n in zip(wanted, shape)):
                raise ValueError(f"{self.name}: {name} must have samples of shape {wanted}, got {tuple(shape)}")
        return [tuple(shape) for shape in given]

    def summary(self, *input_shapes: Shape) -> Summary:
        """The network as a table, layer by layer: output shape, receptive field, parameters, multiply-adds; and totals.

        Args:
            input_shapes: of a sample of each input, such as ``(3, 224, 224)``; may be left out where the network knows them.

        Returns:
            A record whose text is the table; ``rows``, ``parameters``, ``buffers`` and ``multiply_adds`` have the numbers.

        Raises:
            ValueError: the shape of an input is not known, or does not fit.
        """
        return summary(self, *input_shapes)

    def fields(self, *input_shapes: Shape) -> list[Field]:
        """What an element of every value sees of the image, by number: for each axis (extent, step); None: all of it."""
        shapes = self.shapes(*input_shapes)
        start: list[Field] = [((1, 1),) * max(len(shape) - 1, 0) for shape in shapes[: len(self.inputs)]]
        fields = [*start, *[None] * len(self.steps)]
        for step in self.steps:
            fields[step.output] = step.layer.field([fields[i] for i in step.inputs], [shapes[i] for i in step.inputs])
        return fields


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _with_last_uses(steps: Sequence[Step], outputs: Sequence[int]) -> tuple[Step, ...]:
    """The steps, each knowing which values are needed no more; walked from the end."""
    needed = set(outputs)
    found: list[Step] = []
    for step in reversed(steps):
        unused = {step.output} - needed  # nobody wants it: gone as soon as it is there
        last = tuple(dict.fromkeys([i for i in step.inputs if i not in needed])) + tuple(unused)
        needed.update(step.inputs)
        found.append(Step(step.name, step.layer, step.inputs, step.output, last))
    return tuple(reversed(found))
