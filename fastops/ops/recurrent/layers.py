"""lstm, gru, rnn: layers of recurrent networks, in one direction or both.

A layer's input is the output of the one below, both directions side by side, with dropout between layers in training. The
formulas and the gradients of one layer are in ``steps.py``; kept for the gradient are every layer's output and what is named
there. Rows of a padded batch end at their own lengths, as PyTorch's packed sequences do: beyond them the output is 0 and
nothing changes, and the reverse direction begins at each row's last valid step. Sources: those of ``steps.py``; Schuster, Paliwal,
"Bidirectional Recurrent Neural Networks" (1997).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import FLOAT16, FLOAT32, Array
from fastops._memory import empty
from fastops._op import operation, register
from fastops.ops.recurrent.steps import GATES, Kept, Weights, backward, dropped, forward
from fastops.simd.random import check_seed, seed_of

Mask3 = tuple[bool, bool, bool]
Pair = tuple[Any, Any]


@dataclass
class Network:
    """Checked arguments in the dtype of computation, steps first, and with a batch."""

    kind: str
    x: Array
    h0: Array
    c0: Array
    weights: list[list[Weights]]
    lengths: Array
    dtype: np.dtype[Any]
    batched: bool
    batch_first: bool
    dropout: float
    seed: int

    def outside(self, y: Array) -> Array:
        """An output (T, N, ...) as the caller sees it."""
        if not self.batched:
            y = y[:, 0]
        elif self.batch_first:
            y = np.ascontiguousarray(y.swapaxes(0, 1))
        return y.astype(self.dtype, copy=False)

    def state_outside(self, h: Array) -> Array:
        """States (layers directions, N, ...) as the caller sees them."""
        return (h if self.batched else h[:, 0]).astype(self.dtype, copy=False)

    def below(self, layer: int, outputs: list[Array]) -> Array:
        """The input of a layer."""
        if layer == 0:
            return self.x
        return self.drop(layer, outputs[layer - 1])

    def drop(self, layer: int, x: Array) -> Array:
        """Dropout under a layer; its own gradient."""
        return dropped(x, self.dropout, self.seed, layer * x.size) if self.dropout else x


class Memory(NamedTuple):
    """Every layer's output, and what its directions have kept."""

    outputs: list[Array]
    kept: list[list[Kept]]


def _weights(
    op: str, values: Any, names: Sequence[str], kind: str, layers: int, directions: int, biases: bool, proj_size: int, size: int, dtype: Any
) -> list[list[Weights]]:
    if isinstance(values, np.ndarray) or not isinstance(values, Sequence):
        raise TypeError(f"{op}: weights must be a list of arrays, got {type(values).__name__}")
    each = 2 + 2 * biases + (proj_size > 0)
    if len(values) != layers * directions * each:
        raise ValueError(f"{op}: weights must be {layers * directions * each} arrays ({each} for each layer and direction), got {len(values)}")
    arrays = []
    called = names or [f"weights[{i}]" for i in range(len(values))]
    for name, value in zip(called, values):
        array = _check.as_array(op, name, value)
        if array.dtype != dtype:
            raise TypeError(f"{op}: {name} must have the dtype of input, {dtype}, got {array.dtype}")
        arrays.append(array.astype(FLOAT32) if dtype == FLOAT16 else array)
    gates = GATES[kind]
    rows = arrays[0].shape[0] if arrays[0].ndim else 0
    if rows == 0 or rows % gates:
        raise ValueError(f"{op}: {called[0]} must have a multiple of {gates} rows, got shape {arrays[0].shape}")
    H = rows // gates
    P = proj_size or H
    if proj_size >= H:
        raise ValueError(f"{op}: proj_size must be smaller than the hidden size, {H}, got {proj_size}")
    network: list[list[Weights]] = []
    for layer in range(layers):
        network.append([])
        inputs = size if layer == 0 else directions * P
        shapes = [(rows, inputs), (rows, P), *([(rows,)] * 2 if biases else []), *([(P, H)] if proj_size else [])]
        for direction in range(directions):
            first = (layer * directions + direction) * each
            own = arrays[first : first + each]
            for i, (array, shape) in enumerate(zip(own, shapes)):
                if array.shape != shape:
                    raise ValueError(f"{op}: {called[first + i]} must have shape {shape} (layer {layer}), got {array.shape}")
            w_hr = own.pop() if proj_size else None
            b_ih, b_hh = own[2:] if biases else (None, None)
            network[-1].append(Weights(own[0], own[1], b_ih, b_hh, w_hr))
    return network


def _state(op: str, name: str, value: Any, shape: tuple[int, ...], batched: bool, dtype: np.dtype[Any]) -> Array:
    """An initial state; zeros when it is None."""
    kind = FLOAT32 if dtype == FLOAT16 else dtype
    if value is None:
        return np.zeros(shape, kind)
    array = _check.as_array(op, name, value)
    if array.dtype != dtype:
        raise TypeError(f"{op}: {name} must have the dtype of input, {dtype}, got {array.dtype}")
    given = shape if batched else (shape[0], shape[2])
    if array.shape != given:
        raise ValueError(f"{op}: {name} must have shape {given}, got {array.shape}")
    return array.astype(kind, copy=False).reshape(shape)


def _lengths(op: str, value: Any, T: int, N: int) -> Array:
    if value is None:
        return np.full(N, T, np.intp)
    lengths = np.asarray(value)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{op}: lengths must be integers, got dtype {lengths.dtype}")
    if lengths.shape != (N,):
        raise ValueError(f"{op}: lengths must have shape ({N},), one for each row of the batch, got {lengths.shape}")
    if N and not (lengths.min() >= 1 and lengths.max() <= T):
        raise ValueError(f"{op}: lengths must be from 1 to {T}, got {lengths.min()} to {lengths.max()}")
    return lengths.astype(np.intp)


def _pair(op: str, hx: Any) -> Pair:
    if hx is None:
        return None, None
    if isinstance(hx, np.ndarray) or not isinstance(hx, Sequence) or len(hx) != 2:
        raise TypeError(f"{op}: hx must be None or a pair (h_0, c_0), got {type(hx).__name__}")
    return hx[0], hx[1]


def checked_network(
    op: str, kind: str, input: Any, hx: Any, weights: Any, names: Sequence[str] = (), *, num_layers: Any = 1, bias: bool = True,
    batch_first: bool = False, dropout: Any = 0.0, bidirectional: bool = False, proj_size: Any = 0, training: bool = False,
    lengths: Any = None, rng: Any = None,
) -> Network:  # fmt: skip
    """Check the arguments of an operation; ``names`` are those of the weights in its messages."""
    (x,), dtype = _check.as_arrays(op, input=input)
    if x.ndim not in (2, 3):
        raise ValueError(f"{op}: input must have axes (T, N, I), (N, T, I) with batch_first, or (T, I), got shape {x.shape}")
    batched = x.ndim == 3
    x = (np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x) if batched else x[:, None]
    T, N, size = x.shape
    if T == 0:
        raise ValueError(f"{op}: input must have at least one step, got shape {np.shape(input)}")
    layers = _check.integer(op, "num_layers", num_layers, minimum=1)
    proj_size = _check.integer(op, "proj_size", proj_size, minimum=0)
    directions = 2 if bidirectional else 1
    p = _check.probability(op, "dropout", dropout) if training and layers > 1 else 0.0 * _check.probability(op, "dropout", dropout)
    network = _weights(op, weights, names, kind, layers, directions, bool(bias), proj_size, size, dtype)
    H, P = network[0][0].w_hh.shape[0] // GATES[kind], network[0][0].w_hh.shape[1]
    h0, c0 = _pair(op, hx) if kind == "lstm" else (hx, None)
    h0 = _state(op, "hx[0]" if kind == "lstm" else "hx", h0, (layers * directions, N, P), batched, dtype)
    c0 = _state(op, "hx[1]", c0, (layers * directions, N, H if kind == "lstm" else 0), batched, dtype)
    if lengths is not None and not batched:
        raise ValueError(f"{op}: lengths must be None without a batch, got {lengths!r}")
    ends = _lengths(op, lengths, T, N)
    if lengths is not None:
        # what stands in the padding may be anything, but 0 times it must be 0
        x = np.where((np.arange(T)[:, None] < ends)[..., None], x, x.dtype.type(0))
    seed = 0 if not p else check_seed(op, rng) if op.endswith("_backward") else seed_of(op, rng)
    return Network(kind, x, h0, c0, network, ends, dtype, batched, bool(batch_first), p, seed)


def run(network: Network, keep: bool = True) -> tuple[Array, Array, Array, Memory]:
    """The output, the last states, and what the gradient needs, whole where it is to be kept."""
    T, N, _ = network.x.shape
    h, c = network.h0.copy(), network.c0.copy()
    memory = Memory([], [])
    for layer, directions in enumerate(network.weights):
        x = network.below(layer, memory.outputs)
        out = empty((T, N, len(directions) * h.shape[2]), x.dtype)
        own = []
        for direction, w in enumerate(directions):
            at = layer * len(directions) + direction
            own.append(forward(network.kind, x, w, h[at], c[at], network.lengths, out, direction, keep))
        memory.outputs.append(out)
        memory.kept.append(own)
    return memory.outputs[-1], h, c, memory


def gradients(
    op: str, network: Network, dy: Any, dh: Any, dc: Any, memory: Memory | None, hx: Any, output_mask: Mask3
) -> tuple[Array | None, Any, list[Array] | None]:
    n = network
    memory = run(n)[3] if memory is None else memory
    want_x, want_hx, want_weights = output_mask
    T, N, _ = n.x.shape
    out = memory.outputs[-1]

    def gradient(name: str, value: Any, shape: tuple[int, ...]) -> Array:
        if value is None:
            return np.zeros(shape, n.x.dtype)
        array = _check.as_array(op, name, value)
        if array.shape != shape or array.dtype != n.dtype:
            raise ValueError(f"{op}: {name} must have the shape and dtype of the output, {shape} {n.dtype}, got {array.shape} {array.dtype}")
        return array.astype(n.x.dtype)

    width = out.shape[2]
    shape = (T, width) if not n.batched else (N, T, width) if n.batch_first else (T, N, width)
    dout = gradient("grad_output", dy, shape)
    dout = np.ascontiguousarray(dout.swapaxes(0, 1)) if n.batched and n.batch_first else dout.reshape(T, N, width)
    inside = [s if n.batched else (s[0], s[2]) for s in (n.h0.shape, n.c0.shape)]
    dstate = gradient("grad_output", dh, inside[0]).reshape(n.h0.shape)
    dcell = gradient("grad_output", dc, inside[1]).reshape(n.c0.shape) if n.kind == "lstm" else np.zeros(n.c0.shape, n.x.dtype)

    found: list[list[Array]] = []
    dx: Array | None = None
    for layer in reversed(range(len(n.weights))):
        x, directions = n.below(layer, memory.outputs), n.weights[layer]
        dx = empty(x.shape, x.dtype) if layer or want_x else None
        found.append([])
        for direction, w in enumerate(directions):
            at = layer * len(directions) + direction
            found[-1].extend(
                backward(
                    n.kind, x, w, memory.kept[layer][direction], n.h0[at], n.c0[at], n.lengths, memory.outputs[layer], direction, dout,
                    dstate[at], dcell[at], dx, want_weights,
                )
            )  # fmt: skip
        if layer:
            assert dx is not None
            dout = n.drop(layer, dx)
    dweights = [g.astype(n.dtype, copy=False) for own in reversed(found) for g in own] if want_weights else None
    states = (n.state_outside(dstate), n.state_outside(dcell))
    dhx: Any = None
    if want_hx and hx is not None:
        dhx = [None if value is None else g for value, g in zip(hx, states)] if n.kind == "lstm" else states[0]
    return (None if dx is None or not want_x else n.outside(dx)), dhx, dweights


def _record_lstm(
    input: ArrayLike, hx: Any, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
    dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, training: bool = False, lengths: ArrayLike | None = None,
    rng: Any = None, keep: bool = True,
) -> tuple[tuple[Array, tuple[Array, Array]], dict[str, Any]]:  # fmt: skip
    n = checked_network(
        "lstm", "lstm", input, hx, weights, num_layers=num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
        bidirectional=bidirectional, proj_size=proj_size, training=training, lengths=lengths, rng=rng,
    )  # fmt: skip
    y, h, c, memory = run(n, keep)
    return (n.outside(y), (n.state_outside(h), n.state_outside(c))), {"memory": memory, **({"rng": n.seed} if n.dropout else {})}


@operation
def lstm(
    input: ArrayLike, hx: Any, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
    dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, training: bool = False, lengths: ArrayLike | None = None,
    rng: Any = None,
) -> tuple[Array, tuple[Array, Array]]:  # fmt: skip
    """Long short-term memory, as ``torch.nn.LSTM`` computes it.

    Args:
        input: (T, N, I), (N, T, I) with ``batch_first``, or (T, I).
        hx: (h_0, c_0), of shapes (num_layers directions, N, P) and (num_layers directions, N, H), without N if the input has
            none; None for zeros, as is either of them. P is ``proj_size``, or H without it.
        weights: for each layer, for each direction: w_ih (4 H, I), w_hh (4 H, P), with ``bias`` b_ih and b_hh (4 H,), with
            ``proj_size`` w_hr (P, H); gates in the order i, f, g, o. Above the first layer I is directions P.
        num_layers: layers, each on the output of the one below.
        bias: whether there are biases among the weights.
        batch_first: whether the batch is the first axis of input and output (never of the states).
        dropout: probability with which an element between layers becomes 0, with ``training``.
        bidirectional: whether each layer also runs from the last step to the first.
        proj_size: the size to which W_hr projects hidden states; 0 for no projection.
        training: whether dropout happens.
        lengths: (N,) integers from 1 to T, in any order: where the rows of a padded batch end.
        rng: None, an integer seed or a ``numpy.random.Generator``, for dropout.

    Returns:
        The output (T, N, directions P), as the input is laid out, and the last states (h_n, c_n), as hx is. Beyond a row's
        length the output is 0, and its last state is the one at its last step.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> y, (h, c) = lstm(np.ones((3, 1)), None, [np.ones((4, 1)), np.ones((4, 1))], bias=False)
    >>> y.ravel().round(3), h.round(3), c.round(3)
    (array([0.37 , 0.651, 0.789]), array([[0.789]]), array([[1.739]]))
    """
    arguments = dict(locals())
    return _record_lstm(**arguments, keep=False)[0]


def lstm_backward(
    grad_output: Any, input: ArrayLike, hx: Any, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True,
    batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None, memory: Any = None, output_mask: Mask3 = (True, True, True),
) -> tuple[Array | None, list[Array | None] | None, list[Array] | None]:  # fmt: skip
    """Gradients of :func:`lstm` with respect to input, hx and weights.

    Args:
        grad_output: (gradient of the output, (gradient of h_n, gradient of c_n)); each may be None, for zeros.
        rng: the seed of the forward pass, an integer; needed with dropout.
        memory: what the forward pass kept; computed again when not given.
        output_mask: which gradients to compute.

    Returns:
        The gradient of the input; [gradient of h_0, gradient of c_0], each None where the state was None, or None if hx was;
        and the list of those of the weights. Those that are masked out are None.

    >>> import numpy as np
    >>> w = [np.ones((4, 1)), np.ones((4, 1))]
    >>> dx, dhx, dw = lstm_backward((np.ones((3, 1)), None), np.ones((3, 1)), None, w, bias=False)
    >>> dx.ravel().round(3), dhx, [g.shape for g in dw]
    (array([0.601, 0.316, 0.166]), None, [(4, 1), (4, 1)])
    """
    op = "lstm_backward"
    n = checked_network(
        op, "lstm", input, hx, weights, num_layers=num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
        bidirectional=bidirectional, proj_size=proj_size, training=training, lengths=lengths, rng=rng,
    )  # fmt: skip
    dy, states = grad_output
    dh, dc = (None, None) if states is None else states
    return gradients(op, n, dy, dh, dc, memory, hx, output_mask)


def _record_gru(
    input: ArrayLike, hx: ArrayLike | None, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True,
    batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None, keep: bool = True,
) -> tuple[tuple[Array, Array], dict[str, Any]]:  # fmt: skip
    n = checked_network(
        "gru", "gru", input, hx, weights, num_layers=num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
        bidirectional=bidirectional, training=training, lengths=lengths, rng=rng,
    )  # fmt: skip
    y, h, _, memory = run(n, keep)
    return (n.outside(y), n.state_outside(h)), {"memory": memory, **({"rng": n.seed} if n.dropout else {})}


@operation
def gru(
    input: ArrayLike, hx: ArrayLike | None, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True,
    batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Gated recurrent units, as ``torch.nn.GRU`` computes them.

    Args:
        input: (T, N, I), (N, T, I) with ``batch_first``, or (T, I).
        hx: h_0, (num_layers directions, N, H), without N if the input has none; None for zeros.
        weights: for each layer, for each direction: w_ih (3 H, I), w_hh (3 H, H), and with ``bias`` b_ih and b_hh (3 H,); gates in the order
            r, z, n.
        num_layers, bias, batch_first, dropout, bidirectional, training, lengths, rng: as for :func:`lstm`.

    Returns:
        The output (T, N, directions H), as the input is laid out, and the last states h_n, as hx is.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> y, h = gru(np.ones((3, 1)), None, [np.ones((3, 1)), np.ones((3, 1))], bias=False)
    >>> y.ravel().round(3), h.round(3)
    (array([0.205, 0.347, 0.452]), array([[0.452]]))
    """
    arguments = dict(locals())
    return _record_gru(**arguments, keep=False)[0]


def gru_backward(
    grad_output: Any, input: ArrayLike, hx: ArrayLike | None, weights: Sequence[ArrayLike], *, num_layers: int = 1,
    bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None, memory: Any = None, output_mask: Mask3 = (True, True, True),
) -> tuple[Array | None, Array | None, list[Array] | None]:  # fmt: skip
    """Gradients of :func:`gru` with respect to input, hx (None if that was None) and weights (a list).

    Args:
        grad_output: (gradient of the output, gradient of h_n); either may be None, for zeros.
        rng, memory, output_mask: as for :func:`lstm_backward`.

    >>> import numpy as np
    >>> dx, dhx, dw = gru_backward((np.ones((1, 1)), None), np.ones((1, 1)), None, [np.ones((3, 1))] * 2, bias=False)
    >>> dx.round(3), dhx, [g.shape for g in dw]
    (array([[-0.037]]), None, [(3, 1), (3, 1)])
    """
    op = "gru_backward"
    n = checked_network(
        op, "gru", input, hx, weights, num_layers=num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
        bidirectional=bidirectional, training=training, lengths=lengths, rng=rng,
    )  # fmt: skip
    dy, dh = grad_output
    return gradients(op, n, dy, dh, None, memory, hx, output_mask)


def _record_rnn(
    input: ArrayLike, hx: ArrayLike | None, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True,
    batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, nonlinearity: str = "tanh", training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None, keep: bool = True,
) -> tuple[tuple[Array, Array], dict[str, Any]]:  # fmt: skip
    _check.choice("rnn", "nonlinearity", nonlinearity, ("tanh", "relu"))
    n = checked_network(
        "rnn", nonlinearity, input, hx, weights, num_layers=num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
        bidirectional=bidirectional, training=training, lengths=lengths, rng=rng,
    )  # fmt: skip
    y, h, _, memory = run(n, keep)
    return (n.outside(y), n.state_outside(h)), {"memory": memory, **({"rng": n.seed} if n.dropout else {})}


@operation
def rnn(
    input: ArrayLike, hx: ArrayLike | None, weights: Sequence[ArrayLike], *, num_layers: int = 1, bias: bool = True,
    batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, nonlinearity: str = "tanh", training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None,
) -> tuple[Array, Array]:  # fmt: skip
    """A plain recurrent network, as ``torch.nn.RNN`` computes it.

    Args:
        input: (T, N, I), (N, T, I) with ``batch_first``, or (T, I).
        hx: h_0, (num_layers directions, N, H), without N if the input has none; None for zeros.
        weights: for each layer, for each direction: w_ih (H, I), w_hh (H, H), and with ``bias`` b_ih and b_hh (H,).
        num_layers, bias, batch_first, dropout, bidirectional, training, lengths, rng: as for :func:`lstm`.
        nonlinearity: "tanh" or "relu".

    Returns:
        The output (T, N, directions H), as the input is laid out, and the last states h_n, as hx is.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape.

    >>> import numpy as np
    >>> y, h = rnn(np.ones((3, 1)), None, [np.ones((1, 1)), np.ones((1, 1))], bias=False)
    >>> y.ravel().round(3), h.round(3)
    (array([0.762, 0.943, 0.96 ]), array([[0.96]]))
    """
    arguments = dict(locals())
    return _record_rnn(**arguments, keep=False)[0]


def rnn_backward(
    grad_output: Any, input: ArrayLike, hx: ArrayLike | None, weights: Sequence[ArrayLike], *, num_layers: int = 1,
    bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, nonlinearity: str = "tanh", training: bool = False,
    lengths: ArrayLike | None = None, rng: Any = None, memory: Any = None, output_mask: Mask3 = (True, True, True),
) -> tuple[Array | None, Array | None, list[Array] | None]:  # fmt: skip
    """Gradients of :func:`rnn` with respect to input, hx (None if that was None) and weights (a list).

    Args:
        grad_output: (gradient of the output, gradient of h_n); either may be None, for zeros.
        rng, memory, output_mask: as for :func:`lstm_backward`.

    >>> import numpy as np
    >>> dx, dhx, dw = rnn_backward((np.ones((1, 1)), None), np.ones((1, 1)), None, [np.ones((1, 1))] * 2, bias=False)
    >>> dx.round(3), dhx, [g.shape for g in dw]
    (array([[0.42]]), None, [(1, 1), (1, 1)])
    """
    op = "rnn_backward"
    _check.choice(op, "nonlinearity", nonlinearity, ("tanh", "relu"))
    n = checked_network(
        op, nonlinearity, input, hx, weights, num_layers=num_layers, bias=bias, batch_first=batch_first, dropout=dropout,
        bidirectional=bidirectional, training=training, lengths=lengths, rng=rng,
    )  # fmt: skip
    dy, dh = grad_output
    return gradients(op, n, dy, dh, None, memory, hx, output_mask)


_INPUTS = ("input", "hx", "weights")
register(lstm, lstm_backward, inputs=_INPUTS, saved=_INPUTS, record=_record_lstm)
register(gru, gru_backward, inputs=_INPUTS, saved=_INPUTS, record=_record_gru)
register(rnn, rnn_backward, inputs=_INPUTS, saved=_INPUTS, record=_record_rnn)
