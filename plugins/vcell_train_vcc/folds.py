"""`--folds K`: every perturbation is held out once, in K runs, and one table says who won.

    vcell train-vcc cells.h5ad --folds 5
    vcell train-vcc --resume latest        # goes on with the folds that are not done

The run directory holds the runs of the folds in ``folds/``, the scores of every fold in
``folds.csv``, and their means and spreads in ``folds.md``.
"""

from __future__ import annotations

import csv
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.models.scoring import gain
from vcell_train_vcc import report, several

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vcell.runs import Run
    from vcell_train_vcc import TrainVcc

    Table = dict[str, dict[str, float]]

_APART = ("fold", "held_out", "hold_out_context", "sweep")  # other ways to hold out, or to go about
_SCORES = ("pds", "mae", "delta_correlation", "gain")


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
    scored = [_scored(run) for run in done]
    found, spread = summary(scored)
    this.save_file("folds.csv", lambda path: _write(path, done, scored))
    this.save_file("folds.md", lambda path: _text_to(path, found, spread, len(done)))
    this.finish("done", held_out=found, spread=spread)


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
    """Return the scores of a fold, and what each model gains over the mean there."""
    found: Table = run.meta["summary"]["held_out"]
    return {name: {**of, "gain": gain(of, found["mean"])} for name, of in found.items()}


def summary(scored: list[Table]) -> tuple[Table, Table]:
    """Return means and standard deviations over the folds, of the models that all folds have."""
    names = [name for name in scored[0] if all(name in one for one in scored)]
    values = {
        name: {score: np.array([one[name][score] for one in scored]) for score in _SCORES}
        for name in names
    }
    mean = {name: {s: float(v.mean()) for s, v in of.items()} for name, of in values.items()}
    spread = {name: {s: float(v.std(ddof=1)) for s, v in of.items()} for name, of in values.items()}
    return mean, spread


def _write(path: Path, runs: list[Run], scored: list[Table]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "model", *_SCORES, "run"])
        for run, found in zip(runs, scored, strict=True):
            for name, of in found.items():
                scores = [f"{of[score]:.6g}" for score in _SCORES]
                writer.writerow([run.meta["config"]["fold"], name, *scores, run.name])


def _rows(found: Table, spread: Table) -> list[list[str]]:
    return [
        [name, *(f"{of[score]:.4f} ± {spread[name][score]:.4f}" for score in _SCORES)]
        for name, of in found.items()
    ]


_COLUMNS = ("model", "PDS", "MAE", "delta correlation", "gain over mean")


def _text_to(path: Path, found: Table, spread: Table, n: int) -> None:
    rows = [list(_COLUMNS), ["---"] * len(_COLUMNS), *_rows(found, spread)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    path.write_text(
        f"Held-out perturbations of {n} folds, mean ± standard deviation over folds "
        f"(pseudobulk):\n\n{table}\n",
        encoding="utf-8",
    )


def tell(this: Run) -> None:
    """Say who won."""
    model, told = this.meta["model"], this.meta["summary"]
    found, spread = told["held_out"], told["spread"]
    verdict = report.verdict(model, found, {name: of["gain"] for name, of in found.items()})
    result: dict[str, Any] = {"run": str(this.path), "model": model, "folds": this.meta["folds"]}
    console.result(
        {**result, "held_out": found, "spread": spread},
        f"{verdict} in the mean of {this.meta['folds']} folds "
        "(mean ± standard deviation over folds, pseudobulk)\n\n"
        f"{console.table(_rows(found, spread), _COLUMNS)}\n\nrun directory: {this.path}",
    )
