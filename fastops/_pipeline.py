"""How Numba compiles our functions: its own passes, without the work that is thrown away afterwards.

Compiling is what the first call of an operation waits for. Helpers are optimised where they are compiled into a kernel, so
machine code of their own is made only when somebody asks for its address; two passes, and rules, look for what kernels do not have.
Together a first convolution takes 4.6 s of processor time instead of 5.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba import _dynfunc, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.environment import lookup_environment
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering, NopythonRewrites
from numba.core.typing.npydecl import NumpyRulesArrayOperator
from numba.core.untyped_passes import InlineClosureLikes

from fastops._collector import paused


def set_environments(library: Any) -> None:
    """Tells machine code where the constants are of the functions that were compiled into it."""
    for variable in library._final_module.global_variables:
        environment = lookup_environment(variable.name) if variable.name.startswith("_ZN08NumbaEnv") else None
        if environment is not None:
            library.codegen.set_env(variable.name, environment)


class _WholeVectors(Lower):  # type: ignore[misc]
    """A function whose loops LLVM makes as many elements wide as a register, or as its ``bits`` say.

    For Intel's processors it would take half of an AVX-512 register, whose first ones ran slower with whole ones: gelu of 1.6
    million elements on an Emerald Rapids 1.10 ms, with this 0.76.
    """

    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        # llvmlite's own ``add`` knows the attributes that are single words, and this one is a string.
        bits = getattr(self.func_ir.func_id.func, "bits", 512)
        set.add(self.function.attributes, f'"prefer-vector-width"="{bits}"')


def _no_machine_code(library: Any, fndesc: Any, environment: Any) -> Any:
    """What Numba knows a function by when others call it: an object that cannot be called itself."""
    return _dynfunc.make_function(fndesc.lookup_module(), fndesc.qualname, "", 0, environment, (library,))


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):  # type: ignore[misc]
    """Makes LLVM's functions, and machine code only of those that Python calls; others get it when their address is asked for."""

    _name = "whole_vectors"

    @property
    def lowering_class(self) -> Any:
        return _WholeVectors

    def run_pass(self, state: Any) -> bool:
        inner = state.flags.no_cpython_wrapper and state.flags.no_cfunc_wrapper
        if inner:
            state.targetctx.get_executable = _no_machine_code  # the context is a copy of this compilation's own
        super().run_pass(state)
        if not inner:
            set_environments(state.library)
        return True


_array_operator = NumpyRulesArrayOperator.generic


def _operator(self: Any, args: Any, kws: Any) -> Any:
    return _array_operator(self, args, kws) if any(isinstance(arg, (types.ArrayCompatible, types.Optional)) for arg in args) else None


@contextmanager
def _operators_of_numbers() -> Iterator[None]:
    """NumPy's rules for operators are asked about arrays alone: of two numbers they find a loop, and then that no array is there."""
    before = NumpyRulesArrayOperator.generic
    NumpyRulesArrayOperator.generic = _operator
    try:
        yield
    finally:
        NumpyRulesArrayOperator.generic = before


class Pipeline(CompilerBase):  # type: ignore[misc]
    """Numba's passes without those for array expressions and closures, of which kernels have none."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [
            (_Lowering if made is NativeLowering else made, name) for made, name in passes.passes if made not in (NopythonRewrites, InlineClosureLikes)
        ]
        passes.finalize()
        return [passes]

    def _compile_core(self) -> Any:
        with paused(), _operators_of_numbers():  # 6 and 4 % of a first call
            return super()._compile_core()
