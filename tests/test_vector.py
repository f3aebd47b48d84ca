"""The vector type against NumPy: each operation, at every count of a part, with guards around what it may touch."""

from __future__ import annotations

import os
import platform
import sys
from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from fastops._jit import launcher
from fastops.ops.conv import winograd
from fastops.simd import vector
from fastops.simd.blocking import LANES, VECTOR_BYTES
from fastops.simd.pack import copy_run
from fastops.simd.turn import turn
from fastops.simd.vector import (
    broadcast,
    correlate,
    correlate_part,
    deinterleave,
    element,
    fma,
    interleave,
    lane_sums,
    lanes,
    linear_map,
    load,
    load_between,
    load_part,
    load_square,
    load_square_part,
    load_tile,
    load_tile_part,
    offsets,
    outer,
    outer_at,
    prefetch,
    slide,
    slide_lanes,
    splat,
    store,
    store_column_part,
    store_pairs_part,
    store_part,
    store_square_part,
    store_tile,
    store_tile_part,
    tile_add,
    tile_dot,
    tile_load_rows,
    tile_load_rows_part,
    transpose,
    zero_tile,
)
from tests.processes import run_python

DTYPES = ["float32", "float64"]
TESTS = os.path.dirname(os.path.abspath(__file__))

by_dtype = pytest.mark.parametrize("dtype", DTYPES)


def integers(count: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Whole numbers, so that results are exact, and none of them zero."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 9, count) * rng.choice([-1, 1], count)).astype(dtype)


def test_the_width_is_the_processors():
    assert LANES == {"float32": VECTOR_BYTES // 4, "float64": VECTOR_BYTES // 8}
    if "NUMBA_CPU_NAME" not in os.environ and platform.system() == "Linux" and platform.machine() == "x86_64":
        with open("/proc/cpuinfo") as file:
            flags = set(next(line for line in file if line.startswith("flags")).split())
        assert VECTOR_BYTES == (64 if "avx512f" in flags else 32 if "avx" in flags else 16)


# ---- vectors


@launcher
def _parts(threads, x, x0, count, first, end, y, z, z0):
    whole = load(y, 0)
    store(y, 0, load_part(x, x0, count))
    store(y, lanes(y), load_between(x, x0, first, end))
    store_part(z, z0, whole, count)


def check_parts(dtype: str, place=lambda a: a) -> None:
    """``place`` puts an array where nothing around it can be touched."""
    n = LANES[dtype]
    for count in range(-1, n + 2):
        inside = min(max(count, 0), n)
        full = integers(n, dtype)
        for first in {0, count // 2, count}:
            x = place(full[:inside].copy())
            y, z = np.concatenate([full, full]), place(np.zeros(inside, dtype))
            _parts(1, x, 0, count, first, count, y, z, 0)
            between = np.where(np.arange(n) >= first, np.arange(n) < count, False) * full
            np.testing.assert_array_equal(y, [*full[:inside], *[0] * (n - inside), *between])
            np.testing.assert_array_equal(z, full[:inside])


@by_dtype
def test_parts(dtype):
    check_parts(dtype)
    n = LANES[dtype]
    for count, start in product(range(-1, n + 2), (0, 1, 5)):  # unaligned too
        inside = min(max(count, 0), n)
        x, y, z = integers(3 * n + 8, dtype), integers(2 * n, dtype, 1), integers(3 * n + 8, dtype, 2)
        expected = z.copy()
        expected[start : start + inside] = y[:inside]
        _parts(1, x, start, count, 1, count - 1, y, z, start)
        np.testing.assert_array_equal(z, expected)
        np.testing.assert_array_equal(y[:n], np.where(np.arange(n) < count, x[start : start + n], 0))


@launcher
def _copy(threads, x, x0, y, y0, count):
    copy_run(x, x0, y, y0, count)


@by_dtype
def test_copy_run(dtype):
    n = LANES[dtype]
    for count in range(3 * n + 2):
        x, y = integers(count + 3, dtype), np.full(count + 9, np.nan, dtype)
        _copy(1, x, 3, y, 4, count)
        np.testing.assert_array_equal(y, [*[np.nan] * 4, *x[3:], *[np.nan] * 5])


@launcher
def _arithmetic(threads, a, b, far, y):
    prefetch(a, far)
    v, w, n = load(a, 0), load(b, 1), lanes(y)
    store(y, 0, v + w)
    store(y, n, v - w)
    store(y, 2 * n, v * w)
    store(y, 3 * n, fma(v, w, v))
    store(y, 4 * n, splat(y, element(a, 1)))
    store(y, 5 * n, broadcast(b, 2))
    store_tile(y, 6 * n, n, interleave(v, w))
    store_tile(y, 8 * n, n, deinterleave(v, w))


@by_dtype
def test_arithmetic(dtype):
    n = LANES[dtype]
    a, b, y = integers(n, dtype), integers(n + 1, dtype, 1), np.zeros(10 * n, dtype)
    _arithmetic(1, a, b, 1 << 40, y)
    w = b[1:]
    both = np.concatenate([a, w])
    expected = [a + w, a - w, a * w, a * w + a, np.repeat(a[1], n), np.repeat(b[2], n)]
    expected += [np.stack([a, w], 1).ravel(), both[::2], both[1::2]]
    np.testing.assert_array_equal(y, np.concatenate(expected))


@launcher
def _contracts(threads, a, y):
    store(y, 0, fma(load(a, 0), load(a, 0), load(a, 1)))


@by_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0])
def test_special_values_pass(dtype, value):
    n = LANES[dtype]
    y = np.zeros(n, dtype)
    _contracts(1, np.full(n + 1, value, dtype), y)
    np.testing.assert_array_equal(y, np.full(n, value * value + value, dtype))


# ---- tiles

ROWS, COLS = 5, 2


@launcher
def _tiles(threads, x, row, columns, a, table, start, shift, step, y, y_row, out):
    whole = tile_load_rows(zero_tile(x, ROWS, COLS), x, 1, row)
    part = tile_load_rows_part(whole, x, 1, row, columns)
    store_tile(y, 0, y_row, part)
    y0 = ROWS * y_row
    store_tile(y, y0, y_row, outer(whole, a, 2, 3, x, 4))
    at = offsets(table, start, shift, ROWS)
    store_tile(y, 2 * y0, y_row, outer_at(whole, a, at, step, x, 4))
    store_tile(y, 3 * y0, y_row, tile_add(whole, part))
    store_tile(y, 4 * y0, y_row, tile_add(whole, load(x, 3)))
    store(y, 5 * y0, tile_dot(load(x, 0), load_tile(x, 2, row, 3), load(x, 1)))
    store_tile_part(out, 3, y_row, whole, columns)


@by_dtype
def test_tiles(dtype):
    n = LANES[dtype]
    width, row = COLS * n, COLS * n + 3
    x, a = integers(ROWS * row + 8, dtype), integers(40, dtype, 1)
    table, start, shift, step = np.array([9, 4, 1, 0, 7, 3]), 1, 2, 5
    each = np.arange(ROWS)[:, None]
    whole = x[1 + each * row + np.arange(width)]
    b = x[4 : 4 + width]
    for columns in range(-1, width + 2):
        y, out = np.zeros(5 * ROWS * width + n, dtype), np.full((ROWS + 1) * width, 77, dtype)
        _tiles(1, x, row, columns, a, table, start, shift, step, y, width, out)
        part = np.where(np.arange(width) < columns, whole, 0)
        tiles = y[: 5 * ROWS * width].reshape(5, ROWS, width)
        np.testing.assert_array_equal(tiles[0], part)
        np.testing.assert_array_equal(tiles[1], whole + a[2 + 3 * each] * b)
        np.testing.assert_array_equal(tiles[2], whole + a[table[start + each] + shift + step] * b)
        np.testing.assert_array_equal(tiles[3], whole + part)
        np.testing.assert_array_equal(tiles[4], whole + np.tile(x[3 : 3 + n], COLS))
        dot = x[:n] + sum(x[2 + i * row : 2 + i * row + n] for i in range(3)) * x[1 : 1 + n]
        np.testing.assert_array_equal(y[5 * ROWS * width :], dot)
        expected = np.full((ROWS + 1) * width, 77, dtype)
        expected[3 : 3 + ROWS * width].reshape(ROWS, width)[:, : max(columns, 0)] = whole[:, : max(columns, 0)]
        np.testing.assert_array_equal(out, expected)


# ---- squares and columns


@launcher
def _squares(threads, x, row, y):
    n = lanes(x)
    tile = load_square(x, 1, row)
    store_tile(y, 0, n, transpose(tile))
    store(y, n * n, lane_sums(tile))


@launcher
def _square_parts(threads, x, row, rows, columns, fall, whole, y, y_row, z, z_row, pairs, p_row):
    n = lanes(x)
    store_tile(y, 0, y_row, load_square_part(x, 0, row, rows, columns))
    store_tile(y, n * y_row, y_row, load_tile_part(x, 0, row, 3, rows, columns, fall))
    tile = load_square(whole, 0, n)
    store_square_part(z, 0, z_row, tile, rows, columns)
    store_pairs_part(pairs, 0, p_row, tile, transpose(tile), rows, 2 * columns - 1)


@launcher
def _column_part(threads, whole, rows, columns, fall, z, z_row):
    store_column_part(z, 0, z_row, load_tile(whole, 0, lanes(whole), 3), rows, columns, fall)


@by_dtype
def test_squares(dtype):
    n = LANES[dtype]
    row = n + 3
    x, y = integers(n * row + 1, dtype), np.zeros(n * n + n, dtype)
    _squares(1, x, row, y)
    square = x[1:].reshape(n, row)[:, :n]
    np.testing.assert_array_equal(y[: n * n].reshape(n, n), square.T)
    np.testing.assert_array_equal(y[n * n :], square.sum(1))


@by_dtype
def test_parts_of_squares_and_columns(dtype):
    """From arrays that hold the part and no more, to arrays with guards between the rows."""
    n = LANES[dtype]
    whole = integers(n * n, dtype, 1)
    square = whole.reshape(n, n)
    guard = 55
    for rows, columns in product(range(n + 1), range(n + 1)):
        x = integers(rows * columns, dtype)  # the last row ends where the array does
        held = x.reshape(rows, columns)
        for fall in (0, 1, 2) if rows <= 3 else (0,):
            y = np.full((n + 3, n), np.nan, dtype)
            z, pairs = np.full((n, n + 2), guard, dtype), np.full((n, 2 * n + 3), guard, dtype)
            flat = [a.reshape(-1) for a in (y, z, pairs)]
            _square_parts(1, x, columns, rows, columns, fall, whole, flat[0], n, flat[1], n + 2, flat[2], 2 * n + 3)
            expected = np.zeros((n, n), dtype)
            expected[:rows, :columns] = held
            np.testing.assert_array_equal(y[:n], expected)
            ragged = np.arange(n) < columns - fall * np.arange(3)[:, None]
            column = np.zeros((3, n), dtype)
            column[: min(n, 3)] = expected[:3]
            np.testing.assert_array_equal(y[n:], column * ragged)
            block = np.full((n, n + 2), guard, dtype)
            block[:rows, :columns] = square[:rows, :columns]
            np.testing.assert_array_equal(z, block)
            turns = np.full((n, 2 * n + 3), guard, dtype)
            taken = max(2 * columns - 1, 0)
            turns[:rows, :taken] = np.stack([square, square.T], 2).reshape(n, 2 * n)[:rows, :taken]
            np.testing.assert_array_equal(pairs, turns)


@by_dtype
def test_parts_of_a_column(dtype):
    n = LANES[dtype]
    whole = integers(3 * n, dtype)
    for rows, columns, fall in product(range(5), range(-1, n + 4), (0, 1, n)):
        z = np.full((3, n + 1), 55, dtype)
        expected = z.copy()
        for i in range(min(rows, 3)):
            some = min(max(columns - i * fall, 0), n)
            expected[i, :some] = whole[i * n : i * n + some]
        _column_part(1, whole, rows, columns, fall, z.reshape(-1), n + 1)
        np.testing.assert_array_equal(z, expected)


# ---- constant matrices


def _rational(rows: int, cols: int, seed: int) -> tuple[tuple[Fraction, ...], ...]:
    """Zeros, ones, fractions, rows and columns that are each other's mirror image, and a row of nothing but zeros."""
    rng = np.random.default_rng(seed)
    matrix = [[Fraction(int(n), 4) for n in rng.choice([0, 0, 4, -4, 2, -3, 8], cols)] for _ in range(rows)]
    matrix[1] = [value if k % 2 else -value for k, value in enumerate(matrix[0])]
    matrix[2] = [Fraction(0)] * cols
    for i, row in enumerate(matrix):
        row[3] = row[1] if i % 3 else -row[1]
    return tuple(map(tuple, matrix))


_MATRICES = (_rational(6, 4, 0), _rational(4, 7, 1), *winograd.matrices(4, 3), *winograd.matrices(2, 5))
_map_0, _map_1, _map_2, _map_3, _map_4, _map_5, _map_6, _map_7 = map(linear_map, _MATRICES)
_cols_0, _cols_1, _cols_2, _cols_3, _cols_4, _cols_5, _cols_6, _cols_7 = (len(matrix[0]) for matrix in _MATRICES)


@launcher
def _maps(threads, x, y, room):
    n = lanes(x)
    store_tile(y, 0 * room, n, _map_0(load_tile(x, 0, n, _cols_0)))
    store_tile(y, 1 * room, n, _map_1(load_tile(x, 0, n, _cols_1)))
    store_tile(y, 2 * room, n, _map_2(load_tile(x, 0, n, _cols_2)))
    store_tile(y, 3 * room, n, _map_3(load_tile(x, 0, n, _cols_3)))
    store_tile(y, 4 * room, n, _map_4(load_tile(x, 0, n, _cols_4)))
    store_tile(y, 5 * room, n, _map_5(load_tile(x, 0, n, _cols_5)))
    store_tile(y, 6 * room, n, _map_6(load_tile(x, 0, n, _cols_6)))
    store_tile(y, 7 * room, n, _map_7(load_tile(x, 0, n, _cols_7)))


@by_dtype
def test_linear_maps(dtype):
    n, most = LANES[dtype], 8
    x, y = integers(most * n, dtype), np.full((len(_MATRICES), most, n), np.nan, dtype)
    _maps(1, x, y.reshape(-1), most * n)
    for matrix, found in zip(_MATRICES, y):
        expected = np.array(matrix, float) @ x.reshape(most, n)[: len(matrix[0])].astype(float)
        np.testing.assert_allclose(found[: len(matrix)], expected, rtol=0, atol=500 * np.finfo(dtype).eps)
        assert np.isnan(found[len(matrix) :]).all()


# ---- columns under a sliding window


@launcher
def _slides(threads, x, row, w, w_row, y):
    n = lanes(x)
    tile = load_tile(x, 0, n, 4)
    store_tile(y, 0, n, slide(tile, x, 1, row, 3, 1, w, 2, w_row))
    store_tile(y, 4 * n, n, slide(tile, x, 1, row, 3, 2, w, 2, w_row))
    store_tile(y, 8 * n, n, slide_lanes(tile, x, 1, row, 2, 3, w, 2, w_row))


@by_dtype
def test_slides(dtype):
    n, row, w_row = LANES[dtype], LANES[dtype] + 1, 5
    x, w, y = integers(16 * row + 1, dtype), integers(2 * w_row + 2 + n, dtype, 1), np.zeros(12 * n, dtype)
    _slides(1, x, row, w, w_row, y)

    def vector(i: int) -> np.ndarray:
        return x[1 + i * row : 1 + i * row + n]

    expected = []
    for taps, stride, width in ((3, 1, 1), (3, 2, 1), (2, 3, n)):
        weights = [w[2 + r * w_row : 2 + r * w_row + width] for r in range(taps)]
        for j in range(4):
            expected.append(x[j * n : j * n + n] + sum(weights[r] * vector(j * stride + r) for r in range(taps)))
    np.testing.assert_array_equal(y.reshape(12, n), expected)


@launcher
def _correlations(threads, start, x, row, starts, rows, cols, y):
    n = lanes(x)
    sums = load_tile(start, 0, n, 6)  # 3 taps x 2 starts
    factors = load_tile(start, n, n, 4)
    store_tile(y, 0, n, correlate(sums, factors, x, (starts[0], starts[1]), row, 3, 2))
    part = load_tile_part(start, n, n, 4, rows, cols, 0)
    store_tile(y, 6 * n, n, correlate_part(sums, part, x, (starts[0], starts[1]), row, 3, 2, rows, cols, 0))


@by_dtype
def test_correlations(dtype):
    n, row = LANES[dtype], LANES[dtype] + 2
    start, x, starts = integers(6 * n, dtype), integers(12 * row, dtype, 1), np.array([0, 3])
    for rows, cols in product((1, 3, 4), (1, n - 1, n)):
        y = np.zeros((12, n), dtype)
        _correlations(1, start, x, row, starts, rows, cols, y.reshape(-1))
        factors = start[n : 5 * n].reshape(4, n)
        some = np.where((np.arange(4)[:, None] < rows) & (np.arange(n) < cols), factors, 0)
        for half, f in ((y[:6], factors), (y[6:], some)):
            expected = start.reshape(6, n).copy()
            for r, u in product(range(3), range(2)):
                for j in range(4):
                    at = starts[u] + (2 * j + r) * row
                    expected[2 * r + u] += f[j] * x[at : at + n]
            np.testing.assert_array_equal(half, expected)


# ---- the end of memory, and other processors

PAGES = f"""
import ctypes, itertools, mmap, sys
import numpy as np
sys.path.insert(0, {TESTS!r})
import test_vector

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
PAGE, NONE, READ_WRITE, PRIVATE_ANONYMOUS = mmap.PAGESIZE, 0, 3, 0x22

def page_alone():
    start = libc.mmap(None, 3 * PAGE, NONE, PRIVATE_ANONYMOUS, -1, 0) + PAGE
    assert libc.mprotect(ctypes.c_void_p(start), PAGE, READ_WRITE) == 0
    return np.frombuffer((ctypes.c_char * PAGE).from_address(start), np.uint8)

pages = itertools.cycle([page_alone(), page_alone()])  # two arrays are in use at a time

def placed(memory, a):
    memory.view(a.dtype)[:] = a
    return memory.view(a.dtype)

def at_the_end(a):
    return placed(next(pages)[PAGE - a.nbytes :], a)

def at_the_start(a):
    return placed(next(pages)[: a.nbytes], a)

for dtype in test_vector.DTYPES:
    for place in (at_the_end, at_the_start):
        test_vector.check_parts(dtype, place)
print("done")
"""


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("count", [1, 2, 4, 8, 16, 32])
def test_rounds_transpose_squares_of_any_width(bits, count):
    """This machine compiles one width; the order of merges is data, and holds for the others too."""
    square = np.arange(count * count).reshape(count, count)
    rows = list(square)
    for bit, order in vector._rounds(SimpleNamespace(count=count, dtype=SimpleNamespace(bitwidth=bits))):
        for i in (i for i in range(count) if not i >> bit & 1):
            both = np.concatenate([rows[i], rows[i | 1 << bit]])
            rows[i], rows[i | 1 << bit] = both[order[0]], both[order[1]]
    np.testing.assert_array_equal(rows, square.T)


@pytest.mark.skipif(sys.platform != "linux", reason="the pages are made by Linux's calls")
def test_parts_touch_no_other_memory():
    """Arrays that end where a page that must not be touched begins, and the reverse: a touch is the process's end."""
    assert run_python(PAGES).strip() == "done"


CONVOLUTIONS = f"""
import sys
sys.path.insert(0, {TESTS!r})
import numpy as np
import pytest
import fastops
from fastops.ops.conv.strategies import STRATEGIES
from fastops.simd.blocking import LANES

assert LANES["float32"] == int(sys.argv.pop()), LANES
rng = np.random.default_rng(5)
done = set()
for dtype, tolerance in (("float32", 5e-5), ("float64", 1e-12)):
    for weight, groups in (((9, 7, 3, 3), 1), ((9, 7, 1, 1), 1), ((7, 1, 3, 3), 7), ((21, 1, 5, 5), 7)):
        x, w = rng.integers(-4, 5, (2, 7, 13, 23)).astype(dtype), rng.integers(-4, 5, weight).astype(dtype)
        options = dict(padding=weight[2] // 2, groups=groups)
        y = fastops.conv2d(x, w, w[:, 0, 0, 0], strategy="naive", **options)
        dy = rng.integers(-4, 5, y.shape).astype(dtype)
        gradients = fastops.conv2d_backward(dy, x, w, strategy="naive", **options)[:2]
        for strategy in STRATEGIES:
            try:
                found = [fastops.conv2d(x, w, w[:, 0, 0, 0], strategy=strategy.name, **options)]
                found += fastops.conv2d_backward(dy, x, w, strategy=strategy.name, **options)[:2]
            except ValueError as refused:
                if "must accept" not in str(refused):
                    raise
                continue
            done.add(strategy.name)
            for f, e in zip(found, (y, *gradients)):
                assert np.abs(f - e).max() <= (0 if strategy.exact else tolerance) * np.abs(e).max(), strategy.name
assert done == {{strategy.name for strategy in STRATEGIES}}, done
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not full", {os.path.join(TESTS, "test_vector.py")!r}]))
"""

AVX2 = "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+cx16,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+xsave"
SSE = "+64bit,+cmov,+cx16,+fxsr,+mmx,+popcnt,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3"


@pytest.mark.full
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86-64's older processors")
@pytest.mark.parametrize("name, features, width", [("znver3", AVX2, 8), ("nehalem", SSE, 4)], ids=["AVX2", "SSE"])
def test_narrower_processors(name, features, width):
    """Every strategy, and this file, compiled for a processor with AVX2, and for one with SSE alone."""
    if VECTOR_BYTES < 4 * width:
        pytest.skip("this processor is narrower itself")
    code = f"import sys; sys.argv.append({width})\n{CONVOLUTIONS}"
    run_python(code, seconds=900, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)


@by_dtype
def test_turn(dtype):
    for shape in ((1, 16, 64), (2, 1, 50), (3, 37, 1), (2, 17, 83), (1, 64, 16), (0, 3, 4), (2, 0, 3)):
        x = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
        y = np.full((shape[0], shape[2], shape[1]), -1, dtype)
        turn(x, y)
        np.testing.assert_array_equal(y, x.transpose(0, 2, 1))
