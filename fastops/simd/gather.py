"""A vector of elements from anywhere: what the processor's gather instruction does.

A loop over ``x[index[i]]`` does not become one by itself, since the array that takes the result might be x or the index.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastops._jit import CHECKED
from fastops.simd.vector import VectorType

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def gather(typingctx: Any, x: Any, start: Any, table: Any, at: Any, end: Any) -> Any:
    """The elements x[start + table[at + i]], one a lane; zero, and not read, where the table's entry is not in [0, end)."""
    vector = VectorType(x.dtype)
    count, size = vector.count, x.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values, offsets = (context.make_array(t)(context, builder, v) for t, v in ((x, args[0]), (table, args[2])))
        indices, pointers = ir.VectorType(_I64, count), ir.VectorType(vector.llvm.element.as_pointer(), count)

        def splat(scalar: Any) -> Any:
            undefined = ir.Constant(indices, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
            return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, count), [0] * count))

        index = builder.load(builder.bitcast(builder.gep(offsets.data, [args[3]]), indices.as_pointer()))
        index.align = 8
        inside = builder.icmp_unsigned("<", index, splat(args[4]))
        if CHECKED:
            last = builder.add(args[1], args[4])
            bad = builder.or_(builder.icmp_signed("<", args[1], ir.Constant(_I64, 0)), builder.icmp_signed(">", last, values.nitems))
            bad = builder.or_(bad, builder.icmp_signed(">", builder.add(args[3], ir.Constant(_I64, count)), offsets.nitems))
            with builder.if_then(bad, likely=False):
                context.call_conv.return_user_exc(builder, IndexError, ("vector access outside the array",))
        base = builder.ptrtoint(builder.gep(values.data, [args[1]]), _I64)
        addresses = builder.add(splat(base), builder.mul(index, splat(ir.Constant(_I64, size))))
        kind = "f32" if size == 4 else "f64"
        arguments = [builder.inttoptr(addresses, pointers), ir.Constant(_I32, size), inside, ir.Constant(vector.llvm, None)]
        fnty = ir.FunctionType(vector.llvm, [a.type for a in arguments])
        fn = builder.module.declare_intrinsic(f"llvm.masked.gather.v{count}{kind}.v{count}p0", (), fnty)
        return builder.call(fn, arguments)

    return vector(x, types.intp, table, types.intp, types.intp), codegen
