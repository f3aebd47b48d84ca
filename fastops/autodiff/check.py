"""check_grad: gradients against differences of function values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastops._check import real
from fastops.autodiff.transforms import _trace
from fastops.autodiff.trees import leaves, rebuilt


def check_grad(fn: Callable[..., Any], *primals: Any, eps: float | None = None, rtol: float | None = None) -> None:
    """Compare the gradients of a function with central differences, along two random directions for each array.

    With u a random cotangent and v a random direction, <pullback(u), v> must be the derivative of <u, fn(x + t v)> at t = 0;
    the error of a central difference is of order eps**2. The random numbers are the same in every call.

    Args:
        fn, primals: as for :func:`vjp`. ``fn`` must be smooth near the primals, and give the same result for the same arguments.
        eps: the step t; by default the cube root of the machine epsilon of the coarsest dtype among the primals.
        rtol: the largest error, relative to the norm of the gradient; by default 1e-6 for float64, 2e-2 for float32.

    Raises:
        AssertionError: a gradient is wrong; the message names the worst argument.
        TypeError, ValueError: as :func:`vjp`; eps is no number above 0, or rtol none from 0 on.

    >>> import numpy as np
    >>> check_grad(lambda x, w: np.tanh(x @ w), np.ones((2, 3)), np.ones((3, 4)))
    >>> from fastops.autodiff import primitive
    >>> wrong = primitive(lambda x: (x**3, lambda g: g * x**2))
    >>> check_grad(lambda p: wrong(p["x"]), {"x": np.arange(3.0)})
    Traceback (most recent call last):
    AssertionError: check_grad: the gradient of primals[0]['x'] is wrong: ...
    """
    rng = np.random.default_rng(0)
    for name, value, least in (("eps", eps, "above 0"), ("rtol", rtol, "from 0 on")):
        if value is not None and (not 0 <= real("check_grad", name, value) < np.inf or (value == 0 and name == "eps")):
            raise ValueError(f"check_grad: {name} must be a finite number {least}, got {value}")
    y, _, pullback = _trace("check_grad", fn, primals)
    u = rebuilt(y, lambda a: rng.standard_normal(np.shape(a)))
    gradients = pullback(u)
    given = [(f"primals{path}", np.asarray(x)) for path, x in leaves(primals)]
    coarsest = max((np.finfo(x.dtype).eps for _, x in given), default=np.finfo(float).eps)
    eps = float(np.cbrt(coarsest)) if eps is None else eps
    rtol = (1e-6 if coarsest < 1e-12 else 2e-2) if rtol is None else rtol

    def projected(at: int, step: Any) -> float:
        """<u, fn(primals with a step added to one of them)>, in float64."""
        count = iter(range(len(given)))

        def moved(x: Any) -> Any:
            return (np.asarray(x) + step).astype(np.asarray(x).dtype) if next(count) == at else x

        result = fn(*rebuilt(primals, moved))
        pairs = zip(leaves(u), leaves(result))
        return sum(float(np.vdot(weight, np.asarray(value, np.float64))) for (_, weight), (_, value) in pairs)

    size = sum(float(np.linalg.norm(weight) * np.linalg.norm(np.asarray(value, np.float64))) for (_, weight), (_, value) in zip(leaves(u), leaves(y)))
    rounding = 8 * coarsest * size / eps
    worst = (0.0, "", "")
    for at, ((name, x), (_, gradient)) in enumerate(zip(given, leaves(gradients))):
        if x.size == 0:
            continue
        gradient = np.asarray(gradient, np.float64)
        for _ in range(2):
            v = rng.standard_normal(x.shape)
            difference = (projected(at, eps * v) - projected(at, -eps * v)) / (2 * eps)
            product = float(np.vdot(gradient, v))  # of the size of the gradient's norm, whatever the number of elements
            error = abs(difference - product)
            scale = max(float(np.linalg.norm(gradient)), abs(difference))
            excess = float("inf") if not np.isfinite(error) else error / (rtol * scale + rounding) if error else 0.0
            worst = max(worst, (excess, name, f"{product:.8g} along a random direction, where the difference quotient is {difference:.8g}"))
    if worst[0] > 1:
        raise AssertionError(f"check_grad: the gradient of {worst[1]} is wrong: {worst[2]}")
