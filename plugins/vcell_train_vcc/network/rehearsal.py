"""A few steps of the network to be trained, on synthetic cells, to measure the cost of a step.

The network has its true width, tokens, losses and attention, and one and two of its layers: the
others cost what the second does.
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

_FEATURES = 64  # of a gene, about: the network's share of them is small
PERTURBATIONS = 100  # that are learned from, likewise


@dataclasses.dataclass(frozen=True)
class _Cut(NetworkShape):
    """A shape with fewer layers."""

    layers: int = 1

    @property
    def sizes(self) -> Preset:
        return dataclasses.replace(super().sizes, n_layers=self.layers)


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """What was found.

    Attributes
    ----------
    seconds
        Of a step over one device's share of the batch.
    parameters
        Of the network beside its encoder.
    activations
        Bytes kept for the backward pass beside the encoder's, for one set.
    pattern
        Who attends to whom, where not everybody does to everybody.
    """

    seconds: float
    parameters: int
    activations: float
    pattern: Pattern | None


class MadeUp:
    """The task of a network of some layers on made-up sets."""

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
        """Make up sets of cells."""
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
    """Take the steps; `n_sets` is one device's share of a batch."""
    state = rng.capture(device)
    try:
        layers = shape.sizes.n_layers
        depths = [1, 2] if layers > 1 else [1]
        stages = [_Stage(shape, config, choice, device, depth) for depth in depths]
        sets = stages[-1].fitting(n_sets, 1 if shape.kind == "transformer" else n_sets)
        seconds = fastest(stages, sets, n_sets)
        parameters, activations, pattern = stages[0].beside()
    finally:
        rng.restore(state, device)
    more = (layers - len(depths)) * max(seconds[-1] - seconds[0], 0)
    return Rehearsed(seconds[-1] + more, parameters, activations, pattern)


def besides(shape: NetworkShape, config: TrainVcc, choice: AttentionChoice) -> Rehearsed:
    """Return all but the time, for a device that is not here."""
    here = torch.device("cpu")
    state = rng.capture(here)
    try:
        if choice.name == "flash":  # of the same numbers, and kept alike
            choice = dataclasses.replace(choice, name="sdpa")
        return Rehearsed(0.0, *_Stage(shape, config, choice, here, 1).beside())
    finally:
        rng.restore(state, here)


class _Stage(Rehearsal):
    """The network with some layers, and what trains it."""

    def __init__(
        self,
        shape: NetworkShape,
        config: TrainVcc,
        choice: AttentionChoice,
        device: torch.device,
        layers: int,
    ) -> None:
        values = {one.name: getattr(shape, one.name) for one in dataclasses.fields(NetworkShape)}
        self.shape, self.config = _Cut(**values, layers=layers), config
        super().__init__(MadeUp(self.shape, config, choice), config, device)

    def beside(self) -> tuple[int, float, Pattern | None]:
        """Return parameters, and bytes kept for each set, of all but the encoder; its pattern."""
        core: Any = self.model.get_submodule("core")
        sizes, n_sets = self.shape.sizes, 2
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = half.get(self.precision.name, torch.float32)
        n_tokens = len(self.shape.tokens) + 2
        sequences = n_sets * self.config.pseudo
        if self.shape.kind != "transformer":
            sequences = 1
        held = self.activation_bytes(n_sets)
        own = sequences * n_tokens * (kept_bytes(sizes, core.encoder.name, self.device, dtype)
                                      + 8 * sizes.d_model)  # fmt: skip
        parameters = sum(p.numel() for p in self.model.parameters()) - encoder_parameters(sizes)
        pattern = core.encoder.pattern(n_tokens, self.device)
        return parameters, max(held - own, 0) / n_sets, pattern


def _screen(tokens: tuple[str, ...]) -> Screen:
    """Make up a screen of so many genes."""
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
