"""Recurrent networks: a layer of usual size, small ones for characters, single rows, both directions, cells."""

from __future__ import annotations

from typing import Any

from .common import Case, benchmarks

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _flat(options: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments that torch.lstm and its like take after the weights."""
    return True, options.get("num_layers", 1), 0.0, False, options.get("bidirectional", False), False


def _torch(op: str) -> Any:
    def call(F: Any, tensors: dict[str, Any], options: dict[str, Any]) -> Any:
        import torch

        hx = tensors["hx"]
        return getattr(torch, "rnn_tanh" if op == "rnn" else op)(tensors["input"], hx, tensors["weights"], *_flat(options))

    return call


def _layers(op: str, T: int, N: int, I: int, H: int, **options: Any) -> Case:
    directions, layers, rows = 1 + options.get("bidirectional", False), options.get("num_layers", 1), GATES[op] * H
    weights = [s for layer in range(layers) for s in [(rows, directions * H if layer else I), (rows, H), (rows,), (rows,)] * directions]
    scale = H**-0.5
    state = (layers * directions, N, H)
    arrays = {
        "input": (T, N, I), "hx": [state, state] if op == "lstm" else state,
        "weights": [lambda rng, s=s: scale * rng.standard_normal(s) for s in weights],
    }  # fmt: skip
    rows = GATES[op] * 4
    state = (layers * directions, 2, 4)
    small = [s for layer in range(layers) for s in [(rows, directions * 4 if layer else 3), (rows, 4), (rows,), (rows,)] * directions]
    tiny = {"input": (3, 2, 3), "hx": [state, state] if op == "lstm" else state, "weights": small}
    return Case(op, arrays, options, tiny=tiny, torch=_torch(op))


def _cell(op: str, gates: int, N: int, I: int, H: int) -> Case:
    hx = [(N, H), (N, H)] if op == "lstm_cell" else (N, H)
    arrays = {"input": (N, I), "hx": hx, "w_ih": (gates * H, I), "w_hh": (gates * H, H), "b_ih": (gates * H,), "b_hh": (gates * H,)}

    def call(F: Any, tensors: dict[str, Any], options: dict[str, Any]) -> Any:
        import torch

        return getattr(torch, "rnn_tanh_cell" if op == "rnn_cell" else op)(*tensors.values())

    few = [(2, 4), (2, 4)] if op == "lstm_cell" else (2, 4)
    tiny = {"input": (2, 3), "hx": few, "w_ih": (gates * 4, 3), "w_hh": (gates * 4, 4), "b_ih": (gates * 4,), "b_hh": (gates * 4,)}
    return Case(op, arrays, tiny=tiny, torch=call)


CASES = {
    "lstm.100x32x128.256": _layers("lstm", 100, 32, 128, 256),
    "lstm.small.64x16x64.128": _layers("lstm", 64, 16, 64, 128),
    "lstm.one.64x1x64.128": _layers("lstm", 64, 1, 64, 128),
    "lstm.both.50x16x64.128": _layers("lstm", 50, 16, 64, 128, num_layers=2, bidirectional=True),
    "gru.100x32x128.256": _layers("gru", 100, 32, 128, 256),
    "gru.small.64x16x64.128": _layers("gru", 64, 16, 64, 128),
    "gru.one.64x1x64.128": _layers("gru", 64, 1, 64, 128),
    "rnn.100x32x128.256": _layers("rnn", 100, 32, 128, 256),
    "rnn.one.64x1x64.128": _layers("rnn", 64, 1, 64, 128),
    "lstm_cell.32x128.256": _cell("lstm_cell", 4, 32, 128, 256),
    "gru_cell.32x128.256": _cell("gru_cell", 3, 32, 128, 256),
    "rnn_cell.32x128.256": _cell("rnn_cell", 1, 32, 128, 256),
    "lstm_cell.small.8x32.32": _cell("lstm_cell", 4, 8, 32, 32),
    "gru_cell.small.8x32.32": _cell("gru_cell", 3, 8, 32, 32),
}

Forward, Backward = benchmarks(CASES)
