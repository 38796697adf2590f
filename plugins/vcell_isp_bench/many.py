"""Time methods on several GPUs, or in several CPU processes, at the same time.

Each process has its own model and a share of the cells, balanced by cost. The processes only
synchronise their start. The time of a repeat is that of the slowest process.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell import console
from vcell.cores import cores
from vcell.errors import RunFailed, UserError
from vcell.geneformer import checkpoint
from vcell_isp_bench import measure
from vcell_isp_bench.measure import Timing
from vcell_isp_bench.methods import make

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from numpy.typing import NDArray

    from vcell.geneformer.tokens import TokenCells
    from vcell.nn.bert import BertShape
    from vcell_isp_bench import IspBench
    from vcell_isp_bench.cells import IspBenchRun

_PATIENCE = 3600.0  # seconds to wait for the other processes


def shares(lengths: NDArray[np.int64], shape: BertShape, n: int) -> list[NDArray[np.int64]]:
    """Assign cells to processes: the most expensive first, each to the least loaded process."""
    load, assigned = [0.0] * n, [[] for _ in range(n)]  # type: list[float], list[list[int]]
    for cell in np.argsort(-lengths, kind="stable").tolist():
        to = load.index(min(load))
        load[to] += shape.flops(int(lengths[cell]))
        assigned[to].append(cell)
    return [np.array(sorted(cells), np.int64) for cells in assigned]


def measured(
    bench: IspBenchRun, names: list[str], n: int
) -> tuple[list[dict[str, Any]], dict[str, Timing], dict[str, NDArray[np.float32]]]:
    """Time every method in `n` processes; return rows, times and embeddings of all cells."""
    if len(bench.cells) < n:
        have = console.count(len(bench.cells), "cell")
        raise UserError(f"{have} cannot be shared by {n} processes")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(n), context.Queue()
    assigned = shares(bench.cells.lengths, bench.model.shape, n)
    workers = [
        context.Process(
            target=_work, daemon=True,
            args=(rank, n, bench.config, bench.device.type, bench.cells.take(own), names, barrier,
                  results),
        )
        for rank, own in enumerate(assigned)
    ]  # fmt: skip
    for worker in workers:
        worker.start()
    try:
        found = _gathered(workers, results, len(names) * n)
    finally:
        for worker in workers:
            worker.terminate() if worker.exitcode is None else None
            worker.join()
    return _together(found, names, assigned)


def _gathered(workers: list[Any], results: Any, n: int) -> dict[tuple[str, int], Any]:
    """Wait for the results of all processes and methods; fail if a process dies."""
    found: dict[tuple[str, int], Any] = {}
    with console.progress("measuring", n, "results") as bar:
        while len(found) < n:
            try:
                name, rank, result = results.get(timeout=1.0)
            except queue.Empty:
                dead = [i for i, w in enumerate(workers) if w.exitcode not in (None, 0)]
                if dead:
                    raise RunFailed(f"process {dead[0]} of {len(workers)} died") from None
                continue
            found[name, rank] = result
            bar.advance(note=name)
    return found


def _work(
    rank: int, n: int, config: IspBench, kind: str, cells: TokenCells, names: list[str],
    barrier: Barrier, results: Any,
) -> None:  # fmt: skip
    """Run one of the processes."""
    console.settings.verbosity = console.QUIET
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(config.threads or max(1, cores() // n))
    model = checkpoint.load(config.model, config.vocabulary, seed=config.seed)
    model.bert.to(device)
    for name in names:
        why, method = "", None
        try:
            method = make(name, model, model.shape.n_layers - 1, config)
            seen = measure.watched(method, cells, device)
        except UserError as error:
            why = error.message
        except RuntimeError as error:  # such as out of memory, or a kernel that does not compile
            why = str(error).splitlines()[0]
            barrier.abort()
        try:
            barrier.wait(_PATIENCE)
            if method is None or why:
                results.put((name, rank, {"not_run": why}))
                continue
            timing, use, out = measure.timed(
                method, cells, device, config.repeats, cls=model.readout == "cls",
                before=lambda: barrier.wait(_PATIENCE),
            )  # fmt: skip
            results.put((name, rank, (seen | use, timing, out)))
        except threading.BrokenBarrierError:
            results.put((name, rank, {"not_run": why or "another process failed"}))
            time.sleep(1.0)  # until all processes have seen it
            barrier.reset()
    results.close()
    results.join_thread()


def _together(
    found: dict[tuple[str, int], Any], names: list[str], assigned: list[NDArray[np.int64]]
) -> tuple[list[dict[str, Any]], dict[str, Timing], dict[str, NDArray[np.float32]]]:
    """Combine the results of the processes: the slowest time, and the sum of CPU seconds."""
    rows, times, embedded = [], {}, {}
    for name in names:
        each = [found[name, rank] for rank in range(len(assigned))]
        failed = next((one for one in each if isinstance(one, dict)), None)
        if failed is not None:
            rows.append({"method": name, **failed})
            continue
        parts = {key: np.array([getattr(t, key) for _, t, _ in each])
                 for key in ("copy", "model", "harness", "cpu")}  # fmt: skip
        slowest = (parts["copy"] + parts["model"] + parts["harness"]).argmax(0)
        repeats = np.arange(len(slowest))
        chosen = {
            key: parts[key][slowest, repeats].tolist() for key in ("copy", "model", "harness")
        }
        times[name] = Timing(**chosen, cpu=parts["cpu"].sum(0).tolist())
        out = np.empty((sum(map(len, assigned)), each[0][2].shape[1]), np.float32)
        for own, (_, _, embeddings) in zip(assigned, each, strict=True):
            out[own] = embeddings
        embedded[name] = out
        row = dict(each[0][0])
        row["memory"] = max(one["memory"] for one, _, _ in each)
        rows.append(row)
    return rows, times, embedded
