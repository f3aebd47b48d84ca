"""A named convolution layer with data in it: what ``compare`` and the benchmarks call, time and check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastops.cli.shapes import ConvShape

FORWARD = "forward"
GRADIENTS = ("grad_input", "grad_weight")
DIRECTIONS = (FORWARD, *GRADIENTS)

# Of a larger layer the float64 reference computes some channels only: naive loops run at a few GFLOP/s.
REFERENCE_FLOPS = 500e6

Array = NDArray[Any]


@dataclass(frozen=True)
class Offer:
    """What a strategy says to a layer: the reason why it refuses, or the bytes of its workspace; and whether "auto" takes it."""

    refused: str | None
    workspace: int | None
    chosen: bool


class Layer:
    """``shape`` at one batch size and dtype, with He-initialised weights, an input and a gradient of the output.

    ``input`` replaces the standard normal random numbers. Everything random follows from ``seed``.
    """

    def __init__(
        self,
        shape: ConvShape,
        *,
        batch: int = 1,
        dtype: str = "float32",
        precision: str = "default",
        input: Array | None = None,
        seed: int = 0,
    ) -> None:
        self.shape, self.batch, self.precision = shape, batch, precision
        rng = np.random.default_rng(seed)
        self.weight = rng.standard_normal(shape.weight_shape).astype(dtype)
        fan_in = shape.channels // shape.groups * prod(shape.kernel)
        self.weight *= self.weight.dtype.type(sqrt(2 / fan_in))
        if input is None:
            input = rng.standard_normal((batch, shape.channels, *shape.size), dtype=np.float32)
        self.input = np.ascontiguousarray(input, dtype=dtype)
        grad_output = rng.standard_normal((batch, shape.out_channels, *shape.out_size), dtype=np.float32)
        self.grad_output = grad_output.astype(dtype)

    @property
    def flops(self) -> int:
        return self.shape.flops(self.batch)

    def offers(self, direction: str, threads: int) -> dict[str, Offer]:
        """What each strategy says to this layer, in the strategies' order."""
        import fastops
        from fastops.ops.conv.strategies import STRATEGIES

        function, arguments, options = self._public(direction, "auto", self.input, self.weight, self.grad_output)
        explained = fastops.explain(function, *arguments, **options)
        inside = direction
        if self.shape.transposed and direction != "grad_weight":  # its spec is that of the convolution it transposes
            inside = "grad_input" if direction == FORWARD else FORWARD
        workspaces = {s.name: s.workspace for s in STRATEGIES}
        return {
            row.name: Offer(row.reason, workspaces[row.name](explained.spec, inside, threads) if row.accepted else None, row.chosen) for row in explained.rows
        }

    def call(self, direction: str, strategy: str) -> Callable[[], Array]:
        """The public function's call that computes the output or one gradient."""
        return self._call(direction, strategy, self.input, self.weight, self.grad_output)

    def reference(self, direction: str) -> tuple[Array, Array | None]:
        """The float64 result of the naive strategy, and the channels that it has (None: all).

        The channels are output channels, for ``grad_input`` input channels; they are a part of them where all would take long.
        """
        x, w, dy = (a.astype(np.float64) for a in (self.input, self.weight, self.grad_output))
        transposed = self.shape.transposed
        axis = int(transposed) if direction == FORWARD else int(not transposed) if direction == "grad_input" else 0
        total = w.shape[axis]
        keep = max(1, int(total * REFERENCE_FLOPS / self.flops))
        if keep >= total or self.shape.groups > 1:
            return self._call(direction, "naive", x, w, dy)(), None
        chosen = np.linspace(0, total - 1, keep).astype(np.intp)
        w = np.ascontiguousarray(w.take(chosen, axis))
        if direction == "grad_input" or (direction == "grad_weight" and transposed):
            x = np.ascontiguousarray(x[:, chosen])
        elif direction == "grad_weight":
            dy = np.ascontiguousarray(dy[:, chosen])
        return self._call(direction, "naive", x, w, dy)(), chosen

    def _call(self, direction: str, strategy: str, x: Array, w: Array, dy: Array) -> Callable[[], Array]:
        function, arguments, options = self._public(direction, strategy, x, w, dy)
        if direction == FORWARD:
            return lambda: function(*arguments, **options)
        which = GRADIENTS.index(direction)
        return lambda: function(*arguments, **options)[which]

    def _public(self, direction: str, strategy: str, x: Array, w: Array, dy: Array) -> tuple[Callable[..., Any], tuple[Array, ...], dict[str, Any]]:
        """The public function, and what to call it with."""
        import fastops

        s = self.shape
        name = f"conv{'_transpose' * s.transposed}{len(s.kernel)}d"
        options: dict[str, Any] = {
            "stride": s.stride,
            "padding": s.padding,
            "dilation": s.dilation,
            "groups": s.groups,
            "strategy": strategy,
            "precision": self.precision,
        }
        if direction == FORWARD:
            return getattr(fastops, name), (x, w), options
        options["output_mask"] = (direction == "grad_input", direction == "grad_weight", False)
        return getattr(fastops, f"{name}_backward"), (dy, x, w), options


def largest_error(result: Array, reference: Array, channels: Array | None, direction: str) -> float:
    """The largest difference from the reference, relative to the largest value of the reference."""
    if channels is not None:
        result = result[channels] if direction == "grad_weight" else result[:, channels]
    difference = np.subtract(result, reference, dtype=np.float64)
    scale = float(np.abs(reference).max(initial=0.0))
    return float(np.abs(difference).max(initial=0.0)) / (scale or 1.0)
