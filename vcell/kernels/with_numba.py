"""Compile kernels with numba, or load them from numba's own cache.

Importing this module imports numba.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from llvmlite.binding import add_symbol
from numba import njit, types
from numba.core.caching import Cache, IndexDataCacheFile
from numba.core.runtime import _nrt_python as runtime  # type: ignore[attr-defined]

from vcell import compiling
from vcell.kernels import object_cache

__all__ = ["compile_and_save", "njit", "read"]

_load_index: Any = IndexDataCacheFile._load_index  # numba has no public way to these
_load_kernel: Any = Cache.load_overload


def _load_index_or_empty(index: Any) -> dict[Any, Any]:
    """Load an index; return an empty one if it cannot be read, as numba does if it is outdated.

    numba unpickles an index before it checks whether the source has changed. After an upgrade in
    which a pickled type was renamed, every command would fail there.
    """
    try:
        found: dict[Any, Any] = _load_index(index)
    except (AttributeError, ImportError, EOFError, pickle.UnpicklingError):
        return {}
    return found


@cache
def _name_runtime() -> None:
    """Make numba's runtime known to kernels, as ``rtsys.initialize`` does besides compiling."""
    for name, address in object_cache.memory_symbols(runtime).items():
        add_symbol(name, address)


def _load_without_compiler(store: Any, signature: Any, context: Any) -> Any:
    """Load one of our compiled kernels without preparing numba's compiler.

    Preparing it imports scipy.linalg and all that numba can compile, and compiles numba's counting
    of references: 0.3 to 0.4 s and 50 MiB in every process. A compiled kernel has its own copy of
    these functions and needs only the addresses of the runtime's C functions. If a kernel is not
    found, numba prepares the compiler when it compiles.
    """
    if not store._py_func.__module__.startswith("vcell"):
        return _load_kernel(store, signature, context)
    _name_runtime()
    found = None
    with store._guard_against_spurious_io_errors():
        found = store._load_overload(signature, context)
    if found is None:
        compiling.begins()
    return found


IndexDataCacheFile._load_index = _load_index_or_empty  # type: ignore[method-assign]
Cache.load_overload = _load_without_compiler  # type: ignore[method-assign]


def compile_and_save(kernel: Any, signature: str) -> None:
    """Let numba compile a kernel (or find it in its cache) for a signature, and save its code."""
    kinds = tuple(read(word) for word in signature.split())
    kernel.dispatcher.compile(kinds)
    found = kernel.dispatcher.overloads.get(kinds)
    code = None if found is None else _object_code(kernel.dispatcher, found)
    if code is not None:
        object_cache.save(kernel.py_func, signature, code, found)


def _object_code(dispatcher: Any, found: Any) -> bytes | None:
    """Return the object file of a compiled kernel, read from numba's cache if necessary."""
    try:
        library = found.library.serialize_using_object_code()
    except RuntimeError:  # LLVM owns it now
        cache, codegen = dispatcher._cache, found.target_context.codegen()
        stored = cache._cache_file.load(cache._index_key(found.signature.args, codegen))
        if stored is None:
            return None
        library, *_ = stored
    _, kind, (code, *_) = library
    return bytes(code) if kind == "object" else None


def read(word: str) -> Any:
    """Return the numba type of a word of `vcell.kernels.kernel.spelt`."""
    name, _, shape = word.partition(":")
    kind = types.boolean if name == "bool" else getattr(types, name)
    if not shape:
        return kind
    make: Any = types.Array
    return make(kind, int(shape[0]), shape[1], readonly=shape.endswith("!"))
