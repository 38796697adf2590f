"""What the demo found: a table on the console, a page in its folder, one plain sentence first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.report import Page, svg
from vcell.runs import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

BASELINE, REPLICATE = "mean", "replicate"
# name in the tables of `vcell evaluate` -> name for people, and whether 0 is best
_METRICS = {
    "discrimination_score_l1": ("PDS", False),
    "mae": ("MAE", True),
    "overlap_at_N": ("DES", False),
}
_EXPLAINED = {
    BASELINE: "the mean effect of the training perturbations, for every target",
    REPLICATE: "the same experiment once more, drawn from the truth: what noise leaves to be had",
}


def write(
    folder: Path, trained: dict[str, Any], scores: Mapping[str, Any], done: Mapping[str, Any]
) -> Path:
    """Write the page of the demo; returns its path."""
    raw = {name: raw_scores(scored) for name, scored in scores.items()}
    model, gains = trained["model"], _gains(raw)
    page = Page("vcell demo", verdict(model, gains))
    page.heading("Scores on perturbations that nothing was learnt from")
    page.table(("prediction", *_names(raw), "gain over mean"), rows(raw, gains))
    for line in _legend(gains).splitlines():
        page.text(line)
    if raw[model]:
        page.figure("Gain over the mean baseline", svg.bars(gains), "1 is a perfect prediction.")
    curve = _curve(Run.open(trained["run"]))
    if curve[0]:
        page.figure(
            "Choosing the model",
            svg.line({"validation": curve}, x="step", y="gain"),
            "What the network adds to the prior that it starts from, on the validation "
            "perturbations: the lower bound of the gain by which the model is chosen.",
        )
    page.heading("What was done")
    page.facts(facts(folder, trained, done))
    out = folder / "report.html"
    page.write(out)
    return out


def tell(
    folder: Path,
    trained: dict[str, Any],
    scores: Mapping[str, Any],
    done: Mapping[str, Any],
    page: Path,
) -> None:
    """Print what was found."""
    raw = {name: raw_scores(scored) for name, scored in scores.items()}
    gains, model = _gains(raw), trained["model"]
    data = {
        "beats_the_mean": gains[model] > 0,
        "gain_over_mean": gains,
        "scores": raw,
        "run": trained["run"],
        "report": str(page),
        "seconds": done["finish"],
    }
    table = console.table(rows(raw, gains), ("prediction", *_names(raw), "gain over mean"))
    lines = (f"{name:10s} {text}" for name, text in facts(folder, trained, done).items())
    console.result(
        data,
        f"\n{verdict(model, gains)}\n\n{table}\n\n{_legend(gains)}\n\n" + "\n".join(lines),
    )


def verdict(model: str, gains: Mapping[str, float]) -> str:
    """Say in one sentence whether the model beats the mean baseline."""
    if gains[model] <= 0:
        return f"{model} does NOT beat the mean baseline on perturbations it never saw"
    said = f"{model} beats the mean baseline on perturbations it never saw: gain {gains[model]:.2f}"
    if REPLICATE in gains:
        said += f", where a replicate of the experiment has {gains[REPLICATE]:.2f}"
    return said


def raw_scores(scored: Mapping[str, Any]) -> dict[str, float]:
    """Return the challenge's three metrics of one evaluation."""
    found = scored["metrics"]
    return {words: found[name]["raw"] for name, (words, _) in _METRICS.items() if name in found}


def _names(raw: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    return tuple(next(iter(raw.values())))


def _gains(raw: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the challenge's overall score of each prediction, scaled by our mean baseline."""
    zero_is_best = dict(_METRICS.values())
    base = raw[BASELINE]
    gains = {}
    for name, scores in raw.items():
        parts = [
            1 - scores[m] / base[m] if zero_is_best[m] else (scores[m] - base[m]) / (1 - base[m])
            for m in scores
        ]
        gains[name] = sum(parts) / len(parts)
    return gains


def rows(raw: Mapping[str, Mapping[str, float]], gains: Mapping[str, float]) -> list[list[Any]]:
    """Return one line per prediction."""
    return [[name, *scores.values(), gains[name]] for name, scores in raw.items()]


def _legend(gains: Mapping[str, float]) -> str:
    explained = [f"{name}: {_EXPLAINED[name]}" for name in gains if name in _EXPLAINED]
    return (
        "PDS (discrimination) and DES (overlap of significant genes): 1 is best; MAE: 0 is best.\n"
        "Gain: mean of the three, scaled as the challenge does, without its floor at 0.\n"
        + "\n".join(explained)
    )


def facts(folder: Path, trained: dict[str, Any], done: Mapping[str, Any]) -> dict[str, str]:
    """Return where everything is."""
    aside = done["set-aside"]
    return {
        "held out": f"{len(aside['perturbations'])} perturbations, {aside['held_out']:,} cells "
        "with controls",
        "run": f"{trained['run']} (vcell runs show {Path(trained['run']).name})",
        "report": str(folder / "report.html"),
        "scores": f"{folder / 'scores'} (a page each)",
        "took": console.duration(done["finish"]),
    }


def _curve(run: Run) -> tuple[list[float], list[float]]:
    """Return steps and gains of the validations."""
    found = list(run.history(ranks=False).series("gain", "eval").finite())
    return [float(step) for step, _, _ in found], [gain for _, _, gain in found]
