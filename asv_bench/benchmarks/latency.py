"""What a call costs by itself: operations on arrays so small that the arithmetic does not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastops

from .common import Timed, memo, one_thread

# Arrays by their shapes, and options. Append only.
CALLS: dict[str, tuple[str, tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "relu.64x64": ("relu", ((64, 64),), {}),
    "gelu.64x64": ("gelu", ((64, 64),), {}),
    "linear.1x64": ("linear", ((1, 64), (64, 64)), {}),
    "softmax.16x10": ("softmax", ((16, 10),), {"dim": -1}),
    "max_pool2d.6x28x28": ("max_pool2d", ((1, 6, 28, 28),), {"kernel_size": 2}),
    "conv2d.8x16x16": ("conv2d", ((1, 8, 16, 16), (8, 8, 3, 3)), {"padding": 1}),
}


@memo
def warm(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The call, and the call with its gradient through the tape; both already made once."""
    one_thread()
    op, shapes, options = CALLS[name]
    function = getattr(fastops, op, None)
    if function is None:
        raise NotImplementedError(f"this fastops has no {op}")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    both = fastops.vjp(lambda *given: function(*given, **options), *arrays)[1]
    cotangent = np.ones_like(function(*arrays, **options))

    def forward() -> Any:
        return function(*arrays, **options)

    def gradient() -> Any:
        return fastops.vjp(lambda *given: function(*given, **options), *arrays)[1](cotangent)

    both(cotangent), forward(), gradient()
    return forward, gradient


class SmallCalls(Timed):
    param_names = ("call",)
    params = (tuple(CALLS),)

    def setup(self, call: str) -> None:
        self.forward, self.gradient = warm(call)

    def time_forward(self, call: str) -> None:
        self.timer.run(self.forward)

    def time_vjp(self, call: str) -> None:
        """Forward and backward through the tape."""
        self.timer.run(self.gradient)
