"""The elementary functions: their error in units in the last place, their corners, and that loops over them are packed."""

from __future__ import annotations

import math
import re
from decimal import Decimal, getcontext, localcontext
from functools import cache

import numpy as np
import pytest
from numba import njit, typeof

from fastops._jit import CHECKED, FLAGS
from fastops.simd import vmath

INF, NAN = math.inf, math.nan

# The error each docstring promises, in ulp.
PROMISED = {"exp": 0.8, "expm1": 1.2, "log": 0.9, "log1p": 0.9, "tanh": 1.4, "sigmoid": 1.6, "erf": 1.3}


@njit
def _log(x):
    return math.log(x) if x > 0 else (-np.inf if x == 0 else np.nan)


@njit
def _log1p(x):
    return math.log1p(x) if x > -1 else (-np.inf if x == -1 else np.nan)


@njit
def _expm1(x):
    return math.expm1(x) if x < 700 else x * np.inf


@njit
def _sigmoid(x):
    return 0.0 if x < -700 else 1 / (1 + math.exp(-x))


IN_DOUBLE = {
    "exp": njit(lambda x: math.exp(x)),
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "tanh": njit(lambda x: math.tanh(x)),
    "sigmoid": _sigmoid,
    "erf": njit(lambda x: math.erf(x)),
}


@cache
def over(name):
    """The plain loop y[i] = f(x[i])."""
    f = getattr(vmath, name)

    @njit(**FLAGS)
    def loop(x, y):
        for i in range(x.size):
            y[i] = f(x[i])

    return loop


def apply(name, x):
    x = np.atleast_1d(x)
    y = np.empty_like(x)
    over(name)(x, y)
    return y


def largest_float32_error(name, in_double, step):
    """Over every step-th bit pattern of float32: the largest error in ulp, and how many results are wrongly NaN or not."""
    in_single, chunk = over(name), 4096

    @njit(error_model="numpy")
    def scan():
        worst, wrong = 0.0, 0
        x, y = np.empty(chunk, np.float32), np.empty(chunk, np.float32)
        wide, truth = np.empty(chunk), np.empty(chunk)
        for first in range(0, 2**32, chunk * step):
            for i in range(chunk):
                x[i] = np.uint32(first + i * step).view(np.float32)  # past the last pattern it starts again
                wide[i] = x[i]
            in_single(x, y)
            in_double(wide, truth)
            for i in range(chunk):
                # the number after the largest float32 would be 2^128: infinity stands for it
                t = min(max(truth[i], -(2.0**128)), 2.0**128)
                f = min(max(np.float64(y[i]), -(2.0**128)), 2.0**128)
                exponent = (np.int64(np.float64(t).view(np.int64)) >> 52) & 2047
                ulp = np.int64((max(exponent, 1023 - 126) - 23) << 52).view(np.float64)
                error = abs(f - t) / ulp
                nan = np.isnan(truth[i]) != np.isnan(y[i])
                wrong += nan
                worst = max(worst, 0.0 if np.isnan(error) else error)
        return worst, wrong

    return scan()


@pytest.mark.parametrize("name", PROMISED)
def test_float32_error(name):
    """Against the C library."""
    exact = IN_DOUBLE[name]

    @njit
    def in_double(x, y):
        for i in range(x.size):
            y[i] = exact(x[i])

    worst, wrong = largest_float32_error(name, in_double, step=1021)
    assert wrong == 0
    assert worst <= PROMISED[name]


@pytest.mark.full
@pytest.mark.parametrize("name", PROMISED)
def test_float32_error_over_every_number(name):
    """Against the float64 version, which is fast and is held to exact arithmetic below."""
    worst, wrong = largest_float32_error(name, over(name), step=1)
    assert wrong == 0
    assert worst <= PROMISED[name]


def _decimal_erf(x):
    if abs(x) > 6.5:
        return Decimal(1).copy_sign(x)
    total = term = x
    k = 0
    while abs(term) > Decimal(10) ** -45 * abs(total):
        k += 1
        term *= -x * x / k
        total += term / (2 * k + 1)
    return total * 2 / PI.sqrt()


def _decimal_tanh(x):
    if abs(x) < Decimal("1e-9"):
        return x - x**3 / 3
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


def _decimal_expm1(x):
    return x + x * x / 2 + x**3 / 6 if abs(x) < Decimal("1e-9") else x.exp() - 1


def _decimal_log1p(x):
    return x - x * x / 2 + x**3 / 3 if abs(x) < Decimal("1e-9") else (1 + x).ln()


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
EXACTLY = {
    "exp": lambda x: x.exp(),
    "expm1": _decimal_expm1,
    "log": lambda x: x.ln(),
    "log1p": _decimal_log1p,
    "tanh": _decimal_tanh,
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "erf": _decimal_erf,
}


def samples(name, count=300):
    """Numbers around every place where a function changes its formula, and over its whole range."""
    rng = np.random.default_rng(7)
    near = np.concatenate([rng.uniform(-2, 2, 3 * count), rng.normal(size=count) * 2.0 ** rng.uniform(-300, 0, count)])
    wide = {
        "exp": rng.uniform(-745, 709.7, count),
        "expm1": rng.uniform(-40, 709.7, count),
        "log": 2.0 ** rng.uniform(-1074, 1023, count),
        "log1p": 2.0 ** rng.uniform(-1074, 1023, count),
        "tanh": rng.uniform(-22, 22, count),
        "sigmoid": rng.uniform(-745, 40, count),
        "erf": rng.uniform(-6.1, 6.1, count),
    }[name]
    x = np.concatenate([near, wide])
    return np.abs(x) if name == "log" else x[x > -1] if name == "log1p" else x


@pytest.mark.parametrize("name", PROMISED)
def test_float64_error(name):
    x = samples(name)
    with localcontext() as context:
        context.prec = 70
        for given, found in zip(x, apply(name, x)):
            truth = EXACTLY[name](Decimal(float(given)))
            ulp = Decimal(2.0 ** max(math.frexp(float(truth))[1] - 53, -1074))
            error = abs(Decimal(float(found)) - truth) / ulp
            assert error <= Decimal(PROMISED[name]), f"{name}({given!r}) is {error:.2f} ulp off"
    assert getcontext().prec != 70


CORNERS = {
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (1e4, INF), (-1e4, 0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1), (1e4, INF), (-1e4, -1)],
    "log": [(1, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -INF), (INF, INF), (-INF, NAN), (-2, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (1e30, 1), (-1e30, -1)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (1e30, 1), (-1e30, 0)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (1e30, 1), (-1e30, -1)],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PROMISED)
def test_corners(name, dtype):
    given, wanted = np.array([*CORNERS[name], (NAN, NAN)], dtype).T.copy()
    found = apply(name, given)
    np.testing.assert_array_equal(found, wanted)
    signed = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[signed]), np.signbit(wanted[signed]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_denormals(dtype):
    smallest, tiny = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny
    for name in ("expm1", "log1p", "tanh"):
        for x in (smallest, -smallest, 5 * smallest, tiny / 4, -tiny / 4):
            assert apply(name, dtype(x))[0] == dtype(x)
    assert apply("erf", 1000 * smallest)[0] == dtype(1128 * smallest)
    assert apply("log", smallest)[0] == dtype(math.log(float(smallest)))
    # results below the smallest normal number
    x = dtype(math.log(float(tiny)) - 3)
    for name in ("exp", "sigmoid"):
        found = apply(name, x)[0]
        assert 0 < found < tiny
        assert abs(float(found) - math.exp(float(x))) <= float(smallest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
class TestParts:
    """What needs less than the functions above: against them, which are held to exact arithmetic."""

    def test_exp_plain(self, dtype):
        info = np.finfo(dtype)
        x = np.linspace(np.log(info.tiny) + 1e-3, np.log(info.max) - 0.4, 200001).astype(dtype)
        expected = np.exp(x.astype(np.longdouble))
        assert (abs(apply("exp_plain", x) - expected) / expected).max() < 1.2 * info.eps
        edges = np.array([-INF, -1e4, np.log(info.tiny) - 1, np.log(info.max) + 1, 1e4, INF, NAN], dtype)
        np.testing.assert_array_equal(apply("exp_plain", edges), [0, 0, 0, INF, INF, INF, NAN])

    def test_log1p_unit(self, dtype):
        x = np.concatenate([np.linspace(0, 1, 100001), np.logspace(-37, 0, 1001)]).astype(dtype)
        expected = np.log1p(x.astype(np.longdouble))
        error = abs(apply("log1p_unit", x) - expected)
        assert (error <= 1.6 * np.finfo(dtype).eps * expected).all()
        assert np.isnan(apply("log1p_unit", dtype(NAN))).all()

    def test_gaussian(self, dtype):
        gaussian = vmath.gaussian

        @njit(**FLAGS)
        def loop(x, probability, density):
            for i in range(x.size):
                probability[i], density[i] = gaussian(x[i])

        x = np.concatenate([np.linspace(-40, 40, 20001), np.linspace(-6, 6, 20001), [0, INF, -INF]]).astype(dtype)
        probability, density = np.empty_like(x), np.empty_like(x)
        loop(x, probability, density)
        exact = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x.astype(np.float64)])
        assert abs(probability - exact).max() <= 2 * np.finfo(dtype).eps
        assert (probability[x > -4] >= exact[x > -4] * (1 - 1e-4)).all()
        info, square = np.finfo(dtype), x.astype(np.float64) ** 2
        expected = np.exp(-square / 2)
        # rounding x^2, and its multiple, moves the exponent by x^2 eps / 2 each
        allowed = (8 + square[:-2]) * info.eps * expected[:-2] + info.tiny
        assert (abs(density - expected)[:-2] <= allowed).all()
        assert (density[-2:] == 0).all()


def test_from_python():
    assert vmath.exp(np.float32(0)) == np.float32(1)
    assert vmath.erf(0.5) == pytest.approx(math.erf(0.5), rel=1e-15)


@pytest.mark.skipif(CHECKED, reason="bounds checks keep loops scalar")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PROMISED)
def test_a_loop_becomes_packed_instructions(name, dtype):
    loop = over(name)
    arrays = np.ones(4, dtype), np.empty(4, dtype)
    loop(*arrays)
    code = loop.inspect_llvm(tuple(map(typeof, arrays)))
    element = "float" if dtype is np.float32 else "double"
    assert re.search(rf"fmul contract <\d+ x {element}>", code)
    assert not re.search(r"call .*@(exp|log|tanh|erf|expm1|log1p)f?\(", code)
    if dtype is np.float32:
        assert "double" not in code
