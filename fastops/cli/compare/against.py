"""The same layers run by other libraries, where they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from fastops.cli._layers import FORWARD, GRADIENTS, Layer
from fastops.cli.compare.onnx_model import conv_model

Call = Callable[[], Any]


def _torch(layer: Layer, direction: str, threads: int) -> Call:
    import torch

    torch.set_num_threads(threads)
    s = layer.shape
    x, w, dy = (torch.from_numpy(a) for a in (layer.input, layer.weight, layer.grad_output))
    no_output_padding = (0,) * len(s.kernel)
    if direction == FORWARD:
        arguments = (x, w, None, s.stride, s.padding, s.dilation, s.transposed, no_output_padding, s.groups)
        return lambda: torch.convolution(*arguments).numpy()
    which = GRADIENTS.index(direction)
    mask = (which == 0, which == 1, False)
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(dy, x, w, None, s.stride, s.padding, s.dilation, s.transposed, no_output_padding, s.groups, mask)[which].numpy()


def _onnxruntime(layer: Layer, direction: str, threads: int) -> Call:
    import onnxruntime

    if direction != FORWARD:
        raise NotImplementedError("onnxruntime computes no gradients")
    if layer.weight.dtype != np.float32:
        raise NotImplementedError("onnxruntime convolves float32 alone on the CPU")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(conv_model(layer.shape, layer.weight, layer.batch), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": layer.input})[0]


# Each makes a call that computes what ``layer.call(direction, ...)`` does, or raises NotImplementedError with the reason.
LIBRARIES: dict[str, Callable[[Layer, str, int], Call]] = {"torch": _torch, "onnxruntime": _onnxruntime}


def installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def version(library: str) -> str:
    return str(importlib.import_module(library).__version__)
