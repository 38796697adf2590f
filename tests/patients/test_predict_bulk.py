"""`vcell predict-bulk`: outcomes of patients outside the training set, from bulk."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from tests.patients.conftest import QUICK
from tests.support import in_this_process
from vcell.patients.final import FinalBulkModel
from vcell.patients.simulate import PatientDesign, made_up, write
from vcell.runs import Run

# the first 24 patients are those of the training, since all are drawn one after the other
STRONG = {"cells": 40, "types": 4, "genes": 150, "pairs": 5, "library": 400.0,
          "shift": 2.0, "state": 2.0, "talk": 2.0}  # fmt: skip
LEARNT, NEW = 24, 12


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished run with easy outcomes, tables of new patients, and their outcomes."""
    folder = tmp_path_factory.mktemp("bulk")
    write(PatientDesign(patients=LEARNT, **STRONG), folder / "cells.h5ad", folder / "pairs.csv")
    counts, obs, genes, _ = made_up(PatientDesign(patients=LEARNT + NEW, **STRONG))
    patient = np.array(obs["patient"])
    names = sorted(set(patient))[LEARNT:]
    sums = [counts[patient == name].sum(0).tolist() for name in names]
    rows = [["", *genes], *([name, *one] for name, one in zip(names, sums, strict=True))]
    logs = [[name, *np.log1p(one).tolist()] for name, one in zip(names, sums, strict=True)]
    tables = {
        "new.csv": rows, "turned.tsv": list(zip(*rows, strict=True)),
        "few.csv": [row[:120] for row in rows], "log.csv": [rows[0], *logs],
        "other.csv": [["", *(f"x{gene}" for gene in genes)], *rows[1:]],
        "words.csv": [*rows[:3], [rows[3][0], "n/a", *rows[3][2:]]],
        "far.csv": [rows[0], *([row[0], *(v**3 for v in row[1:])] for row in rows[1:])],
    }  # fmt: skip
    for name, table in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",").writerows(table)
    ran = _vcell(folder, "train-bulk", "cells.h5ad", *QUICK, "--pairs", "pairs.csv")
    told = [obs["outcome"][int(np.flatnonzero(patient == name)[0])] for name in names]
    return folder, ran.json["run"], told


def _vcell(folder, *words, code=0):
    ran = in_this_process([*words, "--json"], folder)
    assert ran.code == code, ran.err
    return ran


def test_new_patients_are_predicted_from_bulk_in_rows_or_columns(study):
    folder, run, outcomes = study
    ran = _vcell(folder, "predict-bulk", run, "new.csv", "-o", "new-out.csv")
    samples = ran.json["samples"]
    right = [one["outcome"] == truth for one, truth in zip(samples, outcomes, strict=True)]
    assert np.mean(right) > 0.7
    assert ran.json["genes_missing"] == 0
    assert set(ran.json["cross_validated"]) == {"auc", "ece"}
    for one in samples:
        assert one["P(ill)"] + one["P(well)"] == pytest.approx(1)
    turned = _vcell(folder, "predict-bulk", run, "turned.tsv", "-o", "turned-out.csv")
    assert turned.json["samples"] == samples
    with (folder / "new-out.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["outcome"] for row in written] == [one["outcome"] for one in samples]


def test_missing_genes_are_counted_and_outlying_samples_listed(study):
    folder, run, _ = study
    ran = _vcell(folder, "predict-bulk", run, "few.csv", "-o", "few-out.csv")
    assert ran.json["genes_missing"] > 0
    assert "are set to an average patient's" in ran.err
    ran = _vcell(folder, "predict-bulk", run, "far.csv", "-o", "far-out.csv")
    assert ran.json["far"] > 0
    assert "other platform, tissue or units?" in ran.err


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("log.csv", "counts a million are needed, these are log1p"),
        ("other.csv", "0 of the model's"),
        ("words.csv", "row 4, column 'gene0': 'n/a' is not a number"),
        ("pairs.csv", "is not a number"),
        ("absent.csv", "absent.csv"),
    ],
)
def test_unsuitable_tables_are_refused_in_one_line(study, table, said):
    folder, run, _ = study
    ran = _vcell(folder, "predict-bulk", run, table, "-o", "refused.csv", code=2)
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (folder / "refused.csv").exists()


def test_the_model_is_fitted_to_all_patients_and_damage_is_reported(study, tmp_path):
    folder, run, _ = study
    kept = folder / run
    model = FinalBulkModel.load(Run.open(str(kept)))
    assert len(model.genes) == STRONG["genes"]
    again = tmp_path / "copy"
    shutil.copytree(kept, again)
    weights = again / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    ran = _vcell(folder, "predict-bulk", str(again), "new.csv", "-o", "d.csv", code=2)
    assert "is not what the run wrote" in ran.err
    (again / "model" / "model.json").unlink()
    ran = _vcell(folder, "predict-bulk", str(again), "new.csv", "-o", "d.csv", code=2)
    assert "keeps no model" in ran.err
