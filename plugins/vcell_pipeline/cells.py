"""Stages without a command of their own: QC, and the training cells of each fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data import CellWriter, open_cells
from vcell.data.detect import refuse_confounded, refuse_repeated, require_counts, whole_counts
from vcell.errors import UserError
from vcell.kernels.cells import cell_totals
from vcell.outputs import MADE_BY, made_by, write_json
from vcell.patients import cohort, folds

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.data import CellSource
    from vcell.patients.cohort import PatientColumns
    from vcell_pipeline import Pipeline

    Array = np.ndarray[Any, Any]


def columns_of(config: Pipeline) -> PatientColumns:
    """Return the names of the columns."""
    if config.cell_type_column is None:
        raise UserError("no column of cell types is named", hint="--cell-type-column COLUMN")
    return cohort.PatientColumns(
        config.patient_column, config.outcome_column, config.cell_type_column, config.batch_column
    )


def qc(cells: Path, out: Path, config: Pipeline) -> dict[str, Any]:
    """Write the cells that pass QC, of patients with enough of them."""
    columns = columns_of(config)
    with open_cells(cells, config.layer) as source:
        refuse_repeated(source)
        require_counts(source)
        cohort.members(source, columns, config.min_cells)  # refuses unusable columns first
        if config.states and columns.batch:
            refuse_confounded(source, columns.cell_type, columns.batch)
        genes, mito = _measured(source)
        few, dying = genes < config.min_genes, mito > config.max_mito
        passed = ~few & ~dying
        patients = source.obs(columns.patient)
        codes = patients.codes.astype(np.int64)
        number, counted = (
            np.bincount(codes[these & (codes >= 0)], minlength=len(patients.categories))
            for these in (passed, passed & (genes > 0))
        )
        small = (number < config.min_patient_cells) | (counted == 0)
        passed &= np.append(~small, False)[codes]
        summary = {
            "cells": source.n_cells, "kept": int(passed.sum()), "few genes": int(few.sum()),
            "mitochondrial": int((dying & ~few).sum()),
        }  # fmt: skip
        names = [str(p) for p in patients.categories[small]]
        if not passed.any():
            raise UserError(
                f"{source.name}: QC leaves no cell: {few.sum():,} of {source.n_cells:,} have fewer "
                f"than {console.count(config.min_genes, 'gene')}",
                hint="--min-genes, --max-mito and --min-patient-cells set the bounds",
            )
        _copied(source, columns, out, np.flatnonzero(passed))
    with open_cells(out) as left:
        cohort.members(left, columns, config.min_cells)
    left_out = (
        f"{console.count(len(names), 'patient')}{': ' if names else ''}{', '.join(names[:5])}"
    )
    console.say(
        f"kept: {summary['kept']:,} of {summary['cells']:,} cells; "
        f"left out: {summary['few genes']:,} of few genes, "
        f"{summary['mitochondrial']:,} of too many mitochondrial counts, {left_out}"
    )
    return summary | {"patients left out": names}


def _measured(source: CellSource) -> tuple[Array, Array]:
    """Return each cell's number of genes and its mitochondrial share."""
    names = np.char.upper(source.genes)
    marks = np.char.startswith(names, "MT-").astype(np.uint8)
    if not marks.any():
        console.say("no gene is called MT-...: mitochondrial shares are not known")
    genes, mito = np.zeros(source.n_cells, np.int32), np.zeros(source.n_cells)
    with console.progress("QC", source.n_cells) as bar:
        for block in source.chunks():
            n = len(block)
            totals, marked = np.zeros(n), np.zeros((n, 1))
            number = np.zeros(n, np.int32)
            whole_counts(source, block)  # what only looked like counts ends here, not at hour nine
            cell_totals(
                block.indptr - block.indptr[0], block.indices, block.data, marks, totals, number,
                marked,
            )  # fmt: skip
            genes[block.rows] = number
            mito[block.rows] = marked[:, 0] / np.where(totals > 0, totals, 1)
            bar.advance(n)
    return genes, mito


def _copied(source: CellSource, columns: PatientColumns, out: Path, rows: Array) -> None:
    """Copy some cells with the columns that are needed."""
    names = [columns.patient, columns.outcome, columns.cell_type]
    names += [columns.batch] if columns.batch else []
    obs = {name: source.obs(name) for name in dict.fromkeys(names)}
    categories = {name: column.categories for name, column in obs.items()}
    with CellWriter(out, source.genes, obs=categories) as writer:
        for block in source.chunks(rows):
            codes = {name: column.codes[block.rows] for name, column in obs.items()}
            writer.append(block, codes, source.cells[block.rows])


def split(cells: Path, file: Path, config: Pipeline) -> tuple[dict[str, Any], list[Path]]:
    """Assign patients to folds; write the list, and each fold's training cells for its GMVAE."""
    columns = columns_of(config)
    with open_cells(cells) as source:
        members = cohort.members(source, columns, config.min_cells)
        n = folds.possible(members.outcome, config.folds)
        fold = folds.dealt(members.patients, members.outcome, n, config.seed)
        written = []
        for k in range(n if config.states else 0):
            out = file.with_name(f"learn-{k}.h5ad")
            own = (members.patient_of >= 0) & (fold[members.patient_of] != k)
            _copied(source, columns, out, np.flatnonzero(own))
            written.append(out)
    assigned = folds.names_by_fold(members.patients, fold)
    write_json(file, {MADE_BY: made_by(), "folds": [{"test": names} for names in assigned]})
    return {"folds": [len(names) for names in assigned]}, [file, *written]
