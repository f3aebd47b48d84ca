"""Winograd convolution: fewer multiplications by polynomial interpolation.

An m-output convolution with r taps is the product of two polynomials, taken at alpha = m + r - 1 points and
interpolated:

    y = AT [(G w) * (BT x)]                                in one dimension,
    y = AT [(G w GT) * (BT x B)] A                         in two,

so that m * m outputs of an r x r kernel cost alpha * alpha multiplications a channel instead of m * m * r * r: 36
instead of 144 for F(4x4, 3x3). The sum over channels makes each of the alpha * alpha products a matrix product. The
map is bilinear, so both gradients follow by transposing it:

    dx: the same convolution of dy with the weights turned round and their channels exchanged,
    dw = GT [(A dy AT) * (BT x B)] G                       with the sum over tiles as the inner dimension.

Other convolutions are sums of such ones, or lie between one another:

    a large kernel       is cut into pieces of r taps, each of which sees the image r pixels further on,
    a stride of s        leaves s convolutions without one: the taps s apart, and the pixels that they see,
    a dilation of d      is d convolutions of the pixels d apart, whose results lie between one another.

(``folded`` has another way for strides.) Pieces are more channels: their products are summed up before the transform back. A
piece that is one tap short is 0 at infinity, and its product there is left out: along one axis 11 taps cost 6 + 6 + 6 + 5
multiplications for 4 outputs, 3 taps at stride 2 cost 5 + 4.

S. Winograd, "Arithmetic Complexity of Computations", SIAM 1980; A. Lavin and S. Gray, "Fast Algorithms for
Convolutional Neural Networks", arXiv:1509.09308, 2015.

Numbers are held with channels innermost: a vector holds as many channels of one pixel. Transforms are then sums of
whole vectors at any tile size, and an image of 7x7 wastes no lane. Arrays in NCHW are turned on the way in and out.

A transform mixes the pixels of a tile, so one infinity or NaN would reach outputs that do not see it. The last stage
notices (zero times such a result is not zero), and the convolution is then done again without transforms.

Two orders of work share the same stages. With many tiles and few weights a block is some rows of tiles: transform its
input, multiply with all weights, transform its output, never leaving L2. With many weights and few tiles (deep layers)
the input of all tiles is transformed first, and a block is a panel of output channels, whose weights are transformed
right before use and never written to memory: at 512x512 channels the transformed weights are 38 MB, four times the
time of the whole product if they go through memory.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastops import _threads
from fastops._jit import call, function, launcher, parallel, separate
from fastops._memory import empty
from fastops.ops.conv import implicit
from fastops.ops.conv.layout import Side, side, up
from fastops.ops.conv.spec import ConvSpec, Plan, Strategy
from fastops.simd.blocking import CYCLES_PER_NS, FMAS_PER_CYCLE, KC, LANES, LARGE_CORE, MR, NV, panel_width
from fastops.simd.finish import activate, activation_entry
from fastops.simd.pack import pack_tiles
from fastops.simd.product import ZERO, block_product, far_product, tiled_product
from fastops.simd.vector import (
    lanes,
    linear_map,
    load,
    load_part,
    load_square,
    load_square_part,
    load_tile,
    prefetch,
    splat,
    store,
    store_part,
    store_square_part,
    store_tile,
    tile_add,
    tile_dot,
    transpose,
)
from fastops.simd.workspace import aligned, scratch

Matrix = tuple[tuple[Fraction, ...], ...]

# alpha -> the points beside 0 and infinity; each stands for itself and its negative, so that transforms share their work. They
# decide the rounding errors: over random images in float32 F(4x4, 3x3) errs by 1.7e-6 at 1 and 2, by 7.7e-7 here (the plain
# sum of products: 4.3e-7). Found by search over sixteenths; the optimum is flat, and these have short coefficients. See
# B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution", arXiv:1803.10986.
_POINTS = {1: (), 3: (), 4: (Fraction(1),), 5: (Fraction(3, 4),), 6: (Fraction(5, 8), Fraction(3, 2)), 8: (Fraction(1, 2), Fraction(1), Fraction(2))}
# The one that stands alone where their number is odd.
_SINGLE = {3: (Fraction(1),), 5: (Fraction(2),)}


def matrices(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """AT (m x alpha), G (alpha x r) and BT (alpha x alpha) of F(m, r), exactly.

    The transposed Toom-Cook algorithm at 0, pairs of opposite points, and infinity.
    """
    alpha = m + r - 1
    points = [Fraction(0)][: alpha - 1] + [sign * p for p in _POINTS[alpha] for sign in (1, -1)] + [*_SINGLE.get(alpha, ())]

    def polynomial(roots: list[Fraction]) -> list[Fraction]:
        product = [Fraction(1)]
        for root in roots:
            shifted, scaled = [Fraction(0), *product], [*(-root * c for c in product), Fraction(0)]
            product = [a + b for a, b in zip(shifted, scaled, strict=True)]
        return product

    at = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    g = []
    bt = []
    for j, p in enumerate(points):
        others = [q for k, q in enumerate(points) if k != j]
        scale = prod((p - q for q in others), start=Fraction(1))
        g.append([p**i / scale for i in range(r)])
        bt.append([*polynomial(others), Fraction(0)])
    g.append([Fraction(int(i == r - 1)) for i in range(r)])
    bt.append(polynomial(list(points)))
    return tuple(map(tuple, at)), tuple(map(tuple, g)), tuple(map(tuple, bt))


def _turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


@function
def skew(n, count):
    """n rounded up to an odd number of vectors.

    Each transform writes its alpha * alpha results that far apart; at a power of two they would evict each other from
    L1 (512x512 channels at 7x7: 3.6 ms instead of 1.9).
    """
    return ((n + count - 1) // count | 1) * count


# ---- the stages, for vectors of channels


def _tiles_stage(name: str, rows: Matrix, cols: Matrix, step_h: int, step_w: int) -> Any:
    """Cuts an image into tiles and transforms each: v = rows . tile . cols^T."""
    map_h, map_w = linear_map(rows), linear_map(cols)
    in_h, in_w, out_h = len(rows[0]), len(cols[0]), len(rows)

    @separate(name=name)
    def stage(
        x, base, c_stride, p_stride, height, width, channels, c0, chunk, top, left, grid, row0, row1, tiles, v, v0, e_stride, t_stride, t_count, space, s0
    ):
        """Rows row0..row1 of tiles of one image; channels c0 and following.

        Tile t goes to v[v0 + t * t_stride ...]. Among chunk channels those of each piece of the kernel stand together; where
        all do not fit t_stride, the tiles are t_count panels.
        """
        phases_h, phases_w, apart_h, apart_w, pieces_h, pieces_w, ahead_h, ahead_w = grid
        count = lanes(x)
        some = min(count, channels - c0)
        reach_h, reach_w = (in_h - 1) * apart_h + 1, (in_w - 1) * apart_w + 1
        next_h, next_w = step_h * apart_h, step_w * apart_w  # tiles of the same phase
        first = min(height, max(0, row0 // phases_h * next_h + row0 % phases_h - top))
        last = (row1 - 1) // phases_h * next_h + (row1 - 1) % phases_h - top + reach_h + (pieces_h - 1) * ahead_h
        last = max(first, min(height, last))
        # 1. The strip of pixels under these tiles, channels innermost.
        strip = s0
        source = base + c0 * c_stride + first * width * p_stride
        pixels = (last - first) * width
        if p_stride == 1 and c_stride != 1:
            i = 0
            while pixels - i >= count and some == count:
                store_tile(space, strip + i * count, count, transpose(load_square(x, source + i, c_stride)))
                i += count
            while i < pixels:
                store_tile(space, strip + i * count, count, transpose(load_square_part(x, source + i, c_stride, some, pixels - i)))
                i += count
        else:
            for i in range(pixels):
                if some == count:
                    store(space, strip + i * count, load(x, source + i * p_stride))
                else:
                    store(space, strip + i * count, load_part(x, source + i * p_stride, some))
        # 2. For each row of tiles and each piece, the transform down the columns, then along the rows.
        columns = (tiles - 1) // phases_w * next_w + (tiles - 1) % phases_w + reach_w + (pieces_w - 1) * ahead_w
        edge = strip + (pixels + count) * count  # the last pixels may have been written with up to a vector of others
        half = edge + in_h * count
        zero = splat(space, x.dtype.type(0))
        group = c0 // chunk * chunk
        apart = min(chunk, channels - group)  # channels between pieces
        place = group * pieces_h * pieces_w + c0 - group
        for row in range(row0, row1):
            for piece_h in range(pieces_h):
                i0 = row // phases_h * next_h + row % phases_h - top + piece_h * ahead_h
                inside = i0 >= 0 and i0 + reach_h <= height
                for j in range(columns):
                    col = j - left
                    if col < 0 or col >= width:
                        for i in range(out_h):
                            store(space, half + (i * columns + j) * count, zero)
                        continue
                    if inside:
                        t = load_tile(space, strip + ((i0 - first) * width + col) * count, apart_h * width * count, in_h)
                    else:
                        for i in range(in_h):
                            k = i0 + i * apart_h
                            if k >= 0 and k < height:
                                store(space, edge + i * count, load(space, strip + ((k - first) * width + col) * count))
                            else:
                                store(space, edge + i * count, zero)
                        t = load_tile(space, edge, count, in_h)
                    store_tile(space, half + j * count, columns * count, map_h(t))
                for piece_w in range(pieces_w):
                    channel = place + (piece_h * pieces_w + piece_w) * apart
                    to = v0 + (row - row0) * tiles * t_stride + channel + channel // t_stride * t_stride * (t_count - 1)
                    for tile in range(tiles):
                        begin = half + (tile // phases_w * next_w + tile % phases_w + piece_w * ahead_w) * count
                        for i in range(out_h):
                            u = load_tile(space, begin + i * columns * count, apart_w * count, in_w)
                            store_tile(v, to + tile * t_stride + i * len_w * e_stride, e_stride, map_w(u))

    len_w = len(cols)
    return stage


@function
def flag_if_not_zero(space, s0, vector, some, flags):
    """Raises the flag where one of the first lanes is not 0: what 0 times a sum of results is, if one was not finite."""
    store(space, s0, vector)
    for i in range(some):
        if space[s0 + i] != 0:
            flags[0] = 1


def _image_stage(name: str, rows: Matrix, cols: Matrix) -> Any:
    """Transforms products back, y = rows . m . cols^T, and puts the tiles together to an image."""
    map_h, map_w = linear_map(rows), linear_map(cols)
    alpha_h, alpha_w, out_h, out_w = len(rows[0]), len(cols[0]), len(rows), len(cols)

    @separate(name=name)
    def stage(
        m, m0, e_stride, t_stride, y, base, k_stride, p_stride, height, width, channels, k0, phases_h, phases_w, row0, row1,
        tiles, bias, bias0, activation, flags, space, s0,
    ):  # fmt: skip
        """Rows row0..row1 of tiles of one image, all phases of them; channels k0 and following, tile t of them at m[m0 + t * t_stride ...]."""
        count = lanes(y)
        some = min(count, channels - k0)
        half = s0
        strip = half + alpha_h * out_w * count
        zero = shift = poison = splat(y, y.dtype.type(0))
        if bias.size > 0:
            shift = load_part(bias, bias0 + k0, some)
        for row in range(row0, row1):
            top = (row - row0) // phases_h * phases_h * out_h + row % phases_h
            for tile in range(tiles):
                left = tile // phases_w * out_w * phases_w + tile % phases_w
                source = m0 + ((row - row0) * tiles + tile) * t_stride
                for i in range(alpha_h):
                    u = load_tile(m, source + i * alpha_w * e_stride, e_stride, alpha_w)
                    store_tile(space, half + i * out_w * count, count, map_w(u))
                for j in range(out_w):
                    col = left + j * phases_w
                    if col >= width:
                        break
                    t = tile_add(map_h(load_tile(space, half + j * count, out_w * count, alpha_h)), shift)
                    poison = tile_dot(poison, t, zero)
                    store_tile(space, strip + (top * width + col) * count, phases_h * width * count, t)
        flag_if_not_zero(space, half, poison, some, flags)
        pixels = (min(height, row1 * out_h) - row0 * out_h) * width
        to = base + k0 * k_stride + row0 * out_h * width * p_stride
        if p_stride == 1 and k_stride != 1:
            i = 0
            while pixels - i >= count and some == count:
                store_tile(y, to + i, k_stride, transpose(load_square(space, strip + i * count, count)))
                i += count
            while i < pixels:
                store_square_part(y, to + i, k_stride, transpose(load_square(space, strip + i * count, count)), some, pixels - i)
                i += count
            for k in range(some):
                activate(activation, y, to + k * k_stride, pixels)
        else:
            for i in range(pixels):
                store_part(y, to + i * p_stride, load(space, strip + i * count), some)
                activate(activation, y, to + i * p_stride, some)

    return stage


def _weights_stage(name: str, rows: Matrix, cols: Matrix, whole: bool) -> Any:
    """Transforms kernels, u = rows . w . cols^T, vectors of output channels; kernels in pieces are not ``whole``."""
    map_h, map_w = linear_map(rows), linear_map(cols)
    taps_h, taps_w, alpha_h, alpha_w = len(rows[0]), len(cols[0]), len(rows), len(cols)

    @function
    def transform(space, kernel, half, count, u, to, e_stride):
        row = taps_w * count
        for j in range(taps_w):
            store_tile(space, half + j * count, row, map_h(load_tile(space, kernel + j * count, row, taps_h)))
        for i in range(alpha_h):
            store_tile(u, to + i * alpha_w * e_stride, e_stride, map_w(load_tile(space, half + i * row, count, taps_w)))

    @separate(name=name)
    def stage(w, w0, k_stride, c_stride, turn, cut, some, c_count, u, u0, e_stride, c_step, apart, space, s0):
        """``some`` (at most a vector) output channels of c_count input channels; turn rotates the kernels by 180 degrees.

        A channel's pieces go to u ``apart`` channels from one another.
        """
        height, width, pieces_h, pieces_w, piece_h, piece_w, tap_h, tap_w = cut
        count = lanes(w)
        taps = taps_h * taps_w if whole else height * width
        half = s0
        piece = half + alpha_h * taps_w * count
        kernels = piece + taps_h * taps_w * count
        # Channels whose kernels follow one another are turned together, by full squares: 8 channels of 3x3 by 9 squares of 8 lanes, else by 16.
        together = count if c_stride == taps else 1
        ahead = max(together, 8) * c_stride
        for c0 in range(0, c_count, together):
            channels = min(together, c_count - c0)
            for i in range(0, channels * taps, count):
                source, to, left = w0 + c0 * c_stride + i, kernels + i * count, channels * taps - i
                # Kernels lie in as many places as there are output channels, too many for the hardware's own prefetching.
                for k in range(count):
                    prefetch(w, source + ahead + k * k_stride)
                if left == 1:  # as the last of 9, 25 and 49 is for 8 lanes
                    store(space, to, splat(w, w.dtype.type(0)))
                    for k in range(some):
                        space[to + k] = w[source + k * k_stride]
                elif some == count and left >= count:
                    store_tile(space, to, count, transpose(load_square(w, source, k_stride)))
                else:
                    store_tile(space, to, count, transpose(load_square_part(w, source, k_stride, some, left)))
            for c in range(channels):
                kernel = kernels + c * taps * count
                if turn:
                    for i in range(taps // 2):
                        a, b = load(space, kernel + i * count), load(space, kernel + (taps - 1 - i) * count)
                        store(space, kernel + i * count, b)
                        store(space, kernel + (taps - 1 - i) * count, a)
                if whole:
                    transform(space, kernel, half, count, u, u0 + (c0 + c) * c_step, e_stride)
                    continue
                for number in range(pieces_h * pieces_w):
                    for i in range(taps_h):
                        for j in range(taps_w):
                            down, right = number // pieces_w * piece_h + i * tap_h, number % pieces_w * piece_w + j * tap_w
                            tap = splat(w, w.dtype.type(0))
                            if down < height and right < width:
                                tap = load(space, kernel + (down * width + right) * count)
                            store(space, piece + (i * taps_w + j) * count, tap)
                    transform(space, piece, half, count, u, u0 + (number * apart + c0 + c) * c_step, e_stride)

    return stage


def _kernel_gradient_stage(name: str, rows: Matrix, cols: Matrix, whole: bool) -> Any:
    """Transforms products back to kernels, dw = rows . m . cols^T, vectors of input channels; kernels in pieces are not ``whole``."""
    map_h, map_w = linear_map(rows), linear_map(cols)
    alpha_h, alpha_w, taps_h, taps_w = len(rows[0]), len(cols[0]), len(rows), len(cols)

    @separate(name=name)
    def stage(m, m0, e_stride, dw, base, cut, number, some, accumulate, flags, space, s0):
        """A piece of the kernels of one output channel and ``some`` input channels."""
        height, width, _, pieces_w, piece_h, piece_w, tap_h, tap_w = cut
        count = lanes(dw)
        taps = taps_h * taps_w
        half = s0
        kernel = half + alpha_h * taps_w * count
        zero = poison = splat(dw, dw.dtype.type(0))
        for i in range(alpha_h):
            t = load_tile(m, m0 + i * alpha_w * e_stride, e_stride, alpha_w)
            store_tile(space, half + i * taps_w * count, count, map_w(t))
        for j in range(taps_w):
            t = map_h(load_tile(space, half + j * count, taps_w * count, alpha_h))
            poison = tile_dot(poison, t, zero)
            store_tile(space, kernel + j * count, taps_w * count, t)
        flag_if_not_zero(space, half, poison, some, flags)
        if whole:
            for i in range(0, taps, count):
                t = transpose(load_square(space, kernel + i * count, count))
                if accumulate:
                    t = tile_add(t, load_square_part(dw, base + i, taps, some, taps - i))
                store_square_part(dw, base + i, taps, t, some, taps - i)
            return
        for i in range(taps_h):
            for j in range(taps_w):
                down, right = number // pieces_w * piece_h + i * tap_h, number % pieces_w * piece_w + j * tap_w
                if down < height and right < width:
                    to, source = base + down * width + right, kernel + (i * taps_w + j) * count
                    for lane in range(some):
                        dw[to + lane * height * width] = space[source + lane] + (dw[to + lane * height * width] if accumulate else 0)

    return stage


# ---- blocks of work


def _tiles_of(stage: Any) -> Any:
    """The walk over rows of tiles that may belong to several images."""

    @function
    def tiles_of(g0, g1, th, tiles, top, left, grid, source, x, x0, c0, chunk, v, v0, e_stride, t_stride, t_count, space, s0):
        """Rows g0..g1 of tiles, counted through all images."""
        depth, n_stride, d_stride, c_stride, p_stride, height, width, channels = source
        g = g0
        while g < g1:
            image, row0 = g // th, g % th
            row1 = min(th, row0 + g1 - g)
            base = x0 + image // depth * n_stride + image % depth * d_stride
            to = v0 + (g - g0) * tiles * t_stride
            call(
                stage,
                (
                    x, base, c_stride, p_stride, height, width, channels, c0, chunk, top, left, grid, row0, row1, tiles, v, to,
                    e_stride, t_stride, t_count, space, s0,
                ),
            )  # fmt: skip
            g += row1 - row0

    return tiles_of


def _tiles_block(stage: Any, name: str) -> Any:
    """A block that transforms tiles and nothing else."""
    tiles_of = _tiles_of(stage)

    @separate(name=name)
    def tiles_block(block, worker, rows, first, total, th, tiles, top, left, grid, source, x, x0, chunk, v, channels, panel, space, each):
        """Some rows of tiles, a vector of their channels, of which ``panel`` (of all pieces together, ``channels``) stand side by side."""
        count = lanes(x)
        groups = (total - first + rows - 1) // rows
        g0 = first + block % groups * rows
        g1 = min(total, g0 + rows)
        c0 = block // groups * count
        t = (total - first) * tiles
        v0 = (g0 - first) * tiles * panel
        tiles_of(g0, g1, th, tiles, top, left, grid, source, x, x0, c0, chunk, v, v0, skew(t * channels, count), panel, t, space, worker * each)

    return tiles_block


def _product_of_pieces(alpha_h: int, alpha_w: int) -> Any:
    """The products of one point."""

    @function
    def product(e, t, cols, ins, chunk, pieces, a, a0, a_row, b, b0, b_row, b_panel, c, c0, c_row, accumulate, far):
        """The products of one point: all pieces of ins channels, but for those that are 0 there.

        What stands together is multiplied at once: all, some rows of the pieces of a chunk, or some pieces of a row.
        """
        pieces_h, pieces_w, short_h, short_w = pieces
        high = pieces_h - (short_h if e // alpha_w == alpha_h - 1 else 0)
        wide = pieces_w - (short_w if e % alpha_w == alpha_w - 1 else 0)
        if high * wide == pieces_h * pieces_w:
            chunk = ins
        rows = 1 if wide == pieces_w else high
        for run in range((ins + chunk - 1) // chunk * rows):
            first = run // rows * chunk
            some = min(chunk, ins - first)
            at = (first * pieces_h + run % rows * some) * pieces_w
            depth = some * wide * (high // rows)
            block_product(t, cols, depth, a, a0 + at, a_row, 1, b, b0 + at * b_row, b_row, b_panel, c, c0, c_row, accumulate or run > 0)

    return product


@function
def _product_of_whole(e, t, cols, ins, chunk, pieces, a, a0, a_row, b, b0, b_row, b_panel, c, c0, c_row, accumulate, far):
    """As what ``_product_of_pieces`` makes, of kernels that are one piece; every call would compile the other for 0.15 s.

    With ``far`` it asks, while it works on each panel, for the one ``b_panel`` behind it.
    """
    if far:
        zero = c.dtype.type(0)
        call(far_product, (t, cols, ins, a, a0, a_row, 1, MR * a_row, b, b0, b_row, b_panel, c, c0, c_row, ZERO, c, 0, 0, False, zero, zero))
    else:
        block_product(t, cols, ins, a, a0, a_row, 1, b, b0, b_row, b_panel, c, c0, c_row, accumulate)


def _work(name: str, count_e: int, to_tiles: Any, product: Any, to_image: Any, to_weights: Any) -> Any:
    """The blocks of a convolution by one variant; see the module's docstring for the two orders of work."""
    tiles_of = _tiles_of(to_tiles)

    @function
    def image_of(g0, g1, th, tiles, phases_h, phases_w, m, m0, e_stride, t_stride, target, y, y0, k0, bias, bias0, activation, flags, space, s0):
        depth, n_stride, d_stride, c_stride, p_stride, height, width, channels = target
        g = g0
        while g < g1:
            image, row0 = g // th, g % th
            row1 = min(th, row0 + g1 - g)
            base = y0 + image // depth * n_stride + image % depth * d_stride
            at = m0 + (g - g0) * tiles * t_stride
            call(
                to_image,
                (
                    m, at, e_stride, t_stride, y, base, c_stride, p_stride, height, width, channels, k0, phases_h, phases_w,
                    row0, row1, tiles, bias, bias0, activation, flags, space, s0,
                ),
            )  # fmt: skip
            g += row1 - row0

    @separate(name=f"_{name}_weights_block")
    def weights_block(block, worker, w, w0, k_stride, c_stride, turn, cut, outs, ins, chunk, c_chunk, u, space, each):
        """Transforms a panel of output channels, c_chunk input channels of it, to u[e][panel][channel][NR]."""
        count = lanes(w)
        width = NV * count
        chunks = (ins + c_chunk - 1) // c_chunk
        panel, c0 = block // chunks, block % chunks * c_chunk
        n = min(c_chunk, ins - c0)
        pieces = cut[2] * cut[3]
        e_stride = skew((outs + width - 1) // width * ins * pieces * width, count)
        group = c0 // chunk * chunk
        place = (panel * ins + group) * pieces + c0 - group
        for v in range(0, width, count):
            k = panel * width + v
            some = max(0, min(count, outs - k))
            call(
                to_weights,
                (
                    w, w0 + k * k_stride + c0 * c_stride, k_stride, c_stride, turn, cut, some, n, u,
                    place * width + v, e_stride, width, min(chunk, ins - group), space, worker * each,
                ),
            )  # fmt: skip

    @separate(name=f"_{name}_fused_block")
    def fused_block(
        block, worker, blocks, total, th, tiles, top, left, grid, pieces, chunk, source, target, x, x0, u, y, y0, bias, bias0, activation, flags, space, each
    ):
        """Some rows of tiles, of all phases, from input to output."""
        count = lanes(x)
        width = NV * count
        ins, outs = source[7], target[7]
        units = total // grid[0]
        g0, g1 = block * units // blocks * grid[0], (block + 1) * units // blocks * grid[0]
        t = (g1 - g0) * tiles
        depth = ins * pieces[0] * pieces[1]
        ins_up, outs_up = (depth + count - 1) // count * count, (outs + count - 1) // count * count
        v_stride, m_stride = skew(t * ins_up, count), skew(t * outs_up, count)
        v0 = worker * each
        m0 = v0 + count_e * v_stride
        s0 = m0 + count_e * m_stride
        for c0 in range(0, ins, count):
            tiles_of(g0, g1, th, tiles, top, left, grid, source, x, x0, c0, chunk, space, v0, v_stride, ins_up, t, space, s0)
        panel = depth * width
        u_stride = skew((outs + width - 1) // width * panel, count)
        for e in range(count_e):
            product(
                e, t, outs, ins, chunk, pieces, space, v0 + e * v_stride, ins_up, u, e * u_stride, width, panel, space, m0 + e * m_stride, outs_up,
                False, False,
            )  # fmt: skip
        for k0 in range(0, outs, count):
            image_of(g0, g1, th, tiles, grid[0], grid[1], space, m0 + k0, m_stride, outs_up, target, y, y0, k0, bias, bias0, activation, flags, space, s0)

    @separate(name=f"_{name}_panel_block")
    def panel_block(
        block, worker, first, total, th, tiles, top, left, grid, pieces, ins, width, c_chunk, source, x, x0, target, v, own, ins_up,
        w, w0, k_stride, c_stride, turn, cut, u, y, y0, bias, bias0, activation, flags, space, each,
    ):  # fmt: skip
        """All tiles, ``width`` output channels: their weights, the products, their output. u is empty or transformed ahead, by whole panels.

        Tiles are transformed already, or each thread has its ``own``, so many numbers of v, and transforms them when it takes its first block.
        """
        count = lanes(y)
        outs = target[7]
        k0 = block * width
        t = (total - first) * tiles
        v_stride, m_stride = skew(t * ins_up, count), skew(t * width, count)
        m0 = worker * each
        v0 = worker * own
        if own > 0 and flags[1 + worker] <= first:
            flags[1 + worker] = first + 1
            for c0 in range(0, ins, count):
                tiles_of(first, total, th, tiles, top, left, grid, source, x, x0, c0, c_chunk, v, v0, v_stride, ins_up, t, space, m0)
        chunk0 = m0 + count_e * m_stride
        number = pieces[0] * pieces[1]
        s0 = chunk0 + count_e * skew(c_chunk * number * width, count)
        cols = min(width, outs - k0)
        if u.size > 0:
            panel = NV * count
            u_stride = skew((outs + panel - 1) // panel * ins * number * panel, count)
            u0 = k0 // panel * panel * ins * number + k0 % panel
            for e in range(count_e):
                then = u_stride if e + 1 < count_e else ins * panel - e * u_stride  # where weights are read next: of the next point, or panel
                product(
                    e, t, cols, ins, c_chunk, pieces, v, v0 + e * v_stride, ins_up, u, u0 + e * u_stride, panel, then, space, m0 + e * m_stride, width,
                    False, True,
                )  # fmt: skip
        else:
            for c0 in range(0, ins, c_chunk):
                n = min(c_chunk, ins - c0)
                u_stride = skew(n * number * width, count)
                for lane in range(0, width, count):
                    some = max(0, min(count, outs - k0 - lane))
                    call(
                        to_weights,
                        (
                            w, w0 + (k0 + lane) * k_stride + c0 * c_stride, k_stride, c_stride, turn, cut, some, n, space, chunk0 + lane, u_stride, width,
                            n, space, s0,
                        ),
                    )  # fmt: skip
                for e in range(count_e):
                    product(
                        e, t, cols, n, n, pieces, v, v0 + e * v_stride + c0 * number, ins_up, space, chunk0 + e * u_stride, width, 0, space, m0 + e * m_stride,
                        width, c0 > 0, False,
                    )  # fmt: skip
        for lane in range(0, cols, count):
            image_of(
                first, total, th, tiles, grid[0], grid[1], space, m0 + lane, m_stride, width, target, y, y0, k0 + lane, bias, bias0, activation, flags,
                space, s0,
            )  # fmt: skip

    return weights_block, fused_block, panel_block


def _gradient_work(name: str, count_e: int, to_kernel: Any) -> Any:
    """The block of the gradient with respect to the weights, once x and dy are transformed."""

    @separate(name=f"_{name}_kernel_block")
    def kernel_block(block, worker, k_rows, c_cols, outs, ins, cut, t, left, left_up, right, right_up, dw, dw0, accumulate, flags, space, each):
        """k_rows output channels by c_cols input channels of all pieces: dy's tiles by x's tiles, then back to kernels."""
        count = lanes(dw)
        width = NV * count
        k_blocks = (outs + k_rows - 1) // k_rows
        k0, c0 = block % k_blocks * k_rows, block // k_blocks * c_cols
        k_some, c_some, one = min(k_rows, outs - k0), min(c_cols, ins * cut[2] * cut[3] - c0), dw.dtype.type(1)
        taps = cut[0] * cut[1]
        e_stride = skew(k_rows * c_cols, count)
        left_stride, right_stride = skew(t * left_up, count), skew(t * right_up, count)
        m0 = worker * each
        s0 = m0 + count_e * e_stride
        parts = (t + KC - 1) // KC
        steps = (t + parts - 1) // parts  # at most KC, which leave a panel in L1
        for e in range(count_e):
            for z in range(0, t, steps):
                n = min(steps, t - z)
                pack_tiles(left, e * left_stride + z * left_up + k0, left_up, k_some, n, one, space, s0, MR * n)
                tiled_product(
                    k_some, c_some, n, space, s0, 1, MR, MR * n, right, e * right_stride + c0 * t + z * width, width, t * width,
                    space, m0 + e * e_stride, c_cols, z > 0,
                )  # fmt: skip
        for k in range(k_some):
            for c in range(0, c_some, count):
                piece, channel = (c0 + c) // ins, (c0 + c) % ins
                call(
                    to_kernel,
                    (
                        space, m0 + k * c_cols + c, e_stride, dw, dw0 + ((k0 + k) * ins + channel) * taps, cut, piece,
                        min(count, c_some - c), accumulate, flags, space, s0,
                    ),
                )  # fmt: skip

    return kernel_block


class _Variant(NamedTuple):
    """F(out_h x out_w, taps_h x taps_w)."""

    out_h: int
    taps_h: int
    out_w: int
    taps_w: int

    @property
    def name(self) -> str:
        return f"f{self.out_h}x{self.out_w}_{self.taps_h}x{self.taps_w}"

    @property
    def alpha_h(self) -> int:
        return self.out_h + self.taps_h - 1

    @property
    def alpha_w(self) -> int:
        return self.out_w + self.taps_w - 1


class _Launchers(NamedTuple):
    """What Python calls for one variant."""

    weights: Any
    fused: Any
    panels: Any
    gradient: Any


@cache
def _launchers(variant: _Variant, whole: bool) -> _Launchers:
    """Made when a convolution first wants them: all variants' together would take an import 70 ms on a Zen 1."""
    name = variant.name if whole else f"{variant.name}_in_pieces"
    (at_h, g_h, bt_h), (at_w, g_w, bt_w) = matrices(variant.out_h, variant.taps_h), matrices(variant.out_w, variant.taps_w)
    points = variant.alpha_h * variant.alpha_w
    product = _product_of_whole if whole else _product_of_pieces(variant.alpha_h, variant.alpha_w)
    to_tiles = _tiles_stage(f"_{name}_to_tiles", bt_h, bt_w, variant.out_h, variant.out_w)
    to_image = _image_stage(f"_{name}_to_image", at_h, at_w)
    to_weights = _weights_stage(f"_{name}_to_weights", g_h, g_w, whole)
    gradient_tiles = _tiles_stage(f"_{name}_gradient_tiles", _turned(at_h), _turned(at_w), variant.out_h, variant.out_w)
    to_kernel = _kernel_gradient_stage(f"_{name}_to_kernel", _turned(g_h), _turned(g_w), whole)
    weights_block, fused_block, panel_block = _work(name, points, to_tiles, product, to_image, to_weights)
    kernel_block = _gradient_work(name, points, to_kernel)
    tiles_block = _tiles_block(to_tiles, f"_{name}_tiles_block")
    dy_block = _tiles_block(gradient_tiles, f"_{name}_dy_block")

    @function
    def transform(threads, w, w0, k_stride, c_stride, turn, cut, outs, ins, chunk, c_chunk, u, space, each):
        width = NV * lanes(w)
        blocks = (outs + width - 1) // width * ((ins + c_chunk - 1) // c_chunk)
        parallel(weights_block, blocks, threads, (w, w0, k_stride, c_stride, turn, cut, outs, ins, chunk, c_chunk, u, space, each))

    @launcher(name=f"_{name}_weights")
    def weights(threads, w, w0, k_stride, c_stride, turn, cut, outs, ins, chunk, c_chunk, u, space, each):
        transform(threads, w, w0, k_stride, c_stride, turn, cut, outs, ins, chunk, c_chunk, u, space, each)

    @launcher(name=f"_{name}_fused")
    def fused(
        threads, rows, total, th, tiles, top, left, grid, pieces, chunk, source, target, x, x0, w, w0, k_stride, c_stride, turn, cut, c_chunk, u,
        y, y0, bias, bias0, activation, flags, space, each,
    ):  # fmt: skip
        """w is empty where u has been transformed ahead."""
        if w.size > 0:
            transform(threads, w, w0, k_stride, c_stride, turn, cut, target[7], source[7], chunk, c_chunk, u, space, each)
        blocks = min(total // grid[0], ((total + rows - 1) // rows + threads - 1) // threads * threads)
        parallel(
            fused_block,
            blocks,
            threads,
            (blocks, total, th, tiles, top, left, grid, pieces, chunk, source, target, x, x0, u, y, y0, bias, bias0, activation, flags, space, each),
        )

    @launcher(name=f"_{name}_panels")
    def panels(
        threads, rows, chunk, total, th, tiles, top, left, grid, pieces, source, target, x, x0, v, own, w, w0, k_stride, c_stride, turn, cut,
        c_chunk, u, y, y0, bias, bias0, activation, flags, space, each,
    ):  # fmt: skip
        count = lanes(y)
        ins, outs = source[7], target[7]
        depth = (ins * pieces[0] * pieces[1] + count - 1) // count * count
        # Blocks of a vector of channels, half a panel, where whole ones would leave threads without work.
        width = NV * count if outs > (threads - 1) * NV * count else count
        for first in range(0, total, chunk):
            last = min(total, first + chunk)
            groups = (last - first + rows - 1) // rows
            if own == 0:
                parallel(
                    tiles_block,
                    groups * ((ins + count - 1) // count),
                    threads,
                    (rows, first, last, th, tiles, top, left, grid, source, x, x0, c_chunk, v, depth, depth, space, each),
                )
            parallel(
                panel_block,
                (outs + width - 1) // width,
                threads,
                (
                    first, last, th, tiles, top, left, grid, pieces, ins, width, c_chunk, source, x, x0, target, v, own, depth,
                    w, w0, k_stride, c_stride, turn, cut, u, y, y0, bias, bias0, activation, flags, space, each,
                ),
            )  # fmt: skip

    @launcher(name=f"_{name}_gradient")
    def gradient(
        threads, rows, chunk, total, th, tiles, top, left, grid, dy_grid, cut, source, target, x, x0, dy, dy0, k_rows, c_cols, dw, dw0, accumulate,
        right, lefts, flags, space, each,
    ):  # fmt: skip
        count = lanes(x)
        width = NV * count
        ins, outs = source[7], target[7]
        depth = ins * cut[2] * cut[3]
        ins_up, outs_up = (depth + width - 1) // width * width, (outs + count - 1) // count * count
        tasks = ((outs + k_rows - 1) // k_rows) * ((depth + c_cols - 1) // c_cols)
        for first in range(0, total, chunk):
            last = min(total, first + chunk)
            groups = (last - first + rows - 1) // rows
            parallel(
                tiles_block,
                groups * ((ins + count - 1) // count),
                threads,
                (rows, first, last, th, tiles, top, left, grid, source, x, x0, ins, right, ins_up, width, space, each),
            )
            parallel(
                dy_block,
                groups * (outs_up // count),
                threads,
                (rows, first, last, th, tiles, 0, 0, dy_grid, target, dy, dy0, outs, lefts, outs_up, outs_up, space, each),
            )
            parallel(
                kernel_block,
                tasks,
                threads,
                (k_rows, c_cols, outs, ins, cut, (last - first) * tiles, lefts, outs_up, right, ins_up, dw, dw0, accumulate or first > 0, flags, space, each),
            )

    return _Launchers(weights, fused, panels, gradient)


# (kernel, precision) -> variants. Along one axis F(4, 3) and F(2, 5) err as much as the plain sum of products, along two less than
# twice as much; F(2, 7), with points up to 2 and down to a half, by five times as much along two. F(2, 11), which would need four
# more points, is off by 4e-4.
_VARIANTS: dict[tuple[tuple[int, int], str], tuple[_Variant, ...]] = {
    ((3, 3), "default"): (_Variant(4, 3, 4, 3), _Variant(2, 3, 2, 3)), ((3, 3), "highest"): (_Variant(2, 3, 2, 3),),
    ((4, 4), "default"): (_Variant(3, 4, 3, 4),),
    ((5, 5), "default"): (_Variant(2, 5, 2, 5),),
    ((1, 3), "default"): (_Variant(1, 1, 4, 3),), ((1, 3), "highest"): (_Variant(1, 1, 2, 3),),
    ((3, 1), "default"): (_Variant(4, 3, 1, 1),), ((3, 1), "highest"): (_Variant(2, 3, 1, 1),),
    ((1, 4), "default"): (_Variant(1, 1, 3, 4),), ((4, 1), "default"): (_Variant(3, 4, 1, 1),),
    ((1, 5), "default"): (_Variant(1, 1, 2, 5),), ((5, 1), "default"): (_Variant(2, 5, 1, 1),),
    ((7, 7), "default"): (_Variant(2, 7, 2, 7),),
    ((1, 7), "default"): (_Variant(1, 1, 2, 7),), ((7, 1), "default"): (_Variant(2, 7, 1, 1),),
}  # fmt: skip

# A tile is transformed once for each piece: 11x11 kernels have 16.
_MOST_PIECES = 16


class _Axis(NamedTuple):
    """One axis of a convolution as a sum of convolutions F(m, r).

    Attributes:
        kernel: taps of the whole kernel.
        pieces: how many; the last ``short`` of them, never all, have less than r taps.
        piece: taps of the kernel between the first ones of two pieces.
        tap: taps of the kernel between two of a piece.
        phases: convolutions whose results lie between one another.
        apart: pixels between two of a tile.
        ahead: pixels between the tiles of two pieces.
    """

    kernel: int
    pieces: int
    short: int
    piece: int
    tap: int
    phases: int
    apart: int
    ahead: int


def _axis(kernel: int, stride: int, dilation: int, taps: int) -> _Axis:
    if stride == 1:
        pieces = -(-kernel // taps)
        return _Axis(kernel, pieces, int(pieces * taps > kernel > 2), taps, 1, dilation, dilation, taps * dilation)
    return _Axis(kernel, stride, -kernel % stride if -(-kernel // stride) == taps else 0, 1, stride, 1, stride, 1)


class Way(NamedTuple):
    """A convolution by a variant, along both axes."""

    variant: _Variant
    h: _Axis
    w: _Axis

    @property
    def whole(self) -> bool:
        """Whether the kernel is the variant's own."""
        return self.pieces == 1 and (self.h.kernel, self.w.kernel) == (self.variant.taps_h, self.variant.taps_w)

    @property
    def pieces(self) -> int:
        return self.h.pieces * self.w.pieces

    @property
    def multiplications(self) -> int:
        """For a tile and a pair of channels."""
        return (self.variant.alpha_h * self.h.pieces - self.h.short) * (self.variant.alpha_w * self.w.pieces - self.w.short)

    def tiles(self, height: int, width: int) -> tuple[int, int]:
        """Tiles of an output of that size, whole phases of them."""
        h, w, v = self.h, self.w, self.variant
        return -(-height // (v.out_h * h.phases)) * h.phases, -(-width // (v.out_w * w.phases)) * w.phases


def _variants(spec: ConvSpec, direction: str) -> tuple[_Variant, ...]:
    """The variants that can make up such kernels with such strides."""
    kernel, strides = spec.kernel[1:], spec.stride[1:]
    # The weight gradient of F(2x2, 7x7) errs by 1.0e-5, that of nine pieces by 1.0e-6, for 1.04 to 1.3 of the time.
    better_in_pieces = direction == "grad_weight" and kernel == (7, 7) and spec.channels // spec.groups % LANES[spec.dtype] == 0
    if strides == (1, 1) and (kernel, spec.precision) in _VARIANTS and not better_in_pieces:
        return _VARIANTS[kernel, spec.precision]
    if spec.precision != "default" or any(stride > max(1, extent - 1) for extent, stride in zip(kernel, strides)):
        return ()
    taps = [1 if extent == 1 else 3 if stride == 1 and extent > 2 else -(-extent // stride) for extent, stride in zip(kernel, strides)]
    most = max(taps)
    if most not in (2, 3):
        return ()
    return tuple(_Variant(*(extent for n in taps for extent in ((1, 1) if n == 1 else (m, most)))) for m in (4, 2))


def _ways(spec: ConvSpec, direction: str) -> list[Way]:
    (_, r, s), (_, *strides), (_, *dilations) = spec.kernel, spec.stride, spec.dilation
    return [
        Way(variant, _axis(r, strides[0], dilations[0], variant.taps_h), _axis(s, strides[1], dilations[1], variant.taps_w))
        for variant in _variants(spec, direction)
    ]


@lru_cache(maxsize=1024)
def way_of(spec: ConvSpec, direction: str) -> Way | None:
    """The variant that takes least. F(2x2, 3x3) multiplies more and has 16 numbers for each kernel instead of 36: 512 channels at 7x7
    take 0.6 ms with weights at hand, by F(4x4, 3x3) 1.2; 3x3 at stride 2, in pieces, has 25 instead of 81. For the gradient of the
    weights it is hardly ever faster.
    """
    ways = _ways(spec, direction)[: 1 if direction == "grad_weight" else None]
    return min(ways, key=lambda way: _nanoseconds(spec, direction, way), default=None)


@lru_cache(maxsize=1024)
def prepared_way_of(spec: ConvSpec) -> Way | None:
    """The forward variant with weights that are prepared ahead: where they need not be transformed again, and where fewer come from memory."""
    ways = _ways(spec, "forward")
    return min(ways, key=lambda way: _prepared_nanoseconds(spec, way), default=None) if LARGE_CORE else way_of(spec, "forward")


# Scratch: with all of it in L2 the fused order runs best; transformed weights beyond _SHARED go panel by panel. Large Intel cores get few
# bytes a cycle from L3: there the fused order reads weights of up to 12 MB once for as many tiles as 16 MB leave room for, and the
# order by panels, which reads all tiles again for each panel, is for fewer tiles and for more weights. 256 channels at 56x56, batch of 8, on
# a Granite Rapids: by panels 73 ms, fused by 56 tiles 56, by 84 tiles 53; at 14x14 5.8 and 4.8. Few tiles are passed on between stages, and
# between threads, in place of more weights: one image of 256 channels at 14x14 0.85 ms by panels, 1.3 fused, of 128 at 28x28 on two threads
# 0.45 and 0.63.
_FUSED_BYTES = 1 << 20
_SHARED_WEIGHTS_BYTES = (12 if LARGE_CORE else 4) << 20
_NEAR_WEIGHTS_BYTES = 2 << 20
_FUSED_FAR_BYTES, _FUSED_FAR_TILES = 6 << 20, 112
_FEW_TILES = 64
# Transformed weights, four times as many as there were, are not always worth having ahead: in a network they come from L3 or memory, 9 to 26 GB/s
# there. 512 channels at 7x7, one image, took 2.1 ms with them and 1.7 without, 64 at 56x56 0.59 and 0.62. Beyond the first limit they are
# where the order is by panels, which asks for them ahead, and each is used for enough tiles to come in the meantime: in ResNet-18
# 128 channels at 28x28 0.65 ms without and 0.56 with them, 256 at 14x14 0.93 and, by F(2x2, 3x3), 0.78; by F(4x4, 3x3), 16 tiles, 1.45.
_AHEAD_BYTES = 1 << 20
_ASKED_AHEAD_BYTES, _ASKED_AHEAD_TILES = 6 << 20, 40
_TILES_BYTES = 8 << 20
_ROW_BYTES = 8 << 20
# Input channels (of all pieces) of a panel that are transformed at a time, 0.6 MB of weights: 512 channels at 7x7 take 2.15 ms, 2.25 by 64 or 192.
_C_CHUNK = 128
# Where many tiles share them, more: their rows come from L3, in order. 512 channels at 28x28, batch of 8, on a Granite Rapids by 128 channels at
# a time 76 ms, by 512 66; but 14x14 pixels of one image, 16 tiles, 3.6 and 4.9.
_LONG_C_CHUNK, _LONG_TILES = 512, 64
# Tiles of a chunk from which the weight gradient's tasks are larger.
_LARGE_TASK_TILES = 48


def _skewed(n: int, count: int) -> int:
    return (-(-n // count) | 1) * count


class _Geometry:
    """Sizes of one convolution."""

    def __init__(self, spec: ConvSpec, way: Way, images: int, source: Side, target: Side, height: int, width: int) -> None:
        self.way, self.variant = way, way.variant
        self.lanes = LANES[spec.dtype]
        self.width = panel_width(spec.dtype)
        self.itemsize = spec.itemsize
        self.points = self.variant.alpha_h * self.variant.alpha_w
        self.ins, self.outs = source.channels, target.channels
        self.depth = self.ins * way.pieces
        # Channels whose pieces stand together.
        self.together = max(self.lanes, _C_CHUNK // way.pieces // self.lanes * self.lanes)
        # Of a panel, those whose weights a thread transforms at once where all are transformed ahead.
        self.channels = 16 if way.pieces == 1 else self.together
        self.th, self.tiles = way.tiles(height, width)
        self.total = images * self.th
        self.weights_count = self.points * _skewed(up(self.outs, self.width) * self.depth, self.lanes)
        self.kernel = spec.kernel[1:]
        self.cut = (*self.kernel, way.h.pieces, way.w.pieces, way.h.piece, way.w.piece, way.h.tap, way.w.tap)
        self.pieces = (way.h.pieces, way.w.pieces, way.h.short, way.w.short)
        self.grid = (way.h.phases, way.w.phases, way.h.apart, way.w.apart, way.h.pieces, way.w.pieces, way.h.ahead, way.w.ahead)
        self._source, self._target = source.dims[5:7], target.dims[5:7]

    def stage_space(self, rows: int) -> int:
        """The stages' own scratch, for so many rows of tiles."""
        v, (_, h, w) = self.variant, self.way
        high, wide = ((n - 1) // axis.phases + 2 for n, axis in ((min(rows, self.th), h), (self.tiles, w)))  # tiles of a phase, and a part more
        high, columns = (
            n * out * axis.apart + alpha * axis.apart + axis.pieces * axis.ahead
            for n, out, alpha, axis in ((high, v.out_h, v.alpha_h, h), (wide, v.out_w, v.alpha_w, w))
        )
        # Rows of an image that are read, or of whole tiles that are written.
        strip = max(*(min(high, height) * width for height, width in (self._source, self._target)), up(rows, h.phases) * v.out_h * self._target[1])
        return (strip + v.alpha_h * columns + 2 * v.alpha_h * v.alpha_w + 4 * self.lanes) * self.lanes

    def weights_space(self) -> int:
        v = self.variant
        return (v.alpha_h * v.taps_w + v.taps_h * v.taps_w + self.lanes * (prod(self.kernel) + 1)) * self.lanes

    def fused_space(self, rows: int) -> int:
        t = rows * self.tiles
        products = self.points * sum(_skewed(t * up(channels, self.lanes), self.lanes) for channels in (self.depth, self.outs))
        return up(products + self.stage_space(rows), 16)

    def fused_rows(self, threads: int) -> int:
        """Rows of tiles a block: about 56 tiles, less where L2 or the number of threads asks for it."""
        per_tile = self.points * (up(self.depth, self.lanes) + up(self.outs, self.lanes)) * self.itemsize
        far = LARGE_CORE and self.weights_count * self.itemsize > _NEAR_WEIGHTS_BYTES
        most, room = (_FUSED_FAR_TILES, _FUSED_FAR_BYTES) if far else (56, _FUSED_BYTES)
        tiles = max(8, min(most, room // per_tile))
        rows = max(1, tiles // self.tiles)
        # Two blocks a thread; where each reads weights from L3, one.
        return self._whole(min(rows, -(-self.total // (threads if far else 2 * threads))) if threads > 1 else rows)

    def _whole(self, rows: int) -> int:
        """Rows of all phases."""
        phases = self.way.h.phases
        return max(phases, rows // phases * phases)

    def tiles_chunk(self) -> int:
        """Rows of tiles transformed at once in the order by panels, each of which multiplies them all."""
        per_row, products = (self.points * self.tiles * n * self.itemsize for n in (up(self.depth, self.lanes), self.width))
        return self._whole(min(self.total, _TILES_BYTES // per_row, _TILES_BYTES * 3 // 2 // (per_row + products)))

    def tiles_space(self, chunk: int, channels: int) -> int:
        """Elements of so many rows of transformed tiles."""
        return self.points * _skewed(chunk * self.tiles * channels, self.lanes)

    def panel_channels(self, chunk: int) -> int:
        """Channels whose weights are transformed at a time in the order by panels."""
        long = LARGE_CORE and self.way.pieces == 1 and chunk * self.tiles >= _LONG_TILES
        return min(_LONG_C_CHUNK, up(self.ins, self.lanes)) if long else self.together

    def panel_space(self, chunk: int) -> int:
        weights = _skewed(self.panel_channels(chunk) * self.way.pieces * self.width, self.lanes)
        panel = self.points * (_skewed(chunk * self.tiles * self.width, self.lanes) + weights)
        return up(panel + max(self.stage_space(chunk), self.weights_space()), 16)


class Convolution:
    """forward, and the gradient with respect to the input, which is a forward convolution of other arrays."""

    def __init__(self, spec: ConvSpec, direction: str, activation: int, way: Way | None) -> None:
        assert way is not None
        self.spec, self.direction, self.code = spec, direction, activation
        self.launch = _launchers(way.variant, way.whole)
        reach_h, reach_w = ((n - 1) * dilation for n, dilation in zip(spec.kernel[1:], spec.dilation[1:]))
        (_, (top, _), (left, _)) = spec.padding
        x, y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        per_group = spec.channels // spec.groups
        taps = prod(spec.kernel)
        self.activation = activation_entry(activation, spec.dtype)
        self.groups, self.dtype = spec.groups, spec.dtype
        self.w_group = spec.out_channels // spec.groups * per_group * taps
        if direction == "forward":
            self.source, self.target, self.turn = x, y, False
            self.pads = (top, left)
            self.k_stride, self.c_stride = per_group * taps, taps
        else:
            self.source, self.target, self.turn = y, x, True
            self.pads = (reach_h - top, reach_w - left)
            self.k_stride, self.c_stride = taps, per_group * taps
        height, width = self.target.dims[5], self.target.dims[6]
        self.geometry = _Geometry(spec, way, spec.batch * self.source.dims[0], self.source, self.target, height, width)
        self.work_ns = spec.flops / 400 * (spec.itemsize / 4)
        self._layouts: dict[int, tuple[bool, int, int, int, int, int]] = {}  # by the number of threads: 6 us of each call
        self.format = ("winograd", way.variant.name, spec.dtype, direction, spec.groups, spec.weight_shape, self.geometry.cut)

    def plan(self) -> Plan:
        return Plan(self.run, self.transform, self.format) if self.transforms_ahead else Plan(self.run)

    @property
    def transforms_ahead(self) -> bool:
        """Whether weights that are prepared are transformed."""
        g = self.geometry
        size = g.weights_count * g.itemsize
        return not LARGE_CORE or size <= _AHEAD_BYTES or (self.few and size <= _ASKED_AHEAD_BYTES and g.total * g.tiles >= _ASKED_AHEAD_TILES)

    @property
    def few(self) -> bool:
        """Whether there are so few tiles that these are passed on between stages, and threads, in place of weights."""
        g = self.geometry
        tiles = g.total * g.tiles
        return LARGE_CORE and tiles < _FEW_TILES and 5 * tiles < 4 * g.outs

    def fused(self, threads: int) -> bool:
        """Which order of work; both give the same bits."""
        g = self.geometry
        if self.few or g.weights_count * g.itemsize > _SHARED_WEIGHTS_BYTES or up(g.outs, g.width) // g.width >= 4 * g.total:
            return False
        return g.total >= 2 * threads or g.total * g.width >= g.outs

    def workspace(self, threads: int) -> int:
        g = self.geometry
        if self.fused(threads):
            return g.itemsize * (g.weights_count + threads * g.fused_space(g.fused_rows(threads)))
        chunk = g.tiles_chunk()
        return g.itemsize * (g.tiles_space(chunk, up(g.depth, g.lanes)) * (threads if self.few else 1) + threads * g.panel_space(chunk))

    def transform(self, w: np.ndarray) -> np.ndarray:
        """All transformed weights, a row for each group."""
        g = self.geometry
        threads = _threads.threads_for(w.size)
        u = aligned(self.groups * g.weights_count, self.dtype).reshape(self.groups, g.weights_count)
        u[...] = 0
        space = empty(threads * g.weights_space(), self.dtype)
        for group in range(self.groups):
            self.launch.weights(
                threads, w.reshape(-1), group * self.w_group, self.k_stride, self.c_stride, self.turn, g.cut, g.outs, g.ins, g.together, g.channels,
                u[group], space, g.weights_space(),
            )  # fmt: skip
        return u

    def run(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: np.ndarray | None = None) -> None:
        if not self.attempt(x, w, bias, y, prepared):
            getattr(implicit.STRATEGY, self.direction)(self.spec, self.code).run(x, w, bias, y)

    def _layout(self, threads: int) -> tuple[bool, int, int, int, int, int]:
        """The order of work, rows of a block, rows of a chunk, elements of the tiles and of those that each thread has for itself, scratch of a thread."""
        g, fused = self.geometry, self.fused(threads)
        rows, chunk = g.fused_rows(threads), g.tiles_chunk()
        tiles_count = 0 if fused else g.tiles_space(chunk, up(g.depth, g.lanes))
        own = tiles_count if threads > 1 and self.few else 0
        each = max(g.weights_space(), g.fused_space(rows) if fused else max(g.panel_space(chunk), g.stage_space(rows)))
        return fused, rows, chunk, tiles_count * (threads if own else 1), own, each

    def attempt(self, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray, prepared: np.ndarray | None) -> bool:
        """Whether it worked: if something is infinite or not a number, the transforms have spread it over whole tiles."""
        g = self.geometry
        x, w, y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        threads = _threads.threads_for(self.work_ns)
        flags = np.zeros(1 + threads, np.intp)
        if threads not in self._layouts:
            self._layouts[threads] = self._layout(threads)
        fused, rows, chunk, tiles_count, own, each = self._layouts[threads]
        weights_count = g.weights_count if fused and prepared is None else 0
        memory = scratch(weights_count + tiles_count + threads * each, self.dtype)
        u, v, space = memory[:weights_count], memory[weights_count : weights_count + tiles_count], memory[weights_count + tiles_count :]
        for group in range(self.groups):
            ready = u if prepared is None else prepared[group]
            x0, y0 = group * self.source.group, group * self.target.group
            flags[1:] = 0
            if fused:
                self.launch.fused(
                    threads, rows, g.total, g.th, g.tiles, *self.pads, g.grid, g.pieces, g.together, self.source.dims, self.target.dims, x, x0,
                    w if prepared is None else w[:0], group * self.w_group, self.k_stride, self.c_stride, self.turn, g.cut, g.channels, ready,
                    y, y0, bias, group * g.outs, self.activation, flags, space, each,
                )  # fmt: skip
            else:
                self.launch.panels(
                    threads, rows, chunk, g.total, g.th, g.tiles, *self.pads, g.grid, g.pieces, self.source.dims, self.target.dims, x, x0, v, own, w,
                    group * self.w_group, self.k_stride, self.c_stride, self.turn, g.cut, g.panel_channels(chunk), ready,
                    y, y0, bias, group * g.outs, self.activation, flags, space, each,
                )  # fmt: skip
        return not flags[0]


class KernelGradient:
    """The gradient with respect to the weights."""

    def __init__(self, spec: ConvSpec, way: Way | None) -> None:
        assert way is not None
        self.spec, self.launch = spec, _launchers(way.variant, way.whole).gradient
        x, y = side(spec, spec.size, spec.channels), side(spec, spec.out_size, spec.out_channels)
        self.x, self.y, self.groups, self.dtype = x, y, spec.groups, spec.dtype
        self.pads = (spec.padding[1][0], spec.padding[2][0])
        self.w_group = spec.weight_shape[0] // spec.groups * prod(spec.weight_shape[1:])
        g = self.geometry = _Geometry(spec, way, spec.batch * x.dims[0], x, y, spec.out_size[1], spec.out_size[2])
        self.work_ns = spec.flops / 300 * (spec.itemsize / 4)
        # dy is cut without pieces, but in the same phases.
        self.dy_grid = (way.h.phases, way.w.phases, way.h.phases, way.w.phases, 1, 1, 0, 0)
        self.ins_up, self.outs_up = up(g.depth, g.width), up(g.outs, g.lanes)
        per_row = g.points * g.tiles * (self.ins_up + self.outs_up) * g.itemsize
        # Fixed by the shape alone: it decides in which order the tiles are added.
        self.chunk = max(1, min(g.total, _TILES_BYTES // per_row))

    def _tasks(self, threads: int) -> tuple[int, int]:
        """Output and input channels of a task: its products (points x k_rows x c_cols) should stay in L2.

        Large Intel cores get few bytes a cycle from L3, whence tasks have their tiles: with many of them, tasks are larger (256 channels at
        56x56, batch of 8, on a Granite Rapids 79 to 64 ms).
        """
        g = self.geometry
        most, panels = (64, 8) if LARGE_CORE and self.chunk * g.tiles >= _LARGE_TASK_TILES else (32, 4)
        k_rows, c_cols = min(g.outs, most // MR * MR), min(self.ins_up, panels * g.width)
        while threads > 1 and -(-g.outs // k_rows) * -(-g.depth // c_cols) < 2 * threads:
            if c_cols > g.width:
                c_cols = up(c_cols // 2, g.width)
            elif k_rows > MR:
                k_rows = max(MR, k_rows // 2 // MR * MR)
            else:
                break
        return k_rows, c_cols

    def _rows(self, threads: int) -> int:
        """Rows of tiles in a block of the transforms: fewer read pixels more often, but many threads must all have work."""
        g = self.geometry
        return max(1, min(4, self.chunk * (up(g.ins, g.lanes) // g.lanes) // (2 * threads)))

    def _each(self, threads: int) -> int:
        g = self.geometry
        k_rows, c_cols = self._tasks(threads)
        then = max(up(k_rows, MR) * KC, g.weights_space() + g.points * g.lanes)
        return up(max(g.points * _skewed(k_rows * c_cols, g.lanes) + then, g.stage_space(4)), 16)

    def workspace(self, threads: int) -> int:
        g = self.geometry
        return g.itemsize * (g.tiles_space(self.chunk, self.ins_up) + g.tiles_space(self.chunk, self.outs_up) + threads * self._each(threads))

    def run(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
        if not self.attempt(x, dy, dw, False):
            implicit.STRATEGY.grad_weight(self.spec)(x, dy, dw)

    def attempt(self, x: np.ndarray, dy: np.ndarray, dw: np.ndarray, accumulate: bool) -> bool:
        """As that of a convolution; adds to dw where it is to accumulate."""
        g = self.geometry
        x, dy, dw = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
        flags = np.zeros(1, np.intp)
        threads = _threads.threads_for(self.work_ns)
        k_rows, c_cols = self._tasks(threads)
        each = self._each(threads)
        split, used = (g.tiles_space(self.chunk, self.ins_up), g.tiles_space(self.chunk, self.ins_up) + g.tiles_space(self.chunk, self.outs_up))
        memory = scratch(used + threads * each, self.dtype)
        right, left, space = memory[:split], memory[split:used], memory[used:]
        for group in range(self.groups):
            self.launch(
                threads, self._rows(threads), self.chunk, g.total, g.th, g.tiles, *self.pads, g.grid, self.dy_grid, g.cut, self.x.dims, self.y.dims,
                x, group * self.x.group, dy, group * self.y.group, k_rows, c_cols, dw, group * self.w_group, accumulate, right, left, flags, space,
                each,
            )  # fmt: skip
        return not flags[0]


def _row_bytes(spec: ConvSpec, direction: str, way: Way) -> int:
    """Memory of the shortest piece of work, one row of tiles of each phase: before and after the products."""
    width = spec.size[2] if direction == "grad_input" else spec.out_size[2]
    ins, outs = spec.channels, spec.out_channels
    if direction == "grad_input":
        ins, outs = outs, ins
    channels = up(ins // spec.groups * way.pieces, panel_width(spec.dtype)) + up(outs // spec.groups, panel_width(spec.dtype))
    return way.variant.alpha_h * way.variant.alpha_w * way.h.phases * way.tiles(1, width)[1] * channels * spec.itemsize


def _accepts(spec: ConvSpec, direction: str) -> str | None:
    if spec.kernel[0] != 1 or spec.stride[0] != 1 or spec.padding[0] != (0, 0):
        return "the kernel must be flat in depth"
    strided = spec.stride != (1, 1, 1)
    if strided and spec.dilation != (1, 1, 1):
        return "the stride or the dilation must be 1"
    if strided and direction == "grad_input":
        return "the stride must be 1 for the gradient with respect to the input"
    way = way_of(spec, direction)
    if way is None:
        if spec.precision == "default":
            return "the kernel must be larger than the stride, and at most three times as large where that is not 1; or 1 without a stride, along one axis"
        kernels = ", ".join(f"{r}x{s}" for (r, s), precision in _VARIANTS if precision == spec.precision)
        return f"the kernel must be one of {kernels}, with stride 1, at precision {spec.precision!r}"
    if way.pieces > _MOST_PIECES:
        return f"the kernel must be made of at most {_MOST_PIECES} pieces"
    lanes = LANES[spec.dtype]
    if way.pieces > 1 and (spec.out_channels if direction == "grad_input" else spec.channels) // spec.groups % lanes:
        return f"the kernel must be in one piece, or the channels of a group a multiple of {lanes}"
    if _row_bytes(spec, direction, way) > _ROW_BYTES:
        return f"a row of transformed tiles must fit {_ROW_BYTES >> 20} MB"
    return None


_FAR_PIECES = 1.3


def _nanoseconds(spec: ConvSpec, direction: str, way: Way, *, transformed: bool = False) -> float:
    """Time of one group and one thread, fitted to one core: the products, the transforms of tiles, those of kernels unless they are ``transformed``."""
    count = LANES[spec.dtype]
    tiles = spec.batch * spec.out_size[0] * prod(way.tiles(*(spec.size[1:] if direction == "grad_input" else spec.out_size[1:])))
    points = way.variant.alpha_h * way.variant.alpha_w
    c, k = spec.channels // spec.groups, spec.out_channels // spec.groups
    ins, outs = (k, c) if direction == "grad_input" else (c, k)
    # A vector that is not full takes masked loads and stores, one for each lane.
    vectors = sum(n // count * pieces + (2.5 if n % count else 0) for n, pieces in ((ins, way.pieces), (outs, 1)))
    kernels = (16 * c * up(k, count) if direction == "grad_weight" else 6 * ins * up(outs, count)) * way.pieces / count
    kernels *= 0 if transformed else max(1, way.variant.taps_h * way.variant.taps_w / 9)
    if min(c, k) < 5:
        # Of a handful of channels, lane by lane, a tile's place costs more than its transform.
        vectors += 2.0 if direction == "forward" else 6.0
    # The transforms of the weight gradient go through memory, all tiles of them.
    transforms = (12 if direction == "grad_weight" else 6) * tiles * vectors
    # Fewer tiles than a register tile has rows leave it half used.
    multiplications = points * way.pieces if direction == "grad_weight" else way.multiplications
    product = 1.3 * multiplications * max(tiles, 5) * ins * up(outs, count) / count / FMAS_PER_CYCLE
    cycles = product + points * (transforms + kernels)
    # Kernels in pieces, tiles of several phases and gradients of large kernels have more to fetch from L3, which is slower there: on a
    # Granite Rapids most take 1.1 to 1.65 times as long as predicted, while ``implicit`` takes what it should.
    large = direction == "grad_weight" and way.variant.taps_h * way.variant.taps_w > 9
    if LARGE_CORE and (way.pieces > 1 or way.h.phases * way.w.phases > 1 or large):
        cycles *= _FAR_PIECES
    return float(cycles / CYCLES_PER_NS)


# Transformed tiles that another thread wrote: with two threads the weight gradient of 7x7 kernels of 3 channels at stride 2 takes 1.7 ms where
# a line gets from one core to the other in 35 ns, 5.3 where it takes 170 (2.2 with one thread). By ``implicit`` 1.24 and 1.34.
_NS_PER_SHARED_BYTE = 0.06


def _cost(spec: ConvSpec, direction: str, threads: int) -> float:
    way = way_of(spec, direction)
    assert way is not None
    ns = _nanoseconds(spec, direction, way)
    if direction == "grad_weight" and threads > 1:
        g = KernelGradient(spec, way).geometry
        ns += _NS_PER_SHARED_BYTE * g.itemsize * g.points * g.total * g.tiles * (up(g.depth, g.width) + up(g.outs, g.lanes))
    return spec.groups * (ns / threads + 6_000)


# Weights that stay as they are, on their way from memory. 512 channels at 7x7 in a network: 1.4 ms are 1.7; by ``implicit`` 1.24.
_NS_PER_FAR_BYTE = 0.028


def _prepared_nanoseconds(spec: ConvSpec, way: Way) -> float:
    """As ``_nanoseconds``, with weights that are prepared ahead.

    Those in pieces save less than predicted: 64 to 128 channels at stride 2 in ResNet-18 take 1.04 ms, by ``implicit`` 0.79.
    """
    if Convolution(spec, "forward", 0, way).transforms_ahead:
        return _nanoseconds(spec, "forward", way, transformed=way.pieces == 1)
    return _nanoseconds(spec, "forward", way) + _NS_PER_FAR_BYTE * prod(spec.weight_shape) * spec.itemsize / spec.groups


def _ahead(spec: ConvSpec) -> float:
    """Elsewhere the choice with prepared weights was measured without it, and stays as it was."""
    way, prepared = way_of(spec, "forward"), prepared_way_of(spec)
    assert way is not None
    assert prepared is not None
    return spec.groups * (_nanoseconds(spec, "forward", way) - _prepared_nanoseconds(spec, prepared)) if LARGE_CORE else 0.0


def _workspace(spec: ConvSpec, direction: str, threads: int) -> int:
    if direction == "grad_weight":
        return KernelGradient(spec, way_of(spec, "grad_weight")).workspace(threads)
    return Convolution(spec, direction, 0, way_of(spec, direction)).workspace(threads)


STRATEGY = Strategy(
    name="winograd",
    accepts=_accepts,
    cost=_cost,
    workspace=_workspace,
    forward=lambda spec, activation: Convolution(spec, "forward", activation, way_of(spec, "forward")).plan(),
    grad_input=lambda spec, activation: Convolution(spec, "grad_input", activation, way_of(spec, "grad_input")).plan(),
    grad_weight=lambda spec: KernelGradient(spec, way_of(spec, "grad_weight")).run,
    exact=False,
    ahead=_ahead,
    prepared=lambda spec, activation: Convolution(spec, "forward", activation, prepared_way_of(spec)).plan(),
)
