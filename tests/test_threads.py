"""Threads, nested use and fork with threads of our own and under each of Numba's layers, in processes that may die of it."""

from __future__ import annotations

import os
import sys
from functools import cache

import numpy as np
import pytest

import fastops
from fastops import _threads
from tests.processes import run_python, start_python

THREADS = 4

# A convolution whose result is known, which every call hands to all threads, however small it is.
SCRIPT = """
import multiprocessing, os, signal, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import fastops
from fastops import _threads

_threads._GRAIN_NS = 0
rng = np.random.default_rng(1)
x = rng.integers(-4, 5, (2, 3, 12, 11)).astype(float)
w = rng.integers(-4, 5, (5, 3, 3, 3)).astype(float)
expected = np.einsum("ncpqrs,kcrs->nkpq", np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3)), w)

def check(times=1):
    for _ in range(times):
        assert np.array_equal(fastops.conv2d(x, w, strategy="naive"), expected)

def in_child(function):
    "Fork, run the function in the child, and see that it succeeds."
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)  # a child that hangs dies of it
            function()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"child's status {status}"

warnings.filterwarnings("ignore", category=DeprecationWarning)  # fork with threads around: what is tested here
"""


def asked(layer: str) -> str:
    """What asks for the threading layer."""
    return "default" if layer == "pool" else layer


@cache
def loads(layer: str) -> bool:
    """Whether the threading layer can be had here."""
    process = start_python("import fastops; print(fastops.threading_info()['layer'])", NUMBA_THREADING_LAYER=asked(layer))
    out, err = process.communicate(timeout=120)
    if process.returncode == 0:
        return out.strip() == layer
    assert "No threading layer could be loaded" in err, err
    return False


@pytest.fixture(params=["pool", "tbb", "omp", "workqueue"])
def run(request):
    """Run a script under a threading layer."""
    layer = request.param
    if not loads(layer):
        pytest.skip(f"{layer} cannot be had here")

    def run(code: str) -> str:
        return run_python(SCRIPT + code, NUMBA_THREADING_LAYER=asked(layer), NUMBA_NUM_THREADS=THREADS)

    run.layer = layer
    return run


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def test_many_python_threads_and_nested_pools(run):
    layer = run("""
# the first calls, which compile or load the kernels, come together too
with ThreadPoolExecutor(4) as pool:
    for done in [pool.submit(check, 50) for _ in range(4)]:
        done.result()

def nested():
    with ThreadPoolExecutor(3) as inner:
        for done in [inner.submit(check, 10) for _ in range(3)]:
            done.result()

with ThreadPoolExecutor(3) as outer:
    for done in [outer.submit(nested) for _ in range(3)]:
        done.result()
check()
print(fastops.threading_info()["layer"])
""")
    assert layer.strip() == run.layer


@forks
def test_fork_after_a_kernel_ran(run):
    """By os.fork and by multiprocessing; and the child's child."""
    # GNU OpenMP's workers are not there after a fork, and it would wait for them.
    in_child = 1 if run.layer == "omp" else THREADS
    run(f"""
def allowed(threads):
    with _threads.region({THREADS}) as count:
        assert count == threads, count

check()
in_child(check)
in_child(lambda: in_child(check))
process = multiprocessing.get_context("fork").Process(target=check)
process.start()
process.join(60)
assert process.exitcode == 0
check()
allowed({THREADS})
in_child(lambda: allowed({in_child}))
""")


@forks
def test_fork_when_kernels_were_compiled_but_none_ran_in_parallel(run):
    run("""
fastops.set_num_threads(1)
check()
fastops.set_num_threads(fastops.threading_info()["available"])
in_child(check)
check()
""")


@forks
def test_fork_while_other_threads_run_kernels(run):
    """Their locks are held at that moment, by threads that the child does not have."""
    # OpenMP's workers are not there after a fork, nor TBB's, which could not be shut down before it.
    in_child = 1 if run.layer in ("omp", "tbb") else THREADS
    run(f"""
def allowed():
    check()
    with _threads.region({THREADS}) as count:
        assert count == {in_child}, count

check()
stop = threading.Event()
def busy():
    while not stop.is_set():
        check()
threads = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(3):
    time.sleep(0.02)
    in_child(allowed)
stop.set()
for thread in threads:
    thread.join()
""")


@forks
def test_fork_while_another_thread_compiles():
    """The child would inherit the compiler's lock without the thread that lets go of it."""
    fork = """
import numba
from numba.core.compiler_lock import global_compiler_lock

locked = threading.Event()
def compiling():
    with global_compiler_lock:
        locked.set()
        time.sleep(0.3)
thread = threading.Thread(target=compiling)
thread.start()
locked.wait()
in_child(lambda: numba.njit(lambda: 1)())
thread.join()
assert numba.njit(lambda: 2)() == 2
"""
    run_python(SCRIPT + fork)


def test_workqueue_serves_one_python_thread_at_a_time(monkeypatch):
    monkeypatch.setattr(_threads, "_layer", "workqueue")
    monkeypatch.setattr(_threads, "_ours", None)
    with _threads.region(3) as first:
        with _threads.region(3) as second:
            pass
        with _threads.region(3) as third:
            pass
    with _threads.region(3) as fourth:
        pass
    assert (first, second, third, fourth) == (3, 1, 1, 3)


def test_the_lock_is_let_go_when_a_kernel_fails(monkeypatch):
    monkeypatch.setattr(_threads, "_layer", "workqueue")
    monkeypatch.setattr(_threads, "_ours", None)
    with pytest.raises(ZeroDivisionError), _threads.region(2):
        raise ZeroDivisionError
    assert not _threads._lock.locked()


def test_results_do_not_depend_on_the_number_of_threads():
    """Also on numbers that divide nothing, and on more than the machine has cores; every strategy, every direction."""
    many = """
from fastops.ops.conv.strategies import STRATEGIES
rng = np.random.default_rng(2)

def results_of(strategy, options, x, w, dy):
    "Of the three directions, those that the strategy has."
    calls = (
        lambda: fastops.conv2d(x, w, **options, strategy=strategy),
        lambda: fastops.conv2d_backward(dy, x, w, **options, output_mask=(True, False, False), strategy=strategy)[0],
        lambda: fastops.conv2d_backward(dy, x, w, **options, output_mask=(False, True, False), strategy=strategy)[1],
    )
    results = []
    for call in calls:
        try:
            results.append(call().tobytes())
        except ValueError as refused:
            assert strategy in str(refused)
    return results

done = 0
for channels, options in (5, {"padding": 1}), (16, {"padding": 2, "dilation": 2}), (16, {"padding": 1, "stride": 2}):
    x = rng.standard_normal((3, channels, 17, 19)).astype(np.float32)
    w = rng.standard_normal((11, channels, 3, 3)).astype(np.float32)
    fastops.set_num_threads(1)
    dy = rng.standard_normal(fastops.conv2d(x, w, **options).shape).astype(np.float32)
    for strategy in STRATEGIES:
        results = {}
        for threads in (1, 2, 3, 5, 7):
            fastops.set_num_threads(threads)
            results[threads] = results_of(strategy.name, options, x, w, dy)
            assert results[threads] == results[1], (strategy.name, options, threads)
        done += len(results[1])
assert done > 24, done
"""
    run_python(SCRIPT + many, NUMBA_NUM_THREADS=7)


class TestSetNumThreads:
    @pytest.mark.parametrize("n", [1.0, "1", None, True, np.True_, [1], np.array([1, 1])])
    def test_not_an_integer(self, n):
        before = fastops.get_num_threads()
        with pytest.raises(TypeError, match="set_num_threads: n must be an integer, got "):
            fastops.set_num_threads(n)
        assert fastops.get_num_threads() == before

    @pytest.mark.parametrize("n", [0, -1, 1 << 20])
    def test_out_of_range(self, n):
        before = fastops.get_num_threads()
        with pytest.raises(ValueError, match=rf"set_num_threads: n must be between 1 and \d+ .*got {n}"):
            fastops.set_num_threads(n)
        assert fastops.get_num_threads() == before

    @pytest.mark.parametrize("n", [1, np.int64(1), np.uint8(1)])
    def test_any_integer(self, n):
        fastops.set_num_threads(n)
        assert fastops.get_num_threads() == 1
        assert type(fastops.get_num_threads()) is int
        assert fastops.threading_info()["threads"] == 1

    def test_holds_in_every_python_thread_and_leaves_numba_alone(self):
        script = """
import threading, numba, fastops
assert fastops.get_num_threads() == 3 == fastops.threading_info()["available"]
fastops.set_num_threads(2)
seen = []
thread = threading.Thread(target=lambda: seen.append(fastops.get_num_threads()))
thread.start()
thread.join()
assert seen == [2]
assert numba.get_num_threads() == 3
"""
        run_python(script, NUMBA_NUM_THREADS=3)


def test_small_work_is_not_shared(monkeypatch):
    monkeypatch.setattr(_threads, "_limit", 8)
    grain = _threads._GRAIN_NS
    assert [_threads.threads_for(n * grain) for n in (0, 0.5, 1, 2.9, 8, 1000)] == [1, 1, 1, 2, 8, 8]


def test_threading_info():
    info = fastops.threading_info()
    assert info == {
        "layer": info["layer"], "threads": fastops.get_num_threads(), "available": _threads._available(),
    }  # fmt: skip
    assert info["layer"] == "pool" if _threads.POOL else info["layer"] in ("tbb", "omp", "workqueue")
    assert _threads.layer() == info["layer"]


@pytest.mark.skipif(not os.path.exists(os.path.join(sys.prefix, "lib", "libtbb.so.12")), reason="no libtbb in this environment's lib")
def test_libtbb_of_the_environment_is_found():
    """The loader does not look there, and neither does Numba."""
    environment = {"NUMBA_THREADING_LAYER": "tbb", "LD_LIBRARY_PATH": ""}
    assert run_python("import fastops; print(fastops.threading_info()['layer'])", **environment).strip() == "tbb"


def test_four_threads_use_scratch_memory_of_their_own():
    """Strategies with workspaces, several shapes at once."""
    script = """
from fastops.ops.conv.strategies import STRATEGIES
from itertools import product

def case(strategy, size):
    rng = np.random.default_rng(size)
    a = rng.integers(-3, 4, (1, 4, size, size + 3)).astype(np.float32)
    k = rng.integers(-3, 4, (6, 4, 3, 3)).astype(np.float32)
    return lambda: fastops.conv2d(a, k, padding=1, strategy=strategy)

cases = []
for strategy, size in product([s.name for s in STRATEGIES], (5, 14, 33)):
    try:
        cases.append((case(strategy, size), case(strategy, size)()))
    except ValueError as refused:
        assert strategy in str(refused)

def work(number):
    for i in range(40):
        run, result = cases[(i * (2 * number + 1) + number) % len(cases)]
        assert run().tobytes() == result.tobytes()

assert len(cases) > 6
with ThreadPoolExecutor(4) as pool:
    for done in [pool.submit(work, number) for number in range(4)]:
        done.result()
"""
    run_python(SCRIPT + script, NUMBA_NUM_THREADS=THREADS)


# ---- threads of our own

ours = pytest.mark.skipif(not _threads.POOL, reason="Numba's threads are in use")

# What a test sees of the control block.
WORDS = """
import ctypes
from fastops import _jit, _thread_pool

def word(number):
    return ctypes.c_int64.from_address(_jit._share_blocks(0, 0, 0, 0, 0) + 8 * number).value

def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited for 10 s")
"""


@ours
def test_threads_without_work_sleep_and_wake():
    script = """
for _ in range(3):
    check(20)
    wait_for(lambda: word(_thread_pool._ASLEEP) == 3)
    assert word(_thread_pool._ALIVE) == 3
"""
    run_python(SCRIPT + WORDS + script, NUMBA_THREADING_LAYER="default", NUMBA_NUM_THREADS=THREADS)


@ours
def test_more_callers_than_slots():
    """Some find all slots taken, and do their work alone."""
    script = """
slots = [_thread_pool._SLOT + i * _thread_pool._SLOT_WORDS for i in range(_thread_pool._SLOTS)]
check()
address = _jit._share_blocks(0, 0, 0, 0, 0)
for slot in slots:  # as if somebody were at work in each
    ctypes.c_int64.from_address(address + 8 * (slot + _thread_pool._LOCK)).value = 1
turns = word(_thread_pool._TURN)
check()
assert word(_thread_pool._TURN) == turns
for slot in slots:
    ctypes.c_int64.from_address(address + 8 * (slot + _thread_pool._LOCK)).value = 0
with ThreadPoolExecutor(9) as pool:
    for done in [pool.submit(check, 100) for _ in range(9)]:
        done.result()
assert word(_thread_pool._TURN) > turns
for slot in slots:
    assert word(slot + _thread_pool._LOCK) == 0
    wait_for(lambda: word(slot + _thread_pool._GATE) == _thread_pool._CLOSED)
"""
    run_python(SCRIPT + WORDS + script, NUMBA_THREADING_LAYER="default", NUMBA_NUM_THREADS=THREADS)


@ours
def test_no_threads_to_be_had():
    script = """
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
check()
assert word(_thread_pool._ALIVE) == 0
"""
    run_python(SCRIPT + WORDS + script, NUMBA_THREADING_LAYER="default", NUMBA_NUM_THREADS=THREADS)


@ours
def test_calls_while_the_process_ends():
    """The threads have ended then; the caller works alone."""
    before = "import atexit\nlater = []\natexit.register(lambda: [call() for call in later])\n"  # the last of what is called at exit
    script = "check()\nlater.append(lambda: (check(), print('done')))"
    assert run_python(before + SCRIPT + script, NUMBA_THREADING_LAYER="default", NUMBA_NUM_THREADS=THREADS).strip() == "done"
