"""Ligand-receptor communication: a user's table of pairs, and their scores in a patient.

No table comes with vcell: none with a licence that allows redistribution was found
(docs/decisions.md). Any CSV or TSV with a column of ligands and one of receptors works; complexes
are written A_B or A+B, and have the expression of their weakest part.

For mean log-normalised expression m of a ligand l in type a and of its receptor r in type b, a pair
scores ``sqrt(m_la * m_rb)``. Each patient gets, for each pair, the sum over types weighted by their
proportions, and for each two types the mean over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from vcell import console
from vcell.data.log_scale import log_scaled
from vcell.errors import UserError
from vcell.genes.names import GeneIndex
from vcell.text_files import NamedColumns, read_table

if TYPE_CHECKING:
    from pathlib import Path

    Array = NDArray[Any]

_LIGAND = ("ligand", "ligand_symbol", "ligand_genesymbol", "source_genesymbol", "source",
           "partner_a", "ligand_complex")  # fmt: skip
_RECEPTOR = ("receptor", "receptor_symbol", "receptor_genesymbol", "target_genesymbol",
             "target", "partner_b", "receptor_complex")  # fmt: skip
_TARGET = 1e4  # library size before the logarithm


@dataclass(frozen=True)
class Pairs:
    """Pairs whose genes are all in the file. L pairs, `width` genes in all of them.

    Attributes
    ----------
    names
        ``LIGAND-RECEPTOR`` of each pair.
    genes
        ``[width]`` columns of the file.
    parts
        For each pair: indices into `genes` of the ligand's parts, and of the receptor's.
    """

    names: tuple[str, ...]
    genes: NDArray[np.int64]
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def width(self) -> int:
        """Number of genes needed."""
        return len(self.genes)

    def heard(self, counts: sparse.csr_array) -> sparse.csr_array:
        """Return log-normalised values of these genes, cells by `width`."""
        library = np.asarray(counts.sum(1)).ravel()
        chosen = counts[:, self.genes].tocsr()
        values = log_scaled(chosen.data, _TARGET / np.maximum(library, 1), chosen.indptr)
        return sparse.csr_array((values, chosen.indices, chosen.indptr), shape=chosen.shape)

    def scores(self, means: Array, shares: Array) -> Array:
        """Return [P, L + K * K] scores of patients with means [P, K, width], shares [P, K]."""
        root = np.sqrt(np.maximum(means, 0))
        ligand = np.stack([root[:, :, list(a)].min(2) for a, _ in self.parts], axis=2)
        receptor = np.stack([root[:, :, list(b)].min(2) for _, b in self.parts], axis=2)
        sent = np.einsum("pk,pkl->pl", shares, ligand)
        taken = np.einsum("pk,pkl->pl", shares, receptor)
        between = np.einsum("pal,pbl->pab", ligand, receptor) / len(self.names)
        return np.concatenate([sent * taken, between.reshape(len(means), -1)], axis=1)


def pairs_table(path: Path) -> tuple[NamedColumns, int, int]:
    """Read a table of pairs, and the indices of the columns of ligands and receptors."""
    table = read_table(path)
    ligand, receptor = table.column(*_LIGAND), table.column(*_RECEPTOR)
    if ligand is None or receptor is None:
        raise table.lacks("of ligands and one of receptors", hint="name them ligand and receptor")
    return table, ligand, receptor


def read_pairs(path: Path, genes: Any) -> Pairs:
    """Read a table of pairs and find their genes; report how many are found."""
    table, ligand, receptor = pairs_table(path)
    index, place = GeneIndex(genes), dict[int, int]()
    names, parts, total = [], [], len(table.rows)
    for _, row in table.rows:
        a, b = row[ligand], row[receptor]
        found = [_parts(word, index) for word in (a, b)]
        if not all(found) or f"{a}-{b}" in names:
            continue
        names.append(f"{a}-{b}")
        both = [tuple(place.setdefault(g, len(place)) for g in some) for some in found]
        parts.append((both[0], both[1]))
    if not names:
        raise UserError(f"{path}: the genes of none of its {total:,} pairs are in the cells")
    console.say(f"{path.name}: {len(names):,} of {total:,} pairs have their genes in the cells")
    return Pairs(tuple(names), np.array(list(place), np.int64), tuple(parts))


def _parts(word: str, index: GeneIndex) -> list[int]:
    """Return the columns of a gene or of all parts of a complex; none if one is missing."""
    if not word:
        return []
    whole = index.find(word)
    if whole >= 0:
        return [whole]
    found = [index.find(part.strip()) for part in word.replace("+", "_").split("_")]
    return found if all(number >= 0 for number in found) else []
