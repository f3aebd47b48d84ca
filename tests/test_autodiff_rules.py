"""Every rule for a NumPy function: its gradient, the gradient of its gradient, and its dtype."""

from __future__ import annotations

import numpy as np
import pytest

from fastops import check_grad, grad, vjp
from fastops.autodiff import variable

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape)


def positive(*shape):
    return rng.uniform(0.5, 2.0, shape)


def inside(*shape):
    """In (-1, 1), away from the ends."""
    return rng.uniform(-0.8, 0.8, shape)


def apart(*shape):
    """All different by at least 0.1, in no order: no ties, no kinks at 0."""
    size = int(np.prod(shape))
    return ((rng.permutation(size) - size / 2 + 0.3) * 0.25).reshape(shape)


def definite(*shape):
    a = normal(*shape)
    return a @ np.swapaxes(a, -1, -2) + 2 * np.eye(shape[-1])


M = np.array([[True, False, True], [False, True, True]])

# name of the rule, function, arguments; several rows where there are several ways
ROWS = [
    *((f.__name__, f, (normal(2, 3),)) for f in (
        np.negative, np.square, np.exp, np.exp2, np.expm1, np.sin, np.cos, np.tanh, np.sinh, np.cosh, np.arctan, np.arcsinh,
        np.deg2rad, np.rad2deg, np.sinc, np.positive,
    )),
    *((f.__name__, f, (apart(2, 3),)) for f in (np.abs, np.fabs, np.cbrt, np.reciprocal)),
    *((f.__name__, f, (positive(2, 3),)) for f in (np.sqrt, np.log, np.log2, np.log10, np.log1p)),
    *((f.__name__, f, (inside(2, 3),)) for f in (np.tan, np.arcsin, np.arccos, np.arctanh)),
    ("arccosh", np.arccosh, (positive(2, 3) + 1,)),
    *((f.__name__, f, (normal(2, 1, 3), normal(4, 1))) for f in (np.add, np.subtract, np.multiply)),
    *((f.__name__, f, (normal(3), normal())) for f in (np.add, np.subtract, np.multiply)),
    *((f.__name__, f, (apart(2, 3), apart(3))) for f in (np.true_divide, np.arctan2, np.hypot, np.logaddexp, np.logaddexp2)),
    *((f.__name__, f, (apart(2, 1, 3), apart(4, 3) + 0.11)) for f in (np.maximum, np.minimum, np.fmax, np.fmin)),
    ("remainder", np.remainder, (apart(2, 3) + 0.03, positive(3))),
    ("fmod", np.fmod, (apart(2, 3) + 0.03, positive(3))),
    ("copysign", lambda x: np.copysign(x, np.array([-1.0, 1.0, -1.0])), (apart(2, 3),)),
    ("power", np.power, (positive(2, 1, 3), normal(4, 1))),
    ("power", lambda x: x**3, (normal(2, 3),)),
    ("power", lambda x: x**2, (normal(2, 3),)),
    ("power", lambda x: x**-1.5, (positive(2, 3),)),
    ("power", lambda x: x ** np.array([0.0, 1.0, 2.0]), (normal(2, 3),)),
    ("power", lambda x: 2.0**x, (normal(2, 3),)),
    ("where", lambda x, y: np.where(M, x, y), (normal(2, 3), normal(3))),
    ("where", lambda x: np.where(M, x, 0.0), (normal(3),)),
    ("clip", lambda x: np.clip(x, -0.5, 0.5), (apart(3, 4),)),
    ("clip", lambda x: np.clip(x, None, 0.5), (apart(3, 4),)),
    ("clip", np.clip, (apart(3, 4), apart(4) - 1, apart(4) + 1.02)),
    ("nan_to_num", lambda x: np.nan_to_num(np.append(x, [np.inf, np.nan]), posinf=3.0), (normal(3),)),
    # reductions
    *(
        (name, lambda x, f=f, o=o: f(x, **o), (apart(2, 3, 4),))
        for name, f in (("sum", np.sum), ("mean", np.mean), ("var", np.var), ("std", np.std), ("max", np.max), ("min", np.min), ("prod", np.prod))
        for o in ({}, {"axis": 1}, {"axis": (0, -1), "keepdims": True})
    ),
    ("var", lambda x: np.var(x, axis=0, ddof=1), (normal(4, 3),)),
    ("std", lambda x: np.std(x, ddof=1), (normal(4, 3),)),
    ("prod", lambda x: np.prod(x * np.array([1.0, 0.0, 1.0]), axis=1), (normal(2, 3),)),
    ("sum", lambda x: np.sum(x, axis=0), (normal(70, 80),)),  # larger than what is written out
    ("cumsum", np.cumsum, (normal(2, 3),)),
    ("cumsum", lambda x: np.cumsum(x, axis=0), (normal(2, 3),)),
    ("norm", np.linalg.norm, (normal(2, 3),)),
    ("norm", lambda x: np.linalg.norm(x, axis=1, keepdims=True), (normal(2, 3, 2),)),
    ("norm", lambda x: np.linalg.norm(x, axis=(0, 2)), (normal(2, 3, 2),)),
    ("norm", np.linalg.norm, (normal(2, 3, 2),)),
    *(("norm", lambda x, o=o: np.linalg.norm(x, ord=o, axis=1), (apart(2, 3),)) for o in (1, 2, 3, 0.5, -2, np.inf, -np.inf)),
    ("norm", lambda x: np.linalg.norm(x, ord=3, keepdims=True), (apart(5),)),
    ("average", lambda x, w: np.average(x, axis=1, weights=w), (normal(2, 3), positive(3))),
    ("average", lambda x: np.average(x, axis=0), (normal(2, 3),)),
    ("ptp", lambda x: np.ptp(x, axis=1), (apart(2, 3),)),
    ("diff", lambda x: np.diff(x, n=2, axis=0), (normal(4, 3),)),
    # arrangement
    *(
        ("getitem", lambda x, i=i: x[i], (normal(4, 3, 2),))
        for i in (
            1, -1, slice(1, None, 2), (slice(None), 1), (..., 0), (None, 2), np.array([0, 2, 2, -1]), [1, 1], M[:, :2].any() * 1,
            (np.array([[0], [1]]), np.array([0, 2])), (slice(None), np.array([1, 1])), np.array([True, False, True, True]),
            (np.array([0, 1]), slice(None), np.array([True, True])), np.zeros(0, int), slice(0, 0),
        )
    ),
    ("getitem", lambda x: x[x > 0], (apart(3, 4),)),
    ("reshape", lambda x: np.reshape(x, (3, -1)), (normal(2, 3),)),
    ("reshape", lambda x: np.reshape(x, (3, 2), order="F"), (normal(2, 3),)),
    ("ravel", np.ravel, (normal(2, 3),)),
    ("transpose", np.transpose, (normal(2, 3),)),
    ("transpose", lambda x: np.transpose(x, (2, 0, -2)), (normal(2, 3, 4),)),
    ("matrix_transpose", np.matrix_transpose, (normal(2, 3, 4),)),
    ("swapaxes", lambda x: np.swapaxes(x, 0, -1), (normal(2, 3, 4),)),
    ("moveaxis", lambda x: np.moveaxis(x, (0, 1), (-1, 0)), (normal(2, 3, 4),)),
    ("rollaxis", lambda x: np.rollaxis(x, 2), (normal(2, 3, 4),)),
    ("rollaxis", lambda x: np.rollaxis(x, 0, 3), (normal(2, 3, 4),)),
    ("squeeze", np.squeeze, (normal(1, 3, 1),)),
    ("squeeze", lambda x: np.squeeze(x, 0), (normal(1, 3, 1),)),
    ("expand_dims", lambda x: np.expand_dims(x, (0, -1)), (normal(2, 3),)),
    ("broadcast_to", lambda x: np.broadcast_to(x, (4, 2, 3)), (normal(2, 1),)),
    ("broadcast_arrays", lambda x, y: tuple(np.broadcast_arrays(x, y)), (normal(2, 1), normal(3))),
    ("atleast_1d", np.atleast_1d, (normal(),)),
    ("atleast_2d", np.atleast_2d, (normal(3),)),
    ("atleast_3d", np.atleast_3d, (normal(2, 3),)),
    ("concatenate", lambda x, y: np.concatenate([x, y, np.ones((1, 3))]), (normal(2, 3), normal(1, 3))),
    ("concatenate", lambda x, y: np.concatenate([x, y], axis=-1), (normal(2, 3), normal(2, 1))),
    ("concatenate", lambda x, y: np.concatenate([x, y], axis=None), (normal(2, 3), normal(2, 1))),
    ("concatenate", lambda x: np.concatenate([x, x]), (normal(2, 3),)),
    ("stack", lambda x, y: np.stack([x, y], axis=1), (normal(2, 3), normal(2, 3))),
    ("vstack", lambda x, y: np.vstack([x, y]), (normal(3), normal(2, 3))),
    ("hstack", lambda x, y: np.hstack([x, y]), (normal(2, 3), normal(2, 1))),
    ("hstack", lambda x, y: np.hstack([x, y]), (normal(2), normal(3))),
    ("dstack", lambda x, y: np.dstack([x, y]), (normal(2, 3), normal(2, 3))),
    ("column_stack", lambda x, y: np.column_stack([x, y]), (normal(2), normal(2, 3))),
    ("append", lambda x, y: np.append(x, y, axis=0), (normal(2, 3), normal(1, 3))),
    ("split", lambda x: np.split(x, 3, axis=1), (normal(2, 6),)),
    ("split", lambda x: np.split(x, [1, 1, 4])[::2], (normal(6, 2),)),
    ("array_split", lambda x: np.array_split(x, 4), (normal(6, 2),)),
    ("hsplit", lambda x: np.hsplit(x, 2), (normal(2, 4),)),
    ("vsplit", lambda x: np.vsplit(x, 2), (normal(2, 4),)),
    ("dsplit", lambda x: np.dsplit(x, 2), (normal(2, 1, 4),)),
    ("take", lambda x: np.take(x, [[0, 1], [1, 1]], axis=1), (normal(2, 3),)),
    ("take", lambda x: np.take(x, [0, 5, 5]), (normal(2, 3),)),
    ("take_along_axis", lambda x: np.take_along_axis(x, np.array([[0], [2]]), 1), (normal(2, 3),)),
    ("compress", lambda x: np.compress([True, False, True], x, axis=1), (normal(2, 3),)),
    ("sort", lambda x: np.sort(x, axis=0), (apart(4, 3),)),
    ("sort", lambda x: np.sort(x, axis=None), (apart(4, 3),)),
    ("repeat", lambda x: np.repeat(x, 2), (normal(2, 3),)),
    ("repeat", lambda x: np.repeat(x, [0, 2, 1], axis=1), (normal(2, 3),)),
    ("tile", lambda x: np.tile(x, (2, 1, 3)), (normal(2, 3),)),
    ("tile", lambda x: np.tile(x, 2), (normal(2, 3),)),
    ("flip", np.flip, (normal(2, 3),)),
    ("flip", lambda x: np.flip(x, (0, -1)), (normal(2, 3, 4),)),
    ("flipud", np.flipud, (normal(2, 3),)),
    ("fliplr", np.fliplr, (normal(2, 3),)),
    *(("rot90", lambda x, k=k: np.rot90(x, k), (normal(2, 3),)) for k in (0, 1, 2, -1)),
    ("roll", lambda x: np.roll(x, 2), (normal(2, 3),)),
    ("roll", lambda x: np.roll(x, (1, 2), axis=(0, 1)), (normal(2, 3),)),
    ("pad", lambda x: np.pad(x, 1, constant_values=3.0), (normal(2, 3),)),
    ("pad", lambda x: np.pad(x, ((0, 1), (2, 0))), (normal(2, 3),)),
    *(("pad", lambda x, m=m: np.pad(x, (2, 1), mode=m), (normal(3, 4),)) for m in ("edge", "reflect", "symmetric", "wrap")),
    ("diagonal", lambda x: np.diagonal(x, 1), (normal(3, 4),)),
    ("diagonal", lambda x: np.diagonal(x, -1, 2, 0), (normal(3, 2, 4),)),
    ("trace", np.trace, (normal(3, 4),)),
    ("diag", lambda x: np.diag(x, 1), (normal(3),)),
    ("diag", np.diag, (normal(3, 2),)),
    ("tril", lambda x: np.tril(x, 1), (normal(2, 3, 4),)),
    ("triu", np.triu, (normal(3, 3),)),
    ("copy", np.copy, (normal(3),)),
    # products
    ("matmul", np.matmul, (normal(2, 3), normal(3, 4))),
    ("matmul", np.matmul, (normal(3), normal(3))),
    ("matmul", np.matmul, (normal(3), normal(2, 3, 4))),
    ("matmul", np.matmul, (normal(5, 2, 3), normal(3))),
    ("matmul", np.matmul, (normal(5, 1, 2, 3), normal(4, 3, 2))),
    ("dot", np.dot, (normal(2, 3), normal(3, 4))),
    ("dot", np.dot, (normal(2, 3), normal())),
    ("dot", np.dot, (normal(2, 3, 4), normal(2, 4, 2))),
    ("dot", np.dot, (normal(2, 3, 4), normal(4))),
    ("vdot", np.vdot, (normal(2, 3), normal(3, 2))),
    ("inner", np.inner, (normal(2, 3), normal(4, 3))),
    ("outer", np.outer, (normal(2), normal(3, 2))),
    ("kron", np.kron, (normal(2, 3), normal(3))),
    ("tensordot", np.tensordot, (normal(2, 3, 4), normal(3, 4, 2))),
    ("tensordot", lambda x, y: np.tensordot(x, y, axes=([0, 2], [-1, 0])), (normal(2, 3, 4), normal(4, 2))),
    ("tensordot", lambda x, y: np.tensordot(x, y, axes=0), (normal(2), normal(3))),
    ("cross", np.cross, (normal(2, 3), normal(3))),
    ("einsum", lambda x, y: np.einsum("ij,jk->ik", x, y), (normal(2, 3), normal(3, 4))),
    ("einsum", lambda x, y: np.einsum("bij, bjk -> bk", x, y, optimize=True), (normal(2, 3, 4), normal(2, 4, 5))),
    ("einsum", lambda x, y: np.einsum("ij,jk", x, y), (normal(2, 3), normal(3, 4))),
    ("einsum", lambda x: np.einsum("ii->i", x), (normal(3, 3),)),
    ("einsum", lambda x: np.einsum("ii", x), (normal(3, 3),)),
    ("einsum", lambda x: np.einsum("iji->j", x), (normal(3, 2, 3),)),
    ("einsum", lambda x: np.einsum("ij->j", x), (normal(3, 2),)),
    ("einsum", lambda x, y: np.einsum("...i,...i->...", x, y), (normal(4, 2, 3), normal(2, 3))),
    ("einsum", lambda x, y: np.einsum("...ij,...jk", x, y), (normal(4, 2, 3), normal(3, 2))),
    ("einsum", lambda x, y, z: np.einsum("i,ij,j->", x, y, z), (normal(2), normal(2, 3), normal(3))),
    ("einsum", lambda x, y: np.einsum("ij,ij->ij", x, y), (normal(1, 3), normal(2, 3))),
    ("einsum", lambda x: np.einsum("ij,ij->", x, x), (normal(2, 3),)),
    ("inv", np.linalg.inv, (definite(2, 3, 3),)),
    ("det", np.linalg.det, (definite(2, 3, 3),)),
    ("slogdet", lambda x: np.linalg.slogdet(x)[1], (definite(3, 3),)),
    ("solve", np.linalg.solve, (definite(3, 3), normal(3))),
    ("solve", np.linalg.solve, (definite(3, 3), normal(3, 2))),
    ("cholesky", lambda x: np.linalg.cholesky(0.5 * (x + x.T)), (definite(3, 3),)),
]  # fmt: skip

if hasattr(np, "unstack"):
    ROWS.append(("unstack", lambda x: np.unstack(x, axis=1), (normal(2, 3),)))


def _id(row):
    return row[0]


def arguments(values):
    return [np.asarray(v) for v in values]


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_gradient(row):
    _, function, values = row
    check_grad(function, *arguments(values))


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_gradient_of_the_gradient(row):
    """The pullback is a function of the primals and, linearly, of the cotangent."""
    _, function, values = row
    primals = arguments(values)
    y, _ = vjp(function, *primals)
    if isinstance(y, (list, tuple)):
        cotangents = tuple(np.cos(part) for part in y)
    else:
        cotangents = np.cos(y)
    check_grad(lambda c, *xs: vjp(function, *xs)[1](c), cotangents, *primals, rtol=1e-5)


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_value_and_dtype(row):
    """What NumPy gives for plain arrays, bit for bit or nearly, and float32 stays float32."""
    name, function, values = row
    primals = [v.astype(np.float32) for v in arguments(values)]
    y, pullback = vjp(function, *primals)
    expected = function(*primals)
    parts = (y, expected) if isinstance(expected, (list, tuple)) else ([y], [expected])
    for found, wanted in zip(*parts, strict=True):
        assert np.shape(found) == np.shape(wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        # constants of float64 among the arguments make NumPy's results float64
        assert found.dtype == wanted.dtype
    grads = pullback(tuple(np.ones_like(p) for p in parts[1]) if parts[0] is y else np.ones_like(expected))
    assert {g.dtype for g in grads} == {np.dtype(np.float32)}, name
    assert [g.shape for g in grads] == [p.shape for p in primals]


def test_every_rule_has_a_row():
    known = {function.__name__ for function in variable._handlers if function not in variable._constants}
    missing = known - {row[0] for row in ROWS} - {"astype"}
    assert not missing, sorted(missing)


def test_ties_share_the_gradient():
    np.testing.assert_array_equal(grad(lambda x: np.max(x))(np.array([1.0, 3.0, 3.0])), [0, 0.5, 0.5])
    np.testing.assert_array_equal(grad(lambda x: np.maximum(x, 3.0).sum())(np.array([1.0, 3.0, 4.0])), [0, 0.5, 1])
    np.testing.assert_array_equal(grad(lambda x: np.clip(x, 1.0, 3.0).sum())(np.array([0.0, 1.0, 3.0, 4.0])), [0, 1, 1, 0])
    np.testing.assert_array_equal(grad(lambda x: np.fmax(x, np.nan).sum())(np.array([1.0])), [1])


def test_corners_where_a_naive_formula_is_not_finite():
    zero = np.zeros(2)
    np.testing.assert_array_equal(grad(lambda x: np.linalg.norm(x))(zero), [0, 0])
    for p in (3, 1.5, 0.5):
        np.testing.assert_array_equal(grad(lambda x, p=p: np.linalg.norm(x, ord=p))(zero), [0, 0])
        np.testing.assert_array_equal(grad(lambda x, p=p: np.linalg.norm(x, ord=p))(np.array([0.0, 2.0])), [0, 1])
    np.testing.assert_array_equal(grad(np.std)(np.ones(2)), [0, 0])
    np.testing.assert_array_equal(grad(lambda x: np.sinc(x).sum())(zero), [0, 0])
    np.testing.assert_array_equal(grad(lambda x: (x**0).sum())(zero), [0, 0])
    np.testing.assert_array_equal(grad(lambda x: (x ** np.array([0.0, 1.0])).sum())(zero), [0, 1])
    np.testing.assert_array_equal(grad(lambda p: (zero**p).sum())(np.array([1.0, 2.0])), [0, 0])
    np.testing.assert_array_equal(grad(lambda x: np.prod(x))(np.array([0.0, 2.0, 3.0])), [6, 0, 0])
    assert grad(lambda x: np.prod(x, axis=1).sum())(np.ones((3, 0))).shape == (3, 0)
    np.testing.assert_array_equal(grad(lambda x: np.where(x > 0, np.sqrt(np.where(x > 0, x, 1)), 0).sum())(zero), [0, 0])
    np.testing.assert_allclose(grad(lambda x: np.logaddexp(x, 0.0).sum())(np.array([1000.0, -1000.0])), [1, 0])


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, np.array([0.0, 2.0])])
def test_the_slope_of_a_power_by_its_exponent(p):
    """p x**(p - 1) grows with p by x**(p - 1) (1 + p log x), at the exponents that have a shorter formula too."""
    x = np.array([2.0, 3.0])
    found = grad(lambda p: grad(lambda x: (x**p).sum())(x).sum())(p)
    expected = x ** (p - 1) * (1 + p * np.log(x))
    np.testing.assert_allclose(found, expected if np.ndim(p) else expected.sum(), rtol=1e-14)


def test_determinants_of_singular_matrices():
    a = np.stack([np.ones((2, 2)), np.zeros((2, 2)), np.array([[3.0, 1.0], [0.0, 2.0]])])
    np.testing.assert_allclose(grad(lambda a: np.linalg.det(a).sum())(a), [[[1, -1], [-1, 1]], [[0, 0], [0, 0]], [[2, 0], [-1, 3]]], atol=1e-15)


def test_constants_give_plain_arrays():
    def function(x):
        for plain in (np.sign(x), np.floor(x), np.argmax(x), np.zeros_like(x), x > 0, np.isnan(x), np.round(x), x // 2, x.argsort(), x.any(), np.equal(1, x)):
            assert not isinstance(plain, variable.Variable)
        return x.sum()

    vjp(function, np.ones(3))
