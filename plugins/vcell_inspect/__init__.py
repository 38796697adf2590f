"""`vcell inspect`: the contents of a file with cells, and its problems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import CellsPath, ManyFiles, configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class Inspect(ManyFiles):
    """Settings of `vcell inspect`, the [inspect] table."""

    full: bool = option(default=False, help="Read every cell instead of a sample.")
    html: Path | None = option(
        None, made="whole", help="Also write a page with plots to this file."
    )
    overwrite: bool = option(default=False, help="Replace the page where it exists already.")


@click.command("inspect")
@click.argument("files", nargs=-1, type=CellsPath(path_type=Path))
@configured(Inspect)
def command(files: tuple[Path, ...], config: Inspect) -> None:
    r"""Show what a file of cells contains, and what is wrong with it.

    Reads metadata and a sample of at most 1,024 cells, so it is fast however large the file is;
    --full reads every cell. FILES defaults to the project's cells; several are treated as one.

    \b
    Example: vcell inspect cells.h5ad --full --html cells.html
    """
    from vcell_inspect.work import run

    run(files, config)


plugin = Plugin(
    name="inspect",
    summary="Show what a file of cells contains and what is wrong with it.",
    command=command,
    config=Inspect,
    needs=("h5py", "numpy"),
)
