"""How Numba compiles kernels, and parts as far as the kernels that take them in need it.

Numba would optimise each part, make machine code of it, and optimise it again within whatever it is
linked into.  Nobody calls a part, so only the last is of use, but for inner loops.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

__all__ = ["KernelCompiler", "PartCompiler"]


@contextlib.contextmanager
def _no_looking_for_garbage() -> Iterator[None]:
    """Within it Python does not look for objects that only know each other.

    The compiler makes millions of objects that are nearly all needed to the end; to look at them
    again and again was a twelfth of the time of a first step.  It takes 30 MB more for the while.
    """
    was_looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_looking:
            gc.enable()


class KernelCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, undisturbed."""

    def compile_extra(self, func: Any) -> Any:
        """Compile a function, with all the parts that it takes in."""
        with _no_looking_for_garbage():
            return super().compile_extra(func)


class PartLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM code of a part and of the parts it is made of, linked and left as it is."""

    def _optimize_final_module(self) -> None:
        """Optimise a part that calls no other, and leave the rest to the kernel.

        That is a loop over a row, or less.  Without this it is vectorised in one piece with the
        loops around it: `differentiate` alone then takes 12 us more of a step of 87.
        """
        if not any(isinstance(library, PartLibrary) for library in self._linking_libraries):
            super()._optimize_final_module()

    def _optimize_functions(self, module: Any) -> None:
        """Leave functions as they come: they are optimised as soon as they are taken in."""

    def _finalize_final_module(self) -> None:
        """Hand nothing to the engine that makes machine code."""
        self._finalized = True

    @property
    def codegen(self) -> PartLibrary:
        """Itself: whoever has compiled a function asks here for ``set_env``, and for that alone."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Do not tell the machine code where its Python objects are: there is neither."""


class PartCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, with another place for the code."""

    def define_pipelines(self) -> Any:
        """Return Numba's own passes, the last of which puts the code where the state says."""
        codegen = self.state.targetctx.codegen()
        self.state.library = PartLibrary(codegen, self.state.func_id.func_qualname)
        return super().define_pipelines()
