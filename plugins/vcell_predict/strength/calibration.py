"""Measure the run's own perturbations, and choose the strength of each predicted effect.

See `vcell_predict.strength.curve` for the reasoning. Held-out perturbations are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.screen.split import TRAIN, VALIDATION
from vcell_predict.asked import Asked
from vcell_predict.cells.making import GROUP
from vcell_predict.cells.residual import move
from vcell_predict.strength import curve as calibrate
from vcell_predict.strength.aims import CalledGenes, LeftOut
from vcell_predict.strength.significant import as_block, called, count, z_of, z_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vcell.data import Block
    from vcell_predict.cells.controls import Controls
    from vcell_predict.cells.pool import Pool
    from vcell_predict.ensemble import Ensemble

_GENES = 4096  # tested at most, spread evenly over all
_CELLS = 50_000  # of measured perturbations, at most
_TESTED = 24  # perturbations left out that DES is told by
_AT_ONCE = 1 << 25  # non-zeros of predicted cells tested in one go


@dataclass(frozen=True)
class Strengths:
    """What the calibration decided for each perturbation asked for (P,); genes of all genes."""

    strength: NDArray[np.float64]
    expected: NDArray[np.float64]
    before: NDArray[np.float64]  # significant genes at strength 1
    after: NDArray[np.float64]
    n_measured: int
    told: str  # what the strengths do to the scores of perturbations left out


class Calibration:
    """The number of significant genes, as the run's measured perturbations have it."""

    def __init__(
        self, controls: Controls, ensemble: Ensemble, pools: Mapping[int, Pool], seed: int
    ) -> None:
        self.controls, self.ensemble, self.seed = controls, ensemble, seed
        n_genes = len(ensemble.screen.genes)
        step = np.linspace(0, n_genes - 1, min(n_genes, _GENES))
        self.genes = np.unique(step.astype(np.int64))
        self.pools = {context: pool.genes(self.genes) for context, pool in pools.items()}

    def strengths(
        self,
        asked: Sequence[Asked],
        effect: NDArray[np.floating],
        cells: NDArray[np.int64],
        aim: str,
    ) -> Strengths | None:
        """Return the strength of each effect (P, N); None where nothing can be learnt from.

        `aim` is what it is chosen for: overall, des, pds or mae.
        """
        missed = self._unseen()
        if missed is None:
            console.say(
                "strength 1: the model was fitted to all measured perturbations, so none is unseen"
            )
            return None
        rows = self._to_measure()
        if len(rows) < 3:
            console.say("strength 1: fewer than 3 perturbations have cells to measure it by")
            return None
        screen = self.ensemble.screen
        changed = self._measured(rows)
        curve = calibrate.SignificanceCurve.fit(
            changed.sum(axis=1), screen.cells[rows], screen.delta[rows], screen.noise[rows],
            len(self.genes), missed,
        )  # fmt: skip
        expected = curve.expected(effect, cells)
        z = self._tested(asked, effect, cells)
        strength, after = calibrate.strength(z, expected)
        before, told = count(z), ""
        if (left := LeftOut.of(self.ensemble)) is not None:
            left = replace(left, tested=self._left_out_tested(left, rows, changed))
            if aim in ("pds", "mae"):
                strength = np.full(len(asked), left.best(aim))
            elif aim == "overall":
                strength = strength ** left.bearable(float(np.median(strength)))
            after = count(z * strength[:, None])
            told = left.told(float(np.median(strength)))
        scale = len(screen.genes) / len(self.genes)
        return Strengths(
            strength,
            expected * scale,
            before.astype(np.float64) * scale,
            after.astype(np.float64) * scale,
            curve.n_perturbations,
            told,
        )

    def _unseen(self) -> float | None:
        """Return what predictions of perturbations not fitted to miss of |effect|^2."""
        found = []
        for member in self.ensemble.members:
            rows, effect = member.out_of_sample()
            told = np.flatnonzero(np.isfinite(effect).all(axis=1))
            if len(told):
                screen, kept = member.screen, rows[told]
                found.append(calibrate.unseen(effect[told], screen.delta[kept], screen.noise[kept]))
        return float(np.mean(found)) if found else None

    def _to_measure(self) -> NDArray[np.int64]:
        """Choose learnt perturbations of these contexts with cells in the file, by their effect."""
        screen = self.ensemble.screen
        there = set(self.controls.design.names)
        rows = np.array(
            [
                row
                for row in np.flatnonzero(np.isin(screen.part, (TRAIN, VALIDATION)))
                if str(screen.perturbations[row]) in there and screen.context[row] in self.pools
            ],
            np.int64,
        )
        size = np.square(screen.delta[rows]).sum(axis=1)
        rows = rows[np.argsort(size, kind="stable")]
        total = int(screen.cells[rows].sum())
        fewer = max(int(len(rows) * min(_CELLS / max(total, 1), 1)), min(len(rows), 3))
        return rows[np.linspace(0, len(rows) - 1, fewer).astype(np.int64)]

    def _left_out_tested(
        self, left: LeftOut, rows: NDArray[np.int64], changed: NDArray[np.bool_]
    ) -> CalledGenes | None:
        """Make cells of some perturbations left out, those of `rows` (R,), and test them.

        `changed` (R, genes) says which genes the real ones change.
        """
        screen = self.ensemble.screen
        measured = dict(zip(zip(*screen.names(rows), strict=True), range(len(rows)), strict=True))
        both = [(i, measured[pair]) for i, pair in enumerate(left.names) if pair in measured]
        if not both:
            return None
        drawn = np.linspace(0, len(both) - 1, min(len(both), _TESTED)).astype(np.int64)
        ours, theirs = np.array(both)[drawn].T
        asked = [Asked(*left.names[i]) for i in ours]
        effect, contexts = left.effect[ours], screen.context[rows[theirs]]
        return CalledGenes(
            changed[theirs],
            self._tested(asked, effect, screen.cells[rows[theirs]]),
            effect[:, self.genes],
            screen.control[contexts][:, self.genes].astype(np.float64),
        )

    def _measured(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which genes measured perturbations change (rows, genes), reading their cells."""
        screen, controls = self.ensemble.screen, self.controls
        names = screen.perturbations[rows].tolist()
        row_of_cell = controls.design.rows(names, screen.context[rows].tolist())
        found = np.zeros((len(rows), len(self.genes)), np.bool_)
        for context, pool in self.pools.items():
            own = np.flatnonzero(screen.context[rows] == context)
            if not len(own):
                continue
            group_of = np.full(len(rows) + 1, -1, np.int32)
            group_of[own] = np.arange(1, len(own) + 1)
            group = group_of[row_of_cell]
            group[pool.rows] = 0
            wanted = np.flatnonzero(group >= 0)

            def blocks(wanted: NDArray[np.int64] = wanted) -> Iterator[Block]:
                for numbers, cells in controls.values.blocks(wanted):
                    yield as_block(cells[:, self.genes].tocsr(), numbers)

            with console.progress("measuring perturbations"):
                found[own] = called(z_of(blocks, group, len(own) + 1, len(self.genes)))
        return found

    def _tested(
        self, asked: Sequence[Asked], effect: NDArray[np.floating], cells: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return z-scores (P, genes) of cells made at strength 1, some perturbations at a time."""
        z = np.zeros((len(asked), len(self.genes)))
        number = {str(name): i for i, name in enumerate(self.ensemble.screen.contexts)}
        for context, pool in self.pools.items():
            mean = self.ensemble.screen.control[context][self.genes]
            own = [i for i, one in enumerate(asked) if number[one.context] == context]
            a_cell = max(pool.cells.nnz / len(pool), 1)
            step = max(int(_AT_ONCE / (a_cell * GROUP)), 1)
            for start in range(0, len(own), step):
                some = own[start : start + step]
                made = []
                for i in some:
                    rng = np.random.default_rng([self.seed, i])
                    chosen = pool.choose(int(min(cells[i], GROUP)), rng)
                    made.append(move(pool, chosen, mean + effect[i][self.genes], rng))
                z[some] = z_scores(pool.cells, made) * _more(cells[some], len(pool))[:, None]
        return z


def _more(cells: NDArray[np.int64], controls: int) -> NDArray[np.float64]:
    """Return what z-scores grow by when all cells are tested and not one group of them."""
    fewer = np.minimum(cells, GROUP)
    grown: NDArray[np.float64] = np.sqrt(cells / fewer * (fewer + controls) / (cells + controls))
    return grown
