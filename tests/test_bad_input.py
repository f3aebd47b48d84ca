"""Wrong arguments: an error that names the argument, what was given and what is allowed; no kernel runs, out stays as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastops
from fastops import _jit

MANY = 2**62


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@dataclass
class Wrong:
    """A call that must fail: its arguments on top of good ones, the exception, and the argument that it must name."""

    name: str
    argument: str
    error: type[Exception]
    change: dict[str, Any] = field(default_factory=dict)
    said: str = ""  # what else the message must hold: the given, or the allowed

    def __str__(self) -> str:
        return self.name


class Array:
    """Something with ``__array__`` that is no array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("no array here")


COMMON = [
    Wrong("input_without_channels", "input", ValueError, {"input": zeros(6)}, "(6,)"),
    Wrong("input_with_too_many_axes", "input", ValueError, {"input": zeros(1, 1, 1, 4, 6, 6)}, "(1, 1, 1, 4, 6, 6)"),
    Wrong("input_is_a_number", "input", ValueError, {"input": np.float32(3)}, "()"),
    Wrong("input_is_integer", "input", TypeError, {"input": zeros(2, 4, 6, 6, dtype=np.int64)}, "int64"),
    Wrong("input_is_bool", "input", TypeError, {"input": zeros(2, 4, 6, 6, dtype=bool)}, "bool"),
    Wrong("input_is_complex", "input", TypeError, {"input": zeros(2, 4, 6, 6, dtype=np.complex64)}, "complex64"),
    Wrong("input_is_longdouble", "input", TypeError, {"input": zeros(2, 4, 6, 6, dtype=np.longdouble)}, "float"),
    Wrong("input_is_object", "input", TypeError, {"input": zeros(2, 4, 6, 6, dtype=object)}, "object"),
    Wrong("input_is_text", "input", TypeError, {"input": "an image"}),
    Wrong("input_is_none", "input", TypeError, {"input": None}),
    Wrong("input_is_ragged", "input", TypeError, {"input": [[1.0, 2.0], [3.0]]}),
    Wrong("input_is_masked", "input", TypeError, {"input": np.ma.zeros((2, 4, 6, 6), np.float32)}, "mask"),
    Wrong("input_raises", "input", TypeError, {"input": Array()}, "no array here"),
    Wrong("weight_with_too_few_axes", "weight", ValueError, {"weight": zeros(4, 3, 3)}, "(4, 3, 3)"),
    Wrong("weight_with_too_many_axes", "weight", ValueError, {"weight": zeros(4, 4, 1, 3, 3)}, "(4, 4, 1, 3, 3)"),
    Wrong("weight_is_empty", "weight", ValueError, {"weight": zeros(4, 4, 0, 3)}, "(4, 4, 0, 3)"),
    Wrong("weight_of_another_dtype", "weight", TypeError, {"weight": zeros(4, 4, 3, 3, dtype=np.float64)}, "float64"),
    Wrong("weight_is_integer", "weight", TypeError, {"weight": zeros(4, 4, 3, 3, dtype=np.int32)}, "int32"),
    Wrong("weight_is_none", "weight", TypeError, {"weight": None}),
    Wrong("bias_of_another_length", "bias", ValueError, {"bias": zeros(5)}, "(5,)"),
    Wrong("bias_with_two_axes", "bias", ValueError, {"bias": zeros(4, 1)}, "(4, 1)"),
    Wrong("bias_is_a_number", "bias", ValueError, {"bias": np.float32(1)}, "()"),
    Wrong("bias_of_another_dtype", "bias", TypeError, {"bias": zeros(4, dtype=np.float64)}, "float64"),
    Wrong("stride_is_zero", "stride", ValueError, {"stride": 0}, "0"),
    Wrong("stride_is_negative", "stride", ValueError, {"stride": (1, -2)}, "-2"),
    Wrong("stride_is_a_fraction", "stride", TypeError, {"stride": 1.5}, "1.5"),
    Wrong("stride_is_a_bool", "stride", TypeError, {"stride": True}, "True"),
    Wrong("stride_is_text", "stride", TypeError, {"stride": "2"}, "2"),
    Wrong("stride_is_none", "stride", TypeError, {"stride": None}, "None"),
    Wrong("stride_has_three", "stride", ValueError, {"stride": (1, 1, 1)}, "(1, 1, 1)"),
    Wrong("stride_has_none", "stride", ValueError, {"stride": ()}, "()"),
    Wrong("dilation_is_zero", "dilation", ValueError, {"dilation": (1, 0)}, "0"),
    Wrong("dilation_is_a_fraction", "dilation", TypeError, {"dilation": 2.5}, "2.5"),
    Wrong("padding_is_negative", "padding", ValueError, {"padding": -1}, "-1"),
    Wrong("padding_is_a_fraction", "padding", TypeError, {"padding": 0.5}, "0.5"),
    Wrong("padding_has_three", "padding", ValueError, {"padding": (1, 1, 1)}, "(1, 1, 1)"),
    Wrong("padding_is_another_word", "padding", ValueError, {"padding": "full"}, "full"),
    Wrong("padding_pair_of_three", "padding", ValueError, {"padding": ((1, 2, 3), 0)}, "(1, 2, 3)"),
    Wrong("padding_pair_is_negative", "padding", ValueError, {"padding": ((0, -1), 0)}, "-1"),
    Wrong("groups_is_zero", "groups", ValueError, {"groups": 0}, "0"),
    Wrong("groups_is_negative", "groups", ValueError, {"groups": -1}, "-1"),
    Wrong("groups_is_a_fraction", "groups", TypeError, {"groups": 2.0}, "2.0"),
    Wrong("groups_do_not_divide", "groups", ValueError, {"groups": 3}, "3"),
    Wrong("precision_is_another_word", "precision", ValueError, {"precision": "high"}, "highest"),
    Wrong("strategy_is_unknown", "strategy", ValueError, {"strategy": "fft"}, "naive"),
    Wrong("strategy_is_none", "strategy", ValueError, {"strategy": None}, "None"),
    Wrong("data_format_of_another_rank", "data_format", ValueError, {"data_format": "NCW"}, "NCHW"),
    Wrong("data_format_is_none", "data_format", ValueError, {"data_format": None}, "None"),
    Wrong("padding_overflows", "padding", ValueError, {"padding": MANY}),
    Wrong("padding_is_past_64_bits", "padding", ValueError, {"padding": 10**30}),
]

FORWARD = [
    Wrong("activation_is_unknown", "activation", ValueError, {"activation": "rleu"}, "relu"),
    Wrong("activation_is_a_number", "activation", ValueError, {"activation": 1}, "relu"),
    Wrong("activation_is_a_list", "activation", ValueError, {"activation": ["relu"]}, "relu"),
    Wrong("out_of_another_shape", "out", ValueError, {"out": zeros(2, 4, 4, 5)}, "(2, 4, 4, 5)"),
    Wrong("out_of_another_rank", "out", ValueError, {"out": zeros(4, 4, 4)}, "(4, 4, 4)"),
    Wrong("out_of_another_dtype", "out", TypeError, {"out": zeros(2, 4, 4, 4, dtype=np.float64)}, "float64"),
    Wrong("out_with_bytes_swapped", "out", TypeError, {"out": zeros(2, 4, 4, 4, dtype=">f4")}, ">f4"),
    Wrong("out_is_masked", "out", TypeError, {"out": np.ma.zeros((2, 4, 4, 4), np.float32)}, "MaskedArray"),
    Wrong("out_is_a_list", "out", TypeError, {"out": [0.0]}, "list"),
    Wrong("out_is_read_only", "out", ValueError, {"out": np.broadcast_to(np.float32(7), (2, 4, 4, 4))}, "read-only"),
]

CONV = [
    Wrong("channels_differ", "weight", ValueError, {"weight": zeros(4, 5, 3, 3)}, "(4, 5, 3, 3)"),
    Wrong("channels_differ_in_groups", "weight", ValueError, {"groups": 2}, "4"),
    Wrong(
        "groups_do_not_divide_outputs", "groups", ValueError, {"groups": 2, "weight": zeros(5, 2, 3, 3), "bias": None}, "5"
    ),
    Wrong("kernel_larger_than_input", "weight", ValueError, {"weight": zeros(4, 4, 7, 3)}, "(7, 3)"),
    Wrong("dilated_kernel_larger_than_input", "weight", ValueError, {"dilation": (1, 3)}, "(3, 7)"),
    Wrong("input_without_extent", "weight", ValueError, {"input": zeros(2, 4, 0, 6)}, "(0, 6)"),
    Wrong("no_output_channels", "weight", ValueError, {"weight": zeros(0, 4, 3, 3), "bias": None}, "(0, 4, 3, 3)"),
    Wrong("dilation_overflows", "weight", ValueError, {"dilation": MANY}),
]  # fmt: skip

TRANSPOSED = [
    Wrong("channels_differ", "weight", ValueError, {"weight": zeros(5, 4, 3, 3)}, "(5, 4, 3, 3)"),
    Wrong("padding_is_same", "padding", ValueError, {"padding": "same"}, "same"),
    Wrong("padding_eats_the_result", "padding", ValueError, {"padding": 5}),
    Wrong("output_padding_is_negative", "output_padding", ValueError, {"output_padding": -1}, "-1"),
    Wrong("output_padding_reaches_stride", "output_padding", ValueError, {"output_padding": 1}, "1"),
    Wrong("output_padding_is_a_fraction", "output_padding", TypeError, {"output_padding": 0.5}, "0.5"),
    Wrong("input_without_extent", "input", ValueError, {"input": zeros(2, 4, 0, 6)}, "(2, 4, 0, 6)"),
    Wrong("stride_overflows", "", ValueError, {"stride": MANY}),
]

BACKWARD = [
    Wrong("grad_output_of_another_shape", "grad_output", ValueError, {"grad_output": zeros(2, 4, 5, 4)}, "(2, 4, 5, 4)"),
    Wrong("grad_output_of_another_rank", "grad_output", ValueError, {"grad_output": zeros(4, 4, 4)}, "(4, 4, 4)"),
    Wrong("grad_output_is_integer", "grad_output", TypeError, {"grad_output": zeros(2, 4, 4, 4, dtype=np.int8)}, "int8"),
    Wrong("mask_is_short", "output_mask", ValueError, {"output_mask": (True, True)}, "(True, True)"),
    Wrong("mask_is_a_bool", "output_mask", ValueError, {"output_mask": True}, "True"),
    Wrong("mask_of_numbers", "output_mask", ValueError, {"output_mask": (1, 0, 1)}, "(1, 0, 1)"),
]


@pytest.fixture(autouse=True)
def no_kernel_runs(monkeypatch):
    def run(self, *args):
        raise AssertionError(f"the kernel {self.__name__} ran")

    monkeypatch.setattr(_jit.Launcher, "__call__", run)


def refused(function: Any, wrong: Wrong, good: dict[str, Any]) -> None:
    arguments = {**good, **wrong.change}
    with pytest.raises(wrong.error) as caught:
        function(**arguments)
    message = str(caught.value)
    assert type(caught.value) is wrong.error
    assert re.match(rf"{function.__name__}: {wrong.argument}\b", message), message
    assert wrong.said in message, message
    assert len(message) < 400


def calls(transposed: bool) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Good arguments and the shape of the result."""
    good = {"input": zeros(2, 4, 6, 6), "weight": zeros(4, 4, 3, 3), "bias": zeros(4)}
    return good, (2, 4, 8, 8) if transposed else (2, 4, 4, 4)


@pytest.mark.parametrize("wrong", [*COMMON, *FORWARD, *CONV], ids=str)
def test_conv2d(wrong):
    good, shape = calls(transposed=False)
    good["out"] = np.full(shape, 7, np.float32)
    refused(fastops.conv2d, wrong, good)
    assert (good["out"] == 7).all()


@pytest.mark.parametrize("wrong", [*COMMON, *FORWARD[:3], *TRANSPOSED], ids=str)
def test_conv_transpose2d(wrong):
    good, shape = calls(transposed=True)
    good["out"] = np.full(shape, 7, np.float32)
    refused(fastops.conv_transpose2d, wrong, good)
    assert (good["out"] == 7).all()


@pytest.mark.parametrize("wrong", [*COMMON, *CONV, *BACKWARD], ids=str)
def test_conv2d_backward(wrong):
    good, shape = calls(transposed=False)
    refused(fastops.conv2d_backward, wrong, {"grad_output": zeros(*shape), **good})


@pytest.mark.parametrize("wrong", [*COMMON, *TRANSPOSED, *BACKWARD[1:]], ids=str)
def test_conv_transpose2d_backward(wrong):
    good, shape = calls(transposed=True)
    refused(fastops.conv_transpose2d_backward, wrong, {"grad_output": zeros(*shape), **good})


@pytest.mark.parametrize("ndim", [1, 3])
@pytest.mark.parametrize("name", ["conv{}d", "conv_transpose{}d"])
def test_other_ranks(name, ndim):
    function = getattr(fastops, name.format(ndim))
    good = {"input": zeros(2, 4, *[6] * ndim), "weight": zeros(4, 4, *[3] * ndim)}
    for wrong in (
        Wrong("", "input", ValueError, {"input": zeros(2, 4, 6, 6)}, "(2, 4, 6, 6)") if ndim == 1 else
        Wrong("", "input", ValueError, {"input": zeros(6, 6, 6)}, "(6, 6, 6)"),
        Wrong("", "weight", ValueError, {"weight": zeros(4, 4, 3, 3)}, "(4, 4, 3, 3)"),
        Wrong("", "stride", ValueError, {"stride": (1, 1)}, "(1, 1)"),
        Wrong("", "data_format", ValueError, {"data_format": "NHWC"}, "NHWC"),
        Wrong("", "bias", ValueError, {"bias": zeros(3)}, "(3,)"),
    ):  # fmt: skip
        refused(function, wrong, good)


SEPARABLE = [
    Wrong("input_with_two_axes", "input", ValueError, {"input": zeros(6, 6)}, "(6, 6)"),
    Wrong(
        "depthwise_with_channels",
        "depthwise_weight",
        ValueError,
        {"depthwise_weight": zeros(4, 2, 3, 3)},
        "(4, 2, 3, 3)",
    ),
    Wrong("depthwise_no_multiple", "depthwise_weight", ValueError, {"depthwise_weight": zeros(6, 1, 3, 3)}, "6"),
    Wrong("depthwise_too_large", "", ValueError, {"depthwise_weight": zeros(4, 1, 7, 7)}, "(7, 7)"),
    Wrong(
        "pointwise_with_extent", "pointwise_weight", ValueError, {"pointwise_weight": zeros(5, 4, 1, 3)}, "(5, 4, 1, 3)"
    ),
    Wrong(
        "pointwise_channels", "pointwise_weight", ValueError, {"pointwise_weight": zeros(5, 3, 1, 1)}, "(5, 3, 1, 1)"
    ),
    Wrong(
        "pointwise_dtype", "pointwise_weight", TypeError, {"pointwise_weight": zeros(5, 4, 1, 1, dtype="f8")}, "float64"
    ),
    Wrong("bias_length", "bias", ValueError, {"bias": zeros(4)}, "(4,)"),
    Wrong("stride", "stride", ValueError, {"stride": 0}, "0"),
    Wrong("padding", "padding", ValueError, {"padding": "full"}, "full"),
    Wrong("activation", "activation", ValueError, {"activation": "rleu"}, "relu"),
    Wrong("strategy_is_unknown", "strategy", ValueError, {"strategy": "fft"}, "naive"),
    Wrong("strategy_does_the_second_only", "strategy", ValueError, {"strategy": "pointwise"}, "pointwise"),
    Wrong(
        "strategy_does_the_first_only", "strategy", ValueError,
        {
            "strategy": "depthwise", "input": zeros(2, 8, 6, 6), "depthwise_weight": zeros(8, 1, 3, 3),
            "pointwise_weight": zeros(64, 8, 1, 1), "bias": None,
        }, "depthwise",
    ),
    Wrong("out", "out", ValueError, {"out": zeros(2, 5, 4, 5)}, "(2, 5, 4, 5)"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", SEPARABLE, ids=str)
def test_separable_conv2d(wrong):
    out = np.full((2, 5, 4, 4), 7, np.float32)
    good = {
        "input": zeros(2, 4, 6, 6), "depthwise_weight": zeros(4, 1, 3, 3), "pointwise_weight": zeros(5, 4, 1, 1),
        "bias": zeros(5), "out": out,
    }  # fmt: skip
    refused(fastops.separable_conv2d, wrong, good)
    assert (out == 7).all()


CORR2D = [
    Wrong("ranks", "kernel", ValueError, {"kernel": zeros(2, 3, 3)}, "(2, 3, 3)"),
    Wrong("input_rank", "", ValueError, {"input": zeros(6)}, "(6,)"),
    Wrong("too_large", "", ValueError, {"kernel": zeros(7, 3)}, "(7, 3)"),
    Wrong("dtype", "kernel", TypeError, {"kernel": zeros(3, 3, dtype="i4")}, "int32"),
    Wrong("out", "out", ValueError, {"out": zeros(4, 5)}, "(4, 5)"),
]


@pytest.mark.parametrize("wrong", CORR2D, ids=str)
def test_corr2d(wrong):
    out = np.full((4, 4), 7, np.float32)
    refused(fastops.corr2d, wrong, {"input": zeros(6, 6), "kernel": zeros(3, 3), "out": out})
    assert (out == 7).all()


PREPARE = [
    Wrong("weight_rank", "weight", ValueError, {"weight": zeros(4, 3, 3)}, "(4, 3, 3)"),
    Wrong("weight_dtype", "weight", TypeError, {"weight": zeros(4, 4, 3, 3, dtype="i4")}, "int32"),
    Wrong("stride", "stride", ValueError, {"stride": 0}, "0"),
    Wrong("groups", "groups", ValueError, {"groups": 3}, "3"),
    Wrong("strategy", "strategy", ValueError, {"strategy": "fft"}, "fft"),
    Wrong("data_format", "data_format", ValueError, {"data_format": "NCW"}, "NCW"),
    Wrong("precision", "precision", ValueError, {"precision": "low"}, "low"),
]


@pytest.mark.parametrize("wrong", PREPARE, ids=str)
def test_prepare_conv2d(wrong):
    refused(fastops.prepare_conv2d, wrong, {"weight": zeros(4, 4, 3, 3)})


def test_a_prepared_convolution_checks_its_input():
    prepared = fastops.prepare_conv2d(zeros(4, 4, 3, 3))
    for given, error in ((zeros(2, 5, 6, 6), ValueError), (zeros(2, 4, 6, 6, dtype="f8"), TypeError)):
        with pytest.raises(error, match="conv2d: "):
            prepared(given)


def test_a_strategy_that_refuses_says_why():
    with pytest.raises(ValueError, match=r"conv2d: strategy must .*'winograd': ."):
        fastops.conv2d(zeros(2, 4, 9, 9), zeros(4, 4, 3, 3), stride=2, dilation=2, strategy="winograd")


def test_explain():
    with pytest.raises(ValueError, match="explain: op must be "):
        fastops.explain(np.add, zeros(1), zeros(1))
    with pytest.raises(ValueError, match="conv2d: stride must be "):
        fastops.explain(fastops.conv2d, zeros(2, 4, 6, 6), zeros(4, 4, 3, 3), stride=0)
