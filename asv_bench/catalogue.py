"""The benchmarks that there are, under the names that asv gives them."""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Values of a parameter that stand for other people's code, there to be looked at beside ours.
REFERENCES = {"numpy", "scipy"}

KINDS = ("time_", "track_", "mem_", "peakmem_")


@dataclass(frozen=True)
class Benchmark:
    """One method of a benchmark class with one set of parameters."""

    name: str
    cls: Any
    method: str
    parameters: tuple[Any, ...]

    @property
    def label(self) -> str:
        """As in asv's ``-b``: ``conv.Forward.time_forward('winograd', 'resnet18.layer1')``."""
        return f"{self.name}({', '.join(map(repr, self.parameters))})" if self.parameters else self.name

    @property
    def gated(self) -> bool:
        """Whether it is of fastops and smaller is better; the gate compares nothing else."""
        return getattr(self.cls, "gated", True) and not REFERENCES.intersection(map(str, self.parameters))

    def setup(self) -> Any:
        """An instance ready for ``method``. NotImplementedError says that the benchmark is not for these parameters."""
        instance = self.cls()
        if hasattr(instance, "setup"):
            instance.setup(*self.parameters)
        return instance

    def run(self, instance: Any) -> Any:
        call: Callable[..., Any] = getattr(instance, self.method)
        return call(*self.parameters)


def find(file: str | None = None) -> tuple[list[Benchmark], dict[str, str]]:
    """All benchmarks, or those of one file, and of each file that cannot be imported the error."""
    import asv_bench.benchmarks as package

    found, broken = [], {}
    for name in [file] if file else [m.name for m in pkgutil.iter_modules(package.__path__)]:
        try:
            module = importlib.import_module(f"{package.__name__}.{name}")
        except Exception:
            broken[name] = traceback.format_exc()
            continue
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                for method in (m for m in dir(cls) if m.startswith(KINDS)):
                    for parameters in itertools.product(*getattr(cls, "params", ())):
                        found.append(Benchmark(f"{name}.{cls.__name__}.{method}", cls, method, parameters))
    return found, broken
