"""Networks: graphs, parameters, application, gradients."""

import itertools
import os
import pickle
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors import SafetensorError

import fastops
import fastops.functional as F
from fastops import models
from fastops.models import Builder, formats, prepare, weights
from fastops.models.formats import cheapest
from fastops.models.prepare import Arena, Room
from fastops.ops.conv import inverted


def tiny():
    net = Builder("tiny")
    x = net.input(2, None, None)
    x = net.relu(net.batch_norm("bn1", net.conv("conv1", x, 4, 3, padding=1, bias=False)))
    with net.scope("block"):
        y = net.relu(net.batch_norm("bn", net.conv("conv", x, 4, 3, padding=1)))
    x = net.dropout(net.add(x, y), 0.25)
    x = net.concat(net.max_pool(x, 2), net.avg_pool(x, 2))
    return net.build(net.linear("fc", net.flatten(net.adaptive_avg_pool(x, 1)), 3))


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 2, 4, 4))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_init_gives_torchs_names_shapes_and_distribution():
    params, buffers = tiny().init(rng=0)
    assert {name: a.shape for name, a in params.items()} == {
        "conv1.weight": (4, 2, 3, 3), "bn1.weight": (4,), "bn1.bias": (4,),
        "block.conv.weight": (4, 4, 3, 3), "block.conv.bias": (4,), "block.bn.weight": (4,), "block.bn.bias": (4,),
        "fc.weight": (3, 8), "fc.bias": (3,),
    }  # fmt: skip
    assert all(a.dtype == np.float32 for a in params.values())
    assert buffers["bn1.num_batches_tracked"].dtype == np.int64
    assert set(buffers) == {f"{bn}.{name}" for bn in ("bn1", "block.bn") for name in ("running_mean", "running_var", "num_batches_tracked")}
    bound = 1 / np.sqrt(2 * 9)
    assert 0.8 * bound < np.abs(params["conv1.weight"]).max() <= bound
    again, _ = tiny().init(rng=0)
    assert all(np.array_equal(params[name], again[name]) for name in params)


def test_apply_is_pure_and_updates_buffers_in_training(x):
    model = tiny()
    params, buffers = model.init(rng=0, dtype=np.float64)
    before = {name: a.copy() for name, a in {**params, **buffers}.items()}
    y, new = model.apply(params, buffers, x, training=True, rng=1)
    assert y.shape == (2, 3)
    assert all(np.array_equal(a, before[name]) for name, a in {**params, **buffers}.items())
    assert new["bn1.num_batches_tracked"] == 1
    conv = F.conv2d(x, params["conv1.weight"], padding=1)
    np.testing.assert_allclose(new["bn1.running_mean"], 0.1 * conv.mean(axis=(0, 2, 3)))
    y_eval, same = model.apply(params, buffers, x)
    assert all(same[name] is buffers[name] for name in buffers)
    assert not np.array_equal(y, y_eval)


def test_dropout_follows_the_seed(x):
    model = tiny()
    arrays = model.init(rng=0, dtype=np.float64)
    first, again, other = (model.apply(*arrays, x, training=True, rng=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_gradients_against_differences(x):
    model = tiny()
    params, buffers = model.init(rng=0, dtype=np.float64)
    fastops.check_grad(lambda p: model.apply(p, buffers, x, training=True, rng=1)[0], params)


def test_value_and_grad_hands_buffers_on(x):
    model = tiny()
    params, buffers = model.init(rng=0, dtype=np.float64)

    def loss(params):
        y, new = model.apply(params, buffers, x, training=True, rng=1)
        return F.cross_entropy(y, np.array([0, 2])), new

    (value, new), grads = fastops.value_and_grad(loss, has_aux=True)(params)
    assert np.isfinite(value)
    assert grads.keys() == params.keys()
    assert new["block.bn.num_batches_tracked"] == 1


def test_a_value_is_freed_after_its_last_use():
    steps = tiny().steps
    used = [i for step in steps for i in step.inputs]
    freed = [i for step in steps for i in step.last]
    assert sorted(freed) == sorted(set(used))


def test_shapes_are_known_as_far_as_they_can_be():
    model = tiny()
    assert model.shapes()[model.outputs[0]] == (3,)
    assert (8, 2, 3) in model.shapes((2, 4, 6))
    with pytest.raises(ValueError, match=r"tiny: input must have samples of shape \(2, None, None\), got \(3, 4, 4\)"):
        model.shapes((3, 4, 4))
    with pytest.raises(ValueError, match=r"tiny: pool: a window of 2 does not fit into 1 with padding 0"):
        model.shapes((2, 1, 1))


def test_a_shared_name_shares_parameters(rng):
    net = Builder("twice")
    x = net.input(3)
    model = net.build(net.linear("fc", net.linear("fc", x, 3, bias=False), 3, bias=False))
    params, buffers = model.init(rng=0, dtype=np.float64)
    assert list(params) == ["fc.weight"]
    x = rng.standard_normal((2, 3))
    w = params["fc.weight"]
    np.testing.assert_allclose(model.apply(params, buffers, x)[0], x @ w.T @ w.T)


def test_what_a_builder_refuses():
    net = Builder("wrong")
    x = net.input(3, None, None)
    y = net.conv("conv", x, 4, 3)
    with pytest.raises(ValueError, match="wrong: the name conv must be that of one layer"):
        net.conv("conv", x, 5, 3)
    with pytest.raises(ValueError, match="wrong: fc: the number of features must be known"):
        net.linear("fc", net.flatten(y), 10)
    with pytest.raises(ValueError, match="wrong: add: the inputs must agree in shape"):
        net.add(x, y)
    with pytest.raises(ValueError, match=r"inputs must be 1 \(input\), got 2"):
        net.build(y).apply({}, {}, 0, 0)


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'resnet19'"):
        models.resnet19  # noqa: B018
    assert set(models.networks()) < set(models.__all__)


def test_state_dict_and_back(tmp_path):
    model = tiny()
    params, buffers = model.init(rng=0)
    state = model.state_dict(params, buffers)
    assert list(state)[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    weights.save(tmp_path / "a.safetensors", state, {"epoch": "3"})
    assert weights.load_metadata(tmp_path / "a.safetensors") == {"epoch": "3"}
    np.savez(tmp_path / "a.npz", **state)
    for source in (state, tmp_path / "a.safetensors", str(tmp_path / "a.npz")):
        p, b = model.load_state_dict(source)
        assert list(p) == list(params)
        assert list(b) == list(buffers)
        assert all(np.array_equal(p[name], params[name]) and p[name] is not params[name] for name in p)
    p, _ = model.load_state_dict(state, dtype=np.float64)
    assert p["fc.weight"].dtype == np.float64


def test_load_state_dict_names_all_that_does_not_fit():
    model = tiny()
    state = model.state_dict(*model.init(rng=0))
    state["more"] = state.pop("fc.bias")
    state["conv1.weight"] = np.zeros((4, 3, 3, 3), np.float32)
    state["block.conv.bias"] = np.zeros(4, np.int64)
    wanted = (
        r"tiny: the entries do not fit: conv1.weight must have shape \(4, 2, 3, 3\), got \(4, 3, 3, 3\); "
        r"block.conv.bias must be of floating-point numbers, got int64; missing: fc.bias; unexpected: more$"
    )
    with pytest.raises(ValueError, match=wanted):
        model.load_state_dict(state)
    with pytest.raises(ValueError, match=r"got int64$"):
        model.load_state_dict(state, strict=False)
    del state["conv1.weight"], state["block.conv.bias"]
    params, _ = model.load_state_dict(state, strict=False)
    assert params["fc.bias"].shape == (3,)


class Tensor:
    """As much of PyTorch's as is needed; its values can be had without a gradient alone."""

    def __init__(self, values, dtype="torch.float32", alone=False):
        self.values, self.dtype, self.alone = values, dtype, alone

    def detach(self):
        return Tensor(self.values, self.dtype, True)

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.values, "torch.float32", self.alone)

    def numpy(self):
        if not self.alone or self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType")
        return self.values

    def __array__(self, dtype=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_load_state_dict_takes_tensors(dtype):
    model = tiny()
    state = model.state_dict(*model.init(rng=0))
    params, buffers = model.load_state_dict({name: Tensor(array, dtype) for name, array in state.items()})
    for name, array in {**params, **buffers}.items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
        assert not np.shares_memory(array, state[name])


def test_load_state_dict_names_what_is_no_array():
    model = tiny()
    state = model.state_dict(*model.init(rng=0))
    state["fc.bias"], state["block.conv.bias"] = [[1.0], [1.0, 2.0]], None
    with pytest.raises(ValueError, match=r"fit: block.conv.bias must have shape \(4,\), got \(\); fc.bias must be an array: setting [^;]*$"):
        model.load_state_dict(state)


@pytest.mark.parametrize("dtype", [int, bool, np.complex64])
def test_parameters_are_floating_point_numbers(dtype):
    model = tiny()
    with pytest.raises(TypeError, match="tiny: dtype must be of floating-point numbers, got "):
        model.init(dtype=dtype)
    with pytest.raises(TypeError, match="tiny: dtype must be of floating-point numbers, got "):
        model.load_state_dict(model.state_dict(*model.init(rng=0)), dtype=dtype)


def test_a_missing_entry_is_named(x):
    model = tiny()
    params, buffers = model.init(rng=0, dtype=np.float64)
    for missing, kind in (("conv1.weight", "params"), ("bn1.running_mean", "buffers")):
        arrays = [{name: array for name, array in given.items() if name != missing} for given in (params, buffers)]
        with pytest.raises(ValueError, match=f"tiny: the {kind} must have an entry '{missing}'$"):
            model.apply(*arrays, x)
        with pytest.raises(ValueError, match=f"tiny: the params and buffers must have an entry '{missing}'$"):
            model.prepare(*arrays)


def test_an_input_that_does_not_fit_is_named_when_a_layer_fails(rng):
    model = tiny()
    arrays = model.init(rng=0)
    for call in (lambda x: model.apply(*arrays, x), lambda x: model.prepare(*arrays)(x)):
        for shape in ((2, 3, 4, 4), (3, 4, 4), ()):
            with pytest.raises(ValueError, match=rf"^tiny: input must have shape \(N, 2, any, any\), got {re.escape(str(shape))}: "):
                call(np.ones(shape, np.float32))
    # What a network without batch statistics takes beyond its description stays allowed.
    net = Builder("dense")
    model = net.build(net.linear("fc", net.input(3), 2))
    assert model.apply(*model.init(rng=0), np.ones((4, 5, 3), np.float32))[0].shape == (4, 5, 2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_prepared_dense_layers(rng, dtype):
    """Their weights are packed; rows in any number and order, and those that the product does not take as they lie."""
    net = Builder("dense")
    model = net.build(net.linear("last", net.activation("gelu", net.linear("first", net.input(37), 70)), 3, bias=False))
    params, buffers = model.init(rng=0)
    params = {name: rng.standard_normal(a.shape).astype(dtype) for name, a in params.items()}
    predict = model.prepare(params, buffers)
    for shape in ((1, 37), (9, 37), (2, 40, 37), (0, 37)):
        x = rng.standard_normal(shape).astype(dtype)
        for given in (x, np.asfortranarray(x), x[::-1], x.astype(x.dtype.newbyteorder())):
            got, want = predict(given), model.apply(params, buffers, given)[0]
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            np.testing.assert_allclose(got, want, rtol={2: 1e-2, 4: 1e-4, 8: 1e-12}[x.itemsize], atol={2: 1e-1, 4: 1e-4, 8: 1e-12}[x.itemsize])
    with pytest.raises(ValueError, match="37"):
        predict(np.zeros((2, 36), dtype))
    with pytest.raises(TypeError, match="dtype"):
        predict(np.zeros((2, 37), np.float64 if dtype != np.float64 else np.float32))


@pytest.mark.parametrize("classes", [0, -1, 2.5])
def test_the_number_of_classes_is_positive(classes):
    for make in (models.lenet5, models.unet_small, models.gcn, models.lstm):
        with pytest.raises(ValueError, match=r"the shape of \w+ must be of positive integers, got \("):
            make(classes)
    assert models.lenet5(np.int64(3)).shapes()[-1] == (3,)


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("lenet5", (2, 1, 27, 31), r"lenet5: conv3: a window of 5 does not fit into 3 .*input of shape \(2, 1, 27, 31\)"),
        ("unet_small", (1, 3, 27, 31), r"unet_small: up3.concat: the inputs must agree in shape, got \(64, 6, 7\), \(64, 6, 6\)"),
        ("transformer", (2, 8, 7), "transformer: embedding: the input must have 8 features"),
    ],
)
def test_the_layer_that_extents_do_not_suit_is_named(name, shape, message):
    model = getattr(models, name)()
    params, buffers = model.init(rng=0)
    for run in (lambda x: model.apply(params, buffers, x), model.prepare(params, buffers)):
        with pytest.raises(ValueError, match=message):
            run(np.zeros(shape, np.float32))


def test_what_is_no_dict_of_arrays(x):
    model = models.lenet5()
    params, _ = model.init(rng=0)
    with pytest.raises(TypeError, match="lenet5: params must be a dict of arrays, got NoneType"):
        model.apply(None, {}, x)
    with pytest.raises(TypeError, match="lenet5: buffers must be a dict of arrays, got NoneType"):
        model.apply(params, None, x)
    with pytest.raises(TypeError, match="lenet5: source must be a dict of arrays or a file, got NoneType"):
        model.load_state_dict(None)
    with pytest.raises(TypeError, match="lenet5: input must have the shape of a sample, a tuple, got 32"):
        model.summary(32)


@pytest.mark.parametrize("name", models.networks())
def test_networks_can_be_pickled(name):
    model = getattr(models, name)()
    again = pickle.loads(pickle.dumps(model))
    assert repr(again) == repr(model)
    assert [(step.name, step.layer.describe()) for step in again.steps] == [(step.name, step.layer.describe()) for step in model.steps]


@pytest.mark.parametrize("value", [None, np.array([1, "a"], object), np.ones(2, complex), [[1.0], [1.0, 2.0]]], ids=["none", "object", "complex", "ragged"])
def test_save_names_what_a_file_cannot_hold(tmp_path, value):
    with pytest.raises(ValueError, match=r"^conv2 must be an array"):
        weights.save(tmp_path / "a.safetensors", {"conv1": np.ones(2), "conv2": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes elsewhere")
def test_save_leaves_devices_alone(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="pipe cannot be written: this is no ordinary file"):
        weights.save(path, {"w": np.ones(2)})
    assert path.is_fifo()


def test_save_on_a_full_disk(tmp_path, monkeypatch):
    def full(arrays, path, metadata):
        raise SafetensorError("No space left on device (os error 28)")

    path = tmp_path / "a.safetensors"
    weights.save(path, {"w": np.ones(2)})
    path.chmod(0o600)
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match=r"a\.safetensors cannot be written: No space left on device"):
        weights.save(path, {"w": np.zeros(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    np.testing.assert_array_equal(weights.load(path)["w"], np.ones(2))
    monkeypatch.undo()
    weights.save(path, {"w": np.zeros(2)})
    assert path.stat().st_mode & 0o777 == 0o600


class _Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def torch_file(path, content, protocol=2, storages=()):
    """An archive as ``torch.save`` writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, protocol))
        for key, data in enumerate(storages):
            archive.writestr(f"a/data/{key}", data)
    return path


# {"w": a float32 tensor of shape (2, 3), transposed in memory}, as torch.save writes it, by hand.
TENSOR = (
    b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\n"
    b"q\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x00K\x02K\x03\x86q\x08K\x01K\x02\x86q\t\x89"
    b"ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs."
)


def test_torch_files_without_torch(tmp_path):
    data = np.arange(6, dtype=np.float32)
    path = torch_file(tmp_path / "a.pt", TENSOR, storages=[data.tobytes()])
    np.testing.assert_array_equal(weights.load(path)["w"], data.reshape(3, 2).T)
    cut = torch_file(tmp_path / "b.pt", TENSOR, storages=[data[:5].tobytes()])
    with pytest.raises(ValueError, match=r"b.pt: a tensor of shape \(2, 3\) reaches beyond its 5 stored elements"):
        weights.load(cut)


@pytest.mark.parametrize(
    "content, message",
    [
        (_Call(os.system, "exit 1"), r"refused: the pickle asks for \w+.system, which no state dict needs"),
        ({"a": _Call(eval, "1")}, "refused: the pickle asks for .*eval"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "refused: the pickle calls what no state dict needs"),
        (b"\x80\x02(ios\nsystem\n.", "refused: the pickle uses INST"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "refused: the pickle sets attributes"),
        (b"\x80\x02]q\x00h\x00a.", "the file must hold a dict of tensors, got a list"),
        (b"\x80\x02K\x01\x85Q.", "a.pt: "),
        (TENSOR.replace(b"_rebuild_tensor_v2", b"_rebuild_sparse_tensor"), "asks for torch._utils._rebuild_sparse_tensor"),
        ({"epoch": 3}, "got a int under 'epoch'"),
        (b"\x80\x02", "a.pt: "),
    ],
)
def test_hostile_pickles_are_refused(tmp_path, content, message):
    for protocol in (2, 4):
        with pytest.raises(ValueError, match=message):
            weights.load(torch_file(tmp_path / "a.pt", content, protocol))


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "a"
    for content in (b"", b"hello, world", b"PK\3\4 not an archive", (1 << 40).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a: "):
            weights.load(path)
    with pytest.raises(OSError):
        weights.load(tmp_path / "absent")
    np.savez(tmp_path / "o.npz", a=np.array([object()]))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        weights.load(tmp_path / "o.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    weights.save(path, {"a": np.arange(3)})

    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        weights.save(path, {"a": np.arange(4)})
    np.testing.assert_array_equal(weights.load(path)["a"], np.arange(3))
    assert list(tmp_path.iterdir()) == [path]


def test_summary_of_lenet():
    found = models.lenet5().summary()
    rows = {row.name: row for row in found.rows}
    assert rows["conv2"].shape == (16, 10, 10)
    assert rows["conv2"].field == ((14, 2), (14, 2))
    assert rows["conv2"].parameters == 6 * 16 * 25 + 16
    assert rows["conv2"].multiply_adds == 6 * 16 * 25 * 100
    assert rows["fc1"].parameters == 120 * 84 + 84
    assert found.parameters == sum(row.parameters for row in found.rows) == 61_706
    lines = str(found).splitlines()
    assert lines[0] == "lenet5"
    assert lines[-1].split() == ["total", "61,706", "416,520"]
    assert next(line for line in lines if "conv2" in line).split() == ["conv2", "conv", "5×5,", "16", "16×10×10", "14×14", "2,416", "240,000"]


def test_summary_needs_shapes_and_sees_the_whole_image():
    with pytest.raises(ValueError, match=r"resnet18: summary needs the shape of a sample of each input \(input \(3, None, None\)\)"):
        models.resnet18().summary()
    found = models.resnet18().summary((3, 224, 224))
    assert found.rows[0].field == ((7, 2), (7, 2))
    assert found.rows[-1].field is None
    assert found.parameters == 11_689_512
    # Published as 1.8 billion; a normalisation counts one for an element here.
    assert 1.81e9 < found.multiply_adds < 1.83e9


# The rows of the study notes: what stands behind each layer that has parameters or pools, and their parameters.
ROWS = {
    "lenet5": [
        ((6, 28, 28), 156), ((6, 14, 14), 0), ((16, 10, 10), 2416), ((16, 5, 5), 0), ((120, 1, 1), 48120), ((84,), 10164), ((10,), 850),
    ],
    "alexnet_small": [
        ((64, 34, 34), 1792), ((64, 17, 17), 0), ((192, 19, 19), 110784), ((192, 9, 9), 0), ((384, 9, 9), 663936), ((256, 9, 9), 884992),
        ((256, 9, 9), 590080), ((256, 4, 4), 0), ((2048,), 8390656), ((2048,), 4196352), ((10,), 20490),
    ],
    "vgg16": [
        ((64, 224, 224), 1792), ((64, 224, 224), 36928), ((64, 112, 112), 0), ((128, 112, 112), 73856), ((128, 112, 112), 147584),
        ((128, 56, 56), 0), ((256, 56, 56), 295168), ((256, 56, 56), 590080), ((256, 56, 56), 590080), ((256, 28, 28), 0),
        ((512, 28, 28), 1180160), ((512, 28, 28), 2359808), ((512, 28, 28), 2359808), ((512, 14, 14), 0), ((512, 14, 14), 2359808),
        ((512, 14, 14), 2359808), ((512, 14, 14), 2359808), ((512, 7, 7), 0), ((512, 7, 7), 0), ((4096,), 102764544), ((4096,), 16781312),
        ((10,), 40970),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_study_notes(name):
    model = getattr(models, name)(num_classes=10)
    rows = model.summary(*([(3, 224, 224)] if name == "vgg16" else [])).rows
    found = [(row.shape, row.parameters) for row in rows if row.parameters or "pool" in row.name]
    assert found == ROWS[name]


@pytest.mark.parametrize("version", [1, 2])
def test_rows_of_the_small_resnet(version):
    model = models.resnet18_small(version=version)
    rows = model.summary().rows
    convolutions = [row for row in rows if row.layer.startswith("conv 3×3")]
    widths = [64, *[width for width in (64, 128, 256, 512) for _ in range(4)]]
    extents = [32, *[extent for extent in (32, 16, 8, 4) for _ in range(4)]]
    assert [row.shape for row in convolutions] == [(k, n, n) for k, n in zip(widths, extents)]
    assert [row.parameters for row in convolutions] == [9 * c * k for c, k in zip([3, *widths], widths)]
    assert [(row.shape, row.parameters) for row in rows[-3:]] == [((512, 1, 1), 0), ((512,), 0), ((10,), 5130)]
    assert sum(row.layer == "add" for row in rows) == 8
    assert rows[-4].layer == "relu"


def test_bottleneck_blocks_are_four_times_as_wide_behind():
    rows = models.resnet18_small(block="bottleneck").summary().rows
    assert next(row for row in rows if row.name == "layer4.1.conv3").shape == (2048, 4, 4)
    with pytest.raises(ValueError, match="version must be 1 or 2, got 3"):
        models.resnet18_small(version=3)
    with pytest.raises(ValueError, match="block must be one of 'basic', 'bottleneck', got 'wide'"):
        models.resnet18_small(block="wide")


def trained(model, rng):
    """Weights with running statistics as after some training."""
    params, buffers = model.init(rng=0)
    for name, array in buffers.items():
        if name.endswith("running_mean"):
            array[...] = rng.standard_normal(array.shape)
        elif name.endswith("running_var"):
            array[...] = rng.uniform(0.5, 2, array.shape)
    return params, buffers


def test_prepare_predicts_what_apply_does(rng):
    model = tiny()
    params, buffers = trained(model, rng)
    predict = model.prepare(params, buffers)
    for shape in ((2, 2, 4, 4), (2, 2, 4, 4), (1, 2, 6, 5)):
        x = rng.standard_normal(shape).astype(np.float32)
        kept = x.copy()
        want, _ = model.apply(params, buffers, x)
        got = predict(x)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(x, kept)
        again = predict(2 * x)
        assert not np.shares_memory(got, again)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_prepare_keeps_values_that_others_see(rng):
    """A value that is a view of another, used later, an output, or taken twice."""
    net = Builder("views")
    x = net.input(2, 4, 4)
    y = net.conv("conv1", x, 4, 1)
    view = net.call("half", lambda x: x[:, :2], y, shape=lambda s: (2, *s[1:]))
    z = net.conv("conv2", net.relu(y), 4, 1)
    w = net.conv("conv3", net.conv("conv4", z, 4, 1), 4, 1)
    flat = net.flatten(net.relu(net.conv("conv5", w, 2, 1)))
    sum_ = net.relu(net.add(w, z, z))
    model = net.build(view, flat, net.concat(sum_, view), y)
    params, buffers = model.init(rng=0)
    predict = model.prepare(params, buffers)
    x = rng.standard_normal((2, 2, 4, 4)).astype(np.float32)
    for _ in range(3):
        for got, want in zip(predict(x), model.apply(params, buffers, x)[0], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    first = predict(x)
    kept = [a.copy() for a in first]
    predict(x + 1)
    for a, b in zip(first, kept):
        np.testing.assert_array_equal(a, b)


def mobile():
    """What can have its channels last, and what cannot, one after the other and side by side."""
    net = Builder("mobile")
    x = net.input(3, None, None)
    x = net.relu(net.batch_norm("bn1", net.conv("conv1", x, 8, 3, padding=1, bias=False)))
    wide = net.activation("relu6", net.conv("wide", x, 40, 1))
    deep = net.activation("hardswish", net.batch_norm("bn2", net.conv("deep", wide, 40, 3, padding=1, groups=40)))
    y = net.add(x, net.conv("thin", deep, 8, 1), x)
    inner = net.activation("relu6", net.conv("inner", net.relu(net.conv("expand", y, 40, 1)), 40, 3, padding=1, groups=40))
    y = net.add(net.conv("project", inner, 8, 1), y)
    for i in range(2):
        y = net.conv(f"row{i}.1", net.conv(f"row{i}.0", y, 8 + 32 * i, 3, padding=1, groups=8 + 32 * i), 40 - 32 * i, 1)
    half = net.max_pool(net.activation("silu", y), 2)
    z = net.conv("strided", net.conv("half", half, 36, 1), 36, 3, 2, 1, groups=36)
    mean = net.flatten(net.adaptive_avg_pool(z, 1))
    return net.build(net.linear("fc", mean, 3), y, z, net.concat(wide, deep))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_networks_in_either_format(rng, dtype, monkeypatch):
    model = mobile()
    params, buffers = ({name: a.astype(dtype) for name, a in arrays.items()} for arrays in trained(model, rng))
    x = rng.standard_normal((2, 3, 7, 9)).astype(dtype)
    wanted = model.apply(params, buffers, x)[0]
    choices = set()
    in_one = []
    make = inverted.inverted_residual
    monkeypatch.setattr(inverted, "inverted_residual", lambda *layers, added: in_one.append(added) or make(*layers, added=added))

    def any_legal(costs, pairs):
        choice = [bool(np.isfinite(last) and rng.random() < 0.7) for _, last in costs]
        choices.add(tuple(choice))
        return choice

    monkeypatch.setattr(formats, "cheapest", any_legal)
    for _ in range(20):
        predict = model.prepare(params, buffers)
        for _ in range(2):
            for got, want in zip(predict(x), wanted, strict=True):
                assert (got.shape, got.dtype) == (want.shape, want.dtype)
                np.testing.assert_allclose(got, want, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-13) * np.abs(want).max())
    assert len(choices) > 10
    assert any(in_one)
    with pytest.raises(ValueError, match="channels"):
        predict(x[:, :2])
    assert predict(x[:0])[0].shape == (0, 3)


def test_formats_are_chosen_once_for_each_shape(rng, monkeypatch):
    made = []
    monkeypatch.setattr(prepare, "in_formats", lambda *given: made.append(given) or formats.in_formats(*given))
    model = mobile()
    predict = model.prepare(*model.init(0))
    whole, last = (rng.standard_normal((n, 3, 7, 9)).astype(np.float32) for n in (3, 2))
    wanted = predict(whole)[0], predict(last)[0]
    for _ in range(3):
        np.testing.assert_array_equal(predict(whole)[0], wanted[0])
        np.testing.assert_array_equal(predict(last)[0], wanted[1])
    assert len(made) == 2
    for n in range(1, prepare._MOST_PLANS + 2):
        assert predict(np.zeros((n, 3, 7, 9), np.float32))[0].shape == (n, 3)
    np.testing.assert_array_equal(predict(whole)[0], wanted[0])


def test_mobilenet_has_its_channels_last():
    fastops.set_num_threads(1)
    model = models.mobilenet_v2()
    params, buffers = model.init(0)
    stages = formats.in_formats(model, prepare._stages(model, {**params, **buffers}), [((1, 3, 224, 224), np.dtype("f4"))])
    assert formats._to_last not in [stage.run for stage in stages]
    assert [stage.run for stage in stages].count(formats._to_first) == 1
    assert sum(getattr(stage.run, "__name__", None) == "run_into" for stage in stages) > 8


def test_the_cheapest_choice_of_formats(rng):
    for _ in range(200):
        count = int(rng.integers(1, 8))
        costs = [(float(rng.random()), float(rng.random()) if rng.random() < 0.7 else np.inf) for _ in range(count)]
        pairs = [(int(i), int(j), float(rng.random())) for i, j in rng.integers(0, count, (int(rng.integers(0, 12)), 2))]

        def total(choice, costs=costs, pairs=pairs):
            return sum(cost[last] for cost, last in zip(costs, choice)) + sum(price for i, j, price in pairs if choice[i] != choice[j])

        best = min(map(total, itertools.product([False, True], repeat=count)))
        assert total(cheapest(costs, pairs)) <= best + 1e-9


def test_results_that_live_at_one_time_lie_apart(rng):
    for _ in range(50):
        count = int(rng.integers(1, 40))
        rooms = [
            None if rng.random() < 0.2 else Room((int(rng.integers(0, 300)), 3), np.dtype(rng.choice(["f4", "f8"])), n + int(rng.integers(0, 6)))
            for n in range(count)
        ]
        arrays = Arena(rooms).take()
        for n, (room, array) in enumerate(zip(rooms, arrays)):
            assert (array is None) == (room is None)
            if room is None:
                continue
            assert (array.shape, array.dtype) == (room.shape, room.dtype)
            assert array.flags.c_contiguous
            assert array.flags.aligned
            assert array.flags.writeable
            for m in range(n + 1, min(room.until + 1, count)):
                assert arrays[m] is None or not np.shares_memory(array, arrays[m])
        together = sum(room.dtype.itemsize * room.shape[0] * 3 + 64 for room in rooms if room is not None)
        assert Arena(rooms)._size <= together


def test_prepared_networks_in_threads(rng):
    model = tiny()
    params, buffers = trained(model, rng)
    predict = model.prepare(params, buffers)
    xs = [rng.standard_normal((2, 2, 4, 4)).astype(np.float32) for _ in range(8)]
    wanted = [predict(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(predict, xs * 8), wanted * 8):
            np.testing.assert_array_equal(got, want)
