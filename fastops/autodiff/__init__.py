"""Gradients of functions made of the operations of fastops and of NumPy's functions.

    y, pullback = fastops.vjp(fn, *primals)
    fastops.grad(fn), fastops.value_and_grad(fn), fastops.check_grad(fn, *primals), fastops.checkpoint(fn)

Here are also ``primitive``, a function with a gradient of its own, and ``rule``, which teaches a further function of NumPy
(see docs/autodiff.md).
"""

from fastops.autodiff import second as second
from fastops.autodiff.check import check_grad as check_grad
from fastops.autodiff.transforms import checkpoint as checkpoint
from fastops.autodiff.transforms import grad as grad
from fastops.autodiff.transforms import value_and_grad as value_and_grad
from fastops.autodiff.transforms import vjp as vjp
from fastops.autodiff.variable import Variable as Variable
from fastops.autodiff.variable import primitive as primitive
from fastops.autodiff.variable import rule as rule
