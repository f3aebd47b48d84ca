"""softmax(scale Q K^T + mask) V, tile by tile, and its gradient: no matrix of queries by keys is ever made.

Forward, for a block of queries, over the blocks of keys in order (m the running maximum, l the running sum of a row):

    S = scale Q K^T + mask,  m' = max(m, max S),  P = e^(S - m'),  l' = e^(m - m') l + sum P,  O' = e^(m - m') O + P V

and at the end O / l. Kept for the gradient are O and the logarithm of the sum of exponentials, lse = m + log l, from which
any tile of probabilities comes back as P = e^(S - lse). With W = P times the dropout factor and D = rowsum(dO * O):

    dV = W^T dO,  dW = dO V^T,  dS = P (factor dW - D),  dQ = scale dS K,  dK = scale dS^T Q,  dmask = dS

Source: Dao, Fu, Ermon, Rudra, Re, "FlashAttention" (2022), algorithms 1 and 4; Milakov, Gimelshein, "Online normalizer
calculation for softmax" (2018). A row without any key to attend to gives 0 and has no gradient: its lse is +inf.

The forward pass computes tiles turned, keys by queries: lanes are queries, so that maxima and sums go down the rows, K and V
are read where they lie, and only the block of queries is packed. The gradient needs neither maxima nor sums; its tiles are
queries by keys, K^T and V^T packed once for all the queries that pass by.

Every element of every result is summed in one order, whoever computes it: keys ascending for O and dQ, heads and then
queries ascending for dK and dV.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
from numba import types

from fastops._check import Array
from fastops._jit import address_of, call, call_at, function, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.simd.blocking import NAMES, panel_width
from fastops.simd.pack import copy_run, pack_panels, scale_run
from fastops.simd.product import block_product
from fastops.simd.random import bits32
from fastops.simd.reduce import greater, span_dot, span_sum
from fastops.simd.rows import add_row, assign, fill_row
from fastops.simd.vector import fma, lanes, load, load_part, load_square, load_square_part, splat, store, store_tile, tile_fma, transpose
from fastops.simd.vmath import exp_plain
from fastops.simd.workspace import scratch

# Queries and keys of a tile: with heads of 64 a tile and its rows of Q, K and V take 100 KB of L2.
_QUERIES = 64
_KEYS = 128
# Rows of Q whose inner products with their gradient make a block.
_ROWS = 256


@function
def _padded(x, x0, row, count, size, spare, padded_size):
    """Rows of x that may be read a whole panel at a time: the array, where they start, and their distance."""
    if size == padded_size:
        return x, x0, row
    for i in range(count):
        copy_run(x, x0 + i * row, spare, i * padded_size, size)
    return spare, 0, padded_size


@function
def _pack_turned(x, x0, row, count, depth, packed, width):
    """packed = x^T in panels: element (k, j) is x[j, k]."""
    for panel in range((count + width - 1) // width):
        call(pack_panels, (panel, 0, x, x0, 1, row, depth, count, packed))


@function
def _scale_rows(tile, rows, columns, row_length, scale):
    """Scores are products times the scale, rounded: the same bits in every pass, so that e^0 is 1 where they equal lse."""
    for r in range(rows):
        row = tile[r * row_length : r * row_length + columns]
        for c in range(columns):
            row[c] *= scale


@function
def _mask_number(mask, allowed, at):
    """One element of the mask, as a number to be added."""
    if allowed.size:
        return mask.dtype.type(0) if allowed[at] else mask.dtype.type(-np.inf)
    return mask[at]


@function
def _mask_row(mask, allowed, start, step, count, out):
    """One row of the mask, as numbers to be added."""
    row = out[:count]
    zero, never = out.dtype.type(0), out.dtype.type(-np.inf)
    if allowed.size:
        if step == 1:
            bits = allowed[start : start + count]
            for j in range(count):
                row[j] = zero if bits[j] else never
        else:
            for j in range(count):
                row[j] = zero if allowed[start + j * step] else never
    elif step == 1:
        assign(row, mask[start : start + count])
    else:
        for j in range(count):
            row[j] = mask[start + j * step]


@separate
def _add_mask(mask, allowed, start, mask_row, mask_col, queries, keys, scale, rows, tile, turned):
    """tile[i, j] = scale tile[i, j] + mask[i, j], or [j, i] of the tile if it is ``turned``; ``rows`` is memory for the mask's rows.

    One fused multiply-add whichever way the tile lies: the forward pass and the gradient need the same bits.
    """
    step, by = lanes(tile), splat(tile, scale)
    if turned and mask_row == 0:
        # the usual mask of padding: a number for each row of the tile, and nothing to be turned
        for j in range(keys):
            added = splat(tile, _mask_number(mask, allowed, start + j * mask_col))
            for at in range(j * _QUERIES, j * _QUERIES + queries, step):
                store(tile, at, fma(load(tile, at), by, added))
        return
    source, first, row = mask, start, mask_row
    if allowed.size or mask_col != 1:
        source, first, row = rows, 0, _KEYS if mask_row != 0 else 0
        for i in range(queries if mask_row != 0 else 1):
            _mask_row(mask, allowed, start + i * mask_row, mask_col, keys, rows[i * _KEYS : (i + 1) * _KEYS])
    if not turned:
        for i in range(queries):
            for j in range(0, keys, step):
                at = i * _KEYS + j
                store(tile, at, fma(load(tile, at), by, load_part(source, first + i * row + j, keys - j)))
        return
    for j in range(0, keys, step):
        for i in range(0, queries, step):
            at, from_, high, wide = j * _QUERIES + i, first + i * row + j, queries - i, keys - j
            whole = high >= step and wide >= step
            square = load_square(source, from_, row) if whole else load_square_part(source, from_, row, high, wide)
            store_tile(tile, at, _QUERIES, tile_fma(transpose(square), load_square(tile, at, _QUERIES), by))


@separate
def _drop(tile, rows, columns, row_length, start, row_step, column_step, seed, threshold, factor):
    """Element (r, c) becomes 0 if number start + r row_step + c column_step draws less than the threshold, else grows."""
    for r in range(rows):
        row, first, zero = tile[r * row_length : r * row_length + columns], start + r * row_step, tile.dtype.type(0)
        for c in range(columns):
            row[c] = row[c] * factor if bits32(seed, first + c * column_step) >= threshold else zero


@cache
def _add_mask_at(dtype: str) -> int:
    """The machine code of ``_add_mask``: compiled when somebody has a mask, not with every attention."""
    numbers = types.Array(getattr(types, dtype), 1, "C")
    steps = [types.intp] * 5
    return address_of(_add_mask, numbers, types.Array(types.uint8, 1, "C"), *steps, numbers.dtype, numbers, numbers, types.boolean)


@cache
def _drop_at(dtype: str) -> int:
    """The machine code of ``_drop``: compiled when somebody drops."""
    number = getattr(types, dtype)
    return address_of(_drop, types.Array(number, 1, "C"), *[types.intp] * 7, types.uint32, number)


@function
def _softmax_step(tile, keys, queries, scale, top, total, shift, rescale):
    """Turns products into e^(scaled - maximum) and brings maxima, sums and the factors of earlier tiles up to date.

    Whether any factor differs from 1. What would be a denormal number becomes 0: a twentieth of the whole pass.
    """
    zero, lowest, step, by = tile.dtype.type(0), tile.dtype.type(-np.inf), lanes(tile), splat(tile, scale)
    for i in range(0, queries, 2 * step):
        most, most_2 = load(top, i), load(top, i + step)
        for at in range(i, i + keys * _QUERIES, _QUERIES):
            s, s_2 = load(tile, at) * by, load(tile, at + step) * by
            store(tile, at, s)
            store(tile, at + step, s_2)
            most, most_2 = greater(s, most), greater(s_2, most_2)
        store(shift, i, most)
        store(shift, i + step, most_2)
    changed = False
    for i in range(queries):
        changed |= shift[i] != top[i]
        # where nothing has been attended to, e^(-inf - 0) is the 0 that e^(-inf + inf) is not
        above = shift[i] if shift[i] > lowest else zero
        rescale[i] = exp_plain(top[i] - above)
        top[i] = shift[i]
        shift[i] = above
    for i in range(queries):
        total[i] *= rescale[i]
    for j in range(keys):
        row = tile[j * _QUERIES : j * _QUERIES + queries]
        for i in range(queries):
            p = exp_plain(row[i] - shift[i])
            row[i] = p
            total[i] += p
    return changed


@separate
def _attend_block(block, worker, q, q_at, k, k_at, v, v_at, sizes, masks, causal, scale, drop, space, each, out, out_at, lse):
    """out and lse for one head and block of queries.

    q, k, v, out flat, rows at b * at[0] + head * at[1] + t * at[2]; sizes (heads, group, L, S, D, E); lse (B heads L).
    """
    heads, group, L, S, D, E = sizes
    mask, allowed, starts, mask_row, mask_col, add_mask_at = masks
    drop_at, seed, threshold, factor = drop
    blocks = (L + _QUERIES - 1) // _QUERIES
    head = block // blocks
    i0 = (blocks - 1 - block % blocks) * _QUERIES  # causal: the longest first
    queries = min(_QUERIES, L - i0)
    width = 2 * lanes(q)
    whole = (queries + width - 1) // width * width
    E_up = (E + width - 1) // width * width

    own = space[worker * each : (worker + 1) * each]
    packed, own = own[: D * _QUERIES], own[D * _QUERIES :]
    tile, own = own[: _KEYS * _QUERIES], own[_KEYS * _QUERIES :]
    top, total, shift, rescale = own[:_QUERIES], own[_QUERIES:], own[2 * _QUERIES :], own[3 * _QUERIES :]
    own = own[4 * _QUERIES :]
    spare, rows = own[: _KEYS * E_up], own[_KEYS * E_up :]

    b, h = head // heads, head % heads
    _pack_turned(q, b * q_at[0] + h * q_at[1] + i0 * q_at[2], q_at[2], queries, D, packed, width)
    for i in range(whole):
        top[i] = q.dtype.type(-np.inf)
        total[i] = q.dtype.type(0)
    o0 = b * out_at[0] + h * out_at[1] + i0 * out_at[2]
    end = min(S, i0 + queries) if causal else S
    for j0 in range(0, end, _KEYS):
        keys = min(_KEYS, end - j0)
        k0 = b * k_at[0] + h // group * k_at[1] + j0 * k_at[2]
        block_product(keys, whole, D, k, k0, k_at[2], 1, packed, 0, width, width * D, tile, 0, _QUERIES, False)
        left = scale  # to be multiplied by
        if starts.size:
            start = starts[head] + i0 * mask_row + j0 * mask_col
            call_at(add_mask_at, (mask, allowed, start, mask_row, mask_col, queries, keys, scale, rows, tile, True))
            left = q.dtype.type(1)
        if causal and j0 + keys > i0:
            if not starts.size:
                _scale_rows(tile, keys, whole, _QUERIES, scale)
                left = q.dtype.type(1)
            for j in range(max(0, i0 - j0), keys):
                tile[j * _QUERIES : j * _QUERIES + min(queries, j0 + j - i0)] = q.dtype.type(-np.inf)
        changed = _softmax_step(tile, keys, whole, left, top, total, shift, rescale)
        if threshold > 0:
            call_at(drop_at, (tile, keys, queries, _QUERIES, (head * L + i0) * S + j0, 1, S, seed, threshold, factor))
        if changed and j0 > 0:
            for i in range(queries):
                scale_run(out, o0 + i * out_at[2], out, o0 + i * out_at[2], E, rescale[i])
        values, v0, v_row = _padded(v, b * v_at[0] + h // group * v_at[1] + j0 * v_at[2], v_at[2], keys, E, spare, E_up)
        block_product(queries, E, keys, tile, 0, 1, _QUERIES, values, v0, v_row, width, out, o0, out_at[2], j0 > 0)
    # The library's logarithm of one number at a time: one of vectors would be compiled for 64 numbers of a block.
    for i in range(queries):
        at, some = o0 + i * out_at[2], total[i] != 0
        lse[head * L + i0 + i] = top[i] + np.log(total[i]) if some else q.dtype.type(np.inf)
        if some:
            scale_run(out, at, out, at, E, q.dtype.type(1) / total[i])
        else:
            fill_row(q.dtype.type(0), out, at, E)


@launcher
def _attend(threads, plan, factors, numbers, allowed, starts, q, k, v, space, out, lse):
    # Whole numbers come in one array: one by one and in tuples, their way from Python takes 1.1 us more, of the 8 of a small call.
    batch, each, causal = plan[0], plan[1], plan[2] != 0
    q_at, k_at, v_at, out_at = (plan[3], plan[4], plan[5]), (plan[6], plan[7], plan[8]), (plan[9], plan[10], plan[11]), (plan[12], plan[13], plan[14])
    sizes = (plan[15], plan[16], plan[17], plan[18], plan[19], plan[20])
    masks = (numbers, allowed, starts, plan[21], plan[22], plan[23])
    scale, drop = factors[0], (plan[24], plan[25], np.uint32(plan[26]), factors[1])
    blocks = batch * sizes[0] * ((sizes[2] + _QUERIES - 1) // _QUERIES)
    parallel(_attend_block, blocks, threads, (q, q_at, k, k_at, v, v_at, sizes, masks, causal, scale, drop, space, each, out, out_at, lse))


@separate
def _inner_block(block, worker, out, dout, out_at, sizes, delta):
    """delta = rowsum(dout * out) for some rows of one head."""
    heads, _, L, _, _, E = sizes
    blocks = (L + _ROWS - 1) // _ROWS
    head, i0 = block // blocks, block % blocks * _ROWS
    start = head // heads * out_at[0] + head % heads * out_at[1]
    for i in range(i0, min(i0 + _ROWS, L)):
        row = start + i * out_at[2]
        delta[head * L + i] += span_dot(out, row, dout, row, E)


@function
def _part(size, unit, number, parts):
    """First and end of part ``number`` of so many, cut at multiples of the unit."""
    units = (size + unit - 1) // unit
    return units * number // parts * unit, min(size, units * (number + 1) // parts * unit)


@function
def _clear(x, x0, row, count, size):
    if x.size:
        for i in range(count):
            x[x0 + i * row : x0 + i * row + size] = x.dtype.type(0)


@function
def _gradient_row(s, dp, count, lse, delta, scale, whole):
    """s: scores to probabilities; dp: the gradient of the probabilities to that of the scores, times the scale."""
    for j in range(count):
        s[j] = exp_plain(s[j] - lse)
    if whole:
        # All keys are here, and the mean of dp is taken over them, then the mean of what is left. Unlike rowsum(dO * O), to
        # which it is equal, that cancels dp to the last bit where one probability is almost 1.
        total = span_sum(s, 0, count)
        mean = s.dtype.type(span_dot(s, 0, dp, 0, count) / total) if total > 0 else s.dtype.type(0)
        for j in range(count):
            dp[j] -= mean
        delta = s.dtype.type(span_dot(s, 0, dp, 0, count) / total) if total > 0 else s.dtype.type(0)
    for j in range(count):
        dp[j] = s[j] * (dp[j] - delta) * scale


@separate
def _gradient_block(
    block, worker, q, q_at, k, k_at, v, v_at, dout, out_at, lse, delta, extra, extra_at, sizes, masks, causal, scale, drop,
    order, owners, parts, space, each, dq, dk, dv, dmask,
):  # fmt: skip
    """Gradients for the heads order[owners[o]:owners[o + 1]] of one owner o.

    parts = (part of the keys, of the queries): how many blocks share the owner's work, and each takes its part of either.
    Gradients of size 0 are left out. ``extra`` is added to the gradient of the probabilities.
    """
    heads, group, L, S, D, E = sizes
    mask, allowed, starts, mask_row, mask_col, add_mask_at = masks
    drop_at, seed, threshold, factor = drop
    key_parts, query_parts = parts
    owner, part = block // (key_parts * query_parts), block % (key_parts * query_parts)
    j_first, j_end = _part(S, _KEYS, part // query_parts, key_parts)
    i_first, i_end = _part(L, _QUERIES, part % query_parts, query_parts)
    width = 2 * lanes(q)
    D_up, E_up = (D + width - 1) // width * width, (E + width - 1) // width * width

    own = space[worker * each : (worker + 1) * each]
    k_turned, own = own[: D * _KEYS], own[D * _KEYS :]
    v_turned, own = own[: E * _KEYS], own[E * _KEYS :]
    s, own = own[: _QUERIES * _KEYS], own[_QUERIES * _KEYS :]
    dp, own = own[: _QUERIES * _KEYS], own[_QUERIES * _KEYS :]
    rows, own = own[: _QUERIES * _KEYS], own[_QUERIES * _KEYS :]
    k_spare, own = own[: _KEYS * D_up], own[_KEYS * D_up :]
    q_spare, do_spare = own[: _QUERIES * D_up], own[_QUERIES * D_up :]

    for j0 in range(j_first, j_end, _KEYS):
        keys = min(_KEYS, j_end - j0)
        whole = (keys + width - 1) // width * width
        packed = -1
        for place in range(owners[owner], owners[owner + 1]):
            head = order[place]
            b, h = head // heads, head % heads
            k0 = b * k_at[0] + h // group * k_at[1] + j0 * k_at[2]
            v0 = b * v_at[0] + h // group * v_at[1] + j0 * v_at[2]
            if packed != head // group:
                packed = head // group
                _pack_turned(k, k0, k_at[2], keys, D, k_turned, width)
                _pack_turned(v, v0, v_at[2], keys, E, v_turned, width)
                if dq.size:
                    k_rows, k_rows0, k_step = _padded(k, k0, k_at[2], keys, D, k_spare, D_up)
                else:
                    k_rows, k_rows0, k_step = k, k0, k_at[2]
                _clear(dk, k0, k_at[2], keys, D)
                _clear(dv, v0, v_at[2], keys, E)
            # causal: queries before the first key have nothing to do with it
            first = max(i_first, j0 // _QUERIES * _QUERIES) if causal else i_first
            for i0 in range(first, i_end, _QUERIES):
                queries = min(_QUERIES, i_end - i0)
                q0 = b * q_at[0] + h * q_at[1] + i0 * q_at[2]
                do0 = b * out_at[0] + h * out_at[1] + i0 * out_at[2]
                block_product(queries, whole, D, q, q0, q_at[2], 1, k_turned, 0, width, width * D, s, 0, _KEYS, False)
                block_product(queries, whole, E, dout, do0, out_at[2], 1, v_turned, 0, width, width * E, dp, 0, _KEYS, False)
                number = (head * L + i0) * S + j0
                if starts.size:
                    start = starts[head] + i0 * mask_row + j0 * mask_col
                    call_at(add_mask_at, (mask, allowed, start, mask_row, mask_col, queries, keys, scale, rows, s, False))
                else:
                    _scale_rows(s, queries, keys, _KEYS, scale)
                if extra.size:
                    start = b * extra_at[0] + h * extra_at[1] + i0 * extra_at[2] + j0
                    for i in range(queries):
                        dw, added = dp[i * _KEYS : i * _KEYS + keys], extra[start + i * extra_at[2] : start + i * extra_at[2] + keys]
                        for j in range(keys):
                            dw[j] += added[j]
                if threshold > 0:
                    call_at(drop_at, (dp, queries, keys, _KEYS, number, S, 1, seed, threshold, factor))
                for i in range(queries):
                    at, p, dw = head * L + i0 + i, s[i * _KEYS :], dp[i * _KEYS :]
                    count = min(keys, i0 + i - j0 + 1) if causal else keys
                    _gradient_row(p[:count], dw[:count], count, lse[at], delta[at], q.dtype.type(1) if dmask.size else scale, S <= _KEYS)
                    p[count:keys] = q.dtype.type(0)
                    dw[count:keys] = q.dtype.type(0)
                    if dmask.size:
                        start = starts[head] + (i0 + i) * mask_row + j0 * mask_col
                        if mask_col == 1:
                            add_row(dp, i * _KEYS, dmask, start, keys)
                        else:
                            for j in range(keys):
                                dmask[start + j * mask_col] += dw[j]
                        for j in range(keys):
                            dw[j] *= scale
                if threshold > 0:
                    call_at(drop_at, (s, queries, keys, _KEYS, number, S, 1, seed, threshold, factor))
                if dv.size:
                    lower, lower0, step = _padded(dout, do0, out_at[2], queries, E, do_spare, E_up)
                    block_product(keys, E, queries, s, 0, 1, _KEYS, lower, lower0, step, width, dv, v0, v_at[2], True)
                if dk.size:
                    lower, lower0, step = _padded(q, q0, q_at[2], queries, D, q_spare, D_up)
                    block_product(keys, D, queries, dp, 0, 1, _KEYS, lower, lower0, step, width, dk, k0, k_at[2], True)
                if dq.size:
                    block_product(queries, D, keys, dp, 0, _KEYS, 1, k_rows, k_rows0, k_step, width, dq, q0, q_at[2], j0 > 0)


@separate
def _weights_block(
    block, worker, q, q_at, k, k_at, lse, sizes, masks, causal, scale, drop, space, each, share, weights, weights_at, extra,
    extra_at, delta,
):  # fmt: skip
    """The probabilities themselves for a batch and a block of queries, dropped as they are used, head after head.

    weights (if any) += share * probabilities; delta (B heads L; if there is an ``extra``) += rowsum(probabilities * extra).
    """
    heads, group, L, S, D, _ = sizes
    mask, allowed, starts, mask_row, mask_col, add_mask_at = masks
    drop_at, seed, threshold, factor = drop
    blocks = (L + _QUERIES - 1) // _QUERIES
    b, i0 = block // blocks, block % blocks * _QUERIES
    queries, width = min(_QUERIES, L - i0), 2 * lanes(q)
    own = space[worker * each : (worker + 1) * each]
    k_turned, own = own[: D * _KEYS], own[D * _KEYS :]
    s, rows = own[: _QUERIES * _KEYS], own[_QUERIES * _KEYS :]
    for h in range(heads):
        head = b * heads + h
        q0 = b * q_at[0] + h * q_at[1] + i0 * q_at[2]
        for j0 in range(0, S, _KEYS):
            keys = min(_KEYS, S - j0)
            whole = (keys + width - 1) // width * width
            _pack_turned(k, b * k_at[0] + h // group * k_at[1] + j0 * k_at[2], k_at[2], keys, D, k_turned, width)
            block_product(queries, whole, D, q, q0, q_at[2], 1, k_turned, 0, width, width * D, s, 0, _KEYS, False)
            if starts.size:
                start = starts[head] + i0 * mask_row + j0 * mask_col
                call_at(add_mask_at, (mask, allowed, start, mask_row, mask_col, queries, keys, scale, rows, s, False))
            else:
                _scale_rows(s, queries, keys, _KEYS, scale)
            for i in range(queries):
                p, below = s[i * _KEYS : (i + 1) * _KEYS], lse[head * L + i0 + i]
                count = max(0, min(keys, i0 + i - j0 + 1)) if causal else keys
                for j in range(count):
                    p[j] = exp_plain(p[j] - below)
                p[count:] = q.dtype.type(0)
            if threshold > 0:
                call_at(drop_at, (s, queries, keys, _KEYS, (head * L + i0) * S + j0, S, 1, seed, threshold, factor))
            for i in range(queries):
                if weights.size:
                    start = b * weights_at[0] + h * weights_at[1] + (i0 + i) * weights_at[2] + j0
                    p, row = s[i * _KEYS : i * _KEYS + keys], weights[start : start + keys]
                    for j in range(keys):
                        row[j] += share * p[j]
                if extra.size:
                    start = b * extra_at[0] + h * extra_at[1] + (i0 + i) * extra_at[2] + j0
                    delta[head * L + i0 + i] += span_dot(s, i * _KEYS, extra, start, keys)


@launcher
def _weights(
    threads, batch, q, q_at, k, k_at, lse, sizes, masks, causal, scale, drop, space, each, share, weights, weights_at, extra,
    extra_at, delta,
):  # fmt: skip
    parallel(
        _weights_block,
        batch * ((sizes[2] + _QUERIES - 1) // _QUERIES),
        threads,
        (
            q, q_at, k, k_at, lse, sizes, masks, causal, scale, drop, space, each, share, weights, weights_at, extra, extra_at,
            delta,
        ),
    )  # fmt: skip


@launcher
def _inner(threads, batch, out, dout, out_at, sizes, delta):
    parallel(_inner_block, batch * sizes[0] * ((sizes[2] + _ROWS - 1) // _ROWS), threads, (out, dout, out_at, sizes, delta))


@launcher
def _gradients(
    threads, q, q_at, k, k_at, v, v_at, dout, out_at, lse, delta, extra, extra_at, sizes, masks, causal, scale, drop, order,
    owners, parts, space, each, dq, dk, dv, dmask,
):  # fmt: skip
    parallel(
        _gradient_block,
        (owners.size - 1) * parts[0] * parts[1],
        threads,
        (
            q, q_at, k, k_at, v, v_at, dout, out_at, lse, delta, extra, extra_at, sizes, masks, causal, scale, drop, order,
            owners, parts, space, each, dq, dk, dv, dmask,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Mask:
    """What is added to the scores: nothing, numbers, or -inf where a boolean mask says no.

    ``starts`` has the offset of the mask's first element for each head of each batch; it and the steps say how the mask
    broadcasts, so that it need not be made as large as the scores.
    """

    numbers: Array
    allowed: Array
    starts: Array
    row: int = 0
    col: int = 0

    @cached_property
    def arguments(self) -> tuple[Any, ...]:
        return self.numbers, self.allowed, self.starts, self.row, self.col, _add_mask_at(NAMES[self.numbers.dtype.char]) if self.starts.size else 0


_NOT_BOOLEAN = np.empty(0, np.uint8)
_NO_STARTS = np.empty(0, np.intp)


@cache
def no_mask(dtype: np.dtype[Any]) -> Mask:
    """The mask that masks nothing."""
    return Mask(empty(0, dtype), _NOT_BOOLEAN, _NO_STARTS)


@lru_cache(maxsize=256)
def _places(mask: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Any, int, int]:
    """Where the part of each head starts in a C-contiguous mask that broadcasts to the shape, and the steps along queries and keys."""
    np.broadcast_to(np.broadcast_to(np.int8(0), mask), shape)  # refuses what does not broadcast, and takes no memory
    lead, steps = shape[:-2], [0] * (len(shape) - len(mask)) + [0 if n == 1 else prod(mask[axis + 1 :]) for axis, n in enumerate(mask)]
    starts = np.zeros(lead, np.intp)
    for axis, (count, step) in enumerate(zip(lead, steps)):
        starts += (np.arange(count) * step).reshape(-1, *[1] * (starts.ndim - axis - 1))
    return starts.reshape(-1), steps[-2], steps[-1]


def make_mask(mask: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Mask:
    """A C-contiguous mask, numbers of that dtype or booleans, that broadcasts to ``shape`` (heads first, L and S last)."""
    flat = mask.reshape(-1)
    numbers, allowed = (empty(0, dtype), flat.view(np.uint8)) if mask.dtype == np.bool_ else (flat, _NOT_BOOLEAN)
    return Mask(numbers, allowed, *_places(mask.shape, shape))


@dataclass(frozen=True)
class Attention:
    """One attention: its extents, where the rows of its arrays lie, and what happens to its scores.

    Attributes:
        batch, heads, group: query heads are ``group`` times as many as heads of keys and values.
        queries, keys, size, value_size: L, S, D, E.
        q_at, k_at, v_at, out_at: steps (in elements) from a batch, a head and a row to the next.
        drop: seed, what a draw of 32 bits must reach to be kept, and the factor of what is kept.
    """

    batch: int
    heads: int
    group: int
    queries: int
    keys: int
    size: int
    value_size: int
    q_at: tuple[int, int, int]
    k_at: tuple[int, int, int]
    v_at: tuple[int, int, int]
    out_at: tuple[int, int, int]
    mask: Mask
    causal: bool
    scale: float
    dropout_p: float = 0.0
    seed: int = 0

    def masked(self, mask: Mask) -> Attention:
        """The same with another mask of the same dtype, and with what has been worked out so far, which no mask changes."""
        other = object.__new__(Attention)
        other.__dict__.update(self.__dict__, mask=mask, _plans=self._plans, _forward=self._forward)
        other.__dict__.pop("_prepared", None)
        return other

    @cached_property
    def _plans(self) -> dict[tuple[int, int, int], tuple[Array, Array]]:
        """The numbers that ``_attend`` gets in every call, by the steps along a mask and what adds it."""
        return {}

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return self.heads, self.group, self.queries, self.keys, self.size, self.value_size

    @cached_property
    def _drop(self) -> tuple[Any, ...]:
        dtype = self.mask.numbers.dtype
        # p = 1 drops all but a draw in 2**32, and the factor of that is 0
        factor = 0.0 if self.dropout_p == 1 else 1 / (1 - self.dropout_p)
        address = _drop_at(NAMES[dtype.char]) if self.dropout_p else 0
        return address, self.seed, np.uint32(min(round(self.dropout_p * 2**32), 2**32 - 1)), dtype.type(factor)

    @cached_property
    def _name(self) -> str:
        return NAMES[self.mask.numbers.dtype.char]

    @cached_property
    def _scale(self) -> Any:
        return self.mask.numbers.dtype.type(self.scale)

    def _nanoseconds(self, products: int) -> float:
        scores = self.batch * self.heads * self.queries * self.keys * (0.5 if self.causal else 1)
        return scores * (0.5 + products * (self.size + self.value_size) * (0.005 if self.mask.numbers.itemsize == 4 else 0.01))

    def _scratch_size(self, counts: list[int]) -> int:
        line = 64 // self.mask.numbers.itemsize
        return -(-sum(counts) // line) * line

    def _padded(self, size: int) -> int:
        width = panel_width(self._name)
        return -(-size // width) * width

    @cached_property
    def _forward(self) -> tuple[int, int, float, str]:
        """Rows, scratch memory of a thread, how long the forward pass takes, the dtype."""
        counts = [self.size * _QUERIES, (_KEYS + 4) * _QUERIES, _KEYS * self._padded(self.value_size), _KEYS * _QUERIES]
        return self.batch * self.heads * self.queries, self._scratch_size(counts), self._nanoseconds(1), self._name

    @cached_property
    def _prepared(self) -> tuple[Array, ...]:
        """What ``_attend`` gets in every call."""
        *arrays, row, col, add_mask_at = self.mask.arguments
        numbers = self._plans.get((row, col, add_mask_at))
        if numbers is None:
            drop_at, seed, threshold, factor = self._drop
            plan = [self.batch, self._forward[1], self.causal, *self.q_at, *self.k_at, *self.v_at, *self.out_at, *self.sizes, row, col, add_mask_at]
            plan += [drop_at, seed, threshold]
            numbers = self._plans[row, col, add_mask_at] = np.array(plan, np.int64), np.array([self._scale, factor])
        return (*numbers, *arrays)

    @cached_property
    def _backward(self) -> tuple[int, float]:
        width, value_width = self._padded(self.size), self._padded(self.value_size)
        counts = [(self.size + self.value_size) * _KEYS, 3 * _QUERIES * _KEYS, _KEYS * width, _QUERIES * (width + value_width)]
        return self._scratch_size(counts), self._nanoseconds(3)

    @cached_property
    def _owned(self) -> tuple[Array, Array]:
        """All heads, and where those that share keys and values begin."""
        owned = np.arange(self.batch * self.heads, dtype=np.intp)
        return owned, np.arange(0, owned.size + 1, self.group, dtype=np.intp)

    @property
    def _masks_apart(self) -> bool:
        """Whether heads with keys of their own have masks of their own."""
        shared = self.mask.starts.reshape(-1, self.group)
        return len({(start, owner) for owner, own in enumerate(shared.tolist()) for start in own}) == len(set(self.mask.starts.tolist()))

    def run(self, q: Array, k: Array, v: Array, out: Array) -> Array:
        """Writes ``out``; all arrays are flat. Returns the logarithm of the sum of exponentials of each row."""
        rows, each, nanoseconds, name = self._forward
        lse = empty(rows, q.dtype)
        if self.keys == 0:
            out[...], lse[...] = 0, np.inf
        elif rows:
            threads = threads_for(nanoseconds)
            _attend(threads, *self._prepared, q, k, v, scratch(threads * each, name), out, lse)
        return lse

    def weights(self, q: Array, k: Array, lse: Array, average: bool, extra: Array | None = None, extra_at: tuple[int, int, int] = (0, 0, 0)) -> Array:
        """The probabilities, flat: of each head, or their average over the heads; given ``extra``, the sums of its products with them."""
        dtype = q.dtype
        none, count = empty(0, dtype), self.queries * self.keys
        weights = np.zeros(0 if extra is not None else self.batch * (1 if average else self.heads) * count, dtype)
        delta = np.zeros(lse.size if extra is not None else 0, dtype)
        if self.keys and lse.size:
            each, threads = self._scratch_size([self.size * _KEYS, 2 * _QUERIES * _KEYS]), threads_for(self._nanoseconds(1))
            steps = (count, 0, self.keys) if average else (self.heads * count, count, self.keys)
            _weights(
                threads, self.batch, q, self.q_at, k, self.k_at, lse, self.sizes, self.mask.arguments, self.causal,
                self._scale, self._drop, scratch(threads * each, self._name), each,
                dtype.type(1 / self.heads if average else 1), weights, steps, none if extra is None else extra, extra_at, delta,
            )  # fmt: skip
        return weights if extra is None else delta

    def gradients(
        self, q: Array, k: Array, v: Array, out: Array, lse: Array, dout: Array, wanted: tuple[bool, bool, bool, bool],
        extra: Array | None = None, extra_at: tuple[int, int, int] = (0, 0, 0), delta: Array | None = None,
    ) -> list[Array | None]:  # fmt: skip
        """Gradients of q, k, v and the numbers of the mask, flat; None where not wanted.

        ``extra`` is a gradient of the probabilities to be added, and ``delta`` the sum of its products with them in each row.
        """
        dtype = q.dtype
        results = [np.zeros(x.size, dtype) if want else None for x, want in zip((q, k, v, self.mask.numbers), wanted)]
        if self.keys == 0 or lse.size == 0 or not any(wanted):
            return results
        none = empty(0, dtype)
        delta = np.zeros(lse.size, dtype) if delta is None else delta
        if self.keys > _KEYS:
            _inner(threads_for(out.size * 0.3), self.batch, out, dout, self.out_at, self.sizes, delta)
        each, nanoseconds = self._backward

        def launch(order: Array, owners: Array, parts: tuple[int, int], threads: int, *chosen: Array | None) -> None:
            _gradients(
                threads, q, self.q_at, k, self.k_at, v, self.v_at, dout, self.out_at, lse, delta,
                none if extra is None else extra, extra_at, self.sizes, self.mask.arguments, self.causal,
                self._scale, self._drop, order, owners, parts, scratch(threads * each, self._name), each,
                *(none if x is None else x for x in chosen),
            )  # fmt: skip

        dq, dk, dv, dmask = results
        owned, owners = self._owned
        threads = threads_for(nanoseconds)
        whole = threads == 1 or owners.size > 4 * threads
        # The mask's gradient comes along (5 products instead of 7, 24 ms instead of 36 for 4 x 8 heads of 256 x 64) where no two
        # threads add to the same element, and every element gets its terms in the order in which a pass of its own adds them.
        along = whole and (self.mask.col != 0 or self.keys <= _KEYS) and (threads == 1 or self._masks_apart)
        if whole or dq is None or (dk is None and dv is None):
            pieces = 1 if whole else 4 * threads
            parts = (1, pieces) if dk is None and dv is None else (pieces, 1)
            parts = (1, 1) if dq is not None and (dk is not None or dv is not None) else parts
            launch(owned, owners, parts, threads, dq, dk, dv, dmask if along else None)
        else:
            # Few heads for the threads: keys and queries are shared out apart, and the scores computed twice.
            launch(owned, owners, (4 * threads, 1), threads, None, dk, dv, None)
            launch(owned, owners, (1, 4 * threads), threads, dq, None, None, None)
        if dmask is not None and not along:
            order = np.argsort(self.mask.starts, kind="stable").astype(np.intp)
            _, first = np.unique(self.mask.starts[order], return_index=True)
            pieces = 1 if self.mask.row == 0 or first.size > 4 * threads else 4 * threads
            launch(order, np.append(first, order.size).astype(np.intp), (1, pieces), threads, None, None, None, dmask)
        return results
