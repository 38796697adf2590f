"""`vcell isp run` through the command line: its table, its processes, and refusals."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from tests.geneformer.brute_force import Float64Bert, perturb, shift
from tests.isp.conftest import LONGEST
from vcell.data import open_cells
from vcell.geneformer import checkpoint, tokens


@pytest.fixture
def exact(cells, model_folder, table):
    """The tiny model in float64, the cells as tokens, and the mean embedding of the goal."""
    model = checkpoint.load(str(model_folder), table)
    with open_cells(cells) as source:
        ranked = tokens.encode(source, model.vocabulary, LONGEST)
    slow = Float64Bert(model.bert)
    well = [slow.hidden(ranked[i], 2).mean(0) for i in range(len(ranked)) if ranked.rows[i] % 2]
    return slow, ranked, {"well": np.mean(well, 0)}


def read(ran, tmp_path):
    assert ran.code == 0, ran.err
    return pq.read_table(tmp_path / ran.json["run"] / "shifts.parquet").to_pandas()


@pytest.mark.parametrize(
    "operation",
    [
        "delete",
        pytest.param("overexpress", marks=pytest.mark.slow),
        pytest.param("inhibit", marks=pytest.mark.slow),
    ],
)
def test_every_line_of_the_table_equals_float64_by_hand(isp, exact, tmp_path, operation):
    ran = isp("--perturb", operation, "--max-cells", 3, "--no-gates", "--donor", "donor")
    lines = read(ran, tmp_path)
    slow, ranked, states = exact
    place = {int(row): i for i, row in enumerate(ranked.rows)}
    rng = np.random.default_rng(0)
    assert lines["cell"].nunique() == 3
    for number in rng.choice(len(lines), 25, replace=False):
        line = lines.iloc[number]
        cell = ranked[place[line["cell"]]]
        gene = int(line["gene"])
        assert cell[line["rank"]] == gene
        copy, original = perturb(cell, [gene], operation, framed=False, longest=LONGEST)
        distance, to = shift(slow, original, copy, {gene}, 2, "mean", False, states)
        assert line["distance"] == pytest.approx(distance, abs=1e-6)
        assert line["cosine"] == pytest.approx(1 - distance, abs=1e-6)
        assert line["shift_well"] == pytest.approx(to["well"], abs=1e-6)
        assert (line["symbol"], line["ensembl_id"]) == (f"G{gene}", f"ENSG{gene:011d}")
    some = lines.groupby("cell").first()
    for row, donor in zip(some.index, some["donor"], strict=True):
        assert donor == ["d1", "d2", "d3"][(row // 2) % 3]
    assert {row % 2 for row in some.index} == {0}


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(isp, tmp_path):
    """Two ranks over gloo with one thread each give the same bits."""
    given = ("--max-cells", 5, "--no-gates", "--shard", 40)
    how = {"own_process": True, "env": {"OMP_NUM_THREADS": "1"}}
    one = read(isp(*given, **how), tmp_path)
    ran = isp(*given, "--procs", 2, **how)
    pd.testing.assert_frame_equal(one, read(ran, tmp_path), check_exact=True)
    notes = (tmp_path / ran.json["run"] / "shards").glob("*.json")
    assert {json.loads(note.read_text())["rank"] for note in notes} == {0, 1}


def test_cell_types_are_in_the_table_and_on_the_page(isp, vcell, cells, tmp_path):
    adata = anndata.read_h5ad(cells)
    kinds = np.array(["b cell", "t cell", None], object)[np.arange(40) // 2 % 3]
    adata.obs["kind"] = pd.Categorical(kinds)
    adata.write_h5ad(tmp_path / "typed.h5ad")
    ran = isp("--max-cells", 12, "--no-gates", "--cell-type", "kind", file=tmp_path / "typed.h5ad")
    lines = read(ran, tmp_path)
    for row, kind in lines.groupby("cell")["cell_type"].first().items():
        assert kind == kinds[row]
    stats = vcell("isp", "stats", ran.json["run"], "--min-cells", 2, "-o", "genes.csv")
    assert stats.code == 0, stats.err
    page = (tmp_path / "genes.html").read_text()
    assert "Top genes by cell type: delete" in page
    best = pd.read_csv(tmp_path / "genes.csv").iloc[0]
    here = lines[(lines["symbol"] == best["gene"]) & (lines["cell_type"] == "b cell")]
    told = re.search(rf"<title>{best['gene']}, b cell: (\S+), (\d+) cells", page)
    assert float(told[1].replace("−", "-")) == pytest.approx(here["shift_well"].mean(), rel=1e-2)
    assert int(told[2]) == len(here)


def test_listed_genes_get_matched_nulls_and_those_without_a_token_a_reason(isp, tmp_path):
    (tmp_path / "genes.txt").write_text("G12\nG30  # a comment\nnonsense\n")
    ran = isp(
        "--perturb", "overexpress", "--genes", "each:genes.txt", "--controls", "matched:5",
        "--max-cells", 4, "--no-gates",
    )  # fmt: skip
    lines = read(ran, tmp_path)
    design = json.loads((tmp_path / ran.json["run"] / "design.json").read_text())
    assert design["genes"]["missing"] == {"nonsense": "no token in the vocabulary"}
    nulls = {int(k): v for k, v in design["genes"]["controls"].items()}
    assert {token: len(found) for token, found in nulls.items()} == {12: 5, 30: 5}
    expected = {12, 30, *nulls[12], *nulls[30]}
    assert not {12, 30} & {*nulls[12], *nulls[30]}
    assert set(lines["gene"]) == expected
    at_front = lines["rank"] == 0  # nothing to move
    assert not at_front.any()
    assert (lines["rank"] == -1).any()  # a cell that lacks the gene gets it


@pytest.mark.slow
def test_a_group_is_one_event_per_cell_and_pairs_include_the_anchor(isp, tmp_path):
    (tmp_path / "genes.txt").write_text("G12\nG30\n")
    lines = read(
        isp("--perturb", "overexpress", "--genes", "group:genes.txt", "--no-gates"), tmp_path
    )
    assert (len(lines), set(lines["gene"])) == (20, {-1})
    ran = isp("--perturb", "overexpress", "--anchor", "G12", "--max-cells", 6, "--no-gates")
    pairs = read(ran, tmp_path)
    assert 12 not in set(pairs["gene"])


def test_pickles_for_upstream_are_plain_and_hold_every_line(isp, tmp_path):
    ran = isp("--max-cells", 3, "--no-gates", "--export-upstream-pickles", "out")
    lines = read(ran, tmp_path)
    files = sorted((tmp_path / "out").glob("in_silico_delete_*_raw.pickle"))
    assert len(files) == 3
    count = 0
    for path in files:
        content = pickle.loads(path.read_bytes())
        assert list(content) == ["well"]
        for (gene, what), values in content["well"].items():
            assert (what, type(gene), type(values[0])) == ("cell_emb", int, float)
            count += len(values)
    assert count == len(lines)


def test_a_dry_run_counts_and_leaves_nothing(isp, tmp_path):
    ran = isp("--dry-run", "--max-cells", 5)
    assert ran.code == 0, ran.err
    assert not (tmp_path / "runs").exists()
    lines = read(isp("--max-cells", 5, "--no-gates"), tmp_path)
    assert ran.json["events"] == len(lines)
    assert ran.json["cells"] == 5
    assert 0 <= ran.json["eligible"] <= ran.json["genes"]
    assert ran.json["seconds"] >= 0


def test_gates_are_computed_and_an_empty_change_has_no_effect(isp):
    ran = isp("--max-cells", 4)
    gates = ran.json["gates"]
    assert gates["no_op"] < 1e-7
    assert gates["noise_floor"] < 1e-5
    assert gates["spearman_exact"] > 0.999
    assert -1 <= gates["shuffled_weights"] <= 1
    assert gates["separation"] > 0


def test_a_null_model_with_the_reversed_ranking_is_a_problem(isp, monkeypatch):
    from vcell_isp import gates

    def reversed_ranking(_, sample):
        return -sample.measure(engines[-1])

    engines = []
    check = gates.check

    def checked(run, config, design, engine, reader):
        engines.append(engine)
        return check(run, config, design, engine, reader)

    monkeypatch.setattr(gates, "check", checked)
    monkeypatch.setattr(gates, "_expression", reversed_ranking)
    ran = isp("--max-cells", 4)
    assert ran.json["gates"]["expression_alone"] == pytest.approx(-1)
    assert (
        "expression alone gives nearly the same ranking, reversed (Spearman -1.00): it is not "
        "what the model learnt"
    ) in ran.json["gates"]["problems"]


@pytest.mark.slow
def test_half_precision_reports_its_noise(isp):
    ran = isp("--max-cells", 2, "--precision", "bf16")
    assert ran.json["gates"]["noise_floor"] > 1e-6
    assert "bf16 is emulated on this CPU" in ran.err


REFUSED = [
    (["--start", "ill"], "no cell has state 'ill'"),
    (["--goal", "sick"], "is also the start"),
    (["--donor", "person"], "no column 'person'"),
    (["--genes", "some:genes.txt"], "all, each:FILE or group:FILE"),
    (["--genes", "each:nowhere.txt"], "nowhere.txt does not exist"),
    (["--anchor", "nothing"], "the anchor 'nothing' has no token"),
    (["--controls", "matched:20"], "needs --genes each:FILE"),
    (["--model-layer", "9"], "a number from 0 to 3"),
    (["--readout", "cls"], "has no <cls> token"),
    (["--screen", "first-order", "--perturb", "inhibit"], "covers all deletions"),
    (["--resume", "nothing"], "there are no runs"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_bad_settings_are_refused_before_any_work(isp, tmp_path, words, message):
    ran = isp(*words)
    assert ran.code == 2
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_damaged_shard_is_computed_again(isp, vcell, tmp_path):
    ran = isp("--max-cells", 3, "--no-gates", "--shard", 20)
    before = read(ran, tmp_path)
    folder = tmp_path / ran.json["run"]
    broken = sorted((folder / "shards").glob("*.parquet"))[1]
    broken.write_bytes(broken.read_bytes()[:-9])
    meta = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(meta | {"status": "interrupted"}))
    again = vcell("isp", "run", "--resume", Path(ran.json["run"]).name, "--json")
    pd.testing.assert_frame_equal(read(again, tmp_path), before, check_exact=True)


def spoiled(how, cells, model_folder, tmp_path):
    """A file of cells or a model folder with one defect."""
    adata = anndata.read_h5ad(cells)
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    weights = folder / "model.safetensors"
    if how == "logarithms":
        adata.X = adata.X.log1p() / 3
    elif how == "empty goal":
        counts = adata.X.toarray()
        counts[adata.obs["state"] == "well"] = 0
        adata.X = sp.csr_matrix(counts)
    elif how == "no genes":
        adata.var_names = [f"peak-{i}" for i in range(adata.n_vars)]
    elif how == "mouse":
        adata.var_names = [f"ENSMUSG{i:011d}" for i in range(adata.n_vars)]
    elif how == "no weights":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif how == "other vocabulary":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 25_429}))
    adata.write_h5ad(tmp_path / "spoiled.h5ad")
    return tmp_path / "spoiled.h5ad", folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("logarithms", "raw counts are needed"),
        ("empty goal", "no cell of the state 'well' has a gene"),
        ("no genes", "none of its 118 genes"),
        ("mouse", "look like mouse"),
        ("no weights", "holds no weights"),
        ("truncated", "is truncated or damaged"),
        ("other vocabulary", "has 25,429 tokens"),
    ],
)
def test_unsuitable_files_are_refused_in_one_line(isp, cells, model_folder, tmp_path, how, message):
    file, model = spoiled(how, cells, model_folder, tmp_path)
    ran = isp(file=file, model=model)
    assert ran.code == 2
    errors = [line for line in ran.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "runs").exists()
