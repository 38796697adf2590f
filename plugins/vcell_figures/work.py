"""Implementation of `vcell figures`: choose figures, and write each as SVG, PNG and CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcell import console, outputs
from vcell.errors import UserError
from vcell.outputs import MADE_BY
from vcell.patients import pictures, saved
from vcell.report.files import alone, drawable, png
from vcell.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vcell.patients.pictures import Picture
    from vcell_figures import Figures

LIST = "figures.json"
#: The figures of each group name.
_NAMES = {
    "all": ("roc", "calibration", "attention", "ablation"),
    "latent": ("latent-before", "latent-after"),
}


def draw(what: str, name: str, config: Figures) -> None:
    """Run the command."""
    listed = _listed(config.output)
    strict = [
        file
        for file in _files(_NAMES.get(what, (what,)), config.output)
        if not (config.overwrite and file.suffix == ".csv" and file.name in listed)
    ]
    outputs.check(*strict, overwrite=config.overwrite, parents=True)
    outputs.sweep(config.output / LIST)  # replaced always, so not checked
    run = Run.open(name, root=config.runs)
    chosen = _latent(run, config) if what == "latent" else _of_patients(what, run)
    files = _files([one.name for one in chosen], config.output)
    if not drawable():
        console.say("PNG files need matplotlib: pip install 'vcell[plots]'; SVG files are written")
    names = sorted(listed | {file.name for file in files})
    texts = {LIST: json.dumps({MADE_BY: outputs.made_by(), "files": names}, indent=1) + "\n"}
    for one in chosen:
        texts |= {f"{one.name}.svg": alone(one.svg()), f"{one.name}.csv": one.table.csv()}
    drawn = {f"{one.name}.png": one.draw for one in chosen} if drawable() else {}
    with outputs.together(*(config.output / file for file in (*texts, *drawn))) as asides:
        for aside, text in zip(asides, texts.values(), strict=False):
            aside.write_text(text, encoding="utf-8")
        for aside, draw in zip(asides[len(texts) :], drawn.values(), strict=True):
            png(aside, draw)
    result = {"run": str(run.path), "files": [str(file) for file in files]}
    console.result(result, "\n".join(str(file) for file in files))


def _files(names: Iterable[str], folder: Path) -> list[Path]:
    endings = (".svg", ".csv", ".png") if drawable() else (".svg", ".csv")
    return [folder / f"{name}{ending}" for name in names for ending in endings]


def _listed(folder: Path) -> set[str]:
    """Return the files in the folder written by vcell, from its list: a CSV has no other mark."""
    try:
        listed = json.loads((folder / LIST).read_text())
        return set(listed["files"]) if MADE_BY in listed else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _of_patients(what: str, run: Run) -> list[Picture]:
    cohort, study = saved.opened(run)
    found = pictures.of_run(cohort, saved.finished(run, study))
    ablation = _ablation(run, needed=what == "ablation")
    found += [ablation] if ablation else []
    return found if what == "all" else [one for one in found if one.name == what]


def _ablation(run: Run, *, needed: bool) -> Picture | None:
    path = run.path / "ablation.json"
    if path.is_file():
        return pictures.ablation(json.loads(path.read_text())["rows"])
    if needed:
        raise UserError(f"{run.name} has no ablation", hint=f"vcell ablate {run.name}")
    console.say("no ablation to draw: vcell ablate makes one")
    return None


def _latent(run: Run, config: Figures) -> list[Picture]:
    from vcell.gmvae.trained import Trained
    from vcell.patients import latent

    trained = Trained.load(run)
    read: dict[str, Any] = (run.meta.get("data") or [{}])[0]
    cells = config.cells or (Path(read["path"]) if read.get("path") else None)
    label = config.label or run.meta["config"].get("labels")
    if cells is None or label is None:
        raise UserError("which cells, and which label?", hint="--cells FILE --label COLUMN")
    if latent.method() == "PCA":
        console.say("umap-learn is not installed: two principal components are drawn instead")
    return latent.pictures(cells, trained, label, config.seed)
