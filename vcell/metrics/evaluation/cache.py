"""A cache of baselines and ceilings, which depend only on the real cells and the rules.

The key is a hash of what determines the result: statistics just computed from the real cells (group
of each cell, group means, rank statistics of every gene), the names scored, the rules and vcell's
version. So a copied or recompressed file finds its entry, a changed file never does, and hashing
reads no file. An entry is one JSON file, written aside and renamed; a damaged one is computed
again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import __version__, cache, console, outputs
from vcell.errors import VcellError

if TYPE_CHECKING:
    from collections.abc import Callable


def folder(chosen: Path | None) -> Path:
    """Return the folder of the entries."""
    return chosen or cache.root()


def key(*parts: Any) -> str:
    """Hash what determines a result."""
    digest = hashlib.sha256(__version__.encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str(part.shape).encode())
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            digest.update(json.dumps(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def cached(
    place: Path, what: str, name: str, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return the entry `name`; compute and store it if there is none."""
    path = place / what / f"{name}.json"
    try:
        entry: dict[str, Any] = json.loads(path.read_text())
        if entry.pop("key") == name:
            console.say(f"{what}: reused from an earlier run ({path})")
            return entry
    except (OSError, ValueError, AttributeError, KeyError):
        pass  # absent or damaged: computed again
    entry = compute()
    try:
        # may contain NaN (not standard JSON): a metric may have no value
        outputs.write_text(path, json.dumps(entry | {"key": name}), sync=False)
    except (OSError, VcellError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        console.warn(f"the {what} is not kept in {path.parent}: {why}")
    return entry
