"""The genes of a model, found in a file of cells or samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError
from vcell.genes.names import GeneIndex, Match, ensembl_column

if TYPE_CHECKING:
    from vcell.data import CellSource


def required_genes(
    source: CellSource,
    genes: Sequence[str],
    used: Sequence[int],
    least: float,
    *,
    quiet: bool = False,
) -> tuple[Match, tuple[str, ...]]:
    """Find a model's genes in a file, and report their number.

    Parameters
    ----------
    source, genes
        The file, and all genes of the model.
    used
        Numbers of the genes that the model uses.
    least
        Smallest share of these that must be present; at least one must be.
    quiet
        Whether to report only errors.

    Returns
    -------
    tuple
        The match of all genes, and the names of the used ones that are missing.
    """
    match = GeneIndex(source.genes, ensembl_column(source)).match(genes)
    missing = tuple(genes[i] for i in used if match.index[i] < 0)
    n = len(used) - len(missing)
    found = f"{source.name} has {n:,} of the model's {len(used):,} genes"
    if not n or n < least * len(used):
        raise UserError(
            f"{found} only; it lacks, say, {', '.join(missing[:3])}",
            hint="other names or another species? --least-genes lowers the bound",
        )
    if not quiet:
        console.say(f"{found} ({len(match.renamed):,} under another name)")
    return match, missing
