"""``python -m fastops compare``: every convolution strategy on the layers of a real network."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastops.cli._options import Refused, check_results, number, use_threads, whole, write_results, write_text

if TYPE_CHECKING:
    from fastops.cli.compare.measure import Comparison, Progress, Settings

WIDTH_WHEN_PIPED = 120


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``compare``."""
    from fastops.cli.shapes import NETWORKS

    parser.description = (
        "Measure every convolution strategy on the layers of a network: time, GFLOP/s, workspace and largest error, "
        'with the one that strategy="auto" takes marked.'
    )
    parser.add_argument("network", nargs="?", default="resnet18", metavar="NETWORK", help=f"{', '.join(NETWORKS)} (default: resnet18)")
    parser.add_argument(
        "--strategies",
        type=_names,
        default=(),
        metavar="A,B",
        help='the strategies to measure, "auto" among them (default: all)',
    )
    parser.add_argument("--backward", action="store_true", help="the gradients of input and weight too")
    parser.add_argument("--batch", type=whole(1), default=1, metavar="N", help="pictures at once (default: 1)")
    parser.add_argument("--threads", type=whole(1), metavar="N", help="threads, for the libraries too (default: all that fastops uses)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--precision", choices=("default", "highest"), default="default", help="highest: no Winograd with large tiles")
    parser.add_argument("--against", type=_names, default=(), metavar="A,B", help="measure torch, onnxruntime in the same run")
    parser.add_argument("--image", metavar="FILE", help="carry this picture through the layers instead of random numbers")
    parser.add_argument("--seconds", type=number(zero=False), default=25.0, metavar="S", help="time to spend on measuring, about (default: 25)")
    parser.add_argument("--json", metavar="FILE", help="write all the figures there (-: to standard output, instead of the tables)")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture, with matplotlib (PNG, SVG, PDF or another of its formats, by the ending)")


def _known(kind: str, names: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    unknown = [n for n in names if n not in allowed]
    if unknown:
        raise Refused(f"unknown {kind} {', '.join(unknown)}; there are {', '.join(allowed)}")


def _settings(args: argparse.Namespace) -> Settings:
    from fastops.cli._layers import DIRECTIONS, FORWARD
    from fastops.cli.shapes import NETWORKS

    _known("network", (args.network,), tuple(NETWORKS))
    from fastops.cli.compare.against import LIBRARIES, installed
    from fastops.cli.compare.measure import AUTO, Settings

    _known("library", args.against, tuple(LIBRARIES))
    for library in args.against:
        if not installed(library):
            raise Refused(f"--against {library}: {library} is not installed here (pip install {library})")
    check_results(args)

    from fastops import get_num_threads
    from fastops.ops.conv.strategies import STRATEGIES

    every = tuple(s.name for s in STRATEGIES)
    _known("strategy", args.strategies, (AUTO, *every))
    use_threads(args.threads)
    return Settings(
        network=args.network,
        strategies=tuple(s for s in args.strategies or every if s != AUTO),
        libraries=args.against,
        directions=DIRECTIONS if args.backward else (FORWARD,),
        batch=args.batch,
        threads=get_num_threads(),
        dtype=args.dtype,
        precision=args.precision,
        seconds=args.seconds,
        image=args.image,
    )


def _versions(libraries: tuple[str, ...]) -> dict[str, str]:
    import llvmlite.binding as llvm
    import numba
    import numpy as np

    import fastops
    from fastops.cli.compare.against import version

    versions = {
        "cpu": llvm.get_host_cpu_name(),
        "fastops": fastops.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
    }
    return versions | {library: version(library) for library in libraries}


class _Silent:
    def begin(self, what: str) -> None:
        pass

    def advance(self) -> None:
        pass


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    """A bar on standard error where that is a terminal."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("compiling what is new", total=total)

        class Shown(_Silent):
            def begin(self, what: str) -> None:
                bar.update(task, description=what)

            def advance(self) -> None:
                bar.advance(task)

        yield Shown()


def _write(result: Comparison, args: argparse.Namespace) -> int:
    text = json.dumps(result.as_dict(), indent=1) + "\n"
    writers = {}
    if args.json and args.json != "-":
        writers[f"--json {args.json}"] = lambda: write_text(args.json, text)
    if args.plot:
        from fastops.cli.compare.plot import draw

        writers[f"--plot {args.plot}"] = lambda: draw(result, args.plot)
    # The files come first: standard output may be full.
    status = write_results("compare", writers)
    if args.json == "-":
        print(text, end="")
    else:
        from rich.console import Console

        from fastops.cli.compare.table import show

        show(result, Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_WHEN_PIPED))
    return status


def run(args: argparse.Namespace) -> int:
    """Measure and report; 0, 1 where a file could not be written, or 2 with a message where the arguments cannot be met."""
    picture: Any = None
    try:
        settings = _settings(args)
        if args.image:
            from fastops.cli.compare.picture import read_picture

            try:
                picture = read_picture(args.image)
            except (OSError, EOFError, ValueError, ImportError) as error:
                raise Refused(f"--image {args.image}: {error}") from None
    except Refused as refused:
        print(f"python -m fastops compare: error: {refused}", file=sys.stderr)
        return 2
    from fastops.cli.compare.measure import compare, steps

    with _progress(steps(settings)) as progress:
        result = compare(settings, _versions(settings.libraries), progress, picture)
    return _write(result, args)
