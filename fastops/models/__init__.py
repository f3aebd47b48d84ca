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

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastops.models.alexnet import alexnet as alexnet
    from fastops.models.alexnet import alexnet_small as alexnet_small
    from fastops.models.factorized import factorized_small as factorized_small
    from fastops.models.fpn import fpn as fpn
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
    from fastops.models.shufflenet import shufflenet as shufflenet
    from fastops.models.shufflenet import shufflenet_small as shufflenet_small
    from fastops.models.shufflenet import shufflenet_v2_x1_0 as shufflenet_v2_x1_0
    from fastops.models.transformer import language_model as language_model
    from fastops.models.transformer import transformer as transformer
    from fastops.models.unet import unet as unet
    from fastops.models.unet import unet_small as unet_small
    from fastops.models.vgg import vgg16 as vgg16
    from fastops.models.xception import xception as xception
    from fastops.models.xception import xception_small as xception_small

# The public names of each module; those of "network" are no networks.
_NAMES = {
    "alexnet": ("alexnet", "alexnet_small"),
    "factorized": ("factorized_small",),
    "fpn": ("fpn",),
    "graph": ("gat", "gcn", "graph_sage"),
    "inception": ("googlenet",),
    "lenet": ("lenet5",),
    "mobilenet": ("mobilenet_v2",),
    "network": ("Builder", "Network"),
    "recurrent": ("lstm",),
    "resnet": ("resnet18", "resnet18_small", "resnet34", "resnet50"),
    "shufflenet": ("shufflenet", "shufflenet_small", "shufflenet_v2_x1_0"),
    "unet": ("unet", "unet_small"),
    "transformer": ("language_model", "transformer"),
    "vgg": ("vgg16",),
    "xception": ("xception", "xception_small"),
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


class _Package(ModuleType):
    """Importing fastops.models.unet would bind the module here; the network of that name comes first."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
