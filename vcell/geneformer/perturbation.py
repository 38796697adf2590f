"""Perturbations of a cell (delete, overexpress, inhibit, activate) as index arithmetic.

A perturbed copy is the cell in another order. It is described by source numbers: entry p of a copy
holds the token that the cell has at ``order[p]``; numbers from the cell's length on stand for genes
that it lacks. Copies are made where they are used, a block at a time, from two numbers per event.

delete        the gene goes; what was behind it moves up by one
overexpress   the gene goes to the front, behind <cls>; a gene that the cell lacks is put there, and
              the last genes fall off where the cell becomes too long
inhibit       the gene goes down by quarters of the ranking, to the end at most
activate      the gene goes up by quarters of the ranking, to the front at most
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
    """Where the genes of a cell begin and end: inside <cls> and <eos>, if there are any."""

    first: int  # 1 behind <cls>, else 0
    last: int  # 1 where <eos> follows, else 0
    longest: int

    def n_genes(self, length: int) -> int:
        """Return how many of a cell's tokens are genes."""
        return length - self.first - self.last


@dataclass(frozen=True)
class Copies:
    """Perturbed copies of one cell that are made alike and are of one length.

    Attributes
    ----------
    kind
        delete: without entry `at`. move: entry `at` goes to place `to`. insert: source `at` is put
        at place `to`. whole: `base` as it is, one copy.
    base
        ``[B]`` source numbers that copies are made from: the cell, or what an anchor left of it.
    at, to
        ``[E]`` one of each an event.
    touched
        Source numbers that the base has already perturbed, and that no event compares.
    length
        Tokens of each copy.
    overflow
        How many genes fell off the end of the cell to make room.
    """

    kind: Kind
    base: NDArray[np.int64]
    at: NDArray[np.int64]
    to: NDArray[np.int64]
    touched: tuple[int, ...]
    length: int
    overflow: int = 0
    ends_framed: bool = False  # of insert: <eos> stays the last token, whatever falls off

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
            up = (place > to) & (place <= at)  # what the gene passed on its way up moves down
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
        Tokens of the cell, or of `base`.
    positions
        Places of the genes in it.
    quarters
        How many quarters of the ranking a gene goes down or up.
    base, touched
        What an anchor has left of the cell, and which source numbers it touched.
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
    """Overexpress genes that the cell lacks, one at a time; `sources` are from `length` on."""
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
