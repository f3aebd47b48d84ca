"""Matrix multiplication beside NumPy's, which is OpenBLAS in its wheels. Square matrices, one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastops.simd.gemm import gemm

from .common import TINY, Timed, memo, one_thread
from .shapes import GEMM_SIZES, GEMM_TINY

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {"fastops": gemm, "numpy": np.matmul}


@memo
def warm(implementation: str, size: int, dtype: str) -> Callable[[], Any]:
    one_thread()
    n = GEMM_TINY if TINY else size
    a, b = np.random.default_rng(0).standard_normal((2, n, n)).astype(dtype)
    out = np.empty_like(a)
    multiply = IMPLEMENTATIONS[implementation]

    def run() -> None:
        multiply(a, b, out=out)

    run()
    return run


class Gemm(Timed):
    param_names = ("implementation", "size", "dtype")
    params = (tuple(IMPLEMENTATIONS), GEMM_SIZES, ("float32", "float64"))

    def setup(self, implementation: str, size: int, dtype: str) -> None:
        self.run = warm(implementation, size, dtype)

    def time_gemm(self, implementation: str, size: int, dtype: str) -> None:
        self.timer.run(self.run)
