"""Which cell is which perturbation, in which context and batch, and which are controls.

    design = Design.read(source, labels.find(source, config))
    design = Design.of_store(store, run.meta["labels"], screen.contexts)

This is decided only here, for all code that measures effects, draws training sets, takes control
cells or tests genes. A perturbation's effect is its difference from controls of the same batch and
context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.errors import UserError
from vcell.screen.targets import members
from vcell.store.sets import combine
from vcell.suggest import few

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.labels import Labels
    from vcell.store import Store

    Codes = NDArray[np.int64]
    Column = Callable[[str], tuple[NDArray[Any], Iterable[Any]]]  # codes, and what they mean

ONE_CONTEXT = "all"  # the name of the context where there is only one


@dataclass(frozen=True)
class Design:
    """The labels of every cell.

    Attributes
    ----------
    perturbation, names
        Codes, -1 for controls and cells that are left out, and the names of the codes, the label
        of the controls among them.
    control
        Whether the cell is a control.
    context, contexts
        context, contexts
            Codes of cell types, -1 for cells that are left out, and their names; one context,
    batch, batches
        Codes of batches, -1 for none, and their names; 0 and no names where there are no batches.
    """

    perturbation: Codes
    names: list[str]
    control: NDArray[np.bool_]
    context: Codes
    contexts: list[str]
    batch: Codes
    batches: list[str]

    @classmethod
    def read(cls, source: CellSource, labels: Labels) -> Design:
        """Read the columns that `labels` names from a file of cells; report what is left out."""
        design = cls.of_source(source, asdict(labels))
        lost = int((design.context < 0).sum())
        if lost:
            console.warn(
                f"left out, without a {labels.cell_type_column}: {console.count(lost, 'cell')}"
            )
        return design

    @classmethod
    def of_source(
        cls,
        source: CellSource,
        labels: Mapping[str, Any],
        contexts: Sequence[str] | None = None,
    ) -> Design:
        """Read the columns that `labels`, from the metadata of a run, names.

        With the `contexts` of a screen, cells of others are left out; where there is one context,
        all cells are in it.
        """

        def column(name: str) -> tuple[NDArray[Any], Iterable[Any]]:
            found = source.obs(name)
            return found.codes, found.categories.tolist()

        return cls._of(column, labels, contexts, source.n_cells, source.name)

    @classmethod
    def of_store(cls, store: Store, labels: Mapping[str, Any], contexts: Sequence[str]) -> Design:
        """Read the same columns from a store."""
        return cls._of(store.codes, labels, contexts, store.n_cells, str(store.path))

    @classmethod
    def _of(
        cls,
        column: Column,
        labels: Mapping[str, Any],
        contexts: Sequence[str] | None,
        n_cells: int,
        called: str,
    ) -> Design:
        codes, names = _coded(column, labels["perturbation_column"])
        context, found = np.zeros(n_cells, np.int64), [ONE_CONTEXT]
        if labels.get("cell_type_column") and (contexts is None or len(contexts) > 1):
            context, found = _coded(column, labels["cell_type_column"])
        if contexts is not None and len(contexts) > 1:
            place = {str(name): i for i, name in enumerate(contexts)}
            context = np.array([*(place.get(name, -1) for name in found), -1], np.int64)[context]
        batch, batches = np.zeros(n_cells, np.int64), list[str]()
        if labels.get("batch_column"):
            batch, batches = _coded(column, labels["batch_column"])
        if labels["control"] not in names:
            raise UserError(
                f"{called}: no cell is labelled {labels['control']!r} in "
                f"{labels['perturbation_column']}"
            )
        left_out = context < 0
        control = codes == names.index(labels["control"])
        return cls(
            perturbation=np.where(control | left_out, -1, codes),
            names=names,
            control=control & ~left_out,
            context=context,
            contexts=[str(name) for name in contexts] if contexts is not None else found,
            batch=batch,
            batches=batches,
        )

    @cached_property
    def matched(self) -> Codes:
        """Codes of (batch, context): cells are compared with controls of the same code."""
        parts = [self.batch + 1] if self.batches else []
        return np.asarray(combine(*parts, self.context + 1), np.int64)

    @property
    def n_matched(self) -> int:
        """Number of the codes in `matched`."""
        return int(self.matched.max()) + 1

    def rows(self, perturbations: Sequence[str], contexts: Sequence[int]) -> Codes:
        """Return for each cell the index of its (perturbation, context), -1 where it has none."""
        table = np.full((len(self.names) + 1, len(self.contexts)), -1, np.int64)
        place = {name: i for i, name in enumerate(self.names)}
        for row, (name, context) in enumerate(zip(perturbations, contexts, strict=True)):
            if str(name) in place:
                table[place[str(name)], context] = row
        return np.where(self.context >= 0, table[self.perturbation, self.context], -1)

    def by_targets(self, *, quiet: bool = False) -> Design:
        """Take perturbations with the same targets, such as A+B and B+A, as one; say which.

        An effect would not be held out if it were learnt from under another name.
        """
        first: dict[frozenset[str], int] = {}
        code, again = np.arange(len(self.names) + 1), []
        code[-1] = -1
        for i in np.unique(self.perturbation[self.perturbation >= 0]).tolist():
            if genes := frozenset(members(self.names[i])):
                code[i] = first.setdefault(genes, i)
                if code[i] != i:
                    again.append(f"{self.names[i]} as {self.names[code[i]]}")
        if again and not quiet:
            same = console.count(len(again), "perturbation")
            console.say(f"{same} with the same targets as another, taken together: {few(again)}")
        return replace(self, perturbation=code[self.perturbation]) if again else self

    def pairs(self) -> tuple[Codes, Codes, Codes]:
        """Return perturbation, context and number of cells of each pair that has cells."""
        kept = self.perturbation >= 0
        both = self.perturbation[kept] * len(self.contexts) + self.context[kept]
        pair, count = np.unique(both, return_counts=True)
        perturbation, context = np.divmod(pair, len(self.contexts))
        return perturbation, context, count


@dataclass(frozen=True)
class ScreenRows:
    """The rows of a screen, and which cells belong to each (-1: none)."""

    names: list[str]
    context: Codes
    of_cell: Codes

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, design: Design, fewest: int) -> ScreenRows:
        """Find the perturbations of `fewest` cells or more in each context."""
        perturbation, context, count = design.pairs()
        enough = count >= fewest
        if not enough.any():
            raise UserError(
                f"no perturbation has {fewest} cells or more (the largest has {count.max()})"
                if len(count)
                else "there is no cell of any perturbation",
                hint="an effect is a mean over cells: bring more cells, or lower --min-cells",
            )
        if not enough.all():
            small = [design.names[code] for code in perturbation[~enough]]
            console.warn(f"left out, with fewer than {fewest} cells each: {few(small)}")
        names = [design.names[code] for code in perturbation[enough]]
        return cls(names, context[enough], design.rows(names, context[enough].tolist()))

    def only(self, names: set[str]) -> ScreenRows:
        """Return the rows of these perturbations; cells of others belong to none."""
        kept = np.array([name in names for name in self.names], np.bool_)
        number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        return ScreenRows(
            [name for name in self.names if name in names],
            self.context[kept],
            number[self.of_cell],
        )


def confounded() -> UserError:
    """Return the error for a screen whose effects cannot be told from its batches."""
    return UserError(
        "no batch has both controls and perturbed cells: batch and effect cannot be told apart",
        hint="if that column does not hold batches, name the one that does with --batch-column",
    )


def _coded(column: Column, name: str) -> tuple[Codes, list[str]]:
    codes, names = column(name)
    return np.asarray(codes, np.int64), [str(one) for one in names]
