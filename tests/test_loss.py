"""Losses and distances: the contract of every operation, the corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from tests.cases.loss import ROWS, cross_entropy, ctc, log_distribution
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


X = np.random.default_rng(0).standard_normal((4, 5))
LABELS = np.array([1, 0, 4, 2])
ELEMENTWISE = (
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "binary_cross_entropy_with_logits",
    "soft_margin_loss", "kl_div", "hinge_embedding_loss",
)  # fmt: skip


class TestElementwise:
    @pytest.mark.parametrize("op", ELEMENTWISE)
    def test_of_nothing(self, op):
        nothing = np.zeros((0, 3), np.float32)
        loss = getattr(fastops, op)
        assert np.isnan(loss(nothing, nothing))
        assert loss(nothing, nothing, reduction="sum") == 0
        assert loss(nothing, nothing, reduction="none").shape == (0, 3)
        gradients = getattr(fastops, f"{op}_backward")(1.0, nothing, nothing)
        assert all(g.shape == (0, 3) for g in (gradients if isinstance(gradients, tuple) else (gradients,)) if g is not None)

    @pytest.mark.parametrize("op", ELEMENTWISE)
    def test_results_are_arrays_of_the_dtype_of_the_input(self, op):
        for dtype in (np.float16, np.float32, np.float64):
            x = np.full((2, 3), 0.5, dtype)
            for reduction in ("mean", "sum"):
                y = getattr(fastops, op)(x, x, reduction=reduction)
                assert isinstance(y, np.ndarray)
                assert (y.shape, y.dtype) == ((), dtype)
            assert getattr(fastops, op)(x[0, 0], x[0, 0], reduction="none").shape == ()

    @pytest.mark.parametrize("op", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
    def test_broadcasting_comes_with_a_warning(self, op):
        loss, gradient = getattr(fastops, op), getattr(fastops, f"{op}_backward")
        with pytest.warns(UserWarning, match="target has shape"):
            y = loss(X, X[:, :1], reduction="none")
        whole = np.repeat(X[:, :1], 5, axis=1)
        assert_same_bits(y, loss(X, whole, reduction="none"))
        g = np.cos(y)
        np.testing.assert_allclose(gradient(g, X, X[:, :1], reduction="none")[1], gradient(g, X, whole, reduction="none")[1].sum(1, keepdims=True))
        with pytest.raises(ValueError, match=f"{op}: target"), pytest.warns(UserWarning, match="target has shape"):
            loss(X, X[:3])

    @pytest.mark.parametrize("op", ["hinge_embedding_loss", "soft_margin_loss", "poisson_nll_loss", "mse_loss"])
    def test_targets_may_be_integers(self, op):
        t = np.random.default_rng(1).choice([1, -1], X.shape)
        assert_same_bits(getattr(fastops, op)(X, t.astype(np.int8)), getattr(fastops, op)(X, t.astype(float)))

    def test_logarithms_are_clamped(self):
        x, t = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])
        assert fastops.binary_cross_entropy(x, t, reduction="none").tolist() == [0, 100, 100, 0]
        dx = fastops.binary_cross_entropy_backward(np.ones(4), x, t, reduction="none")[0]
        np.testing.assert_allclose(dx, [0, 1e12, -1e12, 0])

    @pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
    @pytest.mark.parametrize("name", ["input", "target"])
    def test_probabilities_lie_between_0_and_1(self, name, bad):
        arguments = {"input": np.full(3, 0.5), "target": np.full(3, 0.5)}
        arguments[name][1] = bad
        with pytest.raises(ValueError, match=f"^binary_cross_entropy: {name} must lie between 0 and 1"):
            fastops.binary_cross_entropy(**arguments)

    def test_large_logits_do_not_overflow(self):
        x = np.array([1e4, -1e4], np.float32)
        assert fastops.binary_cross_entropy_with_logits(x, np.array([1, 0], np.float32)) == 0
        assert fastops.binary_cross_entropy_with_logits(x, np.array([0, 1], np.float32)) == 1e4
        assert fastops.soft_margin_loss(x, np.array([-1, 1], np.float32)) == 1e4

    def test_derivatives_at_the_kinks(self):
        x, zero = np.zeros(1), np.zeros(1)
        assert fastops.l1_loss_backward(1.0, x, zero)[0] == 0
        assert fastops.smooth_l1_loss_backward(1.0, x, zero, beta=0.0)[0] == 0
        assert fastops.huber_loss_backward(1.0, x + 2, zero, delta=2.0)[0] == 2
        assert fastops.hinge_embedding_loss_backward(1.0, x + 1, -np.ones(1)) == -1

    def test_kullback_leibler_of_a_zero_probability(self):
        assert fastops.kl_div(np.array([[-1.0, -2.0]]), np.array([[0.0, 1.0]]), reduction="batchmean") == 2

    def test_variances(self):
        t = X[::-1].copy()
        one, rows = np.full(X.shape, 2.0), np.arange(1.0, 5)
        assert fastops.gaussian_nll_loss(X, t, 2.0) == fastops.gaussian_nll_loss(X, t, one)
        assert fastops.gaussian_nll_loss_backward(1.0, X, t, 2.0)[2] is None
        assert fastops.gaussian_nll_loss(X, t, rows) == fastops.gaussian_nll_loss(X, t, rows[:, None])
        assert fastops.gaussian_nll_loss_backward(1.0, X, t, rows[:, None])[2].shape == (4, 1)
        # a number of NumPy's is a number, too, but one that has a gradient
        assert fastops.gaussian_nll_loss(X, t, np.float64(2)) == fastops.gaussian_nll_loss(X, t, one)
        fastops.check_grad(lambda log_var: fastops.gaussian_nll_loss(X, t, np.exp(log_var)), 0.3)
        # below eps the variance counts as eps, and its gradient goes on as if it did not
        tiny = fastops.gaussian_nll_loss_backward(1.0, np.ones(1), np.zeros(1), np.zeros(1), eps=0.5)
        assert tiny[2] == 0.5 * (1 / 0.5 - 1 / 0.25)

    def test_sums_are_accurate(self):
        x = np.full(3_000_001, 0.1, np.float32)
        # Every block of 1024 errs alike; with vectors of eight by 3.5e-7. All in float32 it would be 1e-3 and more.
        np.testing.assert_allclose(fastops.l1_loss(x, np.zeros_like(x), reduction="sum"), x.astype(float).sum(), rtol=1e-6)


class TestClasses:
    @pytest.mark.parametrize("op", ["nll_loss", "cross_entropy"])
    @pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i8"])
    def test_targets_of_any_integers(self, op, dtype):
        assert_same_bits(getattr(fastops, op)(X, LABELS.astype(dtype)), getattr(fastops, op)(X, LABELS))

    @pytest.mark.parametrize("op", ["nll_loss", "cross_entropy"])
    def test_all_ignored(self, op):
        loss, gradient = getattr(fastops, op), getattr(fastops, f"{op}_backward")
        for x, ignored in ((X, np.full(4, 3)), (X.T[None], np.full((1, 4), 3))):
            assert np.isnan(loss(x, ignored, ignore_index=3))
            assert loss(x, ignored, ignore_index=3, reduction="sum") == 0
            dx = gradient(1.0, x, ignored, ignore_index=3)
            np.testing.assert_array_equal(dx if op == "nll_loss" else dx[0], np.zeros(x.shape))

    def test_ignored_targets_have_no_gradient_whatever_that_of_the_loss(self):
        labels, dy = LABELS[None].copy(), np.array([[1.0, np.inf, np.nan, 1.0]])
        labels[0, 1:3] = 3
        for smoothing in (0.0, 0.1):
            dx = fastops.cross_entropy_backward(dy, X.T[None], labels, ignore_index=3, reduction="none", label_smoothing=smoothing)[0]
            assert np.isfinite(dx).all()
            assert not dx[..., 1:3].any()
            assert dx[..., 0].all()

    @pytest.mark.parametrize("op", ["nll_loss", "cross_entropy"])
    @pytest.mark.parametrize("bad", [5, -1, 2**40])
    def test_targets_that_are_no_classes(self, op, bad, monkeypatch):
        from fastops.ops.loss import classes

        made = []

        def marked(shape, dtype=float):
            made.append(np.full(shape, 7, dtype))
            return made[-1]

        monkeypatch.setattr(classes, "empty", marked)
        with pytest.raises(ValueError, match=f"^{op}: target must be at least 0 and less than the number of classes, 5, got {bad}"):
            getattr(fastops, op)(X, np.array([0, 1, bad, 2]))
        assert made
        assert all((array == 7).all() for array in made), "a block ran"

    @pytest.mark.parametrize("op", ["nll_loss", "cross_entropy"])
    def test_targets_that_are_no_classes_in_the_gradient(self, op, monkeypatch):
        from fastops.ops.loss import classes

        def never(*args):
            raise AssertionError("a kernel ran")

        monkeypatch.setattr(classes, "_backward", never)
        monkeypatch.setattr(classes, "_pick", never)
        with pytest.raises(ValueError, match=f"^{op}_backward: target must be at least 0 and less than the number of classes, 5, got 5"):
            getattr(fastops, op + "_backward")(1.0, X, np.array([0, 1, 5, 2]))
        with pytest.raises(ValueError, match="target must be at least 0 and less than the number of classes, 0, got 1"):
            getattr(fastops, op)(np.zeros((1, 0)), np.array([1]))

    def test_ignored_targets_need_not_be_classes(self):
        t = np.array([1, -100, 4, 2])
        assert fastops.cross_entropy(X, t, reduction="none")[1] == 0
        np.testing.assert_allclose(fastops.cross_entropy(X, t), fastops.cross_entropy(X[[0, 2, 3]], t[[0, 2, 3]]))

    def test_large_scores(self):
        x = np.array([[1e4, 1e4 - 1, -1e4]], np.float32)
        np.testing.assert_allclose(fastops.cross_entropy(x, np.array([0])), np.log1p(np.exp(-1)), rtol=1e-6)
        impossible = np.array([[0.0, -np.inf]])
        assert fastops.cross_entropy(impossible, np.array([0])) == 0
        assert fastops.cross_entropy(impossible, np.array([1])) == np.inf
        assert np.isnan(fastops.cross_entropy(np.full((1, 2), -np.inf), np.array([1])))

    @pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3, 4), (5,), (3, 5, 0), (0, 5)])
    @pytest.mark.parametrize("smoothing", [0.0, 0.3])
    def test_kept_normalizers_change_nothing(self, shape, smoothing):
        rng = np.random.default_rng(2)
        x = rng.standard_normal(shape)
        t = np.asarray(rng.integers(0, 5, (shape[2:] and (shape[0], *shape[2:])) or shape[:-1]))
        from fastops import _op

        y, kept = _op.get("cross_entropy").record(x, t, label_smoothing=smoothing)
        assert_same_bits(y, fastops.cross_entropy(x, t, label_smoothing=smoothing))
        with_kept, without = (fastops.cross_entropy_backward(1.0, x, t, label_smoothing=smoothing, **k)[0] for k in (kept, {}))
        assert_same_bits(with_kept, without)

    def test_one_distribution_is_a_class(self):
        for smoothing in (0.0, 0.2):
            by_class = fastops.cross_entropy(X, LABELS, label_smoothing=smoothing)
            by_distribution = fastops.cross_entropy(X, np.eye(5)[LABELS], label_smoothing=smoothing)
            np.testing.assert_allclose(by_distribution, by_class)
            np.testing.assert_allclose(by_class, cross_entropy(X, LABELS, label_smoothing=smoothing))


class TestDistances:
    @pytest.mark.parametrize("p", [0, 0.5, 1, 2, 3, np.inf])
    def test_no_gradient_where_the_distance_is_0(self, p):
        x = np.array([[1.0, 2.0], [1.0, 2.0]])
        for gradient in (fastops.cdist_backward(np.ones((2, 2)), x, x, p), (fastops.pdist_backward(np.ones(1), x, p),)):
            assert not any(g.any() for g in gradient)
        assert not fastops.pairwise_distance_backward(np.ones(2), x, x, p, eps=0.0)[0].any()

    def test_matrix_product(self):
        a, b = (np.random.default_rng(3).standard_normal((40, 8)) for _ in range(2))
        direct = fastops.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        product = fastops.cdist(a, b, compute_mode="use_mm_for_euclid_dist")
        np.testing.assert_allclose(product, direct, atol=1e-7)
        assert_same_bits(fastops.cdist(a, b), product)
        assert (np.diag(fastops.cdist(a, a)) >= 0).all()  # never the root of a negative number
        g = np.cos(direct)
        for one, other in zip(
            fastops.cdist_backward(g, a, b, compute_mode="use_mm_for_euclid_dist"),
            fastops.cdist_backward(g, a, b, compute_mode="donot_use_mm_for_euclid_dist"),
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)

    def test_empty(self):
        assert fastops.cdist(np.zeros((2, 0)), np.zeros((3, 0))).tolist() == [[0.0] * 3] * 2
        assert fastops.cdist(np.zeros((0, 2)), np.zeros((3, 2))).shape == (0, 3)
        for rows in (0, 1):
            assert fastops.pdist(np.zeros((rows, 3))).shape == (0,)
            assert fastops.pdist_backward(np.zeros(0), np.zeros((rows, 3))).shape == (rows, 3)

    def test_largest_elements_share_the_gradient(self):
        x, zero = np.array([[2.0, -2.0, 1.0]]), np.zeros((1, 3))
        assert fastops.pairwise_distance_backward(np.ones(1), x, zero, p=np.inf, eps=0.0)[0].tolist() == [[0.5, -0.5, 0]]
        assert fastops.cdist_backward(np.ones((1, 1)), x, zero, p=np.inf)[0].tolist() == [[1, -1, 0]]

    def test_short_vectors_have_small_cosines(self):
        x, y = np.array([[0.0, 0.0], [3e-9, 4e-9]]), np.array([[1.0, 0.0], [1.0, 0.0]])
        np.testing.assert_allclose(fastops.cosine_similarity(x, y), [0, 0.3])
        np.testing.assert_allclose(fastops.cosine_similarity_backward(np.ones(2), x, y)[0][0], [1e8, 0])

    def test_triplets_with_a_distance_of_ones_own(self):
        a, b, c = np.random.default_rng(4).standard_normal((3, 4, 5))

        def distance(u, v):
            return ((u - v) ** 2).sum(axis=-1)

        def backward(g, u, v):
            return 2 * g[:, None] * (u - v), 2 * g[:, None] * (v - u)

        loss = fastops.triplet_margin_with_distance_loss(a, b, c, distance_function=distance, margin=3.0, reduction="sum")
        np.testing.assert_allclose(loss, np.maximum(0, 3 + distance(a, b) - distance(a, c)).sum())
        options = {"distance_function": distance, "margin": 3.0, "reduction": "sum"}
        da, _, dc = fastops.triplet_margin_with_distance_loss_backward(1.0, a, b, c, distance_backward=backward, **options)
        active = (3 + distance(a, b) > distance(a, c))[:, None]
        np.testing.assert_allclose(da, active * 2 * (c - b))
        np.testing.assert_allclose(dc, active * 2 * (a - c))
        with pytest.raises(ValueError, match="distance_backward must be given"):
            fastops.triplet_margin_with_distance_loss_backward(1.0, a, b, c, **options)
        own = fastops.triplet_margin_with_distance_loss_backward(1.0, a, b, c, distance_function=fastops.pairwise_distance, swap=True)
        for one, other in zip(own, fastops.triplet_margin_loss_backward(1.0, a, b, c, swap=True)):
            np.testing.assert_allclose(one, other)


class TestAlignments:
    @pytest.mark.parametrize("seed", range(8))
    def test_brute_force(self, seed):
        rng = np.random.default_rng(seed)
        times, batch, classes = 5, 2, 3
        y = log_distribution(rng, (times, batch, classes))
        blank = int(rng.integers(0, classes))
        labels = [c for c in range(classes) if c != blank]
        targets, lengths = rng.choice(labels, (batch, 3)), rng.integers(0, 4, batch)
        inputs = rng.integers(1, times + 1, batch)
        padded = fastops.ctc_loss(y, targets, inputs, lengths, blank, "none")
        np.testing.assert_allclose(padded, ctc(y, targets, inputs, lengths, blank, "none"))
        in_a_row = np.concatenate([t[:n] for t, n in zip(targets, lengths)])
        assert_same_bits(fastops.ctc_loss(y, in_a_row, inputs, lengths, blank, "none"), padded)
        for n in range(batch):
            alone = fastops.ctc_loss(y[:, n], targets[n, : lengths[n]], (inputs[n],), (lengths[n],), blank, "none")
            assert alone.shape == ()
            assert alone == padded[n]

    def test_a_target_too_long_for_its_input(self):
        y = log_distribution(np.random.default_rng(0), (3, 2, 4))
        targets, inputs, lengths = np.array([[1, 1, 2], [1, 2, 3]]), [3, 3], [3, 2]
        loss = fastops.ctc_loss(y, targets, inputs, lengths, reduction="none")
        assert np.isinf(loss).tolist() == [True, False]
        dy = fastops.ctc_loss_backward(np.ones(2), y, targets, inputs, lengths, reduction="none")
        assert np.isnan(dy[:, 0]).all()
        assert np.isfinite(dy[:, 1]).all()
        zeroed = fastops.ctc_loss(y, targets, inputs, lengths, reduction="none", zero_infinity=True)
        assert zeroed.tolist() == [0, loss[1]]
        d0 = fastops.ctc_loss_backward(np.ones(2), y, targets, inputs, lengths, reduction="none", zero_infinity=True)
        assert not d0[:, 0].any()
        assert_same_bits(d0[:, 1], dy[:, 1])

    def test_times_after_the_input_do_not_matter(self):
        y = log_distribution(np.random.default_rng(0), (6, 1, 4))
        dy = fastops.ctc_loss_backward(1.0, y, np.array([[1, 2]]), [4], [2])
        assert not dy[4:].any()
        np.testing.assert_allclose(dy[:4], fastops.ctc_loss_backward(1.0, y[:4], np.array([[1, 2]]), [4], [2]))
        np.testing.assert_allclose(dy.sum(-1), 0, atol=1e-15)

    def test_no_input_and_no_target(self):
        y = log_distribution(np.random.default_rng(0), (2, 3, 3))
        loss = fastops.ctc_loss(y, np.array([[1], [1], [1]]), [0, 0, 2], [0, 1, 0], reduction="none")
        np.testing.assert_allclose(loss, [0, np.inf, -y[:, 2, 0].sum()])


WRONG = [
    ("mse_loss", (X, X, "median"), ValueError, "reduction"),
    ("mse_loss", (X, X.astype("f4")), TypeError, "target"),
    ("mse_loss", (X.astype(int), X), TypeError, "input"),
    ("mse_loss", (X, np.ma.zeros((4, 5), int)), TypeError, "target"),
    ("mse_loss", (X, X, "mean", X[0]), ValueError, "weight"),
    ("smooth_l1_loss", (X, X, "mean", -1.0), ValueError, "beta"),
    ("huber_loss", (X, X, "mean", 0.0), ValueError, "delta"),
    ("huber_loss", (X, X, "mean", "wide"), TypeError, "delta"),
    ("gaussian_nll_loss", (X, X, -np.ones(4)), ValueError, "var"),
    ("gaussian_nll_loss", (X, X, np.ones(3)), ValueError, "var"),
    ("gaussian_nll_loss", (X, X, -1.0), ValueError, "var"),
    ("binary_cross_entropy", (X, X[0]), ValueError, "target"),
    ("binary_cross_entropy_with_logits", (X, X[0]), ValueError, "target"),
    ("binary_cross_entropy_with_logits", (X, X, np.ones(3)), ValueError, "weight"),
    ("binary_cross_entropy_with_logits", (X, X, None, "mean", np.ones((2, 4, 5))), ValueError, "pos_weight"),
    ("soft_margin_loss", (X, np.ones((2, 4, 5))), ValueError, "target"),
    ("kl_div", (X, X[:3]), ValueError, "target"),
    ("kl_div", (X, X, "batch"), ValueError, "reduction"),
    ("margin_ranking_loss", (X, X, np.ones(5)), ValueError, "input1"),
    ("multilabel_soft_margin_loss", (np.float64(1), np.float64(1)), ValueError, "input"),
    ("nll_loss", (X, LABELS[:3]), ValueError, "target"),
    ("nll_loss", (X, LABELS.astype(float)), TypeError, "target"),
    ("nll_loss", (X, LABELS, np.ones(4)), ValueError, "weight"),
    ("nll_loss", (X, LABELS, np.ones(5, "f4")), TypeError, "weight"),
    ("nll_loss", (X, LABELS, None, 1.5), TypeError, "ignore_index"),
    ("nll_loss", (X, LABELS, None, 2**63), ValueError, "ignore_index"),
    ("nll_loss", (X, LABELS, np.ones(5), -(2**63) - 1), ValueError, "ignore_index"),
    ("nll_loss", (X, np.ma.array(LABELS, mask=True)), TypeError, "target"),
    ("nll_loss", (np.float64(0), LABELS), ValueError, "input"),
    ("cross_entropy", (X, LABELS, None, -100, "mean", 1.5), ValueError, "label_smoothing"),
    ("cross_entropy", (X, X, None, 1), ValueError, "ignore_index"),
    ("cross_entropy", (X, LABELS, None, 2**64), ValueError, "ignore_index"),
    ("cross_entropy", (X, np.ma.array(LABELS, mask=True)), TypeError, "target"),
    ("cross_entropy", (X, X.astype("f4")), TypeError, "target"),
    ("cross_entropy", (X, X.astype(int)), ValueError, "target"),
    ("multi_margin_loss", (X, LABELS, 3), ValueError, "p"),
    ("multi_margin_loss", (X, LABELS + 1), ValueError, "target"),
    ("multi_margin_loss", (X, LABELS[:2]), ValueError, "target"),
    ("multi_margin_loss", (X, np.ma.array(LABELS, mask=True)), TypeError, "target"),
    ("multi_margin_loss", (X, LABELS, 1, 1.0, np.ones(3)), ValueError, "weight"),
    ("multilabel_margin_loss", (X, np.full((4, 5), 5)), ValueError, "target"),
    ("multilabel_margin_loss", (X, X), TypeError, "target"),
    ("multilabel_margin_loss", (X, np.ma.zeros((4, 5), int)), TypeError, "target"),
    ("multilabel_margin_loss", (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int)), ValueError, "input"),
    ("cosine_similarity", (X, X, 2), ValueError, "dim"),
    ("cosine_similarity", (X, X[:3]), ValueError, "x2"),
    ("pairwise_distance", (X, X[:3]), ValueError, "x2"),
    ("cdist", (X, X[:, :3]), ValueError, "x2"),
    ("cdist", (X, X, -1), ValueError, "p"),
    ("cdist", (X, X, 2, "fast"), ValueError, "compute_mode"),
    ("pdist", (X[0],), ValueError, "input"),
    ("cosine_embedding_loss", (X, X, np.ones((4, 1))), ValueError, "target"),
    ("triplet_margin_loss", (X, X, X, 0.0), ValueError, "margin"),
    ("triplet_margin_loss", (X, X, X[0]), ValueError, "anchor"),
    ("ctc_loss", (X, np.array([1]), [4], [1], 5), ValueError, "blank"),
    ("ctc_loss", (X, np.array([5]), [4], [1]), ValueError, "targets"),
    ("ctc_loss", (X, np.array([1, 2]), [4], [1]), ValueError, "targets"),
    ("ctc_loss", (X, np.array([1.5]), [4], [1]), TypeError, "targets"),
    ("ctc_loss", (X, np.ma.array([1], mask=True), [4], [1]), TypeError, "targets"),
    ("ctc_loss", (X, np.array([1]), [5], [1]), ValueError, "input_lengths"),
    ("ctc_loss", (X, np.array([1]), [4], [-1]), ValueError, "target_lengths"),
    ("ctc_loss", (X, np.array([1]), [4, 4], [1]), ValueError, "input_lengths"),
    ("ctc_loss", (X[0], np.array([1]), [4], [1]), ValueError, "log_probs"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "name"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_wrong_arguments(op, arguments, error, name):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(*arguments)
    assert re.match(rf"{op}: {name}\b", str(caught.value)), caught.value


@pytest.mark.parametrize("op", ["nll_loss", "cross_entropy", "multi_margin_loss", "multilabel_margin_loss", "ctc_loss"])
def test_targets_past_64_bits_do_not_wrap(op):
    wrong = np.full(X.shape if op == "multilabel_margin_loss" else 4, 2**64 - 100, np.uint64)
    lengths = ([4], [4]) if op == "ctc_loss" else ()
    with pytest.raises(ValueError, match=rf"^{op}: targets? must .*{2**64 - 100}$"):
        getattr(fastops, op)(X, wrong, *lengths)


class Tensor:
    """An array of another library, with a dtype of its own."""

    dtype = "another library's"

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.bool_])
@pytest.mark.parametrize("op", ["mse_loss", "binary_cross_entropy_with_logits", "soft_margin_loss"])
def test_targets_of_another_library(op, dtype):
    target = (X > 0).astype(dtype)
    assert_same_bits(getattr(fastops, op)(X, Tensor(target)), getattr(fastops, op)(X, target))
    assert_same_bits(getattr(fastops, op)(Tensor(X), Tensor(target)), getattr(fastops, op)(X, target))


def test_gradients_take_only_cotangents_of_the_output():
    for g, error in ((np.ones(4), ValueError), (np.ones((4, 5), np.float32), TypeError)):
        with pytest.raises(error, match=r"^mse_loss_backward: grad_output\b"):
            fastops.mse_loss_backward(g, X, X, reduction="none")
    with pytest.raises(ValueError, match=r"^mse_loss_backward: grad_output\b"):
        fastops.mse_loss_backward(np.ones(4), X, X)
    with pytest.raises(ValueError, match=r"^mse_loss_backward: output_mask\b"):
        fastops.mse_loss_backward(1.0, X, X, output_mask=(True, True))
    with pytest.raises(ValueError, match=r"^cross_entropy_backward: normalizer\b"):
        fastops.cross_entropy_backward(1.0, X, LABELS, normalizer=np.zeros((2, 3)))
