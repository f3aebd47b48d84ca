"""What the options of several commands have in common: how they are read, and what is refused before work begins."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path


class Refused(Exception):
    """The arguments ask for what cannot be done."""


def whole(minimum: int) -> Callable[[str], int]:
    """A parser of whole numbers."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number from {minimum} on, got {text!r}")
        return value

    return parse


def number(*, zero: bool) -> Callable[[str], float]:
    """A parser of finite numbers above zero, or from it on."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf") or (value == 0 and not zero):
            raise argparse.ArgumentTypeError(f"must be a number {'from 0 on' if zero else 'above 0'}, got {text!r}")
        return value

    return parse


def use_threads(count: int | None) -> None:
    """What ``--threads`` asks for."""
    from fastops import set_num_threads

    if count is not None:
        try:
            set_num_threads(count)
        except ValueError as error:
            raise Refused(str(error).replace("set_num_threads: n", "--threads")) from None


def check_place(option: str, path: str, *, ordinary: bool = False) -> None:
    """Refuses, before hours of work, a place that cannot be written to; devices and pipes too where the file must be an ordinary one."""
    place, what = Path(path), f"{option} {path}".strip()
    if place.is_dir():
        raise Refused(f"{what}: this is a folder")
    if not place.absolute().parent.is_dir():
        raise Refused(f"{what}: there is no folder {place.absolute().parent}")
    if place.exists() and not os.access(place, os.W_OK):
        raise Refused(f"{what}: cannot be written: Permission denied")
    if place.exists() and not place.is_file():  # is written into, not replaced
        if ordinary:
            raise Refused(f"{what}: this is no ordinary file")
        return
    try:
        handle, trial = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.resolve().parent)
        os.close(handle)
        os.unlink(trial)
    except OSError as error:
        raise Refused(f"{what}: cannot be written: {error.strerror or error}") from None


def check_picture(option: str, path: str) -> None:
    """Refuses what matplotlib cannot draw, or not there."""
    from fastops.models.drawing import check

    try:
        check(path)
    except (ImportError, ValueError) as error:
        raise Refused(f"{option} {path}: {error}".strip()) from None
    check_place(option, path)


def check_results(args: argparse.Namespace) -> None:
    """Refuses a ``--json`` or a ``--plot`` that cannot be written."""
    if args.json and args.json != "-":
        check_place("--json", args.json)
    if args.plot:
        check_picture("--plot", args.plot)


def write_results(command: str, writers: Mapping[str, Callable[[], None]]) -> int:
    """Writes every file, whatever becomes of the others: 0, or 1 with a message for each that fails."""
    status = 0
    for what, write in writers.items():
        try:
            write()
        except OSError as error:
            print(f"python -m fastops {command}: error: {what}: cannot be written: {error.strerror or error}", file=sys.stderr)
            status = 1
    return status


def write_text(path: str, text: str) -> None:
    """Replaces the file when all is written."""
    from fastops.models.weights import replacing

    with replacing(path) as place:
        place.write_text(text, encoding="utf-8")
