"""Implementation of `vcell features`: read sources, write tables, list the targets covered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console, outputs
from vcell.errors import UserError
from vcell.genes import GeneIndex
from vcell.genes.features import shipped_about, shipped_features
from vcell.screen.design import Design
from vcell.screen.targets import members
from vcell_features.sources import made

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vcell_features import Features


def run(sources: tuple[Path, ...], config: Features) -> None:
    """Make the tables, and print their coverage."""
    places = _places(sources, config)
    for source in sources:
        if not source.exists():
            raise UserError(f"{source}: there is no such file")
    targets = _targets(config) if config.cells else None
    rows = [_shipped(name, targets) for name in shipped_about()] if not sources else []
    for source, place in places.items():
        found = made(source, config)
        console.say(f"{source}: {found.description}")
        _write(place, found.genes, found.values)
        rows.append(
            _row(str(place), found.description, found.genes, found.values.shape[1], targets)
        )
    lines = ""
    if targets is not None:
        known = {target for row in rows for target in row["known"]}
        lost = [target for target in targets if target not in known]
        lines = f"\n{len(lost)} of {len(targets)} targets are in no table"
        lines += f": {', '.join(lost[:12])}" + (" ..." if len(lost) > 12 else "") if lost else ""
        _warn_of_useless([row for row in rows if not row["known"]] if places else [], targets)
    if places:
        lines += f"\nvcell train-vcc CELLS --features {config.output} takes all of these tables"
    columns = ["table", "made of", "genes", "numbers"] + (["targets known"] if targets else [])
    shown = [
        [row["table"], row["made_of"], f"{row['genes']:,}", row["width"]]
        + ([f"{len(row['known'])} of {len(targets)}"] if targets else [])
        for row in rows
    ]
    console.result(
        {"tables": rows, "targets": targets}, f"{console.table(shown, columns)}\n{lines}".rstrip()
    )


def _warn_of_useless(rows: list[dict[str, Any]], targets: Sequence[str]) -> None:
    """Warn of tables that know no target, which train-vcc refuses."""
    for row in rows:
        console.warn(
            f"{row['table']} knows none of the {console.count(len(targets), 'target')}, and "
            "train-vcc refuses it: its genes must be named as in the screen, of the same species "
            "(--ids translates the ids of a network)"
        )


def _row(
    name: str, source: str, genes: Sequence[str], width: int, targets: Sequence[str] | None
) -> dict[str, Any]:
    index = GeneIndex(genes)
    known = [target for target in targets or () if index.find(target) >= 0]
    return {"table": name, "made_of": source, "genes": len(genes), "width": width, "known": known}


def _shipped(name: str, targets: Sequence[str] | None) -> dict[str, Any]:
    about = shipped_about()[name]
    genes = next(genes for title, genes, _ in shipped_features() if title == about["title"])
    source = f"{console.count(about['sets'], 'gene set')}, {about['licence']}; comes with vcell"
    return _row(about["title"], source, genes, about["width"], targets)


def _places(sources: tuple[Path, ...], config: Features) -> dict[Path, Path]:
    """Return the output path of each table; refuse to overwrite files."""
    found: dict[Path, Path] = {}
    for source in sources:
        name = source.name.removesuffix(".gz")
        place = config.output / f"{name.rsplit('.', 1)[0] if '.' in name else name}.npz"
        if place in found.values():
            raise UserError(
                f"two sources would both be written as {place}", hint="rename one of them"
            )
        found[source] = place
    read = [*sources, config.ids, config.cells]
    outputs.check(*found.values(), inputs=read, overwrite=config.overwrite, parents=True)
    return found


def _targets(config: Features) -> list[str]:
    """Return the target genes of a screen's perturbations."""
    from vcell.data import detect, labels, open_cells

    assert config.cells is not None
    with open_cells(config.cells, config.layer) as source:
        detect.warn_of_repeated(source)
        found = labels.find(source, config)
        design = Design.read(source, found)
    return list(dict.fromkeys(g for n in design.names for g in members(n, found.control)))


def _write(place: Path, genes: list[str], values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    with outputs.whole(place) as aside, aside.open("wb") as file:
        arrays: dict[str, Any] = {"genes": np.array(genes, np.str_), "features": values}
        arrays[outputs.MADE_BY] = np.array(outputs.made_by())
        np.savez(file, **arrays)
