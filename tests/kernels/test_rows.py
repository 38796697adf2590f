"""What `vcell inspect` counts of rows that are not in order, against numpy."""

import numpy as np

from vcell.kernels.rows import disorder


def test_disorder_counts_unsorted_rows_repeats_and_zeros():
    rng = np.random.default_rng(0)
    lengths = [0, 1, 2, 3, 40, 7, 1000, 5]
    rows = [rng.integers(0, 50 + 10 * n, n).astype(np.int32) for n in lengths]
    rows += [np.sort(rows[4]), np.arange(30, dtype=np.int32)[::-1].copy()]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    data = rng.integers(0, 4, indptr[-1]).astype(np.float32)
    unsorted = sum(bool((np.diff(row) < 0).any()) for row in rows)
    repeated = sum(len(row) - len(np.unique(row)) for row in rows)
    found = disorder(indptr, np.concatenate(rows), data)
    assert found == (unsorted, repeated, int((data == 0).sum()))
    assert unsorted
    assert repeated
