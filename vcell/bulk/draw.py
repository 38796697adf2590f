"""Draw samples: the fraction of each type, its number of cells, and which cells.

A sample has exactly n cells, drawn with replacement. Its label is the composition drawn, not the
fractions before rounding. Each block of samples has its own random stream, from the seed, the group
and the block's number, so that draws do not depend on the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools

Mode = Literal["dirichlet", "sparse", "rare", "own"]
Prior = Literal["flat", "own"]
#: Samples that share a random stream.
BLOCK = 32
_RARE = 0x7A3E  # separates the choice of rare types from the draws


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the draws.

    Attributes
    ----------
    samples
        Number of samples of each group.
    cells
        Number of cells of each sample.
    mode
        "dirichlet"; "sparse": in `sparse_samples` of the samples, `sparse_types` of the types are
        left out; "rare": in `rare_samples` of them, `rare_types` of the types, the same in all,
        have a uniform fraction below `rare_most`; "own": all samples have the fractions of their
        group's cells.
    prior
        Mean of the Dirichlet distribution: equal, or the fractions of the group's cells.
    concentration
        Mean of the Dirichlet's parameters; 1 with a flat prior is uniform.
    rare
        Names of the rare types, instead of a random choice.
    """

    samples: int = 1000
    cells: int = 500
    mode: Mode = "dirichlet"
    prior: Prior = "flat"
    concentration: float = 1.0
    sparse_samples: float = 0.5
    sparse_types: float = 0.5
    rare_samples: float = 0.7
    rare_types: float = 0.4
    rare_most: float = 0.03
    rare: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.cells < 1:
            raise ValueError("samples and cells are at least 1")
        if self.mode not in get_args(Mode) or self.prior not in get_args(Prior):
            raise ValueError(f"unknown mode {self.mode!r} or prior {self.prior!r}")
        if not self.concentration > 0:
            raise ValueError("concentration must be above 0")
        for name in ("sparse_samples", "sparse_types", "rare_samples", "rare_types", "rare_most"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} lies between 0 and 1")


@dataclass(frozen=True)
class Drawn:
    """Some samples, not summed yet. S samples of n cells, K types.

    Attributes
    ----------
    group, number
        ``[S]`` group of each sample, and its number in the group.
    cells
        ``[S, n]`` rows of the source, ascending.
    of_type
        ``[S, K]`` numbers of cells drawn of each type.
    """

    group: NDArray[np.int64]
    number: NDArray[np.int64]
    cells: NDArray[np.integer]
    of_type: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.group)

    @property
    def fractions(self) -> NDArray[np.float64]:
        """``[S, K]`` shares of the types among the drawn cells."""
        shares: NDArray[np.float64] = self.of_type / self.cells.shape[1]
        return shares

    @classmethod
    def joined(cls, parts: list[Drawn]) -> Drawn:
        """Concatenate several."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in _FIELDS))

    def part(self, begin: int, end: int) -> Drawn:
        """Return the samples from `begin` to `end`."""
        return Drawn(*(getattr(self, name)[begin:end] for name in _FIELDS))


_FIELDS = ("group", "number", "cells", "of_type")


def draws(pools: Pools, sampling: Sampling) -> Iterator[Drawn]:
    """Yield the samples of every group, some at a time."""
    rare = rare_types(pools, sampling)
    for group in range(len(pools.groups)):
        for block in range(-(-sampling.samples // BLOCK)):
            rng = np.random.default_rng((sampling.seed, group, block))
            sizes = pools.sizes[group]
            # always whole blocks, so that the first draws do not depend on the number
            shares = fractions(sizes, sampling, rare, BLOCK, rng)
            of_type = whole_numbers(shares, sampling.cells, rng)
            cells = _cells(pools, group, of_type, sampling.cells, rng)
            number = np.arange(block * BLOCK, (block + 1) * BLOCK)
            drawn = Drawn(np.full(BLOCK, group), number, cells, of_type)
            yield drawn.part(0, min(BLOCK, sampling.samples - block * BLOCK))


def rare_types(pools: Pools, sampling: Sampling) -> NDArray[np.bool_]:
    """Return a mask of the rare types: the named ones, or a choice by the seed."""
    rare = np.zeros(len(pools.types), bool)
    if sampling.mode != "rare":
        return rare
    missing = [name for name in sampling.rare if name not in pools.types]
    if missing:
        raise UserError(
            f"no cell has the label {missing[0]!r} that is to be rare",
            hint=f"the labels: {', '.join(pools.types[:30])}",
        )
    if sampling.rare:
        rare[[pools.types.index(name) for name in sampling.rare]] = True
    else:
        rng = np.random.default_rng((sampling.seed, _RARE))
        rare[rng.permutation(len(rare))[: int(sampling.rare_types * len(rare))]] = True
    if rare.sum() * sampling.rare_most >= 1:
        raise UserError(
            f"{rare.sum()} rare types of up to {sampling.rare_most:g} leave nothing for the others",
            hint="lower --rare-most or --rare-types",
        )
    return rare


def fractions(
    sizes: NDArray[np.int64],
    sampling: Sampling,
    rare: NDArray[np.bool_],
    n: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Draw the fractions of `n` samples, without types that the group lacks.

    Parameters
    ----------
    sizes
        ``[K]`` cells of each type in the group.
    rare
        ``[K]`` mask of rare types.
    """
    there = np.flatnonzero(sizes)
    own = sizes[there] / sizes.sum()
    if sampling.mode == "own":
        shares = np.tile(own, (n, 1))
    else:
        mean = own * len(there) if sampling.prior == "own" else np.ones(len(there))
        shares = rng.dirichlet(sampling.concentration * mean, n)
    if sampling.mode == "sparse":
        _leave_out(shares, sampling, rng)
    elif sampling.mode == "rare":
        _make_rare(shares, rare[there], sampling, rng)
    drawn = np.zeros((n, len(sizes)))
    drawn[:, there] = shares
    return drawn


def _leave_out(shares: NDArray[np.float64], sampling: Sampling, rng: np.random.Generator) -> None:
    """Set some types of some samples to zero; at least one type remains."""
    n, k = shares.shape
    out = min(int(k * sampling.sparse_types), k - 1)
    rank = rng.random((n, k)).argsort(axis=1).argsort(axis=1)
    affected = rng.random((n, 1)) < sampling.sparse_samples
    gone = (rank < out) & affected
    shares[gone] = 0
    total = shares.sum(axis=1, keepdims=True)
    # a tiny concentration can put everything into a removed type: then the others are equal
    shares[:] = np.where(total > 0, shares, ~gone)
    shares /= shares.sum(axis=1, keepdims=True)


def _make_rare(
    shares: NDArray[np.float64],
    rare: NDArray[np.bool_],
    sampling: Sampling,
    rng: np.random.Generator,
) -> None:
    """Give the rare types of some samples small fractions; the others share the rest."""
    chosen = rng.random(len(shares)) < sampling.rare_samples
    small = rng.uniform(0, sampling.rare_most, (len(shares), int(rare.sum())))
    if rare.all():  # a group without other types
        return
    others = shares[:, ~rare]
    total = others.sum(axis=1, keepdims=True)
    others = np.where(total > 0, others / np.where(total > 0, total, 1), 1 / others.shape[1])
    shares[np.ix_(chosen, rare)] = small[chosen]
    shares[np.ix_(chosen, ~rare)] = (others * (1 - small.sum(axis=1, keepdims=True)))[chosen]


def whole_numbers(
    shares: NDArray[np.float64], n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw numbers of cells of each type: multinomial, exactly `n` in every row.

    numpy gives the remainder from rounding to the last type, whatever its fraction; so the most
    frequent type is last here, and a type without a fraction is never drawn.
    """
    order = shares.argsort(axis=1, kind="stable")
    drawn = rng.multinomial(n, np.take_along_axis(shares, order, 1))
    numbers = np.empty_like(drawn)
    np.put_along_axis(numbers, order, drawn, 1)
    return numbers


def _cells(
    pools: Pools, group: int, of_type: NDArray[np.int64], n: int, rng: np.random.Generator
) -> NDArray[np.integer]:
    """Draw the cells, uniformly from their pools."""
    times, samples = of_type.ravel(), len(of_type)
    place = np.repeat(np.tile(pools.start[group], samples), times)
    place += rng.integers(0, np.repeat(np.tile(pools.sizes[group], samples), times))
    # numpy sorts 32 bits twice as fast
    small = np.int32 if pools.n_cells <= np.iinfo(np.int32).max else np.int64
    cells: NDArray[np.integer] = pools.order[place].astype(small).reshape(samples, n)
    cells.sort(axis=1)
    return cells
