"""Interpolation, sampling and shuffles: the contract of every operation, their corners, and wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest

import fastops
from fastops.ops.resize import grid as grid_module
from tests.cases.resize import ROWS, interpolated, matrix, sampled
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


def line(*values):
    return np.array(values, np.float64)[None, None]


class TestInterpolate:
    def test_nearest_and_nearest_exact(self):
        x = line(0, 1, 2)
        np.testing.assert_array_equal(fastops.interpolate(x, 5), line(0, 0, 1, 1, 2))
        np.testing.assert_array_equal(fastops.interpolate(x, 5, mode="nearest-exact"), line(0, 0, 1, 2, 2))
        np.testing.assert_array_equal(fastops.interpolate(x, 2), line(0, 1))
        np.testing.assert_array_equal(fastops.interpolate(x, 2, mode="nearest-exact"), line(0, 2))

    def test_indices_are_those_of_float32(self):
        # 41 outputs of 7 inputs: 7 / 41 * 41 * k differs in the last bit between the two formats
        for inputs in range(2, 40):
            for outputs in range(2, 60):
                x = np.arange(inputs, dtype=np.float32)[None, None]
                scale = np.float32(inputs) / np.float32(outputs)
                expected = np.minimum(np.floor(scale * np.arange(outputs, dtype=np.float32)), inputs - 1)
                np.testing.assert_array_equal(fastops.interpolate(x, outputs)[0, 0], expected)

    def test_corners(self):
        x = line(0, 1)
        np.testing.assert_allclose(fastops.interpolate(x, 4, mode="linear"), line(0, 0.25, 0.75, 1))
        np.testing.assert_allclose(fastops.interpolate(x, 4, mode="linear", align_corners=True), line(0, 1 / 3, 2 / 3, 1))

    @pytest.mark.parametrize("align_corners", [False, True])
    def test_a_single_output(self, align_corners):
        x = line(1, 2, 4, 8)
        expected = 1.0 if align_corners else 3.0  # the first element, or the middle
        assert fastops.interpolate(x, 1, mode="linear", align_corners=align_corners).item() == expected
        image = x[..., None] * np.ones(4)
        assert fastops.interpolate(image, 1, mode="bilinear", align_corners=align_corners).item() == expected
        same = fastops.interpolate(line(5), 3, mode="linear", align_corners=align_corners)
        np.testing.assert_array_equal(same, line(5, 5, 5))

    def test_scale_factors_are_used_as_they_are(self):
        x = line(0, 1, 2, 3)
        raw = np.maximum((np.arange(6) + 0.5) / 1.6 - 0.5, 0)
        again = np.maximum((np.arange(6) + 0.5) * 4 / 6 - 0.5, 0)
        found = fastops.interpolate(x, scale_factor=1.6, mode="linear")
        np.testing.assert_allclose(found[0, 0], np.minimum(raw, 3))
        found = fastops.interpolate(x, scale_factor=1.6, mode="linear", recompute_scale_factor=True)
        np.testing.assert_allclose(found[0, 0], np.minimum(again, 3))
        assert_same_bits(found, fastops.interpolate(x, 6, mode="linear"))

    def test_sizes_of_images_that_stay_or_double(self):
        """As in PyTorch, where the other ranks take even this scale factor as it is."""
        x = line(0, 1, 2)
        np.testing.assert_array_equal(fastops.interpolate(x, scale_factor=2.3), line(0, 0, 0, 1, 1, 2))
        np.testing.assert_array_equal(fastops.interpolate(x[:, :, None], scale_factor=(1.0, 2.3)), line(0, 0, 1, 1, 2, 2)[:, :, None])
        np.testing.assert_array_equal(fastops.interpolate(x[:, :, None], scale_factor=(1.0, 1.3)), x[:, :, None])
        np.testing.assert_array_equal(fastops.interpolate(x[:, :, None], scale_factor=(1.0, 1.3), mode="nearest-exact"), line(0, 1, 1)[:, :, None])

    def test_cubic_weights(self):
        x = np.zeros((1, 1, 1, 8))
        x[..., 3] = 1
        found = fastops.interpolate(x, (1, 16), mode="bicubic")[0, 0, 0]
        # a = -0.75 at distances 1.75, 1.25, 0.75 and 0.25
        np.testing.assert_allclose(found[3:7], [-0.03515625, -0.10546875, 0.26171875, 0.87890625])

    @pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
    def test_antialias_keeps_constants_and_widens_the_filter(self, mode):
        found = fastops.interpolate(np.full((1, 1, 37, 29), 3.0), (5, 7), mode=mode, antialias=True)
        np.testing.assert_allclose(found, 3.0, rtol=1e-14)
        x = np.zeros((1, 1, 1, 32))
        x[..., 16] = 1  # seen by more outputs than one, though they are 8 inputs apart
        assert np.count_nonzero(fastops.interpolate(x, (1, 4), mode=mode, antialias=True)) > 1

    def test_antialias_changes_nothing_where_inputs_are_fewer(self):
        x = np.random.default_rng(0).standard_normal((1, 2, 5, 6))
        found = fastops.interpolate(x, (11, 9), mode="bilinear", antialias=True)
        np.testing.assert_allclose(found, fastops.interpolate(x, (11, 9), mode="bilinear"), atol=1e-14)

    @pytest.mark.parametrize("options", [
        {"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bicubic", "align_corners": True}, {"mode": "bicubic", "antialias": True},
    ], ids=str)  # fmt: skip
    @pytest.mark.parametrize("sizes", [((37, 30), (301, 211)), ((301, 211), (190, 230)), ((190, 260), (401, 90)), ((300, 200), (300, 400))])
    def test_bands_of_large_images(self, options, sizes):
        rng = np.random.default_rng(0)
        x, dy = rng.standard_normal((1, 2, *sizes[0])), rng.standard_normal((1, 2, *sizes[1]))
        y = fastops.interpolate(x, sizes[1], **options)
        np.testing.assert_allclose(y, interpolated(x, sizes[1], **options), atol=1e-12)
        dx = fastops.interpolate_backward(dy, x, sizes[1], **options)
        assert np.vdot(dy, y) == pytest.approx(np.vdot(dx, x), rel=1e-11)

    def test_bands_of_large_volumes(self):
        rng = np.random.default_rng(0)
        x, dy = rng.standard_normal((1, 1, 3, 90, 100)), rng.standard_normal((1, 1, 5, 200, 190))
        y = fastops.interpolate(x, dy.shape[2:], mode="trilinear")
        np.testing.assert_allclose(y, interpolated(x, dy.shape[2:], mode="trilinear"), atol=1e-12)
        dx = fastops.interpolate_backward(dy, x, dy.shape[2:], mode="trilinear")
        assert np.vdot(dy, y) == pytest.approx(np.vdot(dx, x), rel=1e-11)

    def test_the_gradient_is_the_transposed_matrix(self):
        weights = matrix("cubic", 9, 23, None, False, False)
        dy = np.random.default_rng(0).standard_normal((1, 1, 1, 23))
        dx = fastops.interpolate_backward(dy, np.zeros((1, 1, 1, 9)), (1, 23), mode="bicubic")
        np.testing.assert_allclose(dx[0, 0, 0], dy[0, 0, 0] @ weights, atol=1e-14)

    def test_infinities_stay_with_the_outputs_that_see_them(self):
        x = np.zeros((1, 1, 8, 8))
        x[..., 4, 4] = np.inf
        y = fastops.interpolate(x, (16, 16), mode="nearest")
        assert np.isfinite(y).sum() == 256 - 4
        assert np.isfinite(fastops.interpolate(x, (3, 3), mode="area")).sum() == 9 - 1


WRONG = [
    ({"size": None}, ValueError, "size"),
    ({"scale_factor": 2.0}, ValueError, "size"),
    ({"size": (3,)}, ValueError, "size"),
    ({"size": 0}, ValueError, "size"),
    ({"size": 2.5}, TypeError, "size"),
    ({"size": True}, TypeError, "size"),
    ({"size": 2**40}, ValueError, "size"),
    ({"size": None, "scale_factor": 0.1}, ValueError, "scale_factor"),
    ({"size": None, "scale_factor": -1}, ValueError, "scale_factor"),
    ({"size": None, "scale_factor": np.nan}, ValueError, "scale_factor"),
    ({"size": None, "scale_factor": np.inf}, ValueError, "scale_factor"),
    ({"size": None, "scale_factor": (2, 2, 2)}, ValueError, "scale_factor"),
    ({"size": None, "scale_factor": "twice"}, TypeError, "scale_factor"),
    ({"align_corners": True}, ValueError, "align_corners"),
    ({"align_corners": False, "mode": "area"}, ValueError, "align_corners"),
    ({"mode": "cubic"}, ValueError, "mode"),
    ({"mode": ["nearest"]}, ValueError, "mode"),
    ({"mode": "linear"}, ValueError, "input"),
    ({"mode": "trilinear"}, ValueError, "input"),
    ({"mode": "lanczos"}, ValueError, "mode"),
    ({"antialias": True}, ValueError, "antialias"),
    ({"recompute_scale_factor": True}, ValueError, "recompute_scale_factor"),
    ({"input": np.zeros((4, 5))}, ValueError, "input"),
    ({"input": np.zeros((1, 0, 4, 5))}, ValueError, "input"),
    ({"input": np.zeros((1, 2, 0, 5))}, ValueError, "input"),
    ({"input": np.zeros((1, 2, 4, 5), int)}, TypeError, "input"),
]


@pytest.mark.parametrize(("arguments", "error", "name"), WRONG, ids=str)
def test_interpolate_refuses(arguments, error, name):
    with pytest.raises(error, match=f"^interpolate: {name}"):
        fastops.interpolate(**{"input": np.zeros((1, 2, 4, 5)), "size": 3, **arguments})


@pytest.mark.parametrize("op", ["interpolate", "upsample"])
def test_numbers_in_arrays_without_axes(op):
    x = np.arange(20.0).reshape(1, 1, 4, 5)
    assert_same_bits(getattr(fastops, op)(x, np.array(6)), getattr(fastops, op)(x, 6))
    assert_same_bits(getattr(fastops, op)(x, scale_factor=np.array(2.0)), getattr(fastops, op)(x, scale_factor=2.0))


SQUARE = np.arange(1.0, 17.0).reshape(1, 1, 4, 4)


@pytest.fixture(params=[False, True], ids=["turned", "planar"])
def way(request, monkeypatch):
    monkeypatch.setattr(grid_module, "_reads_planes", lambda *_: request.param)


def at(*places, dtype=np.float64):
    return np.array(places, dtype)[None, None]


@pytest.mark.usefixtures("way")
class TestGridSample:
    nan, inf = np.nan, np.inf

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        ("mode", "padding_mode", "expected"),
        [
            ("bilinear", "zeros", [nan, nan, nan, nan, 0, 0, 0]),
            ("bilinear", "border", [7, 2.5, 10, 7, 10, 9.4, 4]),
            ("bilinear", "reflection", [7, 2.5, 7, 7, 7, 9.4, None]),
            ("nearest", "zeros", [0, 0, 0, 0, 0, 0, 0]),
            ("nearest", "border", [9, 3, 12, 9, 12, 9, 4]),
            ("nearest", "reflection", [9, 3, 9, 9, 9, 9, None]),
            ("bicubic", "zeros", [nan, nan, nan, nan, 0, 0, 0]),
            ("bicubic", "border", [nan, nan, nan, nan, 10, 9.571, 4]),
            ("bicubic", "reflection", [nan, nan, nan, nan, 7, 9.571, None]),
        ],
    )
    def test_places_that_are_no_places(self, mode, padding_mode, expected, dtype):
        """NaN counts as the first element where places are clipped; nothing is read outside (checked mode would tell)."""
        nan, inf = np.nan, np.inf
        places = at((nan, 0), (0, nan), (inf, 0), (-inf, 0), (1e30, 0), (-1e30, 0.3), (1e10, -1e10), dtype=dtype)
        x = SQUARE.astype(dtype)
        found = fastops.grid_sample(x, places, mode, padding_mode)[0, 0, 0]
        for one, wanted in zip(found, expected):
            if wanted is not None:  # where 1e10 lies after a billion reflections depends on rounding
                assert one == pytest.approx(wanted, abs=1e-3, nan_ok=True)
        dx, dgrid = fastops.grid_sample_backward(np.ones((1, 1, 1, 7), dtype), x, places, mode, padding_mode)
        assert dx.shape == x.shape
        assert dgrid.shape == places.shape

    def test_places_that_are_no_places_in_three_dimensions(self):
        nan, inf = np.nan, np.inf
        x = np.arange(1.0, 9.0).reshape(1, 1, 2, 2, 2)
        places = np.array([(nan, 0, 0), (0, nan, 0), (inf, 0, 0), (1e30, 0, 0), (-1e30, 0.3, 0), (1e10, -1e10, 0)])[None, None, None]
        np.testing.assert_array_equal(fastops.grid_sample(x, places)[0, 0, 0, 0], [0] * 6)
        border, mirrored = (fastops.grid_sample(x, places, padding_mode=mode)[0, 0, 0, 0] for mode in ("border", "reflection"))
        np.testing.assert_allclose(border, [4, 3.5, 5, 5, 4.6, 4])
        np.testing.assert_allclose(mirrored[:3], [4, 3.5, 4])

    def test_the_identity(self):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, 3, 5, 9))
        theta = np.broadcast_to(np.eye(2, 3), (2, 2, 3))
        for align_corners in (False, True):
            grid = fastops.affine_grid(theta, x.shape, align_corners)
            for mode in ("bilinear", "nearest", "bicubic"):
                np.testing.assert_allclose(fastops.grid_sample(x, grid, mode, align_corners=align_corners), x, atol=1e-13)

    def test_halves_go_to_the_even_neighbour(self):
        places = at(*((2 * (i + 0.5) / 3 - 1, -1) for i in range(3)))
        np.testing.assert_array_equal(fastops.grid_sample(SQUARE, places, "nearest", align_corners=True)[0, 0, 0], [1, 3, 3])

    def test_a_zero_border_fades(self):
        places = at((-1, -1), (-1.25, -0.75), (-1.26, -0.75))
        np.testing.assert_allclose(fastops.grid_sample(SQUARE, places)[0, 0, 0], [0.25, 0, 0], atol=0.01)

    def test_gradients_to_the_grid_end_where_places_are_clipped(self):
        _, dgrid = fastops.grid_sample_backward(np.ones((1, 1, 1, 2)), SQUARE, at((1.5, 0), (-3, 0)), padding_mode="border")
        np.testing.assert_array_equal(dgrid[0, 0], [[0, 8], [0, 8]])
        _, dgrid = fastops.grid_sample_backward(np.ones((1, 1, 1, 2)), SQUARE, at((1.4, 0), (0.4, 0)), padding_mode="reflection")
        np.testing.assert_allclose(dgrid[0, 0], [[-2, 8], [2, 8]])  # mirrored: the other way
        _, dgrid = fastops.grid_sample_backward(np.ones((1, 1, 1, 1)), SQUARE, at((0.1, 0.1)), "nearest")
        np.testing.assert_array_equal(dgrid, 0)

    def test_places_that_coincide_add_up(self):
        dy = np.random.default_rng(0).standard_normal((1, 1, 1, 100))
        dx, _ = fastops.grid_sample_backward(dy, SQUARE, np.zeros((1, 1, 100, 2)))
        np.testing.assert_allclose(dx[0, 0, 1:3, 1:3], dy.sum() / 4)
        assert np.count_nonzero(dx) == 4

    def test_many_channels_and_places(self):
        rng = np.random.default_rng(0)
        x, places = rng.standard_normal((2, 37, 6, 7)), rng.uniform(-1.3, 1.3, (2, 9, 21, 2))
        np.testing.assert_allclose(fastops.grid_sample(x, places), sampled(x, places), atol=1e-13)
        dy = rng.standard_normal((2, 37, 9, 21))
        dx, dgrid = fastops.grid_sample_backward(dy, x, places)
        assert np.vdot(dx, x) == pytest.approx(np.vdot(dy, sampled(x, places)))
        v = rng.standard_normal(places.shape) * 1e-7
        assert np.vdot(dgrid, v) == pytest.approx(np.vdot(dy, sampled(x, places + v) - sampled(x, places)), rel=1e-4)

    def test_the_gradient_of_bicubic_places(self):
        rng = np.random.default_rng(0)
        x, places = rng.standard_normal((1, 3, 5, 6)), rng.uniform(-1.2, 1.2, (1, 4, 5, 2))
        dy, v = rng.standard_normal((1, 3, 4, 5)), rng.standard_normal(places.shape) * 1e-6
        for padding_mode in ("zeros", "border", "reflection"):
            _, dgrid = fastops.grid_sample_backward(dy, x, places, "bicubic", padding_mode)
            ahead, behind = (sampled(x, places + s * v, "bicubic", padding_mode) for s in (1, -1))
            assert np.vdot(dgrid, v) == pytest.approx(np.vdot(dy, ahead - behind) / 2, rel=1e-6)


WRONG_GRID = [
    ({"grid": np.zeros((2, 3, 3, 2))}, ValueError, "grid"),
    ({"grid": np.zeros((1, 3, 3, 3))}, ValueError, "grid"),
    ({"grid": np.zeros((1, 3, 3, 3, 3))}, ValueError, "grid"),
    ({"grid": np.zeros((1, 3, 3, 2), np.float32)}, TypeError, "grid"),
    ({"grid": np.zeros((1, 3, 3, 2), int)}, TypeError, "grid"),
    ({"input": np.zeros((1, 2, 0, 4))}, ValueError, "input"),
    ({"input": np.zeros((2, 4, 4))}, ValueError, "input"),
    ({"input": np.zeros((1, 2, 4, 4, 4)), "grid": np.zeros((1, 3, 3, 3, 3)), "mode": "bicubic"}, ValueError, "input"),
    ({"mode": "linear"}, ValueError, "mode"),
    ({"padding_mode": "circular"}, ValueError, "padding_mode"),
]


@pytest.mark.parametrize(("arguments", "error", "name"), WRONG_GRID, ids=str)
def test_grid_sample_refuses(arguments, error, name):
    with pytest.raises(error, match=f"^grid_sample: {name}"):
        fastops.grid_sample(**{"input": np.zeros((1, 2, 4, 4)), "grid": np.zeros((1, 3, 3, 2)), **arguments})


def test_grid_sample_of_nothing():
    assert fastops.grid_sample(np.zeros((1, 0, 4, 4)), np.zeros((1, 3, 2, 2))).shape == (1, 0, 3, 2)
    assert fastops.grid_sample(np.zeros((1, 2, 4, 4)), np.zeros((1, 0, 2, 2))).shape == (1, 2, 0, 2)
    dx, dgrid = fastops.grid_sample_backward(np.zeros((1, 2, 0, 2)), np.ones((1, 2, 4, 4)), np.zeros((1, 0, 2, 2)))
    assert_same_bits(dx, np.zeros((1, 2, 4, 4)))
    assert dgrid.shape == (1, 0, 2, 2)


@pytest.mark.parametrize(
    ("theta", "size", "error", "name"),
    [
        (np.zeros((1, 2, 3)), (2, 1, 4, 4), ValueError, "theta"),
        (np.zeros((1, 3, 4)), (1, 1, 4, 4), ValueError, "theta"),
        (np.zeros((2, 3)), (1, 1, 4, 4), ValueError, "theta"),
        (np.zeros((1, 2, 3)), (1, 1, 4), ValueError, "size"),
        (np.zeros((1, 2, 3)), (1, 1, 0, 4), ValueError, "size"),
        (np.zeros((1, 2, 3)), (1, 1, 4.0, 4), TypeError, "size"),
        (np.zeros((1, 2, 3)), 4, TypeError, "size"),
        (np.zeros((1, 2, 3)), np.array(4), TypeError, "size"),
        (np.zeros((1, 2, 3), int), (1, 1, 4, 4), TypeError, "theta"),
    ],
    ids=str,
)
def test_affine_grid_refuses(theta, size, error, name):
    with pytest.raises(error, match=f"^affine_grid: {name}"):
        fastops.affine_grid(theta, size)


def test_pixel_shuffle_is_a_transposition():
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 5, 33)).astype(np.float32)
    y = x.reshape(2, 3, 3, 2, 2, 5, 33).transpose(0, 1, 2, 5, 3, 6, 4).reshape(2, 3, 3, 10, 66)
    assert_same_bits(fastops.pixel_shuffle(x, 2), y)
    assert_same_bits(fastops.pixel_unshuffle(y, 2), x)
    assert_same_bits(fastops.pixel_shuffle(x, 1), x)


@pytest.mark.parametrize(
    ("op", "arguments", "error", "name"),
    [
        ("pixel_shuffle", (np.zeros((8, 8)), 2), ValueError, "input"),
        ("pixel_shuffle", (np.zeros((6, 8, 8)), 2), ValueError, "input"),
        ("pixel_shuffle", (np.zeros((8, 8, 8)), 0), ValueError, "upscale_factor"),
        ("pixel_shuffle", (np.zeros((8, 8, 8)), 2.0), TypeError, "upscale_factor"),
        ("pixel_unshuffle", (np.zeros((8, 8)), 2), ValueError, "input"),
        ("pixel_unshuffle", (np.zeros((1, 8, 7)), 2), ValueError, "input"),
        ("pixel_unshuffle", (np.zeros((1, 8, 8)), -1), ValueError, "downscale_factor"),
        ("channel_shuffle", (np.zeros((2, 4)), 2), ValueError, "input"),
        ("channel_shuffle", (np.zeros((2, 5, 3)), 2), ValueError, "input"),
        ("channel_shuffle", (np.zeros((2, 4, 3)), 0), ValueError, "groups"),
    ],
)
def test_shuffles_refuse(op, arguments, error, name):
    with pytest.raises(error, match=f"^{op}: {name}"):
        getattr(fastops, op)(*arguments)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("interpolate", (np.zeros((1, 1, 3)), 5)),
        ("upsample", (np.zeros((1, 1, 3)), 5)),
        ("affine_grid", (np.zeros((1, 2, 3)), (1, 1, 3, 3))),
        ("grid_sample", (np.zeros((1, 1, 3, 3)), np.zeros((1, 2, 2, 2)))),
        ("pixel_shuffle", (np.zeros((4, 2, 2)), 2)),
        ("pixel_unshuffle", (np.zeros((1, 2, 2)), 2)),
        ("channel_shuffle", (np.zeros((1, 2, 2)), 2)),
    ],
)
def test_gradients_have_the_shape_of_the_output(op, arguments):
    with pytest.raises(ValueError, match=f"^{op}_backward: grad_output"):
        getattr(fastops, f"{op}_backward")(np.zeros((1, 1, 7)), *arguments)
