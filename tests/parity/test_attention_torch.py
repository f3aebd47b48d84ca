"""Attention beside PyTorch: its own samples with smaller numbers, and options that these do not have."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fastops
from fastops import _op

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

import torch.nn.functional as F  # noqa: E402
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

pytestmark = pytest.mark.torch

SDPA, MHA = "scaled_dot_product_attention", "multi_head_attention_forward"


def to_numpy(value):
    return value.detach().numpy() if torch.is_tensor(value) else value


def assert_close(found, expected, what):
    expected = expected.detach().numpy()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    scale = max(np.abs(expected).max(), 1.0) if expected.size else 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=300 * np.finfo(expected.dtype).eps * scale, err_msg=what)


def compare(name, theirs, arguments, what):
    """Outputs and all gradients of one call; ``arguments`` by name, with tensors."""
    op = _op.get(name)
    leaves = {k: v.detach().clone() if torch.is_tensor(v) else v for k, v in arguments.items()}
    leaves = {k: v.requires_grad_(True) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in leaves.items()}
    expected = theirs(**leaves)
    ours = {k: to_numpy(v) for k, v in arguments.items()}
    found, kept = op.record(**ours)
    both = [(f, e) for f, e in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected))) if e is not None]
    for one, other in both:
        assert_close(one, other, what)
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(one.shape).astype(one.dtype) for one, _ in both]
    given = (grads[0], grads[1] if len(grads) > 1 else None) if isinstance(found, tuple) else grads[0]
    wanted = {k: v for k, v in leaves.items() if torch.is_tensor(v) and v.requires_grad and k in op.inputs}
    truth = torch.autograd.grad([e for _, e in both], list(wanted.values()), [torch.from_numpy(g) for g in grads], allow_unused=True)
    gradients = dict(zip(op.inputs, op.backward(given, **ours, **kept)))
    for (key, leaf), true in zip(wanted.items(), truth):
        assert_close(gradients[key], torch.zeros_like(leaf) if true is None else true, f"{what}: gradient of {key}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", [SDPA, MHA])
def test_samples(name, dtype):
    info = next(i for i in op_db if i.name == f"nn.functional.{name}")
    for number, sample in enumerate(info.sample_inputs("cpu", getattr(torch, dtype), requires_grad=False)):
        values = [v / 9 if torch.is_tensor(v) and v.is_floating_point() else v for v in (sample.input, *sample.args)]
        options = {k: v / 9 if torch.is_tensor(v) and v.is_floating_point() else v for k, v in sample.kwargs.items()}
        arguments = dict(inspect.signature(getattr(fastops, name)).bind(*values, **options).arguments)
        if not arguments["dropout_p"]:
            compare(name, getattr(F, name), arguments, f"sample {number}")


def draw_attention(rng, dtype):
    """Shapes around the sizes of tiles and vectors, every kind of mask."""
    L, S = (int(n) for n in rng.choice([1, 5, 63, 64, 65, 130, 200], 2))
    D, E = (int(n) for n in rng.choice([1, 7, 16, 32, 40], 2))
    gqa = rng.random() < 0.3
    lead, kv_lead = ((2, 6), (2, 3)) if gqa else [((3,), (3,)), ((2, 3), (2, 3)), ((2, 1), (1, 3)), ((), ())][rng.integers(4)]

    def normal(*shape):
        return torch.from_numpy(np.asarray(rng.standard_normal(shape)).astype(dtype))

    arguments = {"query": normal(*lead, L, D), "key": normal(*kv_lead, S, D), "value": normal(*kv_lead, S, E), "enable_gqa": gqa}
    kind = rng.integers(4)
    heads = np.broadcast_shapes(lead, lead if gqa else kv_lead)
    mask_lead = [heads, (*heads[:-1], 1), ()][rng.integers(3)] if heads else ()
    shape = (*mask_lead, L if rng.random() < 0.7 else 1, S if rng.random() < 0.7 else 1)
    if kind == 1:
        arguments["is_causal"] = True
    elif kind == 2:
        arguments["attn_mask"] = normal(*shape)
    elif kind == 3:
        arguments["attn_mask"] = torch.from_numpy(rng.random(shape) < 0.7)
    if rng.random() < 0.3:
        arguments["scale"] = 0.3
    return arguments


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_attention(dtype):
    rng = np.random.default_rng(0)
    for number in range(40):
        arguments = draw_attention(rng, dtype)
        shapes = {k: tuple(v.shape) if torch.is_tensor(v) else v for k, v in arguments.items()}
        compare(SDPA, F.scaled_dot_product_attention, arguments, f"call {number}: {shapes}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_heads(dtype):
    rng = np.random.default_rng(1)
    for number in range(40):
        N, H, L, S, size = (int(n) for n in rng.integers(1, 7, 5))
        E, batched, separate, static = H * size, rng.random() < 0.7, rng.random() < 0.5, rng.random() < 0.2
        N = N if batched else 1
        batch = [N] if batched else []
        E_k, E_v = (E + 3, E + 1) if separate else (E, E)
        bias = not static and rng.random() < 0.5

        def normal(*shape, rng=rng):
            return torch.from_numpy(np.asarray(rng.standard_normal(shape) / 2).astype(dtype))

        def mask(*shape, rng=rng, normal=normal):
            kept = torch.from_numpy(rng.random(shape) < 0.3)
            kept[..., 0] = False
            return [None, kept, normal(*shape)][rng.integers(3)]

        static_shape = (N * H, S, size)
        arguments = {
            "query": normal(L, *batch, E), "key": normal(S, *batch, E_k), "value": normal(S, *batch, E_v), "embed_dim_to_check": E, "num_heads": H,
            "in_proj_weight": None if separate else normal(3 * E, E), "in_proj_bias": normal(3 * E) if rng.random() < 0.7 else None,
            "bias_k": normal(1, 1, E) if bias else None, "bias_v": normal(1, 1, E) if bias else None,
            "add_zero_attn": bool(rng.random() < 0.3), "dropout_p": 0.0, "out_proj_weight": normal(E, E),
            "out_proj_bias": normal(E) if rng.random() < 0.7 else None, "key_padding_mask": mask(*batch, S),
            "need_weights": bool(rng.random() < 0.5), "attn_mask": mask(L, S) if rng.random() < 0.5 else mask(N * H, L, S),
            "use_separate_proj_weight": separate, "q_proj_weight": normal(E, E) if separate else None,
            "k_proj_weight": normal(E, E_k) if separate else None, "v_proj_weight": normal(E, E_v) if separate else None,
            "static_k": normal(*static_shape) if static else None, "static_v": normal(*static_shape) if static else None,
            "average_attn_weights": bool(rng.random() < 0.5),
        }  # fmt: skip
        shapes = {k: tuple(v.shape) if torch.is_tensor(v) else v for k, v in arguments.items()}
        compare(MHA, F.multi_head_attention_forward, arguments, f"call {number}: {shapes}")
