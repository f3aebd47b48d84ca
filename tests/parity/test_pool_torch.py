"""Pooling beside PyTorch on random options: what its own samples leave out (norms, dilation, uneven windows, ties, NaN)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastops
from fastops import _op

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.torch

LONGEST = {1: 70, 2: 26, 3: 10}


def options(kind: str, ndim: int, size: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Any that PyTorch takes."""
    kernel = tuple(int(k) for k in rng.integers(1, 6, ndim))
    window = {
        "kernel_size": kernel, "stride": tuple(int(s) for s in rng.integers(1, 6, ndim)),
        "padding": tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel), "ceil_mode": bool(rng.random() < 0.5),
    }  # fmt: skip
    if kind == "max":
        return {**window, "dilation": tuple(int(d) for d in rng.integers(1, 4, ndim)), "return_indices": True}
    if kind == "avg":
        return {**window, "count_include_pad": bool(rng.random() < 0.5)}
    if kind == "lp":
        one = (lambda value: value[0]) if ndim == 1 else (lambda value: value)
        p = [1, 2, 3, 1.5, float("inf"), float("-inf")][rng.integers(6)]
        return {"norm_type": p, "kernel_size": one(kernel), "stride": one(window["stride"]), "ceil_mode": window["ceil_mode"]}
    counts = tuple(int(rng.integers(1, n + 3)) for n in size)
    return {"output_size": counts} if kind == "adaptive_avg" else {"output_size": counts, "return_indices": True}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "avg", "lp", "adaptive_avg", "adaptive_max"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_options(kind, ndim, dtype):
    rng = np.random.default_rng(ndim)
    name, compared = f"{kind}_pool{ndim}d", 0
    while compared < 25:
        size = tuple(int(n) for n in rng.integers(1, LONGEST[ndim], ndim))
        call = options(kind, ndim, size, rng)
        x = rng.standard_normal((2, 2, *size))
        if kind == "lp":
            x = np.abs(x) + 0.1
        elif rng.random() < 0.4:
            x = np.round(x)  # ties
        if rng.random() < 0.2 and kind != "lp":
            x[0, 1].flat[0] = np.nan
        x = x.astype(dtype)
        leaf = torch.from_numpy(x.copy()).requires_grad_(True)
        try:
            expected = getattr(F, name)(leaf, **call)
        except RuntimeError:
            continue
        found = getattr(fastops, name)(x, **call)
        if isinstance(found, tuple):
            if (found[1] < 0).any():
                continue  # a window of holes and padding alone, which has a place outside the image in PyTorch
            np.testing.assert_array_equal(found[1], expected[1].numpy())
            found, expected = found[0], expected[0]
        tolerance = {"rtol": 2e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(found, expected.detach().numpy(), **tolerance, err_msg=str(call))
        dy = rng.standard_normal(found.shape).astype(dtype)
        (gradient,) = torch.autograd.grad(expected, leaf, torch.from_numpy(dy))
        _, kept = op.record(x, **call) if (op := _op.get(name)).record else (None, {})
        for more in ({}, kept):
            np.testing.assert_allclose(op.backward(dy, x, **call, **more), gradient.numpy(), **tolerance, err_msg=str(call))
        compared += 1
