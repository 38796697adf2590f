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
    """Add up cells drawn by type.

    Parameters
    ----------
    data
        AnnData, a path, or an open source of `vcell.data.open_cells`: raw counts.
    labels
        The obs column of cell types.
    output
        An .h5ad to keep, too; by default nothing is written.
    **settings
        Those of ``vcell pseudobulk`` by their Python names: ``samples``, ``cells``, ``mode``,
        ``by``, ``split_by``, ``deconvolve``, ...

    Returns
    -------
    AnnData
        ``X`` sums, ``obsm["fractions"]`` as a frame with a column a type, ``uns["pseudobulk"]`` how
        they were made and, with ``deconvolve``, the scores.

    Examples
    --------
    >>> bulk = vcell.pseudobulk(adata, "cell_type", samples=200)  # doctest: +SKIP
    """
    import anndata
    import pandas as pd

    with TemporaryDirectory() as aside:
        path = Path(aside) / "bulk.h5ad" if output is None else Path(output)
        told = library.command("pseudobulk", data, output=path, labels=labels, **settings)
        bulk = anndata.read_h5ad(path)
    for name in list(bulk.obsm):
        bulk.obsm[name] = pd.DataFrame(bulk.obsm[name], index=bulk.obs_names, columns=told["types"])
    if "scores" in told:
        bulk.uns["pseudobulk"]["scores"] = told["scores"]
    return bulk
