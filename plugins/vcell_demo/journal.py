"""The finished steps of the demo, saved so that a killed demo continues.

`demo.json` holds the settings and the results of finished steps. It is replaced atomically after
each step. Steps write their files under temporary names first, so a step is either done or not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vcell import console, outputs
from vcell.errors import RunFailed, UserError

_FILE = "demo.json"
_DATA = "simulate"  # the step that is not repeated after a finished demo


class StepRunner:
    """Runs each step once, through the command line."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.done: dict[str, Any] = {}
        self._config: list[str] = []
        found = _read(folder)
        if found.get("settings") == settings:
            self.done = found["done"]
        if "finish" in self.done:  # start again with the same cells
            self.done = {name: result for name, result in self.done.items() if name == _DATA}
        self._write()  # marks the folder as the demo's

    def use_config(self, path: Path | None) -> None:
        """Use this project file, or none, in the following steps."""
        self._config = ["--no-config"] if path is None else ["--config", str(path)]

    def step(self, name: str, title: str, *arguments: Any, writes: Sequence[Path] = ()) -> Any:
        """Run ``vcell WORDS --json``, unless it is done and `writes` exist; return its result."""
        shown = " ".join(map(str, arguments))
        return self.inside(name, f"{title}:  vcell {shown}", lambda: self._vcell(arguments), writes)

    def inside(
        self, name: str, title: str, work: Callable[[], Any], writes: Sequence[Path] = ()
    ) -> Any:
        """Run a step that is not a command, unless it is done; return its result."""
        if name in self.done and all(path.exists() for path in writes):
            console.say(f"{title.partition(':  ')[0]}: done before")
            return self.done[name]
        console.say(f"\n{title}")
        started = time.monotonic()
        result = work()
        console.say(f"  {console.duration(time.monotonic() - started)}")
        return self.record(name, result)

    def record(self, name: str, result: Any) -> Any:
        """Save the result of a step."""
        self.done[name] = result
        self._write()
        return result

    def _write(self) -> None:
        outputs.write_json(self.folder / _FILE, {"settings": self.settings, "done": self.done})

    def _vcell(self, arguments: Sequence[Any]) -> Any:
        command = [sys.executable, "-m", "vcell", *self._config, *map(str, arguments), "--json"]
        if console.settings.verbosity != console.NORMAL:
            command.append("--quiet" if console.settings.verbosity < 0 else "--verbose")
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode == UserError.exit_code:
            raise UserError(f"the step `vcell {arguments[0]}` refused, see above")
        if ran.returncode:
            raise RunFailed(f"the step `vcell {arguments[0]}` ended with code {ran.returncode}")
        return json.loads(ran.stdout)


def kept_in(folder: Path) -> bool:
    """Return whether a folder has a demo's journal, so that its files may be replaced."""
    return bool(_read(folder))


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    valid = isinstance(found, dict) and isinstance(found.get("done"), dict) and "settings" in found
    return found if valid else {}
