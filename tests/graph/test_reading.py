"""Edge lists become graphs: every format, what is counted, what is refused, what is kept."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcell.errors import UserError
from vcell.graph import GeneGraphs, Relation, read, read_edges

STRING = "protein1 protein2 neighborhood fusion combined_score\n"
STRING += (
    "9606.TP53 9606.MDM2 0 300 900\n9606.MDM2 9606.TP53 0 300 900\n9606.MYC 9606.MAX 150 0 950\n"
)
BIOGRID = "\t".join(
    ["#BioGRID Interaction ID", "Systematic Name Interactor A", "Systematic Name Interactor B",
     "Official Symbol Interactor A", "Official Symbol Interactor B", "Experimental System Type",
     "Organism ID Interactor A", "Organism ID Interactor B"]
)  # fmt: skip
BIOGRID += (
    "\n1\tS1\tS2\tTP53\tMDM2\tphysical\t9606\t9606\n2\tS1\tS3\tTP53\tMYC\tgenetic\t9606\t9606"
)
BIOGRID += "\n3\tS1\tS4\tTP53\tTrp53\tphysical\t9606\t10090\n"
SGD = "YAL001C\tTFC3\tYBR123C\tTFC1\tTwo-hybrid\tphysical interactions\ta\tb\tc\td\te\tf\n"
SGD += "YAL001C\tTFC3\tYGR047C\tTFC4\tSynthetic\tgenetic interactions\ta\tb\tc\td\te\tf\n"
GEARS = ",source,target,importance\n0,TP53,MDM2,0.4\n1,MYC,MAX,0.2\n"


def put(path, text, *, packed=False):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


def edges_of(graphs):
    return {
        relation.name: sorted(
            (graphs.genes[s], graphs.genes[t]) for s, t in relation.edge_index().T.tolist()
        )
        for relation in graphs
    }


@pytest.mark.parametrize("packed", [False, True])
def test_string_has_a_relation_for_each_channel(tmp_path, packed):
    path = put(tmp_path / ("links.txt.gz" if packed else "links.txt"), STRING, packed=packed)
    graphs = read([path])
    assert graphs.genes == ("MAX", "MDM2", "MYC", "TP53")
    assert edges_of(graphs) == {
        "links:neighborhood": [("MYC", "MAX")],
        "links:fusion": [("MDM2", "TP53"), ("TP53", "MDM2")],
    }
    assert graphs["links:fusion"].weights.tolist() == [300, 300]
    assert graphs["links:fusion"].symmetric
    (one,) = read_edges(path, weight="combined_score")
    assert one.weight.tolist() == [900, 900, 950]


def test_biogrid_keeps_one_species_and_tells_kinds_apart(tmp_path):
    path = put(tmp_path / "B.tab3.txt", BIOGRID)
    graphs = read([path])
    assert edges_of(graphs) == {
        "B:genetic": [("TP53", "MYC")],
        "B:physical": [("TP53", "MDM2")],
    }
    assert "1 edge of other species than 9606" in " ".join(graphs.notes)
    by_system = read([path], ["S1", "S2", "S3"])  # the columns whose names are known
    assert edges_of(by_system)["B:physical"] == [("S1", "S2")]


def test_sgd_and_gears(tmp_path):
    sgd = read([put(tmp_path / "interaction_data.tab", SGD)])
    assert edges_of(sgd) == {
        "interaction_data:physical": [("YAL001C", "YBR123C")],
        "interaction_data:genetic": [("YAL001C", "YGR047C")],
    }
    assert edges_of(read([tmp_path / "interaction_data.tab"], ["TFC3", "TFC1", "TFC4"]))[
        "interaction_data:physical"
    ] == [("TFC3", "TFC1")]
    gears = read([put(tmp_path / "go.csv", GEARS)])
    assert edges_of(gears) == {"go": [("MYC", "MAX"), ("TP53", "MDM2")]}
    assert gears["go"].directed
    assert gears["go"].weights.tolist() == pytest.approx([0.2, 0.4])  # rows MAX, MDM2


@pytest.mark.parametrize(("text", "first"), [("1 2 0.5\n3 1 1\n", 1), ("0 1 0.5\n2 0 1\n", 0)])
def test_numbered_genes_are_places_in_the_table(tmp_path, text, first):
    graphs = read([put(tmp_path / "fusion.txt", text)], ["A", "B", "C"])
    assert edges_of(graphs) == {"fusion": [("A", "B"), ("C", "A")]}
    assert f"by their number in the table, from {first}" in graphs.notes[0]


def test_what_is_left_out_is_counted_and_said(tmp_path):
    text = "gene_a\tgene_b\tscore\n" + "".join(
        f"{a}\t{b}\t{w}\n"
        for a, b, w in [("A", "B", 1), ("A", "B", 3), ("B", "A", 2), ("C", "C", 1), ("A", "X", 1),
                        ("Y", "X", 1), ("C", "A", 5)]
    )  # fmt: skip
    graphs = read([put(tmp_path / "g.tsv", text)], ["A", "B", "C", "D"])
    counts = graphs.counts["g"]
    assert (counts.lines, counts.self_loops, counts.duplicates) == (7, 1, 1)
    assert (counts.unknown_edges, counts.unknown_genes) == (2, 2)
    assert (counts.both_ways, counts.edges) == (1, 3)
    assert "1 self-loop, 1 duplicate, 2 edges of 2 unknown genes" in graphs.notes[0]
    assert "1 pair both ways" in graphs.notes[0]
    assert graphs.isolated() == ["D"]
    ends = dict(zip(edges_of(graphs)["g"], graphs["g"].weights, strict=False))
    assert ends  # the larger weight of a pair named twice counts
    assert 3 in graphs["g"].weights
    assert graphs["g"].both().n_edges == 4
    assert graphs.degree().tolist() == [2, 1, 1, 0]


def test_names_are_matched_under_all_names(tmp_path):
    path = put(tmp_path / "g.csv", "MARCH8,TP53\nENSG00000141510,MYC\n")
    graphs = read([path], ["MARCHF8", "TP53", "MYC"])
    assert edges_of(graphs) == {"g": [("MARCHF8", "TP53"), ("TP53", "MYC")]}
    assert "2 genes under another name" in graphs.notes[0]


@pytest.mark.parametrize(
    ("text", "genes", "said"),
    [
        ("TP53\tMYC\n", ["YAL001C", "YAL002W"], "no gene in common with the table of 2 genes"),
        ("4932.YAL001C 4932.YAL002W\n", ["TP53", "MYC"], "no gene in common"),
        ("9606.A 4932.B\n", None, "genes of 2 species: 4932, 9606"),
        ("gene_a\tgene_a\tscore\nA\tB\t1\n", None, "names 'gene_a' twice"),
        ("gene_a\tgene_b\tsource\ttarget\nA\tB\tC\tD\n", None, "two pairs of ends"),
        ("gene_a\tgene_b\nA\tB\t1\n", None, "its header has 2 columns, the line below has 3"),
        ("gene_a\tgene_b\tscore\nA\tB\t1\nA\tC\thigh\n", None, "g.tsv:3: the weight is 'high'"),
        ("gene_a\tgene_b\tscore\nA\tB\tnan\n", None, "the weight is 'nan', not a number"),
        ("A\tB\nA\n", None, "g.tsv:2: an edge has two ends, this line has 1"),
        ("A\tB\n\tC\n", None, "g.tsv:2: an end of this edge has no name"),
        ("A\tA\n", None, "at least two genes"),
        ("A\tA\nB\tB\n", None, "joins every gene with itself only"),
        ("A\tB\n", ["A"], "a graph needs at least two genes, and there is 1"),
        ("A\tX\n", ["A", "B"], "no edge of g joins two of the 2 genes"),
        ("1\t9\n", ["A", "B"], "numbers genes up to 9, the table has 2"),
        ("gene\tA\tB\nA\t1\t2\nB\t3\t4\n", None, "a table of numbers for each gene"),
        ("A\nB\n", None, "an edge has two ends, its first line has 1"),
        ("gene_a\tgene_b\n", None, "holds no edges"),
        ("", None, "is empty"),
        ("\x00\xff", None, "an edge has two ends"),
    ],
)
def test_what_is_no_graph_is_one_line(tmp_path, text, genes, said):
    with pytest.raises(UserError) as error:
        read([put(tmp_path / "g.tsv", text)], genes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_two_species_are_refused(tmp_path):
    one, other = put(tmp_path / "a.tsv", "TP53\tMYC\n"), put(tmp_path / "b.tsv", "Q1\tQ2\n")
    with pytest.raises(UserError, match=r"b\.tsv has no gene in common with .*a\.tsv"):
        read([one, other])
    with pytest.raises(UserError, match="two graphs are called 'a'"):
        read([one, put(tmp_path / "a.csv", "TP53,MYC\n")])
    with pytest.raises(UserError, match="does not exist"):
        read([tmp_path / "none.tsv"])
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read([put(tmp_path / "x.tsv.gz", "A\tB\n")])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40),
    st.integers(0, 2**31),
)
def test_relations_are_what_sets_of_pairs_say(pairs, seed):
    source, target = (np.array([p[i] for p in pairs], np.int32) for i in (0, 1))
    made, loops, twice = Relation.from_edges("r", source, target, 9)
    wanted = {p for p in pairs if p[0] != p[1]}
    assert loops == sum(s == t for s, t in pairs)
    assert twice == len(pairs) - loops - len(wanted)
    stored = [tuple(edge) for edge in made.edge_index().T.tolist()]
    assert stored == sorted(wanted, key=lambda p: (p[1], p[0]))
    both = {tuple(edge) for edge in made.both().edge_index().T.tolist()}
    assert both == wanted | {(t, s) for s, t in wanted}
    assert made.n_both_ways == sum((t, s) in wanted for s, t in wanted) // 2
    kept, _, _ = Relation.from_edges("r", source, target, 9, keep=True)
    assert sorted(map(tuple, kept.edge_index().T.tolist())) == sorted(pairs)
    assert kept.edge_ids.tolist() == sorted(range(len(pairs)), key=lambda e: pairs[e][::-1])
    for one in (made, made.both()):
        new, _ = one.rewired(seed)
        assert new.degree().tolist() == one.degree().tolist()
        assert new.degree("both").tolist() == one.degree("both").tolist()
        assert new.symmetric == one.symmetric
        assert new.n_loops == 0
        assert new.n_edges == one.n_edges
    made, _, _ = Relation.from_edges("r", source, target, 9, directed=True)
    new, _ = made.rewired(seed)
    assert new.degree().tolist() == made.degree().tolist()
    assert (np.bincount(new.indices) == np.bincount(made.indices)).all()


def test_rewiring_mixes_and_is_repeatable():
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 200, (2, 1500))
    made, _, _ = Relation.from_edges("r", source, target, 200, directed=True)
    one, new = made.rewired(1)
    assert new > 0.9
    before, after = ({tuple(e) for e in r.edge_index().T.tolist()} for r in (made, one))
    assert new == pytest.approx(len(after - before) / len(after))
    assert (one.indices == made.rewired(1)[0].indices).all()
    assert (one.indices != made.rewired(2)[0].indices).any()
    assert (np.bincount(one.indices) == np.bincount(made.indices)).all()


def test_saved_graphs_are_mapped_and_the_same(tmp_path):
    graphs = read([put(tmp_path / "go.csv", GEARS)])
    graphs.save(tmp_path / "go.graphs")
    again = read([tmp_path / "go.graphs"])
    assert edges_of(again) == edges_of(graphs)
    assert again.genes == graphs.genes
    assert isinstance(again["go"].indices, np.memmap)
    assert again["go"].directed
    assert (again["go"].weights == graphs["go"].weights).all()
    onto = read([tmp_path / "go.graphs"], ["MDM2", "TP53", "ACTB"])
    assert edges_of(onto) == {"go": [("TP53", "MDM2")]}
    assert onto.counts["go"].unknown_edges == 1
    with pytest.raises(UserError, match="no gene in common"):
        again.onto(["YAL001C", "YAL002W"])
    with pytest.raises(UserError, match="exists"):
        graphs.save(tmp_path / "go.graphs")
    about = json.loads((tmp_path / "go.graphs" / "graphs.json").read_text())
    about["genes"].append("ONEMORE")
    (tmp_path / "go.graphs" / "graphs.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="do not fit together"):
        GeneGraphs.open(tmp_path / "go.graphs")
