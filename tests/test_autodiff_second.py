"""Second derivatives of operations: the pullback, as a function of primals and cotangent, against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastops
from fastops import check_grad, grad, vjp
from fastops.autodiff.operations import second
from fastops.autodiff.variable import Variable

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


def apart(*shape):
    """All different, none near 0 or another kink of an activation."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size / 2 + 0.3) * 0.27).reshape(shape)


# operation, arrays by name, options
ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("conv1d", {"input": normal(2, 3, 8), "weight": normal(4, 3, 3), "bias": normal(4)}, {"stride": 2, "padding": 1}),
    ("conv2d", {"input": normal(2, 4, 6, 7), "weight": normal(6, 2, 3, 3), "bias": normal(6)}, {"groups": 2, "padding": ((1, 0), (2, 1))}),
    ("conv2d", {"input": normal(4, 6, 7, 2), "weight": normal(3, 2, 3, 3), "bias": normal(3)}, {"data_format": "NHWC", "dilation": 2}),
    ("conv2d", {"input": normal(2, 5, 5), "weight": normal(3, 2, 3, 3)}, {}),
    ("conv3d", {"input": normal(1, 2, 4, 4, 4), "weight": normal(2, 2, 2, 2, 2), "bias": normal(2)}, {}),
    ("conv_transpose1d", {"input": normal(2, 3, 5), "weight": normal(3, 4, 3), "bias": normal(4)}, {"stride": 2}),
    ("conv_transpose2d", {"input": normal(1, 3, 4, 4), "weight": normal(3, 2, 3, 3), "bias": normal(2)}, {"stride": 2, "output_padding": 1, "padding": 1}),
    ("conv_transpose3d", {"input": normal(1, 2, 2, 3, 3), "weight": normal(2, 2, 2, 2, 2), "bias": normal(2)}, {}),
    ("corr2d", {"input": normal(5, 6), "kernel": normal(2, 3)}, {}),
    ("linear", {"input": normal(2, 3, 4), "weight": normal(5, 4), "bias": normal(5)}, {}),
    ("matmul", {"input": normal(3, 1, 2, 4), "other": normal(2, 4, 3)}, {}),
    ("matmul", {"input": normal(4), "other": normal(2, 4, 3)}, {}),
    ("addmm", {"input": normal(3), "mat1": normal(2, 4), "mat2": normal(4, 3)}, {"beta": 2.0, "alpha": 0.5}),
    ("baddbmm", {"input": normal(2, 2, 3), "batch1": normal(2, 2, 4), "batch2": normal(2, 4, 3)}, {"alpha": 0.5}),
    ("bilinear", {"input1": normal(2, 3), "input2": normal(2, 4), "weight": normal(5, 3, 4), "bias": normal(5)}, {}),
    ("unfold", {"input": normal(1, 2, 5, 5)}, {"kernel_size": 3, "padding": 1}),
    ("fold", {"input": normal(1, 8, 9)}, {"output_size": (4, 4), "kernel_size": 2}),
    ("pad", {"input": normal(1, 2, 4, 5)}, {"pad": (1, 2, 0, 1), "mode": "reflect"}),
    ("pad", {"input": normal(1, 2, 4, 5)}, {"pad": (1, 2), "value": 3.0}),
    ("interpolate", {"input": normal(1, 2, 4, 5)}, {"size": (7, 3), "mode": "bilinear"}),
    ("upsample", {"input": normal(1, 2, 4, 5)}, {"scale_factor": 2}),
    ("pixel_shuffle", {"input": normal(1, 4, 2, 3)}, {"upscale_factor": 2}),
    ("pixel_unshuffle", {"input": normal(1, 1, 4, 6)}, {"downscale_factor": 2}),
    ("channel_shuffle", {"input": normal(1, 4, 2, 3)}, {"groups": 2}),
    ("rotary_embedding", {"input": normal(1, 2, 3, 4)}, {"cos": normal(3, 2), "sin": normal(3, 2)}),
    ("avg_pool1d", {"input": normal(1, 2, 7)}, {"kernel_size": 3}),
    ("avg_pool2d", {"input": normal(1, 2, 5, 6)}, {"kernel_size": 2, "padding": 1}),
    ("avg_pool3d", {"input": normal(1, 2, 4, 4, 4)}, {"kernel_size": 2}),
    ("adaptive_avg_pool1d", {"input": normal(1, 2, 7)}, {"output_size": 3}),
    ("adaptive_avg_pool2d", {"input": normal(1, 2, 5, 6)}, {"output_size": (2, 4)}),
    ("adaptive_avg_pool3d", {"input": normal(1, 2, 4, 5, 3)}, {"output_size": 2}),
    ("max_pool1d", {"input": apart(1, 2, 7)}, {"kernel_size": 3}),
    ("max_pool2d", {"input": apart(1, 2, 5, 6)}, {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("max_pool3d", {"input": apart(2, 4, 4, 4)}, {"kernel_size": 2}),
    ("adaptive_max_pool1d", {"input": apart(1, 2, 7)}, {"output_size": 3}),
    ("adaptive_max_pool2d", {"input": apart(1, 2, 5, 6)}, {"output_size": (2, 3)}),
    ("adaptive_max_pool3d", {"input": apart(1, 2, 4, 5, 3)}, {"output_size": 2}),
    *((name, {"input": apart(3, 4)}, {}) for name in (
        "relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "silu", "softplus", "logsigmoid", "mish", "softsign", "tanhshrink", "tanh",
        "sigmoid", "gelu",
    )),
    ("gelu", {"input": normal(3, 4)}, {"approximate": "tanh"}),
    ("celu", {"input": apart(3, 4)}, {"alpha": 0.7}),
    ("softplus", {"input": apart(3, 4)}, {"beta": 2.0, "threshold": 1.0}),
    ("prelu", {"input": apart(2, 3, 4), "weight": normal(3)}, {}),
    *((name, {"input": normal(3, 4)}, {"dim": dim}) for name in ("softmax", "softmin", "log_softmax") for dim in (0, -1)),
    *(("mse_loss", {"input": normal(3, 4), "target": normal(3, 4)}, {"reduction": r}) for r in ("mean", "sum", "none")),
    ("layer_norm", {"input": normal(2, 3, 4), "weight": normal(3, 4), "bias": normal(3, 4)}, {"normalized_shape": (3, 4)}),
    ("batch_norm", {"input": normal(3, 2, 4), "weight": normal(2), "bias": normal(2)}, {"running_mean": None, "running_var": None, "training": True}),
    ("batch_norm", {"input": normal(3, 2, 4), "weight": normal(2), "bias": normal(2)}, {"running_mean": normal(2), "running_var": np.ones(2)}),
    ("cross_entropy", {"input": normal(4, 3)}, {"target": np.array([0, 2, -100, 1])}),
    ("cross_entropy", {"input": normal(2, 3, 2)}, {"target": np.array([[0, 2], [1, 1]]), "reduction": "none"}),
]  # fmt: skip


def operation(row):
    name, arrays, options = row
    return lambda *values: getattr(fastops, name)(**dict(zip(arrays, values)), **options), list(arrays.values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_gradient_of_the_gradient(row):
    function, primals = operation(row)
    y = function(*primals)
    check_grad(lambda c, *xs: vjp(function, *xs)[1](c), np.cos(np.asarray(y)), *primals, rtol=1e-5)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_differentiable_gradient_is_the_gradient(row):
    function, primals = operation(row)
    cotangent = np.cos(np.asarray(function(*primals)))
    expected = vjp(function, *primals)[1](cotangent)
    found: list[Any] = []

    def outer(*xs):
        found.extend(g._value if type(g) is Variable else g for g in vjp(function, *xs)[1](cotangent))
        return xs[0].sum()

    vjp(outer, *primals)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["conv2d", "matmul", "tanh", "avg_pool2d", "max_pool2d", "gelu", "layer_norm"])
def test_third_derivatives(name):
    function, primals = operation(next(row for row in ROWS if row[0] == name))
    cotangent = np.cos(function(*primals))

    def curvature(*xs):
        def slope(*ys):
            return sum((g**3).sum() for g in vjp(function, *ys)[1](cotangent))

        return grad(slope, argnums=tuple(range(len(xs))))(*xs)

    check_grad(curvature, *primals, rtol=1e-4)


def test_single_precision_stays():
    x, w = (a.astype(np.float32) for a in (normal(1, 2, 5, 5), normal(3, 2, 3, 3)))
    penalty = grad(lambda x, w: (grad(lambda x: fastops.relu(fastops.conv2d(x, w)).sum())(x) ** 2).sum(), argnums=(0, 1))
    assert {g.dtype for g in penalty(x, w)} == {np.dtype(np.float32)}


def test_every_one_has_a_row():
    assert not set(second) - {row[0] for row in ROWS}


def test_cross_entropy_says_what_it_lacks():
    with pytest.raises(TypeError, match="cross_entropy has no second derivative with"):
        grad(lambda x: grad(lambda x: fastops.cross_entropy(x, np.array([1]), label_smoothing=0.1))(x).sum())(normal(1, 3))
