"""The command line within this process: same parser and exit codes, no start-up time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import Ran
from vcell import cli, console

if TYPE_CHECKING:
    import pytest


class Here:
    """The command line, called from `folder`."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self._monkeypatch, self._capfd = monkeypatch, capfd
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("VCELL_CACHE", str(folder.parent / f"{folder.name}-cache"))

    def __call__(self, *words: str | Path) -> Ran:
        self._monkeypatch.chdir(self.folder)
        self._monkeypatch.setattr(console, "settings", console.Settings())
        self._capfd.readouterr()
        code = cli.run([str(word) for word in words])
        out, err = self._capfd.readouterr()
        return Ran(code, out, err)
