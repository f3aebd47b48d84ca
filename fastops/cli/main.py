"""The parser of ``python -m fastops``, and what every subcommand has in common: exit codes and interruptions."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "compare": "measure the convolution strategies on the layers of a network",
    "draw": "draw a network as a picture",
    "info": "show versions, processor, threads and the kernel cache",
    "precompile": "fill the kernel cache, using all cores",
    "train": "train a network on real data",
}

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The whole parser; only the chosen command's module is imported, since some of them load Numba."""
    import fastops

    parser = argparse.ArgumentParser(
        prog="python -m fastops",
        description="Neural-network operations for NumPy arrays, compiled for this processor.",
        epilog="'python -m fastops COMMAND --help' tells more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastops {fastops.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(f"fastops.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def _silence() -> None:
    """The interpreter flushes standard output once more on its way out: give it somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        argv: The arguments after ``python -m fastops``; those of the process by default.

    Returns:
        The exit status: what the command returned, 1 when its output could not be written, 130 after Ctrl-C, 141 when the reader of a pipe went away.

    Raises:
        SystemExit: With status 2 for arguments that the parser refuses, with 0 after ``--help`` and ``--version``.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        # No option before the command takes a value, so the first word is the command.
        parser = _parser(next((word for word in argv if not word.startswith("-")), None))
        try:
            args = parser.parse_args(argv)
        except SystemExit:
            sys.stdout.flush()  # what --help and --version have printed
            raise
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _silence()
        return BROKEN_PIPE
    except OSError as error:  # what the commands write to files, they see to themselves: standard output is full
        print(f"python -m fastops: error: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        _silence()
        return FAILED
    return status
