"""Ask a trained run for effects and write them as cells, one perturbation after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from vcell import console, models
from vcell.data import CellWriter, detect, open_cells
from vcell.data.log_cells import LogCells
from vcell.errors import UserError
from vcell.models import Screen
from vcell.runs import Run
from vcell_predict.moved import Pool
from vcell_predict.wanted import effects, wanted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell_predict import Predict


def predict(run_name: str, config: Predict) -> None:
    """Do what the command asks."""
    run = Run.open(run_name, root=config.runs)
    kind = config.model or run.meta.get("model")
    if not (run.path / models.SCREEN).is_file() or not kind:
        raise UserError(
            f"{run.name} is a run of vcell {run.meta.get('command')}, not of a perturbation model",
            hint="vcell runs list shows the others; vcell train-vcc makes one",
        )
    if run.status() != "done":
        console.warn(f"{run.name} is {run.status()}: its best checkpoint so far is used")
    screen = Screen.load(run.path / models.SCREEN)
    labels = run.meta["labels"]
    control = config.control or labels["control"]
    cells = wanted(config.perturbations, screen, config.n_cells, control)
    predictor = models.get(kind).load(run, screen)
    effect, blind = effects(list(cells), screen, predictor, config.unknown)
    path = config.cells or Path(run.meta["config"]["cells"])
    with open_cells(path, config.layer or run.meta["config"].get("layer")) as source:
        _check_cells(source, run, screen)
        column = config.perturbation_column or labels["perturbation_column"]
        rows = _control_rows(source, column, control)
        values = LogCells(source, detect.scale(source, quiet=True).kind, screen.target_sum)
        pool = Pool.read(values, rows)
        rng = np.random.default_rng(config.seed)
        beside = rows if config.controls is None else _some(rows, config.controls, rng)
        uns: dict[str, Any] = {"log1p": {}, "vcell": {"target_sum": screen.target_sum}}
        categories = {column: [control, *cells]}
        with (
            CellWriter(config.output, screen.genes, obs=categories, uns=uns) as out,
            console.progress("predicting", len(beside) + sum(cells.values())) as bar,
        ):
            if len(beside):
                for numbers, block in values.blocks(beside):
                    _append(out, column, block, 0, [f"control-{i}" for i in numbers])
                    bar.advance(len(numbers))
            for code, (name, n) in enumerate(cells.items(), start=1):
                chosen, moved = pool.move(n, screen.control + effect[code - 1], rng)
                moved.data = np.minimum(moved.data, np.float32(_ceiling(screen)))
                names = [f"{name}-{i}-{pool.rows[c]}" for i, c in enumerate(chosen)]
                _append(out, column, moved, code, names)
                bar.advance(n)
    silent = int(((pool.typical == 0) & (np.abs(effect) > 0.01).any(axis=0)).sum())
    if silent:
        console.warn(f"{silent} genes with a predicted change stay zero: no control cell has them")
    _tell(config, run, kind, cells, blind, len(beside))


def _check_cells(source: CellSource, run: Run, screen: Screen) -> None:
    """Refuse other genes; say when the file is not as it was at training."""
    if len(source.genes) != len(screen.genes) or (source.genes != screen.genes).any():
        raise UserError(
            f"{source.name} has other genes than the run learnt ({source.n_genes:,} and "
            f"{len(screen.genes):,}, or in another order)",
            hint="give the cells the run was trained on, or others with the same genes",
        )
    read = run.meta["data"][0]
    if source.path is None or str(source.path.absolute()) != read["path"]:
        return
    if source.path.stat().st_mtime != read["modified"]:
        console.warn(f"{source.name} has changed since {run.name} was trained on it")


def _control_rows(source: CellSource, column: str, control: str) -> NDArray[np.int64]:
    labels = source.obs(column)
    names = labels.categories.tolist()
    if control not in names:
        raise UserError(f"{source.name}: no cell is labelled {control!r} in {column}")
    return np.flatnonzero(labels.codes == names.index(control))


def _append(out: CellWriter, column: str, block: Any, code: int, names: list[str]) -> None:
    cells = sp.csr_matrix(block, dtype=np.float32)
    out.append(cells, {column: np.full(cells.shape[0], code, np.int32)}, names)


def _ceiling(screen: Screen) -> float:
    """Return the largest log1p value a cell can have: all its counts in one gene."""
    return float(np.log1p(screen.target_sum)) if np.isfinite(screen.target_sum) else np.inf


def _some(rows: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(rows)[:n])


def _tell(
    config: Predict, run: Run, kind: str, cells: dict[str, int], blind: list[str], controls: int
) -> None:
    data = {
        "prediction": str(config.output),
        "run": str(run.path),
        "model": kind,
        "perturbations": list(cells),
        "by_the_mean": blind,
        "n_cells": sum(cells.values()) + controls,
        "predicted_cells": sum(cells.values()),
    }
    said = f", {len(blind)} of them by the mean effect" if blind else ""
    console.result(
        data,
        f"{config.output}: {sum(cells.values()):,} cells of {len(cells)} perturbations{said}, "
        f"{controls:,} controls, by {kind} of {run.name}",
    )
