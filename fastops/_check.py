"""Argument checks, with one grammar for messages.

    conv2d: weight must have 3 channels (input channels 6 / groups 2), got 5 (weight shape (4, 5, 3, 3))

that is: the operation, the argument, what is allowed, what was given. A wrong kind of thing is a ``TypeError``, a wrong
value a ``ValueError``. Everything is checked before memory is allocated for the result and before a kernel runs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import index
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from fastops._memory import empty
from fastops._shapes import LARGEST_INDEX, byte_count

Array = NDArray[Any]
Pair = tuple[int, int]

FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)
_COMPILED = (FLOAT32, np.dtype(np.float64))


def as_array(op: str, name: str, value: Any) -> Array:
    """``value`` as an array that kernels can take: C-contiguous, aligned, native byte order, typed as writeable.

    Takes arrays and whatever has ``__array__`` or ``__dlpack__``. Nothing is copied unless the layout asks for it.

    >>> as_array("relu", "input", [[1.0, 2.0]]).dtype
    dtype('float64')
    >>> as_array("relu", "input", [[1, 2]])
    Traceback (most recent call last):
    TypeError: relu: input must have dtype float16, float32 or float64, got int64
    """
    if type(value) is np.ndarray and value.dtype in _COMPILED and value.flags.carray:
        return value  # the usual case, in 0.15 us
    array = to_ndarray(op, name, value)
    dtype = array.dtype
    if dtype.char not in "efd":
        raise TypeError(f"{op}: {name} must have dtype float16, float32 or float64, got {dtype}")
    if not (array.flags.c_contiguous and array.flags.aligned and dtype.isnative):
        return np.array(array, dtype=dtype.newbyteorder("="), order="C", copy=True)
    return array if array.flags.writeable else _writeable_view(array)


def as_arrays(op: str, *, optional: str | tuple[str, ...] = (), **values: Any) -> tuple[list[Any], np.dtype[Any]]:
    """Several arrays of one dtype, ready for kernels, and that dtype; float16 becomes float32.

    None is allowed for the arguments that ``optional`` names, one or several, and stays None.

    >>> as_arrays("add", input=np.ones(2, "f2"), other=np.ones(2, "f2"), bias=None, optional="bias")
    ([array([1., 1.], dtype=float32), array([1., 1.], dtype=float32), None], dtype('float16'))
    >>> as_arrays("add", input=np.ones(2, "f4"), other=np.ones(2))
    Traceback (most recent call last):
    TypeError: add: other must have the dtype of input, float32, got float64
    """
    absent = (optional,) if isinstance(optional, str) else optional
    ready, kind = [], None
    for name, value in values.items():  # the usual case: 0.25 us an array instead of 0.45
        if type(value) is ndarray:
            dtype = value.dtype
            if not ((dtype is kind or (kind is None and dtype in _COMPILED)) and value.flags.carray):
                break
            kind = dtype
        elif value is not None or name not in absent:
            break
        ready.append(value)
    else:
        if kind is not None:
            return ready, kind
    arrays = [None if value is None and name in absent else as_array(op, name, value) for name, value in values.items()]
    first: tuple[str, np.dtype[Any]] | None = None
    for name, array in zip(values, arrays):
        if array is None:
            continue
        if first is None:
            first = name, array.dtype
        elif array.dtype != first[1]:
            raise TypeError(f"{op}: {name} must have the dtype of {first[0]}, {first[1]}, got {array.dtype}")
    assert first is not None
    if first[1] == FLOAT16:
        arrays = [None if array is None else array.astype(FLOAT32) for array in arrays]
    return arrays, first[1]


def shape_of(op: str, name: str, value: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The shape of an argument whose values do not matter; nothing is copied. It must have the given dtype.

    >>> shape_of("fold_backward", "input", np.broadcast_to(np.float32(0), (2, 3)), np.dtype("f4"))
    (2, 3)
    """
    array = value if isinstance(value, np.ndarray) else to_ndarray(op, name, value)
    if array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{op}: {name} must have the dtype of grad_output, {dtype}, got {array.dtype}")
    return array.shape


def to_ndarray(op: str, name: str, value: Any, of: str = "float16, float32 or float64") -> Array:
    """``value`` as a plain array of whatever dtype; ``of`` says which are allowed.

    >>> to_ndarray("gather", "index", np.ma.array([0, 1], mask=[False, True]), of="integers")
    Traceback (most recent call last):
    TypeError: gather: index must be an array of integers, got a masked array, whose mask would be lost
    """
    if type(value) is np.ndarray:
        return value
    wanted = f"{op}: {name} must be an array of {of}"
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{wanted}, got a masked array, whose mask would be lost")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{wanted}, got {type(value).__name__} ({error})") from error
    if array.dtype.char == "O":
        raise TypeError(f"{wanted}, got {type(value).__name__} (dtype object)")
    return array


class _Memory:
    """Presents the memory of a read-only array as writeable."""

    def __init__(self, array: Array) -> None:
        self.owner = array
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _writeable_view(array: Array) -> Array:
    # Numba gives a read-only array a type of its own, for which every kernel would be compiled once more. Kernels do
    # not write to their inputs, and this view never reaches the user.
    return np.asarray(_Memory(array))


def check_out(op: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """``out`` must be able to take the result as it is.

    >>> check_out("relu", np.empty((2, 3), "f4"), (2, 4), np.dtype("f4"))
    Traceback (most recent call last):
    ValueError: relu: out must have shape (2, 4), got (2, 3)
    """
    if type(out) is not np.ndarray and (not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray)):
        raise TypeError(f"{op}: out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{op}: out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise TypeError(f"{op}: out must have dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{op}: out must be writeable, got a read-only array")


def takes_result(out: Array, dtype: np.dtype[Any], *inputs: Array | None) -> bool:
    """Whether a kernel may write straight into ``out``; otherwise the result goes through a temporary.

    A kernel reads its inputs while it writes, so ``out`` must not share memory with them (bounds are compared, which
    errs on the safe side).
    """
    direct = type(out) is np.ndarray and out.flags.carray and out.dtype == dtype
    return direct and not any(a is not None and np.may_share_memory(out, a) for a in inputs)


def target(op: str, out: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Array | None) -> Array:
    """Where a kernel writes a result of this shape: ``out`` if it can take it as it is, otherwise a new array.

    ``dtype`` is that of the result, and the inputs, as the kernel takes them, have the one that it computes in.
    """
    computed = FLOAT32 if dtype == FLOAT16 else dtype
    if out is not None:
        check_out(op, out, shape, dtype)
        if takes_result(out, computed, *inputs):
            return out
    return empty(shape, computed)


def deliver(y: Array, out: Array | None, dtype: np.dtype[Any]) -> Array:
    """The result in ``out``, or in the dtype that it should have."""
    if out is None:
        return y.astype(dtype, copy=False)
    if y is not out:
        np.copyto(out, y, casting="same_kind")
    return out


def integer(op: str, name: str, value: Any, minimum: int) -> int:
    """One integer of at least ``minimum``.

    >>> integer("conv2d", "groups", 0, minimum=1)
    Traceback (most recent call last):
    ValueError: conv2d: groups must be at least 1, got 0
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{op}: {name} must be an integer, got {value!r}")
    if number < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value!r}")
    return number


# What was found exact, by identity; held here, so that nothing else gets its identity.
_known: dict[int, Any] = {}


def exact(*values: Any) -> bool:
    """Whether values mean what equal ones mean: 1, 1.0 and True are one key of a dict, and only the first is an integer.

    Integers, words, None, and tuples of these are exact. Constants of the calling code are looked at once.

    >>> exact(1, (2, (0, 1)), "same", None), exact(1, 2.0), exact((1, True))
    (True, False, False)
    """
    known = _known
    for value in values:
        if value.__class__ is not int and value is not None and known.get(id(value)) is not value:
            if value.__class__ is tuple:
                if not exact(*value):
                    return False
            elif not isinstance(value, (str, np.integer)):
                return False
            if len(known) >= 4096:
                known.clear()
            known[id(value)] = value
    return True


def integers(op: str, name: str, value: Any, count: int, minimum: int) -> tuple[int, ...]:
    """An integer for all axes, or one for each.

    >>> integers("conv2d", "stride", 2, count=2, minimum=1), integers("conv2d", "stride", [1, 2], count=2, minimum=1)
    ((2, 2), (1, 2))
    >>> integers("conv2d", "stride", (1, 2, 3), count=2, minimum=1)
    Traceback (most recent call last):
    ValueError: conv2d: stride must be an integer or 2 of them, got (1, 2, 3)
    """
    given = one_or_more(value)
    if len(given) not in (1, count):
        raise ValueError(f"{op}: {name} must be an integer{f' or {count} of them' if count > 1 else ''}, got {value!r}")
    numbers = tuple(integer(op, name, item, minimum) for item in given)
    return numbers if len(numbers) == count else numbers * count


def real(op: str, name: str, value: Any) -> float:
    """One real number, NaN and infinities included.

    >>> real("elu", "alpha", np.float32(2)), real("elu", "alpha", 1)
    (2.0, 1.0)
    >>> real("elu", "alpha", "1")
    Traceback (most recent call last):
    TypeError: elu: alpha must be a real number, got '1'
    """
    if type(value) is float:
        return value
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        return float(value)
    if getattr(value, "shape", None) == () and np.asarray(value).dtype.kind in "iuf":  # an array without axes
        return float(value)
    raise TypeError(f"{op}: {name} must be a real number, got {value!r}")


def probability(op: str, name: str, value: Any) -> float:
    """One number from 0 to 1.

    >>> probability("dropout", "p", 1.5)
    Traceback (most recent call last):
    ValueError: dropout: p must be from 0 to 1, got 1.5
    """
    p = real(op, name, value)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"{op}: {name} must be from 0 to 1, got {value!r}")
    return p


def axis(op: str, name: str, value: Any, shape: tuple[int, ...]) -> int:
    """The number of an axis, counted from the first; negative ones count from the end. Of a scalar, 0 and -1 are taken.

    >>> axis("softmax", "dim", -1, (2, 3))
    1
    >>> axis("softmax", "dim", 2, (2, 3))
    Traceback (most recent call last):
    ValueError: softmax: dim must be an axis of shape (2, 3), from -2 to 1, got 2
    """
    count = max(len(shape), 1)
    number = integer(op, name, value, minimum=-(1 << 63))
    if not -count <= number < count:
        raise ValueError(f"{op}: {name} must be an axis of shape {shape}, from {-count} to {count - 1}, got {value!r}")
    return number % count


def paddings(op: str, name: str, value: Any, count: int, words: Sequence[str] = ()) -> tuple[Pair, ...] | str:
    """Padding before and after each axis, or one of ``words`` as it is.

    >>> paddings("conv2d", "padding", 1, 2), paddings("conv2d", "padding", (1, (0, 2)), 2)
    (((1, 1), (1, 1)), ((1, 1), (0, 2)))
    >>> paddings("conv2d", "padding", "full", 2, words=("valid", "same"))
    Traceback (most recent call last):
    ValueError: conv2d: padding must be "valid", "same", an integer, or for each of the 2 axes an integer or a \
(before, after) pair, got 'full'
    """
    if isinstance(value, str) and value in words:
        return value
    given = () if isinstance(value, str) else one_or_more(value)
    if len(given) not in (1, count):
        allowed = "".join(f'"{word}", ' for word in words)
        axes = "for the axis" if count == 1 else f"for each of the {count} axes"
        raise ValueError(f"{op}: {name} must be {allowed}an integer, or {axes} an integer or a (before, after) pair, got {value!r}")
    pairs = []
    for item in given:
        pair = items(item)
        if pair is not None and len(pair) != 2:
            raise ValueError(f"{op}: {name} must be a (before, after) pair for each axis, got {value!r}")
        before, after = (item, item) if pair is None else pair
        pairs.append((integer(op, name, before, minimum=0), integer(op, name, after, minimum=0)))
    return tuple(pairs) if len(pairs) == count else tuple(pairs) * count


def items(value: Any) -> Sequence[Any] | None:
    """The entries of a tuple, a list or an array with axes; None for anything else, arrays without axes included.

    >>> items(np.array([1, 2])), items(np.array(1))
    ([1, 2], None)
    """
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, np.ndarray) and value.ndim > 0:
        entries: list[Any] = value.tolist()
        return entries
    return None


def one_or_more(value: Any) -> Sequence[Any]:
    """As :func:`items`, and anything else alone."""
    given = None if type(value) is int else items(value)
    return (value,) if given is None else given


def choice(op: str, name: str, value: Any, allowed: Collection[Any]) -> None:
    """``value`` must be one of a few.

    >>> choice("conv2d", "precision", "high", ("default", "highest"))
    Traceback (most recent call last):
    ValueError: conv2d: precision must be one of 'default', 'highest', got 'high'
    """
    try:
        known = value in allowed
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"{op}: {name} must be one of {', '.join(repr(a) for a in allowed)}, got {value!r}")


def fits(op: str, name: str, what: str, shape: tuple[int, ...], itemsize: int) -> None:
    """No array, and no padded view of one, may be larger than an index can count; argument ``name`` decides about it.

    >>> fits("conv2d", "padding", "the padded input", (1, 1, 2**40, 2**40), 4)
    Traceback (most recent call last):
    ValueError: conv2d: padding must keep the padded input below 2**63 bytes, got shape \
(1, 1, 1099511627776, 1099511627776)
    """
    # Zero extents count as one: a kernel may form such an index although there is no element.
    if byte_count((max(extent, 1) for extent in shape), itemsize) > LARGEST_INDEX:
        raise ValueError(f"{op}: {name} must keep {what} below 2**63 bytes, got shape {shape}")
