"""Steps after a prediction in the same command: vcell's scores, cell-eval's scores, the archive.

Other commands of vcell run through the command line.
"""

from __future__ import annotations

import csv
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from vcell import console, outputs
from vcell.data import CellWriter, open_cells
from vcell.data import labels as find_labels
from vcell.errors import RunFailed, UserError, VcellError
from vcell_predict import MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vcell_predict import Predict
    from vcell_predict.cells.controls import LabelColumns

_PEER = "cell-eval"
_MISSING = (
    f"{_PEER} is not installed here, so only vcell's own scores are shown "
    f"(pip install {_PEER} in an environment on the PATH)"
)


def check(config: Predict) -> None:
    """Check the later steps before any work."""
    real, cells = config.evaluate, config.cells
    if cells is not None and cells.name in MODES:
        console.warn(f"--cells {cells} is --as {cells} now; --cells names a file of cells")
    elif cells is not None and not cells.exists():
        raise UserError(
            f"--cells {cells}: there is no such file",
            hint="--as sets how cells are made: residual, mean or counts",
        )
    if real is not None and not real.exists():
        raise UserError(f"{real}: there is no such file")
    if config.run_cell_eval and real is None:
        raise UserError(
            "--run-cell-eval compares two scores of a prediction",
            hint="add --evaluate REAL, the cells to score against",
        )
    if config.run_cell_eval and shutil.which(_PEER) is None:
        console.warn(_MISSING)
    may_write(config, [config.control_file])


def may_write(config: Predict, cells: Sequence[Path | None]) -> None:
    """Refuse outputs that would replace inputs; `cells` are files of control cells."""
    named = [Path(word) for word in config.perturbations]
    read = [*cells, config.like, config.evaluate, *named]
    rules: dict[str, Any] = {"inputs": read, "overwrite": config.overwrite}
    outputs.check(config.output, suffixes=(".h5ad",), **rules)
    outputs.check(config.output, *config.companions, **rules)
    if config.explain is not None:
        outputs.check(config.explain, parents=True, **rules)
    if config.pack is not None:
        outputs.check(config.pack, suffixes=(".vcc",), **rules)


def follow(config: Predict, columns: LabelColumns) -> tuple[dict[str, Any], list[VcellError]]:
    """Run the steps that the settings ask for; return results by name, and errors."""
    work: dict[str, Callable[[], Any]] = {}
    if config.evaluate is not None:
        arguments = ["evaluate", config.output, config.evaluate, "--only-shared", *_rules(config)]
        work["evaluate"] = functools.partial(_vcell, *arguments, *_labels(config))
    if config.run_cell_eval and shutil.which(_PEER) is not None:
        work["cell_eval"] = functools.partial(_cell_eval, config, columns)
    if config.pack is not None:
        arguments = ["pack", config.output, "-o", config.pack, *_rules(config)]
        arguments += ["--overwrite"] if config.overwrite else []
        arguments += ["--perturbation-column", columns.perturbation, "--control", columns.control]
        work["pack"] = functools.partial(_vcell, *arguments)
    found: dict[str, Any] = {}
    failed: list[VcellError] = []
    for name, do in work.items():
        try:
            found[name] = do()
        except VcellError as error:
            failed.append(error)
    return found, failed


def text(found: dict[str, Any]) -> str:
    """Format the scores of vcell and cell-eval, and the archive."""
    lines = []
    if "evaluate" in found:
        peer = found.get("cell_eval")
        metrics = found["evaluate"]["metrics"]
        rows: list[list[Any]] = [
            [name, of["raw"], of["baseline"], of["scaled"]] for name, of in metrics.items()
        ]
        columns = ["metric", "raw", "baseline", "scaled"]
        if peer is not None:
            columns.append(_PEER)
            rows = [[*row, peer.get(row[0])] for row in rows]
        lines.append(console.table(rows, columns))
        if found["evaluate"]["overall"] is not None:
            lines.append(f"overall {found['evaluate']['overall']:.4f}")
    if "pack" in found:
        lines.append(f"packed: {found['pack'].get('output', '')}")
    return "\n".join(lines)


def _rules(config: Predict) -> list[str]:
    return [] if config.rules is None else ["--rules", config.rules]


def _labels(config: Predict) -> list[str]:
    """Return the label options that were given by hand."""
    given = {
        "--perturbation-column": config.perturbation_column,
        "--control": config.control,
    }
    return [word for flag, value in given.items() if value for word in (flag, value)]


def _vcell(*arguments: Any) -> dict[str, Any]:
    """Run a command of vcell with the same project file, and return its result."""
    meta = click.get_current_context().find_root().meta
    before: list[str] = ["--no-config"] if meta.get("vcell.no_config") else []
    if meta.get("vcell.config_path"):
        before = ["--config", str(meta["vcell.config_path"])]
    command = [sys.executable, "-m", "vcell", *before, *map(str, arguments), "--json"]
    if console.settings.verbosity != console.NORMAL:
        command.append("--quiet" if console.settings.verbosity < 0 else "--verbose")
    console.say(f"\nvcell {' '.join(map(str, arguments))}")
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode == UserError.exit_code:
        raise UserError(
            f"the prediction is written, but `vcell {arguments[0]}` refused it, see above"
        )
    if ran.returncode:
        raise RunFailed(f"`vcell {arguments[0]}` ended with code {ran.returncode}")
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def _cell_eval(config: Predict, columns: LabelColumns) -> dict[str, float]:
    """Score the same prediction with cell-eval, and return its means."""
    assert config.evaluate is not None
    with tempfile.TemporaryDirectory(prefix="vcell-", dir=config.output.absolute().parent) as name:
        folder = Path(name)
        column = _shared(config.evaluate, config, columns, folder)
        arguments = ["run", "-ap", folder / "pred.h5ad", "-ar", folder / "real.h5ad"]
        arguments += ["--profile", "vcc", "--pert-col", column, "--control-pert", columns.control]
        arguments += ["-o", folder / "out", "--num-threads", "2"]
        console.say(f"\n{_PEER} {' '.join(map(str, arguments))}")
        ran = subprocess.run(
            [_PEER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        table = folder / "out" / "agg_results.csv"
        if ran.returncode or not table.is_file():
            last = (ran.stdout.strip().splitlines() or ["without a word"])[-1]
            raise RunFailed(f"{_PEER} ended with code {ran.returncode}: {last}")
        with table.open(newline="") as file:
            rows = {row.pop("statistic"): row for row in csv.DictReader(file)}
    return {key: float(value) for key, value in rows["mean"].items()}


def _shared(real: Path, config: Predict, columns: LabelColumns, folder: Path) -> str:
    """Write the perturbations that both sides have; return the name of their column."""
    with open_cells(config.output) as pred, open_cells(real, config.layer) as measured:
        found = find_labels.find(measured, config, quiet=True)
        sides = {
            "pred": (pred, pred.obs(columns.perturbation), columns.control),
            "real": (measured, measured.obs(found.perturbation_column), found.control),
        }
        present = [
            {columns.control if name == label else name for name in _there(column)}
            for _, column, label in sides.values()
        ]
        both = sorted(present[0] & present[1])
        place = {name: i for i, name in enumerate(both)}
        for name, (source, column, label) in sides.items():
            names = [columns.control if n == label else n for n in column.categories.tolist()]
            codes = np.array([*(place.get(n, -1) for n in names), -1])[column.codes]
            out = folder / f"{name}.h5ad"
            with CellWriter(out, source.genes, obs={columns.perturbation: both}) as writer:
                for block in source.chunks(np.flatnonzero(codes >= 0)):
                    writer.append(block, {columns.perturbation: codes[block.rows]})
    return columns.perturbation


def _there(column: Any) -> list[str]:
    return [str(name) for name in column.categories[column.counts() > 0].tolist()]
