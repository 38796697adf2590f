"""Results in the layouts of cell-eval: ``results.csv`` and ``agg_results.csv``.

The aggregate of cell-eval is polars' ``describe`` (nearest-rank quantiles, standard deviation of a
sample); that of cell-eval2 has rows, columns and rules of its own. ``cell-eval score``,
``cell-eval2 score`` and anybody's scripts read ours as they read theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd
    from numpy.typing import NDArray

QUANTILES = {"25%": 0.25, "50%": 0.5, "75%": 0.75}
ROWS_2026 = ("count", "null_count", "mean", "std", "min", "max", "median")


def results(
    perturbations: Sequence[str],
    values: dict[str, NDArray[np.float64]],
    contexts: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return one row per perturbation, one column per metric; contexts lead where there are any."""
    import pandas as pd

    head = {} if contexts is None else {"context": list(contexts)}
    return pd.DataFrame(head | {"perturbation": list(perturbations)} | values)


def aggregate(values: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Summarise each metric over the perturbations that have a value."""
    import pandas as pd

    columns = {name: _describe(column) for name, column in values.items()}
    first = next(iter(columns.values()), {})
    return pd.DataFrame(
        {"statistic": list(first)} | {name: list(c.values()) for name, c in columns.items()}
    )


def aggregate_2026(
    values: dict[str, NDArray[np.float64]], pooled: dict[str, float], omitted: Collection[str]
) -> pd.DataFrame:
    """Summarise each metric as cell-eval2 does: columns by name, a median, no quartiles.

    Parameters
    ----------
    values
        Metrics and components, ``[P]`` each.
    pooled
        Ratios of sums. They have no value per perturbation, so nothing but `mean` is stated.
    omitted
        Metrics whose perturbations without a value are left out; of the others `count` includes
        them.
    """
    import pandas as pd

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
    return pd.DataFrame(columns, index=pd.Index(ROWS_2026, name="statistic")).reset_index()


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
