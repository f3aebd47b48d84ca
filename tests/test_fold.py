"""unfold and fold: the contract of every operation, what they mean, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from tests.cases.conv import ROWS, convolution
from tests.harness import assert_same_bits, every_check


@every_check([row for row in ROWS if row.op in ("unfold", "fold")])
def test_row(check, row):
    check(row)


ATTRIBUTES = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 2), "dilation": (3, 2)},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (4, 1), "padding": ((1, 3), (0, 2))},
]


@pytest.mark.parametrize("attributes", ATTRIBUTES, ids=str)
def test_a_convolution_is_a_matrix_product_with_the_columns(attributes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 9, 10))
    columns = fastops.unfold(x, **attributes)
    options = {name: value for name, value in attributes.items() if name != "kernel_size"}
    kernel = attributes["kernel_size"] if isinstance(attributes["kernel_size"], tuple) else (attributes["kernel_size"],) * 2
    w = rng.standard_normal((5, 3, *kernel))
    expected = convolution(x, w, **options)
    np.testing.assert_allclose((w.reshape(5, -1) @ columns).reshape(expected.shape), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("attributes", ATTRIBUTES, ids=str)
def test_fold_is_the_transpose_of_unfold(attributes):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (2, 3, 9, 10)).astype(np.float32)
    columns = rng.integers(-9, 9, fastops.unfold(x, **attributes).shape).astype(np.float32)
    image = fastops.fold(columns, (9, 10), **attributes)
    assert np.vdot(fastops.unfold(x, **attributes), columns) == np.vdot(x, image)
    # and each is the gradient of the other
    assert_same_bits(fastops.unfold_backward(columns, x, **attributes), image)
    assert_same_bits(fastops.fold_backward(x, columns, (9, 10), **attributes), fastops.unfold(x, **attributes))


def test_windows_side_by_side_come_back():
    x = np.arange(2 * 3 * 8 * 6, dtype=np.float64).reshape(2, 3, 8, 6)
    assert_same_bits(fastops.fold(fastops.unfold(x, 2, stride=2), (8, 6), 2, stride=2), x)


WRONG_UNFOLD = [
    ({"input": np.zeros((3, 3))}, ValueError, "input"),
    ({"input": np.zeros((1, 3, 0, 5))}, ValueError, "input"),
    ({"input": np.zeros((1, 3, 5, 5), int)}, TypeError, "input"),
    ({"kernel_size": 0}, ValueError, "kernel_size"),
    ({"kernel_size": (2, 2, 2)}, ValueError, "kernel_size"),
    ({"kernel_size": 2.5}, TypeError, "kernel_size"),
    ({"kernel_size": 6}, ValueError, "kernel_size"),
    ({"dilation": 3}, ValueError, "kernel_size"),
    ({"dilation": 0}, ValueError, "dilation"),
    ({"stride": 0}, ValueError, "stride"),
    ({"padding": -1}, ValueError, "padding"),
    ({"padding": "same"}, ValueError, "padding"),
    ({"padding": 2**62}, ValueError, ""),
    ({"out": np.full((1, 27, 8), 7.0)}, ValueError, "out"),
    ({"out": np.full((1, 27, 9), 7.0, np.float32)}, TypeError, "out"),
]


@pytest.mark.parametrize(("change", "error", "argument"), WRONG_UNFOLD)
def test_wrong_arguments_of_unfold(change, error, argument):
    with pytest.raises(error) as caught:
        fastops.unfold(**{"input": np.zeros((1, 3, 5, 5)), "kernel_size": 3, **change})
    assert re.match(rf"unfold: {argument}\b", str(caught.value)), caught.value
    assert (change.get("out", np.full(1, 7)) == 7).all()


WRONG_FOLD = [
    ({"input": np.zeros(4)}, ValueError, "input"),
    ({"input": np.zeros((1, 28, 9))}, ValueError, "input"),
    ({"input": np.zeros((1, 27, 8))}, ValueError, "input"),
    ({"output_size": 0}, ValueError, "output_size"),
    ({"output_size": (5, 5, 5)}, ValueError, "output_size"),
    ({"output_size": 2}, ValueError, "kernel_size"),
    ({"out": np.full((1, 3, 5, 4), 7.0)}, ValueError, "out"),
]


@pytest.mark.parametrize(("change", "error", "argument"), WRONG_FOLD)
def test_wrong_arguments_of_fold(change, error, argument):
    with pytest.raises(error) as caught:
        fastops.fold(**{"input": np.zeros((1, 27, 9)), "output_size": 5, "kernel_size": 3, **change})
    assert re.match(rf"fold: {argument}\b", str(caught.value)), caught.value
    assert (change.get("out", np.full(1, 7)) == 7).all()
