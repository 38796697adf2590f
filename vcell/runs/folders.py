"""The folders of runs: their names, finding them, and reading run.json."""

from __future__ import annotations

import re
import secrets
import shutil
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


def sweep(root: Path) -> None:
    """Remove unfinished folders of runs whose process was killed while making them."""
    for entry in root.iterdir() if root.is_dir() else ():
        if not _STAMPED.match(entry.name) or has_meta(entry):
            continue
        with suppress(OSError, UserError):  # of another user, or just removed by another process
            if any(process.is_alive(files.read_json(p)) is False for p in entry.glob(f"{MAKER}*")):
                shutil.rmtree(entry)


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
