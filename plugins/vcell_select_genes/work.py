"""Implementation of `vcell select-genes`: measure the cells, choose genes, report coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.data import detect, labels, open_cells
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.genes.names import ensembl_column
from vcell.genes.sets import GeneSet, known_sets
from vcell.hvg import BatchLabels, make_plan
from vcell.hvg.plan import FlavorSettings
from vcell.hvg.run import median_total
from vcell.passes import CellRules
from vcell_select_genes import tables
from vcell_select_genes.choose import Findings, choose
from vcell_select_genes.responsive import ResponseTest
from vcell_select_genes.screen import Compared, read_screen

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.hvg import Read
    from vcell_select_genes import SelectGenes

FROM_DATA = ("targets", "responsive", "hvg")


def run(files: tuple[Path, ...], config: SelectGenes) -> None:
    """Choose the genes and write the folder."""
    inputs = list(files) or ([config.cells] if config.cells else [])
    if not inputs:
        raise UserError("no input file", hint="vcell select-genes FILE -o FOLDER")
    read = [*inputs, *config.gene_set, config.targets]
    rules: Any = {"inputs": read, "overwrite": config.overwrite, "parents": True}
    outputs.check(config.output, folder=True, **rules)
    sets, own, problems = known_sets(config.gene_set)
    for problem in problems:
        console.warn(problem)
    names = _group_names(config, {**sets, **own}, own)
    with open_cells(inputs, layer=config.layer, join=config.join) as source:
        found = _measure(source, config, names)
        chosen, groups, report = choose(
            source.genes, config, names, {**sets, **own}, set(own), found
        )
        text = tables.genes_table(source.genes, chosen, groups, found.ranking, found.effects)
        page = tables.page(source.name, source.genes, report, chosen, found.ranking, found.effects)
    with (
        console.printed_if_lost(report, _text(report)),
        outputs.folder(config.output, listed_in="coverage.json") as out,
    ):
        (out / "selected_genes.csv").write_text(text, encoding="utf-8")
        (out / "coverage.json").write_text(tables.as_json(report), encoding="utf-8")
        (out / "coverage.html").write_text(page.html(), encoding="utf-8")
    written = f"wrote {config.output / 'selected_genes.csv'}, coverage.json and coverage.html"
    console.result(report, f"{_text(report)}\n{written}")


def _group_names(
    config: SelectGenes, sets: dict[str, GeneSet], own: dict[str, GeneSet]
) -> tuple[str, ...]:
    """Return the groups in order of importance, the user's own after the targets."""
    if config.groups == ("none",):
        return ("targets",) if config.targets else ()
    known = [*FROM_DATA, *sets]
    for name in config.groups:
        if name not in known:
            from vcell.suggest import did_you_mean

            raise UserError(
                f"there is no group {name!r}{did_you_mean(name, known)}",
                hint=f"the groups: {', '.join(known)}",
            )
    added = tuple(name for name in own if name not in config.groups)
    if added:
        console.say(f"your groups {', '.join(added)} come right after the targets")
    place = config.groups.index("targets") + 1 if "targets" in config.groups else 0
    return (*config.groups[:place], *added, *config.groups[place:])


def _measure(source: CellSource, config: SelectGenes, names: Sequence[str]) -> Findings:
    """Read the cells, rank the genes, and test them for responses."""
    read = _reader(source, config)
    target_sum = _target_sum(source, config, read)
    screen = _screen(source, config, names)
    index = GeneIndex(source.genes, ensembl_column(source))
    plan = make_plan(
        FlavorSettings(
            flavor=config.hvg_flavor,
            n_genes=source.n_genes,
            n_cells=source.n_cells,
            n_top=min(config.n_genes, source.n_genes),
            target_sum=target_sum,
            single=np.dtype(source.dtype) == np.float32,
            genes=source.genes,
            batches=_batches(source, config),
            min_cells=config.min_cells,
        )
    )
    test = None
    if screen is not None:
        own = [index.match(genes).found for genes in screen.targets]
        test = ResponseTest(
            screen.codes, screen.names, screen.controls, source.n_genes,
            target_sum=target_sum, own=own, fdr=config.fdr,
        )  # fmt: skip
    table = read([*plan.reducers(), *(test.reducers() if test else [])])
    dropped = len(table.kept) - int(table.kept.sum())
    if dropped:
        console.say(f"left out: {dropped:,} of {len(table.kept):,} cells")
    ranking = plan.finish(read, table)
    for note in ranking.notes:
        console.warn(note)
    effects = test.finish(read, table) if test else None
    if effects is not None and not effects.names:
        console.warn("no perturbation has enough cells to be tested; group responsive is empty")
    targets = tuple(gene for genes in (screen.targets if screen else ()) for gene in genes)
    return Findings(index, ranking, effects, targets)


def _reader(source: CellSource, config: SelectGenes) -> Read:
    """Return the reader of the cells: local threads, or dask."""
    mito = np.char.startswith(np.char.upper(source.genes.astype(str)), "MT-")
    rules = CellRules(min_genes=config.min_genes)
    if config.max_mito < 1:
        if not mito.any():
            raise UserError(
                "--max-mito: no gene's name starts with MT-, so no cell has a mitochondrial share"
            )
        rules = replace(rules, marks={"mito": mito}, max_share={"mito": config.max_mito})
    if config.engine == "dask":
        from vcell.passes.dask import DaskReader

        return DaskReader(source, rules, config.scheduler)
    from vcell.passes import Reader
    from vcell.passes.resume import Shelf

    return Reader(source, rules, shelf=Shelf(source, rules))


def _target_sum(source: CellSource, config: SelectGenes, read: Read) -> float | None:
    """Return the total to normalise to; None if the values are log1p already."""
    detect.refuse_nothing(source)
    scale = detect.scale(source)
    if scale.kind == "log1p":
        return None
    if scale.kind != "counts":
        raise UserError(
            f"{source.name}: raw counts or log1p values are needed, these are {scale.text}",
            hint=detect.elsewhere(source, scale, ("counts", "log1p")),
        )
    if config.target_sum:
        return config.target_sum
    return median_total(read([]))


def _batches(source: CellSource, config: SelectGenes) -> BatchLabels | None:
    if not config.hvg_by_batch:
        return None
    if config.batch_column is None:
        hits = labels.named_like(source.obs_columns, labels.BATCH_NAMES)
        if not hits:
            raise UserError(
                "--hvg-by-batch: no obs column has a name that says it holds batches",
                hint=f"name it with --batch-column: {', '.join(source.obs_columns)}",
            )
        console.say(f"batches: {hits[0]}")
    column = source.obs(config.batch_column or hits[0])
    batches = BatchLabels.of(column.values)
    missing = int((batches.codes < 0).sum())
    if missing:
        console.warn(f"left out, without a {column.name}: {console.count(missing, 'cell')}")
    return batches


def _screen(source: CellSource, config: SelectGenes, names: Sequence[str]) -> Compared | None:
    """Return the perturbations, if the groups need them and the file has them."""
    if not {"targets", "responsive"} & set(names) or config.groups == ("none",):
        return None
    named = config.perturbation_column or labels.named_like(
        source.obs_columns, labels.PERTURBATION_NAMES
    )
    if not named:
        console.say(
            "no obs column names perturbations: groups targets and responsive are left out "
            "(--perturbation-column names one)"
        )
        return None
    return read_screen(source, labels.find(source, config))


def _text(report: dict[str, Any]) -> str:
    """Return the printed summary."""
    heads = ["group", "in file", *(f"first {size:,}" for size in report["phases"])]
    lines = [
        console.table(
            [(row["group"], row["genes"], *row["phases"]) for row in report["groups"]], heads
        )
    ]
    if targets := report.get("targets"):
        n_chosen = targets["phases"][-1]
        lines.append(f"targets chosen: {n_chosen} of {targets['wanted']}")
        for key, label in (("left_out", "left out"), ("not_in_file", "not in the file")):
            if targets[key]:
                shown = ", ".join(targets[key][:8]) + (", ..." if len(targets[key]) > 8 else "")
                lines.append(f"  {len(targets[key])} {label}: {shown}")
    if (responses := report.get("responses")) and responses["responses"]:
        share = responses["kept"][-1] / responses["responses"]
        lines.append(
            f"{share:.1%} of {responses['responses']:,} responses of {responses['tested']} "
            f"perturbations kept; responding genes lost: {responses['n_lost_genes']:,} of "
            f"{responses['responding_genes']:,}"
        )
    lost = {name: names for name, names in report["unmatched"].items() if names}
    if lost:
        counts = ", ".join(f"{len(names):,} of {name}" for name, names in lost.items())
        lines.append(f"genes of groups that are not in the file: {counts} (coverage.json has them)")
    return "\n".join(lines)
