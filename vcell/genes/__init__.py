"""Named sets of genes, and lookup of genes under any of their names.

Shipped sets are in this folder (`human.gmt`; licence, source and version in `sets.json`), a user's
own come from .gmt, .csv, .tsv or .txt files, and other distributions announce theirs in the
entry-point group ``vcell.gene_sets``: an entry point loads to a `GeneSet`, an iterable of them, or
a function that returns either.
"""

from __future__ import annotations

from vcell.genes.names import GeneIndex, Match
from vcell.genes.sets import GROUP, GeneSet, announced, read_sets, read_targets, shipped

__all__ = [
    "GROUP",
    "GeneIndex",
    "GeneSet",
    "Match",
    "announced",
    "read_sets",
    "read_targets",
    "shipped",
]
