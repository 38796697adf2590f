"""Train the bilinear model on the effects of a screen, with the loop that all trainers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcell.train.loop import Trainer
from vcell.train.state import load_weights
from vcell.train.stream import Shuffled
from vcell_train_vcc.baselines import MeanPredictor
from vcell_train_vcc.bilinear import Bilinear
from vcell_train_vcc.scores import gain, scores
from vcell_train_vcc.split import TRAIN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vcell.models import Screen
    from vcell.runs import Run
    from vcell.train.task import Place
    from vcell_train_vcc import TrainVcc


class EffectTask:
    """Predict the training effects; choose by the challenge's scaled score over the mean."""

    monitor = "score"
    higher_is_better = True

    def __init__(self, screen: Screen, config: TrainVcc) -> None:
        self.screen, self.config = screen, config
        self.learnt, self.held = screen.rows(TRAIN), screen.rows(VALIDATION)
        self.scale = float(screen.delta[self.learnt].var())
        held = [str(name) for name in screen.perturbations[self.held]]
        self.mean_scores = scores(
            MeanPredictor(screen).predict(held), screen.delta[self.held], screen.targets(held)
        )
        self.identity: Mapping[str, Any] = {
            "model": "bilinear",
            "genes": len(screen.genes),
            "features": screen.features.shape[1],
            "perturbations": len(self.learnt),
            "rank": config.rank,
            "hidden": config.hidden,
        }

    def build(self) -> nn.Module:
        """Build the model at the mean baseline."""
        return build(self.screen, self.config)

    def batches(self, place: Place) -> Shuffled:
        """Shuffle the training perturbations."""
        return Shuffled(
            len(self.learnt),
            self._fetch,
            place=place,
            batch_size=max(min(self.config.batch_size, len(self.learnt)), place.world_size),
            seed=self.config.seed,
        )

    def _fetch(self, numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        rows = self.learnt[numbers]
        names = [str(name) for name in self.screen.perturbations[rows]]
        return inputs(self.screen, names) | {"delta": torch.from_numpy(self.screen.delta[rows])}

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the mean squared error in units of the effects' variance."""
        effect = model(batch["features"], batch["target"])
        error = (effect - batch["delta"]).square().mean() / self.scale
        return error, {"mse": error.detach()}

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Score the validation perturbations."""
        names = [str(name) for name in self.screen.perturbations[self.held]]
        effect = answer(model, self.screen, names)
        found = scores(effect, self.screen.delta[self.held], self.screen.targets(names))
        return found | {"score": gain(found, self.mean_scores)}


def build(screen: Screen, config: TrainVcc) -> Bilinear:
    """Build the model a screen and the settings ask for."""
    rows = screen.rows(TRAIN)
    target = screen.targets([str(name) for name in screen.perturbations[rows]])
    own = 1 + screen.delta[rows, target] / np.maximum(screen.control[target], 1e-6)
    return Bilinear(
        screen.control,
        screen.delta[rows],
        screen.features.shape[1],
        config.rank,
        config.hidden,
        config.dropout,
        own=float(np.log(np.clip(np.median(own), 0.01, 100))),
    )


def inputs(screen: Screen, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the features (P, F) and target genes (P,) of perturbations."""
    target = screen.targets(names)
    features = np.where(target[:, None] >= 0, screen.features[target], np.nan)
    return {
        "features": torch.from_numpy(features.astype(np.float32)),
        "target": torch.from_numpy(target),
    }


def answer(model: nn.Module, screen: Screen, names: Sequence[str]) -> NDArray[np.float32]:
    """Return the effects (P, N) that a model in eval mode predicts."""
    device = next(model.parameters()).device
    given = {key: value.to(device) for key, value in inputs(screen, names).items()}
    with torch.no_grad():
        effect: NDArray[np.float32] = model(**given).float().cpu().numpy()
    return effect


@dataclass(frozen=True)
class BilinearModel:
    """The trained kind of model, by name."""

    summary: str = "low-rank bilinear map and a small network from the target's features"

    def fit(self, run: Run, screen: Screen) -> bool:
        """Train into the run directory, or go on where its last checkpoint ended."""
        from vcell_train_vcc.work import config_of

        config = config_of(run)
        return Trainer(EffectTask(screen, config), config, run).fit().ended in (
            "done",
            "early-stop",
        )

    def load(self, run: Run, screen: Screen) -> BilinearPredictor:
        """Load the best checkpoint."""
        from vcell_train_vcc.work import config_of

        model = build(screen, config_of(run))
        load_weights(model, run.checkpoint("best").path)
        return BilinearPredictor(model.eval(), screen)


class BilinearPredictor:
    """Answers with the model; NaN where the target has no features."""

    def __init__(self, model: nn.Module, screen: Screen) -> None:
        self.model, self.screen = model, screen

    def predict(self, perturbations: Sequence[str]) -> NDArray[np.float32]:
        """Return the effects of perturbations."""
        return answer(self.model, self.screen, perturbations)


bilinear: Any = BilinearModel()
