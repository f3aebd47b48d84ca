"""Networks beside PyTorch: the same weights give the same output, the same gradients and the same buffers."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

import fastops
import fastops.functional as F
from fastops import models
from fastops.models import Network, layers, weights

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from asv_bench.torch_networks import module  # noqa: E402

# Threads of PyTorch wait by spinning.
torch.set_num_threads(1)

# Image, and the start of a SHA-256 of the lines "name shape" of torchvision's state dict, in order of names.
TORCHVISION = {
    "alexnet": (95, "935c1ea73a7869ee"),
    "googlenet": (64, "545eb1baab91f5d8"),
    "mobilenet_v2": (64, "e3eb10f890f74c6e"),
    "resnet18": (64, "5191d63ec3989592"),
    "resnet34": (64, "f8de2a1812ef85e4"),
    "resnet50": (64, "a87e91cd6bd1f939"),
    "shufflenet_v2_x1_0": (64, "c54ed350c00fa178"),
    "vgg16": (32, "ba63c2556d912509"),
}
OPTIONS = {name: {"dropout": 0.0} for name in ("alexnet", "googlenet", "mobilenet_v2", "vgg16")}


@pytest.mark.filterwarnings("error")
def test_tensors_are_state_dicts():
    """Without a warning of NumPy's about ``__array__``, with a gradient or without, in bfloat16 too."""
    model = models.lenet5()
    state = model.state_dict(*model.init(rng=0))
    tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
    half = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    for given in (tensors, {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, half):
        params, _ = model.load_state_dict(given)
        for name, array in params.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, given[name].detach().float().numpy(), err_msg=name)
    with pytest.raises(ValueError, match=r"lenet5: the entries do not fit: fc2.bias must be an array: .*Sparse"):
        model.load_state_dict({**tensors, "fc2.bias": torch.ones(10).to_sparse()})


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_are_torchvisions(name):
    entries = getattr(models, name)().entries
    lines = "\n".join(f"{name} {entry.shape}" for name, entry in sorted(entries.items()))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == TORCHVISION[name][1]


def theirs(name):
    """The network of torchvision where it is installed."""
    vision = pytest.importorskip("torchvision")
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        made = getattr(vision.models, name)(**options, **OPTIONS.get(name, {}))
    return made.to_empty(device="cpu")


def compare(model, network, size, training, dtype, tolerance):
    """Output, gradients and buffers; errors are in the norm, relative to PyTorch's result."""
    rng = np.random.default_rng(0)
    params, buffers = model.init(rng=1, dtype=dtype)
    for name, array in buffers.items():  # as after some training
        if name.endswith("running_mean"):
            array[...] = 0.1 * rng.standard_normal(array.shape)
        elif name.endswith("running_var"):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    network = network(params, buffers).train(training)
    x = rng.standard_normal((4, *size)).astype(dtype)
    labels = rng.integers(0, 10, len(x))

    def loss(params, x):
        y, new = model.apply(params, buffers, x, training=training, rng=0)
        return F.cross_entropy(y, labels), (y, new)

    (_, (y, new)), (grads, dx) = fastops.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    their_x = torch.from_numpy(x.copy()).requires_grad_()
    their_y = network(their_x)
    torch.nn.functional.cross_entropy(their_y, torch.from_numpy(labels)).backward()
    close("output", y, their_y.detach().numpy(), tolerance)
    # The gradient of a bias in front of a normalisation is rounding alone.
    floor = 1e-3 * max(np.linalg.norm(g) for g in grads.values())
    for name, parameter in network.named_parameters():
        close(name, grads[name], parameter.grad.numpy(), tolerance, floor)
    close("input", dx, their_x.grad.numpy(), tolerance)
    for name, buffer in network.named_buffers():
        close(name, new[name], buffer.numpy(), tolerance)


def close(name, mine, other, tolerance, floor=0.0):
    error = np.linalg.norm((mine - other).ravel()) / max(np.linalg.norm(other.ravel()), floor, 1e-30)
    assert error <= tolerance, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_float64(name, training):
    model = getattr(models, name)(**OPTIONS.get(name, {}))
    compare(model, lambda p, b: module(model, p, b), (3, 64, 64), training, "float64", 1e-10)


def without_kinks(model):
    """Smooth activations for relu, means for maxima.

    Where an element is within rounding of a kink, the two sides of it are a coin's throw, and the gradients of everything
    before differ by per cents; PyTorch's float32 gradients differ from its own float64 ones by as much.
    """

    def smooth(layer):
        if isinstance(layer, layers.Activation):
            return replace(layer, name="silu")
        return replace(layer, mode="avg") if isinstance(layer, layers.Pool) else layer

    steps = [replace(step, layer=smooth(step.layer)) for step in model.steps]
    return Network(model.name, model.inputs, steps, model.outputs)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", TORCHVISION)
def test_float32(name, training):
    model = without_kinks(getattr(models, name)(**OPTIONS.get(name, {})))
    size = (3, TORCHVISION[name][0], TORCHVISION[name][0])
    compare(model, lambda p, b: module(model, p, b), size, training, "float32", 1e-4)


@pytest.mark.parametrize("name", TORCHVISION)
def test_float32_logits(name):
    """With relu and maxima, and as prepared for inference; beside torchvision's own network where it is installed."""
    model = getattr(models, name)()
    params, buffers = model.init(rng=0)
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 64)).astype(np.float32)
    try:
        network = theirs(name)
        network.load_state_dict({name: torch.from_numpy(a) for name, a in {**params, **buffers}.items()})
    except pytest.skip.Exception:
        network = module(model, params, buffers)
    with torch.no_grad():
        other = network.eval()(torch.from_numpy(x)).numpy()
    close("apply", model.apply(params, buffers, x)[0], other, 1e-4)
    close("prepare", model.prepare(params, buffers)(x), other, 1e-4)


def test_files_of_torch(tmp_path):
    model = models.shufflenet_v2_x1_0()
    params, buffers = model.init(rng=0)
    network = module(model, params, buffers)
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(network.state_dict(), tmp_path / "a.pth", **options)
        p, b = model.load_state_dict(tmp_path / "a.pth")
        for name, array in {**params, **buffers}.items():
            np.testing.assert_array_equal({**p, **b}[name], array)
    state = {
        "half": torch.ones(3).half(), "brain": torch.tensor([1.5, -2.0]).bfloat16(), "turned": torch.arange(6).reshape(2, 3).t(),
        "none": torch.zeros(0, 2), "part": torch.arange(10)[3:7:2], "true": torch.tensor(True), "trained": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.pth")
    found = weights.load(tmp_path / "b.pth")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        other = tensor.detach().float() if name == "brain" else tensor.detach()
        np.testing.assert_array_equal(found[name], other.numpy())
        assert found[name].dtype == other.numpy().dtype
