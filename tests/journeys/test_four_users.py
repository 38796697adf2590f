"""Four people's ways through vcell: at the command line, at 80x24, piped, and without UTF-8.

The way of somebody who writes a plugin, word for word from the page, is `tests/core/test_docs.py`;
here it is what they type to look at it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pytest

from tests.journeys.terminal import WITHOUT_UTF8, on_terminal, piped
from tests.support import Ran

if TYPE_CHECKING:
    from collections.abc import Callable

USERS = {
    "biologist": [
        ("init", "mine", "--cells", "cells.h5ad"),
        ("inspect", "cells.h5ad", "--html", "cells.html"),
        ("de", "cells.h5ad", "-o", "de.csv"),
        ("effects", "cells.h5ad", "-o", "effects.parquet"),
        ("select-genes", "cells.h5ad", "--n-genes", "50", "-o", "genes"),
        ("features", "--cells", "cells.h5ad"),
    ],
    "contestant": [
        ("predict", "first", "--n-cells", "20", "-o", "prediction.h5ad"),
        ("evaluate", "prediction.h5ad", "cells.h5ad", "--only-shared", "-o", "scores"),
        ("pack", "prediction.h5ad", "--genes", "names.csv", "-o", "submission.vcc"),
        ("pack", "--check", "submission.vcc", "--genes", "names.csv"),
    ],
    "plugin author": [
        ("plugins",),
        ("plugins", "check", "de"),
        ("config", "schema"),
        ("config", "show", "de"),
        ("de", "--help"),
    ],
    "over ssh": [
        ("doctor",),
        ("runs", "list"),
        ("runs", "show", "first"),
        ("runs", "compare", "first", "second"),
        ("monitor", "first", "--once", "--runs", "out/runs"),
        ("report", "first", "--runs", "out/runs", "--format", "md", "-o", "first.md"),
    ],
}
LEFT = {  # what is there in the end
    "biologist": ["mine/vcell.toml", "cells.html", "de.csv", "effects.parquet", "genes"],
    "contestant": ["prediction.h5ad", "prediction.html", "scores/results.csv", "submission.vcc"],
    "plugin author": [],
    "over ssh": ["first.md"],
}
WAYS = ("command line", "80x24", "piped", *WITHOUT_UTF8)


def whole(done: subprocess.CompletedProcess[bytes], encoding: str) -> Ran:
    return Ran(done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding))


def goes(way: str, typed: Callable[..., Ran], words: tuple[str, ...], cwd: Path) -> Ran:
    """Run a command in one of the ways, and check what holds for all."""
    if way == "command line":
        ran = typed(*words, cwd=cwd)
    elif way == "80x24":
        shown = on_terminal(*words, cwd=cwd)
        assert words == ("config", "schema") or len(shown.widest) <= 80, shown.widest
        ran = Ran(shown.code, shown.plain, "")
    elif way == "piped":
        ran = whole(piped(*words, cwd=cwd), "utf-8")
        assert "\x1b" not in ran.out + ran.err
    else:
        ran = whole(piped(*words, cwd=cwd, **WITHOUT_UTF8[way]), "ascii")
    assert ran.code == 0, f"vcell {' '.join(words)}\n{ran.out}\n{ran.err}"
    assert "Traceback" not in ran.out + ran.err
    return ran


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "way", [w if w == "command line" else pytest.param(w, marks=pytest.mark.slow) for w in WAYS]
)
def test_every_workflow_completes(typed, project, user, way):
    names = anndata.read_h5ad(project / "cells.h5ad", backed="r").var_names
    np.savetxt(project / "names.csv", np.array(names), fmt="%s")
    for words in USERS[user]:
        goes(way, typed, words, project)
    assert [name for name in LEFT[user] if not (project / name).exists()] == []
    assert not list(project.rglob("*.tmp-*"))


@pytest.mark.parametrize("way", ["80x24", "C"])
def test_the_first_step_of_the_challenge_workflow_in_a_plain_terminal(typed, project, way):
    """One step of the longest workflow by default; the slow tests run all workflows."""
    goes(way, typed, USERS["contestant"][0], project)
    page = (project / "prediction.html").read_text(encoding="utf-8")
    assert "genes that rise most" in page
    assert page.count("predicted change") == 3
