"""The software that a run was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

from vcell import __version__

_PACKAGES = ("torch", "numpy", "anndata", "h5py", "zarr", "numba", "scipy", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of vcell, Python and the installed packages that results depend on."""
    found = {"vcell": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Return the commit of the working directory's repository, and whether it is clean."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
