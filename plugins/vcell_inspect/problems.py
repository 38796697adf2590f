"""Errors and risks in a file, in one sentence each, with the remedy."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data import detect, labels, open_cells
from vcell.data.texts import Texts
from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vcell.data import CellSource
    from vcell.data.detect import Scale
    from vcell_inspect.survey import Survey


def of_names(source: CellSource, cells: Texts | None) -> list[str]:
    """Check the names of genes and, if given, those of cells."""
    found = []
    if not source.n_cells:
        found.append("there are no cells")
    if not source.n_genes:
        found.append("there are no genes")
    kinds = [("gene", Texts.of(source.genes))]
    if cells is not None:
        kinds.append(("cell", cells))
    for kind, names in kinds:
        repeated = _repeated(names)
        if repeated:
            shown = ", ".join(repeated[:5]) + (", ..." if len(repeated) > 5 else "")
            found.append(
                f"{_number(len(repeated), f'{kind} name', 'occur')} more than once: {shown}"
            )
        if empty := names.n_blank():
            found.append(f"{_number(empty, f'{kind} name')} empty")
    genes = source.genes
    if len(genes) and np.char.startswith(genes, "ENS").mean() > 0.5:
        found.append("genes are named by Ensembl ids: gene sets and targets use symbols")
    return found


def _number(n: int, noun: str, verb: str = "are") -> str:
    """Write a number, its noun and verb: 1 value is, 2 values are."""
    one = {"are": "is", "have": "has"}.get(verb, f"{verb}s")
    plural = "entries" if noun == "entry" else None
    return f"{console.count(n, noun, plural)} {one if n == 1 else verb}"


def _repeated(names: Texts) -> list[str]:
    """Return names that occur more than once; by hashes, which take little memory."""
    hashes = names.hashes()
    ordered = np.sort(hashes)
    often = np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])
    counts: Counter[str] = Counter()
    for piece in names.pieces(np.flatnonzero(often)):
        counts.update(piece.tolist())
    return sorted(name for name, n in counts.items() if n > 1)


def of_survey(seen: Survey, found: Scale) -> list[str]:
    """Check the values seen by the survey."""
    where = "" if seen.whole else f" among {seen.n_seen:,} sampled cells"
    odd, problems = seen.odd, []
    if odd.get("nan"):
        problems.append(f"{_number(odd['nan'], 'value')} NaN{where}")
    if odd.get("infinite"):
        problems.append(f"{_number(odd['infinite'], 'value')} infinite{where}")
    if odd.get("negative"):
        problems.append(f"{_number(odd['negative'], 'value')} negative{where}: scaled data?")
    if odd.get("fraction") and found.kind == "counts":
        problems.append(f"{_number(odd['fraction'], 'value')} not whole, though the rest is")
    elif odd.get("fraction") and found.kind != "log1p":
        share = odd["fraction"] / max(seen.n_values, 1)
        problems.append(f"{share:.0%} of the values are not whole numbers{where}: no raw counts")
    if odd.get("unsorted rows"):
        n = odd["unsorted rows"]
        problems.append(
            f"{_number(n, 'cell', 'have')} unsorted entries{where} (sorted while reading)"
        )
    if odd.get("repeated entries"):
        n = odd["repeated entries"]
        problems.append(
            f"{_number(n, 'entry', 'repeat')} a gene of their cell{where} (summed while reading)"
        )
    if odd.get("stored zeros"):
        n = odd["stored zeros"]
        problems.append(f"{_number(n, 'zero')} stored as values{where} (dropped while reading)")
    empty = int((seen.per_cell(1) == 0).sum())
    if empty:
        problems.append(f"{_number(empty, 'cell')} empty{where}")
    unseen = int((seen.gene_cells == 0).sum())
    if unseen and seen.whole:
        problems.append(f"{_number(unseen, 'gene')} zero in every cell")
    return problems


def of_labels(source: CellSource, found: Mapping[str, Any]) -> list[str]:
    """Report what is wrong with the labels of perturbations, which most commands need."""
    if found["found"]:
        return list(_of_names(source, found))
    if not labels.named_like(source.obs_columns, labels.PERTURBATION_NAMES):
        return []
    return [f"{found['text']}: {found['hint']}" if found["hint"] else str(found["text"])]


def _of_names(source: CellSource, found: Mapping[str, Any]) -> Iterator[str]:
    """Report names that are hardly meant as perturbations, and a screen that has none."""
    column = source.obs(found["perturbation_column"])
    for name, n in zip(column.categories.tolist(), column.counts().tolist(), strict=True):
        if n and name.strip().lower() in ("", "nan", "none", "na", "n/a", "null"):
            yield (
                f"{_number(n, 'cell', 'have')} {name!r} in {column.name!r}, which is taken as a "
                "perturbation: leave such cells out, or give them no value"
            )
    if not found["n_perturbations"]:
        yield f"no cell is perturbed: all that {column.name!r} labels are {found['control']!r}"


def of_raw(source: CellSource) -> list[str]:
    """Report a raw/X without raw counts."""
    if not source.parts.get("raw") or source.layer is not None or len(source.paths) != 1:
        return []
    try:
        with open_cells(source.paths[0], "raw") as raw:
            found = detect.scale(raw, quiet=True)
    except UserError as error:
        return [f"raw cannot be read: {error.message}"]
    if found.kind in ("counts", "empty"):
        return []
    return [f"raw does not hold raw counts: it has {found.text}"]
