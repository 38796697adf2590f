"""kill -9 in the middle of packing leaves nothing under the final name."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.pack.conftest import prediction_2025
from tests.support import clean_environment


@pytest.mark.slow
def test_a_killed_pack_leaves_no_archive(here):
    prediction_2025().write_h5ad(here.folder / "p.h5ad")
    words = ["pack", "p.h5ad", "-o", "p.vcc", "--genes", "genes.csv"]
    command, killed = [sys.executable, "-m", "vcell", *words], 0
    for delay in (0.2, 0.4, 0.6, 0.8, 1.0, 1.2):
        process = subprocess.Popen(
            command, cwd=here.folder, env=clean_environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        if (here.folder / "p.vcc").exists():  # then it is whole
            assert here("pack", "--check", "p.vcc", "--genes", "genes.csv").code == 0
            break
    ran = here(*words, *(["--overwrite"] if (here.folder / "p.vcc").exists() else []))
    assert ran.code == 0, ran.err
    assert killed
    assert here("pack", "--check", "p.vcc", "--genes", "genes.csv").code == 0
