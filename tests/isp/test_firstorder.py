"""The first-order screen: accurate for smooth positions, and refused otherwise."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from vcell_isp.firstorder import estimate

from tests.geneformer.test_shifts import cell_of, model_of, states_of
from vcell.geneformer import checkpoint, perturbation
from vcell.geneformer.shifts import ShiftEngine
from vcell.metrics.rankings import spearman
from vcell.nn.bert import Bert, BertShape


@pytest.mark.parametrize(("framed", "readout"), [(False, "mean"), (True, "cls"), (True, "mean")])
def test_it_is_the_derivative(framed, readout):
    """Fade a gene out, and move the genes behind it, by a thousandth."""
    model, states = model_of(framed), {"A": states_of()["A"]}
    engine = ShiftEngine(model, 2, readout, states)
    cell = cell_of(framed, 12)
    got = estimate(engine, cell)
    bert, h = copy.deepcopy(model.bert).double(), 1e-6
    tokens = torch.from_numpy(cell.astype(np.int64))
    place = torch.arange(len(cell))
    x0, before = bert.embed(tokens, place), bert.embed(tokens, (place - 1).clamp(min=0))
    unit = states["A"] / np.linalg.norm(states["A"])

    def shift(gene, step):
        bias = torch.zeros(len(cell), dtype=torch.float64)
        bias[gene] = -step
        x = x0 + torch.where(place > gene, step, 0.0)[:, None] * (before - x0)
        for number in range(2):
            block = bert.block(number)
            q, k, v = block.qkv(x).view(len(cell), 3, 4, 8).permute(1, 2, 0, 3)
            mixed = ((q @ k.transpose(1, 2) / 8**0.5 + bias).softmax(-1) @ v).transpose(0, 1)
            a = block.norm_attention(x + block.out(mixed.reshape(x.shape)))
            x = block.norm_output(a + block.down(torch.relu(block.up(a))))
        inner = slice(1, -1) if framed else slice(None)
        weights = bias[inner].exp()
        pooled = x[0] if readout == "cls" else (weights[:, None] * x[inner]).sum(0) / weights.sum()
        return float(pooled.detach().numpy() @ unit / pooled.detach().norm())

    genes = range(1, len(cell) - 1) if framed else range(len(cell))
    want = [(shift(g, h) - shift(g, -h)) / (2 * h) for g in genes]
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-3)


def long_model(*, smooth, sharp=1.0):
    """A deeper model with long cells, where one gene of many is a small change."""
    shape = BertShape(n_layers=4, d_model=64, n_heads=4, d_ff=128, n_positions=512, n_tokens=2000)
    bert = Bert(shape)
    checkpoint.made_up(bert, 0, smooth=smooth)
    bert.requires_grad_(requires_grad=False)
    for block in bert.blocks:
        block.qkv.weight[:128] *= sharp
    small = model_of(framed=False)
    return type(small)("long", bert, small.vocabulary, True, "", "")


def agreement(model):
    rng = np.random.default_rng(0)
    cell = rng.choice(np.arange(4, 2000), 256, replace=False).astype(np.int32)
    state = {"A": rng.normal(size=64)}
    engine = ShiftEngine(model, 3, "mean", state)
    places = np.arange(0, 256, 2)
    copies = perturbation.single("delete", 256, places, engine.frame)
    exact = engine.shifts(cell, 256, copies).to_state["A"]
    return spearman(estimate(engine, cell)[places], exact)


def test_smooth_positions_are_screened_well_and_random_ones_are_not():
    assert agreement(long_model(smooth=True)) > 0.9
    assert agreement(long_model(smooth=False)) < 0.8


@pytest.mark.parametrize(("smooth", "sharp"), [(True, 1.0), (False, 4.0)])
def test_a_run_checks_its_estimates_and_falls_back(isp, tmp_path, smooth, sharp):
    bert = Bert(BertShape(n_layers=3, d_model=32, n_heads=4, d_ff=48, n_positions=48, n_tokens=120))
    checkpoint.made_up(bert, 1, smooth=smooth)
    with torch.no_grad():
        for block in bert.blocks:
            block.qkv.weight[:64] *= sharp
    checkpoint.save(bert, tmp_path / "model")
    words = ("--screen", "first-order", "--exact-top", 10, "--exact-random", 30, "--no-gates")
    ran = isp("--max-cells", 8, *words, model=tmp_path / "model")
    assert ran.code == 0, ran.err
    folder = tmp_path / ran.json["run"]
    found = json.loads((folder / "screen.json").read_text())
    genes = set(pq.read_table(folder / "shifts.parquet")["gene"].to_pylist())
    known = set(np.load(folder / "estimates.npz")["genes"].tolist())
    assert 0 <= found["recall"] <= 1
    if found["recall"] < 0.95:
        assert genes == known
        assert "misses too much" in ran.err
    else:
        assert len(genes) <= 40
    if not smooth:
        assert found["recall"] < 0.95
