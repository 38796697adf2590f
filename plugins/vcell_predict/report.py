"""The report of a prediction: a summary, a table, a page, and metadata in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.report import Page, svg
from vcell_predict import after, uncertainty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_predict import Predict
    from vcell_predict.ensemble import Ensemble
    from vcell_predict.prediction import Prediction
    from vcell_predict.strength.calibration import Strengths


_VOLCANOES, _MOST_POINTS, _TOP, _LISTED = 3, 2000, 10, 30
_WORDS = {
    "n_cells": "cells", "by_the_mean": "by the mean effect", "genes_before": "genes at strength 1",
    "genes_predicted": "genes as written",
}  # fmt: skip


def table(prediction: Prediction) -> dict[str, Any]:
    """Return the columns of the table, one row per perturbation."""
    blind = set(prediction.blind)
    columns: dict[str, Any] = {
        "perturbation": [one.name for one in prediction.requests],
        "context": [one.context for one in prediction.requests],
        "n_cells": prediction.cells.tolist(),
        "by_the_mean": [one.name in blind for one in prediction.requests],
        "effect": np.sqrt(np.square(prediction.effect, dtype=np.float64).mean(axis=1)),
    }
    for name, values in prediction.sources.items():
        columns[f"uncertainty_{name.replace(' ', '_')}"] = values
    found = prediction.strengths
    if found is not None:
        columns |= {
            "strength": found.strength,
            "genes_expected": found.expected,
            "genes_before": found.before,
            "genes_predicted": found.after,
        }
    return columns


def uns(config: Predict, ensemble: Ensemble, prediction: Prediction) -> dict[str, Any]:
    """Return the metadata saved in the file."""
    metadata: dict[str, Any] = {
        "cells": config.mode,
        "runs": np.array([member.run.name for member in ensemble.members]),
        "models": np.array([member.kind for member in ensemble.members]),
        "seed": config.seed,
        "by_the_mean": np.array(prediction.blind, dtype=str),
        "perturbations": {name: np.asarray(values) for name, values in table(prediction).items()},
    }
    if np.isfinite(ensemble.screen.target_sum):
        metadata["target_sum"] = ensemble.screen.target_sum
    return {"vcell": metadata} if config.mode == "counts" else {"log1p": {}, "vcell": metadata}


def page(config: Predict, ensemble: Ensemble, prediction: Prediction) -> Page:
    """Build the page."""
    page = Page("vcell predict", f"{config.output.name}, by {ensemble.called}")
    cells = console.count(int(prediction.cells.sum()), "cell")
    page.headline(
        f"{cells} of {console.count(len(prediction.requests), 'perturbation')} predicted",
        _detail(ensemble, prediction),
    )
    _genes(page, ensemble, prediction)
    if prediction.strengths is not None:
        _expected(page, prediction, prediction.strengths)
    if prediction.trust is not None:
        _trusted(page, prediction.trust)
    page.heading("Cells")
    by_mean = ", ".join(prediction.blind) or "none"
    page.facts(
        {
            "control cells": prediction.n_controls,
            "made as": config.mode,
            "by the mean effect": by_mean,
        }
    )
    columns = table(prediction)
    page.table(
        [_WORDS.get(name, name.replace("_", " ")) for name in columns],
        zip(*(list(values) for values in columns.values()), strict=True),
        "every perturbation in numbers",
    )
    return page


def _detail(ensemble: Ensemble, prediction: Prediction) -> str:
    """Return which perturbations are strongest, in which genes, and what was not learnt."""
    parts = []
    for i in _order(prediction)[:_VOLCANOES]:
        gene = int(np.abs(prediction.effect[i]).argmax())
        change = float(prediction.effect[i, gene]) / np.log(2)
        if change:
            most = f"{ensemble.screen.genes[gene]} {change:+.2g}"
            parts.append(f"{prediction.requests[i].name} ({most})")
    found = "strongest, with the log2 fold change of a gene: " + ", ".join(parts)
    lines = [found if parts else "no gene changes: the effects predicted are 0"]
    if prediction.strengths is not None:
        after, expected = (
            float(np.median(v)) for v in (prediction.strengths.after, prediction.strengths.expected)
        )
        lines.append(f"significant genes (median): {after:,.0f}, {expected:,.0f} expected")
    if prediction.blind:
        lines.append(f"by the mean effect: {', '.join(prediction.blind)}")
    return "; ".join(lines)


def _order(prediction: Prediction) -> list[int]:
    """Return the perturbations, the strongest first."""
    strength = np.square(prediction.effect, dtype=np.float64).mean(axis=1)
    order: list[int] = np.argsort(-strength, kind="stable").tolist()
    return order


def _expected(page: Page, prediction: Prediction, found: Strengths) -> None:
    """Plot the numbers of significant genes against those expected."""
    names = [one.name for one in prediction.requests]
    page.heading("Significant genes")
    page.text(
        f"The expected number is what {found.n_measured} measured perturbations show for "
        "effects of this size, including changes that no model can foresee. Each effect is "
        "written at the strength that comes nearest."
    )
    if found.note:
        page.text(f"{found.note[:1].upper()}{found.note[1:]}.")
    before = (found.expected.tolist(), found.before.tolist())
    written = (found.expected.tolist(), found.after.tolist())
    picture = svg.scatter(
        {"strength 1": before, "as written": written},
        x="genes expected", y="genes predicted", diagonal=True,
        names={"strength 1": names, "as written": names},
    )  # fmt: skip
    page.figure("Predicted against expected", picture, "One point per perturbation.")


def _genes(page: Page, ensemble: Ensemble, prediction: Prediction) -> None:
    """Draw volcano plots of the strongest perturbations, and list the genes that change most."""
    effect = prediction.effect.astype(np.float64)
    genes, order = ensemble.screen.genes, _order(prediction)
    names = [one.name for one in prediction.requests]
    page.heading("Genes")
    for i in order[:_VOLCANOES]:
        spread, n_controls = prediction.spread[prediction.requests[i].context]
        height = significance(effect[i], spread, int(prediction.cells[i]), n_controls)
        some = np.argsort(-np.abs(effect[i]), kind="stable")[:_MOST_POINTS]
        picture = svg.volcano(
            {"genes": ((effect[i, some] / np.log(2)).tolist(), height[some].tolist())},
            names={"genes": genes[some].tolist()},
        )
        page.figure(f"{names[i]}: predicted change", picture)
    page.text(
        "Significance is what a screen of so many cells would find if the prediction held: a "
        "normal test of cells whose genes vary as they do in the control cells. It is written as "
        "300 where it is more."
    )
    top = np.argsort(-np.abs(effect), axis=1, kind="stable")[:, :_TOP]
    rows = []
    for i in order:
        up = [genes[g] for g in top[i] if effect[i, g] > 0]
        down = [genes[g] for g in top[i] if effect[i, g] < 0]
        rows.append((names[i], ", ".join(up) or "none", ", ".join(down) or "none"))
    heads = ("perturbation", "genes that rise most", "genes that fall most")
    page.table(heads, rows[:_LISTED])
    if rows[_LISTED:]:
        page.table(heads, rows[_LISTED:], f"the {len(rows) - _LISTED:,} weaker perturbations")


def significance(
    effect: NDArray[np.float64], spread: NDArray[np.float64], cells: int, controls: int
) -> NDArray[np.float64]:
    """Return -log10 p (N,) of an effect on `cells` cells, with the variance of the controls.

    It is 0 for a gene without variance.
    """
    from scipy.special import log_ndtr

    error = np.sqrt(spread * (1 / max(cells, 1) + 1 / max(controls, 1)))
    z = np.divide(np.abs(effect), error, out=np.zeros_like(effect), where=error > 0)
    height: NDArray[np.float64] = np.clip(-(log_ndtr(-z) + np.log(2)) / np.log(10), 0.0, 300.0)
    return height


def _trusted(page: Page, trust: uncertainty.Trust) -> None:
    """Plot uncertainty against error."""
    page.heading("Uncertainty")
    correlation = trust.correlations()
    page.text(
        f"Uncertainty and error (root mean square over the genes) of {len(trust.names)} "
        f"perturbations of the run {trust.part}; the error is without the noise of the measurement."
    )
    for name, values in trust.sources.items():
        picture = svg.scatter(
            {"": (values.tolist(), trust.error.tolist())},
            x=f"uncertainty ({name})", y="error", diagonal=True, names={"": trust.names},
        )  # fmt: skip
        rank = correlation.get(name)
        caption = "all alike" if rank is None else f"Rank correlation {rank:.2f}."
        page.figure(f"Error against uncertainty: {name}", picture, caption)


def tell(
    config: Predict,
    ensemble: Ensemble,
    prediction: Prediction,
    files: dict[str, Any],
    followed: dict[str, Any],
) -> None:
    """Print the result."""
    n_predicted = int(prediction.cells.sum())
    names = [one.name for one in prediction.requests]
    data = {
        "prediction": str(config.output),
        "runs": [str(member.run.path) for member in ensemble.members],
        "models": [member.kind for member in ensemble.members],
        "cells": config.mode,
        "perturbations": names,
        "by_the_mean": prediction.blind,
        "n_cells": n_predicted + prediction.n_controls,
        "predicted_cells": n_predicted,
        "table": {name: list(values) for name, values in table(prediction).items()},
        "uncertainty": None if prediction.trust is None else prediction.trust.correlations(),
        "files": files,
        "strength": None if prediction.strengths is None else prediction.strengths.note,
    }
    by_mean = f", {len(prediction.blind)} of them by the mean effect" if prediction.blind else ""
    first = (
        f"{config.output}: {console.count(n_predicted, 'cell')} of "
        f"{console.count(len(names), 'perturbation')}{by_mean}, "
        f"{prediction.n_controls:,} controls, by {ensemble.called}"
    )
    lines = [
        first,
        *_strength(prediction),
        *_trust(prediction.trust),
        f"more: {files['page']}",
        after.text(followed),
    ]
    console.result(data | followed, "\n".join(line for line in lines if line))


def _strength(prediction: Prediction) -> list[str]:
    found = prediction.strengths
    if found is None:
        return []
    middle = [float(np.median(x)) for x in (found.before, found.after, found.expected)]
    low, high = found.strength.min(), found.strength.max()
    text = (
        f"significant genes (median): {middle[0]:,.0f} at strength 1, {middle[1]:,.0f} at the "
        f"strengths written ({low:.2f} to {high:.2f}), {middle[2]:,.0f} expected from "
        f"{found.n_measured} measured perturbations"
    )
    return [text, found.note]


def _trust(trust: uncertainty.Trust | None) -> list[str]:
    if trust is None:
        return []
    return [
        f"uncertainty ({name}): rank correlation {rank:.2f} with the error on {len(trust.names)} "
        f"perturbations {trust.part}"
        for name, rank in trust.correlations().items()
    ]
