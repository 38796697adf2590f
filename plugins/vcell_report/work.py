"""Read the runs and write the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vcell import console, outputs
from vcell.as_json import plain
from vcell.errors import UserError
from vcell.report import Markdown, Page
from vcell.runs import Run
from vcell_report import charts, layout, plots
from vcell_report.account import Account
from vcell_report.card import card

if TYPE_CHECKING:
    from vcell_report import ReportOptions

_NAMES = {
    "html": "report.html",
    "md": "training_report.md",
    "json": "report.json",
    "card": "card.md",
}
_ENDINGS = {"html": ".html", "md": ".md", "json": ".json", "card": ".md"}


def run(names: Sequence[str], config: ReportOptions) -> None:
    """Run the command."""
    suffixes = (_ENDINGS[config.format],)
    if config.plots_only is not None:
        outputs.check_folder(config.plots_only)
    elif config.output is not None:
        outputs.check(config.output, overwrite=config.overwrite, suffixes=suffixes)
    opened = [Run.open(name, config.runs) for name in dict.fromkeys(names)]
    accounts = [Account.of(one) for one in {one.path.resolve(): one for one in opened}.values()]
    run_names = [account.run.name for account in accounts]
    if config.plots_only is not None:
        every = [chart for chart in charts.every(accounts) if any(c.x for c in chart.curves)]
        if not every:
            raise UserError(f"{', '.join(run_names)}: nothing was recorded that could be drawn")
        files = plots.write(every, config.plots_only, overwrite=config.overwrite)
        console.result(
            {"runs": run_names, "plots": [str(path) for path in files]},
            f"{console.count(len(files), 'file')} in {config.plots_only}",
        )
        return
    if config.format == "card" and len(accounts) > 1:
        raise UserError("a model card is about one run", hint="name one, or use --format md")
    path = _target(accounts, config)
    outputs.write_text(path, _content(accounts, config.format))
    verdicts = {account.run.name: account.verdict()[0] for account in accounts}
    lines = [*(f"{name}: {verdict}" for name, verdict in verdicts.items()), f"report: {path}"]
    console.result({"report": str(path), "runs": run_names, "verdicts": verdicts}, "\n".join(lines))


def _content(accounts: Sequence[Account], form: str) -> str:
    if form == "json":
        data = {
            outputs.MADE_BY: outputs.made_by(),
            "runs": [account.plain() for account in accounts],
            "differing": {row[0]: list(row[1:]) for row in layout.differences(accounts)},
        }
        return json.dumps(plain(data), indent=1) + "\n"
    if form == "card":
        return card(accounts[0])
    one = accounts[0].run if len(accounts) == 1 else None
    title = f"vcell {one.meta.get('command')}" if one else f"{len(accounts)} runs"
    subtitle = one.name if one else ", ".join(account.run.name for account in accounts)
    if form == "md":
        text = Markdown(title, subtitle)
        layout.write(text, accounts)
        return text.markdown(outputs.made_by())
    page = Page(title, subtitle)
    layout.write(page, accounts)
    return page.html()


def _target(accounts: Sequence[Account], config: ReportOptions) -> Path:
    """Return the path of the report; other files are not replaced."""
    if config.output is not None:
        return config.output
    one = len(accounts) == 1
    target = (accounts[0].run.path if one else Path()) / _NAMES[config.format]
    outputs.check(target, overwrite=one or config.overwrite)  # reports inside a run may be replaced
    return target
