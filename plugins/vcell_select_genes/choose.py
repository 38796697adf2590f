"""Turn measurements into an order of genes, and report its coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.genes import GeneIndex, GeneSet, read_targets
from vcell.hvg import Ranking
from vcell_select_genes import coverage
from vcell_select_genes.arrange import (
    ALL,
    Arrangement,
    Group,
    arrange,
    default_quota,
    parse_quotas,
)
from vcell_select_genes.responsive import Responses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_select_genes import SelectGenes


@dataclass(frozen=True)
class Findings:
    """Measurements of the cells: gene names, variability, responses, and the perturbed genes."""

    index: GeneIndex
    ranking: Ranking
    effects: Responses | None
    targets: tuple[str, ...]


def choose(
    genes: NDArray[Any],
    config: SelectGenes,
    names: Sequence[str],
    sets: dict[str, GeneSet],
    urgent: set[str],
    found: Findings,
) -> tuple[Arrangement, list[Group], dict[str, Any]]:
    """Return the chosen genes, the groups, and the report; `urgent` groups are complete."""
    ranking = found.ranking
    usable = np.zeros(len(genes), bool)
    usable[_first_of_name(genes)] = True
    listed = read_targets(config.targets) if config.targets else ()
    targeted = tuple(dict.fromkeys([*listed, *found.targets]))
    used = [sets[name] for name in names if name in sets]
    every = [*targeted, *(gene for one in used for gene in one.genes)]
    found.index.match(every)  # at once, so that later questions find them
    targets = found.index.match(targeted)
    candidates, unmatched = _candidates(names, sets, found, targets.found, usable)
    quotas = parse_quotas(config.quotas, names, config.n_genes)
    n_genes, urgent = config.n_genes, urgent | {"targets"}
    default = {
        name: default_quota(name, len(members), n_genes, urgent=name in urgent)
        for name, members in candidates.items()
    }
    groups = [Group(name, candidates[name], n) for name, n in (default | quotas).items()]
    filler = ranking.order[usable[ranking.order]]
    if groups:
        filler = filler[ranking.n_cells[filler] > 0]
    else:
        groups = [Group("hvg", filler[ranking.selected[filler]], ALL)]
        n_genes = len(groups[0].genes)
        if n_genes > config.n_genes:
            tied = console.count(n_genes - config.n_genes, "gene")
            console.say(f"tied at the cut-off, and kept as well: {tied}")
    chosen = arrange(groups, filler, n_genes, config.phases)
    if len(chosen.genes) < config.n_genes:
        console.warn(f"only {console.count(len(chosen.genes), 'gene')} could be chosen")
    report: dict[str, Any] = {
        "genes": len(genes),
        "chosen": len(chosen.genes),
        "hvg_flavor": config.hvg_flavor,
        "phases": list(chosen.phases),
        "groups": coverage.group_counts(groups, chosen),
        "unmatched": unmatched,
    }
    if targeted:
        report["targets"] = coverage.target_coverage(targeted, targets.index, chosen, len(genes))
    if found.effects is not None:
        report["responses"] = coverage.response_coverage(found.effects, chosen, genes)
    return chosen, groups, report


def _first_of_name(genes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the first gene of every name, and report duplicates."""
    _, first = np.unique(genes, return_index=True)
    if len(first) < len(genes):
        repeated = console.count(len(genes) - len(first), "gene")
        console.warn(
            f"names that occurred before: of {repeated}; only the first of a name can be chosen"
        )
    return first


def _candidates(
    names: Sequence[str],
    sets: dict[str, GeneSet],
    found: Findings,
    targets: NDArray[np.int64],
    usable: NDArray[np.bool_],
) -> tuple[dict[str, NDArray[np.int64]], dict[str, list[str]]]:
    """Return each group's genes, best first, and the names of each that the file lacks.

    Genes of a set are sorted by response or by variability, whichever ranks them higher. Genes in
    no cell are left out, unless they are targets.
    """
    ranking, effects = found.ranking, found.effects
    expressed = usable & (ranking.n_cells > 0)
    standing = np.empty(len(usable), np.int64)
    standing[ranking.order] = np.arange(len(usable))
    responding = np.empty(0, np.int64) if effects is None else effects.order()
    interest = standing.copy()
    interest[responding] = np.minimum(interest[responding], np.arange(len(responding)))
    groups: dict[str, NDArray[np.int64]] = {}
    unmatched: dict[str, list[str]] = {}
    for name in names:
        if name == "targets":
            groups[name] = targets
        elif name == "responsive":
            groups[name] = responding[expressed[responding]]
        elif name == "hvg":
            groups[name] = ranking.order[(ranking.selected & expressed)[ranking.order]]
        else:
            match = found.index.match(sets[name].genes)
            unmatched[name] = list(match.unmatched)
            members = match.found[expressed[match.found]]
            groups[name] = members[np.lexsort((standing[members], interest[members]))]
    return groups, unmatched
