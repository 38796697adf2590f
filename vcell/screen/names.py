"""Lists of perturbations and of genes, as users name them in files."""

from __future__ import annotations

from pathlib import Path

from vcell.errors import UserError
from vcell.text_files import NamedColumns, names_of, read_rows

_NAME_COLUMNS = ("target_gene", "perturbation", "gene")
_GENE_COLUMNS = ("gene", "gene_name", "symbol", "gene_symbol")


def read_perturbations(path: Path) -> dict[str, int | None]:
    """Read perturbations and, where the file has them, the numbers of cells to make.

    A CSV with a target_gene column and perhaps n_cells (as pert_counts_Validation.csv), or one
    name per line.
    """
    table, column = read_perturbation_table(path)
    return dict(zip((row[column] for _, row in table.rows), cells_wanted(table), strict=True))


def read_perturbation_table(path: Path) -> tuple[NamedColumns, int]:
    """Read a list of perturbations with all its columns, and the index of the names' column."""
    return _read(path, _NAME_COLUMNS, "perturbation")


def cells_wanted(table: NamedColumns) -> list[int | None]:
    """Return the number of cells to make for each row; None where the file does not say."""
    column = table.column("n_cells")
    if column is None:
        return [None] * len(table.rows)
    return [_count(row[column], table.path, line) for line, row in table.rows]


def read_genes(path: Path) -> list[str]:
    """Read gene names: a CSV with a gene column (as select-genes writes), or one name per line."""
    table, column = _read(path, _GENE_COLUMNS, "gene")
    return [row[column] for _, row in table.rows]


def _read(path: Path, columns: tuple[str, ...], what: str) -> tuple[NamedColumns, int]:
    table, column = names_of(path, read_rows(path), columns)
    if not table.rows:
        raise UserError(f"{path} names no {what}")
    unnamed = next((line for line, row in table.rows if not row[column]), None)
    if unnamed is not None:
        raise UserError(f"{path}:{unnamed}: no {what} is named")
    return table, column


def _count(text: str, path: Path, line: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < 1:
        raise UserError(f"{path}:{line}: n_cells is {text[:40]!r}, not a number of cells")
    return int(text)
