"""The shards of a run: each is computed once, by one process, and written atomically.

The events of all cells, longest cells first, form one sequence; shard k has events k * size to
(k + 1) * size. A shard is a Parquet file with a manifest, whose checksum shows that the file is
complete. A shard does not depend on earlier ones, so the table of a resumed run equals that of an
uninterrupted one bit for bit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vcell import console, outputs
from vcell.errors import RunFailed
from vcell.runs import files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.geneformer.shifts import ShiftEngine
    from vcell.nn.bert import BertShape
    from vcell_isp.design import IspDesign

FOLDER = "shards"
_PATIENCE = 24 * 3600.0  # seconds without a new shard after which a waiting process gives up


@dataclass(frozen=True)
class Slice:
    """Consecutive events of one cell."""

    cell: int
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """Consecutive events, and their cost."""

    number: int
    slices: tuple[Slice, ...]
    cost: float

    @property
    def n_events(self) -> int:
        """The number of events."""
        return sum(s.stop - s.start for s in self.slices)


def cut(
    design: IspDesign, counts: NDArray[np.int64], size: int, shape: BertShape, n_layers: int
) -> list[Shard]:
    """Divide the events of all cells into shards of `size` events."""
    bounds = np.concatenate([[0], np.cumsum(counts)])
    lengths = design.cells.lengths
    shards = []
    for number, low in enumerate(range(0, int(bounds[-1]), size)):
        high = min(low + size, int(bounds[-1]))
        first = int(np.searchsorted(bounds, low, side="right")) - 1
        slices, cost, place = [], 0.0, first
        while place < len(counts) and bounds[place] < high:
            start = max(low - int(bounds[place]), 0)
            stop = min(high - int(bounds[place]), int(counts[place]))
            if start < stop:
                cell = int(design.order[place])
                slices.append(Slice(cell, start, stop))
                length = int(lengths[cell])
                cost += (stop - start) * shape.flops(length, max(n_layers - 1, 1))
                cost += 2 * shape.flops(length, n_layers)
            place += 1
        shards.append(Shard(number, tuple(slices), cost))
    return shards


def share(shards: list[Shard], rank: int, world: int) -> list[Shard]:
    """Return the shards of one process: the most expensive first, each to the least loaded."""
    load = [0.0] * world
    own = []
    for shard in sorted(shards, key=lambda s: (-s.cost, s.number)):
        to = load.index(min(load))
        load[to] += shard.cost
        if to == rank:
            own.append(shard)
    return sorted(own, key=lambda s: s.number)


class ShardFolder:
    """The shards of a run on disk."""

    def __init__(self, run_folder: Path, stage: str = "") -> None:
        self.folder = run_folder / f"{FOLDER}{stage}"
        self.folder.mkdir(exist_ok=True)

    def table(self, shard: Shard) -> Path:
        """Return the path of a shard's table."""
        return self.folder / f"{shard.number:06d}.parquet"

    def manifest(self, shard: Shard) -> Path:
        """Return the path of a shard's manifest."""
        return self.folder / f"{shard.number:06d}.json"

    def is_done(self, shard: Shard) -> bool:
        """Return whether a shard exists and is complete."""
        path = self.manifest(shard)
        if not path.is_file() or not self.table(shard).is_file():
            return False
        known = files.read_json(path)
        complete = known.get("sha256") == files.checksum(self.table(shard))
        return complete and known.get("events") == shard.n_events

    def write(self, shard: Shard, table: pa.Table, seconds: float, rank: int) -> None:
        """Write the table of a shard, then its manifest."""
        path = self.table(shard)
        with outputs.whole(path) as aside:
            pq.write_table(table, aside, compression="zstd")
        outputs.write_json(
            self.manifest(shard),
            {
                "number": shard.number, "events": shard.n_events, "sha256": files.checksum(path),
                "seconds": round(seconds, 3), "rank": rank,
            },
        )  # fmt: skip


def mixed(shards: list[Shard]) -> list[Shard]:
    """Return the most expensive shard first, to run out of memory at once, then a mixture.

    Shards are numbered from long cells to short ones, and the cost of their events is known only
    roughly. In an order whose every prefix is spread over all lengths (multiples of the golden
    ratio), the estimate of the remaining time is right from early on.
    """
    if not shards:
        return []
    first = max(shards, key=lambda shard: shard.cost)
    others = [shard for shard in shards if shard is not first]
    return [first, *sorted(others, key=lambda s: (s.number * 0.6180339887498949) % 1.0)]


def compute(
    design: IspDesign,
    engine: ShiftEngine,
    shards: list[Shard],
    folder: ShardFolder,
    *,
    rank: int = 0,
    log: Any = None,
) -> None:
    """Compute the missing shards, and show progress and the remaining time."""
    waiting = [shard for shard in shards if not folder.is_done(shard)]
    if len(waiting) < len(shards):
        console.say(
            f"there already: {len(shards) - len(waiting):,} of "
            f"{console.count(len(shards), 'shard')}"
        )
    waiting = mixed(waiting)
    total = sum(shard.n_events for shard in waiting)
    cost = sum(shard.cost for shard in waiting) or 1.0
    with console.progress("perturbing", total, "events") as bar:
        for shard in waiting:
            started = time.monotonic()
            parts = []
            for piece in shard.slices:
                parts.append(measured(design, engine, piece))
                # weighted by cost, so that the remaining time is right
                bar.advance(total * shard.cost / cost / len(shard.slices))
            table = pa.concat_tables(parts)
            folder.write(shard, table, time.monotonic() - started, rank)
            if log is not None:
                log("shard", step=shard.number, events=shard.n_events)


def measured(design: IspDesign, engine: ShiftEngine, piece: Slice) -> pa.Table:
    """Return the table of some events of one cell."""
    events = design.events(piece.cell).cut(piece.start, piece.stop)
    columns: dict[str, list[NDArray[Any]]] = {}
    for copies, genes in events.parts:
        shifts = engine.shifts(events.tokens, events.length, copies)
        rank = _rank(events.tokens, genes, events.length, design.frame.first)
        values: dict[str, NDArray[Any]] = {
            "cell": np.full(len(genes), design.cells.rows[piece.cell], np.int64),
            "gene": genes.astype(np.int32),
            "rank": rank,
            "length": np.full(len(genes), events.length, np.int32),
            "donor": np.full(len(genes), design.donor[piece.cell], np.int32),
            "distance": shifts.distance,
            **{f"shift_{name}": value for name, value in shifts.to_state.items()},
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()})


def _rank(
    tokens: NDArray[np.int32], genes: NDArray[np.int64], length: int, first: int
) -> NDArray[np.int32]:
    """Return each gene's rank in its cell, from 0; -1 for genes it lacks and for groups."""
    place = np.full(int(max(tokens.max(initial=0), genes.max(initial=0))) + 2, -1, np.int32)
    place[tokens[:length]] = np.arange(length, dtype=np.int32) - first
    return np.where(genes < 0, -1, place[genes]).astype(np.int32)


def wait_for_all(folder: ShardFolder, shards: list[Shard]) -> None:
    """Wait until the other processes have finished."""
    last_news, missing = time.monotonic(), list(shards)
    while missing:
        left = [shard for shard in missing if not folder.manifest(shard).is_file()]
        if len(left) < len(missing):
            last_news, missing = time.monotonic(), left
        elif time.monotonic() - last_news > _PATIENCE:
            never = console.count(len(left), "shard")
            raise RunFailed(f"{never} of other processes never came")
        else:
            time.sleep(0.2)


def merge(
    folders: list[tuple[ShardFolder, list[Shard]]],
    path: Path,
    names: dict[str, NDArray[Any]],
    design: IspDesign,
) -> int:
    """Write all shards as one Parquet file with names, donors and types; return its rows."""
    writer, rows = None, 0
    try:
        for folder, shards in folders:
            for shard in shards:
                table = _named(pq.read_table(folder.table(shard)), names, design)
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                writer.write_table(table)
                rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _named(table: pa.Table, names: dict[str, NDArray[Any]], design: IspDesign) -> pa.Table:
    gene = table["gene"].to_numpy()
    for at, (name, values) in enumerate(names.items(), 2):
        codes = pa.array(np.where(gene < 0, 0, gene).astype(np.int32), mask=gene < 0)
        text = pa.DictionaryArray.from_arrays(codes, pa.array(values.tolist()))
        table = table.add_column(at, name, text.cast(pa.string()))
    where = table.column_names.index("donor")
    donor = _labelled(table["donor"].to_numpy(), design.donors)
    if design.kinds:
        place = np.searchsorted(design.cells.rows, table["cell"].to_numpy())
        kind = _labelled(design.kind[place], design.kinds)
        table = table.add_column(where + 1, "cell_type", kind)
    table = table.set_column(where, "donor", donor)
    cosine = pa.array(1.0 - table["distance"].to_numpy())
    return table.add_column(table.column_names.index("distance"), "cosine", cosine)


def _labelled(codes: NDArray[Any], labels: tuple[str, ...]) -> pa.Array:
    """Return the label of each code, null if the code is negative."""
    known = pa.array(np.maximum(codes, 0).astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(known, pa.array([*labels] or [""])).cast(pa.string())
