"""The training task of the networks: sets of cells, losses, and validation scores.

The network learns the residual of the prior. For training perturbations it uses the prior's
leave-one-out predictions, so that it does not learn to correct the prior's overfitting. The gain
over the prior on the validation perturbations sets the share of the network's residual that is
added. If that gain could be due to chance, the share is 0 and the model equals the prior.
B examples, T gene tokens, N genes, M targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vcell.models.validation import Blend
from vcell.nn.graph_heads import SHARES, following
from vcell.screen.graphs import graphs_of
from vcell.screen.sets import Groups, SetStream
from vcell.screen.split import TRAIN, VALIDATION
from vcell.train.stream import ReadAhead
from vcell_train_vcc.network.losses import KINDS, Units, losses_of, weights_of
from vcell_train_vcc.network.shape import graph_of
from vcell_train_vcc.network.shared_encoder import SharedEncoder
from vcell_train_vcc.network.transformer import Example, NetworkInputs, PerturbationTransformer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from vcell.metrics.quick import Truth
    from vcell.models import Screen
    from vcell.nn.attention import AttentionChoice
    from vcell.store import Store
    from vcell.train.losses import Losses
    from vcell.train.task import Phase, Place
    from vcell_train_vcc import TrainVcc
    from vcell_train_vcc.network.shape import NetworkShape

_AT_ONCE = 16  # perturbations predicted at once


class Network(nn.Module):
    """A network with its losses, as a single module for the training loop."""

    core: PerturbationTransformer | SharedEncoder

    def __init__(self, core: PerturbationTransformer | SharedEncoder, losses: Losses) -> None:
        super().__init__()
        self.core, self.losses = core, losses
        # balanced losses need gradients at the trunk, so torch.compile must stop there
        self._finish = self._predict
        if losses.sizes is not None:
            self._finish = torch.compiler.disable(self._predict)  # type: ignore[no-untyped-call]

    def forward(self, example: Example) -> dict[str, Tensor]:
        """Return predictions, or losses if the example has the true expression."""
        result: dict[str, Tensor] = self._finish(self.core.encoded(example), example)
        return result

    def _predict(self, encoded: dict[str, Tensor], example: Example) -> dict[str, Tensor]:
        out = self.core.heads(encoded, example)
        if "expressed" not in example:
            return out
        with torch.autocast(example["control"].device.type, enabled=False):
            losses: dict[str, Tensor] = self.losses(out, example, encoded["trunk"])
            if self.core.graphs is not None:
                at = encoded["tokens"] if SHARES in example else None
                losses = self.core.graphs.joined(losses, encoded["graphs"], at)
        return losses


class Tables:
    """Data of perturbations, looked up for batches.

    Parameters
    ----------
    screen
        Effects and features.
    tokens
        The genes that are tokens.
    prior
        (P, N) prediction of the prior, leave-one-out for training perturbations.
    """

    def __init__(self, screen: Screen, tokens: Sequence[str], prior: NDArray[np.float32]) -> None:
        self.screen, self.names = screen, list(tokens)
        self.token_of = {gene: i for i, gene in enumerate(tokens)}
        self.column = np.array([screen.gene_number[gene] for gene in tokens])
        names = [str(name) for name in screen.perturbations]
        self.whole_prior = prior
        self.prior = prior[:, self.column]
        self.delta = screen.denoised(np.arange(len(names)))[:, self.column].astype(np.float32)
        self.features, self.target = self.of(names)
        self.learned = screen.rows(TRAIN)
        self.number = np.full(len(names), -1)
        self.number[self.learned] = np.arange(len(self.learned))

    def of(self, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return summed features (P, F) of the targets, and their tokens (P, M), -1 for none."""
        members = self.screen.members(names)
        most = max(max(map(len, members), default=1), 2)
        target = np.full((len(names), most), -1, np.int64)
        for i, genes in enumerate(members):
            target[i, : len(genes)] = [self.token_of.get(gene, -1) for gene in genes]
        return self.screen.pooled(names), target

    def example(self, row: NDArray[np.int64], n_tokens: int) -> dict[str, Tensor]:
        """Return the inputs for rows of the screen."""
        return {
            "prior": torch.from_numpy(self.prior[row, :n_tokens]),
            "delta": torch.from_numpy(self.delta[row, :n_tokens]),
            "features": torch.from_numpy(self.features[row]),
            "target": torch.from_numpy(self.target[row]),
            "context": torch.from_numpy(self.screen.context[row].astype(np.int64)),
            "row": torch.from_numpy(self.number[row]),
        }

    def known(self) -> NetworkInputs:
        """Return the fixed inputs of the network."""
        left = self.delta[self.learned] - self.prior[self.learned]
        unit = np.sqrt(np.square(left).mean(axis=0))
        unit = np.maximum(unit, 0.1 * np.sqrt(np.square(left).mean()) + 1e-8)
        effect = float(np.sqrt(np.square(self.delta[self.learned]).mean())) + 1e-8
        return NetworkInputs(
            unit=torch.from_numpy(unit.astype(np.float32)),
            effect=effect,
            features=torch.from_numpy(self.features[self.learned]),
            target=torch.from_numpy(self.target[self.learned]),
        )


def build(
    tables: Tables, shape: NetworkShape, config: TrainVcc, attention: AttentionChoice | str
) -> Network:
    """Build the untrained network."""
    known, screen = tables.known(), tables.screen
    name = attention if isinstance(attention, str) else attention.name
    graph = graph_of(config.graph, shape.tokens, screen) if name == "sparse" else None
    graphs = graphs_of(screen, shape.tokens)
    heads = following(graphs, config.graph_loss, shape.sizes.n_heads, name)
    core: PerturbationTransformer | SharedEncoder
    if shape.kind == "shared-encoder":
        controls = torch.from_numpy(tables.screen.control[:, tables.column].astype(np.float32))
        core = SharedEncoder(known, controls, shape.sizes, attention, graph, heads)
    else:
        core = PerturbationTransformer(known, shape.sizes, attention, graph, heads)
    weights = weights_of(config)
    freeze_idle_heads(core, weights)
    bank = torch.from_numpy(tables.delta[tables.learned])
    units = Units(known.effect**2, bank, "mmd" if config.set_loss == "mmd" else "energy")
    return Network(core, losses_of(weights, units, balanced=config.loss == "adaptive"))


def freeze_idle_heads(
    core: PerturbationTransformer | SharedEncoder, weights: Mapping[str, float]
) -> None:
    """Freeze a head that no loss uses: ddp would wait for its gradients."""
    used = [KINDS[name] for name, weight in weights.items() if weight > 0]
    if all(kind.of_effect for kind in used):
        core.classes.requires_grad_(requires_grad=False)
    if not any(kind.of_effect for kind in used):
        for part in core.effect_head():
            part.requires_grad_(requires_grad=False)


class CellTask:
    """Train a network on sets of cells."""

    monitor = "gain"
    higher_is_better = True
    validates_first = True
    validation_batch = _AT_ONCE  # the loop halves it if memory runs out

    def __init__(
        self,
        tables: Tables,
        shape: NetworkShape,
        config: TrainVcc,
        store: Store,
        groups: Groups,
        attention: AttentionChoice | str,
        truth: Truth | None = None,
    ) -> None:
        self.tables, self.shape, self.config = tables, shape, config
        self.store, self.groups, self.attention = store, groups, attention
        self.phases: tuple[Phase, ...] = shape.announced()
        self.held = tables.screen.rows(VALIDATION)
        self.prior = tables.whole_prior[self.held]
        if len(self.held):
            self.judge = Blend(tables.screen, self.prior, truth)
            self.references = self.judge.references()
        self._n_tokens = shape.n_tokens(0)  # of the last step
        self._shown: Example | None = None  # the batch of the last step
        self.identity: Mapping[str, Any] = {
            "model": shape.kind,
            "preset": shape.preset,
            "genes": len(tables.screen.genes),
            "tokens": len(shape.tokens),
            "phases": [list(phase) for phase in shape.phases],
            "features": tables.features.shape[1],
            "perturbations": len(tables.learned),
            "losses": [config.loss, config.set_loss],
            "sets": [config.set_size, config.pseudo],
        }

    def build(self) -> nn.Module:
        """Build the network; it starts at the prior."""
        return build(self.tables, self.shape, self.config, self.attention)

    def batches(self, place: Place) -> ReadAhead:
        """Open the stream of sets."""
        stream = SetStream(
            self.store,
            self.groups,
            self.shape.tokens,
            set_size=self.config.set_size,
            pseudo=self.config.pseudo,
            batch_size=self.config.batch_size,
            extra=self.tables.example,
            n_tokens=self.shape.n_tokens,
            seed=self.config.seed,
            place=place,
            cells=self.config.set_loss != "none",
        )
        return ReadAhead(stream, pin=place.device.type == "cuda")

    def loss(self, model: nn.Module, batch: Example) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the weighted sum of the losses, and each loss."""
        self._n_tokens, self._shown = batch["prior"].shape[1], batch
        found = model(batch)
        return found["total"], {k: v.detach() for k, v in found.items() if k != "total"}

    def stepped(self, model: nn.Module, metrics: Mapping[str, float]) -> None:
        """Balance the losses by the metrics of a step."""
        cast("Network", model).losses.stepped(metrics)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Score the validation perturbations, and the gain over the prior."""
        if not len(self.held):
            return {"gain": 0.0}
        n = self._n_tokens
        effect = self.prior.copy()
        example = self.tables.example(self.held, n)
        effect[:, self.tables.column[:n]] += added(
            model, self.tables, example, n, at_once=self.validation_batch
        )
        graphs = cast("Network", model).core.graphs
        shares = graphs.shares(model, self._shown) if graphs and self._shown else {}
        return self.judge.score(effect) | shares


def added(
    model: nn.Module,
    tables: Tables,
    example: Mapping[str, Tensor],
    n_tokens: int,
    pick: Callable[[dict[str, Tensor]], Tensor] = lambda out: out["residual"].mean(1),
    *,
    at_once: int = _AT_ONCE,
) -> NDArray[np.float32]:
    """Return an output of the network, by default the residuals (P, T), in small batches.

    The control state of an example is the mean of its context's controls.
    """
    device = next(model.parameters()).device
    control = torch.from_numpy(tables.screen.control[:, tables.column[:n_tokens]])
    found = []
    for start in range(0, len(example["prior"]), at_once):
        some = {k: v[start : start + at_once] for k, v in example.items()}
        some["control"] = control[some["context"]][:, None]
        out = model({k: v.to(device) for k, v in some.items()})
        found.append(pick(out).float().cpu())
    answer: NDArray[np.float32] = torch.cat(found).numpy()
    return answer
