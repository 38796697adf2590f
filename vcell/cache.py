"""The cache folder: ``$VCELL_CACHE``, else vcell's folder in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """Return the folder; it need not exist."""
    if named := os.environ.get("VCELL_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vcell"
