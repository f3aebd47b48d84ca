"""``python -m fastops compare``: the layer tables, the measuring, and what is printed, written and refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from fastops.cli import _layers
from fastops.cli._layers import DIRECTIONS, FORWARD, Layer, largest_error
from fastops.cli.compare import against, measure
from fastops.cli.compare.measure import AUTO, Comparison, Measurement, Row, Settings, time_interleaved
from fastops.cli.compare.picture import fit, read_picture, resize
from fastops.cli.compare.table import digits, exponent, mebibytes, show
from fastops.cli.main import main
from fastops.cli.shapes import NETWORKS, SHAPES
from fastops.ops.conv.strategies import STRATEGIES

ALL = [s.name for s in STRATEGIES]
SMALL = replace(SHAPES["resnet18.layer2.strided"], channels=6, out_channels=5, size=(9, 8))
SMALL_UP = replace(SHAPES["unet.up3"], channels=6, out_channels=5, size=(4, 3))
SMALL_DEPTHWISE = replace(SHAPES["mobilenet_v2.d4"], channels=4, out_channels=4, groups=4, size=(9, 9))
SMALL_SHAPES = pytest.mark.parametrize("shape", [SMALL, SMALL_UP, SMALL_DEPTHWISE], ids=["strided", "up", "depthwise"])


# The convolutions alone, as torchvision's models have them: number and multiply-adds.
@pytest.mark.parametrize(
    "network, layers, millions",
    [
        ("lenet5", 3, 0.406),
        ("alexnet", 5, 655.567),
        ("vgg16", 13, 15346.631),
        ("resnet18", 20, 1813.561),
        ("resnet50", 53, 4087.136),
        ("mobilenet_v2", 52, 299.494),
        ("unet", 23, 48171.582),
    ],
)
def test_networks_have_the_published_number_of_layers_and_operations(network, layers, millions):
    shapes = NETWORKS[network]
    assert sum(s.count for s in shapes) == layers
    assert sum(s.count * s.flops() for s in shapes) / 2e6 == pytest.approx(millions, abs=1e-3)


def test_names_are_unique_and_shapes_distinct():
    assert len(SHAPES) == sum(map(len, NETWORKS.values()))
    for shapes in NETWORKS.values():
        assert len({replace(s, name="", count=1) for s in shapes}) == len(shapes)


@SMALL_SHAPES
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_calls_give_what_the_shape_says(shape, direction):
    layer = Layer(shape, batch=2)
    expected = {
        FORWARD: layer.grad_output.shape,
        "grad_input": layer.input.shape,
        "grad_weight": layer.weight.shape,
    }
    result = layer.call(direction, "naive")()
    assert result.shape == expected[direction]
    assert result.dtype == np.float32
    offers = layer.offers(direction, threads=1)
    assert list(offers) == ALL
    assert sum(o.chosen for o in offers.values()) == 1
    assert all((o.refused is None) == (o.workspace is not None) for o in offers.values())


@SMALL_SHAPES
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_reference_on_part_of_the_channels_is_part_of_the_whole(shape, direction, monkeypatch):
    layer = Layer(shape)
    whole, channels = layer.reference(direction)
    assert channels is None
    assert whole.dtype == np.float64
    monkeypatch.setattr(_layers, "REFERENCE_FLOPS", layer.flops / 2)
    part, channels = layer.reference(direction)
    assert largest_error(whole, part, channels, direction) < 1e-14
    if shape.groups == 1:
        assert part.size < whole.size
        spoilt = whole.copy()
        spoilt[channels[-1] if direction == "grad_weight" else (slice(None), channels[-1])] += 1
        assert largest_error(spoilt, part, channels, direction) > 0.01


@SMALL_SHAPES
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("library", [pytest.param("torch", marks=pytest.mark.torch), "onnxruntime"])
def test_libraries_compute_the_same(library, shape, direction):
    pytest.importorskip(library)
    layer = Layer(shape, batch=2)
    if library == "onnxruntime" and direction != FORWARD:
        with pytest.raises(NotImplementedError, match="gradients"):
            against.LIBRARIES[library](layer, direction, 1)
        return
    result = against.LIBRARIES[library](layer, direction, 1)()
    assert largest_error(result, *layer.reference(direction), direction) < 1e-5


def test_timing_takes_the_best_and_shares_the_time():
    calls = {"slow": lambda: time.sleep(0.02), "fast": lambda: time.sleep(0.001)}
    start = time.perf_counter()
    timed = time_interleaved(calls, 0.1)
    assert time.perf_counter() - start < 2
    assert timed["slow"][0] >= 0.02
    assert 0.001 <= timed["fast"][0] < timed["slow"][0]
    assert timed["fast"][1] > timed["slow"][1] >= measure.LEAST_CALLS


def _made_up(directions: tuple[str, ...] = (FORWARD,)) -> Comparison:
    """Two layers: "a" runs both, "b" the first alone and is chosen there."""
    settings = Settings(network="lenet5", strategies=("a", "b", "never"), libraries=("torch",), directions=directions)
    result = Comparison(settings, {"cpu": "some"})
    for shape, times, chosen in [
        (SMALL, {"a": 4.0, "b": 2.0, "torch": 3.0}, "b"),
        (SMALL_UP, {"a": 1.0, "torch": 0.5}, "a"),
    ]:
        for direction in directions:
            row = Row(replace(shape, count=3), direction, 6_000_000, chosen)
            for name in ("a", "b", "never", "torch"):
                row.measured[name] = Measurement(times.get(name), 1, 1 << 20, 1e-7, None if name in times else "no")
            row.measured[AUTO] = row.measured[chosen]
            result.rows.append(row)
    return result


def test_totals_count_every_layer_and_compare_over_the_same_ones():
    result = _made_up()
    assert result.columns == [AUTO, "a", "b", "torch"]
    assert result.absent() == {"never": "no"}
    assert result.total("never") is None
    auto, a, b = (result.total(n) for n in (AUTO, "a", "b"))
    assert (auto.milliseconds, a.milliseconds, b.milliseconds) == (9, 15, 6)
    assert (a.layers, b.layers) == (6, 3)
    assert (a.auto_milliseconds, b.auto_milliseconds) == (9, 6)
    assert a.gflops == pytest.approx(36e6 / 15e-3 * 1e-9)


@pytest.mark.parametrize("width", [100, 120, 200])
@pytest.mark.parametrize("directions", [(FORWARD,), DIRECTIONS])
def test_tables_fit_the_console(width, directions):
    result = _made_up(directions)
    names = ("a", "b", "winograd", "depthwise", "pointwise", "implicit")  # as many as there are, and as long
    result.settings = replace(result.settings, strategies=names, libraries=("torch", "onnxruntime"))
    for row in result.rows:
        row.measured |= dict.fromkeys((*names[2:], "onnxruntime"), row.measured["a"])
    text = io.StringIO()
    show(result, Console(file=text, width=width, highlight=False))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text.getvalue()
    row = next(line for line in lines if line.startswith("layer2.strided"))
    assert "*2.00" in row
    assert "1.50x" in row  # torch 3 ms beside 2 ms


def test_bars_shrink_with_the_console():
    """80 columns, and as many figures as there may be in a line."""
    result, text = _made_up(), io.StringIO()
    for row in result.rows:
        row.measured = {name: replace(m, milliseconds=m.milliseconds and 1000 * m.milliseconds, workspace=300 << 20) for name, m in row.measured.items()}
    show(result, Console(file=text, width=80, highlight=False))
    lines = text.getvalue().partition("the whole network")[2].splitlines()
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    bars = [max(line.count("#"), line.count("\N{BOX DRAWINGS HEAVY HORIZONTAL}")) for line in lines]
    lengths = [length for length in bars if length]
    assert lengths[0] == max(lengths) < 24
    assert lengths[1] == pytest.approx(lengths[0] * 9 / 15, abs=1)


def test_a_busy_machine_is_pointed_out():
    result, text = _made_up(), io.StringIO()
    result.load = 0.5
    show(result, Console(file=text, width=120))
    assert "busy with other programs (50% of it)" in text.getvalue()
    load = measure.used_by_others(0.05)
    assert load is None or 0 <= load <= 1


def test_figures_are_short():
    assert [digits(v) for v in (None, 0.0123, 1.234, 12.34, 99.96, 12345.6)] == [
        "-",
        "0.012",
        "1.23",
        "12.3",
        "100",
        "12346",
    ]
    assert [mebibytes(v) for v in (0, 100, 1 << 20, 300 << 20)] == ["0", "<.1", "1.0", "300"]
    assert [exponent(v) for v in (None, 0.0, 3.4e-7, 2e-12)] == ["-", "0", "3e-7", "2e-12"]


QUICK = ["compare", "lenet5", "--strategies", "naive", "--seconds", "0.1"]


def test_piped_output_is_the_table_alone():
    done = subprocess.run([sys.executable, "-m", "fastops", *QUICK, "--threads", "1"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    for shape in NETWORKS["lenet5"]:
        assert f"\n{shape.layer} " in done.stdout
    assert "1 thread," in done.stdout


def test_json_on_standard_output_has_everything(capsys):
    strategies = dict.fromkeys(["naive", ALL[0]])
    assert main([*QUICK[:3], ",".join(strategies), *QUICK[4:], "--backward", "--batch", "2", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["settings"]["batch"] == 2
    assert result["versions"]["numpy"] == np.__version__
    assert len(result["layers"]) == 3 * len(NETWORKS["lenet5"])
    for layer in result["layers"]:
        shape = SHAPES[layer["name"]]
        assert tuple(layer["size"]) == shape.size
        assert layer["direction"] in DIRECTIONS
        assert layer["chosen"] in ALL
        assert set(layer["candidates"]) == {AUTO, *strategies}
        naive = layer["candidates"]["naive"]
        assert naive["error"] < 1e-5
        assert naive["gflops"] == pytest.approx(shape.flops(2) / naive["milliseconds"] * 1e-6)
        for candidate in layer["candidates"].values():
            assert (candidate["milliseconds"] is None) == (candidate["refused"] is not None)
    assert set(result["totals"]) == set(DIRECTIONS)


def test_a_picture_goes_through_the_layers_into_files(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "picture.npy", np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    files = ["--image", tmp_path / "picture.npy", "--json", tmp_path / "all.json", "--plot", tmp_path / "all.png"]
    assert main([*QUICK, *map(str, files)]) == 0
    assert "picture.npy" in capsys.readouterr().out
    assert json.loads((tmp_path / "all.json").read_text())["settings"]["image"].endswith("picture.npy")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_is_resized_and_fitted(tmp_path):
    flat = np.full((2, 10, 7), 3.0)
    np.testing.assert_allclose(resize(flat, (4, 15)), np.full((2, 4, 15), 3.0), rtol=1e-6)
    picture = np.random.default_rng(0).standard_normal((1, 3, 12, 8)).astype(np.float32)
    np.testing.assert_allclose(resize(picture, (12, 8)), picture, rtol=1e-6)
    averaged = picture.reshape(1, 3, 6, 2, 4, 2).mean(axis=(3, 5))
    assert np.corrcoef(resize(picture, (6, 4)).ravel(), averaged.ravel())[0, 1] > 0.8
    fitted = fit(picture, SMALL, batch=2)
    assert fitted.shape == (2, 6, 9, 8)
    assert fitted.std() == pytest.approx(1, rel=1e-5)
    np.save(tmp_path / "grey.npy", np.zeros((5, 6)))
    assert read_picture(str(tmp_path / "grey.npy")).shape == (1, 5, 6)
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / "black.png")
    assert read_picture(str(tmp_path / "black.png")).shape == (3, 5, 6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["lenet6"], "unknown network lenet6; there are lenet5, alexnet"),
        (["--strategies", "naive,fft2"], "unknown strategy fft2; there are auto, "),
        (["--against", "keras"], "unknown library keras; there are torch, onnxruntime"),
        (["--threads", "100000"], "--threads must be between 1 and "),
        (["--image", "no-such-file.npy"], "--image no-such-file.npy: "),
        (["--json", "no-such-folder/a.json"], "--json no-such-folder/a.json: there is no folder"),
        (["--json", "fastops"], "--json fastops: this is a folder"),
        (["--plot", "a.docx"], "--plot a.docx: "),
    ],
)
def test_what_cannot_be_done_is_refused_before_measuring(arguments, message, capsys):
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("python -m fastops compare: error: ")
    assert message in captured.err


@pytest.mark.parametrize(
    "option, value, wanted",
    [
        ("--batch", "0", "must be a whole number from 1 on"),
        ("--batch", "x", "must be a whole number from 1 on"),
        ("--threads", "-1", "must be a whole number from 1 on"),
        ("--seconds", "nan", "must be a number above 0"),
        ("--seconds", "0", "must be a number above 0"),
        ("--seconds", "abc", "must be a number above 0"),
        ("--dtype", "int8", "invalid choice"),
    ],
)
def test_bad_values_are_refused_by_the_parser(option, value, wanted, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: {wanted}" in capsys.readouterr().err


def test_a_file_that_fails_does_not_cost_the_others(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastops.cli.compare.write_text", full)
    files = ["--json", tmp_path / "all.json", "--plot", tmp_path / "all.png"]
    assert main([*QUICK, *map(str, files)]) == 1
    out, err = capsys.readouterr()
    assert "the whole network" in out
    assert err == f"python -m fastops compare: error: --json {tmp_path / 'all.json'}: cannot be written: No space left on device\n"
    assert [file.name for file in tmp_path.iterdir()] == ["all.png"]


def test_a_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setattr(against, "installed", lambda library: False)
    assert main(["compare", "--against", "torch"]) == 2
    assert "torch is not installed" in capsys.readouterr().err


def test_a_file_that_is_no_picture_is_refused(tmp_path, capsys):
    (tmp_path / "note.png").write_text("not a picture")
    assert main(["compare", "--image", str(tmp_path / "note.png")]) == 2
    assert "note.png" in capsys.readouterr().err
    np.save(tmp_path / "cube.npy", np.zeros((3, 3, 3, 3)))
    assert main(["compare", "--image", str(tmp_path / "cube.npy")]) == 2
    assert "(3, 3, 3, 3)" in capsys.readouterr().err
    np.save(tmp_path / "holes.npy", np.array([[1.0, np.nan]]))
    assert main(["compare", "--image", str(tmp_path / "holes.npy")]) == 2
    assert "a picture holds finite numbers" in capsys.readouterr().err
    (tmp_path / "empty.npy").touch()
    assert main(["compare", "--image", str(tmp_path / "empty.npy")]) == 2
    assert "empty.npy: No data left in file" in capsys.readouterr().err


def test_pictures_of_more_than_eight_bits_are_scaled(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    for name, pixels in (("16.png", (ramp * 65535).astype(np.uint16)), ("32.tif", (ramp * 65535).astype(np.int32)), ("float.tif", ramp)):
        pillow.fromarray(pixels).save(tmp_path / name)
        np.testing.assert_allclose(read_picture(str(tmp_path / name)), np.broadcast_to(ramp, (3, 3, 4)), atol=2e-5, err_msg=name)
    for pixels in (2 * ramp, -ramp, ramp * np.float32(np.nan)):
        pillow.fromarray(pixels).save(tmp_path / "wrong.tif")
        with pytest.raises(ValueError, match="must have pixels between 0 and 1, got "):
            read_picture(str(tmp_path / "wrong.tif"))
