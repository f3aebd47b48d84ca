"""Every operation under one roof: ``import fastops.functional as F``. Names and arguments are ``torch.nn.functional``'s.

The names stand in ``functional.pyi`` beside this file, a line each, where type checkers and editors read them too. A family
is imported when one of its names is first used: all of them together would add half a second to the first call.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from fastops._collector import paused

# "from fastops.ops.pool import max_pool2d as max_pool2d"
_LINES = (line.split() for line in Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8").splitlines())
_MODULES = {words[3]: words[1] for words in _LINES if words and words[0] == "from"}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'fastops.functional' has no attribute {name!r}")
    with paused():  # 0.04 s of the 0.5 that the first operation of a process takes
        value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return list(__all__)
