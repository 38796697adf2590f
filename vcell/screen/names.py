"""Lists of perturbations and of genes, as users name them in files."""

from __future__ import annotations

import csv
from pathlib import Path

from vcell.errors import UserError

_NAME_COLUMNS = ("target_gene", "perturbation", "gene")
_GENE_COLUMNS = ("gene", "gene_name", "symbol", "gene_symbol")


def read_perturbations(path: Path) -> dict[str, int | None]:
    """Read perturbations and the cells wanted of each, where the file says so.

    A CSV with a target_gene column and perhaps n_cells (as pert_counts_Validation.csv), or one name
    a line.
    """
    rows, column = _named_rows(path, _NAME_COLUMNS)
    head = [cell.strip() for cell in rows[0][1]]
    counts = head.index("n_cells") if "n_cells" in head else None
    found: dict[str, int | None] = {}
    for line, row in rows[0 if column is None else 1 :]:
        if len(row) < len(head):
            raise UserError(f"{path}:{line}: {len(row)} columns, the header has {len(head)}")
        found[row[column or 0].strip()] = (
            None if counts is None else _count(row[counts], path, line)
        )
    return found


def read_genes(path: Path) -> list[str]:
    """Read gene names: a CSV with a gene column (as select-genes writes), or one name a line."""
    rows, column = _named_rows(path, _GENE_COLUMNS)
    return [row[column or 0].strip() for _, row in rows[0 if column is None else 1 :]]


def _named_rows(
    path: Path, columns: tuple[str, ...]
) -> tuple[list[tuple[int, list[str]]], int | None]:
    """Return the numbered rows of a CSV and which of `columns` it has; None: one name a line."""
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file of names") from None
    rows = [(i, row) for i, row in enumerate(csv.reader(text), start=1) if any(row)]
    if not rows:
        raise UserError(f"{path} is empty")
    head = [cell.strip() for cell in rows[0][1]]
    column = next((head.index(name) for name in columns if name in head), None)
    if column is None and len(head) > 1:
        raise UserError(f"{path}:1: no column {' or '.join(columns)} in {', '.join(head)}")
    return rows, column


def _count(text: str, path: Path, line: int) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise UserError(f"{path}:{line}: n_cells is {text.strip()!r}, not a number of cells")
    return int(text)
