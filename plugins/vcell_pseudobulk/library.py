"""`vcell.pseudobulk`: samples as an AnnData."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vcell import library

if TYPE_CHECKING:
    from anndata import AnnData


def pseudobulk(
    data: Any, labels: str, /, *, output: str | Path | None = None, **settings: Any
) -> AnnData:
    """Sum cells drawn by type.

    Parameters
    ----------
    data
        AnnData, a path, or an open source of `vcell.data.open_cells`: raw counts.
    labels
        The obs column of cell types.
    output
        An .h5ad file to write as well; by default nothing is written.
    **settings
        Those of ``vcell pseudobulk`` by their Python names: ``samples``, ``cells``, ``mode``,
        ``by``, ``split_by``, ``deconvolve``, ...

    Returns
    -------
    AnnData
        Sums in ``X``; ``obsm["fractions"]``, a data frame with one column per type; and in
        ``uns["pseudobulk"]`` the settings and, with ``deconvolve``, the scores.

    Examples
    --------
    >>> bulk = vcell.pseudobulk(adata, "cell_type", samples=200)  # doctest: +SKIP
    """
    import anndata
    import pandas as pd

    with TemporaryDirectory() as aside:
        path = Path(aside) / "bulk.h5ad" if output is None else Path(output)
        result = library.command("pseudobulk", data, output=path, labels=labels, **settings)
        bulk = anndata.read_h5ad(path)
    for name in list(bulk.obsm):
        bulk.obsm[name] = pd.DataFrame(
            bulk.obsm[name], index=bulk.obs_names, columns=result["types"]
        )
    if "scores" in result:
        bulk.uns["pseudobulk"]["scores"] = result["scores"]
    return bulk
