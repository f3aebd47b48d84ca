"""A run in a file: parameters and buffers under their own names, and what else is needed to go on as if nothing had happened.

It is a safetensors file, so that ``model.load_state_dict(path, strict=False)`` takes the network out of it. The arrays of the
optimizer are named "optimizer/exp_avg/conv1.weight". All numbers of the run are JSON in its metadata. Nothing random is kept but the
seed and the counters: permutations, augmentation and dropout are drawn from (seed, epoch, step).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastops.cli._options import Refused

Arrays = dict[str, Any]

_KEY = "fastops.train"
_PREFIX = "optimizer/"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: whole epochs that are over.
        step: steps of the epoch that follows.
        loss, weight: the loss added up over the samples of these steps, and how many they were.
        counts: the task's counts over them.
        seconds: time spent so far.
        history: a dict for each epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    counts: list[float] = field(default_factory=list)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Saved:
    """What a checkpoint holds."""

    config: dict[str, Any]
    progress: Progress
    arrays: Arrays  # parameters and buffers
    state: dict[str, Any]  # of the optimizer


def save(path: Path, config: dict[str, Any], progress: Progress, arrays: Arrays, state: dict[str, Any]) -> None:
    """Write the file; it takes the place of the one before when it is complete."""
    from fastops.models import weights

    content = dict(arrays)
    numbers = {}
    for key, value in state.items():
        if isinstance(value, dict):
            content.update({f"{_PREFIX}{key}/{name}": array for name, array in value.items()})
        elif isinstance(value, np.ndarray):
            content[f"{_PREFIX}{key}"] = value
        else:
            numbers[key] = value
    described = {"config": config, "progress": asdict(progress), "optimizer": numbers}
    weights.save(path, content, {_KEY: json.dumps(described)})


def load(path: Path) -> Saved:
    """Read a file that ``save`` wrote."""
    from fastops.models import weights

    try:
        described = json.loads(weights.load_metadata(path).get(_KEY, "null"))
        content = weights.load(path)
    except FileNotFoundError:
        raise Refused(f"--resume: there is no checkpoint {path}") from None
    except Exception as error:  # safetensors has exceptions of its own
        raise Refused(f"--resume: {path} cannot be read: {error}") from None
    if described is None:
        raise Refused(f"--resume: {path} was not written by train: it has parameters alone")
    state: dict[str, Any] = dict(described["optimizer"])
    arrays: Arrays = {}
    for name, array in content.items():
        if not name.startswith(_PREFIX):
            arrays[name] = array
            continue
        key, slash, rest = name.removeprefix(_PREFIX).partition("/")
        if slash:
            state.setdefault(key, {})[rest] = array
        else:
            state[key] = array
    return Saved(described["config"], Progress(**described["progress"]), arrays, state)
