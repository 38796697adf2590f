"""Build the gene feature tables shipped with vcell, from Gene Ontology and Reactome.

    python tools/build_gene_features.py ../shared/data/human_genes vcell/genes

The source files are checked against their SHA-256 first. GO annotations are propagated to all more
general terms (`is_a` and `part_of`), so that genes of sibling terms share the parent.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from vcell_features.embed import of_sets

SHA256 = {
    "go_annotations_human_2022-09.tsv.gz": "4ad82d55fe0d8ba068f33cdd401d892d",
    "go_parents_2022-07.tsv.gz": "95cf6700c343c3ad8ec6b510dcdc6eed",
    "c2.cp.reactome_wp_pid.v7.5.1.symbols.gmt.gz": "f2e4ee4e91225bfd236673604e5cb3f2",
}  # the first half of each digest
RANK = {"go": 64, "reactome": 48}
ABOUT = {
    "go": {
        "title": "Gene Ontology",
        "source": "human annotations of 2022-09 and terms of 2022-07, by NCBI and Bioconductor",
        "licence": "CC-BY-4.0",
    },
    "reactome": {
        "title": "Reactome",
        "source": "Reactome pathways as in MSigDB 7.5.1",
        "licence": "CC0-1.0",
    },
}


def main(source: Path, target: Path) -> None:
    """Write go.npz, reactome.npz and features.json."""
    for name, digest in SHA256.items():
        found = hashlib.sha256((source / name).read_bytes()).hexdigest()
        if not found.startswith(digest):
            raise SystemExit(f"{name} is another version: SHA-256 {found}, expected {digest}")
    about = {}
    for name, sets in {"go": go(source), "reactome": reactome(source)}.items():
        genes, values = of_sets(sets, RANK[name])
        scaled = (values / np.abs(values).max()).astype(np.float16)
        path = target / f"{name}.npz"
        with path.open("wb") as file:
            np.savez_compressed(file, genes=np.array(genes, "U"), features=scaled)
        about[name] = {**ABOUT[name], "sets": len(sets), "genes": len(genes), "width": RANK[name]}
        print(f"{path}: {len(genes):,} genes, {path.stat().st_size / 1e6:.1f} MB")
    (target / "features.json").write_text(json.dumps(about, indent=2) + "\n")


def go(source: Path) -> dict[str, set[str]]:
    """Return the genes of every term, including those of more specific terms."""
    parents: dict[str, set[str]] = {}
    for row in rows(source / "go_parents_2022-07.tsv.gz"):
        if row["rel"] in ("isa", "part of", "part_of"):
            parents.setdefault(row["child"], set()).add(row["parent"])
    above: dict[str, frozenset[str]] = {}

    def ancestors(term: str) -> frozenset[str]:
        if term not in above:
            found = {term}
            for parent in parents.get(term, ()):
                found |= ancestors(parent)
            above[term] = frozenset(found)
        return above[term]

    sets: dict[str, set[str]] = {}
    for row in rows(source / "go_annotations_human_2022-09.tsv.gz"):
        for term in ancestors(row["go_id"]):
            sets.setdefault(term, set()).add(row["symbol"])
    return sets


def reactome(source: Path) -> dict[str, set[str]]:
    """Return the genes of every Reactome pathway."""
    text = gzip.decompress(
        (source / "c2.cp.reactome_wp_pid.v7.5.1.symbols.gmt.gz").read_bytes()
    ).decode()
    lines = (line.split("\t") for line in text.splitlines())
    return {name: set(genes) for name, _, *genes in lines if name.startswith("REACTOME_")}


def rows(path: Path) -> list[dict[str, str]]:
    """Read a gzipped table."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
