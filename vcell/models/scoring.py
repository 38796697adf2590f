"""How well effects are predicted, in the challenge's terms, from pseudobulk alone.

The official scores are made from cells by `vcell evaluate`; these are for choosing a model while
it trains and for the table of baselines. P perturbations, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.metrics import vcc2025, verdict
from vcell.metrics.rankings import mean_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def each(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return PDS, MAE and correlation of each effect; a constant effect correlates as 0."""
    truth, guess = real.astype(np.float64), predicted.astype(np.float64)
    return {
        "pds": vcc2025.discrimination(vcc2025.distances(truth, guess, target)),
        "mae": vcc2025.absolute_error(truth, guess),
        "delta_correlation": np.nan_to_num(vcc2025.pearson(truth, guess)),
    }


def without_own(
    predicted: NDArray[np.floating], real: NDArray[np.floating], own: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of `each` without the genes that are targets.

    MAE and correlation leave out each perturbation's own genes; PDS leaves out those of all, since
    another's knock-down tells it apart (the challenge of 2026 does so too). Genes of `own` (P,
    targets) are -1 where they are not measured.
    """
    truth, guess = real.astype(np.float64), predicted.astype(np.float64)
    panel = np.unique(own[own >= 0])
    rest, nothing = np.delete(truth, panel, axis=1), np.full(len(truth), -1, np.int64)
    found = {"pds": vcc2025.discrimination(vcc2025.distances(rest, np.delete(guess, panel, axis=1),
                                                             nothing))}  # fmt: skip
    found |= {name: np.zeros(len(truth)) for name in ("mae", "delta_correlation")}
    for i, genes in enumerate(own):
        a, b = (np.delete(x[i], genes[genes >= 0])[None] for x in (truth, guess))
        found["mae"][i] = vcc2025.absolute_error(a, b)[0]
        found["delta_correlation"][i] = np.nan_to_num(vcc2025.pearson(a, b))[0]
    return found


def by_chance(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of `each` if every effect is predicted by another perturbation's.

    Averaged over the others; PDS over all, since a prediction that is the same for all has exactly
    this score. Scores above it distinguish perturbations; what is below is shared by all, such as
    a change that every perturbation brings (Systema, 2025). NaN for a single effect.
    """
    truth, guess = real.astype(np.float64), predicted.astype(np.float64)
    return {
        "pds": _chance_of_rank(truth, guess, target),
        **_of_others(truth, guess, np.full((len(truth), 1), -1, np.int64)),
    }


def by_chance_without_own(
    predicted: NDArray[np.floating], real: NDArray[np.floating], own: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of `by_chance` without the genes that `without_own` leaves out."""
    truth, guess = real.astype(np.float64), predicted.astype(np.float64)
    panel = np.unique(own[own >= 0])
    rest = np.delete(truth, panel, axis=1), np.delete(guess, panel, axis=1)
    return {
        "pds": _chance_of_rank(*rest, np.full(len(truth), -1, np.int64)),
        **_of_others(truth, guess, own),
    }


def _chance_of_rank(truth: Array, guess: Array, target: NDArray[np.int64]) -> Array:
    ranks = mean_ranks(vcc2025.distances(truth, guess, target)) - 1
    found: Array = (1 - ranks / len(truth)).mean(axis=0)
    return found


def _of_others(truth: Array, guess: Array, own: NDArray[np.int64]) -> dict[str, Array]:
    """Return mean error and correlation (P,) of each effect and the predictions of the others.

    Genes of `own` are left out of sums over all genes, so that nothing is copied for each effect.
    """
    n, size = truth.shape
    found = {name: np.full(n, np.nan) for name in ("mae", "delta_correlation")}
    apart = vcc2025.distances(truth, guess, np.full(n, -1, np.int64))  # rows are predictions
    product, total, square = guess @ truth.T, guess.sum(axis=1), np.square(guess).sum(axis=1)
    for i in range(n if n > 1 else 0):
        others, genes = np.arange(n) != i, own[i][own[i] >= 0]
        a, b, left = guess[:, genes][others], truth[i, genes], size - len(genes)
        error = apart[others, i] - np.abs(a - b).sum(axis=1)
        found["mae"][i] = error.mean() / left
        rest = np.delete(truth[i], genes)
        centred = square[others] - np.square(a).sum(axis=1)
        centred -= np.square(total[others] - a.sum(axis=1)) / left
        both = product[others, i] - a @ b - (total[others] - a.sum(axis=1)) * rest.mean()
        spread = np.sqrt(np.maximum(centred, 0)) * np.linalg.norm(rest - rest.mean())
        found["delta_correlation"][i] = (both / np.maximum(spread, 1e-12)).mean()
    return found


def mean_of(found: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the means over perturbations."""
    return {name: float(values.mean()) for name, values in found.items()}


def scores(
    predicted: NDArray[np.floating], real: NDArray[np.floating], target: NDArray[np.int64]
) -> dict[str, float]:
    """Return the mean scores of effects."""
    return mean_of(each(predicted, real, target))


def gain(model: dict[str, float], baseline: dict[str, float]) -> float:
    """Return the challenge's scaled score over a baseline: mean gain in PDS and MAE, at most 1."""
    level = {name: baseline[name] for name in ("pds", "mae")}
    return float(verdict.gain(model, baseline, level))


class Judge:
    """Scores predictions of measured effects, or of a sample of them to rank settings quickly.

    Parameters
    ----------
    effects, target
        (P, N), and (P,) the index of each one's target gene, -1 for none.
    most_rows, most_genes
        Score at most so many perturbations, drawn at random, and of the most variable genes.

    Attributes
    ----------
    rows, genes
        Their indices, ascending.
    real
        Their effects.
    """

    def __init__(
        self,
        effects: NDArray[np.floating],
        target: NDArray[np.int64],
        most_rows: int | None = None,
        most_genes: int | None = None,
    ) -> None:
        n, n_genes = effects.shape
        self.rows, self.genes = np.arange(n), np.arange(n_genes)
        if most_rows is not None:
            self.rows = np.sort(np.random.default_rng(0).permutation(n)[:most_rows])
        if most_genes is not None:
            spread = -effects[self.rows].var(axis=0)
            self.genes = np.sort(np.argsort(spread, kind="stable")[:most_genes])
        self.real = effects[self.rows][:, self.genes].astype(np.float64)
        place = np.full(n_genes + 1, -1)
        place[self.genes] = np.arange(len(self.genes))
        self.target = place[target[self.rows]]
        self._variance = max(float(self.real.var()), 1e-12)

    def each(self, guess: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Return the scores of every perturbation."""
        return each(guess, self.real, self.target)

    def error(self, guess: NDArray[np.floating]) -> float:
        """Return relative squared error - correlation."""
        correlation = np.nan_to_num(vcc2025.pearson(self.real, guess.astype(np.float64))).mean()
        return float(np.square(guess - self.real).mean() / self._variance - correlation)

    def loss(self, guess: NDArray[np.floating]) -> float:
        """Return relative squared error - correlation - PDS."""
        apart = vcc2025.distances(self.real, guess.astype(np.float64), self.target)
        return self.error(guess) - float(vcc2025.discrimination(apart).mean())
