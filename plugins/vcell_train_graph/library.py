"""`vcell.train_graph`: values of gene sets from frames, as a run."""

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
        A frame with the columns gene_1, gene_2, ... and value, or a path. A frame is first written
        into `runs`: a run needs its table when it is resumed.
    runs
        The folder of the run directories.
    **settings
        Those of ``vcell train-graph`` by their Python names: ``graph``, ``model``, ``control``, ...

    Returns
    -------
    Run
        Its ``meta["summary"]`` has the scores and the verdicts.

    Examples
    --------
    >>> run = vcell.train_graph(frame, graph="ppi.tsv", model="graph-gp")  # doctest: +SKIP
    """
    where = Path(runs)
    words = []
    if hasattr(table, "to_csv"):
        words = [
            library.saved(
                where, "sets", ".tsv", lambda path: table.to_csv(path, sep="\t", index=False)
            )
        ]
    elif table is not None:
        words = [Path(os.fspath(table))]
    told = library.command("train-graph", *words, runs=where, **settings)
    return Run.open(told["run"])
