"""The memory of the command does not depend on the number of cells."""

from __future__ import annotations

import pytest

from tests.support import peak_of


@pytest.mark.slow
def test_peak_memory_is_flat_within_a_tenth(vcell, tmp_path):
    environment = {"VCELL_CACHE": str(tmp_path)}
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
            peak, _ = peak_of(words[0], path, *words[1:], "--quiet", cwd=tmp_path, env=environment)
            peaks.setdefault(words, []).append(peak)
        path.unlink()
    # 75,000 cells more hold 800 MB more. Between runs of one file the peaks differ by a few MB.
    for words, (few, many) in peaks.items():
        assert many < 1.1 * few, (words, few, many)
        assert many < 700, (words, many)
