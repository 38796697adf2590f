"""`--folds K`: K runs that hold out each part of the data once, and one table that compares.

    vcell train-vcc cells.h5ad --folds 5
    vcell train-vcc --resume latest        # goes on with the folds that are not done

The run directory holds the runs of the folds in ``folds/``, the scores of every fold in
``folds.csv``, and their means and spreads in ``folds.md``. Each run is told which part it holds out
by the setting ``fold``: ``2/5``.
"""

from __future__ import annotations

import csv
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.runs import Run
from vcell.train.training import half_done

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vcell.train.training import Scores, Settings, Training


def trained(
    training: Training[Settings],
    this: Run,
    config: Settings,
    train: Callable[[Settings], Run],
) -> None:
    """Train the folds that are not done, and score them all.

    Parameters
    ----------
    training
        The command.
    this
        The run that holds them.
    config
        The settings of all.
    train
        Trains with given settings, and returns the finished run.
    """
    done: list[Run] = []
    for number in range(1, this.meta["folds"] + 1):
        done.append(_fold(training, this, config, number, train))
        this.update(stands_for=[run.name for run in done])
    scored = [training.held_out(run) for run in done]
    found, spread = summary(scored, list(training.columns))
    this.save_file("folds.csv", lambda path: _write(path, training, done, scored))
    pooled = training.pooled(this.meta["model"], done) if training.pooled else None
    for name, write in (pooled.files if pooled else {}).items():
        this.save_file(name, write)
    table = pooled.markdown if pooled else ""
    this.save_file("folds.md", lambda p: _text_to(p, training, found, spread, len(done), table))
    told = {"held_out": found, "spread": spread} | (dict(pooled.summary) if pooled else {})
    this.finish("done", **told)


def _fold(
    training: Training[Settings],
    this: Run,
    config: Settings,
    number: int,
    train: Callable[[Settings], Run],
) -> Run:
    fold = f"{number}/{this.meta['folds']}"
    begun = next((run for run in this.parts() if run.meta["config"]["fold"] == fold), None)
    if begun is not None and begun.status() == "done":
        console.say(f"fold {fold} is done already: {begun.name}")
        return begun
    console.say(f"fold {fold}")
    alone = {"folds": None, "runs": this.path / "folds", "resume": half_done(training, begun)}
    if hasattr(config, "sweep_over"):
        alone["sweep_over"] = None
    run = train(dataclasses.replace(config, fold=fold, **alone))
    this.log("fold", number, run=run.name, held_out=run.meta["summary"]["held_out"])
    return run


def summary(scored: list[Scores], columns: list[str]) -> tuple[Scores, Scores]:
    """Return means and standard deviations over the folds, of the models that all folds have."""
    names = [name for name in scored[0] if all(name in one for one in scored)]
    values = {
        name: {score: np.array([one[name][score] for one in scored]) for score in columns}
        for name in names
    }
    mean = {name: {s: float(v.mean()) for s, v in of.items()} for name, of in values.items()}
    spread = {name: {s: float(v.std(ddof=1)) for s, v in of.items()} for name, of in values.items()}
    return mean, spread


def _write(path: Path, training: Training[Any], runs: list[Run], scored: list[Scores]) -> None:
    columns = list(training.columns)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "model", *columns, "run"])
        for run, found in zip(runs, scored, strict=True):
            for name, of in found.items():
                scores = [f"{of[score]:.6g}" for score in columns]
                writer.writerow([run.meta["config"]["fold"], name, *scores, run.name])


def _rows(found: Scores, spread: Scores) -> list[list[str]]:
    return [
        [name, *(f"{value:.4f} ± {spread[name][score]:.4f}" for score, value in of.items())]
        for name, of in found.items()
    ]


def _heads(columns: Mapping[str, str]) -> list[str]:
    return ["model", *columns.values()]


def _text_to(
    path: Path, training: Training[Any], found: Scores, spread: Scores, n: int, pooled: str
) -> None:
    heads = _heads(training.columns)
    rows = [heads, ["---"] * len(heads), *_rows(found, spread)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    whole = f"# {n} folds together\n\n{pooled}\n\n# Each fold\n\n" if pooled else ""
    path.write_text(
        f"{whole}Held-out scores of {n} folds, mean ± standard deviation over folds:\n\n{table}\n",
        encoding="utf-8",
    )


def tell(training: Training[Any], this: Run) -> None:
    """Print the table, and who won."""
    model, told, n = this.meta["model"], this.meta["summary"], this.meta["folds"]
    result = {"run": str(this.path), "model": model, "folds": n, **told}
    if training.pooled is not None:
        runs = [Run.open(path) for path in this.stands_for()]
        text = training.pooled(model, runs).text
    else:
        heads = _heads(training.columns)
        table = console.table(_rows(told["held_out"], told["spread"]), heads)
        text = f"means of {n} folds, ± standard deviation over folds\n\n{table}"
    console.result(result, f"{text}\n\nrun directory: {this.path}")
