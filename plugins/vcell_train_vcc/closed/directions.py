"""Directions in which effects differ by more than the sampling of cells explains.

A prediction is a weighted sum of measured effects, so it holds their noise as well. The measured
effects, in coordinates in which noise has variance 1 everywhere, are a matrix of noise plus one of
few components: effects of different targets resemble one another. Every component of a prediction
is multiplied by the share of it that is not noise, which random matrix theory tells from its size
(Gavish and Donoho 2017, Frobenius loss); components that noise alone would have get 0. What remains
is multiplied by one factor, so that left-out predictions are as large as before (at most doubled):
how large they should be is chosen elsewhere. Effects that are all of different directions are no
such matrix, and data seldom show which it is, so the result is averaged with the prediction as it
was. P perturbations, N genes, K components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.screen.cell_noise import Whitening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vcell.models import Screen

    Array = NDArray[np.float64]

_MOST = 128  # components that are computed
_PASSES = 4
_SURE = 0.98  # the 95 % quantile of the Tracy-Widom law, for the largest component of noise
_HIGHEST = 2.0  # factor; more is asked for where hardly anything is kept
_ROWS = 500  # filtered at once, which bounds memory


class Directions:
    """The components of the effects `delta` (P, N) of a screen's rows (P,) about their mean.

    Attributes
    ----------
    shares
        (K,) what is kept of each component, largest first.
    """

    def __init__(
        self, screen: Screen, rows: NDArray[np.int64], delta: Array, used: NDArray[np.bool_]
    ) -> None:
        loadings = screen.cell_loadings.astype(np.float64)
        white = Whitening.of(screen.cell_variance.astype(np.float64), loadings)
        usual = max(float(screen.cell_variance.mean(dtype=np.float64)), 1e-12)
        noise = np.maximum(screen.row_noise[rows].astype(np.float64) / usual, 1e-12)
        mean = used @ delta / max(used.sum(), 1)
        own = _own(screen, rows, delta, mean)
        values, vectors = _components(white, delta, mean, own, used / np.sqrt(noise))
        found = shares(values, int(used.sum()) - 1, int(white.genes.sum()))
        self.shares = found[found > 0]
        kept = vectors[:, found > 0]
        self.onto = white.columns(kept)
        self.back = white.back((kept * self.shares).T)

    def of(self, effects: Array) -> Array:
        """Return what is kept of predictions (Q, N) about the mean."""
        return np.asarray((effects @ self.onto) @ self.back)


class Denoising:
    """Averages predictions about the mean with what is kept of them.

    Left-out predictions are filtered by the components of effects without their own fold, which
    would otherwise tell where the effect is; those in no fold by all (there are hundreds then).

    Parameters
    ----------
    screen, rows, delta
        The training rows (P,) and their effects (P, N).
    left_out
        Predictions (P, N) about the mean, each made without its row; filtered in place.
    fold
        (P,) of each row, -1 for none.

    Attributes
    ----------
    told
        Whether the screen has what cells tell of noise; predictions are left as they are otherwise.
    factor
        What the filtered predictions are multiplied by.
    """

    def __init__(
        self,
        screen: Screen,
        rows: NDArray[np.int64],
        delta: Array,
        left_out: Array,
        fold: NDArray[np.int64],
    ) -> None:
        self.told, self.factor = len(screen.cell_variance) > 0, 1.0
        if not self.told:
            return
        folds = np.unique(fold)
        self.without = {one: Directions(screen, rows, delta, fold != one) for one in folds}
        self.all = Directions(screen, rows, delta, np.ones(len(rows), bool))
        self.without[-1] = self.all
        before = after = 0.0
        for at in _blocks(fold):
            before += float(np.square(left_out[at]).sum())
            after += float(np.square(self.without[fold[at[0]]].of(left_out[at])).sum())
        self.factor = min(float(np.sqrt(before / max(after, 1e-30))), _HIGHEST)
        self.leave_out(left_out, fold)

    def leave_out(self, effects: Array, fold: NDArray[np.int64]) -> None:
        """Filter predictions (R, N) about the mean of rows that were left out, in place."""
        for at in _blocks(fold) if self.told else ():
            effects[at] = self._average(effects[at], self.without[fold[at[0]]])

    def keep(self, effects: Array) -> Array:
        """Filter predictions (Q, N) about the mean."""
        return self._average(effects, self.all) if self.told else effects

    def _average(self, effects: Array, directions: Directions) -> Array:
        return np.asarray((effects + self.factor * directions.of(effects)) / 2)


def _blocks(fold: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each fold, some at a time."""
    for one in np.unique(fold):
        at = np.flatnonzero(fold == one)
        yield from (at[i : i + _ROWS] for i in range(0, len(at), _ROWS))


def shares(values: Array, n_rows: int, n_genes: int) -> Array:
    """Return the share (K,) of singular values of signal and noise of variance 1 that is signal."""
    few, many = sorted((max(n_rows, 1), n_genes))
    largest = (np.sqrt(many) + np.sqrt(few)) ** 2  # of noise alone (Johnstone 2001)
    spread = (np.sqrt(many) + np.sqrt(few)) * (1 / np.sqrt(many) + 1 / np.sqrt(few)) ** (1 / 3)
    ratio, square = few / many, np.square(values) / many
    above = np.square(values) > largest + _SURE * spread
    found = np.sqrt(np.maximum(np.square(square - ratio - 1) - 4 * ratio, 0))
    return np.asarray(np.where(above, found / np.maximum(square, 1e-12), 0.0))


def _own(
    screen: Screen, rows: NDArray[np.int64], delta: Array, mean: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return which entries are target genes, and their values about the mean."""
    column = screen.columns(screen.perturbations[rows].tolist())
    row, place = np.nonzero(column >= 0)
    gene = column[row, place]
    return row, gene, delta[row, gene] - mean[gene]


def _components(
    white: Whitening,
    delta: Array,
    mean: Array,
    own: tuple[NDArray[np.int64], NDArray[np.int64], Array],
    weight: Array,
) -> tuple[Array, Array]:
    """Return singular values (K,) and right vectors (N, K) of the whitened effects.

    Effects are about their mean, rows times `weight` (P,), and target genes are 0. The matrix is
    never formed.
    """
    row, gene, value = own

    def times(vectors: Array) -> Array:
        columns = white.columns(vectors)
        found = delta @ columns - mean @ columns
        np.subtract.at(found, row, value[:, None] * columns[gene])
        return np.asarray(found * weight[:, None])

    def transposed(vectors: Array) -> Array:
        weighted = vectors * weight[:, None]
        found = delta.T @ weighted - np.outer(mean, weighted.sum(axis=0))
        np.subtract.at(found, gene, value[:, None] * weighted[row])
        return white.into(found.T).T

    n_rows, n_genes = delta.shape
    basis = np.random.default_rng(0).normal(size=(n_genes, min(n_rows, n_genes, _MOST)))
    for _ in range(_PASSES):
        basis = np.linalg.qr(transposed(times(basis)))[0]
    _, values, turn = np.linalg.svd(times(basis), full_matrices=False)
    return values, basis @ turn.T
