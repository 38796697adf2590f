"""`--folds K`: every perturbation is held out once, in K runs, and one table says who won.

    vcell train-vcc cells.h5ad --folds 5
    vcell train-vcc --resume latest        # goes on with the folds that are not done

The run directory holds the runs of the folds in ``folds/``, the scores of every fold in
``folds.csv``, what was scored in all of them in ``held_out.csv``, and the verdict in ``folds.md``.
"""

from __future__ import annotations

import csv
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.runs import Run
from vcell_train_vcc import several
from vcell_train_vcc.held_out import ALL, FILE, HeldOut, markdown, tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vcell_train_vcc import TrainVcc

    Table = dict[str, dict[str, float]]

_APART = ("fold", "held_out", "hold_out_context", "sweep")  # other ways to hold out, or to go about


def started(config: TrainVcc) -> Run:
    """Make the run that holds the folds."""
    return several.started(config, "folds", _APART, folds=config.folds)


def trained(this: Run, config: TrainVcc, train: Callable[[TrainVcc], Run]) -> None:
    """Train the folds that are not done, and score them all.

    Parameters
    ----------
    this
        The run that holds them.
    config
        The settings of all.
    train
        Trains with given settings, and returns the finished run.
    """
    done: list[Run] = []
    for number in range(1, this.meta["folds"] + 1):
        done.append(_fold(this, config, number, train))
        this.update(stands_for=[run.name for run in done])
    found = HeldOut.read(done)
    summary = found.summary(this.meta["model"])
    spread = _spread(done)
    this.save_file(FILE, found.write)
    this.save_file("folds.csv", lambda path: _write(path, done))
    this.save_file("folds.md", lambda path: _text_to(path, summary, len(done)))
    this.finish("done", **summary, spread=spread)


def _fold(this: Run, config: TrainVcc, number: int, train: Callable[[TrainVcc], Run]) -> Run:
    fold = f"{number}/{this.meta['folds']}"
    begun = next((run for run in this.parts() if run.meta["config"]["fold"] == fold), None)
    if begun is not None and begun.status() == "done":
        console.say(f"fold {fold} is done already: {begun.name}")
        return begun
    console.say(f"fold {fold}")
    settings = dataclasses.replace(
        config,
        fold=fold,
        folds=None,
        sweep_over=None,
        runs=this.path / "folds",
        resume=several.half_done(begun),
    )
    run = train(settings)
    this.log("fold", number, run=run.name, held_out=run.meta["summary"]["held_out"])
    return run


def _scored(run: Run) -> Table:
    """Return the mean scores of one fold."""
    found: Table = run.meta["summary"]["held_out"]
    return found


def _spread(runs: list[Run]) -> Table:
    """Return the standard deviations over the folds, of the models that all folds have."""
    scored = [_scored(run) for run in runs]
    return {
        name: {s: float(np.std([one[name][s] for one in scored], ddof=1)) for s in of}
        for name, of in scored[0].items()
        if all(name in one for one in scored)
    }


def _write(path: Path, runs: list[Run]) -> None:
    columns = (*ALL, "gain")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "model", *columns, "run"])
        for run in runs:
            for name, of in _scored(run).items():
                scores = [f"{of[score]:.6g}" for score in columns]
                writer.writerow([run.meta["config"]["fold"], name, *scores, run.name])


def _text_to(path: Path, summary: dict[str, Any], n: int) -> None:
    lines = [f"# Held-out perturbations of {n} folds, pooled (pseudobulk)", "", *markdown(summary)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def tell(this: Run) -> None:
    """Say who won."""
    found = HeldOut.read([Run.open(path) for path in this.stands_for()])
    summary = found.summary(this.meta["model"])
    result: dict[str, Any] = {
        "run": str(this.path), "model": this.meta["model"], "folds": this.meta["folds"], **summary,
    }  # fmt: skip
    console.result(
        result | {"spread": this.meta["summary"]["spread"]},
        f"{summary['verdict']['text']}\n{len(found.names)} held-out perturbations of "
        f"{this.meta['folds']} folds, pooled (pseudobulk)\n\n"
        f"{tables(summary)}\n\nrun directory: {this.path}",
    )
