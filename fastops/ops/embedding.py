"""embedding: rows of a table by index. embedding_bag: sums, means or maxima of bags of such rows.

    embedding:     y[i] = w[index[i]]                          dw[v] = sum of dy[i] over index[i] = v
    embedding_bag: y[b] = sum of s[k] w[index[k]] over the k of bag b
                   dw[v] = sum of s[k] dy[b(k)] over index[k] = v,   ds[k] = dy[b(k)] . w[index[k]]
    mean:          s[k] = 1 / the number of entries in its bag
    max:           the gradient goes to the first entry of the bag that is as large as the result

The index alone is needed again for dw, the table for ds and for max. The gradient of the table is always dense; its pages come
from the system as zeros and only the rows that were looked up are ever written.

Source: Bengio, Ducharme, Vincent, Jauvin, "A Neural Probabilistic Language Model", JMLR 3 (2003), section 2; Joulin, Grave,
Bojanowski, Mikolov, "Bag of Tricks for Efficient Text Classification" (2016), for bags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.simd import segments

_MODES = ("sum", "mean", "max")


def _table(op: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise ValueError(f"{op}: weight must have shape (rows, features), got {shape}")


def _padding(op: str, padding_idx: Any, rows: int) -> int | None:
    """The row without a gradient, counted from the start."""
    if padding_idx is None:
        return None
    row = _check.integer(op, "padding_idx", padding_idx, minimum=-rows)
    if row >= rows:
        raise ValueError(f"{op}: padding_idx must be below {rows}, the rows of weight, got {padding_idx}")
    return row % rows


def _renormalise(op: str, index: Array, weight: Any, max_norm: Any, norm_type: Any) -> None:
    """Scale the rows of ``weight`` that are looked up down to a norm of at most ``max_norm``, in place."""
    largest, p = _check.real(op, "max_norm", max_norm), _check.real(op, "norm_type", norm_type)
    if not isinstance(weight, np.ndarray) or not weight.flags.writeable:
        raise ValueError(f"{op}: weight must be a writeable NumPy array when max_norm is given, got {type(weight).__name__}, which cannot be changed")
    rows = np.unique(index)
    values = weight[rows]
    norm = np.linalg.norm(values.astype(np.float64), ord=p, axis=1)
    over = norm > largest
    scale = largest / (norm[over] + 1e-7)
    weight[rows[over]] = values[over] * scale[:, None].astype(weight.dtype)


def _by_frequency(index: Array, rows: int, dtype: Any) -> Array:
    """One over how often each entry of the index occurs in it."""
    return 1 / segments.counts(index, rows, dtype)[index]


@operation
def embedding(
    input: ArrayLike, weight: ArrayLike, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Array:  # fmt: skip
    """Rows of a table by index: ``torch.nn.functional.embedding``.

    Args:
        input: indices of any shape and integer dtype, each in [0, V).
        weight: the table, (V, D).
        padding_idx: a row that gets no gradient; negative counts from the end.
        max_norm: rows that are looked up and have a larger norm are scaled down to it, in ``weight`` itself.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide gradients by how often the index occurs in ``input``.
        sparse: accepted, and without effect: the gradient is dense, with pages that are only made where it is not zero.

    Returns:
        The shape of ``input`` followed by D, of the dtype of weight (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> embedding(np.array([2, 0]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    array([[4., 5.],
           [0., 1.]])
    """
    op = "embedding"
    w = _check.as_array(op, "weight", weight)
    _table(op, w.shape)
    index = segments.indices(op, "input", input)
    if padding_idx is not None:
        _padding(op, padding_idx, w.shape[0])
    segments.in_range(op, "input", index, w.shape[0])
    if max_norm is not None:
        _renormalise(op, index, weight, max_norm, norm_type)
        w = _check.as_array(op, "weight", weight)
    if w.dtype == _check.FLOAT16:  # only moved: two bytes are as good as any others
        return w[index]
    return segments.gather(w, index.reshape(-1)).reshape(*index.shape, w.shape[1])


def embedding_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Array:  # fmt: skip
    """Gradient of :func:`embedding` with respect to its weight, of which only the shape matters.

    >>> import numpy as np
    >>> embedding_backward(np.ones((3, 2)), np.array([2, 0, 2]), np.zeros((3, 2)))
    array([[1., 1.],
           [0., 0.],
           [2., 2.]])
    """
    op = "embedding_backward"
    (dy,), dtype = _check.as_arrays(op, grad_output=grad_output)
    shape = _check.shape_of(op, "weight", weight, dtype)
    _table(op, shape)
    index = segments.indices(op, "input", input)
    padding = _padding(op, padding_idx, shape[0])
    if dy.shape != (*index.shape, shape[1]):
        raise ValueError(f"{op}: grad_output must have the shape of the output, {(*index.shape, shape[1])}, got {dy.shape}")
    segments.in_range(op, "input", index, shape[0])
    index = index.reshape(-1)
    scale = _by_frequency(index, shape[0], dy.dtype) if scale_grad_by_freq else None
    dw = segments.scatter(segments.SUM, index, shape[0], dy.reshape(index.size, shape[1]), weights=scale)
    if padding is not None:
        dw[padding] = 0
    return dw.astype(dtype, copy=False)


@dataclass(frozen=True)
class _Bags:
    """The entries of bags, padding left out: bag b has ``index[starts[b]:starts[b + 1]]``.

    ``entries`` are their places in the flat input; None when nothing was left out.
    """

    index: Array
    starts: Array
    padding: int | None
    entries: Array | None

    @property
    def count(self) -> int:
        return self.starts.size - 1

    def bag(self) -> Array:
        """The bag of each entry."""
        return np.repeat(np.arange(self.count), np.diff(self.starts))

    def pick(self, values: Array) -> Array:
        """What belongs to the entries, of an array like the input."""
        flat = values.reshape(-1)
        return flat[: self.index.size] if self.entries is None else flat[self.entries]


def _bags(op: str, input: Any, rows: int, offsets: Any, mode: str, scale_grad_by_freq: bool, include_last_offset: bool, padding_idx: Any) -> _Bags:
    _check.choice(op, "mode", mode, _MODES)
    if mode == "max" and scale_grad_by_freq:
        raise ValueError(f"{op}: scale_grad_by_freq must be False when mode is 'max', got True")
    index = segments.indices(op, "input", input)
    padding = _padding(op, padding_idx, rows)
    if index.ndim == 2:
        if offsets is not None:
            raise ValueError(f"{op}: offsets must be None when input has two axes (bags, entries), got {offsets!r}")
        starts = np.arange(index.shape[0] + 1) * index.shape[1]
    elif index.ndim == 1:
        if offsets is None:
            raise ValueError(f"{op}: offsets must be given when input has one axis, got None")
        starts = _starts(op, offsets, index.size, include_last_offset)
    else:
        raise ValueError(f"{op}: input must have shape (bags, entries) or (entries,), got {index.shape}")
    segments.in_range(op, "input", index, rows)
    index = index.reshape(-1)[: starts[-1]]
    if padding is None:
        return _Bags(index, starts, None, None)
    kept = index != padding
    before = np.concatenate(([0], np.cumsum(kept)))
    (entries,) = np.nonzero(kept)
    return _Bags(index[entries], before[starts], padding, entries)


def _starts(op: str, offsets: Any, entries: int, include_last_offset: bool) -> Array:
    """Where each bag begins, and where the last one ends."""
    starts = segments.indices(op, "offsets", offsets)
    if starts.ndim != 1 or (include_last_offset and not starts.size):
        raise ValueError(f"{op}: offsets must have shape (bags{' + 1' if include_last_offset else ''},), got {starts.shape}")
    rising = segments.in_range(op, "offsets", starts, entries + 1)
    if starts.size and (starts[0] != 0 or not rising):
        raise ValueError(f"{op}: offsets must begin with 0 and never fall, got {starts}")
    return starts if include_last_offset else np.append(starts, entries if starts.size else 0)


def _sample_weights(op: str, given: Array | None, shape: tuple[int, ...], mode: str) -> None:
    if given is None:
        return
    if mode != "sum":
        raise ValueError(f"{op}: per_sample_weights must be None when mode is {mode!r}: only 'sum' has them")
    if given.shape != shape:
        raise ValueError(f"{op}: per_sample_weights must have the shape of input, {shape}, got {given.shape}")


@operation
def embedding_bag(
    input: ArrayLike, weight: ArrayLike, offsets: ArrayLike | None = None, max_norm: float | None = None, norm_type: float = 2,
    scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, per_sample_weights: ArrayLike | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Array:  # fmt: skip
    """Sums, means or maxima of bags of rows of a table: ``torch.nn.functional.embedding_bag``.

    Args:
        input: indices (B, N): B bags of N; or (N,), the bags one after the other.
        weight: the table, (V, D).
        offsets: where each bag begins in an ``input`` of one axis, (B,); (B + 1,) with ``include_last_offset``.
        max_norm, norm_type, scale_grad_by_freq, sparse: as for :func:`embedding`; no ``scale_grad_by_freq`` with "max".
        mode: "sum", "mean" or "max".
        per_sample_weights: what each row is multiplied with, of the shape of ``input``; with "sum" alone.
        include_last_offset: whether the last of the offsets is the end of the last bag.
        padding_idx: a row that counts for nothing, neither in a bag nor in its mean, and gets no gradient.

    Returns:
        (B, D), zeros for an empty bag, of the dtype of weight (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> embedding_bag(np.array([2, 0, 1]), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), np.array([0, 2]))
    array([[2., 3.],
           [2., 3.]])
    """
    op = "embedding_bag"
    (w, s), dtype = _check.as_arrays(op, weight=weight, per_sample_weights=per_sample_weights, optional="per_sample_weights")
    _table(op, w.shape)
    bags = _bags(op, input, w.shape[0], offsets, mode, scale_grad_by_freq, include_last_offset, padding_idx)
    _sample_weights(op, s, np.shape(input), mode)
    if max_norm is not None:
        _renormalise(op, segments.indices(op, "input", input), weight, max_norm, norm_type)
        ((w,), _) = _check.as_arrays(op, weight=weight)
    if mode == "max":
        y = segments.scatter(segments.MAX, bags.bag(), bags.count, w, source=bags.index)
        y[np.diff(bags.starts) == 0] = 0
    else:
        y = segments.total(bags.starts, bags.index, w, None if s is None else bags.pick(s), mean=mode == "mean")
    return y.astype(dtype, copy=False)


def embedding_bag_backward(
    grad_output: ArrayLike, input: ArrayLike, weight: ArrayLike, offsets: ArrayLike | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: ArrayLike | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
    *, output_mask: tuple[bool, bool] = (True, True), output: ArrayLike | None = None,
) -> tuple[Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`embedding_bag` with respect to its weight and its per_sample_weights.

    Args:
        grad_output: (B, D).
        output_mask: which of the two are wanted; the others are None.
        output: what the forward pass returned, for mode "max"; computed again when it is not given.

    >>> import numpy as np
    >>> embedding_bag_backward(np.ones((2, 1)), np.array([2, 0, 1]), np.zeros((3, 1)), np.array([0, 2]))[0]
    array([[0.5],
           [1. ],
           [0.5]])
    """
    op = "embedding_bag_backward"
    (dy, w, s), dtype = _check.as_arrays(op, grad_output=grad_output, weight=weight, per_sample_weights=per_sample_weights, optional="per_sample_weights")
    _table(op, w.shape)
    rows, features = w.shape
    bags = _bags(op, input, rows, offsets, mode, scale_grad_by_freq, include_last_offset, padding_idx)
    _sample_weights(op, s, np.shape(input), mode)
    if dy.shape != (bags.count, features):
        raise ValueError(f"{op}: grad_output must have the shape of the output, {(bags.count, features)}, got {dy.shape}")
    bag = bags.bag()
    dw = ds = None
    if output_mask[0] and mode == "max":
        y = output
        if y is None:
            y = segments.scatter(segments.MAX, bag, bags.count, w, source=bags.index)
        y = _check.as_array(op, "output", y).astype(w.dtype, copy=False)
        dw, _ = segments.extremum_backward(bag, w, y, dy, source=bags.index, first_only=True)
    elif output_mask[0]:
        factors = None if s is None else bags.pick(s)
        if mode == "mean":
            factors = 1 / np.diff(bags.starts).astype(dy.dtype)[bag]
        if scale_grad_by_freq:
            frequency = _by_frequency(bags.index, rows, dy.dtype)
            factors = frequency if factors is None else factors * frequency
        dw = segments.scatter(segments.SUM, bags.index, rows, dy, source=bag, weights=factors)
    if output_mask[1] and s is not None:
        ds = np.zeros(s.size, s.dtype)
        of_entries = segments.dots(bag, bags.index, dy, w).reshape(-1)
        ds[slice(of_entries.size) if bags.entries is None else bags.entries] = of_entries
        ds = ds.reshape(s.shape)
    return tuple(None if g is None else g.astype(dtype, copy=False) for g in (dw, ds))  # type: ignore[return-value]


def _record_bag(*args: Any, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
    output = embedding_bag(*args, **kwargs)
    return output, {"output": output}


register(embedding, embedding_backward, inputs=("weight",), saved=())
register(
    embedding_bag, embedding_bag_backward, inputs=("weight", "per_sample_weights"), saved=("weight", "per_sample_weights"),
    record=_record_bag,
)  # fmt: skip
