"""A Variable behaves as the array that it stands for, and says clearly where it does not."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

from fastops import check_grad, grad, vjp
from fastops.autodiff import Variable, primitive, rule
from fastops.autodiff.variable import RULES, _handlers

X = np.arange(6.0).reshape(2, 3) / 4 + 0.3


def inside(function, *primals):
    """What ``function`` does with variables."""
    return vjp(function, *(primals or (X,)))[0]


BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod, operator.floordiv]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
OTHERS = [2.0, 2, np.float64(2), np.full(3, 2.0), np.full((2, 1), 2, np.int64), np.full((2, 1), 2.0, np.float32)]


class TestOperators:
    @pytest.mark.parametrize("function", BINARY + COMPARISONS, ids=lambda f: f.__name__)
    @pytest.mark.parametrize("other", OTHERS, ids=lambda o: type(o).__name__ + str(np.shape(o)))
    def test_with_other_types_on_either_side(self, function, other):
        np.testing.assert_array_equal(inside(lambda x: function(x, other)), function(X, other))
        np.testing.assert_array_equal(inside(lambda x: function(other, x)), function(other, X))
        both = inside(lambda x, y: function(x, y), X, X[0])
        np.testing.assert_array_equal(both, function(X, X[0]))

    @pytest.mark.parametrize("function", BINARY[:6], ids=lambda f: f.__name__)
    def test_their_gradients(self, function):
        check_grad(lambda x: function(x, np.array([2.0, 3.0, 0.7])), X)
        check_grad(lambda x: function(np.array([2.03, 3.01, 0.7]), x), X)
        check_grad(function, X, X[0] + 1)

    def test_an_array_on_the_left_goes_to_the_variable(self):
        def function(x):
            results = [np.ones((2, 3)) + x, np.float64(2) * x, np.float32(2) / x, np.ones((2, 2)) @ x, np.ones(3) ** x, 1 - x]
            assert all(isinstance(r, Variable) for r in results)
            return x

        inside(function)

    def test_unary(self):
        np.testing.assert_array_equal(inside(lambda x: abs(-x) + (+x)), 2 * X)

    def test_matmul_on_both_sides(self):
        check_grad(lambda x: x @ np.ones((3, 2)), X)
        check_grad(lambda x: np.ones((3, 2)) @ x, X)

    def test_in_place_operators_give_the_name_to_a_new_value(self):
        def function(x):
            y = x
            y += 1
            y *= 2
            y -= x
            y /= 3
            y **= 2
            assert y is not x
            return y

        y, pullback = vjp(function, X)
        np.testing.assert_allclose(y, (X + 2) ** 2 / 9)
        np.testing.assert_allclose(pullback(np.ones((2, 3)))[0], (X + 2) * 2 / 9)

    def test_in_place_operators_of_arrays_are_refused(self):
        total = np.zeros((2, 3))

        def function(x):
            nonlocal total
            total += x

        with pytest.raises(TypeError, match="add: out must be left out"):
            inside(function)
        assert not total.any()


METHODS = [
    *(lambda x, n=n: getattr(x, n)() for n in ("sum", "mean", "max", "min", "prod", "var", "std", "ravel", "flatten", "transpose", "copy", "cumsum")),
    *(lambda x, n=n: getattr(x, n)(axis=-1, keepdims=True) for n in ("sum", "mean", "max", "min", "prod", "var", "std")),
    *(lambda x, n=n: getattr(x, n)(0) for n in ("sum", "mean", "max", "min", "prod", "var", "std")),
    lambda x: x.var(ddof=1),
    lambda x: x.reshape(3, 2),
    lambda x: x.reshape((3, -1)),
    lambda x: x.reshape(-1, order="F"),
    lambda x: x.transpose(1, 0),
    lambda x: x.transpose((1, 0)),
    lambda x: x[None].squeeze(0),
    lambda x: x.swapaxes(0, 1),
    lambda x: x.clip(0.5, 1.0),
    lambda x: x.clip(max=1.0),
    lambda x: x.dot(np.ones(3)),
    lambda x: x.repeat(2, axis=1),
    lambda x: x.take([0, 2], axis=1),
    lambda x: x.diagonal(),
    lambda x: x.trace(),
    lambda x: x.astype(np.float32).astype(np.float64),
    lambda x: sum(row @ row for row in x),
    lambda x: x[:, ::2] * x[..., 1:2],
    lambda x: x.sum(dtype=np.float64),
]  # fmt: skip


class TestAttributesAndMethods:
    def test_attributes(self):
        def function(x):
            assert (x.shape, x.ndim, x.size, x.dtype, x.nbytes, x.itemsize, len(x)) == ((2, 3), 2, 6, np.float64, 48, 8, 2)
            assert x.T.shape == x.mT.shape == (3, 2)
            assert np.shape(x) == (2, 3)
            assert np.ndim(x) == 2
            assert repr(x[0, 0]) == "Variable(np.float64(0.3))"
            return x

        inside(function)

    @pytest.mark.parametrize("method", METHODS)
    def test_methods(self, method):
        np.testing.assert_allclose(inside(method), method(X), rtol=1e-15)

    @pytest.mark.parametrize("method", [m for m in METHODS if "float32" not in str(m.__code__.co_names)])
    def test_gradients_of_methods(self, method):
        check_grad(method, X)

    def test_methods_without_gradient_give_plain_arrays(self):
        def function(x):
            for found, expected in [
                (x.argmax(), X.argmax()), (x.argmin(0), X.argmin(0)), (x.argsort(), X.argsort()), (x.any(), X.any()),
                (x.all(axis=1), X.all(axis=1)), (x.nonzero(), X.nonzero()), (x.astype(int), X.astype(int)), (x > 1, X > 1),
            ]:  # fmt: skip
                np.testing.assert_array_equal(found, expected)
            return x

        inside(function)

    def test_casts(self):
        y, pullback = vjp(lambda x: x.astype(np.float32), X)
        assert y.dtype == np.float32
        assert pullback(np.ones((2, 3), np.float32))[0].dtype == np.float64
        assert inside(lambda x: x if x.astype("f8") is x else None) is not None

    def test_control_flow(self):
        assert grad(lambda x: x * 2 if x > 1 else x * 3)(2.0) == 2
        assert grad(lambda x: x if (x * 0 + 1) else x * 2)(2.0) == 1
        assert grad(lambda x: sum(v for v in x))(np.ones(3)).tolist() == [1, 1, 1]

        def newton(a):
            x = a
            while abs(x * x - a) > 1e-12:
                x = 0.5 * (x + a / x)
            return x

        np.testing.assert_allclose(grad(newton)(2.0), 0.5 / np.sqrt(2.0))

    def test_unpacking(self):
        def function(x):
            a, b = x
            (c, *_rest) = b
            return a.sum() * c

        check_grad(function, X)

    def test_value_is_read_only_and_stops_gradients(self):
        def function(x):
            with pytest.raises(ValueError, match="read-only"):
                x.value[0] = 1
            return (x * x.value).sum()

        np.testing.assert_array_equal(grad(function)(X), X)
        assert X.flags.writeable


class TestRefusals:
    @pytest.mark.parametrize(
        "function, message",
        [
            (np.linalg.svd, r"linalg\.svd has no gradient rule"),
            (lambda x: np.interp(x, [0.0, 1.0], [0.0, 1.0]), r"interp has no gradient rule"),
            (np.gamma if hasattr(np, "gamma") else np.i0, "has no gradient rule"),
            (lambda x: np.add.reduce(x), r"add\.reduce is not supported"),
            (lambda x: np.add.outer(x, x), r"add\.outer is not supported"),
            (lambda x: np.sum(x, where=X > 1), "sum: argument 'where'"),
            (lambda x: np.sum(x, initial=1.0), "sum: argument 'initial'"),
            (lambda x: np.concatenate([x, x], dtype=np.float32), "concatenate: argument 'dtype'"),
            (lambda x: np.exp(x, out=np.zeros((2, 3))), "exp: out must be left out"),
            (lambda x: np.sum(x, 0, None, np.zeros(3)), "sum: out must be left out"),
            (lambda x: x.sum(out=np.zeros(())), "sum: out must be left out"),
            (lambda x: np.concatenate([x, x], out=np.zeros((4, 3))), "concatenate: out must be left out"),
            (lambda x: np.exp(x, dtype=np.float32), "exp: argument 'dtype'"),
            (lambda x: operator.setitem(x, 0, 1.0), r"np\.where"),
            (lambda x: operator.setitem(np.zeros((2, 3)), slice(None), x), "cannot become a plain array"),
            (np.asarray, "cannot become a plain array"),
            (lambda x: np.array([x[0], x[1]]), r"np\.stack"),
            (lambda x: float(x[0, 0]), "would lose its gradient"),
            (lambda x: int(x[0, 0]), "would lose its gradient"),
            (lambda x: complex(x[0, 0]), "complex"),
            (lambda x: x * 1j, "multiply: the result must be of floating-point numbers"),
            (lambda x: x.sort(), r"ndarray\.sort is not supported"),
            (lambda x: x.fill(0), r"ndarray\.fill is not supported"),
            (lambda x: x.item(), r"ndarray\.item is not supported"),
            (lambda x: np.reshape(x, -1, order="A"), "order must be 'C' or 'F'"),
            (lambda x: np.pad(x, 1, mode="mean"), "mode 'mean' is not supported"),
            (lambda x: np.linalg.norm(x, ord="nuc"), "ord='nuc' of a matrix is not supported"),
            (lambda x: np.einsum(x, [0, 1], [0]), "einsum"),
            (lambda x: np.take(x, 0, mode="clip"), "take: argument 'mode'"),
            (pickle.dumps, "cannot be pickled"),
            (copy.deepcopy, "cannot be pickled or copied"),
            (hash, "unhashable"),
        ],
    )  # fmt: skip
    def test_what_is_not_supported_is_a_type_error_that_names_it(self, function, message):
        with pytest.raises(TypeError, match=message):
            inside(function)

    def test_assigning_to_an_element_of_an_array(self):
        with pytest.raises(ValueError) as caught:  # NumPy's, over the reason
            inside(lambda x: operator.setitem(np.zeros(3), 0, x[0, 0]))
        assert "would lose its gradient" in str(caught.value.__cause__)

    def test_an_unknown_attribute_is_an_attribute_error(self):
        def function(x):
            assert not hasattr(x, "colour")
            assert not hasattr(x, "sort")
            with pytest.raises(AttributeError, match="colour"):
                x.colour  # noqa: B018
            return x

        inside(function)

    def test_a_mistake_in_an_index(self):
        with pytest.raises(IndexError):
            inside(lambda x: x[5])

    def test_arguments_by_name(self):
        check_grad(lambda x: np.mean(a=x, axis=1) + np.sum(axis=1, a=x), X)
        check_grad(lambda x: np.clip(X, a_min=x, a_max=2.0), X - 0.1)


class TestExtending:
    def test_a_rule_for_a_function_that_has_none(self):
        assert np.i0 not in _handlers
        try:

            @rule(np.i0)
            def _(x):
                def pull(g):
                    step = 1e-5  # good enough for this test
                    return g * (np.i0(x + step) - np.i0(x - step)) / (2 * step)

                return np.i0(x), pull

            check_grad(lambda x: np.i0(x), X, rtol=1e-5)
        finally:
            _handlers.pop(np.i0, None)
            RULES.pop(np.i0, None)

    def test_a_primitive(self):
        @primitive
        def scaled(x, y, power=2):
            return x * y**power, lambda g: g * y**power, lambda g: g * x * power * y ** (power - 1)

        assert scaled(2.0, 3.0) == 18.0
        check_grad(scaled, X, X[0])
        check_grad(lambda x: scaled(x, y=X, power=3), X)
        check_grad(lambda x, y: vjp(scaled, x, y)[1](X), X, X)
        check_grad(lambda y: scaled(X, y=y), X)
