"""A one-node ONNX model, encoded by hand: onnxruntime runs models without the ``onnx`` package, but does not write them.

ONNX files are protocol buffers: every field is a key (field number and wire type) and a value, where integers are
little-endian base 128 and everything else here is bytes with a length. The field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from fastops.cli.shapes import ConvShape

_FLOAT, _INTS = 1, 7  # TensorProto.FLOAT, AttributeProto.INTS
_INT = 2  # AttributeProto.INT


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _tensor_info(name: str, shape: Iterable[int]) -> bytes:
    """ValueInfoProto: a name, and a float tensor type of this shape."""
    dimensions = _message(*((1, _message((1, n))) for n in shape))
    return _message((1, name), (2, _message((1, _message((1, _FLOAT), (2, dimensions))))))


def _attribute(name: str, value: int | Iterable[int]) -> bytes:
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, _INT))
    return _message((1, name), *((8, v) for v in value), (20, _INTS))


def conv_model(shape: ConvShape, weight: NDArray[Any], batch: int) -> bytes:
    """A float32 model that convolves its input ``x`` with ``weight`` as ``shape`` says."""
    attributes = [
        _attribute("kernel_shape", shape.kernel),
        _attribute("strides", shape.stride),
        _attribute("pads", shape.padding * 2),
        _attribute("dilations", shape.dilation),
        _attribute("group", shape.groups),
    ]
    operator = "ConvTranspose" if shape.transposed else "Conv"
    node = _message((1, "x"), (1, "w"), (2, "y"), (4, operator), *((5, a) for a in attributes))
    constant = _message(*((1, n) for n in weight.shape), (2, _FLOAT), (8, "w"), (9, weight.astype("<f4").tobytes()))
    graph = _message(
        (1, node),
        (2, shape.layer),
        (5, constant),
        (11, _tensor_info("x", (batch, shape.channels, *shape.size))),
        (12, _tensor_info("y", (batch, shape.out_channels, *shape.out_size))),
    )
    return _message((1, 8), (7, graph), (8, _message((2, 13))))  # IR version 8, operator set 13
