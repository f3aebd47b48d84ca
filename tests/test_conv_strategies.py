"""Every strategy, in every direction it accepts, against the naive one, which the rows hold to the reference.

The data are small integers: all sums are exact in float32, whatever their order, and so a strategy that is exact must
give the very same bits. Winograd's transforms divide, so there the largest output sets the scale of the error.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

import fastops
from fastops import _threads
from fastops.ops.conv import folded, implicit, moves, pointwise, ready, strategies
from fastops.ops.conv.ready import KINDS, check_problem
from fastops.ops.conv.spec import Options
from fastops.ops.conv.strategies import STRATEGIES
from fastops.simd.blocking import panel_width
from tests.cases.conv import random_configurations

EXACT = {strategy.name: strategy.exact for strategy in STRATEGIES}
NAMES = [strategy.name for strategy in STRATEGIES if strategy.name != "naive"]
DIRECTIONS = ("forward", "grad_input", "grad_weight")
LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}

# Error relative to the largest output; F(4x4, 3x3) in float32 is what needs the first.
INEXACT = {"float32": 5e-5, "float64": 1e-12}


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return rng.integers(-4, 5, shape).astype(dtype)


class Case:
    """One convolution with integer-valued data."""

    def __init__(self, dtype: str, configuration: dict[str, Any], channels_last: bool = False, **options: Any) -> None:
        self.op = configuration["op"]
        self.options = {**configuration["options"], **options}
        shape, weight = configuration["input"], configuration["weight"]
        rng = np.random.default_rng(shape)
        self.input, self.weight = integers(rng, shape, dtype), integers(rng, weight, dtype)
        groups = self.options.get("groups", 1)
        outs = weight[1] * groups if "transpose" in self.op else weight[0]
        self.bias = integers(rng, (outs,), dtype) if configuration["bias"] else None
        if channels_last:
            self.input = np.ascontiguousarray(np.moveaxis(self.input, 1, -1))
            self.options["data_format"] = LAST[len(shape) - 2]
        self.grad_output = integers(rng, self.run("forward", "naive").shape, dtype)
        self.text = f"{self.op}(input {self.input.shape}, weight {weight}, bias={configuration['bias']}, {self.options}) {dtype}"

    def refused(self, direction: str, strategy: str) -> str | None:
        """The reason why the strategy does not do it."""
        if direction == "forward":
            found = fastops.explain(getattr(fastops, self.op), self.input, self.weight, self.bias, **self.options)
        else:
            backward = getattr(fastops, f"{self.op}_backward")
            found = fastops.explain(backward, self.grad_output, self.input, self.weight, self.bias, **self.options)
        (row,) = [row for row in found.rows if (row.direction, row.name) == (direction, strategy)]
        return row.reason

    def run(self, direction: str, strategy: str, **extra: Any) -> np.ndarray:
        arrays = (self.input, self.weight, self.bias)
        if direction == "forward":
            return getattr(fastops, self.op)(*arrays, **self.options, **extra, strategy=strategy)
        mask = (direction == "grad_input", direction == "grad_weight", False)
        backward = getattr(fastops, f"{self.op}_backward")
        gradients = backward(self.grad_output, *arrays, **self.options, output_mask=mask, strategy=strategy)
        return gradients[mask.index(True)]

    def compare(self, direction: str, strategy: str) -> bool:
        """Whether the strategy does it; if so, it must agree with the naive one."""
        reason = self.refused(direction, strategy)
        if reason is not None:
            assert len(reason) > 5
            with pytest.raises(ValueError) as refused:
                self.run(direction, strategy)
            assert reason in str(refused.value)
            return False
        found, expected = self.run(direction, strategy), self.run(direction, "naive")
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if EXACT[strategy]:
            wrong = found != expected
            assert not wrong.any(), (
                f"{strategy} {direction} of {self.text}: {wrong.sum()} of {wrong.size} elements are wrong, "
                f"first {tuple(map(int, np.argwhere(wrong)[0]))}: {found[wrong][0]}, not {expected[wrong][0]}"
            )
        else:
            error = np.abs(found.astype(np.float64) - expected).max() / max(1, np.abs(expected).max())
            assert error <= INEXACT[found.dtype.name], f"{strategy} {direction} of {self.text}: error {error:.2g}"
        return True


def compare_all(strategy: str, dtype: str, cases: Any) -> None:
    """Every direction of every case; both layouts."""
    done = dict.fromkeys(DIRECTIONS, 0)
    for number, configuration in enumerate(cases):
        case = Case(dtype, configuration, channels_last=number % 2 == 1)
        for direction in DIRECTIONS:
            done[direction] += case.compare(direction, strategy)
    assert done["forward"], "no case was one for this strategy"


def kinds() -> list[dict[str, Any]]:
    """What each strategy was made for, small."""

    def conv2d(input: tuple, weight: tuple, bias: bool = True, **options: Any) -> dict[str, Any]:
        return {"op": "conv2d", "input": input, "weight": weight, "bias": bias, "options": options}

    one_of_each = [
        conv2d((2, 8, 13, 14), (12, 8, 3, 3), padding=1),
        conv2d((2, 8, 13, 14), (12, 8, 3, 3), padding=1, stride=2),
        conv2d((2, 8, 13, 14), (12, 8, 3, 3), padding=(2, 1), dilation=(2, 1)),
        conv2d((1, 8, 13, 14), (12, 2, 3, 3), padding=1, groups=4),
        conv2d((2, 8, 13, 14), (8, 1, 3, 3), padding=1, groups=8),
        conv2d((2, 8, 13, 14), (16, 1, 3, 3), padding=1, groups=8, stride=2),
        conv2d((2, 9, 13, 14), (9, 1, 5, 5), padding=2, groups=9, bias=False),
        conv2d((2, 20, 13, 14), (18, 20, 7, 7), padding=3),
        conv2d((1, 20, 13, 14), (18, 20, 1, 7), padding=(0, 3)),
        conv2d((1, 20, 13, 14), (18, 20, 7, 1), padding=(2, 0)),
        conv2d((2, 9, 13, 14), (9, 1, 3, 2), padding=2, groups=9, dilation=2),
        conv2d((1, 9, 4, 15), (13, 9, 1, 2), padding=1, stride=2, dilation=(3, 1), bias=False),
        conv2d((2, 17, 13, 14), (20, 17, 1, 1)),
        conv2d((2, 17, 13, 14), (20, 17, 1, 1), stride=2, bias=False),
        conv2d((2, 12, 5, 5), (6, 6, 1, 1), groups=2),
        conv2d((2, 4, 13, 14), (6, 4, 5, 5), padding=2),
        conv2d((1, 4, 6, 30), (6, 4, 1, 7), padding=(0, 3)),
        conv2d((1, 4, 30, 6), (6, 4, 3, 1), padding=(1, 0)),
        conv2d((1, 3, 30, 30), (8, 3, 7, 7), padding=3, stride=2),
        conv2d((3, 40, 4, 4), (33, 40, 3, 3), padding=1),
        conv2d((1, 5, 9, 9), (7, 5, 3, 3), padding=((0, 2), (1, 0))),
        conv2d((1, 5, 3, 3), (7, 5, 3, 3), padding=4),
        conv2d((1, 5, 3, 3), (7, 5, 3, 3)),
        # Kernels in pieces, strides and dilations by Winograd: in one go and in several, the last of which is smaller.
        conv2d((2, 32, 13, 14), (12, 32, 3, 3), padding=1, stride=2),
        conv2d((1, 16, 32, 47), (9, 16, 3, 3), padding=1, stride=2),
        conv2d((2, 32, 13, 14), (18, 16, 3, 3), padding=(2, 0), stride=2, groups=2, bias=False),
        conv2d((3, 208, 9, 9), (40, 208, 3, 3), padding=1, stride=2),
        conv2d((2, 16, 17, 19), (9, 16, 5, 6), padding=(2, 3), stride=2),
        conv2d((1, 16, 20, 19), (16, 16, 8, 9), padding=4, stride=3),
        conv2d((1, 16, 4, 40), (9, 16, 1, 3), padding=(0, 1), stride=(1, 2)),
        conv2d((1, 16, 40, 4), (9, 16, 5, 1), stride=(3, 1)),
        conv2d((2, 32, 14, 15), (16, 32, 11, 11), padding=5),
        conv2d((1, 160, 9, 9), (48, 160, 6, 4), padding=3),
        conv2d((2, 7, 29, 27), (5, 7, 3, 3), padding=(1, 4), dilation=(3, 4)),
        conv2d((2, 16, 29, 27), (16, 16, 5, 4), padding=(1, 4), dilation=(2, 3)),
        conv2d((1, 5, 9, 11), (7, 5, 2, 2), padding=1),
        conv2d((1, 14, 24, 24), (38, 7, 3, 3), padding=(13, 4), groups=2, dilation=(4, 1)),
        # Strides folded into channels: several rows and columns of zeros, pixels that no window sees.
        conv2d((2, 3, 41, 38), (8, 3, 11, 11), padding=2, stride=4),
        conv2d((2, 3, 30, 33), (6, 3, 7, 14), padding=(0, 3), stride=(2, 4), bias=False),
        conv2d((1, 2, 19, 17), (6, 2, 5, 5), stride=3),
        # Wider, and higher, than what is worked on at a time.
        conv2d((1, 3, 4, 2100), (4, 3, 3, 3), padding=1),
        conv2d((1, 3, 5, 2100), (4, 3, 3, 3), padding=1, stride=2),
        conv2d((1, 2, 4, 2100), (4, 2, 3, 3), padding=2, dilation=2),
        conv2d((1, 4, 3, 2100), (4, 1, 3, 3), padding=1, groups=4),
        conv2d((1, 4, 2, 2100), (5, 4, 1, 1)),
        conv2d((2, 3, 1100, 4), (4, 3, 3, 3), padding=1),
        # As large as the image, and so many that the weights are packed.
        conv2d((3, 6, 4, 3), (10, 3, 4, 3), groups=2),
        conv2d((70, 6, 4, 3), (10, 6, 4, 3)),
        # Channels that fill vectors, the last of them in part, and more than are done at a time.
        conv2d((2, 133, 5, 11), (133, 1, 3, 3), padding=1, groups=133),
        conv2d((1, 133, 8, 21), (133, 1, 3, 3), padding=(3, 1), groups=133, stride=2, bias=False),
        conv2d((1, 37, 6, 17), (37, 1, 5, 5), padding=2, groups=37),
        conv2d((1, 37, 3, 2), (37, 1, 3, 7), padding=(1, 3), groups=37, stride=(2, 1)),
        conv2d((1, 37, 9, 12), (37, 1, 2, 3), padding=(0, 5), groups=37, stride=(1, 3), dilation=(3, 2)),
        conv2d((1, 37, 9, 12), (37, 1, 3, 3), padding=5, groups=37),
        # Kernels of many rows, all at a time.
        conv2d((1, 37, 17, 19), (37, 1, 7, 7), padding=3, groups=37),
        conv2d((1, 18, 20, 9), (18, 1, 16, 3), padding=(9, 1), groups=18),
        {"op": "conv3d", "input": (1, 37, 3, 7, 9), "weight": (37, 1, 1, 3, 3), "bias": True, "options": {"padding": (0, 1, 1), "groups": 37}},
        {"op": "conv3d", "input": (1, 37, 4, 5, 9), "weight": (37, 1, 2, 3, 3), "bias": True, "options": {"padding": 1, "groups": 37}},
        {"op": "conv1d", "input": (2, 9, 40), "weight": (10, 9, 3), "bias": True, "options": {"padding": 1}},
        {"op": "conv1d", "input": (2, 9, 40), "weight": (9, 1, 4), "bias": True, "options": {"groups": 9}},
        {"op": "conv3d", "input": (1, 4, 5, 7, 9), "weight": (6, 4, 3, 3, 3), "bias": True, "options": {"padding": 1}},
    ]
    up = {"stride": 2, "padding": 1, "output_padding": 1}
    one_of_each += [
        {"op": "conv_transpose2d", "input": (2, 8, 7, 9), "weight": (8, 6, 3, 3), "bias": True, "options": up},
        {"op": "conv_transpose2d", "input": (2, 8, 7, 9), "weight": (8, 6, 3, 3), "bias": True, "options": {}},
        {"op": "conv_transpose2d", "input": (2, 8, 7, 9), "weight": (8, 6, 2, 2), "bias": True, "options": {"stride": 2}},
        {"op": "conv_transpose2d", "input": (2, 8, 7, 9), "weight": (8, 6, 4, 4), "bias": True, "options": up},
        {"op": "conv_transpose2d", "input": (2, 6, 1, 1), "weight": (6, 5, 4, 3), "bias": True, "options": {"groups": 2}},
        {"op": "conv_transpose2d", "input": (70, 6, 1, 1), "weight": (6, 5, 4, 3), "bias": True, "options": {}},
        {"op": "conv_transpose2d", "input": (2, 9, 5, 6), "weight": (9, 35, 2, 2), "bias": True, "options": {"stride": 2}},
        {"op": "conv_transpose2d", "input": (2, 8, 7, 9), "weight": (8, 1, 4, 4), "bias": True, "options": {**up, "groups": 8}},
    ]  # fmt: skip
    return [kind for kind in one_of_each for _layout in range(2)]


def residues() -> list[dict[str, Any]]:
    """Channels and output channels 1 to 17, widths 1 to 40: every remainder of every tile."""
    found = []
    for width in range(1, 41):
        ins, outs = width % 17 + 1, (5 * width) % 17 + 1
        for kernel, groups in (((3, 3), 1), ((1, 1), 1), ((3, 3), ins), ((3, 2), 1)):
            weight = (ins if groups > 1 else outs, ins // groups, *kernel)
            options = {"padding": (kernel[0] // 2, kernel[1] // 2), "groups": groups}
            shape = (1, ins, 1 + width % 6, width)
            found.append({"op": "conv2d", "input": shape, "weight": weight, "bias": width % 2 == 0, "options": options})
    return found


# Of these a kernel for each kind is compiled, which takes a minute for another dtype.
MANY_KERNELS = ("winograd", "depthwise")


@pytest.mark.parametrize(
    ("strategy", "dtype"),
    [
        pytest.param(strategy, dtype, marks=[pytest.mark.full] if strategy in MANY_KERNELS and dtype == "float64" else [])
        for strategy in NAMES
        for dtype in ("float32", "float64")
    ],
)
def test_every_kind(strategy, dtype):
    compare_all(strategy, dtype, kinds())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", NAMES)
def test_residues(strategy, dtype):
    compare_all(strategy, dtype, residues())


@pytest.mark.parametrize("strategy", [*NAMES, "auto"])
def test_random_configurations(strategy):
    for number, configuration in enumerate(islice(random_configurations(seed=11), 60)):
        case = Case("float32", configuration, channels_last=number % 2 == 1)
        for direction in DIRECTIONS:
            if strategy == "auto":
                close(case.run(direction, "auto"), case.run(direction, "naive"), case.text)
            else:
                case.compare(direction, strategy)


def close(found: np.ndarray, expected: np.ndarray, text: str) -> None:
    assert found.shape == expected.shape
    error = np.abs(found.astype(np.float64) - expected).max() / max(1, np.abs(expected).max())
    assert error <= INEXACT[found.dtype.name], f"{text}: error {error:.2g}"


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", NAMES)
def test_many_random_configurations(strategy, dtype):
    compare_all(strategy, dtype, islice(random_configurations(seed=12), 1500))


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", NAMES)
def test_every_pair_of_channels(strategy, dtype):
    cases = [
        {"op": "conv2d", "input": (1, ins, 5, 11), "weight": (outs, ins, k, k), "bias": False, "options": {"padding": k // 2}}
        for ins in range(1, 18)
        for outs in range(1, 18)
        for k in (1, 3)
    ]  # fmt: skip
    cases += [
        {"op": "conv2d", "input": (1, 3, 7, w), "weight": (3, 1, k, k), "bias": False, "options": {"groups": 3, "stride": s}}
        for w in range(5, 41)
        for k in (2, 3, 5)
        for s in (1, 2)
    ]  # fmt: skip
    for configuration in cases:
        for last in (False, True):
            case = Case(dtype, configuration, channels_last=last)
            for direction in DIRECTIONS:
                case.compare(direction, strategy)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", NAMES)
def test_threads_do_not_matter(strategy, dtype, monkeypatch):
    """Bit for bit, on numbers that do round."""
    many = _threads._available()
    if many == 1:
        pytest.skip("needs two threads")
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    for configuration in kinds()[::2]:
        case = Case(dtype, configuration)
        rng = np.random.default_rng(3)
        for array in (case.input, case.weight, case.grad_output):
            array[...] = rng.standard_normal(array.shape)
        for direction in DIRECTIONS:
            if case.refused(direction, strategy) is None:
                fastops.set_num_threads(1)
                alone = case.run(direction, strategy)
                fastops.set_num_threads(many)
                assert case.run(direction, strategy).tobytes() == alone.tobytes(), f"{direction} of {case.text}"


def test_fewer_panels_than_threads(monkeypatch):
    """Winograd's blocks are half panels then: the same bits, also where the weights were transformed ahead."""
    many = _threads._available()
    if many == 1:
        pytest.skip("needs two threads")
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 2048, 5, 6), (panel_width("float32") - 3, 2048, 3, 3)))
    found = []
    for threads in (1, many):
        fastops.set_num_threads(threads)
        found.append(fastops.conv2d(x, w, padding=1, strategy="winograd"))
        found.append(fastops.prepare_conv2d(w, padding=1, strategy="winograd")(x))
    assert len({y.tobytes() for y in found}) == 1
    expected = fastops.conv2d(x.astype(float), w.astype(float), padding=1, strategy="im2col")
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_images_folded_in_parts(data_format, monkeypatch):
    """Five images, two at a time: the same bits as all at once, but for the order in which a weight's gradient is summed up."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, 23, 26) if data_format == "NCHW" else (5, 23, 26, 3))
    w = rng.standard_normal((10, 3, 7, 7))
    options = {"stride": 2, "padding": 3, "data_format": data_format, "strategy": "winograd"}
    found = []
    for at_once in (1 << 30, 2 * 12 * 15 * 17 * 8):
        monkeypatch.setattr(folded, "_AT_ONCE_BYTES", at_once)
        monkeypatch.setattr(ready, "_forward", {})
        monkeypatch.setattr(ready, "_backward", {})
        strategies.plan.cache_clear()
        y = fastops.conv2d(x, w, **options, activation="relu")
        prepared = fastops.prepare_conv2d(w, **options)(x, activation="relu")
        dy = np.cos(np.arange(y.size)).reshape(y.shape)
        found.append((y, prepared, *fastops.conv2d_backward(dy, x, w, **options)[:2]))
    strategies.plan.cache_clear()
    (y, prepared, dx, dw), (parts, prepared_parts, dx_parts, dw_parts) = found
    assert y.tobytes() == prepared.tobytes() == parts.tobytes() == prepared_parts.tobytes()
    assert dx.tobytes() == dx_parts.tobytes()
    np.testing.assert_allclose(dw_parts, dw, rtol=0, atol=1e-13 * abs(dw).max())


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("strategy", NAMES)
def test_fused_activation_and_nan(strategy, layout):
    for configuration in kinds()[::2]:
        case = Case("float32", configuration, channels_last=layout == "last")
        if case.refused("forward", strategy) is not None:
            continue
        for name in ("relu", "hardswish"):
            found = case.run("forward", strategy, activation=name)
            expected = case.run("forward", "naive", activation=name)
            if EXACT[strategy]:
                np.testing.assert_array_equal(found, expected, err_msg=case.text)
            else:
                close(found, expected, case.text)
        case.input.flat[case.input.size // 3] = np.nan
        expected, found = np.isnan(case.run("forward", "naive")), np.isnan(case.run("forward", strategy))
        if EXACT[strategy]:
            np.testing.assert_array_equal(found, expected, err_msg=case.text)
        assert not (expected & ~found).any(), f"{case.text}: NaN was lost"


@pytest.mark.parametrize("strategy", NAMES)
def test_prepared_weights_give_the_same_bits(strategy):
    for number, configuration in enumerate(kinds()):
        case = Case("float32", configuration, channels_last=number % 2 == 1)
        for array in (case.input, case.weight):
            array += np.linspace(0, 0.9, array.size, dtype=array.dtype).reshape(array.shape)  # numbers that do round
        if case.op == "conv2d" and case.refused("forward", strategy) is None:
            prepared = fastops.prepare_conv2d(case.weight, strategy=strategy, **case.options)
            for _ in range(2):
                assert prepared(case.input, case.bias).tobytes() == case.run("forward", strategy).tobytes(), case.text


@pytest.mark.parametrize("shape", [(2, 9, 7, 70), (126, 1, 1, 70)])
def test_large_weights_give_the_same_bits_prepared(shape, monkeypatch):
    """Those of 1x1 kernels are packed all the same; those of kernels as large as the image are read where they lie."""
    monkeypatch.setattr(pointwise, "_PACKED_BYTES", 0)
    strategies.plan.cache_clear()
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal((50, 70, 1, 1))
    options = {"data_format": "NHWC", "strategy": "pointwise"}
    if shape[0] > 2:
        x, w, options["data_format"] = x.reshape(126, 7, 5, 2), w.reshape(50, 7, 5, 2), "NCHW"
    assert fastops.prepare_conv2d(w, **options)(x).tobytes() == fastops.conv2d(x, w, **options).tobytes()
    strategies.plan.cache_clear()


@pytest.mark.parametrize("strategy", ["implicit", "winograd"])
@pytest.mark.parametrize("shape", [(1, 288, 7, 6), (3, 288, 14, 13)])
def test_weights_larger_than_a_cache(shape, strategy):
    """2.7 MB: some machines ask for them ahead, do not transform them ahead, or transform more of them at a time; two threads do the same."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(shape).astype(np.float32), rng.standard_normal((264, shape[1], 3, 3)).astype(np.float32)
    y = fastops.conv2d(x, w, padding=1, strategy=strategy)
    assert fastops.prepare_conv2d(w, padding=1, strategy=strategy)(x).tobytes() == y.tobytes()
    fastops.set_num_threads(1)
    assert fastops.conv2d(x, w, padding=1, strategy=strategy).tobytes() == y.tobytes()
    expected = fastops.conv2d(x.astype(np.float64), w.astype(np.float64), padding=1, strategy="im2col")
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("channels", "size"), [(112, 28), (224, 14)])
def test_far_weights_prepared_ahead(channels, size):
    """Large cores have weights of so many tiles transformed ahead, and by another variant; any number of threads gives the same bits."""
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((1, channels, size, size)), rng.standard_normal((channels, channels, 3, 3))
    expected = fastops.conv2d(x, w, padding=1, strategy="im2col")
    prepared = fastops.prepare_conv2d(w.astype(np.float32), padding=1)
    y = prepared(x.astype(np.float32))
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    fastops.set_num_threads(1)
    assert prepared(x.astype(np.float32)).tobytes() == y.tobytes()


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (4, 2)])
def test_pixels_that_a_strided_pixel_does_not_see(stride, layout, monkeypatch):
    """Images in parts; a transposed convolution gives the rest of its result the bias, and the activation of that."""
    monkeypatch.setattr(pointwise, "_SEEN_BYTES", 1 << 12)
    strategies.plan.cache_clear()
    rng = np.random.default_rng(6)
    x, w, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((5, 12, 9, 14), (12, 10, 1, 1), (20,)))
    options = {"stride": stride, "groups": 2, "data_format": "NHWC" if layout == "last" else "NCHW"}
    more = {"output_padding": tuple(s - 1 for s in stride), "activation": "sigmoid"}
    if layout == "last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    found, expected = (fastops.conv_transpose2d(x, w, bias, strategy=name, **options, **more) for name in ("pointwise", "naive"))
    np.testing.assert_array_equal(found, expected)
    image = (20 * expected).round()
    w = np.ascontiguousarray(w.reshape(12, 10, 1, 1))
    for mask in ((True, False, False), (False, True, False)):
        found, expected = (
            fastops.conv2d_backward(x, image, w, output_mask=mask, strategy=name, **options)[mask.index(True)] for name in ("pointwise", "naive")
        )
        np.testing.assert_array_equal(found, expected)
    found, expected = (fastops.conv2d(image, w, strategy=name, **options) for name in ("pointwise", "naive"))
    np.testing.assert_array_equal(found, expected)
    strategies.plan.cache_clear()


@pytest.mark.parametrize("parts", [1 << 12, 1 << 22])
def test_patches(parts, monkeypatch):
    """Windows that do not overlap are the pixels of a smaller image, with more channels."""
    monkeypatch.setattr(pointwise, "_SEEN_BYTES", parts)
    strategies.plan.cache_clear()
    rng = np.random.default_rng(7)
    for kernel, stride, size in (((2, 2), (2, 2), (8, 14)), ((3, 1), (3, 2), (9, 7)), ((4, 4), (4, 4), (17, 12)), ((2, 3), (3, 4), (10, 16))):
        x, w, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((5, 12, *size), (10, 6, *kernel), (12,)))
        y, expected = (fastops.conv2d(x, w, stride=stride, groups=2, strategy=name) for name in ("pointwise", "naive"))
        np.testing.assert_array_equal(y, expected)
        found, expected = (
            fastops.conv2d_backward(y, x, w, stride=stride, groups=2, output_mask=(False, True, False), strategy=name)[1] for name in ("pointwise", "naive")
        )
        np.testing.assert_array_equal(found, expected)
        covered = kernel == stride and all(n % k == 0 for n, k in zip(size, kernel))
        if covered:
            found, expected = (
                fastops.conv_transpose2d(y, w, bias, stride=stride, groups=2, activation="relu", strategy=name) for name in ("pointwise", "naive")
            )
            np.testing.assert_array_equal(found, expected)
        else:
            with pytest.raises(ValueError, match="patches must cover the image"):
                fastops.conv2d_backward(y, x, w, stride=stride, groups=2, output_mask=(True, False, False), strategy="pointwise")
    strategies.plan.cache_clear()


def test_tables_of_moves_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(moves, "_KEEP_BYTES", 2000)
    monkeypatch.setattr(moves, "_held", {})
    rng = np.random.default_rng(8)
    w = rng.integers(-3, 4, (5, 4, 1, 1)).astype(np.float32)
    for size in (20, 24, 28, 20):
        x = rng.integers(-3, 4, (1, 4, size, size)).astype(np.float32)
        y, expected = (fastops.conv2d(x, w, stride=2, strategy=name) for name in ("pointwise", "naive"))
        np.testing.assert_array_equal(y, expected)
        assert sum(held.nbytes for held in moves._held.values()) <= 2000


def test_explain_names_what_prepared_weights_run():
    """By winograd unprepared and by implicit prepared on a large core, elsewhere by one strategy."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((1, 512, 7, 7), dtype=np.float32), rng.standard_normal((512, 512, 3, 3), dtype=np.float32)
    for weight in (w, fastops.prepare_conv2d(w, padding=1)):
        (chosen,) = (row.name for row in fastops.explain(fastops.conv2d, x, weight, padding=1).rows if row.chosen)
        assert fastops.conv2d(x, weight, padding=1).tobytes() == fastops.conv2d(x, w, padding=1, strategy=chosen).tobytes()


def test_highest_precision_is_exact_to_rounding():
    """Without F(4x4, 3x3), a 3x3 convolution is as close to float64 as the naive one, up to a small factor."""
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((1, 64, 20, 20)), rng.standard_normal((64, 64, 3, 3))
    truth = fastops.conv2d(x, w, padding=1, strategy="naive")
    single = [a.astype(np.float32) for a in (x, w)]
    for strategy in STRATEGIES:
        found = fastops.explain(fastops.conv2d, *single, padding=1, precision="highest")
        if next(row.accepted for row in found.rows if row.name == strategy.name):
            y = fastops.conv2d(*single, padding=1, precision="highest", strategy=strategy.name)
            assert np.abs(y - truth).max() <= 4e-6 * np.abs(truth).max(), strategy.name


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize(
    "shape, outs, kernel, options",
    [
        ((2, 3, 20, 70), 13, (3, 3), {"padding": 1}),
        ((1, 3, 33, 48), 15, (3, 3), {"stride": 2, "padding": 1}),
        ((1, 4, 23, 100), 8, (5, 7), {"stride": (3, 4), "padding": (2, 9)}),
        ((2, 1, 9, 9), 33, (3, 2), {"dilation": (1, 3), "padding": (0, 2)}),
        ((1, 2, 6, 2000), 9, (1, 3), {"padding": (0, 1)}),
        ((3, 3, 5, 4), 8, (5, 4), {}),
    ],
)
def test_first_layers(shape, outs, kernel, options, activation):
    """Few input channels: the weights are multiplied with the slab itself."""
    rng = np.random.default_rng(5)
    x, w, bias = (integers(rng, s, "float32") for s in (shape, (outs, shape[1], *kernel), (outs,)))
    y = fastops.conv2d(x, w, bias, **options, activation=activation, strategy="depthwise")
    expected = fastops.conv2d(x, w, bias, **options, activation=activation, strategy="naive")
    if activation == "silu":
        np.testing.assert_allclose(y, expected, rtol=1e-5)
    else:
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "size, kernel, padding, dilation, groups",
    [
        ((20, 19), (7, 7), (3, 3), 1, 1),
        ((28, 28), (3, 3), (4, 4), 4, 1),
        ((9, 30), (1, 3), (0, 6), (1, 6), 1),  # columns alone
        ((16, 20), (3, 3), (9, 30), (3, 15), 1),  # columns of the result that see nothing
        ((17, 33), (5, 3), (4, 1), 2, 1),
        ((16, 16), (7, 1), (3, 0), 1, 2),
        ((3, 40), (9, 3), (6, 1), 1, 1),
        ((16, 16), (3, 3), (6, 6), 1, 2),  # rows of the result that see nothing
        ((1, 32), (3, 3), (1, 1), 1, 1),
    ],
)
def test_taps_in_the_padding_are_left_out(size, kernel, padding, dilation, groups, channels_last, monkeypatch):
    """A row or a column of them at a time, in the forward pass and in both gradients; to the last bit, with whole numbers."""
    monkeypatch.setattr(implicit, "_OUTSIDE_OF_WEIGHTS", 0.0)
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    strategies.plan.cache_clear()
    rng = np.random.default_rng(3)
    x, w = integers(rng, (3, 70 * groups, *size), "float32"), integers(rng, (33 * groups, 70, *kernel), "float32")
    data_format = "NHWC" if channels_last else "NCHW"
    options = {"padding": padding, "dilation": dilation, "groups": groups, "data_format": data_format}
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if channels_last else x
    problem = check_problem(
        "conv2d", KINDS["conv2d"], x.shape, w.shape, None, "float32", Options(1, padding, 0, dilation, groups, "default", data_format)
    )  # fmt: skip
    assert implicit._Convolution(problem.spec, "forward", 0).skips
    assert implicit._WeightGradient(problem.spec).skips
    expected = fastops.conv2d(x, w, **options, strategy="naive")
    np.testing.assert_array_equal(fastops.conv2d(x, w, **options, strategy="implicit"), expected)
    prepared = fastops.prepare_conv2d(w, **options, strategy="implicit")
    np.testing.assert_array_equal(prepared(x), expected)
    dy = integers(rng, expected.shape, "float32")
    for mask in ((True, False, False), (False, True, False)):
        found, wanted = (fastops.conv2d_backward(dy, x, w, None, **options, strategy=s, output_mask=mask) for s in ("implicit", "naive"))
        np.testing.assert_array_equal(found[mask.index(True)], wanted[mask.index(True)])
