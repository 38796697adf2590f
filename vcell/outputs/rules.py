"""Checks of outputs, before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vcell import signals
from vcell.errors import UserError
from vcell.outputs.aside import aside_of, cannot_write, sweep
from vcell.outputs.inputs import is_zarr, real_path, refuse_inputs, same
from vcell.outputs.marks import made_here, strangers

#: Endings of files: a folder with such a name would be misleading.
_OF_FILES = {
    ".h5ad", ".h5", ".csv", ".tsv", ".txt", ".xlsx", ".xls", ".parquet", ".json", ".jsonl", ".html",
    ".htm", ".md", ".pdf", ".png", ".svg", ".npz", ".npy", ".vcc", ".toml", ".zip", ".gz", ".tar",
}  # fmt: skip


def check(
    *targets: str | os.PathLike[str],
    inputs: Iterable[Any] = (),
    overwrite: bool = False,
    suffixes: tuple[str, ...] = (),
    parents: bool = False,
    folder: bool = False,
    flag: str = "--overwrite",
) -> None:
    """Raise for outputs that must not or cannot be written; remove leftovers of dead processes.

    Parameters
    ----------
    targets
        The files and folders that the command will write.
    inputs
        All its inputs; None is ignored.
    overwrite
        Whether outputs made by vcell may be replaced.
    suffixes
        Allowed endings of a target's name.
    parents
        Whether a missing parent folder will be made.
    folder
        Whether the targets are folders, whose names must not end like files' names.
    flag
        The flag of `overwrite`; empty if a command never replaces anything.

    Raises
    ------
    UserError
        The first reason against writing, and what to do.
    """
    # AnnData in memory and open sources may be among the inputs
    read = [Path(path) for path in inputs if isinstance(path, str | os.PathLike)]
    seen: list[Path] = []
    for target in map(Path, targets):
        if suffixes and target.suffix not in suffixes:
            *most, last = suffixes
            ends = f"{', '.join(most)} or {last}" if most else last
            raise UserError(f"{target}: the name of this output must end in {ends}")
        if folder and target.suffix.lower() in _OF_FILES and not target.is_dir():
            raise UserError(
                f"{target}: this output is a folder, but its name ends like a file's",
                hint=f"-o {target.with_suffix('')}",
            )
        for other in seen:
            if same(target, other):
                raise UserError(f"{target} is to be written twice", hint="give two names")
        seen.append(target)
        refuse_inputs(target, read)
        if os.path.lexists(target):
            _refuse_existing(target, overwrite=overwrite, flag=flag)
        _refuse_unwritable(target, parents=parents)


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise for a folder to which results cannot be added; it may be missing.

    Raises
    ------
    UserError
        If it is a file, in a zarr store, or not writable.
    """
    place = Path(folder)
    if os.path.lexists(place) and not place.is_dir():
        raise UserError(f"{place} is not a folder", hint="name another one")
    real = real_path(place)
    for around in (real, *real.parents):
        with suppress(PermissionError):
            if is_zarr(around):  # its data are not to be mixed with results
                what = "is" if around == real else f"lies inside {around}, which is"
                raise UserError(f"{place} {what} a zarr store", hint="name another folder")
    try:
        _refuse_unwritable(place / "new", parents=True)
    except UserError as error:
        raise UserError(error.message.replace(f"{place / 'new'}", f"{place}", 1)) from None


def _refuse_existing(target: Path, *, overwrite: bool, flag: str) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return  # nothing is lost
    if not (target.is_file() or target.is_dir() or target.is_symlink()):
        raise UserError(f"{target} is neither a file nor a folder", hint="give another name")
    ours = not target.exists() or made_here(target)  # a broken link
    if ours and not overwrite:
        hint = f"{flag} replaces it" if flag else "give another name, or remove it yourself"
        raise UserError(f"{target} exists already", hint=hint)
    if not ours:
        hint = "give another name, or remove it yourself"
        odd = strangers(target) if target.is_dir() else []
        if odd and len(odd) < sum(not path.is_dir() for path in target.rglob("*")):
            raise UserError(
                f"{target} exists already and holds {odd[0]}, which vcell did not make", hint=hint
            )
        raise UserError(
            f"{target} exists already and was not made by vcell, so it is not replaced", hint=hint
        )


def _refuse_unwritable(target: Path, *, parents: bool) -> None:
    """Try to make a file at the place of the output, without leftovers of earlier trials."""
    folder = real_path(target).parent
    while parents and not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        shown = target.parent if folder == real_path(target).parent else folder
        if folder.exists():
            raise UserError(f"{shown} is not a folder")
        raise UserError(f"{shown} is not a folder", hint="create it first")
    place = folder / real_path(target).name
    trial = aside_of(place)
    sweep(place)
    try:
        with signals.held_back(), trial.open("xb"):
            trial.unlink()
    except FileExistsError:
        pass  # this process is writing there
    except OSError as error:
        raise cannot_write(target, error) from None
