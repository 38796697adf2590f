"""A new .h5ad or .zarr whose embeddings are written block by block, with one interface for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vcell.data.h5_writing import writing
from vcell.outputs import MADE_BY, made_by

AT_ONCE = 1024  # cells per chunk, and per write


@contextmanager
def new_cells(aside: Path, suffix: str) -> Iterator[Any]:
    """Yield the root of a new file that anndata reads, marked as made by vcell.

    Parameters
    ----------
    aside
        Temporary path to write to.
    suffix
        ``.h5ad`` or ``.zarr``: a file, or a folder of zarr's format 2, as anndata writes.
    """
    kind = {"encoding-type": "anndata", "encoding-version": "0.1.0"}
    if suffix == ".zarr":
        import zarr

        root = zarr.open_group(str(aside), mode="w", zarr_format=2)
        root.attrs.update({MADE_BY: made_by(), **kind})
        yield root
        return
    with writing(aside) as (file, _):
        file.attrs.update(kind)
        yield file


def embedding(root: Any, name: str, n_cells: int, width: int) -> Any:
    """Return a new float32 table of obsm, (n_cells, width), that `resize` can shorten."""
    from anndata.io import write_elem

    write_elem(root, "obsm", {})
    given: dict[str, Any] = {
        "shape": (n_cells, width), "dtype": np.dtype(np.float32),
        "chunks": (min(AT_ONCE, max(n_cells, 1)), width),
    }  # fmt: skip
    group = root["obsm"]
    if hasattr(group, "create_array"):  # zarr's
        table = group.create_array(name, **given)
    else:
        table = group.create_dataset(name, maxshape=(None, width), **given)
    table.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return table
