"""Tables of cells and genes written as anndata does, one column in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource, Column

#: Names written at once.
_PIECE = 1 << 15
#: What makes a column when it is its turn to be written.
Columns = Mapping[str, Callable[[], Any]]


def write_obs(
    root: Any, source: CellSource, rows: NDArray[np.int64], more: Columns | None = None
) -> None:
    """Write the table of some cells, and columns of ours."""
    columns = {name: partial(_some, source.obs, name, rows) for name in source.obs_columns}
    _write(root, "obs", lambda: source.cells[rows], _beside(columns, more or {}))


def write_var(
    root: Any, source: CellSource, genes: NDArray[np.int64], more: Columns | None = None
) -> None:
    """Write the table of some genes, and columns of ours."""
    columns = {name: partial(_some, source.var, name, genes) for name in source.var_columns}
    _write(root, "var", lambda: source.genes[genes], _beside(columns, more or {}))


def _beside(columns: Columns, ours: Columns) -> Columns:
    """Add columns of ours; the input's of the same name are kept as ``input_NAME``."""
    theirs = {f"input_{name}" if name in ours else name: c for name, c in columns.items()}
    return {**theirs, **ours}


def _write(root: Any, table: str, names: Callable[[], NDArray[Any]], columns: Columns) -> None:
    import anndata.io

    if table in root:  # of a run that was killed here
        del root[table]
    group = root.create_group(table)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
    group.attrs["_index"] = "_index"
    group.attrs["column-order"] = _listed(list(columns), is_hdf5=hasattr(root, "id"))
    _write_names(group, names())
    for name, make in columns.items():
        anndata.io.write_elem(group, name, make())


def _write_names(group: Any, names: NDArray[Any]) -> None:
    """Write the index; into zarr in pieces, as each name takes many times its size on the way."""
    import anndata.io

    step = len(names) if hasattr(group, "id") else _PIECE
    anndata.io.write_elem(group, "_index", names[:step].astype(object))
    for a in range(step, len(names), max(step, 1)):
        piece = names[a : a + step]
        group["_index"].resize((a + len(piece),))
        group["_index"][a : a + len(piece)] = piece.astype(object)


def _listed(names: list[str], *, is_hdf5: bool) -> Any:
    """Return names as an attribute: a list in JSON; HDF5 wants an array, and none has no type."""
    if not is_hdf5:
        return names
    return np.array(names, dtype=object) if names else np.zeros(0)


def _some(table: Callable[[str], Column], name: str, rows: NDArray[np.int64]) -> Any:
    """Return some values of a column, in a type that anndata writes whatever is missing."""
    import pandas as pd

    column = table(name)
    if column.kind in ("categorical", "string"):
        return pd.Categorical.from_codes(column.codes[rows], column.categories.astype(object))
    values = column.values[rows]
    if values.dtype == object:
        return pd.array(values, dtype="boolean")
    return values
