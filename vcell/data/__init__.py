"""Open, read, describe and write cells, in blocks of bounded size.

``open_cells`` gives one interface, `CellSource`, over h5ad, zarr, 10x and AnnData in memory, one
file or many. Nothing heavier than numpy is imported until a file needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcell.data.block import Block
    from vcell.data.column import Column
    from vcell.data.opening import open_cells
    from vcell.data.source import CellSource
    from vcell.data.write import CellWriter

__all__ = ["Block", "CellSource", "CellWriter", "Column", "open_cells"]

_HOMES = {
    "Block": "vcell.data.block",
    "CellSource": "vcell.data.source",
    "CellWriter": "vcell.data.write",
    "Column": "vcell.data.column",
    "open_cells": "vcell.data.opening",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
