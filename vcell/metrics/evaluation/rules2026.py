"""Score one context by the rules of 2026: six members, scaled between two anchors.

The anchors depend on the real cells alone, so they are computed once and cached: the baseline
(control cells scaled to the mean response, scored like a prediction) and the replicate (one half of
the real cells scored against the other, five times).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell.metrics import vcc2026
from vcell.metrics.by_gene import ByGene, GeneMajor, ResampledCells, only
from vcell.metrics.evaluation import cache
from vcell.metrics.evaluation.pairs import CONTROL_GROUP, Pair, Side
from vcell.metrics.evaluation.scores import Metric, Scored, note
from vcell.metrics.evaluation.view import seen_blocks
from vcell.metrics.measured import Grouping, at_once, measure
from vcell.metrics.scaled import ValueSurvey, survey

if TYPE_CHECKING:
    from vcell.metrics.evaluation.options import Options
    from vcell.metrics.measured import Measured

_MOST_COUNTS = 1e6  # of a cell; the server refuses more
_DUST = 1e-6  # cell-eval2's tolerance for whole numbers


@dataclass(frozen=True)
class RawCounts:
    """One side's raw counts, transposed so that they can be read gene by gene."""

    side: Side
    totals: NDArray[np.float64]  # of each cell of the file
    cells: GeneMajor  # those with a group
    controls: GeneMajor | None  # those of the control group, if requested

    @classmethod
    def of(cls, side: Side, n_genes: int, *, offset: int = 0, controls: bool = False) -> RawCounts:
        """Read and check every value, which must be a count; number cells from `offset`."""
        cells = GeneMajor(n_genes, offset=offset)
        lent = GeneMajor(n_genes, offset=offset) if controls else None

        def blocks() -> Iterator[Any]:
            for block in seen_blocks(side):
                cells.add(block)
                if lent is not None:
                    lent.add(only(block, side.group[block.rows] == CONTROL_GROUP))
                yield block

        seen, name = survey(blocks(), side.source.n_cells), side.source.name
        _check(seen, name)
        console.say(f"{name}: raw counts, up to {seen.high:,.0f}")
        return cls(side, seen.totals, cells, lent)

    def close(self) -> None:
        """Release memory and temporary files."""
        self.cells.close()
        if self.controls is not None:
            self.controls.close()


def _check(seen: ValueSurvey, name: str) -> None:
    seen.require_finite(name)
    if seen.low < 0:
        raise UserError(f"{name}: negative values, down to {seen.low:.4g}")
    if seen.fraction > _DUST:
        raise UserError(
            f"{name}: vcc2026 scores raw counts; these values are not whole",
            hint="round what the model predicts; --layer names a layer of counts, if both have one",
        )
    if seen.totals.max(initial=0) > _MOST_COUNTS:
        raise UserError(f"{name}: a cell has {seen.totals.max():,.0f} counts; 1e6 is the limit")


@dataclass(frozen=True)
class Context:
    """What the members of one context are computed from."""

    pair: Pair
    real: RawCounts
    target: NDArray[np.int64]
    threads: int | None

    @property
    def n_groups(self) -> int:
        """Number of groups: the control and the perturbations."""
        return len(self.pair.perturbations) + 1

    def halves(self, pairs: Sequence[Sequence[NDArray[np.int32]]]) -> Iterator[list[Measured]]:
        """Measure the real cells under each grouping; a grouping may have two halves."""
        totals = self.real.totals
        groupings = [Grouping(halves, self.n_groups, totals) for halves in pairs]
        return measure([self.real.cells], groupings, totals, threads=self.threads)

    def with_real_controls(
        self, cells: ByGene, group: NDArray[np.int32], totals: NDArray[np.float64]
    ) -> Measured:
        """Measure cells, numbered after the real ones, against the real controls."""
        assert self.real.controls is not None
        controls = np.where(self.pair.real.group == CONTROL_GROUP, 0, -1).astype(np.int32)
        both = np.concatenate([self.real.totals, totals])
        grouping = Grouping([np.concatenate([controls, group])], self.n_groups, both)
        parts = [self.real.controls, cells]
        return next(measure(parts, [grouping], both, threads=self.threads))[0]


def score(pair: Pair, config: Options) -> Scored:
    """Score one pair of sides."""
    place = {name: i for i, name in enumerate(pair.genes.tolist())}
    target = np.array([place.get(name, -1) for name in pair.perturbations])
    if (target < 0).all():
        raise UserError(
            "no perturbation is named after a gene, so target genes cannot be left out",
            hint="vcc2026 needs gene symbols as perturbation labels (ADNP, not ADNP-1)",
        )
    n_genes, n_real = len(pair.genes), len(pair.real.group)
    context = Context(pair, RawCounts.of(pair.real, n_genes, controls=True), target, config.threads)
    pred = RawCounts.of(pair.pred, n_genes, offset=n_real)
    if not pair.borrowed:
        console.say(
            f"{pair.pred.source.name}: its controls are not used; vcc2026 uses the real ones"
        )
    try:
        (real,) = next(context.halves([[pair.real.group]]))
        group = np.where(pair.pred.group == CONTROL_GROUP, -1, pair.pred.group).astype(np.int32)
        measured = context.with_real_controls(pred.cells, group, pred.totals)
        pred.close()
        per_row, values = vcc2026.members(real, measured, target, pair.genes)
        anchors = _anchors(context, real, config)
    finally:
        pred.close()
        context.real.close()
    return _scored(context, real, measured, per_row, values, anchors, config)


def _scored(
    context: Context, real: Measured, pred: Measured, per_row: dict[str, NDArray[np.float64]],
    values: dict[str, float], anchors: dict[str, dict[str, float]], config: Options,
) -> Scored:  # fmt: skip
    pair, metrics = context.pair, []
    for name in vcc2026.MEMBERS:
        base, top = (anchors.get(kind, {}).get(name) for kind in ("baseline", "replicate"))
        scaled = None
        if base is not None and top is not None:
            scaled = vcc2026.scale(name, values[name], base, top)
        metrics.append(Metric(name, values[name], base, top, scaled))
    scaled_values = [m.scaled for m in metrics if m.scaled is not None]
    facts = _facts(context, real, pred, per_row)
    if undefined := [m.name for m in metrics if m.scaled is not None and np.isnan(m.scaled)]:
        scaled_values = []
        note(facts, f"no overall score, as a member has no value: {', '.join(undefined)}")
    names = np.array(pair.perturbations)
    keep = np.ones(len(pair.genes), bool)
    keep[context.target[context.target >= 0]] = False
    effects = tuple((side.bulk[1:] - side.bulk[0])[:, keep] for side in (real, pred))
    tables = {"real_de": real.table(names, pair.genes), "pred_de": pred.table(names, pair.genes)}
    return Scored(
        context=pair.context,
        perturbations=pair.perturbations,
        per_perturbation=per_row,
        metrics=tuple(metrics),
        overall=float(np.mean(scaled_values)) if len(scaled_values) == len(metrics) else None,
        facts=facts,
        tables=tables if config.tables else {},
        distances=vcc2026.cosine_distances(effects[1], effects[0]),
        effects=(effects[0], effects[1]),
        genes=np.asarray(pair.genes)[keep],
        components=vcc2026.components(real, pred, context.target),
    )


def _facts(
    context: Context, real: Measured, pred: Measured, per_row: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    pair = context.pair
    return {
        "values": "raw counts",
        "perturbations": len(pair.perturbations),
        "genes": len(pair.genes),
        "genes_tested": int(real.tested.sum()),
        "control": pair.control,
        "controls": int(real.sizes[0]),
        "borrowed_controls": True,
        "cells_per_perturbation": {
            side: f"{int(m.sizes[1:].min()):,} to {int(m.sizes[1:].max()):,}"
            for side, m in (("real", real), ("prediction", pred))
        },
        "median_counts_per_cell": float(np.median(context.real.totals[pair.real.rows()])),
        "perturbations_without_target_gene": int((context.target < 0).sum()),
        "significant_genes": {
            "real": int(real.significant.sum()), "prediction": int(pred.significant.sum()),
        },
        "perturbations_with_a_value": {
            name: int((~np.isnan(column)).sum()) for name, column in per_row.items()
        },
        "notes": list(pair.notes),
    }  # fmt: skip


def _anchors(context: Context, real: Measured, config: Options) -> dict[str, dict[str, float]]:
    """Return baseline and replicate of every member, from the cache if possible."""
    pair = context.pair
    name = cache.key(
        "vcc2026", list(pair.perturbations), pair.genes.tolist(), list(pair.real.order),
        pair.real.group, real.sizes, real.means, real.u, context.real.totals,
    )  # fmt: skip
    place, found = cache.folder(config.cache), {}
    if config.baseline:
        found["baseline"] = cache.cached(place, "baseline", name, lambda: _baseline(context, real))
    if config.ceiling is not False and config.baseline:
        if real.sizes.min() < 2:
            console.warn(
                "a group of one real cell cannot be halved: no replicate, no scaled scores"
            )
        else:
            found["replicate"] = cache.cached(
                place, "replicate", name, lambda: _replicate(context, real)
            )
    return found


def _baseline(context: Context, real: Measured) -> dict[str, Any]:
    """Score control cells scaled to the mean response of the context."""
    console.say("scoring the baseline")
    pair, controls = context.pair, context.real.controls
    assert controls is not None
    factor = vcc2026.baseline_scale(real.means, context.target)
    drawn = vcc2026.draws(np.flatnonzero(pair.real.group == CONTROL_GROUP), real.sizes[1:])
    copies = ResampledCells.draw(controls, factor, drawn, len(pair.real.group))
    group = np.repeat(np.arange(1, context.n_groups, dtype=np.int32), real.sizes[1:])
    measured = context.with_real_controls(copies, group, copies.totals())
    return vcc2026.members(real, measured, context.target, pair.genes)[1]


def _replicate(context: Context, real: Measured) -> dict[str, Any]:
    """Score one half of the real cells against the other, five times."""
    pair, splits = context.pair, []
    seeds = vcc2026.split_seeds()
    own = np.zeros(real.lfc.shape, bool)
    known = context.target >= 0
    own[known, context.target[known]] = True
    together = at_once(context.n_groups, len(pair.genes))
    with console.progress("scoring replicates", len(seeds), "splits") as bar:
        for start in range(0, len(seeds), together):
            some = seeds[start : start + together]
            halved = [vcc2026.halves(pair.real.group, pair.real.order, seed) for seed in some]
            for first, second in context.halves(halved):
                values = vcc2026.members(first, second, context.target, pair.genes)[1]
                error = vcc2026.nmae(real, second.lfc, second.tested, first, own)
                values[vcc2026.NMAE] = vcc2026.mean(error)
                splits.append(values)
                bar.advance(1)
    return {name: float(np.mean([s[name] for s in splits])) for name in vcc2026.MEMBERS}
