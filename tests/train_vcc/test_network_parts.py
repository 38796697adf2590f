"""The parts of the networks: sets of cells, tokens, heads, losses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from vcell_train_vcc import TrainVcc
from vcell_train_vcc.network.losses import KINDS as LOSSES
from vcell_train_vcc.network.losses import LossKind, Units, effects, losses_of
from vcell_train_vcc.network.rehearsal import rehearse
from vcell_train_vcc.network.shape import NetworkShape
from vcell_train_vcc.network.task import Tables, build

from vcell.data.simulate import Simulator
from vcell.errors import UserError
from vcell.models import Screen
from vcell.nn.attention import AttentionChoice
from vcell.nn.distances import euclidean
from vcell.screen.sets import Groups, SetStream
from vcell.store import Recipe, Store, prepare
from vcell.train.task import Place

TOKENS, SETS = 40, 8


def made(genes, names, features=6):
    """A screen of numbers drawn at random."""
    rng = np.random.default_rng(0)
    n = len(names)
    return Screen(
        genes=np.array(genes),
        contexts=np.array(["all"]),
        control=rng.random((1, len(genes)), np.float32),
        perturbations=np.array(names),
        context=np.zeros(n, np.int64),
        part=np.repeat([0, 1], [n - 4, 4]).astype(np.int8),
        cells=np.full(n, 50),
        delta=rng.normal(size=(n, len(genes))).astype(np.float32),
        noise=np.full(n, 0.01, np.float32),
        feature_genes=np.array(genes),
        features=rng.normal(size=(len(genes), features)).astype(np.float32),
        target_sum=1000.0,
    )


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    Simulator(cells=900, genes=80, perturbations=14, batches=2, umis=500.0, seed=3).write(path)
    return path


@pytest.fixture(scope="module")
def store(simulated, tmp_path_factory):
    target = tmp_path_factory.mktemp("store") / "cells.zarr"
    prepare([simulated], target, Recipe(target_sum=1000.0))
    with Store.open(target) as opened:
        yield opened


@pytest.fixture(scope="module")
def screen(store):
    names = [name for name in store.codes("target_gene")[1] if name != "non-targeting"]
    return made(store.genes.tolist(), names)


LABELS = {
    "perturbation_column": "target_gene",
    "control": "non-targeting",
    "batch_column": "batch",
    "cell_type_column": None,
}


@pytest.fixture(scope="module")
def tables(screen):
    tokens = screen.genes[:TOKENS].tolist()
    return Tables(screen, tokens, np.zeros_like(screen.delta))


def config(**settings):
    return TrainVcc(**{"model": "transformer", "device": "cpu", "dropout": 0.0, **settings})


def network(tables, kind="transformer", **settings):
    torch.manual_seed(0)
    form = NetworkShape(kind, "tiny", 0.0, tuple(tables.names), ((len(tables.names), 0),))
    return build(tables, form, config(**settings), "sdpa")


def stream(store, screen, tables, place=Place(), threads=2, **settings):  # noqa: B008 - frozen
    groups = Groups.of(store, screen, LABELS, 0)
    given = {"set_size": 6, "pseudo": 2, "n_tokens": lambda step: TOKENS, "cells": True, **settings}
    return SetStream(
        store,
        groups,
        tables.names,
        batch_size=SETS,
        extra=tables.example,
        seed=5,
        place=place,
        threads=threads,
        **given,
    )


def take(source, n):
    batches = [next(source) for _ in range(n)]
    source.close()
    return batches


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- sets of cells ------------------------------------------------------------------------------


def test_a_step_is_pooled_from_cells_of_its_perturbations_and_controls_of_their_batch(
    store, screen, tables
):
    groups = Groups.of(store, screen, LABELS, 0)
    batch = next(stream(store, screen, tables))
    cells = batch["cells"]
    assert cells.shape == (SETS, 12, TOKENS)
    assert torch.allclose(batch["expressed"], cells[:, :6].mean(1), atol=1e-5)
    halves = torch.stack([cells[:, 6:9].mean(1), cells[:, 9:].mean(1)], 1)
    assert torch.allclose(batch["control"], halves, atol=1e-5)
    dense = store.read(np.arange(store.n_cells)).toarray()[:, :TOKENS]
    logged = np.log1p(dense * store.scale()[:, None]).astype(np.float32)
    for i, one in enumerate(cells.numpy()):
        found = [np.flatnonzero(np.isclose(logged, cell, atol=1e-5).all(axis=1)) for cell in one]
        rows = [hits[0] for hits in found]  # every row is a cell of the store
        row = tables.learned[int(batch["row"][i])]
        assert (groups.row[rows[:6]] == row).all()
        assert (groups.row[rows[6:]] == groups.control).all()
        assert len(np.unique(groups.matched[rows])) == 1


def test_only_training_cells_are_drawn(store, screen, tables):
    learned = set(screen.rows(0).tolist())
    seen = {
        int(tables.learned[r]) for b in take(stream(store, screen, tables), 30) for r in b["row"]
    }
    assert seen == learned
    capped = Groups.of(store, screen, LABELS, 0, most=50)
    assert ((capped.row >= 0) & (capped.row < capped.control)).sum() == 50


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_loader_threads_changes_nothing(store, screen, tables, threads):
    one = take(stream(store, screen, tables), 12)
    other = take(stream(store, screen, tables, threads=threads), 12)
    assert all(equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_step(store, screen, tables, world):
    whole = take(stream(store, screen, tables), 12)
    parts = [take(stream(store, screen, tables, Place(r, world)), 12) for r in range(world)]
    for step, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert equal(step, {k: torch.cat([share[k] for share in shares]) for k in step})


def test_a_stream_resumes_where_it_stopped(store, screen, tables):
    whole = take(stream(store, screen, tables), 14)
    first = stream(store, screen, tables)
    for _ in range(9):
        next(first)
    state = first.state_dict()
    first.close()
    rest = stream(store, screen, tables)
    rest.load_state_dict(state)
    assert all(equal(a, b) for a, b in zip(whole[9:], take(rest, 5), strict=True))
    with pytest.raises(UserError, match="other cells"):
        stream(store, screen, tables).load_state_dict(state | {"sets": "0"})


# -- the networks -------------------------------------------------------------------------------


def example(tables, rows, copies=1):
    found = tables.example(np.asarray(rows), TOKENS)
    control = torch.from_numpy(tables.screen.control[:, tables.column])
    return found | {"control": control[found["context"]][:, None].repeat(1, copies, 1)}


KINDS = pytest.mark.parametrize("kind", ["transformer", "shared-encoder"])


@KINDS
def test_a_network_starts_as_the_prior_and_then_moves(tables, kind):
    model = network(tables, kind)
    given = example(tables, [0, 1, 2])
    assert not model(given)["residual"].any()
    with torch.no_grad():
        model.core.residual.weight.normal_()
    out = model(given)
    assert out["residual"].shape == (3, 1, TOKENS)
    assert out["logits"].shape == (3, len(tables.learned))
    assert not torch.allclose(out["residual"][0], out["residual"][1])


@KINDS
def test_a_set_of_targets_has_no_order_and_both_count(tables, kind):
    model = network(tables, kind).eval()
    with torch.no_grad():
        model.core.residual.weight.normal_()
    genes = tables.screen.genes
    ab, ba, a = (f"{genes[0]}+{genes[70]}", f"{genes[70]}+{genes[0]}", str(genes[0]))
    given = example(tables, [0, 0, 0])
    features, target = tables.of([ab, ba, a])
    given |= {"features": torch.from_numpy(features), "target": torch.from_numpy(target)}
    one, other, single = model(given)["residual"]
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, single, atol=1e-3)


@KINDS
def test_examples_do_not_see_each_other(tables, kind):
    """The loss of a batch is the mean over its examples, as DDP and micro-batches require."""
    model = network(tables, kind, pds_loss=0.3, loss="adaptive").eval()
    with torch.no_grad():
        model.core.residual.weight.normal_()
    given = example(tables, [0, 1, 2, 3])
    given["expressed"] = given["control"][:, 0] + given["delta"]
    whole = model(given)
    parts = [model({k: v[i : i + 1] for k, v in given.items()}) for i in range(4)]
    for name, value in whole.items():
        assert torch.allclose(value, torch.stack([p[name] for p in parts]).mean(), atol=1e-4), name


def test_every_parameter_takes_part(tables):
    for kind in ("transformer", "shared-encoder"):
        model = network(tables, kind, loss="adaptive")
        with torch.no_grad():
            model.core.residual.weight.normal_()
        given = example(tables, [0, 1])
        given["expressed"] = given["control"][:, 0]
        model(given)["total"].backward()
        assert all(p.grad is not None for p in model.parameters())


def test_the_shared_encoder_runs_once_for_all_perturbations(tables, monkeypatch):
    model = network(tables, "shared-encoder")
    sizes = []
    model.core.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    model(example(tables, [0, 1, 2, 3, 4]))
    assert sizes == [1]


# -- losses -------------------------------------------------------------------------------------


def losses(kind="energy", **weights):
    bank = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    chosen = {"reconstruction": 0.0, "classes": 0.0, **weights}
    return losses_of({"reconstruction": 1.0, "classes": 0.5} | chosen, Units(1.0, bank, kind))


def outputs(effect):
    return {"residual": effect[:, None], "logits": torch.zeros(len(effect), 5)}


def test_the_energy_distance_is_that_of_the_formula():
    rng = torch.Generator().manual_seed(1)
    cells = torch.randn(2, 12, 7, generator=rng, dtype=torch.float64)
    real, control = cells.chunk(2, 1)
    given = {"cells": cells, "prior": torch.zeros(2, 7, dtype=torch.float64)}
    shift = torch.randn(2, 7, generator=rng, dtype=torch.float64)
    found = losses(cells=1.0).terms["cells"](outputs(shift), given)
    moved = control + shift[:, None]
    for i in range(2):
        far = [np.asarray(torch.cdist(a, b)) / 7**0.5 for a, b in
               ((moved[i], real[i]), (moved[i], moved[i]), (real[i], real[i]))]  # fmt: skip
        pairs = [far[1].sum() / 30, far[2].sum() / 30]
        assert found[i].item() == pytest.approx(2 * far[0].mean() - sum(pairs), abs=1e-4)


@pytest.mark.parametrize("kind", ["energy", "mmd"])
def test_a_set_loss_is_least_where_the_cells_are_moved_onto_the_real_ones(kind):
    rng = torch.Generator().manual_seed(2)
    control = torch.randn(1, 64, 7, generator=rng)
    truth = torch.linspace(-1, 1, 7)
    real = torch.randn(1, 64, 7, generator=rng) + truth
    given = {"cells": torch.cat([real, control], 1), "prior": torch.zeros(1, 7)}
    far = losses(kind, cells=1.0).terms["cells"]
    at = [far(outputs(truth[None] * s), given).item() for s in (0, 0.5, 1)]
    assert at[0] > at[1] > at[2]


def test_distances_are_finite_and_differentiable_between_equal_cells():
    cells = torch.ones(1, 3, 4, requires_grad=True)
    euclidean(cells, cells).sum().backward()
    assert torch.isfinite(cells.grad).all()


def test_the_retrieval_loss_is_small_where_the_right_effect_is_nearest():
    made = losses(retrieval=1.0).terms["retrieval"]
    given = {"prior": torch.zeros(2, 7), "row": torch.tensor([0, 1])}
    right = made(outputs(made.bank[:2]), given)
    wrong = made(outputs(made.bank[2:4]), given)
    assert (right < wrong).all()


def test_a_loss_is_added_with_one_entry(tables, monkeypatch):
    class Size(torch.nn.Module):
        """Mean square of the predicted effect."""

        def __init__(self, units):
            super().__init__()
            self.square = units.square

        def forward(self, out, example):
            return effects(out, example).mean(1).square().mean(1) / self.square

    monkeypatch.setitem(LOSSES, "size", LossKind(Size, lambda config: 3.0, "--size-loss"))
    given = example(tables, [0, 1, 2])
    given["expressed"] = given["control"][:, 0] + given["delta"]
    found = network(tables, alpha=0.0, beta=0.0, delta_loss=0.0, pds_loss=0.0)(given)
    assert set(found) == {"total", "size"}
    unit = float(np.square(tables.delta[tables.learned]).mean())
    expected = given["prior"].square().mean() / unit
    assert found["size"].item() == pytest.approx(expected.item(), rel=1e-3)
    assert found["total"].item() == pytest.approx(3 * found["size"].item())


def test_balanced_losses_reach_the_trunk_in_the_ratio_of_their_weights(tables):
    model = network(tables, alpha=1.0, beta=0.5, delta_loss=2.0, pds_loss=0.1, loss="adaptive")
    with torch.no_grad():
        model.core.residual.weight.normal_(std=0.01)
    given = example(tables, [0, 1, 2])
    given["expressed"] = given["control"][:, 0] + given["delta"]
    assert model.losses.factors().tolist() == [1, 1, 1, 1]  # before anything is known
    found = {k: v.item() for k, v in model(given).items()}
    for _ in range(3):
        model.losses.stepped(found)
    factors = model.losses.factors()
    weights = torch.tensor([1.0, 0.5, 2.0, 0.1])
    sizes = torch.tensor([found[f"gradient_{k}"] for k in model.losses.weights])
    reached = factors * weights * sizes
    assert torch.allclose(reached / reached.sum(), weights / weights.sum())
    assert float((factors * weights).sum()) == pytest.approx(3.6)
    each = torch.tensor([found[k] for k in model.losses.weights])
    assert model(given)["total"].item() == pytest.approx(float((factors * weights * each).sum()))


def test_a_loss_without_gradient_is_not_raised_without_bound(tables):
    model = network(tables, pds_loss=0.0, loss="adaptive")  # its last layer is still zero
    given = example(tables, [0, 1, 2])
    given["expressed"] = given["control"][:, 0] + given["delta"]
    found = {k: v.item() for k, v in model(given).items()}
    assert found["gradient_delta"] == found["gradient_reconstruction"] == 0
    model.losses.stepped(found)
    reconstruction, classes, delta = model.losses.factors().tolist()
    assert reconstruction == delta == pytest.approx(100 * classes)


@pytest.mark.slow
@KINDS
def test_balanced_losses_are_the_same_compiled(tables, kind):
    model = network(tables, kind, loss="adaptive")
    with torch.no_grad():
        model.core.residual.weight.normal_(std=0.01)
    given = example(tables, [0, 1, 2])
    given["expressed"] = given["control"][:, 0] + given["delta"]
    plain = model(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled = torch.compile(model, backend="aot_eager")(given)
    for name, value in plain.items():
        assert torch.allclose(value, compiled[name], rtol=1e-4), name


def test_the_estimate_counts_the_parameters_it_will_have(tables):
    form = NetworkShape("transformer", "tiny", 0.1, tuple(tables.names), ((TOKENS, 0),))
    found = rehearse(form, config(), AttentionChoice("sdpa", "here"), torch.device("cpu"), 4)
    core = network(tables).core
    rest = sum(p.numel() for p in core.parameters()) - sum(
        p.numel() for p in core.encoder.parameters()
    )
    assert found.parameters == pytest.approx(rest, rel=0.3)  # it knows not how many features
    assert found.seconds > 0
    assert found.pattern is None
