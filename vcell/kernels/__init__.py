"""Compiled kernels: arrays in, arrays out, no I/O.

Every kernel is a serial ``@njit(nogil=True, cache=True)`` function that *adds to* arrays its
caller made, so a pass over a file calls it block after block, and threads of ours, not numba's,
run several at once (numba's default threading layer aborts when it is entered twice). Shapes:
``C`` cells of a block, ``N`` its non-zeros, ``G`` genes, ``B`` batches. A block is CSR: ``indptr``
int64 ``[C+1]``, ``indices`` int32 ``[N]``, ``data`` float32 ``[N]`` (float64 where it was stored
so). ``codes`` int32 ``[C]`` says which batch or group a cell belongs to; -1 leaves it out.

Kernels are compiled where they first run, so what is slow to compile is written out: assigning an
array to a slice (``a[:] = b``) costs two seconds, `np.sort` one, `sum` and `np.searchsorted` .3
each, a loop nothing.
"""

from __future__ import annotations

import pickle
from typing import Any

from numba.core.caching import IndexDataCacheFile

_load: Any = IndexDataCacheFile._load_index  # numba has no public way to it


def _load_or_begin_anew(index: Any) -> dict[Any, Any]:
    """Take an index that cannot be read for an empty one, as numba does with an outdated one.

    numba unpickles an index before it looks whether the source has changed since. After an upgrade
    in place in which a type was renamed every command would end there.
    """
    try:
        found: dict[Any, Any] = _load(index)
    except (AttributeError, ImportError, EOFError, pickle.UnpicklingError):
        return {}
    return found


IndexDataCacheFile._load_index = _load_or_begin_anew  # type: ignore[method-assign]
