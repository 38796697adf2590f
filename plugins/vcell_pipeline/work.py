"""The stages of `vcell pipeline bulk`, in order, and their state.

Stages that are commands run in this process through the core (`vcell.library.command`). So no
plugin is imported, settings are checked as on the command line, a kill leaves no child process, and
torch is loaded once. Each training writes a run directory, so that an interrupted training
continues from its last checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcell import console, library, outputs, plugin
from vcell.config.check import raise_if_any, values_for
from vcell.config.options import PROJECT
from vcell.errors import UserError
from vcell.patients.communication import pairs_table
from vcell.pipeline.manifest import FILE, Manifest, Stage
from vcell.runs import Run, find_runs
from vcell.runs.files import checksum
from vcell.store.recipe import files_of
from vcell_pipeline import cells

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vcell_pipeline import Pipeline

_OURS = ("cells", "output", "resume", "runs", "overwrite", "layer", "join")  # set by the pipeline
_GOES_ON = ("crashed", "interrupted", "failed", "stalled")
_COMMANDS = ("train-gmvae", "pseudobulk", "train-bulk", "ablate", "figures")
_FIGURES = ("attention", "roc", "calibration")


def bulk(config: Pipeline) -> None:
    """Run the unfinished stages."""
    _may_write(config)
    if config.pairs:
        pairs_table(config.pairs)  # report errors in it before hours of training
    for command in _COMMANDS:
        _given(command)  # and those in the tables of later stages
    book = Manifest.open(config.output)
    with book.locked():
        results = {stage.name: book.run(stage) for stage in _stages(config, book)}
    verdict = results["classifier"]["verdict"]
    table = console.table(list(_standing(book, config)), _HEADS)
    result = {"folder": str(config.output), "verdict": verdict, "stages": results}
    page = config.output / "runs" / Path(results["classifier"]["run"]).name / "index.html"
    console.result(result | {"page": str(page)}, f"{table}\n\n{verdict['text']}\n{page}")


def _may_write(config: Pipeline) -> None:
    """Refuse to replace files that the pipeline did not write.

    Once the folder has a pipeline's list of stages, files of those names with vcell's mark are its.
    """
    folder = config.output
    outputs.check_folder(folder)
    names = ["qc.h5ad", "split.json", "folds.json", "pseudobulk.npz"]
    names += [f"learn-{k}.h5ad" for k in range(config.folds)]
    names += [f"figures/{name}.svg" for name in _FIGURES]
    started = (folder / FILE).is_file()
    read = [config.cells, config.pairs]
    outputs.check(
        *(folder / name for name in names), inputs=read, overwrite=started, parents=True, flag=""
    )


def status(config: Pipeline) -> None:
    """Print the state of the stages."""
    book = Manifest.open(config.output)
    if not book.stages and (config.cells is None or config.cell_type_column is None):
        raise UserError(
            f"no stage of a pipeline is done in {config.output}",
            hint="vcell pipeline bulk --cells FILE starts one; -o names its folder",
        )
    if config.cells is None or config.cell_type_column is None:
        console.say("without --cells and --cell-type-column no stage is checked for changes")
        rows = [
            (name, "done", known["seconds"], len(known["outputs"]))
            for name, known in book.stages.items()
        ]
    else:
        rows = list(_standing(book, config))
    result = {
        "folder": str(config.output),
        "stages": [dict(zip(_HEADS, r, strict=True)) for r in rows],
    }
    console.result(result, console.table(rows, _HEADS))


_HEADS = ("stage", "state", "seconds", "outputs")


def _standing(book: Manifest, config: Pipeline) -> Iterator[tuple[Any, ...]]:
    for stage in _stages(config, book, asking=True):
        known = book.stages.get(stage.name)
        why = book.why(stage)
        state = "done" if why is None else why if known else "not done"
        seconds = known["seconds"] if known else None
        yield stage.name, state, seconds, len(known["outputs"]) if known else None


def _stages(config: Pipeline, book: Manifest, *, asking: bool = False) -> Iterator[Stage]:
    """Yield the stages in order; each is created when those before it are done."""
    given = config.cells
    if given is None:
        raise UserError("no cells are named", hint="--cells FILE, or [data] cells in vcell.toml")
    if not given.exists():
        raise UserError(f"{given} does not exist")
    columns = cells.columns_of(config)
    folder, filtered = config.output, config.output / "qc.h5ad"
    meaning = vars(columns) | {"min_cells": config.min_cells}
    yield Stage(
        name="qc", title="leave out bad cells and small patients", inputs=files_of(given),
        settings=meaning | {
            "min_genes": config.min_genes, "max_mito": config.max_mito,
            "min_patient_cells": config.min_patient_cells, "layer": config.layer,
        },
        work=lambda: (cells.qc(given, filtered, config), [filtered]),
    )  # fmt: skip
    folds = folder / "split.json"
    yield Stage(
        name="split", title="deal patients into folds", inputs=[filtered],
        settings=meaning | {"folds": config.folds, "seed": config.seed, "states": config.states},
        work=lambda: cells.split(filtered, folds, config),
    )  # fmt: skip
    n = len(book.stages.get("split", {}).get("result", {}).get("folds", [0] * config.folds))
    for k in range(n if config.states else 0):
        yield _gmvae(config, k)
    if config.samples:
        yield _pseudobulk(config, filtered)
    yield _classifier(config, book, filtered, folds, n)
    run = book.stages.get("classifier", {}).get("result", {}).get("run")
    if not asking and run is None:
        return
    files = [folder / "runs" / Path(run).name / "scores.json"] if run else []
    if config.ablate:
        yield _ablation(folder / "runs" / str(run), files)
        files = [*files, *(file.with_name("ablation.json") for file in files)]
    yield Stage(
        name="figures", title="draw", inputs=files, settings={},
        work=lambda: _figures(folder / "runs" / str(run), folder / "figures"),
    )  # fmt: skip


def _gmvae(config: Pipeline, k: int) -> Stage:
    learn = config.output / f"learn-{k}.h5ad"
    imposed = {"labels": config.cell_type_column, "min_cells": config.min_cells,
               "seed": config.seed, "batch_column": config.batch_column}  # fmt: skip
    settings = _given("train-gmvae") | {k: v for k, v in imposed.items() if v is not None}

    def work() -> tuple[dict[str, Any], list[Path]]:
        result = _trained(config, "train-gmvae", settings, learn)
        run = Run.open(result["run"])
        best = run.checkpoint("best").path
        names = ("gmvae.json", "head.npz", "components.npz")
        written = [*(run.path / name for name in names), best / "model.safetensors"]
        return {"run": run.name, "held_out": result.get("held_out")}, written

    return Stage(
        name=f"gmvae-{k}", title=f"train a GMVAE without the patients of fold {k}",
        inputs=[learn], settings=settings, work=work,
    )  # fmt: skip


def _pseudobulk(config: Pipeline, cells: Path) -> Stage:
    out = config.output / "pseudobulk.npz"
    settings = {"mode": "own"} | _given("pseudobulk") | {
        "labels": config.cell_type_column, "by": config.patient_column,
        "samples": config.samples, "cells": config.sample_cells, "seed": config.seed,
    }  # fmt: skip

    def work() -> tuple[dict[str, Any], list[Path]]:
        result = library.command("pseudobulk", cells, output=out, overwrite=True, **settings)
        return {"samples": result["samples"]}, [out]

    return Stage(
        name="pseudobulk", title="draw bulk samples of each patient", inputs=[cells],
        settings=settings, work=work,
    )  # fmt: skip


def _classifier(config: Pipeline, book: Manifest, cells: Path, folds: Path, n: int) -> Stage:
    """Return the stage of train-bulk; its file of folds has the GMVAE of each fold."""
    folder = config.output
    runs = [
        book.stages.get(f"gmvae-{k}", {}).get("result", {}).get("run")
        for k in range(n if config.states else 0)
    ]
    imposed = {
        "patient_column": config.patient_column, "outcome_column": config.outcome_column,
        "cell_type_column": config.cell_type_column, "batch_column": config.batch_column,
        "min_cells": config.min_cells, "seed": config.seed,
    }  # fmt: skip
    settings = _given("train-bulk") | {k: v for k, v in imposed.items() if v is not None}
    inputs = [cells, folds]
    inputs += [folder / "pseudobulk.npz"] if config.samples else []
    inputs += [config.pairs] if config.pairs else []

    def work() -> tuple[dict[str, Any], list[Path]]:
        split = json.loads(folds.read_text())
        for one, name in zip(split["folds"], runs, strict=False):
            one["gmvae"] = str((folder / "runs" / name).absolute())
        outputs.write_json(folder / "folds.json", {outputs.MADE_BY: outputs.made_by(), **split})
        more = {"pairs": config.pairs, "folds_file": folder / "folds.json"}
        if config.samples:
            more["pseudobulk"] = folder / "pseudobulk.npz"
        read = [more.get(name) for name in ("pairs", "pseudobulk", "folds_file")]
        found = _trained(config, "train-bulk", settings | more, cells, [f for f in read if f])
        run = Run.open(found["run"])
        names = ("design.json", "cohort.npz", "scores.json", "predictions.csv", "index.html")
        written = [folder / "folds.json", *(run.path / name for name in names)]
        models = {name: one["auc"] for name, one in found["models"].items()}
        return {"run": run.name, "verdict": found["verdict"], "auc": models}, written

    return Stage(
        name="classifier", title="predict outcomes from bulk expression", inputs=inputs,
        settings=settings | {"gmvae": runs}, work=work,
    )  # fmt: skip


def _ablation(run: Path, inputs: list[Path]) -> Stage:
    settings = _given("ablate")

    def work() -> tuple[dict[str, Any], list[Path]]:
        result = library.command("ablate", str(run), **settings)
        return {"result": result}, [run / "ablation.json", run / "ablation.csv"]

    return Stage(
        name="ablation", title="measure what each part contributes", inputs=inputs,
        settings=settings, work=work,
    )  # fmt: skip


def _figures(run: Path, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    result = library.command("figures", "all", str(run), output=folder, overwrite=True)
    return {"files": [Path(f).name for f in result["files"]]}, [Path(f) for f in result["files"]]


def _given(command: str) -> dict[str, Any]:
    """Return the command's own table in the project file, without what the pipeline sets."""
    ctx = click.get_current_context(silent=True)
    file = ctx.meta.get(PROJECT) if ctx else None
    loaded = plugin.get(command)
    if file is None or loaded.config is None or command not in file.tables:
        return {}
    values, problems = values_for(file, command, loaded.config)
    raise_if_any(problems)
    own = {key.replace("-", "_") for key in file.tables[command]}
    return {k: v for k, v in values.items() if k in own and k not in _OURS}


def _trained(
    config: Pipeline, command: str, settings: dict[str, Any], data: Path,
    others: Sequence[Path] = (),
) -> dict[str, Any]:  # fmt: skip
    """Train, or resume an interrupted training on the same cells and the same other files."""
    runs = config.output / "runs"
    digests = [checksum(path) for path in others]
    for run in reversed(find_runs(runs)[0]):
        read = run.meta.get("data") or [{}]
        same = read[0].get("modified") == data.stat().st_mtime
        same &= [one.get("sha256") for one in read[1:]] == digests
        saved = {k: run.meta["config"].get(k) for k in settings}
        expected = json.loads(json.dumps(settings, default=str))
        ready = run.checkpoints() or (run.path / "design.json").is_file()
        matches = run.meta.get("command") == command and same and ready and saved == expected
        if matches and run.status() in _GOES_ON:
            console.say(f"continuing {run.name}")
            found: dict[str, Any] = library.command(command, resume=str(run.path), runs=runs)
            return found
    found = library.command(command, data, runs=runs, **settings)
    return found
