"""How Numba compiles a part: as far as the kernels that take it in need it, and no further.

Numba would optimise each part, make machine code of it, and optimise it again within whatever it is
linked into.  Nobody calls a part, so only the last is of use, but for inner loops.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

__all__ = ["PartCompiler"]


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
