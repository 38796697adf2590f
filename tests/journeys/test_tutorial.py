"""docs/tutorial.md: every command of the page works, in order, and writes what it says."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from vcell import console
from vcell.cli import run


@pytest.fixture
def commands(repository) -> list[list[str]]:
    page = (repository / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^\$ vcell (.*)$", page, re.MULTILINE)]


def test_every_command_works_in_its_order(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VCELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(console, "settings", console.Settings())
    for words in commands:
        assert run(words) == 0, words
        said = capsys.readouterr()
        if words[0] == "inspect":
            assert "raw counts" in said.out
            assert "'target_gene'" in said.out
            assert "'non-targeting' (400 cells)" in " ".join(said.out.split())
    for file in ("genes/selected_genes.csv", "genes/coverage.html", "pred.h5ad"):
        assert (tmp_path / file).is_file()
    (trained,) = (tmp_path / "runs").iterdir()
    assert (trained / "report.html").is_file()
    score = json.loads((tmp_path / "scores" / "score.json").read_text())
    assert 0 < score["overall"] < 1
