"""The control cells of the run, by context: read into pools, and copied into the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from vcell import console
from vcell.data import detect
from vcell.data.log_cells import COUNTS, LogCells
from vcell.errors import UserError
from vcell.screen.design import Design
from vcell_predict.cells.pool import MEMORY, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vcell.data import CellSource
    from vcell_predict.cells.making import Mode
    from vcell_predict.ensemble import Ensemble


@dataclass(frozen=True)
class LabelColumns:
    """Names of the label columns; None for a column that does not exist."""

    perturbation: str
    control: str
    batch: str | None
    context: str | None


class Controls:
    """The cells of a file with the control label."""

    def __init__(
        self, source: CellSource, ensemble: Ensemble, columns: LabelColumns, mode: Mode
    ) -> None:
        _check_genes(source, ensemble)
        self.source, self.screen, self.columns = source, ensemble.screen, columns
        kind = detect.scale(source, quiet=True).kind
        self.values = LogCells(source, kind, self.screen.target_sum)
        self.mode = mode
        if mode == "counts" and kind != COUNTS:
            raise UserError(
                f"{source.name} holds log1p values; --as counts makes cells from counts",
                hint="train on raw counts, or leave out --as counts",
            )

    @cached_property
    def design(self) -> Design:
        """The labels of every cell of the file, in the contexts of the run."""
        columns = self.columns
        labels = {
            "perturbation_column": columns.perturbation,
            "control": columns.control,
            "batch_column": columns.batch,
            "cell_type_column": columns.context,
        }
        return Design.of_source(self.source, labels, self.screen.contexts.tolist())

    def rows(self, contexts: list[int]) -> NDArray[np.int64]:
        """Return the row numbers of the control cells of some contexts."""
        return np.flatnonzero(self.design.control & np.isin(self.design.context, contexts))

    def pool(self, context: int, n_pools: int) -> Pool:
        """Read the controls of a context into memory; `n_pools` share the limit."""
        rows, called = self.rows([context]), "control cells"
        if self.columns.context is not None:
            called += f" of {self.screen.contexts[context]}"
        if not len(rows):
            raise UserError(f"{self.source.name} has no {called}")
        return Pool.read(
            self.read, rows, self.design.batch, memory=MEMORY // n_pools, called=called
        )

    def read(
        self, rows: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], sp.csr_array]]:
        """Yield row numbers and values on the scale of the prediction: log1p, or counts."""
        if self.mode != "counts":
            yield from self.values.blocks(rows)
            return
        for block in self.source.chunks(rows):
            shape = (len(block.rows), block.n_genes)
            yield block.rows, sp.csr_array((block.data, block.indices, block.indptr), shape=shape)


def _check_genes(source: CellSource, ensemble: Ensemble) -> None:
    """Refuse other genes; warn if the file has changed since training."""
    run, genes = ensemble.first.run, ensemble.screen.genes
    if len(source.genes) != len(genes) or (source.genes != genes).any():
        raise UserError(
            f"{source.name} has other genes than the run learnt ({source.n_genes:,} and "
            f"{len(genes):,}, or in another order)",
            hint="give the cells the run was trained on, or others with the same genes",
        )
    read = run.meta["data"][0]
    if source.path is None or str(source.path.absolute()) != read["path"]:
        return
    if source.path.stat().st_mtime != read["modified"]:
        console.warn(f"{source.name} has changed since {run.name} was trained on it")
