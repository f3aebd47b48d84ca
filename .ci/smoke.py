"""What an installed fastops must do on any supported Python: every convolution strategy, forward and backward."""

import subprocess
import sys

import numpy as np

import fastops
from fastops.ops.conv.strategies import STRATEGIES

# (x, weight, padding, groups): between them every strategy accepts one.
CASES = (
    ((2, 8, 12, 12), (8, 8, 3, 3), 1, 1),
    ((2, 8, 12, 12), (16, 8, 1, 1), 0, 1),
    ((2, 8, 12, 12), (8, 1, 3, 3), 1, 8),
)


def gradients(x, weight, padding, groups, strategy):
    """y, dx, dw and db of a convolution with a strategy; a direction that it refuses is left to another one."""
    from fastops.ops.conv.spec import Options, forward_spec

    spec = forward_spec("conv2d", 2, x.shape, weight.shape, str(x.dtype), Options(padding=padding, groups=groups))
    accepted = {d: strategy.accepts(spec, d) is None for d in ("forward", "grad_input", "grad_weight")}
    settings = {"padding": padding, "groups": groups}
    results = {}
    if accepted["forward"]:
        results["y"] = fastops.conv2d(x, weight, **settings, strategy=strategy.name)
    dy = np.random.default_rng(1).standard_normal((x.shape[0], weight.shape[0], *x.shape[2:])).astype(x.dtype)
    for name, direction, mask in (
        ("dx", "grad_input", (True, False, False)),
        ("dw", "grad_weight", (False, True, False)),
    ):
        if accepted[direction]:
            given = fastops.conv2d_backward(dy, x, weight, **settings, strategy=strategy.name, output_mask=mask)
            results[name] = given[mask.index(True)]
    return results


def main() -> None:
    print(
        f"Python {sys.version.split()[0]}, NumPy {np.__version__}, fastops {fastops.__version__} at {fastops.__file__}"
    )
    naive, ran = STRATEGIES[-1], set()
    for x_shape, w_shape, padding, groups in CASES:
        rng = np.random.default_rng(0)
        x, weight = rng.standard_normal(x_shape).astype("f4"), rng.standard_normal(w_shape).astype("f4")
        expected = gradients(x.astype("f8"), weight.astype("f8"), padding, groups, naive)
        for strategy in STRATEGIES:
            for name, value in gradients(x, weight, padding, groups, strategy).items():
                scale = np.abs(expected[name]).max()
                np.testing.assert_allclose(
                    value, expected[name], rtol=0, atol=1e-4 * scale, err_msg=f"{strategy.name} {name}"
                )
                ran.add((strategy.name, name))
    missing = {s.name for s in STRATEGIES} - {name for name, _ in ran}
    assert not missing, f"no case reached {missing}"
    subprocess.run([sys.executable, "-m", "fastops", "info"], check=True)
    print(f"{len(ran)} strategies and directions agree with naive in float64")


if __name__ == "__main__":
    main()
