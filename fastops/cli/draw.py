"""``python -m fastops draw``: a network as a picture."""

from __future__ import annotations

import argparse
import sys

from fastops.cli._options import Refused, check_picture, whole, write_results
from fastops.models.layers import Shape
from fastops.models.network import Network

LARGE, SMALL = 224, 32  # extents of images where a network leaves them open: ImageNet's, and for those named "_small"


def _shape(text: str) -> tuple[int, ...]:
    """3x224x224 as a tuple."""
    try:
        shape = tuple(int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 3x224x224")
    return shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``draw``."""
    from fastops import models

    parser.description = (
        "Draw a network: layers as boxes with their shapes, blocks framed, branches side by side, connections that skip layers as arcs. Takes matplotlib."
    )
    parser.add_argument("network", metavar="NETWORK", help=", ".join(models.networks()))
    parser.add_argument("file", metavar="FILE", help="where the picture goes; SVG, PNG, PDF or another of matplotlib's formats, by its ending")
    parser.add_argument(
        "--input", type=_shape, action="append", default=[], metavar="CxHxW",
        help=f"shape of a sample, once for each input (default: the network's own; {LARGE}x{LARGE} for images of any size, {SMALL}x{SMALL} for small networks)",
    )  # fmt: skip
    parser.add_argument("--classes", type=whole(1), metavar="N", help="how many classes the network tells apart (default: its own)")
    parser.add_argument("--all", action="store_true", help="draw every layer, repeated blocks too")


def default_shapes(model: Network) -> list[Shape]:
    """The network's own shapes, images of any size made definite."""
    side = SMALL if model.name.endswith("_small") else LARGE
    return [tuple(side if extent is None else extent for extent in shape) if len(shape) == 3 else shape for _, shape in model.inputs]


def run(args: argparse.Namespace) -> int:
    """Draw; 0, 1 where the file could not be written, or 2 where the arguments cannot be met."""
    try:
        return _draw(args)
    except (Refused, ValueError) as error:
        print(f"python -m fastops draw: error: {error}", file=sys.stderr)
        return 2


def _draw(args: argparse.Namespace) -> int:
    import inspect

    from fastops import models

    if args.network not in models.networks():
        raise ValueError(f"unknown network {args.network!r}; there are {', '.join(models.networks())}")
    check_picture("", args.file)
    make = getattr(models, args.network)
    options = {}
    if args.classes is not None:
        if "num_classes" not in inspect.signature(make).parameters:
            raise ValueError(f"--classes {args.classes}: {args.network} has no classes")
        options["num_classes"] = args.classes
    model = make(**options)
    return write_results("draw", {args.file: lambda: model.draw(args.file, *(args.input or default_shapes(model)), collapse=not args.all)})
