"""Rows of the normalisations, each reference as its paper writes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.harness import Row


def normalised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)


def per_channel(values: Any, x: np.ndarray) -> np.ndarray:
    """Values for channels, shaped to go with x."""
    return np.asarray(values).reshape(1, -1, *(1,) * (x.ndim - 2))


def affine(x: np.ndarray, weight: Any, bias: Any) -> np.ndarray:
    x = x if weight is None else x * per_channel(weight, x)
    return x if bias is None else x + per_channel(bias, x)


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5, activation: str | None = None,
) -> np.ndarray:  # fmt: skip
    if training:
        axes = (0, *range(2, input.ndim))
        x = normalised(input, axes, eps) if input.size else input
    else:
        x = (input - per_channel(running_mean, input)) / np.sqrt(per_channel(running_var, input) + eps)
    y = affine(x, weight, bias)
    return y if activation is None else np.clip(y, 0, {"relu": None, "relu6": 6}[activation])


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None, use_input_stats: bool = True, eps: float = 1e-5
) -> np.ndarray:
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    return affine(normalised(input, tuple(range(2, input.ndim)), eps), weight, bias)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> np.ndarray:
    grouped = input.reshape(input.shape[0], num_groups, input.shape[1] // num_groups, -1)
    return affine(normalised(grouped, (2, 3), eps).reshape(input.shape), weight, bias)


def layer_norm(input: Any, normalized_shape: tuple[int, ...], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> np.ndarray:
    x = normalised(input, tuple(range(-len(normalized_shape), 0)), eps)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def rms_norm(input: Any, normalized_shape: tuple[int, ...], weight: Any = None, eps: float | None = None) -> np.ndarray:
    axes = tuple(range(-len(normalized_shape), 0))
    eps = np.finfo(input.dtype).eps if eps is None else eps
    x = input / np.sqrt((input**2).mean(axis=axes, keepdims=True) + eps)
    return x if weight is None else x * weight


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> np.ndarray:
    divisor = np.empty_like(input)
    for c in range(input.shape[1]):
        neighbours = input[:, max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        divisor[:, c] = (k + alpha / size * (neighbours**2).sum(axis=1)) ** beta
    return input / divisor


def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> np.ndarray:
    size = np.abs(input)
    if p == np.inf:
        norm = size.max(axis=dim, keepdims=True)
    elif p == -np.inf:
        norm = size.min(axis=dim, keepdims=True)
    elif p == 0:
        norm = (input != 0).sum(axis=dim, keepdims=True)
    else:
        norm = (size**p).sum(axis=dim, keepdims=True) ** (1 / p)
    return input / np.maximum(norm, eps)


def off_centre(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 2 * rng.standard_normal(shape) + 3


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 2, shape)


def away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


def fresh(shape: tuple[int, ...]) -> Any:
    """Running statistics that a call may change."""
    return lambda rng: rng.uniform(0.5, 2, shape)


def batch_row(name: str, shape: tuple[int, ...], affine: bool = True, **options: Any) -> Row:
    channels = (shape[1],) if affine else None
    shapes = {"input": shape, "weight": channels, "bias": channels}
    if options.get("training"):
        options = {"running_mean": fresh(shape[1:2]), "running_var": fresh(shape[1:2]), **options}
        batched = ()  # an empty batch has the same shape, but no statistics: see test_norm.py
    else:
        shapes = {**shapes, "running_mean": shape[1:2], "running_var": shape[1:2]}
        batched = ("input",)
    return Row(name, "batch_norm", shapes, batch_norm, options, batched, {"input": off_centre, "running_var": positive})


def channel_row(op: str, name: str, shape: tuple[int, ...], affine: bool = True, **options: Any) -> Row:
    channels = (shape[1],) if affine else None
    reference = {"instance_norm": instance_norm, "group_norm": group_norm}[op]
    return Row(name, op, {"input": shape, "weight": channels, "bias": channels}, reference, options, draw={"input": off_centre})


ROWS = [
    batch_row("training", (3, 5, 4, 7), training=True),
    batch_row("training_no_affine_eps", (2, 3, 30), affine=False, training=True, eps=0.1),
    batch_row("training_matrix", (9, 70), training=True),
    batch_row("training_relu6", (3, 5, 4, 7), training=True, activation="relu6"),
    batch_row("training_matrix_relu", (9, 70), training=True, activation="relu"),
    batch_row("training_no_affine_relu", (2, 3, 30), affine=False, training=True, activation="relu"),
    batch_row("training_short_spans", (130, 13, 11), training=True),
    batch_row("training_short_spans_relu6", (12, 7, 3), training=True, activation="relu6"),
    batch_row("inference_short_spans", (20, 7, 5), affine=False),
    batch_row("inference_relu", (2, 5, 3, 3, 2), activation="relu"),
    batch_row("inference_matrix_relu6", (4, 6), activation="relu6"),
    batch_row("inference", (2, 5, 3, 3, 2)),
    batch_row("inference_matrix", (4, 6)),
    channel_row("instance_norm", "plain", (3, 4, 5, 6)),
    channel_row("instance_norm", "no_affine", (2, 3, 40), affine=False, eps=1e-3),
    Row(
        "running", "instance_norm", {"input": (2, 3, 7), "running_mean": (3,), "running_var": (3,), "weight": (3,), "bias": (3,)}, instance_norm,
        {"use_input_stats": False}, draw={"running_var": positive},
    ),
    channel_row("group_norm", "plain", (3, 6, 4, 5), num_groups=2),
    channel_row("group_norm", "one_group_no_axes", (2, 9), num_groups=1),
    channel_row("group_norm", "no_affine", (2, 4, 3), affine=False, num_groups=4),
    Row("plain", "layer_norm", {"input": (3, 2, 19), "weight": (19,), "bias": (19,)}, layer_norm, {"normalized_shape": (19,)}, draw={"input": off_centre}),
    Row(
        "several_axes", "layer_norm", {"input": (70, 3, 4, 5), "weight": (3, 4, 5), "bias": (3, 4, 5)}, layer_norm,
        {"normalized_shape": (3, 4, 5)}, draw={"input": off_centre},
    ),
    Row("no_affine", "layer_norm", {"input": (4, 30)}, layer_norm, {"normalized_shape": (30,), "eps": 0.01}, draw={"input": off_centre}),
    Row("bias_alone", "layer_norm", {"input": (4, 9), "bias": (9,)}, layer_norm, {"normalized_shape": (9,)}),
    Row("plain", "rms_norm", {"input": (3, 2, 19), "weight": (19,)}, rms_norm, {"normalized_shape": (19,), "eps": 1e-3}, draw={"input": off_centre}),
    Row("no_weight_two_axes", "rms_norm", {"input": (4, 5, 6)}, rms_norm, {"normalized_shape": (5, 6), "eps": 1e-6}),
    Row("usual_power", "local_response_norm", {"input": (2, 7, 5)}, local_response_norm, {"size": 5, "alpha": 0.5, "k": 2.0}),
    Row("even_size", "local_response_norm", {"input": (2, 4, 15, 11)}, local_response_norm, {"size": 4, "alpha": 0.3, "beta": 1.25, "k": 1.5}),
    Row("size_past_channels", "local_response_norm", {"input": (1, 3, 2, 2)}, local_response_norm, {"size": 9, "alpha": 0.3}),
    Row("euclidean", "normalize", {"input": (3, 5, 70)}, normalize),
    Row("rows", "normalize", {"input": (4, 300)}, normalize, {"dim": -1}),
    Row("p1", "normalize", {"input": (3, 300)}, normalize, {"p": 1}, draw=away_from_zero),
    Row("p3", "normalize", {"input": (3, 4, 5)}, normalize, {"p": 3.0, "dim": (0, 2)}, batched=(), draw=away_from_zero),
    Row("infinity", "normalize", {"input": (3, 20)}, normalize, {"p": np.inf}),
    Row("eps_decides", "normalize", {"input": (3, 20)}, normalize, {"eps": 100.0}),
]  # fmt: skip
