"""Tables of cells and genes written as anndata does, one column in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.elements import (
    is_hdf5,
    note,
    write_array,
    write_booleans,
    write_categories,
    write_texts,
)
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource, Column
    from vcell.data.texts import Texts

#: Writes a column into a group under a name.
Write = Callable[[Any, str], None]
#: Functions that make a column when it is written: numbers, or a function that writes it.
Columns = Mapping[str, Callable[[], Any]]
#: The folder itself, the one above, and the file that describes a group.
_NOT_IN_ZARR = {".", "..", "zarr.json"}


def check_names(source: CellSource, *, is_zarr: bool) -> None:
    """Refuse columns whose names would be paths in the output.

    Raises
    ------
    UserError
        If a column of cells or genes cannot be stored under its name.
    """
    for table, names in (("obs", source.obs_columns), ("var", source.var_columns)):
        for name in names:
            if "/" in name or (is_zarr and name in _NOT_IN_ZARR):
                raise UserError(
                    f"{source.name}: {table} has a column {name!r}, which cannot be a name in "
                    f"{'zarr' if is_zarr else 'HDF5'}",
                    hint="rename the column in the file",
                )


def write_obs(
    root: Any, source: CellSource, rows: NDArray[np.integer[Any]], more: Columns | None = None
) -> None:
    """Write the table of some cells, and additional columns."""
    columns = {name: partial(_some, source.obs, name, rows) for name in source.obs_columns}
    # Read here, not kept by the source: their memory goes before the columns' comes.
    names = source.obs_frame.names
    _write(root, "obs", lambda: _chosen(names(), rows), _beside(columns, more or {}))


def write_var(
    root: Any, source: CellSource, genes: NDArray[np.int64], more: Columns | None = None
) -> None:
    """Write the table of some genes, and additional columns."""
    columns = {name: partial(_some, source.var, name, genes) for name in source.var_columns}
    names = source.var_frame.names()
    _write(root, "var", lambda: _chosen(names, genes), _beside(columns, more or {}))


def _beside(columns: Columns, ours: Columns) -> Columns:
    """Add our columns; input columns of the same names become ``input_NAME``."""
    theirs = {f"input_{name}" if name in ours else name: c for name, c in columns.items()}
    return {**theirs, **ours}


def _write(root: Any, table: str, names: Callable[[], Write], columns: Columns) -> None:
    if table in root:  # left by a killed run
        del root[table]
    group = root.create_group(table)
    order = _listed(list(columns), typed=is_hdf5(root))
    note(group, "dataframe", "0.2.0", **{"_index": "_index", "column-order": order})
    names()(group, "_index")
    for name, make in columns.items():
        made = make()
        if callable(made):
            made(group, name)
        else:
            write_array(group, name, made)


def _listed(names: list[str], *, typed: bool) -> Any:
    """Return names as an attribute: a list in JSON; HDF5 needs an array, typed even if empty."""
    if not typed:
        return names
    return np.array(names, dtype=object) if names else np.zeros(0)


def _chosen(texts: Texts, rows: NDArray[np.integer[Any]]) -> Write:
    return lambda group, name: write_texts(group, name, len(rows), texts.pieces(rows))


def _some(table: Callable[[str], Column], name: str, rows: NDArray[np.integer[Any]]) -> Any:
    """Return some values of a column: numbers, or a function that writes them."""
    column = table(name)
    if column.texts is not None and 2 * column.texts.n_different() > len(column):
        return _chosen(column.texts, rows)  # categories would take more space than the strings
    if column.kind in ("categorical", "string"):
        codes, categories = column.codes[rows], column.categories
        return lambda group, name: write_categories(group, name, codes, categories)
    values = column.values[rows]
    if values.dtype == object:
        return lambda group, name: write_booleans(group, name, values)
    return values
