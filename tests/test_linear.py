"""linear, bilinear, matmul, addmm, baddbmm: the contract of every operation, corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from tests.cases.linear import ROWS
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


@pytest.mark.parametrize("beta", [0, 0.0])
def test_beta_of_zero_does_not_look_at_the_input(beta):
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    for shape in ((2, 4), (4,), ()):
        assert (fastops.addmm(np.full(shape, np.nan), a, b, beta=beta) == a @ b).all()
        assert (fastops.baddbmm(np.full(shape, np.inf), a[None], b[None], beta=beta) == a @ b).all()
    assert (fastops.addmm_backward(np.ones((2, 4)), np.zeros(4), a, b, beta=beta)[0] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows, depth, cols", [(5, 7, 3), (1, 5, 9), (200, 300, 1), (64, 300, 70), (130, 513, 257)])
def test_matmul_of_transposes(dtype, rows, depth, cols):
    """They are read where they lie; other views, and wrong ones, go the usual way."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((rows, depth), (depth, cols)))
    for left in (a, np.asfortranarray(a), np.repeat(a, 2, 1)[:, ::2]):
        for right in (b, np.asfortranarray(b), np.repeat(b, 2, 1)[:, ::2]):
            y = fastops.matmul(left, right)
            assert y.flags.c_contiguous
            assert y.dtype == dtype
            assert (y == a @ b).all()
    with pytest.raises(ValueError, match="matmul: other must fit input"):
        fastops.matmul(a.T, np.ones((rows + 1, 2), dtype).T.copy().T)
    with pytest.raises(TypeError, match="matmul: input must have dtype"):
        fastops.matmul(a.astype(int).T, np.ones((rows, 2), dtype))


@pytest.mark.parametrize(
    "op, shapes, expected",
    [
        ("linear", ((2, 0), (3, 0), (3,)), "bias"),
        ("linear", ((0, 4), (3, 4), (3,)), "bias"),
        ("linear", ((2, 4), (0, 4), (0,)), "bias"),
        ("matmul", ((2, 0), (0, 3)), "zeros"),
        ("matmul", ((0,), (0,)), "zeros"),
        ("matmul", ((0, 2, 3), (3, 4)), "zeros"),
        ("matmul", ((5, 2, 3), (5, 3, 0)), "zeros"),
        ("matmul", ((2, 1, 2, 0), (3, 0, 4)), "zeros"),
        ("addmm", ((3,), (2, 0), (0, 3)), "first"),
        ("baddbmm", ((4, 2, 3), (4, 2, 0), (4, 0, 3)), "first"),
        ("bilinear", ((2, 0), (2, 3), (4, 0, 3), (4,)), "bias"),
        ("bilinear", ((0, 2), (0, 3), (4, 2, 3), (4,)), "bias"),
    ],
)
def test_extents_of_zero(op, shapes, expected):
    arrays = [np.random.default_rng(0).standard_normal(shape) for shape in shapes]
    y = getattr(fastops, op)(*arrays)
    assert (y == {"bias": arrays[-1], "first": arrays[0], "zeros": 0}[expected]).all()
    gradients = getattr(fastops, f"{op}_backward")(np.ones(y.shape), *arrays)
    for gradient, array in zip(gradients, arrays):
        assert gradient.shape == array.shape


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_way_through_gemm(dtype):
    """Few rows and many, few columns, long rows of weights, weights larger than the cache."""
    rng = np.random.default_rng(0)
    for rows, ins, outs in ((1, 64, 64), (1, 1000, 30), (2, 300, 700), (8, 5, 3), (9, 40, 33), (70, 20, 1), (1, 1, 1), (300, 1, 40)):
        x, w, b, dy = (rng.integers(-3, 4, shape).astype(dtype) for shape in ((rows, ins), (outs, ins), (outs,), (rows, outs)))
        assert (fastops.linear(x, w, b) == x @ w.T + b).all(), (rows, ins, outs)
        assert (fastops.linear(x, w, b, activation="relu") == np.maximum(x @ w.T + b, 0)).all()
        assert (fastops.matmul(x, w.T) == x @ w.T).all()
        for found, expected in zip(fastops.linear_backward(dy, x, w, b), (dy @ w, dy.T @ x, dy.sum(axis=0))):
            assert (found == expected).all(), (rows, ins, outs)


def test_half_is_rounded_once():
    x, w = np.random.default_rng(0).standard_normal((2, 40, 40)).astype(np.float16)
    expected = (x.astype(np.float32) @ w.astype(np.float32)).astype(np.float16)
    np.testing.assert_allclose(fastops.matmul(x, w).astype(float), expected.astype(float), rtol=2e-3, atol=1e-3)
    assert_same_bits(fastops.matmul(x, w), fastops.matmul(x.astype(np.float32), w.astype(np.float32)).astype(np.float16))


A, B = np.zeros((3, 4)), np.zeros((4, 5))
WRONG = [
    ("linear", {"input": A, "weight": np.zeros((5, 3))}, ValueError, "weight"),
    ("linear", {"input": A, "weight": np.zeros((1, 5, 4))}, ValueError, "weight"),
    ("linear", {"input": np.float64(1), "weight": A}, ValueError, "weight"),
    ("linear", {"input": A, "weight": A, "bias": np.zeros(4)}, ValueError, "bias"),
    ("linear", {"input": A, "weight": A.astype("f4")}, TypeError, "weight"),
    ("linear", {"input": A, "weight": A, "bias": np.zeros(3, "f4")}, TypeError, "bias"),
    ("linear", {"input": A.astype(int), "weight": A}, TypeError, "input"),
    ("linear", {"input": A, "weight": A, "activation": "swish"}, ValueError, "activation"),
    ("linear", {"input": A, "weight": A, "out": np.full((3, 4), 7.0)}, ValueError, "out"),
    ("linear", {"input": A, "weight": A, "out": np.full((3, 3), 7.0, "f4")}, TypeError, "out"),
    ("matmul", {"input": np.float64(1), "other": A}, ValueError, "input"),
    ("matmul", {"input": A, "other": np.float64(1)}, ValueError, "other"),
    ("matmul", {"input": A, "other": A}, ValueError, "other"),
    ("matmul", {"input": np.zeros((2, 3, 4)), "other": np.zeros((3, 4, 5))}, ValueError, "other"),
    ("matmul", {"input": A, "other": B, "out": np.full((5, 3), 7.0)}, ValueError, "out"),
    ("addmm", {"input": np.zeros(4), "mat1": A, "mat2": B}, ValueError, "input"),
    ("addmm", {"input": np.zeros((2, 3, 5)), "mat1": A, "mat2": B}, ValueError, "input"),
    ("addmm", {"input": np.zeros(5), "mat1": A[None], "mat2": B}, ValueError, "mat1"),
    ("addmm", {"input": np.zeros(5), "mat1": A, "mat2": A}, ValueError, "mat2"),
    ("addmm", {"input": np.zeros(5), "mat1": A, "mat2": B, "beta": "1"}, TypeError, "beta"),
    ("addmm", {"input": np.zeros(5), "mat1": A, "mat2": B, "alpha": None}, TypeError, "alpha"),
    ("baddbmm", {"input": np.zeros(5), "batch1": A, "batch2": B}, ValueError, "batch1"),
    ("baddbmm", {"input": np.zeros(5), "batch1": A[None], "batch2": np.zeros((2, 4, 5))}, ValueError, "batch2"),
    ("bilinear", {"input1": A, "input2": A, "weight": A}, ValueError, "weight"),
    ("bilinear", {"input1": A, "input2": A, "weight": np.zeros((2, 3, 4))}, ValueError, "input1"),
    ("bilinear", {"input1": A, "input2": A, "weight": np.zeros((2, 4, 3))}, ValueError, "input2"),
    ("bilinear", {"input1": A, "input2": A[:2], "weight": np.zeros((2, 4, 4))}, ValueError, "input2"),
    ("bilinear", {"input1": A, "input2": A, "weight": np.zeros((2, 4, 4)), "bias": np.zeros(3)}, ValueError, "bias"),
    ("linear_backward", {"grad_output": A, "input": A, "weight": A}, ValueError, "grad_output"),
    ("matmul_backward", {"grad_output": A, "input": A, "other": B}, ValueError, "grad_output"),
    ("addmm_backward", {"grad_output": A, "input": np.zeros(5), "mat1": A, "mat2": B}, ValueError, "grad_output"),
    ("bilinear_backward", {"grad_output": A, "input1": A, "input2": A, "weight": np.zeros((2, 4, 4))}, ValueError, "grad_output"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "argument"), WRONG)
def test_wrong_arguments(op, arguments, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**arguments)
    assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value
    assert (arguments.get("out", np.full(1, 7)) == 7).all()
