"""Comparisons of vectors: the larger of two, with NaN passed on, and where the first of the largest stands.

A pair is a column of two vectors: values, and the places where they stand as numbers of the same dtype (a float32 holds
every integer up to 2**24).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from fastops._jit import function
from fastops.simd.vector import TileType


@function
def larger(a, b):
    """The larger of two numbers, NaN if one of them is: ``maximum`` for scalars."""
    return a if (a > b) | (a != a) else b


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of a and b lane by lane, NaN where one of them is."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = args
        greater = builder.select(builder.fcmp_ordered(">", x, y), x, y)  # y where one is NaN: one instruction
        return builder.select(builder.fcmp_unordered("uno", x, x), x, greater)

    return a(a, b), codegen


@intrinsic
def add_where_equal(typingctx: Any, total: Any, a: Any, b: Any, v: Any) -> Any:
    """total + v in the lanes where a == b, total in the others."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total, a, b, v = args
        return builder.select(builder.fcmp_ordered("==", a, b), builder.fadd(total, v), total)

    return total(total, a, b, v), codegen


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


def _chosen(builder: Any, pair: Any, take: Any, value: Any, place: Any) -> Any:
    for i, new in enumerate((value, place)):
        pair = builder.insert_value(pair, builder.select(take, new, builder.extract_value(pair, i)), i)
    return pair


@intrinsic
def max_pair_next(typingctx: Any, pair: Any, value: Any, place: Any) -> Any:
    """The larger of the pair and a value that stands behind it: of equal ones the first stays, of NaN the last is taken.

    That is what PyTorch's pooling does: ``if (value > largest || isnan(value)) largest = value``.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair, value, place = args
        greater = builder.fcmp_ordered(">", value, builder.extract_value(pair, 0))
        take = builder.or_(greater, builder.fcmp_unordered("uno", value, value))
        return _chosen(builder, pair, take, value, place)

    return pair(pair, value, place), codegen


@intrinsic
def max_pair(typingctx: Any, pair: Any, value: Any, place: Any) -> Any:
    """As ``max_pair_next`` for a value that may stand anywhere: of equal ones the first place, of NaN the last."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair, value, place = args
        largest, where = builder.extract_value(pair, 0), builder.extract_value(pair, 1)
        greater = builder.fcmp_ordered(">", value, largest)
        equal = builder.and_(builder.fcmp_ordered("==", value, largest), builder.fcmp_ordered("<", place, where))
        number = builder.fcmp_ordered("ord", largest, largest)
        later = builder.or_(number, builder.fcmp_ordered(">", place, where))
        nan = builder.and_(builder.fcmp_unordered("uno", value, value), later)
        return _chosen(builder, pair, builder.or_(builder.or_(greater, equal), nan), value, place)

    return pair(pair, value, place), codegen
