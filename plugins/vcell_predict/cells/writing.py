"""Write controls and predicted cells as a stream into an .h5ad, which appears when complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from vcell.data import CellWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell_predict.cells.controls import Controls
    from vcell_predict.cells.making import CellGroup, CellMaker
    from vcell_predict.requests import Request


class PredictionFile:
    """The file being written, and the labels of its cells."""

    def __init__(
        self, path: Path, controls: Controls, names: Sequence[str], uns: Mapping[str, Any]
    ) -> None:
        columns, screen = controls.columns, controls.screen
        self.columns, self.controls = columns, controls
        self.code = {name: i for i, name in enumerate(dict.fromkeys([columns.control, *names]))}
        obs = {columns.perturbation: list(self.code)}
        if columns.context is not None:
            obs[columns.context] = screen.contexts.tolist()
        if columns.batch is not None:
            obs[columns.batch] = list(controls.design.batches)
        counts = controls.mode == "counts"
        self.writer = CellWriter(
            path, screen.genes, obs=obs, uns=uns, dtype=np.int32 if counts else np.float32
        )

    def write_controls(self, rows: NDArray[np.int64], advance: Any) -> None:
        """Copy control cells unchanged."""
        design = self.controls.design
        for numbers, block in self.controls.read(rows):
            self._append(
                block, self.columns.control, design.context[numbers],
                design.batch[numbers], [f"control-{i}" for i in numbers],
            )  # fmt: skip
            advance(len(numbers))

    def predicted(
        self, one: Request, context: int, maker: CellMaker, job: Any, advance: Any
    ) -> None:
        """Write the cells of a perturbation; `job` has their number and the effect."""
        n, effect = job
        written = 0
        where = f"-{one.context}" if self.columns.context is not None else ""
        made: CellGroup
        for made in maker.make(one, n, effect):
            k = len(made.rows)
            names = [f"{one.name}{where}-{written + i}-{row}" for i, row in enumerate(made.rows)]
            self._append(made.cells, one.name, np.full(k, context), made.batch, names)
            written += k
            advance(k)

    def _append(
        self,
        cells: sp.csr_array,
        name: str,
        context: NDArray[np.int64],
        batch: NDArray[np.int64],
        names: list[str],
    ) -> None:
        obs: dict[str, Any] = {
            self.columns.perturbation: np.full(len(names), self.code[name], np.int32)
        }
        if self.columns.context is not None:
            obs[self.columns.context] = context.astype(np.int32)
        if self.columns.batch is not None:
            obs[self.columns.batch] = batch.astype(np.int32)
        self.writer.append(sp.csr_matrix(cells), obs, names)
