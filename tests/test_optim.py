"""Optimizers against float64 references written for reading; schedules, clipping, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastops
from fastops import optim

STEPS = 12


def reference(name, o, values, steps):
    """One parameter after each of some gradients (None: not used), in float64, by the formulas of the papers."""
    p = values.astype(np.float64)
    m, v, u, d = (np.zeros_like(p) for _ in range(4))
    v += o.get("initial_accumulator_value", 0.0)
    lr, decay, eps = o["lr"], o.get("weight_decay", 0.0), o.get("eps", 0.0)
    b1, b2 = o.get("betas", (0.0, 0.0))
    t, product = 0, 1.0
    for g in steps:
        if g is None:
            continue
        t += 1
        g = g.astype(np.float64) * (-1 if o.get("maximize") else 1)
        if name in ("adamw", "lion") or o.get("decoupled_weight_decay"):
            p = p * (1 - lr * decay)
        else:
            g = g + decay * p
        if name == "sgd":
            m = g if t == 1 else o["momentum"] * m + (1 - o["dampening"]) * g
            p = p - lr * (g + o["momentum"] * m if o["nesterov"] else m)
        elif name == "adagrad":
            v = v + g**2
            p = p - lr / (1 + (t - 1) * o["lr_decay"]) * g / (np.sqrt(v) + eps)
        elif name == "adadelta":
            v = o["rho"] * v + (1 - o["rho"]) * g**2
            step = np.sqrt(d + eps) / np.sqrt(v + eps) * g
            d = o["rho"] * d + (1 - o["rho"]) * step**2
            p = p - lr * step
        elif name == "rmsprop":
            v = o["alpha"] * v + (1 - o["alpha"]) * g**2
            u = o["alpha"] * u + (1 - o["alpha"]) * g
            m = o["momentum"] * m + g / (np.sqrt(v - u**2 if o["centered"] else v) + eps)
            p = p - lr * m
        elif name == "adamax":
            m = b1 * m + (1 - b1) * g
            u = np.maximum(b2 * u, abs(g) + eps)
            p = p - lr / (1 - b1**t) * m / u
        elif name == "lion":
            p = p - lr * np.sign(b1 * m + (1 - b1) * g)
            m = b2 * m + (1 - b2) * g
        else:
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            first, second = m / (1 - b1**t), v / (1 - b2**t)
            if name == "nadam":
                mu, ahead = (b1 * (1 - 0.5 * 0.96 ** (i * o["momentum_decay"])) for i in (t, t + 1))
                product *= mu
                first = ahead * m / (1 - product * ahead) + (1 - mu) * g / (1 - product)
            if o.get("amsgrad"):
                u = np.maximum(u, v)
                second = u / (1 - b2**t)
            if name == "radam":
                longest = 2 / (1 - b2) - 1
                length = longest - 2 * t * b2**t / (1 - b2**t)
                if length > 5:
                    rect = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
                    p = p - lr * rect * first * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps)
                else:
                    p = p - lr * first
            else:
                p = p - lr * first / (np.sqrt(second) + eps)
    return p


CASES = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
    "sgd without momentum": {"lr": 0.1, "weight_decay": 0.1, "maximize": True},
    "sgd with nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "adagrad": {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-4},
    "adadelta": {"lr": 0.7, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1},
    "rmsprop with momentum": {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "maximize": True},
    "rmsprop, centered": {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "centered": True},
    "rmsprop, centered, with momentum": {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.9},
    "adam": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "maximize": True},
    "adam with amsgrad": {"lr": 0.02, "betas": (0.8, 0.6), "eps": 1e-4, "amsgrad": True},
    "adamw": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.5},
    "nadam": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "momentum_decay": 0.1, "weight_decay": 0.1},
    "radam": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1, "decoupled_weight_decay": True},
    "adamax": {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    "lion": {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1},
}  # fmt: skip


def made(case, **more):
    name = case.replace(",", " ").split()[0]
    return name, getattr(optim, name)(**CASES[case], **more)


def drawn(shapes, seed=0, dtype="f4"):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


SHAPES = {"w": (5, 7), "b": (3,), "scale": (), "empty": (0, 2)}


# float16 goes through float32: one case each way
HALVES = [("adam", True, "f2"), ("sgd", False, "f2")]


@pytest.mark.parametrize("case, inplace, dtype", [*itertools.product(CASES, (False, True), ("f4", "f8")), *HALVES])
def test_steps(case, inplace, dtype):
    name, opt = made(case)
    start = drawn(SHAPES, dtype=dtype)
    params, given = {key: value.copy() for key, value in start.items()}, []
    state = opt.init(params)
    for step in range(STEPS):
        grads = drawn(SHAPES, step + 1, dtype)
        if step in (0, 4):
            grads["b"] = None
        given.append(grads)
        before = {key: value.copy() for key, value in params.items()}
        new, after = opt.update(params, grads, state, inplace=inplace)
        if inplace:
            assert all(new[key] is params[key] for key in SHAPES)
        else:
            assert state["step"] == step
            for key in SHAPES:
                np.testing.assert_array_equal(params[key], before[key])
        params, state = new, after
    defaults = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "centered": False, **opt.options}
    error = {"f4": 2e-5, "f8": 1e-11, "f2": 3e-2}[dtype]
    for key in SHAPES:
        wanted = reference(name, defaults, start[key], [grads[key] for grads in given])
        np.testing.assert_allclose(params[key].astype("f8"), wanted, rtol=error, atol=error)
        assert params[key].dtype == np.dtype(dtype)
    assert state["step"] == STEPS
    assert state["steps"].tolist() == [STEPS, STEPS - 2, STEPS, STEPS]


@pytest.mark.parametrize("case", ["sgd", "adam with amsgrad", "rmsprop, centered, with momentum", "lion"])
def test_threads_do_not_change_a_bit(case):
    results = []
    for threads in sorted({1, fastops.get_num_threads()}):
        fastops.set_num_threads(threads)
        for inplace in (False, True):
            _, opt = made(case)
            params = drawn({"w": (300, 401), "b": (17,)})
            state = opt.init(params)
            for step in range(3):
                params, state = opt.update(params, drawn({"w": (300, 401), "b": (17,)}, step + 1), state, inplace=inplace)
            results.append(params)
    for other in results[1:]:
        for key in other:
            np.testing.assert_array_equal(other[key], results[0][key])


def test_any_tree_and_any_layout():
    opt = optim.adam(lr=0.1)
    wide = np.arange(12.0).reshape(3, 4)
    params = [{"w": wide.T, "none": None}, (np.ones(2), 0.5)]
    state = opt.init(params)
    grads = [{"w": wide.T[::-1], "none": None}, (None, 1.0)]
    new, after = opt.update(params, grads, state)
    np.testing.assert_allclose(new[0]["w"], wide.T - 0.1 * np.sign(wide.T[::-1]), atol=1e-6)
    assert new[1][0] is params[1][0]
    assert new[1][1] == pytest.approx(0.4)
    assert after["steps"].tolist() == [1, 0, 1]
    view = np.zeros((4, 6))[:, ::2]
    placed, _ = opt.update([view], [np.ones((4, 3))], opt.init([view]), inplace=True)
    assert placed[0] is view
    np.testing.assert_allclose(view, -0.1)
    read_only = np.ones(2)
    read_only.flags.writeable = False
    assert opt.update([read_only], [read_only], opt.init([read_only]))[0][0][0] == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"adam: params\[0\] must be writeable"):
        opt.update([read_only], [read_only], opt.init([read_only]), inplace=True)


def test_nothing_is_nan_that_need_not_be():
    opt = optim.sgd(lr=0.1)
    params, _ = opt.update([np.array([np.inf, np.nan, 1.0])], [np.array([1.0, 1.0, np.nan])], opt.init([np.ones(3)]))
    np.testing.assert_array_equal(params[0], [np.inf, np.nan, np.nan])


def test_a_schedule_and_a_learning_rate_for_one_step():
    opt = optim.sgd(lr=optim.step_decay(1.0, 1, 0.5))
    params, state = [np.zeros(1)], None
    state = opt.init(params)
    found = []
    for lr in (None, None, 3.0, None):
        params, state = opt.update(params, [np.ones(1)], state, lr=lr)
        found.append(-params[0][0])
    assert found == [1.0, 1.5, 4.5, 4.625]


def test_the_state_survives_a_file(tmp_path):
    """Trees of arrays and numbers, nothing else."""
    opt = optim.adam()
    params = {"w": np.ones((2, 3), np.float32)}
    params, state = opt.update(params, params, opt.init(params))
    np.savez(tmp_path / "state.npz", steps=state["steps"], m=state["exp_avg"]["w"], v=state["exp_avg_sq"]["w"])
    with np.load(tmp_path / "state.npz") as file:
        loaded = {"step": 1, "steps": file["steps"], "exp_avg": {"w": file["m"]}, "exp_avg_sq": {"w": file["v"]}}
    first, second = (opt.update(params, params, s)[0]["w"] for s in (state, loaded))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (4, 4)])
def test_muon(shape):
    o = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.8, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}
    opt = optim.muon(**o)
    p = drawn({"w": shape}, dtype="f8")["w"]
    params, state, m = {"w": p.astype("f4")}, opt.init({"w": p.astype("f4")}), np.zeros(shape)
    for step in range(4):
        g = drawn({"w": shape}, step + 1, "f8")["w"]
        params, state = opt.update(params, {"w": g.astype("f4")}, state, inplace=step % 2 == 1)
        m = 0.8 * m + 0.2 * g
        u, s, vt = np.linalg.svd(0.2 * g + 0.8 * m, full_matrices=False)
        s /= np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        p = p * (1 - 0.1 * 0.2) - 0.1 * 0.2 * np.sqrt(max(shape)) * (u * s) @ vt
        np.testing.assert_allclose(params["w"], p, atol=2e-5)
    with pytest.raises(ValueError, match=r"muon: params\['b'\] must be a matrix"):
        opt.init({"b": np.ones(3)})


class TestClipping:
    def test_norm(self):
        grads = {"a": np.full((200, 300), 3.0), "b": [np.full(4, 4.0, np.float32), None]}
        norm = np.sqrt(9 * 60000 + 64)
        clipped, found = optim.clip_grad_norm(grads, 2.0)
        assert found == pytest.approx(norm, rel=1e-9)
        np.testing.assert_allclose(clipped["b"][0], 4 * 2 / norm, rtol=1e-6)
        assert grads["b"][0][0] == 4
        same, found = optim.clip_grad_norm(grads, 1e9)
        assert same is grads
        assert optim.clip_grad_norm(grads, 2.0, inplace=True)[0]["a"] is grads["a"]
        assert grads["a"][0, 0] == pytest.approx(3 * 2 / norm)

    def test_what_is_not_finite(self):
        grads = [np.array([np.nan, 1.0])]
        assert np.isnan(optim.clip_grad_norm(grads, 1.0)[0][0]).all()
        with pytest.raises(ValueError, match="finite norm"):
            optim.clip_grad_norm(grads, 1.0, error_if_nonfinite=True)
        np.testing.assert_array_equal(optim.clip_grad_value([np.array([np.nan, np.inf, -0.5])], 1.0)[0], [np.nan, 1.0, -0.5])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: optim.sgd(lr=-1), "sgd: lr must be at least 0, got -1"),
        (lambda: optim.sgd(nesterov=True), "sgd: nesterov must be False"),
        (lambda: optim.sgd(momentum=-0.1), "sgd: momentum must be at least 0"),
        (lambda: optim.adam(betas=(1.0, 0.9)), r"adam: betas\[0\] must be from 0 to below 1"),
        (lambda: optim.adam(betas=0.9), "adam: betas must be two numbers"),
        (lambda: optim.adamw(eps=float("nan")), "adamw: eps must be at least 0"),
        (lambda: optim.adadelta(rho=1.5), "adadelta: rho must be from 0 to 1"),
        (lambda: optim.lion(weight_decay="0"), "lion: weight_decay must be a real number"),
        (lambda: optim.muon(adjust_lr_fn="none"), "muon: adjust_lr_fn must be one of"),
        (lambda: optim.muon(ns_steps=100), "muon: ns_steps must be below 100"),
        (lambda: optim.adam().init([np.ones(2, int)]), r"adam: params\[0\] must be an array of float16, float32 or float64, got int64"),
        (lambda: optim.adam().init(["w"]), r"adam: params\[0\] must be an array of float16"),
        (lambda: step([np.ones(2)], [np.ones(3)]), r"sgd: grads\[0\] must have the shape of params\[0\], \(2,\), got \(3,\)"),
        (lambda: step([np.ones(2)], [np.ones(2, "f4")]), r"sgd: grads\[0\] must have the dtype of params\[0\], float64, got float32"),
        (lambda: step({"w": np.ones(2)}, {"v": np.ones(2)}), "sgd: grads must be a dict with the keys 'w'"),
        (lambda: step([np.ones(2)], []), "sgd: grads must have 1 entries, got 0"),
        (lambda: step([0.5], [0.5], inplace=True), r"sgd: params\[0\] must be a NumPy array where inplace is True"),
        (lambda: optim.sgd(momentum=0.9).update([np.ones(2)], [np.ones(2)], {"step": 0}), "sgd: state must be one that init or update returned"),
        (lambda: optim.sgd().update([np.ones(2)], [np.ones(2)], {"step": 0, "steps": np.zeros(2, int)}), r"sgd: state\['steps'\] must have shape \(1,\)"),
        (
            lambda: optim.sgd(momentum=0.9).update([np.ones(2)], [np.ones(2)], {"step": 0, "steps": [0], "momentum_buffer": [np.ones(3)]}),
            r"sgd: state\['momentum_buffer'\]\[0\] must be an array of shape \(2,\), float64",
        ),
        (lambda: optim.cosine(0.1, 0), "cosine: total_steps must be at least 1"),
        (lambda: optim.one_cycle(0.1, 10, anneal_strategy="exp"), "one_cycle: anneal_strategy must be one of 'cos', 'linear'"),
        (lambda: optim.sequential([optim.constant(1.0)], [3]), "sequential: milestones must be one fewer than schedules"),
        (lambda: optim.clip_grad_norm([np.ones(2, int)], 1.0), r"clip_grad_norm: grads\[0\] must have dtype"),
        (lambda: optim.clip_grad_norm([np.ones(2)], -1.0), "clip_grad_norm: max_norm must be at least 0, got -1.0"),
        (lambda: optim.clip_grad_norm([np.ones(2)], 1.0, float("nan")), "clip_grad_norm: norm_type must be a number, got nan"),
        (lambda: optim.clip_grad_value([np.ones(2)], -1.0), "clip_grad_value: clip_value must be at least 0, got -1.0"),
        (lambda: optim.one_cycle(0.1, 10, div_factor=0), "one_cycle: div_factor must be above 0, got 0"),
        (lambda: optim.one_cycle(0.1, 10, final_div_factor=-2.0), "one_cycle: final_div_factor must be above 0, got -2.0"),
        (lambda: optim.sequential(optim.constant(1.0), []), "sequential: schedules must be a list or tuple, got function"),
        (lambda: optim.sequential([0.1, 0.2], [3]), r"sequential: schedules\[0\] must be a schedule, got 0.1"),
        (lambda: optim.sequential([optim.constant(1.0)] * 2, 3), "sequential: milestones must be a list or tuple, got int"),
        (lambda: step([np.ones(2)], [np.ones(2)], lr=-1.0), "sgd: lr must be at least 0, got -1.0"),
        (lambda: optim.sgd(lr=lambda step: -0.5).lr(3), r"sgd: lr\(3\) must be at least 0, got -0.5"),
        (lambda: optim.sgd(lr=lambda step: None).lr(3), r"sgd: lr\(3\) must be a real number, got None"),
        (lambda: optim.sgd().update([np.ones(2)], [np.ones(2)], None), "sgd: state must be one that init or update returned, got NoneType"),
        (lambda: optim.sgd().update([np.ones(2)], [np.ones(2)], {"step": -1, "steps": [0]}), r"sgd: state\['step'\] must be at least 0, got -1"),
    ],
)  # fmt: skip
def test_bad_arguments(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def step(params, grads, **options):
    opt = optim.sgd(lr=0.1)
    return opt.update(params, grads, opt.init(params), **options)


def test_no_parameters_at_all():
    opt = optim.adam()
    params, state = opt.update({}, {}, opt.init({}))
    assert params == {}
    assert state["steps"].dtype == np.int64


def test_nothing_is_changed_when_something_is_refused():
    opt = optim.sgd(lr=0.1)
    params = {"a": np.ones(2), "b": np.ones(2)}
    with pytest.raises(ValueError):
        opt.update(params, {"a": np.ones(2), "b": np.ones(3)}, opt.init(params), inplace=True)
    np.testing.assert_array_equal(params["a"], 1.0)
