"""Sources of gene sets: this package, the user's files, other distributions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vcell import plugin
from vcell.errors import UserError
from vcell.text_files import read_table, read_text, suffix_of, text_of

GROUP = "vcell.gene_sets"
_GENE_COLUMNS = ("gene", "genes", "target_gene", "symbol", "gene_name", "gene_symbol", "gene_id")
_SET_COLUMNS = ("set", "group", "gene_set")


@dataclass(frozen=True)
class GeneSet:
    """A named set of genes.

    Attributes
    ----------
    name, title
        The name that commands take, and a description of a few words.
    genes
        Symbols.
    source, licence
        Where the set was published, and its terms of use.
    """

    name: str
    genes: tuple[str, ...]
    title: str = ""
    source: str = ""
    licence: str = ""


def shipped() -> dict[str, GeneSet]:
    """Return the sets that come with vcell."""
    folder = resources.files("vcell.genes")
    about = json.loads(folder.joinpath("sets.json").read_text())
    sets = {}
    for line in folder.joinpath("human.gmt").read_text().splitlines():
        name, source, *genes = line.split("\t")
        sets[name] = GeneSet(
            name, tuple(genes), about[name]["title"], source, about[name]["licence"]
        )
    return sets


def announced() -> tuple[dict[str, GeneSet], tuple[str, ...]]:
    """Return the sets of other distributions, and one line for each that could not be loaded."""
    sets: dict[str, GeneSet] = {}
    problems: list[str] = []
    built_in = shipped()
    every = plugin.announced(GROUP)
    problems += every.problems
    for one in every.found.values():
        try:
            loaded = one.entry_point.load()
            given = loaded() if callable(loaded) else loaded
            found = [given] if isinstance(given, GeneSet) else list(given)
            if not all(isinstance(item, GeneSet) for item in found):
                raise TypeError("an entry point must give vcell.genes.GeneSet objects")
        except Exception as error:  # noqa: BLE001 - a third party's fault must not stop the rest
            problems.append(f"gene sets {one.name!r} ({one.target}) are left out: {error}")
            continue
        for item in found:
            taken = item.name in sets or item.name in built_in
            if taken:
                problems.append(
                    f"the gene set {item.name!r} of {one.distribution} is ignored: "
                    "there is one of that name already"
                )
            else:
                sets[item.name] = item
    return sets, tuple(problems)


def read_sets(path: Path) -> dict[str, GeneSet]:
    """Read a user's sets from .gmt, gzipped or not, or from a table or list of genes.

    A .csv or .tsv has a column ``gene`` (or ``target_gene``, ``symbol``, ...) and optionally a
    column ``set``; a .txt has one gene per line. Without set names the set is named after the file.
    """
    if suffix_of(path) == ".gmt":
        with text_of(path) as file:
            return _read_gmt(path, file.read())
    if path.suffix in (".csv", ".tsv"):
        return _read_table(path)
    if path.suffix == ".txt":
        genes = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
        return _named(path, {path.stem: list(genes)})
    raise UserError(
        f"{path}: gene sets are read from .gmt, .csv, .tsv and .txt files, not {path.suffix!r}"
    )


def read_targets(path: Path) -> tuple[str, ...]:
    """Return the genes of a list of perturbation targets, each once, in order."""
    genes = [gene for found in read_sets(path).values() for gene in found.genes]
    return tuple(dict.fromkeys(genes))


def _read_gmt(path: Path, text: str) -> dict[str, GeneSet]:
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 3:
            raise UserError(
                f"{path}:{number}: a line of a .gmt file is name, description and genes, with tabs"
            )
        sets.setdefault(fields[0], []).extend(filter(None, map(str.strip, fields[2:])))
    return _named(path, sets)


def _read_table(path: Path) -> dict[str, GeneSet]:
    table = read_table(path)
    gene, group = table.column(*_GENE_COLUMNS), table.column(*_SET_COLUMNS)
    if gene is None:
        raise table.lacks("of genes", hint=f"name it one of {', '.join(_GENE_COLUMNS)}")
    sets: dict[str, list[str]] = {}
    for _, row in table.rows:
        if row[gene]:
            sets.setdefault(path.stem if group is None else row[group], []).append(row[gene])
    return _named(path, sets)


def _named(path: Path, sets: dict[str, list[str]]) -> dict[str, GeneSet]:
    if not any(sets.values()):
        raise UserError(f"{path} names no genes")
    return {
        name: GeneSet(name, tuple(dict.fromkeys(genes)), source=str(path))
        for name, genes in sets.items()
    }


def known_sets(files: Iterable[Path]) -> tuple[dict[str, GeneSet], dict[str, GeneSet], Any]:
    """Return shipped and announced sets, the user's own, and problems with the announced."""
    others, problems = announced()
    own: dict[str, GeneSet] = {}
    for path in files:
        own.update(read_sets(path))
    return {**shipped(), **others}, own, problems
