"""Recurrent networks: the contract of every operation, their corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from fastops import _op, _threads
from fastops.ops.recurrent import steps
from tests.cases import recurrent
from tests.cases.recurrent import ROWS, shapes
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


def drawn(shape_list, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) / 2 for shape in shape_list]


def test_no_states_are_zeros():
    (x,) = drawn([(4, 3, 2)])
    weights = drawn(shapes(4, 2, 5), 1)
    zeros = np.zeros((1, 3, 5))
    y, (h, c) = fastops.lstm(x, None, weights)
    for given in ((zeros, zeros), (None, zeros)):
        same, (same_h, same_c) = fastops.lstm(x, given, weights)
        assert_same_bits(same, y)
        assert_same_bits(same_h, h)
        assert_same_bits(same_c, c)
    assert_same_bits(h[0], y[-1])
    dx, dhx, dw = fastops.lstm_backward((y, None), x, (None, zeros), weights)
    assert dhx[0] is None
    assert dhx[1].shape == zeros.shape
    dx_too, none, dw_too = fastops.lstm_backward((y, (None, None)), x, None, weights)
    assert none is None
    for a, b in zip([dx, *dw], [dx_too, *dw_too]):
        assert_same_bits(a, b)


def test_without_a_batch():
    x, h0 = drawn([(4, 2), (1, 5)])
    weights = drawn(shapes(3, 2, 5), 1)
    y, h = fastops.gru(x, h0, weights)
    batched, h_batched = fastops.gru(x[:, None], h0[:, None], weights)
    assert_same_bits(y, batched[:, 0])
    assert_same_bits(h, h_batched[:, 0])
    dx, dh0, _ = fastops.gru_backward((y, h), x, h0, weights)
    assert (dx.shape, dh0.shape) == (x.shape, h0.shape)
    w = drawn(shapes(4, 2, 5), 2)
    h, c = fastops.lstm_cell(x[0], None, *w)
    y, (h_last, c_last) = fastops.lstm(x[:1], None, w)
    assert_same_bits(h, h_last[0])
    assert_same_bits(c, c_last[0])


def test_an_empty_batch():
    weights = drawn(shapes(4, 2, 5))
    y, (h, c) = fastops.lstm(np.zeros((4, 0, 2)), None, weights)
    assert (y.shape, h.shape, c.shape) == ((4, 0, 5), (1, 0, 5), (1, 0, 5))
    dx, _, dw = fastops.lstm_backward((y, (h, c)), np.zeros((4, 0, 2)), None, weights)
    assert dx.shape == (4, 0, 2)
    for g, w in zip(dw, weights):
        assert_same_bits(g, np.zeros_like(w))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_what_stands_in_the_padding_does_not_matter(name):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name]
    (x,) = drawn([(4, 3, 2)])
    weights = drawn(shapes(gates, 2, 5, 1, 2), 1)
    options = {"bidirectional": True, "lengths": [4, 1, 2]}
    wild = x.copy()
    wild[1:, 1] = np.nan
    wild[2:, 2] = np.inf
    op, results = _op.get(name), []
    for given in (x, wild):
        (y, last), kept = op.record(given, None, weights, **options)
        dx, _, dw = op.backward((np.cos(y), None), given, None, weights, **options, **kept)
        results.append([y, *(last if name == "lstm" else [last]), dx, *dw])
    for a, b in zip(*results):
        assert_same_bits(b, a)
    y, *_, dx = results[0][:4]
    assert (y[1:, 1] == 0).all()
    assert (y[2:, 2] == 0).all()
    dx = results[0][3 if name == "lstm" else 2]
    assert (dx[1:, 1] == 0).all()


def test_dropout_between_layers():
    (x,) = drawn([(6, 40, 8)])
    weights = drawn(shapes(3, 8, 20, 2), 1)
    options = {"num_layers": 2, "dropout": 0.5}
    plain = fastops.gru(x, None, weights, num_layers=2)
    assert_same_bits(fastops.gru(x, None, weights, **options)[0], plain[0])  # not in training
    one = fastops.gru(x, None, weights, **options, training=True, rng=3)
    two = fastops.gru(x, None, weights, **options, training=True, rng=3)
    assert_same_bits(one[0], two[0])
    assert_same_bits(one[1][0], plain[1][0])  # the first layer's states are not dropped
    assert (one[0] != plain[0]).any()
    # as a layer above a layer whose output is dropped
    below, _ = fastops.gru(x, None, weights[:4])
    (y, _), kept = _op.get("gru").record(x, None, weights, **options, training=True, rng=np.random.default_rng(0))
    _, _, dw = fastops.gru_backward((np.cos(y), None), x, None, weights, **options, training=True, **kept)
    rng = np.random.default_rng(1)
    for i, g in [(0, dw[0]), (4, dw[4]), (5, dw[5])]:
        step = 1e-5 * rng.standard_normal(g.shape)
        moved = [[w + s * step if j == i else w for j, w in enumerate(weights)] for s in (1, -1)]
        ahead, behind = (np.sin(fastops.gru(x, None, w, **options, training=True, rng=kept["rng"])[0]).sum() for w in moved)
        np.testing.assert_allclose((ahead - behind) / 2, np.vdot(g, step), rtol=1e-6)
    all_dropped = fastops.gru(x, None, weights, num_layers=2, dropout=1.0, training=True)[0]
    np.testing.assert_allclose(all_dropped, fastops.gru(np.zeros_like(below), None, weights[4:])[0], rtol=0, atol=1e-15)


def test_the_gradient_is_the_same_without_what_was_kept():
    for row in ROWS:
        op = _op.get(row.op)
        arguments = row.together(row.arguments())
        output, kept = op.record(**arguments)
        one, two = (op.backward(output, **arguments, **more) for more in (kept, {}))
        for a, b in zip(one, two):
            for p, q in zip(a if isinstance(a, list) else [a], b if isinstance(b, list) else [b]):
                if p is not None:
                    assert_same_bits(p, q)


WRONG = [
    ({"input": np.zeros(3)}, ValueError, "input"),
    ({"input": np.zeros((0, 3, 2))}, ValueError, "input"),
    ({"input": np.zeros((4, 3, 2), int)}, TypeError, "input"),
    ({"hx": np.zeros((1, 3, 5))}, TypeError, "hx"),
    ({"hx": (np.zeros((2, 3, 5)), None)}, ValueError, r"hx\[0\]"),
    ({"hx": (None, np.zeros((1, 3, 4)))}, ValueError, r"hx\[1\]"),
    ({"hx": (None, np.zeros((1, 3, 5), np.float32))}, TypeError, r"hx\[1\]"),
    ({"weights": np.zeros((20, 2))}, TypeError, "weights"),
    ({"weights": [np.zeros((20, 2))]}, ValueError, "weights"),
    ({"weights": [np.zeros(s) for s in ((21, 2), (20, 5), (20,), (20,))]}, ValueError, r"weights\[0\]"),
    ({"weights": [np.zeros(s) for s in ((20, 3), (20, 5), (20,), (20,))]}, ValueError, r"weights\[0\]"),
    ({"weights": [np.zeros(s) for s in ((20, 2), (20, 4), (20,), (20,))]}, ValueError, r"weights\[1\]"),
    ({"weights": [np.zeros(s) for s in ((20, 2), (20, 5), (20,), (19,))]}, ValueError, r"weights\[3\]"),
    ({"bias": False}, ValueError, "weights"),
    ({"num_layers": 0}, ValueError, "num_layers"),
    ({"num_layers": 2}, ValueError, "weights"),
    ({"proj_size": -1}, ValueError, "proj_size"),
    ({"proj_size": 5, "weights": [np.zeros(s) for s in ((20, 2), (20, 5), (20,), (20,), (5, 5))]}, ValueError, "proj_size"),
    ({"dropout": 2}, ValueError, "dropout"),
    ({"lengths": [1, 2]}, ValueError, "lengths"),
    ({"lengths": [1, 2, 0]}, ValueError, "lengths"),
    ({"lengths": [1, 2, 5]}, ValueError, "lengths"),
    ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths"),
    ({"lengths": [1], "input": np.zeros((4, 2))}, ValueError, "lengths"),
]


@pytest.mark.parametrize(("change", "error", "argument"), WRONG)
def test_wrong_arguments(change, error, argument):
    given = {"input": np.zeros((4, 3, 2)), "hx": None, "weights": [np.zeros(s) for s in shapes(4, 2, 5)], **change}
    with pytest.raises(error) as caught:
        fastops.lstm(**given)
    assert re.match(rf"lstm: {argument}(?!\w)", str(caught.value)), caught.value


def test_wrong_arguments_of_others():
    x, weights = np.zeros((4, 3, 2)), [np.zeros(s) for s in shapes(1, 2, 5)]
    with pytest.raises(ValueError, match="rnn: nonlinearity must be"):
        fastops.rnn(x, None, weights, nonlinearity="relu6")
    with pytest.raises(ValueError, match="rnn_backward: grad_output must have"):
        fastops.rnn_backward((np.zeros((4, 3, 6)), None), x, None, weights)
    with pytest.raises(TypeError, match="lstm_cell: hx must be None or a pair"):
        fastops.lstm_cell(x[0], np.zeros((3, 5)), *(np.zeros(s) for s in shapes(4, 2, 5)))
    with pytest.raises(ValueError, match="gru_cell: w_hh must have shape"):
        fastops.gru_cell(x[0], None, np.zeros((15, 2)), np.zeros((15, 4)))
    with pytest.raises(ValueError, match="gru_cell: input must have axes"):
        fastops.gru_cell(x, None, np.zeros((15, 2)), np.zeros((15, 5)))


def _outputs_and_gradients(name, x, dy, weights, options, threads):
    fastops.set_num_threads(threads)
    operation = getattr(fastops, name)
    plain = operation(x, None, weights, **options)[0]
    loss = fastops.value_and_grad(lambda x, w: (operation(x, None, w, **options)[0] * dy).sum(), argnums=(0, 1))
    value, (dx, dw) = loss(x, weights)
    return [plain, np.asarray(value), dx, *dw]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_steps_multiply_their_own_input(name, dtype, monkeypatch):
    """As long sequences do, whose sums would not stay in cache: the same numbers, whether they are kept for a gradient or not."""
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    gates, T, N, I, H = {"lstm": 4, "gru": 3, "rnn": 1}[name], 5, 19, 300, 7
    rng = np.random.default_rng(0)
    for P, bias in ((H, True), (3, True), (H, False)) if name == "lstm" else ((H, True), (H, False)):
        each = [(gates * H, I), (gates * H, P), *([(gates * H,)] * 2 if bias else []), *([(P, H)] if P < H else [])]
        weights = [(rng.standard_normal(shape) / 4).astype(dtype) for shape in each + each]
        x, dy = rng.standard_normal((T, N, I)).astype(dtype), rng.standard_normal((T, N, 2 * P)).astype(dtype)
        options = {"bidirectional": True, "bias": bias, "lengths": rng.integers(1, T + 1, N), **({"proj_size": P} if P < H else {})}
        expected = _outputs_and_gradients(name, x, dy, weights, options, 1)
        with monkeypatch.context() as patched:
            patched.setattr(steps, "_FAR_SUMS", 0)
            alone, together = (_outputs_and_gradients(name, x, dy, weights, options, threads) for threads in (1, _threads._available()))
        for a, b, c in zip(expected, alone, together, strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=np.abs(a).max() * (2e-5 if dtype == np.float32 else 1e-13))
            assert_same_bits(c, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N, I, H", [(2, 9, 50), (5, 300, 33), (32, 257, 40), (64, 1, 130), (300, 20, 3)])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_a_cell_of_few_rows_and_of_many(name, N, I, H, dtype, monkeypatch):
    """Weights are read as they lie, packed, or multiplied with packed rows, and rows are shared out: the reference, on any number of threads."""
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    rng = np.random.default_rng(0)
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name]
    for bias in (True, False):
        each = [(gates * H, I), (gates * H, H), *([(gates * H,)] * 2 if bias else [])]
        x, state, c, *weights = ((rng.standard_normal(shape) / 4).astype(dtype) for shape in [(N, I), (N, H), (N, H), *each])
        states = (state, c) if name == "lstm" else (state,)
        step = {"lstm": recurrent.lstm_step, "gru": recurrent.gru_step, "rnn": recurrent.tanh_step}[name]
        expected = step(*(x.astype(float), [s.astype(float) for s in states]), *(w.astype(float) for w in weights))
        found = []
        for threads in (1, _threads._available()):
            fastops.set_num_threads(threads)
            y = getattr(fastops, f"{name}_cell")(x, states if name == "lstm" else state, *weights)
            found.append(y if name == "lstm" else (y,))
        for alone, together, right in zip(*found, expected, strict=True):
            np.testing.assert_allclose(alone, right, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
            assert_same_bits(together, alone)
