"""The one file that knows Numba's flags.

Three decorators make compiled code out of readable Python:

``@function``
    a helper that kernels call: scalar formulas, the body of a tile.
``@kernel``
    a whole loop nest over arrays written with ``prange``. It has two compiled forms, ``parallel`` and a
    ``serial`` twin in which ``prange`` is ``range``; both compile at the first call, neither at import.
    Call it as ``k(threads, *args)``: one thread runs the serial form.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

FLAGS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
REDUCTION_FLAGS = {**FLAGS, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def function(py_func: Callable[..., Any]) -> Any:
    """A helper compiled into the kernels that call it."""
    return numba.njit(**FLAGS)(py_func)


class Kernel:
    """The serial and the parallel form of one Python function."""

    def __init__(self, py_func: Callable[..., Any], flags: dict[str, Any]) -> None:
        self.__name__ = py_func.__name__
        self.__doc__ = py_func.__doc__
        self.__wrapped__ = py_func
        self.serial = numba.njit(**flags)(py_func)
        self.parallel = numba.njit(parallel=True, **flags)(py_func)

    def __call__(self, threads: int, *args: Any) -> Any:
        return (self.serial if threads == 1 else self.parallel)(*args)


def kernel(py_func: Callable[..., Any] | None = None, *, reduction: bool = False) -> Any:
    """``@kernel`` for maps, ``@kernel(reduction=True)`` where sums may be reassociated."""
    if py_func is None:
        return lambda f: kernel(f, reduction=reduction)
    return Kernel(py_func, REDUCTION_FLAGS if reduction else FLAGS)
