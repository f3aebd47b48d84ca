"""Networks of sequences and graphs: parameters, shapes, gradients, and that they learn."""

import numpy as np
import pytest

import fastops
import fastops.functional as F
from fastops import models, optim
from fastops.models import Builder
from fastops.models.recurrent import LSTM
from fastops.models.transformer import LayerNorm, SelfAttention, encoder_layer

EDGES = np.array([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])


def sequences(rng):
    return (rng.standard_normal((2, 3, 2)),)


def symbols(rng):
    return (rng.integers(0, 5, (2, 3)),)


def graph(rng):
    return rng.standard_normal((5, 3)), EDGES


# Each small enough for a difference quotient, with options that differ.
TINY = {
    "transformer": (models.transformer, {"num_classes": 3, "features": 2, "length": 4, "width": 4, "heads": 2, "layers": 1}, sequences, (2, 3)),
    "transformer post-norm": (
        models.transformer,
        {"num_classes": 3, "features": 2, "length": 3, "width": 4, "heads": 1, "layers": 2, "hidden": 5, "norm_first": False},
        sequences, (2, 3),
    ),
    "language_model": (models.language_model, {"symbols": 5, "length": 3, "width": 4, "heads": 2, "layers": 1, "dropout": 0.2}, symbols, (2, 3, 5)),
    "language_model rotary": (
        models.language_model, {"symbols": 5, "length": 2, "width": 8, "heads": 2, "layers": 1, "rotary": True, "tied": False}, symbols, (2, 3, 5),
    ),
    "lstm": (models.lstm, {"num_classes": 3, "features": 2, "hidden": 4}, sequences, (2, 3)),
    "lstm both": (models.lstm, {"num_classes": 3, "features": 2, "hidden": 3, "layers": 2, "bidirectional": True, "dropout": 0.3}, sequences, (2, 3)),
    "gcn": (models.gcn, {"num_classes": 2, "features": 3, "width": 4}, graph, (5, 2)),
    "graph_sage": (models.graph_sage, {"num_classes": 2, "features": 3, "width": 4}, graph, (5, 2)),
    "gat": (models.gat, {"num_classes": 2, "features": 3, "width": 2, "heads": 2, "layers": 3}, graph, (5, 2)),
}  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=TINY)
def case(request, rng):
    make, options, inputs, shape = TINY[request.param]
    return make(**options), inputs(rng), shape


def test_shapes_gradients_and_seeds(case, rng):
    model, inputs, shape = case
    params, buffers = model.init(rng=1, dtype=np.float64)
    assert not buffers
    for name, array in params.items():  # attention of zero biases is no test
        array += 0.3 * rng.standard_normal(array.shape)
        assert array.shape == model.entries[name].shape
    y, _ = model.apply(params, buffers, *inputs)
    assert y.shape == shape
    np.testing.assert_allclose(model.prepare(params, buffers)(*inputs), y, rtol=1e-12)
    fastops.check_grad(lambda p: model.apply(p, buffers, *inputs, training=True, rng=7)[0], params)

    random = any(getattr(step.layer, "p", 0) or getattr(step.layer, "dropout", 0) for step in model.steps)
    trained = [model.apply(params, buffers, *inputs, training=True, rng=seed)[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert np.array_equal(trained[0], trained[2]) != random


def test_a_step_of_training_lowers_the_loss(case):
    model, inputs, shape = case
    params, buffers = model.init(rng=1)
    inputs = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]
    labels = np.arange(np.prod(shape[:-1])) % shape[-1]
    opt = optim.adam(lr=0.02)
    state, losses = opt.init(params), []

    def loss(params):
        y, _ = model.apply(params, buffers, *inputs)
        return F.cross_entropy(y.reshape(-1, shape[-1]), labels)

    for _ in range(10):
        value, grads = fastops.value_and_grad(loss)(params)
        assert all(g.dtype == np.float32 for g in grads.values())
        params, state = opt.update(params, grads, state)
        losses.append(float(value))
    assert losses[-1] < losses[0]


def test_shapes_are_known_and_what_does_not_fit_is_named():
    model = models.transformer()
    assert model.shapes((6, 8))[model.outputs[0]] == (10,)
    with pytest.raises(ValueError, match=r"transformer: position: sequences must have at most 8 steps, got 9"):
        model.shapes((9, 8))
    with pytest.raises(ValueError, match=r"sequences must have at most 8 steps, got 9"):
        model.apply(*model.init(rng=0), np.zeros((1, 9, 8), np.float32))
    assert models.lstm(hidden=16, bidirectional=True).shapes((5, 8))[1] == (32,)
    assert models.gat().shapes()[-1] == (2,)
    for heads, rotary in ((3, False), (4, True), (0, False)):
        with pytest.raises(ValueError, match=f"heads must have .*, got {heads} for 4"):
            SelfAttention(4, heads, rotary=rotary)


def test_multiply_adds():
    attention = SelfAttention(8, 2)
    assert attention.multiply_adds([(5, 8)], (5, 8)) == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert SelfAttention(8, 2, causal=True).multiply_adds([(5, 8)], (5, 8)) == 4 * 5 * 8 * 8 + 2 * 15 * 8
    assert LSTM(3, 4).multiply_adds([(5, 3)], (4,)) == 5 * 16 * 7


def test_a_causal_model_does_not_see_what_comes(rng):
    for rotary in (False, True):
        model = models.language_model(9, length=6, width=8, heads=2, rotary=rotary)
        params, _ = model.init(rng=0)
        x = rng.integers(0, 9, (1, 6))
        y = model.apply(params, {}, x)[0]
        x[0, 4] = (x[0, 4] + 1) % 9
        other = model.apply(params, {}, x)[0]
        np.testing.assert_allclose(y[:, :4], other[:, :4], atol=1e-6)
        assert np.abs(y - other)[:, 4:].max(axis=-1).min() > 1e-4


def test_rotary_attention_depends_on_distances_alone(rng):
    net = Builder("turned")
    model = net.build(net.layer("self_attn", SelfAttention(8, 2, rotary=True), net.input(None, 8)))
    params, _ = model.init(rng=0, dtype=np.float64)
    x = rng.standard_normal((1, 3, 8))
    far = model.apply(params, {}, np.concatenate([x, x], axis=1))[0]
    plain = Builder("plain")
    still = plain.build(plain.layer("self_attn", SelfAttention(8, 2), plain.input(None, 8)))
    near = still.apply(params, {}, np.concatenate([x, x], axis=1))[0]
    np.testing.assert_allclose(near[:, :3], near[:, 3:])  # without positions the halves are alike
    assert np.abs(far[:, :3] - far[:, 3:]).max() > 1e-4


def test_a_tied_head_shares_the_embedding():
    tied, own = models.language_model(50, width=16), models.language_model(50, width=16, tied=False)
    assert "head.weight" not in tied.entries
    assert own.entries["head.weight"].shape == tied.entries["embedding.weight"].shape == (50, 16)
    grads = fastops.grad(lambda p: F.cross_entropy(tied.apply(p, {}, np.array([[3]]))[0][0], np.array([4])))(tied.init(rng=0)[0])
    assert (np.abs(grads["embedding.weight"]).max(axis=1) > 0).all()  # each row is one of the logits


@pytest.fixture(scope="module")
def trained():
    """A language model that knows 0 1 2 3 0 1 2 3 ..."""
    model = models.language_model(4, length=8, width=16, heads=2, layers=1)
    params, _ = model.init(rng=0)
    opt = optim.adam(lr=0.01)
    state = opt.init(params)
    x = (np.arange(9) + np.arange(4)[:, None]) % 4

    def loss(params):
        return F.cross_entropy(model.apply(params, {}, x[:, :-1])[0].reshape(-1, 4), x[:, 1:].reshape(-1))

    for _ in range(60):
        value, grads = fastops.value_and_grad(loss)(params)
        params, state = opt.update(params, grads, state, inplace=True)
    assert value < 0.1
    return model, params


class TestGenerate:
    def test_goes_on_beyond_its_length(self, trained):
        model, params = trained
        np.testing.assert_array_equal(model.generate(params, [2, 3], 20, 0.0), np.arange(20) % 4)
        assert model.generate(params, [1], 0).shape == (0,)
        long = np.arange(30) % 4
        np.testing.assert_array_equal(model.generate(params, long, 5, 0.0), [2, 3, 0, 1, 2])

    def test_follows_the_seed_and_the_temperature(self, trained):
        model, params = trained
        draws = [model.generate(params, [0], 30, 5.0, rng=seed) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.array_equal(draws[0], draws[2])
        np.testing.assert_array_equal(model.generate(params, [0], 6, 0.05, rng=3), [1, 2, 3, 0, 1, 2])

    def test_draws_as_the_softmax_says(self):
        model = models.language_model(3, length=2, width=4, heads=1, layers=1, tied=False)
        params, _ = model.init(rng=0, dtype=np.float64)
        params["embedding.weight"][:] = 1.0  # whatever came before
        params["norm.bias"][:] = [1, 0, 0, 0]
        params["norm.weight"][:] = 0
        params["head.weight"][:, 0] = np.log([0.6, 0.3, 0.1])
        drawn = model.generate(params, [0], 2000, rng=0)
        np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 2000, [0.6, 0.3, 0.1], atol=0.04)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (([], 3), r"prompt must be one or more integers in one axis, got shape \(0,\), float64"),
            (([[1]], 3), r"prompt must be .*got shape \(1, 1\), int64"),
            (([1], -1), "length must be at least 0, got -1"),
            (([1], 1, -0.5), "temperature must be finite and not negative, got -0.5"),
            (([1], 1, float("nan")), "temperature must be finite and not negative, got nan"),
            (([4], 1), "input must"),
        ],
    )
    def test_refuses(self, trained, arguments, message):
        model, params = trained
        with pytest.raises(ValueError, match=message):
            model.generate(params, *arguments)


def test_blocks_take_pytorchs_names():
    net = Builder("encoder")
    x = net.input(None, 6)
    with net.scope("layers.0"):
        x = encoder_layer(net, x, 2, 12)
    model = net.build(net.layer("norm", LayerNorm(6), x))
    assert list(model.entries) == [
        "layers.0.self_attn.in_proj_weight", "layers.0.self_attn.in_proj_bias", "layers.0.self_attn.out_proj.weight",
        "layers.0.self_attn.out_proj.bias", "layers.0.norm1.weight", "layers.0.norm1.bias", "layers.0.linear1.weight",
        "layers.0.linear1.bias", "layers.0.linear2.weight", "layers.0.linear2.bias", "layers.0.norm2.weight", "layers.0.norm2.bias",
        "norm.weight", "norm.bias",
    ]  # fmt: skip
    assert list(models.lstm(layers=2, bidirectional=True).entries)[:5] == [
        "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0", "lstm.weight_ih_l0_reverse",
    ]  # fmt: skip
    assert {name: entry.shape for name, entry in models.gat(width=8, heads=4).entries.items()} == {
        "convs.0.att_src": (1, 4, 8), "convs.0.att_dst": (1, 4, 8), "convs.0.bias": (32,), "convs.0.lin.weight": (32, 34),
        "convs.1.att_src": (1, 1, 2), "convs.1.att_dst": (1, 1, 2), "convs.1.bias": (2,), "convs.1.lin.weight": (2, 32),
    }  # fmt: skip
    assert set(models.graph_sage(layers=1).entries) == {"convs.0.lin_l.weight", "convs.0.lin_l.bias", "convs.0.lin_r.weight"}
    assert set(models.gcn(layers=1).entries) == {"convs.0.lin.weight", "convs.0.bias"}


@pytest.mark.parametrize("name", ["transformer", "language_model", "lstm", "gcn", "graph_sage", "gat"])
@pytest.mark.parametrize("layers, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_the_number_of_layers(name, layers, error):
    with pytest.raises(error, match=f"{name}: layers must be"):
        getattr(models, name)(layers=layers)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: models.language_model(dropout=2.0), "dropout: p must be from 0 to 1, got 2.0"),
        (lambda: models.transformer(dropout=-0.5), "dropout must be from 0 to 1, got -0.5"),
        (lambda: models.lstm(dropout=1.5), "lstm: dropout must be from 0 to 1"),
        (lambda: models.gcn(dropout=float("nan")), "dropout: p must be from 0 to 1"),
        (lambda: models.transformer(features=0), r"transformer: embedding: the shape of weight must be of positive integers, got \(64, 0\)"),
        (lambda: models.lstm(hidden=0), "lstm: lstm: the shape of weight_ih_l0 must be of positive integers"),
    ],
)  # fmt: skip
def test_what_networks_of_sequences_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_generate_takes_any_temperature_and_names_what_it_does_not_take():
    model = models.language_model(symbols=16, length=8, width=16, heads=2)
    params, _ = model.init(rng=0)
    likeliest = model.generate(params, [1, 2, 3], 4, temperature=0)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(model.generate(params, [1, 2, 3], 4, temperature=1e-320, rng=0), likeliest)
    for more, message in [({"length": 2.5}, "length must be an integer, got 2.5"), ({"length": 3, "temperature": "1"}, "temperature must be a real number")]:
        with pytest.raises(TypeError, match=f"language_model: {message}"):
            model.generate(params, [1], **more)
