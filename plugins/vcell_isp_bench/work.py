"""Measure the methods one after another, and report the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell import console, outputs
from vcell.cores import cores
from vcell.data import open_cells
from vcell.data.detect import require_counts
from vcell.errors import UserError
from vcell.geneformer import checkpoint, perturbation
from vcell.geneformer.shifts import ShiftEngine
from vcell.gpu.accelerator import accelerator, chosen_device
from vcell.launch.plan import too_few_gpus
from vcell.metrics.rankings import overlap, spearman
from vcell_isp_bench import IspBench, measure, quality
from vcell_isp_bench.cells import open_bench
from vcell_isp_bench.methods import NAMES, Method, make
from vcell_isp_bench.text import text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_isp_bench.cells import IspBenchRun

SHIFT_CELLS, SHIFT_EVENTS = 2, 32
_TOP = 10  # the largest tenth of shifts is compared: by chance, a tenth of it is shared
_FEWEST = 2  # genes that a cell needs for a deletion


def run(path: Path | None, config: IspBench) -> None:
    """Run the command."""
    _check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = _device(config)
    checkpoint.require(config.model)
    if path is not None:
        _first_look(path, config)
    model = checkpoint.load(config.model, config.vocabulary, seed=config.seed)
    model.bert.to(device)
    bench = open_bench(path, model, device, config)
    if config.search:
        from vcell_isp_bench.search import search

        return search(bench, one)
    names = list(NAMES) if config.method == "all" else ["baseline", config.method]
    n = _processes(config)
    names = list(dict.fromkeys(names))
    rows, embedded = _shared(bench, names, n) if n > 1 else _measured(bench, names)
    if "not_run" in rows[0]:
        raise UserError(f"the baseline cannot run: {rows[0]['not_run']}")
    roof = n * measure.peak_rate(device)
    for row in rows:
        _judge(row, rows[0], bench, roof)
    _qualities(rows, embedded, bench)
    name = accelerator(device).name
    if device.type == "cpu":
        name += f", {torch.backends.cpu.get_cpu_capability()}"
    facts = {
        "device": name, "threads": _threads(config, n),
        "model": model.name, "synthetic": model.synthetic, "cells": len(bench.cells),
        "tokens": bench.n_tokens, "roof_gflops": roof / 1e9, "tokenise_seconds": bench.tokenise,
        "processes": n, "rows": rows,
    }  # fmt: skip
    if config.wandb:
        _log(rows, config)
    summary = text(facts)
    if config.output is not None:
        from vcell_isp_bench.page import write

        with console.printed_if_lost(facts, summary):
            write(config.output, facts)
        summary += f"\n\nwritten: {config.output}"
    console.result(facts, summary)
    return None


def _first_look(path: Path, config: IspBench) -> None:
    """Check what needs no model, since loading a model takes long."""
    with open_cells(path, config.layer) as source:
        require_counts(source, quiet=True)
        if config.label is None:
            return
        labels = np.asarray(source.obs(config.label).values).astype(str)
    if config.control is not None and config.control not in labels:
        raise UserError(f"{path.name}: no cell has {config.label} {config.control!r}")


def _processes(config: IspBench) -> int:
    """Return the number of processes: one per GPU, or as requested on a CPU."""
    return max(config.gpus, config.procs or 1, 1)


def _threads(config: IspBench, n: int) -> int:
    return torch.get_num_threads() if n == 1 else config.threads or max(1, cores() // n)


def _check(config: IspBench) -> None:
    if config.procs is not None and (config.gpus or config.device == "cuda"):
        raise UserError("--procs is for the CPU; on GPUs there is one process for each of --gpus")
    if config.search and _processes(config) > 1:
        raise UserError("--search looks for the settings of one process", hint="leave out --gpus")
    if config.output is not None:
        outputs.check(config.output, suffixes=(".html",), flag="")
    if config.control is not None and config.label is None:
        raise UserError("--control needs --label, the column it is a value of")
    if config.wandb:
        from importlib.util import find_spec

        if find_spec("wandb") is None:
            raise UserError("wandb is not installed", hint="pip install 'vcell[wandb]'")


def _device(config: IspBench) -> torch.device:
    have = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.gpus > have:
        raise too_few_gpus(config.gpus, have, hint="--device cpu")
    return chosen_device("cpu" if config.procs is not None else config.device)


def _measured(
    bench: IspBenchRun, names: list[str]
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float32]]]:
    """Time every method; a method that cannot run has a row with the reason."""
    rows: list[dict[str, Any]] = []
    embedded = {}
    repeats = bench.config.repeats
    with console.progress("measuring", len(names), "methods") as bar:
        for name in names:
            try:
                method = make(name, bench.model, bench.n_layers, bench.config)
                row, out = one(bench, method, repeats)
                embedded[name] = out
            except UserError as error:
                row = {"method": name, "not_run": error.message}
                console.warn(f"{name} is not measured: {error.message}")
            except torch.OutOfMemoryError:
                row = {"method": name, "not_run": "out of GPU memory"}
            except RuntimeError as error:  # such as a kernel that does not compile here
                row = {"method": name, "not_run": str(error).splitlines()[0]}
                console.warn(f"{name} is not measured: {row['not_run']}")
            rows.append(row)
            bar.advance(note=name)
    return rows, embedded


def _shared(
    bench: IspBenchRun, names: list[str], n: int
) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float32]]]:
    """Time every method in several processes at once."""
    from vcell_isp_bench import many

    rows, times, embedded = many.measured(bench, names, n)
    for row in rows:
        if "not_run" in row:
            console.warn(f"{row['method']} is not measured: {row['not_run']}")
        else:
            row.update(times[row["method"]].summary(n))
    return rows, embedded


def one(
    bench: IspBenchRun, method: Method, repeats: int
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Time one method and record what it ran."""
    seen = measure.watched(method, bench.cells, bench.device)
    timing, use, out = measure.timed(
        method, bench.cells, bench.device, repeats, cls=bench.model.readout == "cls"
    )
    return {**seen, **timing.summary(1), **use}, out


def _judge(row: dict[str, Any], baseline: dict[str, Any], bench: IspBenchRun, roof: float) -> None:
    """Add rates, the ratio to the baseline, and the share of the roofline reached."""
    if "not_run" in row:
        return
    shape, lengths = bench.model.shape, bench.cells.lengths
    flops = sum(shape.flops(int(n), row["layers"]) for n in lengths)
    if row["head"]:
        flops += 2 * bench.n_tokens * shape.d_model * (shape.n_tokens + shape.d_model)
    row |= {
        "cells_a_second": len(bench.cells) / row["seconds"],
        "tokens_a_second": bench.n_tokens / row["seconds"],
        "speed_up": baseline["seconds"] / row["seconds"],
        "speed_up_cpu": baseline["cpu"] / row["cpu"] if row["cpu"] else None,
        "roof_share": flops / row["model"] / roof,
    }
    if row["speed_up"] < 1:
        row["slower"] = True


def _qualities(
    rows: list[dict[str, Any]], embedded: dict[str, NDArray[np.float32]], bench: IspBenchRun
) -> None:
    """Add similarity to the baseline, quality by labels, and fidelity of shifts."""
    exact = _shifts(bench, bench.model.bert) if bench.config.shifts else np.zeros(0)
    if bench.config.shifts and not len(exact):
        console.say("shifts are not compared: the first cells have one gene each")
    for row in rows:
        out = embedded.get(row["method"])
        if out is None:
            continue
        row.update(quality.closeness(out, embedded["baseline"]))
        if bench.labels is not None:
            row["quality"] = quality.by_labels(out, bench.labels, bench.config.control)
        if len(exact) and row["method"] in ("packed", "mixed_precision", "quantization"):
            method = make(row["method"], bench.model, bench.n_layers, bench.config)
            found = _shifts(bench, method.bert)
            row["shift_spearman"] = spearman(found, exact)
            top = max(len(exact) // _TOP, 1)
            row["shift_top"] = overlap(found, exact, top) / top


def _shifts(bench: IspBenchRun, bert: Any) -> NDArray[np.float64]:
    """Return the shifts of some deletions towards the mean of all cells."""
    from dataclasses import replace

    model = replace(bench.model, bert=bert)
    readout = "cls" if model.readout == "cls" else "mean"
    plain = ShiftEngine(model, bench.n_layers, readout)  # type: ignore[arg-type]
    some = [bench.cells[i] for i in range(min(len(bench.cells), 8))]
    cells = [plain.embed(cell) for cell in some[2:] or some]
    goal = np.stack(cells).astype(np.float64).mean(0)
    engine = ShiftEngine(model, bench.n_layers, readout, {"goal": np.asarray(goal)})  # type: ignore[arg-type]
    out = [np.zeros(0)]
    for cell in some[:SHIFT_CELLS]:
        if len(cell) - engine.frame.first - engine.frame.last < _FEWEST:
            continue  # without its only gene, the cell is empty
        last = len(cell) - engine.frame.last
        places = np.unique(np.linspace(engine.frame.first, last - 1, SHIFT_EVENTS).astype(int))
        copies = perturbation.single("delete", len(cell), places, engine.frame)
        out.append(engine.shifts(cell, len(cell), copies).to_state["goal"])
    return np.concatenate(out)


def _log(rows: list[dict[str, Any]], config: IspBench) -> None:
    import wandb

    log = wandb.init(project="vcell-isp-bench", config={"model": config.model})
    for row in rows:
        plain = {f"{row['method']}/{k}": v for k, v in row.items() if isinstance(v, int | float)}
        log.log(plain)
    log.finish()
