"""From cells to a training-ready store: filter, order, compress, in one pass over the input.

>>> prepare(["cells.h5ad"], "cells.zarr", Recipe(min_genes=200, max_mito=0.2))

Memory stays bounded for any size of input: see `first_pass`, and `second_pass` over the spilled
bytes. Counts are stored unscaled; the library size for normalising them is stored too.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import cache, console, outputs
from vcell.data import CellSource, open_cells
from vcell.data.detect import warn_of_repeated
from vcell.errors import DiskFull, UserError
from vcell.kernels import scatter
from vcell.store.build.first_pass import CellMeasures, HeldSpill, Mode, NotCounts, Spill
from vcell.store.build.second_pass import write_matrix
from vcell.store.build.workdir import BuildJournal, Workdir
from vcell.store.frames import check_names
from vcell.store.priority_pool import default_threads
from vcell.store.recipe import Fingerprint, Recipe, fingerprint, key_of
from vcell.store.shards import write_array
from vcell.store.store import FORMAT, MANIFEST, Store
from vcell.store.tables import write_groups, write_preprocessing, write_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Elements of a bucket: sorted in memory at once (48 MB with both copies).
BUCKET = 6_000_000
_MAX_BUCKETS = 2048
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Prepared:
    """A finished store, and whether it existed before."""

    path: Path
    reused: bool
    manifest: dict[str, Any]


def prepare(
    inputs: Sequence[str | Path],
    target: str | Path,
    recipe: Recipe | None = None,
    *,
    overwrite: bool = False,
    threads: int | None = None,
) -> Prepared:
    """Make a store of some files, or find the existing one.

    A run that was killed is continued by the same call. If two processes make the same store, one
    works, and the other waits for it and uses the result.

    Parameters
    ----------
    inputs
        Files of cells; genes are joined as the recipe says.
    target
        The folder of the store.
    recipe
        Which cells and genes to store, and how; by default `Recipe()`.
    overwrite
        Whether to replace another store at `target`.
    threads
        Number of threads; by default one per core.

    Returns
    -------
    Prepared
        The path, the manifest, and whether the store existed.

    Raises
    ------
    UserError
        If the input can't be used, another store is in the way, or the disk is full.
    """
    recipe = recipe or Recipe()
    target, paths = Path(target), [Path(p) for p in inputs]
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist")
    try:
        found = _existing(target, recipe, paths, overwrite=overwrite)
        if found is not None:
            return found
        outputs.check(target, inputs=paths, overwrite=overwrite, parents=True, folder=True)
        with Workdir(target) as workdir:
            found = _existing(target, recipe, paths, overwrite=overwrite)
            if found is not None:
                workdir.remove()
                return found
            return _prepare(paths, workdir, recipe, threads or default_threads())
    except OSError as error:
        raise _explain(error, target) from error


def ensure_store(
    inputs: Sequence[str | Path], recipe: Recipe | None = None, *, root: Path | None = None
) -> Store:
    """Return the store of these files in the cache, made on first use and reused later.

    The cache is ``$VCELL_CACHE``, else ``$XDG_CACHE_HOME/vcell`` or ``~/.cache/vcell``.
    """
    recipe = recipe or Recipe()
    target = in_cache(inputs, recipe, root=root)
    prepare(inputs, target, recipe)
    return Store.open(target)


def in_cache(inputs: Sequence[str | Path], recipe: Recipe, *, root: Path | None = None) -> Path:
    """Return the path of these files' store in the cache."""
    root = root or cache.root()
    marks = _fingerprints([Path(p) for p in inputs], _remembered(root))
    return root / "stores" / f"{key_of(recipe, marks, FORMAT)}.zarr"


def _existing(
    target: Path, recipe: Recipe, paths: list[Path], *, overwrite: bool
) -> Prepared | None:
    """Return the existing store if it is the requested one."""
    if not target.exists():
        return None
    try:
        manifest = Store.open(target).manifest
    except UserError:
        manifest = None
    if manifest is not None:
        marks = _fingerprints(paths, manifest["inputs"])
        if key_of(recipe, marks, FORMAT) == manifest["key"]:
            return Prepared(target, reused=True, manifest=manifest)
    if manifest is not None and not overwrite:
        raise UserError(
            f"{target} exists and is a store made of other cells or with other settings",
            hint="give another -o, or --overwrite to replace it",
        )
    return None


def _prepare(paths: list[Path], workdir: Workdir, recipe: Recipe, threads: int) -> Prepared:
    marks = _fingerprints(paths, [])
    built = workdir.folder / "store"
    try:
        journal = workdir.begin(key_of(recipe, marks, FORMAT))
        with closing(journal):
            with _open(paths, recipe) as source:
                warn_of_repeated(source)
                check_names(source, is_zarr=True)
                spill = _spill(source, workdir, journal, recipe)
            del source  # frees its buffers before the second pass
            manifest = _write(paths, spill, journal, built, recipe, marks, threads)
            journal.settle()
        workdir.commit(built)
    except KeyboardInterrupt:
        if workdir.can_continue():
            console.say("stopped; the same command continues where this one was")
        else:
            workdir.remove()
        raise
    except UserError:
        workdir.remove()
        raise
    except OSError as error:
        if error.errno in _FULL:
            workdir.remove()
        raise
    return Prepared(workdir.target, reused=False, manifest=manifest)


def _open(paths: list[Path], recipe: Recipe) -> CellSource:
    return open_cells(paths[0] if len(paths) == 1 else paths, layer=recipe.layer, join=recipe.join)


def _spill(source: CellSource, workdir: Workdir, journal: BuildJournal, recipe: Recipe) -> Spill:
    """Run the first pass; run it again with another type if the values are not counts."""
    folder = workdir.folder
    while True:
        mode: Mode = journal.state.get("mode", "counts")
        new = "next_cell" not in journal.state
        spill = _plan(source, folder, recipe, mode, new=new)
        spill.resume(journal)
        if journal.state.get("phase") == "write":
            return spill
        try:
            spill.run(source, journal)
            return spill
        except NotCounts as found:
            console.say(f"the values are not counts: they are stored as {found.mode}")
            journal.settle()
            key = journal.state["key"]
            workdir.empty()
            journal.state = {}
            journal.write(key=key, mode=found.mode)


def _plan(source: CellSource, folder: Path, recipe: Recipe, mode: Mode, *, new: bool) -> Spill:
    n = source.n_cells
    names = np.asarray(source.genes, dtype=str)
    column = _chosen(names, recipe)
    held = HeldSpill.if_it_fits(source, column, mode) if new else None
    elements = source.nnz if source.nnz is not None else n * source.n_genes // 3
    n_buckets = 1 if held else int(np.clip(-(-elements // BUCKET), 1, _MAX_BUCKETS))
    rank = final_order(source, recipe)
    bucket = (rank * n_buckets // max(n, 1)).astype(np.int32)
    prefix = recipe.mito_prefix.upper()
    mito = np.array([name.upper().startswith(prefix) for name in names.tolist()], dtype=bool)
    if recipe.max_mito is not None and not mito.any():
        raise UserError(
            f"no gene begins with {recipe.mito_prefix!r}, so max-mito cannot be judged",
            hint="set mito-prefix to how mitochondrial genes are named in this file",
        )
    return Spill(
        folder=folder, recipe=recipe, mode=mode, n_buckets=n_buckets, rank=rank, bucket=bucket,
        column=column, mito=mito, doublet=_doublets(source, recipe), names=names, held=held,
        cells=CellMeasures.open(None if held else folder, n, new=new),
    )  # fmt: skip


def final_order(source: CellSource, recipe: Recipe) -> NDArray[np.int64]:
    """Return the rank of every cell: drawn once from the seed, independent of filters."""
    n = source.n_cells
    rng = np.random.Generator(np.random.PCG64(recipe.seed))
    draw = rng.permutation(n)
    if not recipe.group_by:
        return draw
    keys: list[NDArray[Any]] = [draw]
    keys += [source.obs(name).codes for name in reversed(recipe.group_by)]
    rank = np.empty(n, np.int64)
    rank[np.lexsort(keys)] = np.arange(n)
    return rank


def _chosen(names: NDArray[Any], recipe: Recipe) -> NDArray[np.int32]:
    """Return the column of every gene in the store, -1 for those not chosen."""
    if recipe.genes is None:
        return np.arange(len(names), dtype=np.int32)
    place = {gene: i for i, gene in enumerate(names.tolist())}
    missing = [gene for gene in recipe.genes if gene not in place]
    if len(missing) == len(recipe.genes):
        raise UserError(
            f"of {console.count(len(recipe.genes), 'chosen gene')} none is in the file",
            hint=f"chosen: {', '.join(recipe.genes[:3])} ...; file: {', '.join(names[:3])} ...",
        )
    if missing:
        some = ", ".join(missing[:5])
        chosen = console.count(len(recipe.genes), "chosen gene")
        console.warn(f"of {chosen}, {len(missing):,} not in the file: {some}")
    column = np.full(len(names), -1, np.int32)
    found = [place[gene] for gene in recipe.genes if gene in place]
    column[found] = np.arange(len(found), dtype=np.int32)
    return column


_YES, _NO = {"true", "yes", "1", "1.0", "doublet"}, {"false", "no", "0", "0.0", "singlet", "nan"}


def _doublets(source: CellSource, recipe: Recipe) -> NDArray[np.bool_]:
    if recipe.doublet_column is None:
        return np.zeros(source.n_cells, bool)
    values = np.asarray(source.obs(recipe.doublet_column).values)
    text = np.char.lower(values.astype(str))
    strange = set(np.unique(text).tolist()) - _YES - _NO
    if strange:
        raise UserError(
            f"obs column {recipe.doublet_column!r} does not say yes or no: it has "
            f"{sorted(strange)[0]!r}",
            hint="give a column of true/false, 0/1 or doublet/singlet",
        )
    return np.isin(text, list(_YES))


def _write(
    paths: list[Path],
    spill: Spill,
    journal: BuildJournal,
    built: Path,
    recipe: Recipe,
    marks: list[Fingerprint],
    threads: int,
) -> dict[str, Any]:
    """Run the second pass, then the tables, and the manifest last."""
    stats = spill.stats
    kept = spill.cells.length >= 0
    seen = stats[:, scatter.N_CELLS] >= recipe.min_cells
    _refuse_nothing_left(spill, kept, seen)
    column = np.where(seen, np.cumsum(seen) - 1, -1).astype(np.int32)
    value_type = _value_type(spill.mode, stats[seen])
    indptr = write_matrix(spill, column, value_type, built, journal, recipe.codec, threads)
    spill.held = None  # the tables need memory, too
    write_array(built / "X" / "indptr", indptr, recipe.codec)
    order = spill.in_order()
    order = order[kept[order]]
    chosen = np.flatnonzero(spill.column >= 0)
    genes = chosen[np.argsort(spill.column[chosen])][seen]
    stats = stats[seen]
    totals = spill.cells.total[order]
    target = recipe.target_sum
    if target is None and spill.mode == "counts":
        target = float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
    manifest = {
        "format": FORMAT,
        "key": journal.state["key"],
        "n_cells": len(order),
        "n_genes": len(genes),
        "nnz": int(indptr[-1]),
        "counts": spill.mode == "counts",
        "target_sum": target,
        "removed": _removed(spill, recipe, seen),
        "recipe": recipe.plain(),
        "inputs": [mark.plain() for mark in marks],
    }
    with _open(paths, recipe) as source:
        write_tables(built, source, spill.cells, order, genes, stats)
    write_preprocessing(built, manifest, spill.names[genes], stats, totals)
    write_groups(built, manifest)
    return manifest


def _value_type(mode: Mode, stats: NDArray[np.float64]) -> np.dtype[Any]:
    """Return the smallest type that holds every value; anndata cannot read escaped values."""
    if mode != "counts":
        return np.dtype(mode)
    largest = stats[:, scatter.MAX].max(initial=0)
    return np.dtype("u1" if largest < 1 << 8 else "u2" if largest < 1 << 16 else "u4")


def _removed(spill: Spill, recipe: Recipe, seen: NDArray[np.bool_]) -> dict[str, int]:
    """Count the cells that each filter left out (a cell may fail several), and the genes."""
    cells = spill.cells
    removed = {"cells": int((cells.length < 0).sum()), "genes": int((~seen).sum())}
    if recipe.doublet_column:
        removed["doublets"] = int(spill.doublet.sum())
    if recipe.min_genes:
        removed["min_genes"] = int((cells.genes < recipe.min_genes).sum())
    if recipe.min_counts:
        removed["min_counts"] = int((cells.total < recipe.min_counts).sum())
    if recipe.max_mito is not None:
        removed["max_mito"] = int((cells.mito > recipe.max_mito * cells.total).sum())
    return removed


#: Those of `_removed` that a recipe may ask for.
_FILTERS = ("doublets", "min_genes", "min_counts", "max_mito")


def _refuse_nothing_left(spill: Spill, kept: NDArray[np.bool_], seen: NDArray[np.bool_]) -> None:
    removed = _removed(spill, spill.recipe, seen)
    if not len(kept):
        raise UserError("there are no cells in the input")
    if not kept.any():
        why = ", ".join(f"{name} {n:,}" for name, n in removed.items() if name in _FILTERS)
        raise UserError(
            f"no cell is left of {len(kept):,} (removed by {why})", hint="loosen the filters"
        )
    if not seen.any():
        raise UserError("no gene is left", hint="lower --min-cells")


def _fingerprints(paths: list[Path], known: list[dict[str, Any]]) -> list[Fingerprint]:
    return [fingerprint(path, known) for path in paths]


def _remembered(root: Path) -> list[dict[str, Any]]:
    """Return the fingerprints of the inputs of all stores in the cache."""
    marks: list[dict[str, Any]] = []
    for path in sorted((root / "stores").glob(f"*.zarr/{MANIFEST}")):
        marks += json.loads(path.read_text())["inputs"]
    return marks


def _explain(error: OSError, target: Path) -> UserError:
    """Explain a file error in one line, with what the user can do."""
    if error.errno in _FULL:
        there = next(folder for folder in target.absolute().parents if folder.exists())
        free = console.bytes_text(shutil.disk_usage(there).free)
        return DiskFull(
            f"no space left while writing {target} ({free} free): about 4 bytes a non-zero are "
            "needed while preparing, and 2 afterwards"
        )
    where = error.filename or target
    return UserError(f"{where}: {error.strerror or error}", hint="choose a writable -o STORE")
