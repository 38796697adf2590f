"""Every metric of cell-eval's full profile.

Two of them are not scored for the baseline, whose cells are all alike: ``pearson_edistance`` (all
distances are equal) and ``clustering_agreement`` (so are all profiles).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.metrics import calls, clusters, energy, vcc2025

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vcell.data import Block
    from vcell.metrics.evaluation.rules2025 import Sides
    from vcell.metrics.evaluation.view import View

_TOPS = (None, 50, 100, 200, 500)


def every(sides: Sides) -> dict[str, NDArray[np.float64]]:
    """Return the metrics in cell-eval's order."""
    real, pred = sides.real_calls, sides.pred_calls
    tables = (sides.real_table, sides.pred_table)
    values = {f"overlap_at_{k or 'N'}": vcc2025.overlap(real, pred, k) for k in _TOPS}
    values |= {f"precision_at_{k or 'N'}": vcc2025.precision(real, pred, k) for k in _TOPS}
    precision, roc = calls.areas(real, sides.pred_table)
    values |= {
        "de_spearman_sig": np.full(len(sides.names), calls.numbers(real, pred)),
        "de_direction_match": calls.direction(*tables, real),
        "de_spearman_lfc_sig": calls.fold_changes(*tables, real),
        "de_sig_genes_recall": calls.recall(real, pred),
        "de_nsig_counts_real": real.counts.astype(np.float64),
        "de_nsig_counts_pred": pred.counts.astype(np.float64),
        "pr_auc": precision,
        "roc_auc": roc,
    }
    means = (sides.real_means[1:], sides.pred_means[1:])
    deltas = (sides.real_delta, sides.pred_delta)
    values |= {
        "pearson_delta": vcc2025.pearson(*deltas),
        "mse": vcc2025.squared_error(*means),
        "mae": vcc2025.absolute_error(*means),
        "mse_delta": vcc2025.squared_error(*deltas),
        "mae_delta": vcc2025.absolute_error(*deltas),
        "discrimination_score_l1": vcc2025.discrimination(sides.distance, sides.config.ties),
    }
    for metric in ("l2", "cosine"):
        d = vcc2025.distances(*deltas, sides.target, metric)
        values[f"discrimination_score_{metric}"] = vcc2025.discrimination(d, sides.config.ties)
    return values


def of_cells(sides: Sides, real: View, pred: View) -> dict[str, NDArray[np.float64]]:
    """Return the two metrics that have one value for all perturbations, repeated for each."""
    n_groups, n_genes, n_real = len(sides.names) + 1, len(sides.pair.genes), len(real.side.group)
    console.say("distances between all cells and the controls: this is quadratic in cells")

    def both(rows: NDArray[np.int64]) -> Iterator[Block]:
        yield from real.blocks(rows[rows < n_real])
        for block in pred.blocks(rows[rows >= n_real] - n_real):
            yield replace(block, rows=block.rows + n_real)

    lent = np.where(real.side.group == 0, 0, -1) if sides.pair.borrowed else -1
    group = np.concatenate([np.broadcast_to(lent, n_real), pred.side.group])
    found = energy.agreement(
        energy.distances(real.blocks, real.side.group, n_groups, n_genes),
        energy.distances(both, group, n_groups, n_genes),
    )
    same = clusters.agreement(sides.real_means[1:], sides.pred_means[1:])
    if same is None:
        console.say("clustering_agreement is left out: it needs igraph (pip install 'vcell[full]')")
    numbers = {"pearson_edistance": found}
    if same is not None:
        numbers["clustering_agreement"] = same
    return {name: np.full(len(sides.names), value) for name, value in numbers.items()}
