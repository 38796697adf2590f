"""`vcell embed`: labels cells of another study, and reports unknown cells and missing genes."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from tests.gmvae.conftest import planted


def _embed(vcell, home, trained, data, out, *words):
    data.write_h5ad(home / f"{out}-in.h5ad")
    done = vcell("embed", trained["run"], f"{out}-in.h5ad", "-o", f"{out}.h5ad", "--json", *words)
    assert done.returncode == 0, done.stderr
    return anndata.read_h5ad(home / f"{out}.h5ad"), json.loads(done.stdout), done.stderr


def test_another_study_is_named_and_embedded(vcell, home, trained):
    data = planted(300, 11)
    found, told, _ = _embed(vcell, home, trained, data, "other")
    assert found.obsm["X_gmvae"].shape == (300, 32)
    right = found.obs["gmvae_label"].astype(str) == data.obs["kind"]
    assert right.mean() > 0.9
    assert (found.X != data.X).nnz == 0
    assert found.obs["batch"].tolist() == data.obs["batch"].tolist()
    assert found.obs_names.tolist() == data.obs_names.tolist()
    assert found.obs["gmvae_probability"].between(0, 1).all()
    assert found.obs["gmvae_component"].between(0, 3).all()
    assert sum(told["labels"].values()) == 300
    # the threshold was learnt: about one in a hundred of known cells is beyond it
    assert found.obs["gmvae_unknown"].mean() < 0.08


def test_cells_of_an_unknown_type_are_farther_away(vcell, home, trained):
    data = planted(300, 12, unseen=100)
    found, _, _ = _embed(vcell, home, trained, data, "unseen")
    score = found.obs["gmvae_ood"].to_numpy()
    new = np.arange(300) >= 200
    assert np.median(score[new]) > np.quantile(score[~new], 0.75)
    unknown = found.obs["gmvae_label"].astype(str) == "unknown"
    assert (unknown == found.obs["gmvae_unknown"]).all()
    assert unknown[new].mean() > 3 * max(unknown[~new].mean(), 0.01)


def test_missing_genes_are_counted_and_order_does_not_matter(vcell, home, trained):
    data = planted(200, 13)
    shuffled = data[:, np.random.default_rng(0).permutation(data.n_vars)[:100]].copy()
    found, told, said = _embed(vcell, home, trained, shuffled, "fewer")
    assert told["missing_genes"] == 20
    assert "counted as zero: 20 genes" in said
    assert (found.obs["gmvae_label"].astype(str) == data.obs["kind"]).mean() > 0.7


@pytest.mark.slow
def test_a_shift_of_all_cells_can_be_removed(vcell, home, trained):
    data = planted(300, 14, shift=0.35)
    plain, _, _ = _embed(vcell, home, trained, data, "plain")
    adapted, _, _ = _embed(vcell, home, trained, data, "adapted", "--adapt")
    unknown = [one.obs["gmvae_unknown"].mean() for one in (plain, adapted)]
    assert unknown[1] < unknown[0]
    right = [(one.obs["gmvae_label"].astype(str) == data.obs["kind"]).mean()
             for one in (plain, adapted)]  # fmt: skip
    assert right[1] >= right[0]


def test_bad_input_is_reported_in_one_sentence(vcell, home, trained):
    data = planted(50, 15)
    data.var_names = [f"other{i}" for i in range(data.n_vars)]
    data.write_h5ad(home / "strange.h5ad")
    done = vcell("embed", trained["run"], "strange.h5ad", "-o", "strange-out.h5ad")
    assert done.returncode == 2
    assert "0 of the model's 120 genes" in done.stderr
    assert not (home / "strange-out.h5ad").exists()
    there = vcell("embed", trained["run"], "strange.h5ad", "-o", "strange.h5ad")
    assert there.returncode == 2
    assert "is an input" in there.stderr
    assert vcell("embed", "no-such-run", "strange.h5ad", "-o", "x.h5ad").returncode == 2


def test_a_column_of_batches_without_values_is_refused(vcell, home, trained):
    data = planted(50, 17)
    data.obs["batch"] = pd.Categorical([None] * 50, categories=["b0"])
    data.write_h5ad(home / "none.h5ad")
    done = vcell("embed", trained["run"], "none.h5ad", "-o", "none-out.h5ad", "--adapt-by", "batch")
    assert done.returncode == 2
    assert "column 'batch' has no values" in done.stderr


def test_a_label_may_be_called_unknown(vcell, home):
    data = planted(200, 18)
    data.obs["kind"] = data.obs["kind"].str.replace("type-0", "unknown")
    data.write_h5ad(home / "named.h5ad")
    done = vcell("train-gmvae", "named.h5ad", "--labels", "kind", "--unlabelled", "none",
                 "--max-steps", 30, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, told, _ = _embed(vcell, home, json.loads(done.stdout), data, "called", "--unknown", 0.2)
    assert found.obs["gmvae_label"].cat.categories.is_unique
    named = (found.obs["gmvae_label"] == "unknown").sum()
    assert told["labels"]["unknown"] == named > found.obs["gmvae_unknown"].sum() > 0


@pytest.mark.slow
def test_embedding_again_replaces_its_own_columns(vcell, home, trained):
    data = planted(60, 16)
    once, _, _ = _embed(vcell, home, trained, data, "once")
    assert Path(home / "once.h5ad").is_file()
    twice, _, _ = _embed(vcell, home, trained, once, "twice")
    assert once.obs.columns.tolist() == twice.obs.columns.tolist()
    np.testing.assert_array_equal(once.obsm["X_gmvae"], twice.obsm["X_gmvae"])
