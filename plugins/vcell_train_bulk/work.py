"""Implementation of `vcell train-bulk`: read patients, cross-validate, score and report."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.config import provenance
from vcell.data import open_cells
from vcell.data.detect import refuse_repeated, require_counts
from vcell.errors import DiskFull, UserError
from vcell.launch.worker import no_room
from vcell.outputs import check_folder
from vcell.patients import cohort as cohorts
from vcell.patients import features, final, folds, nested, saved
from vcell.patients.communication import read_pairs
from vcell.patients.network import BulkSettings
from vcell.runs import Run
from vcell.runs.files import checksum
from vcell.text_files import read_text
from vcell.train.command import fingerprint, resume_command
from vcell_train_bulk import report

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.patients.cohort import Cohort, Members
    from vcell.patients.saved import BulkStudy
    from vcell_train_bulk import TrainBulk


def run(file: Path | None, config: TrainBulk) -> None:
    """Run the command."""
    if config.resume:
        this = Run.open(config.resume, root=config.runs)
        cohort, plan = saved.opened(this)
        this.claim()
    else:
        check_folder(config.runs)
        config = dataclasses.replace(config, cells=(file or config.cells))
        cohort, plan, data = _begun(config)

        def begin(run: Run) -> None:
            run.save_file(saved.COHORT, cohort.save)
            run.save_file(saved.DESIGN, plan.plain())

        this = Run.create(
            config.runs, saved.COMMAND, config=dataclasses.asdict(config),
            provenance=provenance(), seed=config.seed, data=data, begin=begin,
        )  # fmt: skip
    console.say(f"run directory: {this.path}")
    try:
        _folds(this, cohort, plan)
        _model(this, cohort, plan)
        summary = report.write(this, cohort, plan)
        this.finish("done", **summary)
    except KeyboardInterrupt:
        this.finish("interrupted")
        console.say(f"to go on: {resume_command(saved.COMMAND, this)}")
        raise
    except BaseException as error:
        with suppress(DiskFull, OSError):  # must not hide the error raised below
            this.finish("failed")
        if full := no_room(this, error):
            raise full from None
        raise
    report.tell(this, cohort, summary)


def _begun(config: TrainBulk) -> tuple[Cohort, BulkStudy, list[dict[str, Any]]]:
    """Read the cells, and choose the folds; check everything before a run is created.

    Returns what was read too: `vcell pipeline` continues a run only if no file has changed.
    """
    path = config.cells
    if path is None:
        raise UserError("no cells are named", hint="vcell train-bulk cells.h5ad")
    if config.cell_type_column is None:
        raise UserError("no column of cell types is named", hint="--cell-type-column COLUMN")
    if config.gmvae and config.folds_file:
        raise UserError("--gmvae and --folds-file contradict each other", hint="give one of them")
    columns = cohorts.PatientColumns(
        config.patient_column, config.outcome_column, config.cell_type_column, config.batch_column
    )
    given = _folds_of(config.folds_file)
    if config.gmvae:
        Run.open(config.gmvae, root=config.runs).refuse_unless_of("train-gmvae")
    with open_cells(path, config.layer) as source:
        refuse_repeated(source)
        require_counts(source)
        members = cohorts.members(source, columns, config.min_cells)
        pairs = read_pairs(config.pairs, source.genes) if config.pairs else None
        cohort = cohorts.read(source, members, pairs)
        data = fingerprint(source)
        if config.shuffle_outcomes:
            rng = np.random.default_rng((config.seed, 0x5F1))
            cohort = dataclasses.replace(cohort, outcome=rng.permutation(cohort.outcome))
            console.say("outcomes are shuffled between patients: any skill shown is luck")
        fold = _dealt(cohort, config, given)
        cohort, learners = _states(cohort, source, members, config, given, int(fold.max()) + 1)
    if config.pseudobulk:
        cohort = cohorts.with_examples(cohort, config.pseudobulk, config.patient_column)
    settings = BulkSettings(
        modalities=config.modalities, fusion=config.fusion, teacher=config.teacher,
        reconstruction=config.reconstruction, kl=config.kl, contrast=config.contrast,
    )  # fmt: skip
    search = nested.Search(
        inner=config.inner_folds, axes=config.axes, steps=config.steps, members=config.members,
        genes=config.genes, seed=config.seed,
    )  # fmt: skip
    nested.with_what_is_there(settings, cohort, learners[0])  # refuses if nothing is left
    plan = saved.BulkStudy(fold, learners, settings, search, config.shuffle_outcomes)
    _say(cohort, plan)
    others = [path for path in (config.pairs, config.pseudobulk, config.folds_file) if path]
    return cohort, plan, [data, *({"path": str(p), "sha256": checksum(p)} for p in others)]


def _folds_of(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: is not a file of folds")
    return found


def _dealt(cohort: Cohort, config: TrainBulk, given: dict[str, Any]) -> np.ndarray[Any, Any]:
    if given:
        fold = folds.read(cohort.patients, given, str(config.folds_file))
    else:
        n = folds.possible(cohort.outcome, config.folds)
        fold = folds.dealt(cohort.patients, cohort.outcome, n, config.seed)
    for k in range(int(fold.max()) + 1):
        if len(np.unique(cohort.outcome[fold != k])) < len(cohort.outcomes):
            raise UserError(f"without fold {k} an outcome has no patient left to learn from")
    for code, name in enumerate(cohort.outcomes):
        own = cohort.outcome == code
        if not np.isin(fold[own], fold[~own]).any():
            raise UserError(
                f"{config.folds_file}: no fold has a patient of outcome {name!r} and one of "
                "another",
                hint="AUC compares patients of one fold: deal each outcome over the folds",
            )
    return fold


def _states(
    cohort: Cohort, source: CellSource, members: Members, config: TrainBulk,
    given: dict[str, Any], n: int,
) -> tuple[Cohort, tuple[str, ...]]:  # fmt: skip
    """Add states: from one run for all folds, or for each fold one trained without its patients."""
    shared = (saved.WHOLE,) * n
    names = [one.get("gmvae") for one in given.get("folds", [])]
    if not (config.gmvae or any(names)):
        console.say("no run of train-gmvae is named: there are no states of cell types")
        return cohort, shared
    if "states" not in config.modalities:
        return cohort, shared
    from vcell.gmvae.trained import Trained

    if config.gmvae:
        trained = Trained.load(Run.open(config.gmvae, root=config.runs))
        console.warn(
            f"{config.gmvae} may have seen cells of test patients (never their outcomes): "
            "`vcell pipeline bulk` trains one for each fold"
        )
        return cohorts.with_states(cohort, source, members, saved.WHOLE, trained), shared
    learners = []
    for k, name in enumerate(names):
        if not name:
            raise UserError(f"{config.folds_file}: fold {k} names no run of train-gmvae")
        run = Run.open(name, root=config.runs)
        _refuse_seen(run, given["folds"][k]["test"], config, k)
        trained = Trained.load(run)
        cohort = cohorts.with_states(cohort, source, members, f"fold-{k}", trained)
        learners.append(f"fold-{k}")
    return cohort, tuple(learners)


def _refuse_seen(run: Run, tests: list[str], config: TrainBulk, k: int) -> None:
    """Refuse a run of train-gmvae that was trained on cells of the fold's test patients.

    Its cells are read again; a file that is gone, was changed or names no patients tells nothing.
    """
    for read in run.meta.get("data") or []:
        path = Path(read.get("path") or "")
        if not path.is_file() or path.stat().st_mtime != read.get("modified"):
            continue
        with open_cells(path) as source:
            if config.patient_column not in source.obs_columns:
                continue
            column = source.obs(config.patient_column)
            seen = {str(name) for name in column.categories[column.counts() > 0]}
        if both := sorted(seen.intersection(tests)):
            raise UserError(
                f"{config.folds_file}: fold {k} tests patient {both[0]!r}, of whom {run.name} has "
                "seen cells",
                hint="name a run of train-gmvae on the other folds' patients",
            )


def _say(cohort: Cohort, plan: BulkStudy) -> None:
    numbers = np.bincount(cohort.outcome, minlength=len(cohort.outcomes)).tolist()
    each = ", ".join(f"{n} {name}" for name, n in zip(cohort.outcomes, numbers, strict=True))
    has = features.there(cohort, plan.learners[0])
    console.say(
        f"{cohort.n} patients ({each}) in {plan.folds} folds; {len(cohort.types)} cell types, "
        f"{console.count(len(cohort.genes), 'gene')}; {' and '.join(has)}; "
        f"{console.count(len(cohort.more_of), 'further sample')}"
    )


def _folds(this: Run, cohort: Cohort, plan: BulkStudy) -> None:
    """Compute the outer folds that are missing."""
    left = [k for k in range(plan.folds) if saved.outer_of(this, k) is None]
    with console.progress("folds", len(left) * nested.fits(plan.search), "fits") as bar:
        for k in left:
            found = nested.outer(
                cohort, plan.train(k), plan.tests(k), plan.learners[k], plan.settings,
                plan.search, tick=bar.advance,
            )  # fmt: skip
            saved.save_outer(this, k, found)
            this.log("fold", step=k, axes=found.chosen.axes, steps=found.chosen.steps)


def _model(this: Run, cohort: Cohort, plan: BulkStudy) -> None:
    """Fit the model for new patients to all patients, unless outcomes are shuffled."""
    if plan.shuffled or final.is_saved(this):
        return
    with console.progress(
        "learning from all patients", nested.fits(plan.search) - 1, "fits"
    ) as bar:
        model = final.FinalBulkModel.learn(cohort, plan, bar.advance)
    model.save(this)
