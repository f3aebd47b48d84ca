"""``python -m asv_bench.smoke``: every benchmark with every parameter set once, at a tiny size, so that none is found broken by asv.

Ends with the line ``N passed, 0 failed`` and status 0, or with the failures and status 1.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

KINDS = ("time_", "track_", "mem_", "peakmem_")


def benchmarks() -> Iterator[tuple[str, Any, str]]:
    """Name, class and method of each, as asv finds them."""
    import asv_bench.benchmarks as package

    for module_info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                for method in (m for m in dir(cls) if m.startswith(KINDS)):
                    yield f"{module_info.name}.{cls.__name__}.{method}", cls, method


def once(cls: Any, method: str, parameters: tuple[Any, ...]) -> None:
    """Set up, call, take down. A benchmark that is not for these parameters says so by NotImplementedError."""
    benchmark = cls()
    steps: list[Callable[..., Any]] = [getattr(benchmark, s) for s in ("setup", method, "teardown") if hasattr(benchmark, s)]
    for step in steps:
        result = step(*parameters)
        if step.__name__.startswith("track_") and not isinstance(result, (int, float)):
            raise TypeError(f"{method} returned {result!r}, not a number")


def main() -> int:
    os.environ["FASTOPS_BENCH_TINY"] = "1"
    passed, refused, failed = 0, 0, []
    for name, cls, method in benchmarks():
        for parameters in itertools.product(*getattr(cls, "params", ())):
            label = f"{name}({', '.join(map(str, parameters))})"
            try:
                once(cls, method, parameters)
            except NotImplementedError:
                refused += 1
            except Exception:
                failed.append(label)
                print(f"FAILED {label}\n{traceback.format_exc()}", file=sys.stderr)
            else:
                passed += 1
    if refused:
        print(f"{refused} combinations of a strategy and a shape that it does not take")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    raise SystemExit(main())
