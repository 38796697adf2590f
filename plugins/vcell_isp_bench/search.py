"""Search the fastest settings that keep the embedding: token budget, precision, compiling."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vcell import console
from vcell.errors import UserError
from vcell_isp_bench import measure, quality
from vcell_isp_bench.methods import make

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcell_isp_bench.methods import Method
    from vcell_isp_bench.work import IspBenchRun

LEAST_COSINE = 0.999  # to float32, of every cell


def search(
    bench: IspBenchRun, one: Callable[[IspBenchRun, Method, int], tuple[dict[str, Any], Any]]
) -> None:
    """Try settings with Optuna; what runs out of memory or changes embeddings is pruned.

    `one` measures a method, some times over, and returns what it found and the embeddings.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("--search needs optuna", hint="pip install 'vcell[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    exact = one(bench, make("packed", bench.model, bench.n_layers, bench.config), 1)[1]
    kinds = _possible(bench)
    tried: list[dict[str, Any]] = []

    def objective(trial: Any) -> float:
        budget = trial.suggest_int("token_budget", 1024, 262_144, log=True)
        kind = trial.suggest_categorical("method", kinds)
        config = replace(bench.config, token_budget=budget)
        row: dict[str, Any] = {"token_budget": budget, "method": kind}
        tried.append(row)
        try:
            method = make(kind, bench.model, bench.n_layers, config)
            found, out = one(bench, method, bench.config.repeats)
        except (torch.OutOfMemoryError, MemoryError):
            row["pruned"] = "out of memory"
            raise optuna.TrialPruned from None
        cosine = quality.closeness(out, exact)["cosine_min"]
        row |= {"cells_a_second": len(bench.cells) / found["seconds"], "cosine_min": cosine}
        if cosine < LEAST_COSINE:
            row["pruned"] = f"cosine {cosine:.5f}"
            raise optuna.TrialPruned
        return float(row["cells_a_second"])

    sampler = optuna.samplers.TPESampler(seed=bench.config.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with console.progress("searching", bench.config.search, "trials") as bar:
        study.optimize(
            objective, n_trials=bench.config.search, callbacks=[lambda *_: bar.advance()]
        )
    kept = [row for row in tried if "pruned" not in row]
    if not kept:
        raise UserError("every trial was pruned", hint="try a smaller model, or more trials")
    best = max(kept, key=lambda row: float(row["cells_a_second"]))
    columns = ["method", "token_budget", "cells_a_second", "cosine_min", "pruned"]
    rows = [[row.get(name) for name in columns] for row in tried]
    console.result(
        {"best": best, "trials": tried, "roof_gflops": measure.peak_rate(bench.device) / 1e9},
        f"{console.table(rows, columns)}\n\nbest: {best['method']}, --token-budget "
        f"{best['token_budget']}: {best['cells_a_second']:.3g} cells/s",
    )


def _possible(bench: IspBenchRun) -> list[str]:
    """Return the methods that can run here."""
    out = []
    for name in ("packed", "mixed_precision", "compile"):
        try:
            make(name, bench.model, bench.n_layers, bench.config)
        except UserError as error:
            console.say(f"{name} is left out: {error.message}")
        else:
            out.append(name)
    return out
