"""Random numbers that are a function of a seed and an index: whoever needs one again computes it again.

A mask drawn so need not be kept for the backward pass, and does not depend on who draws which part of it in what order.

The function is Threefry-2x32 with 13 rounds: key = seed, counter = index, of whose two words ``bits32`` takes the first.
Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 3.3 and table 2: 13
rounds pass all of BigCrush, over one key's counters and over keys that differ in a bit (seeds 0, 1, 2, ...). Only additions,
rotations and exclusive ors of 32 bits, so it vectorises on every machine in full width, which products of 64 bits do not.
"""

from __future__ import annotations

import os
from operator import index as as_index
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastops._jit import formula

_ROUNDS = 13
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_KEY_PARITY = 0x1BD11BDA
_WORD = ir.IntType(32)


def seed_of(op: str, rng: Any) -> int:
    """The seed that an operation's argument ``rng`` stands for.

    An integer is its own seed, a generator draws one, None takes one from the operating system.

    >>> seed_of("dropout", 7), seed_of("dropout", np.random.default_rng(0)) == seed_of("dropout", np.random.default_rng(0))
    (7, True)
    >>> seed_of("dropout", -1)
    Traceback (most recent call last):
    ValueError: dropout: rng must be at least 0 and below 2**63, got -1
    """
    if rng is None:
        return int.from_bytes(os.urandom(8), "little") >> 1
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(1 << 63))
    return check_seed(op, rng)


def check_seed(op: str, rng: Any) -> int:
    """The seed that a backward pass is given, which must be an integer: nothing else gives the same numbers again.

    >>> check_seed("dropout_backward", None)
    Traceback (most recent call last):
    TypeError: dropout_backward: rng must be the integer seed of the forward pass, got None
    """
    try:
        seed = None if isinstance(rng, (bool, np.bool_)) else as_index(rng)
    except TypeError:
        seed = None
    if seed is None:
        allowed = "the integer seed of the forward pass" if op.endswith("_backward") else "None, an integer or a numpy.random.Generator"
        raise TypeError(f"{op}: rng must be {allowed}, got {rng!r}")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"{op}: rng must be at least 0 and below 2**63, got {seed}")
    return seed


def _low_and_high(builder: ir.IRBuilder, value: Any) -> tuple[Any, Any]:
    return builder.trunc(value, _WORD), builder.trunc(builder.lshr(value, ir.Constant(value.type, 32)), _WORD)


@intrinsic
def words32(typing_context: Any, seed: Any, index: Any) -> Any:
    """Two independent words of 32 random bits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        # One intrinsic: sixty nested expressions of Numba, which has no arithmetic of 32 bits, would compile slowly.
        rotate = builder.module.declare_intrinsic("llvm.fshl", [_WORD], ir.FunctionType(_WORD, [_WORD] * 3))
        key = list(_low_and_high(builder, args[0]))
        key.append(builder.xor(builder.xor(key[0], key[1]), ir.Constant(_WORD, _KEY_PARITY)))
        a, b = _low_and_high(builder, args[1])
        a, b = builder.add(a, key[0]), builder.add(b, key[1])
        for number in range(1, _ROUNDS + 1):
            a = builder.add(a, b)
            b = builder.xor(builder.call(rotate, [b, b, ir.Constant(_WORD, _ROTATIONS[(number - 1) % 8])]), a)
            if number % 4 == 0:
                step = number // 4
                a = builder.add(a, key[step % 3])
                b = builder.add(b, builder.add(key[(step + 1) % 3], ir.Constant(_WORD, step)))
        return context.make_tuple(builder, signature.return_type, (a, b))

    return types.UniTuple(types.uint32, 2)(types.int64, types.int64), codegen


@formula
def bits32(seed, index):
    """32 random bits (uint32), the same ones for the same seed (0 <= seed < 2**63) and index."""
    return words32(seed, index)[0]


@formula
def uniform32(seed, index):
    """A float32 in [0, 1), a multiple of 2**-24."""
    # 24 bits are a positive int32 too, and those alone have a packed conversion everywhere
    return np.float32(np.int32(bits32(seed, index) >> np.uint32(8))) * np.float32(2.0**-24)
