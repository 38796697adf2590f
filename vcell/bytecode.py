"""Bytecode of vcell and its plugins, so that no command compiles their sources when it starts.

pip writes it for what it installs from wheels. In a checkout Python writes it at the first import,
but not where PYTHONDONTWRITEBYTECODE is set, as in many containers: there every start compiles all
that it imports, which doubles the CPU time of ``vcell --help``.
"""

from __future__ import annotations

import compileall
import importlib.util
from pathlib import Path

from vcell import plugin


def write() -> None:
    """Compile the sources whose bytecode is missing or old, in folders that can be written to."""
    for path, current in sources().items():
        if not current:  # whoever imports a faulty source reports it
            compileall.compile_file(path, quiet=2, force=True)


def packages() -> list[Path]:
    """Return the folders of vcell and of the packages that announce plugins."""
    names = {found.target.partition(":")[0] for found in plugin.discover().plugins.values()}
    tops = {name.partition(".")[0] for name in names} | {"vcell"}
    specs = [importlib.util.find_spec(name) for name in sorted(tops)]
    places = [place for spec in specs if spec for place in spec.submodule_search_locations or ()]
    return [Path(place) for place in places]


def sources() -> dict[Path, bool]:
    """Return the Python files of these packages, and whether each has bytecode of its own state."""
    return {path: _is_current(path) for folder in packages() for path in folder.rglob("*.py")}


def _is_current(path: Path) -> bool:
    """Compare the source with the header of its bytecode (PEP 552): flags, time, size."""
    try:
        about = path.stat()
        with Path(importlib.util.cache_from_source(path)).open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    flags = int.from_bytes(head[4:8], "little")
    if head[:4] != importlib.util.MAGIC_NUMBER or len(head) < 16:
        return False
    if flags & 1:  # made by hash
        return True
    when, size = (int.from_bytes(head[i : i + 4], "little") for i in (8, 12))
    return (when, size) == (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)
