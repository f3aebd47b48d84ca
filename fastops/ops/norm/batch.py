"""batch_norm, instance_norm and group_norm: statistics over channels, a weight and a bias for each channel.

    y = (x - mean) / sqrt(var + eps) weight + bias

with the biased variance. The formulas of the gradient are in ``core.py``. The forward pass keeps mean and var of each group.

Source: Ioffe, Szegedy, "Batch Normalization" (2015); Ulyanov, Vedaldi, Lempitsky, "Instance Normalization" (2016);
Wu, He, "Group Normalization" (2018), equation 7.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastops import _check
from fastops._check import Array
from fastops._jit import launcher
from fastops._memory import empty
from fastops._op import operation, register
from fastops.ops.norm import core
from fastops.ops.norm.arguments import Mask, check_eps, check_shape, given, pick, running
from fastops.ops.norm.core import Groups

_AXES = "axes (N, C, ...)"


# Between what numbers an activation confines the result.
Limits = tuple[float | None, float | None]
NONE: Limits = (None, None)
_NOTHING = np.empty(0)
_ACTIVATIONS: dict[str | None, Limits] = {None: NONE, "relu": (0.0, None), "relu6": (0.0, 6.0)}


class _Call:
    """A checked call: arrays, groups, and the statistics if they are not those of the input."""

    __slots__ = ("batch", "bias", "channels", "dtype", "dy", "eps", "length", "weight", "x")

    def __init__(self, op: str, eps: float, **arrays: ArrayLike | None) -> None:
        """The arrays are input, weight and bias, or grad_output, input and weight."""
        ready, self.dtype = _check.as_arrays(op, optional=("weight", "bias"), **arrays)
        if "bias" in arrays:
            x, weight, bias = ready
            dy = None
        else:
            dy, x, weight = ready
            bias = None
        shape = x.shape
        if len(shape) < 2:
            raise ValueError(f"{op}: input must have {_AXES}, got shape {shape}")
        if dy is not None and dy.shape != shape:
            raise ValueError(f"{op}: grad_output must have the shape of input, {shape}, got {dy.shape}")
        self.batch, channels = shape[:2]
        self.length = prod(shape[2:])
        check_shape(op, "weight", weight, (channels,))
        check_shape(op, "bias", bias, (channels,))
        check_eps(op, eps)
        self.eps = float(eps)
        self.x, self.dy, self.weight, self.bias, self.channels = x, dy, weight, bias, channels

    def forward(
        self, groups: Groups, statistics: tuple[Array, Array] | None, only_statistics: bool = False, limits: Limits = NONE,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        y = empty(0 if only_statistics else self.x.shape, self.x.dtype)
        if statistics is None:
            both = empty((2, groups.groups))
            statistics, known = (both[0], both[1]), False  # unpacked, as an iterator, they take 0.5 us more
        else:
            known = True
        mean, var = statistics
        if self.x.size:
            core.forward(self.x, groups, self.eps, self.weight, self.bias, mean, var, known, y, *limits)
        return y if y.dtype is self.dtype else y.astype(self.dtype, copy=False), mean, var

    def backward(
        self, groups: Groups, statistics: tuple[Array, Array], fixed: bool, bias: Any, output_mask: Mask, limits: Limits = NONE,
    ) -> Any:  # fmt: skip
        mask = (output_mask[0], output_mask[1] and self.weight is not None, output_mask[2] and bias is not None)
        if not self.x.size:
            return pick((np.zeros_like(self.x), np.zeros(self.channels), np.zeros(self.channels)), mask, self.dtype)
        assert self.dy is not None
        dx, affine = core.backward(self.dy, self.x, groups, self.eps, self.weight, *statistics, fixed, mask[0], self.bias, *limits)
        if affine.shape[1] != self.channels:
            affine = affine.reshape(2, -1, self.channels).sum(axis=1)
        return pick((dx, affine[0], affine[1]), mask, self.dtype)


def _channels(c: _Call, training: bool) -> Groups:
    """Statistics of channels; known ones let the array be read in the order of memory."""
    return (core.channels if training or core.are_columns(c.batch, c.length) else core.given_channels)(c.batch, c.channels, c.length)


def _fixed_statistics(op: str, mean: Any, var: Any, channels: int, wanted: str) -> tuple[Array, Array]:
    if mean is None or var is None:
        raise ValueError(f"{op}: {'running_mean' if mean is None else 'running_var'} must be given unless {wanted}")
    return given(op, "running_mean", mean, channels), given(op, "running_var", var, channels)


def _check_running(op: str, mean: Any, var: Any, channels: int, momentum: Any) -> None:
    for name, value in (("running_mean", mean), ("running_var", var)):
        if value is not None and not running(op, name, value, channels).flags.writeable:
            raise ValueError(f"{op}: {name} must be writeable, got a read-only array")
    if not isinstance(momentum, (int, float, np.floating)):
        raise TypeError(f"{op}: momentum must be a number, got {momentum!r}")


@launcher
def _blend(threads, mean, var, momentum, correction, running_mean, running_var):
    """running += momentum (new - running), with the unbiased variance; either may be empty."""
    for i in range(running_mean.size):
        running_mean[i] = (1 - momentum) * running_mean[i] + momentum * mean[i]
    for i in range(running_var.size):
        running_var[i] = (1 - momentum) * running_var[i] + momentum * correction * var[i]


def _update(running_mean: Any, running_var: Any, mean: Array, var: Array, count: int, momentum: float) -> None:
    # a kernel takes 1 us for what NumPy takes 4
    ready = [_NOTHING if a is None else a if a.dtype.char in "fd" and a.flags.carray else a.astype(np.float64) for a in (running_mean, running_var)]
    _blend(1, mean, var, float(momentum), count / (count - 1), ready[0], ready[1])
    for statistic, updated in zip((running_mean, running_var), ready):
        if statistic is not None and statistic is not updated:
            statistic[...] = updated


def _limits(op: str, activation: str | None) -> Limits:
    _check.choice(op, "activation", activation, _ACTIVATIONS)
    return _ACTIVATIONS[activation]


def _batch_norm(
    op: str, input: ArrayLike, running_mean: Array | None, running_var: Array | None, weight: ArrayLike | None, bias: ArrayLike | None,
    training: bool, momentum: float, eps: float, activation: str | None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    c = _Call(op, eps, input=input, weight=weight, bias=bias)
    limits = _limits(op, activation)
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"{op}: eps must be {'positive in training' if training else 'at least 0'}, got {eps!r}")
    groups = _channels(c, training)
    if not training:
        return c.forward(groups, _fixed_statistics(op, running_mean, running_var, c.channels, "training"), limits=limits)
    count = c.batch * c.length
    if count == 1:
        raise ValueError(f"{op}: input must have more than one value a channel in training, got shape {c.x.shape}")
    _check_running(op, running_mean, running_var, c.channels, momentum)
    y, mean, var = c.forward(groups, None, limits=limits)
    if c.x.size:
        _update(running_mean, running_var, mean, var, count, momentum)
    return y, mean, var


@operation
def batch_norm(
    input: ArrayLike, running_mean: Array | None, running_var: Array | None, weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, activation: str | None = None,
) -> Array:  # fmt: skip
    """Normalise each channel over the batch: ``torch.nn.functional.batch_norm``.

    Args:
        input: (N, C, ...).
        running_mean, running_var: (C,), NumPy arrays, the statistics to use unless ``training``. In training they are
            updated in place, by ``momentum`` of the batch's mean and unbiased variance; None: they are not.
        weight, bias: (C,) or None.
        training: use the mean and the biased variance of the batch.
        momentum: weight of the new in the running statistics.
        eps: what is added to the variance.
        activation: None, "relu" or "relu6", applied on the way: in the same pass over memory, forward and backward.

    Returns:
        The shape and the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; one value a channel in
            training; no running statistics otherwise.

    >>> import numpy as np
    >>> mean, var = np.zeros(2), np.ones(2)
    >>> y = batch_norm([[1.0, 2.0], [3.0, 6.0]], mean, var, training=True)
    >>> y.round(3), mean.round(3), var.round(3)
    (array([[-1., -1.],
           [ 1.,  1.]]), array([0.2, 0.4]), array([1.1, 1.7]))
    """
    return _batch_norm("batch_norm", input, running_mean, running_var, weight, bias, training, momentum, eps, activation)[0]


def _record_batch_norm(
    input: ArrayLike, running_mean: Array | None, running_var: Array | None, weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, activation: str | None = None,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    y, mean, var = _batch_norm("batch_norm", input, running_mean, running_var, weight, bias, training, momentum, eps, activation)
    kept = {"mean": mean, "var": var}
    if activation is not None and bias is not None:
        kept["bias"] = np.array(bias)  # the gradient needs it then: a copy, which is small, that stays as it is
    return y, kept


def batch_norm_backward(
    grad_output: ArrayLike, input: ArrayLike, running_mean: Array | None, running_var: Array | None,
    weight: ArrayLike | None = None, bias: ArrayLike | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5, *, activation: str | None = None, mean: ArrayLike | None = None, var: ArrayLike | None = None,
    output_mask: Mask = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`batch_norm` with respect to input, weight and bias; running statistics stay as they are.

    Args:
        grad_output: (N, C, ...).
        activation: as of the forward call; ``bias`` must be that, too.
        mean, var: (C,), what the input was normalised with, if it is known.
        output_mask: which gradients to compute; the others are None.

    >>> import numpy as np
    >>> batch_norm_backward([[1.0], [2.0]], [[3.0], [5.0]], None, None, np.ones(1), np.zeros(1), training=True)[1:]
    (array([0.999995]), array([3.]))
    """
    op = "batch_norm_backward"
    c = _Call(op, eps, grad_output=grad_output, input=input, weight=weight)
    limits = _limits(op, activation)
    if limits != NONE and bias is not None:
        c.bias = given(op, "bias", bias, c.channels).astype(c.x.dtype, copy=False)
    groups = _channels(c, training)
    if mean is not None and var is not None:
        statistics = given(op, "mean", mean, c.channels), given(op, "var", var, c.channels)
    elif training:
        statistics = c.forward(groups, None, only_statistics=True)[1:]
    else:
        statistics = _fixed_statistics(op, running_mean, running_var, c.channels, "training")
    return c.backward(groups, statistics, not training, bias, output_mask, limits)


def _instance_groups(c: _Call, use_input_stats: bool) -> Groups:
    return core.channel_groups(c.batch, c.channels, c.length, c.channels) if use_input_stats else _channels(c, training=False)


def _instance_norm(
    op: str, input: ArrayLike, running_mean: Array | None, running_var: Array | None, weight: ArrayLike | None, bias: ArrayLike | None,
    use_input_stats: bool, momentum: float, eps: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    c = _Call(op, eps, input=input, weight=weight, bias=bias)
    if c.x.ndim < 3:
        raise ValueError(f"{op}: input must have axes (N, C, ...) and at least one more, got shape {c.x.shape}")
    groups = _instance_groups(c, use_input_stats)
    if not use_input_stats:
        return c.forward(groups, _fixed_statistics(op, running_mean, running_var, c.channels, "use_input_stats"))
    if c.length == 1:
        raise ValueError(f"{op}: input must have more than one value in each channel of an image, got shape {c.x.shape}")
    _check_running(op, running_mean, running_var, c.channels, momentum)
    y, mean, var = c.forward(groups, None)
    if c.x.size and not (running_mean is None and running_var is None):
        means, variances = (a.reshape(c.batch, -1).mean(axis=0) for a in (mean, var))
        _update(running_mean, running_var, means, variances, c.length, momentum)
    return y, mean, var


@operation
def instance_norm(
    input: ArrayLike, running_mean: Array | None = None, running_var: Array | None = None, weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Array:  # fmt: skip
    """Normalise each channel of each image: ``torch.nn.functional.instance_norm``.

    Args:
        input: (N, C, L), (N, C, H, W) or more.
        running_mean, running_var: as for :func:`batch_norm`; the means over the batch go into them.
        weight, bias: (C,) or None.
        use_input_stats: use the mean and the variance of the image, not the running statistics.
        momentum, eps: as for :func:`batch_norm`.

    Returns:
        The shape and the dtype of the input.

    Raises:
        TypeError, ValueError: as :func:`batch_norm`; one value in each channel of an image.

    >>> instance_norm([[[1.0, 3.0], [5.0, 5.0]]]).round(3)
    array([[[-1.,  1.],
            [ 0.,  0.]]])
    """
    return _instance_norm("instance_norm", input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)[0]


def _record_instance_norm(
    input: ArrayLike, running_mean: Array | None = None, running_var: Array | None = None, weight: ArrayLike | None = None,
    bias: ArrayLike | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    y, mean, var = _instance_norm("instance_norm", input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return y, {"mean": mean, "var": var}


def instance_norm_backward(
    grad_output: ArrayLike, input: ArrayLike, running_mean: Array | None = None, running_var: Array | None = None,
    weight: ArrayLike | None = None, bias: ArrayLike | None = None, use_input_stats: bool = True, momentum: float = 0.1,
    eps: float = 1e-5, *, mean: ArrayLike | None = None, var: ArrayLike | None = None, output_mask: Mask = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`instance_norm` with respect to input, weight and bias; arguments as for :func:`batch_norm_backward`.

    ``mean`` and ``var`` are (N C,), or (C,) without ``use_input_stats``.

    >>> instance_norm_backward([[[1.0, 1.0]]], [[[3.0, 5.0]]])[0]
    array([[[0., 0.]]])
    """
    op = "instance_norm_backward"
    c = _Call(op, eps, grad_output=grad_output, input=input, weight=weight)
    groups = _instance_groups(c, use_input_stats)
    if mean is not None and var is not None:
        count = c.channels * (c.batch if use_input_stats else 1)
        statistics = given(op, "mean", mean, count), given(op, "var", var, count)
    elif use_input_stats:
        statistics = c.forward(groups, None, only_statistics=True)[1:]
    else:
        statistics = _fixed_statistics(op, running_mean, running_var, c.channels, "use_input_stats")
    return c.backward(groups, statistics, not use_input_stats, bias, output_mask)


def _group_norm_groups(op: str, c: _Call, num_groups: int) -> Groups:
    num_groups = _check.integer(op, "num_groups", num_groups, minimum=1)
    if c.channels % num_groups:
        raise ValueError(f"{op}: num_groups must divide the channels of input, {c.channels}, got {num_groups}")
    return core.channel_groups(c.batch, c.channels, c.length, num_groups)


def _group_norm(
    op: str, input: ArrayLike, num_groups: int, weight: ArrayLike | None, bias: ArrayLike | None, eps: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    c = _Call(op, eps, input=input, weight=weight, bias=bias)
    groups = _group_norm_groups(op, c, num_groups)
    if c.batch * groups.parts * c.length == 1:
        raise ValueError(f"{op}: input must have more than one value a group, got shape {c.x.shape} and num_groups {num_groups}")
    return c.forward(groups, None)


@operation
def group_norm(input: ArrayLike, num_groups: int, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5) -> Array:
    """Normalise groups of channels of each image: ``torch.nn.functional.group_norm``.

    Args:
        input: (N, C, ...).
        num_groups: into how many groups the channels are divided.
        weight, bias: (C,) or None.
        eps: what is added to the variance.

    Returns:
        The shape and the dtype of the input (float16, float32 or float64).

    Raises:
        TypeError, ValueError: an argument is of a wrong kind, or has a wrong value or shape; one value in all.

    >>> group_norm([[[1.0], [3.0], [5.0], [9.0]]], 2).round(3).ravel()
    array([-1.,  1., -1.,  1.])
    """
    return _group_norm("group_norm", input, num_groups, weight, bias, eps)[0]


def _record_group_norm(
    input: ArrayLike, num_groups: int, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    y, mean, var = _group_norm("group_norm", input, num_groups, weight, bias, eps)
    return y, {"mean": mean, "var": var}


def group_norm_backward(
    grad_output: ArrayLike, input: ArrayLike, num_groups: int, weight: ArrayLike | None = None, bias: ArrayLike | None = None,
    eps: float = 1e-5, *, mean: ArrayLike | None = None, var: ArrayLike | None = None, output_mask: Mask = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """Gradients of :func:`group_norm` with respect to input, weight and bias; arguments as for :func:`batch_norm_backward`.

    ``mean`` and ``var`` are (N num_groups,).

    >>> import numpy as np
    >>> group_norm_backward([[2.0, 2.0]], [[3.0, 5.0]], 1, np.ones(2), np.zeros(2))[2]
    array([2., 2.])
    """
    op = "group_norm_backward"
    c = _Call(op, eps, grad_output=grad_output, input=input, weight=weight)
    groups = _group_norm_groups(op, c, num_groups)
    if mean is not None and var is not None:
        statistics = given(op, "mean", mean, groups.groups), given(op, "var", var, groups.groups)
    else:
        statistics = c.forward(groups, None, only_statistics=True)[1:]
    return c.backward(groups, statistics, False, bias, output_mask)


register(batch_norm, batch_norm_backward, inputs=("input", "weight", "bias"), saved=("input", "weight"), record=_record_batch_norm)
register(instance_norm, instance_norm_backward, inputs=("input", "weight", "bias"), saved=("input", "weight"), record=_record_instance_norm)
register(group_norm, group_norm_backward, inputs=("input", "weight", "bias"), saved=("input", "weight"), record=_record_group_norm)
