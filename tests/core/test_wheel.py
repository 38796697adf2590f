"""A wheel in an environment of its own behaves like the checkout."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import clean_environment
from vcell.kernels import ahead, targets
from vcell.plugin import discover


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, repository) -> Path:
    """Built with kernels for this machine only: `make` has compiled those."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    environment = clean_environment() | {"VCELL_WHEEL_TARGETS": targets.chosen().name}
    subprocess.run([*command, repository], env=environment, check=True, capture_output=True)
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
        [python, "-I", *words] if words[0] == "-c" else [python, "-I", "-m", "vcell", *words],
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


WORK = """
import sys
from vcell.cli import run
for words in (
    "simulate cells.h5ad --n-cells 300 --genes 100 --perturbations 5",
    "select-genes cells.h5ad -o genes --n-genes 50",
    "evaluate cells.h5ad cells.h5ad -o scores",
):
    assert not run([*words.split(), "--quiet"])
assert "numba" not in sys.modules, "a kernel was compiled"
"""


def test_nobody_who_installs_it_waits_for_a_compiler(python, tmp_path):
    done = in_wheel(python, tmp_path, "-c", WORK)
    assert done.returncode == 0, done.stderr
    told = in_wheel(python, tmp_path, "doctor", "--json").stdout
    (kernels,) = [one for one in json.loads(told)["findings"] if one["what"] == "kernels"]
    n = len(ahead.files())
    assert kernels["found"].startswith(f"{n} of {n} compiled")


def test_a_wheel_can_be_built_without_kernels(repository, tmp_path):
    """As on a machine where numba does not work: they are compiled when they are first used."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    environment = clean_environment() | {"VCELL_WHEEL_TARGETS": ""}
    subprocess.run([*command, repository], env=environment, check=True, capture_output=True)
    (built,) = tmp_path.glob("vcell-*-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(built).namelist() if name.endswith(".kernel")]


def test_it_ships_every_file_the_commands_need_and_no_others(wheel, repository):
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
