"""Generate the cells of a predicted perturbation from control cells, in groups of bounded size.

Each group has its own random stream, seeded by the seed, the perturbation and the number of the
group. The cells of a perturbation are thus the same whatever else is predicted.
n cells, N genes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from vcell.data.log_scale import log_scaled
from vcell_predict.cells.counts import ControlCounts
from vcell_predict.cells.pool import Pool
from vcell_predict.cells.residual import move

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcell_predict.requests import Request

Mode = Literal["residual", "mean", "counts"]
GROUP = 1024  # cells generated at once


@dataclass(frozen=True)
class CellGroup:
    """Some cells of a perturbation."""

    cells: sp.csr_array
    rows: NDArray[np.int64]  # row numbers of the control cells they were made from
    batch: NDArray[np.int64]  # code of each cell's batch


@dataclass(frozen=True)
class CellMaker:
    """Generates cells from the controls of one context.

    Parameters
    ----------
    mode
        How cells are generated.
    pool
        The control cells: counts for "counts", else log1p values.
    control
        (N,) mean log1p value of the controls.
    target_sum
        Counts per cell before log1p.
    batches
        Code of each batch, by name.
    seed
        Seed of all random streams.
    """

    mode: Mode
    pool: Pool
    control: NDArray[np.floating]
    target_sum: float
    batches: dict[str, int]
    seed: int

    def make(self, request: Request, n: int, effect: NDArray[np.floating]) -> Iterator[CellGroup]:
        """Yield the n cells of a perturbation in groups."""
        key = [zlib.crc32(text.encode()) for text in (request.name, request.context)]
        order = np.random.default_rng([self.seed, *key])
        chosen = self._chosen(request, n, order)
        library = self._library(request, chosen, order)
        for start in range(0, n, GROUP):
            part = slice(start, min(start + GROUP, n))
            rng = np.random.default_rng([self.seed, *key, start // GROUP + 1])
            cells = self._group(
                chosen[part], effect, None if library is None else library[part], rng
            )
            yield CellGroup(cells, self.pool.rows[chosen[part]], self.pool.batch[chosen[part]])

    def _group(
        self,
        chosen: NDArray[np.int64],
        effect: NDArray[np.floating],
        library: NDArray[np.float64] | None,
        rng: np.random.Generator,
    ) -> sp.csr_array:
        mean = np.maximum(self.control + effect, 0).astype(np.float32)
        if self.mode == "counts":
            return self._counts.make(chosen, mean, library, rng)
        if self.mode == "mean":
            return sp.csr_array(np.tile(mean, (len(chosen), 1)))
        cells = move(self.pool, chosen, mean, rng)
        return _adding_up(cells, self.target_sum) if np.isfinite(self.target_sum) else cells

    @property
    def median(self) -> float:
        """The median total counts of the control cells."""
        return float(max(np.median(self._counts.library), 1))

    @cached_property
    def _counts(self) -> ControlCounts:
        return ControlCounts(self.pool, self.target_sum)

    def _chosen(self, request: Request, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose controls (n,), from the requested batches if these are known."""
        if request.batch is None or not self.batches or len(request.batch) != n:
            return self.pool.choose(n, rng)
        codes = np.array([self.batches.get(name, -1) for name in request.batch.tolist()])
        return self.pool.matching(codes, rng)

    def _library(
        self, request: Request, chosen: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float64] | None:
        """Return the target totals (n,); the largest go to the largest cells."""
        if self.mode != "counts" or (request.totals is None and request.median is None):
            return None
        own = self._counts.library[chosen]
        if request.totals is None:
            assert request.median is not None
            return np.asarray(own * (request.median / np.median(own)))
        n = len(chosen)
        totals = request.totals if len(request.totals) == n else rng.choice(request.totals, n)
        library = np.empty(n)
        library[np.argsort(own, kind="stable")] = np.sort(totals)
        return library


def _adding_up(cells: sp.csr_array, target_sum: float) -> sp.csr_array:
    """Scale each cell to the total that cells had before log1p."""
    linear = np.expm1(cells.data.astype(np.float64))
    total = np.add.reduceat(np.append(linear, 0.0), cells.indptr[:-1])
    lengths = np.diff(cells.indptr)
    factor = np.where(lengths > 0, target_sum / np.maximum(total, 1e-12), 1.0)
    values = log_scaled(linear, factor, cells.indptr).astype(np.float32)
    return sp.csr_array((values, cells.indices, cells.indptr), cells.shape)
