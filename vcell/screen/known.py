"""Features of targets that need no cells, and so which perturbations can be predicted.

Tables of genes come with vcell and from the user. Their genes are found under any name that HGNC
lists, so a table with MARCHF8 knows the target MARCH8.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.genes.features import shipped_features
from vcell.screen import tables
from vcell.screen.features import FeatureBlock
from vcell.screen.names import read_perturbations
from vcell.screen.targets import members
from vcell.suggest import few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vcell.config.screen import ScreenOptions

_FEWEST = 2  # perturbations that can be learnt from


@dataclass(frozen=True)
class Known:
    """What is known about the targets.

    Attributes
    ----------
    blocks
        Tables, their genes under the screen's names where it has them.
    measured
        Targets that are among the genes of the cells, and their names there.
    predictable
        Perturbations whose targets all have features.
    learnable
        The predictable ones, and others to learn from: those that share a target with another
        perturbation, or were named to be held out.
    """

    blocks: list[FeatureBlock]
    measured: dict[str, str]
    predictable: set[str]
    learnable: set[str]

    @classmethod
    def of(
        cls,
        genes: Sequence[str],
        perturbations: Sequence[str],
        config: ScreenOptions,
        graphs: Sequence[FeatureBlock] = (),
    ) -> Known:
        """Read the tables, and decide which perturbations can be used; report the others.

        `graphs` are features from graphs, under the gene names used there.
        """
        names = list(dict.fromkeys(perturbations))
        targets = list(dict.fromkeys(gene for name in names for gene in members(name)))
        index = GeneIndex(genes)
        measured = {t: index.genes[i] for t in targets if (i := index.find(t)) >= 0}
        present = set(genes)
        own = GeneIndex([*genes, *(gene for gene in targets if gene not in present)])
        blocks = _blocks(own, targets, config, graphs)
        known = {gene for block in blocks for gene in block.genes}
        if config.expression_features:
            known |= measured.keys()
        if not blocks and not config.expression_features:
            raise UserError(
                "no target has features: --no-expression-features, no table that comes "
                "with vcell names one, and no --features",
                hint="name a gene feature table; vcell features makes one",
            )
        predictable = {name for name in names if (own_ := members(name)) and known.issuperset(own_)}
        often = Counter(gene for name in names for gene in members(name))
        shares = {name for name in names if any(often[gene] > 1 for gene in members(name))}
        named = set(read_perturbations(config.held_out)) if config.held_out else set()
        learnable = predictable | shares | (named & set(names))
        lost = [name for name in names if name not in learnable]
        _tell(names, lost, predictable)
        return cls(blocks, measured, predictable, learnable)


def _tell(names: list[str], lost: list[str], predictable: set[str]) -> None:
    if len(names) < _FEWEST:
        raise UserError(
            f"a model learns from at least {_FEWEST} perturbations, and the cells have {len(names)}"
        )
    if len(predictable) < _FEWEST:
        raise UserError(
            f"the targets of {len(names) - len(predictable)} of {len(names)} perturbations have no "
            f"features: {few([name for name in names if name not in predictable])}",
            hint="perturbations are named after their target genes (A, or A+B), which must be "
            "among the genes of the cells or in a table of --features; vcell features makes tables",
        )
    if lost:
        console.warn(
            f"left out: {len(lost)} of {len(names)} perturbations, whose targets have no features: "
            f"{few(lost)}"
        )


def _blocks(
    own: GeneIndex, targets: list[str], config: ScreenOptions, graphs: Sequence[FeatureBlock]
) -> list[FeatureBlock]:
    wanted, found = set(targets), []
    for path in (one for given in config.features for one in _files(given)):
        genes, values = tables.read(path)
        block = _renamed(FeatureBlock(str(path), genes, values), own, wanted)
        if not wanted & set(block.genes):
            raise UserError(
                f"{path} names none of the {len(targets)} target genes (its first: {genes[0]})",
                hint="gene names must be those of the perturbations, of the same species",
            )
        found.append(block)
    shipped = [
        FeatureBlock(f"{title} (comes with vcell)", genes, values)
        for title, genes, values in (shipped_features() if config.shipped_features else ())
    ]
    renamed = (_renamed(block, own, wanted) for block in (*shipped, *graphs))
    return [*found, *(block for block in renamed if wanted & set(block.genes))]


def _files(path: Path) -> list[Path]:
    """Return a table, or those in a folder."""
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if tables.is_table(one))
    if not found:
        raise UserError(f"{path} has no gene feature tables", hint=tables.FORMATS)
    return found


def _renamed(block: FeatureBlock, own: GeneIndex, wanted: set[str]) -> FeatureBlock:
    """Rename genes as in the screen; if two get one name, the gene that already had it is used."""
    place: dict[str, int] = {}
    exact = set(block.genes)
    aliases = []
    for row, gene in enumerate(block.genes):
        number = own.find(gene)
        name = own.genes[number] if number >= 0 else gene
        if name != gene and name in exact:
            name = gene
        if place.setdefault(name, row) == row and name != gene and name in wanted:
            aliases.append(f"{name} as {gene}")
    if aliases:
        console.say(f"features: {block.source} has {few(aliases)}")
    return FeatureBlock(block.source, list(place), block.values[list(place.values())])
