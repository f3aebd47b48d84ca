"""Every registered operation with a gradient, through the tape: what it records, keeps and saves must be enough."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import fastops
from fastops import _op, check_grad, vjp
from fastops.autodiff.operations import stand_in
from tests import cases
from tests.harness import Row, apart, assert_same_bits, in_a_row

ROWS: list[Row] = [
    row for module in pkgutil.iter_modules(cases.__path__) for row in getattr(importlib.import_module(f"{cases.__name__}.{module.name}"), "ROWS", ())
]


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


# The gradient of ctc_loss is, as PyTorch's, for log-probabilities that stay normalised.
FIRST = {"ctc_loss": log_softmax}


def differentiable(row: Row) -> tuple:
    """The operation as a function of its inputs, these inputs, and their names; results without gradient are left out."""
    arguments = row.arguments()
    inputs = [name for name in arguments if name.partition(".")[0] in _op.get(getattr(fastops, row.op)).inputs and arguments[name] is not None]

    def floats(result):
        if isinstance(result, tuple):
            return tuple(kept for one in result if (kept := floats(one)) is not None)
        return result if result.dtype.kind == "f" else None

    def function(*values):
        return floats(getattr(fastops, row.op)(**row.together({**arguments, **dict(zip(inputs, values))})))

    return function, [arguments[name] for name in inputs], inputs


def with_gradient(row: Row) -> bool:
    getattr(fastops, row.op)
    return _op.get(getattr(fastops, row.op)).backward is not None


GRADIENT_ROWS = [row for row in ROWS if with_gradient(row)]
FIRST_ROWS = list({row.op: row for row in reversed(GRADIENT_ROWS)}.values())


@pytest.mark.parametrize("row", GRADIENT_ROWS, ids=str)
def test_the_tape_gives_what_the_backward_function_gives(row):
    if not row.has_gradient:
        pytest.skip("a fused activation")
    function, values, inputs = differentiable(row)
    y, pullback = vjp(function, *values)
    flat = np.random.default_rng(3).standard_normal(in_a_row(y).size)
    output = row.forward(row.arguments())
    assert_same_bits(in_a_row(y), output)
    cotangent = apart(flat, y) if isinstance(y, tuple) else flat.reshape(y.shape)
    expected = row.backward(flat if isinstance(y, tuple) else flat.reshape(output.shape), row.arguments())
    for name, found in zip(inputs, pullback(cotangent)):
        assert_same_bits(found, expected[name])


@pytest.mark.parametrize("row", FIRST_ROWS, ids=str)
def test_gradients_of_some_inputs_alone(row):
    """output_mask reaches the backward function, and constants are taken as they are."""
    function, values, inputs = differentiable(row)
    cotangent = None
    alone = []
    for at in range(len(inputs)):
        y, pullback = vjp(lambda x, at=at: function(*values[:at], x, *values[at + 1 :]), values[at])
        cotangent = tuple(np.cos(part) for part in y) if isinstance(y, tuple) and not isinstance(y[-1], tuple) else None
        if not isinstance(y, tuple):
            cotangent = np.cos(y)
        alone.append(pullback(cotangent)[0])
    together = vjp(function, *values)[1](cotangent)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("row", FIRST_ROWS, ids=str)
def test_gradient_by_differences(row):
    function, values, _ = differentiable(row)
    first = FIRST.get(row.op, lambda x: x)
    check_grad(lambda *xs: function(*map(first, xs)), *values, rtol=1e-5)


def test_fused_activations_come_apart():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 6, 6)), rng.standard_normal((3, 2, 3, 3))
    check_grad(lambda x, w: fastops.conv2d(x, w, activation="tanh"), x, w)
    check_grad(lambda x, w: fastops.conv2d(x, w, activation="silu"), x, w)


def test_operations_without_gradient_see_plain_values(monkeypatch):
    @_op.operation
    def choose(input, axis):
        assert type(input) is np.ndarray
        return input.argmax(axis)

    monkeypatch.setitem(_op._registry, "choose", _op.Op("choose", choose, None, (), ()))

    def function(x):
        best = choose(x, axis=1)
        assert type(best) is np.ndarray
        return x[:, best].sum()

    np.testing.assert_array_equal(fastops.grad(function)(np.array([[0.0, 1.0], [0.0, 2.0]])), [[0, 2], [0, 2]])


def test_operations_made_of_others_are_recorded_in_their_parts():
    @_op.operation
    def block(x, *, slope):
        return fastops.relu(x * slope)

    np.testing.assert_array_equal(fastops.grad(lambda x: block(x, slope=3.0).sum())(np.array([-1.0, 1.0])), [0, 3])


def test_a_value_where_no_gradient_goes_is_refused():
    x = np.ones((1, 1, 4, 4))
    with pytest.raises(TypeError, match="batch_norm has no gradient with respect to running_mean"):
        fastops.grad(lambda m: fastops.batch_norm(x, m, np.ones(1)).sum())(np.zeros(1))


def test_stand_ins_have_no_memory():
    one = stand_in((1000, 0, 1000), np.dtype("f4"))
    other = stand_in((10**5, 10**5), np.dtype("f8"))
    assert (one.shape, one.dtype, other.shape, other.dtype) == ((1000, 0, 1000), np.float32, (10**5, 10**5), np.float64)
    assert not other.flags.writeable


def test_functions_that_take_functions_are_followed_through_them():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    edges = np.array([[0, 1, 2, 2], [1, 2, 3, 0]])
    check_grad(lambda x, w: fastops.gin_conv(x, edges, lambda h: fastops.tanh(fastops.linear(h, w)), eps=0.5), x, w)

    def distance(a, b):
        return np.sqrt(((a - b) ** 2).sum(axis=-1) + 1)

    def loss(*triplet):
        return fastops.triplet_margin_with_distance_loss(*triplet, distance_function=distance, swap=True)

    check_grad(loss, *rng.standard_normal((3, 4, 3)))
