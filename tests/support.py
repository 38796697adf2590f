"""Helpers of tests that are not fixtures."""

from __future__ import annotations

import ctypes
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: Seconds until what hangs is ended. On a quiet machine nothing takes a tenth of this; a machine
#: where twenty processes share two cores must pass as well.
PATIENCE = 1200.0


@dataclass(frozen=True)
class Ran:
    """The outcome of running vcell: exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def clean_environment() -> dict[str, str]:
    """The environment without vcell settings, colours or completion."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VCELL", "_VCELL"))}
    return environment | {"NO_COLOR": "1", "COLUMNS": "100"}


def shortly(names: Iterable[Any], *by_default: Any) -> list[Any]:
    """Return parameters of a test: a few by default, and all of them in slow tests."""
    return [n if n in by_default else pytest.param(n, marks=pytest.mark.slow) for n in names]


@contextmanager
def permissions_obeyed() -> Iterator[None]:
    """Give up, for a while, root's right to read and write whatever permissions forbid."""
    if os.geteuid() != 0:
        yield
        return
    libc, head = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the upper 32 bits
    if libc.capget(head, before):
        pytest.skip("what this process may do cannot be asked here")
    fewer = (ctypes.c_uint32 * 6)(*before)
    fewer[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc.capset(head, fewer)
    try:
        yield
    finally:
        libc.capset(head, before)


_PEAK = """
import sys
from pathlib import Path
{before}
from vcell.cli import run
code = run(sys.argv[1:])
# not ru_maxrss, which starts at the parent's memory when this process was forked
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print("peak", peak, file=sys.stderr)
sys.exit(code)
"""


def peak_of(
    *words: object, cwd: Path, env: dict[str, str] | None = None, before: str = ""
) -> tuple[float, str]:
    """Run vcell in a separate process; return its peak memory in MiB, and its messages.

    `before` is code that runs first in that process.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _PEAK.format(before=before), *map(str, words)],
        cwd=cwd, env=clean_environment() | (env or {}), capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    messages, peak = ran.stderr.rsplit("peak", 1)
    return int(peak) / 1024, messages


@contextmanager
def _in(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Change to a folder and an environment, and back."""
    before, kept = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(kept)


def in_this_process(words: Iterable[str | Path], cwd: Path) -> Ran:
    """Run the real command line in this process, to import torch only once."""
    from vcell import console
    from vcell.cli import run

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    before = console.settings
    console.settings = console.Settings()
    try:
        with _in(cwd, clean_environment()), redirect_stdout(out), redirect_stderr(err):
            code = run([str(word) for word in words])
    finally:
        console.settings = before
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Ran(code, *texts)
