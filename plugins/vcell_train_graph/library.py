"""`vcell.train_graph`: a model of gene sets from a data frame, as a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vcell import library
from vcell.runs import Run


def train_graph(table: Any = None, *, runs: str | Path = "runs", **settings: Any) -> Run:
    """Learn values of gene sets, and test whether gene graphs help.

    Parameters
    ----------
    table
        A data frame with the columns gene_1, gene_2, ... and value, or a path. A data frame is
        first written into `runs`, since the run needs its table to resume.
    runs
        The folder of the run directories.
    **settings
        Settings of ``vcell train-graph`` by Python name: ``graph``, ``model``, ``control``, ...

    Returns
    -------
    Run
        Its ``meta["summary"]`` has the scores and the verdicts.

    Examples
    --------
    >>> run = vcell.train_graph(frame, graph="ppi.tsv", model="graph-gp")  # doctest: +SKIP
    """
    where = Path(runs)
    arguments = []
    if hasattr(table, "to_csv"):
        arguments = [
            library.saved(
                where, "sets", ".tsv", lambda path: table.to_csv(path, sep="\t", index=False)
            )
        ]
    elif table is not None:
        arguments = [Path(os.fspath(table))]
    result = library.command("train-graph", *arguments, runs=where, **settings)
    return Run.open(result["run"])
