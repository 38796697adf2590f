"""The commands of docs/train-vcc.md work as they stand there.

Those that need files of the reader's stand between fences; the others are indented.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "train-vcc.md"
COMMANDS = re.findall(r"^    (vcell .*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
def test_the_commands_of_the_page_work_in_their_order(vcell, tmp_path):
    pytest.importorskip("optuna")
    assert len(COMMANDS) > 3
    cache = {"VCELL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    for command in COMMANDS:
        ran = vcell(*shlex.split(command)[1:], env=cache)
        assert ran.code == 0, f"{command}\n{ran.err}"
