"""Graph convolutions whose weights do not depend on the data: GCN, GraphSAGE and GIN.

With x (N, F) the nodes, edges j -> i, and A the matrix of edge weights, A[i, j] that of j -> i:

    gcn_conv:        y = A' x W^T + b, with A' the matrix that gcn_norm makes of A
    graph_sage_conv: y = aggr(x_j over j -> i) V^T + x W^T + b
    gin_conv:        y = mlp((1 + eps) x + sum of x_j over j -> i)

The gradient of a product with A is one with its transpose: sources and targets change places. Features are aggregated where
they are fewer, before or after the weights, since A (x W^T) = (A x) W^T. For the backward pass the normalised edges are kept,
and A x where that came first.

Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (2017), eq. 2; Hamilton, Ying and
Leskovec, "Inductive Representation Learning on Large Graphs" (2017), algorithm 1; Xu, Hu, Leskovec and Jegelka, "How Powerful
are Graph Neural Networks?" (2019), eq. 4.1. Semantics are those of PyTorch Geometric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._op import operation, register
from fastops.ops.graph.arguments import axes, edges, given, output_gradient, shaped
from fastops.ops.graph.norm import Edges, normalised
from fastops.simd import segments
from fastops.simd.gemm import gemm
from fastops.simd.reduce import sum_axis
from fastops.simd.segments import MAX, MIN, SUM

_KINDS = {"sum": SUM, "mean": SUM, "max": MAX, "min": MIN}


def _gcn_edges(op: str, x: Array, edge_index: Any, edge_weight: Array | None, add_self_loops: bool, normalize: bool) -> Edges:
    sources, targets = edges(op, edge_index, x.shape[0])
    shaped(op, "edge_weight", edge_weight, sources.shape)
    if normalize:
        return normalised(sources, targets, edge_weight, x.shape[0], 1.0, add_self_loops, x.dtype)
    return Edges(sources, targets, edge_weight, sources.size)


def _gcn_arguments(op: str, x: Array, weight: Array, bias: Array | None) -> None:
    axes(op, "x", x, "nodes", "features")
    axes(op, "weight", weight, "outputs", "features")
    shaped(op, "weight", weight, (weight.shape[0], x.shape[1]))
    shaped(op, "bias", bias, weight.shape[:1])


def _gcn(x: Array, weight: Array, bias: Array | None, e: Edges) -> tuple[Array, Array | None]:
    """The output, and the aggregated features where they come before the weights."""
    nodes = x.shape[0]
    if x.shape[1] < weight.shape[0]:
        z = segments.scatter(SUM, e.targets, nodes, x, e.sources, e.weight)
        return gemm(z, weight.T, bias=bias), z
    y = segments.scatter(SUM, e.targets, nodes, gemm(x, weight.T), e.sources, e.weight)
    if bias is not None:
        y += bias
    return y, None


@operation
def gcn_conv(
    x: ArrayLike, edge_index: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, edge_weight: ArrayLike | None = None,
    add_self_loops: bool = True, normalize: bool = True,
) -> Array:  # fmt: skip
    """Graph convolution (GCN): the weighted sum of the neighbours' features, transformed: ``torch_geometric.nn.GCNConv``.

    Args:
        x: the nodes, (N, F).
        edge_index: (2, E), sources then targets, each in [0, N).
        weight: (K, F).
        bias: (K,).
        edge_weight: (E,); None: ones.
        add_self_loops: as for :func:`gcn_norm`.
        normalize: whether edges go through :func:`gcn_norm`; otherwise they are taken as they are, without self-loops.

    Returns:
        (N, K), of dtype float16, float32 or float64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> gcn_conv(np.array([[1.0], [2.0]]), np.array([[0], [1]]), np.array([[2.0]]), normalize=False)
    array([[0.],
           [2.]])
    """
    return _record_gcn(x, edge_index, weight, bias, edge_weight, add_self_loops, normalize)[0]


def _record_gcn(
    x: ArrayLike, edge_index: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, edge_weight: ArrayLike | None = None,
    add_self_loops: bool = True, normalize: bool = True,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    op = "gcn_conv"
    (nodes, w, b, given_weight), dtype = _check.as_arrays(op, optional=("bias", "edge_weight"), x=x, weight=weight, bias=bias, edge_weight=edge_weight)
    _gcn_arguments(op, nodes, w, b)
    e = _gcn_edges(op, nodes, edge_index, given_weight, add_self_loops, normalize)
    y, z = _gcn(nodes, w, b, e)
    return y.astype(dtype, copy=False), {"normalised": e, "aggregated": z}


def gcn_conv_backward(
    grad_output: ArrayLike, x: ArrayLike, edge_index: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None,
    edge_weight: ArrayLike | None = None, add_self_loops: bool = True, normalize: bool = True,
    *, output_mask: tuple[bool, bool, bool, bool] = (True, True, True, True), normalised: Any = None, aggregated: Array | None = None,
) -> tuple[Array | None, ...]:  # fmt: skip
    """Gradients of :func:`gcn_conv` with respect to x, weight, bias and edge_weight, those that ``output_mask`` asks for.

    ``normalised`` and ``aggregated`` are what the forward pass kept, computed again when they are not given.

    >>> import numpy as np
    >>> x, edge_index, weight = np.array([[1.0], [2.0]]), np.array([[0], [1]]), np.array([[2.0]])
    >>> gcn_conv_backward(np.ones((2, 1)), x, edge_index, weight, normalize=False)[0]
    array([[2.],
           [0.]])
    """
    op = "gcn_conv_backward"
    (dy, nodes, w, given_weight), dtype = _check.as_arrays(op, optional="edge_weight", grad_output=grad_output, x=x, weight=weight, edge_weight=edge_weight)
    _gcn_arguments(op, nodes, w, None)
    output_gradient(op, dy, (nodes.shape[0], w.shape[0]))
    e = normalised
    if e is None:
        e = _gcn_edges(op, nodes, edge_index, given_weight, add_self_loops, normalize)
    of_edges = output_mask[3] and edge_weight is not None
    dx = dw = dedge = None
    if nodes.shape[1] < w.shape[0]:
        if output_mask[1]:
            z = aggregated
            if z is None:
                z = segments.scatter(SUM, e.targets, nodes.shape[0], nodes, e.sources, e.weight)
            dw = gemm(dy.T, z)
        if output_mask[0] or of_edges:
            dz = gemm(dy, w)
            dx = segments.scatter(SUM, e.sources, nodes.shape[0], dz, e.targets, e.weight) if output_mask[0] else None
            dedge = segments.dots(e.targets, e.sources, dz, nodes) if of_edges else None
    else:
        if output_mask[0] or output_mask[1]:
            dh = segments.scatter(SUM, e.sources, nodes.shape[0], dy, e.targets, e.weight)
            dx = gemm(dh, w) if output_mask[0] else None
            dw = gemm(dh.T, nodes) if output_mask[1] else None
        dedge = segments.dots(e.targets, e.sources, dy, gemm(nodes, w.T)) if of_edges else None
    db = sum_axis(dy[None])[0] if bias is not None and output_mask[2] else None
    return given(dtype, dx, dw, db, None if dedge is None else e.gradient(dedge.reshape(-1)))


def _aggregate(x: Array, sources: Array, targets: Array, aggr: str) -> Array:
    """The reduction of the features of every node's sources, 0 where there are none."""
    y = segments.scatter(_KINDS[aggr], targets, x.shape[0], x, sources)
    if aggr == "mean":
        y /= _degrees(targets, x)
    elif aggr != "sum":
        y[segments.counts(targets, x.shape[0], x.dtype) == 0] = 0
    return y


def _degrees(targets: Array, x: Array) -> Array:
    return np.maximum(segments.counts(targets, x.shape[0], x.dtype), 1)[:, None]


def _aggregate_backward(dy: Array, x: Array, y: Array | None, sources: Array, targets: Array, aggr: str) -> Array:
    """The gradient of x where y = _aggregate(x, ...); of x and y only "max" and "min" read values."""
    if aggr in ("max", "min"):
        assert y is not None
        return segments.extremum_backward(targets, x, y, dy, sources)[0]
    if aggr == "mean":
        dy = dy / _degrees(targets, dy)
    return segments.scatter(SUM, sources, x.shape[0], dy, targets)


def _sage_arguments(op: str, x: Array, neighbours: Array, root: Array, bias: Array | None, aggr: str) -> bool:
    """Whether the features are aggregated before they are transformed."""
    axes(op, "x", x, "nodes", "features")
    axes(op, "weight_neighbors", neighbours, "outputs", "features")
    shaped(op, "weight_neighbors", neighbours, (neighbours.shape[0], x.shape[1]))
    shaped(op, "weight_root", root, neighbours.shape)
    shaped(op, "bias", bias, neighbours.shape[:1])
    _check.choice(op, "aggr", aggr, tuple(_KINDS))
    return aggr in ("max", "min") or x.shape[1] <= neighbours.shape[0]


@operation
def graph_sage_conv(
    x: ArrayLike, edge_index: ArrayLike, weight_neighbors: ArrayLike, weight_root: ArrayLike, bias: ArrayLike | None = None,
    aggr: str = "mean",
) -> Array:  # fmt: skip
    """GraphSAGE: the neighbours' features aggregated and transformed, plus the node's own: ``torch_geometric.nn.SAGEConv``.

    Args:
        x: the nodes, (N, F).
        edge_index: (2, E), sources then targets, each in [0, N).
        weight_neighbors: (K, F), for what was aggregated.
        weight_root: (K, F), for the node itself.
        bias: (K,).
        aggr: "mean", "sum", "max" or "min" over the sources of a node, 0 where there are none.

    Returns:
        (N, K), of dtype float16, float32 or float64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> graph_sage_conv(np.array([[1.0], [2.0], [4.0]]), np.array([[1, 2], [0, 0]]), np.array([[1.0]]), np.array([[10.0]]))
    array([[13.],
           [20.],
           [40.]])
    """
    return _record_sage(x, edge_index, weight_neighbors, weight_root, bias, aggr)[0]


def _record_sage(
    x: ArrayLike, edge_index: ArrayLike, weight_neighbors: ArrayLike, weight_root: ArrayLike, bias: ArrayLike | None = None,
    aggr: str = "mean",
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    op = "graph_sage_conv"
    (nodes, v, w, b), dtype = _check.as_arrays(op, optional="bias", x=x, weight_neighbors=weight_neighbors, weight_root=weight_root, bias=bias)
    first = _sage_arguments(op, nodes, v, w, b, aggr)
    ends = edges(op, edge_index, nodes.shape[0])
    if first:
        z = _aggregate(nodes, *ends, aggr)
        y = gemm(z, v.T, bias=b)
    else:
        z = None
        y = _aggregate(gemm(nodes, v.T), *ends, aggr)
        if b is not None:
            y += b
    gemm(nodes, w.T, out=y, accumulate=True)
    return y.astype(dtype, copy=False), {"aggregated": z}


def graph_sage_conv_backward(
    grad_output: ArrayLike, x: ArrayLike, edge_index: ArrayLike, weight_neighbors: ArrayLike, weight_root: ArrayLike,
    bias: ArrayLike | None = None, aggr: str = "mean",
    *, output_mask: tuple[bool, bool, bool, bool] = (True, True, True, True), aggregated: Array | None = None,
) -> tuple[Array | None, ...]:  # fmt: skip
    """Gradients of :func:`graph_sage_conv` with respect to x, weight_neighbors, weight_root and bias, as ``output_mask`` asks.

    ``aggregated`` is what the forward pass kept, computed again when it is not given.

    >>> import numpy as np
    >>> x, edge_index, one = np.array([[1.0], [2.0], [4.0]]), np.array([[1, 2], [0, 0]]), np.array([[1.0]])
    >>> graph_sage_conv_backward(np.ones((3, 1)), x, edge_index, one, one)[0]
    array([[1. ],
           [1.5],
           [1.5]])
    """
    op = "graph_sage_conv_backward"
    (dy, nodes, v, w), dtype = _check.as_arrays(op, grad_output=grad_output, x=x, weight_neighbors=weight_neighbors, weight_root=weight_root)
    first = _sage_arguments(op, nodes, v, w, None, aggr)
    ends = edges(op, edge_index, nodes.shape[0])
    output_gradient(op, dy, (nodes.shape[0], w.shape[0]))
    dx = dv = None
    if first:
        z = aggregated
        if z is None and (output_mask[1] or aggr in ("max", "min")):
            z = _aggregate(nodes, *ends, aggr)
        dv = gemm(dy.T, z) if output_mask[1] else None
        dx = _aggregate_backward(gemm(dy, v), nodes, z, *ends, aggr) if output_mask[0] else None
    elif output_mask[0] or output_mask[1]:
        dh = _aggregate_backward(dy, dy, None, *ends, aggr)
        dv = gemm(dh.T, nodes) if output_mask[1] else None
        dx = gemm(dh, v) if output_mask[0] else None
    if dx is not None:
        gemm(dy, w, out=dx, accumulate=True)
    dw = gemm(dy.T, nodes) if output_mask[2] else None
    db = sum_axis(dy[None])[0] if bias is not None and output_mask[3] else None
    return given(dtype, dx, dv, dw, db)


def _epsilon(op: str, eps: Any) -> float:
    if np.size(eps) != 1:
        raise ValueError(f"{op}: eps must be one number, got shape {np.shape(eps)}")
    return _check.real(op, "eps", np.reshape(eps, ()).item())


@operation
def gin_aggregate(x: ArrayLike, edge_index: ArrayLike, eps: ArrayLike = 0.0) -> Array:
    """What :func:`gin_conv` hands to its network: (1 + eps) times every node's features plus the sum of its sources'.

    Args:
        x: the nodes, (N, F).
        edge_index: (2, E), sources then targets, each in [0, N).
        eps: one number; an array of one element where it is learned.

    Returns:
        (N, F), of dtype float16, float32 or float64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> gin_aggregate(np.array([[1.0], [2.0]]), np.array([[0], [1]]), eps=0.5)
    array([[1.5],
           [4. ]])
    """
    op = "gin_aggregate"
    (nodes,), dtype = _check.as_arrays(op, x=x)
    axes(op, "x", nodes, "nodes", "features")
    factor = nodes.dtype.type(1 + _epsilon(op, eps))
    y = segments.scatter(SUM, *_to_and_from(edges(op, edge_index, nodes.shape[0]), nodes))
    y += factor * nodes
    return y.astype(dtype, copy=False)


def _to_and_from(ends: tuple[Array, Array], x: Array) -> tuple[Array, int, Array, Array]:
    """The arguments of a scatter from the first of the ends to the second."""
    return ends[1], x.shape[0], x, ends[0]


def gin_aggregate_backward(
    grad_output: ArrayLike, x: ArrayLike, edge_index: ArrayLike, eps: ArrayLike = 0.0, *, output_mask: tuple[bool, bool] = (True, True)
) -> tuple[Array | None, Array | None]:
    """Gradients of :func:`gin_aggregate` with respect to x and eps; those that ``output_mask`` does not ask for are None.

    >>> import numpy as np
    >>> gin_aggregate_backward(np.ones((2, 1)), np.array([[1.0], [2.0]]), np.array([[0], [1]]))[1]
    array(3.)
    """
    op = "gin_aggregate_backward"
    (dy, nodes), dtype = _check.as_arrays(op, grad_output=grad_output, x=x)
    axes(op, "x", nodes, "nodes", "features")
    sources, targets = edges(op, edge_index, nodes.shape[0])
    output_gradient(op, dy, nodes.shape)
    factor = dy.dtype.type(1 + _epsilon(op, eps))
    dx = deps = None
    if output_mask[0]:
        dx = segments.scatter(SUM, *_to_and_from((targets, sources), dy))
        dx += factor * dy
    if output_mask[1]:
        deps = np.full(np.shape(eps), np.einsum("nf,nf->", dy, nodes, dtype=np.float64))
    return given(dtype, dx, deps)


def gin_conv(x: ArrayLike, edge_index: ArrayLike, mlp: Callable[[Any], Any], eps: ArrayLike = 0.0) -> Any:
    """Graph isomorphism network: ``mlp`` of a node's features and the sum of its sources': ``torch_geometric.nn.GINConv``.

    The gradient goes through ``mlp``, so it is autodiff's: this is ``mlp(gin_aggregate(x, edge_index, eps))`` and no
    operation of its own. Arguments are those of :func:`gin_aggregate`, and ``mlp`` a function of an array (N, F).

    >>> import numpy as np
    >>> gin_conv(np.array([[1.0], [2.0]]), np.array([[0], [1]]), lambda h: 10 * h)
    array([[10.],
           [30.]])
    """
    return mlp(gin_aggregate(x, edge_index, eps))


register(
    gcn_conv, gcn_conv_backward, inputs=("x", "weight", "bias", "edge_weight"), saved=("x", "weight", "edge_weight"),
    record=_record_gcn,
)  # fmt: skip
register(
    graph_sage_conv, graph_sage_conv_backward, inputs=("x", "weight_neighbors", "weight_root", "bias"),
    saved=("x", "weight_neighbors", "weight_root"), record=_record_sage,
)  # fmt: skip
register(gin_aggregate, gin_aggregate_backward, inputs=("x", "eps"), saved=("x", "eps"))
