"""Patients that no fair test is possible with: what is refused before training.

A patient under two names would be learnt from under one and tested under the other.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell.data.column import Column
    from vcell.patients.cohort import PatientColumns

    Array = NDArray[Any]

FEWEST = 3  # fewest patients of each outcome: one each for test, choice and training


def refuse_spelt_twice(source: CellSource, column: Column, codes: NDArray[np.integer]) -> None:
    """Raise for two values in use that differ in capitals, blanks or separators only."""
    seen: dict[str, str] = {}
    for code in np.unique(codes[codes >= 0]).tolist():
        name = str(column.categories[code])
        if (other := seen.setdefault(_spelt(name), name)) is not name:
            raise UserError(
                f"{source.name}: {other!r} and {name!r} in {column.name!r} differ in capitals, "
                "blanks or separators only",
                hint="one spelling, if they are the same; more different names, if not",
            )


def _spelt(name: str) -> str:
    """Return a name for comparison; separators stay, because 1-1 is not 11."""
    words = re.split(r"[\s_\-.]+", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(word for word in words if word)


def refuse_twins(source: CellSource, patients: tuple[str, ...], bulk: Array) -> None:
    """Raise for two patients of equal counts in all genes: one patient under two names."""
    seen: dict[bytes, str] = {}
    for name, counts in zip(patients, bulk, strict=True):
        if (other := seen.setdefault(counts.tobytes(), name)) is not name:
            raise UserError(
                f"{source.name}: the cells of patients {other!r} and {name!r} add up to the same "
                "counts in every gene: they are the same cells",
                hint="leave one of the two out",
            )


def refuse_changing(
    source: CellSource, columns: PatientColumns, patients: Array, outcomes: Array, pairs: Array
) -> None:
    """Raise for a patient with two outcomes: an outcome must belong to a patient, not a cell."""
    numbers, first, times = np.unique(pairs[0], return_index=True, return_counts=True)
    for number, at, n in zip(numbers, first, times, strict=True):
        if n > 1:
            both = " and ".join(repr(str(outcomes[c])) for c in pairs[1][at : at + 2])
            raise UserError(
                f"{source.name}: patient {str(patients[number])!r} has the outcomes {both} in "
                f"{columns.outcome!r}",
                hint="an outcome belongs to a patient: keep one sample of each patient (two "
                "under names of their own would be learnt from and tested in different folds)",
            )


def refuse_few(
    source: CellSource,
    columns: PatientColumns,
    names: tuple[str, ...],
    counts: Array,
) -> None:
    """Raise for one outcome only, and for an outcome of too few patients."""
    if len(names) < 2:
        raise UserError(
            f"{source.name}: every patient has the outcome {names[0]!r} in "
            f"{columns.outcome!r}: there is nothing to distinguish",
            hint="name another column with --outcome-column",
        )
    least = int(counts.argmin())
    if counts[least] < FEWEST:
        raise UserError(
            f"{source.name}: {console.count(int(counts[least]), 'patient')} of outcome "
            f"{names[least]!r}; {FEWEST} of each are the least",
            hint="leave the cells of that outcome out, or join it with another",
        )


def refuse_batch(
    source: CellSource,
    columns: PatientColumns,
    patient: NDArray[np.int64],
    outcome: NDArray[np.int64],
    there: NDArray[np.bool_],
) -> None:
    """Raise if each batch has one outcome only: a model could then learn batches instead."""
    assert columns.batch is not None
    batch = source.obs(columns.batch).codes.astype(np.int64)
    known = there & (batch >= 0)
    pairs = np.unique(np.stack([batch[known], outcome[known]]), axis=1)
    n_batches = len(np.unique(pairs[0]))
    n_patients = len(np.unique(patient[known]))
    if 1 < n_batches < n_patients and len(pairs[0]) == n_batches:
        raise UserError(
            f"{source.name}: each batch in {columns.batch!r} has patients of one outcome only: "
            "batches and outcomes cannot be separated, so a model might learn either",
            hint="name another batch column; these patients cannot answer the question",
        )
