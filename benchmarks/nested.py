"""Compare choosing settings of gp with and without the folds that decide how much it is believed.

    python benchmarks/nested.py --seeds 0 1 2 --cases "told .3"
    python benchmarks/nested.py --seeds 0 --cases norman --data ../shared/data

gp chooses its settings by leaving training perturbations out, and `vcell.models.belief` scores
left-out folds of the same perturbations. Nested, every fold is predicted by a gp whose settings
were chosen without it, which takes five times as long. For the screens of benchmarks/belief.py it
prints the left-out scores of both, the number of folds in which both believe gp equally, and the
gain of nested belief on held-out perturbations (mean and standard error over seeds).
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import belief as screens_of
import numpy as np
from vcell_train_vcc.closed.baselines import MeanEffect
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.metrics import verdict
from vcell.models import belief
from vcell.models.left_out import mean_of_others
from vcell.models.scoring import each
from vcell.screen.split import TEST

if TYPE_CHECKING:
    from vcell.models import Screen


class Nest:
    """The left-out folds of a screen's training perturbations, in one context."""

    def __init__(self, screen: Screen) -> None:
        self.gp = GaussianProcess(screen)
        self.rows, self.fold = belief.drawn(self.gp.together)
        self.names = [self.gp.names[row] for row in self.rows]
        self.moved = self.gp.transfer.of(self.names)
        self.real = self.gp.delta[self.rows] + self.moved
        self.guess = {"same": self.gp._left_out(self.fold, self.rows) + self.moved}
        self.guess["nested"] = np.empty_like(self.real)
        for fold in np.unique(self.fold):
            at = np.flatnonzero(self.fold == fold)
            part = screen.part.copy()
            part[self.gp.learned[self.rows[at]]] = TEST
            without = GaussianProcess(dataclasses.replace(screen, part=part))
            without.beyond = without.belief = 1.0  # all that it predicts
            without.sets.shrinkage = None  # belief is about the process itself
            self.guess["nested"][at] = without.predict([self.names[i] for i in at])

    def scores(self, name: str) -> np.ndarray:
        """Return PDS and MAE of the left-out folds (2, P)."""
        target, found = self.gp.targets.targets(self.names), np.zeros((2, len(self.rows)))
        guess = self.gp.own.put_in(self.guess[name], self.names)
        for fold in np.unique(self.fold):
            at = self.fold == fold
            one = each(guess[at], self.real[at], target[at])
            found[:, at] = one["pds"], one["mae"]
        return found

    def believed(self, name: str) -> tuple[float, float]:
        """Return the shares of belief."""
        gp = self.gp
        mean = mean_of_others(gp.delta + gp.transfer.of(gp.names), self.fold, self.rows)
        context = gp.targets.context[gp.learned[self.rows]]
        guess = self.guess[name]
        return belief.believed(self.real, mean, guess, self.fold, context, gp.own, self.names)


def measure(screen: Screen) -> tuple[dict[str, np.ndarray], bool, dict[str, dict[str, np.ndarray]]]:
    """Return left-out scores, whether belief is the same, and the scores of held-out effects."""
    nest, rows = Nest(screen), screen.rows(TEST)
    names = screen.perturbations[rows].tolist()
    said = {"mean": MeanEffect(screen, shrink=True).predict(names)}
    shares = {name: nest.believed(name) for name in nest.guess}
    for name, (nest.gp.beyond, nest.gp.belief) in shares.items():
        said[name] = nest.gp.predict(names)
    target = screen.targets(names)
    held = {name: each(guess, screen.delta[rows], target) for name, guess in said.items()}
    left = {name: nest.scores(name).mean(axis=1) for name in nest.guess}
    return left, shares["same"] == shares["nested"], held


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", default=["told .3", "noise"], help="of one context")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    for case in arguments.cases:
        folds = screens_of.folds_of(case, 40, arguments.data)
        found = [[measure(screen) for screen in folds(seed)] for seed in arguments.seeds]
        every = [one for seed in found for one in seed]
        for name in ("same", "nested"):
            pds, mae = np.mean([left[name] for left, _, _ in every], axis=0)
            print(f"{case}: left-out folds, {name} choice: PDS {pds:.3f}, MAE {mae:.4f}")
        gains = []
        for seed in found:
            scores = {
                name: {s: np.concatenate([held[name][s] for *_, held in seed]) for s in of}
                for name, of in seed[0][2].items()
            }
            gain = verdict.gains(scores)
            gains.append(np.mean(gain["nested"] - gain["same"]))
        error = np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
        print(
            f"{case}: equal belief in {sum(same for _, same, _ in every)} of {len(every)} folds, "
            f"gain of nested {verdict.signed(np.mean(gains))} ± {error:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
