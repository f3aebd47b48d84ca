"""Transformers: the encoder's block, a classifier of sequences, and a small language model.

A sequence is (T, E), T steps of E features. Attention lets every step look at all others (at those before it where it is
causal); a dense layer, an activation and another dense layer then work on each step by itself. Both stand beside a shortcut,
with layer normalisation behind the sum ("post-norm") or in front of the branch ("pre-norm").

Source: Vaswani et al., "Attention Is All You Need" (2017), section 3; Xiong et al., "On Layer Normalization in the Transformer
Architecture" (2020), figure 1, for pre-norm; Radford et al., "Language Models are Unsupervised Multitask Learners" (2019),
section 2.3, for the language model; Su et al., "RoFormer" (2021), section 3.2, for rotary positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

import fastops.functional as F
from fastops import _check
from fastops.models.layers import Entry, Field, Initial, Layer, Run, Shape, normal, ones, size, uniform, zeros
from fastops.models.network import Builder, Network, Value

_STANDARD, _SMALL = normal(1.0), normal(0.02)  # PyTorch's for an embedding, and GPT-2's for all


def steps_of(shape: Shape, features: int) -> Shape:
    """``shape``, if it is that of a sequence with so many features."""
    if len(shape) != 2 or shape[1] not in (None, features):
        raise ValueError(f"the input must be (steps, {features}), got {shape}")
    return shape


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalisation over the last axis."""

    features: int
    eps: float = 1e-5

    kind = "layer_norm"

    def entries(self) -> dict[str, Entry]:
        return {"weight": Entry((self.features,), ones), "bias": Entry((self.features,), zeros)}

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.layer_norm(values[0], (self.features,), own["weight"], own["bias"], self.eps)

    def shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][-1] not in (None, self.features):
            raise ValueError(f"the input must have {self.features} features, got shape {shapes[0]}")
        return shapes[0]

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        return size(output)


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """For a matrix (out, in). Source: Glorot, Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks" (2010), equation 16."""
    return uniform(math.sqrt(6 / (shape[-1] + shape[-2])))(rng, shape, dtype)


@lru_cache(maxsize=8)
def _angles(steps: int, size: int, dtype: Any) -> tuple[Any, Any]:
    """Cosines and sines of rotary positions, (T, size / 2)."""
    turns = np.arange(steps)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    found = np.cos(turns).astype(dtype), np.sin(turns).astype(dtype)
    for array in found:
        array.flags.writeable = False
    return found


@dataclass(frozen=True)
class SelfAttention(Layer):
    """Multi-head attention of a sequence to itself, with the parameters of ``torch.nn.MultiheadAttention``.

    Attributes:
        features: E.
        heads: a divisor of E.
        dropout: of the weights of attention.
        causal: whether a step sees only itself and those before it.
        rotary: whether queries and keys are turned by their positions.
    """

    features: int
    heads: int
    dropout: float = 0.0
    causal: bool = False
    rotary: bool = False

    kind = "self_attention"

    def __post_init__(self) -> None:
        if self.heads < 1 or self.features % self.heads or (self.rotary and self.features // self.heads % 2):
            each = "an even number of features each" if self.rotary else "the same number of features each"
            raise ValueError(f"heads must have {each}, got {self.heads} for {self.features}")
        _check.probability(self.kind, "dropout", self.dropout)

    def entries(self) -> dict[str, Entry]:
        E = self.features
        return {
            "in_proj_weight": Entry((3 * E, E), xavier_uniform),
            "in_proj_bias": Entry((3 * E,), zeros),
            "out_proj.weight": Entry((E, E), uniform(1 / math.sqrt(E))),
            "out_proj.bias": Entry((E,), zeros),
        }

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        x = values[0]
        N, T, E = x.shape
        size = E // self.heads
        qkv = F.linear(x, own["in_proj_weight"], own["in_proj_bias"])
        q, k, v = qkv.reshape(N, T, 3, self.heads, size).transpose(2, 0, 3, 1, 4)
        if self.rotary:
            cos, sin = _angles(T, size, x.dtype)
            q, k = F.rotary_embedding(q, cos, sin), F.rotary_embedding(k, cos, sin)
        p = self.dropout if run.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, None, p, self.causal, rng=run.seed() if p else None)
        return F.linear(y.transpose(0, 2, 1, 3).reshape(N, T, E), own["out_proj.weight"], own["out_proj.bias"])

    def shape(self, *shapes: Shape) -> Shape:
        return steps_of(shapes[0], self.features)

    def multiply_adds(self, shapes: Sequence[Shape], output: Shape) -> int:
        steps = size(output) // self.features
        pairs = steps * (steps + 1) // 2 if self.causal else steps * steps
        return 4 * size(output) * self.features + 2 * pairs * self.features

    def field(self, fields: Sequence[Field], shapes: Sequence[Shape]) -> Field:
        return None

    def describe(self) -> str:
        words = ["causal"] * self.causal + ["rotary"] * self.rotary
        return ", ".join([f"self-attention, {self.heads} heads", *words])


@dataclass(frozen=True)
class Embedding(Layer):
    """A row of a table for every symbol, (T,) to (T, E)."""

    symbols: int
    features: int
    initial: Initial = _STANDARD

    kind = "embedding"

    def entries(self) -> dict[str, Entry]:
        return {"weight": Entry((self.symbols, self.features), self.initial)}

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        return F.embedding(values[0], own["weight"])

    def shape(self, *shapes: Shape) -> Shape:
        return (*shapes[0], self.features)

    def describe(self) -> str:
        return f"embedding, {self.symbols} × {self.features}"


@dataclass(frozen=True)
class Position(Layer):
    """A row of a table added to every step, the same in all sequences."""

    length: int
    features: int
    initial: Initial = _SMALL

    kind = "position"

    def entries(self) -> dict[str, Entry]:
        return {"weight": Entry((self.length, self.features), self.initial)}

    def apply(self, values: Sequence[Any], own: Mapping[str, Any], run: Run) -> Any:
        steps = values[0].shape[1]
        if steps > self.length:
            raise ValueError(f"sequences must have at most {self.length} steps, got {steps}")
        table = own["weight"]
        return values[0] + (table if steps == self.length else table[:steps])

    def shape(self, *shapes: Shape) -> Shape:
        steps = steps_of(shapes[0], self.features)[0]
        if steps is not None and steps > self.length:
            raise ValueError(f"sequences must have at most {self.length} steps, got {steps}")
        return shapes[0]

    def describe(self) -> str:
        return f"add positions, {self.length}"


def encoder_layer(
    net: Builder, x: Value, heads: int, hidden: int = 2048, dropout: float = 0.1, activation: str = "relu", eps: float = 1e-5,
    norm_first: bool = False, *, causal: bool = False, rotary: bool = False,
) -> Value:  # fmt: skip
    """The block of an encoder, and with ``causal`` that of a decoder without a memory: ``torch.nn.TransformerEncoderLayer``,
    parameter by parameter, of values (T, E).

    Args:
        net: the builder; :meth:`Builder.scope` gives the block its name.
        x: (T, E).
        heads: a divisor of E.
        hidden: features between the two dense layers.
        dropout: of attention's weights, of the hidden features and of both branches.
        activation: between the dense layers, any of ``fastops.functional``.
        eps: of the layer normalisation.
        norm_first: pre-norm.
        causal, rotary: as for :class:`SelfAttention`.
    """
    features = x.shape[-1]
    if features is None:
        raise ValueError(f"{net.name}: the number of features must be known, got shape {x.shape}")

    def dropped(x: Value) -> Value:
        return net.dropout(x, dropout) if dropout else x

    def attended(x: Value) -> Value:
        return dropped(net.layer("self_attn", SelfAttention(features, heads, dropout, causal, rotary), x))

    def worked(x: Value) -> Value:
        y = dropped(net.activation(activation, net.linear("linear1", x, hidden)))
        return dropped(net.linear("linear2", y, features))

    norm = LayerNorm(features, eps)
    if norm_first:
        x = net.add(x, attended(net.layer("norm1", norm, x)))
        return net.add(x, worked(net.layer("norm2", norm, x)))
    x = net.layer("norm1", norm, net.add(x, attended(x)))
    return net.layer("norm2", norm, net.add(x, worked(x)))


def transformer(
    num_classes: int = 10, *, features: int = 8, length: int = 8, width: int = 64, heads: int = 4, layers: int = 2, hidden: int | None = None,
    dropout: float = 0.1, norm_first: bool = True,
) -> Network:  # fmt: skip
    """A classifier of sequences (length, features), such as the rows of a picture; gives logits.

    Every step becomes ``width`` features and its position is added; then come ``layers`` blocks; the mean over the steps is
    what is classified.

    Args:
        num_classes: how many logits come out.
        features, length: of a sequence; shorter ones are taken too.
        width, heads, layers: of the encoder.
        hidden: features between the dense layers of a block; by default 4 ``width``.
        dropout: in each block.
        norm_first: layer normalisation in front of the branches and behind the last block, or behind each sum.

    >>> transformer()
    <transformer: 27 layers, 101,834 parameters>
    """
    net = Builder("transformer")
    x = net.input(None, features)
    x = net.layer("position", Position(length, width), net.linear("embedding", x, width))
    for i in range(_check.integer(net.name, "layers", layers, 1)):
        with net.scope(f"layers.{i}"):
            x = encoder_layer(net, x, heads, hidden or 4 * width, dropout, "gelu", norm_first=norm_first)
    if norm_first:
        x = net.layer("norm", LayerNorm(width), x)
    x = net.call("mean over the steps", _mean_of_steps, x, shape=_without_steps)
    return net.build(net.linear("head", x, num_classes))


def _mean_of_steps(x: Any) -> Any:
    return x.mean(axis=1)


def _without_steps(shape: Shape) -> Shape:
    return shape[1:]


class LanguageModel(Network):
    """A network that gives logits of the next symbol at every step of a sequence of symbols.

    Attributes:
        length: how many symbols it looks back at.
    """

    def __init__(self, network: Network, length: int) -> None:
        super().__init__(network.name, network.inputs, network.steps, network.outputs)
        self.length = length

    def generate(
        self, params: Mapping[str, Any], prompt: Any, length: int, temperature: float = 1.0, rng: int | np.random.Generator | None = None,
    ) -> Any:  # fmt: skip
        """Symbols that may follow others.

        Args:
            params: as for :meth:`apply`.
            prompt: integers, (T,) with at least one; only the last ``self.length`` matter.
            length: how many symbols to draw.
            temperature: divides the logits: below 1 likely symbols become likelier; at 0 the likeliest one is taken.
            rng: seed, generator, or None for fresh entropy.

        Returns:
            The new symbols, (length,), of dtype int64.

        Raises:
            ValueError: an argument has a wrong value or shape.
        """
        given = np.asarray(prompt)
        if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
            raise ValueError(f"{self.name}: prompt must be one or more integers in one axis, got shape {given.shape}, {given.dtype}")
        length = _check.integer(self.name, "length", length, 0)
        if not 0 <= _check.real(self.name, "temperature", temperature) < math.inf:
            raise ValueError(f"{self.name}: temperature must be finite and not negative, got {temperature}")
        generator = np.random.default_rng(rng)
        predict = self.prepare(params, {})
        symbols = np.concatenate([given[-self.length :].astype(np.int64), np.empty(length, np.int64)])
        start = symbols.size - length
        for i in range(start, symbols.size):
            logits = predict(symbols[None, max(0, i - self.length) : i])[0, -1]
            if temperature:
                # The largest of logits plus Gumbel noise is a draw from their softmax.
                # Relative to the largest logit nothing but minus infinity can come of a small temperature.
                relative = logits.astype(np.float64) - logits.max()
                with np.errstate(over="ignore"):
                    logits = relative / temperature + generator.gumbel(size=logits.size)
            symbols[i] = logits.argmax()
        return symbols[start:]


def language_model(
    symbols: int = 256, *, length: int = 64, width: int = 128, heads: int = 4, layers: int = 2, hidden: int | None = None, dropout: float = 0.0,
    rotary: bool = False, tied: bool = True,
) -> LanguageModel:  # fmt: skip
    """A decoder-only language model: from symbols (T,) the logits of each one's successor, (T, symbols).

    Pre-norm blocks with causal attention and GELU, as in GPT-2, whose initial values these are as well.

    Args:
        symbols: the size of the alphabet.
        length: how many symbols it looks back at.
        width, heads, layers: of the decoder.
        hidden: features between the dense layers of a block; by default 4 ``width``.
        dropout: in each block.
        rotary: positions turn queries and keys, instead of a table that is added to the embedding.
        tied: the logits are products with the rows of the embedding, instead of those of a matrix of their own.

    >>> language_model(symbols=64)
    <language_model: 20 layers, 413,184 parameters>
    """
    net = Builder("language_model")
    x = net.input(None, name="symbols")
    x = net.layer("embedding", Embedding(symbols, width, _SMALL), x)
    if not rotary:
        x = net.layer("position", Position(length, width), x)
    if dropout:
        x = net.dropout(x, dropout)
    for i in range(_check.integer(net.name, "layers", layers, 1)):
        with net.scope(f"layers.{i}"):
            x = encoder_layer(net, x, heads, hidden or 4 * width, dropout, "gelu", norm_first=True, causal=True, rotary=rotary)
    x = net.layer("norm", LayerNorm(width), x)
    x = net.linear("embedding" if tied else "head", x, symbols, bias=False, initial=_SMALL)
    return LanguageModel(net.build(x), length)
