"""A few training steps of the network on synthetic cells, to measure the cost of a step.

The network has its true width, tokens, losses and attention, and one and two of its layers. Every
further layer costs as much as the second.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcell.models import Screen
from vcell.nn.estimate import encoder_parameters, kept_bytes
from vcell.nn.patterns import Pattern
from vcell.screen.split import TRAIN
from vcell.train import rng
from vcell.train.rehearse import Rehearsal, fastest
from vcell_train_vcc.network.shape import NetworkShape
from vcell_train_vcc.network.task import Tables, build

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcell.nn.attention import AttentionChoice
    from vcell.nn.presets import Preset
    from vcell_train_vcc import TrainVcc

_FEATURES = 64  # per gene, roughly; they cost little
PERTURBATIONS = 100  # in training, roughly


@dataclasses.dataclass(frozen=True)
class _Shallow(NetworkShape):
    """A shape with fewer layers."""

    layers: int = 1

    @property
    def sizes(self) -> Preset:
        return dataclasses.replace(super().sizes, n_layers=self.layers)


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """The measured cost.

    Attributes
    ----------
    seconds
        Time of a step over one device's share of the batch.
    parameters
        Parameters outside the encoder.
    activations
        Bytes saved for the backward pass outside the encoder, per set.
    pattern
        The attention pattern, where it is not dense.
    """

    seconds: float
    parameters: int
    activations: float
    pattern: Pattern | None


class SyntheticTask:
    """The training task on synthetic sets, for a network with fewer layers."""

    def __init__(self, shape: NetworkShape, config: TrainVcc, choice: AttentionChoice) -> None:
        self.shape, self.config, self.choice = shape, config, choice
        screen = _screen(shape.tokens)
        self.tables = Tables(screen, shape.tokens, np.zeros_like(screen.delta))

    def build(self) -> nn.Module:
        """Build the network."""
        return build(self.tables, self.shape, self.config, self.choice)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Return the losses, as `CellTask` does."""
        found = model(batch)
        return found["total"], {k: v.detach() for k, v in found.items() if k != "total"}

    def batch(self, n_sets: int) -> dict[str, Tensor]:
        """Make synthetic sets of cells."""
        n_tokens, size = len(self.shape.tokens), 2 * self.config.set_size
        row = np.arange(n_sets) % PERTURBATIONS
        made = {
            "control": torch.rand(n_sets, self.config.pseudo, n_tokens),
            "expressed": torch.rand(n_sets, n_tokens),
        }
        if self.config.set_loss != "none":
            made["cells"] = torch.rand(n_sets, size, n_tokens)
        return made | self.tables.example(row, n_tokens)


def rehearse(
    shape: NetworkShape,
    config: TrainVcc,
    choice: AttentionChoice,
    device: torch.device,
    n_sets: int,
) -> Rehearsed:
    """Measure the steps; `n_sets` is one device's share of a batch."""
    state = rng.capture(device)
    try:
        layers = shape.sizes.n_layers
        depths = [1, 2] if layers > 1 else [1]
        stages = [_Stage(shape, config, choice, device, depth) for depth in depths]
        sets = stages[-1].fitting(n_sets, 1 if shape.kind == "transformer" else n_sets)
        seconds = fastest(stages, sets, n_sets)
        parameters, activations, pattern = stages[0].outside_encoder()
    finally:
        rng.restore(state, device)
    more = (layers - len(depths)) * max(seconds[-1] - seconds[0], 0)
    return Rehearsed(seconds[-1] + more, parameters, activations, pattern)


def without_time(shape: NetworkShape, config: TrainVcc, choice: AttentionChoice) -> Rehearsed:
    """Return everything but the time, for a device that is not present."""
    here = torch.device("cpu")
    state = rng.capture(here)
    try:
        if choice.name == "flash":  # sdpa has the same values and saves the same tensors
            choice = dataclasses.replace(choice, name="sdpa")
        return Rehearsed(0.0, *_Stage(shape, config, choice, here, 1).outside_encoder())
    finally:
        rng.restore(state, here)


class _Stage(Rehearsal):
    """The network with some of its layers, and its optimiser."""

    def __init__(
        self,
        shape: NetworkShape,
        config: TrainVcc,
        choice: AttentionChoice,
        device: torch.device,
        layers: int,
    ) -> None:
        values = {one.name: getattr(shape, one.name) for one in dataclasses.fields(NetworkShape)}
        self.shape, self.config = _Shallow(**values, layers=layers), config
        super().__init__(SyntheticTask(self.shape, config, choice), config, device)

    def outside_encoder(self) -> tuple[int, float, Pattern | None]:
        """Return parameters and saved bytes per set outside the encoder, and its pattern."""
        core: Any = self.model.get_submodule("core")
        sizes, n_sets = self.shape.sizes, 2
        n_tokens = len(self.shape.tokens) + 2
        sequences = n_sets * self.config.pseudo
        if self.shape.kind != "transformer":
            sequences = 1
        held = self.activation_bytes(n_sets)
        per_token = kept_bytes(sizes, core.encoder.name, self.device, self.precision.dtype)
        own = sequences * n_tokens * (per_token + 8 * sizes.d_model)
        parameters = sum(p.numel() for p in self.model.parameters()) - encoder_parameters(sizes)
        pattern = core.encoder.pattern(n_tokens, self.device)
        return parameters, max(held - own, 0) / n_sets, pattern


def _screen(tokens: tuple[str, ...]) -> Screen:
    """Make a synthetic screen with these genes."""
    made, n = np.random.default_rng(0), len(tokens)
    targets = [tokens[i % n] for i in range(PERTURBATIONS)]
    return Screen(
        genes=np.array(tokens, np.str_),
        contexts=np.array(["all"]),
        control=made.random((1, n), np.float32),
        perturbations=np.array(targets, np.str_),
        context=np.zeros(PERTURBATIONS, np.int64),
        part=np.full(PERTURBATIONS, TRAIN, np.int8),
        cells=np.full(PERTURBATIONS, 100),
        delta=made.normal(size=(PERTURBATIONS, n)).astype(np.float32),
        noise=np.full(PERTURBATIONS, 0.01, np.float32),
        feature_genes=np.array(tokens, np.str_),
        features=made.normal(size=(n, _FEATURES)).astype(np.float32),
        target_sum=1e4,
    )
