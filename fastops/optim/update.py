"""One pass over a parameter: reads it, its gradient and its state, and writes it and its state.

A rule is a formula of one element with up to three state arrays and ten numbers, which the optimizer computes once for all
parameters::

    @formula
    def _heavy_ball(p, g, m, c):
        m = c[3] * m + g
        return p - c[4] * m, m

    HEAVY_BALL = Rule(__name__, _heavy_ball, states=1, ns=0.5)

Optimizers whose numbers alone differ share a rule. A rule compiles its own loop when it is first used, 0.3 s; the launcher is
compiled once for all. The pass is bound by memory for large parameters: Adam reads 16 bytes and writes 12 for each element.
"""

from __future__ import annotations

from typing import Any

from numba import types

from fastops._check import Array
from fastops._jit import address_of, call_at, formula, launcher, parallel, separate
from fastops._memory import empty
from fastops._threads import threads_for
from fastops.simd.rows import copy_row

COEFFICIENTS = 10

# Elements that a thread takes at once, and that are copied just before they are updated: 8 KB in float32 stay in L1.
_BLOCK = 1 << 14
_CHUNK = 1 << 11
# Below so many elements no rule is worth a second thread.
_SMALL = 1 << 13

_ELEMENTS = {"f": types.float32, "d": types.float64}


@formula
def descent(p, g, c):
    """The direction of descent: c[0] is -1 where the objective is maximised, c[1] the coefficient of an L2 penalty."""
    g = c[0] * g
    return g + c[1] * p if c[1] != 0 else g  # 0 times an infinite parameter would be NaN


def _loop(module: str, rule: Any, states: int) -> Any:
    """The rule over ``count`` elements from ``start``, in place; ``x``, ``y`` and ``z`` are its state, flat arrays."""
    # The slices start at index 0, which needs no test for being negative: so the loops vectorise.
    loop: Any
    if states == 0:

        def loop(p, g, x, y, z, start, count, numbers):
            end = start + count
            p, g = p[start:end], g[start:end]
            c = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8], numbers[9])
            for i in range(count):
                p[i] = rule(p[i], g[i], c)

    elif states == 1:

        def loop(p, g, x, y, z, start, count, numbers):
            end = start + count
            p, g, x = p[start:end], g[start:end], x[start:end]
            c = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8], numbers[9])
            for i in range(count):
                p[i], x[i] = rule(p[i], g[i], x[i], c)

    elif states == 2:

        def loop(p, g, x, y, z, start, count, numbers):
            end = start + count
            p, g, x, y = p[start:end], g[start:end], x[start:end], y[start:end]
            c = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8], numbers[9])
            for i in range(count):
                p[i], x[i], y[i] = rule(p[i], g[i], x[i], y[i], c)

    else:

        def loop(p, g, x, y, z, start, count, numbers):
            end = start + count
            p, g, x, y, z = p[start:end], g[start:end], x[start:end], y[start:end], z[start:end]
            c = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8], numbers[9])
            for i in range(count):
                p[i], x[i], y[i], z[i] = rule(p[i], g[i], x[i], y[i], z[i], c)

    # Its machine code is stored under the rule's module, whose source and imports decide about it.
    loop.__module__ = module
    return separate(loop, name=f"{rule.__name__}_loop")


@separate
def _update_block(block, worker, address, copied, states, p, x, y, z, g, new_p, new_x, new_y, new_z, numbers):
    """Block number ``block`` of a parameter; all arrays flat. A loop that wrote elsewhere than it reads would stay scalar."""
    for start in range(block * _BLOCK, min((block + 1) * _BLOCK, g.size), _CHUNK):
        count = min(_CHUNK, g.size - start)
        if copied:
            copy_row(p, start, new_p, start, count)
            if states > 0:
                copy_row(x, start, new_x, start, count)
            if states > 1:
                copy_row(y, start, new_y, start, count)
            if states > 2:
                copy_row(z, start, new_z, start, count)
        call_at(address, (new_p, g, new_x, new_y, new_z, start, count, numbers))


@launcher
def _update(threads, address, states, p, x, y, z, g, numbers):
    blocks = (g.size + _BLOCK - 1) // _BLOCK
    parallel(_update_block, blocks, threads, (address, False, states, p, x, y, z, g, p, x, y, z, numbers))


@launcher
def _update_copy(threads, address, states, p, x, y, z, g, new_p, new_x, new_y, new_z, numbers):
    blocks = (g.size + _BLOCK - 1) // _BLOCK
    parallel(_update_block, blocks, threads, (address, True, states, p, x, y, z, g, new_p, new_x, new_y, new_z, numbers))


class Rule:
    """A formula with its compiled loop; ``ns`` is the time of an element in float32, ``module`` the optimizer's ``__name__``."""

    def __init__(self, module: str, formula: Any, states: int, ns: float) -> None:
        self._loop = _loop(module, formula, states)
        self._states = states
        self._ns = ns
        self._addresses: dict[str, int] = {}

    def _address(self, char: str) -> int:
        flat = types.Array(_ELEMENTS[char], 1, "C")
        address = self._addresses[char] = address_of(self._loop, flat, flat, flat, flat, flat, types.intp, types.intp, flat)
        return address

    def apply(self, p: Array, g: Array, state: list[Array], numbers: Array) -> None:
        """Update ``p`` and its state where they are. All are flat, of one dtype, and ready for kernels."""
        char = p.dtype.char
        address = self._addresses.get(char) or self._address(char)
        x, y, z = (*state, p, p, p)[:3]  # what the rule does not have, its loop does not touch
        threads = 1 if g.size < _SMALL else threads_for(g.size * self._ns)
        _update(threads, address, self._states, p, x, y, z, g, numbers)

    def applied(self, p: Array, g: Array, state: list[Array], numbers: Array) -> tuple[Array, list[Array]]:
        """The parameter and its state after the update, in new arrays."""
        char = p.dtype.char
        address = self._addresses.get(char) or self._address(char)
        new_p, new = empty(p.shape, p.dtype), [empty(p.shape, p.dtype) for _ in state]
        x, y, z = (*state, p, p, p)[:3]
        new_x, new_y, new_z = (*new, new_p, new_p, new_p)[:3]
        threads = 1 if g.size < _SMALL else threads_for(g.size * self._ns)
        _update_copy(threads, address, self._states, p, x, y, z, g, new_p, new_x, new_y, new_z, numbers)
        return new_p, new
