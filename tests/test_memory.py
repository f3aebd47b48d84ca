"""Large results: memory that is used again once nobody looks into it, and never before."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastops
from fastops import _memory
from fastops._memory import LARGE, empty, empty_like


@pytest.fixture
def kept(monkeypatch):
    """A store of its own, so that other tests' results take no part."""
    store = _memory._Kept()
    monkeypatch.setattr(_memory, "_kept", store)
    monkeypatch.setattr(_memory._Lender.__del__, "__defaults__", (store,))
    yield store
    gc.collect()


def test_what_numpy_would_make():
    for shape in [(), 0, 5, (0, 7), (3, 4), LARGE, (LARGE, 1), (2, 3, LARGE // 4)]:
        for dtype in ("float32", np.float64, np.dtype("int64"), np.uint8):
            made, expected = empty(shape, dtype), np.empty(shape, dtype)
            assert (made.shape, made.dtype, made.strides) == (expected.shape, expected.dtype, expected.strides)
            assert made.flags.carray
            if made.nbytes >= LARGE:
                assert made.ctypes.data % 64 == 0
    assert empty(3).dtype == np.float64
    turned = np.zeros((LARGE, 3), np.float32).T
    assert empty_like(turned).shape == turned.shape
    assert empty_like(turned).flags.c_contiguous
    with pytest.raises(MemoryError):
        empty((1 << 30, 1 << 30), np.float32)


def test_memory_is_used_again_when_the_last_view_is_gone(kept):
    a = empty(LARGE, np.float32)
    address, view = a.ctypes.data, a.reshape(2, -1)[1:, ::2]
    del a
    assert empty(LARGE, np.float32).ctypes.data != address
    del view
    smaller = empty(LARGE - 7, np.float32)  # about the same size
    assert smaller.ctypes.data == address
    assert empty(2 * LARGE, np.float32).ctypes.data != address


def test_no_result_changes_afterwards(kept):
    x = np.full(LARGE, -1.0, np.float32)
    first = fastops.relu(x)
    others = [fastops.relu(x + i) for i in range(4)]
    assert not first.any()
    assert [set(np.unique(y)) for y in others] == [{max(i - 1.0, 0.0)} for i in range(4)]
    addresses = {y.ctypes.data for y in (first, *others)}
    assert len(addresses) == 5


def test_what_is_kept_has_a_limit(kept, monkeypatch):
    monkeypatch.setattr(kept, "_most", 5 * LARGE)
    sizes = [LARGE * (1 + i % 3) for i in range(20)]
    arrays = [empty(size, np.uint8) for size in sizes]
    last = arrays[-1].ctypes.data
    while arrays:
        del arrays[0]
        assert kept._bytes == sum(block.size - 64 for block in kept._blocks.values()) <= 5 * LARGE
    assert empty(sizes[-1], np.uint8).ctypes.data == last  # the newest are kept
    assert kept._bytes > 0
    taken = [empty(size, np.uint8) for size in sizes]
    assert kept._bytes == 0
    assert len({a.ctypes.data for a in taken}) == len(taken)


def test_what_would_not_fit_pushes_nothing_out(kept, monkeypatch):
    monkeypatch.setattr(kept, "_most", 2 * LARGE)
    small = np.empty(LARGE + 64, np.uint8)
    _give(kept, small)
    _give(kept, np.empty(3 * LARGE, np.uint8))
    assert kept._bytes == LARGE
    assert kept.take(LARGE)[0] is small


def test_what_was_dropped_is_not_handed_out_by_another_size(kept, monkeypatch):
    """The allocator may use its address again for more or fewer bytes."""
    block = np.empty(LARGE + 64, np.uint8)
    monkeypatch.setattr(kept, "_most", LARGE)
    _give(kept, block)
    kept._blocks.clear()  # as if dropped
    kept._bytes = 0
    _give(kept, block[: LARGE // 2 + 64])
    assert kept.take(LARGE)[0].size == LARGE + 64
    assert kept.take(LARGE // 2)[1] == block.ctypes.data


def _give(kept, block):
    kept.give(block, block.ctypes.data)


def test_a_result_may_outlive_the_interpreter():
    code = "import builtins, numpy as np, fastops; np.kept = fastops.kept = builtins.kept = fastops.relu(np.ones((600, 1000)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_python_threads_never_share_memory():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def work(number: int) -> None:
            held = []
            for i in range(200):
                a = empty(LARGE // 4 + number % 2, np.float32)
                a[::4096] = number
                held.append(a)
                if i % 3 == 0:
                    for b in held:
                        assert (b[::4096] == number).all()
                    held.clear()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)
