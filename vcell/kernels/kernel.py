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
            found = object_cache.load(self.py_func, signature)
            if found is None:
                self._compile(signature)
            self._found[kinds] = found or self._numba
        return self._found[kinds]

    def _numba(self, *args: Any) -> Any:
        return self.dispatcher(*args)

    def compile_for(self, signature: str) -> None:
        """Compile for the types of a signature and save the code, unless it is saved."""
        if object_cache.load(self.py_func, signature) is None:
            self._compile(signature)

    def _compile(self, signature: str) -> None:
        from vcell.kernels import with_numba

        with_numba.compile_and_save(self, signature)


def spelt(argument: Any) -> str | None:
    """Return an argument's type as a word: ``int64``, ``float32:2C`` (``!``: read-only).

    An array of records has its fields: ``row=int32,value=float32:1C``. None for types that only
    numba can handle.
    """
    if isinstance(argument, np.ndarray):
        flags, dtype = argument.flags.num, argument.dtype
        name = _fields(dtype) if dtype.names else _number(dtype)
        plain = type(argument) is np.ndarray and flags & _ALIGNED and argument.ndim
        if not plain or not name:
            return None
        layout = "C" if flags & _C else "F" if flags & _FORTRAN else "A"
        return f"{name}:{argument.ndim}{layout}{'' if flags & _WRITEABLE else '!'}"
    if type(argument) in _SCALARS:
        return _SCALARS[type(argument)]
    if isinstance(argument, np.number | np.bool_):
        name = argument.dtype.name
        return name if name in _NAMES else None
    return None


def _number(dtype: np.dtype[Any]) -> str | None:
    plain = dtype.isnative and dtype.kind in "biuf" and dtype.itemsize <= 8
    return dtype.name if plain else None


def _fields(dtype: np.dtype[Any]) -> str | None:
    """Return ``name=type,...`` of a record without gaps."""
    types = {name: dtype[name] for name in dtype.names or ()}
    packed = np.dtype(list(types.items()))
    if dtype != packed or dtype.isalignedstruct or not all(map(_number, types.values())):
        return None
    return ",".join(f"{name}={kind.name}" for name, kind in types.items())


_SCALARS = {int: "int64", float: "float64", bool: "bool"}
_NAMES = {"bool", "float32", "float64"}
_NAMES |= {f"{sign}int{8 << i}" for sign in ("", "u") for i in range(4)}


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a kernel; the options are those of numba's decorator."""
    return lambda function: CompiledKernel(function, options)
