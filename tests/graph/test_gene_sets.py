"""Tables of gene sets with one value each."""

from __future__ import annotations

import pytest

from vcell.errors import UserError
from vcell.graph import read_gene_sets

KUZMIN = (
    "Query strain ID\tArray strain ID\tCombined mutant type\t"
    "Adjusted genetic interaction score (epsilon or tau)\tP-value\n"
    "YDL227C+YBL007C_tm1\tYAL002W_dma1\tdigenic\t-0.1\t0.2\n"
    "YBL007C+YCR009C_tm2\tYAL002W_dma1\ttrigenic\t0.25\t0.01\n"
    "YBL007C+YCR009C_tm2\tYAL010C_dma2\ttrigenic\t-0.5\t0.02\n"
)


def table(tmp_path, text, name="sets.tsv"):
    (tmp_path / name).write_text(text)
    return read_gene_sets(tmp_path / name)


def sets_of(found):
    return [[found.genes[i] for i in row if i >= 0] for row in found.members]


def test_kuzmins_strains_are_sets_with_tau(tmp_path):
    found = table(tmp_path, KUZMIN)
    assert sets_of(found) == [
        ["YBL007C", "YAL002W"],  # the neutral locus is not a gene of the set
        ["YBL007C", "YCR009C", "YAL002W"],
        ["YBL007C", "YCR009C", "YAL010C"],
    ]
    assert found.values.tolist() == [-0.1, 0.25, -0.5]
    assert found.p_values.tolist() == [0.2, 0.01, 0.02]
    assert found.query.tolist() == [0, 1, 1]
    assert "3 sets of 4 genes (1 of 2, 2 of 3)" in found.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "gene_1\tgene_2\tgene_3\ttau\tp_value\nA\tB\tC\t0.5\t0.1\nD\tA\t\t1\t0.1\n",
        "genes,value,p\nA+B+C,0.5,0.1\nD+A,1,0.1\n",
    ],
)
def test_columns_of_genes_and_joined_sets_are_read(tmp_path, text):
    found = table(tmp_path, text)
    assert sets_of(found) == [["A", "B", "C"], ["D", "A"]]
    assert found.values.tolist() == [0.5, 1]
    assert found.p_values.tolist() == [0.1, 0.1]
    places, missing = found.places(["D", "C", "A"])
    assert places.tolist() == [[2, -1, 1], [0, 2, -1]]
    assert missing == ("B",)


def test_a_table_without_a_header_is_genes_then_a_value(tmp_path):
    found = table(tmp_path, "A B C 0.5\nA B D 0.25\n")
    assert sets_of(found) == [["A", "B", "C"], ["A", "B", "D"]]
    assert found.values.tolist() == [0.5, 0.25]


def test_a_map_of_all_pairs_is_read_once_each(tmp_path):
    found = table(tmp_path, "gene\tA\tSET\tC\nA\t9\t2\t3\nSET\t2\t9\tnan\nC\t3\tnan\t9\n")
    assert sets_of(found) == [["A", "SET"], ["A", "C"]]
    assert found.values.tolist() == [2, 3]


def test_controls_and_the_neutral_locus_are_no_genes_of_a_set(tmp_path):
    found = table(tmp_path, "set,value\nA+B,1\nctrl+A,2\nA+ctrl,3\nctrl,4\nYDL227C+B,5\nHO+B,6\n")
    assert sets_of(found) == [["A", "B"], ["A"], ["A"], ["B"], ["B"]]
    assert found.values.tolist() == [1, 2, 3, 5, 6]
    assert "left out, controls alone: 1 line" in found.notes
    mapped = table(tmp_path, "gene\tA\tctrl\tC\nA\t9\t2\t3\nctrl\t2\t9\t4\nC\t3\t4\t9\n")
    assert sets_of(mapped) == [["A"], ["A", "C"], ["C"]]
    assert mapped.values.tolist() == [2, 3, 4]


def test_two_names_of_a_human_gene_are_one_gene(tmp_path):
    found = table(tmp_path, "gene_1,gene_2,value\nMARCH8,TP53,1\nTP53,MARCHF8,2\n")
    assert sets_of(found) == [["MARCHF8", "TP53"], ["TP53", "MARCHF8"]]
    assert "two names of one gene are read as one: MARCH8 is MARCHF8" in found.notes
    with pytest.raises(UserError, match="MARCHF8 is in one set under two names"):
        table(tmp_path, "gene_1,gene_2,value\nMARCH8,MARCHF8,1\nTP53,KLF1,2\n")


def test_yeast_names_of_both_kinds_are_told_of(tmp_path):
    found = table(tmp_path, "gene_1,gene_2,value\nYAL001C,ACT1,1\nYAL002W,YAL003W,2\n")
    assert found.notes[1].startswith("3 genes have systematic names and 1 others (ACT1)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gene_1\tgene_2\ttau\nA\tB\t1\nC\tC\t1\n", "sets.tsv:3: C is named twice in one set"),
        (KUZMIN.replace("YAL010C_", "YBL007C_"), "YBL007C is named twice"),
        ("gene_1\tgene_2\ttau\nA\tB\tx\n", "sets.tsv:2: the value is 'x', not a number"),
        ("gene_1\tgene_2\ttau\nA\tB\n", "sets.tsv:2: 2 columns, the first line has 3"),
        ("gene_1\tgene_2\ttau\n\t\t1\n", "sets.tsv:2: this set has no gene"),
        ("gene_1\tgene_2\ttau\n", "holds no gene sets"),
        ("1\t2\n", "names no genes"),
        ("\tA\tB\tC\nA\t1\t2\t3\nB\t2\t1\t5\nD\t3\t5\t1\n", "rows and columns name other genes"),
        ("\tA\tB\tC\nA\t1\t2\t3\nB\t7\t1\t5\nC\t3\t5\t1\n", "gives different values for A with B"),
        ("", "is empty"),
    ],
)
def test_what_is_no_table_of_sets_is_one_line(tmp_path, text, said):
    with pytest.raises(UserError) as error:
        table(tmp_path, text)
    assert said in str(error.value)
