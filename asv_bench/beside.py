"""``python -m asv_bench.beside [FAMILY...]``: every named case beside PyTorch, in one process, in turns, best of many calls.

Prints the time of fastops and the ratio (PyTorch's time over it: above 1, fastops is faster) of the forward pass, and of
forward and backward, with the geometric mean and the worst of each family. Needs torch, which nothing else here does.
"""

from __future__ import annotations

import argparse
import importlib
import math
import pkgutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asv_bench.benchmarks import common

# A burst is at least so many calls and seconds: after a rest the first calls of 0.1 ms find cold caches, and take up to ten times as long.
BURST, BURST_SECONDS = 5, 0.005


def best(functions: Sequence[Callable[[], Any]], seconds: float, threads: int) -> list[float]:
    """The shortest time of each, calls taking turns in bursts: each side gets its own warm caches and threads."""
    for function in functions:
        function()
    times = [math.inf] * len(functions)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        for i, function in enumerate(functions):
            if threads > 1:
                # The other side's idle threads spin, and hold a core, for a while; ours have to wake up.
                time.sleep(0.02)
                function()
            since, calls = time.perf_counter(), 0
            while calls < BURST or time.perf_counter() - since < BURST_SECONDS:
                begun = time.perf_counter()
                function()
                times[i] = min(times[i], time.perf_counter() - begun)
                calls += 1
    return times


def torch_calls(case: common.Case, dtype: str) -> tuple[Callable[[], Any], Callable[[], Any] | None]:
    """The same in PyTorch: forward without a graph; forward and backward."""
    import torch
    import torch.nn.functional as F

    arrays, options = case.arguments(dtype)

    def tensor(value: Any) -> Any:
        if isinstance(value, list):
            return [tensor(one) for one in value]
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    function = (lambda F, tensors, options: getattr(F, case.op)(**tensors, **options)) if case.torch == "same" else case.torch
    assert callable(function)
    plain, followed = ({name: tensor(value) for name, value in arrays.items()} for _ in range(2))
    flat = [t for name, value in followed.items() if name not in case.data for t in (value if isinstance(value, list) else [value])]
    leaves = [t.requires_grad_(True) for t in flat if torch.is_tensor(t) and t.dtype.is_floating_point]
    ones: list[Any] = []

    def forward() -> Any:
        with torch.no_grad():
            return function(F, plain, options)

    def both() -> None:
        y = function(F, followed, options)
        outputs = [o for o in (y if isinstance(y, tuple) else (y,)) if torch.is_tensor(o) and o.requires_grad]
        if not ones:
            ones.extend(torch.ones_like(o) for o in outputs)
        torch.autograd.grad(outputs, leaves, ones, allow_unused=True)

    return forward, both


def table(family: str, threads: int, dtype: str, seconds: float, only: str) -> None:
    cases = importlib.import_module(f"asv_bench.benchmarks.{family}").CASES
    ratios: dict[str, list[tuple[float, str]]] = {"forward": [], "both": []}
    print(f"{family}: {threads} thread(s), {dtype}; milliseconds of fastops, and how many times longer PyTorch takes")
    for name, case in cases.items():
        if case.torch is None or only not in name:
            continue
        forward, backward = common.calls(case, dtype)
        their_forward, their_both = torch_calls(case, dtype)
        mine, theirs = best((forward, their_forward), seconds, threads)
        ratios["forward"].append((theirs / mine, name))
        line = f"  {name:44} {mine * 1e3:9.4f} {theirs / mine:7.2f}"
        if backward is not None and their_both is not None:
            gradient, theirs_all = best((backward, their_both), seconds, threads)
            ratios["both"].append((theirs_all / (mine + gradient), name))
            line += f"   with backward {(mine + gradient) * 1e3:9.4f} {theirs_all / (mine + gradient):7.2f}"
        print(line, flush=True)
    for kind, found in ratios.items():
        if found:
            mean = math.exp(sum(math.log(r) for r, _ in found) / len(found))
            worst = min(found)
            print(f"{family} {kind}: geometric mean {mean:.2f}, worst {worst[0]:.2f} ({worst[1]})")


def main() -> None:
    families = [m.name for m in pkgutil.iter_modules(importlib.import_module("asv_bench.benchmarks").__path__)]
    families = [f for f in families if hasattr(importlib.import_module(f"asv_bench.benchmarks.{f}"), "CASES")]
    parser = argparse.ArgumentParser(prog="python -m asv_bench.beside", description=__doc__.partition("\n\n")[0])
    parser.add_argument("families", nargs="*", choices=[*families, []], metavar="FAMILY", help=f"{', '.join(families)} (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each pair of calls")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains this")
    options = parser.parse_args()
    import torch

    import fastops

    fastops.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    for family in options.families or families:
        table(family, options.threads, options.dtype, options.seconds, options.only)


if __name__ == "__main__":
    main()
