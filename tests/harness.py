"""What every operation must survive.

A :class:`Row` says how an operation is called and what it should give; the functions in ``CHECKS`` take a row, and together
they are the contract of every operation: they know nothing about any one of them. A family's file in ``tests/cases`` holds
its rows, with a reference in float64 beside them that is written for reading, and its test runs every check on every row.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastops
from fastops import _op, _threads

Arguments = dict[str, Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Values from anywhere: for operations that are smooth and defined everywhere."""
    return rng.standard_normal(shape)


@dataclass(frozen=True)
class Row:
    """One way to call an operation.

    An operation with several results counts as one whose result is all of them in a row, flat.

    Attributes:
        name: names the row in test reports.
        op: the operation's public name.
        shapes: the shape of each array argument, by its name; None for an optional one that is not given; a list of shapes
            for an argument that is a list of arrays, which the checks see as ``name.0``, ``name.1`` and so on.
        reference: ``reference(**arrays, **options)`` in NumPy and float64.
        options: the other arguments. One that is a function of a random generator stands for what it returns: indices,
            targets, masks.
        batched: the array arguments whose first axis is the batch; none when the call has no batch.
        draw: ``draw(rng, shape)`` gives values in the operation's domain and away from kinks, in float64; or a
            mapping from names of arguments to such functions.
        step: of the central difference; smaller where the operation is strongly curved.
        tolerance: error of a float32 result relative to its largest element; float64 gets the same number of ulp.
    """

    name: str
    op: str
    shapes: Mapping[str, Any]
    reference: Callable[..., np.ndarray]
    options: Mapping[str, Any] = field(default_factory=dict)
    batched: tuple[str, ...] = ("input",)
    draw: Draw | Mapping[str, Draw] = normal
    tolerance: float = 2e-5
    step: float = 2.0**-13

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers that belong to the row, for all but its arguments: the same in every process."""
        return np.random.default_rng(zlib.crc32(str(self).encode()))

    def arguments(self, dtype: type = np.float64) -> Arguments:
        """The array arguments, lists taken apart."""
        # a stream apart from grad_output's: along its own direction a normalised vector has no gradient
        rng, values = np.random.default_rng([zlib.crc32(str(self).encode()), 1]), {}
        for name, shape in self.shapes.items():
            draw = self.draw.get(name, normal) if isinstance(self.draw, Mapping) else self.draw
            for key, one in [(f"{name}.{i}", s) for i, s in enumerate(shape)] if isinstance(shape, list) else [(name, shape)]:
                values[key] = None if one is None else draw(rng, one).astype(dtype)
        return values

    def together(self, arguments: Arguments) -> dict[str, Any]:
        """The arguments of a call: lists as lists again, and the options."""
        call: dict[str, Any] = {}
        for key, value in arguments.items():
            name, _, index = key.partition(".")
            if index:
                call.setdefault(name, []).append(value)
            else:
                call[name] = value
        return {**call, **{n: v(np.random.default_rng(5)) if inspect.isfunction(v) else v for n, v in self.options.items()}}

    def forward(self, arguments: Arguments, **extra: Any) -> np.ndarray:
        """The operation itself."""
        return in_a_row(getattr(fastops, self.op)(**self.together(arguments), **extra))

    def expected(self, arguments: Arguments) -> np.ndarray:
        """The reference."""
        return in_a_row(self.reference(**self.together(arguments)))

    @property
    def has_gradient(self) -> bool:
        """Whether the backward function takes all the options of this row (a fused activation has no gradient)."""
        backward = _op.get(getattr(fastops, self.op)).backward
        return backward is not None and set(self.options) <= set(inspect.signature(backward).parameters)

    def backward(self, grad_output: np.ndarray, arguments: Arguments, **extra: Any) -> dict[str, np.ndarray | None]:
        """The gradient of each input, by name, lists taken apart; what the forward pass keeps for it comes from there."""
        op = _op.get(getattr(fastops, self.op))
        call = self.together(arguments)
        output, kept = op.record(**call) if op.record else (getattr(fastops, self.op)(**call), {})
        gradients = op.backward(apart(grad_output, output), **{**call, **kept}, **extra)
        if len(op.inputs) == 1:
            gradients = (gradients,)
        assert len(gradients) == len(op.inputs)
        found: dict[str, np.ndarray | None] = {}
        for name, gradient in zip(op.inputs, gradients):
            if isinstance(self.shapes.get(name), list):
                count = len(self.shapes[name])
                found.update({f"{name}.{i}": g for i, g in enumerate([None] * count if gradient is None else gradient)})
            elif name in self.shapes:
                found[name] = gradient
        return found


def in_a_row(output: Any) -> np.ndarray:
    """One array as it is; several, however nested, flat and one after the other (those of floats: indices have no error)."""
    if not isinstance(output, tuple):
        return output
    return np.concatenate([part.ravel() for part in map(in_a_row, output) if part.dtype.kind == "f"])


def apart(flat: np.ndarray, output: Any) -> Any:
    """The reverse of ``in_a_row``: the numbers in the structure of ``output``; None stands in for integers."""
    if not isinstance(output, tuple):
        return flat
    flat = np.asarray(flat)
    parts, start = [], 0
    for one in output:
        size = in_a_row(one).size
        if isinstance(one, np.ndarray):
            is_float = one.dtype.kind == "f"
            parts.append(flat[start : start + size].reshape(one.shape) if is_float else None)
            start += size if is_float else 0
        else:
            parts.append(apart(flat[start : start + size], one))
            start += size
    return tuple(parts)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal up to ``tolerance`` times the largest element expected."""
    assert found.shape == expected.shape
    if expected.size:
        scale = np.abs(expected).max()
        error = np.abs(found.astype(np.float64) - expected).max()
        assert error <= tolerance * scale, f"error {error:.3g} where the largest element is {scale:.3g}"


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal in every bit, dtype included."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


def copied(arguments: Arguments) -> Arguments:
    return {name: None if a is None else a.copy() for name, a in arguments.items()}


def in_double(tolerance: float) -> float:
    """The tolerance of float64 results that belongs to one of float32 results."""
    return tolerance * float(np.finfo(np.float64).eps / np.finfo(np.float32).eps)


def forward_is_the_reference(row: Row) -> None:
    arguments = row.arguments()
    before = copied(arguments)
    found = row.forward(arguments)
    assert found.dtype == np.float64
    assert_close(found, row.expected(before), in_double(row.tolerance))
    for name, array in before.items():
        np.testing.assert_array_equal(arguments[name], array, err_msg=f"{name} was modified")


def gradient_is_the_difference_quotient(row: Row) -> None:
    """Along random directions: <gradient, v> against the central difference of <grad_output, reference(x + t v)>."""
    if not row.has_gradient:
        return
    arguments, rng = row.arguments(), row.rng
    grad_output = rng.standard_normal(row.expected(arguments).shape)
    before, grad_before = copied(arguments), grad_output.copy()
    gradients = row.backward(grad_output, arguments)
    np.testing.assert_array_equal(grad_output, grad_before, err_msg="grad_output was modified")
    for name, array in before.items():
        np.testing.assert_array_equal(arguments[name], array, err_msg=f"{name} was modified")
    for name, gradient in gradients.items():
        if arguments[name] is None:
            assert gradient is None
            continue
        assert gradient.shape == arguments[name].shape
        assert gradient.dtype == np.float64
        for _ in range(2):
            v = rng.standard_normal(gradient.shape)
            ahead, behind = (np.vdot(grad_output, row.expected({**arguments, name: arguments[name] + t * v})) for t in (row.step, -row.step))
            error = abs((ahead - behind) / (2 * row.step) - np.vdot(gradient, v))
            scale = np.linalg.norm(gradient) * np.linalg.norm(v)
            assert error <= 1e-8 * scale, f"gradient of {name}: off by {error:.3g}, where its size is {scale:.3g}"


def single_is_close_to_double(row: Row) -> None:
    single = row.arguments(np.float32)
    double = {name: None if a is None else a.astype(np.float64) for name, a in single.items()}
    found, expected = row.forward(single), row.forward(double)
    assert found.dtype == np.float32
    assert_close(found, expected, row.tolerance)
    if row.has_gradient:
        grad_output = row.rng.standard_normal(found.shape).astype(np.float32)
        found = row.backward(grad_output, single)
        for name, gradient in row.backward(grad_output.astype(np.float64), double).items():
            if gradient is not None:
                assert found[name].dtype == np.float32
                assert_close(found[name], gradient, row.tolerance)


def half_is_computed_in_single(row: Row) -> None:
    half = row.arguments(np.float16)
    single = {name: None if a is None else a.astype(np.float32) for name, a in half.items()}
    y = row.forward(single)
    assert_same_bits(row.forward(half), y.astype(np.float16))
    if row.has_gradient:
        grad_output = row.rng.standard_normal(y.shape).astype(np.float16)
        found = row.backward(grad_output, half)
        for name, gradient in row.backward(grad_output.astype(np.float32), single).items():
            if gradient is not None:
                assert_same_bits(found[name], gradient.astype(np.float16))


def disguises(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The same values in every form that memory can have."""
    while array.ndim == 0:  # one number has no layout; as often as somebody asks
        yield "a number", array
    apart = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    apart[..., ::2] = array
    yield "every second element", apart[..., ::2]
    yield "axes in reverse order", np.asfortranarray(array)
    yield "backwards", np.flip(np.flip(array).copy())
    yield "bytes swapped", array.astype(array.dtype.newbyteorder())
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    yield "unaligned", unaligned
    constant = array.copy()
    constant.flags.writeable = False
    yield "read-only", constant
    yield "nested lists", array.tolist() if array.dtype == np.float64 else array
    yield "a subclass", array.view(type("Sub", (np.ndarray,), {}))


def memory_layout_does_not_matter(row: Row) -> None:
    arguments = row.arguments()
    expected = row.forward(arguments)
    grad_output = row.rng.standard_normal(expected.shape)
    gradients = row.backward(grad_output, arguments) if row.has_gradient else {}
    given = [name for name, a in arguments.items() if a is not None]
    for forms in zip(*(disguises(arguments[name]) for name in given)):
        disguised = {**arguments, **{name: form for name, (_, form) in zip(given, forms)}}
        assert_same_bits(row.forward(disguised), expected)
    for (_, form), *forms in zip(disguises(grad_output), *(disguises(arguments[name]) for name in given)):
        if gradients:
            disguised = {**arguments, **{name: same for name, (_, same) in zip(given, forms)}}
            for name, gradient in row.backward(form, disguised).items():
                if gradient is not None:
                    assert_same_bits(gradient, gradients[name])


def empty_batch(row: Row) -> None:
    if not row.batched:
        return
    arguments = row.arguments()
    shape = row.expected(arguments).shape
    nothing = {**arguments, **{name: arguments[name][:0] for name in row.batched}}
    found = row.forward(nothing)
    assert (found.shape, found.dtype) == ((0, *shape[1:]), np.float64)
    if row.has_gradient:
        for name, gradient in row.backward(found, nothing).items():
            if gradient is not None:
                assert_same_bits(gradient, np.zeros_like(nothing[name]))


def threads_do_not_matter(row: Row) -> None:
    many = _threads._available()
    if many == 1:
        pytest.skip("needs two threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_threads, "_GRAIN_NS", 0)  # even the smallest call is worth all threads
        for dtype in (np.float32, np.float64):
            arguments = row.arguments(dtype)
            results = []
            for threads in (1, many):
                fastops.set_num_threads(threads)
                y = row.forward(arguments)
                gradients = row.backward(np.cos(y), arguments) if row.has_gradient else {}
                results.append([y, *(g for g in gradients.values() if g is not None)])
            for alone, together in zip(*results):
                assert_same_bits(together, alone)


def out_takes_the_result(row: Row) -> None:
    if "out" not in inspect.signature(getattr(fastops, row.op)).parameters:
        return
    arguments = row.arguments()
    expected = row.forward(arguments)
    shape = expected.shape
    # filled with NaN: an element that is not written, or added to, shows
    plain = np.full(shape, np.nan)
    apart = np.full((*shape, 3), np.nan)
    for out in (plain, apart[..., 1]):
        assert row.forward(arguments, out=out) is out
        assert_same_bits(out, expected)
    assert np.isnan(apart[..., [0, 2]]).all()
    # an out that overlaps an input: the result is that of separate memory
    first = next(iter(arguments))
    size = max(expected.size, arguments[first].size)
    memory = np.zeros(size)
    memory[: arguments[first].size] = arguments[first].ravel()
    overlapping = {**arguments, first: memory[: arguments[first].size].reshape(arguments[first].shape)}
    out = memory[size - expected.size :].reshape(shape)
    row.forward(overlapping, out=out)
    assert_same_bits(out, expected)


def nan_and_infinity_come_through(row: Row) -> None:
    """Where the reference is not finite, so is the result: nothing is lost. Elsewhere it may be, as with Winograd's tiles."""
    for value in (np.nan, np.inf, -np.inf):
        arguments = row.arguments()
        first = next(iter(arguments))
        arguments[first].flat[arguments[first].size // 2] = value
        with np.errstate(invalid="ignore"):
            expected = row.expected(arguments)
        try:
            found = row.forward(arguments)
        except ValueError:
            continue  # refused, for values are confined to an interval: not lost either
        assert not np.isfinite(found[~np.isfinite(expected)]).any()
        if np.isnan(value):
            assert np.isnan(found[np.isnan(expected)]).all()


def masks_choose_gradients(row: Row) -> None:
    op = _op.get(getattr(fastops, row.op))
    if not row.has_gradient or len(op.inputs) == 1:
        return
    arguments = row.arguments()
    grad_output = row.rng.standard_normal(row.expected(arguments).shape)
    everything = row.backward(grad_output, arguments)
    for chosen in (name for name in op.inputs if name in row.shapes):
        mask = tuple(name == chosen for name in op.inputs)
        for name, gradient in row.backward(grad_output, arguments, output_mask=mask).items():
            if name.partition(".")[0] == chosen and arguments[name] is not None:
                assert_same_bits(gradient, everything[name])
            else:
                assert gradient is None


CHECKS = (
    forward_is_the_reference,
    gradient_is_the_difference_quotient,
    single_is_close_to_double,
    half_is_computed_in_single,
    memory_layout_does_not_matter,
    empty_batch,
    threads_do_not_matter,
    out_takes_the_result,
    nan_and_infinity_come_through,
    masks_choose_gradients,
)


def every_check(rows: list[Row]) -> Callable[[Callable], Callable]:
    """Run the decorated test, ``test(check, row)``, for each check and each row."""
    assert len({str(row) for row in rows}) == len(rows), "two rows have the same name"

    def decorate(test: Callable) -> Callable:
        by_row = pytest.mark.parametrize("row", rows, ids=str)
        return pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)(by_row(test))

    return decorate
