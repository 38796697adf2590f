"""`vcell demo` from the command line: to the end, killed in the middle, and repeated."""

from __future__ import annotations

import html
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from vcell_demo import held_out
from vcell_demo.journal import StepRunner
from vcell_demo.report import per_perturbation, verdict

from tests.support import clean_environment
from vcell.data import open_cells

SMALL = ["--n-cells", "2400", "--genes", "300", "--perturbations", "30", "--select", "150"]
SHORT = {
    "VCELL_TRAIN_VCC_MAX_STEPS": "12",
    "VCELL_TRAIN_VCC_TOKENS": "24",
    "VCELL_TRAIN_VCC_SET_SIZE": "8",
    "VCELL_TRAIN_VCC_BATCH_SIZE": "6",
    "VCELL_TRAIN_VCC_CHECKPOINT_EVERY": "2",
}


def test_a_killed_demo_continues(vcell, tmp_path):
    killed = subprocess.Popen(
        [sys.executable, "-m", "vcell", "demo", *SMALL],
        cwd=tmp_path,
        env=clean_environment() | SHORT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = tmp_path / "vcell-demo"
    # "latest" is written when a checkpoint stands under its name
    while not list(folder.glob("runs/*/ckpt/latest")) and killed.poll() is None:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()

    ran = vcell("demo", *SMALL, "--json", env=SHORT)
    assert ran.code == 0, ran.err
    assert ran.err.count("done before") == 3
    assert len(list((folder / "runs").iterdir())) == 1
    events = next((folder / "runs").glob("*/events.jsonl")).read_text()
    assert '"kind":"resume"' in events
    result = ran.json
    assert set(result["scores"]) == {"transformer", "mean", "replicate"}
    assert set(result["scores"]["mean"]) == {"PDS", "MAE", "DES"}
    base = result["scores"]["mean"]
    for name, scores in result["scores"].items():
        pds, des = ((scores[m] - base[m]) / (1 - base[m]) for m in ("PDS", "DES"))
        mae = (base["MAE"] - scores["MAE"]) / base["MAE"]
        assert result["gain_over_mean"][name] == pytest.approx((pds + des + mae) / 3), name
    assert any(word in result["verdict"] for word in ("beats", "no difference", "too few", "worse"))
    assert not list(folder.rglob("*.tmp-*"))

    page = (folder / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=.https?:", page)
    assert html.escape(result["verdict"]) in page
    assert "Choosing the model" in page
    links = re.findall(r'<a href="([^"]+)"', page)
    assert len(links) >= 6
    assert str((folder.parent / result["run"] / "report.html").relative_to(folder)) in links
    assert all((folder / link).is_file() for link in links)
    assert result["run"] in page.replace("<wbr>", "")  # where a path may break


def test_a_finished_demo_repeats_with_the_same_cells(tmp_path, capsys):
    def demo(**settings):
        journal, done = StepRunner(tmp_path, settings), []
        for name in ("simulate", "train"):
            journal.inside(name, name, lambda name=name: done.append(name) or {"of": name})
        return journal, done

    assert demo(seed=0)[1] == ["simulate", "train"]
    journal, done = demo(seed=0)
    assert done == []
    assert journal.done["train"] == {"of": "train"}
    journal.record("finish", 1.0)
    assert demo(seed=0)[1] == ["train"]
    assert demo(seed=1)[1] == ["simulate", "train"]
    (tmp_path / "demo.json").write_text('{"torn')
    assert demo(seed=1)[1] == ["simulate", "train"]


def test_a_step_whose_file_is_missing_is_repeated(tmp_path):
    journal, file = StepRunner(tmp_path, {}), tmp_path / "file"
    for _ in range(2):
        journal.inside("touch", "touch", file.touch, writes=[file])
        assert file.exists()
        file.unlink()


def scores(folder, name, n, pds):
    """Write the scores of each perturbation as `vcell evaluate` does."""
    (folder / "scores" / name).mkdir(parents=True)
    rows = [f"GENE{i},{0.2 + 0.01 * (i % 3)},0.05,{pds + 0.01 * (i % 5)}" for i in range(n)]
    head = "perturbation,overlap_at_N,mae,discrimination_score_l1"
    (folder / "scores" / name / "results.csv").write_text("\n".join([head, *rows]) + "\n")


@pytest.mark.parametrize(
    ("n", "pds", "said"),
    [
        (12, 0.8, "m beats the baselines; the nearest is mean: +"),
        (12, 0.3, "m is worse than mean"),
        (12, 0.5, "m adds nothing to mean"),
        (3, 0.9, "too few for a verdict: 3 held-out perturbations"),
    ],
)
def test_the_first_sentence_claims_what_the_interval_supports(tmp_path, n, pds, said):
    scores(tmp_path, "mean", n, 0.5)
    scores(tmp_path, "m", n, pds)
    assert said in verdict(tmp_path, "m", {"m": 0.2, "mean": 0.0})


def test_the_gains_of_perturbations_average_to_the_gain(tmp_path):
    scores(tmp_path, "mean", 7, 0.5)
    scores(tmp_path, "m", 7, 0.8)
    each = per_perturbation(tmp_path, ("m",))["m"]
    mean = 0.5 + 0.01 * sum(i % 5 for i in range(7)) / 7
    assert sum(gain for _, gain in each) / 7 == pytest.approx(0.3 / (1 - mean) / 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "missing.h5ad"], "missing.h5ad does not exist"),
        (["--genes", "20"], "too few genes (20)"),
        (["--n-cells", "10"], "too few cells (10)"),
    ],
)
def test_an_impossible_demo_is_refused_in_one_line(vcell, words, said):
    ran = vcell("demo", *words)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_the_held_out_cells_are_in_no_file_that_the_model_reads(tmp_path, cells):
    aside = held_out.set_aside(cells, tmp_path, seed=0)
    with open_cells(tmp_path / "learn.h5ad") as learn, open_cells(cells) as whole:
        seen = learn.obs("target_gene").values
        assert not set(seen) & set(aside["perturbations"])
        assert len(aside["perturbations"]) == 7
        kept = [n for n, t in zip(whole.cells, whole.obs("target_gene").values, strict=True)
                if t not in aside["perturbations"]]  # fmt: skip
        assert learn.cells.tolist() == kept
    with open_cells(tmp_path / "held-out.h5ad") as held:
        assert set(held.obs("target_gene").values) == {"non-targeting", *aside["perturbations"]}


@pytest.mark.slow
def test_a_users_own_cells_go_through_the_same_steps(vcell, cells, tmp_path):
    ran = vcell("demo", "--data", cells, "--select", "150", "-o", "mine", "--json", env=SHORT)
    assert ran.code == 0, ran.err
    assert set(ran.json["scores"]) == {"transformer", "mean"}
    assert not (tmp_path / "mine" / "cells.h5ad").exists()
