"""Summaries of patients' cells, and what is refused before training."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from tests.patients.conftest import COLUMNS, QUICK
from vcell.data import open_cells
from vcell.errors import UserError
from vcell.patients import cohort as cohorts
from vcell.patients.communication import read_pairs


def test_cells_are_summed_by_patient(cells, cohort):
    dense = cells.X.toarray()
    for i, name in enumerate(cohort.patients):
        own = (cells.obs["patient"] == name).to_numpy()
        np.testing.assert_array_equal(cohort.bulk[i], dense[own].sum(0))
        kinds = cells.obs["cell_type"][own].value_counts()
        assert [kinds.get(t, 0) for t in cohort.types] == cohort.cells[i].tolist()
        assert cohort.outcomes[cohort.outcome[i]] == cells.obs["outcome"][own].iloc[0]


def test_communication_follows_its_formula(cells, cohort, home):
    dense = cells.X.toarray()
    logs = np.log1p(dense * (1e4 / dense.sum(1, keepdims=True)))
    names = cells.var_names.tolist()
    a, b = (home / "pairs.csv").read_text().splitlines()[1].split(",")
    own = (cells.obs["patient"] == cohort.patients[0]).to_numpy()
    kinds = cells.obs["cell_type"].to_numpy()
    total = 0.0
    for one in cohort.types:
        for other in cohort.types:
            sender, receiver = own & (kinds == one), own & (kinds == other)
            if sender.any() and receiver.any():
                m = logs[sender, names.index(a)].mean() * logs[receiver, names.index(b)].mean()
                total += sender.sum() * receiver.sum() / own.sum() ** 2 * np.sqrt(m)
    assert cohort.communication[0, 0] == pytest.approx(total, rel=1e-4)
    assert cohort.communication.shape[1] == 5 + len(cohort.types) ** 2


def test_a_complex_is_as_strong_as_its_weakest_part_and_unknown_genes_are_counted(tmp_path):
    table = tmp_path / "pairs.tsv"
    table.write_text("source\ttarget\nA\tB_C\nA\tNOBODY\nB+NOBODY\tC\n")
    pairs = read_pairs(table, ["A", "B", "C"])
    assert pairs.names == ("A-B_C",)
    means = np.array([[[4.0, 9.0, 1.0]]])  # one patient, one type; genes A, B, C
    assert pairs.scores(means, np.array([[1.0]]))[0, 0] == pytest.approx(np.sqrt(4 * 1))
    (tmp_path / "other.csv").write_text("gene,partner\nA,B\n")
    with pytest.raises(UserError, match="no column of ligands"):
        read_pairs(tmp_path / "other.csv", ["A"])


def test_a_cohort_is_read_again_as_it_was_written(cohort, tmp_path):
    cohort.save(tmp_path / "cohort.npz")
    again = cohorts.Cohort.load(tmp_path / "cohort.npz")
    assert again.patients == cohort.patients
    np.testing.assert_array_equal(again.communication, cohort.communication)


def _with(data, **columns):
    changed = data.copy()
    for name, values in columns.items():
        changed.obs[name] = values
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: _with(d, cell_type="T"), "has one label, 'T'"),
        (lambda d: _with(d, cell_type=["lone", *d.obs["cell_type"][1:]]), "'lone' .* has one cell"),
        (lambda d: _with(d, outcome="ill"), "every patient has the outcome 'ill'"),
        (
            lambda d: _with(
                d, outcome=np.where(d.obs["patient"].isin(["P000", "P001"]), "rare", "usual")
            ),
            "2 patients of outcome 'rare'",
        ),
        (lambda d: _with(d, batch=d.obs["outcome"]), "patients of one outcome only"),
        (lambda d: _with(d, outcome=["ill", *d.obs["outcome"][1:]]), "has the outcomes"),
        (
            lambda d: _with(d, patient=["p000 ", *d.obs["patient"][1:]]),
            "'P000' and 'p000 ' in 'patient' differ in capitals",
        ),
        (
            lambda d: _with(
                d, outcome=np.where(d.obs["patient"] == "P001", "Ill", d.obs["outcome"])
            ),
            "'Ill' and 'ill' in 'outcome' differ in capitals",
        ),
        (
            lambda d: _with(d, cell_type=["type_0", "type_0", *d.obs["cell_type"][2:]]),
            "'type-0' and 'type_0' in 'cell_type' differ in capitals",
        ),
    ],
    ids=[
        "one label", "lone cell", "one class", "too few", "batch is outcome", "two outcomes",
        "patient spelt twice", "outcome spelt twice", "type spelt twice",
    ],
)  # fmt: skip
def test_uninformative_columns_are_refused(cells, change, words):
    with open_cells(change(cells)) as source, pytest.raises(UserError, match=words) as told:
        cohorts.members(source, COLUMNS)
    assert "\n" not in told.value.message


def test_cells_of_an_unknown_patient_are_no_patient(cells):
    unknown = _with(cells, patient=cells.obs["patient"].astype(str).replace("P003", "unknown"))
    with open_cells(unknown) as source:
        who = cohorts.members(source, COLUMNS)
    assert len(who.patients) == 23
    assert not {"P003", "unknown"} & set(who.patients)
    assert (who.patient_of < 0).sum() == (cells.obs["patient"] == "P003").sum()


def test_a_patient_under_two_names_is_found_by_its_counts(cells):
    """Otherwise one of the two is predicted by a model that has learnt from the other."""
    twin = cells[cells.obs["patient"] == "P003"].copy()
    twin.obs["patient"] = "Q7"
    with open_cells(anndata.concat([cells, twin], index_unique="-")) as source:
        who = cohorts.members(source, COLUMNS)
        with pytest.raises(UserError, match="patients 'P003' and 'Q7' add up to the same counts"):
            cohorts.read(source, who)


def test_log_values_and_nan_are_refused_before_a_run_is_created(cells, here, home):
    logged, broken = cells.copy(), cells.copy()
    logged.X.data = np.log1p(logged.X.data)
    broken.X.data[7] = np.nan
    for name, data, words in (
        ("logged", logged, "raw counts are needed"), ("broken", broken, "NaN"),
    ):  # fmt: skip
        data.write_h5ad(home / f"{name}.h5ad")
        ran = here("train-bulk", f"{name}.h5ad", "--runs", f"runs-{name}", *QUICK)
        assert ran.code == 2
        assert words in ran.err
        assert not (home / f"runs-{name}").exists()
