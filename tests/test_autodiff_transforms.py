"""vjp, grad, value_and_grad, check_grad and checkpoint: what they promise, and what they refuse."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc
import weakref
from typing import NamedTuple

import numpy as np
import pytest

import fastops
from fastops import _op, check_grad, checkpoint, conv2d, fold, grad, unfold, value_and_grad, vjp
from fastops.autodiff import Variable, primitive
from fastops.autodiff.operations import record


def image(seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((1, 2, 5, 5)).astype(dtype)


W = np.random.default_rng(1).standard_normal((3, 2, 3, 3))


class Layer(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray | None


class TestStructures:
    def test_nested_containers(self):
        params = {"first": Layer(np.ones((2, 3)), None), "rest": [np.full(3, 2.0), (np.array(3.0), 4.0)]}

        def fn(p, x):
            first, (scale, (shift, factor)) = p["first"], p["rest"]
            assert first.bias is None
            return {"y": (x @ first.weight * scale + shift) * factor, "sums": [scale.sum(), None]}

        y, pullback = vjp(fn, params, np.ones((1, 2)))
        assert y["sums"][1] is None
        (found, dx) = pullback({"y": np.ones((1, 3)), "sums": [10.0, None]})
        assert isinstance(found["first"], Layer)
        assert found["first"].bias is None
        np.testing.assert_array_equal(found["first"].weight, np.full((2, 3), 8.0))
        np.testing.assert_array_equal(found["rest"][0], [18, 18, 18])
        assert found["rest"][1] == (12.0, 21.0)
        assert isinstance(found["rest"][1], tuple)
        assert isinstance(found["rest"][1][0], np.ndarray)
        assert isinstance(found["rest"][1][1], np.float64)
        np.testing.assert_array_equal(dx, [[24, 24]])

    def test_none_in_the_cotangent_is_zeros(self):
        y, pullback = vjp(lambda x: (2 * x, 3 * x), np.ones(2))
        assert isinstance(y, tuple)
        np.testing.assert_array_equal(pullback((None, np.ones(2)))[0], [3, 3])
        np.testing.assert_array_equal(vjp(lambda x: (2 * x, 3 * x), np.ones(2))[1](None)[0], [0, 0])

    def test_a_result_twice(self):
        def twice(x):
            y = x * x
            return y, y

        np.testing.assert_array_equal(vjp(twice, np.array([3.0]))[1]((np.array([1.0]), np.array([10.0])))[0], [66])

    @pytest.mark.parametrize(
        "cotangent, message",
        [
            ({"a": np.ones(2)}, "keys 'a', 'b'"),
            ([np.ones(2)], "dict with the keys"),
            ({"a": np.ones(3), "b": None}, r"cotangent\['a'\] must have the shape of the result, \(2,\), got \(3,\)"),
            ({"a": np.ones(2, complex), "b": None}, r"cotangent\['a'\] must be an array of floating-point"),
        ],
    )
    def test_a_wrong_cotangent(self, cotangent, message):
        pullback = vjp(lambda x: {"a": x, "b": x}, np.ones(2))[1]
        with pytest.raises((TypeError, ValueError), match=message):
            pullback(cotangent)

    def test_a_wrong_number_of_cotangents(self):
        with pytest.raises(ValueError, match="2 entries, got 1"):
            vjp(lambda x: (x, x), 1.0)[1]((1.0,))
        with pytest.raises(TypeError, match="tuple of 2"):
            vjp(lambda x: (x, x), 1.0)[1](1.0)

    @pytest.mark.parametrize(
        "primals, named",
        [
            ((np.ones(2), np.ones(2, int)), r"primals\[1\]"),
            (({"step": 3},), r"primals\[0\]\['step'\]"),
            (([np.ones(2), True],), r"primals\[0\]\[1\]"),
            ((np.ones(2, complex),), r"primals\[0\]"),
            (("name",), r"primals\[0\]"),
            ((object(),), r"primals\[0\]"),
        ],
    )
    def test_primals_of_other_types_are_refused_by_name(self, primals, named):
        with pytest.raises(TypeError, match=f"vjp: {named} must be an array of floating-point numbers"):
            vjp(lambda *p: 1.0, *primals)


class TestValues:
    def test_a_primal_that_does_not_matter_gets_zeros(self):
        found = vjp(lambda x, y: x.sum(), np.ones((2, 2)), {"y": np.ones(3, np.float32), "z": 2.0})[1](1.0)
        np.testing.assert_array_equal(found[1]["y"], np.zeros(3, np.float32))
        assert found[1]["y"].dtype == np.float32
        assert found[1]["z"] == 0.0

    def test_a_constant_function(self):
        np.testing.assert_array_equal(grad(lambda x: 3.0)(np.ones(2)), [0, 0])

    def test_shared_subexpressions(self):
        def fn(x):
            y = x * x
            z = y + y
            return (z * y).sum()  # 2 x^4

        np.testing.assert_allclose(grad(fn)(np.array([1.0, 2.0])), [8, 64])

    def test_a_diamond_is_walked_once(self):
        calls = []

        @primitive
        def counted(x):
            return x * 2, lambda g: calls.append(1) or g * 2

        def fn(x):
            for _ in range(30):  # 2**30 paths
                x = counted(x)
                x = x * 0.25 + x * 0.25
            return x

        assert grad(fn)(1.0) == 1.0
        assert len(calls) == 30

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_dtypes_stay(self, dtype):
        def fn(x, w):
            y = conv2d(x, w, padding=1) * 2.0 + 1
            y = np.maximum(y, 0.0) / 3 - 0.5 * y**2
            y = np.where(y > 0, y, 0.1)
            return (y.mean(axis=(2, 3)) * np.float64(0.5)).astype(dtype).sum()

        y, pullback = vjp(fn, image(dtype=dtype), W.astype(dtype))
        assert y.dtype == dtype
        assert [g.dtype for g in pullback(1.0)] == [dtype, dtype]

    def test_a_float64_constant_does_not_widen_the_gradient(self):
        x = np.ones(3, np.float32)
        assert grad(lambda x: (x * np.arange(3.0)).sum())(x).dtype == np.float32

    def test_gradients_of_numbers(self):
        found = grad(lambda x: x * x)(3.0)
        assert found == 6
        assert type(found) is np.float64
        assert type(grad(lambda x: x * x)(np.float32(3))) is np.float32

    def test_aux(self):
        def fn(x, scale=1.0):
            y = x * scale
            return y.sum(), {"y": y, "name": "aux"}

        g, aux = grad(fn, has_aux=True)(np.ones(2), scale=3.0)
        np.testing.assert_array_equal(g, [3, 3])
        assert type(aux["y"]) is np.ndarray
        assert aux["name"] == "aux"
        (y, aux), g = value_and_grad(fn, has_aux=True)(np.ones(2))
        assert y == 2
        with pytest.raises(TypeError, match="pair"):
            grad(lambda x: x, has_aux=True)(1.0)

    def test_argnums(self):
        fn = lambda x, y, z: x * y * z  # noqa: E731
        assert grad(fn, argnums=1)(2.0, 3.0, 5) == 10
        assert grad(fn, argnums=(2, 0))(2.0, 3.0, 5.0) == (6, 15)
        assert value_and_grad(fn, argnums=-1)(2.0, 3.0, 5.0) == (30, 6)
        assert grad(fn, argnums=(0,))(2.0, 3.0, 5.0) == (15,)
        with pytest.raises(ValueError, match="argnums must be among the 1"):
            grad(fn, argnums=1)(2.0)
        with pytest.raises(TypeError, match="argnums"):
            grad(fn, argnums="x")
        with pytest.raises(TypeError, match="argnums must be an integer or several different ones, got True"):
            grad(fn, argnums=True)
        with pytest.raises(TypeError, match="argnums"):
            grad(fn, argnums=(0, 0))

    @pytest.mark.parametrize("result", [np.ones(1), (1.0, 2.0), None, {"a": 1.0}])
    def test_grad_needs_a_scalar(self, result):
        with pytest.raises(ValueError, match="grad: fn must return a scalar"):
            grad(lambda x: result)(1.0)

    def test_grad_of_an_array_names_its_shape(self):
        with pytest.raises(ValueError, match=r"shape \(2,\)"):
            grad(lambda x: x)(np.ones(2))

    def test_not_a_function(self):
        with pytest.raises(TypeError, match="vjp: fn must be a function"):
            vjp(1.0, 1.0)
        with pytest.raises(TypeError, match="grad: fn must be a function"):
            grad(1.0)


class TestMemory:
    def test_gradients_are_not_shared(self):
        cotangent = np.ones((2, 3))
        x, y = np.ones((2, 3)), np.ones((3, 2))
        found = vjp(lambda x, y, z: (x + y.T) + z, x, y, np.ones(3))[1](cotangent)
        found += vjp(lambda x: x, x)[1](cotangent)
        for i, g in enumerate(found):
            assert g.flags.writeable
            assert not np.shares_memory(g, cotangent)
            assert not any(np.shares_memory(g, other) for other in found[:i])

    def test_the_gradient_of_a_sum_can_be_written_to(self):
        g = grad(lambda x: x.sum())(np.ones((100, 100)))
        g[0, 0] = 5
        assert g.sum() == 10_004

    def test_accumulating_leaves_other_arrays_alone(self):
        cotangent = np.ones(3)
        w = np.array([2.0, 3.0, 4.0])

        def fn(x):
            return x + x + x + x * w + x[::-1] + x

        before = w.copy()
        np.testing.assert_array_equal(vjp(fn, np.ones(3))[1](cotangent)[0], [7, 8, 9])
        np.testing.assert_array_equal(cotangent, np.ones(3))
        np.testing.assert_array_equal(w, before)

    def test_a_pullback_runs_once_unless_it_is_kept(self):
        _, pullback = vjp(lambda x: np.exp(x) * x, np.array([1.0, 2.0]))
        first = pullback(np.ones(2), keep=True)
        second = pullback(np.ones(2), keep=True)
        third = pullback(np.ones(2))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
        with pytest.raises(ValueError, match="called before"):
            pullback(np.ones(2))

    def test_rows_of_the_jacobian(self):
        a = np.arange(6.0).reshape(2, 3)
        _, pullback = vjp(lambda x: a @ x, np.ones(3))
        np.testing.assert_array_equal([pullback(row, keep=True)[0] for row in np.eye(2)], a)

    def test_saved_values_are_freed_as_the_pullback_goes(self):
        alive = []

        @primitive
        def step(x):
            saved = np.full(1000, 2.0)
            alive.append(weakref.ref(saved))
            return x * 2, lambda g: seen.append(sum(r() is not None for r in alive)) or g * saved[0]

        seen: list[int] = []
        _, pullback = vjp(lambda x: step(step(step(step(x)))), 1.0)
        assert sum(r() is not None for r in alive) == 4
        assert pullback(1.0) == (16.0,)
        assert seen == [4, 3, 2, 1]
        assert all(r() is None for r in alive)

    def test_what_nobody_needs_is_freed_during_the_forward_pass(self):
        refs = []

        def fn(x):
            y = x
            for _ in range(5):
                unused = np.exp(y)
                refs.append(weakref.ref(unused._value))
            del unused
            assert all(r() is None for r in refs)
            return y.sum()

        grad(fn)(np.ones(1000))

    def test_arguments_without_meaning_for_the_gradient_are_not_kept(self):
        kept = []

        def fn(x):
            columns = unfold(x * 1.0, 3)  # its gradient needs the shape of its input only
            y = fold(columns, (200, 200), 3)
            kept.extend(weakref.ref(v._value) for v in (columns, y))
            return y.sum()

        _, pullback = vjp(fn, np.ones((1, 1, 200, 200)))
        assert [r() for r in kept] == [None, None]
        pullback(1.0)

    def test_a_bias_is_not_kept(self):
        x, w = image(), W
        bias = np.zeros(3) + 0.5
        ref = weakref.ref(bias)
        _, pullback = vjp(lambda w, b: conv2d(x, w, b), w, bias)
        del bias
        gc.collect()
        assert ref() is None
        assert pullback(np.ones((1, 3, 3, 3)))[1].shape == (3,)

    def test_a_loop_over_rows_is_linear(self):
        x = np.ones((2000, 500))

        def fn(x):
            total = 0.0
            for i in range(len(x)):
                total = total + x[i, 0]
            return total

        _, pullback = vjp(fn, x)
        tracemalloc.start()
        (g,) = pullback(1.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * x.nbytes
        assert g.sum() == 2000

    def test_checkpoints_keep_their_arguments_alone(self):
        x = np.ones(100_000)

        def deep(x):
            for _ in range(10):
                x = np.exp(-x)
            return x

        def memory(fn):
            tracemalloc.start()
            _, pullback = vjp(fn, x)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            return held, pullback(x)[0]

        (much, expected), (little, found) = memory(deep), memory(checkpoint(deep))
        assert much > 9 * x.nbytes
        assert little < 2.2 * x.nbytes
        np.testing.assert_array_equal(found, expected)


class TestChangesInPlace:
    """An array that the gradient needs and somebody wrote into: an error that names the operation."""

    def test_a_primal(self):
        x = np.ones(3)
        _, pullback = vjp(lambda x: x * x, x)
        x[1] = 5
        with pytest.raises(ValueError, match="gradient of multiply: an array whose values the gradient needs was changed in place"):
            pullback(np.ones(3))

    def test_a_constant_inside_the_function(self):
        buffer = np.ones(3)

        def fn(x):
            y = x * buffer
            buffer[:] = 2
            return (y * buffer).sum()

        with pytest.raises(ValueError, match="changed in place"):
            grad(fn)(np.ones(3))

    def test_a_constant_of_an_operation(self):
        x = image()
        _, pullback = vjp(lambda w: conv2d(x, w), W)
        x *= 2
        with pytest.raises(ValueError, match=r"gradient of conv2d: an array .* changed in place"):
            pullback(np.ones((1, 3, 3, 3)))

    def test_through_a_view(self):
        x = np.ones((4, 3))
        _, pullback = vjp(lambda x: x.T @ x, x)
        x.reshape(-1)[5] = 7
        with pytest.raises(ValueError, match="gradient of matmul"):
            pullback(np.ones((3, 3)))

    def test_a_result(self):
        y, pullback = vjp(np.exp, np.ones(3))
        y += 1
        with pytest.raises(ValueError, match="gradient of exp"):
            pullback(np.ones(3))

    @pytest.mark.parametrize("op, gates", [("lstm", 4), ("gru", 3), ("rnn", 1)])
    def test_a_result_among_what_an_operation_keeps(self, op, gates):
        weights = [np.ones((gates, 2)), np.ones((gates, 1)), np.ones(gates), np.ones(gates)]
        y, pullback = vjp(lambda x, *weights: getattr(fastops, op)(x, None, list(weights))[0], np.ones((3, 2, 2)), *weights)
        y *= 2
        with pytest.raises(ValueError, match=f"gradient of {op}: .* changed in place"):
            pullback(y)

    def test_a_large_array(self):
        x = np.ones((300, 300))
        for change in (lambda: np.multiply(x, 2, out=x), lambda: x.__setitem__((-1, -1), 3), lambda: x.__setitem__(slice(100, 130), 0)):
            x[...] = 1
            _, pullback = vjp(lambda x: x * x, x)
            change()
            with pytest.raises(ValueError, match="changed in place"):
                pullback(x)

    def test_what_the_gradient_does_not_need_may_change(self):
        x, c = np.ones(3), np.zeros(3)

        def fn(x):
            for i in range(3):
                c[:] = i
                x = x + c
            return x

        y, pullback = vjp(fn, x)
        x *= 2
        y -= 1
        np.testing.assert_array_equal(pullback(np.ones(3))[0], np.ones(3))

    def test_arrays_are_writeable_throughout(self):
        x = np.ones(3)
        with pytest.raises(ZeroDivisionError):
            vjp(lambda x: x * x / (1 // 0), x)
        assert x.flags.writeable
        vjp(lambda v: v * x, x)
        x[0] = 2

    def test_running_statistics_may_change(self):
        mean, var = np.zeros(2), np.ones(2)

        def fn(x):
            return fastops.batch_norm(fastops.batch_norm(x, mean, var, training=True) * 2, mean, var, training=True).sum()

        grad(fn)(image())
        assert mean.any() or (var != 1).any()

    @pytest.mark.parametrize("extra", [{"inplace": True}, {"out": np.zeros(3)}])
    def test_operations_that_would_write_are_refused(self, extra):
        with pytest.raises(TypeError, match=f"relu: {next(iter(extra))} must be left out"):
            grad(lambda x: fastops.relu(x, **extra).sum())(np.ones(3))
        with pytest.raises(TypeError, match="relu: inplace"):
            grad(lambda x: fastops.relu(x, True).sum())(np.ones(3))


class TestDepth:
    def test_a_chain_of_ten_thousand(self):
        def fn(x):
            for _ in range(10_000):
                x = x * 1.0001 + 0.0
            return x.sum()

        _, pullback = vjp(fn, np.ones(2))
        np.testing.assert_allclose(pullback(1.0)[0], 1.0001**10_000)

    def test_a_chain_that_is_thrown_away(self):
        def fn(x):
            for _ in range(100_000):
                x = x + 1.0
            return x

        _, pullback = vjp(fn, 1.0)
        del pullback
        with pytest.raises(TypeError, match="float"):
            vjp(lambda x: float(fn(x)), 1.0)

    def test_a_chain_of_operations(self):
        def fn(x):
            for _ in range(10_000):
                x = fastops.relu(x)
            return x.sum()

        np.testing.assert_array_equal(grad(fn)(np.array([1.0, -1.0])), [1, 0])


class TestErrors:
    def test_errors_of_the_backward_pass_name_the_operation(self):
        @primitive
        def broken(x):
            def pull(g):
                raise KeyError("lost")

            return x * 1, pull

        with pytest.raises(KeyError, match="gradient of broken: lost"):
            grad(lambda x: broken(x * 2) * 3)(1.0)

    def test_errors_with_other_arguments_too(self):
        @primitive
        def broken(x):
            def pull(g):
                raise UnicodeDecodeError("utf-8", b"x", 0, 1, "odd")

            return x * 1, pull

        with pytest.raises(RuntimeError, match="gradient of broken: UnicodeDecodeError") as caught:
            grad(broken)(1.0)
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)

    def test_errors_of_an_operation_name_it(self, monkeypatch):
        def backward(grad_output, input, output_mask=None):
            raise MemoryError("no room")

        from fastops.autodiff import operations

        grad(lambda x: fastops.relu(x).sum())(np.ones(2))
        plan = next(p for p in operations._plans.values() if p.name == "relu")
        monkeypatch.setattr(plan, "backward", lambda g, **call: backward(g, None))
        with pytest.raises(MemoryError, match="gradient of relu: no room"):
            grad(lambda x: fastops.relu(x).sum())(np.ones(2))

    def test_operations_are_followed_only_while_a_function_runs(self):
        assert _op._following.recorder is None
        with pytest.raises(ZeroDivisionError):
            grad(lambda x: x / (1 // 0))(1.0)
        assert _op._following.recorder is None
        vjp(lambda x: [x, _op._following.recorder is record or 1 / 0][0], 1.0)
        assert _op._following.recorder is None

    def test_wrong_arguments_of_an_operation(self):
        with pytest.raises(TypeError, match="unexpected keyword"):
            grad(lambda x: conv2d(x, W, colour="red").sum())(image())
        with pytest.raises(TypeError, match="positional argument"):
            grad(lambda x: unfold(x, 1, 1, 0, 1, 5).sum())(image())
        with pytest.raises(ValueError, match="conv2d: weight"):
            grad(lambda x: conv2d(x, np.ones((1, 5, 1, 1))).sum())(image())

    def test_a_value_that_outlives_its_function(self):
        kept = []
        grad(lambda x: kept.append(x * 2) or x)(1.0)
        for use in (lambda: kept[0] + 1, lambda: np.exp(kept[0]), lambda: grad(lambda x: x * kept[0])(1.0)):
            with pytest.raises(ValueError, match="kept from a function"):
                use()
        with pytest.raises(TypeError, match="Variable"):
            fastops.relu(kept[0])
        assert float(kept[0].value) == 2.0


class TestNesting:
    def test_higher_derivatives(self):
        f = np.sin
        for expected in (np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)):
            f = grad(f)
            np.testing.assert_allclose(f(0.7), expected, rtol=1e-12)

    def test_perturbations_are_not_confused(self):
        # Siskind, Pearlmutter, "Perturbation confusion and referential transparency" (2005): d/dx (x d/dy (x + y)) = 1
        assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0) == 1
        assert grad(lambda x: x * grad(lambda y: x * y)(2.0))(3.0) == 6
        assert grad(lambda x: grad(lambda y: grad(lambda z: x * y * z)(1.0) * x)(2.0))(5.0) == 10

    def test_second_derivatives_of_operations_on_numbers(self):
        a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        for product in (fastops.matmul, fastops.linear):
            found = grad(lambda a, f=product: grad(lambda a: f(a, b) ** 2)(a).sum())(a)
            np.testing.assert_array_equal(found, 2 * b * b.sum())
        check_grad(grad(lambda x: fastops.gelu(x) ** 2), 1.3)

    def test_a_hessian_vector_product(self):
        rng = np.random.default_rng(0)
        a = rng.standard_normal((4, 4))
        x, v = rng.standard_normal((2, 4))

        def f(x):
            return np.exp(x @ a @ x * 0.1)

        found = grad(lambda x: (grad(f)(x) * v).sum())(x)
        s = 0.1 * (a + a.T)
        expected = f(x) * (s @ v + (s @ x) * ((s @ x) @ v))
        np.testing.assert_allclose(found, expected)

    def test_the_pullback_is_linear_in_its_cotangent(self):
        x = np.array([1.0, 2.0])
        # the derivative along v by transposing twice
        v = np.array([3.0, 5.0])
        _, forward = vjp(lambda c: vjp(np.exp, x)[1](c)[0], np.zeros(2))
        np.testing.assert_allclose(forward(v)[0], np.exp(x) * v)

    def test_inner_loops_with_rows(self):
        x = np.arange(1.0, 7.0).reshape(3, 2)

        def inner(x):
            return sum(x[i] @ x[i - 1] * x[i, 0] for i in range(3))

        check_grad(lambda x: grad(inner)(x), x, rtol=1e-5)

    def test_an_operation_without_second_derivative_says_so(self):
        def fn(x):
            return grad(lambda x: fastops.hardswish(x).sum())(x).sum()

        with pytest.raises(TypeError, match="hardswish has no second derivative"):
            grad(fn)(np.ones(3))

    def test_but_its_first_derivative_inside_another_function_is_fine(self):
        x = np.array([0.5, 1.0])
        inner = grad(lambda y: fastops.hardswish(y).sum())
        np.testing.assert_allclose(grad(lambda s: (s * inner(x)).sum())(2.0), inner(x).sum())

    def test_values_of_an_outer_level_are_constants_within(self):
        assert grad(lambda x: vjp(lambda y: x * x, 1.0)[1](1.0)[0] + x)(3.0) == 1.0


class TestCheckpoint:
    def test_what_is_no_function(self):
        with pytest.raises(TypeError, match=r"^checkpoint: fn must be a function, got int$"):
            checkpoint(3)

    def test_nested_containers_and_keywords(self):
        @checkpoint
        def block(params, x, *, scale, names=("a", "b")):
            y = np.tanh(x @ params[names[0]] + params[names[1]]) * scale
            return {"y": y, "argmax": y.argmax(axis=-1)}

        def fn(params, x):
            result = block(params, x, scale=2.0)
            assert type(result["argmax"]) is np.ndarray
            return result["y"]

        rng = np.random.default_rng(0)
        check_grad(fn, {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)}, rng.standard_normal((4, 3)))

    def test_plain_values_just_run(self):
        assert checkpoint(np.exp)(0.0) == 1.0

    def test_twice_differentiated_and_nested(self):
        fn = checkpoint(lambda x: np.sin(checkpoint(np.exp)(x)))
        np.testing.assert_allclose(grad(grad(fn))(0.3), grad(grad(lambda x: np.sin(np.exp(x))))(0.3))

    def test_the_forward_pass_runs_again_and_records_nothing_at_first(self):
        runs = []

        def fn(x):
            runs.append(isinstance(x, Variable))
            return x * x

        _, pullback = vjp(checkpoint(fn), 3.0)
        assert runs == [False]
        assert pullback(1.0) == (6.0,)
        assert runs == [False, True]

    def test_a_function_that_closes_over_variables_is_refused(self):
        with pytest.raises(TypeError, match="checkpoint: fn uses a value"):
            grad(lambda x: checkpoint(lambda y: x * y)(x * 2))(1.0)

    def test_another_result_the_second_time_is_an_error(self):
        rng = np.random.default_rng(0)
        _, pullback = vjp(checkpoint(lambda x: x * rng.standard_normal(3)), np.ones(3))
        with pytest.raises(ValueError, match="another result"):
            pullback(np.ones(3))
        with pytest.raises(ValueError, match="another result"):
            grad(checkpoint(lambda x: (x * rng.standard_normal(3)).sum()))(np.ones(3))
        assert grad(lambda x: checkpoint(np.nan_to_num)(x) * 2)(1.5) == 2  # an array of no axes the second time, and a number the first

    def test_changed_arguments_are_noticed(self):
        x, c = np.ones(3), np.ones(3)
        _, pullback = vjp(lambda x: checkpoint(lambda x, c: x * c)(x, c), x)
        c += 1
        with pytest.raises(ValueError, match="changed in place"):
            pullback(np.ones(3))


class TestCheckGrad:
    def test_it_names_the_worst_argument(self):
        @primitive
        def wrong(x, y):
            return x * y, lambda g: g * y * 1.001, lambda g: g * x * 2

        with pytest.raises(AssertionError, match=r"gradient of primals\[0\]\['b'\]\[0\] is wrong"):
            check_grad(lambda p: wrong(p["a"], p["b"][0]), {"a": np.ones(3), "b": [np.full(3, 2.0)]})

    def test_it_notices_small_errors_and_zeros_and_nan(self):
        for factor in (1.0001, 0.0, np.nan):
            wrong = primitive(lambda x, f=factor: (np.sin(x), lambda g: g * np.cos(x) * f))
            with pytest.raises(AssertionError):
                check_grad(wrong, np.ones(5))
        flat = primitive(lambda x: (np.zeros_like(x), lambda g: g))
        with pytest.raises(AssertionError):
            check_grad(flat, np.ones(5))

    def test_in_single_precision(self):
        x = np.linspace(0.5, 2, 6, dtype=np.float32)
        check_grad(lambda x: np.log(x) * x, x)
        wrong = primitive(lambda x: (np.log(x), lambda g: 1.2 * g / x))
        with pytest.raises(AssertionError):
            check_grad(wrong, x)

    def test_settings(self):
        kink = np.array([0.1])
        check_grad(np.abs, kink)
        with pytest.raises(AssertionError):
            check_grad(np.abs, kink, eps=5.0)
        check_grad(np.abs, kink, eps=5.0, rtol=10.0)

    @pytest.mark.parametrize(
        ("setting", "error", "message"),
        [
            ({"eps": 0}, ValueError, "eps must be a finite number above 0, got 0"),
            ({"eps": -1.0}, ValueError, "eps must be a finite number above 0, got -1.0"),
            ({"rtol": np.nan}, ValueError, "rtol must be a finite number from 0 on, got nan"),
            ({"rtol": "a"}, TypeError, "rtol must be a real number, got 'a'"),
            ({"eps": 1j}, TypeError, "eps must be a real number, got 1j"),
        ],
    )
    def test_settings_that_cannot_be(self, setting, error, message):
        with pytest.raises(error, match=f"^check_grad: {message}$"):
            check_grad(np.sin, 1.0, **setting)

    def test_it_speaks_for_itself(self):
        with pytest.raises(TypeError, match=r"^check_grad: primals\[0\] must be an array of floating-point numbers, got int"):
            check_grad(np.sin, 1)

    def test_no_values_at_all(self):
        check_grad(lambda x: x * 2, np.ones((0, 3)))


class TestThreads:
    def test_two_threads_at_once(self):
        errors = []
        barrier = threading.Barrier(3)
        x = image()

        def differentiate(scale):
            try:
                barrier.wait()
                for _ in range(30):
                    found = grad(lambda x: (conv2d(x, W, padding=1) * scale).sum())(x)
                    np.testing.assert_allclose(found, expected * scale)
            except BaseException as error:
                errors.append(error)

        def plain():
            try:
                barrier.wait()
                for _ in range(100):
                    assert type(conv2d(x, W, padding=1)) is np.ndarray
            except BaseException as error:
                errors.append(error)

        expected = grad(lambda x: conv2d(x, W, padding=1).sum())(x)
        threads = [threading.Thread(target=differentiate, args=(s,)) for s in (2.0, 3.0)] + [threading.Thread(target=plain)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert _op._following.recorder is None


def test_importing_fastops_stays_light():
    code = """
import sys, fastops
fastops.__all__
assert "numpy" not in sys.modules and "fastops.autodiff" not in sys.modules
fastops.grad
assert "fastops.autodiff" in sys.modules and "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
