"""Reading takes the same memory however many cells there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support import clean_environment

_READ = """
import sys
from pathlib import Path
from vcell.data import detect, open_cells
total = 0.0
with open_cells(sys.argv[1]) as source:
    detect.scale(source)
    for block in source.chunks():
        total += float(block.data.sum(dtype="f8"))
# not ru_maxrss, which begins at what the parent took when this process was forked
print(total, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""


def _write(path: Path, kind: str, cells: int, genes: int, a_cell: int) -> float:
    """Cells that all hold the same number of values; returns the sum of all."""
    rng = np.random.default_rng(0)
    rows, per_row = (genes, cells * a_cell // genes) if kind == "csc" else (cells, a_cell)
    width = cells if kind == "csc" else genes
    packed = {"compression": "gzip", "compression_opts": 1} if kind == "csr" else {}
    options = {"chunks": (1 << 16,), **packed}
    nnz, total = rows * per_row, 0.0
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs.update({"encoding-type": f"{kind}_matrix", "shape": [cells, genes]})
        data = x.create_dataset("data", (nnz,), "f4", **options)
        indices = x.create_dataset("indices", (nnz,), "i4", **options)
        x["indptr"] = np.arange(rows + 1) * per_row
        step = max(1, (1 << 22) // per_row)
        for first in range(0, rows, step):
            n = min(step, rows - first)
            values = rng.integers(1, 5, n * per_row).astype("f4")
            steps = rng.integers(1, width // per_row + 1, (n, per_row))
            part = slice(first * per_row, (first + n) * per_row)
            data[part], indices[part] = values, (np.cumsum(steps, axis=1) - 1).ravel()
            total += values.sum(dtype="f8")
        for name, size in (("obs", cells), ("var", genes)):
            frame = file.create_group(name)
            frame.attrs.update({"encoding-type": "dataframe", "_index": "_index"})
            frame["_index"] = np.arange(size).astype("S")
    return total


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_memory_does_not_grow_with_the_number_of_cells(kind, tmp_path):
    peaks = []
    for cells in (60_000, 120_000):
        path = tmp_path / f"{cells}.h5ad"
        expected = _write(path, kind, cells, 10_000, 500)
        done = subprocess.run(
            [sys.executable, "-c", _READ, path], capture_output=True, text=True, check=True,
            env=clean_environment() | {"TMPDIR": str(tmp_path)}, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        total, peak = (float(word) for word in done.stdout.split())
        assert total == expected
        assert ("temporary file" in done.stderr) == (kind == "csc")
        peaks.append(peak)
        path.unlink()
        assert list(tmp_path.iterdir()) == []  # the temporary file is gone
    # The values grow by 240 MB. How many blocks of 33 MB are alive at once is a matter of when the
    # threads run, and how well the allocator packs what transposing leaves, of luck.
    assert peaks[1] - peaks[0] < 80, peaks
    assert peaks[1] < 500, peaks
