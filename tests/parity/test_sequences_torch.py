"""Networks of sequences beside PyTorch: the same weights give the same outputs and gradients."""

import numpy as np
import pytest

import fastops
from fastops import models
from fastops.models import Builder
from fastops.models.transformer import LayerNorm, encoder_layer

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def compare(model, network, x, training=True, outputs=lambda y: y):
    """``network`` takes the parameters of ``model``; outputs and the gradients of a random projection of them agree."""
    params, _ = model.init(rng=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    for array in params.values():
        array += 0.1 * rng.standard_normal(array.shape)
    network = network.double().train(training)
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in params.items()})
    y = model.apply(params, {}, x, training=training)[0]
    their_x = torch.from_numpy(x.copy())
    if x.dtype.kind == "f":
        their_x.requires_grad_()
    theirs = outputs(network(their_x))
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=1e-9, atol=1e-11)
    direction = rng.standard_normal(y.shape)
    (theirs * torch.from_numpy(direction)).sum().backward()
    grads = fastops.grad(lambda p: (model.apply(p, {}, x, training=training)[0] * direction).sum())(params)
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(grads[name], parameter.grad.numpy(), rtol=1e-8, atol=1e-9, err_msg=name)
    if x.dtype.kind == "f":
        dx = fastops.grad(lambda x: (model.apply(params, {}, x, training=training)[0] * direction).sum())(x)
        np.testing.assert_allclose(dx, their_x.grad.numpy(), rtol=1e-8, atol=1e-9)


def encoder(layers, norm_first, activation, final, causal=False):
    net = Builder("encoder")
    x = net.input(None, 12)
    for i in range(layers):
        with net.scope(f"layers.{i}"):
            x = encoder_layer(net, x, 3, 20, 0.0, activation, norm_first=norm_first, causal=causal)
    return net.build(net.layer("norm", LayerNorm(12), x) if final else x)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation, final, causal, training", [("relu", False, False, True), ("gelu", True, True, True), ("gelu", True, False, False)])
def test_encoder(norm_first, activation, final, causal, training):
    layer = torch.nn.TransformerEncoderLayer(12, 3, 20, 0.0, activation, batch_first=True, norm_first=norm_first)
    network = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(12) if final else None, enable_nested_tensor=False)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7).double() if causal else None
    forward = network.forward
    network.forward = lambda x: forward(x, mask=mask, is_causal=causal)
    compare(encoder(2, norm_first, activation, final, causal), network, np.random.default_rng(0).standard_normal((4, 7, 12)), training)


def test_initial_values_are_distributed_as_pytorchs():
    model = encoder(1, False, "relu", False)
    params, _ = model.init(rng=0)
    theirs = torch.nn.TransformerEncoderLayer(12, 3, 20, batch_first=True).state_dict()
    for name, array in theirs.items():
        mine = params[f"layers.0.{name}"]
        if np.ptp(array.numpy()) == 0:
            np.testing.assert_array_equal(mine, array)
        else:
            assert np.abs(mine).max() == pytest.approx(array.abs().max().item(), rel=0.35), name


class Classifier(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 6, batch_first=True, **options)
        self.fc = torch.nn.Linear(6 * (2 if self.lstm.bidirectional else 1), 3)

    def forward(self, x):
        h = self.lstm(x)[1][0]
        return self.fc(torch.cat([h[-2], h[-1]], 1) if self.lstm.bidirectional else h[-1])


@pytest.mark.parametrize("options, given", [({}, {}), ({"layers": 2, "bidirectional": True}, {"num_layers": 2, "bidirectional": True})])
def test_lstm(options, given):
    compare(models.lstm(3, features=5, hidden=6, **options), Classifier(**given), np.random.default_rng(0).standard_normal((4, 7, 5)))


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 12)
        self.position = torch.nn.Embedding(7, 12)
        block = torch.nn.TransformerEncoderLayer(12, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(block, 2, enable_nested_tensor=False).layers
        self.norm = torch.nn.LayerNorm(12)

    def forward(self, symbols):
        x = self.embedding(symbols) + self.position.weight
        mask = torch.nn.Transformer.generate_square_subsequent_mask(7).double()
        for layer in self.layers:
            x = layer(x, mask, is_causal=True)
        return self.norm(x) @ self.embedding.weight.T


def test_language_model():
    compare(models.language_model(9, length=7, width=12, heads=3), Decoder(), np.random.default_rng(0).integers(0, 9, (4, 7)))
