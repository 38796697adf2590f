"""Sections of `vcell report` for runs that score held-out perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.as_json import none_if_nan
from vcell.metrics import verdict
from vcell.models.held_out import FILE, HeldOut
from vcell.report import svg

if TYPE_CHECKING:
    from vcell.report import Report
    from vcell.runs import Run

_MODELS = 8  # that a reader can distinguish in one picture
_MOST = 30  # perturbations listed


def sections(run: Run, report: Report) -> None:
    """Draw each held-out perturbation's gain by every model, and list where the model fails."""
    if not (run.path / FILE).is_file():
        return
    found = HeldOut.read([run])
    if not found.names:
        return
    model = str(run.meta.get("model"))
    gains = verdict.gains(found.scores)
    order = sorted(gains, key=lambda name: (name != model, -float(gains[name].mean())))[:_MODELS]
    called = [
        name if context == "all" else f"{name} in {context}"
        for name, context in zip(found.names, found.contexts, strict=True)
    ]
    points = {name: dict(zip(called, gains[name].tolist(), strict=True)) for name in order}
    report.heading("Every held-out perturbation")
    report.figure(
        "Gain over the mean effect",
        svg.strip(points, x="gain", reference=0),
        "One point per perturbation, named in the tooltip; the tick is a model's mean, the dashed "
        "line the mean effect.",
    )
    if model in gains:
        scores = found.scores[model]
        worst = sorted(range(len(called)), key=lambda i: float(gains[model][i]))[:_MOST]
        rows = [
            (
                called[i],
                float(gains[model][i]),
                none_if_nan(float(scores["pds"][i])),
                float(scores["mae"][i]),
            )
            for i in worst
        ]
        columns = ("perturbation", "gain", "PDS", "MAE")
        report.table(columns, rows, "perturbations, the worst first")
