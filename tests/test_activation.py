"""Activations: the contract of every operation, kinks, infinities, in place, and wrong arguments."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

import fastops
from fastops import _op
from tests.cases.activation import ROWS
from tests.harness import assert_same_bits, every_check

INF, NAN = np.inf, np.nan
NAMES = sorted({row.op for row in ROWS})
EXTRA = {"threshold": {"threshold": 0.5, "value": 7.0}, "prelu": {"weight": np.array([0.25])}, "rrelu": {"training": True, "rng": 3}}


@every_check(ROWS)
def test_row(check, row):
    check(row)


# Derivatives at kinks, as PyTorch has them.
AT_KINKS = [
    ("relu", {}, [0.0, -0.0], [0, 0]),
    ("relu6", {}, [0.0, 6.0], [0, 0]),
    ("leaky_relu", {"negative_slope": 0.25}, [0.0], [0.25]),
    ("elu", {"alpha": 2.0}, [0.0], [2]),
    ("celu", {"alpha": 2.0}, [0.0], [1]),
    ("selu", {}, [0.0], [1.0507009873554805 * 1.6732632423543772]),
    ("hardtanh", {}, [-1.0, 1.0], [0, 0]),
    ("hardsigmoid", {}, [-3.0, 3.0], [0, 0]),
    ("hardswish", {}, [-3.0, 3.0], [0, 1]),
    ("hardshrink", {}, [-0.5, 0.5], [0, 0]),
    ("softshrink", {}, [-0.5, 0.5], [0, 0]),
    ("threshold", {"threshold": 1.0, "value": 0.0}, [1.0], [0]),
    ("softplus", {"threshold": 2.0}, [2.0, 2.0000001], [1 / (1 + np.exp(-2.0)), 1]),
]


@pytest.mark.parametrize(("op", "options", "x", "slope"), AT_KINKS)
def test_derivative_at_kinks(op, options, x, slope):
    found = getattr(fastops, f"{op}_backward")(np.ones(len(x)), np.array(x), **options)
    np.testing.assert_allclose(found, slope, rtol=1e-14)


# Values at NaN, infinity, minus infinity.
AT_INFINITY = {
    "relu": (INF, 0), "relu6": (6, 0), "leaky_relu": (INF, -INF), "elu": (INF, -1), "celu": (INF, -1),
    "selu": (INF, -1.7580993408473766), "gelu": (INF, NAN), "silu": (INF, NAN), "mish": (INF, NAN), "sigmoid": (1, 0), "tanh": (1, -1),
    "softplus": (INF, 0), "softsign": (NAN, NAN), "hardtanh": (1, -1), "hardsigmoid": (1, 0), "hardswish": (INF, NAN),
    "hardshrink": (INF, -INF), "softshrink": (INF, -INF), "tanhshrink": (INF, -INF), "logsigmoid": (0, -INF), "threshold": (INF, 7),
    "prelu": (INF, -INF),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", AT_INFINITY)
def test_nan_and_infinity(op, dtype):
    x = np.array([NAN, INF, -INF] * 11, dtype)  # in whole vectors and in what is left over
    extra = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in EXTRA.get(op, {}).items()}
    found = getattr(fastops, op)(x, **extra)
    np.testing.assert_allclose(found, np.array([NAN, *AT_INFINITY[op]] * 11, dtype), rtol=1e-6)


def test_softplus_threshold():
    x = np.array([19.9, 20.1, 1000.0, -1000.0])
    np.testing.assert_allclose(fastops.softplus(x), [np.log1p(np.exp(19.9)), 20.1, 1000, 0], rtol=1e-15)
    assert fastops.softplus(20.1) - 20.1 == 0
    assert fastops.softplus(19.9) - 19.9 > 0
    np.testing.assert_allclose(fastops.softplus([3.0], beta=2.0, threshold=5.0), [3])
    np.testing.assert_allclose(fastops.softplus([3.0], beta=2.0, threshold=7.0), [np.log1p(np.exp(6)) / 2])


def test_gelu_none_and_tanh_differ():
    x = np.linspace(-4, 4, 101)
    difference = np.abs(fastops.gelu(x) - fastops.gelu(x, "tanh"))
    assert 1e-4 < difference.max() < 1e-3


@pytest.mark.parametrize("op", [name for name in NAMES if "inplace" in inspect.signature(getattr(fastops, name)).parameters])
class TestInPlace:
    def call(self, op, x, **more):
        return getattr(fastops, op)(x, **EXTRA.get(op, {}), **more)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_result_overwrites_the_input(self, op, dtype):
        x = np.linspace(-5, 5, 5003).astype(dtype)
        expected = self.call(op, x)
        before = x.copy()
        assert_same_bits(x, before)
        assert self.call(op, x, inplace=True) is x
        assert_same_bits(x, expected)

    def test_parts_of_arrays(self, op):
        memory = np.linspace(-5, 5, 60).reshape(20, 3)
        column = memory[:, 1]
        expected = self.call(op, column)
        rest = memory[:, ::2].copy()
        assert self.call(op, column, inplace=True) is column
        assert_same_bits(column, expected)
        assert_same_bits(memory[:, ::2], rest)

    def test_refused(self, op):
        x = np.linspace(-5, 5, 7)
        with pytest.raises(ValueError, match=rf"^{op}: out must be None"):
            self.call(op, x, inplace=True, out=np.empty(7))
        with pytest.raises(TypeError, match=rf"^{op}: input must be a NumPy array"):
            self.call(op, [1.0], inplace=True)
        x.flags.writeable = False
        with pytest.raises(ValueError, match=rf"^{op}: input must be writeable"):
            self.call(op, x, inplace=True)
        assert_same_bits(x, np.linspace(-5, 5, 7))


@pytest.mark.parametrize("op", [name for name in NAMES if _op.get(name).record and name != "rrelu"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradients_from_the_input_and_from_the_output_are_the_same(op, dtype):
    x = np.linspace(-7, 7, 57).astype(dtype)
    dy = np.cos(x)
    _, kept = _op.get(op).record(x)
    backward = getattr(fastops, f"{op}_backward")
    assert_same_bits(backward(dy, np.broadcast_to(dtype(0), x.shape), **kept), backward(dy, x))


@pytest.mark.parametrize("op", [name for name in NAMES if name != "glu"])
def test_scalars_and_empty_arrays(op):
    extra = EXTRA.get(op, {})
    for x in (np.array(0.7), np.empty((0, 3)), np.empty((2, 0, 3))):
        y = getattr(fastops, op)(x, **extra)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)


class TestRandomSlopes:
    def test_statistics(self):
        r = -fastops.rrelu(np.full(1 << 16, -1.0), 0.25, 0.75, training=True, rng=1)
        assert 0.25 <= r.min() < 0.251
        assert 0.749 < r.max() < 0.75
        assert abs(r.mean() - 0.5) < 5 * 0.5 / np.sqrt(12 * r.size)
        assert abs(r.var() - 0.25 / 12) < 0.001
        assert abs(np.corrcoef(r[1:], r[:-1])[0, 1]) < 0.02

    def test_seeds(self):
        x = np.full(100, -1.0)
        assert_same_bits(fastops.rrelu(x, training=True, rng=1), fastops.rrelu(x, training=True, rng=1))
        assert (fastops.rrelu(x, training=True, rng=1) != fastops.rrelu(x, training=True, rng=2)).any()
        assert (fastops.rrelu(x, training=True) != fastops.rrelu(x, training=True)).any()

    def test_gradient_needs_the_seed(self):
        with pytest.raises(TypeError, match=r"^rrelu_backward: rng must be the integer seed"):
            fastops.rrelu_backward(np.ones(3), np.ones(3), training=True)


X = np.zeros((2, 6))
WRONG = [
    ("relu", {"input": np.zeros(3, int)}, TypeError, "input"),
    ("relu", {"input": "text"}, TypeError, "input"),
    ("relu", {"out": np.full((2, 5), 7.0)}, ValueError, "out"),
    ("relu", {"out": np.full((2, 6), 7.0, np.float32)}, TypeError, "out"),
    ("leaky_relu", {"negative_slope": "0.1"}, TypeError, "negative_slope"),
    ("hardtanh", {"min_val": 2.0}, ValueError, "min_val"),
    ("softshrink", {"lambd": -0.1}, ValueError, "lambd"),
    ("softshrink", {"lambd": NAN}, ValueError, "lambd"),
    ("hardshrink", {"lambd": None}, TypeError, "lambd"),
    ("gelu", {"approximate": "erf"}, ValueError, "approximate"),
    ("celu", {"alpha": 0}, ValueError, "alpha"),
    ("elu", {"alpha": True}, TypeError, "alpha"),
    ("softplus", {"beta": [1.0, 2.0]}, TypeError, "beta"),
    ("rrelu", {"lower": 0.5, "upper": 0.1}, ValueError, "lower"),
    ("rrelu", {"training": True, "rng": -1}, ValueError, "rng"),
    ("rrelu", {"training": True, "rng": 1.5}, TypeError, "rng"),
    ("glu", {"dim": 2}, ValueError, "dim"),
    ("glu", {"dim": 0, "input": np.zeros((3, 2))}, ValueError, "input"),
    ("glu", {"input": np.array(1.0)}, ValueError, "input"),
    ("prelu", {"weight": np.zeros(5)}, ValueError, "weight"),
    ("prelu", {"weight": np.zeros((1, 6))}, ValueError, "weight"),
    ("prelu", {"weight": np.zeros(6, np.float32)}, TypeError, "weight"),
]


@pytest.mark.parametrize(("op", "change", "error", "argument"), WRONG)
def test_wrong_arguments(op, change, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**{"input": X, **change})
    assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value
    assert (change.get("out", np.full(1, 7)) == 7).all()


@pytest.mark.parametrize("op", NAMES)
def test_wrong_grad_output(op):
    extra = EXTRA.get(op, {})
    for dy, error in ((np.zeros((2, 5)), ValueError), (np.zeros((2, 6), int), TypeError), (np.zeros((2, 6), np.float32), TypeError)):
        with pytest.raises(error, match=rf"^{op}_backward: "):
            getattr(fastops, f"{op}_backward")(dy, X, **extra)
