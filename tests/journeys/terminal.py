"""A terminal of 80 columns and 24 lines, a pipe, and a locale without UTF-8."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

from tests.support import PATIENCE, clean_environment

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """The visible lines, and the exit code."""

    code: int
    text: str

    @property
    def plain(self) -> str:
        """The text without escape codes; of redrawn lines, the last state."""
        lines = _ESCAPES.sub("", self.text).replace("\r\n", "\n").split("\n")
        return "\n".join(line.rpartition("\r")[2] for line in lines)

    @property
    def widest(self) -> str:
        return max(self.plain.split("\n"), key=len)


def on_terminal(*words: str | Path, cwd: Path, columns: int = 80, **env: str) -> Shown:
    """Run vcell in a terminal, as over ssh."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = clean_environment() | {"TERM": "xterm-256color"} | env
    environment.pop("COLUMNS")
    process = subprocess.Popen(
        [sys.executable, "-m", "vcell", *map(str, words)],
        cwd=cwd, env=environment, stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    seen = bytearray()
    while True:
        ready, _, _ = select.select([leader], [], [], PATIENCE)
        assert ready, "it hangs"
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    return Shown(process.wait(PATIENCE), seen.decode("utf-8", errors="replace"))


def piped(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run vcell in a pipe; return bytes, since the encoding is tested."""
    return subprocess.run(
        [sys.executable, "-m", "vcell", *map(str, words)],
        cwd=cwd, env=clean_environment() | env, capture_output=True, check=False,
    )  # fmt: skip


WITHOUT_UTF8 = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
