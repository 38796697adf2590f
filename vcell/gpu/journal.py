"""The settings of a card before vcell changed them, on disk, so that they survive any crash.

States: ``journalled`` (nothing set yet), ``held`` (everything set), ``restoring``. After restoring,
the file is removed. File and folder are flushed to disk before the first setting is changed.
Standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vcell import outputs
from vcell.errors import UserError
from vcell.outputs.aside import sync_folder

State = Literal["journalled", "held", "restoring"]
SCHEMA = 1


def folder() -> Path:
    """Return the folder of journals: VCELL_GPU_STATE, /run/vcell for root, else the user's own.

    A reboot clears both the settings and /run.
    """
    named = os.environ.get("VCELL_GPU_STATE")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/run/vcell")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache") / "vcell"


@dataclass(frozen=True)
class Entry:
    """One card's journal."""

    uuid: str
    name: str
    state: State
    before: dict[str, Any]  # as CardSettings.plain
    wanted: dict[str, Any]
    pid: int  # process that set it
    schema: int = SCHEMA


class Journal:
    """The journal of one card."""

    def __init__(self, uuid: str) -> None:
        self.path = folder() / f"gpu-{re.sub(r'[^A-Za-z0-9-]', '', uuid)}.json"

    def read(self) -> Entry | None:
        """Return the entry; None if the card was not changed."""
        try:
            found = json.loads(self.path.read_text())
            return Entry(**found)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise UserError(
                f"{self.path} is damaged, so the card's earlier settings are not known",
                hint="set the card by nvidia-smi -pm, -pl, -rgc; then remove the file",
            ) from None

    def write(self, entry: Entry) -> None:
        """Write an entry to disk, atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        outputs.write_json(self.path, asdict(entry))
        sync_folder(self.path.parent)

    def note(self, state: State) -> None:
        """Change the state of the entry."""
        entry = self.read()
        if entry is not None:
            self.write(replace(entry, state=state))

    def clear(self) -> None:
        """Remove the journal of a restored card."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock this card against changes by other processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    "another vcell gpu-tune is changing this card", hint="wait until it has ended"
                ) from None
            yield


def stale() -> list[Entry]:
    """Return the entries of all cards that have not been restored."""
    found = [
        Journal(path.stem.removeprefix("gpu-")).read()
        for path in sorted(folder().glob("gpu-*.json"))
    ]
    return [entry for entry in found if entry is not None]
