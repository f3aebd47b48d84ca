"""A small call of every operation beyond convolution, family by family: what ``precompile`` compiles by making them.

Kernels take flat arrays and are the same machine code for any rank and number of threads, so that one call reaches most of
what an operation runs; a size is larger where a kernel of its own begins there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Draw = Callable[..., Array]
Call = tuple[str, Callable[[Draw], dict[str, Any]]]


def _ints(below: int, *shape: int) -> Array:
    return np.random.default_rng(1).integers(0, below, shape)


def _image(**options: Any) -> Callable[[Draw], dict[str, Any]]:
    return lambda r: {"input": r(2, 4, 20, 36), **options}


def _signal(**options: Any) -> Callable[[Draw], dict[str, Any]]:
    return lambda r: {"input": r(2, 4, 40), **options}


def _volume(**options: Any) -> Callable[[Draw], dict[str, Any]]:
    return lambda r: {"input": r(2, 4, 6, 8, 20), **options}


def _pair(*names: str, **options: Any) -> Callable[[Draw], dict[str, Any]]:
    return lambda r: {**{name: r(24, 40) for name in names}, **options}


_MAPS = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "softsign", "hardtanh",
    "hardsigmoid", "hardswish", "hardshrink", "softshrink", "tanhshrink", "logsigmoid", "glu",
)  # fmt: skip

_EDGES = np.array([[0, 1, 2, 3, 3], [1, 2, 3, 0, 3]])
_BOXES = np.array([[0.0, 1.0, 1.0, 9.0, 9.0], [1.0, 2.0, 3.0, 12.0, 8.0]])


def _recurrent(gates: int, states: int, **options: Any) -> Callable[[Draw], dict[str, Any]]:
    def make(r: Draw) -> dict[str, Any]:
        state = r(1, 4, 32)
        weights = [r(gates * 32, 16), r(gates * 32, 32), r(gates * 32), r(gates * 32)]
        return {"input": r(5, 4, 16), "hx": (state, state) if states == 2 else state, "weights": weights, **options}

    return make


def _cell(gates: int, states: int) -> Callable[[Draw], dict[str, Any]]:
    def make(r: Draw) -> dict[str, Any]:
        state = r(4, 32)
        hx = (state, state) if states == 2 else state
        return {"input": r(4, 16), "hx": hx, "w_ih": r(gates * 32, 16), "w_hh": r(gates * 32, 32), "b_ih": r(gates * 32), "b_hh": r(gates * 32)}

    return make


def _boxes(**options: Any) -> Callable[[Draw], dict[str, Any]]:
    return lambda r: {"input": r(2, 8, 16, 16), "boxes": _BOXES.astype(r(1).dtype), "output_size": 2, **options}


CALLS: dict[str, tuple[Call, ...]] = {
    "activation": (
        *((name, _pair("input")) for name in _MAPS),
        ("gelu", _pair("input", approximate="tanh")),
        ("threshold", _pair("input", threshold=0.1, value=0.0)),
        ("prelu", lambda r: {"input": r(2, 4, 40), "weight": r(4)}),
        ("glu", lambda r: {"input": r(24, 6)}),
        ("rrelu", _pair("input", training=True, rng=0)),
    ),
    "softmax": tuple((name, lambda r, dim=dim: {"input": r(24, 40), "dim": dim}) for name in ("softmax", "log_softmax", "softmin") for dim in (0, 1))
    + (("softmax", lambda r: {"input": r(24, 6), "dim": 1}), ("gumbel_softmax", _pair("logits", rng=0)),),
    "dropout": (
        ("dropout", _pair("input", rng=0)),
        ("dropout2d", _image(rng=0)),
        ("alpha_dropout", _pair("input", training=True, rng=0)),
        ("feature_alpha_dropout", _image(training=True, rng=0)),
        ("drop_connect", _pair("weight", rng=0)),
        ("drop_block2d", _image(p=0.1, block_size=3, rng=0)),
        ("drop_block3d", _volume(p=0.1, block_size=3, rng=0)),
        ("stochastic_depth", _image(p=0.2, mode="row", rng=0)),
    ),
    "pool": (
        *(("max_pool2d", _image(kernel_size=k, stride=s, padding=k // 2)) for k, s in ((2, 2), (3, 2), (3, 1))),
        *(("avg_pool2d", _image(kernel_size=k, stride=s, padding=k // 2)) for k, s in ((2, 2), (3, 2), (3, 1))),
        ("max_pool2d_with_indices", _image(kernel_size=2)),
        ("max_pool1d", _signal(kernel_size=2)),
        ("max_pool3d", _volume(kernel_size=2)),
        ("avg_pool1d", _signal(kernel_size=2)),
        ("avg_pool3d", _volume(kernel_size=2)),
        *(("adaptive_avg_pool2d", _image(output_size=size)) for size in (1, 7)),
        *(("adaptive_max_pool2d", _image(output_size=size)) for size in (1, 7)),
        ("lp_pool2d", _image(norm_type=2.0, kernel_size=2)),
        ("max_unpool2d", lambda r: {"input": r(1, 2, 2, 2), "indices": np.tile([[0, 3], [9, 15]], (1, 2, 1, 1)), "kernel_size": 2}),
        ("fractional_max_pool2d", _image(kernel_size=2, output_size=8, rng=0)),
        ("pool2d", lambda r: {"input": r(20, 36), "pool_size": 2}),
    ),
    "norm": (
        *(
            (
                "batch_norm",
                lambda r, t=t: {
                    "input": r(4, 8, 6, 10), "running_mean": r(8), "running_var": r(8) ** 2, "weight": r(8), "bias": r(8), "training": t,
                },
            )
            for t in (False, True)
        ),
        ("batch_norm", lambda r: {"input": r(24, 40), "running_mean": None, "running_var": None, "weight": r(40), "bias": r(40), "training": True}),
        ("layer_norm", lambda r: {"input": r(4, 6, 40), "normalized_shape": (40,), "weight": r(40), "bias": r(40)}),
        ("group_norm", lambda r: {"input": r(4, 8, 6, 10), "num_groups": 2, "weight": r(8), "bias": r(8)}),
        ("instance_norm", _image()),
        ("rms_norm", lambda r: {"input": r(4, 6, 40), "normalized_shape": (40,), "weight": r(40)}),
        ("local_response_norm", _image(size=3)),
        *(("normalize", _pair("input", dim=dim)) for dim in (0, 1)),
        ("normalize", lambda r: {"input": r(24, 6)}),
    ),
    "linear": (
        *(("linear", lambda r, n=n: {"input": r(n, 64), "weight": r(96, 64), "bias": r(96)}) for n in (1, 4, 128)),
        ("bilinear", lambda r: {"input1": r(8, 24), "input2": r(8, 40), "weight": r(16, 24, 40), "bias": r(16)}),
        *(("matmul", lambda r, n=n: {"input": r(n, n), "other": r(n, n)}) for n in (32, 160)),
        ("matmul", lambda r: {"input": r(4, 24, 40), "other": r(4, 40, 24)}),
        ("matmul", lambda r: {"input": r(24, 40), "other": r(40)}),
        ("addmm", lambda r: {"input": r(40), "mat1": r(24, 24), "mat2": r(24, 40)}),
        ("baddbmm", lambda r: {"input": r(4, 24, 40), "batch1": r(4, 24, 24), "batch2": r(4, 24, 40)}),
    ),
    "resize": (
        *(("interpolate", _image(scale_factor=2.0, mode=mode)) for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")),
        ("interpolate", _image(size=(9, 20), mode="bilinear", antialias=True)),
        ("interpolate", _signal(scale_factor=2.0, mode="linear")),
        ("interpolate", _volume(scale_factor=2.0, mode="trilinear")),
        *(
            ("grid_sample", lambda r, m=m, p=p: {"input": r(2, 4, 9, 9), "grid": np.tanh(r(2, 5, 20, 2)), "mode": m, "padding_mode": p, "align_corners": False})
            for m in ("bilinear", "nearest", "bicubic")
            for p in ("zeros", "border", "reflection")
        ),
        ("affine_grid", lambda r: {"theta": r(2, 2, 3), "size": (2, 3, 8, 20), "align_corners": False}),
        ("pixel_shuffle", lambda r: {"input": r(2, 8, 9, 20), "upscale_factor": 2}),
        ("pixel_unshuffle", _image(downscale_factor=2)),
        ("channel_shuffle", _image(groups=2)),
    ),
    "layout": (
        *(("pad", _image(pad=(1, 2, 1, 2), mode=mode)) for mode in ("constant", "reflect", "replicate", "circular")),
        ("one_hot", lambda r: {"tensor": _ints(5, 24), "num_classes": 5}),
    ),
    "loss": (
        *(("cross_entropy", lambda r, s=s: {"input": r(24, 40), "target": _ints(40, 24), "label_smoothing": s}) for s in (0.0, 0.1)),
        ("cross_entropy", lambda r: {"input": r(2, 5, 9, 20), "target": _ints(5, 2, 9, 20)}),
        ("cross_entropy", _pair("input", "target")),
        ("nll_loss", lambda r: {"input": r(24, 40), "target": _ints(40, 24)}),
        ("binary_cross_entropy", lambda r: {"input": np.abs(np.tanh(r(24, 40))), "target": np.abs(np.tanh(r(24, 40)))}),
        *((name, _pair("input", "target")) for name in ("binary_cross_entropy_with_logits", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div")),
        ("mse_loss", _pair("input", "target", reduction="none")),
        *((name, _pair("input", "target")) for name in ("poisson_nll_loss", "hinge_embedding_loss", "soft_margin_loss", "multilabel_soft_margin_loss")),
        ("gaussian_nll_loss", lambda r: {"input": r(24, 40), "target": r(24, 40), "var": r(24, 40) ** 2}),
        ("cosine_embedding_loss", lambda r: {"input1": r(24, 40), "input2": r(24, 40), "target": np.sign(r(24))}),
        ("margin_ranking_loss", lambda r: {"input1": r(24), "input2": r(24), "target": np.sign(r(24))}),
        ("multi_margin_loss", lambda r: {"input": r(24, 40), "target": _ints(40, 24)}),
        ("multilabel_margin_loss", lambda r: {"input": r(4, 5), "target": np.tile([1, 2, -1, 0, 0], (4, 1))}),
        ("triplet_margin_loss", _pair("anchor", "positive", "negative")),
        (
            "ctc_loss",
            lambda r: {
                "log_probs": -np.abs(r(6, 2, 5)), "targets": _ints(4, 2, 2) + 1, "input_lengths": np.array([6, 5]), "target_lengths": np.array([2, 1]),
            },
        ),
        ("cosine_similarity", _pair("x1", "x2")),
        ("pairwise_distance", _pair("x1", "x2")),
        ("pdist", _pair("input")),
        *(("cdist", lambda r, p=p: {"x1": r(24, 40), "x2": r(30, 40), "p": p}) for p in (1.0, 2.0)),
    ),
    "embedding": (
        ("embedding", lambda r: {"input": _ints(30, 4, 5), "weight": r(30, 40)}),
        *(("embedding_bag", lambda r, m=m: {"input": _ints(30, 4, 5), "weight": r(30, 40), "mode": m}) for m in ("sum", "mean", "max")),
    ),
    "recurrent": (
        ("lstm", _recurrent(4, 2)),
        ("gru", _recurrent(3, 1)),
        *(("rnn", _recurrent(1, 1, nonlinearity=kind)) for kind in ("tanh", "relu")),
        ("lstm_cell", _cell(4, 2)),
        ("gru_cell", _cell(3, 1)),
        ("rnn_cell", _cell(1, 1)),
    ),
    "attention": (
        *(("scaled_dot_product_attention", lambda r, c=c: {**{n: r(2, 2, 72, 32) for n in ("query", "key", "value")}, "is_causal": c}) for c in (False, True)),
        (
            "scaled_dot_product_attention",
            lambda r: {**{n: r(2, 2, 72, 32) for n in ("query", "key", "value")}, "attn_mask": _ints(2, 72, 72) > 0},
        ),
        ("rotary_embedding", lambda r: {"input": r(2, 2, 24, 32), "cos": r(24, 16), "sin": r(24, 16)}),
    ),
    "roi": (
        ("roi_align", _boxes(sampling_ratio=2)),
        ("roi_align", _boxes(aligned=True)),
        ("roi_pool", _boxes()),
        ("ps_roi_align", _boxes(sampling_ratio=2)),
        ("ps_roi_pool", _boxes()),
        ("deform_conv2d", lambda r: {"input": r(1, 8, 9, 9), "offset": r(1, 18, 9, 9), "weight": r(8, 8, 3, 3), "padding": 1, "mask": r(1, 9, 9, 9)}),
        ("nms", lambda r: {"boxes": _BOXES[:, 1:].astype(r(1).dtype), "scores": r(2), "iou_threshold": 0.5}),
        ("box_iou", lambda r: {"boxes1": _BOXES[:, 1:].astype(r(1).dtype), "boxes2": _BOXES[:, 1:].astype(r(1).dtype)}),
    ),
    "graph": (
        ("gather", lambda r: {"input": r(24, 40), "index": _ints(24, 60)}),
        *(("scatter", lambda r, m=m: {"src": r(60, 40), "index": _ints(24, 60), "reduce": m}) for m in ("sum", "mean", "max", "min", "mul")),
        ("segment_softmax", lambda r: {"data": r(60, 4), "segment_ids": np.sort(_ints(24, 60))}),
        ("spmm", lambda r: {"indptr": np.array([0, 2, 3]), "indices": np.array([0, 2, 1]), "data": r(3), "dense": r(3, 40)}),
        ("sddmm", lambda r: {"indptr": np.array([0, 2, 3]), "indices": np.array([0, 2, 1]), "a": r(2, 40), "b": r(3, 40)}),
        ("gcn_conv", lambda r: {"x": r(4, 40), "edge_index": _EDGES, "weight": r(24, 40), "bias": r(24)}),
        ("graph_sage_conv", lambda r: {"x": r(4, 40), "edge_index": _EDGES, "weight_neighbors": r(24, 40), "weight_root": r(24, 40)}),
        (
            "gat_conv",
            lambda r: {"x": r(4, 40), "edge_index": _EDGES, "weight": r(48, 40), "att_src": r(1, 2, 24), "att_dst": r(1, 2, 24), "heads": 2},
        ),
    ),
}  # fmt: skip


def run(op: str, make: Callable[[Draw], dict[str, Any]], dtype: str) -> None:
    """One call forward, and backward where there is a gradient."""
    import fastops
    from fastops import _op

    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    arguments = make(draw)
    record = _op.get(getattr(fastops, op))
    output, kept = record.record(**arguments) if record.record else (record.forward(**arguments), {})
    if record.backward is not None:
        record.backward(_like(output), **{**arguments, **kept})


def _like(output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(map(_like, output))
    return np.ones_like(output) if output.dtype.kind == "f" else None
