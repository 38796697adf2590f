"""Sums per gene: of stored, normalised and clipped values, and of Pearson residuals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vcell.data.log_scale import log_divided, log_table
from vcell.kernels import clipped, moments, pearson
from vcell.kernels.moments import add_into
from vcell.passes.engine import SPAN, TILE, CellSpan, Reducer, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TILED_BYTES = 8 << 20  # limit for one tile's sums; larger ones are split by batch


def cell_scale(totals: NDArray[np.float64], target_sum: float) -> NDArray[np.float32]:
    """Return the divisors of scanpy's `normalize_total`, in float32; 1 for empty cells."""
    scale = totals.astype(np.float32) / np.float32(target_sum)
    return np.where(scale == 0, np.float32(1), scale)


class _GeneSums(Reducer):
    """Sums per batch and gene, ``total[B, G, K]``, in the fixed order of tiles and spans.

    With few batches every tile has its own sums and tiles are processed in parallel; with many, the
    batches of a span are divided among threads, and each adds its cells in their order.
    """

    def __init__(
        self, n_genes: int, columns: int, codes: NDArray[np.int32] | None, n_batches: int
    ) -> None:
        self.codes = codes
        self.total = np.zeros((n_batches, n_genes, columns))
        self.tiled = self.total.nbytes <= _TILED_BYTES
        self._span = np.zeros((SPAN // TILE if self.tiled else 1, *self.total.shape))
        self._used: set[int] = set()

    def _kernel(
        self, part: CellSpan, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        """Add some of the part's cells to ``out[B, G, K]``."""
        raise NotImplementedError

    def tasks(self, part: CellSpan, threads: int) -> Iterator[Task]:
        """Return tasks for a part."""
        codes = part.codes(self.codes)
        if self.tiled:
            for tile, cells in part.tiles():
                self._used.add(tile)
                yield lambda t=tile, c=cells: self._kernel(part, c, codes[c], self._span[t])  # type: ignore[misc]
        else:
            self._used.add(0)
            everything = slice(0, len(codes))
            for lane in range(threads):
                own = np.where(codes % threads == lane, codes, np.int32(-1))
                yield lambda own=own: self._kernel(part, everything, own, self._span[0])  # type: ignore[misc]

    def end_span(self) -> None:
        """Add up the span."""
        used = sorted(self._used)
        if not used:
            return
        for tile in used[1:]:
            add_into(self._span[used[0]], self._span[tile])
        if self.spans is None:
            self.merge([self._span[used[0]]])
        else:
            self.spans.append(self._span[used[0]].copy())
        for tile in used:
            self._span[tile] = 0.0
        self._used.clear()

    def export(self) -> list[NDArray[np.float64]]:
        """Return the sums of every span, or of all spans if they were added up."""
        return [self.total] if self.spans is None else self.spans

    def merge(self, exported: Sequence[NDArray[np.float64]]) -> None:
        """Add spans in their order."""
        for span in exported:
            add_into(self.total, span)


class GeneMoments(_GeneSums):
    """Non-zeros, sum and sum of squares of values as stored: ``total[B, G, 3]``.

    `single`: the source stores float32, whose squares scanpy rounds to float32.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        codes: NDArray[np.int32] | None = None,
        n_batches: int = 1,
        single: bool = True,
    ) -> None:
        super().__init__(n_genes, 3, codes, n_batches)
        self.single = single

    def _kernel(
        self, part: CellSpan, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        moments.gene_moments(indptr, part.indices, part.data, codes, self.single, out)


class NormalizedMoments(_GeneSums):
    """Non-zeros, sum and sum of squares of normalised values: ``total[B, G, 3]``.

    The values are ``log1p(x / total * target_sum)``, or with `linear` ``expm1`` of that (which
    flavour "seurat" uses). With ``target_sum=None`` the stored values are log1p already. `totals`
    (per cell of the source) replaces the totals of the pass.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        target_sum: float | None,
        linear: bool,
        codes: NDArray[np.int32] | None = None,
        n_batches: int = 1,
        totals: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__(n_genes, 3, codes, n_batches)
        self.target_sum = target_sum
        self.linear = linear
        self.totals = totals

    def _kernel(
        self, part: CellSpan, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        if self.target_sum is None:
            values = part.data[indptr[0] : indptr[-1]]
            genes = part.indices[indptr[0] : indptr[-1]]
            moments.listed_moments(
                np.repeat(codes, np.diff(indptr)), genes, self._final(values), out
            )
            return
        totals = part.totals if self.totals is None else self.totals[part.cells]
        scale = cell_scale(totals[cells], self.target_sum)
        table = self._final(log_table(moments.LUT, scale))
        room = int(indptr[-1] - indptr[0]) // 16  # over 99 % of UMI counts are in the table
        others, places = np.empty(room, np.int64), np.empty((room, 2), np.int32)
        found = moments.tabled_moments(
            indptr, part.indices, part.data, codes, table, out, others, places
        )
        if found > room:
            others, places = np.empty(found, np.int64), np.empty((found, 2), np.int32)
            moments.list_untabled(indptr, part.indices, part.data, codes, others, places)
        cell, gene = places[:found].T
        large = self._final(log_divided(part.data[others[:found]], scale[cell]))
        moments.listed_moments(codes[cell], gene, large, out)

    def _final(self, logs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.expm1(logs) if self.linear else logs


class ClippedSums(_GeneSums):
    """Sums up to each gene's clip value and the number above it: ``total[B, G, 3]``."""

    def __init__(
        self,
        clip: NDArray[np.float64],
        *,
        codes: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(clip.shape[1], 3, codes, clip.shape[0])
        self.clip = clip

    def _kernel(
        self, part: CellSpan, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        clipped.clipped_sums(indptr, part.indices, part.data, codes, self.clip, out)


class ResidualSums(_GeneSums):
    """Sums of Pearson residuals and their squares over the non-zeros: ``total[B, G, 2]``.

    `depths` are the totals of the source's cells; `shares` ``[B, G]`` the genes' shares in a batch.
    """

    def __init__(
        self,
        shares: NDArray[np.float64],
        *,
        theta: float,
        clip: float,
        depths: NDArray[np.float64],
        codes: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(shares.shape[1], 2, codes, shares.shape[0])
        self.depths = depths
        self.shares, self.theta, self.clip = shares, theta, clip

    def _kernel(
        self, part: CellSpan, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        pearson.residual_sums(
            indptr, part.indices, part.data, codes, self.depths[part.cells[cells]],
            self.shares, self.theta, self.clip, out,
        )  # fmt: skip
