"""What a new process waits for: the import, and the first convolution with an empty and with a filled kernel cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache

from .common import TINY, Timed

IMPORT = "import fastops"
FIRST_CONV2D = "import fastops; fastops.conv2d(np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32), padding=1)"


def seconds_in_new_process(code: str, cache: str) -> float:
    """How long a new interpreter, with NumPy imported, takes for ``code``."""
    program = f"import time, numpy as np\nstart = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    environment = {**os.environ, "FASTOPS_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


@cache
def filled_cache() -> tempfile.TemporaryDirectory[str]:
    """A folder with what the first convolution compiles; it goes when this process does."""
    folder = tempfile.TemporaryDirectory(prefix="fastops-bench-")
    seconds_in_new_process(FIRST_CONV2D, folder.name)
    return folder


class Import(Timed):
    """``import fastops`` over ``import numpy``."""

    def time_import(self) -> None:
        with tempfile.TemporaryDirectory(prefix="fastops-bench-") as cache:
            self.timer.advance(min(seconds_in_new_process(IMPORT, cache) for _ in range(1 if TINY else 10)))


class FirstConv2dWarm(Timed):
    """Import and one conv2d, everything compiled before."""

    def setup(self) -> None:
        filled_cache()

    def time_first_conv2d(self) -> None:
        self.timer.advance(min(seconds_in_new_process(FIRST_CONV2D, filled_cache().name) for _ in range(1 if TINY else 5)))


class FirstConv2dCold(Timed):
    """Import and one conv2d, everything still to compile; one process a sample, since each takes seconds."""

    def time_first_conv2d(self) -> None:
        with tempfile.TemporaryDirectory(prefix="fastops-bench-") as cache:
            self.timer.advance(seconds_in_new_process(FIRST_CONV2D, cache))
