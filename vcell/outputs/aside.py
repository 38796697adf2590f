"""Write under another name, then rename: a kill at any moment leaves the old output or the new one.

A file in progress is called ``NAME.tmp-PID`` and lies in the folder of the output. It is removed
when the work fails or is interrupted; the leftovers of a killed process are removed by the next one
that writes the same output.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from vcell import signals
from vcell.errors import DiskFull, UserError
from vcell.outputs.marks import LIST, write_list

ASIDE = ".tmp-"  # part of the name of everything that is being written
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_QUIET = 15  # looks at a removed folder, 20 ms apart
_LONGEST = 255 - len(ASIDE) - 10  # bytes of a name, most file systems' limit less our ending


@contextmanager
def whole(target: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """Yield another name; what is written there takes the name `target` if the block ends well.

    Parameters
    ----------
    target
        A file or folder; a link is followed, so that it stays one.
    sync
        Put the content on the disk before it becomes visible; not for what can be made again.

    Raises
    ------
    UserError
        The output cannot be written; `DiskFull` where there is no room for it.
    """
    with together(target, sync=sync) as (aside,):
        yield aside


@contextmanager
def folder(target: str | os.PathLike[str], *, listed_in: str = LIST) -> Iterator[Path]:
    """Yield a new, empty folder for results, which takes the place of `target` in the end.

    It lists what vcell put there, so that files the user adds later are known from ours: in the
    JSON file `listed_in`, among what the command writes there or in a file of its own.
    """
    with whole(target) as aside:
        aside.mkdir(parents=True)
        yield aside
        write_list(aside, listed_in)


@contextmanager
def together(*targets: str | os.PathLike[str], sync: bool = True) -> Iterator[list[Path]]:
    """Yield a name aside for each of several outputs that belong together; all appear, or none.

    The first is the one that the others describe: those are taken away before it is replaced, so
    that even a kill between two renames never leaves it beside the descriptions of another.
    Folders around them are made, and taken away again where nothing came to lie in them.
    """
    places = [Path(os.path.realpath(target)) for target in targets]
    asides = [aside_of(place) for place in places]
    around = missing_folders(*(place.parent for place in places))
    try:
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
        yield asides
        if sync:
            for aside in asides:
                _sync(aside)
        with signals.held_back():
            for place in places[1:]:
                _remove(place)
            for aside, place in zip(asides, places, strict=True):
                _put(aside, place)
        if sync:
            for parent in {place.parent for place in places}:
                sync_folder(parent)
    except OSError as error:
        about = next(
            (t for t, aside in zip(targets, asides, strict=True) if _speaks_of(error, aside)), None
        )
        if about is None and error.errno not in FULL:
            raise
        raise cannot_write(Path(about or targets[0]), error) from error
    finally:
        with signals.held_back():
            for aside in asides:
                _remove_for_good(aside)
            remove_empty(around)


def missing_folders(*folders: Path) -> list[Path]:
    """Return those of these folders, and of the folders around them, that are still to be made.

    The innermost come first.
    """
    around = {one for folder in folders for one in (folder, *folder.parents) if not one.exists()}
    return sorted(around, reverse=True)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that were made for something that failed; one with other files in it stays."""
    for one in folders:
        with suppress(OSError):  # it is not empty
            one.rmdir()


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace a text file in one step."""
    with whole(path, sync=sync) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object, *, sync: bool = True) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", sync=sync)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Return a failure to write as one sentence: a full disk is nobody's mistake."""
    path = Path(str(path).partition(ASIDE)[0])
    if error.errno in FULL:
        why = room(error)
        return DiskFull(f"{path} cannot be written: {why}; nothing was kept", why=why)
    return UserError(f"{path} cannot be written: {error.strerror or error}")


def sweep(target: Path) -> None:
    """Remove what processes that are dead left half-written of an output."""
    place = Path(os.path.realpath(target))
    name = aside_of(place).name.rpartition(ASIDE)[0] + ASIDE
    with suppress(OSError):
        for left in place.parent.iterdir():
            pid = left.name.removeprefix(name).partition(".")[0]
            if left.name.startswith(name) and pid.isdigit() and not _alive(int(pid)):
                _remove(left)


def aside_of(place: Path) -> Path:
    """Return the name under which this process writes an output."""
    name = os.fsencode(place.name)[:_LONGEST].decode(errors="ignore")
    return place.with_name(f"{name}{ASIDE}{os.getpid()}")


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Put a file's content on the disk, with the permissions that new files have.

    safetensors, as `tempfile` does, makes files that only their owner can read: in a group's folder
    of runs nobody else could predict with a model.
    """
    with path.open("rb") as stream:
        os.fchmod(stream.fileno(), _usual_mode())
        os.fsync(stream.fileno())


@cache
def _usual_mode() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def sync_tree(path: Path) -> None:
    """Put a folder with all that is in it on the disk."""
    for entry in [*path.rglob("*"), path]:
        (sync_folder if entry.is_dir() else sync_file)(entry)


def _sync(path: Path) -> None:
    (sync_tree if path.is_dir() else sync_file)(path)


def _put(aside: Path, place: Path) -> None:
    """Rename; a folder in the way is moved aside first and removed last."""
    if not place.is_dir():
        aside.replace(place)
        return
    old = aside.with_name(f"{aside.name}.old")
    place.rename(old)
    aside.rename(place)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_for_good(path: Path) -> None:
    """Remove what failed; threads of zarr may write into a folder a little longer."""
    quiet = 0 if path.is_dir() else _QUIET
    with suppress(OSError):
        _remove(path)
    while quiet < _QUIET:
        time.sleep(0.02)
        quiet = 0 if os.path.lexists(path) else quiet + 1
        shutil.rmtree(path, ignore_errors=True)


def _speaks_of(error: OSError, aside: Path) -> bool:
    """Whether an error is about what was being written, not about what was read for it."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_name(name)]
    return any(name.startswith(str(aside)) for name in names)


def _is_name(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def room(error: OSError) -> str:
    """Say which room there is none of."""
    if error.errno == errno.EFBIG:
        return "the file would be larger than this process or file system allows"
    if error.errno == errno.EDQUOT:
        return "your quota on this disk is used up"
    return "no space is left on the disk"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
