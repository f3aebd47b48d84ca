"""The activations at the end of a kernel, against formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from fastops._jit import FLAGS
from fastops.simd.epilogue import ACTIVATIONS, activate
from tests.activations import FORMULAS, activation


@njit(**FLAGS)
def run(code, y, start, count):
    activate(code, y, start, count)


def test_every_activation_has_a_code_and_a_formula():
    assert sorted(ACTIVATIONS.values()) == list(range(1, len(ACTIVATIONS) + 1))
    assert set(ACTIVATIONS) == set(FORMULAS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_activation(name, dtype):
    x = np.concatenate([np.linspace(-30, 30, 1001), [0.0, -0.0, 3, -3, 6, 20, -1e-30, 1e-30, 80, -80]]).astype(dtype)
    y = x.copy()
    run(ACTIVATIONS[name], y, 0, y.size)
    # gelu cancels below zero, as its formula does: an error relative to 1 + |x|
    tolerance = 4 * np.finfo(dtype).eps
    expected = activation(name, x.astype(np.float64))
    np.testing.assert_array_less(np.abs(y - expected), tolerance * (1e-300 + np.abs(expected) + (name == "gelu") * np.abs(x)) + 1e-40)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_and_infinity(name, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 1.5] * 9, dtype)
    y = x.copy()
    run(ACTIVATIONS[name], y, 0, y.size)
    expected = activation(name, x.astype(np.float64)).astype(dtype)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33])
def test_only_the_given_elements_change(name, count):
    y = np.full(50, -1.0, np.float32)
    run(ACTIVATIONS[name], y, 5, count)
    changed = np.zeros(50, bool)
    changed[5 : 5 + count] = True
    np.testing.assert_array_equal(y != -1, changed)


def test_code_zero_changes_nothing():
    y = np.linspace(-3, 3, 20)
    before = y.copy()
    run(0, y, 0, y.size)
    np.testing.assert_array_equal(y, before)


@pytest.mark.torch
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_torch(name):
    import torch

    x = np.concatenate([np.linspace(-40, 40, 501), [np.nan, np.inf, -np.inf]])
    y = x.copy()
    run(ACTIVATIONS[name], y, 0, y.size)
    theirs = torch.tanh if name == "tanh" else torch.sigmoid if name == "sigmoid" else getattr(torch.nn.functional, name)
    np.testing.assert_allclose(y, theirs(torch.from_numpy(x)).numpy(), rtol=1e-13, atol=1e-14)
