"""lstm_cell, gru_cell, rnn_cell: one step of :func:`lstm`, :func:`gru` and :func:`rnn`. Formulas, gradients, Sources: ``steps.py``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.recurrent.layers import Memory, Network, checked_network, gradients, run
from fastops.ops.recurrent.steps import GATES, Weights, single_step

Mask6 = tuple[bool, bool, bool, bool, bool, bool]


def _is(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return type(value) is np.ndarray and value.dtype is dtype and value.shape == shape and value.flags.carray


@lru_cache(maxsize=64)
def _of_rows(N: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The lengths of so many rows, one step each, and the cell states that they have not; nobody writes to either."""
    return np.ones(N, np.intp), np.zeros((1, N, 0), dtype)


def _usual_states(kind: str, x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Array, ...] | None:
    """The states, where every argument is what it should be, without a copy; None where somebody has to look closer.

    Looking closer takes 15 us of the 118 of rnn_cell of 32x128 and 256.
    """
    states: Any = hx if kind == "lstm" else (hx,)
    if not (type(x) is type(w_hh) is np.ndarray and x.ndim == w_hh.ndim == 2 and type(states) in (tuple, list) and len(states) == (2 if kind == "lstm" else 1)):
        return None
    dtype, (N, size), (rows, H) = x.dtype, x.shape, w_hh.shape
    usual = dtype.char in "fd" and rows == GATES[kind] * H > 0 and _is(x, dtype, (N, size)) and _is(w_hh, dtype, (rows, H))
    biased = b_ih is not None and _is(b_ih, dtype, (rows,)) and _is(b_hh, dtype, (rows,))
    if not (usual and _is(w_ih, dtype, (rows, size)) and (biased or (b_ih is None and b_hh is None)) and all(_is(h, dtype, (N, H)) for h in states)):
        return None
    return tuple(states)


def _one_step(op: str, kind: str, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Network:
    """The network of one step."""
    usual = _usual_states(kind, input, hx, w_ih, w_hh, b_ih, b_hh)
    if usual is not None:
        ends, nothing = _of_rows(len(input), input.dtype)
        weights: Any = [[Weights(w_ih, w_hh, b_ih, b_hh, None)]]
        return Network(kind, input[None], usual[0][None], usual[1][None] if kind == "lstm" else nothing, weights, ends, input.dtype, True, False, 0.0, 0)
    (x,), _ = _check.as_arrays(op, input=input)
    if x.ndim not in (1, 2):
        raise ValueError(f"{op}: input must have axes (N, I) or (I,), got shape {x.shape}")
    given_weights = {"w_ih": w_ih, "w_hh": w_hh}
    if b_ih is not None or b_hh is not None:
        given = _check.as_array(op, "b_ih" if b_hh is None else "b_hh", b_ih if b_hh is None else b_hh)
        given_weights.update({name: np.zeros_like(given) if b is None else b for name, b in (("b_ih", b_ih), ("b_hh", b_hh))})
    states = hx if kind == "lstm" else (hx,)
    if kind == "lstm" and hx is not None and (isinstance(hx, np.ndarray) or len(hx) != 2):
        raise TypeError(f"{op}: hx must be None or a pair (h_0, c_0), got {type(hx).__name__}")
    lifted = None if hx is None else tuple(None if s is None else np.asarray(s)[None] for s in states)
    one_step = x.astype(_check.as_array(op, "input", input).dtype, copy=False)[None]
    return checked_network(
        op, kind, one_step, lifted if kind == "lstm" else None if lifted is None else lifted[0], list(given_weights.values()), tuple(given_weights),
        bias="b_ih" in given_weights,
    )  # fmt: skip


def _cell(op: str, kind: str, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Any, dict[str, Any]]:
    usual = _usual_states(kind, input, hx, w_ih, w_hh, b_ih, b_hh)
    if usual is not None:  # at once: ``run`` would take 5 us of the 17 of gru_cell of 8x32 and 32
        state, c = usual[0], usual[1].copy() if kind == "lstm" else usual[0]
        out = np.empty_like(state)
        kept = single_step(kind, input, Weights(w_ih, w_hh, b_ih, b_hh, None), state, c, out.reshape(-1), 0, state.shape[1])
        h = out.copy()
        return ((h, c) if kind == "lstm" else h), {"memory": Memory([out[None]], [[kept]])}
    network = _one_step(op, kind, input, hx, w_ih, w_hh, b_ih, b_hh)
    _, h, c, memory = run(network)
    h, c = network.state_outside(h)[0], network.state_outside(c)[0]
    return ((h, c) if kind == "lstm" else h), {"memory": memory}


def _cell_backward(
    op: str, kind: str, dh: Any, dc: Any, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, memory: Any, mask: Mask6
) -> tuple[Any, ...]:
    network = _one_step(op, kind, input, hx, w_ih, w_hh, b_ih, b_hh)
    last, last_c = (None if d is None else np.asarray(d)[None] for d in (dh, dc))
    dx, dhx, dweights = gradients(op, network, None, last, last_c, memory, hx, (mask[0], mask[1], any(mask[2:])))
    if dhx is not None:
        dhx = [None if g is None else g[0] for g in dhx] if kind == "lstm" else dhx[0]
    found = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), dweights or []))
    arguments = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    rest = (found.get(name) if want and value is not None else None for want, (name, value) in zip(mask[2:], arguments.items()))
    return (None if dx is None else dx[0], dhx, *rest)


def _record_lstm_cell(
    input: ArrayLike, hx: Any, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None, b_hh: ArrayLike | None = None
) -> tuple[tuple[Array, Array], dict[str, Any]]:
    return _cell("lstm_cell", "lstm", input, hx, w_ih, w_hh, b_ih, b_hh)


@operation
def lstm_cell(input: ArrayLike, hx: Any, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None, b_hh: ArrayLike | None = None) -> tuple[Array, Array]:
    """One step of a long short-term memory: ``torch.lstm_cell``.

    Args:
        input: (N, I) or (I,).
        hx: (h, c), each (N, H) or (H,) or None; None for zeros.
        w_ih, w_hh: (4 H, I) and (4 H, H), gates in the order i, f, g, o.
        b_ih, b_hh: (4 H,) or None.

    Returns:
        (h, c) after the step.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> [s.round(3) for s in lstm_cell(np.ones(1), None, np.ones((4, 1)), np.ones((4, 1)))]
    [array([0.37]), array([0.557])]
    """
    arguments = dict(locals())
    return _record_lstm_cell(**arguments)[0]


def lstm_cell_backward(
    grad_output: Any, input: ArrayLike, hx: Any, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None, *, memory: Any = None, output_mask: Mask6 = (True,) * 6,
) -> tuple[Array | None, Any, Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`lstm_cell` with respect to input, hx (a list of two, None if it was None), w_ih, w_hh, b_ih and b_hh.

    Args:
        grad_output: (gradient of h, gradient of c), either of which may be None.
        memory: what the forward pass kept; computed again when not given.
        output_mask: which gradients to compute; others are None.

    >>> import numpy as np
    >>> lstm_cell_backward((np.ones(1), None), np.ones(1), None, np.ones((4, 1)), np.ones((4, 1)))[0].round(3)
    array([0.348])
    """
    op = "lstm_cell_backward"
    dh, dc = grad_output
    return _cell_backward(op, "lstm", dh, dc, input, hx, w_ih, w_hh, b_ih, b_hh, memory, output_mask)


def _record_gru_cell(
    input: ArrayLike, hx: ArrayLike | None, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None, b_hh: ArrayLike | None = None
) -> tuple[Array, dict[str, Any]]:
    return _cell("gru_cell", "gru", input, hx, w_ih, w_hh, b_ih, b_hh)


@operation
def gru_cell(input: ArrayLike, hx: ArrayLike | None, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None, b_hh: ArrayLike | None = None) -> Array:
    """One step of a gated recurrent unit: ``torch.gru_cell``.

    Args:
        input: (N, I) or (I,).
        hx: h, (N, H) or (H,); None for zeros.
        w_ih, w_hh: (3 H, I) and (3 H, H), gates in the order r, z, n.
        b_ih, b_hh: (3 H,) or None.

    Returns:
        h after the step.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> gru_cell(np.ones(1), None, np.ones((3, 1)), np.ones((3, 1))).round(3)
    array([0.205])
    """
    arguments = dict(locals())
    return _record_gru_cell(**arguments)[0]


def gru_cell_backward(
    grad_output: ArrayLike, input: ArrayLike, hx: ArrayLike | None, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None, *, memory: Any = None, output_mask: Mask6 = (True,) * 6,
) -> tuple[Array | None, Any, Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`gru_cell` with respect to input, hx (None if it was None), w_ih, w_hh, b_ih and b_hh.

    Args:
        grad_output: the gradient of the output.
        memory: what the forward pass kept; computed again when not given.
        output_mask: which gradients to compute; others are None.

    >>> import numpy as np
    >>> gru_cell_backward(np.ones(1), np.ones(1), None, np.ones((3, 1)), np.ones((3, 1)))[0].round(3)
    array([-0.037])
    """
    op = "gru_cell_backward"
    dh, dc = grad_output, None
    return _cell_backward(op, "gru", dh, dc, input, hx, w_ih, w_hh, b_ih, b_hh, memory, output_mask)


def _record_rnn_cell(
    input: ArrayLike,
    hx: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
) -> tuple[Array, dict[str, Any]]:
    _check.choice("rnn_cell", "nonlinearity", nonlinearity, ("tanh", "relu"))
    return _cell("rnn_cell", nonlinearity, input, hx, w_ih, w_hh, b_ih, b_hh)


@operation
def rnn_cell(
    input: ArrayLike,
    hx: ArrayLike | None,
    w_ih: ArrayLike,
    w_hh: ArrayLike,
    b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
) -> Array:
    """One step of a plain recurrent network: ``torch.rnn_tanh_cell`` and ``torch.rnn_relu_cell``.

    Args:
        input: (N, I) or (I,).
        hx: h, (N, H) or (H,); None for zeros.
        w_ih, w_hh: (H, I) and (H, H).
        b_ih, b_hh: (H,) or None.
        nonlinearity: "tanh" or "relu".

    Returns:
        h after the step.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> rnn_cell(np.ones(1), None, np.ones((1, 1)), np.ones((1, 1))).round(3)
    array([0.762])
    """
    arguments = dict(locals())
    return _record_rnn_cell(**arguments)[0]


def rnn_cell_backward(
    grad_output: ArrayLike, input: ArrayLike, hx: ArrayLike | None, w_ih: ArrayLike, w_hh: ArrayLike, b_ih: ArrayLike | None = None,
    b_hh: ArrayLike | None = None, *, nonlinearity: str = "tanh", memory: Any = None, output_mask: Mask6 = (True,) * 6,
) -> tuple[Array | None, Any, Array | None, Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`rnn_cell` with respect to input, hx (None if it was None), w_ih, w_hh, b_ih and b_hh.

    Args:
        grad_output: the gradient of the output.
        memory: what the forward pass kept; computed again when not given.
        output_mask: which gradients to compute; others are None.

    >>> import numpy as np
    >>> rnn_cell_backward(np.ones(1), np.ones(1), None, np.ones((1, 1)), np.ones((1, 1)))[0].round(3)
    array([0.42])
    """
    op = "rnn_cell_backward"
    _check.choice(op, "nonlinearity", nonlinearity, ("tanh", "relu"))
    dh, dc = grad_output, None
    return _cell_backward(op, nonlinearity, dh, dc, input, hx, w_ih, w_hh, b_ih, b_hh, memory, output_mask)


_INPUTS = ("input", "hx", "w_ih", "w_hh", "b_ih", "b_hh")
register(lstm_cell, lstm_cell_backward, inputs=_INPUTS, saved=_INPUTS, record=_record_lstm_cell)
register(gru_cell, gru_cell_backward, inputs=_INPUTS, saved=_INPUTS, record=_record_gru_cell)
register(rnn_cell, rnn_cell_backward, inputs=_INPUTS, saved=_INPUTS, record=_record_rnn_cell)
