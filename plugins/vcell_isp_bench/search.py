"""Search for the fastest settings that preserve the embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vcell import console
from vcell.errors import UserError
from vcell_isp_bench import measure, quality
from vcell_isp_bench.methods import packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcell.nn.bert import PrecisionName
    from vcell_isp_bench.cells import IspBenchRun
    from vcell_isp_bench.methods import Method

LEAST_COSINE = 0.999  # to the float32 embedding, of every cell


def search(
    bench: IspBenchRun, one: Callable[[IspBenchRun, Method, int], tuple[dict[str, Any], Any]]
) -> None:
    """Try settings with Optuna; trials that run out of memory or change embeddings are pruned.

    `one` measures a method several times, and returns its row and the embeddings.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("--search needs optuna", hint="pip install 'vcell[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    single = replace(bench.config, token_budget=64)  # one cell per pass, which always fits
    exact = one(bench, packed(bench.model, bench.n_layers, single), 1)[1]
    precisions, compiling = _possible(bench)
    tried: list[dict[str, Any]] = []

    def objective(trial: Any) -> float:
        budget = trial.suggest_int("token_budget", 1024, 262_144, log=True)
        precision = trial.suggest_categorical("precision", precisions)
        compiled = trial.suggest_categorical("compile", compiling)
        config = replace(bench.config, token_budget=budget)
        row: dict[str, Any] = {"token_budget": budget, "precision": precision, "compile": compiled}
        tried.append(row)
        try:
            method = packed(bench.model, bench.n_layers, config, precision, compiled=compiled)
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
    valid = [row for row in tried if "pruned" not in row]
    if not valid:
        raise UserError("every trial was pruned", hint="try a smaller model, or more trials")
    best = max(valid, key=lambda row: float(row["cells_a_second"]))
    columns = ["precision", "compile", "token_budget", "cells_a_second", "cosine_min", "pruned"]
    rows = [[row.get(name) for name in columns] for row in tried]
    console.result(
        {"best": best, "trials": tried, "roof_gflops": measure.peak_rate(bench.device) / 1e9},
        f"{console.table(rows, columns)}\n\nbest: {best['precision']}"
        f"{', compiled' if best['compile'] else ''}, --token-budget {best['token_budget']}: "
        f"{best['cells_a_second']:.3g} cells/s",
    )


def _possible(bench: IspBenchRun) -> tuple[list[PrecisionName], list[bool]]:
    """Return the precisions that can run here, and the choices for compiling."""
    precisions: list[PrecisionName] = ["fp32"]
    half: tuple[PrecisionName, ...] = ("fp16", "bf16")
    for name in half:
        try:
            packed(bench.model, bench.n_layers, bench.config, name)
        except UserError as error:
            console.say(f"{name} is left out: {error.message}")
        else:
            precisions.append(name)
    try:
        packed(bench.model, bench.n_layers, bench.config, compiled=True)
    except UserError as error:
        console.say(f"compiling is left out: {error.message}")
        return precisions, [False]
    return precisions, [False, True]
