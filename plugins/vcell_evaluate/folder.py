"""An output folder that appears whole: filled under another name, then renamed."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, before any work is done."""
    if path.exists() and not (overwrite and path.is_dir()):
        hint = "add --overwrite to replace it" if path.is_dir() else "give another -o"
        raise UserError(f"{path} exists already", hint=hint)
    if path.exists() and not _ours(path):
        raise UserError(
            f"{path} was not made by vcell evaluate, so it is not replaced",
            hint="give another -o, or remove it yourself",
        )
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path.parent} is not a folder", hint="create it first")


def _ours(path: Path) -> bool:
    return (path / "score.json").is_file() or not any(path.iterdir())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes the name once the block has ended well."""
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        yield aside
        _swap(aside, path)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(aside: Path, path: Path) -> None:
    """Put the new folder in place of the old one, which is removed last."""
    if not path.exists():
        aside.rename(path)
        return
    old = path.with_name(f"{path.name}.old-{os.getpid()}")
    path.rename(old)
    aside.rename(path)
    shutil.rmtree(old)
