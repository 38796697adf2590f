"""`vcell isp stats`: genes.csv and its page, or one of upstream's tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vcell import console, outputs
from vcell.as_json import none_if_nan
from vcell.errors import UserError
from vcell.runs import Run
from vcell_isp import tables
from vcell_isp.design import IspDesign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell_isp import IspStats

TABLE = "shifts.parquet"
SHOWN = 15


@dataclass(frozen=True)
class FinishedRun:
    """A finished run."""

    run: Run
    design: IspDesign
    frame: pd.DataFrame

    @property
    def column(self) -> str:
        """The column to test: the shift towards the goal, or the distance."""
        targets = self.design.targets
        return f"shift_{targets[0]}" if targets else "distance"

    @property
    def per_donor(self) -> int:
        """Cells of a gene that each donor needs."""
        return int((self.run.meta.get("config") or {}).get("min_cells_per_donor", 10))


def opened(name: str, root: Path) -> FinishedRun:
    """Open the table of a finished run."""
    run = Run.open(name, root=root)
    if not (run.path / "design.json").is_file():
        raise UserError(f"{run.name} is not a run of vcell isp", hint="vcell runs list")
    path = run.path / TABLE
    if not path.is_file():
        raise UserError(
            f"{run.name} has no table yet: it is {run.status()}",
            hint=f"vcell isp run --resume {run.name}",
        )
    return FinishedRun(run, IspDesign.load(run.path), pq.read_table(path).to_pandas())


def run(names: Sequence[str], config: IspStats) -> None:
    """Compute and write the requested table."""
    if config.output is not None:  # tables inside the run may be replaced
        outputs.check(config.output, overwrite=config.overwrite, suffixes=(".csv", ".parquet"))
        if config.mode == "genes":
            outputs.check(config.output.with_suffix(".html"), overwrite=config.overwrite)
    if config.perturb_seq is not None and config.mode != "genes":
        raise UserError("--perturb-seq goes with --mode genes")
    results = [opened(name, config.runs) for name in names]
    if config.output is None:
        outputs.check(*_in_the_run(results[0], config), overwrite=True)
    if config.mode == "genes":
        return _genes(results, config)
    if len(results) != 1:
        raise UserError(f"the table {config.mode} is of one run, not of {len(results)}")
    table = _upstream(results[0], config)
    out = config.output or _in_the_run(results[0], config)[0]
    head = table.head(SHOWN)
    text = console.table(head.itertuples(index=False), list(head.columns))
    with console.printed_if_lost({"output": None, "rows": len(table)}, text):
        _write(table, out, index=True)
    console.result({"output": str(out), "rows": len(table)}, f"{text}\n\nwritten: {out}")
    return None


def _in_the_run(result: FinishedRun, config: IspStats) -> list[Path]:
    """Return the default paths of the table and of its page."""
    table = result.run.path / f"{config.mode}.csv"
    return [table, table.with_suffix(".html")] if config.mode == "genes" else [table]


def _upstream(result: FinishedRun, config: IspStats) -> pd.DataFrame:
    """Return one of upstream's tables."""
    targets = result.design.targets
    if config.mode == "goal_state_shift":
        if not targets:
            raise UserError(
                f"{result.run.name} measured no shift towards a state",
                hint="run with --state, --start and --goal; or take --mode mixture_model",
            )
        data = tables.GeneValues.of(result.frame, [f"shift_{name}" for name in targets])
        if result.design.genes.how == "group":
            return tables.one_shift_to_goal(data, targets[0], targets[1:])
        return tables.goal_state_shift(data, targets[0], targets[1:])
    column = f"shift_{targets[0]}" if targets else "cosine"
    data = tables.GeneValues.of(result.frame, [column])
    if result.design.genes.how == "group":  # upstream names a group by the tuple of its genes
        data = replace(data, names=np.array([str(result.design.genes.symbols)], object))
    if config.mode == "mixture_model":
        return tables.mixture_model(data, column)
    if config.mode == "aggregate":
        return tables.aggregate(data, column)
    if config.null is None:
        raise UserError("vs_null needs the run with the null distribution", hint="--null RUN")
    null = opened(config.null, config.runs)
    if column not in null.frame.columns:
        raise UserError(f"{null.run.name} has no column {column}: it measured other states")
    return tables.vs_null(data, tables.GeneValues.of(null.frame, [column]), column)


def _genes(results: list[FinishedRun], config: IspStats) -> None:
    """Write genes.csv and its page."""
    from vcell_isp import agreement, genes, page

    effects = None if config.perturb_seq is None else agreement.read(config.perturb_seq, config)
    found = [
        genes.summarise(r.frame, r.column, r.design, config, per_donor=r.per_donor) for r in results
    ]
    table = genes.combined(found)
    answers = {
        r.run.name: agreement.compare(
            r, rows, effects, activates=config.perturb_seq_kind == "activation"
        )
        for r, rows in zip(results, found, strict=True)
        if effects is not None
    }
    out = config.output or _in_the_run(results[0], config)[0]
    html = out.with_suffix(".html")
    everything, table = table, table[table["status"] != genes.NULL]
    counts = {str(k): int(v) for k, v in table["status"].value_counts().items()}
    facts: dict[str, Any] = {
        "output": str(out), "page": str(html), "genes": len(table), "status": counts,
        "synthetic": any((r.run.meta.get("summary") or {}).get("synthetic") for r in results),
    }  # fmt: skip
    if answers:
        facts["perturb_seq"] = {
            name: {answer.question: answer.facts() for answer in many}
            for name, many in answers.items()
        }
    if facts["synthetic"]:
        console.warn("the weights are random: these statistics say nothing about biology")
    columns = ["gene", "operation", "status", "effect", "share_of_nulls", "p", "fdr", "cells"]
    rows = [
        list(map(none_if_nan, row)) for row in table[columns].head(SHOWN).itertuples(index=False)
    ]
    lines = [console.table(rows, columns), ""]
    lines.append(", ".join(f"{name} {n:,}" for name, n in counts.items()))
    lines += [answer.text() for many in answers.values() for answer in many]
    text = "\n".join(lines)
    with console.printed_if_lost(facts | {"output": None, "page": None}, text):
        page.write(html, results, everything, config, answers)
        _write(table.drop(columns=["token", "spread_of_nulls"]), out, index=False)
    console.result(facts, f"{text}\nwritten: {out} and {html.name}")


def _write(table: pd.DataFrame, out: Path, *, index: bool) -> None:
    """Write a table atomically."""
    with outputs.whole(out) as aside:
        if out.suffix == ".csv":
            table.to_csv(aside, index=index)
        else:
            arrow = pa.Table.from_pandas(table, preserve_index=index)
            mark = {outputs.MADE_BY: outputs.made_by()}
            pq.write_table(arrow.replace_schema_metadata({**arrow.schema.metadata, **mark}), aside)
