"""The steps of the demo, in the order of a user's work, and the result."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import outputs
from vcell.errors import UserError
from vcell.runs import Run, find_runs
from vcell_demo import held_out, report
from vcell_demo.journal import StepRunner, kept_in

if TYPE_CHECKING:
    from vcell_demo import Demo

_PROJECT = """\
# The project of this demo: in this folder every command finds the cells without flags.
[data]
cells = "cells.h5ad"
perturbation-column = "target_gene"
control = "non-targeting"
batch-column = "batch"
"""


def run(config: Demo) -> None:
    """Run the command."""
    started, folder = time.monotonic(), config.output
    if config.data is not None and not config.data.exists():
        raise UserError(f"{config.data} does not exist")
    outputs.check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not kept_in(folder):
        raise UserError(
            f"{folder} holds files that the demo did not make", hint="-o names a new folder"
        )
    journal = StepRunner(folder, _settings(config))
    cells = config.data or _simulated(journal, config)
    aside = journal.inside(
        "set-aside",
        "2 set perturbations aside, to be predicted later",
        lambda: held_out.set_aside(cells, folder, config.seed),
        writes=[folder / name for name in (held_out.LEARN, held_out.HELD_OUT, held_out.NAMES)],
    )
    chosen = folder / "genes" / "selected_genes.csv"
    journal.step(
        "select-genes",
        "3 choose the genes the model sees",
        *("select-genes", folder / held_out.LEARN, "--n-genes", config.select),
        *("--targets", folder / held_out.NAMES, "-o", folder / "genes", "--overwrite"),
        writes=[chosen],
    )
    trained = _trained(journal, config, chosen, aside["target_sum"])
    files = {
        name: _predicted(journal, trained, folder, name) for name in (trained["model"], "mean")
    }
    if config.data is None:
        again = files[report.REPLICATE] = folder / f"{report.REPLICATE}.h5ad"
        journal.inside(
            "replicate",
            "6 repeat the experiment, from the truth",
            lambda: held_out.draw_again(config, aside, again),
            writes=[again],
        )
    scores = {name: _scored(journal, folder, name, path) for name, path in files.items()}
    journal.step(
        "report",
        "8 write the page of the run",
        *("report", trained["run"]),
        writes=[Path(trained["run"]) / "report.html"],
    )
    journal.record("finish", round(time.monotonic() - started, 1))
    page = report.write(folder, trained, scores, journal.done)
    report.tell(folder, trained, scores, journal.done, page)


def _settings(config: Demo) -> dict[str, Any]:
    """Return the settings that determine the results, as JSON; a changed file counts as another."""
    settings = dataclasses.asdict(config) | {"output": None}
    if config.data is not None:
        settings["data"] = [str(config.data.absolute()), config.data.stat().st_mtime]
    return settings


def _simulated(journal: StepRunner, config: Demo) -> Path:
    """Simulate the cells, unless they exist, in a separate project folder."""
    cells, project = config.output / "cells.h5ad", config.output / "vcell.toml"
    if not project.exists():
        outputs.write_text(project, _PROJECT)
    journal.use_config(None)  # this step creates the cells named in the project file
    journal.step(
        "simulate",
        "1 simulate a screen with a known truth",
        *("simulate", cells, "--n-cells", config.n_cells, "--genes", config.genes),
        *("--perturbations", config.perturbations, "--seed", config.seed),
        "--overwrite",
        writes=[cells],
    )
    journal.use_config(project)
    return cells


def _trained(
    journal: StepRunner, config: Demo, chosen: Path, target_sum: float | None
) -> dict[str, Any]:
    """Train on what is not held out, or resume an interrupted training."""
    learn, runs = config.output / held_out.LEARN, config.output / "runs"
    unfinished = None if "train" in journal.done else _unfinished(runs, learn)
    arguments: tuple[Any, ...] = (
        learn,
        "--genes",
        chosen,
        "--test-share",
        0,
        "--seed",
        config.seed,
    )
    if target_sum is not None:
        arguments += ("--target-sum", target_sum)
    if unfinished is not None:
        arguments = ("--resume", unfinished.name)
    title = "4 train on the other perturbations"
    trained: dict[str, Any] = journal.step("train", title, "train-vcc", *arguments, "--runs", runs)
    return trained


def _unfinished(runs: Path, cells: Path) -> Run | None:
    """Return the newest run on these cells that can be resumed."""
    for run in reversed(find_runs(runs)[0]):
        data = run.meta.get("data") or [{}]
        same = data[0].get("modified") == cells.stat().st_mtime
        if same and run.status() in ("crashed", "interrupted") and run.checkpoints():
            return run
    return None


def _predicted(journal: StepRunner, trained: dict[str, Any], folder: Path, model: str) -> Path:
    """Predict the held-out perturbations, with the trained model or a baseline of the same run."""
    out = folder / ("prediction.h5ad" if model == trained["model"] else f"{model}.h5ad")
    journal.step(
        f"predict {model}",
        f"5 predict what was set aside, by {model}",
        *("predict", trained["run"], "--perturbations", folder / held_out.NAMES),
        *("--model", model, "--unknown", "mean", "-o", out, "--overwrite"),
        writes=[out],
    )
    return out


def _scored(journal: StepRunner, folder: Path, name: str, prediction: Path) -> dict[str, Any]:
    """Score a prediction against the held-out cells."""
    real, out = folder / held_out.HELD_OUT, folder / "scores" / name
    out.parent.mkdir(exist_ok=True)
    scored: dict[str, Any] = journal.step(
        f"evaluate {name}",
        f"7 score {name} against the real cells",
        *("evaluate", prediction, real, "-o", out, "--overwrite", "--cache", folder / "cache"),
        writes=[out],
    )
    return scored
