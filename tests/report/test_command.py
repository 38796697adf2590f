"""`vcell report` as a user runs it, on real run directories."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from vcell.runs import Run

pytestmark = pytest.mark.usefixtures("_no_display")


@pytest.fixture
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")


def trained(folder: Path, name: str, *, lr: float = 1e-3, steps: int = 60, **more: Any) -> Run:
    """Write a run as a trainer does."""
    run = Run.create(
        folder,
        "train-vcc",
        name=name,
        config={"lr": lr, "max_steps": steps, "cells": "screen.h5ad"},
        provenance={"lr": "command line", "max_steps": "default", "cells": "vcell.toml:2"},
        seed=0,
        data=[{"path": "screen.h5ad", "n_cells": 1200, "n_genes": 300, "bytes": 4096}],
        monitor="pds",
        higher_is_better=True,
        parameters=1234,
        precision="fp32",
        devices=["a processor"],
        **more,
    )
    with run.rank_log(0) as log:
        for step in range(1, steps + 1):
            loss = 2 * math.exp(-step / 20)
            run.log("metric", step=step, loss=loss, delta=loss / 2, lr=lr, examples=16 * step,
                    examples_per_s=100.0, data_wait=0.01, grad_norm=1.0)  # fmt: skip
            log.log(
                "span", step=step, examples=16, seconds=0.1, data=0.01, forward=0.03, backward=0.06
            )
            if step % 20 == 0:
                run.log("eval", step=step, best=step == 40, pds=0.9 if step == 40 else 0.5)
    run.log("reference", step=0, name="mean effect", pds=0.55)
    run.log("warn", step=7, text="the loss jumped")
    return run


VERDICT = {
    "claim": "beats",
    "text": "gp beats the baselines; the nearest is ridge: +.040 (+.01 to +.07)",
    "over": {"ridge": {"mean": 0.04, "low": 0.01, "high": 0.07, "n": 48}},
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    trained(folder, "first").finish("done", verdict=VERDICT, held_out={"gp": {"pds": 0.8}})
    trained(folder, "second", lr=3e-3).finish("done")
    return folder


def test_the_verdict_comes_first_and_the_page_is_in_the_run(vcell, runs) -> None:
    ran = vcell("report", "first", "--json")
    assert ran.code == 0, ran.err
    page = Path(ran.json["report"])
    page = runs.parent / page
    assert page == runs / "first" / "report.html"
    text = page.read_text()
    body = text[text.index("<body>") :]
    said = body.index(VERDICT["text"])
    assert said < body.index("<h2>")
    assert '<p class="verdict good">' in body
    for part in ("60 % backward".replace(" %", "%"), "not input-bound", "not recorded",
                 "step 7: the loss jumped", "1,200", "mean effect",
                 "Best 0.9 at step 40"):  # fmt: skip
        assert part in body, part
    assert not re.search(r"https?://", text)


def test_it_writes_markdown_json_and_a_card(vcell, runs, tmp_path) -> None:
    for form, name in (("md", "training_report.md"), ("json", "report.json"), ("card", "card.md")):
        assert vcell("report", "first", "--format", form).code == 0
        assert (runs / "first" / name).is_file()
    text = (runs / "first" / "training_report.md").read_text()
    assert text.index(VERDICT["text"]) < text.index("##")
    data = json.loads((runs / "first" / "report.json").read_text())
    (one,) = data["runs"]
    for again in (["--format", "md", "-o", "a.md"], ["--format", "card", "-o", "b.md"]):
        assert vcell("report", "first", *again).code == 0
        assert vcell("report", "first", *again).code == 2
        assert vcell("report", "first", *again, "--overwrite").code == 0
    assert one["best"] == {"step": 40, "value": 0.9}
    assert one["spans"]["backward"] == pytest.approx(0.06)
    assert one["energy_joules"] is None
    card = (runs / "first" / "card.md").read_text()
    assert card.startswith("---\nmade-by: vcell")
    assert "not recorded" in card
    assert "0.9 at step 40" in card


def test_runs_side_by_side_show_what_differs(vcell, runs, tmp_path) -> None:
    ran = vcell("report", "first", "second", "--format", "json", "-o", tmp_path / "both.json")
    assert ran.code == 0, ran.err
    data = json.loads((tmp_path / "both.json").read_text())
    assert data["differing"] == {"lr": ["0.001", "0.003"]}
    assert vcell("report", "first", "second", "-o", tmp_path / "both.html").code == 0
    assert "<td>0.003</td>" in (tmp_path / "both.html").read_text()


def test_runs_side_by_side_have_short_names_and_the_settings_that_all_have(vcell, tmp_path) -> None:
    for name, more in (("20261129-101500-train-vcc-ab12", "a"), ("20261129-101500-isp-cd34", "b")):
        run = Run.create(tmp_path, "train-vcc", name=name, config={"lr": 1, "seed": more, more: 2})
        run.update(model="ridge")
        run.finish("done", held_out={"ridge": {"gain": 0.25}})
    for kind in ("md", "json"):
        ran = vcell(
            "report", "--runs", tmp_path, *(p.name for p in sorted(tmp_path.glob("2026*"))),
            "--format", kind, "-o", tmp_path / f"both.{kind}",
        )  # fmt: skip
        assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "both.json").read_text())["differing"] == {"seed": ["b", "a"]}
    text = (tmp_path / "both.md").read_text()
    assert "| setting | 20261129-101500-isp | 20261129-101500-train |" in text
    assert "(share of the way from the mean to perfect) | 0.25 | 0.25 |" in text


def test_a_run_that_holds_others_shows_them(vcell, runs) -> None:
    whole = Run.create(runs, "train-vcc", name="whole", parts="folds")
    for fold in ("fold-1", "fold-2"):
        trained(whole.path / "folds", fold).finish("done")
    whole.finish("done")
    assert vcell("report", "whole").code == 0
    text = (runs / "whole" / "report.html").read_text()
    assert "Parts of this run" in text
    assert "fold-2" in text


def test_plots_only_writes_every_curve(vcell, runs, tmp_path) -> None:
    ran = vcell("report", "first", "--plots-only", tmp_path / "figures", "--json")
    assert ran.code == 0, ran.err
    names = {Path(path).name for path in ran.json["plots"]}
    assert {"loss.svg", "pds.svg", "throughput.svg"} <= names
    for path in (tmp_path / "figures").glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")
    again = vcell("report", "first", "--plots-only", tmp_path / "figures")
    assert again.code == 2
    assert "--overwrite" in again.err


def test_energy_is_the_increase_of_the_counters(vcell, runs) -> None:
    run = trained(runs, "gpu")
    with run.rank_log(1) as log:
        log.log("gpu", watts=300.0, energy_j=1000.0)
        log.log("gpu", watts=310.0, energy_j=1000.0 + 7.2e6)
    run.finish("done")
    assert vcell("report", "gpu", "--format", "json").code == 0
    (one,) = json.loads((runs / "gpu" / "report.json").read_text())["runs"]
    assert one["energy_joules"] == 7.2e6
    assert one["cost"]["energy of the GPUs"] == "2 kWh"
    assert one["cost"]["energy an example"] == f"{7.2e6 / (16 * 60):.3g} J"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing"),
        (["first", "--format", "card", "-o", "taken.md"], "exists"),
        (["first", "--format", "card", "-o", "taken.md", "--overwrite"], "not made by vcell"),
        (["first", "-o", "page.txt"], "must end in .html"),
        (["first", "second", "--format", "card"], "one run"),
        (["first", "-o", "no/such/page.html"], "no/such"),
        (["first", "-o", "."], "must end in .html"),
    ],
)
def test_a_user_error_is_one_sentence(vcell, runs, tmp_path, words, said) -> None:
    (tmp_path / "taken.md").write_text("mine")
    ran = vcell("report", *words)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert (tmp_path / "taken.md").read_text() == "mine"


def test_missing_runs_newer_schemas_and_truncated_events(vcell, runs, tmp_path) -> None:
    shutil.rmtree(runs / "second")
    meta = json.loads((runs / "first" / "run.json").read_text())
    with (runs / "first" / "events.jsonl").open("a") as file:
        file.write('{"t": 1, "kind": "met')
    assert vcell("report", "first").code == 0
    (runs / "first" / "events.jsonl").write_text("")
    (runs / "first" / "rank-0.jsonl").write_text("")
    ran = vcell("report", "first")
    assert ran.code == 0, ran.err
    (runs / "first" / "run.json").write_text(json.dumps(meta | {"schema": 99}))
    newer = vcell("report", "first")
    assert (newer.code, "Traceback" in newer.err) == (2, False)
    (tmp_path / "empty").mkdir()
    none = vcell("report", "latest", "--runs", tmp_path / "empty")
    assert (none.code, "Traceback" in none.err) == (2, False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_run_says_where_to_write_instead(vcell, runs) -> None:
    (runs / "first").chmod(0o500)
    ran = vcell("report", "first")
    (runs / "first").chmod(0o700)
    assert ran.code == 2
    assert "-o" in ran.err


def test_a_report_of_eight_runs_is_small_and_fits_a_phone(vcell, runs, tmp_path) -> None:
    names = []
    for i in range(8):
        trained(runs, f"run-{i}", steps=1500).finish("done")
        names.append(f"run-{i}")
    page = tmp_path / "eight.html"
    assert vcell("report", *names, "-o", page).code == 0
    assert page.stat().st_size < 400_000
    with chromium(tmp_path) as browser:
        browser.open(page, 390)
        assert browser.run("return document.documentElement.scrollWidth") <= 390
        assert browser.console() == []
        assert browser.requests() == []


def test_a_plugin_adds_sections_to_the_reports_of_its_runs(vcell, runs) -> None:
    head = "perturbation,context,model,pds,mae,delta_correlation\n"
    rows = [f"G{i},all,{m},{p},0.1,0.5" for m, p in (("mean", 0.5), ("gp", 0.9)) for i in range(6)]
    (runs / "first" / "held_out.csv").write_text(head + "\n".join(rows) + "\n")
    ran = vcell("report", "first")
    assert ran.code == 0, ran.err
    assert "could not add" not in ran.err
    text = (runs / "first" / "report.html").read_text()
    assert "Every held-out perturbation" in text
    assert "G5: 0.4" in text
    (runs / "first" / "held_out.csv").write_text(head + "G0,all,gp,torn,0.1,0.5\n")
    ran = vcell("report", "first")
    assert ran.code == 0
    assert "could not add its sections" in ran.err


def test_scores_that_are_no_mean_are_compared_and_have_their_names(vcell, tmp_path) -> None:
    """An AUC has one value for all patients; scores without own genes have their own table."""
    over = {"logistic": {"value": -0.651, "low": -0.836, "high": -0.466, "error": 0.09}}
    told = {"claim": "worse", "nearest": "logistic", "text": "it is worse", "over": over}
    scores = {"ours": {"auc": 0.31, "mae": 0.5, "mae_without_own": 0.25}}
    trained(tmp_path, "auc").finish("done", verdict=told, held_out=scores)
    ran = vcell("report", tmp_path / "auc", "--format", "md", "-o", tmp_path / "auc.md")
    assert ran.code == 0, ran.err
    text = (tmp_path / "auc.md").read_text()
    assert "| baseline | difference | low | high |\n" in text
    assert "| logistic | -0.651 | -0.836 | -0.466 |" in text
    assert "|  | AUC | MAE |\n| --- | ---: | ---: |\n| ours | 0.31 | 0.5 |" in text
    assert "Without the perturbations' own genes:\n\n|  | MAE |" in text
