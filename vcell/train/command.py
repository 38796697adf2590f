"""Start the run of a command that trains, resume it, and read its settings again.

    run(Training(name="train-mine", ...), config)

is the whole work of such a command: it starts a run or resumes one, several for ``--folds`` and
``--sweep``, launches the processes, and reports the result.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vcell import console, outputs
from vcell.config import provenance, settings_of
from vcell.config.toml import shown_path
from vcell.errors import DiskFull, RunFailed, UserError
from vcell.gpu import profiles
from vcell.launch import Plan, join_run, launch, make_plan, resume_run
from vcell.runs import ROOT, Run
from vcell.train import folds, many, sweep

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.train.training import NewRun, Settings, Training

Options = TypeVar("Options", bound=Hashable)


def run(training: Training[Settings], config: Settings) -> None:
    """Do what the command asks: one run, or several."""
    if not config.resume:
        outputs.check_folder(config.runs)
    if parts := _parts(training, config):
        _several(training, config, parts)
        return
    this, plan = _trained(training, config)
    if plan.leads:
        training.tell(Run.open(this.path))


def cells_to_train_on(name: str, given: Path | None, known: Path | None) -> Path:
    """Return the absolute path of the cells: those given, or those of the project file."""
    path = given or known
    if path is None:
        raise UserError(
            "no cells to train on",
            hint=f"vcell {name} cells.h5ad, or [data] cells in vcell.toml",
        )
    return path.absolute()


def as_typed(path: Path) -> Path:
    """Return an absolute path as the user would type it from here, for messages."""
    return Path(shown_path(path))


def settings_of_run(options: type[Options], run: Run) -> Options:
    """Return the settings a run was started with.

    Settings that are missing there have their defaults. A config class may read those of earlier
    versions: its ``earlier(saved)``, if defined, returns them under today's names.
    """
    saved = run.meta.get("config") or {}
    try:
        if earlier := getattr(options, "earlier", None):
            saved = earlier(saved)
        values = {
            setting.name: setting.check(saved[setting.name])
            for setting in settings_of(options)
            if saved.get(setting.name) is not None
        }
        return options(**values)
    except ValueError as error:
        raise UserError(f"{run.path / 'run.json'}: the settings are damaged: {error}") from None


def fingerprint(source: CellSource) -> dict[str, Any]:
    """Describe the file that was read, so that a change of it is noticed."""
    stat = source.path.stat() if source.path else None
    return {
        "path": str(source.path.absolute()) if source.path else None,
        "bytes": stat.st_size if stat else None,
        "modified": stat.st_mtime if stat else None,
        "n_cells": source.n_cells,
        "n_genes": source.n_genes,
    }


def _trained(training: Training[Settings], config: Settings) -> tuple[Run, Plan]:
    plan = make_plan(config)
    with profiles.applied(config.gpu_profile):  # errors come before the run is made
        if config.resume:
            this, plan = _resumed(training, config, plan)
        else:
            this, plan = join_run(
                config.runs, plan, lambda name: _started(training, config, name, plan)
            )
        console.say(f"run directory: {this.path}")
        try:
            launch(training.worker, this, plan)
        except KeyboardInterrupt:
            if plan.leads:
                console.say(f"to go on: {resume_command(training.name, this)}")
            raise
        except DiskFull as error:
            if config.resume or not plan.leads or this.checkpoints():
                raise
            this.discard()
            hint = "make room and train again; nothing was kept"
            raise DiskFull(error.message, hint=hint) from None
    return this, plan


def resume_command(command: str, run: Run) -> str:
    """Return the command line that resumes a run from this folder."""
    folder = run.path.parent
    where = (
        "" if folder.resolve() == Path(ROOT).resolve() else f" --runs {shlex.quote(str(folder))}"
    )
    return f"vcell {command} --resume {run.name}{where}"


def _started(training: Training[Settings], config: Settings, name: str | None, plan: Plan) -> Run:
    """Make the run directory, after all checks."""
    new = training.prepare(config, plan)

    def begin(run: Run) -> None:
        for file, content in new.files.items():
            run.save_file(file, content)

    return Run.create(
        config.runs,
        training.name,
        config=dataclasses.asdict(new.config),
        provenance=provenance(),
        seed=config.seed,
        data=new.data,
        name=name,
        begin=begin,
        **new.facts,
    )


def _resumed(training: Training[Settings], config: Settings, plan: Plan) -> tuple[Run, Plan]:
    """Reopen a run, with the settings that the command line changes."""
    this = _opened(training, config)
    if training.needs and not (this.path / training.needs).is_file():
        raise UserError(
            f"{this.name} has no {training.needs}: it ended before its training began",
            hint="start a new run",
        )
    plan = resume_run(this, plan)
    if plan.leads:
        this.update(config=this.meta["config"] | _given(config))
    return this, plan


def _opened(training: Training[Settings], config: Settings) -> Run:
    this = Run.open(config.resume or "latest", root=config.runs)
    if this.meta.get("command") != training.name:
        raise UserError(
            f"{this.name} is a run of vcell {this.meta.get('command')}, not of {training.name}",
            hint=f"vcell {this.meta.get('command')} --resume {this.name}",
        )
    return this


def _given(config: Any) -> dict[str, Any]:
    """Return the settings from the command line that may change when a run is resumed."""
    given = [name for name, origin in provenance().items() if origin == "command line"]
    return {name: getattr(config, name) for name in given if name not in ("resume", "runs")}


def _parts(training: Training[Settings], config: Settings) -> str | None:
    """Return the folder for the runs of folds or trials, new or resumed; None for a single run."""
    if not config.resume:
        return many.parts_folder(config)
    this = _opened(training, config)
    parts: str | None = this.meta.get("parts")
    only_in_studies = {"folds", "sweep"} & _given(config).keys()
    if only_in_studies and parts is None:
        raise UserError(f"{this.name} is a single run", hint=f"leave out --{only_in_studies.pop()}")
    return parts


def _several(training: Training[Settings], config: Settings, parts: str) -> None:
    """Train once for each fold or trial, or resume that."""
    if config.resume:
        this = _opened(training, config)
        config = many.claimed(this, settings_of_run(training.options, this), _given(config))
        new = False
    else:
        this, new = many.started(training, config, parts), True

    said: set[str] = set()  # of the cells, which all runs read

    def prepare(settings: Settings, plan: Plan) -> NewRun:
        with console.each_once(said):
            return training.prepare(settings, plan)

    single = dataclasses.replace(training, prepare=prepare)

    def train(settings: Settings) -> Run:
        one = Run.open(_trained(single, settings)[0].path)
        if one.status() != "done":
            raise RunFailed(f"{one.name} is {one.status()}", hint="--resume goes on with it")
        return one

    way = folds if parts == "folds" else sweep
    with many.ended_well(this, new=new):
        way.trained(training, this, config, train)
    way.tell(training, Run.open(this.path))
