"""The models `transformer` and `shared-encoder`: trained into a run, loaded from it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vcell import console, models
from vcell.errors import UserError
from vcell.models import Explanation, LeavesOneOut, Predictor, Uncertain
from vcell.models.validation import truth_of
from vcell.nn import attention as attentions
from vcell.nn.graph_heads import following
from vcell.screen.graphs import graphs_of
from vcell.screen.sets import Groups, store_of
from vcell.screen.split import TRAIN, VALIDATION
from vcell.train.command import settings_of_run
from vcell.train.loop import Trainer
from vcell.train.precision import resolve
from vcell.train.state import load_weights
from vcell.train.threads import few_threads
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.network.shape import FILE, NEAR, NetworkShape, device_of, graph_of
from vcell_train_vcc.network.task import CellTask, Tables, added, build

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from vcell.launch import Plan
    from vcell.models import Screen
    from vcell.nn.attention import AttentionChoice
    from vcell.runs import Run

PRIOR = "gp"
_MAP_GENES = 1024  # most tokens for which attention maps are returned


@dataclass(frozen=True)
class NetworkModel:
    """A network, by name."""

    name: str
    summary: str

    def prepared(self, screen: Screen, config: TrainVcc, plan: Plan) -> dict[str, str]:
        """Choose the settings left open, and refuse those that are impossible."""
        shape = NetworkShape.decide(self.name, screen, config, torch.device(plan.device))
        choice = attention_of(config, shape, torch.device(plan.device))
        console.say(str(choice))
        graphs, n_heads = graphs_of(screen, shape.tokens), shape.sizes.n_heads
        following(graphs, config.graph_loss, n_heads, choice.name, console.warn)
        if choice.name == "sparse":
            graph = graph_of(config.graph, shape.tokens, screen)
            of = "--graph" if config.graph else f"those {NEAR} that respond most like a gene"
            console.say(f"sparse attention: {graph.n_edges:,} pairs of genes, of {of}")
        if config.batch_size < plan.world:
            raise UserError(
                f"batch-size {config.batch_size} is smaller than the {plan.world} processes",
                hint=f"set batch-size to {plan.world} or more",
            )
        return {FILE: shape.text}

    def fit(self, run: Run, screen: Screen) -> bool:
        """Train into the run directory, or resume from the last checkpoint."""
        config, shape = settings_of_run(TrainVcc, run), NetworkShape.of(run)
        tables = Tables(screen, shape.tokens, expected(run, screen))
        choice = attention_of(config, shape, device_of(run, config))
        with store_of(run, screen, config) as store:
            if os.environ.get("RANK", "0") == "0":
                run.update(store={"path": str(store.path), "key": store.manifest["key"]})
            groups = Groups.of(
                store, screen, run.meta["labels"], TRAIN, config.max_cells, config.seed
            )
            held = Groups.of(store, screen, run.meta["labels"], VALIDATION)
            truth = truth_of(store, screen, held, config.seed)
            task = CellTask(tables, shape, config, store, groups, choice, truth)
            with few_threads(shape.sizes.d_model, device_of(run, config)):
                return Trainer(task, config, run).fit().ended in ("done", "early-stop")

    def load(self, run: Run, screen: Screen) -> NetworkPredictor:
        """Load the best checkpoint, on top of the prior fitted to `screen`."""
        config = settings_of_run(TrainVcc, run)
        shape = NetworkShape.of(run)
        prior = models.get(PRIOR).load(run, screen)
        trained = models.Screen.load(run.path / models.SCREEN)  # the classes of the network
        if strange := set(shape.tokens) - set(trained.genes.tolist()):
            raise UserError(
                f"{run.path / FILE} names {len(strange)} genes that {models.SCREEN} has not, "
                f"such as {min(strange)}",
                hint="they are of different runs; train again",
            )
        no_prior = np.zeros_like(trained.delta)  # the predictor has its own
        tables = Tables(trained, shape.tokens, no_prior)
        checkpoint = run.checkpoint("best")
        try:
            checkpoint.verify()
        except UserError as error:
            again = f"vcell train-vcc --resume {run.name} continues from a complete one, if any"
            raise UserError(error.message, hint=again) from None
        name = config.attention if config.attention in ("sparse", "linear", "local") else "sdpa"
        model = build(tables, shape, config, name)
        load_weights(model, checkpoint.path)
        n_tokens = shape.n_tokens(max(checkpoint.step - 1, 0))
        metrics = checkpoint.state.get("metrics", {})  # older runs have no blend: it is 1
        blend = float(metrics.get("blend", 1.0))
        return NetworkPredictor(model.eval(), tables, prior, n_tokens, shape.sizes.d_model, blend)


def expected(run: Run, screen: Screen) -> NDArray[np.float32]:
    """Return the prior of every row (P, N), the leave-one-out prediction for training rows."""
    prior = models.get(PRIOR).load(run, screen)
    assert isinstance(prior, LeavesOneOut)
    names = [str(name) for name in screen.perturbations]
    contexts = [str(screen.contexts[c]) for c in screen.context]
    found = np.asarray(prior.predict(names, contexts), np.float32)
    found[screen.rows(TRAIN)] = prior.loo()
    return found


def attention_of(config: TrainVcc, shape: NetworkShape, device: torch.device) -> AttentionChoice:
    """Choose the implementation of attention."""
    return attentions.choose(
        config.attention,
        device,
        resolve(config.precision, device).dtype,
        n_tokens=len(shape.tokens) + 2,
        head_dim=shape.sizes.head_dim,
    )


class NetworkPredictor:
    """Predicts the prior plus the residual of the network; NaN where the prior has no prediction.

    The residual is multiplied by `blend`, 0 to 1.
    """

    def __init__(
        self,
        model: nn.Module,
        tables: Tables,
        prior: Predictor,
        n_tokens: int,
        width: int,
        blend: float = 1.0,
    ) -> None:
        self.model, self.tables, self.prior, self.n_tokens = model, tables, prior, n_tokens
        self.width, self.blend = width, blend

    def _added(self, example: dict[str, Tensor]) -> NDArray[np.float32]:
        """Return the residual of the network, times `blend`."""
        return self.blend * added(self.model, self.tables, example, self.n_tokens)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """Turn gradients off, and use as many threads as help."""
        with torch.no_grad(), few_threads(self.width, torch.device("cpu")):
            yield

    def predict(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return effects (P, N)."""
        effect, example = self._inputs(perturbations, contexts)
        with self._inference():
            effect[:, self._columns] += self._added(example)
        return effect

    def samples(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None, *, k: int = 8
    ) -> NDArray[np.float32]:
        """Return effects (k, P, N) drawn with dropout, a measure of the network's uncertainty."""
        effect, example = self._inputs(perturbations, contexts)
        drawn = np.repeat(effect[None], k, axis=0)
        generator = torch.random.get_rng_state()
        self.model.train()
        try:
            torch.manual_seed(0)
            with self._inference():
                for one in drawn:
                    one[:, self._columns] += self._added(example)
        finally:
            self.model.eval()
            torch.random.set_rng_state(generator)
        return drawn

    def std(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the standard deviation (P, N) of prior and dropout, added as variances."""
        spread = np.square(self.samples(perturbations, contexts).std(axis=0))
        if isinstance(self.prior, Uncertain):
            prior = self.prior.std(perturbations, contexts)
            spread = spread if prior is None else spread + np.square(prior)
        return np.asarray(np.sqrt(spread), np.float32)

    def heads(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Return the disagreement of the two heads (P,): root mean square over the genes.

        The effect of the class head is the mean training effect, weighted by its probabilities.
        """
        _, example = self._inputs(perturbations, contexts)
        with self._inference():
            chance = added(
                self.model,
                self.tables,
                example,
                self.n_tokens,
                lambda out: out["logits"].softmax(-1),
            )
        learned = self.tables.screen.delta[self.tables.learned]
        difference = self.predict(perturbations, contexts) - chance @ learned
        found: NDArray[np.float32] = np.sqrt(np.square(difference).mean(axis=1))
        return found

    def explain(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None = None
    ) -> Explanation:
        """Return the attention to each gene, averaged over perturbations."""
        _, example = self._inputs(perturbations, contexts)
        core: Any = self.model.core
        n, genes = self.n_tokens, np.array(self.tables.names[: self.n_tokens])
        scores, maps = np.zeros(n), np.zeros((n, n), np.float32) if n <= _MAP_GENES else None
        with self._inference():
            for i in range(len(perturbations)):
                one = {key: value[i : i + 1] for key, value in example.items()}
                seen, x = core.gene_attention(one | {"control": self._control(one)})
                scores += seen.numpy() / len(perturbations)
                if maps is not None:
                    layers = core.encoder.attention_maps(x)
                    mean = torch.stack([layer[0] for layer in layers]).mean(0)[-n:, -n:]
                    maps += mean.numpy() / len(perturbations)
        return Explanation(genes, scores, maps)

    def _control(self, example: dict[str, Tensor]) -> Tensor:
        control = torch.from_numpy(self.tables.screen.control[:, self._columns])
        return control[example["context"]][:, None]

    @property
    def _columns(self) -> NDArray[np.int64]:
        columns: NDArray[np.int64] = self.tables.column[: self.n_tokens]
        return columns

    def _inputs(
        self, perturbations: Sequence[str], contexts: Sequence[str] | None
    ) -> tuple[NDArray[np.float32], dict[str, Tensor]]:
        """Return the effects (P, N) that the prior expects, and the batch for the network."""
        expected = np.array(self.prior.predict(perturbations, contexts), np.float32)
        place = {str(name): i for i, name in enumerate(self.tables.screen.contexts)}
        names = contexts or [str(self.tables.screen.contexts[0])] * len(perturbations)
        features, target = self.tables.of(perturbations)
        return expected, {
            "prior": torch.from_numpy(expected[:, self._columns]),
            "features": torch.from_numpy(features),
            "target": torch.from_numpy(target),
            "context": torch.tensor([place[str(name)] for name in names]),
        }


transformer = NetworkModel(
    "transformer", "transformer over genes, trained on what the Gaussian process leaves over"
)
shared_encoder = NetworkModel(
    "shared-encoder", "control state encoded once, a light head for each perturbation"
)
