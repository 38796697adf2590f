"""``vcell runs list|show|compare|rm``: the runs, their state and their results."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from vcell import console
from vcell.commands.config import project_file
from vcell.config.check import runs_folder
from vcell.errors import UserError
from vcell.runs import ROOT, Run, differing, find_runs, remove
from vcell.runs.held_out import beside, held_out


def _folder(ctx: click.Context, _param: click.Parameter, given: Path | None) -> Path:
    """Return the given folder, else the project's folder of runs."""
    file = None if given else project_file(ctx)
    return given or (runs_folder(file) if file else {}).get("runs", Path(ROOT))


_root = click.option(
    "--runs",
    "--runs-dir",
    "root",
    type=click.Path(path_type=Path),
    callback=_folder,
    help="The folder that holds the runs (default: the project's folder of runs, else runs).",
)

_COLUMNS = ("run", "status", "steps", "best", "took")


@click.group()
def runs() -> None:
    r"""List, show, compare and remove runs.

    \b
    Example: vcell runs show latest
    """


@runs.command(name="list")
@_root
def list_runs(root: Path) -> None:
    r"""List the runs, newest last.

    \b
    Example: vcell runs list --json
    """
    found, problems = find_runs(root)
    for problem in problems:
        console.warn(problem)
    rows = [_overview(run) for run in found]
    text = console.table([[row[c] for c in _COLUMNS] for row in rows], _COLUMNS)
    nothing = f"no runs in {root} yet; vcell demo makes one"
    console.result({"runs": rows, "problems": problems}, text if rows else nothing)


def _overview(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "command": run.meta.get("command"),
        "status": run.status(),
        "steps": run.last_step(),
        "best": _best_metric(run),
        "took": _took(run),
    }


def _best_metric(run: Run) -> float | None:
    try:
        return run.checkpoint("best").metric
    except UserError:
        return None


def _took(run: Run) -> str | None:
    try:
        created = datetime.fromisoformat(run.meta["created"])
    except (KeyError, TypeError, ValueError):
        return None
    last = datetime.fromtimestamp(run.last_sign(), UTC)
    return console.duration(max(0.0, (last - created).total_seconds()))


@runs.command()
@click.argument("name", default="latest")
@_root
def show(name: str, root: Path) -> None:
    r"""Show one run: its settings, its last metrics, its checkpoints.

    \b
    Example: vcell runs show latest
    """
    run = Run.open(name, root)
    metrics = last_metrics(run)
    data = {
        **_overview(run),
        "path": run.path,
        "checkpoints": run.checkpoints(),
        "parts": [_overview(part) for part in run.parts()],
        "metrics": metrics,
        "summary": run.meta.get("summary", {}),
        "config": run.meta.get("config", {}),
        "meta": {k: run.meta.get(k) for k in ("argv", "created", "ended", "seed", "git", "data")},
    }
    console.result(data, _show_text(run, data, metrics))


def _show_text(run: Run, data: dict[str, Any], metrics: dict[str, Any]) -> str:
    steps = ", ".join(map(str, data["checkpoints"])) or "none"
    head = [
        (key, data[key])
        for key in ("run", "command", "status", "steps", "took", "path")
        if data[key] is not None
    ]
    parts = [console.table([*head, ("checkpoints", steps)], ["", ""]).split("\n", 2)[2]]
    if scores := held_out(run):
        parts.append(console.table(scores.items(), ["held-out score", ""]))
    outcome = metrics | {k: v for k, v in data["summary"].items() if not isinstance(v, dict | list)}
    if outcome:
        parts.append(console.table(outcome.items(), ["last value of", ""]))
    if data["parts"]:
        rows = [[part[c] for c in _COLUMNS] for part in data["parts"]]
        parts.append(console.table(rows, ("holds", *_COLUMNS[1:])))
    parts += _settings(data["config"], run.meta.get("provenance", {}))
    return "\n\n".join(parts)


def _settings(config: dict[str, Any], origins: dict[str, str]) -> list[str]:
    """Show the settings that were set, and the number of defaults."""
    chosen = [
        (key, _brief(value), origins.get(key, ""))
        for key, value in config.items()
        if origins.get(key, "default") != "default"
    ]
    left = len(config) - len(chosen)
    parts = [console.table(chosen, ["setting", "value", "from"])] if chosen else []
    if left:
        parts.append(f"{console.count(left, 'setting')} at the default (--json shows all)")
    return parts


def last_metrics(run: Run) -> dict[str, Any]:
    """Return the last values of all measurements; None where not a number."""
    history = run.history(ranks=False)
    values: dict[str, Any] = {}
    for kind in ("metric", "eval"):
        values |= dict.fromkeys(history.names(kind)) | history.table(kind).row()
    return values | ({"best": bool(values["best"])} if "best" in values else {})


def _brief(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@runs.command()
@click.argument("names", nargs=-1, required=True)
@_root
def compare(names: tuple[str, ...], root: Path) -> None:
    r"""Put runs side by side: the settings that differ, and their last metrics.

    \b
    Example: vcell runs compare 20261121-0245 latest
    """
    if len(names) < 2:
        raise UserError("comparing takes two runs or more", hint="vcell runs list names them")
    chosen = [Run.open(name, root) for name in names]
    measured = [last_metrics(run) for run in chosen]
    metrics = {
        key: [values.get(key) for values in measured]
        for key in dict.fromkeys(k for values in measured for k in values)
    }
    heads = ["", *(run.name for run in chosen)]
    status = [("status", *(run.status() for run in chosen))]
    settings = differing(chosen)
    rows = [(key, *map(_brief, values)) for key, values in settings.items()]
    parts = [console.table(status, heads)]
    scores = beside(chosen)
    if scores:
        parts.append(console.table(scores, ["held-out score", *heads[1:]]))
    if metrics:
        lines = [(name, *values) for name, values in metrics.items()]
        parts.append(console.table(lines, ["last value of", *heads[1:]]))
    if rows:
        parts.append(console.table(rows, ["setting that differs", *heads[1:]]))
    data = {
        "runs": [r.name for r in chosen],
        "held_out": {name: list(values) for name, *values in scores},
        "settings": settings,
        "metrics": metrics,
    }
    console.result(data, "\n\n".join(parts))


@runs.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Remove runs even while they are being written.")
@_root
def rm(*, names: tuple[str, ...], root: Path, force: bool) -> None:
    r"""Remove runs with everything in them.

    \b
    Example: vcell runs rm 20261121-024509-train-vcc-a1b2
    """
    doomed = list({run.path.resolve(): run for run in (Run.open(n, root) for n in names)}.values())
    busy = [run.name for run in doomed if run.status() in ("running", "stalled")]
    if busy and not force:
        raise UserError(
            f"{', '.join(busy)} may still be written to", hint="stop it first, or use --force"
        )
    for run in doomed:
        remove(run, root)
    removed = [run.name for run in doomed]
    console.result({"removed": removed}, "\n".join(f"removed {name}" for name in removed))
