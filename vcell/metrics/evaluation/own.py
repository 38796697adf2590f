"""What is said of perturbations whose names are not those of their target genes.

cell-eval finds the gene that a perturbation leaves out of its scores by the perturbation's very
name, and tells perturbations apart by their names alone. Scores are kept equal to its scores, so
nothing is changed here; it is only said where a reader would expect something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.genes import GeneIndex
from vcell.screen.targets import alike, members, of_the_same_targets
from vcell.suggest import few

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def notes_of_targets(
    perturbations: Sequence[str], control: str, genes: NDArray[np.str_]
) -> list[str]:
    """Say which own genes are not left out, and which perturbations have the same targets."""
    place = {gene: i for i, gene in enumerate(genes.tolist())}
    sets = {name: members(name, control) for name in perturbations}
    targets = list(dict.fromkeys(gene for one in sets.values() for gene in one))
    in_any_case = {gene.casefold(): i for gene, i in place.items()}
    match = GeneIndex(genes).match(targets)
    known = {
        name: i if i >= 0 else in_any_case.get(name.casefold(), -1)
        for name, i in zip(targets, match.index.tolist(), strict=True)
    }
    known = {name: i for name, i in known.items() if i >= 0}
    left_in = [
        f"{name} ({', '.join(str(genes[known[gene]]) for gene in one if gene in known)})"
        for name, one in sets.items()
        if name not in place and any(gene in known for gene in one)
    ]
    notes = []
    if left_in:
        notes.append(
            "as in cell-eval, a target gene is left out only if it has the perturbation's exact "
            f"name; not left out: {few(left_in)}"
        )
    if several := alike(perturbations, control, known):
        notes.append(f"as in cell-eval, {of_the_same_targets(several)}")
    return notes
