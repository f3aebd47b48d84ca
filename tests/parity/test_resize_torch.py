"""PyTorch as a second opinion on padding, interpolation and sampling: outputs and gradients over random options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fastops

pytestmark = pytest.mark.torch

F = torch.nn.functional
torch.set_num_threads(1)  # its threads wait by spinning, which ruins a machine that runs other tests as well

MODES = {
    1: ["nearest", "nearest-exact", "area", "linear"],
    2: ["nearest", "nearest-exact", "area", "bilinear", "bicubic"],
    3: ["nearest", "nearest-exact", "area", "trilinear"],
}


def compare(op: str, arrays: dict[str, np.ndarray], options: dict[str, Any], tolerance: float) -> None:
    text = f"{op} of {[a.shape for a in arrays.values()]}, {options}"
    ours = getattr(fastops, op)(**arrays, **options)
    tensors = {name: torch.from_numpy(a).requires_grad_() for name, a in arrays.items()}
    theirs = getattr(F, op)(**tensors, **options)
    assert ours.shape == tuple(theirs.shape), text
    assert ours.dtype == next(iter(arrays.values())).dtype, text
    dy = np.random.default_rng(1).standard_normal(ours.shape).astype(ours.dtype)
    gradients = getattr(fastops, f"{op}_backward")(dy, **arrays, **options)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    theirs.backward(torch.from_numpy(dy))
    for found, expected in zip((ours, *gradients), (theirs, *(t.grad for t in tensors.values()))):
        expected = expected.detach().numpy()
        # a gradient may cancel: the data are of the size of 1, and so is the scale at least
        assert np.abs(found - expected).max(initial=0) <= tolerance * max(1, np.abs(expected).max(initial=0)), text


@pytest.mark.parametrize("seed", range(12))
def test_interpolate(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        axes = int(rng.choice([1, 2, 2, 3]))
        size = tuple(int(n) for n in rng.integers(1, {1: 120, 2: 40, 3: 12}[axes], axes))
        options: dict[str, Any] = {"mode": str(rng.choice(MODES[axes]))}
        if rng.random() < 0.5:
            options["size"] = tuple(int(n) for n in rng.integers(1, 2 * max(size) + 1, axes))
        else:
            options["scale_factor"] = float(rng.uniform(0.4, 3)) if rng.random() < 0.6 else float(rng.choice([0.5, 1, 2, 3]))
            options["recompute_scale_factor"] = bool(rng.random() < 0.3)
            if min(int(n * options["scale_factor"]) for n in size) < 1:
                continue
        if "linear" in options["mode"] or "cubic" in options["mode"]:
            options["align_corners"] = bool(rng.random() < 0.5)
            # PyTorch repeats the first row where the result is one column wide
            wide = options.get("size", (2, 2))[-1] > 1 and int(size[-1] * options.get("scale_factor", 2)) > 1
            options["antialias"] = axes == 2 and wide and bool(rng.random() < 0.5)
        elif options["mode"] != "area" and axes != 2:
            # PyTorch's own gradient of the nearest modes disagrees with its forward pass where the scale factor is raw
            # (it computes indices in another way); rounding may part them in float64
            options["recompute_scale_factor"] = True if "scale_factor" in options else None
        dtype = np.float32 if "nearest" in options["mode"] and axes != 2 else rng.choice([np.float32, np.float64])
        x = rng.standard_normal((*(int(n) for n in rng.integers(1, 4, 2)), *size)).astype(dtype)
        compare("interpolate", {"input": x}, options, 3e-5 if dtype == np.float32 else 1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_grid_sample(seed):
    rng = np.random.default_rng(seed)
    for _ in range(15):
        axes = int(rng.choice([2, 2, 3]))
        options = {
            "mode": str(rng.choice(["nearest", "bilinear", "bicubic"][: 5 - axes])),
            "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
            "align_corners": bool(rng.random() < 0.5),
        }
        size, places = ([int(n) for n in rng.integers(1, 14 if axes == 2 else 6, axes)] for _ in range(2))
        x = rng.standard_normal((2, int(rng.choice([1, 3, 8, 17, 40])), *size))
        grid = rng.standard_normal((2, *places, axes)) * rng.choice([0.5, 1, 3])
        compare("grid_sample", {"input": x, "grid": grid}, options, 1e-10)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(mode):
    rng = np.random.default_rng(0)
    for _ in range(80):
        axes = int(rng.integers(1, 4))
        shape = tuple(int(n) for n in rng.integers(3, 9, axes + int(rng.integers(1, 3))))
        most = min(shape[-axes:]) - 2  # a circular margin may be as long as what is left of the axis
        pad = tuple(int(p) for p in rng.integers(-1 if rng.random() < 0.5 else 0, most, 2 * axes))
        x = rng.standard_normal(shape)
        compare("pad", {"input": x}, {"pad": pad, "mode": mode}, 1e-14)
