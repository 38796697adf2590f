"""The training task: batches of compressed cells, the objective, and validation scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vcell.gmvae import scores
from vcell.gmvae.cells import DeviceCells, ResidentCells, in_pieces
from vcell.gmvae.head import withheld
from vcell.gmvae.network import Gmvae, Weights
from vcell.train.stream import ReadAhead, ShuffledBatches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vcell.gmvae.network import GmvaeShape
    from vcell.nn.compressed import CompressedRows
    from vcell.train.task import Batches, Place
    from vcell_train_gmvae import TrainGmvae
    from vcell_train_gmvae.study import Study

_JUDGED = 4096  # cells in a validation
_BEGIN = 0.3  # share of the steps over which cells are held to the component that they begin in


class CellStream(ShuffledBatches):
    """Shuffled cells, with the noise of the reparametrisation and the dropout masks.

    Both depend on the seed, the step, and the cell's position in the global batch, so they do not
    depend on the number of processes or on how a batch is split.
    """

    shape: GmvaeShape

    def __next__(self) -> CompressedRows:
        """Return this process's share of the next batch."""
        step, size = self.seen // self.batch_size, self.batch_size
        first, last = (
            size * r // self.place.world_size for r in (self.place.rank, self.place.rank + 1)
        )
        batch: CompressedRows = super().__next__()
        noise = np.random.default_rng((self.seed, 0x9015E, step)).standard_normal(
            (size, self.shape.latent), np.float32
        )
        self._add(batch, "noise", noise[first:last])
        if self.shape.dropout:
            drawn = np.random.default_rng((self.seed, 0xD209, step)).random(
                (size, sum(self.shape.encoder)), np.float32
            )
            self._add(batch, "kept", drawn[first:last] >= self.shape.dropout)
        return batch

    @staticmethod
    def _add(batch: CompressedRows, name: str, values: NDArray[Any]) -> None:
        batch.more[name] = torch.from_numpy(values).to(batch.library.device)


class GmvaeTask:
    """Trains a `Gmvae`; the best model has the lowest held-out objective without labels."""

    monitor = "nelbo"
    higher_is_better = False

    def __init__(self, config: TrainGmvae, study: Study, cells: ResidentCells) -> None:
        self.config, self.study, self.cells = config, study, cells
        self.train = np.flatnonzero(~study.held_out)
        self.told = np.where(withheld(study.shown, config.seed), -1, study.shown)
        held_out = np.flatnonzero(study.held_out)
        rng = np.random.default_rng((config.seed, 0x0DD))
        self.judged = np.sort(rng.permutation(held_out)[:_JUDGED])
        self.identity: Mapping[str, Any] = {
            "shape": study.shape.plain(), "cells": len(study.held_out), "train": len(self.train),
            "shown": int((study.shown >= 0).sum()),
        }  # fmt: skip

    def build(self) -> Gmvae:
        """Build the network, initialised at the mean profile of the training cells."""
        config, shown = self.config, self.told[self.train] >= 0
        weights = Weights(
            kl=config.kl_weight, warmup=round(config.kl_warmup * config.max_steps),
            free_bits=config.free_bits, labels=config.label_weight, shown=max(shown.mean(), 1e-9),
            begin=round(_BEGIN * config.max_steps),
        )  # fmt: skip
        network = Gmvae(self.study.shape, weights)
        network.counts.start_at(torch.from_numpy(self.cells.shares(self.train)).float())
        begin = self.study.begin[self.train]
        if (begin >= 0).any():
            network.mixture.share_out(np.bincount(begin, minlength=self.study.shape.components))
        return network

    def fetch(self, numbers: NDArray[np.int64], source: ResidentCells | DeviceCells) -> Any:
        """Return training cells by number."""
        rows = self.train[numbers]
        return source.fetch(rows, **self.known(rows))

    def known(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the inputs of cells other than their counts."""
        inputs = {"batch": torch.from_numpy(self.study.batch[rows])}
        if self.study.shape.labelled:
            inputs["label"] = torch.from_numpy(self.told[rows])
        elif (self.study.begin[rows] >= 0).any():
            inputs["begin"] = torch.from_numpy(self.study.begin[rows])
        return inputs

    def batches(self, place: Place) -> Batches:
        """Open the stream of training cells; on a GPU they stay in its memory."""
        on_device = place.device.type == "cuda"
        source = DeviceCells(self.cells, place.device) if on_device else self.cells
        stream = CellStream(
            len(self.train), lambda numbers: self.fetch(numbers, source), place=place,
            batch_size=self.config.batch_size, seed=self.config.seed,
        )  # fmt: skip
        stream.shape = self.study.shape
        return stream if on_device else ReadAhead(stream)

    def loss(
        self, model: nn.Module, batch: CompressedRows
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Return the objective and its terms."""
        found = model(batch)
        return found["total"], {k: v.detach() for k, v in found.items() if k != "total"}

    def stepped(self, model: nn.Module, metrics: Mapping[str, float]) -> None:
        """Count the step, for the warm-up."""
        del metrics
        getattr(model, "taken").add_(1)  # noqa: B009 - a buffer, whatever wraps the model

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Score held-out cells; labels do not affect the choice of the best model."""
        assert isinstance(model, Gmvae)
        joint, loss = self._judge(model)
        marginal = torch.logsumexp(joint, 1)
        found = {"nelbo": float(loss.mean() - marginal.mean()), "kl": float(-marginal.mean())}
        label = self.study.label[self.judged]
        known = label >= 0
        if known.any():
            given = joint.argmax(1).numpy()[known]
            found["ari"] = scores.adjusted_rand(label[known], given)
            if self.study.shape.labelled:
                table = scores.confusion(label[known], given, len(self.study.labels))
                found["accuracy"] = float(np.trace(table) / table.sum())
                found["macro_f1"] = scores.macro_f1(table)
        return found

    @torch.no_grad()
    def _judge(self, model: Gmvae) -> tuple[Tensor, Tensor]:
        device = next(model.parameters()).device
        joint, loss = [], []
        for rows in in_pieces(self.judged):
            batch = self.cells.fetch(rows, batch=torch.from_numpy(self.study.batch[rows])).to(
                device
            )
            mean, log_variance = model.encode(batch)
            joint.append(model.mixture(mean, log_variance).cpu())
            loss.append(model.decode(mean, batch)[1].cpu())
        return torch.cat(joint), torch.cat(loss)
