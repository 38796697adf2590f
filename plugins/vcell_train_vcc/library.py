"""`vcell.train`: a model of perturbation responses, as a run."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from vcell import library
from vcell.errors import UserError
from vcell.runs import Run


def train(cells: Any = None, *, runs: str | Path = "runs", **settings: Any) -> Run:
    """Train a model of perturbation responses, and score it on perturbations it never saw.

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
    words = [] if cells is None else [_on_disk(cells, where)]
    genes: Any = settings.get("genes")
    if hasattr(genes, "to_csv"):
        settings["genes"] = _kept(where, "genes", ".csv", partial(genes.to_csv, index=False))
    told = library.command("train-vcc", *words, runs=where, **settings)
    if "run" not in told:
        raise UserError("vcell.train gives a run back", hint="vcell.train_vcc gives anything else")
    return Run.open(told["run"])


def _on_disk(cells: Any, runs: Path) -> Path:
    """Return the path of the cells; AnnData in memory is written beside the runs, once."""
    if isinstance(cells, str | os.PathLike):
        return Path(cells)
    path = getattr(cells, "filename", None) or getattr(cells, "path", None)
    if path is not None:
        return Path(path)
    if not hasattr(cells, "write_h5ad"):
        raise UserError("vcell.train takes one AnnData, path or open source of a file")
    return _kept(runs, "cells", ".h5ad", cells.write_h5ad)


def _kept(runs: Path, name: str, ending: str, write: Any) -> Path:
    """Write a file named by its content, unless it is there."""
    runs.mkdir(parents=True, exist_ok=True)
    aside = runs / f".{name}-{os.getpid()}{ending}"
    try:
        write(aside)
        with aside.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
        path = runs / f"{name}-{content}{ending}"
        if not path.exists():
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
