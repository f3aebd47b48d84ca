"""The reduction core: accuracy at any length, every way in which an array is cut up, NaN, and bits that threads do not change."""

from __future__ import annotations

import numpy as np
import pytest

import fastops
from fastops import _threads
from fastops._jit import launcher, parallel, separate
from fastops.simd.reduce import _COLUMNS, _ROWS, _SPAN, BLOCK, max_axis, span_dot, span_max, span_moments, span_sum, sum_axis

SHAPES = [
    (1, 1, 1),
    (3, 10, 1),
    (5000, 3, 1),
    (1, _SPAN + 5, 1),
    (3, 2 * _SPAN, 1),
    (2, 5, 7),
    (2000, 3, 4),
    (1, _ROWS + 9, 3),
    (2, 2 * _ROWS + 1, _COLUMNS + 3),
    (3, 8, 2 * _COLUMNS),
]


@pytest.fixture(autouse=True)
def all_threads(monkeypatch):
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_axis(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    integers = np.rint(4 * x)
    results = []
    for threads in {1, _threads._available()}:
        fastops.set_num_threads(threads)
        assert (sum_axis(integers) == integers.sum(axis=1)).all()
        assert (max_axis(x) == x.max(axis=1)).all()
        results.append(sum_axis(x).tobytes())
    assert len(set(results)) == 1
    exact = np.abs(x).astype(np.longdouble).sum(axis=1)
    np.testing.assert_allclose(sum_axis(np.abs(x)), exact, rtol=2e-7 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)], ids=str)
def test_empty(shape):
    found = sum_axis(np.ones(shape))
    assert found.shape == (shape[0], shape[2])
    assert (found == 0).all()


@pytest.mark.parametrize("shape", [(2, 300, 1), (2, 300, 17)], ids=str)
def test_not_a_number(shape):
    for at in (0, 7, 299):
        x = np.random.default_rng(0).standard_normal(shape)
        x[1, at, -1] = np.nan
        for found in (sum_axis(x), max_axis(x)):
            assert np.isnan(found[1, -1])
            assert np.isnan(found).sum() == 1


@separate
def _spans(block, worker, x, y, start, count, shift, out):
    out[0] = span_sum(x, start, count)
    out[1], out[2] = span_moments(x, start, count, shift)
    out[3] = span_dot(x, start, y, start + 1, count)
    out[4] = span_max(x, start, count)


@launcher
def spans(threads, x, y, start, count, shift, out):
    parallel(_spans, 1, threads, (x, y, start, count, shift, out))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 31, BLOCK, 3 * BLOCK + 77, 1_000_000])
def test_spans(count, dtype):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(1, 2, (2, count + 4)).astype(dtype)
    part, other = x[3 : 3 + count].astype(np.longdouble), y[4 : 4 + count].astype(np.longdouble)
    shift = x.dtype.type(0.5)
    out = np.empty(5)
    spans(1, x, y, 3, count, shift, out)
    expected = [part.sum(), (part - shift).sum(), ((part - shift) ** 2).sum(), (part * other).sum(), part.max()]
    np.testing.assert_allclose(out, np.array(expected, float), rtol=3e-7 if dtype == "float32" else 1e-14)
