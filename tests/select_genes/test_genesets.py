"""Gene sets and gene names."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from importlib import metadata, resources

import numpy as np
import pytest

from vcell.errors import UserError
from vcell.genes import GeneIndex, GeneSet, announced, read_sets, read_targets, shipped
from vcell.genes.names import _lines

FREE = {"MIT", "BSD-3-Clause", "CC-BY-4.0", "MIT and CC-BY-4.0", "CC0-1.0"}


def test_shipped_sets_name_their_source_and_a_permissive_licence():
    sets = shipped()
    assert {"tf", "cell-cycle", "pluripotency", "metabolic"} <= set(sets)
    for item in sets.values():
        assert item.genes
        assert item.source
        assert item.licence in FREE
    about = json.loads(resources.files("vcell.genes").joinpath("sets.json").read_text())
    assert about["genes.tsv.gz"]["licence"] == "CC0-1.0"
    assert len(sets["tf"].genes) == 1639
    assert len(sets["cell-cycle"].genes) == 97


def test_the_shipped_files_can_be_made_again(repository, shared_data, tmp_path):
    subprocess.run(
        [
            sys.executable, str(repository / "tools" / "build_genesets.py"),
            str(shared_data / "human_genes"), str(tmp_path),
        ],
        check=True,
    )  # fmt: skip
    for name in ("human.gmt", "sets.json", "genes.tsv.gz"):
        ours = resources.files("vcell.genes").joinpath(name).read_bytes()
        assert (tmp_path / name).read_bytes() == ours, name


def test_genes_are_found_under_every_name():
    index = GeneIndex(["TBXT", "CENPU", "ENSG00000111640.15", "POU5F1", "Made.up"])
    match = index.match(
        ["T", "MLF1IP", "GAPDH", "ENSG00000204531", "OCT4", "Made.up", "made.up", "FAKE1"]
    )
    assert match.index.tolist() == [0, 1, 2, 3, 3, 4, -1, -1]
    assert match.unmatched == ("made.up", "FAKE1")
    assert match.renamed["T"] == "TBXT"
    assert match.found.tolist() == [0, 1, 2, 3, 4]


def test_the_files_own_name_comes_first():
    # MLF1IP is CENPU's earlier symbol, but this file has a gene of its own by that name
    index = GeneIndex(["CENPU", "MLF1IP"])
    assert index.find("MLF1IP") == 1


def test_ids_of_a_column_count_too():
    index = GeneIndex(["first", "second"], np.array(["ENSG00000111640", ""]))
    assert index.find("GAPDH") == 0
    assert index.find("ENSG00000111640.3") == 0


def test_the_first_of_two_equal_names_counts():
    assert GeneIndex(["A", "B", "A"]).find("A") == 0


def test_most_of_each_set_is_among_the_challenges_genes(shared_data):
    names = (shared_data / "vcc25" / "gene_names.csv").read_text().split()
    index = GeneIndex(names)
    for item in shipped().values():
        assert len(index.match(item.genes).found) > 0.95 * len(item.genes), item.name
    wanted = read_targets(shared_data / "vcc25" / "pert_counts_Validation.csv")
    assert len(wanted) == 50
    assert index.match(wanted).unmatched == ()


def test_tables_and_lists_are_read(tmp_path):
    (tmp_path / "t.csv").write_text("set,Gene\na,X\nb,Y\na,Z\na,X\n")
    assert {k: v.genes for k, v in read_sets(tmp_path / "t.csv").items()} == {
        "a": ("X", "Z"),
        "b": ("Y",),
    }
    (tmp_path / "l.txt").write_text("X\n\nY\n")
    assert read_sets(tmp_path / "l.txt")["l"].genes == ("X", "Y")
    (tmp_path / "e.txt").write_text("\n")
    with pytest.raises(UserError, match="names no genes"):
        read_sets(tmp_path / "e.txt")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"not .*json"):
        read_sets(tmp_path / "x.json")


def test_other_distributions_announce_sets_and_faults_stop_nobody(monkeypatch):
    def entry(name, value):
        return metadata.EntryPoint(name, value, "vcell.gene_sets")

    points = [
        entry("good", f"{__name__}:GIVEN"),
        entry("function", f"{__name__}:give"),
        entry("wrong", f"{__name__}:WRONG"),
        entry("absent", "no_such_module:x"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda **_: points)
    sets, problems = announced()
    assert set(sets) == {"given", "made"}
    assert len(problems) == 2
    assert "no_such_module" in problems[0] + problems[1]


GIVEN = GeneSet("given", ("A",))
WRONG = ["not a gene set"]


def give():
    return [GeneSet("made", ("B",))]


def test_many_names_are_found_as_one_is():
    """In one search of some lines of HGNC's table, and one by one in a table of all."""
    rng = random.Random(1)
    lines = [line.split("\t") for line in _lines()]
    of_line = [[name for cell in line for name in cell.split("|") if name] for line in lines]
    times = Counter(name.casefold() for names in of_line for name in names)
    every = [name for names in of_line for name in names]
    shared = [name for name in every if times[name.casefold()] > 1]

    def written(name):
        return rng.choice([name, name, name, name.lower(), name.upper(), f"{name}.7", f"no{name}"])

    renamed = 0
    for trial in range(12):
        both = rng.sample(of_line, 50)  # genes of the file that are asked for by another name
        genes = [written(rng.choice(rng.choice([shared, every]))) for _ in range(400)]
        genes += [rng.choice(names) for names in both]
        ids = [rng.choice([rng.choice(lines)[1], f"{rng.choice(lines)[1]}.3", ""]) for _ in genes]
        wanted = [written(rng.choice(rng.choice([shared, every]))) for _ in range(200)]
        wanted += [rng.choice(names) for names in both] + genes[:3]
        index = GeneIndex(genes, np.array(ids) if trial % 2 else None)
        expected = [index.find(name) for name in wanted]
        pairs = zip(expected, wanted, strict=True)
        renamed += sum(i >= 0 and index.genes[i] != name for i, name in pairs)
        parts = wanted[:100], wanted[50:]
        assert index.match(parts[0]).index.tolist() == expected[:100]
        assert index.match(parts[1]).index.tolist() == expected[50:]
    assert renamed > 100
