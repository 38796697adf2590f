"""The memory of the command does not depend on the number of cells."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import clean_environment

_WATCHED = """
import sys
from pathlib import Path
from vcell.cli import run
code = run(sys.argv[1:])
# not ru_maxrss, which begins at what the parent took when this process was forked
print(code, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""


@pytest.mark.slow
def test_peak_memory_is_flat_within_a_tenth(vcell, tmp_path):
    environment = clean_environment() | {"VCELL_CACHE": str(tmp_path)}

    def peak(*words: object) -> float:
        done = subprocess.run(
            [sys.executable, "-c", _WATCHED, *map(str, words), "--quiet"],
            capture_output=True, text=True, check=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
        code, size = done.stdout.splitlines()[-1].split()
        assert code == "0", done.stderr
        return float(size)

    peaks: dict[tuple[str, ...], list[float]] = {}
    for cells in (25_000, 100_000):
        path = tmp_path / "cells.h5ad"
        made = vcell(
            "simulate", path, "--n-cells", cells, "--genes", 6000, "--umis", 5000, "--overwrite"
        )  # the truth of the cells before
        assert made.code == 0, made.err
        for words in (
            ("select-genes", "--overwrite", "--hvg-flavor", "seurat"),
            ("select-genes", "--overwrite", "--hvg-flavor", "seurat_v3"),
            ("select-genes", "--overwrite", "--hvg-flavor", "pearson_residuals"),
            ("inspect", "--full"),
        ):
            peaks.setdefault(words, []).append(peak(words[0], path, *words[1:]))
        path.unlink()
    # 75,000 cells more hold 800 MB more. Between runs of one file the peaks differ by a few MB.
    for words, (few, many) in peaks.items():
        assert many < 1.1 * few, (words, few, many)
        assert many < 700, (words, many)
