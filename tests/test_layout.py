"""pad and one_hot: the contract of every operation, the limits of the modes, and wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest

import fastops
from tests.cases.layout import ROWS
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


LINE = np.arange(1.0, 5.0)[None]


@pytest.mark.parametrize(
    ("mode", "pad", "expected"),
    [
        ("reflect", (3, 3), [4, 3, 2, 1, 2, 3, 4, 3, 2, 1]),
        ("reflect", (-1, 2), [2, 3, 4, 3, 2]),
        ("reflect", (3, -3), [4, 3, 2, 1]),
        ("replicate", (2, 5), [1, 1, 1, 2, 3, 4, 4, 4, 4, 4, 4]),
        ("replicate", (-4, 4), [4, 4, 4, 4]),
        ("circular", (4, 4), [1, 2, 3, 4] * 3),
        ("circular", (-1, 2), [2, 3, 4, 2, 3]),  # what is cropped does not come back
        ("circular", (2, -1), [2, 3, 1, 2, 3]),
        ("constant", (-4, 0), []),
        ("constant", (-5, 6), [0] * 5),
    ],
)
def test_modes_at_their_limits(mode, pad, expected):
    if (mode, pad) == ("constant", (-5, 6)):  # more is cropped than there is
        with pytest.raises(ValueError, match="pad"):
            fastops.pad(LINE, pad, mode)
        return
    np.testing.assert_array_equal(fastops.pad(LINE, pad, mode), [expected])


WRONG = [
    ({"pad": (4, 0), "mode": "reflect"}, ValueError, "pad"),
    ({"pad": (5, 0), "mode": "circular"}, ValueError, "pad"),
    ({"pad": (-2, 3), "mode": "circular"}, ValueError, "pad"),
    ({"pad": (-2, -2), "mode": "replicate"}, ValueError, "pad"),
    ({"pad": (-3, -2)}, ValueError, "pad"),
    ({"pad": (1,)}, ValueError, "pad"),
    ({"pad": (1, 1, 1, 1, 1, 1)}, ValueError, "pad"),
    ({"pad": (1.0, 1)}, TypeError, "pad"),
    ({"pad": (True, 1)}, TypeError, "pad"),
    ({"pad": 1}, TypeError, "pad"),
    ({"pad": (2**61, 2**61)}, ValueError, "pad"),
    ({"pad": (1, 1), "mode": "mirror"}, ValueError, "mode"),
    ({"pad": (1, 1), "mode": ["reflect"]}, ValueError, "mode"),
    ({"pad": (1, 1), "mode": "reflect", "value": 1.0}, ValueError, "value"),
    ({"pad": (1, 1), "value": "one"}, TypeError, "value"),
    ({"pad": (1, 1, 1, 1), "mode": "reflect"}, ValueError, "pad"),
    ({"input": np.zeros((2, 2, 2, 2)), "pad": (1, 1), "mode": "replicate"}, ValueError, "pad"),
    ({"input": np.zeros((2, 0, 4)), "pad": (1, 1), "mode": "reflect"}, ValueError, "input"),
    ({"input": np.zeros((2, 4), int), "pad": (1, 1)}, TypeError, "input"),
]


@pytest.mark.parametrize(("arguments", "error", "name"), WRONG, ids=str)
def test_wrong_arguments(arguments, error, name):
    with pytest.raises(error, match=f"^pad: {name}"):
        fastops.pad(**{"input": LINE, **arguments})


def test_gradients_have_the_shape_of_the_output():
    with pytest.raises(ValueError, match=r"^pad_backward: grad_output"):
        fastops.pad_backward(np.zeros((1, 5)), LINE, (1, 1))
    with pytest.raises(TypeError, match=r"^pad_backward: input"):
        fastops.pad_backward(np.zeros((1, 6), np.float32), LINE, (1, 1))


def test_nothing_to_pad_and_nothing_left():
    assert_same_bits(fastops.pad(np.float32(3), ()), np.array(3, np.float32))
    assert_same_bits(fastops.pad(np.zeros((0, 2)), (1, 0, 2, 0), value=7.0), np.full((2, 3), 7.0))
    assert fastops.pad(np.zeros((0, 3, 4)), (1, 1), "reflect").shape == (0, 3, 6)
    assert_same_bits(fastops.pad_backward(np.zeros((1, 0)), LINE, (-4, 0)), np.zeros((1, 4)))
    out = fastops.pad(LINE, (0, 0))
    assert not np.shares_memory(out, LINE)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i8"])
def test_one_hot(dtype):
    classes = np.array([[0, 2, 1], [3, 0, 0]], dtype)
    expected = (classes[..., None] == np.arange(4)).astype(np.int64)
    assert_same_bits(fastops.one_hot(classes), expected)
    assert_same_bits(fastops.one_hot(classes.T), expected.swapaxes(0, 1).copy())
    assert_same_bits(fastops.one_hot(classes.tolist(), 6), np.pad(expected, ((0, 0), (0, 0), (0, 2))))
    classes.flags.writeable = False
    assert_same_bits(fastops.one_hot(classes, 4), expected)
    assert_same_bits(fastops.one_hot(np.array(2, dtype)), np.array([0, 0, 1]))
    assert fastops.one_hot(np.zeros((0, 2), dtype), 5).shape == (0, 2, 5)


@pytest.mark.parametrize(
    ("tensor", "num_classes", "error", "name"),
    [
        (np.array([0.0]), -1, TypeError, "tensor"),
        (np.array([True]), -1, TypeError, "tensor"),
        ([], -1, TypeError, "tensor"),
        (np.ma.array([0], mask=True), -1, TypeError, "tensor must .* a masked array"),
        (np.array([0, -1]), 3, ValueError, "tensor"),
        (np.array([0, 3]), 3, ValueError, "tensor"),
        (np.array([2**63], np.uint64), 3, ValueError, "tensor"),
        (np.array([0]), 0, ValueError, "tensor"),
        (np.array([0]), -2, ValueError, "num_classes"),
        (np.array([0]), 2.0, TypeError, "num_classes"),
        (np.zeros(0, int), -1, ValueError, "num_classes"),
        (np.array([2**62]), -1, ValueError, "num_classes"),
    ],
    ids=str,
)
def test_one_hot_refuses(tensor, num_classes, error, name):
    with pytest.raises(error, match=f"^one_hot: {name}"):
        fastops.one_hot(tensor, num_classes)
