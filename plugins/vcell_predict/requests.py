"""The perturbations to predict: names, a list such as the challenge's, or those of a real file.

A list is a CSV with a target_gene column and optionally n_cells, median_umi_per_cell and context,
like pert_counts_Validation.csv, or a text file with one name per line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import detect, labels, open_cells
from vcell.errors import UserError
from vcell.screen.design import Design
from vcell.screen.names import cells_wanted, read_perturbation_table
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.config import DataOptions
    from vcell.data import CellSource
    from vcell.data.detect import Scale

_UMIS = "median_umi_per_cell"
_CONTEXT = "context"


@dataclass(frozen=True)
class Request:
    """One perturbation to predict.

    Parameters
    ----------
    name, context
        The perturbation, and its context; "" for every context of the run.
    n_cells
        Number of cells; None for the default.
    median
        Median of the cells' total counts; None for that of the controls.
    totals, batch
        Total counts and batch of each cell, if copied from a real file.
    """

    name: str
    context: str = ""
    n_cells: int | None = None
    median: float | None = None
    totals: NDArray[np.float64] | None = None
    batch: NDArray[np.str_] | None = None


def from_words(words: Sequence[str], control: str) -> list[Request]:
    """Read names and lists; the last entry of a perturbation counts."""
    found: dict[tuple[str, str], Request] = {}
    for word in words:
        a_list = Path(word).suffix in (".csv", ".txt", ".tsv") or "/" in word
        for one in _list(Path(word)) if a_list else [Request(word)]:
            found[one.name, one.context] = one
    return [one for one in found.values() if one.name != control]


def _list(path: Path) -> list[Request]:
    """Read a list; errors give the line."""
    table, column = read_perturbation_table(path)
    context, umis = table.column(_CONTEXT), table.column(_UMIS)
    return [
        Request(
            row[column],
            context="" if context is None else row[context],
            n_cells=n,
            median=None if umis is None else _umis(row[umis], path, line),
        )
        for (line, row), n in zip(table.rows, cells_wanted(table), strict=True)
    ]


def _umis(text: str, path: Path, line: int) -> float:
    try:
        median = float(text)
    except ValueError:
        median = -1.0
    if not 0 < median < float("inf"):
        raise UserError(f"{path}:{line}: {_UMIS} is {text[:40]!r}, not a number of counts")
    return median


def from_cells(
    path: Path, options: DataOptions, context_column: str | None, *, with_totals: bool
) -> list[Request]:
    """Copy perturbations, numbers of cells, batches and total counts from a real file."""
    with open_cells(path, options.layer) as source:
        found = asdict(labels.find(source, options)) | {"cell_type_column": context_column}
        design = Design.of_source(source, found)
        totals = _totals(source) if with_totals else None
        perturbation, context, _ = design.pairs()
        order = np.argsort(context, kind="stable")
        perturbation, context = perturbation[order], context[order]
        names = [design.names[code] for code in perturbation]
        row = design.rows(names, context.tolist())
        batches = np.array([*design.batches, ""])
        requests = []
        for i, (name, where) in enumerate(zip(names, context.tolist(), strict=True)):
            cells = np.flatnonzero(row == i)
            requests.append(
                Request(
                    name,
                    context=design.contexts[where] if context_column is not None else "",
                    n_cells=len(cells),
                    totals=None if totals is None else totals[cells],
                    batch=batches[design.batch[cells]] if design.batches else None,
                )
            )
    note = ", each with its total counts" if totals is not None else ""
    n = sum(one.n_cells or 0 for one in requests)
    console.say(
        f"{source.name}: {console.count(len(requests), 'perturbation')}, "
        f"{console.count(n, 'cell')} to predict{note}"
    )
    return requests


def _totals(source: CellSource) -> NDArray[np.float64] | None:
    """Return each cell's total counts, if the file has counts."""
    scale: Scale = detect.scale(source, quiet=True)
    if scale.kind != "counts":
        console.warn(
            f"{source.name} holds {scale.text}, no counts: total counts are those of the controls"
        )
        return None
    totals = np.zeros(source.n_cells)
    for block in source.chunks():
        totals[block.rows] = np.add.reduceat(np.append(block.data, 0.0), block.indptr[:-1])
        totals[block.rows[np.diff(block.indptr) == 0]] = 0
    return totals


def in_contexts(
    requests: Sequence[Request], contexts: Sequence[str], context: str | None
) -> list[Request]:
    """Assign a context of the run to every perturbation: `context`, its own, or each of them."""
    if context is not None and context not in contexts:
        raise UserError(
            f"the run has no context {context!r}{did_you_mean(context, contexts)}",
            hint=f"its contexts: {', '.join(contexts)}",
        )
    found = []
    for one in requests:
        if one.context and one.context not in contexts and len(contexts) > 1:
            raise UserError(
                f"{one.name} is requested in the context {one.context!r}, which the run has not "
                f"seen{did_you_mean(one.context, contexts)}",
                hint=f"its contexts: {', '.join(contexts)}",
            )
        own = [one.context] if one.context in contexts else list(contexts)
        found += [replace(one, context=name) for name in own if context in (None, name)]
    return found
