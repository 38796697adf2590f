"""A pass that is interrupted goes on where it stopped, and what a pass gathered is used again."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from tests.kernels.conftest import draw
from vcell.data import open_cells
from vcell.passes import SPAN, CellRules, Reader, engine, resume
from vcell.passes.reducers import (
    CountHistogram,
    GeneMoments,
    GroupLogMoments,
    GroupSums,
    MarkedTotals,
    NormalizedMoments,
    RareEntries,
)
from vcell.passes.resume import Shelf

CELLS, GENES = 3 * SPAN + 500, 24
MITO = np.arange(GENES) < 3
RULES = CellRules(marks={"mito": MITO}, max_share={"mito": 0.6})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "cells.h5ad"
    cells = draw(CELLS, GENES, 0)
    anndata.AnnData(
        cells,
        obs=pd.DataFrame(index=np.arange(CELLS).astype(str)),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(GENES)]),
    ).write_h5ad(path)
    return path


@pytest.fixture(autouse=True)
def every_pass_is_long(monkeypatch):
    monkeypatch.setattr(resume, "SHORT", -1.0)


def reducers():
    groups = (np.arange(CELLS) % 5 - 1).astype(np.int32)
    return [
        NormalizedMoments(GENES, target_sum=1e4, linear=True),
        GeneMoments(GENES, codes=groups % 2, n_batches=2),
        CountHistogram(GENES, bins=10),
        RareEntries(GENES, 4),
        MarkedTotals(MITO, CELLS),
        GroupSums(GENES, groups, 4),
        GroupLogMoments(GENES, groups, 4, target_sum=1e4),
    ]


def everything(table, filled):
    """List all that was gathered; of entries only what rare genes have, as the others are cut."""
    rare = next((r for r in filled if isinstance(r, RareEntries)), None)
    cells = [table.totals, table.n_genes, table.kept, table.marked["mito"]]
    cells += [] if rare is None else [rare.dropped(), *rare.losses(CELLS)]
    return [*cells, *(a for r in filled if r is not rare for a in r.export())]


def read(path, folder, filled, **settings):
    with open_cells(path) as source:
        shelf = Shelf(source, RULES, folder) if folder else None
        reader = Reader(source, RULES, threads=2, label=None, shelf=shelf, **settings)
        return reader(filled)


def stop_at(monkeypatch, position, number=signal.SIGINT, times=1):
    """Let a signal arrive while the cell at `position` is worked on."""
    real = engine._within_spans

    def spans(start, count):
        if start <= position < start + count:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return real(start, count)

    monkeypatch.setattr(engine, "_within_spans", spans)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pass_ends_with_the_same_bits(path, tmp_path, monkeypatch, capsys, number):
    whole = reducers()
    wanted = everything(read(path, None, whole), whole)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        stop_at(patch, SPAN + 5000, number)
        with pytest.raises(KeyboardInterrupt):
            read(path, tmp_path, reducers(), max_nnz=30_000)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert f"the same command goes on from cell {2 * SPAN:,}" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1

    again = reducers()
    table = read(path, tmp_path, again, max_nnz=7_000)
    assert f"going on from cell {2 * SPAN:,}" in capsys.readouterr().err
    for got, want in zip(everything(table, again), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_killed_pass_goes_on_from_the_last_save(path, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "EVERY", 0.0)
    saves = []

    def die(self, position):
        real(self, position)
        saves.append(position)
        if len(saves) == 2:
            raise RuntimeError("killed")

    real = resume.PassState.reached
    with monkeypatch.context() as patch:
        patch.setattr(resume.PassState, "reached", die)
        with pytest.raises(RuntimeError):
            read(path, tmp_path, reducers())
    whole, again = reducers(), reducers()
    wanted = everything(read(path, None, whole), whole)
    seen = []
    monkeypatch.setattr(resume.PassState, "reached", lambda _, position: seen.append(position))
    got = everything(read(path, tmp_path, again), again)
    assert seen == [3 * SPAN]  # the spans before were not read again
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_was_gathered_is_not_read_again(path, tmp_path, monkeypatch, capsys):
    first = reducers()
    wanted = everything(read(path, tmp_path, first), first)
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]

    walks = []
    real = Reader._walk
    monkeypatch.setattr(Reader, "_walk", lambda *a: (walks.append(len(a[1])), real(*a)))
    again = reducers()
    got = everything(read(path, tmp_path, again), again)
    assert walks == []
    assert "not read again" in capsys.readouterr().err
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)

    other = [*reducers()[:3], NormalizedMoments(GENES, target_sum=1e3, linear=True)]
    read(path, tmp_path, other)
    assert walks == [1]  # only what is new is gathered
    with open_cells(path) as source:  # other rules: other cells
        Reader(source, label=None, shelf=Shelf(source, CellRules(), tmp_path))(reducers())
    assert walks == [1, 7]
    os.utime(path)  # another file as far as anybody knows
    read(path, tmp_path, reducers())
    assert walks == [1, 7, 7]


def test_damaged_entries_are_made_again(path, tmp_path):
    first, again = reducers(), reducers()
    wanted = everything(read(path, tmp_path, first), first)
    for entry in tmp_path.iterdir():
        entry.write_bytes(entry.read_bytes()[:200])
    for a, b in zip(everything(read(path, tmp_path, again), again), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_second_signal_and_a_short_pass_stop_at_once(path, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 10, times=2)
        with pytest.raises(KeyboardInterrupt):
            read(path, tmp_path, reducers())
    monkeypatch.setattr(resume, "SHORT", 1e9)
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        with pytest.raises(KeyboardInterrupt):
            read(path, tmp_path, reducers())
    read(path, tmp_path, reducers())
    assert list(tmp_path.iterdir()) == []  # nothing of this was worth a file


def test_a_cache_that_cannot_be_written_is_said_and_done_without(path, tmp_path, capsys):
    (tmp_path / "passes").write_text("a file is in the way")
    filled = reducers()
    table = read(path, tmp_path / "passes", filled)
    assert table.kept.any()
    assert capsys.readouterr().err.count("is not kept") == 1


def test_old_entries_make_room(path, tmp_path, monkeypatch):
    read(path, tmp_path, reducers())
    sizes = [p.stat().st_size for p in tmp_path.iterdir()]
    monkeypatch.setattr(resume, "ROOM", sum(sizes) // 2)
    read(path, tmp_path, [NormalizedMoments(GENES, target_sum=5e3, linear=True)])
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= sum(sizes) // 2 + max(sizes)


def test_other_threads_hear_no_signals(path, tmp_path):
    done: list[Path] = []
    thread = threading.Thread(target=lambda: (read(path, tmp_path, reducers()), done.append(path)))
    thread.start()
    thread.join()
    assert done == [path]
