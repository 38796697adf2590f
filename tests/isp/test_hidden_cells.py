"""From irregular counts to shifts, in both versions: tokens exactly, every row to 1e-6."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from tests.geneformer.brute_force import Float64Bert, perturb, shift
from tests.geneformer.reference import encode_cell
from vcell.geneformer import checkpoint, vocabulary
from vcell.nn.bert import Bert, BertShape

N_GENES, LONG = 11_387, 300  # the most genes of a cell; tokens that the small models take


@pytest.fixture(scope="module", params=["V1", "V2"])
def given(request, tmp_path_factory):
    """A checkpoint of a version, and cells with every known irregularity of counts and names."""
    folder = tmp_path_factory.mktemp(request.param)
    known = vocabulary.shipped(request.param)
    shape = BertShape(
        n_layers=3, d_model=16, n_heads=2, d_ff=24, n_positions=LONG, n_tokens=len(known)
    )
    bert = Bert(shape)
    checkpoint.made_up(bert, 5)
    checkpoint.save(bert, folder / "model")
    rng = np.random.default_rng(6)
    names = list(known.ids[rng.choice(np.arange(4, len(known)), N_GENES - 6, replace=False)])
    names = [n for n in names if n != "ENSG00000141510"]
    names[:50] = [n.lower() for n in names[:50]]
    names[50:80] = [f"{n}.7" if n.startswith("ENSG0") else n for n in names[50:80]]
    names += ["tp53", "ENSG00000141510.18", "P53", "ENSGR0000124333", "ENSG00000002586.20_PAR_Y"]
    names += [names[100]] * (N_GENES - len(names))  # one gene in several columns
    counts = np.zeros((7, N_GENES))
    counts[0] = rng.integers(1, 4, N_GENES)  # more genes than any model takes, most of them tied
    counts[1, 7] = 3  # a single gene
    counts[2, 90:130] = 1
    counts[3, 60:260] = rng.poisson(2, 200)
    counts[3, -9:] = 2
    counts[5] = rng.poisson(0.02, N_GENES)
    counts[6, -9:] = rng.integers(1, 9, 9)  # nothing but odd names; cell 4 has no gene at all
    stored = sp.csr_matrix(counts.astype(np.float32) + 1)  # zeros that the file stores
    stored.data -= 1
    state = ["sick", "sick", "sick", "sick", "sick", "well", "well"]
    adata = anndata.AnnData(
        stored, obs=pd.DataFrame({"state": state}, index=[f"c{i}" for i in range(7)]),
        var=pd.DataFrame({"ensembl_id": names}, index=[f"g{i}" for i in range(N_GENES)]),
    )  # fmt: skip
    adata.write_h5ad(folder / "cells.h5ad")
    tokens = [encode_cell(row, names, known, LONG) for row in counts]
    return folder, known, bert, tokens


def test_tokens_and_shifts_equal_a_direct_computation(given, vcell, tmp_path):
    folder, known, bert, tokens = given
    framed = known.cls is not None
    wanted = [3, 60, 150] if not framed else [4, 61, 151]
    genes = {int(tokens[0][place]) for place in wanted} | {
        int(tokens[3][5]),
        int(tokens[1][-1 - framed]),
    }
    (tmp_path / "genes.txt").write_text("\n".join(known.ids[sorted(genes)]))
    words = [
        "--state",
        "state",
        "--start",
        "sick",
        "--goal",
        "well",
        "--no-gates",
        "--device",
        "cpu",
    ]
    operations = ("delete", "overexpress")
    slow, readout = Float64Bert(bert), "cls" if framed else "mean"
    inner = slice(1, -1) if framed else slice(None)
    goal = [slow.hidden(tokens[i], 2) for i in (5, 6)]
    states = {"well": np.mean([h[0] if framed else h[inner].mean(0) for h in goal], 0)}
    for operation in operations:
        ran = vcell(
            "isp", "run", folder / "cells.h5ad", "--model", folder / "model", *words,
            "--perturb", operation, "--genes", "each:genes.txt", "--json",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert "1 cell without any known gene left out" in ran.err
        run = tmp_path / ran.json["run"]
        design = np.load(run / "design.npz")
        assert design["rows"].tolist() == [0, 1, 2, 3, 5, 6]
        for place, row in enumerate(design["rows"]):
            own = design["tokens"][design["indptr"][place] : design["indptr"][place + 1]]
            np.testing.assert_array_equal(own, tokens[row])
        lines = pq.read_table(run / "shifts.parquet").to_pandas()
        seen = {(line.cell, line.gene) for line in lines.itertuples()}
        # without its only gene nothing of a cell is left to embed
        present = {(c, g) for c in (0, 2, 3) for g in genes if g in tokens[c]}
        assert len(present) >= 5
        assert operation == "overexpress" or seen == present
        for line in lines.itertuples():
            cell = tokens[line.cell]
            copy, original = perturb(cell, [line.gene], operation, framed, LONG)
            distance, to = shift(slow, original, copy, {line.gene}, 2, readout, framed, states)
            assert line.distance == pytest.approx(distance, abs=1e-6)
            assert line.shift_well == pytest.approx(to["well"], abs=1e-6)
