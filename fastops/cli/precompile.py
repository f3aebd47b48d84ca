"""``python -m fastops precompile``: compiles the kernels ahead, so that no later call waits for it.

Compiling is what a call does when the cache does not have its kernels yet. So each piece of work here is a handful of small
calls of public functions, and the pieces are shared out to one process a core; the cache on disk brings the results together.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import product
from typing import Any

from fastops.cli._calls import CALLS
from fastops.cli._calls import run as run_call
from fastops.cli._options import whole

Work = tuple[str, Callable[[], None]]

# channels, size, out_channels, kernel, stride, padding, groups: between them they reach every kernel of every strategy.
# Most are large enough for the cost models to wake a second thread, for the parallel forms are what most calls use.
_CONVOLUTIONS = (
    # the kernels that Winograd has a variant for, with the transformed weights shared, and panel by panel
    *(
        (channels, size, channels, kernel, 1, (kernel[0] // 2, kernel[1] // 2), 1)
        for channels, size in ((32, (32, 32)), (256, (2, 8)))
        for kernel in ((3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (1, 5), (5, 1), (1, 7), (7, 1))
    ),
    (256, (28, 28), 256, (3, 3), 1, (1, 1), 1),  # where F(4x4, 3x3) takes less than F(2x2, 3x3)
    (18, (32, 32), 18, (7, 7), 1, (3, 3), 1),  # with channels that fill no vectors the weight gradient is not made of pieces
    # those that are made of pieces of its variants, or have two taps
    *(
        (channels, size, channels, kernel, stride, (kernel[0] // 2, kernel[1] // 2), 1)
        for channels, size in ((32, (32, 32)), (256, (4, 8)))
        for kernel, stride in (((3, 3), 2), ((1, 3), (1, 2)), ((3, 1), (2, 1)), ((9, 9), 1), ((1, 9), 1), ((9, 1), 1), ((2, 2), 1), ((1, 2), 1), ((2, 1), 1))
    ),
    # products: grouped, 1x1, small
    (64, (32, 32), 64, (3, 3), 1, (1, 1), 2),
    (128, (32, 32), 128, (1, 1), 1, (0, 0), 1),
    (128, (32, 32), 128, (1, 1), 2, (0, 0), 1),
    (8, (8, 8), 8, (3, 3), 1, (1, 1), 1),
    # depthwise: kernels of 3 and of 5 rows are taken whole, others row by row; small planes are turned
    *((128, (n, n), 128, (k, k), stride, (k // 2, k // 2), 128) for n in (64, 14) for k in (3, 5, 7) for stride in (1, 2)),
)


def _conv() -> Iterator[Work]:
    from fastops.ops.conv.strategies import STRATEGIES

    # The two dtypes share no machine code and follow each other, so that two processes rarely compile the same thing.
    for strategy in STRATEGIES:
        for data_format in ("NCHW", "NHWC"):
            for dtype in ("float32", "float64"):
                label = f"conv {strategy.name} {dtype} {data_format}"
                yield label, partial(_run_conv, strategy.name, dtype, data_format)
    for dtype in ("float32", "float64"):
        yield f"conv unfold and fold {dtype}", partial(_run_unfold, dtype)


def _run_conv(strategy: str, dtype: str, data_format: str) -> None:
    import numpy as np

    from fastops import functional as F

    for shape, precision in product(_CONVOLUTIONS, ("default", "highest")):
        channels, size, out_channels, kernel, stride, padding, groups = shape
        x = np.ones((1, channels, *size) if data_format == "NCHW" else (1, *size, channels), dtype)
        weight, bias = np.ones((out_channels, channels // groups, *kernel), dtype), np.zeros(out_channels, dtype)
        options: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "groups": groups,
            "precision": precision,
            "data_format": data_format,
        }
        dy = np.ones_like(F.conv2d(x, weight, bias, **options, strategy="naive"))
        calls: tuple[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]], ...] = (
            (F.conv2d, (x, weight, bias), {"activation": "relu"}),
            (F.conv2d_backward, (dy, x, weight, bias), {"output_mask": (True, False, False)}),
            (F.conv2d_backward, (dy, x, weight, bias), {"output_mask": (False, True, True)}),
        )
        for function, arrays, extra in calls:
            explained = F.explain(function, *arrays, **options, **extra)
            if any(row.accepted for row in explained.rows if row.name == strategy):
                function(*arrays, **options, **extra, strategy=strategy)


def _run_unfold(dtype: str) -> None:
    import numpy as np

    from fastops import functional as F

    columns = F.unfold(np.ones((1, 32, 64, 64), dtype), 3, padding=1)
    F.fold(columns, (64, 64), 3, padding=1)


def _small_calls(family: str) -> Iterator[Work]:
    for op in dict.fromkeys(op for op, _ in CALLS[family]):
        for dtype in ("float32", "float64"):
            yield f"{family} {op} {dtype}", partial(_run_small, family, op, dtype)


def _run_small(family: str, op: str, dtype: str) -> None:
    # What makes the arguments cannot be pickled, so the calls reach their process by name.
    for name, make in CALLS[family]:
        if name == op:
            run_call(op, make, dtype)


def _optim() -> Iterator[Work]:
    for dtype in ("float32", "float64"):
        yield f"optim {dtype}", partial(_run_optim, dtype)


def _run_optim(dtype: str) -> None:
    import numpy as np

    from fastops import optim

    params = {"w": np.ones((40, 24), dtype)}
    optimizers = [getattr(optim, name)() for name in ("sgd", "adagrad", "adadelta", "adam", "adamax", "lion", "muon")]
    optimizers += [optim.sgd(momentum=0.9), optim.adam(amsgrad=True)]
    optimizers += [optim.rmsprop(momentum=momentum, centered=centered) for momentum in (0.0, 0.9) for centered in (False, True)]
    for optimizer in optimizers:
        for inplace in (False, True):
            optimizer.update(params, params, optimizer.init(params), inplace=inplace)
    optim.clip_grad_norm(params, 1.0)
    optim.clip_grad_value(params, 1.0)


FAMILIES: dict[str, Callable[[], Iterator[Work]]] = {
    "conv": _conv,
    **{family: partial(_small_calls, family) for family in CALLS},
    "optim": _optim,
}


def _family(name: str) -> str:
    if name not in FAMILIES:
        raise argparse.ArgumentTypeError(f"no family {name!r}; there are: {', '.join(FAMILIES)}")
    return name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "families",
        nargs="*",
        type=_family,
        metavar="FAMILY",
        help=f"what to compile (all by default): {', '.join(FAMILIES)}",
    )
    parser.add_argument("-j", "--threads", type=whole(1), metavar="N", help="how many processes compile (default: one a core)")
    parser.add_argument("--clear", action="store_true", help="empty the cache first; without a FAMILY, do no more than that")


def _in_worker() -> None:
    # Ctrl-C reaches the whole process group. A worker has nothing to tell then: it just goes, unless the command was
    # started to ignore it, as a shell starts what it runs in the background.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _compile(call: Callable[[], None]) -> None:
    """One piece of work, in both forms of each kernel: the serial one and the parallel one."""
    from fastops._threads import get_num_threads, set_num_threads

    available = get_num_threads()
    for threads in sorted({1, available}):
        set_num_threads(threads)
        call()


def _fill(families: list[str], processes: int) -> list[str]:
    """Compiles the families; returns what went wrong, a line for each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    work = [piece for family in families for piece in FAMILIES[family]()]
    failures: list[str] = []
    with (
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
        ProcessPoolExecutor(min(processes, len(work)), mp_context=multiprocessing.get_context("spawn"), initializer=_in_worker) as pool,
    ):
        bar = progress.add_task("", total=len(work))
        futures = {pool.submit(_compile, call): label for label, call in work}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except BrokenProcessPool:
                    return [*failures, f"{futures[future]}: a compiling process died"]
                except Exception as error:
                    failures.append(f"{futures[future]}: {type(error).__name__}: {error}")
                progress.update(bar, advance=1, description=futures[future])
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def run(args: argparse.Namespace) -> int:
    from fastops import _cache
    from fastops._threads import get_num_threads

    if args.clear:
        removed = _cache.clear()
        print(f"removed {removed} compiled kernels from {_cache.cache_dir()}")
        if not args.families:
            return 0
    start = time.perf_counter()
    failures = _fill(args.families or list(FAMILIES), args.threads or get_num_threads())
    for failure in failures:
        print(f"precompile: {failure}", file=sys.stderr)
    files, size = _cache.size()
    print(f"{files} compiled kernels, {size / 2**20:.1f} MiB, in {_cache.cache_dir()} ({time.perf_counter() - start:.0f} s)")
    if not files:
        print("precompile: nothing could be stored; can the folder be written?", file=sys.stderr)
    return 1 if failures or not files else 0
