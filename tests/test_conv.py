"""Convolutions: the contract of every operation, fused activations, prepared weights and explain."""

from __future__ import annotations

import numpy as np
import pytest

import fastops
from fastops.simd.epilogue import ACTIVATIONS
from tests.cases.conv import ROWS, convolution
from tests.harness import assert_close, assert_same_bits, every_check

CONVOLUTIONS = [row for row in ROWS if row.op not in ("unfold", "fold")]


@every_check(CONVOLUTIONS)
def test_row(check, row):
    check(row)


def draw(*shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_activation(name, dtype):
    x, w, b = draw((2, 4, 9, 11), (5, 4, 3, 3), (5,), dtype=dtype)
    double = [a.astype(np.float64) for a in (x, w, b)]
    tolerance = 2e-5 if dtype == np.float32 else 1e-13
    expected = convolution(*double, padding=1, activation=name)
    assert_close(fastops.conv2d(x, w, b, padding=1, activation=name), expected, tolerance)
    # the first convolution seen as the gradient of another one
    y = fastops.conv_transpose2d(x, np.ascontiguousarray(w[:4, :, ::-1, ::-1].swapaxes(0, 1)), b[:4], activation=name)
    expected = convolution(double[0], double[1][:4], double[2][:4], padding=2, activation=name)
    assert_close(y, expected, tolerance)


class TestPreparedWeights:
    @pytest.mark.parametrize("strategy", ["auto", "naive"])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_same_bits_as_conv2d(self, dtype, strategy):
        x, w, b = draw((2, 6, 10, 11), (8, 6, 3, 3), (8,), dtype=dtype)
        prepared = fastops.prepare_conv2d(w, padding=1, strategy=strategy)
        expected = fastops.conv2d(x, w, b, padding=1, strategy=strategy, activation="relu")
        for _ in range(2):
            assert_same_bits(prepared(x, b, activation="relu"), expected)
        assert_same_bits(fastops.conv2d(x, prepared, b, activation="relu"), expected)
        out = np.empty_like(expected)
        assert prepared(x, b, activation="relu", out=out) is out
        assert_same_bits(out, expected)

    def test_one_for_many_shapes(self):
        (w,) = draw((8, 6, 3, 3))
        prepared = fastops.prepare_conv2d(w, padding=1, stride=2)
        for batch, size in ((1, 5), (3, 5), (2, 24)):
            (x,) = draw((batch, 6, size, size + 1))
            assert_same_bits(prepared(x), fastops.conv2d(x, w, padding=1, stride=2))

    def test_later_changes_of_the_weight_do_not_matter(self):
        x, w = draw((1, 3, 8, 8), (4, 3, 3, 3))
        expected = fastops.conv2d(x, w)
        prepared = fastops.prepare_conv2d(w)
        w[:] = 0
        assert_same_bits(prepared(x), expected)

    def test_other_attributes_are_refused(self):
        x, w = draw((1, 3, 8, 8), (4, 3, 3, 3))
        prepared = fastops.prepare_conv2d(w, padding=1)
        with pytest.raises(ValueError, match=r"padding .* prepared"):
            fastops.conv2d(x, prepared, padding=2)


class TestExplain:
    def test_lists_every_strategy_and_marks_the_one_that_runs(self):
        from fastops.ops.conv.strategies import STRATEGIES

        x, w = draw((1, 8, 9, 9), (4, 8, 3, 3))
        found = fastops.explain(fastops.conv2d_backward, np.ones((1, 4, 7, 7)), x, w)
        for direction in ("grad_input", "grad_weight"):
            rows = [row for row in found.rows if row.direction == direction]
            assert [row.name for row in rows] == [s.name for s in STRATEGIES]
            assert sum(row.chosen for row in rows) == 1
        for row in found.rows:
            assert row.accepted == (row.reason is None)
            if row.accepted:
                assert row.cost > 0
                assert row.workspace >= 0
            assert row.name in str(found)

    def test_the_named_strategy_is_the_one_marked(self):
        x, w = draw((1, 8, 9, 9), (4, 8, 3, 3))
        found = fastops.explain(fastops.conv2d, x, w, strategy="naive")
        assert [row.name for row in found.rows if row.chosen] == ["naive"]


def test_the_choice_does_not_depend_on_the_number_of_threads():
    x, w = draw((4, 16, 20, 20), (16, 16, 3, 3))
    before = fastops.explain(fastops.conv2d, x, w)
    fastops.set_num_threads(1)
    assert fastops.explain(fastops.conv2d, x, w) == before


@pytest.mark.parametrize("wrong", [2.0, (2.0, 2), (2, 2.0), np.float32(2), True, (True, 1), np.bool_(True), (1.0, 1.0)], ids=repr)
def test_what_equals_an_integer_that_was_seen_is_refused_all_the_same(wrong):
    x, w = np.zeros((2, 4, 8, 8), np.float32), np.zeros((4, 4, 3, 3), np.float32)
    y = fastops.conv2d(x, w, padding=1)
    for good in (1, 2, (1, 1), (2, 2)):
        fastops.conv2d(x, w, None, good)
        fastops.conv2d(x, w, padding=good)
        fastops.conv2d_backward(fastops.conv2d(x, w, None, good, 1), x, w, None, good, 1)
        fastops.conv_transpose2d(x, w, None, good)
        fastops.max_pool2d(x, good, good)
        fastops.adaptive_avg_pool2d(x, good)
    for call, name in [
        (lambda: fastops.conv2d(x, w, None, wrong), "conv2d: stride"),
        (lambda: fastops.conv2d(x, w, padding=wrong), "conv2d: padding"),
        (lambda: fastops.conv2d_backward(y, x, w, None, wrong, 1), "conv2d_backward: stride"),
        (lambda: fastops.conv_transpose2d(x, w, None, wrong), "conv_transpose2d: stride"),
        (lambda: fastops.max_pool2d(x, wrong, 2), "max_pool2d: kernel_size"),
        (lambda: fastops.max_pool2d(x, 2, wrong), "max_pool2d: stride"),
        (lambda: fastops.adaptive_avg_pool2d(x, wrong), "adaptive_avg_pool2d: output_size"),
    ]:
        with pytest.raises(TypeError, match=f"{name} must be an integer"):
            call()
