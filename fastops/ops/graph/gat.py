"""Graph attention: every node attends to its sources, with weights from a softmax over its incoming edges.

    h = x W^T, in heads of C features;  u[i] = h[i] . a_src,  v[i] = h[i] . a_dst
    alpha[j -> i] = softmax over the sources j of i of leaky_relu(u[j] + v[i])
    y[i] = sum over j of alpha[j -> i] h[j], heads side by side or their mean, + b

    dalpha[j -> i] = dy[i] . h[j];  ds = softmax' leaky_relu' dalpha;  du[j] = sum of ds over its targets, dv[i] over its sources
    dh[j] = sum over i of alpha[j -> i] dy[i] + du[j] a_src + dv[j] a_dst

Kept: h, alpha and the edges with their self-loops.

Source: Velickovic et al., "Graph Attention Networks" (2018), eq. 1 to 6; semantics are those of PyTorch Geometric's GATConv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher, parallel, separate
from fastops._memory import empty
from fastops._op import operation, register
from fastops._threads import threads_for
from fastops.ops.graph.arguments import axes, edges, given, output_gradient, shaped
from fastops.simd import segments
from fastops.simd.gemm import gemm
from fastops.simd.reduce import sum_axis
from fastops.simd.segments import SUM

_EDGES = 4096
_NS_PER_SCORE = 1.5


@separate
def _scores_block(block, worker, sources, targets, u, v, slope, gradient, s):
    """s[e] = leaky_relu(u[sources[e]] + v[targets[e]]), or s[e] times its derivative; u, v (N, heads), s (E, heads)."""
    zero = s.dtype.type(0)
    for e in range(block * _EDGES, min((block + 1) * _EDGES, sources.size)):
        left, right, out = u[np.uintp(sources[e])], v[np.uintp(targets[e])], s[e]
        for h in range(out.size):
            score = left[h] + right[h]
            if gradient:
                out[h] = out[h] if score > zero else slope * out[h]
            else:
                out[h] = score if score > zero else slope * score


@launcher
def _scores(threads, sources, targets, u, v, slope, gradient, s):
    parallel(_scores_block, (sources.size + _EDGES - 1) // _EDGES, threads, (sources, targets, u, v, slope, gradient, s))


def _score(ends: tuple[Array, Array], u: Array, v: Array, negative_slope: float, gradient: bool, s: Array) -> None:
    if s.size:
        _scores(threads_for(s.size * _NS_PER_SCORE), *ends, u, v, s.dtype.type(negative_slope), gradient, s)


def _ends(op: str, edge_index: Any, nodes: int, add_self_loops: bool) -> tuple[Array, Array]:
    """Sources and targets; every node has exactly one self-loop, if any are to be added."""
    sources, targets = edges(op, edge_index, nodes)
    if not add_self_loops:
        return sources, targets
    others = sources != targets
    if not others.all():
        sources, targets = sources[others], targets[others]
    every = np.arange(nodes)
    return np.concatenate((sources, every)), np.concatenate((targets, every))


def _arguments(op: str, x: Array, weight: Array, att_src: Array, att_dst: Array, heads: Any) -> tuple[int, Array, Array]:
    """The number of heads, and attention vectors as (heads, C)."""
    axes(op, "x", x, "nodes", "features")
    axes(op, "weight", weight, "heads * C", "features")
    shaped(op, "weight", weight, (weight.shape[0], x.shape[1]))
    heads = _check.integer(op, "heads", heads, minimum=1)
    if weight.shape[0] % heads:
        raise ValueError(f"{op}: heads must divide {weight.shape[0]}, the rows of weight, got {heads}")
    wanted = (heads, weight.shape[0] // heads)
    vectors = []
    for name, att in (("att_src", att_src), ("att_dst", att_dst)):
        if att.shape not in (wanted, (1, *wanted)):
            raise ValueError(f"{op}: {name} must have shape {wanted} or {(1, *wanted)}, got {att.shape}")
        vectors.append(att.reshape(wanted))
    return heads, vectors[0], vectors[1]


def _attention(h: Array, att_src: Array, att_dst: Array) -> tuple[Array, Array]:
    """u and v, (N, heads) each."""
    nodes, (heads, width) = h.shape[0], att_src.shape
    every, first = np.arange(nodes), np.zeros(nodes, segments.INDEX)
    u, v = (segments.dots(every, first, h, a.reshape(1, heads * width), heads) for a in (att_src, att_dst))
    return u, v


def _alpha(h: Array, att_src: Array, att_dst: Array, ends: tuple[Array, Array], negative_slope: float) -> Array:
    """The attention that every edge gets, (E, heads)."""
    s = empty((ends[0].size, att_src.shape[0]), h.dtype)
    _score(ends, *_attention(h, att_src, att_dst), negative_slope, False, s)
    return segments.softmax(ends[1], h.shape[0], s)


@operation
def gat_conv(
    x: ArrayLike, edge_index: ArrayLike, weight: ArrayLike, att_src: ArrayLike, att_dst: ArrayLike, bias: ArrayLike | None = None,
    heads: int = 1, concat: bool = True, negative_slope: float = 0.2, add_self_loops: bool = True,
) -> Array:  # fmt: skip
    """Graph attention (GAT): ``torch_geometric.nn.GATConv``.

    Args:
        x: the nodes, (N, F).
        edge_index: (2, E), sources then targets, each in [0, N).
        weight: (H C, F) for H heads.
        att_src: (H, C) or (1, H, C), what the features of a source are multiplied with.
        att_dst: the same for a target.
        bias: (H C,), or (C,) without ``concat``.
        heads: H.
        concat: whether the heads stand side by side in the output; otherwise it is their mean.
        negative_slope: of the leaky_relu.
        add_self_loops: whether self-loops are removed and one is added to every node.

    Returns:
        (N, H C), or (N, C) without ``concat``; 0 plus the bias for a node without incoming edges; dtype float16, float32 or
        float64.

    Raises:
        TypeError, ValueError: an argument is of a wrong kind or has a wrong shape or value, an index out of range included.

    >>> import numpy as np
    >>> x, zero = np.array([[1.0], [3.0]]), np.zeros((1, 1))
    >>> gat_conv(x, np.array([[0], [1]]), np.ones((1, 1)), zero, zero)
    array([[1.],
           [2.]])
    """
    return _record(x, edge_index, weight, att_src, att_dst, bias, heads, concat, negative_slope, add_self_loops)[0]


def _record(
    x: ArrayLike, edge_index: ArrayLike, weight: ArrayLike, att_src: ArrayLike, att_dst: ArrayLike, bias: ArrayLike | None = None,
    heads: int = 1, concat: bool = True, negative_slope: float = 0.2, add_self_loops: bool = True,
) -> tuple[Array, dict[str, Any]]:  # fmt: skip
    op = "gat_conv"
    (nodes, w, left, right, b), dtype = _check.as_arrays(op, optional="bias", x=x, weight=weight, att_src=att_src, att_dst=att_dst, bias=bias)
    heads, left, right = _arguments(op, nodes, w, left, right, heads)
    negative_slope = _check.real(op, "negative_slope", negative_slope)
    shaped(op, "bias", b, (w.shape[0] // (1 if concat else heads),))
    ends = _ends(op, edge_index, nodes.shape[0], add_self_loops)
    h = gemm(nodes, w.T)
    alpha = _alpha(h, left, right, ends, negative_slope)
    y = segments.scatter(SUM, ends[1], nodes.shape[0], h, ends[0], alpha)
    if not concat:
        y = y.reshape(nodes.shape[0], heads, -1).mean(axis=1) if y.size else y[:, : w.shape[0] // heads]
    if b is not None:
        y += b
    return y.astype(dtype, copy=False), {"transformed": h, "alpha": alpha, "ends": ends}


def gat_conv_backward(
    grad_output: ArrayLike, x: ArrayLike, edge_index: ArrayLike, weight: ArrayLike, att_src: ArrayLike, att_dst: ArrayLike,
    bias: ArrayLike | None = None, heads: int = 1, concat: bool = True, negative_slope: float = 0.2, add_self_loops: bool = True,
    *, output_mask: tuple[bool, bool, bool, bool, bool] = (True, True, True, True, True),
    transformed: Array | None = None, alpha: Array | None = None, ends: tuple[Array, Array] | None = None,
) -> tuple[Array | None, ...]:  # fmt: skip
    """Gradients of :func:`gat_conv` with respect to x, weight, att_src, att_dst and bias, those that ``output_mask`` asks for.

    ``transformed``, ``alpha`` and ``ends`` are what the forward pass kept, computed again when they are not given.

    >>> import numpy as np
    >>> x, zero = np.array([[1.0], [3.0]]), np.zeros((1, 1))
    >>> gat_conv_backward(np.ones((2, 1)), x, np.array([[0], [1]]), np.ones((1, 1)), zero, zero)[0]
    array([[1.5],
           [0.5]])
    """
    op = "gat_conv_backward"
    (dy, nodes, w, left, right), dtype = _check.as_arrays(op, grad_output=grad_output, x=x, weight=weight, att_src=att_src, att_dst=att_dst)
    shape = left.shape, right.shape
    heads, left, right = _arguments(op, nodes, w, left, right, heads)
    negative_slope = _check.real(op, "negative_slope", negative_slope)
    count, width = nodes.shape[0], w.shape[0] // heads
    output_gradient(op, dy, (count, w.shape[0] if concat else width))
    db = sum_axis(dy[None])[0] if bias is not None and output_mask[4] else None
    if not concat:
        dy = np.repeat(dy[:, None] / dy.dtype.type(heads), heads, axis=1).reshape(count, w.shape[0])
    if ends is None:
        ends = _ends(op, edge_index, count, add_self_loops)
    sources, targets = ends
    h = gemm(nodes, w.T) if transformed is None else transformed
    if alpha is None:
        alpha = _alpha(h, left, right, ends, negative_slope)

    ds = segments.softmax_backward(targets, count, alpha, segments.dots(targets, sources, dy, h, heads))
    _score(ends, *_attention(h, left, right), negative_slope, True, ds)
    du, dv = (segments.scatter(SUM, end, count, ds) for end in ends)
    in_heads = h.reshape(count, heads, width)
    dleft = np.einsum("nh,nhc->hc", du, in_heads).reshape(shape[0]) if output_mask[2] else None
    dright = np.einsum("nh,nhc->hc", dv, in_heads).reshape(shape[1]) if output_mask[3] else None
    dx = dw = None
    if output_mask[0] or output_mask[1]:
        dh = segments.scatter(SUM, sources, count, dy, targets, alpha)
        dh += (du[:, :, None] * left + dv[:, :, None] * right).reshape(dh.shape)
        dx = gemm(dh, w) if output_mask[0] else None
        dw = gemm(dh.T, nodes) if output_mask[1] else None
    return given(dtype, dx, dw, dleft, dright, db)


register(
    gat_conv, gat_conv_backward, inputs=("x", "weight", "att_src", "att_dst", "bias"), saved=("x", "weight", "att_src", "att_dst"),
    record=_record,
)  # fmt: skip
