"""A SIMD vector type for Numba, and register tiles made of it.

Numba has no vector type. Here a Numba type's data model is an LLVM vector of the host's width, so that a kernel can
say what it means: load a vector, multiply, add, store. A tile is a fixed number of vectors; it lives in registers as
long as it is never indexed by a variable. Offsets count elements from the start of a C-contiguous array of any rank.

In checked mode (``FASTOPS_CHECKED=1``) every load and store is compared with the array's bounds.
"""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

from fastops._jit import CHECKED
from fastops.simd.blocking import LANES, VECTOR_BYTES

_I32, _I64, _I1 = ir.IntType(32), ir.IntType(64), ir.IntType(1)
_ELEMENT = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
_CONTRACT = ("contract",)


class VectorType(types.Type):  # type: ignore[misc]
    """As many elements as one register holds."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.count = LANES[dtype.name]
        super().__init__(name=f"vector({dtype}, {self.count})")

    @property
    def llvm(self) -> Any:
        return ir.VectorType(_ELEMENT[self.dtype.name], self.count)


class TileType(types.Type):  # type: ignore[misc]
    """``rows x cols`` vectors."""

    def __init__(self, dtype: Any, rows: int, cols: int) -> None:
        self.vector = VectorType(dtype)
        self.dtype, self.rows, self.cols = dtype, rows, cols
        super().__init__(name=f"tile({self.vector}, {rows}, {cols})")

    @property
    def llvm(self) -> Any:
        return ir.ArrayType(self.vector.llvm, self.rows * self.cols)


@register_model(VectorType)
@register_model(TileType)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, fe_type.llvm)


def _int(n: int) -> Any:
    return ir.Constant(_I64, n)


class _Memory:
    """The elements of an array argument, seen from inside a code generator."""

    def __init__(self, context: Any, builder: Any, arytype: Any, value: Any) -> None:
        self._array = context.make_array(arytype)(context, builder, value)
        self._context, self._builder = context, builder
        self._vector: Any = VectorType(arytype.dtype) if arytype.dtype.name in LANES else None  # None: a table of offsets
        self._align = arytype.dtype.bitwidth // 8

    def _at(self, offset: Any, count: Any) -> Any:
        """The address of ``count`` elements from ``offset``; compared with the bounds in checked mode."""
        builder = self._builder
        if CHECKED:
            end = builder.add(offset, count)
            bad = builder.or_(builder.icmp_signed("<", offset, _int(0)), builder.icmp_signed(">", end, self._array.nitems))
            with cgutils.if_unlikely(builder, builder.and_(bad, builder.icmp_signed(">", count, _int(0)))):
                self._context.call_conv.return_user_exc(builder, IndexError, ("vector access outside the array",))
        return builder.gep(self._array.data, [offset])

    def load(self, offset: Any) -> Any:
        pointer = self._at(offset, _int(self._vector.count))
        value = self._builder.load(self._builder.bitcast(pointer, self._vector.llvm.as_pointer()))
        value.align = self._align
        return value

    def store(self, offset: Any, value: Any) -> None:
        pointer = self._at(offset, _int(self._vector.count))
        self._builder.store(value, self._builder.bitcast(pointer, self._vector.llvm.as_pointer())).align = self._align

    def store_some(self, offset: Any, value: Any, count: int) -> None:
        """Fewer elements than a whole vector; their number is known here."""
        pointer = self._at(offset, _int(count))
        self._builder.store(value, self._builder.bitcast(pointer, value.type.as_pointer())).align = self._align

    def scalar(self, offset: Any, step: Any = None) -> Any:
        """One element. In a loop over steps the address of ``offset`` stays in a register."""
        pointer = self._at(offset if step is None or not CHECKED else self._builder.add(offset, step), _int(1))
        return self._builder.load(pointer if step is None or CHECKED else self._builder.gep(pointer, [step]))

    def _mask(self, count: Any) -> Any:
        """The first ``count`` elements; compared in integers as wide as they are, so that one register holds all."""
        integer, lanes = ir.IntType(8 * self._align), self._vector.count
        if integer.width < _I64.width:
            count = self._builder.trunc(self._clip(count), integer)
        index = ir.Constant(ir.VectorType(integer, lanes), list(range(lanes)))
        return self._builder.icmp_signed("<", index, _splat(self._builder, ir.VectorType(integer, lanes), count))

    def _clip(self, count: Any) -> Any:
        """At most a whole vector, at least nothing."""
        builder, whole = self._builder, _int(self._vector.count)
        count = builder.select(builder.icmp_signed("<", count, whole), count, whole)
        return builder.select(builder.icmp_signed(">", count, _int(0)), count, _int(0))

    def _masked(self, name: str, result: Any, arguments: Any) -> Any:
        llvm = self._vector.llvm
        kind = "f32" if self._align == 4 else "f64"
        full = f"llvm.masked.{name}.v{self._vector.count}{kind}.p0"
        fn = cgutils.get_or_insert_function(self._builder.module, ir.FunctionType(result, [a.type for a in arguments]), full)
        return self._builder.call(fn, arguments), llvm

    def load_between(self, offset: Any, first: Any, end: Any) -> Any:
        builder = self._builder
        first, end = self._clip(first), self._clip(end)
        self._at(builder.add(offset, first), builder.sub(end, first))
        pointer = builder.bitcast(builder.gep(self._array.data, [offset]), self._vector.llvm.as_pointer())
        mask = builder.and_(self._mask(end), builder.not_(self._mask(first)))
        zero = ir.Constant(self._vector.llvm, None)
        return self._masked("load", self._vector.llvm, [pointer, ir.Constant(_I32, self._align), mask, zero])[0]

    def _start(self, offset: Any, count: Any) -> Any:
        """The address of ``count`` elements; where they are none, that of the array.

        A masked instruction that touches nothing still takes hundreds of cycles where its address is on no page.
        """
        pointer = self._at(offset, self._clip(count))
        some = self._builder.icmp_signed(">", count, _int(0))
        return self._builder.bitcast(self._builder.select(some, pointer, self._array.data), self._vector.llvm.as_pointer())

    def load_part(self, offset: Any, count: Any) -> Any:
        pointer = self._start(offset, count)
        zero = ir.Constant(self._vector.llvm, None)
        return self._masked("load", self._vector.llvm, [pointer, ir.Constant(_I32, self._align), self._mask(count), zero])[0]

    def store_part(self, offset: Any, value: Any, count: Any) -> None:
        pointer = self._start(offset, count)
        if VECTOR_BYTES == 64:
            self._store_masked(pointer, value, count)
            return
        # A Zen 3 takes 4 ns for a masked store of AVX2, however many elements it writes, and 0.6 for a plain one.
        whole = self._builder.icmp_signed(">=", count, _int(self._vector.count))
        with self._builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                self._builder.store(value, pointer).align = self._align
            with otherwise:
                self._store_masked(pointer, value, count)

    def _store_masked(self, pointer: Any, value: Any, count: Any) -> None:
        self._masked("store", ir.VoidType(), [value, pointer, ir.Constant(_I32, self._align), self._mask(count)])


def _splat(builder: Any, llvm: Any, scalar: Any) -> Any:
    undefined = ir.Constant(llvm, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, llvm.count), [0] * llvm.count))


def _fma(builder: Any, vector: VectorType, a: Any, b: Any, c: Any) -> Any:
    """One fused instruction where the machine has it, a multiply and an add elsewhere."""
    kind = "f32" if vector.dtype.name == "float32" else "f64"
    fn = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector.llvm, [vector.llvm] * 3), f"llvm.fmuladd.v{vector.count}{kind}")
    return builder.call(fn, [a, b, c])


# ---- vectors


@intrinsic
def uncounted(typingctx: Any, array: Any) -> Any:
    """The array, whose references nobody counts: for helpers whose branches keep Numba from seeing that it need not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), codegen


@intrinsic
def lanes(typingctx: Any, array: Any) -> Any:
    """Elements in a vector of the array's dtype."""
    return types.intp(array), lambda context, builder, sig, args: _int(LANES[array.dtype.name])


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _Memory(context, builder, array, args[0]).load(args[1])

    return VectorType(array.dtype)(array, types.intp), codegen


@intrinsic
def load_part(typingctx: Any, array: Any, offset: Any, count: Any) -> Any:
    """The first ``count`` elements (all when there are more), zeros behind them; touches no other memory."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _Memory(context, builder, array, args[0]).load_part(args[1], args[2])

    return VectorType(array.dtype)(array, types.intp, types.intp), codegen


@intrinsic
def load_between(typingctx: Any, array: Any, offset: Any, first: Any, end: Any) -> Any:
    """Elements first <= i < end of the vector at ``offset``, zeros around them; touches no other memory."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _Memory(context, builder, array, args[0]).load_between(args[1], args[2], args[3])

    return VectorType(array.dtype)(array, types.intp, types.intp, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, vector: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _Memory(context, builder, array, args[0]).store(args[1], args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
def store_part(typingctx: Any, array: Any, offset: Any, vector: Any, count: Any) -> Any:
    """Writes the first ``count`` elements and touches no other memory."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _Memory(context, builder, array, args[0]).store_part(args[1], args[2], args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, types.intp), codegen


def _prefetch(locality: int, write: int = 0) -> Any:
    @intrinsic
    def prefetch(typingctx: Any, array: Any, offset: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            data = context.make_array(array)(context, builder, args[0]).data
            pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8).as_pointer())
            fnty = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
            fn = cgutils.get_or_insert_function(builder.module, fnty, "llvm.prefetch.p0")
            builder.call(fn, [pointer, ir.Constant(_I32, write), ir.Constant(_I32, locality), ir.Constant(_I32, 1)])
            return context.get_dummy_value()

        return types.void(array, types.intp), codegen

    return prefetch


prefetch = _prefetch(3)
"""Asks for the cache line of an element that will be read soon; harmless outside the array."""

prefetch_near = _prefetch(2)
"""As ``prefetch``, into the second-level cache alone: no more of the first is taken than what is read."""

prefetch_to_write = _prefetch(3, 1)
"""As ``prefetch``, of an element that will be written."""


@intrinsic
def splat(typingctx: Any, array: Any, scalar: Any) -> Any:
    """A vector of the array's dtype with the scalar in every lane."""
    vector = VectorType(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, vector.llvm, args[1])

    return vector(array, array.dtype), codegen


@intrinsic
def broadcast(typingctx: Any, array: Any, offset: Any) -> Any:
    """A vector with one element of the array in every lane."""
    vector = VectorType(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, vector.llvm, _Memory(context, builder, array, args[0]).scalar(args[1]))

    return vector(array, types.intp), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c"""
    return a(a, b, c), lambda context, builder, sig, args: _fma(builder, a, *args)


def _arithmetic(symbol: Any, method: str) -> None:
    @infer_global(symbol)
    class _Typing(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], VectorType) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(symbol, VectorType, VectorType)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, method)(*args, flags=_CONTRACT)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")


# ---- tiles


def _vectors(builder: Any, tile: Any, value: Any) -> list[Any]:
    return [builder.extract_value(value, i) for i in range(tile.rows * tile.cols)]


def _pack(builder: Any, tile: Any, vectors: list[Any]) -> Any:
    value = ir.Constant(tile.llvm, ir.Undefined)
    for i, v in enumerate(vectors):
        value = builder.insert_value(value, v, i)
    return value


@intrinsic(prefer_literal=True)
def zero_tile(typingctx: Any, array: Any, rows: Any, cols: Any) -> Any:
    """A tile of zeros of the array's dtype; rows and cols are constants."""
    tile = TileType(array.dtype, rows.literal_value, cols.literal_value)
    return tile(array, rows, cols), lambda context, builder, sig, args: ir.Constant(tile.llvm, None)


def _add_outer(builder: Any, tile: Any, value: Any, scalars: Any, columns: list[Any]) -> Any:
    """The tile's value + the outer product of numbers, one for each row and loaded when it is needed, and vectors."""
    for i, scalar in enumerate(scalars):
        row = _splat(builder, tile.vector.llvm, scalar)
        for j, column in enumerate(columns):
            at = i * tile.cols + j
            value = builder.insert_value(value, _fma(builder, tile.vector, row, column, builder.extract_value(value, at)), at)
    return value


def _outer(tile: Any, a: Any, b: Any, packed: Any = None) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = _Memory(context, builder, a, args[1]), _Memory(context, builder, b, args[4])
        columns = []
        for j in range(tile.cols):
            shift = _int(j * tile.vector.count)
            columns.append(right.load(builder.add(args[5], shift)))
            if packed is not None:
                _Memory(context, builder, packed, args[6]).store(builder.add(args[7], shift), columns[j])
        scalars = (left.scalar(builder.add(args[2], builder.mul(args[3], _int(i)))) for i in range(tile.rows))
        return _add_outer(builder, tile, args[0], scalars, columns)

    return codegen


def _apart(builder: Any, number: Any) -> Any:
    return builder.asm(ir.FunctionType(_I64, [_I64]), "", "=r,0", [number], side_effect=False)


@intrinsic
def apart(typingctx: Any, offset: Any) -> Any:
    """The same number, of which the compiler does not see where it came from."""
    return types.intp(types.intp), lambda context, builder, sig, args: _apart(builder, args[0])


@intrinsic
def outer(typingctx: Any, tile: Any, a: Any, a0: Any, a_row: Any, b: Any, b0: Any) -> Any:
    """tile + the outer product of a[a0 + i * a_row] (its rows) and the vectors from b[b0] on (its columns)."""
    return tile(tile, a, types.intp, types.intp, b, types.intp), _outer(tile, a, b)


@intrinsic
def outer_packing(typingctx: Any, tile: Any, a: Any, a0: Any, a_row: Any, b: Any, b0: Any, packed: Any, to: Any) -> Any:
    """As ``outer``, which also writes the vectors of b to packed[to ...]."""
    return tile(tile, a, types.intp, types.intp, b, types.intp, packed, types.intp), _outer(tile, a, b, packed)


@intrinsic(prefer_literal=True)
def offsets(typingctx: Any, table: Any, start: Any, shift: Any, rows: Any) -> Any:
    """(table[start] + shift, table[start + 1] + shift, ...): as many as ``rows``, a constant."""
    result = types.UniTuple(types.intp, rows.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, table, args[0])
        values = [builder.add(memory.scalar(builder.add(args[1], _int(i))), args[2]) for i in range(rows.literal_value)]
        return cgutils.pack_array(builder, values)

    return result(table, types.intp, types.intp, rows), codegen


@intrinsic
def element(typingctx: Any, array: Any, offset: Any) -> Any:
    """array[offset] without Python's reading of negative offsets, which costs three instructions in every step."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _Memory(context, builder, array, args[0]).scalar(args[1])

    return array.dtype(array, types.intp), codegen


@intrinsic
def outer_at(typingctx: Any, tile: Any, a: Any, rows: Any, step: Any, b: Any, b0: Any) -> Any:
    """As ``outer``, its rows a[rows[i] + step]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = _Memory(context, builder, a, args[1]), _Memory(context, builder, b, args[4])
        # LLVM unrolls the caller's loop and would load both steps' elements ahead, more than there are registers:
        # accumulators spill and 234 GFLOP/s become 175. An empty statement that "touches memory" keeps steps apart.
        builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)
        columns = [right.load(builder.add(args[5], _int(j * tile.vector.count))) for j in range(tile.cols)]
        rows_ = cgutils.unpack_tuple(builder, args[2], tile.rows)
        return _add_outer(builder, tile, args[0], (left.scalar(row, args[3]) for row in rows_), columns)

    return tile(tile, a, rows, types.intp, b, types.intp), codegen


def _each_vector(builder: Any, tile: Any, offset: Any, row: Any) -> Any:
    for i in range(tile.rows):
        start = builder.add(offset, builder.mul(row, _int(i)))
        for j in range(tile.cols):
            yield i * tile.cols + j, j, builder.add(start, _int(j * tile.vector.count))


@intrinsic
def store_tile(typingctx: Any, array: Any, offset: Any, row: Any, tile: Any) -> Any:
    """Row i of the tile goes to array[offset + i * row ...]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        for at, _, where in _each_vector(builder, tile, args[1], args[2]):
            memory.store(where, builder.extract_value(args[3], at))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile), codegen


@intrinsic
def store_tile_part(typingctx: Any, array: Any, offset: Any, row: Any, tile: Any, columns: Any) -> Any:
    """As store_tile, the first ``columns`` elements of each row alone."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        for at, j, where in _each_vector(builder, tile, args[1], args[2]):
            memory.store_part(where, builder.extract_value(args[3], at), builder.sub(args[4], _int(j * tile.vector.count)))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile, types.intp), codegen


@intrinsic
def tile_load_rows(typingctx: Any, tile: Any, array: Any, offset: Any, row: Any) -> Any:
    """A tile shaped as the given one, row i from array[offset + i * row ...]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[1])
        return _pack(builder, tile, [memory.load(where) for _, _, where in _each_vector(builder, tile, args[2], args[3])])

    return tile(tile, array, types.intp, types.intp), codegen


@intrinsic
def tile_splat_rows(typingctx: Any, tile: Any, array: Any, offset: Any, row: Any) -> Any:
    """A tile shaped as the given one, array[offset + i * row] in every lane of row i."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[1])
        rows = [_splat(builder, tile.vector.llvm, memory.scalar(builder.add(args[2], builder.mul(args[3], _int(i))))) for i in range(tile.rows)]
        return _pack(builder, tile, [vector for vector in rows for _ in range(tile.cols)])

    return tile(tile, array, types.intp, types.intp), codegen


@intrinsic
def tile_load_rows_part(typingctx: Any, tile: Any, array: Any, offset: Any, row: Any, columns: Any) -> Any:
    """As tile_load_rows, the first ``columns`` elements of each row, zeros behind them."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[1])
        count = tile.vector.count
        places = _each_vector(builder, tile, args[2], args[3])
        return _pack(builder, tile, [memory.load_part(where, builder.sub(args[4], _int(j * count))) for _, j, where in places])

    return tile(tile, array, types.intp, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def load_tile(typingctx: Any, array: Any, offset: Any, row: Any, rows: Any) -> Any:
    """A column of ``rows`` (a constant) vectors, vector i from array[offset + i * row]."""
    tile = TileType(array.dtype, rows.literal_value, 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        return _pack(builder, tile, [memory.load(where) for _, _, where in _each_vector(builder, tile, args[1], args[2])])

    return tile(array, types.intp, types.intp, rows), codegen


@intrinsic
def load_square(typingctx: Any, array: Any, offset: Any, row: Any) -> Any:
    """As many vectors as a vector has lanes, vector i from array[offset + i * row ...]."""
    tile = TileType(array.dtype, LANES[array.dtype.name], 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        return _pack(builder, tile, [memory.load(where) for _, _, where in _each_vector(builder, tile, args[1], args[2])])

    return tile(array, types.intp, types.intp), codegen


@intrinsic
def load_square_part(typingctx: Any, array: Any, offset: Any, row: Any, rows: Any, columns: Any) -> Any:
    """As load_square, of a block of rows x columns alone, zeros around it."""
    tile = TileType(array.dtype, LANES[array.dtype.name], 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        vectors = []
        for at, _, where in _each_vector(builder, tile, args[1], args[2]):
            count = builder.select(builder.icmp_signed("<", _int(at), args[3]), args[4], _int(0))
            vectors.append(memory.load_part(where, count))
        return _pack(builder, tile, vectors)

    return tile(array, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def store_square_part(typingctx: Any, array: Any, offset: Any, row: Any, tile: Any, rows: Any, columns: Any) -> Any:
    """As store_tile, of the first rows and columns alone."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        for at, _, where in _each_vector(builder, tile, args[1], args[2]):
            count = builder.select(builder.icmp_signed("<", _int(at), args[4]), args[5], _int(0))
            memory.store_part(where, builder.extract_value(args[3], at), count)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile, types.intp, types.intp), codegen


@intrinsic
def store_pairs_part(typingctx: Any, array: Any, offset: Any, row: Any, a: Any, b: Any, rows: Any, columns: Any) -> Any:
    """Stores a[i, 0], b[i, 0], a[i, 1], b[i, 1], ... of two square tiles from array[offset + i * row] on.

    Of the first rows, and of 2 * lanes columns the first ``columns``.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        count = a.vector.count
        lefts, rights = _vectors(builder, a, args[3]), _vectors(builder, b, args[4])
        for i, (left, right) in enumerate(zip(lefts, rights, strict=True)):
            start = builder.add(args[1], builder.mul(args[2], _int(i)))
            inside = builder.icmp_signed("<", _int(i), args[5])
            for half, vector in enumerate(_zip(builder, count, left, right)):
                left_over = builder.select(inside, builder.sub(args[6], _int(half * count)), _int(0))
                memory.store_part(builder.add(start, _int(half * count)), vector, left_over)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, a, b, types.intp, types.intp), codegen


@intrinsic
def tile_add(typingctx: Any, a: Any, b: Any) -> Any:
    """The sum of two tiles, or of a tile and a vector (added to each of its vectors)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        right = [args[1]] * (a.rows * a.cols) if isinstance(b, VectorType) else _vectors(builder, b, args[1])
        return _pack(builder, a, [builder.fadd(x, y, flags=_CONTRACT) for x, y in zip(_vectors(builder, a, args[0]), right, strict=True)])

    return a(a, b), codegen


@intrinsic
def tile_confine(typingctx: Any, tile: Any, low: Any, high: Any) -> Any:
    """The tile's elements, or the limit that they are beyond; what is not a number stays so, and as a limit is none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        least, most = (_splat(builder, tile.vector.llvm, limit) for limit in args[1:])
        confined = []
        for value in _vectors(builder, tile, args[0]):
            value = builder.select(builder.fcmp_ordered("<", value, least), least, value)
            confined.append(builder.select(builder.fcmp_ordered(">", value, most), most, value))
        return _pack(builder, tile, confined)

    return tile(tile, tile.dtype, tile.dtype), codegen


@intrinsic
def tile_fma(typingctx: Any, tile: Any, other: Any, factor: Any) -> Any:
    """tile + other * factor: each vector of one tile times a vector, added to that of the other."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pairs = zip(_vectors(builder, tile, args[0]), _vectors(builder, other, args[1]), strict=True)
        return _pack(builder, tile, [_fma(builder, tile.vector, x, args[2], total) for total, x in pairs])

    return tile(tile, other, factor), codegen


@intrinsic
def tile_dot(typingctx: Any, total: Any, tile: Any, factor: Any) -> Any:
    """total + the sum of the tile's vectors, each times the factor (a vector)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = args[0]
        for vector in _vectors(builder, tile, args[1]):
            value = _fma(builder, total, vector, args[2], value)
        return value

    return total(total, tile, factor), codegen


# ---- shuffles


def _merged(builder: Any, a: Any, b: Any, order: list[list[int]]) -> tuple[Any, Any]:
    """Two vectors of elements of a and b, which are numbered one after the other."""
    low, high = (ir.Constant(ir.VectorType(_I32, len(half)), half) for half in order)
    return builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)


def _zip(builder: Any, lanes: int, a: Any, b: Any) -> tuple[Any, Any]:
    """The halves of a and b merged element by element."""
    order = [i + side * lanes for i in range(lanes) for side in (0, 1)]
    return _merged(builder, a, b, [order[:lanes], order[lanes:]])


def _rounds(vector: VectorType) -> list[tuple[int, list[list[int]]]]:
    """How log2(lanes) rounds of merges transpose a square: of which vectors, those that differ in a bit of their numbers, and how.

    Each round sends a bit of the lanes' numbers to the vectors' in exchange for one of theirs. First whole 16 bytes change places,
    then elements within them: what moves elements across the parts of a register is dear (eight steps of a Zen 1, three cycles
    elsewhere: A. Fog, "Instruction tables"), and merging across all lanes takes two of that each time.
    """
    count = vector.count
    inner = min(count, 128 // vector.dtype.bitwidth)
    parts = count // inner
    across = [[half + (2 * p + r) * inner + i for half in (0, count) for p in range(parts // 2) for i in range(inner)] for r in (0, 1)]
    within = [[half + p + r * inner // 2 + i for p in range(0, count, inner) for i in range(inner // 2) for half in (0, count)] for r in (0, 1)]
    low, most = inner.bit_length() - 1, count.bit_length() - 1
    return [(bit, across) for bit in range(low, most)] + [(bit, within) for bit in reversed(range(low))]


@intrinsic
def transpose(typingctx: Any, tile: Any) -> Any:
    """A square tile (as many vectors as lanes) with rows and lanes exchanged."""
    count = tile.vector.count
    if tile.rows * tile.cols != count:
        raise TypeError("transpose: the tile is not square")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = _vectors(builder, tile, args[0])
        for bit, order in _rounds(tile.vector):
            for i in range(count):
                if not i >> bit & 1:
                    other = i | 1 << bit
                    vectors[i], vectors[other] = _merged(builder, vectors[i], vectors[other], order)
        return _pack(builder, tile, vectors)

    return tile(tile), codegen


# ---- constant matrices


def _combination(builder: Any, vector: VectorType, coefficients: tuple[Fraction, ...], x: list[Any]) -> Any:
    """The sum of coefficient * vector; None when there is none."""
    total = None
    for coefficient, v in sorted(((c, v) for c, v in zip(coefficients, x, strict=True) if c), key=lambda term: abs(term[0]) != 1):
        if total is None:
            total = v if coefficient == 1 else builder.fmul(v, _constant(vector, coefficient))
        elif coefficient == 1:
            total = builder.fadd(total, v)
        elif coefficient == -1:
            total = builder.fsub(total, v)
        else:
            total = _fma(builder, vector, v, _constant(vector, coefficient), total)
    return total


def _constant(vector: VectorType, value: Fraction) -> Any:
    return ir.Constant(vector.llvm, [ir.Constant(vector.llvm.element, float(value))] * vector.count)


def _mirrored(a: tuple[Fraction, ...], b: tuple[Fraction, ...]) -> bool:
    """Whether two rows or columns agree up to sign, in some places with the same sign and in some with the other."""
    return all(abs(s) == abs(t) for s, t in zip(a, b, strict=True)) and any(s and s == t for s, t in zip(a, b, strict=True)) and a != b


def _agreeing(a: tuple[Fraction, ...], b: tuple[Fraction, ...], sign: int) -> tuple[Fraction, ...]:
    """a where it is sign * b, 0 elsewhere."""
    return tuple(s if s == sign * t else Fraction(0) for s, t in zip(a, b, strict=True))


def linear_map(matrix: tuple[tuple[Fraction, ...], ...]) -> Any:
    """An operation on tiles: the product of a constant matrix with a column of vectors, as straight-line code.

    Zeros and ones cost nothing. In a Winograd transform the rows, or the columns, of the points p and -p agree up to
    sign. Such columns meet only as x + y and x - y; such rows share their work, u + v and u - v.
    """
    rows, cols = len(matrix), len(matrix[0])

    def fold(builder: Any, x: list[Any]) -> tuple[list[Any], tuple[tuple[Fraction, ...], ...]]:
        """The vectors and the matrix once mirrored columns have met."""
        columns = list(zip(*matrix, strict=True))
        vectors, kept = [], []
        left = list(range(cols))
        while left:
            j = left.pop(0)
            k = next((k for k in left if _mirrored(columns[j], columns[k])), None)
            if k is None:
                vectors.append(x[j])
                kept.append(columns[j])
                continue
            left.remove(k)
            vectors += [builder.fadd(x[j], x[k]), builder.fsub(x[j], x[k])]
            kept += [_agreeing(columns[j], columns[k], 1), _agreeing(columns[j], columns[k], -1)]
        return vectors, tuple(zip(*kept, strict=True))

    @intrinsic
    def apply(typingctx: Any, tile: Any) -> Any:
        if (tile.rows, tile.cols) != (cols, 1):
            raise TypeError(f"linear_map: the tile has {tile.rows} rows, the matrix {cols} columns")
        result = TileType(tile.dtype, rows, 1)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = tile.vector
            x, folded = fold(builder, _vectors(builder, tile, args[0]))
            out: list[Any] = [None] * rows
            for i in range(rows):
                if out[i] is not None:
                    continue
                j = next((j for j in range(i + 1, rows) if out[j] is None and _mirrored(folded[i], folded[j])), None)
                if j is None:
                    total = _combination(builder, vector, folded[i], x)
                    out[i] = ir.Constant(vector.llvm, None) if total is None else total
                    continue
                u = _combination(builder, vector, _agreeing(folded[i], folded[j], 1), x)
                odd = _agreeing(folded[i], folded[j], -1)
                factor = next(c for c in reversed(odd) if c)
                v = _combination(builder, vector, tuple(c / factor for c in odd), x)
                if factor == 1:
                    out[i], out[j] = builder.fadd(u, v), builder.fsub(u, v)
                else:
                    out[i], out[j] = (_fma(builder, vector, v, _constant(vector, c), u) for c in (factor, -factor))
            return _pack(builder, result, out)

        return result(tile), codegen

    return apply


# ---- columns of vectors under a sliding window


def _count_in_row(builder: Any, i: int, rows: Any, cols: Any, fall: Any) -> Any:
    """Elements in row i of a ragged block: cols - i * fall in its first ``rows`` rows, none below."""
    left = builder.sub(cols, builder.mul(fall, _int(i)))
    return builder.select(builder.icmp_signed("<", _int(i), rows), left, _int(0))


@intrinsic(prefer_literal=True)
def load_tile_part(typingctx: Any, array: Any, offset: Any, row: Any, height: Any, rows: Any, cols: Any, fall: Any) -> Any:
    """As load_tile (``height`` is the constant), zeros beyond ``rows`` and beyond cols - i * fall elements in row i."""
    tile = TileType(array.dtype, height.literal_value, 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        places = _each_vector(builder, tile, args[1], args[2])
        return _pack(builder, tile, [memory.load_part(where, _count_in_row(builder, i, *args[4:])) for i, _, where in places])

    return tile(array, types.intp, types.intp, height, types.intp, types.intp, types.intp), codegen


@intrinsic
def store_column_part(typingctx: Any, array: Any, offset: Any, row: Any, tile: Any, rows: Any, cols: Any, fall: Any) -> Any:
    """As store_tile, of the first ``rows`` rows and cols - i * fall elements in row i."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        for i, _, where in _each_vector(builder, tile, args[1], args[2]):
            memory.store_part(where, builder.extract_value(args[3], i), _count_in_row(builder, i, *args[4:]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile, types.intp, types.intp, types.intp), codegen


def _window(rows: int, taps: int, stride: int) -> Any:
    """For each row of the input under a column of outputs: its number, and the (output, tap) pairs that meet in it."""
    for i in range((rows - 1) * stride + taps):
        pairs = [(j, i - j * stride) for j in range(rows) if 0 <= i - j * stride < taps]
        if pairs:
            yield i, pairs


def _walk(builder: Any, start: Any, row: Any, window: Any) -> Any:
    """As the window, with the place of each row: got from the one before by adding, where LLVM cannot see it.

    It would have an address for each before the loop, nine of them on the stack: a tile of seven pixels took 19 ns instead of 10.
    """
    place, at = start, 0
    for i, pairs in window:
        place, at = _apart(builder, builder.add(place, builder.mul(row, _int(i - at)))), i
        yield i, place, pairs


def _slide(typingctx: Any, tile: Any, x: Any, taps: Any, stride: Any, w: Any, weight: Any) -> Any:
    taps, stride_ = taps.literal_value, stride.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory, weights = _Memory(context, builder, x, args[1]), _Memory(context, builder, w, args[6])
        factors = [weight(builder, tile, weights, builder.add(args[7], builder.mul(args[8], _int(r)))) for r in range(taps)]
        sums = _vectors(builder, tile, args[0])
        for _, place, pairs in _walk(builder, args[2], args[3], _window(tile.rows, taps, stride_)):
            value = memory.load(place)
            for j, r in pairs:
                sums[j] = _fma(builder, tile.vector, factors[r], value, sums[j])
        return _pack(builder, tile, sums)

    return codegen


@intrinsic(prefer_literal=True)
def slide(typingctx: Any, tile: Any, x: Any, x0: Any, row: Any, taps: Any, stride: Any, w: Any, w0: Any, w_row: Any) -> Any:
    """Row j of the tile + the sum over r < taps of w[w0 + r * w_row] times the vector x[x0 + (j * stride + r) * row ...].

    ``taps`` and ``stride`` are constants. A vector of x is loaded once for all the outputs that need it.
    """
    codegen = _slide(typingctx, tile, x, taps, stride, w, lambda b, t, memory, at: _splat(b, t.vector.llvm, memory.scalar(at)))
    return tile(tile, x, types.intp, types.intp, taps, stride, w, types.intp, types.intp), codegen


@intrinsic(prefer_literal=True)
def slide_lanes(typingctx: Any, tile: Any, x: Any, x0: Any, row: Any, taps: Any, stride: Any, w: Any, w0: Any, w_row: Any) -> Any:
    """As slide, with a weight for each lane: the vectors w[w0 + r * w_row ...]."""
    codegen = _slide(typingctx, tile, x, taps, stride, w, lambda b, t, memory, at: memory.load(at))
    return tile(tile, x, types.intp, types.intp, taps, stride, w, types.intp, types.intp), codegen


def _correlate(sums: Any, y: Any, x: Any, taps: int, stride: int, load: Any) -> Any:
    """The body of both correlations; ``load(builder, memory, args, i, where)`` is a vector of input row i."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, x, args[2])
        totals, factors = _vectors(builder, sums, args[0]), _vectors(builder, y, args[1])
        steps = sums.rows // taps
        for u, start in enumerate(cgutils.unpack_tuple(builder, args[3], steps)):
            for i, place, pairs in _walk(builder, start, args[4], _window(y.rows, taps, stride)):
                value = load(builder, memory, args, i, place)
                for j, r in pairs:
                    at = r * steps + u
                    totals[at] = _fma(builder, y.vector, factors[j], value, totals[at])
        return _pack(builder, sums, totals)

    return codegen


@intrinsic(prefer_literal=True)
def correlate(typingctx: Any, sums: Any, y: Any, x: Any, starts: Any, row: Any, taps: Any, stride: Any) -> Any:
    """Vector (r, u) of sums + the sum over rows j of y[j] times the vector x[starts[u] + (j * stride + r) * row ...]."""
    codegen = _correlate(sums, y, x, taps.literal_value, stride.literal_value, lambda b, memory, args, i, where: memory.load(where))
    return sums(sums, y, x, starts, types.intp, taps, stride), codegen


@intrinsic(prefer_literal=True)
def correlate_part(typingctx: Any, sums: Any, y: Any, x: Any, starts: Any, row: Any, taps: Any, stride: Any, rows: Any, cols: Any, fall: Any) -> Any:
    """As correlate where y is a part: no more of x is read than meets it (infinities beyond must not count)."""
    taps_, stride_ = taps.literal_value, stride.literal_value

    def part(builder: Any, memory: Any, args: Any, i: int, where: Any) -> Any:
        rows, cols, fall = args[7:]
        if taps_ == 1 and stride_ == 1:
            return memory.load_part(where, _count_in_row(builder, i, rows, cols, fall))
        reach = builder.add(builder.mul(builder.sub(rows, _int(1)), _int(stride_)), _int(taps_))
        return memory.load_part(where, _count_in_row(builder, i, reach, cols, _int(0)))

    codegen = _correlate(sums, y, x, taps_, stride_, part)
    return sums(sums, y, x, starts, types.intp, taps, stride, types.intp, types.intp, types.intp), codegen


def _products(sums: Any, y: Any, x: Any, load: Any) -> Any:
    """The body of both lane products; ``load(memory, args, where)`` is a vector of x."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, x, args[2])
        totals, factors = _vectors(builder, sums, args[0]), _vectors(builder, y, args[1])
        steps = sums.rows // y.rows
        for u, start in enumerate(cgutils.unpack_tuple(builder, args[3], steps)):
            value = load(memory, args, builder.add(start, args[4]))
            for i, factor in enumerate(factors):
                totals[i * steps + u] = _fma(builder, y.vector, factor, value, totals[i * steps + u])
        return _pack(builder, sums, totals)

    return codegen


@intrinsic
def lane_products(typingctx: Any, sums: Any, y: Any, x: Any, starts: Any, shift: Any) -> Any:
    """Vector (i, u) of sums + y[i] times the vector x[starts[u] + shift ...], lane by lane."""
    codegen = _products(sums, y, x, lambda memory, args, where: memory.load(where))
    return sums(sums, y, x, starts, types.intp), codegen


@intrinsic
def lane_products_part(typingctx: Any, sums: Any, y: Any, x: Any, starts: Any, shift: Any, cols: Any) -> Any:
    """As lane_products, of the first ``cols`` lanes: infinities beyond must not count."""
    codegen = _products(sums, y, x, lambda memory, args, where: memory.load_part(where, args[5]))
    return sums(sums, y, x, starts, types.intp, types.intp), codegen


@intrinsic
def lane_sums(typingctx: Any, tile: Any) -> Any:
    """The sums over the lanes of each vector of a square tile, as one vector; the order of additions is fixed."""
    count = tile.vector.count
    if tile.rows * tile.cols != count:
        raise TypeError("lane_sums: the tile is not square")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = dict(enumerate(_vectors(builder, tile, args[0])))
        for bit, order in _rounds(tile.vector):
            pairs = [(i, i | 1 << bit) for i in vectors if not i >> bit & 1]
            vectors = {i: builder.fadd(*_merged(builder, vectors[i], vectors[other], order)) for i, other in pairs}
        return vectors[0]

    return tile.vector(tile), codegen


@intrinsic(prefer_literal=True)
def spaced(typingctx: Any, array: Any, start: Any, step: Any, most: Any, parts: Any) -> Any:
    """(start, start + step, ...), from number ``most`` on the same again: as many as a vector of the array's dtype has lanes, over ``parts``."""
    result = types.UniTuple(types.intp, LANES[array.dtype.name] // parts.literal_value)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, start, step, most, _ = args
        last = builder.sub(most, _int(1))
        values = []
        for i in range(result.count):
            number = builder.select(builder.icmp_signed("<", last, _int(i)), last, _int(i))
            values.append(builder.add(start, builder.mul(number, step)))
        return cgutils.pack_array(builder, values)

    return result(array, types.intp, types.intp, types.intp, parts), codegen


@intrinsic(prefer_literal=True)
def store_runs(typingctx: Any, array: Any, offset: Any, row: Any, vector: Any, runs: Any) -> Any:
    """The vector in so many runs (a constant), run i to array[offset + i * row ...]."""
    count = vector.count // runs.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _Memory(context, builder, array, args[0])
        for i in range(runs.literal_value):
            lanes_ = ir.Constant(ir.VectorType(_I32, count), list(range(i * count, (i + 1) * count)))
            memory.store_some(builder.add(args[1], builder.mul(args[2], _int(i))), builder.shuffle_vector(args[3], args[3], lanes_), count)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector, runs), codegen


@intrinsic
def elements(typingctx: Any, vector: Any) -> Any:
    """The lanes as a tuple of numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cgutils.pack_array(builder, [builder.extract_element(args[0], ir.Constant(_I32, i)) for i in range(vector.count)])

    return types.UniTuple(vector.dtype, vector.count)(vector), codegen


@intrinsic
def row_sums(typingctx: Any, tile: Any) -> Any:
    """The sum over the lanes of each vector of a tile, as a tuple of numbers; the order of additions is fixed."""
    result = types.UniTuple(tile.dtype, tile.rows * tile.cols)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = _ELEMENT[tile.dtype.name]
        name = f"llvm.vector.reduce.fadd.v{tile.vector.count}{'f32' if tile.dtype.name == 'float32' else 'f64'}"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, tile.vector.llvm]), name)
        zero = ir.Constant(kind, 0.0)
        sums = [builder.call(reduce, [zero, vector], fastmath=("reassoc",)) for vector in _vectors(builder, tile, args[0])]
        return cgutils.pack_array(builder, sums)

    return result(tile), codegen


def _extremum(name: str) -> Any:
    @intrinsic
    def extremum(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            full = f"llvm.{name}.v{a.count}{'f32' if a.dtype.name == 'float32' else 'f64'}"
            fnty = ir.FunctionType(a.llvm, [a.llvm, a.llvm])
            return builder.call(cgutils.get_or_insert_function(builder.module, fnty, full), args, fastmath=("nsz",))

        return a(a, a), codegen

    return extremum


larger = _extremum("maximum")
"""The larger of each two lanes; NaN where either is NaN."""

smaller = _extremum("minimum")
"""The smaller of each two lanes; NaN where either is NaN."""


def _across(name: str, initial: bool) -> Any:
    @intrinsic
    def across(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = _ELEMENT[vector.dtype.name]
            full = f"llvm.vector.reduce.{name}.v{vector.count}{'f32' if vector.dtype.name == 'float32' else 'f64'}"
            given = [ir.Constant(kind, 0.0), *args] if initial else args
            reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [v.type for v in given]), full)
            return builder.call(reduce, given, fastmath=("reassoc", "nsz"))

        return vector.dtype(vector), codegen

    return across


sum_of_lanes = _across("fadd", initial=True)
"""The sum over a vector's lanes; the order of additions is fixed."""

largest_lane = _across("fmaximum", initial=False)
"""The largest of a vector's lanes; NaN if one is NaN."""


@intrinsic
def interleave(typingctx: Any, a: Any, b: Any) -> Any:
    """The elements of two vectors in turns, as a column of two vectors."""
    tile = TileType(a.dtype, 2, 1)
    return tile(a, b), lambda context, builder, sig, args: _pack(builder, tile, list(_zip(builder, a.count, *args)))


@intrinsic
def deinterleave(typingctx: Any, a: Any, b: Any) -> Any:
    """The even and the odd elements of two vectors that follow one another, as a column of two vectors."""
    tile = TileType(a.dtype, 2, 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        masks = [ir.Constant(ir.VectorType(_I32, a.count), list(range(odd, 2 * a.count, 2))) for odd in (0, 1)]
        return _pack(builder, tile, [builder.shuffle_vector(*args, mask) for mask in masks])

    return tile(a, b), codegen
