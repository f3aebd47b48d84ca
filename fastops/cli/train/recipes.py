"""What each network learns by default, and how."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastops.cli.train import augment, data
from fastops.cli.train.tasks import Classification, Graph, Segmentation, Task, Text
from fastops.models.network import Network

OPTIMIZERS = ("sgd", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "nadam", "radam", "adamax", "lion")
SCHEDULES = ("constant", "step", "cosine", "one-cycle")

# Kinds of task.
PICTURES, ROWS, SEGMENTATION, GRAPH, TEXT = "pictures", "rows", "segmentation", "graph", "text"


@dataclass(frozen=True)
class Recipe:
    """Defaults of a run.

    Attributes:
        task: the kind of task.
        size: of pictures, where the network leaves it open.
        width: of hidden layers; None: the network's own default.
    """

    task: str = PICTURES
    epochs: int = 15
    batch: int = 32
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    warmup: int = 0
    clip: float | None = None
    size: int = 64
    width: int | None = None


RECIPES = {
    "lenet5": Recipe(epochs=60),
    "alexnet_small": Recipe(epochs=8, lr=5e-4),
    "resnet18_small": Recipe(epochs=4, lr=1e-3),
    "shufflenet_small": Recipe(epochs=15, lr=4e-3, size=32),
    **{name: Recipe(size=32) for name in ("factorized_small", "xception_small")},
    "lstm": Recipe(task=ROWS, epochs=40, lr=4e-3, clip=1.0),
    "transformer": Recipe(task=ROWS, epochs=60, lr=2e-3, clip=1.0),
    # Kipf and Welling's, and Veličković et al.'s; the width, and GraphSAGE's, were chosen with other members labelled.
    "gcn": Recipe(task=GRAPH, epochs=200, batch=1, optimizer="adam", lr=1e-2, weight_decay=5e-4, schedule="constant", width=32),
    "gat": Recipe(task=GRAPH, epochs=200, batch=1, optimizer="adam", lr=5e-3, weight_decay=5e-4, schedule="constant"),
    "graph_sage": Recipe(task=GRAPH, epochs=200, batch=1, optimizer="adam", lr=1e-2, weight_decay=5e-2, schedule="constant"),
    **{name: Recipe(task=SEGMENTATION, epochs=6, batch=16) for name in ("unet", "unet_small")},
    "language_model": Recipe(task=TEXT, epochs=10, batch=16, lr=2e-3, weight_decay=0.1, warmup=50, schedule="cosine", clip=1.0),
}

# Networks whose output is no class.
UNTRAINED = ("fpn",)


def trainable() -> tuple[str, ...]:
    """The networks that can learn here."""
    from fastops.models import networks

    return tuple(name for name in networks() if name not in UNTRAINED)


def recipe(network: str) -> Recipe:
    return RECIPES.get(network, Recipe())


def make(name: str, defaults: Recipe, config: dict[str, Any]) -> tuple[Network, Task]:
    """The network and its work: data is read here, and the network fitted to it."""
    kind = defaults.task
    if kind == SEGMENTATION:
        _no_data(name, config)
        return build(name, num_classes=2, channels=3), Segmentation(data.photographs(), data.digits())
    if kind == GRAPH:
        _no_data(name, config)
        task: Task = Graph("the karate club", *data.karate_club())
        return build(name, features=34, num_classes=2, **({} if defaults.width is None else {"width": defaults.width})), task
    if kind == TEXT:
        label, content = data.text(config["data"])
        try:
            words = Text(label, content, config["length"])
        except ValueError as error:
            raise data.Refused(f"--length {config['length']}: {error}") from None
        return build(name, symbols=len(words.alphabet), length=config["length"]), words
    if kind == ROWS:
        found = data.digits(None) if config["data"] is None else data.pictures(config["data"], (28, 28))
        channels, height, width = found.train.shape[1:]
        network = build(name, num_classes=len(found.classes), features=channels * width, length=height)
        return network, Classification(found, found.train, found.test, _augmentation(found, config), rows=True)
    # The network says what pictures it takes; where it takes any number of channels, it gets those of the data.
    wanted = build(name, num_classes=2).inputs[0][1]
    size = (wanted[1] or defaults.size, wanted[2] or defaults.size)
    found = data.digits() if config["data"] is None else data.pictures(config["data"], size)
    network = build(name, num_classes=len(found.classes), channels=found.train.shape[1])
    channels = network.inputs[0][1][0] or found.train.shape[1]
    train, test = (data.resized(data.coloured(images, channels), size) for images in (found.train, found.test))
    return network, Classification(found, train, test, _augmentation(found, config))


def _no_data(name: str, config: dict[str, Any]) -> None:
    if config["data"] is not None:
        raise data.Refused(f"--data: {name} learns from data of its own here")


def _augmentation(found: data.Pictures, config: dict[str, Any]) -> tuple[str, ...]:
    """What the user asks for, or shifts and small turns, and mirrored pictures where they are of the same class."""
    if config["augment"] is None:
        return ("shift", "rotate", "flip") if found.flips else ("shift", "rotate")
    names = tuple(name.strip() for name in config["augment"].split(",") if name.strip() not in ("", "none"))
    unknown = [name for name in names if name not in augment.KINDS]
    if unknown:
        raise data.Refused(f"--augment: unknown {', '.join(unknown)}; there are {', '.join(augment.KINDS)} and none")
    return names


def build(name: str, **options: Any) -> Network:
    """The network, made with those of the options that its function knows; with logits where it can leave out a softmax."""
    from fastops import models

    function: Callable[..., Network] = getattr(models, name)
    known = inspect.signature(function).parameters
    return function(**{key: value for key, value in {"logits": True, **options}.items() if key in known})
