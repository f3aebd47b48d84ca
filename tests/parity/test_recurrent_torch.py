"""Recurrent networks beside PyTorch's modules and cells, over random options: outputs, last states and every gradient."""

from __future__ import annotations

import numpy as np
import pytest

import fastops
from fastops import _op

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "tanh": torch.nn.RNN, "relu": torch.nn.RNN}


def flat(values):
    if values is None:
        return []
    return [v for one in values for v in flat(one)] if isinstance(values, (tuple, list)) else [values]


def assert_close(found, expected, what):
    expected = expected.detach().numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    scale = max(np.abs(expected).max(), 1.0) if expected.size else 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=200 * np.finfo(expected.dtype).eps * scale, err_msg=what)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", MODULES)
def test_random_networks(kind, dtype):
    rng = np.random.default_rng(0)
    for number in range(25):
        T, I, H, layers = (int(n) for n in (rng.integers(1, 9), rng.integers(1, 9), rng.choice([2, 3, 8, 17, 40]), rng.integers(1, 4)))
        batched = rng.random() < 0.8
        N = int(rng.choice([1, 3, 8, 20, 70])) if batched else 1
        options = {"num_layers": layers, "bias": bool(rng.random() < 0.7), "batch_first": bool(rng.random() < 0.5), "bidirectional": bool(rng.random() < 0.5)}
        if kind == "lstm" and rng.random() < 0.4:
            options["proj_size"] = int(rng.integers(1, H))
        if kind in ("tanh", "relu"):
            options["nonlinearity"] = kind
        torch.manual_seed(number)
        module = MODULES[kind](I, H, **options).to(getattr(torch, dtype))

        def normal(*shape, rng=rng):
            return torch.from_numpy(rng.standard_normal(shape).astype(dtype)).requires_grad_(True)

        batch = [N] if batched else []
        x = normal(*((N, T) if batched and options["batch_first"] else (T, *batch)), I)
        states, P = layers * (1 + options["bidirectional"]), options.get("proj_size", H)
        hx = None
        if rng.random() < 0.7:
            hx = (normal(states, *batch, P), normal(states, *batch, H)) if kind == "lstm" else normal(states, *batch, H)
        ours = dict(options.items())
        if batched and rng.random() < 0.5:
            ours["lengths"] = rng.integers(1, T + 1, N)
            ours["lengths"][rng.integers(N)] = T
            first = options["batch_first"]
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(ours["lengths"]), first, enforce_sorted=False)
            y, last = module(packed, hx)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, first)
        else:
            y, last = module(x, hx)
        expected = flat((y, last))
        what = f"call {number}: T={T} N={N} I={I} H={H} {ours} hx={hx is not None}"

        op = _op.get(getattr(fastops, kind if kind in ("lstm", "gru") else "rnn"))
        weights = [p.detach().numpy() for p in module.parameters()]
        states_in = None if hx is None else tuple(h.detach().numpy() for h in hx) if kind == "lstm" else hx.detach().numpy()
        found, kept = op.record(x.detach().numpy(), states_in, weights, **ours)
        for one, other in zip(flat(found), expected, strict=True):
            assert_close(one, other, what)
        grads = [rng.standard_normal(one.shape).astype(dtype) for one in flat(found)]
        truth = torch.autograd.grad(expected, [x, *flat(hx), *module.parameters()], [torch.from_numpy(g) for g in grads])
        given = (grads[0], tuple(grads[1:]) if kind == "lstm" else grads[1])
        for one, other in zip(flat(op.backward(given, x.detach().numpy(), states_in, weights, **ours, **kept)), truth, strict=True):
            assert_close(one, other, f"{what}: gradient")


CELLS = {"lstm_cell": (4, torch.lstm_cell), "gru_cell": (3, torch.gru_cell), "tanh": (1, torch.rnn_tanh_cell), "relu": (1, torch.rnn_relu_cell)}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, dtype):
    gates, theirs = CELLS[kind]
    rng = np.random.default_rng(1)
    for batch in ([1], [20]):
        for bias in (True, False):
            I, H = 3, 17
            biases = [(gates * H,)] * 2 if bias else []
            state = [(*batch, H)] * (2 if kind == "lstm_cell" else 1)
            shapes = [(*batch, I), *state, (gates * H, I), (gates * H, H), *biases]
            arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
            leaves = [torch.from_numpy(a).requires_grad_(True) for a in arrays]
            cut = 1 + len(state)
            hx = [(values[1:cut] if kind == "lstm_cell" else values[1]) for values in (arrays, leaves)]
            expected = flat(theirs(leaves[0], hx[1], *leaves[cut:]))
            op = _op.get(getattr(fastops, kind if kind in ("lstm_cell", "gru_cell") else "rnn_cell"))
            options = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
            found, kept = op.record(arrays[0], hx[0], *arrays[cut:], **options)
            for one, other in zip(flat(found), expected, strict=True):
                assert_close(one, other, f"{kind} {batch}")
            grads = [rng.standard_normal(one.shape).astype(dtype) for one in flat(found)]
            truth = torch.autograd.grad(expected, leaves, [torch.from_numpy(g) for g in grads])
            gradients = op.backward(tuple(grads) if kind == "lstm_cell" else grads[0], arrays[0], hx[0], *arrays[cut:], **options, **kept)
            for one, other in zip(flat(gradients), truth, strict=True):
                assert_close(one, other, f"{kind} {batch}: gradient")
