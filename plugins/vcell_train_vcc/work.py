"""Implementation of `vcell train-vcc`: measure the screen, train the model, and score it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcell import models
from vcell.data import detect, labels, open_cells
from vcell.data.log_cells import COUNTS, LogCells, median_total
from vcell.errors import UserError
from vcell.models.held_out import validation_gain
from vcell.screen import SCREEN, Screen, measure
from vcell.screen.design import Design
from vcell.train import command
from vcell.train.training import NewRun, Training
from vcell_train_vcc import NETWORKS, TrainVcc, report

if TYPE_CHECKING:
    from vcell.launch import Plan
    from vcell.runs import Run


def run(cells: Path | None, config: TrainVcc) -> None:
    """Run the command."""
    models.get(config.model)
    if config.estimate:
        from vcell_train_vcc.network import costs

        return costs.report(cells or config.cells, config)
    if config.gpu:
        raise UserError(
            f"--gpu {config.gpu} is for --estimate",
            hint="--gpus says how many of this machine's GPUs to use",
        )
    if not config.resume:
        path = command.cells_to_train_on("train-vcc", cells, config.cells)
        config = dataclasses.replace(config, cells=path)
    command.run(TRAINING, config)


def main(run: Run) -> None:
    """Train in one process of the run; rank 0 scores the model."""
    config = command.settings_of_run(TrainVcc, run)
    screen = Screen.load(run.path / SCREEN)
    finished = models.get(config.model).fit(run, screen)
    if os.environ.get("RANK", "0") != "0":
        return
    if finished:
        run.finish("done", **report.scored(run, config.model, screen))
    elif run.status() == "running":  # not yet ended by the trainer
        run.finish("interrupted")


def first_look(config: TrainVcc) -> None:
    """Refuse cells that cannot be opened, or whose labels are not found."""
    assert config.cells is not None
    with open_cells(command.as_typed(config.cells), config.layer, join=config.join) as source:
        detect.refuse_repeated(source)
        labels.find(source, config, quiet=True)


def prepare(config: TrainVcc, plan: Plan) -> NewRun:
    """Measure the screen, and let the model check its settings."""
    assert config.cells is not None
    if config.graph_loss and (config.model not in NETWORKS or not config.graph):
        raise UserError(
            f"--graph-loss {config.graph_loss:g} needs a network and --graph FILE",
            hint=f"--model {' or '.join(NETWORKS)}; the others take features of the graphs",
        )
    file = command.as_typed(config.cells)
    with open_cells(file, config.layer, join=config.join) as source:
        detect.refuse_repeated(source)
        scale = detect.require_counts_or_logs(source)
        found = labels.find(source, config)
        design = Design.read(source, found).by_targets()
        total = config.target_sum
        if scale.kind == COUNTS and total is None:
            total = median_total(source, np.flatnonzero(design.control))
        cells = LogCells(source, scale.kind, total or np.nan)
        screen = measure.screen_of(cells, design, config)
        model = models.get(config.model)
        if config.model in NETWORKS:
            from vcell_train_vcc.network.settle import settled

            config = settled(config, screen, plan)
        files = model.prepared(screen, config, plan) if isinstance(model, models.Prepares) else {}
        files |= measure.facts(source, scale, found, design, screen)
        return NewRun(
            config=config,
            data=[command.fingerprint(source)],
            facts={"model": config.model, "labels": dataclasses.asdict(found)},
            files=files | {SCREEN: screen.save},
        )


TRAINING = Training(
    name="train-vcc",
    options=TrainVcc,
    worker="vcell_train_vcc.work:main",
    prepare=prepare,
    tell=report.tell,
    first_look=first_look,
    needs=SCREEN,
    apart=("held_out", "hold_out_context"),
    pool=report.pooled,
    judge=validation_gain,
)
