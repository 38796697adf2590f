"""The summaries of plugins, without importing them.

`vcell --help` shows one line for each plugin. The line is in the plugin's `__init__`, and importing
all of them costs more than everything else that help does. So the lines are cached in the cache
folder, with what they depend on: the announced target, the distribution and its version, the
plugin's file, and the folders that packages are installed into. If any of these changes, the plugin
is imported again. A plugin that cannot be imported is never cached: once fixed, it is shown as
working.

If the cache cannot be written, every plugin is imported every time; nothing else changes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from vcell import __version__, cache, plugin
from vcell.plugin import Broken, Found

_INSTALLED = ("site-packages", "dist-packages")


def summaries() -> dict[str, str | Broken]:
    """Return the summary of every plugin, or why it cannot be loaded."""
    file, installed = _file(), _installed()
    known = _read(file, installed)
    entries: dict[str, list[Any]] = {}
    result: dict[str, str | Broken] = {}
    for name, found in plugin.discover().plugins.items():
        mark = _mark(found)
        if mark is not None and known.get(name, [None])[0] == mark:
            entries[name] = known[name]
            result[name] = known[name][1]
            continue
        loaded = plugin.load(name)
        result[name] = loaded if isinstance(loaded, Broken) else loaded.summary
        if mark is not None and not isinstance(loaded, Broken):
            entries[name] = [mark, loaded.summary]
    if any(known.get(name) != entry for name, entry in entries.items()):
        _write(file, installed, known | entries)
    return result


def _file() -> Path:
    """Return the path of the summaries of this environment."""
    return cache.root() / f"plugins-{crc32(sys.prefix.encode()):08x}.json"


def _installed() -> list[list[Any]]:
    """Return the folders of installed packages, and the times of their last changes."""
    folders = [path for path in sys.path if path.endswith(_INSTALLED)]
    return [[__version__, sys.version], *([p, t] for p in folders if (t := _changed(p)))]


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 - pathlib costs more than the call
    except OSError:
        return None


def _mark(found: Found) -> list[Any] | None:
    """Return what a summary depends on; None if the plugin's file cannot be found."""
    top, *rest = found.target.partition(":")[0].split(".")
    try:
        spec = importlib.util.find_spec(top)  # a top-level package: imports nothing
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin)
        if rest:
            path = path.parent.joinpath(*rest)
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        stat = path.stat()
    except (OSError, ImportError, ValueError, AttributeError):
        return None
    return [
        found.target, found.distribution, found.version, str(path), stat.st_mtime_ns, stat.st_size,
    ]  # fmt: skip


def _read(file: Path, installed: list[list[Any]]) -> dict[str, list[Any]]:
    """Return the cached summaries if the installed packages are the same; {} if damaged."""
    try:
        held = json.loads(file.read_text())
        plugins = held["plugins"] if held["installed"] == installed else {}
        sound = all(isinstance(mark, list) and isinstance(s, str) for mark, s in plugins.values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return plugins if sound else {}


def _write(file: Path, installed: list[list[Any]], plugins: dict[str, list[Any]]) -> None:
    """Cache summaries, if the cache is writable."""
    aside = file.with_name(f"{file.name}.tmp-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps({"installed": installed, "plugins": plugins}))
        aside.replace(file)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
