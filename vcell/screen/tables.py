"""Gene feature tables that users name: npz, parquet, csv, tsv (also gzipped) or h5ad.

A row for each gene: embeddings of GO, STRING, ESM2, GenePT ..., a map of genetic interactions, or
the effects in other cell lines.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.errors import UserError
from vcell.suggest import few
from vcell.text_files import require_file, suffix_of, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDEST = 256  # columns; wider tables are reduced to as many principal components
_GENES = ("genes", "gene_names", "gene", "names", "symbols", "index")
FORMATS = (
    "an .npz with `genes` and `features`, a .parquet, .csv or .tsv (.gz too) with the genes in "
    "its first column, or an .h5ad with a gene in each row"
)


def read(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Return the genes and their features (genes, F), all finite; other genes are dropped."""
    require_file(path)
    try:
        names, values = _READERS.get(suffix_of(path), _npz)(path)
        values = np.asarray(values, np.float64)
    except (KeyError, ValueError, OSError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a gene feature table: {error}", hint=FORMATS) from None
    if values.ndim == 2 and len(values) and not values.shape[1]:
        raise UserError(f"{path} has no column of numbers beside the genes", hint=FORMATS)
    if not len(values) and not len(names):
        raise UserError(f"{path} names no genes", hint=FORMATS)
    if values.ndim != 2 or len(values) != len(names) or not values.size:
        raise UserError(f"{path}: features has shape {values.shape}, for {len(names)} genes")
    kept = np.isfinite(values).all(axis=1)
    if not kept.any():
        raise UserError(f"{path}: no gene has finite features")
    names = [str(name) for name in np.asarray(names)]
    if lost := [name for name, there in zip(names, kept, strict=True) if not there]:
        console.warn(f"{path}: left out, with a feature that is missing or not finite: {few(lost)}")
    names, values = [name for name, there in zip(names, kept, strict=True) if there], values[kept]
    twice = len(names) - len(set(names))
    if twice:
        raise UserError(
            f"{path} names {console.count(twice, 'gene')} twice", hint="one row for each gene"
        )
    if len(names) > 1 and (values == values[0]).all():
        console.warn(f"{path} says nothing: its {len(names):,} genes have equal features")
    return names, _narrow(values)


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce a wide table to its leading principal components, which preserve distances."""
    if values.shape[1] <= _WIDEST:
        return values
    centred = values - values.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, ::-1][:, :_WIDEST])


def _npz(path: Path) -> tuple[Any, Any]:
    if not zipfile.is_zipfile(path):  # numpy would read it as a pickle
        raise ValueError("it is not an .npz file")
    with np.load(path, allow_pickle=False) as file:
        names = [key for key in _GENES if key in file.files] or [
            key for key in file.files if file[key].ndim == 1 and file[key].dtype.kind in "US"
        ]
        tables = [key for key in file.files if file[key].ndim == 2]
        if not names or not tables:
            raise ValueError(f"it lacks a {'table of numbers' if names else 'list of genes'}")
        table = "features" if "features" in tables else tables[0]
        return file[names[0]], file[table]


def _parquet(path: Path) -> tuple[Any, Any]:
    import pandas as pd

    return _columns(pd.read_parquet(path))


def _text(path: Path) -> tuple[Any, Any]:
    import pandas as pd

    with text_of(path) as file:
        text = file.read()
    if "\0" in text:  # pandas would end a cell there
        raise UserError(f"{path} is not a text file", hint=FORMATS)
    raw = io.BytesIO(text.encode())  # StringIO needs four bytes per character
    return _columns(pd.read_csv(raw, sep="\t" if suffix_of(path) == ".tsv" else ","))


def _columns(table: Any) -> tuple[Any, Any]:
    """Take genes from the index or the first column that is not numeric."""
    if table.index.dtype.kind not in "OUT":
        table = table.set_index(table.columns[0])
    numbers = table.select_dtypes("number")
    words = [str(name) for name in table.columns if name not in numbers.columns]
    if words:
        console.say(f"features: columns that are not all numbers are left out: {few(words)}")
    return table.index.astype(str).to_numpy(), numbers.to_numpy()


def _h5ad(path: Path) -> tuple[Any, Any]:
    from vcell.data import open_cells

    with open_cells(path) as source:
        rows = [block.toarray() for block in source.chunks()]
        return source.cells[:], np.concatenate(rows)


_READERS = {".npz": _npz, ".parquet": _parquet, ".h5ad": _h5ad, ".csv": _text, ".tsv": _text}


def is_table(path: Path) -> bool:
    """Whether a file of this name can be a gene feature table."""
    return suffix_of(path) in _READERS
