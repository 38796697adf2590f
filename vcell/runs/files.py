"""Write files so that a kill at any moment leaves the old one or the new one, never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from vcell.errors import UserError

ASIDE = ".tmp-"  # part of the name of everything that is being written


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step, on the disk before it is visible."""
    aside = path.with_name(f"{path.name}{ASIDE}{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a missing or damaged file is a UserError."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is damaged: {_one_line(error)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: is damaged: it holds no JSON object")
    return value


def _one_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Put a file's content on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left half-written; the caller is the folder's only writer."""
    for entry in folder.glob(f"*{ASIDE}*"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
