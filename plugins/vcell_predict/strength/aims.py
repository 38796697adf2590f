"""The aim of the strength, and its effect on each score of left-out perturbations.

A stronger effect finds more of the significant genes (DES) and is easier to distinguish (PDS), but
has a larger error (MAE). Only the user knows which of these matters, so it is an option, and the
cost of each choice is reported. P perturbations that the model was not fitted to, N genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.models.scoring import mean_of, scores
from vcell.screen.split import TRAIN
from vcell_predict.strength.significant import called

if TYPE_CHECKING:
    from vcell_predict.ensemble import Ensemble, Member

Array = NDArray[np.float64]
_TRIED = np.geomspace(0.25, 4.0, 33)  # strengths, including 1
_CHANCE = 0.5  # PDS by chance
_FEWEST = 10  # perturbations needed to reduce the strength chosen for DES
_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the logarithm of the strength chosen for DES


@dataclass(frozen=True)
class CalledGenes:
    """Left-out perturbations, with tests of their real cells and of generated cells.

    Attributes
    ----------
    real, z
        (D, G) genes changed in the real cells; z-scores of cells generated at strength 1.
    effect, control
        (D, G) predicted effects and the means of the controls.
    """

    real: NDArray[np.bool_]
    z: Array
    effect: Array
    control: Array

    def des(self, strength: float) -> float:
        """Return the share of truly changed genes that also change in cells at a strength.

        If more genes change than in the real cells, those with the largest fold changes count.
        """
        found, tiny = called(self.z * strength), 1e-9
        after = np.expm1(np.maximum(self.control + strength * self.effect, 0)) + tiny
        fold = np.abs(np.log(after / (np.expm1(self.control) + tiny)))
        scores = np.zeros(len(found))
        for i, (predicted, real) in enumerate(zip(found, self.real, strict=True)):
            genes, n = np.flatnonzero(predicted), int(real.sum())
            top = genes[np.argsort(-fold[i, genes], kind="stable")[:n]]
            scores[i] = real[top].sum() / max(n, 1)
        return float(scores.mean())


@dataclass(frozen=True)
class LeftOut:
    """Perturbations that a model was not fitted to, and the score of the challenge's baseline.

    Attributes
    ----------
    effect, real, target
        (P, N) predicted and measured effects, (P,) the number of each perturbation's own gene.
    baseline
        MAE of the official baseline: the mean of all other groups.
    names
        Perturbation and context of each (P,).
    tested
        Those tested for DES; None if their cells are not available.
    """

    effect: Array
    real: Array
    target: NDArray[np.int64]
    baseline: float
    names: Sequence[tuple[str, str]] = ()
    tested: CalledGenes | None = None

    @classmethod
    def of(cls, ensemble: Ensemble) -> LeftOut | None:
        """Collect the left-out perturbations of all runs; None if there are none."""
        found = [one for member in ensemble.members if (one := _of_member(member)) is not None]
        if not found:
            return None
        return max(found, key=lambda one: len(one.real))

    def scores(self, strength: float) -> dict[str, float]:
        """Return PDS, MAE, correlation and, where possible, DES at a strength."""
        found = scores(self.effect * strength, self.real, self.target)
        return found if self.tested is None else found | {"des": self.tested.des(strength)}

    def best(self, score: str) -> float:
        """Return the best strength for PDS or MAE; of equals, the nearest to 1."""
        sign = 1.0 if score == "mae" else -1.0
        order = sorted(_TRIED, key=lambda s: abs(np.log(s)))
        return float(min(order, key=lambda s: sign * self.scores(float(s))[score]))

    def share_for_des(self, strength: float) -> float:
        """Return the share of the logarithm of the strength for DES that is used.

        It is 1 if PDS and DES gain as much as MAE loses, on the scale of the challenge. Otherwise
        it is the largest share with an MAE below the baseline. With fewer than ten perturbations it
        is 1.
        """
        if len(self.real) < _FEWEST:
            return 1.0
        before, after = self._scaled(1.0), self._scaled(strength)
        if after >= before:
            return 1.0
        for share in _SHARES:
            if self.scores(strength**share)["mae"] <= self.baseline:
                return share
        return 0.0

    def _scaled(self, strength: float) -> float:
        """Return the sum of the scores on the challenge's scale, none below the baseline."""
        found = self.scores(strength)
        pds = (found["pds"] - _CHANCE) / (1 - _CHANCE)
        return max(pds, 0.0) + max(1 - found["mae"] / self.baseline, 0.0) + found.get("des", 0.0)

    def note(self, strength: float) -> str:
        """Describe what a strength does to each score."""
        before, after = self.scores(1.0), self.scores(strength)
        text = (
            f"at strength {strength:.2f} instead of 1, on "
            f"{console.count(len(self.real), 'perturbation')} left out: "
            f"PDS {before['pds']:.3f} -> {after['pds']:.3f}, "
            f"MAE {before['mae']:.4f} -> {after['mae']:.4f}"
        )
        side = "below" if after["mae"] <= self.baseline else "ABOVE"
        text += f", {side} the official baseline's {self.baseline:.4f}"
        if self.tested is None:
            return f"{text}; DES is not known: their cells are missing"
        some = len(self.tested.real)
        of_them = "" if some == len(self.real) else f" (on {some} of them)"
        return f"{text}, DES {before['des']:.3f} -> {after['des']:.3f}{of_them}"


def _of_member(member: Member) -> LeftOut | None:
    rows, effect = member.out_of_sample()
    finite = np.isfinite(effect).all(axis=1)
    rows, screen = rows[finite], member.screen
    if len(rows) < 2:
        return None
    real = screen.denoised(rows)
    learnt = screen.rows(TRAIN)
    total = screen.delta[learnt].sum(axis=0, dtype=np.float64)
    own = np.isin(rows, learnt)[:, None]
    # the controls count as one more group, with no effect
    mean = (total - own * real) / (len(learnt) + 1 - own)
    baseline = mean_of({"mae": np.abs(mean - real).mean(axis=1)})["mae"]
    names, contexts = screen.names(rows)
    pairs = list(zip(names, contexts, strict=True))
    return LeftOut(effect[finite].astype(np.float64), real, screen.targets(names), baseline, pairs)
