"""Run a screen: plan it, start the processes, compute shards, merge and check them."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell import console, outputs
from vcell.config import provenance
from vcell.cores import cores
from vcell.data.fingerprint import fingerprint
from vcell.errors import UserError
from vcell.geneformer.shifts import ShiftEngine
from vcell.launch import join_run, launch, make_plan, resume_run
from vcell.runs import Run
from vcell.train.command import settings_of_run
from vcell_isp import IspRun, planning, shards
from vcell_isp.design import IspDesign
from vcell_isp.model import ModelReader, load, require
from vcell_isp.shards import Shard, ShardFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.launch import Plan

TABLE = "shifts.parquet"
STATES = "states.npz"


def run(cells: Path | None, config: IspRun) -> None:
    """Run the command."""
    plan = make_plan(config)
    if config.export_upstream_pickles is not None:
        from vcell_isp.upstream import check

        check(config.export_upstream_pickles)
    begun = _resumed(config, plan) if config.resume else _started(cells, config, plan)
    if begun is None:
        return
    this, plan = begun
    saved = settings_of_run(IspRun, this)
    console.say(f"run directory: {this.path}")
    launch("vcell_isp.work:main", this, plan)
    if plan.leads:
        folder = config.export_upstream_pickles or saved.export_upstream_pickles
        _print_result(Run.open(this.path), folder)


def _resumed(config: IspRun, plan: Plan) -> tuple[Run, Plan]:
    this = Run.open(config.resume or "latest", root=config.runs)
    if not (this.path / "design.json").is_file():
        raise UserError(f"{this.name} is not a run of vcell isp", hint="vcell runs list")
    return this, resume_run(this, plan)


def _started(cells: Path | None, config: IspRun, plan: Plan) -> tuple[Run, Plan] | None:
    """Make the run directory, after all checks; a dry run prints the estimate, and makes none."""
    if cells is None:
        raise UserError("no file of cells is named", hint="vcell isp run CELLS --model DIR")
    outputs.check_folder(config.runs)
    require(config)
    planning.first_look(cells, config)
    reader = load(config, torch.device("cpu"))
    design = planning.design(cells, config, reader.model)
    estimate = _estimate(design, reader, config)
    if config.dry_run:
        console.result(estimate, _estimate_text(estimate))
        return None
    if not estimate["events"]:
        raise UserError(
            "there is nothing to perturb: no cell has the requested genes",
            hint="look at --genes, --anchor and --start",
        )
    path = cells.absolute()
    data = [{"path": str(path), "fingerprint": fingerprint(path)}]

    def create(name: str | None) -> Run:
        return Run.create(
            config.runs, "isp-run", config=dataclasses.asdict(config), provenance=provenance(),
            seed=config.seed, data=data, name=name, begin=design.save,
        )  # fmt: skip

    return join_run(config.runs, plan, create)


def main(run: Run) -> None:
    """Compute this process's shards; rank 0 measures states first, and merges at the end."""
    config = settings_of_run(IspRun, run)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(run)
    reader, design = load(config, device), IspDesign.load(run.path)
    states = _states(run, design, reader, leads=rank == 0)
    engine = ShiftEngine(reader.model, reader.n_layers, reader.readout, states)
    stages: list[tuple[ShardFolder, list[Shard]]] = []
    for name, stage in _stages(run, config, design, engine, leads=rank == 0):
        pieces = shards.cut(
            stage, stage.counts(), config.shard, reader.model.shape, reader.n_layers
        )
        folder = ShardFolder(run.path, name)
        log = run.log if rank == 0 else None
        shards.compute(stage, engine, shards.share(pieces, rank, world), folder, rank=rank, log=log)
        shards.wait_for_all(folder, pieces)
        stages.append((folder, pieces))
    if rank == 0:
        _finish(run, config, design, engine, reader, stages)


def _stages(
    run: Run, config: IspRun, design: IspDesign, engine: ShiftEngine, *, leads: bool
) -> Any:
    """Yield the events to compute: the whole design, or what a first-order screen selects."""
    if config.screen == "exact":
        yield "", design
        return
    from vcell_isp import firstorder

    yield from firstorder.stages(run, config, design, engine, leads=leads)


def _device(run: Run) -> torch.device:
    if run.meta.get("device") != "cuda":
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1:  # the processes share the cores
            torch.set_num_threads(max(1, cores() // world))
        return torch.device("cpu")
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(where)
    return where


def _states(
    run: Run, design: IspDesign, reader: ModelReader, *, leads: bool
) -> dict[str, NDArray[np.float64]]:
    """Return the mean embedding of each target state; rank 0 measures them once."""
    if not design.targets:
        return {}
    path = run.path / STATES
    if not path.is_file():
        if not leads:
            while not path.is_file():
                time.sleep(0.2)
        else:
            _measure_states(run, design, reader)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[f"mean_{i}"] for i, name in enumerate(design.targets)}


def _measure_states(run: Run, design: IspDesign, reader: ModelReader) -> None:
    """Embed the cells of the start and of every target, and save means and cells."""
    engine = ShiftEngine(reader.model, reader.n_layers, reader.readout)
    chosen = np.flatnonzero(design.state >= 0)
    embedded = np.empty((len(chosen), reader.model.shape.d_model), np.float32)
    with console.progress("embedding states", len(chosen)) as bar:
        for row, cell in enumerate(chosen):
            embedded[row] = engine.embed(design.cells[int(cell)])
            bar.advance()
    arrays: dict[str, Any] = {"cells": embedded, "state": design.state[chosen]}
    for i, name in enumerate(design.targets):
        these = design.state[chosen] == design.states.index(name)
        arrays[f"mean_{i}"] = embedded[these].mean(0, dtype=np.float64)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)

    run.save_file(STATES, write)


def _finish(
    run: Run,
    config: IspRun,
    design: IspDesign,
    engine: ShiftEngine,
    reader: ModelReader,
    stages: list[tuple[ShardFolder, list[Shard]]],
) -> None:
    """Merge the shards, write the exports, run the checks, and finish the run."""
    known = reader.model.vocabulary
    names = {"ensembl_id": known.ids, "symbol": known.symbols}
    rows = 0

    def write(path: Path) -> None:
        nonlocal rows
        rows = shards.merge(stages, path, names, design)

    run.save_file(TABLE, write)
    summary: dict[str, Any] = {
        "table": TABLE, "events": rows, "cells": int(design.start.sum()),
        "model": reader.text, "synthetic": reader.model.synthetic,
        "checksum": reader.model.checksum, "n_layers": reader.n_layers,
        "readout": reader.readout, "operation": design.operation,
    }  # fmt: skip
    if config.gates:
        from vcell_isp import gates

        summary["gates"] = gates.check(run, config, design, engine, reader)
    run.finish("done", **summary)


def _print_result(run: Run, pickles: Path | None) -> None:
    """Print the result, after writing files for upstream's tools into a folder."""
    from vcell_isp import gates

    summary = dict(run.meta.get("summary") or {})
    path = run.path / TABLE
    events, cells = summary.get("events", 0), summary.get("cells", 0)
    lines = [f"{console.count(events, 'event')} in {console.count(cells, 'cell')}: {path}"]
    if pickles is not None:
        from vcell_isp.upstream import export

        n = export(run, pickles)
        lines.append(f"{console.count(n, 'file')} for upstream's tools: {pickles}")
    if summary.get("gates"):
        lines += ["", gates.text(summary["gates"])]
    lines += ["", f"next: vcell isp stats {run.name}"]
    console.result({"run": str(run.path), **summary}, "\n".join(lines))


def _estimate(design: IspDesign, reader: ModelReader, config: IspRun) -> dict[str, Any]:
    """Count the events; in a dry run also time a few of them."""
    counts = design.counts()
    events = int(counts.sum())
    found: dict[str, Any] = {
        "cells": len(counts), "events": events,
        "genes": _n_genes(design), "eligible": _n_eligible(design, config),
        "not_run": design.genes.missing,
        "shards": -(-events // config.shard),
    }  # fmt: skip
    nulls = max((len(many) for many in design.genes.controls.values()), default=0)
    found["least_p"] = 1 / (1 + (nulls or min(100, max(found["genes"] - 1, 1))))
    if config.dry_run and events:
        found |= _timed(design, reader, counts, config)
    return found


def _n_genes(design: IspDesign) -> int:
    individual = design.genes.individual
    if design.genes.how == "group":
        return 1
    cells = design.cells.take(design.order)
    inner = np.unique(cells.tokens)
    first = 4 if design.frame.first else 2
    inner = inner[inner >= first]
    return len(inner if individual is None else individual)


def _n_eligible(design: IspDesign, config: IspRun) -> int:
    """Count genes in enough cells for a test: ten, and in two donors each if these are known."""
    cells = np.flatnonzero(design.start)
    lengths = design.cells.lengths[cells]
    tokens = design.cells.take(cells).tokens.astype(np.int64)
    n = int(tokens.max(initial=0)) + 1
    enough = np.bincount(tokens, minlength=n) >= 10
    if design.donors:
        donor = np.repeat(design.donor[cells].astype(np.int64), lengths)
        known = donor >= 0
        place = tokens[known] * len(design.donors) + donor[known]
        seen = np.bincount(place, minlength=n * len(design.donors)).reshape(n, -1)
        enough &= (seen >= config.min_cells_per_donor).sum(1) >= 2
    enough[: 4 if design.frame.first else 2] = False
    individual = design.genes.individual
    if individual is not None:
        return int(enough[individual[individual < n]].sum())
    return int(enough.sum())


def _timed(
    design: IspDesign, reader: ModelReader, counts: NDArray[np.int64], config: IspRun
) -> dict[str, Any]:
    """Time a few events of a cell of median length, and scale by the cost of each cell."""
    fake = {name: np.ones(reader.model.shape.d_model) for name in design.targets}
    engine = ShiftEngine(reader.model, reader.n_layers, reader.readout, fake)
    pieces = shards.cut(design, counts, config.shard, reader.model.shape, reader.n_layers)
    total = sum(piece.cost for piece in pieces)
    middle = design.order[len(counts) // 2]
    cell = int(middle if len(design.events(int(middle))) else design.order[counts.argmax()])
    piece = shards.Slice(cell, 0, min(32, len(design.events(cell))))
    shards.measured(design, engine, piece)
    started = time.monotonic()
    shards.measured(design, engine, piece)
    elapsed = time.monotonic() - started
    length = int(design.cells.lengths[cell])
    shape, n_layers = reader.model.shape, reader.n_layers
    cost = piece.stop * shape.flops(length, max(n_layers - 1, 1)) + 2 * shape.flops(
        length, n_layers
    )
    seconds = elapsed * total / cost
    return {"seconds": round(seconds, 1), "events_a_second": round(counts.sum() / seconds, 2)}


def _estimate_text(found: dict[str, Any]) -> str:
    rows: list[tuple[str, str]] = [
        ("cells to perturb", f"{found['cells']:,}"), ("genes", f"{found['genes']:,}"),
        ("genes in enough cells for a test", f"{found['eligible']:,}"),
        ("events", f"{found['events']:,}"), ("shards", f"{found['shards']:,}"),
        ("lowest possible rank p", f"{found['least_p']:.3g}"),
    ]  # fmt: skip
    if "seconds" in found:
        rows.append(("time, one process here", console.duration(found["seconds"])))
        rows.append(("events a second", f"{found['events_a_second']:,.4g}"))
    rows += [(f"not run: {name}", why) for name, why in list(found["not_run"].items())[:20]]
    return "\n".join(f"{name:<34} {value}" for name, value in rows)
