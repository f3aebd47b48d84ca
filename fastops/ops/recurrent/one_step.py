"""One step through time: a cell, or a sequence of one element.

A block is some hidden units, as many as a panel has columns: it multiplies the input and the state with its columns of every gate, and turns
the sums into gates at once, so that no block waits for another. Two products and a pass with two more launches took 26 us for gru_cell of
8x32 and 32 units, which takes 14 in PyTorch and here by now, and 72 for rnn_cell of 32x128 and 256 (54; PyTorch 52).
"""

from __future__ import annotations

from typing import Any

from fastops._check import Array
from fastops._jit import call, function, launcher, parallel, separate
from fastops._threads import threads_for
from fastops.ops.recurrent.gates import gru_gates, lstm_gates, rnn_state
from fastops.simd.blocking import KC, NAMES, NV, panel_width
from fastops.simd.gemm import is_turned, turn_back, turned_product
from fastops.simd.pack import pack_panels
from fastops.simd.product import block_product, dot_products
from fastops.simd.rows import assign
from fastops.simd.vector import lanes
from fastops.simd.workspace import scratch

# Few rows are multiplied with the weights as they lie; of more, columns of the weights are packed. Rows that fill panels are packed themselves,
# and the product comes out turned.
_IN_PLACE, _PACKED, _TURNED = range(3)
_PACKED_ROWS = 3
# Rows that a block has at least, where they are shared out.
_LEAST_ROWS = 64


@separate
def _add_product(packs, rows, cols, depth, a, a0, w, w0, space, s0, c, c0, c_row):
    """c[rows, cols] += a[rows, depth] times the transpose of so many rows of w, from w[w0] on."""
    if not packs:
        call(dot_products, (rows, cols, depth, a, a0, depth, w, w0, depth, c, c0, c_row, True))
        return
    width = NV * lanes(w)
    for k in range(0, depth, KC):
        some = min(KC, depth - k)
        call(pack_panels, (0, 0, w, w0 + k, 1, depth, some, cols, space[s0 : s0 + some * width]))
        block_product(rows, cols, some, a, a0 + k, depth, 1, space, s0, width, 0, c, c0, c_row, True)


@separate
def _unit_sums(gates, way, place, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, inner, space, s0):
    """sums (N, gates H) of some rows and units, from both products and both biases; of a GRU's n the state's are in ``inner`` (N, H)."""
    (i0, rows, j0, cols), (N, I, H) = place, sizes
    zero, row = sums.dtype.type(0), gates * H
    for g in range(gates):
        apart, column = inner.size > 0 and g == 2, g * H + j0
        for i in range(i0, i0 + rows):
            own, other = sums[i * row + column : i * row + column + cols], inner[i * H + j0 : i * H + j0 + cols]
            for j in range(cols):
                first, second = (b_ih[column + j], b_hh[column + j]) if b_ih.size > 0 else (zero, zero)
                own[j] = first if apart else first + second
                if apart:
                    other[j] = second
        at = i0 * row + column
        c, c0, c_row = (inner, i0 * H + j0, H) if apart else (sums, at, row)
        if way == _TURNED:
            panels = (N + NV * lanes(space) - 1) // (NV * lanes(space)) * NV * lanes(space) * I
            turned_product(N, cols, I, space, 0, w_ih, column * I, I, space, s0, False)
            if apart:
                turn_back(N, cols, space, s0, sums, at, row, True)
            turned_product(N, cols, H, space, panels, w_hh, column * H, H, space, s0, not apart)
            turn_back(N, cols, space, s0, c, c0, c_row, True)
        else:
            call(_add_product, (way == _PACKED, rows, cols, I, x, i0 * I, w_ih, column * I, space, s0, sums, at, row))
            call(_add_product, (way == _PACKED, rows, cols, H, h, i0 * H, w_hh, column * H, space, s0, c, c0, c_row))


@function
def _place(block, high, width, N, H):
    """The first row of a block and how many, its first unit and how many."""
    parts = (N + high - 1) // high
    i0, j0 = block % parts * high, block // parts * width
    return i0, min(high, N - i0), j0, min(width, H - j0)


@separate
def _lstm_units(block, worker, plan, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, cells, cell, out, out0, out_row, space):
    (way, high, shared, each), (N, _, H) = plan, sizes
    width = NV * lanes(sums)
    place = _place(block, high, width, N, H)
    i0, rows, j0, cols = place
    call(_unit_sums, (4, way, place, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, sums[:0], space, shared + worker * each))
    for n in range(i0, i0 + rows):
        at, own, to = n * 4 * H + j0, n * H + j0, out0 + n * out_row + j0
        i, f, g, o = sums[at : at + cols], sums[at + H : at + H + cols], sums[at + 2 * H : at + 2 * H + cols], sums[at + 3 * H : at + 3 * H + cols]
        c, c_next = cell[own : own + cols], cells[own : own + cols]
        lstm_gates(i, f, g, o, c, c_next, out[to : to + cols])
        assign(c, c_next)


@separate
def _gru_units(block, worker, plan, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, inner, out, out0, out_row, space):
    (way, high, shared, each), (N, _, H) = plan, sizes
    width = NV * lanes(sums)
    place = _place(block, high, width, N, H)
    i0, rows, j0, cols = place
    call(_unit_sums, (3, way, place, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, inner, space, shared + worker * each))
    for n in range(i0, i0 + rows):
        at, own, to = n * 3 * H + j0, n * H + j0, out0 + n * out_row + j0
        r, z, new = sums[at : at + cols], sums[at + H : at + H + cols], sums[at + 2 * H : at + 2 * H + cols]
        gru_gates(r, z, new, h[own : own + cols], inner[own : own + cols], out[to : to + cols])


@separate
def _rnn_units(block, worker, plan, sizes, relu, x, w_ih, b_ih, h, w_hh, b_hh, sums, out, out0, out_row, space):
    (way, high, shared, each), (N, _, H) = plan, sizes
    width = NV * lanes(sums)
    place = _place(block, high, width, N, H)
    i0, rows, j0, cols = place
    call(_unit_sums, (1, way, place, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, sums[:0], space, shared + worker * each))
    for n in range(i0, i0 + rows):
        own, to = n * H + j0, out0 + n * out_row + j0
        rnn_state(sums[own : own + cols], relu, out[to : to + cols])


@function
def _pack_rows(threads, plan, sizes, x, h, space):
    """x and the state in panels, where the product comes out turned."""
    N, I, H = sizes
    panels = (N + NV * lanes(x) - 1) // (NV * lanes(x))
    if plan[0] == _TURNED:
        parallel(pack_panels, panels, threads, (x, 0, 1, I, I, N, space))
        parallel(pack_panels, panels, threads, (h, 0, 1, H, H, N, space[panels * NV * lanes(x) * I :]))


@launcher
def _lstm(threads, blocks, plan, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, cells, cell, out, out0, out_row, space):
    _pack_rows(threads, plan, sizes, x, h, space)
    parallel(_lstm_units, blocks, threads, (plan, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, cells, cell, out, out0, out_row, space))


@launcher
def _gru(threads, blocks, plan, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, inner, out, out0, out_row, space):
    _pack_rows(threads, plan, sizes, x, h, space)
    parallel(_gru_units, blocks, threads, (plan, sizes, x, w_ih, b_ih, h, w_hh, b_hh, sums, inner, out, out0, out_row, space))


@launcher
def _rnn(threads, blocks, plan, sizes, relu, x, w_ih, b_ih, h, w_hh, b_hh, sums, out, out0, out_row, space):
    _pack_rows(threads, plan, sizes, x, h, space)
    parallel(_rnn_units, blocks, threads, (plan, sizes, relu, x, w_ih, b_ih, h, w_hh, b_hh, sums, out, out0, out_row, space))


def one_step(
    kind: str, x: Array, w_ih: Array, w_hh: Array, biases: tuple[Array, Array], state: Array, cell: Array, sums: Array, more: Array,
    out: Array, out0: int, out_row: int,
) -> None:  # fmt: skip
    """From x (N, I) and the state (N, H), and of an LSTM cell (N, H), which becomes the next, to out[out0 + n * out_row + j].

    ``sums`` (N, gates H) takes the gates; ``more`` (N H) the cell states, of a GRU the part of n that r multiplies; both biases may be empty.
    """
    (N, I), H, name = x.shape, w_hh.shape[1], NAMES[x.dtype.char]
    width = panel_width(name)
    threads = threads_for(sums.size * ((I + H) * (0.012 if name == "float32" else 0.024) + 0.7))
    units, parts = -(-H // width), 1
    way = _IN_PLACE if N < _PACKED_ROWS else _TURNED if I > 0 and is_turned(N, H, width) else _PACKED
    while way != _TURNED and units * parts < 2 * threads and threads > 1 and N >= 2 * parts * _LEAST_ROWS:
        parts *= 2
    high, whole = -(-N // parts), -(-N // width) * width
    blocks, shared, each = units * -(-N // high), whole * (I + H) if way == _TURNED else 0, width * (whole if way == _TURNED else KC)
    plan, sizes = (way, high, shared, each), (N, I, H)
    arguments = (x.reshape(-1), w_ih.reshape(-1), biases[0], state.reshape(-1), w_hh.reshape(-1), biases[1], sums.reshape(-1))
    place: tuple[Any, ...] = (out, out0, out_row, scratch(shared + threads * each, name))
    if kind == "lstm":
        _lstm(threads, blocks, plan, sizes, *arguments, more, cell.reshape(-1), *place)
    elif kind == "gru":
        _gru(threads, blocks, plan, sizes, *arguments, more, *place)
    else:
        _rnn(threads, blocks, plan, sizes, kind == "relu", *arguments, *place)
