"""Perturbations of a cell (delete, overexpress, inhibit, activate) as index arithmetic.

A perturbed copy is the cell in another order. It is described by source numbers: entry p of a copy
has the token that the cell has at ``order[p]``; numbers from the cell's length on are genes that it
lacks. Copies are made when needed, a block at a time, from two numbers per event.

delete        remove the gene; later genes move up by one
overexpress   move the gene to the front, after <cls>; a gene that the cell lacks is inserted there,
              and the last genes are dropped if the cell becomes too long
inhibit       move the gene down by quarters of the ranking, at most to the end
activate      move the gene up by quarters of the ranking, at most to the front
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Operation = Literal["delete", "overexpress", "inhibit", "activate"]
Kind = Literal["delete", "move", "insert", "whole"]


@dataclass(frozen=True)
class CellBounds:
    """The range of a cell's genes: between <cls> and <eos>, if there are any."""

    first: int  # 1 after <cls>, else 0
    last: int  # 1 if <eos> follows, else 0
    longest: int

    def n_genes(self, length: int) -> int:
        """Return the number of genes among a cell's tokens."""
        return length - self.first - self.last


@dataclass(frozen=True)
class Copies:
    """Perturbed copies of one cell, of the same kind and length.

    Attributes
    ----------
    kind
        delete: without entry `at`. move: entry `at` moves to position `to`. insert: source `at` is
        inserted at position `to`. whole: one copy of `base`, unchanged.
        base
            ``[B]`` source numbers from which copies are made: the cell, or the cell perturbed by an
            anchor.
        at, to
            ``[E]`` one of each per event.
        touched
            Source numbers that are perturbed in the base, and not compared by any event.
        length
            Number of tokens of each copy.
    overflow
        Number of genes dropped at the end of the cell to make room.
    """

    kind: Kind
    base: NDArray[np.int64]
    at: NDArray[np.int64]
    to: NDArray[np.int64]
    touched: tuple[int, ...]
    length: int
    overflow: int = 0
    ends_framed: bool = False  # for insert: <eos> stays the last token when genes are dropped

    def __len__(self) -> int:
        return len(self.at)

    def order(self, events: slice, device: torch.device) -> Tensor:
        """Return the source numbers of some copies, (events, length)."""
        base = torch.from_numpy(self.base).to(device)
        at = torch.from_numpy(self.at[events]).to(device)[:, None]
        to = torch.from_numpy(self.to[events]).to(device)[:, None]
        place = torch.arange(self.length, device=device)[None, :]
        if self.kind == "whole":
            return base[None, :].expand(len(at), -1)
        if self.kind == "delete":
            return base[place + (place >= at)]
        if self.kind == "move":
            up = (place > to) & (place <= at)  # genes that it passes on the way up move down
            down = (place >= at) & (place < to)
            return base[torch.where(place == to, at, place - up.long() + down.long())]
        order = base[(place - (place > to).long()).clamp(min=0)]
        order = torch.where(place == to, at, order)
        if self.ends_framed and self.length:
            order[:, -1] = base[-1]
        return order


def single(
    operation: Operation,
    length: int,
    positions: NDArray[np.int64],
    frame: CellBounds,
    *,
    quarters: int = 1,
    base: NDArray[np.int64] | None = None,
    touched: tuple[int, ...] = (),
) -> Copies:
    """Perturb one gene of a cell at a time.

    Parameters
    ----------
    length
        Number of tokens of the cell, or of `base`.
    positions
        Positions of the genes in it.
    quarters
        Number of quarters of the ranking by which a gene moves down or up.
    base, touched
        The cell perturbed by an anchor, and the source numbers that it touched.
    """
    base = np.arange(length) if base is None else base
    positions = np.asarray(positions, np.int64)
    if operation == "delete":
        return Copies("delete", base, positions, positions, touched, len(base) - 1)
    first, end = frame.first, len(base) - 1 - frame.last
    if operation == "overexpress":
        to = np.full(len(positions), first)
    else:
        step = round(quarters * frame.n_genes(len(base)) / 4)
        signed = step if operation == "inhibit" else -step
        to = np.clip(positions + signed, first, end)
    return Copies("move", base, positions, to.astype(np.int64), touched, len(base))


def absent(length: int, sources: NDArray[np.int64], frame: CellBounds) -> Copies:
    """Overexpress genes that the cell lacks, one at a time; `sources` start at `length`."""
    new = min(length + 1, frame.longest)
    to = np.full(len(sources), frame.first)
    return Copies(
        "insert", np.arange(length), np.asarray(sources, np.int64), to, (), new, length + 1 - new,
        ends_framed=bool(frame.last),
    )  # fmt: skip


def group(
    operation: Operation,
    length: int,
    sources: Sequence[int],
    frame: CellBounds,
    *,
    quarters: int = 1,
) -> Copies:
    """Perturb several genes of a cell together; sources from `length` on are absent genes."""
    inside = [s for s in sources if s < length]
    order = list(range(length))
    overflow = 0
    if operation == "delete":
        gone = set(inside)
        order = [s for s in order if s not in gone]
    elif operation == "overexpress":
        wanted = list(dict.fromkeys(sources))
        rest = [s for s in order[frame.first : length - frame.last] if s not in set(wanted)]
        room = frame.longest - frame.first - frame.last - len(wanted)
        overflow = max(len(rest) - room, 0)
        head, tail = order[: frame.first], order[length - frame.last :]
        order = [*head, *wanted, *rest[: max(room, 0)], *tail]
    else:
        step = round(quarters * frame.n_genes(length) / 4)
        for source in inside:
            place = order.index(source)
            order.pop(place)
            signed = place + step if operation == "inhibit" else place - step
            order.insert(min(max(signed, frame.first), length - 1 - frame.last), source)
    none = np.zeros(1, np.int64)
    base = np.array(order, np.int64)
    return Copies("whole", base, none, none, tuple(inside), len(order), overflow)
