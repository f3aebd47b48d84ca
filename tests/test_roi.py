"""Regions of interest: the contract of every operation, the corners that people trip on, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from fastops import _threads
from tests.cases.roi import ROWS, align, boxes, pool, suppress
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


POOLS = {"roi_align": align(False), "roi_pool": pool(False), "ps_roi_align": align(True), "ps_roi_pool": pool(True)}
CORNERS = [[1.0, 1.0, 6.0, 5.0], [0.0, 2.0, 3.0, 2.0], [4.0, 4.0, 20.0, 9.0]]


@pytest.mark.parametrize("op", POOLS)
class TestBoxes:
    def test_a_list_says_the_same_as_a_table(self, op):
        x = np.random.default_rng(0).standard_normal((3, 4, 8, 9))
        table = np.array([[0, *CORNERS[0]], [2, *CORNERS[1]], [2, *CORNERS[2]]])
        listed = [table[:1, 1:], np.empty((0, 4)), table[1:, 1:]]
        assert_same_bits(getattr(fastops, op)(x, listed, 2), getattr(fastops, op)(x, table, 2))
        np.testing.assert_allclose(getattr(fastops, op)(x, listed, 2), POOLS[op](x, table, 2), rtol=0, atol=1e-13)

    def test_in_any_order(self, op):
        x = np.random.default_rng(0).standard_normal((3, 4, 8, 9))
        table = np.array([[2, *CORNERS[0]], [0, *CORNERS[1]], [2, *CORNERS[2]]])
        np.testing.assert_allclose(getattr(fastops, op)(x, table, 2), POOLS[op](x, table, 2), rtol=0, atol=1e-13)

    def test_none_at_all(self, op):
        x = np.ones((2, 4, 8, 9), np.float32)
        for nothing in (np.empty((0, 5), np.float32), [np.empty((0, 4), np.float32)] * 2):
            y = getattr(fastops, op)(x, nothing, 2)
            assert y.shape == (0, 4 if op.startswith("roi") else 1, 2, 2)
            dx = getattr(fastops, f"{op}_backward")(y, x, nothing, 2)
            assert_same_bits(dx, np.zeros_like(x))

    @pytest.mark.parametrize("number", [-1.0, 3.0, np.nan, 2.0**40])
    def test_an_image_that_is_not_there(self, op, number):
        x = np.ones((3, 4, 8, 9))
        table = np.array([[number, *CORNERS[0]]])
        for call in (lambda: getattr(fastops, op)(x, table, 2), lambda: getattr(fastops, f"{op}_backward")(x, x, table, 2)):
            with pytest.raises(ValueError, match=rf"^{op}\w*: boxes must have the number of an image"):
                call()

    @pytest.mark.parametrize("coordinate", [np.nan, np.inf, 1e30])
    def test_coordinates_that_are_no_places(self, op, coordinate):
        table = np.array([[0, 0, 0, coordinate, 2]])
        with pytest.raises(ValueError, match=rf"^{op}: boxes must have finite coordinates"):
            getattr(fastops, op)(np.ones((1, 4, 8, 9)), table, 2)

    def test_wrong_arguments(self, op):
        x, table = np.ones((1, 4, 8, 9)), np.array([[0, *CORNERS[0]]])
        wrong = [
            ({"input": x[0]}, ValueError, "input"),
            ({"boxes": table[:, 1:]}, ValueError, "boxes"),
            ({"boxes": [table[:, 1:]] * 2}, ValueError, "boxes"),
            ({"boxes": [table]}, ValueError, "boxes"),
            ({"boxes": table.astype(np.float32)}, TypeError, "boxes"),
            ({"boxes": np.ma.array(table, mask=True)}, TypeError, "boxes"),
            ({"boxes": [np.ma.array(table[:, 1:], mask=True)]}, TypeError, "boxes"),
            ({"output_size": 0}, ValueError, "output_size"),
            ({"output_size": (1, 2, 3)}, ValueError, "output_size"),
            ({"spatial_scale": "1"}, TypeError, "spatial_scale"),
            ({"spatial_scale": 1e12}, ValueError, "spatial_scale"),
            ({"spatial_scale": 10**30}, ValueError, "spatial_scale"),
            ({"spatial_scale": np.inf}, ValueError, "spatial_scale"),
        ]
        if "align" in op:
            wrong += [({"sampling_ratio": 1.5}, TypeError, "sampling_ratio"), ({"sampling_ratio": 2**40}, ValueError, "sampling_ratio")]
        if op.startswith("ps"):
            wrong.append(({"output_size": 3}, ValueError, "input"))
        for change, error, argument in wrong:
            with pytest.raises(error) as caught:
                getattr(fastops, op)(**{"input": x, "boxes": table, "output_size": 2, **change})
            assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value
        with pytest.raises(ValueError, match=rf"^{op}_backward: grad_output "):
            getattr(fastops, f"{op}_backward")(np.zeros((1, 4, 3, 2)), x, table, 2)


class TestAlign:
    def test_a_plane_is_read_at_its_coordinates(self):
        # on a linear function samples are exact: the mean of a bin is the value at its centre
        H, W = 20, 30
        x = (3.0 * np.arange(H)[:, None] + 0.5 * np.arange(W)).reshape(1, 1, H, W)
        table = np.array([[0, 4.0, 3.0, 16.0, 15.0]])
        centres_y, centres_x = 3 + 12 * (np.arange(3) + 0.5) / 3, 4 + 12 * (np.arange(3) + 0.5) / 3
        for aligned in (False, True):
            expected = 3.0 * (centres_y - 0.5 * aligned)[:, None] + 0.5 * (centres_x - 0.5 * aligned)
            for ratio in (-1, 0, 1, 3):
                y = fastops.roi_align(x, table, 3, sampling_ratio=ratio, aligned=aligned)
                np.testing.assert_allclose(y[0, 0], expected, rtol=1e-13)

    def test_boxes_without_extent(self):
        x = np.random.default_rng(0).standard_normal((1, 4, 8, 9))
        table = np.array([[0, 3.0, 3.0, 3.0, 3.0], [0, 5.0, 4.0, 3.0, 2.0]])
        # not aligned: at least one element wide; aligned: no samples
        np.testing.assert_allclose(fastops.roi_align(x, table, 2), align(False)(x, table, 2), rtol=0, atol=1e-13)
        assert (fastops.roi_align(x, table, 2, aligned=True) == 0).all()
        assert (fastops.ps_roi_align(x, table, 2) == 0).all()
        y = fastops.roi_align(x, table, 2, sampling_ratio=2, aligned=True)  # a box turned over is sampled backwards
        np.testing.assert_allclose(y, align(False)(x, table, 2, sampling_ratio=2, aligned=True), rtol=0, atol=1e-13)

    def test_outside_by_more_than_one_element_is_zero(self):
        x = np.ones((1, 1, 4, 4))
        assert fastops.roi_align(x, np.array([[0, -9.0, -9.0, -2.0, -2.0]]), 1).item() == 0
        assert fastops.roi_align(x, np.array([[0, -1.0, -1.0, 0.0, 0.0]]), 1, sampling_ratio=1).item() == 1


class TestPool:
    def test_halves_are_rounded_away_from_zero(self):
        x = np.arange(36.0).reshape(1, 1, 6, 6)
        # 0.5 -> 1, 2.5 -> 3: elements 1 to 3, the last included
        assert fastops.roi_pool(x, np.array([[0, 0.5, 0.5, 2.5, 2.5]]), 1).item() == x[0, 0, 3, 3]
        # -0.5 -> -1: two elements wide, of which one is inside
        y = fastops.roi_pool(x, np.array([[0, -0.5, 0.0, 0.0, 0.0]]), (1, 2))
        np.testing.assert_array_equal(y, [[[[0, 0]]]])

    def test_the_first_of_equal_elements_gets_the_gradient(self):
        x, table = np.ones((1, 1, 3, 3)), np.array([[0, 0.0, 0.0, 2.0, 2.0]])
        dx = fastops.roi_pool_backward(np.ones((1, 1, 1, 1)), x, table, 1)
        assert dx[0, 0, 0, 0] == 1
        assert dx.sum() == 1

    def test_nan_does_not_count(self):
        x, table = np.full((1, 1, 2, 2), np.nan), np.array([[0, 0.0, 0.0, 1.0, 1.0]])
        y = fastops.roi_pool(x, table, 1)
        assert y.item() == -np.finfo(np.float32).max
        assert (fastops.roi_pool_backward(y, x, table, 1) == 0).all()
        x[0, 0, 1, 0] = 3
        assert fastops.roi_pool(x, table, 1).item() == 3

    def test_indices_are_checked(self):
        x, table = np.ones((1, 1, 3, 3)), np.array([[0, 0.0, 0.0, 2.0, 2.0]])
        for bad, error in ((9, ValueError), (-2, ValueError), (0.5, TypeError)):
            with pytest.raises(error, match=r"^roi_pool_backward: indices "):
                fastops.roi_pool_backward(np.ones((1, 1, 1, 1)), x, table, 1, indices=np.full((1, 1, 1, 1), bad))


class TestDeformConv:
    def test_without_offsets_it_is_a_convolution(self):
        rng = np.random.default_rng(0)
        x, w, b = rng.standard_normal((2, 6, 9, 10)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
        options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
        expected = fastops.conv2d(x, w, b, groups=2, **options)
        offset = np.zeros((2, 2 * 3 * 9, *expected.shape[2:]))
        np.testing.assert_allclose(fastops.deform_conv2d(x, offset, w, b, **options), expected, rtol=0, atol=1e-13)
        dy = rng.standard_normal(expected.shape)
        found = fastops.deform_conv2d_backward(dy, x, offset, w, b, **options)
        dx, dw, db = fastops.conv2d_backward(dy, x, w, b, groups=2, **options)
        for gradient, wanted in zip((found[0], found[2], found[3]), (dx, dw, db)):
            np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-12)

    def test_several_chunks_of_positions(self, monkeypatch):
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((2, 3, 12, 13)), rng.standard_normal((4, 3, 3, 3))
        offset, mask = rng.standard_normal((2, 18, 10, 11)), rng.standard_normal((2, 9, 10, 11))
        dy = rng.standard_normal((2, 4, 10, 11))

        def results():
            return fastops.deform_conv2d(x, offset, w, mask=mask), *fastops.deform_conv2d_backward(dy, x, offset, w, mask=mask)

        whole = results()
        monkeypatch.setattr("fastops.ops.roi.deform._CHUNK", 1)
        for part, all_ in zip(results(), whole):
            if all_ is not None:
                np.testing.assert_allclose(part, all_, rtol=0, atol=1e-12)

    def test_offsets_from_the_edge_lead_into_the_image(self):
        """As in torchvision: a sample at -1 sees nothing, but its slope is that of moving on, which is where training begins."""
        rng = np.random.default_rng(0)
        x, w, offset = rng.standard_normal((1, 1, 4, 4)), rng.standard_normal((1, 1, 3, 3)), np.zeros((1, 18, 4, 4))
        slope = fastops.deform_conv2d_backward(np.ones((1, 1, 4, 4)), x, offset, w, padding=1)[1]
        before, step = fastops.deform_conv2d(x, offset, w, padding=1).sum(), 1e-6
        for place in np.ndindex(offset.shape):
            moved = offset.copy()
            moved[place] = step
            np.testing.assert_allclose((fastops.deform_conv2d(x, moved, w, padding=1).sum() - before) / step, slope[place], rtol=0, atol=1e-8)
        x[0, 0, 0] = np.inf
        assert not np.isnan(fastops.deform_conv2d(x, np.zeros((1, 2, 6, 6)), np.ones((1, 1, 1, 1)), padding=1)[0, 0, 0]).any()

    @pytest.mark.parametrize("value", [1e30, -1e30, np.inf, np.nan])
    def test_offsets_that_lead_nowhere(self, value):
        x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 1, 1))
        offset = np.zeros((1, 2, 4, 4))
        offset[0, 0, 1, 2] = value
        y = fastops.deform_conv2d(x, offset, w)
        assert y[0, 0, 1, 2] == 0
        assert y.sum() == 15
        assert np.isfinite(fastops.deform_conv2d_backward(y, x, offset, w)[0]).all()

    def test_wrong_arguments(self):
        good = {"input": np.ones((1, 4, 6, 6)), "offset": np.zeros((1, 18, 4, 4)), "weight": np.ones((2, 4, 3, 3))}
        wrong = [
            ({"input": np.ones((4, 6, 6))}, ValueError, "input"),
            ({"weight": np.ones((2, 3, 3, 3))}, ValueError, "weight"),
            ({"weight": np.ones((3, 2, 3, 3))}, ValueError, "weight"),
            ({"weight": np.ones((2, 4, 7, 3))}, ValueError, "weight"),
            ({"offset": np.zeros((1, 17, 4, 4))}, ValueError, "offset"),
            ({"offset": np.zeros((1, 18, 4, 5))}, ValueError, "offset"),
            ({"offset": np.zeros((1, 18 * 3, 4, 4))}, ValueError, "offset"),
            ({"offset": np.zeros((1, 18, 4, 4), np.float32)}, TypeError, "offset"),
            ({"mask": np.zeros((1, 8, 4, 4))}, ValueError, "mask"),
            ({"bias": np.zeros(3)}, ValueError, "bias"),
            ({"bias": np.zeros(2, np.float32)}, TypeError, "bias"),
            ({"stride": 0}, ValueError, "stride"),
            ({"padding": -1}, ValueError, "padding"),
            ({"dilation": 0}, ValueError, "dilation"),
        ]
        for change, error, argument in wrong:
            with pytest.raises(error) as caught:
                fastops.deform_conv2d(**{**good, **change})
            assert re.match(rf"deform_conv2d: {argument}\b", str(caught.value)), caught.value
        with pytest.raises(ValueError, match=r"^deform_conv2d_backward: grad_output "):
            fastops.deform_conv2d_backward(np.ones((1, 2, 4, 5)), **good)
        with pytest.raises(ValueError, match=r"^deform_conv2d_backward: output_mask "):
            fastops.deform_conv2d_backward(np.ones((1, 2, 4, 4)), **good, output_mask=(True,))


class TestSuppression:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
    def test_against_the_definition(self, dtype, threshold):
        rng = np.random.default_rng(0)
        b = boxes(rng, (60, 4)).astype(dtype)
        scores = (rng.integers(0, 20, 60) / 20).astype(dtype)  # many equal
        scores[[3, 40]] = np.nan
        classes = rng.integers(-1, 3, 60)
        np.testing.assert_array_equal(fastops.nms(b, scores, threshold), suppress(b, scores, threshold))
        found = fastops.batched_nms(b, scores, classes, threshold)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, suppress(b, scores, threshold, classes))

    def test_ties_keep_the_first_box(self):
        b = np.array([[0.0, 0.0, 2.0, 2.0]] * 3)
        np.testing.assert_array_equal(fastops.nms(b, np.ones(3), 0.5), [0])
        np.testing.assert_array_equal(fastops.nms(b, np.ones(3), 1.0), [0, 1, 2])

    def test_boxes_without_area_suppress_nothing(self):
        b = np.zeros((3, 4))
        np.testing.assert_array_equal(fastops.nms(b, np.arange(3.0), 0.5), [2, 1, 0])

    def test_no_boxes(self):
        none = fastops.nms(np.empty((0, 4)), np.empty(0), 0.5)
        assert (none.shape, none.dtype) == ((0,), np.int64)
        assert fastops.batched_nms(np.empty((0, 4)), np.empty(0), np.empty(0, int), 0.5).shape == (0,)

    def test_integer_boxes(self):
        b = np.array([[0, 0, 2, 2], [1, 0, 3, 2]])
        y = fastops.box_iou(b, b)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, [[1, 1 / 3], [1 / 3, 1]], rtol=1e-6)

    def test_wrong_arguments(self):
        b, s, i = np.zeros((3, 4)), np.zeros(3), np.zeros(3, int)
        for call, error, argument in [
            (lambda: fastops.nms(b[:, :3], s, 0.5), ValueError, "boxes"),
            (lambda: fastops.nms(b, s[:2], 0.5), ValueError, "scores"),
            (lambda: fastops.nms(b, s.astype(np.float32), 0.5), TypeError, "scores"),
            (lambda: fastops.nms(b, s, "0.5"), TypeError, "iou_threshold"),
            (lambda: fastops.batched_nms(b, s, i[:2], 0.5), ValueError, "idxs"),
            (lambda: fastops.batched_nms(b, s, s, 0.5), TypeError, "idxs"),
            (lambda: fastops.box_iou(b, s), ValueError, "boxes2"),
            (lambda: fastops.box_iou(b, b.astype(np.float32)), TypeError, "boxes2"),
            (lambda: fastops.batched_nms(b, s, np.ma.array(i, mask=True), 0.5), TypeError, "idxs"),
            (lambda: fastops.box_iou(b, np.ma.array(b, mask=True)), TypeError, "boxes2"),
            (lambda: fastops.box_iou(b, b, "xxyy"), ValueError, "fmt"),
        ]:
            with pytest.raises(error, match=rf": {argument} must"):
                call()


def test_gradients_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 9, 9)).astype(np.float32)
    # many boxes on top of one another: the order of additions shows
    corners = rng.uniform(0, 8, (40, 4)).astype(np.float32)
    table = np.concatenate([rng.integers(0, 2, (40, 1)), corners], 1).astype(np.float32)
    dy = rng.standard_normal((40, 4, 3, 3)).astype(np.float32)
    results = []
    for threads in (1, _threads._available()):
        fastops.set_num_threads(threads)
        results.append((fastops.roi_align_backward(dy, x, table, 3), fastops.roi_pool_backward(dy, x, table, 3)))
    for alone, together in zip(*results):
        assert_same_bits(together, alone)
