"""``python -m fastops train``: a network learns from real data."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastops.cli._options import Refused, check_place, check_results, number, use_threads, whole, write_results, write_text

if TYPE_CHECKING:
    from fastops.cli.train.loop import Report, Training
    from fastops.cli.train.recipes import Recipe
    from fastops.cli.train.tasks import Task

# What decides about the numbers of a run: --resume takes these from the checkpoint.
_FIXED = ("network", "data", "augment", "batch", "optimizer", "lr", "momentum", "weight_decay", "schedule", "warmup", "clip", "seed", "length")


class _NotSaved(Exception):
    """A checkpoint could not be written."""


_METRICS = {"accuracy": "accuracy", "mean_iou": "mean IoU", "loss": "loss"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``train``."""
    from fastops.cli.train.recipes import OPTIMIZERS, SCHEDULES, trainable

    parser.description = "Train a network on real data. Nothing is downloaded: the data ships with scikit-learn, networkx or Python, or is your own."
    parser.add_argument("network", metavar="NETWORK", help=f"one of {', '.join(trainable())}")
    parser.add_argument(
        "--data", metavar="PATH", help="a folder of pictures by class, IDX files as of MNIST (.gz too), an npz file; a text file for a language model"
    )
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data")
    parser.add_argument("--batch", type=whole(1), metavar="N", help="samples of a step")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, metavar="NAME", help=", ".join(OPTIMIZERS))
    parser.add_argument("--lr", type=number(zero=True), metavar="X", help="the learning rate, at its largest")
    parser.add_argument("--momentum", type=number(zero=True), metavar="X", help="of sgd and rmsprop (default: 0.9)")
    parser.add_argument("--weight-decay", type=number(zero=True), metavar="X")
    parser.add_argument("--schedule", choices=SCHEDULES, metavar="NAME", help=f"of the learning rate: {', '.join(SCHEDULES)}")
    parser.add_argument("--warmup", type=whole(0), metavar="N", help="steps in which the learning rate rises from a hundredth, before the schedule")
    parser.add_argument("--clip", type=number(zero=True), metavar="X", help="the largest norm of the gradients (0: any)")
    parser.add_argument("--augment", metavar="A,B", help="shift, rotate, flip; or none (default: what suits the data)")
    parser.add_argument("--length", type=whole(2), metavar="N", help="bytes of a piece of text (default: 64)")
    parser.add_argument("--seed", type=whole(0), metavar="N", help="same seed, same result, whatever the threads (default: 0)")
    parser.add_argument("--threads", type=whole(1), metavar="N", help="threads (default: all that fastops uses)")
    parser.add_argument("--checkpoint", metavar="FILE", help="keep the run in this safetensors file, after every epoch and on Ctrl-C")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, to the same bits as without a pause; --epochs may be raised")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw loss, accuracy and the first layer's filters, with matplotlib (PNG, SVG, PDF or another of its formats, by the ending)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result there (-: to standard output, instead of the lines)")


def _check(args: argparse.Namespace) -> None:
    """What can be refused before anything is read."""
    from fastops.cli.train.recipes import trainable

    if args.network not in trainable():
        raise Refused(f"unknown network {args.network}; there are {', '.join(trainable())}")
    if args.resume and not args.checkpoint:
        raise Refused("--resume: say which run with --checkpoint FILE")
    check_results(args)
    if args.checkpoint:
        check_place("--checkpoint", args.checkpoint, ordinary=True)
    use_threads(args.threads)


def _config(args: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """The run in numbers and names: what was asked for, and defaults for the rest."""
    defaults = {**asdict(recipe), "momentum": 0.9, "seed": 0, "augment": None, "data": None, "length": 64}
    given = {key: getattr(args, key) for key in (*_FIXED, "epochs")}
    return {key: defaults.get(key) if value is None else value for key, value in given.items()}


def _resumed(args: argparse.Namespace, config: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the checkpoint, which options on the command line may not contradict."""
    for key in _FIXED:
        given = getattr(args, key)
        if given is not None and given != saved[key]:
            raise Refused(f"--resume: the run in {args.checkpoint} has {key.replace('_', '-')} {saved[key]}, not {given}")
    return {**config, **saved, "epochs": args.epochs or saved["epochs"]}


def _schedule(config: dict[str, Any], steps: int) -> Any:
    from fastops import optim

    lr, warmup = config["lr"], config["warmup"]
    rest = max(1, steps - warmup)
    made = {
        "constant": lambda: optim.constant(lr),
        "step": lambda: optim.step_decay(lr, -(-rest // 3)),
        "cosine": lambda: optim.cosine(lr, rest),
        "one-cycle": lambda: optim.one_cycle(lr, rest),
    }[config["schedule"]]()
    return optim.linear_warmup(made, warmup, 0.01) if warmup else made


def _optimizer(config: dict[str, Any], steps: int) -> Any:
    from fastops import optim

    options = {"lr": _schedule(config, steps), "weight_decay": config["weight_decay"]}
    if config["optimizer"] in ("sgd", "rmsprop"):
        options["momentum"] = config["momentum"]
    return getattr(optim, config["optimizer"])(**options)


class _Lines:
    """A line for each epoch, on standard output, or nowhere."""

    def __init__(self, task: Task, epochs: int, quiet: bool) -> None:
        self._metric, self._epochs, self._quiet = task.metric, epochs, quiet

    def step(self, epoch: int, step: int, steps: int, loss: float, score: float | None) -> None:
        pass

    def epoch(self, entry: dict[str, float]) -> None:
        if not self._quiet:
            print(self.line(entry), flush=True)

    def line(self, entry: dict[str, float]) -> str:
        metric = self._metric
        words = [f"epoch {entry['epoch']:{len(str(self._epochs))}}/{self._epochs}", f"loss {entry['loss']:.4f}"]
        if metric in entry and metric != "loss":
            words.append(f"{_METRICS[metric]} {entry[metric]:.4f}")
        return "  ".join([*words, f"test {_METRICS[metric]} {entry[f'test_{metric}']:.4f}", f"{entry['seconds']:.1f} s"])


@contextmanager
def _shown(training: Training, quiet: bool) -> Iterator[Report]:
    """A bar below the lines, where a person looks on."""
    lines = _Lines(training.task, training.epochs, quiet)
    if not sys.stdout.isatty() or quiet:
        yield lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(highlight=False), transient=True) as bar:
        done = training.progress.epoch * training.steps + training.progress.step
        shown = bar.add_task("", total=training.epochs * training.steps, completed=done)

        class WithBar(_Lines):
            def step(self, epoch: int, step: int, steps: int, loss: float, score: float | None) -> None:
                words = f"epoch {epoch + 1}/{self._epochs}  loss {loss:.4f}"
                if score is not None:
                    words += f"  {_METRICS[self._metric]} {score:.4f}"
                bar.update(shown, completed=epoch * steps + step, description=words)

            def epoch(self, entry: dict[str, float]) -> None:
                bar.console.print(self.line(entry))

        yield WithBar(training.task, training.epochs, quiet)


def _prepared(args: argparse.Namespace) -> tuple[Training, dict[str, Any]]:
    """The run, new or as it was left."""
    from fastops.cli.train import checkpoint
    from fastops.cli.train.loop import Training
    from fastops.cli.train.recipes import make, recipe

    defaults = recipe(args.network)
    saved = checkpoint.load(Path(args.checkpoint)) if args.resume else None
    config = _config(args, defaults)
    if saved is not None:
        config = _resumed(args, config, saved.config)
    network, task = make(args.network, defaults, config)
    steps = config["epochs"] * -(-task.samples // config["batch"])
    if args.warmup and args.warmup >= steps:
        raise Refused(f"--warmup must be less than the {steps} steps of the run, got {args.warmup}")
    optimizer = _optimizer(config, steps)
    config["checksum"] = task.checksum
    if saved is None:
        params, buffers = network.init(rng=config["seed"])
        state, progress = optimizer.init(params), checkpoint.Progress()
    else:
        if saved.config["checksum"] != task.checksum:
            raise Refused(f"--resume: the data is not that of the run in {args.checkpoint}")
        try:
            params, buffers = network.load_state_dict(saved.arrays)
        except ValueError as error:
            raise Refused(f"--resume: {args.checkpoint}: {error}") from None
        state, progress = saved.state, saved.progress
    run = Training(network, task, optimizer, params, buffers, state, progress, config["epochs"], config["batch"], config["seed"], config["clip"] or None)
    return run, config


def _result(training: Training, config: dict[str, Any], compiling: float) -> dict[str, Any]:
    import numpy as np

    import fastops

    history = training.progress.history
    key = f"test_{training.task.metric}"
    return {
        "network": config["network"],
        "parameters": int(sum(array.size for array in training.params.values())),
        "data": training.task.name,
        "samples": training.task.samples,
        **training.task.facts,
        key: history[-1][key] if history else None,
        "seconds": training.progress.seconds,
        "compile_seconds": compiling,
        "loss": [entry["loss"] for entry in history],
        "history": history,
        "configuration": config,
        "threads": fastops.get_num_threads(),
        "versions": {"fastops": fastops.__version__, "numpy": np.__version__},
    }


def _told(result: dict[str, Any], metric: str, note: str) -> str:
    found = f"test {_METRICS[metric]} {result[f'test_{metric}']:.4f}"
    if "bigram_entropy" in result:
        found += f" (bigram entropy of the text: {result['bigram_entropy']:.4f} nats)"
    return f"{found} after {result['seconds']:.1f} s{note}"


def run(args: argparse.Namespace) -> int:
    """Train; 0, 1 where training diverged or a file could not be written, or 2 where the arguments cannot be met."""

    def failed(message: object, status: int) -> int:
        print(f"python -m fastops train: error: {message}", file=sys.stderr)
        return status

    try:
        _check(args)
        training, config = _prepared(args)
    except Refused as refused:
        return failed(refused, 2)
    from fastops.cli.train import checkpoint
    from fastops.cli.train.loop import Diverged

    quiet = args.json == "-"
    task = training.task
    if not quiet:
        print(f"{training.network!r} on {task.name}: {task.samples} samples, batches of {min(config['batch'], task.samples)}", flush=True)
    compiling = 0.0
    if training.progress.epoch < training.epochs:
        compiling = training.compile()
        if not quiet:
            print(f"ready in {compiling:.1f} s", flush=True)

    def save() -> None:
        arrays = training.network.state_dict(training.params, training.buffers)
        try:
            checkpoint.save(Path(args.checkpoint), config, training.progress, arrays, training.state)
        except OSError as error:  # the disk is full, say
            raise _NotSaved(f"--checkpoint: {error}") from None

    try:
        with _shown(training, quiet) as report:
            training.run(report, save if args.checkpoint else None)
    except (Diverged, _NotSaved) as error:
        return failed(error, 1)
    except KeyboardInterrupt:
        if args.checkpoint:
            p = training.progress
            print(
                f"stopped in epoch {p.epoch + 1} after {p.step} of {training.steps} steps; go on with --checkpoint {args.checkpoint} --resume", file=sys.stderr
            )
        raise
    result = _result(training, config, compiling)
    text = json.dumps(result, indent=1) + "\n"
    writers = {}
    if args.json and not quiet:
        writers[f"--json {args.json}"] = lambda: write_text(args.json, text)
    if args.plot:
        from fastops.cli.train.plot import draw

        title = f"{config['network']} on {task.name}"
        writers[f"--plot {args.plot}"] = lambda: draw(
            args.plot, title, task.metric, training.progress.history, training.params, task.facts.get("bigram_entropy")
        )
    # The files come first: standard output may be full.
    status = write_results("train", writers)
    if quiet:
        print(text, end="")
    else:
        print(_told(result, task.metric, f", {args.checkpoint} holds the run" if args.checkpoint else ""))
    return status
