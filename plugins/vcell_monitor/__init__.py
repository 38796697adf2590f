"""`vcell monitor`: watch runs in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from vcell.config import configured, option
from vcell.plugin import Plugin


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """Settings of `vcell monitor`, the [monitor] table."""

    runs: Path = option(Path("runs"), help="The folder of runs, if PATH names none.")
    filter: str = option(
        "", help="Show only matching runs, as in 'status:running lr>=1e-3'; the / key changes this."
    )
    once: bool = option(
        default=False, help="Print the state of the runs and exit; no terminal is needed."
    )
    replay: str | None = option(None, help="Play back this run, given by name or path.")
    speed: float = option(
        10.0, help="With --replay: how many times faster than it ran.", minimum=0.1
    )
    ascii: bool = option(
        default=False, help="Draw with ASCII only (the default where the terminal has no UTF-8)."
    )


@click.command("monitor")
@click.argument("path", required=False)
@configured(MonitorOptions)
def command(path: str | None, config: MonitorOptions) -> None:
    r"""Watch runs in the terminal: curves, where the time goes, GPUs, logs.

    PATH is a folder of runs, one run, or the name of a run. Only files of the run directories are
    read, so it works from any machine that sees them, while a run trains and long after. Keys ask a
    run for a checkpoint, to pause or to stop; ? shows all keys.

    \b
    Example: vcell monitor
             vcell monitor 20261121-0245
             vcell monitor --once --json
             vcell monitor --replay latest --speed 100
    """
    from vcell_monitor.work import monitor

    monitor(path, config)


plugin = Plugin(
    name="monitor",
    summary="Watch runs in the terminal: curves, GPUs, logs.",
    command=command,
    config=MonitorOptions,
    needs=("textual",),
)
