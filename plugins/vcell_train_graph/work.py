"""Implementation of `vcell train-graph`: read the files, train each split, score all."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.screen.split import TEST
from vcell.train import command
from vcell.train.training import NewRun, Training
from vcell_train_graph import TrainGraph, registry
from vcell_train_graph.closed import (
    SetPredictions,
    additive_model,
    factors_model,
    no_graph_gp,
    query_mean_model,
)
from vcell_train_graph.held_out import BARE, FILE, NONE, SEEDS, HeldOutSets, pooled
from vcell_train_graph.problem import APART, RANDOM, GraphProblem, given, inner_groups, problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.launch import Plan
    from vcell.runs import Run

SPLIT = "split.npz"  # in the run directory
_CPU_TOKENS = 1024


def run(sets: Path | None, config: TrainGraph) -> None:
    """Run the command."""
    if not config.resume:
        config = _named(sets, config)
        model = registry.get(config.model)
        if config.control and not _seen(model, config):
            removed = "graphs" if config.control == "rewired" else "features"
            raise UserError(
                f"--control {config.control} of {config.model} is the same model twice: it uses no "
                f"{removed}",
                hint=f"give --{'graph' if removed == 'graphs' else removed}, or another --model",
            )
        if config.fold is not None or config.sweep:
            config = dataclasses.replace(config, folds=None)
        if config.estimate:
            _estimate(config)
            return
    command.run(TRAINING, config)


def _named(sets: Path | None, config: TrainGraph) -> TrainGraph:
    table = sets or config.table
    if table is None:
        raise UserError(
            "no table of gene sets is named", hint="vcell train-graph tau.tsv --graph ppi.tsv"
        )
    for path in (table, *config.graph, *config.features):
        if not path.exists():
            raise UserError(f"{path}: there is no such file")
    if config.fold is not None and config.fold != RANDOM:
        from vcell.config.screen import parse_fold

        parse_fold(config.fold)
    return dataclasses.replace(
        config, table=table.absolute(), graph=tuple(p.absolute() for p in config.graph),
        features=tuple(p.absolute() for p in config.features),
    )  # fmt: skip


def _seen(model: Any, config: TrainGraph) -> bool:
    if config.control == "rewired":
        return bool(model.graphs and config.graph)
    return bool(config.features) and config.model not in ("additive", "query-mean")


def parts(config: TrainGraph) -> list[dict[str, Any]]:
    """Return the splits of each run: folds, draws, and the control. Closed forms have one draw."""
    steps = registry.get(config.model).takes_steps
    folds = [*(f"{k}/{config.folds}" for k in range(1, (config.folds or 1) + 1)), RANDOM]
    found: list[dict[str, Any]] = []
    for fold in folds:
        wirings: list[tuple[str, int]] = [("given", config.seeds if steps else 1)]
        if config.control:
            wirings.append((config.control, config.seeds))
        found += [
            {"fold": fold, "draw": draw, "wiring": wiring}
            for wiring, draws in wirings
            for draw in range(draws)
        ]
    return found


def prepare(config: TrainGraph, plan: Plan) -> NewRun:
    """Read the files, and choose what is held out."""
    model = registry.get(config.model)
    if model.takes_steps and config.tokens is None and plan.device == "cpu":
        config = dataclasses.replace(config, tokens=_CPU_TOKENS)
    read, one = given(config), problem(config)
    test, apart = (int((one.part == of).sum()) for of in (TEST, APART))
    if config.wiring == "given" and config.draw == 0:
        graphs = console.count(len(one.graphs.relations), "graph")
        left = f", {apart:,} left out because they contain a held-out pair" if apart else ""
        console.say(f"{len(one.values) - test - apart:,} sets to learn from, {test:,} held out"
                    f"{left}; {len(one.genes):,} genes, {graphs}")  # fmt: skip

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, part=one.part)

    return NewRun(
        config=config,
        data=[_fingerprint(p) for p in (config.table, *config.graph, *config.features) if p],
        facts={"model": config.model, "held_out_by": read.by, "absent": list(read.absent)},
        files={SPLIT: write},
    )  # fmt: skip


def _fingerprint(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"path": str(path), "bytes": stat.st_size, "modified": stat.st_mtime}


def main(run: Run) -> None:
    """Train in one process of the run; rank 0 predicts the held-out sets."""
    config = command.settings_of_run(TrainGraph, run)
    one = problem(config)
    with np.load(run.path / SPLIT, allow_pickle=False) as file:
        if not np.array_equal(file["part"], one.part):
            raise UserError(
                f"{config.table} is not what {run.name} was started with",
                hint="start a new run with it",
            )
    model, groups = registry.get(config.model), inner_groups(one, config.fold)
    shares: Mapping[str, float] = {}
    seen = bool(model.graphs and one.graphs.relations)
    if model.takes_steps:
        prior = (factors_model if seen else factors_model.graph_free).fit(one, groups)
        added = _trained(run, config, one, model, prior)
        if added is None:
            return
        predicted, shares = (
            {config.model: prior.values + added, "its prior": prior.values},
            prior.shares,
        )
    else:
        fitted = model.fit(one, groups)
        predicted, shares = {config.model: fitted.values}, fitted.shares
    if os.environ.get("RANK", "0") != "0":
        return
    for other in (additive_model, query_mean_model):
        if other.name != config.model:
            predicted[other.name] = other.fit(one, groups).values
    if config.wiring == "given":
        predicted |= _without(one, model, groups, graphs=seen, control=config.control)
    test = np.flatnonzero(one.part == TEST)
    names = np.array([*one.genes, ""])
    found = HeldOutSets(
        names[one.members[test]], one.values[test], {k: v[test] for k, v in predicted.items()}
    )
    run.save_file(FILE, found.write)
    run.finish("done", held_out=found.scores(), explains=dict(shares))


def _without(
    one: GraphProblem, model: Any, groups: NDArray[np.int64], *, graphs: bool, control: str | None
) -> dict[str, NDArray[np.float64]]:
    """Predict as the model, or a network's prior, does without graphs and without features."""
    alone = factors_model if model.takes_steps else model
    bare = getattr(alone, "graph_free", no_graph_gp)
    found = {NONE: bare.fit(one, groups).values} if graphs else {}
    if control == "shuffled-features":
        less = dataclasses.replace(one, features=one.features[:, :0])
        found[BARE] = (alone if graphs else bare).fit(less, groups).values
    return found


def _trained(
    run: Run, config: TrainGraph, one: GraphProblem, model: Any, prior: SetPredictions
) -> NDArray[np.float64] | None:
    """Train a network; return its scaled residual for every set."""
    import torch

    from vcell.train.loop import Trainer
    from vcell.train.state import load_weights
    from vcell.train.threads import few_threads
    from vcell_train_graph.task import SetTask

    task = SetTask(one, config, model, prior.values)
    device = torch.device("cuda" if run.meta.get("device") == "cuda" else "cpu")
    with few_threads(config.width, device):
        if Trainer(task, config, run).fit().cut_short:
            return None
    if os.environ.get("RANK", "0") != "0":
        return None
    network, best = task.build(), run.checkpoint("best")
    load_weights(network, best.path)
    blend = float(best.state.get("metrics", {}).get("blend", 0.0))
    added = task.added(network.eval(), np.arange(len(one.values)))
    return np.asarray(blend * task.unit * added.astype(np.float64))


def _estimate(config: TrainGraph) -> None:
    """Estimate and print the cost of a step."""
    import torch

    from vcell.launch import make_plan
    from vcell.train.rehearse import rehearse
    from vcell_train_graph.task import SetTask

    plan = make_plan(config)
    model = registry.get(config.model)
    if not model.takes_steps:
        raise UserError(f"{config.model} takes no steps: it is solved", hint="leave out --estimate")
    config = prepare(config, plan).config
    one = problem(config)
    task = SetTask(one, config, model, np.full(len(one.values), one.scale[0]))
    seconds = rehearse(task, config, torch.device(plan.device), config.batch_size)
    runs = len(parts(config)) if config.folds else 1
    total = seconds * config.max_steps * runs
    console.result(
        {"step_seconds": seconds, "sets_per_second": config.batch_size / seconds,
         "runs": runs, "seconds": total},
        f"{seconds:.3f} s a step of {console.count(config.batch_size, 'set')} on {plan.device} "
        f"({config.batch_size / seconds:,.0f} sets a second); {console.count(runs, 'run')} of at "
        f"most {console.count(config.max_steps, 'step')}: {console.duration(total)}, plus "
        "the closed forms",
    )  # fmt: skip


def judged(run: Run) -> float:
    """Return the score of a run for sweeps, on the validation sets."""
    if run.checkpoints():
        return float(run.checkpoint("best").metric or 0.0)
    raise UserError(f"{run.meta['model']} has no settings to search")


def tell(run: Run) -> None:
    """Print the scores of a run."""
    found, model = run.meta["summary"]["held_out"], run.meta["model"]
    rows = [(name, of["r"], of["explained"]) for name, of in found.items()]
    config = run.meta["config"]
    split = (
        "at random"
        if config["fold"] in (None, RANDOM)
        else f"{config['fold']} by {run.meta['held_out_by']}"
    )
    text = f"held out {split}, one split of one draw: no verdict (--folds, --seeds {SEEDS})"
    console.result(
        {"run": str(run.path), "model": model, "held_out": found, "absent": run.meta["absent"],
         "explains": run.meta["summary"].get("explains", {})},
        f"{text}\n\n{console.table(rows, ('model', 'r', 'explained'))}\n\n"
        f"run directory: {run.path}",
    )  # fmt: skip


TRAINING = Training(
    name="train-graph",
    options=TrainGraph,
    worker="vcell_train_graph.work:main",
    prepare=prepare,
    tell=tell,
    first_look=given,
    needs=SPLIT,
    parts=parts,
    pool=pooled,
    judge=judged,
)
