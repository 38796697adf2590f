"""Score one context by the rules of 2025.

The cell-mean baseline: every predicted cell is the mean of the real groups' means (the control's
included), as in cell-eval's ``baseline``. Its cells are all alike, so its rank tests need no cells:
it is enough to know how many controls are below each value, and how many equal it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.metrics import significance, vcc2025
from vcell.metrics.evaluation import cache, full
from vcell.metrics.evaluation.scores import Metric, Scored, note
from vcell.metrics.evaluation.view import View, views
from vcell.metrics.gene_major import GeneMajorSources, ProfileRanks
from vcell.metrics.groups import Grouped, grouped
from vcell.metrics.significance import DeTable
from vcell.metrics.vcc2026 import halves as halve
from vcell.metrics.vcc2026 import mean

if TYPE_CHECKING:
    from vcell.metrics.evaluation.options import Options
    from vcell.metrics.evaluation.pairs import Pair

Array = NDArray[np.float64]


def score(pair: Pair, config: Options) -> Scored:
    """Score one pair of sides."""
    full_profile = config.rules == "full"
    opened = views(pair, config.threads)
    real_view = next(opened)
    ranks = ProfileRanks(len(pair.genes)) if config.baseline else None
    with closing(real_view.cells) as real_cells:
        groups = group(real_view, pair, config, ranks)
        ceiling = _ceiling(real_view, groups, pair, config) if config.ceiling else {}
        if not pair.borrowed:
            real_cells.close()  # makes room for the predicted cells
        real = Tested.of(groups, pair, config)
        # before the predicted cells: tables of three sides at once are the most memory
        baseline = {} if ranks is None else _baseline(pair, config, real, groups, ranks)
        del groups
        pred_view = next(opened)
        with closing(pred_view.cells):
            pred = Tested.of(_predicted(real_view, pred_view, pair, config), pair, config)
    sides = Sides(pair, config, real, pred)
    values = sides.metrics() | (full.of_cells(sides, real_view, pred_view) if full_profile else {})
    metrics = []
    for name, column in values.items():
        raw, base = mean(column), baseline.get(name)
        scaled = vcc2025.scale(name, raw, base)
        metrics.append(Metric(name, raw, base, ceiling.get(name), scaled))
    facts = sides.facts | {"real": real_view.facts, "prediction": pred_view.facts}
    if undefined := [m.name for m in metrics if m.baseline is not None and np.isnan(m.baseline)]:
        note(facts, f"no scaled score, as the baseline has no value: {', '.join(undefined)}")
    counted = [m.scaled for m in metrics if m.scaled is not None and m.name in vcc2025.SCORED]
    return Scored(
        context=pair.context,
        perturbations=pair.perturbations,
        per_perturbation=values,
        metrics=tuple(metrics),
        overall=float(np.mean(counted)) if counted else None,
        facts=facts,
        tables={"real_de": sides.real_table, "pred_de": sides.pred_table} if config.tables else {},
        distances=sides.distance,
        effects=(sides.real_delta, sides.pred_delta),
        genes=np.asarray(pair.genes),
    )


def group(view: View, pair: Pair, config: Options, ranks: ProfileRanks | None) -> Grouped:
    """Sum and rank the real side."""
    return grouped(
        view.gene_major(), view.side.group, len(pair.perturbations) + 1,
        dense=view.side.source.nnz is None, profile=ranks, threads=config.threads,
    )  # fmt: skip


def _predicted(real: View, pred: View, pair: Pair, config: Options) -> Grouped:
    """Sum and rank the predicted side, against the real controls if it has none of its own."""
    cells, numbers, sides = pred.gene_major(), pair.pred.group, [pair.pred]
    if pair.borrowed:
        cells = GeneMajorSources([*real.gene_major().parts, *cells.parts], len(pair.genes))
        numbers, sides = _numbered(pair), [pair.real, pair.pred]
    return grouped(
        cells, numbers, len(pair.perturbations) + 1,
        dense=all(side.source.nnz is None for side in sides), threads=config.threads,
    )  # fmt: skip


def _numbered(pair: Pair) -> NDArray[np.int32]:
    """Return the groups of the real controls followed by those of the predicted cells."""
    controls = np.where(pair.real.group == 0, 0, -1).astype(np.int32)
    return np.concatenate([controls, pair.pred.group])


@dataclass(frozen=True)
class Tested:
    """What is compared of one side: tests, means, ``[P + 1, G]``, and significant genes."""

    table: DeTable
    means: Array
    calls: vcc2025.Calls
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, groups: Grouped, pair: Pair, config: Options) -> Tested:
        """Test every perturbation; the sums and ties of `groups` are not kept."""
        official = config.rules == "vcc2025-official"
        table = significance.differential(
            groups, np.array([pair.control, *pair.perturbations]), pair.genes,
            fold_change="clipped" if official else "geometric",
            scope="global" if official else "perturbation",
        )  # fmt: skip
        return cls(table, groups.means, vcc2025.Calls(table), groups.sizes)


class Sides:
    """Both sides' tables and all metrics."""

    def __init__(self, pair: Pair, config: Options, real: Tested, pred: Tested) -> None:
        self.pair, self.config, self.real, self.pred = pair, config, real, pred
        self.names = np.array(pair.perturbations)
        place = {name: i for i, name in enumerate(pair.genes.tolist())}
        self.target = np.array([place.get(name, -1) for name in pair.perturbations])
        self.real_table, self.pred_table = real.table, pred.table
        self.real_means, self.pred_means = real.means, pred.means
        self.real_delta = self.real_means[1:] - self.real_means[0]
        self.pred_delta = self.pred_means[1:] - self.pred_means[0]
        self.distance = vcc2025.distances(self.real_delta, self.pred_delta, self.target)
        self.real_calls, self.pred_calls = real.calls, pred.calls
        self.facts = self._facts()

    def metrics(self) -> dict[str, Array]:
        """Return every metric of the chosen rules, one value per perturbation."""
        if self.config.rules == "full":
            return full.every(self)
        return {
            "overlap_at_N": vcc2025.overlap(self.real_calls, self.pred_calls),
            "mae": vcc2025.absolute_error(self.real_means[1:], self.pred_means[1:]),
            "discrimination_score_l1": vcc2025.discrimination(self.distance, self.config.ties),
        }

    def _facts(self) -> dict[str, Any]:
        sizes = (self.real.sizes[1:], self.pred.sizes[1:])
        return {
            "perturbations": len(self.names),
            "genes": len(self.pair.genes),
            "control": self.pair.control,
            "borrowed_controls": self.pair.borrowed,
            "cells_per_perturbation": {
                side: f"{int(n.min()):,} to {int(n.max()):,}"
                for side, n in zip(("real", "prediction"), sizes, strict=True)
            },
            "perturbations_without_target_gene": int((self.target < 0).sum()),
            "significant_genes": {
                "real": int(self.real_calls.counts.sum()),
                "prediction": int(self.pred_calls.counts.sum()),
            },
            "ties": {
                "pds_rule": self.config.ties,
                "pds_perturbations": vcc2025.tied(self.distance),
                "des_perturbations": vcc2025.ambiguous(self.pred_calls, self.real_calls.counts),
            },
            "notes": list(self.pair.notes),
        }


def _baseline(
    pair: Pair, config: Options, real: Tested, groups: Grouped, ranks: ProfileRanks
) -> dict[str, float]:
    """Score the cell-mean baseline, or take its scores from the cache."""
    name = cache.key(
        "cell-mean", config.rules, config.ties, list(pair.perturbations), pair.genes.tolist(),
        pair.control, groups.sizes, groups.sums, groups.u,
    )  # fmt: skip

    def compute() -> dict[str, Any]:
        cells = Tested.of(baseline_groups(groups, ranks), pair, config)
        scored = Sides(pair, config, real, cells).metrics()
        return {metric: mean(values) for metric, values in scored.items()}

    return cache.cached(cache.folder(config.cache), "baseline", name, compute)


def _ceiling(real_view: View, real: Grouped, pair: Pair, config: Options) -> dict[str, float]:
    """Score one half of the real cells against the other, corrected to full depth."""
    if real.sizes.min() < 2:
        console.warn("a group of one real cell cannot be halved: no ceiling")
        return {}
    name = cache.key(
        "ceiling", config.rules, config.ties, list(pair.perturbations), pair.genes.tolist(),
        list(pair.real.order), pair.real.group, real.sizes, real.sums, real.u,
    )  # fmt: skip

    def compute() -> dict[str, Any]:
        cells, dense = real_view.gene_major(), pair.real.source.nnz is None
        first, second = (
            grouped(cells, half, len(real.sizes), dense=dense, threads=config.threads)
            for half in halve(pair.real.group, pair.real.order, 0)
        )
        sides = Sides(pair, config, *(Tested.of(h, pair, config) for h in (first, second)))
        values = sides.metrics()
        return {metric: full_depth(metric, mean(column)) for metric, column in values.items()}

    kept = cache.cached(cache.folder(config.cache), "ceiling", name, compute)
    return {metric: value for metric, value in kept.items() if value is not None}


def full_depth(metric: str, r: float) -> float | None:
    """Correct a reliability measured on halves (Spearman and Brown); errors have no ceiling."""
    if metric in vcc2025.UNSCALED or metric in vcc2025.BEST_IS_ZERO or not r > 0:
        return None
    return 2 * r / (1 + r)


def baseline_groups(real: Grouped, ranks: ProfileRanks) -> Grouped:
    """Return sums and ranks of the baseline's cells without making the cells.

    A value v repeated n times exceeds the controls below it: U = n (below + equal / 2). The tie
    term is the controls' own, with the block of ties at v enlarged by n.
    """
    profile, equal = ranks.profile, ranks.equal
    sizes = real.sizes.astype(np.float64)[1:, None]
    grown = equal + sizes
    ties = real.ties[0] + (grown**3 - grown) - (equal**3 - equal)
    u = sizes * (ranks.below + equal / 2)
    head = np.zeros((1, len(profile)))
    sums = np.concatenate([real.sums[:1], sizes * profile.astype(np.float64)])
    narrow = np.concatenate([real.own_means[:1], np.repeat(profile[None], len(sizes), axis=0)])
    return Grouped(
        real.sizes, sums, np.zeros((0, 0)), narrow, np.concatenate([head, u]),
        np.concatenate([head, ties]),
    )  # fmt: skip
