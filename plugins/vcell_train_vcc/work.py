"""Train: measure the screen, start the processes, score what was learnt on the held-out part."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, models
from vcell.config import provenance, settings_of
from vcell.data import detect, labels, open_cells
from vcell.data.log_cells import COUNTS, LogCells, median_total
from vcell.errors import RunFailed, UserError
from vcell.launch import Plan, join_run, launch, make_plan, resume_run
from vcell.models import Screen
from vcell.runs import Run
from vcell.screen import measure
from vcell_train_vcc import TrainVcc, report

if TYPE_CHECKING:
    from vcell.data import CellSource


def run(cells: Path | None, config: TrainVcc) -> None:
    """Do what the command asks."""
    models.get(config.model)
    if config.estimate:
        from vcell_train_vcc.network import costs

        return costs.tell(config)
    if parts := _parts(config):
        return _several(cells, config, parts)
    this, plan = _trained(cells, config)
    if plan.leads:
        report.tell(Run.open(this.path))


def _trained(cells: Path | None, config: TrainVcc) -> tuple[Run, Plan]:
    plan = make_plan(config)
    if config.resume:
        this, plan = _resumed(config, plan)
    else:
        this, plan = join_run(config.runs, plan, lambda name: _started(cells, config, name, plan))
    console.say(f"run directory: {this.path}")
    launch("vcell_train_vcc.work:main", this, plan)
    return this, plan


def _whole(settings: TrainVcc) -> Run:
    """Train one of several runs to its end."""
    this = Run.open(_trained(settings.cells, settings)[0].path)
    if this.status() != "done":
        raise RunFailed(f"{this.name} is {this.status()}: it can be gone on with")
    return this


def _parts(config: TrainVcc) -> str | None:
    """Say which parts the run is made of, if it holds several: those asked, or gone on with."""
    if not config.resume:
        return "folds" if config.folds else "trials" if config.sweep else None
    this = Run.open(config.resume, root=config.runs)
    parts: str | None = this.meta.get("parts")
    asked = {"folds", "sweep"} & _given(config).keys()
    if asked and parts is None:
        raise UserError(f"{this.name} is a single run", hint=f"leave out --{asked.pop()}")
    return parts


def _several(cells: Path | None, config: TrainVcc, parts: str) -> None:
    """Train once for each fold or trial, or go on with that."""
    from vcell_train_vcc import folds, several, sweep

    way = folds if parts == "folds" else sweep
    if config.resume:
        this = Run.open(config.resume, root=config.runs)
        config = several.claimed(this, config_of(this), _given(config))
        new = False
    else:
        path = _there(cells or config.cells)
        config = dataclasses.replace(config, cells=path.absolute())
        this, new = way.started(config), True
    with several.ended_well(this, new=new):
        way.trained(this, config, _whole)
    way.tell(Run.open(this.path))


def _given(config: TrainVcc) -> dict[str, Any]:
    """Return what the command line says of settings that a run can change when it goes on."""
    given = [name for name, origin in provenance().items() if origin == "command line"]
    return {name: getattr(config, name) for name in given if name not in ("resume", "runs")}


def main(run: Run) -> None:
    """Train, as one of the processes of the run; the first one scores what was learnt."""
    config, screen = config_of(run), Screen.load(run.path / models.SCREEN)
    finished = models.get(config.model).fit(run, screen)
    if os.environ.get("RANK", "0") != "0":
        return
    if finished:
        run.finish("done", held_out=report.scored(run, config.model, screen))
    elif run.status() == "running":  # the trainer has not ended it itself
        run.finish("interrupted")


def config_of(run: Run) -> TrainVcc:
    """Return the settings a run was started with."""
    saved = run.meta.get("config") or {}
    try:
        values = {
            setting.name: setting.check(saved[setting.name])
            for setting in settings_of(TrainVcc)
            if saved.get(setting.name) is not None
        }
        return TrainVcc(**values)
    except ValueError as error:
        raise UserError(f"{run.path / 'run.json'}: the settings are damaged: {error}") from None


def _started(path: Path | None, config: TrainVcc, name: str | None, plan: Plan) -> Run:
    """Measure the screen and make the run directory around it, once nothing speaks against it."""
    path = _there(path or config.cells)
    config = dataclasses.replace(config, cells=path.absolute())
    with open_cells(path, config.layer, join=config.join) as source:
        found, scale = labels.find(source, config), detect.scale(source)
        if scale.kind == "other":
            raise UserError(
                f"{source.name} holds neither counts nor log1p values: {scale.evidence}",
                hint="counts or log1p values are needed: mend them, or name another --layer",
            )
        kind = scale.kind
        columns = measure.Columns.read(source, found)
        total = config.target_sum
        if kind == COUNTS and total is None:
            total = median_total(source, np.flatnonzero(columns.control))
        screen = measure.screen_of(LogCells(source, kind, total or np.nan), columns, config)
        prepared = getattr(models.get(config.model), "prepared", None)
        papers = prepared(screen, config, plan) if prepared else {}
        this = Run.create(
            config.runs,
            "train-vcc",
            config=dataclasses.asdict(config),
            provenance=provenance(),
            seed=config.seed,
            data=[_fingerprint(source)],
            name=name,
            model=config.model,
            labels=dataclasses.asdict(found),
        )
        facts = measure.facts(source, scale, found, columns, screen)
    for paper, text in (papers | facts).items():
        this.save_file(paper, partial(_write, text))
    this.save_file(models.SCREEN, screen.save)
    return this


def _there(path: Path | None) -> Path:
    """Return the path of the cells, which must be named."""
    if path is None:
        raise UserError(
            "no cells to train on", hint="vcell train-vcc cells.h5ad, or [data] cells in vcell.toml"
        )
    return Path(path)


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _resumed(config: TrainVcc, plan: Plan) -> tuple[Run, Plan]:
    """Take a run back into use, with what the command line changes of its settings."""
    this = Run.open(config.resume or "latest", root=config.runs)
    if not (this.path / models.SCREEN).is_file():
        raise UserError(
            f"{this.name} has no {models.SCREEN}: it ended before its training began",
            hint="start a new run",
        )
    plan = resume_run(this, plan)
    if not plan.leads:
        return this, plan
    this.update(config=this.meta["config"] | _given(config))
    return this, plan


def _fingerprint(source: CellSource) -> dict[str, Any]:
    """Say which file was read, so that another one is noticed."""
    stat = source.path.stat() if source.path else None
    return {
        "path": str(source.path.absolute()) if source.path else None,
        "bytes": stat.st_size if stat else None,
        "modified": stat.st_mtime if stat else None,
        "n_cells": source.n_cells,
        "n_genes": source.n_genes,
    }
