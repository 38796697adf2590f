"""Pools of cells to draw from, by type, patient and split. Unlabelled cells are in no pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.config.data import NO_LABEL
from vcell.data.labels import known_names
from vcell.errors import UserError

if TYPE_CHECKING:
    from vcell.data import CellSource


@dataclass(frozen=True)
class PoolGroup:
    """Cells that may be in one sample: those of one patient, split, or both.

    Attributes
    ----------
    by, split
        Values of the two columns; None if not used.
    """

    by: str | None
    split: str | None

    @property
    def name(self) -> str:
        """Name in messages and samples."""
        return "/".join(part for part in (self.by, self.split) if part is not None)


@dataclass(frozen=True)
class Pools:
    """The cells of each group and type. K types, P groups.

    Attributes
    ----------
    types, groups
        Names of the types; the groups that have cells.
    order
        Rows of the source by pool: sorted by group, then by type.
    start
        ``[P, K]`` start of each pool in `order`.
    sizes
        ``[P, K]`` number of cells of each pool.
    n_cells, unlabelled, ungrouped
        Numbers of cells: in the source, without a label, with a label but without a group.
    """

    types: tuple[str, ...]
    groups: tuple[PoolGroup, ...]
    order: NDArray[np.int64]
    start: NDArray[np.int64]
    sizes: NDArray[np.int64]
    n_cells: int
    unlabelled: int
    ungrouped: int

    @classmethod
    def read(
        cls,
        source: CellSource,
        labels: str,
        *,
        by: str | None = None,
        split_by: str | None = None,
        no_label: Sequence[str] = NO_LABEL,
    ) -> Pools:
        """Read the columns that define the pools.

        Parameters
        ----------
        labels
            The obs column of types.
        by, split_by
            Columns whose values are never mixed in one sample.
        no_label
            Labels that mean "no label".

        Raises
        ------
        UserError
            If there is no such column, or no cell with a label (and a group).
        """
        type_codes, types = _known(source, labels, no_label)
        by_codes, bys = _known(source, by, no_label)
        split_codes, splits = _known(source, split_by, no_label)
        pools = cls.of(
            type_codes, types, by_codes if by else None, bys,
            split_codes if split_by else None, splits,
        )  # fmt: skip
        if not len(pools.order):
            what = (
                f"{labels!r}"
                if not pools.ungrouped
                else f"{labels!r} and a value of {by or split_by!r}"
            )
            raise UserError(
                f"{source.name}: no cell has a label in {what}", hint="name another column"
            )
        return pools

    @classmethod
    def of(
        cls,
        type_codes: NDArray[np.integer],
        types: Sequence[str],
        by_codes: NDArray[np.integer] | None = None,
        bys: Sequence[str] = (),
        split_codes: NDArray[np.integer] | None = None,
        splits: Sequence[str] = (),
    ) -> Pools:
        """Sort cells into pools; codes are -1 where missing."""
        n = len(type_codes)
        none = np.zeros(n, np.int64)
        by = none if by_codes is None else np.asarray(by_codes, np.int64)
        split = none if split_codes is None else np.asarray(split_codes, np.int64)
        label = np.asarray(type_codes, np.int64)
        width = max(int(split.max(initial=0)) + 1, 1)
        usable = (label >= 0) & (by >= 0) & (split >= 0)
        found, group = np.unique(by[usable] * width + split[usable], return_inverse=True)
        groups = tuple(
            PoolGroup(
                None if by_codes is None else str(bys[key // width]),
                None if split_codes is None else str(splits[key % width]),
            )
            for key in found.tolist()
        )
        pool = group * len(types) + label[usable]
        rows = np.flatnonzero(usable)
        sizes = np.bincount(pool, minlength=len(groups) * len(types))
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
        shape = (len(groups), len(types))
        return cls(
            tuple(map(str, types)), groups, rows[np.argsort(pool, kind="stable")],
            start.reshape(shape), sizes.reshape(shape), n,
            int((label < 0).sum()), int(((label >= 0) & ~usable).sum()),
        )  # fmt: skip

    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the group and the type of every cell of the source; -1 for cells in no pool."""
        group, label = np.full((2, self.n_cells), -1)
        pools = np.repeat(np.arange(self.sizes.size), self.sizes.ravel())
        group[self.order], label[self.order] = np.divmod(pools, max(len(self.types), 1))
        return group, label


def _known(
    source: CellSource, name: str | None, no_label: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Read a column; ignore labels that mean "none", and categories without cells."""
    if name is None:
        return np.zeros(source.n_cells, np.int64), ()
    column = source.obs(name)
    keep = known_names(column.categories, no_label) & (column.counts() > 0)
    place = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
    names = tuple(str(c) for c, is_one in zip(column.categories, keep, strict=True) if is_one)
    return place[column.codes], names
