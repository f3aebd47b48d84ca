"""The dropout family: the contract of every operation, distributions with fixed seeds, p = 0 and 1, regions, wrong arguments."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import fastops
from fastops import _op, _threads
from tests.cases.dropout import ROWS, SELU_FLOOR
from tests.harness import assert_same_bits, every_check

NAN = np.nan
NAMES = sorted({row.op for row in ROWS})
SHAPES = {"dropout1d": (4, 6, 5), "dropout3d": (2, 3, 2, 4, 5), "drop_block3d": (2, 3, 4, 4, 5)}
OPTIONS = {
    "alpha_dropout": {"training": True},
    "feature_alpha_dropout": {"training": True},
    "drop_block2d": {"block_size": 3},
    "drop_block3d": {"block_size": 3},
    "stochastic_depth": {"mode": "row"},
}


def call(op, x, p, **more):
    return getattr(fastops, op)(x, p=p, **{**OPTIONS.get(op, {}), **more})


def backward(op, dy, x, p, **more):
    return getattr(fastops, f"{op}_backward")(dy, x, p=p, **{**OPTIONS.get(op, {}), **more})


def data(op):
    return np.random.default_rng(0).standard_normal(SHAPES.get(op, (4, 6, 7, 5)))


@every_check(ROWS)
def test_row(check, row):
    check(row)


@pytest.mark.parametrize("op", NAMES)
class TestEveryOperation:
    def test_nothing_falls(self, op):
        x = data(op)
        for y in (call(op, x, 0.0), call(op, x, 0, rng=1), call(op, x, 0.5, training=False)):
            assert y is not x
            assert_same_bits(y, x)
        dy = np.cos(x)
        assert_same_bits(backward(op, dy, x, 0.0), dy)
        assert_same_bits(backward(op, dy, x, 0.5, training=False), dy)

    def test_everything_falls(self, op):
        # with a block size of 1: larger blocks overlap, and then p = 1 is not everything
        more = {"block_size": 1} if "block" in op else {}
        x = data(op)
        assert (call(op, x, 1.0, rng=0, **more) == 0).all()
        assert (backward(op, np.cos(x), x, 1, rng=0, **more) == 0).all()

    def test_gradient_has_the_mask_of_the_seed_that_was_drawn(self, op):
        x = data(op)
        for rng in (None, np.random.default_rng(3), 5):
            options = {**OPTIONS.get(op, {}), "p": 0.4}
            y, kept = _op.get(op).record(x, **options, rng=rng)
            dx = getattr(fastops, f"{op}_backward")(np.ones(x.shape), np.broadcast_to(0.0, x.shape), **{**options, **kept})
            slope = (call(op, x + 1, 0.4, rng=kept["rng"]) - y).round(9)
            np.testing.assert_allclose(dx, slope, atol=1e-8)
            assert set(kept) == {"rng"}

    def test_seeds(self, op):
        x = np.ones((64, *data(op).shape[1:]))
        assert_same_bits(call(op, x, 0.5, rng=1), call(op, x, 0.5, rng=np.int64(1)))
        assert (call(op, x, 0.5, rng=1) != call(op, x, 0.5, rng=2)).any()
        assert (call(op, x, 0.5) != call(op, x, 0.5)).any()
        generator = np.random.default_rng(1)
        assert (call(op, x, 0.5, rng=generator) != call(op, x, 0.5, rng=generator)).any()

    def test_the_mask_is_the_same_for_float32_and_float64(self, op):
        x = np.ones(data(op).shape)
        narrow = call(op, x.astype(np.float32), 0.5, rng=9)
        np.testing.assert_allclose(narrow, call(op, x, 0.5, rng=9), rtol=1e-6)

    def test_in_place(self, op):
        if "inplace" not in inspect.signature(getattr(fastops, op)).parameters:
            pytest.skip("torch has no such argument")
        x = data(op)
        expected = call(op, x, 0.4, rng=6)
        assert call(op, x, 0.4, rng=6, inplace=True) is x
        assert_same_bits(x, expected)
        assert call(op, x, 0.4, inplace=True, training=False) is x
        assert_same_bits(x, expected)
        with pytest.raises(ValueError, match=rf"^{op}: out must be None"):
            call(op, x, 0.4, inplace=True, out=np.empty(x.shape))

    @pytest.mark.parametrize("p", [-0.1, 1.1, NAN, "0.5", None])
    def test_wrong_probability(self, op, p):
        out = np.full(data(op).shape, 7.0)
        with pytest.raises((ValueError, TypeError), match=rf"^{op}: p must be "):
            call(op, data(op), p, out=out)
        assert (out == 7).all()

    def test_gradient_needs_an_integer_seed(self, op):
        x = data(op)
        for rng in (None, np.random.default_rng(0), 1.0):
            with pytest.raises(TypeError, match=rf"^{op}_backward: rng must be the integer seed"):
                backward(op, x, x, 0.5, rng=rng)

    def test_wrong_grad_output(self, op):
        x = data(op)
        for dy, error in ((x[:1], ValueError), (x.astype(int), TypeError), (x.astype("f4"), TypeError)):
            with pytest.raises(error, match=rf"^{op}_backward: "):
                backward(op, dy, x, 0.5, rng=0)


def deviations(found, expected, variance, count):
    return abs(found - expected) / np.sqrt(variance / count)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("op", ["dropout", "drop_connect"])
def test_elements_fall_independently(op, p):
    count = 1 << 17
    kept = (call(op, np.ones(count, np.float32), p, rng=12) > 0).astype(float)
    assert deviations(kept.mean(), 1 - p, p * (1 - p), count) < 5
    for distance in (1, 2, 16, 64, 8192, 16384):  # neighbours, lanes, halves of a block, blocks
        together = (kept[distance:] * kept[:-distance]).mean()
        assert deviations(together, (1 - p) ** 2, (1 - p) ** 2 * (1 - (1 - p) ** 2), count - distance) < 5
    # runs of eight: as often as the binomial distribution has it
    falls = 8 - kept.reshape(-1, 8).sum(1)
    assert abs(falls.var() - 8 * p * (1 - p)) < 0.05 * 8 * p * (1 - p) + 0.01


@pytest.mark.parametrize(("op", "shape"), [("dropout1d", (200, 300, 4)), ("dropout2d", (200, 300, 2, 3)), ("dropout3d", (200, 300, 2, 1, 3))])
def test_channels_fall_whole_and_independently(op, shape):
    y = call(op, np.ones(shape), 0.3, rng=2).reshape(200, 300, -1)
    assert (y == y[:, :, :1]).all()
    kept = (y[:, :, 0] > 0).astype(float)
    assert deviations(kept.mean(), 0.7, 0.21, kept.size) < 5
    for a, b in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])):
        assert deviations((a * b).mean(), 0.49, 0.49 * 0.51, a.size) < 5


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_alpha_dropout_keeps_mean_and_variance(p):
    x = np.random.default_rng(0).standard_normal(1 << 18)
    y = fastops.alpha_dropout(x, p, training=True, rng=3)
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.02
    channels = np.random.default_rng(1).standard_normal((1000, 200, 3))
    y = fastops.feature_alpha_dropout(channels, p, training=True, rng=3)
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.02
    whole = np.ptp(y, 2) == 0
    assert deviations(whole.mean(), p, p * (1 - p), whole.size) < 5


def test_alpha_dropout_values():
    y = fastops.alpha_dropout(np.zeros(1000), 0.25, training=True, rng=0)
    a = 1 / np.sqrt(0.75 * (1 + 0.25 * SELU_FLOOR**2))
    np.testing.assert_allclose(np.unique(y), [a * SELU_FLOOR * 0.75, -a * SELU_FLOOR * 0.25], rtol=1e-14)


def test_drop_connect_of_a_kernel():
    kernel = np.random.default_rng(0).standard_normal((64, 32, 3, 3))
    dropped = fastops.drop_connect(kernel, 0.25, rng=1)
    fallen = dropped == 0
    np.testing.assert_allclose(dropped[~fallen], kernel[~fallen] / 0.75)
    assert abs(fallen.mean() - 0.25) < 0.02
    assert not fallen.all((1, 2, 3)).any()


class TestBlocks:
    @pytest.mark.parametrize("side", [1, 2, 3, 5])
    def test_what_falls_is_made_of_blocks(self, side):
        fallen = fastops.drop_block2d(np.ones((20, 3, 17, 12)), 0.15, side, rng=1) == 0
        windows = np.lib.stride_tricks.sliding_window_view(fallen, (side, side), axis=(2, 3)).all((-1, -2))
        covered = np.zeros_like(fallen)
        for h in range(side):
            for w in range(side):
                covered[:, :, h : h + windows.shape[2], w : w + windows.shape[3]] |= windows
        np.testing.assert_array_equal(covered, fallen)
        assert 0.5 * 0.15 < fallen.mean() <= 0.17

    def test_what_falls_in_three_dimensions_is_made_of_blocks(self):
        fallen = fastops.drop_block3d(np.ones((9, 3, 8, 9, 7)), 0.2, 3, rng=1) == 0
        windows = np.lib.stride_tricks.sliding_window_view(fallen, (3, 3, 3), axis=(2, 3, 4)).all((-1, -2, -3))
        assert windows.any()
        assert fallen.sum() <= 27 * windows.sum()

    def test_share_of_elements(self):
        # gamma = p H W / (side^2 (H - side + 1) (W - side + 1)) of the corners are drawn
        side, p, (H, W) = 3, 0.02, (20, 30)
        y = fastops.drop_block2d(np.ones((200, 30, H, W)), p, side, rng=4)
        fallen = y == 0
        gamma = p * H * W / (side**2 * (H - side + 1) * (W - side + 1))
        inside = fallen[:, :, side:-side, side:-side].mean()
        assert inside == pytest.approx(1 - (1 - gamma) ** (side * side), rel=0.02)
        # fewer blocks reach a corner of the image
        assert deviations(fallen[:, :, 0, 0].mean(), gamma, gamma, 6000) < 5

    def test_rescaling(self):
        y = fastops.drop_block2d(np.ones((2, 3, 20, 30)), 0.2, 5, rng=0)
        left = (y > 0).sum()
        np.testing.assert_allclose(y[y > 0], y.size / (1e-6 + left), rtol=1e-14)
        y = fastops.drop_block2d(np.ones((2, 3, 20, 30)), 0.2, 5, eps=1000.0, rng=0)
        np.testing.assert_allclose(y[y > 0], y.size / (1000 + left), rtol=1e-14)

    def test_planes_are_independent(self):
        fallen = fastops.drop_block2d(np.ones((50, 60, 8, 8)), 0.3, 3, rng=5) == 0
        some = fallen[:, :, 4, 4].astype(float)
        share = some.mean()
        for a, b in ((some[1:], some[:-1]), (some[:, 1:], some[:, :-1])):
            assert deviations((a * b).mean(), share**2, share**2 * (1 - share**2), a.size) < 5

    def test_a_block_larger_than_the_image_is_the_image(self):
        y = fastops.drop_block2d(np.ones((40, 5, 4, 6)), 0.3, 99, rng=5)
        assert ((y == 0).sum((2, 3)) % 4 == 0).all()

    def test_empty(self):
        for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)):
            assert fastops.drop_block2d(np.empty(shape), 0.5, 3, rng=0).shape == shape


def test_stochastic_depth_modes():
    x = np.ones((4000, 3))
    rows = fastops.stochastic_depth(x, 0.25, "row", rng=1)
    assert (rows == rows[:, :1]).all()
    assert deviations((rows[:, 0] > 0).mean(), 0.75, 0.75 * 0.25, 4000) < 5
    batches = [fastops.stochastic_depth(x[:2], 0.25, "batch", rng=seed) for seed in range(400)]
    assert all(np.ptp(batch) == 0 for batch in batches)
    assert deviations(np.mean([batch[0, 0] > 0 for batch in batches]), 0.75, 0.75 * 0.25, 400) < 5


def test_masks_do_not_depend_on_threads():
    if _threads._available() == 1:
        pytest.skip("needs two threads")
    x = np.ones(1 << 20, np.float32)
    results = []
    for threads in (1, 2):
        fastops.set_num_threads(threads)
        results.append(fastops.dropout(x, 0.5, rng=8))
    assert_same_bits(*results)


def test_nan_stays():
    # as in PyTorch, which multiplies by the mask
    for op in ("dropout", "dropout2d", "alpha_dropout", "drop_block2d"):
        assert np.isnan(call(op, np.full((2, 3, 4, 4), NAN), 0.5, rng=0)).all()


WRONG = [
    ("dropout", {"input": np.ones(3, int)}, TypeError, "input"),
    ("dropout", {"input": np.ones(3), "rng": -1}, ValueError, "rng"),
    ("dropout", {"input": np.ones(3), "rng": 2**63}, ValueError, "rng"),
    ("dropout", {"input": np.ones(3), "rng": 0.5}, TypeError, "rng"),
    ("dropout", {"input": np.ones(3), "out": np.full(4, 7.0)}, ValueError, "out"),
    ("dropout1d", {"input": np.ones(3)}, ValueError, "input"),
    ("dropout1d", {"input": np.ones((1, 2, 3, 4))}, ValueError, "input"),
    ("dropout2d", {"input": np.ones((3, 4))}, ValueError, "input"),
    ("dropout3d", {"input": np.ones((3, 4, 5))}, ValueError, "input"),
    ("feature_alpha_dropout", {"input": np.ones(3), "training": True}, ValueError, "input"),
    ("stochastic_depth", {"input": np.ones((3, 4)), "p": 0.5, "mode": "rows"}, ValueError, "mode"),
    ("drop_block2d", {"input": np.ones((3, 4, 5)), "p": 0.5, "block_size": 3}, ValueError, "input"),
    ("drop_block2d", {"input": np.ones((1, 3, 4, 5)), "p": 0.5, "block_size": 0}, ValueError, "block_size"),
    ("drop_block2d", {"input": np.ones((1, 3, 4, 5)), "p": 0.5, "block_size": 3.0}, TypeError, "block_size"),
    ("drop_block3d", {"input": np.ones((1, 3, 4, 5)), "p": 0.5, "block_size": 3}, ValueError, "input"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "argument"), WRONG)
def test_wrong_arguments(op, arguments, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**arguments)
    assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value
    assert (arguments.get("out", np.full(1, 7)) == 7).all()
