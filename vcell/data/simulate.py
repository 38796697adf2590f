"""Simulated perturbation screens whose truth is known: for the demo, the tests and the benchmarks.

A cell's counts are negative binomial around

    library size x base share x batch factor x exp(sum over programmes of activity x loading)

A perturbation changes the programme activities of its cells, by an amount that depends on the
memberships of its target gene, so that the effect of an unseen perturbation can be learnt from
others; it also knocks down its target. Null perturbations change nothing.

Every cell has its own random stream: the same seed gives the same bits for any chunk size and any
number of threads, and any number of cells is written in bounded memory.

    sim = Simulator(Design(cells=300_000, genes=18_080, perturbations=150, umis=9_000))
    sim.write("cells.h5ad")           # and the truth, cells.truth.npz
    adata = simulate(cells=2_000)     # a small screen, in memory
"""

from __future__ import annotations

import functools
import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.cores import cores
from vcell.data.simulate_truth import LEVELS, SimulationDesign, SimulationTruth, draw_truth

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import anndata

    from vcell.kernels.simulate import Law

__all__ = [
    "CONTROL",
    "SimulatedCells",
    "SimulationDesign",
    "SimulationTruth",
    "Simulator",
    "oracle",
    "simulate",
]

CONTROL = "non-targeting"
_BLOCK = 512  # cells drawn by one call of the kernel
# irrational steps of low joint discrepancy (Roberts' R sequence), to spread labels over the file
_STEP_LABEL, _STEP_TYPE = 0.8191725133961645, 0.6710436067037893


@dataclass(frozen=True)
class SimulatedCells:
    """A block of simulated cells: CSR counts and the label codes of each cell (0 is control)."""

    start: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    perturbation: NDArray[np.int32]
    batch: NDArray[np.int32]
    cell_type: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.indptr) - 1


class Simulator:
    """Draws the cells of a design; `truth` is what they are drawn from."""

    def __init__(self, design: SimulationDesign | None = None, **changes: Any) -> None:
        self.design = replace(design or SimulationDesign(), **changes)
        self._slots, self.truth = draw_truth(self.design)
        state = np.random.SeedSequence([self.design.seed, self.design.draw, 1])
        self._key = state.generate_state(1, np.uint64)[0]
        self._room = 0  # non-zeros per cell, as seen so far

    @property
    def labels(self) -> NDArray[np.str_]:
        """Names of the perturbation codes: the control, then the perturbations."""
        return np.concatenate([[CONTROL], self.truth.perturbations])

    def codes(self, start: int, stop: int) -> tuple[NDArray[np.int32], ...]:
        """Perturbation, batch and cell type of cells `start` to `stop`: in exact shares, mixed."""
        n, p = self.design.cells, self.design.perturbations
        number = np.arange(start, stop, dtype=np.int64)
        slot = _spread(number, n, _STEP_LABEL) - self.design.controls
        perturbation = np.where(slot < 0, 0, 1 + slot * p // max(n - self.design.controls, 1))
        batch = number * self.design.batches // n
        cell_type = _spread(number, n, _STEP_TYPE) * self.design.cell_types // n
        return tuple(code.astype(np.int32) for code in (perturbation, batch, cell_type))

    def draw(self, start: int, stop: int, codes: Sequence[Any] | None = None) -> SimulatedCells:
        """Draw cells `start` to `stop`, with the labels of the design unless `codes` are given."""
        from vcell.kernels.simulate import CellLabels, draw_cells

        perturbation, batch, cell_type = codes or self.codes(start, stop)
        truth, design = self.truth, self.design
        labels = CellLabels(
            shift=np.vstack([np.zeros((1, design.programmes)), truth.response])[perturbation],
            target=np.concatenate([[-1], truth.target])[perturbation],
            kept=np.concatenate([[1.0], truth.kept])[perturbation],
            cell_type=cell_type,
            batch=batch,
        )
        indptr = np.empty(stop - start + 1, np.int64)
        room = int((self._room or min(design.genes, 0.7 * design.umis)) * 1.1) + 64
        capacity = room * (stop - start)
        while True:
            indices, data = np.empty(capacity, np.int32), np.empty(capacity, np.float32)
            filled = draw_cells(self._key, start, self._law, labels, indptr, indices, data)
            self._room = max(self._room, math.ceil(filled / (stop - start)))
            if filled <= capacity:
                break
            capacity = filled
        return SimulatedCells(
            start, indptr, indices[:filled], data[:filled], perturbation, batch, cell_type
        )

    @functools.cached_property
    def _law(self) -> Law:
        """The kernel's parameters; base shares allow for the mean effect of activities."""
        from vcell.kernels.simulate import Law

        truth, design = self.truth, self.design
        added = design.activity_sd**2 * (truth.loadings**2).sum(axis=0) / 2  # log E[exp(a w)]
        return Law(
            depth_median=float(design.umis),
            depth_sd=float(design.depth_sd),
            activity_sd=float(design.activity_sd),
            base=truth.base * np.exp(-added),
            batch_factor=truth.batch_factor,
            level=LEVELS,
            slots=self._slots,
            size=truth.size,
        )

    def blocks(self, rows: int = _BLOCK, threads: int | None = None) -> Iterator[SimulatedCells]:
        """Draw all cells in order, `rows` at a time, with a few blocks in advance on threads."""
        threads = threads or cores()
        ahead: deque[Future[SimulatedCells]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, self.design.cells, rows):
                ahead.append(pool.submit(self.draw, start, min(start + rows, self.design.cells)))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def to_anndata(self) -> anndata.AnnData:
        """Draw all cells into memory."""
        import scipy.sparse as sp

        parts = [
            sp.csr_matrix((b.data, b.indices, b.indptr), shape=(len(b), self.design.genes))
            for b in self.blocks()
        ]
        adata = self.empty()
        adata.X = sp.vstack(parts, format="csr")
        return adata

    def empty(self) -> anndata.AnnData:
        """Return an AnnData with all labels and names, and no counts."""
        import anndata
        import pandas as pd
        import scipy.sparse as sp

        n, n_genes = self.design.cells, self.design.genes
        obs = {
            column: pd.Categorical.from_codes(codes, names)
            for column, codes, names in zip(
                ("target_gene", "batch", "cell_type"),
                self.codes(0, n),
                self.categories,
                strict=True,
            )
        }
        return anndata.AnnData(
            sp.csr_matrix((n, n_genes), dtype=np.float32),
            obs=pd.DataFrame(obs, index=self.cell_names(0, n)),
            var=pd.DataFrame(index=self.truth.genes.astype(object)),
        )

    @property
    def categories(self) -> tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.str_]]:
        """Names of the perturbation, batch and cell type codes."""
        return (
            self.labels,
            np.array([f"batch{i + 1}" for i in range(self.design.batches)]),
            np.array([f"type{i + 1}" for i in range(self.design.cell_types)]),
        )

    @staticmethod
    def cell_names(start: int, stop: int) -> list[str]:
        """Return the names of cells `start` to `stop`."""
        return [f"CELL{i:09d}" for i in range(start + 1, stop + 1)]

    def write(self, path: str | os.PathLike[str], *, compress: bool = False) -> Path:
        """Stream all cells to .h5ad or .zarr, and write the truth; return the truth's path."""
        from vcell.data.simulate_file import write

        return write(self, path, compress=compress)


def simulate(**changes: Any) -> anndata.AnnData:
    """Simulate cells in memory.

    Parameters
    ----------
    **changes
        Settings of `SimulationDesign`, such as ``cells``, ``genes`` and ``perturbations``.

    Returns
    -------
    AnnData
        Counts with their labels; write files with `Simulator.write` to have the truth as well.

    Examples
    --------
    >>> simulate(cells=300, genes=100, perturbations=5).shape
    (300, 100)
    """
    return Simulator(**changes).to_anndata()


def oracle(simulator: Simulator, cells: int, perturbations: Sequence[str]) -> anndata.AnnData:
    """Draw new cells of given perturbations from the truth: the best possible prediction.

    `cells` of each perturbation and of the control, distributed over batches and cell types as in
    the design; `perturbations` may be any of the simulation.
    """
    import anndata
    import pandas as pd
    import scipy.sparse as sp

    fresh = Simulator(simulator.design, draw=simulator.design.draw + 1)
    number = {name: i for i, name in enumerate(fresh.labels)}
    wanted = np.array([number[name] for name in [CONTROL, *perturbations]], np.int32)
    perturbation = np.repeat(wanted, cells)
    turn = np.tile(np.arange(cells), len(wanted))
    batch = (turn % fresh.design.batches).astype(np.int32)
    cell_type = (turn // fresh.design.batches % fresh.design.cell_types).astype(np.int32)
    drawn = fresh.draw(0, len(turn), (perturbation, batch, cell_type))
    names = fresh.categories
    obs = pd.DataFrame(
        {
            "target_gene": pd.Categorical.from_codes(perturbation, names[0]),
            "batch": pd.Categorical.from_codes(batch, names[1]),
            "cell_type": pd.Categorical.from_codes(cell_type, names[2]),
        },
        index=[f"ORACLE{i:09d}" for i in range(1, len(turn) + 1)],
    )
    obs["target_gene"] = obs["target_gene"].cat.remove_unused_categories()
    counts = sp.csr_matrix(
        (drawn.data, drawn.indices, drawn.indptr), shape=(len(turn), fresh.design.genes)
    )
    return anndata.AnnData(
        counts, obs=obs, var=pd.DataFrame(index=fresh.truth.genes.astype(object))
    )


def _spread(number: NDArray[np.int64], n: int, step: float) -> NDArray[np.int64]:
    """Permute 0..n-1 so that any run of neighbours is spread evenly: i -> a i mod n."""
    a = max(round(step * n), 1)
    while math.gcd(a, n) != 1:
        a += 1
    return number * a % n
