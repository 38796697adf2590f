"""Summaries of each patient's cells: bulk counts, proportions, states, communication.

The cells are read once, block by block, after the input has been checked.
P patients, K cell types, G genes, D latent dimensions, L pairs of ligand and receptor.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vcell import console
from vcell.config.data import NO_LABEL
from vcell.data.detect import elsewhere, require_counts
from vcell.data.labels import known_names
from vcell.errors import UserError
from vcell.patients.refusals import (
    refuse_batch,
    refuse_changing,
    refuse_few,
    refuse_spelt_twice,
    refuse_twins,
)

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.data import CellSource
    from vcell.data.block import Block
    from vcell.patients.communication import Pairs

    Array = NDArray[Any]


@dataclass(frozen=True)
class PatientColumns:
    """Names of the obs columns."""

    patient: str
    outcome: str
    cell_type: str
    batch: str | None = None


@dataclass(frozen=True)
class Cohort:
    """One row per patient.

    Attributes
    ----------
    patients, outcomes, types, genes
        Names, in the order of rows, codes and columns.
    outcome
        ``[P]`` codes into `outcomes`.
    bulk
        ``[P, G]`` sums of the counts of all of a patient's cells.
    cells
        ``[P, K]`` numbers of cells of each type.
    communication
        ``[P, C]`` scores of pairs and of pairs of types; no columns without a table of pairs.
    states
        ``[P, K, D]`` mean latent states by name of the learner, NaN without cells.
    more_bulk, more_of, more_cells
        Further examples of the same patients, such as pseudobulks: ``[S, G]`` counts, ``[S]`` the
        patient of each, ``[S, K]`` shares of types.
    """

    patients: tuple[str, ...]
    outcomes: tuple[str, ...]
    types: tuple[str, ...]
    genes: tuple[str, ...]
    outcome: NDArray[np.int64]
    bulk: NDArray[np.float32]
    cells: NDArray[np.int64]
    communication: NDArray[np.float32]
    states: dict[str, NDArray[np.float32]]
    more_bulk: NDArray[np.float32]
    more_of: NDArray[np.int64]
    more_cells: NDArray[np.float32]

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.patients)

    def save(self, path: Path) -> None:
        """Write the cohort as one .npz without pickles."""
        arrays = {
            name: getattr(self, name)
            for name in ("outcome", "bulk", "cells", "communication", *_MORE)
        }
        arrays |= {f"states_{name}": value for name, value in self.states.items()}
        names = {name: getattr(self, name) for name in ("patients", "outcomes", "types", "genes")}
        encoded_names = np.frombuffer(json.dumps(names).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez_compressed(file, names=encoded_names, **arrays)

    @classmethod
    def load(cls, path: Path) -> Cohort:
        """Read a cohort from `save`."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            names = json.loads(arrays.pop("names").tobytes())
            states = {k[7:]: arrays.pop(k) for k in list(arrays) if k.startswith("states_")}
            known: dict[str, Any] = {k: tuple(v) for k, v in names.items()} | arrays
            return cls(states=states, **known)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None


_MORE = ("more_bulk", "more_of", "more_cells")


@dataclass(frozen=True)
class Members:
    """Patient and type of each cell; -1 for cells that are not used."""

    patients: tuple[str, ...]
    outcomes: tuple[str, ...]
    types: tuple[str, ...]
    outcome: NDArray[np.int64]
    patient_of: NDArray[np.int64]
    type_of: NDArray[np.int64]


def members(source: CellSource, columns: PatientColumns, min_cells: int = 1) -> Members:
    """Read and check the columns."""
    patient = source.obs(columns.patient)
    outcome = source.obs(columns.outcome)
    kinds = source.obs(columns.cell_type)
    types, type_of = _types(source, columns, kinds, min_cells)
    patient_code = _known(patient)
    outcome_code = _known(outcome)
    there = (patient_code >= 0) & (outcome_code >= 0)
    if not there.any():
        raise UserError(
            f"{source.name}: no cell has both a patient ({columns.patient!r}) and an outcome "
            f"({columns.outcome!r})"
        )
    pairs = np.unique(np.stack([patient_code[there], outcome_code[there]]), axis=1)
    for column, codes in ((patient, pairs[0]), (outcome, pairs[1]), (kinds, _known(kinds)[there])):
        refuse_spelt_twice(source, column, codes)
    refuse_changing(source, columns, patient.categories, outcome.categories, pairs)
    codes, place = np.unique(pairs[1], return_inverse=True)
    names = tuple(str(outcome.categories[c]) for c in codes)
    refuse_few(source, columns, names, np.bincount(place, minlength=len(codes)))
    if columns.batch:
        refuse_batch(source, columns, patient_code, outcome_code, there)
    row = np.full(len(patient.categories), -1, np.int64)
    row[pairs[0]] = np.arange(len(pairs[0]))
    patient_of = np.where(there, row[patient_code], -1)
    type_of = np.where(patient_of >= 0, type_of, -1)
    left = int((patient_of < 0).sum())
    if left:
        console.say(
            f"left out, without a patient or an outcome: {left:,} of {source.n_cells:,} cells"
        )
    empty = np.setdiff1d(np.arange(len(pairs[0])), patient_of[type_of >= 0])
    if len(empty):
        name = patient.categories[pairs[0][empty[0]]]
        raise UserError(
            f"{source.name}: patient {name!r} has no cell with a label in {columns.cell_type!r}",
            hint="leave that patient out, or label the cells",
        )
    patients = tuple(str(patient.categories[p]) for p in pairs[0])
    return Members(patients, names, types, place.astype(np.int64), patient_of, type_of)


def _known(column: Any) -> NDArray[np.int64]:
    """Return codes, with -1 for words that mean "unknown"."""
    known = known_names(column.categories, NO_LABEL)
    codes: NDArray[np.int64] = np.where(np.append(known, False)[column.codes], column.codes, -1)
    return codes.astype(np.int64)


def _types(
    source: CellSource, columns: PatientColumns, column: Any, min_cells: int
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    codes = _known(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(column.categories))
    few = (counts > 0) & (counts < min_cells)
    if few.any():
        console.say(
            f"{console.count(int(few.sum()), 'cell type')} of fewer than {min_cells} cells: "
            "unlabelled"
        )
    kept = counts >= max(min_cells, 1)
    names = [str(name) for name, is_one in zip(column.categories, kept, strict=True) if is_one]
    if len(names) < 2:
        only = f"one label, {names[0]!r}" if names else "no labels"
        raise UserError(
            f"{source.name}: column {columns.cell_type!r} has {only}: proportions need two or more",
            hint="name another column with --cell-type-column",
        )
    lone = [str(name) for name, n in zip(column.categories, counts, strict=True) if n == 1]
    if lone and min_cells < 2:
        raise UserError(
            f"{source.name}: label {lone[0]!r} of {columns.cell_type!r} has one cell: it would "
            "identify a single patient",
            hint="--min-cells 2 treats such cells as unlabelled",
        )
    place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
    return tuple(names), place[codes].astype(np.int64)


def read(source: CellSource, who: Members, pairs: Pairs | None = None) -> Cohort:
    """Add up the cells of each patient."""
    require_counts(source, quiet=True)
    p, k = len(who.patients), len(who.types)
    bulk = np.zeros((p, source.n_genes), np.float64)
    heard = np.zeros((p * k, pairs.width if pairs else 0), np.float64)
    kept = np.flatnonzero(who.type_of >= 0)
    with console.progress("adding up patients", len(kept)) as bar:
        for block in source.chunks(kept):
            _refuse_faults(source, block)
            counts = sparse.csr_array(
                (block.data.astype(np.float64), block.indices, block.indptr - block.indptr[0]),
                shape=(len(block), source.n_genes),
            )
            own = who.patient_of[block.rows]
            bulk += (_grouping(own, p) @ counts).toarray()
            if pairs:
                group = own * k + who.type_of[block.rows]
                heard += (_grouping(group, p * k) @ pairs.heard(counts)).toarray()
            bar.advance(len(block))
    silent = np.flatnonzero(bulk.sum(1) == 0)
    if len(silent):
        raise UserError(
            f"{source.name}: the cells of patient {who.patients[silent[0]]!r} have no counts",
            hint="leave the patient out",
        )
    refuse_twins(source, who.patients, bulk)
    both = np.bincount(who.patient_of[kept] * k + who.type_of[kept], minlength=p * k)
    cells = both.reshape(p, k).astype(np.int64)
    scores = np.zeros((p, 0), np.float32)
    if pairs:
        means = heard.reshape(p, k, -1) / np.maximum(cells, 1)[:, :, None]
        scores = pairs.scores(means, cells / cells.sum(1, keepdims=True)).astype(np.float32)
    return Cohort(
        who.patients, who.outcomes, who.types, tuple(map(str, source.genes)), who.outcome,
        bulk.astype(np.float32), cells, scores, {}, np.zeros((0, source.n_genes), np.float32),
        np.zeros(0, np.int64), np.zeros((0, k), np.float32),
    )  # fmt: skip


def _refuse_faults(source: CellSource, block: Block) -> None:
    bad = ~np.isfinite(block.data) | (block.data < 0)
    if bad.any():
        row = int(np.searchsorted(block.indptr - block.indptr[0], np.flatnonzero(bad)[0], "right"))
        cell = source.cells[int(block.rows[row - 1])]
        raise UserError(
            f"{source.name}: cell {cell!r} has a value that is negative, NaN or infinite",
            hint=elsewhere(source),
        )


def _grouping(group: NDArray[np.int64], n: int) -> sparse.csr_array:
    """Return the indicator matrix [n, cells] of groups."""
    cells = np.arange(len(group))
    return sparse.csr_array((np.ones(len(group)), (group, cells)), shape=(n, len(group)))


def with_states(
    cohort: Cohort, source: CellSource, who: Members, name: str, trained: Any
) -> Cohort:
    """Add the mean latent state of each type in each patient, from a run of train-gmvae."""
    from vcell.gmvae.encoding import encoded, matched

    p, k = cohort.n, len(cohort.types)
    kept = np.flatnonzero(who.type_of >= 0)
    total = np.zeros((p * k, trained.network.shape.latent))
    genes = matched(source, trained, 0.2, quiet=bool(cohort.states))
    for rows, mean, _ in encoded(source, trained, genes, "encoding cells", kept):
        group = who.patient_of[rows] * k + who.type_of[rows]
        total += _grouping(group, p * k) @ mean.astype(np.float64)
    n = cohort.cells.reshape(-1, 1)
    states = np.where(n > 0, total / np.maximum(n, 1), np.nan).reshape(p, k, -1)
    return dataclasses.replace(cohort, states=cohort.states | {name: states.astype(np.float32)})


def with_examples(cohort: Cohort, path: Path, patient_column: str) -> Cohort:
    """Add further bulk samples of the same patients: an .npz of `vcell pseudobulk --by`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("counts", "fractions", "types", "genes")}
            patient = file[patient_column]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is no .npz of pseudobulks of patients: {error}",
            hint=f"vcell pseudobulk CELLS --labels COLUMN --by {patient_column} -o {path.stem}.npz",
        ) from None
    if arrays["genes"].tolist() != list(cohort.genes):
        raise UserError(f"{path} has other genes than the cells", hint="draw it from these cells")
    types = {name: k for k, name in enumerate(arrays["types"].tolist())}
    lost = [name for name in cohort.types if name not in types]
    if lost:
        raise UserError(f"{path} knows no type {lost[0]!r}", hint="draw it by the same cell types")
    place = {name: i for i, name in enumerate(cohort.patients)}
    of = np.array([place.get(name, -1) for name in patient.tolist()], np.int64)
    rows = np.flatnonzero(of >= 0)
    if not len(rows):
        raise UserError(f"{path}: no sample is of a patient of the cells")
    shares = arrays["fractions"][rows][:, np.array([types[name] for name in cohort.types])]
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    return dataclasses.replace(
        cohort, more_bulk=arrays["counts"][rows].astype(np.float32), more_of=of[rows],
        more_cells=shares.astype(np.float32),
    )  # fmt: skip
