"""The decorators: blocks and workers, errors, thread masks, and machine code free of double precision by accident."""

from __future__ import annotations

import os
import re
import textwrap
from typing import Any

import numba
import numpy as np
import pytest
from numba import types

import fastops
from fastops import _jit
from fastops._jit import address_of, call, call_at, launcher, parallel, separate
from fastops.simd.blocking import LANES
from fastops.simd.vector import load, store
from tests.processes import run_python

# ---- blocks


@separate
def _visit(block, worker, visits, workers, busy, crowd):
    busy[worker] += 1
    visits[block] += 1
    workers[block] = worker
    crowd[block] = busy[worker]  # 2 if another thread works under the same number
    busy[worker] -= 1


@launcher
def _visit_all(threads, blocks, visits, workers, busy, crowd):
    parallel(_visit, blocks, threads, (visits, workers, busy, crowd))


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 33])
def test_every_block_once_by_one_worker_at_a_time(threads):
    for blocks in (0, 1, 2, 3, 5, threads - 1, threads, threads + 1, 4999):
        visits, workers = np.zeros(blocks, np.int64), np.full(blocks, -1)
        busy, crowd = np.zeros(threads, np.int64), np.zeros(blocks, np.int64)
        _visit_all(threads, blocks, visits, workers, busy, crowd)
        assert (visits == 1).all()
        assert ((workers >= 0) & (workers < threads)).all()
        assert (crowd == 1).all()


@separate
def _add_one(block, worker, x, y):
    y[block] = x[block] + 1


@launcher
def _add_two_steps(threads, x, y, z):
    parallel(_add_one, x.size, threads, (x, y))
    parallel(_add_one, x.size, threads, (y, z))


def test_a_second_parallel_step_sees_what_the_first_wrote():
    x = np.arange(1000.0)
    for threads in (1, 2, 5):
        y, z = np.empty_like(x), np.empty_like(x)
        _add_two_steps(threads, x, y, z)
        np.testing.assert_array_equal(z, x + 2)


@separate
def _note(block, worker, small, real, flag, pair, out):
    out[block] = small + real + flag + pair[0] * pair[1] + block


@launcher
def _notes(threads, small, out):
    # literals, narrow integers, booleans and tuples arrive as what the body was compiled for
    parallel(_note, out.size, threads, (small, out.dtype.type(0.5), True, (3, 4), out))


def test_arguments_of_any_plain_type():
    for threads in (1, 3):
        out = np.zeros(10, np.float32)
        _notes(threads, np.int8(-2), out)
        np.testing.assert_array_equal(out, np.arange(10) - 2 + 0.5 + 1 + 12)


# ---- errors


@separate
def _greedy(block, worker, size, bad, out):
    if block == bad:
        out[block] = np.empty(size).size
    else:
        out[block] = 1


@launcher
def _greedy_blocks(threads, size, bad, out):
    parallel(_greedy, out.size, threads, (size, bad, out))


@launcher
def _greedy_call(threads, size, bad, out):
    call(_greedy, (0, 0, size, bad, out))
    out[1] = 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_block_that_fails_is_an_exception(threads):
    """Memory that is not to be had; the next call works."""
    for bad in (0, 7, 99):
        out = np.zeros(100)
        with pytest.raises(RuntimeError, match="_greedy: a block failed"):
            _greedy_blocks(threads, 1 << 58, bad, out)
        assert out[bad] == 0
        _greedy_blocks(threads, 5, bad, out)
        assert out[bad] == 5
        assert out.sum() == 104


def test_a_call_that_fails_is_an_exception():
    out = np.zeros(2)
    with pytest.raises(MemoryError):
        _greedy_call(1, 1 << 58, 0, out)
    assert out[1] == 0
    _greedy_call(1, 5, 0, out)
    assert out.tolist() == [5, 1]


def test_checked_mode_finds_what_is_out_of_bounds():
    """Scalar and vector accesses, called and in blocks, in serial and in parallel; the package's own kernels pass."""
    code = """
        import numpy as np
        import pytest
        import fastops
        import test_jit
        from fastops import _jit
        assert _jit.CHECKED

        x = np.arange(100.0, dtype=np.float32)
        out = np.zeros(100, np.float32)
        for f in (test_jit._read_scalar, test_jit._read_vector):
            f(1, 0, x, out)
            assert out[0] == x[0]
            for at in (x.size, -(1 << 40), 1 << 40):
                with pytest.raises(IndexError):
                    f(1, at, x, out)
        for threads in (1, 2):
            test_jit._read_vectors(threads, 0, x, out)
            with pytest.raises(RuntimeError, match="a block failed"):
                test_jit._read_vectors(threads, 95, x, out)

        a = np.arange(96.0).reshape(2, 3, 4, 4)
        w = np.ones((1, 3, 1, 1))
        for strategy in ("naive", "pointwise"):
            assert (fastops.conv2d(a, w, strategy=strategy) == a.sum(1, keepdims=True)).all()
    """

    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    code = f"import sys; sys.path[:0] = {path.split(os.pathsep)}\n" + textwrap.dedent(code)
    run_python(code, FASTOPS_CHECKED=1)


@launcher
def _read_scalar(threads, at, x, out):
    out[0] = x[at]


@launcher
def _read_vector(threads, at, x, out):
    from_there = load(x, at)
    store(out, 0, from_there)


@separate
def _read_vector_block(block, worker, at, x, out):
    store(out, 0, load(x, at + block % 2))


@launcher
def _read_vectors(threads, at, x, out):
    parallel(_read_vector_block, 10, threads, (at, x, out))


# ---- the other decorators


@separate
def _plus(x, amount):
    x[0] += amount


@separate
def _minus(x, amount):
    x[0] -= amount


@launcher
def _apply(threads, address, x, amount):
    call_at(address, (x, amount))


def test_a_function_chosen_at_run_time():
    x = np.zeros(1)
    for f, expected in ((_plus, 3), (_minus, 0), (_plus, 3)):
        _apply(1, address_of(f, types.float64[::1], types.intp), x, 3)
        assert x[0] == expected


# ---- precision


def _externals_of(*parts: str) -> list[tuple[str, str, Any]]:
    """The @separate functions in use with float32 arrays and no float64 ones, of these modules or names."""
    found = []
    for module, name, argtypes in list(_jit._externals._known.values()):
        if "float32" in str(argtypes) and "float64" not in str(argtypes) and module.startswith("fastops."):
            if any(part in f"{module}.{name}" for part in parts):
                found.append((module, name, argtypes))
    return found


def _instructions(module: str, name: str, argtypes: Any) -> list[str]:
    """The optimised code of a function, compiled anew."""
    dispatcher = numba.njit(**_jit.FLAGS, **_jit._INNER)(_jit._externals._made[module, name].py_func)
    address_of(dispatcher, *argtypes)  # until then it is neither optimised nor machine code
    (llvm,) = dispatcher.inspect_llvm().values()
    body = [line.strip() for line in llvm.splitlines() if not line.startswith(("declare", "!", ";"))]
    assert len(body) > 10
    return body


def test_without_a_compiler_the_first_call_says_why():
    code = """
import numpy as np, fastops
for call in (lambda: fastops.relu(np.ones(3)), lambda: fastops.conv2d(np.ones((1, 8, 9, 9)), np.ones((8, 8, 3, 3)), activation="gelu")):
    try:
        call()
    except RuntimeError as error:
        assert "NUMBA_DISABLE_JIT" in str(error), error
    else:
        raise AssertionError("it ran")
"""
    run_python(code, NUMBA_DISABLE_JIT=1)


def test_helpers_alone_get_no_machine_code():
    """They are optimised where they are compiled into a kernel; of their own they would be thrown away."""
    helper = numba.njit(**_jit.FLAGS, **_jit._INNER)(_twice.py_func)
    signature = (types.float32[::1],)
    helper.compile(signature)
    library = helper.overloads[signature].library
    assert not library._finalized
    address_of(helper, *signature)
    assert library._finalized


def _doubles(module: str, name: str, argtypes: Any) -> list[str]:
    """Instructions in double precision in a function."""
    return [line for line in _instructions(module, name, argtypes) if re.search(r"\bdouble\b", line)]


def _run_strategies(*names: str, **options: Any) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 8, 12, 12), np.float32), rng.standard_normal((8, 8, 3, 3), np.float32)
    dy = rng.standard_normal(x.shape, np.float32)
    for name in names:
        fastops.conv2d(x, w, w[0, 0, 0, :1].repeat(8), padding=1, strategy=name, **options)
        fastops.conv2d_backward(dy, x, w, padding=1, strategy=name)


@separate
def _promotes(x):
    x[0] *= 0.1  # a Python number: double precision


def test_double_would_be_seen():
    assert _doubles(_promotes.py_func.__module__, "_promotes", (types.float32[::1],))


def test_no_double_in_float32_products_and_transforms():
    _run_strategies("winograd", "implicit")
    functions = _externals_of(".finished_product", ".table_product", "_f4x4_3x3_to_tiles", "_f4x4_3x3_to_image")
    assert len({name for _, name, _ in functions}) == 4
    for each in functions:
        assert _doubles(*each) == [], each[:2]


@pytest.mark.skipif(_jit.CHECKED, reason="what raises an error counts references")
def test_no_references_are_counted_in_products():
    """In the loop over tiles: a call there also sends their sums to memory and back."""
    _run_strategies("winograd", "implicit")
    x, w = np.ones((1, 3, 9, 40), np.float32), np.ones((8, 3, 3, 3), np.float32)
    fastops.conv2d(x, w, strategy="depthwise")
    functions = _externals_of(".finished_product", ".table_product", ".stencil_product")
    assert len({name for _, name, _ in functions}) == 3
    for each in functions:
        assert not [line for line in _instructions(*each) if re.search(r"\bcall\b.*@NRT_(inc|dec)ref", line)], each[:2]


@separate
def _twice(x):
    for i in range(x.size):
        x[i] = x[i] + x[i]


@pytest.mark.skipif(_jit.CHECKED, reason="a loop that may stop at any element has no vectors")
def test_loops_are_as_wide_as_the_vectors():
    """LLVM would take half of an AVX-512 register for Intel's processors."""
    instructions = _instructions(_twice.py_func.__module__, "_twice", (types.float32[::1],))
    assert any(f"<{LANES['float32']} x float>" in line for line in instructions)


@pytest.mark.full
def test_no_double_in_any_float32_kernel():
    _run_strategies("winograd", "implicit", "im2col", "naive", activation="gelu")
    ones = np.ones((2, 8, 12, 12), np.float32)
    fastops.conv2d(ones, ones[:, :, :1, :1].copy(), strategy="pointwise")
    fastops.conv2d_backward(ones[:, :2].copy(), ones, ones[:, :, :1, :1].copy(), strategy="pointwise")
    depthwise = np.ones((8, 1, 3, 3), np.float32)
    fastops.conv2d(ones, depthwise, padding=1, groups=8, strategy="depthwise")
    fastops.conv2d_backward(ones, ones, depthwise, padding=1, groups=8, strategy="depthwise")
    apply = ("fastops.simd.epilogue", "apply", (types.intp, types.float32[::1], types.intp, types.intp))
    functions = [*_externals_of("fastops."), apply]
    assert len(functions) > 20
    wrong = {each[1]: doubles for each in functions if (doubles := _doubles(*each))}
    assert not wrong
