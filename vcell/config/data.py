"""The shared ``[data]`` table: the file of cells and the meaning of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vcell.config.fields import option

#: Labels that mean "no label".
NO_LABEL = (
    "", "nan", "NaN", "NA", "None", "none", "unknown", "Unknown", "unassigned", "Unassigned",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CellsOption:
    """The setting of the file of cells."""

    heading = "Cells"

    cells: Path | None = option(
        None, help="The cells: an h5ad or zarr file, a folder of them, or a 10x folder."
    )


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Settings of columns, for commands that take cells as arguments."""

    heading = "Cells"

    perturbation_column: str | None = option(
        None, help="The obs column that names each cell's perturbation."
    )
    control: str | None = option(None, help="The label of unperturbed cells in that column.")
    batch_column: str | None = option(None, help="The obs column that names each cell's batch.")
    cell_type_column: str | None = option(
        None, help="The obs column that names each cell's type or line."
    )
    layer: str | None = option(
        None, help="The layer that holds the values; 'raw' for raw/X (default: X)."
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(ColumnOptions, CellsOption):
    """Settings that every command reading cells shares. A command's config class inherits them.

    Each can be set once in ``[data]`` and overridden in a command's own table, by
    ``VCELL_<COMMAND>_<KEY>`` or ``VCELL_DATA_<KEY>``, or by a flag. ``None``: detected from the
    file, and reported.
    """


#: Classes whose settings can be in [data]; settings of other classes with the same name cannot.
SHARED = frozenset({CellsOption.__name__, ColumnOptions.__name__, DataOptions.__name__})


@dataclass(frozen=True, kw_only=True)
class ManyFiles(DataOptions):
    """The same for commands that read several files as one."""

    join: Literal["strict", "inner", "outer"] = option(
        "strict",
        help="Genes of several files: identical, the intersection, or the union.",
    )
