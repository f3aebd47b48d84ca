"""Operations on graphs: the contract of every operation, the corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from tests.cases.graph import ROWS
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


INDEX_FORMS = [np.int8, np.uint8, np.int32, np.uint32, np.int64, ">i4"]


@pytest.mark.parametrize("dtype", INDEX_FORMS)
def test_indices_of_any_integer_dtype_and_layout(dtype):
    x = np.arange(12.0).reshape(4, 3)
    index = np.array([3, 0, 3], dtype)
    expected = fastops.gather(x, np.array([3, 0, 3]))
    summed = fastops.segment_sum(x[:3], np.array([3, 0, 3]))
    index.flags.writeable = False
    for form in (index, np.repeat(index, 2)[::2], index[::-1].copy()[::-1], index.tolist()):
        assert_same_bits(fastops.gather(x, form), expected)
        assert_same_bits(fastops.segment_sum(x[:3], form), summed)


@pytest.mark.parametrize(("op", "empty"), [("sum", 0), ("mean", 0), ("max", -np.inf), ("min", np.inf)])
def test_empty_segments_are_those_of_jax(op, empty):
    reduce, gradient = (getattr(fastops, f"segment_{op}{suffix}") for suffix in ("", "_backward"))
    y = reduce(np.array([3.0]), np.array([1]), 3)
    np.testing.assert_array_equal(y, [empty, 3, empty])
    np.testing.assert_array_equal(gradient(np.array([7.0, 8, 9]), np.array([3.0]), np.array([1]), 3), [8])
    nothing = np.zeros((0, 2))
    assert_same_bits(reduce(nothing, np.zeros(0, int), 2), np.full((2, 2), float(empty)))
    assert reduce(nothing, np.zeros(0, int)).shape == (0, 2)
    assert_same_bits(gradient(np.ones((2, 2)), nothing, np.zeros(0, int), 2), nothing)


@pytest.mark.parametrize(("reduce", "empty"), [("sum", 0), ("mean", 0), ("max", 0), ("min", 0), ("mul", 1)])
def test_empty_destinations_are_those_of_pytorch_geometric(reduce, empty):
    np.testing.assert_array_equal(fastops.scatter(np.array([3.0]), np.array([1]), 0, 3, reduce), [empty, 3, empty])
    assert_same_bits(fastops.scatter(np.zeros((0, 2)), np.zeros(0, int), 0, 2, reduce), np.full((2, 2), float(empty)))


def test_a_segment_of_infinities_is_not_empty():
    assert_same_bits(fastops.scatter(np.array([-np.inf]), np.array([0]), reduce="max"), np.array([-np.inf]))


def test_ties_share_the_gradient():
    x, ids, dy = np.array([2.0, 1.0, 2.0, 5.0]), np.array([0, 0, 0, 1]), np.array([6.0, 7.0])
    np.testing.assert_array_equal(fastops.segment_max_backward(dy, x, ids), [3, 0, 3, 7])
    np.testing.assert_array_equal(fastops.segment_min_backward(dy, -x, ids), [3, 0, 3, 7])
    np.testing.assert_array_equal(fastops.scatter_backward(dy, x, ids, reduce="max"), [3, 0, 3, 7])


@pytest.mark.parametrize("zeros", [1, 2])
def test_zeros_in_a_product_have_their_gradient(zeros):
    x = np.array([2.0, 0.0, 3.0, 4.0])
    if zeros == 2:
        x[3] = 0
    found = fastops.scatter_backward(np.array([10.0]), x, np.zeros(4, int), reduce="mul")
    np.testing.assert_array_equal(found, [0, 240 if zeros == 1 else 0, 0, 0])


def test_sums_are_taken_in_the_order_of_the_rows():
    rng = np.random.default_rng(0)
    for width in (1, 3, 64, 100):
        x, ids = rng.standard_normal((2000, width)).astype(np.float32), rng.integers(0, 30, 2000)
        expected = np.zeros((30, width), np.float32)
        np.add.at(expected, ids, x)
        assert_same_bits(fastops.segment_sum(x, ids), expected)


def test_arrays_beyond_the_caches():
    # where rows are asked for ahead
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (50000, 64)).astype(np.float32)
    index = rng.integers(0, 50000, 60000)
    y = fastops.gather(x, index)
    assert_same_bits(y, x[index])
    expected = np.zeros_like(x)
    np.add.at(expected, index, y)
    assert_same_bits(fastops.segment_sum(y, index, 50000), expected)


def test_softmax_of_large_numbers_and_of_infinities():
    found = fastops.segment_softmax(np.array([1e4, 1e4, -np.inf, 3.0]), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(found, [0.5, 0.5, 0, 1])


def test_segments_promised_to_be_sorted():
    with pytest.raises(ValueError, match="segment_sum: segment_ids must never fall"):
        fastops.segment_sum(np.ones(3), np.array([0, 2, 1]), indices_are_sorted=True)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_every_axis(axis):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (3, 4, 5)).astype(np.float64)
    index = np.array([[2, 0], [1, 1]])
    y = fastops.gather(x, index, axis)
    assert_same_bits(y, np.take(x, index, axis))
    flat = index.ravel()
    slices = np.take(x, flat, axis)
    expected = np.zeros_like(x)
    np.add.at(np.moveaxis(expected, axis, 0), flat, np.moveaxis(slices, axis, 0))
    assert_same_bits(fastops.scatter(slices, flat, axis, x.shape[axis]), expected)
    assert_same_bits(fastops.gather_backward(y, x, index, axis), expected)


WRONG = [
    ("gather", {"input": np.ones(())}, ValueError, "input"),
    ("gather", {"index": np.array([3])}, ValueError, "index"),
    ("gather", {"index": np.array([-1])}, ValueError, "index"),
    ("gather", {"index": np.array([1.0])}, TypeError, "index"),
    ("gather", {"axis": 2}, ValueError, "axis"),
    ("gather", {"input": np.ones((3, 2), int)}, TypeError, "input"),
    ("scatter", {"index": np.array([0, 1])}, ValueError, "index"),
    ("scatter", {"index": np.array([0, 1, -2])}, ValueError, "index"),
    ("scatter", {"dim_size": 2}, ValueError, "index"),
    ("scatter", {"dim_size": -1}, ValueError, "dim_size"),
    ("scatter", {"dim": 2}, ValueError, "dim"),
    ("scatter", {"dim": 1}, ValueError, "index"),
    ("scatter", {"reduce": "prod"}, ValueError, "reduce"),
    ("segment_sum", {"segment_ids": np.array([0, 1])}, ValueError, "segment_ids"),
    ("segment_max", {"segment_ids": np.array([[0], [1], [2]])}, ValueError, "segment_ids"),
    ("segment_softmax", {"num_segments": 2}, ValueError, "segment_ids"),
    ("segment_mean", {"data": np.ones(())}, ValueError, "data"),
]
RIGHT = {
    "gather": {"input": np.ones((3, 2)), "index": np.array([0, 1])},
    "scatter": {"src": np.ones((3, 2)), "index": np.array([0, 1, 2])},
    "segment": {"data": np.ones((3, 2)), "segment_ids": np.array([0, 1, 2])},
}


@pytest.mark.parametrize(("op", "change", "error", "argument"), WRONG)
def test_wrong_arguments(op, change, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**{**RIGHT[op.partition("_")[0]], **change})
    assert re.match(rf"{op}: {argument} must\b", str(caught.value)), caught.value
