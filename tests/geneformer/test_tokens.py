"""Cells become the tokens that Geneformer's own rule gives, and what is unusual is said."""

from __future__ import annotations

import time

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.geneformer.reference import encode_cell
from vcell.data import Block, open_cells
from vcell.errors import UserError
from vcell.geneformer import tokens, vocabulary
from vcell.geneformer.vocabulary import SIZES


def cells_of(counts, names, **var):
    return anndata.AnnData(
        sp.csr_matrix(counts.astype(np.float32)),
        var=pd.DataFrame(var, index=np.array(names, object)),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(len(counts))]),
    )


def encoded(adata, version="V1", longest=2048):
    with open_cells(adata) as source:
        return tokens.encode(source, vocabulary.shipped(version), longest)


def random_genes(rng, version, n):
    known = vocabulary.shipped(version)
    return known.ids[rng.choice(np.arange(known.n_special + 2, len(known)), n, replace=False)]


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_the_shipped_vocabularies_are_whole(version):
    known = vocabulary.shipped(version)
    assert len(known) == SIZES[version]
    genes = known.medians[known.n_special + 2 :]
    assert np.isfinite(genes).all()
    assert (genes > 0).all()
    assert list(known.ids[2:] if version == "V1" else known.ids[4:]) == sorted(
        known.ids[2:] if version == "V1" else known.ids[4:]
    )


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("longest", [2048, 64])
def test_random_tied_empty_and_full_cells_equal_the_obvious_rule(version, longest):
    rng = np.random.default_rng(0)
    names = list(random_genes(rng, version, 3000))
    counts = rng.poisson(rng.gamma(0.3, 2, 3000), (12, 3000))
    counts[3] = 1  # every gene, most of them tied where medians are
    counts[5] = 0
    counts[6, :2990] = 0
    counts[7] *= 1000
    got = encoded(cells_of(counts, names), version, longest)
    kept = [i for i in range(12) if i != 5]
    assert got.rows.tolist() == kept
    for cell, row in enumerate(kept):
        want = encode_cell(counts[row].astype(float), names, vocabulary.shipped(version), longest)
        np.testing.assert_array_equal(got[cell], want)


def test_a_cell_of_more_genes_than_any_length_is_cut_and_its_genes_counted():
    rng = np.random.default_rng(1)
    names = list(random_genes(rng, "V2", 11_387))
    counts = rng.integers(1, 5, (2, 11_387))
    got = encoded(cells_of(counts, names), "V2", 4096)
    assert got.lengths.tolist() == [4096, 4096]
    assert got.n_genes.tolist() == [11_387, 11_387]
    assert (got[0][0], got[0][-1]) == (2, 3)
    want = encode_cell(counts[1].astype(float), names, vocabulary.shipped("V2"), 4096)
    np.testing.assert_array_equal(got[1], want)


def test_equal_values_are_ordered_by_token_and_counted():
    known = vocabulary.shipped("V2")
    shared = pd.Series(known.medians).value_counts().index[0]
    same = np.flatnonzero(known.medians == shared)
    names = known.ids[same][::-1]
    got = encoded(cells_of(np.ones((1, len(same))), names), "V2")
    assert got[0][1:-1].tolist() == sorted(same)
    assert got.n_ties.tolist() == [len(same) - 1]


def test_ids_symbols_aliases_lower_case_and_versions_lead_to_one_token_and_are_added(capsys):
    known = vocabulary.shipped("V2")
    tp53, other = known.token["ENSG00000141510"], known.token["ENSG00000000003"]
    names = ["ENSG00000141510.18", "tp53", "P53", "ensg00000141510", "TSPAN6", "unknown-gene"]
    counts = np.array([[1, 1, 1, 1, 3, 50]])
    got = encoded(cells_of(counts, names), "V2")
    values = {tp53: 4 / known.medians[tp53], other: 3 / known.medians[other]}
    assert got[0][1:-1].tolist() == sorted(values, key=lambda t: -values[t])
    said = capsys.readouterr().err
    assert "1 after its version was stripped" in said
    assert "5 of 6 columns have a token" in said
    assert "share one" in said


def test_copies_on_chromosome_y_are_tokens_of_their_own_in_v1_and_none_in_v2():
    v1, v2 = vocabulary.shipped("V1"), vocabulary.shipped("V2")
    for name in ("ENSGR0000124333", "ensgr0000124333", "ENSG00000124333.16_PAR_Y"):
        assert v1.find(name) == v1.token["ENSGR0000124333"]
        assert v2.find(name) == -1
    assert v1.find("ENSG00000124333.16") == v1.token["ENSG00000124333"]


def test_stored_zeros_are_no_genes():
    known = vocabulary.shipped("V1")
    block = Block(
        0, np.arange(1), np.array([0, 3]), np.array([2, 0, 1], np.int32),
        np.array([0, 5, 0], np.float32), 3,
    )  # fmt: skip
    got = tokens.encode_block(block, np.array([10, 11, 12], np.int32), known, 2048)
    assert got[0].tolist() == [10]


def test_the_order_does_not_depend_on_how_cells_are_cut_into_blocks():
    rng = np.random.default_rng(2)
    names = list(random_genes(rng, "V1", 500))
    counts = rng.poisson(0.5, (40, 500))
    whole = encoded(cells_of(counts, names))
    with open_cells(cells_of(counts, names)) as source:
        known = vocabulary.shipped("V1")
        mapping = known.map(source.genes)
        blocks = [
            tokens.encode_block(block, mapping.token_of, known, 2048)
            for block in source.chunks(max_rows=7)
        ]
    joined = tokens.TokenCells.joined(blocks)
    np.testing.assert_array_equal(joined.tokens, whole.tokens)
    np.testing.assert_array_equal(joined.indptr, whole.indptr)


def test_ensembl_ids_in_a_column_are_found_by_themselves():
    known = vocabulary.shipped("V1")
    adata = cells_of(np.ones((2, 2)), ["a", "b"], ensembl_id=list(known.ids[5:7]))
    assert sorted(encoded(adata)[0].tolist()) == [5, 6]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"ENSMUSG{i:011d}" for i in range(30)], "look like mouse"),
        ([f"Gap{chr(97 + i // 6)}{chr(97 + i % 6)}" for i in range(30)], "look like mouse"),
        ([f"peak-{i}" for i in range(30)], "none of its 30 genes"),
    ],
)
def test_genes_of_another_species_or_of_none_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        encoded(cells_of(np.ones((3, 30)), names))


def test_a_few_names_that_happen_to_be_genes_are_pointed_at(capsys):
    encoded(cells_of(np.ones((3, 99)), [f"peak{i}" for i in range(99)]))  # PEAK1 is a gene
    assert "hardly any column has a token" in capsys.readouterr().err
    encoded(cells_of(np.ones((3, 3)), ["TP53", "x", "y"]))
    assert "hardly" not in capsys.readouterr().err


def test_logarithms_and_empty_cells_are_refused():
    known = vocabulary.shipped("V1")
    rng = np.random.default_rng(3)
    counts = rng.poisson(2, (20, 100))
    logs = np.log1p(counts / np.maximum(counts.sum(1, keepdims=True), 1) * 1e4)
    with pytest.raises(UserError, match="raw counts are needed"):
        encoded(cells_of(logs, list(known.ids[5:105])))
    with pytest.raises(UserError, match="no cell has a count"):
        encoded(cells_of(np.column_stack([np.zeros((3, 1)), np.ones((3, 1))]), ["TSPAN6", "x"]))


def test_a_vocabulary_file_is_read_and_a_damaged_one_refused(tmp_path):
    path = tmp_path / "own.tsv"
    path.write_text("token\tid\tmedian\tsymbol\n<pad>\t0\t\t\n<mask>\t1\t\t\nENSG1\t2\t1.5\tA\n")
    known = vocabulary.read(path)
    assert (known.find("a"), known.medians[2], known.cls) == (2, 1.5, None)
    path.write_text("token\tid\tmedian\tsymbol\n<pad>\t0\t\t\n<mask>\t0\t\t\n")
    with pytest.raises(
        UserError, match=r"own\.tsv, line 3: token 0 is out of range or given twice"
    ):
        vocabulary.read(path)


def test_a_core_encodes_thousands_of_cells_a_second():
    rng = np.random.default_rng(4)
    known = vocabulary.shipped("V1")
    n_cells, n_genes = 400, 58_000
    token_of = np.full(n_genes, -1, np.int32)
    token_of[rng.choice(n_genes, 25_424, replace=False)] = np.arange(2, 25_426)
    columns = [np.sort(rng.choice(n_genes, 2500, replace=False)) for _ in range(n_cells)]
    block = Block(
        0, np.arange(n_cells), np.arange(n_cells + 1) * 2500,
        np.concatenate(columns).astype(np.int32),
        rng.geometric(0.4, n_cells * 2500).astype(np.float32), n_genes,
    )  # fmt: skip
    tokens.encode_block(block, token_of, known, 2048)
    started = time.process_time()
    tokens.encode_block(block, token_of, known, 2048)
    assert n_cells / (time.process_time() - started) > 1500  # measured: see benchmarks/isp.py
