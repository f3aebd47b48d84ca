"""gcn_norm: self-loops for every node, and edges divided by the roots of their nodes' degrees.

    A' = R (A + I) R,   R = diag(r),   r[i] = 1 / sqrt(d[i]),   d[i] = the sum over j of (A + I)[i, j]

    With g the gradient of A':  dr[i] = sum over edges j -> i of (A + I)[i, j] g r[j] + the same over edges i -> j,
    d(A + I)[i, j] = g r[i] r[j] - dr[i] r[i]^3 / 2

Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (2017), section 2.2; the
semantics are those of PyTorch Geometric.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher
from fastops._memory import empty, empty_like
from fastops._op import operation, register
from fastops.ops.graph.arguments import edges, output_gradient, shaped
from fastops.simd import segments
from fastops.simd.segments import INDEX, SUM


@launcher
def _complete(threads, sources, targets, weight, fill, own, s, t, w, origin):
    """The edges that are no self-loops, then one self-loop a node; returns how many there are.

    sources, targets, weight (E,); s, t, w, origin (E + N,); own (N,): -1. Of several self-loops of a node the last counts.
    """
    n = 0
    for e in range(sources.size):
        if sources[e] == targets[e]:
            own[sources[e]] = e
        else:
            s[n], t[n], w[n], origin[n] = sources[e], targets[e], weight[e], e
            n += 1
    for i in range(own.size):
        s[n], t[n], origin[n] = i, i, own[i]
        w[n] = fill if own[i] < 0 else weight[own[i]]
        n += 1
    return n


@launcher
def _scaled(threads, s, t, raw, r, w):
    """w[e] = r[s[e]] raw[e] r[t[e]]."""
    for e in range(s.size):
        u = np.uintp(e)
        w[u] = r[np.uintp(s[u])] * raw[u] * r[np.uintp(t[u])]


@launcher
def _scaled_backward(threads, s, t, raw, r, dw, dr, origin, dgiven):
    """From the gradient dw of the scaled weights to that of the weights given, zeros so far; dr (N,): zeros."""
    for e in range(s.size):
        u = np.uintp(e)
        i, j, g = np.uintp(t[u]), np.uintp(s[u]), dw[u] * raw[u]
        dr[j] += g * r[i]
        dr[i] += g * r[j]
    half = r.dtype.type(0.5)
    for n in range(r.size):
        dr[n] *= -half * r[n] * r[n] * r[n]
    for e in range(s.size):
        u = np.uintp(e)
        if origin[u] >= 0:
            dgiven[np.uintp(origin[u])] = dw[u] * r[np.uintp(s[u])] * r[np.uintp(t[u])] + dr[np.uintp(t[u])]


@dataclass(frozen=True)
class Edges:
    """Edges as they are aggregated over, and how their weights came from those given.

    Attributes:
        sources, targets: (E,).
        weight: (E,), or None where all weigh 1.
        given: how many weights the caller gave or could have given.
        origin: the number of each edge among those given, -1 for an added self-loop;
        raw: the weights before they were normalised, and
        scale: (N,), the 1 / sqrt(degree) of the nodes; all None where nothing was normalised.
    """

    sources: Array
    targets: Array
    weight: Array | None
    given: int
    origin: Array | None = None
    raw: Array | None = None
    scale: Array | None = None

    def gradient(self, dweight: Array) -> Array:
        """The gradient of the weights that were given, from that of ``weight``."""
        if self.scale is None:
            return dweight
        dgiven = np.zeros(self.given, dweight.dtype)
        _scaled_backward(1, self.sources, self.targets, self.raw, self.scale, dweight, np.zeros_like(self.scale), self.origin, dgiven)
        return dgiven


def normalised(sources: Array, targets: Array, weight: Array | None, nodes: int, fill: float, add_self_loops: bool, dtype: Any) -> Edges:
    """Self-loops where there are none, and weights divided by the roots of both nodes' degrees."""
    count = sources.size
    raw = np.ones(count, dtype) if weight is None else weight
    if add_self_loops:
        s, t, origin = empty((3, count + nodes), INDEX)
        w = empty(count + nodes, raw.dtype)
        n = _complete(1, sources, targets, raw, raw.dtype.type(fill), np.full(nodes, -1, INDEX), s, t, w, origin)
        sources, targets, raw, origin = s[:n], t[:n], w[:n], origin[:n]
    else:
        origin = np.arange(count)
    degree = segments.scatter(SUM, targets, nodes, raw.reshape(-1, 1)).reshape(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / np.sqrt(degree)
    scale[np.isinf(scale)] = 0
    scaled = empty_like(raw)
    _scaled(1, sources, targets, raw, scale, scaled)
    return Edges(sources, targets, scaled, count, origin, raw, scale)


def _norm(op: str, edge_index: Any, edge_weight: Array | None, num_nodes: Any, improved: bool, add_self_loops: bool, flow: str, dtype: Any) -> Edges:
    _check.choice(op, "flow", flow, ("source_to_target", "target_to_source"))
    index = segments.indices(op, "edge_index", edge_index)
    nodes = segments.count_of(op, "num_nodes", num_nodes, index, (0, 3))  # a self-loop each, three numbers long
    sources, targets = edges(op, index, nodes)
    shaped(op, "edge_weight", edge_weight, sources.shape)
    # only the degree has a direction
    ends = (sources, targets) if flow == "source_to_target" else (targets, sources)
    return normalised(*ends, edge_weight, nodes, 2.0 if improved else 1.0, add_self_loops, dtype)


@operation
def gcn_norm(
    edge_index: ArrayLike, edge_weight: ArrayLike | None = None, num_nodes: int | None = None, improved: bool = False,
    add_self_loops: bool = True, flow: str = "source_to_target", dtype: DTypeLike | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Edges with self-loops and symmetrically normalised weights: PyTorch Geometric's ``gcn_norm``.

    Args:
        edge_index: (2, E), sources then targets, each in [0, N).
        edge_weight: (E,); None: ones.
        num_nodes: N; None: one more than the largest index.
        improved: whether added self-loops weigh 2 instead of 1.
        add_self_loops: whether every node gets a self-loop. Self-loops that are there keep their weight and move to the
            end with the others; of several of one node the last one is kept.
        flow: "source_to_target", or "target_to_source": degrees are summed over the outgoing edges.
        dtype: of the weights when ``edge_weight`` is None; float32 when this is None too.

    Returns:
        The edges (2, E') and their weights (E',): other edges in their order, then N self-loops. The weight of an edge is
        divided by the square roots of the degrees of its nodes; it is 0 where a degree is 0.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> gcn_norm(np.array([[0], [1]]), dtype="float64")[1]
    array([0.70710678, 1.        , 0.5       ])
    """
    op = "gcn_norm"
    if edge_weight is None:
        weight, kind = None, np.dtype(np.float32 if dtype is None else dtype)
        if kind.char not in "efd":
            raise TypeError(f"{op}: dtype must be float16, float32 or float64, got {kind}")
    else:
        (weight,), kind = _check.as_arrays(op, edge_weight=edge_weight)
    found = _norm(op, edge_index, weight, num_nodes, improved, add_self_loops, flow, np.float32 if kind == _check.FLOAT16 else kind)
    assert found.weight is not None
    ends = (found.sources, found.targets) if flow == "source_to_target" else (found.targets, found.sources)
    return np.stack(ends), found.weight.astype(kind, copy=False)


def gcn_norm_backward(
    grad_output: tuple[Any, ArrayLike], edge_index: ArrayLike, edge_weight: ArrayLike | None = None, num_nodes: int | None = None,
    improved: bool = False, add_self_loops: bool = True, flow: str = "source_to_target", dtype: DTypeLike | None = None,
) -> Array | None:  # fmt: skip
    """Gradient of :func:`gcn_norm` with respect to edge_weight; None where it is None.

    Of ``grad_output`` the first, which belongs to the edges, is ignored.

    >>> import numpy as np
    >>> gcn_norm_backward((None, np.array([1.0, 0.0, 0.0])), np.array([[0], [1]]), np.array([1.0]))
    array([0.53033009])
    """
    op = "gcn_norm_backward"
    if edge_weight is None:
        return None
    (dy, weight), kind = _check.as_arrays(op, grad_output=grad_output[1], edge_weight=edge_weight)
    found = _norm(op, edge_index, weight, num_nodes, improved, add_self_loops, flow, weight.dtype)
    output_gradient(op, dy, found.sources.shape)
    return found.gradient(dy).astype(kind, copy=False)


register(gcn_norm, gcn_norm_backward, inputs=("edge_weight",), saved=("edge_weight",))
