"""Networks as functions over dicts of parameters.

    >>> import numpy as np
    >>> from fastops import models
    >>> model = models.lenet5()
    >>> params, buffers = model.init(rng=0)
    >>> y, buffers = model.apply(params, buffers, np.zeros((2, 1, 32, 32), np.float32))
    >>> y.shape
    (2, 10)

Names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastops.models.alexnet import alexnet as alexnet
    from fastops.models.alexnet import alexnet_small as alexnet_small
    from fastops.models.graph import gat as gat
    from fastops.models.graph import gcn as gcn
    from fastops.models.graph import graph_sage as graph_sage
    from fastops.models.inception import googlenet as googlenet
    from fastops.models.lenet import lenet5 as lenet5
    from fastops.models.mobilenet import mobilenet_v2 as mobilenet_v2
    from fastops.models.network import Builder as Builder
    from fastops.models.network import Network as Network
    from fastops.models.recurrent import lstm as lstm
    from fastops.models.resnet import resnet18 as resnet18
    from fastops.models.resnet import resnet18_small as resnet18_small
    from fastops.models.resnet import resnet34 as resnet34
    from fastops.models.resnet import resnet50 as resnet50
    from fastops.models.shufflenet import shufflenet_v2_x1_0 as shufflenet_v2_x1_0
    from fastops.models.transformer import language_model as language_model
    from fastops.models.transformer import transformer as transformer
    from fastops.models.vgg import vgg16 as vgg16

# The public names of each module; those of "network" are no networks.
_NAMES = {
    "alexnet": ("alexnet", "alexnet_small"),
    "graph": ("gat", "gcn", "graph_sage"),
    "inception": ("googlenet",),
    "lenet": ("lenet5",),
    "mobilenet": ("mobilenet_v2",),
    "network": ("Builder", "Network"),
    "recurrent": ("lstm",),
    "resnet": ("resnet18", "resnet18_small", "resnet34", "resnet50"),
    "shufflenet": ("shufflenet_v2_x1_0",),
    "transformer": ("language_model", "transformer"),
    "vgg": ("vgg16",),
}

_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def networks() -> tuple[str, ...]:
    """The names of the networks.

    >>> "resnet18" in networks()
    True
    """
    return tuple(sorted(name for name, module in _MODULES.items() if module != "network"))


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'fastops.models' has no attribute {name!r}")
    value = getattr(import_module(f"fastops.models.{_MODULES[name]}"), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return [*__all__, "networks"]
