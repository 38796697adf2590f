"""Implementation of `vcell train-gmvae`: read the cells, train, refit the head, score."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.data import open_cells
from vcell.data.detect import refuse_repeated, require_counts
from vcell.errors import UserError
from vcell.gmvae.beginning import groups
from vcell.gmvae.cells import ResidentCells, row_sums
from vcell.gmvae.components import COMPONENTS, Components
from vcell.gmvae.trained import STUDY
from vcell.store import Recipe, Store, ensure_store
from vcell.store.store import MANIFEST
from vcell.train import command
from vcell.train.training import NewRun, Training
from vcell_train_gmvae import TrainGmvae, report
from vcell_train_gmvae.doubted import without_wrong_labels
from vcell_train_gmvae.study import CELLS, Study, made, refuse, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vcell.launch import Plan
    from vcell.runs import Run

_FEWEST = 3  # genes needed for a latent space
_ROW = "source_row"  # of a cell in the input: the store has another order
_SHARED = "resident"  # folder in the run, shared by its processes during training


def run(cells: Path | None, config: TrainGmvae) -> None:
    """Run the command."""
    if not config.resume:
        path = command.cells_to_train_on("train-gmvae", cells, config.cells)
        labels = config.labels or config.cell_type_column
        config = dataclasses.replace(config, cells=path, labels=labels)
    command.run(TRAINING, config)


def prepare(config: TrainGmvae, plan: Plan) -> NewRun:
    """Read the cells, check them, and choose the held-out cells."""
    assert config.cells is not None
    file = command.as_typed(config.cells)
    with open_cells(file, config.layer, join=config.join) as source:
        refuse_repeated(source)
        require_counts(source)
        refuse(source, config)
        data = command.fingerprint(source)
    with store_of(config) as store:
        cells = ResidentCells.of(store, 1.0)
        study = made(store, cells, config)
        train = np.flatnonzero(~study.held_out)
        if len(train) < plan.world:
            raise UserError(
                f"{console.count(len(train), 'training cell')}: too few for {plan.world} processes"
            )
        library = row_sums(cells.borders, cells.counts)[train]
        if not (library > 0).any():
            raise UserError(f"{file}: the training cells have no counts")
        if store.n_genes < _FEWEST:
            raise UserError(
                f"{file}: {console.count(store.n_genes, 'gene')} with counts; "
                f"{_FEWEST} at least are needed"
            )
        study = dataclasses.replace(study, target=float(np.median(library[library > 0])))
        cells.target = study.target
        files: dict[str, str | Callable[[Path], None]] = {}
        if (study.shown >= 0).any():
            components = Components.learnt(cells, train, seed=config.seed)
            scaled = Components.learnt(cells, train, seed=config.seed, scaled=True)
            files[COMPONENTS] = components.beside(scaled).save
            if not config.keep_all_labels:
                study, listed = without_wrong_labels(
                    study, cells, components, store.obs[_ROW], config.seed
                )
                files |= listed
        elif 1 < study.shape.components < len(train):
            study = _begun(study, cells, train, config.seed)
        config = steps(config, len(train))
        shown = int((study.shown >= 0).sum())
        console.say(
            f"{len(train):,} cells to learn from ({shown:,} with a label shown), "
            f"{study.held_out.sum():,} held out; {store.n_genes:,} genes; "
            f"{console.count(len(study.labels), 'label')}; "
            f"{console.count(len(study.batches), 'batch', 'batches')}"
        )
    return NewRun(
        config=config,
        data=[data],
        facts={"model": "gmvae", "shown": shown},
        files={STUDY: study.plain(), CELLS: study.save_cells, **files},
    )


def _begun(study: Study, cells: ResidentCells, train: NDArray[np.int64], seed: int) -> Study:
    """Choose the component that each training cell begins in."""
    most = study.shape.components
    components = Components.learnt(cells, train, seed=seed, scaled=True)
    begin = np.full(len(study.begin), -1, np.int64)
    begin[train] = groups(components.of(cells, train), most, seed)
    found = len(np.unique(begin[train]))
    if found < most:
        console.say(f"{found} of the {most} components begin with cells; others are empty")
    return dataclasses.replace(study, begin=begin)


def store_of(config: TrainGmvae) -> Store:
    """Return the store of the cells: as given, or built once and cached."""
    assert config.cells is not None
    if (config.cells / MANIFEST).is_file():
        return Store.open(config.cells)
    return ensure_store([config.cells], Recipe(layer=config.layer, join=config.join))


def main(run: Run) -> None:
    """Train in one process of the run; rank 0 scores the model."""
    from vcell.train.loop import Trainer
    from vcell_train_gmvae.task import GmvaeTask

    config, study = command.settings_of_run(TrainGmvae, run), Study.load(run)
    cells = _cells(run, config, study)
    result = Trainer(GmvaeTask(config, study, cells), config, run).fit()
    if os.environ.get("RANK", "0") != "0":
        return
    shutil.rmtree(run.path / _SHARED, ignore_errors=True)
    if not result.cut_short:
        with store_of(config) as store:
            rows = store.obs[_ROW]
        run.finish("done", **report.scored(run, config, study, cells, rows))


def _cells(run: Run, config: TrainGmvae, study: Study) -> ResidentCells:
    """Return the cells in memory; processes on the same machine share one copy."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        with store_of(config) as store:
            return ResidentCells.of(store, study.target)
    folder = run.path / _SHARED / os.environ.get("GROUP_RANK", "0")
    return ResidentCells.made_once(folder, lambda: store_of(config), study.target)


TRAINING = Training(
    name="train-gmvae",
    options=TrainGmvae,
    worker="vcell_train_gmvae.work:main",
    prepare=prepare,
    tell=report.tell,
    needs=STUDY,
)
