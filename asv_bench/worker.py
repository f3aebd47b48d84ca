"""A process that holds the fastops of one commit and times benchmarks on request; ``Worker`` is the other end of it.

Requests and answers are lines of JSON. What benchmarks print goes to the standard error output.
"""

from __future__ import annotations

import gc
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# The folder of the commit comes first, so that its fastops is found; then that of the benchmarks.
PROGRAM = "import sys; sys.path[:0] = sys.argv[1:]; from asv_bench.worker import serve; serve(sys.argv[1])"


# The end of an import that fails since the commit does not have yet (or has no more) what is to be measured.
LACKS = re.compile(r"(ImportError|ModuleNotFoundError): .*fastops.*\s*$")


class Died(Exception):
    """The process ended, or did not answer in time."""


class Worker:
    """A started process; ``ask`` sends a request and waits for the answer."""

    def __init__(self, folder: Path, extra: dict[str, str] | None = None) -> None:
        paths = [str(folder), str(ROOT)]
        self.errors = tempfile.TemporaryFile()
        # Children of the benchmarks (start-up times) find the same fastops by PYTHONPATH.
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *paths], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, cwd=folder
        )

    def send(self, **request: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass  # receive says how it ended

    def receive(self, timeout: float = 300) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise Died(f"no answer in {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.errors.seek(0)
            tail = self.errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Died(f"the process ended with status {status}" + "".join(f": {text}" for text in tail))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass


class Burst:
    """Stands in for a benchmark's clock: what is handed to it is timed for as long as the gate says."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.best = seconds, float("inf")

    def advance(self, seconds: float) -> None:
        self.best = min(self.best, seconds)

    def least_of(self, times: int, measure: Callable[[], float]) -> None:
        self.advance(measure())

    def run(self, function: Callable[[], Any]) -> None:
        from asv_bench.benchmarks.common import best_of

        self.advance(best_of(function, times=1, least=self.seconds))


def serve(folder: str) -> None:
    """Answers requests until there are no more."""
    answers, requests = os.fdopen(os.dup(1), "w"), sys.stdin
    os.dup2(2, 1)
    import fastops
    from asv_bench import catalogue
    from asv_bench.benchmarks import common

    if not Path(fastops.__file__).is_relative_to(folder):
        raise ImportError(f"{folder} has no fastops; {fastops.__file__} was found instead")

    @cache
    def benchmarks(file: str | None = None) -> tuple[dict[str, catalogue.Benchmark], dict[str, str]]:
        found, broken = catalogue.find(file)
        return {b.label: b for b in found if b.gated}, broken

    chosen: catalogue.Benchmark | None = None
    instance: Any = None

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal chosen, instance
        if request["do"] == "list":
            found, broken = benchmarks()
            return {"labels": list(found), "broken": broken}
        if request["do"] == "setup":
            file = request["label"].partition(".")[0]  # of all files only when they are to be listed: it takes a second
            found, broken = benchmarks(file)
            chosen, instance = found.get(request["label"]), None
            common.forget()
            for error in broken.values():
                reason = f"benchmarks/{file}.py cannot be imported: {error.strip().splitlines()[-1]}"
                raise NotImplementedError(reason) if LACKS.search(error) else RuntimeError(reason)
            if chosen is None:
                raise NotImplementedError("there is no such benchmark")
            instance = chosen.setup()
            gc.collect()
            gc.disable()
            return {}
        assert chosen is not None
        if chosen.method.startswith("track_"):
            return {"value": chosen.run(instance)}
        instance.timer = burst = Burst(request["seconds"])
        chosen.run(instance)
        return {"value": burst.best}

    for line in requests:
        begun = time.perf_counter()
        try:
            reply = answer(json.loads(line))
        except NotImplementedError as e:
            reply = {"refused": str(e)}
        except (AttributeError, ImportError) as e:
            # What a commit does not have yet is no failure of it.
            reply = {"refused" if "fastops" in str(e) else "failed": f"{type(e).__name__}: {e}"}
        except Exception as e:
            reply = {"failed": f"{type(e).__name__}: {e}"}
        print(json.dumps({**reply, "took": time.perf_counter() - begun}), file=answers, flush=True)
