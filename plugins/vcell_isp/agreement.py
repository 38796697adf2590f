"""Test whether the shifts agree with a real perturbation screen: two questions with intervals.

``size``       do genes that move the cell far in the model have large measured effects? Compares
               the distance with the squared length of the effect, corrected for noise
``direction``  do genes that move the cell towards the goal have measured effects that point from
               the start's mean expression to the goal's? Needs the cells of the run

The gene itself is left out of its measured effect, because a knock-down lowers it in any case. The
answer of expression alone is reported too, and the difference of the two, over the same bootstrap
draws of genes. Expression may predict with either sign: the size of its correlation is what the
shifts must beat. A model that is no better than expression should not be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import detect, open_cells
from vcell.data.log_cells import COUNTS, LogCells, median_total
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.metrics.rankings import mean_ranks, spearman
from vcell.screen.measured_effects import of_cells
from vcell.screen.prior_effects import PriorEffects
from vcell.screen.pseudobulk import GroupMoments
from vcell.screen.targets import members

if TYPE_CHECKING:
    import pandas as pd

    from vcell.config import ColumnOptions
    from vcell_isp.stats import FinishedRun

DRAWS, FEWEST = 1000, 20
_LOWERS = ("delete", "inhibit")


@dataclass(frozen=True)
class Answer:
    """The correlation of the shifts and the measured effects of the same genes.

    Attributes
    ----------
    question
        ``size`` or ``direction``.
    genes, shift, measured
        ``[G]`` names, shifts in the model, and measured values.
    rho, low, high
        Spearman's correlation, and its 95 % bootstrap interval over genes.
    alone
        The correlation of expression alone with the measured values.
    gain_low, gain_high
        The 95 % interval of `rho` minus the size of `alone`.
    """

    question: str
    genes: tuple[str, ...]
    shift: NDArray[np.float64]
    measured: NDArray[np.float64]
    rho: float | None
    low: float
    high: float
    alone: float | None
    gain_low: float
    gain_high: float

    @property
    def verdict(self) -> str:
        """The conclusion that the intervals support."""
        if len(self.genes) < FEWEST:
            return f"too few genes in both: {len(self.genes)}, {FEWEST} are needed"
        if self.rho is None:
            return "no correlation can be computed: one side is constant"
        if self.high < 0:
            return "the shifts contradict the screen"
        if self.low <= 0:
            return "no agreement with the screen is shown"
        if self.alone is None:
            return "the shifts agree with the screen, but expression alone is constant here"
        if self.gain_low <= 0:
            return "the shifts agree with the screen, but are not shown to beat expression alone"
        return "the shifts agree with the screen, and beat expression alone"

    def facts(self) -> dict[str, Any]:
        """Return a dictionary for JSON; intervals that were not computed are None."""
        ends = {name: getattr(self, name) for name in ("low", "high", "gain_low", "gain_high")}
        return {
            "genes": len(self.genes), "spearman": self.rho, "expression_alone": self.alone,
            "verdict": self.verdict,
            **{name: float(v) if np.isfinite(v) else None for name, v in ends.items()},
        }  # fmt: skip

    def text(self) -> str:
        """Return the result as a sentence."""
        if self.rho is None or not np.isfinite(self.low):
            return f"perturb-seq, {self.question}: {self.verdict}"
        alone = "–"
        if self.alone is not None:
            more = self.rho - abs(self.alone)
            alone = f"{self.alone:.2f} (more by {more:.2f}, {self.gain_low:.2f} to "
            alone += f"{self.gain_high:.2f})"
        return (
            f"perturb-seq, {self.question}: Spearman {self.rho:.2f} ({self.low:.2f} to "
            f"{self.high:.2f}) over {len(self.genes):,} genes, expression alone {alone}: "
            f"{self.verdict}"
        )


def read(path: Path, options: ColumnOptions) -> PriorEffects:
    """Read a file of effects, or measure them in a screen."""
    if path.suffix == ".parquet":
        return PriorEffects.read(path)
    console.say(f"measuring the effects of {path.name}")
    return of_cells(path, options)[0]


def compare(
    result: FinishedRun, table: pd.DataFrame, effects: PriorEffects, *, activates: bool
) -> list[Answer]:
    """Answer both questions for one run, or warn why the second has no answer.

    Parameters
    ----------
    table
        Rows of genes.csv of this run.
    activates
        Whether the screen raises its targets (CRISPRa) instead of lowering them.
    """
    rows = table[np.isfinite(table["shift"].to_numpy(float)) & (table["ensembl_id"] != "")]
    names, effect, noise = _per_gene(effects)
    index = GeneIndex(names)
    place = index.match(rows["ensembl_id"].astype(str)).index
    by_symbol = index.match(rows["gene"].astype(str)).index
    place = np.where(place >= 0, place, by_symbol)
    rows, place = rows[place >= 0], place[place >= 0]
    own = GeneIndex(effects.genes).match(names).index[place]
    effect, noise = effect[place].copy(), noise[place].copy()
    known = np.flatnonzero(own >= 0)
    effect[known, own[known]] = noise[known, own[known]] = 0
    genes = tuple(rows["gene"].astype(str))
    size = (np.square(effect) - noise).sum(1)
    moved = result.frame.groupby("ensembl_id")["distance"].mean()
    distance = moved.reindex(rows["ensembl_id"]).to_numpy(float)
    detection = _detection(result, rows["ensembl_id"])
    out = [answered("size", genes, distance, size, detection)]
    if not result.design.targets:
        return out
    direction = _direction(result, effects.genes)
    if direction is None:
        return out
    # a knock-down is compared with a deletion; the sign of an activation is reversed
    sign = 1.0 if activates != (result.design.operation in _LOWERS) else -1.0
    towards = sign * (effect @ direction) / np.linalg.norm(direction)
    itself = np.where(own >= 0, direction[np.maximum(own, 0)], 0.0)
    lowers = result.design.operation in _LOWERS
    alone = -itself if lowers else itself
    out.append(answered("direction", genes, rows["shift"].to_numpy(float), towards, alone))
    return out


def _detection(result: FinishedRun, genes: pd.Series) -> NDArray[np.float64]:
    """Return in how many perturbed cells each gene was expressed; a gene put in has no rank."""
    expressed = result.frame.loc[result.frame["rank"] >= 0, "ensembl_id"].value_counts()
    return np.asarray(expressed.reindex(genes).fillna(0).to_numpy(float))


def _per_gene(
    effects: PriorEffects,
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return target genes, effects and their variances: means over contexts, weighted by cells."""
    single = [members(name) for name in effects.perturbations]
    genes = list(dict.fromkeys(found[0] for found in single if len(found) == 1))
    if not genes:
        raise UserError("the file of effects holds no perturbation of one gene")
    place = {name: i for i, name in enumerate(genes)}
    total, noise = np.zeros((2, len(genes), len(effects.genes)))
    weight = np.zeros(len(genes))
    for row, found in enumerate(single):
        if len(found) != 1:
            continue
        at, cells = place[found[0]], float(effects.cells[row])
        total[at] += cells * effects.effect[row]
        noise[at] += np.square(cells * effects.error[row].astype(np.float64))
        weight[at] += cells
    return genes, total / weight[:, None], noise / np.square(weight)[:, None]


def answered(
    question: str,
    genes: tuple[str, ...],
    shift: NDArray[np.float64],
    measured: NDArray[np.float64],
    alone: NDArray[np.float64],
) -> Answer:
    """Correlate, with intervals from bootstrap draws of genes."""
    rho, other = spearman(shift, measured), spearman(alone, measured)
    ends = np.full(4, np.nan)
    if len(genes) >= FEWEST and rho is not None:
        draws = np.random.default_rng(0).integers(len(genes), size=(DRAWS, len(genes)))
        by_model = _drawn(shift, measured, draws)
        by_expression = _drawn(alone, measured, draws)
        by_expression = np.where(  # a constant has no correlation
            np.isfinite(by_expression), np.sign(other or 0) * by_expression, 0
        )
        ends[:2] = np.nanquantile(by_model, [0.025, 0.975])
        ends[2:] = np.nanquantile(by_model - by_expression, [0.025, 0.975])
    return Answer(question, genes, shift, measured, rho, ends[0], ends[1], other, ends[2], ends[3])


def _drawn(
    one: NDArray[np.float64], other: NDArray[np.float64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return Spearman's correlation in each draw of genes; NaN if a side is constant."""
    out = np.empty(len(draws))
    step = max(1, (1 << 21) // draws.shape[1])
    for start in range(0, len(draws), step):
        some = draws[start : start + step]
        a, b = mean_ranks(one[some]), mean_ranks(other[some])
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
        out[start : start + step] = np.where(
            size > 0, (a * b).sum(1) / np.maximum(size, 1e-300), np.nan
        )
    return out


def _direction(result: FinishedRun, genes: list[str]) -> NDArray[np.float64] | None:
    """Return the mean log expression of the goal minus that of the start, by gene."""
    data = result.run.meta.get("data") or [{}]
    path = Path(str(data[0].get("path", "")))
    if not path.exists():
        console.warn(
            f"the cells of {result.run.name} are not at {path} any more: the direction of shifts "
            "and effects cannot be compared"
        )
        return None
    design, config = result.design, result.run.meta.get("config") or {}
    ends = [design.states.index(str(name)) for name in (config["start"], design.targets[0])]
    with open_cells(path, config.get("layer")) as source:
        codes = np.full(source.n_cells, -1)
        for number, state in enumerate(ends):
            codes[design.cells.rows[design.state == state]] = number
        kind = detect.scale(source, quiet=True).kind
        total = median_total(source, np.flatnonzero(codes == 0)) if kind == COUNTS else np.nan
        means = GroupMoments.of(LogCells(source, kind, total), codes, 2).mean
        from vcell.geneformer.tokens import gene_names

        names = gene_names(source, config.get("gene_column"))
        index = GeneIndex(names).match(genes).index
    found = np.zeros(len(genes))
    found[index >= 0] = (means[1] - means[0])[index[index >= 0]]
    if not found.any():
        raise UserError(f"{path} and the effects have no gene in common")
    return found
