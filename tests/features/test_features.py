"""`vcell features`: tables from sets, networks, embeddings and effects, and their coverage."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from vcell_features.embed import of_edges, of_sets

from vcell.cli import run
from vcell.data.simulate import simulate

pytestmark = pytest.mark.usefixtures("alone")

COMPLEXES = {f"C{i}": [f"G{i}{j}" for j in range(6)] for i in range(8)}
GENES = [gene for genes in COMPLEXES.values() for gene in genes]


def made(capsys, *words):
    assert run(["features", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tables"]
    with np.load(told[0]["table"]) as file:
        return told, file["genes"].tolist(), file["features"]


def put(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def together(genes, values):
    """Return whether genes are nearest to those of their own complex."""
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    return np.mean([genes[i][:-1] == genes[j][:-1] for i, j in enumerate(near.argmax(axis=1))])


def edges():
    rng = np.random.default_rng(0)
    inside = [(a, b) for genes in COMPLEXES.values() for a in genes for b in genes if a < b]
    across = [tuple(rng.choice(GENES, 2, replace=False)) for _ in range(10)]
    return inside + across


@pytest.mark.parametrize("name", ["sets.gmt", "sets.gmt.gz"])
def test_genes_of_the_same_sets_have_similar_features(tmp_path, capsys, name):
    lines = [f"{name}\tabout\t" + "\t".join(genes) for name, genes in COMPLEXES.items()]
    put(tmp_path / name, "\n".join(lines) + "\n")
    told, genes, values = made(capsys, name, "--rank", "8")
    assert told[0]["table"] == "features/sets.npz"
    assert told[0]["made_of"] == "8 gene sets"
    assert sorted(genes) == sorted(GENES)
    assert values.dtype == np.float32
    assert together(genes, values) == 1


def test_rows_of_sets_are_those_of_a_dense_decomposition():
    rng = np.random.default_rng(1)
    sets = {f"S{i}": rng.choice(GENES, 4, replace=False).tolist() for i in range(30)}
    genes, values = of_sets(sets, 47)
    member = np.array([[gene in of for of in sets.values()] for gene in genes], float)
    weighed = member * np.log((len(genes) + 1) / 4)
    weighed /= np.linalg.norm(weighed, axis=1, keepdims=True)
    # all but the least component: products of rows are nearly those of the whole
    exact = np.linalg.svd(weighed, compute_uv=False)
    np.testing.assert_allclose(
        np.linalg.norm(values @ values.T - weighed @ weighed.T), exact[29] ** 2, atol=1e-5
    )


@pytest.mark.parametrize("method", ["diffusion", "svd"])
def test_neighbours_in_a_network_have_similar_features(method):
    one, other = zip(*edges(), strict=True)
    genes, values = of_edges((one, other, np.ones(len(one))), 8, method)
    assert together(genes, values) > 0.9


def test_diffusion_equals_random_walks_with_restart():
    one, other = zip(*edges(), strict=True)
    genes, values = of_edges((one, other, np.ones(len(one))), 46, "diffusion")
    a = np.zeros((len(genes), len(genes)))
    place = {gene: i for i, gene in enumerate(genes)}
    for x, y in zip(one, other, strict=True):
        a[place[x], place[y]] = a[place[y], place[x]] = 1
    degree = a.sum(axis=1)
    normal = a / np.sqrt(np.outer(degree, degree))
    walk = 0.5 * np.linalg.inv(np.eye(len(a)) - 0.5 * normal)
    first = np.sqrt(degree / degree.sum())
    expected = walk - np.outer(first, first)  # of the stationary state, which all share
    low = np.linalg.eigvalsh(walk)[0]
    assert np.abs(values @ values.T - expected).max() < low + 1e-6


NETWORKS = {
    "string.txt.gz": ("protein1 protein2 combined_score", " ", 900),
    "biogrid.tab3.txt": (
        "#BioGRID\tEntrez A\tOfficial Symbol Interactor A\tOfficial Symbol Interactor B\tPubmed",
        "\t",
        None,
    ),
    "plain.tsv": (None, "\t", None),
    "weighed.csv": (None, ",", 0.5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_read_in_their_published_formats(tmp_path, capsys, name):
    head, mark, weight = NETWORKS[name]
    rows = []
    for i, (a, b) in enumerate(edges()):
        cells = [str(i), "7", a, b, "123"] if "biogrid" in name else [a, b]
        rows.append(mark.join(cells + ([str(weight)] if weight else [])))
    text = "\n".join(([head] if head else []) + rows) + "\n"
    put(tmp_path / name, text)
    told, genes, values = made(capsys, name, "--rank", "8")
    assert told[0]["made_of"] == f"a network of {len(edges())} edges, by diffusion"
    assert set(genes) == set(GENES)
    assert together(genes, values) > 0.8


@pytest.mark.parametrize("name", ["map.csv", "map.csv.gz", "map.tsv", "map.tsv.gz"])
def test_numbers_of_genes_are_taken_as_they_are(tmp_path, capsys, name):
    mark = "\t" if ".tsv" in name else ","
    values = np.random.default_rng(0).normal(size=(4, 3)).round(3)
    rows = [mark.join(["", "x", "y", "z"])]
    rows += [mark.join([f"G{i}", *map(str, row)]) for i, row in enumerate(values)]
    put(tmp_path / name, "\n".join(rows) + "\n")
    told, genes, found = made(capsys, name)
    assert (told[0]["table"], told[0]["made_of"]) == ("features/map.npz", "a table of 3 columns")
    assert genes == ["G0", "G1", "G2", "G3"]
    np.testing.assert_allclose(found, values, rtol=1e-6)


def test_ids_get_names_and_weak_edges_are_left_out(tmp_path, capsys):
    ids = {gene: f"9606.ENSP{i:05d}" for i, gene in enumerate(GENES)}
    rows = [f"{ids[a]} {ids[b]} {900 if a[:-1] == b[:-1] else 100}" for a, b in edges()]
    (tmp_path / "links.txt").write_text("protein1 protein2 combined_score\n" + "\n".join(rows))
    names = "\n".join(f"{code}\t{gene}" for gene, code in ids.items())
    (tmp_path / "info.txt").write_text("#string_protein_id\tpreferred_name\n" + names)
    words = ["links.txt", "--ids", "info.txt", "--minimum", "700", "--rank", "8"]
    told, genes, _ = made(capsys, *words)
    assert told[0]["made_of"].startswith("a network of 12")  # 120 and those by chance
    assert set(genes) == set(GENES)


def test_targets_that_a_table_knows_are_counted_under_any_name(tmp_path, capsys):
    adata = simulate(cells=200, genes=40, perturbations=4, seed=0)
    names = sorted(set(adata.obs["target_gene"].astype(str)) - {"non-targeting"})
    called = dict(zip(names, ["MARCH8", "TP53", "MYC", "NOGENE"], strict=True))
    adata.obs["target_gene"] = [called.get(str(n), str(n)) for n in adata.obs["target_gene"]]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "emb.csv").write_text("gene,a,b\nMARCHF8,1,2\nENSG00000141510,3,4\nACTB,5,6\n")
    assert run(["features", "emb.csv", "--cells", "cells.h5ad"]) == 0
    said = capsys.readouterr().out
    assert "2 of 4" in said
    assert "2 of 4 targets are in no table: MYC, NOGENE" in said
    (tmp_path / "yeast.csv").write_text("gene,a,b\nYAL001C,1,2\nYAL002W,3,4\n")
    assert run(["features", "yeast.csv", "--cells", "cells.h5ad"]) == 0
    assert "features/yeast.npz knows none of the 4 targets" in capsys.readouterr().err
    assert run(["features", "--cells", "cells.h5ad", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["tables"]
    assert [row["table"] for row in told] == ["Gene Ontology", "Reactome"]
    assert sorted(told[0]["known"]) == ["MARCH8", "MYC", "TP53"]
    assert "CC-BY-4.0" in told[0]["made_of"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.gmt", None, "missing.gmt: there is no such file"),
        ("empty.tsv", "", "is empty"),
        ("bad.gmt", "a\tb\n", "name, description and genes"),
        ("null.csv", "gene,a,b\nc\0,1,2\nd,3,4\n", "null.csv is not a text file"),
        ("cut.gmt.gz", "a\tb\tc\n", "is not UTF-8 text, nor gzipped text"),
        ("cut.csv.gz", "gene,a\nb,1\n", "is not UTF-8 text, nor gzipped text"),
        ("prose.txt", "hello\n", "neither sets, a network nor a table"),
        ("short.tsv", "a\tb\nc\n", "an edge has two ends"),
        ("few.tsv", "a\tb\n", "too few for features"),
        ("words.txt", "protein1 protein2 combined_score\na b x\n", "the weight is 'x'"),
        ("fake.parquet", "PAR", "is not a Parquet file"),
        ("junk.gz", "junk", "is not UTF-8 text, nor gzipped text"),
    ],
)
def test_files_that_are_not_a_source_are_refused(tmp_path, capsys, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert run(["features", name]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "features").exists()
