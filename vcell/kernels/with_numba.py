"""Compile kernels with numba, or load them from numba's own cache.

Importing this module imports numba, and has it compile for the target of kernels from now on
(unless a program that uses vcell had numba compile before, or NUMBA_CPU_NAME says otherwise: then
the code is used, but not saved).
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from llvmlite.binding import add_symbol
from numba import config, from_dtype, njit, types
from numba.core.caching import Cache, IndexDataCacheFile
from numba.core.codegen import CPUCodegen
from numba.core.runtime import _nrt_python as runtime  # type: ignore[attr-defined]

from vcell import compiling
from vcell.kernels import object_cache, targets

__all__ = ["compile_and_save", "njit", "read"]

_load_index: Any = IndexDataCacheFile._load_index  # numba has no public way to these
_load_kernel: Any = Cache.load_overload
_save_kernel: Any = Cache.save_overload


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


def _save_if_possible(store: Any, signature: Any, compiled: Any) -> None:
    """Save a compiled kernel; on a full disk it is only used, and compiled again another time."""
    with suppress(OSError):
        _save_kernel(store, signature, compiled)


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


_index_key: Any = Cache._index_key


def _key_with_sources(store: Any, signature: Any, codegen: Any) -> Any:
    """Return numba's key of compiled code, and the sources of all our kernels.

    numba compares only the file of the kernel itself, not of the functions that it calls.
    """
    key = _index_key(store, signature, codegen)
    ours = store._py_func.__module__.startswith("vcell")
    return (*key, object_cache.sources()) if ours else key


_name_of_host: Any = CPUCodegen._get_host_cpu_name
_features_of_host: Any = CPUCodegen._get_host_cpu_features


def _processor(codegen: Any) -> str:
    """Return the target's processor where numba asks for this one, unless numba is configured."""
    return str(_name_of_host(codegen) if _configured() else targets.chosen().processor)


def _features(codegen: Any) -> str:
    return str(_features_of_host(codegen) if _configured() else targets.chosen().features)


def _configured() -> bool:
    settings: Any = config
    return settings.CPU_NAME is not None or settings.CPU_FEATURES is not None


# numba has no settings for these: the methods themselves are replaced, which mypy cannot check
CPUCodegen._get_host_cpu_name = _processor  # type: ignore[method-assign]
CPUCodegen._get_host_cpu_features = _features  # type: ignore[method-assign]
IndexDataCacheFile._load_index = _load_index_or_empty  # type: ignore[method-assign]
Cache.load_overload = _load_without_compiler  # type: ignore[method-assign]
Cache.save_overload = _save_if_possible  # type: ignore[method-assign]
Cache._index_key = _key_with_sources  # type: ignore[method-assign]


def compile_and_save(kernel: Any, signature: str) -> None:
    """Let numba compile a kernel (or find it in its cache) for a signature, and save its code."""
    kinds = tuple(read(word) for word in signature.split())
    kernel.dispatcher.compile(kinds)
    found = kernel.dispatcher.overloads.get(kinds)
    code = None if found is None else _object_code(kernel.dispatcher, found)
    if found is not None and code is not None and _for_target(found):
        object_cache.save(kernel.py_func, signature, code, found)


def _for_target(found: Any) -> bool:
    """Return whether a kernel was compiled for the target."""
    target = targets.chosen()
    _, processor, features = found.target_context.codegen().magic_tuple()
    return (processor, features) == (target.processor, target.features)


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
    kind: Any
    if "=" in name:
        kind = from_dtype(np.dtype([tuple(one.split("=")) for one in name.split(",")]))
    else:
        kind = types.boolean if name == "bool" else getattr(types, name)
    if not shape:
        return kind
    make: Any = types.Array
    return make(kind, int(shape[0]), shape[1], readonly=shape.endswith("!"))
