"""The final model of train-bulk for new patients, learnt from all patients of the run.

Cross-validation estimates how good models of this kind are on new patients. This model was trained
on all patients of the cohort, so its predictions for them are not scores. The run stores:

    model/weights.safetensors   the networks, and centre, scale and axes of bulk
    model/model.json            outcomes, genes, settings, temperature, checksum of the weights

S samples, G genes of the cohort, C outcomes, M modalities.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import softmax

from vcell.errors import UserError
from vcell.outputs import write_json
from vcell.patients import features, nested, saved
from vcell.patients.features import Axes
from vcell.patients.nested import Picked
from vcell.patients.network import BulkNet, BulkSettings, predicted
from vcell.runs.files import checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vcell.patients.cohort import Cohort
    from vcell.patients.saved import BulkStudy
    from vcell.runs import Run

    Array = NDArray[Any]

FOLDER = "model"
_WEIGHTS, _ABOUT = f"{FOLDER}/weights.safetensors", f"{FOLDER}/model.json"


@dataclass(frozen=True)
class BulkPrediction:
    """Predictions for new samples.

    Attributes
    ----------
    probabilities
        ``[S, C]``, after the temperature.
    weights
        ``[S, M]`` weights of the modalities in the fusion.
    distance
        ``[S]`` distance of a sample from the cohort: root mean square of its bulk features, which
        have unit variance over the cohort's patients.
    """

    probabilities: Array
    weights: Array
    distance: Array


@dataclass(frozen=True)
class FinalBulkModel:
    """Networks learnt from all patients, and the transformation of their bulk input.

    Attributes
    ----------
    outcomes, genes, names
        Names: of the outcomes, of the cohort's genes, of the modalities.
    bulk
        Maps log counts of `genes` to features.
    widths
        Numbers of features of the modalities with a teacher.
    """

    outcomes: tuple[str, ...]
    genes: tuple[str, ...]
    settings: BulkSettings
    widths: dict[str, int]
    picked: Picked
    bulk: Axes
    members: list[BulkNet]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self.members[0].names)

    @property
    def used(self) -> NDArray[np.int64]:
        """Indices of the genes that the model uses."""
        return self.bulk.columns

    @classmethod
    def learn(
        cls, cohort: Cohort, plan: BulkStudy, tick: Callable[[], None] = lambda: None
    ) -> FinalBulkModel:
        """Choose by inner folds of all patients, and learn from all of them.

        States, if any, are those of the first fold's learner, as no patients are tested.
        """
        learner, search = plan.learners[0], plan.search
        patients = np.arange(cohort.n)
        settings = nested.with_what_is_there(plan.settings, cohort, learner)
        inner = nested.inner_folds(cohort, patients, search)
        picked = nested.choose(cohort, patients, inner, learner, settings, search, tick)
        fitted = features.fit(cohort, patients, learner, genes=search.genes, axes=picked.axes)
        x = features.bulk_of(cohort, fitted, patients[:1])
        members, _, _ = nested.members(cohort, patients, fitted, settings, search, picked, x, tick)
        widths = {name: values.shape[1] for name, values in fitted.modalities.items()}
        return cls(cohort.outcomes, cohort.genes, settings, widths, picked, fitted.bulk, members)

    def predict(self, counts: Array) -> BulkPrediction:
        """Predict samples ``[S, G]``; a gene that a table lacks is NaN, and set to the centre."""
        there = np.isfinite(counts)
        logs = features.log_counts(np.where(there, counts, 0))
        x = self.bulk(np.where(there, logs, np.nan))
        predictions = [predicted(model, torch.from_numpy(x).float()) for model in self.members]
        logits = np.mean([logits for logits, _ in predictions], axis=0)
        weights = np.mean([weights for _, weights in predictions], axis=0)
        distance = np.sqrt(np.square(x).mean(axis=1))
        return BulkPrediction(softmax(logits / self.picked.temperature, axis=1), weights, distance)

    def save(self, run: Run) -> None:
        """Store the model in the run, with the description last."""
        from safetensors.numpy import save_file

        arrays = {f"bulk.{name}": value for name, value in self.bulk.arrays().items()}
        for number, model in enumerate(self.members):
            for name, value in model.state_dict().items():
                arrays[f"member-{number}.{name}"] = value.numpy()
        (run.path / FOLDER).mkdir(exist_ok=True)
        whole = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        run.save_file(_WEIGHTS, lambda path: save_file(whole, str(path)))
        about = {
            "outcomes": self.outcomes, "genes": self.genes, "widths": self.widths,
            "settings": dataclasses.asdict(self.settings), "members": len(self.members),
            "chosen": dataclasses.asdict(self.picked), "weights": checksum(run.path / _WEIGHTS),
        }  # fmt: skip
        write_json(run.path / _ABOUT, about)

    @classmethod
    def load(cls, run: Run) -> FinalBulkModel:
        """Read the model from a run of train-bulk."""
        from safetensors.numpy import load_file

        saved_model = _described(run)
        try:
            if saved_model["weights"] != checksum(run.path / _WEIGHTS):
                raise UserError(
                    f"{run.name}: {_WEIGHTS} is not what the run wrote", hint="train again"
                )
            arrays = load_file(str(run.path / _WEIGHTS))
            settings = BulkSettings(**saved.with_tuples(saved_model["settings"]))
            bulk = Axes.of(_under("bulk.", arrays))
            widths, outcomes = saved_model["widths"], tuple(saved_model["outcomes"])
            members = []
            for number in range(saved_model["members"]):
                model = BulkNet(bulk.width, widths, len(outcomes), settings)
                state = _under(f"member-{number}.", arrays)
                model.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()})
                members.append(model)
            picked = Picked(**saved_model["chosen"])
            return cls(
                outcomes, tuple(saved_model["genes"]), settings, widths, picked, bulk, members
            )
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{run.name}: its model cannot be read: {error}") from None


def is_saved(run: Run) -> bool:
    """Whether the run has a final model."""
    return (run.path / _ABOUT).exists()


def _described(run: Run) -> dict[str, Any]:
    run.refuse_unless_of(saved.COMMAND)
    try:
        described = json.loads((run.path / _ABOUT).read_text())
    except FileNotFoundError:
        shuffled = run.meta.get("config", {}).get("shuffle_outcomes")
        raise UserError(
            f"{run.name} keeps no model: "
            + ("its outcomes were shuffled" if shuffled else "it is not finished"),
            hint=f"vcell {saved.COMMAND} --resume {run.name}" if not shuffled else "train another",
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{run.name}: {_ABOUT} cannot be read: {error}") from None
    if not isinstance(described, dict):
        raise UserError(f"{run.name}: {_ABOUT} is damaged")
    return described


def _under(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
