"""An output is never an input, under any name or link. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vcell.errors import UserError

#: Files of zarr's metadata, of version 3 and 2.
ZARR_METADATA = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}


def refuse_inputs(target: Path, inputs: Iterable[Path], *, into: bool = False) -> None:
    """Raise for an output that is an input, is inside one or contains one.

    Parameters
    ----------
    target
        The file or folder to write.
    inputs
        The files and folders that are read.
    into
        Whether the target is a folder that files are added to, which may contain inputs.

    Raises
    ------
    UserError
        If it is an input; the message says which.
    """
    for path in inputs:
        _refuse_input(target, path, into=into)


def _refuse_input(target: Path, path: Path, *, into: bool) -> None:
    if same(target, path):
        what = "an input" if target == path else f"{path}, which is an input"
        raise UserError(f"{target} is {what}: it is not written to", hint="give another name")
    real, source = real_path(target), real_path(path)
    if source.is_dir() and (source in real.parents or _linked_inside(real, source)):
        raise UserError(
            f"{target} lies inside {path}, which is an input", hint="give a name outside of it"
        )
    if not into and real in source.parents and os.path.lexists(target):
        raise UserError(
            f"{target} holds {path}, which is an input", hint="give another name for the output"
        )


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr store or a part of one."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def same(one: Path, other: Path) -> bool:
    """Whether two paths, which may be links or not exist, are the same file or folder."""
    try:
        if one.samefile(other):
            return True
    except OSError:
        pass
    return real_path(one) == real_path(other)


def _linked_inside(real: Path, folder: Path) -> bool:
    """Whether a file is a hard link to one inside a folder."""
    if not real.is_file() or real.stat().st_nlink < 2:
        return False
    about = real.stat()
    return any(
        os.path.samestat(about, inner.stat()) for inner in folder.rglob("*") if inner.is_file()
    )


def real_path(path: Path) -> Path:
    """Return a path without links; it need not exist."""
    return Path(os.path.realpath(path))
