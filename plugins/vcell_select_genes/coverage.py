"""What a selection of genes keeps, and what it loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_select_genes.arrange import Arrangement, Group
    from vcell_select_genes.responsive import Responses

_LISTED = 50


def group_counts(groups: Sequence[Group], chosen: Arrangement) -> list[dict[str, Any]]:
    """Return each group's size, and the number of its genes in each phase."""
    rows = []
    for group in groups:
        joined = chosen.phase[np.isin(chosen.genes, group.genes)]
        within = [int(np.count_nonzero(joined <= k)) for k in range(len(chosen.phases))]
        rows.append({"group": group.name, "genes": len(group.genes), "phases": within})
    return rows


def target_coverage(
    targets: Sequence[str], index: NDArray[np.int64], chosen: Arrangement, n_genes: int
) -> dict[str, Any]:
    """Return which targets are chosen, which are left out, and which the file lacks."""
    place = np.full(n_genes + 1, -1)  # the last entry is for targets that are not in the file
    place[chosen.genes] = chosen.phase
    phase = place[index]
    return {
        "wanted": len(targets),
        "phases": [
            int(np.count_nonzero((phase >= 0) & (phase <= k))) for k in range(len(chosen.phases))
        ],
        "left_out": [targets[int(i)] for i in np.flatnonzero((index >= 0) & (phase < 0))],
        "not_in_file": [targets[int(i)] for i in np.flatnonzero(index < 0)],
    }


def response_coverage(
    effects: Responses, chosen: Arrangement, genes: NDArray[Any]
) -> dict[str, Any]:
    """Return how many responses (pairs of perturbation and gene) each phase keeps."""
    count = effects.n_responses
    total = int(count.sum())
    inside = np.zeros(len(genes), bool)
    inside[chosen.genes] = True
    lost = np.flatnonzero((count > 0) & ~inside)
    lost = lost[np.lexsort((-effects.strongest[lost], -count[lost]))]
    covered = [int(count[chosen.genes[chosen.phase <= k]].sum()) for k in range(len(chosen.phases))]
    per = effects.responds.sum(axis=1)
    missing = per - effects.responds[:, chosen.genes].sum(axis=1)
    order = np.argsort(-missing, kind="stable")
    return {
        "tested": len(effects.names),
        "untested": list(effects.untested),
        "responses": total,
        "kept": covered,
        "responding_genes": int(np.count_nonzero(count)),
        "lost_genes": [
            {"gene": str(genes[g]), "perturbations": int(count[g])} for g in lost[:_LISTED]
        ],
        "n_lost_genes": len(lost),
        "perturbations": [
            {
                "perturbation": effects.names[p],
                "cells": int(effects.n_cells[p]),
                "responses": int(per[p]),
                "lost": int(missing[p]),
            }
            for p in order
        ],
    }


def kept_curve(count: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of all responses covered by the first 1, 2, ... genes of an order."""
    return np.asarray(np.cumsum(count[order]) / max(int(count.sum()), 1))
