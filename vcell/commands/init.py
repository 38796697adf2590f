"""``vcell init NAME``: a project folder to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from vcell import console, outputs
from vcell.errors import UserError

_IGNORE = "runs/\n*.h5ad\n*.zarr/\n*.vcc\n"


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--cells", type=click.Path(path_type=Path), help="The file of cells to work with.")
def init(name: Path, cells: Path | None) -> None:
    r"""Create a project folder with a commented vcell.toml.

    \b
    Example: vcell init my-screen --cells screen.h5ad
    """
    from vcell.commands.config import plugin_configs
    from vcell.config.toml import FILE_NAME
    from vcell.config.write import template

    if name.exists() and (not name.is_dir() or any(name.iterdir())):
        raise UserError(f"{name} exists already and is not an empty folder", hint="choose another")
    if cells is not None and not cells.exists():
        raise UserError(
            f"{cells} does not exist", hint="name the file of cells, or leave --cells out"
        )
    given = {"data": {"cells": cells.resolve()}} if cells else {}
    with outputs.together(name / FILE_NAME, name / ".gitignore") as (settings, ignored):
        settings.write_text(template(plugin_configs(), given), encoding="utf-8")
        ignored.write_text(_IGNORE, encoding="utf-8")
    console.result(
        {"project": str(name), "file": str(name / FILE_NAME)},
        f"created {name / FILE_NAME}\nnext: cd {shlex.quote(str(name))}, then vcell inspect"
        + ("" if cells else " FILE"),
    )
