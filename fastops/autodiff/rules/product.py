"""Products of matrices and tensors, and linear algebra."""

from __future__ import annotations

import numpy as np

from fastops.autodiff.rules.reduction import product_of_others
from fastops.autodiff.variable import Variable, apply, composite, plain, rule


def _turned(a):
    return np.swapaxes(a, -1, -2)


@rule(np.matmul)
def _matmul(x1, x2):
    y = np.matmul(x1, x2)
    first, second = np.ndim(x1), np.ndim(x2)
    if first > 1 and second > 1:
        return y, lambda g: np.matmul(g, _turned(x2)), lambda g: np.matmul(_turned(x1), g)
    if first == second:
        return y, lambda g: g * x2, lambda g: g * x1
    if first == 1:  # (k) @ (..., k, m) -> (..., m)
        return y, lambda g: np.matmul(x2, g[..., None])[..., 0], lambda g: x1[:, None] * g[..., None, :]
    return y, lambda g: g[..., None] * x2, lambda g: np.matmul(_turned(x1), g[..., None])[..., 0]  # (..., n, k) @ (k)


@composite(np.dot)
def _dot(a, b, out=None):
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return np.multiply(a, b)
    if np.ndim(a) <= 2 and np.ndim(b) <= 2:
        return np.matmul(a, b)
    return np.tensordot(a, b, axes=(-1, max(np.ndim(b) - 2, 0)))


@composite(np.vdot)
def _vdot(a, b):
    return np.matmul(np.reshape(a, -1), np.reshape(b, -1))


@composite(np.inner)
def _inner(a, b):
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return np.multiply(a, b)
    return np.tensordot(a, b, axes=(-1, -1))


@composite(np.outer)
def _outer(a, b, out=None):
    return np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1))


@composite(np.kron)
def _kron(a, b):
    ndim = max(np.ndim(a), np.ndim(b))
    a, b = (np.reshape(m, (1,) * (ndim - np.ndim(m)) + np.shape(m)) for m in (a, b))
    whole = np.reshape(a, [n for size in a.shape for n in (size, 1)]) * np.reshape(b, [n for size in b.shape for n in (1, size)])
    return np.reshape(whole, [n * m for n, m in zip(a.shape, b.shape)])


@composite(np.tensordot)
def _tensordot(a, b, axes=2):
    if np.ndim(axes) == 0:
        first, second = list(range(np.ndim(a) - axes, np.ndim(a))), list(range(axes))
    else:
        first, second = ([side] if np.ndim(side) == 0 else list(side) for side in axes)
    first, second = [i % np.ndim(a) for i in first], [i % np.ndim(b) for i in second]
    a_free = [i for i in range(np.ndim(a)) if i not in first]
    b_free = [i for i in range(np.ndim(b)) if i not in second]
    inner = int(np.prod([np.shape(a)[i] for i in first]))
    left = np.reshape(np.transpose(a, a_free + first), (-1 if inner else int(np.prod([np.shape(a)[i] for i in a_free])), inner))
    right = np.reshape(np.transpose(b, second + b_free), (inner, -1 if inner else int(np.prod([np.shape(b)[i] for i in b_free]))))
    return np.reshape(np.matmul(left, right), [np.shape(a)[i] for i in a_free] + [np.shape(b)[i] for i in b_free])


@composite(np.cross)
def _cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = np.moveaxis(a, axisa, -1), np.moveaxis(b, axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise TypeError("cross: vectors of other than 3 elements are not supported where a value is differentiated")
    (a0, a1, a2), (b0, b1, b2) = ([v[..., i] for i in range(3)] for v in (a, b))
    return np.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], axis=axisc)


@composite(np.einsum)
def _einsum(subscripts, *operands, optimize=False, out=None):
    if not isinstance(subscripts, str):
        raise TypeError("einsum: subscripts must be a string where a value is differentiated")
    inputs, output = _explicit(subscripts.replace(" ", ""), [np.ndim(a) for a in operands])
    operands = tuple(np.asarray(a) if isinstance(a, (list, float, int)) else a for a in operands)
    return apply(_sum_of_products, operands, {"inputs": inputs, "output": output, "optimize": optimize})


def _explicit(subscripts, ndims):
    """The subscripts of each operand and of the result, with letters for the axes of an ellipsis."""
    left, arrow, output = subscripts.partition("->")
    inputs = left.split(",")
    unused = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in subscripts]
    counts = [ndim - len(s.replace("...", "")) for s, ndim in zip(inputs, ndims) if "..." in s]
    letters = "".join(unused[: max(counts, default=0)])
    inputs = [s.replace("...", letters[len(letters) - (ndim - len(s) + 3) :] if ndim > len(s) - 3 else "") for s, ndim in zip(inputs, ndims)]
    if not arrow:
        every = left.replace(",", "").replace("...", "")
        output = "..." + "".join(sorted(c for c in set(every) if every.count(c) == 1))
    return inputs, output.replace("...", letters)


@rule("einsum")
def _sum_of_products(*operands, inputs, output, optimize):
    y = np.einsum(f"{','.join(inputs)}->{output}", *operands, optimize=optimize)

    def pull(at):
        def gradient(g):
            return _einsum_gradient(g, at, operands, inputs, output, optimize)

        return gradient

    return y, *(pull(at) for at in range(len(operands)))


def _einsum_gradient(g, at, operands, inputs, output, optimize):
    """The same sum with ``g`` in the place of the operand, and that operand's subscripts as the result's.

    A letter that the operand has twice picks a diagonal: an identity matrix stands for it. A letter that nothing else has
    was summed over: ones stand for it, and for an axis of size 1 that met a larger one.
    """
    shape = operands[at].shape
    terms = [output] + [s for i, s in enumerate(inputs) if i != at]
    factors = [g] + [a for i, a in enumerate(operands) if i != at]
    sizes = {c: n for term, factor in zip(terms, factors) for c, n in zip(term, np.shape(factor)) if n != 1}
    unused = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in ",".join(inputs) + output]
    target, summed = "", []
    for axis, c in enumerate(inputs[at]):
        if c in target:
            fresh = unused.pop()
            terms.append(c + fresh)
            factors.append(np.eye(shape[axis], dtype=g.dtype))
            target += fresh
        else:
            target += c
            if not any(c in term for term in terms):
                terms.append(c)
                factors.append(np.ones(shape[axis], g.dtype))
            elif shape[axis] == 1 and sizes.get(c, 1) != 1:
                summed.append(axis)
    kept = "".join(c for axis, c in enumerate(target) if axis not in summed)
    whole = np.einsum(f"{','.join(terms)}->{kept}", *factors, optimize=optimize)
    return np.reshape(whole, shape)


@rule(np.linalg.inv)
def _inv(a):
    y = np.linalg.inv(a)
    return y, lambda g: -np.matmul(np.matmul(_turned(y), g), _turned(y))


@rule(np.linalg.solve)
def _solve(a, b):
    column = b.ndim == 1
    y = np.linalg.solve(a, b)

    def back(g):
        return np.linalg.solve(_turned(a), g)

    def to_a(g):
        z = back(g)
        return -(z[..., :, None] * y[..., None, :]) if column else -np.matmul(z, _turned(y))

    return y, to_a, back


@rule(np.linalg.det)
def _det(a):
    y = np.linalg.det(a)

    def pull(g):
        if type(a) is not Variable and not y.all():
            return g[..., None, None] * _cofactors(a)
        return (g * y)[..., None, None] * _turned(np.linalg.inv(a))

    return y, pull


def _cofactors(a):
    """Of a = U diag(s) V^T: det U det V times U diag(the product of the other s) V^T, also where a has no inverse."""
    u, s, v = np.linalg.svd(a)
    sign = np.linalg.det(u) * np.linalg.det(v)
    return sign[..., None, None] * np.matmul(u * product_of_others(s, -1)[..., None, :], v)


@composite(np.linalg.slogdet)
def _slogdet(a):
    return np.sign(np.linalg.det(plain(a))), _log_abs_det(a)


@rule("slogdet")
def _log_abs_det(a):
    return np.linalg.slogdet(a)[1], lambda g: g[..., None, None] * _turned(np.linalg.inv(a))


@rule(np.linalg.cholesky)
def _cholesky(a):
    """Murray, "Differentiation of the Cholesky decomposition" (2016), equation 10."""
    y = np.linalg.cholesky(a)

    def pull(g):
        inner = np.tril(np.matmul(_turned(y), g))
        half = inner - 0.5 * inner * np.eye(y.shape[-1], dtype=y.dtype)
        inverse = np.linalg.inv(y)
        s = np.matmul(np.matmul(_turned(inverse), half), inverse)
        return 0.5 * (s + _turned(s))

    return y, pull
