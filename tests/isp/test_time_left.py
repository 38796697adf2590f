"""The remaining time is accurate to a quarter after a twentieth of the events."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from vcell_isp import shards
from vcell_isp.design import IspDesign, PerturbedGenes

from vcell import console
from vcell.geneformer.perturbation import CellBounds
from vcell.geneformer.shapes import SHAPES
from vcell.geneformer.tokens import TokenCells

SHAPE = SHAPES["gf-6L-10M-i2048"]


def design_of(lengths):
    rng = np.random.default_rng(0)
    tokens = [rng.choice(np.arange(2, 25_000), n, replace=False).astype(np.int32) for n in lengths]
    zeros = np.zeros(len(lengths), np.int64)
    cells = TokenCells(
        np.arange(len(lengths)), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(tokens), zeros, zeros,
    )  # fmt: skip
    none = np.full(len(lengths), -1, np.int32)
    return IspDesign(
        cells, np.ones(len(lengths), bool), none, none, (), (), (), "delete", 1, False,
        CellBounds(0, 0, 2048), PerturbedGenes("all"),
    )  # fmt: skip


def quadratic(length):
    return SHAPE.flops(length, 5)


def linear(length):
    """Cost of a device bound by memory, unlike the estimate's cost."""
    return float(length)


@pytest.mark.parametrize("seconds", [quadratic, linear])
@pytest.mark.parametrize("spread", ["mixed", "one long cell"])
def test_a_twentieth_of_the_events_predicts_the_remaining_time(
    monkeypatch, tmp_path, seconds, spread
):
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(6.3, 0.8, 40), 30, 2048).astype(int)
    if spread == "one long cell":
        lengths = np.minimum(lengths, 400)
        lengths[0] = 2048
    design, clock, seen = design_of(lengths), [0.0], []

    def measured(design, engine, piece):
        clock[0] += (piece.stop - piece.start) * seconds(int(design.cells.lengths[piece.cell]))
        return pa.table({"cell": [piece.cell]})

    class Bar:
        done = 0.0

        def advance(self, n, note=""):
            self.done += n
            seen.append((self.done, clock[0]))

    @contextmanager
    def progress(words, total, unit):
        yield Bar()

    monkeypatch.setattr(shards, "measured", measured)
    monkeypatch.setattr(console, "progress", progress)
    pieces = shards.cut(design, design.counts(), 100, SHAPE, 5)
    shards.compute(design, None, pieces, shards.ShardFolder(tmp_path))
    total, end = seen[-1]
    assert total == pytest.approx(lengths.sum())
    done, spent = next(found for found in seen if found[0] >= 0.05 * total)
    left = (total - done) * spent / done  # as the bar has it
    assert left == pytest.approx(end - spent, rel=0.25)


def test_every_shard_is_computed_once_and_the_most_expensive_first():
    design = design_of([500, 300, 200, 90, 40])
    pieces = shards.cut(design, design.counts(), 50, SHAPE, 5)
    order = shards.mixed(pieces)
    assert sorted(p.number for p in order) == [p.number for p in pieces]
    assert order[0].cost == max(p.cost for p in pieces)
    assert shards.mixed([]) == []
