"""Every metric of cell-eval's full profile that needs no clustering and no distances of all cells.

``clustering_agreement`` (Leiden, whose result depends on the version of the graph library) and
``pearson_edistance`` (quadratic in cells) are left out, and said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.metrics import calls, vcc2025

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_evaluate.rules2025 import Sides

_TOPS = (None, 50, 100, 200, 500)


def every(sides: Sides) -> dict[str, NDArray[np.float64]]:
    """Return the metrics in cell-eval's order."""
    console.say("clustering_agreement and pearson_edistance are not computed")
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
