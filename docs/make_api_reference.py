"""Write docs/api.md from the docstrings: ``python docs/make_api_reference.py [TARGET]``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from vcell import library, plugin

TARGET = Path(__file__).with_name("api.md")
_HEAD = """\
# API reference

Made from the docstrings by `python docs/make_api_reference.py`; do not edit by hand. Start with
[python.md](python.md). The functions of the first section take `verbose=True` as well. A command
without a function of its own is called by its name; its settings ([cli.md](cli.md)) are keywords.
"""
#: What a library or a plugin is written with; a class is shown with its public methods.
ROOMS = {
    "vcell.errors": ("VcellError", "UserError", "RunFailed", "VcellWarning"),
    "vcell.library": ("command", "function", "names"),
    "vcell.data": ("open_cells", "CellSource", "CellWriter"),
    "vcell.store": ("prepare", "Recipe", "Store", "Loader"),
    "vcell.genes": ("GeneIndex", "GeneSet"),
    "vcell.passes": ("Reader", "CellRules", "CellTable", "Reducer"),
    "vcell.metrics": ("score",),
    "vcell.runs": ("Run", "find_runs"),
    "vcell.plugin": ("Plugin", "announced"),
    "vcell.config": ("option", "configured"),
}


def functions() -> Iterator[tuple[str, Any]]:
    """Yield what is announced to be called as ``vcell.NAME``."""
    for name in plugin.announced(library.GROUP).found:
        yield f"vcell.{name}", library.function(name)


def entry(name: str, thing: Any, written: dict[str, str]) -> str:
    """Return one function or class as Markdown; `written` has the names by their docstrings."""
    about = inspect.getdoc(thing) or ""
    if (first := written.setdefault(about, name)) != name:
        return f"### {name}\n\nThe same as `{first}`.\n"
    lines = [f"### {name}\n", "```text", f"{name.rpartition('.')[2]}{_signature(thing)}"]
    lines += ["", about, "```\n"]
    if inspect.isclass(thing):
        for method, value in _methods(thing):
            first = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
            lines.append(f"- `{method}{_signature(value)}`: {first}")
        lines.append("")
    return "\n".join(lines)


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    members = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    for name, value in members.items():
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__  # noqa: PLW2901
        if not name.startswith("_") and inspect.isfunction(value):
            yield name, value


def _signature(thing: Any) -> str:
    try:
        text = re.sub(r"'| at 0x[0-9a-f]+", "", str(inspect.signature(thing)))
    except ValueError:
        return ""
    return text if len(text) < 500 else "(...)"


def reference() -> str:
    """Return the whole page."""
    written: dict[str, str] = {}
    parts = [_HEAD, "## vcell\n", *(entry(name, thing, written) for name, thing in functions())]
    for room, names in ROOMS.items():
        module = import_module(room)
        about = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
        parts += [f"## {room}\n", f"{about}\n"]
        parts += [entry(f"{room}.{name}", getattr(module, name), written) for name in names]
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    target = Path(sys.argv[1]) if sys.argv[1:] else TARGET
    target.write_text(reference())


if __name__ == "__main__":
    main()
