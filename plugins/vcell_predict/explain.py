"""What predictions are based on: important genes, and similar measured perturbations.

A model with `explain` returns the importance of each of its genes, and its attention. For any
model, each effect is written as a weighted sum of measured effects (ridge regression, with their
sampling noise as the penalty). P perturbations, M measured ones, N genes, T genes of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell import console
from vcell.models import Explains
from vcell.report import Page, svg
from vcell.screen.split import TRAIN, VALIDATION
from vcell_predict import uncertainty

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.models import Explanation
    from vcell_predict.ensemble import Ensemble
    from vcell_predict.prediction import Prediction

    Array = NDArray[np.float64]

_TOP_GENES, _TOP_MEASURED, _ROWS, _COLUMNS = 40, 10, 60, 20
_PAIRS = 1000  # most pairs of genes in the attention table


def explain(folder: Path, ensemble: Ensemble, prediction: Prediction) -> None:
    """Write the tables and the page into a folder."""
    page = Page("vcell predict --explain", console.count(len(prediction.requests), "perturbation"))
    _responding(folder, page, ensemble, prediction)
    _resembling(folder, page, ensemble, prediction)
    items = [
        (member.kind, member.predictor.explain(*_pairs(prediction)))
        for member in ensemble.members[:1]
        if isinstance(member.predictor, Explains)
    ]
    for kind, explanation in items:
        _seen(folder, page, kind, explanation)
    if not items:
        page.text(f"{ensemble.first.kind} has no attention to show.")
        console.detail(f"{ensemble.first.kind} offers no explanation of its own")
    page.write(folder / "index.html")


def _pairs(prediction: Prediction) -> tuple[list[str], list[str]]:
    return (
        [one.name for one in prediction.requests],
        [one.context for one in prediction.requests],
    )


def _responding(folder: Path, page: Page, ensemble: Ensemble, prediction: Prediction) -> None:
    """List the responding genes, by the root mean square of their effects over perturbations."""
    effect = prediction.effect.astype(np.float64)
    response = np.sqrt(np.square(effect).mean(axis=0))
    genes, names = ensemble.screen.genes, _pairs(prediction)[0]
    order = np.argsort(-response, kind="stable")
    strongest = np.abs(effect).argmax(axis=0)
    uncertainty.write(
        folder / "genes.csv",
        {
            "gene": genes[order].tolist(),
            "response": response[order],
            "mean_effect": effect.mean(axis=0)[order],
            "strongest_perturbation": [names[i] for i in strongest[order]],
            "strongest_effect": effect[strongest, np.arange(len(genes))][order],
        },
    )
    top = order[:_TOP_GENES]
    page.headline(
        f"Genes that respond most: {', '.join(genes[order[:5]])}",
        f"of {console.count(len(genes), 'gene')}, predicted by {ensemble.called}",
    )
    page.heading("Responding genes")
    bars = {str(genes[i]): float(response[i]) for i in top}
    page.figure("Response", svg.bars(bars, x="root mean square effect"), "genes.csv has all.")
    few = top[:_COLUMNS]
    contexts = _pairs(prediction)[1]
    called = [
        name if len(set(contexts)) == 1 else f"{name} in {context}"
        for name, context in zip(names, contexts, strict=True)
    ]
    rows = dict(zip(called, effect[:_ROWS, few].tolist(), strict=False))
    picture = svg.named_heat_map(rows, genes[few].astype(str).tolist(), legend="effect")
    more = f" The first {_ROWS} of {len(effect):,} perturbations." if len(effect) > _ROWS else ""
    page.figure("Predicted effects", picture, f"The first {len(few)} of these genes.{more}")


def _resembling(folder: Path, page: Page, ensemble: Ensemble, prediction: Prediction) -> None:
    """Write each effect as a weighted sum of measured ones, and list the largest weights."""
    screen = ensemble.screen
    rows = np.flatnonzero(np.isin(screen.part, (TRAIN, VALIDATION)))
    weight, fit = weights(prediction.effect, screen.delta[rows], screen.noise[rows])
    most = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :_TOP_MEASURED]
    names, contexts = _pairs(prediction)
    measured = [f"{screen.perturbations[row]}" for row in rows]
    lines = [(i, j) for i in range(len(names)) for j in most[i]]
    uncertainty.write(
        folder / "measured.csv",
        {
            "perturbation": [names[i] for i, _ in lines],
            "context": [contexts[i] for i, _ in lines],
            "explained": [fit[i] for i, _ in lines],
            "measured": [measured[j] for _, j in lines],
            "measured_context": [str(screen.contexts[screen.context[rows[j]]]) for _, j in lines],
            "weight": [weight[i, j] for i, j in lines],
        },
    )
    page.heading("Measured perturbations that the predictions resemble")
    page.text(
        "Each predicted effect as a weighted sum of measured ones; explained is the share of it "
        "that the sum explains. measured.csv has more."
    )
    shown = [
        (
            names[i], float(fit[i]),
            ", ".join(f"{measured[j]} {weight[i, j]:+.2f}" for j in most[i][:5]),
        )
        for i in range(min(len(names), _ROWS))
    ]  # fmt: skip
    page.table(("perturbation", "explained", "largest weights"), shown)


def weights(
    effect: NDArray[np.floating], measured: NDArray[np.floating], noise: NDArray[np.floating]
) -> tuple[Array, Array]:
    """Return weights (P, M) of measured effects, and the share (P,) of each effect explained."""
    target, basis = effect.astype(np.float64), measured.astype(np.float64)
    inner = basis @ basis.T
    penalty = float(noise.mean()) * basis.shape[1] + 1e-9 * float(np.trace(inner))
    found = np.linalg.solve(inner + penalty * np.eye(len(basis)), basis @ target.T).T
    left = np.square(target - found @ basis).sum(axis=1)
    total = np.square(target).sum(axis=1)
    explained = 1 - np.divide(left, total, out=np.ones_like(total), where=total > 0)
    return found, explained


def _seen(folder: Path, page: Page, kind: str, explanation: Explanation) -> None:
    """Show the importance of the model's genes, and its attention."""
    genes = [str(gene) for gene in explanation.genes]
    importance = np.asarray(explanation.importance, np.float64)
    order = np.argsort(-importance, kind="stable")
    uncertainty.write(
        folder / "importance.csv",
        {"gene": [genes[i] for i in order], "importance": importance[order]},
    )
    page.heading(f"What {kind} looks at")
    bars = {genes[i]: float(importance[i]) for i in order[:_TOP_GENES]}
    page.figure("Importance", svg.bars(bars, x="importance"), "importance.csv has all.")
    if explanation.attention is None:
        return
    last = np.asarray(explanation.attention, np.float64)
    last = last if last.ndim == 2 else last.mean(axis=0)
    i, j = np.unravel_index(np.argsort(-last, axis=None, kind="stable")[:_PAIRS], last.shape)
    uncertainty.write(
        folder / "attention.csv",
        {
            "gene": [genes[a] for a in i],
            "attends_to": [genes[b] for b in j],
            "attention": last[i, j],
        },
    )
    top = order[:_ROWS]
    picture = svg.heat_map(
        last[np.ix_(top, top)].tolist(), rows="gene", columns="attends to", legend="attention"
    )
    caption = (
        f"The {len(top)} most important genes in that order, averaged over perturbations, heads "
        "and layers."
    )
    page.figure("Attention", picture, caption)
