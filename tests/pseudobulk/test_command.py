"""`vcell pseudobulk`: output, messages and refusals."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy import sparse

import vcell as library
from tests.bulk.test_sums import cells, reference
from tests.evaluate.running import Here
from tests.support import peak_of
from vcell.data.write import CellWriter
from vcell.errors import UserError, VcellWarning


@pytest.fixture
def vcell(tmp_path, monkeypatch, capfd):
    """A folder with 700 cells of three types, some unlabelled, of two patients and two splits."""
    data = cells(largest=9)
    data.obs["split"] = np.where(np.arange(data.n_obs) % 3, "train", "test")
    data.obs.loc[data.obs_names[:200], "patient"] = "nan"
    mine = (data.obs["patient"] == "p2").to_numpy()
    data.obs.loc[mine & (data.obs["kind"] == "b").to_numpy(), "kind"] = "a"
    data.write_h5ad(tmp_path / "cells.h5ad")
    return Here(tmp_path, monkeypatch, capfd)


def test_h5ad_has_sums_of_the_drawn_cells_and_their_exact_fractions(vcell):
    words = ("pseudobulk", "cells.h5ad", "--labels", "kind", "--samples", "40", "--cells", "30")
    ran = vcell(*words, "--by", "patient", "-o", "a.h5ad", "--json")
    assert ran.code == 0, ran.err
    assert "of no group" in ran.err
    assert "some types in 1 of 2 groups" in ran.err
    told = ran.json
    assert told["types"] == ["a", "b", "c"]
    assert told["groups"] == ["p1", "p2"]
    bulk = anndata.read_h5ad(vcell.folder / "a.h5ad")
    assert vcell(*words, "--by", "patient", "-o", "a.npz").code == 0
    with np.load(vcell.folder / "a.npz", allow_pickle=False) as file:
        arrays = dict(file)
    data = anndata.read_h5ad(vcell.folder / "cells.h5ad")
    expected = reference(data, arrays["rows"])
    assert bulk.X.dtype == np.int32
    assert (expected == bulk.X).all()
    assert (arrays["counts"] == expected).all()
    assert list(bulk.var_names) == list(data.var_names) == arrays["genes"].tolist()
    assert bulk.obs_names[41] == arrays["sample"][41] == "p2/sample-1"
    patient = data.obs["patient"].astype(str).to_numpy()[arrays["rows"]]
    assert (patient == bulk.obs["patient"].astype(str).to_numpy()[:, None]).all()
    assert (patient == arrays["patient"][:, None]).all()
    kind = data.obs["kind"].astype(str).to_numpy()[arrays["rows"]]
    for k, name in enumerate(told["types"]):
        exact = (kind == name).sum(1)
        assert (arrays["fractions"][:, k] == exact / 30).all()
        assert (np.rint(bulk.obsm["fractions"][:, k] * 30) == exact).all()
    assert set(kind.ravel()) == {"a", "b", "c"}
    assert (bulk.obsm["fractions"][40:, 1] == 0).all()  # the second patient has no b
    assert list(bulk.uns["pseudobulk"]["types"]) == told["types"]
    assert bulk.uns["pseudobulk"]["seed"] == 0


def test_deconvolve_scores_its_estimates_and_writes_them(vcell):
    words = ("pseudobulk", "cells.h5ad", "--labels", "kind", "--samples", "30", "--deconvolve")
    ran = vcell(*words, "-o", "a.h5ad")
    assert ran.code == 0, ran.err
    assert "too good" in ran.err
    apart = vcell(*words, "--split-by", "split", "-o", "b.h5ad", "--json")
    assert "too good" not in apart.err
    bulk = anndata.read_h5ad(vcell.folder / "b.h5ad")
    for name in ("nnls", "em"):
        found, truth = bulk.obsm[name], bulk.obsm["fractions"]
        rmse = float(np.sqrt(np.square(found - truth).mean()))
        assert apart.json["scores"][name]["rmse"] == pytest.approx(rmse, rel=1e-4)
        assert set(apart.json["scores"][name]["types"]) == {"a", "b", "c"}
    lines = ran.out.splitlines()
    assert lines[0].split() == ["type", "nnls", "RMSE", "nnls", "CCC", "em", "RMSE", "em", "CCC"]
    assert lines[2].split()[0] == "all"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-o", "x.h5ad"), "--labels COLUMN"),
        (("--labels", "kind"), "no output"),
        (("--labels", "knd", "-o", "x.h5ad"), "did you mean"),
        (("--labels", "kind", "-o", "x.txt"), "must end in"),
        (("--labels", "kind", "-o", "x.h5ad", "--samples", "0"), "samples"),
        (("--labels", "kind", "-o", "x.h5ad", "--mode", "rare", "--rare", "Treg"), "'Treg'"),
        (("--labels", "kind", "--by", "split", "--split-by", "split", "-o", "x.npz"), "the same"),
    ],
)  # fmt: skip
def test_bad_settings_are_one_sentence_and_leave_nothing(vcell, flags, said):
    ran = vcell("pseudobulk", "cells.h5ad", *flags)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert sorted(p.name for p in vcell.folder.iterdir()) == ["cells.h5ad"]


@pytest.mark.parametrize("out", ["x.h5ad", "x.npz"])
def test_values_other_than_counts_are_refused_wherever_they_are(vcell, out):
    """Log values are refused at once; a single fraction later, while reading."""
    data = anndata.read_h5ad(vcell.folder / "cells.h5ad")
    log = data.copy()
    log.X = log.X.log1p()
    log.write_h5ad(vcell.folder / "log.h5ad")
    ran = vcell("pseudobulk", "log.h5ad", "--labels", "kind", "-o", out)
    assert (ran.code, ran.out) == (2, "")
    assert "raw counts are needed" in ran.err
    many = anndata.concat([data] * 3, index_unique="-")
    many.X = sparse.csr_matrix(many.X)
    late = np.flatnonzero((many.obs["kind"] == "a").to_numpy())[-20]
    many.X.data[many.X.indptr[late]] = 0.5
    many.write_h5ad(vcell.folder / "late.h5ad")
    ran = vcell("pseudobulk", "late.h5ad", "--labels", "kind", "-o", out)
    assert ran.code == 2
    assert "raw counts" in ran.err or f"cell {late:,} holds 0.5, which is not a count" in ran.err
    assert not [p for p in vcell.folder.iterdir() if p.name.startswith("x")]


def test_few_cells_and_lone_types_are_warned_of(vcell):
    data = anndata.read_h5ad(vcell.folder / "cells.h5ad")
    data.obs["kind"] = ["one"] * 5 + ["many"] * (data.n_obs - 5)
    data.obs["who"] = ["x"] * 20 + ["y"] * (data.n_obs - 20)
    data.write_h5ad(vcell.folder / "few.h5ad")
    ran = vcell("pseudobulk", "few.h5ad", "--labels", "kind", "--by", "who", "-o", "x.npz")
    assert ran.code == 0
    assert "1 type with fewer than 10 cells (such as 'one' of x, 5)" in ran.err
    assert "only one type, whose fraction is always 1, is in y" in ran.err


def test_from_python_it_is_an_anndata_with_named_fractions(vcell, tmp_path):
    data = anndata.read_h5ad(tmp_path / "cells.h5ad")
    bulk = library.pseudobulk(data, "kind", samples=20, cells=25, split_by="split")
    assert bulk.n_obs == 40
    assert bulk.obsm["fractions"].columns.tolist() == ["a", "b", "c"]
    assert np.allclose(bulk.obsm["fractions"].sum(1), 1)
    with pytest.warns(VcellWarning, match="too good"):
        scored = library.pseudobulk(data, "kind", samples=5, deconvolve=True)
    assert scored.uns["pseudobulk"]["scores"]["em"]["rmse"] < 0.5
    with pytest.raises(UserError, match="no column"):
        library.pseudobulk(data, "other", samples=5)


@pytest.mark.slow
def test_memory_does_not_grow_with_cells(tmp_path):
    """Eight times the cells take at most 30 MB more, for labels but not for counts."""
    rng = np.random.default_rng(0)
    peaks = []
    for blocks in (8, 64):
        path = tmp_path / f"{blocks}.h5ad"
        with CellWriter(path, [f"g{i}" for i in range(500)], obs=["kind"]) as out:
            for _ in range(blocks):
                counts = rng.poisson(0.7, (2500, 500)) * (rng.random((2500, 500)) < 0.5)
                out.append(sparse.csr_matrix(counts), {"kind": rng.integers(0, 5, 2500)})
        words = ("pseudobulk", path.name, "--labels", "kind", "-o", "x.h5ad", "--overwrite")
        peak, messages = peak_of(*words, "--memory", "2", "--samples", "1000", cwd=tmp_path)
        assert "need more memory than is granted" in messages
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 30
