"""Compare the model with every baseline on the same held-out perturbations; write artifacts.

In addition to the checkpoints, the run directory gets `held_out.csv` (scores of every perturbation
by every model), `training_history.json`, `config.json`, `selected_genes.csv` and `model-card.md`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vcell import console
from vcell.as_json import plain
from vcell.models import card
from vcell.models.held_out import FILE, HeldOut, markdown, tables
from vcell.train.training import Pooled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vcell.runs import Run
    from vcell.screen import Screen


def scored(run: Run, model: str, screen: Screen) -> dict[str, Any]:
    """Score the model and the baselines on the held-out rows, and write the run's artifacts.

    Returns the summary of the run: mean scores, the chance levels, and the verdict.
    """
    found = HeldOut.of(run, model, screen)
    summary = found.summary(model)
    _artifacts(run, model, screen, found, summary)
    return summary


def _artifacts(
    run: Run, model: str, screen: Screen, found: HeldOut, summary: dict[str, Any]
) -> None:
    texts = {
        "training_history.json": json.dumps(plain(run.events(["metric", "eval"]))),
        "config.json": json.dumps(plain(run.meta["config"]), indent=2),
        "selected_genes.csv": _genes(run, screen),
        card.FILE: card.card(run, model, screen, summary),
    }
    for name, text in texts.items():
        run.save_file(name, text)
    run.save_file(FILE, found.write)


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


def tell(run: Run) -> None:
    """Print the scores and the verdict."""
    model, found = run.meta["model"], HeldOut.read([run])
    summary = found.summary(model)
    result = {"run": str(run.path), "model": model, **summary, "perturbations": found.names}
    console.result(result, _text(run.path, summary, found.names))


def _text(path: Path, summary: dict[str, Any], names: list[str]) -> str:
    if not names:
        return f"trained; no perturbation was held out, so nothing is scored\n{path}"
    held_out = f"{len(names)} held-out perturbation{'s' * (len(names) != 1)}"
    return (
        f"{summary['verdict']['text']}\n{held_out} (pseudobulk; vcell evaluate scores cells)\n\n"
        f"{tables(summary)}\n\nrun directory: {path}"
    )


def pooled(model: str, runs: Sequence[Run]) -> Pooled:
    """Score the held-out perturbations of all folds together."""
    found = HeldOut.read(runs)
    summary, n = found.summary(model), len(runs)
    if not found.names:
        return Pooled(summary=summary, text="no perturbation was held out", markdown="")
    heading = f"# Held-out perturbations of {n} folds, pooled (pseudobulk)"
    return Pooled(
        summary=summary,
        text=f"{summary['verdict']['text']}\n{len(found.names)} held-out perturbations of "
        f"{n} folds, pooled (pseudobulk)\n\n{tables(summary)}",
        markdown="\n".join([heading, "", *markdown(summary)]) + "\n",
        files={FILE: found.write},
    )
