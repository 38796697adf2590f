"""The training-ready store: build it (`prepare`), open it (`Store`), train from it (`Loader`).

A store is a zarr v3 group that anndata opens as well (``anndata.io.read_zarr``): cells in an order
drawn once, CSR with the smallest lossless types, in checksummed shards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcell.store.batch import Batch, Output
    from vcell.store.build.pipeline import ensure_store, prepare
    from vcell.store.loader import Loader
    from vcell.store.order import Partition, Shuffled, Weighted, balanced
    from vcell.store.recipe import Recipe
    from vcell.store.sets import Sets, combine
    from vcell.store.store import Store

__all__ = [
    "Batch",
    "Loader",
    "Output",
    "Partition",
    "Recipe",
    "Sets",
    "Shuffled",
    "Store",
    "Weighted",
    "balanced",
    "combine",
    "ensure_store",
    "prepare",
]

_HOMES = {
    "Batch": "vcell.store.batch",
    "Loader": "vcell.store.loader",
    "Output": "vcell.store.batch",
    "Partition": "vcell.store.order",
    "Recipe": "vcell.store.recipe",
    "Sets": "vcell.store.sets",
    "Shuffled": "vcell.store.order",
    "Store": "vcell.store.store",
    "Weighted": "vcell.store.order",
    "balanced": "vcell.store.order",
    "combine": "vcell.store.sets",
    "ensure_store": "vcell.store.build.pipeline",
    "prepare": "vcell.store.build.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that reading a store stays light."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
