"""The memory of `vcell prepare` does not grow with the number of cells."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support import peak_of

N_GENES, PER_CELL = 18_080, 1_500


def write_cells(path: Path, n: int) -> None:
    """Counts as anndata writes them, without compression: 1,500 genes a cell, and names."""
    rng = np.random.default_rng(0)
    step = N_GENES // PER_CELL
    genes = np.arange(PER_CELL, dtype=np.int32) * step
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        x = file.create_group("X")
        x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        x.attrs["shape"] = [n, N_GENES]
        data = x.create_dataset("data", (n * PER_CELL,), "f4")
        indices = x.create_dataset("indices", (n * PER_CELL,), "i4")
        for a in range(0, n, 5_000):
            size = (min(a + 5_000, n) - a, PER_CELL)
            part = slice(a * PER_CELL, (a + size[0]) * PER_CELL)
            data[part] = rng.integers(1, 300, size).astype("f4").ravel()
            indices[part] = (genes + rng.integers(0, step, size, dtype=np.int32)).ravel()
        x["indptr"] = np.arange(n + 1, dtype=np.int64) * PER_CELL
        for table, names in (("obs", [f"CELL-{i:08d}" for i in range(n)]),
                             ("var", [f"GENE{i}" for i in range(N_GENES)])):  # fmt: skip
            group = file.create_group(table)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group.attrs.update({"_index": "_index", "column-order": np.zeros(0)})
            group["_index"] = names
            group["_index"].attrs.update(
                {"encoding-type": "string-array", "encoding-version": "0.2.0"}
            )


@pytest.mark.slow
def test_five_times_the_cells_take_no_more_memory(tmp_path: Path) -> None:
    peaks = []
    for n in (20_000, 100_000):
        path = tmp_path / f"{n}.h5ad"
        write_cells(path, n)
        peaks.append(peak_of("prepare", path, "-o", f"{path}.zarr", "--quiet", cwd=tmp_path)[0])
        path.unlink()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 1024
