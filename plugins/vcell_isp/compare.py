"""`vcell isp compare`: how similarly two runs rank genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.metrics.rankings import overlap, spearman
from vcell_isp.stats import FinishedRun, opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_isp import IspCompare


def run(one: str, other: str, config: IspCompare) -> None:
    """Compare two runs by gene, and by event where both have the same events."""
    a, b = opened(one, config.runs), opened(other, config.runs)
    columns = [name for name in a.frame.columns if name.startswith("shift_")]
    columns = [name for name in [*columns, "distance"] if name in b.frame.columns]
    facts: dict[str, Any] = {
        "runs": [a.run.name, b.run.name],
        "differs": _differences(a, b),
        "columns": {name: _compared(a, b, name, config) for name in columns},
    }
    rows = [(name, *(found[key] for key in _KEYS)) for name, found in facts["columns"].items()]
    lines = [f"{key}: {x} | {y}" for key, (x, y) in facts["differs"].items()]
    lines += ["", console.table(rows, ["column", *(_KEYS[key] for key in _KEYS)])]
    console.result(facts, "\n".join(lines).lstrip("\n"))


_KEYS = {
    "genes": "genes", "spearman": "Spearman", "top": "shared top", "of": "of",
    "sign": "same sign", "sign_above_floor": "above floor", "flips": "flips", "largest": "largest",
}  # fmt: skip


def _differences(a: FinishedRun, b: FinishedRun) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which the runs differ."""
    one, two = a.run.meta.get("config") or {}, b.run.meta.get("config") or {}
    return {key: (one.get(key), two.get(key)) for key in one if one.get(key) != two.get(key)}


def _compared(a: FinishedRun, b: FinishedRun, column: str, config: IspCompare) -> dict[str, Any]:
    """Compare means by gene; `largest` is the largest difference of one event."""
    means = [r.frame.groupby("ensembl_id")[column].mean() for r in (a, b)]
    shared = means[0].index.intersection(means[1].index)
    if not len(shared):
        raise UserError(f"{a.run.name} and {b.run.name} perturbed no gene in common")
    x, y = (m.loc[shared].to_numpy(np.float64) for m in means)
    floor = 3 * max(_floor(a), _floor(b))
    above = (np.abs(x) > floor) & (np.abs(y) > floor)
    same = np.sign(x) == np.sign(y)
    return {
        "genes": len(shared),
        "spearman": spearman(x, y),
        "top": overlap(x, y, config.top),
        "of": min(config.top, len(shared)),
        "sign": float(same.mean()),
        "sign_above_floor": float(same[above].mean()) if above.any() else None,
        "flips": int((~same & above).sum()),
        "largest": _largest(a, b, column),
    }


def _floor(result: FinishedRun) -> float:
    gates = (result.run.meta.get("summary") or {}).get("gates") or {}
    return float(gates.get("noise_floor") or 0.0)


def _largest(a: FinishedRun, b: FinishedRun, column: str) -> float | None:
    """Return the largest difference of an event in both runs."""
    keys = ["cell", "ensembl_id"]
    both = a.frame[[*keys, column]].merge(b.frame[[*keys, column]], on=keys)
    if both.empty:
        return None
    gap: NDArray[np.float64] = np.abs(both[f"{column}_x"] - both[f"{column}_y"]).to_numpy()
    return float(gap.max())
