"""The training loop.

Everything random is drawn from (seed, epoch, step), never from a generator that is carried along: a run that was interrupted
anywhere goes on to the same bits, and neither threads nor interruptions change what is drawn.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import numpy as np

from fastops.autodiff import value_and_grad
from fastops.cli.train.checkpoint import Progress
from fastops.cli.train.tasks import Task
from fastops.models.network import Network
from fastops.optim import Optimizer, clip_grad_norm

Array = np.ndarray[Any, Any]
Arrays = dict[str, Any]

TEST_BATCH = 200
SAVE_EVERY = 60.0  # seconds, in epochs that take longer


class Diverged(Exception):
    """The loss is no number any more."""


class Report(Protocol):
    """Who is told about the progress."""

    def step(self, epoch: int, step: int, steps: int, loss: float, score: float | None) -> None: ...

    def epoch(self, entry: dict[str, float]) -> None: ...


@dataclass
class Training:
    """A run: what is trained, and its state.

    Attributes:
        network, task, optimizer: what is trained, on what, how.
        params, buffers, state: arrays of the network and the optimizer, overwritten as training goes on.
        progress: how far it has come.
        epochs, batch, seed: of the run.
        clip: the largest norm of all gradients together, or None.
    """

    network: Network
    task: Task
    optimizer: Optimizer
    params: Arrays
    buffers: Arrays
    state: dict[str, Any]
    progress: Progress
    epochs: int
    batch: int
    seed: int
    clip: float | None = None

    @property
    def steps(self) -> int:
        """Steps of an epoch. Batches differ by one sample at most: none is too small for its statistics."""
        return -(-self.task.samples // self.batch)

    def compile(self) -> float:
        """One step of which nothing remains; the seconds that it took, most of them to compile."""
        start = time.perf_counter()
        rng = np.random.default_rng(0)
        given = self.task.batch(np.arange(min(self.batch, self.task.samples)), rng)
        _, _, grads = self._gradients(*given, 0)
        params = {name: array.copy() for name, array in self.params.items()}
        self.optimizer.update(params, grads, self.optimizer.init(params), inplace=True, lr=0.0)
        self.network.apply(self.params, self.buffers, *next(self.task.tests(TEST_BATCH))[0])
        return time.perf_counter() - start

    def _gradients(self, inputs: tuple[Array, ...], target: Any, seed: int) -> tuple[float, tuple[Any, Arrays], Arrays]:
        def loss(params: Arrays) -> tuple[Any, tuple[Any, Arrays]]:
            y, buffers = self.network.apply(params, self.buffers, *inputs, training=True, rng=seed)
            return self.task.loss(y, target), (y, buffers)

        (value, aux), grads = value_and_grad(loss, has_aux=True)(self.params)
        return float(value), aux, grads

    def run(self, report: Report, save: Callable[[], None] | None) -> None:
        """Train to the end.

        Args:
            report: is told about every step and epoch.
            save: writes a checkpoint; it is called after every epoch, now and then in long ones, and when Ctrl-C ends the run.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the step in hand and a checkpoint.
            Diverged: the loss is infinite or NaN; the last checkpoint stays.
        """
        progress = self.progress
        with _interruption() as interrupted:
            while progress.epoch < self.epochs:
                started, before = time.perf_counter(), progress.seconds
                saved = started
                order = np.random.default_rng((self.seed, progress.epoch)).permutation(self.task.samples)
                batches = np.array_split(order, self.steps)
                while progress.step < self.steps:
                    self._step(batches[progress.step])
                    now = time.perf_counter()
                    progress.seconds = before + now - started
                    report.step(progress.epoch, progress.step, self.steps, progress.loss / progress.weight, self._score())
                    if interrupted() or (save is not None and now - saved > SAVE_EVERY):
                        if save is not None:
                            save()
                        if interrupted():
                            raise KeyboardInterrupt
                        saved = now
                entry = self._ended_epoch()
                progress.seconds = before + time.perf_counter() - started
                entry["seconds"] = progress.seconds
                progress.history.append(entry)
                progress.epoch += 1
                progress.step, progress.loss, progress.weight, progress.counts = 0, 0.0, 0.0, []
                report.epoch(entry)
                if save is not None:
                    save()
                if interrupted():
                    raise KeyboardInterrupt

    def _step(self, indices: Array) -> None:
        progress = self.progress
        rng = np.random.default_rng((self.seed, progress.epoch, progress.step))
        inputs, target = self.task.batch(indices, rng)
        value, (y, buffers), grads = self._gradients(inputs, target, int(rng.integers(1 << 62)))
        if not np.isfinite(value):
            raise Diverged(f"the loss is {value} in epoch {progress.epoch + 1}; a smaller --lr, or --clip, may help")
        if self.clip is not None:
            grads, _ = clip_grad_norm(grads, self.clip, inplace=True)
        self.params, self.state = self.optimizer.update(self.params, grads, self.state, inplace=True)
        self.buffers = buffers
        progress.loss += value * len(indices)
        progress.weight += len(indices)
        counts = self.task.counts(y, target, training=True)
        progress.counts = (counts + progress.counts if progress.counts else counts).tolist()
        progress.step += 1

    def _score(self) -> float | None:
        return None if self.task.metric == "loss" else self.task.score(np.array(self.progress.counts))

    def _ended_epoch(self) -> dict[str, float]:
        progress, metric = self.progress, self.task.metric
        entry = {"epoch": progress.epoch + 1, "loss": progress.loss / progress.weight}
        score = self._score()
        if score is not None:
            entry[metric] = score
        entry[f"test_{metric}"] = self.test()
        entry["lr"] = self.optimizer.lr(self.state["step"] - 1)
        return entry

    def test(self) -> float:
        """The metric on the test set."""
        total: Any = 0.0
        for inputs, target in self.task.tests(TEST_BATCH):
            y, _ = self.network.apply(self.params, self.buffers, *inputs)
            total = total + self.task.counts(y, target, training=False)
        return self.task.score(total)


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C is remembered instead of raised: parameters are being overwritten. The second one is raised."""
    asked = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    # Only the main thread has signals; where they are ignored, as in a shell's background, that stays so.
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    former = signal.signal(signal.SIGINT, remember) if ours else None
    try:
        yield asked.is_set
    finally:
        if ours:
            signal.signal(signal.SIGINT, former)
