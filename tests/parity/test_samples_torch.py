"""PyTorch's own sample inputs: every call that its test suite makes of an operation gives the same numbers and gradients here.

The samples come from the table that PyTorch ships for testing its backends (``op_db``), corner cases included. Operations that
draw random numbers are compared by shape alone: the two libraries have different generators.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import fastops
from fastops import _op, functional

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

pytestmark = pytest.mark.torch

PREFIX = "nn.functional."

# Names under which the table has an operation of ours: top-level functions of torch that are not in nn.functional.
ALSO = {"addmm", "baddbmm", "cdist", "log_softmax", "matmul", "sigmoid", "softmax", "tanh"}

# Operations whose samples have the table first, and the indices after it.
TABLE_FIRST = {"embedding", "embedding_bag"}

RANDOM = {"alpha_dropout", "dropout", "dropout2d", "dropout3d", "feature_alpha_dropout", "fractional_max_pool2d", "fractional_max_pool3d"}


def _sparse_by_frequency(sample: Any) -> bool:
    return bool(sample.kwargs.get("sparse") and sample.kwargs.get("scale_grad_by_freq"))


# Inputs of up to 9 times 9: one probability is almost 1, and PyTorch's gradients are further from the exact ones than the
# tolerance (those of fastops are 2 to 100 times closer); test_attention_torch.py has these shapes with smaller numbers.
_SATURATED = "PyTorch's own rounding errors are larger than the tolerance"

# Samples that differ on purpose, by operation: (test of the sample's arguments, the reason).
EXCEPTIONS: dict[str, list[tuple[Any, str]]] = {
    "cosine_similarity": [(lambda s: s.input.ndim == 0, "the gradient of one element is 0: both sides give rounding errors")],
    "triplet_margin_with_distance_loss": [(lambda s: s.kwargs.get("distance_function"), "a distance of PyTorch takes tensors")],
    "hardsigmoid": [(lambda s: s.input.dtype == torch.float64, "PyTorch's gradient multiplies by 1/6 rounded to float32")],
    "rrelu": [(lambda s: s.kwargs.get("training"), "the two libraries have different generators")],
    "embedding": [(_sparse_by_frequency, "PyTorch has no sparse gradient by frequency")],
    "embedding_bag": [(_sparse_by_frequency, "PyTorch has no sparse gradient by frequency")],
    "scaled_dot_product_attention": [
        (lambda s: s.kwargs["dropout_p"] > 0, "the two libraries have different generators"),
        (lambda s: s.kwargs["attn_mask"] is None if "attn_mask" in s.kwargs else s.input.abs().max() > 8, _SATURATED),
    ],
    "multi_head_attention_forward": [(lambda s: True, _SATURATED)],
    "batch_norm": [
        (lambda sample: sample.input.ndim < 2, "an empty vector has no channels"),
        (lambda sample: sample.input.numel() == 2, "the gradient of two elements is 0: both sides give rounding errors"),
    ],
    "group_norm": [(lambda sample: sample.input.numel() == 2, "the gradient of two elements is 0: both sides give rounding errors")],
    "layer_norm": [(lambda sample: sample.input.numel() <= 2, "the gradient of two elements is 0: both sides give rounding errors")],
    "rms_norm": [(lambda sample: sample.input.numel() == 1, "the gradient of one element is 0: both sides give rounding errors")],
    "normalize": [(lambda sample: sample.input.shape[:1] in ((), (1,)) and sample.kwargs.get("dim") == 0, "the gradient of one element is 0: rounding errors")],
}

# Refusals of PyTorch (the beginning of its message) for what fastops does.
DONE_HERE = ("padding='same' is not supported for strided convolutions",)


def name_of(info: Any) -> str | None:
    """Our name of an entry of the table; None for what fastops does not have."""
    if info.name.startswith(PREFIX):
        name = info.name.removeprefix(PREFIX)
    else:
        name = info.name if info.name in ALSO else ""
    return name if name in functional.__all__ else None


def in_order(name: str, arguments: tuple) -> tuple:
    """Positional arguments in the order of the public function."""
    return (arguments[1], arguments[0], *arguments[2:]) if name in TABLE_FIRST else arguments


INFOS = [info for info in op_db if name_of(info)]


def to_numpy(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.detach().numpy()
    if isinstance(value, torch.dtype):
        return np.dtype(str(value).removeprefix("torch."))
    if isinstance(value, (tuple, list)):
        return type(value)(map(to_numpy, value))
    return value


def to_leaf(value: Any) -> Any:
    if torch.is_tensor(value):
        leaf = value.detach().clone()
        return leaf.requires_grad_(True) if leaf.is_floating_point() else leaf
    if isinstance(value, (tuple, list)):
        return type(value)(map(to_leaf, value))
    return value


def results(output: Any) -> list[Any]:
    return [r for one in output for r in results(one)] if isinstance(output, (tuple, list)) else [output]


# Errors allowed, in ulp of the largest element: those of fifty steps in time, each a sum of exponentials, add up.
ULP = {"ctc_loss": 2000}


def assert_agree(found: np.ndarray, expected: Any, what: str, ulp: int = 200, floor: float = 1e-30) -> None:
    expected = expected.detach().to_dense().numpy()
    assert found.shape == expected.shape, what
    assert found.dtype == expected.dtype, what
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected), err_msg=what)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite], err_msg=what)
    if finite.any():
        scale = np.abs(expected[finite]).max()
        error = np.abs(found[finite] - expected[finite]).max()
        assert error <= ulp * np.finfo(expected.dtype).eps * max(scale, floor), f"{what}: {error:.3g} where the largest element is {scale:.3g}"


def called(function: Any, leaves: Any, by_name: dict[str, Any]) -> Any:
    """The result; arguments that PyTorch has no gradient of are taken out of its graph as it complains about them."""
    while True:
        try:
            return function(*leaves[0], **leaves[1])
        except RuntimeError as refused:
            name = re.search(r"is not differentiable with respect to argument '(\w+)'", str(refused))
            leaf = None if name is None else by_name.get(name[1], by_name.get(f"_{name[1]}"))
            if leaf is None or not leaf.requires_grad:
                raise
            leaf.requires_grad_(False)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("info", INFOS, ids=lambda info: f"{name_of(info)}{'-' + info.variant_test_name if info.variant_test_name else ''}")
def test_samples(info, dtype):
    name = name_of(info)
    function, op = getattr(fastops, name), _op.get(name)
    kind = getattr(torch, dtype)
    if kind not in info.supported_dtypes("cpu"):
        pytest.skip(f"PyTorch does not do this in {dtype}")
    torch.manual_seed(0)
    for number, sample in enumerate(info.sample_inputs("cpu", kind, requires_grad=False)):
        if any(test(sample) for test, _ in EXCEPTIONS.get(name, ())):
            continue
        what = f"sample {number}: {sample.summary()}"
        leaves = to_leaf((sample.input, *sample.args)), {k: to_leaf(v) for k, v in sample.kwargs.items()}
        followed_by_torch = inspect.signature(function).bind(*in_order(name, leaves[0]), **leaves[1]).arguments
        try:
            expected = called(info.op, leaves, followed_by_torch)
        except RuntimeError as refused:
            if "not implemented" in str(refused):
                continue
            raise
        arguments = to_numpy((sample.input, *sample.args)), {k: to_numpy(v) for k, v in sample.kwargs.items()}
        signature = inspect.signature(function)
        bound = signature.bind(*in_order(name, arguments[0]), **arguments[1]).arguments
        output, kept = op.record(**bound) if op.record else (function(**bound), {})
        if name in RANDOM and bound.get("_random_samples") is None:
            assert [o.shape for o in results(output)] == [tuple(e.shape) for e in results(expected)], what
            continue
        for found, wanted in zip(results(output), results(expected), strict=True):
            assert_agree(found, wanted, what, ULP.get(name, 200))
        if op.backward is None:
            continue
        compare_gradients(op, bound, kept, output, signature.bind(*in_order(name, leaves[0]), **leaves[1]).arguments, expected, what)


def compare_gradients(op: Any, bound: dict, kept: dict, output: Any, leaves: dict, expected: Any, what: str) -> None:
    followed = [r for r in results(expected) if torch.is_tensor(r) and r.requires_grad]
    if not followed:
        return
    rng = np.random.default_rng(0)
    grads = iter([torch.from_numpy(np.asarray(rng.standard_normal(r.shape))).to(r.dtype) for r in followed])
    given = [next(grads) if torch.is_tensor(r) and r.requires_grad else None for r in results(expected)]
    wanted = [value for name in op.inputs for value in results(leaves.get(name))]
    wanted = [v if torch.is_tensor(v) and v.requires_grad else None for v in wanted]
    grad_output = tuple(None if g is None else g.numpy() for g in given) if isinstance(output, tuple) else given[0].numpy()
    parameters = inspect.signature(op.backward).parameters
    found = op.backward(grad_output, **{k: v for k, v in {**bound, **kept}.items() if k in parameters})
    found = [g for one in (found if len(op.inputs) > 1 else (found,)) for g in results(one)]
    exist = [v for v in wanted if v is not None]
    truth = iter(torch.autograd.grad(followed, exist, [g for g in given if g is not None], allow_unused=True))
    for number, (gradient, leaf) in enumerate(zip(found, wanted, strict=True)):
        if leaf is not None:
            true = next(truth)
            # Terms of the size of 1 that cancel leave their rounding.
            true = torch.zeros_like(leaf) if true is None else true
            assert_agree(gradient, true, f"{what}, gradient {number}", ULP.get(op.name, 200), floor=1e-2)


@pytest.mark.parametrize("info", [i for i in INFOS if i.error_inputs_func], ids=name_of)
def test_refusals(info):
    """What PyTorch refuses, fastops refuses."""
    function = getattr(fastops, name_of(info))
    for error in info.error_inputs("cpu"):
        sample = error.sample_input
        values = [v for v in (sample.input, *sample.args, *sample.kwargs.values()) if torch.is_tensor(v)]
        if any(v.is_complex() or v.dtype == torch.bfloat16 for v in values) or error.error_regex.startswith(DONE_HERE):
            continue
        with pytest.raises((TypeError, ValueError, IndexError)):
            function(*to_numpy((sample.input, *sample.args)), **{k: to_numpy(v) for k, v in sample.kwargs.items()})
