"""Many short rows, which kernels take together: each row's result is what it has among a few, next to its neighbours' memory."""

from __future__ import annotations

import numpy as np
import pytest

import fastops as F

FEW = 7  # so many rows are never taken together
WIDTHS = [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 33, 130]


OPERATIONS = {
    **{f"normalize p={p}": lambda a, b, t, p=p: (F.normalize(a, p), F.normalize_backward(b, a, p)) for p in (1.0, 2.0, 3.0, np.inf)},
    "cosine_similarity": lambda a, b, t: (F.cosine_similarity(a, b), *F.cosine_similarity_backward(a[:, 0], a, b)),
    **{
        f"pairwise_distance p={p}": lambda a, b, t, p=p: (F.pairwise_distance(a, b, p), *F.pairwise_distance_backward(a[:, 0], a, b, p))
        for p in (1.0, 2.0, np.inf)
    },
    "cross_entropy": lambda a, b, t: (
        F.cross_entropy(a, t, ignore_index=0, reduction="none"),
        F.cross_entropy_backward(b[:, 0], a, t, ignore_index=0, reduction="none")[0],
    ),
    "cross_entropy smoothed": lambda a, b, t: (
        F.cross_entropy(a, t, np.arange(1, 1 + a.shape[1], dtype=a.dtype), reduction="none", label_smoothing=0.1),
        F.cross_entropy_backward(b[:, 0], a, t, np.arange(1, 1 + a.shape[1], dtype=a.dtype), reduction="none", label_smoothing=0.1)[0],
    ),
    "cross_entropy of probabilities": lambda a, b, t: (
        F.cross_entropy(a, abs(b), reduction="none"),
        *F.cross_entropy_backward(b[:, 0], a, abs(b), reduction="none")[:2],
    ),
    "softmax": lambda a, b, t: (F.softmax(a, 1), F.softmax_backward(b, a, 1)),
    "log_softmax": lambda a, b, t: (F.log_softmax(a, 1), F.log_softmax_backward(b, a, 1)),
    "glu": lambda a, b, t: (F.glu(np.hstack([a, b])), F.glu_backward(b, np.hstack([b, a]))),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_rows_taken_together(name, dtype):
    rng, run = np.random.default_rng(3), OPERATIONS[name]
    # Of one element a cosine is 1 or -1, and its gradient what rounding leaves of the difference of two equal numbers.
    for width in WIDTHS[name == "cosine_similarity" :]:
        for count in (16, 270):
            a, b = (rng.standard_normal((count, width)).astype(dtype) for _ in range(2))
            a[3], b[5, width // 2] = 0, np.nan
            target = rng.integers(0, width, count)
            with np.errstate(invalid="ignore"):
                together = run(a, b, target)
                apart = [run(a[i : i + FEW], b[i : i + FEW], target[i : i + FEW]) for i in range(0, count, FEW)]
            for got, *parts in zip(together, *apart):
                expected = np.concatenate(parts)
                scale = np.nanmax(abs(expected), initial=1)
                np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=20 * np.finfo(dtype).eps, err_msg=f"{count} rows of {width}")


@pytest.mark.parametrize("width", [2, 17, 40])
@pytest.mark.parametrize("dim", [0, 1])
def test_in_place(dim, width):
    x = np.random.default_rng(4).standard_normal((530, width)).astype(np.float32)
    for run in (F.softmax, F.log_softmax, lambda x, dim, out=None: F.normalize(x, dim=dim, out=out)):
        expected, own = run(x, dim), x.copy()
        np.testing.assert_array_equal(run(own, dim, out=own), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(5, 6), (40, 6), (40, 200), (3, 6, 9)])
def test_what_is_ignored_has_no_gradient(shape, smoothing):
    x = np.random.default_rng(5).standard_normal(shape)
    target = np.ones((shape[0], *shape[2:]), np.int64)
    target[:2], x[0, 2], x[1, 3] = -100, np.nan, np.inf
    with np.errstate(invalid="ignore"):
        dx = F.cross_entropy_backward(1.0, x, target, label_smoothing=smoothing)[0]
    assert (dx[:2] == 0).all()
    assert (dx[2:] != 0).all()
