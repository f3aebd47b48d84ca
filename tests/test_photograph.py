"""Convolutions of a photograph, checked against SciPy's filters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage, signal
from sklearn.datasets import load_sample_image

import fastops
from fastops.ops.conv.strategies import STRATEGIES
from tests.harness import assert_close


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A flower, (H, W, C) = (427, 640, 3), from 0 to 1 in float64."""
    return load_sample_image("flower.jpg") / 255.0


def channels_first(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))


def every_strategy(*arguments: np.ndarray, **options):
    """The convolution by each strategy that does it, in float32."""
    single = [a.astype(np.float32) for a in arguments]
    for row in fastops.explain(fastops.conv2d, *single, **options).rows:
        if row.accepted:
            yield fastops.conv2d(*single, **options, strategy=row.name)


def test_gaussian_blur(photograph):
    """Each channel on its own: a depthwise convolution."""
    bell = np.exp(-(np.arange(-3, 4) ** 2) / 4.5)
    kernel = np.outer(bell, bell) / bell.sum() ** 2
    weight = np.broadcast_to(kernel, (3, 1, 7, 7))
    expected = np.stack([ndimage.correlate(channel, kernel, mode="constant") for channel in channels_first(photograph)])
    for found in every_strategy(channels_first(photograph), weight, padding="same", groups=3):
        assert_close(found, expected, 1e-6)
    # as the picture comes out of its file, channels last
    for found in every_strategy(photograph, weight, padding="same", groups=3, data_format="NHWC"):
        assert_close(found, np.moveaxis(expected, 0, -1), 1e-6)
    double = fastops.conv2d(photograph, weight, padding="same", groups=3, data_format="NHWC")
    assert_close(double, np.moveaxis(expected, 0, -1), 1e-13)


def test_sobel_edges(photograph):
    grey = photograph @ [0.299, 0.587, 0.114]
    across = np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])
    expected = np.stack([ndimage.sobel(grey, axis, mode="constant") for axis in (1, 0)])
    for found in every_strategy(grey[None], np.stack([across, across.T])[:, None], padding=1):
        assert_close(found, expected, 2e-6)
    np.testing.assert_allclose(fastops.corr2d(grey, across), expected[0, 1:-1, 1:-1], atol=1e-13)


@pytest.mark.parametrize("size", [3, 5])
def test_bank_of_random_filters(photograph, size):
    x = channels_first(photograph)
    w = np.random.default_rng(0).standard_normal((8, 3, size, size))
    expected = np.stack([signal.correlate(x, k, mode="valid")[0] for k in w])
    for found in every_strategy(x, w):
        assert_close(found, expected, 3e-5)
    for strategy in STRATEGIES:
        if fastops.explain(fastops.conv2d, x, w, strategy=strategy.name).rows[STRATEGIES.index(strategy)].accepted:
            assert_close(fastops.conv2d(x, w, strategy=strategy.name), expected, 1e-13)


def test_dilated_is_a_kernel_with_holes(photograph):
    x = channels_first(photograph)
    w = np.random.default_rng(1).standard_normal((4, 3, 3, 3))
    holes = np.zeros((4, 3, 7, 5))
    holes[:, :, ::3, ::2] = w
    expected = np.stack([signal.correlate(x, k, mode="valid")[0] for k in holes])
    for found in every_strategy(x, w, dilation=(3, 2)):
        assert_close(found, expected, 3e-5)


def test_strided_is_every_other_pixel(photograph):
    x = channels_first(photograph)
    w = np.random.default_rng(2).standard_normal((4, 3, 3, 3))
    expected = np.stack([signal.correlate(np.pad(x, ((0, 0), (1, 1), (1, 1))), k, mode="valid")[0] for k in w])
    for found in every_strategy(x, w, padding=1, stride=(2, 3)):
        assert_close(found, expected[:, ::2, ::3], 3e-5)


def test_gradient_pulls_a_blurred_photograph_back(photograph):
    """Steepest descent on |blur(x) - blurred|^2 with conv2d_backward: each step brings x nearer to the photograph."""
    target = channels_first(photograph)[:, 100:180, 200:300]
    kernel = np.broadcast_to(np.full((3, 3), 1 / 9), (3, 1, 3, 3))
    blurred = fastops.conv2d(target, kernel, padding=1, groups=3)
    x = blurred.copy()
    distances = [np.linalg.norm(x - target)]
    for _ in range(10):
        residual = fastops.conv2d(x, kernel, padding=1, groups=3) - blurred
        mask = (True, False, False)
        x -= fastops.conv2d_backward(residual, x, kernel, padding=1, groups=3, output_mask=mask)[0]
        distances.append(np.linalg.norm(x - target))
    assert all(after < before for before, after in pairwise(distances))
