"""Rows of embedding and embedding_bag, with references in float64 that go entry by entry."""

from __future__ import annotations

import numpy as np

from tests.harness import Row


def looked_up(input, weight, **ignored):
    return weight[input]


def bagged(input, weight, offsets=None, mode="mean", per_sample_weights=None, include_last_offset=False, padding_idx=None, **ignored):
    if input.ndim == 2:
        bags = [list(range(b * input.shape[1], (b + 1) * input.shape[1])) for b in range(input.shape[0])]
    else:
        ends = [*offsets[1:]] if include_last_offset else [*offsets[1:], input.size]
        bags = [list(range(begin, end)) for begin, end in zip(offsets, ends)]
    index = input.ravel()
    scale = np.ones(index.size) if per_sample_weights is None else per_sample_weights.ravel()
    output = np.zeros((len(bags), weight.shape[1]))
    for b, entries in enumerate(bags):
        rows = np.array([scale[k] * weight[index[k]] for k in entries if padding_idx is None or index[k] != padding_idx % len(weight)])
        if rows.size:
            output[b] = getattr(rows, mode)(axis=0)
    return output


def integers(below, *shape):
    def draw(rng):
        return rng.integers(0, below, shape)

    return draw


ROWS = [
    Row("batch", "embedding", {"weight": (7, 5)}, looked_up, {"input": integers(7, 3, 4)}, batched=()),
    Row("wide", "embedding", {"weight": (5, 70)}, looked_up, {"input": integers(5, 40), "sparse": True}, batched=()),
    Row("fixed", "embedding_bag", {"weight": (9, 20)}, bagged, {"input": integers(9, 6, 3)}, batched=()),
    Row(
        "weighted", "embedding_bag", {"weight": (9, 70), "per_sample_weights": (11,)}, bagged,
        {"input": integers(9, 11), "offsets": np.array([0, 4, 4, 9]), "mode": "sum"}, batched=(),
    ),
    Row(
        "padded", "embedding_bag", {"weight": (4, 3), "per_sample_weights": (5, 6)}, bagged,
        {"input": integers(4, 5, 6), "mode": "sum"}, batched=(),
    ),
    Row(
        "max", "embedding_bag", {"weight": (9, 5)}, bagged,
        {"input": integers(9, 11), "offsets": np.array([0, 4, 4, 8, 11]), "mode": "max", "include_last_offset": True}, batched=(),
    ),
]  # fmt: skip
