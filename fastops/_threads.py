"""Threading layer, thread count, fork and lock rules."""
from __future__ import annotations

import os

_threads = os.cpu_count() or 1


def get_num_threads() -> int:
    """The number of threads that fastops uses at most."""
    return _threads


def set_num_threads(n: int) -> None:
    """Use at most ``n`` threads from now on."""
    global _threads
    _threads = n


def threads_for(nanoseconds: float) -> int:
    """How many threads are worth waking for work that takes one thread about so long."""
    return max(1, min(_threads, int(nanoseconds // 20_000)))
