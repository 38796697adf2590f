"""What a loader yields: each cell as often as it should be, the right values, the same again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

from tests.support import PATIENCE
from vcell.data.buffers import Buffers
from vcell.errors import UserError
from vcell.store import (
    Loader,
    Output,
    Partition,
    Sets,
    Shuffled,
    Store,
    Weighted,
    balanced,
    combine,
)
from vcell.store.batching import BatchFactory
from vcell.store.device import to_dense

if TYPE_CHECKING:
    from tests.store.conftest import Screen
    from vcell.store.batch import Batch
    from vcell.store.batching import Buffer, Planned
    from vcell.store.priority_pool import PriorityPool

ORDER = Shuffled(batch_size=64, seed=3, block=32, buffer=256)


def rows_of(loader: Loader) -> list[np.ndarray]:
    return [batch.rows.copy() for batch in loader]


def expected(store: Store, rows: np.ndarray, output: Output) -> np.ndarray:
    x = store.read(rows).toarray().astype(np.float32)
    if output.log1p:
        x = np.log1p(x * store.scale()[rows][:, None])
    return x if output.genes is None else x[:, store.columns_of(output.genes)]


@pytest.mark.parametrize("resident", [True, False], ids=["in memory", "from disk"])
@pytest.mark.parametrize(
    "output",
    [
        Output(),
        Output(log1p=True),
        Output(genes=["G9", "G5"], log1p=True),
        Output(dense=True),
        Output(dense=True, genes=["G9", "G5", "MT-1"]),
        Output(dense=True, log1p=True),
        Output(dense=True, log1p=True, genes=["G50"]),
        Output(own=True),
        Output(own=True, genes=["G9", "G5"], log1p=True),
        Output(own=True, dense=True),
    ],
    ids=str,
)
def test_batches_hold_the_values_of_their_cells(
    store: Store, output: Output, *, resident: bool
) -> None:
    seen = 0
    for batch in Loader(store, ORDER, output, resident=resident):
        got = batch.x if output.dense else batch.csr().toarray()
        want = expected(store, batch.rows, output)
        assert got.dtype == np.float32
        assert np.allclose(got, want, rtol=2e-6, atol=0)
        assert output.log1p or (got == want).all()
        seen += len(batch)
    assert seen == store.n_cells


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "compressed"])
def test_batches_of_their_own_share_no_memory(store: Store, *, dense: bool) -> None:
    def base(batch: Batch) -> np.ndarray:
        array = batch.x if dense else batch.data
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    kept = list(Loader(store, ORDER, Output(dense=dense, own=True), resident=False))
    assert len({id(base(batch)) for batch in kept}) == len(kept) > 1
    for batch in kept:
        values = batch.x if dense else batch.data
        assert base(batch).nbytes == values.nbytes
    with pytest.raises(ValueError, match="exclude each other"):
        Output(own=True, pin=True)


def test_batches_that_are_kept_stay_as_they_are(store: Store) -> None:
    for output in (Output(), Output(dense=True), Output(genes=["G9", "G5"])):
        for batch in list(Loader(store, ORDER, output, resident=False)):
            got = batch.x if output.dense else batch.csr().toarray()
            assert (got == expected(store, batch.rows, output)).all()


def test_the_memory_of_batches_let_go_is_used_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcell.store.batching._SLAB", 1)  # every batch in memory of its own
    loader = Loader(store, ORDER, Output(dense=True), resident=True)
    addresses = {batch.x.ctypes.data for batch in loader}
    assert len(addresses) < len(loader) / 2


@pytest.mark.parametrize("shuffle", ["block", "full", "none"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_see_each_cell_once(store: Store, shuffle: Any, world_size: int) -> None:
    order = Shuffled(batch_size=50, shuffle=shuffle, block=16, buffer=200)
    seen = [
        rows_of(Loader(store, order, place=Partition(rank, world_size), resident=True))
        for rank in range(world_size)
    ]
    cells = np.concatenate([rows for rank in seen for rows in rank])
    assert sorted(cells) == list(range(store.n_cells))


def test_ranks_have_equally_many_full_batches_when_the_last_is_dropped(store: Store) -> None:
    order = Shuffled(batch_size=64, drop_last=True)
    seen = [rows_of(Loader(store, order, place=Partition(r, 4), resident=True)) for r in range(4)]
    assert {len(batches) for batches in seen} == {900 // 4 // 64}
    assert {len(rows) for batches in seen for rows in batches} == {64}
    cells = np.concatenate([rows for rank in seen for rows in rank])
    assert len(np.unique(cells)) == len(cells)


def test_epochs_differ_and_the_seed_decides(store: Store) -> None:
    a, b = Loader(store, ORDER, resident=True), Loader(store, ORDER, resident=False)
    first, second = rows_of(a), rows_of(a)
    assert all((x == y).all() for x, y in zip(first, rows_of(b), strict=True))
    assert not (first[0] == second[0]).all()
    other = Loader(store, Shuffled(batch_size=64, seed=4, block=32, buffer=256), resident=True)
    assert not (first[0] == rows_of(other)[0]).all()


def test_the_number_of_threads_does_not_show(store: Store) -> None:
    one, four = (
        [b.csr().toarray() for b in Loader(store, ORDER, resident=False, threads=n)] for n in (1, 4)
    )
    assert all((x == y).all() for x, y in zip(one, four, strict=True))


def test_no_shuffling_keeps_the_order_of_the_file(store: Store) -> None:
    order = Shuffled(batch_size=70, shuffle="none")
    rows = np.concatenate(rows_of(Loader(store, order, resident=False)))
    assert (rows == np.arange(900)).all()


def test_a_subset_of_cells_is_seen_and_nothing_else(store: Store) -> None:
    chosen = np.arange(5, 900, 7)
    order = Shuffled(batch_size=16, block=4, buffer=64, rows=chosen)
    rows = np.concatenate(rows_of(Loader(store, order, resident=False)))
    assert sorted(rows) == chosen.tolist()


ORDERS: dict[str, Callable[[Store], Any]] = {
    "block": lambda store: ORDER,
    "full": lambda store: Shuffled(batch_size=32, shuffle="full", buffer=128),
    "weighted": lambda store: Weighted(
        weights=balanced(store.codes("perturbation")[0]), batch_size=32, buffer=128
    ),
    "sets": lambda store: sets_of(store, buffer=128),
}


def sets_of(store: Store, **settings: Any) -> Sets:
    codes, names = store.codes("perturbation")
    return Sets(
        perturbation=codes,
        control=names.tolist().index("control"),
        context=store.codes("batch")[0],
        **({"set_size": 4, "sets_per_batch": 4} | settings),
    )


@pytest.mark.parametrize("kind", ORDERS)
@pytest.mark.parametrize("after", [1, 5, 9])
def test_a_restored_loader_yields_the_same_batches(store: Store, kind: str, after: int) -> None:
    def make() -> Loader:
        return Loader(store, ORDERS[kind](store), Output(labels=("batch",)), resident=False)

    def snapshot(loader: Loader) -> list[tuple[Any, ...]]:
        return [
            (b.rows.copy(), b.indices.copy(), b.data.copy(), b.labels["batch"].copy())
            for b in loader
        ]

    whole = make()
    straight = snapshot(whole) + snapshot(whole)
    stopped = make()
    feed = iter(stopped)
    for _ in range(after):
        next(feed)
    state = stopped.state_dict()
    feed.close()
    again = make()
    again.load_state_dict(state)
    rest = snapshot(again) + snapshot(again)
    assert len(rest) == len(straight) - after
    for got, want in zip(rest, straight[after:], strict=True):
        assert all((x == y).all() for x, y in zip(got, want, strict=True))


def test_a_position_of_another_order_is_refused(store: Store) -> None:
    state = Loader(store, ORDER, resident=True).state_dict()
    other = Loader(store, Shuffled(batch_size=65, seed=3, block=32, buffer=256), resident=True)
    with pytest.raises(UserError, match="batch_size 64, and this loader has 65"):
        other.load_state_dict(state)


def test_balanced_weights_show_every_label_equally_often(store: Store) -> None:
    codes, _ = store.codes("perturbation")
    skewed = np.where(np.arange(900) < 30, 0, 1)
    order = Weighted(weights=balanced(skewed), batch_size=100, seed=1)
    rows = np.concatenate([np.concatenate(rows_of(Loader(store, order, resident=True)))] * 1)
    assert len(rows) == 900
    assert 0.42 < (rows < 30).mean() < 0.58
    assert balanced(np.array([-1, 0, 0, 1])).tolist() == [0, 0.5, 0.5, 1]
    assert (codes >= 0).all()


def test_weights_of_zero_are_never_drawn(store: Store) -> None:
    weights = np.zeros(900)
    weights[[7, 100]] = 1
    rows = np.concatenate(
        rows_of(Loader(store, Weighted(weights=weights, batch_size=90), resident=False))
    )
    assert set(rows) == {7, 100}


@pytest.mark.parametrize("resident", [True, False], ids=["in memory", "from disk"])
def test_sets_stand_beside_controls_of_their_context(store: Store, *, resident: bool) -> None:
    order = sets_of(store)
    pert, batch = order.perturbation, order.context
    seen = []
    loader = Loader(store, order, Output(dense=True, labels=("perturbation",)), resident=resident)
    for b in loader:
        sets = b.rows.reshape(-1, 2, 4)
        assert (pert[sets[:, 0]] == pert[sets[:, 0, :1]]).all()
        assert (pert[sets[:, 0]] != order.control).all()
        assert (pert[sets[:, 1]] == order.control).all()
        assert (batch[sets] == batch[sets[:, :1, :1]]).all()
        assert (b.x == store.read(b.rows).toarray()).all()
        assert (b.labels["perturbation"] == pert[b.rows]).all()
        seen.append(sets)
    sets = np.concatenate(seen)
    assert set(sets[:, 0].ravel()) == set(np.flatnonzero(pert != order.control))
    _, times = np.unique(sets[:, 1], return_counts=True)
    for context in (0, 1):
        mine = np.isin(np.unique(sets[:, 1]), np.flatnonzero(batch == context))
        assert np.ptp(times[mine]) <= 1


def test_pairs_are_drawn_from_few_places_at_a_time_and_are_all_seen(store: Store) -> None:
    order = sets_of(store, set_size=1, sets_per_batch=8, buffer=128, block=16)
    epoch = order.epoch(0, Partition(), store.n_cells)
    perturbed = [epoch.rows(i)[::2] for i in range(epoch.n_buffers)]
    whole = np.flatnonzero(order.perturbation != order.control)
    assert (np.sort(np.concatenate(perturbed)) == whole).all()
    assert max(len(set(rows // 16)) for rows in perturbed) <= 8  # 64 cells, 12 of a block perturbed
    assert any((np.diff(rows // 16) != 0).mean() > 0.5 for rows in perturbed)  # and mixed
    assert (epoch.rows(0) != order.epoch(1, Partition(), store.n_cells).rows(0)).any()


def test_a_context_without_controls_is_an_error_unless_others_may_help(store: Store) -> None:
    order = sets_of(store)
    context = order.context.copy()
    context[np.flatnonzero(order.perturbation != order.control)[:10]] = 2
    lonely = Sets(perturbation=order.perturbation, control=order.control, context=context)
    with pytest.raises(UserError, match="no control cell to match"):
        list(Loader(store, lonely, resident=True))
    helped = Sets(
        perturbation=order.perturbation, control=order.control, context=context, fallback=True
    )
    assert len(list(Loader(store, helped, resident=True))) > 0


def test_contexts_combine() -> None:
    a, b = np.array([0, 0, 1, -1]), np.array([1, 0, 1, 0])
    both = combine(a, b)
    assert both[3] == -1
    assert len(set(both[:3])) == 3


def test_a_plain_file_is_loaded_without_a_store(screen: Screen) -> None:
    output = Output(labels=("perturbation",))
    seen = []
    with Loader(screen.path, ORDER, output) as loader:
        for batch in loader:
            assert (batch.csr().toarray() == screen.x[batch.rows].toarray()).all()
            codes = screen.obs["perturbation"].cat.codes.to_numpy()[batch.rows]
            assert (batch.labels["perturbation"] == codes).all()
            seen.append(batch.rows.copy())
    assert sorted(np.concatenate(seen)) == list(range(900))


def test_anndata_and_matrices_are_loaded_too(screen: Screen) -> None:
    for cells in (ad.read_h5ad(screen.path), screen.x):
        for batch in Loader(cells, ORDER, Output(dense=True)):
            assert (batch.x == screen.x[batch.rows].toarray()).all()


def test_batches_become_dense_on_a_device(store: Store) -> None:
    for batch in Loader(store, ORDER, resident=False):
        want = store.read(batch.rows).toarray().astype(np.float32)
        assert (to_dense(batch, "cpu").numpy() == want).all()


def test_residence_is_said_aloud(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    Loader(store, ORDER)
    assert "kept in memory" in capsys.readouterr().err
    Loader(store, Shuffled(batch_size=8, shuffle="full"), resident=False)
    assert "decodes a whole chunk" in capsys.readouterr().err


def watch_reading(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """List the cells of every buffer that has been read from disk."""
    read: list[np.ndarray] = []
    fetch = BatchFactory.fetch

    def watched(self: BatchFactory, planned: Planned, pool: PriorityPool) -> Buffer:
        buffer = fetch(self, planned, pool)
        read.append(planned.rows)
        return buffer

    monkeypatch.setattr(BatchFactory, "fetch", watched)
    return read


def until(happened: Callable[[], bool]) -> bool:
    """Wait for another thread; False if nothing happens."""
    end = time.monotonic() + PATIENCE
    while not happened() and time.monotonic() < end:
        time.sleep(0.001)
    return happened()


def test_the_first_buffer_is_read_before_the_first_batch_is_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = watch_reading(monkeypatch)
    batches = iter(Loader(store, ORDER, resident=False))
    assert until(lambda: len(read) == 1)
    assert (next(batches).rows == read[0][:64]).all()


@pytest.mark.parametrize("dense", [False, True])
def test_buffers_are_read_ahead_over_the_border_of_epochs(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, dense: bool
) -> None:
    read = watch_reading(monkeypatch)
    loader = Loader(store, ORDER, Output(dense=dense), resident=False)
    seen = rows_of(loader)
    assert until(lambda: len(read) == 5)  # four buffers an epoch, and nobody has asked for another
    assert (rows_of(loader)[0] == read[4][:64]).all()
    loader.set_epoch(0)  # what was read ahead is of no use now, and does no harm
    again = rows_of(loader)
    assert all((x == y).all() for x, y in zip(again, seen, strict=True))


def test_threads_end_with_the_loader(store: Store) -> None:
    before = threading.active_count()
    loader = Loader(store, ORDER, Output(dense=True), resident=False)
    unfinished = iter(loader)
    next(unfinished)
    assert threading.active_count() > before
    del unfinished, loader
    assert until(lambda: threading.active_count() == before)


def test_waiting_is_measured(store: Store) -> None:
    loader = Loader(store, ORDER, resident=False)
    list(loader)
    assert loader.waiting.batches == len(loader)
    assert 0 < loader.waiting.share <= 1


def test_errors_on_threads_reach_the_consumer(store_path: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(store_path, tmp_path / "broken.zarr")
    shard = broken / "X" / "data" / "c" / "0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=r"X/data/c/0 is damaged: chunk 0 does not match"):
        list(Loader(broken, ORDER, resident=False))


@pytest.mark.parametrize("log1p", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_dense_batches_larger_than_the_cache_are_equal(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, own: bool, log1p: bool
) -> None:
    made = []
    for cached in (1 << 30, 0):
        monkeypatch.setattr("vcell.store.batching._CACHED", cached)
        output = Output(dense=True, own=own, log1p=log1p)
        loader = Loader(store, Shuffled(batch_size=100, seed=1), output, resident=False)
        made.append([batch.x.copy() for _ in range(2) for batch in loader])
    assert all((a == b).all() for a, b in zip(*made, strict=True))
    assert any(x.any() for x in made[0])


def test_a_short_last_buffer_leaves_memory_for_a_full_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    allocate = Buffers.allocate

    def watched(self: Buffers, size: int) -> np.ndarray:
        made.append(size)
        return allocate(self, size)

    monkeypatch.setattr(Buffers, "allocate", watched)
    loader = Loader(store, Shuffled(batch_size=50, block=50, buffer=800), resident=False)
    for _ in range(4):
        rows_of(loader)  # 800 cells, then 100
    assert len(made) <= 6  # ids and values of the buffer in use, one that is held, and the next
    assert min(made) > max(made) / 2
