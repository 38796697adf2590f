"""Test the cells, and write the table perturbation by perturbation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vcell import console, outputs
from vcell.data import labels as find_labels
from vcell.data.detect import refuse_nothing, refuse_repeated
from vcell.errors import UserError
from vcell_de.tables import growing_table

if TYPE_CHECKING:
    from pathlib import Path

    from vcell.data import CellSource
    from vcell_de import De


def run(file: Path | None, config: De) -> None:
    """Test the cells and write the table."""
    from vcell.data import open_cells

    if file is None:
        raise UserError("no cells are named", hint="vcell de FILE -o OUT, or set cells in [data]")
    out = _output(file, config)
    started = time.monotonic()
    with open_cells(file, layer=config.layer, join=config.join) as source:
        refuse_repeated(source)
        found = _labels(source, config)
        if config.stratify is not None:
            source.obs(config.stratify)  # a column that is not there is reported first
        from vcell.metrics.screen import (  # imported late: messages come first
            ScreenCells,
            tables,
        )

        ranked = config.test == "wilcoxon"
        cells = ScreenCells.of(source, config.values, ranked=ranked, threads=config.threads)
        facts: dict[str, Any] = {"file": str(file), "rows": 0, "significant": 0, "strata": {}}
        with growing_table(out, config.layout, stratified=config.stratify is not None) as writer:
            for stratum, table in tables(cells, found, config):
                writer.append(table, stratum)
                facts["rows"] += table.p.size
                facts["significant"] += int((table.fdr < 0.05).sum())
                facts["strata"][stratum or "all cells"] = len(table.perturbations)
            facts |= {
                "output": str(out), "control": found.control, "test": config.test,
                "against": config.against, "fold_change": config.fold_change, "fdr": config.fdr,
                "values": cells.tested_as, "seconds": round(time.monotonic() - started, 2),
            }  # fmt: skip
            text = (
                f"{console.count(facts['rows'], 'test')}, "
                f"{facts['significant']:,} with FDR below 0.05, "
                f"in {console.duration(facts['seconds'])}"
            )
            writer.close()
            if writer.failed is not None:  # such as a full disk; the summary is still printed
                console.result(facts | {"output": None}, text)
                raise writer.failed
    console.result(facts, f"{text}\nwritten: {out}")


def _labels(source: CellSource, config: De) -> find_labels.Labels:
    """Find perturbations and controls; with --against rest any grouping column will do."""
    refuse_nothing(source)
    if config.against == "rest" and config.control is None:
        name = config.perturbation_column
        named = find_labels.named_like(source.obs_columns, find_labels.PERTURBATION_NAMES)
        columns = [source.obs(column) for column in (named if name is None else [name])]
        if len(columns) == 1 and len(find_labels.control_labels(columns[0])) != 1:
            return find_labels.groups(source, columns[0].name)
    found = find_labels.find(source, config)
    if not found.n_perturbations:
        raise UserError(
            f"{source.name}: all cells that obs column {found.perturbation_column!r} labels are "
            f"{found.control!r}: there is nothing to compare them with"
        )
    return found


def _output(file: Path, config: De) -> Path:
    out = config.output
    if out is None:
        raise UserError("no output is named", hint="add -o de.parquet (or .csv)")
    outputs.check(out, inputs=[file], overwrite=config.overwrite, suffixes=(".parquet", ".csv"))
    return out
