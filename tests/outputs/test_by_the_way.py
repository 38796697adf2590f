"""Files that a command writes in addition to its output, or under a name that it chooses."""

from __future__ import annotations

import json

import pytest

MINE = "the user's own\n"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("demo", "-o", "."), "cells.h5ad"),
        (("demo", "-o", "."), "demo.json"),
        (("isp", "stats", "-o", "genes.csv"), "genes.html"),
        (("gpu-tune", "monitor", "--log-file", "log.jsonl"), "log.jsonl"),
        (("gpu-tune", "monitor", "--log-file", "cells.h5ad"), "cells.h5ad"),
    ],
)
def test_a_users_file_is_not_replaced(typed, tmp_path, words, name):
    (tmp_path / name).write_text(MINE)
    ran = typed(*words)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert (tmp_path / name).read_text() == MINE
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_demo_replaces_no_cells_that_another_command_made(typed, tmp_path):
    assert typed("simulate", "cells.h5ad", "--genes", 60, "--perturbations", 2).code == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    ran = typed("demo", "-o", ".")
    assert ran.code == 2
    assert "holds files that the demo did not make" in ran.err
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_readings_are_appended(typed, tmp_path):
    line = json.dumps({"t": 1.5, "gpu": 0}) + "\n"
    (tmp_path / "log.jsonl").write_text(line)
    ran = typed("gpu-tune", "monitor", "--log-file", "log.jsonl", "--readings", "1")
    assert "holds no readings" not in ran.err
    assert (tmp_path / "log.jsonl").read_text().startswith(line)


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
