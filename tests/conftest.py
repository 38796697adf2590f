"""Fixtures that every test area shares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE, Ran, clean_environment

# Where tests run in the background (`nohup make test &`), signals that they send are ignored: all
# their processes would inherit that.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# Two test processes with two threads each on two cores wait for one another: ten times the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets next to a developer's checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets of ../shared/data are not on this machine")
    return folder


@pytest.fixture
def vcell(tmp_path: Path) -> Callable[..., Ran]:
    """Run the real command line in a separate process, by default from an empty folder."""

    def run(
        *words: str | Path,
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "vcell", *map(str, words)],
            cwd=cwd,
            env=clean_environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run the command line within this process."""
    from vcell import cli, console

    for name in [name for name in os.environ if name.startswith(("VCELL", "_VCELL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str | Path, cwd: Path = tmp_path) -> Ran:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(console, "settings", console.Settings())
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def small_disk(tmp_path_factory) -> Iterator[Path]:
    """A file system of 3 MB; skip the test if this user may not mount one."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        ran = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if ran.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with the console's default settings."""
    from vcell import console

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "settings", console.Settings())


@pytest.fixture(scope="session")
def simulator() -> Any:
    """A small screen with known effects."""
    from vcell.data.simulate import Simulator

    return Simulator(cells=2600, genes=300, perturbations=34, batches=2, umis=3000.0, seed=1)


@pytest.fixture(scope="session")
def cells(simulator: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells of the small screen."""
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    simulator.write(path)
    return path
