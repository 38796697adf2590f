"""Principal components of sparse cells, for the baseline and for figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, svds

from vcell import console

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from vcell.gmvae.cells import ResidentCells
    from vcell.nn.compressed import CompressedRows

COMPONENTS = "components.npz"
MOST = 10_000  # maximum number of cells to learn components from
_AT_ONCE = 1024


def as_csr(rows: CompressedRows) -> Any:
    """Return the log-normalised values of a batch as a scipy matrix."""
    begin, indices, values = rows.arrays()
    return sp.csr_matrix((values, indices, begin), shape=(len(rows), rows.n_genes))


class Components:
    """The leading principal components of log-normalised cells."""

    def __init__(self, centre: NDArray[Any], axes: NDArray[Any]) -> None:
        self.centre, self.axes = centre, axes

    @classmethod
    def learnt(
        cls, cells: ResidentCells, rows: NDArray[np.int64], n: int = 30, seed: int = 0
    ) -> Components:
        """Learn from some cells, at most `MOST` of them, without making them dense."""
        rng = np.random.default_rng((seed, 0x9CA))
        if len(rows) > MOST:
            console.say(f"components are learnt from {MOST:,} of {len(rows):,} cells")
            rows = np.sort(rng.choice(rows, MOST, replace=False))
        x = sp.vstack([as_csr(cells.fetch(some)) for some in _pieces(rows)], format="csr")
        ones = np.ones(x.shape[0])
        centre = x.T @ ones / len(ones)
        n = min(n, min(x.shape) - 1)
        centred = LinearOperator(
            x.shape,
            matvec=lambda v: x @ v - ones * (centre @ v),
            rmatvec=lambda u: x.T @ u - centre * u.sum(),
            matmat=lambda v: x @ v - np.outer(ones, centre @ v),
            rmatmat=lambda u: x.T @ u - np.outer(centre, u.sum(0)),
            dtype=np.float64,
        )
        start = rng.standard_normal(min(x.shape))
        _, size, axes = svds(centred, k=n, v0=start)
        axes = axes[np.argsort(-size)]
        sign = np.sign(axes[np.arange(n), np.abs(axes).argmax(1)])
        return cls(centre, (axes * sign[:, None]).astype(np.float32))

    def save(self, path: Path) -> None:
        """Write the components, for `load`."""
        with path.open("wb") as file:
            np.savez(file, centre=self.centre, axes=self.axes)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read components from `save`."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["centre"], file["axes"])

    def of(self, cells: ResidentCells, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the components of some cells, (N, n)."""
        return np.concatenate([self.of_batch(cells.fetch(some)) for some in _pieces(rows)])

    def of_batch(self, batch: CompressedRows) -> NDArray[np.float64]:
        """Return the components of a batch, (B, n)."""
        found: NDArray[np.float64] = as_csr(batch) @ self.axes.T - self.centre @ self.axes.T
        return found


def _pieces(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
