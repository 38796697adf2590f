"""Results in the layouts of cell-eval: ``results.csv`` and ``agg_results.csv``.

The aggregate is polars' ``describe`` (nearest-rank quantiles, standard deviation of a sample), so
that ``cell-eval score`` and anybody's scripts read ours as they read theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

QUANTILES = {"25%": 0.25, "50%": 0.5, "75%": 0.75}


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
