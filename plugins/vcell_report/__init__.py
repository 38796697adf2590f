"""``vcell report``: the results of a run, and what they support, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from vcell.config import configured, option
from vcell.plugin import Plugin
from vcell.runs import ROOT


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Settings of `vcell report`, the [report] table."""

    output: Path | None = option(
        None,
        made="whole",
        short="-o",
        help="The file to write. By default report.html, training_report.md, report.json or card.md"
        " in the run; for several runs, in the working directory.",
    )
    format: Literal["html", "md", "json", "card"] = option(
        "html", help="A page, Markdown, JSON, or a model card."
    )
    plots_only: Path | None = option(
        None,
        made="into",
        help="Write only the curves, into this folder: SVG, and PNG with vcell[plots].",
    )
    runs: Path = option(Path(ROOT), help="The folder that holds the runs.")
    overwrite: bool = option(default=False, help="Replace a file that is already there.")


@click.command("report")
@click.argument("names", nargs=-1, metavar="RUN...")
@configured(ReportOptions)
def command(names: tuple[str, ...], config: ReportOptions) -> None:
    r"""Write a report of one run, or of several side by side.

    The verdict comes first, then curves, speed, cost, settings, data and warnings. The page is one
    file that loads nothing else: you can mail it and open it anywhere.
    RUN is a path, a name, the beginning of a name, or "latest" (the default). A run of folds or of
    a sweep shows its parts.

    \b
    Example: vcell report latest -o page.html
             vcell report 20261121 20261122 --format md -o compared.md
             vcell report latest --plots-only figures
    """
    from vcell_report.work import run

    run(names or ("latest",), config)


plugin = Plugin(
    name="report",
    summary="Write a run's report: verdict, curves, speed, cost, settings.",
    command=command,
    config=ReportOptions,
)
