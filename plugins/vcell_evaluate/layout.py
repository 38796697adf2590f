"""Results in the layouts of cell-eval: ``results.csv`` and ``agg_results.csv``.

The aggregate of cell-eval is polars' ``describe`` (nearest-rank quantiles, sample standard
deviation). That of cell-eval2 has other rows, columns and rules. ``cell-eval score``,
``cell-eval2 score`` and users' scripts can read these files like the originals.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vcell import arrow
from vcell.as_json import none_if_nan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Columns: TypeAlias = "dict[str, list[Any]]"
QUANTILES = {"25%": 0.25, "50%": 0.5, "75%": 0.75}
ROWS_2026 = ("count", "null_count", "mean", "std", "min", "max", "median")


def results(
    perturbations: Sequence[str],
    values: dict[str, NDArray[np.float64]],
    contexts: Sequence[str] | None = None,
) -> Columns:
    """Return one row per perturbation, one column per metric; contexts first if there are any."""
    head: Columns = {} if contexts is None else {"context": list(contexts)}
    numbers = {name: column.tolist() for name, column in values.items()}
    return head | {"perturbation": list(perturbations)} | numbers


def aggregate(values: dict[str, NDArray[np.float64]]) -> Columns:
    """Summarise each metric over the perturbations with a value."""
    columns = {name: _describe(column) for name, column in values.items()}
    first: list[Any] = list(next(iter(columns.values()), {}))
    return {"statistic": first} | {name: list(c.values()) for name, c in columns.items()}


def write_csv(path: Path, columns: Columns) -> None:
    """Write a table with the shortest exact numbers; missing values are empty."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(map(none_if_nan, row))  # None is an empty field


def as_arrow(columns: Columns) -> Any:
    """Return a pyarrow table with NaN as null."""
    import pyarrow as pa

    return pa.table(
        {
            name: arrow.strings(c)
            if c and isinstance(c[0], str)
            else arrow.numbers(np.array(c, np.float64), nan_is_null=True)
            for name, c in columns.items()
        }
    )


def write_parquet(path: Path, pieces: Iterable[Any]) -> None:
    """Write a table in pieces; only names and numbers of cells are dictionary-encoded."""
    from pyarrow import parquet, types

    writer = None
    try:
        for piece in pieces:
            if writer is None:
                repeated = [f.name for f in piece.schema if not types.is_floating(f.type)]
                writer = parquet.ParquetWriter(path, piece.schema, use_dictionary=repeated)
            writer.write_table(piece)
    finally:
        if writer is not None:
            writer.close()


def aggregate_2026(
    values: dict[str, NDArray[np.float64]], pooled: dict[str, float], omitted: Collection[str]
) -> Columns:
    """Summarise each metric as cell-eval2 does: columns by name, a median, no quartiles.

    Parameters
    ----------
    values
        Metrics and components, ``[P]`` each.
    pooled
        Ratios of sums. They have no value per perturbation, so only `mean` is given.
    omitted
        Metrics that leave out perturbations without a value; the `count` of the others includes
        them.
    """
    columns = {}
    for name in sorted(values.keys() | pooled.keys()):
        if name in pooled:
            columns[name] = dict.fromkeys(ROWS_2026, float("nan")) | {"mean": pooled[name]}
            continue
        column = values[name]
        present = column[~np.isnan(column)]
        found = _describe(column) | {"count": float(len(column)), "null_count": 0.0}
        if name in omitted:
            found["count"] = float(len(present))
        found["median"] = float(np.median(present)) if len(present) else float("nan")
        columns[name] = {row: found[row] for row in ROWS_2026}
    rows: list[Any] = list(ROWS_2026)
    return {"statistic": rows} | {name: list(c.values()) for name, c in columns.items()}


def _describe(column: NDArray[np.float64]) -> dict[str, float]:
    present = np.sort(column[~np.isnan(column)])
    n = len(present)
    summary = {"count": float(n), "null_count": float(len(column) - n)}
    if not n:
        return summary | dict.fromkeys(("mean", "std", "min", *QUANTILES, "max"), float("nan"))
    summary["mean"] = float(present.mean())
    summary["std"] = float(present.std(ddof=1)) if n > 1 else float("nan")
    summary["min"] = float(present[0])
    for name, share in QUANTILES.items():  # the nearest rank, halves rounded up
        summary[name] = float(present[int(np.floor(share * (n - 1) + 0.5))])
    summary["max"] = float(present[-1])
    return summary
