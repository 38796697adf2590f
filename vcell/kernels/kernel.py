"""The decorator of every kernel: cached code runs without importing numba.

Importing numba takes 0.2 CPU seconds, and its cache 0.1 more for the modules it imports, in every
command. A kernel that was compiled before needs neither: `vcell.kernels.object_cache` loads its
object code, and this module chooses it by the types of the arguments. Code that is not cached, or
was compiled by another numba or for another processor, is left to numba, which compiles it or finds
it in its own cache.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from vcell.kernels import object_cache

_ALIGNED, _WRITEABLE, _C, _FORTRAN = 0x100, 0x400, 1, 2  # numpy's flags
_LOCK = threading.RLock()
_DISABLED = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"


class CompiledKernel:
    """A function that is compiled when it is first called; numba sees its own dispatcher."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.py_func = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__, self.__wrapped__ = function.__module__, function
        self._options = options
        self._found: dict[Any, Callable[..., Any]] = {}
        self._signatures: set[str] = set()

    @cached_property
    def dispatcher(self) -> Any:
        """The dispatcher that numba makes from the function."""
        from vcell.kernels import with_numba

        return with_numba.njit(**self._options)(self.py_func)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and the like
            raise AttributeError(name)
        return getattr(self.dispatcher, name)

    def __call__(self, *args: Any) -> Any:
        """Run the code for the types of the arguments."""
        kinds = tuple([
            (a.dtype, a.ndim, a.flags.num) if isinstance(a, np.ndarray) else type(a) for a in args
        ])  # fmt: skip
        found = self._found.get(kinds)
        return (found or self._find(kinds, args))(*args)

    def _find(self, kinds: tuple[Any, ...], args: tuple[Any, ...]) -> Callable[..., Any]:
        words = [spelt(argument) for argument in args]
        with _LOCK:
            if None in words or _DISABLED:  # types that only numba distinguishes
                return self._numba
            signature = " ".join(map(str, words))
            found = self._loaded(signature)
            if found is None:
                self.compile_for(signature)
            self._found[kinds] = found or self._numba
        return self._found[kinds]

    def _numba(self, *args: Any) -> Any:
        return self.dispatcher(*args)

    def _loaded(self, signature: str) -> Callable[..., Any] | None:
        found = object_cache.load(self.py_func, signature)
        if found is not None:
            self._signatures.add(signature)
        return found

    def signatures(self) -> set[str]:
        """Return the signatures that were compiled or loaded in this process."""
        return set(self._signatures)

    def compile_for(self, signature: str) -> None:
        """Compile for the types of a signature and save the code, unless it is cached."""
        if self._loaded(signature) is None:
            from vcell.kernels import with_numba

            with_numba.compile_and_save(self, signature)
            self._signatures.add(signature)


def spelt(argument: Any) -> str | None:
    """Return an argument's type as a word: ``int64``, ``float32:2C`` (``!``: read-only).

    None for types that only numba can handle.
    """
    if isinstance(argument, np.ndarray):
        flags, dtype = argument.flags.num, argument.dtype
        plain = type(argument) is np.ndarray and flags & _ALIGNED and dtype.isnative
        if not plain or not argument.ndim or dtype.kind not in "biuf" or dtype.itemsize > 8:
            return None
        layout = "C" if flags & _C else "F" if flags & _FORTRAN else "A"
        return f"{dtype.name}:{argument.ndim}{layout}{'' if flags & _WRITEABLE else '!'}"
    if type(argument) in _SCALARS:
        return _SCALARS[type(argument)]
    if isinstance(argument, np.number | np.bool_):
        name = argument.dtype.name
        return name if name in _NAMES else None
    return None


_SCALARS = {int: "int64", float: "float64", bool: "bool"}
_NAMES = {"bool", "float32", "float64"}
_NAMES |= {f"{sign}int{8 << i}" for sign in ("", "u") for i in range(4)}


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a kernel; the options are those of numba's decorator."""
    return lambda function: CompiledKernel(function, options)
