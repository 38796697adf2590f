"""The trained runs that predict: one run, or several whose predictions are averaged.

P perturbations, N genes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, models
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.models import Screen
from vcell.runs import Run
from vcell.screen.split import TEST, TRAIN, VALIDATION
from vcell.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float32]


@dataclass(frozen=True)
class Member:
    """One run and its model."""

    run: Run
    kind: str
    screen: Screen
    predictor: models.Predictor

    @classmethod
    def open(cls, path: Path, kind: str | None) -> Member:
        """Open a run and load its model, or another kind of model fitted to the same screen."""
        run = Run.open(path)
        kind = kind or run.meta.get("model")
        has_screen = (run.path / models.SCREEN).is_file()
        if kind and not has_screen and run.meta.get("model") in models.names():
            raise UserError(
                f"{run.name} is {run.status()}: it ended before its cells were measured, so it "
                "cannot predict",
                hint="train again: vcell train-vcc",
            )
        if not kind or not has_screen or not run.meta.get("model"):
            raise UserError(
                f"{run.name} is a run of vcell {run.meta.get('command')}, not of a perturbation "
                "model",
                hint="vcell runs list shows the others; vcell train-vcc makes one",
            )
        if run.status() != "done":
            console.warn(f"{run.name} is {run.status()}: its best checkpoint so far is used")
        screen = Screen.load(run.path / models.SCREEN)
        predictor = models.get(kind).load(run, screen.settled())
        return cls(run, kind, screen, predictor)

    @functools.cached_property
    def as_chosen(self) -> Member:
        """The model before it was refitted with the perturbations that chose it."""
        if not len(self.screen.rows(VALIDATION)):
            return self  # no perturbations chose it
        predictor = models.get(self.kind).load(self.run, self.screen)
        return replace(self, predictor=predictor)

    def predict(self, names: Sequence[str], contexts: Sequence[str]) -> Array:
        """Return effects (P, N); rows are NaN where the model has no prediction."""
        return np.asarray(self.predictor.predict(list(names), list(contexts)), np.float32)

    def out_of_sample(self) -> tuple[NDArray[np.int64], Array]:
        """Return rows of the screen and out-of-sample predictions of their effects (P, N).

        These are the perturbations that chose the model, and those it was fitted to if it predicts
        each from the others.
        """
        screen, rows = self.screen, self.screen.rows(VALIDATION)
        effect, chosen = np.zeros((0, len(screen.genes)), np.float32), self.as_chosen
        if len(rows):
            effect = chosen.predict(*screen.names(rows))
        if not isinstance(chosen.predictor, models.LeavesOneOut):
            return rows, effect
        left_out = np.asarray(chosen.predictor.loo(), np.float32)
        return np.concatenate([rows, screen.rows(TRAIN)]), np.concatenate([effect, left_out])


class Ensemble:
    """Runs trained with the same genes on the same scale."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.first, self.screen = members[0], members[0].screen
        for other in self.members[1:]:
            _check_alike(self.first, other)

    @classmethod
    def open(cls, names: Sequence[str], folder: Path, kind: str | None) -> Ensemble:
        """Open the runs."""
        paths = [path for name in names for path in _answering(Run.open(name, root=folder))]
        if len({path.resolve() for path in paths}) < len(paths):
            raise UserError("a run is named twice", hint="an ensemble is made of different runs")
        return cls([Member.open(path, kind) for path in paths])

    def as_chosen(self) -> Ensemble:
        """Return the models before they were refitted with the perturbations that chose them."""
        return Ensemble([member.as_chosen for member in self.members])

    def __len__(self) -> int:
        return len(self.members)

    @property
    def labels(self) -> dict[str, Any]:
        """The label columns and labels of the first run's training."""
        labels: dict[str, Any] = self.first.run.meta["labels"]
        return labels

    @property
    def called(self) -> str:
        """Models and runs by name."""
        kinds = dict.fromkeys(member.kind for member in self.members)
        if len(self) == 1:
            return f"{self.first.kind} of {self.first.run.name}"
        return f"the mean of {len(self)} runs ({', '.join(kinds)})"

    def each(self, names: Sequence[str], contexts: Sequence[str]) -> Array:
        """Return every run's effects (runs, P, N)."""
        return np.stack([member.predict(names, contexts) for member in self.members])

    def predict(self, names: Sequence[str], contexts: Sequence[str]) -> Array:
        """Return the mean (P, N) over the runs that predict; NaN where none does."""
        total = np.zeros((len(names), len(self.screen.genes)), np.float64)
        n_finite = np.zeros(len(names), np.int64)
        for member in self.members:
            effect = member.predict(names, contexts)
            finite = np.isfinite(effect).all(axis=1)
            total[finite] += effect[finite]
            n_finite += finite
        with np.errstate(invalid="ignore"):
            return (total / n_finite[:, None]).astype(np.float32)

    def rows(self, part: int) -> NDArray[np.int64]:
        """Return the rows of the first run's screen that are in this part in every run."""
        return np.array(
            [
                row
                for row in self.screen.rows(part)
                if all(
                    _part(member.screen, *_key(self.screen, row)) == part for member in self.members
                )
            ],
            np.int64,
        )

    def learnt(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return whether any run was fitted to, or chosen by, each perturbation in its context.

        Under any name: in another order, or with other names of the targets.
        """
        found = [_learnt(member.screen, pairs) for member in self.members]
        return [any(of_runs) for of_runs in zip(*found, strict=True)]

    def known(self, pairs: Sequence[tuple[str, str]], unknown: str) -> tuple[Array, list[str]]:
        """Return effects (P, N), and the names predicted by the mean since they lack features."""
        names, contexts = [name for name, _ in pairs], [context for _, context in pairs]
        effect = self.predict(names, contexts)
        lost = ~np.asarray(np.isfinite(effect).all(axis=1))
        blind = list(
            dict.fromkeys(
                name for name, missing in zip(names, lost.tolist(), strict=True) if missing
            )
        )
        if not blind:
            return effect, []
        listed = ", ".join(blind[:8]) + (f" and {len(blind) - 8} more" if len(blind) > 8 else "")
        if unknown == "error":
            raise UserError(
                f"nothing is known of {len(blind)} of {len(set(names))} targets: {listed}"
                f"{self._guess(blind)}",
                hint="each must be a gene of the run with expression (or in its feature tables); "
                "--unknown mean predicts the mean effect for the others",
            )
        console.warn(
            f"the mean effect is predicted for {console.count(len(blind), 'target')} without "
            f"features: {listed}"
        )
        for row in np.flatnonzero(lost):
            effect[row] = self._mean_effect(contexts[row])
        return effect, blind

    def _guess(self, blind: list[str]) -> str:
        genes = [*self.screen.genes.tolist(), *self.screen.feature_genes.tolist()]
        return did_you_mean(blind[0], genes) if len(blind) == 1 else ""

    def _mean_effect(self, context: str) -> Array:
        """Return the mean training effect in a context, or in all if the context has none."""
        screen = self.screen
        learnt = screen.rows(TRAIN)
        own = learnt[screen.contexts[screen.context[learnt]] == context]
        mean: Array = screen.delta[own if len(own) else learnt].mean(axis=0)
        return mean


def _answering(run: Run) -> list[Path]:
    """Return the runs that predict: the run itself, all its folds, or the best of its trials."""
    holds = run.meta.get("parts")
    if not holds:
        return [run.path]
    paths, status = run.stands_for(), run.status()
    if not paths:
        raise UserError(
            f"{run.name} is {status}, and none of its {holds} is done",
            hint=f"vcell train-vcc --resume {run.name} continues them",
        )
    if holds == "folds":
        done = f"{len(paths)} of {run.meta['folds']} are done"
        console.say(f"{run.name}: the mean of its folds is predicted ({done})")
    else:
        so_far = "" if status == "done" else f" so far (it is {status})"
        console.say(f"{run.name}: its best trial{so_far} is used, {paths[0].name}")
    return paths


def _key(screen: Screen, row: int) -> tuple[str, str]:
    return str(screen.perturbations[row]), str(screen.contexts[screen.context[row]])


def _learnt(screen: Screen, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    names, contexts = screen.names(np.flatnonzero(screen.part != TEST))
    sets, asked = screen.members(names), screen.members([name for name, _ in pairs])
    index = GeneIndex(dict.fromkeys(gene for genes in sets for gene in genes))
    wanted = list(dict.fromkeys(gene for genes in (*sets, *asked) for gene in genes))
    place = dict(zip(wanted, index.match(wanted).index.tolist(), strict=True))

    def keys(of: list[tuple[str, ...]], within: list[str]) -> list[tuple[frozenset[int], str]]:
        return [(frozenset(place[g] for g in x), c) for x, c in zip(of, within, strict=True)]

    known = set(keys(sets, contexts))
    return [key in known for key in keys(asked, [context for _, context in pairs])]


def _part(screen: Screen, name: str, context: str) -> int:
    """Return the part of a perturbation in a context, -1 if the screen does not have it."""
    own = (screen.perturbations == name) & (screen.contexts[screen.context] == context)
    return int(screen.part[np.argmax(own)]) if own.any() else -1


def _check_alike(one: Member, other: Member) -> None:
    """Refuse runs whose predictions cannot be averaged."""
    a, b = one.screen, other.screen
    wrong = None
    if len(a.genes) != len(b.genes) or (a.genes != b.genes).any():
        wrong = f"genes ({len(a.genes):,} and {len(b.genes):,}, or in another order)"
    elif a.contexts.tolist() != b.contexts.tolist():
        wrong = f"contexts ({', '.join(a.contexts)} and {', '.join(b.contexts)})"
    elif not np.isclose(a.target_sum, b.target_sum, rtol=1e-3, equal_nan=True):
        wrong = f"scales (totals of {a.target_sum:,.6g} and {b.target_sum:,.6g})"
    if wrong is not None:
        raise UserError(
            f"{one.run.name} and {other.run.name} learnt different {wrong}",
            hint="the runs of an ensemble must be on the same cells, with different seeds for "
            "instance",
        )
