"""`vcell.predict`: cells of unmeasured perturbations, as AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vcell import library

if TYPE_CHECKING:
    from anndata import AnnData


def predict(
    run: Any,
    perturbations: str | Sequence[str] = (),
    *,
    output: str | Path | None = None,
    **settings: Any,
) -> AnnData:
    """Predict the cells of unmeasured perturbations.

    Parameters
    ----------
    run
        A `Run`, the path or name of one, or a list of these, which are averaged.
    perturbations
        Their names; by default those held out by the run.
    output
        An .h5ad file to write as well; by default nothing is written.
    **settings
        Settings of ``vcell predict`` by their Python names: ``n_cells``, ``model``, ...

    Returns
    -------
    anndata.AnnData
        Predicted cells and control cells.

    Examples
    --------
    >>> cells = vcell.predict(run, ["TP53", "MYC"], n_cells=200)  # doctest: +SKIP
    """
    import anndata

    runs = [str(getattr(one, "path", one)) for one in library.as_list(run)]
    if len(perturbations):
        settings["perturbations"] = perturbations
    with TemporaryDirectory() as aside:
        path = Path(aside) / "prediction.h5ad" if output is None else Path(output)
        library.command("predict", *runs, output=path, **settings)
        return anndata.read_h5ad(path)
