"""Comparisons of vectors: the larger of two, with NaN passed on, and where the first of the largest stands.

A pair is a column of two vectors: values, and the places where they stand as numbers of the same dtype (a float32 holds
every integer up to 2**24).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastops._jit import function
from fastops.simd.vector import TileType


@function
def larger(a, b):
    """The larger of two numbers, NaN if one of them is: ``maximum`` for scalars."""
    return a if (a > b) | (a != a) else b


def _larger(builder: Any, x: Any, y: Any) -> Any:
    greater = builder.select(builder.fcmp_ordered(">", x, y), x, y)  # y where one is NaN: one instruction
    return builder.select(builder.fcmp_unordered("uno", x, x), x, greater)


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of a and b lane by lane, NaN where one of them is."""

    return a(a, b), lambda context, builder, sig, args: _larger(builder, *args)


@intrinsic
def pair_of(typingctx: Any, values: Any, places: Any) -> Any:
    """The pair of two vectors."""
    pair = TileType(values.dtype, 2, 1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        empty = ir.Constant(pair.llvm, ir.Undefined)
        return builder.insert_value(builder.insert_value(empty, args[0], 0), args[1], 1)

    return pair(values, places), codegen


def _half(index: int) -> Any:
    @intrinsic
    def half(typingctx: Any, pair: Any) -> Any:
        return pair.vector(pair), lambda context, builder, sig, args: builder.extract_value(args[0], index)

    return half


first_of, second_of = _half(0), _half(1)


def _larger_pair(builder: Any, best: Any, candidate: Any) -> Any:
    (largest, where), (value, place) = best, candidate
    greater = builder.fcmp_ordered(">", value, largest)
    equal = builder.and_(builder.fcmp_ordered("==", value, largest), builder.fcmp_ordered("<", place, where))
    number = builder.fcmp_ordered("ord", largest, largest)
    later = builder.or_(number, builder.fcmp_ordered(">", place, where))
    nan = builder.and_(builder.fcmp_unordered("uno", value, value), later)
    take = builder.or_(builder.or_(greater, equal), nan)
    return [builder.select(take, new, old) for new, old in zip(candidate, best, strict=True)]


@intrinsic
def max_pair_next(typingctx: Any, pair: Any, value: Any, place: Any) -> Any:
    """The larger of the pair and a value that stands behind it: of equal ones the first stays, of NaN the last is taken.

    That is what PyTorch's pooling does: ``if (value > largest || isnan(value)) largest = value``.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair, value, place = args
        greater = builder.fcmp_ordered(">", value, builder.extract_value(pair, 0))
        take = builder.or_(greater, builder.fcmp_unordered("uno", value, value))
        for i, new in enumerate((value, place)):
            pair = builder.insert_value(pair, builder.select(take, new, builder.extract_value(pair, i)), i)
        return pair

    return pair(pair, value, place), codegen


@intrinsic
def max_pair(typingctx: Any, pair: Any, value: Any, place: Any) -> Any:
    """As ``max_pair_next`` for a value that may stand anywhere: of equal ones the first place, of NaN the last."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair, *candidate = args
        values = _larger_pair(builder, [builder.extract_value(pair, i) for i in (0, 1)], candidate)
        return builder.insert_value(builder.insert_value(pair, values[0], 0), values[1], 1)

    return pair(pair, value, place), codegen


def _folded(builder: Any, pair: Any, join: Any) -> Any:
    """All lanes joined, half with half, down to one."""
    count = pair[0].type.count
    while count > 1:
        count //= 2
        low, high = (ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(s, s + count))) for s in (0, count))
        pair = join(*([builder.shuffle_vector(v, v, mask) for v in pair] for mask in (low, high)))
    return [builder.extract_element(v, ir.Constant(ir.IntType(32), 0)) for v in pair]


@intrinsic
def sum_of_lanes(typingctx: Any, vector: Any) -> Any:
    """The sum of a vector's elements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _folded(builder, [args[0]], lambda a, b: [builder.fadd(a[0], b[0])])[0]

    return vector.dtype(vector), codegen


@intrinsic
def largest_lane(typingctx: Any, vector: Any) -> Any:
    """The largest of a vector's elements, NaN if there is one."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _folded(builder, [args[0]], lambda a, b: [_larger(builder, a[0], b[0])])[0]

    return vector.dtype(vector), codegen


@intrinsic
def largest_pair(typingctx: Any, pair: Any) -> Any:
    """The largest value of a pair of vectors and its place, by the rule of ``max_pair``."""
    result = types.UniTuple(pair.dtype, 2)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [builder.extract_value(args[0], i) for i in (0, 1)]
        return context.make_tuple(builder, result, _folded(builder, values, lambda a, b: _larger_pair(builder, a, b)))

    return result(pair), codegen
