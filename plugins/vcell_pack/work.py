"""Pack a prediction: check labels, check values while writing, read the archive back."""

from __future__ import annotations

import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import __version__, console, outputs
from vcell.data import CellSource
from vcell.errors import UserError
from vcell_pack import archive
from vcell_pack.checks import PredictionLabels, Requirements, ValueCheck, check_labels
from vcell_pack.formats import CELL_TYPE, CONTEXT, FORMATS, PERTURBATION, read_genes, read_panel
from vcell_pack.scale import Scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vcell_pack import Pack


@dataclass(frozen=True)
class OpenPrediction:
    """An open prediction, and the requirements it must meet."""

    source: CellSource
    labels: PredictionLabels
    required: Requirements
    name: str
    cell_type: str | None

    @property
    def order(self) -> np.ndarray[Any, Any] | None:
        """Columns in the order of the challenge's gene list, or None if they already are."""
        genes = self.required.genes
        if genes is None or genes == self.labels.genes.tolist():
            return None
        place = {name: i for i, name in enumerate(self.labels.genes.tolist())}
        return np.array([place[name] for name in genes])


def run(files: tuple[Path, ...], config: Pack) -> None:
    """Pack or check, and report."""
    packed = len(files) == 1 and (files[0].suffix == ".vcc" or _is_tar(files[0]))
    if config.check and packed:
        _report(_check_archive(files[0], config))
    elif packed:
        raise UserError(
            f"{files[0]} is packed already", hint=f"vcell pack --check {files[0]} checks it"
        )
    elif config.check:
        with _open(files, config) as prediction:
            _report(_check(prediction) | {"input": [str(file) for file in files]})
    else:
        _report(_pack(files, config))


def _is_tar(path: Path) -> bool:
    return path.is_file() and tarfile.is_tarfile(path)


def _pack(files: tuple[Path, ...], config: Pack) -> dict[str, Any]:
    if config.output is None:
        raise UserError("no output is named", hint="add -o FILE.vcc")
    out = config.output
    read = [*files, config.genes, config.perturbations]
    outputs.check(out, inputs=read, overwrite=config.overwrite, suffixes=(".vcc",))
    with (
        _open(files, config) as prediction,
        outputs.whole(out) as packed,
        _temporary_h5ad(packed) as h5ad,
    ):
        facts = _write(prediction, h5ad)
        form = prediction.required.format
        meta = _meta(prediction, facts, config) if form.contexts else None
        written = archive.write(h5ad, packed, meta=meta, stamp=not form.contexts)
        _contents, read_back = archive.read(packed, None)
        if read_back != written:
            raise UserError(
                f"{out}: the archive does not read back as it was written",
                hint="the disk may be failing or full; nothing was kept",
            )
    return facts | {"output": str(out), "bytes": out.stat().st_size, "sha256": written.sha256}


@contextmanager
def _temporary_h5ad(packed: Path) -> Iterator[Path]:
    """Yield the path of the h5ad that goes into the archive, and remove the file at the end."""
    h5ad = packed.with_name(f"{packed.name}.h5ad")
    try:
        yield h5ad
    finally:
        h5ad.unlink(missing_ok=True)


@contextmanager
def _open(
    files: tuple[Path, ...], config: Pack, inside: str | None = None
) -> Iterator[OpenPrediction]:
    """Open the prediction, and check its labels, genes and size.

    `inside` replaces the name of an unpacked file in messages.
    """
    from vcell.data import open_cells

    required = _requirements(config)
    paths = list(files)
    cells = paths[0] if len(paths) == 1 else paths
    with open_cells(cells, layer=config.layer, join=config.join) as source:
        source.name = inside or source.name
        labels = _labels(source, config)
        name = inside or files[0].name + (" and others" if len(files) > 1 else "")
        problems = check_labels(labels, required)
        if problems:
            raise UserError(
                f"{name} would be refused by {required.format.name}:\n  " + "\n  ".join(problems)
            )
        yield OpenPrediction(source, labels, required, name, config.cell_type_column)


def _requirements(config: Pack) -> Requirements:
    form = FORMATS[config.rules]
    cells = config.cells_per_perturbation if form.counts else None
    return Requirements(
        format=form,
        genes=read_genes(config.genes) if config.genes else None,
        panel=read_panel(config.perturbations, cells) if config.perturbations else None,
        contexts=config.contexts,
        cells=config.cells_per_perturbation,
        max_cells=config.max_cells or form.max_cells,
        **({"control": config.control} if config.control else {}),
    )


def _labels(source: CellSource, config: Pack) -> PredictionLabels:
    """Read the columns of perturbation and context; missing values become ''."""
    perturbation = source.obs(config.perturbation_column or PERTURBATION)
    context = None
    if FORMATS[config.rules].contexts and config.context_column in source.obs_columns:
        context = _strings(source.obs(config.context_column))
    return PredictionLabels(
        np.asarray(source.genes).astype(str), _strings(perturbation), context, source.nnz
    )


def _strings(column: Any) -> np.ndarray[Any, Any]:
    names = np.append(np.asarray(column.categories).astype(str), "")
    labels: np.ndarray[Any, Any] = names[column.codes]
    return labels  # code -1, a missing value, indexes the last label


def _check(prediction: OpenPrediction) -> dict[str, Any]:
    """Check every value without writing."""
    scaled = Scaled.of(prediction.source, prediction.required.format, prediction.name)
    check = ValueCheck(
        prediction.required, prediction.labels, prediction.name, counts=scaled.is_counts
    )
    for block in _blocks(prediction, "checking"):
        check.block(block.rows, block.indptr, block.data)
    check.finish()
    return _facts(prediction, check, scaled)


def _write(prediction: OpenPrediction, h5ad: Path) -> dict[str, Any]:
    """Check every value and write the reduced h5ad for the archive."""
    from vcell.data.write import CellWriter

    scaled = Scaled.of(prediction.source, prediction.required.format, prediction.name)
    check = ValueCheck(
        prediction.required, prediction.labels, prediction.name, counts=scaled.is_counts
    )
    order = prediction.order
    genes = prediction.labels.genes if order is None else prediction.labels.genes[order]
    obs = _obs(prediction)
    with CellWriter(h5ad, genes, obs=list(obs)) as writer:
        for block in _blocks(prediction, "writing"):
            check.block(block.rows, block.indptr, block.data)
            labels = {name: column[block.rows] for name, column in obs.items()}
            writer.append(scaled.apply(block), labels, names=block.rows.astype(str))
        check.finish()
    return _facts(prediction, check, scaled)


def _blocks(prediction: OpenPrediction, label: str) -> Iterator[Any]:
    with console.progress(label, prediction.source.n_cells) as bar:
        for block in prediction.source.chunks(genes=prediction.order):
            yield block
            bar.advance(len(block.rows))


def _obs(prediction: OpenPrediction) -> dict[str, Any]:
    """Return only the columns that the challenge reads, under its names."""
    obs = {PERTURBATION: prediction.labels.perturbation}
    if prediction.cell_type is not None:
        obs[CELL_TYPE] = _strings(prediction.source.obs(prediction.cell_type))
    if prediction.labels.context is not None:
        obs[CONTEXT] = prediction.labels.context
    return obs


def _meta(prediction: OpenPrediction, facts: dict[str, Any], config: Pack) -> dict[str, Any]:
    panel = prediction.required.panel
    meta = {
        "schema": 1,
        "nnz": facts["nnz"],
        "n_obs": facts["n_cells"],
        "n_vars": facts["n_genes"],
        "cli_version": f"vcell {__version__}",
        "contexts": list(config.contexts),
    }
    return meta | ({"perts_fingerprint": panel.fingerprint} if panel else {})


def _facts(prediction: OpenPrediction, check: ValueCheck, scaled: Scaled) -> dict[str, Any]:
    labels, required = prediction.labels, prediction.required
    n_cells, n_genes = len(labels.perturbation), len(labels.genes)
    named = np.unique(labels.perturbation[labels.perturbation != required.control])
    notes = []
    if required.genes is None:
        notes.append("gene names were not checked (no --genes)")
    if required.panel is None:
        notes.append("the set of perturbations was not checked (no --perturbations)")
    if prediction.order is not None:
        notes.append("genes were put into the order of the list")
    return {
        "rules": required.format.name,
        "n_cells": n_cells,
        "n_genes": n_genes,
        "nnz": check.nnz,
        "density": check.nnz / max(n_cells * n_genes, 1),
        "perturbations": len(named),
        "controls": int((labels.perturbation == required.control).sum()),
        "contexts": _counts(labels.context),
        "values": scaled.description,
        "notes": notes,
    }


def _counts(context: Any) -> dict[str, int]:
    if context is None:
        return {}
    names, numbers = np.unique(context, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def _check_archive(path: Path, config: Pack) -> dict[str, Any]:
    """Check a packed file: the container, then its prediction as before packing."""
    from dataclasses import replace

    with tempfile.TemporaryDirectory(prefix="vcell-pack-") as folder:
        h5ad = Path(folder) / "pred.h5ad"
        contents, written = archive.read(path, h5ad)
        rules = "vcc2026" if contents.meta is not None else "vcc2025"
        console.say(f"{path.name} is a {rules} archive")
        if rules == "vcc2025" and not contents.stamped:
            raise UserError(
                f"{path}: neither {archive.META} (2026) nor {archive.WATERMARK} (2025) is in it"
            )
        settings = replace(config, rules=rules, perturbation_column=None, layer=None)  # type: ignore[arg-type]
        inside = f"{path.name}: {archive.PREDICTION}"
        with _named(h5ad, inside), _open((h5ad,), settings, inside) as prediction:
            if prediction.order is not None:
                raise UserError(f"{path}: the genes are not in the order of {config.genes}")
            facts = _check(prediction)
            if facts["values"].startswith("counts"):
                console.warn("the values are counts: the 2025 scorer will normalise them itself")
        if contents.meta is not None:
            _compare_meta(path, contents.meta, facts)
    return facts | {"input": str(path), "sha256": written.sha256}


@contextmanager
def _named(h5ad: Path, inside: str) -> Iterator[None]:
    """Give the name of the archive in errors, instead of the file it was unpacked to."""
    try:
        yield
    except UserError as error:
        message = str(error).replace(str(h5ad), inside).replace(h5ad.name + "/", f"{inside}/")
        raise UserError(message, hint=error.hint) from None


def _compare_meta(path: Path, meta: dict[str, Any], facts: dict[str, Any]) -> None:
    """Refuse a meta.json that does not match the prediction."""
    for key, fact in (("n_obs", "n_cells"), ("n_vars", "n_genes"), ("nnz", "nnz")):
        if meta.get(key, facts[fact]) != facts[fact]:
            raise UserError(
                f"{path}: {archive.META} says {key} = {meta[key]!r:.40}; it is {facts[fact]:,}"
            )
    contexts = meta.get("contexts", list(facts["contexts"]))
    if not isinstance(contexts, list) or {str(c) for c in contexts} != set(facts["contexts"]):
        raise UserError(f"{path}: {archive.META} names other contexts than the cells do")


def _report(facts: dict[str, Any]) -> None:
    shown = {key: value for key, value in facts.items() if value not in ([], {})}
    lines = [f"{key.replace('_', ' '):<14}{_formatted(value)}" for key, value in shown.items()]
    done = f"written: {facts['output']}" if "output" in facts else "it would be accepted"
    console.result(facts, "\n".join([*lines, done]))


def _formatted(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_formatted(item)}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
