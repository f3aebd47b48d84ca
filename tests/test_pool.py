"""Pooling: the contract of every operation, the corners that people trip on, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from fastops import _threads
from fastops.ops.pool.run import largest, largest_and_places, mean_factors, weighted_sum, weighted_sum_backward
from fastops.ops.pool.windows import check_windows, made, of_output_size, ordinary, spatial
from fastops.simd.turn import rows_together
from tests.cases.pool import ROWS
from tests.harness import assert_same_bits, every_check

INF, NAN = np.inf, np.nan


@every_check(ROWS)
def test_row(check, row):
    check(row)


def image(*rows):
    return np.array([rows], np.float64)


class TestMaximum:
    def test_of_equal_elements_the_first_is_meant(self):
        x = image([1, 5, 5, 2], [5, 5, 5, 5], [0, 0, 7, 7], [0, 0, 7, 7])
        y, places = fastops.max_pool2d(x, 2, return_indices=True)
        np.testing.assert_array_equal(y, [[[5, 5], [0, 7]]])
        np.testing.assert_array_equal(places, [[[1, 2], [8, 10]]])
        assert places.dtype == np.int64
        dx = fastops.max_pool2d_backward(np.array([[[1.0, 2.0], [3.0, 4.0]]]), x, 2)
        np.testing.assert_array_equal(dx, image([0, 1, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]))

    def test_a_lower_column_wins_over_a_later_row(self):
        # the first in the order of memory stands in a column behind the other's
        x = image([0, 0, 9], [9, 0, 0], [0, 0, 0])
        assert fastops.max_pool2d_with_indices(x, 3)[1].item() == 2

    @pytest.mark.parametrize("stride", [1, 2, 3, 5])
    def test_nan_passes_through(self, stride):
        x = np.arange(2.0 * 60).reshape(1, 2, 60)
        x[0, 0, 7] = x[0, 1, 33] = NAN
        y = fastops.max_pool2d(x, (2, 3), stride=stride)
        y_too, places = fastops.max_pool2d_with_indices(x, (2, 3), stride=stride)
        starts = np.arange(y.shape[-1]) * stride
        expected = [any(s <= n < s + 3 for n in (7, 33)) for s in starts]
        np.testing.assert_array_equal(np.isnan(y[0, 0]), expected)
        np.testing.assert_array_equal(y_too, y)
        assert np.isnan(x.ravel()[places[0, 0][expected]]).all()

    def test_of_several_nan_the_last_is_meant(self):
        x = image([NAN, 1, 2], [0, NAN, 9], [9, 9, 9])
        assert fastops.max_pool2d_with_indices(x, 3)[1].item() == 4

    @pytest.mark.parametrize("padding", [0, 1])
    def test_all_minus_infinity(self, padding):
        x = np.full((1, 3, 21), -INF)
        y, places = fastops.max_pool2d(x, 3, 1, padding, return_indices=True)
        assert (y == -INF).all()
        assert places[0, 0, 0] == 0  # the first element inside
        assert ((places >= 0) & (places < x.size)).all()

    def test_ceil_mode_drops_windows_that_start_in_the_padding(self):
        x = np.arange(5.0).reshape(1, 1, 5)
        np.testing.assert_array_equal(fastops.max_pool1d(x, 2, 2, ceil_mode=True), [[[1, 3, 4]]])
        # the fourth window would start at 6 - 1, behind the last element
        np.testing.assert_array_equal(fastops.max_pool1d(x, 2, 2, 1, ceil_mode=True), [[[0, 2, 4]]])
        np.testing.assert_array_equal(fastops.avg_pool1d(x, 2, 2, 1, ceil_mode=True), [[[0, 1.5, 3.5]]])

    def test_places_are_flat_in_each_plane(self):
        x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 7))
        y, places = fastops.max_pool3d(x, 2, 1, return_indices=True)
        flat = x.reshape(2, 3, -1)
        np.testing.assert_array_equal(np.take_along_axis(flat, places.reshape(2, 3, -1), 2).reshape(y.shape), y)

    def test_stride_none_is_the_kernel(self):
        x = np.random.default_rng(0).standard_normal((1, 2, 9, 11))
        assert_same_bits(fastops.max_pool2d(x, (2, 3), None), fastops.max_pool2d(x, (2, 3), (2, 3)))

    def test_indices_given_are_not_found_again(self):
        x = np.random.default_rng(0).standard_normal((1, 2, 8, 9))
        for options in ({"kernel_size": 2}, {"kernel_size": 5, "stride": 5}):
            y, places = fastops.max_pool2d(x, **options, return_indices=True)
            expected = fastops.max_pool2d_backward(y, x, **options)
            nothing = np.broadcast_to(np.float64(0), x.shape)
            for dtype in (np.int64, np.uint16, np.int32):
                assert_same_bits(fastops.max_pool2d_backward(y, nothing, **options, indices=places.astype(dtype)), expected)
            assert_same_bits(fastops.max_pool2d_backward((y, None), x, **options, return_indices=True), expected)

    @pytest.mark.parametrize("bad", [-2, 72])
    def test_indices_outside_are_refused(self, bad):
        x = np.zeros((1, 2, 8, 9))
        for options in ({"kernel_size": 2}, {"kernel_size": 5, "stride": 5}):
            dy = fastops.max_pool2d(x, **options)
            indices = np.full(dy.shape, bad)
            with pytest.raises(ValueError, match=r"^max_pool2d_backward: indices must be at least -1 and below 72"):
                fastops.max_pool2d_backward(dy, x, **options, indices=indices)

    def test_float32_planes_whose_places_float32_cannot_hold(self):
        x = np.zeros((1, 1, (1 << 24) + 40), np.float32)
        x[0, 0, -3] = 1
        y, places = fastops.max_pool1d_with_indices(x, 8)
        assert places[0, 0, -1] == x.size - 3
        dx = fastops.max_pool1d_backward(y, x, 8)
        assert dx[0, 0, -3] == 1
        assert np.count_nonzero(dx) == 1

    def test_window_of_padding_and_holes_alone(self):
        x = np.ones((1, 1, 1))
        y, places = fastops.max_pool1d(x, 2, 1, 1, dilation=2, return_indices=True)
        assert y.item() == -INF
        assert places.item() == -1
        assert fastops.max_pool1d_backward(y, x, 2, 1, 1, dilation=2).item() == 0


class TestMean:
    def test_divisors(self):
        x = np.ones((1, 1, 5))
        np.testing.assert_allclose(fastops.avg_pool1d(x, 4, 2, 2), [[[0.5, 1, 0.75]]])
        np.testing.assert_allclose(fastops.avg_pool1d(x, 4, 2, 2, count_include_pad=False), [[[1, 1, 1]]])
        # what ceil_mode adds beyond the padding does not count
        np.testing.assert_allclose(
            fastops.avg_pool1d(x, 3, 3, 1, ceil_mode=True),
            [
                [
                    [
                        2 / 3,
                        1,
                    ]
                ]
            ],
        )
        np.testing.assert_allclose(fastops.avg_pool2d(np.ones((1, 5, 5)), 2, divisor_override=1), np.full((1, 2, 2), 4.0))

    def test_infinity_stays_in_its_window(self):
        x = np.zeros((1, 2, 30))
        x[0, 0, 4] = INF
        for stride in (1, 2, 3, 5):
            y = fastops.avg_pool2d(x, (1, 2), (1, stride))
            assert not np.isnan(y).any()
            assert (np.isinf(y[0, 0]) == [s <= 4 <= s + 1 for s in np.arange(y.shape[-1]) * stride]).all()


class TestAdaptive:
    def test_none_keeps_a_size(self):
        x = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
        assert fastops.adaptive_avg_pool2d(x, (None, 2)).shape == (2, 3, 5, 2)
        assert_same_bits(fastops.adaptive_max_pool2d(x, None), x)

    def test_no_windows(self):
        x = np.zeros((2, 3, 5, 7))
        assert fastops.adaptive_avg_pool2d(x, (0, 2)).shape == (2, 3, 0, 2)
        assert (fastops.adaptive_avg_pool2d_backward(np.zeros((2, 3, 0, 2)), x, (0, 2)) == 0).all()

    def test_windows(self):
        # 7 into 3: [0, 3), [2, 5), [4, 7)
        x = np.arange(7.0).reshape(1, 1, 7)
        np.testing.assert_array_equal(fastops.adaptive_avg_pool1d(x, 3), [[[1, 3, 5]]])
        np.testing.assert_array_equal(fastops.adaptive_max_pool1d(x, 3), [[[2, 4, 6]]])


class TestNorm:
    def test_gradient_where_the_sum_is_zero(self):
        x = np.zeros((1, 1, 4))
        for p in (1, 2, 3, 1.5):
            assert (fastops.lp_pool1d_backward(np.ones((1, 1, 2)), x, p, 2) == 0).all()

    def test_negative_elements(self):
        x = np.array([[[-3.0, 4.0, -2.0, 1.0]]])
        np.testing.assert_allclose(fastops.lp_pool1d(x, 2, 2), [[[5, 5**0.5]]])
        np.testing.assert_allclose(fastops.lp_pool1d(x, 3, 2)[0, 0, 0], 37 ** (1 / 3))
        assert np.isnan(fastops.lp_pool1d(x, 3, 2)[0, 0, 1])  # the cube root of -7, as in PyTorch
        assert np.isnan(fastops.lp_pool1d(x, 2.5, 2)).all()
        np.testing.assert_allclose(fastops.lp_pool1d(x, float("inf"), 2), [[[4, 2]]])
        np.testing.assert_allclose(fastops.lp_pool1d(x, float("-inf"), 2), [[[3, 1]]])


class TestUnpool:
    def test_undoes_max_pooling(self):
        x = np.random.default_rng(0).standard_normal((2, 3, 9, 11)).astype(np.float32)
        y, places = fastops.max_pool2d(x, 2, return_indices=True)
        back = fastops.max_unpool2d(y, places, 2, output_size=x.shape)
        assert back.shape == x.shape
        assert_same_bits(back, fastops.max_pool2d_backward(y, x, 2))

    def test_of_several_at_one_place_the_last_is_seen(self):
        x, places = np.array([[[1.0, 2.0]]]), np.array([[[3, 3]]])
        np.testing.assert_array_equal(fastops.max_unpool1d(x, places, 2), [[[0, 0, 0, 2]]])
        dx = fastops.max_unpool1d_backward(np.array([[[0.0, 0.0, 0.0, 5.0]]]), x, places, 2)
        np.testing.assert_array_equal(dx, [[[5, 5]]])

    @pytest.mark.parametrize("bad", [-1, 4, 2**40, -(2**40)])
    def test_places_outside_are_refused(self, bad):
        x, places = np.ones((1, 1, 2)), np.array([[[0, bad]]])
        with pytest.raises(ValueError, match=r"^max_unpool1d: indices must be at least 0 and below 4"):
            fastops.max_unpool1d(x, places, 2)
        with pytest.raises(ValueError, match=r"^max_unpool1d_backward: indices "):
            fastops.max_unpool1d_backward(np.ones((1, 1, 4)), x, places, 2)

    def test_empty_batch(self):
        x, places = np.ones((0, 2, 3, 3)), np.ones((0, 2, 3, 3), int)
        assert fastops.max_unpool2d(x, places, 2).shape == (0, 2, 6, 6)
        assert fastops.max_unpool2d_backward(np.ones((0, 2, 6, 6)), x, places, 2).shape == x.shape

    def test_output_size(self):
        x, places = np.ones((1, 1, 3)), np.zeros((1, 1, 3), int)
        for size in (5, 6, 7):
            assert fastops.max_unpool1d(x, places, 2, output_size=(size,)).shape == (1, 1, size)
            assert fastops.max_unpool1d(x, places, 2, output_size=np.array(size)).shape == (1, 1, size)
        for size in (4, 8, (1, 1, 8), (6, 6)):
            with pytest.raises(ValueError, match=r"^max_unpool1d: output_size "):
                fastops.max_unpool1d(x, places, 2, output_size=size)


class TestFractional:
    def test_a_seed_means_the_same_windows(self):
        x = np.random.default_rng(0).standard_normal((2, 3, 20, 20))
        first, again, other = (fastops.fractional_max_pool2d(x, 2, 9, rng=seed) for seed in (5, 5, 6))
        assert_same_bits(again, first)
        assert (other != first).any()
        assert fastops.fractional_max_pool2d(x, 2, 9, rng=np.random.default_rng(1)).shape == first.shape
        dy = np.ones_like(first)
        _, places = fastops.fractional_max_pool2d_with_indices(x, 2, 9, rng=5)
        assert_same_bits(
            fastops.fractional_max_pool2d_backward(dy, x, 2, 9, rng=5),
            fastops.fractional_max_pool2d_backward(dy, x, 2, 9, indices=places),
        )
        with pytest.raises(TypeError, match=r"^fractional_max_pool2d_backward: rng "):
            fastops.fractional_max_pool2d_backward(dy, x, 2, 9)

    def test_windows_start_evenly_enough(self):
        # every start lies within one element of i times the mean distance, the last at the very end
        x = np.arange(100.0).reshape(1, 1, 1, 100)
        places = fastops.fractional_max_pool2d_with_indices(x, (1, 2), (1, 40), rng=3)[1].ravel() - 1
        assert places[0] == 0
        assert places[-1] == 98
        assert np.abs(places - np.arange(40) * 98 / 39).max() <= 1


X4 = np.zeros((1, 2, 6, 7))
OVERFLOWING = [2**62, 2**63 - 1, 2**63, 2**63 + 5, 2**64, 10**30, (2, 2**63)]
WRONG = [
    ("max_pool2d", {"input": np.zeros((6, 7))}, ValueError, "input"),
    ("max_pool2d", {"input": np.zeros((1, 2, 0, 7))}, ValueError, "input"),
    ("max_pool2d", {"input": np.zeros((1, 2, 6, 7), int)}, TypeError, "input"),
    ("max_pool2d", {"kernel_size": 0}, ValueError, "kernel_size"),
    ("max_pool2d", {"kernel_size": (2, 2, 2)}, ValueError, "kernel_size"),
    ("max_pool2d", {"kernel_size": 2.0}, TypeError, "kernel_size"),
    ("max_pool2d", {"kernel_size": 8}, ValueError, "kernel_size"),
    ("max_pool2d", {"stride": 0}, ValueError, "stride"),
    ("max_pool2d", {"dilation": 0}, ValueError, "dilation"),
    ("max_pool2d", {"dilation": 9}, ValueError, "kernel_size"),
    ("max_pool2d", {"padding": 2}, ValueError, "padding"),
    ("max_pool2d", {"padding": -1}, ValueError, "padding"),
    ("max_pool2d", {"stride": np.zeros(0, int)}, ValueError, "stride"),
    ("max_pool2d", {"stride": np.array([1, 0])}, ValueError, "stride"),
    ("max_pool2d", {"kernel_size": 2**63, "padding": 2**62}, ValueError, "padding"),
    ("avg_pool2d", {"kernel_size": 2**63, "padding": 2**62}, ValueError, "padding"),
    ("avg_pool2d", {"padding": 2}, ValueError, "padding"),
    ("avg_pool2d", {"divisor_override": 0}, ValueError, "divisor_override"),
    ("avg_pool2d", {"divisor_override": 1.5}, TypeError, "divisor_override"),
    ("lp_pool2d", {"norm_type": 0}, ValueError, "norm_type"),
    ("lp_pool2d", {"norm_type": "2"}, TypeError, "norm_type"),
    ("adaptive_avg_pool2d", {"output_size": (1, 2, 3)}, ValueError, "output_size"),
    ("adaptive_avg_pool2d", {"output_size": -1}, ValueError, "output_size"),
    ("adaptive_max_pool2d", {"output_size": 1.5}, TypeError, "output_size"),
    *[(op, {"output_size": n}, ValueError, "output_size") for op in ("adaptive_avg_pool2d", "adaptive_max_pool2d") for n in OVERFLOWING],
    ("fractional_max_pool2d", {"output_size": None}, ValueError, "output_size"),
    ("fractional_max_pool2d", {"output_size": 6}, ValueError, "output_size"),
    ("fractional_max_pool2d", {"output_size": None, "output_ratio": 1.5}, ValueError, "output_ratio"),
    ("fractional_max_pool2d", {"output_size": None, "output_ratio": "0.5"}, TypeError, "output_ratio"),
    ("fractional_max_pool2d", {"_random_samples": np.zeros((1, 1, 2))}, ValueError, "_random_samples"),
    ("fractional_max_pool2d", {"_random_samples": np.full((1, 2, 2), np.nan)}, ValueError, "_random_samples"),
    ("max_unpool2d", {"indices": np.zeros((1, 2, 6, 6), int)}, ValueError, "indices"),
    ("max_unpool2d", {"indices": np.zeros((1, 2, 6, 7))}, TypeError, "indices"),
    ("max_unpool2d", {"indices": np.ma.zeros((1, 2, 6, 7), int)}, TypeError, "indices"),
    ("pool2d", {"input": np.zeros(6)}, ValueError, "input"),
    ("pool2d", {"mode": "min"}, ValueError, "mode"),
]
GOOD = {
    "max_pool2d": {"kernel_size": 2},
    "avg_pool2d": {"kernel_size": 2},
    "lp_pool2d": {"norm_type": 2, "kernel_size": 2},
    "adaptive_avg_pool2d": {"output_size": 2},
    "adaptive_max_pool2d": {"output_size": 2},
    "fractional_max_pool2d": {"kernel_size": 2, "output_size": 2, "rng": 0},
    "max_unpool2d": {"indices": np.zeros(X4.shape, int), "kernel_size": 2},
    "pool2d": {"pool_size": 2},
}


@pytest.mark.parametrize(("op", "change", "error", "argument"), WRONG)
def test_wrong_arguments(op, change, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**{"input": X4, **GOOD[op], **change})
    assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value


@pytest.mark.parametrize("op", [op for op in GOOD if op != "fractional_max_pool2d"])
def test_wrong_gradients(op):
    backward = getattr(fastops, f"{op}_backward")
    with pytest.raises(ValueError, match=rf"^{op}_backward: grad_output "):
        backward(np.zeros((1, 2, 1, 1)), X4, **GOOD[op])
    y = getattr(fastops, op)(X4, **GOOD[op])
    with pytest.raises(TypeError, match=rf"^{op}_backward: input "):
        backward(y.astype(np.float32), X4, **GOOD[op])


@pytest.mark.parametrize(
    ("op", "given", "meant"),
    [
        ("max_pool2d", (2, np.array([1, 2])), (2, (1, 2))),
        ("max_pool2d", (2, np.array(2)), (2, 2)),
        ("avg_pool2d", (2, np.int64(1)), (2, 1)),
        ("avg_pool2d", (2, None, 0, False, True, np.array(3)), (2, None, 0, False, True, 3)),
        ("lp_pool2d", (2, 2, np.array([1, 2])), (2, 2, (1, 2))),
        ("adaptive_avg_pool2d", (np.array(3),), (3,)),
        ("adaptive_max_pool2d", (np.array(3),), (3,)),
        ("fractional_max_pool2d", (2, None, np.float32(0.5), False, np.full((1, 2, 2), 0.5)), (2, None, 0.5, False, np.full((1, 2, 2), 0.5))),
        ("fractional_max_pool2d", (2, None, np.array([0.5, 0.3]), False, np.full((1, 2, 2), 0.5)), (2, None, (0.5, 0.3), False, np.full((1, 2, 2), 0.5))),
    ],
)
def test_sizes_in_arrays(op, given, meant):
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 7))
    assert_same_bits(getattr(fastops, op)(x, *given), getattr(fastops, op)(x, *meant))


def test_extents_beyond_the_image_stay_in_range():
    x = np.random.default_rng(0).standard_normal((1, 1, 4))
    assert fastops.max_pool1d(x, 2, 2**62).shape == (1, 1, 1)
    assert fastops.max_pool1d(x, 1, dilation=2**62, stride=1).shape == (1, 1, 4)
    y = fastops.max_pool1d(x, 2**40, 2**41, ceil_mode=True)
    assert y.item() == x.max()
    np.testing.assert_allclose(fastops.avg_pool1d(x, 2**40, 2**41, ceil_mode=True).item(), x.mean())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_planes_are_turned_or_not(dtype, monkeypatch):
    """Small planes, many at a time as lanes, give what each gives by itself: windows of all kinds, NaN, infinities and ties."""
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    rng = np.random.default_rng(0)
    kinds = [  # planes, size, kernel, stride, padding, dilation, ceil_mode
        (17, (7, 7), 2, 2, 0, 1, False), (300, (5, 4), 3, 2, 1, 1, True), (16, (9, 8), 3, 1, 1, 2, False), (40, (6,), 2, 2, 1, 1, True),
        (33, (3, 4, 5), 2, (1, 2, 1), (0, 1, 1), 1, False), (70, (30, 31), (4, 3), 3, 1, 1, False), (18, (2, 3), 1, 2, 0, 1, False),
    ]  # fmt: skip
    for planes, size, *window in kinds:
        shape, ndim = (1, planes, *size), len(size)
        x = rng.integers(-3, 4, shape).astype(dtype)
        x[rng.random(shape) < 0.05], x[rng.random(shape) < 0.05] = np.nan, -np.inf
        plans = [made("max_pool", shape, ndim, check_windows("max_pool", spatial("max_pool", shape, ndim), ndim, *window)) for _ in range(2)]
        plans[0].together, plans[1].together = 0, min(32, rows_together(max(plans[1].plane, plans[1].window_count)))
        for wide in (False, True):
            (values, places), (turned, turned_places) = (largest_and_places(plan, x, wide) for plan in plans)
            np.testing.assert_array_equal(turned, values)
            np.testing.assert_array_equal(turned_places, places)
        np.testing.assert_array_equal(largest(plans[1], x), largest(plans[0], x))
        if window[3] > 1:  # which no mean has
            continue
        finite = np.where(np.isfinite(x), x, 2).astype(dtype)
        factors = mean_factors(plans[0], np.dtype(dtype), count_include_pad=planes % 2 == 0)
        dy = rng.standard_normal(plans[0].shape).astype(dtype)
        for function, given in ((weighted_sum, finite), (weighted_sum_backward, dy)):
            alone, turned = (function(plan, given, factors) for plan in plans)
            np.testing.assert_allclose(turned, alone, rtol=0, atol=1e-6 if dtype == "float32" else 1e-15)


def test_which_planes_are_turned():
    """Those of many that are small, and never where planes have windows of their own or one covers all."""
    assert ordinary("max_pool2d", 2, (8, 64, 7, 7), 2, 2, 0, 1, False).together > 0
    assert ordinary("max_pool2d", 2, (1, 1, 7, 7), 2, 2, 0, 1, False).together == 0
    assert ordinary("max_pool2d", 2, (8, 64, 56, 56), 2, 2, 0, 1, False).together == 0
    assert of_output_size("adaptive_avg_pool2d", 2, (8, 64, 7, 7), 1).together == 0


@pytest.mark.parametrize(
    "size, windows, options",
    [
        ((1, 13), None, {"kernel_size": 2, "stride": 1, "padding": 1}),
        ((40, 1), None, {"kernel_size": (3, 2), "stride": 1, "padding": 1}),
        ((1, 1, 30), None, {"kernel_size": (2, 2, 3), "stride": 1, "padding": 1}),
        ((1, 5, 30), None, {"kernel_size": 2, "stride": (1, 2, 1), "padding": 1}),
        ((1, 13), (3, 11), {}),
        ((1, 4, 6), (5, 3, 9), {}),
        ((19, 23), (7, 30), {}),
    ],
)
def test_a_plane_in_parts(size, windows, options):
    """One image of one channel is cut for threads along the first axis that has several windows, which may have one element."""
    rng = np.random.default_rng(0)
    name = f"{'adaptive_' if windows else ''}max_pool{len(size)}d"
    x = rng.permutation(np.arange(float(np.prod(size)))).reshape(1, 1, *size)
    pool = getattr(fastops, name)
    y, places = pool(x, windows, return_indices=True) if windows else pool(x, **options, return_indices=True)
    np.testing.assert_array_equal(y, x.ravel()[places])
    dy = rng.standard_normal(y.shape)
    expected = np.zeros(x.size)
    np.add.at(expected, places.ravel(), dy.ravel())
    (dx,) = fastops.vjp(lambda x: pool(x, windows) if windows else pool(x, **options), x)[1](dy)
    np.testing.assert_allclose(dx.ravel(), expected, rtol=0, atol=1e-14)
