"""Scores of a network during training: the challenge's, compared with the prior's.

PDS and MAE come from the effects of all cells; DES from a sample of the validation cells and
controls, where the screen has one context. The gain, shrunk by its standard error to discount
luck, decides how much of the network is added to the prior, and which step is used.
V validation perturbations, N genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.data.log_scale import log_scaled
from vcell.metrics import quick, verdict
from vcell.metrics.groups import summarise
from vcell.models.scoring import Judge
from vcell.screen.split import TRAIN, VALIDATION

if TYPE_CHECKING:
    from vcell.models import Screen
    from vcell.screen.sets import Groups
    from vcell.store import Store

    Scores = dict[str, NDArray[np.float64]]

_CELLS, _CONTROLS, _SAMPLED = 100, 2000, 128  # cells: per perturbation; controls; shifted
_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the network that are tried
_SCORED = ("des", "mae", "pds")  # the challenge's; the correlation is only reported


@dataclass(frozen=True)
class _Block:
    rows: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]


def truth_of(store: Store, screen: Screen, groups: Groups, seed: int) -> quick.Truth | None:
    """Measure a sample of the validation cells, for DES; None where that is not possible."""
    rows = screen.rows(VALIDATION)
    if len(screen.contexts) > 1 or not len(rows):
        return None
    rng = np.random.default_rng([seed, 0xDE5])
    parts = [_some(rng, np.flatnonzero(groups.row == groups.control), _CONTROLS)]
    parts += [_some(rng, np.flatnonzero(groups.row == row), _CELLS) for row in rows]
    if min(map(len, parts)) < 2:
        return None
    cells = store.read(np.concatenate(parts)).astype(np.float32)
    cells = cells[:, store.columns_of(screen.genes)]
    if store.manifest["counts"]:
        scale = store.scale()[np.concatenate(parts)]
        cells.data = log_scaled(cells.data, scale, cells.indptr)
    cells.sort_indices()
    block = _Block(
        np.arange(cells.shape[0]), cells.indptr.astype(np.int64), cells.indices, cells.data
    )
    group = np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int32)
    found = summarise(lambda: [block], group, len(parts), cells.shape[1])
    names = [str(name) for name in screen.perturbations[rows]]
    return quick.Truth.of(
        found, names, screen.genes.tolist(), cells[: min(len(parts[0]), _SAMPLED)]
    )


def _some(rng: np.random.Generator, numbers: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return np.sort(rng.permutation(numbers)[:most])


class Blend:
    """How much of a network is added to its prior, decided on the validation perturbations.

    Parameters
    ----------
    screen
        The measured effects.
    prior
        (V, N) predictions of the prior for the validation rows.
        truth
            Measured cells for DES, or None.
    """

    def __init__(
        self, screen: Screen, prior: NDArray[np.float32], truth: quick.Truth | None
    ) -> None:
        rows = screen.rows(VALIDATION)
        self.truth = truth
        target = screen.targets(screen.perturbations[rows].tolist())
        self.judge = Judge(screen.denoised(rows), target)
        self.expected, self.prior = prior, self.each(prior)
        mean = screen.delta[screen.rows(TRAIN)].mean(axis=0)
        self.mean = self.each(np.tile(mean, (len(rows), 1)))
        self.level = {name: float(self.mean[name].mean()) for name in _SCORED if name in self.mean}

    def each(self, effect: NDArray[np.float32]) -> Scores:
        """Return the scores of every perturbation."""
        found = self.judge.each(effect)
        if self.truth is not None:
            guess = effect.astype(np.float64)
            called = self.truth.overlap(np.maximum(self.truth.control + guess, 0))
            found["des"] = np.nan_to_num(called)
        return found

    def references(self) -> dict[str, dict[str, float]]:
        """Return the mean scores of the mean effect and of the prior, drawn as lines."""
        known = {"mean effect": self.mean, "prior": self.prior}
        return {
            name: {metric: float(values.mean()) for metric, values in scores.items()}
            for name, scores in known.items()
        }

    def score(self, effect: NDArray[np.float32]) -> dict[str, float]:
        """Return the share of the network to use, and its gain over the prior.

        The prior and the network are blended. Of a few shares the one with the largest gain is
        shrunk by 1 - (standard error / gain)^2, to 0 where the gain is within its standard error
        (James and Stein 1961, positive part). Returned are the mean scores of the network alone,
        its `mean_gain`, the `blend`, and the `gain` of that blend; where the blend is 0, the lower
        end of the gain's interval.
        """
        found = self.each(effect)
        means = {name: float(values.mean()) for name, values in found.items()}
        blend, gain = 0.0, 0.0
        for share in _SHARES:
            part = (
                found if share == 1 else self.each(self.expected + share * (effect - self.expected))
            )
            gains = verdict.gain(part, self.prior, self.level)
            mean = float(gains.mean())
            error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else np.inf
            believed = max(1 - (error / mean) ** 2, 0.0) if mean > 0 else 0.0
            if believed * mean > gain:
                blend, gain = share * believed, believed * mean
        gains = verdict.gain(found, self.prior, self.level)
        whole = float(gains.mean())
        if not blend and len(gains) > 1:  # so that step 0, the prior itself, stays the best
            gain = min(whole - float(gains.std(ddof=1) / np.sqrt(len(gains))), 0.0)
        return means | {"mean_gain": whole, "blend": blend, "gain": gain}
