"""Measure perturbations of the run, and choose the strength of each predicted effect.

See `vcell_predict.strength.curve` for the method. Held-out perturbations are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.screen.split import TRAIN, VALIDATION
from vcell_predict.cells.making import GROUP
from vcell_predict.cells.residual import move
from vcell_predict.requests import Request
from vcell_predict.strength import curve as calibrate
from vcell_predict.strength.aims import CalledGenes, LeftOut
from vcell_predict.strength.significant import as_block, called, count, z_of, z_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vcell.data import Block
    from vcell_predict.cells.controls import Controls
    from vcell_predict.cells.pool import Pool
    from vcell_predict.ensemble import Ensemble

_GENES = 4096  # most genes tested, evenly spaced over all
_CELLS = 50_000  # most cells of measured perturbations
_TESTED = 24  # left-out perturbations tested for DES
_AT_ONCE = 1 << 25  # non-zeros of generated cells tested at once


@dataclass(frozen=True)
class Strengths:
    """The calibrated strength of each perturbation (P,), with numbers of significant genes."""

    strength: NDArray[np.float64]
    expected: NDArray[np.float64]
    before: NDArray[np.float64]  # significant genes at strength 1
    after: NDArray[np.float64]
    n_measured: int
    note: str  # the effect of the strengths on the scores of left-out perturbations


class Calibration:
    """The number of significant genes, calibrated on the run's measured perturbations."""

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
        requests: Sequence[Request],
        effect: NDArray[np.floating],
        cells: NDArray[np.int64],
        aim: str,
    ) -> Strengths | None:
        """Return the strength of each effect (P, N); None if nothing can be measured.

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
        z = self._tested(requests, effect, cells)
        strength, after = calibrate.strength(z, expected)
        before, note = count(z), ""
        if (left := LeftOut.of(self.ensemble)) is not None:
            left = replace(left, tested=self._left_out_tested(left, rows, changed))
            if aim in ("pds", "mae"):
                strength = np.full(len(requests), left.best(aim))
            elif aim == "overall":
                strength = strength ** left.share_for_des(float(np.median(strength)))
            after = count(z * strength[:, None])
            note = left.note(float(np.median(strength)))
        scale = len(screen.genes) / len(self.genes)
        return Strengths(
            strength,
            expected * scale,
            before.astype(np.float64) * scale,
            after.astype(np.float64) * scale,
            curve.n_perturbations,
            note,
        )

    def _unseen(self) -> float | None:
        """Return the part of |effect|^2 that out-of-sample predictions lack."""
        found = []
        for member in self.ensemble.members:
            rows, effect = member.out_of_sample()
            finite = np.flatnonzero(np.isfinite(effect).all(axis=1))
            if len(finite):
                screen, rows = member.screen, rows[finite]
                found.append(
                    calibrate.unseen(effect[finite], screen.delta[rows], screen.noise[rows])
                )
        return float(np.mean(found)) if found else None

    def _to_measure(self) -> NDArray[np.int64]:
        """Choose training perturbations with cells in the file, over all sizes of effect."""
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
        """Generate cells of some left-out perturbations among `rows` (R,), and test them.

        `changed` (R, genes) marks the genes that the real ones change.
        """
        screen = self.ensemble.screen
        measured = dict(zip(zip(*screen.names(rows), strict=True), range(len(rows)), strict=True))
        both = [(i, measured[pair]) for i, pair in enumerate(left.names) if pair in measured]
        if not both:
            return None
        drawn = np.linspace(0, len(both) - 1, min(len(both), _TESTED)).astype(np.int64)
        places, matched = np.array(both)[drawn].T
        requests = [Request(*left.names[i]) for i in places]
        effect, contexts = left.effect[places], screen.context[rows[matched]]
        return CalledGenes(
            changed[matched],
            self._tested(requests, effect, screen.cells[rows[matched]]),
            effect[:, self.genes],
            screen.control[contexts][:, self.genes].astype(np.float64),
        )

    def _measured(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which genes measured perturbations change (rows, genes), from their cells."""
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
            perturbed = np.flatnonzero(group >= 0)

            def blocks(perturbed: NDArray[np.int64] = perturbed) -> Iterator[Block]:
                for numbers, cells in controls.values.blocks(perturbed):
                    yield as_block(cells[:, self.genes].tocsr(), numbers)

            with console.progress("measuring perturbations"):
                found[own] = called(z_of(blocks, group, len(own) + 1, len(self.genes)))
        return found

    def _tested(
        self, requests: Sequence[Request], effect: NDArray[np.floating], cells: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return z-scores (P, genes) of cells generated at strength 1, in batches."""
        z = np.zeros((len(requests), len(self.genes)))
        number = {str(name): i for i, name in enumerate(self.ensemble.screen.contexts)}
        for context, pool in self.pools.items():
            mean = self.ensemble.screen.control[context][self.genes]
            own = [i for i, one in enumerate(requests) if number[one.context] == context]
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
    """Return the growth of z-scores when all cells are tested and not one group of them."""
    fewer = np.minimum(cells, GROUP)
    grown: NDArray[np.float64] = np.sqrt(cells / fewer * (fewer + controls) / (cells + controls))
    return grown
