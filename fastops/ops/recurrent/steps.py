"""Steps through time, forward and backward, for one layer in one direction.

With x_t W_ih^T and the biases computed before, for all steps by one product or, where that would not stay in cache, for each as it comes, a step is

    LSTM:  i, f, g, o = sigma, sigma, tanh, sigma of (x part + h W_hh^T);  c' = f c + i g;  h' = o tanh c' (times W_hr^T)
    GRU:   r, z = sigma of (x part + h W_hh^T);  n = tanh(x part + r (h W_hn^T + b_hn));  h' = (1 - z) n + z h
    RNN:   h' = tanh or relu of (x part + h W_hh^T)

Rows of a batch do not meet: a block is some rows through all steps, and threads never wait for one another. The product adds
itself to the x part where that lies, and one pass turns the sums into gates in place; these, the cell states and (GRU) the
part of n that r multiplies are what is kept. W_hh is packed once; a single step is ``one_step.py``'s, backward ``gemm``'s, which shares
its product out by columns: rnn_cell of 32x128 and 256, a single block of rows, took 0.12 ms on any number of threads.

Backward, from the last step to the first, the gradient of the sums is written for all steps, so that the gradients of x, of
the weights and of the biases are one product each afterwards. Sources: Hochreiter, Schmidhuber, "Long Short-Term Memory"
(1997); Gers et al., "Learning to Forget" (2000); Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder"
(2014); Sak et al., "Long Short-Term Memory Based Recurrent Neural Network Architectures" (2014) for W_hr.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastops._check import Array
from fastops._jit import call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.ops.recurrent.gates import gru_gates, lstm_gates, rnn_state
from fastops.ops.recurrent.one_step import one_step
from fastops.simd.blocking import NAMES, panel_width
from fastops.simd.finish import NO_ACTIVATION
from fastops.simd.gemm import gemm, projected
from fastops.simd.pack import pack_panels
from fastops.simd.prepacked import pack_right, packed_rows, packed_size
from fastops.simd.product import block_product
from fastops.simd.random import bits32
from fastops.simd.reduce import sum_axis
from fastops.simd.rows import assign
from fastops.simd.vector import lanes
from fastops.simd.vmath import tanh
from fastops.simd.workspace import scratch

# Rows of a batch that a block takes through time: more would push each other out of L2.
_ROWS = 64
# Rows of a batch from which on each step multiplies its own x, and bytes of sums: beyond L2 they would come back from memory for every step.
_ROWS_OF_A_STEP, _FAR_SUMS = 8, 1 << 20


@function
def _panels(packed, depth, columns):
    """Elements of a packed matrix."""
    width = 2 * lanes(packed)
    return (columns + width - 1) // width * width * depth


@function
def _x_part(x, w_ih, bias, at, sums, own, count, columns):
    """sums[own ...] = x[at ...] W_ih^T + bias, for so many rows of a step; nothing where that has been done for all steps."""
    if w_ih.size > 0:
        depth = w_ih.size // ((columns + 2 * lanes(w_ih) - 1) // (2 * lanes(w_ih)) * 2 * lanes(w_ih))
        call(packed_rows, (count, columns, depth, x, at * depth, depth, w_ih, 0, bias, 0, sums, own * columns, columns, NO_ACTIVATION))


@separate
def _lstm_rows(block, worker, sizes, apart, rows, reverse, x, w_ih, bias, sums, cells, raw, w, w_hr, state, cell, lengths, out, out0, out_row):
    """sums (T, N, 4 H) become gates; cells (T, N, H); state (N, P) and cell (N, H) go from the first to the last.

    Steps are ``apart`` rows apart in what is kept: 0 where one writes over the one before, since no gradient will ask.
    """
    T, N, H, P = sizes
    width, n0 = 2 * lanes(w), block * rows
    count = min(rows, N - n0)
    for step in range(T):
        t = T - 1 - step if reverse else step
        at, own, to = t * N + n0, t * apart + n0, out0 + (t * N + n0) * out_row
        _x_part(x, w_ih, bias, at, sums, own, count, 4 * H)
        block_product(count, 4 * H, P, state, n0 * P, P, 1, w, 0, width, width * P, sums, own * 4 * H, 4 * H, True)
        for i in range(count):
            hidden = raw[(own + i) * H : (own + i + 1) * H] if w_hr.size else out[to + i * out_row : to + i * out_row + H]
            c, c_next = cell[(n0 + i) * H : (n0 + i + 1) * H], cells[(own + i) * H : (own + i + 1) * H]
            row = sums[(own + i) * 4 * H : (own + i + 1) * 4 * H]
            lstm_gates(row[:H], row[H : 2 * H], row[2 * H : 3 * H], row[3 * H :], c, c_next, hidden)
            if t < lengths[n0 + i]:
                assign(c, c_next)
        if w_hr.size:
            block_product(count, P, H, raw, own * H, H, 1, w_hr, 0, width, width * H, out, to, out_row, False)
        _keep_states(out, to, out_row, state, n0, count, P, lengths, t)


@separate
def _gru_rows(block, worker, sizes, apart, rows, reverse, x, w_ih, bias, sums, inner, b_hn, w, w_n, state, lengths, out, out0, out_row):
    """sums (T, N, 3 H) become gates; inner (T, N, H) = h W_hn^T + b_hn; state (N, H) goes from the first to the last."""
    T, N, H, _ = sizes
    width, n0 = 2 * lanes(w), block * rows
    count = min(rows, N - n0)
    for step in range(T):
        t = T - 1 - step if reverse else step
        at, own, to = t * N + n0, t * apart + n0, out0 + (t * N + n0) * out_row
        _x_part(x, w_ih, bias, at, sums, own, count, 3 * H)
        for i in range(count):
            row = inner[(own + i) * H : (own + i + 1) * H]
            if b_hn.size:
                assign(row, b_hn)
            else:
                row[:] = w.dtype.type(0)
        block_product(count, 2 * H, H, state, n0 * H, H, 1, w, 0, width, width * H, sums, own * 3 * H, 3 * H, True)
        block_product(count, H, H, state, n0 * H, H, 1, w_n, 0, width, width * H, inner, own * H, H, True)
        for i in range(count):
            row, hidden = sums[(own + i) * 3 * H : (own + i + 1) * 3 * H], out[to + i * out_row : to + i * out_row + H]
            kept, part = state[(n0 + i) * H : (n0 + i + 1) * H], inner[(own + i) * H : (own + i + 1) * H]
            gru_gates(row[:H], row[H : 2 * H], row[2 * H :], kept, part, hidden)
        _keep_states(out, to, out_row, state, n0, count, H, lengths, t)


@separate
def _rnn_rows(block, worker, sizes, apart, rows, reverse, x, w_ih, bias, sums, relu, w, state, lengths, out, out0, out_row):
    """sums (T, N, H); state (N, H) goes from the first to the last."""
    T, N, H, _ = sizes
    width, n0 = 2 * lanes(w), block * rows
    count = min(rows, N - n0)
    for step in range(T):
        t = T - 1 - step if reverse else step
        at, own, to = t * N + n0, t * apart + n0, out0 + (t * N + n0) * out_row
        _x_part(x, w_ih, bias, at, sums, own, count, H)
        block_product(count, H, H, state, n0 * H, H, 1, w, 0, width, width * H, sums, own * H, H, True)
        for i in range(count):
            rnn_state(sums[(own + i) * H : (own + i + 1) * H], relu, out[to + i * out_row : to + i * out_row + H])
        _keep_states(out, to, out_row, state, n0, count, H, lengths, t)


@function
def _keep_states(out, to, out_row, state, n0, count, size, lengths, t):
    """Rows that are still inside their sequences take their new states; others keep theirs, and their output is 0."""
    for i in range(count):
        row = out[to + i * out_row : to + i * out_row + size]
        if t < lengths[n0 + i]:
            assign(state[(n0 + i) * size : (n0 + i + 1) * size], row)
        else:
            row[:] = out.dtype.type(0)


@function
def _pack(threads, w, w0, row, col, depth, columns, packed):
    parallel(pack_panels, (columns + 2 * lanes(w) - 1) // (2 * lanes(w)), threads, (w, w0, row, col, depth, columns, packed))


@launcher
def _lstm(threads, sizes, apart, rows, reverse, x, w_ih, bias, sums, cells, raw, w_hh, w_hr, packed, state, cell, lengths, out, out0, out_row):
    _, N, H, P = sizes
    own = packed[: _panels(packed, P, 4 * H)]
    other = packed[own.size : own.size + (_panels(packed, H, P) if w_hr.size else 0)]
    _pack(threads, w_hh, 0, 1, P, P, 4 * H, own)
    if w_hr.size:
        _pack(threads, w_hr, 0, 1, H, H, P, other)
    arguments = (sizes, apart, rows, reverse, x, w_ih, bias, sums, cells, raw, own, other, state, cell, lengths, out, out0, out_row)
    parallel(_lstm_rows, (N + rows - 1) // rows, threads, arguments)


@launcher
def _gru(threads, sizes, apart, rows, reverse, x, w_ih, bias, sums, inner, b_hn, w_hh, packed, state, lengths, out, out0, out_row):
    _, N, H, _ = sizes
    own, other = packed[: _panels(packed, H, 2 * H)], packed[_panels(packed, H, 2 * H) :]
    _pack(threads, w_hh, 0, 1, H, H, 2 * H, own)
    _pack(threads, w_hh, 2 * H * H, 1, H, H, H, other)
    arguments = (sizes, apart, rows, reverse, x, w_ih, bias, sums, inner, b_hn, own, other, state, lengths, out, out0, out_row)
    parallel(_gru_rows, (N + rows - 1) // rows, threads, arguments)


@launcher
def _rnn(threads, sizes, apart, rows, reverse, x, w_ih, bias, sums, relu, w_hh, packed, state, lengths, out, out0, out_row):
    _, N, H, _ = sizes
    _pack(threads, w_hh, 0, 1, H, H, H, packed)
    parallel(_rnn_rows, (N + rows - 1) // rows, threads, (sizes, apart, rows, reverse, x, w_ih, bias, sums, relu, packed, state, lengths, out, out0, out_row))


# ---- backward


@function
def _earlier(out, to, out_row, first, h0, n, size, t, N, reverse, kept):
    """kept = the state before step t of row n: an output of the step before, or the initial state."""
    if first:
        assign(kept, h0[n * size : (n + 1) * size])
    else:
        before = to + (N if reverse else -N) * out_row
        assign(kept, out[before : before + size])


@function
def _add_row(total, x, start):
    part = x[start : start + total.size]
    for j in range(total.size):
        total[j] += part[j]


@function
def _lstm_gate_gradients(gates, H, c, c_next, dh, dc, d):
    """d: gradients of the sums; dc: from the gradient of c_next to that of c."""
    i, f, g, o = gates[:H], gates[H : 2 * H], gates[2 * H : 3 * H], gates[3 * H : 4 * H]
    di, df, dg, do = d[:H], d[H : 2 * H], d[2 * H : 3 * H], d[3 * H : 4 * H]
    for j in range(H):
        y = tanh(c_next[j])
        do[j] = dh[j] * y * o[j] * (1 - o[j])
        dc[j] += dh[j] * o[j] * (1 - y * y)
    for j in range(H):
        di[j] = dc[j] * g[j] * i[j] * (1 - i[j])
        df[j] = dc[j] * c[j] * f[j] * (1 - f[j])
        dg[j] = dc[j] * i[j] * (1 - g[j] * g[j])
        dc[j] *= f[j]


@separate
def _lstm_rows_backward(
    block, worker, sizes, rows, reverse, gates, cells, c0, w, w_hr, h0, lengths, out, out0, out_row, dout, dstate, dcell, dsums,
    dhidden, draw, earlier,
):  # fmt: skip
    """dsums (T, N, 4 H), earlier (T, N, P); dstate (N, P) and dcell (N, H) go from those of the last to those of the first.

    With W_hr: dhidden (T, N, P) is the gradient of the projected states, and draw (N, H) that of the states before.
    """
    T, N, H, P = sizes
    width, n0 = 2 * lanes(w), block * rows
    count = min(rows, N - n0)
    for step in range(T):
        t = step if reverse else T - 1 - step
        at, to = t * N + n0, out0 + (t * N + n0) * out_row
        for i in range(count):
            dh = dstate[(n0 + i) * P : (n0 + i + 1) * P]
            if t < lengths[n0 + i]:
                _add_row(dh, dout, to + i * out_row)
            if w_hr.size:
                assign(dhidden[(at + i) * P : (at + i + 1) * P], dh)
        if w_hr.size:
            block_product(count, H, P, dhidden, at * P, P, 1, w_hr, 0, width, width * P, draw, n0 * H, H, False)
        for i in range(count):
            n, d = n0 + i, dsums[(at + i) * 4 * H : (at + i + 1) * 4 * H]
            dh = dstate[n * P : (n + 1) * P]
            kept = earlier[(at + i) * P : (at + i + 1) * P]
            if t >= lengths[n]:
                d[:] = w.dtype.type(0)
                kept[:] = w.dtype.type(0)
                if w_hr.size:
                    dhidden[(at + i) * P : (at + i + 1) * P] = w.dtype.type(0)
                continue
            first = t == (lengths[n] - 1 if reverse else 0)
            _earlier(out, to + i * out_row, out_row, first, h0, n, P, t, N, reverse, kept)
            before = (at + i + (N if reverse else -N)) * H
            c = c0[n * H : (n + 1) * H] if first else cells[before : before + H]
            hidden = draw[n * H : (n + 1) * H] if w_hr.size else dh
            _lstm_gate_gradients(
                gates[(at + i) * 4 * H : (at + i + 1) * 4 * H], H, c, cells[(at + i) * H : (at + i + 1) * H], hidden,
                dcell[n * H : (n + 1) * H], d,
            )  # fmt: skip
            dh[:] = w.dtype.type(0)
        if w.size:
            block_product(count, P, 4 * H, dsums, at * 4 * H, 4 * H, 1, w, 0, width, width * 4 * H, dstate, n0 * P, P, True)


@function
def _gru_gate_gradients(gates, H, inner, kept, dh, d, dn):
    """d: gradients of h W_hh^T + b_hh; dn: that of the x part of n; dh: what reaches the state before directly."""
    r, z, n = gates[:H], gates[H : 2 * H], gates[2 * H : 3 * H]
    dr, dz, dinner = d[:H], d[H : 2 * H], d[2 * H : 3 * H]
    for j in range(H):
        change = dh[j] * (1 - z[j]) * (1 - n[j] * n[j])
        dn[j] = change
        dinner[j] = change * r[j]
        dr[j] = change * inner[j] * r[j] * (1 - r[j])
        dz[j] = dh[j] * (kept[j] - n[j]) * z[j] * (1 - z[j])
        dh[j] *= z[j]


@separate
def _gru_rows_backward(block, worker, sizes, rows, reverse, gates, inner, w, h0, lengths, out, out0, out_row, dout, dstate, dsums, dn, earlier):
    """dsums (T, N, 3 H) of h W_hh^T + b_hh, dn (T, N, H) of the x part of n, earlier (T, N, H); dstate (N, H) in place."""
    T, N, H, _ = sizes
    width, n0 = 2 * lanes(w), block * rows
    count = min(rows, N - n0)
    for step in range(T):
        t = step if reverse else T - 1 - step
        at, to = t * N + n0, out0 + (t * N + n0) * out_row
        for i in range(count):
            n, d = n0 + i, dsums[(at + i) * 3 * H : (at + i + 1) * 3 * H]
            kept, dn_row = earlier[(at + i) * H : (at + i + 1) * H], dn[(at + i) * H : (at + i + 1) * H]
            if t >= lengths[n]:
                d[:] = w.dtype.type(0)
                kept[:] = w.dtype.type(0)
                dn_row[:] = w.dtype.type(0)
                continue
            dh = dstate[n * H : (n + 1) * H]
            _add_row(dh, dout, to + i * out_row)
            _earlier(out, to + i * out_row, out_row, t == (lengths[n] - 1 if reverse else 0), h0, n, H, t, N, reverse, kept)
            _gru_gate_gradients(gates[(at + i) * 3 * H : (at + i + 1) * 3 * H], H, inner[(at + i) * H : (at + i + 1) * H], kept, dh, d, dn_row)
        if w.size:
            block_product(count, H, 3 * H, dsums, at * 3 * H, 3 * H, 1, w, 0, width, width * 3 * H, dstate, n0 * H, H, True)


@separate
def _rnn_rows_backward(block, worker, sizes, rows, reverse, relu, w, h0, lengths, out, out0, out_row, dout, dstate, dsums, earlier):
    """dsums and earlier (T, N, H); dstate (N, H) goes from that of the last to that of the first."""
    T, N, H, _ = sizes
    width, n0 = 2 * lanes(w), block * rows
    count, zero = min(rows, N - n0), w.dtype.type(0)
    for step in range(T):
        t = step if reverse else T - 1 - step
        at, to = t * N + n0, out0 + (t * N + n0) * out_row
        for i in range(count):
            n, d = n0 + i, dsums[(at + i) * H : (at + i + 1) * H]
            kept = earlier[(at + i) * H : (at + i + 1) * H]
            if t >= lengths[n]:
                d[:] = zero
                kept[:] = zero
                continue
            dh, h = dstate[n * H : (n + 1) * H], out[to + i * out_row : to + i * out_row + H]
            _add_row(dh, dout, to + i * out_row)
            _earlier(out, to + i * out_row, out_row, t == (lengths[n] - 1 if reverse else 0), h0, n, H, t, N, reverse, kept)
            if relu:
                for j in range(H):
                    d[j] = dh[j] if h[j] > 0 else zero
            else:
                for j in range(H):
                    d[j] = dh[j] * (1 - h[j] * h[j])
            dh[:] = zero
        if w.size:
            block_product(count, H, H, dsums, at * H, H, 1, w, 0, width, width * H, dstate, n0 * H, H, True)


@launcher
def _lstm_backward(
    threads, sizes, rows, reverse, gates, cells, c0, w_hh, w_hr, packed, h0, lengths, out, out0, out_row, dout, dstate, dcell,
    dsums, dhidden, draw, earlier,
):  # fmt: skip
    T, N, H, P = sizes
    own = packed[: _panels(packed, 4 * H, P) if T > 1 else 0]
    other = packed[own.size : own.size + (_panels(packed, P, H) if w_hr.size else 0)]
    if T > 1:
        _pack(threads, w_hh, 0, P, 1, 4 * H, P, own)
    if w_hr.size:
        _pack(threads, w_hr, 0, H, 1, P, H, other)
    parallel(
        _lstm_rows_backward,
        (N + rows - 1) // rows,
        threads,
        (
            sizes, rows, reverse, gates, cells, c0, own, other, h0, lengths, out, out0, out_row, dout, dstate, dcell, dsums,
            dhidden, draw, earlier,
        ),
    )  # fmt: skip


@launcher
def _gru_backward(threads, sizes, rows, reverse, gates, inner, w_hh, packed, h0, lengths, out, out0, out_row, dout, dstate, dsums, dn, earlier):
    T, N, H, _ = sizes
    own = packed[: packed.size if T > 1 else 0]
    if T > 1:
        _pack(threads, w_hh, 0, H, 1, 3 * H, H, own)
    arguments = (sizes, rows, reverse, gates, inner, own, h0, lengths, out, out0, out_row, dout, dstate, dsums, dn, earlier)
    parallel(_gru_rows_backward, (N + rows - 1) // rows, threads, arguments)


@launcher
def _rnn_backward(threads, sizes, rows, reverse, relu, w_hh, packed, h0, lengths, out, out0, out_row, dout, dstate, dsums, earlier):
    T, N, H, _ = sizes
    own = packed[: packed.size if T > 1 else 0]
    if T > 1:
        _pack(threads, w_hh, 0, H, 1, H, H, own)
    arguments = (sizes, rows, reverse, relu, own, h0, lengths, out, out0, out_row, dout, dstate, dsums, earlier)
    parallel(_rnn_rows_backward, (N + rows - 1) // rows, threads, arguments)


# ---- dropout between layers


@separate
def _drop_block(block, worker, x, start, seed, threshold, factor, y):
    """y = x times the factor, or 0 where number start + i draws less than the threshold; in blocks of 2**14."""
    first = block << 14
    from_, to = x[first : first + (1 << 14)], y[first : first + (1 << 14)]
    zero = x.dtype.type(0)
    for i in range(to.size):
        to[i] = from_[i] * factor if bits32(seed, start + first + i) >= threshold else zero


@launcher
def _drop(threads, x, start, seed, threshold, factor, y):
    parallel(_drop_block, (x.size >> 14) + 1, threads, (x, start, seed, threshold, factor, y))


def dropped(x: Array, p: float, seed: int, start: int) -> Array:
    """x with elements set to 0 with probability p and the others divided by 1 - p; element i draws number start + i."""
    y = empty(x.shape, x.dtype)
    factor = 0.0 if p == 1 else 1 / (1 - p)
    threshold = np.uint32(min(round(p * 2**32), 2**32 - 1))
    _drop(threads_for(x.size * 0.8), x.reshape(-1), start, seed, threshold, x.dtype.type(factor), y.reshape(-1))
    return y


# ---- one layer in one direction


class Weights(NamedTuple):
    """The weights of one layer in one direction; those that it has not are empty."""

    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None
    w_hr: Array | None

    def given(self) -> list[Array]:
        return [w for w in self if w is not None]


class Kept(NamedTuple):
    """What the gradient of one layer in one direction needs besides the outputs: gates (LSTM, GRU), cell states or the part
    of n that r multiplies, and the hidden states before their projection."""

    gates: Array
    more: Array
    raw: Array


GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


def _launch(T: int, N: int, H: int, P: int, kind: str, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Threads, and rows of the batch in a block: results do not depend on either."""
    products = GATES[kind] * H * P * (0.012 if dtype == np.float32 else 0.024)
    threads = threads_for(T * N * (products + GATES[kind] * H * 0.7))
    least = 4 if T == 1 else 8
    return threads, min(_ROWS, max(least, -(-N // threads // least) * least))


def _packed(dtype: np.dtype[Any], *matrices: tuple[bool, int, int]) -> Array:
    """Scratch memory for packed matrices: of each whether it is there, its depth and columns."""
    name = NAMES[dtype.char]
    width = panel_width(name)
    return scratch(sum(-(-columns // width) * width * depth for there, depth, columns in matrices if there), name)


def _joined(kind: str, b_ih: Array, b_hh: Array) -> Array:
    """The biases that the x part can have; in a GRU r multiplies that of the state's part of n."""
    if kind != "gru":
        return b_ih + b_hh
    bias, both = b_ih.copy(), len(b_ih) // 3 * 2
    bias[:both] += b_hh[:both]
    return bias


def single_step(kind: str, x: Array, w: Weights, state: Array, cell: Array, out: Array, out0: int, out_row: int) -> Kept:
    """One step of x (N, I), without W_hr, to out[out0 + n * out_row + j]; ``cell`` becomes the next, ``state`` stays."""
    none = empty(0, x.dtype)
    biases = (none, none) if w.b_ih is None or w.b_hh is None else (w.b_ih, w.b_hh)
    sums = empty((len(x), len(w.w_ih)), x.dtype)
    more = empty(state.size, x.dtype) if kind in ("lstm", "gru") else none
    if x.shape[0] > 0:
        one_step(kind, x, w.w_ih, w.w_hh, biases, state, cell, sums, more, out, out0, out_row)
    return Kept(sums, more, none) if more is not none else Kept(none, none, none)


def forward(kind: str, x: Array, w: Weights, state: Array, cell: Array, lengths: Array, out: Array, direction: int, keep: bool) -> Kept:
    """Writes its share of ``out`` (T, N, directions P); ``state`` and ``cell`` (N, ...) go from the first to the last.

    What is not to be kept is not written for all steps, if that would not stay in cache.
    """
    T, N, I = x.shape
    H, P = w.w_hh.shape[0] // GATES[kind], w.w_hh.shape[1]
    place = out.reshape(-1), direction * P, out.shape[2]
    if T == 1 and w.w_hr is None:
        kept = single_step(kind, x[0], w, state, cell, *place)
        state[...] = out[0, :, direction * P : (direction + 1) * P]
        return kept
    none = empty(0, x.dtype)
    b_ih, b_hh = (none if b is None else b for b in (w.b_ih, w.b_hh))
    wide, apart = w.w_ih.shape[0], N
    b_hn = b_hh[2 * H :] if kind == "gru" else none
    bias = _joined(kind, b_ih, b_hh) if b_ih.size else none
    threads, rows = _launch(T, N, H, P, kind, x.dtype)
    flat_x, panels = x.reshape(-1), none
    if N >= _ROWS_OF_A_STEP and w.w_ih.size and T * N * wide * x.itemsize > _FAR_SUMS:
        apart = N if keep else 0
        sums = empty((T * N if keep else N, wide), x.dtype)
        panels = np.empty(packed_size(I, wide, NAMES[x.dtype.char]), x.dtype)
        pack_right(w.w_ih.reshape(-1), 1, I, I, wide, panels)
    else:
        sums = projected(x.reshape(T * N, I), w.w_ih, bias if bias.size else None)
    size = len(sums) * H
    kept = Kept(sums, empty(size if kind in ("lstm", "gru") else 0, x.dtype), empty(size if w.w_hr is not None else 0, x.dtype))
    if N == 0:
        return kept
    sizes, reverse = (T, N, H, P), direction == 1
    flat, w_hh, states, cells = sums.reshape(-1), w.w_hh.reshape(-1), state.reshape(-1), cell.reshape(-1)
    if kind == "lstm":
        w_hr, packed = none if w.w_hr is None else w.w_hr.reshape(-1), _packed(x.dtype, (True, P, 4 * H), (w.w_hr is not None, H, P))
        _lstm(threads, sizes, apart, rows, reverse, flat_x, panels, bias, flat, kept.more, kept.raw, w_hh, w_hr, packed, states, cells, lengths, *place)
    elif kind == "gru":
        packed = _packed(x.dtype, (True, H, 2 * H), (True, H, H))
        _gru(threads, sizes, apart, rows, reverse, flat_x, panels, bias, flat, kept.more, b_hn, w_hh, packed, states, lengths, *place)
    else:
        _rnn(threads, sizes, apart, rows, reverse, flat_x, panels, bias, flat, kind == "relu", w_hh, _packed(x.dtype, (True, H, H)), states, lengths, *place)
        kept = Kept(none, none, none)
    return kept


def backward(
    kind: str, x: Array, w: Weights, kept: Kept, h0: Array, c0: Array, lengths: Array, out: Array, direction: int, dout: Array,
    dstate: Array, dcell: Array, dx: Array | None, want_weights: bool,
) -> list[Array]:  # fmt: skip
    """Gradients of the weights, if wanted; adds to ``dx``; ``dstate`` and ``dcell`` go from the last to the first."""
    T, N, _ = x.shape
    H, P = w.w_hh.shape[0] // GATES[kind], w.w_hh.shape[1]
    none = empty(0, x.dtype)
    if N == 0:
        return [np.zeros_like(one) for one in w.given()] if want_weights else []
    threads, rows = _launch(T, N, H, P, kind, x.dtype)
    sizes, reverse = (T, N, H, P), direction == 1
    dsums, earlier = empty((T * N, GATES[kind] * H), x.dtype), empty((T * N, P), x.dtype)
    place = h0.reshape(-1), lengths, out.reshape(-1), direction * P, out.shape[2], dout.reshape(-1), dstate.reshape(-1)
    gates, w_hh = kept.gates.reshape(-1), w.w_hh.reshape(-1)
    projected: list[Array] = []
    dn = none
    if kind == "lstm":
        w_hr, packed = none if w.w_hr is None else w.w_hr.reshape(-1), _packed(x.dtype, (T > 1, 4 * H, P), (w.w_hr is not None, P, H))
        dhidden, draw = (empty(0 if w.w_hr is None else count, x.dtype) for count in (T * N * P, N * H))
        _lstm_backward(
            threads, sizes, rows, reverse, gates, kept.more, c0.reshape(-1), w_hh, w_hr, packed, *place, dcell.reshape(-1),
            dsums.reshape(-1), dhidden, draw, earlier.reshape(-1),
        )  # fmt: skip
        if w.w_hr is not None and want_weights:
            projected = [gemm(dhidden.reshape(-1, P).T, kept.raw.reshape(-1, H))]
    elif kind == "gru":
        dn = empty(T * N * H, x.dtype)
        _gru_backward(
            threads, sizes, rows, reverse, gates, kept.more, w_hh, _packed(x.dtype, (T > 1, 3 * H, H)), *place, dsums.reshape(-1), dn,
            earlier.reshape(-1),
        )  # fmt: skip
    else:
        packed = _packed(x.dtype, (T > 1, H, H))
        _rnn_backward(threads, sizes, rows, reverse, kind == "relu", w_hh, packed, *place, dsums.reshape(-1), earlier.reshape(-1))
    if T == 1 and w.w_hh.size:
        gemm(dsums, w.w_hh, out=dstate, accumulate=True)
    recurrent = [gemm(dsums.T, earlier)] if want_weights else []
    biases = [sum_axis(dsums[None])[0]] if want_weights and w.b_hh is not None else []
    if kind == "gru":
        # the x part of n is not multiplied by r
        dsums[:, 2 * H :] = dn.reshape(-1, H)
    rows_of_x = x.reshape(T * N, x.shape[2])
    if dx is not None:
        gemm(dsums, w.w_ih, out=dx.reshape(T * N, x.shape[2]), accumulate=direction == 1)
    if not want_weights:
        return []
    if biases:
        biases.insert(0, sum_axis(dsums[None])[0] if kind == "gru" else biases[0].copy())
    return [gemm(dsums.T, rows_of_x), *recurrent, *biases, *projected]
