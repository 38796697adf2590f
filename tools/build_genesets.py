"""Build the gene sets shipped with vcell, from the files published by their sources.

    python tools/build_genesets.py FOLDER vcell/genes

FOLDER has the source files by the names below; each is checked against its SHA-256 first.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import sys
from pathlib import Path

SHA256 = {
    "hgnc_symbol_ensembl.tsv.gz": "17f440b75b408b7a70c9d40481a772c3",
    "tf_lambert2018_v1.01.txt": "52fc1dab0d02b3a28b3bbe45232fceb2",
    "cell_cycle_regev_tirosh.txt": "eb666ba4f7b7a8b2845e1586d42687fe",
    "h.all.v7.5.1.symbols.gmt": "de0fdee38af2611a284973f565df1a98",
    "c2.cp.reactome_wp_pid.v7.5.1.symbols.gmt.gz": "f2e4ee4e91225bfd236673604e5cb3f2",
    "esc_and_celltype_marker_sets.gmt": "3d8eb5e3cd58c17c3c448e57c828d268",
}  # the first half of each digest
HALLMARK = "MSigDB 7.5.1 Hallmark"
REACTOME = "MSigDB 7.5.1 Reactome"
METABOLIC_HALLMARKS = (
    "HALLMARK_GLYCOLYSIS", "HALLMARK_OXIDATIVE_PHOSPHORYLATION", "HALLMARK_FATTY_ACID_METABOLISM",
    "HALLMARK_CHOLESTEROL_HOMEOSTASIS", "HALLMARK_BILE_ACID_METABOLISM",
    "HALLMARK_XENOBIOTIC_METABOLISM", "HALLMARK_PEROXISOME",
)  # fmt: skip
METABOLIC_REACTOME = (
    "REACTOME_METABOLISM_OF_CARBOHYDRATES", "REACTOME_METABOLISM_OF_NUCLEOTIDES",
    "REACTOME_METABOLISM_OF_AMINO_ACIDS_AND_DERIVATIVES", "REACTOME_FATTY_ACID_METABOLISM",
    "REACTOME_PYRUVATE_METABOLISM_AND_CITRIC_ACID_TCA_CYCLE", "REACTOME_METABOLISM_OF_STEROIDS",
    "REACTOME_METABOLISM_OF_VITAMINS_AND_COFACTORS", "REACTOME_PHOSPHOLIPID_METABOLISM",
    "REACTOME_SPHINGOLIPID_METABOLISM",
)  # fmt: skip
# Reactome's amino-acid metabolism includes the ribosome and the proteasome, left out here.
_MACHINES = re.compile(r"^(RP[LS]P?\d|RPSA|PSM[A-G]\d|UBA52|FAU$)")


def main(source: Path, target: Path) -> None:
    """Write genes.tsv.gz, human.gmt and sets.json."""
    for name, digest in SHA256.items():
        found = hashlib.sha256((source / name).read_bytes()).hexdigest()
        if not found.startswith(digest):
            raise SystemExit(f"{name} is another version: SHA-256 {found}, expected {digest}")
    target.mkdir(parents=True, exist_ok=True)
    write_genes(source / "hgnc_symbol_ensembl.tsv.gz", target / "genes.tsv.gz")
    sets = build_sets(source)
    lines = [f"{name}\t{about['source']}\t" + "\t".join(genes) for name, about, genes in sets]
    (target / "human.gmt").write_text("\n".join(lines) + "\n")
    about = {name: {**facts, "n_genes": len(genes)} for name, facts, genes in sets}
    about["genes.tsv.gz"] = {
        "title": "Gene names: approved and earlier symbols, aliases, Ensembl ids",
        "source": "HGNC complete set, 2026-06-25",
        "licence": "CC0-1.0",
    }
    (target / "sets.json").write_text(json.dumps(about, indent=2) + "\n")


def write_genes(source: Path, target: Path) -> None:
    """Write symbol, Ensembl id, earlier symbols and aliases; the output is deterministic."""
    out = io.StringIO()
    with gzip.open(source, "rt") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            fields = (row["symbol"], row["ensembl_id"], row["prev_symbols"], row["alias_symbols"])
            out.write("\t".join(fields) + "\n")
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(out.getvalue().encode())


def build_sets(source: Path) -> list[tuple[str, dict[str, str], list[str]]]:
    """Return name, facts and genes of every set."""
    pathways = {
        **read_gmt(source / "h.all.v7.5.1.symbols.gmt"),
        **read_gmt(source / "c2.cp.reactome_wp_pid.v7.5.1.symbols.gmt.gz"),
        **read_gmt(source / "esc_and_celltype_marker_sets.gmt"),
    }
    cycle = (source / "cell_cycle_regev_tirosh.txt").read_text().split()
    metabolic = union(pathways, METABOLIC_HALLMARKS + METABOLIC_REACTOME)
    stem = ("EMBRYONIC_STEM_CELLS", "REACTOME_TRANSCRIPTIONAL_REGULATION_OF_PLURIPOTENT_STEM_CELLS")
    factors = (source / "tf_lambert2018_v1.01.txt").read_text().split()
    tirosh = "Tirosh et al. 2016, as in scverse/scanpy_usage"
    return [
        (
            "tf",
            {
                "title": "Transcription factors",
                "source": "Lambert et al. 2018, The Human Transcription Factors 1.01, as in GEARS",
                "licence": "MIT",
            },
            sorted(set(factors)),
        ),
        ("cell-cycle-s", _cycle("S phase", tirosh), cycle[:43]),
        ("cell-cycle-g2m", _cycle("G2 and M phase", tirosh), cycle[43:]),
        ("cell-cycle", _cycle("Cell cycle: S, G2 and M", tirosh), cycle),
        (
            "pluripotency",
            {
                "title": "Pluripotency",
                "source": f"embryonic stem cell markers of CASCADE (MIT) and {REACTOME}, "
                "transcriptional regulation of pluripotent stem cells",
                "licence": "MIT and CC-BY-4.0",
            },
            union(pathways, stem),
        ),
        (
            "metabolic",
            {
                "title": "Metabolic enzymes and transporters",
                "source": f"{HALLMARK} ({len(METABOLIC_HALLMARKS)} sets) and {REACTOME} "
                f"({len(METABOLIC_REACTOME)} sets), without ribosome and proteasome",
                "licence": "CC-BY-4.0",
            },
            [gene for gene in metabolic if not _MACHINES.match(gene)],
        ),
    ]


def _cycle(title: str, source: str) -> dict[str, str]:
    return {"title": title, "source": source, "licence": "BSD-3-Clause"}


def union(pathways: dict[str, list[str]], names: tuple[str, ...]) -> list[str]:
    """Return the genes of the named sets, sorted."""
    return sorted({gene for name in names for gene in pathways[name]})


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Read a .gmt file, gzipped or not."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    rows = (line.split("\t") for line in text.splitlines() if line.strip())
    return {row[0]: [gene for gene in row[2:] if gene] for row in rows}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
