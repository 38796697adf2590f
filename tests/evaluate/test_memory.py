"""The memory of `vcell evaluate` does not grow with the number of cells."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support import peak_of

SMALL_BUFFERS = "from vcell.metrics import by_gene; by_gene.MEMORY = 64 << 20"
GENES, PER_CELL, PERTURBATIONS = 4_000, 2_000, 20


def write(path: Path, cells: int) -> None:
    """Counts of half the genes in every cell; a quarter of the cells are controls."""
    rng = np.random.default_rng(0)
    first = np.arange(PER_CELL, dtype=np.int32) * (GENES // PER_CELL)
    names = [f"GENE{i}" for i in range(GENES)]
    drawn = rng.integers(-PERTURBATIONS // 3, PERTURBATIONS, cells)
    labels = ["non-targeting" if i < 0 else names[i] for i in drawn.tolist()]
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "shape": [cells, GENES]})
        data = x.create_dataset("data", (cells * PER_CELL,), "f4")
        indices = x.create_dataset("indices", (cells * PER_CELL,), "i4")
        x["indptr"] = np.arange(cells + 1) * PER_CELL
        for a in range(0, cells, 5_000):
            size = min(a + 5_000, cells) - a, PER_CELL
            part = slice(a * PER_CELL, (a + size[0]) * PER_CELL)
            data[part] = rng.integers(1, 300, size).ravel()
            indices[part] = (first + rng.integers(0, 2, size, dtype=np.int32)).ravel()
        for table, index in (("obs", np.arange(cells).astype("S")), ("var", names)):
            frame = file.create_group(table)
            frame.attrs.update({"encoding-type": "dataframe", "_index": "_index"})
            frame["_index"] = index
        file["obs"].attrs["column-order"] = ["target_gene"]
        file["obs/target_gene"] = labels
        file["obs/target_gene"].attrs["encoding-type"] = "string-array"


@pytest.mark.slow
def test_three_times_the_cells_take_hardly_more_memory(tmp_path: Path) -> None:
    """Against itself, by the rules of both years; even the fewer cells exceed the buffers."""
    peaks: dict[str, list[float]] = {"vcc2025": [], "vcc2026": []}
    for cells in (20_000, 60_000):
        path = tmp_path / f"{cells}.h5ad"
        write(path, cells)
        for rules, found in peaks.items():
            words = ("evaluate", path, path, "--rules", rules, "--no-baseline", "--quiet")
            found.append(peak_of(*words, cwd=tmp_path, before=SMALL_BUFFERS)[0])
        path.unlink()
    for few, many in peaks.values():
        assert many - few < 300  # MiB; the cells more would take 900 on the two sides
        assert many < 1536
