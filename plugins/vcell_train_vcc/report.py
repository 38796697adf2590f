"""Who won: the model beside every baseline on the same held-out perturbations; the run's papers.

Writes into the run directory what a reader wants beside the checkpoints: `held_out.csv` (scores of
every perturbation by every model), `training_history.json`, `config.json`, `selected_genes.csv` and
`model-card.md`.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, models
from vcell.as_json import plain
from vcell.errors import UserError
from vcell.models import Screen, members
from vcell.models.scoring import each, gain, mean_of, scores
from vcell.screen.features import few
from vcell.screen.split import TEST, TRAIN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from vcell.runs import Run

    Table = dict[str, dict[str, float]]

_SCORES = ("pds", "mae", "delta_correlation")
COLUMNS = {
    "pds": "PDS",
    "mae": "MAE",
    "delta_correlation": "delta correlation",
    "gain": "gain over mean",
}
HELD_OUT = "held_out.csv"
_TELLING = 5  # held-out perturbations below which a ranking says nothing


def baselines(screen: Screen) -> list[str]:
    """Return the names of the baselines that make sense for a screen."""
    several = any(len(members(str(name))) > 1 for name in screen.perturbations)
    contexts = len(screen.contexts) > 1
    return [
        "mean",
        "perturbed-mean",
        *(["context-mean"] if contexts else []),
        *(["additive"] if several else []),
        "ridge",
        "knn",
        "gp",
    ]


def scored(run: Run, model: str, screen: Screen) -> Table:
    """Score the model and the baselines on the held-out rows, and write the run's papers."""
    rows, settled = screen.rows(TEST), screen.settled()
    effects = {}
    for name in dict.fromkeys((*baselines(screen), model)) if len(rows) else ():
        effects[name] = models.get(name).load(run, settled).predict(*screen.names(rows))
    told = np.all([np.isfinite(one).all(axis=1) for one in effects.values()], axis=0)
    rows = rows[np.atleast_1d(told)] if len(rows) else rows
    if effects and not told.all():
        lost = [str(name) for name in screen.perturbations[screen.rows(TEST)][~told]]
        console.warn(f"{len(lost)} held-out perturbations are not scored, their targets have no "
                     f"features: {few(lost)}")  # fmt: skip
    by_row = {name: _scores(screen, rows, one[told]) for name, one in effects.items()}
    found = {name: mean_of(one) for name, one in by_row.items()} if len(rows) else {}
    _papers(run, model, screen, rows, by_row, found)
    return found


def _scores(
    screen: Screen, rows: NDArray[np.int64], effect: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Score rows within their context: there the others are what they are told from."""
    found = {name: np.full(len(rows), np.nan) for name in _SCORES}
    for context in np.unique(screen.context[rows]):
        own = screen.context[rows] == context
        names = screen.perturbations[rows[own]].tolist()
        one = each(effect[own], screen.delta[rows[own]], screen.targets(names))
        for name, values in one.items():
            found[name][own] = values
    return found


def _papers(
    run: Run,
    model: str,
    screen: Screen,
    rows: NDArray[np.int64],
    by_row: dict[str, dict[str, NDArray[np.float64]]],
    found: Table,
) -> None:
    history = run.events(["metric", "eval"])
    _save(run, "training_history.json", lambda p: p.write_text(json.dumps(plain(history))))
    _save(
        run, "config.json", lambda p: p.write_text(json.dumps(plain(run.meta["config"]), indent=2))
    )
    _save(run, "selected_genes.csv", lambda p: p.write_text(_genes(run, screen)))
    _save(run, HELD_OUT, lambda p: _table(p, screen, rows, by_row))
    _save(run, "model-card.md", lambda p: p.write_text(_card(run, model, screen, found)))


def _save(run: Run, name: str, write: Callable[[Path], Any]) -> None:
    run.save_file(name, lambda path: write(path) and None)


def _genes(run: Run, screen: Screen) -> str:
    """List the genes of the model, the tokens of a network first."""
    network = run.path / "network.json"
    tokens = json.loads(network.read_text())["tokens"] if network.is_file() else []
    rest = set(tokens)
    genes = [*tokens, *(gene for gene in screen.genes.tolist() if gene not in rest)]
    token = ["yes"] * len(tokens) + ["no"] * (len(genes) - len(tokens))
    return "gene,rank,token\n" + "".join(
        f"{gene},{i},{yes}\n" for i, (gene, yes) in enumerate(zip(genes, token, strict=True), 1)
    )


def _table(
    path: Path,
    screen: Screen,
    rows: NDArray[np.int64],
    by_row: dict[str, dict[str, NDArray[np.float64]]],
) -> int:
    names, contexts = screen.names(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["perturbation", "context", "model", *_SCORES])
        for model, values in by_row.items():
            for i, (name, context) in enumerate(zip(names, contexts, strict=True)):
                writer.writerow([name, context, model, *(f"{values[s][i]:.6g}" for s in _SCORES)])
        return 1


def _card(run: Run, model: str, screen: Screen, found: Table) -> str:
    config = run.meta["config"]
    parts = {"train": TRAIN, "validation": VALIDATION, "held out": TEST}
    sizes = ", ".join(f"{(screen.part == part).sum()} {name}" for name, part in parts.items())
    lines = [
        f"# {model}, run {run.name}",
        "",
        f"{models.get(model).summary[0].upper()}{models.get(model).summary[1:]}.",
        "",
        (
            f"- Cells: `{config.get('cells')}`, {len(screen.genes):,} genes, "
            f"contexts: {', '.join(screen.contexts.tolist())}"
        ),
        f"- Perturbations: {sizes}",
        (
            f"- Gene features: {screen.features.shape[1]} of {len(screen.feature_genes):,} genes; "
            f"tables: {', '.join(map(str, config.get('features') or [])) or 'expression only'}"
        ),
        f"- Scale: log1p of counts per {screen.target_sum:g}"
        if np.isfinite(screen.target_sum)
        else "- Scale: log1p values as in the file",
        f"- Seed: {config.get('seed')}",
        (
            "- Predicts changes of mean expression of perturbations like those it learnt from, in "
            "the contexts above. It says nothing of other species, doses or times."
        ),
        "",
        "## Held-out perturbations (pseudobulk)",
        "",
        "| model | PDS | MAE | delta correlation |",
        "|---|---|---|---|",
        *(
            f"| {name} | {of['pds']:.4f} | {of['mae']:.5f} | {of['delta_correlation']:.4f} |"
            for name, of in found.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def tell(run: Run) -> None:
    """Say who won."""
    model = run.meta["model"]
    found = run.meta["summary"]["held_out"]
    names = _told(run.path / HELD_OUT, model)
    result = {"run": str(run.path), "model": model, "held_out": found, "perturbations": names}
    console.result(result, _text(run.path, model, found, len(names)))


def _told(path: Path, model: str) -> list[str]:
    """Return the held-out perturbations that were scored."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row["perturbation"] for row in csv.DictReader(file) if row["model"] == model]


def _text(path: Path, model: str, found: Table, n: int) -> str:
    if model not in found:
        return f"trained; no perturbation was held out, so nothing is scored\n{path}"
    found = with_gains(found)
    rows = [(name, *(of[score] for score in COLUMNS)) for name, of in found.items()]
    heads = ("model", *COLUMNS.values())
    return (
        f"{verdict(model, found)} on {n} held-out perturbations "
        f"(pseudobulk; vcell evaluate scores cells){_doubt(n)}\n\n"
        f"{console.table(rows, heads)}\n\nrun directory: {path}"
    )


def with_gains(found: Table) -> Table:
    """Return the scores of models, and what each gains over the mean."""
    return {name: {**of, "gain": gain(of, found["mean"])} for name, of in found.items()}


def of_fold(run: Run) -> Table:
    """Return the scores of a fold."""
    return with_gains(run.meta["summary"]["held_out"])


def judged(run: Run) -> float:
    """Return the gain over the mean on the perturbations that choose the model, for sweeps."""
    screen = Screen.load(run.path / models.SCREEN)
    rows = screen.rows(VALIDATION)
    if not len(rows):
        raise UserError(
            "no perturbations are left to choose settings by", hint="raise --validation-share"
        )
    names, contexts = screen.names(rows)
    found = [
        scores(
            models.get(name).load(run, screen).predict(names, contexts),
            screen.delta[rows],
            screen.targets(names),
        )
        for name in (run.meta["model"], "mean")
    ]
    return gain(*found)


def _doubt(n: int) -> str:
    return "" if n >= _TELLING else f"\n{n} are too few to tell models apart"


def verdict(model: str, found: Table) -> str:
    """Say whether the model beats the others, by their gains over the mean."""
    others = [name for name in found if name != model]
    gains = {name: of["gain"] for name, of in found.items()}
    if model in ("mean", "perturbed-mean"):
        return f"the {model} baseline"
    better = [name for name in others if gains[name] > gains[model]]
    if better:
        return f"{model} does not beat {' and '.join(better)}"
    if any(found[name] == found[model] for name in others):
        same = [name for name in others if found[name] == found[model]]
        return f"{model} adds nothing to {' and '.join(same)}, which beats the other baselines"
    return f"{model} beats the baselines"
