"""Write under a temporary name, then rename: a kill leaves the old output or the new one.

A file in progress is called ``NAME.tmp-PID`` and is in the folder of the output. It is removed when
the work fails or is interrupted; the leftovers of a killed process are removed by the next one that
writes the same output.
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

ASIDE = ".tmp-"  # part of the names of files in progress
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AT_ONCE = 16  # files that are flushed at once
_QUIET = 15  # checks of a removed folder, 20 ms apart
_LONGEST = 255 - len(ASIDE) - 10  # bytes of a name: most file systems' limit without our suffix


@contextmanager
def whole(target: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `target` if the block succeeds.

    Parameters
    ----------
    target
        A file or folder; a link is followed, so that it stays a link.
    sync
        Flush the content to disk before renaming; not needed for files that can be recreated.

    Raises
    ------
    UserError
        If the output cannot be written; `DiskFull` if there is no room for it.
    """
    with together(target, sync=sync) as (aside,):
        yield aside


@contextmanager
def folder(target: str | os.PathLike[str], *, listed_in: str = LIST) -> Iterator[Path]:
    """Yield a new, empty folder for results, which replaces `target` at the end.

    vcell's files are listed, so that files that the user adds later are recognised: in the JSON
    file `listed_in`, which the command may write itself.
    """
    with whole(target) as aside:
        aside.mkdir(parents=True)
        yield aside
        write_list(aside, listed_in)


@contextmanager
def together(*targets: str | os.PathLike[str], sync: bool = True) -> Iterator[list[Path]]:
    """Yield temporary paths for several outputs that belong together; all appear, or none.

    The other outputs describe the first: they are removed before it is replaced, so that even a
    kill between two renames never leaves it with the descriptions of another. Missing folders
    around them are made, and removed again if nothing was written.
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
    """Return those of these folders, and of their parents, that do not exist yet.

    Innermost folders come first.
    """
    around = {one for folder in folders for one in (folder, *folder.parents) if not one.exists()}
    return sorted(around, reverse=True)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove empty folders that were made for something that failed."""
    for one in folders:
        with suppress(OSError):  # not empty
            one.rmdir()


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace a text file atomically."""
    with whole(path, sync=sync) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object, *, sync: bool = True) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", sync=sync)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Explain a failure to write in one sentence; a full disk is a `DiskFull`."""
    path = Path(str(path).partition(ASIDE)[0])
    if error.errno in FULL:
        why = room(error)
        return DiskFull(f"{path} cannot be written: {why}; nothing was kept", why=why)
    return UserError(f"{path} cannot be written: {error.strerror or error}")


def sweep(target: Path) -> None:
    """Remove partial files of an output that dead processes left."""
    place = Path(os.path.realpath(target))
    name = aside_of(place).name.rpartition(ASIDE)[0] + ASIDE
    with suppress(OSError):
        for left in place.parent.iterdir():
            pid = left.name.removeprefix(name).partition(".")[0]
            if left.name.startswith(name) and pid.isdigit() and not _alive(int(pid)):
                _remove(left)


def aside_of(place: Path) -> Path:
    """Return the temporary path of an output for this process."""
    name = os.fsencode(place.name)[:_LONGEST].decode(errors="ignore")
    return place.with_name(f"{name}{ASIDE}{os.getpid()}")


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush a file to disk, and give it the usual permissions of new files.

    safetensors, like `tempfile`, makes files that only their owner can read: nobody else in a group
    could predict with a model in a shared folder.
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
    """Flush a folder and all its contents to disk, many at once.

    They share commits of the file system's journal: 79 files take a tenth of the time.
    """
    from concurrent.futures import ThreadPoolExecutor  # few commands write folders

    _usual_mode()  # asking for it changes the mask of the process for a moment
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_sync_one, [*path.rglob("*"), path]))  # raises the first error


def _sync_one(entry: Path) -> None:
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
    """Remove failed output; threads of zarr may still write into a folder for a moment."""
    quiet = 0 if path.is_dir() else _QUIET
    with suppress(OSError):
        _remove(path)
    while quiet < _QUIET:
        time.sleep(0.02)
        quiet = 0 if os.path.lexists(path) else quiet + 1
        shutil.rmtree(path, ignore_errors=True)


def _speaks_of(error: OSError, aside: Path) -> bool:
    """Whether an error is about the output, not about an input."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_name(name)]
    return any(name.startswith(str(aside)) for name in names)


def _is_name(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def room(error: OSError) -> str:
    """Return which limit was reached."""
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
