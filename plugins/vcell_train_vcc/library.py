"""`vcell.train`: a model of perturbation responses, as a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from vcell import library
from vcell.errors import UserError
from vcell.runs import Run


def train(cells: Any = None, *, runs: str | Path = "runs", **settings: Any) -> Run:
    """Train a model of perturbation responses, and score it on unseen perturbations.

    Parameters
    ----------
    cells
        AnnData, a path, or an open source. An AnnData in memory is written into `runs` first: the
        run needs its cells when it is resumed, and when it predicts.
    runs
        The folder of the run directories.
    **settings
        Those of ``vcell train-vcc`` by their Python names: ``model``, ``genes``, ``features``,
        ``max_steps``, ``resume``, ... ``genes`` may be the table of `vcell.select_genes`.

    Returns
    -------
    Run
        Its ``meta["summary"]`` has the scores; `vcell.predict` takes it.

    Examples
    --------
    >>> run = vcell.train(adata, model="ridge")  # doctest: +SKIP
    """
    where = Path(runs)
    arguments = [] if cells is None else [cells]
    genes: Any = settings.get("genes")
    if hasattr(genes, "to_csv"):
        write = partial(genes.to_csv, index=False)
        settings["genes"] = library.saved(where, "genes", ".csv", write)
    result = library.command("train-vcc", *arguments, runs=where, **settings)
    if "run" not in result:
        raise UserError("vcell.train gives a run back", hint="vcell.train_vcc gives anything else")
    return Run.open(result["run"])
