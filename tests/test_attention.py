"""Attention: the contract of every operation, its corners, and wrong arguments."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

import fastops
from fastops import _op
from tests.cases.attention import ROWS, attention
from tests.harness import assert_same_bits, every_check

SDPA = _op.get(fastops.scaled_dot_product_attention)


@every_check(ROWS)
def test_row(check, row):
    check(row)


def drawn(*shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def test_a_query_without_keys_gives_zeros_and_has_no_gradient():
    q, k, v, dy = drawn((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), (2, 3, 5, 4))
    mask = np.zeros((5, 6))
    mask[2] = -np.inf
    y, kept = SDPA.record(q, k, v, mask)
    assert (y[..., 2, :] == 0).all()
    assert (y[..., 1, :] != 0).all()
    dq, *others = SDPA.backward(dy, q, k, v, mask, **kept)
    assert (dq[..., 2, :] == 0).all()
    assert all(np.isfinite(g).all() for g in others)
    dy[..., 2, :] = 1e9
    for same, gradient in zip(SDPA.backward(dy, q, k, v, mask, **kept)[1:3], others):
        np.testing.assert_allclose(same, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (5, 1), (3, 1, 1), ()])
def test_a_mask_that_repeats_itself_has_a_gradient_for_each_element(shape):
    q, k, v, dy, mask = drawn((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4), (2, 3, 5, 4), shape)
    repeated = np.broadcast_to(mask, (2, 3, 5, 6))
    expected = SDPA.backward(dy, q, k, v, repeated.copy())[3]
    np.testing.assert_array_equal(SDPA.backward(dy, q, k, v, repeated)[3], expected)
    wide = tuple(i for i in range(4) if repeated.strides[i] == 0)
    np.testing.assert_allclose(SDPA.backward(dy, q, k, v, mask)[3], expected.sum(wide).reshape(shape), rtol=0, atol=1e-12)


def test_no_keys_at_all():
    q, k, v, dy = drawn((2, 5, 4), (2, 0, 4), (2, 0, 3), (2, 5, 3))
    y, kept = SDPA.record(q, k, v)
    assert_same_bits(y, np.zeros((2, 5, 3)))
    dq, dk, _, _ = SDPA.backward(dy, q, k, v, **kept)
    assert_same_bits(dq, np.zeros_like(q))
    assert dk.shape == k.shape


def test_large_scores_do_not_overflow():
    q, k, v = drawn((1, 4, 8), (1, 5, 8), (1, 5, 3), dtype=np.float32)
    q *= 1e4
    y = fastops.scaled_dot_product_attention(q, k, v)
    np.testing.assert_allclose(y, attention(*(x.astype(np.float64) for x in (q, k, v))), rtol=1e-4, atol=1e-4)


def test_memory_is_linear_in_the_length():
    shape = (1, 2, 4096, 16)
    q, k, v, dy = drawn(shape, shape, shape, shape, dtype=np.float32)
    allowed = np.broadcast_to(np.arange(4096) < 4000, (4096, 4096))

    def both():
        y, kept = SDPA.record(q, k, v, allowed)
        SDPA.backward(dy, q, k, v, allowed, **kept)
        return y

    both()
    tracemalloc.start()
    both()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


def test_dropout():
    q, k, v, dy = drawn((2, 50, 8), (2, 200, 8), (2, 200, 8), (2, 50, 8))
    # values that pick the weights out: the mean over many keys keeps its expectation
    ones = np.ones((2, 200, 1))
    y = fastops.scaled_dot_product_attention(q * 0, k, ones, dropout_p=0.25, rng=3)
    assert abs(y.mean() - 1) < 0.02
    assert 0.01 < y.std() < 0.1
    assert_same_bits(y, fastops.scaled_dot_product_attention(q * 0, k, ones, dropout_p=0.25, rng=3))
    assert (y != fastops.scaled_dot_product_attention(q * 0, k, ones, dropout_p=0.25, rng=4)).any()
    np.testing.assert_array_equal(fastops.scaled_dot_product_attention(q, k, v, dropout_p=1.0), 0)
    # the gradient is that of the weights that were left
    y, kept = SDPA.record(q, k, v, dropout_p=0.5, rng=np.random.default_rng(1))
    gradients = SDPA.backward(dy, q, k, v, dropout_p=0.5, **kept)
    rng = np.random.default_rng(2)
    arrays = {"query": q, "key": k, "value": v}
    for (name, value), gradient in zip(arrays.items(), gradients):
        step = 1e-5 * rng.standard_normal(value.shape)
        moved = ({**arrays, name: value + sign * step} for sign in (1, -1))
        ahead, behind = (fastops.scaled_dot_product_attention(**m, dropout_p=0.5, rng=kept["rng"]) for m in moved)
        np.testing.assert_allclose(np.vdot(dy, ahead - behind) / 2, np.vdot(gradient, step), rtol=1e-6)


def test_few_heads_and_many_give_the_same_bits():
    """Shared out by heads or by blocks of keys and queries."""
    q, k, v, dy = drawn((1, 300, 16), (1, 300, 16), (1, 300, 16), (1, 300, 16), dtype=np.float32)
    many = [np.repeat(x, 12, axis=0) for x in (q, k, v, dy)]
    one, all_ = [], []
    for arrays, results in (((q, k, v, dy), one), (many, all_)):
        y, kept = SDPA.record(*arrays[:3], is_causal=True)
        results += [y, *SDPA.backward(arrays[3], *arrays[:3], is_causal=True, **kept)[:3]]
    for a, b in zip(one, all_):
        assert_same_bits(b[7], a[0])


WRONG = [
    ({"query": np.zeros(4)}, ValueError, "query"),
    ({"query": np.zeros((2, 3, 5, 4), int)}, TypeError, "query"),
    ({"key": np.zeros((2, 3, 6, 5))}, ValueError, "key"),
    ({"key": np.zeros((2, 3, 6, 4), np.float32)}, TypeError, "key"),
    ({"value": np.zeros((2, 3, 5, 4))}, ValueError, "value"),
    ({"key": np.zeros((2, 2, 6, 4)), "value": np.zeros((2, 2, 6, 4))}, ValueError, "key and value"),
    ({"key": np.zeros((2, 2, 6, 4)), "value": np.zeros((2, 2, 6, 4)), "enable_gqa": True}, ValueError, "key"),
    ({"attn_mask": np.zeros((4, 6))}, ValueError, "attn_mask"),
    ({"attn_mask": np.zeros((1, 2, 3, 5, 6))}, ValueError, "attn_mask"),
    ({"attn_mask": np.zeros((5, 6), np.float32)}, TypeError, "attn_mask"),
    ({"attn_mask": np.zeros((5, 6), int)}, TypeError, "attn_mask"),
    ({"attn_mask": np.zeros((5, 6)), "is_causal": True}, ValueError, "attn_mask"),
    ({"dropout_p": 1.5}, ValueError, "dropout_p"),
    ({"scale": "1"}, TypeError, "scale"),
    ({"dropout_p": 0.5, "rng": 0.5}, TypeError, "rng"),
]


@pytest.mark.parametrize(("change", "error", "argument"), WRONG)
def test_wrong_arguments(change, error, argument):
    given = {"query": np.zeros((2, 3, 5, 4)), "key": np.zeros((2, 3, 6, 4)), "value": np.zeros((2, 3, 6, 4)), **change}
    with pytest.raises(error) as caught:
        fastops.scaled_dot_product_attention(**given)
    assert re.match(rf"scaled_dot_product_attention: {argument}\b", str(caught.value)), caught.value


WRONG_HEADS = [
    ({"query": np.zeros((3, 2, 2, 4))}, ValueError, "query"),
    ({"embed_dim_to_check": 5}, ValueError, "query"),
    ({"num_heads": 3}, ValueError, "num_heads"),
    ({"key": np.zeros((5, 3, 4))}, ValueError, "key"),
    ({"value": np.zeros((4, 2, 4))}, ValueError, "value"),
    ({"in_proj_weight": np.zeros((12, 5))}, ValueError, "in_proj_weight"),
    ({"in_proj_weight": None}, ValueError, "in_proj_weight"),
    ({"in_proj_bias": np.zeros(4)}, ValueError, "in_proj_bias"),
    ({"use_separate_proj_weight": True}, ValueError, "q_proj_weight"),
    ({"bias_k": np.zeros((1, 1, 4))}, ValueError, "bias_v"),
    ({"out_proj_weight": np.zeros((4, 5))}, ValueError, "out_proj_weight"),
    ({"out_proj_bias": np.zeros(5)}, ValueError, "out_proj_bias"),
    ({"attn_mask": np.zeros((3, 4))}, ValueError, "attn_mask"),
    ({"key_padding_mask": np.zeros((2, 4), bool)}, ValueError, "key_padding_mask"),
    ({"is_causal": True}, ValueError, "attn_mask"),
    ({"attn_mask": 10**30}, TypeError, "attn_mask"),
    *(({name: None}, TypeError, name) for name in ("query", "key", "value", "out_proj_weight")),
    ({"static_k": np.zeros((4, 5, 3))}, ValueError, "static_k"),
    ({"dropout_p": -1}, ValueError, "dropout_p"),
]


@pytest.mark.parametrize(("change", "error", "argument"), WRONG_HEADS)
def test_wrong_arguments_of_heads(change, error, argument):
    given = {
        "query": np.zeros((3, 2, 4)), "key": np.zeros((5, 2, 4)), "value": np.zeros((5, 2, 4)), "embed_dim_to_check": 4, "num_heads": 2,
        "in_proj_weight": np.zeros((12, 4)), "in_proj_bias": None, "bias_k": None, "bias_v": None, "add_zero_attn": False,
        "dropout_p": 0.0, "out_proj_weight": np.zeros((4, 4)), "out_proj_bias": None, **change,
    }  # fmt: skip
    with pytest.raises(error) as caught:
        fastops.multi_head_attention_forward(**given)
    assert re.match(rf"multi_head_attention_forward: {argument}\b", str(caught.value)), caught.value


@pytest.mark.parametrize("shape", [(0, 2, 4), (3, 0, 4), (0, 4)])
@pytest.mark.parametrize("outs", [4, 0])
def test_heads_of_nothing(shape, outs):
    def heads(q, w, b):
        return fastops.multi_head_attention_forward(q, q, q, 4, 2, np.ones((12, 4)), np.ones(12), None, None, False, 0.0, w, b)

    primals = np.ones(shape), np.ones((outs, 4)), np.ones(outs)
    y, pullback = fastops.vjp(heads, *primals)
    assert y[0].shape == (*shape[:-1], outs)
    assert [g.shape for g in pullback(y)] == [x.shape for x in primals]


WRONG_ROTARY = [
    ({"input": np.zeros(6)}, ValueError, "input"),
    ({"cos": np.zeros((3, 3))}, ValueError, "cos"),
    ({"cos": np.zeros((4, 4)), "sin": np.zeros((4, 4))}, ValueError, "cos"),
    ({"sin": np.zeros((4, 2))}, ValueError, "sin"),
    ({"cos": np.zeros((3, 4, 3)), "sin": np.zeros((3, 4, 3))}, ValueError, "cos"),
]


@pytest.mark.parametrize(("change", "error", "argument"), WRONG_ROTARY)
def test_wrong_arguments_of_rotary_embedding(change, error, argument):
    with pytest.raises(error) as caught:
        fastops.rotary_embedding(**{"input": np.zeros((2, 4, 6)), "cos": np.zeros((4, 3)), "sin": np.zeros((4, 3)), **change})
    assert re.match(rf"rotary_embedding: {argument}\b", str(caught.value)), caught.value
