"""Principal components of sparse cells, for the baseline and for figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, svds

from vcell import console
from vcell.gmvae.cells import in_pieces

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from vcell.gmvae.cells import ResidentCells
    from vcell.nn.compressed import CompressedRows

COMPONENTS = "components.npz"
MOST = 10_000  # maximum number of cells to learn components from


def as_csr(rows: CompressedRows) -> Any:
    """Return the log-normalised values of a batch as a scipy matrix."""
    begin, indices, values = rows.arrays()
    return sp.csr_matrix((values, indices, begin), shape=(len(rows), rows.n_genes))


class Components:
    """The leading principal components of log-normalised cells.

    Attributes
    ----------
    centre
        (G,) means of the genes.
    axes
        (n, G), divided by the scales of the genes if these were scaled.
    parts
        How many axes were learnt together: `beside` puts others after them.
    """

    def __init__(
        self, centre: NDArray[Any], axes: NDArray[Any], parts: tuple[int, ...] = ()
    ) -> None:
        self.centre, self.axes, self.parts = centre, axes, parts or (len(axes),)

    @classmethod
    def learnt(
        cls,
        cells: ResidentCells,
        rows: NDArray[np.int64],
        n: int = 30,
        seed: int = 0,
        *,
        scaled: bool = False,
    ) -> Components:
        """Learn from some cells, at most `MOST` of them, without making them dense.

        With `scaled`, each gene is divided by its standard deviation and the median one of all
        genes together: few genes with large values no longer decide, and noise is not blown up.
        """
        rng = np.random.default_rng((seed, 0x9CA))
        if len(rows) > MOST:
            console.say(f"components are learnt from {MOST:,} of {len(rows):,} cells")
            rows = np.sort(rng.choice(rows, MOST, replace=False))
        x = sp.vstack([as_csr(cells.fetch(some)) for some in in_pieces(rows)], format="csr")
        ones = np.ones(x.shape[0])
        centre = middle = x.T @ ones / len(ones)
        if scaled:
            scale = _scales(x, centre)
            x.data /= scale[x.indices]
            middle = centre / scale
        n = min(n, min(x.shape) - 1)
        centred = LinearOperator(
            x.shape,
            matvec=lambda v: x @ v - ones * (middle @ v),
            rmatvec=lambda u: x.T @ u - middle * u.sum(),
            matmat=lambda v: x @ v - np.outer(ones, middle @ v),
            rmatmat=lambda u: x.T @ u - np.outer(middle, u.sum(0)),
            dtype=np.float64,
        )
        start = rng.standard_normal(min(x.shape))
        _, size, axes = svds(centred, k=n, v0=start)
        axes = axes[np.argsort(-size)]
        sign = np.sign(axes[np.arange(n), np.abs(axes).argmax(1)])
        axes = axes * sign[:, None]
        return cls(centre, (axes / scale if scaled else axes).astype(np.float32))

    def beside(self, other: Components) -> Components:
        """Return these components, followed by `other` of the same genes and cells."""
        axes = np.concatenate([self.axes, other.axes])
        return Components(self.centre, axes, (*self.parts, *other.parts))

    def split(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the columns of components (N, n) that belong together."""
        return np.split(x, np.cumsum(self.parts)[:-1], axis=1)

    def save(self, path: Path) -> None:
        """Write the components, for `load`."""
        with path.open("wb") as file:
            np.savez(file, centre=self.centre, axes=self.axes, parts=self.parts)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read components from `save`."""
        with np.load(path, allow_pickle=False) as file:
            parts = file["parts"].tolist() if "parts" in file else ()  # older runs have one
            return cls(file["centre"], file["axes"], tuple(parts))

    def of(self, cells: ResidentCells, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the components of some cells, (N, n)."""
        return np.concatenate([self.of_batch(cells.fetch(some)) for some in in_pieces(rows)])

    def of_batch(self, batch: CompressedRows) -> NDArray[np.float64]:
        """Return the components of a batch, (B, n)."""
        found: NDArray[np.float64] = as_csr(batch) @ self.axes.T - self.centre @ self.axes.T
        return found


def _scales(x: Any, centre: NDArray[Any]) -> Any:
    """Return standard deviations of the columns of a sparse matrix, plus their median."""
    square = np.bincount(x.indices, x.data.astype(np.float64) ** 2, x.shape[1]) / x.shape[0]
    spread = np.sqrt(np.maximum(square - centre**2, 0))
    varying = spread[spread > 0]
    return (spread + (np.median(varying) if len(varying) else 1.0)).astype(x.dtype)
