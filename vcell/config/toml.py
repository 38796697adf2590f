"""Find and read ``vcell.toml``, and find the line of a key.

Python's TOML readers give no positions. `line_of` finds them by parsing growing prefixes of the
file until the key appears: this is exact for dotted keys, inline tables and multi-line strings, and
costs nothing unless there is an error to report.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcell.errors import UserError
from vcell.text_files import decoded, read_bytes

FILE_NAME = "vcell.toml"
_POSITION = re.compile(
    r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$",
    re.DOTALL,
)
_MAX_BYTES = (
    1 << 20
)  # a project file is a page or two: a data file given by mistake is refused early


@dataclass(frozen=True)
class ProjectFile:
    """One parsed project file."""

    path: Path
    text: str
    tables: dict[str, Any] = field(repr=False)

    def at(self, *keys: str) -> str:
        """Return ``vcell.toml:12`` for a key of this file."""
        line = line_of(self.text, keys)
        return f"{shown_path(self.path)}:{line}" if line else shown_path(self.path)


def shown_path(path: Path) -> str:
    """Return the shorter of the absolute path and the path from the working directory."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)


def find(start: Path | None = None) -> Path | None:
    """Search upward from the working directory; only the nearest project file is used.

    What has its name and is no file is found too: `read` refuses it, rather than nobody noticing.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        candidate = folder / FILE_NAME
        if os.path.lexists(candidate):
            return candidate
    return None


def read(path: Path) -> ProjectFile:
    """Read and parse a project file; errors are UserErrors with line and column."""
    import tomllib  # 10 ms, and most commands read no project file

    shown = shown_path(path)
    try:
        raw = read_bytes(path, _MAX_BYTES + 1)
    except IsADirectoryError:
        raise UserError(
            f"{shown} is a folder, not a project file",
            hint="rename it, name a file with --config, or use --no-config",
        ) from None
    except OSError as error:
        raise UserError(
            f"{shown}: cannot be read: {error.strerror}", hint="name another file with --config"
        ) from None
    if len(raw) > _MAX_BYTES:
        raise UserError(
            f"{shown}: is over 1 MiB, too large for a project file",
            hint="name another file with --config",
        )
    text = decoded(shown, raw)
    try:
        return ProjectFile(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UserError(_syntax_message(shown, text, str(error))) from None
    except RecursionError:
        raise UserError(f"{shown}: lists or tables are nested too deeply") from None
    except (ValueError, OverflowError) as error:  # e.g. an integer of over 4,300 digits
        raise UserError(f"{shown}: {error}") from None


def _syntax_message(shown: str, text: str, message: str) -> str:
    found = _POSITION.match(message)
    if not found:
        return f"{shown}: {message}"
    if found["line"] is None:
        return f"{shown}:{text.count(chr(10)) + 1}: {found['what']} at the end of the file"
    return f"{shown}:{found['line']}:{found['column']}: {found['what']}"


def line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """Return the 1-based line on which a dotted key's statement ends, or None if absent.

    For a table, that is the line of its header (or of the first key that creates it).
    """
    lines = text.splitlines(keepends=True)
    bare = keys[-1] if keys else ""
    first = next((i for i, line in enumerate(lines) if bare in line), 0)
    for end in range(first + 1, len(lines) + 1):
        if _contains("".join(lines[:end]), keys):
            return end
    # An escaped key ("batch\\u002dsize") cannot be found by its letters: start from the top.
    return next((end for end in range(1, first + 1) if _contains("".join(lines[:end]), keys)), None)


def _contains(prefix: str, keys: tuple[str, ...]) -> bool:
    import tomllib

    try:
        node: Any = tomllib.loads(prefix)
    except (ValueError, RecursionError, OverflowError):
        return False
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True
