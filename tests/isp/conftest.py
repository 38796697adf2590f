"""A tiny Geneformer with its own vocabulary, and cells in two states from three donors."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.support import in_this_process
from vcell.geneformer import checkpoint
from vcell.nn.bert import Bert, BertShape

N_TOKENS, LONGEST = 120, 48


@pytest.fixture
def vcell(vcell, tmp_path):
    """Run the command line in this process, which imports torch once, or in a separate one."""

    def run(*words, own_process=False, **more):
        return vcell(*words, **more) if own_process else in_this_process(words, tmp_path)

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    shape = BertShape(
        n_layers=3, d_model=32, n_heads=4, d_ff=48, n_positions=LONGEST, n_tokens=N_TOKENS
    )
    bert = Bert(shape)
    checkpoint.made_up(bert, 0)
    checkpoint.save(bert, folder)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "own.tsv"
    rows = ["token\tid\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    rows += [f"ENSG{i:011d}\t{i}\t{1 + i % 5}\tG{i}" for i in range(2, N_TOKENS)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def cells(tmp_path_factory):
    """Forty cells, half of them healthy, in which genes 10 to 19 are higher."""
    rng = np.random.default_rng(0)
    n = 40
    state = np.array(["sick", "well"])[np.arange(n) % 2]
    donor = np.array(["d1", "d2", "d3"])[(np.arange(n) // 2) % 3]
    mean = np.tile(rng.gamma(0.5, 1.0, N_TOKENS - 2), (n, 1))
    mean[state == "well", 8:18] *= 8
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    anndata.AnnData(
        counts,
        obs=pd.DataFrame({"state": state, "donor": donor}, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(2, N_TOKENS)]),
    ).write_h5ad(path)
    return path


@pytest.fixture
def isp(vcell, cells, model_folder, table):
    """Run `vcell isp run` on the cells with the tiny model; return the result and its folder."""

    def run(*words, goal=True, file=cells, model=model_folder, **more):
        states = ["--state", "state", "--start", "sick", "--goal", "well"] if goal else []
        given = [file, "--model", model, "--vocabulary", table, *states, "--device", "cpu"]
        return vcell("isp", "run", *given, *words, "--json", **more)

    return run
