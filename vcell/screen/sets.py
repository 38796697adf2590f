"""Sets of cells from the store: the batches that the networks train on.

An example is a set: cells of one perturbation in one context, and as many controls of the same
batch; the controls are pooled into pseudo-cells. Cells x genes is never in memory: only the cells
of a step, as CSR, and of them only the token genes. Which sets a step has depends on the seed
alone; processes share each step's sets, and the loader's threads change nothing.
B examples, S cells of each, K pseudo-cells, T gene tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcell import console
from vcell.errors import UserError
from vcell.screen.design import Design
from vcell.store import Loader, Output, Recipe, Sets, Store, ensure_store
from vcell.store.order import Epoch, Order, Partition
from vcell.store.store import MANIFEST
from vcell.store.stream import LoaderStream

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.config import ManyFiles
    from vcell.models import Screen
    from vcell.runs import Run
    from vcell.train.task import Place


def store_of(run: Run, screen: Screen, config: ManyFiles) -> Store:
    """Return the store of the run's cells: the one given, or one made in the cache."""
    path: Path | None = config.cells
    if path is None:
        raise UserError(
            f"{run.name} does not say which cells it learns from", hint="start a new run"
        )
    if (path / MANIFEST).is_file():
        return Store.open(path)
    target = None if np.isnan(screen.target_sum) else float(screen.target_sum)
    return ensure_store([path], Recipe(target_sum=target, layer=config.layer, join=config.join))


@dataclass(frozen=True)
class Groups:
    """Which row of the screen each cell of the store belongs to.

    Attributes
    ----------
    row
        (cells,) row of the screen; `control` for controls, -1 for cells that are not used.
    matched
        (cells,) code of batch and cell type: controls are drawn from the same.
    control
        Code of the controls: the number of rows.
    """

    row: NDArray[np.int64]
    matched: NDArray[np.int64]
    control: int

    @classmethod
    def of(
        cls,
        store: Store,
        screen: Screen,
        labels: dict[str, Any],
        part: int,
        most: int | None = None,
        seed: int = 0,
    ) -> Groups:
        """Find the cells of one part of the screen, at most `most` besides the controls."""
        design = Design.of_store(store, labels, screen.contexts.tolist()).by_targets(quiet=True)
        rows, n = screen.rows(part), len(screen.perturbations)
        place = design.rows(screen.perturbations[rows].tolist(), screen.context[rows].tolist())
        row = np.where(place >= 0, np.append(rows, -1)[place], -1)
        if most is not None and (row >= 0).sum() > most:
            drawn = np.random.default_rng([seed, 0xCE11]).permutation(np.flatnonzero(row >= 0))
            console.say(f"max-cells: {most:,} of {len(drawn):,} perturbed cells are learned from")
            row[drawn[most:]] = -1
        row[design.control] = n
        return cls(row, design.matched, n)


@dataclass(frozen=True, kw_only=True)
class Steps(Order):
    """Steps of `per_step` sets over all processes; what is left of an epoch is skipped."""

    sets: Sets
    per_step: int

    def epoch(self, number: int, place: Partition, n_cells: int) -> Epoch:
        """Plan one epoch."""
        return _StepEpoch(self, number, place, n_cells)

    def describe(self, n_cells: int) -> str:
        """Describe a step for the user."""
        s = self.sets.set_size
        return (
            f"{console.count(self.per_step, 'set')} a step, each "
            f"{console.count(s, 'perturbed cell')} and {console.count(s, 'control')} of the same "
            f"batch, drawn from {n_cells:,} cells"
        )

    def key(self) -> dict[str, Any]:
        """Return what a saved position is valid for."""
        return self.sets.key() | {"per_step": self.per_step}


class _StepEpoch(Epoch):
    def __init__(self, order: Steps, number: int, place: Partition, n_cells: int) -> None:
        inner = order.sets.epoch(number, Partition(), n_cells)
        width = 2 * order.sets.set_size
        sets = np.concatenate([inner.rows(b) for b in range(inner.n_buffers)]).reshape(-1, width)
        while len(sets) < order.per_step:  # fewer sets than a step needs: repeat some
            sets = np.concatenate([sets, sets[: order.per_step - len(sets)]])
        n = len(sets) // order.per_step
        steps = sets[: n * order.per_step].reshape(n, order.per_step, width)
        a, b = place.share(order.per_step)
        self._rows = np.ascontiguousarray(steps[:, a:b]).reshape(-1)
        self.batch_rows = (b - a) * width
        self.buffer_batches = max(order.sets.buffer // self.batch_rows, 1)
        self.n_rows = self._rows.size

    def rows(self, buffer: int) -> NDArray[np.int64]:
        """Return the cells of a buffer."""
        a, b = self._range(buffer)
        return self._rows[a:b]


Extra = Callable[["NDArray[np.int64]", int], dict[str, Tensor]]  # rows, tokens -> tensors for them


class SetStream:
    """An endless stream of steps for `vcell.train`; its position is one number.

    Parameters
    ----------
    store, groups, tokens
        The cells, what they are, and the genes that are tokens, in order.
    set_size, pseudo
        Cells of an example, and pseudo-cells that its controls are pooled into.
    batch_size
        Examples of a step over all processes.
    extra
        Returns tensors that belong to rows of the screen, in addition to their cells.
    n_tokens
        Number of tokens of a step, given the step's number.
    cells
        Also return the cells themselves.
    """

    def __init__(  # noqa: PLR0913 - what a stream is made of, named at its one call
        self,
        store: Store,
        groups: Groups,
        tokens: Sequence[str],
        *,
        set_size: int,
        pseudo: int,
        batch_size: int,
        extra: Extra,
        n_tokens: Callable[[int], int],
        seed: int,
        place: Place,
        cells: bool = False,
        threads: int | None = None,
    ) -> None:
        if batch_size < place.world_size:
            raise UserError(
                f"batch-size {batch_size} is smaller than the {place.world_size} processes",
                hint=f"set batch-size to {place.world_size} or more",
            )
        self.groups, self.extra, self.n_tokens, self.cells = groups, extra, n_tokens, cells
        self.set_size, self.pseudo = set_size, pseudo
        sets = Sets(
            perturbation=groups.row, control=groups.control, context=groups.matched,
            set_size=set_size, sets_per_batch=batch_size, seed=seed, fallback=True,
        )  # fmt: skip
        loader = Loader(
            store,
            Steps(sets=sets, per_step=batch_size),
            Output(genes=list(tokens), log1p=bool(store.manifest["counts"])),
            place=Partition(place.rank, place.world_size),
            threads=threads,
        )
        order = loader.state_dict()
        identity = {"sets": order["perturbation"], "matched": order["context"]}
        self.stream = LoaderStream(loader, identity)

    def __next__(self) -> dict[str, Tensor]:
        """Return this process's share of the next step."""
        n_tokens = self.n_tokens(self.stream.step)
        batch = next(self.stream)
        row = self.groups.row[batch.rows.reshape(-1, 2 * self.set_size)[:, 0]]
        pooled = self._pooled(batch.csr())[..., :n_tokens]
        out = {
            "control": torch.from_numpy(np.ascontiguousarray(pooled[:, 1:])),
            "expressed": torch.from_numpy(np.ascontiguousarray(pooled[:, 0])),
        }
        if self.cells:
            dense = batch.csr()[:, :n_tokens].toarray().astype(np.float32, copy=False)
            out["cells"] = torch.from_numpy(dense).view(len(row), 2 * self.set_size, -1)
        return out | self.extra(row, n_tokens)

    def _pooled(self, cells: Any) -> NDArray[np.float32]:
        """Return (B, 1 + K, T): the mean of the perturbed cells, then those of the controls."""
        size = self.set_size
        bounds = size * np.arange(self.pseudo + 1) // self.pseudo
        group = np.concatenate(
            [np.zeros(size, np.int64), 1 + np.repeat(np.arange(self.pseudo), np.diff(bounds))]
        )
        n_sets = cells.shape[0] // (2 * size)
        code = (np.arange(n_sets)[:, None] * (1 + self.pseudo) + group).ravel()
        weight = (1 / np.bincount(group))[group].astype(np.float32)
        shape = (n_sets * (1 + self.pseudo), cells.shape[0])
        pool = sp.csr_matrix((np.tile(weight, n_sets), (code, np.arange(len(code)))), shape=shape)
        dense: NDArray[np.float32] = (pool @ cells).toarray().astype(np.float32, copy=False)
        return dense.reshape(n_sets, 1 + self.pseudo, -1)

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were returned, and from which cells."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the steps already returned, on any number of processes."""
        self.stream.load_state_dict(state)

    def close(self) -> None:
        """End the loader's threads."""
        self.stream.close()
