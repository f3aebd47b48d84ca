"""The inverted residual in one pass gives the bits of its three layers, whatever the number of threads."""

import itertools

import numpy as np
import pytest

import fastops
from fastops import _threads
from fastops.ops.conv import inverted
from fastops.ops.conv.inverted import Layer, inverted_residual

# Input (N, H, W, C), channels between and after; kernel, stride, padding, dilation of the depthwise layer; added.
SHAPES = [
    ((1, 14, 14, 24), 72, 24, (3, 1, 1, 1), True),
    ((2, 15, 9, 16), 150, 40, (3, 2, 1, 1), False),
    ((1, 30, 7, 17), 40, 17, (5, 1, 2, 1), True),
    ((3, 11, 8, 5), 33, 70, (3, 3, 1, 1), False),
    ((1, 13, 20, 8), 288, 8, ((5, 3), 1, (4, 2), 2), True),
    ((1, 9, 12, 8), 40, 9, ((2, 4), (1, 2), 3, (3, 1)), False),
    ((1, 40, 3, 300), 48, 300, (3, 1, 1, 1), True),
    ((3, 12, 6, 8), 40, 8, (1, 4, 3, 1), False),
]  # fmt: skip


def layers(shape, wide, outs, depthwise, dtype, activations):
    rng = np.random.default_rng(0)
    n, h, w, ins = shape
    kernel, stride, padding, dilation = depthwise
    pair = (kernel, kernel) if isinstance(kernel, int) else kernel

    def layer(weight, shape, activation, bias=True, **options):
        prepared = fastops.prepare_conv2d(rng.standard_normal(weight).astype(dtype), data_format="NHWC", **options)
        return Layer(prepared, rng.standard_normal(weight[0]).astype(dtype) if bias else None, activation, prepared.spec(shape))

    first = layer((wide, ins, 1, 1), shape, activations[0])
    middle = layer((wide, 1, *pair), (n, h, w, wide), activations[1], stride=stride, padding=padding, dilation=dilation, groups=wide)
    end = layer((outs, wide, 1, 1), (n, *middle.spec.out_size[1:], wide), activations[2], bias=False)
    return rng.standard_normal(shape).astype(dtype), (first, middle, end)


def one_by_one(x, parts, added):
    y = x
    for layer in parts:
        y = fastops.conv2d(y, layer.weights, layer.bias, activation=layer.activation, **layer.weights.attributes)
    return y + x if added else y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("room", [0, 40 << 10, inverted._ROWS_BYTES])
def test_it_has_the_bits_of_its_layers(dtype, room, monkeypatch):
    monkeypatch.setattr(inverted, "_ROWS_BYTES", room)
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    activations = itertools.cycle([("relu6", "relu6", None), ("relu", "hardswish", "gelu"), (None, None, "relu")])
    for (shape, wide, outs, depthwise, added), acts in zip(SHAPES, activations):
        x, parts = layers(shape, wide, outs, depthwise, dtype, acts)
        middle = parts[1]
        prepared = fastops.prepare_conv2d(middle.weights.weight, **{**middle.weights.attributes, "strategy": "depthwise"})
        expected = one_by_one(x, (parts[0], middle._replace(weights=prepared), parts[2]), added)
        for threads in (1, _threads._available()):
            fastops.set_num_threads(threads)
            run = inverted_residual(*parts, added=added)
            if run is None:
                assert threads > 1
                continue
            y = np.full(expected.shape, np.nan, dtype)
            run(x, y)
            assert y.tobytes() == expected.tobytes(), (shape, wide, outs, depthwise, acts, threads)


# Picture (N, C, H, W), its kernel, stride, padding, dilation; the depthwise layer's.
PICTURES = [
    ((1, 3, 33, 29), (3, 2, 1, 1), (3, 1, 1, 1)),
    ((2, 1, 12, 40), ((5, 3), (1, 3), (2, 0), 1), (3, 2, 1, 1)),
    ((3, 4, 11, 9), ((2, 4), 1, 3, (3, 1)), (3, 1, 1, 1)),
    ((1, 2, 40, 7), (7, (4, 2), 3, 1), (3, 1, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("room", [0, inverted._ROWS_BYTES])
def test_it_begins_with_a_picture(dtype, room, monkeypatch):
    monkeypatch.setattr(inverted, "_ROWS_BYTES", room)
    monkeypatch.setattr(inverted, "_WORTH", np.inf)
    monkeypatch.setattr(_threads, "_GRAIN_NS", 0)
    rng = np.random.default_rng(1)
    wide = 2 * inverted.panel_width(dtype)
    for (shape, (kernel, *attributes), depthwise), act in zip(PICTURES, itertools.cycle(["relu6", "gelu"])):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        options = dict(zip(("stride", "padding", "dilation"), attributes))
        prepared = fastops.prepare_conv2d(rng.standard_normal((wide, shape[1], *kernel)).astype(dtype), **options)
        first = Layer(prepared, rng.standard_normal(wide).astype(dtype), act, prepared.spec(shape))
        x = rng.standard_normal(shape).astype(dtype)
        middle = fastops.conv2d(x, prepared, first.bias, activation=act, **prepared.attributes)
        _, parts = layers((shape[0], *first.spec.out_size[1:], 8), wide, 24, depthwise, dtype, (None, act, None))
        expected = one_by_one(np.ascontiguousarray(middle.transpose(0, 2, 3, 1)), parts[1:], False)
        results = set()
        for threads in (1, _threads._available()):
            fastops.set_num_threads(threads)
            run = inverted_residual(first, *parts[1:], added=False)
            if run is None:
                assert threads > 1
                continue
            y = np.full(expected.shape, np.nan, dtype)
            run(x, y)
            np.testing.assert_allclose(y, expected, rtol=0, atol=(1e-5 if dtype == "float32" else 1e-13) * np.abs(expected).max())
            results.add(y.tobytes())
        assert len(results) == 1


def test_a_picture_is_refused(monkeypatch):
    """Where a row's sums do not fill panels, taps are many, the slab is large, or another strategy is far better."""

    def possible(outs=64, ins=3, size=14, **options):
        prepared = fastops.prepare_conv2d(np.zeros((outs, ins, 3, 3), np.float32), padding=1, **options)
        return inverted._Widening(Layer(prepared, None, None, prepared.spec((1, ins, size, size)))).possible

    monkeypatch.setattr(inverted, "_WORTH", np.inf)
    assert possible()
    assert not possible(outs=60)
    assert not possible(ins=29)
    assert not possible(size=800)
    monkeypatch.setattr(inverted, "_WORTH", 0.5)
    assert not possible()


def test_it_is_refused_where_a_layer_is_not_one_of_its_kind():
    _, parts = layers((1, 14, 14, 24), 72, 24, (3, 1, 1, 1), "float32", (None, None, None))
    grouped = fastops.prepare_conv2d(np.zeros((72, 12, 1, 1), np.float32), groups=2, data_format="NHWC")
    assert inverted_residual(parts[0]._replace(weights=grouped, spec=grouped.spec((1, 14, 14, 24))), *parts[1:], added=True) is None
    few = [layer._replace(spec=layer.weights.spec((1, 3, 3, layer.spec.channels))) for layer in parts]
    assert inverted_residual(*few, added=True) is None


def test_an_image_of_few_rows_is_left_to_its_layers(monkeypatch):
    """Where threads would have to compute the same rows again."""
    monkeypatch.setattr(_threads, "threads_for", lambda nanoseconds: 5)
    _, parts = layers((1, 14, 14, 24), 72, 24, (3, 1, 1, 1), "float32", (None, None, None))
    assert inverted_residual(*parts, added=True) is None
    many = [layer._replace(spec=layer.weights.spec((5, 14, 14, layer.spec.channels))) for layer in parts]
    assert inverted_residual(*many, added=True) is not None
