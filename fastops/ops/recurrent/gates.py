"""From sums to gates and states, of some hidden units of one row; the formulas are those of ``steps.py``."""

from __future__ import annotations

from fastops._jit import function
from fastops.simd.vmath import sigmoid, tanh


@function
def lstm_gates(i, f, g, o, c, c_next, hidden):
    """Sums to gates, in place; the next cell state and hidden state."""
    for j in range(i.size):
        i[j] = sigmoid(i[j])
        f[j] = sigmoid(f[j])
        g[j] = tanh(g[j])
        o[j] = sigmoid(o[j])
    for j in range(i.size):
        c_next[j] = f[j] * c[j] + i[j] * g[j]
        hidden[j] = o[j] * tanh(c_next[j])


@function
def gru_gates(r, z, n, state, inner, hidden):
    """Sums to gates, in place, and the next state; ``inner`` is the part of n that r multiplies."""
    for j in range(r.size):
        r[j] = sigmoid(r[j])
        z[j] = sigmoid(z[j])
        n[j] = tanh(n[j] + r[j] * inner[j])
        hidden[j] = n[j] + z[j] * (state[j] - n[j])


@function
def rnn_state(sums, relu, hidden):
    """The next state of a plain network."""
    if relu:
        zero = sums.dtype.type(0)
        for j in range(sums.size):
            hidden[j] = zero if sums[j] < 0 else sums[j]
    else:
        for j in range(sums.size):
            hidden[j] = tanh(sums[j])
