"""A wheel in an environment of its own behaves like the checkout."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support import clean_environment
from vcell.plugin import discover


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, repository) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, repository], check=True, capture_output=True)
    (built,) = folder.glob("vcell-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """An environment with vcell from the wheel; the dependencies are those of this one.

    A .pth file brings the other site-packages in. Python does not follow .pth files found there,
    so the editable install of the checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    inside = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(inside), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return inside


def in_wheel(python: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", "-m", "vcell", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean_environment(),
        check=False,
    )


def test_it_is_the_wheel_that_runs(python, tmp_path):
    code = "import vcell, sys; print(vcell.__file__)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(python.parents[1])


@pytest.mark.parametrize("words", [["--help"], ["config", "schema"], ["plugins", "--json"]])
def test_it_answers_like_the_checkout(python, vcell, tmp_path, words):
    ours = vcell(*words)
    theirs = in_wheel(python, tmp_path, *words)
    assert (theirs.returncode, theirs.stdout) == (ours.code, ours.out)


def test_its_plugins_do_real_work(python, tmp_path):
    done = in_wheel(
        python, tmp_path, "simulate", "cells.h5ad", "--n-cells", "600", "--genes", "400"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cells.h5ad").is_file()


def test_it_ships_every_file_the_commands_need_and_no_others(wheel, repository):
    import zipfile

    names = set(zipfile.ZipFile(wheel).namelist())
    packages = [repository / "vcell", *(repository / "plugins").glob("vcell_*")]
    for package in packages:
        for file in package.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert str(file.relative_to(package.parent)) in names
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {package.name for package in packages}


def test_the_metadata_names_the_licence_and_every_plugin():
    meta = importlib.metadata.metadata("vcell")
    assert meta["License-Expression"] == "MIT"
    assert {"flash", "wandb"} <= set(meta.get_all("Provides-Extra") or [])
    assert len(discover().plugins) > 0
