"""Softmax: the contract of every operation, infinities, large values, dtypes, random choices, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from fastops import _op
from tests.cases.softmax import ROWS, log_softmax, softmax
from tests.harness import assert_same_bits, every_check

INF, NAN = np.inf, np.nan
LENGTHS = [1, 2, 15, 16, 17, 100, 511, 512, 513, 3000]  # around the places where the kernels change their way


@every_check(ROWS)
def test_row(check, row):
    check(row)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dim", [0, 1])
def test_every_length(length, dim, dtype):
    rng = np.random.default_rng(length)
    x = 5 * rng.standard_normal((length, 19) if dim == 0 else (19, length))
    dy = rng.standard_normal(x.shape)
    tolerance = {"rtol": 0, "atol": 30 * np.finfo(dtype).eps}
    y, z = softmax(x.astype(dtype).astype(float), dim), log_softmax(x.astype(dtype).astype(float), dim)
    np.testing.assert_allclose(fastops.softmax(x.astype(dtype), dim), y, **tolerance)
    scale = max(np.abs(z).max(), 1)
    np.testing.assert_allclose(fastops.log_softmax(x.astype(dtype), dim) / scale, z / scale, **tolerance)
    gradient = y * (dy - (dy * y).sum(dim, keepdims=True))
    np.testing.assert_allclose(fastops.softmax_backward(dy.astype(dtype), x.astype(dtype), dim), gradient, **tolerance)
    gradient = dy - y * dy.sum(dim, keepdims=True)
    scale = max(np.abs(gradient).max(), 1)
    np.testing.assert_allclose(fastops.log_softmax_backward(dy.astype(dtype), x.astype(dtype), dim) / scale, gradient / scale, **tolerance)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("length", [5, 40, 600])
class TestInfinity:
    def row(self, op, row, dim):
        """The result for the row among ordinary ones, which must not change."""
        x = np.random.default_rng(0).standard_normal((5, row.size))
        rest = getattr(fastops, op)(x, 1)
        x[2] = row
        y = getattr(fastops, op)(x if dim else x.T, dim)
        y = y if dim else y.T
        others = [0, 1, 3, 4]
        np.testing.assert_allclose(y[others], rest[others], rtol=1e-13)
        return y[2]

    def test_all_minus_infinity(self, length, dim):
        row = np.full(length, -INF)
        assert np.isnan(self.row("softmax", row, dim)).all()
        assert np.isnan(self.row("log_softmax", row, dim)).all()
        assert np.isnan(self.row("softmin", -row, dim)).all()

    def test_some_minus_infinity(self, length, dim):
        row = np.zeros(length)
        row[1:4] = -INF
        expected = np.where(np.isinf(row), 0, 1 / (length - 3))
        np.testing.assert_allclose(self.row("softmax", row, dim), expected, rtol=1e-14)
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(self.row("log_softmax", row, dim), np.log(expected), rtol=1e-14)

    @pytest.mark.parametrize("value", [NAN, INF])
    def test_nan_and_infinity_fill_the_row(self, length, dim, value):
        row = np.zeros(length)
        row[3] = value
        assert np.isnan(self.row("softmax", row, dim)).all()

    def test_large_values(self, length, dim):
        row = 1e4 + np.linspace(0, 3, length)
        np.testing.assert_allclose(self.row("softmax", row, dim), softmax(row[None])[0], rtol=1e-12)
        np.testing.assert_allclose(self.row("log_softmax", row, dim), log_softmax(row[None] - 1e4, 1)[0], rtol=1e-11)
        row[0] = 1e300
        assert self.row("softmax", row, dim)[0] == 1
        assert (self.row("log_softmax", row, dim)[1:] == -1e300).all()


def test_log_softmax_keeps_what_softmax_loses():
    np.testing.assert_allclose(fastops.log_softmax(np.float32([[0, 200.0, -1000]]), 1), [[-200, 0, -1200]])


def test_scalars_and_empty_arrays():
    assert fastops.softmax(3.0, 0) == fastops.softmax(3.0, -1) == 1
    assert fastops.log_softmax(3.0, 0) == 0
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 4)):
        assert fastops.softmax(np.empty(shape), -1).shape == shape
        assert fastops.softmax_backward(np.empty(shape), np.empty(shape), 0).shape == shape


@pytest.mark.parametrize(("shape", "dim"), [((), 0), ((4,), 0), ((3, 4), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)])
def test_axis_where_none_is_given(shape, dim):
    x = np.random.default_rng(0).standard_normal(shape)
    assert_same_bits(np.asarray(fastops.softmax(x)), np.asarray(fastops.softmax(x, dim)))


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "softmin"])
def test_dtype(op):
    function, backward = getattr(fastops, op), getattr(fastops, f"{op}_backward")
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    wide = function(x, 1, dtype=np.float64)
    assert_same_bits(wide, function(x.astype(np.float64), 1))
    assert_same_bits(function(np.arange(6).reshape(2, 3), 1, dtype="float32"), function(np.arange(6, dtype="f4").reshape(2, 3), 1))
    assert function(x, 1, dtype=np.float16).dtype == np.float16
    dx = backward(np.cos(wide), x, 1, dtype=np.float64)
    assert_same_bits(dx, backward(np.cos(wide), x.astype(np.float64), 1).astype(np.float32))


class TestGumbel:
    P = np.array([0.1, 0.2, 0.3, 0.4])

    def choices(self, seed, **more):
        return fastops.gumbel_softmax(np.broadcast_to(np.log(self.P), (1 << 15, 4)), hard=True, rng=seed, **more)

    def test_choices_have_their_probabilities(self):
        y = self.choices(1)
        assert ((y == 0) | (y == 1)).all()
        assert (y.sum(1) == 1).all()
        deviation = np.sqrt(self.P * (1 - self.P) / len(y))
        assert (np.abs(y.mean(0) - self.P) < 5 * deviation).all()
        assert (np.abs(self.choices(2, tau=9.0).mean(0) - self.P) < 5 * deviation).all()

    def test_noise_is_gumbel(self):
        # differences of Gumbel numbers are logistic: mean 0, variance pi^2 / 3
        y = fastops.gumbel_softmax(np.zeros((1 << 16, 2)), rng=3)
        logits = np.log(y[:, 0] / y[:, 1])
        assert abs(logits.mean()) < 5 * np.pi / np.sqrt(3 * len(y))
        assert abs(logits.var() - np.pi**2 / 3) < 0.1
        assert abs((logits > 2).mean() - 1 / (1 + np.exp(2))) < 5 * np.sqrt(0.12 * 0.88 / len(y))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_temperature_near_zero_gives_a_choice(self, dtype):
        logits = np.random.default_rng(0).standard_normal((200, 5)).astype(dtype)
        for tau in (1e-9, 1e-12, 1e-30):
            np.testing.assert_array_equal(fastops.gumbel_softmax(logits, tau, rng=0), fastops.gumbel_softmax(logits, hard=True, rng=0))

    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_hard_is_the_largest_of_soft_and_has_its_gradient(self, dim):
        logits = np.random.default_rng(0).standard_normal((5, 6, 7))
        soft, hard = (fastops.gumbel_softmax(logits, hard=h, dim=dim, rng=4) for h in (False, True))
        np.testing.assert_array_equal(hard, soft == soft.max(dim, keepdims=True))
        dy = np.cos(soft)
        expected = fastops.gumbel_softmax_backward(dy, logits, dim=dim, rng=4)
        assert_same_bits(fastops.gumbel_softmax_backward(dy, logits, hard=True, dim=dim, rng=4), expected)
        _, kept = _op.get("gumbel_softmax").record(logits, hard=True, dim=dim, rng=4)
        stand_in = np.broadcast_to(0.0, logits.shape)
        assert_same_bits(fastops.gumbel_softmax_backward(dy, stand_in, hard=True, dim=dim, **kept), expected)

    def test_hard_in_threads(self):
        assert_same_bits(self.choices(7), self.choices(7))

    def test_seeds(self):
        x = np.zeros((3, 4))
        assert (fastops.gumbel_softmax(x) != fastops.gumbel_softmax(x)).any()
        generator = np.random.default_rng(1)
        assert (fastops.gumbel_softmax(x, rng=generator) != fastops.gumbel_softmax(x, rng=generator)).any()
        with pytest.raises(TypeError, match=r"^gumbel_softmax_backward: rng must be the integer seed"):
            fastops.gumbel_softmax_backward(x, x)


X = np.zeros((2, 3))
WRONG = [
    ("softmax", {"input": X, "dim": 2}, ValueError, "dim"),
    ("softmax", {"input": X, "dim": 1.0}, TypeError, "dim"),
    ("softmax", {"input": X, "dim": True}, TypeError, "dim"),
    ("softmax", {"input": X.astype(int), "dim": 1}, TypeError, "input"),
    ("softmax", {"input": X.astype(complex), "dim": 1, "dtype": float}, TypeError, "input"),
    ("softmax", {"input": X, "dim": 1, "dtype": int}, TypeError, "dtype"),
    ("softmax", {"input": X, "dim": 1, "out": np.full((3, 2), 7.0)}, ValueError, "out"),
    ("log_softmax", {"input": X, "dim": -3}, ValueError, "dim"),
    ("softmin", {"input": X, "dim": 1, "out": np.full((2, 3), 7.0, np.float32)}, TypeError, "out"),
    ("gumbel_softmax", {"logits": X, "tau": 0}, ValueError, "tau"),
    ("gumbel_softmax", {"logits": X, "tau": NAN}, ValueError, "tau"),
    ("gumbel_softmax", {"logits": X, "dim": 5}, ValueError, "dim"),
    ("gumbel_softmax", {"logits": X, "rng": "0"}, TypeError, "rng"),
    ("softmax_backward", {"grad_output": X[:1], "input": X, "dim": 1}, ValueError, "grad_output"),
    ("softmax_backward", {"grad_output": X.astype("f4"), "input": X, "dim": 1}, TypeError, "grad_output"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "argument"), WRONG)
def test_wrong_arguments(op, arguments, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**arguments)
    assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value
    assert (arguments.get("out", np.full(1, 7)) == 7).all()
