"""Training keeps cells compressed: they take less than a tenth of the dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from tests.support import peak_of
from vcell.data.write import CellWriter

GENES = 8000


@pytest.mark.slow
def test_memory_grows_by_less_than_a_tenth_of_the_dense_matrix(tmp_path):
    """Peaks of the whole process, two sizes of one data set; 5 % of the values are not zero.

    Both are larger than what components are learnt from, which no size of the data set changes.
    """
    rng = np.random.default_rng(0)
    peaks = []
    for n in (14_000, 26_000):
        path = tmp_path / f"{n}.h5ad"
        with CellWriter(path, [f"g{i}" for i in range(GENES)], obs=["kind"]) as out:
            for _ in range(n // 1000):
                counts = sparse.random(1000, GENES, density=0.05, format="csr", rng=rng)
                counts.data = rng.geometric(0.6, counts.nnz).astype(np.float32)
                out.append(counts, {"kind": rng.integers(0, 4, 1000)})
        words = ("train-gmvae", path.name, "--labels", "kind", "--max-steps", "20",
                 "--label-fraction", "0.1")  # fmt: skip
        environment = {"VCELL_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
        peaks.append(peak_of(*words, cwd=tmp_path, env=environment)[0])
    dense = 12_000 * GENES * 4 / 2**20
    print(f"peaks {peaks[0]:.0f} and {peaks[1]:.0f} MiB, dense {dense:.0f} MiB more")
    assert peaks[1] - peaks[0] < dense / 10
