"""The two submission formats and their limits, as in the challenge's packers and servers.

2025: log1p values with control cells, 18,080 genes. 2026: raw counts without controls, 18,533
genes, every perturbation with the same number of cells in every context.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcell.errors import UserError
from vcell.text_files import read_rows, read_table

if TYPE_CHECKING:
    from pathlib import Path

CONTROL = "non-targeting"
PERTURBATION, CONTEXT, CELL_TYPE = "target_gene", "context", "celltype"  # columns in the archive
_GENE_HEADERS = frozenset({"gene_name", "gene", "gene_symbol", "gene_names", "genes"})


@dataclass(frozen=True)
class Format:
    """What the server of one year accepts."""

    name: str
    counts: bool  # raw counts, or log1p
    controls: bool  # required, or forbidden
    contexts: bool
    n_genes: int
    max_cells: int
    max_nnz: int | None = None  # limited by the server's memory: 4.75e9 non-zeros
    max_cell_total: float | None = None
    max_log1p: float = 15.0


FORMATS = {
    "vcc2025": Format(
        "vcc2025", counts=False, controls=True, contexts=False, n_genes=18_080, max_cells=200_000
    ),
    "vcc2026": Format(
        "vcc2026",
        counts=True,
        controls=False,
        contexts=True,
        n_genes=18_533,
        max_cells=400_000,
        max_nnz=4_750_000_000,
        max_cell_total=1_000_000.0,
    ),
}


def read_genes(path: Path) -> list[str]:
    """Read the challenge's gene list: first column, with or without a header."""
    genes = [row[0] for _, row in read_rows(path) if row[0]]
    if genes and genes[0].lower() in _GENE_HEADERS:
        genes = genes[1:]
    if not genes:
        raise UserError(f"{path} names no gene")
    seen: set[str] = set()
    twice = sorted({gene for gene in genes if gene in seen or seen.add(gene)})  # type: ignore[func-returns-value]
    if twice:
        raise UserError(f"{path} names {sample(twice)} more than once")
    return genes


@dataclass(frozen=True)
class Panel:
    """The perturbations that a submission must predict, and the number of cells of each."""

    cells_of: dict[str | None, dict[str, int | None]]  # by context; None is every context
    fingerprint: str  # of the sorted names

    def of(self, context: str | None) -> dict[str, int | None]:
        """Return the perturbations of one context."""
        return self.cells_of.get(context) or self.cells_of.get(None) or {}


def read_panel(path: Path, cells: int | None) -> Panel:
    """Read pert_counts.csv; `cells` is the number of cells where the file gives none."""
    table = read_table(path)
    column, contexts, counts = (table.column(one) for one in (PERTURBATION, CONTEXT, "n_cells"))
    if column is None:
        raise table.lacks(PERTURBATION)
    cells_of: dict[str | None, dict[str, int | None]] = {}
    names = set()
    for number, row in table.rows:
        name = row[column]
        if not name:
            continue
        names.add(name)
        if name != CONTROL:
            context = None if contexts is None else row[contexts] or None
            given = cells if counts is None else _cells(row[counts], f"{path}:{number}")
            cells_of.setdefault(context, {})[name] = given
    if not any(cells_of.values()):
        raise UserError(f"{path} names no perturbation")
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return Panel(cells_of, f"sha256:{digest}")


def _cells(text: str, where: str) -> int | None:
    """Return the number of cells in a field, None if it is empty."""
    if not text:
        return None
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise UserError(f"{where}: n_cells is {text[:40]!r}, not a number") from None


def sample(names: list[str], most: int = 10) -> str:
    """List the first few names, and the number of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
