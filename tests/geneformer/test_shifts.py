"""Shifts equal those of copies written out one by one in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.geneformer.brute_force import Float64Bert, perturb, shift
from vcell.geneformer import checkpoint, perturbation
from vcell.geneformer.checkpoint import Geneformer
from vcell.geneformer.shifts import ShiftEngine
from vcell.geneformer.vocabulary import Vocabulary
from vcell.nn.bert import Bert, BertShape

LONGEST = 48


def vocabulary_of(framed, n=120):
    special = ["<pad>", "<mask>"] + (["<cls>", "<eos>"] if framed else [])
    ids = special + [f"ENSG{i:011d}" for i in range(len(special), n)]
    medians = np.r_[np.full(len(special), np.nan), np.ones(n - len(special))]
    return Vocabulary("small", np.array(ids), np.array([""] * n), medians, {})


def model_of(framed, *, sharp=1.0, smooth=True, seed=0):
    shape = BertShape(n_layers=3, d_model=32, n_heads=4, d_ff=48, n_positions=LONGEST, n_tokens=120)
    bert = Bert(shape)
    checkpoint.made_up(bert, seed, smooth=smooth)
    bert.requires_grad_(requires_grad=False)
    for block in bert.blocks:
        block.qkv.weight[:64] *= sharp
    return Geneformer("small", bert, vocabulary_of(framed), True, "", "")


def cell_of(framed, length, seed=0):
    rng = np.random.default_rng(seed)
    genes = rng.choice(np.arange(4, 120), length, replace=False)
    return np.r_[2, genes, 3].astype(np.int32) if framed else genes.astype(np.int32)


def states_of(seed=5):
    rng = np.random.default_rng(seed)
    return {"A": rng.normal(size=32), "B": rng.normal(size=32)}


def check(got, wanted, tolerance=1e-6):
    np.testing.assert_allclose(got.distance, [d for d, _ in wanted], atol=tolerance, rtol=0)
    for name in ("A", "B"):
        want = [to[name] for _, to in wanted]
        np.testing.assert_allclose(got.to_state[name], want, atol=tolerance, rtol=0)


READOUTS = ((False, "mean"), (True, "cls"), (True, "mean"))
OPERATIONS = ("delete", "overexpress", "inhibit", "activate")
# every pair of an operation and a readout, and of either and a number of layers
CASES = [
    (operation, *READOUTS[j], (i + j) % 3 + 1)
    for i, operation in enumerate(OPERATIONS)
    for j in range(3)
]


@pytest.mark.parametrize(("operation", "framed", "readout", "layers"), CASES)
def test_every_gene_in_turn(framed, readout, layers, operation):
    model, states = model_of(framed), states_of()
    cell = cell_of(framed, 30)
    engine = ShiftEngine(model, layers, readout, states, budget=5 * 30)
    places = np.arange(engine.frame.first, len(cell) - engine.frame.last)
    copies = perturbation.single(operation, len(cell), places, engine.frame, quarters=2)
    slow = Float64Bert(model.bert)
    wanted = []
    for place in places:
        gene = int(cell[place])
        copy, original = perturb(cell, [gene], operation, framed, LONGEST, quarters=2)
        wanted.append(shift(slow, original, copy, {gene}, layers, readout, framed, states))
    check(engine.shifts(cell, len(cell), copies), wanted)


@pytest.mark.parametrize(("framed", "readout"), [(False, "mean"), (True, "cls"), (True, "mean")])
@pytest.mark.parametrize("length", [20, LONGEST])
def test_genes_that_the_cell_lacks_push_the_last_ones_out(framed, readout, length):
    model, states = model_of(framed), states_of()
    cell = cell_of(framed, length - 2 * framed)
    missing = np.setdiff1d(np.arange(4, 120), cell)[:9].astype(np.int32)
    engine = ShiftEngine(model, 2, readout, states, budget=200)
    tokens = np.r_[cell, missing].astype(np.int32)
    sources = len(cell) + np.arange(len(missing))
    copies = perturbation.absent(len(cell), sources, engine.frame)
    slow = Float64Bert(model.bert)
    wanted = []
    for gene in missing:
        copy, original = perturb(cell, [int(gene)], "overexpress", framed, LONGEST)
        assert len(copy) <= LONGEST
        wanted.append(shift(slow, original, copy, {gene}, 2, readout, framed, states))
    check(engine.shifts(tokens, len(cell), copies), wanted)


@pytest.mark.parametrize(("framed", "readout"), [(False, "mean"), (True, "cls"), (True, "mean")])
@pytest.mark.parametrize("operation", ["delete", "overexpress", "inhibit", "activate"])
@pytest.mark.parametrize("length", [20, LONGEST])
def test_a_group_at_once(framed, readout, operation, length):
    model, states = model_of(framed), states_of()
    cell = cell_of(framed, length - 2 * framed)
    engine = ShiftEngine(model, 2, readout, states)
    inside = [engine.frame.first + i for i in (4, 1, length - 2 * framed - 1)]
    missing = np.setdiff1d(np.arange(4, 120), cell)[:2].astype(np.int32)
    sources = inside + ([len(cell), len(cell) + 1] if operation == "overexpress" else [])
    tokens = np.r_[cell, missing].astype(np.int32)
    genes = [int(tokens[s]) for s in sources]
    copies = perturbation.group(operation, len(cell), sources, engine.frame)
    copy, original = perturb(cell, genes, operation, framed, LONGEST)
    wanted = shift(Float64Bert(model.bert), original, copy, set(genes), 2, readout, framed, states)
    check(engine.shifts(tokens, len(cell), copies), [wanted])


@pytest.mark.parametrize("operation", ["delete", "overexpress"])
def test_an_anchor_with_every_other_gene(operation):
    model, states = model_of(framed=False), states_of()
    cell = cell_of(framed=False, length=25)
    engine = ShiftEngine(model, 2, "mean", states, budget=100)
    base = perturbation.group(operation, len(cell), [7], engine.frame).base
    others = np.array([p for p, source in enumerate(base) if source != 7])
    copies = perturbation.single(
        operation, len(cell), others, engine.frame, base=base, touched=(7,)
    )
    slow = Float64Bert(model.bert)
    wanted = []
    for place in others:
        genes = [int(cell[base[place]]), int(cell[7])]
        copy, original = perturb(cell, genes, operation, framed=False, longest=LONGEST)
        wanted.append(shift(slow, original, copy, set(genes), 2, "mean", False, states))
    check(engine.shifts(cell, len(cell), copies), wanted)


@pytest.mark.parametrize("sharp", [1.0, 6.0, 60.0])
def test_peaked_attention_is_exact_too(sharp):
    """A key that has nearly all the weight is deleted: what is left must not lose its digits."""
    model, states = model_of(framed=False, sharp=sharp, smooth=False), states_of()
    cell = cell_of(framed=False, length=40)
    shared, plain = (
        ShiftEngine(model, 2, "mean", states, budget=800, shared=share) for share in (True, False)
    )
    copies = perturbation.single("delete", 40, np.arange(40), shared.frame)
    one, two = shared.shifts(cell, 40, copies), plain.shifts(cell, 40, copies)
    np.testing.assert_allclose(one.distance, two.distance, atol=1e-6, rtol=1e-4)
    wanted = []
    slow = Float64Bert(model.bert)
    for gene in cell[:5]:
        copy, original = perturb(cell, [int(gene)], "delete", framed=False, longest=LONGEST)
        wanted.append(shift(slow, original, copy, {gene}, 2, "mean", False, states))
    np.testing.assert_allclose(one.distance[:5], [d for d, _ in wanted], atol=1e-5, rtol=1e-4)


def test_a_cell_of_one_gene_and_an_empty_copy():
    model = model_of(framed=True)
    engine = ShiftEngine(model, 2, "cls", states_of())
    cell = cell_of(framed=True, length=1)
    got = engine.shifts(cell, 3, perturbation.single("delete", 3, np.array([1]), engine.frame))
    assert np.isfinite(got.distance).all()
    assert got.distance[0] > 0


def test_blocks_and_batches_do_not_change_the_result():
    model, states = model_of(framed=False), states_of()
    cell = cell_of(framed=False, length=40)
    results = []
    for budget in (40, 160, 100_000):
        engine = ShiftEngine(model, 3, "mean", states, budget=budget)
        copies = perturbation.single("delete", 40, np.arange(40), engine.frame)
        results.append(engine.shifts(cell, 40, copies))
    for other in results[1:]:
        np.testing.assert_allclose(other.distance, results[0].distance, atol=1e-7)
        np.testing.assert_allclose(other.to_state["A"], results[0].to_state["A"], atol=1e-6)


def test_a_batch_is_one_forward_of_many_copies(monkeypatch):
    """What upstream's tools got wrong: a batch of 16 is sixteen copies in one product."""
    model = model_of(framed=False)
    seen = []
    keep = Bert.layers

    def layers(self, x, lengths, start, stop, mixed=None):
        seen.extend([len(lengths.each)] * (stop - start))
        return keep(self, x, lengths, start, stop, mixed)

    monkeypatch.setattr(Bert, "layers", layers)
    engine = ShiftEngine(model, 2, "mean", budget=16 * 39)
    cell = cell_of(framed=False, length=40)
    engine.shifts(cell, 40, perturbation.single("delete", 40, np.arange(32), engine.frame))
    assert seen == [1, 1, 16, 16, 16, 16]  # two layers of the cell, two of 32 copies
