"""A trained run of train-gmvae: it encodes and labels cells, with probabilities.

`Trained.load` opens a run, `encode` takes a batch of `vcell.gmvae.cells.compressed`, and `predict`
what `encode` returns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell.errors import UserError
from vcell.gmvae.components import COMPONENTS, Components
from vcell.gmvae.head import Head
from vcell.gmvae.label_head import LabelHead
from vcell.gmvae.network import Gmvae, GmvaeShape
from vcell.gmvae.outliers import Outliers
from vcell.train.state import load_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vcell.nn.compressed import CompressedRows
    from vcell.runs import Run

    Array = NDArray[Any]

STUDY, HEAD = "gmvae.json", "head.npz"
PARTS = ("components", "scaled")  # names in the file of the heads on components


@dataclass(frozen=True)
class CellPredictions:
    """Predictions for some cells: codes of labels (-1 without a head), probabilities, scores."""

    label: Array
    probability: Array
    component: Array
    score: Array


class Trained:
    """A trained network with its head.

    Attributes
    ----------
    genes, labels, batches
        Names, in the order of columns and codes.
    target
        Library size that values are scaled to before the logarithm.
    """

    def __init__(
        self,
        network: Gmvae,
        study: Mapping[str, Any],
        head: LabelHead | None,
        outliers: Outliers | None,
        components: Components | None = None,
    ) -> None:
        self.network = network.eval()
        self.genes, self.labels = list(study["genes"]), list(study["labels"])
        self.batches, self.target = list(study["batches"]), float(study["target"])
        self.head, self.outliers, self.components = head, outliers, components

    @classmethod
    def load(cls, run: Run, device: str | torch.device = "cpu") -> Trained:
        """Load the best network of a run, and its head if the run is finished."""
        run.refuse_unless_of("train-gmvae")
        try:
            study = json.loads((run.path / STUDY).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{run.path / STUDY} cannot be read: {error}") from None
        network = Gmvae(GmvaeShape.of(study["shape"]))
        load_weights(network, run.checkpoint("best").path)
        head, outliers = read_head(run.path / HEAD)
        components = None
        if head is not None and head.components:
            components = Components.load(run.path / COMPONENTS)
        return cls(network.to(device), study, head, outliers, components)

    @torch.no_grad()
    def encode(self, batch: CompressedRows) -> tuple[Array, Array]:
        """Return the latent means (B, D) and ``log pi_k - KL_k`` (B, K)."""
        device = next(self.network.parameters()).device
        mean, log_variance = self.network.encode(batch.to(device))
        return mean.cpu().numpy(), self.network.mixture(mean, log_variance).cpu().numpy()

    def predict(self, mean: Array, joint: Array, parts: Sequence[Array] = ()) -> CellPredictions:
        """Label cells by their latent means, and by parts of their components if given."""
        if self.outliers is None:
            raise UserError("the run is not finished: it has no head", hint="resume it")
        n = len(mean)
        label, probability = np.full(n, -1), np.full(n, np.nan)
        if self.head is not None:
            log_p = self.head.log_probabilities(mean, parts)
            label = log_p.argmax(1)
            probability = np.exp(log_p[np.arange(n), label])
        return CellPredictions(label, probability, joint.argmax(1), self.outliers.scores(mean))


def write_head(path: Path, head: LabelHead | None, outliers: Outliers) -> None:
    """Save the head, if there is one, and the outlier model."""
    arrays = {f"outliers_{k}": v for k, v in vars(outliers).items()}
    if head is not None:
        arrays |= {f"head_{k}": v for k, v in head.latent.arrays().items()}
        for name, part in zip(PARTS, head.components, strict=False):
            arrays |= {f"{name}_{k}": v for k, v in part.arrays().items()}
        arrays["both_temperature"] = np.float64(head.temperature)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read_head(path: Path) -> tuple[LabelHead | None, Outliers | None]:
    """Read head and outlier model; None if missing."""
    if not path.is_file():
        return None, None
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    parts: dict[str, dict[str, Array]] = {}
    for name, value in arrays.items():
        part, key = name.split("_", 1)
        parts.setdefault(part, {})[key] = value
    head = None
    if "head" in parts:  # older runs have no head on scaled components, or on none
        others = tuple(Head.of(parts[name]) for name in PARTS if name in parts)
        both = float(parts["both"]["temperature"]) if others else 1.0
        head = LabelHead(Head.of(parts["head"]), others, both)
    return head, Outliers(**parts["outliers"])
