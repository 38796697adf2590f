"""Sets of perturbed cells with matched controls: an order for models that compare the two.

A *set* is `set_size` cells of one perturbation in one context (a batch, a cell type), followed by
as many control cells of the same context. Controls are dealt from shuffled decks, so that within an
epoch the controls of a context are used equally often, to within one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError
from vcell.store.order import Epoch, Order, Partition, Rows, _digest, _rng

Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Sets(Order):
    """Perturbed cells with matched controls; each perturbed cell once per epoch.

    A batch has ``2 * set_size * sets_per_batch`` rows: for each set its perturbed cells, then its
    controls. The last set of a group is filled with cells of the group that are drawn again.

    Parameters
    ----------
    perturbation, control
        Perturbation codes of all cells (-1: leave out) and the code of the controls.
    context
        Codes that controls must share (batch, cell type, or both, from `combine`); None: any
        control matches.
    set_size
        Cells of a set; 1 gives pairs.
    block
        Pairs from disk are drawn in runs of this many neighbouring cells, into a buffer that is
        shuffled, so that each chunk is decoded once per epoch; 1: every pair is drawn
        independently. The cells of larger sets may be anywhere.
    fallback
        Use controls of any context for a context without controls, which otherwise is an error.
    """

    perturbation: Codes
    control: int
    context: Codes | None = None
    set_size: int = 32
    sets_per_batch: int = 8
    seed: int = 0
    buffer: int = 8_192
    block: int = 256
    fallback: bool = False
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.set_size < 1 or self.sets_per_batch < 1 or self.block < 1:
            raise ValueError("set_size, sets_per_batch and block must be at least 1")
        if not (self.perturbation == self.control).any():
            raise UserError("there are no control cells, and sets need them")
        if self.context is not None and len(self.context) != len(self.perturbation):
            raise ValueError("context and perturbation must have one code for every cell")

    def epoch(self, number: int, place: Partition, n_cells: int) -> Epoch:
        """Plan one epoch."""
        if n_cells != len(self.perturbation):
            raise ValueError(f"{len(self.perturbation)} perturbation codes for {n_cells} cells")
        return _SetEpoch(self, number, place)

    def contexts(self) -> Codes:
        """Return the context of every cell; all equal if `context` is None."""
        if self.context is None:
            return np.zeros(len(self.perturbation), np.int64)
        return self.context

    def controls(self) -> Rows:
        """Return the control cells that may be drawn."""
        keep = (self.perturbation == self.control) & (self.contexts() >= 0)
        return np.flatnonzero(keep).astype(np.int64)

    def describe(self, n_cells: int) -> str:
        """Describe a batch."""
        return (
            f"{self.sets_per_batch} sets a batch, each {self.set_size} perturbed cells and "
            f"{self.set_size} controls of the same context, drawn from {n_cells:,} cells"
        )

    def key(self) -> dict[str, Any]:
        """Return the settings on which a saved position depends."""
        return {
            "order": "sets",
            "set_size": self.set_size,
            "sets_per_batch": self.sets_per_batch,
            "seed": self.seed,
            "buffer": self.buffer,
            "block": self.block,
            "drop_last": self.drop_last,
            "control": int(self.control),
            "perturbation": _digest(self.perturbation),
            "context": _digest(self.context),
        }


class _SetEpoch(Epoch):
    def __init__(self, order: Sets, number: int, place: Partition) -> None:
        s = order.set_size
        perturbed, context = _draw_sets(order, _rng(order.seed, number, 0))
        controls = _deal_controls(order, context, _rng(order.seed, number, 1))
        sets = np.concatenate([perturbed, controls], axis=1)  # (sets, 2 * set_size)
        rng = _rng(order.seed, number, 2)
        sets = rng.permutation(sets, axis=0)
        if s == 1:
            block = sets[:, 0] // order.block
            drawn = rng.permutation(int(block.max()) + 1)
            sets = sets[np.argsort(drawn[block], kind="stable")]
        a, b = place.share(len(sets))
        if order.drop_last:
            each = len(sets) // place.world_size // order.sets_per_batch * order.sets_per_batch
            b = a + each
        self._sets = sets[a:b]
        self.batch_rows = 2 * s * order.sets_per_batch
        self.buffer_batches = max(order.buffer // self.batch_rows, 1)
        self.n_rows = self._sets.size
        self._key = (order.seed, number, 3, place.rank)

    def rows(self, buffer: int) -> Rows:
        """Return the sets of a buffer, shuffled, flat."""
        width = self._sets.shape[1]
        a, b = (row // width for row in self._range(buffer))
        return _rng(*self._key, buffer).permutation(self._sets[a:b], axis=0).reshape(-1)


def combine(*codes: Codes) -> Codes:
    """Return one code for each combination of several columns; -1 where any is missing."""
    combined = np.zeros(len(codes[0]), np.int64)
    missing = np.zeros(len(codes[0]), bool)
    for column in codes:
        combined = combined * (int(column.max(initial=0)) + 1) + column
        missing |= column < 0
    dense = np.unique(combined, return_inverse=True)[1].astype(np.int64)
    dense[missing] = -1
    return dense


def _draw_sets(order: Sets, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Split each shuffled group (perturbation in context) into sets; return their contexts too."""
    context = order.contexts()
    keep = (order.perturbation >= 0) & (order.perturbation != order.control) & (context >= 0)
    cells = rng.permutation(np.flatnonzero(keep).astype(np.int64))
    if not len(cells):
        raise UserError("there are no perturbed cells to make sets of")
    group = combine(order.perturbation[cells], context[cells])
    by_group = np.argsort(group, kind="stable")  # stable: keeps the shuffled order within groups
    cells, group = cells[by_group], group[by_group]
    sizes = np.bincount(group)
    begins = np.cumsum(sizes) - sizes
    n_sets = -(-sizes // order.set_size)
    owner = np.repeat(np.arange(len(sizes)), n_sets)  # group of each set
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(n_sets) - n_sets, n_sets)
    within = nth[:, None] * order.set_size + np.arange(order.set_size)
    again = rng.integers(0, sizes[owner][:, None], size=within.shape)
    within = np.where(within < sizes[owner][:, None], within, again)
    sets = cells[begins[owner][:, None] + within]
    return sets, context[sets[:, 0]].astype(np.int64)


def _deal_controls(order: Sets, context: Rows, rng: np.random.Generator) -> Rows:
    """Return `set_size` controls for each set's context, dealt from shuffled decks."""
    pool = order.controls()
    pool_context = order.contexts()[pool]
    dealt = np.empty((len(context), order.set_size), np.int64)
    for c in np.unique(context):
        deck = pool[pool_context == c]
        if not len(deck):
            if not order.fallback:
                raise UserError(
                    f"context {int(c)} has perturbed cells and no control cell to match them",
                    hint="match on fewer columns, or allow controls of other contexts",
                )
            deck = pool
        sets = np.flatnonzero(context == c)
        n = len(sets) * order.set_size
        decks = [rng.permutation(deck) for _ in range(-(-n // len(deck)))]
        dealt[sets] = np.concatenate(decks)[:n].reshape(-1, order.set_size)
    return dealt
