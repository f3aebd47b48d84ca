"""Normalisation: the contract of every operation, running statistics, numerics, corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from fastops import _op
from tests.cases.norm import ROWS, batch_norm, instance_norm
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics(rng, shape, dtype):
    """Updated in place, with the unbiased variance; the result is normalised with the biased one."""
    x = (rng.standard_normal(shape) * 3 + 1).astype(dtype)
    mean, var = np.full(3, 2.0, dtype), np.full(3, 5.0, dtype)
    axes = (0, *range(2, len(shape)))
    y = fastops.batch_norm(x, mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean, 0.75 * 2 + 0.25 * x.mean(axis=axes, dtype=float), rtol=1e-6)
    np.testing.assert_allclose(var, 0.75 * 5 + 0.25 * x.astype(float).var(axis=axes, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(y, batch_norm(x.astype(float), None, None, training=True), rtol=0, atol=1e-5)


def test_running_statistics_of_instances_are_their_means(rng):
    x = rng.standard_normal((4, 3, 10))
    mean, var = np.zeros(3), np.ones(3)
    fastops.instance_norm(x, mean, var, momentum=0.1)
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=(0, 2)), atol=1e-12)
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.var(axis=2, ddof=1).mean(axis=0), rtol=1e-12)


def test_running_statistics_may_lie_anywhere(rng):
    x = rng.standard_normal((5, 3, 4))
    plain, apart = np.zeros(3), np.zeros((3, 2), np.float32)
    fastops.batch_norm(x, plain, None, training=True)
    fastops.batch_norm(x, apart[:, 1], None, training=True)
    np.testing.assert_allclose(apart[:, 1], plain, rtol=1e-6)
    assert (apart[:, 0] == 0).all()


def test_statistics_change_in_training_alone(rng):
    x = rng.standard_normal((5, 3, 4))
    mean, var = np.zeros(3), np.ones(3)
    fastops.batch_norm(x, mean, var)
    fastops.batch_norm_backward(x, x, mean, var, training=True)
    fastops.batch_norm(x[:0], mean, var, training=True)
    assert (mean == 0).all()
    assert (var == 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 9), (40, 3)])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_an_activation_on_the_way(rng, activation, shape, dtype):
    """The values of one operation after the other, at the kinks and at what is not a number too; and their gradients."""
    mean, var = np.zeros(3), np.ones(3)
    x = rng.integers(-9, 10, shape).astype(dtype)
    x.flat[:4] = np.nan, np.inf, -np.inf, -0.0
    options = {"running_mean": mean, "running_var": var, "eps": 0.0}
    after = getattr(fastops, activation)
    plain = fastops.batch_norm(x, **options)
    np.testing.assert_array_equal(fastops.batch_norm(x, **options, activation=activation), after(plain))
    x = rng.integers(-9, 10, shape).astype(dtype)
    x.flat[:2] = np.inf, -np.inf
    dy, weight, bias = rng.standard_normal(shape).astype(dtype), np.ones(3, dtype), np.array([1, -2, 0], dtype)
    plain = fastops.batch_norm(x, weight=weight, bias=bias, **options)
    passed = getattr(fastops, f"{activation}_backward")(dy, plain)
    expected = fastops.batch_norm_backward(passed, x, weight=weight, bias=bias, **options)
    for found, wanted in zip(fastops.batch_norm_backward(dy, x, weight=weight, bias=bias, **options, activation=activation), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


def test_the_gradient_behind_an_activation_keeps_the_bias(rng):
    """It needs its values, and whoever changes the array afterwards changes nothing."""
    x, bias = rng.standard_normal((4, 3, 5)), np.array([0.5, -0.5, 0.0])
    _, pullback = fastops.vjp(lambda x: fastops.batch_norm(x, None, None, None, bias, True, activation="relu"), x)
    expected = fastops.batch_norm_backward(np.ones_like(x), x, None, None, None, bias, True, activation="relu", output_mask=(True, False, False))[0]
    bias += 9
    np.testing.assert_allclose(pullback(np.ones_like(x))[0], expected, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_second_derivative_behind_an_activation(rng, activation):
    def penalty(x):
        slope = fastops.grad(lambda x: (fastops.batch_norm(x, None, None, None, None, True, activation=activation) ** 2).sum())(x)
        return (slope**2).sum()

    fastops.check_grad(penalty, 3 * rng.standard_normal((4, 3, 5)))


def test_the_gradient_of_inference_uses_the_statistics_of_the_forward_pass(rng):
    x, dy = rng.standard_normal((2, 4, 3, 5))
    mean, var = rng.standard_normal(3), rng.uniform(1, 2, 3)
    _, kept = _op.get("batch_norm").record(x, mean, var)
    expected = fastops.batch_norm_backward(dy, x, mean, var)[0]
    assert_same_bits(fastops.batch_norm_backward(dy, x, mean + 9, var * 9, **kept)[0], expected)


@pytest.mark.parametrize("shape", [(4, 3), (70, 40), (4, 3, 2), (4, 3, 50)])
def test_the_gradient_of_inference_does_not_see_the_input(rng, shape):
    x, dy = rng.standard_normal((2, *shape))
    mean, var = np.zeros(shape[1]), np.ones(shape[1])
    expected = fastops.batch_norm_backward(dy, x, mean, var)[0]
    x.flat[::2], x.flat[1::4] = np.nan, np.inf
    assert_same_bits(fastops.batch_norm_backward(dy, x, mean, var)[0], expected)


@pytest.mark.parametrize(
    "op, shape, options",
    [
        ("batch_norm", (8, 3, 40, 40), {"running_mean": None, "running_var": None, "training": True}),
        ("batch_norm", (3000, 5), {"running_mean": None, "running_var": None, "training": True}),
        ("instance_norm", (2, 3, 5000), {}),
        ("group_norm", (2, 4, 30, 30), {"num_groups": 2}),
        ("layer_norm", (4, 3000), {"normalized_shape": (3000,)}),
    ],
)
def test_a_large_mean_does_no_harm(rng, op, shape, options):
    """Mean 10^4 and unit variance, in float32: the result and the gradient of the same numbers in float64."""
    x, dy = (rng.standard_normal(shape) + 1e4).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    found, expected = (getattr(fastops, op)(a, **options) for a in (x, x.astype(float)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    backward = getattr(fastops, f"{op}_backward")
    found, expected = backward(dy, x, **options)[0], backward(dy.astype(float), x.astype(float), **options)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("op", ["batch_norm", "instance_norm", "group_norm", "layer_norm"])
def test_constant_input_gives_the_bias(op):
    x, bias = np.full((4, 3, 5), 1e5, np.float32), np.arange(3, dtype=np.float32)
    options = {
        "batch_norm": {"running_mean": None, "running_var": None, "training": True},
        "group_norm": {"num_groups": 3},
        "layer_norm": {"normalized_shape": 5},
    }
    if op == "layer_norm":
        bias = np.arange(5, dtype=np.float32)
    y = getattr(fastops, op)(x, **options.get(op, {}), bias=bias)
    assert (y == (bias if op == "layer_norm" else bias[:, None])).all()


def test_one_value_a_channel_in_training():
    for shape in ((1, 3), (1, 3, 1), (1, 3, 1, 1)):
        with pytest.raises(ValueError, match="batch_norm: input must have more than one value a channel"):
            fastops.batch_norm(np.zeros(shape), np.zeros(3), np.ones(3), training=True)
        fastops.batch_norm(np.zeros(shape), np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="instance_norm: input must have more than one value"):
        fastops.instance_norm(np.zeros((2, 3, 1)))
    with pytest.raises(ValueError, match="group_norm: input must have more than one value"):
        fastops.group_norm(np.zeros((1, 3)), 3)


def test_rms_norm_without_eps():
    """It is the smallest step from 1 in the format."""
    for dtype in (np.float32, np.float64):
        tiny = np.full((1, 4), 1e-30, dtype)
        np.testing.assert_allclose(fastops.rms_norm(tiny, 4), tiny / np.sqrt(np.finfo(dtype).eps), rtol=1e-6)


@pytest.mark.parametrize("op", ["layer_norm", "rms_norm"])
def test_a_shape_in_an_array(rng, op):
    x = rng.standard_normal((5, 3, 4))
    assert_same_bits(getattr(fastops, op)(x, np.array([3, 4])), getattr(fastops, op)(x, (3, 4)))


def test_response_is_divided_by_its_size():
    x = np.ones((1, 9, 1))
    y = fastops.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=0.0)
    np.testing.assert_allclose(y[0, 1:-1, 0], 1 / 3, rtol=1e-12)
    np.testing.assert_allclose(y[0, [0, -1], 0], 1 / 2, rtol=1e-12)


def test_normalize_corners():
    zero = np.zeros((2, 3))
    assert (fastops.normalize(zero) == 0).all()
    np.testing.assert_allclose(fastops.normalize_backward(np.ones((2, 3)), zero), 1e12)
    assert fastops.normalize(np.float64(-3), dim=0) == -1
    np.testing.assert_array_equal(fastops.normalize([[3.0, -4.0, 0.0]], p=0), [[1.5, -2, 0]])
    np.testing.assert_allclose(fastops.normalize([[1.0, 2.0], [2.0, 4.0]], dim=None), np.array([[1, 2], [2, 4]]) / 5)
    for dim in (np.array([0, 1]), np.array([], int)):
        np.testing.assert_allclose(fastops.normalize([[1.0, 2.0], [2.0, 4.0]], dim=dim), np.array([[1, 2], [2, 4]]) / 5)
    assert (fastops.normalize(np.array([[3.0], [5.0]]), dim=np.array(1)) == 1).all()
    tied = fastops.normalize_backward([[1.0, 2.0, 3.0]], [[2.0, -2.0, 1.0]], p=np.inf)
    np.testing.assert_allclose(tied, [[0.5 - 0.125, 1 + 0.125, 1.5]])
    assert np.isnan(fastops.normalize([[1.0, np.nan]], p=np.inf)).all()
    assert fastops.normalize(np.zeros((0, 3)), dim=0).shape == (0, 3)


def test_empty_batches_in_training():
    for x in (np.zeros((0, 3)), np.zeros((0, 3, 4)), np.zeros((2, 3, 0))):
        assert fastops.batch_norm(x, np.zeros(3), np.ones(3), training=True).shape == x.shape
        gradients = fastops.batch_norm_backward(x, x, None, None, np.ones(3), np.zeros(3), training=True)
        assert [g.shape for g in gradients] == [x.shape, (3,), (3,)]
        assert (gradients[1] == 0).all()


X = np.zeros((2, 4, 3))
RUNNING = {"running_mean": np.zeros(4), "running_var": np.ones(4)}
WRONG = [
    ("batch_norm", {"input": np.zeros(4), **RUNNING}, ValueError, "input"),
    ("batch_norm", {"input": X.astype(int), **RUNNING}, TypeError, "input"),
    ("batch_norm", {"input": X, "running_mean": None, "running_var": np.ones(4)}, ValueError, "running_mean"),
    ("batch_norm", {"input": X, "running_mean": np.zeros(4), "running_var": None}, ValueError, "running_var"),
    ("batch_norm", {"input": X, "running_mean": np.zeros(3), "running_var": np.ones(4)}, ValueError, "running_mean"),
    ("batch_norm", {"input": X, "running_mean": [0.0] * 4, "running_var": np.ones(4), "training": True}, TypeError, "running_mean"),
    ("batch_norm", {"input": X, "running_mean": np.zeros(4, int), "running_var": np.ones(4)}, TypeError, "running_mean"),
    ("batch_norm", {"input": X, "running_mean": np.broadcast_to(0.0, 4), "running_var": None, "training": True}, ValueError, "running_mean"),
    ("batch_norm", {"input": X, **RUNNING, "activation": "gelu"}, ValueError, "activation"),
    ("batch_norm_backward", {"grad_output": X, "input": X, **RUNNING, "activation": ["relu"]}, ValueError, "activation"),
    ("batch_norm_backward", {"grad_output": X, "input": X, **RUNNING, "bias": np.ones(3), "activation": "relu"}, ValueError, "bias"),
    ("batch_norm", {"input": X, **RUNNING, "weight": np.ones(3)}, ValueError, "weight"),
    ("batch_norm", {"input": X, **RUNNING, "bias": np.ones((4, 1))}, ValueError, "bias"),
    ("batch_norm", {"input": X, **RUNNING, "weight": np.ones(4, "f4")}, TypeError, "weight"),
    ("batch_norm", {"input": X, **RUNNING, "eps": -1e-5}, ValueError, "eps"),
    ("batch_norm", {"input": X, **RUNNING, "training": True, "eps": 0.0}, ValueError, "eps"),
    ("batch_norm", {"input": X, **RUNNING, "training": True, "momentum": None}, TypeError, "momentum"),
    ("batch_norm_backward", {"grad_output": X[:1], "input": X, **RUNNING}, ValueError, "grad_output"),
    ("batch_norm_backward", {"grad_output": X, "input": X, **RUNNING, "mean": np.zeros(3), "var": np.ones(4)}, ValueError, "mean"),
    ("instance_norm", {"input": np.zeros((2, 4))}, ValueError, "input"),
    ("instance_norm", {"input": X, "use_input_stats": False}, ValueError, "running_mean"),
    ("group_norm", {"input": X, "num_groups": 3}, ValueError, "num_groups"),
    ("group_norm", {"input": X, "num_groups": 0}, ValueError, "num_groups"),
    ("group_norm", {"input": X, "num_groups": 2.0}, TypeError, "num_groups"),
    ("group_norm", {"input": np.zeros(4), "num_groups": 2}, ValueError, "input"),
    ("layer_norm", {"input": X, "normalized_shape": (4,)}, ValueError, "normalized_shape"),
    ("layer_norm", {"input": X, "normalized_shape": ()}, ValueError, "normalized_shape"),
    ("layer_norm", {"input": X, "normalized_shape": (5, 2, 4, 3)}, ValueError, "normalized_shape"),
    ("layer_norm", {"input": X, "normalized_shape": (4, 3), "weight": np.ones(3)}, ValueError, "weight"),
    ("layer_norm", {"input": X, "normalized_shape": (3,), "eps": "1"}, TypeError, "eps"),
    ("rms_norm", {"input": X, "normalized_shape": (2,)}, ValueError, "normalized_shape"),
    ("rms_norm", {"input": X, "normalized_shape": (3,), "weight": np.ones(4)}, ValueError, "weight"),
    ("local_response_norm", {"input": np.zeros((2, 3)), "size": 2}, ValueError, "input"),
    ("local_response_norm", {"input": X, "size": 0}, ValueError, "size"),
    ("local_response_norm", {"input": X, "size": 2, "alpha": None}, TypeError, "alpha"),
    ("normalize", {"input": X, "dim": 3}, IndexError, "dim"),
    ("normalize", {"input": X, "dim": -4}, ValueError, "dim"),
    ("normalize", {"input": X, "dim": (0, 0)}, ValueError, "dim"),
    ("normalize", {"input": X, "p": "2"}, TypeError, "p"),
    ("normalize", {"input": X, "out": np.full((2, 4), 7.0)}, ValueError, "out"),
    ("normalize_backward", {"grad_output": X[:1], "input": X}, ValueError, "grad_output"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "argument"), WRONG)
def test_wrong_arguments(op, arguments, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**arguments)
    assert re.match(rf"{op}: {argument}\b", str(caught.value)), caught.value
    assert (arguments.get("out", np.full(1, 7)) == 7).all()
    assert (RUNNING["running_mean"] == 0).all()


def test_the_reference_of_instances():
    """The harness compares with it; here it is compared with a loop."""
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    for n in range(2):
        for c in range(3):
            expected = (x[n, c] - x[n, c].mean()) / np.sqrt(x[n, c].var() + 1e-5)
            np.testing.assert_allclose(instance_norm(x)[n, c], expected, rtol=1e-12)
