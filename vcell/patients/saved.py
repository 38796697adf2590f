"""Reading and writing the files of a run of train-bulk.

They are read by a resumed run, by ablations and by figures:

    design.json    folds, the learner of states for each fold, settings, the search
    cohort.npz     one row per patient; see `vcell.patients.cohort`
    outer-K.json   the result of outer fold K: a killed run continues after the last of them
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.outputs import write_json
from vcell.patients.cohort import Cohort
from vcell.patients.nested import Outer, Picked, Search
from vcell.patients.network import BulkSettings
from vcell.patients.scores import PatientJudge

if TYPE_CHECKING:
    from vcell.runs import Run

    Array = NDArray[Any]

COMMAND = "train-bulk"
DESIGN, COHORT = "design.json", "cohort.npz"
WHOLE = "all"  # the learner of states trained on all patients


@dataclass(frozen=True)
class BulkStudy:
    """The folds of patients, and the settings of training.

    Attributes
    ----------
    fold
        ``[P]`` the outer fold of each patient.
    learners
        For each outer fold, the name of the states that were learnt without its patients.
    shuffled
        Whether outcomes were shuffled among patients, as a check.
    """

    fold: NDArray[np.int64]
    learners: tuple[str, ...]
    settings: BulkSettings
    search: Search
    shuffled: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the study as JSON types."""
        return {
            "fold": self.fold.tolist(), "learners": list(self.learners),
            "settings": dataclasses.asdict(self.settings),
            "search": dataclasses.asdict(self.search), "shuffled": self.shuffled,
        }  # fmt: skip

    @classmethod
    def of(cls, plain: dict[str, Any]) -> BulkStudy:
        """Make a study from `plain`."""
        settings, search = with_tuples(plain["settings"]), with_tuples(plain["search"])
        return cls(
            np.array(plain["fold"], np.int64), tuple(plain["learners"]), BulkSettings(**settings),
            Search(**search), plain["shuffled"],
        )  # fmt: skip

    @property
    def folds(self) -> int:
        """Number of outer folds."""
        return len(self.learners)

    def train(self, k: int) -> NDArray[np.int64]:
        """Return the training patients of an outer fold."""
        return np.flatnonzero(self.fold != k)

    def tests(self, k: int) -> NDArray[np.int64]:
        """Return the test patients of an outer fold."""
        return np.flatnonzero(self.fold == k)


def with_tuples(plain: dict[str, Any]) -> dict[str, Any]:
    """Return settings with JSON's lists converted to tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}


def opened(run: Run) -> tuple[Cohort, BulkStudy]:
    """Read cohort and study of a run."""
    run.refuse_unless_of(COMMAND)
    try:
        plain = json.loads((run.path / DESIGN).read_text())
        plan = BulkStudy.of(plain)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{run.path / DESIGN} is missing or damaged", hint="start a new run"
        ) from None
    return Cohort.load(run.path / COHORT), plan


def save_outer(run: Run, k: int, found: Outer, folder: str = "") -> None:
    """Store the result of an outer fold."""
    plain = {
        "tests": found.tests.tolist(), "chosen": dataclasses.asdict(found.chosen),
        "probabilities": {name: p.tolist() for name, p in found.probabilities.items()},
        "names": list(found.names), "weights": found.weights.tolist(),
    }  # fmt: skip
    write_json(run.path / f"{folder}outer-{k}.json", plain)


def outer_of(run: Run, k: int, folder: str = "") -> Outer | None:
    """Return the result of an outer fold; None if it is not done."""
    try:
        plain = json.loads((run.path / f"{folder}outer-{k}.json").read_text())
        return Outer(
            np.array(plain["tests"], np.int64), Picked(**plain["chosen"]),
            {name: np.array(p) for name, p in plain["probabilities"].items()},
            tuple(plain["names"]), np.array(plain["weights"]),
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run.name}: outer-{k}.json is damaged: {error}") from None


def finished(run: Run, plan: BulkStudy) -> list[Outer]:
    """Return all outer folds of a finished run."""
    found = [outer_of(run, k) for k in range(plan.folds)]
    done = [one for one in found if one is not None]
    if len(done) < plan.folds:
        raise UserError(
            f"{run.name} is not finished: folds done: {len(done)} of {plan.folds}",
            hint=f"vcell {COMMAND} --resume {run.name}",
        )
    return done


def pooled(outers: list[Outer], n: int) -> dict[str, Array]:
    """Return each model's probabilities [P, C] for patients that it was not trained on."""
    found: dict[str, Array] = {}
    for one in outers:
        for name, p in one.probabilities.items():
            found.setdefault(name, np.full((n, p.shape[1]), np.nan))[one.tests] = p
    return found


def judge_of(cohort: Cohort, plan: BulkStudy) -> PatientJudge:
    """Return the judge of models on these patients."""
    return PatientJudge(cohort.outcome, plan.fold, len(cohort.outcomes), plan.search.seed)
