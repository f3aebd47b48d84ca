"""Operations on graphs: the contract of every operation, the corners, and wrong arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastops
from fastops import _op
from fastops.simd import segments
from tests.cases.graph import ROWS
from tests.harness import assert_same_bits, every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)


INDEX_FORMS = [np.int8, np.uint8, np.int32, np.uint32, np.int64, ">i4"]


@pytest.mark.parametrize("dtype", INDEX_FORMS)
def test_indices_of_any_integer_dtype_and_layout(dtype):
    x = np.arange(12.0).reshape(4, 3)
    index = np.array([3, 0, 3], dtype)
    expected = fastops.gather(x, np.array([3, 0, 3]))
    summed = fastops.segment_sum(x[:3], np.array([3, 0, 3]))
    index.flags.writeable = False
    for form in (index, np.repeat(index, 2)[::2], index[::-1].copy()[::-1], index.tolist()):
        assert_same_bits(fastops.gather(x, form), expected)
        assert_same_bits(fastops.segment_sum(x[:3], form), summed)


@pytest.mark.parametrize(("op", "empty"), [("sum", 0), ("mean", 0), ("max", -np.inf), ("min", np.inf)])
def test_empty_segments_are_those_of_jax(op, empty):
    reduce, gradient = (getattr(fastops, f"segment_{op}{suffix}") for suffix in ("", "_backward"))
    y = reduce(np.array([3.0]), np.array([1]), 3)
    np.testing.assert_array_equal(y, [empty, 3, empty])
    np.testing.assert_array_equal(gradient(np.array([7.0, 8, 9]), np.array([3.0]), np.array([1]), 3), [8])
    nothing = np.zeros((0, 2))
    assert_same_bits(reduce(nothing, np.zeros(0, int), 2), np.full((2, 2), float(empty)))
    assert reduce(nothing, np.zeros(0, int)).shape == (0, 2)
    assert_same_bits(gradient(np.ones((2, 2)), nothing, np.zeros(0, int), 2), nothing)


@pytest.mark.parametrize(("reduce", "empty"), [("sum", 0), ("mean", 0), ("max", 0), ("min", 0), ("mul", 1)])
def test_empty_destinations_are_those_of_pytorch_geometric(reduce, empty):
    np.testing.assert_array_equal(fastops.scatter(np.array([3.0]), np.array([1]), 0, 3, reduce), [empty, 3, empty])
    assert_same_bits(fastops.scatter(np.zeros((0, 2)), np.zeros(0, int), 0, 2, reduce), np.full((2, 2), float(empty)))


def test_a_segment_of_infinities_is_not_empty():
    assert_same_bits(fastops.scatter(np.array([-np.inf]), np.array([0]), reduce="max"), np.array([-np.inf]))


def test_ties_share_the_gradient():
    x, ids, dy = np.array([2.0, 1.0, 2.0, 5.0]), np.array([0, 0, 0, 1]), np.array([6.0, 7.0])
    np.testing.assert_array_equal(fastops.segment_max_backward(dy, x, ids), [3, 0, 3, 7])
    np.testing.assert_array_equal(fastops.segment_min_backward(dy, -x, ids), [3, 0, 3, 7])
    np.testing.assert_array_equal(fastops.scatter_backward(dy, x, ids, reduce="max"), [3, 0, 3, 7])


@pytest.mark.parametrize("zeros", [1, 2])
def test_zeros_in_a_product_have_their_gradient(zeros):
    x = np.array([2.0, 0.0, 3.0, 4.0])
    if zeros == 2:
        x[3] = 0
    found = fastops.scatter_backward(np.array([10.0]), x, np.zeros(4, int), reduce="mul")
    np.testing.assert_array_equal(found, [0, 240 if zeros == 1 else 0, 0, 0])


def test_sums_are_taken_in_the_order_of_the_rows():
    rng = np.random.default_rng(0)
    for width in (1, 3, 64, 100):
        x, ids = rng.standard_normal((2000, width)).astype(np.float32), rng.integers(0, 30, 2000)
        expected = np.zeros((30, width), np.float32)
        np.add.at(expected, ids, x)
        assert_same_bits(fastops.segment_sum(x, ids), expected)


def test_arrays_beyond_the_caches():
    # where rows are asked for ahead
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (50000, 64)).astype(np.float32)
    index = rng.integers(0, 50000, 60000)
    y = fastops.gather(x, index)
    assert_same_bits(y, x[index])
    expected = np.zeros_like(x)
    np.add.at(expected, index, y)
    assert_same_bits(fastops.segment_sum(y, index, 50000), expected)


def test_softmax_of_large_numbers_and_of_infinities():
    found = fastops.segment_softmax(np.array([1e4, 1e4, -np.inf, 3.0]), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(found, [0.5, 0.5, 0, 1])


def test_segments_promised_to_be_sorted():
    with pytest.raises(ValueError, match="segment_sum: segment_ids must never fall"):
        fastops.segment_sum(np.ones(3), np.array([0, 2, 1]), indices_are_sorted=True)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_every_axis(axis):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (3, 4, 5)).astype(np.float64)
    index = np.array([[2, 0], [1, 1]])
    y = fastops.gather(x, index, axis)
    assert_same_bits(y, np.take(x, index, axis))
    flat = index.ravel()
    slices = np.take(x, flat, axis)
    expected = np.zeros_like(x)
    np.add.at(np.moveaxis(expected, axis, 0), flat, np.moveaxis(slices, axis, 0))
    assert_same_bits(fastops.scatter(slices, flat, axis, x.shape[axis]), expected)
    assert_same_bits(fastops.gather_backward(y, x, index, axis), expected)


WRONG = [
    ("gather", {"input": np.ones(())}, ValueError, "input"),
    ("gather", {"index": np.array([3])}, ValueError, "index"),
    ("gather", {"index": np.array([-1])}, ValueError, "index"),
    ("gather", {"index": np.array([1.0])}, TypeError, "index"),
    ("gather", {"index": np.ma.array([1], mask=True)}, TypeError, "index"),
    ("gather", {"axis": 2}, ValueError, "axis"),
    ("gather", {"input": np.ones((3, 2), int)}, TypeError, "input"),
    ("scatter", {"index": np.array([0, 1])}, ValueError, "index"),
    ("scatter", {"index": np.array([0, 1, -2])}, ValueError, "index"),
    ("scatter", {"dim_size": 2}, ValueError, "index"),
    ("scatter", {"dim_size": -1}, ValueError, "dim_size"),
    ("scatter", {"dim_size": 2**62}, ValueError, "dim_size"),
    ("scatter", {"index": np.array([0, 1, 2**63 - 1])}, ValueError, "dim_size"),
    ("scatter", {"index": np.ma.array([0, 1, 2], mask=True)}, TypeError, "index"),
    ("scatter", {"dim": 2}, ValueError, "dim"),
    ("scatter", {"dim": 1}, ValueError, "index"),
    ("scatter", {"reduce": "prod"}, ValueError, "reduce"),
    ("segment_sum", {"segment_ids": np.array([0, 1])}, ValueError, "segment_ids"),
    ("segment_max", {"segment_ids": np.array([[0], [1], [2]])}, ValueError, "segment_ids"),
    ("segment_sum", {"segment_ids": np.ma.array([0, 1, 2], mask=True)}, TypeError, "segment_ids"),
    ("segment_sum", {"num_segments": 2**63}, ValueError, "num_segments"),
    ("segment_softmax", {"num_segments": 10**30}, ValueError, "num_segments"),
    ("segment_softmax", {"num_segments": 2}, ValueError, "segment_ids"),
    ("segment_mean", {"data": np.ones(())}, ValueError, "data"),
]
RIGHT = {
    "gather": {"input": np.ones((3, 2)), "index": np.array([0, 1])},
    "scatter": {"src": np.ones((3, 2)), "index": np.array([0, 1, 2])},
    "segment": {"data": np.ones((3, 2)), "segment_ids": np.array([0, 1, 2])},
}


@pytest.mark.parametrize(("op", "change", "error", "argument"), WRONG)
def test_wrong_arguments(op, change, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**{**RIGHT[op.partition("_")[0]], **change})
    assert re.match(rf"{op}: {argument} must\b", str(caught.value)), caught.value


PATH = np.array([[0, 1], [1, 2]])  # 0 -> 1 -> 2
ONE_NODE, NO_EDGES = np.array([[3.0, -1.0]]), np.zeros((2, 0), int)
W = np.array([[1.0, 2.0], [0.5, -1.0], [2.0, 0.0]])


def convolutions(x, edge_index):
    """Every graph convolution of these nodes, by name: the output and the gradient of the nodes."""
    ones = np.ones((len(x), 3))
    att = np.array([[0.5, -1, 2]])
    return {
        "gcn_conv": (fastops.gcn_conv(x, edge_index, W), fastops.gcn_conv_backward(ones, x, edge_index, W)[0]),
        "graph_sage_conv": (fastops.graph_sage_conv(x, edge_index, W, W), fastops.graph_sage_conv_backward(ones, x, edge_index, W, W)[0]),
        "gat_conv": (fastops.gat_conv(x, edge_index, W, att, att), fastops.gat_conv_backward(ones, x, edge_index, W, att, att)[0]),
    }


def test_one_node_without_edges():
    alone, gradient = ONE_NODE @ W.T, W.sum(axis=0, keepdims=True)
    for name, (y, dx) in convolutions(ONE_NODE, NO_EDGES).items():
        np.testing.assert_allclose(y, alone, rtol=1e-15, err_msg=name)
        np.testing.assert_allclose(dx, gradient, rtol=1e-15, err_msg=name)
    assert_same_bits(fastops.gin_aggregate(ONE_NODE, NO_EDGES, 1.0), 2 * ONE_NODE)


def test_no_nodes():
    for y, dx in convolutions(np.zeros((0, 2)), NO_EDGES).values():
        assert (y.shape, dx.shape) == ((0, 3), (0, 2))


def test_an_isolated_node_sees_itself_alone():
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    for name, (y, _) in convolutions(x, np.array([[0], [1]])).items():
        np.testing.assert_allclose(y[2], W @ x[2], rtol=1e-15, err_msg=name)
    y = fastops.gat_conv(x, PATH, W, np.ones((1, 3)), np.ones((1, 3)), np.array([7.0, 8, 9]), add_self_loops=False)
    np.testing.assert_array_equal(y[0], [7, 8, 9])
    assert (fastops.gcn_conv(x, PATH, W, add_self_loops=False)[0] == 0).all()


def test_the_order_of_edges_and_the_dtype_of_indices_do_not_matter():
    rng = np.random.default_rng(0)
    x, edge_index = rng.standard_normal((9, 2)), rng.integers(0, 9, (2, 30))
    expected = convolutions(x, edge_index)
    shuffled = convolutions(x, edge_index[:, rng.permutation(30)].astype(np.int32))
    constant = np.asfortranarray(edge_index.astype(np.uint8))
    constant.flags.writeable = False
    for name, (y, dx) in expected.items():
        np.testing.assert_allclose(shuffled[name][0], y, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(shuffled[name][1], dx, rtol=1e-12, err_msg=name)
        assert_same_bits(convolutions(x, constant)[name][0], y)


def test_self_loops_of_gcn_norm():
    # edge 1 and edge 3 are self-loops of node 1: the last one keeps its weight
    edge_index, weight = np.array([[0, 1, 2, 1], [1, 1, 1, 1]]), np.array([2.0, 3, 4, 5])
    found, norm = fastops.gcn_norm(edge_index, weight)
    np.testing.assert_array_equal(found, [[0, 2, 0, 1, 2], [1, 1, 0, 1, 2]])
    np.testing.assert_allclose(norm, [2 / 11**0.5, 4 / 11**0.5, 1, 5 / 11, 1], rtol=1e-15)
    gradient = fastops.gcn_norm_backward((None, np.ones(5)), edge_index, weight)
    assert gradient[1] == 0, "a self-loop that does not count"
    assert fastops.gcn_norm_backward((None, np.ones(5)), edge_index) is None
    assert fastops.gcn_norm(NO_EDGES, num_nodes=2)[1].dtype == np.float32


def test_nodes_without_degree_weigh_nothing():
    _, norm = fastops.gcn_norm(PATH, np.array([1.0, 0.0]), add_self_loops=False)
    assert_same_bits(norm, np.zeros(2))
    gradient = fastops.gcn_norm_backward((None, np.ones(2)), PATH, np.array([1.0, 0.0]), add_self_loops=False)
    assert np.isfinite(gradient).all()


def test_the_backward_pass_does_without_what_the_forward_pass_kept():
    rng = np.random.default_rng(0)
    x, edge_index, dy, b = rng.standard_normal((6, 2)), rng.integers(0, 6, (2, 15)), rng.standard_normal((6, 3)), np.zeros(3)
    weight, att = rng.uniform(0.5, 2, 15), rng.standard_normal((1, 3))
    for name, arguments in {
        "gcn_conv": (x, edge_index, W, b, weight),
        "graph_sage_conv": (x, edge_index, W, W, b, "max"),
        "gat_conv": (x, edge_index, W, att, att, b),
    }.items():
        op = _op.get(name)
        _, kept = op.record(*arguments)
        assert kept
        for with_it, without in zip(op.backward(dy, *arguments, **kept), op.backward(dy, *arguments)):
            if with_it is not None:
                assert_same_bits(with_it, without)


def test_gin_conv_is_its_network_of_the_aggregate():
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.testing.assert_allclose(fastops.gin_conv(x, PATH, lambda h: h @ W.T, 0.5), (1.5 * x + [[0, 0], x[0], x[1]]) @ W.T, rtol=1e-15)


def test_sparse_products_of_little():
    nothing = np.zeros(0, int)
    assert_same_bits(fastops.spmm([0, 0, 0], nothing, np.zeros(0), np.ones((3, 2))), np.zeros((2, 2)))
    for reduce in ("sum", "mean", "max", "min"):
        da, db = fastops.spmm_backward(np.ones((2, 2)), [0, 0, 0], nothing, np.zeros(0), np.ones((3, 2)), reduce)
        assert_same_bits(da, np.zeros(0))
        assert_same_bits(db, np.zeros((3, 2)))
    assert fastops.spmm([0], nothing, None, np.ones((3, 2))).shape == (0, 2)
    assert fastops.sddmm([0, 0], nothing, np.ones((1, 2)), np.ones((3, 2))).shape == (0,)


def test_ties_of_a_sparse_maximum_share_the_gradient():
    data, dense = np.array([2.0, 1.0, 4.0]), np.array([[2.0], [4.0], [1.0]])  # 4, 4, 4
    da, db = fastops.spmm_backward(np.array([[6.0]]), [0, 3], [0, 1, 2], data, dense, "max")
    np.testing.assert_array_equal(da, [4, 8, 2])
    np.testing.assert_array_equal(db[:, 0], [4, 2, 8])


SPMM = {"indptr": [0, 1, 2], "indices": [0, 1], "data": np.ones(2), "dense": np.ones((2, 3))}
CONV = {"x": np.ones((3, 2)), "edge_index": PATH, "weight": W}
SAGE = {"x": np.ones((3, 2)), "edge_index": PATH, "weight_neighbors": W, "weight_root": W}
GAT = {**CONV, "att_src": np.ones((1, 3)), "att_dst": np.ones((1, 3))}
WRONG_NETWORKS = [
    ("spmm", {**SPMM, "indptr": [0, 2, 1]}, ValueError, "indptr"),
    ("spmm", {**SPMM, "indptr": [1, 1, 2]}, ValueError, "indptr"),
    ("spmm", {**SPMM, "indptr": [0, 1, 3]}, ValueError, "indptr"),
    ("spmm", {**SPMM, "indptr": []}, ValueError, "indptr"),
    ("spmm", {**SPMM, "indices": [0, 2]}, ValueError, "indices"),
    ("spmm", {**SPMM, "data": np.ones(3)}, ValueError, "data"),
    ("spmm", {**SPMM, "dense": np.ones((2, 3), np.float32)}, TypeError, "dense"),
    ("spmm", {**SPMM, "dense": np.ones((2, 3, 1))}, ValueError, "dense"),
    ("spmm", {**SPMM, "dense": None}, TypeError, "dense"),
    ("spmm", {**SPMM, "data": None, "dense": None}, TypeError, "dense"),
    ("spmm", {**SPMM, "indptr": np.ma.array([0, 1, 2], mask=True)}, TypeError, "indptr"),
    ("spmm", {**SPMM, "indices": np.ma.array([0, 1], mask=True)}, TypeError, "indices"),
    ("spmm", {**SPMM, "reduce": "mul"}, ValueError, "reduce"),
    ("sddmm", {"indptr": [0, 1], "indices": [0], "a": np.ones((2, 3)), "b": np.ones((2, 3))}, ValueError, "indptr"),
    ("sddmm", {"indptr": [0, 1], "indices": [0], "a": np.ones((1, 3)), "b": np.ones((2, 2))}, ValueError, "b"),
    ("gcn_norm", {"edge_index": PATH[0]}, ValueError, "edge_index"),
    ("gcn_norm", {"edge_index": PATH, "num_nodes": 2}, ValueError, "edge_index"),
    ("gcn_norm", {"edge_index": PATH, "num_nodes": 2**62}, ValueError, "num_nodes"),
    ("gcn_norm", {"edge_index": PATH, "num_nodes": 2**63}, ValueError, "num_nodes"),
    ("gcn_norm", {"edge_index": np.ma.array(PATH, mask=True)}, TypeError, "edge_index"),
    ("gcn_norm", {"edge_index": PATH, "edge_weight": np.ones(3)}, ValueError, "edge_weight"),
    ("gcn_norm", {"edge_index": PATH, "dtype": int}, TypeError, "dtype"),
    ("gcn_norm", {"edge_index": PATH, "flow": "both"}, ValueError, "flow"),
    ("gcn_conv", {**CONV, "edge_index": PATH + 1}, ValueError, "edge_index"),
    ("gcn_conv", {**CONV, "x": np.ones(3)}, ValueError, "x"),
    *[("gcn_conv", {**CONV, name: None}, TypeError, name) for name in ("x", "weight")],
    ("gcn_conv", {**CONV, "weight": np.ones((3, 3))}, ValueError, "weight"),
    ("gcn_conv", {**CONV, "bias": np.ones(2)}, ValueError, "bias"),
    ("gcn_conv", {**CONV, "edge_weight": np.ones(3)}, ValueError, "edge_weight"),
    ("graph_sage_conv", {**SAGE, "weight_root": np.ones((2, 2))}, ValueError, "weight_root"),
    *[("graph_sage_conv", {**SAGE, name: None}, TypeError, name) for name in ("x", "weight_neighbors", "weight_root")],
    ("graph_sage_conv", {**SAGE, "aggr": "mul"}, ValueError, "aggr"),
    ("gat_conv", {**GAT, "heads": 2}, ValueError, "heads"),
    ("gat_conv", {**GAT, "att_dst": np.ones((3, 1))}, ValueError, "att_dst"),
    ("gat_conv", {**GAT, "concat": False, "bias": np.ones(1)}, ValueError, "bias"),
    *[("gat_conv", {**GAT, name: None}, TypeError, name) for name in ("x", "weight", "att_src", "att_dst")],
    *[("gat_conv", {**GAT, "negative_slope": slope}, TypeError, "negative_slope") for slope in ([], "x", None)],
    ("gat_conv_backward", {**GAT, "grad_output": None}, TypeError, "grad_output"),
    ("gin_aggregate", {"x": np.ones((3, 2)), "edge_index": PATH, "eps": "x"}, TypeError, "eps"),
    ("gin_aggregate", {"x": np.ones((3, 2)), "edge_index": PATH, "eps": np.ones(2)}, ValueError, "eps"),
]


@pytest.mark.parametrize(("op", "arguments", "error", "argument"), WRONG_NETWORKS)
def test_wrong_arguments_of_networks(op, arguments, error, argument):
    with pytest.raises(error) as caught:
        getattr(fastops, op)(**arguments)
    assert re.match(rf"{op}: {argument} must\b", str(caught.value)), caught.value


@pytest.mark.parametrize("heads", [1, 4])
def test_edges_dealt_out_to_many_threads(monkeypatch, heads):
    # more hands than this machine may have threads, and destinations that some of them lack
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 64)).astype(np.float32)
    to, source = rng.integers(0, 5, 300), rng.integers(0, 40, 300)
    weights = rng.standard_normal((300, heads)).astype(np.float32)
    expected = segments.scatter(segments.SUM, to, 5, x, source, weights)
    monkeypatch.setattr(segments, "threads_for", lambda nanoseconds: 7)
    assert_same_bits(segments.scatter(segments.SUM, to, 5, x, source, weights), expected)
    assert_same_bits(segments.scatter(segments.MAX, to, 5, x[source]), np.stack([x[source[to == d]].max(axis=0) for d in range(5)]))
