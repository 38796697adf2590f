"""Counts ranked through tables of levels, against values computed one by one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp

from vcell.metrics import gene_major, scaled
from vcell.metrics.by_gene import GeneMajor
from vcell.metrics.groups import grouped, summarise


@dataclass(frozen=True)
class Piece:
    rows: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray


def blocks(x, step=7, change=lambda block: block):
    for start in range(0, len(x), step):
        csr = sp.csr_matrix(x[start : start + step])
        yield change(
            Piece(
                rows=np.arange(start, start + csr.shape[0]), indptr=csr.indptr.astype(np.int64),
                indices=csr.indices, data=csr.data,
            )
        )  # fmt: skip


@pytest.mark.parametrize("largest", [3, 60, 63, 64, 300, 65_535, 70_000])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_looking_up_equals_computing(largest, kind, memory):
    """Sums, means, U and ties to the bit; cells without a group, tied totals, empty genes."""
    rng = np.random.default_rng(largest)
    x = np.floor(largest * rng.random((60, 9)) ** 4).astype(kind)
    x[:, 3], x[5], x[7] = 0, 0, x[8]
    x[1, 0] = largest
    group = rng.integers(-1, 4, 60).astype(np.int32)
    seen = scaled.survey(blocks(x), 60)
    divisor = scaled.divisors(
        seen.totals, scaled.median_target(seen.totals, sparse=True, precision=kind)
    )
    with closing(GeneMajor(9, memory=memory)) as cells:
        gene_major.transpose(cells, blocks(x), group, threads=2, survey=True)
        alone = gene_major.ProfileRanks(9)
        for against in ("reference", "rest"):
            ranks = alone if against == "reference" else None
            found = grouped(
                gene_major.GeneMajorSources([gene_major.SourcePart(cells, divisor)], 9), group, 4,
                against=against, squares=True, profile=ranks,
            )  # fmt: skip
            expected = summarise(
                lambda: blocks(x, change=lambda b: scaled.logged(b, divisor[b.rows])), group, 4, 9,
                against=against, squares=True,
            )  # fmt: skip
            for name in ("sizes", "sums", "squares", "own_means", "u", "ties"):
                assert np.array_equal(getattr(found, name), getattr(expected, name)), name
            assert found.own_means.dtype == kind
    values = np.log1p(x / divisor[:, None])[group == 0]
    assert np.array_equal(alone.profile, expected.means.mean(axis=0).astype(np.float32))
    assert np.array_equal(alone.below, (values < alone.profile).sum(axis=0))
    assert np.array_equal(alone.equal, (values == alone.profile).sum(axis=0))


def test_two_sources_are_ranked_together():
    """A prediction that uses the real controls: the numbers of its cells continue."""
    rng = np.random.default_rng(0)
    one, two = (rng.poisson(2.0, (30, 5)).astype(np.float32) for _ in range(2))
    x = np.concatenate([one, two])
    group = np.concatenate([np.where(np.arange(30) % 3, -1, 0), rng.integers(1, 3, 30)])
    group, divisor = group.astype(np.int32), rng.uniform(0.5, 2, 60).astype(np.float32)
    parts = []
    for offset, side in ((0, one), (30, two)):
        cells = GeneMajor(5, offset=offset)
        own = group[offset : offset + 30]
        gene_major.transpose(cells, blocks(side), own, threads=1, survey=True)
        parts.append(gene_major.SourcePart(cells, divisor[offset : offset + 30]))
    found = grouped(gene_major.GeneMajorSources(parts, 5), group, 3)
    expected = summarise(
        lambda: blocks(x, change=lambda b: scaled.logged(b, divisor[b.rows])), group, 3, 5
    )
    assert np.array_equal(found.u, expected.u)
    assert np.array_equal(found.ties, expected.ties)
    assert np.array_equal(found.own_means, expected.own_means)
