"""Rows of the recurrent operations, with references in float64 that are written for reading."""

from __future__ import annotations

import numpy as np

from tests.harness import Row


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(x, states, w_ih, w_hh, b_ih=0.0, b_hh=0.0, w_hr=None):
    h, c = states
    i, f, g, o = np.split(x @ w_ih.T + h @ w_hh.T + b_ih + b_hh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h if w_hr is None else h @ w_hr.T), c


def gru_step(x, states, w_ih, w_hh, b_ih=0.0, b_hh=0.0):
    (h,) = states
    xr, xz, xn = np.split(x @ w_ih.T + b_ih, 3, axis=-1)
    hr, hz, hn = np.split(h @ w_hh.T + b_hh, 3, axis=-1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    return ((1 - z) * np.tanh(xn + r * hn) + z * h,)


def tanh_step(x, states, w_ih, w_hh, b_ih=0.0, b_hh=0.0):
    return (np.tanh(x @ w_ih.T + states[0] @ w_hh.T + b_ih + b_hh),)


def relu_step(x, states, w_ih, w_hh, b_ih=0.0, b_hh=0.0):
    return (np.maximum(x @ w_ih.T + states[0] @ w_hh.T + b_ih + b_hh, 0),)


def through_time(step, x, states, weights, lengths, reverse):
    """One layer in one direction, row after row of the batch: (T, N, P), and the last states."""
    out, last = None, [np.zeros_like(s) for s in states]
    for n, length in enumerate(lengths):
        own = [s[n : n + 1] for s in states]
        for t in reversed(range(length)) if reverse else range(length):
            own = step(x[t, n : n + 1], own, *weights)
            if out is None:
                out = np.zeros((*x.shape[:2], own[0].shape[1]))
            out[t, n] = own[0][0]
        for whole, one in zip(last, own):
            whole[n] = one[0]
    return out, last


def network(step, input, states, weights, each, num_layers=1, bidirectional=False, batch_first=False, lengths=None):
    x = input.swapaxes(0, 1) if batch_first else input
    lengths = [len(x)] * x.shape[1] if lengths is None else lengths
    last = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(1 + bidirectional):
            at = layer * (1 + bidirectional) + direction
            y, ends = through_time(step, x, [s[at] for s in states], weights[at * each : (at + 1) * each], lengths, direction == 1)
            outputs.append(y)
            last.append(ends)
        x = np.concatenate(outputs, axis=-1)
    return (x.swapaxes(0, 1) if batch_first else x), tuple(np.stack(kind) for kind in zip(*last))


def lstm(input, hx, weights, proj_size=0, **options):
    # without biases there is nothing between w_hh and w_hr
    return network(lstm_step, input, hx, weights, 5 if proj_size else 4, **options)


def gru(input, hx, weights, **options):
    y, (h,) = network(gru_step, input, [hx], weights, 4, **options)
    return y, h


def rnn(input, hx, weights, nonlinearity="tanh", bias=True, **options):
    y, (h,) = network(relu_step if nonlinearity == "relu" else tanh_step, input, [hx], weights, 4 if bias else 2, **options)
    return y, h


def lstm_cell(input, hx, w_ih, w_hh, b_ih, b_hh):
    return lstm_step(input, hx, w_ih, w_hh, b_ih, b_hh)


def gru_cell(input, hx, w_ih, w_hh, b_ih, b_hh):
    return gru_step(input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity="tanh"):
    biases = [0.0 if b is None else b for b in (b_ih, b_hh)]
    return (relu_step if nonlinearity == "relu" else tanh_step)(input, (hx,), w_ih, w_hh, *biases)[0]


def small(rng, shape):
    """Sums well inside the curved part of the gates."""
    return rng.standard_normal(shape) / 2


def shapes(gates, I, H, layers=1, directions=1, P=None, bias=True):
    """Shapes of the weights in order."""
    found = []
    for layer in range(layers):
        inputs = I if layer == 0 else directions * (P or H)
        own = [(gates * H, inputs), (gates * H, P or H), *([(gates * H,)] * 2 if bias else []), *([(P, H)] if P else [])]
        found += own * directions
    return found


def cell(gates, N, I, H, hx):
    return {"input": (N, I), "hx": hx, "w_ih": (gates * H, I), "w_hh": (gates * H, H), "b_ih": (gates * H,), "b_hh": (gates * H,)}


# Deep compositions bend more than the usual step allows for.
STEP = 2.0**-16

ENDS = np.array([2, 4, 1])

ROWS = [
    Row("plain", "lstm", {"input": (5, 9, 3), "hx": [(1, 9, 4), (1, 9, 4)], "weights": shapes(4, 3, 4)}, lstm, batched=(), draw=small, step=STEP),
    Row(
        "both_directions",
        "lstm",
        {"input": (3, 4, 2), "hx": [(4, 3, 5), (4, 3, 5)], "weights": shapes(4, 2, 5, 2, 2)},
        lstm,
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "lengths": ENDS},
        batched=(),
        draw=small,
        step=STEP,
    ),
    Row(
        "projected",
        "lstm",
        {"input": (4, 3, 2), "hx": [(2, 3, 3), (2, 3, 5)], "weights": shapes(4, 2, 5, 1, 2, 3)},
        lstm,
        {"bidirectional": True, "proj_size": 3, "lengths": ENDS},
        batched=(),
        draw=small,
        step=STEP,
    ),
    Row("plain", "gru", {"input": (5, 9, 3), "hx": (1, 9, 4), "weights": shapes(3, 3, 4)}, gru, batched=(), draw=small, step=STEP),
    Row(
        "both_directions",
        "gru",
        {"input": (4, 3, 2), "hx": (4, 3, 5), "weights": shapes(3, 2, 5, 2, 2)},
        gru,
        {"num_layers": 2, "bidirectional": True, "lengths": ENDS},
        batched=(),
        draw=small,
        step=STEP,
    ),
    Row(
        "tanh",
        "rnn",
        {"input": (3, 4, 2), "hx": (4, 3, 5), "weights": shapes(1, 2, 5, 2, 2)},
        rnn,
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "lengths": ENDS},
        batched=(),
        draw=small,
        step=STEP,
    ),
    Row(
        "relu",
        "rnn",
        {"input": (5, 3, 2), "hx": (1, 3, 4), "weights": shapes(1, 2, 4, bias=False)},
        rnn,
        {"nonlinearity": "relu", "bias": False},
        batched=(),
        draw=small,
        step=STEP,
    ),
    Row("step", "lstm_cell", cell(4, 3, 2, 5, [(3, 5), (3, 5)]), lstm_cell, batched=(), draw=small, step=STEP),
    Row("step", "gru_cell", cell(3, 3, 2, 5, (3, 5)), gru_cell, batched=("input", "hx"), draw=small, step=STEP),
    Row("tanh", "rnn_cell", cell(1, 3, 2, 5, (3, 5)), rnn_cell, batched=("input", "hx"), draw=small, step=STEP),
    Row(
        "relu",
        "rnn_cell",
        {"input": (3, 2), "hx": (3, 5), "w_ih": (5, 2), "w_hh": (5, 5)},
        rnn_cell,
        {"nonlinearity": "relu"},
        batched=("input", "hx"),
        draw=small,
        step=STEP,
    ),
]
