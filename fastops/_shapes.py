"""Integer arithmetic on shapes: windows, padding, sizes in bytes.

Everything here is plain Python integers, which do not overflow, and raises nothing: ``_check`` and the ops turn a
result that is out of range into an error that names the argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

# NumPy and the compiled kernels count bytes and elements in signed 64-bit integers.
LARGEST_INDEX = 2**63 - 1


def effective_kernel(kernel: int, dilation: int) -> int:
    """Extent of a dilated window.

    >>> effective_kernel(3, 2)
    5
    """
    return dilation * (kernel - 1) + 1


def window_output(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """How many windows fit; 0 or less when none does.

    >>> window_output(224, 7, 2, 1, 3, 3)
    112
    """
    return (size + before + after - effective_kernel(kernel, dilation)) // stride + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding that gives ceil(size / stride) outputs; an odd element goes after (TensorFlow's rule).

    >>> same_padding(5, 4, 1, 1), same_padding(224, 3, 2, 1), same_padding(8, 1, 2, 1)
    ((1, 2), (0, 1), (0, 0))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + effective_kernel(kernel, dilation) - size, 0)
    return total // 2, total - total // 2


def transposed_output(size: int, kernel: int, stride: int, dilation: int, padding: int, output_padding: int) -> int:
    """Length that a transposed convolution gives: the length from which a convolution would have made ``size``.

    ``padding`` counts both sides.

    >>> transposed_output(7, 4, 2, 1, 2, 0)
    14
    """
    return (size - 1) * stride - padding + effective_kernel(kernel, dilation) + output_padding


def byte_count(shape: Iterable[int], itemsize: int) -> int:
    """Bytes of an array, as an exact integer.

    >>> byte_count((2**40, 2**40), 4) > LARGEST_INDEX
    True
    """
    return prod(shape) * itemsize
