"""`vcell isp-bench` times what it reports, and reports what it cannot time."""

from __future__ import annotations

import functools
import importlib.machinery
import operator
import sys
import types

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from vcell_isp_bench import many, quality, work
from vcell_isp_bench.methods import by_count, by_tokens

from tests.support import in_this_process
from vcell.cores import cpuinfo
from vcell.geneformer import checkpoint
from vcell.nn.bert import Bert, BertShape

N = 120


@pytest.fixture
def bench(tmp_path):
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

    def run(*words, as_json=True):
        given = ["--model", "model", "--vocabulary", "own.tsv", "--threads", 1, "--repeats", 2]
        words = ["isp-bench", "cells.h5ad", *given, "--device", "cpu", *words]
        return in_this_process([*words, "--json"] if as_json else words, tmp_path)

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_every_row_reports_what_it_ran(bench, tmp_path):
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
    assert rows["packed"]["shift_top"] == 1
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


def test_any_method_that_is_slower_than_the_baseline_is_named(bench, monkeypatch):
    real = work.one

    def one(bench, method, repeats):
        row, out = real(bench, method, repeats)
        return row | {"seconds": {"baseline": 2.0, "packed": 1.0}.get(method.name, 3.0)}, out

    monkeypatch.setattr(work, "one", one)
    for name, slower in (("batching", True), ("packed", False)):
        out = bench("--method", name, "--no-shifts", as_json=False).out
        assert (f"{name} is slower than the baseline here" in out) == slower


def test_the_shared_part_of_the_largest_shifts_is_a_tenth_by_chance(bench, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(work, "_shifts", lambda *_: rng.normal(size=1000))
    rows = bench("--method", "packed").json["rows"]
    assert abs(rows[1]["shift_spearman"]) < 0.2
    assert rows[1]["shift_top"] < 0.3


def test_bf16_is_refused_where_the_cpu_has_none(bench):
    ran = bench("--method", "mixed_precision", "--precision", "bf16", "--no-shifts")
    row = ran.json["rows"][1]
    if {"avx512_bf16", "amx_bf16"} & set(cpuinfo("flags").split()):
        assert "bfloat16" in row["products"]
    else:
        assert "56 times slower" in row["not_run"]


def test_settings_are_searched_and_trials_out_of_memory_are_pruned(bench, monkeypatch):
    pytest.importorskip("optuna")
    real = work.one

    def one(bench, method, repeats):
        if bench.config.search and len(next(iter(method.batches([60] * 400)))) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(bench, method, repeats)

    monkeypatch.setattr(work, "one", one)
    monkeypatch.setattr("vcell_isp_bench.methods.which", lambda name: None)  # no compiler
    ran = bench("--search", 8)
    assert ran.code == 0, ran.err
    trials = ran.json["trials"]
    assert len(trials) == 8
    pruned = [t for t in trials if t.get("pruned") == "out of memory"]
    assert pruned
    assert all(t["token_budget"] > 6000 for t in pruned)
    assert all(t["token_budget"] <= 6060 for t in trials if t not in pruned)
    assert ran.json["best"]["cells_a_second"] == max(t.get("cells_a_second", 0) for t in trials)
    assert "compiling is left out" in ran.err


def test_processes_share_the_cells_and_give_the_same_embeddings(bench):
    one = {row["method"]: row for row in bench("--method", "packed", "--no-shifts").json["rows"]}
    ran = bench("--method", "packed", "--procs", 2, "--no-shifts")
    assert ran.code == 0, ran.err
    assert ran.json["processes"] == 2
    for row in ran.json["rows"]:
        assert row["processes"] == 2
        assert row["seconds"] > 0
        assert row["repeats"] == one[row["method"]]["repeats"] == 2
    assert ran.json["rows"][1]["cosine_min"] > 0.999999
    assert ran.json["rows"][1]["layers"] == one["packed"]["layers"]


def test_cells_are_distributed_by_cost_and_each_once():
    shape = BertShape(n_layers=2, d_model=8, n_heads=1, d_ff=8, n_positions=4096, n_tokens=9)
    lengths = np.array([4000, 10, 2000, 2000, 30, 3000, 500])
    dealt = many.shares(lengths, shape, 2)
    assert sorted(np.concatenate(dealt)) == list(range(7))
    cost = [sum(shape.flops(int(n)) for n in lengths[own]) for own in dealt]
    assert max(cost) / min(cost) < 1.3


@pytest.mark.slow
def test_a_method_that_fails_in_one_process_is_a_row(bench):
    ran = bench("--method", "mixed_precision", "--procs", 2, "--no-shifts")
    assert ran.code == 0, ran.err
    assert "a CPU has no fast fp16" in ran.json["rows"][1]["not_run"]


def test_rows_are_logged_to_weights_and_biases(bench, monkeypatch):
    logged, begun = [], []

    class Log:
        def log(self, values):
            logged.append(values)

        def finish(self):
            logged.append("finished")

    false = types.ModuleType("wandb")
    false.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    false.init = lambda **given: begun.append(given) or Log()
    monkeypatch.setitem(sys.modules, "wandb", false)
    ran = bench("--method", "packed", "--wandb", "--no-shifts")
    assert ran.code == 0, ran.err
    assert begun[0]["project"] == "vcell-isp-bench"
    assert logged[0]["baseline/cells_a_second"] > 0
    assert logged[1]["packed/speed_up"] == ran.json["rows"][1]["speed_up"]
    assert logged[-1] == "finished"


def test_the_printed_table_has_every_column_and_the_roofline(bench):
    text = bench("--method", "packed", "--no-shifts", as_json=False).out
    for word in ("seconds", "IQR", "cells/s", "speed-up", "copy", "model", "harness", "cores busy",
                 "GPU", "memory", "roof", "products", "attention", "cells a forward", "layers",
                 "head", "quantised", "ranking the genes took", "GFLOP/s"):  # fmt: skip
        assert word in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "64"], "requested: 64 GPUs"),
        pytest.param(
            ["--device", "cuda"],
            "a GPU was requested, but torch finds none",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--gpus", "2", "--procs", "2"], "one process for each of --gpus"),
        (["--procs", "2", "--search", "3"], "the settings of one process"),
        (["--procs", "60"], "cannot be shared by 60 processes"),
        (["--control", "control"], "--control needs --label"),
        (["--label", "nothing"], "no column 'nothing'"),
        (["--label", "label", "--control", "x"], "no cell has label 'x'"),
        (["-o", "bench.txt"], "must end in .html"),
    ],
)
def test_bad_input_is_one_line(bench, words, message):
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
