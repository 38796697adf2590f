"""`vcell.select_genes`: the genes as a table."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vcell import library

if TYPE_CHECKING:
    import pandas as pd


def select_genes(cells: Any, *, output: str | Path | None = None, **settings: Any) -> pd.DataFrame:
    """Choose the genes that a model uses.

    Parameters
    ----------
    cells
        AnnData, a path, an open source of `vcell.data.open_cells`, or a list of these.
    output
        A folder for the tables and the page; by default nothing is written.
    **settings
        Settings of ``vcell select-genes`` by Python name: ``n_genes``, ``hvg_flavor``, ...

    Returns
    -------
    pandas.DataFrame
        One row per chosen gene, most important first: `selected_genes.csv`.

    Examples
    --------
    >>> genes = vcell.select_genes(adata, n_genes=2000)  # doctest: +SKIP
    """
    import pandas as pd

    with TemporaryDirectory() as aside:
        folder = Path(aside) / "genes" if output is None else Path(output)
        library.command("select-genes", *library.as_list(cells), output=folder, **settings)
        return pd.read_csv(folder / "selected_genes.csv")
