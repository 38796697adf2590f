"""The folders of runs: their names, finding them, and reading run.json."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vcell.errors import UserError
from vcell.outputs.aside import ASIDE
from vcell.runs import files, process
from vcell.suggest import did_you_mean

#: Version of run.json.
SCHEMA = 1
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_STAMPED = re.compile(r"^\d{8}-\d{6}-.+-[0-9a-f]{4}$")  # a default name
#: Begins the name of a file that identifies the process that is making a run.
MAKER = f"maker{ASIDE}"
STALLED_AFTER = 600.0  # seconds without a sign of life, as in wandb
_TABLES = ("config", "provenance", "versions", "machine", "process", "summary")


def make(root: Path, command: str, name: str | None) -> Path:
    """Make the folder of a new run; its default name is the time and the command."""
    if name is not None and not NAME.match(name):
        raise UserError(f"{name!r} cannot be the name of a run", hint="use letters and digits")
    root.mkdir(parents=True, exist_ok=True)
    if name is not None:
        (root / name).mkdir()
        return root / name
    while True:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = root / f"{stamp}-{command}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def sweep(root: Path, name: str | None = None) -> None:
    """Remove unfinished folders of runs whose process was killed while making them.

    One of this `name` may be empty: its process was killed before it could say which it is.
    """
    for entry in root.iterdir() if root.is_dir() else ():
        if not NAME.match(entry.name):
            continue
        with suppress(OSError):  # of another user, or just removed by another process
            ours = entry.name == name or _STAMPED.match(entry.name) or any(_makers(entry))
            if ours and is_abandoned(entry):
                shutil.rmtree(entry)


def is_being_made(folder: Path) -> bool:
    """Whether another process seems to be making a run in this folder.

    Raises
    ------
    UserError
        If the folder is a user's, and will never be a run.
    """
    if not folder.exists() or has_meta(folder):
        return False
    if (not folder.is_dir() or _holds_others(folder)) and not has_meta(folder):
        raise UserError(f"{folder} exists and is not a run", hint="give another name")
    return not is_abandoned(folder)


def is_abandoned(folder: Path) -> bool:
    """Whether a folder without run.json is what is left of a process that was making a run.

    A process of another machine, or one that left no name, is taken for dead after ten minutes.
    """
    if has_meta(folder) or not folder.is_dir():
        return False
    if _holds_others(folder):
        return False
    makers = list(_makers(folder))
    alive = [_is_alive(maker) for maker in makers]
    if False in alive:
        return True
    try:
        changed = max(path.stat().st_mtime for path in (folder, *makers))
    except OSError:
        return False  # just finished by another process
    return True not in alive and time.time() - changed > STALLED_AFTER


def _holds_others(folder: Path) -> bool:
    """Whether a folder without run.json holds files, and none of them says who is making it."""
    return not any(_makers(folder)) and any(not path.is_dir() for path in folder.rglob("*"))


def _makers(folder: Path) -> Iterator[Path]:
    return folder.glob(f"{MAKER}*")


def _is_alive(maker: Path) -> bool | None:
    try:
        return process.is_alive(files.read_json(maker))
    except UserError:  # cut short by a power failure
        return None


def resolve(name: str, root: Path) -> Path:
    """Find the folder of a run; outside `root` only by an explicit path."""
    given = Path(name)
    if (given / "run.json").is_file():
        return given
    if not NAME.match(name):
        raise UserError(f"{name}: is not a run directory: it has no run.json")
    names = sorted(
        entry.name for entry in (root.iterdir() if root.is_dir() else ()) if _is_run(entry)
    )
    if name == "latest" and names:
        return root / max(names, key=lambda n: (_created(root / n), n))
    if name in names:
        return root / name
    beginning = [n for n in names if n.startswith(name)]
    if len(beginning) == 1:
        return root / beginning[0]
    if beginning:
        raise UserError(f"{name!r} begins the names of {len(beginning)} runs in {root}")
    if given.exists():
        raise UserError(f"{name} is not a run directory: it has no run.json")
    if not names:
        raise UserError(f"there are no runs in {root}", hint="vcell demo makes one")
    meant = did_you_mean(name, names)
    raise UserError(f"no run in {root} is called {name!r}{meant}", hint="vcell runs list")


def _is_run(entry: Path) -> bool:
    return not entry.name.startswith(".") and has_meta(entry)


def has_meta(entry: Path) -> bool:
    """Return whether a folder has a run.json, or cannot be read and so may have one."""
    try:
        return (entry / "run.json").is_file()
    except PermissionError:
        return True


def _created(path: Path) -> str:
    """Return when a run was made, as text that sorts by time; damaged runs come first."""
    try:
        return str(read_meta(path).get("created", ""))
    except UserError:
        return ""


def read_meta(path: Path) -> dict[str, Any]:
    """Read run.json and check that this version can read it."""
    file = path / "run.json"
    by_hand = f"repair it by hand, or remove the folder {path}"
    try:
        meta = files.read_json(file)
    except UserError as error:
        raise UserError(error.message, hint=by_hand) from None
    schema = meta.get("schema")
    if not isinstance(schema, int):
        raise UserError(f"{file}: is damaged: it names no schema", hint=by_hand)
    if schema > SCHEMA:
        raise UserError(
            f"{path}: was written by a newer vcell (schema {schema}; this one reads {SCHEMA})",
            hint="upgrade vcell",
        )
    for name in _TABLES:
        if not isinstance(meta.get(name, {}), dict):
            raise UserError(f"{file}: is damaged: its {name} is not a table", hint=by_hand)
    return meta
