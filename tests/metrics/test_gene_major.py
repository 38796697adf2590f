"""Counts rank as their logarithms, whichever whole numbers stand for those in the keys."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from scipy import stats

from vcell.data.block import Block, from_dense
from vcell.kernels import radix, ranks
from vcell.metrics import by_gene, gene_major
from vcell.metrics.by_gene import GeneMajor
from vcell.metrics.gene_major import (
    GeneMajorSources,
    ProfileRanks,
    SourcePart,
    transpose,
)
from vcell.metrics.groups import Grouped, grouped
from vcell.metrics.levels import Levels


def _counts(seed: int, cells: int = 240, genes: int = 12) -> np.ndarray:
    """Counts with many zeros, ties, and some of hundreds and of 65,535."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 4, (cells, genes)))
    counts[rng.random(counts.shape) < 0.02] = 500
    counts[:3, 0] = 65_535
    counts[:, 1] = 0
    return counts


def _grouped(
    counts: np.ndarray, group: np.ndarray, n_groups: int, divisor: np.ndarray, **options: object
) -> Grouped:
    n, g = counts.shape
    csr = from_dense(counts, np.dtype(np.float32))
    block = Block(0, np.arange(n), csr.indptr, csr.indices, csr.data, g)
    with closing(GeneMajor(g)) as cells:
        transpose(cells, [block], group, threads=1)
        sources = GeneMajorSources([SourcePart(cells, divisor)], g)
        return grouped(sources, group, n_groups, threads=1, **options)


@pytest.mark.parametrize("spread", [2.0, 1e4])
@pytest.mark.parametrize("n_groups", [3, 200])
def test_counts_rank_as_their_logarithms(spread, n_groups):
    counts = _counts(n_groups)
    rng = np.random.default_rng(1)
    divisor = np.exp(rng.uniform(0, np.log(spread), len(counts))).round(1).astype(np.float32)
    group = rng.integers(0, 3, len(counts)).astype(np.int32)
    found = _grouped(counts, group, n_groups, divisor)
    logs = np.log1p(counts.astype(np.float32) / divisor[:, None])
    for other in (1, 2):
        expected = stats.mannwhitneyu(logs[group == other], logs[group == 0], axis=0)
        assert found.u[other].tolist() == expected.statistic.tolist()
        both = logs[(group == other) | (group == 0)]
        ties = [float((n**3 - n).sum()) for n in (np.unique(c, return_counts=True)[1]
                                                  for c in both.T)]  # fmt: skip
        assert found.ties[other].tolist() == ties
    assert np.allclose(found.sums[1], logs[group == 1].sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_are_those_of_the_keys(kind):
    """A profile needs values beside keys; without one they are read from the keys."""
    counts, rng = _counts(7), np.random.default_rng(7)
    divisor = rng.uniform(0.5, 2, len(counts)).astype(kind)
    group = rng.integers(-1, 3, len(counts)).astype(np.int32)
    beside = _grouped(
        counts, group, 3, divisor, profile=ProfileRanks(counts.shape[1]), squares=True
    )
    alone = _grouped(counts, group, 3, divisor, squares=True)
    for name in ("sums", "squares", "own_means", "u", "ties"):
        assert getattr(alone, name).tobytes() == getattr(beside, name).tobytes()
    logs = np.log1p(counts / divisor[:, None].astype(float))
    for number in range(3):
        assert np.allclose(alone.squares[number], (logs[group == number] ** 2).sum(0), rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_survey_of_rows_whole_and_strange(kind):
    rows = [
        [], [0, 3, 65_535], [1, 65_536], [2, 0.25], [-0.0, 1], [4, -3.5], [1e30, 1], [np.nan, 9],
        [np.inf, 8, -np.inf], [5] * 40, [5] * 40 + [0.125],
    ]  # fmt: skip
    for start in range(len(rows)):
        some = rows[: start + 1]
        data = np.array([x for row in some for x in row], kind)
        indptr = np.cumsum([0, *map(len, some)])
        totals = np.full(len(some), -1.0)
        with np.errstate(invalid="ignore"):
            expected = [np.sum(np.array(row, kind), dtype=float) for row in some]
            far = np.abs(data - np.rint(data))
        low, high, fraction, odd = ranks.survey(indptr, data, totals)
        np.testing.assert_array_equal(totals, expected)
        assert low == np.nanmin(data, initial=0)
        assert high == np.nanmax(data, initial=0)
        assert fraction == np.nanmax(far, initial=0)
        assert odd == (~np.isfinite(data)).sum()


@pytest.mark.parametrize("spread", [1, 1 << 9, 1 << 20, (1 << 26) - 1])
@pytest.mark.parametrize("shift", [1, 6])
def test_runs_are_sorted_by_value_whatever_the_group(spread, shift):
    rng = np.random.default_rng(spread)
    sizes = np.array([0, 1, 2, 40, 999, 1000, 5000])
    first = np.concatenate(([0], np.cumsum(sizes)))[:-1]
    values = rng.integers(0, spread, sizes.sum()) + rng.integers(0, (1 << (32 - shift)) - spread)
    keys = (values << shift | rng.integers(0, 1 << shift, len(values))).astype(np.uint32)
    expected = keys.copy()
    for a, b in zip(first, first + sizes, strict=True):
        if b - a >= 40:
            order = np.argsort(keys[a:b] >> shift, kind="stable")
            expected[a:b] = keys[a:b][order]
    radix.sort_runs(keys, first, first + sizes, shift, 40, np.empty(5000, np.uint32))
    assert keys.tolist() == expected.tolist()


@pytest.mark.parametrize("n_groups", [3, 200])
def test_long_and_short_runs_rank_alike(monkeypatch, n_groups):
    """Digits or numpy's sort: the same bits."""
    counts, rng = _counts(5), np.random.default_rng(5)
    divisor = rng.uniform(0.5, 2, len(counts)).astype(np.float32)
    group = rng.integers(0, 3, len(counts)).astype(np.int32)
    found = []
    for least in (2, 100, 1000):
        monkeypatch.setattr(radix, "least", lambda least=least: least)
        found.append(_grouped(counts, group, n_groups, divisor))
    for other in found[1:]:
        assert other.u.tobytes() == found[0].u.tobytes()
        assert other.ties.tobytes() == found[0].ties.tobytes()


@pytest.mark.parametrize("n_groups", [3, 200])
def test_entries_of_two_and_of_four_bytes_rank_alike(monkeypatch, n_groups):
    """Two bytes hold 8 bits of row and counts to 254 here; larger ones are listed beside."""
    counts, rng = _counts(3), np.random.default_rng(3)
    divisor = rng.uniform(0.5, 2, len(counts)).astype(np.float32)
    group = rng.integers(-1, 3, len(counts)).astype(np.int32)
    monkeypatch.setattr(gene_major, "_LONG_RANGE", 300)  # a few genes at a time
    monkeypatch.setattr(by_gene, "_MANY_LARGE", 1.0)
    narrow = _grouped(counts, group, n_groups, divisor)
    monkeypatch.setattr(by_gene, "_NARROW_ROWS", 0)
    wide = _grouped(counts, group, n_groups, divisor)
    for name in ("sums", "own_means", "u", "ties"):
        assert getattr(narrow, name).tobytes() == getattr(wide, name).tobytes()


@pytest.mark.parametrize(("large", "width"), [(0.0, 2), (0.5, 4)])
def test_large_counts_are_read_back(large, width):
    """Two bytes an entry, but four where many counts do not fit."""
    counts, rng = _counts(4), np.random.default_rng(4)
    counts[rng.random(counts.shape) < large] = 300
    csr = from_dense(counts, np.dtype(np.float32))
    block = Block(0, np.arange(len(counts)), csr.indptr, csr.indices, csr.data, counts.shape[1])
    with closing(GeneMajor(counts.shape[1])) as cells:
        cells.add(block)
        assert cells.pieces[0].kinds[0].itemsize == width
        for lo, hi in ((0, 12), (0, 1), (3, 7), (11, 12)):
            found = cells.read(lo, hi)
            dense = np.zeros((len(counts), hi - lo))
            dense[found.cell, np.repeat(np.arange(hi - lo), np.diff(found.first))] = found.value
            assert (dense == counts[:, lo:hi]).all()


def test_bits_stand_for_values_only_where_they_fit():
    alike = Levels.of(np.linspace(0.5, 2, 50, dtype=np.float32))
    orders = [alike.order(shift) for shift in (1, 6, 12, 30)]
    assert [order and order.of_bits for order in orders] == [True, True, False, None]
    apart = Levels.of(np.array([0.01, 100], np.float32)).order(6)
    assert apart is not None
    assert not apart.of_bits
    fine = Levels.of(np.array([0.5, 2])).order(1)
    assert fine is not None
    assert not fine.of_bits
