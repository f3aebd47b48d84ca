"""The optimizers beside ``torch.optim``: twenty steps with every option, in float32 and float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastops import optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

SHAPES = {"a": (33, 5), "b": (7,), "c": (3, 2, 3, 3), "d": ()}

OTHER = {"lr": 0.01, "eps": 1e-4, "weight_decay": 0.1}
BETAS = {"betas": (0.8, 0.9)}
DECOUPLED = {"decoupled_weight_decay": True, "weight_decay": 0.1, "lr": 0.1}
UP = {"maximize": True}

OPTIONS: list[tuple[str, dict]] = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 0.1, "weight_decay": 0.1}),
    ("sgd", {"lr": 0.1, "momentum": 0.9}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("sgd", {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, **UP}),
    ("adagrad", {}),
    ("adagrad", {**OTHER, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("adagrad", UP),
    ("adadelta", {}),
    ("adadelta", {**OTHER, "rho": 0.7}),
    ("adadelta", UP),
    *(("rmsprop", {**base, "centered": c, "momentum": m}) for c in (False, True) for m in (0.0, 0.9) for base in ({}, {**OTHER, "alpha": 0.9, **UP})),
    *((name, {**base, "amsgrad": a}) for name in ("adam", "adamw") for a in (False, True) for base in ({}, {**OTHER, **BETAS, **UP})),
    ("adam", DECOUPLED),
    *(("nadam", base) for base in ({}, {**OTHER, **BETAS, "momentum_decay": 0.1}, DECOUPLED, UP)),
    *(("radam", base) for base in ({}, {**OTHER, **BETAS}, DECOUPLED, UP)),
    *(("adamax", base) for base in ({}, {**OTHER, **BETAS, **UP})),
]

THEIRS = {"sgd": "SGD", "rmsprop": "RMSprop", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam", "muon": "Muon"}


def theirs(name, options, tensors):
    return getattr(torch.optim, THEIRS.get(name, name.capitalize()))(tensors, **options)


# A step divides by a root: the error of a parameter is that of a few roundings of the largest number on the way. torch keeps
# one of nadam's coefficients in float32.
TOLERANCES = {"float32": {"rtol": 2e-5, "atol": 5e-6}, "float64": {"rtol": 1e-11, "atol": 1e-12}, "nadam": {"rtol": 1e-6, "atol": 1e-7}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, options", OPTIONS, ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_twenty_steps(name, options, dtype, inplace):
    rng = np.random.default_rng(0)
    params = {key: rng.standard_normal(shape).astype(dtype) for key, shape in SHAPES.items()}
    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in params.items()}
    opt, other = getattr(optim, name)(**options), theirs(name, options, list(tensors.values()))
    state = opt.init(params)
    for step in range(20):
        grads = {key: rng.standard_normal(shape).astype(dtype) for key, shape in SHAPES.items()}
        if step % 3 == 1:
            grads["b"] = None  # a parameter that was not used: its own count of steps stands still
        for key, grad in grads.items():
            tensors[key].grad = None if grad is None else torch.tensor(grad)
        params, state = opt.update(params, grads, state, inplace=inplace)
        other.step()
        tolerance = TOLERANCES[name if name == "nadam" and dtype == "float64" else dtype]
        for key in params:
            np.testing.assert_allclose(params[key], tensors[key].detach(), **tolerance)
            assert params[key].dtype == np.dtype(dtype)
    saved = other.state[tensors["a"]]
    common = state.keys() & saved.keys() - {"step"}
    assert len(common) == sum(value is not None and value.ndim > 0 for value in saved.values() if value is not None)
    for key in common:
        np.testing.assert_allclose(state[key]["a"], saved[key], **tolerance)


@pytest.mark.parametrize("options", [{}, {"lr": 0.1, "nesterov": False, "weight_decay": 0.5, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.5}])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muon(options, shape):
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal(shape).astype("f4")}
    tensor = torch.tensor(params["w"], requires_grad=True)
    opt, other = optim.muon(**options), theirs("muon", options, [tensor])
    state = opt.init(params)
    for _ in range(5):
        before = params["w"]
        grad = rng.standard_normal(shape).astype("f4")
        tensor.data, tensor.grad = torch.tensor(before), torch.tensor(grad)
        params, state = opt.update(params, {"w": grad}, state)
        other.step()
        ours, theirs_step = params["w"] - before, tensor.detach().numpy() - before
        assert np.abs(ours - theirs_step).max() < 0.03 * np.abs(ours).max()  # torch iterates in bfloat16
        np.testing.assert_allclose(state["momentum_buffer"]["w"], other.state[tensor]["momentum_buffer"], rtol=1e-5, atol=1e-6)


SCHEDULERS = [
    (lambda: optim.step_decay(0.5, 7, 0.3), lambda o, s: s.StepLR(o, 7, 0.3)),
    (lambda: optim.cosine(0.5, 40, 0.01), lambda o, s: s.CosineAnnealingLR(o, 40, 0.01)),
    (lambda: optim.linear_warmup(0.5), lambda o, s: s.LinearLR(o)),
    (lambda: optim.linear_warmup(0.5, 9, 0.1), lambda o, s: s.LinearLR(o, 0.1, total_iters=9)),
    *(
        (
            lambda a=a, three=three: optim.one_cycle(0.5, 40, 0.25, a, three_phase=three),
            lambda o, s, a=a, three=three: s.OneCycleLR(o, 0.5, 40, pct_start=0.25, anneal_strategy=a, three_phase=three, cycle_momentum=False),
        )
        for a in ("cos", "linear")
        for three in (False, True)
    ),
    (
        lambda: optim.sequential([optim.linear_warmup(0.5, 5, 0.1), optim.cosine(0.5, 35)], [5]),
        lambda o, s: s.SequentialLR(o, [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingLR(o, 35)], [5]),
    ),
]


@pytest.mark.parametrize("ours, theirs", SCHEDULERS)
def test_schedules(ours, theirs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule, scheduler = ours(), theirs(optimizer, torch.optim.lr_scheduler)
    for step in range(40):
        assert schedule(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9, abs=1e-12)
        if step < 39:
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping(order, limit):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape).astype("f4") for shape in ((300, 400), (7,))]
    tensors = [torch.zeros(g.shape) for g in grads]
    for tensor, grad in zip(tensors, grads):
        tensor.grad = torch.tensor(grad)
    clipped, norm = optim.clip_grad_norm(grads, limit, order)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(tensors, limit, order)), rel=1e-4)  # its float32 sum of cubes is off by 2e-5
    for ours, tensor in zip(clipped, tensors):
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-4)
    torch.nn.utils.clip_grad_value_(tensors, 0.1)
    for ours, tensor in zip(optim.clip_grad_value(clipped, 0.1), tensors):
        np.testing.assert_allclose(ours, tensor.grad, rtol=1e-4)
