"""`vcell isp embed`: embeddings of cells and genes, in either format, in bounded memory."""

from __future__ import annotations

import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.geneformer.brute_force import Float64Bert
from tests.isp.conftest import LONGEST, N_TOKENS
from vcell.data import open_cells
from vcell.geneformer import checkpoint, tokens
from vcell.nn.bert import Bert, BertShape


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_cells_and_genes_equal_float64_and_keep_their_labels(
    vcell, cells, model_folder, table, tmp_path, kind
):
    adata = anndata.read_h5ad(cells)
    counts = adata.X.toarray()
    counts[3] = 0  # a cell without any gene
    adata.X = sp.csr_matrix(counts)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / f"out.{kind}"
    words = ["isp", "embed", "cells.h5ad", "--model", model_folder, "--vocabulary", table]
    ran = vcell(*words, "--genes", "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert "1 cell without any known gene left out" in ran.err
    found = anndata.read_h5ad(out) if kind == "h5ad" else anndata.read_zarr(out)
    model = checkpoint.load(str(model_folder), table)
    with open_cells(tmp_path / "cells.h5ad") as source:
        ranked = tokens.encode(source, model.vocabulary, LONGEST)
    assert list(found.obs_names) == [f"c{i}" for i in range(40) if i != 3]
    assert list(found.obs["state"]) == list(adata.obs["state"].drop("c3"))
    hidden = [Float64Bert(model.bert).hidden(ranked[i], 2) for i in range(len(ranked))]
    np.testing.assert_allclose(
        found.obsm["X_geneformer"], [h.mean(0) for h in hidden], atol=1e-5, rtol=0
    )
    for place in (0, found.n_vars // 2, found.n_vars - 1):
        token = int(found.var["token"].iloc[place])
        rows = [
            h[ranked[i].tolist().index(token)] for i, h in enumerate(hidden) if token in ranked[i]
        ]
        np.testing.assert_allclose(
            found.varm["X_geneformer"][place], np.mean(rows, 0), atol=1e-5, rtol=0
        )
        assert found.var["n_cells"].iloc[place] == len(rows)
    assert found.uns["geneformer"]["layer"] == 2
    again = vcell(*words, "-o", out)
    assert (again.code, "--overwrite replaces it" in again.err) == (2, True)
    assert vcell(*words, "-o", out, "--overwrite").code == 0
    with open_cells(out) as source:  # what we wrote, we read
        assert source.n_cells == 39


def test_memory_does_not_grow_with_cells(vcell, table, tmp_path):
    wide = BertShape(n_layers=1, d_model=512, n_heads=8, d_ff=64, n_positions=48, n_tokens=N_TOKENS)
    bert = Bert(wide)
    checkpoint.made_up(bert, 0)
    checkpoint.save(bert, tmp_path / "model")
    rng = np.random.default_rng(0)
    names = [f"ENSG{i:011d}" for i in range(2, N_TOKENS)]
    peaks = []
    for n in (300, 2000, 8000):  # the first only imports
        counts = sp.csr_matrix(rng.poisson(0.3, (n, len(names))).astype(np.float32))
        cells = anndata.AnnData(counts, var=pd.DataFrame(index=names))
        cells.write_h5ad(tmp_path / f"{n}.h5ad")
        del cells, counts
        tracemalloc.start()
        ran = vcell(
            "isp", "embed", f"{n}.h5ad", "--model", "model", "--vocabulary", table,
            "--model-layer", 0, "-o", f"{n}-out.h5ad",
        )  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert ran.code == 0, ran.err
    kept = 6000 * 512 * 4  # bytes of the embeddings between the two
    assert peaks[2] - peaks[1] < kept / 4


def test_no_output_is_left_if_no_cell_can_be_embedded(vcell, cells, model_folder, table, tmp_path):
    adata = anndata.read_h5ad(cells)
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)
    adata.write_h5ad(tmp_path / "empty.h5ad")
    for kind in ("h5ad", "zarr"):
        ran = vcell(
            "isp", "embed", "empty.h5ad", "--model", model_folder, "--vocabulary", table,
            "-o", f"out.{kind}",
        )  # fmt: skip
        assert ran.code == 2
        assert "no cell has a count" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["empty.h5ad"]
