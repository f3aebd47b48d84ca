"""Threading layer, thread count, fork and lock rules.

On Linux the work is shared out to threads of our own (``_thread_pool``), elsewhere or where the user asks Numba for a layer
(``NUMBA_THREADING_LAYER``) to Numba's. Among those, TBB is taken where it is installed: it alone is safe under many Python
threads and nested parallelism. A fork shuts it down, but not while other threads live that have used it: the child would wait
for locks and threads of its parent, and runs serial then. Next comes OpenMP, whose worker threads do not survive a fork: a
forked child runs serial. Numba's own workqueue aborts the process when two Python threads use it at once, so it is entered
behind a lock, and whoever finds it taken runs serial.

A fork waits for the kernel that another thread is compiling: the child would inherit Numba's lock, and wait for it forever.
"""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
import site
import sys
import threading
from pathlib import Path
from typing import Any

from numba.core import config

from fastops import _thread_pool

# A parallel launch costs 1 us with the workers awake; those that have gone to sleep take some 30 us to wake, while the caller works.
_GRAIN_NS = 8_000

_lock = threading.Lock()
_forking = threading.local()
_forked = False
_tbb_users: set[int] = set()  # the threads that have used TBB
_tbb_left_running = False  # whether this process was forked while TBB could not be shut down
_limit: int | None = None
_layer: str | None = None
_ours: _thread_pool.ThreadPool | None = None

# Whether the threads are ours. Read once: kernels are compiled for the one or the other.
POOL = _thread_pool.SUPPORTED and config.THREADING_LAYER == "default"


def _preload_tbb() -> None:
    """`pip install tbb` puts libtbb in the environment's lib folder, where the loader does not look by itself."""
    if sys.platform.startswith("linux"):
        for base in (sys.prefix, sys.base_prefix, site.getuserbase()):
            path = Path(base) / "lib" / "libtbb.so.12"
            if path.exists():
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
                    return


if not POOL:
    _preload_tbb()


def _before_fork() -> None:
    numba_lock = sys.modules.get("numba.core.compiler_lock")
    held = getattr(numba_lock, "global_compiler_lock", None)
    if held is not None:
        held.acquire()
    _forking.held = held
    _forking.others = bool(_tbb_users & sys._current_frames().keys() - {threading.get_ident()})


def _after_fork() -> None:
    if _forking.held is not None:
        _forking.held.release()


def _after_fork_in_child() -> None:
    global _forked, _lock, _tbb_left_running
    _forked = True
    _tbb_left_running |= _forking.others
    _tbb_users.clear()
    _lock = threading.Lock()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def _available() -> int:
    return int(config.NUMBA_NUM_THREADS)


def get_num_threads() -> int:
    """The number of threads that fastops uses at most."""
    global _limit
    if _limit is None:
        _limit = _available()
    return _limit


def set_num_threads(n: int) -> None:
    """Use at most ``n`` threads from now on, in every Python thread.

    Raises:
        TypeError: ``n`` is not an integer.
        ValueError: ``n`` is not between 1 and the number that Numba was started with (``NUMBA_NUM_THREADS``, by
            default the number of cores).
    """
    global _limit
    try:
        if isinstance(n, bool):
            raise TypeError
        threads = operator.index(n)
    except TypeError:
        raise TypeError(f"set_num_threads: n must be an integer, got {type(n).__name__}") from None
    if not 1 <= threads <= _available():
        raise ValueError(f"set_num_threads: n must be between 1 and {_available()} (NUMBA_NUM_THREADS), got {n}")
    _limit = threads


def threads_for(nanoseconds: float) -> int:
    """How many threads are worth waking for work that takes one thread about so long."""
    if nanoseconds < 2 * _GRAIN_NS:
        return 1
    limit = _limit if _limit is not None else get_num_threads()
    return limit if nanoseconds >= limit * _GRAIN_NS else int(nanoseconds / _GRAIN_NS)


def layer() -> str:
    """The threading layer in use ("pool", or Numba's "tbb", "omp" or "workqueue"); starts it if need be."""
    global _layer
    if POOL:
        return "pool"
    if _layer is None:
        from numba.np.ufunc import parallel as numba_parallel

        numba_parallel._launch_threads()
        import numba

        _layer = str(numba.threading_layer())
    return _layer


def use_pool(pool: _thread_pool.ThreadPool) -> None:
    """Have these threads started at the first launch."""
    global _ours
    _ours = pool


class _Region:
    """Where parallel code may run: yields the number of threads allowed."""

    __slots__ = ("_held", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> int:
        self._held = False
        if _ours is not None:
            if not _ours.started:
                _ours.start(_available() - 1)
            return self._threads
        kind = _layer or layer()
        if kind == "tbb":
            if _tbb_left_running:
                return 1
            _tbb_users.add(threading.get_ident())
            return self._threads
        if kind == "omp":
            return 1 if _forked else self._threads
        self._held = _lock.acquire(blocking=False)
        return self._threads if self._held else 1

    def __exit__(self, *exc: object) -> None:
        if self._held:
            _lock.release()


region = _Region


def threading_info() -> dict[str, Any]:
    """The threading layer, the thread count in use and the most that can be asked for."""
    return {"layer": layer(), "threads": get_num_threads(), "available": _available()}
