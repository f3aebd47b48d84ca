"""PyTorch as a second opinion on convolutions: outputs and gradients over random configurations and corner cases."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

import fastops
from fastops.simd.epilogue import ACTIVATIONS
from tests.cases.conv import random_configurations

pytestmark = pytest.mark.torch

functional = torch.nn.functional
torch.set_num_threads(1)  # its threads wait by spinning, which ruins a machine that runs other tests as well

# Relative to the largest element. Winograd's F(4x4, 3x3) in float32 needs the first
TOLERANCE = {np.float32: 5e-5, np.float64: 1e-12}


def both(op, arrays, options, dtype):
    """Output and gradients of fastops, and of PyTorch."""
    arrays = [None if a is None else a.astype(dtype) for a in arrays]
    y = getattr(fastops, op)(*arrays, **options)
    grad_output = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    ours = [y, *getattr(fastops, f"{op}_backward")(grad_output, *arrays, **options)]

    tensors = [None if a is None else torch.from_numpy(a).requires_grad_() for a in arrays]
    y = getattr(functional, op)(*tensors, **options)
    y.backward(torch.from_numpy(grad_output))
    theirs = [y.detach().numpy(), *(None if t is None else t.grad.numpy() for t in tensors)]
    return ours, theirs


def compare(op, arrays, options, dtype, text):
    for what, ours, theirs in zip(("output", "grad_input", "grad_weight", "grad_bias"), *both(op, arrays, options, dtype)):
        assert (ours is None) == (theirs is None), f"{what} of {text}"
        if ours is not None:
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), f"{what} of {text}"
            # gradients of a bias may cancel: the data are of the size of 1, and so is the scale at least
            error = np.abs(ours - theirs.astype(np.float64)).max(initial=0) / max(1, np.abs(theirs).max(initial=0))
            assert error <= TOLERANCE[dtype], f"{what} of {text}: error {error:.2g}"


def sweep(seed, number, dtype, **fixed):
    rng = np.random.default_rng(seed)
    for configuration in islice(random_configurations(seed, **fixed), number):
        weight, options = configuration["weight"], configuration["options"]
        outs = weight[1] * options["groups"] if "transpose" in configuration["op"] else weight[0]
        arrays = [rng.standard_normal(configuration["input"]), rng.standard_normal(weight), None]
        if configuration["bias"]:
            arrays[2] = rng.standard_normal(outs)
        compare(configuration["op"], arrays, options, dtype, configuration)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
def test_random_configurations(op, dtype):
    sweep(21, 40, dtype, op=op)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (1, 7)])
def test_common_kernels(kernel, dtype):
    sweep(22, 40, dtype, op="conv2d", kernel=kernel)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_random_configurations(dtype):
    sweep(23, 3000, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_of_a_network(dtype):
    """Channels in the tens, where blocks and tiles are full."""
    rng = np.random.default_rng(0)
    for shape, weight, options in (
        ((2, 64, 28, 28), (48, 64, 3, 3), {"padding": 1}),
        ((1, 96, 14, 14), (40, 96, 1, 1), {}),
        ((1, 64, 14, 14), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
        ((1, 32, 28, 28), (48, 32, 3, 3), {"padding": 1, "stride": 2}),
        ((1, 3, 64, 64), (32, 3, 7, 7), {"padding": 3, "stride": 2}),
    ):
        arrays = [rng.standard_normal(shape), rng.standard_normal(weight), rng.standard_normal(weight[0])]
        compare("conv2d", arrays, options, dtype, (shape, weight, options))


@pytest.mark.parametrize("shape", [(0, 3, 6, 6), (3, 6, 6)])
def test_empty_batch_and_no_batch(shape):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)]
    compare("conv2d", arrays, {"padding": 1}, np.float64, shape)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding):
    rng = np.random.default_rng(0)
    for kernel in ((3, 3), (4, 2), (1, 5)):
        for dilation in (1, 2):
            arrays = [rng.standard_normal((2, 3, 11, 12)), rng.standard_normal((4, 3, *kernel)), None]
            compare("conv2d", arrays, {"padding": padding, "dilation": dilation}, np.float64, (kernel, dilation))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fused_activations(name):
    rng = np.random.default_rng(0)
    x, w = 3 * rng.standard_normal((1, 3, 9, 9)), rng.standard_normal((4, 3, 3, 3))
    x[0, 0, 4, 4] = np.nan
    activation = getattr(torch, name) if name in ("tanh", "sigmoid") else getattr(functional, name)
    expected = activation(functional.conv2d(torch.from_numpy(x), torch.from_numpy(w))).numpy()
    np.testing.assert_allclose(fastops.conv2d(x, w, activation=name, strategy="naive"), expected, rtol=1e-12, atol=1e-12)


def test_unfold_and_fold():
    rng = np.random.default_rng(0)
    for _ in range(60):
        kernel, dilation, stride, padding = (tuple(map(int, rng.integers(low, 4, 2))) for low in (1, 1, 1, 0))
        x = rng.standard_normal((2, 3, *(int(n) for n in rng.integers(7, 12, 2))))
        columns = functional.unfold(torch.from_numpy(x), kernel, dilation, padding, stride)
        np.testing.assert_array_equal(fastops.unfold(x, kernel, dilation, padding, stride), columns.numpy())
        image = functional.fold(columns, x.shape[2:], kernel, dilation, padding, stride)
        found = fastops.fold(columns.numpy(), x.shape[2:], kernel, dilation, padding, stride)
        np.testing.assert_allclose(found, image.numpy(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_same_outputs(value):
    x, w = np.ones((1, 2, 9, 9)), np.ones((3, 2, 3, 3))
    x[0, 1, 4, 4] = value
    expected = functional.conv2d(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    np.testing.assert_array_equal(fastops.conv2d(x, w, strategy="naive"), expected)
