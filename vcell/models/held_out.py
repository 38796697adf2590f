"""Scores of held-out perturbations by every model, row by row: `held_out.csv` of a run.

P held-out rows, N genes.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console, models
from vcell.errors import UserError
from vcell.metrics import verdict
from vcell.models import members
from vcell.models.scoring import (
    by_chance,
    by_chance_without_own,
    each,
    gain,
    scores,
    without_own,
)
from vcell.screen.split import TEST, VALIDATION
from vcell.suggest import few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vcell.models import Screen
    from vcell.runs import Run

    Table = dict[str, dict[str, float]]

FILE = "held_out.csv"
SCORES = ("pds", "mae", "delta_correlation")
ALL = (*SCORES, *(f"{name}_without_own" for name in SCORES))
MEANS = ("mean", "perturbed-mean", "perturbed-mean-own", "no-change")  # no claim about them
REACHABLE, CHANCE = "reachable", "chance"


def baselines(screen: Screen) -> list[str]:
    """Return the names of the baselines that make sense for a screen."""
    several = any(len(members(str(name))) > 1 for name in screen.perturbations)
    contexts = len(screen.contexts) > 1
    return [
        *MEANS,
        *(["context-mean"] if contexts else []),
        *(["additive"] if several else []),
        "ridge",
        "knn",
        "gp",
    ]


@dataclass(frozen=True)
class HeldOut:
    """What every model scored on held-out rows.

    Attributes
    ----------
    names, contexts
        (P,) of the rows.
    scores
        The scores `ALL` (P,) of every model. PDS is NaN where a perturbation was held out alone.
    levels
        The same scores of `REACHABLE` and `CHANCE`, where the cells were halved.
    """

    names: list[str]
    contexts: list[str]
    scores: dict[str, dict[str, NDArray[np.float64]]]
    levels: dict[str, dict[str, NDArray[np.float64]]]

    @classmethod
    def of(cls, run: Run, model: str, screen: Screen) -> HeldOut:
        """Predict the held-out rows with the model and the baselines, and score them."""
        rows, settled = screen.rows(TEST), screen.settled()
        effects = {
            name: models.get(name).load(run, settled).predict(*screen.names(rows))
            for name in (dict.fromkeys((*baselines(screen), model)) if len(rows) else ())
        }
        finite = np.ones(len(rows), bool)
        for one in effects.values():
            finite &= np.isfinite(one).all(axis=1)
        if not finite.all():
            lost = screen.perturbations[rows[~finite]].tolist()
            console.warn(f"{len(lost)} held-out perturbations are not scored, their targets have "
                         f"no features: {few(lost)}")  # fmt: skip
        scores = {name: _scores(screen, rows[finite], one[finite]) for name, one in effects.items()}
        names, contexts = screen.names(rows[finite])
        return _but_lone(cls(names, contexts, scores, _levels(screen, rows[finite])))

    @classmethod
    def read(cls, runs: Sequence[Run]) -> HeldOut:
        """Read and join the scores of several runs; models that some runs lack are left out."""
        found = [_read(run.path / FILE) for run in runs]
        joined = found[0]
        for other in found[1:]:
            joined = joined._with(other)
        return joined

    def _with(self, other: HeldOut) -> HeldOut:
        def join(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
            return {
                name: {s: np.concatenate([one[s], b[name][s]]) for s in one}
                for name, one in a.items()
                if name in b
            }

        return HeldOut(
            self.names + other.names,
            self.contexts + other.contexts,
            join(self.scores, other.scores),
            join(self.levels, other.levels),
        )

    def write(self, path: Path) -> None:
        """Write one line for each perturbation and model, the levels among them."""
        everything = self.scores | self.levels
        available = [s for s in ALL if all(s in of for of in everything.values())]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["perturbation", "context", "model", *available])
            for model, values in everything.items():
                for i, (name, context) in enumerate(zip(self.names, self.contexts, strict=True)):
                    numbers = (f"{values[s][i]:.9g}" for s in available)
                    writer.writerow([name, context, model, *numbers])

    def judged(self, model: str) -> verdict.Verdict:
        """Say whether the model beats the baselines."""
        targets = [members(name) for name in self.names]
        return verdict.judged(model, verdict.gains(self.scores), targets, weak=MEANS)

    def summary(self, model: str) -> dict[str, Any]:
        """Return the mean scores, the levels and the verdict, for the run."""
        if not self.names:
            return {"held_out": {}}
        gains = verdict.gains(self.scores | self.levels)
        means = {
            name: _means(one | {"gain": gains[name]})
            for name, one in (self.scores | self.levels).items()
        }
        alone = int(np.isnan(next(iter(self.scores.values()))["pds"]).sum())
        return {
            "held_out": {name: means[name] for name in self.scores},
            "levels": {name: means[name] for name in self.levels if "mae" in means[name]},
            "verdict": self.judged(model).plain(),
        } | ({"without_pds": alone} if alone else {})


def _but_lone(found: HeldOut) -> HeldOut:
    """Leave out the PDS of a perturbation held out alone: it is always 1."""
    often = Counter(found.contexts)
    alone = np.array([often[context] == 1 for context in found.contexts], np.bool_)
    for values in (*found.scores.values(), *found.levels.values()):
        for name in {"pds", "pds_without_own"} & values.keys():
            values[name] = np.where(alone, np.nan, values[name])
    return found


def _means(scores: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the means over the rows that have a score."""
    return {
        name: float(np.nanmean(values))
        for name, values in scores.items()
        if not np.isnan(values).all()
    }


def _scores(
    screen: Screen, rows: NDArray[np.int64], effect: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """Score rows within their context, since PDS ranks them among the others there."""
    found = {name: np.full(len(rows), np.nan) for name in ALL}
    for context in np.unique(screen.context[rows]):
        own = screen.context[rows] == context
        names, real = screen.perturbations[rows[own]].tolist(), screen.delta[rows[own]]
        one = each(effect[own], real, screen.targets(names))
        one |= _renamed(without_own(effect[own], real, screen.columns(names)))
        for name, values in one.items():
            found[name][own] = values
    return found


def _levels(screen: Screen, rows: NDArray[np.int64]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Score one half of each perturbation's cells against the other, and against the others'."""
    tested = screen.rows(TEST)
    if not len(rows) or screen.halves.shape[1] != len(tested):
        return {}  # an older run
    first, second = (half[np.isin(tested, rows)] for half in screen.halves)
    found = {name: {s: np.full(len(rows), np.nan) for s in ALL} for name in (REACHABLE, CHANCE)}
    for context in np.unique(screen.context[rows]):
        at = screen.context[rows] == context
        names = screen.perturbations[rows[at]].tolist()
        target, own = screen.targets(names), screen.columns(names)
        levels = {
            REACHABLE: each(second[at], first[at], target)
            | _renamed(without_own(second[at], first[at], own)),
            CHANCE: by_chance(second[at], first[at], target)
            | _renamed(by_chance_without_own(second[at], first[at], own)),
        }
        for level, values in levels.items():
            for name, one in values.items():
                found[level][name][at] = one
    return found


def _renamed(scores: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {f"{name}_without_own": values for name, values in scores.items()}


def _read(path: Path) -> HeldOut:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_model: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    first = next(iter(by_model.values()), [])
    values = {
        model: {s: np.array([float(row[s]) for row in own]) for s in ALL if own[0].get(s)}
        for model, own in by_model.items()
    }
    levels = {name: values.pop(name) for name in (REACHABLE, CHANCE) if name in values}
    names, contexts = ([row[column] for row in first] for column in ("perturbation", "context"))
    return _but_lone(HeldOut(names, contexts, values, levels))


def table(summary: dict[str, Any]) -> list[list[str]]:
    """Return the rows of a table: `COLUMNS` of every model, then the levels."""
    over = summary["verdict"]["over"]
    body = []
    for name, one in (summary["held_out"] | summary["levels"]).items():
        numbers = [_pds(one, "pds"), f"{one['mae']:.4f}", f"{one['delta_correlation']:.3f}"]
        numbers += [verdict.signed(one["gain"])]
        body.append([name, *numbers, _interval(over.get(name))])
    return body


def _pds(one: dict[str, float], name: str) -> str:
    return f"{one[name]:.3f}" if name in one else "-"


COLUMNS = ("model", "PDS", "MAE", "correlation", "gain", "model over it (95 %)")
_SHORT = COLUMNS[:4]


def _interval(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    if one["low"] is None:
        return verdict.signed(one["mean"])
    return str(verdict.Difference(**one))


def without_own_table(summary: dict[str, Any]) -> list[list[str]]:
    """Return the same scores without the perturbations' own genes."""
    return [
        [
            name,
            _pds(one, "pds_without_own"),
            f"{one['mae_without_own']:.4f}",
            f"{one['delta_correlation_without_own']:.3f}",
        ]
        for name, one in (summary["held_out"] | summary["levels"]).items()
        if "mae_without_own" in one  # older runs lack them
    ]


def markdown(summary: dict[str, Any]) -> list[str]:
    """Return the verdict and both tables in Markdown, as lines."""
    if "verdict" not in summary:
        return ["None were held out."]
    lines = _lines(COLUMNS, table(summary))
    if without := without_own_table(summary):
        lines += ["", "Without the perturbations' own genes:", "", *_lines(_SHORT, without)]
    return [f"{summary['verdict']['text']}.", "", *lines, "", legend(summary)]


def _lines(columns: Sequence[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *rows)]


def legend(summary: dict[str, Any]) -> str:
    """Explain the table."""
    text = "gain: share of the way from the mean to perfect, over PDS and MAE."
    about = {
        REACHABLE: " reachable: one half of the cells predicts the other.",
        CHANCE: " chance: another perturbation predicts it.",
    }
    text += "".join(about[name] for name in summary["levels"])
    if alone := summary.get("without_pds"):
        text += (
            f" {alone} held out alone in a fold: PDS, always 1 among one, is left out there, and "
            "the gain is that in MAE; with fewer folds more are held out together."
        )
    return text


def tables(summary: dict[str, Any]) -> str:
    """Return both tables as text."""
    text = f"{console.table(table(summary), COLUMNS)}\n{legend(summary)}"
    if without := without_own_table(summary):
        text += f"\n\nwithout the perturbations' own genes\n{console.table(without, _SHORT)}"
    return text


def validation_gain(run: Run) -> float:
    """Return a run's gain over the mean on its validation perturbations, by which sweeps choose."""
    screen = models.Screen.load(run.path / models.SCREEN)
    rows = screen.rows(VALIDATION)
    if not len(rows):
        raise UserError(
            "no perturbations are left to choose settings by", hint="raise --validation-share"
        )
    names, contexts = screen.names(rows)
    found = [
        scores(
            models.get(name).load(run, screen).predict(names, contexts),
            screen.denoised(rows),
            screen.targets(names),
        )
        for name in (run.meta["model"], "mean")
    ]
    return gain(*found)
