"""The product of a block of A with panels of B: the one inner loop under GEMM and every convolution.

A is read where it lies, with any row and column stride: its elements are broadcast, so neither order costs more than
the other. B is read in vectors of NR columns, from packed panels or from a row-major matrix. C is row-major.

Rows left over by the register tile are done by shorter tiles, columns left over by a masked store: nothing is computed
twice, and no memory outside C is touched. Every element of C sees the same chain of multiply-adds whatever tile it
falls into, so the result does not depend on how the caller cuts C into blocks. (``_columns`` adds in another order; which
columns it gets must not depend on that either.)
"""

from __future__ import annotations

from typing import Any

from fastops._jit import call, formula, function, separate
from fastops.simd.blocking import LANES, LARGE_CORE, MR, NV
from fastops.simd.vector import (
    apart,
    element,
    elements,
    lane_products,
    lane_products_part,
    lane_sums,
    lanes,
    load,
    load_part,
    load_square_part,
    load_tile,
    load_tile_part,
    offsets,
    outer,
    outer_at,
    outer_packing,
    prefetch_near,
    prefetch_to_write,
    row_sums,
    spaced,
    store_runs,
    store_tile,
    store_tile_part,
    tile_add,
    tile_confine,
    tile_fma,
    tile_load_rows,
    tile_load_rows_part,
    tile_splat_rows,
    uncounted,
    zero_tile,
)  # fmt: skip

# Where the sums of a tile begin: at zero, at what C holds, or at one number for each row.
ZERO, SUM, BIAS = range(3)


# Steps of a tile without counting, where a's lie side by side: their addresses need no additions. On a Granite Rapids
# 1024 x 1024 x 1024 goes from 0.91 to 0.95 of MKL's speed, and 256 x 3136 x 64 from 0.92 to 0.98.
_UNROLLED = 4


@formula
def _side_by_side(t, steps, a, a0, a_row, b, b0, b_row):
    """t + so many steps, counted by _UNROLLED, of rows whose elements follow one another in a, and of rows of b."""
    for _ in range(steps // _UNROLLED):
        t = outer(t, a, a0, a_row, b, b0)
        t = outer(t, a, a0 + 1, a_row, b, b0 + b_row)
        t = outer(t, a, a0 + 2, a_row, b, b0 + 2 * b_row)
        t = outer(t, a, a0 + 3, a_row, b, b0 + 3 * b_row)
        a0, b0 = apart(a0 + _UNROLLED), b0 + _UNROLLED * b_row
    return t


def _tile_product(rows: int, vectors: int, asks: bool = False) -> Any:
    @formula
    def product(cols, depth, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, start, old, old0, old_row, confined, low, high, ask=0, ask_step=0):
        """With ``asks``, asks in each step for b[ask], b[ask + ask_step] and so on."""
        whole = cols >= vectors * lanes(b)
        t = zero_tile(b, rows, vectors)
        if start == BIAS:
            t = tile_splat_rows(t, old, old0, old_row)
        elif start == SUM:
            if whole:
                t = tile_load_rows(t, old, old0, old_row)
            else:
                t = tile_load_rows_part(t, old, old0, old_row, cols)
        # Addresses of rows begin at one number that the compiler does not see through (``apart``). Left alone it kept an address for each
        # row, and eight additions a step took as long as the multiply-adds of one vector.
        left = depth
        if rows == MR and vectors == NV and not asks and a_col == 1:
            t = _side_by_side(t, depth, a, a0, a_row, b, b0, b_row)
            left = depth % _UNROLLED
            a0, b0 = a0 + depth - left, b0 + (depth - left) * b_row
        for _ in range(left):
            if asks:
                prefetch_near(b, ask)
                ask += ask_step
            t = outer(t, a, a0, a_row, b, b0)
            a0, b0 = apart(a0 + a_col), b0 + b_row
        if confined:
            t = tile_confine(t, low, high)
        if whole:
            store_tile(c, c0, c_row, t)
        else:
            store_tile_part(c, c0, c_row, t, cols)

    return product


_whole, _four, _two, _one = (_tile_product(rows, NV) for rows in (MR, 4, 2, 1))
# For the last columns where one vector holds them: 16 of 32, as of a gradient of 16 x 96 weights, take half the time.
_whole_narrow = _tile_product(MR, 1)
_whole_asking = _tile_product(MR, NV, asks=True)


@separate
def finished_product(
    rows, cols, depth, a, a0, a_row, a_col, a_tile, b, b0, b_row, b_panel, c, c0, c_row, start, old, old0, old_row, confined, low, high,
):  # fmt: skip
    """As ``tiled_product``; with ``confined`` sums end between limits (NaN is none).

    They begin where ``start`` says: that of row i, column j at zero, at old[old0 + i * old_row] for BIAS, or at old[old0 + i * old_row + j]
    for SUM, which is what c holds, or with rows 0 apart a number for each column.

    A pass over memory for the bias and another for relu took a quarter of the time of 16 to 96 channels.
    """
    a, b, c, old = uncounted(a), uncounted(b), uncounted(c), uncounted(old)
    width = NV * lanes(b)
    for j in range(0, cols, width):
        panel, to = b0 + j // width * b_panel, c0 + j
        begun = old0 + (0 if start == BIAS else j)
        left = cols - j
        i, at = 0, a0
        narrow = left <= lanes(b)
        while rows - i >= MR:
            y = to + i * c_row
            if narrow:
                _whole_narrow(left, depth, a, at, a_row, a_col, b, panel, b_row, c, y, c_row, start, old, begun + i * old_row, old_row, confined, low, high)
            else:
                _whole(left, depth, a, at, a_row, a_col, b, panel, b_row, c, y, c_row, start, old, begun + i * old_row, old_row, confined, low, high)
            i += MR
            at += a_tile
        if rows - i >= 4:
            y = to + i * c_row
            _four(left, depth, a, at, a_row, a_col, b, panel, b_row, c, y, c_row, start, old, begun + i * old_row, old_row, confined, low, high)
            i += 4
            at += 4 * a_row
        if rows - i >= 2:
            y = to + i * c_row
            _two(left, depth, a, at, a_row, a_col, b, panel, b_row, c, y, c_row, start, old, begun + i * old_row, old_row, confined, low, high)
            i += 2
            at += 2 * a_row
        if rows - i >= 1:
            y = to + i * c_row
            _one(left, depth, a, at, a_row, a_col, b, panel, b_row, c, y, c_row, start, old, begun + i * old_row, old_row, confined, low, high)


@separate
def _asking_product(
    rows, cols, depth, a, a0, a_row, a_col, a_tile, b, b0, b_row, b_panel, c, c0, c_row, start, old, old0, old_row, confined, low, high,
):  # fmt: skip
    """As ``finished_product``; the tiles of each panel ask, evenly, for the one ``b_panel`` behind it."""
    a, b, c, old = uncounted(a), uncounted(b), uncounted(c), uncounted(old)
    width, tiles = NV * lanes(b), rows // MR
    for j in range(0, cols, width):
        panel, done = b0 + j // width * b_panel, 0
        begun = old0 + (0 if start == BIAS else j)
        if tiles > 0 and cols - j >= width:
            ask_step = (width + tiles - 1) // tiles
            for z in range(tiles):
                at, y = a0 + z * a_tile, c0 + done * c_row + j
                _whole_asking(
                    width, depth, a, at, a_row, a_col, b, panel, b_row, c, y, c_row, start, old, begun + done * old_row, old_row, confined, low, high,
                    panel + b_panel + z * depth * ask_step, ask_step,
                )  # fmt: skip
                done += MR
        if done < rows:
            call(finished_product, (
                rows - done, min(width, cols - j), depth, a, a0 + done // MR * a_tile, a_row, a_col, a_tile, b, panel, b_row, b_panel,
                c, c0 + done * c_row + j, c_row, start, old, begun + done * old_row, old_row, confined, low, high,
            ))  # fmt: skip


# For panels that come from L3 or memory.
far_product = _asking_product if LARGE_CORE else finished_product


# How many panels ahead a row-major matrix is asked for, into L2. 24 rows by 144 steps, with b in L3, on a core of Emerald Rapids:
# 88 GFLOP/s without, 97 where the next panel is asked for, 116 the one after it, 114 four ahead; into L1 91, 104 and 103.
_AHEAD = 2


@formula
def _begun(b, c, c0, c_row, start, bias, bias0):
    """A whole tile of MR rows before its first step."""
    t = zero_tile(b, MR, NV)
    if start == BIAS:
        t = tile_splat_rows(t, bias, bias0, 1)
    elif start == SUM:
        t = tile_load_rows(t, c, c0, c_row)
    return t


@formula
def _end(t, c, c0, c_row, confined, low, high):
    if confined:
        t = tile_confine(t, low, high)
    store_tile(c, c0, c_row, t)


@formula
def _reading(depth, a, a0, a_row, a_col, b, b0, b_row, first, c, c0, c_row, start, bias, bias0, confined, low, high):
    """A tile of MR rows; step k asks for vector ``first + k``, counted along the rows of a panel that is read later."""
    t = _begun(b, c, c0, c_row, start, bias, bias0)
    later = b0 + _AHEAD * NV * lanes(b)
    for i in range(first, first + depth):
        prefetch_near(b, later + i // NV * b_row + i % NV * lanes(b))
        t = outer(t, a, a0, a_row, b, b0)
        a0 = apart(a0 + a_col)
        b0 += b_row
    _end(t, c, c0, c_row, confined, low, high)


@formula
def _packing(depth, a, a0, a_row, a_col, b, b0, b_row, packed, to, c, c0, c_row, start, bias, bias0, confined, low, high, ahead):
    """A tile of MR rows, which also writes the panel that it reads to packed[to ...], and asks for the one ``ahead`` of it if that is not 0."""
    t = _begun(b, c, c0, c_row, start, bias, bias0)
    width = NV * lanes(b)
    for _ in range(depth):
        if ahead > 0:
            for v in range(NV):
                prefetch_near(b, b0 + ahead + v * lanes(b))
        t = outer_packing(t, a, a0, a_row, b, b0, packed, to)
        a0 = apart(a0 + a_col)
        b0 += b_row
        to += width
    _end(t, c, c0, c_row, confined, low, high)


# Steps of a tile between which it asks for what comes next: as many, for what it takes to get addresses into registers and back.
# 64 x 3136 x 64 on a Granite Rapids goes from 128 to 135 GFLOP/s where 16 steps follow one another, not four.
_STEPS = 16


@formula
def _asking(depth, a, a0, a_row, a_col, panels, panel, b, ask, b_row, asks, c, c0, c_row, start, bias, bias0, confined, low, high, far):
    """A tile of MR rows with a packed panel, which every _STEPS steps asks for so many rows of another panel: b[ask], b[ask + b_row] and so on.

    With ``far`` it asks as well for the part of c beside its own, which the next panel fills.
    """
    t = _begun(panels, c, c0, c_row, start, bias, bias0)
    width = NV * lanes(b)
    beside = c0 + width
    for i in range(depth // _STEPS):
        if far and i < MR // 2:
            for _ in range(2):
                for v in range(NV):
                    prefetch_to_write(c, beside + v * lanes(c))
                beside += c_row
        for _ in range(asks):
            for v in range(NV):
                prefetch_near(b, ask + v * lanes(b))
            ask += b_row
        if a_col == 1:
            t = _side_by_side(t, _STEPS, a, a0, a_row, panels, panel, width)
            a0, panel = a0 + _STEPS, panel + _STEPS * width
        else:
            for _ in range(_STEPS):
                t = outer(t, a, a0, a_row, panels, panel)
                a0 = apart(a0 + a_col)
                panel += width
    for _ in range(depth % _STEPS):
        t = outer(t, a, a0, a_row, panels, panel)
        a0 = apart(a0 + a_col)
        panel += width
    _end(t, c, c0, c_row, confined, low, high)


@function
def tiled_product(rows, cols, depth, a, a0, a_row, a_col, a_tile, b, b0, b_row, b_panel, c, c0, c_row, accumulate):
    """As ``block_product``, of rows of a that lie in groups of MR, a_tile apart."""
    zero, start = c.dtype.type(0), SUM if accumulate else ZERO
    call(finished_product, (rows, cols, depth, a, a0, a_row, a_col, a_tile, b, b0, b_row, b_panel, c, c0, c_row, start, c, c0, c_row, False, zero, zero))


@function
def block_product(rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, b_panel, c, c0, c_row, accumulate):
    """c[rows, cols] (+)= a[rows, depth] @ b[depth, cols].

    a[i, k] at a0 + i * a_row + k * a_col; panel p of b at b0 + p * b_panel, its row k at + k * b_row, NR elements that
    may all be read; c[i, j] at c0 + i * c_row + j.
    """
    tiled_product(rows, cols, depth, a, a0, a_row, a_col, MR * a_row, b, b0, b_row, b_panel, c, c0, c_row, accumulate)


# From L2 on, and for long rows, four streams are fetched ahead faster than eight: 54 us instead of 107 for 1000 x 1000. Rows
# that are few take all of b, and wide strips of it, to be read in order.
_LONG, _LONG_FAR = 768, 256
_FAR = 1 << 17


def _long_dots(rows: int) -> Any:
    @function
    def dots(depth, x, x0, b, at, b_row):
        """The products of a row with this many rows of b."""
        count = lanes(b)
        even, odd = zero_tile(b, rows, 1), zero_tile(b, rows, 1)
        whole = depth // (2 * count) * 2 * count
        for k in range(0, whole, 2 * count):
            even = tile_fma(even, load_tile(b, at + k, b_row, rows), load(x, x0 + k))
            odd = tile_fma(odd, load_tile(b, at + k + count, b_row, rows), load(x, x0 + k + count))
        for k in range(whole, depth, count):
            even = tile_fma(even, load_tile_part(b, at + k, b_row, rows, rows, depth - k, 0), load_part(x, x0 + k, depth - k))
        return row_sums(tile_add(even, odd))

    return dots


_four_long_dots, _one_long_dot = _long_dots(4), _long_dots(1)


def _dots(rows: int) -> Any:
    @function
    def dots(left, depth, a, a0, a_row, b, b0, b_row, c, c0, c_row, accumulate):
        """``rows`` rows of a with as many of b, of ``left``, as make up a vector of sums."""
        count = lanes(b)
        some = count // rows
        starts = spaced(b, b0, b_row, left, rows)
        sums = load_square_part(b, b0, 0, 0, 0)  # zeros
        whole = depth // count * count
        for k in range(0, whole, count):
            sums = lane_products(sums, load_tile(a, a0 + k, a_row, rows), b, starts, k)
        if whole < depth:
            tail = load_tile_part(a, a0 + whole, a_row, rows, rows, depth - whole, 0)
            sums = lane_products_part(sums, tail, b, starts, whole, depth - whole)
        total = lane_sums(sums)
        if left >= some and not accumulate:
            store_runs(c, c0, c_row, total, rows)
            return
        one_by_one = elements(total)
        for i in range(rows):
            for j in range(min(some, left)):
                at = c0 + i * c_row + j
                c[at] = c[at] + one_by_one[i * some + j] if accumulate else one_by_one[i * some + j]

    return dots


# Four rows, or as many as the shortest vectors have lanes.
_DOT_ROWS = min(4, LANES["float64"])
_most_dots, _two_dots, _one_dots = _dots(_DOT_ROWS), _dots(2), _dots(1)


@function
def _columns(rows, cols, depth, a, a0, a_row, b, b0, c, c0, c_row, start, bias, bias0, confined, low, high):
    """A few columns of b, where rows of a and columns of b are runs of memory: both are read in vectors.

    49 columns, images of 7x7, are three vectors and one column, which would take the time of a whole vector.
    """
    if cols == 0:
        return
    i = 0
    while i < rows:
        # The order of additions differs: which rows go together must not depend on where rows are cut, between tiles.
        if min(MR - i % MR, rows - i) >= _DOT_ROWS:
            for j in range(0, cols, lanes(c) // _DOT_ROWS):
                _most_dots(cols - j, depth, a, a0 + i * a_row, a_row, b, b0 + j * depth, depth, c, c0 + i * c_row + j, c_row, start == SUM)
            i += _DOT_ROWS
        else:
            for j in range(cols):
                (one,) = _one_long_dot(depth, b, b0 + j * depth, a, a0 + i * a_row, a_row)
                at = c0 + i * c_row + j
                c[at] = c[at] + one if start == SUM else one
            i += 1
    if start == BIAS or confined:
        for i in range(rows):
            at = c0 + i * c_row
            t = zero_tile(c, 1, 1)
            if start == BIAS:
                t = tile_splat_rows(t, bias, bias0 + i, 1)
            t = tile_add(t, tile_load_rows_part(t, c, at, c_row, cols))
            if confined:
                t = tile_confine(t, low, high)
            store_tile_part(c, at, c_row, t, cols)


# Where ``rows_product`` finds whole panels of a row-major b: packed already, in b, or in b from where it packs them, to be read again
# later or not.
PACKED, READ, PACK, PACK_ONCE = range(4)
# How many panels ahead all tiles of one ask together, into L2. GFLOP/s of 64 x 3136 x 256 on a Granite Rapids, images of a batch from
# L3: 155 by one, 174 by two, 185 by three; 162 where none is asked for.
_PANELS_AHEAD = 3
# From so many bytes on c is asked for as well. GFLOP/s there, between calls of another library on the same data, without and with:
# 64 x 3136 x 64 80 and 110 to 155, 64 x 3136 x 256 140 and 150; alone in a loop there is no difference.
_FAR_BYTES = 2 << 20


@formula
def _rest_asking(
    rows, depth, a, a0, a_row, a_col, a_tile, panels, panel, b, later, b_row, c, c0, c_row, start, bias, bias0, confined, low, high, far,
):  # fmt: skip
    """The other whole tiles of a panel that the first tile packed, which among them ask for the one that begins at ``later``."""
    tiles = rows // MR - 1
    asks = (_STEPS + tiles - 1) // tiles
    for z in range(tiles):
        to, at = c0 + (z + 1) * MR * c_row, a0 + (z + 1) * a_tile
        _asking(
            depth, a, at, a_row, a_col, panels, panel, b, later + z * asks * (depth // _STEPS) * b_row, b_row, asks if z * asks < _STEPS else 0, c, to, c_row,
            start, bias, bias0 + (z + 1) * MR, confined, low, high, far,
        )  # fmt: skip
    return (tiles + 1) * MR


@separate
def rows_product(
    rows, cols, depth, a, a0, a_row, a_col, a_tile, way, whole, b, b0, b_row, panels, p0, panel, tail, tail0,
    c, c0, c_row, start, bias, bias0, confined, low, high,
):  # fmt: skip
    """``finished_product`` of rows with columns of a block: the first ``whole`` in one of four ways, ``cols`` in all, and ``tail`` more.

    Panels are at p0 + p * panel, whether packed or to be; of PACK_ONCE at p0. Where panels are read in b, which may be far away, tiles
    ask for one that is read later: the first of each panel, or on large cores all but the first.
    """
    a, b, panels, c, bias = uncounted(a), uncounted(b), uncounted(panels), uncounted(c), uncounted(bias)
    width, far = NV * lanes(b), c.size * c.itemsize >= _FAR_BYTES
    j = 0
    while j < cols:
        done, some, source, at, step, stride = 0, cols - j, panels, p0 + j // width * panel, width, panel
        if j < whole:
            some = width
            if not LARGE_CORE and way == READ:  # nobody asks a large core for it, and to compile it there takes 0.12 s
                source, at, step, stride = b, b0 + j, b_row, width
                done = min(NV, rows // MR) * MR
                for i in range(0, done, MR):
                    _reading(
                        depth, a, a0 + i // MR * a_tile, a_row, a_col, b, at, b_row, i // MR * depth,
                        c, c0 + i * c_row + j, c_row, start, bias, bias0 + i, confined, low, high,
                    )  # fmt: skip
            else:
                done = MR
                at = p0 if way == PACK_ONCE else at
                alone = rows < 2 * MR
                ahead = 0 if LARGE_CORE and not alone else _AHEAD * width
                _packing(depth, a, a0, a_row, a_col, b, b0 + j, b_row, panels, at, c, c0 + j, c_row, start, bias, bias0, confined, low, high, ahead)
                if LARGE_CORE and not alone:
                    done = _rest_asking(
                        rows, depth, a, a0, a_row, a_col, a_tile, panels, at, b, b0 + j + _PANELS_AHEAD * width, b_row,
                        c, c0 + j, c_row, start, bias, bias0, confined, low, high, far,
                    )  # fmt: skip
        if done < rows:
            to = c0 + done * c_row + j
            old, old0, old_row = (bias, bias0 + done, 1) if start == BIAS else (c, to, c_row)
            call(finished_product, (
                rows - done, some, depth, a, a0 + done // MR * a_tile, a_row, a_col, a_tile, source, at, step, stride,
                c, to, c_row, start, old, old0, old_row, confined, low, high,
            ))  # fmt: skip
        j += some
    _columns(rows, tail, depth, a, a0, a_row, panels, tail0, c, c0 + cols, c_row, start, bias, bias0, confined, low, high)


@function
def _four_long(depth, a, a0, b, b0, b_row, c, c0, accumulate):
    """A row of a with four of b."""
    p, q, r, s = _four_long_dots(depth, a, a0, b, b0, b_row)
    if accumulate:
        p, q, r, s = c[c0] + p, c[c0 + 1] + q, c[c0 + 2] + r, c[c0 + 3] + s
    c[c0], c[c0 + 1], c[c0 + 2], c[c0 + 3] = p, q, r, s


@separate
def dot_products(rows, cols, depth, a, a0, a_row, b, b0, b_row, c, c0, c_row, accumulate):
    """c[i, j] (+)= the sum over k of a[i, k] b[j, k]: a product with a transposed matrix, read as it lies.

    Both are read in vectors along k, four rows of each at a time with 16 lanes, whose running sums are turned into one vector at the
    end. That needs no packing: the way for few rows of a. By one row of a and 16 of b there is a load for each multiply-add, and 8 rows
    with 1000 columns in 1280 steps took 0.40 ms, so 0.21.
    """
    a, b, c = uncounted(a), uncounted(b), uncounted(c)
    count = lanes(b)
    far = depth >= _LONG or (depth >= _LONG_FAR and b.size > _FAR)
    for j in range(0, cols, count):
        end = min(cols, j + count)
        i = 0
        while i < rows:
            left, to, some = a0 + i * a_row, c0 + i * c_row, _DOT_ROWS if rows - i >= _DOT_ROWS else 2 if rows - i >= 2 else 1
            at = j
            if some == 1 and far:
                while end - at >= 4:
                    _four_long(depth, a, left, b, b0 + at * b_row, b_row, c, to + at, accumulate)
                    at += 4
            while at < end:
                if some == _DOT_ROWS:
                    _most_dots(end - at, depth, a, left, a_row, b, b0 + at * b_row, b_row, c, to + at, c_row, accumulate)
                elif some == 2:
                    _two_dots(end - at, depth, a, left, a_row, b, b0 + at * b_row, b_row, c, to + at, c_row, accumulate)
                else:
                    _one_dots(end - at, depth, a, left, a_row, b, b0 + at * b_row, b_row, c, to + at, c_row, accumulate)
                at += count // some
            i += some


def _combination(rows: int, steps: int) -> Any:
    @formula
    def combination(cols, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, accumulate):
        """``rows`` rows of c (+)= ``steps`` rows of b, each read once for all of them."""
        count = lanes(c)
        for j in range(0, cols, count):
            t = zero_tile(c, rows, 1)
            left = cols - j
            if left >= count:
                if accumulate:
                    t = tile_load_rows(t, c, c0 + j, c_row)
                for k in range(steps):
                    t = outer(t, a, a0 + k * a_col, a_row, b, b0 + k * b_row + j)
                store_tile(c, c0 + j, c_row, t)
            else:
                if accumulate:
                    t = tile_load_rows_part(t, c, c0 + j, c_row, left)
                for k in range(steps):
                    t = tile_fma(t, tile_splat_rows(t, a, a0 + k * a_col, a_row), load_part(b, b0 + k * b_row + j, left))
                store_tile_part(c, c0 + j, c_row, t, left)

    return combination


# Rows of b that are read side by side.
_STREAMS = 4
_two_combined, _one_combined = _combination(2, _STREAMS), _combination(1, _STREAMS)
_two_ended, _one_ended = _combination(2, 1), _combination(1, 1)


@separate
def row_combinations(rows, cols, depth, a, a0, a_row, a_col, b, b0, b_row, c, c0, c_row, accumulate):
    """c[rows, cols] (+)= a[rows, depth] @ b[depth, cols]: rows of b, read along their whole length, added up in c.

    The way for one or two rows of a: ``block_product`` would jump from row to row of b after each panel's width.
    """
    a, b, c = uncounted(a), uncounted(b), uncounted(c)
    for i in range(0, rows, 2):
        two, k = rows - i >= 2, 0
        while k < depth:
            left, right, to, more = a0 + i * a_row + k * a_col, b0 + k * b_row, c0 + i * c_row, accumulate or k > 0
            if depth - k >= _STREAMS:
                if two:
                    _two_combined(cols, a, left, a_row, a_col, b, right, b_row, c, to, c_row, more)
                else:
                    _one_combined(cols, a, left, a_row, a_col, b, right, b_row, c, to, c_row, more)
                k += _STREAMS
            else:
                if two:
                    _two_ended(cols, a, left, a_row, a_col, b, right, b_row, c, to, c_row, more)
                else:
                    _one_ended(cols, a, left, a_row, a_col, b, right, b_row, c, to, c_row, more)
                k += 1


def _table_product(rows: int, asks: bool = False) -> Any:
    @function
    def product(depth, a, a0, row_table, r0, steps, s0, b, b0, b_row, c, c0, c_row, accumulate, ask, ask_step):
        """Asks in each step for b[ask], b[ask + ask_step] and so on, or does not."""
        t = zero_tile(b, rows, NV)
        if accumulate:
            t = tile_load_rows(t, c, c0, c_row)
        at = offsets(row_table, r0, a0, rows)
        for k in range(depth):
            if asks:
                prefetch_near(b, ask)
                ask += ask_step
            t = outer_at(t, a, at, element(steps, s0 + k), b, b0)
            b0 += b_row
        store_tile(c, c0, c_row, t)

    return product


_table_whole, _table_four, _table_two, _table_one = _table_product(MR), _table_product(4), _table_product(2), _table_product(1)
_table_asking = _table_product(MR, asks=True)


@separate
def table_product(rows, depth, a, a0, row_table, r0, steps, s0, b, b0, b_row, c, c0, c_row, accumulate, far):
    """c[i, :NR] (+)= sum over k of a[a0 + row_table[r0 + i] + steps[s0 + k]] * b[b0 + k * b_row ...].

    The matrix on the left is given by where its elements lie: the sum of a row's and a step's offset. That is what a
    convolution's matrix looks like inside the image (rows: output pixels; steps: kernel taps) and, turned, inside the
    gradient's (rows: taps; steps: pixels), so that it need not be made.

    Where b is ``far``, its tiles among them ask for as many rows as come next.
    """
    i = 0
    tiles = max(1, rows // MR)
    ask, ask_step = b0 + depth * b_row, (b_row + tiles - 1) // tiles
    while rows - i >= MR:
        if LARGE_CORE and far:
            _table_asking(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate, ask, ask_step)
            ask += depth * ask_step
        else:
            _table_whole(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate, 0, 0)
        i += MR
    if rows - i >= 4:
        _table_four(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate, 0, 0)
        i += 4
    if rows - i >= 2:
        _table_two(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate, 0, 0)
        i += 2
    if rows - i >= 1:
        _table_one(depth, a, a0, row_table, r0 + i, steps, s0, b, b0, b_row, c, c0 + i * c_row, c_row, accumulate, 0, 0)


def _stencil_tile(rows: int, vectors: int) -> Any:
    @formula
    def product(cols, depth, a, a0, a_row, b, b0, steps, c, c0, c_row, biased, bias, bias0, confined, low, high):
        t = zero_tile(b, rows, vectors)
        if biased:
            t = tile_splat_rows(t, bias, bias0, 1)
        for k in range(depth):
            t = outer(t, a, a0, a_row, b, b0 + element(steps, k))
            a0 = apart(a0 + 1)
        if confined:
            t = tile_confine(t, low, high)
        if cols >= vectors * lanes(b):
            store_tile(c, c0, c_row, t)
        else:
            store_tile_part(c, c0, c_row, t, cols)

    return product


_stencil_whole, _stencil_four, _stencil_two, _stencil_one = (_stencil_tile(rows, NV) for rows in (MR, 4, 2, 1))
_stencil_narrow = _stencil_tile(MR, 1)


@separate
def stencil_product(rows, cols, depth, a, a0, a_row, b, b0, steps, c, c0, c_row, biased, bias, bias0, confined, low, high):
    """c[i, :cols] = bias[i] + sum over k of a[i, k] times the numbers from b[b0 + steps[k]] on: at most MR rows.

    Where a convolution's channels are few, its output's rows are long and b is the image: weights are read where they lie, and
    results written as they come. What is read behind the last column must be memory, whatever stands there.
    """
    a, b, steps, c, bias = uncounted(a), uncounted(b), uncounted(steps), uncounted(c), uncounted(bias)
    width = NV * lanes(b)
    for j in range(0, cols, width):
        left, at, to = cols - j, b0 + j, c0 + j
        if rows == MR:
            if left <= lanes(b):
                _stencil_narrow(left, depth, a, a0, a_row, b, at, steps, c, to, c_row, biased, bias, bias0, confined, low, high)
            else:
                _stencil_whole(left, depth, a, a0, a_row, b, at, steps, c, to, c_row, biased, bias, bias0, confined, low, high)
            continue
        i = 0
        if rows - i >= 4:
            _stencil_four(left, depth, a, a0, a_row, b, at, steps, c, to, c_row, biased, bias, bias0, confined, low, high)
            i += 4
        if rows - i >= 2:
            start, y = a0 + i * a_row, to + i * c_row
            _stencil_two(left, depth, a, start, a_row, b, at, steps, c, y, c_row, biased, bias, bias0 + i, confined, low, high)
            i += 2
        if rows - i >= 1:
            start, y = a0 + i * a_row, to + i * c_row
            _stencil_one(left, depth, a, start, a_row, b, at, steps, c, y, c_row, biased, bias, bias0 + i, confined, low, high)
