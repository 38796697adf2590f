"""Implementation of `vcell ablate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell import console, outputs
from vcell.patients import ablation, saved
from vcell.runs import Run

if TYPE_CHECKING:
    from vcell_ablate import Ablate


def ablate(name: str, config: Ablate) -> None:
    """Run the command."""
    run = Run.open(name, root=config.runs)
    cohort, study = saved.opened(run)
    saved.finished(run, study)
    outputs.check(
        run.path / "ablation.json", run.path / "ablation.csv", overwrite=True, flag=""
    )  # an ablation that was made before is made again
    variants = ablation.planned(cohort, study)
    console.say(
        f"{console.count(len(variants), 'variant')} in the {study.folds} folds of {run.name}; "
        "axes, steps and temperature are those that the full model chose"
    )
    with console.progress("ablation", len(variants) * study.folds, "folds") as bar:
        found = ablation.done(run, cohort, study, bar.advance)
    rows = ablation.scored(run, cohort, study, found)
    table, verdict = ablation.table_of(rows), ablation.verdict(rows, cohort.n)
    mark = {outputs.MADE_BY: outputs.made_by()}
    run.save_file("ablation.json", mark | {"rows": rows, "verdict": verdict})
    run.save_file("ablation.csv", table.csv())
    result = {"run": str(run.path), "rows": rows, "verdict": verdict}
    console.result(result, f"{table.text()}\n\n{verdict}\n{run.path / 'ablation.csv'}")
