"""Figures of a classifier, each as SVG, as PNG where matplotlib is installed, and as CSV."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vcell import console
from vcell.patients import saved, scores
from vcell.patients.nested import MODEL
from vcell.report import Table, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vcell.patients.cohort import Cohort
    from vcell.patients.nested import Outer

    Array = NDArray[Any]

Series = dict[str, tuple[list[float], list[float]]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure: curves, points or rows of points, and the table of its data."""

    name: str
    title: str
    kind: Literal["line", "scatter", "strip", "intervals"]
    x: str
    y: str
    series: Series
    table: Table
    diagonal: bool | tuple[float, float] = False
    equal: bool = False  # x and y are one quantity
    caption: str = ""
    labels: dict[str, list[str]] = field(default_factory=dict)

    def svg(self) -> str:
        """Draw the figure for a page."""
        if self.kind == "line":
            return svg.line(self.series, x=self.x, y=self.y, diagonal=self.diagonal)
        if self.kind == "scatter":
            return svg.scatter(
                self.series, x=self.x, y=self.y, diagonal=self.diagonal, equal=self.equal,
                names=self.labels,
            )  # fmt: skip
        if self.kind == "intervals":
            ends = {name: (ys[1], ys[0], ys[2]) for name, (_, ys) in self.series.items()}
            return svg.intervals(ends, x=self.y)
        groups = {
            name: dict(zip(self.labels[name], ys, strict=True))
            for name, (_, ys) in self.series.items()
        }
        return svg.strip(groups, x=self.y)

    def draw(self, axes: Any) -> None:
        """Draw the figure on matplotlib axes."""
        for i, (name, (xs, ys)) in enumerate(self.series.items()):
            if self.kind == "line":
                axes.plot(xs, ys, label=name)
            elif self.kind == "scatter":
                axes.scatter(xs, ys, s=8, label=name)
            elif self.kind == "intervals":
                axes.plot(ys, [i] * len(ys), color="C0", marker="o", markevery=[1])
            else:
                axes.scatter(ys, [i] * len(ys), s=8, label=name)
        if self.diagonal:
            axes.axline((0, 0), slope=1, linestyle="--", color="grey")
        if self.kind in ("strip", "intervals"):  # rows are named on the left
            axes.set(title=self.title, xlabel=self.y)
            axes.set_yticks(range(len(self.series)), list(self.series))
            return
        axes.set(title=self.title, xlabel=self.x, ylabel=self.y)
        if self.equal:
            axes.set_aspect("equal", adjustable="datalim")
        axes.legend()


def of_run(cohort: Cohort, outers: list[Outer]) -> list[Picture]:
    """Return the figures that need only the run."""
    given = saved.pooled(outers, cohort.n)
    return [roc(cohort, given), calibration(cohort, given), attention(cohort, outers)]


def roc(cohort: Cohort, given: dict[str, Array]) -> Picture:
    """Draw ROC curves of all models; for more than two outcomes, of each against the rest."""
    codes = [1] if len(cohort.outcomes) == 2 else range(len(cohort.outcomes))
    series: Series = {}
    for name, p in given.items():
        for code in codes if name == MODEL or len(cohort.outcomes) == 2 else ():
            false, true = scores.curve(p[:, code], cohort.outcome == code)
            word = name if len(cohort.outcomes) == 2 else f"{name}: {cohort.outcomes[code]}"
            series[word] = (false.tolist(), true.tolist())
    rows = [(n, a, b) for n, (xs, ys) in series.items() for a, b in zip(xs, ys, strict=True)]
    return Picture(
        name="roc", title="ROC, all folds", kind="line", x="false positive rate",
        y="true positive rate", series=series, diagonal=(0, 1),
        table=Table.of(("model", "false_positive_rate", "true_positive_rate"), rows),
        caption="Patients of all folds in one curve; the AUC of the table compares within folds. "
        "The dashed line is chance.",
    )  # fmt: skip


def calibration(cohort: Cohort, given: dict[str, Array]) -> Picture:
    """Draw accuracy against confidence."""
    series: Series = {}
    rows: list[tuple[Any, ...]] = []
    labels = {}
    for name, p in given.items():
        bins = scores.reliability(p.max(1), p.argmax(1) == cohort.outcome)
        series[name] = ([b[0] for b in bins], [b[1] for b in bins])
        labels[name] = [f"{name}, {console.count(int(b[2]), 'patient')}" for b in bins]
        rows += [(name, *b) for b in bins]
    return Picture(
        name="calibration", title="Calibration", kind="scatter", x="confidence", y="accuracy",
        series=series, diagonal=(0, 1), labels=labels,
        table=Table.of(("model", "confidence", "accuracy", "patients"), rows),
        caption="One point a bin of a tenth; bins of few patients lie far off by chance.",
    )  # fmt: skip


def attention(cohort: Cohort, outers: Sequence[Outer]) -> Picture:
    """Draw the weights of modalities in the fusion, one point per test patient."""
    names = outers[0].names
    weight = np.full((cohort.n, len(names)), np.nan)
    for one in outers:
        weight[one.tests] = one.weights
    series = {n: ([0.0] * cohort.n, weight[:, i].tolist()) for i, n in enumerate(names)}
    rows = [(p, *weight[i].tolist()) for i, p in enumerate(cohort.patients)]
    return Picture(
        name="attention", title="Weight of each modality", kind="strip", x="", y="weight",
        series=series, labels={n: list(cohort.patients) for n in names},
        table=Table.of(("patient", *names), rows),
        caption="1/variance of the predictor, normalised over modalities; test patients.",
    )  # fmt: skip


def ablation(rows: list[dict[str, Any]]) -> Picture:
    """Draw the loss of AUC by each change, with its interval."""
    lost = {row["variant"]: row["lost"] for row in rows if row["lost"]}
    keys = ("low", "value", "high")
    return Picture(
        name="ablation", title="What the AUC loses", kind="intervals", x="", y="AUC lost",
        series={n: ([0.0] * 3, [one[k] for k in keys]) for n, one in lost.items()},
        table=Table.of(("variant", "lost", "low", "high"),
                       [(n, one["value"], one["low"], one["high"]) for n, one in lost.items()]),
        caption="Estimate and 95 % interval, paired by patient; right of the line the AUC falls.",
    )  # fmt: skip
