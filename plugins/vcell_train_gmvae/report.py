"""Compare the network's refitted head with logistic regression on principal components.

Both are fitted to the same labels and scored on the same held-out cells. The head, `held_out.csv`
and the page `index.html` are written into the run.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell import console
from vcell.gmvae import head as heads
from vcell.gmvae import scores
from vcell.gmvae.components import COMPONENTS, Components
from vcell.gmvae.label_head import MOST, LabelHead, drawn_from, fit_heads
from vcell.gmvae.outliers import Outliers
from vcell.gmvae.trained import HEAD, Trained, write_head
from vcell_train_gmvae import page
from vcell_train_gmvae.doubted import DOUBTED
from vcell_train_gmvae.page import FEWEST, HEADS, OURS, claim, table, verdict

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from vcell.gmvae.cells import ResidentCells
    from vcell.runs import Run
    from vcell_train_gmvae import TrainGmvae
    from vcell_train_gmvae.study import Study

    Array = NDArray[Any]

ALONE, TRAINED = "gmvae, latent means alone", "gmvae, head as trained"
LOGISTIC = "logistic regression on 30 PCs"
PCS = (LOGISTIC, "logistic regression on 30 PCs of scaled genes")
_AT_ONCE, _DRAWS = 2048, 500


@dataclass(frozen=True)
class Latent:
    """All cells encoded: means (N, D), mixture terms (N, K)."""

    mean: Array
    joint: Array


@dataclass(frozen=True)
class Named:
    """Labels of the held-out cells predicted by one method, with their probabilities."""

    label: Array
    probability: Array


def scored(
    run: Run, config: TrainGmvae, study: Study, cells: ResidentCells, rows: pd.Series[int]
) -> dict[str, Any]:
    """Refit the head, score it and the baseline on held-out cells, and write the files.

    `rows` are those of the cells in the input, by their names. Returns the run's summary.
    """
    trained = Trained.load(run)
    latent = encoded(trained, study, cells)
    shown, held_out = study.shown >= 0, study.held_out
    codes = study.shown if shown.any() else np.where(held_out, -1, latent.joint.argmax(1))
    outliers = Outliers.learnt(latent.mean, codes, latent.mean[held_out])
    judged = np.flatnonzero(held_out & (study.label >= 0))
    head, named = None, {}
    if shown.any():
        components = _components(run, study, cells, config.seed)
        head = _head(study, latent, components, cells, config.seed)
    if head is not None and len(judged):
        mean, joint = latent.mean[judged], latent.joint[judged]
        parts = components.split(components.of(cells, judged))
        by_part = zip(PCS, head.components, parts, strict=False)
        named = {
            OURS: _named(head.log_probabilities(mean, parts)),
            ALONE: _named(head.log_probabilities(mean)),
            TRAINED: _named(joint - np.logaddexp.reduce(joint, 1)[:, None]),
        }
        named |= {name: _named(one.log_probabilities(own)) for name, one, own in by_part}
    run.save_file(HEAD, lambda path: write_head(path, head, outliers))
    found = {name: _scores(one, study, judged) for name, one in named.items()}
    clusters = _clusters(latent, study, judged)
    enough = named and len(judged) >= FEWEST
    over = _gained(named, study, judged, config.seed) if enough else {}
    gained = over.get(LOGISTIC, {})
    text = verdict(gained, len(judged), labelled=head is not None)
    run.save_file("held_out.csv", lambda path: _table(path, study, judged, named, rows))
    told = {"claim": claim(gained), "text": text}
    page.write(run, study, latent.mean, judged, named, table(found, over), clusters, told)
    run.update(
        clusters=clusters, gained=gained, over=over, doubted=study.doubted, judged=len(judged)
    )
    return {"held_out": found, "verdict": told}


def encoded(trained: Trained, study: Study, cells: ResidentCells) -> Latent:
    """Encode all cells."""
    parts = []
    with console.progress("encoding", cells.n_cells) as bar:
        for start in range(0, cells.n_cells, _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, cells.n_cells))
            batch = cells.fetch(rows, batch=torch.from_numpy(study.batch[rows]))
            parts.append(trained.encode(batch))
            bar.advance(len(rows))
    return Latent(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _named(log_p: Array) -> Named:
    label = log_p.argmax(1)
    return Named(label, np.exp(log_p[np.arange(len(label)), label]))


def _components(run: Run, study: Study, cells: ResidentCells, seed: int) -> Components:
    path = run.path / COMPONENTS
    if path.is_file():
        return Components.load(path)
    found = Components.learnt(cells, np.flatnonzero(~study.held_out), seed=seed)  # an older run
    run.save_file(COMPONENTS, found.save)
    return found


def _head(
    study: Study, latent: Latent, components: Components, cells: ResidentCells, seed: int
) -> LabelHead:
    """Fit the head to shown labels, and to some unlabelled training cells, of many to some."""
    free = np.flatnonzero(~study.held_out & (study.shown < 0))
    if len(free) > MOST:
        free = np.random.default_rng((seed, 0xF4EE)).choice(free, MOST, replace=False)
    labelled, stands_for = drawn_from(study.shown, seed)
    n_shown = int((study.shown >= 0).sum())
    if len(labelled) < n_shown:
        console.say(f"the label head is fitted to {len(labelled):,} of {n_shown:,} labelled cells")
    weight = np.ones(len(study.shown))
    weight[labelled] = stands_for
    rows = np.sort(np.concatenate([labelled, free]))
    withheld = heads.withheld(study.shown, seed)[rows]
    x = components.of(cells, rows)
    shown, parts = study.shown[rows], components.split(x)
    return fit_heads(latent.mean[rows], parts, shown, len(study.labels), withheld, weight[rows])


def _scores(one: Named, study: Study, judged: Array) -> dict[str, float]:
    truth = study.label[judged]
    table = scores.confusion(truth, one.label, len(study.labels))
    return {
        "accuracy": float(np.trace(table) / max(table.sum(), 1)),
        "macro_f1": scores.macro_f1(table),
        "ece": heads.calibration_error(one.probability, one.label == truth),
    }


def _clusters(latent: Latent, study: Study, judged: Array) -> dict[str, float]:
    """Compare the mixture's components with the labels of held-out cells."""
    if not len(judged):
        return {}
    truth, component = study.label[judged], latent.joint[judged].argmax(1)
    return {
        "ari": scores.adjusted_rand(truth, component),
        "nmi": scores.mutual_information(truth, component),
    }


def _gained(
    named: dict[str, Named], study: Study, judged: Array, seed: int
) -> dict[str, dict[str, float]]:
    """Return our gain in macro-F1 over each other head, with intervals over held-out cells."""
    rng = np.random.default_rng((seed, 0xB007))
    truth, n = study.label[judged], len(study.labels)

    def gains(at: Array) -> list[float]:
        ours, *others = (
            scores.macro_f1(scores.confusion(truth[at], one.label[at], n)) for one in named.values()
        )
        return [ours - other for other in others]

    everyone = np.arange(len(judged))
    draws = [gains(rng.choice(everyone, len(everyone))) for _ in range(_DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0).tolist()
    _, *names = named
    ends = zip(names, gains(everyone), low, high, strict=True)
    return {name: {"gain": gain, "low": a, "high": b} for name, gain, a, b in ends}


def _table(
    path: Path, study: Study, judged: Array, named: dict[str, Named], rows: pd.Series[int]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "row", "label", "model", "given", "probability"])
        for name, one in named.items():
            for i, cell in enumerate(judged.tolist()):
                fields = study.labels[study.label[cell]], name, study.labels[one.label[i]]
                writer.writerow(
                    [rows.index[cell], rows.iat[cell], *fields, f"{one.probability[i]:.6g}"]
                )


def tell(run: Run) -> None:
    """Print the scores."""
    found = run.meta["summary"]["held_out"]
    clusters, gained = run.meta.get("clusters", {}), run.meta.get("gained", {})
    n = run.meta.get("judged")  # older runs lack it
    lines = [run.meta["summary"]["verdict"]["text"], ""]
    if found:
        rows = table(found, run.meta.get("over", {}))
        lines += [console.table(rows, HEADS), ""]
    if clusters:
        on = f" of {console.count(n, 'held-out cell')}" if n else ""
        lines.append(
            f"components against labels{on}: ARI {clusters['ari']:.3f}, NMI {clusters['nmi']:.3f}"
        )
    doubted = run.meta.get("doubted", 0.0)
    if doubted:
        lines.append(
            f"about {doubted:.0%} of the labels look wrong ({run.path / DOUBTED}); "
            "held-out cells are scored against labels as given, wrong ones too"
        )
    lines += [f"page: {run.path / 'index.html'}", f"run directory: {run.path}"]
    result = {
        "run": str(run.path), "judged": n, "held_out": found, "clusters": clusters,
        "gained": gained, "over": run.meta.get("over", {}), "doubted": doubted,
    }  # fmt: skip
    console.result(result, "\n".join(lines))
