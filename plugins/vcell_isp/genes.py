"""The main table: one row per gene and operation.

The statistical unit is the donor if donors are known, else the cell. A gene's effect is its shift
minus the median of its nulls: genes with similar detection and rank, under the same operation.

``share_of_nulls``  the share of nulls with a centred shift at least as large; with n nulls the rank
                    p, ``(1 + k) / (1 + n)``, is at least ``1 / (1 + n)``
``p``               Student's t of a new value among the nulls, whose spread is estimated by their
                    median absolute deviation; ranks could never pass a correction for many genes

A gene is significant if both the FDR of p and the rank p are below the level. Genes that could not
be tested are NOT_RUN with the reason, never "no effect".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vcell_isp.controls import nearest
from vcell_isp.tables import adjusted

if TYPE_CHECKING:
    from vcell_isp import IspStats
    from vcell_isp.design import IspDesign

BOOTSTRAPS = 1000
TOWARD, AWAY, MOVES, OPEN = "TOWARD", "AWAY", "MOVES", "OPEN"
DELETION_ONLY, INCOHERENT, NOT_RUN = "DELETION_ONLY", "INCOHERENT", "NOT_RUN"
NULL = "NULL"  # a matched null, shown on the page only


@dataclass(frozen=True)
class DonorShifts:
    """Shifts of each gene by donor, ``[G, D]`` means and numbers of cells, and by cell."""

    means: NDArray[np.float64]
    cells: NDArray[np.int64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    rank: NDArray[np.float64]


@dataclass(frozen=True)
class AgainstNulls:
    """Comparison of each gene with its nulls.

    Attributes
    ----------
    effect, share, p
        ``[G]`` shift minus the nulls' median; share of nulls at least as far from it; p.
    n, spread
        ``[G]`` number of nulls, and their spread (1.4826 median absolute deviations).
    """

    effect: NDArray[np.float64]
    share: NDArray[np.float64]
    p: NDArray[np.float64]
    n: NDArray[np.int64]
    spread: NDArray[np.float64]


def summarise(
    frame: pd.DataFrame, column: str, design: IspDesign, config: IspStats, *, per_donor: int
) -> pd.DataFrame:
    """Return the table of one run."""
    tokens, code = np.unique(frame["gene"].to_numpy(np.int64), return_inverse=True)
    first = np.unique(code, return_index=True)[1]
    units = _units(frame, code, len(tokens), column, design)
    usable = units.cells >= per_donor
    has_donors = len(design.donors) > 0
    shift, low, high, n_donors = _estimates(units, usable, has_donors=has_donors)
    reason = _reasons(units, n_donors, config, has_donors=has_donors)
    tested = reason == ""
    requested = _requested(tokens, design)
    against = _against_nulls(tokens, shift, units, tested, design, config)
    effect, share, p, n_null = against.effect, against.share, against.p, against.n
    rank_p = (1 + share * n_null) / (1 + n_null)
    tested &= (n_null > 0) & requested
    reason = np.where((reason == "") & (n_null == 0), "no null genes to compare with", reason)
    fdr = np.full(len(tokens), np.nan)
    fdr[tested] = adjusted(p[tested])
    called = (fdr <= config.fdr) & (rank_p <= config.fdr)
    status = _status(effect, called, low, high, goal=bool(design.targets))
    status = np.where(tested, status, NOT_RUN).astype(object)
    out = pd.DataFrame(
        {
            "gene": _labels(frame.iloc[first]),
            "ensembl_id": frame["ensembl_id"].fillna("").to_numpy(object)[first],
            "operation": design.operation,
            "status": status,
            "why": np.where(tested, "", reason),
            "shift": units.mean,
            "donor_median" if has_donors else "cell_mean": shift,
            "low": low, "high": high,
            "effect": np.where(tested, effect, np.nan),
            "share_of_nulls": np.where(tested, share, np.nan),
            "rank_p": np.where(tested, rank_p, np.nan),
            "p": np.where(tested, p, np.nan), "fdr": fdr,
            "nulls": n_null, "cells": units.n_cells, "donors": n_donors,
        }
    )  # fmt: skip
    out["token"], out["spread_of_nulls"] = tokens, against.spread
    nulls = np.flatnonzero(~requested & np.isfinite(shift))
    if len(nulls):  # on the page, not in the table
        out.loc[nulls, "effect"] = shift[nulls] - np.median(shift[nulls])
        out.loc[nulls, "status"] = NULL
    out = out[requested | (out["status"] == NULL)]
    missing = [_missing(name, why, design.operation) for name, why in design.genes.missing.items()]
    if missing:
        out = pd.concat([out, pd.DataFrame(missing)], ignore_index=True)
    return out.sort_values(["fdr", "p", "effect"], ascending=[True, True, False], kind="stable")


def _labels(rows: pd.DataFrame) -> NDArray[Any]:
    """Return each gene's symbol, or its id if it has none; a group is labelled as such."""
    ids = rows["ensembl_id"].fillna("the group").to_numpy(object)
    symbols = rows["symbol"].fillna("").to_numpy(object)
    return np.asarray(np.where(symbols == "", ids, symbols))


def combined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of several runs, and compare deletion with overexpression."""
    table = pd.concat(tables, ignore_index=True)
    by_operation = {
        name: rows.drop_duplicates("ensembl_id").set_index("ensembl_id")
        for name, rows in table[table["token"] >= 0].groupby("operation")
    }
    if {"delete", "overexpress"} <= set(by_operation):
        deleted, overexpressed = by_operation["delete"], by_operation["overexpress"]
        for gene in deleted.index.intersection(overexpressed.index):
            down, up = deleted.loc[gene, "status"], overexpressed.loc[gene, "status"]
            here = table["ensembl_id"] == gene
            if down == up and down in (TOWARD, AWAY):
                table.loc[here, "status"] = INCOHERENT
            elif down in (TOWARD, AWAY) and up == OPEN:
                table.loc[here & (table["operation"] == "delete"), "status"] = DELETION_ONLY
    return table.sort_values(["fdr", "p", "effect"], ascending=[True, True, False], kind="stable")


def _units(
    frame: pd.DataFrame, code: NDArray[np.int64], n: int, column: str, design: IspDesign
) -> DonorShifts:
    values = frame[column].to_numpy(np.float64)
    counts = np.bincount(code, minlength=n)
    mean = np.bincount(code, values, n) / counts
    square = np.bincount(code, np.square(values - mean[code]), n)
    rank = frame["rank"].to_numpy(np.float64) / frame["length"].to_numpy(np.float64)
    ranks = np.bincount(code, np.where(rank < 0, 1.0, rank), n) / counts
    d = max(len(design.donors), 1)
    donor = frame["donor"].map({name: i for i, name in enumerate(design.donors)})
    which = donor.fillna(-1).to_numpy(np.int64)
    good = which >= 0
    place = code[good] * d + which[good]
    cells = np.bincount(place, minlength=n * d).reshape(n, d)
    sums = np.bincount(place, values[good], n * d).reshape(n, d)
    means = sums / np.maximum(cells, 1)
    spread = np.sqrt(square / np.maximum(counts - 1, 1) / counts)
    return DonorShifts(means, cells, mean, spread, counts, ranks)


def _estimates(
    units: DonorShifts, usable: NDArray[np.bool_], *, has_donors: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return each gene's shift, its 95 % interval, and the number of donors."""
    n_donors = usable.sum(1)
    if not has_donors:
        wide = 1.96 * units.spread  # what a bootstrap of many cells would give
        return units.mean, units.mean - wide, units.mean + wide, np.zeros_like(n_donors)
    shift = np.full(len(usable), np.nan)
    low, high = shift.copy(), shift.copy()
    rng = np.random.default_rng(0)
    for n in np.unique(n_donors[n_donors > 0]):
        rows = np.flatnonzero(n_donors == n)
        own = units.means[rows][usable[rows]].reshape(len(rows), n)
        shift[rows] = np.median(own, 1)
        draws = rng.integers(n, size=(BOOTSTRAPS, n))
        step = max(1, (1 << 22) // (BOOTSTRAPS * int(n)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            medians = np.median(own[start : start + step][:, draws], 2)
            low[some], high[some] = np.quantile(medians, [0.025, 0.975], axis=1)
    return shift, low, high, n_donors


def _reasons(
    units: DonorShifts,
    n_donors: NDArray[np.int64],
    config: IspStats,
    *,
    has_donors: bool,
) -> NDArray[Any]:
    """Return why a gene is not tested; empty if it is."""
    out = np.full(len(n_donors), "", object)
    for i, (cells, donors) in enumerate(zip(units.n_cells, n_donors, strict=True)):
        if cells < config.min_cells:
            out[i] = f"in {_of(cells, 'cell')}; {config.min_cells} are needed"
        elif has_donors and donors < config.min_donors:
            out[i] = f"enough cells in {_of(donors, 'donor')}; {config.min_donors} are needed"
    return out


def _of(n: int, word: str) -> str:
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def _requested(tokens: NDArray[np.int64], design: IspDesign) -> NDArray[np.bool_]:
    """Return which genes were requested, and are not only nulls."""
    if design.genes.how != "each":
        return np.ones(len(tokens), bool)
    return np.isin(tokens, design.genes.tested)


def _against_nulls(
    tokens: NDArray[np.int64],
    shift: NDArray[np.float64],
    units: DonorShifts,
    usable: NDArray[np.bool_],
    design: IspDesign,
    config: IspStats,
) -> AgainstNulls:
    """Compare each gene with its nulls."""
    from scipy.special import stdtr

    effect, share = np.full(len(tokens), np.nan), np.full(len(tokens), np.nan)
    p, n_null = np.full(len(tokens), np.nan), np.zeros(len(tokens), np.int64)
    spreads = p.copy()
    ready = np.flatnonzero(usable & np.isfinite(shift))
    place = {int(token): i for i, token in enumerate(tokens)}
    if design.genes.controls:
        nulls = {
            place[t]: np.array([place[c] for c in many if c in place and c != t], np.int64)
            for t, many in design.genes.controls.items()
            if t in place
        }
        nulls = {row: found[np.isin(found, ready)] for row, found in nulls.items()}
    elif len(ready) > 1:
        detection = units.n_cells / max(int(design.start.sum()), 1)
        found = nearest(ready, ready, detection, units.rank, config.nulls)
        nulls = dict(zip(ready.tolist(), found, strict=True))
    else:
        nulls = {}
    for row in ready.tolist():
        others = shift[nulls.get(row, np.zeros(0, np.int64))]
        n_null[row] = len(others)
        if not len(others):
            continue
        middle = np.median(others)
        effect[row] = shift[row] - middle
        k = int((np.abs(others - middle) >= abs(effect[row])).sum())
        share[row] = k / len(others)
        spreads[row] = spread = 1.4826 * float(np.median(np.abs(others - middle)))
        wide = spread * np.sqrt(1 + 1 / len(others))
        if wide > 0 and len(others) > 2:
            p[row] = 2 * stdtr(len(others) - 1, -abs(effect[row]) / wide)
        else:
            p[row] = (1 + k) / (1 + len(others))
    return AgainstNulls(effect, share, p, n_null, spreads)


def _status(
    effect: NDArray[np.float64],
    called: NDArray[np.bool_],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    goal: bool,
) -> NDArray[Any]:
    """Call a gene if it is significant and its interval excludes 0."""
    if not goal:
        return np.where(called & (effect > 0), MOVES, OPEN)
    up, down = called & (effect > 0) & (low > 0), called & (effect < 0) & (high < 0)
    return np.where(up, TOWARD, np.where(down, AWAY, OPEN))


def _missing(name: str, why: str, operation: str) -> dict[str, Any]:
    return {
        "gene": name, "ensembl_id": "", "operation": operation, "status": NOT_RUN, "why": why,
        "nulls": 0, "cells": 0, "donors": 0, "token": -1,
    }  # fmt: skip
