"""Predict effects with trained runs and write them as cells, one perturbation after another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vcell import console, outputs
from vcell.data import open_cells
from vcell.errors import UserError
from vcell.screen.split import TEST
from vcell_predict import after, report, uncertainty
from vcell_predict.cells.controls import Controls, LabelColumns
from vcell_predict.cells.making import CellMaker
from vcell_predict.cells.writing import PredictionFile
from vcell_predict.ensemble import Ensemble
from vcell_predict.prediction import Prediction
from vcell_predict.requests import Request, from_cells, from_words, in_contexts
from vcell_predict.strength.calibration import Calibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_predict import Predict
    from vcell_predict.cells.pool import Pool

_DEEPER = 4.0  # times the counts of a control cell


def predict(runs: tuple[str, ...], config: Predict) -> None:
    """Run the command."""
    after.check(config)
    ensemble = Ensemble.open(runs, config.runs, config.model)
    columns = _columns(config, ensemble)
    trained = ensemble.first.run.meta["config"]
    path = config.control_file or Path(trained["cells"])
    if config.control_file is None and not path.exists():
        raise UserError(
            f"{path} does not exist, the cells that {ensemble.first.run.name} was trained on",
            hint="--control-cells names where they are now, or other cells with their controls",
        )
    layer, join = config.layer or trained.get("layer"), trained.get("join", "strict")
    after.may_write(config, [path])
    prediction = _effects(config, ensemble, columns)
    with (
        outputs.together(config.output, *config.companions) as (cells, lines, page),
        open_cells(path, layer, join=join) as source,
    ):
        controls = Controls(source, ensemble, columns, config.mode)
        _write(config, cells, ensemble, controls, prediction)
        uncertainty.write(lines, report.table(prediction))
        page.write_text(report.page(config, ensemble, prediction).html(), encoding="utf-8")
    files = dict(zip(("table", "page"), map(str, config.companions), strict=True))
    if config.explain is not None:
        from vcell_predict.explain import explain

        with outputs.folder(config.explain) as folder:
            explain(folder, ensemble, prediction)
        files["explain"] = str(config.explain / "index.html")
    followed, failed = after.follow(config, columns)
    report.tell(config, ensemble, prediction, files, followed)
    if failed:
        raise failed[0]


def _columns(config: Predict, ensemble: Ensemble) -> LabelColumns:
    """Return the names of the label columns: those given, else those of the training."""
    labels = ensemble.labels
    several = len(ensemble.screen.contexts) > 1
    return LabelColumns(
        perturbation=config.perturbation_column or labels["perturbation_column"],
        control=config.control or labels["control"],
        batch=config.batch_column or labels.get("batch_column"),
        context=(config.cell_type_column or labels.get("cell_type_column")) if several else None,
    )


def _effects(config: Predict, ensemble: Ensemble, columns: LabelColumns) -> Prediction:
    """Collect the requested perturbations and predict their effects."""
    requests = in_contexts(
        _requests(config, ensemble, columns), ensemble.screen.contexts.tolist(), config.context
    )
    if not requests:
        raise UserError("there is nothing to predict", hint="name some with --perturbations")
    pairs = [(one.name, one.context) for one in requests]
    effect, blind = ensemble.known(pairs, config.unknown)
    _say_learnt(pairs, ensemble, scored=config.evaluate is not None)
    prediction = Prediction(requests, _n_cells(requests, ensemble, config.n_cells), effect, blind)
    names, contexts = [name for name, _ in pairs], [context for _, context in pairs]
    prediction.sources = uncertainty.sources(ensemble, names, contexts)
    if prediction.sources:
        prediction.trust = uncertainty.trust(ensemble)
    return prediction


def _requests(config: Predict, ensemble: Ensemble, columns: LabelColumns) -> list[Request]:
    if config.like is not None:
        return from_cells(config.like, config, columns.context, with_totals=config.mode == "counts")
    if config.perturbations:
        return from_words(config.perturbations, columns.control)
    screen, rows = ensemble.screen, ensemble.rows(TEST)
    if not len(rows):
        one = len(ensemble) == 1
        raise UserError(
            "the run held no perturbations out"
            if one
            else f"no perturbation was held out by all of the {len(ensemble)} runs",
            hint="name some with --perturbations, or --like REAL"
            + ("" if one else "; a single one of the runs (or folds) predicts what it held out"),
        )
    return [
        Request(str(screen.perturbations[row]), str(screen.contexts[screen.context[row]]))
        for row in rows
    ]


def _say_learnt(pairs: list[tuple[str, str]], ensemble: Ensemble, *, scored: bool) -> None:
    """Report how many of the perturbations were in the training data."""
    learnt = sum(ensemble.learnt(pairs))
    if learnt:
        some = "the run" if len(ensemble) == 1 else "at least one of the runs"
        tell = console.warn if scored else console.say
        tell(
            f"there in the training of {some}: {learnt} of {len(pairs)} perturbations; "
            "how well they are predicted says nothing about unseen ones"
        )


def _n_cells(requests: list[Request], ensemble: Ensemble, n_cells: int | None) -> NDArray[np.int64]:
    """Return the number of cells of each: as requested, as measured, or the default."""
    screen = ensemble.screen
    contexts = screen.contexts[screen.context].tolist()
    measured = dict(
        zip(zip(screen.perturbations.tolist(), contexts, strict=True), screen.cells, strict=True)
    )
    usual = int(np.median(screen.cells))
    return np.array(
        [
            n_cells or one.n_cells or int(measured.get((one.name, one.context), usual))
            for one in requests
        ],
        np.int64,
    )


def _write(
    config: Predict, path: Path, ensemble: Ensemble, controls: Controls, prediction: Prediction
) -> None:
    """Calibrate the effects and write all cells."""
    screen, mode = ensemble.screen, config.mode
    number = {str(name): i for i, name in enumerate(screen.contexts)}
    used = sorted({number[one.context] for one in prediction.requests})
    pools = {context: controls.pool(context, len(used)) for context in used}
    for context, pool in pools.items():
        logged = pool.logged(screen.target_sum) if mode == "counts" else pool
        prediction.spread[str(screen.contexts[context])] = (logged.variance, len(pool))
    if config.calibrate and mode != "mean":
        _calibrate(config, ensemble, controls, pools, prediction)
    makers = {
        context: CellMaker(
            mode,
            pool,
            screen.control[context],
            screen.target_sum,
            {name: i for i, name in enumerate(controls.design.batches)},
            config.seed,
        )
        for context, pool in pools.items()
    }
    _warn_deeper(makers, number, prediction)
    control_rows = controls.rows(used)
    if config.controls is not None:
        rng = np.random.default_rng(config.seed)
        control_rows = np.sort(rng.permutation(control_rows)[: config.controls])
    prediction.n_controls = len(control_rows)
    names = [one.name for one in prediction.requests]
    uns = report.uns(config, ensemble, prediction)
    total = len(control_rows) + int(prediction.cells.sum())
    with console.progress("predicting", total) as bar:
        out = PredictionFile(path, controls, names, uns)
        with out.writer:
            if len(control_rows):
                out.write_controls(control_rows, bar.advance)
            for i, one in enumerate(prediction.requests):
                context = number[one.context]
                job = (int(prediction.cells[i]), prediction.effect[i])
                out.predicted(one, context, makers[context], job, bar.advance)
    _warn_silent(pools, prediction)


def _calibrate(
    config: Predict,
    ensemble: Ensemble,
    controls: Controls,
    pools: dict[int, Pool],
    prediction: Prediction,
) -> None:
    """Multiply each effect by its calibrated strength."""
    logged = pools
    if config.mode == "counts":
        logged = {
            context: pool.logged(controls.screen.target_sum) for context, pool in pools.items()
        }
    found = Calibration(controls, ensemble, logged, config.seed).strengths(
        prediction.requests, prediction.effect, prediction.cells, config.for_
    )
    if found is not None:
        prediction.strengths = found
        prediction.effect = prediction.effect * found.strength[:, None].astype(np.float32)


def _warn_deeper(
    makers: dict[int, CellMaker], number: dict[str, int], prediction: Prediction
) -> None:
    """Warn if requested counts are far above those of the controls: genes may be missing."""
    found = [
        (one.median / makers[number[one.context]].median, one)
        for one in prediction.requests
        if one.median is not None and makers[number[one.context]].mode == "counts"
    ]
    ratio, most = max(found, key=lambda pair: pair[0], default=(0.0, None))
    if most is not None and ratio > _DEEPER:
        console.warn(
            f"{most.name} is to have a median of {most.median:,.0f} counts a cell, {ratio:.0f} "
            "times that of the controls: was the run trained on a part of the genes?"
        )


def _warn_silent(pools: dict[int, Pool], prediction: Prediction) -> None:
    detected = np.any([pool.detected > 0 for pool in pools.values()], axis=0)
    silent = int((~detected & (np.abs(prediction.effect) > 0.01).any(axis=0)).sum())
    if silent:
        console.warn(
            f"no control cell has {console.count(silent, 'gene')} of those that are to change: no "
            "cell will"
        )
