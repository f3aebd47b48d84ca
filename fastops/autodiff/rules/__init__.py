"""Gradients of NumPy's functions, a module for each kind. Importing this package fills the table."""

from fastops.autodiff.rules import arrangement as arrangement
from fastops.autodiff.rules import elementwise as elementwise
from fastops.autodiff.rules import product as product
from fastops.autodiff.rules import reduction as reduction
