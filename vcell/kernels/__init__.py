"""Compiled kernels: arrays in, arrays out, no I/O.

Every kernel is a serial ``@njit(nogil=True, cache=True)`` function that *adds to* arrays of its
caller. A pass over a file calls it block by block, and vcell's threads, not numba's, run several at
once (numba's default threading layer aborts when it is entered twice). Shapes: ``C`` cells of a
block, ``N`` its non-zeros, ``G`` genes, ``B`` batches. A block is CSR: ``indptr`` int64 ``[C+1]``,
``indices`` int32 ``[N]``, ``data`` float32 ``[N]`` (float64 where it was stored so). ``codes``
int32 ``[C]`` gives the batch or group of a cell; -1 leaves it out.

Kernels are compiled on first use, so code that is slow to compile is avoided: assigning an array to
a slice (``a[:] = b``) costs two seconds, `np.sort` one, `sum` and `np.searchsorted` .3 each, a loop
nothing.
"""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

from llvmlite.binding import add_symbol
from numba.core.caching import Cache, IndexDataCacheFile
from numba.core.runtime import _nrt_python as runtime  # type: ignore[attr-defined]

from vcell import compiling

_load_index: Any = IndexDataCacheFile._load_index  # numba has no public interface to these
_load_kernel: Any = Cache.load_overload


def _load_or_start_empty(index: Any) -> dict[Any, Any]:
    """Treat an unreadable index as empty, as numba does with an outdated one.

    numba unpickles an index before it checks whether the source has changed. After an upgrade in
    place that renamed a type, every command would fail here.
    """
    try:
        found: dict[Any, Any] = _load_index(index)
    except (AttributeError, ImportError, EOFError, pickle.UnpicklingError):
        return {}
    return found


@cache
def _name_runtime() -> None:
    """Let kernels find numba's runtime, as ``rtsys.initialize`` does besides compiling."""
    for name, address in runtime.c_helpers.items():
        add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def _load_without_compiler(store: Any, signature: Any, context: Any) -> Any:
    """Load one of our compiled kernels without preparing numba's compiler.

    Preparing it imports scipy.linalg and all that numba can compile, and compiles numba's counting
    of references: .3 to .4 s and 50 MiB in every process. A compiled kernel has its own copy of
    these functions and needs only the addresses of the runtime's C functions. Where a kernel is not
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


IndexDataCacheFile._load_index = _load_or_start_empty  # type: ignore[method-assign]
Cache.load_overload = _load_without_compiler  # type: ignore[method-assign]
