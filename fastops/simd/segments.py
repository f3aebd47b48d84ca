"""Rows gathered and scattered by an index: what embeddings, segment reductions and graph convolutions share.

    gather:  y[e] = x[index[e]]
    scatter: y[d] = the sum, largest, smallest or product of w[e] x[source[e]] over all e with to[e] = d
    total:   the same sum where the e of each d are given as compressed sparse rows

A scatter goes through the index in order and adds each row where it belongs. Several threads have the edges dealt out to them
by ranges of destinations first, so that no two write to the same row, and every sum is taken in the order of the index: the
same bits for any number of threads, without atomics. One thread needs no sorting: 1e6 rows of 64 numbers to 1e5
destinations take 16 ms this way, and 25 with a counting sort into compressed sparse rows (7 of them the sort); rows of one
number take 3 and 15. Threads that share the columns of all rows instead write to the same cache lines and are slower than one.

Source: Blelloch, "Prefix Sums and Their Applications" (1990), on segmented operations; Gustavson, "Two Fast Algorithms for
Sparse Matrices", ACM TOMS 4(3), 1978, on products by rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastops import _check
from fastops._check import Array
from fastops._jit import function, launcher, parallel, separate
from fastops._memory import empty, empty_like
from fastops._threads import threads_for
from fastops.simd.reduce import maximum
from fastops.simd.vector import (
    broadcast,
    element,
    fma,
    lanes,
    larger,
    load,
    load_part,
    outer,
    prefetch,
    smaller,
    splat,
    store,
    store_part,
    store_tile,
    store_tile_part,
    sum_of_lanes,
    tile_fma,
    tile_load_rows_part,
    zero_tile,
)
from fastops.simd.vmath import exp

INDEX = np.dtype(np.intp)
NOTHING = np.empty(0, INDEX)

SUM, MAX, MIN, MUL = range(4)
_IDENTITY = {SUM: 0.0, MAX: -np.inf, MIN: np.inf, MUL: 1.0}

# Elements that make a block of work: some 20 us of one thread.
_BLOCK_ELEMENTS = 1 << 16
_NS_PER_ELEMENT = 0.25
_NS_PER_ROW = 2.0
# Rows of an array beyond the caches are asked for so many rows ahead, and have arrived when they are needed: 1e6 rows of 64
# float32 into 26 MB take 44 ms without and 17 with it, into 2.6 MB 18 and 10.
_AHEAD = 16
# Of long rows that are added up as many as are so many bytes, but not fewer than four: 40000 rows of 128 float32 into 2048 sums on a
# Granite Rapids 1.29 ms by 16 rows, 1.09 by 8.
_BYTES_AHEAD, _LEAST_AHEAD = 1 << 12, 4
_FAR_BYTES = 1 << 20
_LINE_BYTES = 64
# Edges whose weights are written out for all columns at a time.
_RUN = 16

_ONE = {name: np.ones(1, name) for name in ("float32", "float64")}


# ---- indices


@launcher
def _inspect(threads, index, size):
    """Whether every index is in [0, size), and whether none is below its predecessor; both in one pass."""
    outside = np.uintp(0)
    falls = np.uintp(0)
    last = np.uintp(size)
    for i in range(index.size):
        outside |= np.uintp(np.uintp(index[i]) >= last)
    after = index[1:]
    for i in range(index.size - 1):
        falls |= np.uintp(after[i] < index[i])
    return outside == 0, falls == 0


def indices(op: str, name: str, value: Any) -> Array:
    """An array of integers of any shape, C-contiguous, of the machine's index type.

    >>> indices("gather", "index", [[0, 2]])
    array([[0, 2]])
    >>> indices("gather", "index", [0.5])
    Traceback (most recent call last):
    TypeError: gather: index must be an array of integers, got float64
    """
    if type(value) is np.ndarray and value.dtype == INDEX and value.flags.carray:
        return value
    array = _check.to_ndarray(op, name, value, of="integers")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{op}: {name} must be an array of integers, got {array.dtype}")
    if array.dtype.kind == "u" and array.itemsize == 8 and array.size and array.max() > _LARGEST:
        raise ValueError(f"{op}: {name} must hold integers below 2**63, got {array.max()}")
    if array.flags.carray and array.dtype == INDEX:
        return array
    return np.array(array, INDEX, order="C", copy=True)


_LARGEST = np.iinfo(INDEX).max
# Up to so many rows fit into memory or fail for the lack of it; more may overflow.
_MANY = 1 << 31


def in_range(op: str, name: str, index: Array, size: int) -> bool:
    """Every index must be in [0, size); returns whether they never fall.

    >>> in_range("gather", "index", np.array([1, 0]), 2)
    False
    >>> in_range("gather", "index", np.array([1, -3]), 2)
    Traceback (most recent call last):
    ValueError: gather: index must be in [0, 2), got -3
    """
    inside, rising = _inspect(1, index.reshape(-1), size)
    if not inside:
        flat = index.reshape(-1)
        wrong = flat[(flat < 0) | (flat >= size)][0]
        raise ValueError(f"{op}: {name} must be in [0, {size}), got {wrong}")
    return bool(rising)


def count_of(op: str, name: str, given: Any, index: Array, shape: tuple[int, ...], axis: int = 0) -> int:
    """The number of destinations, which the result has along one axis of ``shape``: as given, or one more than the largest index."""
    if given is not None:
        count = _check.integer(op, name, given, minimum=0)
    else:
        count = int(index.max()) + 1 if index.size else 0
    if count > _MANY:
        _check.fits(op, name, "the result", (*shape[:axis], count, *shape[axis + 1 :]), 8)
    return count


def row_starts(op: str, name: str, value: Any, entries: int) -> Array:
    """Checked offsets of compressed sparse rows: from 0 to ``entries``, never falling.

    >>> row_starts("spmm", "indptr", [0, 2, 1], 2)
    Traceback (most recent call last):
    ValueError: spmm: indptr must rise from 0 to 2, the number of entries, got [0 2 1]
    """
    starts = indices(op, name, value)
    if starts.ndim != 1 or not starts.size:
        raise ValueError(f"{op}: {name} must have shape (rows + 1,), got {starts.shape}")
    inside, rising = _inspect(1, starts, entries + 1)
    if not (inside and rising and starts[0] == 0 and starts[-1] == entries):
        raise ValueError(f"{op}: {name} must rise from 0 to {entries}, the number of entries, got {starts}")
    return starts


# ---- gather


@separate
def _gather_block(block, worker, rows, far, index, scale, x, y):
    """y[e] = scale[index[e]] x[index[e]] for a block of e; x (J, F), scale (J,) or empty, y (E, F)."""
    F = x.shape[1]
    nv, line = lanes(x), _LINE_BYTES // x.itemsize
    one = x.dtype.type(1)
    for e in range(block * rows, min((block + 1) * rows, index.size)):
        if far:
            ahead = element(index, min(e + _AHEAD, index.size - 1)) * F
            for c in range(0, F, line):
                prefetch(x, ahead + c)
        j = element(index, e)
        factor = splat(x, element(scale, j) if scale.size else one)
        c = 0
        while c + nv <= F:
            store(y, e * F + c, factor * load(x, j * F + c))
            c += nv
        if c < F:
            store_part(y, e * F + c, factor * load_part(x, j * F + c, F - c), F - c)


@launcher
def _gather(threads, rows, far, index, scale, x, y):
    parallel(_gather_block, (index.size + rows - 1) // rows, threads, (rows, far, index, scale, x, y))


def _threads(elements: int, rows: int) -> int:
    return threads_for(elements * _NS_PER_ELEMENT + rows * _NS_PER_ROW)


def gather(x: Array, index: Array, scale: Array | None = None) -> Array:
    """Rows of x (J, F) by a checked index (E,): (E, F); ``scale`` (J,) multiplies them."""
    F = x.shape[1]
    y = empty((index.size, F), x.dtype)
    if y.size:
        rows = max(1, _BLOCK_ELEMENTS // F)
        _gather(_threads(y.size, index.size), rows, x.nbytes > _FAR_BYTES, index, x.ravel()[:0] if scale is None else scale, x, y)
    return y


# ---- scatter


@function
def _combined(kind, before, value):
    """The vector ``before`` with ``value`` taken in."""
    if kind == MAX:
        return larger(before, value)
    if kind == MIN:
        return smaller(before, value)
    return before * value


@launcher
def _deal(threads, to, destinations, order, bounds):
    """Deals the edges out by ranges of destinations, in order within a range: hand b is order[bounds[b] : bounds[b + 1]]."""
    hands = bounds.size - 1
    each = hands / destinations
    bounds[:] = 0
    for e in range(to.size):
        bounds[np.uintp(min(np.intp(to[e] * each), hands - 1) + 1)] += 1
    for b in range(hands):
        bounds[b + 1] += bounds[b]
    place = bounds[:-1].copy()
    for e in range(to.size):
        hand = np.uintp(min(np.intp(to[e] * each), hands - 1))
        order[np.uintp(place[hand])] = e
        place[hand] += 1


@function
def _edge(order, k):
    return element(order, k) if order.size else k


@function
def _widen(weights, order, k, count, heads, width, wide, at):
    """wide[at + i * heads * width + f] = the weight in column f of the edge at k + i, i < count; writes a vector too far."""
    nv = lanes(wide)
    for i in range(count):
        e = _edge(order, k + i)
        for head in range(heads):
            weight = broadcast(weights, e * heads + head)
            for c in range(at, at + width, nv):
                store(wide, c, weight)  # what is beyond the head is overwritten by the next one
            at += width


@separate
def _scatter_block(block, worker, bounds, order, kind, far_x, far_y, to, source, weights, step, heads, wide, x, y):
    """y[to[e]] (D, F) takes in w x[source[e]], for the edges e of one hand in order.

    order: empty where there is one hand; source: empty where it is e itself. Edge e weighs weights[e * step + head] in the
    columns of a head; with step 0 all weigh the same. wide (workers, ...) has room for the weights of _RUN edges in all
    columns. Offsets instead of slices of rows: a slice takes longer than a short row.
    """
    F = x.shape[1]
    nv, line = lanes(x), _LINE_BYTES // x.itemsize
    whole = F // nv * nv
    rest = F - whole
    first, end = bounds[block], bounds[block + 1]
    own = worker * wide.shape[1]
    for k in range(first, end):
        if far_x or far_y:
            e = _edge(order, min(k + _AHEAD, end - 1))
            a, b = (element(source, e) if source.size else e) * F, element(to, e) * F
            for c in range(0, F, line):
                if far_x:
                    prefetch(x, a + c)
                if far_y:
                    prefetch(y, b + c)
        e = _edge(order, k)
        a, b = (element(source, e) if source.size else e) * F, element(to, e) * F
        if heads > 1:
            run = (k - first) % _RUN
            # for several edges ahead of their use: what was just written in pieces cannot be read at once
            if run == 0:
                _widen(weights, order, k, min(_RUN, end - k), heads, F // heads, wide, own)
            at = own + run * F
            for c in range(0, whole, nv):
                store(y, b + c, fma(load(wide, at + c), load(x, a + c), load(y, b + c)))
            if rest:
                part = fma(load_part(wide, at + whole, rest), load_part(x, a + whole, rest), load_part(y, b + whole, rest))
                store_part(y, b + whole, part, rest)
            continue
        w = broadcast(weights, e * step)
        if kind == SUM:
            for c in range(0, whole, nv):
                store(y, b + c, fma(w, load(x, a + c), load(y, b + c)))
            if rest:
                store_part(y, b + whole, fma(w, load_part(x, a + whole, rest), load_part(y, b + whole, rest)), rest)
        else:
            for c in range(0, whole, nv):
                store(y, b + c, _combined(kind, load(y, b + c), w * load(x, a + c)))
            if rest:
                part = _combined(kind, load_part(y, b + whole, rest), w * load_part(x, a + whole, rest))
                store_part(y, b + whole, part, rest)


@function
def _taken_in(kind, before, value):
    """As _combined, of numbers, and for SUM too."""
    if kind == SUM:
        return before + value
    if kind == MAX:
        return maximum(before, value)
    if kind == MIN:
        return -maximum(-before, -value)
    return before * value


@separate
def _scatter_narrow_block(block, worker, kind, far_x, far_y, to, source, weights, step, heads, x, y):
    """As _scatter_block, where rows are shorter than a vector: stores of parts of vectors take twice as long."""
    F = x.shape[1]
    width = F // heads
    last = to.size - 1
    for e in range(to.size):
        if far_y:
            prefetch(y, element(to, min(e + _AHEAD, last)) * F)
        if far_x:
            prefetch(x, element(source, min(e + _AHEAD, last)) * F)
        a = x[np.uintp(source[e]) if source.size else np.uintp(e)]
        b = y[np.uintp(to[e])]
        for head in range(heads):
            w = weights[np.uintp(e * step + head)]
            for f in range(head * width, (head + 1) * width):
                u = np.uintp(f)
                b[u] = _taken_in(kind, b[u], w * a[u])


@launcher
def _scatter(threads, bounds, order, kind, far_x, far_y, to, source, weights, step, heads, wide, x, y):
    if x.shape[1] < lanes(x):
        parallel(_scatter_narrow_block, 1, threads, (kind, far_x, far_y, to, source, weights, step, heads, x, y))
    else:
        parallel(_scatter_block, bounds.size - 1, threads, (bounds, order, kind, far_x, far_y, to, source, weights, step, heads, wide, x, y))


def _columns(threads: int, width: int, itemsize: int) -> int:
    """Columns for a thread: whole cache lines, and enough of them for the lines that two threads share not to count."""
    line = _LINE_BYTES // itemsize
    return max(-(-width // (line * threads)), 16) * line


def scatter(kind: int, to: Array, destinations: int, x: Array, source: Array | None = None, weights: Array | None = None) -> Array:
    """The sum (``kind`` SUM), largest, smallest or product of the rows of x that go to each destination: (destinations, F).

    A destination without any gets 0, -inf, inf or 1. NaN goes through.

    Args:
        kind: SUM, MAX, MIN or MUL.
        to: (E,), checked.
        destinations: how many there are.
        x: (J, F).
        source: (E,), checked: which row of x; the row number e itself when None.
        weights: (E,), or (E, heads) where F is heads times a width: what the rows are multiplied with.
    """
    F = x.shape[1]
    identity = _IDENTITY[kind]
    # zeros that nothing is added to are never touched: of a large gradient with few rows most pages are never made
    y = np.zeros((destinations, F), x.dtype) if kind == SUM else np.full((destinations, F), identity, x.dtype)
    if not to.size or not y.size:
        return y
    if weights is None:
        weights, step, heads = _ONE[x.dtype.name], 0, 1
    else:
        step = heads = weights.shape[1] if weights.ndim == 2 else 1
        weights = weights.reshape(-1)
    threads = _threads(to.size * F, to.size)
    bounds, order = np.array([0, to.size]), NOTHING
    # dealt edges no longer read x from front to back: where they did, fewer than four threads gain nothing
    if threads > (1 if source is not None else 3) and F * x.itemsize >= _LINE_BYTES:
        bounds, order = empty(threads + 1, INDEX), empty(to.size, INDEX)
        _deal(1, to, destinations, order, bounds)
    wide = empty((threads, _RUN * F + _LINE_BYTES), x.dtype) if heads > 1 else y[:0]
    far_x = x.nbytes > _FAR_BYTES and (source is not None or order.size > 0)
    far_y = y.nbytes > _FAR_BYTES
    source = NOTHING if source is None else source
    _scatter(threads, bounds, order, kind, far_x, far_y, to, source, weights, step, heads, wide, x, y)
    return y


def counts(to: Array, destinations: int, dtype: Any) -> Array:
    """How many e have to[e] = d, for each d: (destinations,)."""
    return np.bincount(to, minlength=destinations).astype(dtype)


@separate
def _count_ties(block, worker, columns, to, source, weights, step, x, y, ties):
    """ties[d, f]: how many of the numbers that go to d are y[d, f]; arguments as of _scatter_block, heads 1."""
    first, end = block * columns, min((block + 1) * columns, x.shape[1])
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for e in range(to.size):
        d = np.uintp(to[e])
        a, b, t = x[np.uintp(source[e]) if source.size else np.uintp(e)], y[d], ties[d]
        w = weights[e * step]
        for f in range(first, end):
            c = np.uintp(f)
            t[c] += one if w * a[c] == b[c] else zero


@separate
def _select_block(block, worker, columns, first_only, to, source, weights, step, x, y, shares, dx):
    """dx[source[e]] += w shares[to[e]] where w x[source[e]] is y[to[e]]; or where it is so for the first time."""
    first, end = block * columns, min((block + 1) * columns, x.shape[1])
    zero = x.dtype.type(0)
    for e in range(to.size):
        d, j = np.uintp(to[e]), np.uintp(source[e]) if source.size else np.uintp(e)
        a, b, share, da = x[j], y[d], shares[d], dx[j]
        w = weights[e * step]
        for f in range(first, end):
            c = np.uintp(f)
            found = w * a[c] == b[c]
            da[c] += w * share[c] if found else zero
            share[c] = zero if found and first_only else share[c]


@launcher
def _extremum_backward(threads, blocks, columns, first_only, to, source, weights, step, x, y, dy, shares, dx):
    """shares (D, F), zero so far: becomes dy, or dy divided by the number of ties."""
    if not first_only:
        parallel(_count_ties, blocks, threads, (columns, to, source, weights, step, x, y, shares))
    one = x.dtype.type(1)
    for d in range(y.shape[0]):
        share, gradient = shares[d], dy[d]
        for f in range(y.shape[1]):
            share[f] = gradient[f] / maximum(share[f], one)
    parallel(_select_block, blocks, threads, (columns, first_only, to, source, weights, step, x, y, shares, dx))


def extremum_backward(
    to: Array, x: Array, y: Array, dy: Array, source: Array | None = None, weights: Array | None = None, first_only: bool = False
) -> tuple[Array, Array]:
    """The gradient of x where y = scatter(MAX or MIN, ...), and dy / ties.

    Numbers that tie for the largest share its gradient evenly, or the first of them gets it all.
    """
    dx, shares = np.zeros_like(x), np.zeros_like(y)
    if to.size and x.size and y.size:
        F = x.shape[1]
        threads = _threads(2 * to.size * F, to.size)
        columns = _columns(threads, F, x.itemsize)
        w, step = (_ONE[x.dtype.name], 0) if weights is None else (weights, 1)
        _extremum_backward(threads, -(-F // columns), columns, first_only, to, NOTHING if source is None else source, w, step, x, y, dy, shares, dx)
    return dx, shares


@separate
def _product_backward_block(block, worker, columns, to, x, run, dy, dx):
    """dx[e] = dy[to[e]] times the x of all others that go there: of those before e, then of those behind it.

    No division, so zeros need no care. run (D, F): ones.
    """
    first, end = block * columns, min((block + 1) * columns, x.shape[1])
    for e in range(to.size):
        a, product, da = x[e], run[np.uintp(to[e])], dx[e]
        for f in range(first, end):
            c = np.uintp(f)
            da[c] = product[c]
            product[c] *= a[c]
    for d in range(run.shape[0]):
        product, gradient = run[d], dy[d]
        for f in range(first, end):
            product[np.uintp(f)] = gradient[np.uintp(f)]
    for i in range(to.size):
        back = np.uintp(to.size - 1 - i)
        a, product, da = x[back], run[np.uintp(to[back])], dx[back]
        for f in range(first, end):
            c = np.uintp(f)
            da[c] *= product[c]
            product[c] *= a[c]


@launcher
def _product_backward(threads, blocks, columns, to, x, run, dy, dx):
    parallel(_product_backward_block, blocks, threads, (columns, to, x, run, dy, dx))


def product_backward(to: Array, x: Array, dy: Array) -> Array:
    """The gradient of x (E, F) where y = scatter(MUL, to, ...)."""
    dx = empty_like(x)
    if dx.size:
        F = x.shape[1]
        threads = _threads(4 * x.size, to.size)
        columns = _columns(threads, F, x.itemsize)
        _product_backward(threads, -(-F // columns), columns, to, x, np.ones_like(dy), dy, dx)
    return dx


# ---- softmax over the rows of a destination


@separate
def _exp_block(block, worker, rows, to, x, largest, y):
    """y[e] = exp(x[e] - largest[to[e]]) for a block of e; all (..., F)."""
    first, end = block * rows, min((block + 1) * rows, to.size)
    F = x.shape[1]
    for e in range(first, end):
        a, b, out = x[e], largest[np.uintp(to[e])], y[e]
        for f in range(F):
            out[f] = a[f] - b[f]
    # one loop over the whole block: rows are often shorter than a vector
    flat = y.reshape(-1)[first * F : end * F]
    for i in range(flat.size):
        flat[i] = exp(flat[i])


@separate
def _divide_block(block, worker, rows, to, total, y):
    """y[e] /= total[to[e]] for a block of e."""
    for e in range(block * rows, min((block + 1) * rows, to.size)):
        out, divisor = y[e], total[np.uintp(to[e])]
        for f in range(out.size):
            out[f] /= divisor[f]


@launcher
def _exp(threads, rows, to, x, largest, y):
    parallel(_exp_block, (to.size + rows - 1) // rows, threads, (rows, to, x, largest, y))


@launcher
def _divide(threads, rows, to, total, y):
    parallel(_divide_block, (to.size + rows - 1) // rows, threads, (rows, to, total, y))


def softmax(to: Array, destinations: int, x: Array) -> Array:
    """exp(x[e]) over its sum for all rows with the same destination, column by column: (E, F)."""
    y = empty_like(x)
    if y.size:
        rows, threads = max(1, _BLOCK_ELEMENTS // x.shape[1]), _threads(4 * x.size, to.size)
        _exp(threads, rows, to, x, scatter(MAX, to, destinations, x), y)
        _divide(threads, rows, to, scatter(SUM, to, destinations, y), y)
    return y


@separate
def _dot_columns(block, worker, columns, to, a, b, total):
    """total[to[e]] += a[e] b[e], for all e in order, in some columns."""
    F, nv = a.shape[1], lanes(a)
    end = min((block + 1) * columns, F)
    for e in range(to.size):
        at, d = e * F, element(to, e) * F
        c = block * columns
        while c + nv <= end:
            store(total, d + c, fma(load(a, at + c), load(b, at + c), load(total, d + c)))
            c += nv
        if c < end:
            part = fma(load_part(a, at + c, end - c), load_part(b, at + c, end - c), load_part(total, d + c, end - c))
            store_part(total, d + c, part, end - c)


@separate
def _softmax_backward_block(block, worker, rows, to, y, dy, total, dx):
    """dx[e] = y[e] (dy[e] - total[to[e]]) for a block of e."""
    for e in range(block * rows, min((block + 1) * rows, to.size)):
        out, p, gradient, mean = dx[e], y[e], dy[e], total[np.uintp(to[e])]
        for f in range(out.size):
            out[f] = p[f] * (gradient[f] - mean[f])


@launcher
def _softmax_backward(threads, blocks, columns, rows, to, y, dy, total, dx):
    parallel(_dot_columns, blocks, threads, (columns, to, y, dy, total))
    parallel(_softmax_backward_block, (to.size + rows - 1) // rows, threads, (rows, to, y, dy, total, dx))


def softmax_backward(to: Array, destinations: int, y: Array, dy: Array) -> Array:
    """The gradient of x where y = softmax(to, destinations, x)."""
    dx = empty_like(y)
    if dx.size:
        F = y.shape[1]
        threads = _threads(2 * y.size, to.size)
        columns = _columns(threads, F, y.itemsize)
        total = np.zeros((destinations, F), y.dtype)
        _softmax_backward(threads, -(-F // columns), columns, max(1, _BLOCK_ELEMENTS // F), to, y, dy, total, dx)
    return dx


# ---- products of pairs of rows


@separate
def _dots_block(block, worker, entries, rows, columns, a, b, width, out):
    """out[k, head] = a[rows[k]] . b[columns[k]] over the columns of a head; out (entries, heads) flat, a and b flat."""
    heads = out.size // rows.size
    nv = lanes(a)
    whole = width // nv * nv
    rest = width - whole
    for k in range(block * entries, min((block + 1) * entries, rows.size)):
        i, j = element(rows, k) * heads * width, element(columns, k) * heads * width
        for head in range(heads):
            total = load_part(a, i, 0)
            for c in range(0, whole, nv):
                total = fma(load(a, i + c), load(b, j + c), total)
            if rest:
                total = fma(load_part(a, i + whole, rest), load_part(b, j + whole, rest), total)
            out[np.uintp(k * heads + head)] = sum_of_lanes(total)
            i += width
            j += width


@launcher
def _dots(threads, entries, rows, columns, a, b, width, out):
    parallel(_dots_block, (rows.size + entries - 1) // entries, threads, (entries, rows, columns, a, b, width, out))


def dots(rows: Array, columns: Array, a: Array, b: Array, heads: int = 1) -> Array:
    """a[rows[k]] . b[columns[k]] for each k, head by head: (E, heads); a (M, F), b (N, F), indices checked."""
    out = np.zeros((rows.size, heads), a.dtype)
    F = a.shape[1]
    if out.size and F:
        _dots(_threads(rows.size * F, rows.size), max(1, _BLOCK_ELEMENTS // F), rows, columns, a.reshape(-1), b.reshape(-1), F // heads, out.reshape(-1))
    return out


# ---- compressed sparse rows


@function
def _first_row(starts, target):
    """The first row d with starts[d] + d >= target: blocks hold equal numbers of entries and rows together, whole rows each."""
    low, high = 0, starts.size - 1
    while low < high:
        middle = (low + high) >> 1
        if starts[middle] + middle < target:
            low = middle + 1
        else:
            high = middle
    return low


def _tile_of(vectors: int) -> Any:
    """A function that computes so many vectors of a row of y."""

    @function
    def add(begin, end, far, source, weights, step, x, F, c, y, at):
        nv = lanes(x)
        last = source.size - 1
        tile = zero_tile(x, 1, vectors)
        for k in range(begin, end):
            if far > 0:
                ahead = element(source, min(k + far, last)) * F + c
                for line in range(vectors):
                    prefetch(x, ahead + line * nv)
                prefetch(x, ahead + vectors * nv - 1)  # in a line of its own unless rows begin with one
            tile = outer(tile, weights, k * step, 0, x, element(source, k) * F + c)
        store_tile(y, at, 0, tile)

    return add


def _end_of(vectors: int) -> Any:
    """As ``_tile_of``, of the end of a row, which fills the last vectors in part or not at all."""

    @function
    def add(begin, end, far, source, weights, step, x, F, c, y, at):
        tile = zero_tile(x, 1, vectors)
        last = source.size - 1
        for k in range(begin, end):
            if far > 0:
                ahead = element(source, min(k + far, last)) * F + c
                for line in range(vectors):
                    prefetch(x, ahead + line * lanes(x))
                prefetch(x, ahead + F - c - 1)
            part = tile_load_rows_part(tile, x, element(source, k) * F + c, 0, F - c)
            tile = tile_fma(tile, part, broadcast(weights, k * step))
        store_tile_part(y, at, 0, tile, F - c)

    return add


# All that is left at once: 40000 rows of 50 float32 0.32 ms a vector at a time, so 0.24.
_end_of_four, _end_of_two, _end_of_one = _end_of(4), _end_of(2), _end_of(1)
# 40000 rows of 128 float32 into 2048 sums: 390 us in tiles of 8 vectors, 450 of 4
_eight_vectors, _four_vectors = _tile_of(8), _tile_of(4)


@separate
def _total_block(block, worker, starts, source, weights, step, mean, work, far, x, y):
    """A block of rows of y (D, F): the weighted sums of rows of x (J, F), or their means; rows are asked for ``far`` ahead."""
    F = x.shape[1]
    nv = lanes(x)
    for d in range(_first_row(starts, work * block), _first_row(starts, work * (block + 1))):
        begin, end = starts[d], starts[d + 1]
        if begin == end:
            y[d] = x.dtype.type(0)
            continue
        c = 0
        while c + 8 * nv <= F:
            _eight_vectors(begin, end, far, source, weights, step, x, F, c, y, d * F + c)
            c += 8 * nv
        if c + 4 * nv <= F:
            _four_vectors(begin, end, far, source, weights, step, x, F, c, y, d * F + c)
            c += 4 * nv
        if F - c > 2 * nv:
            _end_of_four(begin, end, far, source, weights, step, x, F, c, y, d * F + c)
        elif F - c > nv:
            _end_of_two(begin, end, far, source, weights, step, x, F, c, y, d * F + c)
        elif F > c:
            _end_of_one(begin, end, far, source, weights, step, x, F, c, y, d * F + c)
        if mean:
            row, count = y[d], x.dtype.type(end - begin)
            for f in range(F):
                row[f] /= count


@launcher
def _total(threads, blocks, starts, source, weights, step, mean, work, far, x, y):
    parallel(_total_block, blocks, threads, (starts, source, weights, step, mean, work, far, x, y))


def total(starts: Array, source: Array, x: Array, weights: Array | None = None, mean: bool = False) -> Array:
    """y[d] = the sum of w[k] x[source[k]] over starts[d] <= k < starts[d + 1], or that over their number: (D, F).

    Here threads share rows, and running sums stay in registers.
    """
    F, D = x.shape[1], starts.size - 1
    if not source.size:
        return np.zeros((D, F), x.dtype)
    y = empty((D, F), x.dtype)  # from fresh pages, as zeros come, 2048 sums of 128 would take 0.1 ms longer
    if y.size:
        work = max(1, _BLOCK_ELEMENTS // F)
        blocks = -(-(source.size + D) // work)
        w, step = (_ONE[x.dtype.name], 0) if weights is None else (weights, 1)
        far = min(_AHEAD, max(_LEAST_AHEAD, _BYTES_AHEAD // (F * x.itemsize))) if x.nbytes > _FAR_BYTES else 0
        _total(_threads(source.size * F, source.size), blocks, starts, source, w, step, mean, work, far, x, y)
    return y
