"""Neural-network operations and their gradients on NumPy arrays, compiled by Numba for the processor at hand.

Every operation of ``fastops.functional`` is a function of this package too:

    >>> import fastops, numpy as np
    >>> fastops.conv2d(np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3)), padding=1).shape
    (1, 4, 8, 8)

Names are looked up when they are first used: importing the package imports neither NumPy nor Numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastops import functional as functional
    from fastops import models as models
    from fastops import optim as optim
    from fastops._threads import get_num_threads as get_num_threads
    from fastops._threads import set_num_threads as set_num_threads
    from fastops._threads import threading_info as threading_info
    from fastops.autodiff import check_grad as check_grad
    from fastops.autodiff import checkpoint as checkpoint
    from fastops.autodiff import grad as grad
    from fastops.autodiff import value_and_grad as value_and_grad
    from fastops.autodiff import vjp as vjp
    from fastops.functional import *  # noqa: F403

__version__ = "0.1.0"

_THREADS = ("get_num_threads", "set_num_threads", "threading_info")
_AUTODIFF = ("check_grad", "checkpoint", "grad", "value_and_grad", "vjp")


def __getattr__(name: str) -> object:
    if name == "__all__":
        return sorted(["functional", "models", *_THREADS, *_AUTODIFF, *import_module("fastops.functional").__all__])
    if name in ("autodiff", "functional", "models", "optim"):
        return import_module(f"fastops.{name}")
    if name in _THREADS:
        value = getattr(import_module("fastops._threads"), name)
    elif name in _AUTODIFF:
        value = getattr(import_module("fastops.autodiff"), name)
    elif not name.startswith("_") and name in import_module("fastops.functional").__all__:
        value = getattr(import_module("fastops.functional"), name)
    else:
        raise AttributeError(f"module 'fastops' has no attribute {name!r}")
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return ["__version__", *__getattr__("__all__")]  # type: ignore[misc]
