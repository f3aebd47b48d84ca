"""What a new process waits for: the import, and first calls with an empty and with a filled kernel cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache

from .common import Timed

IMPORT = "import fastops"
FIRST_CONV2D = "import fastops; fastops.conv2d(np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32), padding=1)"

# Import and first call of an operation, forward. Append only.
FIRST_CALLS = {
    "relu": "import fastops; fastops.relu(np.ones((64, 64), np.float32))",
    "softmax": "import fastops; fastops.softmax(np.ones((64, 1000), np.float32))",
    "linear": "import fastops; fastops.linear(np.ones((32, 64), np.float32), np.ones((64, 64), np.float32))",
    "max_pool2d": "import fastops; fastops.max_pool2d(np.ones((1, 6, 28, 28), np.float32), 2)",
    "layer_norm": "import fastops; fastops.layer_norm(np.ones((8, 768), np.float32), (768,))",
}


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
            self.timer.least_of(5, lambda: seconds_in_new_process(IMPORT, cache))


class FirstConv2dWarm(Timed):
    """Import and one conv2d, everything compiled before."""

    def setup(self) -> None:
        filled_cache()

    def time_first_conv2d(self) -> None:
        self.timer.least_of(3, lambda: seconds_in_new_process(FIRST_CONV2D, filled_cache().name))


def seconds_with_empty_cache(code: str) -> float:
    with tempfile.TemporaryDirectory(prefix="fastops-bench-") as cache:
        return seconds_in_new_process(code, cache)


class FirstConv2dCold(Timed):
    """Import and one conv2d, everything still to compile; one process a sample, since each takes seconds."""

    def time_first_conv2d(self) -> None:
        self.timer.least_of(1, lambda: seconds_with_empty_cache(FIRST_CONV2D))


class FirstCallCold(Timed):
    """Import and one call, everything still to compile."""

    param_names = ("operation",)
    params = (tuple(FIRST_CALLS),)

    def time_first_call(self, operation: str) -> None:
        self.timer.least_of(1, lambda: seconds_with_empty_cache(FIRST_CALLS[operation]))
