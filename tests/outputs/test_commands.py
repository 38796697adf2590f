"""The rule at the command line, for every command that writes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import anndata
import pytest

from tests.support import shortly

MAKES = {
    "simulate": ("simulate", "{}", "--genes", 60, "--perturbations", 2),
    "convert": ("convert", "cells.h5ad", "{}"),
    "convert to zarr": ("convert", "cells.h5ad", "{}"),
    "inspect": ("inspect", "cells.h5ad", "--html", "{}"),
    "de": ("de", "cells.h5ad", "-o", "{}"),
    "evaluate": ("evaluate", "cells.h5ad", "real.h5ad", "-o", "{}"),
    "select-genes": ("select-genes", "cells.h5ad", "--n-genes", 50, "-o", "{}"),
    "prepare": ("prepare", "cells.h5ad", "--seed", 1, "-o", "{}"),
    "pack": ("pack", "cells.h5ad", "-o", "{}"),
    "config init": ("config", "init", "{}"),
}
ENDING = {
    "simulate": ".h5ad", "convert": ".h5ad", "convert to zarr": ".zarr", "inspect": ".html",
    "de": ".parquet", "prepare": ".zarr", "pack": ".vcc", "config init": ".toml",
}  # fmt: skip
FORCE = {"config init": "--force"}


def digest(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(p.read_bytes() for p in files if p.is_file())).hexdigest()


def words(name: str, out: str) -> list[str]:
    return [str(word).format(out) for word in MAKES[name]]


@pytest.fixture
def ready(here, tmp_path):
    shutil.copy(tmp_path / "cells.h5ad", tmp_path / "real.h5ad")
    return here


@pytest.mark.parametrize("name", shortly(MAKES, "simulate", "inspect", "evaluate", "prepare"))
def test_existing_files_are_refused_and_foreign_files_always(ready, tmp_path, name):
    out = f"out{ENDING.get(name, '')}"
    if name == "config init":
        (tmp_path / out).write_text("# mine\n")
    elif name in ("evaluate", "select-genes", "prepare", "convert to zarr"):
        (tmp_path / out).mkdir()
        (tmp_path / out / "notes.txt").write_text("mine")
    else:
        anndata.read_h5ad(tmp_path / "cells.h5ad").write_h5ad(tmp_path / out)
    before = digest(tmp_path / out)
    for flags in ([], ["--overwrite"]):
        if name == "config init" and flags:
            continue  # a project file is the user's own: --force is for that
        ran = ready(*words(name, out), *flags)
        assert (ran.code, ran.out) == (2, ""), ran.err
        assert out in ran.err
        assert "reading" not in ran.err
        assert digest(tmp_path / out) == before
    assert not [p for p in tmp_path.iterdir() if ".tmp-" in p.name]


@pytest.mark.parametrize("name", shortly([n for n in MAKES if n not in ("evaluate", "pack")], "de"))
def test_files_made_by_vcell_are_replaced_only_with_overwrite(ready, tmp_path, name):
    out = f"out{ENDING.get(name, '')}"
    assert ready(*words(name, out)).code == 0
    if name != "prepare":  # the very same store is used as it is
        again = ready(*words(name, out))
        assert again.code == 2
        assert "exists already" in again.err
        assert FORCE.get(name, "--overwrite") in again.err
    ran = ready(*words(name, out), FORCE.get(name, "--overwrite"))
    assert ran.code == 0, ran.err


def test_a_page_is_not_written_over_the_cells_of_the_project(here, tmp_path):
    (tmp_path / "vcell.toml").write_text('[data]\ncells = "cells.h5ad"\n')
    before = digest(tmp_path / "cells.h5ad")
    ran = here("inspect", "--html", "cells.h5ad")
    assert ran.code == 2
    assert digest(tmp_path / "cells.h5ad") == before


def test_nothing_is_written_into_a_zarr_that_is_read(here, tmp_path):
    assert here("convert", "cells.h5ad", "in.zarr").code == 0
    before = digest(tmp_path / "in.zarr")
    ran = here("convert", "in.zarr", "in.zarr/copy.h5ad")
    assert ran.code == 2
    assert "lies inside in.zarr" in ran.err
    assert digest(tmp_path / "in.zarr") == before


def test_prepare_does_not_write_next_to_the_data(here, tmp_path):
    data, project = tmp_path / "data", tmp_path / "project"
    data.mkdir()
    project.mkdir()
    (tmp_path / "cells.h5ad").rename(data / "cells.h5ad")
    env = {"VCELL_CACHE": str(tmp_path / "cache")}
    ran = here("prepare", "../data/cells.h5ad", cwd=project, env=env)
    assert ran.code == 0
    assert f"the store goes to the cache: {tmp_path / 'cache'}" in ran.err
    (project / "vcell.toml").write_text('[data]\ncells = "../data/cells.h5ad"\n')
    ran = here("prepare", cwd=project, env=env)
    assert ran.code == 0
    assert f"the store goes to the project's folder: {project}" in ran.err
    assert (project / "cells.store.zarr").is_dir()
    assert [p.name for p in data.iterdir()] == ["cells.h5ad"]
