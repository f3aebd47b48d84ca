"""Matrix multiplication against NumPy: every remainder of every tile, and everything that can be asked of it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import fastops
from fastops import _threads
from fastops.simd import gemm as gemm_module
from fastops.simd.blocking import KC, MR, panel_width
from fastops.simd.epilogue import ACTIVATIONS
from fastops.simd.gemm import gemm, gemm_strided, multiply, rows_by_rows
from tests.activations import activation as reference

DTYPES = ["float32", "float64"]


def integers(rng: np.random.Generator, *shape: int, dtype: str = "float64") -> np.ndarray:
    """Small integers: sums of their products are exact, in whatever order."""
    return rng.integers(-3, 4, shape).astype(dtype)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def all_threads(monkeypatch):
    """The smallest product is worth all threads."""
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_remainder(rng, dtype):
    """Rows to two tiles and one more, columns likewise, short reductions and one that is cut into chunks."""
    width = panel_width(dtype)
    a = integers(rng, 2 * MR + 1, KC + 44, dtype=dtype)
    b = integers(rng, KC + 44, 2 * width + 1, dtype=dtype)
    for depth in (0, 1, 2, 3, 4, 5, KC + 44):
        whole = a[:, :depth] @ b[:depth]
        for rows, cols in product(range(1, 2 * MR + 2), range(1, 2 * width + 2)):
            if depth < 5 and (rows + cols + depth) % 3:  # the longest ones cover every pair
                continue
            found = gemm(a[:rows, :depth], b[:depth, :cols])
            assert found.dtype == dtype
            assert (found == whole[:rows, :cols]).all(), (rows, cols, depth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, cols, depth", [(13, 37, 19), (70, 130, 300), (1, 200, 65), (200, 1, 65)])
def test_transposes(rng, dtype, rows, cols, depth):
    """And views that no stride describes."""

    def forms(m: np.ndarray) -> list[np.ndarray]:
        apart = np.full((2 * m.shape[0], 3 * m.shape[1]), np.nan, m.dtype)
        apart[::2, ::3] = m
        constant = m.copy()
        constant.flags.writeable = False
        return [m, np.asfortranarray(m), apart[::2, ::3], m[::-1, ::-1].copy()[::-1, ::-1], constant]

    a, b = integers(rng, rows, depth, dtype=dtype), integers(rng, depth, cols, dtype=dtype)
    expected = a @ b
    for left, right in product(forms(a), forms(b)):
        assert (gemm(left, right) == expected).all()
    for batch in (a, np.asfortranarray(a)):
        stacked = np.stack([batch, -batch])
        turned = np.stack([batch.T, -batch.T]).swapaxes(1, 2)
        for left in (stacked, turned):
            assert (gemm(left, b) == [expected, -expected]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("all_threads")
def test_everything_at_once(rng, dtype):
    """out (+)= activation(alpha * a @ b + bias), in every combination."""
    for shape in ((9, 21, 7), (40, 70, KC + 30)):
        rows, cols, depth = shape
        a, b = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, cols)).astype(dtype)
        bias, before = rng.standard_normal(cols).astype(dtype), rng.standard_normal((rows, cols)).astype(dtype)
        for turned, alpha, accumulate, biased, activation in product((False, True), (1.0, -0.5), (False, True), (False, True), (None, "relu", "gelu")):
            left = np.asfortranarray(a) if turned else a
            out = before.copy() if accumulate else np.full((rows, cols), np.nan, dtype)
            options = {"alpha": alpha, "accumulate": accumulate, "activation": activation}
            assert gemm(left, b, out=out, bias=bias if biased else None, **options) is out
            expected = alpha * (a.astype(float) @ b) + accumulate * before.astype(float) + biased * bias
            expected = reference(activation, expected)
            np.testing.assert_allclose(out, expected, rtol=0, atol=300 * np.finfo(dtype).eps * depth**0.5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(rng, activation):
    a, b = rng.standard_normal((5, 4)), rng.standard_normal((4, 19))
    np.testing.assert_allclose(gemm(a, b, activation=activation), reference(activation, a @ b), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    "left, right",
    [
        ((3, 5, 7), (3, 7, 6)),
        ((3, 5, 7), (7, 6)),
        ((5, 7), (3, 7, 6)),
        ((2, 1, 5, 7), (3, 7, 6)),
        ((2, 3, 5, 7), (2, 1, 7, 6)),
        ((1, 5, 7), (4, 7, 6)),
        ((0, 5, 7), (7, 6)),
        ((3, 5, 0), (3, 0, 6)),
        ((3, 0, 7), (3, 7, 6)),
        ((2, 0), (0, 0)),
    ],
)
def test_batches(rng, left, right):
    a, b = integers(rng, *left), integers(rng, *right)
    found = gemm(a, b)
    assert found.shape == (a @ b).shape
    assert (found == a @ b).all()
    assert (gemm(a, b, accumulate=True) == a @ b).all()


def test_out(rng):
    a, b = integers(rng, 5, 7), integers(rng, 7, 6)
    out = np.full((5, 6), np.nan)
    assert gemm(a, b, out=out) is out
    assert (out == a @ b).all()
    gemm(a, b, out=out, accumulate=True)
    assert (out == 2 * a @ b).all()
    nothing = np.empty((7, 0))
    assert (gemm(nothing, nothing.T, out=np.full((7, 7), np.nan)) == 0).all()
    assert (gemm(nothing, nothing.T, out=np.ones((7, 7)), accumulate=True, bias=np.arange(7.0)) == 1 + np.arange(7)).all()


def test_out_may_be_an_input(rng):
    """What the product overwrites it has read before."""
    for rows in (6, 150):
        a, b = integers(rng, rows, rows), integers(rng, rows, rows)
        left, right = a.copy(), b.copy()
        assert (gemm(left, right, out=left) == a @ b).all()
        assert (gemm(a, right, out=right) == a @ b).all()
        added = a.copy()
        gemm(added, b, out=added, accumulate=True, bias=added[0])
        assert (added == a + a @ b + a[0]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_in_place(rng, dtype):
    """Small and thin ones, whose matrices are read where they lie: in either order, and with rows long enough for streams."""
    shapes = [(1, 1, 1), (1, 70, 9), (2, 300, 5), (2, 65, 3), (3, 33, 40), (9, 17, 1), (1, 30, 800), (8, 257, 300), (7, 1, 20), (1, 600, 300)]
    shapes += [(7, 35, 770), (4, 17, 64), (13, 66, 100), (24, 9, 640), (40, 70, 20), (31, 3, 300), (5, 1030, 17)]
    for rows, cols, depth in shapes:
        a, b = integers(rng, rows, depth, dtype=dtype), integers(rng, depth, cols, dtype=dtype)
        expected = a @ b
        for a_turned, b_turned in product((False, True), repeat=2):
            c = np.full((rows, cols), np.nan, dtype)
            multiply(np.ascontiguousarray(a.T if a_turned else a), np.ascontiguousarray(b.T if b_turned else b), c, a_turned, b_turned)
            assert (c == expected).all(), (rows, cols, depth, a_turned, b_turned)
        c = np.full((rows, cols), np.nan, dtype)
        rows_by_rows(a, np.ascontiguousarray(b.T), b[0].copy(), ACTIVATIONS["relu"], c)
        assert (c == np.maximum(expected + b[0], 0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", [gemm_module._IN_PLACE, gemm_module._BY_PANELS])
@pytest.mark.usefixtures("all_threads")
def test_each_way_to_multiply_rows_by_rows(rng, dtype, way, monkeypatch):
    monkeypatch.setattr(gemm_module, "_transposed_way", lambda *given: (way, 1e9))
    for rows, cols, depth in ((1, 3, 800), (6, 19, 33), (130, 40, 300), (200, 5, 1), (255, 100, 17)):
        a, b = integers(rng, rows, depth, dtype=dtype), integers(rng, cols, depth, dtype=dtype)
        for bias, activation in ((a[0, :0], 0), (b[:, 0].copy(), ACTIVATIONS["relu"])):
            c, expected = np.full((rows, cols), np.nan, dtype), a @ b.T
            rows_by_rows(a, b, bias, activation, c)
            assert (c == (np.maximum(expected + bias, 0) if activation else expected)).all(), (rows, cols, depth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_vectors_are_added(rng, dtype):
    """To what C holds: tiles of four rows, two, and one, and columns that fill none."""
    for rows, cols, depth in ((7, 18, 40), (4, 3, 17), (1, 21, 900)):
        a, b, c = (integers(rng, *shape, dtype=dtype) for shape in ((rows, depth), (cols, depth), (rows, cols)))
        expected = c + a @ b.T
        gemm_strided(1, rows, cols, depth, a.reshape(-1), (0, depth, 1), b.reshape(-1), (0, 1, depth), c.reshape(-1), (0, cols), accumulate=True)
        assert (c == expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("all_threads")
def test_small_products_of_a_batch(rng, dtype):
    """Worked on side by side: batches that fill no vector and several blocks, every order of the elements, and what they leave to others."""
    for batch, rows, cols, depth in ((33, 4, 4, 4), (700, 3, 5, 2), (47, 1, 64, 1), (50, 8, 1, 8), (40, 7, 8, 9)):
        a, b = integers(rng, batch, rows, depth, dtype=dtype), integers(rng, batch, depth, cols, dtype=dtype)
        for left, right in product(
            (a, np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)), (b, np.ascontiguousarray(b.swapaxes(1, 2)).swapaxes(1, 2), b[:1])
        ):
            assert (gemm(left, right, alpha=-2) == -2 * (left @ right)).all()
            assert (gemm(left, right, bias=b[0, 0], activation="relu") == np.maximum(left @ right + b[0, 0], 0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("all_threads")
def test_many_rows_by_few_columns(rng, dtype):
    for rows, cols, depth in ((300, 3, 4), (129, 1, 5), (129, 1, 40), (200, panel_width(dtype), 2), (140, 7, 100), (140, panel_width(dtype) + 1, 3)):
        a, b, bias = (integers(rng, *shape, dtype=dtype) for shape in ((rows, depth), (depth, cols), (cols,)))
        before, expected = integers(rng, rows, cols, dtype=dtype), a @ b
        for left, right in product((a, np.asfortranarray(a)), (b, np.asfortranarray(b))):
            assert (gemm(left, right) == expected).all()
            assert (gemm(left, right, bias=bias, activation="relu") == np.maximum(expected + bias, 0)).all()
            assert (gemm(left, right, bias=bias, out=before.copy(), accumulate=True) == before + expected + bias).all()


def test_not_a_number_stays_where_it_is(rng):
    """Also in the reduction that was padded or cut, and beside columns that are not there."""
    for rows, cols, depth in ((9, 19, 5), (17, 33, KC + 1)):
        a, b = rng.standard_normal((rows, depth)), rng.standard_normal((depth, cols))
        a[rows // 2, -1] = np.nan
        b[0, cols - 1] = np.inf
        with np.errstate(invalid="ignore"):
            expected = a @ b
        np.testing.assert_allclose(gemm(a, b), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("all_threads")
def test_one_thread_and_many_give_the_same_bits(rng, dtype):
    many = _threads._available()
    if many == 1:
        pytest.skip("needs two threads")
    for rows, cols, depth in (
        (7, 5, 3), (1, 700, 300), (700, 1, 300), (130, 257, 2 * KC + 3), (8, 4136, 9), (300, 4136, 9), (24, 1030, 144), (100, 49, 300), (77, 196, 70),
    ):  # fmt: skip
        a, b = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, cols)).astype(dtype)
        results = []
        for threads in (1, many):
            fastops.set_num_threads(threads)
            results.append(gemm(a, b, bias=b[0], alpha=0.3).tobytes())
        assert results[0] == results[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("all_threads")
def test_nothing_outside_the_result_is_written(rng, dtype):
    """A result in the middle of a larger array: rows apart, batches apart, guards before and behind."""
    for batch, rows, cols, depth in ((1, 1, 1, 1), (2, 3, 5, 2), (2, MR + 3, panel_width(dtype) + 3, 4), (1, 70, 150, KC + 9), (2, 71, 81, 99)):
        a, b = integers(rng, batch, rows, depth, dtype=dtype), integers(rng, batch, depth, cols, dtype=dtype)
        gap, start = 3, 11
        row = cols + gap
        plane = rows * row + 7
        for accumulate, bias_axis in product((False, True), (0, 1)):
            flat = rng.integers(50, 99, start + batch * plane + 64).astype(dtype)
            inside = np.zeros(flat.size, bool)
            c = np.lib.stride_tricks.as_strided(
                inside[start:], (batch, rows, cols), (plane, row, 1), writeable=True
            )  # fmt: skip
            c[...] = True
            before = flat.copy()
            bias = integers(rng, (rows, cols)[bias_axis], dtype=dtype)
            gemm_strided(
                batch, rows, cols, depth, a.reshape(-1), (rows * depth, depth, 1), b.reshape(-1), (depth * cols, cols, 1),
                flat[start:], (plane, row), accumulate=accumulate, bias=bias, bias_axis=bias_axis, activation=0,
            )  # fmt: skip
            assert (flat[~inside] == before[~inside]).all()
            expected = a @ b + (bias[:, None] if bias_axis == 0 else bias)
            expected += accumulate * before[inside].reshape(batch, rows, cols)
            assert (flat[inside].reshape(batch, rows, cols) == expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [1, 3, 49, 128, 129, KC + 1])
def test_a_sum_over_the_batch(rng, dtype, depth):
    """Also where a chunk of the reduction spans several items, and its last one fewer."""
    batch, rows, cols = 7, MR * 17 + 3, panel_width(dtype) + 5
    for a_turned, b_turned in product((False, True), repeat=2):
        a, b = integers(rng, batch, rows, depth, dtype=dtype), integers(rng, batch, depth, cols, dtype=dtype)
        c, bias = integers(rng, rows, cols, dtype=dtype), integers(rng, cols, dtype=dtype)
        expected = c + (a @ b).sum(axis=0) + bias
        left = np.ascontiguousarray(a.swapaxes(1, 2)) if a_turned else a
        right = np.ascontiguousarray(b.swapaxes(1, 2)) if b_turned else b
        gemm_strided(
            batch, rows, cols, depth, left.reshape(-1), (rows * depth, *((1, rows) if a_turned else (depth, 1))), right.reshape(-1),
            (depth * cols, *((1, depth) if b_turned else (cols, 1))), c.reshape(-1), (0, cols), accumulate=True, bias=bias, summed=True,
        )  # fmt: skip
        assert (c == expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("run", [1, 5, 49, 200])
@pytest.mark.parametrize("a_turned", [False, True])
def test_columns_in_runs(rng, dtype, run, a_turned):
    """Images side by side, (channels, images, pixels), though each lies elsewhere."""
    images, rows, depth, gap = 6, 2 * 128 + 9, KC + 3, 4
    x = integers(rng, images, depth, run, dtype=dtype)
    w, bias = integers(rng, rows, depth, dtype=dtype), integers(rng, rows, dtype=dtype)
    source = np.full((images, depth * run + gap), np.nan, dtype)
    source[:, : depth * run] = x.reshape(images, -1)
    c = np.full((images, rows * run + gap), 7, dtype)
    left = np.ascontiguousarray(w.T) if a_turned else w
    gemm_strided(
        1, rows, images * run, depth, left.reshape(-1), (0, 1, rows) if a_turned else (0, depth, 1), source.reshape(-1), (0, run, 1),
        c.reshape(-1), (0, run), bias=bias, bias_axis=0, activation=1, runs=(run, depth * run + gap, rows * run + gap),
    )  # fmt: skip
    assert (c[:, rows * run :] == 7).all()
    assert (c[:, : rows * run].reshape(images, rows, run) == np.maximum(w @ x + bias[:, None], 0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "leaky_relu"])
@pytest.mark.parametrize("rows", [MR * 3, MR * 130 + 7])
@pytest.mark.parametrize("bias_axis", [0, 1])
@pytest.mark.parametrize("accumulate", [False, True])
def test_bias_and_activation(rng, dtype, activation, rows, bias_axis, accumulate):
    """In registers or in a pass of their own: after all chunks of the reduction, and once."""
    cols, depth = 5 * panel_width(dtype) + 3, 2 * KC + 1
    a, b = integers(rng, rows, depth, dtype=dtype) / 64, integers(rng, depth, cols, dtype=dtype)
    c, bias = integers(rng, rows, cols, dtype=dtype), integers(rng, (rows, cols)[bias_axis], dtype=dtype)
    expected = a @ b + (bias[:, None] if bias_axis == 0 else bias) + accumulate * c
    if activation is not None:
        expected = reference(activation, expected)
    code = ACTIVATIONS[activation] if activation else 0
    gemm_strided(
        1, rows, cols, depth, a.reshape(-1), (0, depth, 1), b.reshape(-1), (0, cols, 1), c.reshape(-1), (0, cols), accumulate=accumulate,
        bias=bias, bias_axis=bias_axis, activation=code,
    )  # fmt: skip
    np.testing.assert_allclose(c, expected, rtol=1e-6 if dtype == "float32" else 1e-14, atol=0)


def test_what_is_not_a_number_passes_through_relu(rng):
    a, b = integers(rng, 200, 40, dtype="float32"), integers(rng, 40, 400, dtype="float32")
    a[7, 3], b[5, 9] = np.nan, np.inf
    a[:, 5] = 1
    for name, most in (("relu", np.inf), ("relu6", 6)):
        c, bias = np.empty((200, 400), "float32"), integers(rng, 200, dtype="float32")
        gemm_strided(
            1, 200, 400, 40, a.reshape(-1), (0, 40, 1), b.reshape(-1), (0, 400, 1), c.reshape(-1), (0, 400), bias=bias, bias_axis=0,
            activation=ACTIVATIONS[name],
        )  # fmt: skip
        np.testing.assert_array_equal(c, np.clip(a @ b + bias[:, None], 0, most))
        assert np.isnan(c[7]).all()
        assert (np.delete(c[:, 9], 7) == most).all()


def test_inputs_are_read_and_no_more(rng):
    """What lies around them is not a number; what they hold stays."""
    for turned in (False, True):
        memory = np.full((40, 60), np.nan)
        memory[10:29, 20:43] = integers(rng, 19, 23)
        a = memory[10:29, 20:43]
        b = np.asfortranarray(memory[10:29, 20:43]).T if turned else np.ascontiguousarray(memory[10:29, 20:43].T)
        copy, other = memory.copy(), b.copy()
        assert (gemm(a, b) == a @ b).all()
        np.testing.assert_array_equal(memory, copy)
        np.testing.assert_array_equal(b, other)


A, B = np.ones((3, 4)), np.ones((4, 5))


@pytest.mark.parametrize(
    "error, message, a, b, options",
    [
        (TypeError, "a and b must both be float32 or both float64, got int64", A.astype(int), B.astype(int), {}),
        (TypeError, "both", A.astype("float32"), B, {}),
        (TypeError, "both", A.astype("float16"), B.astype("float16"), {}),
        (TypeError, "both", A.astype(complex), B.astype(complex), {}),
        (TypeError, "both", A.astype(object), B.astype(object), {}),
        (ValueError, r"a must be \(..., M, K\) and b \(..., K, N\), got \(3, 4\) and \(3, 4\)", A, A, {}),
        (ValueError, "a must be", A[0], B, {}),
        (ValueError, "a must be", A, B[:, 0], {}),
        (ValueError, "a must be", A, np.float64(1), {}),
        (ValueError, "broadcast", np.ones((2, 3, 4)), np.ones((3, 4, 5)), {}),
        (ValueError, r"out must be .*\(3, 5\) float64, got \(5, 3\)", A, B, {"out": np.empty((5, 3))}),
        (ValueError, "out must be", A, B, {"out": np.empty((3, 5), "float32")}),
        (ValueError, "out must be", A, B, {"out": np.empty((5, 3)).T}),
        (ValueError, "out must be", A, B, {"out": np.broadcast_to(np.zeros(5), (3, 5))}),
        (ValueError, "out must be aligned", A, B, {"out": np.zeros(121, np.uint8)[1:].view(np.float64).reshape(3, 5)}),
        (ValueError, "activation must be None or one of relu, ", A, B, {"activation": "swish"}),
        (ValueError, r"bias must be \(5,\) float64, got \(3,\)", A, B, {"bias": np.ones(3)}),
        (ValueError, "bias must be", A, B, {"bias": np.ones(5, "float32")}),
    ],
)
def test_bad_input(error, message, a, b, options):
    with pytest.raises(error, match=message):
        gemm(a, b, **options)


def test_any_memory_and_lists(rng):
    a, b = integers(rng, 3, 4), integers(rng, 4, 5)
    swapped = [m.astype(m.dtype.newbyteorder()) for m in (a, b)]
    assert (gemm(*swapped) == a @ b).all()
    unaligned = np.zeros(a.nbytes + 1, np.uint8)[1:].view(np.float64).reshape(a.shape)
    unaligned[...] = a
    assert (gemm(unaligned, b) == a @ b).all()
    assert (gemm(a.tolist(), b.tolist(), bias=[1.0] * 5) == a @ b + 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_times_a_transposed_matrix(rng, dtype):
    """Computed turned: whole panels of rows and nearly whole ones, all remainders of columns, more steps than are packed at once."""
    for rows, cols, depth in [(32, 64, 70), (31, 129, 300), (64, 71, 257), (128, 200, 100), (125, 145, 40), (32, 33, 9001)]:
        a, b = integers(rng, rows, depth, dtype=dtype), integers(rng, cols, depth, dtype=dtype)
        bias, before = integers(rng, cols, dtype=dtype), integers(rng, rows, cols, dtype=dtype)
        assert (gemm(a, b.T) == a @ b.T).all()
        assert (gemm(a, b.T, bias=bias, activation="relu") == np.maximum(a @ b.T + bias, 0)).all()
        assert (gemm(a, b.T, accumulate=True, out=before.copy()) == before + a @ b.T).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, depth", [(MR + 1, 130), (3 * MR, 300), (70, 50), (70, 130), (130, KC + 9), (KC + 70, 140)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("all_threads")
def test_panels_that_are_read_in_place_or_packed(rng, dtype, rows, depth, threads):
    """Few rows, a short sum, and neither; columns that end in a few, in a vector, and in a part of one."""
    fastops.set_num_threads(threads)
    width = panel_width(dtype)
    for cols in (width * 34 + 1, width + width // 2 + 1, width * 3 + 2, width * 2 + width // 4 + 3):
        a, b = integers(rng, rows, depth, dtype=dtype), integers(rng, depth, cols, dtype=dtype)
        before, bias, shift = integers(rng, rows, cols, dtype=dtype), integers(rng, cols, dtype=dtype), integers(rng, rows, dtype=dtype)
        expected = a @ b
        assert (gemm(a, b) == expected).all()
        assert (gemm(np.asfortranarray(a), b) == expected).all()
        assert (gemm(a, np.asfortranarray(b)) == expected).all()
        assert (gemm(a, b, accumulate=True, out=before.copy()) == before + expected).all()
        assert (gemm(a, b, bias=bias, alpha=2.0, activation="relu") == np.maximum(2 * expected + bias, 0)).all()
        c = np.empty(expected.size, dtype)
        gemm_strided(
            1, rows, cols, depth, a.reshape(-1), (0, depth, 1), b.reshape(-1), (0, cols, 1), c, (0, cols), bias=shift, bias_axis=0,
            activation=ACTIVATIONS["relu6"],
        )  # fmt: skip
        assert (c.reshape(rows, cols) == np.clip(expected + shift[:, None], 0, 6)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_in_chunks_of_different_depth(rng, dtype):
    a, b = np.asfortranarray(integers(rng, 127, 319, dtype=dtype)), integers(rng, 319, 145, dtype=dtype)
    expected = a @ b
    for _ in range(200):  # threads that share memory by mistake collide in one call of ten
        assert (gemm(a, b) == expected).all()


@pytest.mark.full
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_sizes(rng, dtype):
    for _ in range(400):
        rows, cols, depth = (int(n) for n in np.exp(rng.uniform(0, 6.5, 3)))
        a, b = integers(rng, rows, depth, dtype=dtype), integers(rng, depth, cols, dtype=dtype)
        a, b = (np.asfortranarray(m) if rng.random() < 0.5 else m for m in (a, b))
        assert (gemm(a, b) == a @ b).all(), (rows, cols, depth)
