"""The training task of networks on gene sets: they predict the residual of the prior.

The prior never sees the value that it is compared with: training sets are left out together with
their group. The validation sets decide how much of the network's output is added: only as much as
they clearly support, possibly nothing. B sets, S genes at most, T all sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcell import console
from vcell.nn.graph_loss import Regularised, metrics_of, shares, warned
from vcell.screen.split import TRAIN, VALIDATION
from vcell.train.stream import ReadAhead, ShuffledBatches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vcell.train.task import Batches, Place
    from vcell_train_graph import TrainGraph
    from vcell_train_graph.networks import StepModel
    from vcell_train_graph.problem import GraphProblem

_AT_ONCE = 65_536  # sets predicted at once
_SHOWN = 1024  # sets used to measure the graphs' share of the gradient


class SetTask:
    """Trains a network on the residual of a prior."""

    monitor = "explained"
    higher_is_better = True
    validates_first = True

    def __init__(
        self,
        problem: GraphProblem,
        config: TrainGraph,
        model: StepModel,
        prior: NDArray[np.float64],
    ) -> None:
        self.problem, self.config, self.model = problem, config, model
        self.train = np.flatnonzero(problem.part == TRAIN)
        self.judged = np.flatnonzero(problem.part == VALIDATION)
        self.unit = max(float((problem.values - prior)[self.train].std()), 1e-12)
        self.left = ((problem.values - prior) / self.unit).astype(np.float32)
        self.identity: Mapping[str, Any] = {
            "model": model.name, "data": problem.key, "width": config.width,
            "layers": config.layers, "heads": config.heads, "draw": config.draw,
        }  # fmt: skip
        self._warned = False

    def build(self) -> nn.Module:
        """Build the network; each draw has its own initial weights."""
        torch.manual_seed(1000 * self.config.seed + self.config.draw)
        return self.model.build(self.problem, self.config)

    def fetch(self, numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return training sets by number."""
        rows = self.train[numbers]
        return {
            "members": torch.from_numpy(self.problem.members[rows]),
            "left": torch.from_numpy(self.left[rows]),
        }

    def batches(self, place: Place) -> Batches:
        """Open the stream of training sets."""
        stream = ShuffledBatches(
            len(self.train), self.fetch, place=place, batch_size=self.config.batch_size,
            seed=self.config.seed + 7919 * self.config.draw,
        )  # fmt: skip
        return ReadAhead(stream, pin=place.device.type == "cuda")

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the squared error of the residual, and the loss of the graphs."""
        found = model(batch["members"])
        error = (found["added"] - batch["left"]).square().mean()
        if "graphs" not in found:
            return error, {"error": error.detach()}
        graphs = found["graphs"].sum()
        metrics = {"error": error.detach(), "graphs": graphs.detach()}
        names = [name for name in ("divergence", "missed") if name in found]
        return error + graphs, metrics | {name: found[name].mean() for name in names}

    def batch(self, n: int) -> dict[str, Tensor]:
        """Make a synthetic batch, to time steps with."""
        return self.fetch(np.arange(n) % len(self.train))

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return the share of the prior's residual variance that is certainly explained."""
        added = self.added(model, self.judged)
        blend, explained = shrinkage(added, self.left[self.judged])
        found = {"explained": explained, "blend": blend}
        found |= self._shares(model)
        return found

    def added(self, model: nn.Module, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the predicted residuals of some sets, in units of the residual."""
        device = next(model.parameters()).device
        parts = []
        with torch.no_grad():
            for i in range(0, max(len(rows), 1), _AT_ONCE):
                members = torch.from_numpy(self.problem.members[rows[i : i + _AT_ONCE]])
                parts.append(model(members.to(device))["added"].float().cpu().numpy())
        return np.concatenate(parts)

    def _shares(self, model: nn.Module) -> dict[str, float]:
        """Return the graphs' shares of the loss and of its gradient; warn above one half."""
        wild = getattr(model, "wild", None)
        if wild is None or wild.graphs is None:
            return {}
        device = next(model.parameters()).device
        batch = {k: v.to(device) for k, v in self.batch(min(_SHOWN, len(self.train))).items()}
        with torch.enable_grad():
            out = model(batch["members"])
            error = (out["added"] - batch["left"]).square().mean()
            each = out["graphs"]
            found = shares(
                error, Regularised(each.sum(), each, out["divergence"]), wild.graphs.names,
                [p for p in model.parameters() if p.requires_grad],
            )  # fmt: skip
        # The head starts at zero: until its first step the error has no gradient to compare with.
        started = bool((model.get_parameter("out.weight") != 0).any())
        if not self._warned and started and np.abs(self.left).max() > 0 and float(error) > 0:
            self._warned = warned(found, console.warn)
        return metrics_of(found)


def shrinkage(added: NDArray[np.floating], left: NDArray[np.floating]) -> tuple[float, float]:
    """Return the factor by which to multiply predicted residuals, and what they then explain.

    The least-squares factor minus one standard error, between 0 and 1.
    """
    added, left = added.astype(np.float64), left.astype(np.float64)
    size = float(added @ added)
    if size < 1e-12 or len(left) < 3:
        return 0.0, 0.0
    best = float(added @ left) / size
    missed = left - best * added
    error = float(np.sqrt(np.square(added * missed).sum())) / size
    blend = float(np.clip(best - error, 0.0, 1.0))
    total = max(float(left @ left), 1e-12)
    return blend, 1 - float(np.square(left - blend * added).sum()) / total
