"""Tables of cells and genes written as anndata does, one column in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.texts import PIECE, Texts

if TYPE_CHECKING:
    from vcell.data import CellSource, Column

#: What makes a column when it is its turn to be written.
Columns = Mapping[str, Callable[[], Any]]


def write_obs(
    root: Any, source: CellSource, rows: NDArray[np.int64], more: Columns | None = None
) -> None:
    """Write the table of some cells, and columns of ours."""
    columns = {name: partial(_some, source.obs, name, rows) for name in source.obs_columns}
    _write(root, "obs", lambda: _Chosen(source.cells, rows), _beside(columns, more or {}))


def write_var(
    root: Any, source: CellSource, genes: NDArray[np.int64], more: Columns | None = None
) -> None:
    """Write the table of some genes, and columns of ours."""
    columns = {name: partial(_some, source.var, name, genes) for name in source.var_columns}
    names = Texts.of(source.genes)
    _write(root, "var", lambda: _Chosen(names, genes), _beside(columns, more or {}))


def _beside(columns: Columns, ours: Columns) -> Columns:
    """Add columns of ours; the input's of the same name are kept as ``input_NAME``."""
    theirs = {f"input_{name}" if name in ours else name: c for name, c in columns.items()}
    return {**theirs, **ours}


@dataclass(frozen=True)
class _Chosen:
    """Some strings of many, in this order, to be written a few at a time."""

    texts: Texts
    rows: NDArray[np.int64]


def _write(root: Any, table: str, names: Callable[[], _Chosen], columns: Columns) -> None:
    import anndata.io

    if table in root:  # of a run that was killed here
        del root[table]
    group = root.create_group(table)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
    group.attrs["_index"] = "_index"
    group.attrs["column-order"] = _listed(list(columns), is_hdf5=hasattr(root, "id"))
    _write_texts(group, "_index", names())
    for name, make in columns.items():
        made = make()
        if isinstance(made, _Chosen):
            _write_texts(group, name, made)
        else:
            anndata.io.write_elem(group, name, made)


def _write_texts(group: Any, name: str, chosen: _Chosen) -> None:
    """Write strings in pieces, as each takes many times its size on the way."""
    import anndata.io

    at = 0
    for piece in chosen.texts.pieces(chosen.rows):
        if at == 0:
            grows = hasattr(group, "id") and len(chosen.rows) > PIECE  # zarr's always can
            more = {"maxshape": (None,), "chunks": (PIECE,)} if grows else {}
            anndata.io.write_elem(group, name, piece, dataset_kwargs=more)
        else:
            group[name].resize((at + len(piece),))
            group[name][at : at + len(piece)] = piece
        at += len(piece)
    if at == 0:
        anndata.io.write_elem(group, name, np.empty(0, object))


def _listed(names: list[str], *, is_hdf5: bool) -> Any:
    """Return names as an attribute: a list in JSON; HDF5 wants an array, and none has no type."""
    if not is_hdf5:
        return names
    return np.array(names, dtype=object) if names else np.zeros(0)


def _some(table: Callable[[str], Column], name: str, rows: NDArray[np.int64]) -> Any:
    """Return some values of a column, in a type that anndata writes whatever is missing."""
    import pandas as pd

    column = table(name)
    if column.texts is not None and 2 * column.texts.n_different() > len(column):
        return _Chosen(column.texts, rows)  # categories would take more than the strings
    if column.kind in ("categorical", "string"):
        return pd.Categorical.from_codes(column.codes[rows], column.categories.astype(object))
    values = column.values[rows]
    if values.dtype == object:
        return pd.array(values, dtype="boolean")
    return values
