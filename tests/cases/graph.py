"""Rows of the operations on graphs, with references in float64 that go edge by edge."""

from __future__ import annotations

import numpy as np

from tests.harness import Row


def taken(input, index, axis=0):
    return np.take(input, index, axis)


REDUCE = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "mul": np.prod}


def scattered(src, index, dim=0, dim_size=None, reduce="sum", empty=None):
    x = np.moveaxis(src, dim, 0)
    count = (max(index, default=-1) + 1) if dim_size is None else dim_size
    y = np.full((count, *x.shape[1:]), float(reduce == "mul") if empty is None else empty)
    for d in range(count):
        if (index == d).any():
            y[d] = REDUCE[reduce](x[index == d], axis=0)
    return np.moveaxis(y, 0, dim)


def segmented(reduce, empty=0.0):
    def reference(data, segment_ids, num_segments=None, indices_are_sorted=False):
        return scattered(data, segment_ids, 0, num_segments, reduce, empty)

    return reference


def segment_softmax(data, segment_ids, num_segments=None, indices_are_sorted=False):
    y = np.zeros_like(data)
    for d in set(segment_ids.tolist()):
        e = np.exp(data[segment_ids == d] - data[segment_ids == d].max(axis=0))
        y[segment_ids == d] = e / e.sum(axis=0)
    return y


def rows_of(indptr):
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def sparse_product(indptr, indices, dense, data=None, reduce="sum"):
    terms = dense[indices] if data is None else data.reshape(-1, *[1] * (dense.ndim - 1)) * dense[indices]
    return scattered(terms, rows_of(indptr), 0, len(indptr) - 1, reduce)


def sampled_product(indptr, indices, a, b):
    return (a @ b.T)[rows_of(indptr), indices]


def remaining_self_loops(edge_index, edge_weight, nodes, fill):
    """Lists of (source, target) and of weights: first the others, then one self-loop a node."""
    pairs, weights, loops = [], [], [fill] * nodes
    for s, t, w in zip(*edge_index, edge_weight):
        if s == t:
            loops[s] = w
        else:
            pairs.append((s, t))
            weights.append(w)
    return pairs + [(i, i) for i in range(nodes)], weights + loops


def normalised(edge_index, edge_weight=None, num_nodes=None, improved=False, add_self_loops=True, flow="source_to_target", dtype=None):
    nodes = edge_index.max() + 1 if num_nodes is None else num_nodes
    w = np.ones(edge_index.shape[1]) if edge_weight is None else edge_weight
    pairs = list(zip(*edge_index))
    if add_self_loops:
        pairs, w = remaining_self_loops(edge_index, w, nodes, 2.0 if improved else 1.0)
    degree = np.zeros(nodes)
    for (s, t), weight in zip(pairs, w):
        degree[t if flow == "source_to_target" else s] += weight
    root = [d**-0.5 if d else 0.0 for d in degree]
    return np.array(pairs, int).reshape(-1, 2).T, np.array([root[s] * weight * root[t] for (s, t), weight in zip(pairs, w)], float)


def gcn(x, edge_index, weight, bias=None, edge_weight=None, add_self_loops=True, normalize=True):
    w = np.ones(edge_index.shape[1]) if edge_weight is None else edge_weight
    if normalize:
        edge_index, w = normalised(edge_index, w, len(x), add_self_loops=add_self_loops)
    y = np.zeros((len(x), len(weight)))
    for s, t, one in zip(*edge_index, w):
        y[t] += one * (weight @ x[s])
    return y + (0 if bias is None else bias)


def sage(x, edge_index, weight_neighbors, weight_root, bias=None, aggr="mean"):
    z = scattered(x[edge_index[0]], edge_index[1], 0, len(x), aggr)
    return z @ weight_neighbors.T + x @ weight_root.T + (0 if bias is None else bias)


def gin(x, edge_index, eps=0.0):
    return (1 + eps) * x + scattered(x[edge_index[0]], edge_index[1], 0, len(x), "sum")


def gat(x, edge_index, weight, att_src, att_dst, bias=None, heads=1, concat=True, negative_slope=0.2, add_self_loops=True):
    pairs = list(zip(*edge_index))
    if add_self_loops:
        pairs = [(s, t) for s, t in pairs if s != t] + [(i, i) for i in range(len(x))]
    h = (x @ weight.T).reshape(len(x), heads, -1)
    u, v = (h * att_src).sum(-1), (h * att_dst).sum(-1)
    y = np.zeros_like(h)
    for i in range(len(x)):
        incoming = [s for s, t in pairs if t == i]
        if incoming:
            score = u[incoming] + v[i]
            score = np.where(score > 0, score, negative_slope * score)
            e = np.exp(score - score.max(axis=0))
            y[i] = np.einsum("eh,ehc->hc", e / e.sum(axis=0), h[incoming])
    y = y.reshape(len(x), -1) if concat else y.mean(axis=1)
    return y + (0 if bias is None else bias)


def distinct(rng, shape):
    """Numbers that are far apart and not near zero: no ties among them, and no kinks."""
    return rng.permutation(np.arange(1, np.prod(shape) + 1)).reshape(shape) / np.prod(shape) * rng.choice([-1, 1], shape)


def integers(below, *shape):
    return lambda rng: rng.integers(0, below, shape)


def gentle(rng, shape):
    """Small enough for the softmax not to bend much within a step of the difference quotient."""
    return 0.3 * rng.standard_normal(shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


IDS = np.array([2, 0, 2, 5, 5, 2, 0])  # out of order, with empty segments
# Row 1 is empty, the columns of a row are out of order, and one is there twice.
SPARSE = {"indptr": np.array([0, 3, 3, 4, 6, 7]), "indices": np.array([3, 0, 3, 1, 2, 0, 3])}
# Out of order; 0 -> 2 twice, a self-loop of 3, two of 1, and 5 stands alone but for its outgoing edge.
EDGES = np.array([[0, 2, 0, 3, 4, 1, 1, 5, 2], [2, 1, 2, 3, 0, 1, 1, 0, 4]])
SAGE = {"x": (6, 3), "weight_neighbors": (4, 3), "weight_root": (4, 3), "bias": (4,)}

ROWS = [
    Row("rows", "gather", {"input": (6, 70)}, taken, {"index": np.array([5, 0, 0, 3])}, batched=()),
    Row("middle", "gather", {"input": (2, 5, 3)}, taken, {"index": np.array([[4, 0], [1, 4]]), "axis": 1}),
    Row("sum", "scatter", {"src": (7, 70)}, scattered, {"index": IDS, "dim_size": 8}, batched=()),
    Row("mean", "scatter", {"src": (2, 7, 3)}, scattered, {"index": IDS, "dim": -2, "reduce": "mean"}, batched=("src",)),
    Row("max", "scatter", {"src": (7, 3, 2)}, scattered, {"index": IDS, "dim_size": 8, "reduce": "max"}, batched=(), draw=distinct),
    Row("min", "scatter", {"src": (7,)}, scattered, {"index": IDS, "reduce": "min"}, batched=(), draw=distinct),
    Row("mul", "scatter", {"src": (7, 5)}, scattered, {"index": IDS, "reduce": "mul"}, batched=()),
    Row("plain", "segment_sum", {"data": (7, 5)}, segmented("sum"), {"segment_ids": IDS}, batched=()),
    Row("sorted", "segment_sum", {"data": (7,)}, segmented("sum"), {"segment_ids": np.sort(IDS), "indices_are_sorted": True}, batched=()),
    Row("plain", "segment_mean", {"data": (7, 5)}, segmented("mean"), {"segment_ids": IDS, "num_segments": 7}, batched=()),
    Row("plain", "segment_max", {"data": (3, 20)}, segmented("max"), {"segment_ids": np.array([1, 0, 1])}, batched=(), draw=distinct),
    Row("plain", "segment_min", {"data": (3, 2, 3)}, segmented("min"), {"segment_ids": np.array([1, 0, 1])}, batched=(), draw=distinct),
    Row("wide", "segment_softmax", {"data": (7, 20)}, segment_softmax, {"segment_ids": IDS}, batched=()),
    Row("single", "segment_softmax", {"data": (7,)}, segment_softmax, {"segment_ids": IDS, "num_segments": 9}, batched=()),
    Row("plain", "spmm", {"data": (7,), "dense": (4, 70)}, sparse_product, SPARSE, batched=()),
    Row("vector", "spmm", {"dense": (4,)}, sparse_product, {**SPARSE, "data": None, "reduce": "mean"}, batched=()),
    Row("max", "spmm", {"data": (7,), "dense": (4, 5)}, sparse_product, {**SPARSE, "reduce": "max"}, batched=(), draw=distinct),
    Row("min", "spmm", {"dense": (4, 5)}, sparse_product, {**SPARSE, "data": None, "reduce": "min"}, batched=(), draw=distinct),
    Row("plain", "sddmm", {"a": (5, 20), "b": (4, 20)}, sampled_product, SPARSE, batched=()),
    Row("plain", "gcn_norm", {"edge_weight": (9,)}, normalised, {"edge_index": EDGES}, batched=(), draw=positive),
    Row(
        "outgoing",
        "gcn_norm",
        {"edge_weight": (9,)},
        normalised,
        {"edge_index": EDGES, "num_nodes": 7, "improved": True, "flow": "target_to_source"},
        batched=(),
        draw=positive,
    ),
    Row(
        "narrow",
        "gcn_conv",
        {"x": (6, 5), "weight": (3, 5), "bias": (3,), "edge_weight": (9,)},
        gcn,
        {"edge_index": EDGES},
        batched=(),
        draw={"edge_weight": positive},
    ),
    Row(
        "wide",
        "gcn_conv",
        {"x": (6, 3), "weight": (20, 3), "bias": (20,), "edge_weight": (9,)},
        gcn,
        {"edge_index": EDGES, "add_self_loops": False},
        batched=(),
        draw={"edge_weight": positive},
    ),
    Row("plain", "gcn_conv", {"x": (6, 3), "weight": (2, 3), "bias": None}, gcn, {"edge_index": EDGES, "normalize": False}, batched=()),
    Row("mean", "graph_sage_conv", SAGE, sage, {"edge_index": EDGES}, batched=()),
    Row(
        "narrow",
        "graph_sage_conv",
        {"x": (6, 5), "weight_neighbors": (2, 5), "weight_root": (2, 5), "bias": (2,)},
        sage,
        {"edge_index": EDGES},
        batched=(),
    ),
    Row("max", "graph_sage_conv", {**SAGE, "bias": None}, sage, {"edge_index": EDGES, "aggr": "max"}, batched=(), draw=distinct),
    Row("learned", "gin_aggregate", {"x": (6, 5), "eps": (1,)}, gin, {"edge_index": EDGES}, batched=()),
    Row(
        "heads",
        "gat_conv",
        {"x": (6, 3), "weight": (8, 3), "att_src": (2, 4), "att_dst": (2, 4), "bias": (8,)},
        gat,
        {"edge_index": EDGES, "heads": 2},
        batched=(),
        draw=gentle,
    ),
    Row(
        "mean",
        "gat_conv",
        {"x": (6, 3), "weight": (15, 3), "att_src": (1, 3, 5), "att_dst": (1, 3, 5), "bias": (5,)},
        gat,
        {"edge_index": EDGES, "heads": 3, "concat": False, "negative_slope": 0.1, "add_self_loops": False},
        batched=(),
        draw=gentle,
    ),
]
