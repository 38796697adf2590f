"""kill -9 in the middle leaves nothing under the final name, and the command works afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support import clean_environment

COMMANDS = {
    "evaluate": (["evaluate", "pred.h5ad", "real.h5ad", "-o", "out", "--cache", "cache"], "out"),
    "de": (["de", "real.h5ad", "-o", "out.parquet"], "out.parquet"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_no_half_of_its_output(here, name):
    words, output = COMMANDS[name]
    command = [sys.executable, "-m", "vcell", *words]
    out, killed = here.folder / output, 0
    for delay in (0.3, 0.8, 1.2, 1.6, 2.0, 2.4):
        process = subprocess.Popen(
            command, cwd=here.folder, env=clean_environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        if process.wait() == -signal.SIGKILL:
            killed += 1
            assert not out.exists() or whole(out)
        if out.exists():
            break
    assert killed
    if not out.exists():
        subprocess.run(
            command, cwd=here.folder, env=clean_environment(), check=True, capture_output=True
        )
    assert whole(out)


def whole(out) -> bool:
    """Return whether an output can be read to the end."""
    import pandas as pd

    if out.is_dir():
        assert (out / "score.json").read_text().endswith("}\n")
        assert (out / "index.html").read_text().rstrip().endswith("</html>")
        return len(pd.read_parquet(out / "real_de.parquet")) > 0
    return len(pd.read_parquet(out)) > 0
