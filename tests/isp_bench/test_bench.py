"""`vcell isp-bench` times what it says it times, and says what it cannot."""

from __future__ import annotations

import functools
import operator

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from vcell_isp_bench import quality
from vcell_isp_bench.methods import by_count, by_tokens, cpu_flags

from vcell.geneformer import checkpoint
from vcell.nn.bert import Bert, BertShape

N = 120


@pytest.fixture
def bench(vcell, tmp_path):
    """Run the command on a tiny model, with cells of two labels."""
    bert = Bert(BertShape(n_layers=3, d_model=32, n_heads=4, d_ff=48, n_positions=64, n_tokens=N))
    checkpoint.made_up(bert, 0)
    checkpoint.save(bert, tmp_path / "model")
    rows = ["token\tid\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    rows += [f"ENSG{i:011d}\t{i}\t1.5\tG{i}" for i in range(2, N)]
    (tmp_path / "own.tsv").write_text("\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    label = np.array(["drug", "control"])[np.arange(30) % 2]
    mean = np.tile(rng.gamma(0.5, 1.0, N - 2), (30, 1))
    mean[label == "drug", :20] *= 5
    anndata.AnnData(
        sp.csr_matrix(rng.poisson(mean).astype(np.float32)),
        obs=pd.DataFrame({"label": label}, index=[f"c{i}" for i in range(30)]),
        var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(2, N)]),
    ).write_h5ad(tmp_path / "cells.h5ad")

    def run(*words):
        given = ["--model", "model", "--vocabulary", "own.tsv", "--threads", 1, "--repeats", 2]
        return vcell("isp-bench", "cells.h5ad", *given, "--device", "cpu", *words, "--json")

    return run


def test_every_row_says_what_it_ran(bench, tmp_path):
    pytest.importorskip("sklearn")
    ran = bench(
        "--batch-size", 4, "--token-budget", 200, "--label", "label", "--control", "control",
        "-o", "bench.html",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = {row["method"]: row for row in ran.json["rows"]}
    assert set(rows) == {
        "baseline", "original", "batching", "packed", "mixed_precision", "quantization", "compile",
    }  # fmt: skip
    assert (rows["baseline"]["cells_a_forward"], rows["baseline"]["head"]) == (1, True)
    assert rows["original"]["cells_a_forward"] == 1  # whatever the batch size
    assert rows["batching"]["cells_a_forward"] == 4  # one forward of four cells
    assert rows["packed"]["cells_a_forward"] > 1
    assert (rows["packed"]["layers"], rows["packed"]["head"]) == (2, False)
    assert rows["packed"]["products"] == "float32"
    assert "attention" in rows["packed"]["attention"]
    assert rows["packed"]["cosine_min"] > 0.999999
    assert rows["packed"]["shift_spearman"] > 0.999
    assert "a CPU has no fast fp16" in rows["mixed_precision"]["not_run"]
    quantised = rows["quantization"]
    if "not_run" not in quantised:
        assert quantised["quantised"] == 4 * 3
        assert quantised["products"] == "int8"
        assert quantised["bytes"][1] < quantised["bytes"][0]
        assert quantised["cosine_min"] < 1
    found = rows["packed"]["quality"]
    assert found["accuracy"] >= 0.5
    assert found["control_separation"] > 0
    assert "What really ran" in (tmp_path / "bench.html").read_text()


def test_bf16_is_refused_where_the_cpu_has_none(bench):
    ran = bench("--method", "mixed_precision", "--precision", "bf16", "--no-shifts")
    row = ran.json["rows"][1]
    if {"avx512_bf16", "amx_bf16"} & set(cpu_flags()):
        assert "bfloat16" in row["products"]
    else:
        assert "56 times slower" in row["not_run"]


@pytest.mark.slow
def test_settings_are_searched(bench):
    pytest.importorskip("optuna")
    ran = bench("--search", 3)
    assert ran.code == 0, ran.err
    assert len(ran.json["trials"]) == 3
    assert ran.json["best"]["cells_a_second"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "64"], "64 GPUs were asked for"),
        (["--control", "control"], "--control needs --label"),
        (["--label", "nothing"], "no column 'nothing'"),
        (["--label", "label", "--control", "x"], "no cell has label 'x'"),
        (["-o", "bench.txt"], "must end in .html"),
    ],
)
def test_what_cannot_be_is_one_line(bench, words, message):
    ran = bench(*words)
    assert ran.code == 2
    assert message in ran.err


def test_batches_hold_every_cell_once():
    lengths = [50, 10, 70, 5, 5, 5, 90, 1]
    for batches in (list(by_count(lengths, 3)), list(by_tokens(lengths, 80))):
        assert functools.reduce(operator.iadd, batches, []) == list(range(8))
    packed = [[lengths[i] for i in batch] for batch in by_tokens(lengths, 80)]
    assert all(sum(batch) <= 80 or len(batch) == 1 for batch in packed)


def test_separations_are_their_definitions():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(20, 5)), np.arange(20) % 3
    gaps = [[np.linalg.norm(a - b) for b in x] for a in x]
    pairs = [(i, j) for i in range(20) for j in range(i + 1, 20)]
    within = np.mean([gaps[i][j] for i, j in pairs if codes[i] == codes[j]])
    between = np.mean([gaps[i][j] for i, j in pairs if codes[i] != codes[j]])
    assert quality.separation(x, codes) == pytest.approx(between / (within + 1e-8))
    control = codes == 0
    own = np.mean([gaps[i][j] for i, j in pairs if control[i] and control[j]])
    other = np.mean([gaps[i][j] for i in range(20) for j in range(20) if control[i] > control[j]])
    assert quality.control_ratio(x, control) == pytest.approx(other / own)
    assert quality.closeness(x, 2 * x)["cosine_min"] == pytest.approx(1)
