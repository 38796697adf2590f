"""Measure the strategies in one process and report their costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell import console, outputs
from vcell.errors import UserError
from vcell.gpu.accelerator import accelerator, chosen_device
from vcell.gpu.memory import available_memory
from vcell.graph import GeneGraphs, Rules, read, read_gene_sets
from vcell.graph.synthetic import yeast_like
from vcell.suggest import few
from vcell_graph_profile import references, strategies
from vcell_graph_profile.measure import StrategyTimer, facts
from vcell_graph_profile.nets import GraphNet
from vcell_graph_profile.tables import text
from vcell_graph_profile.verdict import verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_graph_profile import GraphProfile
    from vcell_graph_profile.batches import Strategy

_RANDOM_SETS = 4096  # triples drawn if no table is given


def run(config: GraphProfile) -> None:
    """Run the command."""
    names = _wanted(config.strategy)
    device = chosen_device(config.device)
    _check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    graphs = _graphs(config)
    sets, values, described = _sets(config, graphs)
    if config.save is not None:
        graphs.save(config.save, overwrite=config.overwrite)
        console.say(f"graphs written: {config.save}")
    rules = Rules(1, config.direction, config.over, config.perturbed)
    budget = int(config.memory * 1e9) if config.memory else available_memory(device) // 4
    rows = []
    with console.progress("measuring", len(names), "strategies") as bar:
        for name in names:
            rows.append(_measured(name, graphs, rules, sets, values, device, budget, config))
            bar.advance(note=name)
    _compare(rows)
    found = {
        "device": accelerator(device).name, "threads": torch.get_num_threads(), "mode": config.mode,
        "genes": graphs.n_genes, "edges": graphs.n_edges, "isolated": len(graphs.isolated()),
        "relations": {r.name: r.n_edges for r in graphs}, "notes": list(graphs.notes),
        "sets": described, "batch_size": config.batch_size, "steps": config.steps,
        "width": config.width, "layers": config.layers, "budget_bytes": budget,
        "direction": rules.direction, "over": rules.over, "perturbed": rules.perturbed,
        "references_run": references.source(), "rows": rows,
    }  # fmt: skip
    found["verdict"] = verdict(found)
    report = text(found)
    if config.output is not None:
        from vcell_graph_profile.page import write

        with console.printed_if_lost(found, report):
            write(config.output, found)
        report += f"\n\nwritten: {config.output}"
    console.result(found, report)


def _wanted(names: tuple[str, ...]) -> list[str]:
    """Return the strategies to measure; vcell's before their references."""
    known = (*strategies.NAMES, *references.NAMES)
    groups = {
        "all": known,
        "khop-ref": tuple(n for n in references.NAMES if n.startswith("khop") and "ref" in n),
        "khop-scipy": tuple(n for n in references.NAMES if n.endswith("scipy")),
        "khop": ("khop1", "khop2", "khop3"),
    }
    chosen: set[str] = set()
    for name in names or strategies.NAMES:
        if name not in known and name not in groups:
            raise UserError(
                f"there is no strategy {name!r}", hint=f"there are {', '.join((*known, *groups))}"
            )
        chosen |= set(groups.get(name, (name,)))
    return [name for name in known if name in chosen]


def _check(config: GraphProfile) -> None:
    inputs = [*config.graph, *(p for p in (config.triples, config.ids) if p is not None)]
    if config.output is not None:
        outputs.check(config.output, inputs=inputs, overwrite=config.overwrite, suffixes=(".html",))
    if config.save is not None:
        outputs.check(config.save, inputs=inputs, overwrite=config.overwrite)
    if config.triples is not None and not config.graph:
        raise UserError(
            "--triples names real genes, and the synthetic graphs have none",
            hint="give the graphs as well: --graph FILE",
        )


def _graphs(config: GraphProfile) -> GeneGraphs:
    if config.graph:
        graphs = read(config.graph, ids=config.ids, weight=config.weight, minimum=config.minimum)
    else:
        console.say("no --graph: synthetic graphs of a yeast's size")
        graphs = yeast_like(config.seed, scale=config.scale)
    for note in graphs.notes:
        console.say(note)
    isolated = graphs.isolated()
    if isolated:
        console.say(
            f"{console.count(len(isolated), 'gene')} without an edge, such as {few(isolated, 3)}"
        )
    return graphs


def _sets(
    config: GraphProfile, graphs: GeneGraphs
) -> tuple[NDArray[np.int64], NDArray[np.float32], str]:
    """Return perturbed genes (T, S), values to fit (T,), and a description."""
    rng = np.random.default_rng(config.seed)
    if config.triples is None:
        if graphs.n_genes < 3:
            have = console.count(graphs.n_genes, "gene")
            raise UserError(f"{have}: no triple can be made", hint="give larger graphs")
        sets = np.stack([rng.choice(graphs.n_genes, 3, replace=False) for _ in range(_RANDOM_SETS)])
        description = "random triples of genes, random values"
        return sets, rng.normal(size=_RANDOM_SETS).astype(np.float32), description
    table = read_gene_sets(config.triples)
    places, missing = table.places(graphs.genes)
    complete = ((places >= 0) == (table.members >= 0)).all(1)
    if not complete.any():
        raise UserError(
            f"{config.triples}: no set has all its genes in the graphs, which name "
            f"{', '.join(graphs.genes[:3])}, the sets {', '.join(table.genes[:3])}",
            hint="are both of the same species, and both names or both ids?",
        )
    for note in table.notes:
        console.say(note)
    if missing:
        console.say(
            f"left out: {console.count(int((~complete).sum()), 'set')}, of "
            f"{console.count(len(missing), 'gene')} without a graph, such as {few(missing, 3)}"
        )
    values = np.zeros(len(places)) if table.values is None else np.nan_to_num(table.values)
    description = f"{console.count(int(complete.sum()), 'set')} of {config.triples.name}"
    return places[complete].astype(np.int64), values[complete].astype(np.float32), description


def _measured(
    name: str,
    graphs: GeneGraphs,
    rules: Rules,
    sets: NDArray[np.int64],
    values: NDArray[np.float32],
    device: torch.device,
    budget: int,
    config: GraphProfile,
) -> dict[str, Any]:
    """Time one strategy; a strategy that cannot run has a row with the reason."""
    torch.manual_seed(config.seed)
    room = strategies if name in strategies.NAMES else references
    strategy = room.make(name, graphs, rules)
    try:
        _fits(strategy, sets, budget, graphs, config)
        net = (
            None if config.mode == "data"
            else GraphNet(graphs, config.width, config.layers, strategy.net)
        )  # fmt: skip
        bench = StrategyTimer(strategy, net, sets, values, config.mode, device)
        found = bench.run(config.steps, config.batch_size, config.seed)
        row = facts(found, strategy, config.batch_size)
        if config.seconds:
            size, ended = bench.largest(budget, config.seconds, config.seed)
            row |= {"largest_batch": size, "largest_batch_found": ended}
    except (torch.OutOfMemoryError, MemoryError):
        row = {"strategy": name, "not_run": "out of memory", "reference_for": strategy.reference}
    except UserError as error:
        row = {"strategy": name, "not_run": error.message, "reference_for": strategy.reference}
    if strategy.reference and "not_run" not in row:
        matching = strategies.make(strategy.reference, graphs, rules)
        row["same_output"] = all(
            references.same(matching.sample(one), strategy.sample(one), graphs) for one in sets[:3]
        )
    if "not_run" in row:
        console.warn(f"{name} is not measured: {row['not_run']}")
    return row


def _fits(
    strategy: Strategy,
    sets: NDArray[np.int64],
    budget: int,
    graphs: GeneGraphs,
    config: GraphProfile,
) -> None:
    """Refuse a batch whose edges cannot fit, before it is made."""
    one = strategy.sample(sets[0])
    size = config.batch_size
    need = 2 * size * one.nbytes
    part = "the edges of a batch"
    if config.mode != "data" and strategy.net in ("pairs", "masked"):
        share = max(r.n_edges for r in graphs) / max(graphs.n_edges, 1)
        need += int(size * one.n_edges * share * config.width * 4)
        part = "a row for every edge of a batch"
    if config.mode != "data" and strategy.net in ("alive", "incident"):
        rows = size * graphs.n_genes * config.width * 4
        need += 2 * rows * len(graphs.relations) * config.layers
        part = "the latents of every gene of every sample"
    if need > budget:
        raise UserError(
            f"{part} take about {console.bytes_text(need)}, more than the "
            f"{console.bytes_text(budget)} that --memory allows"
        )


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add to each reference its ratio of data time to vcell's strategy."""
    by_name = {row["strategy"]: row for row in rows if "not_run" not in row}
    for row in by_name.values():
        matching = by_name.get(row["reference_for"])
        if matching is None or "sample" not in row["milliseconds"]:
            continue
        data = [
            sum(r["milliseconds"][phase] for phase in ("sample", "collate"))
            for r in (row, matching)
        ]
        row["data_ratio"] = data[0] / max(data[1], 1e-6)
