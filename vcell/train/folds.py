"""`--folds K`: K runs that hold out each part of the data once, and one table that compares.

    vcell train-vcc cells.h5ad --folds 5
    vcell train-vcc --resume latest        # goes on with the folds that are not done

The run directory holds the runs of the folds in ``folds/``, the scores of every fold in
``folds.csv``, and their summary in ``folds.md``. The setting ``fold``, such as ``2/5``, tells each
run which part it holds out. A command that needs more runs, such as several seeds of each, defines
the settings of each (`Training.parts`).
"""

from __future__ import annotations

import csv
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.runs import Run
from vcell.train.training import Pooled, half_done

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vcell.train.training import Scores, Settings, Training


def trained(
    training: Training[Settings],
    this: Run,
    config: Settings,
    train: Callable[[Settings], Run],
) -> None:
    """Train the remaining folds, and score all.

    Parameters
    ----------
    training
        The description of the command.
    this
        The run that holds the runs of the folds.
    config
        The settings shared by all.
    train
        Trains with given settings and returns the finished run.
    """
    done: list[Run] = []
    parts = (training.parts or _parts)(config)
    for number, part in enumerate(parts, start=1):
        done.append(_fold(training, this, config, (number, part), train))
        this.update(stands_for=[run.name for run in done])
    pooled = _pooled(training, this, done)
    for name, write in pooled.files.items():
        this.save_file(name, write)
    this.save_file("folds.csv", lambda path: _write(path, done))
    this.save_file("folds.md", pooled.markdown)
    this.finish("done", **{"spread": _spread(done), **pooled.summary})


def _fold(
    training: Training[Settings],
    this: Run,
    config: Settings,
    numbered: tuple[int, Mapping[str, Any]],
    train: Callable[[Settings], Run],
) -> Run:
    number, part = numbered
    fold = _label(part)
    begun = next((run for run in this.parts() if part.items() <= run.meta["config"].items()), None)
    if begun is not None and begun.status() == "done":
        console.say(f"fold {fold} is done already: {begun.name}")
        return begun
    console.say(f"fold {fold}")
    alone = {"folds": None, "runs": this.path / "folds", "resume": half_done(training, begun)}
    if hasattr(config, "sweep_over"):
        alone["sweep_over"] = None
    run = train(dataclasses.replace(config, **part, **alone))
    this.log("fold", number, run=run.name, held_out=_scored(run))
    return run


def _parts(config: Any) -> list[dict[str, Any]]:
    """Return the settings of each run: the part that it holds out."""
    return [{"fold": f"{number}/{config.folds}"} for number in range(1, config.folds + 1)]


def _label(part: Mapping[str, Any]) -> str:
    """Return ``2/5``, or ``2/5, draw 1``."""
    rest = [f"{name} {value}" for name, value in part.items() if name != "fold"]
    return ", ".join([str(part["fold"]), *rest])


def _scored(run: Run) -> Scores:
    """Return the scores of one fold."""
    found: Scores = run.meta["summary"]["held_out"]
    return found


def _over(runs: Sequence[Run], means: Callable[[list[float]], Any]) -> Scores:
    """Reduce each score over the folds with `means`, for the models that all folds have."""
    scored = [_scored(run) for run in runs]
    return {
        name: {
            score: float(means([one[name][score] for one in scored]))
            for score in of
            if all(score in one[name] for one in scored)
        }
        for name, of in scored[0].items()
        if all(name in one for one in scored)
    }


def _spread(runs: Sequence[Run]) -> Scores:
    return _over(runs, lambda values: np.std(values, ddof=1))


def _pooled(training: Training[Any], this: Run, runs: Sequence[Run]) -> Pooled:
    if training.pool is not None:
        return training.pool(this.meta["model"], runs)
    found, spread = _over(runs, np.mean), _spread(runs)
    heads = ["model", *next(iter(found.values()), {})]
    rows = [
        [name, *(f"{value:.4f} ± {spread[name][score]:.4f}" for score, value in of.items())]
        for name, of in found.items()
    ]
    about = f"Held-out scores of {len(runs)} folds, mean ± standard deviation over folds"
    lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
    return Pooled(
        summary={"held_out": found},
        text=f"{about}\n\n{console.table(rows, heads)}",
        markdown="\n".join([f"{about}:", "", *lines, ""]),
    )


def _write(path: Path, runs: Sequence[Run]) -> None:
    """Write one line for each fold and model."""
    columns = list(dict.fromkeys(s for run in runs for of in _scored(run).values() for s in of))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "model", *columns, "run"])
        for run in runs:
            for name, of in _scored(run).items():
                scores = [f"{of[score]:.6g}" if score in of else "" for score in columns]
                writer.writerow([run.meta["config"]["fold"], name, *scores, run.name])


def tell(training: Training[Any], this: Run) -> None:
    """Print the summary of the folds."""
    runs = [Run.open(path) for path in this.stands_for()]
    pooled = _pooled(training, this, runs)
    result = {"run": str(this.path), "model": this.meta["model"], "folds": this.meta["folds"]}
    console.result(
        {**result, "spread": _spread(runs), **pooled.summary},
        f"{pooled.text}\n\nrun directory: {this.path}",
    )
