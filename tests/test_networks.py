"""Networks beyond the textbook's classifiers: separable, shuffled and factorized convolutions, U-Net, pyramids, upsampling."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

import fastops
import fastops.functional as F
from fastops import models
from fastops.models import Builder
from fastops.models.factorized import factorized_block, factorized_conv
from fastops.models.fpn import level_of, pyramid, roi_align_levels
from fastops.models.layers import Conv, Linear
from fastops.models.shufflenet import shuffle_unit
from fastops.models.unet import double_conv
from fastops.models.upsampling import checkerboard, overlap, transposed_conv, upsample_conv
from fastops.models.xception import separable, xception_block


def block(make, *shape, **options):
    """A network of one block."""
    net = Builder("block")
    return net.build(make(net, x=net.input(*shape), **options))


def count(model):
    return sum(math.prod(entry.shape) for entry in model.entries.values() if not entry.buffer)


def products(model, *shape):
    """Multiply-adds of convolutions and dense layers."""
    shapes = model.shapes(shape)
    return sum(
        step.layer.multiply_adds([shapes[i] for i in step.inputs], shapes[step.output]) for step in model.steps if isinstance(step.layer, (Conv, Linear))
    )


def by_name(model, *shape):
    shapes = model.shapes(shape)
    return {step.name: shapes[step.output] for step in model.steps}


def check_gradients(model, *shape, batch=2, training=True):
    """The gradient of every parameter against a difference quotient, and that the result is finite and of the shape told."""
    rng = np.random.default_rng(0)
    params, buffers = model.init(rng=1, dtype=np.float64)
    # Away from the kinks: behind normalisation values are of the order of 1, and none of them is near 0 by accident.
    x = rng.standard_normal((batch, *shape))

    def run(params):
        return model.apply(params, buffers, x, training=training, rng=3)[0]

    y = run(params)
    for array, number in zip(y if isinstance(y, tuple) else (y,), model.outputs):
        assert array.shape == (batch, *model.shapes(shape)[number])
        assert np.isfinite(array).all()
    fastops.check_grad(run, params)


def test_a_network_hides_the_module_of_its_name():
    code = "from fastops.models.unet import unet; import fastops.models; assert fastops.models.unet is unet"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class TestXception:
    def test_rows_of_the_figure(self):
        shapes = by_name(models.xception(), 3, 299, 299)
        wanted = {
            "conv1": (32, 149, 149), "conv2": (64, 147, 147), "block1.add": (128, 74, 74), "block2.add": (256, 37, 37),
            "block3.add": (728, 19, 19), "block11.add": (728, 19, 19), "block12.rep.1.pointwise": (728, 19, 19), "block12.add": (1024, 10, 10),
            "conv3.pointwise": (1536, 10, 10), "conv4.pointwise": (2048, 10, 10), "fc": (1000,),
        }  # fmt: skip
        assert {name: shapes[name] for name in wanted} == wanted

    def test_parameters(self):
        assert count(models.xception()) == 22_855_952  # 22,910,480 of Keras with the moving averages, 54,528
        names = set(models.xception().entries)
        assert {"block1.skip.weight", "block1.skipbn.weight", "block1.rep.0.conv1.weight", "block1.rep.3.pointwise.weight"} <= names
        assert {"block2.rep.1.conv1.weight", "block12.rep.5.running_mean", "conv4.pointwise.weight", "bn4.bias"} <= names

    @pytest.mark.parametrize("pointwise_first", [False, True])
    def test_separable(self, pointwise_first):
        model = block(separable, 4, None, None, channels=6, pointwise_first=pointwise_first)
        assert count(model) == (4 * 6 + 6 * 9 if pointwise_first else 4 * 9 + 4 * 6)
        params, buffers = model.init(rng=0, dtype=np.float64)
        x = np.random.default_rng(0).standard_normal((2, 4, 5, 5))
        depthwise, pointwise = params["conv1.weight"], params["pointwise.weight"]
        if pointwise_first:
            wanted = F.conv2d(F.relu(F.conv2d(x, pointwise)), depthwise, padding=1, groups=6)
        else:
            wanted = F.separable_conv2d(x, depthwise, pointwise, padding=1)
        np.testing.assert_allclose(model.apply(params, buffers, x)[0], wanted)

    def test_gradients(self):
        check_gradients(block(xception_block, 2, None, None, channels=4, count=2, stride=2), 2, 6, 6)

    def test_small(self):
        for size in (28, 32):
            assert by_name(models.xception_small(), 1, size, size)["block3.add"] == (128, size // 4, size // 4)


class TestShuffleNet:
    @pytest.mark.parametrize("groups, millions", [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
    def test_cost_of_the_table(self, groups, millions):
        found = products(models.shufflenet(groups=groups), 3, 224, 224) / 1e6
        assert found == pytest.approx(millions, rel=0.03)

    def test_rows_of_the_table(self):
        shapes = by_name(models.shufflenet(), 3, 224, 224)
        wanted = {
            "conv1": (24, 112, 112), "pool": (24, 56, 56), "stage2.0.concat": (240, 28, 28), "stage2.3.add": (240, 28, 28),
            "stage3.7.add": (480, 14, 14), "stage4.3.add": (960, 7, 7), "fc": (1000,),
        }  # fmt: skip
        assert {name: shapes[name] for name in wanted} == wanted

    def test_parameters_of_a_unit(self):
        model = block(shuffle_unit, 24, None, None, channels=24, stride=1, groups=3)
        middle = 6
        assert count(model) == 24 * middle // 3 + middle * 9 + middle * 24 // 3 + 2 * (middle + middle + 24)

    @pytest.mark.parametrize("stride", [1, 2])
    def test_gradients(self, stride):
        check_gradients(block(shuffle_unit, 8, None, None, channels=8 * stride, stride=stride, groups=2), 8, 4, 4)

    def test_groups_are_checked(self):
        with pytest.raises(ValueError, match="groups must be one of 1, 2, 3, 4, 8, got 5"):
            models.shufflenet(groups=5)
        with pytest.raises(ValueError, match="groups must be one of 1, 3, 5, got 2"):
            models.shufflenet_small(groups=2)

    def test_learns_digits(self):
        digits = pytest.importorskip("sklearn.datasets").load_digits()
        epochs = 6
        images = np.pad(digits.images[:, None].astype(np.float32) / 8 - 1, ((0, 0), (0, 0), (4, 4), (4, 4)), constant_values=-1)
        model, optimizer = models.shufflenet_small(), fastops.optim.adamw(lr=8e-3)
        order = np.random.default_rng(0).permutation(len(images))
        train, test = order[360:], order[:360]
        params, buffers = model.init(rng=0)
        state = optimizer.init(params)

        def loss(params, buffers, x, t):
            y, buffers = model.apply(params, buffers, x, training=True)
            return F.cross_entropy(y, t), buffers

        for epoch in range(epochs):
            for batch in np.array_split(np.random.default_rng(epoch).permutation(train), 45):
                (_, buffers), grads = fastops.value_and_grad(loss, has_aux=True)(params, buffers, images[batch], digits.target[batch])
                lr = 8e-3 * (1 - epoch / epochs)
                params, state = optimizer.update(params, grads, state, inplace=True, lr=lr)
        y, _ = model.apply(params, buffers, images[test])
        assert (y.argmax(axis=1) == digits.target[test]).mean() >= 0.97


class TestUNet:
    def test_levels_of_the_figure(self):
        shapes = by_name(models.unet(), 1, 512, 512)
        for level, (channels, size) in enumerate(((64, 512), (128, 256), (256, 128), (512, 64)), 1):
            assert shapes[f"down{level}.conv2"] == shapes[f"up{level}.conv2"] == (channels, size, size)
            assert shapes[f"up{level}.concat"] == (2 * channels, size, size)
        assert shapes["bottom.conv2"] == (1024, 32, 32)
        assert shapes["out"] == (2, 512, 512)

    @pytest.mark.parametrize("up", ["transposed", "resize"])
    def test_parameters(self, up):
        widths = [64 << i for i in range(5)]

        def conv(channels, out, k=3):
            return channels * out * k * k + out

        down = sum(conv(c, k) + conv(k, k) for c, k in zip([1, *widths], widths))
        back = sum(conv(2 * k, k, 2 if up == "transposed" else 3) + conv(2 * k, k) + conv(k, k) for k in widths[:-1])
        assert count(models.unet(up=up)) == down + back + conv(64, 2, 1)

    @pytest.mark.parametrize("up", ["transposed", "resize"])
    def test_gradients(self, up):
        net = Builder("tiny")
        with net.scope("down"):
            seen = double_conv(net, net.input(1, None, None), 2, norm=True)
        with net.scope("bottom"):
            x = double_conv(net, net.max_pool(seen, 2), 4, norm=True)
        x = (transposed_conv if up == "transposed" else upsample_conv)(net, "up", x, 2)
        check_gradients(net.build(double_conv(net, net.concat(seen, x), 2, norm=True)), 1, 4, 4)

    def test_what_does_not_fit(self):
        with pytest.raises(ValueError, match=r"unet_small: up3.concat: the inputs must agree in shape"):
            models.unet_small().shapes((3, 36, 32))
        with pytest.raises(ValueError, match="up must be one of 'transposed', 'resize', got 'bicubic'"):
            models.unet(up="bicubic")


class TestFeaturePyramid:
    def test_levels(self):
        model = models.fpn("resnet18")
        shapes = model.shapes((3, 64, 96))
        assert [shapes[i] for i in model.outputs] == [(256, 64 // s, 96 // s) for s in (4, 8, 16, 32)] + [(256, 1, 2)]
        with pytest.raises(ValueError, match="body must be one of 'resnet18'"):
            models.fpn("vgg16")

    @pytest.mark.parametrize("body, channels", [("resnet18", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048))])
    def test_parameters(self, body, channels):
        classifier = (channels[-1] + 1) * 1000
        assert count(models.fpn(body)) == count(getattr(models, body)()) - classifier + sum(channels) * 256 + 4 * 256 + 4 * (256 * 256 * 9 + 256)
        names = set(models.fpn(body).entries)
        assert {"body.layer4.1.bn1.running_mean", "fpn.inner_blocks.0.0.weight", "fpn.layer_blocks.3.0.bias"} <= names

    def tiny(self):
        net = Builder("tiny")
        fine = net.input(2, None, None)
        return net.build(*pyramid(net, [fine, net.avg_pool(fine, 2)], 3))

    def test_gradients(self):
        check_gradients(self.tiny(), 2, 4, 4)

    def test_the_coarse_level_is_added_to_the_fine_one(self):
        model = self.tiny()
        params, buffers = model.init(rng=0, dtype=np.float64)
        x = np.random.default_rng(0).standard_normal((1, 2, 4, 4))
        fine, coarse = model.apply(params, buffers, x)[0]
        top = F.conv2d(F.avg_pool2d(x, 2), params["inner_blocks.1.0.weight"])
        both = F.conv2d(x, params["inner_blocks.0.0.weight"]) + top.repeat(2, axis=2).repeat(2, axis=3)
        np.testing.assert_allclose(fine, F.conv2d(both, params["layer_blocks.0.0.weight"], padding=1), atol=1e-12)
        np.testing.assert_allclose(coarse, F.conv2d(top, params["layer_blocks.1.0.weight"], padding=1), atol=1e-12)

    def test_level_of_a_box(self):
        sides = np.array([1, 111.9, 112, 223.9, 224, 447.9, 448, 5000])
        boxes = np.stack([sides * 0 + 5, sides * 0 + 7, 5 + sides * 2, 7 + sides / 2], axis=1)  # the area counts
        np.testing.assert_array_equal(level_of(boxes), [2, 2, 3, 3, 4, 4, 5, 5])
        np.testing.assert_array_equal(level_of(np.array([[3.0, 3, 3, 9], [9, 9, 3, 9]])), [2, 2])  # boxes of no area

    def test_boxes_take_their_level(self):
        rng = np.random.default_rng(0)
        features = [rng.standard_normal((2, 3, 512 >> i, 8)) for i in (2, 3, 4, 5)]
        boxes = np.array([[1, 0, 0, 30, 500], [0, 0, 0, 10, 10], [0, 0, 0, 500, 500], [1, 4, 8, 200, 300], [0, 0, 0, 20, 40]], float)
        found = roi_align_levels(features, boxes, 2)
        for box, level, pooled in zip(boxes, level_of(boxes[:, 1:]), found):
            np.testing.assert_array_equal(pooled, F.roi_align(features[level - 2], box[None], 2, 0.5**level, 2)[0])
        assert roi_align_levels(features, np.zeros((0, 5)), 2).shape == (0, 3, 2, 2)
        fastops.check_grad(lambda f: roi_align_levels(f, boxes, 2), [f[:, :, :, :8] for f in features])

    def test_what_boxes_must_be(self):
        with pytest.raises(ValueError, match=r"boxes must have shape \(K, 5\), got \(3, 4\)"):
            roi_align_levels([np.zeros((1, 1, 8, 8))], np.zeros((3, 4)), 2)
        with pytest.raises(ValueError, match="boxes must be finite"):
            roi_align_levels([np.zeros((1, 1, 8, 8))], np.full((1, 5), np.nan), 2)

    def test_what_levels_must_be(self):
        boxes = np.zeros((1, 5))
        with pytest.raises(ValueError, match="roi_align_levels: features must be those of at least one level"):
            roi_align_levels([], boxes, 2)
        with pytest.raises(TypeError, match=r"roi_align_levels: lowest must be an integer, got 1\.5"):
            roi_align_levels([np.ones((1, 1, 4, 4))], boxes, 2, lowest=1.5)
        for wrong in (np.zeros(4), np.zeros((2, 5)), np.array([[0, 0, np.nan, 1]])):
            with pytest.raises(ValueError, match=r"level_of: boxes must have shape \(K, 4\) and be finite"):
                level_of(wrong)
        with np.errstate(all="raise"):
            assert level_of(np.array([[0, 0, 1e300, 1e300]])) == [5]


class TestFactorized:
    @pytest.mark.parametrize("n", [3, 7])
    def test_two_n_instead_of_n_squared(self, n):
        model = block(factorized_conv, 8, None, None, names=("a", "b"), width=8, channels=8, n=n)
        weights = {name: entry.shape for name, entry in model.entries.items() if name.endswith("conv.weight")}
        assert weights == {"a.conv.weight": (8, 8, 1, n), "b.conv.weight": (8, 8, n, 1)}
        assert count(model) == 2 * n * 8 * 8 + 4 * 8
        assert model.shapes((8, 9, 11))[-1] == (8, 9, 11)
        assert model.fields((8, 9, 11))[-1] == ((n, 1), (n, 1))

    def test_the_published_block(self):
        """Mixed_6b of Inception v3: 768 channels at 17x17, 128 within."""
        model = block(factorized_block, 768, None, None, width=128)
        wide, w = 768, 128
        weights = wide * 192 + wide * w + 7 * w * w + 7 * w * 192 + wide * w + 3 * 7 * w * w + 7 * w * 192 + wide * 192
        assert count(model) == weights + 2 * (4 * 192 + 6 * w)
        assert model.shapes((768, 17, 17))[-1] == (768, 17, 17)
        assert {"branch7x7dbl_5.conv.weight", "branch_pool.bn.bias"} <= set(model.entries)

    def test_gradients(self):
        check_gradients(block(factorized_block, 2, None, None, width=2, n=3, channels=2), 2, 4, 4)

    def test_n_must_be_odd(self):
        with pytest.raises(ValueError, match="n must be odd and positive, got 4"):
            models.factorized_small(n=4)


class TestUpsampling:
    @pytest.mark.parametrize("k, s", [(2, 2), (3, 2), (4, 2), (5, 2), (5, 3), (6, 3)])
    def test_overlap_is_what_a_transposed_convolution_of_ones_gives(self, k, s):
        y = F.conv_transpose1d(np.ones((1, 1, 12)), np.ones((1, 1, k)), stride=s)[0, 0]
        np.testing.assert_array_equal(y[2 * s : 3 * s], overlap(k, s))
        assert (len(set(overlap(k, s))) == 1) == (k % s == 0)

    def measure(self, make, **options):
        """The mean of several networks that have not been trained."""
        model = block(make, 8, None, None, name="up", channels=4, **options)
        found = []
        for seed in range(8):
            params, buffers = model.init(rng=seed, dtype=np.float64)
            params["up.bias"][:] = 0
            found.append(checkerboard(lambda x: model.apply(params, buffers, x)[0], 8, 2))  # noqa: B023
        return np.mean(found)

    def test_resizing_first_leaves_no_checkerboard(self):
        assert self.measure(upsample_conv) < 1e-12
        assert self.measure(upsample_conv, mode="bilinear") < 1e-12
        assert self.measure(transposed_conv, kernel_size=4) > 0.5  # places have weights of their own: even overlap is not enough

    def test_uneven_overlap_is_a_checkerboard_whatever_the_weights(self):
        def ones(k, p, out):
            return lambda x: F.conv_transpose2d(x, np.ones((1, 1, k, k)), stride=2, padding=p, output_padding=out)

        assert checkerboard(ones(4, 1, 0), 1, 2) == 0
        # Places with 1, 2, 2 and 4 products: their deviation over their root mean square.
        assert checkerboard(ones(3, 1, 1), 1, 2) == pytest.approx(np.std([1, 2, 2, 4]) / np.sqrt(np.mean([1, 4, 4, 16])))

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match="kernel_size must be scale"):
            block(transposed_conv, 2, None, None, name="up", channels=2, kernel_size=3)
        with pytest.raises(ValueError, match="upsample must return images of 32x32"):
            checkerboard(lambda x: x, 1, 2)
