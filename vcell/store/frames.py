"""Tables of cells and genes as pandas frames that anndata can write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from vcell.data import CellSource, Column


def obs_frame(source: CellSource, rows: NDArray[np.int64]) -> pd.DataFrame:
    """Read some cells' columns, one column at a time; text becomes categories."""
    columns = {name: series_of(source.obs(name), rows) for name in source.obs_columns}
    return _frame(columns, source.cells[rows])


def var_frame(source: CellSource, columns: NDArray[np.int64]) -> pd.DataFrame:
    """Read some genes' columns."""
    data = {name: series_of(source.var(name), columns) for name in source.var_columns}
    return _frame(data, source.genes[columns])


def _frame(columns: dict[str, Any], names: NDArray[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns, index=pd.Index(names.astype(str), dtype=object))


def series_of(column: Column, rows: NDArray[np.int64]) -> Any:
    """Return some values of a column, in a type that anndata writes whatever is missing."""
    import pandas as pd

    if column.kind in ("categorical", "string"):
        return pd.Categorical.from_codes(column.codes[rows], column.categories.astype(object))
    values = column.values[rows]
    if values.dtype == object:
        return pd.array(values, dtype="boolean")
    return values
