"""The page of a run: the accuracy of labels, which labels are confused, the latent space."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.gmvae import scores
from vcell.metrics.verdict import Difference
from vcell.report import Chart, Curve, Page, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vcell.report.page import Tone
    from vcell.runs import Run
    from vcell_train_gmvae.report import Named
    from vcell_train_gmvae.study import Study

    Array = NDArray[Any]

OURS = "gmvae"
COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "ece": "calibration error"}
HEADS = ("model", *COLUMNS.values(), "gmvae over it, macro-F1 (95 %)")
FEWEST = 20  # held-out cells for a verdict: an interval drawn from fewer is too short
CURVES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "ari": "ARI"}
_SHOWN = 3000  # cells in a figure
_COLOURED = 8  # labels with their own colour: the largest
_BINS = 10
_NAMED = 30  # labels up to which the confusion has names


def write(
    run: Run,
    study: Study,
    mean: Array,
    judged: Array,
    named: Mapping[str, Named],
    rows: list[tuple[str | float, ...]],
    measured: Mapping[str, float],
    told: Mapping[str, str],
) -> None:
    """Write ``index.html`` into the run."""
    shape = study.shape
    page = Page("vcell train-gmvae", f"{run.name}: {run.meta['config'].get('cells')}")
    tones: dict[str, Tone] = {"beats": "good", "worse": "bad"}
    page.headline(told["text"], tone=tones.get(told["claim"], "plain"))
    if rows:
        page.table(HEADS, rows)
        page.text(
            "All are fitted to the same shown labels and scored on the same held-out cells. "
            "Calibration error is the mean distance between confidence and accuracy (15 bins)."
        )
    page.facts(
        {
            "cells learned from": int((~study.held_out).sum()),
            "of them with a label shown": int((study.shown >= 0).sum()),
            "cells whose label looked wrong and was not shown": int(study.suspect.sum()),
            "cells held out": int(study.held_out.sum()),
            "of them with a label, and scored": len(judged),
            "genes": shape.genes, "labels": len(study.labels), "batches": len(study.batches),
            "components": shape.components, "likelihood": shape.likelihood,
            "widths": " - ".join(map(str, (*shape.encoder, shape.latent, *shape.decoder))),
            "ARI of the components": measured.get("ari"), "NMI": measured.get("nmi"),
        }
    )  # fmt: skip
    _curves(page, run)
    if named:
        _labels(page, study, judged, named[OURS])
    _pictures(page, study, mean)
    run.save_file("index.html", page.write)


def _curves(page: Page, run: Run) -> None:
    history = run.history(ranks=False)

    def curve(title: str, name: str) -> Curve:
        series = history.series(name, "eval")
        return Curve.of(title, series.steps, series.values)

    page.heading("While it trained")
    known = history.names("eval")
    curves = [curve(title, name) for name, title in CURVES.items() if name in known]
    if curves:
        page.chart(Chart("Held-out cells, named by the mixture", curves, reading="By validation."))
    page.chart(
        Chart("Objective on held-out cells, without labels", [curve("objective", "nelbo")],
              y="nats a cell", reading="Lower is better; the lowest chose the network.")
    )  # fmt: skip


def _labels(page: Page, study: Study, judged: Array, predicted: Named) -> None:
    page.heading("Labels")
    truth = study.label[judged]
    table = scores.confusion(truth, predicted.label, len(study.labels))
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    page.figure("Confusion", *_confusion(share, study.labels))
    edges = np.minimum((predicted.probability * _BINS).astype(int), _BINS - 1)
    at = [k for k in range(_BINS) if (edges == k).any()]
    confidence = [float(predicted.probability[edges == k].mean()) for k in at]
    accuracy = [float((predicted.label == truth)[edges == k].mean()) for k in at]
    page.figure(
        "Calibration",
        svg.scatter({"tenths of confidence": (confidence, accuracy)}, x="confidence",
                    y="accuracy", diagonal=(0, 1)),
        "Calibrated probabilities lie on the line.",
    )  # fmt: skip
    f1 = scores.f1_of(table)
    worst = share - np.diag(np.diag(share))
    rows = [
        (name, int(table[k].sum()), None if np.isnan(f1[k]) else float(f1[k]),
         study.labels[int(worst[k].argmax())] if worst[k].max() > 0 else None)
        for k, name in enumerate(study.labels)
    ]  # fmt: skip
    page.table(("label", "held-out cells", "F1", "most often taken for"), rows)


def _confusion(share: Array, labels: Sequence[str]) -> tuple[str, str]:
    """Return the picture of which labels are taken for which, with names if there is room."""
    legend = "share of the true label's cells"
    if len(labels) <= _NAMED:
        rows = dict(zip(labels, share.tolist(), strict=True))
        picture = svg.named_heat_map(rows, list(labels), legend=legend, signed=False)
        return picture, "A row for each true label, a column for each given one."
    picture = svg.heat_map(share.tolist(), rows="true label", columns="given label", legend=legend)
    return picture, "Rows and columns in the order of the table below."


def _pictures(page: Page, study: Study, mean: Array) -> None:
    page.heading("Latent space")
    rng = np.random.default_rng(0)
    some = np.sort(rng.permutation(len(mean))[:_SHOWN])
    x = mean[some] - mean[some].mean(0)
    _, size, axes = np.linalg.svd(x, full_matrices=False)
    share = size**2 / max((size**2).sum(), 1e-12)
    if x.shape[1] > 1:
        flat = x @ axes[:2].T
        caption = f"{100 * share[0]:.0f} % and {100 * share[1]:.0f} % of the variance"
        _cloud(page, "Principal components", flat, study, some, f"{caption}; {len(some):,} cells.")
    if find_spec("umap"):
        import warnings

        import umap

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flat = umap.UMAP(random_state=0).fit_transform(x)
        _cloud(page, "UMAP", flat, study, some, "Distances between groups mean little.")


def _cloud(page: Page, title: str, flat: Array, study: Study, some: Array, caption: str) -> None:
    label = study.label[some]
    counts = np.bincount(label[label >= 0], minlength=len(study.labels))
    series = {}
    largest = np.argsort(-counts, kind="stable")[:_COLOURED]
    for k in largest.tolist():
        if counts[k]:
            series[study.labels[k]] = label == k
    rest = ~np.isin(label, largest)
    if rest.any():
        series["others" if study.labels else "cells"] = rest
    full = np.array([*study.labels, "no label"])  # the last is that of -1
    picture = svg.scatter(
        {name: flat[rows].T.tolist() for name, rows in series.items()}, x="first", y="second",
        equal=title != "UMAP", names={name: full[label[rows]] for name, rows in series.items()},
    )  # fmt: skip
    page.figure(title, picture, caption)


def table(
    found: Mapping[str, Mapping[str, float]], over: Mapping[str, Mapping[str, float]]
) -> list[tuple[str | float, ...]]:
    """Return the scores of each head, and our gain over it in macro-F1: rows under `HEADS`."""
    return [
        (name, *(of[key] for key in COLUMNS), _interval(over[name]) if name in over else "")
        for name, of in found.items()
    ]


def _interval(gained: Mapping[str, float]) -> str:
    return str(Difference(gained["gain"], gained["low"], gained["high"], math.nan, 0))


def claim(gained: Mapping[str, float]) -> str:
    """Return the verdict on the head in one word, as in `vcell.metrics.verdict`."""
    if not gained:
        return "few"
    return "beats" if gained["low"] > 0 else "worse" if gained["high"] < 0 else "open"


def verdict(gained: Mapping[str, float], n: int, *, labelled: bool) -> str:
    """Describe whether the head is better than the baseline, on `n` held-out cells."""
    if not labelled:
        return "trained; no label was shown, so none is given"
    if not gained:
        return f"too few for a verdict: {console.count(n, 'held-out cell')} with a label"
    how = _interval(gained)
    measure = f"in macro-F1 on {console.count(n, 'held-out cell')}"
    other = "logistic regression on 30 PCs"
    return {
        "beats": f"gmvae beats {other} by {how} {measure}",
        "worse": f"gmvae is worse than {other}, {how} {measure}",
        "open": f"no difference is shown between gmvae and {other}: {how} {measure}",
    }[claim(gained)]
