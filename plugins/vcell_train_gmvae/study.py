"""Choices before training: labels, batches, held-out cells, and which labels are shown.

Impossible settings are refused here, before a run is created.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data.detect import refuse_confounded
from vcell.data.labels import known_names, warn_of_alike
from vcell.errors import UserError
from vcell.gmvae.copies import originals
from vcell.gmvae.head import folds_of
from vcell.gmvae.network import GmvaeShape
from vcell.gmvae.trained import STUDY
from vcell.suggest import few

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.column import Column
    from vcell.gmvae.cells import ResidentCells
    from vcell.runs import Run
    from vcell.store import Store
    from vcell_train_gmvae import TrainGmvae

CELLS = "cells.npz"
_DROPOUT = 0.3  # if labels are shown; a few labels are otherwise memorised within 250 steps
_AUTO_EPOCHS, _AUTO_STEPS, _SOME_COMPONENTS = 10, 2000, 16
_PRESETS: dict[str, dict[str, Any]] = {
    "default": {"latent": 32, "alone": 10, "encoder": (256, 128), "decoder": (128,)},
    "original": {"latent": 64, "alone": 64, "encoder": (512, 256), "decoder": (256, 512)},
}


@dataclass(frozen=True)
class Study:
    """The data of a run; cells are in the order of the store.

    Attributes
    ----------
    shape
        Shape of the network.
    genes, labels, batches
        Names of the genes, labels and batches.
    target
        Library size that values are scaled to before the logarithm.
    label
        (cells,) label of each cell, -1 for none.
    shown
        (cells,) the labels shown to training, -1 for hidden ones.
    batch
        (cells,) batch of each cell.
    held_out
        (cells,) whether it is held out for scoring.
    suspect
        (cells,) whether its label looked wrong and is therefore hidden.
    begin
        (cells,) the component that each training cell begins in without labels, else -1.
    doubted
        Estimated share of wrong labels.
    """

    shape: GmvaeShape
    genes: tuple[str, ...]
    labels: tuple[str, ...]
    batches: tuple[str, ...]
    target: float
    label: NDArray[np.int64]
    shown: NDArray[np.int64]
    batch: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    suspect: NDArray[np.bool_]
    begin: NDArray[np.int64]
    doubted: float = 0.0

    def plain(self) -> str:
        """Return its JSON part."""
        saved = {
            "shape": self.shape.plain(), "genes": self.genes, "labels": self.labels,
            "batches": self.batches, "target": self.target, "doubted": self.doubted,
        }  # fmt: skip
        return json.dumps(saved)

    def save_cells(self, path: Path) -> None:
        """Write the arrays over cells."""
        with path.open("wb") as file:
            np.savez_compressed(
                file, label=self.label, shown=self.shown, batch=self.batch,
                held_out=self.held_out, suspect=self.suspect, begin=self.begin,
            )  # fmt: skip

    @classmethod
    def load(cls, run: Run) -> Study:
        """Read the study of a run."""
        try:
            saved = json.loads((run.path / STUDY).read_text())
            with np.load(run.path / CELLS, allow_pickle=False) as cells:
                arrays = dict(cells)
        except (OSError, ValueError) as error:
            raise UserError(f"{run.name} cannot be read: {error}") from None
        shape = GmvaeShape.of(saved.pop("shape"))
        n = len(arrays["label"])  # older runs have neither suspects nor beginnings
        suspect, begin = arrays.get("suspect", np.zeros(n, bool)), arrays.get("begin")
        return cls(
            shape, tuple(saved["genes"]), tuple(saved["labels"]), tuple(saved["batches"]),
            saved["target"], arrays["label"], arrays["shown"], arrays["batch"], arrays["held_out"],
            suspect, np.full(n, -1) if begin is None else begin, saved.get("doubted", 0.0),
        )  # fmt: skip


def refuse(source: CellSource, config: TrainGmvae) -> None:
    """Refuse unsuitable columns before the cells are processed."""
    if config.labels is None and config.label_fraction < 1:
        raise UserError("--label-fraction needs labels", hint="name their column: --labels COLUMN")
    if config.labels is None:
        return
    column = source.obs(config.labels)
    counts = _counts(column, config)
    some = {name: n for name, n in counts.items() if n}
    if len(some) < 2:
        only = f"one label, {next(iter(some))!r}" if some else "no labels"
        raise UserError(
            f"{source.name}: column {config.labels!r} has {only}; two or more are needed",
            hint="name another column, or leave out --labels to learn without any",
        )
    lone = [name for name, n in some.items() if n == 1]
    if lone:
        raise UserError(
            f"{source.name}: label {lone[0]!r}{_more(lone)} of {config.labels!r} has one cell; "
            "one cannot both be learned from and be held out",
            hint="--min-cells 2 treats such cells as unlabelled",
        )
    warn_of_alike(f"{source.name}: column {config.labels!r}", some)
    if config.batch_column:
        refuse_confounded(source, config.labels, config.batch_column)


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _counts(column: Column, config: TrainGmvae) -> dict[str, int]:
    """Return the number of cells of each valid label."""
    names = column.categories.tolist()
    is_one = known_names(names, config.unlabelled).tolist()
    named = zip(names, column.counts().tolist(), is_one, strict=True)
    known = {str(name): n for name, n, label in named if label}
    few = [name for name, n in known.items() if 0 < n < config.min_cells]
    if few:
        these = console.count(len(few), "label")
        console.say(f"{these} with fewer than {config.min_cells} cells: unlabelled")
    return {name: n for name, n in known.items() if n >= config.min_cells}


def made(store: Store, cells: ResidentCells, config: TrainGmvae) -> Study:
    """Choose labels, held-out cells and the shape of the network."""
    n = store.n_cells
    label, labels = _labels(store, config)
    original = originals(cells, label)
    copied = original != np.arange(n)
    label = np.where(copied, -1, label)
    batch = np.full(n, -1, np.int64)
    batches: tuple[str, ...] = ()
    if config.batch_column:
        codes, names = store.codes(config.batch_column)
        batch, batches = codes.astype(np.int64), tuple(map(str, names))
    share = config.held_out_share
    folds = max(round(1 / share), 2) if share <= 0.5 else 10
    fold = folds_of(label, config.seed, folds)
    held_out = (fold < (1 if share <= 0.5 else round(10 * share)))[original]
    if copied.any():
        console.warn(
            f"{copied.sum():,} of {n:,} cells have the same counts as another: their labels count "
            "once, and all copies of a cell are held out or learned from together"
        )
    shown = _shown(label, held_out, config)
    preset = _PRESETS[config.preset]
    components = config.components or len(labels) or _SOME_COMPONENTS
    labelled = bool((shown >= 0).any())
    _tell_unscored(label, shown, held_out, labels)
    if labelled and components != len(labels):
        raise UserError(
            f"--components {components}: with labels each component is a label, {len(labels)}",
            hint="leave out --components, or use --label-fraction 0",
        )
    shape = GmvaeShape(
        genes=store.n_genes, components=components, batches=len(batches), labelled=labelled,
        latent=config.latent or preset["latent" if labelled else "alone"],
        encoder=config.encoder or preset["encoder"],
        decoder=config.decoder or preset["decoder"], likelihood=config.likelihood,
        dropout=_dropout(config, labelled=labelled),
    )  # fmt: skip
    genes = tuple(map(str, store.genes))
    suspect, begin = np.zeros(n, bool), np.full(n, -1, np.int64)
    return Study(
        shape, genes, labels, batches, np.nan, label, shown, batch, held_out, suspect, begin
    )


def _tell_unscored(
    label: NDArray[np.int64],
    shown: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    labels: tuple[str, ...],
) -> None:
    """Name the labels that are not scored, and those that are never learned."""
    for codes, what in (
        (label[held_out], "no cell held out, so it is not scored"),
        (shown, "no cell to learn from, so it is never given"),
    ):
        n = np.bincount(codes[codes >= 0], minlength=len(labels))
        lacking = [name for name, k in zip(labels, n, strict=True) if not k]
        if lacking and len(lacking) < len(labels):
            console.warn(f"label with {what}: {few(lacking)}")


def _dropout(config: TrainGmvae, *, labelled: bool) -> float:
    if config.dropout is not None:
        return config.dropout
    return _DROPOUT if labelled else 0.0


def _labels(store: Store, config: TrainGmvae) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if config.labels is None:
        return np.full(store.n_cells, -1, np.int64), ()
    codes, names = store.codes(config.labels)
    n = np.bincount(codes[codes >= 0], minlength=len(names))
    known = known_names(names, config.unlabelled)
    known &= n >= max(config.min_cells, 1)
    place = np.append(np.where(known, np.cumsum(known) - 1, -1), -1)
    label = place[codes]
    none = int((label < 0).sum())
    if none:
        console.say(
            f"without a label: {none:,} of {len(label):,} cells; these are learned from too"
        )
    return label, tuple(str(name) for name, is_one in zip(names, known, strict=True) if is_one)


def _shown(
    label: NDArray[np.int64], held_out: NDArray[np.bool_], config: TrainGmvae
) -> NDArray[np.int64]:
    """Show the labels of a share of each label's training cells, at least one of each."""
    shown = np.full(len(label), -1, np.int64)
    if config.label_fraction == 0:
        return shown
    rng = np.random.default_rng((config.seed, 0x5C0))
    for k in range(label.max() + 1):
        own = rng.permutation(np.flatnonzero((label == k) & ~held_out))
        shown[own[: max(round(config.label_fraction * len(own)), 1)]] = k
    return shown


def steps(config: TrainGmvae, n_train: int) -> TrainGmvae:
    """Convert epochs to steps."""
    epoch = -(-n_train // config.batch_size)
    total = config.max_steps
    if not total and config.epochs == "auto":
        total = max(_AUTO_EPOCHS * epoch, _AUTO_STEPS)
        console.say(
            f"epochs auto: {total:,} steps, {total / epoch:.3g} epochs of {n_train:,} cells"
        )
    elif not total:
        total = int(config.epochs) * epoch
    every = config.validate_every or min(max(epoch, 50), total)
    return dataclasses.replace(config, max_steps=total, validate_every=every)
