"""`vcell train-vcc` refuses unsuitable data in one line, before any training."""

from __future__ import annotations

import anndata
import numpy as np
import pytest

from vcell.cli import run
from vcell.data.simulate import Simulator


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=600, genes=80, perturbations=15, umis=800.0, batches=3, seed=1).write(path)
    return anndata.read_h5ad(path)


def trained(adata, tmp_path, capsys, *words):
    """Return the exit code and the messages."""
    adata.write_h5ad(tmp_path / "changed.h5ad")
    model = [] if "--model" in words else ["--model", "gp"]
    code = run(["train-vcc", "changed.h5ad", *model, *words])
    return code, capsys.readouterr().err


def is_control(adata):
    return (adata.obs["target_gene"] == "non-targeting").to_numpy()


def missing_values(adata):
    adata.X = adata.X.toarray()
    adata.X[7, 3] = np.nan


def controls_apart(adata):
    adata.obs["batch"] = np.where(is_control(adata), "monday", "tuesday")


def another_species(adata):
    adata.obs["target_gene"] = [
        str(name) if name == "non-targeting" else f"Mm{name}" for name in adata.obs["target_gene"]
    ]


def no_labels(adata):
    del adata.obs["target_gene"]


def no_controls(adata):
    adata._inplace_subset_obs(~is_control(adata))


def one_cell_each(adata):
    first = ~adata.obs["target_gene"].duplicated().to_numpy()
    adata._inplace_subset_obs(is_control(adata) | first)


def batches_apart(adata):
    adata.obs["batch"] = adata.obs["target_gene"].astype(str)


def negative_values(adata):
    adata.X = adata.X.toarray()
    adata.X[7, 3] = -1


def nothing_counted(adata):
    adata.X = adata.X * 0


def no_cells(adata):
    adata._inplace_subset_obs(np.zeros(adata.n_obs, bool))


def two_perturbations(adata):
    some = adata.obs["target_gene"].unique()[:3]
    adata._inplace_subset_obs(is_control(adata) | adata.obs["target_gene"].isin(some).to_numpy())


def genes_of_another_species(adata):
    adata.var_names = [f"ENSMUSG{i:08d}" for i in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(no_labels, "no obs column has a name", id="no labels"),
        pytest.param(no_controls, "no label that is known to mean control", id="no controls"),
        pytest.param(no_cells, "holds no cells", id="no cells"),
        pytest.param(one_cell_each, "the largest has 1)", id="one cell each"),
        pytest.param(two_perturbations, "left to learn from", id="two perturbations"),
        pytest.param(batches_apart, "no batch has both", id="a batch for each perturbation"),
        pytest.param(negative_values, "negative values", id="negative values"),
        pytest.param(nothing_counted, "holds no values", id="nothing counted"),
        pytest.param(genes_of_another_species, "have no features", id="genes of another species"),
        pytest.param(missing_values, "NaN or infinite", id="NaN"),
        pytest.param(controls_apart, "no batch has both", id="controls in batches of their own"),
        pytest.param(another_species, "have no features", id="targets of another species"),
    ],
)
def test_such_cells_are_refused(clean, tmp_path, capsys, change, said):
    adata = clean.copy()
    change(adata)
    code, error = trained(adata, tmp_path, capsys)
    assert code == 2, error
    assert said in error
    assert "hint" in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_a_batch_without_controls_uses_other_controls_with_a_message(clean, tmp_path, capsys):
    adata = clean[~(is_control(clean) & (clean.obs["batch"] == "batch2").to_numpy())].copy()
    code, said = trained(adata, tmp_path, capsys)
    assert code == 0
    assert "no control cells in 1 of 3 batches" in said


def test_a_feature_table_of_another_species_is_refused(clean, tmp_path, capsys):
    np.savez(tmp_path / "mouse.npz", genes=["Actb", "Gapdh"], features=np.eye(2))
    code, error = trained(clean, tmp_path, capsys, "--features", "mouse.npz")
    assert code == 2
    assert "of the same species" in error
    assert not (tmp_path / "runs").exists()


NETWORK = ["--model", "transformer", "--device", "cpu", "--tokens", "24"]
PHASES = [*NETWORK, "--strategy", "progressive"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--control", "ctrl"], "no cell labelled 'ctrl'", id="control"),
        pytest.param(["--perturbation-column", "guide"], "no column 'guide'", id="column"),
        pytest.param(["--genes", "mouse.csv"], "none of the genes", id="genes"),
        pytest.param(["--held-out", "mouse.csv"], "no cell has that perturbation", id="held out"),
        pytest.param(["--test-share", "0.9"], "left to learn from", id="too many held out"),
        pytest.param([*PHASES, "--phase-genes", "10,400"], "phase 2 wants 400 genes", id="phase"),
        pytest.param(PHASES, "24 genes are too few for 4 phases", id="too few for four phases"),
        pytest.param([*PHASES, "--phase-genes", "8,12", "--max-steps", "1"], "1 steps", id="steps"),
        pytest.param([*NETWORK, "--pseudo", "3"], "equal pseudo-cells", id="pseudo-cells"),
        pytest.param([*NETWORK, "--attention", "flash"], "needs a CUDA device", id="flash"),
        pytest.param(
            [*NETWORK, "--attention", "sparse", "--graph", "mouse.csv"],
            "of the same species",
            id="graph",
        ),
        pytest.param(
            [*NETWORK, "--procs", "2", "--batch-size", "1"], "smaller than the 2", id="processes"
        ),
    ],
)
def test_impossible_settings_are_refused_and_leave_nothing(clean, tmp_path, capsys, words, said):
    (tmp_path / "mouse.csv").write_text("gene,other\nActb,Gapdh\n")
    before = {path.name for path in tmp_path.iterdir()} | {"changed.h5ad"}
    code, error = trained(clean, tmp_path, capsys, *words)
    assert code == 2, error
    assert said in error
    assert "Traceback" not in error
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "words",
    ["--folds 3", "--sweep 2 --sweep-over lr=[0.001,0.01] --model transformer"],
    ids=["folds", "sweep"],
)
def test_cells_are_refused_before_a_fold_or_a_trial_is_announced(clean, tmp_path, capsys, words):
    words += f" --perturbation-column nothing --runs {tmp_path / 'runs'}"
    code, err = trained(clean, tmp_path, capsys, *words.split())
    assert code == 2
    assert err.startswith("error: changed.h5ad: obs has no column 'nothing'")
    assert not list((tmp_path / "runs").glob("*"))


def test_all_in_one_batch_can_be_learned_from(clean, tmp_path, capsys):
    adata = clean.copy()
    adata.obs["batch"] = "one"
    assert trained(adata, tmp_path, capsys)[0] == 0


def test_held_out_perturbations_that_no_model_can_predict_are_refused(clean, tmp_path, capsys):
    adata = clean.copy()
    names = adata.obs["target_gene"].astype(str)
    odd = sorted(set(names) - {"non-targeting"})[:3]
    adata.obs["target_gene"] = [f"{name}-other" if name in odd else name for name in names]
    (tmp_path / "held.txt").write_text("".join(f"{name}-other\n" for name in odd))
    code, told = trained(adata, tmp_path, capsys, "--held-out", "held.txt")
    assert code == 2
    assert "no model could be scored: none of the 3 held-out perturbations" in told
    assert not (tmp_path / "runs").exists()


def test_only_what_was_scored_is_counted(clean, tmp_path, capsys):
    adata = clean.copy()
    names = adata.obs["target_gene"].astype(str)
    first, second, third = sorted(set(names) - {"non-targeting"})[:3]
    # the pair shares a target with what is learnt from, so it is kept; nobody knows the other
    adata.obs["target_gene"] = names.replace({first: f"{third}+unknown"}).to_numpy()
    (tmp_path / "held.txt").write_text(f"{third}+unknown\n{second}\n")
    code = run(["train-vcc", save(adata, tmp_path), "--model", "ridge", "--held-out", "held.txt"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "1 held-out perturbations are not scored" in said.err
    assert "too few for a verdict: 1 held-out perturbation" in said.out


def save(adata, tmp_path):
    adata.write_h5ad(tmp_path / "changed.h5ad")
    return "changed.h5ad"


TABLES = [
    ("junk.npz", b"junk", "it is not an .npz file"),
    ("empty.csv", b"", "is not a gene feature table"),
    ("others.csv", b"gene,a\nFOO1,1\nFOO2,2\n", "others.csv names none of the"),
    ("words.csv", b"gene,a\nGENE00001,x\n", "has no column of numbers"),
]


@pytest.mark.parametrize(("name", "content", "said"), TABLES)
def test_a_file_that_is_not_a_feature_table_is_refused(
    clean, tmp_path, capsys, name, content, said
):
    (tmp_path / name).write_bytes(content)
    code, told = trained(clean, tmp_path, capsys, "--features", name)
    assert code == 2
    assert said in told
    assert not (tmp_path / "runs").exists()
