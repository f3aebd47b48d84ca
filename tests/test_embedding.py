"""embedding and embedding_bag: the contract of every operation, the corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from tests.cases.embedding import ROWS, bagged
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


TABLE = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint32, np.int64, ">i8"])
def test_indices_of_any_integer_dtype_and_layout(dtype):
    index = np.array([[3, 0], [1, 1]], dtype)
    for form in (index, np.asfortranarray(index), index[::-1].copy()[::-1], index.tolist()):
        assert_same_bits(fastops.embedding(form, TABLE), TABLE[[[3, 0], [1, 1]]])
    index.flags.writeable = False
    assert_same_bits(fastops.embedding(index, TABLE), TABLE[[[3, 0], [1, 1]]])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_odd_shapes_of_the_index(shape):
    index = np.full(shape, 2)
    y = fastops.embedding(index, TABLE)
    assert_same_bits(y, TABLE[index])
    expected = np.zeros_like(TABLE)
    expected[2] = index.size
    assert_same_bits(fastops.embedding_backward(np.ones_like(y), index, TABLE), expected)


def test_half_is_moved_as_it_is():
    table = TABLE.astype(np.float16)
    assert_same_bits(fastops.embedding(np.array([3, 1]), table), table[[3, 1]])


@pytest.mark.parametrize("padding_idx", [1, -3])
def test_padding_gets_no_gradient(padding_idx):
    index = np.array([1, 2, 1, 2])
    dw = fastops.embedding_backward(np.ones((4, 3)), index, TABLE, padding_idx)
    np.testing.assert_array_equal(dw, [[0] * 3, [0] * 3, [2] * 3, [0] * 3])
    assert_same_bits(fastops.embedding(index, TABLE, padding_idx), TABLE[index])
    nan = np.full((4, 3), np.nan)
    assert (fastops.embedding_backward(nan, index, TABLE, padding_idx)[1] == 0).all()


def test_gradients_by_frequency():
    dw = fastops.embedding_backward(np.ones((5, 3)), np.array([1, 2, 1, 1, 0]), TABLE, scale_grad_by_freq=True)
    np.testing.assert_allclose(dw[:, 0], [1, 1, 1, 0], rtol=1e-15)
    dw, _ = fastops.embedding_bag_backward(np.ones((2, 3)), np.array([[1, 2], [1, 1]]), TABLE, mode="sum", scale_grad_by_freq=True)
    np.testing.assert_allclose(dw[:, 0], [0, 1, 1, 0], rtol=1e-15)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
def test_rows_that_are_looked_up_are_renormalised_in_place(norm_type):
    table = TABLE.copy()
    y = fastops.embedding(np.array([0, 2, 2]), table, max_norm=5.0, norm_type=norm_type)
    norm = np.linalg.norm(TABLE[2], norm_type)
    np.testing.assert_allclose(table[2], TABLE[2] * 5 / (norm + 1e-7), rtol=1e-14)
    assert_same_bits(table[[0, 1, 3]], TABLE[[0, 1, 3]])
    assert_same_bits(y, table[[0, 2, 2]])
    bag = TABLE.astype(np.float32)
    fastops.embedding_bag(np.array([[0, 2]]), bag, max_norm=5.0, norm_type=norm_type)
    np.testing.assert_allclose(bag, table, rtol=1e-6)
    padded = TABLE.astype(np.float32)  # padding is looked up, too
    fastops.embedding_bag(np.array([[0, 2]]), padded, max_norm=5.0, norm_type=norm_type, padding_idx=2)
    assert_same_bits(padded, bag)


def test_no_renormalisation_of_what_cannot_be_changed():
    constant = TABLE.copy()
    constant.flags.writeable = False
    for table in (constant, TABLE.tolist()):
        with pytest.raises(ValueError, match="embedding: weight must be a writeable NumPy array"):
            fastops.embedding(np.array([0]), table, max_norm=1.0)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_padding_counts_for_nothing_in_a_bag(mode):
    index, offsets = np.array([3, 1, 3, 3, 0, 2]), np.array([0, 2, 4, 4])
    y = fastops.embedding_bag(index, -TABLE, offsets, mode=mode, padding_idx=-1)
    np.testing.assert_allclose(y, bagged(index, -TABLE, offsets, mode, padding_idx=3), rtol=1e-15)
    assert (y[1] == 0).all(), "a bag of padding alone is empty"
    dw, ds = fastops.embedding_bag_backward(np.ones_like(y), index, -TABLE, offsets, mode=mode, padding_idx=3)
    assert ds is None
    assert (dw[3] == 0).all()
    assert dw.sum() == pytest.approx(3 * (3 if mode == "sum" else 2))


def test_padding_gets_no_weight_gradient_either():
    index, scale = np.array([[3, 1], [3, 2]]), np.array([[5.0, 2], [4, 3]])
    y = fastops.embedding_bag(index, TABLE, mode="sum", per_sample_weights=scale, padding_idx=3)
    np.testing.assert_array_equal(y, [2 * TABLE[1], 3 * TABLE[2]])
    dw, ds = fastops.embedding_bag_backward(np.ones_like(y), index, TABLE, mode="sum", per_sample_weights=scale, padding_idx=3)
    np.testing.assert_array_equal(ds, [[0, TABLE[1].sum()], [0, TABLE[2].sum()]])
    np.testing.assert_array_equal(dw[:, 0], [0, 2, 3, 0])


def test_a_tie_in_a_bag_goes_to_the_first_entry():
    table = np.array([[1.0], [2.0], [2.0]])
    dw, _ = fastops.embedding_bag_backward(np.ones((1, 1)), np.array([[0, 2, 1, 2]]), table, mode="max")
    np.testing.assert_array_equal(dw[:, 0], [0, 0, 1])


def test_no_bags_and_bags_of_nothing():
    nothing = np.zeros(0, np.int64)
    assert fastops.embedding_bag(nothing, TABLE, nothing).shape == (0, 3)
    assert_same_bits(fastops.embedding_bag(nothing, TABLE, np.array([0, 0])), np.zeros((2, 3)))
    assert_same_bits(fastops.embedding_bag(np.zeros((2, 0), int), TABLE, mode="max"), np.zeros((2, 3)))
    dw, _ = fastops.embedding_bag_backward(np.ones((2, 3)), nothing, TABLE, np.array([0, 0]))
    assert_same_bits(dw, np.zeros_like(TABLE))


def test_large_tables_and_threads():
    # beyond the caches, where rows are asked for ahead
    rng = np.random.default_rng(0)
    table = rng.standard_normal((40000, 64)).astype(np.float32)
    index = rng.integers(0, 40000, 3000)
    assert_same_bits(fastops.embedding(index, table), table[index])
    dy = rng.integers(-9, 9, (3000, 64)).astype(np.float32)
    expected = np.zeros_like(table)
    np.add.at(expected, index, dy)
    assert_same_bits(fastops.embedding_backward(dy, index, table), expected)
    offsets = np.arange(0, 3000, 10)
    whole = rng.integers(-9, 9, table.shape).astype(np.float32)
    assert_same_bits(fastops.embedding_bag(index, whole, offsets, mode="sum"), whole[index].reshape(300, 10, 64).sum(1))


WRONG = [
    ("embedding", {"input": np.array([4])}, ValueError, "input"),
    ("embedding", {"input": np.array([-1])}, ValueError, "input"),
    ("embedding", {"input": np.array([0.0])}, TypeError, "input"),
    ("embedding", {"input": np.array([2**64 - 1], np.uint64)}, ValueError, "input"),
    ("embedding", {"weight": np.zeros(4)}, ValueError, "weight"),
    ("embedding", {"weight": np.zeros((4, 3), int)}, TypeError, "weight"),
    ("embedding", {"padding_idx": 4}, ValueError, "padding_idx"),
    ("embedding", {"padding_idx": -5}, ValueError, "padding_idx"),
    ("embedding", {"padding_idx": 0.5}, TypeError, "padding_idx"),
    ("embedding_bag", {"input": np.array([[0, 4]])}, ValueError, "input"),
    ("embedding_bag", {"input": np.array(1)}, ValueError, "input"),
    ("embedding_bag", {"input": np.array([1])}, ValueError, "offsets"),
    ("embedding_bag", {"offsets": np.array([0])}, ValueError, "offsets"),
    ("embedding_bag", {"input": np.array([1, 2]), "offsets": np.array([1])}, ValueError, "offsets"),
    ("embedding_bag", {"input": np.array([1, 2]), "offsets": np.array([0, 3])}, ValueError, "offsets"),
    ("embedding_bag", {"input": np.array([1, 2]), "offsets": np.array([0, 2, 1])}, ValueError, "offsets"),
    ("embedding_bag", {"input": np.array([1, 2]), "offsets": np.zeros(0, int), "include_last_offset": True}, ValueError, "offsets"),
    ("embedding_bag", {"mode": "min"}, ValueError, "mode"),
    ("embedding_bag", {"mode": "max", "scale_grad_by_freq": True}, ValueError, "scale_grad_by_freq"),
    ("embedding_bag", {"per_sample_weights": np.ones((1, 2))}, ValueError, "per_sample_weights"),
    ("embedding_bag", {"mode": "sum", "per_sample_weights": np.ones((2, 1))}, ValueError, "per_sample_weights"),
    ("embedding_bag", {"mode": "sum", "per_sample_weights": np.ones((1, 2), np.float32)}, TypeError, "per_sample_weights"),
    ("embedding_bag", {"padding_idx": 4}, ValueError, "padding_idx"),
]


@pytest.mark.parametrize(("op", "change", "error", "argument"), WRONG)
def test_wrong_arguments(op, change, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**{"input": np.array([[0, 1]]), "weight": TABLE, **change})
    assert re.match(rf"{op}: {argument} must\b", str(caught.value)), caught.value


def test_wrong_gradients():
    with pytest.raises(ValueError, match="embedding_backward: grad_output must have the shape of the output"):
        fastops.embedding_backward(np.ones((2, 2)), np.array([0, 1]), TABLE)
    with pytest.raises(ValueError, match="embedding_bag_backward: grad_output must have the shape of the output"):
        fastops.embedding_bag_backward(np.ones((2, 3)), np.array([[0, 1]]), TABLE)
