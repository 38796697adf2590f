"""The two submission formats and their limits, as in the challenge's packers and servers.

2025: log1p values with control cells, 18,080 genes. 2026: raw counts without controls, 18,533
genes, every perturbation with the same number of cells in every context.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcell.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

CONTROL = "non-targeting"
PERTURBATION, CONTEXT, CELL_TYPE = "target_gene", "context", "celltype"  # columns of the archive
_GENE_HEADERS = frozenset({"gene_name", "gene", "gene_symbol", "gene_names", "genes"})


@dataclass(frozen=True)
class Format:
    """What one year's server accepts."""

    name: str
    counts: bool  # raw counts, or log1p
    controls: bool  # must be there, or must not
    contexts: bool
    n_genes: int
    max_cells: int
    max_nnz: int | None = None  # the server's memory grows with non-zeros: 4.75e9 is its cap
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
    genes = [row[0].strip() for row in _rows(path) if row and row[0].strip()]
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
    """The perturbations that a submission must predict, and how many cells of each."""

    wanted: dict[str | None, dict[str, int | None]]  # by context; None is every context
    fingerprint: str  # of the sorted names

    def of(self, context: str | None) -> dict[str, int | None]:
        """Return the perturbations of one context."""
        return self.wanted.get(context) or self.wanted.get(None) or {}


def read_panel(path: Path, cells: int | None) -> Panel:
    """Read pert_counts.csv; `cells` is the number where the file gives none."""
    rows = _rows(path)
    header = [name.strip().lstrip("﻿") for name in (rows[0] if rows else [])]
    if PERTURBATION not in header:
        raise UserError(f"{path} has no column {PERTURBATION}; it has {', '.join(header)}")
    wanted: dict[str | None, dict[str, int | None]] = {}
    names = set()
    for number, row in enumerate(rows[1:], 2):
        line = dict(zip(header, row, strict=False))
        name = line.get(PERTURBATION, "").strip()
        if not name:
            continue
        names.add(name)
        if name != CONTROL:
            context = line.get(CONTEXT, "").strip() or None
            wanted.setdefault(context, {})[name] = _cells(line, cells, f"{path}:{number}")
    if not any(wanted.values()):
        raise UserError(f"{path} names no perturbation")
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return Panel(wanted, f"sha256:{digest}")


def _cells(line: dict[str, str], default: int | None, where: str) -> int | None:
    """Return how many cells a line asks for; an empty field asks for no number."""
    if "n_cells" not in line:
        return default
    if not line["n_cells"].strip():
        return None
    try:
        return int(float(line["n_cells"]))
    except (ValueError, OverflowError):
        raise UserError(f"{where}: n_cells is {line['n_cells']!r}, not a number") from None


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file: {error}") from None


def sample(names: list[str], most: int = 10) -> str:
    """Write the first few names and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
