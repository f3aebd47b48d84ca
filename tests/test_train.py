"""``python -m fastops train``: data, batches, the loop, checkpoints, and what is refused before training begins."""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct

import numpy as np
import pytest
from safetensors import SafetensorError

import fastops
from fastops.cli.main import main
from fastops.cli.train import data, loop, recipes, tasks
from fastops.cli.train.augment import augmented
from fastops.models import weights

QUICK = ("lenet5", "--epochs", "1", "--batch", "8")


def train(*arguments: str) -> int:
    return main(["train", *map(str, arguments)])


def refused(capsys, *arguments: str) -> str:
    assert train(*arguments) == 2
    return capsys.readouterr().err


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a terminal has it: a shell's background, where the suite itself may run, ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Two classes that a small network tells apart within an epoch: bright above, bright below."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    images = rng.random((120, 28, 28)) * 0.3
    for image, label in zip(images, labels):
        image[:14] += 0.6 * (label == 0)
        image[14:] += 0.6 * (label == 1)
    images = (images * 255).astype(np.uint8)
    place = tmp_path_factory.mktemp("squares")
    np.savez(place / "squares.npz", x=images, y=labels)
    return place / "squares.npz", images, labels


class TestLearning:
    def test_a_network_learns(self, squares, tmp_path, capsys):
        assert train("lenet5", "--data", squares[0], "--epochs", "4", "--batch", "8", "--json", tmp_path / "run.json") == 0
        printed = capsys.readouterr().out.splitlines()
        result = json.loads((tmp_path / "run.json").read_text())
        assert result["test_accuracy"] >= 0.95
        assert result["test_samples"] == 24
        assert len(result["loss"]) == 4
        assert result["loss"][-1] < result["loss"][0]
        assert result["configuration"]["optimizer"] == "adamw"
        assert result["seconds"] > 0
        assert printed[2].startswith("epoch 1/4  loss ")
        assert "\x1b" not in "".join(printed)

    def test_the_seed_decides_and_threads_do_not(self, squares, capsys):
        found = []
        for seed, threads in (("3", 1), ("3", fastops.get_num_threads()), ("4", 1)):
            assert train(*QUICK, "--data", squares[0], "--seed", seed, "--threads", str(threads), "--json", "-") == 0
            found.append(json.loads(capsys.readouterr().out)["loss"])
        assert found[0] == found[1] != found[2]

    def test_the_other_tasks(self, tmp_path, capsys):
        text = tmp_path / "text.txt"
        text.write_text("the cat sat on the mat; " * 400)
        for arguments, key in (
            (("language_model", "--data", text, "--epochs", "1", "--length", "16"), "test_loss"),
            (("gcn", "--epochs", "60"), "test_accuracy"),
            (("lstm", "--epochs", "1", "--data", tmp_path / "rows.npz"), "test_accuracy"),
        ):
            np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).random((40, 8, 8)), y=np.arange(40) % 2)
            assert train(*arguments, "--json", "-") == 0
            assert json.loads(capsys.readouterr().out)[key] is not None

    def test_a_diverging_run_says_so(self, squares, capsys):
        assert train(*QUICK, "--data", squares[0], "--optimizer", "sgd", "--lr", "1e30") == 1
        assert "the loss is" in capsys.readouterr().err


class TestCheckpoints:
    @pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
    def test_two_epochs_and_two_more_are_four(self, squares, tmp_path, optimizer):
        common = ("lenet5", "--data", squares[0], "--batch", "8", "--optimizer", optimizer, "--lr", "1e-3", "--schedule", "constant")
        whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
        assert train(*common, "--epochs", "4", "--checkpoint", whole) == 0
        assert train(*common, "--epochs", "2", "--checkpoint", parts) == 0
        assert train("lenet5", "--epochs", "4", "--checkpoint", parts, "--resume") == 0
        same(whole, parts)

    @pytest.mark.parametrize("stop", [1, 5, 12])
    def test_ctrl_c_leaves_a_run_that_goes_on(self, squares, tmp_path, monkeypatch, capsys, ctrl_c, stop):
        """Stopped in the middle of an epoch, at any step, under a schedule that knows the end."""
        common = ("lenet5", "--data", squares[0], "--batch", "8", "--epochs", "2")
        whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
        assert train(*common, "--checkpoint", whole) == 0
        taken = 0
        step = loop.Training._step

        def interrupted(self, indices):
            nonlocal taken
            taken += 1
            if taken == stop:
                signal.raise_signal(signal.SIGINT)
            step(self, indices)

        monkeypatch.setattr(loop.Training, "_step", interrupted)
        assert train(*common, "--checkpoint", parts) == 130
        assert "go on with" in capsys.readouterr().err
        monkeypatch.undo()
        assert train("lenet5", "--checkpoint", parts, "--resume") == 0
        same(whole, parts)

    def test_a_network_is_in_it(self, squares, tmp_path):
        path = tmp_path / "run.safetensors"
        assert train(*QUICK, "--data", squares[0], "--checkpoint", path) == 0
        params, _ = fastops.models.lenet5(2, logits=True).load_state_dict(path, strict=False)
        np.testing.assert_array_equal(params["conv1.weight"], weights.load(path)["conv1.weight"])

    def test_what_resume_refuses(self, squares, tmp_path, capsys):
        path = tmp_path / "run.safetensors"
        assert "there is no checkpoint" in refused(capsys, "lenet5", "--checkpoint", path, "--resume")
        assert "say which run" in refused(capsys, "lenet5", "--resume")
        assert train(*QUICK, "--data", squares[0], "--checkpoint", path) == 0
        assert "has lr 0.002, not 0.5" in refused(capsys, "lenet5", "--checkpoint", path, "--resume", "--lr", "0.5")
        assert "has network lenet5" in refused(capsys, "gcn", "--checkpoint", path, "--resume")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert "cannot be read" in refused(capsys, "lenet5", "--checkpoint", path, "--resume")
        weights.save(path, {"w": np.ones(2)})
        assert "was not written by train" in refused(capsys, "lenet5", "--checkpoint", path, "--resume")

    def test_a_full_disk(self, squares, tmp_path, monkeypatch, capsys):
        def full(arrays, path, metadata):
            raise SafetensorError("No space left on device (os error 28)")

        monkeypatch.setattr("safetensors.numpy.save_file", full)
        path = tmp_path / "run.safetensors"
        assert train(*QUICK, "--data", squares[0], "--checkpoint", path) == 1
        assert capsys.readouterr().err == f"python -m fastops train: error: --checkpoint: {path} cannot be written: No space left on device (os error 28)\n"
        assert not list(tmp_path.iterdir())


def same(path, other):
    """All arrays, and all numbers but the time."""
    first, second = weights.load(path), weights.load(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    runs = [json.loads(weights.load_metadata(p)["fastops.train"]) for p in (path, other)]
    for run in runs:
        for entry in (run["progress"], *run["progress"]["history"]):
            del entry["seconds"]
    assert runs[0] == runs[1]


class TestFiles:
    def test_one_that_fails_does_not_cost_the_others(self, squares, tmp_path, monkeypatch, capsys):
        pytest.importorskip("matplotlib")

        def full(path, text):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fastops.cli.train.write_text", full)
        assert train(*QUICK, "--data", squares[0], "--json", tmp_path / "run.json", "--plot", tmp_path / "run.png") == 1
        out, err = capsys.readouterr()
        assert "test accuracy" in out
        assert err == f"python -m fastops train: error: --json {tmp_path / 'run.json'}: cannot be written: No space left on device\n"
        assert [file.name for file in tmp_path.iterdir()] == ["run.png"]

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
    def test_a_device_is_written_to(self, tmp_path, capsys):
        os.mkfifo(tmp_path / "pipe")
        assert "pipe: this is no ordinary file" in refused(capsys, "gcn", "--checkpoint", tmp_path / "pipe")
        assert train("gcn", "--epochs", "1", "--json", "/dev/full") == 1
        assert "--json /dev/full: cannot be written: No space left on device" in capsys.readouterr().err
        assert train("gcn", "--epochs", "1", "--json", os.devnull) == 0
        assert not os.path.isfile(os.devnull)


class TestPlot:
    def test_it_is_drawn(self, squares, tmp_path):
        pytest.importorskip("matplotlib")
        assert train(*QUICK, "--data", squares[0], "--plot", tmp_path / "run.png") == 0
        assert (tmp_path / "run.png").stat().st_size > 10_000


class TestData:
    def test_the_split_is_stratified_and_always_the_same(self):
        labels = np.repeat([0, 1, 2], [50, 30, 10])
        train_part, test_part = data.split(labels)
        assert np.bincount(labels[test_part]).tolist() == [10, 6, 2]
        assert sorted([*train_part, *test_part]) == list(range(90))
        np.testing.assert_array_equal(test_part, data.split(labels)[1])

    def test_digits(self):
        found = data.digits()
        assert found.train.shape[1:] == (1, 28, 28)
        assert len(found.train) + len(found.test) == 1797
        assert 0 <= found.train.min() < found.train.max() <= 1
        framed = data.resized(found.test, (32, 32))
        assert framed.shape[2:] == (32, 32)
        np.testing.assert_array_equal(framed[..., 2:30, 2:30], found.test)

    def idx(self, path, array, compressed=False):
        content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(content) if compressed else content)

    @pytest.mark.parametrize("compressed", [False, True])
    def test_idx(self, squares, tmp_path, compressed):
        _, images, labels = squares
        end = ".gz" if compressed else ""
        for name, part in (("train", slice(0, 100)), ("t10k", slice(100, None))):
            self.idx(tmp_path / f"{name}-images-idx3-ubyte{end}", images[part], compressed)
            self.idx(tmp_path / f"{name}-labels-idx1-ubyte{end}", labels[part], compressed)
        for place in (tmp_path, tmp_path / f"train-images-idx3-ubyte{end}"):
            found = data.pictures(str(place), (32, 32))
            np.testing.assert_allclose(found.train[:, 0], images[:100] / 255, atol=1e-6)
            np.testing.assert_array_equal(found.test_labels, labels[100:])

    def test_damaged_idx(self, squares, tmp_path):
        _, images, labels = squares
        path = tmp_path / "train-images-idx3-ubyte"
        self.idx(path, images)
        with pytest.raises(data.Refused, match="no file of labels"):
            data.pictures(str(path), (32, 32))
        self.idx(tmp_path / "train-labels-idx1-ubyte", labels)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(data.Refused, match="damaged"):
            data.pictures(str(path), (32, 32))
        path.write_bytes(gzip.compress(b"nothing")[:-3])
        with pytest.raises(data.Refused, match="cannot be read"):
            data.pictures(str(path), (32, 32))

    def test_npz(self, tmp_path):
        rng = np.random.default_rng(0)
        path = tmp_path / "colours.npz"
        images = rng.integers(0, 256, (20, 9, 7, 3), dtype=np.uint8)
        np.savez(path, x_train=images, y_train=np.arange(20)[:, None] % 2 + 5, x_test=images[:4], y_test=[5, 6, 5, 6])
        found = data.pictures(str(path), (32, 32))
        np.testing.assert_allclose(found.train, images.transpose(0, 3, 1, 2) / 255, atol=1e-6)
        assert found.classes == ("5", "6")
        assert found.test_labels.tolist() == [0, 1, 0, 1]

    def test_both_sets_are_scaled_alike(self, tmp_path):
        rng = np.random.default_rng(0)
        images, labels = rng.random((20, 9, 7)) * 300, np.arange(20) % 2
        np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images[:4] / 3, y_test=labels[:4])
        found = data.pictures(str(tmp_path / "a.npz"), (32, 32))
        assert found.train.max() == 1
        np.testing.assert_allclose(found.test, found.train[:4] / 3, rtol=1e-6)

    @pytest.mark.parametrize(
        "images, message", [(np.ones((40, 0, 8)), "have pixels, got shape"), (np.full((40, 8, 8), np.nan), "be of finite numbers, got NaN")]
    )
    def test_what_is_no_picture(self, tmp_path, images, message):
        np.savez(tmp_path / "a.npz", x=images, y=np.arange(40) % 2)
        with pytest.raises(data.Refused, match=rf"^a\.npz: pictures must {message}"):
            data.pictures(str(tmp_path / "a.npz"), (32, 32))

    def test_folder(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            (tmp_path / name).mkdir()
            for i in range(5):
                image.new("RGB", (40 + i, 30), colour).save(tmp_path / name / f"{i}.png")
        found = data.pictures(str(tmp_path), (16, 16))
        assert found.classes == ("blue", "red")
        assert found.train.shape == (8, 3, 16, 16)
        np.testing.assert_allclose(found.test[found.test_labels == 1], np.broadcast_to([[[1.0]], [[0.0]], [[0.0]]], (1, 3, 16, 16)), atol=1e-6)
        (tmp_path / "red" / "9.png").write_bytes(b"no picture")
        with pytest.raises(data.Refused, match=r"9\.png cannot be read"):
            data.pictures(str(tmp_path), (16, 16))

    def test_augmentation(self):
        images = np.random.default_rng(0).random((6, 2, 12, 12), dtype=np.float32)
        assert augmented(images, (), np.random.default_rng(0)) is images
        flipped = augmented(images, ("flip",), np.random.default_rng(0))
        kinds = [np.abs(new - old).max() < 1e-5 for new, old in zip(flipped, images)]
        mirrored = [np.abs(new - old[..., ::-1]).max() < 1e-5 for new, old in zip(flipped, images)]
        assert np.logical_xor(kinds, mirrored).all()
        assert any(mirrored)
        moved = augmented(images, ("shift", "rotate"), np.random.default_rng(0))
        assert moved.shape == images.shape
        assert np.abs(moved - images).max() > 0.05

    def test_collages(self):
        digit = np.zeros((3, 28, 28), np.float32)
        digit[:, 8:20, 8:20] = 1
        photograph = np.full((3, 100, 120), 0.5, np.float32)
        images, masks = tasks._collage([photograph], digit, 64, 5, np.random.default_rng(0))
        assert masks.any(axis=(1, 2)).all()
        np.testing.assert_array_equal(images[:, :, ~masks.any(axis=0)].min(axis=0).shape[0], 3)
        changed = (images != 0.5).any(axis=1)
        assert (changed[masks == 1]).mean() > 0.95

    def test_bigram_entropy(self):
        """Of independent symbols it is their entropy."""
        symbols = np.random.default_rng(0).choice(3, 200_000, p=[0.5, 0.25, 0.25])
        assert tasks.bigram_entropy(symbols) == pytest.approx(1.5 * np.log(2), abs=5e-3)


class TestRefused:
    def test_before_training_begins(self, squares, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        pytest.importorskip("matplotlib")
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "words.npz").write_bytes(b"PK\3\4 damaged")
        (tmp_path / "short.txt").write_text("short")
        for arguments, message in (
            (("lenet",), "unknown network lenet; there are "),
            (("lenet5", "--data", tmp_path / "nowhere"), "there is no such file or folder"),
            (("lenet5", "--data", tmp_path / "empty"), "must hold a folder of pictures for each class"),
            (("lenet5", "--data", tmp_path / "words.npz"), "cannot be read"),
            (("lenet5", "--data", tmp_path / "short.txt"), "neither an IDX file, an npz file nor a folder"),
            (("language_model", "--data", tmp_path / "short.txt"), "too short"),
            (("language_model", "--data", tmp_path / "nowhere"), "cannot be read"),
            (("gcn", "--data", squares[0]), "learns from data of its own"),
            (("lenet5", "--data", squares[0], "--augment", "turn"), "unknown turn; there are shift, rotate, flip and none"),
            (("lenet5", "--checkpoint", tmp_path / "no" / "run.safetensors"), "there is no folder"),
            (("lenet5", "--checkpoint", tmp_path), "this is a folder"),
            (("lenet5", "--json", tmp_path / "no" / "run.json"), "there is no folder"),
            (("lenet5", "--plot", tmp_path / "run.txt2"), "the name's ending must be one of"),
            (("lenet5", "--threads", "100000"), "--threads must be between 1 and"),
            (("lenet5", "--json", tmp_path), "this is a folder"),
            (("lenet5", "--plot", tmp_path / "folder.png"), "this is a folder"),
            (("lenet5", "--data", squares[0], "--epochs", "1", "--warmup", "3"), "--warmup must be less than the 3 steps of the run, got 3"),
        ):
            assert message in refused(capsys, *arguments), arguments
        for arguments in (("lenet5", "--epochs", "0"), ("lenet5", "--lr", "nan"), ("lenet5", "--optimizer", "best"), ()):
            with pytest.raises(SystemExit) as stop:
                train(*arguments)
            assert stop.value.code == 2

    def test_a_missing_package_comes_with_its_command(self, monkeypatch, capsys):
        monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
        assert 'scikit-learn (pip install "fastops[train]")' in refused(capsys, "lenet5")


def test_every_network_has_a_recipe_that_fits():
    for name in recipes.trainable():
        defaults = recipes.recipe(name)
        assert defaults.optimizer in recipes.OPTIMIZERS
        assert defaults.schedule in recipes.SCHEDULES
        network = recipes.build(name, num_classes=3, channels=3, features=8, length=8, symbols=7)
        inputs = {recipes.PICTURES: 1, recipes.SEGMENTATION: 1, recipes.ROWS: 1, recipes.TEXT: 1, recipes.GRAPH: 2}[defaults.task]
        assert len(network.inputs) == inputs, name
