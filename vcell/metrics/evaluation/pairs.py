"""The two sides of a comparison, aligned by name to the same perturbations and genes.

Nothing is guessed silently. The kind of values, the control label, which side borrowed controls,
and every name that one side lacks are printed and kept for score.json.

Legend: ``P`` perturbations (sorted by name, the control not among them), ``G`` genes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.data import CellSource
from vcell.data import labels as find_labels
from vcell.data.detect import refuse_nothing, refuse_repeated
from vcell.data.opening import is_mtx
from vcell.errors import UserError
from vcell.metrics.evaluation.own import notes_of_targets
from vcell.outputs.inputs import is_zarr
from vcell.screen.targets import members
from vcell.suggest import closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from vcell.metrics.evaluation.options import Options

Sided: TypeAlias = "AnnData | str | Path"
CONTROL_GROUP = 0  # groups are the control, then the perturbations in order of their names


@dataclass(frozen=True)
class Side:
    """One file: groups of its cells, and a selection of its columns."""

    source: CellSource
    group: NDArray[np.int32]  # one per cell: 0 the control, 1..P the perturbations, -1 left out
    columns: NDArray[np.int64] | None  # columns in the order of the shared genes; None: as stored
    order: tuple[int, ...] = ()  # groups as pandas lists them: in the order of stored categories

    def sizes(self, n_groups: int) -> NDArray[np.int64]:
        """How many cells each group has."""
        return np.bincount(self.group[self.group >= 0], minlength=n_groups)

    def rows(self) -> NDArray[np.int64]:
        """Return the indices of the cells that have a group."""
        return np.flatnonzero(self.group >= 0)


@dataclass(frozen=True)
class Pair:
    """A prediction and the real cells of one context."""

    context: str | None
    real: Side
    pred: Side
    control: str
    perturbations: tuple[str, ...]
    genes: NDArray[np.str_]
    borrowed: bool  # the prediction has no controls and uses the real ones
    notes: tuple[str, ...] = field(default=())


def open_pairs(prediction: Sided, real: Sided, config: Options) -> Iterator[Pair]:
    """Open the two sides and yield one pair per context; each file is closed after its last."""
    from vcell.data import open_cells

    files, told = _files(prediction, real), set[str]()
    if len(files) > 1 and config.context_column is not None:
        _require_column(files, config.context_column)
    for name, pred_path, real_path in files:
        with (
            open_cells(pred_path, layer=config.layer) as pred,
            open_cells(real_path, layer=config.layer) as measured,
        ):
            yield from _contexts(pred, measured, config, name, told)


def _files(prediction: Sided, real: Sided) -> list[tuple[str | None, Sided, Sided]]:
    """Pair the files of two folders by name; two files are one pair."""
    if isinstance(prediction, str):
        prediction = Path(prediction)
    if isinstance(real, str):
        real = Path(real)
    if not isinstance(prediction, Path) or not isinstance(real, Path):
        return [(None, prediction, real)]
    if not (_is_folder(prediction) and _is_folder(real)):
        return [(None, prediction, real)]
    pred, measured = (
        {stem: p for p in f.iterdir() if (stem := _stem(p))} for f in (prediction, real)
    )
    if not pred or pred.keys() != measured.keys():
        only = sorted(pred.keys() ^ measured.keys())
        raise UserError(
            f"{prediction} and {real} do not hold files of the same names"
            + (f": only one has {_listed(only)}" if only else ""),
            hint="a folder holds one file per context, context_A.h5ad for instance, on both sides",
        )
    return [(name, pred[name], measured[name]) for name in sorted(pred)]


def _require_column(files: list[tuple[str | None, Sided, Sided]], column: str) -> None:
    """Refuse files of which one lacks the column of contexts, before the first is scored."""
    from vcell.data import open_cells

    for _, *sides in files:
        for side in reversed(sides):
            with open_cells(side) as source:
                source.obs(column)


def _is_folder(path: Path) -> bool:
    """Whether this is a folder of files rather than a zarr store or a 10x folder."""
    return path.is_dir() and not is_zarr(path) and not is_mtx(path)


def _stem(path: Path) -> str | None:
    return path.stem if path.suffix in (".h5ad", ".zarr", ".h5") else None


def _contexts(
    pred: CellSource, real: CellSource, config: Options, name: str | None, told: set[str]
) -> Iterator[Pair]:
    """Yield one pair per value of the context column, or one for the whole file."""
    for source in (real, pred):
        refuse_nothing(source)
        refuse_repeated(source)
        if config.context_column is not None:
            source.obs(config.context_column)  # an error comes before anything is told
    found = find_labels.find(real, config)
    column = config.context_column
    if column is None and name is None:
        column = _context_column(pred, real)
    if column is None:
        yield _pair(pred, real, found, config, name, None, told)
        return
    sides = (pred.obs(column), real.obs(column))
    present = [set(c.categories[c.counts() > 0].tolist()) for c in sides]
    if present[0] != present[1]:
        only = sorted(present[0] ^ present[1])
        raise UserError(f"context {_listed(only)} of {column!r} is in only one of the two files")
    for context in sorted(present[0]):
        chosen = tuple(c.codes == c.categories.tolist().index(context) for c in sides)
        label = context if name is None else f"{name} {context}"
        yield _pair(pred, real, found, config, label, chosen, told)


def _context_column(pred: CellSource, real: CellSource) -> str | None:
    """Return 'context' where both files have it with several values; the 2026 files do."""
    if "context" not in pred.obs_columns or "context" not in real.obs_columns:
        return None
    if int((real.obs("context").counts() > 0).sum()) < 2:
        return None
    console.say("each value of 'context' is scored separately, and the scores are averaged")
    return "context"


def _pair(
    pred: CellSource,
    real: CellSource,
    found: find_labels.Labels,
    config: Options,
    context: str | None,
    chosen: tuple[NDArray[np.bool_], ...] | None,
    told: set[str],
) -> Pair:
    notes: list[str] = []
    names = [_names(real, found.perturbation_column), _names(pred, _column(pred, found, config))]
    if chosen is not None:
        names = [np.where(keep, n, "") for n, keep in zip(names, reversed(chosen), strict=True)]
    lost = [int((n == "").sum()) if chosen is None else 0 for n in names]
    for source, count in zip((real, pred), lost, strict=True):
        if count:
            notes.append(
                f"{source.name}: left out, without a perturbation: {console.count(count, 'cell')}"
            )
    where = "" if context is None else f"context {context}: "
    perturbations = _shared_perturbations(names, found.control, config, where, notes)
    genes, columns = _shared_genes(real, pred, config, notes)
    groups = (found.control, *perturbations)
    stored = real.obs(found.perturbation_column).categories.tolist()
    place = {name: i for i, name in enumerate(groups)}
    order = tuple(place[name] for name in stored if name in place)
    sides = [
        Side(source, _group(n, groups), c, order)
        for source, n, c in zip((real, pred), names, columns, strict=True)
    ]
    borrowed = not bool((sides[1].group == CONTROL_GROUP).any())
    if not (sides[0].group == CONTROL_GROUP).any():
        raise UserError(f"{where}{real.name} has no {found.control!r} cells")
    if borrowed:
        notes.append(f"{pred.name} has no {found.control!r} cells: the real ones are used")
    for note in notes:
        console.say(where + note)
    for note in notes_of_targets(perturbations, found.control, genes):
        if note not in told:  # in other contexts
            console.say(note)
        told.add(note)
        notes.append(note)
    return Pair(
        context, sides[0], sides[1], found.control, perturbations, genes, borrowed, tuple(notes)
    )


def _column(pred: CellSource, found: find_labels.Labels, config: Options) -> str:
    """Return the prediction's perturbation column: the real file's name for it, or its own."""
    if found.perturbation_column in pred.obs_columns:
        return found.perturbation_column
    if config.perturbation_column is not None:
        return config.perturbation_column  # reading it raises an error that lists the columns
    likely = find_labels.named_like(pred.obs_columns, find_labels.PERTURBATION_NAMES)
    return likely[0] if likely else found.perturbation_column


def _names(source: CellSource, column: str) -> NDArray[np.str_]:
    """Return the perturbation of each cell; '' for none."""
    coded = source.obs(column)
    labels: NDArray[np.str_] = np.append(coded.categories, "")[coded.codes]
    return labels


def _group(names: NDArray[np.str_], groups: tuple[str, ...]) -> NDArray[np.int32]:
    unique, codes = np.unique(names, return_inverse=True)
    place = {name: i for i, name in enumerate(groups)}
    numbers = np.array([place.get(name, -1) for name in unique.tolist()], np.int32)
    return numbers[codes]


def _shared_perturbations(
    names: list[NDArray[np.str_]], control: str, config: Options, where: str, notes: list[str]
) -> tuple[str, ...]:
    """Return the perturbations to score; what only one side has is an error unless allowed."""
    real, pred = (set(np.unique(n).tolist()) - {"", control} for n in names)
    problems = _differences(real, pred, "perturbation")
    shared = sorted(real & pred)
    if problems and not config.only_shared:
        raise UserError(
            f"{where}the two files have different perturbations:\n  " + "\n  ".join(problems),
            hint="--only-shared scores those that both have"
            if shared
            else "no name is shared: is --perturbation-column the right one on both sides?",
        )
    notes += problems
    if not shared:
        only = "" if problems else f": all their labelled cells are {control!r}"
        raise UserError(f"{where}the two files have no perturbation in common{only}")
    return tuple(shared)


def _shared_genes(
    real: CellSource, pred: CellSource, config: Options, notes: list[str]
) -> tuple[NDArray[np.str_], list[NDArray[np.int64] | None]]:
    """Return the genes in the real file's order, and the columns of each side that hold them."""
    if np.array_equal(real.genes, pred.genes):
        return real.genes, [None, None]
    problems = _differences(set(real.genes.tolist()), set(pred.genes.tolist()), "gene")
    if problems and not config.only_shared:
        raise UserError(
            "the two files have different genes:\n  " + "\n  ".join(problems),
            hint="--only-shared scores those that both have",
        )
    notes += problems or ["the prediction's genes are in another order: aligned by name"]
    place = {name: i for i, name in enumerate(pred.genes.tolist())}
    kept = np.array([i for i, name in enumerate(real.genes.tolist()) if name in place], np.int64)
    if not len(kept):
        raise UserError("the two files have no gene in common")
    genes = real.genes[kept]
    columns = np.array([place[name] for name in genes.tolist()], np.int64)
    return genes, [None if len(kept) == real.n_genes else kept, columns]


def _differences(real: set[str], pred: set[str], what: str) -> list[str]:
    """List the names that each side lacks, with likely misspellings."""
    problems = []
    for lacking, other, words in (
        (real - pred, pred - real, "missing from the prediction"),
        (pred - real, real - pred, "not in the real cells"),
    ):
        if lacking:
            names = sorted(lacking)
            listed = _listed(names)
            if len(names) <= 50 and (pairs := _misspelt(names, sorted(other))):
                listed += f" (misspelt? {pairs})"
            problems.append(f"{len(names):,} {what}s {words}: {listed}")
    return problems


def _misspelt(names: list[str], others: list[str]) -> str:
    if len(others) > 5000:
        return ""
    by_targets = {frozenset(members(name.casefold())): name for name in others}
    pairs = (
        (name, by_targets.get(frozenset(members(name.casefold()))) or closest(name, others))
        for name in names[:10]
    )
    return ", ".join(f"{name} ~ {near}" for name, near in pairs if near)


def _listed(names: list[Any], most: int = 10) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
