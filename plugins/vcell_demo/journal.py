"""The demo's finished steps, kept on disk so that a killed demo continues where it was.

`demo.json` holds the settings and what each finished step reported. It is replaced as a whole after
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
_DATA = "simulate"  # the step whose result outlives a finished demo


class StepRunner:
    """Runs steps once, as a user would: by the command line."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.done: dict[str, Any] = {}
        self._config: list[str] = []
        found = _read(folder)
        if found.get("settings") == settings:
            self.done = found["done"]
        if "finish" in self.done:  # a new round on the same cells
            self.done = {name: result for name, result in self.done.items() if name == _DATA}
        self._write()  # from now on the folder is the demo's

    def use_config(self, path: Path | None) -> None:
        """Run the following steps with this project file, or with none."""
        self._config = ["--no-config"] if path is None else ["--config", str(path)]

    def step(self, name: str, title: str, *words: Any, writes: Sequence[Path] = ()) -> Any:
        """Run ``vcell words --json`` unless it is done and `writes` there; return its result."""
        said = " ".join(map(str, words))
        return self.inside(name, f"{title}:  vcell {said}", lambda: self._vcell(words), writes)

    def inside(
        self, name: str, title: str, work: Callable[[], Any], writes: Sequence[Path] = ()
    ) -> Any:
        """Do a step that is not a command of vcell, unless it is done; return its result."""
        if name in self.done and all(path.exists() for path in writes):
            console.say(f"{title.partition(':  ')[0]}: done before")
            return self.done[name]
        console.say(f"\n{title}")
        started = time.monotonic()
        result = work()
        console.say(f"  {console.duration(time.monotonic() - started)}")
        return self.record(name, result)

    def record(self, name: str, result: Any) -> Any:
        """Remember that a step is done."""
        self.done[name] = result
        self._write()
        return result

    def _write(self) -> None:
        outputs.write_json(self.folder / _FILE, {"settings": self.settings, "done": self.done})

    def _vcell(self, words: Sequence[Any]) -> Any:
        command = [sys.executable, "-m", "vcell", *self._config, *map(str, words), "--json"]
        if console.settings.verbosity != console.NORMAL:
            command.append("--quiet" if console.settings.verbosity < 0 else "--verbose")
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode == UserError.exit_code:
            raise UserError(f"the step `vcell {words[0]}` refused, see above")
        if ran.returncode:
            raise RunFailed(f"the step `vcell {words[0]}` ended with code {ran.returncode}")
        return json.loads(ran.stdout)


def kept_in(folder: Path) -> bool:
    """Whether a demo's journal lies in a folder: what is in there is the demo's."""
    return bool(_read(folder))


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(found, dict) and isinstance(found.get("done"), dict) and "settings" in found
    return found if ours else {}
