"""Instructions for kernels that are written directly in LLVM's code.

numba is imported when a kernel that uses one is compiled, not when the kernel's module is imported:
compiled code needs neither the instruction's definition nor numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any


class _ImportedOnUse:
    """A module that is imported when one of its attributes is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


#: numba's types and code helpers, for the definitions of instructions.
types: Any = _ImportedOnUse("numba.core.types")
cgutils: Any = _ImportedOnUse("numba.core.cgutils")


class Intrinsic:
    """An instruction that only kernels can call.

    Parameters
    ----------
    emitter
        As for ``numba.extending.intrinsic``: given the types of the arguments, it returns a
        signature and the function that writes the code. Calls leave out its first argument.
    """

    def __init__(self, emitter: Callable[..., Any]) -> None:
        self._emitter = emitter
        self.__doc__ = emitter.__doc__

    @cached_property
    def _numba_type_(self) -> Any:
        """The numba type; numba reads this attribute of globals of unknown types."""
        from numba.core.registry import cpu_target
        from numba.extending import intrinsic

        made: Any = intrinsic(self._emitter)
        known = cpu_target.typing_context
        known.refresh()  # it knows only what was registered when the compiler started
        return known.resolve_value_type(made)

    def __call__(self, *args: Any) -> Any:
        """For type checkers only; numba replaces every call."""
        raise NotImplementedError("instructions run in compiled kernels only")
