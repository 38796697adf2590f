"""Write a run's shifts as the files that Geneformer's InSilicoPerturberStats reads.

These files are pickles because upstream's tool reads nothing else. They contain only dicts, lists,
tuples, strings and floats. vcell writes them on request and never reads one.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from vcell import outputs
from vcell.errors import UserError
from vcell_isp.design import GROUP, IspDesign

if TYPE_CHECKING:
    import numpy as np

    from vcell.runs import Run


def export(run: Run, folder: Path) -> int:
    """Write one file per cell, ``in_silico_{operation}_{run}_dict_cell_embs_{n}batch1_raw.pickle``.

    Returns
    -------
    int
        The number of files.
    """
    design = IspDesign.load(run.path)
    check(folder)
    table = pq.read_table(run.path / "shifts.parquet").to_pandas()
    written: list[Path] = []
    for number, (_, rows) in enumerate(table.groupby("cell", sort=True)):
        keys = [_key(int(gene), design) for gene in rows["gene"]]
        content: dict[Any, Any]
        if design.targets:
            content = {
                state: _listed(keys, rows[f"shift_{state}"].to_numpy()) for state in design.targets
            }
        else:
            content = _listed(keys, rows["cosine"].to_numpy())
        name = f"in_silico_{design.operation}_{run.name}_dict_cell_embs_{number}batch1_raw.pickle"
        written.append(folder / name)
        try:
            with outputs.whole(written[-1], sync=False) as aside, aside.open("wb") as file:
                pickle.dump(content, file)
        except BaseException:  # upstream would read an incomplete folder
            for path in written:
                path.unlink(missing_ok=True)
            raise
    return len(written)


def check(folder: Path) -> None:
    """Refuse a folder that already has such files, or that is not writable."""
    outputs.check_folder(folder)
    if folder.exists() and any(folder.glob("*_raw.pickle")):
        raise UserError(
            f"{folder} holds such files already", hint="upstream would read both: name a new folder"
        )


def _key(gene: int, design: IspDesign) -> tuple[Any, str]:
    """Return upstream's key: the token or tokens perturbed together, and 'cell_emb'."""
    if gene == GROUP:
        return tuple(design.genes.tested), "cell_emb"
    if design.genes.anchor is not None:
        return (design.genes.anchor, gene), "cell_emb"
    return gene, "cell_emb"


def _listed(keys: list[Any], values: np.ndarray[Any, Any]) -> dict[Any, list[float]]:
    out: dict[Any, list[float]] = {}
    for key, value in zip(keys, values.tolist(), strict=True):
        out.setdefault(key, []).append(float(value))
    return out
