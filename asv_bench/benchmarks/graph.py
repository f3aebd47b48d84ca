"""Benchmarks of the operations on graphs; PyTorch's side is written as PyTorch Geometric would run it without extensions."""

from __future__ import annotations

import numpy as np

from .common import Case, benchmarks

NODES, EDGES = 100_000, 1_000_000


def indices(below, *shape):
    return lambda rng: rng.integers(0, below, shape)


def row_starts(rows, entries):
    """Rows of random lengths, some of them empty."""
    return lambda rng: np.concatenate(([0], np.sort(rng.integers(0, entries + 1, rows - 1)), [entries]))


def expanded(index, like):
    return index.view(-1, *[1] * (like.dim() - 1)).expand_as(like)


def reduced(name, reduce):
    """A reduction by torch.scatter_reduce; ``name`` is that of the data."""

    def run(F, tensors, options):
        import torch

        x, index, count = tensors[name], tensors["index" if name == "src" else "segment_ids"], options["dim_size" if name == "src" else "num_segments"]
        zeros = torch.zeros(count, *x.shape[1:], dtype=x.dtype)
        if reduce == "sum":
            return zeros.index_add(0, index, x)
        return zeros.scatter_reduce(0, expanded(index, x), x, reduce, include_self=False)

    return run


def softmax(x, index, count):
    import torch

    largest = torch.full((count, *x.shape[1:]), -torch.inf, dtype=x.dtype).scatter_reduce(0, expanded(index, x), x.detach(), "amax")
    e = torch.exp(x - largest[index])
    return e / torch.zeros(count, *x.shape[1:], dtype=x.dtype).index_add(0, index, e)[index]


def segment_softmax(F, tensors, options):
    return softmax(tensors["data"], tensors["segment_ids"], options["num_segments"])


def gathered(F, tensors, options):
    return tensors["input"].index_select(0, tensors["index"])


def sparse_product(F, tensors, options):
    import torch

    shape = tensors["indptr"].numel() - 1, tensors["dense"].shape[0]
    return torch.sparse.mm(torch.sparse_csr_tensor(tensors["indptr"], tensors["indices"], tensors["data"].detach(), shape), tensors["dense"])


def sampled_product(F, tensors, options):
    rows = tensors["indptr"].diff()
    import torch

    rows = torch.repeat_interleave(torch.arange(rows.numel()), rows)
    return (tensors["a"].index_select(0, rows) * tensors["b"].index_select(0, tensors["indices"])).sum(-1)


def neighbours(x, edge_index, weight=None):
    import torch

    messages = x.index_select(0, edge_index[0])
    if weight is not None:
        messages = messages * weight.view(-1, *[1] * (x.dim() - 1))
    return torch.zeros(x.shape, dtype=x.dtype).index_add(0, edge_index[1], messages)


def self_loops(edge_index, nodes):
    """The edges that are no self-loops, then one self-loop a node."""
    import torch

    others = edge_index[:, edge_index[0] != edge_index[1]]
    return torch.cat((others, torch.arange(nodes).expand(2, -1)), 1)


def norm(F, tensors, options):
    import torch

    nodes = options["num_nodes"]
    keep = tensors["edge_index"][0] != tensors["edge_index"][1]
    ends = self_loops(tensors["edge_index"], nodes)
    loops = torch.ones(nodes, dtype=tensors["edge_weight"].dtype)
    loops[tensors["edge_index"][0][~keep]] = tensors["edge_weight"][~keep]
    weight = torch.cat((tensors["edge_weight"][keep], loops))
    scale = torch.zeros(nodes, dtype=weight.dtype).index_add(0, ends[1], weight).pow(-0.5)
    scale = scale.masked_fill(scale == torch.inf, 0)
    return ends, scale[ends[0]] * weight * scale[ends[1]]


def gcn(F, tensors, options):
    import torch

    x, edge_index = tensors["x"], tensors["edge_index"]
    ones = torch.ones(edge_index.shape[1], dtype=x.dtype)
    ends, weight = norm(F, {"edge_index": edge_index, "edge_weight": ones}, {"num_nodes": x.shape[0]})
    return neighbours(F.linear(x, tensors["weight"]), ends, weight) + tensors["bias"]


def sage(F, tensors, options):
    import torch

    x, (sources, targets) = tensors["x"], tensors["edge_index"]
    messages = x.index_select(0, sources)
    mean = torch.zeros_like(x).scatter_reduce(0, expanded(targets, messages), messages, "mean", include_self=False)
    return F.linear(mean, tensors["weight_neighbors"], tensors["bias"]) + F.linear(x, tensors["weight_root"])


def gin(F, tensors, options):
    return (1 + tensors["eps"]) * tensors["x"] + neighbours(tensors["x"], tensors["edge_index"])


def gat(F, tensors, options):
    import torch

    heads = options["heads"]
    h = F.linear(tensors["x"], tensors["weight"]).view(tensors["x"].shape[0], heads, -1)
    u, v = (h * tensors["att_src"]).sum(-1), (h * tensors["att_dst"]).sum(-1)
    ends = self_loops(tensors["edge_index"], h.shape[0])
    alpha = softmax(F.leaky_relu(u[ends[0]] + v[ends[1]], 0.2), ends[1], h.shape[0])
    messages = h.index_select(0, ends[0]) * alpha[..., None]
    return torch.zeros_like(h).index_add(0, ends[1], messages).view(h.shape[0], -1) + tensors["bias"]


def segments(op, width, theirs):
    return Case(
        op,
        {"data": (EDGES, width), "segment_ids": indices(NODES, EDGES)},
        {"num_segments": NODES},
        {"data": (16, min(width, 16)), "segment_ids": indices(8, 16), "num_segments": 8},
        theirs,
    )


def scattered(reduce, theirs):
    tiny = {"src": (16, 16), "index": indices(8, 16), "dim_size": 8}
    return Case("scatter", {"src": (EDGES, 64), "index": indices(NODES, EDGES)}, {"dim_size": NODES, "reduce": reduce}, tiny, reduced("src", theirs))


def graph(op, theirs, nodes, edges, options=None, **arrays):
    """``arrays`` but for the nodes, of which there are so many with 64 features, and the edges."""
    tiny = {"x": (8, 64), "edge_index": indices(8, 2, 16)}
    return Case(op, {"x": (nodes, 64), "edge_index": indices(nodes, 2, edges), **arrays}, options or {}, tiny, theirs)


def hops(columns, entries):
    """Columns all over the place, no two alike among so many neighbours: PyTorch's gradient wants none repeated in a row."""
    return lambda rng: np.arange(entries) * 61803 % columns


SPARSE = {"indptr": row_starts(NODES, EDGES), "indices": hops(NODES, EDGES)}
TINY_SPARSE = {"indptr": lambda rng: np.arange(9) * 2, "indices": hops(8, 16), "data": (16,), "dense": (8, 16), "a": (8, 16), "b": (8, 16)}
GCN = {"weight": (64, 64), "bias": (64,)}
SAGE = {"weight_neighbors": (64, 64), "weight_root": (64, 64), "bias": (64,)}
GAT = {"weight": (64, 64), "att_src": (8, 8), "att_dst": (8, 8), "bias": (64,)}
HEADS = {"heads": 8}

CASES = {
    "gather.1M_x_64": Case(
        "gather", {"input": (NODES, 64), "index": indices(NODES, EDGES)}, {}, {"input": (8, 16), "index": indices(8, 16)}, gathered
    ),
    "scatter.sum.1M_x_64": scattered("sum", "sum"),
    "scatter.mean.1M_x_64": scattered("mean", "mean"),
    "scatter.max.1M_x_64": scattered("max", "amax"),
    "scatter.mul.1M_x_64": scattered("mul", "prod"),
    "segment_sum.1M_x_64": segments("segment_sum", 64, reduced("data", "sum")),
    "segment_sum.1M_x_8": segments("segment_sum", 8, reduced("data", "sum")),
    "segment_mean.1M_x_64": segments("segment_mean", 64, reduced("data", "mean")),
    "segment_max.1M_x_64": segments("segment_max", 64, reduced("data", "amax")),
    "segment_min.1M_x_64": segments("segment_min", 64, reduced("data", "amin")),
    "segment_softmax.1M_x_8": segments("segment_softmax", 8, segment_softmax),
    "spmm.1M_x_64": Case("spmm", {**SPARSE, "data": (EDGES,), "dense": (NODES, 64)}, {}, TINY_SPARSE, sparse_product),
    "sddmm.1M_x_64": Case("sddmm", {**SPARSE, "a": (NODES, 64), "b": (NODES, 64)}, {}, TINY_SPARSE, sampled_product),
    "gcn_norm.1M": Case(
        "gcn_norm", {"edge_index": indices(NODES, 2, EDGES), "edge_weight": lambda rng: rng.uniform(0.5, 2, EDGES)}, {"num_nodes": NODES},
        {"edge_index": indices(8, 2, 16), "edge_weight": lambda rng: rng.uniform(0.5, 2, 16), "num_nodes": 8}, norm,
    ),
    "gcn_conv.1M_x_64": graph("gcn_conv", gcn, NODES, EDGES, **GCN),
    "gcn_conv.cora": graph("gcn_conv", gcn, 2708, 10556, **GCN),
    "graph_sage_conv.1M_x_64": graph("graph_sage_conv", sage, NODES, EDGES, **SAGE),
    "graph_sage_conv.cora": graph("graph_sage_conv", sage, 2708, 10556, **SAGE),
    "gin_aggregate.1M_x_64": graph("gin_aggregate", gin, NODES, EDGES, eps=(1,)),
    "gat_conv.1M_x_8_x_8": graph("gat_conv", gat, NODES, EDGES, HEADS, **GAT),
    "gat_conv.cora": graph("gat_conv", gat, 2708, 10556, HEADS, **GAT),
}  # fmt: skip

Forward, Backward = benchmarks(CASES)
