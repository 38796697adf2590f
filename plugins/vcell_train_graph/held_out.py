"""Predictions of held-out sets: saved by each run, pooled over folds, and scored.

Errors are shares of the variance of the values, so that the difference of two models is a
difference in explained variance, set by set. A model is called better if the interval of the paired
differences over held-out sets is above 0. Sets that share genes are not independent, see
`vcell.metrics.verdict`. Rewired graphs vary from draw to draw, so the interval is widened to cover
one more draw. A graph that is better than a rewired one but not than no graph has not helped; nor
have features that are not better than none.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.metrics import verdict
from vcell.train.training import Pooled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vcell.metrics.verdict import Difference
    from vcell.runs import Run

    Array = NDArray[np.float64]

FILE = "held_out.npz"
SEEDS = 3  # draws needed for a verdict
NONE, BARE = "without graphs", "without features"
BASELINES = ("additive", "query-mean", "gp")
WHAT = {
    "rewired": ("the graph helped", "rewired graphs", NONE),
    "shuffled-features": ("the features helped", "features of other genes", BARE),
}


@dataclass(frozen=True, eq=False)
class HeldOutSets:
    """The held-out sets of a run: genes (P, S), values (P,), and predictions (P,) by model."""

    genes: NDArray[np.str_]
    values: Array
    predicted: dict[str, Array]

    def write(self, path: Path) -> None:
        """Write them as .npz."""
        with path.open("wb") as file:
            arrays = {f"said:{name}": x for name, x in self.predicted.items()}
            np.savez(file, genes=self.genes, values=self.values, **arrays)  # type: ignore[arg-type]

    @classmethod
    def of(cls, run: Run) -> HeldOutSets:
        """Read the file that a run wrote."""
        with np.load(run.path / FILE, allow_pickle=False) as file:
            predicted = {
                n.removeprefix("said:"): file[n] for n in file.files if n.startswith("said:")
            }
            return cls(file["genes"], file["values"], predicted)

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the correlation and the explained share of the variance of every model."""
        return {
            name: {"r": correlation(x, self.values), "explained": explained(x, self.values)}
            for name, x in self.predicted.items()
        }

    @property
    def targets(self) -> list[tuple[str, ...]]:
        """The genes of every set."""
        return [tuple(gene for gene in row if gene) for row in self.genes.tolist()]


def correlation(predicted: Array, values: Array) -> float:
    """Return Pearson's r; 0 if either side is constant."""
    if len(values) < 2 or np.ptp(predicted) < 1e-12 or np.ptp(values) < 1e-12:
        return 0.0
    return float(np.corrcoef(predicted, values)[0, 1])


def explained(predicted: Array, values: Array) -> float:
    """Return the explained share of the variance; below 0 if the mean is a better prediction."""
    return 1 - float(np.square(predicted - values).mean() / max(values.var(), 1e-30))


def _of_fold(model: str, runs: Sequence[Run]) -> tuple[dict[str, list[Array]], HeldOutSets]:
    """Return the predictions of each draw, by model or by model and control, and the last draw."""
    predicted: dict[str, list[Array]] = {}
    for run in runs:
        found = HeldOutSets.of(run)
        wiring = run.meta["config"].get("wiring", "given")
        for one, x in found.predicted.items():
            if wiring == "given":
                predicted.setdefault(one, []).append(x)
            elif one == model:
                predicted.setdefault(f"{model}, {wiring}", []).append(x)
    return predicted, found


@dataclass(frozen=True, eq=False)
class Split:
    """All runs with one kind of split, pooled."""

    name: str
    scores: dict[str, dict[str, float]]  # by model: means over folds and draws
    spread: dict[str, dict[str, float]]  # standard deviations over folds
    gains: dict[str, Array]  # (P,) 1 - error of each set, means over draws
    targets: list[tuple[str, ...]]
    draws: int
    draw_sd: float  # standard deviation of the mean gain over draws of the control

    @classmethod
    def of(cls, name: str, model: str, runs: Sequence[Run]) -> Split:
        """Pool the runs of a split."""
        folds = list(dict.fromkeys(str(run.meta["config"]["fold"]) for run in runs))
        gains: dict[str, list[Array]] = {}
        scores: dict[str, list[dict[str, float]]] = {}
        targets: list[tuple[str, ...]] = []
        draws = 0
        by_draw: list[list[float]] = []
        for fold in folds:
            predicted, found = _of_fold(
                model, [run for run in runs if str(run.meta["config"]["fold"]) == fold]
            )
            targets += found.targets
            draws = max(map(len, predicted.values()))
            variance = max(float(found.values.var()), 1e-30)
            for one, each in predicted.items():
                gain = np.mean([1 - np.square(x - found.values) / variance for x in each], axis=0)
                gains.setdefault(one, []).append(gain)
                if one.startswith(f"{model}, "):
                    by_draw.append([len(x) * explained(x, found.values) for x in each])
                part = [HeldOutSets(found.genes, found.values, {one: x}).scores()[one]
                        for x in each]  # fmt: skip
                scores.setdefault(one, []).append(
                    {k: float(np.mean([p[k] for p in part])) for k in part[0]}
                )
        over = {n: {k: [x[k] for x in each] for k in each[0]} for n, each in scores.items()}
        return cls(
            name,
            {n: {k: float(np.mean(v)) for k, v in of.items()} for n, of in over.items()},
            {n: {k: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for k, v in of.items()}
             for n, of in over.items()},
            {n: np.concatenate(each) for n, each in gains.items()}, targets, draws,
            _draw_sd(by_draw, len(targets)),
        )  # fmt: skip

    def control(self, model: str) -> tuple[str, Difference] | None:
        """Return whether what the control removes helped; None without a control."""
        name = next((n for n in self.gains if n.startswith(f"{model}, ")), None)
        if name is None:
            return None
        helped, other, none = WHAT[name.removeprefix(f"{model}, ")]
        found = verdict.difference(self.gains[model] - self.gains[name], self.targets)
        found = _widened(found, self.draw_sd, self.draws)
        difference = f"{found} of the variance over {other}"
        if self.draws < SEEDS:
            seeds = f"{console.count(self.draws, 'seed')} (at least {SEEDS} are needed)"
            return f"no verdict from {seeds}: {difference}", found
        if found.low > 0:
            if none in self.gains:
                over = verdict.difference(self.gains[model] - self.gains[none], self.targets)
                difference = f"{difference}, {over} over none"
                if not over.low > 0:
                    return f"it is not shown that {helped}: {difference}", found
            return f"{helped}: {difference}", found
        if found.high < 0:
            return f"{helped.replace('helped', 'did harm')}: {difference}", found
        return f"it is not shown that {helped}: {difference}", found


def _draw_sd(by_draw: list[list[float]], n: int) -> float:
    """Return the standard deviation over draws of the control's gain, over all folds."""
    gains = np.sum(by_draw, axis=0) / max(n, 1) if by_draw else np.zeros(1)
    return float(np.std(gains, ddof=1)) if len(gains) > 1 else 0.0


def _widened(found: Difference, draw_sd: float, draws: int) -> Difference:
    """Widen an interval to cover the difference to one more draw of the control."""
    if draws < 2:
        return found
    from scipy import stats

    more = float(stats.t.ppf(0.975, draws - 1)) * draw_sd * (1 + 1 / draws) ** 0.5
    low = found.mean - float(np.hypot(found.mean - found.low, more))
    high = found.mean + float(np.hypot(found.high - found.mean, more))
    return dataclasses.replace(found, low=low, high=high)


def pooled(model: str, runs: Sequence[Run]) -> Pooled:
    """Score all runs together: folds by query pair, and the random split."""
    by = str(runs[0].meta.get("held_out_by", "query pairs"))
    kinds = {
        f"{by} never seen": [r for r in runs if r.meta["config"]["fold"] != "random"],
        "random": [r for r in runs if r.meta["config"]["fold"] == "random"],
    }
    splits = [Split.of(name, model, part) for name, part in kinds.items() if part]
    lines, summary = [], {}
    for split in splits:
        plain = {n: x for n, x in split.gains.items() if not n.startswith(f"{model}, ")}
        judged = verdict.judged(model, plain, split.targets, weak=BASELINES)
        control = split.control(model)
        lines.append(f"{split.name}: {judged.text}")
        n_sets = len({*map(frozenset, split.targets)})  # a pair of genes may be in two folds
        one: dict[str, Any] = {"held_out": split.scores, "spread": split.spread,
                               "verdict": judged.plain(), "sets": n_sets}  # fmt: skip
        if control is not None:
            text, gain = control
            lines.append(f"{split.name}: {text}")
            one["control"] = {"text": text, "mean": gain.mean, "low": gain.low, "high": gain.high}
        summary[split.name] = one
    first = summary[splits[0].name]
    rows = _rows(splits)
    heads = ["model", *(f"{column}, {s.name}" for s in splits for column in ("r", "explained"))]
    text = "\n".join([*lines, "", console.table(rows, heads)])
    markdown = "\n".join(
        [*(f"{line}  " for line in lines), "",
         *(f"| {' | '.join(map(str, row))} |" for row in (heads, ["---"] * len(heads), *rows)), ""]
    )  # fmt: skip
    return Pooled(
        summary={"held_out": first["held_out"], "spread": first["spread"],
                 "verdict": first["verdict"], "splits": summary},
        text=text, markdown=markdown,
    )  # fmt: skip


def _rows(splits: Sequence[Split]) -> list[list[str]]:
    names = list(dict.fromkeys(name for split in splits for name in split.scores))
    order = sorted(names, key=lambda n: -splits[0].scores.get(n, {"r": -9.0})["r"])
    return [[name, *_cells(splits, name)] for name in order]


def _cells(splits: Sequence[Split], name: str) -> list[str]:
    cells = []
    for split in splits:
        one: Mapping[str, float] = split.scores[name]
        spread = split.spread[name]
        for key in ("r", "explained"):
            more = f" ± {spread[key]:.3f}" if spread[key] else ""
            cells.append(f"{one[key]:.3f}{more}")
    return cells
